// SPDX-License-Identifier: MIT
/* Another round, the last one, or never: facts in, verdict out. */
#include "core/base/clock.h"
#include "core/converge.h"
#include "tests/shim/gw_test.h"

#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)

static const struct gw_converge_limits in_300_ms = {.downtime_limit_ns = 300 * GW_NS_PER_MS};

/* A round that sent @sent in a second, after which @remaining is dirty. */
static struct gw_round_facts round_of(uint64_t sent, uint64_t remaining)
{
    return (struct gw_round_facts){.sent_bytes = sent,
                                   .busy_ns = GW_NS_PER_S,
                                   .dirtied_bytes = remaining,
                                   .dirtied_ns = GW_NS_PER_S,
                                   .remaining_bytes = remaining};
}

static enum gw_converge_verdict judge(struct gw_converge *converge, uint64_t sent,
                                      uint64_t remaining, const struct gw_converge_limits *limits)
{
    struct gw_round_facts facts = round_of(sent, remaining);
    return gw_converge_judge(converge, &facts, limits);
}

GW_TEST(converge, switches_when_what_remains_fits_the_limit)
{
    struct gw_converge converge = {0};
    GW_EXPECT_EQ(judge(&converge, GIB, 308 * MIB, &in_300_ms), GW_CONVERGE_ROUND);
    GW_EXPECT_EQ(judge(&converge, GIB, 307 * MIB, &in_300_ms), GW_CONVERGE_SWITCH);
    GW_EXPECT_EQ(converge.bandwidth, GIB);
    GW_EXPECT_EQ(converge.dirty_rate, 307 * MIB);
}

GW_TEST(converge, nothing_left_switches_whatever_the_wire)
{
    struct gw_converge converge = {0};
    GW_EXPECT_EQ(judge(&converge, 0, 0, &(struct gw_converge_limits){0}), GW_CONVERGE_SWITCH);
}

GW_TEST(converge, max_bandwidth_holds_in_the_last_round)
{
    struct gw_converge_limits limits = in_300_ms;
    struct gw_converge converge = {0};
    limits.max_bandwidth = 100 * MIB;
    GW_EXPECT_EQ(judge(&converge, GIB, 31 * MIB, &limits), GW_CONVERGE_ROUND);
    GW_EXPECT_EQ(judge(&converge, GIB, 30 * MIB, &limits), GW_CONVERGE_SWITCH);
}

GW_TEST(converge, avail_switchover_bandwidth_replaces_what_was_measured)
{
    struct gw_converge_limits limits = in_300_ms;
    struct gw_converge converge = {0};
    limits.max_bandwidth = 100 * MIB;
    limits.avail_switchover_bandwidth = 10 * GIB;
    GW_EXPECT_EQ(judge(&converge, 100 * MIB, 2 * GIB, &limits), GW_CONVERGE_SWITCH);
}

GW_TEST(converge, small_round_does_not_change_the_bandwidth_measured)
{
    struct gw_converge converge = {0};
    judge(&converge, GIB, 900 * MIB, &in_300_ms);
    judge(&converge, MIB - 1, 900 * MIB, &in_300_ms);
    GW_EXPECT_EQ(converge.bandwidth, GIB);
}

/* A guest of zeros with a small working set: no round ever says what the wire carries. */
GW_TEST(converge, little_that_remains_switches_though_no_bandwidth_is_known)
{
    struct gw_converge converge = {0};
    struct gw_round_facts small = {.sent_bytes = 256u << 10,
                                   .busy_ns = 2 * GW_NS_PER_MS,
                                   .dirtied_bytes = 256u << 10,
                                   .dirtied_ns = GW_NS_PER_S,
                                   .remaining_bytes = 256u << 10};
    GW_EXPECT_EQ(gw_converge_judge(&converge, &small, &in_300_ms), GW_CONVERGE_SWITCH);
    converge = (struct gw_converge){0};
    small.busy_ns = 301 * GW_NS_PER_MS; /* so little took longer than the limit */
    GW_EXPECT_EQ(gw_converge_judge(&converge, &small, &in_300_ms), GW_CONVERGE_ROUND);
    small.busy_ns = 2 * GW_NS_PER_MS;
    small.remaining_bytes = 2 * MIB; /* more than such rounds say anything about */
    GW_EXPECT_EQ(gw_converge_judge(&converge, &small, &in_300_ms), GW_CONVERGE_ROUND);
}

GW_TEST(converge, four_rounds_without_progress_are_a_stall)
{
    struct gw_converge converge = {0};
    for (unsigned i = 0; i < GW_STALL_ROUNDS; i++)
        GW_EXPECT_EQ(judge(&converge, GIB, GIB, &in_300_ms), GW_CONVERGE_ROUND);
    GW_EXPECT_EQ(judge(&converge, GIB, GIB, &in_300_ms), GW_CONVERGE_STALLED);
    GW_EXPECT_EQ(judge(&converge, GIB, GIB, &in_300_ms), GW_CONVERGE_STALLED);
}

GW_TEST(converge, progress_of_more_than_5_percent_ends_a_stall)
{
    struct gw_converge converge = {0};
    for (unsigned i = 0; i < GW_STALL_ROUNDS; i++)
        judge(&converge, GIB, 1000 * MIB, &in_300_ms);
    GW_EXPECT_EQ(judge(&converge, GIB, 949 * MIB, &in_300_ms), GW_CONVERGE_ROUND);
    GW_EXPECT_EQ(converge.no_progress, 0);
    GW_EXPECT_EQ(judge(&converge, GIB, 902 * MIB, &in_300_ms), GW_CONVERGE_ROUND);
    GW_EXPECT_EQ(converge.no_progress, 1);
}

GW_TEST(converge, downtime_beyond_all_bounds_is_not_taken_for_a_short_one)
{
    struct gw_converge_limits limits = in_300_ms;
    struct gw_converge converge = {0};
    limits.max_bandwidth = 1;
    /* 2^64 ns at a byte a second: one byte more would wrap to nothing. */
    GW_EXPECT_EQ(judge(&converge, GIB, UINT64_C(18446744074), &limits), GW_CONVERGE_ROUND);
    GW_EXPECT_GT(gw_converge_downtime_ns(&converge, &limits), UINT64_MAX / 2);
    GW_EXPECT_NE(gw_converge_downtime_ns(&converge, &limits), GW_NEVER_NS);
}

GW_TEST(converge, downtime_is_never_while_nothing_is_known)
{
    struct gw_converge converge = {.remaining_bytes = 1};
    GW_EXPECT_EQ(gw_converge_downtime_ns(&converge, &in_300_ms), GW_NEVER_NS);
}
