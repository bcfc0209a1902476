// SPDX-License-Identifier: MIT
/* What was touched, as the kernel tells it, against what the test touched. */
#include "core/base/bitmap.h"
#include "ram/holes.h"
#include "tests/shim/gw_test.h"
#include "tests/support/huge_pool.h"
#include "tests/support/ram_rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE UINT64_C(4096)
#define PAGES 5000
#define MIB (UINT64_C(1) << 20)

static const char *const ways[] = {"seek", "scan", "entries", NULL};

/* Every page that a walk reports, each at most once, in order. */
static uint64_t *walk_bits(const struct gw_block *block, uint64_t from, enum gw_holes_how how)
{
    uint64_t *bits = calloc(gw_bitmap_words(block->pages), sizeof(*bits));
    struct gw_holes walk;
    struct gw_extent extent;
    uint64_t at = from;
    GW_ASSERT_EQ(gw_holes_begin(&walk, block, from), 0);
    if (how == GW_HOLES_ENTRIES)
        walk.how = how;
    GW_EXPECT_EQ(walk.how, how);
    int rc;
    while ((rc = gw_holes_step(&walk, &extent)) > 0) {
        GW_ASSERT(extent.pages && extent.first_page >= at);
        at = extent.first_page + extent.pages;
        GW_ASSERT_LE(at, block->pages);
        gw_bitmap_set_range(bits, extent.first_page, extent.pages);
    }
    GW_EXPECT_EQ(rc, 0);
    gw_holes_end(&walk);
    return bits;
}

static enum gw_holes_how how_of(const char *param)
{
    if (strcmp(param, "seek") == 0)
        return GW_HOLES_SEEK;
    return strcmp(param, "scan") == 0 ? GW_HOLES_SCAN : GW_HOLES_ENTRIES;
}

static enum gw_block_kind kind_of(const char *param)
{
    return how_of(param) == GW_HOLES_SEEK ? GW_BLOCK_MEMFD : GW_BLOCK_ANON;
}

GW_TEST_EACH(holes, touched_pages_are_found_and_no_others, ways)
{
    struct rig_memory memory;
    rig_memory_init(&memory);
    struct gw_block *block = rig_memory_add(&memory, "a", kind_of(param), PAGES);
    uint64_t *expected = calloc(gw_bitmap_words(PAGES), sizeof(*expected));
    srandom(1);
    for (uint64_t page = 0; page < PAGES;) {
        uint64_t run = 1 + (uint64_t)random() % 20;
        bool touched = random() % 2;
        for (; run-- && page < PAGES; page++) {
            if (touched) {
                rig_write(block, page, 0);
                gw_bitmap_set(expected, page);
            }
        }
    }
    static const uint64_t froms[] = {0, 1, 777, PAGES - 1, PAGES};
    for (unsigned i = 0; i < 5; i++) {
        gw_bitmap_clear_range(expected, 0, froms[i]);
        uint64_t *bits = walk_bits(block, froms[i], how_of(param));
        GW_EXPECT_MEMEQ(bits, expected, gw_bitmap_words(PAGES) * sizeof(*bits));
        free(bits);
    }
    free(expected);
    rig_memory_fini(&memory);
}

GW_TEST_EACH(holes, an_untouched_block_has_no_extent, ways)
{
    struct rig_memory memory;
    rig_memory_init(&memory);
    struct gw_block *block = rig_memory_add(&memory, "a", kind_of(param), PAGES);
    struct gw_extent extent;
    GW_EXPECT_EQ(gw_holes_next(block, 0, &extent), 0);
    rig_write(block, 4321, 1);
    GW_EXPECT_EQ(gw_holes_next(block, 0, &extent), 1);
    GW_EXPECT_EQ(extent.first_page, 4321);
    GW_EXPECT_EQ(extent.pages, 1);
    GW_EXPECT_EQ(gw_holes_next(block, 4322, &extent), 0);
    rig_memory_fini(&memory);
}

GW_TEST(holes, a_page_only_ever_read_counts_as_untouched)
{
    struct rig_memory memory;
    rig_memory_init(&memory);
    struct gw_block *block = rig_memory_add(&memory, "a", GW_BLOCK_ANON, 1024);
    GW_EXPECT_EQ(rig_read(block, 77), 0); /* maps the shared zero page */
    struct gw_extent extent;
    int rc = gw_holes_next(block, 0, &extent);
    struct gw_holes walk;
    GW_ASSERT_EQ(gw_holes_begin(&walk, block, 0), 0);
    GW_EXPECT_EQ(gw_holes_step(&walk, &extent), rc);
    bool scans = walk.how == GW_HOLES_SCAN;
    gw_holes_end(&walk);
    if (!scans)
        GW_SKIP("no PAGEMAP_SCAN on this kernel");
    GW_EXPECT_EQ(rc, 0);
    rig_memory_fini(&memory);
}

