// SPDX-License-Identifier: MIT
/* The union of dirty sources, each driven by hand. */
#include "core/base/bitmap.h"
#include "tests/shim/gw_test.h"
#include "tests/support/ram_rig.h"

#include <string.h>

#define PAGES 3000

struct bench {
    struct rig_memory memory;
    struct gw_block *a;
    struct gw_block *b;
    struct rig_dirty one;
    struct rig_dirty two;
};

static void bench_init(struct bench *bench, unsigned owners)
{
    memset(&bench->one, 0, sizeof(bench->one));
    memset(&bench->two, 0, sizeof(bench->two));
    rig_memory_init(&bench->memory);
    bench->a = rig_memory_add(&bench->memory, "a", GW_BLOCK_ANON, PAGES);
    bench->b = rig_memory_add(&bench->memory, "b", GW_BLOCK_ANON, PAGES);
    GW_ASSERT_EQ(gw_ram_add_dirty(bench->memory.ram, &rig_dirty_ops, &bench->one, NULL), 0);
    GW_ASSERT_EQ(gw_ram_add_dirty(bench->memory.ram, &rig_dirty_ops, &bench->two, NULL), 0);
    GW_ASSERT_EQ(gw_ram_layout(bench->memory.ram, 2u << 20, owners, NULL), 0);
    GW_ASSERT_EQ(gw_ram_source_begin(bench->memory.ram, NULL), 0);
}

GW_TEST(dirty_union, what_any_source_saw_is_dirty)
{
    struct bench t;
    bench_init(&t, 2);
    GW_ASSERT_EQ(gw_dirty_start(t.memory.ram, GW_DIRTY_ALL, NULL), 0);
    rig_dirty_mark(&t.one, t.a, 5);
    rig_dirty_mark(&t.two, t.a, 6);
    rig_dirty_mark(&t.one, t.b, 2999);
    rig_dirty_mark(&t.two, t.b, 2999);
    gw_bitmap_set(t.a->dirty, 7);
    uint64_t found = 0;
    uint64_t sum = 0;
    for (unsigned owner = 0; owner < 2; owner++) {
        GW_EXPECT_EQ(gw_dirty_sync(t.memory.ram, owner, &found, NULL), 0);
        sum += found;
    }
    GW_EXPECT_EQ(sum, 3);
    GW_EXPECT_EQ(gw_ram_dirty_pages(t.memory.ram), 4);
    GW_EXPECT(gw_bitmap_test(t.a->dirty, 5) && gw_bitmap_test(t.a->dirty, 6));
    GW_EXPECT(gw_bitmap_test(t.b->dirty, 2999));
    GW_EXPECT(!t.one.odd_range && !t.two.odd_range);
    GW_EXPECT_EQ(t.one.syncs, 12); /* two blocks of six stripes */
    gw_dirty_stop(t.memory.ram);
    gw_dirty_stop(t.memory.ram);
    GW_EXPECT_EQ(t.one.stops, 2);
    GW_EXPECT_EQ(t.two.stops, 2);
    rig_memory_fini(&t.memory);
}

GW_TEST(dirty_union, an_owner_syncs_its_own_stripes_only)
{
    struct bench t;
    bench_init(&t, 3);
    GW_ASSERT_EQ(gw_dirty_start(t.memory.ram, GW_DIRTY_ALL, NULL), 0);
    for (uint64_t page = 0; page < PAGES; page++)
        rig_dirty_mark(&t.one, t.a, page);
    GW_EXPECT_EQ(gw_dirty_sync(t.memory.ram, 1, NULL, NULL), 0);
    for (uint64_t page = 0; page < PAGES; page++)
        GW_EXPECT_EQ(gw_bitmap_test(t.a->dirty, page), gw_ram_owner(t.memory.ram, 0, page) == 1);
    /* A range is taken whole, and each owner absorbs its part of it. */
    uint64_t bits[2048 / 64] = {0};
    GW_EXPECT_EQ(gw_dirty_take(t.memory.ram, 0, 512, 2048, bits, NULL), 0);
    GW_EXPECT_EQ(gw_bitmap_count(bits, 0, 2048), 1024); /* owner 1 had its own above */
    gw_dirty_absorb(t.memory.ram, 0, 0, 512, 2048, bits);
    GW_EXPECT_EQ(gw_bitmap_count(t.a->dirty, 0, PAGES), 3 * 512);
    GW_EXPECT(gw_bitmap_test(t.a->dirty, 1536) && !gw_bitmap_test(t.a->dirty, 0));
    uint64_t rest[1024 / 64] = {0};
    GW_EXPECT_EQ(gw_dirty_take(t.memory.ram, 0, 2560, 1024, rest, NULL), 0);
    gw_dirty_absorb(t.memory.ram, 2, 0, 2560, 1024, rest);
    GW_EXPECT_EQ(gw_bitmap_count(t.a->dirty, 2560, PAGES - 2560), 440); /* the block's end */
    gw_dirty_stop(t.memory.ram);
    rig_memory_fini(&t.memory);
}

