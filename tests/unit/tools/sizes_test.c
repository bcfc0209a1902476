// SPDX-License-Identifier: MIT
/* Amounts, as they are read from the command line and as they are written for people. */
#include "tests/shim/gw_test.h"
#include "tools/options.h"
#include "tools/progress.h"

#include <string.h>

static uint64_t size_of(const char *text)
{
    uint64_t bytes = UINT64_MAX;

    GW_EXPECT_EQ(gw_size_parse(text, &bytes, NULL), 0);
    return bytes;
}

static uint64_t rate_of(const char *text)
{
    uint64_t rate = UINT64_MAX;

    GW_EXPECT_EQ(gw_rate_parse(text, &rate, NULL), 0);
    return rate;
}

GW_TEST(sizes, bare_suffixes_are_1024_based_bytes)
{
    GW_EXPECT_EQ(size_of("4096"), 4096);
    GW_EXPECT_EQ(size_of("4k"), 4096);
    GW_EXPECT_EQ(size_of("2M"), 2u << 20);
    GW_EXPECT_EQ(size_of("1G"), 1u << 30);
    GW_EXPECT_EQ(size_of("1T"), UINT64_C(1) << 40);
    GW_EXPECT_EQ(size_of("1GiB"), 1u << 30);
    GW_EXPECT_EQ(rate_of("200M"), 200u << 20);
}

GW_TEST(sizes, rates_also_come_in_bits_and_in_bytes_a_second)
{
    GW_EXPECT_EQ(rate_of("10Gbit"), UINT64_C(1250000000));
    GW_EXPECT_EQ(rate_of("1GiB/s"), 1u << 30);
}

GW_TEST(sizes, anything_else_is_refused_with_a_sentence)
{
    static const char *const wrong[] = {"",    "G",    "1GB", "1g ",       "-1",
                                        "nan", "0x10", "1 G", "99999999T", "10Gbit"};
    struct gw_error err = GW_ERROR_INIT;
    uint64_t bytes;

    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        if (!GW_EXPECT_LT(gw_size_parse(wrong[i], &bytes, &err), 0))
            GW_NOTE_FAILURE("taken: '%s'", wrong[i]);
        GW_EXPECT(err.message[0] != '\0');
    }
}

static void reads_as(double bytes, bool rate, const char *expected)
{
    char text[24];

    gw_amount_text(bytes, rate, text);
    GW_EXPECT_STREQ(text, expected);
}

GW_TEST(sizes, amounts_are_written_with_at_most_one_fraction_digit)
{
    reads_as(0, false, "0 B");
    reads_as(1023, false, "1023 B");
    reads_as(1536, false, "1.5 KiB");
    reads_as(1073741824.0, false, "1.0 GiB");
    reads_as(209715200.0, true, "200 MiB/s");
}

GW_TEST(sizes, a_progress_line_names_rate_dirty_rate_remaining_round_and_eta)
{
    const struct gw_stats stats = {.struct_bytes = sizeof(stats),
                                   .status = GW_STATUS_ACTIVE,
                                   .transferred_bytes = 1 << 20,
                                   .remaining_bytes = 512u << 20,
                                   .dirty_pages_rate = 25600};
    const struct gw_progress progress = {.round = 3};
    char text[256];

    gw_progress_text(&progress, &stats, 228.0 * (1 << 20), text, sizeof(text));
    GW_EXPECT_STREQ(text, "active: round 3, 228 MiB/s, dirtied 100 MiB/s, 512 MiB remaining, "
                          "ETA 4 s, 1.0 MiB sent");
    gw_progress_text(&progress, &stats, 10.0 * (1 << 20), text, sizeof(text));
    GW_EXPECT(strstr(text, "ETA -") != NULL);
}
