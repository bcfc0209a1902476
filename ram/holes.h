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

/* The same as a walk, which costs one system call for many extents. @extent may end where the next
 * one begins. struct gw_holes is this header's only to be put on a stack. */
#define GW_HOLES_REGIONS_MAX 64
#define GW_HOLES_ENTRIES_MAX 512

struct gw_holes_region {
    uint64_t start; /* addresses */
    uint64_t end;
    uint64_t categories;
};

enum gw_holes_how {
    GW_HOLES_ALL,     /* nothing can be known: all counts as populated */
    GW_HOLES_SEEK,    /* SEEK_DATA */
    GW_HOLES_SCAN,    /* PAGEMAP_SCAN */
    GW_HOLES_ENTRIES, /* /proc/self/pagemap */
};

struct gw_holes {
    const struct gw_block *block;
    enum gw_holes_how how;
    int pagemap;
    uint64_t at;  /* page: nothing before it is left to report */
    uint64_t end; /* ... and nothing from here on */
    unsigned region_count;
    unsigned region_next;
    uint64_t entry_first; /* the page that entry[0] tells about */
    unsigned entry_count;
    struct gw_holes_region region[GW_HOLES_REGIONS_MAX];
    uint64_t entry[GW_HOLES_ENTRIES_MAX];
};

int gw_holes_begin(struct gw_holes *walk, const struct gw_block *block, uint64_t from);
/* Pages [from, end) only. */
int gw_holes_begin_at(struct gw_holes *walk, const struct gw_block *block, uint64_t from,
                      uint64_t end);
int gw_holes_step(struct gw_holes *walk, struct gw_extent *extent); /* as gw_holes_next() */
void gw_holes_end(struct gw_holes *walk);                           /* always, after begin */

#endif
