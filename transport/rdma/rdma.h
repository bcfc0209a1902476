/* SPDX-License-Identifier: MIT */
/* transport/rdma/rdma.h - the inside of the rdma wire: libibverbs moves, librdmacm connects.
 *
 * A domain is a protection domain on a device context of its own, so that asynchronous events of other
 * sessions are not ours to read. Its device is not known when it is opened: the first connection, or
 * the only device there is, decides. An endpoint is a queue pair with a completion queue of its own.
 *
 * Everything posted to a send queue has a number, counted from 0, and a record in a ring; a completion
 * says that all up to its number are done. The last request of every list is signalled, so the last one
 * posted always is: "all is done" is a comparison of two numbers.
 *
 * Threads: an endpoint is its owner's; [any thread] are `shut`, `async`, and what domain locks guard. */
#ifndef GW_TRANSPORT_RDMA_H
#define GW_TRANSPORT_RDMA_H

#include "core/base/clock.h"
#include "transport/backends.h"
#include "transport/ops.h"
#include "transport/preface.h"

#include <infiniband/verbs.h>
#include <pthread.h>
#include <rdma/rdma_cma.h>
#include <stdatomic.h>
#include <sys/socket.h>

/* ---- what is counted: every object of verbs and rdma_cm that we own ------------------------ */

enum gw_rdma_kind {
    GW_RDMA_CONTEXT,
    GW_RDMA_PD,
    GW_RDMA_MR,
    GW_RDMA_CQ,
    GW_RDMA_COMP_CHANNEL,
    GW_RDMA_QP,
    GW_RDMA_CM_ID,
    GW_RDMA_CM_CHANNEL,
    GW_RDMA_KINDS,
};

void gw_rdma_count(enum gw_rdma_kind kind, int change); /* [any thread] */
int gw_rdma_live(enum gw_rdma_kind kind);               /* for tests: how many are ours now */

/* ---- the domain ------------------------------------------------------------------------------- */

struct gw_rdma_ep;

struct gw_rdma_domain {
    struct gw_domain base;
    const struct gw_log *log;
    pthread_mutex_t device_lock; /* the device is chosen once; set before any use of it */
    struct ibv_context *verbs;   /* NULL until then */
    struct ibv_pd *pd;
    struct ibv_device_attr device_attr;
    char device[IBV_SYSFS_NAME_MAX];
    bool wants_paging;                 /* as the configuration says */
    int page_access;                   /* what every registration of pages asks for besides */
    _Atomic uint64_t registered_bytes; /* for messages only */
    pthread_mutex_t endpoints_lock;
    struct gw_rdma_ep *endpoints; /* that events may concern */
    _Atomic uint64_t
        port_down_ns;         /* since when the port has been down; 0: it is not, for all we know */
    _Atomic bool is_lost;     /* the device is gone or broken */
    _Atomic bool is_way_told; /* by which device, port and GID it goes */
};

static inline struct gw_rdma_domain *gw_rdma_domain_of(struct gw_domain *dom)
{
    return (struct gw_rdma_domain *)dom;
}

int gw_rdma_domain_open(const struct gw_wire_config *config, struct gw_domain **dom,
                        struct gw_error *err);
void gw_rdma_domain_close(struct gw_domain *dom);
bool gw_rdma_pages_on_demand(struct ibv_context *verbs); /* for writes of a peer's */
/* Bind to @device (NULL: the only one there is), or see that it is bound to that. [any thread] */
int gw_rdma_domain_bind(struct gw_rdma_domain *dom, struct ibv_device *device,
                        struct gw_error *err);
/* Read what happened to the device and tell the endpoints concerned. [any thread] */
void gw_rdma_domain_events(struct gw_rdma_domain *dom);

/* ---- devices and addresses -------------------------------------------------------------------- */

/* Whether there is a device and the connection manager's door: librdmacm prints where there is not. */
int gw_rdma_probe(struct gw_error *err);
/* "rdma:10.0.0.1:4444", "rdma:[fd00::1]:4444" */
void gw_rdma_format(const struct sockaddr *address, char *text, size_t bytes);
/* The address to connect from, as @config wants device or GID: 1 and *from, 0: the route decides. */
int gw_rdma_source(const struct gw_wire_config *config, int family, struct sockaddr_storage *from,
                   struct gw_error *err);
/* 0, or that the device is not there that @config asks for. */
int gw_rdma_check_device(const struct gw_wire_config *config, struct gw_error *err);
/* An address of some device that a peer may use: IPv4 before IPv6. */
int gw_rdma_any_address(const struct gw_wire_config *config, struct sockaddr_storage *address,
                        struct gw_error *err);
