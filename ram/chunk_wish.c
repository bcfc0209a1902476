// SPDX-License-Identifier: MIT
/* Which chunks to wish for is known twice: at first from what is populated (in scan order, without looking
 * at any bit, which are the owners'), afterwards from the owners, who mark a chunk wanted when their scan
 * had to pass dirty pages in it by (chunk_owner.c). */
#include "ram/chunk_impl.h"

int gw_chunks_walk(struct gw_chunks *chunks, struct gw_error *err)
{
    while (!chunks->walk_left.pages) {
        if (chunks->walk_block == chunks->block_count) {
            chunks->walk_is_over = true;
            return 0;
        }
        struct gw_block *block = gw_ram_block(chunks->config.ram, chunks->walk_block);
        int rc = 0;
        if (chunks->config.keyed && chunks->config.all) {
            bool is_next = !chunks->walk_is_open;
            chunks->walk_left = (struct gw_extent){.pages = is_next ? block->pages : 0};
            chunks->walk_block += !is_next;
            chunks->walk_is_open = is_next;
            continue;
        }
        if (!chunks->walk_is_open) {
            rc = gw_holes_begin(&chunks->walk, block, 0);
            chunks->walk_is_open = true;
        }
        if (rc == 0)
            rc = gw_holes_step(&chunks->walk, &chunks->walk_left);
        if (rc < 0)
            return gw_fail(err, rc, "block '%s': cannot find out what is populated",
                           block->desc.name);
        if (rc == 0) {
            gw_holes_end(&chunks->walk);
            chunks->walk_is_open = false;
            chunks->walk_block++;
            chunks->walk_left.pages = 0;
        }
    }
    return 1;
}

/* The part of walk_left that lies in its first chunk. */
static uint64_t walk_pages(const struct gw_chunks *chunks)
{
    uint64_t chunk_pages = chunks->blocks[chunks->walk_block].chunk_pages;
    return gw_min_u64(chunks->walk_left.pages,
                      chunk_pages - chunks->walk_left.first_page % chunk_pages);
}

static void walk_past(struct gw_chunks *chunks, uint64_t pages)
{
    chunks->walk_left.first_page += pages;
    chunks->walk_left.pages -= pages;
}

static int wish_stream(struct gw_chunks *chunks, struct gw_wish *wishes, unsigned max,
                       struct gw_error *err)
{
    unsigned count = 0;
    int rc = 0;
    while (count < max && (rc = gw_chunks_walk(chunks, err)) > 0) {
        uint64_t pages = walk_pages(chunks);
        wishes[count++] = (struct gw_wish){
            .block = chunks->walk_block,
            .offset = chunks->walk_left.first_page * GW_PAGE_BYTES,
            .bytes = pages * GW_PAGE_BYTES,
        };
        walk_past(chunks, pages);
    }
    return rc < 0 ? rc : (int)count;
}

/* False: the budgets do not allow it now. */
static bool wish_chunk(struct gw_chunks *chunks, struct gw_chunk_place at, struct gw_wish *wish)
{
    struct gw_chunk *chunk = gw_chunk_at(chunks, at);
    *wish = gw_chunk_range(chunks, at);
    chunks->is_short = true;
    chunks->lacks_budget = wish->bytes > chunks->config.local_budget - chunks->local_used ||
                           wish->bytes > chunks->config.remote_budget - chunks->remote_used;
    if (chunks->lacks_budget || chunks->open_wishes == GW_WISHES_OPEN_MAX)
        return false;
    chunks->is_short = false;
    chunks->local_used += wish->bytes;
    chunks->remote_used += wish->bytes;
    chunks->open_wishes++;
    chunks->coming++;
    chunks->unpinned++;
    gw_chunk_push(&chunks->to_register, chunk);
    if (atomic_exchange_explicit(&chunk->wanted, 0, memory_order_relaxed))
        atomic_fetch_sub_explicit(&chunks->wanted_count, 1, memory_order_relaxed);
    gw_chunk_set_state(chunk, GW_CHUNK_WISHED);
    return true;
}

static bool is_wanted(const struct gw_chunk *chunk)
{
    return gw_chunk_state_of(chunk) == GW_CHUNK_NONE &&
           atomic_load_explicit(&chunk->wanted, memory_order_relaxed);
}

bool gw_chunks_find_wanted(struct gw_chunks *chunks)
{
    if (!chunks->block_count || !atomic_load_explicit(&chunks->wanted_count, memory_order_relaxed))
        return false;
    struct gw_chunk_place start = chunks->want_at;
    do {
        if (is_wanted(gw_chunk_at(chunks, chunks->want_at)))
            return true;
        chunks->want_at = gw_chunk_next(chunks, chunks->want_at);
    } while (!gw_chunk_is_same(chunks->want_at, start));
    return false;
}

static int wish_keyed(struct gw_chunks *chunks, struct gw_wish *wishes, unsigned max,
                      struct gw_error *err)
{
    unsigned count = 0;
    int rc = 0;
    chunks->is_short = chunks->lacks_budget = false;
    while (count < max && (rc = gw_chunks_walk(chunks, err)) > 0) {
        uint64_t chunk_pages = chunks->blocks[chunks->walk_block].chunk_pages;
        struct gw_chunk_place at = {chunks->walk_block, chunks->walk_left.first_page / chunk_pages};
        if (gw_chunk_state_of(gw_chunk_at(chunks, at)) == GW_CHUNK_NONE &&
            !gw_chunk_is_same(at, chunks->walked)) {
            if (!wish_chunk(chunks, at, &wishes[count]))
                return (int)count;
            chunks->walked = at;
            count++;
        }
        walk_past(chunks, walk_pages(chunks));
    }
    if (rc < 0)
        return rc;
    while (count < max && gw_chunks_find_wanted(chunks) &&
           wish_chunk(chunks, chunks->want_at, &wishes[count]))
        count++;
    return (int)count;
}

int gw_chunks_wish(struct gw_chunks *chunks, struct gw_wish *wishes, unsigned max,
                   struct gw_error *err)
{
    return chunks->config.keyed ? wish_keyed(chunks, wishes, max, err)
                                : wish_stream(chunks, wishes, max, err);
}
