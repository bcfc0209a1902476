// SPDX-License-Identifier: MIT
/* What was added to the core's state over the years, each as a subsection that is sent if there is
 * something to say: most by what the device offers, whatever the guest has taken of it. And the shape, a
 * section of its own, of what the bytes of the state do not tell. */
#include "devices/virtio/virtio_impl.h"

#include <inttypes.h>
#include <stdio.h>

#define SUBSECTION(text)                                                                           \
    GW_VMSTATE_OF(struct gw_virtio), .name = (text), .version_id = 1, .minimum_version_id = 1

static int check_flag(const char *field, uint8_t value, struct gw_error *err)
{
    if (value <= 1)
        return 0;
    return gw_virtio_refuse(err, GW_VIRTIO_INVALID, field, "%u is neither 0 nor 1", value);
}

/* ---- byte order -------------------------------------------------------------------------------- */

static bool sends_endian(const void *opaque)
{
    const struct gw_virtio *dev = opaque;
    bool is_modern = gw_virtio_has(dev, GW_VIRTIO_F_VERSION_1) == 1;
    return dev->endian != (is_modern ? GW_VIRTIO_LITTLE : dev->default_endian);
}

static int endian_came(void *opaque, uint32_t version_id, struct gw_error *err)
{
    const struct gw_virtio *dev = opaque;
    (void)version_id;
    if (dev->endian == GW_VIRTIO_LITTLE || dev->endian == GW_VIRTIO_BIG)
        return 0;
    return gw_virtio_refuse(err, GW_VIRTIO_INVALID, "device_endian",
                            "%u is neither little (1) nor big (2)", dev->endian);
}

static const struct gw_vmstate endian_vmsd = {
    SUBSECTION("virtio/device_endian"),
    .needed = sends_endian,
    .post_load = endian_came,
    GW_VMSTATE_FIELDS(GW_VMSTATE_UINT8(endian, struct gw_virtio)),
};

/* ---- features ---------------------------------------------------------------------------------- */

bool gw_virtio_sends_features(const void *opaque)
{
    return ((const struct gw_virtio *)opaque)->host_features >> 32 != 0;
}

static int features_came(void *opaque, uint32_t version_id, struct gw_error *err)
{
    struct gw_virtio *dev = opaque;
    (void)version_id;
    dev->came |= GW_VIRTIO_CAME_FEATURES;
    if ((dev->guest_features & UINT32_MAX) == dev->low_features)
        return 0;
    return gw_virtio_refuse(err, GW_VIRTIO_INVALID, "64bit_features",
                            "its low half is 0x%" PRIx64 ", and 0x%" PRIx64 " came before",
                            dev->guest_features & UINT32_MAX, dev->low_features);
}

static const struct gw_vmstate features_vmsd = {
    SUBSECTION("virtio/64bit_features"),
    .needed = gw_virtio_sends_features,
    .post_load = features_came,
    GW_VMSTATE_FIELDS(GW_VMSTATE_UINT64(guest_features, struct gw_virtio)),
};

/* ---- rings of version 1 ------------------------------------------------------------------------- */

static bool sends_queues(const void *opaque)
{
    return gw_virtio_offers(opaque, GW_VIRTIO_F_VERSION_1);
}

static int queues_came(void *opaque, uint32_t version_id, struct gw_error *err)
{
    (void)version_id;
    (void)err;
    ((struct gw_virtio *)opaque)->came |= GW_VIRTIO_CAME_QUEUES;
    return 0;
}

static const struct gw_vmstate queue_vmsd = {
    GW_VMSTATE_OF(struct gw_virtqueue),
    .name = "virtqueue_state",
    .version_id = 1,
    .minimum_version_id = 1,
    GW_VMSTATE_FIELDS(GW_VMSTATE_UINT64(avail, struct gw_virtqueue),
                      GW_VMSTATE_UINT64(used, struct gw_virtqueue)),
};
static const struct gw_vmstate queues_vmsd = {
    SUBSECTION("virtio/virtqueues"),
    .needed = sends_queues,
    .post_load = queues_came,
    GW_VMSTATE_FIELDS(GW_VMSTATE_STRUCT_ARRAY(queues, struct gw_virtio, GW_VIRTIO_QUEUES_MAX,
                                              queue_vmsd, struct gw_virtqueue)),
};

/* ---- sizes ------------------------------------------------------------------------------------- */

