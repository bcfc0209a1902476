/* SPDX-License-Identifier: MIT */
/* core/base/clock.h - the only clock and the only sleep, so that tests drive time by hand. */
#ifndef GW_BASE_CLOCK_H
#define GW_BASE_CLOCK_H

#include <poll.h>
#include <stdint.h>

#define GW_NS_PER_MS UINT64_C(1000000)
#define GW_NS_PER_S UINT64_C(1000000000)
#define GW_NEVER_NS UINT64_MAX

/* Monotonic nanoseconds; starts anywhere; never 0. */
uint64_t gw_clock_ns(void);

/* poll(2) until one of @fds is ready or @wake_ns (GW_NEVER_NS: no limit) has come. EINTR counts as
 * a wake-up. Return: how many are ready, 0 on time-out or signal, -errno. */
int gw_clock_poll(struct pollfd *fds, unsigned count, uint64_t wake_ns);

/* For tests: replace the clock (NULL: the real one). Not while threads run. */
void gw_clock_set_source(uint64_t (*source)(void));
/* For a simulator: instead of sleeping until @wake_ns, let others go on for a while (NULL: sleep). */
void gw_clock_set_sleep(void (*sleep)(uint64_t wake_ns));

#endif
