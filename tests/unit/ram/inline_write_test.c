// SPDX-License-Identifier: MIT
/* Pages in line, written: records equal bytes that were put down by hand, the inline reader takes them for what
 * was given, a random guest that is sent and sent again arrives, and what no reader takes is not written. */
#include "ram/block.h"
#include "ram/inline_write.h"
#include "tests/shim/gw_test.h"
#include "tests/support/recording.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGE 4096u

static struct gw_error err = GW_ERROR_INIT;
static struct gw_inline_writer w;
static struct gw_inline_record record;
static struct recording out;

static void begin(void)
{
    recording_fini(&out);
    recording_init(&out);
    gw_error_clear(&err);
}

static void put(void)
{
    GW_ASSERT(record.head_bytes <= sizeof(record.head));
    recording_bytes(&out, record.head, record.head_bytes);
    recording_bytes(&out, record.data, record.data_bytes);
}

static void wrote(const char *hex)
{
    struct recording r;
    recording_init(&r);
    recording_hex(&r, hex);
    if (!GW_EXPECT_EQ(out.w.bytes, r.w.bytes) || !GW_EXPECT_MEMEQ(out.w.data, r.w.data, r.w.bytes))
        gw_test_note(__FILE__, __LINE__, "expected %s", hex);
    recording_fini(&r);
}

static void put_end(void)
{
    gw_inline_write_end(&record);
    put();
}

/* Table and end record; the writer's form as it is. */
static void put_table(const struct gw_inline_entry *entries, unsigned count)
{
    GW_ASSERT_EQ(gw_inline_write_table(&w, entries, count, &record, &err), 0);
    put();
    for (unsigned i = 0; i < count; i++) {
        gw_inline_write_entry(&w, i, &record);
        put();
    }
    put_end();
}

static void take(struct gw_inline *ram, enum gw_inline_part part)
{
    struct gw_input in;
    gw_input_memory(&in, out.w.data, out.w.bytes, 0);
    if (!GW_EXPECT_EQ(gw_inline_take(ram, &in, part, &err), 0))
        gw_test_note(__FILE__, __LINE__, "%s", err.message);
    GW_EXPECT(gw_input_is_empty(&in));
}

/* ---- the block table -------------------------------------------------------------------------- */

static const struct gw_inline_entry two[] = {{.name = "pc.ram", .bytes = 0x400000},
                                             {.name = "a", .bytes = 0x3000}};

GW_TEST(inline_write, a_table_is_its_total_its_blocks_and_an_end_record)
{
    struct gw_inline ram;
    gw_inline_writer_init(&w);
    begin();
    put_table(two, 2);
    wrote("0000000000403004"
          " 06 70632e72616d 0000000000400000"
          " 01 61 0000000000003000"
          " 0000000000000010");
    gw_inline_init(&ram);
    take(&ram, GW_INLINE_START);
    GW_ASSERT_EQ(ram.block_count, 2);
    for (unsigned i = 0; i < 2; i++) {
        GW_EXPECT_STREQ(ram.blocks[i].name, two[i].name);
        GW_EXPECT_EQ(ram.blocks[i].bytes, two[i].bytes);
    }
    gw_inline_fini(&ram);
    begin();
    put_table(NULL, 0);
    wrote("0000000000000004 0000000000000010");
}

GW_TEST(inline_write, pages_behind_a_block_are_said_if_they_are_not_the_hosts)
{
    static const struct gw_inline_entry entries[] = {
        {.name = "huge", .bytes = 0x400000, .page_bytes = 0x200000},
        {.name = "host", .bytes = 0x2000, .page_bytes = 4096},
        {.name = "any", .bytes = 0x1000}};
    struct gw_inline ram;
    gw_inline_writer_init(&w);
    w.sizes = 0x201000;
    begin();
    put_table(entries, 3);
    wrote("0000000000403004"
          " 04 68756765 0000000000400000 0000000000200000"
          " 04 686f7374 0000000000002000"
          " 03 616e79 0000000000001000"
          " 0000000000000010");
    gw_inline_init(&ram);
    ram.sizes = w.sizes;
    take(&ram, GW_INLINE_START);
    GW_EXPECT_EQ(ram.blocks[0].page_bytes, 0x200000);
    GW_EXPECT_EQ(ram.blocks[1].page_bytes, 0);
    gw_inline_fini(&ram);
    w.sizes = 0; /* postcopy was not advised */
    begin();
    put_table(entries, 1);
    wrote("0000000000400004 04 68756765 0000000000400000 0000000000000010");
}

