/* SPDX-License-Identifier: MIT */
/* tests/support/vmstate_random.h - descriptions and objects made up from a seed: every kind of field
 * that can be made at run time, nested, with subsections. Two objects of one description differ in
 * their values alone; random_is_equal() compares what a stream carries, without the engine. */
#ifndef GW_TEST_VMSTATE_RANDOM_H
#define GW_TEST_VMSTATE_RANDOM_H

#include "tests/support/vmstate_sink.h"

#include <stdio.h>
#include <stdlib.h>

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

/* ---- hooks ------------------------------------------------------------------------------------- */

static inline bool random_test(const void *opaque, uint32_t version_id)
{
    (void)version_id;
    return ((const struct random_head *)opaque)->gate & 1;
}

static inline bool random_claim(const void *opaque, uint32_t version_id)
{
    (void)version_id;
    return ((const struct random_head *)opaque)->gate != 0xee;
}

static inline bool random_needed(const void *opaque)
{
    return ((const struct random_head *)opaque)->gate & 2;
}

struct random_halves {
    struct random_head *parent;
    uint16_t high, low;
    uint32_t before; /* what the parent had, for a load that fails */
};

static inline int random_split(void *opaque, struct gw_error *err)
{
    struct random_halves *halves = opaque;
    (void)err;
    halves->high = (uint16_t)(halves->parent->split >> 16);
    halves->low = (uint16_t)halves->parent->split;
    return 0;
}

static inline int random_note(void *opaque, struct gw_error *err)
{
    struct random_halves *halves = opaque;
    (void)err;
    halves->before = halves->parent->split;
    return 0;
}

static inline void random_restore(void *opaque)
{
    struct random_halves *halves = opaque;
    halves->parent->split = halves->before;
}

static inline int random_join(void *opaque, uint32_t version_id, struct gw_error *err)
{
    struct random_halves *halves = opaque;
    (void)version_id;
    (void)err;
    halves->parent->split = (uint32_t)halves->high << 16 | halves->low;
    return 0;
}

static const struct gw_vmstate random_halves_vmsd = {
    GW_VMSTATE_OF(struct random_halves),
    .name = "halves",
    .pre_save = random_split,
    .pre_load = random_note,
    .post_load = random_join,
    .load_failed = random_restore,
    GW_VMSTATE_FIELDS(GW_VMSTATE_UINT16(high, struct random_halves),
                      GW_VMSTATE_UINT16(low, struct random_halves)),
};

/* ---- descriptions ------------------------------------------------------------------------------ */

static inline struct random_desc *random_desc_new(struct random_world *world, unsigned depth);

static inline size_t random_place(struct random_desc *d, size_t bytes)
{
    size_t at = (d->object->vmsd.type_bytes + 7) / 8 * 8;
    d->object->vmsd.type_bytes = at + bytes;
    return at;
}

/* The object has its size, and its subsections are told: in arrays every one is aligned. */
static inline void random_seal(struct random_world *world, struct random_desc *object)
{
    object->vmsd.type_bytes = (object->vmsd.type_bytes + 7) / 8 * 8;
    for (struct random_desc *d = world->all; d; d = d->next) {
        if (d->object == object)
            d->vmsd.type_bytes = object->vmsd.type_bytes;
    }
}

static inline struct gw_vmfield *random_field_new(struct random_desc *d, enum gw_vmkind kind)
{
    struct gw_vmfield *f = &d->fields[d->field_count];
    char *name = d->names[d->field_count];
    /* Now and then the name of another. */
    snprintf(name, sizeof(d->names[0]), "f%u", d->field_count % 7 == 6 ? 1 : d->field_count);
    d->field_count++;
    f->name = name;
    f->owner = d->object->type;
    f->kind = kind;
    f->count = 1;
    return f;
}

