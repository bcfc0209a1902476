// SPDX-License-Identifier: MIT
/* One page endpoint's sender. A round goes through four phases:
 *
 *   HOLES  (first round only) what was never touched is said as zero runs where the target is not
 *          known to be zero there, and counted;
 *   PAGES  passes over the owner's stripes: runs of dirty pages are taken out of the bits, cut into
 *          zero and other pieces, and batched; pieces that must wait (rules 3 and 4) get their bits
 *          back, as do chunks that are not ready keep theirs, and another pass comes for them;
 *   FENCE  said once no bit is left and everything batched was taken;
 *   DRAIN  until every put was reaped. Then the round is over, so that no put of one round can be in
 *          flight in the next.
 *
 * Within a pass positions only grow, so what the pass itself sent can never be met again in it: only
 * puts and zero runs of earlier passes are looked up. Pages that are out of the bits are in exactly
 * one place: the current run, the batch, in flight, or a zero message that is not said (one-sided: not
 * acknowledged). give_back() puts the bits of all of these back, after any failure and in
 * gw_sender_free(): so the bits always cover what is not known to have gone (rule 7). */
#include "ram/send.h"

#include "core/base/alloc.h"
#include "core/base/bitmap.h"
#include "core/base/bytes.h"
#include "ram/scan.h"
#include "ram/zero.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>

#define BATCH_RUNS_MAX 512u
#define BATCH_BYTES (4u << 20)    /* as much as one frame may well carry */
#define STEP_BYTES (8u << 20)     /* looked at in one step: about a millisecond */
#define STEP_STRIPES 2048u        /* visited in one step: 2 MiB of clean bits */
#define CREDIT_BYTES (256u << 10) /* asked of the budget at a time, so as to ask seldom */
#define ZERO_MESSAGES 16u         /* not yet acknowledged, on one-sided wires */
#define REAP_MAX 64u

enum phase { IDLE, HOLES, PAGES, FENCE, DRAIN };

/* What take_piece() and the flushes return besides GW_SEND_* and errors. */
#define ALL_SAID ((int)GW_SEND_BUSY)

struct flying { /* a run the sink has taken */
    struct gw_run run;
    uint32_t pass;
    bool used;
};

struct zero_message {
    uint32_t number; /* 0: not said yet */
    uint32_t pass;   /* in which its runs were found: all in the same */
    unsigned count;
    struct gw_zero_run run[GW_ZERO_RUNS_MAX];
};

struct gw_sender {
    struct gw_sender_config config;
    int failed; /* final */
    enum phase phase;
    uint32_t number; /* of the round's fence */

    uint32_t pass;     /* counts up for ever */
    uint64_t position; /* of the pass: what is behind it was dealt with */
    uint64_t stripe_index;
    bool stripe_is_open;
    struct gw_scan scan;
    struct gw_stripe hole_stripe;
    uint64_t hole_at;
    uint64_t waiting_pages;  /* of this pass, in chunks that are not ready */
    uint64_t deferred_pages; /* of this pass, by rules 3 and 4 */
    bool pass_sent_something;
    bool waits_for_chunks; /* the last pass left nothing but such, at chunks' generation: */
    uint32_t generation;

    struct gw_run current; /* pages == 0: none */
    uint32_t alike_pages;  /* of current, known to be alike; 0: not looked at */
    bool alike_zero;

    uint32_t run_pages_max;
    unsigned batch_max;
    unsigned batch_count;
    unsigned batch_taken;
    uint64_t batch_bytes;
    struct gw_run *batch;

    uint32_t window;
    struct flying *flying; /* by tag */
    uint32_t *free_tags;   /* a stack */
    uint32_t free_count;
    uint32_t flying_earlier; /* in flight since an earlier pass */

    unsigned zero_room;  /* of messages: 1, or ZERO_MESSAGES on a one-sided wire */
    unsigned zero_first; /* oldest that is not acknowledged */
    unsigned zero_said;  /* from zero_first on; the one after it is being filled */
    uint32_t zero_number;
    uint32_t zero_acked;
    struct zero_message *zero;

