// SPDX-License-Identifier: MIT
/* Convergence: what remains against what the downtime limit allows at the measured bandwidth. */
#include "core/converge.h"

#include "core/base/bytes.h"
#include "core/base/clock.h"

/* A round that sent less than this, or took less, says nothing about the wire. */
#define MEANINGFUL_BYTES (UINT64_C(1) << 20)
#define MEANINGFUL_NS (GW_NS_PER_MS / 10)

static uint64_t per_second(uint64_t bytes, uint64_t ns)
{
    return ns ? (uint64_t)((unsigned __int128)bytes * GW_NS_PER_S / ns) : 0;
}

static uint64_t switchover_bandwidth(const struct gw_converge *converge,
                                     const struct gw_converge_limits *limits)
{
    if (limits->avail_switchover_bandwidth)
        return limits->avail_switchover_bandwidth;
    uint64_t bandwidth = converge->bandwidth;
    if (limits->max_bandwidth && (bandwidth == 0 || bandwidth > limits->max_bandwidth))
        bandwidth = limits->max_bandwidth;
    return bandwidth;
}

uint64_t gw_converge_downtime_ns(const struct gw_converge *converge,
                                 const struct gw_converge_limits *limits)
{
    uint64_t bandwidth = switchover_bandwidth(converge, limits);
    if (converge->remaining_bytes == 0)
        return 0;
    if (bandwidth == 0)
        return GW_NEVER_NS;
    unsigned __int128 ns = (unsigned __int128)converge->remaining_bytes * GW_NS_PER_S / bandwidth;
    return ns < GW_NEVER_NS ? (uint64_t)ns : GW_NEVER_NS - 1;
}

/* While no round has said what the wire carries, a small one says at least what so little takes. */
static bool is_small_enough(const struct gw_converge *converge, const struct gw_round_facts *round,
                            const struct gw_converge_limits *limits)
{
    return switchover_bandwidth(converge, limits) == 0 &&
           round->remaining_bytes <= MEANINGFUL_BYTES &&
           round->busy_ns <= limits->downtime_limit_ns;
}

enum gw_converge_verdict gw_converge_judge(struct gw_converge *converge,
                                           const struct gw_round_facts *round,
                                           const struct gw_converge_limits *limits)
{
    converge->rounds++;
    if (round->sent_bytes >= MEANINGFUL_BYTES && round->busy_ns >= MEANINGFUL_NS)
        converge->bandwidth = per_second(round->sent_bytes, round->busy_ns);
    converge->dirty_rate = per_second(round->dirtied_bytes, round->dirtied_ns);
    converge->remaining_bytes = round->remaining_bytes;

    if (gw_converge_downtime_ns(converge, limits) <= limits->downtime_limit_ns ||
        is_small_enough(converge, round, limits))
        return GW_CONVERGE_SWITCH;

    bool shrank =
        converge->rounds == 1 || round->remaining_bytes < converge->best_remaining_bytes / 100 * 95;
    if (shrank)
        converge->best_remaining_bytes = round->remaining_bytes;
    converge->no_progress = shrank ? 0 : converge->no_progress + 1;
    if (converge->no_progress >= GW_STALL_ROUNDS)
        return GW_CONVERGE_STALLED;
    return GW_CONVERGE_ROUND;
}
