// SPDX-License-Identifier: MIT
/* xbzrle: a page as its difference to what the receiver has. Runs of unchanged and of changed bytes take
 * turns, each with its length in front: one byte, or two of seven bits each, the lower first. What is
 * unchanged at the end is not said. The decoder judges the whole code before it changes the page. */
#include "ram/inline.h"

#include <string.h>

/* Return: bytes of the length at @at, 0: malformed. */
static size_t read_length(const uint8_t *at, size_t left, size_t *length)
{
    if (left < 1)
        return 0;
    if (at[0] < 0x80) {
        *length = at[0];
        return 1;
    }
    if (left < 2 || at[1] >= 0x80)
        return 0;
    *length = (size_t)(at[0] & 0x7f) | (size_t)at[1] << 7;
    return 2;
}

static int walk(const uint8_t *code, size_t code_bytes, uint8_t *page, size_t page_bytes)
{
    size_t at = 0, position = 0, length = 0;
    if (code_bytes == 0)
        return -EPROTO;
    while (at < code_bytes) {
        size_t used = read_length(code + at, code_bytes - at, &length);
        if (used == 0 || (length == 0 && at > 0) || length > page_bytes - position)
            return -EPROTO;
        at += used;
        position += length;
        used = read_length(code + at, code_bytes - at, &length);
        if (used == 0 || length == 0 || length > page_bytes - position)
            return -EPROTO;
        at += used;
        if (length > code_bytes - at)
            return -EPROTO;
        if (page)
            memcpy(page + position, code + at, length);
        at += length;
        position += length;
    }
    return 0;
}

int gw_xbzrle_decode(const uint8_t *code, size_t code_bytes, uint8_t *page, size_t page_bytes)
{
    int rc = walk(code, code_bytes, NULL, page_bytes);
    return rc < 0 || !page ? rc : walk(code, code_bytes, page, page_bytes);
}

static size_t write_length(uint8_t *to, size_t length)
{
    if (length < 0x80) {
        to[0] = (uint8_t)length;
        return 1;
    }
    to[0] = (uint8_t)((length & 0x7f) | 0x80);
    to[1] = (uint8_t)(length >> 7);
    return 2;
}

int gw_xbzrle_encode(const uint8_t *before, const uint8_t *after, size_t page_bytes, uint8_t *code,
                     size_t room)
{
    size_t at = 0, used = 0;
    gw_assert(page_bytes <= GW_XBZRLE_PAGE_BYTES_MAX && room <= page_bytes);
    for (;;) {
        size_t same = at;
        while (same < page_bytes && before[same] == after[same])
            same++;
        if (same == page_bytes)
            return (int)used;
        size_t end = same;
        while (end < page_bytes && before[end] != after[end])
            end++;
        /* Before each length, room for the longest is asked, as a receiver's peers always did: the same
         * page gives the same bytes everywhere. */
        if (used + 2 > room)
            return -EOVERFLOW;
        used += write_length(code + used, same - at);
        if (used + 2 > room)
            return -EOVERFLOW;
        used += write_length(code + used, end - same);
        if (end - same > room - used)
            return -EOVERFLOW;
        memcpy(code + used, after + same, end - same);
        used += end - same;
        at = end;
    }
}
