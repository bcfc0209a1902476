// SPDX-License-Identifier: MIT
/* The states of chunks, and what a chunk needs to be ready. On a stream wire there is nothing to be made
 * ready: a chunk is always ready, the region is the whole block, and wishes only tell the target where to
 * prefault. On a keyed wire a chunk costs budget at both ends from its wish to its release, and is not
 * wished for again before both ends have let go of it.
 *
 * A failing registration leaves the chunk WISHED, its bits set and the error to the caller. */
#include "core/base/alloc.h"
#include "ram/chunk_impl.h"

#include <inttypes.h>
#include <stdio.h>

/* So many chunks a block is cut into at least, so that the first write leaves after a small part of it
 * was pinned; and so many fit into a budget, so that there is a window to slide. */
#define CHUNKS_PER_BLOCK 256u
#define CHUNKS_PER_BUDGET 8u

static struct gw_chunk_place place_of(const struct gw_chunks *chunks, const struct gw_chunk *chunk)
{
    return (struct gw_chunk_place){chunk->block,
                                   (uint64_t)(chunk - chunks->blocks[chunk->block].chunk)};
}

static struct gw_chunk *list_take(struct gw_chunk_list *list)
{
    struct gw_chunk *chunk = list->first;
    if (chunk)
        list->first = chunk->next;
    if (!list->first)
        list->last = &list->first;
    return chunk;
}

/* ---- life ------------------------------------------------------------------------------------ */

static uint64_t power_of_two_below(uint64_t value)
{
    return value ? UINT64_C(1) << (63 - __builtin_clzll(value)) : 0;
}

static uint64_t choose_chunk_bytes(const struct gw_chunks_config *config,
                                   const struct gw_block_desc *desc)
{
    uint64_t bytes = config->chunk_bytes;
    if (!bytes) {
        uint64_t budget = gw_min_u64(config->local_budget, config->remote_budget);
        bytes = gw_min_u64(desc->size_bytes / CHUNKS_PER_BLOCK, GW_CHUNK_BYTES_MAX);
        if (config->keyed)
            bytes = gw_min_u64(bytes, budget / CHUNKS_PER_BUDGET);
        bytes = gw_max_u64(power_of_two_below(bytes), GW_CHUNK_BYTES_MIN);
    }
    return gw_max_u64(bytes, desc->page_bytes);
}

#define LIMIT_MARGIN_BYTES (UINT64_C(1) << 20) /* of a limit that is advised */

static int refuse_budget(const struct gw_chunks *chunks, const char *what, uint64_t need,
                         struct gw_error *err)
{
    uint64_t have = gw_min_u64(chunks->config.local_budget, chunks->config.remote_budget);
    bool ours = chunks->config.local_budget <= chunks->config.remote_budget;
    gw_fail_code(err, -ENOMEM, GW_CODE_LIMIT,
                 "%s: %" PRIu64 " bytes must be registered at a time, the %s allows %" PRIu64, what,
                 need, ours ? "source" : "target", have);
    /* The target has as many endpoints, and as large buffers for them. */
    uint64_t limit = need + chunks->config.local_besides + LIMIT_MARGIN_BYTES;
    gw_error_hint(err,
                  "at the %s: ulimit -l %" PRIu64 " (as root: prlimit --pid PID --memlock=%" PRIu64
                  "), CAP_IPC_LOCK, or a higher x-registered-max if that is what limits it",
                  ours ? "source" : "target", limit / 1024, limit);
    return -ENOMEM;
}

/* One chunk at least must fit both budgets; with rdma-pin-all, all of them. */
static int check_fits(const struct gw_chunks *chunks, const struct gw_block *block,
                      struct gw_error *err)
{
    const struct gw_chunks_config *config = &chunks->config;
    uint64_t need =
        gw_min_u64(chunks->blocks[block->id].chunk_pages * GW_PAGE_BYTES, block->desc.size_bytes);
    if (need <= gw_min_u64(config->local_budget, config->remote_budget))
        return 0;
    char what[300];
    snprintf(what, sizeof(what), "block '%s'", block->desc.name);
    return refuse_budget(chunks, what, need, err);
}

