// SPDX-License-Identifier: MIT
/* Discards: a bit per page of each tracked block, under one lock, which a sync takes out of its range.
 * The bits of a block cost memory only where something was discarded (the pages of zeroed memory that
 * nobody wrote are not there), and a block without a discard costs a sync one look at its count. */
#include "core/discard.h"

#include "core/base/alloc.h"
#include "core/base/bitmap.h"
#include "core/base/bytes.h"
#include "core/base/error.h"

#include <string.h>

void gw_discards_init(struct gw_discards *discards)
{
    memset(discards, 0, sizeof(*discards));
    pthread_mutex_init(&discards->bits_lock, NULL);
}

void gw_discards_fini(struct gw_discards *discards)
{
    for (unsigned i = 0; i < discards->block_count; i++)
        gw_free(discards->blocks[i].bits);
    gw_free(discards->blocks);
    pthread_mutex_destroy(&discards->bits_lock);
}

static struct gw_discard_bits *find_locked(struct gw_discards *discards, unsigned block_id)
{
    if (block_id >= discards->block_count || !discards->blocks[block_id].bits)
        return NULL;
    return &discards->blocks[block_id];
}

void gw_discards_add(struct gw_discards *discards, unsigned block_id, uint64_t first_page,
                     uint64_t pages)
{
    pthread_mutex_lock(&discards->bits_lock);
    struct gw_discard_bits *block = find_locked(discards, block_id);
    if (block && first_page < block->pages) {
        pages = gw_min_u64(pages, block->pages - first_page);
        block->set_count += pages - gw_bitmap_count(block->bits, first_page, pages);
        gw_bitmap_set_range(block->bits, first_page, pages);
    }
    pthread_mutex_unlock(&discards->bits_lock);
}

/* ---- as a dirty source ------------------------------------------------------------------------ */

static int make_room_locked(struct gw_discards *discards, unsigned block_id)
{
    if (block_id < discards->block_count)
        return 0;
    unsigned room =
        (unsigned)gw_max_u64(block_id + UINT64_C(1), discards->block_count * UINT64_C(2));
    struct gw_discard_bits *blocks = gw_realloc(discards->blocks, room, sizeof(*blocks));
    if (!blocks)
        return -ENOMEM;
    memset(&blocks[discards->block_count], 0, (room - discards->block_count) * sizeof(*blocks));
    discards->blocks = blocks;
    discards->block_count = room;
    return 0;
}

static int start(void *ctx, unsigned block_id, const struct gw_block_desc *block,
                 struct gw_error *err)
{
    struct gw_discards *discards = ctx;
    uint64_t pages = block->size_bytes / GW_DIRTY_PAGE_BYTES;
    uint64_t *bits = gw_zalloc(gw_bitmap_words(pages), sizeof(*bits));
    pthread_mutex_lock(&discards->bits_lock);
    int rc = bits ? make_room_locked(discards, block_id) : -ENOMEM;
    if (rc == 0) {
        gw_assert(!discards->blocks[block_id].bits);
        discards->blocks[block_id] = (struct gw_discard_bits){.bits = bits, .pages = pages};
        bits = NULL;
    }
    pthread_mutex_unlock(&discards->bits_lock);
    gw_free(bits);
    return rc < 0 ? gw_fail(err, rc, "%llu bits", (unsigned long long)pages) : 0;
}

static void take_locked(struct gw_discard_bits *block, uint64_t first_page, uint64_t pages,
                        uint64_t *bitmap)
{
    uint64_t *bits = block->bits + first_page / 64; /* stripes begin at multiples of 512 */
    size_t words = gw_bitmap_words(pages);
    for (size_t i = 0; i < words && block->set_count; i++) {
        if (!bits[i])
            continue;
        bitmap[i] |= bits[i];
        block->set_count -= (uint64_t)__builtin_popcountll(bits[i]);
        bits[i] = 0;
    }
}

static int sync(void *ctx, unsigned block_id, uint64_t first_page, uint64_t pages, uint64_t *bitmap,
                struct gw_error *err)
{
    struct gw_discards *discards = ctx;
    (void)err;
    pthread_mutex_lock(&discards->bits_lock);
    struct gw_discard_bits *block = find_locked(discards, block_id);
    if (block)
        take_locked(block, first_page, pages, bitmap);
    pthread_mutex_unlock(&discards->bits_lock);
    return 0;
}

static void stop(void *ctx, unsigned block_id)
{
    struct gw_discards *discards = ctx;
    pthread_mutex_lock(&discards->bits_lock);
    struct gw_discard_bits *block = find_locked(discards, block_id);
    uint64_t *bits = block ? block->bits : NULL;
    if (block)
        memset(block, 0, sizeof(*block));
    pthread_mutex_unlock(&discards->bits_lock);
    gw_free(bits);
}

const struct gw_dirty_ops gw_discards_ops = {
    .struct_bytes = sizeof(gw_discards_ops),
    .name = "discards",
    .start = start,
    .sync = sync,
    .stop = stop,
};
