/* SPDX-License-Identifier: MIT */
/* core/loop.h - calls: how library threads have an embedder's callback run on its own thread. */
#ifndef GW_CORE_LOOP_H
#define GW_CORE_LOOP_H

#include "core/base/inbox.h"

#include <godwit/loop.h>

/* Embedded in what it belongs to; pushed by any thread, run once inside gw_dispatch(), then its
 * memory is whatever run() makes of it. */
struct gw_call {
    struct gw_inbox_item item;
    void (*run)(struct gw_call *call);
};

void gw_loop_post(struct gw_loop *loop, struct gw_call *call); /* [any thread] */
/* [any thread] After changing what a gw_loop_until() may be waiting for. */
void gw_loop_wake(struct gw_loop *loop);
bool gw_loop_is_dispatching(const struct gw_loop *loop); /* on its own thread */
/* poll(2) on the loop and dispatch, until @done(ctx) or @deadline_ns. 0, -ETIMEDOUT, or -EDEADLK from
 * inside a callback, where nothing can be waited for. For the
 * blocking convenience calls, on the loop's thread. */
int gw_loop_until(struct gw_loop *loop, bool (*done)(void *ctx), void *ctx, uint64_t deadline_ns);

#endif
