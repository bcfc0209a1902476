// SPDX-License-Identifier: MIT
/* The doctor's look at one port: is it active, how long are its packets, and by which addresses (GIDs)
 * can it be reached. On Ethernet all three come from the interface under it, so fixes speak of that. */
#include "core/base/error.h"
#include "transport/rdma/rdma_report.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>

#define GW_REPORT_GIDS 64 /* a port of Ethernet has two or so for each address */

/* Ethernet's MTU that carries RoCE packets of 4096 bytes with their headers. */
#define GW_REPORT_ETHERNET_MTU 4200

struct port {
    const char *device;
    uint8_t number;
    struct ibv_port_attr attr;
    struct ibv_gid_entry gids[GW_REPORT_GIDS];
    ssize_t gid_count;
    char netdev[IF_NAMESIZE]; /* "" on InfiniBand */
    char label[72];           /* "rxe0/1" */
};

static unsigned mtu_bytes(enum ibv_mtu mtu)
{
    return mtu >= IBV_MTU_256 && mtu <= IBV_MTU_4096 ? 128u << mtu : 0;
}

/* ---- GIDs ------------------------------------------------------------------------------------- */

static bool is_link_local(const union ibv_gid *gid)
{
    return gid->raw[0] == 0xfe && (gid->raw[1] & 0xc0) == 0x80;
}

/* rdma_cm takes RoCE v2 by itself; a v1 entry does not leave the local network. */
static bool is_reachable(const struct ibv_gid_entry *entry)
{
    return entry->gid_type == IBV_GID_TYPE_IB ||
           (entry->gid_type == IBV_GID_TYPE_ROCE_V2 && !is_link_local(&entry->gid));
}

static void add_gid(char *text, size_t bytes, const struct ibv_gid_entry *entry)
{
    static const char *const types[] = {"IB", "RoCE v1", "RoCE v2"};
    const struct in6_addr *address = (const struct in6_addr *)(const void *)entry->gid.raw;
    bool v4 = IN6_IS_ADDR_V4MAPPED(address);
    char host[INET6_ADDRSTRLEN];
    size_t used = strlen(text);

    inet_ntop(v4 ? AF_INET : AF_INET6, v4 ? entry->gid.raw + 12 : entry->gid.raw, host,
              sizeof(host));
    snprintf(text + used, bytes - used, "%s%u: %s %s", used ? ", " : "", entry->gid_index,
             entry->gid_type < 3 ? types[entry->gid_type] : "?", host);
}

static void report_gids(const struct port *port, bool needed, struct gw_findings *all)
{
    struct gw_fix fix = {0};
    char topic[96], text[900] = "";
    bool reachable = false;

    for (ssize_t i = 0; i < port->gid_count; i++) {
        add_gid(text, sizeof(text), &port->gids[i]);
        reachable = reachable || is_reachable(&port->gids[i]);
    }
    snprintf(topic, sizeof(topic), "rdma gids %s", port->label);
    if (reachable) {
        gw_find_ok(all, topic, needed, "%s", text);
        return;
    }
    if (port->netdev[0] != '\0')
        gw_fix_command(&fix, "%sip addr add 192.168.77.1/24 dev %s", gw_fix_sudo(), port->netdev);
    gw_fix_note(&fix,
                "an address of your network: the one here is an example; each host has its own");
    gw_find_bad(all, topic, needed, &fix,
                "%s%sno GID with an address that another host could reach", text,
                text[0] ? ": " : "");
}

/* ---- state and MTU ---------------------------------------------------------------------------- */

static void report_state(const struct port *port, bool needed, struct gw_findings *all)
{
    bool ethernet = port->attr.link_layer == IBV_LINK_LAYER_ETHERNET;
    struct gw_fix fix = {0};
    char topic[96];

    snprintf(topic, sizeof(topic), "rdma port %s", port->label);
    if (port->attr.state == IBV_PORT_ACTIVE) {
        gw_find_ok(all, topic, needed, "active, %s%s%s", ethernet ? "Ethernet" : "InfiniBand",
                   port->netdev[0] ? ", on " : "", port->netdev);
        return;
    }
    if (port->netdev[0] != '\0')
        gw_fix_command(&fix, "%sip link set dev %s up", gw_fix_sudo(), port->netdev);
    gw_fix_note(&fix, "%s",
                ethernet ? "if that does not help: the cable, the switch"
                         : "the cable, and a subnet manager on the fabric");
    gw_find_bad(all, topic, needed, &fix, "%s%s%s", ibv_port_state_str(port->attr.state),
                port->netdev[0] ? ", on " : "", port->netdev);
}

static unsigned netdev_mtu(const char *netdev)
{
    char path[80], line[16];
    unsigned mtu = 0;

    snprintf(path, sizeof(path), "/sys/class/net/%s/mtu", netdev);
    return gw_read_line(path, line, sizeof(line)) == 0 && sscanf(line, "%u", &mtu) == 1 ? mtu : 0;
}

static void report_mtu(const struct port *port, struct gw_findings *all)
{
    unsigned active = mtu_bytes(port->attr.active_mtu), most = mtu_bytes(port->attr.max_mtu);
    unsigned ethernet = port->netdev[0] ? netdev_mtu(port->netdev) : 0;
    struct gw_fix fix = {0};
    char topic[96], under[64] = "";

    snprintf(topic, sizeof(topic), "rdma mtu %s", port->label);
    if (ethernet)
        snprintf(under, sizeof(under), "; %s has %u", port->netdev, ethernet);
    if (active >= most) {
        gw_find_ok(all, topic, false, "%u bytes%s", active, under);
        return;
    }
    if (ethernet) {
        gw_fix_command(&fix, "%sip link set dev %s mtu %u", gw_fix_sudo(), port->netdev,
                       GW_REPORT_ETHERNET_MTU);
        gw_fix_note(&fix, "at both hosts, and every switch between must carry it (9000 is usual)");
    } else {
        gw_fix_note(&fix, "the subnet manager sets it");
    }
    gw_find_bad(all, topic, false, &fix, "%u bytes of %u%s: more packets, and slower", active, most,
                under);
}

void gw_rdma_report_port(struct ibv_context *context, const char *device, uint8_t number,
                         bool needed, struct gw_findings *all)
{
    struct port port = {.device = device, .number = number};
    struct ibv_gid_entry table[GW_REPORT_GIDS];
    struct gw_fix fix = {0};
    int rc = ibv_query_port(context, number, &port.attr);

    snprintf(port.label, sizeof(port.label), "%s/%u", device, number);
    if (rc != 0) {
        gw_find_bad(all, port.label, needed, &fix, "query of the port: %s", strerrordesc_np(rc));
        return;
    }
    ssize_t count = ibv_query_gid_table(context, table, GW_REPORT_GIDS, 0);
    for (ssize_t i = 0; i < count; i++) {
        if (table[i].port_num != number)
            continue;
        port.gids[port.gid_count++] = table[i];
        if (port.netdev[0] == '\0' && table[i].ndev_ifindex != 0)
            if_indextoname(table[i].ndev_ifindex, port.netdev);
    }
    report_state(&port, needed, all);
    report_mtu(&port, all);
    report_gids(&port, needed, all);
}
