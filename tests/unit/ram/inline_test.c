// SPDX-License-Identifier: MIT
/* Pages in line: golden records, what the table may have, every refusal, xbzrle both ways, mapped-ram, and
 * multifd packets. */
#include "core/base/bytes.h"
#include "ram/inline.h"
#include "tests/shim/gw_test.h"
#include "tests/support/recording.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct gw_error err = GW_ERROR_INIT;

struct taken {
    unsigned pages;
    char text[512];
    uint8_t first; /* byte of the last page */
};

static int note_page(void *ctx, const struct gw_inline_page *page, struct gw_error *unused)
{
    static const char kinds[] = "zpxc";
    struct taken *taken = ctx;
    size_t used = strlen(taken->text);
    (void)unused;
    snprintf(taken->text + used, sizeof(taken->text) - used, "%c%u:%x%s ", kinds[page->kind],
             page->block, (unsigned)page->offset, page->again ? "!" : "");
    taken->pages++;
    taken->first = page->data[0];
    return 0;
}

static int take(struct gw_inline *ram, const struct recording *r, enum gw_inline_part part,
                uint64_t *fault_at)
{
    struct gw_input in;
    gw_input_memory(&in, r->w.data, r->w.bytes, 0);
    int rc = gw_inline_take(ram, &in, part, &err);
    if (rc == 0)
        GW_EXPECT(gw_input_is_empty(&in));
    if (fault_at)
        *fault_at = in.fault_at;
    return rc;
}

/* A table of block "a" with four pages, and @hex behind it. */
#define TABLE "0000000000004004 01 61 0000000000004000 "
#define EOS "0000000000000010 "

static int start(struct gw_inline *ram, const char *hex, uint64_t *fault_at)
{
    struct recording r;
    recording_init(&r);
    recording_hex(&r, hex);
    int rc = take(ram, &r, GW_INLINE_START, fault_at);
    recording_fini(&r);
    return rc;
}

GW_TEST(inline, records_are_read_and_the_last_block_is_remembered_across_sections)
{
    struct gw_inline ram;
    struct taken taken = {0};
    struct recording r;
    gw_inline_init(&ram);
    ram.on_page = note_page;
    ram.ctx = &taken;
    GW_EXPECT_EQ(start(&ram, TABLE EOS, NULL), 0);
    recording_init(&r);
    recording_hex(&r, "0000000000001002 01 61 00  0000000000002022 00 " EOS);
    GW_EXPECT_EQ(take(&ram, &r, GW_INLINE_PART, NULL), 0);
    gw_writer_reset(&r.w);
    recording_page(&r, REC_PAGE, 0x1000, NULL, 0x55);
    recording_hex(&r, "0000000000001060 01 0004 0a024142 " EOS);
    GW_EXPECT_EQ(take(&ram, &r, GW_INLINE_END, NULL), 0);
    GW_EXPECT_STREQ(taken.text, "z0:1000 z0:2000 p0:1000! x0:1000! ");
    GW_EXPECT_EQ(ram.blocks[0].received.count, 2);
    GW_EXPECT_EQ(ram.end_records, 3);
    recording_fini(&r);
    gw_inline_fini(&ram);
}

GW_TEST(inline, the_table_has_what_was_asked_for)
{
    struct gw_inline ram;
    gw_inline_init(&ram);
    ram.guest_addresses = true;
    GW_EXPECT_EQ(start(&ram, TABLE "0000000100000000 " EOS, NULL), 0);
    GW_EXPECT_EQ(ram.blocks[0].guest_address, UINT64_C(0x100000000));
    gw_inline_fini(&ram);

    /* Only where it is not the host's own is the size of the pages behind a block said. */
    gw_inline_init(&ram);
    ram.sizes = 0x201000;
    GW_EXPECT_EQ(
        start(
            &ram,
            "0000000000404004 01 61 0000000000400000 0000000000200000 01 62 0000000000004000 " EOS,
            NULL),
        0);
    GW_EXPECT_EQ(ram.blocks[0].page_bytes, 0x200000);
    GW_EXPECT_EQ(ram.blocks[1].page_bytes, 0);
    gw_inline_fini(&ram);
    gw_inline_init(&ram);
    ram.sizes = 0x201000;
    GW_EXPECT_EQ(start(&ram, "0000000000400004 01 61 0000000000400000 0000000000200000 " EOS, NULL),
                 0);
    GW_EXPECT_EQ(ram.blocks[0].page_bytes, 0x200000);
    gw_inline_fini(&ram);
}

