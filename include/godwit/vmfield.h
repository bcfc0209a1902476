/* SPDX-License-Identifier: MIT */
/* godwit/vmfield.h - the fields of a description (vmstate.h): a macro for each kind.
 *
 * m is the member, T the type of the object. A macro compiles only for a member of its type: an
 * uint16_t is no UINT32, a pointer no array, an array of 8 none of 9. (Of what the description of a
 * structure is for, the compiler knows nothing: gw_vmstate_check() compares the names of the types.)
 *
 * Every macro that ends in `...` takes options, initialisers of struct gw_vmfield:
 *
 *     .version_id = 3           the field is there from version 3 of its description on
 *     .test = has_irq           it is there if has_irq(object, version) says so; version_id is not
 *                               looked at then
 *     .must_exist = true        a load or a save in which it is not there fails
 *     .factor = 4               of a field with a count member: that count times 4
 *     .hint = "same machine?"   what to do about it, for the error
 *
 *     GW_VMSTATE_ARRAY(UINT16, ports, struct hub, 8, .version_id = 2, .hint = "...")
 *
 * GW_VMSTATE_x_V(..., version) and GW_VMSTATE_x_TEST(..., test) say the first two for usual kinds.
 * A field must stand in the table after the members that its count or its test look at. */
#ifndef GODWIT_VMFIELD_H
#define GODWIT_VMFIELD_H

#include <godwit/vmstate.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Types of members, and of elements where one of the macros for many takes a KIND. The list grows before
 * GW_VM_COUNT_ only. */
enum gw_vmkind {               /* member          on the wire */
                 GW_VM_END,    /* -               ends a table */
                 GW_VM_INT8,   /* int8_t          1 byte, two's complement, as all signed ones */
                 GW_VM_INT16,  /* int16_t         be16 */
                 GW_VM_INT32,  /* int32_t         be32 */
                 GW_VM_INT64,  /* int64_t         be64 */
                 GW_VM_UINT8,  /* uint8_t         1 byte */
                 GW_VM_UINT16, /* uint16_t        be16 */
                 GW_VM_UINT32, /* uint32_t        be32 */
                 GW_VM_UINT64, /* uint64_t        be64 */
                 GW_VM_BOOL,   /* bool            0 or 1; what is not 0 loads as true */
                 GW_VM_DOUBLE, /* double          be64, the bits of IEEE 754 binary64 */
                 GW_VM_TIMER, /* int64_t         be64: when it expires, ns, absolute; -1: it does not */
                 GW_VM_UINT8_EQUAL, /* uint8_t         as UINT8; refused unless it is what the member holds */
                 GW_VM_UINT16_EQUAL, /* uint16_t        as UINT16 */
                 GW_VM_UINT32_EQUAL, /* uint32_t        as UINT32 */
                 GW_VM_UINT64_EQUAL, /* uint64_t        as UINT64 */
                 GW_VM_INT32_EQUAL,  /* int32_t         as INT32 */
                 GW_VM_INT32_LE, /* int32_t         as INT32; refused unless 0 <= it <= what the member holds */
                 GW_VM_CSTR8, /* char[n]         length, then so many bytes; at most 255, and n - 1 */
                 /* Not for KIND: these have macros of their own. */
                 GW_VM_BUFFER,
                 GW_VM_UNUSED,
                 GW_VM_BITMAP,
                 GW_VM_STRUCT,
                 GW_VM_VSTRUCT,
                 GW_VM_TMP,
                 GW_VM_TAILQ,
                 GW_VM_LIST,
                 GW_VM_TREE,
                 GW_VM_TREE_POINTER,
                 GW_VM_TIMER_OPS,
                 GW_VM_CUSTOM,
                 GW_VM_VALIDATE,
                 GW_VM_COUNT_
};

#define GW_VMSTATE_TIMER_OFF INT64_C(-1) /* a timer that is not armed */

/* A timer that only its owner can set. Both are given the member's address. */
struct gw_vmtimer_ops {
    int64_t (*expires_ns)(const void *member); /* or GW_VMSTATE_TIMER_OFF */
    void (*set)(void *member, int64_t expires_ns);
};

/* How a member of one's own kind is written and read. Before get, the engine keeps the member's
 * @bytes, to put them back if the load fails; what they point to is the codec's affair. */
struct gw_vmcodec {
    const char *name; /* the field's type in the stream's description: "pci config" */
    int (*put)(const void *member, size_t bytes, struct gw_writer *w, struct gw_error *err);
    int (*get)(void *member, size_t bytes, struct gw_reader *r, uint32_t version_id,
               struct gw_error *err);
};

/* A sorted map of somebody's. Key and value are from gw_vmstate_alloc(). */
struct gw_vmtree_node {
    uint64_t number; /* of GW_VMSTATE_TREE_NUMBERS */
    void *key;       /* of GW_VMSTATE_TREE */
    void *value;
};
typedef int gw_vmtree_visit_fn(void *ctx, const struct gw_vmtree_node *node);
struct gw_vmtree_ops {
    void *(*create)(const void *opaque); /* for this object; NULL: out of memory */
    /* With its keys and values, after a gw_vmstate_clear() of each if they hold memory themselves. */
    void (*destroy)(void *tree);
    size_t (*count)(const void *tree);
    /* In order. Stops when @visit returns a negative number, and returns that; else 0. */
    int (*each)(const void *tree, gw_vmtree_visit_fn *visit, void *ctx);
    /* 0: the tree owns key and value. -EEXIST for a key that is there, -ENOMEM: it does not. */
    int (*insert)(void *tree, const struct gw_vmtree_node *node);
};

/* Filled by the macros below, options included. Grows at its end only; the size of one is in its
 * description. */
struct gw_vmfield {
    const char *name;  /* as errors and the stream's description call it */
    const char *owner; /* type of the object */
    enum gw_vmkind kind;
    bool pointer;  /* the member points to the element or elements */
    bool alloc;    /* and loading allocates them */
    bool pointers; /* the elements are pointers */
    bool must_exist;
    uint32_t version_id;
    uint32_t struct_version_id; /* of a VSTRUCT */
    gw_vmstate_test_fn *test;
    size_t offset; /* of the member in the object */
    size_t bytes;  /* of an element in memory (BUFFER: 1; BITMAP: 8, its words) */
    size_t count;  /* of elements (BUFFER, UNUSED: bytes; BITMAP: bits), unless a member tells */
    enum gw_vmkind count_kind; /* of that member, or GW_VM_END */
    size_t count_offset;
    const char *count_name;
    size_t factor;    /* what that member is multiplied by; 0 is 1 */
    size_t count_max; /* the most that there may be then */
    const char *hint;

