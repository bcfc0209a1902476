/* SPDX-License-Identifier: MIT */
/* transport/stream.h - the endpoint that every byte stream shares: frames, puts, messages, regions.
 * tcp.c and unix.c make a connected descriptor and hand it over; the rest of their tables is here.
 * Threads: as transport.h says; the domain's regions are looked up by all endpoint threads. */
#ifndef GW_TRANSPORT_STREAM_H
#define GW_TRANSPORT_STREAM_H

#include "transport/ops.h"

#include <pthread.h>
#include <stdatomic.h>

/* ---- frames: the layout is in stream.c ------------------------------------------------------ */

#define GW_FRAME_HEAD_BYTES 16
#define GW_FRAME_ENTRY_BYTES 16
#define GW_FRAME_MAGIC 0x4757 /* "GW" */
/* One table fits one sendmsg or readv (IOV_MAX is 1024) with the headers around it. */
#define GW_FRAME_ENTRIES_MAX 512
/* A frame amortises three system calls of the receiver; at 1 Gb/s it holds the wire for 34 ms. */
#define GW_FRAME_PAYLOAD_MAX (4u << 20)

enum gw_frame_kind { GW_FRAME_PUT = 1, GW_FRAME_MESSAGE = 2 };

struct gw_frame_head {
    uint8_t kind;
    uint16_t entry_count;
    uint32_t table_bytes;
    uint32_t payload_bytes;
};

struct gw_frame_entry {
    uint32_t region;
    uint32_t bytes;
    uint64_t offset;
};

void gw_frame_head_encode(const struct gw_frame_head *head, uint8_t bytes[GW_FRAME_HEAD_BYTES]);
/* 0, or -EPROTO and *why: everything that a header can be wrong in without knowing the table. */
int gw_frame_head_decode(const uint8_t bytes[GW_FRAME_HEAD_BYTES], uint32_t message_bytes_max,
                         struct gw_frame_head *head, const char **why);
void gw_frame_entry_encode(const struct gw_frame_entry *entry, uint8_t bytes[GW_FRAME_ENTRY_BYTES]);
void gw_frame_entry_decode(const uint8_t bytes[GW_FRAME_ENTRY_BYTES], struct gw_frame_entry *entry);

/* ---- domain and regions --------------------------------------------------------------------- */

struct gw_stream_mr {
    struct gw_mr base;
    struct gw_stream_domain *dom;
    struct gw_mr_desc desc;
};

struct gw_stream_rmr {
    struct gw_rmr base;
    uint32_t region;
    uint64_t bytes;
};

struct gw_stream_domain {
    struct gw_domain base;
    pthread_rwlock_t regions_lock; /* guards the fields below */
    struct gw_stream_mr **regions; /* by number; NULL: no such region */
    uint32_t region_capacity;
    uint64_t regions_version; /* grows with each change, so that a half read frame looks again */
};

int gw_stream_domain_new(const struct gw_transport_ops *ops, struct gw_domain **dom,
                         struct gw_error *err);
void gw_stream_domain_close(struct gw_domain *dom);
int gw_stream_mr_reg(struct gw_domain *dom, const struct gw_mr_desc *desc, struct gw_mr **mr,
                     struct gw_error *err);
void gw_stream_mr_dereg(struct gw_mr *mr);
int gw_stream_rmr_open(struct gw_domain *dom, uint32_t region, uint64_t bytes, const void *key,
                       size_t key_bytes, struct gw_rmr **rmr, struct gw_error *err);
void gw_stream_rmr_close(struct gw_rmr *rmr);
/* The memory of @entry, NULL if the region is unknown or the range leaves it (*why says which). */
void *gw_stream_region_at_locked(const struct gw_stream_domain *dom,
                                 const struct gw_frame_entry *entry, const char **why);

/* ---- endpoint ------------------------------------------------------------------------------- */

/* Queued messages: accepted while fewer than this many bytes wait, so the ring holds one more. */
#define GW_STREAM_QUEUE_BYTES (256u << 10)
#define GW_STREAM_FRAMES 2 /* one on its way, one being filled */
#define GW_STREAM_ITEMS 8  /* frames and message runs in posting order: at most 2 * FRAMES + 1 */

struct gw_tx_frame {
    uint8_t head[GW_FRAME_HEAD_BYTES + GW_FRAME_ENTRIES_MAX * GW_FRAME_ENTRY_BYTES];
    struct iovec iov[1 + GW_FRAME_ENTRIES_MAX]; /* [0]: head and table; consumed as they are sent */
    uint64_t cookies[GW_FRAME_ENTRIES_MAX];
    unsigned count;    /* puts in it */
    unsigned iov_next; /* first vector with bytes left */
    unsigned reported; /* completions handed out */
    uint32_t payload_bytes;
    int status; /* of its completions */
    enum { FRAME_FREE, FRAME_OPEN, FRAME_QUEUED, FRAME_DONE } state;
};

struct gw_tx_item {
    struct gw_tx_frame *frame; /* NULL: bytes of the message ring */
    size_t bytes;
};

