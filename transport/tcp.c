// SPDX-License-Identifier: MIT
/* The tcp wire: names to addresses, connecting, listening, socket options; the rest is the stream
 * engine's. A name's addresses are tried in the resolver's order, each for its share of the time that
 * is left, so that one dead address does not eat the deadline of a live one. A connection notices a
 * dead peer by keepalive while it is idle, and by TCP_USER_TIMEOUT while data is unacknowledged. */
#include "transport/tcp.h"

#include "core/base/bytes.h"
#include "core/base/clock.h"
#include "transport/backends.h"
#include "transport/listener.h"
#include "transport/preface.h"
#include "transport/stream.h"
#include "transport/stubs.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define CONNECT_NS (10 * GW_NS_PER_S)
#define PEER_TIMEOUT_NS (2 * GW_NS_PER_S)
/* Strangers wait in the backlog while we look elsewhere; net.core.somaxconn caps it. */
#define BACKLOG 4096
/* Two frames fit, so a sender sleeps for megabytes and not for packets. */
#define SEND_BUFFER_BYTES (8 << 20)

static gw_resolve_fn *resolve = getaddrinfo;

void gw_tcp_set_resolver(gw_resolve_fn *fn)
{
    resolve = fn ? fn : getaddrinfo;
}

/* ---- addresses ---- */

static void format_address(const struct sockaddr *address, socklen_t bytes, char *text, size_t max)
{
    char host[INET6_ADDRSTRLEN + IF_NAMESIZE + 2];
    char port[8];
    if (getnameinfo(address, bytes, host, sizeof(host), port, sizeof(port),
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        snprintf(text, max, "tcp:?");
    else if (address->sa_family == AF_INET6)
        snprintf(text, max, "tcp:[%s]:%s", host, port);
    else
        snprintf(text, max, "tcp:%s:%s", host, port);
}

static int look_up(const struct gw_uri *uri, int flags, struct addrinfo **list,
                   struct gw_error *err)
{
    char port[8];
    struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV | flags};
    snprintf(port, sizeof(port), "%u", uri->port);
    int rc = resolve(uri->host[0] ? uri->host : NULL, port, &hints, list);
    if (rc == 0)
        return 0;
    const char *why = rc == EAI_SYSTEM ? strerror(errno) : gai_strerror(rc);
    rc = gw_fail_code(err, rc == EAI_MEMORY ? -ENOMEM : -EHOSTUNREACH,
                      flags & AI_PASSIVE ? GW_CODE_LISTEN : GW_CODE_CONNECT, "%s: host '%s': %s",
                      uri->text, uri->host, why);
    gw_error_hint(err, "check the name, or write the address itself");
    return rc;
}

/* ---- options ---- */

static int set_option(int fd, int level, int name, int value)
{
    return setsockopt(fd, level, name, &value, sizeof(value)) < 0 ? -errno : 0;
}

/* Autotuning ends at tcp_wmem[2], often at 4 MiB; more is ours to ask for, and nobody's to grant. A
 * plain SO_SNDBUF ends at wmem_max, which is often below what autotuning would have reached: so it
 * is only tried by force. */
static void raise_send_buffer(int fd)
{
    set_option(fd, SOL_SOCKET, SO_SNDBUFFORCE, SEND_BUFFER_BYTES / 2); /* the kernel doubles it */
}

int gw_tcp_prepare(int fd, const struct gw_wire_config *config, struct gw_error *err)
{
    uint64_t timeout_ns = config->peer_timeout_ns ? config->peer_timeout_ns : PEER_TIMEOUT_NS;
    uint64_t timeout_s = (timeout_ns + GW_NS_PER_S - 1) / GW_NS_PER_S;
    /* Idle for 1 s, then a probe each second: the last is given up at the timeout. */
    int probes = (int)gw_max_u64(1, gw_min_u64(timeout_s - 1, 127));
    const struct {
        int level, name, value;
        const char *text;
    } options[] = {
        {IPPROTO_TCP, TCP_NODELAY, 1, "TCP_NODELAY"},
        {SOL_SOCKET, SO_KEEPALIVE, 1, "SO_KEEPALIVE"},
        {IPPROTO_TCP, TCP_KEEPIDLE, 1, "TCP_KEEPIDLE"},
        {IPPROTO_TCP, TCP_KEEPINTVL, 1, "TCP_KEEPINTVL"},
        {IPPROTO_TCP, TCP_KEEPCNT, probes, "TCP_KEEPCNT"},
        {IPPROTO_TCP, TCP_USER_TIMEOUT, (int)gw_min_u64(timeout_ns / GW_NS_PER_MS, INT32_MAX),
         "TCP_USER_TIMEOUT"},
    };
    for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
        int rc = set_option(fd, options[i].level, options[i].name, options[i].value);
        if (rc < 0)
            return gw_fail(err, rc, "set %s", options[i].text);
    }
    raise_send_buffer(fd);
    return 0;
}

