// SPDX-License-Identifier: MIT
/* Whole migrations on a one-sided wire, in memory: loop1 has a NIC's manners (transport/loop/loop.h). Both
 * sides run in this process with real threads, real dirty tracking and a guest that writes. */
#include "core/base/clock.h"
#include "tests/shim/gw_test.h"
#include "tests/support/pair.h"
#include "transport/loop/loop.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#define MIB (UINT64_C(1) << 20)

static struct gw_params *params_of(const char *const *pairs)
{
    struct gw_params *params = pair_params();
    struct gw_error err = GW_ERROR_INIT;
    for (; *pairs; pairs += 2) {
        if (gw_params_set(params, pairs[0], pairs[1], &err) < 0)
            GW_FAIL("%s", err.message);
    }
    return params;
}

/* ---- what is pinned --------------------------------------------------------------------------- */

static struct {
    _Atomic uint64_t peak[2]; /* of the source, the target */
    _Atomic unsigned made;
    _Atomic int fail_at; /* the registration, from 1, that fails; 0: none */
} pinned;

static int charge(int owner, const struct gw_mr_desc *desc, uint64_t registered_bytes)
{
    (void)owner;
    unsigned nth = atomic_fetch_add(&pinned.made, 1) + 1;
    _Atomic uint64_t *peak = &pinned.peak[(desc->access & GW_MR_REMOTE_WRITE) != 0];
    if (registered_bytes > atomic_load(peak))
        atomic_store(peak, registered_bytes);
    return (int)nth == atomic_load(&pinned.fail_at) ? -ENOMEM : 0;
}

static const struct gw_loop_pins pins = {.charge = charge};

static void open_pins(void)
{
    memset(&pinned, 0, sizeof(pinned));
    gw_loop_set_pins(&pins);
}

/* ---- migrations ------------------------------------------------------------------------------- */

static void begin(struct pair *pair, const char *const *source, const char *const *target)
{
    open_pins();
    pair->listen_uri = "loop1:keyed";
    pair->params = params_of(source);
    pair->target_params = params_of(target);
}

static void go(struct pair *pair)
{
    pair_init(pair);
    pair_listen(pair);
    pair_start(pair);
}

static void expect_ended_well(struct pair *pair)
{
    if (!pair_finish(pair, 300))
        GW_FAIL("it goes on: source %s", gw_status_name(pair_source_status(pair)));
    if (pair->source_rc != 0 || pair->target_rc != 0)
        GW_FAIL("source: %s; target: %s", pair->source_err.message, pair->target_err.message);
}

static void expect_moved(struct pair *pair)
{
    expect_ended_well(pair);
    GW_EXPECT_EQ(pair_differs(pair), -1);
    GW_EXPECT_EQ(atomic_load(&pair->two_runners), 0);
}

static struct gw_stats stats_of(const struct gw_source *src)
{
    struct gw_stats stats = {.struct_bytes = sizeof(stats)};
    gw_source_stats(src, &stats);
    return stats;
}

static void end(struct pair *pair)
{
    gw_params_free(pair->params);
    gw_params_free(pair->target_params);
    pair_fini(pair);
    gw_loop_set_pins(NULL);
}

/* A sanitizer slows everything down: nobody dies here, and whoever does not converge moves all the same. */
#define PATIENT "digest", "on", "x-peer-timeout", "30000", "x-stall-action", "switch"

static const char *const plain[] = {PATIENT, "downtime-limit", "50", NULL};

GW_TEST(keyed, a_writing_guest_moves)
{
    struct pair pair = {.writes = true};
    begin(&pair, plain, plain);
    pair_add_block(&pair, "ram0", 96 * MIB, GW_BLOCK_ANON, 50);
    pair_add_block(&pair, "ram1", 5 * MIB + 4096, GW_BLOCK_MEMFD, 90);
    go(&pair);
    expect_moved(&pair);
    struct gw_stats stats = stats_of(pair.src);
    GW_EXPECT_GE(stats.registered_bytes_peak, 96 * MIB);
    GW_EXPECT_EQ(stats.copied_bytes, 0);
    end(&pair);
}

