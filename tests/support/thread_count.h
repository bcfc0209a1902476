/* SPDX-License-Identifier: MIT */
/* tests/support/thread_count.h - how many threads this process has. One that was joined may stand in /proc for as
 * long as the kernel takes to be done with it, so a count is asked for, and waited for. */
#ifndef GW_TEST_THREAD_COUNT_H
#define GW_TEST_THREAD_COUNT_H

/* How many there are once there are @most, or now if that does not come to be. */
unsigned threads_left(unsigned most);

#endif
