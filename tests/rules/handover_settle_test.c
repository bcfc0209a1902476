// SPDX-License-Identifier: MIT
/* The handover, exactly once, where an end or the link between them is gone at the worst moment
 * (docs/protocol.md section 5): a target that holds, claim and resolve, ASK and its answers, outcomes
 * that stay unknown until somebody says. */
#include "tests/rules/stage.h"
#include "tests/shim/gw_test.h"
#include "tests/support/loopback.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define LONG "60000" /* the operator, or the source, comes in time */

/* ---- the source is gone between PREPARED and COMMIT: the target holds ------------------------- */

GW_TEST(handover, source_gone_before_commit_is_held_and_then_voided)
{
    struct stage *stage = stage_hold("600");
    stage_wait_target(stage);
    GW_EXPECT_GE(stage_clock_ms() - stage->before_strike_ms, 600);
    GW_EXPECT_LT(stage->pair.target_rc, 0);
    GW_EXPECT_EQ(stage->pair.target_err.code, GW_CODE_PEER_LOST);
    GW_EXPECT_EQ(gw_target_outcome(stage->pair.tgt), GW_TARGET_VOID);
    expect_guest(stage, NOWHERE);
    stage_free(stage);
}

GW_TEST(handover, claim_stops_the_hold_timer_and_run_runs_here)
{
    struct stage *stage = stage_hold("3000");
    GW_EXPECT_EQ(gw_target_claim(stage->pair.tgt), 0);
    stage_nap(3300); /* beyond the hold time-out */
    pair_pump(&stage->pair, 1);
    GW_EXPECT_EQ(gw_target_outcome(stage->pair.tgt), GW_TARGET_NONE);
    GW_EXPECT_EQ(gw_target_resolve(stage->pair.tgt, GW_RESOLVE_RUN, NULL), 0);
    stage_wait_target(stage);
    GW_EXPECT_EQ(stage->pair.acquires, 1);
    expect_arrived(stage);
    GW_EXPECT_EQ(gw_target_claim(stage->pair.tgt), -EALREADY);
    stage_free(stage);
}

GW_TEST(handover, claim_and_discard_voids)
{
    struct stage *stage = stage_hold(LONG);
    GW_EXPECT_EQ(gw_target_claim(stage->pair.tgt), 0);
    GW_EXPECT_EQ(gw_target_resolve(stage->pair.tgt, GW_RESOLVE_DISCARD, NULL), 0);
    GW_EXPECT_EQ(gw_target_outcome(stage->pair.tgt), GW_TARGET_VOID);
    stage_wait_target(stage);
    GW_EXPECT_LT(stage->pair.target_rc, 0);
    GW_EXPECT_EQ(stage->pair.acquires, 0);
    expect_guest(stage, NOWHERE);
    stage_free(stage);
}

GW_TEST(handover, run_whose_acquire_fails_goes_on_holding)
{
    struct stage *stage = stage_hold(LONG);
    struct gw_error err = GW_ERROR_INIT;
    atomic_store(&stage->acquire_rc, -EBUSY);
    GW_EXPECT_EQ(gw_target_claim(stage->pair.tgt), 0);
    for (int i = 0; i < 2; i++) {
        GW_EXPECT_EQ(gw_target_resolve(stage->pair.tgt, GW_RESOLVE_RUN, &err), -EBUSY);
        GW_EXPECT_STREQ(err.message, "the disk lock is held elsewhere");
        GW_EXPECT_EQ(gw_target_outcome(stage->pair.tgt), GW_TARGET_NONE);
        expect_guest(stage, NOWHERE);
    }
    atomic_store(&stage->acquire_rc, 0);
    GW_EXPECT_EQ(gw_target_resolve(stage->pair.tgt, GW_RESOLVE_RUN, &err), 0);
    stage_wait_target(stage);
    GW_EXPECT_EQ(stage->pair.acquires, 3);
    expect_arrived(stage);
    stage_free(stage);
}

