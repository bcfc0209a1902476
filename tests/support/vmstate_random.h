/* SPDX-License-Identifier: MIT */
/* tests/support/vmstate_random.h - descriptions and objects made up from a seed: every kind of field
 * that can be made at run time, nested, with subsections. Two objects of one description differ in
 * their values alone; random_is_equal() compares what a stream carries, without the engine. */
#ifndef GW_TEST_VMSTATE_RANDOM_H
#define GW_TEST_VMSTATE_RANDOM_H

#include <godwit/vmstate.h>
#include <stdbool.h>
#include <stdint.h>

#define RANDOM_FIELDS_MAX 24
#define RANDOM_SUBS_MAX 3
#define RANDOM_DEPTH_MAX 3

/* Every object begins with this. */
struct random_head {
    uint8_t gate;   /* a field: bit 0 is what tests look at, bit 1 what subsections do */
    bool property;  /* of subsections that have one */
    uint32_t split; /* of a WITH_TMP */
};

struct random_desc {
    struct gw_vmstate vmsd;
    struct gw_vmfield fields[RANDOM_FIELDS_MAX + 1];
    unsigned field_count;
    char name[64], type[16], names[RANDOM_FIELDS_MAX][16];
    struct random_desc *subs[RANDOM_SUBS_MAX];
    const struct gw_vmstate *sub_vmsds[RANDOM_SUBS_MAX + 1];
    unsigned sub_count;
    struct random_desc *inner[RANDOM_FIELDS_MAX]; /* of the field with that number */
    struct random_desc *object; /* whose type it is: itself, or a subsection's parent */
    struct random_desc *next;   /* all of one seed */
};

struct random_world {
    uint64_t state;
    struct random_desc *all;
    unsigned desc_count;
};

static inline uint64_t random_next(uint64_t *state) /* splitmix64 */
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static inline unsigned random_below(uint64_t *state, unsigned limit)
{
    return (unsigned)(random_next(state) % limit);
}

/* The description of an object made up from @seed; it and all it refers to are @world's. */
struct random_desc *random_world_init(struct random_world *world, uint64_t seed);
void random_world_fini(struct random_world *world);

/* An object as a device has it before anything is loaded. */
char *random_object_new(const struct random_desc *d);
void random_object_free(const struct random_desc *d, char *object);
/* Of an object that was made, or allocated, and not filled. */
void random_object_fill(const struct random_desc *d, char *object, uint64_t *state);
/* Of @a, which was saved, and @b, which was loaded from that. */
bool random_is_equal(const struct random_desc *d, const char *a, const char *b,
                     uint32_t version_id);

#endif
