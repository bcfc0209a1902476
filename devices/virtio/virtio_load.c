// SPDX-License-Identifier: MIT
/* A device's section, read from bytes that may be hostile, in the order in which they were written. What
 * is wrong by itself is refused here; what needs the whole (features, byte order, rings) waits for
 * virtio_settle.c. Whatever fails, the device is reset: its section's description says so (load_failed). */
#include "devices/virtio/virtio_impl.h"

#include <inttypes.h>
#include <stdio.h>

#define CONFIG_BYTES_MAX (64u << 10)

int gw_virtio_took(const struct gw_reader *r, const char *field, struct gw_error *err)
{
    if (gw_reader_error(r) == 0)
        return 0;
    return gw_virtio_refuse(err, GW_VIRTIO_EOF, field, "the state ends too early");
}

/* The source's may be longer or shorter: what it has more is dropped, what it has less stays. */
static int load_device_config(struct gw_virtio *dev, struct gw_reader *r, struct gw_error *err)
{
    uint32_t bytes = gw_reader_be32(r);
    if (bytes > CONFIG_BYTES_MAX)
        return gw_virtio_refuse(err, GW_VIRTIO_RANGE, "config_len", "%" PRId32 ", at most %u",
                                (int32_t)bytes, CONFIG_BYTES_MAX);
    uint32_t kept = bytes < dev->config_bytes ? bytes : dev->config_bytes;
    gw_reader_bytes(r, dev->config, kept);
    for (uint32_t at = kept; at < bytes && gw_reader_error(r) == 0; at++)
        gw_reader_u8(r);
    return gw_virtio_took(r, "config", err);
}

static int load_common(struct gw_virtio *dev, struct gw_reader *r, struct gw_error *err)
{
    dev->status = gw_reader_u8(r);
    dev->isr = gw_reader_u8(r);
    dev->queue_sel = gw_reader_be16(r);
    if (dev->queue_sel >= GW_VIRTIO_QUEUES_MAX)
        return gw_virtio_refuse(err, GW_VIRTIO_RANGE, "queue_sel", "%u, at most %u", dev->queue_sel,
                                GW_VIRTIO_QUEUES_MAX - 1);
    /* Not checked, and only the low half: nobody may build on it yet. */
    dev->guest_features = dev->low_features = gw_reader_be32(r);
    int rc = gw_virtio_took(r, "guest_features", err);
    return rc < 0 ? rc : load_device_config(dev, r, err);
}

static int check_queue(const struct gw_virtio *dev, unsigned n, struct gw_error *err)
{
    const struct gw_virtqueue *vq = &dev->queues[n];
    char field[32];
    snprintf(field, sizeof(field), "queues[%u]", n);
    if (vq->num > vq->num_max)
        return gw_virtio_refuse(err, GW_VIRTIO_RANGE, field, "num is %" PRIu32 ", at most %u",
                                vq->num, vq->num_max);
    if (vq->num == 0)
        return gw_virtio_refuse(err, GW_VIRTIO_INVALID, field,
                                "num is 0, which would have ended the list");
    /* Whether it is a packed ring's, which may be of any size, is not known yet. */
    if ((vq->num & (vq->num - 1)) != 0 && !gw_virtio_offers(dev, GW_VIRTIO_F_RING_PACKED))
        return gw_virtio_refuse(err, GW_VIRTIO_RANGE, field, "num is %" PRIu32 ", no power of two",
                                vq->num);
    bool is_used = vq->num > 0 && vq->desc != 0;
    bool is_aligned = vq->align > 0 && (vq->align & (vq->align - 1)) == 0;
    if (vq->align > 1u << 20 || (!is_aligned && (is_used || vq->align != 0)))
        return gw_virtio_refuse(err, GW_VIRTIO_RANGE, field,
                                "align is %" PRIu32 ", a power of two up to 1048576 is taken",
                                vq->align);
    if (vq->desc == 0 && vq->last_avail != 0)
        return gw_virtio_refuse(err, GW_VIRTIO_INVALID, field,
                                "last_avail_idx is %u without a ring", vq->last_avail);
    return 0;
}