GW_TEST(handover, what_is_claimed_does_not_listen)
{
    /* The source is not dead here: it comes back, and must not be heard. */
    struct stage *stage = stage_new();
    stage_set(stage->source_params, "x-settle-timeout", "500");
    stage_open(stage);
    unsigned rule = proxy_on(stage->proxy, PROXY_TO_TARGET, GW_MSG_COMMIT, 1, PROXY_CUT);
    proxy_refuse_after(stage->proxy, rule);
    stage_go(stage);
    until_struck(stage, rule);
    GW_EXPECT(pair_until(&stage->pair, is_holding, SECONDS));
    GW_EXPECT_EQ(gw_target_claim(stage->pair.tgt), 0);
    proxy_refuse(stage->proxy, false);
    GW_EXPECT(pair_until(&stage->pair, is_unknown, SECONDS));
    expect_guest(stage, NOWHERE);
    GW_EXPECT_EQ(gw_target_outcome(stage->pair.tgt), GW_TARGET_NONE);
    GW_EXPECT_EQ(gw_target_resolve(stage->pair.tgt, GW_RESOLVE_DISCARD, NULL), 0);
    GW_EXPECT(pair_finish(&stage->pair, SECONDS));
    GW_EXPECT(pair_until(&stage->pair, source_runs_again, SECONDS));
    expect_guest(stage, AT_SOURCE);
    stage_free(stage);
}

GW_TEST(handover, there_is_nothing_to_claim_or_resolve_before_prepared)
{
    struct stage *stage = stage_new();
    struct gw_error err = GW_ERROR_INIT;
    stage_open(stage);
    GW_EXPECT_EQ(gw_target_claim(stage->pair.tgt), -EINVAL);
    GW_EXPECT_EQ(gw_target_resolve(stage->pair.tgt, GW_RESOLVE_RUN, &err), -EINVAL);
    unsigned rule = proxy_on(stage->proxy, PROXY_TO_TARGET, GW_MSG_PREPARE, 1, PROXY_HOLD);
    stage_go(stage);
    until_struck(stage, rule);
    GW_EXPECT_EQ(gw_target_claim(stage->pair.tgt), -EINVAL);
    GW_EXPECT_EQ(gw_source_resolve(stage->pair.src, GW_RESOLVE_RESUME, &err), -EINVAL);
    GW_EXPECT_EQ(gw_source_resolve(stage->pair.src, GW_RESOLVE_ABANDON, &err), -EINVAL);
    proxy_release(stage->proxy, rule);
    GW_EXPECT(pair_finish(&stage->pair, SECONDS));
    GW_EXPECT_EQ(stage->pair.source_rc, 0);
    expect_arrived(stage);
    stage_free(stage);
}

/* ---- link lost after COMMIT, nobody dies: ASK settles it -------------------------------------- */

static struct stage *lose(enum proxy_way way, enum gw_message_type type, enum proxy_act act,
                          int acquire_rc)
{
    struct stage *stage = stage_new();
    atomic_store(&stage->acquire_rc, acquire_rc);
    stage_open(stage);
    unsigned rule = proxy_on(stage->proxy, way, type, 1, act);
    stage_go(stage);
    until_struck(stage, rule);
    GW_EXPECT(pair_finish(&stage->pair, SECONDS));
    GW_EXPECT_GE(proxy_passed(stage->proxy, PROXY_TO_TARGET, GW_MSG_ASK), 1);
    GW_EXPECT_EQ(proxy_connections(stage->proxy), 2);
    GW_EXPECT_LE(proxy_passed(stage->proxy, PROXY_TO_TARGET, GW_MSG_COMMIT), 1);
    return stage;
}

static void expect_given_back(struct stage *stage, enum gw_target_outcome outcome,
                              enum gw_code code)
{
    GW_EXPECT_EQ(gw_target_outcome(stage->pair.tgt), outcome);
    GW_EXPECT_LT(stage->pair.source_rc, 0);
    GW_EXPECT_EQ(stage->pair.source_err.code, code);
    GW_EXPECT_LT(stage->pair.target_rc, 0);
    GW_EXPECT_EQ(stage->pair.retakes, 1);
    GW_EXPECT_EQ(stage->pair.resumes, 1);
    GW_EXPECT_EQ(stage->pair.runs, 0);
    expect_guest(stage, AT_SOURCE);
}

