// SPDX-License-Identifier: MIT
/* The VMState engine's calls: a description bound to an object is checked, saved, loaded, switched.
 * vmstate_save.c and vmstate_load.c walk the table; this file begins and ends the walk, and says where
 * it was when something went wrong. */
#include "control/vmstate.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* ---- where the walk is ------------------------------------------------------------------------- */

#define PATH_BYTES 128

static const char *device_name(const struct gw_vmstate_device *dev)
{
    return dev->name ? dev->name : dev->vmsd->name;
}

struct gw_vmframe *gw_vmrun_frame(struct gw_vmrun *run)
{
    return &run->frames[run->depth - 1];
}

/* Member names from the section at work down to the field: "queues[3].ring.size". */
static void write_path(const struct gw_vmrun *run, unsigned from, char *path)
{
    size_t used = 0;
    path[0] = '\0';
    for (unsigned i = from; i < run->depth; i++) {
        const struct gw_vmframe *frame = &run->frames[i];
        if (!frame->field)
            break;
        char index[24] = "";
        if (frame->indexed)
            snprintf(index, sizeof(index), "[%zu]", frame->index);
        int more = snprintf(path + used, PATH_BYTES - used, "%s%s%s", used > 0 ? "." : "",
                            frame->field->name, index);
        used += more > 0 ? (size_t)more : 0;
        if (used >= PATH_BYTES)
            return;
    }
}

/* "machine 'pc': device 'disk' instance 0: section 'disk': field 'x' at offset 41" */
static void write_place(const struct gw_vmrun *run, char *place, size_t bytes)
{
    size_t used = 0;
    place[0] = '\0';
#define ADD(...)                                                                                   \
    do {                                                                                           \
        int more = snprintf(place + used, bytes - used, __VA_ARGS__);                              \
        used += more > 0 ? (size_t)more : 0;                                                       \
        if (used >= bytes)                                                                         \
            return;                                                                                \
    } while (0)
    const struct gw_vmstate_device *dev = run->dev;
    if (dev->machine)
        ADD("machine '%s': ", dev->machine);
    if (run->names_device)
        ADD("device '%s' instance %u: ", device_name(dev), dev->instance_id);
    unsigned section = run->depth;
    while (section > 0 && !run->frames[section - 1].is_section)
        section--;
    if (section > 0)
        ADD("section '%s'", run->frames[section - 1].vmsd->name);
    char path[PATH_BYTES];
    write_path(run, section > 0 ? section - 1 : 0, path);
    if (path[0] != '\0')
        ADD(": field '%s'", path);
    ADD(" at offset %zu", run->at - run->start);
#undef ADD
}

int gw_vmrun_fail(struct gw_vmrun *run, int rc, const char *format, ...)
{
    char place[sizeof(((struct gw_error *)0)->message)];
    char what[sizeof(((struct gw_error *)0)->message)];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof(what), format, args);
    va_end(args);
    write_place(run, place, sizeof(place) - 64); /* names may be long; what happened must be seen */
    gw_fail_code(run->err, rc, GW_CODE_DEVICE, "%s: %s", place, what);
    const struct gw_vmfield *field = run->depth > 0 ? gw_vmrun_frame(run)->field : NULL;
    if (field && field->hint)
        gw_error_hint(run->err, "%s", field->hint);
    return rc;
}

int gw_vmrun_hook_failed(struct gw_vmrun *run, int rc, const char *hook)
{
    if (!gw_error_is_set(run->err))
        return gw_vmrun_fail(run, rc, "%s failed (%s)", hook, strerror(-rc));
    char place[sizeof(((struct gw_error *)0)->message)];
    write_place(run, place, sizeof(place) - 64);
    gw_error_prefix(run->err, "%s: %s", place, hook);
    return rc;
}

int gw_vmrun_enter(struct gw_vmrun *run, const struct gw_vmstate *vmsd, bool is_section)
{
    if (run->depth == GW_VMSTATE_DEPTH_MAX)
        return gw_vmrun_fail(run, -EINVAL, "'%s' is nested deeper than %d", vmsd->name,
                             GW_VMSTATE_DEPTH_MAX);
    run->frames[run->depth++] = (struct gw_vmframe){.vmsd = vmsd, .is_section = is_section};
    return 0;
}

void gw_vmrun_leave(struct gw_vmrun *run)
{
    run->depth--;
}

/* ---- saving and loading ------------------------------------------------------------------------ */

static int check_device(const struct gw_vmstate_device *dev, struct gw_error *err)
{
    if (!dev || dev->struct_bytes < sizeof(*dev))
        return gw_fail(err, -EINVAL, "vmstate device: struct_bytes is not set");
    if (!dev->opaque)
        return gw_fail(err, -EINVAL, "vmstate device: there is no object");
    return gw_vmstate_check(dev->vmsd, err);
}

