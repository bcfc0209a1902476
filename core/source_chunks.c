// SPDX-License-Identifier: MIT
/* Chunks at the source (one-sided wires). A chunk that is wished for is registered here by a worker
 * while its key travels. Both there, a pool thread syncs its range into bits of the chunk's own, the
 * chunk visits the owners of its stripes, each of whom takes its part of those into its bits, and then it
 * is ready: no bit is ever written by two threads, and no page goes before the sync (rule 6).
 *
 * A sync of all stripes, between rounds, and one of a chunk exclude each other: a chunk's begins only
 * while a round is sent, and the stripes' wait until none is under way (gw_source_chunks_sync()).
 *
 * A chunk that must go visits its owners, too. When the last has let go of it, RELEASE is said and a
 * worker deregisters it here; it may come back when both that and RELEASED are there.
 *
 * Slots bound what is under way. Workers are a pool of their own, so that a sync with the guest paused
 * never waits behind a registration. */
#include "core/source_chunks.h"

#include "core/base/alloc.h"
#include "core/base/bytes.h"
#include "core/memlock.h"

#include <inttypes.h>

#define REGISTERS_MAX (2 * GW_WORKERS_MAX) /* at the workers: each has its next */
#define ARMS_MAX 8u
#define LEAVERS_MAX 32u

struct reg { /* a registration to be made or ended */
    struct gw_source_job job;
    bool ends;
    struct gw_wish range;
    struct gw_mr *mr;
    struct gw_rmr *rmr;
};

struct arm { /* a chunk between its registration and being ready */
    struct gw_source_job job;
    struct gw_source *src;
    bool busy;
    uint64_t *bits;
    struct gw_chunk_visit visit;
    struct gw_page_visit *visits; /* by owner */
};

struct leaver { /* a chunk that goes */
    struct gw_source *src;
    enum { LEAVER_FREE, LEAVER_VISITS, LEAVER_OUT } state;
    struct gw_chunk_visit visit;
    struct gw_page_visit *visits;
};

struct gw_making {
    struct gw_pool *workers;
    unsigned owners;
    bool pins; /* set once, before any job */
    struct reg regs[REGISTERS_MAX];
    struct arm arms[ARMS_MAX];
    struct leaver leavers[LEAVERS_MAX];
    unsigned arms_busy, leavers_busy, regs_busy;
    uint64_t moved;
    struct gw_page_visit *visits;
    uint64_t *bits;
};

/* ---- life ------------------------------------------------------------------------------------- */

static void arm_over(struct gw_mail *mail, void *engine);
static void leaver_over(struct gw_mail *mail, void *engine);

static int make_slots(struct gw_source *src, struct gw_making *making)
{
    size_t words = gw_chunk_bytes_max(src->chunks) / GW_PAGE_BYTES / 64;
    making->visits =
        gw_zalloc((size_t)(ARMS_MAX + LEAVERS_MAX) * making->owners, sizeof(*making->visits));
    making->bits = gw_zalloc(ARMS_MAX * words, sizeof(*making->bits));
    if (!making->visits || !making->bits)
        return -ENOMEM;
    struct gw_page_visit *visits = making->visits;
    for (unsigned i = 0; i < ARMS_MAX; i++, visits += making->owners) {
        making->arms[i].src = src;
        making->arms[i].bits = making->bits + i * words;
        making->arms[i].visits = visits;
        making->arms[i].visit.over.deliver = arm_over;
    }
    for (unsigned i = 0; i < LEAVERS_MAX; i++, visits += making->owners) {
        making->leavers[i].src = src;
        making->leavers[i].visits = visits;
        making->leavers[i].visit.over.deliver = leaver_over;
    }
    return 0;
}

int gw_source_chunks_open(struct gw_source *src, struct gw_error *err)
{
    struct gw_making *making = gw_zalloc(1, sizeof(*making));
    if (!making)
        return gw_fail(err, -ENOMEM, "chunks");
    making->owners = src->granted.endpoints;
    making->pins = gw_source_page_flags(src) & GW_EP_PINS;
    int rc = make_slots(src, making);
    if (rc < 0)
        gw_fail(err, rc, "chunks");
    if (rc == 0)
        rc = gw_pool_new(gw_worker_count(), "gw/src/reg", &making->workers, err);
    src->making = making;
    if (rc < 0)
        gw_source_chunks_close(src);
    return rc;
}

/* What is in the inbox already would else be delivered while a job takes everything down. */
void gw_source_chunks_stop(struct gw_source *src)
{
    struct gw_making *making = src->making;
    for (unsigned i = 0; making && i < ARMS_MAX; i++)
        gw_inbox_remove(&src->inbox, &making->arms[i].visit.over.item);
    for (unsigned i = 0; making && i < LEAVERS_MAX; i++)
        gw_inbox_remove(&src->inbox, &making->leavers[i].visit.over.item);
}

