/* SPDX-License-Identifier: MIT */
/* core/discard.h - ranges that an embedder gave back (balloon, hot-unplug), as one more dirty source:
 * page tracking does not see a hole punched into a shared file, yet the page's content changed. */
#ifndef GW_CORE_DISCARD_H
#define GW_CORE_DISCARD_H

#include <godwit/dirty.h>
#include <pthread.h>

struct gw_discard_bits {
    uint64_t *bits; /* NULL: the block is not tracked */
    uint64_t pages;
    uint64_t set_count;
};

struct gw_discards {
    pthread_mutex_t bits_lock;
    struct gw_discard_bits *blocks; /* guarded by bits_lock, as is block_count; by block id */
    unsigned block_count;
};

extern const struct gw_dirty_ops gw_discards_ops; /* ctx: struct gw_discards */

void gw_discards_init(struct gw_discards *discards);
void gw_discards_fini(struct gw_discards *discards);
/* [any thread] Pages [first_page, + pages) of a block; what lies beyond its end is left out. Nothing
 * is kept of a block that is not tracked: whatever was discarded before a start is a hole at the start. */
void gw_discards_add(struct gw_discards *discards, unsigned block_id, uint64_t first_page,
                     uint64_t pages);

#endif
