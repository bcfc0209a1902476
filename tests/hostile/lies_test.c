// SPDX-License-Identifier: MIT
/* Lies by name: lengths and counts at their limits and one past them, ids twice and out of order, memory
 * that was not lent, tokens and digests of another session, credit that was not given. Each row says
 * which message it replaces or follows, and what one of the two sides must say about it; the judgement
 * of session.h holds for both. */
#include "control/codec.h"
#include "control/stream.h"
#include "ram/peer.h"
#include "tests/hostile/session.h"
#include "tests/shim/gw_test.h"
#include "transport/stream.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LIE_BYTES_MAX (4u << 20)

struct lie;

struct teller {
    const struct lie *lie;
    bool told;
    uint8_t *bytes; /* LIE_BYTES_MAX, for the message it makes */
};

/* The message at @event, or what to say in its place; return its length, 0: say nothing. */
typedef size_t make_fn(const struct lie *lie, const struct gw_message *honest, uint8_t *bytes);

static const struct lie {
    const char *name;
    enum liar_way way;
    enum gw_message_type at; /* 0: the nth put */
    unsigned nth;
    make_fn *make;
    bool replaces;
    bool digest;
    enum { ON_THE_SAME, ON_CONTROL, ON_PAGES } on; /* where it is said; the first: where @at was */
    const char *heard;                             /* part of what either side says */
    uint64_t value;
    bool has_handlers; /* of the source's devices one sends before the pause */
    bool has_packets;  /* of one the state goes beside the stream */
} lies[];

static size_t encode(const struct gw_message *msg, uint8_t *bytes)
{
    ssize_t length = gw_message_encode(msg, bytes, LIE_BYTES_MAX);
    GW_EXPECT_GT(length, 0);
    return (size_t)length;
}

static size_t head(uint8_t *bytes, enum gw_message_type type, uint16_t flags)
{
    memset(bytes, 0, GW_MESSAGE_HEADER_BYTES);
    gw_be16_store(bytes, (uint16_t)type);
    gw_be16_store(bytes + 2, flags);
    return GW_MESSAGE_HEADER_BYTES;
}

/* ---- hello ---------------------------------------------------------------------------------------- */

#define HELLO_LIE(field)                                                                           \
    static size_t hello_##field(const struct lie *lie, const struct gw_message *honest,            \
                                uint8_t *bytes)                                                    \
    {                                                                                              \
        struct gw_message msg = *honest;                                                           \
        msg.u.hello.field = (__typeof__(msg.u.hello.field))lie->value;                             \
        return encode(&msg, bytes);                                                                \
    }
HELLO_LIE(ram_bytes)
HELLO_LIE(blocks_max)
HELLO_LIE(endpoints)
HELLO_LIE(message_payload_max)
HELLO_LIE(stripe_bytes)
HELLO_LIE(flags)
HELLO_LIE(page_bytes)
HELLO_LIE(peer_timeout_ns)
HELLO_LIE(settle_timeout_ns)
HELLO_LIE(device_timeout_ns)
HELLO_LIE(section_bytes_max)
HELLO_LIE(packet_bytes_max)
HELLO_LIE(incarnation)
HELLO_LIE(ram_bytes_max)
#undef HELLO_LIE

/* ---- blocks ---------------------------------------------------------------------------------------- */

static size_t one_block(uint8_t *bytes, const char *name, size_t name_bytes, uint64_t size,
                        uint32_t page_bytes)
{
    size_t at = 0;
    bytes[at++] = (uint8_t)name_bytes;
    memcpy(bytes + at, name, name_bytes);
    at += name_bytes;
    gw_be64_store(bytes + at, size);
    gw_be32_store(bytes + at + 8, page_bytes);
    gw_be32_store(bytes + at + 12, 0);
    gw_be32_store(bytes + at + 16, 0);
    return at + 20;
}

static size_t blocks_sized(const struct lie *lie, const struct gw_message *honest, uint8_t *bytes)
{
    (void)honest;
    size_t at = head(bytes, GW_MSG_BLOCKS, GW_MSG_FLAG_LAST);
    return at + one_block(bytes + at, "ram0", 4, lie->value, 4096);
}

static size_t blocks_named(const struct lie *lie, const struct gw_message *honest, uint8_t *bytes)
{
    static const char name[256] = "ram";
    char copy[256];
    (void)honest;
    memcpy(copy, name, sizeof(copy));
    memset(copy + 3, 'x', 252);
    copy[1] = (char)(lie->value >> 8);
    size_t at = head(bytes, GW_MSG_BLOCKS, GW_MSG_FLAG_LAST);
    return at + one_block(bytes + at, copy, lie->value & 255, 65536, 4096);
}

static size_t blocks_twice(const struct lie *lie, const struct gw_message *honest, uint8_t *bytes)
{
    (void)lie, (void)honest;
    size_t at = head(bytes, GW_MSG_BLOCKS, GW_MSG_FLAG_LAST);
    at += one_block(bytes + at, "ram0", 4, SESSION_BLOCK_BYTES, 4096);
    return at + one_block(bytes + at, "ram0", 4, SESSION_BLOCK_BYTES, 4096);
}

