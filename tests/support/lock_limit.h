/* SPDX-License-Identifier: MIT */
/* tests/support/lock_limit.h - a limit on locked memory that commands started from here on inherit. */
#ifndef GW_TESTS_SUPPORT_LOCK_LIMIT_H
#define GW_TESTS_SUPPORT_LOCK_LIMIT_H

#include <stdint.h>
#include <sys/resource.h>

/* Without CAP_IPC_LOCK, which would lift it and does not come back. Skips where less may be locked. */
void memlock_limit(uint64_t bytes, struct rlimit *was);
void memlock_restore(const struct rlimit *was);

#endif