GW_TEST(handover, link_lost_after_commit_is_settled_by_ask_as_running)
{
    struct stage *stage = lose(PROXY_TO_TARGET, GW_MSG_COMMIT, PROXY_CUT_AFTER, 0);
    GW_EXPECT_EQ(stage->pair.source_rc, 0);
    GW_EXPECT_EQ(stage->pair.retakes + stage->pair.resumes, 0);
    expect_arrived(stage);
    stage_free(stage);
}

GW_TEST(handover, running_lost_is_asked_for_again)
{
    struct stage *stage = lose(PROXY_TO_SOURCE, GW_MSG_OUTCOME, PROXY_CUT, 0);
    GW_EXPECT_EQ(stage->pair.source_rc, 0);
    GW_EXPECT_EQ(stage->pair.acquires, 1);
    expect_arrived(stage);
    stage_free(stage);
}

GW_TEST(handover, declined_lost_is_asked_for_again)
{
    struct stage *stage = lose(PROXY_TO_SOURCE, GW_MSG_OUTCOME, PROXY_CUT, -EBUSY);
    GW_EXPECT_EQ(stage->pair.acquires, 1);
    expect_given_back(stage, GW_TARGET_DECLINED, GW_CODE_DECLINED);
    stage_free(stage);
}

GW_TEST(handover, link_lost_after_commit_is_settled_by_ask_as_declined)
{
    struct stage *stage = lose(PROXY_TO_TARGET, GW_MSG_COMMIT, PROXY_CUT_AFTER, -EBUSY);
    expect_given_back(stage, GW_TARGET_DECLINED, GW_CODE_DECLINED);
    stage_free(stage);
}

GW_TEST(handover, commit_never_read_is_settled_by_ask_as_void)
{
    struct stage *stage = lose(PROXY_TO_TARGET, GW_MSG_COMMIT, PROXY_CUT, 0);
    expect_given_back(stage, GW_TARGET_VOID, GW_CODE_VOID);
    GW_EXPECT_EQ(stage->pair.acquires, 0);
    atomic_store(&stage->source_events[GW_EVENT_ENDED], 0);
    expect_retry_succeeds(stage);
    stage_free(stage);
}

GW_TEST(handover, commit_in_a_socket_while_the_source_reconnects_is_never_read)
{
    struct stage *stage = stage_new();
    stage_open(stage);
    unsigned rule = proxy_on(stage->proxy, PROXY_TO_TARGET, GW_MSG_COMMIT, 1, PROXY_PART);
    stage_go(stage);
    until_struck(stage, rule);
    GW_EXPECT(pair_until(&stage->pair, source_runs_again, SECONDS));
    GW_EXPECT_EQ(gw_target_outcome(stage->pair.tgt), GW_TARGET_VOID);
    GW_EXPECT_EQ(stage->target_events[GW_EVENT_HOLDING], 0);
    proxy_release(stage->proxy, rule); /* now it comes, to whoever still reads there */
    GW_EXPECT(pair_finish(&stage->pair, SECONDS));
    expect_given_back(stage, GW_TARGET_VOID, GW_CODE_VOID);
    GW_EXPECT_EQ(stage->pair.acquires, 0);
    stage_free(stage);
}

GW_TEST(handover, commit_released_as_the_source_asks_runs_one_of_the_two)
{
    for (unsigned i = 0; i < 6; i++) {
        struct stage *stage = stage_new();
        stage_open(stage);
        unsigned rule = proxy_on(stage->proxy, PROXY_TO_TARGET, GW_MSG_COMMIT, 1, PROXY_PART);
        unsigned ask = proxy_on(stage->proxy, PROXY_TO_TARGET, GW_MSG_ASK, 1, PROXY_HOLD);
        stage_go(stage);
        until_struck(stage, rule);
        until_struck(stage, ask);
        proxy_release(stage->proxy, i % 2 ? rule : ask);
        stage_nap(i / 2);
        proxy_release(stage->proxy, i % 2 ? ask : rule);
        GW_EXPECT(pair_finish(&stage->pair, SECONDS));
        bool arrived = gw_target_outcome(stage->pair.tgt) == GW_TARGET_RUNNING;
        GW_EXPECT_EQ(stage->pair.source_rc == 0, arrived);
        expect_guest(stage, arrived ? AT_TARGET : AT_SOURCE);
        stage_free(stage);
    }
}