GW_TEST(dirty_union, a_source_that_fails_once_makes_its_range_dirty)
{
    struct bench t;
    bench_init(&t, 6);
    GW_ASSERT_EQ(gw_dirty_start(t.memory.ram, GW_DIRTY_ALL, NULL), 0);
    t.one.fail_syncs = 1;
    uint64_t found = 0;
    struct gw_error err = GW_ERROR_INIT;
    GW_EXPECT_EQ(gw_dirty_sync(t.memory.ram, 0, &found, &err), 0);
    GW_EXPECT(!err.message[0]);
    GW_EXPECT_EQ(found, 512);
    GW_EXPECT_EQ(gw_bitmap_count(t.a->dirty, 0, 512), 512);
    GW_EXPECT_EQ(t.one.syncs, 3); /* the failing stripe once more */
    gw_dirty_stop(t.memory.ram);
    rig_memory_fini(&t.memory);
}

GW_TEST(dirty_union, a_source_that_fails_twice_is_an_error_and_loses_nothing)
{
    struct bench t;
    bench_init(&t, 6);
    GW_ASSERT_EQ(gw_dirty_start(t.memory.ram, GW_DIRTY_ALL, NULL), 0);
    t.two.fail_syncs = 2;
    struct gw_error err = GW_ERROR_INIT;
    GW_EXPECT_EQ(gw_dirty_sync(t.memory.ram, 0, NULL, &err), -EIO);
    GW_EXPECT(strstr(err.message, "block 'a'") && strstr(err.message, "'rig'"));
    GW_EXPECT_EQ(gw_bitmap_count(t.a->dirty, 0, 512), 512);
    gw_dirty_stop(t.memory.ram);
    rig_memory_fini(&t.memory);
}

GW_TEST(dirty_union, a_start_that_fails_stops_what_was_started)
{
    struct bench t;
    bench_init(&t, 1);
    t.two.fail_start_at = 2;
    struct gw_error err = GW_ERROR_INIT;
    GW_EXPECT_EQ(gw_dirty_start(t.memory.ram, GW_DIRTY_ALL, &err), -ENOSPC);
    GW_EXPECT(strstr(err.message, "block 'b'") && strstr(err.message, "'rig'"));
    GW_EXPECT_EQ(t.one.stops, 2);
    GW_EXPECT_EQ(t.two.stops, 1);
    t.two.fail_start_at = 0;
    GW_EXPECT_EQ(gw_dirty_start(t.memory.ram, GW_DIRTY_ALL, NULL), 0); /* a retry */
    GW_EXPECT_EQ(gw_dirty_final(t.memory.ram, NULL), 0);
    GW_EXPECT_EQ(t.one.finals + t.two.finals, 2);
    gw_dirty_stop(t.memory.ram);
    rig_memory_fini(&t.memory);
}

GW_TEST(dirty_union, a_source_that_is_always_on_needs_no_start)
{
    struct rig_dirty always = {0};
    struct rig_memory memory;
    rig_memory_init(&memory);
    struct gw_block *a = rig_memory_add(&memory, "a", GW_BLOCK_ANON, PAGES);
    struct gw_dirty_ops ops = rig_dirty_ops;
    ops.start = NULL;
    ops.stop = NULL;
    GW_ASSERT_EQ(gw_ram_add_dirty(memory.ram, &ops, &always, NULL), 0);
    GW_ASSERT_EQ(gw_ram_layout(memory.ram, 2u << 20, 1, NULL), 0);
    GW_ASSERT_EQ(gw_ram_source_begin(memory.ram, NULL), 0);
    GW_EXPECT_EQ(gw_dirty_start(memory.ram, GW_DIRTY_ALL, NULL), 0);
    rig_dirty_mark(&always, a, 5);
    GW_EXPECT_EQ(gw_dirty_sync(memory.ram, 0, NULL, NULL), 0);
    GW_EXPECT_EQ(gw_ram_dirty_pages(memory.ram), 1);
    gw_dirty_stop(memory.ram);
    GW_EXPECT_EQ(always.stops, 0);
    rig_memory_fini(&memory);
}

GW_TEST(dirty_union, a_malformed_table_is_refused)
{
    struct rig_memory memory;
    rig_memory_init(&memory);
    struct gw_dirty_ops ops = rig_dirty_ops;
    ops.sync = NULL;
    GW_EXPECT_EQ(gw_ram_add_dirty(memory.ram, &ops, NULL, NULL), -EINVAL);
    ops = rig_dirty_ops;
    ops.struct_bytes = 8;
    GW_EXPECT_EQ(gw_ram_add_dirty(memory.ram, &ops, NULL, NULL), -EINVAL);
    for (unsigned i = 0; i < GW_DIRTY_SOURCES_MAX; i++)
        GW_EXPECT_EQ(gw_ram_add_dirty(memory.ram, &rig_dirty_ops, NULL, NULL), 0);
    GW_EXPECT_EQ(gw_ram_add_dirty(memory.ram, &rig_dirty_ops, NULL, NULL), -E2BIG);
    GW_EXPECT_EQ(gw_ram_dirty_source_count(memory.ram), GW_DIRTY_SOURCES_MAX);
    rig_memory_fini(&memory);
}
