// SPDX-License-Identifier: MIT
/* The stream's top level, read forwards: header and configuration, commands, the return path, and where a
 * body of unknown length ends. */
#include "control/stream_read.h"
#include "core/base/alloc.h"
#include "core/base/bytes.h"
#include "tests/shim/gw_test.h"
#include "tests/support/recording.h"

#include <stdio.h>
#include <string.h>

static struct gw_error err = GW_ERROR_INIT;

/* ---- header ----------------------------------------------------------------------------------- */

static int header(const char *hex, struct gw_configuration *configuration, uint64_t *fault_at)
{
    struct recording r;
    struct gw_input in;
    recording_init(&r);
    recording_hex(&r, hex);
    gw_input_memory(&in, r.w.data, r.w.bytes, 0);
    int rc = gw_stream_take_header(&in, configuration, &err);
    if (fault_at)
        *fault_at = in.fault_at;
    recording_fini(&r);
    return rc;
}

#define HEAD "5145564d 00000003 "
#define CONFIGURATION HEAD "07 00000002 7063 "
#define CAPABILITIES "05 1a 636f6e66696775726174696f6e2f6361706162696c6974696573 00000001 "
#define UUID "05 12 636f6e66696775726174696f6e2f75756964 00000001 "

GW_TEST(stream_read, the_configuration_has_a_machine_and_subsections)
{
    static struct gw_configuration c;
    GW_EXPECT_EQ(header(CONFIGURATION CAPABILITIES
                        "00000001 0f 782d69676e6f72652d736861726564 " UUID
                        "000102030405060708090a0b0c0d0e0f",
                        &c, NULL),
                 0);
    GW_EXPECT_STREQ(c.machine, "pc");
    GW_EXPECT(gw_configuration_has(&c, "x-ignore-shared"));
    GW_EXPECT(!gw_configuration_has(&c, "mapped-ram"));
    GW_EXPECT(c.has_uuid);
    GW_EXPECT_EQ(c.uuid[15], 15);
}

GW_TEST(stream_read, a_stream_may_have_no_configuration)
{
    static struct gw_configuration c;
    GW_EXPECT_EQ(header(HEAD "01", &c, NULL), 0);
    GW_EXPECT(!c.present);
}

GW_TEST(stream_read, page_bits_are_taken_from_the_configuration)
{
    static struct gw_configuration c;
    GW_EXPECT_EQ(
        header(CONFIGURATION
               "05 1e 636f6e66696775726174696f6e2f7461726765742d706167652d62697473 00000001 "
               "0000000e",
               &c, NULL),
        0);
    GW_EXPECT_EQ(c.page_bits, 14);
}

GW_TEST(stream_read, headers_that_are_wrong_are_refused_with_their_offset)
{
    static const struct {
        const char *hex, *words;
        uint64_t at;
    } wrong[] = {
        {"5145564e 00000003 00", "no stream header", 0},
        {"5145564d 00000002 00", "stream version 2 (an old format), expected 3", 4},
        {"5145564d 000000", "inside the header", 7},
        {HEAD "07 00000000", "machine name of 0 bytes", 9},
        {HEAD "07 00001000", "machine name of 4096 bytes", 9},
        {HEAD "07 00000002 7001", "byte 0x01 in the machine name", 14},
        {CONFIGURATION "05 03 666f6f 00000001", "unknown subsection 'foo'", 15},
        {CONFIGURATION CAPABILITIES "00000041", "65 capabilities, at most 64", 47},
        {CONFIGURATION CAPABILITIES "00000001 00", "an empty capability's name", 51},
        {CONFIGURATION UUID "0001", "inside the uuid", 41},
        {CONFIGURATION UUID "000102030405060708090a0b0c0d0e0f" UUID, "a second subsection", 55},
    };
    static struct gw_configuration c;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        uint64_t at = 0;
        GW_EXPECT_LT(header(wrong[i].hex, &c, &at), 0);
        if (!GW_EXPECT(strstr(err.message, wrong[i].words) != NULL))
            gw_test_note(__FILE__, __LINE__, "%s: %s", wrong[i].words, err.message);
        GW_EXPECT_EQ(at, wrong[i].at);
    }
}

/* ---- commands --------------------------------------------------------------------------------- */

static int command(const char *hex, struct gw_command_item *item)
{
    struct recording r;
    struct gw_input in;
    recording_init(&r);
    recording_hex(&r, hex);
    gw_input_memory(&in, r.w.data, r.w.bytes, 0);
    gw_input_skip(&in, 1);
    int rc = gw_stream_take_command(&in, item, &err);
    if (rc == 0)
        GW_EXPECT(gw_input_is_empty(&in));
    recording_fini(&r);
    return rc;
}

