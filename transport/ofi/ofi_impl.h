/* SPDX-License-Identifier: MIT */
/* transport/ofi/ofi_impl.h - what the files of ofi: share. A migration has a domain (a fabric and a
 * domain of libfabric's, of one provider); each page endpoint owns an RDM endpoint, with a completion
 * queue and an address vector of its own, because closing that endpoint is what takes a peer's right
 * to write away (docs/decisions/0001). A connection begins as one of tcp, which admits, carries the
 * addresses of both ends once, and afterwards tells of the peer's death, which an RDM endpoint never
 * does. The control endpoint is that connection and nothing else. An arrow is an include of knowledge:
 *
 *     ofi_wire.c  -->  ofi_join.c, ofi_endpoint.c  -->  ofi_put.c, ofi_message.c  -->  ofi_queue.c
 *                 -->  ofi_mr.c                    -->  ofi_fabric.c
 *
 * Threads: as transport.h says. A domain's libfabric objects are FI_THREAD_SAFE: registrations come and
 * go on other threads while endpoints work. One provider only says so (fabric.unlocked): every call by
 * which it may look at its registrations is made between gw_ofi_enter() and gw_ofi_leave(). */
#ifndef GW_TRANSPORT_OFI_IMPL_H
#define GW_TRANSPORT_OFI_IMPL_H

#include "transport/backends.h"
#include "transport/ofi/ofi_card.h"
#include "transport/ofi/ofi_library.h"

#include <pthread.h>
#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_errno.h>
#include <rdma/fi_rma.h>
#include <stdatomic.h>
#include <sys/socket.h>

/* The version whose meaning of every call this was written against. */
#define GW_OFI_API FI_VERSION(1, 17)

/* ---- ofi_fabric.c: providers ---------------------------------------------------------------- */

/* @provider can carry a migration here: 0, or why not and what to do. */
int gw_ofi_check(const char *provider, struct gw_error *err);
/* What @provider must find set to 1 in the environment and does not; NULL: nothing. */
const char *gw_ofi_variable_missing(const char *provider);

struct gw_ofi_fabric { /* what libfabric has opened for one migration */
    struct fi_info *info;
    struct fid_fabric *fabric;
    struct fid_domain *domain;
    bool orders;  /* a message never overtakes the writes before it (FI_ORDER_SAW) */
    bool local;   /* local memory must be registered (FI_MR_LOCAL) */
    bool virtual; /* the peer names memory by its address (FI_MR_VIRT_ADDR) */
    bool prov_key;
    bool sleeps; /* the descriptor of a completion queue can be slept on */
    bool pins;
    bool unlocked; /* one call at a time into its domain: gw_ofi_enter() */
};

/* By way of the local address of the connected socket @fd. */
int gw_ofi_fabric_open(struct gw_ofi_fabric *f, const char *provider, int fd, struct gw_error *err);
void gw_ofi_fabric_close(struct gw_ofi_fabric *f);
/* @rc is libfabric's, negative; the same number as an errno where there is one. */
int gw_ofi_errno(int rc);
int gw_ofi_fail(struct gw_error *err, int rc, const char *what);

/* ---- ofi_mr.c: the domain and its memory ------------------------------------------------------ */

struct gw_ofi_domain {
    struct gw_domain base;
    struct gw_domain *streams; /* of the control endpoint: no region ever, so no put is taken */
    const struct gw_log *log;
    pthread_mutex_t bind_lock; /* guards what follows until bound is set, once */
    atomic_bool bound;         /* release; acquire: what follows is read only from here on */
    char provider[GW_OFI_PROVIDER_BYTES];
    struct gw_ofi_fabric fabric;
    pthread_mutex_t call_lock; /* taken alone, held across libfabric's calls only */
};

struct gw_ofi_mr {
    struct gw_mr base;
    struct gw_ofi_domain *dom;
    struct fid_mr *mr; /* NULL: local, and the provider wants none */
    uint64_t at;       /* by which the peer names its first byte */
};

