/* SPDX-License-Identifier: MIT */
/* ram/chunk.h - chunks: the unit in which memory is made ready on both sides, far ahead of the data.
 *
 * The source wishes for the populated chunks it will need, in scan order, in batches; the target
 * prefaults (and on wires that need it registers, and answers with a key) in that order. No wish
 * waits for an answer and no key comes without a wish. On stream wires every chunk is ready from the
 * start and a wish is only an advice to prefault. States of a chunk at the source:
 *
 *   NONE -> WISHED -> SYNCING -> READY -> EVICTING -> NONE
 *
 * While it is WISHED its key travels and our own registration is made, on a worker, in any order. Both
 * there, it is SYNCING: the registration marked all of the chunk's pages written (rule 6), and one fresh
 * sync of the range takes those marks, and re-arms it, before the first page is read. So nothing
 * written until then is lost, and the marks of the registration do not come up in the next round to
 * send everything again. gw_chunks_newly_ready() says which ranges wait for that sync,
 * gw_chunks_synced() makes them READY. The scan visits ready chunks only; others keep their bits
 * (rule 7). The source alone evicts (rule 9): stop, reap, RELEASE; the target deregisters and returns
 * budget.
 *
 * Threads: owned by the migration thread, but for what is marked [owner]: read by the stripes' owners
 * (acquire; pairs with the release in gw_chunks_synced), or [worker]. */
#ifndef GW_RAM_CHUNK_H
#define GW_RAM_CHUNK_H

#include "ram/block.h"
#include "transport/transport.h"

#define GW_CHUNK_BYTES_MIN (UINT64_C(2) << 20)
#define GW_CHUNK_BYTES_MAX (UINT64_C(1) << 30)

/* So many wishes of a source may be open, which is to say without a key, at one time. */
#define GW_WISHES_OPEN_MAX 4096u

struct gw_chunks;

struct gw_chunks_config {
    struct gw_ram *ram; /* laid out */
    struct gw_domain *dom;
    bool keyed;             /* one-sided wire: chunks need keys and registrations */
    uint64_t chunk_bytes;   /* a power of two; 0: chosen by block, page size and budgets */
    uint64_t local_budget;  /* bytes that may be registered here (memlock); UINT64_MAX: no limit */
    uint64_t remote_budget; /* ... at the target, from its hello */
    uint64_t local_besides; /* what else the limit here has to hold: buffers of endpoints */
    bool all;               /* keyed: every chunk, populated or not (rdma-pin-all) */
};

struct gw_wish { /* "I shall need [offset, offset + bytes) of @block" */
    uint32_t block;
    uint64_t offset;
    uint64_t bytes;
};

/* On stream wires also opens the regions (block->rmr) of blocks that have none yet, if @dom is given. */
struct gw_chunks *gw_chunks_new(const struct gw_chunks_config *config, struct gw_error *err);
void gw_chunks_free(struct gw_chunks *chunks); /* deregisters and closes what it made */

/* The next wishes in scan order that the budgets allow, marked WISHED: first every chunk with a
 * populated page, then those whose dirty pages the scan had to pass by (stream wires: every populated
 * extent once, in pieces of at most a chunk). Return: how many, 0: none now, -errno. */
int gw_chunks_wish(struct gw_chunks *chunks, struct gw_wish *wishes, unsigned max,
                   struct gw_error *err);
/* The next chunk, in the order of the wishes, that is to be registered here; false: none. */
bool gw_chunks_to_register(struct gw_chunks *chunks, struct gw_wish *range);
/* [worker] Register it: may take long, faults memory in, and may fail (-ENOMEM: the memlock limit). */
int gw_chunk_register(const struct gw_chunks *chunks, const struct gw_wish *range,
                      struct gw_mr **mr, struct gw_error *err);
/* It is done: @mr is the chunk's. */
void gw_chunks_registered(struct gw_chunks *chunks, const struct gw_wish *range, struct gw_mr *mr);
/* A key arrived. -EPROTO: not wished for, out of range, or a second key. */
int gw_chunks_key(struct gw_chunks *chunks, const struct gw_wish *which, const void *key,
                  size_t key_bytes, struct gw_error *err);
