// SPDX-License-Identifier: MIT
/* The handover, exactly once (docs/protocol.md section 5): a source and a target in this process, a
 * relay between them that cuts, holds, silences or repeats at a chosen message, and callbacks that
 * fail or take long. Whatever happens, two guests never run, and in the end exactly one does, or the
 * source's stands paused with the outcome reported as unknown. Time-outs are short; what is waited
 * for is an event or a message with a deadline far beyond them. */
#include "tests/shim/gw_test.h"
#include "tests/support/loopback.h"
#include "tests/support/pair.h"
#include "tests/support/proxy.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define RAM_BYTES (UINT64_C(2) << 20)
#define SECONDS 20u

/* ---- the stage -------------------------------------------------------------------------------- */

struct stage {
    struct pair pair; /* first: hooks get it and cast */
    struct gw_params *source_params, *target_params;
    struct proxy *proxy;
    unsigned char *before; /* the source's memory as it was */
    _Atomic unsigned source_events[GW_EVENT_ENDED + 1], target_events[GW_EVENT_ENDED + 1];
    _Atomic bool source_is_dead; /* its host is gone: no callback of it has an effect */
    _Atomic int acquire_rc, release_rc, retake_rc, resume_rc, pause_rc, save_rc, load_rc, run_rc;
    unsigned slow_ms; /* every callback takes that long */
};

static struct stage *stage_of(struct pair *pair)
{
    return (struct stage *)pair;
}

static void nap(unsigned ms)
{
    struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
    nanosleep(&time, NULL);
}

static uint64_t clock_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