GW_TEST(inline, what_is_wrong_is_refused_with_its_offset)
{
    static const struct {
        const char *hex, *words;
        uint64_t at;
    } wrong[] = {
        {"0000000000001002 01 61 00 ", "before the table", 0},
        {TABLE TABLE, "a second table", 18},
        {"0000000000004004 01 61 0000000000005000 ", "are left of the total", 8},
        {"0000000000004004 01 61 0000000000000000 ", "no pages of 4096", 8},
        {"0000000000004004 01 61 0000000000000800 ", "no pages of 4096", 8},
        {"0000000000008004 01 61 0000000000004000 01 61 0000000000004000 ", "a second block 'a'",
         18},
        {"0000000000004004 00 0000000000004000 ", "without a name", 8},
        {"0000000000004004 01 07 0000000000004000 ", "byte 0x07", 9},
        {TABLE "0000000000001000 ", "flags 0x000", 18},
        {TABLE "000000000000100a 01 61 ", "flags 0x00a", 18},
        {TABLE "0000000000001001 ", "flags 0x001", 18},
        {TABLE "0000000000001080 ", "RDMA", 18},
        {TABLE "0000000000000030 ", "flags 0x030", 18},
        {TABLE "0000000000001010 ", "end record with offset", 18},
        {TABLE "0000000000001022 00 ", "there was none", 18},
        {TABLE "0000000000001002 01 62 00 ", "not in the table", 26},
        {TABLE "0000000000004002 01 61 00 ", "which has 0x4000 bytes", 18},
        {TABLE "fffffffffffff002 01 61 00 ", "which has 0x4000 bytes", 18},
        {TABLE "0000000000001040 01 61 02 0001 00 ", "expected 0x01", 28},
        {TABLE "0000000000001040 01 61 01 0000 ", "xbzrle page of 0 bytes", 29},
        {TABLE "0000000000001040 01 61 01 1001 ", "xbzrle page of 4097 bytes", 29},
        {TABLE "0000000000001040 01 61 01 0003 000241 ", "runs do not fit", 31},
        {TABLE "0000000000001040 01 61 01 0003 000141 ", "never came", 18},
        {TABLE "0000000000001100 01 61 00002000 ", "compressed page of 8192", 28},
        {TABLE "0000000000001008 01 61 0102 ", "inside the page", 30},
        {TABLE, "inside the RAM section", 18},
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct gw_inline ram;
        uint64_t at = 0;
        gw_inline_init(&ram);
        GW_EXPECT_LT(start(&ram, wrong[i].hex, &at), 0);
        if (!GW_EXPECT(strstr(err.message, wrong[i].words) != NULL))
            gw_test_note(__FILE__, __LINE__, "%s: %s", wrong[i].words, err.message);
        if (!GW_EXPECT_EQ(at, wrong[i].at))
            gw_test_note(__FILE__, __LINE__, "%s", wrong[i].words);
        gw_inline_fini(&ram);
    }
}

GW_TEST(inline, a_block_of_any_size_costs_what_was_received_of_it)
{
    struct gw_inline ram;
    gw_inline_init(&ram);
    /* an EiB, far more than is followed */
    GW_EXPECT_EQ(
        start(&ram, "1000000000000004 01 61 1000000000000000 0ffffffffffff002 01 61 00 " EOS, NULL),
        0);
    GW_EXPECT(ram.budget.spent);
    GW_EXPECT_EQ(ram.blocks[0].kinds[GW_INLINE_ZERO], 1);
    gw_inline_fini(&ram);
}

