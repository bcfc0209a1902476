// SPDX-License-Identifier: MIT
/* Ports that are down. The connection manager knows addresses and routes, which go with an interface, so
 * what it says of a port that is down is "unreachable", or nothing in time: whoever hears that from it
 * asks the ports themselves. */
#include "transport/rdma/rdma.h"

#include <net/if.h>
#include <string.h>

#define GIDS_MAX 64

static bool is_active(struct ibv_context *verbs, uint8_t port)
{
    struct ibv_port_attr attr;
    return ibv_query_port(verbs, port, &attr) != 0 || attr.state == IBV_PORT_ACTIVE;
}

/* On Ethernet, of the interface under it; the GIDs know that one. */
static void find_interface(struct ibv_context *verbs, uint8_t port, char name[IF_NAMESIZE])
{
    struct ibv_gid_entry entries[GIDS_MAX];
    ssize_t count = ibv_query_gid_table(verbs, entries, GIDS_MAX, 0);
    name[0] = '\0';
    for (ssize_t i = 0; i < count && name[0] == '\0'; i++) {
        if (entries[i].port_num == port && entries[i].ndev_ifindex != 0)
            if_indextoname(entries[i].ndev_ifindex, name);
    }
}

int gw_rdma_check_port(struct ibv_context *verbs, uint8_t port, struct gw_error *err)
{
    char name[IF_NAMESIZE];
    if (is_active(verbs, port))
        return 0;
    int rc = gw_fail_code(err, -ENETDOWN, GW_CODE_LINK_DOWN, "the port of %s is down",
                          ibv_get_device_name(verbs->device));
    find_interface(verbs, port, name);
    if (name[0])
        gw_error_hint(err, "ip link set dev %s up; if that does not help: its cable, the switch",
                      name);
    else
        gw_error_hint(err, "its cable, the switch? 'rdma link' and 'ip link' list what is down");
    return rc;
}

/* One port that is up may be the way, and then this knows nothing. */
static int check_device(struct ibv_device *device, struct gw_error *err)
{
    struct ibv_device_attr attr;
    struct ibv_context *verbs = ibv_open_device(device);
    int rc = 0;
    if (verbs && ibv_query_device(verbs, &attr) == 0) {
        for (unsigned port = attr.phys_port_cnt; port >= 1; port--) {
            rc = gw_rdma_check_port(verbs, (uint8_t)port, err);
            if (rc == 0)
                break;
        }
    }
    if (verbs)
        ibv_close_device(verbs);
    return rc;
}

int gw_rdma_check_ports(const char *device, struct gw_error *err)
{
    struct gw_error why = GW_ERROR_INIT;
    int count = 0, rc = 0;
    struct ibv_device **list = ibv_get_device_list(&count);
    for (int i = 0; i < count; i++) {
        if (device && device[0] && strcmp(ibv_get_device_name(list[i]), device) != 0)
            continue;
        rc = check_device(list[i], &why);
        if (rc == 0)
            break;
    }
    if (list)
        ibv_free_device_list(list);
    if (rc < 0)
        gw_error_copy(err, &why);
    return rc;
}
