// SPDX-License-Identifier: MIT
/* A host dies, or stands still, in every state of a migration: both sides of the real command, one of
 * them killed or stopped while a relay holds the message that ends the state. Whatever happens, the
 * other side ends as documented with a whole error, and the guest runs on where it must and verifies.
 * All states of a test are open at once, for what they wait for is time.
 *
 * A dead process is noticed by its connections, so where one is killed the peer time-out is a minute,
 * and what is noticed sooner was not noticed by it. A process that stands still is noticed by
 * its silence; the next thing that could end the wait is x-device-timeout, a minute as well. */
#include "tests/e2e/scene.h"
#include "tests/shim/gw_test.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define KILLED_TIMEOUT_MS 60000u
#define STOPPED_TIMEOUT_MS (SCENE_SANITIZED ? 4000u : 2000u)
#define SHORT_SETTLE_MS 700u
#define LONG_SETTLE_MS 30000u
#define NOTICED_MS 30000 /* half of what else would end the wait */

static struct scene scenes[SCENE_STATES];
static uint64_t struck_ms[SCENE_STATES]; /* when it was killed or stopped */

/* Under a sanitizer every other state, unless all are asked for. */
static bool is_chosen(enum scene_state state)
{
    return !SCENE_SANITIZED || scene_is_full() || state % 2 == 0 || state == SCENE_COMMIT;
}

#define FOR_EACH_STATE(state)                                                                      \
    for (enum scene_state state = 0; state < SCENE_STATES; state++)                                \
        if (is_chosen(state))

static unsigned settle_ms(enum scene_state state, bool comes_back)
{
    bool asks = state == SCENE_COMMIT || state == SCENE_OUTCOME;

    return comes_back && asks ? LONG_SETTLE_MS : SHORT_SETTLE_MS;
}

static void reach_all(const char *name, unsigned peer_timeout_ms, bool comes_back)
{
    FOR_EACH_STATE(state)
    scene_begin(&scenes[state], name, state, peer_timeout_ms, settle_ms(state, comes_back));
    FOR_EACH_STATE(state)
    scene_reach(&scenes[state]);
}

static void strike_all(enum scene_side side, int number)
{
    FOR_EACH_STATE(state)
    {
        struck_ms[state] = scene_now_ms();
        kill(scenes[state].side[side].pid, number);
    }
}

static void end_all(void)
{
    FOR_EACH_STATE(state)
    scene_end(&scenes[state]);
}

/* By the time that the first event with an error bears. */
static void expect_noticed(struct scene *scene, enum scene_side side)
{
    const struct scene_process *process = &scene->side[side];
    double at_ms = scene_error_ms(process);

    if (at_ms < 0) {
        GW_NOTE_FAILURE("%s: no event has an error", scene->name);
        return;
    }
    double took_ms = (double)process->begun_ms + at_ms - (double)struck_ms[scene->state];
    fprintf(stderr, "  %s: noticed after %.0f ms\n", scene->name, took_ms);
    if (took_ms > NOTICED_MS)
        GW_NOTE_FAILURE("%s: noticed after %.0f ms only", scene->name, took_ms);
}

/* In what phase the source is while the relay holds the message of a state. */
static const char *phase_of(enum scene_state state)
{
    if (state <= SCENE_BLOCKS)
        return "setup";
    return state <= SCENE_LATER ? "active" : "device";
}

/* The target is gone: @code. @delivered: what the relay held was passed on, which may take the source into its
 * next phase before it hears of that. */
static void judge_source(struct scene *scene, const char *code, bool delivered)
{
    if (scene->state < SCENE_COMMIT) {
        scene_expect_status(scene, SCENE_SOURCE, 1);
        scene_expect_error(scene, SCENE_SOURCE, code, delivered ? NULL : phase_of(scene->state));
        scene_expect_guest(scene, SCENE_SOURCE, SCENE_VERIFIED);
        expect_noticed(scene, SCENE_SOURCE);
    } else if (scene->state < SCENE_ACK) {
        scene_expect_status(scene, SCENE_SOURCE, 4);
        scene_expect_error(scene, SCENE_SOURCE, "unknown-outcome", "device");
        scene_expect_guest(scene, SCENE_SOURCE, SCENE_NOT_CHECKED);
    } else {
        scene_expect_status(scene, SCENE_SOURCE, 0);
        scene_expect_guest(scene, SCENE_SOURCE, SCENE_VERIFIED);
    }
}

/* The source is gone: @code; COMMIT has been delivered where it had left. */
static void judge_target(struct scene *scene, const char *code)
{
    if (scene->state < SCENE_COMMIT) {
        scene_expect_status(scene, SCENE_TARGET, 1);
        scene_expect_error(scene, SCENE_TARGET, code, NULL);
        scene_expect_guest(scene, SCENE_TARGET, SCENE_NOT_CHECKED);
        expect_noticed(scene, SCENE_TARGET);
    } else {
        scene_expect_status(scene, SCENE_TARGET, 0);
        scene_expect_guest(scene, SCENE_TARGET, SCENE_VERIFIED);
    }
}