/* ---- compressed pages ------------------------------------------------------------------------- */

/* What zlib makes of bytes 0x41 at level 1, up to where the end depends on how many they are. */
#define DEFLATED "7801edd081100000000321b6f7979ac7ae102a0c183060c0800103060c183060c08081"
#define DEFLATED_4096 DEFLATED "f78101ffad103d"

static bool first_is_letter(const uint8_t *page, size_t bytes)
{
    return page[0] == 0x41 && memcmp(page, page + 1, bytes - 1) == 0;
}

static int check_letters(void *ctx, const struct gw_inline_page *page, struct gw_error *unused)
{
    unsigned *pages = ctx;
    (void)unused;
    GW_EXPECT_EQ(page->kind, GW_INLINE_COMPRESSED);
    GW_EXPECT_EQ(page->bytes, 4096);
    GW_EXPECT(first_is_letter(page->data, page->bytes));
    ++*pages;
    return 0;
}

GW_TEST(inline, a_compressed_page_is_given_inflated)
{
    struct gw_inline ram;
    unsigned pages = 0;
    if (!gw_inflater_is_built())
        GW_SKIP("this build has no zlib");
    gw_inline_init(&ram);
    ram.on_page = check_letters;
    ram.ctx = &pages;
    GW_EXPECT_EQ(start(&ram,
                       TABLE "0000000000001100 01 61 0000002a" DEFLATED_4096
                             "0000000000002120 0000002a" DEFLATED_4096 EOS,
                       NULL),
                 0);
    GW_EXPECT_EQ(pages, 2);
    gw_inline_fini(&ram);
}

GW_TEST(inline, a_compressed_page_is_one_whole_stream_of_one_page)
{
    static const char *const wrong[] = {
        "0000002a" DEFLATED "f38101ef700ffc", /* 4095 bytes */
        "0000002a" DEFLATED "fb8101103a107e", /* 4097 */
        "00000029" DEFLATED "f78101ffad10",   /* not its end */
        "0000002b" DEFLATED_4096 "00",        /* more behind it */
        "0000002a" DEFLATED "f78101ffad103c", /* another sum */
        "0000002a"
        "78" DEFLATED "f78101ffad10", /* no head */
        "00000001"
        "78",
    };
    if (!gw_inflater_is_built())
        GW_SKIP("this build has no zlib");
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct gw_inline ram;
        char hex[512];
        uint64_t at = 0;
        snprintf(hex, sizeof(hex), TABLE "0000000000001100 01 61 %s" EOS, wrong[i]);
        gw_inline_init(&ram);
        GW_EXPECT_EQ(start(&ram, hex, &at), -EPROTO);
        if (!GW_EXPECT(strstr(err.message, "does not inflate to 4096 bytes") != NULL))
            gw_test_note(__FILE__, __LINE__, "%zu: %s", i, err.message);
        GW_EXPECT_EQ(at, 32);
        gw_inline_fini(&ram);
    }
}

/* ---- xbzrle ----------------------------------------------------------------------------------- */

static void encodes(const uint8_t *before, const uint8_t *after, const char *hex)
{
    uint8_t code[4096], page[4096];
    struct recording r;
    recording_init(&r);
    recording_hex(&r, hex);
    int bytes = gw_xbzrle_encode(before, after, 4096, code, sizeof(code));
    GW_EXPECT_EQ(bytes, (int)r.w.bytes);
    if (bytes == (int)r.w.bytes && bytes > 0)
        GW_EXPECT_MEMEQ(code, r.w.data, r.w.bytes);
    memcpy(page, before, sizeof(page));
    if (bytes > 0)
        GW_EXPECT_EQ(gw_xbzrle_decode(code, (size_t)bytes, page, 4096), 0);
    GW_EXPECT_MEMEQ(page, after, 4096);
    recording_fini(&r);
}

