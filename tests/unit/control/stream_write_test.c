// SPDX-License-Identifier: MIT
/* The stream's top level, written: each kind equals bytes that were put down by hand, is taken by the reader
 * for what was given, and what a reader would refuse is not written. */
#include "control/stream_write.h"
#include "core/base/alloc.h"
#include "tests/shim/gw_test.h"
#include "tests/support/recording.h"

#include <stdio.h>
#include <string.h>

static struct gw_error err = GW_ERROR_INIT;
static struct gw_writer w;

static void begin(void)
{
    gw_writer_fini(&w);
    gw_writer_init(&w, (size_t)1 << 20);
    gw_error_clear(&err);
}

/* Is what was written @hex? */
static void wrote(const char *hex)
{
    struct recording r;
    recording_init(&r);
    recording_hex(&r, hex);
    GW_EXPECT_EQ(gw_writer_error(&w), 0);
    if (!GW_EXPECT_EQ(w.bytes, r.w.bytes) || !GW_EXPECT_MEMEQ(w.data, r.w.data, r.w.bytes))
        gw_test_note(__FILE__, __LINE__, "expected %s", hex);
    recording_fini(&r);
}

static struct gw_input written(void)
{
    struct gw_input in;
    gw_input_memory(&in, w.data, w.bytes, 0);
    return in;
}

/* A refusal has @words, and leaves the writer as it was. */
static void refused(int rc, const char *words)
{
    GW_EXPECT_EQ(rc, -EINVAL);
    if (!GW_EXPECT(strstr(err.message, words) != NULL))
        gw_test_note(__FILE__, __LINE__, "%s: %s", words, err.message);
    GW_EXPECT_EQ(w.bytes, 0);
    GW_EXPECT_EQ(gw_writer_error(&w), 0);
}

#define NAME_OF(length)                                                                            \
    (memset(long_name, 'n', sizeof(long_name)), long_name[length] = '\0', long_name)
static char long_name[300];

/* ---- configuration ---------------------------------------------------------------------------- */

static struct gw_configuration given, taken;

#define HEAD "5145564d 00000003 "
#define PC HEAD "07 00000002 7063 "
#define PAGE_BITS "05 1e 636f6e66696775726174696f6e2f7461726765742d706167652d62697473 00000001 "
#define CAPABILITIES "05 1a 636f6e66696775726174696f6e2f6361706162696c6974696573 00000001 "
#define UUID "05 12 636f6e66696775726174696f6e2f75756964 00000001 "

static void configure(const char *machine)
{
    given = (struct gw_configuration){.present = true};
    snprintf(given.machine, sizeof(given.machine), "%s", machine);
    begin();
}

static void writes_configuration(const char *hex)
{
    GW_EXPECT_EQ(gw_stream_write_configuration(&w, &given, &err), 0);
    wrote(hex);
    struct gw_input in = written();
    GW_EXPECT_EQ(gw_stream_take_header(&in, &taken, &err), 0);
    GW_EXPECT(gw_input_is_empty(&in));
    GW_EXPECT_EQ(taken.present, given.present);
    GW_EXPECT_STREQ(taken.machine, given.machine);
    GW_EXPECT_EQ(taken.page_bits, given.page_bits);
    GW_EXPECT_EQ(taken.has_uuid, given.has_uuid);
    GW_EXPECT_MEMEQ(taken.uuid, given.uuid, sizeof(taken.uuid));
    GW_ASSERT_EQ(taken.capability_count, given.capability_count);
    for (unsigned i = 0; i < taken.capability_count; i++)
        GW_EXPECT_STREQ(taken.capabilities[i], given.capabilities[i]);
}

GW_TEST(stream_write, a_configuration_is_a_machine_and_the_subsections_that_it_has)
{
    configure("pc");
    writes_configuration(PC);
    configure("pc");
    given.page_bits = 14;
    writes_configuration(PC PAGE_BITS "0000000e");
    configure("pc");
    given.capability_count = 1;
    strcpy(given.capabilities[0], "x-ignore-shared");
    writes_configuration(PC CAPABILITIES "00000001 0f 782d69676e6f72652d736861726564");
    configure("pc");
    given.has_uuid = true;
    given.uuid[0] = 0xab;
    writes_configuration(PC UUID "ab000000000000000000000000000000");
    given = (struct gw_configuration){.present = false};
    begin();
    writes_configuration(HEAD);
}