void gw_source_chunks_close(struct gw_source *src)
{
    struct gw_making *making = src->making;
    gw_chunks_free(src->chunks);
    src->chunks = NULL;
    src->making = NULL;
    if (!making)
        return;
    gw_assert(!making->regs_busy);
    gw_pool_free(making->workers);
    gw_free(making->visits);
    gw_free(making->bits);
    gw_free(making);
}

bool gw_source_chunks_are_quiet(const struct gw_source *src)
{
    if (!src->making)
        return true;
    for (unsigned i = 0; i < ARMS_MAX; i++) {
        if (src->making->arms[i].job.busy)
            return false;
    }
    return src->making->regs_busy == 0;
}

bool gw_source_chunks_sync(const struct gw_source *src)
{
    return src->making && src->making->arms_busy > 0;
}

uint64_t gw_source_chunks_moved(const struct gw_source *src)
{
    return src->making ? src->making->moved : 0;
}

/* ---- registering ------------------------------------------------------------------------------ */

static void reg_run(struct gw_job *job)
{
    struct reg *reg = GW_CONTAINER_OF(job, struct reg, job.job);
    gw_error_clear(&reg->job.err);
    if (reg->ends) {
        gw_rmr_close(reg->rmr);
        gw_mr_dereg(reg->mr);
        reg->job.rc = 0;
        return;
    }
    struct gw_source *src = reg->job.src;
    const struct gw_wish *range = &reg->range;
    reg->job.rc = 0;
    if (src->making->pins)
        reg->job.rc =
            gw_dirty_before_pin(src->ram, range->block, range->offset / GW_PAGE_BYTES,
                                (range->bytes + GW_PAGE_BYTES - 1) / GW_PAGE_BYTES, &reg->job.err);
    if (reg->job.rc == 0)
        reg->job.rc = gw_chunk_register(src->chunks, range, &reg->mr, &reg->job.err);
    if (reg->job.rc < 0)
        gw_memlock_hint(&reg->job.err, reg->job.rc, reg->range.bytes);
}

static void reg_done(struct gw_mail *mail, void *engine)
{
    struct gw_source *src = engine;
    struct reg *reg = GW_CONTAINER_OF(mail, struct reg, job.job.done);
    reg->job.busy = false;
    src->making->regs_busy--;
    src->making->moved++;
    if (reg->ends)
        gw_chunks_deregistered(src->chunks, &reg->range);
    else if (reg->job.rc == 0)
        gw_chunks_registered(src->chunks, &reg->range, reg->mr);
    else
        gw_source_fail(src, &reg->job.err);
}

static struct reg *free_reg(struct gw_making *making)
{
    for (unsigned i = 0; i < REGISTERS_MAX; i++) {
        if (!making->regs[i].job.busy)
            return &making->regs[i];
    }
    return NULL;
}

static void post_reg(struct gw_source *src, struct reg *reg)
{
    src->making->regs_busy++;
    gw_source_post_to(src, src->making->workers, &reg->job, reg_run, reg_done);
}

static void register_some(struct gw_source *src)
{
    struct reg *reg;
    while ((reg = free_reg(src->making)) && gw_chunks_to_register(src->chunks, &reg->range)) {
        reg->ends = false;
        reg->mr = NULL;
        post_reg(src, reg);
    }
}

/* ---- visits ----------------------------------------------------------------------------------- */

/* Send @visit to every owner of a part of its range. */
static void begin_visit(struct gw_source *src, struct gw_chunk_visit *visit,
                        struct gw_page_visit *visits)
{
    uint64_t stripe_pages = gw_ram_stripe_pages(src->ram);
    uint64_t first = visit->range.offset / GW_PAGE_BYTES / stripe_pages;
    uint64_t last = ((visit->range.offset + visit->range.bytes) / GW_PAGE_BYTES - 1) / stripe_pages;
    unsigned count = (unsigned)gw_min_u64(last - first + 1, src->page_count);
    atomic_store_explicit(&visit->left, count, memory_order_relaxed); /* the mail orders it */
    for (unsigned i = 0; i < count; i++) { /* neighbouring stripes belong to as many owners */
        unsigned owner = gw_ram_owner(src->ram, visit->range.block, (first + i) * stripe_pages);
        visits[owner].of = visit;
        gw_page_out_visit(src->pages[owner], &visits[owner]);
    }
}

/* ---- making ready ----------------------------------------------------------------------------- */

static void arm_run(struct gw_job *job)
{
    struct arm *arm = GW_CONTAINER_OF(job, struct arm, job.job);
    const struct gw_wish *range = &arm->visit.range;
    uint64_t pages = (range->bytes + GW_PAGE_BYTES - 1) / GW_PAGE_BYTES;
    gw_error_clear(&arm->job.err);
    memset(arm->bits, 0, (pages + 63) / 64 * sizeof(uint64_t));
    arm->job.rc = gw_dirty_take(arm->src->ram, range->block, range->offset / GW_PAGE_BYTES, pages,
                                arm->bits, &arm->job.err);
}

