// SPDX-License-Identifier: MIT
/* The table of devices at the source (godwit/device.h), memory its first entry, before the pause: the
 * passes through it, each a callback on the loop's thread that fills a list of items. In the set-up BEGIN
 * of each and what is early; in a round PARTs, a turn at a time, paced by max-bandwidth and by what the
 * target has loaded. A failure is the migration's: it backs out (source_save.c has the end). */
#include "core/source.h"

#include "core/base/alloc.h"
#include "core/base/bytes.h"

#include <inttypes.h>

/* A turn while the guest runs, and how many items the target may have yet to load when one begins. More
 * would hold the credit, 4 MiB, that wishes need as well. */
#define TURN_BYTES (UINT64_C(512) << 10)
#define ITEMS_AHEAD 4u
/* What is not known is told as huge, and a round that waits for so much never ends. No device has more
 * than the first; of one that says so, a round takes the second. */
#define KNOWN_BYTES_MAX (UINT64_C(1) << 40)
#define UNKNOWN_ROUND_BYTES (UINT64_C(256) << 20)
#define DESCRIPTION_HEAD_BYTES 5u

/* ---- who takes part ------------------------------------------------------------------------------- */

static bool sends_before_pause(const struct gw_device_desc *device)
{
    const struct gw_device_ops *ops = device->ops;
    return ops && (ops->setup || ops->pending_estimate || ops->pending_exact || ops->iterate ||
                   ops->complete_precopy);
}

void gw_source_look_at_devices(struct gw_source *src)
{
    src->has_handlers = src->has_early = false;
    for (unsigned i = 1; i < src->devices.count; i++) { /* 0 is memory */
        src->has_handlers |= sends_before_pause(&src->devices.list[i]);
        src->has_early |= gw_device_is_early(&src->devices.list[i]);
    }
}

static bool calls_before_pause(const struct gw_source *src)
{
    return src->has_handlers || src->has_early;
}