static inline size_t random_kind_bytes(enum gw_vmkind kind)
{
    switch (kind) {
    case GW_VM_INT8:
    case GW_VM_UINT8:
    case GW_VM_UINT8_EQUAL:
        return 1;
    case GW_VM_BOOL:
        return sizeof(bool);
    case GW_VM_INT16:
    case GW_VM_UINT16:
    case GW_VM_UINT16_EQUAL:
        return 2;
    case GW_VM_INT32:
    case GW_VM_UINT32:
    case GW_VM_UINT32_EQUAL:
    case GW_VM_INT32_EQUAL:
    case GW_VM_INT32_LE:
        return 4;
    case GW_VM_CSTR8:
        return 9;
    default:
        return 8;
    }
}

/* A member that counts, a field of its own; the field that is counted goes by it. */
static inline unsigned random_count_new(struct random_world *world, struct random_desc *d)
{
    static const enum gw_vmkind kinds[] = {GW_VM_INT32, GW_VM_UINT32, GW_VM_UINT16, GW_VM_UINT8};
    struct gw_vmfield *f = random_field_new(d, kinds[random_below(&world->state, 4)]);
    f->bytes = random_kind_bytes(f->kind);
    f->offset = random_place(d, f->bytes);
    return d->field_count - 1;
}

static inline void random_counted(struct gw_vmfield *f, const struct gw_vmfield *count, size_t max)
{
    f->count = 0;
    f->count_kind = count->kind;
    f->count_offset = count->offset;
    f->count_name = count->name;
    f->count_max = max;
}

/* Memory for a field of @units at most, in the object or behind a pointer. */
static inline void random_member(struct random_world *world, struct random_desc *d,
                                 struct gw_vmfield *f, size_t units)
{
    size_t bytes = f->kind == GW_VM_BITMAP ? (units + 63) / 64 * 8 : units * f->bytes;
    unsigned shape = random_below(&world->state, 3);
    bool compares = f->kind >= GW_VM_UINT8_EQUAL && f->kind <= GW_VM_INT32_LE;
    f->pointer = shape > 0;
    f->alloc = shape == 2 && !compares;
    f->offset = random_place(d, f->pointer ? sizeof(void *) : bytes);
}

static inline void random_gate(struct random_world *world, struct gw_vmfield *f)
{
    unsigned how = random_below(&world->state, 8);
    if (how == 0)
        f->test = random_test;
    else if (how == 1)
        f->version_id = random_below(&world->state, 4);
}

static inline void random_values(struct random_world *world, struct random_desc *d)
{
    enum gw_vmkind kind = (enum gw_vmkind)(1 + random_below(&world->state, GW_VM_CSTR8));
    unsigned shape = random_below(&world->state, 4);
    bool counted = shape == 3 || (shape == 2 && random_below(&world->state, 2));
    unsigned count = counted ? random_count_new(world, d) : 0;
    struct gw_vmfield *f = random_field_new(d, kind);
    f->bytes = random_kind_bytes(kind);
    random_gate(world, f);
    if (shape == 0) {
        f->offset = random_place(d, f->bytes);
    } else if (shape == 1) {
        f->count = 1 + random_below(&world->state, 4);
        random_member(world, d, f, f->count);
    } else if (shape == 2) {
        f->count = 3;
        if (counted)
            random_counted(f, &d->fields[count], 3);
        f->pointers = true;
        f->pointer = random_below(&world->state, 2);
        f->offset = random_place(d, (f->pointer ? 1 : 3) * sizeof(void *));
    } else {
        f->factor = random_below(&world->state, 3);
        random_counted(f, &d->fields[count], 6);
        random_member(world, d, f, 6);
    }
}

static inline void random_bytes_or_bits(struct random_world *world, struct random_desc *d)
{
    static const enum gw_vmkind kinds[] = {GW_VM_BUFFER, GW_VM_BITMAP, GW_VM_UNUSED};
    bool counted = random_below(&world->state, 2);
    unsigned count = counted ? random_count_new(world, d) : 0;
    struct gw_vmfield *f = random_field_new(d, kinds[random_below(&world->state, 3)]);
    size_t max = f->kind == GW_VM_BITMAP ? 200 : 20;
    random_gate(world, f);
    f->bytes = f->kind == GW_VM_BITMAP ? 8 : 1;
    f->count = 1 + random_below(&world->state, (unsigned)max);
    if (counted)
        random_counted(f, &d->fields[count], max);
    if (f->kind != GW_VM_UNUSED)
        random_member(world, d, f, max);
}

