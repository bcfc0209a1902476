// SPDX-License-Identifier: MIT
/* Devices: a list kept in order of saving (priority, then order of adding), with copied names and
 * handlers. What an embedder's older header did not have yet is zero in the copy. */
#include "core/devices.h"

#include "core/base/alloc.h"
#include "core/base/bytes.h"

#include <stddef.h>
#include <string.h>

#define FLAGS_KNOWN (GW_DEVICE_EARLY | GW_DEVICE_WORKER)

void gw_devices_fini(struct gw_devices *devices)
{
    for (unsigned i = 0; i < devices->count; i++) {
        gw_free((char *)(uintptr_t)devices->list[i].name);
        gw_free((struct gw_device_ops *)(uintptr_t)devices->list[i].ops);
    }
    gw_free(devices->list);
    memset(devices, 0, sizeof(*devices));
}

const struct gw_device_desc *gw_devices_find(const struct gw_devices *devices, const char *name,
                                             uint32_t instance_id)
{
    for (unsigned i = 0; i < devices->count; i++) {
        const struct gw_device_desc *device = &devices->list[i];
        if (device->instance_id == instance_id && strcmp(device->name, name) == 0)
            return device;
    }
    return NULL;
}

bool gw_devices_have_workers(const struct gw_devices *devices)
{
    for (unsigned i = 0; i < devices->count; i++) {
        if (devices->list[i].flags & GW_DEVICE_WORKER)
            return true;
    }
    return false;
}

bool gw_devices_take_packets(const struct gw_devices *devices)
{
    for (unsigned i = 1; i < devices->count; i++) { /* 0 is memory */
        const struct gw_device_desc *device = &devices->list[i];
        if (device->ops && device->ops->load && !(device->flags & GW_DEVICE_WORKER))
            return false;
    }
    return gw_devices_have_workers(devices);
}

bool gw_device_is_early(const struct gw_device_desc *device)
{
    return device->flags & GW_DEVICE_EARLY && device->save;
}

bool gw_device_is_needed(const struct gw_device_desc *device)
{
    return device->save && (!device->needed || device->needed(device->opaque));
}

static int check_handlers(const struct gw_device_desc *desc, struct gw_error *err)
{
    const struct gw_device_ops *ops = desc->ops;
    if (ops->struct_bytes <= offsetof(struct gw_device_ops, is_active))
        return gw_fail(err, -EINVAL, "device '%s': struct_bytes of its handlers is not set",
                       desc->name);
    if (desc->flags & GW_DEVICE_EARLY)
        return gw_fail(err, -EINVAL, "device '%s': GW_DEVICE_EARLY and handlers exclude each other",
                       desc->name);
    return 0;
}

/* @desc is whole, whatever its caller knew of it. */
static int check(const struct gw_device_desc *desc, struct gw_error *err)
{
    size_t bytes = desc->name ? strnlen(desc->name, GW_NAME_BYTES_MAX + 1) : 0;
    if (bytes == 0 || bytes > GW_NAME_BYTES_MAX)
        return gw_fail(err, -EINVAL, "device: its name must have 1 to %d bytes", GW_NAME_BYTES_MAX);
    const uint8_t *odd = gw_text_find_odd(desc->name, bytes);
    if (odd)
        return gw_fail(err, -EINVAL, "device: byte 0x%02x in its name is not printable ASCII",
                       *odd);
    if (strcmp(desc->name, GW_RAM_NAME) == 0)
        return gw_fail(err, -EINVAL, "device 'ram': that name is the memory's");
    if (!desc->save && !desc->load && !desc->ops)
        return gw_fail(err, -EINVAL, "device '%s': neither save nor load is set", desc->name);
    if (desc->flags & ~FLAGS_KNOWN)
        return gw_fail(err, -EINVAL, "device '%s': flags 0x%x, of which 0x%x are not known",
                       desc->name, desc->flags, desc->flags & ~FLAGS_KNOWN);
    if (desc->flags & GW_DEVICE_WORKER && !desc->ops)
        return gw_fail(err, -EINVAL, "device '%s': GW_DEVICE_WORKER is for one with handlers",
                       desc->name);
    if (desc->minimum_version_id > desc->version_id)
        return gw_fail(err, -EINVAL, "device '%s': minimum_version_id %u is above version_id %u",
                       desc->name, desc->minimum_version_id, desc->version_id);
    return desc->ops ? check_handlers(desc, err) : 0;
}

