// SPDX-License-Identifier: MIT
/* Shapes of a description that need more than one element: what is told once for all, what is told one by one,
 * what repeats its keys; the names of all types; the configuration. Each text is walked by its reader as
 * well, over the bytes that it was told about. */
#include "control/stream_describe.h"
#include "control/vmdesc.h"
#include "tests/support/vmstate_sink.h"
#include "tests/unit/control/vmstate_rig.h"

#define HEAD                                                                                       \
    "{\"page_size\": 4096, \"devices\": [{\"name\": \"d\", \"instance_id\": 0, \"vmsd_name\": "

static void walk(const struct gw_writer *text, const struct gw_writer *body)
{
    struct gw_description *d = NULL;
    uint64_t bytes = 0;
    size_t at = 0;
    GW_ASSERT_EQ(gw_description_new((const char *)text->data, text->bytes, &d, &at, &rig_err), 0);
    GW_EXPECT_EQ(gw_description_measure(d, 0, &bytes, &rig_err), 0);
    GW_EXPECT_EQ(bytes, body->bytes);
    if (!GW_EXPECT_EQ(gw_description_walk(d, 0, body->data, body->bytes, NULL, NULL, &at, &rig_err),
                      0))
        gw_test_note(__FILE__, __LINE__, "%s", rig_err.message);
    gw_description_free(d);
}

/* The members of the device's description, from its name on, are @expected. */
static void expect(const struct gw_vmstate *vmsd, void *object, const char *expected)
{
    struct gw_vmstate_device dev = rig_device(vmsd, object);
    struct gw_vmdesc desc;
    struct gw_writer w;
    char text[4096], whole[4096];
    gw_writer_init(&w, 1 << 16);
    gw_vmdesc_init(&desc, 4096, 1 << 20);
    w.desc = &desc;
    gw_vmdesc_device_begin(&desc, "d", 0);
    GW_EXPECT_EQ(gw_vmstate_save(&dev, &w, &rig_err), 0);
    gw_vmdesc_device_end(&desc, w.bytes);
    gw_vmdesc_end(&desc);
    GW_ASSERT_EQ(gw_writer_error(&desc.text), 0);
    snprintf(text, sizeof(text), "%.*s", (int)desc.text.bytes, (const char *)desc.text.data);
    snprintf(whole, sizeof(whole), HEAD "%s}]}", expected);
    GW_EXPECT_STREQ(text, whole);
    walk(&desc.text, &w);
    gw_vmdesc_fini(&desc);
    gw_writer_fini(&w);
}

static void expect_sink(const struct gw_vmstate *vmsd, struct sink *s, const char *fields)
{
    char text[4000];
    snprintf(text, sizeof(text), "\"sink\", \"version\": 2, \"fields\": [%s]", fields);
    expect(vmsd, s, text);
}

/* ---- values ------------------------------------------------------------------------------------ */

GW_TEST(vmdesc, types_have_the_names_that_readers_know)
{
    static const struct {
        const struct gw_vmstate *vmsd;
        const char *name, *type;
        unsigned bytes;
    } types[] = {
        {&sink_bool_vmsd, "flag", "bool", 1},
        {&sink_int8_vmsd, "i8", "int8", 1},
        {&sink_int16_vmsd, "i16", "int16", 2},
        {&sink_int32_vmsd, "i32", "int32", 4},
        {&sink_int64_vmsd, "i64", "int64", 8},
        {&sink_uint8_vmsd, "u8", "uint8", 1},
        {&sink_uint16_vmsd, "u16", "uint16", 2},
        {&sink_uint32_vmsd, "u32", "uint32", 4},
        {&sink_uint64_vmsd, "u64", "uint64", 8},
        {&sink_int32_equal_vmsd, "i32_same", "int32 equal", 4},
        {&sink_uint32_equal_vmsd, "u32_same", "uint32 equal", 4},
        {&sink_uint16_equal_vmsd, "u16_same", "uint16 equal", 2},
        {&sink_uint8_equal_vmsd, "u8_same", "uint8 equal", 1},
        {&sink_uint64_equal_vmsd, "u64_same", "int64 equal", 8},
        {&sink_int32_le_vmsd, "i32_limit", "int32 le", 4},
        {&sink_double_vmsd, "real", "CPU_Double_U", 8},
        {&sink_timer_vmsd, "deadline_ns", "timer", 8},
        {&sink_timer_ops_vmsd, "timer", "timer", 8},
        {&sink_buffer_vmsd, "raw", "buffer", 8},
        {&sink_partial_buffer_vmsd, "raw", "buffer", 3},
        {&sink_unused_vmsd, "unused", "unused_buffer", 3},
        {&sink_unused_varray_vmsd, "unused", "unused_buffer", 2},
        {&sink_bitmap_vmsd, "bits", "bitmap", 16},
        {&sink_cstr8_vmsd, "text", "capability", 7},
        {&sink_pointer_vmsd, "one", "int32", 4},
    };
    struct sink s;
    sink_init(&s);
    sink_fill(&s);
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        char field[128];
        snprintf(field, sizeof(field), "{\"name\": \"%s\", \"type\": \"%s\", \"size\": %u}",
                 types[i].name, types[i].type, types[i].bytes);
        expect_sink(types[i].vmsd, &s, field);
    }
    sink_fini(&s);
}

