/* SPDX-License-Identifier: MIT */
/* tests/rules/stage.h - a source and a target in this process, a relay between them that cuts, holds,
 * silences or repeats at a chosen message, and callbacks that fail or take long. A time-out is short only
 * where the test waits for it to pass; what must happen before one passes has SECONDS, on any machine. */
#ifndef GW_TESTS_RULES_STAGE_H
#define GW_TESTS_RULES_STAGE_H

#include "tests/support/pair.h"
#include "tests/support/proxy.h"

#include <time.h>

#define RAM_BYTES (UINT64_C(2) << 20)
#define SECONDS 60u

struct stage {
    struct pair pair; /* first: hooks get it and cast */
    struct gw_params *source_params, *target_params;
    struct proxy *proxy;
    unsigned char *before; /* the source's memory as it was */
    _Atomic unsigned source_events[GW_EVENT_ENDED + 1], target_events[GW_EVENT_ENDED + 1];
    _Atomic bool source_is_dead; /* its host is gone: no callback of it has an effect */
    _Atomic int acquire_rc, release_rc, retake_rc, resume_rc, pause_rc, save_rc, load_rc, run_rc;
    unsigned slow_ms;          /* every callback takes that long */
    uint64_t before_strike_ms; /* a moment before the rule struck that until_struck() waited for */
};

static inline struct stage *stage_of(struct pair *pair)
{
    return (struct stage *)pair;
}

enum place { AT_SOURCE, AT_TARGET, NOWHERE };

void stage_nap(unsigned ms);
uint64_t stage_clock_ms(void);
void stage_set(struct gw_params *params, const char *name, const char *value);
void stage_set_both(struct stage *stage, const char *name, const char *value);
struct stage *stage_new(void);
/* Both sides, listening, and the relay before the target. */
void stage_open(struct stage *stage);
void stage_go(struct stage *stage);
void stage_free(struct stage *stage);
void expect_guest(const struct stage *stage, enum place place);
void expect_arrived(struct stage *stage);
/* The same source and the same target, at once, without the relay: nothing may be missing. */
void expect_retry_succeeds(struct stage *stage);
bool is_holding(struct pair *pair);
bool is_unknown(struct pair *pair);
bool is_stuck(struct pair *pair);
bool source_runs_again(struct pair *pair);
bool source_ended(struct pair *pair);
bool target_ended(struct pair *pair);
bool target_runs(struct pair *pair);
void until_struck(struct stage *stage, unsigned rule);
void until_passed(struct stage *stage, enum proxy_way way, enum gw_message_type type,
                  unsigned count);

/* The source has died between PREPARED and COMMIT: the target holds, for @hold_ms. */
struct stage *stage_hold(const char *hold_ms);
void stage_wait_target(struct stage *stage);

/* What the stage's callbacks do, for hooks that do more: wait, then what stage->*_rc says. */
int stage_on_acquire(struct pair *pair);
int stage_on_release(struct pair *pair);
int stage_on_retake(struct pair *pair);
int stage_on_pause(struct pair *pair);
int stage_on_save(struct pair *pair);
int stage_on_load(struct pair *pair);
int stage_on_run(struct pair *pair);

#endif
