// SPDX-License-Identifier: MIT
/* What a callback of the devices may make, and what that costs of max-bandwidth: it is paid afterwards, and
 * the next turn waits until it is. Page endpoints take before they send, and would be quicker each time there
 * is something in the bucket; so half of it is the devices' at least. */
#include "core/source.h"

#include "core/base/bytes.h"

#define TURN_BYTES_LEAST 1024u

static uint64_t rate_of(const struct gw_source *src)
{
    return atomic_load_explicit(&src->throttle.rate, memory_order_relaxed); /* as it does itself */
}

/* A hundredth of a second's worth, and what a section surely holds. */
uint64_t gw_source_turn_bytes(const struct gw_source *src, uint64_t most)
{
    uint64_t rate = rate_of(src);
    uint64_t bytes = gw_min_u64(most, src->granted.section_bytes_max / 2);
    return rate ? gw_min_u64(bytes, gw_max_u64(rate / 100, TURN_BYTES_LEAST)) : bytes;
}

uint64_t gw_source_pay(struct gw_source *src, uint64_t bytes, uint64_t now_ns)
{
    uint64_t rate = rate_of(src);
    if (rate == 0 || bytes == 0)
        return now_ns;
    uint64_t owed_ns = gw_source_paid_ns(src, src->turn_ns);
    gw_throttle_charge(&src->throttle, bytes, now_ns);
    now_ns = gw_max_u64(now_ns, owed_ns); /* of several side by side each waits behind the others */
    unsigned __int128 ns = (unsigned __int128)bytes * 2 * GW_NS_PER_S / rate;
    return ns < GW_NEVER_NS - now_ns ? now_ns + (uint64_t)ns : GW_NEVER_NS - 1;
}

uint64_t gw_source_paid_ns(const struct gw_source *src, uint64_t turn_ns)
{
    return gw_min_u64(turn_ns, gw_throttle_paid_ns(&src->throttle));
}

/* ---- items ---------------------------------------------------------------------------------------- */

struct gw_source_item *gw_source_make_item(struct gw_source *src, struct gw_error *err)
{
    struct gw_source_item *item = gw_source_item_new(src->granted.section_bytes_max);
    if (!item)
        gw_fail(err, -ENOMEM, "device state");
    return item;
}

int gw_source_made(struct gw_source *src, struct gw_source_item *item, int rc)
{
    if (rc < 0 || item->w.bytes == 0)
        gw_source_item_free(item);
    else
        gw_source_items_add(&src->made, item);
    return rc;
}
