/* SPDX-License-Identifier: MIT */
/* ram/sink.h - where pages leave: by puts (sink_put.c); later in line, into a mapped file, as
 * multifd packets. The sender finds what must go; a sink only carries it. */
#ifndef GW_RAM_SINK_H
#define GW_RAM_SINK_H

#include "ram/block.h"
#include "ram/peer.h"
#include "transport/transport.h"

struct gw_run { /* neighbouring pages of one block, inside one chunk and one stripe */
    struct gw_block *block;
    uint64_t first_page;
    uint32_t pages;
    uint32_t tag; /* the sender's; reap() gives it back */
    /* As gw_chunk_rmr() told. */
    struct gw_rmr *rmr;
    struct gw_mr *mr;
    uint64_t base; /* the region's first byte in the block */
};

struct gw_sink;

struct gw_sink_ops {
    /* Take runs[0, count) in order; return how many were taken, 0: later, or a final -errno. A taken
     * run's memory is lent until reap() returns it. */
    int (*pages)(struct gw_sink *sink, const struct gw_run *runs, unsigned count);
    /* Both: 0, -EAGAIN (later), or final. Zero messages are numbered from 1 on, in order of success. */
    int (*zero)(struct gw_sink *sink, const struct gw_zero_run *runs, unsigned count);
    int (*fence)(struct gw_sink *sink, uint32_t number);
    /* Runs that are ours again; *status as gw_completion's, per call. Return: how many, 0: none. */
    int (*reap)(struct gw_sink *sink, struct gw_run *runs, int *status, unsigned max);
    /* Runs taken and not yet reaped. */
    unsigned (*in_flight)(const struct gw_sink *sink);
    void (*free)(struct gw_sink *sink);
};

struct gw_sink {
    const struct gw_sink_ops *ops;
    bool one_sided; /* zero runs need an acknowledgement before a put to their pages (rule 3) */
    uint32_t run_bytes_max;
    uint32_t run_count_max; /* runs that leave best together, in one call of pages() */
    uint32_t window;        /* runs that can be in flight */
};

/* Puts on @ep (borrowed); zero runs and fences through @peer. NULL: out of memory. */
struct gw_sink *gw_sink_put_new(struct gw_endpoint *ep, const struct gw_ram_peer_ops *peer,
                                void *peer_ctx);

#endif
