/* SPDX-License-Identifier: MIT */
/* ram/chunk_impl.h - what the parts of ram/chunk.h share: chunk.c makes chunks and their keys, chunk_wish.c
 * says which are wished for, chunk_evict.c which go, chunk_owner.c is what the owners of stripes call. */
#ifndef GW_RAM_CHUNK_IMPL_H
#define GW_RAM_CHUNK_IMPL_H

#include "core/base/bytes.h"
#include "ram/chunk.h"
#include "ram/holes.h"

#include <stdatomic.h>

enum gw_chunk_state {
    GW_CHUNK_NONE,
    GW_CHUNK_WISHED,
    GW_CHUNK_SYNCING,
    GW_CHUNK_READY,
    GW_CHUNK_EVICTING
};

struct gw_chunk {
    _Atomic uint8_t
        state; /* enum gw_chunk_state; stored with release, so that who sees READY sees mr, rmr */
    _Atomic uint8_t wanted; /* relaxed: a hint */
    bool is_out;            /* EVICTING: the owners hold nothing of it */
    bool is_released;       /* EVICTING: the target has let go of it */
    uint32_t block;
    uint32_t ready_generation; /* which was the first with it */
    struct gw_mr *mr;
    struct gw_rmr *rmr;
    struct gw_chunk *next; /* in to_register or to_sync */
};

struct gw_chunk_list { /* first in, first out */
    struct gw_chunk *first;
    struct gw_chunk **last;
};

struct gw_block_chunks {
    struct gw_chunk *chunk; /* keyed wires only */
    uint64_t count;
    uint64_t chunk_pages;
    bool rmr_is_ours; /* stream wires: block->rmr was opened here */
};

/* One owner's scan. `at` is the generation with which its pass began << 32 | stripes behind it;
 * UINT64_MAX: its round is over. `done` is the same of the last pass of this round that is over, 0: none
 * is; stored before `at`, whose release publishes it. */
struct gw_owner_scan {
    _Atomic uint64_t at;
    _Atomic uint64_t done;
    _Atomic bool waits; /* relaxed: for statistics; the chunk that ends its waiting takes it back */
};

struct gw_chunk_place { /* a chunk */
    uint32_t block;
    uint64_t index;
};

struct gw_chunks {
    struct gw_chunks_config config;
    unsigned block_count;
    struct gw_block_chunks *blocks;
    unsigned owner_count;
    struct gw_owner_scan *owners;

    uint32_t walk_block; /* what is populated, in order: the block that walk is in */
    bool walk_is_open;
    struct gw_holes walk;
    struct gw_extent walk_left;   /* of the extent last found, not wished for yet */
    struct gw_chunk_place walked; /* the last chunk that was wished for so */
    bool walk_is_over;

    struct gw_chunk_place want_at;  /* where the search for wanted chunks goes on */
    struct gw_chunk_place evict_at; /* ... and that for victims */
    _Atomic uint32_t wanted_count;
    _Atomic uint32_t generation;

    struct gw_chunk_list to_register;
    struct gw_chunk_list to_sync;
    unsigned open_wishes; /* without a key */
    bool is_short;        /* the last search for wishes ended before the last of them */
    bool lacks_budget;    /* ... at a budget */
    uint64_t coming;      /* chunks that are neither NONE, READY nor EVICTING */
    uint64_t unpinned;    /* of these, not registered here yet */

    uint64_t local_used;
    uint64_t remote_used;
    uint64_t local_evicting; /* of these, on their way back */
    uint64_t remote_evicting;
    uint64_t registered; /* here, in truth */
    uint64_t registered_peak;
    uint64_t made; /* ready, so often */
    uint64_t made_late;
};

static inline struct gw_wish gw_chunk_range(const struct gw_chunks *chunks,
                                            struct gw_chunk_place at)
{
    uint64_t chunk_bytes = chunks->blocks[at.block].chunk_pages * GW_PAGE_BYTES;
    uint64_t offset = at.index * chunk_bytes;
    return (struct gw_wish){
        .block = at.block,
        .offset = offset,
        .bytes = gw_min_u64(chunk_bytes,
                            gw_ram_block(chunks->config.ram, at.block)->desc.size_bytes - offset),
    };
}

static inline struct gw_chunk *gw_chunk_at(const struct gw_chunks *chunks, struct gw_chunk_place at)
{
    return &chunks->blocks[at.block].chunk[at.index];
}

static inline enum gw_chunk_state gw_chunk_state_of(const struct gw_chunk *chunk)
{
    return (enum gw_chunk_state)atomic_load_explicit(&chunk->state, memory_order_acquire);
}

static inline void gw_chunk_set_state(struct gw_chunk *chunk, enum gw_chunk_state state)
{
    atomic_store_explicit(&chunk->state, (uint8_t)state, memory_order_release);
}

/* The chunk after @at in block order, going round. */
static inline struct gw_chunk_place gw_chunk_next(const struct gw_chunks *chunks,
                                                  struct gw_chunk_place at)
{
    if (++at.index < chunks->blocks[at.block].count)
        return at;
    return (struct gw_chunk_place){.block = (at.block + 1) % chunks->block_count, .index = 0};
}

static inline bool gw_chunk_is_same(struct gw_chunk_place a, struct gw_chunk_place b)
{
    return a.block == b.block && a.index == b.index;
}

static inline void gw_chunk_push(struct gw_chunk_list *list, struct gw_chunk *chunk)
{
    chunk->next = NULL;
    *list->last = chunk;
    list->last = &chunk->next;
}

/* The chunk that is exactly @range and in @state; NULL if there is none. (chunk.c) */
struct gw_chunk *gw_chunk_find(const struct gw_chunks *chunks, const struct gw_wish *range,
                               enum gw_chunk_state state, struct gw_chunk_place *at);
/* Neighbouring stripes belong to as many owners: the last of each that has one in the chunk at @at. (chunk.c) */
uint64_t gw_chunk_stripes(const struct gw_chunks *chunks, struct gw_chunk_place at, uint64_t *last);
/* Make walk_left the next populated extent, unless it has pages left. 1, 0: no more, -errno. (chunk_wish.c) */
int gw_chunks_walk(struct gw_chunks *chunks, struct gw_error *err);
/* From want_at on, once around: the next wanted chunk. (chunk_wish.c) */
bool gw_chunks_find_wanted(struct gw_chunks *chunks);

#endif
