// SPDX-License-Identifier: MIT
/* The list of blocks, in both of its forms: the entries of BLOCKS, built again from what was read to
 * the same bytes and taken into a ram; and the table in the RAM section's START, which must say what
 * was offered, no more and no less. The input's first two bytes say where the one ends. */
#include "control/codec.h"
#include "core/devices.h"
#include "ram/block.h"
#include "tests/fuzz/fuzz.h"

/* Never touched: a block's bits say what is populated, and these stay clear. */
static void *somewhere(uint64_t page_bytes)
{
    return (void *)(uintptr_t)page_bytes;
}

static void rebuild(struct gw_span list, struct gw_ram *ram)
{
    struct gw_list_cursor cursor;
    struct gw_block_offer_msg offer;
    struct gw_error err = GW_ERROR_INIT;
    struct gw_list_builder again = {.buf = malloc(list.bytes + 1), .bytes = list.bytes};
    FUZZ_MUST(again.buf != NULL);
    gw_list_begin(&cursor, list);
    while (gw_list_next_block(&cursor, &offer)) {
        FUZZ_MUST(gw_list_add_block(&again, &offer) == 0);
        struct gw_block_desc desc = {.struct_bytes = sizeof(desc),
                                     .name = offer.name,
                                     .host = somewhere(offer.page_bytes),
                                     .size_bytes = offer.bytes,
                                     .page_bytes = offer.page_bytes,
                                     .kind = (enum gw_block_kind)offer.kind,
                                     .fd = -1,
                                     .flags = offer.flags};
        bool known = gw_ram_find(ram, offer.name) != NULL;
        int rc = gw_ram_add_block(ram, &desc, &err);
        FUZZ_MUST(!known || rc < 0);
        if (rc < 0)
            fuzz_refused(rc, &err);
    }
    FUZZ_MUST(again.used == list.bytes);
    FUZZ_MUST(list.bytes == 0 || memcmp(again.buf, list.data, list.bytes) == 0);
    FUZZ_MUST(
        gw_list_add_block(&again, &(struct gw_block_offer_msg){
                                      .name = "x", .bytes = 4096, .page_bytes = 4096}) == -ENOSPC);
    free(again.buf);
}

static void check_table(struct gw_ram *ram, const uint8_t *data, size_t bytes)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_reader body;
    struct gw_writer w;
    enum gw_item_type type;
    struct gw_section section;
    gw_writer_init(&w, SIZE_MAX);
    struct gw_device_desc device = gw_savevm_ram(ram);
    FUZZ_MUST(gw_savevm_setup(&w, &device, GW_SECTION_RAM, &err) == 0);
    FUZZ_MUST(gw_stream_read_item(w.data, w.bytes, &type, NULL, &section, &body, &err) == 0);
    const uint8_t *ours = body.data;
    size_t ours_bytes = body.bytes;
    FUZZ_MUST(gw_savevm_check_ram_start(&body, ram, &err) == 0);
    gw_reader_init(&body, data, bytes);
    int rc = gw_savevm_check_ram_start(&body, ram, &err);
    if (rc < 0)
        fuzz_refused(rc, &err);
    else
        FUZZ_MUST(bytes == ours_bytes && memcmp(data, ours, bytes) == 0);
    gw_writer_fini(&w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct gw_error err = GW_ERROR_INIT;
    struct fuzz_input in = {data, bytes};
    size_t list_bytes = (size_t)fuzz_u8(&in) << 8;
    list_bytes |= fuzz_u8(&in);
    struct fuzz_input piece = fuzz_piece(&in, list_bytes);
    uint8_t *copy = malloc(piece.left ? piece.left : 1);
    struct gw_ram *ram = gw_ram_new();
    FUZZ_MUST(copy && ram);
    if (piece.left)
        memcpy(copy, piece.at, piece.left);
    struct gw_span list = {.data = copy, .bytes = piece.left};
    int rc = gw_list_check(GW_MSG_BLOCKS, list, &err);
    if (rc < 0)
        fuzz_refused(rc, &err);
    else
        rebuild(list, ram);
    check_table(ram, in.at, in.left);
    gw_ram_free(ram);
    free(copy);
    return 0;
}
