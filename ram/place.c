// SPDX-License-Identifier: MIT
/* The target's side of puts and zero runs on one page endpoint. Whatever a peer names is checked
 * before any byte of it is used: inside a block, in whole pages, inside one stripe, and that stripe
 * this endpoint's (rule 2). A zero run writes only pages that are populated and not zero already: a
 * page that was never touched stays absent, so a sparse guest arrives sparse. Received bits need no
 * lock, since a stripe's words are its owner's alone. */
#include "ram/place.h"

#include "core/base/bitmap.h"
#include "core/base/bytes.h"
#include "ram/holes.h"
#include "ram/zero.h"

#include <inttypes.h>
#include <string.h>

/* Pages [first_page, + pages) of @block: does this owner own them, in one stripe? */
static bool is_own_range(const struct gw_placer *placer, uint32_t block_id, uint64_t first_page,
                         uint64_t pages)
{
    const struct gw_block *block = gw_ram_block(placer->ram, block_id);
    if (!block || !pages || !gw_range_is_inside(first_page, pages, block->pages))
        return false;
    uint64_t stripe_pages = gw_ram_stripe_pages(placer->ram);
    return first_page % stripe_pages + pages <= stripe_pages &&
           gw_ram_owner(placer->ram, block_id, first_page) == placer->owner;
}

static int place_check(void *ctx, uint32_t region, uint64_t offset, uint32_t bytes)
{
    const struct gw_placer *placer = ctx;
    if (offset % GW_PAGE_BYTES || bytes % GW_PAGE_BYTES)
        return -EPROTO;
    return is_own_range(placer, region, offset / GW_PAGE_BYTES, bytes / GW_PAGE_BYTES) ? 0
                                                                                       : -EPROTO;
}

static void place_placed(void *ctx, uint32_t region, uint64_t offset, uint32_t bytes)
{
    struct gw_placer *placer = ctx;
    struct gw_block *block = gw_ram_block(placer->ram, region);
    gw_assert(block && block->received);
    gw_bitmap_set_range(block->received, offset / GW_PAGE_BYTES, bytes / GW_PAGE_BYTES);
    placer->placed_pages += bytes / GW_PAGE_BYTES;
}

const struct gw_place_ops gw_placer_ops = {
    .check = place_check,
    .placed = place_placed,
};

/* Populated pages: store only where something is not zero. A zero page read here stays as it is. */
static void clear_pages(const struct gw_block *block, uint64_t first_page, uint64_t pages)
{
    char *page = (char *)block->desc.host + first_page * GW_PAGE_BYTES;
    for (; pages; pages--, page += GW_PAGE_BYTES) {
        if (!gw_page_is_zero(page))
            memset(page, 0, GW_PAGE_BYTES);
    }
}

/* All puts are seen here: only what was received, or there before, can be anything but zero. */
static void clear_marked(const struct gw_block *block, const uint64_t *bits, uint64_t first_page,
                         uint64_t pages)
{
    uint64_t end = first_page + pages;
    for (;;) {
        uint64_t first = gw_bitmap_next_set(bits, first_page, end);
        if (first == end)
            return;
        first_page = gw_bitmap_next_clear(bits, first, end);
        clear_pages(block, first, first_page - first);
    }
}

static int clear_populated(const struct gw_block *block, uint64_t first_page, uint64_t pages)
{
    uint64_t end = first_page + pages;
    struct gw_holes walk;
    struct gw_extent extent;
    int rc = gw_holes_begin_at(&walk, block, first_page, end);
    while (rc >= 0 && (rc = gw_holes_step(&walk, &extent)) > 0)
        clear_pages(block, extent.first_page, extent.pages);
    gw_holes_end(&walk);
    return rc;
}

static int place_run(struct gw_placer *placer, const struct gw_zero_run *run, struct gw_error *err)
{
    if (!is_own_range(placer, run->block, run->first_page, run->pages))
        return gw_fail(err, -EPROTO,
                       "zero run of block %" PRIu32 ", pages [%" PRIu64 ", +%" PRIu64
                       "): not in one stripe of page endpoint %u",
                       run->block, run->first_page, run->pages, placer->owner + 1);
    struct gw_block *block = gw_ram_block(placer->ram, run->block);
    gw_assert(block->received);
    if (block->mr) { /* a stream wire, which tells of every put */
        clear_marked(block, block->received, run->first_page, run->pages);
        if (block->stale)
            clear_marked(block, block->stale, run->first_page, run->pages);
    } else {
        int rc = clear_populated(block, run->first_page, run->pages);
        if (rc < 0)
            return gw_fail(err, rc, "block '%s': cannot find out what is populated",
                           block->desc.name);
    }
    gw_bitmap_set_range(block->received, run->first_page, run->pages);
    placer->zero_pages += run->pages;
    return 0;
}

int gw_place_zero(struct gw_placer *placer, const struct gw_zero_run *runs, unsigned count,
                  struct gw_error *err)
{
    for (unsigned i = 0; i < count; i++) {
        int rc = place_run(placer, &runs[i], err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int gw_wish_check(struct gw_ram *ram, const struct gw_wish *wish, struct gw_error *err)
{
    const struct gw_block *block = gw_ram_block(ram, wish->block);
    if (!block)
        return gw_fail(err, -EPROTO, "wish for block %" PRIu32 ": there are only %u", wish->block,
                       gw_ram_block_count(ram));
    if (!wish->bytes || wish->offset % GW_PAGE_BYTES || wish->bytes % GW_PAGE_BYTES ||
        !gw_range_is_inside(wish->offset, wish->bytes, block->desc.size_bytes))
        return gw_fail(err, -EPROTO,
                       "wish for block '%s' [%" PRIu64 ", +%" PRIu64
                       "): not whole pages inside its %" PRIu64 " bytes",
                       block->desc.name, wish->offset, wish->bytes, block->desc.size_bytes);
    return 0;
}
