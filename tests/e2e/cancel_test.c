// SPDX-License-Identifier: MIT
/* Cancelling: by a signal to either side of the real command in every state, and by the API at the
 * target, twice, at both sides at once, and as the migration completes, in both orders. Whoever comes
 * before COMMIT gets the guest back at the source; whoever comes later changes nothing. The same
 * source and target then migrate at once. (tests/rules/handover_test.c cancels at the source.) */
#include "tests/e2e/scene.h"
#include "tests/shim/gw_test.h"
#include "tests/support/pair.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

/* ---- by a signal ------------------------------------------------------------------------------ */

#define PEER_TIMEOUT_MS 30000u /* nobody dies here */
#define SETTLE_MS 1000u

static struct scene scenes[SCENE_STATES];

static bool is_chosen(enum scene_state state)
{
    return !SCENE_SANITIZED || scene_is_full() || state % 2 == 1;
}

#define FOR_EACH_STATE(state)                                                                      \
    for (enum scene_state state = 0; state < SCENE_STATES; state++)                                \
        if (is_chosen(state))

static void judge(struct scene *scene, enum scene_side side)
{
    /* A source decides with its COMPARE-EXCHANGE, a target when it reads COMMIT. */
    bool late = scene->state > SCENE_COMMIT || (scene->state == SCENE_COMMIT && !side);
    bool source = side == SCENE_SOURCE;

    scene_expect_status(scene, SCENE_SOURCE, late ? 0 : source ? 3 : 1);
    scene_expect_status(scene, SCENE_TARGET, late ? 0 : 3);
    scene_expect_guest(scene, SCENE_SOURCE, SCENE_VERIFIED);
    scene_expect_guest(scene, SCENE_TARGET, late ? SCENE_VERIFIED : SCENE_NOT_CHECKED);
    if (late)
        return;
    scene_expect_error(scene, SCENE_SOURCE, source ? "cancelled" : NULL, NULL);
    scene_expect_error(scene, SCENE_TARGET, "cancelled", NULL);
}

static void interrupt(const char *name, enum scene_side side)
{
    FOR_EACH_STATE(state)
    scene_begin(&scenes[state], name, state, PEER_TIMEOUT_MS, SETTLE_MS);
    FOR_EACH_STATE(state)
    scene_reach(&scenes[state]);
    FOR_EACH_STATE(state)
    {
        struct scene_process *process = &scenes[state].side[side];
        kill(process->pid, SIGINT);
        if (side == SCENE_SOURCE && state != SCENE_ACK) /* which may have ended */
            scene_await(process, process->talk,
                        state < SCENE_COMMIT ? "cancelling" : "too late to cancel");
        if (side == SCENE_TARGET && state <= SCENE_COMMIT) /* before COMMIT is let go */
            scene_await(process, process->talk, "cancelling");
    }
    FOR_EACH_STATE(state)
    proxy_release(scenes[state].proxy, scenes[state].rule);
    FOR_EACH_STATE(state)
    judge(&scenes[state], side);
    FOR_EACH_STATE(state)
    scene_end(&scenes[state]);
}

GW_TEST(interrupted, source_in_every_state)
{
    interrupt("source-cancelled", SCENE_SOURCE);
}

GW_TEST(interrupted, target_in_every_state)
{
    interrupt("target-cancelled", SCENE_TARGET);
}

/* ---- by the API ------------------------------------------------------------------------------- */

#define RAM_BYTES (UINT64_C(1) << 20)
#define SECONDS 60u

struct stage {
    struct pair pair; /* first: hooks get it and cast */
    struct gw_params *params[2];
    struct proxy *proxy;
    unsigned rule;
};

static void set(struct gw_params *params, const char *name, const char *value)
{
    GW_ASSERT_EQ(gw_params_set(params, name, value, NULL), 0);
}