struct gw_stream_tx {
    struct gw_tx_frame frames[GW_STREAM_FRAMES];
    unsigned fill; /* frame that is open, or will be next */
    unsigned done; /* frame whose completions are next */
    struct gw_tx_item items[GW_STREAM_ITEMS];
    unsigned item_first, item_count;
    uint8_t *ring;
    size_t ring_bytes, ring_first, ring_used;
    bool ready;          /* the last attempt was not cut short */
    bool put_since_poll; /* gw_poll leaves an open frame open once, so that it can fill */
    uint64_t tried_ns;
    struct iovec iov[1024]; /* of one sendmsg; here because it is too large for a stack */
};

struct gw_stream_rx {
    enum { RX_HEAD, RX_TABLE, RX_PAYLOAD, RX_MESSAGE, RX_MESSAGE_READY } state;
    uint8_t head[GW_FRAME_HEAD_BYTES];
    size_t head_got;
    struct gw_frame_head frame;
    uint8_t table[GW_FRAME_ENTRIES_MAX * GW_FRAME_ENTRY_BYTES];
    size_t table_got;
    struct gw_frame_entry entries[GW_FRAME_ENTRIES_MAX];
    struct iovec iov[GW_FRAME_ENTRIES_MAX + 1]; /* left to read; the last is the next header */
    unsigned entry_next;                        /* first entry with bytes left */
    uint32_t payload_left;
    uint64_t regions_version; /* at which iov was resolved */
    uint8_t *message;
    size_t message_got;
    bool ready; /* the last read was not cut short */
    bool revoked;
    uint64_t tried_ns;
    uint64_t resume_ns; /* let payload gather until then; 0: wait for the descriptor */
    uint64_t gather_ns; /* the longest such wait, as it has paid so far */
    uint64_t waited_ns; /* resume_ns was that wait; what it brings is judged */
};

struct gw_stream {
    struct gw_endpoint base;
    int fd;
    struct gw_stream_domain *dom;
    struct gw_wire_config config; /* defaults filled in */
    char peer[128];
    struct gw_error err;
    int rc;           /* first final error; puts and sends answer it */
    int rx_rc;        /* set once nothing that arrived is left to hand out */
    bool rc_was_told; /* an op has returned it: no need to keep the owner awake */
    atomic_bool shut; /* set by any thread, read by the owner: relaxed, the descriptor wakes */
    uint64_t rx_bytes, tx_bytes, system_calls;
    struct gw_stream_tx tx;
    struct gw_stream_rx rx;
};

static inline struct gw_stream *gw_stream_of(struct gw_endpoint *ep)
{
    return (struct gw_stream *)ep;
}

/* @fd: connected, non-blocking; the endpoint's from here on, closed on failure too. */
int gw_stream_new(const struct gw_transport_ops *ops, int fd, struct gw_domain *dom,
                  const struct gw_wire_config *config, const char *peer, struct gw_endpoint **ep,
                  struct gw_error *err);

/* Note a final error, once, and flush every accepted put with it. Returns the first one's rc. */
int gw_stream_fail(struct gw_stream *s, int rc, enum gw_code code, const char *format, ...)
    GW_PRINTF(4, 5);
/* The same for a system call's errno (positive). */
int gw_stream_fail_errno(struct gw_stream *s, int error, const char *what);
/* 0, or the final error that every op must answer (a shutdown by another thread included). */
int gw_stream_check(struct gw_stream *s);

/* The ops. */
void gw_stream_query(const struct gw_endpoint *ep, struct gw_ep_attr *attr);
int gw_stream_error(const struct gw_endpoint *ep, struct gw_error *err);
void gw_stream_shutdown(struct gw_endpoint *ep);
void gw_stream_revoke(struct gw_endpoint *ep);
void gw_stream_close(struct gw_endpoint *ep);
int gw_stream_put(struct gw_endpoint *ep, const struct gw_put *puts, unsigned count);
int gw_stream_poll(struct gw_endpoint *ep, struct gw_completion *done, unsigned max);
int gw_stream_send(struct gw_endpoint *ep, const struct iovec *iov, int iov_count);
ssize_t gw_stream_recv(struct gw_endpoint *ep, void *buf, size_t bytes);
int gw_stream_arm(struct gw_endpoint *ep, struct pollfd *fds, unsigned max, uint64_t *wake_ns);
void gw_stream_awake(struct gw_endpoint *ep, const struct pollfd *fds, unsigned count);

/* Between the files of the engine. */
int gw_tx_init(struct gw_stream *s);
void gw_tx_fini(struct gw_stream *s);
void gw_tx_flush(struct gw_stream *s);           /* after an error: every put completes with it */
void gw_tx_step(struct gw_stream *s, bool seal); /* hand over what the kernel takes */
bool gw_tx_has_completion(const struct gw_stream *s);
bool gw_tx_is_pending(const struct gw_stream *s);
int gw_rx_init(struct gw_stream *s);
void gw_rx_fini(struct gw_stream *s);
bool gw_rx_is_ready(const struct gw_stream *s); /* gw_recv would not be in vain */

#endif
