// SPDX-License-Identifier: MIT
/* A device's state as sections of the savevm stream: its handlers, and its save, are called between a
 * head and a footer; what arrives is found its device and read by it. RAM is a device like others here
 * (savevm_ram.c). Whoever fails is named, whatever it said. Bytes: docs/protocol.md section 4. */
#include "core/devices.h"

#include "control/vmdesc.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* @rc of a callback that perhaps filled @err. */
static int callback_failed(const struct gw_device_desc *device, const char *verb, int rc,
                           struct gw_error *err)
{
    if (!gw_error_is_set(err))
        gw_fail_code(err, rc, GW_CODE_DEVICE, "%s failed (%s)", verb, strerror(-rc));
    return gw_error_prefix(err, "device '%s' instance %" PRIu32, device->name, device->instance_id);
}

/* ---- writing ------------------------------------------------------------------------------------- */

static void begin(struct gw_writer *w, const struct gw_device_desc *device, enum gw_item_type type,
                  uint32_t section_id)
{
    struct gw_section section = {.type = type,
                                 .section_id = section_id,
                                 .instance_id = device->instance_id,
                                 .version_id = device->version_id};
    snprintf(section.idstr, sizeof(section.idstr), "%s", device->name);
    gw_stream_write_section(w, &section);
}

/* @rc is what the callback returned: 0, or GW_DEVICE_DONE, or why it failed. */
static int end(struct gw_writer *w, const struct gw_device_desc *device, uint32_t section_id,
               const char *verb, int rc, struct gw_error *err)
{
    if (rc < 0)
        return callback_failed(device, verb, rc, err);
    gw_stream_write_footer(w, section_id);
    if (gw_writer_error(w) == 0)
        return rc;
    rc = gw_writer_error(w);
    gw_fail_code(err, rc, GW_CODE_DEVICE, "device '%s' instance %" PRIu32 ": its state %s",
                 device->name, device->instance_id,
                 rc == -E2BIG ? "does not fit" : "finds no memory");
    if (rc == -E2BIG)
        gw_error_hint(err,
                      "raise x-section-max at the target, or give the device handlers, which may "
                      "write any number of sections (godwit/device.h)");
    return rc;
}

int gw_savevm_setup(struct gw_writer *w, const struct gw_device_desc *device, uint32_t section_id,
                    struct gw_error *err)
{
    int rc = 0;
    gw_error_clear(err);
    begin(w, device, GW_ITEM_START, section_id);
    if (device->ops->setup)
        rc = device->ops->setup(device->opaque, w, err);
    rc = end(w, device, section_id, "setup", rc, err);
    return rc < 0 ? rc : 0;
}

int gw_savevm_iterate(struct gw_writer *w, const struct gw_device_desc *device, uint32_t section_id,
                      uint64_t bytes_max, struct gw_error *err)
{
    gw_error_clear(err);
    begin(w, device, GW_ITEM_PART, section_id);
    size_t head = w->bytes;
    int rc = device->ops->iterate(device->opaque, w, bytes_max, err);
    bool nothing = rc >= 0 && gw_writer_error(w) == 0 && w->bytes == head;
    if (!nothing)
        return end(w, device, section_id, "iterate", rc, err);
    gw_writer_reset(w); /* no section */
    return rc;
}

int gw_savevm_complete(struct gw_writer *w, const struct gw_device_desc *device,
                       uint32_t section_id, uint64_t bytes_max, struct gw_error *err)
{
    int rc = GW_DEVICE_DONE;
    gw_error_clear(err);
    begin(w, device, GW_ITEM_PART, section_id);
    size_t head = w->bytes;
    if (device->ops->complete_precopy)
        rc = device->ops->complete_precopy(device->opaque, w, bytes_max, err);
    if (rc == 0 && gw_writer_error(w) == 0 && w->bytes == head) /* for ever, the guest paused */
        rc = gw_fail_code(err, -EPROTO, GW_CODE_DEVICE, "says that there is more, and wrote none");
    if (rc == GW_DEVICE_DONE && w->bytes > 0)
        w->data[0] = GW_ITEM_END; /* only now is it known which; their heads are alike */
    return end(w, device, section_id, "complete_precopy", rc, err);
}

int gw_savevm_save(struct gw_writer *w, const struct gw_device_desc *device, uint32_t section_id,
                   struct gw_vmdesc *desc, struct gw_error *err)
{
    gw_error_clear(err);
    begin(w, device, GW_ITEM_FULL, section_id);
    size_t head = w->bytes;
    w->desc = desc;
    if (desc)
        gw_vmdesc_device_begin(desc, device->name, device->instance_id);
    int rc = device->save ? device->save(device->opaque, w, err) : -EOPNOTSUPP;
    w->desc = NULL;
    if (desc)
        gw_vmdesc_device_end(desc, w->bytes - head);
    return end(w, device, section_id, "save", rc < 0 ? rc : 0, err);
}

/* ---- reading ------------------------------------------------------------------------------------- */

