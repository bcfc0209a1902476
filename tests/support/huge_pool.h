/* SPDX-License-Identifier: MIT */
/* tests/support/huge_pool.h - huge pages for the time of one test, taken from the machine's pool and
 * given back. Programs that do so wait for each other. */
#ifndef GW_TEST_HUGE_POOL_H
#define GW_TEST_HUGE_POOL_H

#include <stdint.h>

struct gw_huge_pool {
    int fd; /* of nr_hugepages, locked; -1: not ours to change */
    uint64_t before;
};

/* Ask for @count more pages of @page_bytes (2 MiB or 1 GiB). Whether they came shows when they are
 * mapped: the kernel, or a lack of privilege, may refuse some or all. */
void gw_huge_pool_open(struct gw_huge_pool *pool, uint64_t page_bytes, uint64_t count);
/* After the memory was unmapped. Once or more. */
void gw_huge_pool_close(struct gw_huge_pool *pool);

#endif
