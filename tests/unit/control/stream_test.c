// SPDX-License-Identifier: MIT
/* The stream's items: equal to the bytes of real streams (docs/protocol.md section 4), and every
 * way in which an item can be wrong has its sentence. */
#include "control/stream.h"

#include "tests/shim/gw_test.h"

#include <stdlib.h>
#include <string.h>

static struct gw_writer w;
static char machine[256];
static struct gw_section section;
static struct gw_reader body;
static enum gw_item_type type;

static int read_bytes(const void *data, size_t bytes, struct gw_error *err)
{
    /* A copy that ends where its allocation ends: ASan sees every byte too far. */
    static uint8_t *copy;
    free(copy);
    copy = malloc(bytes ? bytes : 1);
    GW_ASSERT(copy);
    if (bytes)
        memcpy(copy, data, bytes);
    return gw_stream_read_item(copy, bytes, &type, machine, &section, &body, err);
}

static void refused_bytes(const void *data, size_t bytes, const char *text)
{
    struct gw_error err = GW_ERROR_INIT;
    int rc = read_bytes(data, bytes, &err);
    GW_EXPECT(rc == -EPROTO || rc == -EBADMSG);
    GW_EXPECT_STREQ(err.message, text);
}

static void begin(void)
{
    gw_writer_fini(&w);
    gw_writer_init(&w, 1 << 20);
}

static struct gw_section ram_start(void)
{
    return (struct gw_section){
        .type = GW_ITEM_START, .section_id = 2, .idstr = "ram", .instance_id = 0, .version_id = 4};
}

GW_TEST(stream, header_and_configuration_equal_a_real_stream)
{
    static const uint8_t real[] = "\x51\x45\x56\x4d\x00\x00\x00\x03\x07\x00\x00\x00\x0d"
                                  "pc-i440fx-7.2";
    begin();
    gw_stream_write_header(&w, "pc-i440fx-7.2");
    GW_ASSERT_EQ(w.bytes, sizeof(real) - 1);
    GW_EXPECT_MEMEQ(w.data, real, w.bytes);
    GW_ASSERT_EQ(read_bytes(w.data, w.bytes, NULL), 0);
    GW_EXPECT_EQ(type, GW_ITEM_CONFIGURATION);
    GW_EXPECT_STREQ(machine, "pc-i440fx-7.2");
    GW_EXPECT_EQ(gw_reader_left(&body), 0);
}

GW_TEST(stream, ram_start_equals_a_real_stream)
{
    static const uint8_t real[] = "\x01\x00\x00\x00\x02\x03"
                                  "ram\x00\x00\x00\x00\x00\x00\x00\x04"
                                  "BODY"
                                  "\x7e\x00\x00\x00\x02";
    begin();
    struct gw_section start = ram_start();
    gw_stream_write_section(&w, &start);
    gw_writer_bytes(&w, "BODY", 4);
    gw_stream_write_footer(&w, 2);
    GW_ASSERT_EQ(w.bytes, sizeof(real) - 1);
    GW_EXPECT_MEMEQ(w.data, real, w.bytes);
    GW_ASSERT_EQ(read_bytes(w.data, w.bytes, NULL), 0);
    GW_EXPECT_EQ(type, GW_ITEM_START);
    GW_EXPECT_EQ(section.section_id, 2);
    GW_EXPECT_STREQ(section.idstr, "ram");
    GW_EXPECT_EQ(section.instance_id, 0);
    GW_EXPECT_EQ(section.version_id, 4);
    GW_ASSERT_EQ(gw_reader_left(&body), 4);
    GW_EXPECT_MEMEQ(gw_reader_take(&body, 4), "BODY", 4);
}

