// SPDX-License-Identifier: MIT
/* Cancel, from any thread, inside any callback, at either end: before COMMITTED the guest goes on at the
 * source, afterwards it is too late. */
#include "tests/rules/stage.h"
#include "tests/shim/gw_test.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- cancel ----------------------------------------------------------------------------------- */

struct canceller {
    struct gw_source *src;
    unsigned delay_us;
    int rc[2];
};

static void *cancel_twice(void *arg)
{
    struct canceller *canceller = arg;
    if (canceller->delay_us)
        usleep(canceller->delay_us);
    for (unsigned i = 0; i < 2; i++)
        canceller->rc[i] = gw_source_cancel(canceller->src);
    return NULL;
}

static struct canceller cancel_from_another_thread(struct stage *stage)
{
    struct canceller canceller = {.src = stage->pair.src};
    pthread_t thread;
    GW_ASSERT_EQ(pthread_create(&thread, NULL, cancel_twice, &canceller), 0);
    pthread_join(thread, NULL);
    return canceller;
}

static void expect_cancelled(struct stage *stage)
{
    GW_EXPECT_EQ(stage->pair.source_rc, -ECANCELED);
    GW_EXPECT_EQ(stage->pair.source_err.code, GW_CODE_CANCELLED);
    GW_EXPECT_EQ(pair_source_status(&stage->pair), GW_STATUS_CANCELLED);
    GW_EXPECT_EQ(proxy_passed(stage->proxy, PROXY_TO_TARGET, GW_MSG_COMMIT), 0);
    GW_EXPECT_EQ(stage->pair.acquires, 0);
    GW_EXPECT_EQ(stage->pair.retakes, stage->pair.releases);
    expect_guest(stage, AT_SOURCE);
}

/* Where each phase can be held fast: the message that the relay keeps back meanwhile. */
static const char *const cancel_phases[] = {
    "hello_reply", "blocks_ok", "first_joined", "last_fence", "prepare", "prepared", NULL};

static unsigned keep_back(struct stage *stage, const char *phase)
{
    struct proxy *proxy = stage->proxy;
    if (strcmp(phase, "hello_reply") == 0)
        return proxy_on(proxy, PROXY_TO_SOURCE, GW_MSG_HELLO_REPLY, 1, PROXY_HOLD);
    if (strcmp(phase, "blocks_ok") == 0)
        return proxy_on(proxy, PROXY_TO_SOURCE, GW_MSG_BLOCKS_OK, 1, PROXY_HOLD);
    if (strcmp(phase, "first_joined") == 0)
        return proxy_on(proxy, PROXY_TO_SOURCE, GW_MSG_JOINED, 1, PROXY_HOLD);
    if (strcmp(phase, "last_fence") == 0)
        return proxy_on(proxy, PROXY_TO_TARGET, GW_MSG_FENCE, 3, PROXY_HOLD);
    if (strcmp(phase, "prepare") == 0)
        return proxy_on(proxy, PROXY_TO_TARGET, GW_MSG_PREPARE, 1, PROXY_HOLD);
    return proxy_on(proxy, PROXY_TO_SOURCE, GW_MSG_PREPARED, 1, PROXY_HOLD);
}

GW_TEST_EACH(handover, cancel_before_committed_resumes_at_the_source, cancel_phases)
{
    struct stage *stage = stage_new();
    stage_open(stage);
    unsigned rule = keep_back(stage, param);
    GW_EXPECT_EQ(gw_source_cancel(stage->pair.src), -ENOENT);
    stage_go(stage);
    until_struck(stage, rule);
    struct canceller canceller = cancel_from_another_thread(stage);
    GW_EXPECT_EQ(canceller.rc[0], 0);
    GW_EXPECT_EQ(canceller.rc[1], 0);
    stage_nap(50);
    proxy_release(stage->proxy, rule);
    GW_EXPECT(pair_finish(&stage->pair, SECONDS));
    expect_cancelled(stage);
    GW_EXPECT_EQ(gw_target_outcome(stage->pair.tgt), GW_TARGET_VOID);
    GW_EXPECT_EQ(stage->pair.target_rc, -ECANCELED);
    GW_EXPECT_EQ(gw_source_cancel(stage->pair.src), -EALREADY);
    expect_retry_succeeds(stage);
    stage_free(stage);
}