/* ---- structures -------------------------------------------------------------------------------- */

struct cell {
    uint16_t a;
    uint8_t b[2], count, words[4];
};
struct box {
    struct cell cell;
};
struct board {
    uint8_t count, flags[2];
    struct cell cells[3], *few[3];
    struct box boxes[2];
};

static bool is_there(const void *opaque, uint32_t version_id)
{
    (void)opaque;
    (void)version_id;
    return true;
}

static const struct gw_vmstate cell_vmsd = {
    GW_VMSTATE_OF(struct cell),
    .name = "cell",
    .version_id = 1,
    GW_VMSTATE_FIELDS(GW_VMSTATE_UINT16(a, struct cell),
                      GW_VMSTATE_ARRAY(UINT8, b, struct cell, 2)),
};
static const struct gw_vmstate counted_vmsd = {
    GW_VMSTATE_OF(struct cell),
    .name = "cell",
    .version_id = 1,
    GW_VMSTATE_FIELDS(GW_VMSTATE_UINT8(count, struct cell),
                      GW_VMSTATE_VARRAY(UINT8, words, struct cell, count)),
};
static const struct gw_vmstate tested_vmsd = {
    GW_VMSTATE_OF(struct cell),
    .name = "cell",
    .version_id = 1,
    GW_VMSTATE_FIELDS(GW_VMSTATE_UINT8_TEST(count, struct cell, is_there)),
};
static const struct gw_vmstate box_vmsd = {
    GW_VMSTATE_OF(struct box),
    .name = "box",
    GW_VMSTATE_FIELDS(GW_VMSTATE_VSTRUCT(cell, struct box, 1, cell_vmsd, struct cell)),
};

static struct cell spare[2] = {{.a = 7}, {.a = 8}};

static struct board filled(void)
{
    struct board board = {.count = 2, .few = {&spare[0], NULL, &spare[1]}};
    for (unsigned i = 0; i < 3; i++)
        board.cells[i] = (struct cell){.a = (uint16_t)i, .count = (uint8_t)i, .words = {9, 9}};
    return board;
}

/* A description of nothing but this field. */
#define EXPECT_FIELD(object, expected, ...)                                                        \
    do {                                                                                           \
        const struct gw_vmstate vmsd = {GW_VMSTATE_OF(struct board), .name = "board",              \
                                        GW_VMSTATE_FIELDS(__VA_ARGS__)};                           \
        expect(&vmsd, object, "\"board\", \"version\": 0, \"fields\": [" expected "]");            \
    } while (0)

#define A "{\"name\": \"a\", \"type\": \"uint16\", \"size\": 2}"
#define B "{\"name\": \"b\", \"array_len\": 2, \"type\": \"uint8\", \"size\": 1}"
#define CELL_OF(fields) "\"vmsd_name\": \"cell\", \"version\": 1, \"fields\": [" fields "]"
#define CELL CELL_OF(A ", " B)
#define COUNT "{\"name\": \"count\", \"type\": \"uint8\", \"size\": 1}"

