// SPDX-License-Identifier: MIT
/* Lists: the entries of BLOCKS, BLOCKS_OK, WISHES, KEYS, RELEASE, RELEASED and ZERO, one after the
 * other until the body ends. One parser per kind of entry serves both the check of a whole list at
 * decoding, which may fail, and the cursors, which then cannot. */
#include "control/codec.h"

#include <godwit/block.h>
#include <inttypes.h>
#include <string.h>

#define RANGE_BYTES 20u
#define BLOCK_TAIL_BYTES 20u

/* ---- building -------------------------------------------------------------------------------- */

static uint8_t *list_room(struct gw_list_builder *list, size_t bytes)
{
    if (bytes > list->bytes - list->used)
        return NULL;
    uint8_t *at = list->buf + list->used;
    list->used += bytes;
    return at;
}

int gw_list_add_block(struct gw_list_builder *list, const struct gw_block_offer_msg *block)
{
    size_t name_bytes = strnlen(block->name, sizeof(block->name));
    if (name_bytes == 0 || name_bytes > GW_NAME_BYTES_MAX ||
        gw_text_find_odd(block->name, name_bytes))
        return -EINVAL;
    uint8_t *at = list_room(list, 1 + name_bytes + BLOCK_TAIL_BYTES);
    if (!at)
        return -ENOSPC;
    *at++ = (uint8_t)name_bytes;
    memcpy(at, block->name, name_bytes);
    at += name_bytes;
    gw_be64_store(at, block->bytes);
    gw_be32_store(at + 8, block->page_bytes);
    gw_be32_store(at + 12, block->kind);
    gw_be32_store(at + 16, block->flags);
    return 0;
}

int gw_list_add_fresh(struct gw_list_builder *list, bool fresh)
{
    uint8_t *at = list_room(list, 1);
    if (!at)
        return -ENOSPC;
    *at = fresh ? 1 : 0;
    return 0;
}

int gw_list_add_range(struct gw_list_builder *list, enum gw_message_type type,
                      const struct gw_range_msg *range)
{
    bool has_key = type == GW_MSG_KEYS;
    if (has_key && range->key_bytes > GW_KEY_BYTES_MAX)
        return -EINVAL;
    uint8_t *at = list_room(list, RANGE_BYTES + (has_key ? 1u + range->key_bytes : 0u));
    if (!at)
        return -ENOSPC;
    gw_be32_store(at, range->block);
    gw_be64_store(at + 4, range->first);
    gw_be64_store(at + 12, range->count);
    if (has_key) {
        at[RANGE_BYTES] = range->key_bytes;
        memcpy(at + RANGE_BYTES + 1, range->key, range->key_bytes);
    }
    return 0;
}

/* ---- reading --------------------------------------------------------------------------------- */

void gw_list_begin(struct gw_list_cursor *cursor, struct gw_span list)
{
    cursor->at = list.data;
    cursor->end = list.bytes ? list.data + list.bytes : list.data;
}

static size_t list_left(const struct gw_list_cursor *cursor)
{
    return (size_t)(cursor->end - cursor->at);
}

static int check_block(const struct gw_block_offer_msg *block, struct gw_error *err)
{
    if (block->page_bytes < GW_BLOCK_PAGE_BYTES_MIN ||
        (block->page_bytes & (block->page_bytes - 1)))
        return gw_fail(err, -EPROTO, "block '%s': pages of %" PRIu32 " bytes", block->name,
                       block->page_bytes);
    if (block->bytes == 0 || block->bytes % block->page_bytes != 0)
        return gw_fail(err, -EPROTO,
                       "block '%s': %" PRIu64 " bytes are not a number of pages of %" PRIu32,
                       block->name, block->bytes, block->page_bytes);
    if (block->kind > GW_BLOCK_HUGETLB)
        return gw_fail(err, -EPROTO, "block '%s': unknown kind %" PRIu32, block->name, block->kind);
    if (block->flags & ~GW_BLOCK_READ_ONLY)
        return gw_fail(err, -EPROTO, "block '%s': unknown flags 0x%" PRIx32, block->name,
                       block->flags);
    return 0;
}

