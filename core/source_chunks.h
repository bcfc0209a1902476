/* SPDX-License-Identifier: MIT */
/* core/source_chunks.h - the source's engine on a one-sided wire: chunks made ready ahead of the data, and
 * taken back where the budget is short. All of it is the engine's thread. On other wires there is none
 * of it (src->making is NULL), and each of these does nothing. */
#ifndef GW_CORE_SOURCE_CHUNKS_H
#define GW_CORE_SOURCE_CHUNKS_H

#include "core/source.h"

/* After src->chunks was made and the number of page endpoints is known. */
int gw_source_chunks_open(struct gw_source *src, struct gw_error *err);
/* Register, sync, evict: whatever can be begun now. Return: when to step again. */
uint64_t gw_source_chunks_step(struct gw_source *src, uint64_t now_ns);
/* A chunk's sync is under way, or an owner has not yet got its bits: the stripes may not be synced. */
bool gw_source_chunks_sync(const struct gw_source *src);
/* No job is at a worker. */
bool gw_source_chunks_are_quiet(const struct gw_source *src);
/* Grows with whatever moves. */
uint64_t gw_source_chunks_moved(const struct gw_source *src);
/* Page endpoints are stopped: no chunk's visit is over any more. */
void gw_source_chunks_stop(struct gw_source *src);
/* Page endpoints are stopped, jobs quiet. Deregisters everything: may take long, so a job's to do. */
void gw_source_chunks_close(struct gw_source *src);

#endif
