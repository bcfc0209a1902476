/* SPDX-License-Identifier: MIT */
/* tests/support/ram_rig.h - what tests of room ram run against: guest memory, a dirty source driven by
 * hand, a sink that carries pages into an image of the target, and a wire without a wire for
 * registrations and puts.
 *
 * The sink is as unkind as a wire may be. A put's bytes are read when it completes, not when it is
 * taken. On a one-sided sink zero runs are applied by the target only when it acknowledges them,
 * which is when the test says so; puts land before that. */
#ifndef GW_TEST_RAM_RIG_H
#define GW_TEST_RAM_RIG_H

#include "ram/block.h"
#include "ram/chunk.h"
#include "ram/dirty.h"
#include "ram/send.h"
#include "ram/sink.h"

#include <stdatomic.h>

#define RIG_BLOCKS_MAX 8

/* ---- guest memory ---------------------------------------------------------------------------- */

struct rig_memory {
    struct gw_ram *ram;
    unsigned count;
    char *host[RIG_BLOCKS_MAX];
    uint64_t bytes[RIG_BLOCKS_MAX];
    int fd[RIG_BLOCKS_MAX];
};

void rig_memory_init(struct rig_memory *memory);
/* Maps @pages of memory of @kind (anonymous without huge pages, or a memfd) and adds it as @name. */
struct gw_block *rig_memory_add(struct rig_memory *memory, const char *name,
                                enum gw_block_kind kind, uint64_t pages);
void rig_memory_fini(struct rig_memory *memory);

/* A page: its first word, as the guest would write it. */
void rig_write(struct gw_block *block, uint64_t page, uint64_t value);
uint64_t rig_read(const struct gw_block *block, uint64_t page);

/* ---- a dirty source -------------------------------------------------------------------------- */

#define RIG_PAGES_MAX (1u << 16) /* of all blocks together */

struct rig_dirty {
    uint64_t block_first[RIG_BLOCKS_MAX]; /* where its bits begin, in words */
    _Atomic uint64_t written[RIG_PAGES_MAX / 64];
    unsigned starts;
    unsigned stops;
    unsigned syncs;
    unsigned finals;
    int fail_start_at; /* the call, from 1, that fails; 0: none */
    int fail_syncs;    /* so many of the next syncs fail */
    bool odd_range;    /* some sync was asked for a range it need not understand */
};

extern const struct gw_dirty_ops rig_dirty_ops;
/* [any thread] */
void rig_dirty_mark(struct rig_dirty *dirty, const struct gw_block *block, uint64_t page);

/* ---- a sink ---------------------------------------------------------------------------------- */

enum rig_kind { RIG_PUT, RIG_ZERO, RIG_FENCE };

struct rig_event { /* in the order in which the sink took them */
    enum rig_kind kind;
    uint32_t block;
    uint64_t first_page;
    uint64_t pages;
    uint32_t number; /* of the zero message or the fence */
    unsigned call;   /* which pages() or zero() call it came with */
};

#define RIG_EVENTS_MAX 65536
#define RIG_WINDOW_MAX 1024

struct rig_sink {
    struct gw_sink sink;
    struct gw_ram *ram;
    char *image[RIG_BLOCKS_MAX]; /* the target's memory; NULL: not kept */
    unsigned event_count;
    struct rig_event event[RIG_EVENTS_MAX];
    unsigned calls;

    unsigned flying_count;
    struct gw_run flying[RIG_WINDOW_MAX]; /* in order */
    unsigned overlaps;                    /* runs taken of which a page was in flight already */
    unsigned zeroed_in_flight; /* puts taken to pages whose zero run is not acknowledged */

    uint32_t zero_number;
    uint32_t zero_acked;

    /* How it behaves. */
    unsigned accept_max;  /* runs per pages() call; 0: all */
    unsigned accept_left; /* ... and in total, while `meter` is set */
    bool meter;
    bool hold;            /* reap() returns nothing */
    bool refuse_messages; /* zero() and fence(): -EAGAIN */
    int final;            /* every call but reap(): this error */
    int fail_status;      /* the next reaped run comes with this status */
};

void rig_sink_init(struct rig_sink *sink, struct gw_ram *ram, bool one_sided);
void rig_sink_fini(struct rig_sink *sink);
/* Keep an image of @block, which is what the target has now: zeros. */
void rig_sink_image(struct rig_sink *sink, const struct gw_block *block);
/* The target applies and acknowledges zero messages up to @number. */
void rig_sink_ack(struct rig_sink *sink, uint32_t number);
/* Is the image of each kept block equal to the guest's memory? */
bool rig_sink_image_is_right(const struct rig_sink *sink);
/* Runs of @kind that name page @page of @block. */
unsigned rig_sink_count(const struct rig_sink *sink, enum rig_kind kind,
                        const struct gw_block *block, uint64_t page);
uint64_t rig_sink_pages(const struct rig_sink *sink, enum rig_kind kind);

/* Step until the sender says anything but BUSY, at most @max times. */
int rig_step(struct gw_sender *sender, unsigned max);

/* ---- chunks ---------------------------------------------------------------------------------- */

/* Registers what waits for it, in order; the first error. */
int rig_chunks_register(struct gw_chunks *chunks, struct gw_error *err);
/* The same, then @wish's key "k" arrives. */
int rig_chunk_key(struct gw_chunks *chunks, const struct gw_wish *wish);
/* An evicted chunk's registration and key end here. */
void rig_chunk_out(struct gw_chunks *chunks, const struct gw_wish *victim);

/* ---- a wire ---------------------------------------------------------------------------------- */

struct rig_domain; /* a struct gw_domain */

struct gw_domain *rig_domain_new(void);
void rig_domain_free(struct gw_domain *dom);
unsigned rig_domain_mrs(const struct gw_domain *dom); /* registrations that live */
unsigned rig_domain_rmrs(const struct gw_domain *dom);
void rig_domain_fail(struct gw_domain *dom, int rc); /* the next registration fails */

/* An endpoint that takes puts and completes them when asked. */
struct gw_endpoint *rig_endpoint_new(uint32_t flags, uint32_t put_count_max, uint32_t window);
void rig_endpoint_free(struct gw_endpoint *ep);
void rig_endpoint_complete(struct gw_endpoint *ep, unsigned count, int status);
void rig_endpoint_take(struct gw_endpoint *ep,
                       int max); /* per call from now on; negative: an error */
unsigned rig_endpoint_puts(const struct gw_endpoint *ep);
const struct gw_put *rig_endpoint_put(const struct gw_endpoint *ep, unsigned nth);

#endif
