/* SPDX-License-Identifier: MIT */
/* transport/loop/loop_impl.h - what the files of loop: and loop1: share. A link is a pair of flows, one a
 * direction; an endpoint is one end of a link; a listener makes both ends of it. An arrow below is an
 * include of knowledge: what stands on the right knows nothing of what stands on the left.
 *
 *     loop_listen.c  -->  loop_endpoint.c  -->  loop_link.c  -->  the net, if there is one (loop.h)
 *                                          -->  loop_region.c: what loop1: registers
 */
#ifndef GW_TRANSPORT_LOOP_IMPL_H
#define GW_TRANSPORT_LOOP_IMPL_H

#include "transport/loop/loop.h"
#include "transport/ops.h"
#include "transport/preface.h"

#include <pthread.h>

#define GW_LOOP_DOZE_NS (200 * UINT64_C(1000)) /* nobody wakes a loop endpoint: it looks again */

/* Guards all links, endpoints and listeners: two threads share a link, and speed is not its purpose. */
extern pthread_mutex_t gw_loop_lock;

/* ---- loop_link.c: the world ------------------------------------------------------------------- */

uint64_t gw_loop_world_ns(void); /* the net's clock; an end's own may differ */
/* The earlier of @wake_ns, in the caller's clock, and @ns of the world. */
uint64_t gw_loop_wake_at(uint64_t ns, uint64_t wake_ns);
/* The earlier of @wake_ns and the next look; a net's simulator looks by itself. */
uint64_t gw_loop_doze(uint64_t wake_ns);
int gw_loop_owner(void); /* whose code runs */
/* How long connecting takes; 0 or an error. */
int gw_loop_dial(const struct gw_uri *uri, uint16_t index, uint64_t *delay_ns);

/* ---- loop_link.c: links ----------------------------------------------------------------------- */

struct gw_loop_item { /* a put or a message */
    struct gw_loop_item *next;
    bool is_put, departed;
    uint32_t region;
    uint64_t offset, cookie, key;
    const void *local;
    const struct gw_mr *mr;
    uint64_t read_ns, deliver_ns;
    size_t bytes, lost; /* lost: bytes at the end that never arrive */
    uint8_t data[];
};

struct gw_loop_flow {                   /* one direction of a link */
    struct gw_loop_item *first, **last; /* the departed ones come first */
    size_t wire_bytes, queue_bytes;     /* departed; not departed */
    uint64_t newest_ns;
    bool cut;        /* what is sent now goes nowhere */
    uint64_t end_ns; /* the reader learns that nothing more comes; GW_NEVER_NS: never */
};

struct gw_loop_link {
    struct gw_loop_link *next;
    unsigned number, open;
    bool direct; /* of loop1: puts land by themselves, in no order among each other */
    struct gw_loop_flow flow[2]; /* [direction] */
    int owner[2];                /* of the writing end of that direction */
    struct gw_endpoint *end[2];  /* the end that writes in that direction; NULL: it is closed */
    bool refused[2];             /* a put of that end was not taken: the connection is broken */
    bool crashed[2];             /* that end went with its owner: nothing lands there any more */
};

struct gw_loop_link *gw_loop_link_next_locked(struct gw_loop_link *link); /* NULL: the first */
/* With two ends, not yet known to anybody; NULL: no memory. gw_free() takes it back until it is listed. */
struct gw_loop_link *gw_loop_link_new(void);
void gw_loop_link_list_locked(struct gw_loop_link *link, int connector, int acceptor);
/* The end that writes in @direction hangs up. The second one frees the link. */
void gw_loop_link_flushed(
    const struct gw_loop_item *item); /* a put: tells the net, if there is one */
void gw_loop_link_leave_locked(struct gw_loop_link *link, unsigned direction);
/* @item, whose ownership goes to the flow, with the fate that the net decides for @sent. */
void gw_loop_link_append_locked(struct gw_loop_link *link, struct gw_loop_item *item,
                                const struct gw_loop_sent *sent);
/* All that @owner's ends write goes nowhere from now on, and nothing reaches them; peers learn of it
 * @after_ns later. */
void gw_loop_link_crash_locked(int owner, uint64_t after_ns);

/* The next item behind @behind, NULL: from the beginning, that the wire has room for: it has departed
 * when this returns, and its bytes are to be read now. NULL: none. */