GW_TEST(inline_write, guest_addresses_are_said_with_ignore_shared)
{
    static const struct gw_inline_entry entries[] = {
        {.name = "a", .bytes = 0x1000, .guest_address = UINT64_C(0x100000000)},
        {.name = "b", .bytes = 0x1000}};
    struct gw_inline ram;
    gw_inline_writer_init(&w);
    w.guest_addresses = true;
    begin();
    put_table(entries, 2);
    wrote("0000000000002004"
          " 01 61 0000000000001000 0000000100000000"
          " 01 62 0000000000001000 0000000000000000"
          " 0000000000000010");
    gw_inline_init(&ram);
    ram.guest_addresses = true;
    take(&ram, GW_INLINE_START);
    GW_EXPECT_EQ(ram.blocks[0].guest_address, UINT64_C(0x100000000));
    gw_inline_fini(&ram);
}

GW_TEST(inline_write, a_shared_block_is_in_the_table_and_none_of_its_pages_is_written)
{
    static const struct gw_inline_entry entries[] = {
        {.name = "a", .bytes = 0x1000, .is_shared = true}, {.name = "b", .bytes = 0x1000}};
    struct gw_inline_page page = {.kind = GW_INLINE_ZERO};
    for (unsigned ignores = 0; ignores < 2; ignores++) {
        gw_inline_writer_init(&w);
        w.guest_addresses = ignores;
        begin();
        put_table(entries, 2);
        for (page.block = 0; page.block < 2; page.block++)
            GW_EXPECT_EQ(gw_inline_write_page(&w, &page, &record),
                         ignores && page.block == 0 ? -EINVAL : 0);
    }
}

GW_TEST(inline_write, a_table_has_as_many_blocks_as_a_guest_may)
{
    static struct gw_inline_entry entries[GW_BLOCKS_MAX];
    static char names[GW_BLOCKS_MAX][8];
    for (unsigned i = 0; i < GW_BLOCKS_MAX; i++) {
        snprintf(names[i], sizeof(names[i]), "%u", i * 7919 % GW_BLOCKS_MAX);
        entries[i] = (struct gw_inline_entry){.name = names[i], .bytes = 4096};
    }
    gw_inline_writer_init(&w);
    GW_EXPECT_EQ(gw_inline_write_table(&w, entries, GW_BLOCKS_MAX, &record, &err), 0);
    GW_EXPECT_MEMEQ(record.head, "\0\0\0\0\x08\0\0\x04", 8);
    entries[GW_BLOCKS_MAX - 1].name = names[17];
    GW_EXPECT_EQ(gw_inline_write_table(&w, entries, GW_BLOCKS_MAX, &record, &err), -EINVAL);
    GW_EXPECT(strstr(err.message, "a second block") != NULL);
}

