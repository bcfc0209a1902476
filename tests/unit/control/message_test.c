// SPDX-License-Identifier: MIT
/* Messages: every one has golden bytes, survives the way there and back, and cannot hurt: whatever
 * is cut off or flipped, it decodes to something in range or is refused. Run under ASan and UBSan.
 */
#include "tests/unit/control/samples.h"

#include "core/base/alloc.h"

static const char *const *all_names(void)
{
    static const char *names[64];
    for (unsigned i = 0; gw_message_def_at(i); i++)
        names[i] = gw_message_def_at(i)->name;
    return names;
}

static const struct gw_message_def *def_of(const char *name)
{
    for (unsigned i = 0; gw_message_def_at(i); i++) {
        if (strcmp(gw_message_def_at(i)->name, name) == 0)
            return gw_message_def_at(i);
    }
    GW_FAIL("no message %s", name);
}

static size_t encode_sample(const char *name, uint8_t *buf)
{
    struct gw_message msg;
    uint8_t entries[SAMPLE_BYTES_MAX];
    sample_message(def_of(name)->type, &msg, entries);
    ssize_t bytes = gw_message_encode(&msg, buf, SAMPLE_BYTES_MAX);
    GW_ASSERT_GE(bytes, GW_MESSAGE_HEADER_BYTES);
    return (size_t)bytes;
}

/* Decode a copy that ends where its allocation ends, so that ASan sees every byte too far. Walk
 * what came out as its owner would. */
static int decode_exact(const uint8_t *data, size_t bytes, struct gw_error *err)
{
    struct gw_message msg;
    uint8_t *copy = malloc(bytes ? bytes : 1);
    GW_ASSERT(copy);
    memcpy(copy, data, bytes);
    int rc = gw_message_decode(copy, bytes, &msg, err);
    if (rc == 0) {
        struct gw_list_cursor cursor;
        struct gw_block_offer_msg block;
        struct gw_range_msg range;
        bool fresh;
        switch (msg.type) {
        case GW_MSG_BLOCKS:
            gw_list_begin(&cursor, msg.u.list);
            while (gw_list_next_block(&cursor, &block))
                GW_EXPECT_GT(strlen(block.name), 0);
            break;
        case GW_MSG_BLOCKS_OK:
            gw_list_begin(&cursor, msg.u.list);
            while (gw_list_next_fresh(&cursor, &fresh))
                continue;
            break;
        case GW_MSG_WISHES:
        case GW_MSG_KEYS:
        case GW_MSG_RELEASE:
        case GW_MSG_RELEASED:
        case GW_MSG_ZERO:
            gw_list_begin(&cursor, msg.type == GW_MSG_ZERO ? msg.u.zero.runs : msg.u.list);
            while (gw_list_next_range(&cursor, msg.type, &range))
                GW_EXPECT_GE(range.first + range.count, range.first);
            break;
        default:
            break;
        }
    }
    free(copy);
    return rc;
}

static int refused(const uint8_t *data, size_t bytes, const char *text)
{
    struct gw_error err = GW_ERROR_INIT;
    int rc = decode_exact(data, bytes, &err);
    GW_EXPECT_EQ(rc, -EPROTO);
    GW_EXPECT_EQ(err.rc, rc);
    if (!strstr(err.message, text))
        GW_NOTE_FAILURE("'%s' is not in '%s'", text, err.message);
    return rc;
}

GW_TEST_EACH(message, encodes_to_its_golden_bytes, all_names)
{
    uint8_t golden[SAMPLE_BYTES_MAX], buf[SAMPLE_BYTES_MAX];
    size_t golden_bytes = sample_golden(param, golden, sizeof(golden));
    size_t bytes = encode_sample(param, buf);
    GW_ASSERT_EQ(bytes, golden_bytes);
    GW_EXPECT_MEMEQ(buf, golden, bytes);
}

