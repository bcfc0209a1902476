// SPDX-License-Identifier: MIT
/* What was discarded is reported once by some sync, wholly and whatever the order of stripes. */
#include "core/base/alloc.h"
#include "core/base/bitmap.h"
#include "core/base/error.h"
#include "core/discard.h"
#include "tests/shim/gw_test.h"

#include <pthread.h>

enum { STRIPE = 512, WORDS = STRIPE / 64 };

static struct gw_discards discards;

static void begin(unsigned blocks, uint64_t pages)
{
    struct gw_block_desc desc = {.struct_bytes = sizeof(desc), .size_bytes = pages * 4096};
    gw_discards_init(&discards);
    for (unsigned i = 0; i < blocks; i++)
        GW_ASSERT_EQ(gw_discards_ops.start(&discards, i, &desc, NULL), 0);
}

static void end(unsigned blocks)
{
    for (unsigned i = 0; i < blocks; i++)
        gw_discards_ops.stop(&discards, i);
    gw_discards_fini(&discards);
}

/* How many pages of the stripe were discarded; @bits gets them too, if given. */
static uint64_t sync(unsigned block, uint64_t stripe, uint64_t pages, uint64_t *bits)
{
    uint64_t own[WORDS] = {0};
    GW_EXPECT_EQ(gw_discards_ops.sync(&discards, block, stripe * STRIPE, pages, own, NULL), 0);
    for (unsigned i = 0; bits && i < WORDS; i++)
        bits[i] |= own[i];
    return gw_bitmap_count(own, 0, pages);
}

GW_TEST(discard, range_comes_out_once_and_exactly)
{
    uint64_t bits[WORDS] = {0};
    begin(2, 4 * STRIPE);
    gw_discards_add(&discards, 1, STRIPE + 70, 3);
    GW_EXPECT_EQ(sync(0, 1, STRIPE, NULL), 0);
    GW_EXPECT_EQ(sync(1, 0, STRIPE, NULL), 0);
    GW_EXPECT_EQ(sync(1, 1, STRIPE, bits), 3);
    GW_EXPECT_EQ(bits[1], UINT64_C(7) << 6);
    GW_EXPECT_EQ(sync(1, 1, STRIPE, NULL), 0);
    end(2);
}

GW_TEST(discard, sync_adds_to_the_bits_that_are_there)
{
    uint64_t bits[WORDS] = {[0] = 1};
    begin(1, STRIPE);
    gw_discards_add(&discards, 0, 63, 2);
    GW_EXPECT_EQ(gw_discards_ops.sync(&discards, 0, 0, STRIPE, bits, NULL), 0);
    GW_EXPECT_EQ(bits[0], UINT64_C(1) << 63 | 1);
    GW_EXPECT_EQ(bits[1], 1);
    end(1);
}

/* Owners take every other stripe, so a range is taken out in as many pieces as it has stripes. */
GW_TEST(discard, whole_terabyte_taken_by_turns_loses_nothing)
{
    enum { STRIPES = 16384 };
    uint64_t got = 0;
    begin(1, (uint64_t)STRIPES * STRIPE);
    gw_discards_add(&discards, 0, 0, (uint64_t)STRIPES * STRIPE);
    for (uint64_t owner = 0; owner < 2; owner++) {
        for (uint64_t i = owner; i < STRIPES; i += 2)
            got += sync(0, i, STRIPE, NULL);
    }
    GW_EXPECT_EQ(got, (uint64_t)STRIPES * STRIPE);
    end(1);
}

GW_TEST(discard, many_scattered_pages_are_all_remembered)
{
    enum { STRIPES = 64 };
    uint64_t got = 0;
    begin(1, STRIPES * STRIPE);
    for (uint64_t page = 0; page < STRIPES * STRIPE; page += 2)
        gw_discards_add(&discards, 0, page, 1);
    for (uint64_t i = 0; i < STRIPES; i++)
        got += sync(0, i, STRIPE, NULL);
    GW_EXPECT_EQ(got, STRIPES * STRIPE / 2);
    end(1);
}

