/* SPDX-License-Identifier: MIT */
/* tests/support/vmstate_sink.h - an object with a member of every kind, and a description of each: for
 * golden bytes, and for what a hostile stream may do to it. */
#ifndef GW_TEST_VMSTATE_SINK_H
#define GW_TEST_VMSTATE_SINK_H

#include <errno.h>
#include <godwit/vmstate.h>
#include <string.h>
#include <sys/queue.h>

/* ---- a small sorted map, for trees ------------------------------------------------------------- */

struct sink_key {
    uint32_t high;
    uint16_t low;
};

struct sink_value {
    uint8_t tag;
    uint16_t bytes;
    uint8_t *data; /* of a load: allocated */
};

static const struct gw_vmstate sink_key_vmsd = {
    GW_VMSTATE_OF(struct sink_key),
    .name = "key",
    GW_VMSTATE_FIELDS(GW_VMSTATE_UINT32(high, struct sink_key),
                      GW_VMSTATE_UINT16(low, struct sink_key)),
};
static const struct gw_vmstate sink_value_vmsd = {
    GW_VMSTATE_OF(struct sink_value),
    .name = "value",
    GW_VMSTATE_FIELDS(GW_VMSTATE_UINT8(tag, struct sink_value),
                      GW_VMSTATE_UINT16(bytes, struct sink_value),
                      GW_VMSTATE_VBUFFER_ALLOC(data, struct sink_value, bytes, 64)),
};

#define SINK_NODES_MAX 8

struct sink_tree {
    bool has_keys;
    size_t count;
    struct gw_vmtree_node nodes[SINK_NODES_MAX];
};

static void *sink_tree_create(bool has_keys)
{
    struct sink_tree *tree = gw_vmstate_alloc(1, sizeof(*tree));
    if (tree)
        tree->has_keys = has_keys;
    return tree;
}

static void *sink_tree_create_numbers(const void *opaque)
{
    (void)opaque;
    return sink_tree_create(false);
}

static void *sink_tree_create_keys(const void *opaque)
{
    (void)opaque;
    return sink_tree_create(true);
}

static void sink_tree_destroy(void *memory)
{
    struct sink_tree *tree = memory;
    for (size_t i = 0; i < tree->count; i++) {
        gw_vmstate_free(tree->nodes[i].key);
        gw_vmstate_clear(&sink_value_vmsd, tree->nodes[i].value);
        gw_vmstate_free(tree->nodes[i].value);
    }
    gw_vmstate_free(tree);
}

static size_t sink_tree_count(const void *tree)
{
    return ((const struct sink_tree *)tree)->count;
}

