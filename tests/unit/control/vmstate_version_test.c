// SPDX-License-Identifier: MIT
/* A device grows from version n to n + 1, and both go on talking to each other where they can: fields of
 * a version, fields that are gone, subsections with and without a property, loaders of old versions. */
#include "tests/unit/control/vmstate_rig.h"

#include <errno.h>

struct disk {
    uint32_t sector;
    uint16_t flags; /* since 3 */
    uint32_t cache; /* gone in n_plus_removed */
    bool dma, has_dma;
    uint64_t dma_at;
    unsigned old_loads;
};

static bool disk_uses_dma(const void *opaque)
{
    return ((const struct disk *)opaque)->dma;
}

/* ---- version n ---- */
static const struct gw_vmstate n = {
    GW_VMSTATE_OF(struct disk),
    .name = "disk",
    .version_id = 2,
    .minimum_version_id = 1,
    GW_VMSTATE_FIELDS(GW_VMSTATE_UINT32(sector, struct disk),
                      GW_VMSTATE_UINT32(cache, struct disk)),
};

/* ---- n + 1: a subsection more ---- */
static const struct gw_vmstate dma = {
    GW_VMSTATE_OF(struct disk),
    .name = "disk/dma",
    .version_id = 1,
    .minimum_version_id = 1,
    .needed = disk_uses_dma,
    GW_VMSTATE_PROPERTY("x-dma", struct disk, has_dma),
    GW_VMSTATE_FIELDS(GW_VMSTATE_BOOL(dma, struct disk), GW_VMSTATE_UINT64(dma_at, struct disk)),
};
static const struct gw_vmstate n_and_subsection = {
    GW_VMSTATE_OF(struct disk),
    .name = "disk",
    .version_id = 2,
    .minimum_version_id = 1,
    GW_VMSTATE_FIELDS(GW_VMSTATE_UINT32(sector, struct disk),
                      GW_VMSTATE_UINT32(cache, struct disk)),
    GW_VMSTATE_SUBSECTIONS(&dma),
};

/* ---- n + 1: a field more ---- */
static const struct gw_vmstate n_and_field = {
    GW_VMSTATE_OF(struct disk),
    .name = "disk",
    .version_id = 3,
    .minimum_version_id = 1,
    GW_VMSTATE_FIELDS(GW_VMSTATE_UINT32(sector, struct disk), GW_VMSTATE_UINT32(cache, struct disk),
                      GW_VMSTATE_UINT16_V(flags, struct disk, 3)),
};

/* ---- n + 1: a field less ---- */
static const struct gw_vmstate n_without_cache = {
    GW_VMSTATE_OF(struct disk),
    .name = "disk",
    .version_id = 2,
    .minimum_version_id = 1,
    GW_VMSTATE_FIELDS(GW_VMSTATE_UINT32(sector, struct disk), GW_VMSTATE_UNUSED(struct disk, 4)),
};

static struct disk sample(void)
{
    return (struct disk){.sector = 0x11223344,
                         .flags = 0x5566,
                         .cache = 0x778899aa,
                         .dma = true,
                         .has_dma = true,
                         .dma_at = 0x1000};
}

/* From one version to the other; the target had these values before. */
static int move(const struct gw_vmstate *from, struct disk *source, const struct gw_vmstate *to,
                struct disk *target)
{
    struct gw_writer w;
    *target = (struct disk){.flags = 0xffff, .cache = 7};
    GW_ASSERT_EQ(rig_save(from, source, &w), 0);
    int rc = rig_load_version(to, target, w.data, w.bytes, from->version_id);
    gw_writer_fini(&w);
    return rc;
}

GW_TEST(vmstate_version, n_to_n_plus_1_with_a_subsection_more)
{
    struct disk source = sample(), target;
    GW_EXPECT_EQ(move(&n, &source, &n_and_subsection, &target), 0);
    GW_EXPECT_EQ(target.sector, source.sector);
    GW_EXPECT(!target.dma);
}