GW_TEST_EACH(message, comes_back_as_it_went, all_names)
{
    uint8_t buf[SAMPLE_BYTES_MAX], again[SAMPLE_BYTES_MAX];
    struct gw_message msg;
    struct gw_error err = GW_ERROR_INIT;
    size_t bytes = encode_sample(param, buf);
    GW_ASSERT_EQ(gw_message_decode(buf, bytes, &msg, &err), 0);
    GW_EXPECT_EQ(msg.type, def_of(param)->type);
    GW_EXPECT_STREQ(gw_message_name(msg.type), param);
    ssize_t again_bytes = gw_message_encode(&msg, again, sizeof(again));
    GW_ASSERT_EQ(again_bytes, bytes);
    GW_EXPECT_MEMEQ(again, buf, bytes);
}

GW_TEST_EACH(message, cut_anywhere_is_refused_or_whole, all_names)
{
    uint8_t buf[SAMPLE_BYTES_MAX];
    size_t bytes = encode_sample(param, buf);
    const struct gw_message_def *def = def_of(param);
    for (size_t cut = 0; cut < bytes; cut++) {
        struct gw_error err = GW_ERROR_INIT;
        int rc = decode_exact(buf, cut, &err);
        if (cut < GW_MESSAGE_HEADER_BYTES || def->body_min == def->body_max)
            GW_EXPECT_EQ(rc, -EPROTO);
        GW_EXPECT(rc == 0 || rc == -EPROTO);
    }
}

GW_TEST_EACH(message, one_byte_too_many_is_refused_or_whole, all_names)
{
    uint8_t buf[SAMPLE_BYTES_MAX + 1];
    size_t bytes = encode_sample(param, buf);
    const struct gw_message_def *def = def_of(param);
    buf[bytes] = 0;
    int rc = decode_exact(buf, bytes + 1, NULL);
    if (def->type == GW_MSG_STREAM || def->type == GW_MSG_PACKET || def->type == GW_MSG_BLOCKS_OK)
        GW_EXPECT_EQ(rc, 0); /* bytes are all they hold */
    else
        GW_EXPECT_EQ(rc, -EPROTO);
}

GW_TEST_EACH(message, any_byte_changed_is_refused_or_in_range, all_names)
{
    static const uint8_t masks[] = {0x01, 0x80, 0xff, 0x10};
    uint8_t buf[SAMPLE_BYTES_MAX];
    size_t bytes = encode_sample(param, buf);
    for (size_t i = 0; i < bytes; i++) {
        for (size_t m = 0; m < sizeof(masks); m++) {
            buf[i] ^= masks[m];
            struct gw_error err = GW_ERROR_INIT;
            int rc = decode_exact(buf, bytes, &err);
            GW_EXPECT(rc == 0 || rc == -EPROTO);
            if (rc < 0)
                GW_EXPECT(err.message[0] != '\0');
            if (rc == 0 && i >= 2 && i < GW_MESSAGE_HEADER_BYTES)
                GW_EXPECT_EQ(i, 3); /* of a header's flags and zeros only LAST may change */
            buf[i] ^= masks[m];
        }
    }
}

GW_TEST(message, random_bodies_never_hurt)
{
    uint8_t buf[256];
    uint64_t state = 1;
    for (int round = 0; round < 200000; round++) {
        state = state * UINT64_C(6364136223846793005) + 1442695040888963407;
        const struct gw_message_def *def = gw_message_def_at((unsigned)(state >> 40) % 24);
        size_t bytes = GW_MESSAGE_HEADER_BYTES + (state >> 20) % 100;
        memset(buf, 0, sizeof(buf));
        gw_be16_store(buf, (uint16_t)def->type);
        for (size_t i = GW_MESSAGE_HEADER_BYTES; i < bytes; i++) {
            state = state * UINT64_C(6364136223846793005) + 1442695040888963407;
            buf[i] = state >> 60 < 8 ? 0 : (uint8_t)(state >> 33);
        }
        decode_exact(buf, bytes, NULL);
    }
}

GW_TEST_EACH(message, refuses_an_unknown_flag, all_names)
{
    uint8_t buf[SAMPLE_BYTES_MAX];
    size_t bytes = encode_sample(param, buf);
    gw_be16_store(buf + 2, 0x8000);
    refused(buf, bytes, "unknown flags 0x8000");
}

GW_TEST_EACH(message, refuses_reserved_bytes_that_are_not_zero, all_names)
{
    uint8_t buf[SAMPLE_BYTES_MAX];
    size_t bytes = encode_sample(param, buf);
    buf[7] = 1;
    refused(buf, bytes, "reserved bytes of the header");
}

