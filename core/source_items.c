// SPDX-License-Identifier: MIT
/* Items of the stream between the callback that wrote them, on the loop's thread, and the control
 * channel. The list itself is whoever's turn it is: a callback fills one of its own, and the engine
 * takes it over when the callback has returned. */
#include "core/source.h"

#include "core/base/alloc.h"
#include "core/base/bytes.h"

struct gw_source_item *gw_source_item_new(size_t bytes_max)
{
    struct gw_source_item *item = gw_zalloc(1, sizeof(*item));
    if (item)
        gw_writer_init(&item->w, bytes_max);
    return item;
}

void gw_source_item_free(struct gw_source_item *item)
{
    if (item)
        gw_writer_fini(&item->w);
    gw_free(item);
}

void gw_source_items_add(struct gw_source_items *items, struct gw_source_item *item)
{
    item->next = NULL;
    if (items->last)
        items->last->next = item;
    else
        items->first = item;
    items->last = item;
    items->count++;
    items->bytes += item->w.bytes;
}

void gw_source_items_take(struct gw_source_items *items, struct gw_source_items *from)
{
    if (!from->first)
        return;
    if (items->last)
        items->last->next = from->first;
    else
        items->first = from->first;
    items->last = from->last;
    items->count += from->count;
    items->bytes += from->bytes;
    *from = (struct gw_source_items){0};
}

void gw_source_items_drop_first(struct gw_source_items *items)
{
    struct gw_source_item *item = items->first;
    items->first = item->next;
    if (!items->first)
        items->last = NULL;
    items->count--;
    items->bytes -= item->w.bytes;
    gw_source_item_free(item);
}

void gw_source_items_drop(struct gw_source_items *items)
{
    while (items->first)
        gw_source_items_drop_first(items);
}

/* ---- to the channel ------------------------------------------------------------------------------ */

static int say_bytes(struct gw_source *src, const struct gw_writer *item, size_t *at)
{
    while (*at < item->bytes) {
        size_t bytes = gw_min_u64(item->bytes - *at, src->granted.message_payload_max);
        struct gw_message msg = {.type = GW_MSG_STREAM,
                                 .flags = *at + bytes == item->bytes ? GW_MSG_FLAG_LAST : 0};
        msg.u.data.data = item->data + *at;
        msg.u.data.bytes = bytes;
        int rc = gw_source_say(src, &msg);
        if (rc < 0)
            return rc;
        *at += bytes;
        src->stream_bytes_said += bytes;
    }
    return 0;
}

bool gw_source_stream_items(struct gw_source *src)
{
    return gw_source_stream_until(src, UINT64_MAX);
}

bool gw_source_stream_until(struct gw_source *src, uint64_t items)
{
    while (src->items.first && src->items_said < items) {
        if (say_bytes(src, &src->items.first->w, &src->item_at) < 0)
            return false; /* the channel is full; the step comes back */
        gw_source_items_drop_first(&src->items);
        src->item_at = 0;
        src->items_said++;
    }
    return true;
}