GW_TEST(vmstate_version, n_plus_1_to_n_with_a_subsection_more)
{
    struct disk source = sample(), target;
    int rc = move(&n_and_subsection, &source, &n, &target);
    RIG_EXPECT_REFUSED(rc, -ENOENT,
                       "machine 'pc-7.2': device '0000:00:04.0/dev' instance 3: section 'disk' at "
                       "offset 8: subsection 'disk/dma' is not known here");
    GW_EXPECT(strstr(rig_err.hint, "switch it off there by its property"));
    GW_EXPECT_EQ(target.sector, 0); /* as it was */
    GW_EXPECT_EQ(target.cache, 7);
    /* Not needed: not sent. */
    source.dma = false;
    GW_EXPECT_EQ(move(&n_and_subsection, &source, &n, &target), 0);
    GW_EXPECT_EQ(target.sector, source.sector);
    /* Needed, and switched off. */
    source.dma = true;
    GW_EXPECT_EQ(gw_vmstate_property_set(&n_and_subsection, &source, "x-dma", false, &rig_err), 0);
    GW_EXPECT(!source.has_dma);
    GW_EXPECT_EQ(move(&n_and_subsection, &source, &n, &target), 0);
    GW_EXPECT_EQ(gw_vmstate_property_set(&n_and_subsection, &source, "x-dma", true, &rig_err), 0);
    GW_EXPECT_EQ(move(&n_and_subsection, &source, &n_and_subsection, &target), 0);
    GW_EXPECT_EQ(target.dma_at, source.dma_at);
}

GW_TEST(vmstate_version, property_that_nothing_has_is_refused_with_those_that_there_are)
{
    struct disk disk = sample();
    struct gw_error err = GW_ERROR_INIT;
    GW_EXPECT_EQ(gw_vmstate_property_set(&n_and_subsection, &disk, "x-dmx", false, &err), -ENOENT);
    GW_EXPECT_STREQ(err.message, "vmstate 'disk': there is no property 'x-dmx'");
    GW_EXPECT_STREQ(err.hint, "it has x-dma");
    GW_EXPECT(disk.has_dma);
}

GW_TEST(vmstate_version, n_to_n_plus_1_with_a_field_more)
{
    struct disk source = sample(), target;
    GW_EXPECT_EQ(move(&n, &source, &n_and_field, &target), 0);
    GW_EXPECT_EQ(target.sector, source.sector);
    GW_EXPECT_EQ(target.flags, 0xffff); /* what it had */
}

GW_TEST(vmstate_version, n_plus_1_to_n_with_a_field_more)
{
    struct disk source = sample(), target;
    int rc = move(&n_and_field, &source, &n, &target);
    RIG_EXPECT_REFUSED(rc, -EINVAL,
                       "machine 'pc-7.2': device '0000:00:04.0/dev' instance 3: section 'disk' at "
                       "offset 0: version 3 arrived, 1 to 2 are taken here");
    GW_EXPECT_EQ(move(&n_and_field, &source, &n_and_field, &target), 0);
    GW_EXPECT_EQ(target.flags, source.flags);
}

GW_TEST(vmstate_version, field_that_is_gone_in_both_directions)
{
    struct disk source = sample(), target;
    GW_EXPECT_EQ(move(&n, &source, &n_without_cache, &target), 0);
    GW_EXPECT_EQ(target.sector, source.sector);
    GW_EXPECT_EQ(target.cache, 7); /* what it had */
    GW_EXPECT_EQ(move(&n_without_cache, &source, &n, &target), 0);
    GW_EXPECT_EQ(target.sector, source.sector);
    GW_EXPECT_EQ(target.cache, 0);
}