static struct stage *stage_new(void)
{
    struct stage *stage = calloc(1, sizeof(*stage));
    GW_ASSERT(stage != NULL);
    for (unsigned i = 0; i < 2; i++) {
        stage->params[i] = pair_params();
        set(stage->params[i], "x-settle-timeout", "2000");
        set(stage->params[i], "x-hold-timeout", "2000");
    }
    stage->pair.params = stage->params[0];
    stage->pair.target_params = stage->params[1];
    stage->pair.device_value = 0x0123456789abcdefu;
    stage->pair.writes = true;
    return stage;
}

static void stage_go(struct stage *stage, enum proxy_way way, enum gw_message_type type,
                     unsigned nth)
{
    struct gw_error err = GW_ERROR_INIT;
    pair_add_block(&stage->pair, "ram0", RAM_BYTES, GW_BLOCK_ANON, 70);
    pair_init(&stage->pair);
    pair_listen(&stage->pair);
    stage->proxy = proxy_new(gw_target_uri(stage->pair.tgt));
    stage->rule = proxy_on(stage->proxy, way, type, nth, PROXY_HOLD);
    if (gw_source_start(stage->pair.src, proxy_uri(stage->proxy), &err) < 0)
        GW_FAIL("start: %s", err.message);
}

static bool is_held(struct pair *pair)
{
    const struct stage *stage = (struct stage *)pair;
    return proxy_has_struck(stage->proxy, stage->rule);
}

static void stage_free(struct stage *stage)
{
    pair_fini(&stage->pair);
    proxy_free(stage->proxy);
    gw_params_free(stage->params[0]);
    gw_params_free(stage->params[1]);
    free(stage);
}

static void expect_arrived(struct pair *pair)
{
    GW_EXPECT(pair_finish(pair, SECONDS));
    GW_EXPECT_EQ(pair->source_rc, 0);
    GW_EXPECT_EQ(pair->target_rc, 0);
    GW_EXPECT_STREQ(pair->source_err.message, "");
    GW_EXPECT_STREQ(pair->target_err.message, "");
    GW_EXPECT(pair->target_runs && !pair->source_runs);
    GW_EXPECT_EQ(pair->runs, 1);
    GW_EXPECT_EQ(pair->two_runners, 0);
    GW_EXPECT_EQ(pair_differs(pair), -1);
    GW_EXPECT_EQ(pair->device_loaded, pair->device_value);
}

static void expect_here_and_retry(struct pair *pair)
{
    GW_EXPECT(pair_finish(pair, SECONDS));
    GW_EXPECT_LT(pair->source_rc, 0);
    GW_EXPECT_LT(pair->target_rc, 0);
    GW_EXPECT(pair->source_runs && !pair->target_runs);
    GW_EXPECT_EQ(pair->runs, 0);
    GW_EXPECT_EQ(gw_target_outcome(pair->tgt), GW_TARGET_VOID);
    pair_listen(pair);
    pair_start(pair);
    expect_arrived(pair);
}

static const struct {
    const char *name;
    enum proxy_way way;
    enum gw_message_type type;
    unsigned nth;
} phases[] = {
    {"hello_reply", PROXY_TO_SOURCE, GW_MSG_HELLO_REPLY, 1},
    {"blocks", PROXY_TO_TARGET, GW_MSG_BLOCKS, 1},
    {"blocks_ok", PROXY_TO_SOURCE, GW_MSG_BLOCKS_OK, 1},
    {"first_joined", PROXY_TO_SOURCE, GW_MSG_JOINED, 1},
    {"ram_end", PROXY_TO_TARGET, GW_MSG_STREAM, 3},
    {"prepare", PROXY_TO_TARGET, GW_MSG_PREPARE, 1},
    {"prepared", PROXY_TO_SOURCE, GW_MSG_PREPARED, 1},
};

