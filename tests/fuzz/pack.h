/* SPDX-License-Identifier: MIT */
/* tests/fuzz/pack.h - inputs that are mostly zeros, short enough to be changed in a place that counts. A byte is
 * itself, but a 0 says in the byte behind it how many zeros there are: n + 1, or, from 128 on, 128 times
 * n - 127. */
#ifndef GW_TEST_FUZZ_PACK_H
#define GW_TEST_FUZZ_PACK_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Return: how many bytes it is; what has no room in @to is cut off. */
static inline size_t fuzz_unpack(const uint8_t *data, size_t bytes, uint8_t *to, size_t room)
{
    size_t used = 0;
    for (size_t i = 0; i < bytes && used < room; i++) {
        if (data[i] != 0 || i + 1 == bytes) {
            to[used++] = data[i];
            continue;
        }
        uint8_t n = data[++i];
        size_t zeros = n < 128 ? n + 1u : 128u * (n - 127u);
        zeros = zeros < room - used ? zeros : room - used;
        memset(to + used, 0, zeros);
        used += zeros;
    }
    return used;
}

/* The other way round; @to has room for twice as much. */
static inline size_t fuzz_pack(const uint8_t *data, size_t bytes, uint8_t *to)
{
    size_t used = 0;
    for (size_t i = 0; i < bytes;) {
        size_t zeros = 0;
        to[used++] = data[i];
        if (data[i++] != 0)
            continue;
        for (zeros = 1; i < bytes && data[i] == 0; i++)
            zeros++;
        size_t many = zeros / 128 < 128 ? zeros / 128 : 128;
        i -= zeros - (many > 0 ? 128 * many : zeros);
        to[used++] = (uint8_t)(many > 0 ? 127 + many : zeros - 1);
    }
    return used;
}

#endif
