// SPDX-License-Identifier: MIT
/* Every kind of field, byte for byte: tests/data/vmstate/golden.txt was written by hand. */
#include "tests/support/vmstate_sink.h"
#include "tests/unit/control/vmstate_rig.h"

#include <stdlib.h>

#define GOLDEN_MAX 512

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
    static const char *names[SINK_CASES]; /* all but the last, which is not one field */
    for (size_t i = 0; i < SINK_CASES - 1; i++)
        names[i] = sink_cases[i].name;
    return names;
}

static const struct gw_vmstate *case_of(const char *name)
{
    for (size_t i = 0; i < SINK_CASES; i++) {
        if (strcmp(sink_cases[i].name, name) == 0)
            return sink_cases[i].vmsd;
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
