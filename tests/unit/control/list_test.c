// SPDX-License-Identifier: MIT
/* Lists: what a builder wrote a cursor reads; what a peer may not write is refused whole. */
#include "tests/unit/control/samples.h"

static int check(enum gw_message_type type, const uint8_t *data, size_t bytes, struct gw_error *err)
{
    return gw_list_check(type, (struct gw_span){data, bytes}, err);
}

static int check_range(enum gw_message_type type, uint64_t first, uint64_t count)
{
    uint8_t buf[64];
    struct gw_list_builder list = {.buf = buf, .bytes = sizeof(buf)};
    struct gw_range_msg range = {.first = first, .count = count};
    GW_ASSERT_EQ(gw_list_add_range(&list, type, &range), 0);
    return check(type, buf, list.used, NULL);
}

static int check_block(const struct gw_block_offer_msg *block)
{
    uint8_t buf[512];
    struct gw_list_builder list = {.buf = buf, .bytes = sizeof(buf)};
    GW_ASSERT_EQ(gw_list_add_block(&list, block), 0);
    return check(GW_MSG_BLOCKS, buf, list.used, NULL);
}

GW_TEST(list, blocks_come_back)
{
    uint8_t buf[SAMPLE_BYTES_MAX];
    struct gw_list_builder list = {.buf = buf, .bytes = sizeof(buf)};
    struct gw_list_cursor cursor;
    struct gw_block_offer_msg block;
    sample_list(GW_MSG_BLOCKS, &list);
    gw_list_begin(&cursor, (struct gw_span){buf, list.used});
    GW_ASSERT(gw_list_next_block(&cursor, &block));
    GW_EXPECT_STREQ(block.name, "pc.ram");
    GW_EXPECT_EQ(block.bytes, UINT64_C(1) << 30);
    GW_ASSERT(gw_list_next_block(&cursor, &block));
    GW_EXPECT_STREQ(block.name, "pc.bios");
    GW_EXPECT_EQ(block.kind, GW_BLOCK_MEMFD);
    GW_EXPECT_EQ(block.flags, GW_BLOCK_READ_ONLY);
    GW_ASSERT(gw_list_next_block(&cursor, &block));
    GW_EXPECT_EQ(block.page_bytes, 2 << 20);
    GW_EXPECT(!gw_list_next_block(&cursor, &block));
}

GW_TEST(list, keys_come_back)
{
    uint8_t buf[SAMPLE_BYTES_MAX];
    struct gw_list_builder list = {.buf = buf, .bytes = sizeof(buf)};
    struct gw_list_cursor cursor;
    struct gw_range_msg range;
    sample_list(GW_MSG_KEYS, &list);
    gw_list_begin(&cursor, (struct gw_span){buf, list.used});
    GW_ASSERT(gw_list_next_range(&cursor, GW_MSG_KEYS, &range));
    GW_EXPECT_EQ(range.key_bytes, 4);
    GW_EXPECT_MEMEQ(range.key, "\1\2\3\4", 4);
    GW_ASSERT(gw_list_next_range(&cursor, GW_MSG_KEYS, &range));
    GW_EXPECT_EQ(range.block, 1);
    GW_EXPECT_EQ(range.first, 4 << 20);
    GW_EXPECT_EQ(range.count, 1 << 20);
    GW_EXPECT_EQ(range.key_bytes, 0);
    GW_EXPECT(!gw_list_next_range(&cursor, GW_MSG_KEYS, &range));
}

GW_TEST(list, fresh_comes_back)
{
    uint8_t buf[8];
    struct gw_list_builder list = {.buf = buf, .bytes = sizeof(buf)};
    struct gw_list_cursor cursor;
    bool fresh = false;
    sample_list(GW_MSG_BLOCKS_OK, &list);
    gw_list_begin(&cursor, (struct gw_span){buf, list.used});
    GW_EXPECT(gw_list_next_fresh(&cursor, &fresh) && fresh);
    GW_EXPECT(gw_list_next_fresh(&cursor, &fresh) && !fresh);
    GW_EXPECT(gw_list_next_fresh(&cursor, &fresh) && fresh);
    GW_EXPECT(!gw_list_next_fresh(&cursor, &fresh));
    buf[1] = 2;
    GW_EXPECT_EQ(check(GW_MSG_BLOCKS_OK, buf, 3, NULL), -EPROTO);
}