static const char *const small[] = {PATIENT, "downtime-limit", "50", "x-registered-max", "16M",
                                    NULL};

/* Rounds until it has written for a while, then the last. */
static const char *const *const budgets[][2] = {{small, plain}, {plain, small}, {small, small}};

GW_TEST(keyed, a_guest_larger_than_what_may_be_registered_moves)
{
    for (unsigned i = 0; i < 3; i++) {
        struct pair pair = {.writes = true};
        begin(&pair, budgets[i][0], budgets[i][1]);
        pair_add_block(&pair, "ram0", 64 * MIB, GW_BLOCK_ANON, 70);
        go(&pair);
        expect_moved(&pair);
        struct gw_stats stats = stats_of(pair.src);
        GW_EXPECT_GT(stats.dirty_sync_count, 1);
        GW_EXPECT_GE(stats.registered_bytes_peak,
                     atomic_load(&pinned.peak[0])); /* by the posting */
        for (unsigned side = 0; side < 2; side++) {
            if (budgets[i][side] == small)
                GW_EXPECT_LE(atomic_load(&pinned.peak[side]), 16 * MIB);
        }
        end(&pair);
    }
}

GW_TEST(keyed, chunks_of_many_stripes_and_owners_are_made_ready_and_go)
{
    static const char *const many[] = {PATIENT, "downtime-limit",   "50", "x-registered-max",
                                       "24M",   "x-chunk-size",     "8M", "x-stripe-size",
                                       "2M",    "multifd-channels", "3",  NULL};
    struct pair pair = {.writes = true};
    begin(&pair, many, plain);
    pair_add_block(&pair, "ram0", 64 * MIB, GW_BLOCK_ANON, 70);
    pair_add_block(&pair, "ram1", 3 * MIB, GW_BLOCK_MEMFD, 70);
    go(&pair);
    expect_moved(&pair);
    GW_EXPECT_LE(atomic_load(&pinned.peak[0]), 24 * MIB);
    end(&pair);
}

static uint64_t populated(const unsigned char *memory, uint64_t bytes)
{
    static unsigned char map[65536];
    uint64_t count = 0;
    for (uint64_t at = 0; at < bytes; at += sizeof(map) * 4096) {
        uint64_t part = bytes - at < sizeof(map) * 4096 ? bytes - at : sizeof(map) * 4096;
        GW_ASSERT_EQ(mincore((void *)(uintptr_t)(memory + at), part, map), 0);
        for (uint64_t page = 0; page < part / 4096; page++)
            count += map[page] & 1;
    }
    return count;
}

GW_TEST(keyed, what_was_never_touched_is_neither_registered_nor_there_at_the_target)
{
    struct pair pair = {.writes = false};
    begin(&pair, plain, plain);
    pair_add_block(&pair, "ram0", 128 * MIB, GW_BLOCK_MEMFD, 0);
    memset(pair.blocks[0].source + 30 * MIB, 1, 3 * MIB);
    memset(pair.blocks[0].source + 90 * MIB, 1, 4096);
    go(&pair);
    expect_ended_well(&pair); /* comparing reads the holes */
    struct gw_stats stats = stats_of(pair.src);
    GW_EXPECT_LE(stats.registered_bytes_peak, 6 * MIB); /* three chunks of 2 MiB */
    GW_EXPECT_LE(populated(pair.blocks[0].target, 128 * MIB), 6 * MIB / 4096);
    GW_EXPECT_LE(populated(pair.blocks[0].source, 128 * MIB), 6 * MIB / 4096);
    GW_EXPECT_EQ(pair_differs(&pair), -1);
    end(&pair);
}

static unsigned made_before_first_round;

static void note_round(struct pair *pair, const struct gw_event *event)
{
    (void)pair;
    if (event->type == GW_EVENT_STATUS && event->status == GW_STATUS_ACTIVE)
        made_before_first_round = atomic_load(&pinned.made);
}

