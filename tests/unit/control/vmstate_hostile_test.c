// SPDX-License-Identifier: MIT
/* Streams that lie: each count, length, value and claim that is not what it must be is refused by a
 * sentence that names it, and the object is as it was. */
#include "tests/support/vmstate_sink.h"
#include "tests/unit/control/vmstate_rig.h"

#include <stdlib.h>

#define WHERE "machine 'pc-7.2': device '0000:00:04.0/dev' instance 3: section 'sink': "

/* Loads the bytes by the description of @kind; the object must be what it was. */
static int load(const struct gw_vmstate *vmsd, struct sink *s, const uint8_t *data, size_t bytes)
{
    struct sink before = *s;
    int64_t live = gw_alloc_live();
    uint8_t *copy = malloc(bytes ? bytes : 1); /* its end is the end of memory */
    GW_ASSERT(copy != NULL);
    memcpy(copy, data, bytes);
    int rc = rig_load(vmsd, s, copy, bytes);
    free(copy);
    if (rc < 0) {
        before.timer.sets = s->timer.sets;
        GW_EXPECT_MEMEQ(s, &before, sizeof(before));
        GW_EXPECT_EQ(gw_alloc_live(), live);
        GW_EXPECT_EQ(rig_err.code, GW_CODE_DEVICE);
    }
    return rc;
}

#define EXPECT_REFUSED(vmsd, s, rc, text, ...)                                                     \
    RIG_EXPECT_REFUSED(                                                                            \
        load(vmsd, s, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__})), rc, \
        WHERE text)

static struct sink filled(void)
{
    struct sink s;
    sink_init(&s);
    sink_fill(&s);
    return s;
}

GW_TEST(vmstate_hostile, state_that_ends_too_early_is_refused_wherever_it_ends)
{
    struct sink from = filled(), to;
    struct gw_writer w;
    GW_ASSERT_EQ(rig_save(&sink_vmsd, &from, &w), 0);
    sink_init(&to);
    to.is_modern = true;
    size_t fields = w.bytes - 2 * (2 + 4 + 4) - strlen("sink/extra") - strlen("sink/extra/deep");
    struct gw_vmstate_device dev = rig_device(&sink_vmsd, &to);
    for (size_t bytes = 0; bytes < w.bytes; bytes++) {
        struct gw_reader r;
        gw_reader_init(&r, w.data, bytes);
        int rc = bytes < fields ? load(&sink_vmsd, &to, w.data, bytes)
                                : gw_vmstate_load(&dev, &r, 2, &rig_err);
        /* Behind the fields, what is no whole name of a subsection is left to whoever comes next. */
        if (rc == 0)
            GW_EXPECT(bytes >= fields && r.at + 17 > bytes);
        else
            GW_EXPECT_EQ(rc, -EBADMSG);
    }
    gw_writer_fini(&w);
    sink_fini(&from);
    sink_fini(&to);
}

GW_TEST(vmstate_hostile, count_above_its_maximum_is_refused)
{
    struct sink s = filled();
    s.count_i32 = 5;
    EXPECT_REFUSED(&sink_varray_int32_vmsd, &s, -E2BIG,
                   "field 'varray' at offset 0: its count, 'count_i32', is 5, at most 4 here", 0);
    s.count_i32 = -1;
    EXPECT_REFUSED(&sink_varray_int32_vmsd, &s, -E2BIG,
                   "field 'varray' at offset 0: its count, 'count_i32', is -1", 0);
    s.count_u8 = 3; /* times 2 */
    EXPECT_REFUSED(&sink_varray_multiply_vmsd, &s, -E2BIG,
                   "field 'varray' at offset 0: its count, 'count_u8', is 3, at most 2 here", 0);
    s.count_u32 = 0xffffffff;
    EXPECT_REFUSED(&sink_varray_alloc_uint32_vmsd, &s, -E2BIG,
                   "field 'fresh' at offset 0: its count, 'count_u32', is 4294967295, at most 100 "
                   "here",
                   0);
    EXPECT_REFUSED(&sink_vbitmap_vmsd, &s, -E2BIG,
                   "field 'vbits' at offset 0: its count, 'count_u32', is 4294967295, at most 128 "
                   "here",
                   0);
    s.count_u16 = 17;
    EXPECT_REFUSED(&sink_vbuffer_pointer_vmsd, &s, -E2BIG,
                   "field 'blob' at offset 0: its count, 'count_u16', is 17, at most 16 here", 0);
    s.count_u8 = 5;
    EXPECT_REFUSED(&sink_unused_varray_vmsd, &s, -E2BIG,
                   "field 'unused' at offset 0: its count, 'count_u8', is 5, at most 4 here", 0);
    sink_fini(&s);
}

