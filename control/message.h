/* SPDX-License-Identifier: MIT */
/* control/message.h - the messages of the native wire: what they carry. Bytes: docs/protocol.md
 * section 3 and messages.def, from which the codec, the limits and the fuzz table are made. All
 * integers big-endian. A decoded message points into the buffer it was decoded from. */
#ifndef GW_CONTROL_MESSAGE_H
#define GW_CONTROL_MESSAGE_H

#include "core/base/error.h"
#include "transport/transport.h"

#include <stdbool.h>
#include <stdint.h>

#define GW_PROTOCOL_VERSION 1
#define GW_TOKEN_BYTES 16
#define GW_MESSAGE_HEADER_BYTES 8 /* be16 type, be16 flags, be32 zero */
#define GW_PAYLOAD_BYTES_MAX (1u << 20)
/* Of a page endpoint's messages, header included: there may be 255 such connections, and each has
 * buffers of this size. The longest is a full ZERO. */
#define GW_PAGE_MESSAGE_BYTES_MAX (32u << 10)

#define GW_PACKET_HEAD_BYTES 20u
#define GW_PACKET_DATA_BYTES_MAX                                                                   \
    (GW_PAGE_MESSAGE_BYTES_MAX - GW_MESSAGE_HEADER_BYTES - GW_PACKET_HEAD_BYTES)

#define GW_PACKETS_AHEAD_MAX 1024u   /* sent and not loaded */
#define GW_PACKET_CHARGE_BYTES 4096u /* besides its own: many small ones cost too */

/* What hello says for a cap of @bytes: one that holds no section worth the name is none. */
static inline uint64_t gw_packet_cap(uint64_t bytes)
{
    return bytes < 2 * (uint64_t)GW_PACKET_CHARGE_BYTES ? 0 : bytes;
}

/* What a packet of @bytes counts against hello's cap. */
static inline uint64_t gw_packet_charge(size_t bytes)
{
    return (uint64_t)bytes + GW_PACKET_CHARGE_BYTES;
}

enum gw_message_type {
    /* any endpoint; never credited */
    GW_MSG_HEARTBEAT = 1,
    GW_MSG_CREDIT = 2, /* be64: bytes of credited messages granted since the connection began */
    /* control endpoint, set-up */
    GW_MSG_HELLO = 16,       /* source -> target */
    GW_MSG_HELLO_REPLY = 17, /* target -> source */
    GW_MSG_BLOCKS = 18,      /* source -> target: some blocks; flag LAST on the last */
    GW_MSG_BLOCKS_OK = 19,   /* target -> source: all taken; per block whether it is fresh */
    GW_MSG_FAILED = 20,      /* either way, any time before COMMIT: why I end this */
    /* memory */
    GW_MSG_WISHES = 32,   /* source -> target */
    GW_MSG_KEYS = 33,     /* target -> source */
    GW_MSG_RELEASE = 34,  /* source -> target */
    GW_MSG_RELEASED = 35, /* target -> source */
    GW_MSG_JOINED = 36,   /* target -> source: fence n has arrived on every page endpoint */
    /* the savevm stream */
    GW_MSG_STREAM = 48, /* source -> target: bytes; flag LAST ends an item (see stream.h) */
    GW_MSG_LOADED = 49, /* target -> source: how much of it is loaded, and what it waits for */
    GW_MSG_PACKETS_LOADED = 50, /* target -> source: how many packets are loaded */
    /* handover */
    GW_MSG_PREPARE = 64,  /* source -> target: ASK-TO-PREPARE */
    GW_MSG_PREPARED = 65, /* target -> source */
    GW_MSG_COMMIT = 66,   /* source -> target */
    GW_MSG_OUTCOME = 67,  /* target -> source: RUNNING, DECLINED or VOID */
    GW_MSG_ACK = 68,      /* source -> target */
    GW_MSG_ABORT = 69,    /* source -> target, before COMMITTED: voids */
    GW_MSG_ASK = 70,      /* source -> target, first on a reconnected control endpoint */
    GW_MSG_UNKNOWN = 71,  /* target -> source: no such session here; proves nothing */
    /* page endpoints */
    GW_MSG_ZERO = 96,     /* source -> target: zero runs */
    GW_MSG_ZERO_ACK = 97, /* target -> source, one-sided wires */
    GW_MSG_FENCE = 98,    /* source -> target; flag LAST on the final one, before PREPARE */
    GW_MSG_PACKET = 99,   /* source -> target: bytes of a section; flag LAST ends it */
};

#define GW_MSG_FLAG_LAST 1u

enum gw_outcome { GW_OUTCOME_NONE, GW_OUTCOME_RUNNING, GW_OUTCOME_DECLINED, GW_OUTCOME_VOID };

#define GW_HELLO_DIGEST 1u /* source: digests are compared before COMMIT */
#define GW_HELLO_DEVICES                                                                           \
    2u /* source: some of its devices send before the pause; LOADED is wanted */