/* As many as fit one message, of one page each; the honest ones follow. */
static size_t blocks_many(const struct lie *lie, const struct gw_message *honest, uint8_t *bytes)
{
    (void)honest;
    size_t at = head(bytes, GW_MSG_BLOCKS, lie->value > 40000 ? GW_MSG_FLAG_LAST : 0);
    for (uint64_t i = 0; i < lie->value && at < GW_PAYLOAD_BYTES_MAX - 64; i++) {
        char name[16];
        int name_bytes = snprintf(name, sizeof(name), "b%llx", (unsigned long long)i);
        at += one_block(bytes + at, name, (size_t)name_bytes, 4096, 4096);
    }
    return at;
}

static size_t blocks_ok_of(const struct lie *lie, const struct gw_message *honest, uint8_t *bytes)
{
    (void)honest;
    size_t at = head(bytes, GW_MSG_BLOCKS_OK, 0);
    memset(bytes + at, 1, lie->value);
    return at + lie->value;
}

/* ---- numbers ----------------------------------------------------------------------------------------- */

/* Of the honest message, the first 32 bits of its body: a FENCE's, a JOINED's, a ZERO's number. */
static size_t numbered(const struct lie *lie, const struct gw_message *honest, uint8_t *bytes)
{
    size_t length = encode(honest, bytes);
    gw_be32_store(bytes + GW_MESSAGE_HEADER_BYTES, (uint32_t)lie->value);
    return length;
}

static size_t again(const struct lie *lie, const struct gw_message *honest, uint8_t *bytes)
{
    (void)lie;
    return encode(honest, bytes);
}

static size_t flagged_last(const struct lie *lie, const struct gw_message *honest, uint8_t *bytes)
{
    struct gw_message msg = *honest;
    (void)lie;
    msg.flags = GW_MSG_FLAG_LAST;
    return encode(&msg, bytes);
}

static size_t sized(const struct lie *lie, const struct gw_message *honest, uint8_t *bytes)
{
    size_t length = encode(honest, bytes);
    if (length < lie->value)
        memset(bytes + length, 0, lie->value - length);
    return lie->value;
}

/* ---- credit -------------------------------------------------------------------------------------------- */

static size_t credit_of(const struct lie *lie, const struct gw_message *honest, uint8_t *bytes)
{
    struct gw_message msg = {.type = GW_MSG_CREDIT};
    (void)honest;
    msg.u.credit = lie->value;
    return encode(&msg, bytes);
}

static size_t loaded_of(const struct lie *lie, const struct gw_message *honest, uint8_t *bytes)
{
    struct gw_message msg = {.type = GW_MSG_LOADED};
    (void)honest;
    msg.u.loaded.items = lie->value;
    return encode(&msg, bytes);
}

static size_t loaded_items(const struct lie *lie, const struct gw_message *honest, uint8_t *bytes)
{
    struct gw_message msg = *honest;
    msg.u.loaded.items = lie->value;
    return encode(&msg, bytes);
}

/* ---- packets ------------------------------------------------------------------------------------------- */

enum packet_lie {
    SECTION_RAM,
    SECTION_NONE,
    NUMBER_0,
    NUMBER_MAX,
    ITEMS_MAX,
    NOT_A_PART,
    NOT_LAST
};

static size_t packet_of(const struct lie *lie, const struct gw_message *honest, uint8_t *bytes)
{
    uint8_t data[256];
    struct gw_message msg = *honest;
    gw_assert(msg.u.packet.data.bytes <= sizeof(data));
    memcpy(data, msg.u.packet.data.data, msg.u.packet.data.bytes);
    msg.u.packet.data.data = data;
    if (lie->value == SECTION_RAM || lie->value == SECTION_NONE)
        msg.u.packet.section = lie->value == SECTION_RAM ? 1 : 99;
    if (lie->value == NUMBER_MAX)
        msg.u.packet.number = UINT64_MAX;
    if (lie->value == ITEMS_MAX)
        msg.u.packet.items = UINT64_MAX;
    if (lie->value == NOT_A_PART)
        data[0] = GW_ITEM_END;
    if (lie->value == NOT_LAST)
        msg.flags = 0;
    size_t length = encode(&msg, bytes);
    if (lie->value == NUMBER_0)
        memset(bytes + GW_MESSAGE_HEADER_BYTES + 4, 0, 8);
    return length;
}

/* Of bytes that are a section to nobody. */
static size_t packet_made(const struct lie *lie, const struct gw_message *honest, uint8_t *bytes)
{
    static const uint8_t zeros[GW_PACKET_DATA_BYTES_MAX];
    struct gw_message msg = {.type = GW_MSG_PACKET, .flags = GW_MSG_FLAG_LAST};
    (void)honest;
    msg.u.packet.section = 3;
    msg.u.packet.number = 1;
    msg.u.packet.data = (struct gw_span){.data = zeros, .bytes = lie->value};
    return encode(&msg, bytes);
}

static size_t packets_loaded(const struct lie *lie, const struct gw_message *honest, uint8_t *bytes)
{
    struct gw_message msg = {.type = GW_MSG_PACKETS_LOADED};
    (void)honest;
    msg.u.packets.count = msg.u.packets.bytes = lie->value;
    return encode(&msg, bytes);
}