GW_TEST(inline_write, tables_that_no_reader_takes_are_refused)
{
    static char long_name[257];
    static const struct {
        struct gw_inline_entry entries[2];
        uint64_t sizes;
        const char *words;
    } wrong[] = {
        {{{"", 4096}, {"b", 4096}}, 0, "block '': its name must have"},
        {{{long_name, 4096}, {"b", 4096}}, 0, "its name must have"},
        {{{"a\n", 4096}, {"b", 4096}}, 0, "its name must have"},
        {{{"a", 0}, {"b", 4096}}, 0, "block 'a' of 0 bytes"},
        {{{"a", 4096}, {"b", 6144}}, 0, "block 'b' of 6144 bytes, which are no pages of 4096"},
        {{{"a", 4096}, {"a", 8192}}, 0, "a second block 'a'"},
        {{{"a", UINT64_MAX - 4095}, {"b", 4096}}, 0, "block 'b': the sum of all sizes"},
        {{{"a", 0x400000, 0x300000}, {"b", 4096}}, 0x301000, "which were not advised"},
        {{{"a", 0x400000, 0x200000}, {"b", 4096}}, 0x1000, "which were not advised"},
        {{{"a", 0x400000, 2048}, {"b", 4096}}, 0x1800, "which were not advised"},
        {{{"a", 0x300000, 0x200000}, {"b", 4096}}, 0x201000, "on pages of 2097152"},
    };
    memset(long_name, 'n', 256);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        gw_inline_writer_init(&w);
        w.sizes = wrong[i].sizes;
        GW_EXPECT_EQ(gw_inline_write_table(&w, wrong[i].entries, 2, &record, &err), -EINVAL);
        if (!GW_EXPECT(strstr(err.message, wrong[i].words) != NULL))
            gw_test_note(__FILE__, __LINE__, "%s: %s", wrong[i].words, err.message);
        GW_EXPECT_EQ(w.count, 0);
    }
    gw_inline_writer_init(&w);
    GW_EXPECT_EQ(gw_inline_write_table(&w, two, GW_BLOCKS_MAX + 1, &record, &err), -E2BIG);
    w.sizes = 0x1000;
    w.guest_addresses = true;
    GW_EXPECT_EQ(gw_inline_write_table(&w, two, 2, &record, &err), -EINVAL);
    GW_EXPECT(strstr(err.message, "exclude each other") != NULL);
    static const uint64_t sizes[][2] = {
        {512, 4096}, {3000, 4096}, {2 << 20, 2 << 20}, {4096, 2048}};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        gw_inline_writer_init(&w);
        w.page_bytes = sizes[i][0];
        w.host_page_bytes = sizes[i][1];
        GW_EXPECT_EQ(gw_inline_write_table(&w, two, 2, &record, &err), -EINVAL);
        GW_EXPECT(strstr(err.message, "pages of") != NULL);
    }
}

GW_TEST(inline_write, the_longest_entry_and_the_longest_record_fit)
{
    static char name[256];
    static const uint8_t code[] = {0, 1, 0x41};
    const struct gw_inline_entry entry = {.name = name, .bytes = 0x400000, .page_bytes = 0x200000};
    struct gw_inline ram;
    memset(name, 'n', 255);
    gw_inline_writer_init(&w);
    w.sizes = 0x201000;
    begin();
    put_table(&entry, 1);
    GW_EXPECT_EQ(out.w.bytes, 8 + 1 + 255 + 16 + 8);
    gw_inline_init(&ram);
    ram.sizes = w.sizes;
    take(&ram, GW_INLINE_START);
    GW_EXPECT_STREQ(ram.blocks[0].name, name);
    struct gw_inline_page page = {.kind = GW_INLINE_ZERO};
    begin();
    GW_EXPECT_EQ(gw_inline_write_page(&w, &page, &record), 0);
    put();
    gw_inline_write_forget(&w);
    page = (struct gw_inline_page){.kind = GW_INLINE_XBZRLE, .data = code, .bytes = 3};
    GW_EXPECT_EQ(gw_inline_write_page(&w, &page, &record), 0);
    GW_EXPECT_EQ(record.head_bytes, 8 + 1 + 255 + 3);
    put();
    put_end();
    take(&ram, GW_INLINE_PART);
    GW_EXPECT_EQ(ram.blocks[0].kinds[GW_INLINE_XBZRLE], 1);
    gw_inline_fini(&ram);
}

/* ---- pages ------------------------------------------------------------------------------------ */

static void writes(unsigned kind, unsigned block, uint64_t offset, const void *data, size_t bytes)
{
    const struct gw_inline_page page = {.kind = (enum gw_inline_kind)kind,
                                        .block = block,
                                        .offset = offset,
                                        .data = data,
                                        .bytes = bytes};
    GW_EXPECT_EQ(gw_inline_write_page(&w, &page, &record), 0);
    put();
}

static void start(void)
{
    gw_inline_writer_init(&w);
    GW_ASSERT_EQ(gw_inline_write_table(&w, two, 2, &record, &err), 0);
    begin();
}