static int add_block(struct gw_chunks *chunks, unsigned id, struct gw_error *err)
{
    struct gw_block *block = gw_ram_block(chunks->config.ram, id);
    struct gw_block_chunks *own = &chunks->blocks[id];
    own->chunk_pages = choose_chunk_bytes(&chunks->config, &block->desc) / GW_PAGE_BYTES;
    own->count = (block->pages + own->chunk_pages - 1) / own->chunk_pages;
    if (chunks->config.keyed) {
        own->chunk = gw_zalloc(own->count, sizeof(*own->chunk));
        if (!own->chunk)
            return gw_fail(err, -ENOMEM, "block '%s': chunks", block->desc.name);
        for (uint64_t i = 0; i < own->count; i++)
            own->chunk[i].block = id;
        return check_fits(chunks, block, err);
    }
    if (block->rmr || !chunks->config.dom)
        return 0;
    int rc = gw_rmr_open(chunks->config.dom, id, block->desc.size_bytes, NULL, 0, &block->rmr, err);
    if (rc < 0) {
        gw_error_prefix(err, "block '%s'", block->desc.name);
        return rc;
    }
    own->rmr_is_ours = true;
    return 0;
}

struct gw_chunks *gw_chunks_new(const struct gw_chunks_config *config, struct gw_error *err)
{
    uint64_t bytes = config->chunk_bytes;
    if (bytes && (bytes != power_of_two_below(bytes) || bytes < GW_CHUNK_BYTES_MIN ||
                  bytes > GW_CHUNK_BYTES_MAX)) {
        gw_fail(err, -EINVAL, "chunks of %" PRIu64 " bytes: not a power of two from 2 MiB to 1 GiB",
                bytes);
        return NULL;
    }
    struct gw_chunks *chunks = gw_zalloc(1, sizeof(*chunks));
    if (!chunks) {
        gw_fail(err, -ENOMEM, "chunks");
        return NULL;
    }
    chunks->config = *config;
    unsigned block_count = gw_ram_block_count(config->ram);
    chunks->owner_count = gw_ram_owner_count(config->ram);
    chunks->blocks = gw_zalloc(block_count, sizeof(*chunks->blocks));
    chunks->owners = gw_zalloc(chunks->owner_count, sizeof(*chunks->owners));
    if (!chunks->blocks || !chunks->owners) {
        gw_fail(err, -ENOMEM, "chunks of %u blocks", block_count);
        goto out;
    }
    chunks->to_register.last = &chunks->to_register.first;
    chunks->to_sync.last = &chunks->to_sync.first;
    chunks->walked.block = UINT32_MAX;
    atomic_init(&chunks->generation, 1); /* 0 is no pass's */
    for (unsigned i = 0; i < chunks->owner_count; i++)
        atomic_init(&chunks->owners[i].at, UINT64_MAX);
    uint64_t budget = gw_min_u64(config->local_budget, config->remote_budget);
    if (config->keyed && config->all && gw_ram_bytes(config->ram) > budget) {
        refuse_budget(chunks, "rdma-pin-all", gw_ram_bytes(config->ram), err);
        goto out;
    }
    chunks->block_count =
        block_count; /* also of the block that fails, what it has is to be freed */
    for (unsigned i = 0; i < block_count; i++) {
        if (add_block(chunks, i, err) < 0)
            goto out;
    }
    return chunks;
out:
    gw_chunks_free(chunks);
    return NULL;
}

static void chunk_dereg(struct gw_chunk *chunk)
{
    gw_rmr_close(chunk->rmr);
    gw_mr_dereg(chunk->mr);
    chunk->rmr = NULL;
    chunk->mr = NULL;
}