/* ---- pages --------------------------------------------------------------------------------------------- */

static size_t zero_of(const struct lie *lie, const struct gw_message *honest, uint8_t *bytes)
{
    static const struct {
        uint32_t block;
        uint64_t first, count;
    } runs[] = {{0, 8, 1},          {0, 0, 9},          {0, UINT64_C(1) << 40, 1},
                {2, 0, 1},          {UINT32_MAX, 0, 1}, {0, (UINT64_C(1) << 52) - 1, 2},
                {0, UINT64_MAX, 2}, {0, 0, 0},          {0, 0, UINT64_MAX},
                {1, 0, 1}};
    (void)honest;
    size_t at = head(bytes, GW_MSG_ZERO, 0);
    gw_be32_store(bytes + at, 1);
    at += 4;
    uint64_t count = lie->value < 100 ? 1 : lie->value;
    for (uint64_t i = 0; i < count; i++) {
        unsigned run = lie->value < 100 ? (unsigned)lie->value : 0;
        gw_be32_store(bytes + at, runs[run].block);
        gw_be64_store(bytes + at + 4, lie->value < 100 ? runs[run].first : 0);
        gw_be64_store(bytes + at + 12, runs[run].count);
        at += 20;
    }
    return at;
}

/* ---- the stream ------------------------------------------------------------------------------------------ */

static size_t item_of(uint8_t *bytes, const struct gw_writer *w)
{
    size_t at = head(bytes, GW_MSG_STREAM, GW_MSG_FLAG_LAST);
    memcpy(bytes + at, w->data, w->bytes);
    return at + w->bytes;
}

enum item { ITEM_HEADER, ITEM_END_TWICE, ITEM_UNKNOWN_DEVICE, ITEM_EMPTY, ITEM_COMMAND, ITEM_PART };

static size_t stream_item(const struct lie *lie, const struct gw_message *honest, uint8_t *bytes)
{
    struct gw_section section = {.type = GW_ITEM_FULL, .section_id = 9, .idstr = "nobody"};
    struct gw_writer w;
    (void)honest;
    gw_writer_init(&w, 4096);
    switch ((enum item)lie->value) {
    case ITEM_HEADER:
        gw_stream_write_header(&w, "other");
        break;
    case ITEM_END_TWICE:
    case ITEM_PART:
        section = (struct gw_section){.type = lie->value == ITEM_PART ? GW_ITEM_PART : GW_ITEM_END,
                                      .section_id = 1};
        /* fall through */
    case ITEM_UNKNOWN_DEVICE:
        gw_stream_write_section(&w, &section);
        gw_writer_be64(&w, 0x10);
        gw_stream_write_footer(&w, section.section_id);
        break;
    case ITEM_EMPTY:
        break;
    case ITEM_COMMAND:
        gw_writer_u8(&w, GW_ITEM_COMMAND);
        break;
    }
    size_t length = w.bytes ? item_of(bytes, &w) : head(bytes, GW_MSG_STREAM, GW_MSG_FLAG_LAST);
    gw_writer_fini(&w);
    return length;
}

/* ---- the handover ------------------------------------------------------------------------------------------ */

static size_t other_token(const struct lie *lie, const struct gw_message *honest, uint8_t *bytes)
{
    size_t length = encode(honest, bytes);
    bytes[GW_MESSAGE_HEADER_BYTES + lie->value] ^= 1;
    return length;
}

static size_t other_digest(const struct lie *lie, const struct gw_message *honest, uint8_t *bytes)
{
    struct gw_message msg = *honest;
    msg.u.prepare.digest[lie->value] ^= 1;
    return encode(&msg, bytes);
}

static size_t no_digest(const struct lie *lie, const struct gw_message *honest, uint8_t *bytes)
{
    struct gw_message msg = *honest;
    (void)lie;
    msg.u.prepare.has_digest = false;
    return encode(&msg, bytes);
}

/* The token of PREPARED, said to have run before anybody committed it. */
static size_t outcome_of(const struct lie *lie, const struct gw_message *honest, uint8_t *bytes)
{
    struct gw_message msg = {.type = GW_MSG_OUTCOME};
    msg.u.outcome.token = honest->u.prepare.token;
    msg.u.outcome.outcome = (enum gw_outcome)lie->value;
    msg.u.outcome.error = (struct gw_error)GW_ERROR_INIT;
    return encode(&msg, bytes);
}

#define T LIAR_TO_TARGET
#define S LIAR_TO_SOURCE
#define NAME(bytes, second) ((bytes) | (uint64_t)(uint8_t)(second) << 8)