GW_TEST(list, an_empty_list_has_no_entries)
{
    struct gw_list_cursor cursor;
    struct gw_block_offer_msg block;
    gw_list_begin(&cursor, (struct gw_span){NULL, 0});
    GW_EXPECT(!gw_list_next_block(&cursor, &block));
}

GW_TEST(list, a_full_builder_is_left_as_it_was)
{
    uint8_t buf[41];
    struct gw_list_builder list = {.buf = buf, .bytes = sizeof(buf)};
    struct gw_range_msg range = {.first = 1, .count = 2, .key_bytes = 1};
    GW_EXPECT_EQ(gw_list_add_range(&list, GW_MSG_WISHES, &range), 0);
    GW_EXPECT_EQ(list.used, 20);
    GW_EXPECT_EQ(gw_list_add_range(&list, GW_MSG_KEYS, &range), -ENOSPC);
    GW_EXPECT_EQ(list.used, 20);
    GW_EXPECT_EQ(gw_list_add_range(&list, GW_MSG_WISHES, &range), 0);
    GW_EXPECT_EQ(gw_list_add_fresh(&list, true), 0);
    GW_EXPECT_EQ(gw_list_add_fresh(&list, true), -ENOSPC);
    GW_EXPECT_EQ(list.used, 41);
}

GW_TEST(list, ranges_that_wrap_are_refused)
{
    static const enum gw_message_type types[] = {GW_MSG_WISHES, GW_MSG_KEYS, GW_MSG_RELEASE,
                                                 GW_MSG_RELEASED};
    for (int i = 0; i < 4; i++) {
        GW_EXPECT_EQ(check_range(types[i], 0, 0), -EPROTO);
        GW_EXPECT_EQ(check_range(types[i], 0, 1), 0);
        GW_EXPECT_EQ(check_range(types[i], 0, UINT64_MAX), 0);
        GW_EXPECT_EQ(check_range(types[i], 1, UINT64_MAX), -EPROTO);
        GW_EXPECT_EQ(check_range(types[i], UINT64_MAX - 1, 1), 0);
        GW_EXPECT_EQ(check_range(types[i], UINT64_MAX, 1), -EPROTO);
        GW_EXPECT_EQ(check_range(types[i], UINT64_C(1) << 63, UINT64_C(1) << 63), -EPROTO);
    }
}

GW_TEST(list, zero_runs_end_where_bytes_can_be_counted)
{
    uint64_t end = UINT64_C(1) << 52;
    GW_EXPECT_EQ(check_range(GW_MSG_ZERO, 0, end), 0);
    GW_EXPECT_EQ(check_range(GW_MSG_ZERO, 0, end + 1), -EPROTO);
    GW_EXPECT_EQ(check_range(GW_MSG_ZERO, end - 1, 1), 0);
    GW_EXPECT_EQ(check_range(GW_MSG_ZERO, end, 1), -EPROTO);
    GW_EXPECT_EQ(check_range(GW_MSG_ZERO, 1, UINT64_MAX), -EPROTO);
    GW_EXPECT_EQ(check_range(GW_MSG_ZERO, 5, 0), -EPROTO);
}

GW_TEST(list, keys_have_a_limit)
{
    uint8_t buf[128] = {0};
    struct gw_list_builder list = {.buf = buf, .bytes = sizeof(buf)};
    struct gw_range_msg range = {.count = 1, .key_bytes = GW_KEY_BYTES_MAX};
    GW_ASSERT_EQ(gw_list_add_range(&list, GW_MSG_KEYS, &range), 0);
    GW_EXPECT_EQ(list.used, 21 + GW_KEY_BYTES_MAX);
    GW_EXPECT_EQ(check(GW_MSG_KEYS, buf, list.used, NULL), 0);
    GW_EXPECT_EQ(check(GW_MSG_KEYS, buf, list.used - 1, NULL), -EPROTO);
    buf[20] = GW_KEY_BYTES_MAX + 1;
    GW_EXPECT_EQ(check(GW_MSG_KEYS, buf, list.used + 1, NULL), -EPROTO);
    buf[20] = 255;
    GW_EXPECT_EQ(check(GW_MSG_KEYS, buf, sizeof(buf), NULL), -EPROTO);
    range.key_bytes = GW_KEY_BYTES_MAX + 1;
    list.used = 0;
    GW_EXPECT_EQ(gw_list_add_range(&list, GW_MSG_KEYS, &range), -EINVAL);
}