static int sink_tree_each(const void *memory, gw_vmtree_visit_fn *visit, void *ctx)
{
    const struct sink_tree *tree = memory;
    for (size_t i = 0; i < tree->count; i++) {
        int rc = visit(ctx, &tree->nodes[i]);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int sink_node_compare(const struct gw_vmtree_node *a, const struct gw_vmtree_node *b)
{
    const struct sink_key *x = a->key, *y = b->key;
    if (!x || !y)
        return a->number < b->number ? -1 : a->number > b->number;
    if (x->high != y->high)
        return x->high < y->high ? -1 : 1;
    return x->low < y->low ? -1 : x->low > y->low;
}

static int sink_tree_insert(void *memory, const struct gw_vmtree_node *node)
{
    struct sink_tree *tree = memory;
    size_t at = 0;
    while (at < tree->count && sink_node_compare(&tree->nodes[at], node) < 0)
        at++;
    if (at < tree->count && sink_node_compare(&tree->nodes[at], node) == 0)
        return -EEXIST;
    if (tree->count == SINK_NODES_MAX)
        return -ENOMEM;
    memmove(&tree->nodes[at + 1], &tree->nodes[at], (tree->count - at) * sizeof(tree->nodes[0]));
    tree->nodes[at] = *node;
    tree->count++;
    return 0;
}

static const struct gw_vmtree_ops sink_numbers_ops = {
    sink_tree_create_numbers, sink_tree_destroy, sink_tree_count, sink_tree_each, sink_tree_insert};
static const struct gw_vmtree_ops sink_keys_ops = {
    sink_tree_create_keys, sink_tree_destroy, sink_tree_count, sink_tree_each, sink_tree_insert};

/* ---- the object -------------------------------------------------------------------------------- */

struct sink_queue { /* has a subsection, sometimes */
    uint16_t size;
    bool has_packed;
    uint8_t packed;
};

struct sink_node { /* of the lists */
    uint8_t tag, count;
    uint16_t *words; /* of a load: allocated */
    TAILQ_ENTRY(sink_node) tailq;
    LIST_ENTRY(sink_node) list;
};

struct sink_timer {
    int64_t when_ns;
    unsigned sets;
};

struct sink {
    int8_t i8;
    int16_t i16;
    int32_t i32, i32_limit, i32_same;
    int64_t i64, deadline_ns;
    uint8_t u8, u8_same;
    uint16_t u16, u16_same;
    uint32_t u32, u32_same;
    uint64_t u64, u64_same;
    bool flag, is_modern, wants_extra, has_extra;
    double real;
    struct sink_timer timer;
    char text[12];

    uint16_t array[3];
    uint8_t grid[2][3];
    int32_t count_i32;
    uint32_t count_u32;
    uint16_t count_u16;
    uint8_t count_u8;
    uint32_t varray[4];
    uint16_t *words; /* for 8 */
    uint32_t *fresh; /* of a load: allocated */
    uint64_t *pair;  /* two */
    int32_t *one;
    uint8_t *single;            /* of a load: allocated */
    uint32_t *few[3], **few_at; /* the middle one is NULL */

    struct sink_queue queue, queues[3], *queue_at, *queue_fresh, *queues_fresh, *queue_few[3],
        **queue_few_at;
    struct sink_queue rows[2][2], *queues_at; /* for 4 */

    uint8_t raw[8];
    char *blob;       /* for 16 */
    uint8_t *payload; /* of a load: allocated */
    uint64_t bits[2], vbits[2], *bits_at /* for 128 */, *bits_fresh;

    TAILQ_HEAD(sink_tailq_head, sink_node) tailq;
    LIST_HEAD(, sink_node) list;
    struct sink_tree *numbers, *keys;
    uint32_t bcd; /* sixteen bits of decimal digits, on the wire */
    uint32_t split;
    uint32_t extra, extra_deep;
};

struct sink_halves {
    struct sink *parent;
    uint16_t high, low;
    uint32_t before; /* what the parent had, for a load that fails */
};

static bool sink_queue_is_packed(const void *opaque)
{
    return ((const struct sink_queue *)opaque)->has_packed;
}

static bool sink_is_modern(const void *opaque, uint32_t version_id)
{
    (void)version_id;
    return ((const struct sink *)opaque)->is_modern;
}

static bool sink_is_sane(const void *opaque, uint32_t version_id)
{
    (void)version_id;
    return ((const struct sink *)opaque)->u8 != 0xee;
}

static int sink_split(void *opaque, struct gw_error *err)
{
    struct sink_halves *halves = opaque;
    (void)err;
    halves->high = (uint16_t)(halves->parent->split >> 16);
    halves->low = (uint16_t)halves->parent->split;
    return 0;
}

static int sink_note(void *opaque, struct gw_error *err)
{
    struct sink_halves *halves = opaque;
    (void)err;
    halves->before = halves->parent->split;
    return 0;
}

static void sink_restore(void *opaque)
{
    struct sink_halves *halves = opaque;
    halves->parent->split = halves->before;
}

static int sink_join(void *opaque, uint32_t version_id, struct gw_error *err)
{
    struct sink_halves *halves = opaque;
    (void)version_id;
    (void)err;
    halves->parent->split = (uint32_t)halves->high << 16 | halves->low;
    return 0;
}

static int64_t sink_timer_expires(const void *member)
{
    return ((const struct sink_timer *)member)->when_ns;
}

static void sink_timer_set(void *member, int64_t expires_ns)
{
    struct sink_timer *timer = member;
    timer->when_ns = expires_ns;
    timer->sets++;
}

static const struct gw_vmtimer_ops sink_timer_ops = {sink_timer_expires, sink_timer_set};

static int sink_bcd_put(const void *member, size_t bytes, struct gw_writer *w, struct gw_error *err)
{
    uint32_t value = *(const uint32_t *)member, digits = 0;
    (void)bytes;
    (void)err;
    for (unsigned i = 0; i < 4; i++, value /= 10)
        digits |= value % 10 << 4 * i;
    gw_writer_be16(w, (uint16_t)digits);
    return 0;
}

static int sink_bcd_get(void *member, size_t bytes, struct gw_reader *r, uint32_t version_id,
                        struct gw_error *err)
{
    uint32_t digits = gw_reader_be16(r), value = 0;
    (void)bytes;
    (void)version_id;
    for (int i = 3; i >= 0; i--) {
        uint32_t digit = digits >> 4 * i & 15;
        if (digit > 9)
            return gw_error_set(err, -EINVAL, GW_CODE_DEVICE, "0x%x is no digit", digit);
        value = value * 10 + digit;
    }
    *(uint32_t *)member = value;
    return 0;
}

static const struct gw_vmcodec sink_bcd = {"bcd", sink_bcd_put, sink_bcd_get};

/* ---- descriptions ------------------------------------------------------------------------------ */

static const struct gw_vmstate sink_queue_packed_vmsd = {
    GW_VMSTATE_OF(struct sink_queue),
    .name = "queue/packed",
    .version_id = 1,
    .minimum_version_id = 1,
    .needed = sink_queue_is_packed,
    GW_VMSTATE_FIELDS(GW_VMSTATE_UINT8(packed, struct sink_queue)),
};
static const struct gw_vmstate sink_queue_vmsd = {
    GW_VMSTATE_OF(struct sink_queue),
    .name = "queue",
    .version_id = 2,
    .minimum_version_id = 1,
    GW_VMSTATE_FIELDS(GW_VMSTATE_UINT16(size, struct sink_queue),
                      GW_VMSTATE_BOOL_V(has_packed, struct sink_queue, 2)),
    GW_VMSTATE_SUBSECTIONS(&sink_queue_packed_vmsd),
};
static const struct gw_vmstate sink_node_vmsd = {
    GW_VMSTATE_OF(struct sink_node),
    .name = "node",
    .version_id = 1,
    GW_VMSTATE_FIELDS(GW_VMSTATE_UINT8(tag, struct sink_node),
                      GW_VMSTATE_UINT8(count, struct sink_node),
                      GW_VMSTATE_VARRAY_ALLOC(UINT16, words, struct sink_node, count, 16)),
};
static const struct gw_vmstate sink_halves_vmsd = {
    GW_VMSTATE_OF(struct sink_halves),
    .name = "halves",
    .pre_save = sink_split,
    .pre_load = sink_note,
    .post_load = sink_join,
    .load_failed = sink_restore,
    GW_VMSTATE_FIELDS(GW_VMSTATE_UINT16(high, struct sink_halves),
                      GW_VMSTATE_UINT16(low, struct sink_halves)),
};
static const struct gw_vmstate sink_deep_vmsd = {
    GW_VMSTATE_OF(struct sink),
    .name = "sink/extra/deep",
    .version_id = 1,
    GW_VMSTATE_FIELDS(GW_VMSTATE_UINT32(extra_deep, struct sink)),
};
static bool sink_wants_extra(const void *opaque)
{
    return ((const struct sink *)opaque)->wants_extra;
}
static const struct gw_vmstate sink_extra_vmsd = {
    GW_VMSTATE_OF(struct sink),
    .name = "sink/extra",
    .version_id = 1,
    .needed = sink_wants_extra,
    GW_VMSTATE_PROPERTY("x-extra", struct sink, has_extra),
    GW_VMSTATE_FIELDS(GW_VMSTATE_UINT32(extra, struct sink)),
    GW_VMSTATE_SUBSECTIONS(&sink_deep_vmsd),
};

/* One of each: X(name, field...). Every one is a description of its own, and all are one. */
#define SINK_EACH(X)                                                                               \
    X(int8, GW_VMSTATE_INT8(i8, struct sink))                                                      \
    X(int16, GW_VMSTATE_INT16(i16, struct sink))                                                   \
    X(int32, GW_VMSTATE_INT32(i32, struct sink))                                                   \
    X(int64, GW_VMSTATE_INT64(i64, struct sink))                                                   \
    X(uint8, GW_VMSTATE_UINT8(u8, struct sink))                                                    \
    X(uint16, GW_VMSTATE_UINT16(u16, struct sink))                                                 \
    X(uint32, GW_VMSTATE_UINT32(u32, struct sink))                                                 \
    X(uint64, GW_VMSTATE_UINT64(u64, struct sink))                                                 \
    X(bool, GW_VMSTATE_BOOL(flag, struct sink))                                                    \
    X(double, GW_VMSTATE_DOUBLE(real, struct sink))                                                \
    X(timer, GW_VMSTATE_TIMER(deadline_ns, struct sink))                                           \
    X(timer_ops, GW_VMSTATE_TIMER_OPS(timer, struct sink, struct sink_timer, sink_timer_ops))      \
    X(uint8_equal, GW_VMSTATE_UINT8_EQUAL(u8_same, struct sink))                                   \
    X(uint16_equal, GW_VMSTATE_UINT16_EQUAL(u16_same, struct sink))                                \
    X(uint32_equal, GW_VMSTATE_UINT32_EQUAL(u32_same, struct sink, .hint = "same machine?"))       \
    X(uint64_equal, GW_VMSTATE_UINT64_EQUAL(u64_same, struct sink))                                \
    X(int32_equal, GW_VMSTATE_INT32_EQUAL(i32_same, struct sink))                                  \
    X(int32_le, GW_VMSTATE_INT32_LE(i32_limit, struct sink))                                       \
    X(cstr8, GW_VMSTATE_CSTR8(text, struct sink))                                                  \
    X(array, GW_VMSTATE_ARRAY(UINT16, array, struct sink, 3))                                      \
    X(array_2d, GW_VMSTATE_2DARRAY(UINT8, grid, struct sink, 2, 3))                                \
    X(sub_array, GW_VMSTATE_SUB_ARRAY(UINT16, array, struct sink, 1, 2))                           \
    X(count_i32, GW_VMSTATE_INT32(count_i32, struct sink))                                         \
    X(count_u32, GW_VMSTATE_UINT32(count_u32, struct sink))                                        \
    X(count_u16, GW_VMSTATE_UINT16(count_u16, struct sink))                                        \
    X(count_u8, GW_VMSTATE_UINT8(count_u8, struct sink))                                           \
    X(varray_int32, GW_VMSTATE_VARRAY(UINT32, varray, struct sink, count_i32))                     \
    X(varray_multiply, GW_VMSTATE_VARRAY(UINT32, varray, struct sink, count_u8, .factor = 2))      \
    X(varray_pointer_uint16, GW_VMSTATE_VARRAY_POINTER(UINT16, words, struct sink, count_u16, 8))  \
    X(varray_alloc_uint32, GW_VMSTATE_VARRAY_ALLOC(UINT32, fresh, struct sink, count_u32, 100))    \
    X(array_pointer, GW_VMSTATE_ARRAY_POINTER(UINT64, pair, struct sink, 2))                       \
    X(array_alloc, GW_VMSTATE_ARRAY_ALLOC(UINT8, single, struct sink, 1))                          \
    X(pointer, GW_VMSTATE_POINTER(INT32, one, struct sink))                                        \
    X(array_of_pointers, GW_VMSTATE_ARRAY_OF_POINTERS(UINT32, few, struct sink, 3))                \
    X(struct, GW_VMSTATE_STRUCT(queue, struct sink, sink_queue_vmsd, struct sink_queue))           \
    X(vstruct, GW_VMSTATE_VSTRUCT(queue, struct sink, 1, sink_queue_vmsd, struct sink_queue))      \
    X(vstruct_array,                                                                               \
      GW_VMSTATE_VSTRUCT_ARRAY(queues, struct sink, 3, 1, sink_queue_vmsd, struct sink_queue))     \
    X(struct_array,                                                                                \
      GW_VMSTATE_STRUCT_ARRAY(queues, struct sink, 3, sink_queue_vmsd, struct sink_queue))         \
    X(struct_sub_array,                                                                            \
      GW_VMSTATE_STRUCT_SUB_ARRAY(queues, struct sink, 1, 2, sink_queue_vmsd, struct sink_queue))  \
    X(struct_2darray,                                                                              \
      GW_VMSTATE_STRUCT_2DARRAY(rows, struct sink, 2, 2, sink_queue_vmsd, struct sink_queue))      \
    X(struct_varray,                                                                               \
      GW_VMSTATE_STRUCT_VARRAY(queues, struct sink, count_u8, sink_queue_vmsd, struct sink_queue)) \
    X(struct_varray_pointer,                                                                       \
      GW_VMSTATE_STRUCT_VARRAY_POINTER(queues_at, struct sink, count_u16, 4, sink_queue_vmsd,      \
                                       struct sink_queue))                                         \
    X(struct_pointer,                                                                              \
      GW_VMSTATE_STRUCT_POINTER(queue_at, struct sink, sink_queue_vmsd, struct sink_queue))        \
    X(struct_alloc,                                                                                \
      GW_VMSTATE_STRUCT_ALLOC(queue_fresh, struct sink, sink_queue_vmsd, struct sink_queue))       \
    X(struct_varray_alloc, GW_VMSTATE_STRUCT_VARRAY_ALLOC(queues_fresh, struct sink, count_u16,    \
                                                          50, sink_queue_vmsd, struct sink_queue)) \
    X(struct_array_of_pointers,                                                                    \
      GW_VMSTATE_STRUCT_ARRAY_OF_POINTERS(queue_few, struct sink, 3, sink_queue_vmsd,              \
                                          struct sink_queue))                                      \
    X(varray_of_pointers, GW_VMSTATE_VARRAY_OF_POINTERS(UINT32, few, struct sink, count_u16))      \
    X(varray_of_pointers_at,                                                                       \
      GW_VMSTATE_VARRAY_OF_POINTERS_AT(UINT32, few_at, struct sink, count_i32, 3))                 \
    X(struct_varray_of_pointers,                                                                   \
      GW_VMSTATE_STRUCT_VARRAY_OF_POINTERS(queue_few, struct sink, count_u16, sink_queue_vmsd,     \
                                           struct sink_queue))                                     \
    X(struct_varray_of_pointers_at,                                                                \
      GW_VMSTATE_STRUCT_VARRAY_OF_POINTERS_AT(queue_few_at, struct sink, count_i32, 3,             \
                                              sink_queue_vmsd, struct sink_queue))                 \
    X(with_tmp, GW_VMSTATE_WITH_TMP(struct sink, struct sink_halves, sink_halves_vmsd))            \
    X(buffer, GW_VMSTATE_BUFFER(raw, struct sink))                                                 \
    X(partial_buffer, GW_VMSTATE_PARTIAL_BUFFER(raw, struct sink, 3))                              \
    X(buffer_start_middle, GW_VMSTATE_BUFFER_START_MIDDLE(raw, struct sink, 5))                    \
    X(vbuffer, GW_VMSTATE_VBUFFER(raw, struct sink, count_i32, .factor = 2))                       \
    X(vbuffer_pointer, GW_VMSTATE_VBUFFER_POINTER(blob, struct sink, count_u16, 16))               \
    X(vbuffer_alloc, GW_VMSTATE_VBUFFER_ALLOC(payload, struct sink, count_u32, 100))               \
    X(unused, GW_VMSTATE_UNUSED(struct sink, 3))                                                   \
    X(unused_varray, GW_VMSTATE_UNUSED_VARRAY(struct sink, count_u8, 2, 4))                        \
    X(bitmap, GW_VMSTATE_BITMAP(bits, struct sink, 70))                                            \
    X(vbitmap, GW_VMSTATE_VBITMAP(vbits, struct sink, count_u32))                                  \
    X(vbitmap_pointer, GW_VMSTATE_VBITMAP_POINTER(bits_at, struct sink, count_i32, 128))           \
    X(vbitmap_alloc, GW_VMSTATE_VBITMAP_ALLOC(bits_fresh, struct sink, count_u16, 1000))           \
    X(tailq, GW_VMSTATE_TAILQ(tailq, struct sink, 8, sink_node_vmsd, struct sink_node, tailq))     \
    X(list, GW_VMSTATE_LIST(list, struct sink, 8, sink_node_vmsd, struct sink_node, list))         \
    X(tree_numbers, GW_VMSTATE_TREE_NUMBERS(numbers, struct sink, 8, struct sink_tree,             \
                                            sink_numbers_ops, sink_value_vmsd, struct sink_value)) \
    X(tree, GW_VMSTATE_TREE(keys, struct sink, 8, struct sink_tree, sink_keys_ops, sink_key_vmsd,  \
                            struct sink_key, sink_value_vmsd, struct sink_value))                  \
    X(custom, GW_VMSTATE_CUSTOM(bcd, struct sink, uint32_t, sink_bcd))                             \
    X(validate, GW_VMSTATE_VALIDATE("u8 is sane", struct sink, sink_is_sane))                      \
    X(version, GW_VMSTATE_UINT16_V(u16, struct sink, 2))                                           \
    X(test, GW_VMSTATE_UINT16_TEST(u16, struct sink, sink_is_modern))

#define SINK_DESCRIPTION(kind, ...)                                                                \
    static const struct gw_vmstate sink_##kind##_vmsd = {GW_VMSTATE_OF(struct sink),               \
                                                         .name = "sink", .version_id = 2,          \
                                                         GW_VMSTATE_FIELDS(__VA_ARGS__)};
SINK_EACH(SINK_DESCRIPTION)

#define SINK_FIELD(kind, ...) __VA_ARGS__,
static const struct gw_vmstate sink_vmsd = {
    GW_VMSTATE_OF(struct sink),
    .name = "sink",
    .version_id = 2,
    GW_VMSTATE_FIELDS(SINK_EACH(SINK_FIELD) GW_VMSTATE_UNUSED(struct sink, 1)),
    GW_VMSTATE_SUBSECTIONS(&sink_extra_vmsd),
};
#undef SINK_FIELD

#define SINK_ROW(kind, ...) {#kind, #__VA_ARGS__, &sink_##kind##_vmsd},
static const struct sink_case {
    const char *name, *macro; /* the field, as it is spelt */
    const struct gw_vmstate *vmsd;
} sink_cases[] = {SINK_EACH(SINK_ROW){"subsections", "", &sink_vmsd}};
#define SINK_CASES (sizeof(sink_cases) / sizeof(sink_cases[0]))

/* ---- its memory -------------------------------------------------------------------------------- */

/* What the device makes whatever is loaded. */
static inline void sink_init(struct sink *s)
{
    memset(s, 0, sizeof(*s));
    TAILQ_INIT(&s->tailq);
    LIST_INIT(&s->list);
    s->i32_limit = 100;
    s->i32_same = -5;
    s->u8_same = 1;
    s->u16_same = 0x0203;
    s->u32_same = 0x04050607;
    s->u64_same = UINT64_C(0x08090a0b0c0d0e0f);
    s->deadline_ns = s->timer.when_ns = GW_VMSTATE_TIMER_OFF;
    s->words = gw_vmstate_alloc(8, sizeof(uint16_t));
    s->pair = gw_vmstate_alloc(2, sizeof(uint64_t));
    s->one = gw_vmstate_alloc(1, sizeof(int32_t));
    s->blob = gw_vmstate_alloc(16, 1);
    s->bits_at = gw_vmstate_alloc(2, sizeof(uint64_t));
    s->queue_at = gw_vmstate_alloc(1, sizeof(struct sink_queue));
    s->queues_at = gw_vmstate_alloc(4, sizeof(struct sink_queue));
    s->few_at = gw_vmstate_alloc(3, sizeof(s->few_at[0]));
    s->queue_few_at = gw_vmstate_alloc(3, sizeof(s->queue_few_at[0]));
    for (int i = 0; i < 3; i += 2) {
        s->few[i] = gw_vmstate_alloc(1, sizeof(uint32_t));
        s->queue_few[i] = gw_vmstate_alloc(1, sizeof(struct sink_queue));
        s->few_at[i] = s->few[i];
        s->queue_few_at[i] = s->queue_few[i];
    }
}

static inline void sink_fini(struct sink *s)
{
    gw_vmstate_clear(&sink_vmsd, s);
    gw_vmstate_free(s->words);
    gw_vmstate_free(s->pair);
    gw_vmstate_free(s->one);
    gw_vmstate_free(s->blob);
    gw_vmstate_free(s->bits_at);
    gw_vmstate_free(s->queue_at);
    gw_vmstate_free(s->queues_at);
    gw_vmstate_free(s->few_at);
    gw_vmstate_free(s->queue_few_at);
    for (int i = 0; i < 3; i++) {
        gw_vmstate_free(s->few[i]);
        gw_vmstate_free(s->queue_few[i]);
    }
}

static inline struct sink_node *sink_node_new(uint8_t tag, uint8_t count)
{
    struct sink_node *node = gw_vmstate_alloc(1, sizeof(*node));
    node->tag = tag;
    node->count = count;
    if (count > 0)
        node->words = gw_vmstate_alloc(count, sizeof(uint16_t));
    for (uint8_t i = 0; i < count; i++)
        node->words[i] = (uint16_t)(tag << 8 | i);
    return node;
}

static inline void sink_tree_add(struct sink_tree *tree, uint64_t number, uint8_t tag)
{
    struct gw_vmtree_node node = {.number = number};
    struct sink_value *value = gw_vmstate_alloc(1, sizeof(*value));
    if (tree->has_keys) {
        struct sink_key *key = gw_vmstate_alloc(1, sizeof(*key));
        key->high = (uint32_t)(number >> 16);
        key->low = (uint16_t)number;
        node.key = key;
    }
    value->tag = tag;
    value->bytes = 2;
    value->data = gw_vmstate_alloc(2, 1);
    memset(value->data, tag, 2);
    node.value = value;
    sink_tree_insert(tree, &node);
}

/* Values of every member. */
static inline void sink_fill(struct sink *s)
{
    s->i8 = -2;
    s->i16 = -3;
    s->i32 = -4;
    s->i32_limit = 42;
    s->i64 = -6;
    s->deadline_ns = 1000000007;
    s->timer.when_ns = 2000000011;
    s->u8 = 0x12;
    s->u16 = 0x1234;
    s->u32 = 0x12345678;
    s->u64 = UINT64_C(0x123456789abcdef0);
    s->flag = s->is_modern = s->wants_extra = s->has_extra = true;
    s->real = -1.5;
    memcpy(s->text, "a word", 7);
    for (unsigned i = 0; i < 3; i++) {
        s->array[i] = (uint16_t)(0xa000 + i);
        s->grid[0][i] = (uint8_t)(0xb0 + i);
        s->grid[1][i] = (uint8_t)(0xb8 + i);
        s->queues[i] = (struct sink_queue){.size = (uint16_t)(0x100 + i)};
    }
    s->count_i32 = 3;
    s->count_u32 = 2;
    s->count_u16 = 2;
    s->count_u8 = 1;
    for (unsigned i = 0; i < 4; i++) {
        s->varray[i] = 0xc0000000 + i;
        s->rows[i / 2][i % 2].size = (uint16_t)(0x200 + i);
        s->queues_at[i].size = (uint16_t)(0x300 + i);
    }
    for (unsigned i = 0; i < 8; i++) {
        s->words[i] = (uint16_t)(0xd000 + i);
        s->raw[i] = (uint8_t)(0xe0 + i);
    }
    s->pair[0] = 1;
    s->pair[1] = UINT64_MAX;
    *s->one = -7;
    *s->few[0] = 0x0f0e0d0c;
    *s->few[2] = 0x30; /* looks like a NULL's byte, and is none */
    s->queue = (struct sink_queue){.size = 0x55, .has_packed = true, .packed = 7};
    s->queues[1].has_packed = true;
    s->queues[1].packed = 9;
    *s->queue_at = (struct sink_queue){.size = 0x66};
    s->queue_few[0]->size = 0x77;
    s->queue_few[2]->size = 0x88;
    memcpy(s->blob, "blob of sixteen.", 16);
    s->bits[0] = s->vbits[0] = s->bits_at[0] = UINT64_C(0x8000000000000001);
    s->bits[1] = s->bits_at[1] = 0x21;
    s->bcd = 1975;
    s->split = 0x00010002;
    s->extra = 0xcafe;
    s->extra_deep = 0xbeef;

    s->fresh = gw_vmstate_alloc(2, sizeof(uint32_t));
    s->fresh[1] = 0xff;
    s->single = gw_vmstate_alloc(1, 1);
    *s->single = 0x99;
    s->queue_fresh = gw_vmstate_alloc(1, sizeof(struct sink_queue));
    s->queue_fresh->size = 0xaa;
    s->queues_fresh = gw_vmstate_alloc(2, sizeof(struct sink_queue));
    s->queues_fresh[0].size = 0xbb;
    s->payload = gw_vmstate_alloc(2, 1);
    s->payload[1] = 0xdd;
    s->bits_fresh = gw_vmstate_alloc(1, sizeof(uint64_t));
    s->bits_fresh[0] = 2;
    for (uint8_t i = 0; i < 2; i++) {
        struct sink_node *first = sink_node_new((uint8_t)(1 + i), (uint8_t)(2 * i));
        struct sink_node *second = sink_node_new((uint8_t)(4 - i), (uint8_t)(1 - i));
        TAILQ_INSERT_TAIL(&s->tailq, first, tailq);
        LIST_INSERT_HEAD(&s->list, second, list);
    }
    s->numbers = sink_tree_create(false);
    sink_tree_add(s->numbers, 0x1122334455667788, 0x21);
    sink_tree_add(s->numbers, 5, 0x22);
    s->keys = sink_tree_create(true);
    sink_tree_add(s->keys, 0x0a0b0c0d0e0f, 0x31);
}

#endif