/* A structure, or several. */
static inline void random_structs(struct random_world *world, struct random_desc *d, unsigned depth)
{
    struct random_desc *inner = random_desc_new(world, depth + 1);
    unsigned shape = random_below(&world->state, 6);
    unsigned count = shape == 3 ? random_count_new(world, d) : 0;
    struct gw_vmfield *f = random_field_new(d, shape == 5 ? GW_VM_VSTRUCT : GW_VM_STRUCT);
    d->inner[d->field_count - 1] = inner;
    f->vmsd = &inner->vmsd;
    f->type = inner->type;
    f->bytes = inner->vmsd.type_bytes;
    f->struct_version_id = random_below(&world->state, inner->vmsd.version_id + 1);
    random_gate(world, f);
    if (shape == 1)
        f->count = 3;
    if (shape == 2) {
        f->count = 2;
        f->pointers = true;
        f->offset = random_place(d, 2 * sizeof(void *));
        return;
    }
    if (shape == 3)
        random_counted(f, &d->fields[count], 4);
    random_member(world, d, f, 4);
    /* A description that needs memory of its own cannot be made by a load. */
    if (f->alloc)
        f->alloc = false;
}

static inline void random_flatten(struct random_desc *inner)
{
    for (unsigned i = 0; i < inner->field_count; i++)
        inner->fields[i].version_id = 0; /* elements are loaded in the version of their list */
}

/* Values only: what a load allocates has nothing in it that the device would have made. */
static inline struct random_desc *random_element_new(struct random_world *world)
{
    struct random_desc *d = random_desc_new(world, RANDOM_DEPTH_MAX);
    random_flatten(d);
    return d;
}

static inline void random_chain(struct random_world *world, struct random_desc *d)
{
    bool is_tailq = random_below(&world->state, 2);
    struct random_desc *inner = random_element_new(world);
    struct gw_vmfield *f = random_field_new(d, is_tailq ? GW_VM_TAILQ : GW_VM_LIST);
    d->inner[d->field_count - 1] = inner;
    f->link_next = random_place(inner, 16);
    f->link_prev = f->link_next + 8;
    random_seal(world, inner);
    f->head_last = is_tailq ? 8 : 0;
    f->offset = random_place(d, 16);
    f->vmsd = &inner->vmsd;
    f->type = inner->type;
    f->bytes = inner->vmsd.type_bytes;
    f->count_max = 4;
}

static inline void random_allocated(struct random_world *world, struct random_desc *d)
{
    struct random_desc *inner = random_element_new(world);
    unsigned count = random_count_new(world, d);
    struct gw_vmfield *f = random_field_new(d, GW_VM_STRUCT);
    d->inner[d->field_count - 1] = inner;
    f->vmsd = &inner->vmsd;
    f->type = inner->type;
    f->bytes = inner->vmsd.type_bytes;
    f->pointer = f->alloc = true;
    f->offset = random_place(d, sizeof(void *));
    random_counted(f, &d->fields[count], 4);
}

static inline void random_other(struct random_world *world, struct random_desc *d)
{
    struct gw_vmfield *f;
    switch (random_below(&world->state, 5)) {
    case 0:
        f = random_field_new(d, GW_VM_TREE);
        f->tree = &sink_numbers_ops;
        f->vmsd = &sink_value_vmsd;
        f->type = sink_value_vmsd.type;
        f->bytes = sizeof(struct sink_value);
        f->count_max = SINK_NODES_MAX;
        f->offset = random_place(d, sizeof(void *));
        break;
    case 1:
        f = random_field_new(d, GW_VM_TIMER_OPS);
        f->timer = &sink_timer_ops;
        f->bytes = sizeof(struct sink_timer);
        f->offset = random_place(d, f->bytes);
        break;
    case 2:
        f = random_field_new(d, GW_VM_CUSTOM);
        f->codec = &sink_bcd;
        f->bytes = sizeof(uint32_t);
        f->offset = random_place(d, f->bytes);
        break;
    case 3:
        f = random_field_new(d, GW_VM_TMP);
        f->vmsd = &random_halves_vmsd;
        f->type = random_halves_vmsd.type;
        f->bytes = sizeof(struct random_halves);
        break;
    default:
        f = random_field_new(d, GW_VM_VALIDATE);
        f->test = random_claim;
        f->must_exist = true;
        f->count = 0;
        break;
    }
}