/* ---- connecting ---- */

static int await_connected(int fd, uint64_t deadline_ns)
{
    struct pollfd pfd = {.fd = fd, .events = POLLOUT};
    for (;;) {
        int rc = gw_clock_poll(&pfd, 1, deadline_ns);
        if (rc < 0)
            return rc;
        if (rc > 0)
            break;
        if (gw_clock_ns() >= deadline_ns)
            return -ETIMEDOUT;
    }
    int error = 0;
    socklen_t bytes = sizeof(error);
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &bytes) < 0)
        return -errno;
    return -error;
}

/* A connected descriptor, or why this address did not give one. */
static int try_address(const struct addrinfo *ai, uint64_t deadline_ns)
{
    int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
    if (fd < 0)
        return -errno;
    int rc = connect(fd, ai->ai_addr, ai->ai_addrlen) < 0 ? -errno : 0;
    if (rc == -EINPROGRESS || rc == -EINTR)
        rc = await_connected(fd, deadline_ns);
    if (rc == 0)
        return fd;
    close(fd);
    return rc;
}

static int connect_any(const struct addrinfo *list, uint64_t deadline_ns, const char *uri,
                       char *peer, size_t peer_bytes, struct gw_error *err)
{
    unsigned left = 0;
    char tried[192] = "";
    int rc = -EADDRNOTAVAIL;

    for (const struct addrinfo *ai = list; ai; ai = ai->ai_next)
        left++;
    for (const struct addrinfo *ai = list; ai; ai = ai->ai_next, left--) {
        uint64_t now = gw_clock_ns();
        uint64_t share = deadline_ns > now ? (deadline_ns - now) / left : 0;
        format_address(ai->ai_addr, ai->ai_addrlen, peer, peer_bytes);
        rc = try_address(ai, now + share);
        if (rc >= 0)
            return rc;
        size_t used = strlen(tried);
        snprintf(tried + used, sizeof(tried) - used, "%s%s: %s", used ? "; " : "", peer,
                 strerror(-rc));
    }
    gw_fail_code(err, rc, GW_CODE_CONNECT, "%s: no connection (%s)", uri, tried);
    if (rc == -ECONNREFUSED)
        gw_error_hint(err, "is 'godwit receive' running there, on this port?");
    return rc;
}

int gw_tcp_dial(const struct gw_uri *uri, const struct gw_wire_config *config, uint64_t deadline_ns,
                char *peer, size_t peer_bytes, struct gw_error *err)
{
    struct addrinfo *list = NULL;

    int rc = look_up(uri, 0, &list, err);
    if (rc < 0)
        return rc;
    int fd = connect_any(list, deadline_ns, uri->text, peer, peer_bytes, err);
    freeaddrinfo(list);
    if (fd < 0)
        return fd;
    rc = gw_tcp_prepare(fd, config, err);
    if (rc == 0)
        rc = gw_preface_exchange(fd, config, deadline_ns, err);
    if (rc == 0)
        return fd;
    close(fd);
    gw_error_place(err, "%s", peer);
    gw_error_prefix(err, "%s", uri->text);
    return rc;
}

static int tcp_connect(struct gw_domain *dom, const struct gw_uri *uri,
                       const struct gw_wire_config *config, struct gw_endpoint **ep,
                       struct gw_error *err)
{
    uint64_t deadline_ns = config->deadline_ns ? config->deadline_ns : gw_clock_ns() + CONNECT_NS;
    char peer[128];
    int fd = gw_tcp_dial(uri, config, deadline_ns, peer, sizeof(peer), err);
    if (fd < 0)
        return fd;
    return gw_stream_new(&gw_tcp_ops, fd, dom, config, peer, ep, err);
}

/* ---- listening ---- */

void gw_tcp_name_peer(int fd, const struct sockaddr_storage *address, char *text, size_t bytes)
{
    (void)fd;
    format_address((const struct sockaddr *)address, sizeof(*address), text, bytes);
}

static const struct gw_listener_wire tcp_listener = {
    .ops = &gw_tcp_ops, .prepare = gw_tcp_prepare, .name_peer = gw_tcp_name_peer};

static uint16_t *port_of(struct sockaddr *address)
{
    return address->sa_family == AF_INET6 ? &((struct sockaddr_in6 *)(void *)address)->sin6_port
                                          : &((struct sockaddr_in *)(void *)address)->sin_port;
}

static int listen_on(const struct addrinfo *ai, bool alone)
{
    int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
    if (fd < 0)
        return -errno;
    int rc = set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    /* Beside an IPv4 socket of the same port, an IPv6 one must keep to its own. */
    if (rc == 0 && ai->ai_family == AF_INET6 && !alone)
        rc = set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    if (rc == 0 && (bind(fd, ai->ai_addr, ai->ai_addrlen) < 0 || listen(fd, BACKLOG) < 0))
        rc = -errno;
    if (rc == 0)
        return fd;
    close(fd);
    return rc;
}