static bool sends_sizes(const void *opaque)
{
    const struct gw_virtio *dev = opaque;
    for (unsigned n = 0; n < dev->queue_count; n++) {
        if (dev->queues[n].num != dev->queues[n].num_default)
            return true;
    }
    return false;
}

static int sizes_came(void *opaque, uint32_t version_id, struct gw_error *err)
{
    const struct gw_virtio *dev = opaque;
    (void)version_id;
    for (unsigned n = 0; n < GW_VIRTIO_QUEUES_MAX; n++) {
        const struct gw_virtqueue *vq = &dev->queues[n];
        char field[40];
        snprintf(field, sizeof(field), "ringsize[%u]", n);
        if (vq->num_default > vq->num_max)
            return gw_virtio_refuse(err, GW_VIRTIO_RANGE, field, "%" PRIu32 ", at most %u",
                                    vq->num_default, vq->num_max);
    }
    return 0;
}

static const struct gw_vmstate size_vmsd = {
    GW_VMSTATE_OF(struct gw_virtqueue),
    .name = "ringsize_state",
    .version_id = 1,
    .minimum_version_id = 1,
    GW_VMSTATE_FIELDS(GW_VMSTATE_UINT32(num_default, struct gw_virtqueue)),
};
static const struct gw_vmstate sizes_vmsd = {
    SUBSECTION("virtio/ringsize"),
    .needed = sends_sizes,
    .post_load = sizes_came,
    GW_VMSTATE_FIELDS(GW_VMSTATE_STRUCT_ARRAY(queues, struct gw_virtio, GW_VIRTIO_QUEUES_MAX,
                                              size_vmsd, struct gw_virtqueue)),
};

/* ---- broken, started, disabled ------------------------------------------------------------------ */

static bool sends_broken(const void *opaque)
{
    return ((const struct gw_virtio *)opaque)->broken != 0;
}

static int broken_came(void *opaque, uint32_t version_id, struct gw_error *err)
{
    const struct gw_virtio *dev = opaque;
    (void)version_id;
    return check_flag("broken", dev->broken, err);
}

static bool sends_started(const void *opaque)
{
    return ((const struct gw_virtio *)opaque)->started != 0;
}

static int started_came(void *opaque, uint32_t version_id, struct gw_error *err)
{
    const struct gw_virtio *dev = opaque;
    (void)version_id;
    return check_flag("started", dev->started, err);
}

static bool sends_disabled(const void *opaque)
{
    return ((const struct gw_virtio *)opaque)->disabled != 0;
}

static int disabled_came(void *opaque, uint32_t version_id, struct gw_error *err)
{
    const struct gw_virtio *dev = opaque;
    (void)version_id;
    return check_flag("disabled", dev->disabled, err);
}

static const struct gw_vmstate broken_vmsd = {
    SUBSECTION("virtio/broken"),
    .needed = sends_broken,
    .post_load = broken_came,
    GW_VMSTATE_FIELDS(GW_VMSTATE_UINT8(broken, struct gw_virtio)),
};
static const struct gw_vmstate started_vmsd = {
    SUBSECTION("virtio/started"),
    .needed = sends_started,
    .post_load = started_came,
    GW_VMSTATE_FIELDS(GW_VMSTATE_UINT8(started, struct gw_virtio)),
};
static const struct gw_vmstate disabled_vmsd = {
    SUBSECTION("virtio/disabled"),
    .needed = sends_disabled,
    .post_load = disabled_came,
    GW_VMSTATE_FIELDS(GW_VMSTATE_UINT8(disabled, struct gw_virtio)),
};

/* ---- the transport's ---------------------------------------------------------------------------- */

static bool sends_extra(const void *opaque)
{
    const struct gw_virtio *dev = opaque;
    return dev->bus->extra && dev->bus->has_extra(dev);
}

static struct gw_vmstate_device extra_device(struct gw_virtio *dev)
{
    struct gw_vmstate_device extra = dev->section;
    extra.vmsd = dev->bus->extra;
    extra.name = NULL; /* errors have the section's name already */
    extra.machine = NULL;
    extra.opaque = dev->bus_state;
    return extra;
}

static int put_extra(const void *member, size_t bytes, struct gw_writer *w, struct gw_error *err)
{
    struct gw_vmstate_device extra = extra_device(*(struct gw_virtio *const *)member);
    (void)bytes;
    return gw_vmstate_save(&extra, w, err);
}