static const char *const *phase_names(void)
{
    enum { COUNT = sizeof(phases) / sizeof(phases[0]) };
    static const char *names[COUNT + 1];
    for (unsigned i = 0; i < COUNT; i++)
        names[i] = phases[i].name;
    return names;
}

static struct stage *held_at(const char *name)
{
    struct stage *stage = stage_new();
    unsigned i = 0;
    while (strcmp(phases[i].name, name) != 0)
        i++;
    stage_go(stage, phases[i].way, phases[i].type, phases[i].nth);
    GW_EXPECT(pair_until(&stage->pair, is_held, SECONDS));
    return stage;
}

GW_TEST_EACH(cancel, at_the_target_twice_and_retry, phase_names)
{
    struct stage *stage = held_at(param);
    GW_EXPECT_EQ(gw_target_cancel(stage->pair.tgt), 0);
    int again = gw_target_cancel(stage->pair.tgt);
    GW_EXPECT(again == 0 || again == -EALREADY); /* it may be over by now */
    proxy_release(stage->proxy, stage->rule);
    expect_here_and_retry(&stage->pair);
    stage_free(stage);
}

GW_TEST_EACH(cancel, at_both_sides_and_retry, phase_names)
{
    struct stage *stage = held_at(param);
    GW_EXPECT_EQ(gw_source_cancel(stage->pair.src), 0);
    int at_target = gw_target_cancel(stage->pair.tgt);
    GW_EXPECT(at_target == 0 ||
              at_target == -EALREADY); /* the source's word may be there already */
    GW_EXPECT_NE(gw_source_cancel(stage->pair.src), -ENOENT);
    GW_EXPECT_NE(gw_target_cancel(stage->pair.tgt), -ENOENT);
    proxy_release(stage->proxy, stage->rule);
    expect_here_and_retry(&stage->pair);
    stage_free(stage);
}

static bool target_runs(struct pair *pair)
{
    return pair->target_runs && gw_target_outcome(pair->tgt) == GW_TARGET_RUNNING;
}

/* RUNNING is on its way while both are asked to cancel ... */
GW_TEST(cancel, before_the_outcome_is_read_is_too_late)
{
    struct stage *stage = stage_new();
    stage_go(stage, PROXY_TO_SOURCE, GW_MSG_OUTCOME, 1);
    GW_EXPECT(pair_until(&stage->pair, is_held, SECONDS));
    GW_EXPECT(pair_until(&stage->pair, target_runs, SECONDS));
    for (unsigned i = 0; i < 2; i++) {
        GW_EXPECT_EQ(gw_source_cancel(stage->pair.src), -EALREADY);
        GW_EXPECT_EQ(gw_target_cancel(stage->pair.tgt), -EALREADY);
    }
    proxy_release(stage->proxy, stage->rule);
    expect_arrived(&stage->pair);
    stage_free(stage);
}

static bool source_completed(struct pair *pair)
{
    return pair_source_status(pair) == GW_STATUS_COMPLETED;
}

/* ... and has been read, but the target has not heard of that. */
GW_TEST(cancel, after_the_outcome_is_read_is_too_late)
{
    struct stage *stage = stage_new();
    stage_go(stage, PROXY_TO_TARGET, GW_MSG_ACK, 1);
    GW_EXPECT(pair_until(&stage->pair, is_held, SECONDS));
    GW_EXPECT(pair_until(&stage->pair, source_completed, SECONDS));
    for (unsigned i = 0; i < 2; i++) {
        GW_EXPECT_EQ(gw_source_cancel(stage->pair.src), -EALREADY);
        GW_EXPECT_EQ(gw_target_cancel(stage->pair.tgt), -EALREADY);
    }
    proxy_release(stage->proxy, stage->rule);
    expect_arrived(&stage->pair);
    GW_EXPECT_EQ(gw_source_cancel(stage->pair.src), -EALREADY);
    GW_EXPECT_EQ(gw_target_cancel(stage->pair.tgt), -EALREADY);
    stage_free(stage);
}
