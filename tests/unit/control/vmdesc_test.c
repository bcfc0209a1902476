// SPDX-License-Identifier: MIT
/* The description of a stream, letter by letter, in all its shapes. */
#include "control/vmdesc.h"
#include "tests/support/vmstate_sink.h"
#include "tests/unit/control/vmstate_rig.h"

static struct gw_vmdesc desc;

/* A device section, as the one who writes the stream saves it. */
static void save(const struct gw_vmstate *vmsd, struct sink *s, const char *name)
{
    struct gw_vmstate_device dev = rig_device(vmsd, s);
    struct gw_writer w;
    gw_writer_init(&w, 1 << 16);
    w.desc = &desc;
    gw_vmdesc_device_begin(&desc, name, 2);
    GW_EXPECT_EQ(gw_vmstate_save(&dev, &w, &rig_err), 0);
    gw_vmdesc_device_end(&desc, w.bytes);
    gw_writer_fini(&w);
}

static void expect(const char *devices)
{
    char text[8192];
    gw_vmdesc_end(&desc);
    GW_EXPECT_EQ(gw_writer_error(&desc.text), 0);
    snprintf(text, sizeof(text), "%.*s", (int)desc.text.bytes, (const char *)desc.text.data);
    char expected[8192];
    snprintf(expected, sizeof(expected), "{\"page_size\": 4096, \"devices\": [%s]}", devices);
    GW_EXPECT_STREQ(text, expected);
    gw_vmdesc_fini(&desc);
}

#define BEGIN                                                                                      \
    "{\"name\": \"d\", \"instance_id\": 2, \"vmsd_name\": \"sink\", \"version\": 2, \"fields\": ["
#define END "]}"

static void expect_fields(const struct gw_vmstate *vmsd, const char *fields)
{
    struct sink s;
    char device[4096];
    sink_init(&s);
    sink_fill(&s);
    gw_vmdesc_init(&desc, 4096, 1 << 20);
    save(vmsd, &s, "d");
    snprintf(device, sizeof(device), BEGIN "%s" END, fields);
    expect(device);
    sink_fini(&s);
}

GW_TEST(vmdesc, value_has_name_type_and_size)
{
    expect_fields(&sink_uint16_vmsd, "{\"name\": \"u16\", \"type\": \"uint16\", \"size\": 2}");
    expect_fields(&sink_bool_vmsd, "{\"name\": \"flag\", \"type\": \"bool\", \"size\": 1}");
    expect_fields(&sink_double_vmsd,
                  "{\"name\": \"real\", \"type\": \"CPU_Double_U\", \"size\": 8}");
    expect_fields(&sink_timer_ops_vmsd, "{\"name\": \"timer\", \"type\": \"timer\", \"size\": 8}");
    expect_fields(&sink_uint64_equal_vmsd,
                  "{\"name\": \"u64_same\", \"type\": \"int64 equal\", \"size\": 8}");
    expect_fields(&sink_custom_vmsd, "{\"name\": \"bcd\", \"type\": \"bcd\", \"size\": 2}");
    expect_fields(&sink_cstr8_vmsd, "{\"name\": \"text\", \"type\": \"capability\", \"size\": 7}");
    expect_fields(&sink_validate_vmsd, "");
}

GW_TEST(vmdesc, array_of_equals_is_told_once)
{
    expect_fields(&sink_array_vmsd,
                  "{\"name\": \"array\", \"array_len\": 3, \"type\": \"uint16\", \"size\": 2}");
    expect_fields(&sink_array_2d_vmsd,
                  "{\"name\": \"grid\", \"array_len\": 6, \"type\": \"uint8\", \"size\": 1}");
    expect_fields(&sink_varray_int32_vmsd,
                  "{\"name\": \"varray\", \"array_len\": 3, \"type\": \"uint32\", \"size\": 4}");
    /* One is no array. */
    expect_fields(&sink_array_alloc_vmsd,
                  "{\"name\": \"single\", \"type\": \"uint8\", \"size\": 1}");
    expect_fields(&sink_array_of_pointers_vmsd,
                  "{\"name\": \"few\", \"index\": 0, \"type\": \"uint32\", \"size\": 4}, "
                  "{\"name\": \"few\", \"index\": 1, \"type\": \"nullptr\", \"size\": 1}, "
                  "{\"name\": \"few\", \"index\": 2, \"type\": \"uint32\", \"size\": 4}");
}