GW_TEST(stream, part_and_end_have_no_name)
{
    static const uint8_t part[] = {2, 0, 0, 0, 9, 0xaa, 0x7e, 0, 0, 0, 9};
    struct gw_section end = {.type = GW_ITEM_END, .section_id = 9};
    GW_ASSERT_EQ(read_bytes(part, sizeof(part), NULL), 0);
    GW_EXPECT_EQ(type, GW_ITEM_PART);
    GW_EXPECT_EQ(section.section_id, 9);
    GW_EXPECT_STREQ(section.idstr, "");
    GW_EXPECT_EQ(gw_reader_left(&body), 1);
    begin();
    gw_stream_write_section(&w, &end);
    gw_stream_write_footer(&w, 9);
    GW_EXPECT_EQ(w.bytes, 10);
    GW_ASSERT_EQ(read_bytes(w.data, w.bytes, NULL), 0);
    GW_EXPECT_EQ(type, GW_ITEM_END);
    GW_EXPECT_EQ(gw_reader_left(&body), 0);
}

GW_TEST(stream, end_mark_and_description)
{
    static const uint8_t description[] = {6, 0, 0, 0, 2, '{', '}'};
    begin();
    gw_stream_write_eof(&w);
    GW_ASSERT_EQ(w.bytes, 1);
    GW_ASSERT_EQ(read_bytes(w.data, 1, NULL), 0);
    GW_EXPECT_EQ(type, GW_ITEM_EOF);
    refused_bytes("\0\0", 2, "1 bytes follow the end mark");
    GW_ASSERT_EQ(read_bytes(description, 7, NULL), 0);
    GW_EXPECT_EQ(type, GW_ITEM_DESCRIPTION);
    GW_EXPECT_EQ(gw_reader_left(&body), 2);
    refused_bytes(description, 6, "description of 2 bytes, the item holds 1");
    refused_bytes(description, 4, "ends at offset 1, inside the description's length");
}

GW_TEST(stream, footers_are_required_and_compared)
{
    uint8_t full[] = "\x04\x00\x00\x00\x07\x05timer\x00\x00\x00\x00\x00\x00\x00\x02"
                     "\x00\x7e\x00\x00\x00\x07";
    size_t bytes = sizeof(full) - 1;
    GW_ASSERT_EQ(read_bytes(full, bytes, NULL), 0);
    refused_bytes(full, bytes - 1,
                  "section 7 'timer' has no footer: byte 0x00 at offset 19, expected 0x7e");
    refused_bytes(full, bytes - 2,
                  "section 7 'timer' has no footer: 4 bytes are left at offset 19, expected 5");
    full[bytes - 1] = 8;
    refused_bytes(full, bytes, "section 7 'timer' ends with the footer of section 8 at offset 20");
    full[bytes - 5] = 0x7f;
    refused_bytes(full, bytes,
                  "section 7 'timer' has no footer: byte 0x7f at offset 20, expected 0x7e");
}

GW_TEST(stream, heads_are_checked)
{
    uint8_t empty[] =
        "\x04\x00\x00\x00\x07\x00\x00\x00\x00\x00\x00\x00\x00\x02\x7e\x00\x00\x00\x07";
    uint8_t odd[] = "\x04\x00\x00\x00\x07\x02"
                    "a\x00\x00\x00\x00\x00\x00\x00\x00\x02\x7e\x00\x00\x00\x07";
    refused_bytes(empty, sizeof(empty) - 1, "section 7 without a name at offset 5");
    refused_bytes(odd, sizeof(odd) - 1, "byte 0x00 in the section's name at offset 7");
    odd[7] = 0x1b;
    refused_bytes(odd, sizeof(odd) - 1, "byte 0x1b in the section's name at offset 7");
    refused_bytes("\x04\x00\x00", 3, "ends at offset 1, inside the section's head");
    refused_bytes("\x03\x00\x00", 3, "ends at offset 1, inside the section's head");
    refused_bytes("\x04\x00\x00\x00\x01\xff"
                  "abc",
                  9, "ends at offset 6, inside the section's head");
}

GW_TEST(stream, names_may_have_255_bytes)
{
    struct gw_section full = {.type = GW_ITEM_FULL, .section_id = 1};
    memset(full.idstr, 'n', 255);
    begin();
    gw_stream_write_section(&w, &full);
    gw_stream_write_footer(&w, 1);
    GW_ASSERT_EQ(read_bytes(w.data, w.bytes, NULL), 0);
    GW_EXPECT_EQ(strlen(section.idstr), 255);
}

