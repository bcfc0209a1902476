// SPDX-License-Identifier: MIT
/* The registry of devices. */
#include "core/base/alloc.h"
#include "core/devices.h"
#include "tests/shim/gw_test.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

static struct gw_devices devices;
static struct gw_error err;

static int save(void *opaque, struct gw_writer *w, struct gw_error *why)
{
    (void)opaque, (void)w, (void)why;
    return 0;
}

static struct gw_device_desc device(const char *name, uint32_t instance, int32_t priority)
{
    return (struct gw_device_desc){.struct_bytes = sizeof(struct gw_device_desc),
                                   .name = name,
                                   .instance_id = instance,
                                   .priority = priority,
                                   .save = save};
}

static int add(const char *name, uint32_t instance, int32_t priority)
{
    struct gw_device_desc desc = device(name, instance, priority);
    err = (struct gw_error)GW_ERROR_INIT;
    return gw_devices_add(&devices, &desc, &err);
}

GW_TEST(devices, are_kept_by_priority_and_then_in_order_of_adding)
{
    static const char *const wanted[] = {"iommu", "pci", "disk", "net", "late"};
    GW_EXPECT_EQ(add("disk", 0, 0), 0);
    GW_EXPECT_EQ(add("late", 0, -5), 0);
    GW_EXPECT_EQ(add("iommu", 0, 100), 0);
    GW_EXPECT_EQ(add("net", 0, 0), 0);
    GW_EXPECT_EQ(add("pci", 0, 7), 0);
    for (unsigned i = 0; i < 5; i++)
        GW_EXPECT_STREQ(devices.list[i].name, wanted[i]);
    gw_devices_fini(&devices);
}

GW_TEST(devices, names_are_copied)
{
    char name[] = "disk";
    GW_EXPECT_EQ(add(name, 3, 0), 0);
    memset(name, 'x', 4);
    GW_EXPECT(gw_devices_find(&devices, "disk", 3) != NULL);
    GW_EXPECT(gw_devices_find(&devices, "disk", 2) == NULL);
    GW_EXPECT(gw_devices_find(&devices, "xxxx", 3) == NULL);
    gw_devices_fini(&devices);
    GW_EXPECT_EQ(gw_alloc_live(), 0);
}

GW_TEST(devices, name_and_instance_are_unique_together)
{
    GW_EXPECT_EQ(add("disk", 0, 0), 0);
    GW_EXPECT_EQ(add("disk", 1, 0), 0);
    GW_EXPECT_EQ(add("disk", 0, 9), -EEXIST);
    GW_EXPECT_EQ(devices.count, 2);
    gw_devices_fini(&devices);
}

GW_TEST(devices, malformed_ones_are_refused_with_a_reason)
{
    char longest[257];
    memset(longest, 'n', 256);
    longest[256] = '\0';
    struct gw_device_desc bad[8];
    for (unsigned i = 0; i < 8; i++)
        bad[i] = device("disk", 0, 0);
    bad[0].struct_bytes = offsetof(struct gw_device_desc, ops) - 1;
    bad[1].name = NULL;
    bad[2].name = "";
    bad[3].name = longest;
    bad[4].name = "ram";
    bad[5].save = NULL;
    bad[6].flags = 2;
    bad[7].minimum_version_id = 1;
    for (unsigned i = 0; i < 8; i++) {
        err = (struct gw_error)GW_ERROR_INIT;
        GW_EXPECT_EQ(gw_devices_add(&devices, &bad[i], &err), -EINVAL);
        GW_EXPECT(err.message[0] != '\0');
    }
    GW_EXPECT_EQ(devices.count, 0);
    longest[255] = '\0';
    GW_EXPECT_EQ(add(longest, 0, 0), 0);
    gw_devices_fini(&devices);
}

GW_TEST(devices, no_memory_changes_nothing)
{
    for (int64_t nth = 0; nth < 2; nth++) {
        gw_alloc_fail_after(nth);
        GW_EXPECT_EQ(add("disk", 0, 0), -ENOMEM);
        gw_alloc_fail_after(-1);
        GW_EXPECT_EQ(devices.count, 0);
    }
    GW_EXPECT_EQ(add("disk", 0, 0), 0);
    gw_devices_fini(&devices);
    GW_EXPECT_EQ(gw_alloc_live(), 0);
}

