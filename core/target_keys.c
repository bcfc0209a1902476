// SPDX-License-Identifier: MIT
/* Wishes at the target. On a stream wire they are advice to prefault (target_prefault.c). On a one-sided wire
 * each is answered: workers register in the order of the wishes, keys are pushed as they come, as many in
 * one message as are there, and what the source releases is deregistered and its budget given back. Where
 * registering pins they prefault first, in parallel; elsewhere no key waits for that. Workers are a pool of
 * their own: nothing that the guest waits for waits behind a registration. After RAM END nothing new is begun;
 * what is lent stays so until the guest runs, for its keys are dead by then (rule 10), and is deregistered
 * by gw_target_keys_close(). */
#include "core/target.h"

#include "core/base/alloc.h"
#include "core/base/bytes.h"
#include "core/memlock.h"
#include "ram/lend.h"

#define WORKS_MAX (2 * GW_WORKERS_MAX) /* at the workers: each has its next */
#define TELL_BYTES 16384u

struct work {
    struct gw_target_job job;
    struct gw_lend *lend;
};

struct gw_lending {
    struct gw_pool *workers;
    struct gw_lends *lends;
    struct work works[WORKS_MAX];
    unsigned works_busy;
};

/* ---- life ------------------------------------------------------------------------------------- */

int gw_target_keys_open(struct gw_target *tgt, struct gw_error *err)
{
    uint32_t flags = gw_target_page_flags(tgt);
    if (!(flags & GW_EP_ONE_SIDED))
        return 0;
    struct gw_lends_config config = {.ram = tgt->ram,
                                     .dom = gw_target_page_dom(tgt),
                                     .budget_bytes = tgt->reply.memlock_bytes,
                                     .prefault = tgt->params.prefault && (flags & GW_EP_PINS)};
    tgt->lending = gw_zalloc(1, sizeof(*tgt->lending));
    if (!tgt->lending)
        return gw_fail(err, -ENOMEM, "keys");
    tgt->lending->lends = gw_lends_new(&config, err);
    if (!tgt->lending->lends)
        return -ENOMEM;
    return gw_pool_new(gw_worker_count(), "gw/tgt/reg", &tgt->lending->workers, err);
}

void gw_target_keys_close(struct gw_target *tgt)
{
    struct gw_lending *lending = tgt->lending;
    tgt->lending = NULL;
    if (!lending)
        return;
    gw_assert(!lending->works_busy);
    gw_pool_free(lending->workers);
    gw_lends_free(lending->lends);
    gw_free(lending);
}

bool gw_target_keys_are_quiet(const struct gw_target *tgt)
{
    return !tgt->lending || tgt->lending->works_busy == 0;
}

uint64_t gw_target_registered_peak(const struct gw_target *tgt)
{
    return tgt->lending ? gw_lends_registered_peak(tgt->lending->lends) : 0;
}

/* ---- telling ---------------------------------------------------------------------------------- */

static void say_list(struct gw_target *tgt, enum gw_message_type type,
                     const struct gw_list_builder *list)
{
    struct gw_message msg = {.type = type};
    msg.u.list.data = list->buf;
    msg.u.list.bytes = list->used;
    if (list->used)
        gw_target_say(tgt, &msg);
}

/* One message of each kind at most; true: there may be more. */
static bool tell_some(struct gw_target *tgt)
{
    static const size_t entry_max = 32 + GW_KEY_BYTES_MAX;
    uint8_t key_buf[TELL_BYTES], released_buf[TELL_BYTES];
    struct gw_list_builder keys = {.buf = key_buf, .bytes = sizeof(key_buf)};
    struct gw_list_builder released = {.buf = released_buf, .bytes = sizeof(released_buf)};
    if (!gw_channel_has_room(tgt->channel, TELL_BYTES + GW_MESSAGE_HEADER_BYTES))
        return false;
    bool more = false;
    while (keys.bytes - keys.used >= entry_max && released.bytes - released.used >= entry_max) {
        struct gw_range_msg entry = {0};
        struct gw_wish range;
        bool is_released;
        size_t key_bytes = 0;
        more = gw_lends_tell(tgt->lending->lends, &range, &is_released, entry.key, &key_bytes);
        if (!more)
            break;
        entry.block = range.block;
        entry.first = range.offset;
        entry.count = range.bytes;
        entry.key_bytes = (uint8_t)key_bytes;
        int rc = is_released ? gw_list_add_range(&released, GW_MSG_RELEASED, &entry)
                             : gw_list_add_range(&keys, GW_MSG_KEYS, &entry);
        gw_assert(rc == 0);
    }
    say_list(tgt, GW_MSG_KEYS, &keys);
    say_list(tgt, GW_MSG_RELEASED, &released);
    return more;
}

