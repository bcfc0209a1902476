// SPDX-License-Identifier: MIT
/* Hooks: in which order they are called, what their failures say, and that a device is one. */
#include "tests/unit/control/vmstate_rig.h"

#include <errno.h>

/* ---- order --------------------------------------------------------------------------------------- */

static char calls[512];

static void note(const char *what)
{
    size_t used = strlen(calls);
    snprintf(calls + used, sizeof(calls) - used, "%s%s", used > 0 ? " " : "", what);
}

struct part {
    uint8_t value;
};
struct whole {
    struct part parts[2];
    uint8_t tail, extra;
    const char *fails; /* the hook that does */
};

static struct whole *current;

static int call(const char *what, struct gw_error *err)
{
    note(what);
    if (current->fails && strcmp(current->fails, what) == 0)
        return gw_error_set(err, -EIO, GW_CODE_DEVICE, "it is broken");
    return 0;
}

#define HOOKS(name)                                                                                \
    static int name##_pre_save(void *opaque, struct gw_error *err)                                 \
    {                                                                                              \
        (void)opaque;                                                                              \
        return call(#name ".pre_save", err);                                                       \
    }                                                                                              \
    static int name##_post_save(void *opaque, struct gw_error *err)                                \
    {                                                                                              \
        (void)opaque;                                                                              \
        return call(#name ".post_save", err);                                                      \
    }                                                                                              \
    static int name##_pre_load(void *opaque, struct gw_error *err)                                 \
    {                                                                                              \
        (void)opaque;                                                                              \
        return call(#name ".pre_load", err);                                                       \
    }                                                                                              \
    static int name##_post_load(void *opaque, uint32_t version_id, struct gw_error *err)           \
    {                                                                                              \
        (void)opaque;                                                                              \
        GW_EXPECT_EQ(version_id, 1);                                                               \
        return call(#name ".post_load", err);                                                      \
    }                                                                                              \
    static void name##_load_failed(void *opaque)                                                   \
    {                                                                                              \
        (void)opaque;                                                                              \
        note(#name ".load_failed");                                                                \
    }
#define HOOKED(name)                                                                               \
    .version_id = 1, .pre_save = name##_pre_save, .post_save = name##_post_save,                   \
    .pre_load = name##_pre_load, .post_load = name##_post_load, .load_failed = name##_load_failed

HOOKS(part)
HOOKS(sub)
HOOKS(whole)

static const struct gw_vmstate part_vmsd = {
    GW_VMSTATE_OF(struct part),
    .name = "part",
    HOOKED(part),
    GW_VMSTATE_FIELDS(GW_VMSTATE_UINT8(value, struct part)),
};
static const struct gw_vmstate sub_vmsd = {
    GW_VMSTATE_OF(struct whole),
    .name = "whole/sub",
    HOOKED(sub),
    GW_VMSTATE_FIELDS(GW_VMSTATE_UINT8(extra, struct whole)),
};
static const struct gw_vmstate whole_vmsd = {
    GW_VMSTATE_OF(struct whole),
    .name = "whole",
    .minimum_version_id = 1,
    .priority = GW_VMSTATE_PRIORITY_IOMMU,
    HOOKED(whole),
    GW_VMSTATE_FIELDS(GW_VMSTATE_STRUCT_ARRAY(parts, struct whole, 2, part_vmsd, struct part),
                      GW_VMSTATE_UINT8(tail, struct whole)),
    GW_VMSTATE_SUBSECTIONS(&sub_vmsd),
};

static int save(struct whole *object, struct gw_writer *w)
{
    calls[0] = '\0';
    current = object;
    return rig_save(&whole_vmsd, object, w);
}

/* Of what save() wrote. */
static int load(struct whole *object)
{
    struct whole from = {.parts = {{1}, {2}}, .tail = 3, .extra = 4};
    struct gw_writer w;
    GW_ASSERT_EQ(save(&from, &w), 0);
    calls[0] = '\0';
    current = object;
    int rc = rig_load(&whole_vmsd, object, w.data, w.bytes);
    gw_writer_fini(&w);
    return rc;
}

GW_TEST(vmstate_hooks, are_called_inside_out_in_the_order_of_the_table)
{
    struct whole object = {0};
    struct gw_writer w;
    GW_EXPECT_EQ(save(&object, &w), 0);
    GW_EXPECT_STREQ(calls, "whole.pre_save part.pre_save part.post_save part.pre_save "
                           "part.post_save sub.pre_save sub.post_save whole.post_save");
    gw_writer_fini(&w);
    GW_EXPECT_EQ(load(&object), 0);
    GW_EXPECT_STREQ(calls, "whole.pre_load part.pre_load part.post_load part.pre_load "
                           "part.post_load sub.pre_load sub.post_load whole.post_load");
    GW_EXPECT_EQ(object.extra, 4);
}

GW_TEST(vmstate_hooks, load_that_fails_tells_all_that_began_the_last_one_first)
{
    struct whole object = {.fails = "sub.post_load", .parts = {{8}, {9}}};
    int rc = load(&object);
    RIG_EXPECT_REFUSED(rc, -EIO,
                       "machine 'pc-7.2': device '0000:00:04.0/dev' instance 3: section "
                       "'whole/sub' at offset 18: post_load: it is broken");
    GW_EXPECT_STREQ(calls, "whole.pre_load part.pre_load part.post_load part.pre_load "
                           "part.post_load sub.pre_load sub.post_load sub.load_failed "
                           "part.load_failed part.load_failed whole.load_failed");
    GW_EXPECT(object.parts[0].value == 8 && object.parts[1].value == 9 && object.tail == 0);
}

GW_TEST(vmstate_hooks, failures_name_hook_and_place)
{
    struct whole object = {.fails = "part.pre_load"};
    RIG_EXPECT_REFUSED(load(&object), -EIO,
                       "machine 'pc-7.2': device '0000:00:04.0/dev' instance 3: section 'whole': "
                       "field 'parts[0]' at offset 0: pre_load: it is broken");
    GW_EXPECT_EQ(rig_err.code, GW_CODE_DEVICE);
    GW_EXPECT_STREQ(calls, "whole.pre_load part.pre_load part.load_failed whole.load_failed");
}

GW_TEST(vmstate_hooks, post_save_follows_a_failure_and_the_first_failure_is_told)
{
    struct whole object = {.fails = "sub.pre_save"};
    struct gw_writer w;
    GW_EXPECT_EQ(save(&object, &w), -EIO);
    GW_EXPECT_STREQ(rig_err.message,
                    "machine 'pc-7.2': device '0000:00:04.0/dev' instance 3: section "
                    "'whole/sub' at offset 2: pre_save: it is broken");
    GW_EXPECT_STREQ(calls, "whole.pre_save part.pre_save part.post_save part.pre_save "
                           "part.post_save sub.pre_save whole.post_save");
    gw_writer_fini(&w);
    object.fails = "whole.post_save";
    GW_EXPECT_EQ(save(&object, &w), -EIO);
    GW_EXPECT_STREQ(rig_err.message,
                    "machine 'pc-7.2': device '0000:00:04.0/dev' instance 3: section "
                    "'whole' at offset 18: post_save: it is broken");
    gw_writer_fini(&w);
}

static int fail_silently(void *opaque, struct gw_error *err)
{
    (void)opaque;
    (void)err;
    return -EBUSY;
}
static const struct gw_vmstate silent_vmsd = {
    GW_VMSTATE_OF(struct part),
    .name = "silent",
    .pre_load = fail_silently,
};

GW_TEST(vmstate_hooks, failure_without_words_is_told_by_its_number)
{
    struct part part;
    RIG_EXPECT_REFUSED(
        rig_load(&silent_vmsd, &part, "", 0), -EBUSY,
        "machine 'pc-7.2': device '0000:00:04.0/dev' instance 3: section 'silent' at "
        "offset 0: pre_load failed (Device or resource busy)");
    /* An error record may be missing. */
    struct gw_vmstate_device dev = rig_device(&silent_vmsd, &part);
    struct gw_reader r;
    gw_reader_init(&r, "", 0);
    GW_EXPECT_EQ(gw_vmstate_load(&dev, &r, 0, NULL), -EBUSY);
}

/* ---- as a device --------------------------------------------------------------------------------- */

GW_TEST(vmstate_hooks, description_makes_a_device)
{
    struct whole object = {.parts = {{1}, {2}}, .tail = 3, .extra = 4};
    struct gw_vmstate_device dev = rig_device(&whole_vmsd, &object);
    struct gw_device_desc desc;
    current = &object;
    GW_ASSERT_EQ(gw_vmstate_device_desc(&dev, &desc, &rig_err), 0);
    GW_EXPECT_EQ(desc.struct_bytes, sizeof(desc));
    GW_EXPECT_STREQ(desc.name, "0000:00:04.0/dev");
    GW_EXPECT_EQ(desc.instance_id, 3);
    GW_EXPECT_EQ(desc.version_id, 1);
    GW_EXPECT_EQ(desc.minimum_version_id, 1);
    GW_EXPECT_EQ(desc.priority, GW_VMSTATE_PRIORITY_IOMMU);
    GW_EXPECT_EQ(desc.flags, 0);
    struct gw_writer w;
    struct gw_reader r;
    gw_writer_init(&w, 4096);
    GW_EXPECT_EQ(desc.save(desc.opaque, &w, &rig_err), 0);
    gw_reader_init(&r, w.data, w.bytes);
    object = (struct whole){0};
    GW_EXPECT_EQ(desc.load(desc.opaque, &r, 1, &rig_err), 0);
    GW_EXPECT(object.parts[1].value == 2 && object.tail == 3 && object.extra == 4);
    gw_reader_init(&r, w.data, 2);
    GW_EXPECT_EQ(desc.load(desc.opaque, &r, 1, &rig_err), -EBADMSG);
    /* Whoever calls it names the device, as for every other. */
    GW_EXPECT_STREQ(rig_err.message, "machine 'pc-7.2': section 'whole': field 'tail' at offset 2: "
                                     "the state ends too early: 1 of 1 bytes, 0 are left");
    dev.name = NULL;
    GW_EXPECT_EQ(gw_vmstate_device_desc(&dev, &desc, &rig_err), 0);
    GW_EXPECT_STREQ(desc.name, "whole");
    dev.struct_bytes = 0;
    GW_EXPECT_EQ(gw_vmstate_device_desc(&dev, &desc, &rig_err), -EINVAL);
    gw_writer_fini(&w);
}

GW_TEST(vmstate_hooks, early_state_is_flagged)
{
    static const struct gw_vmstate early = {
        GW_VMSTATE_OF(struct part),
        .name = "early",
        .early_setup = true,
    };
    struct part part;
    struct gw_vmstate_device dev = rig_device(&early, &part);
    struct gw_device_desc desc;
    GW_EXPECT_EQ(gw_vmstate_device_desc(&dev, &desc, &rig_err), 0);
    GW_EXPECT_EQ(desc.flags, GW_DEVICE_EARLY);
}
