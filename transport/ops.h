/* SPDX-License-Identifier: MIT */
/* transport/ops.h - what a backend implements. Semantics: transport.h, function by function; each op
 * is the like-named gw_ call. Tables are static const and complete: absent ops come from stubs.c,
 * so no caller tests for NULL. Backends are compiled in; the list is in transport.c. */
#ifndef GW_TRANSPORT_OPS_H
#define GW_TRANSPORT_OPS_H

#include "transport/transport.h"

struct gw_transport_ops {
    const char *scheme; /* "tcp" in tcp:host:port */
    uint32_t flags;     /* GW_EP_* that all its endpoints have */

    int (*domain_open)(const struct gw_wire_config *config, struct gw_domain **dom,
                       struct gw_error *err);
    void (*domain_close)(struct gw_domain *dom);
    int (*connect)(struct gw_domain *dom, const struct gw_uri *uri,
                   const struct gw_wire_config *config, struct gw_endpoint **ep,
                   struct gw_error *err);
    int (*listen)(const struct gw_uri *uri, const struct gw_wire_config *config,
                  struct gw_listener **ln, struct gw_error *err);
    const char *(*listener_uri)(const struct gw_listener *ln);
    int (*accept)(struct gw_listener *ln, gw_admit_fn *admit, void *admit_ctx,
                  struct gw_endpoint **ep, struct gw_error *err);
    int (*listener_arm)(struct gw_listener *ln, struct pollfd *fds, unsigned max,
                        uint64_t *wake_ns);
    void (*listener_awake)(struct gw_listener *ln, const struct pollfd *fds, unsigned count);
    void (*listener_close)(struct gw_listener *ln);

    void (*query)(const struct gw_endpoint *ep, struct gw_ep_attr *attr);
    int (*error)(const struct gw_endpoint *ep, struct gw_error *err);
    void (*shutdown)(struct gw_endpoint *ep);
    void (*revoke)(struct gw_endpoint *ep);
    void (*close)(struct gw_endpoint *ep);

    int (*mr_reg)(struct gw_domain *dom, const struct gw_mr_desc *desc, struct gw_mr **mr,
                  struct gw_error *err);
    void (*mr_dereg)(struct gw_mr *mr);
    int (*mr_pack)(const struct gw_mr *mr, void *key);
    int (*rmr_open)(struct gw_domain *dom, uint32_t region, uint64_t bytes, const void *key,
                    size_t key_bytes, struct gw_rmr **rmr, struct gw_error *err);
    void (*rmr_close)(struct gw_rmr *rmr);

    int (*put)(struct gw_endpoint *ep, const struct gw_put *puts, unsigned count);
    int (*get)(struct gw_endpoint *ep, const struct gw_get *gets, unsigned count);
    int (*poll)(struct gw_endpoint *ep, struct gw_completion *done, unsigned max);
    int (*send)(struct gw_endpoint *ep, const struct iovec *iov, int iov_count);
    ssize_t (*recv)(struct gw_endpoint *ep, void *buf, size_t bytes);
    int (*arm)(struct gw_endpoint *ep, struct pollfd *fds, unsigned max, uint64_t *wake_ns);
    void (*awake)(struct gw_endpoint *ep, const struct pollfd *fds, unsigned count);
};

/* The first member of every backend's object, so that transport.c finds its table. */
struct gw_domain {
    const struct gw_transport_ops *ops;
};
struct gw_endpoint {
    const struct gw_transport_ops *ops;
};
struct gw_listener {
    const struct gw_transport_ops *ops;
};
struct gw_mr {
    const struct gw_transport_ops *ops;
};
struct gw_rmr {
    const struct gw_transport_ops *ops;
};

#endif