    const struct gw_vmstate *vmsd; /* of elements or values, and their type */
    const char *type;
    const struct gw_vmstate *key_vmsd;
    const char *key_type;
    size_t key_bytes;
    size_t parent_offset;                   /* of a TMP */
    size_t head_last, link_next, link_prev; /* of lists */
    const struct gw_vmtimer_ops *timer;
    const struct gw_vmtree_ops *tree;
    const struct gw_vmcodec *codec;
};

/* ---- checks by the compiler -------------------------------------------------------------------- */

#define GW_VMSTATE_OFFSET_(T, m, pointer_type) _Generic(&((T *)0)->m, pointer_type : offsetof(T, m))
#define GW_VMSTATE_BYTES_(T, m)                                                                    \
    _Generic(&((T *)0)->m, uint8_t(*)[sizeof(((T *)0)->m)]                                         \
             : offsetof(T, m), int8_t(*)[sizeof(((T *)0)->m)]                                      \
             : offsetof(T, m), char(*)[sizeof(((T *)0)->m)]                                        \
             : offsetof(T, m))
#define GW_VMSTATE_BYTES_POINTER_(T, m)                                                            \
    _Generic(&((T *)0)->m, uint8_t **: offsetof(T, m), int8_t **: offsetof(T, m), char **: offsetof(T, m))
#define GW_VMSTATE_COUNT_KIND_(T, c)                                                               \
    _Generic(&((T *)0)->c, int32_t *                                                               \
             : GW_VM_INT32, uint32_t *                                                             \
             : GW_VM_UINT32, uint16_t *                                                            \
             : GW_VM_UINT16, uint8_t *                                                             \
             : GW_VM_UINT8)
#define GW_VMSTATE_CAPACITY_(T, m) (sizeof(((T *)0)->m) / sizeof(((T *)0)->m[0]))
#define GW_VMSTATE_INLINE_(T, m, type) GW_VMSTATE_OFFSET_(T, m, type(*)[GW_VMSTATE_CAPACITY_(T, m)])
#define GW_VMSTATE_CLAIM_(claim) (sizeof(char[(claim) ? 1 : -1]) - 1) /* 0 */

#define GW_VMSTATE_TYPE_INT8 int8_t
#define GW_VMSTATE_TYPE_INT16 int16_t
#define GW_VMSTATE_TYPE_INT32 int32_t
#define GW_VMSTATE_TYPE_INT64 int64_t
#define GW_VMSTATE_TYPE_UINT8 uint8_t
#define GW_VMSTATE_TYPE_UINT16 uint16_t
#define GW_VMSTATE_TYPE_UINT32 uint32_t
#define GW_VMSTATE_TYPE_UINT64 uint64_t
#define GW_VMSTATE_TYPE_BOOL bool
#define GW_VMSTATE_TYPE_DOUBLE double
#define GW_VMSTATE_TYPE_TIMER int64_t
#define GW_VMSTATE_TYPE_UINT8_EQUAL uint8_t
#define GW_VMSTATE_TYPE_UINT16_EQUAL uint16_t
#define GW_VMSTATE_TYPE_UINT32_EQUAL uint32_t
#define GW_VMSTATE_TYPE_UINT64_EQUAL uint64_t
#define GW_VMSTATE_TYPE_INT32_EQUAL int32_t
#define GW_VMSTATE_TYPE_INT32_LE int32_t