static int save(const struct gw_vmstate_device *dev, struct gw_writer *w, bool names_device,
                struct gw_error *err)
{
    struct gw_vmrun run = {.dev = dev,
                           .names_device = names_device,
                           .err = err,
                           .w = w,
                           .desc = w->desc,
                           .start = w->bytes,
                           .at = w->bytes};
    return gw_vmrun_save(&run, dev->vmsd, dev->opaque, dev->vmsd->version_id, true);
}

static int load(const struct gw_vmstate_device *dev, struct gw_reader *r, uint32_t version_id,
                bool names_device, struct gw_error *err)
{
    struct gw_vmrun run = {.dev = dev,
                           .names_device = names_device,
                           .err = err,
                           .r = r,
                           .alloc_left = GW_VMSTATE_ALLOC_BYTES_MAX,
                           .start = r->at,
                           .at = r->at};
    int rc = gw_vmrun_load(&run, dev->vmsd, dev->opaque, version_id, true);
    if (rc < 0)
        gw_vmundo_rollback(&run.undo);
    else
        gw_vmundo_commit(&run.undo);
    return rc;
}

int gw_vmstate_save(const struct gw_vmstate_device *dev, struct gw_writer *w, struct gw_error *err)
{
    gw_error_clear(err);
    int rc = check_device(dev, err);
    return rc < 0 ? rc : save(dev, w, true, err);
}

int gw_vmstate_load(const struct gw_vmstate_device *dev, struct gw_reader *r, uint32_t version_id,
                    struct gw_error *err)
{
    gw_error_clear(err);
    int rc = check_device(dev, err);
    return rc < 0 ? rc : load(dev, r, version_id, true, err);
}

/* ---- as a device ------------------------------------------------------------------------------- */

/* The table was checked when the device was made. Their caller names the device. */
static int save_device(void *opaque, struct gw_writer *w, struct gw_error *err)
{
    return save(opaque, w, false, err);
}

static int load_device(void *opaque, struct gw_reader *r, uint32_t version_id, struct gw_error *err)
{
    return load(opaque, r, version_id, false, err);
}

static bool is_needed(void *opaque)
{
    const struct gw_vmstate_device *dev = opaque;
    return gw_vmstate_is_needed(dev->vmsd, dev->opaque);
}

int gw_vmstate_device_desc(struct gw_vmstate_device *dev, struct gw_device_desc *desc,
                           struct gw_error *err)
{
    int rc = check_device(dev, err);
    if (rc < 0)
        return rc;
    const struct gw_vmstate *vmsd = dev->vmsd;
    *desc = (struct gw_device_desc){
        .struct_bytes = sizeof(*desc),
        .name = device_name(dev),
        .instance_id = dev->instance_id,
        .version_id = vmsd->version_id,
        .minimum_version_id =
            vmsd->load_state_old ? vmsd->minimum_version_id_old : vmsd->minimum_version_id,
        .priority = vmsd->priority,
        .flags = vmsd->early_setup ? GW_DEVICE_EARLY : 0,
        .opaque = dev,
        .save = save_device,
        .load = load_device,
        .needed = vmsd->needed || vmsd->property ? is_needed : NULL,
    };
    return 0;
}

/* ---- subsections and their properties ---------------------------------------------------------- */

bool gw_vmstate_is_needed(const struct gw_vmstate *vmsd, const void *opaque)
{
    if (vmsd->property) {
        bool on;
        memcpy(&on, (const char *)opaque + vmsd->property_offset, sizeof(on));
        if (!on)
            return false;
    }
    return !vmsd->needed || vmsd->needed(opaque);
}

/* Returns how many there were; writes the names of all to @known. */
static unsigned set_property(const struct gw_vmstate *vmsd, void *opaque, const char *property,
                             bool on, char *known, size_t bytes)
{
    unsigned found = 0;
    if (vmsd->property) {
        size_t used = strlen(known);
        snprintf(known + used, bytes - used, "%s%s", used > 0 ? ", " : "", vmsd->property);
        if (strcmp(vmsd->property, property) == 0) {
            memcpy((char *)opaque + vmsd->property_offset, &on, sizeof(on));
            found++;
        }
    }
    for (const struct gw_vmstate *const *sub = vmsd->subsections; sub && *sub; sub++)
        found += set_property(*sub, opaque, property, on, known, bytes);
    return found;
}

int gw_vmstate_property_set(const struct gw_vmstate *vmsd, void *opaque, const char *property,
                            bool on, struct gw_error *err)
{
    char known[256] = "";
    if (set_property(vmsd, opaque, property, on, known, sizeof(known)) > 0)
        return 0;
    gw_fail_code(err, -ENOENT, GW_CODE_INVALID, "vmstate '%s': there is no property '%s'",
                 vmsd->name, property);
    if (known[0] != '\0')
        gw_error_hint(err, "it has %s", known);
    return -ENOENT;
}
