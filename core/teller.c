// SPDX-License-Identifier: MIT
/* Events. Most are a courtesy, and one that finds no memory is left out: the state is in the statistics all
 * the same. Those that an embedder may wait for have a place of their own each. */
#include "core/teller.h"

#include "core/base/alloc.h"
#include "core/base/clock.h"

#include <stdio.h>

static void run(struct gw_call *call)
{
    struct gw_told *told = GW_CONTAINER_OF(call, struct gw_told, call);
    struct gw_teller *teller = told->teller;
    _Atomic int *calls_in_loop = teller->calls_in_loop;
    if (teller->event)
        teller->event(teller->ctx, &told->event);
    if (told->is_kept)
        atomic_store_explicit(&told->is_posted, false, memory_order_release);
    else
        gw_free(told);
    atomic_fetch_sub_explicit(calls_in_loop, 1, memory_order_release);
}

/* Of the four, or -1. */
static int place_of(enum gw_event_type type)
{
    switch (type) {
    case GW_EVENT_ENDED:
        return 0;
    case GW_EVENT_UNKNOWN:
        return 1;
    case GW_EVENT_RETAKE:
        return 2;
    case GW_EVENT_HOLDING:
        return 3;
    default:
        return -1;
    }
}

static struct gw_told *find_room(struct gw_teller *teller, enum gw_event_type type)
{
    int at = place_of(type);
    struct gw_told *kept = at < 0 ? NULL : &teller->kept[at];
    /* Taken: one of its kind is not yet delivered, or its callback has not yet returned. */
    if (!kept || atomic_exchange_explicit(&kept->is_posted, true, memory_order_acquire))
        return gw_zalloc(1, sizeof(struct gw_told));
    kept->event = (struct gw_event){0};
    kept->is_kept = true;
    return kept;
}

static struct gw_told *make(struct gw_teller *teller, enum gw_event_type type,
                            enum gw_status status)
{
    struct gw_told *told = find_room(teller, type);
    if (!told)
        return NULL;
    told->call.run = run;
    told->teller = teller;
    told->text[0] = '\0';
    told->event.struct_bytes = sizeof(told->event);
    told->event.type = type;
    told->event.status = status;
    told->event.time_ns = gw_clock_ns();
    told->event.text = told->text;
    return told;
}

static void post(struct gw_teller *teller, struct gw_told *told)
{
    atomic_fetch_add_explicit(teller->calls_in_loop, 1, memory_order_relaxed);
    gw_loop_post(teller->loop, &told->call);
}

void gw_teller_init(struct gw_teller *teller, struct gw_loop *loop,
                    void (*event)(void *ctx, const struct gw_event *event), void *ctx,
                    _Atomic int *calls_in_loop)
{
    teller->loop = loop;
    teller->event = event;
    teller->ctx = ctx;
    teller->calls_in_loop = calls_in_loop;
}

void gw_teller_tell(struct gw_teller *teller, enum gw_event_type type, enum gw_status status,
                    const struct gw_error *error, const char *format, va_list args)
{
    struct gw_told *told = make(teller, type, status);
    if (!told)
        return;
    vsnprintf(told->text, sizeof(told->text), format, args);
    if (error) {
        told->error = *error;
        told->event.error = &told->error;
    }
    post(teller, told);
}

void gw_teller_tell_round(struct gw_teller *teller, enum gw_status status,
                          const struct gw_round *round)
{
    struct gw_told *told = make(teller, GW_EVENT_ROUND, status);
    if (!told)
        return;
    told->round = *round;
    told->event.round = &told->round;
    post(teller, told);
}
