// SPDX-License-Identifier: MIT
/* The table of devices at the source in the pause, and after all: PARTs and END of each, then FULL of
 * each, the end mark, the description, in batches on the loop's thread, so that no more waits here than the
 * channel will soon take. What handlers make is paced like pages. cleanup comes at the end, whatever
 * happened. */
#include "core/source_packets.h"

#include "core/base/alloc.h"
#include "core/base/bytes.h"

#define PART_BYTES ((UINT64_C(1) << 20) - (16u << 10)) /* with its head, one message of the wire */
#define BATCH_BYTES (UINT64_C(4) << 20)                /* made at a time, and waiting at a time */

/* ---- a batch -------------------------------------------------------------------------------------- */

static int complete_one(struct gw_source *src, unsigned i, struct gw_error *err)
{
    struct gw_source_item *item = gw_source_make_item(src, err);
    if (!item)
        return -ENOMEM;
    int rc = gw_savevm_complete(&item->w, &src->devices.list[i], gw_device_section_id(i),
                                gw_source_turn_bytes(src, PART_BYTES), err);
    if (rc >= 0)
        src->saving.paid_bytes += i > 0 ? item->w.bytes : 0;
    return gw_source_made(src, item, rc);
}

static int save_one(struct gw_source *src, unsigned i, struct gw_error *err)
{
    struct gw_source_item *item = gw_source_make_item(src, err);
    if (!item)
        return -ENOMEM;
    return gw_source_made(
        src, item,
        gw_savevm_save(&item->w, &src->devices.list[i], gw_device_section_id(i), &src->desc, err));
}

static int save_end(struct gw_source *src, struct gw_error *err)
{
    struct gw_source_item *item = gw_source_make_item(src, err);
    if (!item)
        return -ENOMEM;
    gw_stream_write_eof(&item->w);
    int rc = gw_writer_error(&item->w);
    gw_source_made(src, item, rc);
    if (rc < 0)
        return gw_fail(err, rc, "device state");
    gw_vmdesc_end(&src->desc);
    if (gw_writer_error(&src->desc.text) < 0)
        return 0; /* too long, or no memory for it: left out, it is for readers of recordings */
    item = gw_source_make_item(src, err);
    if (!item)
        return -ENOMEM;
    gw_stream_write_description(&item->w, src->desc.text.data, src->desc.text.bytes);
    rc = gw_source_made(src, item, gw_writer_error(&item->w));
    return rc < 0 ? gw_fail(err, rc, "the stream's description") : 0;
}

/* The next section, or none. */
static int save_next(struct gw_source *src, struct gw_error *err)
{
    struct gw_source_saving *saving = &src->saving;
    if (saving->next == src->devices.count) {
        saving->next = 0;
        saving->pass++;
    }
    if (saving->pass == GW_SAVING_BESIDE && !gw_source_packs(src))
        saving->pass++;
    unsigned i = saving->next;
    struct gw_handling *h = &src->handlings[i];
    int rc = 0;
    switch (saving->pass) {
    case GW_SAVING_COMPLETE:
        if (h->is_active && !h->has_ended && !h->goes_beside) {
            rc = complete_one(src, i, err);
            h->has_ended = rc == GW_DEVICE_DONE;
        }
        saving->next += !h->is_active || h->has_ended || h->goes_beside;
        return rc;
    case GW_SAVING_BESIDE:
        break;
    case GW_SAVING_FULL:
        saving->next++;
        return !h->is_saved && gw_device_is_needed(&src->devices.list[i]) ? save_one(src, i, err)
                                                                          : 0;
    case GW_SAVING_END:
        saving->pass = GW_SAVING_OVER;
        return save_end(src, err);
    case GW_SAVING_OVER:
        break;
    }
    return 0;
}

static int save_run(struct gw_source *src, struct gw_error *err)
{
    int rc = 0;
    while (rc >= 0 && src->saving.pass != GW_SAVING_OVER && src->saving.pass != GW_SAVING_BESIDE &&
           src->made.bytes < BATCH_BYTES && src->saving.paid_bytes < src->saving.turn_bytes)
        rc = save_next(src, err);
    return rc;
}

static void save_finished(struct gw_source *src, int rc)
{
    if (src->step != GW_SRC_FINAL_SYNC && src->step != GW_SRC_FINAL_SEND &&
        src->step != GW_SRC_STREAM) {
        gw_source_back_out(src);
        return;
    }
    if (rc < 0) {
        gw_source_fail(src, &src->call.err);
        return;
    }
    src->turn_ns = gw_source_pay(src, src->saving.paid_bytes, gw_clock_ns());
    gw_source_items_take(&src->items, &src->made);
    src->items_saved = src->saving.pass == GW_SAVING_OVER;
    gw_source_saved(src);
}

uint64_t gw_source_save(struct gw_source *src, uint64_t now_ns)
{
    if (src->items_saved || src->call.busy || src->items.bytes >= BATCH_BYTES)
        return GW_NEVER_NS;
    if (src->saving.pass == GW_SAVING_BESIDE) {
        if (!gw_source_packets_end(src))
            return GW_NEVER_NS; /* the workers' mail wakes us */
        src->saving.pass = GW_SAVING_FULL;
    }
    uint64_t wake_ns = gw_source_paid_ns(src, src->turn_ns);
    if (now_ns < wake_ns)
        return wake_ns;
    src->saving.paid_bytes = 0;
    src->saving.turn_bytes = gw_source_turn_bytes(src, BATCH_BYTES);
    gw_source_ask(src, save_run, save_finished);
    return GW_NEVER_NS;
}

/* ---- the end -------------------------------------------------------------------------------------- */

static int cleanup_run(struct gw_source *src, struct gw_error *err)
{
    (void)err;
    for (unsigned i = 0; i < src->devices.count; i++) {
        const struct gw_device_desc *device = &src->devices.list[i];
        if (device->ops && device->ops->cleanup)
            device->ops->cleanup(device->opaque);
    }
    return 0;
}

static void cleanup_finished(struct gw_source *src, int rc)
{
    (void)rc;
    src->devices_cleaned = true;
}

static bool has_cleanup(const struct gw_source *src)
{
    for (unsigned i = 0; i < src->devices.count; i++) {
        if (src->devices.list[i].ops && src->devices.list[i].ops->cleanup)
            return true;
    }
    return false;
}

bool gw_source_clean_devices(struct gw_source *src)
{
    if (src->devices_cleaned || !has_cleanup(src))
        return true;
    gw_source_ask(src, cleanup_run, cleanup_finished);
    return false;
}

void gw_source_drop_devices(struct gw_source *src)
{
    gw_source_items_drop(&src->items);
    gw_source_items_drop(&src->made);
    src->item_at = 0;
    if (src->has_desc)
        gw_vmdesc_fini(&src->desc);
    src->has_desc = false;
    gw_free(src->handlings);
    src->handlings = NULL;
}
