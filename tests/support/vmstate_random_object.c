// SPDX-License-Identifier: MIT
/* Objects of a description that vmstate_random.c made up: what a device has before a load, values, what is
 * given back, and whether two of them carry the same. None of it asks the engine. */
#include "tests/support/vmstate_random.h"
#include "tests/support/vmstate_sink.h"

/* ---- objects ----------------------------------------------------------------------------------- */

static void *random_pointer(const void *at)
{
    void *pointer;
    memcpy(&pointer, at, sizeof(pointer));
    return pointer;
}

static void random_pointer_set(void *at, const void *pointer)
{
    memcpy(at, &pointer, sizeof(pointer));
}

static size_t random_units_max(const struct gw_vmfield *f)
{
    return f->count_kind == GW_VM_END ? f->count : f->count_max;
}

static size_t random_memory(const struct gw_vmfield *f, size_t units)
{
    return f->kind == GW_VM_BITMAP ? (units + 63) / 64 * 8 : units * f->bytes;
}

static void random_object_init(const struct random_desc *d, char *object);
static void random_object_fini(const struct random_desc *d, char *object);

/* Values that both ends have before anything is loaded. */
static void random_element_init(const struct gw_vmfield *f, const struct random_desc *inner,
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

static void random_field_init(const struct gw_vmfield *f, const struct random_desc *inner,
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

static void random_object_init(const struct random_desc *d, char *object)
{
    for (unsigned i = 0; i < d->field_count; i++)
        random_field_init(&d->fields[i], d->inner[i], object + d->fields[i].offset);
    for (unsigned i = 0; i < d->sub_count; i++)
        random_object_init(d->subs[i], object);
    ((struct random_head *)object)->property = true;
}

char *random_object_new(const struct random_desc *d)
{
    char *object = gw_vmstate_alloc(1, d->vmsd.type_bytes);
    random_object_init(d, object);
    return object;
}

static void random_field_fini(const struct gw_vmfield *f, const struct random_desc *inner,
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

static void random_object_fini(const struct random_desc *d, char *object)
{
    for (unsigned i = 0; i < d->field_count; i++)
        random_field_fini(&d->fields[i], d->inner[i], object + d->fields[i].offset);
    for (unsigned i = 0; i < d->sub_count; i++)
        random_object_fini(d->subs[i], object);
}

void random_object_free(const struct random_desc *d, char *object)
{
    gw_vmstate_clear(&d->vmsd, object);
    random_object_fini(d, object);
    gw_vmstate_free(object);
}

/* ---- values ------------------------------------------------------------------------------------ */

static void random_element_fill(const struct gw_vmfield *f, const struct random_desc *inner,
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

static void random_chain_fill(const struct gw_vmfield *f, const struct random_desc *inner,
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

static void random_count_set(char *object, const struct gw_vmfield *f, size_t count)
{
    char *at = object + f->count_offset;
    if (f->count_kind == GW_VM_UINT8)
        *(uint8_t *)at = (uint8_t)count;
    else if (f->count_kind == GW_VM_UINT16)
        *(uint16_t *)at = (uint16_t)count;
    else
        *(uint32_t *)at = (uint32_t)count;
}

static void random_field_fill(const struct gw_vmfield *f, const struct random_desc *inner,
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

void random_object_fill(const struct random_desc *d, char *object, uint64_t *state)
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

static bool random_element_is_equal(const struct gw_vmfield *f, const struct random_desc *inner,
                                    const char *a, const char *b)
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

static bool random_chain_is_equal(const struct gw_vmfield *f, const struct random_desc *inner,
                                  const char *a, const char *b)
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

static bool random_tree_is_equal(const struct sink_tree *a, const struct sink_tree *b)
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

static size_t random_count_get(const char *object, const struct gw_vmfield *f)
{
    const char *at = object + f->count_offset;
    if (f->count_kind == GW_VM_UINT8)
        return *(const uint8_t *)at;
    if (f->count_kind == GW_VM_UINT16)
        return *(const uint16_t *)at;
    return *(const uint32_t *)at;
}

static bool random_bits_are_equal(const char *a, const char *b, size_t bits)
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

static bool random_field_is_equal(const struct gw_vmfield *f, const struct random_desc *inner,
                                  const char *a, const char *b)
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

bool random_is_equal(const struct random_desc *d, const char *a, const char *b, uint32_t version_id)
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