/* On the way to RTR: log device, port, GID, path MTU and why; refuse another GID than @config's. */
int gw_rdma_check_gid(const struct gw_rdma_ep *ep, const struct gw_wire_config *config,
                      const struct ibv_qp_attr *attr, struct gw_error *err);
int gw_rdma_set_nonblocking(int fd, struct gw_error *err);

/* ---- memory -------------------------------------------------------------------------------------- */

struct gw_rdma_mr {
    struct gw_mr base;
    struct gw_rdma_domain *dom;
    struct ibv_mr *mr;
    uint8_t *addr;
    uint64_t bytes, iova;
};

struct gw_rdma_rmr {
    struct gw_rmr base;
    uint64_t bytes, iova;
    uint32_t rkey;
};

#define GW_RDMA_KEY_BYTES 16

int gw_rdma_mr_reg(struct gw_domain *dom, const struct gw_mr_desc *desc, struct gw_mr **mr,
                   struct gw_error *err);
void gw_rdma_mr_dereg(struct gw_mr *mr);
int gw_rdma_mr_pack(const struct gw_mr *mr, void *key);
int gw_rdma_rmr_open(struct gw_domain *dom, uint32_t region, uint64_t bytes, const void *key,
                     size_t key_bytes, struct gw_rmr **rmr, struct gw_error *err);
void gw_rdma_rmr_close(struct gw_rmr *rmr);
/* ibv_reg_mr_iova and its refusals in words; what the limit on locked memory has to do with it. */
int gw_rdma_register(struct gw_rdma_domain *dom, void *addr, uint64_t bytes, uint64_t iova,
                     int access, struct ibv_mr **mr, struct gw_error *err);
void gw_rdma_unregister(struct gw_rdma_domain *dom, struct ibv_mr *mr);
/* What to run so that @bytes can be registered, and what else a migration needs. */
void gw_rdma_memlock_hint(struct gw_error *err, uint64_t bytes);

/* ---- endpoints ------------------------------------------------------------------------------------ */

#define GW_RDMA_PUT_BYTES_MAX (1u << 20) /* a lost packet repeats the rest of its put (go-back-N) */
#define GW_RDMA_PUT_LIST 64              /* one doorbell; on rxe, one system call */
#define GW_RDMA_PUT_WINDOW 256
/* Posted and not done, in bytes: at most three times what 400 Gb/s need for 50 us; at least one put. In
 * between as the link is fast: a heartbeat waits behind them. */
#define GW_RDMA_FLIGHT_MAX (8u << 20)
#define GW_RDMA_FLIGHT_MIN GW_RDMA_PUT_BYTES_MAX
#define GW_RDMA_SLOT_BYTES 16384u /* or more: so many parts of a message fit everywhere */
#define GW_RDMA_SLOTS_SPARE 16u   /* receive slots beyond those of the longest message */

/* What both ends tell each other with the preface and its answer, big-endian:
 *   0 32  preface or answer (transport/preface.h)
 *  32  4  bytes of each receive slot
 *  36  2  receive slots, all posted
 *  38  2  zero */
#define GW_RDMA_HELLO_BYTES 40

struct gw_rdma_hello {
    uint32_t slot_bytes, slots;
};

void gw_rdma_hello_encode(const struct gw_rdma_hello *hello, uint8_t bytes[8]);
int gw_rdma_hello_decode(const uint8_t bytes[8], struct gw_rdma_hello *hello);

/* wr_id of a receive: this and its slot; of anything else: its number. */
#define GW_RDMA_RECEIVE_BIT (UINT64_C(1) << 63)

enum gw_rdma_work { GW_RDMA_PUT, GW_RDMA_SEND, GW_RDMA_CREDIT, GW_RDMA_MARK };

struct gw_rdma_record {
    uint8_t work;
    uint32_t bytes; /* of a put */
    uint64_t cookie;
    uint64_t posted_ns; /* of the last put of a list; else 0 */
};

struct gw_rdma_part { /* a received part of a message that waits for gw_recv() */
    uint32_t slot, bytes;
    bool is_last;
};

struct gw_rdma_ep {
    struct gw_endpoint base;
    struct gw_rdma_domain *dom;
    struct gw_rdma_ep *next; /* dom->endpoints, under endpoints_lock */
    const struct gw_log *log;
    struct gw_preface preface;
    uint32_t message_bytes_max;
    uint64_t peer_timeout_ns;
    bool is_active; /* we connected */
    char peer[128];

