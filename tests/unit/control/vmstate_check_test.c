// SPDX-License-Identifier: MIT
/* Tables that are wrong in a way the compiler cannot see are refused before anything is saved. */
#include "tests/support/vmstate_sink.h"
#include "tests/unit/control/vmstate_rig.h"

#define EXPECT_MALFORMED(vmsd, text)                                                               \
    do {                                                                                           \
        rig_err = (struct gw_error)GW_ERROR_INIT;                                                  \
        GW_EXPECT_EQ(gw_vmstate_check(vmsd, &rig_err), -EINVAL);                                   \
        GW_EXPECT_STREQ(rig_err.message, text);                                                    \
        GW_EXPECT_EQ(rig_err.code, GW_CODE_INVALID);                                               \
    } while (0)

/* sink_array's table with one change to description and field. */
static struct gw_vmfield field[2];
static struct gw_vmstate vmsd;

static void begin(const struct gw_vmstate *like)
{
    vmsd = *like;
    field[0] = like->fields[0];
    field[1] = (struct gw_vmfield){.kind = GW_VM_END};
    vmsd.fields = field;
}

GW_TEST(vmstate_check, all_tables_here_are_well_formed)
{
    for (size_t i = 0; i < SINK_CASES; i++)
        GW_EXPECT_EQ(gw_vmstate_check(sink_cases[i].vmsd, NULL), 0);
}

GW_TEST(vmstate_check, description_is_whole)
{
    EXPECT_MALFORMED(NULL, "vmstate: there is no description");
    begin(&sink_array_vmsd);
    vmsd.struct_bytes = 0;
    EXPECT_MALFORMED(&vmsd, "vmstate 'sink': GW_VMSTATE_OF() is missing");
    begin(&sink_array_vmsd);
    vmsd.name = "";
    EXPECT_MALFORMED(&vmsd, "vmstate '': its name must have 1 to 255 bytes of printable ASCII");
    begin(&sink_array_vmsd);
    vmsd.field_bytes = 8;
    EXPECT_MALFORMED(&vmsd, "vmstate 'sink': field_bytes is not set");
    begin(&sink_array_vmsd);
    vmsd.minimum_version_id = 3;
    EXPECT_MALFORMED(&vmsd, "vmstate 'sink': minimum_version_id is above version_id");
    begin(&sink_array_vmsd);
    vmsd.minimum_version_id_old = 1;
    EXPECT_MALFORMED(&vmsd, "vmstate 'sink': minimum_version_id_old without load_state_old");
    begin(&sink_array_vmsd);
    vmsd.property = "x";
    vmsd.property_offset = sizeof(struct sink);
    EXPECT_MALFORMED(&vmsd,
                     "vmstate 'sink': its property has no name, or is not within the object");
    /* A table of nothing is a table. */
    begin(&sink_array_vmsd);
    vmsd.fields = NULL;
    GW_EXPECT_EQ(gw_vmstate_check(&vmsd, NULL), 0);
}

GW_TEST(vmstate_check, field_belongs_to_the_object)
{
    begin(&sink_array_vmsd);
    field[0].owner = "struct other";
    EXPECT_MALFORMED(&vmsd, "vmstate 'sink': field 'array': it is one of a 'struct other', the "
                            "description is for a 'struct sink'");
    begin(&sink_array_vmsd);
    field[0].offset = sizeof(struct sink) - 5;
    EXPECT_MALFORMED(&vmsd, "vmstate 'sink': field 'array': it is not within the object");
    begin(&sink_array_vmsd);
    field[0].count = SIZE_MAX;
    EXPECT_MALFORMED(&vmsd, "vmstate 'sink': field 'array': it is not within the object");
    begin(&sink_array_vmsd);
    field[0].kind = GW_VM_COUNT_;
    EXPECT_MALFORMED(&vmsd,
                     "vmstate 'sink': field 'array': a kind that this version does not know");
    begin(&sink_array_vmsd);
    field[0].version_id = 3;
    EXPECT_MALFORMED(&vmsd,
                     "vmstate 'sink': field 'array': it is of a version that its description "
                     "has not reached");
    begin(&sink_array_vmsd);
    field[0].alloc = true;
    EXPECT_MALFORMED(&vmsd,
                     "vmstate 'sink': field 'array': it is to be allocated, and is no pointer");
}