/* clang-format off */
static const struct lie lies[] = {
    {"hello_ram_2_63",       T, GW_MSG_HELLO, 1, hello_ram_bytes, true, .value = UINT64_C(1) << 63, .heard = "memory that hello said"},
    {"hello_ram_odd",        T, GW_MSG_HELLO, 1, hello_ram_bytes, true, .value = 65537, .heard = "not a number of pages"},
    {"hello_ram_0",          T, GW_MSG_HELLO, 1, hello_ram_bytes, true, .value = 0, .heard = "more memory is offered"},
    {"hello_blocks_32769",   T, GW_MSG_HELLO, 1, hello_blocks_max, true, .value = 32769, .heard = "32769 memory blocks"},
    {"hello_endpoints_0",    T, GW_MSG_HELLO, 1, hello_endpoints, true, .value = 0, .heard = "no page endpoints"},
    {"hello_endpoints_max",  T, GW_MSG_HELLO, 1, hello_endpoints, true, .value = UINT32_MAX, .heard = "page endpoints"},
    {"hello_payload_0",      T, GW_MSG_HELLO, 1, hello_message_payload_max, true, .value = 0, .heard = "messages of 0 bytes"},
    {"hello_payload_4095",   T, GW_MSG_HELLO, 1, hello_message_payload_max, true, .value = 4095, .heard = "messages of 4095 bytes"},
    {"hello_stripe_0",       T, GW_MSG_HELLO, 1, hello_stripe_bytes, true, .value = 0, .heard = "stripes of 0"},
    {"hello_stripe_odd",     T, GW_MSG_HELLO, 1, hello_stripe_bytes, true, .value = 4096, .heard = "stripes of 4096"},
    {"hello_stripe_2_63",    T, GW_MSG_HELLO, 1, hello_stripe_bytes, true, .value = UINT64_C(1) << 63, .heard = "stripes of"},
    {"hello_flags_all",      T, GW_MSG_HELLO, 1, hello_flags, true, .value = UINT32_MAX, .heard = "features"},
    {"hello_page_bytes_0",   T, GW_MSG_HELLO, 1, hello_page_bytes, true, .value = 0, .heard = "pages of 0"},
    {"hello_peer_timeout_0", T, GW_MSG_HELLO, 1, hello_peer_timeout_ns, true, .value = 0, .heard = "time-out"},
    {"hello_peer_timeout_max", T, GW_MSG_HELLO, 1, hello_peer_timeout_ns, true, .value = UINT64_MAX, .heard = "time-out"},
    {"hello_settle_max",     T, GW_MSG_HELLO, 1, hello_settle_timeout_ns, true, .value = UINT64_MAX, .heard = "time-out"},
    {"hello_device_max",     T, GW_MSG_HELLO, 1, hello_device_timeout_ns, true, .value = UINT64_MAX, .heard = "time-out"},
    {"blocks_repeated",      T, GW_MSG_BLOCKS, 1, again, .heard = "BLOCKS after"},

    {"reply_endpoints_0",    S, GW_MSG_HELLO_REPLY, 1, hello_endpoints, true, .value = 0, .heard = "grants 0 page endpoints"},
    {"reply_endpoints_3",    S, GW_MSG_HELLO_REPLY, 1, hello_endpoints, true, .value = 3, .heard = "grants 3 page endpoints"},
    {"reply_endpoints_max",  S, GW_MSG_HELLO_REPLY, 1, hello_endpoints, true, .value = UINT32_MAX, .heard = "page endpoints"},
    {"reply_payload_0",      S, GW_MSG_HELLO_REPLY, 1, hello_message_payload_max, true, .value = 0, .heard = "messages of 0 bytes"},
    {"reply_stripe_other",   S, GW_MSG_HELLO_REPLY, 1, hello_stripe_bytes, true, .value = 2u << 20, .heard = "stripes of"},
    {"reply_page_bytes",     S, GW_MSG_HELLO_REPLY, 1, hello_page_bytes, true, .value = 8192, .heard = "pages of 8192"},
    {"reply_section_0",      S, GW_MSG_HELLO_REPLY, 1, hello_section_bytes_max, true, .value = 0, .heard = "savevm stream"},
    {"reply_incarnation_0",  S, GW_MSG_HELLO_REPLY, 1, hello_incarnation, true, .value = 0, .heard = "no incarnation"},
    {"reply_incarnation_other", S, GW_MSG_HELLO_REPLY, 1, hello_incarnation, true, .value = 1, .heard = "incarnation"},
    {"reply_ram_max_0",      S, GW_MSG_HELLO_REPLY, 1, hello_ram_bytes_max, true, .value = 0, .heard = "takes at most 0"},
    {"reply_blocks_max_1",   S, GW_MSG_HELLO_REPLY, 1, hello_blocks_max, true, .value = 1, .heard = "takes at most 1"},
    {"reply_settle_0",       S, GW_MSG_HELLO_REPLY, 1, hello_settle_timeout_ns, true, .value = 0, .heard = "settles for 0"},
    {"reply_flags",          S, GW_MSG_HELLO_REPLY, 1, hello_flags, true, .value = 1, .heard = "features 0x1"},
    {"reply_twice",          S, GW_MSG_HELLO_REPLY, 1, again, .heard = "a second HELLO_REPLY"},

    {"block_of_2_63",        T, GW_MSG_BLOCKS, 1, blocks_sized, true, .value = UINT64_C(1) << 63, .heard = "more memory is offered"},
    {"block_of_0",           T, GW_MSG_BLOCKS, 1, blocks_sized, true, .value = 0, .heard = "are not a number of pages"},
    {"block_of_one_byte",    T, GW_MSG_BLOCKS, 1, blocks_sized, true, .value = 4097, .heard = "are not a number of pages"},
    {"block_missing",        T, GW_MSG_BLOCKS, 1, blocks_sized, true, .value = 4096, .heard = "not the memory that hello said"},
    {"block_name_control",   T, GW_MSG_BLOCKS, 1, blocks_named, true, .value = NAME(4, '\n'), .heard = "byte 0x0a"},
    {"block_name_nul",       T, GW_MSG_BLOCKS, 1, blocks_named, true, .value = NAME(4, '\0'), .heard = "byte 0x00"},
    {"block_name_high",      T, GW_MSG_BLOCKS, 1, blocks_named, true, .value = NAME(4, 0xff), .heard = "byte 0xff"},
    {"block_name_empty",     T, GW_MSG_BLOCKS, 1, blocks_named, true, .value = NAME(0, 'a'), .heard = "without a name"},
    {"block_name_255",       T, GW_MSG_BLOCKS, 1, blocks_named, true, .value = NAME(255, 'a'), .heard = "no such block"},
    {"block_name_twice",     T, GW_MSG_BLOCKS, 1, blocks_twice, true, .heard = "the name is taken"},
    {"blocks_too_many",      T, GW_MSG_BLOCKS, 1, blocks_many, true, .value = 40001, .heard = "more blocks are offered"},
    {"blocks_again",         T, GW_MSG_FENCE, 1, blocks_twice, .on = ON_CONTROL, .heard = "BLOCKS after the list was complete"},
    {"blocks_ok_of_0",       S, GW_MSG_BLOCKS_OK, 1, blocks_ok_of, true, .value = 0, .heard = "BLOCKS_OK for 0 blocks"},
    {"blocks_ok_of_1",       S, GW_MSG_BLOCKS_OK, 1, blocks_ok_of, true, .value = 1, .heard = "BLOCKS_OK for 1 blocks"},
    {"blocks_ok_of_3",       S, GW_MSG_BLOCKS_OK, 1, blocks_ok_of, true, .value = 3, .heard = "BLOCKS_OK for 3 blocks"},
    {"blocks_ok_of_2_20",    S, GW_MSG_BLOCKS_OK, 1, blocks_ok_of, true, .value = 1u << 20, .heard = "BLOCKS_OK for 1048576 blocks"},
    {"blocks_ok_twice",      S, GW_MSG_BLOCKS_OK, 1, again, .heard = "BLOCKS_OK for"},

    {"fence_0",              T, GW_MSG_FENCE, 1, numbered, true, .value = 0, .heard = "fence 0"},
    {"fence_2",              T, GW_MSG_FENCE, 1, numbered, true, .value = 2, .heard = "fence 2"},
    {"fence_max",            T, GW_MSG_FENCE, 1, numbered, true, .value = UINT32_MAX, .heard = "fence 4294967295"},
    {"fence_twice",          T, GW_MSG_FENCE, 1, again, .heard = "fence 1"},
    {"fence_last_early",     T, GW_MSG_FENCE, 1, flagged_last, true, .heard = "fence 1"},
    {"fence_missing",        T, GW_MSG_FENCE, 2, NULL, true, .heard = "the target did not join a round"},
    {"joined_0",             S, GW_MSG_JOINED, 1, numbered, true, .value = 0, .heard = "JOINED 0"},
    {"joined_2",             S, GW_MSG_JOINED, 1, numbered, true, .value = 2, .heard = "JOINED 2"},
    {"joined_max",           S, GW_MSG_JOINED, 1, numbered, true, .value = UINT32_MAX, .heard = "JOINED 4294967295"},
    {"joined_missing",       S, GW_MSG_JOINED, 1, NULL, true, .heard = "the target did not join a round"},
    {"joined_twice",         S, GW_MSG_JOINED, 1, again, .heard = "JOINED 1"},
    {"zero_ack_on_a_stream", S, GW_MSG_JOINED, 1, zero_of, .on = ON_PAGES, .heard = "ZERO from a target"},

    {"zero_past_the_end",    T, GW_MSG_FENCE, 1, zero_of, .on = ON_PAGES, .value = 0, .heard = "zero run of block 0"},
    {"zero_over_the_end",    T, GW_MSG_FENCE, 1, zero_of, .on = ON_PAGES, .value = 1, .heard = "zero run of block 0"},
    {"zero_far_away",        T, GW_MSG_FENCE, 1, zero_of, .on = ON_PAGES, .value = 2, .heard = "zero run of block 0"},
    {"zero_no_block",        T, GW_MSG_FENCE, 1, zero_of, .on = ON_PAGES, .value = 3, .heard = "zero run of block 2"},
    {"zero_block_max",       T, GW_MSG_FENCE, 1, zero_of, .on = ON_PAGES, .value = 4, .heard = "zero run of block 4294967295"},
    {"zero_2_52",            T, GW_MSG_FENCE, 1, zero_of, .on = ON_PAGES, .value = 5, .heard = "ends past all"},
    {"zero_wraps",           T, GW_MSG_FENCE, 1, zero_of, .on = ON_PAGES, .value = 6, .heard = "ends past all"},
    {"zero_of_none",         T, GW_MSG_FENCE, 1, zero_of, .on = ON_PAGES, .value = 7, .heard = "an empty range"},
    {"zero_of_2_64",         T, GW_MSG_FENCE, 1, zero_of, .on = ON_PAGES, .value = 8, .heard = "ends past all"},
    {"zero_of_another",      T, GW_MSG_FENCE, 1, zero_of, .on = ON_PAGES, .value = 9, .heard = "not in one stripe of page endpoint 1"},
    {"zero_of_1025_runs",    T, GW_MSG_FENCE, 1, zero_of, .on = ON_PAGES, .value = 1025, .heard = "ZERO: body of 20504 bytes"},

    {"credit_back_to_0",     T, GW_MSG_FENCE, 1, credit_of, .on = ON_CONTROL, .value = 0, .heard = "CREDIT: 0 granted"},
    {"credit_back_at_source", S, GW_MSG_JOINED, 1, credit_of, .on = ON_CONTROL, .value = 1, .heard = "CREDIT: 1 granted"},
    {"credit_back_on_pages", T, GW_MSG_FENCE, 1, credit_of, .on = ON_PAGES, .value = 0, .heard = "CREDIT: 0 granted"},

    {"loaded_unasked",       S, GW_MSG_JOINED, 1, loaded_of, .on = ON_CONTROL, .value = 1, .heard = "none was asked about"},
    {"loaded_too_many",      S, GW_MSG_LOADED, 2, loaded_items, true, .value = UINT64_MAX, .heard = "LOADED 18446744073709551615", .has_handlers = true},
    {"loaded_back",          S, GW_MSG_PREPARED, 1, loaded_of, .on = ON_CONTROL, .value = 0, .heard = "LOADED 0 of the stream's items", .has_handlers = true},
    {"loaded_again",         S, GW_MSG_LOADED, 2, again, .heard = NULL, .has_handlers = true},
    {"loaded_lost",          S, GW_MSG_LOADED, 2, NULL, true, .heard = NULL, .has_handlers = true},
    {"start_lost",           T, GW_MSG_STREAM, 3, NULL, true, .heard = "section 3, which is not open", .has_handlers = true},
    {"end_lost",             T, GW_MSG_STREAM, 6, NULL, true, .heard = "section 'pump' instance 0 has no end", .has_handlers = true},
    {"end_twice",            T, GW_MSG_STREAM, 6, again, .heard = "end of section 3, which is not open", .has_handlers = true},

    {"reply_packets_more",   S, GW_MSG_HELLO_REPLY, 1, hello_packet_bytes_max, true, .value = UINT64_MAX, .heard = "bytes of device state beside the stream", .has_packets = true},
    {"reply_packets_of_8",   S, GW_MSG_HELLO_REPLY, 1, hello_packet_bytes_max, true, .value = 8, .heard = "8 bytes of such state may be under way", .has_packets = true},
    {"packet_unasked",       T, GW_MSG_FENCE, 1, packet_made, .on = ON_PAGES, .value = 10, .heard = "that was granted none"},
    {"packet_empty",         T, GW_MSG_PACKET, 1, sized, true, .value = 28, .heard = "PACKET: body of 20 bytes", .has_packets = true},
    {"packet_on_control",    T, GW_MSG_PACKET, 1, again, .on = ON_CONTROL, .heard = "PACKET", .has_packets = true},
    {"packet_past_the_grant", T, GW_MSG_PACKET, 1, packet_made, true, .value = GW_PACKET_DATA_BYTES_MAX, .heard = "more than the 16384 bytes of device state under way", .has_packets = true},
    {"packet_of_zeros",      T, GW_MSG_PACKET, 1, packet_made, true, .value = 10, .heard = "PACKET of section 3", .has_packets = true},
    {"packet_of_ram",        T, GW_MSG_PACKET, 1, packet_of, true, .value = SECTION_RAM, .heard = "PACKET: section 'ram' takes none", .has_packets = true},
    {"packet_of_nobody",     T, GW_MSG_PACKET, 1, packet_of, true, .value = SECTION_NONE, .heard = "section 99 is not open", .has_packets = true},
    {"packet_that_ends",     T, GW_MSG_PACKET, 1, packet_of, true, .value = NOT_A_PART, .heard = "it holds something else", .has_packets = true},
    {"packet_number_0",      T, GW_MSG_PACKET, 1, packet_of, true, .value = NUMBER_0, .heard = "number 0", .has_packets = true},
    {"packet_number_max",    T, GW_MSG_PACKET, 2, packet_of, true, .value = NUMBER_MAX, .heard = "the target loaded no device state", .has_packets = true},
    {"packet_items_max",     T, GW_MSG_PACKET, 1, packet_of, true, .value = ITEMS_MAX, .heard = "the target loaded no device state", .has_packets = true},
    {"packet_twice",         T, GW_MSG_PACKET, 1, again, .heard = "PACKET", .has_packets = true},
    {"packet_lost",          T, GW_MSG_PACKET, 2, NULL, true, .heard = "the target loaded no device state", .has_packets = true},
    {"packet_never_ends",    T, GW_MSG_PACKET, 3, packet_of, true, .value = NOT_LAST, .heard = "the target loaded no device state", .has_packets = true},
    {"packets_loaded_unasked", S, GW_MSG_JOINED, 1, packets_loaded, .on = ON_CONTROL, .value = 1, .heard = "PACKETS_LOADED 1"},
    {"packets_loaded_early", S, GW_MSG_JOINED, 1, packets_loaded, .on = ON_CONTROL, .value = 1, .heard = "PACKETS_LOADED 1", .has_packets = true},
    {"packets_loaded_of_0",  S, GW_MSG_PACKETS_LOADED, 1, packets_loaded, true, .value = 0, .heard = "PACKETS_LOADED 0", .has_packets = true},
    {"packets_loaded_max",   S, GW_MSG_PACKETS_LOADED, 1, packets_loaded, true, .value = UINT64_MAX, .heard = "PACKETS_LOADED 18446744073709551615", .has_packets = true},
    {"packets_loaded_twice", S, GW_MSG_PACKETS_LOADED, 1, again, .heard = "PACKETS_LOADED", .has_packets = true},
    {"packets_loaded_lost",  S, GW_MSG_PACKETS_LOADED, 3, NULL, true, .heard = "the target loaded no device state", .has_packets = true},

    {"prepare_of_0_bytes",   T, GW_MSG_PREPARE, 1, sized, true, .value = 8, .heard = "PREPARE: body of 0 bytes"},
    {"prepare_of_47_bytes",  T, GW_MSG_PREPARE, 1, sized, true, .value = 55, .heard = "PREPARE: body of 47 bytes"},
    {"prepare_of_49_bytes",  T, GW_MSG_PREPARE, 1, sized, true, .value = 57, .heard = "PREPARE: body of 49 bytes"},
    {"message_of_0_bytes",   T, GW_MSG_PREPARE, 1, sized, true, .value = 0, .heard = "message of 0 bytes"},
    {"message_of_7_bytes",   T, GW_MSG_PREPARE, 1, sized, true, .value = 7, .heard = "message of 7 bytes"},
    {"message_of_the_limit", T, GW_MSG_PREPARE, 1, sized, true, .value = GW_MESSAGE_BYTES_DEFAULT, .heard = "PREPARE: body of"},
    {"message_past_the_limit", T, GW_MSG_PREPARE, 1, sized, true, .value = GW_MESSAGE_BYTES_DEFAULT + 1, .heard = "longer than the limit"},

    {"header_twice",         T, GW_MSG_STREAM, 2, stream_item, .on = ON_CONTROL, .value = ITEM_HEADER, .heard = "header"},
    {"other_machine",        T, GW_MSG_STREAM, 1, stream_item, true, .value = ITEM_HEADER, .heard = "machine 'other'"},
    {"ram_end_early",        T, GW_MSG_STREAM, 1, stream_item, .on = ON_CONTROL, .value = ITEM_END_TWICE, .heard = ""},
    {"ram_end_twice",        T, GW_MSG_STREAM, 4, stream_item, .on = ON_CONTROL, .value = ITEM_END_TWICE, .heard = "section 1"},
    {"ram_part",             T, GW_MSG_STREAM, 3, stream_item, .on = ON_CONTROL, .value = ITEM_PART, .heard = "section"},
    {"unknown_device",       T, GW_MSG_STREAM, 4, stream_item, .on = ON_CONTROL, .value = ITEM_UNKNOWN_DEVICE, .heard = "no such device"},
    {"device_before_ram_end", T, GW_MSG_STREAM, 3, stream_item, .on = ON_CONTROL, .value = ITEM_UNKNOWN_DEVICE, .heard = "before the end of RAM"},
    {"empty_item",           T, GW_MSG_STREAM, 2, stream_item, .on = ON_CONTROL, .value = ITEM_EMPTY, .heard = "empty item"},
    {"command_item",         T, GW_MSG_STREAM, 2, stream_item, .on = ON_CONTROL, .value = ITEM_COMMAND, .heard = "commands are not supported"},

    {"prepare_twice",        T, GW_MSG_PREPARE, 1, again, .on = ON_CONTROL, .heard = "PREPARE came twice"},
    {"prepare_incarnation",  T, GW_MSG_PREPARE, 1, other_token, true, .value = 23, .heard = "another incarnation"},
    {"prepare_other_fence",  T, GW_MSG_PREPARE, 1, other_token, true, .value = 27, .heard = "PREPARE names fence"},
    {"prepare_digest",       T, GW_MSG_PREPARE, 1, other_digest, true, .digest = true, .value = 15, .heard = "memory here differs"},
    {"prepare_no_digest",    T, GW_MSG_PREPARE, 1, no_digest, true, .digest = true, .heard = "memory here differs"},
    {"prepared_token",       S, GW_MSG_PREPARED, 1, other_token, true, .value = 0, .heard = "PREPARED that was not asked for"},
    {"prepared_twice",       S, GW_MSG_PREPARED, 1, again, .heard = ""},
    {"prepared_digest",      S, GW_MSG_PREPARED, 1, other_digest, true, .digest = true, .value = 0, .heard = "memory at the target differs"},
    {"prepared_no_digest",   S, GW_MSG_PREPARED, 1, no_digest, true, .digest = true, .heard = "memory at the target differs"},
    {"running_before_commit", S, GW_MSG_PREPARED, 1, outcome_of, true, .value = GW_OUTCOME_RUNNING, .heard = "other than VOID before COMMIT"},
    {"declined_before_commit", S, GW_MSG_PREPARED, 1, outcome_of, true, .value = GW_OUTCOME_DECLINED, .heard = "other than VOID before COMMIT"},
    {"void_instead_of_prepared", S, GW_MSG_PREPARED, 1, outcome_of, true, .value = GW_OUTCOME_VOID, .heard = "the target discarded the guest"},
    {"commit_token",         T, GW_MSG_COMMIT, 1, other_token, true, .value = 3, .heard = "COMMIT that does not belong here"},
    {"commit_twice",         T, GW_MSG_COMMIT, 1, again, .heard = NULL},
    {"outcome_token",        S, GW_MSG_OUTCOME, 1, other_token, true, .value = 3, .heard = NULL},
    {"outcome_garbled",      S, GW_MSG_OUTCOME, 1, other_token, true, .value = 25, .heard = NULL},
    {"outcome_twice",        S, GW_MSG_OUTCOME, 1, again, .heard = NULL},
    {"ack_token",            T, GW_MSG_ACK, 1, other_token, true, .value = 3, .heard = NULL},
};
/* clang-format on */

