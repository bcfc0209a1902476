// SPDX-License-Identifier: MIT
/* Blocks and their cut into stripes. Memory is only looked at where a test says so, so most blocks
 * here are addresses that nothing is mapped at. */
#include "core/base/alloc.h"
#include "core/base/bitmap.h"
#include "ram/ram_impl.h"
#include "tests/shim/gw_test.h"
#include "tests/support/ram_rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define MIB (UINT64_C(1) << 20)
#define TIB (UINT64_C(1) << 40)

static struct gw_block_desc good(void)
{
    return (struct gw_block_desc){
        .struct_bytes = sizeof(struct gw_block_desc),
        .name = "ram0",
        .host = (void *)(uintptr_t)(16 * MIB),
        .size_bytes = 16 * MIB,
        .page_bytes = GW_PAGE_BYTES,
        .fd = -1,
    };
}

static void expect_refused(const struct gw_block_desc *desc, int rc, const char *word)
{
    struct gw_ram *ram = gw_ram_new();
    struct gw_error err = GW_ERROR_INIT;
    GW_EXPECT_EQ(gw_ram_add_block(ram, desc, &err), rc);
    if (!strstr(err.message, word))
        GW_NOTE_FAILURE("'%s' is not in \"%s\"", word, err.message);
    GW_EXPECT_EQ(gw_ram_block_count(ram), 0);
    gw_ram_free(ram);
}

GW_TEST(block, each_malformed_field_is_refused_by_name)
{
    char long_name[GW_NAME_BYTES_MAX + 2];
    memset(long_name, 'x', sizeof(long_name));
    long_name[sizeof(long_name) - 1] = 0;
    struct gw_block_desc desc;
#define REFUSED(word, ...)                                                                         \
    desc = good();                                                                                 \
    __VA_ARGS__;                                                                                   \
    expect_refused(&desc, -EINVAL, word)
    REFUSED("struct_bytes", desc.struct_bytes = 8);
    REFUSED("name", desc.name = NULL);
    REFUSED("name", desc.name = "");
    REFUSED("name", desc.name = long_name);
    REFUSED("0x0a", desc.name = "ram\n0");
    REFUSED("0xc3", desc.name = "r\xc3\xa4m");
    REFUSED("0x7f", desc.name = "ram0\x7f");
    REFUSED("flags 0x6", desc.flags = 6u | GW_BLOCK_READ_ONLY);
    REFUSED("page_bytes", desc.page_bytes = 2048);
    REFUSED("page_bytes", desc.page_bytes = 12288);
    REFUSED("size_bytes", desc.size_bytes = 0);
    REFUSED("size_bytes", desc.size_bytes = 5000);
    REFUSED("size_bytes", desc.page_bytes = 1u << 21; desc.size_bytes = 3 * MIB);
    REFUSED("size_bytes", desc.size_bytes = UINT64_MAX / GW_PAGE_BYTES * GW_PAGE_BYTES);
    REFUSED("host", desc.host = NULL);
    REFUSED("host", desc.host = (char *)desc.host + 512);
    REFUSED("host", desc.page_bytes = 1u << 21; desc.host = (char *)desc.host + MIB);
    REFUSED("kind", desc.kind = (enum gw_block_kind)17);
    REFUSED("fd", desc.fd = -2);
    REFUSED("fd_offset", desc.fd = 0; desc.fd_offset = 100);
    REFUSED("fd_offset", desc.fd = 0; desc.fd_offset = (uint64_t)INT64_MAX / 4096 * 4096);
    long_name[GW_NAME_BYTES_MAX] = 0;
    desc = good();
    desc.name = long_name;
    struct gw_ram *ram = gw_ram_new();
    GW_EXPECT_EQ(gw_ram_add_block(ram, &desc, NULL), 0);
    gw_ram_free(ram);
}

GW_TEST(block, a_name_is_copied_and_taken_once)
{
    struct gw_ram *ram = gw_ram_new();
    char name[] = "ram0";
    struct gw_block_desc desc = good();
    desc.name = name;
    GW_EXPECT_EQ(gw_ram_add_block(ram, &desc, NULL), 0);
    GW_EXPECT_EQ(gw_ram_add_block(ram, &desc, NULL), -EEXIST);
    name[3] = '1';
    GW_EXPECT_STREQ(gw_ram_block(ram, 0)->desc.name, "ram0");
    GW_EXPECT_EQ(gw_ram_add_block(ram, &desc, NULL), 1);
    GW_EXPECT(gw_ram_find(ram, "ram1") == gw_ram_block(ram, 1));
    GW_EXPECT(gw_ram_find(ram, "ram2") == NULL);
    GW_EXPECT(gw_ram_block(ram, 2) == NULL);
    GW_EXPECT_EQ(gw_ram_bytes(ram), 32 * MIB);
    gw_ram_free(ram);
}

