/* SPDX-License-Identifier: MIT */
/* ram/send.h - one page endpoint's sender: a step engine that takes the dirty pages of its stripes
 * to the peer. Owned by the endpoint's thread, as are its stripes' bits while it sends. */
#ifndef GW_RAM_SEND_H
#define GW_RAM_SEND_H

#include "ram/block.h"
#include "ram/chunk.h"
#include "ram/sink.h"

struct gw_sender;

struct gw_sender_config {
    struct gw_ram *ram;
    struct gw_chunks *chunks; /* which chunks may be sent from */
    unsigned owner;           /* whose stripes */
    struct gw_sink *sink;     /* borrowed */
    /* How many of @want bytes may go now (max-bandwidth); 0: ask again later. NULL: no limit. */
    uint64_t (*budget)(void *ctx, uint64_t want);
    /* Give back what was granted and not used. */
    void (*refund)(void *ctx, uint64_t bytes);
    void *budget_ctx;
};

enum gw_send_state {
    GW_SEND_IDLE,    /* nothing begun, or the last round's fence has been said */
    GW_SEND_BUSY,    /* progress was made: step again at once */
    GW_SEND_BLOCKED, /* the sink is full: step again when the endpoint is ready */
    GW_SEND_BUDGET,  /* the budget is empty: step again within a few ms */
    GW_SEND_CHUNKS,  /* all that is left lies in chunks that are not ready: step again when
                        gw_chunks_generation() has changed */
};

struct gw_sender_stats {      /* since gw_sender_new() */
    uint64_t normal_pages;    /* sent with their content */
    uint64_t duplicate_pages; /* found zero, holes included */
    uint64_t bytes;           /* page bytes handed to the sink */
    uint64_t zero_messages;
};

struct gw_sender *gw_sender_new(const struct gw_sender_config *config, struct gw_error *err);
/* Sets the bits of every run that was not completed well (rule 7), then frees. The endpoint must be
 * shut down or quiet: close means quiet. */
void gw_sender_free(struct gw_sender *sender);

/* Begin to send every dirty page of the owner's stripes once, then fence @number. Only when idle.
 * @holes: say the holes of blocks that are not fresh at the target, too (first round). */
void gw_sender_begin(struct gw_sender *sender, uint32_t number, bool holes);
/* One bounded step (at most a few ms). Return: enum gw_send_state, or a negative errno: the
 * endpoint is lost, bits of everything not completed are set again. */
int gw_sender_step(struct gw_sender *sender, uint64_t now_ns);
/* The peer has applied zero messages up to and including @number (one-sided wires). */
void gw_sender_zero_acked(struct gw_sender *sender, uint32_t number);
/* One-sided wires: say a zero message now, runs or none in it, behind all that was put so far. Return: its
 * number; 0: it cannot be said now; a negative errno: the endpoint is lost. */
int64_t gw_sender_mark(struct gw_sender *sender);
/* Is the zero message @number acknowledged? Then all that was put before it is in place (rule 1). */
bool gw_sender_mark_is_passed(const struct gw_sender *sender, uint32_t number);
/* Is any page of @range said to the sink and not reaped, or about to be? For eviction. */
bool gw_sender_holds(const struct gw_sender *sender, const struct gw_wish *range);
/* Dirty pages left in the owner's stripes: exact. Counts all of the owner's bits: not for each step. */
uint64_t gw_sender_remaining(const struct gw_sender *sender);
/* As of the last step; [any thread]: relaxed atomics. */
void gw_sender_stats(const struct gw_sender *sender, struct gw_sender_stats *stats);

#endif