void gw_chunks_free(struct gw_chunks *chunks)
{
    if (!chunks)
        return;
    for (unsigned b = 0; chunks->blocks && b < chunks->block_count; b++) {
        struct gw_block_chunks *own = &chunks->blocks[b];
        for (uint64_t i = 0; own->chunk && i < own->count; i++)
            chunk_dereg(&own->chunk[i]);
        gw_free(own->chunk);
        if (own->rmr_is_ours) {
            struct gw_block *block = gw_ram_block(chunks->config.ram, b);
            gw_rmr_close(block->rmr);
            block->rmr = NULL;
        }
    }
    if (chunks->walk_is_open)
        gw_holes_end(&chunks->walk);
    gw_free(chunks->owners);
    gw_free(chunks->blocks);
    gw_free(chunks);
}

/* ---- keys ------------------------------------------------------------------------------------ */

struct gw_chunk *gw_chunk_find(const struct gw_chunks *chunks, const struct gw_wish *range,
                               enum gw_chunk_state state, struct gw_chunk_place *at)
{
    if (!chunks->config.keyed || range->block >= chunks->block_count)
        return NULL;
    uint64_t chunk_bytes = chunks->blocks[range->block].chunk_pages * GW_PAGE_BYTES;
    *at = (struct gw_chunk_place){range->block, range->offset / chunk_bytes};
    if (at->index >= chunks->blocks[range->block].count)
        return NULL;
    struct gw_wish exact = gw_chunk_range(chunks, *at);
    if (exact.offset != range->offset || exact.bytes != range->bytes)
        return NULL;
    struct gw_chunk *chunk = gw_chunk_at(chunks, *at);
    return gw_chunk_state_of(chunk) == state ? chunk : NULL;
}

uint64_t gw_chunk_stripes(const struct gw_chunks *chunks, struct gw_chunk_place at, uint64_t *last)
{
    const struct gw_block *block = gw_ram_block(chunks->config.ram, at.block);
    uint64_t stripe_pages = gw_ram_stripe_pages(chunks->config.ram);
    struct gw_wish range = gw_chunk_range(chunks, at);
    uint64_t first = block->stripe_first + range.offset / GW_PAGE_BYTES / stripe_pages;
    *last = block->stripe_first + ((range.offset + range.bytes) / GW_PAGE_BYTES - 1) / stripe_pages;
    return gw_max_u64(first + chunks->owner_count, *last + 1) - chunks->owner_count;
}

bool gw_chunks_to_register(struct gw_chunks *chunks, struct gw_wish *range)
{
    struct gw_chunk *chunk = list_take(&chunks->to_register);
    if (!chunk)
        return false;
    *range = gw_chunk_range(chunks, place_of(chunks, chunk));
    chunks->registered += range->bytes;
    chunks->registered_peak = gw_max_u64(chunks->registered_peak, chunks->registered);
    return true;
}

int gw_chunk_register(const struct gw_chunks *chunks, const struct gw_wish *range,
                      struct gw_mr **mr, struct gw_error *err)
{
    const struct gw_block *block = gw_ram_block(chunks->config.ram, range->block);
    struct gw_mr_desc desc = {
        .addr = (char *)block->desc.host + range->offset,
        .bytes = range->bytes,
        .access = GW_MR_LOCAL_READ,
        .region = range->block,
    };
    int rc = gw_mr_reg(chunks->config.dom, &desc, mr, err);
    if (rc < 0)
        gw_error_prefix(err, "block '%s': chunk %" PRIu64, block->desc.name,
                        range->offset / (chunks->blocks[range->block].chunk_pages * GW_PAGE_BYTES));
    return rc < 0 ? rc : 0;
}

static void maybe_sync(struct gw_chunks *chunks, struct gw_chunk *chunk)
{
    if (chunk->mr && chunk->rmr)
        gw_chunk_push(&chunks->to_sync, chunk);
}

void gw_chunks_registered(struct gw_chunks *chunks, const struct gw_wish *range, struct gw_mr *mr)
{
    struct gw_chunk_place at;
    struct gw_chunk *chunk = gw_chunk_find(chunks, range, GW_CHUNK_WISHED, &at);
    gw_assert(chunk && !chunk->mr && mr);
    chunk->mr = mr;
    chunks->unpinned--;
    maybe_sync(chunks, chunk);
}

