/* SPDX-License-Identifier: MIT */
/* transport/filter/fault_impl.h - one endpoint of fault+, shared by what opens it and answers for it
 * (fault.c) and what passes through it (fault_traffic.c). It is used by its owner's thread alone, but for
 * shut. */
#ifndef GW_TRANSPORT_FILTER_FAULT_IMPL_H
#define GW_TRANSPORT_FILTER_FAULT_IMPL_H

#include "transport/filter/fault_line.h"

#include <stdatomic.h>

struct gw_fault_rmr {
    struct gw_rmr base;
    struct gw_rmr *inner;
    uint64_t bytes;
};

struct gw_fault {
    struct gw_filter_endpoint base;
    struct gw_fault_plan plan;
    bool plain; /* no rule concerns it */
    const struct gw_place_ops *place;
    void *place_ctx;
    uint32_t message_bytes_max;
    uint16_t index;
    atomic_bool shut; /* set by any thread, read by the owner: relaxed, nothing goes with it */

    int rc; /* the first final error */
    bool told;
    bool inner_dead; /* it is the wire's, which may still have last words */
    struct gw_error err;
    struct gw_ep_attr last; /* of the wire's endpoint, once it is closed */

    unsigned window, take;
    uint64_t rate_in; /* bytes a second; 0: no limit */

    bool mute_out, mute_in;
    uint64_t mute_rx_bytes;             /* what the owner has seen to arrive until then */
    const struct gw_fault_rule *mark;   /* stands in line: nothing is accepted any more */
    const struct gw_fault_rule *struck; /* has come first in line */
    uint64_t strike_ns;                 /* when it strikes at the latest */

    uint64_t resume_ns; /* nothing is heard before */
    uint8_t *held;      /* a message that came and waits; NULL: no rule delays */
    size_t held_bytes;
    uint64_t held_due_ns; /* 0: none is held */

    struct gw_fault_line line; /* without a ring where the endpoint is plain */
};

static inline struct gw_fault *gw_fault_of(struct gw_endpoint *ep)
{
    return (struct gw_fault *)ep;
}

/* ---- fault_traffic.c ---- */

/* The connection is open: what strikes before anything has passed. Not if it is plain. */
void gw_fault_opened(struct gw_fault *f);

extern const struct gw_place_ops gw_fault_place; /* its ctx is the struct gw_fault */

/* For the table. */
int gw_fault_send(struct gw_endpoint *ep, const struct iovec *iov, int iov_count);
ssize_t gw_fault_recv(struct gw_endpoint *ep, void *buf, size_t bytes);
int gw_fault_put(struct gw_endpoint *ep, const struct gw_put *puts, unsigned count);
int gw_fault_get(struct gw_endpoint *ep, const struct gw_get *gets, unsigned count);
int gw_fault_poll(struct gw_endpoint *ep, struct gw_completion *done, unsigned max);
int gw_fault_arm(struct gw_endpoint *ep, struct pollfd *fds, unsigned max, uint64_t *wake_ns);
void gw_fault_awake(struct gw_endpoint *ep, const struct pollfd *fds, unsigned count);

#endif
