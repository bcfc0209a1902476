/* SPDX-License-Identifier: MIT */
/* tests/support/huge_pool.h - huge pages for the time of one test: the machine's pool is made larger by as many,
 * and smaller again. Tests that do so run side by side, each with pages of its own, so none may look for pages
 * that are free without asking for them: they are another's. */
#ifndef GW_TEST_HUGE_POOL_H
#define GW_TEST_HUGE_POOL_H

#include <stdbool.h>
#include <stdint.h>

struct gw_huge_pool { /* zeros: nothing to give back */
    uint64_t page_bytes, count;
};

/* @count more pages of @page_bytes (2 MiB or 1 GiB). False: the kernel refused, and has none of it; or this user
 * may not change the pool, and so many are not free in it. */
bool gw_huge_pool_open(struct gw_huge_pool *pool, uint64_t page_bytes, uint64_t count);
/* After the memory was unmapped. Once or more; at the end of the process at the latest. One at a time. */
void gw_huge_pool_close(struct gw_huge_pool *pool);

#endif