GW_TEST(vmdesc, structures_that_are_all_alike_are_told_once)
{
    struct board board = filled();
    EXPECT_FIELD(&board,
                 "{\"name\": \"cells\", \"array_len\": 3, \"type\": \"struct\", \"struct\": {" CELL
                 "}, \"size\": 4}",
                 GW_VMSTATE_STRUCT_ARRAY(cells, struct board, 3, cell_vmsd, struct cell));
    EXPECT_FIELD(&board,
                 "{\"name\": \"cells\", \"array_len\": 2, \"type\": \"struct\", \"struct\": {" CELL
                 "}, \"size\": 4}",
                 GW_VMSTATE_STRUCT_VARRAY(cells, struct board, count, cell_vmsd, struct cell));
    EXPECT_FIELD(&board,
                 "{\"name\": \"cells\", \"array_len\": 3, \"type\": \"vstruct\", " CELL
                 ", \"size\": 4}",
                 GW_VMSTATE_VSTRUCT_ARRAY(cells, struct board, 3, 1, cell_vmsd, struct cell));
    EXPECT_FIELD(&board,
                 "{\"name\": \"boxes\", \"array_len\": 2, \"type\": \"struct\", \"struct\": "
                 "{\"vmsd_name\": \"box\", \"version\": 0, \"fields\": [{\"name\": \"cell\", "
                 "\"type\": \"vstruct\", " CELL ", \"size\": 4}]}, \"size\": 4}",
                 GW_VMSTATE_STRUCT_ARRAY(boxes, struct board, 2, box_vmsd, struct box));
    board.count = 1; /* is no array */
    EXPECT_FIELD(&board,
                 "{\"name\": \"cells\", \"type\": \"struct\", \"struct\": {" CELL "}, \"size\": 4}",
                 GW_VMSTATE_STRUCT_VARRAY(cells, struct board, count, cell_vmsd, struct cell));
    board.count = 0; /* is nothing */
    EXPECT_FIELD(&board, "",
                 GW_VMSTATE_STRUCT_VARRAY(cells, struct board, count, cell_vmsd, struct cell));
}

#define NTH_OF(name, i, inner, size)                                                               \
    "{\"name\": \"" name "\", \"index\": " #i ", \"type\": \"struct\", \"struct\": {" inner        \
    "}, \"size\": " #size "}"
#define TESTED(i) NTH_OF("cells", i, CELL_OF(COUNT), 1)

GW_TEST(vmdesc, structures_that_may_differ_are_told_one_by_one)
{
    struct board board = filled();
    /* a length of its own in each */
    EXPECT_FIELD(
        &board,
        NTH_OF("cells", 0, CELL_OF(COUNT), 1) ", " NTH_OF(
            "cells", 1, CELL_OF(COUNT ", {\"name\": \"words\", \"type\": \"uint8\", \"size\": 1}"),
            2) ", " NTH_OF("cells", 2,
                           CELL_OF(COUNT ", {\"name\": \"words\", \"array_len\": 2, \"type\": "
                                         "\"uint8\", \"size\": 1}"),
                           3),
        GW_VMSTATE_STRUCT_ARRAY(cells, struct board, 3, counted_vmsd, struct cell));
    /* a test within, or of the field itself */
    EXPECT_FIELD(&board, TESTED(0) ", " TESTED(1) ", " TESTED(2),
                 GW_VMSTATE_STRUCT_ARRAY(cells, struct board, 3, tested_vmsd, struct cell));
    EXPECT_FIELD(&board, NTH_OF("cells", 0, CELL, 4) ", " NTH_OF("cells", 1, CELL, 4),
                 GW_VMSTATE_STRUCT_VARRAY(cells, struct board, count, cell_vmsd, struct cell,
                                          .test = is_there));
    EXPECT_FIELD(&board,
                 "{\"name\": \"flags\", \"index\": 0, \"type\": \"uint8\", \"size\": 1}, "
                 "{\"name\": \"flags\", \"index\": 1, \"type\": \"uint8\", \"size\": 1}",
                 GW_VMSTATE_ARRAY_TEST(UINT8, flags, struct board, 2, is_there));
    /* a pointer that is NULL */
    EXPECT_FIELD(&board,
                 NTH_OF("few", 0, CELL, 4) ", {\"name\": \"few\", \"index\": 1, \"type\": "
                                           "\"nullptr\", \"size\": 1}, " NTH_OF("few", 2, CELL, 4),
                 GW_VMSTATE_STRUCT_ARRAY_OF_POINTERS(few, struct board, 3, cell_vmsd, struct cell));
}