static int cancel_inside(struct pair *pair)
{
    struct canceller canceller = cancel_from_another_thread(stage_of(pair));
    GW_EXPECT_EQ(canceller.rc[0], 0);
    GW_EXPECT_EQ(canceller.rc[1], 0);
    return 0;
}

GW_TEST(handover, cancel_while_pause_runs)
{
    struct stage *stage = stage_new();
    stage->pair.pause = cancel_inside;
    stage_open(stage);
    stage_go(stage);
    GW_EXPECT(pair_finish(&stage->pair, SECONDS));
    expect_cancelled(stage);
    GW_EXPECT_EQ(stage->pair.resumes, 1);
    stage->pair.pause = stage_on_pause;
    expect_retry_succeeds(stage);
    stage_free(stage);
}

GW_TEST(handover, cancel_while_a_device_is_saved)
{
    struct stage *stage = stage_new();
    stage->pair.save = cancel_inside;
    stage_open(stage);
    stage_go(stage);
    GW_EXPECT(pair_finish(&stage->pair, SECONDS));
    expect_cancelled(stage);
    GW_EXPECT_EQ(stage->pair.resumes, 1);
    stage->pair.save = stage_on_save;
    expect_retry_succeeds(stage);
    stage_free(stage);
}

GW_TEST(handover, cancel_while_release_runs_takes_it_back)
{
    struct stage *stage = stage_new();
    stage->pair.release = cancel_inside;
    stage_open(stage);
    stage_go(stage);
    GW_EXPECT(pair_finish(&stage->pair, SECONDS));
    expect_cancelled(stage);
    GW_EXPECT_EQ(stage->pair.retakes, 1);
    GW_EXPECT_EQ(stage->pair.resumes, 1);
    stage->pair.release = stage_on_release;
    expect_retry_succeeds(stage);
    stage_free(stage);
}

static int cancel_inside_is_too_late(struct pair *pair)
{
    struct canceller canceller = cancel_from_another_thread(stage_of(pair));
    GW_EXPECT_EQ(canceller.rc[0], -EALREADY);
    GW_EXPECT_EQ(canceller.rc[1], -EALREADY);
    GW_EXPECT_EQ(gw_target_cancel(pair->tgt), -EALREADY); /* a COMMIT that was read counts */
    return 0;
}

GW_TEST(handover, cancel_after_commit_is_too_late)
{
    struct stage *stage = stage_new();
    stage->pair.acquire = cancel_inside_is_too_late;
    stage->pair.run = cancel_inside_is_too_late;
    stage_open(stage);
    stage_go(stage);
    GW_EXPECT(pair_finish(&stage->pair, SECONDS));
    GW_EXPECT_EQ(stage->pair.source_rc, 0);
    expect_arrived(stage);
    stage_free(stage);
}

GW_TEST(handover, cancel_in_pre_switchover)
{
    struct stage *stage = stage_new();
    stage_set(stage->source_params, "pause-before-switchover", "on");
    stage_open(stage);
    stage_go(stage);
    uint64_t end = stage_clock_ms() + SECONDS * 1000;
    while (pair_source_status(&stage->pair) != GW_STATUS_PRE_SWITCHOVER && stage_clock_ms() < end)
        pair_pump(&stage->pair, 5);
    struct canceller canceller = cancel_from_another_thread(stage);
    GW_EXPECT_EQ(canceller.rc[0], 0);
    GW_EXPECT(pair_finish(&stage->pair, SECONDS));
    expect_cancelled(stage);
    GW_EXPECT_EQ(stage->pair.pauses, 0);
    stage_free(stage);
}

