/* SPDX-License-Identifier: MIT */
/* control/channel.h - messages on one endpoint, control or page: byte credits, a bounded queue of
 * what waits to go out, heartbeats, and the judgement that the peer is dead.
 *
 * Credits: a credited message may leave only while the peer's grant covers its bytes; the receiver
 * grants again as it consumes. HEARTBEAT and CREDIT are never credited. Death: nothing received for
 * peer_timeout_ns (any byte counts, a put's payload too). A channel beats every peer_timeout / 4
 * if it has sent nothing else. Never blocks; belongs to its endpoint's thread. */
#ifndef GW_CONTROL_CHANNEL_H
#define GW_CONTROL_CHANNEL_H

#include "control/message.h"

struct gw_channel;

/* Which end we are. Known, a message that the peer may not send, or not on this endpoint, is
 * -EPROTO. */
enum gw_channel_side { GW_CHANNEL_ANY_SIDE, GW_CHANNEL_SOURCE, GW_CHANNEL_TARGET };

struct gw_channel_config {
    struct gw_endpoint *ep; /* borrowed */
    enum gw_channel_side side;
    uint64_t peer_timeout_ns; /* 0: 2 s */
    uint64_t window_bytes;    /* granted to the peer; 0: GW_CHANNEL_WINDOW_DEFAULT; at least one
                               * longest message. Both sides begin with GW_CHANNEL_GRANT_FIRST,
                               * before any CREDIT arrives. */
    uint64_t queue_bytes_max; /* out queue; 0: GW_CHANNEL_QUEUE_DEFAULT */
};

#define GW_CHANNEL_GRANT_FIRST (UINT64_C(64) << 10)
#define GW_CHANNEL_WINDOW_DEFAULT (UINT64_C(4) << 20)
#define GW_CHANNEL_QUEUE_DEFAULT (UINT64_C(4) << 20)

struct gw_channel *gw_channel_new(const struct gw_channel_config *config, struct gw_error *err);
void gw_channel_free(struct gw_channel *channel); /* not the endpoint; takes NULL */
void gw_channel_set_peer_timeout(struct gw_channel *channel, uint64_t peer_timeout_ns);

/* Send one message, or queue it (encoded and copied at once); messages keep their order. Return: 0;
 * -EAGAIN: the queue is full (only STREAM, BLOCKS, WISHES, KEYS ever see that: a reserve is kept
 * for the rest; a peer that lets even that fill up is -ENOBUFS, final), or it is a ZERO that cannot
 * leave at once: it is never queued, so that no put given to the endpoint later overtakes it;
 * -ENOMEM; -EINVAL or -EMSGSIZE: our mistake, nothing changed; or the endpoint's final error. */
int gw_channel_send(struct gw_channel *channel, const struct gw_message *msg);
/* A message of so many bytes, header included, would not see -EAGAIN for lack of room. */
bool gw_channel_has_room(const struct gw_channel *channel, size_t bytes);
/* The next message, valid until the next gw_channel_recv(). Handles HEARTBEAT and CREDIT itself.
 * Return: 1; 0: none now; negative: final, err set (-EPROTO: undecodable, out of place or beyond
 * its credit; the endpoint's own error; -ECONNRESET: the peer closed). Consuming grants new credit,
 * except what is held. */
int gw_channel_recv(struct gw_channel *channel, struct gw_message *msg, struct gw_error *err);
/* Keep bytes of messages received so far off the grant until released (buffered stream items); a
 * message's bytes count with its header. Who holds the whole window waits for ever. */
void gw_channel_hold(struct gw_channel *channel, uint64_t bytes);
void gw_channel_release(struct gw_channel *channel, uint64_t bytes);
/* Flush, grant, beat, judge. Return: 0, or negative with err (-ETIMEDOUT: silence). Messages that
 * had arrived before the failure are still returned by gw_channel_recv(), then the same error. Of
 * the time between two steps at most peer_timeout / 2 counts as silence: the rest was ours. */
int gw_channel_step(struct gw_channel *channel, uint64_t now_ns, struct gw_error *err);
/* Neither beat nor grant nor judge from now on: the peer's endpoint may be mute (rule 10 on a one-sided
 * wire). What waits still leaves, what arrives is still read. */
void gw_channel_hush(struct gw_channel *channel);
/* When it must be stepped again. */
uint64_t gw_channel_wake_ns(const struct gw_channel *channel);
/* Something waits here for credit or the wire. */
bool gw_channel_is_queued(const struct gw_channel *channel);
/* Messages that the endpoint took, HEARTBEAT and CREDIT too. */
uint64_t gw_channel_said(const struct gw_channel *channel);
/* Nothing waits here nor in the wire's buffer. */
bool gw_channel_is_flushed(const struct gw_channel *channel);

#endif