GW_TEST(vmstate_hostile, nothing_is_allocated_for_what_cannot_be_there)
{
    struct sink s;
    sink_init(&s);
    s.count_u32 = 100;
    gw_alloc_peak_reset();
    int64_t before = gw_alloc_peak();
    EXPECT_REFUSED(
        &sink_varray_alloc_uint32_vmsd, &s, -EBADMSG,
        "field 'fresh' at offset 0: the state ends too early: 100 of 4 bytes, 1 are left", 0);
    GW_EXPECT_EQ(gw_alloc_peak(), before);
    sink_fini(&s);
}

/* Wants much for little: a thousand elements of 64 KiB, each two bytes on the wire. */
struct big {
    uint8_t tag;
    char room[65536];
};
struct many {
    uint32_t count;
    struct big *list;
};
static const struct gw_vmstate big_vmsd = {
    GW_VMSTATE_OF(struct big),
    .name = "big",
    GW_VMSTATE_FIELDS(GW_VMSTATE_UINT8(tag, struct big)),
};
static const struct gw_vmstate many_vmsd = {
    GW_VMSTATE_OF(struct many),
    .name = "many",
    GW_VMSTATE_FIELDS(
        GW_VMSTATE_UINT32(count, struct many),
        GW_VMSTATE_STRUCT_VARRAY_ALLOC(list, struct many, count, 4000, big_vmsd, struct big),
        GW_VMSTATE_STRUCT_VARRAY_ALLOC(list, struct many, count, 4000, big_vmsd, struct big)),
};

GW_TEST(vmstate_hostile, load_allocates_no_more_than_its_limit)
{
    struct many many = {0};
    static uint8_t bytes[4 + 2 * 4000] = {0, 0, 0x0f, 0xa0};
    GW_EXPECT_EQ(rig_load(&many_vmsd, &many, bytes, sizeof(bytes)), -E2BIG);
    GW_EXPECT_STREQ(rig_err.message,
                    "machine 'pc-7.2': device '0000:00:04.0/dev' instance 3: section 'many': field "
                    "'list' at offset 4004: 4000 elements of 65537 bytes: the load would allocate "
                    "more than 268435456 bytes");
    GW_EXPECT(many.list == NULL && many.count == 0);
}

GW_TEST(vmstate_hostile, value_that_differs_is_refused)
{
    struct sink s = filled();
    EXPECT_REFUSED(&sink_uint32_equal_vmsd, &s, -EINVAL,
                   "field 'u32_same' at offset 0: 67438088 arrived, it is 67438087 here", 4, 5, 6,
                   8);
    GW_EXPECT_STREQ(rig_err.hint, "same machine?");
    EXPECT_REFUSED(&sink_int32_equal_vmsd, &s, -EINVAL,
                   "field 'i32_same' at offset 0: -1 arrived, it is -5 here", 0xff, 0xff, 0xff,
                   0xff);
    EXPECT_REFUSED(&sink_int32_le_vmsd, &s, -EINVAL,
                   "field 'i32_limit' at offset 0: 43 arrived, 0 to 42 is taken", 0, 0, 0, 43);
    EXPECT_REFUSED(&sink_int32_le_vmsd, &s, -EINVAL,
                   "field 'i32_limit' at offset 0: -1 arrived, 0 to 42 is taken", 0xff, 0xff, 0xff,
                   0xff);
    sink_fini(&s);
}

