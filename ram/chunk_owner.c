// SPDX-License-Identifier: MIT
/* What the owners of stripes ask of chunks while they send, and say of how far they are. Each on its own
 * thread, while the migration thread does all else to chunks: everything here is an atomic, or does not
 * change once a chunk is READY. */
#include "ram/chunk_impl.h"

static struct gw_chunk *chunk_of_page(const struct gw_chunks *chunks, const struct gw_block *block,
                                      uint64_t page)
{
    const struct gw_block_chunks *own = &chunks->blocks[block->id];
    return &own->chunk[page / own->chunk_pages];
}

bool gw_chunk_is_ready(const struct gw_chunks *chunks, const struct gw_block *block, uint64_t page)
{
    return !chunks->config.keyed ||
           gw_chunk_state_of(chunk_of_page(chunks, block, page)) == GW_CHUNK_READY;
}

uint64_t gw_chunk_pages_left(const struct gw_chunks *chunks, const struct gw_block *block,
                             uint64_t page)
{
    if (!chunks->config.keyed)
        return block->pages - page; /* the whole block is one region */
    uint64_t chunk_pages = chunks->blocks[block->id].chunk_pages;
    return gw_min_u64(chunk_pages - page % chunk_pages, block->pages - page);
}

struct gw_rmr *gw_chunk_rmr(const struct gw_chunks *chunks, const struct gw_block *block,
                            uint64_t page, struct gw_mr **mr, uint64_t *base)
{
    if (!chunks->config.keyed) {
        *mr = NULL;
        *base = 0;
        return block->rmr;
    }
    /* EVICTING is told by the migration thread while this owner may have taken pages already: they
     * still go, and the eviction waits for them. */
    const struct gw_chunk *chunk = chunk_of_page(chunks, block, page);
    enum gw_chunk_state state = gw_chunk_state_of(chunk);
    gw_assert(state == GW_CHUNK_READY || state == GW_CHUNK_EVICTING);
    uint64_t chunk_pages = chunks->blocks[block->id].chunk_pages;
    *mr = chunk->mr;
    *base = page / chunk_pages * chunk_pages * GW_PAGE_BYTES;
    return chunk->rmr;
}

void gw_chunks_want(struct gw_chunks *chunks, const struct gw_block *block, uint64_t page)
{
    struct gw_chunk *chunk = chunk_of_page(chunks, block, page);
    enum gw_chunk_state state = gw_chunk_state_of(chunk);
    if (state != GW_CHUNK_NONE && state != GW_CHUNK_EVICTING)
        return; /* on its way */
    if (!atomic_exchange_explicit(&chunk->wanted, 1, memory_order_relaxed))
        atomic_fetch_add_explicit(&chunks->wanted_count, 1, memory_order_relaxed);
}

uint32_t gw_chunks_generation(const struct gw_chunks *chunks)
{
    return atomic_load_explicit(&chunks->generation, memory_order_acquire);
}

void gw_chunks_scan_begin(struct gw_chunks *chunks, unsigned owner)
{
    if (!chunks->config.keyed)
        return;
    struct gw_owner_scan *scan = &chunks->owners[owner];
    atomic_store_explicit(&scan->done, 0, memory_order_relaxed);
    atomic_store_explicit(&scan->at, 0, memory_order_release);
}

void gw_chunks_scan_at(struct gw_chunks *chunks, unsigned owner, uint32_t generation,
                       uint64_t stripe)
{
    if (!chunks->config.keyed)
        return;
    struct gw_owner_scan *scan = &chunks->owners[owner];
    uint64_t at = (uint64_t)generation << 32 | gw_min_u64(stripe, UINT32_MAX - 1);
    if (stripe == UINT32_MAX)
        atomic_store_explicit(&scan->done, at, memory_order_relaxed);
    atomic_store_explicit(&scan->at, at, memory_order_release);
}

void gw_chunks_scan_end(struct gw_chunks *chunks, unsigned owner)
{
    if (chunks->config.keyed)
        atomic_store_explicit(&chunks->owners[owner].at, UINT64_MAX, memory_order_release);
}

void gw_chunks_scan_waits(struct gw_chunks *chunks, unsigned owner)
{
    if (chunks->config.keyed)
        atomic_store_explicit(&chunks->owners[owner].waits, true, memory_order_relaxed);
}