    struct rdma_event_channel *events;
    struct rdma_cm_id *id;
    struct ibv_comp_channel *channel;
    struct ibv_cq *cq;
    struct ibv_qp *qp;
    int epoll_fd, wake_fd;
    _Atomic bool shut;
    _Atomic int async; /* 1 + an enum ibv_event_type that concerns us */

    /* the send queue: numbers of requests */
    struct gw_rdma_record *records; /* by number modulo send_depth */
    uint32_t send_depth, put_window;
    uint64_t posted, done, failed;  /* failed: the first that failed; UINT64_MAX */
    uint32_t put_count;             /* accepted and not collected */
    uint32_t put_bytes, flight_max; /* accepted and not done */
    uint32_t turn_bytes;            /* accepted since the owner last listened or slept */
    bool is_turn_over;
    struct gw_completion *ready; /* a ring of put_window: done and not collected */
    uint32_t ready_first, ready_count;
    bool is_tail_silent; /* the last request posted is unsignalled, by a failure to post */
    struct ibv_send_wr wr[GW_RDMA_PUT_LIST];
    struct ibv_sge sge[GW_RDMA_PUT_LIST];

    /* messages (rdma_message.c) */
    uint8_t *slots_memory, *rx, *tx; /* tx: tx_slots, then one for credits alone */
    struct ibv_mr *slots_mr;
    uint32_t slot_bytes, rx_slots, tx_slots;
    struct gw_rdma_hello theirs;
    uint64_t tx_sent, tx_next, tx_filled; /* slots by number: done, to be posted, filled */
    uint32_t *tx_parts;                   /* by slot: payload, with TX_LAST */
    uint32_t tx_credits, rx_owed;
    bool is_credit_busy, is_tx_starved;
    struct gw_rdma_part *parts; /* a ring of rx_slots */
    uint32_t parts_first, parts_count, messages_ready, rx_part_bytes;
    uint32_t rx_posted;

    bool is_error, is_linked, is_revoked, is_reaping;
    bool is_disconnected, is_removed; /* what the connection manager has said */
    int rc;
    bool is_told;
    struct gw_error err;
    uint64_t looked_ns;          /* at the connection manager's events, by who never sleeps */
    uint64_t rx_bytes, tx_bytes; /* received: messages alone, nobody here sees puts */
    uint64_t system_calls;
};

static inline struct gw_rdma_ep *gw_rdma_ep_of(const struct gw_endpoint *ep)
{
    return (struct gw_rdma_ep *)(uintptr_t)ep;
}

/* rdma_qp.c: objects, states, the end. @id is the endpoint's on success. */
int gw_rdma_ep_new(struct gw_rdma_domain *dom, const struct gw_wire_config *config,
                   struct rdma_cm_id *id, bool is_active, struct gw_rdma_ep **ep,
                   struct gw_error *err);
int gw_rdma_ep_init(struct gw_rdma_ep *ep, struct gw_error *err); /* to INIT, receives posted */
int gw_rdma_ep_ready(struct gw_rdma_ep *ep, const struct gw_wire_config *config,
                     struct gw_error *err); /* to RTR and RTS */
/* From here on events of device and connection are ours to see. */
int gw_rdma_ep_watch(struct gw_rdma_ep *ep, struct gw_error *err);
void gw_rdma_ep_close(struct gw_endpoint *ep);
void gw_rdma_ep_revoke(struct gw_endpoint *ep);
void gw_rdma_ep_shutdown(struct gw_endpoint *ep);
void gw_rdma_ep_query(const struct gw_endpoint *ep, struct gw_ep_attr *attr);
int gw_rdma_ep_error(const struct gw_endpoint *ep, struct gw_error *err);

/* rdma_progress.c: completions, events, sleeping. */
int gw_rdma_fail(struct gw_rdma_ep *ep, int rc, enum gw_code code, const char *hint,
                 const char *format, ...) GW_PRINTF(5, 6);
void gw_rdma_to_error(struct gw_rdma_ep *ep);
void gw_rdma_reap(struct gw_rdma_ep *ep);
/* Everything that may have happened. 0, or why the endpoint is final. */
int gw_rdma_check(struct gw_rdma_ep *ep);
bool gw_rdma_is_quiet(const struct gw_rdma_ep *ep);
void gw_rdma_wait_quiet(struct gw_rdma_ep *ep, uint64_t deadline_ns);
int gw_rdma_arm(struct gw_endpoint *ep, struct pollfd *fds, unsigned max, uint64_t *wake_ns);
void gw_rdma_awake(struct gw_endpoint *ep, const struct pollfd *fds, unsigned count);

