// SPDX-License-Identifier: MIT
/* The core of a device: what a transport and a device type share, a device's life, its status, features,
 * and interrupts. The state's bytes are virtio_save.c's and virtio_load.c's. */
#include "devices/virtio/virtio_impl.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- words ------------------------------------------------------------------------------------- */

/* Whoever reads the section names the device. */
void gw_virtio_say_refused(struct gw_error *err, int fault, const char *field, const char *format,
                           ...)
{
    char what[200];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof(what), format, args);
    va_end(args);
    gw_error_set(err, fault, GW_CODE_DEVICE, "field '%s': %s", field, what);
}

void gw_virtio_log(const struct gw_virtio *dev, const char *format, ...)
{
    if (!dev->host.log)
        return;
    char text[256];
    int used = snprintf(text, sizeof(text), "device '%.64s': ", dev->name);
    va_list args;
    va_start(args, format);
    vsnprintf(text + used, sizeof(text) - (size_t)used, format, args);
    va_end(args);
    dev->host.log(dev->host.opaque, text);
}

/* ---- life -------------------------------------------------------------------------------------- */

static int check(const struct gw_virtio_config *config, struct gw_error *err)
{
    if (!config || config->struct_bytes < sizeof(*config))
        return gw_error_set(err, -EINVAL, GW_CODE_INVALID, "virtio: struct_bytes is not set");
    if (!config->name || config->name[0] == '\0' || strlen(config->name) > 200)
        return gw_error_set(err, -EINVAL, GW_CODE_INVALID, "virtio: a name has 1 to 200 bytes");
    if (!config->host.map)
        return gw_error_set(err, -EINVAL, GW_CODE_INVALID, "virtio '%s': there is no map()",
                            config->name);
    if (config->bus > GW_VIRTIO_PCI || (config->bus == GW_VIRTIO_PCI) != (config->pci != NULL))
        return gw_error_set(err, -EINVAL, GW_CODE_INVALID,
                            "virtio '%s': pci is for GW_VIRTIO_PCI, and needed there",
                            config->name);
    return 0;
}

static int no_memory(struct gw_error *err)
{
    return gw_error_set(err, -ENOMEM, GW_CODE_NO_MEMORY, "virtio: no memory for a device");
}

int gw_virtio_init(struct gw_virtio *dev, const struct gw_virtio_config *config,
                   struct gw_error *err)
{
    int rc = check(config, err);
    if (rc < 0)
        return rc;
    dev->virtio = dev->extra = dev;
    dev->host = config->host;
    dev->flags = config->flags;
    dev->host_features = config->features;
    dev->default_endian = config->endian == GW_VIRTIO_BIG ? GW_VIRTIO_BIG : GW_VIRTIO_LITTLE;
    dev->name = strdup(config->name);
    if (!dev->name || asprintf(&dev->shape_name, "%s/shape", config->name) < 0)
        return no_memory(err);
    dev->section = (struct gw_vmstate_device){.struct_bytes = sizeof(dev->section),
                                              .vmsd = dev->type->section,
                                              .opaque = dev,
                                              .name = dev->name,
                                              .machine = config->machine};
    dev->shape = dev->section;
    dev->shape.vmsd = &gw_virtio_shape_vmsd;
    dev->shape.name = dev->shape_name;
    dev->shape_bus = config->bus == GW_VIRTIO_PCI;
    dev->shape_queues = dev->queue_count;
    dev->shape_flags = config->flags;
    if (config->bus != GW_VIRTIO_PCI)
        rc = gw_virtio_mmio_new(dev, config->bus == GW_VIRTIO_MMIO_LEGACY);
    else
        rc = gw_virtio_pci_new(dev, config->pci, err);
    if (rc == -ENOMEM)
        return no_memory(err);
    if (rc == 0)
        gw_virtio_reset(dev);
    return rc;
}

void gw_virtio_free(struct gw_virtio *dev)
{
    if (!dev)
        return;
    dev->type->free(dev);
    free(dev->type_state);
    free(dev->bus_state);
    free(dev->shape_name);
    free(dev->name);
    free(dev);
}