struct gw_ofi_rmr {
    struct gw_rmr base;
    uint64_t bytes, at, key;
};

static inline struct gw_ofi_domain *gw_ofi_domain_of(struct gw_domain *dom)
{
    return (struct gw_ofi_domain *)dom;
}

/* Around a call into the provider; costs nothing where the provider keeps its own order. A call may copy what
 * has arrived, and so wait for first touch of memory: other endpoints and registrations wait as long. */
static inline void gw_ofi_enter(struct gw_ofi_domain *d)
{
    if (d->fabric.unlocked)
        pthread_mutex_lock(&d->call_lock);
}

static inline void gw_ofi_leave(struct gw_ofi_domain *d)
{
    if (d->fabric.unlocked)
        pthread_mutex_unlock(&d->call_lock);
}

/* The first connection decides the provider's device; later ones must be of the same provider. */
int gw_ofi_domain_bind(struct gw_ofi_domain *d, const char *provider, int fd, struct gw_error *err);

/* Our own buffers, where the provider wants to know them (@mr is NULL where not). */
int gw_ofi_buffer_reg(struct gw_ofi_domain *d, void *addr, size_t bytes, uint64_t access,
                      struct fid_mr **mr, struct gw_error *err);

int gw_ofi_domain_open(const struct gw_wire_config *config, struct gw_domain **dom,
                       struct gw_error *err);
void gw_ofi_domain_close(struct gw_domain *dom);
int gw_ofi_mr_reg(struct gw_domain *dom, const struct gw_mr_desc *desc, struct gw_mr **mr,
                  struct gw_error *err);
/* fi_close() of what was opened in @d; nothing if @fid is NULL. */
void gw_ofi_fid_close(struct gw_ofi_domain *d, struct fid *fid);
void gw_ofi_mr_dereg(struct gw_mr *mr);
int gw_ofi_mr_pack(const struct gw_mr *mr, void *key);
int gw_ofi_rmr_open(struct gw_domain *dom, uint32_t region, uint64_t bytes, const void *key,
                    size_t key_bytes, struct gw_rmr **rmr, struct gw_error *err);
void gw_ofi_rmr_close(struct gw_rmr *rmr);

/* ---- ofi_queue.c: what was accepted, in order --------------------------------------------------- */

/* Every put and every piece of a message is an operation of this queue, in the order in which it was
 * accepted; it is posted in that order and leaves in that order. Completions are recognised by their
 * context, and none stands for another: only "net" promises their order, and it reports each one. */
struct gw_ofi_op {
    struct fi_context2 context; /* first: what libfabric gives back */
    enum { GW_OFI_QUEUED, GW_OFI_POSTED, GW_OFI_DONE } state;
    bool is_put;
    int status;
    uint32_t bytes;
    void *local; /* a put's memory; a piece's buffer */
    void *desc;
    uint64_t at, key, cookie;
};

/* So many puts may wait for their completion; more than any provider's own queue here holds. */
#define GW_OFI_WINDOW 512u
/* Of their bytes: a message, a beat too, waits behind them, some 70 ms at 1 Gb/s. */
#define GW_OFI_WINDOW_BYTES (8u << 20)
#define GW_OFI_PUT_BYTES_MAX (4u << 20)

/* A message travels in pieces that fit what every provider sends at once (ofi_rxm: 16 KiB), so that
 * none waits for the peer to fetch it, and what one endpoint may have to keep is bounded. */
#define GW_OFI_PIECE_BYTES 8192u
#define GW_OFI_PIECE_HEAD 16u
#define GW_OFI_PIECE_PAYLOAD (GW_OFI_PIECE_BYTES - GW_OFI_PIECE_HEAD)
#define GW_OFI_RECEIVES 64u
/* Beyond the pieces of the longest message: so many may wait. */
#define GW_OFI_PIECES_MORE 32u

