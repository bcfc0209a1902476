// SPDX-License-Identifier: MIT
/* What may be registered. The limit of this process is lowered and put back; whether a capability lifts
 * it is the machine's business. */
#include "core/memlock.h"
#include "tests/shim/gw_test.h"
#include "transport/transport.h"

#include <string.h>
#include <sys/resource.h>

#define PINS (GW_EP_ONE_SIDED | GW_EP_PINS)
#define MIB (UINT64_C(1) << 20)

GW_TEST(memlock, wires_that_register_nothing_have_no_limit)
{
    GW_EXPECT_EQ(gw_memlock_budget(0, 4, 16 * MIB), UINT64_MAX);
    GW_EXPECT_EQ(gw_memlock_budget(GW_EP_REPLIES, 4, 0), UINT64_MAX);
}

GW_TEST(memlock, the_operators_limit_holds_where_nothing_is_pinned_too)
{
    GW_EXPECT_EQ(gw_memlock_budget(GW_EP_ONE_SIDED, 4, 0), UINT64_MAX);
    GW_EXPECT_EQ(gw_memlock_budget(GW_EP_ONE_SIDED, 4, 16 * MIB), 16 * MIB);
    GW_EXPECT_EQ(gw_memlock_budget(PINS | GW_EP_IN_PROCESS, 4, 16 * MIB), 16 * MIB);
}

GW_TEST(memlock, a_limit_leaves_what_page_endpoints_do_not_take)
{
    struct rlimit was, low = {.rlim_cur = 32 * MIB};
    GW_ASSERT_EQ(getrlimit(RLIMIT_MEMLOCK, &was), 0);
    low.rlim_max = was.rlim_max;
    if (was.rlim_max < low.rlim_cur)
        GW_SKIP("this process may not have 32 MiB of memlock");
    GW_ASSERT_EQ(setrlimit(RLIMIT_MEMLOCK, &low), 0);
    uint64_t two = gw_memlock_budget(PINS, 2, 0);
    uint64_t six = gw_memlock_budget(PINS, 6, 0);
    uint64_t many = gw_memlock_budget(PINS, 255, 0);
    uint64_t capped = gw_memlock_budget(PINS, 2, 4 * MIB);
    GW_ASSERT_EQ(setrlimit(RLIMIT_MEMLOCK, &was), 0);
    GW_EXPECT_EQ(capped, 4 * MIB);
    if (two == UINT64_MAX)
        GW_SKIP("CAP_IPC_LOCK lifts the limit here");
    GW_EXPECT_LE(two, 30 * MIB);
    GW_EXPECT_EQ(two - six, 4 * MIB);
    GW_EXPECT_EQ(many, 0);
}

GW_TEST(memlock, a_refused_registration_says_what_it_needs)
{
    struct gw_error err = GW_ERROR_INIT;
    gw_fail(&err, -ENOMEM, "register");
    gw_memlock_hint(&err, -ENOMEM, 8 * MIB);
    GW_EXPECT(strstr(err.hint, "need 8192 KiB") != NULL);
    gw_error_clear(&err);
    gw_fail(&err, -EIO, "register");
    gw_memlock_hint(&err, -EIO, 8 * MIB);
    GW_EXPECT_STREQ(err.hint, "");
}