static int check_version(const struct gw_device_desc *device, const struct gw_section *section,
                         struct gw_error *err)
{
    if (section->version_id >= device->minimum_version_id &&
        section->version_id <= device->version_id)
        return 0;
    return gw_fail_code(err, -EINVAL, GW_CODE_DEVICE,
                        "section '%s' instance %" PRIu32 ": version %" PRIu32
                        " arrived, versions %" PRIu32 " to %" PRIu32 " are taken",
                        section->idstr, section->instance_id, section->version_id,
                        device->minimum_version_id, device->version_id);
}

static enum gw_device_part part_of(enum gw_item_type type)
{
    switch (type) {
    case GW_ITEM_START:
        return GW_DEVICE_BEGIN;
    case GW_ITEM_PART:
        return GW_DEVICE_PART;
    case GW_ITEM_END:
        return GW_DEVICE_END;
    default:
        return GW_DEVICE_FULL;
    }
}

static bool takes(const struct gw_device_desc *device, enum gw_device_part part)
{
    return (device->ops && device->ops->load) || (part == GW_DEVICE_FULL && device->load);
}

static int find(const struct gw_devices *devices, const struct gw_section *section,
                const struct gw_device_desc **found, struct gw_error *err)
{
    const struct gw_device_desc *device =
        gw_devices_find(devices, section->idstr, section->instance_id);
    if (device && takes(device, part_of(section->type))) {
        *found = device;
        return check_version(device, section, err);
    }
    if (device && device->load) {
        gw_fail_code(err, -ENOENT, GW_CODE_DEVICE,
                     "section '%s' instance %" PRIu32
                     ": it comes in many sections, and the device here takes one",
                     section->idstr, section->instance_id);
        gw_error_hint(err, "give the device the same handlers at both ends");
        return -ENOENT;
    }
    gw_fail_code(err, -ENOENT, GW_CODE_DEVICE,
                 "section '%s' instance %" PRIu32 ": no such device here", section->idstr,
                 section->instance_id);
    gw_error_hint(err, "start the target with the same devices as the source");
    return -ENOENT;
}

static int call_load(const struct gw_device_desc *device, const struct gw_section *section,
                     struct gw_reader *body, struct gw_error *err)
{
    enum gw_device_part part = part_of(section->type);
    if (!device->ops || !device->ops->load) {
        int rc = device->load(device->opaque, body, section->version_id, err);
        return rc < 0 ? rc : 0;
    }
    int rc = device->ops->load(device->opaque, body, part, section->version_id, err);
    if (rc > 0 && (part == GW_DEVICE_END || part == GW_DEVICE_FULL))
        return gw_fail_code(err, -EPROTO, GW_CODE_DEVICE, "it acknowledges a pause that has begun");
    return rc;
}

int gw_savevm_load(const struct gw_devices *devices, const struct gw_section *section,
                   struct gw_reader *body, struct gw_error *err)
{
    const struct gw_device_desc *device = NULL;
    int rc = find(devices, section, &device, err);
    if (rc < 0)
        return rc;
    gw_error_clear(err);
    rc = call_load(device, section, body, err);
    if (rc >= 0 && gw_reader_error(body) < 0)
        rc = gw_fail_code(err, -EBADMSG, GW_CODE_DEVICE, "its state ends too early");
    if (rc >= 0 && gw_reader_left(body) != 0)
        rc = gw_fail_code(err, -EBADMSG, GW_CODE_DEVICE, "%zu bytes of its state were not consumed",
                          gw_reader_left(body));
    return rc < 0 ? callback_failed(device, "load", rc, err) : rc;
}

/* ---- passes without sections --------------------------------------------------------------------- */

int gw_savevm_pending(const struct gw_device_desc *device, bool exact,
                      struct gw_device_pending *pending, struct gw_error *err)
{
    int (*ask)(void *, struct gw_device_pending *, struct gw_error *) =
        exact && device->ops->pending_exact ? device->ops->pending_exact
                                            : device->ops->pending_estimate;
    *pending = (struct gw_device_pending){0};
    gw_error_clear(err);
    int rc = ask ? ask(device->opaque, pending, err) : 0;
    return rc < 0 ? callback_failed(device, exact ? "pending_exact" : "pending_estimate", rc, err)
                  : 0;
}

int gw_savevm_load_setup(const struct gw_devices *devices, struct gw_error *err)
{
    for (unsigned i = 0; i < devices->count; i++) {
        const struct gw_device_desc *device = &devices->list[i];
        if (!device->ops || !device->ops->load_setup)
            continue;
        gw_error_clear(err);
        int rc = device->ops->load_setup(device->opaque, err);
        if (rc < 0)
            return callback_failed(device, "load_setup", rc, err);
    }
    return 0;
}

int gw_savevm_load_complete(const struct gw_devices *devices, struct gw_error *err)
{
    for (unsigned i = 0; i < devices->count; i++) {
        const struct gw_device_desc *device = &devices->list[i];
        if (!device->ops || !device->ops->load_complete)
            continue;
        gw_error_clear(err);
        int rc = device->ops->load_complete(device->opaque, err);
        if (rc < 0)
            return callback_failed(device, "load_complete", rc, err);
    }
    return 0;
}
