/* SPDX-License-Identifier: MIT */
/* core/base/bytes.h - big-endian values at unaligned addresses: the order of every wire here. And
 * what is asked of ranges, names and numbers everywhere. */
#ifndef GW_BASE_BYTES_H
#define GW_BASE_BYTES_H

#include <endian.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

static inline void gw_be16_store(void *to, uint16_t value)
{
    value = htobe16(value);
    memcpy(to, &value, sizeof(value));
}

static inline void gw_be32_store(void *to, uint32_t value)
{
    value = htobe32(value);
    memcpy(to, &value, sizeof(value));
}

static inline void gw_be64_store(void *to, uint64_t value)
{
    value = htobe64(value);
    memcpy(to, &value, sizeof(value));
}

static inline uint16_t gw_be16_load(const void *from)
{
    uint16_t value;
    memcpy(&value, from, sizeof(value));
    return be16toh(value);
}

static inline uint32_t gw_be32_load(const void *from)
{
    uint32_t value;
    memcpy(&value, from, sizeof(value));
    return be32toh(value);
}

static inline uint64_t gw_be64_load(const void *from)
{
    uint64_t value;
    memcpy(&value, from, sizeof(value));
    return be64toh(value);
}

/* Is [offset, offset + bytes) inside [0, size)? Never wraps. An empty range must still start inside
 * or at the end. */
static inline bool gw_range_is_inside(uint64_t offset, uint64_t bytes, uint64_t size)
{
    return offset <= size && bytes <= size - offset;
}

/* The first byte of a name that is not printable ASCII, or NULL. Names are compared, so they are
 * refused rather than changed. */
static inline const uint8_t *gw_text_find_odd(const void *text, size_t bytes)
{
    const uint8_t *at = text;
    for (const uint8_t *end = at + bytes; at < end; at++) {
        if (*at < 0x20 || *at > 0x7e)
            return at;
    }
    return NULL;
}

static inline uint64_t gw_round_up(uint64_t value, uint64_t power_of_two)
{
    return (value + power_of_two - 1) & ~(power_of_two - 1);
}

static inline uint64_t gw_min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline uint64_t gw_max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

#endif
