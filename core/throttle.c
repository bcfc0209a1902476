// SPDX-License-Identifier: MIT
/* The bucket is a moment in time: bytes available = (now - filled_ns) * rate. Taking moves the moment
 * forward by what the bytes cost, by compare-exchange, so endpoints share it without a lock. */
#include "core/throttle.h"

#include "core/base/bytes.h"
#include "core/base/clock.h"

#define BURST_NS (10 * GW_NS_PER_MS)
#define BURST_BYTES_MIN (UINT64_C(64) << 10)

static uint64_t bytes_in(uint64_t ns, uint64_t rate)
{
    return (uint64_t)((unsigned __int128)ns * rate / GW_NS_PER_S);
}

static uint64_t cost_ns(uint64_t bytes, uint64_t rate)
{
    return (uint64_t)(((unsigned __int128)bytes * GW_NS_PER_S + rate - 1) / rate);
}

static uint64_t burst_ns(uint64_t rate)
{
    return gw_max_u64(BURST_NS, cost_ns(BURST_BYTES_MIN, rate));
}

void gw_throttle_init(struct gw_throttle *throttle, uint64_t rate, uint64_t now_ns)
{
    atomic_init(&throttle->rate, rate);
    atomic_init(&throttle->filled_ns, now_ns);
}

void gw_throttle_set(struct gw_throttle *throttle, uint64_t rate)
{
    /* Relaxed: a number on its own; takers see it within a step. */
    atomic_store_explicit(&throttle->rate, rate, memory_order_relaxed);
}

uint64_t gw_throttle_take(struct gw_throttle *throttle, uint64_t want, uint64_t now_ns)
{
    uint64_t rate = atomic_load_explicit(&throttle->rate, memory_order_relaxed);
    if (rate == 0)
        return want;
    uint64_t filled = atomic_load_explicit(&throttle->filled_ns, memory_order_relaxed);
    for (;;) {
        uint64_t from = filled;
        if (now_ns > burst_ns(rate) && from < now_ns - burst_ns(rate))
            from = now_ns - burst_ns(rate); /* what was not used in time is gone */
        if (now_ns <= from)
            return 0;
        uint64_t granted = gw_min_u64(want, bytes_in(now_ns - from, rate)) & ~UINT64_C(4095);
        if (granted == 0)
            return 0;
        uint64_t next = from + cost_ns(granted, rate);
        if (atomic_compare_exchange_weak_explicit(&throttle->filled_ns, &filled, next,
                                                  memory_order_relaxed, memory_order_relaxed))
            return granted;
    }
}

void gw_throttle_refund(struct gw_throttle *throttle, uint64_t bytes)
{
    uint64_t rate = atomic_load_explicit(&throttle->rate, memory_order_relaxed);
    if (rate == 0)
        return;
    /* The rate may have fallen since they were taken: never further back than time goes. */
    uint64_t filled = atomic_load_explicit(&throttle->filled_ns, memory_order_relaxed);
    uint64_t cost = cost_ns(bytes, rate);
    while (!atomic_compare_exchange_weak_explicit(&throttle->filled_ns, &filled,
                                                  filled > cost ? filled - cost : 0,
                                                  memory_order_relaxed, memory_order_relaxed))
        ;
}

void gw_throttle_charge(struct gw_throttle *throttle, uint64_t bytes, uint64_t now_ns)
{
    uint64_t rate = atomic_load_explicit(&throttle->rate, memory_order_relaxed);
    if (rate == 0)
        return;
    uint64_t filled = atomic_load_explicit(&throttle->filled_ns, memory_order_relaxed);
    uint64_t next;
    do {
        uint64_t from = filled;
        if (now_ns > burst_ns(rate) && from < now_ns - burst_ns(rate))
            from = now_ns - burst_ns(rate); /* as in a take */
        next = from + cost_ns(bytes, rate);
    } while (!atomic_compare_exchange_weak_explicit(&throttle->filled_ns, &filled, next,
                                                    memory_order_relaxed, memory_order_relaxed));
}

uint64_t gw_throttle_paid_ns(const struct gw_throttle *throttle)
{
    uint64_t rate = atomic_load_explicit(&throttle->rate, memory_order_relaxed);
    return rate ? atomic_load_explicit(&throttle->filled_ns, memory_order_relaxed) : 0;
}

uint64_t gw_throttle_wake_ns(const struct gw_throttle *throttle, uint64_t now_ns)
{
    uint64_t rate = atomic_load_explicit(&throttle->rate, memory_order_relaxed);
    if (rate == 0)
        return now_ns;
    uint64_t filled = atomic_load_explicit(&throttle->filled_ns, memory_order_relaxed);
    return filled + cost_ns(BURST_BYTES_MIN, rate);
}