GW_TEST(vmstate_hostile, null_and_what_is_not_null_do_not_change_places)
{
    struct sink s = filled();
    EXPECT_REFUSED(&sink_array_of_pointers_vmsd, &s, -EINVAL,
                   "field 'few[1]' at offset 4: there is none here, and byte 0x00 arrived for it",
                   0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1);
    sink_fini(&s);
}

GW_TEST(vmstate_hostile, pointer_to_nowhere_is_refused)
{
    struct sink s = filled();
    struct sink_queue *kept = s.queue_at;
    s.queue_at = NULL;
    EXPECT_REFUSED(&sink_struct_pointer_vmsd, &s, -EINVAL,
                   "field 'queue_at' at offset 0: it points nowhere here", 0, 1, 0);
    struct gw_writer w;
    GW_EXPECT_EQ(rig_save(&sink_struct_pointer_vmsd, &s, &w), -EINVAL);
    GW_EXPECT_STREQ(rig_err.message, WHERE "field 'queue_at' at offset 0: it points nowhere");
    gw_writer_fini(&w);
    s.queue_at = kept;
    sink_fini(&s);
}

GW_TEST(vmstate_hostile, text_that_does_not_fit_is_refused)
{
    struct sink s = filled();
    EXPECT_REFUSED(&sink_cstr8_vmsd, &s, -E2BIG,
                   "field 'text' at offset 0: text of 12 bytes, at most 11 here", 12, 'a', 'a', 'a',
                   'a', 'a', 'a', 'a', 'a', 'a', 'a', 'a', 'a');
    EXPECT_REFUSED(&sink_cstr8_vmsd, &s, -EINVAL,
                   "field 'text' at offset 0: a NUL within text of 2 bytes", 2, 'a', 0);
    EXPECT_REFUSED(&sink_cstr8_vmsd, &s, -EBADMSG,
                   "field 'text' at offset 0: the state ends too early", 2, 'a');
    sink_fini(&s);
}

GW_TEST(vmstate_hostile, list_without_an_end_is_refused_at_its_maximum)
{
    struct sink s = filled();
    EXPECT_REFUSED(&sink_tailq_vmsd, &s, -E2BIG,
                   "field 'tailq[8]' at offset 24: 9 elements or more, at most 8 here", 1, 1, 0, 1,
                   2, 0, 1, 3, 0, 1, 4, 0, 1, 5, 0, 1, 6, 0, 1, 7, 0, 1, 8, 0, 1, 9, 0, 0);
    EXPECT_REFUSED(&sink_list_vmsd, &s, -E2BIG,
                   "field 'list[0].words' at offset 3: its count, 'count', is 17, at most 16 here",
                   1, 1, 17, 0);
    EXPECT_REFUSED(&sink_list_vmsd, &s, -EBADMSG,
                   "field 'list[1]' at offset 3: the state ends too early", 1, 1, 0);
    sink_fini(&s);
}

GW_TEST(vmstate_hostile, tree_that_is_not_one_is_refused)
{
    struct sink s = filled();
    EXPECT_REFUSED(&sink_tree_numbers_vmsd, &s, -E2BIG,
                   "field 'numbers' at offset 0: 9 elements or more, at most 8 here", 0, 0, 0, 9);
    EXPECT_REFUSED(&sink_tree_numbers_vmsd, &s, -EINVAL,
                   "field 'numbers' at offset 4: fewer nodes than the 1 that it says", 0, 0, 0, 1,
                   0);
    EXPECT_REFUSED(&sink_tree_numbers_vmsd, &s, -EINVAL,
                   "field 'numbers' at offset 4: more nodes than the 0 that it says", 0, 0, 0, 0,
                   1);
    EXPECT_REFUSED(&sink_tree_numbers_vmsd, &s, -EINVAL,
                   "field 'numbers[1]' at offset 29: a key comes twice", 0, 0, 0, 2, /* two */
                   1, 0, 0, 0, 0, 0, 0, 0, 5, 1, 0, 1, 9,                            /* 5 */
                   1, 0, 0, 0, 0, 0, 0, 0, 5, 1, 0, 0, 0);                           /* 5 */
    sink_fini(&s);
}