/* Room for two fields is left. At the bottom, what a load can make: no pointers of the device. */
static inline void random_field(struct random_world *world, struct random_desc *d, unsigned depth)
{
    unsigned what = random_below(&world->state, 10);
    unsigned from = d->field_count;
    if (what < 4 || (depth >= RANDOM_DEPTH_MAX && what >= 6))
        random_values(world, d);
    else if (what < 6)
        random_bytes_or_bits(world, d);
    else if (what == 6)
        random_structs(world, d, depth);
    else if (what == 7)
        random_chain(world, d);
    else if (what == 8)
        random_allocated(world, d);
    else
        random_other(world, d);
    if (depth < RANDOM_DEPTH_MAX)
        return;
    for (unsigned i = from; i < d->field_count; i++) {
        struct gw_vmfield *f = &d->fields[i];
        if (f->pointers || (f->kind >= GW_VM_UINT8_EQUAL && f->kind <= GW_VM_INT32_LE)) {
            f->pointers = f->pointer = f->alloc = false;
            f->kind = GW_VM_UINT8;
            f->bytes = 1;
            f->count_kind = GW_VM_END;
            f->factor = f->count_max = 0;
            f->count = 1;
        } else if (f->pointer) {
            f->alloc = true;
        }
    }
}

static inline struct random_desc *random_desc_alloc(struct random_world *world,
                                                    struct random_desc *object)
{
    struct random_desc *d = calloc(1, sizeof(*d));
    if (!d)
        abort();
    d->next = world->all;
    world->all = d;
    d->object = object ? object : d;
    d->vmsd.struct_bytes = sizeof(d->vmsd);
    d->vmsd.field_bytes = sizeof(d->fields[0]);
    d->vmsd.fields = d->fields;
    d->vmsd.name = d->name;
    d->vmsd.type = d->object->type;
    d->vmsd.version_id = random_below(&world->state, 4) + 3;
    d->vmsd.minimum_version_id = 0;
    return d;
}

static inline void random_sub(struct random_world *world, struct random_desc *d, unsigned depth)
{
    struct random_desc *sub = random_desc_alloc(world, d->object);
    snprintf(sub->name, sizeof(sub->name), "%.40s/s%u", d->name, d->sub_count);
    unsigned how = random_below(&world->state, 4);
    if (how == 0)
        sub->vmsd.needed = random_needed;
    if (how == 1) {
        sub->vmsd.property = "x-sub";
        sub->vmsd.property_offset = offsetof(struct random_head, property);
    }
    for (unsigned i = random_below(&world->state, 3); i > 0; i--)
        random_field(world, sub, depth);
    if (depth < RANDOM_DEPTH_MAX && random_below(&world->state, 4) == 0)
        random_sub(world, sub, depth + 1);
    sub->vmsd.subsections = sub->sub_vmsds;
    d->sub_vmsds[d->sub_count] = &sub->vmsd;
    d->subs[d->sub_count++] = sub;
}

