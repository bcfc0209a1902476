/* SPDX-License-Identifier: MIT */
/* tools/wait.h - the main thread's only sleep: until the library has callbacks to run, a signal came,
 * another descriptor is readable, or a moment has come. */
#ifndef GW_TOOLS_WAIT_H
#define GW_TOOLS_WAIT_H

#include <godwit/loop.h>
#include <stdbool.h>
#include <stdint.h>

#define GW_WAIT_FOREVER UINT64_MAX
#define GW_WAIT_NS_PER_S UINT64_C(1000000000)

uint64_t gw_wait_now_ns(void); /* the monotonic clock */

struct gw_wait {
    struct gw_loop *loop;        /* dispatched when it has work; NULL: none */
    bool signalled;              /* the first signal has come; watched until it has */
    int fd;                      /* one more to watch, -1: none */
    bool (*fd_ready)(void *ctx); /* false: it is closed, watch it no more */
    void *fd_ctx;
};

/* Sleep until @wake_ns at the latest, run what is due. Returns after every wake-up. */
void gw_wait_step(struct gw_wait *wait, uint64_t wake_ns);

/* Step until @wake_ns or the first signal. Return false if a signal ended it. */
bool gw_wait_until(struct gw_wait *wait, uint64_t wake_ns);

#endif
