// SPDX-License-Identifier: MIT
/* Commands of the savevm stream and the messages of its return path: two small tables of numbers, names and
 * lengths. A length that the table does not allow is refused before its bytes are looked at. */
#include "control/stream_read.h"
#include "core/base/bytes.h"

#include <inttypes.h>
#include <stdio.h>

#define DISCARD_RANGE_BYTES ((size_t)16)

static const struct {
    const char *name;
    uint16_t bytes_min, bytes_max;
} commands[] = {
    [GW_COMMAND_OPEN_RETURN_PATH] = {"OPEN_RETURN_PATH", 0, 0},
    [GW_COMMAND_PING] = {"PING", 4, 4},
    [GW_COMMAND_POSTCOPY_ADVISE] = {"POSTCOPY_ADVISE", 0, 16}, /* 0 or 16 */
    [GW_COMMAND_POSTCOPY_LISTEN] = {"POSTCOPY_LISTEN", 0, 0},
    [GW_COMMAND_POSTCOPY_RUN] = {"POSTCOPY_RUN", 0, 0},
    [GW_COMMAND_POSTCOPY_RAM_DISCARD] = {"POSTCOPY_RAM_DISCARD", 20, UINT16_MAX},
    [GW_COMMAND_PACKAGED] = {"PACKAGED", 4, 4},
    [GW_COMMAND_ENABLE_COLO] = {"ENABLE_COLO", 0, 0},
    [GW_COMMAND_POSTCOPY_RESUME] = {"POSTCOPY_RESUME", 0, 0},
    [GW_COMMAND_RECV_BITMAP] = {"RECV_BITMAP", 2, 256},
    [GW_COMMAND_SWITCHOVER_START] = {"SWITCHOVER_START", 0, 0},
};
#define COMMAND_COUNT (sizeof(commands) / sizeof(commands[0]))

const char *gw_command_name(enum gw_stream_command command)
{
    gw_assert(command > 0 && command < COMMAND_COUNT);
    return commands[command].name;
}

bool gw_stream_is_command(unsigned command, unsigned payload_bytes)
{
    if (command == 0 || command >= COMMAND_COUNT)
        return false;
    if (command == GW_COMMAND_POSTCOPY_ADVISE)
        return payload_bytes == 0 || payload_bytes == 16;
    return payload_bytes >= commands[command].bytes_min &&
           payload_bytes <= commands[command].bytes_max;
}

/* A length byte and the name of a block at @at, of @bytes bytes. Return: bytes of both, 0: malformed. */
static size_t copy_block(const uint8_t *at, size_t bytes, char block[256])
{
    size_t length = bytes > 0 ? at[0] : 0;
    if (length == 0 || length > bytes - 1 || gw_text_find_odd(at + 1, length))
        return 0;
    memcpy(block, at + 1, length);
    block[length] = '\0';
    return 1 + length;
}

static int read_discard(struct gw_input *in, struct gw_command_item *to, const uint8_t *at,
                        uint64_t offset, struct gw_error *err)
{
    size_t bytes = to->payload_bytes;
    if (at[0] != 0)
        return gw_input_refuse(in, offset, err, "POSTCOPY_RAM_DISCARD of version %u",
                               (unsigned)at[0]);
    size_t used = copy_block(at + 1, bytes - 1, to->block);
    if (used == 0)
        return gw_input_refuse(in, offset + 1, err, "POSTCOPY_RAM_DISCARD without a block's name");
    size_t rest = bytes - 1 - used;
    if (rest < 1 + DISCARD_RANGE_BYTES || (rest - 1) % DISCARD_RANGE_BYTES != 0 ||
        at[1 + used] != 0)
        return gw_input_refuse(in, offset + 1 + used, err,
                               "POSTCOPY_RAM_DISCARD with %zu bytes behind the block's name", rest);
    to->ranges = (unsigned)((rest - 1) / DISCARD_RANGE_BYTES);
    to->range_data = at + bytes - to->ranges * DISCARD_RANGE_BYTES;
    return 0;
}

struct gw_discard_range gw_command_range(const struct gw_command_item *command, unsigned index)
{
    gw_assert(index < command->ranges);
    const uint8_t *at = command->range_data + index * DISCARD_RANGE_BYTES;
    return (struct gw_discard_range){gw_be64_load(at), gw_be64_load(at + 8)};
}

static int read_payload(struct gw_input *in, struct gw_command_item *to, const uint8_t *at,
                        uint64_t offset, struct gw_error *err)
{
    switch (to->command) {
    case GW_COMMAND_PING:
    case GW_COMMAND_PACKAGED:
        to->value = gw_be32_load(at);
        return 0;
    case GW_COMMAND_POSTCOPY_ADVISE:
        if (to->payload_bytes == 0)
            return 0;
        to->value = 1;
        to->sizes = gw_be64_load(at);
        to->page_bytes = gw_be64_load(at + 8);
        if (to->page_bytes < 1024 || (to->page_bytes & (to->page_bytes - 1)) != 0)
            return gw_input_refuse(in, offset + 8, err,
                                   "POSTCOPY_ADVISE with pages of %" PRIu64 " bytes",
                                   to->page_bytes);
        return 0;
    case GW_COMMAND_POSTCOPY_RAM_DISCARD:
        return read_discard(in, to, at, offset, err);
    case GW_COMMAND_RECV_BITMAP:
        if (copy_block(at, to->payload_bytes, to->block) != to->payload_bytes)
            return gw_input_refuse(in, offset, err, "RECV_BITMAP without a block's name");
        return 0;
    default:
        return 0;
    }
}