/* What all fields have; what those of a kind, those of a structure, those with a count member have. */
#define GW_VMSTATE_HEAD_(text, T, what) .name = (text), .owner = #T, .kind = GW_VM_##what
#define GW_VMSTATE_KIND_(K, m, T) GW_VMSTATE_HEAD_(#m, T, K), .bytes = sizeof(GW_VMSTATE_TYPE_##K)
#define GW_VMSTATE_INNER_(m, T, description, inner)                                                \
    GW_VMSTATE_HEAD_(#m, T, STRUCT), .bytes = sizeof(inner), .vmsd = &(description), .type = #inner
#define GW_VMSTATE_COUNTED_(T, c, max)                                                             \
    .count_kind = GW_VMSTATE_COUNT_KIND_(T, c), .count_offset = offsetof(T, c), .count_name = #c,  \
    .count_max = (max)

/* ---- one value --------------------------------------------------------------------------------- */

/* GW_VMSTATE_VALUE(KIND, m, T, ...), and for each kind GW_VMSTATE_UINT32(m, T, ...) and so on. */
#define GW_VMSTATE_VALUE(...) GW_VMSTATE_VALUE_(__VA_ARGS__, )
#define GW_VMSTATE_VALUE_(K, m, T, ...)                                                            \
    {                                                                                              \
        GW_VMSTATE_KIND_(K, m, T),                                                                 \
            .count = 1, .offset = GW_VMSTATE_OFFSET_(T, m, GW_VMSTATE_TYPE_##K *), __VA_ARGS__     \
    }
#define GW_VMSTATE_INT8(...) GW_VMSTATE_VALUE(INT8, __VA_ARGS__)
#define GW_VMSTATE_INT8_V(m, T, version) GW_VMSTATE_VALUE(INT8, m, T, .version_id = (version))
#define GW_VMSTATE_INT8_TEST(m, T, fn) GW_VMSTATE_VALUE(INT8, m, T, .test = (fn))
#define GW_VMSTATE_INT16(...) GW_VMSTATE_VALUE(INT16, __VA_ARGS__)
#define GW_VMSTATE_INT16_V(m, T, version) GW_VMSTATE_VALUE(INT16, m, T, .version_id = (version))
#define GW_VMSTATE_INT16_TEST(m, T, fn) GW_VMSTATE_VALUE(INT16, m, T, .test = (fn))
#define GW_VMSTATE_INT32(...) GW_VMSTATE_VALUE(INT32, __VA_ARGS__)
#define GW_VMSTATE_INT32_V(m, T, version) GW_VMSTATE_VALUE(INT32, m, T, .version_id = (version))
#define GW_VMSTATE_INT32_TEST(m, T, fn) GW_VMSTATE_VALUE(INT32, m, T, .test = (fn))
#define GW_VMSTATE_INT64(...) GW_VMSTATE_VALUE(INT64, __VA_ARGS__)
#define GW_VMSTATE_INT64_V(m, T, version) GW_VMSTATE_VALUE(INT64, m, T, .version_id = (version))
#define GW_VMSTATE_INT64_TEST(m, T, fn) GW_VMSTATE_VALUE(INT64, m, T, .test = (fn))
#define GW_VMSTATE_UINT8(...) GW_VMSTATE_VALUE(UINT8, __VA_ARGS__)
#define GW_VMSTATE_UINT8_V(m, T, version) GW_VMSTATE_VALUE(UINT8, m, T, .version_id = (version))
#define GW_VMSTATE_UINT8_TEST(m, T, fn) GW_VMSTATE_VALUE(UINT8, m, T, .test = (fn))
#define GW_VMSTATE_UINT16(...) GW_VMSTATE_VALUE(UINT16, __VA_ARGS__)
#define GW_VMSTATE_UINT16_V(m, T, version) GW_VMSTATE_VALUE(UINT16, m, T, .version_id = (version))
#define GW_VMSTATE_UINT16_TEST(m, T, fn) GW_VMSTATE_VALUE(UINT16, m, T, .test = (fn))
#define GW_VMSTATE_UINT32(...) GW_VMSTATE_VALUE(UINT32, __VA_ARGS__)
#define GW_VMSTATE_UINT32_V(m, T, version) GW_VMSTATE_VALUE(UINT32, m, T, .version_id = (version))
#define GW_VMSTATE_UINT32_TEST(m, T, fn) GW_VMSTATE_VALUE(UINT32, m, T, .test = (fn))
#define GW_VMSTATE_UINT64(...) GW_VMSTATE_VALUE(UINT64, __VA_ARGS__)
#define GW_VMSTATE_UINT64_V(m, T, version) GW_VMSTATE_VALUE(UINT64, m, T, .version_id = (version))
#define GW_VMSTATE_UINT64_TEST(m, T, fn) GW_VMSTATE_VALUE(UINT64, m, T, .test = (fn))
#define GW_VMSTATE_BOOL(...) GW_VMSTATE_VALUE(BOOL, __VA_ARGS__)
#define GW_VMSTATE_BOOL_V(m, T, version) GW_VMSTATE_VALUE(BOOL, m, T, .version_id = (version))
#define GW_VMSTATE_BOOL_TEST(m, T, fn) GW_VMSTATE_VALUE(BOOL, m, T, .test = (fn))
#define GW_VMSTATE_DOUBLE(...) GW_VMSTATE_VALUE(DOUBLE, __VA_ARGS__)
#define GW_VMSTATE_DOUBLE_V(m, T, version) GW_VMSTATE_VALUE(DOUBLE, m, T, .version_id = (version))
#define GW_VMSTATE_DOUBLE_TEST(m, T, fn) GW_VMSTATE_VALUE(DOUBLE, m, T, .test = (fn))
#define GW_VMSTATE_TIMER(...) GW_VMSTATE_VALUE(TIMER, __VA_ARGS__)
#define GW_VMSTATE_TIMER_V(m, T, version) GW_VMSTATE_VALUE(TIMER, m, T, .version_id = (version))
#define GW_VMSTATE_TIMER_TEST(m, T, fn) GW_VMSTATE_VALUE(TIMER, m, T, .test = (fn))
#define GW_VMSTATE_UINT8_EQUAL(...) GW_VMSTATE_VALUE(UINT8_EQUAL, __VA_ARGS__)
#define GW_VMSTATE_UINT16_EQUAL(...) GW_VMSTATE_VALUE(UINT16_EQUAL, __VA_ARGS__)
#define GW_VMSTATE_UINT32_EQUAL(...) GW_VMSTATE_VALUE(UINT32_EQUAL, __VA_ARGS__)
#define GW_VMSTATE_UINT64_EQUAL(...) GW_VMSTATE_VALUE(UINT64_EQUAL, __VA_ARGS__)
#define GW_VMSTATE_INT32_EQUAL(...) GW_VMSTATE_VALUE(INT32_EQUAL, __VA_ARGS__)
#define GW_VMSTATE_INT32_LE(...) GW_VMSTATE_VALUE(INT32_LE, __VA_ARGS__)

/* GW_VMSTATE_CSTR8(m, T, ...): text, a char m[n], ending in NUL in memory. */
#define GW_VMSTATE_CSTR8(...) GW_VMSTATE_CSTR8_(__VA_ARGS__, )
#define GW_VMSTATE_CSTR8_(m, T, ...)                                                               \
    {                                                                                              \
        GW_VMSTATE_HEAD_(#m, T, CSTR8), .bytes = sizeof(((T *)0)->m), .count = 1,                  \
                                        .offset = GW_VMSTATE_INLINE_(T, m, char), __VA_ARGS__      \
    }

/* GW_VMSTATE_TIMER_OPS(m, T, type, ops, ...): a timer, a `type`, by &ops (a struct gw_vmtimer_ops). */
#define GW_VMSTATE_TIMER_OPS(...) GW_VMSTATE_TIMER_OPS_(__VA_ARGS__, )
#define GW_VMSTATE_TIMER_OPS_(m, T, member_type, ops, ...)                                         \
    {                                                                                              \
        GW_VMSTATE_HEAD_(#m, T, TIMER_OPS), .bytes = sizeof(member_type), .count = 1,              \
                                            .offset = GW_VMSTATE_OFFSET_(T, m, member_type *),     \
                                            .timer = &(ops), __VA_ARGS__                           \
    }

/* ---- many of a KIND ---------------------------------------------------------------------------- */

/* GW_VMSTATE_ARRAY(KIND, m, T, n, ...): m[n]. */
#define GW_VMSTATE_ARRAY(...) GW_VMSTATE_ARRAY_(__VA_ARGS__, )
#define GW_VMSTATE_ARRAY_(K, m, T, n, ...)                                                         \
    {                                                                                              \
        GW_VMSTATE_KIND_(K, m, T), .offset = GW_VMSTATE_OFFSET_(T, m, GW_VMSTATE_TYPE_##K(*)[n]),  \
                                   .count = (n), __VA_ARGS__                                       \
    }
#define GW_VMSTATE_ARRAY_V(K, m, T, n, version)                                                    \
    GW_VMSTATE_ARRAY(K, m, T, n, .version_id = (version))
#define GW_VMSTATE_ARRAY_TEST(K, m, T, n, fn) GW_VMSTATE_ARRAY(K, m, T, n, .test = (fn))

/* GW_VMSTATE_2DARRAY(KIND, m, T, n1, n2, ...): m[n1][n2], row after row. */
#define GW_VMSTATE_2DARRAY(...) GW_VMSTATE_2DARRAY_(__VA_ARGS__, )
#define GW_VMSTATE_2DARRAY_(K, m, T, n1, n2, ...)                                                  \
    {                                                                                              \
        GW_VMSTATE_KIND_(K, m, T),                                                                 \
            .offset = GW_VMSTATE_OFFSET_(T, m, GW_VMSTATE_TYPE_##K(*)[n1][n2]),                    \
            .count = (size_t)(n1) * (n2), __VA_ARGS__                                              \
    }

/* GW_VMSTATE_SUB_ARRAY(KIND, m, T, start, n, ...): m[start] to m[start + n - 1]. */
#define GW_VMSTATE_SUB_ARRAY(...) GW_VMSTATE_SUB_ARRAY_(__VA_ARGS__, )
#define GW_VMSTATE_SUB_ARRAY_(K, m, T, start, n, ...)                                              \
    {                                                                                              \
        GW_VMSTATE_KIND_(K, m, T),                                                                 \
            .count = (n),                                                                          \
            .offset = GW_VMSTATE_INLINE_(T, m, GW_VMSTATE_TYPE_##K) +                              \
                      (start) * sizeof(GW_VMSTATE_TYPE_##K) +                                      \
                      GW_VMSTATE_CLAIM_((start) + (n) <= GW_VMSTATE_CAPACITY_(T, m)),              \
            __VA_ARGS__                                                                            \
    }

/* How many is in a member c: int32_t, uint32_t, uint16_t or uint8_t, whatever it is. A negative count
 * is refused. c itself is on the wire only if it is a field of its own.
 * GW_VMSTATE_VARRAY(KIND, m, T, c, ...): the first c of an array, at most all of it. */
#define GW_VMSTATE_VARRAY(...) GW_VMSTATE_VARRAY_(__VA_ARGS__, )
#define GW_VMSTATE_VARRAY_(K, m, T, c, ...)                                                        \
    {                                                                                              \
        GW_VMSTATE_KIND_(K, m, T), GW_VMSTATE_COUNTED_(T, c, GW_VMSTATE_CAPACITY_(T, m)),          \
            .offset = GW_VMSTATE_INLINE_(T, m, GW_VMSTATE_TYPE_##K), __VA_ARGS__                   \
    }
/* GW_VMSTATE_VARRAY_POINTER(KIND, m, T, c, max, ...): c behind a pointer, to memory for `max` that the
 * device made. */
#define GW_VMSTATE_VARRAY_POINTER(...) GW_VMSTATE_VARRAY_POINTER_(__VA_ARGS__, )
#define GW_VMSTATE_VARRAY_POINTER_(K, m, T, c, max, ...)                                           \
    {                                                                                              \
        GW_VMSTATE_KIND_(K, m, T), GW_VMSTATE_COUNTED_(T, c, max),                                 \
            .pointer = true, .offset = GW_VMSTATE_OFFSET_(T, m, GW_VMSTATE_TYPE_##K **),           \
            __VA_ARGS__                                                                            \
    }
/* GW_VMSTATE_VARRAY_ALLOC(KIND, m, T, c, max, ...): the same, in memory for c that loading allocates;
 * with c = 0 the pointer stays what it is. */
#define GW_VMSTATE_VARRAY_ALLOC(...) GW_VMSTATE_VARRAY_ALLOC_(__VA_ARGS__, )
#define GW_VMSTATE_VARRAY_ALLOC_(K, m, T, c, max, ...)                                             \
    GW_VMSTATE_VARRAY_POINTER_(K, m, T, c, max, .alloc = true, __VA_ARGS__)

/* GW_VMSTATE_ARRAY_POINTER(KIND, m, T, n, ...): n behind a pointer, to memory that the device made.
 * GW_VMSTATE_ARRAY_ALLOC(KIND, m, T, n, ...): in memory that loading allocates.
 * GW_VMSTATE_POINTER(KIND, m, T, ...): one behind a pointer. */
#define GW_VMSTATE_ARRAY_POINTER(...) GW_VMSTATE_ARRAY_POINTER_(__VA_ARGS__, )
#define GW_VMSTATE_ARRAY_POINTER_(K, m, T, n, ...)                                                 \
    {                                                                                              \
        GW_VMSTATE_KIND_(K, m, T), .count = (n), .pointer = true,                                  \
                                   .offset = GW_VMSTATE_OFFSET_(T, m, GW_VMSTATE_TYPE_##K **),     \
                                   __VA_ARGS__                                                     \
    }
#define GW_VMSTATE_ARRAY_ALLOC(...) GW_VMSTATE_ARRAY_ALLOC_(__VA_ARGS__, )
#define GW_VMSTATE_ARRAY_ALLOC_(K, m, T, n, ...)                                                   \
    GW_VMSTATE_ARRAY_POINTER_(K, m, T, n, .alloc = true, __VA_ARGS__)
#define GW_VMSTATE_POINTER(...) GW_VMSTATE_POINTER_(__VA_ARGS__, )
#define GW_VMSTATE_POINTER_(K, m, T, ...) GW_VMSTATE_ARRAY_POINTER_(K, m, T, 1, __VA_ARGS__)

/* GW_VMSTATE_ARRAY_OF_POINTERS(KIND, m, T, n, ...): *m[n]. One that is NULL is written as the byte
 * 0x30, and must be NULL where it is loaded; one that is not must not be. */
#define GW_VMSTATE_ARRAY_OF_POINTERS(...) GW_VMSTATE_ARRAY_OF_POINTERS_(__VA_ARGS__, )
#define GW_VMSTATE_ARRAY_OF_POINTERS_(K, m, T, n, ...)                                             \
    {                                                                                              \
        GW_VMSTATE_KIND_(K, m, T),                                                                 \
            .count = (n), .pointers = true,                                                        \
            .offset = GW_VMSTATE_OFFSET_(T, m, GW_VMSTATE_TYPE_##K * (*)[n]), __VA_ARGS__          \
    }

/* GW_VMSTATE_VARRAY_OF_POINTERS(KIND, m, T, c, ...): the first c of *m[].
 * GW_VMSTATE_VARRAY_OF_POINTERS_AT(KIND, m, T, c, max, ...): of **m, `max` pointers that the device
 * made. */
#define GW_VMSTATE_VARRAY_OF_POINTERS(...) GW_VMSTATE_VARRAY_OF_POINTERS_(__VA_ARGS__, )
#define GW_VMSTATE_VARRAY_OF_POINTERS_(K, m, T, c, ...)                                            \
    {                                                                                              \
        GW_VMSTATE_KIND_(K, m, T), GW_VMSTATE_COUNTED_(T, c, GW_VMSTATE_CAPACITY_(T, m)),          \
            .offset = GW_VMSTATE_INLINE_(T, m, GW_VMSTATE_TYPE_##K *), .pointers = true,           \
            __VA_ARGS__                                                                            \
    }
#define GW_VMSTATE_VARRAY_OF_POINTERS_AT(...) GW_VMSTATE_VARRAY_OF_POINTERS_AT_(__VA_ARGS__, )
#define GW_VMSTATE_VARRAY_OF_POINTERS_AT_(K, m, T, c, max, ...)                                    \
    {                                                                                              \
        GW_VMSTATE_KIND_(K, m, T), GW_VMSTATE_COUNTED_(T, c, max),                                 \
            .offset = GW_VMSTATE_OFFSET_(T, m, GW_VMSTATE_TYPE_##K ***), .pointer = true,          \
            .pointers = true, __VA_ARGS__                                                          \
    }

/* ---- structures -------------------------------------------------------------------------------- */

/* The fields and subsections of `description`, in its own version, which the stream does not tell:
 * raise the version of whoever contains it when the inner table changes, or give the inner one a
 * subsection. All as above, with a description and a type instead of a KIND. */
#define GW_VMSTATE_STRUCT(...) GW_VMSTATE_STRUCT_(__VA_ARGS__, )
#define GW_VMSTATE_STRUCT_(m, T, description, inner, ...)                                          \
    {                                                                                              \
        GW_VMSTATE_INNER_(m, T, description, inner),                                               \
            .count = 1, .offset = GW_VMSTATE_OFFSET_(T, m, inner *), __VA_ARGS__                   \
    }
#define GW_VMSTATE_STRUCT_V(m, T, description, inner, version)                                     \
    GW_VMSTATE_STRUCT(m, T, description, inner, .version_id = (version))
#define GW_VMSTATE_STRUCT_TEST(m, T, description, inner, fn)                                       \
    GW_VMSTATE_STRUCT(m, T, description, inner, .test = (fn))

#define GW_VMSTATE_STRUCT_ARRAY(...) GW_VMSTATE_STRUCT_ARRAY_(__VA_ARGS__, )
#define GW_VMSTATE_STRUCT_ARRAY_(m, T, n, description, inner, ...)                                 \
    {                                                                                              \
        GW_VMSTATE_INNER_(m, T, description, inner),                                               \
            .offset = GW_VMSTATE_OFFSET_(T, m, inner(*)[n]), .count = (n), __VA_ARGS__             \
    }
#define GW_VMSTATE_STRUCT_ARRAY_V(m, T, n, description, inner, version)                            \
    GW_VMSTATE_STRUCT_ARRAY(m, T, n, description, inner, .version_id = (version))
#define GW_VMSTATE_STRUCT_ARRAY_TEST(m, T, n, description, inner, fn)                              \
    GW_VMSTATE_STRUCT_ARRAY(m, T, n, description, inner, .test = (fn))

#define GW_VMSTATE_STRUCT_2DARRAY(...) GW_VMSTATE_STRUCT_2DARRAY_(__VA_ARGS__, )
#define GW_VMSTATE_STRUCT_2DARRAY_(m, T, n1, n2, description, inner, ...)                          \
    {                                                                                              \
        GW_VMSTATE_INNER_(m, T, description, inner),                                               \
            .offset = GW_VMSTATE_OFFSET_(T, m, inner(*)[n1][n2]), .count = (size_t)(n1) * (n2),    \
            __VA_ARGS__                                                                            \
    }

#define GW_VMSTATE_STRUCT_SUB_ARRAY(...) GW_VMSTATE_STRUCT_SUB_ARRAY_(__VA_ARGS__, )
#define GW_VMSTATE_STRUCT_SUB_ARRAY_(m, T, start, n, description, inner, ...)                      \
    {                                                                                              \
        GW_VMSTATE_INNER_(m, T, description, inner),                                               \
            .count = (n),                                                                          \
            .offset = GW_VMSTATE_INLINE_(T, m, inner) + (start) * sizeof(inner) +                  \
                      GW_VMSTATE_CLAIM_((start) + (n) <= GW_VMSTATE_CAPACITY_(T, m)),              \
            __VA_ARGS__                                                                            \
    }

#define GW_VMSTATE_STRUCT_VARRAY(...) GW_VMSTATE_STRUCT_VARRAY_(__VA_ARGS__, )
#define GW_VMSTATE_STRUCT_VARRAY_(m, T, c, description, inner, ...)                                \
    {                                                                                              \
        GW_VMSTATE_INNER_(m, T, description, inner),                                               \
            GW_VMSTATE_COUNTED_(T, c, GW_VMSTATE_CAPACITY_(T, m)),                                 \
            .offset = GW_VMSTATE_INLINE_(T, m, inner), __VA_ARGS__                                 \
    }
#define GW_VMSTATE_STRUCT_VARRAY_POINTER(...) GW_VMSTATE_STRUCT_VARRAY_POINTER_(__VA_ARGS__, )
#define GW_VMSTATE_STRUCT_VARRAY_POINTER_(m, T, c, max, description, inner, ...)                   \
    {                                                                                              \
        GW_VMSTATE_INNER_(m, T, description, inner), GW_VMSTATE_COUNTED_(T, c, max),               \
            .pointer = true, .offset = GW_VMSTATE_OFFSET_(T, m, inner **), __VA_ARGS__             \
    }
#define GW_VMSTATE_STRUCT_VARRAY_ALLOC(...) GW_VMSTATE_STRUCT_VARRAY_ALLOC_(__VA_ARGS__, )
#define GW_VMSTATE_STRUCT_VARRAY_ALLOC_(m, T, c, max, description, inner, ...)                     \
    GW_VMSTATE_STRUCT_VARRAY_POINTER_(m, T, c, max, description, inner, .alloc = true, __VA_ARGS__)

/* GW_VMSTATE_STRUCT_POINTER: what m points to, which must be there. _ALLOC: loading allocates it. */
#define GW_VMSTATE_STRUCT_POINTER(...) GW_VMSTATE_STRUCT_POINTER_(__VA_ARGS__, )
#define GW_VMSTATE_STRUCT_POINTER_(m, T, description, inner, ...)                                  \
    {                                                                                              \
        GW_VMSTATE_INNER_(m, T, description, inner),                                               \
            .count = 1, .pointer = true, .offset = GW_VMSTATE_OFFSET_(T, m, inner **), __VA_ARGS__ \
    }
#define GW_VMSTATE_STRUCT_POINTER_V(m, T, description, inner, version)                             \
    GW_VMSTATE_STRUCT_POINTER(m, T, description, inner, .version_id = (version))
#define GW_VMSTATE_STRUCT_POINTER_TEST(m, T, description, inner, fn)                               \
    GW_VMSTATE_STRUCT_POINTER(m, T, description, inner, .test = (fn))
#define GW_VMSTATE_STRUCT_ALLOC(...) GW_VMSTATE_STRUCT_ALLOC_(__VA_ARGS__, )
#define GW_VMSTATE_STRUCT_ALLOC_(m, T, description, inner, ...)                                    \
    GW_VMSTATE_STRUCT_POINTER_(m, T, description, inner, .alloc = true, __VA_ARGS__)

#define GW_VMSTATE_STRUCT_ARRAY_OF_POINTERS(...) GW_VMSTATE_STRUCT_ARRAY_OF_POINTERS_(__VA_ARGS__, )
#define GW_VMSTATE_STRUCT_ARRAY_OF_POINTERS_(m, T, n, description, inner, ...)                     \
    {                                                                                              \
        GW_VMSTATE_INNER_(m, T, description, inner),                                               \
            .offset = GW_VMSTATE_OFFSET_(T, m, inner * (*)[n]), .count = (n), .pointers = true,    \
            __VA_ARGS__                                                                            \
    }

#define GW_VMSTATE_STRUCT_VARRAY_OF_POINTERS(...)                                                  \
    GW_VMSTATE_STRUCT_VARRAY_OF_POINTERS_(__VA_ARGS__, )
#define GW_VMSTATE_STRUCT_VARRAY_OF_POINTERS_(m, T, c, description, inner, ...)                    \
    {                                                                                              \
        GW_VMSTATE_INNER_(m, T, description, inner),                                               \
            GW_VMSTATE_COUNTED_(T, c, GW_VMSTATE_CAPACITY_(T, m)),                                 \
            .offset = GW_VMSTATE_INLINE_(T, m, inner *), .pointers = true, __VA_ARGS__             \
    }
#define GW_VMSTATE_STRUCT_VARRAY_OF_POINTERS_AT(...)                                               \
    GW_VMSTATE_STRUCT_VARRAY_OF_POINTERS_AT_(__VA_ARGS__, )
#define GW_VMSTATE_STRUCT_VARRAY_OF_POINTERS_AT_(m, T, c, max, description, inner, ...)            \
    {                                                                                              \
        GW_VMSTATE_INNER_(m, T, description, inner), GW_VMSTATE_COUNTED_(T, c, max),               \
            .offset = GW_VMSTATE_OFFSET_(T, m, inner ***), .pointer = true, .pointers = true,      \
            __VA_ARGS__                                                                            \
    }

/* GW_VMSTATE_VSTRUCT(m, T, version, description, type, ...): in that version of the inner table,
 * whatever its current one is; so a parent can go on writing what its own version meant. */
#define GW_VMSTATE_VSTRUCT(...) GW_VMSTATE_VSTRUCT_(__VA_ARGS__, )
#define GW_VMSTATE_VSTRUCT_(m, T, version, description, inner, ...)                                \
    {                                                                                              \
        GW_VMSTATE_HEAD_(#m, T, VSTRUCT),                                                          \
            .bytes = sizeof(inner), .vmsd = &(description), .type = #inner, .count = 1,            \
            .struct_version_id = (version), .offset = GW_VMSTATE_OFFSET_(T, m, inner *),           \
            __VA_ARGS__                                                                            \
    }
#define GW_VMSTATE_VSTRUCT_ARRAY(...) GW_VMSTATE_VSTRUCT_ARRAY_(__VA_ARGS__, )
#define GW_VMSTATE_VSTRUCT_ARRAY_(m, T, n, version, description, inner, ...)                       \
    {                                                                                              \
        GW_VMSTATE_HEAD_(#m, T, VSTRUCT),                                                          \
            .bytes = sizeof(inner), .vmsd = &(description), .type = #inner, .count = (n),          \
            .struct_version_id = (version), .offset = GW_VMSTATE_OFFSET_(T, m, inner(*)[n]),       \
            __VA_ARGS__                                                                            \
    }

/* GW_VMSTATE_WITH_TMP(T, type, description, ...): fields of a `type` that lives only meanwhile, with
 * a member `T *parent` that is set. Its pre_save computes from the parent what is written, its
 * post_load puts into the parent what was read (and what that wrote is not taken back). Loaded with
 * the field's version_id, 0 unless said otherwise: the description's minimum must allow it. */
#define GW_VMSTATE_WITH_TMP(...) GW_VMSTATE_WITH_TMP_(__VA_ARGS__, )
#define GW_VMSTATE_WITH_TMP_(T, inner, description, ...)                                           \
    {                                                                                              \
        GW_VMSTATE_HEAD_("tmp", T, TMP),                                                           \
            .bytes = sizeof(inner), .vmsd = &(description), .type = #inner, .count = 1,            \
            .parent_offset = GW_VMSTATE_OFFSET_(inner, parent, T **), __VA_ARGS__                  \
    }

/* ---- bytes and bits ---------------------------------------------------------------------------- */

/* Raw bytes, as they are: uint8_t, int8_t or char. GW_VMSTATE_BUFFER(m, T, ...): all of an array;
 * PARTIAL_BUFFER(m, T, bytes, ...): its first bytes; BUFFER_START_MIDDLE(m, T, start, ...): from there
 * on. */
#define GW_VMSTATE_BUFFER(...) GW_VMSTATE_BUFFER_(__VA_ARGS__, )
#define GW_VMSTATE_BUFFER_(m, T, ...)                                                              \
    GW_VMSTATE_BUFFER_PIECE_(m, T, 0, sizeof(((T *)0)->m), __VA_ARGS__)
#define GW_VMSTATE_BUFFER_V(m, T, version) GW_VMSTATE_BUFFER(m, T, .version_id = (version))
#define GW_VMSTATE_BUFFER_TEST(m, T, fn) GW_VMSTATE_BUFFER(m, T, .test = (fn))
#define GW_VMSTATE_PARTIAL_BUFFER(...) GW_VMSTATE_PARTIAL_BUFFER_(__VA_ARGS__, )
#define GW_VMSTATE_PARTIAL_BUFFER_(m, T, piece, ...)                                               \
    GW_VMSTATE_BUFFER_PIECE_(m, T, 0, piece, __VA_ARGS__)
#define GW_VMSTATE_BUFFER_START_MIDDLE(...) GW_VMSTATE_BUFFER_START_MIDDLE_(__VA_ARGS__, )
#define GW_VMSTATE_BUFFER_START_MIDDLE_(m, T, start, ...)                                          \
    GW_VMSTATE_BUFFER_PIECE_(m, T, start, sizeof(((T *)0)->m) - (start), __VA_ARGS__)
#define GW_VMSTATE_BUFFER_PIECE_(m, T, start, piece, ...)                                          \
    {                                                                                              \
        GW_VMSTATE_HEAD_(#m, T, BUFFER),                                                           \
            .bytes = 1, .count = (piece),                                                          \
            .offset = GW_VMSTATE_BYTES_(T, m) + (start) +                                          \
                      GW_VMSTATE_CLAIM_((start) + (piece) <= sizeof(((T *)0)->m)),                 \
            __VA_ARGS__                                                                            \
    }

/* How many bytes is in a member c. GW_VMSTATE_VBUFFER(m, T, c, ...): of an array;
 * _POINTER(m, T, c, max, ...): of `max` that the device made; _ALLOC: loading allocates them. */
#define GW_VMSTATE_VBUFFER(...) GW_VMSTATE_VBUFFER_(__VA_ARGS__, )
#define GW_VMSTATE_VBUFFER_(m, T, c, ...)                                                          \
    {                                                                                              \
        GW_VMSTATE_HEAD_(#m, T, BUFFER), .bytes = 1,                                               \
                                         GW_VMSTATE_COUNTED_(T, c, sizeof(((T *)0)->m)),           \
                                         .offset = GW_VMSTATE_BYTES_(T, m), __VA_ARGS__            \
    }
#define GW_VMSTATE_VBUFFER_POINTER(...) GW_VMSTATE_VBUFFER_POINTER_(__VA_ARGS__, )
#define GW_VMSTATE_VBUFFER_POINTER_(m, T, c, max, ...)                                             \
    {                                                                                              \
        GW_VMSTATE_HEAD_(#m, T, BUFFER), .bytes = 1, GW_VMSTATE_COUNTED_(T, c, max),               \
                                         .pointer = true,                                          \
                                         .offset = GW_VMSTATE_BYTES_POINTER_(T, m), __VA_ARGS__    \
    }
#define GW_VMSTATE_VBUFFER_ALLOC(...) GW_VMSTATE_VBUFFER_ALLOC_(__VA_ARGS__, )
#define GW_VMSTATE_VBUFFER_ALLOC_(m, T, c, max, ...)                                               \
    GW_VMSTATE_VBUFFER_POINTER_(m, T, c, max, .alloc = true, __VA_ARGS__)

/* GW_VMSTATE_UNUSED(T, bytes, ...): what a field that is gone occupied on the wire (a bool 1, whatever
 * it was in memory); written as zeros. UNUSED_VARRAY(T, c, bytes, max, ...): c times so many. */
#define GW_VMSTATE_UNUSED(...) GW_VMSTATE_UNUSED_(__VA_ARGS__, )
#define GW_VMSTATE_UNUSED_(T, wire_bytes, ...)                                                     \
    {                                                                                              \
        GW_VMSTATE_HEAD_("unused", T, UNUSED), .count = (wire_bytes), __VA_ARGS__                  \
    }
#define GW_VMSTATE_UNUSED_V(T, wire_bytes, version)                                                \
    GW_VMSTATE_UNUSED(T, wire_bytes, .version_id = (version))
#define GW_VMSTATE_UNUSED_TEST(T, wire_bytes, fn) GW_VMSTATE_UNUSED(T, wire_bytes, .test = (fn))
#define GW_VMSTATE_UNUSED_VARRAY(...) GW_VMSTATE_UNUSED_VARRAY_(__VA_ARGS__, )
#define GW_VMSTATE_UNUSED_VARRAY_(T, c, wire_bytes, max, ...)                                      \
    {                                                                                              \
        GW_VMSTATE_HEAD_("unused", T, UNUSED),                                                     \
            .factor = (wire_bytes), GW_VMSTATE_COUNTED_(T, c, (max) * (wire_bytes)), __VA_ARGS__   \
    }

/* GW_VMSTATE_BITMAP(m, T, bits, ...): of an uint64_t m[], bit i being bit i % 64 of m[i / 64]; bits
 * beyond are written and loaded as 0. VBITMAP(m, T, c, ...): the member c says how many bits;
 * _POINTER(m, T, c, max, ...): behind an uint64_t *, for `max` bits that the device made; _ALLOC. */
#define GW_VMSTATE_BITMAP(...) GW_VMSTATE_BITMAP_(__VA_ARGS__, )
#define GW_VMSTATE_BITMAP_(m, T, bits, ...)                                                        \
    {                                                                                              \
        GW_VMSTATE_HEAD_(#m, T, BITMAP),                                                           \
            .bytes = 8, .count = (bits),                                                           \
            .offset = GW_VMSTATE_INLINE_(T, m, uint64_t) +                                         \
                      GW_VMSTATE_CLAIM_((bits) <= 8 * sizeof(((T *)0)->m)),                        \
            __VA_ARGS__                                                                            \
    }
#define GW_VMSTATE_VBITMAP(...) GW_VMSTATE_VBITMAP_(__VA_ARGS__, )
#define GW_VMSTATE_VBITMAP_(m, T, c, ...)                                                          \
    {                                                                                              \
        GW_VMSTATE_HEAD_(#m, T, BITMAP), .bytes = 8,                                               \
                                         GW_VMSTATE_COUNTED_(T, c, 8 * sizeof(((T *)0)->m)),       \
                                         .offset = GW_VMSTATE_INLINE_(T, m, uint64_t), __VA_ARGS__ \
    }
#define GW_VMSTATE_VBITMAP_POINTER(...) GW_VMSTATE_VBITMAP_POINTER_(__VA_ARGS__, )
#define GW_VMSTATE_VBITMAP_POINTER_(m, T, c, max, ...)                                             \
    {                                                                                              \
        GW_VMSTATE_HEAD_(#m, T, BITMAP),                                                           \
            .bytes = 8, GW_VMSTATE_COUNTED_(T, c, max), .pointer = true,                           \
            .offset = GW_VMSTATE_OFFSET_(T, m, uint64_t **), __VA_ARGS__                           \
    }
#define GW_VMSTATE_VBITMAP_ALLOC(...) GW_VMSTATE_VBITMAP_ALLOC_(__VA_ARGS__, )
#define GW_VMSTATE_VBITMAP_ALLOC_(m, T, c, max, ...)                                               \
    GW_VMSTATE_VBITMAP_POINTER_(m, T, c, max, .alloc = true, __VA_ARGS__)

/* ---- lists and trees --------------------------------------------------------------------------- */

/* GW_VMSTATE_TAILQ(m, T, max, description, type, link, ...): a TAILQ_HEAD of <sys/queue.h>, of at most
 * `max` elements of `type`, linked by their member `link`, a TAILQ_ENTRY. LIST: a LIST_HEAD. What is
 * loaded takes the place of the elements that were there. On the wire 1 before each element, 0 after
 * the last, as QEMU's QTAILQ and QLIST. Elements are loaded with the field's version_id. */
#define GW_VMSTATE_TAILQ(...) GW_VMSTATE_TAILQ_(__VA_ARGS__, )
#define GW_VMSTATE_TAILQ_(m, T, max, description, inner, link, ...)                                \
    {                                                                                              \
        GW_VMSTATE_HEAD_(#m, T, TAILQ),                                                            \
            .bytes = sizeof(inner), .vmsd = &(description), .type = #inner, .count = 1,            \
            .count_max = (max), .offset = GW_VMSTATE_OFFSET_(T, m.tqh_first, inner **),            \
            .head_last = GW_VMSTATE_OFFSET_(T, m.tqh_last, inner ***) - offsetof(T, m.tqh_first),  \
            .link_next = GW_VMSTATE_OFFSET_(inner, link.tqe_next, inner **),                       \
            .link_prev = GW_VMSTATE_OFFSET_(inner, link.tqe_prev, inner ***), __VA_ARGS__          \
    }
#define GW_VMSTATE_LIST(...) GW_VMSTATE_LIST_(__VA_ARGS__, )
#define GW_VMSTATE_LIST_(m, T, max, description, inner, link, ...)                                 \
    {                                                                                              \
        GW_VMSTATE_HEAD_(#m, T, LIST),                                                             \
            .bytes = sizeof(inner), .vmsd = &(description), .type = #inner, .count = 1,            \
            .count_max = (max), .offset = GW_VMSTATE_OFFSET_(T, m.lh_first, inner **),             \
            .link_next = GW_VMSTATE_OFFSET_(inner, link.le_next, inner **),                        \
            .link_prev = GW_VMSTATE_OFFSET_(inner, link.le_prev, inner ***), __VA_ARGS__           \
    }

/* GW_VMSTATE_TREE(m, T, max, tree_type, ops, key_description, key_type, description, type, ...):
 * a tree_type *m, used by &ops (a struct gw_vmtree_ops), of at most `max` nodes; loading makes a new
 * one. NULL is written as an empty one. TREE_NUMBERS, without key_description and key_type: keys are
 * numbers. On the wire as QEMU's GTree: be32 nodes, each 1, key, value; 0. */
#define GW_VMSTATE_TREE(...) GW_VMSTATE_TREE_(__VA_ARGS__, )
#define GW_VMSTATE_TREE_(m, T, max, tree_type, ops, key_description, key_struct, description,      \
                         inner, ...)                                                               \
    {                                                                                              \
        GW_VMSTATE_HEAD_(#m, T, TREE_POINTER),                                                     \
            .bytes = sizeof(inner), .vmsd = &(description), .type = #inner, .count = 1,            \
            .count_max = (max), .key_vmsd = &(key_description), .key_type = #key_struct,           \
            .key_bytes = sizeof(key_struct), .tree = &(ops),                                       \
            .offset = GW_VMSTATE_OFFSET_(T, m, tree_type **), __VA_ARGS__                          \
    }
#define GW_VMSTATE_TREE_NUMBERS(...) GW_VMSTATE_TREE_NUMBERS_(__VA_ARGS__, )
#define GW_VMSTATE_TREE_NUMBERS_(m, T, max, tree_type, ops, description, inner, ...)               \
    {                                                                                              \
        GW_VMSTATE_HEAD_(#m, T, TREE),                                                             \
            .bytes = sizeof(inner), .vmsd = &(description), .type = #inner, .count = 1,            \
            .count_max = (max), .tree = &(ops), .offset = GW_VMSTATE_OFFSET_(T, m, tree_type **),  \
            __VA_ARGS__                                                                            \
    }

/* ---- the rest ---------------------------------------------------------------------------------- */

/* GW_VMSTATE_CUSTOM(m, T, type, codec, ...): by &codec, a struct gw_vmcodec. */
#define GW_VMSTATE_CUSTOM(...) GW_VMSTATE_CUSTOM_(__VA_ARGS__, )
#define GW_VMSTATE_CUSTOM_(m, T, member_type, how, ...)                                            \
    {                                                                                              \
        GW_VMSTATE_HEAD_(#m, T, CUSTOM), .bytes = sizeof(member_type), .count = 1,                 \
                                         .offset = GW_VMSTATE_OFFSET_(T, m, member_type *),        \
                                         .codec = &(how), __VA_ARGS__                              \
    }

/* GW_VMSTATE_VALIDATE("queue index in range", T, test): nothing on the wire; a load or save in whose
 * object, so far, the claim does not hold fails. */
#define GW_VMSTATE_VALIDATE(claim, T, fn)                                                          \
    {                                                                                              \
        GW_VMSTATE_HEAD_(claim, T, VALIDATE), .test = (fn), .must_exist = true                     \
    }

#ifdef __cplusplus
}
#endif
#endif