/* Takes until the source has asked, and some: no answer may come meanwhile. */
static int acquire_until_asked(struct pair *pair)
{
    struct stage *stage = stage_of(pair);
    uint64_t end = stage_clock_ms() + SECONDS * 1000;
    while (proxy_passed(stage->proxy, PROXY_TO_TARGET, GW_MSG_ASK) == 0 && stage_clock_ms() < end)
        stage_nap(5);
    stage_nap(300);
    GW_EXPECT_EQ(proxy_passed(stage->proxy, PROXY_TO_SOURCE, GW_MSG_OUTCOME), 0);
    GW_EXPECT_EQ(gw_target_outcome(pair->tgt), GW_TARGET_NONE);
    return 0;
}

GW_TEST(handover, commit_that_was_read_counts_though_the_source_asks_while_acquire_runs)
{
    struct stage *stage = stage_new();
    stage->pair.acquire = acquire_until_asked;
    stage_open(stage);
    proxy_on(stage->proxy, PROXY_TO_TARGET, GW_MSG_COMMIT, 1, PROXY_CUT_AFTER);
    stage_go(stage);
    GW_EXPECT(pair_finish(&stage->pair, SECONDS));
    GW_EXPECT_EQ(stage->pair.source_rc, 0);
    GW_EXPECT_EQ(stage->pair.acquires, 1);
    GW_EXPECT_EQ(proxy_connections(stage->proxy), 2);
    expect_arrived(stage);
    stage_free(stage);
}

GW_TEST(handover, a_second_commit_gets_the_outcome_that_is_set)
{
    struct stage *stage = stage_new();
    stage_open(stage);
    unsigned commit = proxy_on(stage->proxy, PROXY_TO_TARGET, GW_MSG_COMMIT, 1, PROXY_AGAIN);
    unsigned outcome = proxy_on(stage->proxy, PROXY_TO_SOURCE, GW_MSG_OUTCOME, 1, PROXY_HOLD);
    stage_go(stage);
    until_struck(stage, outcome);
    expect_guest(stage, AT_TARGET);
    proxy_release(stage->proxy, commit);
    stage_nap(200);
    proxy_release(stage->proxy, outcome);
    until_passed(stage, PROXY_TO_SOURCE, GW_MSG_OUTCOME, 2);
    GW_EXPECT(pair_finish(&stage->pair, SECONDS));
    GW_EXPECT_EQ(stage->pair.source_rc, 0);
    GW_EXPECT_EQ(stage->pair.acquires, 1);
    GW_EXPECT_EQ(stage->pair.runs, 1);
    expect_arrived(stage);
    stage_free(stage);
}

GW_TEST(handover, many_lost_answers_are_asked_for_until_one_arrives)
{
    struct stage *stage = stage_new();
    stage_open(stage);
    for (unsigned i = 0; i < 4; i++)
        proxy_on(stage->proxy, PROXY_TO_SOURCE, GW_MSG_OUTCOME, i + 1, PROXY_CUT);
    stage_go(stage);
    GW_EXPECT(pair_finish(&stage->pair, SECONDS));
    GW_EXPECT_EQ(stage->pair.source_rc, 0);
    GW_EXPECT_EQ(proxy_passed(stage->proxy, PROXY_TO_TARGET, GW_MSG_ASK), 4);
    GW_EXPECT_EQ(stage->pair.acquires, 1);
    expect_arrived(stage);
    stage_free(stage);
}

static uint64_t acquired_ms;

static int acquire_and_note_when(struct pair *pair)
{
    acquired_ms = stage_clock_ms();
    return stage_on_acquire(pair);
}

GW_TEST(handover, the_target_listens_until_ack_or_the_settle_timeout)
{
    struct stage *stage = stage_new();
    stage->pair.acquire = acquire_and_note_when; /* the outcome is set after that */
    stage_set_both(stage, "x-settle-timeout", "700");
    stage_set_both(stage, "x-hold-timeout", "700");
    stage_open(stage);
    unsigned rule = proxy_on(stage->proxy, PROXY_TO_TARGET, GW_MSG_ACK, 1, PROXY_CUT);
    stage_go(stage);
    until_struck(stage, rule);
    GW_EXPECT(pair_finish(&stage->pair, SECONDS));
    GW_EXPECT_GE(stage_clock_ms() - acquired_ms, 700);
    GW_EXPECT_EQ(stage->pair.source_rc, 0);
    expect_arrived(stage);
    stage_free(stage);
}

