/* SPDX-License-Identifier: MIT */
/* ram/peer.h - what this room has to say to the other side on one page endpoint. Core puts it into
 * messages (core/peer.c); ram knows no message. All calls: 0, -EAGAIN (say it again later; nothing
 * was said), or a final negative errno of the endpoint. */
#ifndef GW_RAM_PEER_H
#define GW_RAM_PEER_H

#include <stdint.h>

struct gw_zero_run { /* pages [first_page, first_page + pages) of @block are zero */
    uint32_t block;
    uint64_t first_page;
    uint64_t pages;
};

#define GW_ZERO_RUNS_MAX 1024 /* in one message */

struct gw_ram_peer_ops {
    int (*zero)(void *ctx, uint32_t number, const struct gw_zero_run *runs, unsigned count);
    int (*fence)(void *ctx, uint32_t number);
};

#endif
