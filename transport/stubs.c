// SPDX-License-Identifier: MIT
/* Ops that a backend lacks, so that every table is complete and no caller tests for NULL. They say
 * that the wire cannot do it, or do nothing where nothing is the truth. */
#include "transport/stubs.h"

int gw_stub_listen(const struct gw_uri *uri, const struct gw_wire_config *config,
                   struct gw_listener **ln, struct gw_error *err)
{
    (void)config;
    (void)ln;
    return gw_fail(err, -EOPNOTSUPP, "%s: this wire cannot be listened on", uri->text);
}

const char *gw_stub_listener_uri(const struct gw_listener *ln)
{
    (void)ln;
    return "";
}

int gw_stub_accept(struct gw_listener *ln, gw_admit_fn *admit, void *admit_ctx,
                   struct gw_endpoint **ep, struct gw_error *err)
{
    (void)ln;
    (void)admit;
    (void)admit_ctx;
    (void)ep;
    return gw_fail(err, -EOPNOTSUPP, "this wire accepts no connections");
}

int gw_stub_listener_arm(struct gw_listener *ln, struct pollfd *fds, unsigned max,
                         uint64_t *wake_ns)
{
    (void)ln;
    (void)fds;
    (void)max;
    (void)wake_ns;
    return 0;
}

void gw_stub_listener_awake(struct gw_listener *ln, const struct pollfd *fds, unsigned count)
{
    (void)ln;
    (void)fds;
    (void)count;
}

void gw_stub_listener_close(struct gw_listener *ln)
{
    (void)ln;
}

int gw_stub_mr_pack(const struct gw_mr *mr, void *key)
{
    (void)mr;
    (void)key;
    return 0;
}

int gw_stub_get(struct gw_endpoint *ep, const struct gw_get *gets, unsigned count)
{
    (void)ep;
    (void)gets;
    (void)count;
    return -EOPNOTSUPP;
}