GW_TEST(stream_read, commands_are_taken_whole)
{
    static struct gw_command_item c;
    GW_EXPECT_EQ(command("08 0001 0000", &c), 0);
    GW_EXPECT_STREQ(c.name, "OPEN_RETURN_PATH");
    GW_EXPECT_EQ(command("08 0002 0004 00000042", &c), 0);
    GW_EXPECT_EQ(c.value, 0x42);
    GW_EXPECT_EQ(command("08 0003 0010 0000000000201000 0000000000001000", &c), 0);
    GW_EXPECT_EQ(c.sizes, 0x201000);
    GW_EXPECT_EQ(c.page_bytes, 4096);
    GW_EXPECT_EQ(command("08 0003 0000", &c), 0);
    GW_EXPECT_EQ(c.sizes, 0);
    GW_EXPECT_EQ(
        command("08 0006 0019 00 06 70632e72616d 00 0000000000010000 0000000000010000", &c), 0);
    GW_EXPECT_STREQ(c.block, "pc.ram");
    GW_EXPECT_EQ(c.ranges, 1);
    GW_EXPECT_EQ(command("08 000a 0007 06 70632e72616d", &c), 0);
    GW_EXPECT_EQ(command("08 000b 0000", &c), 0);
    GW_EXPECT_STREQ(c.name, "SWITCHOVER_START");
}

GW_TEST(stream_read, commands_that_are_wrong_are_refused)
{
    static const char *const wrong[] = {
        "08 0000 0000",
        "08 000c 0000",
        "08 0001 0001 00",
        "08 0002 0002 0000",
        "08 0003 0008 0000000000001000",
        "08 0003 0010 0000000000001000 0000000000001001",
        "08 0006 0019 01 06 70632e72616d 00 0000000000010000 0000000000010000",
        "08 0006 0019 00 16 70632e72616d 00 0000000000010000 0000000000010000",
        "08 0006 0018 00 06 70632e72616d 00 0000000000010000 00000000000100",
        "08 000a 0007 05 70632e72616d",
        "08 0007 0004 0000",
    };
    static struct gw_command_item c;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        if (!GW_EXPECT_LT(command(wrong[i], &c), 0))
            gw_test_note(__FILE__, __LINE__, "%s was taken", wrong[i]);
    }
}

/* ---- the return path -------------------------------------------------------------------------- */

static int message(const char *hex, struct gw_return_item *item)
{
    struct recording r;
    struct gw_input in;
    recording_init(&r);
    recording_hex(&r, hex);
    gw_input_memory(&in, r.w.data, r.w.bytes, 0);
    int rc = gw_return_take(&in, item, &err);
    if (rc == 0)
        GW_EXPECT(gw_input_is_empty(&in));
    recording_fini(&r);
    return rc;
}

GW_TEST(stream_read, messages_of_the_return_path_are_taken_whole)
{
    static struct gw_return_item m;
    GW_EXPECT_EQ(message("0002 0004 00000001", &m), 0);
    GW_EXPECT_STREQ(m.name, "PONG");
    GW_EXPECT_EQ(m.value, 1);
    GW_EXPECT_EQ(message("0003 0013 0000000000012000 00001000 06 70632e72616d", &m), 0);
    GW_EXPECT_STREQ(m.block, "pc.ram");
    GW_EXPECT_EQ(m.start, 0x12000);
    GW_EXPECT_EQ(message("0004 000c 0000000000017000 00001000", &m), 0);
    GW_EXPECT_EQ(message("0007 0000", &m), 0);
    GW_EXPECT_EQ(message("0001 0004 00000000", &m), 0);
    GW_EXPECT_EQ(
        message("0005 0003 02 7063 0000000000000008 ffffffffffffffff 0123456789abcdef", &m), 0);
    GW_EXPECT_EQ(m.start, 8);
    GW_EXPECT_EQ(message("0006 0004 00000001", &m), 0);
    GW_EXPECT_STREQ(m.name, "RESUME_ACK");
    GW_EXPECT_EQ(m.value, 1);
}

GW_TEST(stream_read, messages_of_the_return_path_that_are_wrong_are_refused)
{
    static const char *const wrong[] = {
        "0000 0000",
        "0008 0000",
        "0001 0003 000000",
        "0004 000c 0000000000017000 00001000", /* of which block? */
        "0006 0000",
        "0006 0003 000000",
        "0006 0004 000000", /* cut */
        "0006 0004 00000000",
        "0006 0004 00000002",
        "0006 0005 0000000001",
        "0007 0001 00",
        "0003 0013 0000000000012000 00001000 07 70632e72616d",
        "0005 0003 03 7063 0000000000000000 0123456789abcdef",
        "0005 0003 02 7063 0000000000000008 ffffffffffffffff 0123456789abcdee",
        "0005 0003 02 7063 00000000ffffffff ffffffffffffffff 0123456789abcdef",
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct gw_return_item m = {0};
        if (!GW_EXPECT_LT(message(wrong[i], &m), 0))
            gw_test_note(__FILE__, __LINE__, "%s was taken", wrong[i]);
    }
}

