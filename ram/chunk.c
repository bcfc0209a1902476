// SPDX-License-Identifier: MIT
/* The states of chunks. On a stream wire there is nothing to be made ready: a chunk is always ready,
 * the region is the whole block, and wishes only tell the target where to prefault. On a keyed wire a
 * chunk costs budget at both ends from its wish to its release, and is not wished for again before both
 * ends have let go of it.
 *
 * Which chunks to wish for is known twice: at first from what is populated (in scan order, without
 * looking at any bit, which are the owners'), afterwards from the owners, who mark a chunk wanted when
 * their scan had to pass dirty pages in it by. Which chunks to evict is known from where every owner's
 * scan is: a chunk may go when each owner of a part of it has gone over it once since it became ready,
 * in this round; a window that slides in scan order, since whatever is least recently used is what
 * the next round begins with. "Since" is told by the generation, which grows with every chunk that
 * becomes ready: each pass remembers with which it began. An owner that waits for chunks has gone over
 * all that were ready, and goes over the next when the generation changes, so whatever keeps the budget
 * can go. Evicting too early loses nothing: bits that are left keep the chunk wanted.
 *
 * A failing registration leaves the chunk WISHED, its bits set and the error to the caller. */
#include "ram/chunk.h"

#include "core/base/alloc.h"
#include "core/base/bytes.h"
#include "ram/holes.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

enum state { NONE, WISHED, SYNCING, READY, EVICTING };

/* So many chunks a block is cut into at least, so that the first write leaves after a small part of it
 * was pinned; and so many fit into a budget, so that there is a window to slide. */
#define CHUNKS_PER_BLOCK 256u
#define CHUNKS_PER_BUDGET 8u

struct chunk {
    _Atomic uint8_t
        state; /* enum state; stored with release, so that who sees READY sees mr, rmr */
    _Atomic uint8_t wanted; /* relaxed: a hint */
    bool is_out;            /* EVICTING: the owners hold nothing of it */
    bool is_released;       /* EVICTING: the target has let go of it */
    uint32_t block;
    uint32_t ready_generation; /* which was the first with it */
    struct gw_mr *mr;
    struct gw_rmr *rmr;
    struct chunk *next; /* in to_register or to_sync */
};

struct chunk_list { /* first in, first out */
    struct chunk *first;
    struct chunk **last;
};

struct block_chunks {
    struct chunk *chunk; /* keyed wires only */
    uint64_t count;
    uint64_t chunk_pages;
    bool rmr_is_ours; /* stream wires: block->rmr was opened here */
};

/* One owner's scan. `at` is the generation with which its pass began << 32 | stripes behind it;
 * UINT64_MAX: its round is over. `done` is the same of the last pass of this round that is over, 0: none
 * is; stored before `at`, whose release publishes it. */
struct owner_scan {
    _Atomic uint64_t at;
    _Atomic uint64_t done;
    _Atomic bool waits; /* relaxed: for statistics; the chunk that ends its waiting takes it back */
};

struct place { /* a chunk */
    uint32_t block;
    uint64_t index;
};

struct gw_chunks {
    struct gw_chunks_config config;
    unsigned block_count;
    struct block_chunks *blocks;
    unsigned owner_count;
    struct owner_scan *owners;

    uint32_t walk_block; /* what is populated, in order: the block that walk is in */
    bool walk_is_open;
    struct gw_holes walk;
    struct gw_extent walk_left; /* of the extent last found, not wished for yet */
    struct place walked;        /* the last chunk that was wished for so */
    bool walk_is_over;

    struct place want_at;  /* where the search for wanted chunks goes on */
    struct place evict_at; /* ... and that for victims */
    _Atomic uint32_t wanted_count;
    _Atomic uint32_t generation;