static inline struct random_desc *random_desc_new(struct random_world *world, unsigned depth)
{
    struct random_desc *d = random_desc_alloc(world, NULL);
    /* No name begins with another's: a loader goes by the beginning. */
    snprintf(d->name, sizeof(d->name), "d%03u_", world->desc_count);
    snprintf(d->type, sizeof(d->type), "t%03u", world->desc_count++);
    d->vmsd.type_bytes = sizeof(struct random_head);
    struct gw_vmfield *gate = random_field_new(d, GW_VM_UINT8);
    gate->bytes = 1;
    gate->offset = offsetof(struct random_head, gate);
    struct gw_vmfield *property = random_field_new(d, GW_VM_BOOL);
    property->bytes = sizeof(bool);
    property->offset = offsetof(struct random_head, property);
    for (unsigned i = random_below(&world->state, depth == 0 ? 9 : 5); i > 0; i--)
        random_field(world, d, depth);
    for (unsigned i = random_below(&world->state, 4); i > 1; i--)
        random_sub(world, d, depth);
    d->vmsd.subsections = d->sub_vmsds;
    random_seal(world, d);
    return d;
}

static inline struct random_desc *random_world_init(struct random_world *world, uint64_t seed)
{
    *world = (struct random_world){.state = seed};
    return random_desc_new(world, 0);
}

static inline void random_world_fini(struct random_world *world)
{
    while (world->all) {
        struct random_desc *next = world->all->next;
        free(world->all);
        world->all = next;
    }
}

/* ---- objects ----------------------------------------------------------------------------------- */

static inline void *random_pointer(const void *at)
{
    void *pointer;
    memcpy(&pointer, at, sizeof(pointer));
    return pointer;
}

static inline void random_pointer_set(void *at, const void *pointer)
{
    memcpy(at, &pointer, sizeof(pointer));
}

static inline size_t random_units_max(const struct gw_vmfield *f)
{
    return f->count_kind == GW_VM_END ? f->count : f->count_max;
}

static inline size_t random_memory(const struct gw_vmfield *f, size_t units)
{
    return f->kind == GW_VM_BITMAP ? (units + 63) / 64 * 8 : units * f->bytes;
}

static inline void random_object_init(const struct random_desc *d, char *object);
static inline void random_object_fini(const struct random_desc *d, char *object);

/* Values that both ends have before anything is loaded. */
static inline void random_element_init(const struct gw_vmfield *f, const struct random_desc *inner,
                                       char *element)
{
    if (f->kind == GW_VM_INT32_LE)
        *(int32_t *)element = 100;
    else if (f->kind >= GW_VM_UINT8_EQUAL && f->kind <= GW_VM_INT32_EQUAL)
        memset(element, 0x5a, f->bytes);
    else if (f->kind == GW_VM_TIMER_OPS)
        ((struct sink_timer *)element)->when_ns = GW_VMSTATE_TIMER_OFF;
    else if (inner && (f->kind == GW_VM_STRUCT || f->kind == GW_VM_VSTRUCT))
        random_object_init(inner, element);
}

static inline void random_field_init(const struct gw_vmfield *f, const struct random_desc *inner,
                                     char *member)
{
    size_t units = random_units_max(f);
    if (f->kind == GW_VM_TAILQ)
        random_pointer_set(member + f->head_last, member);
    if (f->kind >= GW_VM_TMP && f->kind != GW_VM_TIMER_OPS)
        return;
    if (f->kind == GW_VM_UNUSED || f->alloc)
        return;
    if (f->pointers) {
        if (f->pointer) {
            void *pointers = gw_vmstate_alloc(units, sizeof(void *));
            random_pointer_set(member, pointers);
            member = pointers;
        }
        for (size_t i = 0; i < units; i += 2) { /* every other one is NULL */
            char *element = gw_vmstate_alloc(1, f->bytes);
            random_element_init(f, inner, element);
            random_pointer_set(member + i * sizeof(void *), element);
        }
        return;
    }
    if (f->pointer) {
        void *memory = gw_vmstate_alloc(1, random_memory(f, units));
        random_pointer_set(member, memory);
        member = memory;
    }
    if (f->kind == GW_VM_BUFFER || f->kind == GW_VM_BITMAP)
        return;
    for (size_t i = 0; i < units; i++)
        random_element_init(f, inner, member + i * f->bytes);
}

static inline void random_object_init(const struct random_desc *d, char *object)
{
    for (unsigned i = 0; i < d->field_count; i++)
        random_field_init(&d->fields[i], d->inner[i], object + d->fields[i].offset);
    for (unsigned i = 0; i < d->sub_count; i++)
        random_object_init(d->subs[i], object);
    ((struct random_head *)object)->property = true;
}