GW_TEST(stream_write, the_subsections_of_the_configuration_have_an_order)
{
    configure("pc");
    given.has_uuid = true;
    given.capability_count = 2;
    strcpy(given.capabilities[0], "x-ignore-shared");
    strcpy(given.capabilities[1], "mapped-ram");
    given.page_bits = 12;
    writes_configuration(
        PC PAGE_BITS "0000000c" CAPABILITIES "00000002 0f 782d69676e6f72652d736861726564"
                     "         0a 6d61707065642d72616d" UUID "00000000000000000000000000000000");
}

GW_TEST(stream_write, configurations_that_no_reader_takes_are_refused)
{
    configure("");
    refused(gw_stream_write_configuration(&w, &given, &err), "an empty machine name");
    configure("p\x01");
    refused(gw_stream_write_configuration(&w, &given, &err), "byte 0x01 in the machine name");
    configure("pc");
    given.page_bits = 9;
    refused(gw_stream_write_configuration(&w, &given, &err), "9 target page bits, expected 10 to");
    given.page_bits = 21;
    refused(gw_stream_write_configuration(&w, &given, &err), "21 target page bits");
    given.page_bits = 0;
    given.capability_count = GW_CAPABILITIES_MAX + 1;
    refused(gw_stream_write_configuration(&w, &given, &err), "65 capabilities, at most 64");
    given.capability_count = 1;
    refused(gw_stream_write_configuration(&w, &given, &err), "an empty capability's name");
    given.present = false;
    refused(gw_stream_write_configuration(&w, &given, &err), "without a configuration section");
}

/* ---- items ------------------------------------------------------------------------------------ */

GW_TEST(stream_write, each_type_of_section_has_its_head_and_its_footer)
{
    static const struct {
        struct gw_section section;
        const char *hex;
    } sections[] = {
        {{GW_ITEM_START, 2, "ram", 0, 4}, "01 00000002 03 72616d 00000000 00000004 7e 00000002"},
        {{GW_ITEM_PART, 2, "", 0, 0}, "02 00000002 7e 00000002"},
        {{GW_ITEM_END, 0xfffffffe, "", 0, 0}, "03 fffffffe 7e fffffffe"},
        {{GW_ITEM_FULL, 7, "a/b", 3, 1}, "04 00000007 03 612f62 00000003 00000001 7e 00000007"},
    };
    for (size_t i = 0; i < sizeof(sections) / sizeof(sections[0]); i++) {
        struct gw_section section = {.type = sections[i].section.type};
        begin();
        gw_stream_write_section(&w, &sections[i].section);
        gw_stream_write_footer(&w, sections[i].section.section_id);
        wrote(sections[i].hex);
        struct gw_input in = written();
        gw_input_skip(&in, 1);
        GW_EXPECT_EQ(gw_stream_take_section(&in, &section, &err), 0);
        GW_EXPECT_EQ(section.section_id, sections[i].section.section_id);
        GW_EXPECT_STREQ(section.idstr, sections[i].section.idstr);
        GW_EXPECT_EQ(section.instance_id, sections[i].section.instance_id);
        GW_EXPECT_EQ(section.version_id, sections[i].section.version_id);
        GW_EXPECT_EQ(gw_stream_take_footer(&in, section.section_id, &err), 0);
        GW_EXPECT(gw_input_is_empty(&in));
    }
}

GW_TEST(stream_write, what_is_neither_section_nor_command)
{
    begin();
    gw_stream_write_eof(&w);
    gw_stream_write_description(&w, "{}", 2);
    gw_stream_write_subsection(&w, "d/s", 0x102);
    wrote("00 06 00000002 7b7d 05 03 642f73 00000102");
}

/* ---- commands --------------------------------------------------------------------------------- */

static struct gw_command_item command;

/* The command that was written, from its type byte on. */
static struct gw_input take_command(void)
{
    struct gw_input in = written();
    gw_input_skip(&in, 1);
    command = (struct gw_command_item){0};
    GW_EXPECT_EQ(gw_stream_take_command(&in, &command, &err), 0);
    return in;
}

static void writes_command(const struct gw_command_item *item, const char *hex)
{
    begin();
    GW_EXPECT_EQ(gw_stream_write_command(&w, item, &err), 0);
    wrote(hex);
    struct gw_input in = take_command();
    GW_EXPECT(gw_input_is_empty(&in));
    GW_EXPECT_EQ(command.command, item->command);
    GW_EXPECT_EQ(command.value, item->value);
    GW_EXPECT_EQ(command.sizes, item->sizes);
    GW_EXPECT_EQ(command.page_bytes, item->page_bytes);
    GW_EXPECT_STREQ(command.block, item->block);
}

#define COMMAND(...) (&(struct gw_command_item){__VA_ARGS__})

