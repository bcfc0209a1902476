// SPDX-License-Identifier: MIT
/* A device's section, written: transport, common fields, queue by queue with the transport's part of
 * each, the device's own part, subsections. Nothing that is written is changed. */
#include "devices/virtio/virtio_impl.h"

/* Queues are counted up to the first that the guest has switched off. */
static uint32_t count_queues(const struct gw_virtio *dev)
{
    uint32_t count = 0;
    while (count < dev->queue_count && dev->queues[count].num > 0)
        count++;
    return count;
}

static void save_common(const struct gw_virtio *dev, struct gw_writer *w)
{
    gw_writer_u8(w, dev->status);
    gw_writer_u8(w, dev->isr);
    gw_writer_be16(w, dev->queue_sel);
    gw_writer_be32(w, (uint32_t)dev->guest_features);
    gw_writer_be32(w, dev->config_bytes);
    gw_writer_bytes(w, dev->config, dev->config_bytes);
}

static int save_queues(struct gw_virtio *dev, struct gw_writer *w, struct gw_error *err)
{
    uint32_t count = count_queues(dev);
    gw_writer_be32(w, count);
    for (unsigned n = 0; n < count; n++) {
        const struct gw_virtqueue *vq = &dev->queues[n];
        gw_writer_be32(w, vq->num);
        if (dev->bus->has_variable_alignment)
            gw_writer_be32(w, vq->align);
        gw_writer_be64(w, vq->desc);
        gw_writer_be16(w, vq->last_avail);
        int rc = dev->bus->save_queue ? dev->bus->save_queue(dev, n, w, err) : 0;
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* A description as a part: without a name and a version in front. */
static int save_part(const struct gw_virtio *dev, const struct gw_vmstate *vmsd, void *opaque,
                     struct gw_writer *w, struct gw_error *err)
{
    if (!vmsd)
        return 0;
    struct gw_vmstate_device part = dev->section;
    part.vmsd = vmsd;
    part.name = NULL; /* errors have the section's name already */
    part.machine = NULL;
    part.opaque = opaque;
    return gw_vmstate_save(&part, w, err);
}

int gw_virtio_save(struct gw_virtio *dev, struct gw_writer *w, struct gw_error *err)
{
    int rc = dev->bus->save_config ? dev->bus->save_config(dev, w, err) : 0;
    if (rc < 0)
        return rc;
    save_common(dev, w);
    rc = save_queues(dev, w, err);
    if (rc == 0 && dev->type->save)
        rc = dev->type->save(dev, w, err);
    if (rc == 0)
        rc = save_part(dev, dev->type->desc, dev->type_state, w, err);
    if (rc == 0)
        rc = save_part(dev, &gw_virtio_subsections, dev, w, err);
    return rc;
}