GW_TEST(keyed, all_is_registered_before_the_first_round_where_that_is_asked_for)
{
    static const char *const all[] = {PATIENT, "rdma-pin-all", "on", NULL};
    struct pair pair = {.writes = true, .source_event = note_round};
    begin(&pair, all, plain);
    pair_add_block(&pair, "ram0", 32 * MIB, GW_BLOCK_ANON, 10);
    pair_add_block(&pair, "ram1", 5 * MIB, GW_BLOCK_MEMFD, 0);
    go(&pair);
    expect_moved(&pair);
    GW_EXPECT_EQ(made_before_first_round, 2 * (16 + 3)); /* both sides' */
    GW_EXPECT_EQ(atomic_load(&pinned.made), made_before_first_round);
    GW_EXPECT_EQ(stats_of(pair.src).registered_bytes_peak, 37 * MIB);
    end(&pair);
}

GW_TEST(keyed, all_does_not_fit_says_what_is_needed)
{
    static const char *const all[] = {"rdma-pin-all", "on", NULL};
    struct pair pair = {.writes = true};
    begin(&pair, all, small);
    pair_add_block(&pair, "ram0", 32 * MIB, GW_BLOCK_ANON, 10);
    go(&pair);
    GW_ASSERT(pair_finish(&pair, 30));
    GW_EXPECT_EQ(pair.source_rc, -ENOMEM);
    GW_EXPECT_EQ(pair.source_err.code, GW_CODE_LIMIT);
    GW_EXPECT(strstr(pair.source_err.message, "33554432 bytes") != NULL);
    GW_EXPECT(strstr(pair.source_err.message, "target allows 16777216") != NULL);
    GW_EXPECT(atomic_load(&pair.source_runs));
    end(&pair);
}

/* Each registration in turn, of either side, fails: the guest runs on, and the retry completes. */
GW_TEST(keyed, a_registration_that_fails_ends_it_with_the_guest_at_the_source)
{
    for (int nth = 1; nth <= 24; nth += 3) {
        struct pair pair = {.writes = true};
        begin(&pair, plain, plain);
        atomic_store(&pinned.fail_at, nth);
        pair_add_block(&pair, "ram0", 24 * MIB, GW_BLOCK_ANON, 60);
        go(&pair);
        GW_ASSERT(pair_finish(&pair, 30));
        GW_EXPECT_LT(pair.source_rc, 0);
        GW_EXPECT_LT(pair.target_rc, 0);
        const struct gw_error *own =
            pair.source_rc == -ENOMEM ? &pair.source_err : &pair.target_err;
        GW_EXPECT_EQ(own->rc, -ENOMEM);
        GW_EXPECT(strstr(own->message, "register") != NULL);
        GW_EXPECT(own->hint[0] != '\0');
        GW_EXPECT(atomic_load(&pair.source_runs));
        GW_EXPECT_EQ(atomic_load(&pair.runs), 0);
        atomic_store(&pinned.fail_at, 0);
        pair_listen(&pair);
        pair_start(&pair);
        expect_moved(&pair);
        end(&pair);
    }
}

/* An idle guest: the registrations marked every page, and none of them goes twice (rule 6). */
/* A second round, however little the first one left. */
static const char *const two_rounds[] = {PATIENT,          "downtime-limit", "0",
                                         "x-stall-action", "switch",         NULL};

static void expect_sent_once(const struct gw_stats *stats, uint64_t bytes)
{
    uint64_t pages = bytes / 4096;
    GW_EXPECT_GE(stats->dirty_sync_count, 1);
    GW_EXPECT_LT(stats->normal_pages + stats->duplicate_pages, pages + pages / 100);
}

static const char *const methods[] = {"pagemap_scan", "uffd_wp", NULL};

