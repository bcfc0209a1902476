/* SPDX-License-Identifier: MIT */
/* core/discard.h - ranges that an embedder gave back (balloon, hot-unplug), as one more dirty source:
 * page tracking does not see a hole punched into a shared file, yet the page's content changed. */
#ifndef GW_CORE_DISCARD_H
#define GW_CORE_DISCARD_H

#include <godwit/dirty.h>
#include <pthread.h>

#define GW_DISCARDS_MAX 4096u /* remembered apart; beyond that, whole blocks */

struct gw_discard {
    unsigned block_id;
    uint64_t first_page, pages;
};

struct gw_discards {
    pthread_mutex_t list_lock;
    struct gw_discard list[GW_DISCARDS_MAX]; /* guarded by list_lock, as is count */
    unsigned count;
};

extern const struct gw_dirty_ops gw_discards_ops; /* ctx: struct gw_discards */

void gw_discards_init(struct gw_discards *discards);
void gw_discards_fini(struct gw_discards *discards);
/* [any thread] @block_pages: of the whole block. */
void gw_discards_add(struct gw_discards *discards, const struct gw_discard *range,
                     uint64_t block_pages);

#endif