int gw_chunks_key(struct gw_chunks *chunks, const struct gw_wish *which, const void *key,
                  size_t key_bytes, struct gw_error *err)
{
    struct gw_chunk_place at;
    struct gw_chunk *chunk = gw_chunk_find(chunks, which, GW_CHUNK_WISHED, &at);
    if (!chunk || chunk->rmr || key_bytes > GW_KEY_BYTES_MAX)
        return gw_fail(err, -EPROTO,
                       "key for block %" PRIu32 " [%" PRIu64 ", +%" PRIu64
                       "): no wish is open for it",
                       which->block, which->offset, which->bytes);
    int rc =
        gw_rmr_open(chunks->config.dom, at.block, which->bytes, key, key_bytes, &chunk->rmr, err);
    if (rc < 0) {
        gw_error_prefix(err, "block '%s': chunk %" PRIu64,
                        gw_ram_block(chunks->config.ram, at.block)->desc.name, at.index);
        return rc;
    }
    chunks->open_wishes--;
    maybe_sync(chunks, chunk);
    return 0;
}

unsigned gw_chunks_newly_ready(struct gw_chunks *chunks, struct gw_wish *ranges, unsigned max)
{
    unsigned count = 0;
    struct gw_chunk *chunk;
    while (count < max && (chunk = list_take(&chunks->to_sync))) {
        ranges[count++] = gw_chunk_range(chunks, place_of(chunks, chunk));
        gw_chunk_set_state(chunk, GW_CHUNK_SYNCING);
    }
    return count;
}

/* An owner may run out and wait again before the next one comes: that one is late, too. */
static void count_made(struct gw_chunks *chunks, struct gw_chunk_place at)
{
    bool late = false;
    uint64_t last;
    for (uint64_t stripe = gw_chunk_stripes(chunks, at, &last); stripe <= last; stripe++) {
        struct gw_owner_scan *scan = &chunks->owners[stripe % chunks->owner_count];
        late |= atomic_exchange_explicit(&scan->waits, false, memory_order_relaxed);
    }
    chunks->made++;
    chunks->made_late += late;
}

void gw_chunks_synced(struct gw_chunks *chunks, const struct gw_wish *range)
{
    struct gw_chunk_place at;
    struct gw_chunk *chunk = gw_chunk_find(chunks, range, GW_CHUNK_SYNCING, &at);
    gw_assert(chunk);
    count_made(chunks, at);
    uint32_t generation = atomic_load_explicit(&chunks->generation, memory_order_relaxed);
    chunk->ready_generation = generation + 1 ? generation + 1 : 1;
    chunks->coming--;
    gw_chunk_set_state(chunk, GW_CHUNK_READY);
    /* Release: who sees the new generation sees the chunk ready. */
    atomic_store_explicit(&chunks->generation, chunk->ready_generation, memory_order_release);
}

bool gw_chunks_are_short(const struct gw_chunks *chunks)
{
    return chunks->is_short;
}

bool gw_chunks_are_pinned(const struct gw_chunks *chunks)
{
    return (chunks->walk_is_over || chunks->lacks_budget) && !chunks->unpinned;
}

bool gw_chunks_lack_budget(const struct gw_chunks *chunks)
{
    return chunks->lacks_budget;
}

bool gw_chunks_are_ready(const struct gw_chunks *chunks)
{
    return !chunks->config.keyed ||
           (chunks->walk_is_over && !chunks->coming &&
            !atomic_load_explicit(&chunks->wanted_count, memory_order_relaxed));
}

/* ---- statistics ------------------------------------------------------------------------------ */

uint64_t gw_chunks_registered_peak(const struct gw_chunks *chunks)
{
    return chunks->registered_peak;
}

uint64_t gw_chunks_made(const struct gw_chunks *chunks, uint64_t *ahead)
{
    *ahead = chunks->made - chunks->made_late;
    return chunks->made;
}

uint64_t gw_chunk_bytes_max(const struct gw_chunks *chunks)
{
    uint64_t pages = 0;
    for (unsigned i = 0; i < chunks->block_count; i++)
        pages = gw_max_u64(pages, chunks->blocks[i].chunk_pages);
    return pages * GW_PAGE_BYTES;
}
