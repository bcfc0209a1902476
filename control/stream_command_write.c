// SPDX-License-Identifier: MIT
/* Commands of the savevm stream, packages, and messages of the return path, written. A payload is made aside,
 * and its length judged by the table that readers use (stream_command.c), before the first byte goes out. */
#include "control/stream_write.h"
#include "core/base/bytes.h"

#include <inttypes.h>

#define PAYLOAD_BYTES_MAX 268u /* REQ_PAGES_ID with the longest name */
#define DISCARD_VERSION 0u
#define BLOCK "block's name"

_Static_assert(1 + 1 + GW_STREAM_NAME_BYTES_MAX + 1 + 16 * GW_DISCARD_RANGES_MAX <= UINT16_MAX,
               "the ranges of a DISCARD fit its length");

/* Return: bytes written to @to. */
static size_t put_block(uint8_t *to, const char *block)
{
    size_t bytes = strnlen(block, GW_STREAM_NAME_BYTES_MAX);
    to[0] = (uint8_t)bytes;
    memcpy(to + 1, block, bytes);
    return 1 + bytes;
}

/* What a command and a message begin with. */
static void write_head(struct gw_writer *w, unsigned number, size_t payload_bytes)
{
    gw_writer_be16(w, (uint16_t)number);
    gw_writer_be16(w, (uint16_t)payload_bytes);
}

/* ---- commands --------------------------------------------------------------------------------- */

static void write_command_head(struct gw_writer *w, enum gw_stream_command command, size_t bytes)
{
    gw_assert(gw_stream_is_command(command, (unsigned)bytes));
    gw_writer_u8(w, GW_ITEM_COMMAND);
    write_head(w, command, bytes);
}

static int put_advice(uint8_t *to, const struct gw_command_item *c, struct gw_error *err)
{
    if (c->value == 0)
        return 0;
    if (c->page_bytes < 1024 || (c->page_bytes & (c->page_bytes - 1)) != 0)
        return gw_fail(err, -EINVAL, "POSTCOPY_ADVISE with pages of %" PRIu64 " bytes",
                       c->page_bytes);
    if (c->sizes == 0 || c->sizes % c->page_bytes != 0)
        return gw_fail(err, -EINVAL,
                       "POSTCOPY_ADVISE with page sizes 0x%" PRIx64
                       ", which are no pages of %" PRIu64 " bytes",
                       c->sizes, c->page_bytes);
    gw_be64_store(to, c->sizes);
    gw_be64_store(to + 8, c->page_bytes);
    return 16;
}

/* Return: bytes of the payload, or -EINVAL. */
static int put_payload(uint8_t *to, const struct gw_command_item *c, struct gw_error *err)
{
    int rc;
    switch (c->command) {
    case GW_COMMAND_PING:
        gw_be32_store(to, c->value);
        return 4;
    case GW_COMMAND_POSTCOPY_ADVISE:
        return put_advice(to, c, err);
    case GW_COMMAND_RECV_BITMAP:
        rc = gw_stream_check_name(c->block, BLOCK, err);
        return rc < 0 ? rc : (int)put_block(to, c->block);
    case GW_COMMAND_OPEN_RETURN_PATH:
    case GW_COMMAND_POSTCOPY_LISTEN:
    case GW_COMMAND_POSTCOPY_RUN:
    case GW_COMMAND_ENABLE_COLO:
    case GW_COMMAND_POSTCOPY_RESUME:
    case GW_COMMAND_SWITCHOVER_START:
        return 0;
    case GW_COMMAND_POSTCOPY_RAM_DISCARD:
    case GW_COMMAND_PACKAGED:
        break;
    }
    return gw_fail(err, -EINVAL, "command %u, which is not written so", (unsigned)c->command);
}

int gw_stream_write_command(struct gw_writer *w, const struct gw_command_item *command,
                            struct gw_error *err)
{
    uint8_t payload[PAYLOAD_BYTES_MAX];
    int bytes = put_payload(payload, command, err);
    if (bytes < 0)
        return bytes;
    write_command_head(w, command->command, (size_t)bytes);
    gw_writer_bytes(w, payload, (size_t)bytes);
    return gw_stream_written(w, gw_command_name(command->command), err);
}

static int check_ranges(const struct gw_discard_range *ranges, unsigned count, struct gw_error *err)
{
    uint64_t end = 0;
    if (count == 0 || count > GW_DISCARD_RANGES_MAX)
        return gw_fail(err, -EINVAL, "POSTCOPY_RAM_DISCARD of %u ranges, expected 1 to %u", count,
                       GW_DISCARD_RANGES_MAX);
    for (unsigned i = 0; i < count; i++) {
        if (ranges[i].bytes == 0 || ranges[i].start < end ||
            ranges[i].bytes > UINT64_MAX - ranges[i].start)
            return gw_fail(err, -EINVAL,
                           "POSTCOPY_RAM_DISCARD: range %u, %" PRIu64 " bytes at 0x%" PRIx64
                           ", is empty, wraps, or is not behind the one before",
                           i, ranges[i].bytes, ranges[i].start);
        end = ranges[i].start + ranges[i].bytes;
    }
    return 0;
}