    uint64_t credit; /* granted, not used */
    struct gw_sender_stats stats;
    _Atomic uint64_t normal_pages; /* stats as others may see them; relaxed: each for itself */
    _Atomic uint64_t duplicate_pages;
    _Atomic uint64_t bytes;
    _Atomic uint64_t zero_messages;
};

/* ---- life ------------------------------------------------------------------------------------ */

struct gw_sender *gw_sender_new(const struct gw_sender_config *config, struct gw_error *err)
{
    struct gw_sender *s = gw_zalloc(1, sizeof(*s));
    if (!s) {
        gw_fail(err, -ENOMEM, "sender %u", config->owner);
        return NULL;
    }
    const struct gw_sink *sink = config->sink;
    s->config = *config;
    s->run_pages_max = sink->run_bytes_max / GW_PAGE_BYTES;
    s->window = sink->window;
    gw_assert(s->run_pages_max && s->window);
    s->batch_max = sink->run_count_max ? (unsigned)gw_min_u64(sink->run_count_max, BATCH_RUNS_MAX)
                                       : BATCH_RUNS_MAX;
    s->zero_room = sink->one_sided ? ZERO_MESSAGES : 1;
    s->batch = gw_zalloc(s->batch_max, sizeof(*s->batch));
    s->flying = gw_zalloc(s->window, sizeof(*s->flying));
    s->free_tags = gw_zalloc(s->window, sizeof(*s->free_tags));
    s->zero = gw_zalloc(s->zero_room, sizeof(*s->zero));
    if (!s->batch || !s->flying || !s->free_tags || !s->zero) {
        gw_fail(err, -ENOMEM, "sender %u: window of %" PRIu32 " runs", config->owner, s->window);
        gw_sender_free(s);
        return NULL;
    }
    for (uint32_t i = 0; i < s->window; i++)
        s->free_tags[i] = s->window - 1 - i;
    s->free_count = s->window;
    return s;
}

static void set_bits(struct gw_block *block, uint64_t first_page, uint64_t pages)
{
    gw_bitmap_set_range(block->dirty, first_page, pages);
}

static struct zero_message *zero_at(struct gw_sender *s, unsigned nth)
{
    return &s->zero[(s->zero_first + nth) % s->zero_room];
}

/* The message being filled, NULL while all are unacknowledged. */
static struct zero_message *zero_open(struct gw_sender *s)
{
    return s->zero_said < s->zero_room ? zero_at(s, s->zero_said) : NULL;
}

/* Rule 7: whatever is not known to have gone is dirty again. */
static void give_back(struct gw_sender *s)
{
    if (s->current.pages)
        set_bits(s->current.block, s->current.first_page, s->current.pages);
    s->current.pages = 0;
    for (unsigned i = s->batch_taken; i < s->batch_count; i++)
        set_bits(s->batch[i].block, s->batch[i].first_page, s->batch[i].pages);
    s->batch_taken = s->batch_count = 0;
    for (uint32_t i = 0; i < s->window && s->free_count < s->window; i++) {
        if (s->flying[i].used)
            set_bits(s->flying[i].run.block, s->flying[i].run.first_page, s->flying[i].run.pages);
    }
    for (unsigned m = 0; m < s->zero_room && m <= s->zero_said; m++) {
        const struct zero_message *message = zero_at(s, m);
        for (unsigned i = 0; i < message->count; i++)
            set_bits(gw_ram_block(s->config.ram, message->run[i].block), message->run[i].first_page,
                     message->run[i].pages);
    }
}

void gw_sender_free(struct gw_sender *s)
{
    if (!s)
        return;
    if (s->batch && s->flying && s->free_tags && s->zero)
        give_back(s);
    gw_free(s->batch);
    gw_free(s->flying);
    gw_free(s->free_tags);
    gw_free(s->zero);
    gw_free(s);
}

void gw_sender_begin(struct gw_sender *s, uint32_t number, bool holes)
{
    gw_assert(s->phase == IDLE && s->free_count == s->window && !s->current.pages);
    s->number = number;
    s->phase = holes ? HOLES : PAGES;
    s->stripe_index = 0;
    s->stripe_is_open = false;
    s->waits_for_chunks = false;
    s->pass++;
    s->position = 0;
    s->pass_sent_something = false;
    s->waiting_pages = 0;
    s->deferred_pages = 0;
    gw_chunks_scan_begin(s->config.chunks, s->config.owner);
}

