// SPDX-License-Identifier: MIT
/* Which device, which of its addresses, and why. Left alone, the kernel's routes choose: an address to
 * connect to leads to an interface, that to its RDMA device, and the address to one of its GIDs. A
 * device or GID that was asked for chooses the address to connect from instead, and so the rest. What
 * came of it is one line in the log. */
#include "transport/rdma/rdma.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#define GIDS_MAX 256

void gw_rdma_format(const struct sockaddr *address, char *text, size_t bytes)
{
    char host[INET6_ADDRSTRLEN] = "?";
    if (address->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)address;
        inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host));
        snprintf(text, bytes, "rdma:%s:%u", host, ntohs(in->sin_port));
        return;
    }
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)address;
    char zone[IF_NAMESIZE + 1] = "";
    if (address->sa_family == AF_INET6)
        inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof(host));
    if (address->sa_family == AF_INET6 && in6->sin6_scope_id != 0) {
        zone[0] = '%';
        if (!if_indextoname(in6->sin6_scope_id, zone + 1))
            zone[0] = '\0';
    }
    snprintf(text, bytes, "rdma:[%s%s]:%u", host, zone, ntohs(in6->sin6_port));
}

/* ---- GIDs ------------------------------------------------------------------------------------------------ */

static bool is_v4(const union ibv_gid *gid)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    return memcmp(gid->raw, mapped, sizeof(mapped)) == 0;
}

static bool is_link_local(const union ibv_gid *gid)
{
    return gid->raw[0] == 0xfe && (gid->raw[1] & 0xc0) == 0x80;
}

static void address_of(const struct ibv_gid_entry *entry, struct sockaddr_storage *address)
{
    memset(address, 0, sizeof(*address));
    if (is_v4(&entry->gid)) {
        struct sockaddr_in *in = (struct sockaddr_in *)(void *)address;
        in->sin_family = AF_INET;
        memcpy(&in->sin_addr, entry->gid.raw + 12, 4);
    } else {
        struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)(void *)address;
        in6->sin6_family = AF_INET6;
        memcpy(&in6->sin6_addr, entry->gid.raw, 16);
        if (is_link_local(&entry->gid))
            in6->sin6_scope_id = entry->ndev_ifindex;
    }
}

static const char *type_name(uint32_t type)
{
    return type == IBV_GID_TYPE_ROCE_V2   ? "RoCE v2"
           : type == IBV_GID_TYPE_ROCE_V1 ? "RoCE v1"
                                          : "InfiniBand";
}

struct wish {
    const char *device; /* "": any */
    unsigned gid;       /* 1 + its index, 0: any */
    int family;         /* AF_UNSPEC: any, IPv4 before IPv6 */
    bool device_seen, gid_seen;
    int rank; /* of the best so far */
    struct sockaddr_storage address;
};

/* IPv4 before global IPv6 before link-local, which needs a zone at the peer; 0: useless. */
static int rank_of(const struct wish *wish, const struct ibv_gid_entry *entry)
{
    int family = is_v4(&entry->gid) ? AF_INET : AF_INET6;
    if (entry->gid_type != IBV_GID_TYPE_ROCE_V2)
        return 0; /* InfiniBand's addresses are its interface's, not its GIDs */
    if (wish->family != AF_UNSPEC && wish->family != family)
        return 0;
    if (wish->gid != 0 && wish->gid != entry->gid_index + 1)
        return 0;
    return family == AF_INET ? 3 : is_link_local(&entry->gid) ? 1 : 2;
}

static void look_at_device(struct wish *wish, struct ibv_device *device)
{
    struct ibv_gid_entry entries[GIDS_MAX];
    struct ibv_context *verbs = ibv_open_device(device);
    ssize_t count = verbs ? ibv_query_gid_table(verbs, entries, GIDS_MAX, 0) : 0;
    for (ssize_t i = 0; i < count; i++) {
        int rank = rank_of(wish, &entries[i]);
        wish->gid_seen = wish->gid_seen || wish->gid == entries[i].gid_index + 1;
        if (rank > wish->rank) {
            wish->rank = rank;
            address_of(&entries[i], &wish->address);
        }
    }
    if (verbs)
        ibv_close_device(verbs);
}

