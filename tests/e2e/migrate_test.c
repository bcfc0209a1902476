// SPDX-License-Identifier: MIT
/* Whole migrations through the public API, both sides in this process, on real wires. */
#include "tests/shim/gw_test.h"
#include "tests/support/pair.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

GW_TEST(migrate, a_writing_guest_arrives_byte_for_byte)
{
    struct pair pair = {.writes = true, .device_value = 0x1122334455667788u};
    pair_add_block(&pair, "ram0", 64u << 20, GW_BLOCK_ANON, 80);
    pair_init(&pair);
    pair_listen(&pair);
    pair_start(&pair);
    GW_EXPECT(pair_finish(&pair, 120));
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

/* ---- machines of unusual shape ------------------------------------------------------------------ */

GW_TEST(migrate, ten_thousand_blocks_arrive)
{
    struct pair pair = {.device_value = 1};
    for (unsigned i = 0; i < 10000; i++) {
        char name[32];
        snprintf(name, sizeof(name), "dimm-%05u", i);
        pair_add_block(&pair, name, 4096 * (1 + i % 3), GW_BLOCK_ANON, 50);
    }
    pair_init(&pair);
    pair_listen(&pair);
    pair_start(&pair);
    GW_EXPECT(pair_finish(&pair, 120));
    GW_EXPECT_STREQ(pair.source_err.message, "");
    GW_EXPECT_STREQ(pair.target_err.message, "");
    GW_EXPECT_EQ(pair.offers, 10000);
    GW_EXPECT_EQ(pair_differs(&pair), -1);
    pair_fini(&pair);
}

static uint64_t resident_bytes(const unsigned char *host, uint64_t bytes)
{
    uint64_t pages = 0;
    unsigned char *seen = calloc(bytes / 4096, 1);
    GW_ASSERT(seen && mincore((void *)(uintptr_t)host, bytes, seen) == 0);
    for (uint64_t i = 0; i < bytes / 4096; i++)
        pages += seen[i] & 1;
    free(seen);
    return pages * 4096;
}

static void expect_sparse(enum gw_block_kind kind)
{
    struct pair pair = {.device_value = 1};
    pair_add_block(&pair, "holes", UINT64_C(8) << 30, kind, 0);
    struct pair_block *block = &pair.blocks[0];
    for (uint64_t at = 0; at < block->bytes; at += UINT64_C(1) << 30)
        memset(block->source + at + 12288, 0x5a, 4096);
    pair_init(&pair);
    pair_listen(&pair);
    pair_start(&pair);
    GW_EXPECT(pair_finish(&pair, 120));
    GW_EXPECT_STREQ(pair.source_err.message, "");
    GW_EXPECT_STREQ(pair.target_err.message, "");
    uint64_t source = 8 * 4096;
    /* What the kernel makes of a fault may be a huge page; nothing beyond what was touched. */
    GW_EXPECT_LE(resident_bytes(block->target, block->bytes), source * 512);
    GW_EXPECT_LE(resident_bytes(block->source, block->bytes), source * 512);
    for (uint64_t at = 0; at < block->bytes; at += UINT64_C(1) << 30) {
        GW_EXPECT_EQ(block->target[at + 12288], 0x5a);
        GW_EXPECT_EQ(block->target[at + 16383], 0x5a);
        GW_EXPECT_EQ(block->target[at + 16384], 0);
    }
    struct gw_stats stats = {.struct_bytes = sizeof(stats)};
    gw_source_stats(pair.src, &stats);
    GW_EXPECT_EQ(stats.normal_pages, 8);
    GW_EXPECT_EQ(stats.normal_pages + stats.duplicate_pages, block->bytes / 4096);
    pair_fini(&pair);
}

GW_TEST(migrate, holes_of_anonymous_memory_stay_holes_at_both_ends)
{
    expect_sparse(GW_BLOCK_ANON);
}

GW_TEST(migrate, holes_of_a_memfd_stay_holes_at_both_ends)
{
    expect_sparse(GW_BLOCK_MEMFD);
}

/* ---- discards -------------------------------------------------------------------------------------- */

static void punch_and_tell(struct pair *pair, const struct gw_event *event)
{
    struct pair_block *block = &pair->blocks[0];
    bool *done = pair->test;
    if (event->type != GW_EVENT_ROUND || *done)
        return;
    *done = true;
    if (madvise(block->source + (1u << 20), 2u << 20, MADV_REMOVE) != 0)
        GW_NOTE_FAILURE("MADV_REMOVE");
    GW_EXPECT_EQ(gw_source_block_discarded(pair->src, 0, 1u << 20, 2u << 20), 0);
    GW_EXPECT_EQ(gw_source_block_discarded(pair->src, 0, 1, 4096), -EINVAL);
    GW_EXPECT_EQ(gw_source_block_discarded(pair->src, 0, block->bytes, 4096), -EINVAL);
    GW_EXPECT_EQ(gw_source_block_discarded(pair->src, 9, 0, 4096), -EINVAL);
    GW_EXPECT_EQ(gw_source_continue(pair->src), 0);
}

static void when_waiting(struct pair *pair, const struct gw_event *event)
{
    struct gw_event round = {.type = GW_EVENT_ROUND};
    if (event->type == GW_EVENT_STATUS && event->status == GW_STATUS_PRE_SWITCHOVER)
        punch_and_tell(pair, &round);
}

GW_TEST(migrate, a_hole_punched_after_the_first_round_is_zero_at_the_target)
{
    bool done = false;
    struct pair pair = {.device_value = 1, .test = &done, .source_event = when_waiting};
    pair.params = pair_params();
    GW_ASSERT_EQ(gw_params_set(pair.params, "pause-before-switchover", "on", NULL), 0);
    pair_add_block(&pair, "ram0", 16u << 20, GW_BLOCK_MEMFD, 100);
    pair_init(&pair);
    pair_listen(&pair);
    pair_start(&pair);
    GW_EXPECT(pair_finish(&pair, 120));
    GW_EXPECT_EQ(pair.source_rc, 0);
    GW_EXPECT(done);
    GW_EXPECT_EQ(pair_differs(&pair), -1);
    GW_EXPECT_EQ(pair.blocks[0].target[1u << 20], 0);
    gw_params_free(pair.params);
    pair_fini(&pair);
}
