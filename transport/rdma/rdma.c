// SPDX-License-Identifier: MIT
/* The rdma wire's table of operations. What it is made of: rdma.h. */
#include "transport/rdma/rdma.h"

#include "transport/backends.h"
#include "transport/stubs.h"

const struct gw_transport_ops gw_rdma_ops = {
    .scheme = "rdma",
    .flags = GW_EP_ONE_SIDED | GW_EP_ZERO_COPY | GW_EP_PINS | GW_EP_REPLIES | GW_EP_RECONNECTS,
    .domain_open = gw_rdma_domain_open,
    .domain_close = gw_rdma_domain_close,
    .connect = gw_rdma_connect,
    .listen = gw_rdma_listen,
    .listener_uri = gw_rdma_listener_uri,
    .accept = gw_rdma_accept,
    .listener_arm = gw_rdma_listener_arm,
    .listener_awake = gw_rdma_listener_awake,
    .listener_close = gw_rdma_listener_close,
    .query = gw_rdma_ep_query,
    .error = gw_rdma_ep_error,
    .shutdown = gw_rdma_ep_shutdown,
    .revoke = gw_rdma_ep_revoke,
    .close = gw_rdma_ep_close,
    .mr_reg = gw_rdma_mr_reg,
    .mr_dereg = gw_rdma_mr_dereg,
    .mr_pack = gw_rdma_mr_pack,
    .rmr_open = gw_rdma_rmr_open,
    .rmr_close = gw_rdma_rmr_close,
    .put = gw_rdma_put,
    .get = gw_stub_get,
    .poll = gw_rdma_poll,
    .send = gw_rdma_send,
    .recv = gw_rdma_recv,
    .arm = gw_rdma_arm,
    .awake = gw_rdma_awake,
};