#define LIES (sizeof(lies) / sizeof(lies[0]))

static bool tell(struct liar *liar, void *ctx, const struct liar_event *event)
{
    struct teller *teller = ctx;
    const struct lie *lie = teller->lie;
    struct gw_error err = GW_ERROR_INIT;
    struct gw_message honest;
    if (teller->told || event->is_preface || event->is_put || event->way != lie->way ||
        event->type != lie->at || event->nth != lie->nth)
        return true;
    teller->told = true;
    liar_lied(liar);
    GW_EXPECT_EQ(gw_message_decode(event->frame + GW_FRAME_HEAD_BYTES,
                                   event->bytes - GW_FRAME_HEAD_BYTES, &honest, &err),
                 0);
    if (!lie->make)
        return false;
    size_t bytes = lie->make(lie, &honest, teller->bytes);
    unsigned endpoint = lie->on == ON_CONTROL ? 0 : lie->on == ON_PAGES ? 1 : event->endpoint;
    liar_say(liar, endpoint, lie->way, teller->bytes, bytes);
    return !lie->replaces;
}

static const char *const *lie_names(void)
{
    static const char *names[LIES + 1];
    for (unsigned i = 0; i < LIES; i++)
        names[i] = lies[i].name;
    return names;
}

static bool says(const struct session *session, const char *text)
{
    const struct pair *pair = &session->pair;
    return strcasestr(pair->source_err.message, text) || strcasestr(pair->source_err.peer, text) ||
           strcasestr(pair->target_err.message, text) || strcasestr(pair->target_err.peer, text);
}

