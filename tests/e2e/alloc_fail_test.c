// SPDX-License-Identifier: MIT
/* Memory runs out: the nth allocation of a whole migration fails, for every n, at whichever side makes
 * it. Whatever that does, both sides end, exactly one of them runs the guest, nothing is left open,
 * and the same source and target go on to migrate at once. */
#include "core/base/alloc.h"
#include "tests/shim/gw_test.h"
#include "tests/support/pair.h"
#include "tests/support/thread_count.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <time.h>

/* Events are told by allocations that may fail without harm: so many such in a row may end a
 * migration, and more mean that no allocation was left to fail. */
#define SUCCESSES_IN_A_ROW 24
#define NTH_MAX 4000

static unsigned count_entries(const char *path)
{
    DIR *dir = opendir(path);
    GW_ASSERT(dir != NULL);
    unsigned count = 0;
    while (readdir(dir))
        count++;
    closedir(dir);
    return count;
}

static struct gw_params *short_times(void)
{
    struct gw_params *params = pair_params();
    GW_ASSERT_EQ(gw_params_set(params, "x-settle-timeout", "3000", NULL), 0);
    GW_ASSERT_EQ(gw_params_set(params, "x-hold-timeout", "3000", NULL), 0);
    GW_ASSERT_EQ(gw_params_set(params, "x-device-timeout", "5000", NULL), 0);
    return params;
}

static void expect_one_runner(const struct pair *pair, int64_t nth)
{
    GW_EXPECT_EQ(pair->two_runners, 0);
    if (pair->source_rc == 0) {
        GW_EXPECT_EQ(pair->target_rc, 0);
        GW_EXPECT(pair->target_runs);
        GW_EXPECT(!pair->source_runs);
        GW_EXPECT_EQ(pair_differs(pair), -1);
        GW_EXPECT_EQ(pair->device_loaded, pair->device_value);
    } else {
        GW_EXPECT(pair->source_runs);
        GW_EXPECT_EQ(pair->runs, 0);
        GW_EXPECT_NE(pair->source_err.code, GW_CODE_UNKNOWN);
    }
    if (gw_test_has_failed())
        fprintf(stderr, "allocation %lld: source %d '%s', target %d '%s'\n", (long long)nth,
                pair->source_rc, pair->source_err.message, pair->target_rc,
                pair->target_err.message);
}

static bool source_ended(struct pair *pair)
{
    pair->source_rc = gw_source_wait(pair->src, 0, &pair->source_err);
    return pair->source_rc != -EINPROGRESS;
}

static bool target_ended(struct pair *pair)
{
    pair->target_rc = gw_target_wait(pair->tgt, 0, &pair->target_err);
    return pair->target_rc != -EINPROGRESS;
}

static void migrate(struct pair *pair, int64_t nth)
{
    struct gw_error err = GW_ERROR_INIT;
    gw_alloc_fail_after(nth);
    pair->source_rc = pair->target_rc = -ENOMEM;
    if (gw_target_listen(pair->tgt, "tcp:127.0.0.1:0", &err) < 0)
        goto out;
    if (gw_source_start(pair->src, gw_target_uri(pair->tgt), &err) < 0) {
        gw_target_cancel(pair->tgt);
        gw_target_wait(pair->tgt, 10000, &err);
        goto out;
    }
    pair->source_rc = pair->target_rc = -EINPROGRESS;
    GW_EXPECT(pair_until(pair, source_ended, 20));
    if (pair->source_rc < 0)
        gw_target_cancel(pair->tgt); /* it may never have heard of a source, and waits for one */
    GW_EXPECT(pair_until(pair, target_ended, 20));
out:
    gw_alloc_fail_after(-1);
    expect_one_runner(pair, nth);
}

/* ---- a device whose state does not fit into the wire's buffers, so that messages wait in queues ---- */

#define STATE_BYTES (3u << 20)

static int save_large(void *opaque, struct gw_writer *w, struct gw_error *err)
{
    static uint8_t state[STATE_BYTES];
    (void)opaque, (void)err;
    gw_writer_bytes(w, state, sizeof(state));
    return 0;
}

static int load_large(void *opaque, struct gw_reader *r, uint32_t version_id, struct gw_error *err)
{
    static uint8_t state[STATE_BYTES];
    (void)opaque, (void)version_id, (void)err;
    gw_reader_bytes(r, state, sizeof(state));
    return 0;
}

static void add_large_device(struct pair *pair)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_device_desc device = {
        .struct_bytes = sizeof(device), .name = "large", .save = save_large, .load = load_large};
    GW_ASSERT_EQ(gw_source_add_device(pair->src, &device, &err), 0);
    GW_ASSERT_EQ(gw_target_add_device(pair->tgt, &device, &err), 0);
}

/* Returns whether the migration went through although the @nth allocation failed, or would have. */
static bool fail_nth(int64_t nth)
{
    struct pair pair = {.device_value = 0x1122334455667788, .writes = true};
    pair.params = short_times();
    pair.target_params = short_times();
    pair_add_block(&pair, "ram0", 1u << 20, GW_BLOCK_ANON, 50);
    pair_add_block(&pair, "ram1", 256u << 10, GW_BLOCK_MEMFD, 90);
    pair_init(&pair);
    add_large_device(&pair);
    migrate(&pair, nth);
    bool through = pair.source_rc == 0;
    if (!through && !gw_test_has_failed()) {
        migrate(&pair, -1);
        GW_EXPECT_EQ(pair.source_rc, 0);
    }
    pair_fini(&pair);
    gw_params_free(pair.params);
    gw_params_free(pair.target_params);
    return through;
}