GW_TEST(xbzrle, the_codes_are_those_that_everyone_writes)
{
    uint8_t zero[4096] = {0}, page[4096] = {0};
    encodes(zero, zero, "");
    page[0] = 0x41;
    encodes(zero, page, "000141");
    page[0] = 0;
    memcpy(page + 1000, "\xaa\xbb\xcc", 3);
    page[4095] = 0x7f;
    encodes(zero, page, "e80703aabbcc 9418017f");
    memset(page, 0, sizeof(page));
    page[0x123] = page[0x363] = 0x4a;
    encodes(zero, page, "a302014a bf04014a");
    memset(page, 1, sizeof(page));
    GW_EXPECT_EQ(gw_xbzrle_encode(zero, page, 4096, page, 4096), -EOVERFLOW);
}

GW_TEST(xbzrle, random_changes_come_back)
{
    uint8_t before[4096], after[4096], code[4096], page[4096];
    srand(1);
    for (unsigned round = 0; round < 3000; round++) {
        for (unsigned i = 0; i < 4096; i++)
            before[i] = (uint8_t)rand();
        memcpy(after, before, sizeof(after));
        for (int i = rand() % 200; i > 0; i--) {
            int at = rand() % 4096, length = 1 + rand() % 40;
            for (int j = at; j < at + length && j < 4096; j++)
                after[j] = (uint8_t)rand();
        }
        int bytes = gw_xbzrle_encode(before, after, 4096, code, sizeof(code));
        memcpy(page, before, sizeof(page));
        if (bytes > 0)
            GW_ASSERT_EQ(gw_xbzrle_decode(code, (size_t)bytes, page, 4096), 0);
        if (bytes >= 0)
            GW_ASSERT(memcmp(page, after, sizeof(page)) == 0);
    }
}

GW_TEST(xbzrle, codes_that_do_not_fit_change_nothing)
{
    static const char *const wrong[] = {"00",
                                        "0001",
                                        "000241",
                                        "8080",
                                        "000141 0001 42",
                                        "00 00",
                                        "ff1f 0241 42",
                                        "0001 41 8020 01 42",
                                        "808000 01 41"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        uint8_t page[4096] = {0}, zero[4096] = {0};
        struct recording r;
        recording_init(&r);
        recording_hex(&r, wrong[i]);
        GW_EXPECT_EQ(gw_xbzrle_decode(r.w.data, r.w.bytes, page, sizeof(page)), -EPROTO);
        GW_EXPECT_MEMEQ(page, zero, sizeof(page));
        recording_fini(&r);
    }
}

/* ---- mapped-ram ------------------------------------------------------------------------------- */

GW_TEST(mapped_ram, pages_are_where_the_bitmap_says)
{
    static uint8_t file[0x105000];
    struct gw_inline ram;
    struct taken taken = {0};
    struct gw_input in;
    memset(file, 0, sizeof(file));
    gw_be64_store(file, 0x4004);
    memcpy(file + 8, "\1a", 2);
    gw_be64_store(file + 10, 0x4000);
    gw_be32_store(file + 18, 1);
    gw_be64_store(file + 22, 4096);
    gw_be64_store(file + 30, 46);
    gw_be64_store(file + 38, 0x100000);
    file[46] = 0xfa; /* pages 1 and 3, and bits behind the end, which mean nothing */
    memset(file + 0x101000, 7, 4096);
    memset(file + 0x102000, 9, 4096); /* stale */
    memset(file + 0x103000, 8, 4096);
    gw_be64_store(file + 0x104000, 0x10);
    gw_inline_init(&ram);
    ram.mapped = true;
    ram.on_page = note_page;
    ram.ctx = &taken;
    gw_input_memory(&in, file, 0x104008, 0);
    GW_EXPECT_EQ(gw_inline_take(&ram, &in, GW_INLINE_START, &err), 0);
    GW_EXPECT(gw_input_is_empty(&in));
    GW_EXPECT_STREQ(taken.text, "p0:1000 p0:3000 ");
    GW_EXPECT_EQ(taken.first, 8);
    gw_inline_fini(&ram);

    static const unsigned fields[] = {18, 22, 30, 38}; /* of the header: none may be otherwise */
    for (unsigned i = 0; i < 4; i++) {
        file[fields[i]] ^= 0x40;
        gw_inline_init(&ram);
        ram.mapped = true;
        gw_input_memory(&in, file, 0x104008, 0);
        GW_EXPECT_LT(gw_inline_take(&ram, &in, GW_INLINE_START, &err), 0);
        gw_inline_fini(&ram);
        file[fields[i]] ^= 0x40;
    }
}

