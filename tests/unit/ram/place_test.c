// SPDX-License-Identifier: MIT
/* The target's side: what a peer may name, and what zero runs do. */
#include "core/base/bitmap.h"
#include "ram/place.h"
#include "tests/shim/gw_test.h"
#include "tests/support/ram_rig.h"
#include "transport/ops.h"

#include <string.h>
#include <sys/stat.h>

#define PAGE UINT64_C(4096)
#define PAGES 3000

struct bench {
    struct rig_memory memory;
    struct gw_block *block;
    struct gw_placer placer;
};

static void bench_init(struct bench *t, enum gw_block_kind kind, unsigned owners)
{
    rig_memory_init(&t->memory);
    t->block = rig_memory_add(&t->memory, "a", kind, PAGES);
    GW_ASSERT_EQ(gw_ram_layout(t->memory.ram, 2u << 20, owners, NULL), 0);
    t->placer = (struct gw_placer){.ram = t->memory.ram, .owner = 0};
}

static int check(struct bench *t, uint32_t region, uint64_t page, uint64_t pages)
{
    return gw_placer_ops.check(&t->placer, region, page * PAGE, (uint32_t)(pages * PAGE));
}

static int zero(struct bench *t, uint32_t block, uint64_t first_page, uint64_t pages)
{
    struct gw_zero_run run = {.block = block, .first_page = first_page, .pages = pages};
    return gw_place_zero(&t->placer, &run, 1, NULL);
}

static uint64_t file_pages(const struct bench *t)
{
    struct stat file;
    GW_ASSERT_EQ(fstat(t->memory.fd[0], &file), 0);
    return (uint64_t)file.st_blocks * 512 / PAGE;
}

GW_TEST(place, a_put_must_lie_in_one_stripe_of_this_owner)
{
    struct bench t;
    bench_init(&t, GW_BLOCK_ANON, 2);
    GW_ASSERT_EQ(gw_ram_target_begin(t.memory.ram, NULL), 0);
    GW_EXPECT_EQ(check(&t, 0, 0, 1), 0);
    GW_EXPECT_EQ(check(&t, 0, 0, 512), 0);
    GW_EXPECT_EQ(check(&t, 0, 511, 1), 0);
    GW_EXPECT_EQ(check(&t, 0, 1024, 512), 0);
    GW_EXPECT_EQ(check(&t, 0, 511, 2), -EPROTO); /* into the next stripe */
    GW_EXPECT_EQ(check(&t, 0, 512, 1), -EPROTO); /* another's */
    GW_EXPECT_EQ(check(&t, 1, 0, 1), -EPROTO);   /* no such block */
    GW_EXPECT_EQ(check(&t, 0, PAGES, 1), -EPROTO);
    GW_EXPECT_EQ(check(&t, 0, 0, 0), -EPROTO);
    GW_EXPECT_EQ(check(&t, 0, UINT64_MAX / PAGE, 2), -EPROTO);
    GW_EXPECT_EQ(gw_placer_ops.check(&t.placer, 0, 100, PAGE), -EPROTO);
    GW_EXPECT_EQ(gw_placer_ops.check(&t.placer, 0, 0, 100), -EPROTO);
    t.placer.owner = 1;
    GW_EXPECT_EQ(check(&t, 0, 2560, 440), 0);
    GW_EXPECT_EQ(check(&t, 0, 2560, 441), -EPROTO);
    rig_memory_fini(&t.memory);
}

GW_TEST(place, a_zero_run_must_lie_in_one_stripe_of_this_owner)
{
    struct bench t;
    bench_init(&t, GW_BLOCK_ANON, 2);
    GW_ASSERT_EQ(gw_ram_target_begin(t.memory.ram, NULL), 0);
    GW_EXPECT_EQ(zero(&t, 0, 0, 512), 0);
    GW_EXPECT_EQ(zero(&t, 0, 0, 513), -EPROTO);
    GW_EXPECT_EQ(zero(&t, 0, 512, 1), -EPROTO);
    GW_EXPECT_EQ(zero(&t, 7, 0, 1), -EPROTO);
    GW_EXPECT_EQ(zero(&t, 0, 0, 0), -EPROTO);
    GW_EXPECT_EQ(zero(&t, 0, 1, UINT64_MAX), -EPROTO);
    struct gw_zero_run runs[2] = {{.block = 0, .first_page = 3, .pages = 1},
                                  {.block = 0, .first_page = 600, .pages = 1}};
    struct gw_error err = GW_ERROR_INIT;
    GW_EXPECT_EQ(gw_place_zero(&t.placer, runs, 2, &err), -EPROTO);
    GW_EXPECT(strstr(err.message, "page endpoint 1") != NULL);
    rig_memory_fini(&t.memory);
}