int gw_stream_take_command(struct gw_input *in, struct gw_command_item *command,
                           struct gw_error *err)
{
    uint64_t offset = gw_input_tell(in);
    *command = (struct gw_command_item){.offset = offset - 1};
    const uint8_t *at = gw_input_take(in, 4, "head of a command", err);
    if (!at)
        return -EBADMSG;
    unsigned number = gw_be16_load(at);
    command->payload_bytes = gw_be16_load(at + 2);
    if (number == 0 || number >= COMMAND_COUNT)
        return gw_input_refuse(in, offset, err, "unknown command %u", number);
    command->command = (enum gw_stream_command)number;
    command->name = commands[number].name;
    if (!gw_stream_is_command(number, command->payload_bytes))
        return gw_input_refuse(in, offset + 2, err, "command %s of %u bytes", command->name,
                               (unsigned)command->payload_bytes);
    at = gw_input_take(in, command->payload_bytes, "payload of a command", err);
    return at ? read_payload(in, command, at, offset + 4, err) : -EBADMSG;
}

/* ---- the return path ------------------------------------------------------------------------- */

static const struct {
    const char *name;
    uint16_t bytes_min, bytes_max;
} messages[] = {
    [GW_RETURN_SHUT] = {"SHUT", 4, 4},
    [GW_RETURN_PONG] = {"PONG", 4, 4},
    [GW_RETURN_REQ_PAGES_ID] = {"REQ_PAGES_ID", 14, 268},
    [GW_RETURN_REQ_PAGES] = {"REQ_PAGES", 12, 12},
    [GW_RETURN_RECV_BITMAP] = {"RECV_BITMAP", 2, 256},
    [GW_RETURN_RESUME_ACK] = {"RESUME_ACK", 4, 4},
    [GW_RETURN_SWITCHOVER_ACK] = {"SWITCHOVER_ACK", 0, 0},
};
#define MESSAGE_COUNT (sizeof(messages) / sizeof(messages[0]))

const char *gw_return_name(enum gw_return_type type)
{
    gw_assert(type > 0 && type < MESSAGE_COUNT);
    return messages[type].name;
}

static bool is_message(unsigned type, unsigned bytes)
{
    return type > 0 && type < MESSAGE_COUNT && bytes >= messages[type].bytes_min &&
           bytes <= messages[type].bytes_max;
}

bool gw_return_is_first(const uint8_t *at, size_t left)
{
    return left >= 4 && is_message(gw_be16_load(at), gw_be16_load(at + 2));
}

/* The bitmap stands behind the message, outside of its length. */
static int take_bitmap(struct gw_input *in, struct gw_return_item *item, struct gw_error *err)
{
    const uint8_t *at = gw_input_take(in, 8, "size of a bitmap", err);
    if (!at)
        return -EBADMSG;
    item->start = gw_be64_load(at);
    if (gw_input_drop(in, item->start) < item->start)
        return gw_input_short(in, "bitmap", err);
    uint64_t offset = gw_input_tell(in);
    at = gw_input_take(in, 8, "end mark of a bitmap", err);
    if (!at)
        return -EBADMSG;
    if (gw_be64_load(at) != GW_BITMAP_END_MARK)
        return gw_input_refuse(in, offset, err, "no end mark behind the bitmap");
    return 0;
}

static int read_message(struct gw_input *in, struct gw_return_item *item, const uint8_t *at,
                        unsigned bytes, struct gw_error *err)
{
    uint64_t offset = item->offset + 4;
    switch (item->type) {
    case GW_RETURN_SHUT:
    case GW_RETURN_PONG:
        item->value = gw_be32_load(at);
        return 0;
    case GW_RETURN_RESUME_ACK: /* a number that only ever says yes */
        item->value = gw_be32_load(at);
        return item->value == 1
                   ? 0
                   : gw_input_refuse(in, offset, err, "RESUME_ACK says %" PRIu32, item->value);
    case GW_RETURN_REQ_PAGES:
        if (!item->is_named)
            return gw_input_refuse(in, item->offset, err,
                                   "REQ_PAGES before a REQ_PAGES_ID has named a block");
        /* fall through */
    case GW_RETURN_REQ_PAGES_ID:
        item->start = gw_be64_load(at);
        item->value = gw_be32_load(at + 8);
        if (item->type == GW_RETURN_REQ_PAGES_ID &&
            copy_block(at + 12, bytes - 12, item->block) != bytes - 12)
            return gw_input_refuse(in, offset + 12, err, "REQ_PAGES_ID without a block's name");
        item->is_named = true;
        return 0;
    case GW_RETURN_RECV_BITMAP:
        if (copy_block(at, bytes, item->block) != bytes)
            return gw_input_refuse(in, offset, err, "RECV_BITMAP without a block's name");
        return take_bitmap(in, item, err);
    default:
        return 0;
    }
}

int gw_return_take(struct gw_input *in, struct gw_return_item *item, struct gw_error *err)
{
    uint64_t offset = gw_input_tell(in);
    *item = (struct gw_return_item){.offset = offset, .is_named = item->is_named};
    const uint8_t *at = gw_input_take(in, 4, "head of a message", err);
    if (!at)
        return -EBADMSG;
    unsigned bytes = gw_be16_load(at + 2);
    unsigned type = gw_be16_load(at);
    if (type == 0 || type >= MESSAGE_COUNT)
        return gw_input_refuse(in, offset, err, "unknown message %u on the return path", type);
    item->type = (enum gw_return_type)type;
    item->name = messages[type].name;
    if (!is_message(type, bytes))
        return gw_input_refuse(in, offset + 2, err, "message %s of %u bytes", item->name, bytes);
    at = gw_input_take(in, bytes, "message", err);
    return at ? read_message(in, item, at, bytes, err) : -EBADMSG;
}
