// SPDX-License-Identifier: MIT
/* Every message of messages.def. The first byte of an input picks the row (past the last: none, the
 * input brings its own header), the second the flags; the rest is the body. What decodes keeps to its
 * row, its lists can be walked to their end, and it encodes to the bytes it came from; texts that
 * were made printable, unknown codes and hello's fields repeat from the second time on. */
#include "control/codec.h"
#include "tests/fuzz/fuzz.h"

static uint8_t *encode(const struct gw_message *msg, size_t *bytes)
{
    uint8_t head[GW_MESSAGE_HEAD_BYTES_MAX];
    struct gw_span tail;
    ssize_t head_bytes = gw_message_encode_head(msg, head, &tail);
    FUZZ_MUST(head_bytes > 0);
    *bytes = (size_t)head_bytes + tail.bytes;
    uint8_t *buf = malloc(*bytes);
    FUZZ_MUST(buf != NULL);
    FUZZ_MUST(gw_message_encode(msg, buf, *bytes) == (ssize_t)*bytes);
    FUZZ_MUST(gw_message_encode(msg, buf, *bytes - 1) == -EMSGSIZE);
    return buf;
}

static bool is_exact(enum gw_message_type type)
{
    return type != GW_MSG_HELLO && type != GW_MSG_HELLO_REPLY && type != GW_MSG_FAILED &&
           type != GW_MSG_ABORT && type != GW_MSG_OUTCOME;
}

static void walk(const struct gw_message *msg)
{
    struct gw_list_cursor cursor;
    struct gw_block_offer_msg block;
    struct gw_range_msg range;
    struct gw_span list = msg->type == GW_MSG_ZERO ? msg->u.zero.runs : msg->u.list;
    bool fresh;
    size_t entries = 0;
    gw_list_begin(&cursor, list);
    if (msg->type == GW_MSG_BLOCKS) {
        while (gw_list_next_block(&cursor, &block)) {
            FUZZ_MUST(block.name[0] && block.bytes && block.bytes % block.page_bytes == 0);
            entries++;
        }
    } else if (msg->type == GW_MSG_BLOCKS_OK) {
        while (gw_list_next_fresh(&cursor, &fresh))
            entries++;
    } else {
        while (gw_list_next_range(&cursor, msg->type, &range)) {
            FUZZ_MUST(range.count > 0 && range.first + range.count > range.first);
            FUZZ_MUST(range.key_bytes <= GW_KEY_BYTES_MAX);
            entries++;
        }
    }
    FUZZ_MUST(entries <= list.bytes);
}

static bool has_list(enum gw_message_type type)
{
    return type == GW_MSG_BLOCKS || type == GW_MSG_BLOCKS_OK || type == GW_MSG_WISHES ||
           type == GW_MSG_KEYS || type == GW_MSG_RELEASE || type == GW_MSG_RELEASED ||
           type == GW_MSG_ZERO;
}

static void good(const struct gw_message *msg, const uint8_t *from, size_t from_bytes)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_message again;
    const struct gw_message_def *def = gw_message_def((uint32_t)msg->type);
    size_t bytes, bytes_again;
    FUZZ_MUST(def && !(msg->flags & ~def->flags));
    FUZZ_MUST(from_bytes - GW_MESSAGE_HEADER_BYTES >= def->body_min);
    FUZZ_MUST(from_bytes - GW_MESSAGE_HEADER_BYTES <= def->body_max);
    if (has_list(msg->type))
        walk(msg);
    uint8_t *first = encode(msg, &bytes);
    if (is_exact(msg->type))
        FUZZ_MUST(bytes == from_bytes && memcmp(first, from, bytes) == 0);
    FUZZ_MUST(gw_message_decode(first, bytes, &again, &err) == 0);
    FUZZ_MUST(again.type == msg->type && again.flags == msg->flags);
    uint8_t *second = encode(&again, &bytes_again);
    FUZZ_MUST(bytes == bytes_again && memcmp(first, second, bytes) == 0);
    free(first);
    free(second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_message msg;
    struct fuzz_input in = {data, bytes};
    const struct gw_message_def *def = gw_message_def_at(fuzz_u8(&in));
    uint8_t flags = fuzz_u8(&in);
    size_t head = def ? GW_MESSAGE_HEADER_BYTES : 0;
    uint8_t *buf = malloc(head + in.left + 1);
    FUZZ_MUST(buf != NULL);
    if (def) {
        gw_be16_store(buf, (uint16_t)def->type);
        gw_be16_store(buf + 2, flags);
        gw_be32_store(buf + 4, 0);
    }
    size_t length = head + in.left;
    if (in.left)
        memcpy(buf + head, in.at, in.left);
    int rc = gw_message_decode(buf, length, &msg, &err);
    if (rc < 0)
        fuzz_refused(rc, &err);
    else
        good(&msg, buf, length);
    free(buf);
    return 0;
}