static uint64_t add_saturating(uint64_t a, uint64_t b)
{
    return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

/* ---- pending -------------------------------------------------------------------------------------- */

static int ask_pending(struct gw_source *src, bool exact, struct gw_error *err)
{
    struct gw_source_pending sum = {.is_exact = exact};
    for (unsigned i = 0; i < src->devices.count; i++) {
        struct gw_device_pending pending;
        struct gw_handling *h = &src->handlings[i];
        if (!h->is_active)
            continue;
        int rc = gw_savevm_pending(&src->devices.list[i], exact, &pending, err);
        if (rc < 0)
            return rc;
        h->pending_bytes = add_saturating(pending.must_precopy_bytes, pending.can_postcopy_bytes);
        sum.bytes = add_saturating(sum.bytes, h->pending_bytes);
        if (i > 0)
            sum.device_bytes = add_saturating(sum.device_bytes, h->pending_bytes);
        sum.acks_wanted += pending.acks_wanted;
    }
    src->pending = sum;
    return 0;
}

static int estimate_run(struct gw_source *src, struct gw_error *err)
{
    return ask_pending(src, false, err);
}

static int exact_run(struct gw_source *src, struct gw_error *err)
{
    return ask_pending(src, true, err);
}

void gw_source_ask_pending(struct gw_source *src, bool exact,
                           void (*finished)(struct gw_source *, int))
{
    if (src->has_handlers) {
        gw_source_ask(src, exact ? exact_run : estimate_run, finished);
        return;
    }
    struct gw_error err = GW_ERROR_INIT; /* memory alone: nothing of the embedder's to call */
    int rc = ask_pending(src, true, &err);
    gw_assert(rc == 0);
    finished(src, 0);
}

bool gw_source_acks_are_there(const struct gw_source *src)
{
    return !src->has_handlers || (src->loaded_heard && src->acks_missing == 0 &&
                                  src->acks_given >= src->pending.acks_wanted);
}

/* ---- set-up --------------------------------------------------------------------------------------- */

static int setup_one(struct gw_source *src, unsigned i, struct gw_error *err)
{
    const struct gw_device_desc *device = &src->devices.list[i];
    struct gw_handling *h = &src->handlings[i];
    bool early = gw_device_is_early(device);
    bool sends = sends_before_pause(device);
    h->is_active = sends && (!device->ops->is_active || device->ops->is_active(device->opaque));
    h->is_saved = early || (sends && !h->is_active); /* now, or not at all */
    if (!h->is_active && (!early || !gw_device_is_needed(device)))
        return 0;
    struct gw_source_item *item = gw_source_make_item(src, err);
    if (!item)
        return -ENOMEM;
    if (h->is_active)
        return gw_source_made(src, item,
                              gw_savevm_setup(&item->w, device, gw_device_section_id(i), err));
    int rc = gw_source_made(
        src, item, gw_savevm_save(&item->w, device, gw_device_section_id(i), &src->desc, err));
    src->items_early = src->made.count;
    return rc;
}

static int setup_run(struct gw_source *src, struct gw_error *err)
{
    for (unsigned i = 0; i < src->devices.count; i++) {
        int rc = setup_one(src, i, err);
        if (rc < 0)
            return rc;
    }
    return ask_pending(src, false, err);
}

static int open_stream(struct gw_source *src, struct gw_error *err)
{
    src->handlings = gw_zalloc(src->devices.count, sizeof(*src->handlings));
    struct gw_source_item *item = gw_source_make_item(src, err);
    if (!src->handlings || !item) {
        gw_source_item_free(item);
        return gw_fail(err, -ENOMEM, "savevm stream");
    }
    uint64_t text_max = src->granted.section_bytes_max;
    gw_vmdesc_init(&src->desc, GW_PAGE_BYTES,
                   text_max - gw_min_u64(text_max, DESCRIPTION_HEAD_BYTES));
    gw_vmdesc_configuration(&src->desc, src->machine);
    src->has_desc = true;
    gw_stream_write_header(&item->w, src->machine);
    if (gw_writer_error(&item->w) < 0) {
        int rc = gw_writer_error(&item->w);
        gw_source_item_free(item);
        return gw_fail(err, rc, "savevm stream: header");
    }
    gw_source_items_add(&src->made, item);
    return 0;
}

static void setup_finished(struct gw_source *src, int rc)
{
    if (src->step != GW_SRC_DEVICES)
        return;
    if (rc < 0) {
        gw_source_fail(src, &src->call.err);
        return;
    }
    gw_source_items_take(&src->items, &src->made);
    src->setup_done = true;
}

void gw_source_begin_devices(struct gw_source *src)
{
    struct gw_error err = GW_ERROR_INIT;
    int rc = open_stream(src, &err);
    if (rc == 0 && !calls_before_pause(src))
        rc = setup_run(src, &err); /* memory alone: nothing of the embedder's to call */
    if (rc < 0) {
        gw_source_fail(src, &err);
        return;
    }
    if (!calls_before_pause(src)) {
        gw_source_items_take(&src->items, &src->made);
        gw_source_first_round(src);
        return;
    }
    src->step = GW_SRC_DEVICES;
    src->offer_until_ns = gw_clock_ns() + src->params.device_timeout_ms * GW_NS_PER_MS;
    gw_source_ask(src, setup_run, setup_finished);
}

uint64_t gw_source_devices_step(struct gw_source *src, uint64_t now_ns)
{
    bool handed_over = gw_source_stream_items(src);
    if (src->setup_done && src->items_loaded >= src->items_early) {
        gw_source_first_round(src);
        return now_ns;
    }
    if (now_ns >= src->offer_until_ns) {
        struct gw_error err = GW_ERROR_INIT;
        gw_fail_code(&err, -ETIMEDOUT, GW_CODE_TIMEOUT, "%s within %llu ms",
                     src->setup_done ? "the target did not load what comes before the memory"
                                     : "the setup of a device did not return",
                     (unsigned long long)src->params.device_timeout_ms);
        gw_error_hint(&err, "raise x-device-timeout");
        gw_source_fail(src, &err);
        return now_ns;
    }
    return handed_over ? src->offer_until_ns : now_ns + GW_NS_PER_MS;
}

/* ---- LOADED --------------------------------------------------------------------------------------- */

void gw_source_on_loaded(struct gw_source *src, const struct gw_message *msg)
{
    struct gw_error err = GW_ERROR_INIT;
    uint64_t items = msg->u.loaded.items;
    bool asked = calls_before_pause(src);
    if (!asked || items > src->items_said || items < src->items_loaded) {
        gw_fail(&err, -EPROTO, "LOADED %" PRIu64 " of the stream's items, %" PRIu64 " were sent%s",
                items, src->items_said, asked ? "" : " and none was asked about");
        gw_source_fail(src, &err);
        return;
    }
    src->items_loaded = items;
    src->acks_missing = msg->u.loaded.acks_missing;
    src->acks_given = msg->u.loaded.acks_given;
    src->loaded_heard = true;
    src->loaded_ns = gw_clock_ns();
    if (src->next_round_ns && src->ack_wait_told && gw_source_acks_are_there(src))
        src->next_round_ns = gw_clock_ns(); /* what it waited for */
}

/* ---- rounds --------------------------------------------------------------------------------------- */

void gw_source_devices_begin_round(struct gw_source *src)
{
    for (unsigned i = 0; i < src->devices.count; i++) {
        const struct gw_device_ops *ops = src->devices.list[i].ops;
        struct gw_handling *h = &src->handlings[i];
        h->round_left_bytes =
            h->pending_bytes > KNOWN_BYTES_MAX ? UNKNOWN_ROUND_BYTES : h->pending_bytes;
        h->is_done =
            !h->is_active || !ops->iterate || (ops->pending_estimate && h->pending_bytes == 0);
    }
    src->round_device_bytes = 0;
    src->round_was_cut = false;
}

bool gw_source_devices_are_done(const struct gw_source *src)
{
    if (src->call.busy)
        return false; /* what it is about is the callback's, too */
    for (unsigned i = 0; src->has_handlers && i < src->devices.count; i++) {
        if (!src->handlings[i].is_done)
            return false;
    }
    return true;
}

static int iterate_one(struct gw_source *src, unsigned i, uint64_t bytes_max, struct gw_error *err)
{
    struct gw_handling *h = &src->handlings[i];
    struct gw_source_item *item = gw_source_make_item(src, err);
    if (!item)
        return -ENOMEM;
    int rc =
        gw_savevm_iterate(&item->w, &src->devices.list[i], gw_device_section_id(i), bytes_max, err);
    uint64_t wrote = item->w.bytes;
    if (rc >= 0) {
        h->round_left_bytes -= gw_min_u64(h->round_left_bytes, wrote);
        /* What was pending when the round began is out, or it says so itself. */
        h->is_done = rc == GW_DEVICE_DONE || wrote == 0 || h->round_left_bytes == 0;
        src->round_was_cut |=
            rc == 0 && h->round_left_bytes == 0 && h->pending_bytes > KNOWN_BYTES_MAX;
    }
    return gw_source_made(src, item, rc);
}

/* One turn: each device that has more, once, from where the last turn's bytes ran out. */
static int iterate_run(struct gw_source *src, struct gw_error *err)
{
    unsigned count = src->devices.count;
    unsigned first = src->turn_next % count;
    for (unsigned n = 0; n < count && src->made.bytes < src->turn_bytes; n++) {
        unsigned i = (first + n) % count;
        src->turn_next = i + 1;
        if (src->handlings[i].is_done)
            continue;
        int rc = iterate_one(src, i, src->turn_bytes - src->made.bytes, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static void iterate_finished(struct gw_source *src, int rc)
{
    if (src->step != GW_SRC_SEND)
        return;
    if (rc < 0) {
        gw_source_fail(src, &src->call.err);
        return;
    }
    src->round_device_bytes += src->made.bytes;
    src->turn_ns = gw_source_pay(src, src->made.bytes, gw_clock_ns());
    gw_source_items_take(&src->items, &src->made);
    gw_source_maybe_over(src);
}

uint64_t gw_source_iterate(struct gw_source *src, uint64_t now_ns)
{
    if (src->step != GW_SRC_SEND || !src->has_handlers || src->call.busy ||
        gw_source_devices_are_done(src))
        return GW_NEVER_NS;
    if (src->items_said + src->items.count - src->items_loaded >= ITEMS_AHEAD)
        return GW_NEVER_NS; /* LOADED wakes us */
    uint64_t wake_ns = gw_source_paid_ns(src, src->turn_ns);
    if (now_ns < wake_ns)
        return wake_ns;
    src->turn_bytes = gw_source_turn_bytes(src, TURN_BYTES);
    gw_source_ask(src, iterate_run, iterate_finished);
    return GW_NEVER_NS;
}