/* What is lost so that nothing is wrong, but for nothing that moves. */
static bool ends_by_budget(const struct lie *lie)
{
    return lie->heard && (strstr(lie->heard, "the target loaded no device state") ||
                          strstr(lie->heard, "the target did not join"));
}

static void tell_lie(const char *param, bool is_unix)
{
    struct session session;
    struct teller teller = {.lie = lies, .bytes = malloc(LIE_BYTES_MAX)};
    while (strcmp(teller.lie->name, param) != 0)
        teller.lie++;
    const struct lie *lie = teller.lie;
    struct session_config config = {.name = param,
                                    .patience = SESSION_PATIENT,
                                    .ends_by_budget = ends_by_budget(lie),
                                    .is_unix = is_unix,
                                    .digest = lie->digest,
                                    .has_handlers = lie->has_handlers,
                                    .has_packets = lie->has_packets,
                                    .liar = {.hook = tell, .ctx = &teller}};
    bool through = session_run(&session, &config);
    GW_EXPECT(session.lied);
    /* After COMMIT a lie changes nothing: the outcome is asked for again, and heard. */
    GW_EXPECT_EQ(through, lie->heard == NULL);
    if (!lie->heard)
        GW_EXPECT(!session.unknown);
    else if (!says(&session, lie->heard))
        GW_NOTE_FAILURE("expected '%s', source '%s' target '%s'", lie->heard,
                        session.pair.source_err.message, session.pair.target_err.message);
    session_free(&session);
    free(teller.bytes);
}

GW_TEST_EACH(lie, is_refused_with_its_sentence, lie_names)
{
    tell_lie(param, false);
}

/* One of each of its table's parts, for the wire that ends and fails in its own way. */
static const char *const lies_over_unix[] = {"hello_ram_2_63",
                                             "reply_endpoints_0",
                                             "block_of_2_63",
                                             "blocks_ok_of_0",
                                             "fence_2",
                                             "joined_max",
                                             "zero_wraps",
                                             "zero_of_1025_runs",
                                             "credit_back_to_0",
                                             "empty_item",
                                             "message_past_the_limit",
                                             "prepared_token",
                                             "outcome_garbled",
                                             "commit_token",
                                             NULL};

GW_TEST_EACH(lie, is_refused_over_unix_too, lies_over_unix)
{
    tell_lie(param, true);
}
