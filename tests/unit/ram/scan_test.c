// SPDX-License-Identifier: MIT
/* Runs out of bits. */
#include "core/base/bitmap.h"
#include "ram/scan.h"
#include "tests/shim/gw_test.h"
#include "tests/support/ram_rig.h"

#include <stdlib.h>

#define CHUNK_PAGES (GW_CHUNK_BYTES_MIN / GW_PAGE_BYTES)

struct bench {
    struct rig_memory memory;
    struct gw_block *block;
    struct gw_domain *dom;
    struct gw_chunks *chunks;
    struct gw_scan scan;
};

static void bench_init(struct bench *t, uint64_t pages, bool keyed)
{
    rig_memory_init(&t->memory);
    t->block = rig_memory_add(&t->memory, "a", GW_BLOCK_ANON, pages);
    GW_ASSERT_EQ(gw_ram_layout(t->memory.ram, 8u << 20, 1, NULL), 0);
    GW_ASSERT_EQ(gw_ram_source_begin(t->memory.ram, NULL), 0);
    t->dom = rig_domain_new();
    struct gw_chunks_config config = {
        .ram = t->memory.ram,
        .dom = t->dom,
        .keyed = keyed,
        .chunk_bytes = GW_CHUNK_BYTES_MIN,
        .local_budget = UINT64_MAX,
        .remote_budget = UINT64_MAX,
    };
    t->chunks = gw_chunks_new(&config, NULL);
    GW_ASSERT(t->chunks);
}

static void bench_fini(struct bench *t)
{
    gw_chunks_free(t->chunks);
    rig_domain_free(t->dom);
    rig_memory_fini(&t->memory);
}

static void begin(struct bench *t, uint64_t stripe_index)
{
    struct gw_stripe stripe;
    GW_ASSERT(gw_ram_stripe(t->memory.ram, 0, stripe_index, &stripe));
    gw_scan_begin(&t->scan, t->memory.ram, t->chunks, &stripe);
}

/* Makes every populated chunk ready. */
static void make_ready(struct bench *t)
{
    struct gw_wish wish;
    while (gw_chunks_wish(t->chunks, &wish, 1, NULL) == 1) {
        GW_ASSERT_EQ(rig_chunk_key(t->chunks, &wish), 0);
        GW_ASSERT_EQ(gw_chunks_newly_ready(t->chunks, &wish, 1), 1);
        gw_chunks_synced(t->chunks, &wish);
    }
}

GW_TEST(scan, runs_are_what_the_bits_say)
{
    struct bench t;
    bench_init(&t, 2048, false);
    uint64_t *expected = calloc(gw_bitmap_words(2048), sizeof(*expected));
    srandom(3);
    for (uint64_t page = 0; page < 2048; page++) {
        if (random() % 3)
            gw_bitmap_set(expected, page);
    }
    for (uint32_t most = 1; most < 40; most += 13) {
        for (uint64_t page = 0; page < 2048; page++) {
            if (gw_bitmap_test(expected, page))
                gw_bitmap_set(t.block->dirty, page);
        }
        uint64_t *seen = calloc(gw_bitmap_words(2048), sizeof(*seen));
        struct gw_run run;
        begin(&t, 0);
        uint64_t at = 0;
        while (gw_scan_next(&t.scan, most, &run)) {
            GW_ASSERT(run.pages && run.pages <= most && run.first_page >= at);
            at = run.first_page + run.pages;
            gw_bitmap_set_range(seen, run.first_page, run.pages);
            GW_EXPECT_EQ(gw_bitmap_count(t.block->dirty, run.first_page, run.pages), 0);
        }
        GW_EXPECT_MEMEQ(seen, expected, 2048 / 8);
        GW_EXPECT_EQ(gw_ram_dirty_pages(t.memory.ram), 0);
        free(seen);
    }
    free(expected);
    bench_fini(&t);
}

GW_TEST(scan, run_stops_at_the_end_of_its_stripe)
{
    struct bench t;
    bench_init(&t, 5000, false);
    gw_bitmap_set_range(t.block->dirty, 2000, 3000);
    struct gw_run run;
    begin(&t, 0);
    GW_ASSERT(gw_scan_next(&t.scan, UINT32_MAX, &run));
    GW_EXPECT_EQ(run.first_page, 2000);
    GW_EXPECT_EQ(run.pages, 48);
    GW_EXPECT(!gw_scan_next(&t.scan, UINT32_MAX, &run));
    begin(&t, 2); /* the last stripe, cut by the block's end */
    GW_ASSERT(gw_scan_next(&t.scan, UINT32_MAX, &run));
    GW_EXPECT_EQ(run.first_page, 4096);
    GW_EXPECT_EQ(run.pages, 904);
    GW_EXPECT_EQ(gw_ram_dirty_pages(t.memory.ram), 2048);
    bench_fini(&t);
}

GW_TEST(scan, run_stops_at_chunk_boundary)
{
    struct bench t;
    bench_init(&t, 2048, true);
    for (uint64_t page = 0; page < 2048; page++)
        rig_write(t.block, page, 1);
    make_ready(&t);
    gw_bitmap_set_range(t.block->dirty, 500, 1000);
    struct gw_run run;
    begin(&t, 0);
    static const uint64_t first[] = {500, 512, 1024};
    static const uint64_t pages[] = {12, 512, 476};
    for (unsigned i = 0; i < 3; i++) {
        GW_ASSERT(gw_scan_next(&t.scan, UINT32_MAX, &run));
        GW_EXPECT_EQ(run.first_page, first[i]);
        GW_EXPECT_EQ(run.pages, pages[i]);
    }
    GW_EXPECT(!gw_scan_next(&t.scan, UINT32_MAX, &run));
    bench_fini(&t);
}

GW_TEST(scan, chunks_that_are_not_ready_keep_their_bits)
{
    struct bench t;
    bench_init(&t, 2048, true);
    rig_write(t.block, CHUNK_PAGES, 1); /* the second chunk alone is populated */
    make_ready(&t);
    gw_bitmap_set_range(t.block->dirty, 400, 800);
    struct gw_run run;
    begin(&t, 0);
    GW_ASSERT(gw_scan_next(&t.scan, UINT32_MAX, &run));
    GW_EXPECT_EQ(run.first_page, 512);
    GW_EXPECT_EQ(run.pages, 512);
    GW_EXPECT(!gw_scan_next(&t.scan, UINT32_MAX, &run));
    GW_EXPECT_EQ(t.scan.waiting_pages, 112 + 176);
    GW_EXPECT_EQ(gw_bitmap_count(t.block->dirty, 0, 2048), 112 + 176);
    /* They are wanted now. */
    struct gw_wish wish[4];
    GW_EXPECT_EQ(gw_chunks_wish(t.chunks, wish, 4, NULL), 2);
    GW_EXPECT_EQ(wish[0].offset, 0);
    GW_EXPECT_EQ(wish[1].offset, 2 * GW_CHUNK_BYTES_MIN);
    bench_fini(&t);
}
