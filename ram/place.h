/* SPDX-License-Identifier: MIT */
/* ram/place.h - the target's side of memory: what may be written by whom, what has arrived, zero
 * runs, and making memory ready ahead of the data. */
#ifndef GW_RAM_PLACE_H
#define GW_RAM_PLACE_H

#include "ram/block.h"
#include "ram/chunk.h"
#include "ram/peer.h"
#include "transport/transport.h"

/* One page endpoint at the target; lives on that endpoint's thread. */
struct gw_placer {
    struct gw_ram *ram;
    unsigned owner; /* page endpoint index - 1 */
    uint64_t placed_pages;
    uint64_t zero_pages;
};

/* For gw_wire_config.place, with a struct gw_placer as ctx: a put must lie inside a block, inside
 * one stripe of this owner, in whole pages; what was placed gets its received bits. */
extern const struct gw_place_ops gw_placer_ops;

/* Apply zero runs: -EPROTO (err set) if one is outside its block or not this owner's. Writes only
 * pages that are not zero already, and none that was never populated: the target stays sparse. */
int gw_place_zero(struct gw_placer *placer, const struct gw_zero_run *runs, unsigned count,
                  struct gw_error *err);

/* Is the wish inside its block and page aligned? -EPROTO with err. */
int gw_wish_check(struct gw_ram *ram, const struct gw_wish *wish, struct gw_error *err);
/* Populate a range without storing to it (rule 8): MADV_POPULATE_WRITE, else a locked add of zero.
 * For pool threads; other bytes in it may be written by the wire meanwhile. 0 or -ENOMEM... */
int gw_prefault(const struct gw_block *block, uint64_t offset, uint64_t bytes);
/* The second way, for kernels without the first (and for the test that it stores nothing either). */
void gw_prefault_by_touch(void *memory, uint64_t bytes);

#endif