GW_TEST(stream_write, commands_have_the_bytes_of_the_specification)
{
    writes_command(COMMAND(.command = GW_COMMAND_OPEN_RETURN_PATH), "08 0001 0000");
    writes_command(COMMAND(.command = GW_COMMAND_PING, .value = 0x42), "08 0002 0004 00000042");
    writes_command(COMMAND(.command = GW_COMMAND_POSTCOPY_ADVISE), "08 0003 0000");
    writes_command(COMMAND(.command = GW_COMMAND_POSTCOPY_ADVISE, .value = 1, .sizes = 0x201000,
                           .page_bytes = 4096),
                   "08 0003 0010 0000000000201000 0000000000001000");
    writes_command(COMMAND(.command = GW_COMMAND_POSTCOPY_LISTEN), "08 0004 0000");
    writes_command(COMMAND(.command = GW_COMMAND_POSTCOPY_RUN), "08 0005 0000");
    writes_command(COMMAND(.command = GW_COMMAND_ENABLE_COLO), "08 0008 0000");
    writes_command(COMMAND(.command = GW_COMMAND_POSTCOPY_RESUME), "08 0009 0000");
    writes_command(COMMAND(.command = GW_COMMAND_RECV_BITMAP, .block = "pc.ram"),
                   "08 000a 0007 06 70632e72616d");
    writes_command(COMMAND(.command = GW_COMMAND_SWITCHOVER_START), "08 000b 0000");
}

GW_TEST(stream_write, commands_that_no_reader_takes_are_refused)
{
    begin();
    for (unsigned bad = 0; bad < 14; bad++) {
        if (bad > 0 && bad < 12 && bad != GW_COMMAND_POSTCOPY_RAM_DISCARD &&
            bad != GW_COMMAND_PACKAGED)
            continue;
        refused(gw_stream_write_command(&w, COMMAND(.command = (enum gw_stream_command)bad), &err),
                "which is not written so");
    }
    refused(gw_stream_write_command(&w, COMMAND(.command = GW_COMMAND_RECV_BITMAP), &err),
            "an empty block's name");
    refused(
        gw_stream_write_command(
            &w, COMMAND(.command = GW_COMMAND_POSTCOPY_ADVISE, .value = 1, .sizes = 4096), &err),
        "with pages of 0 bytes");
    refused(gw_stream_write_command(&w,
                                    COMMAND(.command = GW_COMMAND_POSTCOPY_ADVISE, .value = 1,
                                            .sizes = 4096, .page_bytes = 4097),
                                    &err),
            "with pages of 4097 bytes");
    refused(gw_stream_write_command(&w,
                                    COMMAND(.command = GW_COMMAND_POSTCOPY_ADVISE, .value = 1,
                                            .sizes = 1024, .page_bytes = 4096),
                                    &err),
            "page sizes 0x400");
}

GW_TEST(stream_write, a_discard_has_its_ranges)
{
    static const struct gw_discard_range ranges[] = {{0x10000, 0x10000}, {0x20000, 0x1000}};
    begin();
    GW_EXPECT_EQ(gw_stream_write_discard(&w, "pc.ram", ranges, 2, &err), 0);
    wrote("08 0006 0029 00 06 70632e72616d 00 0000000000010000 0000000000010000"
          " 0000000000020000 0000000000001000");
    struct gw_input in = take_command();
    GW_EXPECT(gw_input_is_empty(&in));
    GW_EXPECT_STREQ(command.block, "pc.ram");
    GW_ASSERT_EQ(command.ranges, 2);
    for (unsigned i = 0; i < 2; i++) {
        GW_EXPECT_EQ(gw_command_range(&command, i).start, ranges[i].start);
        GW_EXPECT_EQ(gw_command_range(&command, i).bytes, ranges[i].bytes);
    }
}

GW_TEST(stream_write, the_longest_discard_fits_its_length)
{
    struct gw_discard_range *ranges = gw_zalloc(GW_DISCARD_RANGES_MAX + 1, sizeof(*ranges));
    GW_ASSERT(ranges != NULL);
    for (unsigned i = 0; i <= GW_DISCARD_RANGES_MAX; i++)
        ranges[i] = (struct gw_discard_range){.start = 4096 * (uint64_t)i, .bytes = 4096};
    begin();
    GW_EXPECT_EQ(gw_stream_write_discard(&w, NAME_OF(255), ranges, GW_DISCARD_RANGES_MAX, &err), 0);
    struct gw_input in = take_command();
    GW_EXPECT(gw_input_is_empty(&in));
    GW_EXPECT_EQ(command.ranges, GW_DISCARD_RANGES_MAX);
    GW_EXPECT_EQ(strlen(command.block), 255);
    begin();
    refused(gw_stream_write_discard(&w, "a", ranges, GW_DISCARD_RANGES_MAX + 1, &err),
            "4080 ranges");
    gw_free(ranges);
}