GW_TEST(inline_write, records_have_the_bytes_of_the_specification)
{
    static const uint8_t code[] = {0, 1, 0x41};
    start();
    writes(GW_INLINE_ZERO, 0, 0x1000, NULL, 0);
    writes(GW_INLINE_ZERO, 0, 0x2000, "", 1);
    wrote("0000000000001002 06 70632e72616d 00  0000000000002022 00");
    begin();
    writes(GW_INLINE_XBZRLE, 0, 0x3ff000, code, sizeof(code));
    writes(GW_INLINE_XBZRLE, 1, 0x2000, code, sizeof(code));
    wrote("00000000003ff060 01 0003 000141  0000000000002040 01 61 01 0003 000141");
    begin();
    gw_inline_write_flush(&record);
    put();
    put_end();
    wrote("0000000000000200 0000000000000010");
}

GW_TEST(inline_write, a_page_stays_where_it_is)
{
    static uint8_t page[PAGE];
    start();
    writes(GW_INLINE_PAGE, 1, 0x1000, page, sizeof(page));
    GW_EXPECT(record.data == page);
    GW_EXPECT_EQ(record.data_bytes, PAGE);
    GW_EXPECT_EQ(record.head_bytes, 10);
    GW_EXPECT_MEMEQ(record.head, "\0\0\0\0\0\0\x10\x08\1a", 10);
}

GW_TEST(inline_write, the_block_is_said_when_it_changes_and_after_a_forget)
{
    start();
    writes(GW_INLINE_ZERO, 1, 0, NULL, 0);
    put_end(); /* across sections */
    writes(GW_INLINE_ZERO, 1, 0x1000, NULL, 0);
    writes(GW_INLINE_ZERO, 0, 0, NULL, 0);
    writes(GW_INLINE_ZERO, 1, 0, NULL, 0);
    gw_inline_write_forget(&w);
    writes(GW_INLINE_ZERO, 1, 0, NULL, 0);
    wrote("0000000000000002 01 61 00"
          " 0000000000000010"
          " 0000000000001022 00"
          " 0000000000000002 06 70632e72616d 00"
          " 0000000000000002 01 61 00"
          " 0000000000000002 01 61 00");
}

GW_TEST(inline_write, pages_that_no_reader_takes_are_refused)
{
    static uint8_t page[PAGE];
    static const struct gw_inline_page wrong[] = {
        {.kind = GW_INLINE_ZERO, .block = 2},
        {.kind = GW_INLINE_ZERO, .block = 1, .offset = 0x3000},
        {.kind = GW_INLINE_ZERO, .block = 1, .offset = UINT64_MAX - 4095},
        {.kind = GW_INLINE_ZERO, .block = 1, .offset = 0x1010},
        {.kind = GW_INLINE_ZERO, .block = 1, .data = (const uint8_t *)"c", .bytes = 1},
        {.kind = GW_INLINE_PAGE, .block = 1, .data = page, .bytes = PAGE - 1},
        {.kind = GW_INLINE_PAGE, .block = 1, .data = page, .bytes = PAGE + 1},
        {.kind = GW_INLINE_XBZRLE, .block = 1, .data = page, .bytes = 0},
        {.kind = GW_INLINE_XBZRLE, .block = 1, .data = page, .bytes = PAGE + 1},
        {.kind = (enum gw_inline_kind)4, .block = 1, .data = page, .bytes = PAGE},
    };
    start();
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        if (!GW_EXPECT_EQ(gw_inline_write_page(&w, &wrong[i], &record), -EINVAL))
            gw_test_note(__FILE__, __LINE__, "page %zu", i);
    }
    const struct gw_inline_page compressed = {
        .kind = GW_INLINE_COMPRESSED, .data = page, .bytes = 9};
    GW_EXPECT_EQ(gw_inline_write_page(&w, &compressed, &record), -EOPNOTSUPP);
    GW_EXPECT(!w.has_current); /* nothing was named */
}

/* ---- changes ---------------------------------------------------------------------------------- */

static uint8_t before[16384], after[16384], code[16384];

static int change(void)
{
    return gw_inline_write_change(&w, 1, 0x1000, before, after, code, &record);
}

