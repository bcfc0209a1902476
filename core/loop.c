// SPDX-License-Identifier: MIT
/* The loop: an inbox of calls on the embedder's thread. Library threads push; gw_dispatch() runs
 * what waits, outside every lock. */
#include "core/loop.h"

#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/error.h"

struct gw_loop {
    struct gw_inbox inbox;
    bool dispatching;
};

int gw_loop_new(struct gw_loop **loop, struct gw_error *err)
{
    struct gw_loop *fresh = gw_zalloc(1, sizeof(*fresh));
    if (!fresh)
        return gw_fail(err, -ENOMEM, "event loop");
    int rc = gw_inbox_init(&fresh->inbox);
    if (rc < 0) {
        gw_free(fresh);
        gw_fail(err, rc, "event loop: eventfd");
        gw_error_hint(err, "raise the limit of open files of this process (`ulimit -n`)");
        return rc;
    }
    *loop = fresh;
    return 0;
}

int gw_loop_fd(const struct gw_loop *loop)
{
    return loop->inbox.fd;
}

int gw_dispatch(struct gw_loop *loop)
{
    if (loop->dispatching)
        return -EDEADLK;
    loop->dispatching = true;
    int ran = 0;
    struct gw_inbox_item *item;
    while ((item = gw_inbox_take(&loop->inbox)) != NULL) {
        struct gw_call *call = (struct gw_call *)(void *)item; /* item is its first member */
        call->run(call);
        ran++;
    }
    loop->dispatching = false;
    return ran;
}

void gw_loop_free(struct gw_loop *loop)
{
    if (!loop)
        return;
    gw_inbox_fini(&loop->inbox);
    gw_free(loop);
}

void gw_loop_post(struct gw_loop *loop, struct gw_call *call)
{
    gw_inbox_push(&loop->inbox, &call->item);
}

void gw_loop_wake(struct gw_loop *loop)
{
    gw_inbox_wake(&loop->inbox);
}

bool gw_loop_is_dispatching(const struct gw_loop *loop)
{
    return loop->dispatching;
}

int gw_loop_until(struct gw_loop *loop, bool (*done)(void *ctx), void *ctx, uint64_t deadline_ns)
{
    if (loop->dispatching)
        return -EDEADLK;
    for (;;) {
        gw_dispatch(loop);
        if (done(ctx))
            return 0;
        if (gw_clock_ns() >= deadline_ns)
            return -ETIMEDOUT;
        struct pollfd fd = {.fd = loop->inbox.fd, .events = POLLIN};
        gw_clock_poll(&fd, 1, deadline_ns);
    }
}
