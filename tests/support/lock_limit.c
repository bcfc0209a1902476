// SPDX-License-Identifier: MIT
/* The limit is this process's own, and so is the bounding set: root's capabilities are counted anew by exec. */
#include "tests/support/lock_limit.h"

#include "tests/shim/gw_test.h"

#include <errno.h>
#include <linux/capability.h>
#include <sys/prctl.h>

void memlock_limit(uint64_t bytes, struct rlimit *was)
{
    GW_ASSERT_EQ(getrlimit(RLIMIT_MEMLOCK, was), 0);
    struct rlimit low = {.rlim_cur = bytes, .rlim_max = was->rlim_max};
    if (was->rlim_max < bytes)
        GW_SKIP("less may be locked here: ulimit -Hl");
    GW_ASSERT_EQ(setrlimit(RLIMIT_MEMLOCK, &low), 0);
    if (prctl(PR_CAPBSET_READ, CAP_IPC_LOCK, 0, 0, 0) == 1)
        GW_ASSERT(prctl(PR_CAPBSET_DROP, CAP_IPC_LOCK, 0, 0, 0) == 0 || errno == EPERM);
}

void memlock_restore(const struct rlimit *was)
{
    GW_EXPECT_EQ(setrlimit(RLIMIT_MEMLOCK, was), 0);
}