GW_TEST_EACH(keyed, the_marks_of_registrations_are_not_sent_again, methods)
{
    struct pair pair = {.writes = false};
    pair.dirty_method = strcmp(param, "uffd_wp") == 0 ? GW_DIRTY_UFFD_WP : GW_DIRTY_PAGEMAP_SCAN;
    begin(&pair, two_rounds, plain);
    pair_add_block(&pair, "ram0", 64 * MIB, GW_BLOCK_ANON, 100);
    go(&pair);
    expect_moved(&pair);
    struct gw_stats stats = stats_of(pair.src);
    expect_sent_once(&stats, 64 * MIB);
    GW_EXPECT_LT(stats.control_messages, 64); /* the handover's and heartbeats, too */
    GW_EXPECT_GE(stats.chunks_needed, 32);
    GW_EXPECT_LE(stats.chunks_ready, stats.chunks_needed);
    end(&pair);
}

/* ---- a dirty source that clears once -------------------------------------------------------------- */

/* As soft-dirty bits are: a pin marks pages, start() clears, and no sync does. */
static struct {
    uint8_t *host;
    uint64_t bits[64 * MIB / 4096 / 64];
    _Atomic unsigned starts, made_before;
} once;

static int once_charge(int owner, const struct gw_mr_desc *desc, uint64_t registered_bytes)
{
    uint64_t first = (uint64_t)((uint8_t *)desc->addr - once.host) / 4096;
    if (!(desc->access & GW_MR_REMOTE_WRITE) && first < 64 * MIB / 4096) {
        for (uint64_t page = first; page < first + desc->bytes / 4096; page += 64)
            __atomic_store_n(&once.bits[page / 64], UINT64_MAX, __ATOMIC_RELAXED);
    }
    return charge(owner, desc, registered_bytes);
}

static int once_start(void *ctx, unsigned block, const struct gw_block_desc *desc,
                      struct gw_error *err)
{
    (void)ctx, (void)block, (void)desc, (void)err;
    atomic_fetch_add(&once.starts, 1);
    atomic_store(&once.made_before, atomic_load(&pinned.made));
    memset(once.bits, 0, sizeof(once.bits));
    return 0;
}

static int once_sync(void *ctx, unsigned block, uint64_t first, uint64_t pages, uint64_t *bitmap,
                     struct gw_error *err)
{
    (void)ctx, (void)block, (void)err;
    for (uint64_t i = 0; i < pages / 64; i++)
        bitmap[i] |= __atomic_load_n(&once.bits[first / 64 + i], __ATOMIC_RELAXED);
    return 0;
}

static const struct gw_dirty_ops once_ops = {.struct_bytes = sizeof(once_ops),
                                             .name = "once",
                                             .flags = GW_DIRTY_CLEARS_ONCE,
                                             .start = once_start,
                                             .sync = once_sync};
static const struct gw_loop_pins once_pins = {.charge = once_charge};

GW_TEST(keyed, a_source_that_clears_once_is_started_when_all_is_registered)
{
    struct pair pair = {.writes = false};
    memset(&once, 0, sizeof(once));
    begin(&pair, two_rounds, plain);
    gw_loop_set_pins(&once_pins);
    pair_add_block(&pair, "ram0", 64 * MIB, GW_BLOCK_ANON, 100);
    once.host = pair.blocks[0].source;
    pair_init(&pair);
    GW_ASSERT_EQ(gw_source_add_dirty(pair.src, &once_ops, NULL, NULL), 0);
    pair_listen(&pair);
    pair_start(&pair);
    expect_moved(&pair);
    struct gw_stats stats = stats_of(pair.src);
    GW_EXPECT_EQ(atomic_load(&once.starts), 1);
    GW_EXPECT_GE(atomic_load(&once.made_before), 32);
    expect_sent_once(&stats, 64 * MIB);
    end(&pair);
}

/* The guest writes what was a hole when the migration began, just before the bits are cleared. */
static int hole_start(void *ctx, unsigned block, const struct gw_block_desc *desc,
                      struct gw_error *err)
{
    memset(once.host + 64 * MIB - 5 * 4096, 0x5a, 4096);
    return once_start(ctx, block, desc, err);
}