/* Body lengths at min - 1, min, max, max + 1, by zero bytes: only the length is judged here. */
GW_TEST_EACH(message, body_length_is_checked_against_the_table, all_names)
{
    const struct gw_message_def *def = def_of(param);
    size_t room = GW_MESSAGE_HEADER_BYTES + (size_t)def->body_max + 1;
    uint8_t *buf = calloc(1, room);
    GW_ASSERT(buf);
    gw_be16_store(buf, (uint16_t)def->type);
    refused(buf, room, "body of");
    if (def->body_min > 0)
        refused(buf, GW_MESSAGE_HEADER_BYTES + def->body_min - 1, "body of");
    struct gw_error err = GW_ERROR_INIT;
    if (decode_exact(buf, GW_MESSAGE_HEADER_BYTES + def->body_max, &err) < 0)
        GW_EXPECT(!strstr(err.message, "body of"));
    if (decode_exact(buf, GW_MESSAGE_HEADER_BYTES + def->body_min, &err) < 0)
        GW_EXPECT(!strstr(err.message, "body of"));
    free(buf);
}

GW_TEST(message, refuses_what_it_does_not_know)
{
    uint8_t buf[8] = {0};
    refused(buf, 0, "message of 0 bytes");
    refused(buf, 7, "message of 7 bytes");
    refused(buf, 8, "unknown message type 0");
    gw_be16_store(buf, 72);
    refused(buf, 8, "unknown message type 72");
    gw_be16_store(buf, 0xffff);
    refused(buf, 8, "unknown message type 65535");
    GW_EXPECT_STREQ(gw_message_name((enum gw_message_type)72), "?");
    GW_EXPECT(!gw_message_is_credited((enum gw_message_type)72));
}

GW_TEST(message, only_heartbeat_and_credit_are_free)
{
    for (unsigned i = 0; gw_message_def_at(i); i++) {
        enum gw_message_type type = gw_message_def_at(i)->type;
        GW_EXPECT_EQ(gw_message_is_credited(type),
                     type != GW_MSG_HEARTBEAT && type != GW_MSG_CREDIT);
    }
}

GW_TEST(message, encoding_our_own_mistakes_is_refused)
{
    uint8_t buf[SAMPLE_BYTES_MAX];
    struct gw_message msg = {.type = (enum gw_message_type)3};
    GW_EXPECT_EQ(gw_message_encode(&msg, buf, sizeof(buf)), -EINVAL);
    msg.type = GW_MSG_COMMIT;
    msg.flags = GW_MSG_FLAG_LAST;
    GW_EXPECT_EQ(gw_message_encode(&msg, buf, sizeof(buf)), -EINVAL);
    msg.flags = 0;
    GW_EXPECT_EQ(gw_message_encode(&msg, buf, 31), -EMSGSIZE);
    GW_EXPECT_EQ(gw_message_encode(&msg, buf, 32), 32);
    msg.type = GW_MSG_STREAM;
    msg.u.data = (struct gw_span){0};
    GW_EXPECT_EQ(gw_message_encode(&msg, buf, sizeof(buf)), -EINVAL);
    msg.flags = GW_MSG_FLAG_LAST;
    GW_EXPECT_EQ(gw_message_encode(&msg, buf, sizeof(buf)), 8);
    msg.u.data = (struct gw_span){buf, GW_PAYLOAD_BYTES_MAX + 1u};
    GW_EXPECT_EQ(gw_message_encode(&msg, buf, sizeof(buf)), -EINVAL);
    msg = (struct gw_message){.type = GW_MSG_OUTCOME};
    GW_EXPECT_EQ(gw_message_encode(&msg, buf, sizeof(buf)), -EINVAL); /* outcome none */
    msg = (struct gw_message){.type = GW_MSG_ASK};
    GW_EXPECT_EQ(gw_message_encode(&msg, buf, sizeof(buf)), -EINVAL); /* attempt 0 */
    msg = (struct gw_message){.type = GW_MSG_WISHES};
    GW_EXPECT_EQ(gw_message_encode(&msg, buf, sizeof(buf)), -EINVAL); /* an empty list */
}

