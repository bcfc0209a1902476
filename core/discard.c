// SPDX-License-Identifier: MIT
/* Discards: a short list of ranges under a lock; a sync takes out what lies in its own range. When
 * the list is full, the range's whole block becomes one entry: too much is sent, never too little. */
#include "core/discard.h"

#include "core/base/bitmap.h"
#include "core/base/bytes.h"

void gw_discards_init(struct gw_discards *discards)
{
    pthread_mutex_init(&discards->list_lock, NULL);
    discards->count = 0;
}

void gw_discards_fini(struct gw_discards *discards)
{
    pthread_mutex_destroy(&discards->list_lock);
}

static void remove_locked(struct gw_discards *discards, unsigned i)
{
    discards->list[i] = discards->list[--discards->count];
}

static void add_locked(struct gw_discards *discards, const struct gw_discard *range)
{
    if (range->pages > 0 && discards->count < GW_DISCARDS_MAX)
        discards->list[discards->count++] = *range;
}

void gw_discards_add(struct gw_discards *discards, const struct gw_discard *range,
                     uint64_t block_pages)
{
    pthread_mutex_lock(&discards->list_lock);
    if (discards->count < GW_DISCARDS_MAX / 2) {
        add_locked(discards, range);
    } else {
        /* Half of the list is kept for what a sync cuts in two. */
        struct gw_discard whole = {.block_id = range->block_id, .pages = block_pages};
        for (unsigned i = discards->count; i-- > 0;) {
            if (discards->list[i].block_id == range->block_id)
                remove_locked(discards, i);
        }
        add_locked(discards, &whole);
    }
    pthread_mutex_unlock(&discards->list_lock);
}

static int start(void *ctx, unsigned block_id, const struct gw_block_desc *block,
                 struct gw_error *err)
{
    (void)ctx, (void)block_id, (void)block, (void)err;
    return 0;
}

static void take_locked(struct gw_discards *discards, unsigned i, uint64_t first, uint64_t pages,
                        uint64_t *bitmap)
{
    struct gw_discard range = discards->list[i];
    uint64_t from = gw_max_u64(range.first_page, first);
    uint64_t to = gw_min_u64(range.first_page + range.pages, first + pages);
    if (from >= to)
        return;
    gw_bitmap_set_range(bitmap, from - first, to - from);
    struct gw_discard before = {range.block_id, range.first_page, from - range.first_page};
    struct gw_discard after = {range.block_id, to, range.first_page + range.pages - to};
    remove_locked(discards, i);
    add_locked(discards, &before);
    add_locked(discards, &after);
}

static int sync(void *ctx, unsigned block_id, uint64_t first_page, uint64_t pages, uint64_t *bitmap,
                struct gw_error *err)
{
    struct gw_discards *discards = ctx;
    (void)err;
    pthread_mutex_lock(&discards->list_lock);
    for (unsigned i = discards->count; i-- > 0;) {
        if (discards->list[i].block_id == block_id)
            take_locked(discards, i, first_page, pages, bitmap);
    }
    pthread_mutex_unlock(&discards->list_lock);
    return 0;
}

static void stop(void *ctx, unsigned block_id)
{
    (void)ctx, (void)block_id;
}

const struct gw_dirty_ops gw_discards_ops = {
    .struct_bytes = sizeof(gw_discards_ops),
    .name = "discards",
    .start = start,
    .sync = sync,
    .stop = stop,
};