/* rdma_put.c */
int gw_rdma_put(struct gw_endpoint *ep, const struct gw_put *puts, unsigned count);
int gw_rdma_poll(struct gw_endpoint *ep, struct gw_completion *done, unsigned max);
/* Post wr[0, count), linked, records filled from ep->posted on. How many were taken. */
unsigned gw_rdma_post(struct gw_rdma_ep *ep, unsigned count);
void gw_rdma_done(struct gw_rdma_ep *e, uint64_t number); /* this request and all before it */

/* rdma_message.c */
int gw_rdma_message_init(struct gw_rdma_ep *ep, struct gw_error *err);
void gw_rdma_message_fini(struct gw_rdma_ep *ep);
int gw_rdma_message_post(struct gw_rdma_ep *ep); /* all receives */
void gw_rdma_message_met(struct gw_rdma_ep *ep, const struct gw_rdma_hello *theirs);
void gw_rdma_message_arrived(struct gw_rdma_ep *ep, uint32_t slot, uint32_t bytes);
void gw_rdma_message_sent(struct gw_rdma_ep *ep, enum gw_rdma_work work);
void gw_rdma_message_push(struct gw_rdma_ep *ep); /* what credits allow */
bool gw_rdma_message_has_room(const struct gw_rdma_ep *ep);
int gw_rdma_send(struct gw_endpoint *ep, const struct iovec *iov, int iov_count);
ssize_t gw_rdma_recv(struct gw_endpoint *ep, void *buf, size_t bytes);

/* rdma_cm.c, rdma_listen.c */
int gw_rdma_connect(struct gw_domain *dom, const struct gw_uri *uri,
                    const struct gw_wire_config *config, struct gw_endpoint **ep,
                    struct gw_error *err);
void gw_rdma_cm_events(struct gw_rdma_ep *ep); /* of an endpoint that is connected */
struct rdma_event_channel *gw_rdma_channel_new(struct gw_error *err); /* non-blocking */
void gw_rdma_channel_free(struct rdma_event_channel *channel);
int gw_rdma_id_new(struct rdma_event_channel *channel, void *ctx, struct rdma_cm_id **id,
                   struct gw_error *err);
void gw_rdma_id_free(struct rdma_cm_id *id);
/* @name's addresses and @port; *list is freed by freeaddrinfo(). */
struct addrinfo;
int gw_rdma_look_up(const struct gw_uri *uri, int flags, struct addrinfo **list,
                    struct gw_error *err);

/* rdma_refusal.c. A rejection's private data: the answer (preface.h), then why, as far as it fits. */
#define GW_RDMA_REASON_BYTES 116 /* of 148, IBTA 12.6.7 */
void gw_rdma_reason_encode(const struct gw_error *why, uint8_t bytes[GW_RDMA_REASON_BYTES]);
/* Code and the peer's words of @err, which is set, as they were told; false: nothing was. */
bool gw_rdma_reason_decode(const uint8_t *bytes, size_t count, struct gw_error *err);
/* What a rejection with @reason and @data means for the request that brought @preface. */
int gw_rdma_rejected(const struct gw_preface *preface, int reason, const uint8_t *data,
                     size_t bytes, struct gw_error *err);

/* rdma_port.c: 0, or -ENETDOWN with what to do; of a device or ("" or NULL) all: whether every port is. */
int gw_rdma_check_port(struct ibv_context *verbs, uint8_t port, struct gw_error *err);
int gw_rdma_check_ports(const char *device, struct gw_error *err);

/* rdma_trial.c: whether the address that @id listens at is of the device and GID that @config asks for;
 * whether connections could be served there, and a warning if none can come. */
int gw_rdma_check_listen(struct rdma_cm_id *id, const struct gw_wire_config *config,
                         struct gw_error *err);
int gw_rdma_try_listening(struct rdma_cm_id *id, const struct gw_wire_config *config,
                          struct gw_error *err);

int gw_rdma_listen(const struct gw_uri *uri, const struct gw_wire_config *config,
                   struct gw_listener **ln, struct gw_error *err);
const char *gw_rdma_listener_uri(const struct gw_listener *ln);
int gw_rdma_accept(struct gw_listener *ln, gw_admit_fn *admit, void *admit_ctx,
                   struct gw_endpoint **ep, struct gw_error *err);
int gw_rdma_listener_arm(struct gw_listener *ln, struct pollfd *fds, unsigned max,
                         uint64_t *wake_ns);
void gw_rdma_listener_awake(struct gw_listener *ln, const struct pollfd *fds, unsigned count);
void gw_rdma_listener_close(struct gw_listener *ln);

#endif
