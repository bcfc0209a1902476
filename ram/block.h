/* SPDX-License-Identifier: MIT */
/* ram/block.h - the guest's memory as this room sees it: blocks, cut into stripes.
 *
 * A *page* here is always GW_PAGE_BYTES (4096), whatever is behind the block. A *stripe* is a
 * multiple of 512 pages of one block; it belongs to one owner (a page endpoint and its thread),
 * who alone touches the bits of its pages. Both sides compute the same stripe map from the block
 * list, the stripe size and the number of owners. */
#ifndef GW_RAM_BLOCK_H
#define GW_RAM_BLOCK_H

#include "core/base/error.h"
#include "transport/transport.h"

#include <godwit/block.h>
#include <stdbool.h>
#include <stdint.h>

#define GW_PAGE_BYTES 4096u
#define GW_STRIPE_PAGES_MIN 512u
#define GW_STRIPE_BYTES_DEFAULT (UINT64_C(32) << 20)
/* Hello says so many: what they cost fits a session's 64 MiB. A block may be a region. */
#define GW_BLOCKS_MAX 32768u
_Static_assert(GW_BLOCKS_MAX <= GW_REGIONS_MAX, "a block may be a region");

struct gw_mr;
struct gw_rmr;

struct gw_block {
    struct gw_block_desc desc; /* desc.name is our own copy */
    uint32_t id;
    uint64_t pages;
    uint64_t stripe_first; /* global number of its first stripe */
    uint64_t *dirty;       /* source: to be sent. NULL until gw_ram_source_begin() */
    uint64_t *received;    /* target: placed at least once. NULL until gw_ram_target_begin() */
    uint64_t *stale;       /* target: populated before anything arrived. NULL if nothing was */
    bool fresh;            /* target: nothing was populated when the block was offered;
                            * source: the target said so, hence its holes are zero already */
    struct gw_rmr *rmr;    /* source, stream wires: the whole block at the peer */
    struct gw_mr *mr;      /* target, stream wires: the whole block, registered for the peer; every
                            * put is told to the placer then, as it is not on a one-sided wire */
};

struct gw_stripe {
    uint32_t block;
    uint64_t first_page; /* within the block */
    uint64_t pages;
};

struct gw_ram;

struct gw_ram *gw_ram_new(void); /* NULL: out of memory */
void gw_ram_free(struct gw_ram *ram);
/* Checks every field (err names block and field). Return: id, -EINVAL, -EEXIST, -E2BIG, -ENOMEM. */
int gw_ram_add_block(struct gw_ram *ram, const struct gw_block_desc *desc, struct gw_error *err);
unsigned gw_ram_block_count(const struct gw_ram *ram);
struct gw_block *gw_ram_block(struct gw_ram *ram, unsigned id); /* NULL if there is none */
struct gw_block *gw_ram_find(struct gw_ram *ram, const char *name);
uint64_t gw_ram_bytes(const struct gw_ram *ram);

/* Cut into stripes for @owners owners. @stripe_bytes: a multiple of 2 MiB. Not while anyone sends:
 * the map changes only when every endpoint has had a fence acknowledged (rule 2). */
int gw_ram_layout(struct gw_ram *ram, uint64_t stripe_bytes, unsigned owners, struct gw_error *err);
unsigned gw_ram_owner(const struct gw_ram *ram, uint32_t block, uint64_t page);
uint64_t gw_ram_stripe_count(const struct gw_ram *ram);
uint64_t gw_ram_stripe_pages(const struct gw_ram *ram); /* of a whole stripe; 0: not laid out */
unsigned gw_ram_owner_count(const struct gw_ram *ram);
/* The @index-th stripe of @owner, in block and page order. Return false after the last. */
bool gw_ram_stripe(const struct gw_ram *ram, unsigned owner, uint64_t index,
                   struct gw_stripe *stripe);

/* Source: allocate the dirty bits, or reuse them; set the bit of every populated page and no
 * other. (Call after the dirty sources were started: a page written later is theirs to report.)
 * Counts holes. 0, -ENOMEM, or the errno of reading the map of what is populated. */
int gw_ram_source_begin(struct gw_ram *ram, struct gw_error *err);
uint64_t gw_ram_populated_pages(const struct gw_ram *ram);
/* Pages whose bit is set, over all owners; exact only while nobody sends or syncs. */
uint64_t gw_ram_dirty_pages(const struct gw_ram *ram);
/* Target: allocate received bits, find out which blocks are fresh. */
int gw_ram_target_begin(struct gw_ram *ram, struct gw_error *err);

#endif