static void add_many(struct gw_ram *ram, unsigned count, uint64_t bytes)
{
    struct gw_block_desc desc = good();
    char name[32];
    desc.name = name;
    desc.size_bytes = bytes;
    for (unsigned i = 0; i < count; i++) {
        snprintf(name, sizeof(name), "/machine/dimm[%u]", i);
        GW_ASSERT_EQ(gw_ram_add_block(ram, &desc, NULL), i);
    }
}

GW_TEST(block, ten_thousand_blocks_cost_a_handful_of_comparisons_each)
{
    const unsigned count = 10000;
    struct gw_ram *ram = gw_ram_new();
    add_many(ram, count, MIB);
    uint64_t adding = ram->name_compares;
    GW_EXPECT_LT(adding, 4 * count);
    char name[32];
    for (unsigned i = 0; i < count; i++) {
        snprintf(name, sizeof(name), "/machine/dimm[%u]", i);
        GW_EXPECT(gw_ram_find(ram, name) == gw_ram_block(ram, i));
    }
    GW_EXPECT_LT(ram->name_compares - adding, 4 * count);
    GW_EXPECT_EQ(gw_ram_layout(ram, GW_STRIPE_BYTES_DEFAULT, 7, NULL), 0);
    GW_EXPECT_EQ(gw_ram_stripe_count(ram), count);
    struct gw_stripe stripe;
    uint64_t found = 0;
    for (unsigned owner = 0; owner < 7; owner++) {
        for (uint64_t i = 0; gw_ram_stripe(ram, owner, i, &stripe); i++)
            found++;
    }
    GW_EXPECT_EQ(found, count);
    gw_ram_free(ram);
}

/* Every page of every block is in exactly one stripe of exactly one owner. */
static void expect_partition(struct gw_ram *ram, unsigned owners)
{
    uint64_t pages = 0;
    for (unsigned owner = 0; owner < owners; owner++) {
        struct gw_stripe stripe;
        uint64_t last = 0;
        uint64_t i = 0;
        for (; gw_ram_stripe(ram, owner, i, &stripe); i++) {
            uint64_t position = ((uint64_t)stripe.block << 40) + stripe.first_page;
            GW_EXPECT(i == 0 || position > last);
            last = position;
            GW_EXPECT_EQ(stripe.first_page % GW_STRIPE_PAGES_MIN, 0);
            GW_EXPECT_EQ(gw_ram_owner(ram, stripe.block, stripe.first_page), owner);
            GW_EXPECT_EQ(gw_ram_owner(ram, stripe.block, stripe.first_page + stripe.pages - 1),
                         owner);
            pages += stripe.pages;
        }
        GW_EXPECT(!gw_ram_stripe(ram, owner, i + 1, &stripe));
        GW_EXPECT(!gw_ram_stripe(ram, owner, UINT64_MAX / 2, &stripe));
    }
    GW_EXPECT_EQ(pages, gw_ram_bytes(ram) / GW_PAGE_BYTES);
}

GW_TEST(block, stripes_part_all_pages_among_owners)
{
    static const uint64_t sizes[] = {1, 511, 512, 513, 8192, 8193, 100000};
    struct gw_ram *ram = gw_ram_new();
    struct gw_block_desc desc = good();
    for (unsigned i = 0; i < 7; i++) {
        char name[8];
        snprintf(name, sizeof(name), "%u", i);
        desc.name = name;
        desc.size_bytes = sizes[i] * GW_PAGE_BYTES;
        GW_ASSERT_EQ(gw_ram_add_block(ram, &desc, NULL), i);
    }
    static const unsigned owners[] = {1, 2, 3, 16, 255};
    static const uint64_t stripes[] = {2 * MIB, 6 * MIB, 32 * MIB};
    for (unsigned o = 0; o < 5; o++) {
        for (unsigned s = 0; s < 3; s++) {
            GW_ASSERT_EQ(gw_ram_layout(ram, stripes[s], owners[o], NULL), 0);
            expect_partition(ram, owners[o]);
        }
    }
    GW_EXPECT_EQ(gw_ram_layout(ram, MIB, 1, NULL), -EINVAL);
    GW_EXPECT_EQ(gw_ram_layout(ram, 0, 1, NULL), -EINVAL);
    GW_EXPECT_EQ(gw_ram_layout(ram, 2 * MIB, 0, NULL), -EINVAL);
    gw_ram_free(ram);
}

