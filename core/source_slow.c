// SPDX-License-Identifier: MIT
/* Slower vCPUs: what x-cpu-throttle asks of the embedder, from the first round until the guest is paused. The
 * request is a number and a call that reads it when it runs, so nothing is allocated and a release cannot be
 * lost: whatever was asked for before and has not run yet becomes the release. */
#include "core/source.h"

static void slow_run(struct gw_call *call)
{
    struct gw_source *src = GW_CONTAINER_OF(call, struct gw_source, slow_call);
    /* First, so that a number that is not read below is posted anew. Both sides in one order: seq_cst. */
    atomic_store(&src->slow_posted, false);
    src->ops.throttle(src->ctx, GW_VCPU_ALL, atomic_load(&src->slow_percent));
    atomic_fetch_sub_explicit(&src->calls_in_loop, 1, memory_order_release);
}

static void slow_down(struct gw_source *src, unsigned percent)
{
    if (!src->ops.throttle || percent == src->slow_asked)
        return;
    src->slow_asked = percent;
    atomic_store(&src->slow_percent, percent);
    if (atomic_exchange(&src->slow_posted, true))
        return;
    src->slow_call.run = slow_run;
    atomic_fetch_add_explicit(&src->calls_in_loop, 1, memory_order_relaxed);
    gw_loop_post(src->loop, &src->slow_call);
}

void gw_source_slow(struct gw_source *src)
{
    bool sends =
        src->end_status == GW_STATUS_NONE && src->step >= GW_SRC_SEND && src->step <= GW_SRC_PAUSE;
    slow_down(src, sends ? (unsigned)src->params.cpu_throttle : 0);
}