GW_TEST(discard, ranges_that_overlap_are_counted_once)
{
    begin(1, STRIPE);
    gw_discards_add(&discards, 0, 10, 20);
    gw_discards_add(&discards, 0, 15, 40);
    GW_EXPECT_EQ(discards.blocks[0].set_count, 45);
    GW_EXPECT_EQ(sync(0, 0, STRIPE, NULL), 45);
    GW_EXPECT_EQ(discards.blocks[0].set_count, 0);
    end(1);
}

GW_TEST(discard, last_stripe_may_be_short_and_ranges_end_with_the_block)
{
    begin(1, STRIPE + 100);
    gw_discards_add(&discards, 0, STRIPE + 90, 1000);
    gw_discards_add(&discards, 0, STRIPE + 100, 1);
    gw_discards_add(&discards, 0, UINT64_MAX, UINT64_MAX);
    GW_EXPECT_EQ(sync(0, 0, STRIPE, NULL), 0);
    GW_EXPECT_EQ(sync(0, 1, 100, NULL), 10);
    end(1);
}

GW_TEST(discard, nothing_is_kept_of_blocks_that_are_not_tracked)
{
    begin(1, STRIPE);
    gw_discards_add(&discards, 1, 0, 1);
    gw_discards_add(&discards, 77, 0, 1);
    gw_discards_add(&discards, 0, 0, 1);
    gw_discards_ops.stop(&discards, 0);
    struct gw_block_desc desc = {.struct_bytes = sizeof(desc), .size_bytes = STRIPE * 4096};
    GW_EXPECT_EQ(gw_discards_ops.start(&discards, 0, &desc, NULL), 0);
    GW_EXPECT_EQ(sync(0, 0, STRIPE, NULL), 0); /* of the migration before */
    GW_EXPECT_EQ(sync(1, 0, STRIPE, NULL), 0);
    end(1);
}

GW_TEST(discard, start_without_memory_fails_and_can_be_repeated)
{
    struct gw_block_desc desc = {.struct_bytes = sizeof(desc), .size_bytes = STRIPE * 4096};
    gw_discards_init(&discards);
    for (int64_t nth = 0; nth < 2; nth++) {
        struct gw_error err = GW_ERROR_INIT;
        gw_alloc_fail_after(nth);
        GW_EXPECT_EQ(gw_discards_ops.start(&discards, 3, &desc, &err), -ENOMEM);
        GW_EXPECT_EQ(err.rc, -ENOMEM);
        gw_alloc_fail_after(-1);
    }
    GW_EXPECT_EQ(gw_discards_ops.start(&discards, 3, &desc, NULL), 0);
    gw_discards_add(&discards, 3, 5, 1);
    GW_EXPECT_EQ(sync(3, 0, STRIPE, NULL), 1);
    gw_discards_ops.stop(&discards, 3);
    gw_discards_fini(&discards);
    GW_EXPECT_EQ(gw_alloc_live(), 0);
}

static void *add_odd(void *arg)
{
    (void)arg;
    for (uint64_t page = 1; page < 64 * STRIPE; page += 2)
        gw_discards_add(&discards, 0, page, 1);
    return NULL;
}

GW_TEST(discard, none_is_lost_between_threads_that_add_and_sync)
{
    pthread_t thread;
    uint64_t got = 0;
    begin(1, 64 * STRIPE);
    GW_ASSERT_EQ(pthread_create(&thread, NULL, add_odd, NULL), 0);
    for (unsigned round = 0; round < 50; round++) {
        for (uint64_t i = 0; i < 64; i++)
            got += sync(0, i, STRIPE, NULL);
    }
    pthread_join(thread, NULL);
    for (uint64_t i = 0; i < 64; i++)
        got += sync(0, i, STRIPE, NULL);
    GW_EXPECT_EQ(got, 32 * STRIPE);
    end(1);
}