GW_TEST(devices, many_are_found)
{
    char name[16];
    for (unsigned i = 0; i < 100; i++) {
        snprintf(name, sizeof(name), "dev%u", i);
        GW_EXPECT_EQ(add(name, i, (int32_t)(i % 3)), 0);
    }
    for (unsigned i = 0; i < 100; i++) {
        snprintf(name, sizeof(name), "dev%u", i);
        const struct gw_device_desc *found = gw_devices_find(&devices, name, i);
        GW_EXPECT(found && found->priority == (int32_t)(i % 3));
    }
    gw_devices_fini(&devices);
}

static int iterate(void *opaque, struct gw_writer *w, uint64_t bytes_max, struct gw_error *why)
{
    (void)opaque, (void)w, (void)bytes_max, (void)why;
    return GW_DEVICE_DONE;
}

GW_TEST(devices, handlers_are_copied_and_exclude_being_early)
{
    struct gw_device_ops ops = {.struct_bytes = sizeof(ops), .iterate = iterate};
    struct gw_device_desc desc = device("nic", 0, 0);
    desc.ops = &ops;
    desc.save = NULL; /* handlers alone will do */
    GW_EXPECT_EQ(gw_devices_add(&devices, &desc, &err), 0);
    memset(&ops, 0, sizeof(ops));
    GW_EXPECT(devices.list[0].ops->iterate == iterate);
    desc.name = "other";
    GW_EXPECT_EQ(gw_devices_add(&devices, &desc, &err), -EINVAL); /* no struct_bytes */
    ops.struct_bytes = sizeof(ops);
    desc.flags = GW_DEVICE_EARLY;
    err = (struct gw_error)GW_ERROR_INIT;
    GW_EXPECT_EQ(gw_devices_add(&devices, &desc, &err), -EINVAL);
    GW_EXPECT(strstr(err.message, "GW_DEVICE_EARLY and handlers"));
    gw_devices_fini(&devices);
    GW_EXPECT_EQ(gw_alloc_live(), 0);
}

GW_TEST(devices, handlers_of_an_older_header_are_fewer)
{
    struct gw_device_ops ops = {.iterate = iterate, .complete_precopy = iterate};
    struct gw_device_desc desc = device("nic", 0, 0);
    desc.ops = &ops;
    ops.struct_bytes = offsetof(struct gw_device_ops, complete_precopy);
    GW_EXPECT_EQ(gw_devices_add(&devices, &desc, &err), 0);
    GW_EXPECT(devices.list[0].ops->iterate == iterate);
    GW_EXPECT(devices.list[0].ops->complete_precopy ==
              NULL); /* lies behind what such a caller has */
    gw_devices_fini(&devices);
}

GW_TEST(devices, desc_of_an_older_header_has_no_handlers)
{
    struct gw_device_ops ops = {.struct_bytes = sizeof(ops)};
    struct gw_device_desc desc = device("disk", 0, 0);
    desc.ops = &ops; /* lies behind what such a caller has */
    desc.struct_bytes = offsetof(struct gw_device_desc, ops);
    GW_EXPECT_EQ(gw_devices_add(&devices, &desc, &err), 0);
    GW_EXPECT(devices.list[0].ops == NULL);
    gw_devices_fini(&devices);
}

GW_TEST(devices, memory_is_the_first_whatever_the_priorities)
{
    GW_EXPECT_EQ(gw_devices_set_ram(&devices, NULL, &err), 0);
    GW_EXPECT_EQ(add("iommu", 0, INT32_MAX), 0);
    GW_EXPECT_STREQ(devices.list[0].name, "ram");
    GW_EXPECT_EQ(gw_devices_set_ram(&devices, (void *)&devices, &err), 0); /* of the next guest */
    GW_EXPECT(devices.list[0].opaque == &devices);
    GW_EXPECT_EQ(devices.count, 2);
    gw_devices_fini(&devices);
}