GW_TEST(alloc_fail, whichever_allocation_fails_one_side_runs_and_nothing_leaks)
{
    fail_nth(NTH_MAX); /* what is made once per process is made now */
    int64_t live = gw_alloc_live();
    unsigned fds = count_entries("/proc/self/fd");
    unsigned threads = threads_left(UINT_MAX);
    unsigned in_a_row = 0;
    int64_t nth = 0;
    for (; nth < NTH_MAX && in_a_row < SUCCESSES_IN_A_ROW && !gw_test_has_failed(); nth++) {
        in_a_row = fail_nth(nth) ? in_a_row + 1 : 0;
        GW_EXPECT_EQ(gw_alloc_live(), live);
        GW_EXPECT_EQ(count_entries("/proc/self/fd"), fds);
        GW_EXPECT_LE(threads_left(threads), threads);
    }
    fprintf(stderr, "%lld allocations\n", (long long)nth);
    GW_EXPECT_LT(nth, NTH_MAX);
}

/* ---- before anything runs -------------------------------------------------------------------------- */

static int refuse(void *ctx, const struct gw_block_offer *offer, struct gw_block_desc *desc,
                  struct gw_error *err)
{
    (void)ctx, (void)offer, (void)desc, (void)err;
    return -EINVAL;
}

static int nothing(void *ctx, struct gw_error *err)
{
    (void)ctx, (void)err;
    return 0;
}

static int make_source(struct gw_loop *loop, struct gw_dirty *dirty, struct gw_source **src)
{
    static unsigned char page[4096] __attribute__((aligned(4096)));
    static const struct gw_source_ops ops = {
        .struct_bytes = sizeof(ops), .pause = nothing, .resume = nothing};
    struct gw_error err = GW_ERROR_INIT;
    struct gw_source_config config = {.struct_bytes = sizeof(config), .loop = loop, .ops = &ops};
    int rc = gw_source_new(&config, src, &err);
    for (unsigned i = 0; rc >= 0 && i < 40; i++) {
        char name[16];
        snprintf(name, sizeof(name), "block%u", i);
        struct gw_block_desc desc = {.struct_bytes = sizeof(desc),
                                     .name = name,
                                     .host = page,
                                     .size_bytes = sizeof(page),
                                     .page_bytes = sizeof(page),
                                     .fd = -1};
        struct gw_device_desc device = {
            .struct_bytes = sizeof(device), .name = name, .save = save_large, .load = load_large};
        rc = gw_source_add_block(*src, &desc, &err);
        if (rc >= 0)
            rc = gw_source_add_device(*src, &device, &err);
    }
    if (rc >= 0)
        rc = gw_source_add_dirty(*src, gw_dirty_kernel_ops(dirty), dirty, &err);
    return rc;
}

static int make_all(void)
{
    static const struct gw_target_ops ops = {
        .struct_bytes = sizeof(ops), .block_offered = refuse, .run = nothing};
    struct gw_error err = GW_ERROR_INIT;
    struct gw_loop *loop = NULL;
    struct gw_dirty *dirty = NULL;
    struct gw_source *src = NULL;
    struct gw_target *tgt = NULL;
    int rc = gw_loop_new(&loop, &err);
    if (rc == 0)
        rc = gw_dirty_open(GW_DIRTY_AUTO, NULL, &dirty, &err);
    if (rc == 0)
        rc = make_source(loop, dirty, &src);
    struct gw_target_config config = {.struct_bytes = sizeof(config), .loop = loop, .ops = &ops};
    if (rc >= 0)
        rc = gw_target_new(&config, &tgt, &err);
    if (rc >= 0)
        rc = gw_target_listen(tgt, "tcp:127.0.0.1:0", &err);
    if (rc >= 0)
        rc = gw_source_start(src, gw_target_uri(tgt), &err);
    gw_source_free(src);
    gw_target_free(tgt);
    gw_dirty_close(dirty);
    gw_loop_free(loop);
    return rc;
}

GW_TEST(alloc_fail, what_cannot_be_made_leaves_nothing)
{
    GW_ASSERT_EQ(make_all(), 0);
    int64_t live = gw_alloc_live();
    unsigned fds = count_entries("/proc/self/fd");
    unsigned threads = threads_left(UINT_MAX);
    int64_t nth = 0;
    for (unsigned in_a_row = 0; nth < NTH_MAX && in_a_row < SUCCESSES_IN_A_ROW; nth++) {
        gw_alloc_fail_after(nth);
        in_a_row = make_all() < 0 ? 0 : in_a_row + 1;
        gw_alloc_fail_after(-1);
        GW_EXPECT_EQ(gw_alloc_live(), live);
        GW_EXPECT_EQ(count_entries("/proc/self/fd"), fds);
        GW_EXPECT_LE(threads_left(threads), threads);
    }
    GW_EXPECT_LT(nth, NTH_MAX);
}
