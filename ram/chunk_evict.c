// SPDX-License-Identifier: MIT
/* Which chunks to evict is known from where every owner's scan is: a chunk may go when each owner of a part
 * of it has gone over it once since it became ready, in this round; a window that slides in scan order,
 * since whatever is least recently used is what the next round begins with. "Since" is told by the
 * generation, which grows with every chunk that becomes ready: each pass remembers with which it began. An
 * owner that waits for chunks has gone over all that were ready, and goes over the next when the
 * generation changes, so whatever keeps the budget can go. Evicting too early loses nothing: bits that are
 * left keep the chunk wanted. */
#include "ram/chunk_impl.h"

#include <inttypes.h>

/* Began the pass of @at when @chunk was ready? Serial arithmetic; generation 0 is no pass. */
static bool began_with(uint64_t at, const struct gw_chunk *chunk)
{
    uint32_t generation = (uint32_t)(at >> 32);
    return generation && (int32_t)(generation - chunk->ready_generation) >= 0;
}

/* Has the owner of stripe @stripe gone over it since @chunk became ready, in its current round? */
static bool is_passed(const struct gw_chunks *chunks, const struct gw_chunk *chunk, uint64_t stripe)
{
    const struct gw_owner_scan *scan = &chunks->owners[stripe % chunks->owner_count];
    uint64_t at = atomic_load_explicit(&scan->at, memory_order_acquire);
    if (at == UINT64_MAX)
        return true;
    return (began_with(at, chunk) && stripe < (uint32_t)at) ||
           began_with(atomic_load_explicit(&scan->done, memory_order_relaxed), chunk);
}

static bool may_evict(const struct gw_chunks *chunks, struct gw_chunk_place at)
{
    const struct gw_chunk *chunk = gw_chunk_at(chunks, at);
    if (gw_chunk_state_of(chunk) != GW_CHUNK_READY)
        return false;
    uint64_t last;
    for (uint64_t stripe = gw_chunk_stripes(chunks, at, &last); stripe <= last; stripe++) {
        if (!is_passed(chunks, chunk, stripe))
            return false;
    }
    return true;
}

static uint64_t still_free(uint64_t budget, uint64_t used, uint64_t evicting)
{
    return budget > used - evicting ? budget - (used - evicting) : 0;
}

/* Bytes that are to be wished for and do not fit: the next chunk, and more of them up to half of the
 * budget. */
static uint64_t missing_bytes(struct gw_chunks *chunks)
{
    const struct gw_chunks_config *config = &chunks->config;
    uint64_t budget = gw_min_u64(config->local_budget, config->remote_budget);
    uint64_t next = 0;
    uint64_t more = 0;
    if (gw_chunks_walk(chunks, NULL) > 0) {
        uint64_t chunk_pages = chunks->blocks[chunks->walk_block].chunk_pages;
        struct gw_chunk_place at = {chunks->walk_block, chunks->walk_left.first_page / chunk_pages};
        next = gw_chunk_range(chunks, at).bytes;
        more = budget / 2;
    } else if (gw_chunks_find_wanted(chunks)) {
        next = gw_chunk_range(chunks, chunks->want_at).bytes;
        more = gw_min_u64(next * atomic_load_explicit(&chunks->wanted_count, memory_order_relaxed),
                          budget / 2);
    }
    uint64_t wanted = next ? gw_max_u64(next, more) : 0;
    uint64_t have =
        gw_min_u64(still_free(config->local_budget, chunks->local_used, chunks->local_evicting),
                   still_free(config->remote_budget, chunks->remote_used, chunks->remote_evicting));
    return wanted > have ? wanted - have : 0;
}

int gw_chunks_evict(struct gw_chunks *chunks, struct gw_wish *victims, unsigned max)
{
    if (!chunks->config.keyed || !chunks->block_count)
        return 0;
    unsigned count = 0;
    uint64_t missing = missing_bytes(chunks);
    struct gw_chunk_place start = chunks->evict_at;
    while (missing && count < max) {
        struct gw_chunk_place at = chunks->evict_at;
        chunks->evict_at = gw_chunk_next(chunks, at);
        if (may_evict(chunks, at)) {
            victims[count] = gw_chunk_range(chunks, at);
            gw_chunk_set_state(gw_chunk_at(chunks, at), GW_CHUNK_EVICTING);
            chunks->local_evicting += victims[count].bytes;
            chunks->remote_evicting += victims[count].bytes;
            missing -= gw_min_u64(missing, victims[count].bytes);
            count++;
        }
        if (gw_chunk_is_same(chunks->evict_at, start))
            break;
    }
    return (int)count;
}

void gw_chunks_evicted(struct gw_chunks *chunks, const struct gw_wish *victim, struct gw_mr **mr,
                       struct gw_rmr **rmr)
{
    struct gw_chunk_place at;
    struct gw_chunk *chunk = gw_chunk_find(chunks, victim, GW_CHUNK_EVICTING, &at);
    gw_assert(chunk && chunk->mr && chunk->rmr);
    *mr = chunk->mr;
    *rmr = chunk->rmr;
    chunk->mr = NULL;
    chunk->rmr = NULL;
    chunk->is_out = true;
}

/* Both ends have let go of it: it may be wished for again. */
static void maybe_none(struct gw_chunk *chunk)
{
    if (chunk->is_out || !chunk->is_released)
        return;
    chunk->is_released = false;
    gw_chunk_set_state(chunk, GW_CHUNK_NONE);
}

void gw_chunks_deregistered(struct gw_chunks *chunks, const struct gw_wish *victim)
{
    struct gw_chunk_place at;
    struct gw_chunk *chunk = gw_chunk_find(chunks, victim, GW_CHUNK_EVICTING, &at);
    gw_assert(chunk && chunk->is_out);
    chunks->local_used -= victim->bytes;
    chunks->local_evicting -= victim->bytes;
    chunks->registered -= victim->bytes;
    chunk->is_out = false;
    maybe_none(chunk);
}

int gw_chunks_released(struct gw_chunks *chunks, const struct gw_wish *which, struct gw_error *err)
{
    struct gw_chunk_place at;
    struct gw_chunk *chunk = gw_chunk_find(chunks, which, GW_CHUNK_EVICTING, &at);
    if (!chunk || chunk->mr || chunk->is_released)
        return gw_fail(err, -EPROTO,
                       "RELEASED of block %" PRIu32 " [%" PRIu64 ", +%" PRIu64
                       "): it was not given back",
                       which->block, which->offset, which->bytes);
    chunks->remote_used -= which->bytes;
    chunks->remote_evicting -= which->bytes;
    chunk->is_released = true;
    maybe_none(chunk);
    return 0;
}