/* ---- killed ----------------------------------------------------------------------------------- */

GW_TEST(killed, target_in_every_state)
{
    reach_all("target-killed", KILLED_TIMEOUT_MS, false);
    strike_all(SCENE_TARGET, SIGKILL);
    FOR_EACH_STATE(state)
    {
        scene_finish(&scenes[state].side[SCENE_TARGET]);
        /* What it had sent arrives; but PREPARED and OUTCOME are lost with their host, or the
         * source would know. */
        if (state == SCENE_PREPARED || state == SCENE_OUTCOME)
            proxy_cut(scenes[state].proxy);
        else
            proxy_release(scenes[state].proxy, scenes[state].rule);
    }
    FOR_EACH_STATE(state)
    judge_source(&scenes[state], "peer-lost", true);
    end_all();
}

GW_TEST(killed, source_in_every_state)
{
    reach_all("source-killed", KILLED_TIMEOUT_MS, false);
    strike_all(SCENE_SOURCE, SIGKILL);
    FOR_EACH_STATE(state)
    {
        scene_finish(&scenes[state].side[SCENE_SOURCE]);
        proxy_release(scenes[state].proxy, scenes[state].rule);
    }
    FOR_EACH_STATE(state)
    judge_target(&scenes[state], "peer-lost");
    end_all();
}

/* ---- stopped for good ------------------------------------------------------------------------- */

GW_TEST(stopped, target_in_every_state)
{
    reach_all("target-stopped", STOPPED_TIMEOUT_MS, false);
    strike_all(SCENE_TARGET, SIGSTOP);
    FOR_EACH_STATE(state)
    judge_source(&scenes[state], "peer-silent", false);
    end_all();
}

GW_TEST(stopped, source_in_every_state)
{
    reach_all("source-stopped", STOPPED_TIMEOUT_MS, false);
    strike_all(SCENE_SOURCE, SIGSTOP);
    FOR_EACH_STATE(state)
    {
        if (state >= SCENE_COMMIT)
            proxy_release(scenes[state].proxy, scenes[state].rule);
    }
    FOR_EACH_STATE(state)
    judge_target(&scenes[state], "peer-silent");
    end_all();
}

/* ---- stopped for longer than the peer time-out ------------------------------------------------ */

/* The other side has given this connection up, or, behind COMMIT, has asked on a new one. */
static void await_noticed(struct scene *scene, enum scene_side side)
{
    struct scene_process *other = &scene->side[!side];

    if (side == SCENE_TARGET && scene->state < SCENE_COMMIT) {
        scene_await(other, other->events, "\"status\":\"failed\"");
    } else if (side == SCENE_TARGET && scene->state < SCENE_ACK) {
        scene_await_connections(scene, 2);
    } else if (side == SCENE_SOURCE && scene->state < SCENE_PREPARED) {
        scene_await(other, other->events, "\"status\":\"failed\"");
    } else if (side == SCENE_SOURCE && scene->state < SCENE_OUTCOME) {
        scene_await(other, other->events, "\"event\":\"holding\"");
    } else {
        /* The target runs and has said so, or the source has ended: nobody notices anything. */
        scene_wait(STOPPED_TIMEOUT_MS + STOPPED_TIMEOUT_MS / 2);
    }
}

/* The guest is at one side, and both know. */
static void judge_both(struct scene *scene)
{
    bool arrived = scene->state >= SCENE_OUTCOME;

    if (scene->state == SCENE_ACK) /* the source ended well before its last word was heard */
        proxy_release(scene->proxy, scene->rule);
    for (enum scene_side side = SCENE_SOURCE; side <= SCENE_TARGET; side++) {
        scene_expect_status(scene, side, arrived ? 0 : 1);
        if (!arrived)
            scene_expect_error(scene, side, NULL, NULL);
    }
    scene_expect_guest(scene, SCENE_SOURCE, SCENE_VERIFIED);
    scene_expect_guest(scene, SCENE_TARGET, arrived ? SCENE_VERIFIED : SCENE_NOT_CHECKED);
}

static void stop_and_go_on(const char *name, enum scene_side side)
{
    reach_all(name, STOPPED_TIMEOUT_MS, true);
    strike_all(side, SIGSTOP);
    FOR_EACH_STATE(state)
    {
        await_noticed(&scenes[state], side);
        kill(scenes[state].side[side].pid, SIGCONT);
    }
    FOR_EACH_STATE(state)
    judge_both(&scenes[state]);
    end_all();
}

GW_TEST(stopped_a_while, target_in_every_state)
{
    stop_and_go_on("target-paused", SCENE_TARGET);
}

GW_TEST(stopped_a_while, source_in_every_state)
{
    stop_and_go_on("source-paused", SCENE_SOURCE);
}
