// SPDX-License-Identifier: MIT
/* The savevm stream: items, the readers that take their bodies apart, and the order they may come in.
 * An input is a stream of items, each with two bytes of length in front. What is read as an item,
 * written again from its parts, is the same bytes. */
#include "control/stream.h"
#include "core/base/bytes.h"
#include "tests/fuzz/fuzz.h"

#define ITEMS_MAX 64

/* A body read with every call a device has: nothing past its end, latched errors, zeros after. */
static void read_body(struct gw_reader body)
{
    uint8_t buf[64];
    size_t left = gw_reader_left(&body);
    for (unsigned i = 0; gw_reader_error(&body) == 0; i++) {
        size_t before = gw_reader_left(&body);
        switch (i % 5) {
        case 0:
            gw_reader_u8(&body);
            break;
        case 1:
            gw_reader_be16(&body);
            break;
        case 2:
            gw_reader_be32(&body);
            break;
        case 3:
            gw_reader_be64(&body);
            break;
        default:
            gw_reader_bytes(&body, buf, 1 + before % sizeof(buf));
            break;
        }
        FUZZ_MUST(gw_reader_error(&body) < 0 || gw_reader_left(&body) < before);
    }
    FUZZ_MUST(gw_reader_be64(&body) == 0);
    FUZZ_MUST(gw_reader_left(&body) <= left);
}

static void write_again(enum gw_item_type type, const char *machine,
                        const struct gw_section *section, const struct gw_reader *body,
                        const uint8_t *data, size_t bytes)
{
    struct gw_writer w;
    gw_writer_init(&w, bytes + 64);
    switch (type) {
    case GW_ITEM_CONFIGURATION:
        gw_stream_write_header(&w, machine);
        break;
    case GW_ITEM_EOF:
        gw_stream_write_eof(&w);
        break;
    case GW_ITEM_DESCRIPTION:
        gw_writer_u8(&w, GW_ITEM_DESCRIPTION);
        gw_writer_be32(&w, (uint32_t)gw_reader_left(body));
        gw_writer_bytes(&w, body->data, gw_reader_left(body));
        break;
    case GW_ITEM_START:
    case GW_ITEM_PART:
    case GW_ITEM_END:
    case GW_ITEM_FULL:
        gw_stream_write_section(&w, section);
        gw_writer_bytes(&w, body->data, gw_reader_left(body));
        gw_stream_write_footer(&w, section->section_id);
        break;
    case GW_ITEM_COMMAND:
        FUZZ_MUST(!"a command was read as an item");
    }
    FUZZ_MUST(gw_writer_error(&w) == 0);
    FUZZ_MUST(w.bytes == bytes && memcmp(w.data, data, bytes) == 0);
    gw_writer_fini(&w);
}

/* False: the stream is refused. */
static bool take(struct gw_stream_order *order, const uint8_t *data, size_t bytes)
{
    struct gw_error err = GW_ERROR_INIT;
    enum gw_item_type type = GW_ITEM_COMMAND;
    struct gw_section section;
    struct gw_reader body;
    char machine[256];
    int rc = gw_stream_read_item(data, bytes, &type, machine, &section, &body, &err);
    if (rc < 0) {
        fuzz_refused(rc, &err);
        FUZZ_MUST(gw_stream_read_item(data, bytes, &type, NULL, NULL, NULL, NULL) == rc);
        return false;
    }
    write_again(type, machine, &section, &body, data, bytes);
    read_body(body);
    rc = gw_stream_order_next(order, type, &section, &err);
    if (rc < 0)
        fuzz_refused(rc, &err);
    else if (type == GW_ITEM_START || type == GW_ITEM_PART)
        FUZZ_MUST(gw_stream_order_find(order, section.section_id) != NULL);
    return rc == 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct fuzz_input in = {data, bytes};
    struct gw_stream_order *order = gw_stream_order_new();
    FUZZ_MUST(order != NULL);
    for (unsigned i = 0; i < ITEMS_MAX && in.left > 0; i++) {
        size_t length = (size_t)fuzz_u8(&in) << 8;
        length |= fuzz_u8(&in);
        struct fuzz_input piece = fuzz_piece(&in, length);
        uint8_t *copy = malloc(piece.left ? piece.left : 1);
        FUZZ_MUST(copy != NULL);
        memcpy(copy, piece.at, piece.left);
        bool taken = take(order, copy, piece.left);
        free(copy);
        if (!taken)
            break;
    }
    gw_stream_order_free(order);
    return 0;
}