GW_TEST(block, begin_sets_the_bits_of_populated_pages_and_no_other)
{
    struct rig_memory memory;
    rig_memory_init(&memory);
    struct gw_block *anon = rig_memory_add(&memory, "a", GW_BLOCK_ANON, 3000);
    struct gw_block *memfd = rig_memory_add(&memory, "b", GW_BLOCK_MEMFD, 3000);
    GW_EXPECT(anon->dirty == NULL);
    for (uint64_t page = 0; page < 3000; page += 7) {
        rig_write(anon, page, 0); /* a zero is a touch, too */
        rig_write(memfd, page + 1, 1);
    }
    GW_ASSERT_EQ(gw_ram_source_begin(memory.ram, NULL), 0);
    for (uint64_t page = 0; page < 3000; page++) {
        GW_EXPECT_EQ(gw_bitmap_test(anon->dirty, page), page % 7 == 0);
        GW_EXPECT_EQ(gw_bitmap_test(memfd->dirty, page), page % 7 == 1);
    }
    GW_EXPECT_EQ(gw_ram_populated_pages(memory.ram), 2 * ((3000 + 6) / 7));
    GW_EXPECT_EQ(gw_ram_dirty_pages(memory.ram), gw_ram_populated_pages(memory.ram));
    gw_bitmap_clear_range(anon->dirty, 0, 3000);
    GW_ASSERT_EQ(gw_ram_source_begin(memory.ram, NULL), 0); /* a retry begins again */
    GW_EXPECT_EQ(gw_ram_dirty_pages(memory.ram), gw_ram_populated_pages(memory.ram));
    rig_memory_fini(&memory);
}

GW_TEST(block, a_block_that_nothing_touched_is_fresh)
{
    struct rig_memory memory;
    rig_memory_init(&memory);
    struct gw_block *fresh = rig_memory_add(&memory, "a", GW_BLOCK_ANON, 600);
    struct gw_block *used = rig_memory_add(&memory, "b", GW_BLOCK_MEMFD, 600);
    rig_write(used, 599, 5);
    GW_ASSERT_EQ(gw_ram_target_begin(memory.ram, NULL), 0);
    GW_EXPECT(fresh->fresh && !fresh->stale);
    GW_EXPECT(!used->fresh && used->stale);
    GW_EXPECT_EQ(gw_bitmap_count(used->stale, 0, 600), 1);
    GW_EXPECT_EQ(gw_bitmap_count(used->received, 0, 600), 0);
    rig_memory_fini(&memory);
}

static uint64_t resident_bytes(void)
{
    unsigned long total = 0;
    unsigned long resident = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    GW_ASSERT(file);
    GW_EXPECT_EQ(fscanf(file, "%lu %lu", &total, &resident), 2);
    fclose(file);
    return resident * GW_PAGE_BYTES;
}

GW_TEST(block, four_tebibytes_of_nothing_cost_next_to_nothing)
{
    struct gw_block_desc desc = good();
    desc.size_bytes = 4 * TIB;
    desc.host = mmap(NULL, desc.size_bytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (desc.host == MAP_FAILED)
        GW_SKIP("4 TiB of address space cannot be mapped here");
    struct gw_ram *ram = gw_ram_new();
    GW_ASSERT_EQ(gw_ram_add_block(ram, &desc, NULL), 0);
    ((volatile char *)desc.host)[3 * TIB] = 1;
    uint64_t before = resident_bytes();
    GW_EXPECT_EQ(gw_ram_source_begin(ram, NULL), 0);
    GW_EXPECT_EQ(gw_ram_populated_pages(ram), 1);
    GW_EXPECT_EQ(gw_ram_target_begin(ram, NULL), 0);
    GW_EXPECT_EQ(gw_ram_layout(ram, GW_STRIPE_BYTES_DEFAULT, 2, NULL), 0);
    GW_EXPECT_EQ(gw_ram_dirty_pages(ram), 1);
    GW_EXPECT_LT(resident_bytes() - before, 4 * TIB / 4096);
    gw_ram_free(ram);
    munmap(desc.host, desc.size_bytes);
}

GW_TEST(block, running_out_of_memory_leaves_the_blocks_as_they_were)
{
    int64_t live = gw_alloc_live();
    struct gw_ram *ram = gw_ram_new();
    add_many(ram, 31, MIB);
    struct gw_block_desc desc = good();
    bool done = false;
    for (int n = 0; !done; n++) {
        gw_alloc_fail_after(n);
        int rc = gw_ram_add_block(ram, &desc, NULL);
        gw_alloc_fail_after(-1);
        done = rc == 31;
        if (!done) {
            GW_ASSERT_EQ(rc, -ENOMEM);
            GW_EXPECT_EQ(gw_ram_block_count(ram), 31);
            GW_EXPECT(gw_ram_find(ram, "ram0") == NULL);
        }
    }
    GW_EXPECT(gw_ram_find(ram, "/machine/dimm[30]") == gw_ram_block(ram, 30));
    gw_ram_free(ram);
    GW_EXPECT_EQ(gw_alloc_live(), live);
}
