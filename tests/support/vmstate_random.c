// SPDX-License-Identifier: MIT
/* Descriptions made up from a seed: fields of each kind, gated or not, counted by others, nested to a depth,
 * with subsections. Objects of them are vmstate_random_object.c's. */
#include "tests/support/vmstate_random.h"
#include "tests/support/vmstate_sink.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- hooks ------------------------------------------------------------------------------------- */

static bool random_test(const void *opaque, uint32_t version_id)
{
    (void)version_id;
    return ((const struct random_head *)opaque)->gate & 1;
}

static bool random_claim(const void *opaque, uint32_t version_id)
{
    (void)version_id;
    return ((const struct random_head *)opaque)->gate != 0xee;
}

static bool random_needed(const void *opaque)
{
    return ((const struct random_head *)opaque)->gate & 2;
}

struct random_halves {
    struct random_head *parent;
    uint16_t high, low;
    uint32_t before; /* what the parent had, for a load that fails */
};

static int random_split(void *opaque, struct gw_error *err)
{
    struct random_halves *halves = opaque;
    (void)err;
    halves->high = (uint16_t)(halves->parent->split >> 16);
    halves->low = (uint16_t)halves->parent->split;
    return 0;
}

static int random_note(void *opaque, struct gw_error *err)
{
    struct random_halves *halves = opaque;
    (void)err;
    halves->before = halves->parent->split;
    return 0;
}

static void random_restore(void *opaque)
{
    struct random_halves *halves = opaque;
    halves->parent->split = halves->before;
}

static int random_join(void *opaque, uint32_t version_id, struct gw_error *err)
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

static struct random_desc *random_desc_new(struct random_world *world, unsigned depth);

static size_t random_place(struct random_desc *d, size_t bytes)
{
    size_t at = (d->object->vmsd.type_bytes + 7) / 8 * 8;
    d->object->vmsd.type_bytes = at + bytes;
    return at;
}

/* The object has its size, and its subsections are told: in arrays every one is aligned. */
static void random_seal(struct random_world *world, struct random_desc *object)
{
    object->vmsd.type_bytes = (object->vmsd.type_bytes + 7) / 8 * 8;
    for (struct random_desc *d = world->all; d; d = d->next) {
        if (d->object == object)
            d->vmsd.type_bytes = object->vmsd.type_bytes;
    }
}

static struct gw_vmfield *random_field_new(struct random_desc *d, enum gw_vmkind kind)
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

static size_t random_kind_bytes(enum gw_vmkind kind)
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
static unsigned random_count_new(struct random_world *world, struct random_desc *d)
{
    static const enum gw_vmkind kinds[] = {GW_VM_INT32, GW_VM_UINT32, GW_VM_UINT16, GW_VM_UINT8};
    struct gw_vmfield *f = random_field_new(d, kinds[random_below(&world->state, 4)]);
    f->bytes = random_kind_bytes(f->kind);
    f->offset = random_place(d, f->bytes);
    return d->field_count - 1;
}

static void random_counted(struct gw_vmfield *f, const struct gw_vmfield *count, size_t max)
{
    f->count = 0;
    f->count_kind = count->kind;
    f->count_offset = count->offset;
    f->count_name = count->name;
    f->count_max = max;
}

/* Memory for a field of @units at most, in the object or behind a pointer. */
static void random_member(struct random_world *world, struct random_desc *d, struct gw_vmfield *f,
                          size_t units)
{
    size_t bytes = f->kind == GW_VM_BITMAP ? (units + 63) / 64 * 8 : units * f->bytes;
    unsigned shape = random_below(&world->state, 3);
    bool compares = f->kind >= GW_VM_UINT8_EQUAL && f->kind <= GW_VM_INT32_LE;
    f->pointer = shape > 0;
    f->alloc = shape == 2 && !compares;
    f->offset = random_place(d, f->pointer ? sizeof(void *) : bytes);
}

static void random_gate(struct random_world *world, struct gw_vmfield *f)
{
    unsigned how = random_below(&world->state, 8);
    if (how == 0)
        f->test = random_test;
    else if (how == 1)
        f->version_id = random_below(&world->state, 4);
}

static void random_values(struct random_world *world, struct random_desc *d)
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

static void random_bytes_or_bits(struct random_world *world, struct random_desc *d)
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
static void random_structs(struct random_world *world, struct random_desc *d, unsigned depth)
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

static void random_flatten(struct random_desc *inner)
{
    for (unsigned i = 0; i < inner->field_count; i++)
        inner->fields[i].version_id = 0; /* elements are loaded in the version of their list */
}

/* Values only: what a load allocates has nothing in it that the device would have made. */
static struct random_desc *random_element_new(struct random_world *world)
{
    struct random_desc *d = random_desc_new(world, RANDOM_DEPTH_MAX);
    random_flatten(d);
    return d;
}

static void random_chain(struct random_world *world, struct random_desc *d)
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

static void random_allocated(struct random_world *world, struct random_desc *d)
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

static void random_other(struct random_world *world, struct random_desc *d)
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
static void random_field(struct random_world *world, struct random_desc *d, unsigned depth)
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

static struct random_desc *random_desc_alloc(struct random_world *world, struct random_desc *object)
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

static void random_sub(struct random_world *world, struct random_desc *d, unsigned depth)
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

static struct random_desc *random_desc_new(struct random_world *world, unsigned depth)
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

struct random_desc *random_world_init(struct random_world *world, uint64_t seed)
{
    *world = (struct random_world){.state = seed};
    return random_desc_new(world, 0);
}

void random_world_fini(struct random_world *world)
{
    while (world->all) {
        struct random_desc *next = world->all->next;
        free(world->all);
        world->all = next;
    }
}