static inline char *random_object_new(const struct random_desc *d)
{
    char *object = gw_vmstate_alloc(1, d->vmsd.type_bytes);
    random_object_init(d, object);
    return object;
}

static inline void random_field_fini(const struct gw_vmfield *f, const struct random_desc *inner,
                                     char *member)
{
    size_t units = random_units_max(f);
    bool is_struct = inner && (f->kind == GW_VM_STRUCT || f->kind == GW_VM_VSTRUCT);
    if (f->kind >= GW_VM_TMP || f->kind == GW_VM_UNUSED || f->alloc)
        return;
    char *base = f->pointer ? random_pointer(member) : member;
    if (f->pointers) {
        for (size_t i = 0; i < units; i++) {
            char *element = random_pointer(base + i * sizeof(void *));
            if (element && is_struct) {
                random_object_fini(inner, element);
                gw_vmstate_clear(f->vmsd, element);
            }
            gw_vmstate_free(element);
        }
        if (f->pointer)
            gw_vmstate_free(base);
        return;
    }
    for (size_t i = 0; is_struct && i < units; i++) {
        random_object_fini(inner, base + i * f->bytes);
        gw_vmstate_clear(f->vmsd, base + i * f->bytes);
    }
    if (f->pointer)
        gw_vmstate_free(base);
}

static inline void random_object_fini(const struct random_desc *d, char *object)
{
    for (unsigned i = 0; i < d->field_count; i++)
        random_field_fini(&d->fields[i], d->inner[i], object + d->fields[i].offset);
    for (unsigned i = 0; i < d->sub_count; i++)
        random_object_fini(d->subs[i], object);
}

static inline void random_object_free(const struct random_desc *d, char *object)
{
    gw_vmstate_clear(&d->vmsd, object);
    random_object_fini(d, object);
    gw_vmstate_free(object);
}

/* ---- values ------------------------------------------------------------------------------------ */

static inline void random_object_fill(const struct random_desc *d, char *object, uint64_t *state);

static inline void random_element_fill(const struct gw_vmfield *f, const struct random_desc *inner,
                                       char *element, uint64_t *state)
{
    switch (f->kind) {
    case GW_VM_BOOL:
        *(bool *)element = random_below(state, 2);
        break;
    case GW_VM_INT32_LE:
        *(int32_t *)element = (int32_t)random_below(state, 101);
        break;
    case GW_VM_UINT8_EQUAL:
    case GW_VM_UINT16_EQUAL:
    case GW_VM_UINT32_EQUAL:
    case GW_VM_UINT64_EQUAL:
    case GW_VM_INT32_EQUAL:
        break;
    case GW_VM_CSTR8:
        memset(element, 0, f->bytes);
        memset(element, 'a' + (int)random_below(state, 26),
               random_below(state, (unsigned)f->bytes));
        break;
    case GW_VM_TIMER_OPS:
        ((struct sink_timer *)element)->when_ns = (int64_t)random_next(state);
        break;
    case GW_VM_CUSTOM:
        *(uint32_t *)element = random_below(state, 10000);
        break;
    case GW_VM_STRUCT:
    case GW_VM_VSTRUCT:
        random_object_fill(inner, element, state);
        break;
    default:
        for (size_t i = 0; i < f->bytes; i++)
            element[i] = (char)random_next(state);
        break;
    }
}

static inline void random_chain_fill(const struct gw_vmfield *f, const struct random_desc *inner,
                                     char *member, uint64_t *state)
{
    char *last = member;
    for (unsigned i = random_below(state, 4); i > 0; i--) {
        char *element = random_object_new(inner);
        random_object_fill(inner, element, state);
        random_pointer_set(element + f->link_prev, last);
        random_pointer_set(last, element);
        last = element + f->link_next;
    }
    if (f->kind == GW_VM_TAILQ)
        random_pointer_set(member + f->head_last, last);
}

