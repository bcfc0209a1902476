// SPDX-License-Identifier: MIT
/* Pages in line, and multifd channels. The first byte chooses: what the configuration said, or a channel. What was
 * taken is written again, if a writer would write such a table: to the same bytes, but for a block that is named
 * where it need not be. */
#include "core/base/bytes.h"
#include "ram/inline_write.h"
#include "tests/fuzz/fuzz.h"

#define ENTRIES_MAX 64u

struct walk {
    const struct gw_inline *ram;
    const uint8_t *input;
    struct gw_inline_entry entries[ENTRIES_MAX];
    struct gw_inline_writer writer;
    bool table_tried, writes;
};

/* The table is known when the first page comes. */
static void try_table(struct walk *walk)
{
    const struct gw_inline *ram = walk->ram;
    struct gw_inline_record record;
    if (walk->table_tried || ram->block_count > ENTRIES_MAX)
        return;
    walk->table_tried = true;
    for (unsigned i = 0; i < ram->block_count; i++)
        walk->entries[i] =
            (struct gw_inline_entry){ram->blocks[i].name, ram->blocks[i].bytes,
                                     ram->blocks[i].page_bytes, ram->blocks[i].guest_address};
    gw_inline_writer_init(&walk->writer);
    walk->writer.page_bytes = ram->page_bytes;
    walk->writer.sizes = ram->sizes;
    walk->writer.guest_addresses = ram->guest_addresses;
    walk->writes =
        gw_inline_write_table(&walk->writer, walk->entries, ram->block_count, &record, NULL) == 0;
}

static void write_page(struct walk *walk, const struct gw_inline_page *page)
{
    struct gw_inline_record record;
    const uint8_t *was = walk->input + page->at;
    if (walk->ram->mapped) /* has no records */
        return;
    try_table(walk);
    if (!walk->writes)
        return;
    int rc = gw_inline_write_page(&walk->writer, page, &record);
    if (page->kind == GW_INLINE_COMPRESSED)
        FUZZ_MUST(rc == -EOPNOTSUPP);
    else
        FUZZ_MUST(rc == (page->kind == GW_INLINE_ZERO && page->data[0] != 0 ? -EINVAL : 0));
    if (rc < 0) { /* a block that it perhaps named has not been named here */
        gw_inline_write_forget(&walk->writer);
        return;
    }
    if (((gw_be64_load(was) ^ gw_be64_load(record.head)) & GW_INLINE_FLAG_CONTINUE) != 0)
        return;
    FUZZ_MUST(memcmp(was, record.head, record.head_bytes) == 0);
    FUZZ_MUST(record.data_bytes == 0 ||
              memcmp(was + record.head_bytes, record.data, record.data_bytes) == 0);
}

static int take_page(void *ctx, const struct gw_inline_page *page, struct gw_error *err)
{
    struct walk *walk = ctx;
    const struct gw_inline *ram = walk->ram;
    (void)err;
    FUZZ_MUST(page->block < ram->block_count);
    const struct gw_inline_block *block = &ram->blocks[page->block];
    FUZZ_MUST(page->offset % ram->page_bytes == 0);
    FUZZ_MUST(page->offset < block->bytes && ram->page_bytes <= block->bytes - page->offset);
    if (page->kind == GW_INLINE_COMPRESSED && gw_inflater_is_built())
        FUZZ_MUST(page->bytes == ram->page_bytes);
    if (page->kind == GW_INLINE_XBZRLE) {
        static uint8_t content[4096];
        if (ram->page_bytes == sizeof(content))
            FUZZ_MUST(gw_xbzrle_decode(page->data, page->bytes, content, sizeof(content)) == 0);
    }
    write_page(walk, page);
    return 0;
}

static void take_channel(struct gw_input *in)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_multifd multifd = {.page_bytes = 4096};
    struct gw_multifd_packet packet;
    int rc = gw_multifd_take_hello(&multifd, in, &err);
    while (rc == 0) {
        rc = gw_multifd_take(&multifd, in, &packet, &err);
        if (rc == 0)
            return;
        if (rc == 1)
            rc = 0;
    }
    fuzz_refused(rc, &err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_inline ram;
    struct gw_input in;
    if (bytes == 0)
        return 0;
    gw_input_memory(&in, data + 1, bytes - 1, 0);
    if (data[0] & 0x80) {
        take_channel(&in);
        return 0;
    }
    gw_inline_init(&ram);
    ram.guest_addresses = data[0] & 1;
    ram.mapped = data[0] & 2;
    ram.sizes = data[0] & 4 ? 0x201000 : 0;
    ram.page_bytes = data[0] & 8 ? 1024 : 4096;
    ram.on_page = take_page;
    struct walk walk = {.ram = &ram, .input = data + 1};
    ram.ctx = &walk;
    int rc = gw_inline_take(&ram, &in, GW_INLINE_START, &err);
    while (rc == 0 && !gw_input_is_empty(&in))
        rc = gw_inline_take(&ram, &in, GW_INLINE_PART, &err);
    if (rc < 0) {
        FUZZ_MUST(in.fault_at < bytes);
        fuzz_refused(rc, &err);
    }
    gw_inline_fini(&ram);
    return 0;
}
