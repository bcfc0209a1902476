/* SPDX-License-Identifier: MIT */
/* ram/ram_impl.h - what struct gw_ram is made of: for block.c and dirty.c alone. */
#ifndef GW_RAM_IMPL_H
#define GW_RAM_IMPL_H

#include "ram/block.h"
#include "ram/dirty.h"

struct gw_dirty_source {
    struct gw_dirty_ops ops; /* our own copy: a newer caller's table may be longer */
    void *ctx;
    unsigned started_blocks; /* on blocks [0, started_blocks) */
};

struct gw_ram {
    struct gw_block **blocks; /* by id; a block never moves, others hold its address */
    unsigned block_count;
    unsigned block_room;
    uint32_t *names; /* open addressing by name: id + 1, 0 is empty; at most half full */
    uint64_t name_seed;
    uint32_t name_slots;
    uint64_t bytes;
    uint64_t populated_pages;
    uint64_t name_compares; /* made so far: for the test that many blocks stay cheap */

    uint64_t stripe_pages; /* 0: not laid out */
    uint64_t stripe_count;
    unsigned owners;

    struct gw_dirty_source dirty[GW_DIRTY_SOURCES_MAX];
    unsigned dirty_count;
};

#endif
