// SPDX-License-Identifier: MIT
/* The token bucket, with time given by hand. */
#include "core/base/clock.h"
#include "core/throttle.h"
#include "tests/shim/gw_test.h"

#define MIB (UINT64_C(1) << 20)
#define BEGIN (UINT64_C(1000) * GW_NS_PER_S)

static struct gw_throttle bucket(uint64_t rate)
{
    struct gw_throttle throttle;
    gw_throttle_init(&throttle, rate, BEGIN);
    return throttle;
}

GW_TEST(throttle, no_rate_is_no_limit)
{
    struct gw_throttle throttle = bucket(0);
    GW_EXPECT_EQ(gw_throttle_take(&throttle, UINT64_MAX, BEGIN), UINT64_MAX);
    GW_EXPECT_EQ(gw_throttle_wake_ns(&throttle, BEGIN), BEGIN);
    gw_throttle_refund(&throttle, MIB);
    GW_EXPECT_EQ(throttle.filled_ns, BEGIN);
}

GW_TEST(throttle, average_is_the_rate)
{
    struct gw_throttle throttle = bucket(100 * MIB);
    uint64_t taken = 0;
    for (uint64_t ns = 0; ns < GW_NS_PER_S; ns += GW_NS_PER_MS)
        taken += gw_throttle_take(&throttle, UINT64_MAX, BEGIN + ns);
    GW_EXPECT_GE(taken, 98 * MIB);
    GW_EXPECT_LE(taken, 100 * MIB);
}

GW_TEST(throttle, what_was_not_used_in_time_is_gone)
{
    struct gw_throttle throttle = bucket(100 * MIB);
    uint64_t burst = gw_throttle_take(&throttle, UINT64_MAX, BEGIN + 60 * GW_NS_PER_S);
    GW_EXPECT_LE(burst, MIB); /* 10 ms of 100 MiB/s */
    GW_EXPECT_GE(burst, MIB - 8192);
}

GW_TEST(throttle, slow_rates_still_let_a_run_go)
{
    struct gw_throttle throttle = bucket(64u << 10);
    GW_EXPECT_EQ(gw_throttle_take(&throttle, 64u << 10, BEGIN + 5 * GW_NS_PER_S), 64u << 10);
    GW_EXPECT_EQ(gw_throttle_take(&throttle, 4096, BEGIN + 5 * GW_NS_PER_S), 0);
}

GW_TEST(throttle, what_is_charged_must_be_paid_before_others_take)
{
    struct gw_throttle throttle = bucket(MIB);
    gw_throttle_charge(&throttle, MIB, BEGIN + GW_NS_PER_S);
    uint64_t paid = gw_throttle_paid_ns(&throttle);
    GW_EXPECT_GE(paid, BEGIN + 19 * GW_NS_PER_S / 10); /* but for what the bucket held */
    GW_EXPECT_EQ(gw_throttle_take(&throttle, MIB, paid), 0);
    GW_EXPECT_GE(gw_throttle_take(&throttle, MIB, paid + 64 * GW_NS_PER_MS), 61440);
    struct gw_throttle unlimited = bucket(0);
    gw_throttle_charge(&unlimited, MIB, BEGIN);
    GW_EXPECT_EQ(gw_throttle_paid_ns(&unlimited), 0);
}

GW_TEST(throttle, grants_whole_pages)
{
    struct gw_throttle throttle = bucket(1000000);
    for (uint64_t ns = 0; ns < 100 * GW_NS_PER_MS; ns += 777777)
        GW_EXPECT_EQ(gw_throttle_take(&throttle, UINT64_MAX, BEGIN + ns) % 4096, 0);
}

GW_TEST(throttle, take_succeeds_when_wake_said)
{
    struct gw_throttle throttle = bucket(MIB);
    gw_throttle_take(&throttle, UINT64_MAX, BEGIN + GW_NS_PER_S);
    GW_EXPECT_EQ(gw_throttle_take(&throttle, 4096, BEGIN + GW_NS_PER_S), 0);
    uint64_t wake_ns = gw_throttle_wake_ns(&throttle, BEGIN + GW_NS_PER_S);
    GW_EXPECT_GT(wake_ns, BEGIN + GW_NS_PER_S);
    GW_EXPECT_GE(gw_throttle_take(&throttle, 64u << 10, wake_ns), 64u << 10);
}

GW_TEST(throttle, refund_may_be_taken_again)
{
    struct gw_throttle throttle = bucket(100 * MIB);
    uint64_t now = BEGIN + GW_NS_PER_S;
    uint64_t taken = gw_throttle_take(&throttle, UINT64_MAX, now);
    GW_EXPECT_EQ(gw_throttle_take(&throttle, 4096, now), 0);
    gw_throttle_refund(&throttle, 256u << 10);
    GW_EXPECT_GE(gw_throttle_take(&throttle, UINT64_MAX, now), (256u << 10) - 4096);
    GW_EXPECT_GT(taken, 0);
}

GW_TEST(throttle, refund_at_a_rate_that_fell_leaves_a_bucket_that_fills)
{
    struct gw_throttle throttle = bucket(1024 * MIB);
    gw_throttle_take(&throttle, 256u << 10, BEGIN + GW_NS_PER_S);
    gw_throttle_set(&throttle, 1);
    gw_throttle_refund(&throttle, 256u << 10); /* three days' worth at a byte a second */
    gw_throttle_set(&throttle, 100 * MIB);
    GW_EXPECT_GT(gw_throttle_take(&throttle, MIB, BEGIN + 2 * GW_NS_PER_S), 0);
}

GW_TEST(throttle, new_rate_counts_at_once)
{
    struct gw_throttle throttle = bucket(1);
    GW_EXPECT_EQ(gw_throttle_take(&throttle, MIB, BEGIN + GW_NS_PER_S), 0);
    gw_throttle_set(&throttle, 1024 * MIB);
    GW_EXPECT_GT(gw_throttle_take(&throttle, MIB, BEGIN + GW_NS_PER_S), 0);
}