GW_TEST(list, block_fields_are_checked)
{
    struct gw_block_offer_msg good = {"b", 8192, 4096, GW_BLOCK_ANON, 0};
    struct gw_block_offer_msg bad;
    GW_EXPECT_EQ(check_block(&good), 0);
#define BAD(field, value)                                                                          \
    do {                                                                                           \
        bad = good;                                                                                \
        bad.field = (value);                                                                       \
        GW_EXPECT_EQ(check_block(&bad), -EPROTO);                                                  \
    } while (0)
    BAD(bytes, 0);
    BAD(bytes, 4095);
    BAD(bytes, 4097);
    BAD(bytes, UINT64_MAX);
    BAD(page_bytes, 0);
    BAD(page_bytes, 1);
    BAD(page_bytes, 2048);
    BAD(page_bytes, 4097);
    BAD(page_bytes, 12288);
    BAD(page_bytes, 16384); /* larger than the block */
    BAD(page_bytes, UINT32_MAX);
    BAD(kind, GW_BLOCK_HUGETLB + 1);
    BAD(kind, UINT32_MAX);
    BAD(flags, 2);
    BAD(flags, UINT32_MAX);
#undef BAD
    bad = good;
    bad.page_bytes = 1u << 31;
    bad.bytes = UINT64_C(1) << 31;
    GW_EXPECT_EQ(check_block(&bad), 0);
}

GW_TEST(list, block_names_are_printable_and_not_empty)
{
    uint8_t buf[512];
    struct gw_block_offer_msg block = {"", 4096, 4096, 0, 0};
    struct gw_list_builder list = {.buf = buf, .bytes = sizeof(buf)};
    struct gw_error err = GW_ERROR_INIT;
    GW_EXPECT_EQ(gw_list_add_block(&list, &block), -EINVAL);
    strcpy(block.name, "a\nb");
    GW_EXPECT_EQ(gw_list_add_block(&list, &block), -EINVAL);
    memset(block.name, 'n', 256); /* no NUL */
    GW_EXPECT_EQ(gw_list_add_block(&list, &block), -EINVAL);
    GW_EXPECT_EQ(list.used, 0);
    block.name[255] = '\0';
    GW_ASSERT_EQ(gw_list_add_block(&list, &block), 0);
    GW_EXPECT_EQ(list.used, 276);
    GW_EXPECT_EQ(check(GW_MSG_BLOCKS, buf, list.used, NULL), 0);
    for (int c = 0; c < 256; c++) {
        buf[100] = (uint8_t)c;
        GW_EXPECT_EQ(check(GW_MSG_BLOCKS, buf, list.used, &err),
                     c >= 0x20 && c < 0x7f ? 0 : -EPROTO);
    }
    GW_EXPECT_STREQ(err.message, "entry 0: byte 0xff in a block's name");
    memset(buf, 0, 21);
    GW_EXPECT_EQ(check(GW_MSG_BLOCKS, buf, 21, &err), -EPROTO);
    GW_EXPECT_STREQ(err.message, "entry 0: a block without a name");
}

GW_TEST(list, the_entry_at_fault_is_named)
{
    uint8_t buf[60] = {0};
    struct gw_list_builder list = {.buf = buf, .bytes = sizeof(buf)};
    struct gw_range_msg range = {.count = 1};
    struct gw_error err = GW_ERROR_INIT;
    for (int i = 0; i < 3; i++)
        GW_ASSERT_EQ(gw_list_add_range(&list, GW_MSG_WISHES, &range), 0);
    GW_EXPECT_EQ(check(GW_MSG_WISHES, buf, 59, &err), -EPROTO);
    GW_EXPECT_STREQ(err.message, "entry 2: ends inside the entry");
}