GW_TEST(stream, headers_are_checked)
{
    uint8_t header[] = "\x51\x45\x56\x4d\x00\x00\x00\x03\x07\x00\x00\x00\x02pc";
    size_t bytes = sizeof(header) - 1;
    GW_ASSERT_EQ(read_bytes(header, bytes, NULL), 0);
    refused_bytes(header, 3, "no stream header, expected 51 45 56 4d");
    refused_bytes(header, 6, "ends at offset 4, inside the header");
    refused_bytes(header, 8, "ends at offset 8, inside the configuration section");
    refused_bytes(header, 11, "ends at offset 9, inside the configuration section");
    refused_bytes(header, bytes - 1, "ends at offset 13, inside the machine name");
    refused_bytes(header, bytes + 1,
                  "1 bytes after the machine name at offset 15: subsections of the configuration "
                  "are not supported");
    header[7] = 2;
    refused_bytes(header, bytes, "stream version 2 (an old format), expected 3");
    header[7] = 4;
    refused_bytes(header, bytes, "stream version 4, expected 3");
    header[7] = 3;
    header[8] = 1;
    refused_bytes(header, bytes, "byte 0x01 at offset 8, expected 0x07 (a configuration section)");
    header[8] = 7;
    header[11] = 1;
    refused_bytes(header, bytes, "machine name of 258 bytes, at most 255");
    memset(header + 9, 0xff, 4);
    refused_bytes(header, bytes, "machine name of 4294967295 bytes, at most 255");
    memset(header + 9, 0, 4);
    header[12] = 2;
    header[13] = '\n';
    refused_bytes(header, bytes, "byte 0x0a in the machine name at offset 13");
    header[1] = 0;
    refused_bytes(header, bytes, "no stream header, expected 51 45 56 4d");
}

GW_TEST(stream, machine_names_of_0_and_255_bytes_pass)
{
    char name[257] = "";
    begin();
    gw_stream_write_header(&w, name);
    GW_EXPECT_EQ(read_bytes(w.data, w.bytes, NULL), 0);
    GW_EXPECT_STREQ(machine, "");
    memset(name, 'm', 255);
    begin();
    gw_stream_write_header(&w, name);
    GW_EXPECT_EQ(read_bytes(w.data, w.bytes, NULL), 0);
    GW_EXPECT_STREQ(machine, name);
}

GW_TEST(stream, unknown_items_are_refused_by_name)
{
    refused_bytes("", 0, "an empty item");
    refused_bytes("\x05", 1, "a subsection (0x05) outside of a section");
    refused_bytes("\x7e\0\0\0\1", 5, "a footer (0x7e) without a section");
    refused_bytes("\x07\0\0\0\0", 5, "a configuration section without the stream's header");
    refused_bytes("\x08\0\1\0\0", 5, "commands are not supported");
    refused_bytes("\x09", 1, "unknown item type 0x09 at offset 0");
    refused_bytes("\xff", 1, "unknown item type 0xff at offset 0");
}

GW_TEST(stream, random_items_never_hurt)
{
    uint8_t buf[64];
    uint64_t state = 7;
    for (int round = 0; round < 100000; round++) {
        state = state * UINT64_C(6364136223846793005) + 1442695040888963407;
        size_t bytes = 1 + (state >> 33) % (sizeof(buf) - 1);
        for (size_t i = 0; i < bytes; i++) {
            state = state * UINT64_C(6364136223846793005) + 1442695040888963407;
            buf[i] = state >> 62 == 0 ? (uint8_t)(state >> 33) : (uint8_t)((state >> 33) & 7);
        }
        if (bytes > 10 && state >> 63)
            memcpy(buf, "QEVM\0\0\0\3\7", 9);
        read_bytes(buf, bytes, NULL);
    }
}
