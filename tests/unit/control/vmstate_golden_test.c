// SPDX-License-Identifier: MIT
/* Every kind of field, byte for byte: tests/data/vmstate/golden.txt was written by hand. */
#include "tests/support/vmstate_sink.h"
#include "tests/unit/control/vmstate_rig.h"

#include <stdlib.h>

#define GOLDEN_MAX 512

/* What the header has besides, for kinds that sink_cases has already: a KIND that is told, and fields
 * that are there only sometimes. */
#define GATED_EACH(X)                                                                              \
    X(named_kind, GW_VMSTATE_VALUE(INT16, i16, struct sink))                                       \
    X(int8_v, GW_VMSTATE_INT8_V(i8, struct sink, 2))                                               \
    X(int8_test, GW_VMSTATE_INT8_TEST(i8, struct sink, sink_is_modern))                            \
    X(int16_v, GW_VMSTATE_INT16_V(i16, struct sink, 2))                                            \
    X(int16_test, GW_VMSTATE_INT16_TEST(i16, struct sink, sink_is_modern))                         \
    X(int32_v, GW_VMSTATE_INT32_V(i32, struct sink, 2))                                            \
    X(int32_test, GW_VMSTATE_INT32_TEST(i32, struct sink, sink_is_modern))                         \
    X(int64_v, GW_VMSTATE_INT64_V(i64, struct sink, 2))                                            \
    X(int64_test, GW_VMSTATE_INT64_TEST(i64, struct sink, sink_is_modern))                         \
    X(uint8_v, GW_VMSTATE_UINT8_V(u8, struct sink, 2))                                             \
    X(uint8_test, GW_VMSTATE_UINT8_TEST(u8, struct sink, sink_is_modern))                          \
    X(uint32_v, GW_VMSTATE_UINT32_V(u32, struct sink, 2))                                          \
    X(uint32_test, GW_VMSTATE_UINT32_TEST(u32, struct sink, sink_is_modern))                       \
    X(uint64_v, GW_VMSTATE_UINT64_V(u64, struct sink, 2))                                          \
    X(uint64_test, GW_VMSTATE_UINT64_TEST(u64, struct sink, sink_is_modern))                       \
    X(bool_v, GW_VMSTATE_BOOL_V(flag, struct sink, 2))                                             \
    X(bool_test, GW_VMSTATE_BOOL_TEST(flag, struct sink, sink_is_modern))                          \
    X(double_v, GW_VMSTATE_DOUBLE_V(real, struct sink, 2))                                         \
    X(double_test, GW_VMSTATE_DOUBLE_TEST(real, struct sink, sink_is_modern))                      \
    X(timer_v, GW_VMSTATE_TIMER_V(deadline_ns, struct sink, 2))                                    \
    X(timer_test, GW_VMSTATE_TIMER_TEST(deadline_ns, struct sink, sink_is_modern))                 \
    X(array_v, GW_VMSTATE_ARRAY_V(UINT16, array, struct sink, 3, 2))                               \
    X(array_test, GW_VMSTATE_ARRAY_TEST(UINT16, array, struct sink, 3, sink_is_modern))            \
    X(struct_v, GW_VMSTATE_STRUCT_V(queue, struct sink, sink_queue_vmsd, struct sink_queue, 2))    \
    X(struct_test, GW_VMSTATE_STRUCT_TEST(queue, struct sink, sink_queue_vmsd, struct sink_queue,  \
                                          sink_is_modern))                                         \
    X(struct_array_v,                                                                              \
      GW_VMSTATE_STRUCT_ARRAY_V(queues, struct sink, 3, sink_queue_vmsd, struct sink_queue, 2))    \
    X(struct_array_test, GW_VMSTATE_STRUCT_ARRAY_TEST(queues, struct sink, 3, sink_queue_vmsd,     \
                                                      struct sink_queue, sink_is_modern))          \
    X(struct_pointer_v,                                                                            \
      GW_VMSTATE_STRUCT_POINTER_V(queue_at, struct sink, sink_queue_vmsd, struct sink_queue, 2))   \
    X(struct_pointer_test, GW_VMSTATE_STRUCT_POINTER_TEST(queue_at, struct sink, sink_queue_vmsd,  \
                                                          struct sink_queue, sink_is_modern))      \
    X(buffer_v, GW_VMSTATE_BUFFER_V(raw, struct sink, 2))                                          \
    X(buffer_test, GW_VMSTATE_BUFFER_TEST(raw, struct sink, sink_is_modern))                       \
    X(unused_v, GW_VMSTATE_UNUSED_V(struct sink, 3, 2))                                            \
    X(unused_test, GW_VMSTATE_UNUSED_TEST(struct sink, 3, sink_is_modern))
