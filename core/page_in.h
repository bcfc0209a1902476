/* SPDX-License-Identifier: MIT */
/* core/page_in.h - one page endpoint at the target: its thread, its channel, its placer. */
#ifndef GW_CORE_PAGE_IN_H
#define GW_CORE_PAGE_IN_H

#include "core/packet.h"
#include "ram/place.h"

struct gw_page_in;

struct gw_page_in_config {
    unsigned owner; /* endpoint index - 1 */
    struct gw_ram *ram;
    uint64_t peer_timeout_ns;
    struct gw_inbox *engine_inbox; /* reports come by mail, with the engine as first argument */
    /* Fence @number has arrived: all puts before it on this endpoint are in memory. */
    void (*fenced)(void *engine, unsigned owner, uint32_t number, bool final);
    void (*revoked)(void *engine, unsigned owner);
    void (*lost)(void *engine, unsigned owner, const struct gw_error *err);
    struct gw_packet_pot *packets; /* shared by the session's endpoints */
};

struct gw_page_in_stats {
    uint64_t rx_bytes, copied_bytes, system_calls, placed_pages, zero_pages;
};

/* The placer is needed before the endpoint exists (it is the endpoint's gw_place_ops context). */
struct gw_page_in *gw_page_in_new(const struct gw_page_in_config *config, struct gw_error *err);
struct gw_placer *gw_page_in_placer(struct gw_page_in *in);
/* Takes @ep over, also on failure. */
int gw_page_in_start(struct gw_page_in *in, struct gw_endpoint *ep, struct gw_error *err);
/* Memory is ready, BLOCKS_OK is about to be said: zero runs and fences may come from here on. */
void gw_page_in_open(struct gw_page_in *in);
/* The peer can place nothing more; answered by revoked(). */
void gw_page_in_revoke(struct gw_page_in *in);
/* Ends the thread and closes the endpoint, before gw_page_in_open(): another may be started. */
void gw_page_in_halt(struct gw_page_in *in);
/* Ends the thread, closes the endpoint, frees. Takes NULL. */
void gw_page_in_stop(struct gw_page_in *in);
void gw_page_in_stats(const struct gw_page_in *in, struct gw_page_in_stats *stats);

#endif