GW_TEST(message, the_longest_stream_message_fits_the_wire)
{
    uint8_t *buf = malloc(GW_MESSAGE_BYTES_DEFAULT);
    uint8_t *data = calloc(1, GW_PAYLOAD_BYTES_MAX);
    GW_ASSERT(buf && data);
    struct gw_message msg = {.type = GW_MSG_STREAM};
    msg.u.data = (struct gw_span){data, GW_PAYLOAD_BYTES_MAX};
    ssize_t bytes = gw_message_encode(&msg, buf, GW_MESSAGE_BYTES_DEFAULT);
    GW_EXPECT_EQ(bytes, GW_PAYLOAD_BYTES_MAX + GW_MESSAGE_HEADER_BYTES);
    GW_EXPECT_EQ(gw_message_decode(buf, (size_t)bytes, &msg, NULL), 0);
    free(data);
    free(buf);
}

GW_TEST(message, handover_fields_are_checked)
{
    uint8_t buf[SAMPLE_BYTES_MAX];
    size_t bytes = encode_sample("PREPARE", buf);
    buf[8 + 24 + 7] = 2;
    refused(buf, bytes, "digest flag is 2");
    buf[8 + 24 + 7] = 0;
    refused(buf, bytes, "a digest that its flag denies");

    bytes = encode_sample("PREPARED", buf);
    buf[8 + 24] = 1;
    refused(buf, bytes, "reserved bytes");

    bytes = encode_sample("OUTCOME", buf);
    buf[8 + 24 + 3] = 0;
    refused(buf, bytes, "unknown outcome 0");
    buf[8 + 24 + 3] = 4;
    refused(buf, bytes, "unknown outcome 4");
    buf[8 + 24 + 3] = GW_OUTCOME_RUNNING;
    refused(buf, bytes, "RUNNING with an error text");

    bytes = encode_sample("ASK", buf);
    memset(buf + bytes - 4, 0, 4);
    refused(buf, bytes, "attempt 0");
}

GW_TEST(message, running_carries_no_error)
{
    uint8_t buf[SAMPLE_BYTES_MAX];
    struct gw_message msg = {.type = GW_MSG_OUTCOME};
    msg.u.outcome.token = sample_token();
    msg.u.outcome.outcome = GW_OUTCOME_RUNNING;
    msg.u.outcome.acquire_ns = 11;
    msg.u.outcome.resume_ns = 12;
    gw_fail(&msg.u.outcome.error, -EIO, "left over");
    ssize_t bytes = gw_message_encode(&msg, buf, sizeof(buf));
    GW_ASSERT_EQ(bytes, 8 + 54);
    memset(&msg, 0xff, sizeof(msg));
    GW_ASSERT_EQ(gw_message_decode(buf, (size_t)bytes, &msg, NULL), 0);
    GW_EXPECT_EQ(msg.u.outcome.outcome, GW_OUTCOME_RUNNING);
    GW_EXPECT_EQ(msg.u.outcome.acquire_ns, 11);
    GW_EXPECT_EQ(msg.u.outcome.resume_ns, 12);
    GW_EXPECT(!gw_error_is_set(&msg.u.outcome.error));
}

/* ---- errors as texts ------------------------------------------------------------------------- */

GW_TEST(message, an_error_arrives_with_code_and_words)
{
    uint8_t buf[SAMPLE_BYTES_MAX];
    struct gw_message msg;
    size_t bytes = encode_sample("FAILED", buf);
    GW_ASSERT_EQ(gw_message_decode(buf, bytes, &msg, NULL), 0);
    const struct gw_error *err = &msg.u.failed.error;
    GW_EXPECT_EQ(err->code, GW_CODE_NO_CONVERGENCE);
    GW_EXPECT_LT(err->rc, 0);
    GW_EXPECT_EQ(err->struct_bytes, sizeof(*err));
    GW_EXPECT_STREQ(err->phase, "active");
    GW_EXPECT_STREQ(err->place, "block 'ram0'");
    GW_EXPECT_STREQ(err->message, "dirties 9.1 Gb/s, wire carries 7.8 Gb/s");
    GW_EXPECT_STREQ(err->hint, "set x-stall-action=switch");
    GW_EXPECT_STREQ(err->peer, "");
}