/* ---- what is under way ----------------------------------------------------------------------- */

/* Completions: a put that failed sets its bits again before anyone hears of it. */
static int reap(struct gw_sender *s, unsigned *reaped)
{
    struct gw_run runs[REAP_MAX];
    struct gw_sink *sink = s->config.sink;
    int failed = 0;
    for (;;) {
        int status = 0;
        int count = sink->ops->reap(sink, runs, &status, REAP_MAX);
        if (count <= 0)
            return failed ? failed : count;
        for (int i = 0; i < count; i++) {
            struct flying *flying = &s->flying[runs[i].tag];
            gw_assert(runs[i].tag < s->window && flying->used);
            if (status < 0)
                set_bits(runs[i].block, runs[i].first_page, runs[i].pages);
            if (flying->pass != s->pass)
                s->flying_earlier--;
            flying->used = false;
            s->free_tags[s->free_count++] = runs[i].tag;
        }
        if (status < 0)
            failed = status;
        *reaped += (unsigned)count;
    }
}

/* How many of the pages from @first on are free of [busy, busy_end): all, those before, or none; then
 * *busy_pages says how many are not. */
static void cut(uint64_t first, uint64_t busy, uint64_t busy_end, uint64_t *free_pages,
                uint64_t *busy_pages)
{
    if (busy_end <= first || busy >= first + *free_pages)
        return;
    if (busy > first) {
        *free_pages = busy - first;
        return;
    }
    *free_pages = 0;
    *busy_pages = gw_max_u64(*busy_pages, busy_end - first);
}

/* Rule 4: what is in flight since an earlier pass. */
static void cut_flying(const struct gw_sender *s, uint64_t *free_pages, uint64_t *busy_pages)
{
    const struct gw_run *run = &s->current;
    for (uint32_t i = 0; i < s->window && s->flying_earlier; i++) {
        const struct flying *other = &s->flying[i];
        if (other->used && other->pass != s->pass && other->run.block == run->block)
            cut(run->first_page, other->run.first_page, other->run.first_page + other->run.pages,
                free_pages, busy_pages);
        if (!*free_pages)
            return;
    }
}

