/* SPDX-License-Identifier: MIT */
/* ram/scan.h - the dirty bits of one stripe, taken as runs. For the stripe's owner. */
#ifndef GW_RAM_SCAN_H
#define GW_RAM_SCAN_H

#include "ram/block.h"
#include "ram/chunk.h"
#include "ram/sink.h"

struct gw_scan {
    struct gw_chunks *chunks;
    struct gw_block *block;
    uint64_t at; /* nothing before this page is left to look at */
    uint64_t end;
    uint64_t waiting_pages; /* dirty, seen, in chunks that are not ready: their bits stay set */
};

void gw_scan_begin(struct gw_scan *scan, struct gw_ram *ram, struct gw_chunks *chunks,
                   const struct gw_stripe *stripe);
/* The next run of dirty pages: inside one ready chunk, at most @pages_max long. Its bits are clear:
 * they are the caller's to set again until the pages are placed (rule 7). A chunk that is not ready
 * and has dirty pages is told to @chunks as wanted. False: the stripe's end. */
bool gw_scan_next(struct gw_scan *scan, uint32_t pages_max, struct gw_run *run);

#endif
