/* SPDX-License-Identifier: MIT */
/* tests/support/raw_peer.h - a source made of bare transport and control calls, which says exactly
 * what a test wants in the order it wants: for what no honest source would do. Blocks until done. */
#ifndef GW_TEST_RAW_PEER_H
#define GW_TEST_RAW_PEER_H

#include "control/channel.h"
#include "control/stream.h"

struct raw_source {
    unsigned hello_blocks; /* what hello says; 0: 8 */
    uint8_t session[GW_SESSION_BYTES];
    struct gw_domain *dom;
    struct gw_uri uri;
    struct gw_endpoint *control;
    struct gw_channel *channel;
    struct gw_endpoint *page[4];
    struct gw_channel *page_channel[4];
    unsigned page_count;
    struct gw_rmr *rmr;
    struct gw_mr *mr; /* one-sided wires: what raw_put() puts from, after raw_lend() */
    struct gw_hello reply;
    struct gw_token token;
};

/* Connects, says hello for one block of @bytes named "ram0", opens @pages page endpoints, offers the
 * block, waits for BLOCKS_OK, opens the stream. The caller dispatches the target's loop elsewhere. */
void raw_source_open(struct raw_source *raw, const char *uri, uint64_t bytes, unsigned pages,
                     uint64_t peer_timeout_ns);
/* The same in two halves: up to the page endpoints; then the offer, as far as it is to go. */
void raw_source_connect(struct raw_source *raw, const char *uri, uint64_t bytes, unsigned pages,
                        uint64_t peer_timeout_ns);
/* @count blocks of @bytes, "ram0" and on; does not wait for BLOCKS_OK. */
void raw_offer(struct raw_source *raw, uint64_t bytes, unsigned count);
void raw_say(struct gw_channel *channel, const struct gw_message *msg);
/* The next message of @type on the control endpoint; others are passed over. false: it ended. */
bool raw_hear(struct raw_source *raw, enum gw_message_type type, struct gw_message *msg);
/* One-sided wires: registers @local, asks for the key of as much of block 0 and waits for it. */
void raw_lend(struct raw_source *raw, void *local, uint64_t bytes);
/* Waits until it is done. */
void raw_put(struct raw_source *raw, unsigned page, const void *local, uint64_t offset,
             uint32_t bytes);
void raw_fence(struct raw_source *raw, unsigned page, uint32_t number, bool final);
/* One whole item of the savevm stream. */
void raw_item(struct raw_source *raw, const struct gw_writer *item);
void raw_ram_end(struct raw_source *raw);
void raw_device(struct raw_source *raw, const char *name, const void *body, size_t bytes);
void raw_eof(struct raw_source *raw);
void raw_prepare(struct raw_source *raw, uint32_t fence);
/* COMMIT or ACK. */
void raw_token(struct raw_source *raw, enum gw_message_type type);
/* Steps @channel until it ends; its error. */
int raw_until_silent(struct gw_endpoint *ep, struct gw_channel *channel, struct gw_error *err);
void raw_source_close(struct raw_source *raw);

#endif
