/* SPDX-License-Identifier: MIT */
/* core/source_items.h - items of the stream that wait to be handed to the channel, in order. */
#ifndef GW_CORE_SOURCE_ITEMS_H
#define GW_CORE_SOURCE_ITEMS_H

#include "control/stream.h"

struct gw_source_item { /* a whole one */
    struct gw_source_item *next;
    struct gw_writer w;
};

struct gw_source_items { /* zero is an empty one */
    struct gw_source_item *first, *last;
    unsigned count;
    uint64_t bytes;
};

/* An item to be written; NULL: no memory. Then add or free it. */
struct gw_source_item *gw_source_item_new(size_t bytes_max);
void gw_source_item_free(struct gw_source_item *item); /* takes NULL */
void gw_source_items_add(struct gw_source_items *items, struct gw_source_item *item);
/* All of @from, behind what there is. */
void gw_source_items_take(struct gw_source_items *items, struct gw_source_items *from);
void gw_source_items_drop_first(struct gw_source_items *items);
void gw_source_items_drop(struct gw_source_items *items);

#endif