static void reset_queue(struct gw_virtqueue *vq)
{
    *vq = (struct gw_virtqueue){.num = vq->num_default,
                                .num_default = vq->num_default,
                                .num_max = vq->num_max,
                                .align = 4096,
                                .vector = GW_VIRTIO_NO_VECTOR,
                                .last_avail_wrap = 1,
                                .used_wrap = 1};
}

void gw_virtio_reset_quietly(struct gw_virtio *dev)
{
    dev->type->reset(dev);
    gw_virtio_set_features(dev, 0);
    dev->status = dev->isr = 0;
    dev->queue_sel = 0;
    dev->config_vector = GW_VIRTIO_NO_VECTOR;
    dev->endian = dev->default_endian;
    dev->broken = dev->started = dev->disabled = 0;
    dev->start_on_kick = !gw_virtio_offers(dev, GW_VIRTIO_F_VERSION_1);
    for (unsigned n = 0; n < dev->queue_count; n++)
        reset_queue(&dev->queues[n]);
    memset(dev->config, 0, sizeof(dev->config)); /* until it is read */
    dev->stage = GW_VIRTIO_IDLE;
    dev->bus->reset(dev);
}

void gw_virtio_reset(struct gw_virtio *dev)
{
    gw_virtio_reset_quietly(dev);
    dev->bus->notify(dev, GW_VIRTIO_NO_VECTOR);
}

bool gw_virtio_is_broken(const struct gw_virtio *dev)
{
    return dev->broken != 0;
}

/* ---- as the migration sees it ------------------------------------------------------------------- */

int gw_virtio_device(struct gw_virtio *dev, struct gw_device_desc *desc, struct gw_error *err)
{
    return gw_vmstate_device_desc(&dev->section, desc, err);
}

int gw_virtio_shape(struct gw_virtio *dev, struct gw_device_desc *desc, struct gw_error *err)
{
    return gw_vmstate_device_desc(&dev->shape, desc, err);
}

/* ---- features, status -------------------------------------------------------------------------- */

int gw_virtio_has(const struct gw_virtio *dev, unsigned bit)
{
    if (dev->stage == GW_VIRTIO_PARTS && bit >= 32)
        return GW_VIRTIO_TOO_EARLY;
    return dev->guest_features >> bit & 1;
}

int gw_virtio_endian(const struct gw_virtio *dev)
{
    if (dev->stage == GW_VIRTIO_PARTS)
        return GW_VIRTIO_TOO_EARLY;
    return dev->endian;
}

void gw_virtio_set_features(struct gw_virtio *dev, uint64_t features)
{
    dev->guest_features = features & dev->host_features;
    if (dev->type->set_features)
        dev->type->set_features(dev, dev->guest_features);
}

void gw_virtio_set_status(struct gw_virtio *dev, uint8_t status)
{
    if (status == 0) {
        gw_virtio_reset(dev);
        return;
    }
    /* A version 1 driver reads it back to see whether its features were taken. */
    dev->status = status;
    if (gw_virtio_has(dev, GW_VIRTIO_F_VERSION_1) == 1)
        dev->endian = GW_VIRTIO_LITTLE;
    dev->started = (status & GW_VIRTIO_S_DRIVER_OK) != 0;
    if (dev->started)
        dev->start_on_kick = false;
}

/* ---- telling the guest ------------------------------------------------------------------------- */

void gw_virtio_notify_queue(struct gw_virtio *dev, unsigned n)
{
    dev->isr |= 1;
    dev->bus->notify(dev, dev->queues[n].vector);
}

void gw_virtio_notify_config(struct gw_virtio *dev)
{
    if (!(dev->status & GW_VIRTIO_S_DRIVER_OK))
        return;
    dev->isr |= 2;
    dev->generation++;
    dev->bus->notify(dev, dev->config_vector);
}

void gw_virtio_break(struct gw_virtio *dev, const char *why)
{
    if (dev->broken)
        return;
    gw_virtio_log(dev, "broken until it is reset: %s", why);
    dev->broken = 1;
    if (gw_virtio_has(dev, GW_VIRTIO_F_VERSION_1) == 1) {
        dev->status |= GW_VIRTIO_S_NEEDS_RESET;
        gw_virtio_notify_config(dev);
    }
}