GW_TEST(stream_write, discards_that_make_no_sense_are_refused)
{
    static const struct gw_discard_range wrong[][2] = {
        {{0x1000, 0}, {0x2000, 0x1000}},
        {{0x1000, 0x1000}, {0x1fff, 0x1000}},
        {{0x2000, 0x1000}, {0x1000, 0x1000}},
        {{0x1000, UINT64_MAX}, {0x2000, 0x1000}},
    };
    static const struct gw_discard_range right = {0x1000, 0x1000};
    begin();
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        refused(gw_stream_write_discard(&w, "a", wrong[i], 2, &err), "is empty, wraps");
    refused(gw_stream_write_discard(&w, "a", &right, 0, &err), "of 0 ranges");
    refused(gw_stream_write_discard(&w, "", &right, 1, &err), "an empty block's name");
    refused(gw_stream_write_discard(&w, NAME_OF(256), &right, 1, &err), "of more than 255 bytes");
}

/* ---- packages --------------------------------------------------------------------------------- */

GW_TEST(stream_write, a_package_is_behind_its_command)
{
    static const struct gw_section device = {GW_ITEM_FULL, 5, "d", 0, 1};
    struct gw_writer items;
    gw_writer_init(&items, 4096);
    begin();
    gw_stream_write_command(&items, COMMAND(.command = GW_COMMAND_POSTCOPY_LISTEN), NULL);
    gw_stream_write_section(&items, &device);
    gw_writer_u8(&items, 0xaa);
    gw_stream_write_footer(&items, 5);
    refused(gw_stream_write_package(&w, &items, &err), "is not POSTCOPY_LISTEN to POSTCOPY_RUN");
    gw_stream_write_command(&items, COMMAND(.command = GW_COMMAND_PING, .value = 3), NULL);
    gw_stream_write_command(&items, COMMAND(.command = GW_COMMAND_POSTCOPY_RUN), NULL);
    GW_EXPECT_EQ(gw_stream_write_package(&w, &items, &err), 0);
    wrote("08 0007 0004 00000028"
          " 08 0004 0000"
          " 04 00000005 01 64 00000000 00000001 aa 7e 00000005"
          " 08 0002 0004 00000003"
          " 08 0005 0000");
    struct gw_input in = take_command();
    GW_EXPECT_EQ(command.value, 0x28);
    GW_EXPECT_EQ(gw_input_tell(&in) + command.value, w.bytes);
    begin();
    items.data[2] = GW_COMMAND_POSTCOPY_RUN;
    refused(gw_stream_write_package(&w, &items, &err), "is not POSTCOPY_LISTEN to POSTCOPY_RUN");
    gw_writer_reset(&items);
    refused(gw_stream_write_package(&w, &items, &err), "is not POSTCOPY_LISTEN to POSTCOPY_RUN");
    items.rc = -ENOMEM;
    GW_EXPECT_EQ(gw_stream_write_package(&w, &items, &err), -ENOMEM);
    gw_writer_fini(&items);
}

/* ---- the return path -------------------------------------------------------------------------- */

static void writes_message(const struct gw_return_item *item, const char *hex)
{
    struct gw_return_item back = {.is_named = true};
    begin();
    GW_EXPECT_EQ(gw_return_write(&w, item, &err), 0);
    wrote(hex);
    struct gw_input in = written();
    GW_EXPECT_EQ(gw_return_take(&in, &back, &err), 0);
    GW_EXPECT(gw_input_is_empty(&in));
    GW_EXPECT_EQ(back.type, item->type);
    GW_EXPECT_EQ(back.value, item->value);
    GW_EXPECT_EQ(back.start, item->start);
    GW_EXPECT_STREQ(back.block, item->block);
}

#define MESSAGE(...) (&(struct gw_return_item){__VA_ARGS__})

GW_TEST(stream_write, messages_of_the_return_path_have_the_bytes_of_the_specification)
{
    writes_message(MESSAGE(.type = GW_RETURN_SHUT), "0001 0004 00000000");
    writes_message(MESSAGE(.type = GW_RETURN_PONG, .value = 1), "0002 0004 00000001");
    writes_message(MESSAGE(.type = GW_RETURN_REQ_PAGES_ID, .start = 0x12000, .value = 0x1000,
                           .block = "pc.ram"),
                   "0003 0013 0000000000012000 00001000 06 70632e72616d");
    writes_message(MESSAGE(.type = GW_RETURN_REQ_PAGES, .start = 0x17000, .value = 0x1000),
                   "0004 000c 0000000000017000 00001000");
    writes_message(MESSAGE(.type = GW_RETURN_RESUME_ACK, .value = 1), "0006 0004 00000001");
    writes_message(MESSAGE(.type = GW_RETURN_SWITCHOVER_ACK), "0007 0000");
}

