/* SPDX-License-Identifier: MIT */
/* ram/lend.h - the target's side of chunks on a one-sided wire: what the source has wished for, what it
 * was lent, and the budget that this costs.
 *
 *   wish -> queued -> registering (a worker: prefault, register, key) -> lent -> releasing (a worker)
 *
 * Each wish is answered with one key, in the order in which registrations are done. A wish costs its
 * bytes of the budget until its release was carried out; one beyond the budget, or for what is lent
 * already, is a broken protocol, as is a release of what is not lent. A range is whole units of 2 MiB,
 * except where the block ends, so what a source can make us keep is bounded by the guest's size.
 *
 * Threads: the engine's, but for what is marked [worker]. */
#ifndef GW_RAM_LEND_H
#define GW_RAM_LEND_H

#include "ram/block.h"
#include "ram/chunk.h"

#define GW_LEND_UNIT_BYTES GW_CHUNK_BYTES_MIN

struct gw_lends;
struct gw_lend; /* one range, from its wish to its release */

struct gw_lends_config {
    struct gw_ram *ram;
    struct gw_domain *dom;
    uint64_t budget_bytes; /* UINT64_MAX: no limit */
    bool prefault;         /* populate before registering: huge pages come whole, in parallel */
};

struct gw_lends *gw_lends_new(const struct gw_lends_config *config, struct gw_error *err);
/* Deregisters whatever is lent still; nothing may be under way at a worker. May take long. Takes NULL. */
void gw_lends_free(struct gw_lends *lends);

/* The source wishes for @wish: 0, -EPROTO (err says why), -ENOMEM. */
int gw_lends_wish(struct gw_lends *lends, const struct gw_wish *wish, struct gw_error *err);
/* The source gives @range back: 0, -EPROTO. */
int gw_lends_release(struct gw_lends *lends, const struct gw_wish *range, struct gw_error *err);

/* What a worker is to do next, releases first: they make room. NULL: nothing. */
struct gw_lend *gw_lends_next(struct gw_lends *lends);
/* [worker] Do it. 0, or a negative errno with err: it could not be registered. */
int gw_lend_work(struct gw_lend *lend, struct gw_error *err);
uint64_t gw_lend_bytes(const struct gw_lend *lend); /* [worker] too */
/* It is done, and to be told. */
void gw_lends_worked(struct gw_lends *lends, struct gw_lend *lend);

/* The next to be told of: a key (@key_bytes of @key), or, *released, a release that was carried out, whose
 * budget is the source's again from here on. False: none. */
bool gw_lends_tell(struct gw_lends *lends, struct gw_wish *range, bool *released,
                   uint8_t key[GW_KEY_BYTES_MAX], size_t *key_bytes);

uint64_t gw_lends_registered_peak(const struct gw_lends *lends);

#endif