/* Ranges that have both and now wait for a fresh sync: each is returned once. The caller has
 * gw_dirty_take() called on a worker, and what that found put into the bits by every owner of a part of
 * it, then calls gw_chunks_synced(). Stream wires: none, ever. */
unsigned gw_chunks_newly_ready(struct gw_chunks *chunks, struct gw_wish *ranges, unsigned max);
void gw_chunks_synced(struct gw_chunks *chunks, const struct gw_wish *range);
/* Chunks that may go to make room for wanted ones, in scan order behind the scan; marks them
 * EVICTING: the scan passes them by from now on. The caller waits until their owners hold nothing of
 * them (gw_sender_holds), then calls gw_chunks_evicted() and sends RELEASE. */
int gw_chunks_evict(struct gw_chunks *chunks, struct gw_wish *victims, unsigned max);
/* Its registration and key are the caller's, to be ended by a worker; then gw_chunks_deregistered(). */
void gw_chunks_evicted(struct gw_chunks *chunks, const struct gw_wish *victim, struct gw_mr **mr,
                       struct gw_rmr **rmr);
void gw_chunks_deregistered(struct gw_chunks *chunks, const struct gw_wish *victim);
/* The target gave budget back for a released chunk. -EPROTO: none was released so. */
int gw_chunks_released(struct gw_chunks *chunks, const struct gw_wish *which, struct gw_error *err);
/* There was more to wish for than the budgets allow: what may be evicted is to be looked for. */
bool gw_chunks_are_short(const struct gw_chunks *chunks);
/* The last search for wishes ended at a budget, and not because so many wait for their keys. */
bool gw_chunks_lack_budget(const struct gw_chunks *chunks);
/* Keyed wires: what there is to wish for, or what the budgets allow of it, is registered here. */
bool gw_chunks_are_pinned(const struct gw_chunks *chunks);
/* All that there is to wish for is ready, and nothing was passed by. */
bool gw_chunks_are_ready(const struct gw_chunks *chunks);
uint64_t gw_chunk_bytes_max(const struct gw_chunks *chunks); /* of any of its chunks */

/* [owner] */
bool gw_chunk_is_ready(const struct gw_chunks *chunks, const struct gw_block *block, uint64_t page);
/* Pages from @page to the end of its chunk. */
uint64_t gw_chunk_pages_left(const struct gw_chunks *chunks, const struct gw_block *block,
                             uint64_t page);
/* What a put to @page needs: region, local registration, and the region's first byte in the block. */
struct gw_rmr *gw_chunk_rmr(const struct gw_chunks *chunks, const struct gw_block *block,
                            uint64_t page, struct gw_mr **mr, uint64_t *base);
/* Dirty pages lie in the chunk of @page, which is not ready. */
void gw_chunks_want(struct gw_chunks *chunks, const struct gw_block *block, uint64_t page);
/* Changes whenever a chunk becomes ready. */
uint32_t gw_chunks_generation(const struct gw_chunks *chunks);
/* Where @owner's scan is, in its round: in a pass that began at @generation with everything ready by
 * then, so many stripes, by their number in the whole map, are behind it; UINT32_MAX: all are, the pass
 * is over. */
void gw_chunks_scan_begin(struct gw_chunks *chunks, unsigned owner); /* of a round */
void gw_chunks_scan_at(struct gw_chunks *chunks, unsigned owner, uint32_t generation,
                       uint64_t stripe);
void gw_chunks_scan_end(struct gw_chunks *chunks, unsigned owner); /* of the round */
/* @owner has handed over whatever was ready, and what is left lies in chunks that are not. */
void gw_chunks_scan_waits(struct gw_chunks *chunks, unsigned owner);

/* Bytes registered here at most at one time. */
uint64_t gw_chunks_registered_peak(const struct gw_chunks *chunks);
/* How often a chunk was made ready (0 on stream wires), and *@ahead how often before an owner of a part
 * of it had run out of others. */
uint64_t gw_chunks_made(const struct gw_chunks *chunks, uint64_t *ahead);

#endif