int gw_machine_check(const char *machine, struct gw_error *err)
{
    size_t bytes = strnlen(machine, GW_NAME_BYTES_MAX + 1);
    if (bytes > GW_NAME_BYTES_MAX)
        return gw_fail(err, -EINVAL, "the machine name is longer than %d bytes", GW_NAME_BYTES_MAX);
    const uint8_t *odd = gw_text_find_odd(machine, bytes);
    if (odd)
        return gw_fail(err, -EINVAL, "byte 0x%02x in the machine name is not printable ASCII",
                       *odd);
    return 0;
}

/* As much of a desc as there was in the first version of its header: what follows came later. */
#define DESC_BYTES_LEAST offsetof(struct gw_device_desc, ops)

static int make_room(struct gw_devices *devices)
{
    if (devices->count < devices->room)
        return 0;
    unsigned room = devices->room ? devices->room * 2 : 16;
    struct gw_device_desc *list = gw_realloc(devices->list, room, sizeof(*list));
    if (!list)
        return -ENOMEM;
    devices->list = list;
    devices->room = room;
    return 0;
}

/* @desc was checked. */
static int add(struct gw_devices *devices, struct gw_device_desc *desc, struct gw_error *err)
{
    struct gw_device_ops *ops = desc->ops ? gw_zalloc(1, sizeof(*ops)) : NULL;
    char *name = gw_strdup(desc->name);
    if (!name || (desc->ops && !ops) || make_room(devices) < 0) {
        gw_free(ops);
        gw_free(name);
        return gw_fail(err, -ENOMEM, "device '%s': register", desc->name);
    }
    if (ops)
        memcpy(ops, desc->ops,
               desc->ops->struct_bytes < sizeof(*ops) ? desc->ops->struct_bytes : sizeof(*ops));
    desc->name = name;
    desc->ops = ops;
    unsigned at = devices->count;
    while (at > 0 && devices->list[at - 1].priority < desc->priority)
        at--;
    memmove(&devices->list[at + 1], &devices->list[at],
            (devices->count - at) * sizeof(devices->list[0]));
    devices->list[at] = *desc;
    devices->count++;
    return 0;
}

int gw_devices_add(struct gw_devices *devices, const struct gw_device_desc *given,
                   struct gw_error *err)
{
    struct gw_device_desc desc = {0};
    if (given->struct_bytes < DESC_BYTES_LEAST)
        return gw_fail(err, -EINVAL, "device: struct_bytes is not set");
    memcpy(&desc, given, given->struct_bytes < sizeof(desc) ? given->struct_bytes : sizeof(desc));
    int rc = check(&desc, err);
    if (rc < 0)
        return rc;
    if (gw_devices_find(devices, desc.name, desc.instance_id))
        return gw_fail_code(err, -EEXIST, GW_CODE_INVALID,
                            "device '%s' instance %u is registered already", desc.name,
                            desc.instance_id);
    return add(devices, &desc, err);
}

int gw_devices_set_ram(struct gw_devices *devices, struct gw_ram *ram, struct gw_error *err)
{
    struct gw_device_desc desc = gw_savevm_ram(ram);
    if (devices->count == 0 || strcmp(devices->list[0].name, GW_RAM_NAME) != 0)
        return add(devices, &desc, err);
    devices->list[0].opaque = ram;
    return 0;
}