int gw_stream_write_discard(struct gw_writer *w, const char *block,
                            const struct gw_discard_range *ranges, unsigned count,
                            struct gw_error *err)
{
    uint8_t name[1 + GW_STREAM_NAME_BYTES_MAX];
    int rc = gw_stream_check_name(block, BLOCK, err);
    if (rc == 0)
        rc = check_ranges(ranges, count, err);
    if (rc < 0)
        return rc;
    size_t name_bytes = put_block(name, block);
    write_command_head(w, GW_COMMAND_POSTCOPY_RAM_DISCARD, 1 + name_bytes + 1 + 16 * (size_t)count);
    gw_writer_u8(w, DISCARD_VERSION);
    gw_writer_bytes(w, name, name_bytes);
    gw_writer_u8(w, 0);
    for (unsigned i = 0; i < count; i++) {
        gw_writer_be64(w, ranges[i].start);
        gw_writer_be64(w, ranges[i].bytes);
    }
    return gw_stream_written(w, "POSTCOPY_RAM_DISCARD", err);
}

/* ---- packages --------------------------------------------------------------------------------- */

static bool is_command_at(const uint8_t *at, enum gw_stream_command command)
{
    return at[0] == GW_ITEM_COMMAND && gw_be16_load(at + 1) == command && gw_be16_load(at + 3) == 0;
}

static int check_package(const struct gw_writer *items, struct gw_error *err)
{
    const size_t command_bytes = 5;
    if (gw_writer_error(items) < 0)
        return gw_stream_written(items, "package", err);
    if (items->bytes > UINT32_MAX)
        return gw_fail(err, -EINVAL, "a package of %zu bytes, at most %" PRIu32, items->bytes,
                       UINT32_MAX);
    if (items->bytes < 2 * command_bytes ||
        !is_command_at(items->data, GW_COMMAND_POSTCOPY_LISTEN) ||
        !is_command_at(items->data + items->bytes - command_bytes, GW_COMMAND_POSTCOPY_RUN))
        return gw_fail(err, -EINVAL, "a package that is not POSTCOPY_LISTEN to POSTCOPY_RUN");
    return 0;
}

int gw_stream_write_package(struct gw_writer *w, const struct gw_writer *items,
                            struct gw_error *err)
{
    int rc = check_package(items, err);
    if (rc < 0)
        return rc;
    write_command_head(w, GW_COMMAND_PACKAGED, 4);
    gw_writer_be32(w, (uint32_t)items->bytes);
    gw_writer_bytes(w, items->data, items->bytes); /* behind the command, outside of its length */
    return gw_stream_written(w, "package", err);
}

/* ---- the return path -------------------------------------------------------------------------- */

static int put_request(uint8_t *to, const struct gw_return_item *item, struct gw_error *err)
{
    if (item->value == 0 || item->value > UINT64_MAX - item->start)
        return gw_fail(err, -EINVAL, "%s for %" PRIu32 " bytes at 0x%" PRIx64,
                       gw_return_name(item->type), item->value, item->start);
    gw_be64_store(to, item->start);
    gw_be32_store(to + 8, item->value);
    if (item->type == GW_RETURN_REQ_PAGES)
        return 12;
    int rc = gw_stream_check_name(item->block, BLOCK, err);
    return rc < 0 ? rc : 12 + (int)put_block(to + 12, item->block);
}

static int put_message(uint8_t *to, const struct gw_return_item *item, struct gw_error *err)
{
    switch (item->type) {
    case GW_RETURN_RESUME_ACK:
        if (item->value != 1)
            return gw_fail(err, -EINVAL, "RESUME_ACK says 1, not %" PRIu32, item->value);
        /* fall through */
    case GW_RETURN_SHUT:
    case GW_RETURN_PONG:
        gw_be32_store(to, item->value);
        return 4;
    case GW_RETURN_REQ_PAGES_ID:
    case GW_RETURN_REQ_PAGES:
        return put_request(to, item, err);
    case GW_RETURN_SWITCHOVER_ACK:
        return 0;
    case GW_RETURN_RECV_BITMAP:
        break;
    }
    return gw_fail(err, -EINVAL, "message %u of the return path, which is not written so",
                   (unsigned)item->type);
}

int gw_return_write(struct gw_writer *w, const struct gw_return_item *item, struct gw_error *err)
{
    uint8_t payload[PAYLOAD_BYTES_MAX];
    int bytes = put_message(payload, item, err);
    if (bytes < 0)
        return bytes;
    write_head(w, item->type, (size_t)bytes);
    gw_writer_bytes(w, payload, (size_t)bytes);
    return gw_stream_written(w, gw_return_name(item->type), err);
}

int gw_return_write_bitmap(struct gw_writer *w, const char *block, const uint8_t *bits,
                           uint64_t bytes, struct gw_error *err)
{
    uint8_t name[1 + GW_STREAM_NAME_BYTES_MAX];
    int rc = gw_stream_check_name(block, BLOCK, err);
    if (rc == 0 && (bytes == 0 || bytes % 8 != 0))
        rc = gw_fail(err, -EINVAL, "RECV_BITMAP of %" PRIu64 " bytes, which are no words of 8",
                     bytes);
    if (rc < 0)
        return rc;
    size_t name_bytes = put_block(name, block);
    write_head(w, GW_RETURN_RECV_BITMAP, name_bytes);
    gw_writer_bytes(w, name, name_bytes);
    gw_writer_be64(w, bytes);
    gw_writer_bytes(w, bits, (size_t)bytes);
    gw_writer_be64(w, GW_BITMAP_END_MARK);
    return gw_stream_written(w, "RECV_BITMAP", err);
}