static void arm_synced(struct gw_mail *mail, void *engine)
{
    struct gw_source *src = engine;
    struct arm *arm = GW_CONTAINER_OF(mail, struct arm, job.job.done);
    arm->job.busy = false;
    if (arm->job.rc < 0) {
        gw_source_fail(src, &arm->job.err);
        return; /* it stays busy: nothing is synced any more */
    }
    gw_assert(src->syncs_busy == 0); /* the bits are their owners' */
    if (src->page_count == src->page_wanted)
        begin_visit(src, &arm->visit, arm->visits);
}

static void arm_over(struct gw_mail *mail, void *engine)
{
    struct gw_source *src = engine;
    struct arm *arm = GW_CONTAINER_OF(mail, struct arm, visit.over);
    gw_chunks_synced(src->chunks, &arm->visit.range);
    arm->busy = false;
    src->making->arms_busy--;
    src->making->moved++;
    for (unsigned i = 0; i < src->page_count; i++)
        gw_page_out_wake(src->pages[i]);
    gw_source_sync_waits_no_more(src);
}

/* While the stripes are synced, or the guest is being paused, the bits are not their owners'. */
static bool may_arm(const struct gw_source *src)
{
    return (src->step == GW_SRC_REGISTER && !src->tracks_late) || src->step == GW_SRC_SEND ||
           src->step == GW_SRC_FINAL_SEND;
}

static void arm_some(struct gw_source *src)
{
    struct gw_making *making = src->making;
    for (unsigned i = 0; i < ARMS_MAX && may_arm(src); i++) {
        struct arm *arm = &making->arms[i];
        if (arm->busy)
            continue;
        if (gw_chunks_newly_ready(src->chunks, &arm->visit.range, 1) == 0)
            return;
        arm->busy = true;
        arm->visit.bits = arm->bits;
        making->arms_busy++;
        gw_source_post(src, &arm->job, arm_run, arm_synced);
    }
}

/* ---- letting go ------------------------------------------------------------------------------- */

static int say_release(struct gw_source *src, const struct gw_wish *range)
{
    uint8_t buf[32];
    struct gw_list_builder list = {.buf = buf, .bytes = sizeof(buf)};
    struct gw_message msg = {.type = GW_MSG_RELEASE};
    struct gw_range_msg entry = {
        .block = range->block, .first = range->offset, .count = range->bytes};
    int rc = gw_list_add_range(&list, GW_MSG_RELEASE, &entry);
    gw_assert(rc == 0);
    msg.u.list.data = list.buf;
    msg.u.list.bytes = list.used;
    return gw_source_say(src, &msg);
}

/* Nobody holds anything of it. */
static void let_go(struct gw_source *src, struct leaver *leaver)
{
    struct reg *reg = free_reg(src->making);
    if (!reg || say_release(src, &leaver->visit.range) < 0)
        return; /* the step tries again */
    reg->ends = true;
    reg->range = leaver->visit.range;
    gw_chunks_evicted(src->chunks, &reg->range, &reg->mr, &reg->rmr);
    post_reg(src, reg);
    leaver->state = LEAVER_FREE;
    src->making->leavers_busy--;
    src->making->moved++;
}

static void leaver_over(struct gw_mail *mail, void *engine)
{
    struct leaver *leaver = GW_CONTAINER_OF(mail, struct leaver, visit.over);
    leaver->state = LEAVER_OUT;
    let_go(engine, leaver);
}

static void evict_some(struct gw_source *src)
{
    struct gw_making *making = src->making;
    struct gw_wish victims[LEAVERS_MAX];
    for (unsigned i = 0; i < LEAVERS_MAX && making->leavers_busy; i++) {
        if (making->leavers[i].state == LEAVER_OUT)
            let_go(src, &making->leavers[i]);
    }
    int count = gw_chunks_evict(src->chunks, victims, LEAVERS_MAX - making->leavers_busy);
    for (unsigned i = 0; count > 0; i++) {
        struct leaver *leaver = &making->leavers[i];
        if (leaver->state != LEAVER_FREE)
            continue;
        leaver->state = LEAVER_VISITS;
        leaver->visit.range = victims[--count];
        leaver->visit.bits = NULL;
        making->leavers_busy++;
        begin_visit(src, &leaver->visit, leaver->visits);
    }
}

/* ---- the step --------------------------------------------------------------------------------- */

static bool is_making(const struct gw_source *src)
{
    return src->making && src->channel && src->page_count == src->page_wanted &&
           src->end_status == GW_STATUS_NONE && src->step >= GW_SRC_REGISTER &&
           src->step <= GW_SRC_FINAL_SEND;
}

uint64_t gw_source_chunks_step(struct gw_source *src, uint64_t now_ns)
{
    if (!is_making(src))
        return GW_NEVER_NS;
    evict_some(src);
    register_some(src);
    arm_some(src);
    /* An owner that has nothing else left wakes us, and so does all that is under way. Where the budget is
     * short somebody must look how far the scans are. */
    return gw_chunks_are_short(src->chunks) ? now_ns + GW_NS_PER_MS : GW_NEVER_NS;
}
