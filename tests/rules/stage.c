// SPDX-License-Identifier: MIT
/* What the tests of the handover share: see stage.h. */
#include "tests/rules/stage.h"
#include "tests/shim/gw_test.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- the stage -------------------------------------------------------------------------------- */

void stage_nap(unsigned ms)
{
    struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
    nanosleep(&time, NULL);
}

uint64_t stage_clock_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

#define HOOK(name)                                                                                 \
    int stage_on_##name(struct pair *pair)                                                         \
    {                                                                                              \
        struct stage *stage = stage_of(pair);                                                      \
        stage_nap(stage->slow_ms);                                                                 \
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
    stage_nap(stage->slow_ms);
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

void stage_set(struct gw_params *params, const char *name, const char *value)
{
    struct gw_error err = GW_ERROR_INIT;
    if (gw_params_set(params, name, value, &err) < 0)
        GW_FAIL("%s", err.message);
}

void stage_set_both(struct stage *stage, const char *name, const char *value)
{
    stage_set(stage->source_params, name, value);
    stage_set(stage->target_params, name, value);
}

struct stage *stage_new(void)
{
    struct stage *stage = calloc(1, sizeof(*stage));
    GW_ASSERT(stage != NULL);
    stage->source_params = pair_params();
    stage->target_params = pair_params();
    stage->pair.params = stage->source_params;
    stage->pair.target_params = stage->target_params;
    stage->pair.device_value = 0x0123456789abcdefu;
    stage->pair.acquire = stage_on_acquire;
    stage->pair.release = stage_on_release;
    stage->pair.retake = stage_on_retake;
    stage->pair.pause = stage_on_pause;
    stage->pair.resume = on_resume;
    stage->pair.save = stage_on_save;
    stage->pair.load = stage_on_load;
    stage->pair.run = stage_on_run;
    stage->pair.source_event = on_source_event;
    stage->pair.target_event = on_target_event;
    return stage;
}

void stage_open(struct stage *stage)
{
    pair_add_block(&stage->pair, "ram0", RAM_BYTES, GW_BLOCK_ANON, 70);
    pair_init(&stage->pair);
    pair_listen(&stage->pair);
    stage->proxy = proxy_new(gw_target_uri(stage->pair.tgt));
    stage->before = malloc(RAM_BYTES);
    GW_ASSERT(stage->before != NULL);
    memcpy(stage->before, stage->pair.blocks[0].source, RAM_BYTES);
}

void stage_go(struct stage *stage)
{
    struct gw_error err = GW_ERROR_INIT;
    if (gw_source_start(stage->pair.src, proxy_uri(stage->proxy), &err) < 0)
        GW_FAIL("start: %s", err.message);
}

void stage_free(struct stage *stage)
{
    pair_fini(&stage->pair);
    proxy_free(stage->proxy);
    gw_params_free(stage->source_params);
    gw_params_free(stage->target_params);
    free(stage->before);
    free(stage);
}

void expect_guest(const struct stage *stage, enum place place)
{
    GW_EXPECT_EQ(stage->pair.two_runners, 0);
    GW_EXPECT_EQ(stage->pair.source_runs, place == AT_SOURCE);
    GW_EXPECT_EQ(stage->pair.target_runs, place == AT_TARGET);
    GW_EXPECT_LE(stage->pair.runs, 1);
    if (!stage->pair.writes)
        GW_EXPECT_MEMEQ(stage->pair.blocks[0].source, stage->before, RAM_BYTES);
}

void expect_arrived(struct stage *stage)
{
    expect_guest(stage, AT_TARGET);
    GW_EXPECT_EQ(gw_target_outcome(stage->pair.tgt), GW_TARGET_RUNNING);
    GW_EXPECT_EQ(stage->pair.target_rc, 0);
    GW_EXPECT_EQ(pair_differs(&stage->pair), -1);
    GW_EXPECT_EQ(stage->pair.device_loaded, stage->pair.device_value);
}

void expect_retry_succeeds(struct stage *stage)
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

bool is_holding(struct pair *pair)
{
    return stage_of(pair)->target_events[GW_EVENT_HOLDING] > 0;
}

bool is_unknown(struct pair *pair)
{
    return stage_of(pair)->source_events[GW_EVENT_UNKNOWN] > 0;
}

bool is_stuck(struct pair *pair)
{
    return stage_of(pair)->source_events[GW_EVENT_RETAKE] > 0;
}

bool source_runs_again(struct pair *pair)
{
    return pair->resumes > 0 && pair->source_runs;
}

bool source_ended(struct pair *pair)
{
    return stage_of(pair)->source_events[GW_EVENT_ENDED] > 0;
}

bool target_ended(struct pair *pair)
{
    return stage_of(pair)->target_events[GW_EVENT_ENDED] > 0;
}

bool target_runs(struct pair *pair)
{
    return pair->target_runs;
}

void until_struck(struct stage *stage, unsigned rule)
{
    uint64_t now = stage_clock_ms(), end = now + SECONDS * 1000;
    for (; !proxy_has_struck(stage->proxy, rule); now = stage_clock_ms()) {
        if (now > end)
            GW_FAIL("the message that the relay waits for did not come");
        stage->before_strike_ms = now;
        pair_pump(&stage->pair, 5);
    }
}

void until_passed(struct stage *stage, enum proxy_way way, enum gw_message_type type,
                  unsigned count)
{
    uint64_t end = stage_clock_ms() + SECONDS * 1000;
    while (proxy_passed(stage->proxy, way, type) < count) {
        if (stage_clock_ms() > end)
            GW_FAIL("the relay did not see %u of message %d", count, type);
        pair_pump(&stage->pair, 5);
    }
}

struct stage *stage_hold(const char *hold_ms)
{
    struct stage *stage = stage_new();
    stage_set_both(stage, "x-settle-timeout", "300");
    stage_set_both(stage, "x-hold-timeout", hold_ms);
    stage_open(stage);
    unsigned rule = proxy_on(stage->proxy, PROXY_TO_SOURCE, GW_MSG_PREPARED, 1, PROXY_CUT);
    proxy_refuse_after(stage->proxy, rule);
    atomic_store(&stage->source_is_dead, true);
    stage_go(stage);
    until_struck(stage, rule);
    GW_EXPECT(pair_until(&stage->pair, is_holding, SECONDS));
    expect_guest(stage, NOWHERE);
    return stage;
}

void stage_wait_target(struct stage *stage)
{
    GW_EXPECT(pair_until(&stage->pair, target_ended, SECONDS));
    stage->pair.target_rc = gw_target_wait(stage->pair.tgt, 0, &stage->pair.target_err);
}
