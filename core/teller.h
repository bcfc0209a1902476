/* SPDX-License-Identifier: MIT */
/* core/teller.h - events: how an engine tells its embedder what happened. Those that somebody may wait for
 * (ended, unknown, retake, holding) need no memory when they come: a host that is out of it is told too. */
#ifndef GW_CORE_TELLER_H
#define GW_CORE_TELLER_H

#include "core/base/error.h"
#include "core/loop.h"

#include <godwit/stats.h>
#include <stdarg.h>
#include <stdatomic.h>

struct gw_teller;

struct gw_told { /* one event on its way to the embedder's thread */
    struct gw_call call;
    struct gw_teller *teller;
    struct gw_event event;
    struct gw_round round;
    struct gw_error error;
    char text[256];
    bool is_kept;
    _Atomic bool is_posted; /* of kept ones: not yet delivered */
};

#define GW_TELLER_KEPT 4

struct gw_teller { /* part of a source, or of a target */
    struct gw_loop *loop;
    void (*event)(void *ctx, const struct gw_event *event); /* NULL: nobody listens */
    void *ctx;
    _Atomic int *calls_in_loop; /* counts what was posted and has not returned */
    struct gw_told kept[GW_TELLER_KEPT];
};

void gw_teller_init(struct gw_teller *teller, struct gw_loop *loop,
                    void (*event)(void *ctx, const struct gw_event *event), void *ctx,
                    _Atomic int *calls_in_loop);
/* [engine] @error may be NULL. */
void gw_teller_tell(struct gw_teller *teller, enum gw_event_type type, enum gw_status status,
                    const struct gw_error *error, const char *format, va_list args) GW_PRINTF(5, 0);
void gw_teller_tell_round(struct gw_teller *teller, enum gw_status status,
                          const struct gw_round *round);

#endif