GW_TEST(vmdesc, pieces_are_one_field)
{
    expect_fields(&sink_buffer_vmsd, "{\"name\": \"raw\", \"type\": \"buffer\", \"size\": 8}");
    expect_fields(&sink_vbuffer_alloc_vmsd,
                  "{\"name\": \"payload\", \"type\": \"buffer\", \"size\": 2}");
    expect_fields(&sink_unused_vmsd,
                  "{\"name\": \"unused\", \"type\": \"unused_buffer\", \"size\": 3}");
    expect_fields(&sink_bitmap_vmsd, "{\"name\": \"bits\", \"type\": \"bitmap\", \"size\": 16}");
}

#define QUEUE_FIELDS                                                                               \
    "\"fields\": [{\"name\": \"size\", \"type\": \"uint16\", \"size\": 2}, {\"name\": "            \
    "\"has_packed\", \"type\": \"bool\", \"size\": 1}]"
#define QUEUE "\"vmsd_name\": \"queue\", \"version\": 2, " QUEUE_FIELDS
#define PACKED                                                                                     \
    ", \"subsections\": [{\"vmsd_name\": \"queue/packed\", \"version\": 1, \"fields\": "           \
    "[{\"name\": \"packed\", \"type\": \"uint8\", \"size\": 1}]}]"

GW_TEST(vmdesc, structure_has_its_description_inside_and_its_subsections_in_its_size)
{
    expect_fields(&sink_struct_vmsd,
                  "{\"name\": \"queue\", \"type\": \"struct\", \"struct\": {" QUEUE PACKED
                  "}, \"size\": 22}");
    expect_fields(&sink_struct_pointer_vmsd,
                  "{\"name\": \"queue_at\", \"type\": \"struct\", \"struct\": {" QUEUE
                  "}, \"size\": 3}");
    expect_fields(
        &sink_struct_array_vmsd,
        "{\"name\": \"queues\", \"index\": 0, \"type\": \"struct\", \"struct\": {" QUEUE
        "}, \"size\": 3}, "
        "{\"name\": \"queues\", \"index\": 1, \"type\": \"struct\", \"struct\": {" QUEUE PACKED
        "}, \"size\": 22}, "
        "{\"name\": \"queues\", \"index\": 2, \"type\": \"struct\", \"struct\": {" QUEUE
        "}, \"size\": 3}");
}

GW_TEST(vmdesc, other_structures_have_their_members_inline)
{
    expect_fields(&sink_vstruct_vmsd,
                  "{\"name\": \"queue\", \"type\": \"vstruct\", \"vmsd_name\": \"queue\", "
                  "\"version\": 1, \"fields\": [{\"name\": \"size\", \"type\": \"uint16\", "
                  "\"size\": 2}]" PACKED ", \"size\": 21}");
    expect_fields(
        &sink_with_tmp_vmsd,
        "{\"name\": \"tmp\", \"type\": \"tmp\", \"vmsd_name\": \"halves\", \"version\": 0, "
        "\"fields\": [{\"name\": \"high\", \"type\": \"uint16\", \"size\": 2}, "
        "{\"name\": \"low\", \"type\": \"uint16\", \"size\": 2}], \"size\": 4}");
}

#define NODE_HEAD                                                                                  \
    "\"vmsd_name\": \"node\", \"version\": 1, \"fields\": [{\"name\": \"tag\", \"type\": "         \
    "\"uint8\", \"size\": 1}, {\"name\": \"count\", \"type\": \"uint8\", \"size\": 1}"

GW_TEST(vmdesc, list_repeats_its_members_for_each_element)
{
    expect_fields(&sink_list_vmsd,
                  "{\"name\": \"list\", \"type\": \"qlist\", " NODE_HEAD "], " NODE_HEAD
                  ", {\"name\": \"words\", \"type\": \"uint16\", \"size\": 2}], \"size\": 9}");
    expect_fields(
        &sink_tree_vmsd,
        "{\"name\": \"keys\", \"type\": \"gtree\", \"vmsd_name\": \"key\", \"version\": 0, "
        "\"fields\": "
        "[{\"name\": \"high\", \"type\": \"uint32\", \"size\": 4}, {\"name\": \"low\", \"type\": "
        "\"uint16\", \"size\": 2}], \"vmsd_name\": \"value\", \"version\": 0, \"fields\": "
        "[{\"name\": "
        "\"tag\", \"type\": \"uint8\", \"size\": 1}, {\"name\": \"bytes\", \"type\": \"uint16\", "
        "\"size\": 2}, {\"name\": \"data\", \"type\": \"buffer\", \"size\": 2}], \"size\": 17}");
}

