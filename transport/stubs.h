/* SPDX-License-Identifier: MIT */
/* transport/stubs.h - what a backend puts into its table where it has nothing of its own. */
#ifndef GW_TRANSPORT_STUBS_H
#define GW_TRANSPORT_STUBS_H

#include "transport/ops.h"

int gw_stub_listen(const struct gw_uri *uri, const struct gw_wire_config *config,
                   struct gw_listener **ln, struct gw_error *err); /* -EOPNOTSUPP */
const char *gw_stub_listener_uri(const struct gw_listener *ln);    /* "" */
int gw_stub_accept(struct gw_listener *ln, gw_admit_fn *admit, void *admit_ctx,
                   struct gw_endpoint **ep, struct gw_error *err); /* -EOPNOTSUPP */
int gw_stub_listener_arm(struct gw_listener *ln, struct pollfd *fds, unsigned max,
                         uint64_t *wake_ns); /* 0 */
void gw_stub_listener_awake(struct gw_listener *ln, const struct pollfd *fds, unsigned count);
void gw_stub_listener_close(struct gw_listener *ln);
int gw_stub_mr_pack(const struct gw_mr *mr, void *key); /* 0: no key is needed */
int gw_stub_get(struct gw_endpoint *ep, const struct gw_get *gets,
                unsigned count); /* -EOPNOTSUPP */

#endif