GW_TEST(inline_write, a_page_that_did_not_change_is_not_written)
{
    start();
    memset(before, 7, sizeof(before));
    memset(after, 7, sizeof(after));
    GW_EXPECT_EQ(change(), 0);
    GW_EXPECT(!w.has_current);
    after[PAGE - 1] = 8;
    GW_EXPECT_EQ(change(), 1);
    GW_EXPECT_MEMEQ(record.head + 10, "\1\0\4", 3);
    GW_EXPECT_EQ(record.data_bytes, 4); /* 4095 the same, one other */
    GW_EXPECT_MEMEQ(record.data, "\xff\x1f\1\x08", 4);
}

GW_TEST(inline_write, a_page_that_changed_too_much_is_written_whole)
{
    start();
    memset(before, 0, sizeof(before));
    memset(after, 1, sizeof(after));
    GW_EXPECT_EQ(change(), 1);
    GW_EXPECT(record.data == after);
    GW_EXPECT_EQ(record.data_bytes, PAGE);
    GW_EXPECT_EQ(record.head[7], GW_INLINE_FLAG_PAGE);
    for (unsigned i = 0; i < PAGE; i++) /* every other byte: a code would be twice the page */
        after[i] = (uint8_t)(i & 1);
    GW_EXPECT_EQ(change(), 1);
    GW_EXPECT(record.data == after);
    /* Pages whose runs do not fit the lengths of a code. */
    static const struct gw_inline_entry large = {.name = "a", .bytes = 0x10000};
    gw_inline_writer_init(&w);
    w.page_bytes = w.host_page_bytes = 16384;
    GW_ASSERT_EQ(gw_inline_write_table(&w, &large, 1, &record, &err), 0);
    memcpy(after, before, sizeof(after));
    GW_EXPECT_EQ(gw_inline_write_change(&w, 0, 0x4000, before, after, code, &record), 0);
    after[16383] = 1;
    GW_EXPECT_EQ(gw_inline_write_change(&w, 0, 0x4000, before, after, code, &record), 1);
    GW_EXPECT(record.data == after);
    GW_EXPECT_EQ(record.data_bytes, 16384);
}

/* @head changed bytes, then @pairs of one that stayed and one that changed, which cost three bytes each, then
 * runs whose lengths have two bytes. */
static void make_edge(unsigned head, unsigned pairs)
{
    memset(before, 0, PAGE);
    memset(after, 0, PAGE);
    memset(after, 1, head);
    for (unsigned i = 0; i < pairs; i++)
        after[head + 2 * i + 1] = 1;
    memset(after + head + 2 * pairs + 200, 1, 200);
}

GW_TEST(inline_write, a_code_never_leaves_its_room)
{
    unsigned changes = 0, pages = 0;
    uint8_t *room = malloc(PAGE); /* ends where its allocation ends */
    GW_ASSERT(room != NULL);
    start();
    for (unsigned i = 0; i < 12 * 120;
         i++) { /* each number of bytes around where it gets too long */
        make_edge(1 + i % 12, 1260 + i / 12);
        GW_EXPECT_EQ(gw_inline_write_change(&w, 1, 0, before, after, room, &record), 1);
        pages += record.data == after;
        if (record.data == after)
            continue;
        changes++;
        GW_EXPECT(record.data == room && record.data_bytes <= PAGE);
        GW_EXPECT_EQ(gw_xbzrle_decode(room, record.data_bytes, before, PAGE), 0);
        GW_EXPECT_MEMEQ(before, after, PAGE);
    }
    GW_EXPECT(changes > 100 && pages > 100);
    free(room);
}

/* ---- a guest ---------------------------------------------------------------------------------- */

/* Two blocks that change at random are sent round after round, zero pages, whole pages, changes; the reader's
 * copy must be theirs after each. */
#define GUEST_PAGES 24u

struct guest {
    uint8_t memory[2][GUEST_PAGES][PAGE], sent[2][GUEST_PAGES][PAGE], copy[2][GUEST_PAGES][PAGE];
    bool has_gone[2][GUEST_PAGES];
};
static struct guest guest;
static const struct gw_inline_entry guest_blocks[] = {
    {.name = "ram0", .bytes = GUEST_PAGES * PAGE}, {.name = "ram1", .bytes = GUEST_PAGES * PAGE}};