/* Gone with its room, in a new version: what older ones send is read, and dropped. */
static bool disk_had_cache(const void *opaque, uint32_t version_id)
{
    (void)opaque;
    return version_id < 3;
}
static const struct gw_vmstate n_without_room = {
    GW_VMSTATE_OF(struct disk),
    .name = "disk",
    .version_id = 3,
    .minimum_version_id = 1,
    GW_VMSTATE_FIELDS(GW_VMSTATE_UINT32(sector, struct disk),
                      GW_VMSTATE_UNUSED_TEST(struct disk, 4, disk_had_cache),
                      GW_VMSTATE_UINT16_V(flags, struct disk, 3)),
};

GW_TEST(vmstate_version, field_that_is_gone_with_its_room)
{
    struct disk source = sample(), target;
    GW_EXPECT_EQ(move(&n, &source, &n_without_room, &target), 0);
    GW_EXPECT_EQ(target.sector, source.sector);
    GW_EXPECT_EQ(target.cache, 7); /* what it had */
    GW_EXPECT_EQ(target.flags, 0xffff);
    int rc = move(&n_without_room, &source, &n, &target);
    RIG_EXPECT_REFUSED(rc, -EINVAL,
                       "machine 'pc-7.2': device '0000:00:04.0/dev' instance 3: section 'disk' at "
                       "offset 0: version 3 arrived, 1 to 2 are taken here");
    GW_EXPECT_EQ(target.sector, 0); /* as it was */
    GW_EXPECT_EQ(move(&n_without_room, &source, &n_without_room, &target), 0);
    GW_EXPECT_EQ(target.sector, source.sector);
    GW_EXPECT_EQ(target.flags, source.flags);
}

/* ---- presence ------------------------------------------------------------------------------------ */

static bool always(const void *opaque, uint32_t version_id)
{
    (void)opaque;
    (void)version_id;
    return true;
}

static bool before_2(const void *opaque, uint32_t version_id)
{
    (void)opaque;
    return version_id < 2;
}

static const struct gw_vmstate tested = {
    GW_VMSTATE_OF(struct disk),
    .name = "disk",
    .version_id = 2,
    GW_VMSTATE_FIELDS(GW_VMSTATE_UINT32(sector, struct disk, .version_id = 2, .test = always),
                      GW_VMSTATE_UINT16_TEST(flags, struct disk, before_2)),
};

GW_TEST(vmstate_version, test_alone_decides_and_is_told_the_version)
{
    struct disk disk = {0};
    static const uint8_t bytes[] = {0, 0, 0, 9, 0, 1};
    GW_EXPECT_EQ(rig_load_version(&tested, &disk, bytes, 6, 1), 0);
    GW_EXPECT(disk.sector == 9 && disk.flags == 1);
    disk = (struct disk){0};
    GW_EXPECT_EQ(rig_load_version(&tested, &disk, bytes, 4, 2), 0);
    GW_EXPECT(disk.sector == 9 && disk.flags == 0);
}

/* ---- versions that the table does not describe --------------------------------------------------- */

static int load_disk_1(void *opaque, struct gw_reader *r, uint32_t version_id, struct gw_error *err)
{
    struct disk *disk = opaque;
    disk->old_loads++;
    if (version_id != 1)
        return gw_error_set(err, -EINVAL, GW_CODE_DEVICE, "not of version 1");
    disk->sector = (uint32_t)gw_reader_be16(r) * 8; /* was counted in pages */
    return 0;
}

static const struct gw_vmstate n_without_1 = {
    GW_VMSTATE_OF(struct disk),
    .name = "disk",
    .version_id = 3,
    .minimum_version_id = 2,
    .minimum_version_id_old = 1,
    .load_state_old = load_disk_1,
    GW_VMSTATE_FIELDS(GW_VMSTATE_UINT32(sector, struct disk),
                      GW_VMSTATE_UINT16_V(flags, struct disk, 3)),
};