/* The first of @message's runs (in scan order) that ends behind page @page of @block. */
static unsigned zero_search(const struct zero_message *message, uint32_t block, uint64_t page)
{
    unsigned low = 0;
    unsigned high = message->count;
    while (low < high) {
        unsigned middle = low + (high - low) / 2;
        const struct gw_zero_run *run = &message->run[middle];
        if (run->block < block || (run->block == block && run->first_page + run->pages <= page))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Rule 3: zero runs of earlier passes that are not acknowledged. */
static void cut_zeroed(struct gw_sender *s, uint64_t *free_pages, uint64_t *busy_pages)
{
    const struct gw_run *run = &s->current;
    for (unsigned m = 0; m < s->zero_said && *free_pages; m++) {
        const struct zero_message *message = zero_at(s, m);
        if (message->pass == s->pass)
            continue;
        unsigned i = zero_search(message, run->block->id, run->first_page);
        if (i < message->count && message->run[i].block == run->block->id)
            cut(run->first_page, message->run[i].first_page,
                message->run[i].first_page + message->run[i].pages, free_pages, busy_pages);
    }
}

/* ---- saying it ------------------------------------------------------------------------------- */

static void note_flying(struct gw_sender *s, const struct gw_run *run)
{
    struct flying *flying = &s->flying[run->tag];
    gw_assert(!flying->used);
    *flying = (struct flying){.run = *run, .pass = s->pass, .used = true};
    s->stats.normal_pages += run->pages;
    s->stats.bytes += (uint64_t)run->pages * GW_PAGE_BYTES;
}

/* Hand the batch to the sink. ALL_SAID, GW_SEND_BLOCKED or an error. */
static int flush_pages(struct gw_sender *s)
{
    struct gw_sink *sink = s->config.sink;
    while (s->batch_taken < s->batch_count) {
        unsigned count = s->batch_count - s->batch_taken;
        struct gw_run *runs = s->batch + s->batch_taken;
        if (count > s->free_count)
            count = s->free_count;
        for (unsigned i = 0; i < count; i++)
            runs[i].tag = s->free_tags[s->free_count - 1 - i];
        int taken = count ? sink->ops->pages(sink, runs, count) : 0;
        if (taken < 0)
            return taken;
        for (int i = 0; i < taken; i++)
            note_flying(s, &runs[i]);
        s->free_count -= (unsigned)taken;
        s->batch_taken += (unsigned)taken;
        s->pass_sent_something |= taken > 0;
        if (!taken) {
            unsigned reaped = 0;
            int rc = reap(s, &reaped);
            if (rc < 0)
                return rc;
            if (!reaped)
                return GW_SEND_BLOCKED;
        }
    }
    s->batch_count = s->batch_taken = 0;
    s->batch_bytes = 0;
    return ALL_SAID;
}

static int say_zero(struct gw_sender *s, struct zero_message *message)
{
    struct gw_sink *sink = s->config.sink;
    int rc = sink->ops->zero(sink, message->run, message->count);
    if (rc == -EAGAIN)
        return GW_SEND_BLOCKED;
    if (rc < 0)
        return rc;
    message->number = ++s->zero_number;
    s->stats.zero_messages++;
    s->pass_sent_something = true;
    if (sink->one_sided) {
        s->zero_said++;
        message = zero_open(s);
    }
    if (message)
        message->count = 0;
    return ALL_SAID;
}

/* Say the zero runs found so far. */
static int flush_zero(struct gw_sender *s)
{
    struct zero_message *message = zero_open(s);
    return message && message->count ? say_zero(s, message) : ALL_SAID;
}

int64_t gw_sender_mark(struct gw_sender *s)
{
    struct zero_message *message = zero_open(s);
    gw_assert(s->config.sink->one_sided);
    if (s->failed || !message)
        return s->failed;
    int rc = say_zero(s, message);
    if (rc == ALL_SAID)
        return s->zero_number;
    return rc < 0 ? rc : 0;
}

bool gw_sender_mark_is_passed(const struct gw_sender *s, uint32_t number)
{
    return (int32_t)(s->zero_acked - number) >= 0;
}

void gw_sender_zero_acked(struct gw_sender *s, uint32_t number)
{
    /* Serial arithmetic: numbers may wrap in a long migration. */
    if ((int32_t)(s->zero_number - number) < 0)
        return; /* it was never said */
    if ((int32_t)(number - s->zero_acked) > 0)
        s->zero_acked = number;
    while (s->zero_said && (int32_t)(number - zero_at(s, 0)->number) >= 0) {
        bool was_full = s->zero_said == s->zero_room;
        if (was_full)
            zero_at(s, 0)->count = 0; /* it is the one to be filled now */
        s->zero_first = (s->zero_first + 1) % s->zero_room;
        s->zero_said--;
    }
}

/* Pages [first_page, + pages) of @block are zero: into the open message. */
static int add_zero(struct gw_sender *s, const struct gw_block *block, uint64_t first_page,
                    uint64_t pages)
{
    struct zero_message *message = zero_open(s);
    if (message && message->count == GW_ZERO_RUNS_MAX) {
        int rc = flush_zero(s);
        if (rc != ALL_SAID)
            return rc;
        message = zero_open(s);
    }
    if (!message)
        return GW_SEND_BLOCKED; /* until one is acknowledged */
    s->stats.duplicate_pages += pages;
    message->pass = s->pass;
    struct gw_zero_run *last = message->count ? &message->run[message->count - 1] : NULL;
    uint64_t stripe_pages = gw_ram_stripe_pages(s->config.ram);
    if (last && last->block == block->id && last->first_page + last->pages == first_page &&
        first_page % stripe_pages) {
        last->pages += pages;
        return ALL_SAID;
    }
    message->run[message->count++] = (struct gw_zero_run){
        .block = block->id,
        .first_page = first_page,
        .pages = pages,
    };
    return ALL_SAID;
}

/* How many of @pages the budget lets go now. */
static uint64_t spend(struct gw_sender *s, uint64_t pages)
{
    const struct gw_sender_config *config = &s->config;
    if (!config->budget)
        return pages;
    uint64_t bytes = pages * GW_PAGE_BYTES;
    if (s->credit < bytes)
        s->credit +=
            config->budget(config->budget_ctx, gw_max_u64(bytes, CREDIT_BYTES) - s->credit);
    uint64_t granted = gw_min_u64(s->credit, bytes) / GW_PAGE_BYTES;
    s->credit -= granted * GW_PAGE_BYTES;
    return granted;
}

static void refund(struct gw_sender *s)
{
    if (s->credit && s->config.refund)
        s->config.refund(s->config.budget_ctx, s->credit);
    s->credit = 0;
}

/* ---- one run --------------------------------------------------------------------------------- */

static uint64_t position_of(uint32_t block, uint64_t page)
{
    return (uint64_t)block << 40 | page;
}

static void drop_current(struct gw_sender *s, uint64_t pages)
{
    /* Positions only grow within a pass: with the look at earlier ones, that is rules 3 and 4. */
    uint64_t first = position_of(s->current.block->id, s->current.first_page);
    gw_assert(first >= s->position);
    s->position = first + pages;
    s->current.first_page += pages;
    s->current.pages -= (uint32_t)pages;
    s->alike_pages -= (uint32_t)pages;
}

static void defer(struct gw_sender *s, uint64_t pages)
{
    set_bits(s->current.block, s->current.first_page, pages);
    s->deferred_pages += pages;
    drop_current(s, pages);
}

static int take_data(struct gw_sender *s, uint64_t pages)
{
    if (s->batch_count == s->batch_max || s->batch_bytes >= BATCH_BYTES) {
        int rc = flush_pages(s);
        if (rc != ALL_SAID)
            return rc;
    }
    pages = spend(s, pages);
    if (!pages) {
        int rc = flush_pages(s);
        return rc == ALL_SAID ? (int)GW_SEND_BUDGET : rc;
    }
    struct gw_run *run = &s->batch[s->batch_count++];
    *run = s->current;
    run->pages = (uint32_t)pages;
    run->rmr = gw_chunk_rmr(s->config.chunks, run->block, run->first_page, &run->mr, &run->base);
    s->batch_bytes += pages * GW_PAGE_BYTES;
    drop_current(s, pages);
    return ALL_SAID;
}

/* The first piece of the current run. */
static int take_piece(struct gw_sender *s)
{
    struct gw_run *run = &s->current;
    if (!s->alike_pages) {
        const char *host = run->block->desc.host;
        s->alike_pages =
            gw_zero_alike(host + run->first_page * GW_PAGE_BYTES, run->pages, &s->alike_zero);
    }
    uint64_t free_pages = s->alike_pages;
    uint64_t busy_pages = 0;
    cut_flying(s, &free_pages, &busy_pages);
    if (!s->alike_zero)
        cut_zeroed(s, &free_pages, &busy_pages);
    if (!free_pages) {
        defer(s, gw_min_u64(busy_pages, s->alike_pages));
        return ALL_SAID;
    }
    if (!s->alike_zero)
        return take_data(s, free_pages);
    int rc = add_zero(s, run->block, run->first_page, free_pages);
    if (rc == ALL_SAID)
        drop_current(s, free_pages);
    return rc;
}

/* ---- phases ---------------------------------------------------------------------------------- */

/* The next stripe of the owner, false after the last. */
static bool open_stripe(struct gw_sender *s, struct gw_stripe *stripe)
{
    if (!gw_ram_stripe(s->config.ram, s->config.owner, s->stripe_index, stripe))
        return false;
    gw_assert(gw_ram_owner(s->config.ram, stripe->block, stripe->first_page) == s->config.owner);
    s->stripe_index++;
    s->stripe_is_open = true;
    return true;
}

static int say_holes_of_stripe(struct gw_sender *s)
{
    struct gw_block *block = gw_ram_block(s->config.ram, s->hole_stripe.block);
    uint64_t end = s->hole_stripe.first_page + s->hole_stripe.pages;
    if (block->fresh) {
        uint64_t set =
            gw_bitmap_count(block->dirty, s->hole_stripe.first_page, s->hole_stripe.pages);
        s->stats.duplicate_pages += s->hole_stripe.pages - set;
        s->hole_at = end;
    }
    while (s->hole_at < end) {
        uint64_t first = gw_bitmap_next_clear(block->dirty, s->hole_at, end);
        uint64_t next = gw_bitmap_next_set(block->dirty, first, end);
        if (next > first) {
            int rc = add_zero(s, block, first, next - first);
            if (rc != ALL_SAID)
                return rc;
        }
        s->hole_at = next;
    }
    s->stripe_is_open = false;
    return ALL_SAID;
}

/* No bit was taken since the sources were started: a clear one is a page that was never touched. */
static int say_holes(struct gw_sender *s)
{
    for (unsigned visited = 0; visited < STEP_STRIPES; visited++) {
        if (!s->stripe_is_open) {
            if (!open_stripe(s, &s->hole_stripe)) {
                int rc = flush_zero(s);
                if (rc != ALL_SAID)
                    return rc;
                s->phase = PAGES;
                s->stripe_index = 0;
                s->pass++;
                return GW_SEND_BUSY;
            }
            s->hole_at = s->hole_stripe.first_page;
        }
        int rc = say_holes_of_stripe(s);
        if (rc != ALL_SAID)
            return rc;
    }
    return GW_SEND_BUSY;
}

static void begin_pass(struct gw_sender *s)
{
    s->pass++;
    s->position = 0;
    s->flying_earlier = s->window - s->free_count;
    s->stripe_index = 0;
    s->waiting_pages = 0;
    s->deferred_pages = 0;
    s->pass_sent_something = false;
}

/* Everything was looked at once: said in full, then either the fence or another pass. */
static int end_pass(struct gw_sender *s)
{
    int rc = flush_pages(s);
    if (rc == ALL_SAID)
        rc = flush_zero(s);
    if (rc != ALL_SAID)
        return rc;
    gw_chunks_scan_at(s->config.chunks, s->config.owner, s->generation, UINT32_MAX);
    if (!s->waiting_pages && !s->deferred_pages) {
        s->phase = FENCE;
        return GW_SEND_BUSY;
    }
    bool progress = s->pass_sent_something;
    bool deferred = s->deferred_pages;
    s->waits_for_chunks = !progress && !deferred;
    if (s->waits_for_chunks && gw_chunks_generation(s->config.chunks) == s->generation)
        gw_chunks_scan_waits(s->config.chunks, s->config.owner);
    begin_pass(s);
    if (progress)
        return GW_SEND_BUSY;
    return deferred ? GW_SEND_BLOCKED : GW_SEND_CHUNKS;
}

/* Make `current` the next run of this pass; false at its end, *stripes counts down to nothing. */
static bool next_run(struct gw_sender *s, unsigned *stripes)
{
    while (*stripes) {
        if (!s->stripe_is_open) {
            struct gw_stripe stripe;
            if (!open_stripe(s, &stripe))
                return false;
            gw_scan_begin(&s->scan, s->config.ram, s->config.chunks, &stripe);
        }
        if (gw_scan_next(&s->scan, s->run_pages_max, &s->current)) {
            s->alike_pages = 0;
            return true;
        }
        s->stripe_is_open = false;
        s->waiting_pages += s->scan.waiting_pages;
        gw_chunks_scan_at(s->config.chunks, s->config.owner, s->generation,
                          s->scan.block->stripe_first +
                              (s->scan.end - 1) / gw_ram_stripe_pages(s->config.ram) + 1);
        --*stripes;
    }
    return false;
}

static int send_pages(struct gw_sender *s)
{
    uint32_t generation = gw_chunks_generation(s->config.chunks);
    if (s->waits_for_chunks && generation == s->generation)
        return GW_SEND_CHUNKS;
    if (!s->stripe_is_open && !s->stripe_index) { /* what becomes ready now is for the next pass */
        s->generation = generation;
        gw_chunks_scan_at(s->config.chunks, s->config.owner, generation, 0);
    }
    s->waits_for_chunks = false;

    uint64_t bytes = 0;
    unsigned stripes = STEP_STRIPES;
    while (bytes < STEP_BYTES) {
        if (!s->current.pages && !next_run(s, &stripes)) {
            if (!stripes)
                return GW_SEND_BUSY;
            return end_pass(s);
        }
        uint32_t before = s->current.pages;
        int rc = take_piece(s);
        if (rc != ALL_SAID)
            return rc;
        bytes += (uint64_t)(before - s->current.pages) * GW_PAGE_BYTES;
    }
    return GW_SEND_BUSY;
}

static int say_fence(struct gw_sender *s)
{
    gw_assert(!s->batch_count && !s->current.pages);
    int rc = s->config.sink->ops->fence(s->config.sink, s->number);
    if (rc == -EAGAIN)
        return GW_SEND_BLOCKED;
    if (rc < 0)
        return rc;
    s->phase = DRAIN;
    return GW_SEND_BUSY;
}

static int drain(struct gw_sender *s)
{
    if (s->free_count < s->window)
        return GW_SEND_BLOCKED;
    gw_chunks_scan_end(s->config.chunks, s->config.owner);
    s->phase = IDLE;
    return GW_SEND_IDLE;
}

static int advance(struct gw_sender *s)
{
    switch (s->phase) {
    case IDLE:
        return GW_SEND_IDLE;
    case HOLES:
        return say_holes(s);
    case PAGES:
        return send_pages(s);
    case FENCE:
        return say_fence(s);
    default:
        return drain(s);
    }
}

static void publish(struct gw_sender *s)
{
    atomic_store_explicit(&s->normal_pages, s->stats.normal_pages, memory_order_relaxed);
    atomic_store_explicit(&s->duplicate_pages, s->stats.duplicate_pages, memory_order_relaxed);
    atomic_store_explicit(&s->bytes, s->stats.bytes, memory_order_relaxed);
    atomic_store_explicit(&s->zero_messages, s->stats.zero_messages, memory_order_relaxed);
}

int gw_sender_step(struct gw_sender *s, uint64_t now_ns)
{
    (void)now_ns;
    if (s->failed)
        return s->failed;
    unsigned reaped = 0;
    int state = reap(s, &reaped);
    if (state >= 0)
        state = advance(s);
    if (state < 0) {
        s->failed = state;
        give_back(s);
    }
    refund(s);
    publish(s);
    return state;
}

/* ---- questions ------------------------------------------------------------------------------- */

static bool run_is_in(const struct gw_run *run, const struct gw_wish *range)
{
    uint64_t first = range->offset / GW_PAGE_BYTES;
    uint64_t end = (range->offset + range->bytes) / GW_PAGE_BYTES;
    return run->pages && run->block->id == range->block && run->first_page < end &&
           run->first_page + run->pages > first;
}

bool gw_sender_holds(const struct gw_sender *s, const struct gw_wish *range)
{
    if (run_is_in(&s->current, range))
        return true;
    for (unsigned i = s->batch_taken; i < s->batch_count; i++) {
        if (run_is_in(&s->batch[i], range))
            return true;
    }
    for (uint32_t i = 0; i < s->window && s->free_count < s->window; i++) {
        if (s->flying[i].used && run_is_in(&s->flying[i].run, range))
            return true;
    }
    return false;
}

uint64_t gw_sender_remaining(const struct gw_sender *s)
{
    uint64_t pages = 0;
    struct gw_stripe stripe;
    for (uint64_t i = 0; gw_ram_stripe(s->config.ram, s->config.owner, i, &stripe); i++) {
        const struct gw_block *block = gw_ram_block(s->config.ram, stripe.block);
        pages += gw_bitmap_count(block->dirty, stripe.first_page, stripe.pages);
    }
    if (s->failed)
        return pages; /* what was under way has its bits again */
    pages += s->current.pages;
    for (unsigned i = s->batch_taken; i < s->batch_count; i++)
        pages += s->batch[i].pages;
    return pages;
}

void gw_sender_stats(const struct gw_sender *s, struct gw_sender_stats *stats)
{
    stats->normal_pages = atomic_load_explicit(&s->normal_pages, memory_order_relaxed);
    stats->duplicate_pages = atomic_load_explicit(&s->duplicate_pages, memory_order_relaxed);
    stats->bytes = atomic_load_explicit(&s->bytes, memory_order_relaxed);
    stats->zero_messages = atomic_load_explicit(&s->zero_messages, memory_order_relaxed);
}