static void look_at_devices(struct wish *wish)
{
    int count = 0;
    struct ibv_device **list = ibv_get_device_list(&count);
    for (int i = 0; i < count; i++) {
        if (wish->device[0] && strcmp(ibv_get_device_name(list[i]), wish->device) != 0)
            continue;
        wish->device_seen = true;
        look_at_device(wish, list[i]);
    }
    if (list)
        ibv_free_device_list(list);
}

static int disappoint(const struct wish *wish, struct gw_error *err)
{
    char none[IBV_SYSFS_NAME_MAX + 16] = "no RDMA device has a";
    int rc = -ENODEV;
    if (wish->device[0])
        snprintf(none, sizeof(none), "%s has no", wish->device);
    if (wish->device[0] && !wish->device_seen)
        gw_fail_code(err, rc, GW_CODE_INVALID, "rdma-device=%s: there is no such device",
                     wish->device);
    else if (wish->gid != 0 && !wish->gid_seen)
        gw_fail_code(err, rc, GW_CODE_INVALID, "rdma-gid-index=%u: %s GID of that index",
                     wish->gid - 1, none);
    else
        gw_fail_code(err, rc, GW_CODE_UNSUPPORTED, "%s RoCE v2 address of the family wanted%s",
                     none, wish->gid ? " at that GID index" : "");
    gw_error_hint(err, "'ibv_devices' lists devices, 'rdma link' and 'ibv_devinfo -v' their GIDs");
    return rc;
}

int gw_rdma_check_device(const struct gw_wire_config *config, struct gw_error *err)
{
    struct wish wish = {.device = config->rdma_device ? config->rdma_device : ""};
    if (!wish.device[0])
        return 0;
    look_at_devices(&wish);
    return wish.device_seen ? 0 : disappoint(&wish, err);
}

int gw_rdma_source(const struct gw_wire_config *config, int family, struct sockaddr_storage *from,
                   struct gw_error *err)
{
    struct wish wish = {.device = config->rdma_device ? config->rdma_device : "",
                        .gid = config->rdma_gid,
                        .family = family};
    if (!wish.device[0] && wish.gid == 0)
        return 0;
    look_at_devices(&wish);
    if (wish.rank == 0)
        return disappoint(&wish, err);
    *from = wish.address;
    return 1;
}

int gw_rdma_any_address(const struct gw_wire_config *config, struct sockaddr_storage *address,
                        struct gw_error *err)
{
    struct wish wish = {.device = config->rdma_device ? config->rdma_device : "",
                        .gid = config->rdma_gid};
    look_at_devices(&wish);
    if (wish.rank == 0)
        return disappoint(&wish, err);
    *address = wish.address;
    return 0;
}

int gw_rdma_check_gid(const struct gw_rdma_ep *e, const struct gw_wire_config *config,
                      const struct ibv_qp_attr *attr, struct gw_error *err)
{
    struct ibv_gid_entry entry = {.gid_type = IBV_GID_TYPE_IB};
    char gid[INET6_ADDRSTRLEN] = "?";
    unsigned index = attr->ah_attr.grh.sgid_index;
    (void)ibv_query_gid_ex(e->dom->verbs, attr->ah_attr.port_num, index, &entry, 0);
    inet_ntop(AF_INET6, entry.gid.raw, gid, sizeof(gid));
    if (config->rdma_gid != 0 && index + 1 != config->rdma_gid)
        return gw_fail_code(err, -EINVAL, GW_CODE_INVALID,
                            "rdma-gid-index=%u: the way to %s begins at GID %u (%s) of %s",
                            config->rdma_gid - 1, e->peer, index, gid, e->dom->device);
    /* The first says it to the operator; the others are very likely the same. */
    enum gw_log_level level =
        atomic_exchange_explicit(&e->dom->is_way_told, true, memory_order_relaxed) ? GW_LOG_DEBUG
                                                                                   : GW_LOG_INFO;
    gw_log(e->log, level, "rdma",
           "endpoint %u to %s: device %s, port %u, GID index %u (%s, %s), path MTU %u bytes: %s",
           e->preface.index, e->peer, e->dom->device, attr->ah_attr.port_num, index, gid,
           type_name(entry.gid_type), 128u << attr->path_mtu,
           config->rdma_gid != 0                           ? "as rdma-gid-index says"
           : config->rdma_device && config->rdma_device[0] ? "as rdma-device says"
           : e->is_active                                  ? "by the route to the peer"
                                                           : "by the address it came to");
    return 0;
}
