// SPDX-License-Identifier: MIT
/* Migrations by the hundred in one process, of a tiny guest: what one of them left behind, three
 * hundred show. Every tenth is cancelled and every tenth is cut, for what a failure leaves behind. By
 * default 300; GODWIT_TEST_MANY says how many. */
#include "core/base/alloc.h"
#include "tests/shim/gw_test.h"
#include "tests/support/pair.h"
#include "tests/support/thread_count.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define MANY 60u
#define SANITIZED 1
#else
#define MANY 300u
#define SANITIZED 0
#endif
#define WARM_UP 20u /* until arenas, stacks and tables are as large as they get */
#define RAM_BYTES (UINT64_C(256) << 10)
#define SECONDS 60u

enum kind { COMPLETES, IS_CANCELLED, IS_CUT };

struct usage {
    unsigned fds, threads;
    int64_t allocations;
    uint64_t rss_bytes;
};

static unsigned count_entries(const char *path)
{
    DIR *dir = opendir(path);
    unsigned count = 0;
    GW_ASSERT(dir != NULL);
    while (readdir(dir))
        count++;
    closedir(dir);
    return count;
}

/* @threads: how many there should be by now. */
static struct usage usage_with(unsigned threads)
{
    unsigned long pages = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    GW_ASSERT(file != NULL);
    GW_ASSERT_EQ(fscanf(file, "%*u %lu", &pages), 1);
    fclose(file);
    return (struct usage){.fds = count_entries("/proc/self/fd"),
                          .threads = threads_left(threads),
                          .allocations = gw_alloc_live(),
                          .rss_bytes = pages * (uint64_t)sysconf(_SC_PAGESIZE)};
}

static void print_usage(const char *when, unsigned count, const struct usage *usage)
{
    fprintf(stderr, "  %s %u: %u fds, %u threads, %" PRId64 " allocations, %" PRIu64 " KiB\n", when,
            count, usage->fds, usage->threads, usage->allocations, usage->rss_bytes / 1024);
}

static void set(struct gw_params *params, const char *name, const char *value)
{
    GW_ASSERT_EQ(gw_params_set(params, name, value, NULL), 0);
}

static int cancel_it(struct pair *pair)
{
    GW_EXPECT_EQ(gw_source_cancel(pair->src), 0);
    return 0;
}

static void expect_here(struct pair *pair, int rc)
{
    if (rc)
        GW_EXPECT_EQ(pair->source_rc, rc);
    GW_EXPECT_LT(pair->source_rc, 0);
    GW_EXPECT_LT(pair->target_rc, 0);
    GW_EXPECT(pair->source_runs);
    GW_EXPECT_EQ(pair->runs, 0);
}

static void migrate(const char *listen_uri, enum kind kind)
{
    static const char cut[] = "?do=cut,ep=control,head=0030,at=message:3"; /* STREAM */
    struct pair pair = {.device_value = 7, .writes = true, .listen_uri = listen_uri};
    struct gw_error err = GW_ERROR_INIT;
    char uri[256];
    pair.params = pair_params();
    pair.target_params = pair_params();
    set(pair.params, "x-settle-timeout", "100"); /* a target whose source is gone listens so long */
    set(pair.params, "x-hold-timeout", "100");
    set(pair.target_params, "x-settle-timeout", "100");
    set(pair.target_params, "x-hold-timeout", "100");
    pair.pause = kind == IS_CANCELLED ? cancel_it : NULL;
    pair_add_block(&pair, "ram0", RAM_BYTES, GW_BLOCK_ANON, 70);
    pair_init(&pair);
    pair_listen(&pair);
    snprintf(uri, sizeof(uri), "%s%s%s", kind == IS_CUT ? "fault+" : "", gw_target_uri(pair.tgt),
             kind == IS_CUT ? cut : "");
    if (gw_source_start(pair.src, uri, &err) < 0)
        GW_FAIL("start: %s", err.message);
    GW_EXPECT(pair_finish(&pair, SECONDS));
    if (kind == COMPLETES) {
        GW_EXPECT_EQ(pair.source_rc, 0);
        GW_EXPECT_EQ(pair.target_rc, 0);
        GW_EXPECT_STREQ(pair.source_err.message, "");
        GW_EXPECT_EQ(pair_differs(&pair), -1);
    } else {
        expect_here(&pair, kind == IS_CANCELLED ? -ECANCELED : 0);
    }
    GW_EXPECT_EQ(pair.two_runners, 0);
    pair_fini(&pair);
    gw_params_free(pair.params);
    gw_params_free(pair.target_params);
}

static unsigned many(void)
{
    const char *text = getenv("GODWIT_TEST_MANY");
    long count = text ? strtol(text, NULL, 10) : 0;
    return count > 0 ? (unsigned)count : MANY;
}

/* One in two by tcp, the other by a unix socket; of each ten one is cancelled and one is cut. */
static void migrate_nth(unsigned nth, const char *unix_uri)
{
    enum kind kind = nth % 10 == 3 ? IS_CANCELLED : nth % 10 == 6 ? IS_CUT : COMPLETES;
    migrate(nth / 10 % 2 ? unix_uri : "tcp:127.0.0.1:0", kind);
}

GW_TEST(many, migrations_leave_nothing_behind)
{
    char folder[] = "/tmp/godwit-test-XXXXXX", unix_uri[64];
    unsigned count = many();
    mallopt(M_ARENA_MAX, 1); /* which threads share an arena is chance, and so is what it keeps */
    GW_ASSERT(mkdtemp(folder) != NULL);
    snprintf(unix_uri, sizeof(unix_uri), "unix:%s/s", folder);
    for (unsigned i = 0; i < WARM_UP; i++)
        migrate_nth(i, unix_uri);
    malloc_trim(0);
    struct usage before = usage_with(UINT_MAX);
    print_usage("before", count, &before);
    for (unsigned i = 0; i < count && !gw_test_has_failed(); i++)
        migrate_nth(i, unix_uri);
    malloc_trim(0);
    struct usage after = usage_with(before.threads);
    print_usage("after", count, &after);
    GW_EXPECT_EQ(after.fds, before.fds);
    GW_EXPECT_LE(after.threads, before.threads);
    GW_EXPECT_EQ(after.allocations, before.allocations);
    /* Less than 512 bytes each: a page, a stack or a guest that stays would be more. A sanitizer
     * keeps what was freed. */
    if (!SANITIZED)
        GW_EXPECT_LE(after.rss_bytes, before.rss_bytes + (UINT64_C(512) << 10) + 512 * count);
    rmdir(folder);
}
