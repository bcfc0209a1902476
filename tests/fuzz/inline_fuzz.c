// SPDX-License-Identifier: MIT
/* Pages in line, and multifd channels. The first byte chooses: what the configuration said, or a channel. */
#include "ram/inline.h"
#include "tests/fuzz/fuzz.h"

static int take_page(void *ctx, const struct gw_inline_page *page, struct gw_error *err)
{
    const struct gw_inline *ram = ctx;
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
    ram.ctx = &ram;
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