static inline void random_count_set(char *object, const struct gw_vmfield *f, size_t count)
{
    char *at = object + f->count_offset;
    if (f->count_kind == GW_VM_UINT8)
        *(uint8_t *)at = (uint8_t)count;
    else if (f->count_kind == GW_VM_UINT16)
        *(uint16_t *)at = (uint16_t)count;
    else
        *(uint32_t *)at = (uint32_t)count;
}

static inline void random_field_fill(const struct gw_vmfield *f, const struct random_desc *inner,
                                     char *object, uint64_t *state)
{
    char *member = object + f->offset;
    size_t factor = f->factor ? f->factor : 1, units = f->count;
    if (f->kind == GW_VM_TAILQ || f->kind == GW_VM_LIST) {
        random_chain_fill(f, inner, member, state);
        return;
    }
    if (f->kind == GW_VM_TREE) {
        struct sink_tree *tree = sink_tree_create(false);
        for (unsigned i = random_below(state, 4); i > 0; i--)
            sink_tree_add(tree, i << 8 | random_below(state, 256), (uint8_t)random_next(state));
        random_pointer_set(member, tree);
        return;
    }
    if (f->count_kind != GW_VM_END) {
        units = random_below(state, (unsigned)(f->count_max / factor) + 1) * factor;
        random_count_set(object, f, units / factor);
    }
    if (f->kind == GW_VM_TMP || f->kind == GW_VM_VALIDATE || f->kind == GW_VM_UNUSED)
        return;
    if (f->alloc && units > 0) {
        size_t words = f->kind == GW_VM_BITMAP ? (units + 63) / 64 : units;
        random_pointer_set(member, gw_vmstate_alloc(words, f->bytes));
    }
    char *base = f->pointer ? random_pointer(member) : member;
    if (f->kind == GW_VM_BUFFER || f->kind == GW_VM_BITMAP) {
        for (size_t i = 0; i < random_memory(f, units); i++)
            base[i] = (char)random_next(state);
        return;
    }
    for (size_t i = 0; i < units; i++) {
        char *element =
            f->pointers ? random_pointer(base + i * sizeof(void *)) : base + i * f->bytes;
        if (element)
            random_element_fill(f, inner, element, state);
    }
}

/* Of an object that was made, or allocated, and not filled. */
static inline void random_object_fill(const struct random_desc *d, char *object, uint64_t *state)
{
    struct random_head *head = (struct random_head *)object;
    for (unsigned i = 0; i < d->field_count; i++)
        random_field_fill(&d->fields[i], d->inner[i], object, state);
    for (unsigned i = 0; i < d->sub_count; i++)
        random_object_fill(d->subs[i], object, state);
    if (d->object == d) {
        head->gate = (uint8_t)random_below(state, 4);
        head->property = random_below(state, 2);
        head->split = (uint32_t)random_next(state);
    }
}

/* ---- comparing --------------------------------------------------------------------------------- */

static inline bool random_is_equal(const struct random_desc *d, const char *a, const char *b,
                                   uint32_t version_id);

static inline bool random_element_is_equal(const struct gw_vmfield *f,
                                           const struct random_desc *inner, const char *a,
                                           const char *b)
{
    switch (f->kind) {
    case GW_VM_STRUCT:
        return random_is_equal(inner, a, b, inner->vmsd.version_id);
    case GW_VM_VSTRUCT:
        return random_is_equal(inner, a, b, f->struct_version_id);
    case GW_VM_TIMER_OPS:
        return ((const struct sink_timer *)a)->when_ns == ((const struct sink_timer *)b)->when_ns;
    default:
        return memcmp(a, b, f->bytes) == 0;
    }
}

static inline bool random_chain_is_equal(const struct gw_vmfield *f,
                                         const struct random_desc *inner, const char *a,
                                         const char *b)
{
    const char *x = random_pointer(a), *y = random_pointer(b), *last = b;
    for (; x && y; x = random_pointer(x + f->link_next), y = random_pointer(y + f->link_next)) {
        if (!random_is_equal(inner, x, y, inner->vmsd.version_id) ||
            random_pointer(y + f->link_prev) != last)
            return false;
        last = y + f->link_next;
    }
    return !x && !y && (f->kind == GW_VM_LIST || random_pointer(b + f->head_last) == last);
}

