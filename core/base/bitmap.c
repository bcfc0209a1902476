// SPDX-License-Identifier: MIT
/* Bitmaps: ranges a word at a time. Callers pass ranges that lie inside the map. */
#include "core/base/bitmap.h"

static uint64_t mask_of(uint64_t first, uint64_t count)
{
    uint64_t ones = count >= 64 ? ~UINT64_C(0) : (UINT64_C(1) << count) - 1;
    return ones << first;
}

/* Calls of the body with each word index and the mask of the range's bits in it. */
#define FOR_EACH_WORD(first, count, word, mask)                                                    \
    for (uint64_t bit_ = (first), end_ = (first) + (count), word = bit_ / 64,                      \
                  mask = mask_of(bit_ % 64,                                                        \
                                 end_ - bit_ < 64 - bit_ % 64 ? end_ - bit_ : 64 - bit_ % 64);     \
         bit_ < end_; bit_ = (word + 1) * 64, word = bit_ / 64,                                    \
                  mask = bit_ < end_ ? mask_of(0, end_ - bit_) : 0)

void gw_bitmap_set_range(uint64_t *map, uint64_t first, uint64_t count)
{
    FOR_EACH_WORD(first, count, word, mask)
    map[word] |= mask;
}

void gw_bitmap_clear_range(uint64_t *map, uint64_t first, uint64_t count)
{
    FOR_EACH_WORD(first, count, word, mask)
    map[word] &= ~mask;
}

uint64_t gw_bitmap_count(const uint64_t *map, uint64_t first, uint64_t count)
{
    uint64_t sum = 0;
    FOR_EACH_WORD(first, count, word, mask)
    sum += (uint64_t)__builtin_popcountll(map[word] & mask);
    return sum;
}

static uint64_t next_bit(const uint64_t *map, uint64_t first, uint64_t end, uint64_t flip)
{
    while (first < end) {
        uint64_t bits = (map[first / 64] ^ flip) >> (first % 64);
        if (bits) {
            first += (uint64_t)__builtin_ctzll(bits);
            return first < end ? first : end;
        }
        first = (first / 64 + 1) * 64;
    }
    return end;
}

uint64_t gw_bitmap_next_set(const uint64_t *map, uint64_t first, uint64_t end)
{
    return next_bit(map, first, end, 0);
}

uint64_t gw_bitmap_next_clear(const uint64_t *map, uint64_t first, uint64_t end)
{
    return next_bit(map, first, end, ~UINT64_C(0));
}