/* ---- where a body ends ------------------------------------------------------------------------ */

struct bytes_of { /* an input in small pieces, to see a footer fall on every boundary */
    const uint8_t *data;
    size_t bytes, piece;
};

static ssize_t read_pieces(void *ctx, void *to, size_t bytes, uint64_t offset)
{
    struct bytes_of *from = ctx;
    size_t left = from->bytes - (size_t)offset;
    size_t now = left < from->piece ? left : from->piece;
    now = now < bytes ? now : bytes;
    memcpy(to, from->data + offset, now);
    return (ssize_t)now;
}

static bool id_five_is_open(void *ctx, uint32_t id)
{
    (void)ctx;
    return id == 5;
}

static int skip(const struct recording *r, bool footers, size_t piece, uint64_t *bytes,
                uint64_t *fault_at)
{
    struct gw_scan scan = {.footers = footers, .is_open = id_five_is_open};
    struct bytes_of from = {r->w.data, r->w.bytes, piece};
    struct gw_input in;
    GW_ASSERT_EQ(gw_input_init(&in, read_pieces, &from, 512), 0);
    int rc = gw_stream_skip_body(&in, &scan, 7, bytes, &err);
    if (fault_at)
        *fault_at = in.fault_at;
    gw_input_fini(&in);
    return rc;
}

GW_TEST(stream_read, a_body_ends_at_its_footer_wherever_the_pieces_do)
{
    struct recording r;
    recording_init(&r);
    recording_hex(&r, "7e00000007 7e00000007 ff 7e00000008 04 00000001"); /* data all of it */
    for (unsigned i = 0; i < 700; i++)
        recording_hex(&r, "7e");
    uint64_t expected = r.w.bytes, bytes = 0;
    recording_foot(&r, 7);
    recording_head(&r, GW_ITEM_FULL, 8, "next", 0, 1);
    for (size_t piece = 1; piece < 512; piece += 7) {
        GW_EXPECT_EQ(skip(&r, true, piece, &bytes, NULL), 0);
        GW_EXPECT_EQ(bytes, expected);
    }
    recording_fini(&r);
}

GW_TEST(stream_read, what_may_follow_a_footer)
{
    static const char *const followers[] = {"",
                                            "00",
                                            "00 06 00000002 7b7d",
                                            "02 00000005",
                                            "03 00000005",
                                            "08 0002 0004 00000001",
                                            "04 00000009 03 666f6f 00000000 00000001"};
    static const char *const strangers[] = {"01",
                                            "02 00000006",
                                            "08 0002 0005",
                                            "05",
                                            "7e",
                                            "00 01",
                                            "04 00000009 03 666f01 00000000 00000001",
                                            "04 00000009 00 00000000 00000001"};
    for (size_t i = 0; i < sizeof(followers) / sizeof(followers[0]); i++) {
        struct recording r;
        uint64_t bytes = 0;
        recording_init(&r);
        recording_hex(&r, "0102037e00000007");
        recording_hex(&r, followers[i]);
        GW_EXPECT_EQ(skip(&r, true, 4096, &bytes, NULL), 0);
        GW_EXPECT_EQ(bytes, 3);
        recording_fini(&r);
    }
    for (size_t i = 0; i < sizeof(strangers) / sizeof(strangers[0]); i++) {
        struct recording r;
        uint64_t bytes = 0, at = 0;
        recording_init(&r);
        recording_hex(&r, "0102037e00000007");
        recording_hex(&r, strangers[i]);
        GW_EXPECT_EQ(skip(&r, true, 4096, &bytes, &at), -EPROTO);
        GW_EXPECT_EQ(at, 8); /* no item stands there */
        recording_fini(&r);
    }
}

GW_TEST(stream_read, a_damaged_footer_is_named)
{
    for (unsigned byte = 0; byte < 5; byte++) {
        struct recording r;
        uint64_t bytes = 0, at = 0;
        recording_init(&r);
        recording_hex(&r, "010203 7e00000007 04 00000009 03 666f6f 00000000 00000001");
        r.w.data[3 + byte] ^= 0x10;
        GW_EXPECT_EQ(skip(&r, true, 4096, &bytes, &at), -EPROTO);
        GW_EXPECT(strstr(err.message, "is damaged at offset 3") != NULL);
        GW_EXPECT_EQ(at, 3);
        recording_fini(&r);
    }
}

GW_TEST(stream_read, without_footers_a_body_ends_at_the_next_item)
{
    struct recording r;
    uint64_t bytes = 0;
    recording_init(&r);
    recording_hex(&r, "010203 04 00000009 03 666f6f 00000000 00000001");
    GW_EXPECT_EQ(skip(&r, false, 4096, &bytes, NULL), 0);
    GW_EXPECT_EQ(bytes, 3);
    recording_fini(&r);
}