GW_TEST(vmstate_hostile, bits_that_a_bitmap_has_not_are_dropped)
{
    struct sink s = filled();
    uint8_t ones[16];
    memset(ones, 0xff, sizeof(ones));
    GW_EXPECT_EQ(load(&sink_bitmap_vmsd, &s, ones, sizeof(ones)), 0);
    GW_EXPECT_EQ(s.bits[0], UINT64_MAX);
    GW_EXPECT_EQ(s.bits[1], 0x3f);
    sink_fini(&s);
}

GW_TEST(vmstate_hostile, claim_that_does_not_hold_is_refused_on_both_sides)
{
    struct sink s = filled();
    s.u8 = 0xee;
    EXPECT_REFUSED(&sink_validate_vmsd, &s, -EINVAL,
                   "field 'u8 is sane' at offset 0: this does not hold", 0);
    struct gw_writer w;
    GW_EXPECT_EQ(rig_save(&sink_validate_vmsd, &s, &w), -EINVAL);
    GW_EXPECT_STREQ(rig_err.message, WHERE "field 'u8 is sane' at offset 0: this does not hold");
    gw_writer_fini(&w);
    sink_fini(&s);
}

GW_TEST(vmstate_hostile, custom_codec_tells_what_is_wrong)
{
    struct sink s = filled();
    EXPECT_REFUSED(&sink_custom_vmsd, &s, -EINVAL, "field 'bcd' at offset 0: bcd: 0xa is no digit",
                   0x1a, 0);
    sink_fini(&s);
}

GW_TEST(vmstate_hostile, timer_that_was_set_is_set_back)
{
    struct sink s = filled();
    struct gw_writer w;
    GW_ASSERT_EQ(rig_save(&sink_vmsd, &s, &w), 0);
    unsigned sets = s.timer.sets;
    s.timer.when_ns = 77;
    GW_EXPECT_EQ(load(&sink_vmsd, &s, w.data, w.bytes - 46), -EBADMSG); /* far behind the timer */
    GW_EXPECT_EQ(s.timer.sets, sets + 2);
    GW_EXPECT_EQ(s.timer.when_ns, 77);
    gw_writer_fini(&w);
    sink_fini(&s);
}

GW_TEST(vmstate_hostile, what_a_target_would_refuse_is_not_sent)
{
    struct sink s = filled();
    struct gw_writer w;
    s.count_u32 = 3; /* and memory for two */
    GW_EXPECT_EQ(rig_save(&sink_varray_alloc_uint32_vmsd, &s, &w), -EINVAL);
    GW_EXPECT_STREQ(rig_err.message,
                    WHERE "field 'fresh' at offset 0: 12 bytes, and memory for 8 was allocated");
    gw_writer_fini(&w);
    s.count_u32 = 101;
    GW_EXPECT_EQ(rig_save(&sink_varray_alloc_uint32_vmsd, &s, &w), -E2BIG);
    gw_writer_fini(&w);
    memset(s.text, 'x', sizeof(s.text));
    GW_EXPECT_EQ(rig_save(&sink_cstr8_vmsd, &s, &w), -EINVAL);
    GW_EXPECT_STREQ(rig_err.message,
                    WHERE "field 'text' at offset 0: its text does not end within 12 bytes");
    gw_writer_fini(&w);
    for (uint8_t i = 0; i < 8; i++) {
        struct sink_node *node = sink_node_new(i, 0);
        TAILQ_INSERT_TAIL(&s.tailq, node, tailq);
    }
    GW_EXPECT_EQ(rig_save(&sink_tailq_vmsd, &s, &w), -E2BIG);
    gw_writer_fini(&w);
    struct gw_vmstate_device dev = rig_device(&sink_buffer_vmsd, &s);
    gw_writer_init(&w, 7); /* for eight bytes */
    GW_EXPECT_EQ(gw_vmstate_save(&dev, &w, &rig_err), -E2BIG);
    gw_writer_fini(&w);
    sink_fini(&s);
}