/* Names that a description has twice, and only those, are numbered, fields that are not there too. */
static bool is_never(const void *opaque, uint32_t version_id)
{
    (void)opaque;
    (void)version_id;
    return false;
}

static const struct gw_vmstate twice_vmsd = {
    GW_VMSTATE_OF(struct sink),
    .name = "sink",
    .version_id = 2,
    GW_VMSTATE_FIELDS(GW_VMSTATE_UINT8_TEST(u8, struct sink, is_never),
                      GW_VMSTATE_UINT16(u16, struct sink), GW_VMSTATE_UINT8(u8, struct sink)),
    GW_VMSTATE_SUBSECTIONS(&sink_extra_vmsd),
};

GW_TEST(vmdesc, names_that_come_twice_are_numbered_and_subsections_follow)
{
    expect_fields(&twice_vmsd,
                  "{\"name\": \"u16\", \"type\": \"uint16\", \"size\": 2}, "
                  "{\"name\": \"u8[1]\", \"type\": \"uint8\", \"size\": 1}], "
                  "\"subsections\": [{\"vmsd_name\": \"sink/extra\", \"version\": 1, \"fields\": "
                  "[{\"name\": \"extra\", \"type\": \"uint32\", \"size\": 4}], "
                  "\"subsections\": [{\"vmsd_name\": \"sink/extra/deep\", \"version\": 1, "
                  "\"fields\": [{\"name\": \"extra_deep\", \"type\": \"uint32\", \"size\": "
                  "4}]}]}");
}

GW_TEST(vmdesc, section_that_the_engine_did_not_write_alone_is_a_buffer)
{
    struct sink s;
    sink_init(&s);
    sink_fill(&s);
    gw_vmdesc_init(&desc, 4096, 1 << 20);
    /* By hand. */
    struct gw_writer w;
    gw_writer_init(&w, 1 << 16);
    w.desc = &desc;
    gw_vmdesc_device_begin(&desc, "by hand", 0);
    gw_writer_be32(&w, 7);
    gw_vmdesc_device_end(&desc, w.bytes);
    /* A table, and a value more. */
    gw_writer_reset(&w);
    gw_vmdesc_device_begin(&desc, "both", 1);
    struct gw_vmstate_device dev = rig_device(&sink_struct_vmsd, &s);
    GW_EXPECT_EQ(gw_vmstate_save(&dev, &w, &rig_err), 0);
    gw_writer_u8(&w, 1);
    gw_vmdesc_device_end(&desc, w.bytes);
    /* Two tables. */
    gw_writer_reset(&w);
    gw_vmdesc_device_begin(&desc, "two \"quoted\"", 1);
    GW_EXPECT_EQ(gw_vmstate_save(&dev, &w, &rig_err), 0);
    GW_EXPECT_EQ(gw_vmstate_save(&dev, &w, &rig_err), 0);
    gw_vmdesc_device_end(&desc, w.bytes);
    gw_writer_fini(&w);
    save(&sink_uint8_vmsd, &s, "d");
    expect(
        "{\"name\": \"by hand\", \"instance_id\": 0, \"size\": 4, \"fields\": [{\"name\": "
        "\"data\", "
        "\"size\": 4, \"type\": \"buffer\"}]}, "
        "{\"name\": \"both\", \"instance_id\": 1, \"size\": 23, \"fields\": [{\"name\": \"data\", "
        "\"size\": 23, \"type\": \"buffer\"}]}, "
        "{\"name\": \"two \\u0022quoted\\u0022\", \"instance_id\": 1, \"size\": 44, \"fields\": "
        "[{\"name\": \"data\", \"size\": 44, \"type\": \"buffer\"}]}, " BEGIN
        "{\"name\": \"u8\", \"type\": \"uint8\", \"size\": 1}" END);
    sink_fini(&s);
}

GW_TEST(vmdesc, description_that_does_not_fit_says_so_and_stays_out_of_the_way)
{
    struct sink s;
    sink_init(&s);
    sink_fill(&s);
    gw_vmdesc_init(&desc, 4096, 200);
    save(&sink_vmsd, &s, "d");
    gw_vmdesc_end(&desc);
    GW_EXPECT_EQ(gw_writer_error(&desc.text), -E2BIG);
    gw_vmdesc_fini(&desc);
    sink_fini(&s);
}
