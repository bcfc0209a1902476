// SPDX-License-Identifier: MIT
/* Whole migrations through the public API, both sides in this process, on real wires. */
#include "tests/shim/gw_test.h"
#include "tests/support/pair.h"

#include <errno.h>
#include <string.h>

GW_TEST(migrate, a_writing_guest_arrives_byte_for_byte)
{
    struct pair pair = {.writes = true, .device_value = 0x1122334455667788u};
    pair_add_block(&pair, "ram0", 64u << 20, GW_BLOCK_ANON, 80);
    pair_init(&pair);
    pair_listen(&pair);
    pair_start(&pair);
    GW_EXPECT(pair_finish(&pair, 30));
    GW_EXPECT_EQ(pair.source_rc, 0);
    GW_EXPECT_EQ(pair.target_rc, 0);
    GW_EXPECT_STREQ(pair.source_err.message, "");
    GW_EXPECT_STREQ(pair.target_err.message, "");
    GW_EXPECT_EQ(pair_differs(&pair), -1);
    GW_EXPECT_EQ(pair.device_loaded, pair.device_value);
    GW_EXPECT_EQ(pair.runs, 1);
    GW_EXPECT_EQ(pair.resumes, 0);
    GW_EXPECT_EQ(pair.two_runners, 0);
    pair_fini(&pair);
}