/* ---- multifd ---------------------------------------------------------------------------------- */

#define PACKET_BYTES (320 + 8 * 128)

static void packet(struct recording *r, uint32_t flags, uint32_t normal, uint32_t data_bytes,
                   uint32_t zero)
{
    uint8_t head[PACKET_BYTES] = {0};
    gw_be32_store(head, GW_MULTIFD_MAGIC);
    gw_be32_store(head + 4, 1);
    gw_be32_store(head + 8, flags);
    gw_be32_store(head + 12, 128);
    gw_be32_store(head + 16, normal);
    gw_be32_store(head + 20, data_bytes);
    gw_be32_store(head + 32, zero);
    memcpy(head + 64, "pc.ram", 6);
    recording_bytes(r, head, sizeof(head));
}

static int channel(const struct recording *r, struct gw_multifd *multifd)
{
    struct gw_multifd_packet p;
    struct gw_input in;
    *multifd = (struct gw_multifd){.page_bytes = 4096};
    gw_input_memory(&in, r->w.data, r->w.bytes, 0);
    int rc = gw_multifd_take_hello(multifd, &in, &err);
    if (rc < 0)
        return rc;
    do {
        rc = gw_multifd_take(multifd, &in, &p, &err);
    } while (rc == 1);
    return rc;
}

static void hello(struct recording *r)
{
    uint8_t bytes[64] = {0x11, 0x22, 0x33, 0x44, 0, 0, 0, 1};
    bytes[24] = 1;
    recording_init(r);
    recording_bytes(r, bytes, sizeof(bytes));
}

GW_TEST(multifd, a_channel_is_read_packet_by_packet)
{
    static const uint8_t pages[2 * 4096];
    struct recording r;
    struct gw_multifd m;
    hello(&r);
    packet(&r, 1, 0, 4096, 0); /* a sync whose size of data is stale */
    packet(&r, 0, 2, sizeof(pages), 0);
    recording_bytes(&r, pages, sizeof(pages));
    packet(&r, 1, 0, 0, 3);
    packet(&r, 2, 5, 100, 0); /* zlib */
    recording_bytes(&r, pages, 100);
    GW_EXPECT_EQ(channel(&r, &m), 0);
    GW_EXPECT_EQ(m.id, 1);
    GW_EXPECT_EQ(m.packets, 4);
    GW_EXPECT_EQ(m.syncs, 2);
    GW_EXPECT_EQ(m.normal_pages, 7);
    GW_EXPECT_EQ(m.zero_pages, 3);
    GW_EXPECT_EQ(m.data_bytes, sizeof(pages) + 100);
    recording_fini(&r);
}

GW_TEST(multifd, packets_that_are_wrong_are_refused)
{
    static const struct {
        uint32_t flags, normal, data_bytes, zero;
    } wrong[] = {{0x80, 0, 0, 0}, {0, 129, 129 * 4096, 0},  {0, 100, 409600, 100}, {0, 1, 4095, 0},
                 {2, 1, 0, 0},    {2, 1, (1 << 20) + 1, 0}, {0, 1, 4096, 0} /* data missing */};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct recording r;
        struct gw_multifd m;
        hello(&r);
        packet(&r, wrong[i].flags, wrong[i].normal, wrong[i].data_bytes, wrong[i].zero);
        GW_EXPECT_LT(channel(&r, &m), 0);
        recording_fini(&r);
    }
}