static int load_queue(struct gw_virtio *dev, unsigned n, struct gw_reader *r, struct gw_error *err)
{
    struct gw_virtqueue *vq = &dev->queues[n];
    vq->num = gw_reader_be32(r);
    if (dev->bus->has_variable_alignment)
        vq->align = gw_reader_be32(r);
    vq->desc = gw_reader_be64(r);
    vq->last_avail = gw_reader_be16(r);
    int rc = gw_virtio_took(r, "queues", err);
    if (rc == 0)
        rc = check_queue(dev, n, err);
    if (rc == 0 && dev->bus->load_queue)
        rc = dev->bus->load_queue(dev, n, r, err);
    return rc;
}

static int load_queues(struct gw_virtio *dev, struct gw_reader *r, struct gw_error *err)
{
    uint32_t count = gw_reader_be32(r);
    int rc = gw_virtio_took(r, "queue_count", err);
    if (rc < 0)
        return rc;
    if (count > GW_VIRTIO_QUEUES_MAX)
        return gw_virtio_refuse(err, GW_VIRTIO_RANGE, "queue_count", "%" PRIu32 ", at most %u",
                                count, GW_VIRTIO_QUEUES_MAX);
    if (count > dev->queue_count)
        return gw_virtio_refuse(err, GW_VIRTIO_MISMATCH, "queue_count",
                                "%" PRIu32 ", and this device has %" PRIu32, count,
                                dev->queue_count);
    for (unsigned n = 0; n < count && rc == 0; n++)
        rc = load_queue(dev, n, r, err);
    for (unsigned n = count; n < dev->queue_count; n++)
        dev->queues[n].num = 0; /* the source has counted up to the first that is off */
    return rc;
}

static int load_part(const struct gw_virtio *dev, const struct gw_vmstate *vmsd, void *opaque,
                     struct gw_reader *r, struct gw_error *err)
{
    if (!vmsd)
        return 0;
    struct gw_vmstate_device part = dev->section;
    part.vmsd = vmsd;
    part.name = NULL; /* errors have the section's name already */
    part.machine = NULL;
    part.opaque = opaque;
    return gw_vmstate_load(&part, r, vmsd->version_id, err);
}

static int load_parts(struct gw_virtio *dev, struct gw_reader *r, struct gw_error *err)
{
    int rc = dev->bus->load_config ? dev->bus->load_config(dev, r, err) : 0;
    if (rc == 0)
        rc = load_common(dev, r, err);
    if (rc == 0)
        rc = load_queues(dev, r, err);
    if (rc < 0)
        return rc;
    dev->bus->notify(dev, GW_VIRTIO_NO_VECTOR); /* of the isr just loaded; without a vector */
    if (dev->type->load)
        rc = dev->type->load(dev, r, err);
    if (rc == 0)
        rc = load_part(dev, dev->type->desc, dev->type_state, r, err);
    if (rc == 0)
        rc = load_part(dev, &gw_virtio_subsections, dev, r, err);
    return rc;
}

int gw_virtio_load(struct gw_virtio *dev, struct gw_reader *r, struct gw_error *err)
{
    gw_virtio_reset_quietly(dev); /* whoever has the line may have loaded its level already */
    if (dev->type->read_config)
        dev->type->read_config(dev); /* of which a shorter one leaves the rest */
    dev->stage = GW_VIRTIO_PARTS;
    dev->endian = GW_VIRTIO_ENDIAN_UNKNOWN; /* who uses it before it is settled is told so */
    dev->came = 0;
    int rc = load_parts(dev, r, err);
    if (rc < 0)
        return rc;
    dev->stage = GW_VIRTIO_SETTLING;
    rc = gw_virtio_settle(dev, err);
    if (rc == 0 && dev->type->post_load)
        rc = dev->type->post_load(dev, err);
    dev->stage = GW_VIRTIO_IDLE;
    return rc;
}

/* Here, or behind the core's own load. */
void gw_virtio_load_failed(void *opaque)
{
    gw_virtio_reset(opaque);
}

/* ---- the one field of a device's section -------------------------------------------------------- */

static int put(const void *member, size_t bytes, struct gw_writer *w, struct gw_error *err)
{
    (void)bytes;
    return gw_virtio_save(*(struct gw_virtio *const *)member, w, err);
}

static int get(void *member, size_t bytes, struct gw_reader *r, uint32_t version_id,
               struct gw_error *err)
{
    (void)bytes;
    (void)version_id;
    return gw_virtio_load(*(struct gw_virtio **)member, r, err);
}

const struct gw_vmcodec gw_virtio_codec = {"virtio", put, get};
