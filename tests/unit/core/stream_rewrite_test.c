// SPDX-License-Identifier: MIT
/* What is read can be written: streams that QEMU recorded (their pages blanked, to be small) are taken apart and
 * put together again, and not a byte differs; so is a return path. */
#include "control/stream_write.h"
#include "tests/shim/gw_test.h"
#include "tests/support/recording.h"
#include "tests/support/rewrite.h"

#include <stdlib.h>
#include <string.h>

static const char *const names[] = {"background-snapshot",
                                    "ignore-shared",
                                    "microvm-blk",
                                    "neither",
                                    "no-description",
                                    "no-footers",
                                    "pc",
                                    "pc-many",
                                    "postcopy",
                                    "postcopy-advised",
                                    "postcopy-huge",
                                    "uuid",
                                    "xbzrle",
                                    NULL};

GW_TEST_EACH(stream_rewrite, a_stream_of_qemu_is_written_again, names)
{
    struct rewritten out;
    size_t bytes;
    uint8_t *data = recording_golden(param, &bytes);
    rewrite_stream(data, bytes, false, &out);
    GW_EXPECT(rewritten_equals(&out, data, bytes));
    /* It was taken apart, not copied: as many pieces as an analysis finds. */
    struct gw_analysis *analysis = recording_analyze_bytes(data, bytes, false, NULL);
    struct gw_stream_facts facts = recording_facts(analysis);
    GW_EXPECT_EQ(out.sections, facts.section_count);
    GW_EXPECT_EQ(out.commands, facts.command_count);
    GW_EXPECT_EQ(out.zero, facts.zero_pages);
    GW_EXPECT_EQ(out.pages, facts.normal_pages);
    GW_EXPECT_EQ(out.changes, facts.xbzrle_pages);
    GW_EXPECT_EQ(out.packages, facts.has_postcopy);
    GW_EXPECT_EQ(out.page_sizes, strcmp(param, "postcopy-huge") == 0);
    GW_EXPECT_EQ(out.changes > 0, strcmp(param, "xbzrle") == 0);
    gw_analysis_free(analysis);
    rewritten_fini(&out);
    free(data);
}

GW_TEST(stream_rewrite, a_return_path_of_qemu_is_written_again)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_return_item item = {0};
    struct gw_input in;
    struct gw_writer w;
    unsigned count = 0;
    size_t bytes;
    uint8_t *data = recording_golden("return-path-back", &bytes);
    gw_writer_init(&w, bytes);
    gw_input_memory(&in, data, bytes, 0);
    while (!gw_input_is_empty(&in)) {
        GW_ASSERT_EQ(gw_return_take(&in, &item, &err), 0);
        GW_ASSERT_EQ(gw_return_write(&w, &item, &err), 0);
        count++;
    }
    GW_EXPECT_EQ(count, 2);
    GW_ASSERT_EQ(w.bytes, bytes);
    GW_EXPECT_MEMEQ(w.data, data, bytes);
    gw_writer_fini(&w);
    free(data);
}
