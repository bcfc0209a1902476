// SPDX-License-Identifier: MIT
/* The order of a stream's items. */
#include "control/stream.h"
#include "core/base/alloc.h"
#include "tests/shim/gw_test.h"

#include <stdio.h>
#include <string.h>

static struct gw_stream_order *order;
static struct gw_error err;

static int next(enum gw_item_type type, uint32_t id, const char *idstr, uint32_t instance)
{
    struct gw_section section = {.type = type, .section_id = id, .instance_id = instance};
    snprintf(section.idstr, sizeof(section.idstr), "%s", idstr);
    err = (struct gw_error)GW_ERROR_INIT;
    return gw_stream_order_next(order, type, &section, &err);
}

static int plain(enum gw_item_type type)
{
    err = (struct gw_error)GW_ERROR_INIT;
    return gw_stream_order_next(order, type, NULL, &err);
}

static void begin(void)
{
    order = gw_stream_order_new();
    GW_ASSERT(order);
}

static void end(void)
{
    gw_stream_order_free(order);
    order = NULL;
}

GW_TEST(order, a_whole_stream_passes)
{
    int64_t live = gw_alloc_live();
    begin();
    GW_EXPECT_EQ(plain(GW_ITEM_CONFIGURATION), 0);
    GW_EXPECT_EQ(next(GW_ITEM_START, 2, "ram", 0), 0);
    GW_EXPECT_EQ(next(GW_ITEM_PART, 2, "", 0), 0);
    GW_EXPECT_EQ(next(GW_ITEM_END, 2, "", 0), 0);
    GW_EXPECT_EQ(next(GW_ITEM_FULL, 3, "timer", 0), 0);
    GW_EXPECT_EQ(next(GW_ITEM_FULL, 3, "cpu", 0), 0); /* ids of FULL mean nothing */
    GW_EXPECT_EQ(next(GW_ITEM_FULL, 4, "cpu", 1), 0);
    GW_EXPECT_EQ(plain(GW_ITEM_EOF), 0);
    GW_EXPECT_EQ(plain(GW_ITEM_DESCRIPTION), 0);
    GW_EXPECT_EQ(plain(GW_ITEM_DESCRIPTION), -EPROTO);
    end();
    gw_stream_order_free(NULL);
    GW_EXPECT_EQ(gw_alloc_live(), live);
}

GW_TEST(order, the_header_comes_first_and_once)
{
    begin();
    GW_EXPECT_EQ(next(GW_ITEM_START, 2, "ram", 0), -EPROTO);
    GW_EXPECT_STREQ(err.message, "item 0x01 before the header");
    GW_EXPECT_EQ(plain(GW_ITEM_EOF), -EPROTO);
    GW_EXPECT_EQ(plain(GW_ITEM_CONFIGURATION), 0);
    GW_EXPECT_EQ(plain(GW_ITEM_CONFIGURATION), -EPROTO);
    GW_EXPECT_STREQ(err.message, "a second header");
    end();
}

GW_TEST(order, part_and_end_need_an_open_section)
{
    begin();
    GW_EXPECT_EQ(plain(GW_ITEM_CONFIGURATION), 0);
    GW_EXPECT_EQ(next(GW_ITEM_PART, 2, "", 0), -EPROTO);
    GW_EXPECT_STREQ(err.message, "part of section 2, which is not open");
    GW_EXPECT_EQ(next(GW_ITEM_FULL, 2, "timer", 0), 0);
    GW_EXPECT_EQ(next(GW_ITEM_END, 2, "", 0), -EPROTO); /* FULL opens nothing */
    GW_EXPECT_STREQ(err.message, "end of section 2, which is not open");
    GW_EXPECT_EQ(next(GW_ITEM_PART, 0, "", 0), -EPROTO);
    GW_EXPECT_EQ(next(GW_ITEM_START, 2, "ram", 0), 0);
    GW_EXPECT_EQ(next(GW_ITEM_END, 2, "", 0), 0);
    GW_EXPECT_EQ(next(GW_ITEM_END, 2, "", 0), -EPROTO);
    GW_EXPECT_EQ(next(GW_ITEM_PART, 2, "", 0), -EPROTO);
    end();
}

GW_TEST(order, a_name_and_instance_comes_once)
{
    begin();
    GW_EXPECT_EQ(plain(GW_ITEM_CONFIGURATION), 0);
    GW_EXPECT_EQ(next(GW_ITEM_START, 1, "ram", 0), 0);
    GW_EXPECT_EQ(next(GW_ITEM_START, 2, "ram", 0), -EPROTO);
    GW_EXPECT_STREQ(err.message, "section 'ram' instance 0 is there twice");
    GW_EXPECT_EQ(next(GW_ITEM_FULL, 2, "ram", 0), -EPROTO);
    GW_EXPECT_EQ(next(GW_ITEM_END, 1, "", 0), 0);
    GW_EXPECT_EQ(next(GW_ITEM_START, 1, "ram", 0), -EPROTO);
    GW_EXPECT_EQ(next(GW_ITEM_FULL, 1, "ram", 1), 0);
    GW_EXPECT_EQ(next(GW_ITEM_FULL, 1, "ram", 1), -EPROTO);
    end();
}

GW_TEST(order, an_open_id_is_not_opened_again)
{
    begin();
    GW_EXPECT_EQ(plain(GW_ITEM_CONFIGURATION), 0);
    GW_EXPECT_EQ(next(GW_ITEM_START, 5, "a", 0), 0);
    GW_EXPECT_EQ(next(GW_ITEM_START, 5, "b", 0), -EPROTO);
    GW_EXPECT_STREQ(err.message, "section 'b' begins with id 5, which is 'a', still open");
    GW_EXPECT_EQ(next(GW_ITEM_END, 5, "", 0), 0);
    GW_EXPECT_EQ(next(GW_ITEM_START, 5, "b", 0), 0);
    end();
}

