// SPDX-License-Identifier: MIT
/* The clock: CLOCK_MONOTONIC, replaceable by a test; and the one place that sleeps. */
#include "core/base/clock.h"

#include <errno.h>
#include <stddef.h>
#include <time.h>

static uint64_t (*clock_source)(void);
static void (*clock_sleep)(uint64_t wake_ns);

uint64_t gw_clock_ns(void)
{
    if (clock_source)
        return clock_source();
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * GW_NS_PER_S + (uint64_t)now.tv_nsec;
}

int gw_clock_poll(struct pollfd *fds, unsigned count, uint64_t wake_ns)
{
    struct timespec span;
    struct timespec *limit = NULL;
    if (clock_sleep) {
        clock_sleep(wake_ns);
        if (count == 0)
            return 0;
        wake_ns = 0;
    }
    if (wake_ns != GW_NEVER_NS) {
        uint64_t now = gw_clock_ns();
        uint64_t left = wake_ns > now ? wake_ns - now : 0;
        span.tv_sec = (time_t)(left / GW_NS_PER_S);
        span.tv_nsec = (long)(left % GW_NS_PER_S);
        limit = &span;
    }
    int rc = ppoll(fds, count, limit, NULL);
    if (rc >= 0)
        return rc;
    for (unsigned i = 0; i < count; i++)
        fds[i].revents = 0;
    return errno == EINTR ? 0 : -errno;
}

void gw_clock_set_source(uint64_t (*source)(void))
{
    clock_source = source;
}

void gw_clock_set_sleep(void (*sleep)(uint64_t wake_ns))
{
    clock_sleep = sleep;
}