static const struct gw_vmstate counted_late = {
    GW_VMSTATE_OF(struct sink),
    .name = "late",
    GW_VMSTATE_FIELDS(GW_VMSTATE_VARRAY(UINT32, varray, struct sink, count_u8),
                      GW_VMSTATE_UINT8(count_u8, struct sink)),
};

/* The count is in a structure, and in a subsection. */
struct counted_head {
    uint8_t unused, count;
};
struct counted_outer {
    struct counted_head heads[2];
    uint8_t list[4];
};
static const struct gw_vmstate counted_head = {
    GW_VMSTATE_OF(struct counted_head),
    .name = "head",
    GW_VMSTATE_FIELDS(GW_VMSTATE_UINT8(count, struct counted_head)),
};
static const struct gw_vmstate counted_inside = {
    GW_VMSTATE_OF(struct counted_outer),
    .name = "outer",
    GW_VMSTATE_FIELDS(
        GW_VMSTATE_VARRAY(UINT8, list, struct counted_outer, heads[1].count),
        GW_VMSTATE_STRUCT_ARRAY(heads, struct counted_outer, 2, counted_head, struct counted_head)),
};
static const struct gw_vmstate counted_beside = {
    /* a member of the structure that is not loaded */
    GW_VMSTATE_OF(struct counted_outer),
    .name = "outer",
    GW_VMSTATE_FIELDS(
        GW_VMSTATE_VARRAY(UINT8, list, struct counted_outer, heads[1].unused),
        GW_VMSTATE_STRUCT_ARRAY(heads, struct counted_outer, 2, counted_head, struct counted_head)),
};
static const struct gw_vmstate counted_sub = {
    GW_VMSTATE_OF(struct counted_outer),
    .name = "outer/sub",
    GW_VMSTATE_FIELDS(GW_VMSTATE_UINT8(heads[0].count, struct counted_outer)),
};
static const struct gw_vmstate counted_by_sub = {
    GW_VMSTATE_OF(struct counted_outer),
    .name = "outer",
    GW_VMSTATE_FIELDS(GW_VMSTATE_VARRAY(UINT8, list, struct counted_outer, heads[0].count)),
    GW_VMSTATE_SUBSECTIONS(&counted_sub),
};

GW_TEST(vmstate_check, count_that_is_loaded_again_later_is_found_wherever_it_is)
{
    EXPECT_MALFORMED(&counted_inside,
                     "vmstate 'outer': field 'list': the member that counts is loaded after it");
    EXPECT_MALFORMED(&counted_by_sub,
                     "vmstate 'outer': field 'list': the member that counts is loaded after it");
    GW_EXPECT_EQ(gw_vmstate_check(&counted_beside, NULL), 0);
}

GW_TEST(vmstate_check, count_comes_before_what_it_counts)
{
    EXPECT_MALFORMED(&counted_late,
                     "vmstate 'late': field 'varray': the member that counts is loaded after it");
    begin(&sink_varray_alloc_uint32_vmsd);
    field[0].count_max = 0;
    EXPECT_MALFORMED(&vmsd, "vmstate 'sink': field 'fresh': its count has no maximum");
    begin(&sink_varray_alloc_uint32_vmsd);
    field[0].count_max = GW_VMSTATE_ALLOC_BYTES_MAX;
    EXPECT_MALFORMED(&vmsd, "vmstate 'sink': field 'fresh': its maximum is more than a load may "
                            "allocate");
    begin(&sink_varray_alloc_uint32_vmsd);
    field[0].count_offset = sizeof(struct sink);
    EXPECT_MALFORMED(&vmsd,
                     "vmstate 'sink': field 'fresh': the member that counts is not one of the "
                     "object's");
    begin(&sink_array_vmsd);
    field[0].factor = 2;
    EXPECT_MALFORMED(&vmsd, "vmstate 'sink': field 'array': a factor, and no member that counts");
}