static int get_extra(void *member, size_t bytes, struct gw_reader *r, uint32_t version_id,
                     struct gw_error *err)
{
    struct gw_virtio *dev = *(struct gw_virtio **)member;
    (void)bytes;
    (void)version_id;
    if (!dev->bus->extra)
        return gw_virtio_refuse(err, GW_VIRTIO_UNKNOWN, "extra_state",
                                "the transport '%s' has none here", dev->bus->name);
    struct gw_vmstate_device extra = extra_device(dev);
    return gw_vmstate_load(&extra, r, dev->bus->extra->version_id, err);
}

static const struct gw_vmcodec extra_codec = {"extra", put_extra, get_extra};
static const struct gw_vmstate extra_vmsd = {
    SUBSECTION("virtio/extra_state"),
    .needed = sends_extra,
    GW_VMSTATE_FIELDS(GW_VMSTATE_CUSTOM(extra, struct gw_virtio, struct gw_virtio *, extra_codec)),
};

/* ---- packed rings ------------------------------------------------------------------------------ */

static bool sends_packed(const void *opaque)
{
    return gw_virtio_offers(opaque, GW_VIRTIO_F_RING_PACKED);
}

static int packed_came(void *opaque, uint32_t version_id, struct gw_error *err)
{
    struct gw_virtio *dev = opaque;
    (void)version_id;
    dev->came |= GW_VIRTIO_CAME_PACKED;
    for (unsigned n = 0; n < GW_VIRTIO_QUEUES_MAX; n++) {
        const struct gw_virtqueue *vq = &dev->queues[n];
        if (vq->last_avail_wrap > 1 || vq->used_wrap > 1)
            return gw_virtio_refuse(err, GW_VIRTIO_INVALID, "packed_virtqueues",
                                    "wrap counters %u and %u of number %u are not 0 or 1",
                                    vq->last_avail_wrap, vq->used_wrap, n);
    }
    return 0;
}

static const struct gw_vmstate packed_queue_vmsd = {
    GW_VMSTATE_OF(struct gw_virtqueue),
    .name = "packed_virtqueue_state",
    .version_id = 1,
    .minimum_version_id = 1,
    GW_VMSTATE_FIELDS(GW_VMSTATE_UINT16(last_avail, struct gw_virtqueue),
                      GW_VMSTATE_UINT8(last_avail_wrap, struct gw_virtqueue),
                      GW_VMSTATE_UINT16(used_idx, struct gw_virtqueue),
                      GW_VMSTATE_UINT8(used_wrap, struct gw_virtqueue),
                      GW_VMSTATE_UINT32(inuse, struct gw_virtqueue)),
};
static const struct gw_vmstate packed_vmsd = {
    SUBSECTION("virtio/packed_virtqueues"),
    .needed = sends_packed,
    .post_load = packed_came,
    GW_VMSTATE_FIELDS(GW_VMSTATE_STRUCT_ARRAY(queues, struct gw_virtio, GW_VIRTIO_QUEUES_MAX,
                                              packed_queue_vmsd, struct gw_virtqueue)),
};

/* Writes no bytes itself; the order is the wire's. */
const struct gw_vmstate gw_virtio_subsections = {
    GW_VMSTATE_OF(struct gw_virtio),
    .name = "virtio",
    .version_id = 1,
    .minimum_version_id = 1,
    GW_VMSTATE_SUBSECTIONS(&endian_vmsd, &features_vmsd, &queues_vmsd, &sizes_vmsd, &broken_vmsd,
                           &extra_vmsd, &started_vmsd, &packed_vmsd, &disabled_vmsd),
};

/* ---- the shape --------------------------------------------------------------------------------- */

#define SHAPE(m, text) GW_VMSTATE_UINT32_EQUAL(m, struct gw_virtio, .hint = (text))

const struct gw_vmstate gw_virtio_shape_vmsd = {
    GW_VMSTATE_OF(struct gw_virtio),
    .name = "virtio-shape",
    .version_id = 1,
    .minimum_version_id = 1,
    .priority = GW_VMSTATE_PRIORITY_PCI_BUS,
    GW_VMSTATE_FIELDS(SHAPE(shape_bus, "both ends have the device on mmio (0), or both on pci (1)"),
                      SHAPE(shape_vectors, "give the device as many MSI-X vectors at both ends"),
                      SHAPE(shape_pci_bytes,
                            "a PCI Express function has 4096 bytes of configuration space, "
                            "another 256: plug it into the same kind of bus"),
                      SHAPE(shape_queues, "give the device as many queues at both ends"),
                      SHAPE(shape_pairs, "give the device as many queue pairs at both ends"),
                      SHAPE(shape_flags, "both ends want the same encoding of rings and requests")),
};