/* ---- rule 5: before a valid ASK a new connection changes nothing ------------------------------ */

static int stranger(const struct stage *stage, const void *bytes, size_t count)
{
    struct sockaddr_in address = loopback_address(gw_target_uri(stage->pair.tgt));
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    GW_ASSERT(fd >= 0);
    GW_ASSERT_EQ(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    GW_EXPECT_EQ(send(fd, bytes, count, MSG_NOSIGNAL), (ssize_t)count);
    return fd;
}

GW_TEST(handover, a_new_connection_without_a_valid_ask_changes_nothing)
{
    static const char garbage[] = "GET / HTTP/1.1\r\nHost: nobody.example.net\r\n\r\n and more";
    struct stage *stage = stage_new();
    stage_open(stage);
    unsigned rule = proxy_on(stage->proxy, PROXY_TO_TARGET, GW_MSG_COMMIT, 1, PROXY_HOLD);
    stage_go(stage);
    until_struck(stage, rule);
    int fds[3] = {stranger(stage, garbage, sizeof(garbage)), stranger(stage, garbage, 5),
                  stranger(stage, "", 0)};
    stage_nap(200);
    GW_EXPECT_EQ(gw_target_outcome(stage->pair.tgt), GW_TARGET_NONE);
    proxy_release(stage->proxy, rule);
    GW_EXPECT(pair_finish(&stage->pair, SECONDS));
    GW_EXPECT_EQ(stage->pair.source_rc, 0);
    expect_arrived(stage);
    for (unsigned i = 0; i < 3; i++)
        close(fds[i]);
    stage_free(stage);
}

/* ---- unknown ---------------------------------------------------------------------------------- */

static int refuse_block(void *ctx, const struct gw_block_offer *offer, struct gw_block_desc *desc,
                        struct gw_error *err)
{
    (void)ctx;
    (void)offer;
    (void)desc;
    return gw_error_set(err, -EPERM, GW_CODE_BLOCK, "this target waits for nobody");
}

static int never_run(void *ctx, struct gw_error *err)
{
    (void)ctx;
    (void)err;
    GW_NOTE_FAILURE("a target that was just started ran a guest");
    return 0;
}

/* The process is gone; another one listens at the same address and has never heard of the session. */
static void restart_target(struct stage *stage)
{
    static const struct gw_target_ops ops = {
        .struct_bytes = sizeof(ops), .block_offered = refuse_block, .run = never_run};
    struct gw_error err = GW_ERROR_INIT;
    char uri[64];
    snprintf(uri, sizeof(uri), "%s", gw_target_uri(stage->pair.tgt));
    gw_target_free(stage->pair.tgt);
    stage->pair.tgt = NULL;
    struct gw_target_config config = {.struct_bytes = sizeof(config),
                                      .loop = stage->pair.target_loop,
                                      .ops = &ops,
                                      .params = stage->target_params};
    GW_ASSERT_EQ(gw_target_new(&config, &stage->pair.tgt, &err), 0);
    if (gw_target_listen(stage->pair.tgt, uri, &err) < 0)
        GW_FAIL("%s", err.message);
}

static struct stage *unknown_stage(enum proxy_act act)
{
    struct stage *stage = stage_new();
    stage_set(stage->source_params, "x-settle-timeout", "400");
    stage_open(stage);
    unsigned rule = proxy_on(stage->proxy, PROXY_TO_TARGET, GW_MSG_COMMIT, 1, act);
    proxy_refuse_after(stage->proxy, rule);
    stage_go(stage);
    until_struck(stage, rule);
    return stage;
}

static void expect_unknown(struct stage *stage)
{
    struct gw_error err = GW_ERROR_INIT;
    GW_EXPECT(pair_until(&stage->pair, is_unknown, SECONDS));
    GW_EXPECT_EQ(gw_source_wait(stage->pair.src, -1, &err), -EINPROGRESS);
    GW_EXPECT_EQ(err.code, GW_CODE_UNKNOWN);
    GW_EXPECT_STREQ(gw_code_name(err.code), "unknown-outcome");
    GW_EXPECT_EQ(gw_source_cancel(stage->pair.src), -EALREADY);
    GW_EXPECT_EQ(gw_source_start(stage->pair.src, proxy_uri(stage->proxy), &err), -EBUSY);
    GW_EXPECT(!stage->pair.source_runs);
    GW_EXPECT_EQ(stage->pair.resumes + stage->pair.retakes, 0);
}

/* It ended by the operator's word: wait says so, and not that it goes on. */
static void expect_resolved(struct stage *stage, enum place place)
{
    struct gw_error err = GW_ERROR_INIT;
    int rc = gw_source_wait(stage->pair.src, (int)SECONDS * 1000, &err);
    GW_EXPECT_LT(rc, 0);
    GW_EXPECT_NE(rc, -EINPROGRESS);
    GW_EXPECT_EQ(err.code, GW_CODE_UNKNOWN);
    expect_guest(stage, place);
    GW_EXPECT_EQ(gw_source_resolve(stage->pair.src, GW_RESOLVE_RESUME, &err), -EALREADY);
}

GW_TEST(handover, target_restarted_says_unknown_session_and_the_source_stays_paused)
{
    struct stage *stage = unknown_stage(PROXY_CUT);
    restart_target(stage);
    proxy_refuse(stage->proxy, false);
    until_passed(stage, PROXY_TO_SOURCE, GW_MSG_UNKNOWN, 2);
    expect_unknown(stage);
    expect_guest(stage, NOWHERE);
    unsigned asked = proxy_passed(stage->proxy, PROXY_TO_TARGET, GW_MSG_ASK);
    until_passed(stage, PROXY_TO_TARGET, GW_MSG_ASK, asked + 2); /* it asks on */
    expect_guest(stage, NOWHERE);
    GW_EXPECT_EQ(gw_source_resolve(stage->pair.src, GW_RESOLVE_RESUME, NULL), 0);
    GW_EXPECT_EQ(stage->pair.retakes, 1);
    expect_resolved(stage, AT_SOURCE);
    stage_free(stage);
}

GW_TEST(handover, target_dead_after_it_ran_is_unknown_until_abandoned)
{
    struct stage *stage = unknown_stage(PROXY_CUT_AFTER);
    GW_EXPECT(pair_until(&stage->pair, target_runs, SECONDS));
    expect_guest(stage, AT_TARGET);
    gw_target_free(stage->pair.tgt);
    stage->pair.tgt = NULL;
    atomic_store(&stage->pair.target_runs, false); /* it died with its host */
    expect_unknown(stage);
    GW_EXPECT_EQ(gw_source_resolve(stage->pair.src, GW_RESOLVE_ABANDON, NULL), 0);
    expect_resolved(stage, NOWHERE);
    GW_EXPECT_EQ(stage->pair.resumes + stage->pair.retakes, 0);
    stage_free(stage);
}

GW_TEST(handover, unknown_goes_on_asking_and_hears_running)
{
    struct stage *stage = unknown_stage(PROXY_CUT_AFTER);
    expect_unknown(stage);
    proxy_refuse(stage->proxy, false);
    GW_EXPECT(pair_until(&stage->pair, source_ended, SECONDS));
    GW_EXPECT(pair_finish(&stage->pair, SECONDS));
    GW_EXPECT_EQ(stage->pair.source_rc, 0);
    GW_EXPECT_EQ(gw_source_resolve(stage->pair.src, GW_RESOLVE_RESUME, NULL), -EALREADY);
    expect_arrived(stage);
    stage_free(stage);
}

GW_TEST(handover, unknown_goes_on_asking_and_hears_void)
{
    struct stage *stage = unknown_stage(PROXY_CUT);
    expect_unknown(stage);
    proxy_refuse(stage->proxy, false);
    GW_EXPECT(pair_until(&stage->pair, source_ended, SECONDS));
    GW_EXPECT(pair_finish(&stage->pair, SECONDS));
    expect_given_back(stage, GW_TARGET_VOID, GW_CODE_VOID);
    GW_EXPECT_EQ(gw_source_resolve(stage->pair.src, GW_RESOLVE_ABANDON, NULL), -EALREADY);
    stage_free(stage);
}

/* The source asks for the first time when the target has ended with its guest and waits for another. */
static void ask_late(enum proxy_act act)
{
    struct stage *stage = stage_new();
    stage_set_both(stage, "x-settle-timeout", "300");
    stage_set_both(stage, "x-hold-timeout", "300");
    stage_open(stage);
    unsigned rule = proxy_on(stage->proxy, PROXY_TO_TARGET, GW_MSG_COMMIT, 1, act);
    proxy_refuse_after(stage->proxy, rule);
    stage_go(stage);
    until_struck(stage, rule);
    GW_EXPECT(pair_until(&stage->pair, target_ended, SECONDS));
    expect_unknown(stage);
    pair_listen(&stage->pair);
    GW_EXPECT_EQ(gw_target_outcome(stage->pair.tgt), GW_TARGET_NONE);
    proxy_set_target(stage->proxy, gw_target_uri(stage->pair.tgt));
    proxy_refuse(stage->proxy, false);
    GW_EXPECT(pair_until(&stage->pair, source_ended, SECONDS));
    struct gw_error err = GW_ERROR_INIT;
    GW_EXPECT_EQ(gw_source_wait(stage->pair.src, 0, &err), act == PROXY_CUT ? -EIO : 0);
    GW_EXPECT_EQ(proxy_passed(stage->proxy, PROXY_TO_SOURCE, GW_MSG_UNKNOWN), 0);
    /* The target waits on, as if nobody had asked. */
    GW_EXPECT_EQ(gw_target_wait(stage->pair.tgt, 0, NULL), -EINPROGRESS);
    GW_EXPECT_EQ(gw_target_outcome(stage->pair.tgt), GW_TARGET_NONE);
    expect_guest(stage, act == PROXY_CUT ? AT_SOURCE : AT_TARGET);
    if (act == PROXY_CUT) {
        GW_EXPECT_EQ(err.code, GW_CODE_PEER_LOST); /* why the target voided it */
        GW_EXPECT_EQ(gw_target_cancel(stage->pair.tgt), 0);
        GW_EXPECT(pair_finish(&stage->pair, SECONDS));
        expect_retry_succeeds(stage);
    }
    stage_free(stage);
}

GW_TEST(handover, running_is_told_while_the_target_listens_for_another_guest)
{
    ask_late(PROXY_CUT_AFTER);
}

GW_TEST(handover, void_is_told_while_the_target_listens_for_another_guest)
{
    ask_late(PROXY_CUT);
}

GW_TEST(handover, resolve_that_comes_too_late_changes_nothing)
{
    /* The answer is in the source's engine when the operator resolves: retake waits for our loop. */
    static const enum gw_source_resolution wanted[] = {GW_RESOLVE_ABANDON, GW_RESOLVE_RESUME};
    for (unsigned i = 0; i < 2; i++) {
        struct stage *stage = unknown_stage(PROXY_CUT);
        expect_unknown(stage);
        proxy_refuse(stage->proxy, false);
        uint64_t end = stage_clock_ms() + SECONDS * 1000;
        while (proxy_passed(stage->proxy, PROXY_TO_SOURCE, GW_MSG_OUTCOME) == 0 &&
               stage_clock_ms() < end)
            stage_nap(5);
        stage_nap(100);
        int rc = gw_source_resolve(stage->pair.src, wanted[i], NULL);
        GW_EXPECT(rc == -EALREADY || rc == -EINVAL);
        GW_EXPECT(pair_finish(&stage->pair, SECONDS));
        expect_given_back(stage, GW_TARGET_VOID, GW_CODE_VOID);
        stage_free(stage);
    }
}

GW_TEST(handover, free_of_an_unknown_source_leaves_the_guest_paused)
{
    struct stage *stage = unknown_stage(PROXY_CUT_AFTER);
    expect_unknown(stage);
    gw_source_free(stage->pair.src);
    stage->pair.src = NULL;
    GW_EXPECT(pair_until(&stage->pair, target_runs, SECONDS));
    expect_guest(stage, AT_TARGET);
    GW_EXPECT_EQ(stage->pair.resumes, 0);
    stage_free(stage);
}