struct gw_loop_item *gw_loop_flow_depart_locked(struct gw_loop_flow *f, struct gw_loop_item *behind,
                                                uint64_t now_ns);
/* All that has not departed, a list that is the caller's now. */
struct gw_loop_item *gw_loop_flow_withdraw_locked(struct gw_loop_flow *f);
/* The first item if it has arrived; it stays. */
struct gw_loop_item *gw_loop_flow_arrived_locked(struct gw_loop_flow *f, uint64_t now_ns);
/* Away with the first item. */
void gw_loop_flow_remove_locked(struct gw_loop_flow *f);
/* Away with the first put that has arrived, wherever it stands: the caller's now. NULL: none. */
struct gw_loop_item *gw_loop_flow_take_put_locked(struct gw_loop_flow *f, uint64_t now_ns);
/* In the world's clock, GW_NEVER_NS: not without something else happening first. */
uint64_t gw_loop_flow_departure_ns_locked(const struct gw_loop_flow *f);
uint64_t gw_loop_flow_arrival_ns_locked(const struct gw_loop_flow *f);

/* ---- loop_region.c ---------------------------------------------------------------------------- */

struct gw_loop_mr {
    struct gw_mr base;
    struct gw_loop_mr *next;
    struct gw_loop_domain *dom;
    struct gw_mr_desc desc;
    uint64_t key;
};

struct gw_loop_rmr {
    struct gw_rmr base;
    uint32_t region;
    uint64_t bytes, key;
};

struct gw_loop_domain {
    struct gw_domain base;
    int owner;
    uint64_t registered_bytes; /* guarded by gw_loop_lock, as is mrs */
    struct gw_loop_mr *mrs;
};

int gw_loop1_domain_open(const struct gw_wire_config *config, struct gw_domain **dom,
                         struct gw_error *err);
void gw_loop1_domain_close(struct gw_domain *dom);
int gw_loop1_mr_reg(struct gw_domain *dom, const struct gw_mr_desc *desc, struct gw_mr **mr,
                    struct gw_error *err);
void gw_loop1_mr_dereg(struct gw_mr *mr);
int gw_loop1_mr_pack(const struct gw_mr *mr, void *key);
int gw_loop1_rmr_open(struct gw_domain *dom, uint32_t region, uint64_t bytes, const void *key,
                      size_t key_bytes, struct gw_rmr **rmr, struct gw_error *err);
void gw_loop1_rmr_close(struct gw_rmr *rmr);
/* Where a put with @key lands; NULL: it may not, *why says so. */
void *gw_loop_region_locked(const struct gw_loop_domain *dom, uint64_t key, uint64_t offset,
                            uint64_t bytes, const char **why);

/* ---- loop_endpoint.c -------------------------------------------------------------------------- */

/* The end of @link that writes in direction @side. NULL: no memory. gw_free() takes it back while the
 * link is not listed, its close from then on. */
struct gw_endpoint *gw_loop_ep_new(struct gw_domain *dom, const struct gw_preface *preface,
                                   const struct gw_wire_config *config, struct gw_loop_link *link,
                                   unsigned side);

/* loop1: whatever has arrived by now, anywhere, has landed; a connection that is still to read from @mr is
 * broken, as by a NIC that finds memory gone. */
void gw_loop_forget_locked(const struct gw_mr *mr);

/* For the tables in loop_listen.c. */
void gw_loop_ep_query(const struct gw_endpoint *ep, struct gw_ep_attr *attr);
int gw_loop_ep_error(const struct gw_endpoint *ep, struct gw_error *err);
void gw_loop_ep_shutdown(struct gw_endpoint *ep);
void gw_loop_ep_revoke(struct gw_endpoint *ep);
void gw_loop_ep_close(struct gw_endpoint *ep);
int gw_loop_ep_put(struct gw_endpoint *ep, const struct gw_put *puts, unsigned count);
int gw_loop_ep_poll(struct gw_endpoint *ep, struct gw_completion *done, unsigned max);
int gw_loop_ep_send(struct gw_endpoint *ep, const struct iovec *iov, int iov_count);
ssize_t gw_loop_ep_recv(struct gw_endpoint *ep, void *buf, size_t bytes);
int gw_loop_ep_arm(struct gw_endpoint *ep, struct pollfd *fds, unsigned max, uint64_t *wake_ns);
void gw_loop_ep_awake(struct gw_endpoint *ep, const struct pollfd *fds, unsigned count);

#endif
