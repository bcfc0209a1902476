// SPDX-License-Identifier: MIT
/* What a target said on its return path, as somebody recorded it: each message is told, and the first that
 * cannot be is named with its place. */
#include "tests/shim/gw_test.h"
#include "tests/support/recording.h"

#define PONG "0002 0004 00000001"
#define ASK_FOR "0003 0013 0000000000012000 00001000 06 70632e72616d" /* 23 bytes, of pc.ram */
#define ASK_MORE "0004 000c 0000000000017000 00001000"
#define BITMAP "0005 0003 02 7063 0000000000000008 ffffffffffffffff 0123456789abcdef"
#define RESUMED "0006 0004 00000001"
#define ACKNOWLEDGED "0007 0000"
#define SHUT "0001 0004 00000000"

static struct gw_analysis *analyze(const char *hex)
{
    struct recording r;
    recording_init(&r);
    recording_hex(&r, hex);
    struct gw_analysis *a = recording_analyze(&r, true, NULL);
    GW_ASSERT(a != NULL);
    GW_EXPECT_EQ(recording_facts(a).kind, GW_STREAM_RETURN_PATH);
    recording_fini(&r);
    return a;
}

GW_TEST(analyze_return, each_message_is_told)
{
    static const struct {
        const char *name, *block;
        uint64_t offset;
        uint32_t value;
    } expected[] = {{"SWITCHOVER_ACK", NULL, 0, 0},
                    {"PONG", NULL, 4, 1},
                    {"REQ_PAGES_ID", "pc.ram", 12, 4096},
                    {"REQ_PAGES", NULL, 35, 4096},
                    {"RECV_BITMAP", "pc", 51, 0},
                    {"RESUME_ACK", NULL, 82, 1},
                    {"SHUT", NULL, 90, 0}};
    struct gw_analysis *a = analyze(ACKNOWLEDGED PONG ASK_FOR ASK_MORE BITMAP RESUMED SHUT);
    GW_EXPECT_STREQ(recording_fault(a), "");
    GW_EXPECT_EQ(recording_facts(a).command_count, 7);
    GW_EXPECT(recording_facts(a).has_end);
    for (unsigned i = 0; i < 7; i++) {
        struct gw_stream_command_record c = {.struct_bytes = sizeof(c)};
        GW_ASSERT(gw_analysis_command(a, i, &c));
        GW_EXPECT_STREQ(c.name, expected[i].name);
        GW_EXPECT_EQ(c.offset, expected[i].offset);
        GW_EXPECT_EQ(c.value, expected[i].value);
        if (expected[i].block)
            GW_EXPECT_STREQ(c.block, expected[i].block);
    }
    gw_analysis_free(a);
}

static void expect_fault(const char *hex, uint64_t offset, const char *message)
{
    struct gw_analysis *a = analyze(hex);
    GW_EXPECT_STREQ(recording_fault(a), message);
    GW_EXPECT_EQ(recording_fault_offset(a), offset);
    gw_analysis_free(a);
}

GW_TEST(analyze_return, a_recovery_that_was_not_acknowledged_is_a_fault)
{
    expect_fault(RESUMED "0006 0004 00000000", 12, "RESUME_ACK says 0 at offset 12");
    expect_fault(PONG "0006 0004 00000002", 12, "RESUME_ACK says 2 at offset 12");
}

GW_TEST(analyze_return, pages_of_a_block_that_nobody_named_are_a_fault)
{
    expect_fault(PONG ASK_MORE, 8, "REQ_PAGES before a REQ_PAGES_ID has named a block at offset 8");
}
