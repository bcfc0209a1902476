/* SPDX-License-Identifier: MIT */
/* ram/dirty.h - the union of a migration's dirty sources (godwit/dirty.h), moved into the bits.
 * These calls reach embedder callbacks marked [worker]: they run on pool threads, while the
 * stripes' owner waits and beats. */
#ifndef GW_RAM_DIRTY_H
#define GW_RAM_DIRTY_H

#include "ram/block.h"

#include <godwit/dirty.h>

#define GW_DIRTY_SOURCES_MAX 8

int gw_ram_add_dirty(struct gw_ram *ram, const struct gw_dirty_ops *ops, void *ctx,
                     struct gw_error *err);
unsigned gw_ram_dirty_source_count(const struct gw_ram *ram);
/* A source of it reports what a pin marked again and again (GW_DIRTY_CLEARS_ONCE). */
bool gw_dirty_clears_once(const struct gw_ram *ram);
enum gw_dirty_when { GW_DIRTY_ALL, GW_DIRTY_BEFORE_PINS, GW_DIRTY_AFTER_PINS };
/* Start every source on every block, or those that clear once after memory was pinned, and the others before;
 * on failure all that were started are stopped. */
int gw_dirty_start(struct gw_ram *ram, enum gw_dirty_when when, struct gw_error *err);
void gw_dirty_stop(struct gw_ram *ram); /* stops what was started; may be called twice */
/* Tell every source that nothing writes any more. */
int gw_dirty_final(struct gw_ram *ram, struct gw_error *err);
/* Move what was written in @owner's stripes into their bits. @found: pages newly set (may be
 * NULL). A source that fails: its range is set dirty whole and it is asked once more; if it fails
 * again the error is returned (bits stay set: too much is sent, never too little). */
int gw_dirty_sync(struct gw_ram *ram, unsigned owner, uint64_t *found, struct gw_error *err);
/* [worker] What was written in pages [@first_page, @first_page + @pages) of @block, into @bits, whose
 * first is @first_page; both are multiples of 512 unless the block ends there. Not while the owners'
 * stripes are synced. For gw_chunks_newly_ready(): the owners are at their bits meanwhile, and put this
 * into them with gw_dirty_absorb(). */
int gw_dirty_take(struct gw_ram *ram, uint32_t block, uint64_t first_page, uint64_t pages,
                  uint64_t *bits, struct gw_error *err);
/* [worker] The same range is about to be pinned: no source shall make a write there wait, and one that clears
 * once, and is not started yet, make it such as it can clear. */
int gw_dirty_before_pin(struct gw_ram *ram, uint32_t block, uint64_t first_page, uint64_t pages,
                        struct gw_error *err);
/* What @owner has of that range: @bits into its own. */
void gw_dirty_absorb(struct gw_ram *ram, unsigned owner, uint32_t block, uint64_t first_page,
                     uint64_t pages, const uint64_t *bits);

#endif
