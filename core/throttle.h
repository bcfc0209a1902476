/* SPDX-License-Identifier: MIT */
/* core/throttle.h - max-bandwidth: one token bucket shared by all page endpoints of a source. */
#ifndef GW_CORE_THROTTLE_H
#define GW_CORE_THROTTLE_H

#include <stdatomic.h>
#include <stdint.h>

/* Refilled by time, holds at most 10 ms worth (at least one 64 KiB run): a second's average is then
 * within 1 % of the rate. All functions but init are [any thread]. */
struct gw_throttle {
    _Atomic uint64_t rate;      /* bytes per second; 0: unlimited */
    _Atomic uint64_t filled_ns; /* the bucket's content is what has flowed in since then */
};

void gw_throttle_init(struct gw_throttle *throttle, uint64_t rate, uint64_t now_ns);
void gw_throttle_set(struct gw_throttle *throttle, uint64_t rate);
/* How many of @want bytes may go now; 0: later. */
uint64_t gw_throttle_take(struct gw_throttle *throttle, uint64_t want, uint64_t now_ns);
void gw_throttle_refund(struct gw_throttle *throttle, uint64_t bytes);
/* Take @bytes whatever is there, after they were used: what others take is less until they are paid. */
void gw_throttle_charge(struct gw_throttle *throttle, uint64_t bytes, uint64_t now_ns);
/* When all that was taken is paid; in the past: it is, and something is left. 0: unlimited. */
uint64_t gw_throttle_paid_ns(const struct gw_throttle *throttle);
/* When a take may succeed again. */
uint64_t gw_throttle_wake_ns(const struct gw_throttle *throttle, uint64_t now_ns);

#endif
