/* SPDX-License-Identifier: MIT */
/* ram/holes.h - which parts of a block were ever touched. Holes are never read (reading a memfd
 * hole allocates it): SEEK_DATA where a shmem fd is behind the block, PAGEMAP_SCAN, else pagemap.
 * Cost: proportional to what is populated (PAGEMAP_SCAN, SEEK_DATA), else to the block's size. */
#ifndef GW_RAM_HOLES_H
#define GW_RAM_HOLES_H

#include "ram/block.h"

struct gw_extent {
    uint64_t first_page;
    uint64_t pages;
};

/* The first populated extent at or after page @from. Return: 1 and @extent; 0: none; -errno. */
int gw_holes_next(const struct gw_block *block, uint64_t from, struct gw_extent *extent);

#endif