GATED_EACH(SINK_DESCRIPTION)
static const struct sink_case gated_cases[] = {GATED_EACH(SINK_ROW)};
#define GATED_CASES (sizeof(gated_cases) / sizeof(gated_cases[0]))

/* The bytes of a line of golden.txt. */
static size_t golden(const char *name, uint8_t *bytes)
{
    FILE *file = fopen(GW_TEST_SOURCE "/tests/data/vmstate/golden.txt", "r");
    GW_ASSERT(file != NULL);
    char line[2048];
    size_t count = 0, length = strlen(name);
    bool found = false;
    while (!found && fgets(line, sizeof(line), file)) {
        found = strncmp(line, name, length) == 0 && strchr(" \n", line[length]);
        if (!found)
            continue;
        char *at = line + length;
        for (char *end = at; *at && count < GOLDEN_MAX; at = end) {
            unsigned long byte = strtoul(at, &end, 16);
            if (end == at)
                break;
            bytes[count++] = (uint8_t)byte;
        }
    }
    fclose(file);
    GW_ASSERT(found);
    return count;
}

static const char *const *case_names(void)
{
    static const char *names[SINK_CASES + GATED_CASES];
    for (size_t i = 0; i < SINK_CASES - 1; i++) /* all but the last, which is not one field */
        names[i] = sink_cases[i].name;
    for (size_t i = 0; i < GATED_CASES; i++)
        names[SINK_CASES - 1 + i] = gated_cases[i].name;
    return names;
}

static const struct gw_vmstate *case_of(const char *name)
{
    for (size_t i = 0; i < SINK_CASES; i++) {
        if (strcmp(sink_cases[i].name, name) == 0)
            return sink_cases[i].vmsd;
    }
    for (size_t i = 0; i < GATED_CASES; i++) {
        if (strcmp(gated_cases[i].name, name) == 0)
            return gated_cases[i].vmsd;
    }
    GW_FAIL("no case '%s'", name);
}

/* What fields go by that are not fields themselves in a description of one. */
static void copy_counts(struct sink *to, const struct sink *from)
{
    to->count_i32 = from->count_i32;
    to->count_u32 = from->count_u32;
    to->count_u16 = from->count_u16;
    to->count_u8 = from->count_u8;
    to->is_modern = from->is_modern;
    to->queue.has_packed = from->queue.has_packed;
    for (int i = 0; i < 3; i++)
        to->queues[i].has_packed = from->queues[i].has_packed;
    to->has_extra = to->wants_extra = true;
}

static void expect_bytes(const struct gw_writer *w, const uint8_t *bytes, size_t count)
{
    GW_ASSERT_EQ(w->bytes, count);
    if (count > 0)
        GW_EXPECT_MEMEQ(w->data, bytes, count);
}

/* Saved as written down; loaded and saved again, the same. */
static void check(const struct gw_vmstate *vmsd, const uint8_t *bytes, size_t count)
{
    int64_t before = gw_alloc_live();
    struct sink from, to;
    struct gw_writer w;
    sink_init(&from);
    sink_init(&to);
    sink_fill(&from);
    copy_counts(&to, &from);
    GW_EXPECT_EQ(rig_save(vmsd, &from, &w), 0);
    expect_bytes(&w, bytes, count);
    gw_writer_fini(&w);
    for (int i = 0; i < 2; i++) { /* into an empty object, and over what that left */
        GW_EXPECT_EQ(rig_load(vmsd, &to, bytes, count), 0);
        GW_EXPECT_STREQ(rig_err.message, "");
        GW_EXPECT_EQ(rig_save(vmsd, &to, &w), 0);
        expect_bytes(&w, bytes, count);
        gw_writer_fini(&w);
    }
    sink_fini(&from);
    sink_fini(&to);
    GW_EXPECT_EQ(gw_alloc_live(), before);
}

GW_TEST_EACH(vmstate, kind_is_on_the_wire_as_the_format_says, case_names)
{
    uint8_t bytes[GOLDEN_MAX];
    check(case_of(param), bytes, golden(param, bytes));
}

/* Is there a case whose field is spelt with this macro? */
static bool is_covered(const char *macro, const struct sink_case *cases, size_t count)
{
    size_t length = strlen(macro);
    for (size_t i = 0; i < count; i++) {
        if (strncmp(cases[i].macro, macro, length) == 0 && cases[i].macro[length] == '(')
            return true;
    }
    return false;
}