/* ---- lists and trees --------------------------------------------------------------------------- */

#define NODE_OF(tag_and_count)                                                                     \
    "\"vmsd_name\": \"node\", \"version\": 1, \"fields\": [" tag_and_count
#define NODE                                                                                       \
    NODE_OF("{\"name\": \"tag\", \"type\": \"uint8\", \"size\": 1}, {\"name\": \"count\", "        \
            "\"type\": \"uint8\", \"size\": 1}")
#define VALUE                                                                                      \
    "\"vmsd_name\": \"value\", \"version\": 0, \"fields\": [{\"name\": \"tag\", \"type\": "        \
    "\"uint8\", \"size\": 1}, {\"name\": \"bytes\", \"type\": \"uint16\", \"size\": 2}, "          \
    "{\"name\": \"data\", \"type\": \"buffer\", \"size\": 2}]"
#define KEY                                                                                        \
    "\"vmsd_name\": \"key\", \"version\": 0, \"fields\": [{\"name\": \"high\", \"type\": "         \
    "\"uint32\", \"size\": 4}, {\"name\": \"low\", \"type\": \"uint16\", \"size\": 2}]"

GW_TEST(vmdesc, tailq_repeats_its_members_for_each_element)
{
    struct sink s;
    sink_init(&s);
    expect_sink(&sink_tailq_vmsd, &s, "{\"name\": \"tailq\", \"type\": \"qtailq\", \"size\": 1}");
    sink_fill(&s);
    expect_sink(&sink_tailq_vmsd, &s,
                "{\"name\": \"tailq\", \"type\": \"qtailq\", " NODE "], " NODE
                ", {\"name\": \"words\", \"array_len\": 2, \"type\": \"uint16\", \"size\": 2}], "
                "\"size\": 11}");
    sink_fini(&s);
}

GW_TEST(vmdesc, tree_repeats_key_and_value_for_each_node)
{
    struct sink s;
    sink_init(&s);
    expect_sink(&sink_tree_vmsd, &s, "{\"name\": \"keys\", \"type\": \"gtree\", \"size\": 5}");
    sink_fill(&s);
    sink_tree_add(s.keys, 0x0a0b0c0d0e10, 0x32);
    expect_sink(&sink_tree_vmsd, &s,
                "{\"name\": \"keys\", \"type\": \"gtree\", " KEY ", " VALUE ", " KEY ", " VALUE
                ", \"size\": 29}");
    /* A number has no description. */
    expect_sink(&sink_tree_numbers_vmsd, &s,
                "{\"name\": \"numbers\", \"type\": \"gtree\", " VALUE ", " VALUE ", \"size\": 33}");
    sink_fini(&s);
}

/* ---- the stream -------------------------------------------------------------------------------- */

GW_TEST(vmdesc, configuration_is_the_first_key)
{
    struct gw_vmdesc desc;
    struct gw_description *d = NULL;
    char text[512];
    size_t at;
    gw_vmdesc_init(&desc, 4096, 1 << 12);
    gw_vmdesc_configuration(&desc, "pc-8.2");
    gw_vmdesc_end(&desc);
    GW_ASSERT_EQ(gw_writer_error(&desc.text), 0);
    snprintf(text, sizeof(text), "%.*s", (int)desc.text.bytes, (const char *)desc.text.data);
    GW_EXPECT_STREQ(text, "{\"configuration\": {\"vmsd_name\": \"configuration\", \"version\": 1, "
                          "\"fields\": [{\"name\": \"len\", \"type\": \"uint32\", \"size\": 4}, "
                          "{\"name\": \"name\", \"type\": \"buffer\", \"size\": 6}]}, "
                          "\"page_size\": 4096, \"devices\": []}");
    GW_ASSERT_EQ(gw_description_new(text, strlen(text), &d, &at, &rig_err), 0);
    GW_EXPECT_EQ(gw_description_page_bytes(d), 4096);
    GW_EXPECT_EQ(gw_description_count(d), 0);
    gw_description_free(d);
    gw_vmdesc_fini(&desc);
}