static int bound_port(int fd, uint16_t *port)
{
    union {
        struct sockaddr any;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
    } address = {.in6 = {.sin6_family = AF_UNSPEC}};
    socklen_t bytes = sizeof(address);
    if (getsockname(fd, &address.any, &bytes) < 0)
        return -errno;
    *port = ntohs(address.any.sa_family == AF_INET6 ? address.in6.sin6_port : address.in.sin_port);
    return 0;
}

/* A socket for each address of the list, all on one port. What some of them cannot (an address that
 * another host has, a family that is switched off) is logged; none at all is an error. */
static int listen_all(struct addrinfo *list, const struct gw_wire_config *config, int *fds,
                      uint16_t *port)
{
    unsigned count = 0;
    int rc = -EADDRNOTAVAIL;
    for (struct addrinfo *ai = list; ai && count < GW_LISTEN_FDS_MAX; ai = ai->ai_next) {
        char text[128];
        *port_of(ai->ai_addr) = htons(*port);
        int fd = listen_on(ai, list->ai_next == NULL);
        if (fd >= 0 && *port == 0) {
            rc = bound_port(fd, port);
            gw_assert(rc == 0);
        }
        if (fd >= 0) {
            fds[count++] = fd;
            continue;
        }
        rc = fd;
        format_address(ai->ai_addr, ai->ai_addrlen, text, sizeof(text));
        gw_log_warn(config->log, "listener", "%s: not listening: %s", text, strerror(-rc));
        if (rc == -EADDRINUSE)
            break; /* a port that is half another's would take connections at random */
    }
    if (rc != -EADDRINUSE && count > 0)
        return (int)count;
    while (count > 0)
        close(fds[--count]);
    return rc;
}

int gw_tcp_bind(const struct gw_uri *uri, const struct gw_wire_config *config, int *fds,
                uint16_t *port, struct gw_error *err)
{
    struct addrinfo *list = NULL;
    int rc = look_up(uri, AI_PASSIVE, &list, err);
    if (rc < 0)
        return rc;
    *port = uri->port;
    int count = listen_all(list, config, fds, port);
    freeaddrinfo(list);
    if (count < 0) {
        gw_fail_code(err, count, GW_CODE_LISTEN, "%s: listen: %s", uri->text, strerror(-count));
        if (count == -EADDRINUSE)
            gw_error_hint(err, "another process has this port; port 0 takes any free one");
    }
    return count;
}

static int tcp_listen(const struct gw_uri *uri, const struct gw_wire_config *config,
                      struct gw_listener **ln, struct gw_error *err)
{
    int fds[GW_LISTEN_FDS_MAX] = {-1};
    char text[GW_URI_BYTES_MAX];
    uint16_t port;

    int count = gw_tcp_bind(uri, config, fds, &port, err);
    if (count < 0)
        return count;
    snprintf(text, sizeof(text), strchr(uri->host, ':') ? "tcp:[%s]:%u" : "tcp:%s:%u", uri->host,
             port);
    int rc = gw_listener_new(&tcp_listener, fds, (unsigned)count, text, config, NULL, ln, err);
    while (rc < 0 && count > 0)
        close(fds[--count]);
    return rc;
}

static int tcp_domain_open(const struct gw_wire_config *config, struct gw_domain **dom,
                           struct gw_error *err)
{
    (void)config;
    return gw_stream_domain_new(&gw_tcp_ops, dom, err);
}

const struct gw_transport_ops gw_tcp_ops = {
    .scheme = "tcp",
    .flags = GW_EP_ZERO_COPY | GW_EP_REPLIES | GW_EP_RECONNECTS,
    .domain_open = tcp_domain_open,
    .domain_close = gw_stream_domain_close,
    .connect = tcp_connect,
    .listen = tcp_listen,
    .listener_uri = gw_stream_listener_uri,
    .accept = gw_stream_accept,
    .listener_arm = gw_stream_listener_arm,
    .listener_awake = gw_stream_listener_awake,
    .listener_close = gw_stream_listener_close,
    .query = gw_stream_query,
    .error = gw_stream_error,
    .shutdown = gw_stream_shutdown,
    .revoke = gw_stream_revoke,
    .close = gw_stream_close,
    .mr_reg = gw_stream_mr_reg,
    .mr_dereg = gw_stream_mr_dereg,
    .mr_pack = gw_stub_mr_pack,
    .rmr_open = gw_stream_rmr_open,
    .rmr_close = gw_stream_rmr_close,
    .put = gw_stream_put,
    .get = gw_stub_get,
    .poll = gw_stream_poll,
    .send = gw_stream_send,
    .recv = gw_stream_recv,
    .arm = gw_stream_arm,
    .awake = gw_stream_awake,
};