struct gw_ofi_queue {
    struct gw_ofi_op *ops;
    uint32_t capacity;
    uint64_t first, post, end;      /* reported to the owner; handed to libfabric; accepted */
    uint32_t put_count, put_posted; /* accepted and not yet reported; posted and not yet done */
    uint64_t put_bytes;             /* of those not yet done */
    uint32_t open_count;            /* not yet done, pieces too */
    uint8_t *pieces;                /* buffers */
    uint32_t *free_pieces, free_count, piece_count;
};

struct gw_ofi_slot { /* a posted receive */
    struct fi_context2 context;
    bool done;
    uint32_t bytes;
};

/* ---- ofi_join.c, ofi_endpoint.c ------------------------------------------------------------------------------- */

enum gw_ofi_state {
    GW_OFI_NEW,    /* nothing of libfabric's is open yet: the first step opens it */
    GW_OFI_CARD,   /* waits for the peer's card on the tcp connection */
    GW_OFI_HELLO,  /* waits for its first message on the fabric */
    GW_OFI_JOINED, /* both ends have heard each other */
};

struct gw_ofi_ep {
    struct gw_endpoint base;
    struct gw_ofi_domain *dom;
    struct gw_wire_config config;
    char peer[128];
    char provider[GW_OFI_PROVIDER_BYTES];
    int fd; /* the tcp connection: the peer lives while it is open */
    bool connects;
    enum gw_ofi_state state;
    uint8_t card[GW_OFI_CARD_BYTES]; /* the peer's, as far as it has come */
    size_t card_got;
    bool hello_heard;

    struct fid_ep *ep; /* NULL: closed, nothing moves any more */
    struct fid_cq *cq;
    struct fid_av *av;
    struct fid_mr *tx_mr, *rx_mr; /* of the buffers, where the provider wants it */
    int cq_fd;                    /* -1: there is none to sleep on */
    fi_addr_t to;

    struct gw_ofi_queue queue;
    uint64_t tx_token, rx_token; /* what every piece begins with; chosen by who receives it */
    uint32_t tx_number;

    uint8_t *slots_memory;
    struct gw_ofi_slot slots[GW_OFI_RECEIVES];
    uint32_t slot_first, slot_posted, slot_done; /* the oldest; how many from there; done of them */
    uint32_t rx_number;
    uint8_t *message; /* put together here; message_bytes_max */
    uint32_t message_total, message_got;
    bool message_begun, message_ready, strangers_told;

    bool revoked;        /* by us */
    bool withdrawn;      /* by the peer, who said so: it takes no more puts, and hears nothing */
    uint64_t hung_up_ns; /* the peer's end of the tcp connection is closed; 0: it is not */
    atomic_bool shut;    /* relaxed: set by any thread; the connection's end wakes the owner */
    bool fd_ready;
    uint64_t fd_tried_ns;
    uint64_t doze_ns;
    bool moved; /* something came or went since arm looked last */

    struct gw_error err;
    int rc;
    bool rc_was_told;
    uint64_t rx_bytes, tx_bytes, system_calls;
};

/* Where nothing can be slept on: how often to look while something goes on. */
#define GW_OFI_DOZE_MIN_NS (20 * UINT64_C(1000))

static inline struct gw_ofi_ep *gw_ofi_ep_of(struct gw_endpoint *ep)
{
    return (struct gw_ofi_ep *)ep;
}

/* The page endpoint of the admitted tcp connection @fd, which is its own from here on, on failure too.
 * @connects: until config->deadline_ns it blocks, and is joined; else stepping it joins it. */
int gw_ofi_ep_new(int fd, struct gw_domain *dom, const char *provider,
                  const struct gw_wire_config *config, const char *peer, bool connects,
                  struct gw_endpoint **ep, struct gw_error *err);

