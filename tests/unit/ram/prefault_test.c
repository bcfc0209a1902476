// SPDX-License-Identifier: MIT
/* Prefault populates, and stores nothing: see also rule.prefault_never_stores. */
#include "core/base/bitmap.h"
#include "ram/holes.h"
#include "ram/place.h"
#include "tests/shim/gw_test.h"
#include "tests/support/ram_rig.h"

#include <stdlib.h>
#include <string.h>

#define PAGE UINT64_C(4096)
#define PAGES 2000

static const char *const kinds[] = {"anon", "memfd", NULL};

static enum gw_block_kind kind_of(const char *param)
{
    return strcmp(param, "anon") == 0 ? GW_BLOCK_ANON : GW_BLOCK_MEMFD;
}

static uint64_t populated(const struct gw_block *block)
{
    struct gw_extent extent;
    uint64_t pages = 0;
    for (uint64_t at = 0; gw_holes_next(block, at, &extent) > 0;
         at = extent.first_page + extent.pages)
        pages += extent.pages;
    return pages;
}

GW_TEST_EACH(prefault, populates_the_range_and_no_more, kinds)
{
    struct rig_memory memory;
    rig_memory_init(&memory);
    struct gw_block *block = rig_memory_add(&memory, "a", kind_of(param), PAGES);
    GW_EXPECT_EQ(gw_prefault(block, 100 * PAGE, 300 * PAGE), 0);
    GW_EXPECT_EQ(populated(block), 300);
    struct gw_extent extent;
    GW_ASSERT_EQ(gw_holes_next(block, 0, &extent), 1);
    GW_EXPECT_EQ(extent.first_page, 100);
    GW_EXPECT_EQ(gw_prefault(block, 0, 0), 0);
    GW_EXPECT_EQ(gw_prefault(block, 0, (uint64_t)PAGES * PAGE), 0);
    GW_EXPECT_EQ(populated(block), PAGES);
    rig_memory_fini(&memory);
}

GW_TEST_EACH(prefault, touching_populates_too, kinds)
{
    struct rig_memory memory;
    rig_memory_init(&memory);
    struct gw_block *block = rig_memory_add(&memory, "a", kind_of(param), PAGES);
    gw_prefault_by_touch(memory.host[0] + 10 * PAGE, 30 * PAGE);
    GW_EXPECT_EQ(populated(block), 30);
    rig_memory_fini(&memory);
}

GW_TEST_EACH(prefault, content_survives, kinds)
{
    struct rig_memory memory;
    rig_memory_init(&memory);
    struct gw_block *block = rig_memory_add(&memory, "a", kind_of(param), PAGES);
    for (uint64_t page = 0; page < PAGES; page += 3)
        rig_write(block, page, page + 1);
    GW_EXPECT_EQ(gw_prefault(block, 0, (uint64_t)PAGES * PAGE), 0);
    gw_prefault_by_touch(memory.host[0], (uint64_t)PAGES * PAGE);
    for (uint64_t page = 0; page < PAGES; page++)
        GW_EXPECT_EQ(rig_read(block, page), page % 3 ? 0 : page + 1);
    rig_memory_fini(&memory);
}
