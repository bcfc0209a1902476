/* SPDX-License-Identifier: MIT */
/* core/base/bitmap.h - plain arrays of 64-bit words, bit 0 of word 0 first. Not atomic: one thread
 * at a time owns a word (stripes are multiples of 512 bits, so owners never share one). */
#ifndef GW_BASE_BITMAP_H
#define GW_BASE_BITMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline size_t gw_bitmap_words(uint64_t bits)
{
    return (size_t)((bits + 63) / 64);
}

static inline bool gw_bitmap_test(const uint64_t *map, uint64_t bit)
{
    return (map[bit / 64] >> (bit % 64)) & 1;
}

static inline void gw_bitmap_set(uint64_t *map, uint64_t bit)
{
    map[bit / 64] |= UINT64_C(1) << (bit % 64);
}

static inline void gw_bitmap_clear(uint64_t *map, uint64_t bit)
{
    map[bit / 64] &= ~(UINT64_C(1) << (bit % 64));
}

void gw_bitmap_set_range(uint64_t *map, uint64_t first, uint64_t count);
void gw_bitmap_clear_range(uint64_t *map, uint64_t first, uint64_t count);
uint64_t gw_bitmap_count(const uint64_t *map, uint64_t first, uint64_t count);
/* The first set (clear) bit in [first, end), or end. */
uint64_t gw_bitmap_next_set(const uint64_t *map, uint64_t first, uint64_t end);
uint64_t gw_bitmap_next_clear(const uint64_t *map, uint64_t first, uint64_t end);

#endif