/* Open libfabric's endpoint and say our card, or why there is none. That can take a tenth of a second
 * (ofi_rxm), which is why it is its owner's first step and not part of accepting: that is done on the
 * thread that beats on the control endpoint. */
void gw_ofi_ep_open(struct gw_ofi_ep *e);
/* The peer's card is whole. */
int gw_ofi_take_card(struct gw_ofi_ep *e);

/* Note a final error, once: nothing moves any more, and every accepted put is done with it. Returns the
 * first one's rc. */
int gw_ofi_ep_fail(struct gw_ofi_ep *e, int rc, enum gw_code code, const char *format, ...)
    GW_PRINTF(4, 5);
int gw_ofi_ep_fail_fabric(struct gw_ofi_ep *e, int rc, const char *what);
/* 0, or the final error that every op must answer. */
int gw_ofi_ep_check(struct gw_ofi_ep *e);
/* Let libfabric move what it can, take completions, post what waits, look at the connection. */
void gw_ofi_ep_step(struct gw_ofi_ep *e);

void gw_ofi_query(const struct gw_endpoint *ep, struct gw_ep_attr *attr);
int gw_ofi_error(const struct gw_endpoint *ep, struct gw_error *err);
void gw_ofi_shutdown(struct gw_endpoint *ep);
void gw_ofi_revoke(struct gw_endpoint *ep);
void gw_ofi_close(struct gw_endpoint *ep);
int gw_ofi_arm(struct gw_endpoint *ep, struct pollfd *fds, unsigned max, uint64_t *wake_ns);
void gw_ofi_awake(struct gw_endpoint *ep, const struct pollfd *fds, unsigned count);

/* ---- ofi_queue.c, for an endpoint ------------------------------------------------------------------- */

int gw_ofi_queue_init(struct gw_ofi_ep *e);
void gw_ofi_queue_fini(struct gw_ofi_queue *q);
/* The next operation, NULL: the queue is full. It is accepted once gw_ofi_queue_commit() was called. */
struct gw_ofi_op *gw_ofi_queue_next(struct gw_ofi_queue *q);
void gw_ofi_queue_commit(struct gw_ofi_queue *q);
/* A buffer for a piece; there must be one (free_count). */
uint8_t *gw_ofi_piece_take(struct gw_ofi_queue *q);
/* Hand to libfabric what it takes. */
void gw_ofi_queue_post(struct gw_ofi_ep *e);
/* libfabric has completed @op. */
void gw_ofi_queue_done(struct gw_ofi_queue *q, struct gw_ofi_op *op, int status);
/* Nothing will complete any more: all that has not is done with @status. */
void gw_ofi_queue_flush(struct gw_ofi_queue *q, int status);
/* Forget pieces at the head that are done; what stands there then is a put or not done. */
void gw_ofi_queue_trim(struct gw_ofi_queue *q);
/* A put whose completion can be reported. */
struct gw_ofi_op *gw_ofi_queue_reported(struct gw_ofi_queue *q);

/* ---- ofi_put.c, ofi_message.c --------------------------------------------------------------------------- */

int gw_ofi_put(struct gw_endpoint *ep, const struct gw_put *puts, unsigned count);
int gw_ofi_poll(struct gw_endpoint *ep, struct gw_completion *done, unsigned max);

int gw_ofi_send(struct gw_endpoint *ep, const struct iovec *iov, int iov_count);
ssize_t gw_ofi_recv(struct gw_endpoint *ep, void *buf, size_t bytes);
/* The piece without a message by which two ends hear of each other. */
void gw_ofi_say_hello(struct gw_ofi_ep *e);
/* Its hello has come, and its card: both ends can speak. */
void gw_ofi_maybe_joined(struct gw_ofi_ep *e);
/* Post receives again; a slot whose message was taken is free. */
void gw_ofi_receives_post(struct gw_ofi_ep *e);
/* Put what has come together, as far as one whole message. True: there is one. */
bool gw_ofi_message_take(struct gw_ofi_ep *e);

#endif
