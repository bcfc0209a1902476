// SPDX-License-Identifier: MIT
/* Wishes as advice: memory is populated ahead of the data, by workers of its own, in the order of the
 * wishes. So on stream wires, and on one-sided wires that pin nothing: there a key is worth as much before its
 * range is populated, so it goes at once (target_keys.c), and where the wire is faster than first touch it
 * populates what it comes to. Where registering pins, it populates, and nothing is left to do here.
 *
 * Neighbouring wishes are kept as one. What is beyond the ring is dropped, as is all that is left when
 * memory no longer arrives: who writes there populates. Where memory cannot be had a stream says so when it
 * writes there, and may never, for pages of zeros: prefault ends, with a warning. A put that lands by itself
 * says nothing of use, so over a one-sided wire that ends the session. */
#include "core/target.h"

#include "core/base/alloc.h"
#include "core/base/bytes.h"
#include "core/base/log.h"
#include "ram/place.h"

#include <inttypes.h>

#define WISHES_KEPT 4096u
#define TOUCHES_MAX (2 * GW_WORKERS_MAX) /* at the workers: each has its next */
#define PIECE_BYTES (UINT64_C(4) << 20)  /* two huge pages: milliseconds, then it may stop */

struct touch {
    struct gw_target_job job;
    struct gw_wish range;
};

struct gw_prefaulting {
    struct gw_pool *workers;
    struct touch touches[TOUCHES_MAX];
    unsigned touches_busy;
    struct gw_wish wishes[WISHES_KEPT]; /* a ring */
    unsigned first, count;
    bool gave_up;
};

void gw_target_prefault_open(struct gw_target *tgt)
{
    struct gw_error err = GW_ERROR_INIT;
    uint32_t flags = gw_target_page_flags(tgt);
    if (!tgt->params.prefault || ((flags & GW_EP_ONE_SIDED) && (flags & GW_EP_PINS)))
        return;
    struct gw_prefaulting *fresh = gw_zalloc(1, sizeof(*fresh));
    int rc = fresh ? gw_pool_new(gw_worker_count(), "gw/tgt/fill", &fresh->workers, &err)
                   : gw_fail(&err, -ENOMEM, "wishes");
    if (rc == 0) {
        tgt->prefaulting = fresh;
        return;
    }
    gw_free(fresh);
    gw_log_warn(&tgt->log, "target", "no memory is populated ahead of the data: %s", err.message);
}

void gw_target_prefault_close(struct gw_target *tgt)
{
    struct gw_prefaulting *prefaulting = tgt->prefaulting;
    tgt->prefaulting = NULL;
    if (!prefaulting)
        return;
    gw_assert(!prefaulting->touches_busy);
    gw_pool_free(prefaulting->workers);
    gw_free(prefaulting);
}

bool gw_target_prefault_is_quiet(const struct gw_target *tgt)
{
    return !tgt->prefaulting || tgt->prefaulting->touches_busy == 0;
}

static void touch_run(struct gw_job *job)
{
    struct touch *touch = GW_CONTAINER_OF(job, struct touch, job.job);
    const struct gw_wish *range = &touch->range;
    const struct gw_block *block = gw_ram_block(touch->job.tgt->ram, range->block);
    gw_error_clear(&touch->job.err);
    touch->job.rc = gw_prefault(block, range->offset, range->bytes);
    if (touch->job.rc < 0)
        gw_fail(&touch->job.err, touch->job.rc, "block '%s' [%" PRIu64 ", +%" PRIu64 "): prefault",
                block->desc.name, range->offset, range->bytes);
}

static void give_up(struct gw_target *tgt, const struct gw_error *err)
{
    struct gw_prefaulting *prefaulting = tgt->prefaulting;
    if (prefaulting->gave_up || tgt->step != GW_TGT_ACTIVE)
        return;
    prefaulting->gave_up = true;
    prefaulting->count = 0;
    if (tgt->lending)
        gw_target_fail(tgt, err);
    else
        gw_log_warn(&tgt->log, "target", "no more memory is populated ahead of the data: %s",
                    err->message);
}

static void touch_done(struct gw_mail *mail, void *engine)
{
    struct gw_target *tgt = engine;
    struct touch *touch = GW_CONTAINER_OF(mail, struct touch, job.job.done);
    touch->job.busy = false;
    tgt->prefaulting->touches_busy--;
    if (touch->job.rc < 0)
        give_up(tgt, &touch->job.err);
}

/* Two workers in one huge page would clear it twice: pieces end where those do, if the block begins with one. */
static struct gw_wish next_piece(struct gw_prefaulting *prefaulting)
{
    struct gw_wish *wish = &prefaulting->wishes[prefaulting->first];
    struct gw_wish piece = *wish;
    piece.bytes = gw_min_u64(wish->bytes, PIECE_BYTES - wish->offset % PIECE_BYTES);
    wish->offset += piece.bytes;
    wish->bytes -= piece.bytes;
    if (wish->bytes == 0) {
        prefaulting->first = (prefaulting->first + 1) % WISHES_KEPT;
        prefaulting->count--;
    }
    return piece;
}

void gw_target_prefault_step(struct gw_target *tgt)
{
    if (tgt->step != GW_TGT_ACTIVE || !tgt->prefaulting) /* before, it is a job's */
        return;
    struct gw_prefaulting *prefaulting = tgt->prefaulting;
    for (unsigned i = 0; i < TOUCHES_MAX && prefaulting->count; i++) {
        struct touch *touch = &prefaulting->touches[i];
        if (touch->job.busy)
            continue;
        touch->range = next_piece(prefaulting);
        prefaulting->touches_busy++;
        gw_target_post_to(tgt, prefaulting->workers, &touch->job, touch_run, touch_done);
    }
}

void gw_target_prefault_wish(struct gw_target *tgt, const struct gw_wish *wish)
{
    struct gw_prefaulting *prefaulting = tgt->prefaulting;
    if (!prefaulting || prefaulting->gave_up || !wish->bytes)
        return;
    if (prefaulting->count) {
        unsigned last = (prefaulting->first + prefaulting->count - 1) % WISHES_KEPT;
        struct gw_wish *before = &prefaulting->wishes[last];
        if (before->block == wish->block && before->offset + before->bytes == wish->offset) {
            before->bytes += wish->bytes;
            return;
        }
    }
    if (prefaulting->count == WISHES_KEPT)
        return;
    prefaulting->wishes[(prefaulting->first + prefaulting->count++) % WISHES_KEPT] = *wish;
}