/* FAILED with one text of @bytes in field @which of five. */
static size_t failed_with(uint8_t *buf, int which, const char *text, size_t bytes)
{
    uint8_t *at = buf + GW_MESSAGE_HEADER_BYTES;
    memset(buf, 0, GW_MESSAGE_HEADER_BYTES);
    gw_be16_store(buf, GW_MSG_FAILED);
    for (int i = 0; i < 5; i++) {
        gw_be16_store(at, (uint16_t)(i == which ? bytes : 0));
        at += 2;
        if (i == which) {
            memcpy(at, text, bytes);
            at += bytes;
        }
    }
    return (size_t)(at - buf);
}

GW_TEST(message, each_error_text_has_its_limit)
{
    static const size_t limits[] = {31, 23, 95, 319, 319};
    uint8_t buf[SAMPLE_BYTES_MAX];
    char text[400];
    memset(text, 'x', sizeof(text));
    for (int i = 0; i < 5; i++) {
        GW_EXPECT_EQ(decode_exact(buf, failed_with(buf, i, text, 0), NULL), 0);
        GW_EXPECT_EQ(decode_exact(buf, failed_with(buf, i, text, 1), NULL), 0);
        GW_EXPECT_EQ(decode_exact(buf, failed_with(buf, i, text, limits[i]), NULL), 0);
        refused(buf, failed_with(buf, i, text, limits[i] + 1), "at most");
    }
}

GW_TEST(message, texts_are_made_printable)
{
    static const char wicked[] = "a\x1b[31mb\nc\x9b\x7f\0d";
    uint8_t buf[SAMPLE_BYTES_MAX];
    struct gw_message msg;
    size_t bytes = failed_with(buf, 3, wicked, sizeof(wicked) - 1);
    GW_ASSERT_EQ(gw_message_decode(buf, bytes, &msg, NULL), 0);
    GW_EXPECT_STREQ(msg.u.failed.error.message, "a?[31mb?c???d");
}

GW_TEST(message, a_code_of_the_future_is_still_an_error)
{
    uint8_t buf[SAMPLE_BYTES_MAX];
    struct gw_message msg;
    size_t bytes = failed_with(buf, 0, "quantum", 7);
    GW_ASSERT_EQ(gw_message_decode(buf, bytes, &msg, NULL), 0);
    GW_EXPECT_EQ(msg.u.failed.error.code, GW_CODE_REFUSED);
    GW_EXPECT_LT(msg.u.failed.error.rc, 0);
}

GW_TEST(message, every_code_survives_the_wire)
{
    uint8_t buf[SAMPLE_BYTES_MAX];
    for (int code = GW_CODE_NONE + 1; code < GW_CODE_COUNT_; code++) {
        struct gw_message msg = {.type = GW_MSG_ABORT};
        gw_fail_code(&msg.u.failed.error, -EIO, (enum gw_code)code, "x");
        ssize_t bytes = gw_message_encode(&msg, buf, sizeof(buf));
        GW_ASSERT_GT(bytes, 0);
        GW_ASSERT_EQ(gw_message_decode(buf, (size_t)bytes, &msg, NULL), 0);
        GW_EXPECT_EQ(msg.u.failed.error.code, code);
    }
}

/* ---- the fields of hello --------------------------------------------------------------------- */

struct hello_bytes {
    uint8_t data[GW_MESSAGE_HEADER_BYTES + GW_HELLO_BYTES_MAX + 1024];
    size_t bytes;
};

static void hello_begin(struct hello_bytes *h)
{
    memset(h->data, 0, GW_MESSAGE_HEADER_BYTES);
    gw_be16_store(h->data, GW_MSG_HELLO);
    h->bytes = GW_MESSAGE_HEADER_BYTES;
}

static void hello_field(struct hello_bytes *h, unsigned id, size_t bytes, uint8_t fill)
{
    gw_be16_store(h->data + h->bytes, (uint16_t)id);
    gw_be16_store(h->data + h->bytes + 2, (uint16_t)bytes);
    memset(h->data + h->bytes + 4, fill, bytes);
    h->bytes += 4 + bytes;
}