static const char *const kinds[] = {"anon", "memfd", NULL};

GW_TEST_EACH(keyed, a_hole_that_is_written_before_a_late_start_arrives, kinds)
{
    struct gw_dirty_ops ops = once_ops;
    struct pair pair = {.no_dirty = true};
    memset(&once, 0, sizeof(once));
    begin(&pair, two_rounds, plain);
    gw_loop_set_pins(&once_pins);
    pair_add_block(&pair, "ram0", 64 * MIB,
                   strcmp(param, "anon") == 0 ? GW_BLOCK_ANON : GW_BLOCK_MEMFD, 0);
    once.host = pair.blocks[0].source;
    memset(once.host, 1, 4096);
    ops.start = hole_start;
    pair_init(&pair);
    GW_ASSERT_EQ(gw_source_add_dirty(pair.src, &ops, NULL, NULL), 0);
    pair_listen(&pair);
    pair_start(&pair);
    expect_moved(&pair);
    end(&pair);
}

/* The kernel's own, where a device does pin. (The rig's kernel is too old for pagemap-scan.) Soft-dirty bits of
 * pinned private pages are not cleared, but where they are huge (Linux 5.12 and later: docs/decisions/0009): the
 * memory is made of small ones here. */
static const char *const over_rdma[] = {"uffd_wp_anon_rdma",     "uffd_wp_memfd_rdma",
                                        "soft_dirty_anon_rdma",  "soft_dirty_memfd_rdma",
                                        "soft_dirty_zeros_rdma", NULL};

/* What was only read, a huge page of zeros where it can be. */
static void add_zeros(struct pair *pair)
{
    pair_add_block(pair, "ram0", 64 * MIB, GW_BLOCK_ANON, 0);
    const volatile unsigned char *host = pair->blocks[0].source;
    for (uint64_t at = 0; at < 64 * MIB; at += 4096)
        GW_EXPECT_EQ(host[at], 0);
}

GW_TEST_EACH(keyed, an_idle_guest_is_not_sent_again, over_rdma)
{
    struct pair pair = {.writes = false};
    const char *address = getenv("RIG_ADDR");
    char uri[80];
    if (!address)
        GW_SKIP("no RDMA device here: scripts/soft-roce runs this where there is one");
    pair.dirty_method = strncmp(param, "uffd", 4) == 0 ? GW_DIRTY_UFFD_WP : GW_DIRTY_SOFT_DIRTY;
    begin(&pair, two_rounds, plain);
    snprintf(uri, sizeof(uri), "rdma:%s:0", address);
    pair.listen_uri = uri;
    if (strstr(param, "zeros")) {
        add_zeros(&pair);
    } else {
        prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
        pair_add_block(&pair, "ram0", 64 * MIB,
                       strstr(param, "anon") ? GW_BLOCK_ANON : GW_BLOCK_MEMFD, 100);
        prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0);
    }
    go(&pair);
    expect_moved(&pair);
    struct gw_stats stats = stats_of(pair.src);
    expect_sent_once(&stats, 64 * MIB);
    end(&pair);
}

static int save_slowly(struct pair *pair)
{
    (void)pair;
    gw_clock_poll(NULL, 0, gw_clock_ns() + 5 * GW_NS_PER_S);
    return 0;
}

/* After their last fence page endpoints are silent, for as long as the devices take. */
GW_TEST(keyed, a_slow_device_makes_no_silent_endpoint_a_dead_one)
{
    static const char *const short_of_time[] = {"digest", "on", "x-peer-timeout", "2500", NULL};
    struct pair pair = {.save = save_slowly};
    begin(&pair, short_of_time, short_of_time);
    pair_add_block(&pair, "ram0", 4 * MIB, GW_BLOCK_ANON, 50);
    go(&pair);
    expect_moved(&pair);
    end(&pair);
}