GW_TEST(vmstate_version, old_version_is_loaded_by_its_own_loader)
{
    struct disk disk = {0};
    static const uint8_t one[] = {0x00, 0x02}, two[] = {0, 0, 0, 9}, three[] = {0, 0, 0, 9, 0, 1};
    GW_EXPECT_EQ(rig_load_version(&n_without_1, &disk, one, sizeof(one), 1), 0);
    GW_EXPECT_EQ(disk.sector, 16);
    GW_EXPECT_EQ(disk.old_loads, 1);
    GW_EXPECT_EQ(rig_load_version(&n_without_1, &disk, two, sizeof(two), 2), 0);
    GW_EXPECT_EQ(disk.sector, 9);
    GW_EXPECT_EQ(rig_load_version(&n_without_1, &disk, three, sizeof(three), 3), 0);
    GW_EXPECT_EQ(disk.flags, 1);
    GW_EXPECT_EQ(disk.old_loads, 1);
    GW_EXPECT_EQ(rig_load_version(&n_without_1, &disk, one, 1, 1), -EBADMSG);
    int rc = rig_load_version(&n_without_1, &disk, one, sizeof(one), 0);
    RIG_EXPECT_REFUSED(rc, -EINVAL,
                       "machine 'pc-7.2': device '0000:00:04.0/dev' instance 3: section 'disk' at "
                       "offset 0: version 0 arrived, 1 to 3 are taken here");
    struct gw_vmstate_device dev = rig_device(&n_without_1, &disk);
    struct gw_device_desc desc;
    GW_EXPECT_EQ(gw_vmstate_device_desc(&dev, &desc, &rig_err), 0);
    GW_EXPECT_EQ(desc.minimum_version_id, 1);
    GW_EXPECT_EQ(desc.version_id, 3);
}

/* ---- subsections --------------------------------------------------------------------------------- */

struct outer {
    uint8_t a, b, c, d;
};
static const struct gw_vmstate inner_deep = {
    GW_VMSTATE_OF(struct outer),
    .name = "box/in/deep",
    .version_id = 2,
    .minimum_version_id = 2,
    GW_VMSTATE_FIELDS(GW_VMSTATE_UINT8(c, struct outer)),
};
static const struct gw_vmstate inner = {
    GW_VMSTATE_OF(struct outer),
    .name = "box/in",
    .version_id = 1,
    GW_VMSTATE_FIELDS(GW_VMSTATE_UINT8(b, struct outer)),
    GW_VMSTATE_SUBSECTIONS(&inner_deep),
};
static const struct gw_vmstate other = {
    GW_VMSTATE_OF(struct outer),
    .name = "box/other",
    .version_id = 1,
    GW_VMSTATE_FIELDS(GW_VMSTATE_UINT8(d, struct outer)),
};
static const struct gw_vmstate box = {
    GW_VMSTATE_OF(struct outer),
    .name = "box",
    .version_id = 1,
    GW_VMSTATE_FIELDS(GW_VMSTATE_UINT8(a, struct outer)),
    GW_VMSTATE_SUBSECTIONS(&inner, &other),
};

#define IN 5, 6, 'b', 'o', 'x', '/', 'i', 'n', 0, 0, 0, 1, 0x22
#define DEEP 5, 11, 'b', 'o', 'x', '/', 'i', 'n', '/', 'd', 'e', 'e', 'p', 0, 0, 0, 2, 0x33
#define OTHER 5, 9, 'b', 'o', 'x', '/', 'o', 't', 'h', 'e', 'r', 0, 0, 0, 1, 0x44

#define LOAD_BOX(...)                                                                              \
    rig_load_version(&box, &object, (const uint8_t[]){__VA_ARGS__},                                \
                     sizeof((const uint8_t[]){__VA_ARGS__}), 1)