/* ---- working ---------------------------------------------------------------------------------- */

static void work_run(struct gw_job *job)
{
    struct work *work = GW_CONTAINER_OF(job, struct work, job.job);
    gw_error_clear(&work->job.err);
    work->job.rc = gw_lend_work(work->lend, &work->job.err);
    if (work->job.rc < 0)
        gw_memlock_hint(&work->job.err, work->job.rc, gw_lend_bytes(work->lend));
}

static void work_done(struct gw_mail *mail, void *engine)
{
    struct gw_target *tgt = engine;
    struct work *work = GW_CONTAINER_OF(mail, struct work, job.job.done);
    work->job.busy = false;
    tgt->lending->works_busy--;
    if (work->job.rc < 0)
        gw_target_fail(tgt, &work->job.err);
    else
        gw_lends_worked(tgt->lending->lends, work->lend);
}

static void work_some(struct gw_target *tgt)
{
    struct gw_lending *lending = tgt->lending;
    for (unsigned i = 0; i < WORKS_MAX; i++) {
        struct work *work = &lending->works[i];
        if (work->job.busy)
            continue;
        work->lend = gw_lends_next(lending->lends);
        if (!work->lend)
            return;
        lending->works_busy++;
        gw_target_post_to(tgt, lending->workers, &work->job, work_run, work_done);
    }
}

uint64_t gw_target_keys_step(struct gw_target *tgt, uint64_t now_ns)
{
    if (tgt->step != GW_TGT_ACTIVE || !tgt->lending || !tgt->channel) /* before, it is a job's */
        return GW_NEVER_NS;
    work_some(tgt);
    return tell_some(tgt) ? now_ns : GW_NEVER_NS;
}

void gw_target_on_release(struct gw_target *tgt, const struct gw_message *msg)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_list_cursor cursor;
    struct gw_range_msg range;
    bool gave_keys = tgt->step >= GW_TGT_ACTIVE && tgt->lending; /* before, it is a job's */
    if (gave_keys && tgt->step > GW_TGT_ACTIVE)
        return; /* every key is dead, or is about to be */
    if (!gave_keys) {
        gw_fail(&err, -EPROTO, "RELEASE of a key that was never given");
        gw_target_fail(tgt, &err);
        return;
    }
    gw_list_begin(&cursor, msg->u.list);
    while (gw_list_next_range(&cursor, GW_MSG_RELEASE, &range)) {
        struct gw_wish wish = {.block = range.block, .offset = range.first, .bytes = range.count};
        if (gw_lends_release(tgt->lending->lends, &wish, &err) < 0) {
            gw_target_fail(tgt, &err);
            return;
        }
    }
}

void gw_target_on_wishes(struct gw_target *tgt, const struct gw_message *msg)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_list_cursor cursor;
    struct gw_range_msg range;
    if (tgt->step > GW_TGT_ACTIVE)
        return; /* too late to be of use */
    if (tgt->step < GW_TGT_ACTIVE) {
        gw_fail(&err, -EPROTO, "WISHES before BLOCKS_OK");
        gw_target_fail(tgt, &err);
        return;
    }
    gw_list_begin(&cursor, msg->u.list);
    while (gw_list_next_range(&cursor, GW_MSG_WISHES, &range)) {
        struct gw_wish wish = {.block = range.block, .offset = range.first, .bytes = range.count};
        int rc = tgt->lending ? gw_lends_wish(tgt->lending->lends, &wish, &err)
                              : gw_wish_check(tgt->ram, &wish, &err);
        if (rc < 0) {
            gw_target_fail(tgt, &err);
            return;
        }
        gw_target_prefault_wish(tgt, &wish);
    }
}