GW_TEST(place, received_bits_and_counters_tell_what_came)
{
    struct bench t;
    bench_init(&t, GW_BLOCK_ANON, 1);
    GW_ASSERT_EQ(gw_ram_target_begin(t.memory.ram, NULL), 0);
    gw_placer_ops.placed(&t.placer, 0, 10 * PAGE, 5 * PAGE);
    GW_EXPECT_EQ(zero(&t, 0, 100, 50), 0);
    GW_EXPECT_EQ(gw_bitmap_count(t.block->received, 0, PAGES), 55);
    GW_EXPECT_EQ(gw_bitmap_count(t.block->received, 10, 5), 5);
    GW_EXPECT_EQ(gw_bitmap_count(t.block->received, 100, 50), 50);
    GW_EXPECT_EQ(t.placer.placed_pages, 5);
    GW_EXPECT_EQ(t.placer.zero_pages, 50);
    rig_memory_fini(&t.memory);
}

static struct gw_mr some_mr; /* a stream's registration of the whole block */

static const char *const wires[] = {"stream", "one-sided", NULL};

/* A page that had content before, one that came by a put, one that never was. */
GW_TEST_EACH(place, zero_runs_clear_what_is_there_and_allocate_nothing, wires)
{
    struct bench t;
    bench_init(&t, GW_BLOCK_MEMFD, 1);
    rig_write(t.block, 20, 7);
    GW_ASSERT_EQ(gw_ram_target_begin(t.memory.ram, NULL), 0);
    GW_EXPECT(!t.block->fresh);
    bool stream = strcmp(param, "stream") == 0;
    t.block->mr = stream ? &some_mr : NULL;
    rig_write(t.block, 30, 8); /* the wire's work */
    if (stream) {
        GW_EXPECT_EQ(check(&t, 0, 30, 1), 0);
        gw_placer_ops.placed(&t.placer, 0, 30 * PAGE, PAGE);
    }
    GW_EXPECT_EQ(file_pages(&t), 2);
    GW_EXPECT_EQ(zero(&t, 0, 0, 512), 0);
    GW_EXPECT_EQ(file_pages(&t), 2);
    GW_EXPECT_EQ(rig_read(t.block, 20), 0);
    GW_EXPECT_EQ(rig_read(t.block, 30), 0);
    rig_memory_fini(&t.memory);
}

GW_TEST_EACH(place, pages_outside_of_the_run_are_left_alone, wires)
{
    struct bench t;
    bench_init(&t, GW_BLOCK_ANON, 1);
    for (uint64_t page = 0; page < 512; page++)
        rig_write(t.block, page, page + 1);
    GW_ASSERT_EQ(gw_ram_target_begin(t.memory.ram, NULL), 0);
    t.block->mr = strcmp(param, "stream") == 0 ? &some_mr : NULL;
    GW_EXPECT_EQ(zero(&t, 0, 100, 3), 0);
    for (uint64_t page = 0; page < 512; page++)
        GW_EXPECT_EQ(rig_read(t.block, page), page >= 100 && page < 103 ? 0 : page + 1);
    rig_memory_fini(&t.memory);
}

GW_TEST(place, a_wish_must_be_whole_pages_inside_its_block)
{
    struct bench t;
    bench_init(&t, GW_BLOCK_ANON, 1);
    const uint64_t bytes = (uint64_t)PAGES * PAGE;
    static const struct {
        uint32_t block;
        uint64_t offset;
        uint64_t pages;
        int rc;
    } cases[] = {
        {0, 0, PAGES, 0},           {0, PAGE, 1, 0},
        {1, 0, 1, -EPROTO},         {0, 0, 0, -EPROTO},
        {0, 0, PAGES + 1, -EPROTO}, {0, 17, 1, -EPROTO},
        {0, PAGE, PAGES, -EPROTO},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct gw_wish wish = {cases[i].block, cases[i].offset, cases[i].pages * PAGE};
        struct gw_error err = GW_ERROR_INIT;
        GW_EXPECT_EQ(gw_wish_check(t.memory.ram, &wish, &err), cases[i].rc);
        GW_EXPECT_EQ(gw_error_is_set(&err), cases[i].rc != 0);
    }
    struct gw_wish wrap = {0, UINT64_MAX / PAGE * PAGE, bytes};
    GW_EXPECT_EQ(gw_wish_check(t.memory.ram, &wrap, NULL), -EPROTO);
    rig_memory_fini(&t.memory);
}