GW_TEST(stream_write, a_bitmap_follows_its_message_outside_of_its_length)
{
    static const uint8_t bits[8] = {0xff, 1};
    struct gw_return_item back = {.is_named = true};
    begin();
    GW_EXPECT_EQ(gw_return_write_bitmap(&w, "pc", bits, sizeof(bits), &err), 0);
    wrote("0005 0003 02 7063 0000000000000008 ff01000000000000 0123456789abcdef");
    struct gw_input in = written();
    GW_EXPECT_EQ(gw_return_take(&in, &back, &err), 0);
    GW_EXPECT(gw_input_is_empty(&in));
    GW_EXPECT_STREQ(back.block, "pc");
    GW_EXPECT_EQ(back.start, 8);
    begin();
    refused(gw_return_write_bitmap(&w, "pc", bits, 7, &err), "which are no words of 8");
    refused(gw_return_write_bitmap(&w, "pc", bits, 0, &err), "which are no words of 8");
    refused(gw_return_write_bitmap(&w, "", bits, 8, &err), "an empty block's name");
}

GW_TEST(stream_write, messages_that_no_reader_takes_are_refused)
{
    begin();
    refused(gw_return_write(&w, MESSAGE(.type = (enum gw_return_type)0), &err), "message 0");
    refused(gw_return_write(&w, MESSAGE(.type = (enum gw_return_type)8), &err), "message 8");
    refused(gw_return_write(&w, MESSAGE(.type = GW_RETURN_RECV_BITMAP, .block = "a"), &err),
            "message 5");
    refused(gw_return_write(&w, MESSAGE(.type = GW_RETURN_REQ_PAGES), &err), "for 0 bytes");
    refused(gw_return_write(
                &w, MESSAGE(.type = GW_RETURN_REQ_PAGES, .start = UINT64_MAX, .value = 4096), &err),
            "REQ_PAGES for 4096 bytes");
    refused(gw_return_write(&w, MESSAGE(.type = GW_RETURN_REQ_PAGES_ID, .value = 4096), &err),
            "an empty block's name");
}

GW_TEST(stream_write, the_longest_names_fit)
{
    struct gw_command_item c = {.command = GW_COMMAND_RECV_BITMAP};
    struct gw_return_item m = {.type = GW_RETURN_REQ_PAGES_ID, .value = 4096};
    struct gw_return_item back = {.is_named = true};
    memset(c.block, 'b', 255);
    memset(m.block, 'b', 255);
    begin();
    GW_EXPECT_EQ(gw_stream_write_command(&w, &c, &err), 0);
    take_command();
    GW_EXPECT_STREQ(command.block, c.block);
    begin();
    GW_EXPECT_EQ(gw_return_write(&w, &m, &err), 0);
    struct gw_input in = written();
    GW_EXPECT_EQ(gw_return_take(&in, &back, &err), 0);
    GW_EXPECT_STREQ(back.block, m.block);
}

/* ---- room ------------------------------------------------------------------------------------- */

GW_TEST(stream_write, what_does_not_fit_is_an_error_of_the_writer)
{
    static const struct gw_discard_range range = {0, 4096};
    static const uint8_t bits[8];
    configure("pc");
    for (size_t room = 0; room < 9; room++) {
        int rcs[5];
        for (unsigned i = 0; i < 5; i++) {
            gw_writer_fini(&w);
            gw_writer_init(&w, room);
            gw_error_clear(&err);
            switch (i) {
            case 0:
                rcs[i] = gw_stream_write_configuration(&w, &given, &err);
                break;
            case 1:
                rcs[i] = gw_stream_write_command(
                    &w, COMMAND(.command = GW_COMMAND_PING, .value = 1), &err);
                break;
            case 2:
                rcs[i] = gw_stream_write_discard(&w, "a", &range, 1, &err);
                break;
            case 3:
                rcs[i] = gw_return_write(&w, MESSAGE(.type = GW_RETURN_PONG), &err);
                break;
            default:
                rcs[i] = gw_return_write_bitmap(&w, "a", bits, 8, &err);
            }
            bool fits = i == 3 && room == 8;
            GW_EXPECT_EQ(rcs[i], fits ? 0 : -E2BIG);
            GW_EXPECT_EQ(gw_error_is_set(&err), !fits);
            GW_EXPECT(w.bytes <= room);
        }
    }
}