#define HOOK(name)                                                                                 \
    static int on_##name(struct pair *pair)                                                        \
    {                                                                                              \
        struct stage *stage = stage_of(pair);                                                      \
        nap(stage->slow_ms);                                                                       \
        return atomic_load(&stage->name##_rc);                                                     \
    }
HOOK(acquire)
HOOK(release)
HOOK(retake)
HOOK(pause)
HOOK(save)
HOOK(load)
HOOK(run)
#undef HOOK

static int on_resume(struct pair *pair)
{
    struct stage *stage = stage_of(pair);
    nap(stage->slow_ms);
    return atomic_load(&stage->source_is_dead) ? -EHOSTDOWN : atomic_load(&stage->resume_rc);
}

static void on_source_event(struct pair *pair, const struct gw_event *event)
{
    atomic_fetch_add(&stage_of(pair)->source_events[event->type], 1);
}

static void on_target_event(struct pair *pair, const struct gw_event *event)
{
    atomic_fetch_add(&stage_of(pair)->target_events[event->type], 1);
}

static void set(struct gw_params *params, const char *name, const char *value)
{
    struct gw_error err = GW_ERROR_INIT;
    if (gw_params_set(params, name, value, &err) < 0)
        GW_FAIL("%s", err.message);
}

static void set_both(struct stage *stage, const char *name, const char *value)
{
    set(stage->source_params, name, value);
    set(stage->target_params, name, value);
}

static struct stage *stage_new(void)
{
    struct stage *stage = calloc(1, sizeof(*stage));
    GW_ASSERT(stage != NULL);
    stage->source_params = gw_params_new();
    stage->target_params = gw_params_new();
    stage->pair.params = stage->source_params;
    stage->pair.target_params = stage->target_params;
    stage->pair.device_value = 0x0123456789abcdefu;
    stage->pair.acquire = on_acquire;
    stage->pair.release = on_release;
    stage->pair.retake = on_retake;
    stage->pair.pause = on_pause;
    stage->pair.resume = on_resume;
    stage->pair.save = on_save;
    stage->pair.load = on_load;
    stage->pair.run = on_run;
    stage->pair.source_event = on_source_event;
    stage->pair.target_event = on_target_event;
    set_both(stage, "x-peer-timeout", "30000"); /* nobody falls silent, unless a test says so */
    set_both(stage, "x-settle-timeout", "3000");
    set_both(stage, "x-hold-timeout", "3000");
    set_both(stage, "x-device-timeout", "10000");
    return stage;
}

/* Both sides, listening, and the relay before the target. */
static void stage_open(struct stage *stage)
{
    pair_add_block(&stage->pair, "ram0", RAM_BYTES, GW_BLOCK_ANON, 70);
    pair_init(&stage->pair);
    pair_listen(&stage->pair);
    stage->proxy = proxy_new(gw_target_uri(stage->pair.tgt));
    stage->before = malloc(RAM_BYTES);
    GW_ASSERT(stage->before != NULL);
    memcpy(stage->before, stage->pair.blocks[0].source, RAM_BYTES);
}

static void stage_go(struct stage *stage)
{
    struct gw_error err = GW_ERROR_INIT;
    if (gw_source_start(stage->pair.src, proxy_uri(stage->proxy), &err) < 0)
        GW_FAIL("start: %s", err.message);
}

static void stage_free(struct stage *stage)
{
    pair_fini(&stage->pair);
    proxy_free(stage->proxy);
    gw_params_free(stage->source_params);
    gw_params_free(stage->target_params);
    free(stage->before);
    free(stage);
}

enum place { AT_SOURCE, AT_TARGET, NOWHERE };

static void expect_guest(const struct stage *stage, enum place place)
{
    GW_EXPECT_EQ(stage->pair.two_runners, 0);
    GW_EXPECT_EQ(stage->pair.source_runs, place == AT_SOURCE);
    GW_EXPECT_EQ(stage->pair.target_runs, place == AT_TARGET);
    GW_EXPECT_LE(stage->pair.runs, 1);
    if (!stage->pair.writes)
        GW_EXPECT_MEMEQ(stage->pair.blocks[0].source, stage->before, RAM_BYTES);
}

static void expect_arrived(struct stage *stage)
{
    expect_guest(stage, AT_TARGET);
    GW_EXPECT_EQ(gw_target_outcome(stage->pair.tgt), GW_TARGET_RUNNING);
    GW_EXPECT_EQ(stage->pair.target_rc, 0);
    GW_EXPECT_EQ(pair_differs(&stage->pair), -1);
    GW_EXPECT_EQ(stage->pair.device_loaded, stage->pair.device_value);
}

/* The same source and the same target, at once, without the relay: nothing may be missing. */
static void expect_retry_succeeds(struct stage *stage)
{
    stage->slow_ms = 0;
    pair_listen(&stage->pair);
    pair_start(&stage->pair);
    GW_EXPECT(pair_finish(&stage->pair, SECONDS));
    GW_EXPECT_EQ(stage->pair.source_rc, 0);
    GW_EXPECT_STREQ(stage->pair.source_err.message, "");
    expect_arrived(stage);
}

/* ---- waiting ---------------------------------------------------------------------------------- */

static bool is_holding(struct pair *pair)
{
    return stage_of(pair)->target_events[GW_EVENT_HOLDING] > 0;
}

static bool is_unknown(struct pair *pair)
{
    return stage_of(pair)->source_events[GW_EVENT_UNKNOWN] > 0;
}

static bool is_stuck(struct pair *pair)
{
    return stage_of(pair)->source_events[GW_EVENT_RETAKE] > 0;
}

static bool has_outcome(struct pair *pair)
{
    return gw_target_outcome(pair->tgt) != GW_TARGET_NONE;
}

static bool source_runs_again(struct pair *pair)
{
    return pair->resumes > 0 && pair->source_runs;
}

static bool source_ended(struct pair *pair)
{
    return stage_of(pair)->source_events[GW_EVENT_ENDED] > 0;
}

static bool target_ended(struct pair *pair)
{
    return stage_of(pair)->target_events[GW_EVENT_ENDED] > 0;
}

static bool target_runs(struct pair *pair)
{
    return pair->target_runs;
}

static void until_struck(struct stage *stage, unsigned rule)
{
    uint64_t end = clock_ms() + SECONDS * 1000;
    while (!proxy_has_struck(stage->proxy, rule)) {
        if (clock_ms() > end)
            GW_FAIL("the message that the relay waits for did not come");
        pair_pump(&stage->pair, 5);
    }
}

static void until_passed(struct stage *stage, enum proxy_way way, enum gw_message_type type,
                         unsigned count)
{
    uint64_t end = clock_ms() + SECONDS * 1000;
    while (proxy_passed(stage->proxy, way, type) < count) {
        if (clock_ms() > end)
            GW_FAIL("the relay did not see %u of message %d", count, type);
        pair_pump(&stage->pair, 5);
    }
}

/* ---- before COMMITTED: the source may back out ------------------------------------------------ */

static const struct {
    const char *name;
    enum proxy_way way;
    enum gw_message_type type;
    unsigned nth;
} losses[] = {
    {"setup_hello", PROXY_TO_TARGET, GW_MSG_HELLO, 1},
    {"setup_hello_reply", PROXY_TO_SOURCE, GW_MSG_HELLO_REPLY, 1},
    {"setup_blocks", PROXY_TO_TARGET, GW_MSG_BLOCKS, 1},
    {"setup_blocks_ok", PROXY_TO_SOURCE, GW_MSG_BLOCKS_OK, 1},
    {"active_fence", PROXY_TO_TARGET, GW_MSG_FENCE, 1},
    {"active_joined", PROXY_TO_SOURCE, GW_MSG_JOINED, 1},
    {"device_last_fence", PROXY_TO_TARGET, GW_MSG_FENCE, 3},
    {"device_ram_end", PROXY_TO_TARGET, GW_MSG_STREAM, 3},
    {"device_state", PROXY_TO_TARGET, GW_MSG_STREAM, 4},
    {"device_prepare", PROXY_TO_TARGET, GW_MSG_PREPARE, 1},
    {"device_prepared_unread", PROXY_TO_SOURCE, GW_MSG_PREPARED, 1},
};

static const char *const *loss_names(void)
{
    enum { COUNT = sizeof(losses) / sizeof(losses[0]) };
    static const char *names[COUNT + 1];
    for (unsigned i = 0; i < COUNT; i++)
        names[i] = losses[i].name;
    return names;
}

static void link_lost_early(const char *name, bool writes)
{
    struct stage *stage = stage_new();
    unsigned i = 0;
    while (strcmp(losses[i].name, name) != 0)
        i++;
    bool is_hello = losses[i].type == GW_MSG_HELLO;
    stage->pair.writes = writes;
    set_both(stage, "x-settle-timeout", "300");
    set_both(stage, "x-hold-timeout", "300");
    stage_open(stage);
    unsigned rule = proxy_on(stage->proxy, losses[i].way, losses[i].type, losses[i].nth, PROXY_CUT);
    proxy_refuse_after(stage->proxy, rule);
    stage_go(stage);
    until_struck(stage, rule);
    GW_EXPECT(pair_until(&stage->pair, source_ended, SECONDS));
    expect_guest(stage, AT_SOURCE);
    if (is_hello) /* to the target it was a stranger */
        GW_EXPECT_EQ(gw_target_cancel(stage->pair.tgt), 0);
    GW_EXPECT(pair_finish(&stage->pair, SECONDS));
    GW_EXPECT_LT(stage->pair.source_rc, 0);
    GW_EXPECT_EQ(stage->pair.source_err.code, GW_CODE_PEER_LOST);
    GW_EXPECT_LT(stage->pair.target_rc, 0);
    GW_EXPECT_EQ(gw_target_outcome(stage->pair.tgt), is_hello ? GW_TARGET_NONE : GW_TARGET_VOID);
    GW_EXPECT_EQ(stage->pair.releases, 0);
    GW_EXPECT_EQ(stage->pair.acquires, 0);
    bool is_prepared = losses[i].type == GW_MSG_PREPARED;
    GW_EXPECT_EQ(stage->target_events[GW_EVENT_HOLDING], is_prepared);
    expect_guest(stage, AT_SOURCE);
    expect_retry_succeeds(stage);
    stage_free(stage);
}

GW_TEST_EACH(handover, link_lost_before_committed_resumes_at_the_source, loss_names)
{
    link_lost_early(param, false);
}

GW_TEST_EACH(handover, a_retry_of_a_writing_guest_loses_no_page, loss_names)
{
    link_lost_early(param, true);
}

GW_TEST(handover, link_lost_while_release_runs_takes_it_back)
{
    struct stage *stage = stage_new();
    set_both(stage, "x-settle-timeout", "300");
    set_both(stage, "x-hold-timeout", "300");
    stage_open(stage);
    unsigned rule = proxy_on(stage->proxy, PROXY_TO_SOURCE, GW_MSG_PREPARED, 1, PROXY_HOLD);
    stage_go(stage);
    until_struck(stage, rule);
    /* release() is on its way to the source's loop, which nobody dispatches now. */
    proxy_release(stage->proxy, rule);
    nap(200);
    proxy_cut(stage->proxy);
    nap(200);
    GW_EXPECT(pair_finish(&stage->pair, SECONDS));
    GW_EXPECT_LT(stage->pair.source_rc, 0);
    GW_EXPECT_EQ(stage->pair.source_err.code, GW_CODE_PEER_LOST);
    GW_EXPECT_EQ(stage->pair.releases, 1);
    GW_EXPECT_EQ(stage->pair.retakes, 1);
    GW_EXPECT_EQ(proxy_passed(stage->proxy, PROXY_TO_TARGET, GW_MSG_COMMIT), 0);
    GW_EXPECT_EQ(gw_target_outcome(stage->pair.tgt), GW_TARGET_VOID);
    expect_guest(stage, AT_SOURCE);
    expect_retry_succeeds(stage);
    stage_free(stage);
}

/* ---- the source is gone between PREPARED and COMMIT: the target holds ------------------------- */

static struct stage *hold(void)
{
    struct stage *stage = stage_new();
    set_both(stage, "x-settle-timeout", "300");
    set_both(stage, "x-hold-timeout", "600");
    stage_open(stage);
    unsigned rule = proxy_on(stage->proxy, PROXY_TO_SOURCE, GW_MSG_PREPARED, 1, PROXY_CUT);
    proxy_refuse_after(stage->proxy, rule);
    atomic_store(&stage->source_is_dead, true);
    stage_go(stage);
    until_struck(stage, rule);
    GW_EXPECT(pair_until(&stage->pair, is_holding, SECONDS));
    GW_EXPECT_EQ(gw_target_outcome(stage->pair.tgt), GW_TARGET_NONE);
    expect_guest(stage, NOWHERE);
    return stage;
}

static void wait_target(struct stage *stage)
{
    GW_EXPECT(pair_until(&stage->pair, target_ended, SECONDS));
    stage->pair.target_rc = gw_target_wait(stage->pair.tgt, 0, &stage->pair.target_err);
}

GW_TEST(handover, source_gone_before_commit_is_held_and_then_voided)
{
    struct stage *stage = hold();
    uint64_t begun = clock_ms();
    wait_target(stage);
    GW_EXPECT_GE(clock_ms() - begun, 500);
    GW_EXPECT_LT(stage->pair.target_rc, 0);
    GW_EXPECT_EQ(stage->pair.target_err.code, GW_CODE_PEER_LOST);
    GW_EXPECT_EQ(gw_target_outcome(stage->pair.tgt), GW_TARGET_VOID);
    expect_guest(stage, NOWHERE);
    stage_free(stage);
}

GW_TEST(handover, claim_stops_the_hold_timer_and_run_runs_here)
{
    struct stage *stage = hold();
    GW_EXPECT_EQ(gw_target_claim(stage->pair.tgt), 0);
    nap(900); /* beyond the hold time-out */
    pair_pump(&stage->pair, 1);
    GW_EXPECT_EQ(gw_target_outcome(stage->pair.tgt), GW_TARGET_NONE);
    GW_EXPECT_EQ(gw_target_resolve(stage->pair.tgt, GW_RESOLVE_RUN, NULL), 0);
    wait_target(stage);
    GW_EXPECT_EQ(stage->pair.acquires, 1);
    expect_arrived(stage);
    GW_EXPECT_EQ(gw_target_claim(stage->pair.tgt), -EALREADY);
    stage_free(stage);
}

GW_TEST(handover, claim_and_discard_voids)
{
    struct stage *stage = hold();
    GW_EXPECT_EQ(gw_target_claim(stage->pair.tgt), 0);
    GW_EXPECT_EQ(gw_target_resolve(stage->pair.tgt, GW_RESOLVE_DISCARD, NULL), 0);
    GW_EXPECT_EQ(gw_target_outcome(stage->pair.tgt), GW_TARGET_VOID);
    wait_target(stage);
    GW_EXPECT_LT(stage->pair.target_rc, 0);
    GW_EXPECT_EQ(stage->pair.acquires, 0);
    expect_guest(stage, NOWHERE);
    stage_free(stage);
}

GW_TEST(handover, run_whose_acquire_fails_goes_on_holding)
{
    struct stage *stage = hold();
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
    wait_target(stage);
    GW_EXPECT_EQ(stage->pair.acquires, 3);
    expect_arrived(stage);
    stage_free(stage);
}

GW_TEST(handover, what_is_claimed_does_not_listen)
{
    /* The source is not dead here: it comes back, and must not be heard. */
    struct stage *stage = stage_new();
    set_both(stage, "x-settle-timeout", "500");
    set_both(stage, "x-hold-timeout", "500");
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
        nap(i / 2);
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
    uint64_t end = clock_ms() + SECONDS * 1000;
    while (proxy_passed(stage->proxy, PROXY_TO_TARGET, GW_MSG_ASK) == 0 && clock_ms() < end)
        nap(5);
    nap(300);
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
    nap(200);
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

GW_TEST(handover, the_target_listens_until_ack_or_the_settle_timeout)
{
    struct stage *stage = stage_new();
    set_both(stage, "x-settle-timeout", "700");
    set_both(stage, "x-hold-timeout", "700");
    stage_open(stage);
    unsigned rule = proxy_on(stage->proxy, PROXY_TO_TARGET, GW_MSG_ACK, 1, PROXY_CUT);
    stage_go(stage);
    GW_EXPECT(pair_until(&stage->pair, has_outcome, SECONDS));
    uint64_t begun = clock_ms();
    until_struck(stage, rule);
    GW_EXPECT(pair_finish(&stage->pair, SECONDS));
    GW_EXPECT_GE(clock_ms() - begun, 600);
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
    nap(200);
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
    set(stage->source_params, "x-settle-timeout", "400");
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
    set_both(stage, "x-settle-timeout", "300");
    set_both(stage, "x-hold-timeout", "300");
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
        uint64_t end = clock_ms() + SECONDS * 1000;
        while (proxy_passed(stage->proxy, PROXY_TO_SOURCE, GW_MSG_OUTCOME) == 0 && clock_ms() < end)
            nap(5);
        nap(100);
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

/* ---- callbacks that fail ---------------------------------------------------------------------- */

static struct stage *run_failing(_Atomic int *(*which)(struct stage *stage))
{
    struct stage *stage = stage_new();
    if (which)
        atomic_store(which(stage), -EIO);
    stage_open(stage);
    stage_go(stage);
    GW_EXPECT(pair_finish(&stage->pair, SECONDS));
    return stage;
}

#define WHICH(name)                                                                                \
    static _Atomic int *the_##name(struct stage *stage)                                            \
    {                                                                                              \
        return &stage->name##_rc;                                                                  \
    }
WHICH(acquire)
WHICH(release)
WHICH(pause)
WHICH(save)
WHICH(load)
WHICH(run)
#undef WHICH

static void expect_failed_at_source(struct stage *stage, enum gw_code code, unsigned resumes,
                                    unsigned retakes)
{
    GW_EXPECT_LT(stage->pair.source_rc, 0);
    GW_EXPECT_EQ(stage->pair.source_err.code, code);
    GW_EXPECT_EQ(pair_source_status(&stage->pair), GW_STATUS_FAILED);
    GW_EXPECT_LT(stage->pair.target_rc, 0);
    GW_EXPECT_EQ(stage->pair.resumes, resumes);
    GW_EXPECT_EQ(stage->pair.retakes, retakes);
    GW_EXPECT_EQ(stage->pair.runs, 0);
    expect_guest(stage, AT_SOURCE);
}

GW_TEST(handover, acquire_that_fails_is_declined_and_the_source_resumes)
{
    struct stage *stage = run_failing(the_acquire);
    expect_failed_at_source(stage, GW_CODE_DECLINED, 1, 1);
    GW_EXPECT_EQ(gw_target_outcome(stage->pair.tgt), GW_TARGET_DECLINED);
    GW_EXPECT_STREQ(stage->pair.source_err.peer, "the disk lock is held elsewhere");
    atomic_store(&stage->acquire_rc, 0);
    expect_retry_succeeds(stage);
    stage_free(stage);
}

GW_TEST(handover, release_that_fails_backs_out)
{
    struct stage *stage = run_failing(the_release);
    expect_failed_at_source(stage, GW_CODE_GUEST, 1, 1);
    GW_EXPECT_STREQ(stage->pair.source_err.message, "release failed as the test wanted");
    GW_EXPECT_STREQ(stage->pair.source_err.phase, "device");
    GW_EXPECT_EQ(gw_target_outcome(stage->pair.tgt), GW_TARGET_VOID);
    GW_EXPECT_EQ(proxy_passed(stage->proxy, PROXY_TO_TARGET, GW_MSG_COMMIT), 0);
    atomic_store(&stage->release_rc, 0);
    expect_retry_succeeds(stage);
    stage_free(stage);
}

GW_TEST(handover, pause_that_fails_leaves_the_guest_running)
{
    struct stage *stage = run_failing(the_pause);
    expect_failed_at_source(stage, GW_CODE_GUEST, 0, 0);
    GW_EXPECT_EQ(gw_target_outcome(stage->pair.tgt), GW_TARGET_VOID);
    atomic_store(&stage->pause_rc, 0);
    expect_retry_succeeds(stage);
    stage_free(stage);
}

GW_TEST(handover, device_save_that_fails_backs_out)
{
    struct stage *stage = run_failing(the_save);
    expect_failed_at_source(stage, GW_CODE_DEVICE, 1, 0);
    atomic_store(&stage->save_rc, 0);
    expect_retry_succeeds(stage);
    stage_free(stage);
}

GW_TEST(handover, device_load_that_fails_voids)
{
    struct stage *stage = run_failing(the_load);
    expect_failed_at_source(stage, GW_CODE_DEVICE, 1, 0);
    GW_EXPECT_EQ(stage->pair.releases, 0);
    GW_EXPECT_EQ(gw_target_outcome(stage->pair.tgt), GW_TARGET_VOID);
    atomic_store(&stage->load_rc, 0);
    expect_retry_succeeds(stage);
    stage_free(stage);
}

GW_TEST(handover, run_that_fails_belongs_to_the_target_all_the_same)
{
    struct stage *stage = run_failing(the_run);
    GW_EXPECT_EQ(stage->pair.source_rc, 0);
    GW_EXPECT_EQ(gw_target_outcome(stage->pair.tgt), GW_TARGET_RUNNING);
    GW_EXPECT_EQ(stage->pair.target_rc, -EIO);
    GW_EXPECT_EQ(stage->pair.target_err.code, GW_CODE_GUEST);
    expect_guest(stage, AT_TARGET);
    stage_free(stage);
}

GW_TEST(handover, retake_that_fails_keeps_the_guest_paused_until_resolved)
{
    struct stage *stage = stage_new();
    struct gw_error err = GW_ERROR_INIT;
    atomic_store(&stage->acquire_rc, -EBUSY);
    atomic_store(&stage->retake_rc, -ENOLCK);
    stage_open(stage);
    stage_go(stage);
    GW_EXPECT(pair_until(&stage->pair, is_stuck, SECONDS));
    GW_EXPECT_EQ(gw_source_wait(stage->pair.src, 0, &err), -ENOLCK);
    GW_EXPECT_EQ(err.code, GW_CODE_RETAKE);
    expect_guest(stage, NOWHERE);
    GW_EXPECT_EQ(gw_source_resolve(stage->pair.src, GW_RESOLVE_ABANDON, &err), -EINVAL);
    GW_EXPECT_EQ(gw_source_resolve(stage->pair.src, GW_RESOLVE_RESUME, &err), -ENOLCK);
    GW_EXPECT_EQ(err.code, GW_CODE_RETAKE);
    expect_guest(stage, NOWHERE);
    atomic_store(&stage->retake_rc, 0);
    GW_EXPECT_EQ(gw_source_resolve(stage->pair.src, GW_RESOLVE_RESUME, &err), 0);
    GW_EXPECT_EQ(stage->pair.retakes, 3);
    GW_EXPECT_EQ(stage->pair.resumes, 1);
    expect_guest(stage, AT_SOURCE);
    GW_EXPECT(pair_finish(&stage->pair, SECONDS));
    GW_EXPECT_EQ(stage->pair.source_err.code, GW_CODE_DECLINED); /* it runs: no longer "retake" */
    atomic_store(&stage->acquire_rc, 0);
    expect_retry_succeeds(stage);
    stage_free(stage);
}

GW_TEST(handover, resume_that_fails_is_tried_again_without_retaking_what_was_not_released)
{
    struct stage *stage = stage_new();
    struct gw_error err = GW_ERROR_INIT;
    atomic_store(&stage->load_rc, -EIO);
    atomic_store(&stage->resume_rc, -EAGAIN);
    stage_open(stage);
    stage_go(stage);
    GW_EXPECT(pair_until(&stage->pair, is_stuck, SECONDS));
    GW_EXPECT_EQ(gw_source_wait(stage->pair.src, 0, &err), -EAGAIN);
    GW_EXPECT_EQ(err.code, GW_CODE_RETAKE);
    GW_EXPECT_EQ(gw_source_cancel(stage->pair.src), -EALREADY);
    expect_guest(stage, NOWHERE);
    GW_EXPECT_EQ(gw_source_resolve(stage->pair.src, GW_RESOLVE_RESUME, &err), -EAGAIN);
    atomic_store(&stage->resume_rc, 0);
    GW_EXPECT_EQ(gw_source_resolve(stage->pair.src, GW_RESOLVE_RESUME, &err), 0);
    GW_EXPECT_EQ(stage->pair.retakes, 0);
    GW_EXPECT_EQ(stage->pair.resumes, 3);
    expect_guest(stage, AT_SOURCE);
    GW_EXPECT(pair_finish(&stage->pair, SECONDS));
    stage_free(stage);
}

/* ---- digests ---------------------------------------------------------------------------------- */

#define SCRIBBLE_AT (4096 * 7 + 200)

struct scribbler {
    unsigned char *alias; /* another mapping of the target's memory */
    unsigned char wrong;
    _Atomic bool wrote, stop;
};

static void *scribble(void *arg)
{
    struct scribbler *scribbler = arg;
    while (!atomic_load(&scribbler->stop)) {
        scribbler->alias[SCRIBBLE_AT] = scribbler->wrong;
        atomic_store(&scribbler->wrote, true);
        sched_yield();
    }
    return NULL;
}

GW_TEST(handover, digests_that_differ_void_at_the_target)
{
    struct stage *stage = stage_new();
    set(stage->source_params, "digest", "on");
    pair_add_block(&stage->pair, "ram0", RAM_BYTES, GW_BLOCK_MEMFD, 100);
    struct pair_block *block = &stage->pair.blocks[0];
    pair_init(&stage->pair);
    pair_listen(&stage->pair);
    stage->proxy = proxy_new(gw_target_uri(stage->pair.tgt));
    stage->before = malloc(RAM_BYTES);
    GW_ASSERT(stage->before != NULL);
    memcpy(stage->before, block->source, RAM_BYTES);
    /* The last fence waits; until it is joined somebody writes what has been placed. */
    unsigned rule = proxy_on(stage->proxy, PROXY_TO_TARGET, GW_MSG_FENCE, 3, PROXY_HOLD);
    stage_go(stage);
    until_struck(stage, rule);
    struct scribbler scribbler = {
        .alias = mmap(NULL, RAM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, block->target_fd, 0),
        .wrong = (unsigned char)~block->source[SCRIBBLE_AT]};
    GW_ASSERT(scribbler.alias != MAP_FAILED);
    pthread_t thread;
    GW_ASSERT_EQ(pthread_create(&thread, NULL, scribble, &scribbler), 0);
    while (!atomic_load(&scribbler.wrote))
        nap(1);
    proxy_release(stage->proxy, rule);
    GW_EXPECT(pair_finish(&stage->pair, SECONDS));
    atomic_store(&scribbler.stop, true);
    pthread_join(thread, NULL);
    munmap(scribbler.alias, RAM_BYTES);
    expect_failed_at_source(stage, GW_CODE_DIGEST, 1, 0);
    GW_EXPECT_EQ(stage->pair.target_err.code, GW_CODE_DIGEST);
    GW_EXPECT_EQ(proxy_passed(stage->proxy, PROXY_TO_SOURCE, GW_MSG_PREPARED), 0);
    GW_EXPECT_EQ(stage->pair.releases, 0);
    expect_retry_succeeds(stage);
    stage_free(stage);
}

GW_TEST(handover, digests_that_agree_complete)
{
    struct stage *stage = stage_new();
    set(stage->source_params, "digest", "on");
    stage_open(stage);
    stage_go(stage);
    GW_EXPECT(pair_finish(&stage->pair, SECONDS));
    GW_EXPECT_EQ(stage->pair.source_rc, 0);
    expect_arrived(stage);
    struct gw_stats source = {.struct_bytes = sizeof(source)};
    struct gw_stats target = {.struct_bytes = sizeof(target)};
    gw_source_stats(stage->pair.src, &source);
    gw_target_stats(stage->pair.tgt, &target);
    GW_EXPECT(source.has_digest && target.has_digest);
    GW_EXPECT_MEMEQ(source.digest, target.digest, sizeof(source.digest));
    stage_free(stage);
}

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
    nap(50);
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
    stage->pair.pause = on_pause;
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
    stage->pair.save = on_save;
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
    stage->pair.release = on_release;
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
    set(stage->source_params, "pause-before-switchover", "on");
    stage_open(stage);
    stage_go(stage);
    uint64_t end = clock_ms() + SECONDS * 1000;
    while (pair_source_status(&stage->pair) != GW_STATUS_PRE_SWITCHOVER && clock_ms() < end)
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
        uint64_t begun = clock_ms();
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
            migration_us = (clock_ms() - begun) * 1000 + 500;
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
    struct stage *stage = hold();
    GW_EXPECT_EQ(gw_target_claim(stage->pair.tgt), 0);
    GW_EXPECT_EQ(gw_target_cancel(stage->pair.tgt), 0);
    wait_target(stage);
    GW_EXPECT_EQ(stage->pair.target_rc, -ECANCELED);
    GW_EXPECT_EQ(gw_target_outcome(stage->pair.tgt), GW_TARGET_VOID);
    expect_guest(stage, NOWHERE);
    stage_free(stage);
}

/* ---- time ------------------------------------------------------------------------------------- */

GW_TEST(handover, slow_callbacks_do_not_kill_the_link)
{
    struct stage *stage = stage_new();
    set_both(stage, "x-peer-timeout", "600");
    set_both(stage, "x-settle-timeout", "400");
    set_both(stage, "x-hold-timeout", "400");
    stage->slow_ms = 900;
    stage_open(stage);
    stage_go(stage);
    GW_EXPECT(pair_finish(&stage->pair, SECONDS));
    GW_EXPECT_EQ(stage->pair.source_rc, 0);
    GW_EXPECT_STREQ(stage->pair.source_err.message, "");
    GW_EXPECT_EQ(stage->target_events[GW_EVENT_HOLDING], 0);
    GW_EXPECT_EQ(stage->source_events[GW_EVENT_UNKNOWN], 0);
    GW_EXPECT_EQ(proxy_connections(stage->proxy), 1);
    expect_arrived(stage);
    stage_free(stage);
}

GW_TEST(handover, the_device_budget_ends_the_wait_for_prepared)
{
    struct stage *stage = stage_new();
    set_both(stage, "x-device-timeout", "1000"); /* what comes before it has as much */
    stage_open(stage);
    unsigned rule = proxy_on(stage->proxy, PROXY_TO_SOURCE, GW_MSG_PREPARED, 1, PROXY_HOLD);
    stage_go(stage);
    until_struck(stage, rule);
    GW_EXPECT(pair_until(&stage->pair, source_ended, SECONDS));
    proxy_release(stage->proxy, rule);
    GW_EXPECT(pair_finish(&stage->pair, SECONDS));
    expect_failed_at_source(stage, GW_CODE_TIMEOUT, 1, 0);
    GW_EXPECT_EQ(gw_target_outcome(stage->pair.tgt), GW_TARGET_VOID);
    stage_free(stage);
}

static void silence(enum proxy_way way, enum gw_message_type type)
{
    struct stage *stage = stage_new();
    set_both(stage, "x-peer-timeout", "1000");
    set_both(stage, "x-settle-timeout", "500");
    set_both(stage, "x-hold-timeout", "500");
    stage_open(stage);
    unsigned rule = proxy_on(stage->proxy, way, type, 1, PROXY_SILENCE);
    stage_go(stage);
    until_struck(stage, rule);
    uint64_t begun = clock_ms();
    GW_EXPECT(pair_until(&stage->pair, source_ended, SECONDS));
    uint64_t took = clock_ms() - begun;
    GW_EXPECT_LT(took, 10000); /* far below what the kernel would wait */
    GW_EXPECT(pair_finish(&stage->pair, SECONDS));
    GW_EXPECT_EQ(stage->pair.source_err.code, GW_CODE_PEER_LOST);
    GW_EXPECT_LT(stage->pair.target_rc, 0);
    expect_guest(stage, AT_SOURCE);
    expect_retry_succeeds(stage);
    stage_free(stage);
}

GW_TEST(handover, silence_while_memory_moves_is_noticed)
{
    silence(PROXY_TO_TARGET, GW_MSG_FENCE);
}

GW_TEST(handover, silence_before_prepared_is_noticed)
{
    silence(PROXY_TO_SOURCE, GW_MSG_PREPARED);
}

GW_TEST(handover, silence_after_commit_ends_the_connection_and_ask_settles_it)
{
    struct stage *stage = stage_new();
    set_both(stage, "x-peer-timeout", "1000");
    stage_open(stage);
    unsigned rule = proxy_on(stage->proxy, PROXY_TO_SOURCE, GW_MSG_OUTCOME, 1, PROXY_SILENCE);
    stage_go(stage);
    until_struck(stage, rule);
    GW_EXPECT(pair_finish(&stage->pair, SECONDS));
    GW_EXPECT_EQ(stage->pair.source_rc, 0);
    GW_EXPECT_EQ(proxy_connections(stage->proxy), 2);
    expect_arrived(stage);
    stage_free(stage);
}

GW_TEST(handover, a_wire_that_crumbles_carries_it_all_the_same)
{
    struct stage *stage = stage_new();
    set(stage->source_params, "digest", "on");
    stage_open(stage);
    proxy_crumble(stage->proxy);
    stage_go(stage);
    GW_EXPECT(pair_finish(&stage->pair, SECONDS));
    GW_EXPECT_EQ(stage->pair.source_rc, 0);
    expect_arrived(stage);
    stage_free(stage);
}
