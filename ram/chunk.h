/* SPDX-License-Identifier: MIT */
/* ram/chunk.h - chunks: the unit in which memory is made ready on both sides, far ahead of the data.
 *
 * The source wishes for the populated chunks it will need, in scan order, in batches; the target
 * prefaults (and on wires that need it registers, and answers with a key) in that order. No wish
 * waits for an answer and no key comes without a wish. On stream wires every chunk is ready from the
 * start and a wish is only an advice to prefault. States of a chunk at the source:
 *
 *   NONE -> WISHED -> READY -> EVICTING -> NONE
 *
 * READY needs the peer's key and our own registration (rule 6: registered before the range is
 * re-armed and read). The scan visits ready chunks only; others keep their bits (rule 7). The
 * source alone evicts (rule 9): stop, reap, RELEASE; the target deregisters and returns budget.
 *
 * Threads: owned by the migration thread; gw_chunk_is_ready() and gw_chunk_rmr() are read by the
 * stripes' owners (acquire; pairs with the release in gw_chunks_key). */
#ifndef GW_RAM_CHUNK_H
#define GW_RAM_CHUNK_H

#include "ram/block.h"
#include "transport/transport.h"

#define GW_CHUNK_BYTES_MIN (UINT64_C(2) << 20)
#define GW_CHUNK_BYTES_MAX (UINT64_C(1) << 30)

struct gw_chunks;

struct gw_chunks_config {
    struct gw_ram *ram;
    struct gw_domain *dom;
    bool keyed;             /* one-sided wire: chunks need keys and registrations */
    uint64_t chunk_bytes;   /* 0: chosen by block and page size */
    uint64_t local_budget;  /* bytes that may be registered here (memlock); UINT64_MAX: no limit */
    uint64_t remote_budget; /* ... at the target, from its hello */
};

struct gw_wish { /* "I shall need [offset, offset + bytes) of @block" */
    uint32_t block;
    uint64_t offset;
    uint64_t bytes;
};

struct gw_chunks *gw_chunks_new(const struct gw_chunks_config *config, struct gw_error *err);
void gw_chunks_free(struct gw_chunks *chunks); /* deregisters everything */

/* The next wishes in scan order that the budgets allow, marked WISHED (stream wires: every populated
 * extent once). Return: how many, 0: none now, -errno. */
int gw_chunks_wish(struct gw_chunks *chunks, struct gw_wish *wishes, unsigned max,
                   struct gw_error *err);
/* A key arrived. Registers our side if that is not done yet. -EPROTO: not wished for, out of range,
 * or a second key. */
int gw_chunks_key(struct gw_chunks *chunks, const struct gw_wish *which, const void *key,
                  size_t key_bytes, struct gw_error *err);
/* Chunks that may go to make room for wanted ones, in scan order behind the scan; marks them
 * EVICTING: the scan passes them by from now on. The caller waits until their owners have reaped,
 * then calls gw_chunks_evicted() and sends RELEASE. */
int gw_chunks_evict(struct gw_chunks *chunks, struct gw_wish *victims, unsigned max);
void gw_chunks_evicted(struct gw_chunks *chunks, const struct gw_wish *victim);
/* The target gave budget back for a released chunk. */
void gw_chunks_released(struct gw_chunks *chunks, const struct gw_wish *which);

bool gw_chunk_is_ready(const struct gw_chunks *chunks, const struct gw_block *block, uint64_t page);
/* Pages from @page to the end of its chunk. */
uint64_t gw_chunk_pages_left(const struct gw_chunks *chunks, const struct gw_block *block,
                             uint64_t page);
/* What a put to @page needs: region, local registration, and the region's first byte in the block. */
struct gw_rmr *gw_chunk_rmr(const struct gw_chunks *chunks, const struct gw_block *block,
                            uint64_t page, struct gw_mr **mr, uint64_t *base);
uint64_t gw_chunks_registered_peak(const struct gw_chunks *chunks);

#endif
