// SPDX-License-Identifier: MIT
/* Devices: a list kept in order of saving (priority, then order of adding), with copied names. */
#include "core/devices.h"

#include "core/base/alloc.h"
#include "core/base/bytes.h"

#include <string.h>

void gw_devices_fini(struct gw_devices *devices)
{
    for (unsigned i = 0; i < devices->count; i++)
        gw_free((char *)(uintptr_t)devices->list[i].name);
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

static int check(const struct gw_device_desc *desc, struct gw_error *err)
{
    if (desc->struct_bytes < sizeof(*desc))
        return gw_fail(err, -EINVAL, "device: struct_bytes is not set");
    size_t bytes = desc->name ? strnlen(desc->name, GW_NAME_BYTES_MAX + 1) : 0;
    if (bytes == 0 || bytes > GW_NAME_BYTES_MAX)
        return gw_fail(err, -EINVAL, "device: its name must have 1 to %d bytes", GW_NAME_BYTES_MAX);
    const uint8_t *odd = gw_text_find_odd(desc->name, bytes);
    if (odd)
        return gw_fail(err, -EINVAL, "device: byte 0x%02x in its name is not printable ASCII",
                       *odd);
    if (strcmp(desc->name, "ram") == 0)
        return gw_fail(err, -EINVAL, "device 'ram': that name is the memory's");
    if (!desc->save && !desc->load)
        return gw_fail(err, -EINVAL, "device '%s': neither save nor load is set", desc->name);
    if (desc->flags)
        return gw_fail(err, -EINVAL, "device '%s': flags 0x%x, and none exist yet", desc->name,
                       desc->flags);
    if (desc->minimum_version_id > desc->version_id)
        return gw_fail(err, -EINVAL, "device '%s': minimum_version_id %u is above version_id %u",
                       desc->name, desc->minimum_version_id, desc->version_id);
    return 0;
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

int gw_devices_add(struct gw_devices *devices, const struct gw_device_desc *desc,
                   struct gw_error *err)
{
    int rc = check(desc, err);
    if (rc < 0)
        return rc;
    if (gw_devices_find(devices, desc->name, desc->instance_id))
        return gw_fail_code(err, -EEXIST, GW_CODE_INVALID,
                            "device '%s' instance %u is registered already", desc->name,
                            desc->instance_id);
    if (devices->count == devices->room) {
        unsigned room = devices->room ? devices->room * 2 : 16;
        struct gw_device_desc *list = gw_realloc(devices->list, room, sizeof(*list));
        if (!list)
            return gw_fail(err, -ENOMEM, "device '%s': register", desc->name);
        devices->list = list;
        devices->room = room;
    }
    char *name = gw_strdup(desc->name);
    if (!name)
        return gw_fail(err, -ENOMEM, "device '%s': register", desc->name);
    unsigned at = devices->count;
    while (at > 0 && devices->list[at - 1].priority < desc->priority)
        at--;
    memmove(&devices->list[at + 1], &devices->list[at],
            (devices->count - at) * sizeof(devices->list[0]));
    devices->list[at] = *desc;
    devices->list[at].name = name;
    devices->count++;
    return 0;
}