static int take_block(struct gw_list_cursor *cursor, struct gw_block_offer_msg *block,
                      struct gw_error *err)
{
    const uint8_t *at = cursor->at;
    size_t name_bytes = *at++;
    if (list_left(cursor) < 1 + name_bytes + BLOCK_TAIL_BYTES)
        return gw_fail(err, -EPROTO, "ends inside the entry");
    if (name_bytes == 0)
        return gw_fail(err, -EPROTO, "a block without a name");
    const uint8_t *odd = gw_text_find_odd(at, name_bytes);
    if (odd)
        return gw_fail(err, -EPROTO, "byte 0x%02x in a block's name", (unsigned)*odd);
    memcpy(block->name, at, name_bytes);
    block->name[name_bytes] = '\0';
    at += name_bytes;
    block->bytes = gw_be64_load(at);
    block->page_bytes = gw_be32_load(at + 8);
    block->kind = gw_be32_load(at + 12);
    block->flags = gw_be32_load(at + 16);
    cursor->at = at + BLOCK_TAIL_BYTES;
    return check_block(block, err);
}

static int take_fresh(struct gw_list_cursor *cursor, bool *fresh, struct gw_error *err)
{
    uint8_t value = *cursor->at++;
    if (value > 1)
        return gw_fail(err, -EPROTO, "fresh is %u, not 0 or 1", (unsigned)value);
    *fresh = value == 1;
    return 0;
}

static int check_range(enum gw_message_type type, const struct gw_range_msg *range,
                       struct gw_error *err)
{
    uint64_t end_max = type == GW_MSG_ZERO ? GW_ZERO_PAGE_END_MAX : UINT64_MAX;
    if (range->count == 0)
        return gw_fail(err, -EPROTO, "an empty range");
    if (!gw_range_is_inside(range->first, range->count, end_max))
        return gw_fail(err, -EPROTO,
                       "range of %" PRIu64 " from %" PRIu64 " ends past all that can be addressed",
                       range->count, range->first);
    return 0;
}

static int take_range(struct gw_list_cursor *cursor, enum gw_message_type type,
                      struct gw_range_msg *range, struct gw_error *err)
{
    const uint8_t *at = cursor->at;
    size_t bytes = RANGE_BYTES + (type == GW_MSG_KEYS ? 1 : 0);
    if (list_left(cursor) < bytes)
        return gw_fail(err, -EPROTO, "ends inside the entry");
    range->block = gw_be32_load(at);
    range->first = gw_be64_load(at + 4);
    range->count = gw_be64_load(at + 12);
    range->key_bytes = 0;
    if (type == GW_MSG_KEYS) {
        uint8_t key_bytes = at[RANGE_BYTES];
        if (key_bytes > GW_KEY_BYTES_MAX)
            return gw_fail(err, -EPROTO, "key of %u bytes, at most %d", (unsigned)key_bytes,
                           GW_KEY_BYTES_MAX);
        if (list_left(cursor) < bytes + key_bytes)
            return gw_fail(err, -EPROTO, "ends inside the entry");
        memcpy(range->key, at + bytes, key_bytes);
        range->key_bytes = key_bytes;
        bytes += key_bytes;
    }
    cursor->at = at + bytes;
    return check_range(type, range, err);
}

bool gw_list_next_block(struct gw_list_cursor *cursor, struct gw_block_offer_msg *block)
{
    if (cursor->at == cursor->end)
        return false;
    int rc = take_block(cursor, block, NULL);
    gw_assert(rc == 0);
    return true;
}

bool gw_list_next_fresh(struct gw_list_cursor *cursor, bool *fresh)
{
    if (cursor->at == cursor->end)
        return false;
    int rc = take_fresh(cursor, fresh, NULL);
    gw_assert(rc == 0);
    return true;
}

bool gw_list_next_range(struct gw_list_cursor *cursor, enum gw_message_type type,
                        struct gw_range_msg *range)
{
    if (cursor->at == cursor->end)
        return false;
    int rc = take_range(cursor, type, range, NULL);
    gw_assert(rc == 0);
    return true;
}

int gw_list_check(enum gw_message_type type, struct gw_span list, struct gw_error *err)
{
    struct gw_list_cursor cursor;
    struct gw_block_offer_msg block;
    struct gw_range_msg range;
    bool fresh;
    gw_list_begin(&cursor, list);
    for (uint32_t i = 0; cursor.at != cursor.end; i++) {
        int rc;
        if (type == GW_MSG_BLOCKS)
            rc = take_block(&cursor, &block, err);
        else if (type == GW_MSG_BLOCKS_OK)
            rc = take_fresh(&cursor, &fresh, err);
        else
            rc = take_range(&cursor, type, &range, err);
        if (rc < 0) {
            gw_error_prefix(err, "entry %" PRIu32, i);
            return rc;
        }
    }
    return 0;
}
