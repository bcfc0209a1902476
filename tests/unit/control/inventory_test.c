// SPDX-License-Identifier: MIT
/* What a side has: sections found by name and instance, limits, and where each kind of document has what. */
#include "control/inventory.h"
#include "core/base/alloc.h"
#include "tests/shim/gw_test.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static struct gw_error err;

static void add(struct gw_inventory *in, const char *idstr, uint32_t instance_id,
                uint32_t version_id)
{
    struct gw_inventory_section section = {
        .instance_id = instance_id, .version_id = version_id, .has_version = true};
    GW_ASSERT_EQ(gw_inventory_add_section(in, idstr, &section, &err), 0);
}

GW_TEST(inventory, a_section_is_found_by_name_and_instance_and_of_two_alike_the_first)
{
    struct gw_inventory in = {0};
    add(&in, "b", 1, 10);
    add(&in, "a", 0, 11);
    add(&in, "b", 0, 12);
    add(&in, "a", 0, 13);
    add(&in, "c", 7, 14);
    GW_ASSERT_EQ(gw_inventory_seal(&in, &err), 0);
    GW_EXPECT_EQ(gw_inventory_find(&in, "a", 0), 1);
    GW_EXPECT_EQ(gw_inventory_find(&in, "b", 0), 2);
    GW_EXPECT_EQ(gw_inventory_find(&in, "b", 1), 0);
    GW_EXPECT_EQ(gw_inventory_find(&in, "c", 7), 4);
    GW_EXPECT_EQ(gw_inventory_find(&in, "c", 6), -ENOENT);
    GW_EXPECT_EQ(gw_inventory_find(&in, "c", 8), -ENOENT);
    GW_EXPECT_EQ(gw_inventory_find(&in, "", 0), -ENOENT);
    gw_inventory_fini(&in);
    GW_ASSERT_EQ(gw_inventory_seal(&in, &err), 0); /* an empty one too */
    GW_EXPECT_EQ(gw_inventory_find(&in, "a", 0), -ENOENT);
    gw_inventory_fini(&in);
    GW_EXPECT_EQ(gw_alloc_live(), 0);
}

GW_TEST(inventory, blocks_have_a_limit)
{
    struct gw_inventory in = {0};
    for (unsigned i = 0; i < GW_INVENTORY_BLOCKS_MAX; i++)
        GW_ASSERT_EQ(gw_inventory_add_block(&in, "ram", 4096, &err), 0);
    GW_EXPECT_EQ(gw_inventory_add_block(&in, "ram", 4096, &err), -E2BIG);
    GW_EXPECT_EQ(in.block_count, GW_INVENTORY_BLOCKS_MAX);
    gw_inventory_fini(&in);
}

static struct gw_inventory read_text(const char *text)
{
    struct gw_inventory in = {0};
    if (gw_inventory_read(&in, text, strlen(text), &err) < 0)
        gw_test_note(__FILE__, __LINE__, "%s: %s", text, err.message);
    return in;
}

GW_TEST(inventory, each_document_has_its_things_at_its_places)
{
    struct gw_inventory in = read_text(
        "{\"footers\": false, \"machine\": null, \"schema\": \"godwit.analyze/1\", \"page-bytes\": "
        "16384, \"sections\": [], \"blocks\": [{\"bytes\": 5, \"name\": \"a\"}]}");
    GW_EXPECT_EQ(in.source, GW_COMPAT_ANALYSIS);
    GW_EXPECT(in.is_whole && !in.has_footers && !in.has_configuration);
    GW_EXPECT_EQ(in.page_bytes, 16384);
    GW_EXPECT_EQ(in.block_count, 1);
    GW_EXPECT(in.description == NULL);
    gw_inventory_fini(&in);
    in = read_text("{\"page_size\": 4096, \"devices\": [{\"name\": \"x\", \"instance_id\": 3, "
                   "\"size\": 1, \"fields\": []}]}");
    GW_EXPECT_EQ(in.source, GW_COMPAT_DESCRIPTION);
    GW_EXPECT(!in.is_whole);
    GW_EXPECT_EQ(in.section_count, 1);
    GW_EXPECT(!in.sections[0].has_version);
    GW_EXPECT_EQ(in.sections[0].instance_id, 3);
    gw_inventory_fini(&in);
    /* A kind of device that has no description cannot be migrated: it is none. */
    in = read_text(
        "{\"vmschkmachine\": {\"Name\": \"pc\"}, \"d\": {\"Name\": \"d\", \"version_id\": "
        "4, \"Description\": {\"Fields\": []}}, \"e\": {\"Name\": \"e\"}}");
    GW_EXPECT_EQ(in.source, GW_COMPAT_STATIC);
    GW_EXPECT_STREQ(in.machine, "pc");
    GW_EXPECT_EQ(in.section_count, 1);
    GW_EXPECT_EQ(in.sections[0].version_id, 4);
    gw_inventory_fini(&in);
    GW_EXPECT_EQ(gw_alloc_live(), 0);
}