GW_TEST(vmstate, every_macro_of_the_header_is_a_kind_with_golden_bytes)
{
    FILE *file = fopen(GW_TEST_SOURCE "/include/godwit/vmfield.h", "r");
    GW_ASSERT(file != NULL);
    char line[512], macro[128];
    unsigned macros = 0;
    while (fgets(line, sizeof(line), file)) {
        size_t length;
        if (sscanf(line, "#define %127[A-Z0-9_](", macro) != 1)
            continue;
        length = strlen(macro);
        if (line[strlen("#define ") + length] != '(' || macro[length - 1] == '_')
            continue; /* a constant, or the header's own */
        macros++;
        if (!GW_EXPECT(is_covered(macro, sink_cases, SINK_CASES) ||
                       is_covered(macro, gated_cases, GATED_CASES)))
            gw_test_note(__FILE__, __LINE__, "%s has no golden bytes", macro);
    }
    fclose(file);
    GW_EXPECT_LE(90, macros); /* the header was read */
}

/* Of a version before theirs, and where the test says no, nothing is written and nothing is read. */
GW_TEST(vmstate, field_that_is_not_there_is_not_on_the_wire)
{
    for (size_t i = 0; i < GATED_CASES; i++) {
        const struct sink_case *c = &gated_cases[i];
        bool versioned = strstr(c->macro, "_V(") != NULL, tested = strstr(c->macro, "_TEST(");
        if (!versioned && !tested)
            continue;
        struct sink s, before;
        sink_init(&s);
        sink_fill(&s);
        s.is_modern = false;
        memcpy(&before, &s, sizeof(s));
        GW_EXPECT_EQ(rig_load_version(c->vmsd, &s, "", 0, versioned ? 1 : 2), 0);
        GW_EXPECT_MEMEQ(&s, &before, sizeof(s));
        if (tested) {
            struct gw_writer w;
            GW_EXPECT_EQ(rig_save(c->vmsd, &s, &w), 0);
            GW_EXPECT_EQ(w.bytes, 0);
            gw_writer_fini(&w);
        }
        sink_fini(&s);
    }
}

GW_TEST(vmstate, fields_follow_each_other_without_anything_between)
{
    static uint8_t bytes[SINK_CASES * GOLDEN_MAX];
    size_t count = 0;
    for (size_t i = 0; i < SINK_CASES; i++)
        count += golden(sink_cases[i].name, bytes + count);
    check(&sink_vmsd, bytes, count);
}

GW_TEST(vmstate, values_arrive)
{
    struct sink from, to;
    struct gw_writer w;
    sink_init(&from);
    sink_init(&to);
    sink_fill(&from);
    GW_ASSERT_EQ(rig_save(&sink_vmsd, &from, &w), 0);
    to.is_modern = true;
    GW_ASSERT_EQ(rig_load(&sink_vmsd, &to, w.data, w.bytes), 0);
    GW_EXPECT_EQ(to.i8, -2);
    GW_EXPECT_EQ(to.i64, -6);
    GW_EXPECT(to.real == -1.5);
    GW_EXPECT_STREQ(to.text, "a word");
    GW_EXPECT_EQ(to.timer.when_ns, 2000000011);
    GW_EXPECT_EQ(to.timer.sets, 1);
    GW_EXPECT_EQ(to.i32_limit, 42);
    GW_EXPECT_EQ(to.fresh[1], 0xff);
    GW_EXPECT_EQ(*to.one, -7);
    GW_EXPECT_EQ(to.queues_at[1].size, 0x301);
    GW_EXPECT_EQ(*to.few[2], 0x30);
    GW_EXPECT(to.few[1] == NULL);
    GW_EXPECT_EQ(to.queue.packed, 7);
    GW_EXPECT_EQ(to.queues[1].packed, 9);
    GW_EXPECT_EQ(to.queues_fresh[0].size, 0xbb);
    GW_EXPECT_EQ(to.split, 0x00010002);
    GW_EXPECT_EQ(to.bcd, 1975);
    GW_EXPECT_EQ(to.extra, 0xcafe);
    GW_EXPECT_EQ(to.extra_deep, 0xbeef);
    GW_EXPECT_EQ(to.numbers->count, 2);
    GW_EXPECT_EQ(to.keys->count, 1);
    /* Lists are linked as <sys/queue.h> wants them. */
    struct sink_node *node = TAILQ_FIRST(&to.tailq);
    GW_ASSERT(node != NULL && TAILQ_NEXT(node, tailq) != NULL);
    GW_EXPECT(TAILQ_LAST(&to.tailq, sink_tailq_head) == TAILQ_NEXT(node, tailq));
    GW_EXPECT(TAILQ_PREV(TAILQ_NEXT(node, tailq), sink_tailq_head, tailq) == node);
    TAILQ_REMOVE(&to.tailq, node, tailq);
    gw_vmstate_free(node);
    node = LIST_FIRST(&to.list);
    GW_ASSERT(node != NULL && node->tag == 3);
    LIST_REMOVE(node, list);
    gw_vmstate_free(node);
    GW_EXPECT_EQ(LIST_FIRST(&to.list)->tag, 4);
    gw_writer_fini(&w);
    sink_fini(&from);
    sink_fini(&to);
}