static inline bool random_tree_is_equal(const struct sink_tree *a, const struct sink_tree *b)
{
    if (!a || !b) /* none is an empty one */
        return (!a || a->count == 0) && (!b || b->count == 0);
    if (a->count != b->count)
        return false;
    for (size_t i = 0; i < a->count; i++) {
        const struct sink_value *x = a->nodes[i].value, *y = b->nodes[i].value;
        if (a->nodes[i].number != b->nodes[i].number || x->tag != y->tag || x->bytes != y->bytes ||
            (x->bytes > 0 && memcmp(x->data, y->data, x->bytes) != 0))
            return false;
    }
    return true;
}

static inline size_t random_count_get(const char *object, const struct gw_vmfield *f)
{
    const char *at = object + f->count_offset;
    if (f->count_kind == GW_VM_UINT8)
        return *(const uint8_t *)at;
    if (f->count_kind == GW_VM_UINT16)
        return *(const uint16_t *)at;
    return *(const uint32_t *)at;
}

static inline bool random_bits_are_equal(const char *a, const char *b, size_t bits)
{
    for (size_t i = 0; i < bits; i++) {
        uint64_t x, y;
        memcpy(&x, a + i / 64 * 8, 8);
        memcpy(&y, b + i / 64 * 8, 8);
        if ((x ^ y) >> i % 64 & 1)
            return false;
    }
    return true;
}

static inline bool random_field_is_equal(const struct gw_vmfield *f,
                                         const struct random_desc *inner, const char *a,
                                         const char *b)
{
    const char *x = a + f->offset, *y = b + f->offset;
    size_t units = f->count;
    switch (f->kind) {
    case GW_VM_TAILQ:
    case GW_VM_LIST:
        return random_chain_is_equal(f, inner, x, y);
    case GW_VM_TREE:
        return random_tree_is_equal(random_pointer(x), random_pointer(y));
    case GW_VM_TMP:
        return ((const struct random_head *)a)->split == ((const struct random_head *)b)->split;
    case GW_VM_UNUSED:
    case GW_VM_VALIDATE:
        return true;
    default:
        break;
    }
    if (f->count_kind != GW_VM_END)
        units = random_count_get(a, f) * (f->factor ? f->factor : 1);
    if (units == 0)
        return true;
    if (f->pointer) {
        x = random_pointer(x);
        y = random_pointer(y);
    }
    if (f->kind == GW_VM_BITMAP)
        return random_bits_are_equal(x, y, units);
    for (size_t i = 0; i < units; i++) {
        size_t at = i * (f->pointers ? sizeof(void *) : f->bytes);
        const char *p = f->pointers ? random_pointer(x + at) : x + at;
        const char *q = f->pointers ? random_pointer(y + at) : y + at;
        if (!p != !q || (p && !random_element_is_equal(f, inner, p, q)))
            return false;
    }
    return true;
}

/* Of @a, which was saved, and @b, which was loaded from that. */
static inline bool random_is_equal(const struct random_desc *d, const char *a, const char *b,
                                   uint32_t version_id)
{
    for (unsigned i = 0; i < d->field_count; i++) {
        const struct gw_vmfield *f = &d->fields[i];
        bool present = f->test ? f->test(a, version_id) : f->version_id <= version_id;
        if (present && !random_field_is_equal(f, d->inner[i], a, b))
            return false;
    }
    const struct random_head *head = (const struct random_head *)a;
    for (unsigned i = 0; i < d->sub_count; i++) {
        const struct random_desc *sub = d->subs[i];
        bool sent =
            (!sub->vmsd.needed || head->gate & 2) && (!sub->vmsd.property || head->property);
        if (sent && !random_is_equal(sub, a, b, sub->vmsd.version_id))
            return false;
    }
    return true;
}

#endif