GW_TEST(order, nothing_but_a_description_follows_the_end)
{
    begin();
    GW_EXPECT_EQ(plain(GW_ITEM_CONFIGURATION), 0);
    GW_EXPECT_EQ(plain(GW_ITEM_DESCRIPTION), -EPROTO);
    GW_EXPECT_STREQ(err.message, "a description before the end mark");
    GW_EXPECT_EQ(next(GW_ITEM_START, 5, "a", 0), 0);
    GW_EXPECT_EQ(plain(GW_ITEM_EOF), 0); /* an open section may stay open */
    GW_EXPECT_EQ(plain(GW_ITEM_EOF), -EPROTO);
    GW_EXPECT_STREQ(err.message, "item 0x00 after the end mark");
    GW_EXPECT_EQ(next(GW_ITEM_PART, 5, "", 0), -EPROTO);
    end();
}

GW_TEST(order, unknown_types_are_refused)
{
    begin();
    GW_EXPECT_EQ(plain(GW_ITEM_CONFIGURATION), 0);
    GW_EXPECT_EQ(plain((enum gw_item_type)0x42), -EPROTO);
    end();
}

GW_TEST(order, an_ended_section_is_found_until_the_next_item)
{
    begin();
    GW_EXPECT_EQ(plain(GW_ITEM_CONFIGURATION), 0);
    GW_EXPECT(gw_stream_order_find(order, 2) == NULL);
    GW_EXPECT_EQ(next(GW_ITEM_START, 2, "ram", 3), 0);
    GW_EXPECT_EQ(next(GW_ITEM_START, 1026, "other", 0), 0); /* the same bucket */
    GW_EXPECT_EQ(next(GW_ITEM_END, 2, "", 0), 0);
    const struct gw_section *found = gw_stream_order_find(order, 2);
    GW_ASSERT(found);
    GW_EXPECT_STREQ(found->idstr, "ram");
    GW_EXPECT_EQ(found->instance_id, 3);
    GW_EXPECT_EQ(next(GW_ITEM_PART, 1026, "", 0), 0);
    GW_EXPECT(gw_stream_order_find(order, 2) == NULL);
    GW_EXPECT(gw_stream_order_find(order, 1026) != NULL);
    end();
}

GW_TEST(order, the_number_of_sections_is_bounded)
{
    char name[32];
    int rc = 0;
    uint32_t taken = 0;
    begin();
    GW_EXPECT_EQ(plain(GW_ITEM_CONFIGURATION), 0);
    for (uint32_t i = 0; i < 20000 && rc == 0; i++) {
        snprintf(name, sizeof(name), "dev%u", (unsigned)i);
        rc = next(GW_ITEM_START, i, name, 0);
        taken += rc == 0;
    }
    GW_EXPECT_EQ(rc, -E2BIG);
    GW_EXPECT_EQ(err.code, GW_CODE_LIMIT);
    GW_EXPECT_EQ(taken, 16384);
    end();
}

GW_TEST(order, out_of_memory_changes_nothing)
{
    begin();
    GW_EXPECT_EQ(plain(GW_ITEM_CONFIGURATION), 0);
    gw_alloc_fail_after(0);
    GW_EXPECT_EQ(next(GW_ITEM_START, 1, "a", 0), -ENOMEM);
    gw_alloc_fail_after(-1);
    GW_EXPECT_EQ(next(GW_ITEM_START, 1, "a", 0), 0);
    end();
    gw_alloc_fail_after(0);
    GW_EXPECT(gw_stream_order_new() == NULL);
    gw_alloc_fail_after(-1);
}

GW_TEST(order, a_full_may_follow_the_end_of_its_section_once)
{
    begin();
    GW_EXPECT_EQ(plain(GW_ITEM_CONFIGURATION), 0);
    GW_EXPECT_EQ(next(GW_ITEM_START, 2, "vfio", 0), 0);
    GW_EXPECT_EQ(next(GW_ITEM_FULL, 2, "vfio", 0), -EPROTO); /* it has not ended */
    GW_EXPECT_EQ(next(GW_ITEM_END, 2, "", 0), 0);
    GW_EXPECT_EQ(next(GW_ITEM_FULL, 3, "vfio", 0), -EPROTO); /* another id */
    GW_EXPECT_EQ(next(GW_ITEM_FULL, 2, "vfio", 0), 0);
    GW_EXPECT_EQ(next(GW_ITEM_FULL, 2, "vfio", 0), -EPROTO);
    GW_EXPECT_STREQ(err.message, "section 'vfio' instance 0 is there twice");
    GW_EXPECT_EQ(next(GW_ITEM_END, 2, "", 0), -EPROTO);
    end();
}

GW_TEST(order, what_was_not_ended_is_found)
{
    begin();
    GW_EXPECT_EQ(plain(GW_ITEM_CONFIGURATION), 0);
    GW_EXPECT(gw_stream_order_open(order) == NULL);
    GW_EXPECT_EQ(next(GW_ITEM_START, 2, "vfio", 0), 0);
    GW_EXPECT_STREQ(gw_stream_order_open(order)->idstr, "vfio");
    GW_EXPECT_EQ(next(GW_ITEM_END, 2, "", 0), 0);
    GW_EXPECT(gw_stream_order_open(order) == NULL);
    end();
}