struct gw_hello { /* both directions; a field that a side does not use is zero */
    uint32_t version_min, version_max; /* of the protocol; the reply has both = the one chosen */
    uint32_t flags;                    /* GW_HELLO_* */
    uint32_t page_bytes;               /* 4096 */
    uint32_t endpoints;                /* page endpoints wanted; reply: granted */
    uint32_t message_payload_max;      /* longest payload this side takes */
    uint32_t blocks_max; /* source: how many blocks it has; target: how many it takes */
    uint64_t stripe_bytes;
    uint64_t ram_bytes;         /* source: all blocks together */
    uint64_t ram_bytes_max;     /* target: how much it takes */
    uint64_t section_bytes_max; /* target: longest item of the stream it buffers */
    uint64_t memlock_bytes;     /* what this side may register; UINT64_MAX: no limit */
    uint64_t peer_timeout_ns, settle_timeout_ns, hold_timeout_ns, device_timeout_ns;
    uint64_t incarnation;      /* target: random, one per process */
    uint8_t uuid[16];          /* of the machine; zero: none */
    char machine[256];         /* configuration section's name */
    char agent[64];            /* "godwit 0.1.0", for logs */
    uint64_t packet_bytes_max; /* device state beside the stream, under way; 0: none goes there */
    /* Page wires (core/wires.h). Source: names, best first; target: addresses, and why it lacks others. */
    char wires[256], wires_lacking[256];
};

struct gw_block_offer_msg {
    char name[256];
    uint64_t bytes;
    uint32_t page_bytes;
    uint32_t kind;  /* enum gw_block_kind */
    uint32_t flags; /* GW_BLOCK_* */
};

struct gw_range_msg { /* wishes, keys, releases, zero runs: bytes or pages by message */
    uint32_t block;
    uint64_t first; /* WISHES, KEYS, RELEASE*: byte offset; ZERO: page */
    uint64_t count;
    uint8_t key_bytes; /* KEYS only */
    uint8_t key[GW_KEY_BYTES_MAX];
};

struct gw_span {
    const uint8_t *data;
    size_t bytes;
};

struct gw_token {
    uint8_t random[GW_TOKEN_BYTES];
    uint64_t incarnation;
};

struct gw_message {
    enum gw_message_type type;
    uint16_t flags;
    union {
        struct gw_hello hello;
        struct gw_span list; /* BLOCKS, BLOCKS_OK, WISHES, KEYS, RELEASE, RELEASED: entries */
        struct gw_span data; /* STREAM */
        uint64_t credit;
        struct {                               /* LOADED */
            uint64_t items;                    /* of the stream that were taken, its header too */
            uint32_t acks_missing, acks_given; /* devices that have not acknowledged; all acks */
        } loaded;
        struct {              /* PACKET */
            uint32_t section; /* its id in the stream */
            uint64_t number;  /* of the packet, by section, from 1 */
            uint64_t items;   /* of the stream, that are loaded before it */
            struct gw_span data;
        } packet;
        struct { /* PACKETS_LOADED: since the session began; bytes as they count against the cap */
            uint64_t count, bytes;
        } packets;
        struct {
            uint32_t number;
            struct gw_span runs; /* entries as a cursor reads them */
        } zero;
        uint32_t number; /* FENCE, JOINED, ZERO_ACK */
        struct {
            struct gw_token token;
            uint32_t fence;  /* PREPARE: the number of the final fence */
            bool has_digest; /* PREPARE, PREPARED */
            uint8_t digest[16];
            uint64_t revoke_ns, digest_ns, load_ns; /* PREPARED: ledger rows of the target */
        } prepare;
        struct {
            struct gw_token token;
            enum gw_outcome outcome;
            uint64_t acquire_ns, resume_ns; /* RUNNING: ledger rows */
            struct gw_error error;          /* DECLINED, VOID: why (peer's words; made printable) */
        } outcome;
        struct gw_token token; /* COMMIT, ACK */
        struct {
            struct gw_token token; /* ABORT; zero before PREPARE */
            struct gw_error error; /* FAILED, ABORT */
        } failed;
        struct {
            uint8_t session[GW_SESSION_BYTES];
            struct gw_token token;
            uint32_t attempt; /* counts from 1 */
        } ask;                /* ASK; UNKNOWN: session only */
    } u;
};

/* Write @msg as bytes. Return: length, or -EMSGSIZE (does not fit), -EINVAL (our mistake). */
ssize_t gw_message_encode(const struct gw_message *msg, void *buf, size_t bytes);
/* Return: 0, or -EPROTO with err saying which message and field. Checks every length, range of
 * enumerations, entries of lists (whole) and that nothing is left over; text is made printable. */
int gw_message_decode(const void *buf, size_t bytes, struct gw_message *msg, struct gw_error *err);
const char *gw_message_name(enum gw_message_type type); /* "HELLO"; "?" if unknown */
bool gw_message_is_credited(enum gw_message_type type);

/* ---- lists: build and read ------------------------------------------------------------------ */

struct gw_list_builder { /* the caller's buffer; what is in it is u.list / u.zero.runs */
    uint8_t *buf;
    size_t bytes, used;
};
/* Return: 0, -ENOSPC (send what is there, begin another), or -EINVAL: a name that is empty or has a
 * byte outside of printable ASCII (names are compared, so the wire refuses what it cannot show). */
int gw_list_add_block(struct gw_list_builder *list, const struct gw_block_offer_msg *block);
int gw_list_add_fresh(struct gw_list_builder *list, bool fresh); /* BLOCKS_OK: in block order */
int gw_list_add_range(struct gw_list_builder *list, enum gw_message_type type,
                      const struct gw_range_msg *range);

struct gw_list_cursor {
    const uint8_t *at, *end;
};
void gw_list_begin(struct gw_list_cursor *cursor, struct gw_span list);
/* Return false at the end. Entries were checked by decode, so these cannot fail. */
bool gw_list_next_block(struct gw_list_cursor *cursor, struct gw_block_offer_msg *block);
bool gw_list_next_fresh(struct gw_list_cursor *cursor, bool *fresh);
bool gw_list_next_range(struct gw_list_cursor *cursor, enum gw_message_type type,
                        struct gw_range_msg *range);

#endif
