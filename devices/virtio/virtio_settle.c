// SPDX-License-Identifier: MIT
/* The end of a load, when all parts are there: byte order, features, rings, in this order, since rings are
 * read in the guest's byte order, and that follows from its features. What the guest has written to its
 * rings can break its device, never the migration; what the source has counted must be right. */
#include "devices/virtio/virtio_impl.h"

#include <inttypes.h>
#include <stdio.h>

static bool is_modern(const struct gw_virtio *dev)
{
    return gw_virtio_has(dev, GW_VIRTIO_F_VERSION_1) == 1;
}

static bool is_packed(const struct gw_virtio *dev)
{
    return gw_virtio_has(dev, GW_VIRTIO_F_RING_PACKED) == 1;
}

/* ---- features ---------------------------------------------------------------------------------- */

static int settle_features(struct gw_virtio *dev, struct gw_error *err)
{
    uint64_t want = dev->guest_features, offered = dev->host_features;
    /* The source sends the upper half if its device offers any of it. */
    gw_virtio_set_features(dev, want);
    if (want & ~offered)
        return gw_virtio_refuse(err, GW_VIRTIO_FEATURES, "guest_features",
                                "the guest has taken 0x%" PRIx64 ", 0x%" PRIx64
                                " is offered here: 0x%" PRIx64 " is missing",
                                want, offered, want & ~offered);
    if (want & GW_VIRTIO_BIT(GW_VIRTIO_F_BAD_LEGACY))
        gw_virtio_log(dev, "its driver has taken feature %d, which means nothing",
                      GW_VIRTIO_F_BAD_LEGACY);
    return 0;
}

static int settle_endian(struct gw_virtio *dev, struct gw_error *err)
{
    if (is_modern(dev) && dev->endian == GW_VIRTIO_BIG)
        return gw_virtio_refuse(err, GW_VIRTIO_INVALID, "device_endian",
                                "big, and the guest has taken version 1, which is little");
    if (dev->endian == GW_VIRTIO_ENDIAN_UNKNOWN)
        dev->endian = is_modern(dev) ? GW_VIRTIO_LITTLE : dev->default_endian;
    return 0;
}

/* ---- rings ------------------------------------------------------------------------------------- */

static int overflows(const char *field, const char *what, uint64_t address, uint64_t bytes,
                     struct gw_error *err)
{
    if (address <= UINT64_MAX - bytes)
        return 0;
    return gw_virtio_refuse(err, GW_VIRTIO_RANGE, field,
                            "%s at 0x%" PRIx64 " and %" PRIu64 " bytes of it overflow", what,
                            address, bytes);
}

static int check_addresses(const struct gw_virtio *dev, const struct gw_virtqueue *vq,
                           const char *field, struct gw_error *err)
{
    int rc = overflows(field, "desc", vq->desc, UINT64_C(16) * vq->num, err);
    if (rc == 0)
        rc = overflows(field, "avail", vq->avail, gw_virtqueue_avail_bytes(dev, vq), err);
    if (rc == 0)
        rc = overflows(field, "used", vq->used, gw_virtqueue_used_bytes(dev, vq), err);
    if (rc == 0 && !is_modern(dev) && vq->used < vq->avail) /* rounding up went round */
        rc = overflows(field, "used", vq->avail, UINT64_MAX, err);
    return rc;
}

static int check_packed(const struct gw_virtqueue *vq, const char *field, struct gw_error *err)
{
    if (vq->last_avail >= vq->num || vq->used_idx >= vq->num)
        return gw_virtio_refuse(err, GW_VIRTIO_INVALID, field,
                                "last_avail_idx %u, used_idx %u in a ring of %" PRIu32,
                                vq->last_avail, vq->used_idx, vq->num);
    if (vq->inuse > vq->num)
        return gw_virtio_refuse(err, GW_VIRTIO_INVALID, field,
                                "inuse %" PRIu32 " in a ring of %" PRIu32, vq->inuse, vq->num);
    return 0;
}

static void break_queue(struct gw_virtio *dev, struct gw_virtqueue *vq, const char *why)
{
    gw_virtio_break(dev, why);
    vq->used_idx = vq->shadow_avail = 0;
    vq->inuse = 0;
}

