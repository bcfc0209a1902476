// SPDX-License-Identifier: MIT
/* From dirty bits to runs. A clean stretch costs a word of bits per 64 pages; a chunk that is not
 * ready is stepped over whole, with its bits as they are. */
#include "ram/scan.h"

#include "core/base/bitmap.h"
#include "core/base/bytes.h"

#define LINE_PAGES 512u /* a cache line of bits */

/* Over lines without a bit, eight words at a time: a clean stripe is 16 of them. */
static uint64_t skip_clean(const uint64_t *map, uint64_t at, uint64_t end)
{
    if (at % LINE_PAGES)
        return at;
    for (; at + LINE_PAGES <= end; at += LINE_PAGES) {
        const uint64_t *word = map + at / 64;
        uint64_t any = ((word[0] | word[1]) | (word[2] | word[3])) |
                       ((word[4] | word[5]) | (word[6] | word[7]));
        if (any)
            break;
    }
    return at;
}

void gw_scan_begin(struct gw_scan *scan, struct gw_ram *ram, struct gw_chunks *chunks,
                   const struct gw_stripe *stripe)
{
    scan->chunks = chunks;
    scan->block = gw_ram_block(ram, stripe->block);
    scan->at = stripe->first_page;
    scan->end = stripe->first_page + stripe->pages;
    scan->waiting_pages = 0;
    gw_assert(scan->block && scan->block->dirty && scan->end <= scan->block->pages);
}

bool gw_scan_next(struct gw_scan *scan, uint32_t pages_max, struct gw_run *run)
{
    struct gw_block *block = scan->block;
    for (;;) {
        uint64_t from = skip_clean(block->dirty, scan->at, scan->end);
        uint64_t page = gw_bitmap_next_set(block->dirty, from, scan->end);
        scan->at = page;
        if (page == scan->end)
            return false;
        uint64_t left = gw_chunk_pages_left(scan->chunks, block, page);
        uint64_t chunk_end = gw_min_u64(scan->end, page + left);
        if (!gw_chunk_is_ready(scan->chunks, block, page)) {
            scan->waiting_pages += gw_bitmap_count(block->dirty, page, chunk_end - page);
            gw_chunks_want(scan->chunks, block, page);
            scan->at = chunk_end;
            continue;
        }
        uint64_t end = gw_min_u64(chunk_end, page + pages_max);
        end = gw_bitmap_next_clear(block->dirty, page, end);
        gw_bitmap_clear_range(block->dirty, page, end - page);
        *run = (struct gw_run){.block = block, .first_page = page, .pages = (uint32_t)(end - page)};
        scan->at = end;
        return true;
    }
}
