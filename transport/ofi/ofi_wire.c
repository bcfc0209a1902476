// SPDX-License-Identifier: MIT
/* The wire ofi:PROVIDER:host:port. Every connection begins as one of tcp at host:port, admitted by a
 * preface like any other; endpoint 0 stays that and carries messages as streams do, the others become
 * endpoints of libfabric's. A provider that cannot carry a migration is refused before anything is
 * sent: by listen, and by the connect of endpoint 0. */
#include "transport/ofi/ofi_impl.h"

#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "transport/listener.h"
#include "transport/stream.h"
#include "transport/stubs.h"
#include "transport/tcp.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define CONNECT_NS (10 * GW_NS_PER_S)

static const struct gw_transport_ops control_ops;

static int new_control(int fd, struct gw_domain *dom, const struct gw_wire_config *config,
                       const char *peer, struct gw_endpoint **ep, struct gw_error *err)
{
    return gw_stream_new(&control_ops, fd, gw_ofi_domain_of(dom)->streams, config, peer, ep, err);
}

static int ofi_connect(struct gw_domain *dom, const struct gw_uri *uri,
                       const struct gw_wire_config *config, struct gw_endpoint **ep,
                       struct gw_error *err)
{
    struct gw_wire_config mine = *config;
    char peer[128];
    if (mine.deadline_ns == 0)
        mine.deadline_ns = gw_clock_ns() + CONNECT_NS;
    int rc = config->index == 0 ? gw_ofi_check(uri->provider, err) : 0;
    if (rc < 0) {
        gw_error_prefix(err, "%s", uri->text);
        return rc;
    }
    int fd = gw_tcp_dial(uri, &mine, mine.deadline_ns, peer, sizeof(peer), err);
    if (fd < 0)
        return fd;
    if (config->index == 0)
        return new_control(fd, dom, &mine, peer, ep, err);
    rc = gw_ofi_ep_new(fd, dom, uri->provider, &mine, peer, true, ep, err);
    if (rc < 0)
        gw_error_prefix(err, "%s", uri->text);
    return rc;
}

static int endpoint_new(struct gw_stream_listener *ln, int fd, struct gw_domain *dom,
                        const struct gw_wire_config *config, const char *peer,
                        struct gw_endpoint **ep, struct gw_error *err)
{
    if (config->index == 0)
        return new_control(fd, dom, config, peer, ep, err);
    return gw_ofi_ep_new(fd, dom, gw_listener_wire_ctx(ln), config, peer, false, ep, err);
}

static const struct gw_listener_wire ofi_listener = {.ops = &gw_ofi_ops,
                                                     .prepare = gw_tcp_prepare,
                                                     .name_peer = gw_tcp_name_peer,
                                                     .endpoint_new = endpoint_new};

static int ofi_listen(const struct gw_uri *uri, const struct gw_wire_config *config,
                      struct gw_listener **ln, struct gw_error *err)
{
    int fds[GW_LISTEN_FDS_MAX] = {-1};
    char text[GW_URI_BYTES_MAX];
    uint16_t port;
    int rc = gw_ofi_check(uri->provider, err);
    if (rc < 0) {
        gw_error_prefix(err, "%s: listen", uri->text);
        return rc;
    }
    char *provider = gw_strdup(uri->provider);
    if (!provider)
        return gw_fail(err, -ENOMEM, "%s: listen", uri->text);
    int count = gw_tcp_bind(uri, config, fds, &port, err);
    if (count < 0) {
        gw_free(provider);
        return count;
    }
    snprintf(text, sizeof(text), strchr(uri->host, ':') ? "ofi:%s:[%s]:%u" : "ofi:%s:%s:%u",
             uri->provider, uri->host, port);
    rc = gw_listener_new(&ofi_listener, fds, (unsigned)count, text, config, provider, ln, err);
    if (rc == 0)
        return 0;
    while (count > 0)
        close(fds[--count]);
    gw_free(provider);
    return rc;
}

#define SHARED_OPS                                                                                 \
    .scheme = "ofi", .domain_open = gw_ofi_domain_open, .domain_close = gw_ofi_domain_close,       \
    .connect = ofi_connect, .listen = ofi_listen, .listener_uri = gw_stream_listener_uri,          \
    .accept = gw_stream_accept, .listener_arm = gw_stream_listener_arm,                            \
    .listener_awake = gw_stream_listener_awake, .listener_close = gw_stream_listener_close,        \
    .mr_reg = gw_ofi_mr_reg, .mr_dereg = gw_ofi_mr_dereg, .mr_pack = gw_ofi_mr_pack,               \
    .rmr_open = gw_ofi_rmr_open, .rmr_close = gw_ofi_rmr_close, .get = gw_stub_get

/* Of endpoint 0. Its put is the streams' and is not used: its peer has no region there. */
static const struct gw_transport_ops control_ops = {
    SHARED_OPS,
    .flags = GW_EP_ZERO_COPY | GW_EP_REPLIES | GW_EP_RECONNECTS,
    .query = gw_stream_query,
    .error = gw_stream_error,
    .shutdown = gw_stream_shutdown,
    .revoke = gw_stream_revoke,
    .close = gw_stream_close,
    .put = gw_stream_put,
    .poll = gw_stream_poll,
    .send = gw_stream_send,
    .recv = gw_stream_recv,
    .arm = gw_stream_arm,
    .awake = gw_stream_awake,
};

const struct gw_transport_ops gw_ofi_ops = {
    SHARED_OPS,
    .flags = GW_EP_ONE_SIDED | GW_EP_ZERO_COPY | GW_EP_REPLIES | GW_EP_RECONNECTS,
    .query = gw_ofi_query,
    .error = gw_ofi_error,
    .shutdown = gw_ofi_shutdown,
    .revoke = gw_ofi_revoke,
    .close = gw_ofi_close,
    .put = gw_ofi_put,
    .poll = gw_ofi_poll,
    .send = gw_ofi_send,
    .recv = gw_ofi_recv,
    .arm = gw_ofi_arm,
    .awake = gw_ofi_awake,
};