static int place(void *ctx, const struct gw_inline_page *page, struct gw_error *unused)
{
    uint8_t *to = guest.copy[page->block][page->offset / PAGE];
    (void)ctx, (void)unused;
    switch (page->kind) {
    case GW_INLINE_ZERO:
        memset(to, page->data[0], PAGE);
        break;
    case GW_INLINE_PAGE:
        memcpy(to, page->data, PAGE);
        break;
    default:
        GW_EXPECT_EQ(gw_xbzrle_decode(page->data, page->bytes, to, PAGE), 0);
    }
    return 0;
}

static void scribble(uint8_t *page)
{
    int runs = rand() % 4 == 0 ? rand() % 400 : rand() % 5;
    for (unsigned i = 0, all = rand() % 8 == 0 ? PAGE : 0; i < all; i++)
        page[i] = (uint8_t)rand();
    if (rand() % 8 == 0)
        memset(page, 0, PAGE);
    for (int i = 0; i < runs; i++) {
        unsigned at = (unsigned)rand() % PAGE, bytes = 1 + (unsigned)rand() % 30;
        for (unsigned k = at; k < at + bytes && k < PAGE; k++)
            page[k] = (uint8_t)rand();
    }
}

/* Return: was a record made? */
static bool send_page(unsigned block, unsigned index, uint8_t *room)
{
    static const uint8_t zero[PAGE];
    uint8_t *now = guest.memory[block][index], *last = guest.sent[block][index];
    struct gw_inline_page page = {.kind = GW_INLINE_PAGE,
                                  .block = block,
                                  .offset = (uint64_t)index * PAGE,
                                  .data = now,
                                  .bytes = PAGE};
    int rc;
    if (memcmp(now, zero, PAGE) == 0) {
        page.kind = GW_INLINE_ZERO;
        page.bytes = 0;
        rc = gw_inline_write_page(&w, &page, &record) == 0;
    } else if (guest.has_gone[block][index]) {
        rc = gw_inline_write_change(&w, block, page.offset, last, now, room, &record);
    } else {
        rc = gw_inline_write_page(&w, &page, &record) == 0;
    }
    GW_EXPECT(rc >= 0);
    memcpy(last, now, PAGE);
    guest.has_gone[block][index] = true;
    return rc == 1;
}

GW_TEST(inline_write, a_random_guest_arrives_round_after_round)
{
    struct gw_inline ram;
    unsigned kinds[3] = {0};
    srand(21);
    gw_inline_writer_init(&w);
    gw_inline_init(&ram);
    ram.on_page = place;
    begin();
    put_table(guest_blocks, 2);
    take(&ram, GW_INLINE_START);
    for (unsigned round = 0; round < 60; round++) {
        begin();
        for (unsigned i = 0; i < 40; i++) {
            unsigned block = (unsigned)rand() % 2, index = (unsigned)rand() % GUEST_PAGES;
            scribble(guest.memory[block][index]);
            if (send_page(block, index, code))
                put();
        }
        for (unsigned i = 0; i < 2 * GUEST_PAGES; i++) {
            if (send_page(i / GUEST_PAGES, i % GUEST_PAGES, code))
                put();
        }
        put_end();
        take(&ram, round == 59 ? GW_INLINE_END : GW_INLINE_PART);
        GW_ASSERT(memcmp(guest.copy, guest.memory, sizeof(guest.copy)) == 0);
    }
    for (unsigned kind = 0; kind < 3; kind++)
        kinds[kind] = (unsigned)(ram.blocks[0].kinds[kind] + ram.blocks[1].kinds[kind]);
    if (!GW_EXPECT(kinds[GW_INLINE_ZERO] > 50 && kinds[GW_INLINE_PAGE] > 50 &&
                   kinds[GW_INLINE_XBZRLE] > 500))
        gw_test_note(__FILE__, __LINE__, "%u zero, %u whole, %u changed", kinds[0], kinds[1],
                     kinds[2]);
    gw_inline_fini(&ram);
}
