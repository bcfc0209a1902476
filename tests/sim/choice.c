// SPDX-License-Identifier: MIT
/* A splitmix64 generator in front of a tape. */
#include "tests/sim/choice.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t rng;
static struct tape kept;
static const struct tape *replayed;
static size_t used;

static uint64_t next_random(void)
{
    uint64_t z = (rng += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

void choice_seed(uint64_t seed)
{
    rng = seed * UINT64_C(0xd1342543de82ef95) + 1;
    kept.count = 0;
    replayed = NULL;
    used = 0;
}

void choice_replay(const struct tape *tape)
{
    kept.count = 0;
    replayed = tape;
    used = 0;
}

const struct tape *choice_tape(void)
{
    return &kept;
}

size_t choice_used(void)
{
    return used;
}

static uint32_t *mirror;
static size_t mirror_room, *mirror_count;

void choice_mirror(uint32_t *values, size_t room, size_t *count)
{
    mirror = values;
    mirror_room = room;
    mirror_count = count;
}

static void keep(uint32_t value)
{
    if (mirror && *mirror_count < mirror_room)
        mirror[(*mirror_count)++] = value;
    if (kept.count == kept.room) {
        kept.room = kept.room ? kept.room * 2 : 4096;
        kept.values = realloc(kept.values, kept.room * sizeof(kept.values[0]));
        if (!kept.values)
            abort();
    }
    kept.values[kept.count++] = value;
}

static uint32_t decide(uint32_t count, uint32_t fresh)
{
    uint32_t value = fresh;
    if (replayed)
        value = used < replayed->count ? replayed->values[used] : 0;
    if (value >= count)
        value = count - 1;
    used++;
    keep(value);
    return value;
}

uint32_t choose(uint32_t count)
{
    return count <= 1 ? 0 : decide(count, (uint32_t)(next_random() % count));
}

bool chance(uint32_t of_ten_thousand)
{
    return of_ten_thousand > 0 && decide(2, next_random() % 10000 < of_ten_thousand) == 1;
}

uint64_t choose_ns(uint64_t max_ns)
{
    /* 6 bits of exponent are uniform, so every magnitude is as likely as any other. */
    uint32_t bits = 0;
    while (bits < 62 && (UINT64_C(1) << bits) <= max_ns)
        bits++;
    uint32_t magnitude = decide(bits + 1, (uint32_t)(next_random() % (bits + 1)));
    if (magnitude == 0)
        return 0;
    uint64_t low = UINT64_C(1) << (magnitude - 1);
    uint64_t ns = low + (low >> 8) * decide(256, (uint32_t)(next_random() % 256));
    return ns < max_ns ? ns : max_ns;
}
