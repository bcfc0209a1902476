// SPDX-License-Identifier: MIT
/* The doctor's look at the way to a peer, as the connection manager would go it: the host's name, then
 * the device and address that the kernel's routes choose, then the path. No connection is made: that
 * is asked by whoever listens there. */
#include "core/base/clock.h"
#include "core/base/error.h"
#include "transport/wire_report.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <rdma/rdma_cma.h>
#include <stdio.h>
#include <string.h>

#define GW_PATH_MS 500 /* each of the two questions stays in this host or its network */

struct path {
    struct rdma_event_channel *channel;
    struct rdma_cm_id *id;
};

static void path_close(struct path *path)
{
    if (path->id)
        rdma_destroy_id(path->id);
    if (path->channel)
        rdma_destroy_event_channel(path->channel);
}

static int path_open(struct path *path)
{
    path->channel = rdma_create_event_channel();
    if (!path->channel || fcntl(path->channel->fd, F_SETFL, O_NONBLOCK) < 0 ||
        rdma_create_id(path->channel, &path->id, NULL, RDMA_PS_TCP) < 0)
        return -errno;
    return 0;
}

/* Until @wanted comes; what comes instead says why not. */
static int path_await(struct path *path, enum rdma_cm_event_type wanted)
{
    uint64_t until_ns = gw_clock_ns() + UINT64_C(2) * GW_PATH_MS * GW_NS_PER_MS;
    struct rdma_cm_event *event = NULL;

    while (rdma_get_cm_event(path->channel, &event) < 0) {
        struct pollfd fd = {.fd = path->channel->fd, .events = POLLIN};
        if (errno != EAGAIN && errno != EINTR)
            return -errno;
        if (gw_clock_ns() >= until_ns)
            return -ETIMEDOUT;
        gw_clock_poll(&fd, 1, until_ns);
    }
    int rc = event->event == wanted ? 0 : event->status < 0 ? event->status : -EHOSTUNREACH;
    rdma_ack_cm_event(event);
    return rc;
}

static int path_resolve(struct path *path, struct sockaddr *to)
{
    int rc = rdma_resolve_addr(path->id, NULL, to, GW_PATH_MS) < 0 ? -errno : 0;

    if (rc == 0)
        rc = path_await(path, RDMA_CM_EVENT_ADDR_RESOLVED);
    if (rc == 0 && rdma_resolve_route(path->id, GW_PATH_MS) < 0)
        rc = -errno;
    return rc < 0 ? rc : path_await(path, RDMA_CM_EVENT_ROUTE_RESOLVED);
}

static void address_text(struct sockaddr *address, char text[NI_MAXHOST])
{
    socklen_t bytes =
        address->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);

    if (getnameinfo(address, bytes, text, NI_MAXHOST, NULL, 0, NI_NUMERICHOST) != 0)
        snprintf(text, NI_MAXHOST, "?");
}

static void report_unreached(const char *host, int rc, bool needed, struct gw_findings *all)
{
    struct gw_fix fix = {0};

    if (rc == -ENODEV || rc == -ENETUNREACH || rc == -EADDRNOTAVAIL)
        gw_fix_note(&fix,
                    "the route there leaves by an interface without RDMA: `ip route get %s` "
                    "says which; use an address of the peer on the RDMA network, or make a "
                    "device on that interface (rdma link add)",
                    host);
    else
        gw_fix_note(&fix,
                    "no answer to the question for its address: is that host up, and its "
                    "address one of the RDMA network? `ping %s`",
                    host);
    gw_find_bad(all, "rdma path", needed, &fix, "no path to %s: %s", host, strerrordesc_np(-rc));
}

static void report_address(struct addrinfo *to, bool needed, struct gw_findings *all)
{
    char there[NI_MAXHOST], here[NI_MAXHOST];
    struct path path = {0};
    int rc = path_open(&path);

    address_text(to->ai_addr, there);
    if (rc == 0)
        rc = path_resolve(&path, to->ai_addr);
    if (rc == 0) {
        address_text(rdma_get_local_addr(path.id), here);
        gw_find_ok(all, "rdma path", needed, "to %s from %s by %s/%u", there, here,
                   ibv_get_device_name(path.id->verbs->device), path.id->port_num);
    } else {
        report_unreached(there, rc, needed, all);
    }
    path_close(&path);
}

/* Without a device there is no path, and that was told; a needed one is told again. */
void gw_rdma_report_path(const struct gw_uri *uri, bool needed, struct gw_findings *all)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *to = NULL;
    struct gw_fix fix = {0};
    struct path path = {0};
    int rc = path_open(&path);

    path_close(&path);
    if (rc < 0 && !needed)
        return;
    rc = getaddrinfo(uri->host, NULL, &hints, &to);
    if (rc != 0) {
        gw_fix_note(&fix, "write the address in numbers, or mend the name (/etc/hosts, DNS)");
        gw_find_bad(all, "rdma path", needed, &fix, "%s: %s", uri->host, gai_strerror(rc));
        return;
    }
    report_address(to, needed, all);
    freeaddrinfo(to);
}