static const struct gw_vmstate wrong = {
    GW_VMSTATE_OF(struct sink),
    .name = "wrong",
    GW_VMSTATE_FIELDS(GW_VMSTATE_STRUCT(queue, struct sink, sink_value_vmsd, struct sink_queue)),
};

GW_TEST(vmstate_check, description_of_a_structure_is_of_its_type)
{
    EXPECT_MALFORMED(&wrong, "vmstate 'wrong': field 'queue': it is a 'struct sink_queue', and "
                             "'value' describes a 'struct sink_value'");
    begin(&sink_vstruct_vmsd);
    field[0].struct_version_id = 3;
    EXPECT_MALFORMED(&vmsd,
                     "vmstate 'sink': field 'queue': a version that its description does not "
                     "take");
}

static const struct gw_vmstate stranger = {
    GW_VMSTATE_OF(struct sink),
    .name = "sunk/extra",
    .version_id = 1,
};
static const struct gw_vmstate parent = {
    GW_VMSTATE_OF(struct sink),
    .name = "sink",
    GW_VMSTATE_SUBSECTIONS(&stranger),
};
static const struct gw_vmstate twice = {
    GW_VMSTATE_OF(struct sink),
    .name = "sink",
    GW_VMSTATE_SUBSECTIONS(&sink_extra_vmsd, &sink_extra_vmsd),
};
static const struct gw_vmstate late = {
    GW_VMSTATE_OF(struct sink),
    .name = "sink/late",
    .version_id = 256,
};
static const struct gw_vmstate of_late = {
    GW_VMSTATE_OF(struct sink),
    .name = "sink",
    GW_VMSTATE_SUBSECTIONS(&late),
};

GW_TEST(vmstate_check, subsection_can_be_found_by_its_name)
{
    EXPECT_MALFORMED(&parent,
                     "vmstate 'sink': subsection 'sunk/extra' does not begin with that name");
    EXPECT_MALFORMED(&twice, "vmstate 'sink/extra': it is there twice");
    EXPECT_MALFORMED(&of_late, "vmstate 'sink/late': version 256, at most 255 in a subsection");
}

GW_TEST(vmstate_check, description_that_contains_itself_is_refused)
{
    static struct gw_vmfield fields[2];
    static struct gw_vmstate self;
    self = (struct gw_vmstate){GW_VMSTATE_OF(struct sink_queue), .name = "self"};
    self.field_bytes = sizeof(fields[0]);
    self.fields = fields;
    fields[0] = sink_struct_vmsd.fields[0];
    fields[0].owner = self.type;
    fields[0].vmsd = &self;
    fields[0].offset = 0;
    EXPECT_MALFORMED(&self, "vmstate 'self': nested deeper than 16");
}

GW_TEST(vmstate_check, malformed_table_is_neither_saved_nor_loaded)
{
    struct sink s;
    struct gw_writer w;
    begin(&sink_array_vmsd);
    field[0].offset = sizeof(struct sink);
    sink_init(&s);
    GW_EXPECT_EQ(rig_save(&vmsd, &s, &w), -EINVAL);
    gw_writer_fini(&w);
    GW_EXPECT_EQ(rig_load(&vmsd, &s, "", 0), -EINVAL);
    struct gw_vmstate_device dev = rig_device(&vmsd, &s);
    struct gw_device_desc desc;
    GW_EXPECT_EQ(gw_vmstate_device_desc(&dev, &desc, &rig_err), -EINVAL);
    sink_fini(&s);
}

GW_TEST(vmstate_check, memory_is_given_and_taken)
{
    int64_t live = gw_alloc_live();
    char *memory = gw_vmstate_alloc(3, 5);
    GW_ASSERT(memory != NULL);
    GW_EXPECT_EQ((uintptr_t)memory % 16, 0);
    for (int i = 0; i < 15; i++)
        GW_EXPECT_EQ(memory[i], 0);
    gw_vmstate_free(memory);
    gw_vmstate_free(NULL);
    GW_EXPECT_EQ(gw_alloc_live(), live);
    GW_EXPECT(gw_vmstate_alloc(SIZE_MAX / 2, 3) == NULL);
    GW_EXPECT(gw_vmstate_alloc(SIZE_MAX - 8, 1) == NULL);
}
