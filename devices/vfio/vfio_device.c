// SPDX-License-Identifier: MIT
/* An opaque device as a device of a migration: the table of handlers, each of which is a call of
 * vfio.h's with another signature. */
#include "devices/vfio/vfio_impl.h"

#include <errno.h>

static int setup(void *opaque, struct gw_writer *w, struct gw_error *err)
{
    return gw_vfio_save_setup(opaque, w, err);
}

static int pending_estimate(void *opaque, struct gw_device_pending *pending, struct gw_error *err)
{
    return gw_vfio_pending(opaque, false, pending, err);
}

static int pending_exact(void *opaque, struct gw_device_pending *pending, struct gw_error *err)
{
    return gw_vfio_pending(opaque, true, pending, err);
}

static int iterate(void *opaque, struct gw_writer *w, uint64_t bytes_max, struct gw_error *err)
{
    return gw_vfio_save_iterate(opaque, w, bytes_max, err);
}

static int complete_precopy(void *opaque, struct gw_writer *w, uint64_t bytes_max,
                            struct gw_error *err)
{
    return gw_vfio_save_complete(opaque, w, bytes_max, err);
}

static int save(void *opaque, struct gw_writer *w, struct gw_error *err)
{
    return gw_vfio_save_config(opaque, w, err);
}

static void cleanup(void *opaque)
{
    gw_vfio_save_cleanup(opaque);
}

static int load_setup(void *opaque, struct gw_error *err)
{
    return gw_vfio_load_setup(opaque, err);
}

static bool switchover_ack_needed(void *opaque)
{
    return gw_vfio_needs_ack(opaque);
}

static int load(void *opaque, struct gw_reader *r, enum gw_device_part part, uint32_t version_id,
                struct gw_error *err)
{
    struct gw_vfio *v = opaque;
    (void)version_id;
    int rc = gw_vfio_load(v, r, err);
    if (rc == 0 && part == GW_DEVICE_BEGIN && v->load_step != GW_VFIO_LOAD_DATA)
        return gw_error_set(err, -EPROTO, GW_CODE_DEVICE,
                            "device '%s': load: its first section has no set-up", v->config.name);
    return rc;
}

static int load_complete(void *opaque, struct gw_error *err)
{
    return gw_vfio_load_finish(opaque, err);
}

static void load_cleanup(void *opaque)
{
    gw_vfio_load_cleanup(opaque);
}

static const struct gw_device_ops handlers = {
    .struct_bytes = sizeof(handlers),
    .setup = setup,
    .pending_estimate = pending_estimate,
    .pending_exact = pending_exact,
    .iterate = iterate,
    .complete_precopy = complete_precopy,
    .cleanup = cleanup,
    .load_setup = load_setup,
    .switchover_ack_needed = switchover_ack_needed,
    .load = load,
    .load_complete = load_complete,
    .load_cleanup = load_cleanup,
};

void gw_vfio_device_desc(struct gw_vfio *vfio, struct gw_device_desc *desc)
{
    *desc = (struct gw_device_desc){
        .struct_bytes = sizeof(*desc),
        .name = vfio->config.name,
        .version_id = GW_VFIO_VERSION,
        .minimum_version_id = GW_VFIO_VERSION,
        .opaque = vfio,
        .save = save,
        .flags = GW_DEVICE_WORKER, /* drivers know nothing of guest memory */
        .ops = &handlers,
    };
}