GW_TEST(handover, cancel_racing_with_commit_has_one_winner)
{
    unsigned cancelled = 0;
    unsigned completed = 0;
    uint64_t migration_us = 20000;
    for (unsigned i = 0; i < 24; i++) {
        struct stage *stage = stage_new();
        stage_open(stage);
        uint64_t begun = stage_clock_ms();
        struct canceller canceller = {.src = stage->pair.src,
                                      .delay_us = (unsigned)(migration_us * (i % 8) / 6)};
        pthread_t thread;
        stage_go(stage);
        GW_ASSERT_EQ(pthread_create(&thread, NULL, cancel_twice, &canceller), 0);
        while (pair_source_status(&stage->pair) != GW_STATUS_COMPLETED &&
               !source_runs_again(&stage->pair) &&
               gw_source_wait(stage->pair.src, 0, NULL) == -EINPROGRESS)
            pair_pump(&stage->pair, 1);
        if (pair_source_status(&stage->pair) == GW_STATUS_COMPLETED)
            migration_us = (stage_clock_ms() - begun) * 1000 + 500;
        else
            migration_us += migration_us / 8; /* a busy machine: it may never have come so far */
        pthread_join(thread, NULL);
        if (canceller.rc[0] == 0)
            gw_target_cancel(stage->pair.tgt); /* it may never have heard of a source */
        GW_EXPECT(pair_finish(&stage->pair, SECONDS));
        bool won = canceller.rc[0] == 0;
        cancelled += won;
        completed += !won;
        GW_EXPECT_EQ(canceller.rc[0], won ? 0 : -EALREADY);
        GW_EXPECT(canceller.rc[1] == canceller.rc[0] || canceller.rc[1] == -EALREADY);
        GW_EXPECT_EQ(stage->pair.source_rc, won ? -ECANCELED : 0);
        expect_guest(stage, won ? AT_SOURCE : AT_TARGET);
        stage_free(stage);
    }
    GW_EXPECT_GT(cancelled, 0);
    GW_EXPECT_GT(completed, 0);
}

GW_TEST(handover, cancel_at_the_target_voids_until_commit_was_read)
{
    struct stage *stage = stage_new();
    stage_open(stage);
    unsigned rule = proxy_on(stage->proxy, PROXY_TO_TARGET, GW_MSG_COMMIT, 1, PROXY_HOLD);
    stage_go(stage);
    until_struck(stage, rule);
    GW_EXPECT_EQ(gw_target_cancel(stage->pair.tgt), 0);
    proxy_release(stage->proxy, rule);
    GW_EXPECT(pair_finish(&stage->pair, SECONDS));
    GW_EXPECT_EQ(stage->pair.target_rc, -ECANCELED);
    GW_EXPECT_EQ(gw_target_outcome(stage->pair.tgt), GW_TARGET_VOID);
    GW_EXPECT_LT(stage->pair.source_rc, 0);
    GW_EXPECT_EQ(stage->pair.acquires, 0);
    GW_EXPECT_EQ(stage->pair.retakes, 1);
    expect_guest(stage, AT_SOURCE);
    expect_retry_succeeds(stage);
    stage_free(stage);
}

GW_TEST(handover, cancel_of_what_is_claimed_discards_it)
{
    struct stage *stage = stage_hold("60000");
    GW_EXPECT_EQ(gw_target_claim(stage->pair.tgt), 0);
    GW_EXPECT_EQ(gw_target_cancel(stage->pair.tgt), 0);
    stage_wait_target(stage);
    GW_EXPECT_EQ(stage->pair.target_rc, -ECANCELED);
    GW_EXPECT_EQ(gw_target_outcome(stage->pair.tgt), GW_TARGET_VOID);
    expect_guest(stage, NOWHERE);
    stage_free(stage);
}
