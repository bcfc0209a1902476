// SPDX-License-Identifier: MIT
/* Wishes at the target. On a stream wire they are advice to prefault, and what is too much is forgotten. On
 * a one-sided wire each is answered: workers prefault and register in the order of the wishes, keys are
 * pushed as they come, as many in one message as are there, and what the source releases is deregistered
 * and its budget given back. Workers are a pool of their own: nothing that the guest waits for waits
 * behind a registration. After RAM END nothing new is begun; what is lent stays so until the guest runs,
 * for its keys are dead by then (rule 10), and is deregistered by gw_target_keys_close(). */
#include "core/target.h"

#include "core/base/alloc.h"
#include "core/base/bytes.h"
#include "core/memlock.h"
#include "ram/lend.h"

#include <unistd.h>

#define WISHES_KEPT 4096u
#define WORKERS_MAX 4u /* threads: more of them fight for the process's page tables */
#define WORKS_MAX 8u   /* at the workers: each has its next */
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

static unsigned worker_count(void)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    return cpus > 0 && cpus < (long)WORKERS_MAX ? (unsigned)cpus : WORKERS_MAX;
}

int gw_target_keys_open(struct gw_target *tgt, struct gw_error *err)
{
    if (!(gw_target_page_flags(tgt) & GW_EP_ONE_SIDED))
        return 0;
    struct gw_lends_config config = {.ram = tgt->ram,
                                     .dom = gw_target_page_dom(tgt),
                                     .budget_bytes = tgt->reply.memlock_bytes,
                                     .prefault = tgt->params.prefault};
    tgt->lending = gw_zalloc(1, sizeof(*tgt->lending));
    if (!tgt->lending)
        return gw_fail(err, -ENOMEM, "keys");
    tgt->lending->lends = gw_lends_new(&config, err);
    if (!tgt->lending->lends)
        return -ENOMEM;
    return gw_pool_new(worker_count(), "gw/tgt/reg", &tgt->lending->workers, err);
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

static void on_keyed_wishes(struct gw_target *tgt, const struct gw_message *msg)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_list_cursor cursor;
    struct gw_range_msg range;
    gw_list_begin(&cursor, msg->u.list);
    while (gw_list_next_range(&cursor, msg->type, &range)) {
        struct gw_wish wish = {.block = range.block, .offset = range.first, .bytes = range.count};
        int rc = msg->type == GW_MSG_WISHES ? gw_lends_wish(tgt->lending->lends, &wish, &err)
                                            : gw_lends_release(tgt->lending->lends, &wish, &err);
        if (rc < 0) {
            gw_target_fail(tgt, &err);
            return;
        }
    }
}

void gw_target_on_release(struct gw_target *tgt, const struct gw_message *msg)
{
    struct gw_error err = GW_ERROR_INIT;
    if (tgt->lending && tgt->step > GW_TGT_ACTIVE)
        return; /* every key is dead, or is about to be */
    if (tgt->lending && tgt->step == GW_TGT_ACTIVE) {
        on_keyed_wishes(tgt, msg);
        return;
    }
    gw_fail(&err, -EPROTO, "RELEASE of a key that was never given");
    gw_target_fail(tgt, &err);
}

/* ---- on stream wires: an advice to prefault ------------------------------------------------------ */

static void prefault_run(struct gw_job *job)
{
    struct gw_target_job *work = GW_CONTAINER_OF(job, struct gw_target_job, job);
    const struct gw_block *block = gw_ram_block(work->tgt->ram, work->wish.block);
    work->rc = gw_prefault(block, work->wish.offset, work->wish.bytes);
}

static void next_prefault(struct gw_target *tgt);

static void prefault_done(struct gw_mail *mail, void *engine)
{
    struct gw_target_job *work = GW_CONTAINER_OF(mail, struct gw_target_job, job.done);
    work->busy = false;
    next_prefault(engine);
}

static void next_prefault(struct gw_target *tgt)
{
    if (!tgt->wishes)
        return;
    for (unsigned i = 0; i < GW_PREFAULT_JOBS; i++) {
        struct gw_target_job *work = &tgt->prefault[i];
        if (work->busy || tgt->wish_count == 0 || tgt->step != GW_TGT_ACTIVE)
            continue;
        work->wish = tgt->wishes[tgt->wish_first];
        tgt->wish_first = (tgt->wish_first + 1) % WISHES_KEPT;
        tgt->wish_count--;
        gw_target_post(tgt, work, prefault_run, prefault_done);
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
    if (tgt->lending) {
        on_keyed_wishes(tgt, msg);
        return;
    }
    if (!tgt->wishes)
        tgt->wishes = gw_zalloc(WISHES_KEPT, sizeof(*tgt->wishes));
    gw_list_begin(&cursor, msg->u.list);
    while (gw_list_next_range(&cursor, GW_MSG_WISHES, &range)) {
        struct gw_wish wish = {.block = range.block, .offset = range.first, .bytes = range.count};
        if (gw_wish_check(tgt->ram, &wish, &err) < 0) {
            gw_target_fail(tgt, &err);
            return;
        }
        if (!tgt->wishes || !tgt->params.prefault || tgt->wish_count == WISHES_KEPT)
            continue;
        tgt->wishes[(tgt->wish_first + tgt->wish_count++) % WISHES_KEPT] = wish;
    }
    next_prefault(tgt);
}