GW_TEST(message, hello_skips_fields_it_does_not_know)
{
    struct hello_bytes h;
    struct gw_message msg;
    hello_begin(&h);
    hello_field(&h, 5, 4, 1);
    hello_field(&h, 21, 100, 0xee);
    hello_field(&h, 0x7fff, 0, 0);
    GW_ASSERT_EQ(gw_message_decode(h.data, h.bytes, &msg, NULL), 0);
    GW_EXPECT_EQ(msg.u.hello.endpoints, 0x01010101);
    GW_EXPECT_EQ(msg.u.hello.ram_bytes, 0);
}

GW_TEST(message, hello_refuses_a_mandatory_field_it_does_not_know)
{
    struct hello_bytes h;
    struct gw_error err = GW_ERROR_INIT;
    hello_begin(&h);
    hello_field(&h, 0x8001, 1, 0);
    refused(h.data, h.bytes, "field 0x8001 must be understood");
    decode_exact(h.data, h.bytes, &err);
    GW_EXPECT_EQ(err.code, GW_CODE_UNSUPPORTED);
}

GW_TEST(message, hello_refuses_duplicates_disorder_and_zero)
{
    struct hello_bytes h;
    hello_begin(&h);
    hello_field(&h, 5, 4, 1);
    hello_field(&h, 5, 4, 1);
    refused(h.data, h.bytes, "HELLO: field 5 is there twice");
    hello_begin(&h);
    hello_field(&h, 30, 0, 0);
    hello_field(&h, 30, 0, 0);
    refused(h.data, h.bytes, "field 30 is there twice");
    hello_begin(&h);
    hello_field(&h, 6, 4, 1);
    hello_field(&h, 5, 4, 1);
    refused(h.data, h.bytes, "field 5 after field 6");
    hello_begin(&h);
    hello_field(&h, 0, 4, 1);
    refused(h.data, h.bytes, "field 0");
}

GW_TEST(message, hello_field_lengths_are_checked)
{
    static const struct {
        unsigned id;
        size_t bytes;
        bool is_good;
    } cases[] = {
        {1, 3, false},   {1, 4, true},     {1, 5, false},  {8, 7, false},   {8, 8, true},
        {8, 9, false},   {18, 15, false},  {18, 16, true}, {18, 17, false}, {19, 0, true},
        {19, 255, true}, {19, 256, false}, {20, 63, true}, {20, 64, false},
    };
    struct hello_bytes h;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        hello_begin(&h);
        hello_field(&h, cases[i].id, cases[i].bytes, 'a');
        GW_EXPECT_EQ(decode_exact(h.data, h.bytes, NULL), cases[i].is_good ? 0 : -EPROTO);
    }
    hello_begin(&h);
    hello_field(&h, 5, 4, 1);
    gw_be16_store(h.data + GW_MESSAGE_HEADER_BYTES + 2, 5);
    refused(h.data, h.bytes, "4 are left");
    gw_be16_store(h.data + GW_MESSAGE_HEADER_BYTES + 2, 0xffff);
    refused(h.data, h.bytes, "field 5 of 65535 bytes");
}

GW_TEST(message, hello_length_is_bounded)
{
    struct hello_bytes h;
    hello_begin(&h);
    hello_field(&h, 100, GW_HELLO_BYTES_MAX - 4, 0);
    GW_EXPECT_EQ(decode_exact(h.data, h.bytes, NULL), 0);
    hello_begin(&h);
    hello_field(&h, 100, GW_HELLO_BYTES_MAX - 3, 0);
    refused(h.data, h.bytes, "body of 4097 bytes");
}

GW_TEST(message, decoding_allocates_nothing)
{
    uint8_t buf[SAMPLE_BYTES_MAX];
    int64_t live = gw_alloc_live();
    gw_alloc_fail_after(0);
    for (const char *const *name = all_names(); *name; name++) {
        struct gw_message msg;
        size_t bytes = encode_sample(*name, buf);
        GW_EXPECT_EQ(gw_message_decode(buf, bytes, &msg, NULL), 0);
    }
    gw_alloc_fail_after(-1);
    GW_EXPECT_EQ(gw_alloc_live(), live);
}