/* Arming leaves a marker in the page table of pages that were never touched. */
GW_TEST_EACH(holes, armed_and_untouched_is_untouched, ways)
{
    struct gw_dirty *dirty = NULL;
    struct gw_error err = GW_ERROR_INIT;
    if (gw_dirty_open(GW_DIRTY_PAGEMAP_SCAN, NULL, &dirty, &err) < 0)
        GW_SKIP("%s", err.message);
    struct rig_memory memory;
    rig_memory_init(&memory);
    struct gw_block *block = rig_memory_add(&memory, "a", kind_of(param), PAGES);
    rig_write(block, 10, 1);
    GW_ASSERT_EQ(gw_ram_add_dirty(memory.ram, gw_dirty_kernel_ops(dirty), dirty, NULL), 0);
    GW_ASSERT_EQ(gw_dirty_start(memory.ram, GW_DIRTY_ALL, NULL), 0);
    rig_write(block, 4000, 1);
    uint64_t *bits = walk_bits(block, 0, how_of(param));
    GW_EXPECT_EQ(gw_bitmap_count(bits, 0, PAGES), 2);
    GW_EXPECT(gw_bitmap_test(bits, 10) && gw_bitmap_test(bits, 4000));
    free(bits);
    gw_dirty_stop(memory.ram);
    gw_dirty_close(dirty);
    rig_memory_fini(&memory);
}

GW_TEST(holes, a_file_knows_what_went_in_through_another_way)
{
    struct rig_memory memory;
    rig_memory_init(&memory);
    struct gw_block *block = rig_memory_add(&memory, "a", GW_BLOCK_MEMFD, 100);
    GW_ASSERT_EQ(pwrite(memory.fd[0], "x", 1, 50 * PAGE + 100), 1);
    struct gw_extent extent;
    GW_EXPECT_EQ(gw_holes_next(block, 0, &extent), 1);
    GW_EXPECT_EQ(extent.first_page, 50);
    /* The same file, at an offset. */
    struct gw_block_desc desc = block->desc;
    desc.name = "b";
    desc.host = memory.host[0] + 40 * PAGE;
    desc.fd_offset = 40 * PAGE;
    desc.size_bytes = 11 * PAGE;
    GW_ASSERT_EQ(gw_ram_add_block(memory.ram, &desc, NULL), 1);
    GW_EXPECT_EQ(gw_holes_next(gw_ram_block(memory.ram, 1), 0, &extent), 1);
    GW_EXPECT_EQ(extent.first_page, 10);
    GW_EXPECT_EQ(extent.pages, 1);
    struct stat file;
    GW_ASSERT_EQ(fstat(memory.fd[0], &file), 0);
    GW_EXPECT_EQ(file.st_blocks, 8); /* looking allocated nothing */
    rig_memory_fini(&memory);
}

GW_TEST(holes, shared_memory_without_its_descriptor_is_all_populated)
{
    struct rig_memory memory;
    rig_memory_init(&memory);
    struct gw_block *block = rig_memory_add(&memory, "a", GW_BLOCK_MEMFD, 100);
    block->desc.fd = -1;
    struct gw_extent extent;
    GW_EXPECT_EQ(gw_holes_next(block, 3, &extent), 1);
    GW_EXPECT_EQ(extent.first_page, 3);
    GW_EXPECT_EQ(extent.pages, 97);
    rig_memory_fini(&memory);
}

GW_TEST(holes, huge_pages_of_another_mapping_are_not_missed)
{
    struct gw_huge_pool pool;
    if (!gw_huge_pool_open(&pool, 2u << 20, 4))
        GW_SKIP("the host has no 4 huge pages of 2 MiB to give");
    const uint64_t bytes = 8 * MIB;
    int fd = memfd_create("huge", MFD_CLOEXEC | MFD_HUGETLB);
    GW_ASSERT(fd >= 0 && ftruncate(fd, (off_t)bytes) == 0);
    char *ours = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    char *theirs = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    GW_EXPECT(ours != MAP_FAILED && theirs != MAP_FAILED);
    struct gw_ram *ram = gw_ram_new();
    struct gw_block_desc desc = {
        .struct_bytes = sizeof(desc),
        .name = "huge",
        .host = ours,
        .size_bytes = bytes,
        .page_bytes = 2u << 20,
        .kind = GW_BLOCK_HUGETLB,
        .fd = fd,
    };
    GW_EXPECT_EQ(gw_ram_add_block(ram, &desc, NULL), 0);
    struct gw_extent extent;
    GW_EXPECT_EQ(gw_holes_next(gw_ram_block(ram, 0), 0, &extent), 0);
    ours[2 * MIB] = 1;
    GW_EXPECT_EQ(gw_holes_next(gw_ram_block(ram, 0), 0, &extent), 1);
    GW_EXPECT_EQ(extent.first_page, 512);
    GW_EXPECT_EQ(extent.pages, 512);
    theirs[6 * MIB] = 1; /* our page table knows nothing of it */
    GW_EXPECT_EQ(gw_holes_next(gw_ram_block(ram, 0), 0, &extent), 1);
    GW_EXPECT_EQ(extent.first_page, 0);
    GW_EXPECT_EQ(extent.pages, 2048);
    gw_ram_free(ram);
    munmap(ours, bytes);
    munmap(theirs, bytes);
    close(fd);
    gw_huge_pool_close(&pool);
}
