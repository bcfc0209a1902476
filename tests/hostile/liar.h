/* SPDX-License-Identifier: MIT */
/* tests/hostile/liar.h - a relay between an honest source and an honest target, on loopback tcp or on
 * unix sockets (where the target is), which tells one of them a lie: to that side its peer is hostile, and conforms until it lies. It passes
 * whole frames on, so a lie stands at a frame's edge or inside of one, wherever the test wants it. A
 * thread of its own; hooks run on it, under its lock. */
#ifndef GW_TEST_HOSTILE_LIAR_H
#define GW_TEST_HOSTILE_LIAR_H

#include "control/message.h"

#include <stdbool.h>

enum liar_way { LIAR_TO_TARGET, LIAR_TO_SOURCE };

/* What a byte of a flow is. */
enum liar_class {
    LIAR_PREFACE,
    LIAR_FRAME_HEAD,
    LIAR_TABLE,   /* of a put: region, bytes, offset */
    LIAR_PAYLOAD, /* of a put: guest memory */
    LIAR_MESSAGE,
};

struct liar_mark { /* bytes [at, at + bytes) of a flow */
    enum liar_class class;
    enum gw_message_type type; /* LIAR_MESSAGE */
    uint64_t at, bytes;
};

#define LIAR_MARKS_MAX 512
#define LIAR_ENDPOINTS 3 /* control and two page endpoints; the first connection of each */

struct liar_record { /* a flow, as it was forwarded */
    struct liar_mark marks[LIAR_MARKS_MAX];
    unsigned mark_count;
    uint64_t bytes;
};

struct liar;

struct
    liar_event { /* a frame, or a preface or answer (@type 0, @is_preface), before it is passed on */
    enum liar_way way;
    unsigned endpoint; /* index in the preface */
    unsigned ordinal;  /* of the connections with that index, from 0 */
    bool is_preface, is_put;
    enum gw_message_type type; /* neither */
    unsigned nth;              /* of its type on its way, over all connections, from 1 */
    const uint8_t *frame;
    size_t bytes;
};

/* Return: pass the frame on. What it says goes out before the frame. */
typedef bool liar_hook_fn(struct liar *liar, void *ctx, const struct liar_event *event);

struct liar_config {
    const char *target_uri;
    liar_hook_fn *hook; /* may be NULL */
    void *ctx;
    /* Byte lies, on one flow: endpoint, way. */
    bool flips, cuts;
    unsigned endpoint;
    enum liar_way way;
    uint64_t at;  /* offset into the flow */
    uint8_t mask; /* flips: xor */
};

struct liar *liar_new(const struct liar_config *config);
void liar_free(struct liar *liar);
const char *liar_uri(const struct liar *liar);
bool liar_has_lied(struct liar *liar); /* the byte was there to be flipped or cut; or liar_lied() */
unsigned liar_control_connections(struct liar *liar); /* that the source has made so far */
/* Only after both sides have ended. */
const struct liar_record *liar_record(struct liar *liar, unsigned endpoint, enum liar_way way);

/* In a hook: put bytes behind what has been passed on, on the latest connection of @endpoint. */
void liar_raw(struct liar *liar, unsigned endpoint, enum liar_way way, const void *bytes,
              size_t count);
/* The same, as a message in its frame. */
void liar_say(struct liar *liar, unsigned endpoint, enum liar_way way, const void *message,
              size_t bytes);
void liar_lied(struct liar *liar);
/* From now on nothing that comes from this side is read; what is said to it still is. */
void liar_deafen(struct liar *liar, enum liar_way way);
/* From now on frames of this way are dropped; what liar_say() says passes. */
void liar_drop_rest(struct liar *liar, enum liar_way way);
/* Say @message on that flow as often as the peer takes it, until the connection ends. */
void liar_flood(struct liar *liar, unsigned endpoint, enum liar_way way, const void *message,
                size_t bytes, uint64_t times);
/* Beat for the silenced: a HEARTBEAT on every connection to @way every 20 ms. */
void liar_beat(struct liar *liar, enum liar_way way);

#endif