GW_TEST(vmstate_version, subsections_nest_and_come_in_any_order)
{
    struct outer object = {0};
    GW_EXPECT_EQ(LOAD_BOX(0x11, IN, DEEP, OTHER), 0);
    GW_EXPECT(object.a == 0x11 && object.b == 0x22 && object.c == 0x33 && object.d == 0x44);
    object = (struct outer){0};
    GW_EXPECT_EQ(LOAD_BOX(0x11, OTHER, IN), 0);
    GW_EXPECT(object.a == 0x11 && object.b == 0x22 && object.c == 0 && object.d == 0x44);
    object.c = 0x33;
    struct gw_writer w;
    static const uint8_t all[] = {0x11, IN, DEEP, OTHER}; /* as declared */
    GW_EXPECT_EQ(rig_save(&box, &object, &w), 0);
    GW_ASSERT_EQ(w.bytes, sizeof(all));
    GW_EXPECT_MEMEQ(w.data, all, sizeof(all));
    gw_writer_fini(&w);
}

GW_TEST(vmstate_version, subsection_that_comes_twice_is_refused)
{
    struct outer object = {0};
    int rc = LOAD_BOX(0x11, OTHER, IN, OTHER);
    RIG_EXPECT_REFUSED(rc, -EINVAL,
                       "machine 'pc-7.2': device '0000:00:04.0/dev' instance 3: section 'box' at "
                       "offset 30: subsection 'box/other' comes twice");
    GW_EXPECT(object.a == 0 && object.b == 0 && object.d == 0);
}

GW_TEST(vmstate_version, subsection_where_it_does_not_belong_is_not_known)
{
    struct outer object = {0};
    GW_EXPECT_EQ(LOAD_BOX(0x11, DEEP), -ENOENT);
    GW_EXPECT_EQ(LOAD_BOX(0x11, 5, 5, 'b', 'o', 'x', '/', 0x07, 0, 0, 0, 1), -ENOENT);
    GW_EXPECT(strstr(rig_err.message, "subsection 'box/?' is not known here"));
}

GW_TEST(vmstate_version, bytes_that_only_look_like_a_subsection_are_left)
{
    struct outer object;
    struct gw_vmstate_device dev = rig_device(&box, &object);
    static const uint8_t lookalikes[][14] = {
        {0x11, 5},                               /* nothing follows */
        {0x11, 5, 3, 'b', 'o', 'x'},             /* no longer than the name itself */
        {0x11, 5, 200, 'b', 'o', 'x', '/', 'o'}, /* longer than what is left */
        {0x11, 5, 5, 'b', 'o', 'a', '/', 'o'},   /* somebody else's */
    };
    static const size_t bytes[] = {2, 6, 8, 8};
    for (size_t i = 0; i < 4; i++) {
        struct gw_reader r;
        gw_reader_init(&r, lookalikes[i], bytes[i]);
        GW_EXPECT_EQ(gw_vmstate_load(&dev, &r, 1, &rig_err), 0);
        GW_EXPECT_EQ(gw_reader_left(&r), bytes[i] - 1);
    }
}

GW_TEST(vmstate_version, subsection_of_a_version_that_is_not_taken_is_refused)
{
    struct outer object = {0};
    int rc = LOAD_BOX(0x11, 5, 9, 'b', 'o', 'x', '/', 'o', 't', 'h', 'e', 'r', 0, 0, 0, 2, 0x44);
    RIG_EXPECT_REFUSED(rc, -EINVAL,
                       "machine 'pc-7.2': device '0000:00:04.0/dev' instance 3: section "
                       "'box/other' at offset 1: version 2 arrived, 0 to 1 are taken here");
    /* All 32 bits count, whatever others keep of them. */
    GW_EXPECT_EQ(LOAD_BOX(0x11, 5, 9, 'b', 'o', 'x', '/', 'o', 't', 'h', 'e', 'r', 0, 0, 1, 1),
                 -EINVAL);
    GW_EXPECT_EQ(LOAD_BOX(0x11, 5, 9, 'b', 'o', 'x', '/', 'o', 't', 'h', 'e', 'r', 0, 0), -EBADMSG);
}