static int settle_split(struct gw_virtio *dev, struct gw_virtqueue *vq, const char *field,
                        struct gw_error *err)
{
    uint16_t avail = gw_virtqueue_avail_idx(dev, vq);
    uint16_t heads = (uint16_t)(avail - vq->last_avail);
    if (heads > vq->num) {
        break_queue(dev, vq, "the guest offers more requests than the ring has entries");
        return 0;
    }
    vq->used_idx = gw_virtqueue_used_idx(dev, vq);
    vq->shadow_avail = avail;
    vq->inuse = (uint16_t)(vq->last_avail - vq->used_idx);
    if (vq->inuse <= vq->num)
        return 0;
    return gw_virtio_refuse(err, GW_VIRTIO_INVALID, field,
                            "last_avail_idx %u is %" PRIu32 " ahead of used_idx %u, of %" PRIu32,
                            vq->last_avail, vq->inuse, vq->used_idx, vq->num);
}

static int check_held(const struct gw_virtio *dev, unsigned n, const char *field,
                      struct gw_error *err)
{
    uint32_t held = dev->type->held ? dev->type->held(dev, n) : 0;
    const struct gw_virtqueue *vq = &dev->queues[n];
    if (held <= vq->inuse || dev->broken)
        return 0;
    return gw_virtio_refuse(err, GW_VIRTIO_INVALID, field,
                            "%" PRIu32 " requests are in flight, and %" PRIu32 " were taken", held,
                            vq->inuse);
}

static int settle_addresses(struct gw_virtio *dev, struct gw_virtqueue *vq, const char *field,
                            struct gw_error *err)
{
    if (vq->num == 0) /* behind the end of the list, so a subsection's */
        return gw_virtio_refuse(err, GW_VIRTIO_INVALID, field, "a ring without entries");
    if (!is_packed(dev) && (vq->num & (vq->num - 1)) != 0)
        return gw_virtio_refuse(err, GW_VIRTIO_RANGE, field, "num is %" PRIu32 ", no power of two",
                                vq->num);
    if (!is_modern(dev))
        gw_virtqueue_derive(dev, vq);
    else if (!(dev->came & GW_VIRTIO_CAME_QUEUES))
        return gw_virtio_refuse(err, GW_VIRTIO_MISSING, field,
                                "the guest has taken version 1, and 'virtio/virtqueues' did not "
                                "come");
    return check_addresses(dev, vq, field, err);
}

static int settle_ring(struct gw_virtio *dev, unsigned n, struct gw_error *err)
{
    struct gw_virtqueue *vq = &dev->queues[n];
    char field[32];
    snprintf(field, sizeof(field), "queues[%u]", n);
    if (vq->desc == 0) {
        vq->inuse = 0;
        if (vq->last_avail != 0) /* the packed part has it too */
            return gw_virtio_refuse(err, GW_VIRTIO_INVALID, field,
                                    "last_avail_idx is %u without a ring", vq->last_avail);
        return check_held(dev, n, field, err);
    }
    int rc = settle_addresses(dev, vq, field, err);
    if (rc == 0 && is_packed(dev))
        rc = check_packed(vq, field, err);
    if (rc < 0)
        return rc;
    if (!gw_virtqueue_is_mapped(dev, vq)) {
        break_queue(dev, vq, "a ring is not in its memory, or not aligned");
        return 0;
    }
    if (is_packed(dev))
        vq->shadow_avail = vq->last_avail;
    else
        rc = settle_split(dev, vq, field, err);
    return rc < 0 ? rc : check_held(dev, n, field, err);
}

int gw_virtio_settle(struct gw_virtio *dev, struct gw_error *err)
{
    int rc = settle_features(dev, err);
    if (rc == 0)
        rc = settle_endian(dev, err);
    if (rc < 0)
        return rc;
    if (is_packed(dev) && !(dev->came & GW_VIRTIO_CAME_PACKED))
        return gw_virtio_refuse(
            err, GW_VIRTIO_MISSING, "packed_virtqueues",
            "the guest has taken packed rings, and 'virtio/packed_virtqueues' did not come");
    /* A legacy driver may kick before it says that it is there. */
    bool is_started = dev->started || (dev->status & GW_VIRTIO_S_DRIVER_OK);
    dev->start_on_kick = !is_started && !is_modern(dev);
    for (unsigned n = 0; n < dev->queue_count && rc == 0; n++)
        rc = settle_ring(dev, n, err);
    return rc;
}