    struct chunk_list to_register;
    struct chunk_list to_sync;
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

static uint64_t block_bytes(const struct gw_chunks *chunks, uint32_t block)
{
    return gw_ram_block(chunks->config.ram, block)->desc.size_bytes;
}

static struct gw_wish range_of(const struct gw_chunks *chunks, struct place at)
{
    uint64_t chunk_bytes = chunks->blocks[at.block].chunk_pages * GW_PAGE_BYTES;
    uint64_t offset = at.index * chunk_bytes;
    return (struct gw_wish){
        .block = at.block,
        .offset = offset,
        .bytes = gw_min_u64(chunk_bytes, block_bytes(chunks, at.block) - offset),
    };
}

static struct chunk *chunk_at(const struct gw_chunks *chunks, struct place at)
{
    return &chunks->blocks[at.block].chunk[at.index];
}

static enum state state_of(const struct chunk *chunk)
{
    return (enum state)atomic_load_explicit(&chunk->state, memory_order_acquire);
}

static void set_state(struct chunk *chunk, enum state state)
{
    atomic_store_explicit(&chunk->state, (uint8_t)state, memory_order_release);
}

static struct place place_of(const struct gw_chunks *chunks, const struct chunk *chunk)
{
    return (struct place){chunk->block, (uint64_t)(chunk - chunks->blocks[chunk->block].chunk)};
}

static void list_push(struct chunk_list *list, struct chunk *chunk)
{
    chunk->next = NULL;
    *list->last = chunk;
    list->last = &chunk->next;
}

static struct chunk *list_take(struct chunk_list *list)
{
    struct chunk *chunk = list->first;
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
    struct block_chunks *own = &chunks->blocks[id];
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

static void chunk_dereg(struct chunk *chunk)
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
        struct block_chunks *own = &chunks->blocks[b];
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

/* ---- wishes ---------------------------------------------------------------------------------- */

/* Make walk_left the next populated extent, unless it has pages left. 1, 0: no more, -errno. */
static int walk_populated(struct gw_chunks *chunks, struct gw_error *err)
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
    while (count < max && (rc = walk_populated(chunks, err)) > 0) {
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
static bool wish_chunk(struct gw_chunks *chunks, struct place at, struct gw_wish *wish)
{
    struct chunk *chunk = chunk_at(chunks, at);
    *wish = range_of(chunks, at);
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
    list_push(&chunks->to_register, chunk);
    if (atomic_exchange_explicit(&chunk->wanted, 0, memory_order_relaxed))
        atomic_fetch_sub_explicit(&chunks->wanted_count, 1, memory_order_relaxed);
    set_state(chunk, WISHED);
    return true;
}

/* The chunk after @at in block order, going round. */
static struct place next_place(const struct gw_chunks *chunks, struct place at)
{
    if (++at.index < chunks->blocks[at.block].count)
        return at;
    return (struct place){.block = (at.block + 1) % chunks->block_count, .index = 0};
}

static bool same_place(struct place a, struct place b)
{
    return a.block == b.block && a.index == b.index;
}

static bool is_wanted(const struct chunk *chunk)
{
    return state_of(chunk) == NONE && atomic_load_explicit(&chunk->wanted, memory_order_relaxed);
}

/* From want_at on, once around: the next wanted chunk. */
static bool find_wanted(struct gw_chunks *chunks)
{
    if (!chunks->block_count || !atomic_load_explicit(&chunks->wanted_count, memory_order_relaxed))
        return false;
    struct place start = chunks->want_at;
    do {
        if (is_wanted(chunk_at(chunks, chunks->want_at)))
            return true;
        chunks->want_at = next_place(chunks, chunks->want_at);
    } while (!same_place(chunks->want_at, start));
    return false;
}

static int wish_keyed(struct gw_chunks *chunks, struct gw_wish *wishes, unsigned max,
                      struct gw_error *err)
{
    unsigned count = 0;
    int rc = 0;
    chunks->is_short = chunks->lacks_budget = false;
    while (count < max && (rc = walk_populated(chunks, err)) > 0) {
        uint64_t chunk_pages = chunks->blocks[chunks->walk_block].chunk_pages;
        struct place at = {chunks->walk_block, chunks->walk_left.first_page / chunk_pages};
        if (state_of(chunk_at(chunks, at)) == NONE && !same_place(at, chunks->walked)) {
            if (!wish_chunk(chunks, at, &wishes[count]))
                return (int)count;
            chunks->walked = at;
            count++;
        }
        walk_past(chunks, walk_pages(chunks));
    }
    if (rc < 0)
        return rc;
    while (count < max && find_wanted(chunks) &&
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

/* ---- keys ------------------------------------------------------------------------------------ */

/* The chunk that is exactly @range and in @state; NULL if there is none. */
static struct chunk *find_chunk(const struct gw_chunks *chunks, const struct gw_wish *range,
                                enum state state, struct place *at)
{
    if (!chunks->config.keyed || range->block >= chunks->block_count)
        return NULL;
    uint64_t chunk_bytes = chunks->blocks[range->block].chunk_pages * GW_PAGE_BYTES;
    *at = (struct place){range->block, range->offset / chunk_bytes};
    if (at->index >= chunks->blocks[range->block].count)
        return NULL;
    struct gw_wish exact = range_of(chunks, *at);
    if (exact.offset != range->offset || exact.bytes != range->bytes)
        return NULL;
    struct chunk *chunk = chunk_at(chunks, *at);
    return state_of(chunk) == state ? chunk : NULL;
}

bool gw_chunks_to_register(struct gw_chunks *chunks, struct gw_wish *range)
{
    struct chunk *chunk = list_take(&chunks->to_register);
    if (!chunk)
        return false;
    *range = range_of(chunks, place_of(chunks, chunk));
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

static void maybe_sync(struct gw_chunks *chunks, struct chunk *chunk)
{
    if (chunk->mr && chunk->rmr)
        list_push(&chunks->to_sync, chunk);
}

void gw_chunks_registered(struct gw_chunks *chunks, const struct gw_wish *range, struct gw_mr *mr)
{
    struct place at;
    struct chunk *chunk = find_chunk(chunks, range, WISHED, &at);
    gw_assert(chunk && !chunk->mr && mr);
    chunk->mr = mr;
    chunks->unpinned--;
    maybe_sync(chunks, chunk);
}

int gw_chunks_key(struct gw_chunks *chunks, const struct gw_wish *which, const void *key,
                  size_t key_bytes, struct gw_error *err)
{
    struct place at;
    struct chunk *chunk = find_chunk(chunks, which, WISHED, &at);
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
    struct chunk *chunk;
    while (count < max && (chunk = list_take(&chunks->to_sync))) {
        ranges[count++] = range_of(chunks, place_of(chunks, chunk));
        set_state(chunk, SYNCING);
    }
    return count;
}

/* Neighbouring stripes belong to as many owners: the last of each that has one in the chunk at @at. */
static uint64_t stripes_of(const struct gw_chunks *chunks, struct place at, uint64_t *last)
{
    const struct gw_block *block = gw_ram_block(chunks->config.ram, at.block);
    uint64_t stripe_pages = gw_ram_stripe_pages(chunks->config.ram);
    struct gw_wish range = range_of(chunks, at);
    uint64_t first = block->stripe_first + range.offset / GW_PAGE_BYTES / stripe_pages;
    *last = block->stripe_first + ((range.offset + range.bytes) / GW_PAGE_BYTES - 1) / stripe_pages;
    return gw_max_u64(first + chunks->owner_count, *last + 1) - chunks->owner_count;
}

/* An owner may run out and wait again before the next one comes: that one is late, too. */
static void count_made(struct gw_chunks *chunks, struct place at)
{
    bool late = false;
    uint64_t last;
    for (uint64_t stripe = stripes_of(chunks, at, &last); stripe <= last; stripe++) {
        struct owner_scan *scan = &chunks->owners[stripe % chunks->owner_count];
        late |= atomic_exchange_explicit(&scan->waits, false, memory_order_relaxed);
    }
    chunks->made++;
    chunks->made_late += late;
}

void gw_chunks_synced(struct gw_chunks *chunks, const struct gw_wish *range)
{
    struct place at;
    struct chunk *chunk = find_chunk(chunks, range, SYNCING, &at);
    gw_assert(chunk);
    count_made(chunks, at);
    uint32_t generation = atomic_load_explicit(&chunks->generation, memory_order_relaxed);
    chunk->ready_generation = generation + 1 ? generation + 1 : 1;
    chunks->coming--;
    set_state(chunk, READY);
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

/* ---- eviction -------------------------------------------------------------------------------- */

void gw_chunks_scan_begin(struct gw_chunks *chunks, unsigned owner)
{
    if (!chunks->config.keyed)
        return;
    struct owner_scan *scan = &chunks->owners[owner];
    atomic_store_explicit(&scan->done, 0, memory_order_relaxed);
    atomic_store_explicit(&scan->at, 0, memory_order_release);
}

void gw_chunks_scan_at(struct gw_chunks *chunks, unsigned owner, uint32_t generation,
                       uint64_t stripe)
{
    if (!chunks->config.keyed)
        return;
    struct owner_scan *scan = &chunks->owners[owner];
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

/* Began the pass of @at when @chunk was ready? Serial arithmetic; generation 0 is no pass. */
static bool began_with(uint64_t at, const struct chunk *chunk)
{
    uint32_t generation = (uint32_t)(at >> 32);
    return generation && (int32_t)(generation - chunk->ready_generation) >= 0;
}

/* Has the owner of stripe @stripe gone over it since @chunk became ready, in its current round? */
static bool is_passed(const struct gw_chunks *chunks, const struct chunk *chunk, uint64_t stripe)
{
    const struct owner_scan *scan = &chunks->owners[stripe % chunks->owner_count];
    uint64_t at = atomic_load_explicit(&scan->at, memory_order_acquire);
    if (at == UINT64_MAX)
        return true;
    return (began_with(at, chunk) && stripe < (uint32_t)at) ||
           began_with(atomic_load_explicit(&scan->done, memory_order_relaxed), chunk);
}

static bool may_evict(const struct gw_chunks *chunks, struct place at)
{
    const struct chunk *chunk = chunk_at(chunks, at);
    if (state_of(chunk) != READY)
        return false;
    uint64_t last;
    for (uint64_t stripe = stripes_of(chunks, at, &last); stripe <= last; stripe++) {
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
    if (walk_populated(chunks, NULL) > 0) {
        uint64_t chunk_pages = chunks->blocks[chunks->walk_block].chunk_pages;
        struct place at = {chunks->walk_block, chunks->walk_left.first_page / chunk_pages};
        next = range_of(chunks, at).bytes;
        more = budget / 2;
    } else if (find_wanted(chunks)) {
        next = range_of(chunks, chunks->want_at).bytes;
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
    struct place start = chunks->evict_at;
    while (missing && count < max) {
        struct place at = chunks->evict_at;
        chunks->evict_at = next_place(chunks, at);
        if (may_evict(chunks, at)) {
            victims[count] = range_of(chunks, at);
            set_state(chunk_at(chunks, at), EVICTING);
            chunks->local_evicting += victims[count].bytes;
            chunks->remote_evicting += victims[count].bytes;
            missing -= gw_min_u64(missing, victims[count].bytes);
            count++;
        }
        if (same_place(chunks->evict_at, start))
            break;
    }
    return (int)count;
}

void gw_chunks_evicted(struct gw_chunks *chunks, const struct gw_wish *victim, struct gw_mr **mr,
                       struct gw_rmr **rmr)
{
    struct place at;
    struct chunk *chunk = find_chunk(chunks, victim, EVICTING, &at);
    gw_assert(chunk && chunk->mr && chunk->rmr);
    *mr = chunk->mr;
    *rmr = chunk->rmr;
    chunk->mr = NULL;
    chunk->rmr = NULL;
    chunk->is_out = true;
}

/* Both ends have let go of it: it may be wished for again. */
static void maybe_none(struct chunk *chunk)
{
    if (chunk->is_out || !chunk->is_released)
        return;
    chunk->is_released = false;
    set_state(chunk, NONE);
}

void gw_chunks_deregistered(struct gw_chunks *chunks, const struct gw_wish *victim)
{
    struct place at;
    struct chunk *chunk = find_chunk(chunks, victim, EVICTING, &at);
    gw_assert(chunk && chunk->is_out);
    chunks->local_used -= victim->bytes;
    chunks->local_evicting -= victim->bytes;
    chunks->registered -= victim->bytes;
    chunk->is_out = false;
    maybe_none(chunk);
}

int gw_chunks_released(struct gw_chunks *chunks, const struct gw_wish *which, struct gw_error *err)
{
    struct place at;
    struct chunk *chunk = find_chunk(chunks, which, EVICTING, &at);
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

/* ---- what owners ask ------------------------------------------------------------------------- */

static struct chunk *chunk_of_page(const struct gw_chunks *chunks, const struct gw_block *block,
                                   uint64_t page)
{
    const struct block_chunks *own = &chunks->blocks[block->id];
    return &own->chunk[page / own->chunk_pages];
}

bool gw_chunk_is_ready(const struct gw_chunks *chunks, const struct gw_block *block, uint64_t page)
{
    return !chunks->config.keyed || state_of(chunk_of_page(chunks, block, page)) == READY;
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
    const struct chunk *chunk = chunk_of_page(chunks, block, page);
    enum state state = state_of(chunk);
    gw_assert(state == READY || state == EVICTING);
    uint64_t chunk_pages = chunks->blocks[block->id].chunk_pages;
    *mr = chunk->mr;
    *base = page / chunk_pages * chunk_pages * GW_PAGE_BYTES;
    return chunk->rmr;
}

void gw_chunks_want(struct gw_chunks *chunks, const struct gw_block *block, uint64_t page)
{
    struct chunk *chunk = chunk_of_page(chunks, block, page);
    enum state state = state_of(chunk);
    if (state != NONE && state != EVICTING)
        return; /* on its way */
    if (!atomic_exchange_explicit(&chunk->wanted, 1, memory_order_relaxed))
        atomic_fetch_add_explicit(&chunks->wanted_count, 1, memory_order_relaxed);
}

uint32_t gw_chunks_generation(const struct gw_chunks *chunks)
{
    return atomic_load_explicit(&chunks->generation, memory_order_acquire);
}

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
