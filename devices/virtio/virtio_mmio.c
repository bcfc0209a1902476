// SPDX-License-Identifier: MIT
/* The mmio transport: its registers (virtio 1.2, 4.2.2, and 4.2.4 of a legacy device), and its state:
 * three selectors, and of a version 1 device what the guest has written to its queue registers so far,
 * which may be ahead of the core. */
#include "devices/virtio/virtio_impl.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    R_MAGIC = 0x000,
    R_VERSION = 0x004,
    R_DEVICE = 0x008,
    R_VENDOR = 0x00c,
    R_HOST_FEATURES = 0x010,
    R_HOST_SELECT = 0x014,
    R_GUEST_FEATURES = 0x020,
    R_GUEST_SELECT = 0x024,
    R_GUEST_PAGE = 0x028, /* legacy */
    R_QUEUE_SELECT = 0x030,
    R_QUEUE_MAX = 0x034,
    R_QUEUE_NUM = 0x038,
    R_QUEUE_ALIGN = 0x03c, /* legacy */
    R_QUEUE_PFN = 0x040,   /* legacy */
    R_QUEUE_READY = 0x044,
    R_NOTIFY = 0x050,
    R_ISR = 0x060,
    R_ACK = 0x064,
    R_STATUS = 0x070,
    R_DESC_LOW = 0x080,
    R_DESC_HIGH = 0x084,
    R_AVAIL_LOW = 0x090,
    R_AVAIL_HIGH = 0x094,
    R_USED_LOW = 0x0a0,
    R_USED_HIGH = 0x0a4,
    R_GENERATION = 0x0fc,
    R_CONFIG = 0x100,
};

struct mmio_queue { /* as the guest has written it */
    uint16_t num;
    uint8_t enabled;
    uint32_t desc[2], avail[2], used[2]; /* low, high */
};

struct mmio {
    bool is_legacy;
    uint32_t host_select, guest_select, page_shift;
    uint32_t guest_features[2];
    struct mmio_queue queues[GW_VIRTIO_QUEUES_MAX];
    struct gw_virtio *dev;
};

static struct mmio *mmio_of(const struct gw_virtio *dev)
{
    return dev->bus_state;
}

/* ---- registers --------------------------------------------------------------------------------- */

/* The queue that is selected, or NULL. */
static struct gw_virtqueue *selected(struct gw_virtio *dev)
{
    return dev->queue_sel < dev->queue_count ? &dev->queues[dev->queue_sel] : NULL;
}

static uint64_t read_config(struct gw_virtio *dev, uint64_t offset, unsigned bytes)
{
    uint8_t value[8] = {0};
    if (offset + bytes > dev->config_bytes)
        return 0;
    if (dev->type->read_config)
        dev->type->read_config(dev);
    memcpy(value, dev->config + offset, bytes);
    uint64_t result = 0;
    for (unsigned i = bytes; i-- > 0;)
        result = result << 8 | value[i];
    return result;
}

static uint32_t read_queue(struct gw_virtio *dev, uint64_t offset)
{
    const struct mmio *mmio = mmio_of(dev);
    const struct gw_virtqueue *vq = selected(dev);
    if (!vq)
        return 0;
    switch (offset) {
    case R_QUEUE_MAX:
        return vq->num_max;
    case R_QUEUE_PFN:
        return mmio->is_legacy ? (uint32_t)(vq->desc >> mmio->page_shift) : 0;
    case R_QUEUE_READY:
        return mmio->is_legacy ? 0 : mmio->queues[dev->queue_sel].enabled;
    default:
        return 0;
    }
}

static uint32_t read_register(struct gw_virtio *dev, uint64_t offset)
{
    const struct mmio *mmio = mmio_of(dev);
    switch (offset) {
    case R_MAGIC:
        return 0x74726976; /* "virt" */
    case R_VERSION:
        return mmio->is_legacy ? 1 : 2;
    case R_DEVICE:
        return dev->type->number;
    case R_VENDOR:
        return 0x64777467; /* "gtwd" */
    case R_HOST_FEATURES:
        return mmio->host_select > 1 ? 0 : (uint32_t)(dev->host_features >> 32 * mmio->host_select);
    case R_ISR:
        return dev->isr;
    case R_STATUS:
        return dev->status;
    case R_GENERATION:
        return mmio->is_legacy ? 0 : dev->generation;
    default:
        return read_queue(dev, offset);
    }
}

uint64_t gw_virtio_mmio_read(struct gw_virtio *dev, uint64_t offset, unsigned bytes)
{
    if (bytes == 0 || bytes > 8 || offset >= GW_VIRTIO_MMIO_BYTES || !gw_virtio_mmio_is_here(dev))
        return 0;
    if (offset >= R_CONFIG)
        return read_config(dev, offset - R_CONFIG, bytes);
    return bytes == 4 ? read_register(dev, offset) : 0;
}

static void write_config(struct gw_virtio *dev, uint64_t offset, unsigned bytes, uint64_t value)
{
    if (offset + bytes > dev->config_bytes)
        return;
    for (unsigned i = 0; i < bytes; i++)
        dev->config[offset + i] = (uint8_t)(value >> 8 * i);
    if (dev->type->write_config)
        dev->type->write_config(dev);
}

static void write_features(struct gw_virtio *dev, uint32_t value)
{
    struct mmio *mmio = mmio_of(dev);
    if (dev->status & GW_VIRTIO_S_FEATURES_OK)
        return; /* settled */
    if (mmio->is_legacy) {
        if (mmio->guest_select == 0)
            gw_virtio_set_features(dev, value);
    } else if (mmio->guest_select < 2) {
        mmio->guest_features[mmio->guest_select] = value;
    }
}

static void write_status(struct gw_virtio *dev, uint8_t status)
{
    const struct mmio *mmio = mmio_of(dev);
    bool now = (status & GW_VIRTIO_S_FEATURES_OK) && !(dev->status & GW_VIRTIO_S_FEATURES_OK);
    if (!mmio->is_legacy && now) {
        uint64_t want = (uint64_t)mmio->guest_features[1] << 32 | mmio->guest_features[0];
        bool is_modern = (want >> GW_VIRTIO_F_VERSION_1 & 1) != 0;
        if (!is_modern || (want & ~dev->host_features))
            status &= (uint8_t)~GW_VIRTIO_S_FEATURES_OK; /* the driver sees that it is refused */
        else
            gw_virtio_set_features(dev, want);
    }
    gw_virtio_set_status(dev, status);
}

static void write_num(struct gw_virtio *dev, uint32_t value)
{
    struct mmio *mmio = mmio_of(dev);
    struct gw_virtqueue *vq = selected(dev);
    if (!vq || value > vq->num_max || (value & (value - 1)) != 0 || vq->desc != 0)
        return;
    if (mmio->is_legacy)
        vq->num = value;
    else
        mmio->queues[dev->queue_sel].num = (uint16_t)value;
}

/* What was taken from it does not come back to it. */
static void restart_queue(struct gw_virtio *dev)
{
    struct gw_virtqueue *vq = selected(dev);
    vq->desc = 0;
    vq->last_avail = vq->shadow_avail = vq->used_idx = 0;
    vq->inuse = 0;
    vq->signalled_used_valid = false;
    if (dev->type->drop)
        dev->type->drop(dev, dev->queue_sel);
}

static void write_pfn(struct gw_virtio *dev, uint32_t value)
{
    struct mmio *mmio = mmio_of(dev);
    struct gw_virtqueue *vq = selected(dev);
    if (!vq || !mmio->is_legacy)
        return;
    if (value == 0) {
        gw_virtio_reset(dev);
        return;
    }
    restart_queue(dev);
    vq->desc = (uint64_t)value << mmio->page_shift;
    gw_virtqueue_derive(dev, vq);
    if (!gw_virtqueue_is_mapped(dev, vq))
        gw_virtio_break(dev, "a ring is not in its memory");
}

static uint64_t whole(const uint32_t halves[2])
{
    return (uint64_t)halves[1] << 32 | halves[0];
}

static void write_ready(struct gw_virtio *dev, uint32_t value)
{
    struct mmio *mmio = mmio_of(dev);
    struct gw_virtqueue *vq = selected(dev);
    if (!vq || mmio->is_legacy)
        return;
    struct mmio_queue *mine = &mmio->queues[dev->queue_sel];
    mine->enabled = value == 1 && mine->num > 0;
    restart_queue(dev);
    if (!mine->enabled)
        return;
    vq->num = mine->num;
    vq->desc = whole(mine->desc);
    vq->avail = whole(mine->avail);
    vq->used = whole(mine->used);
    if (!gw_virtqueue_is_mapped(dev, vq))
        gw_virtio_break(dev, "a ring is not in its memory, or not aligned");
}

static void write_address(struct gw_virtio *dev, uint64_t offset, uint32_t value)
{
    struct mmio *mmio = mmio_of(dev);
    if (mmio->is_legacy || !selected(dev))
        return;
    struct mmio_queue *mine = &mmio->queues[dev->queue_sel];
    uint32_t *halves = offset >= R_USED_LOW    ? mine->used
                       : offset >= R_AVAIL_LOW ? mine->avail
                                               : mine->desc;
    halves[(offset & 4) != 0] = value;
}

static void write_align(struct gw_virtio *dev, uint32_t value)
{
    struct gw_virtqueue *vq = selected(dev);
    if (vq && mmio_of(dev)->is_legacy && value > 0 && value <= 1u << 20 &&
        (value & (value - 1)) == 0)
        vq->align = value;
}

static void write_page(struct gw_virtio *dev, uint32_t value)
{
    uint32_t shift = 0;
    while (shift < 31 && value > UINT32_C(1) << shift)
        shift++;
    mmio_of(dev)->page_shift = shift;
}

static void acknowledge(struct gw_virtio *dev, uint32_t value)
{
    dev->isr &= (uint8_t)~value;
    dev->bus->notify(dev, GW_VIRTIO_NO_VECTOR);
}

static void write_register(struct gw_virtio *dev, uint64_t offset, uint32_t value)
{
    struct mmio *mmio = mmio_of(dev);
    switch (offset) {
    case R_HOST_SELECT:
        mmio->host_select = value;
        break;
    case R_GUEST_FEATURES:
        write_features(dev, value);
        break;
    case R_GUEST_SELECT:
        mmio->guest_select = value;
        break;
    case R_GUEST_PAGE:
        write_page(dev, value);
        break;
    case R_QUEUE_SELECT:
        if (value < GW_VIRTIO_QUEUES_MAX)
            dev->queue_sel = (uint16_t)value;
        break;
    case R_QUEUE_NUM:
        write_num(dev, value);
        break;
    case R_QUEUE_ALIGN:
        write_align(dev, value);
        break;
    case R_QUEUE_PFN:
        write_pfn(dev, value);
        break;
    case R_QUEUE_READY:
        write_ready(dev, value);
        break;
    case R_ACK:
        acknowledge(dev, value);
        break;
    case R_STATUS:
        write_status(dev, (uint8_t)value);
        break;
    case R_DESC_LOW:
    case R_DESC_HIGH:
    case R_AVAIL_LOW:
    case R_AVAIL_HIGH:
    case R_USED_LOW:
    case R_USED_HIGH:
        write_address(dev, offset, value);
        break;
    default: /* a kick too: whoever calls steps the device */
        break;
    }
}

void gw_virtio_mmio_write(struct gw_virtio *dev, uint64_t offset, unsigned bytes, uint64_t value)
{
    if (bytes == 0 || bytes > 8 || offset >= GW_VIRTIO_MMIO_BYTES || !gw_virtio_mmio_is_here(dev))
        return;
    if (offset >= R_CONFIG)
        write_config(dev, offset - R_CONFIG, bytes, value);
    else if (bytes == 4)
        write_register(dev, offset, (uint32_t)value);
}

/* ---- state ------------------------------------------------------------------------------------- */

static int save_config(struct gw_virtio *dev, struct gw_writer *w, struct gw_error *err)
{
    const struct mmio *mmio = mmio_of(dev);
    (void)err;
    gw_writer_be32(w, mmio->host_select);
    gw_writer_be32(w, mmio->guest_select);
    gw_writer_be32(w, mmio->page_shift);
    return 0;
}

static int load_config(struct gw_virtio *dev, struct gw_reader *r, struct gw_error *err)
{
    struct mmio *mmio = mmio_of(dev);
    mmio->host_select = gw_reader_be32(r);
    mmio->guest_select = gw_reader_be32(r);
    mmio->page_shift = gw_reader_be32(r);
    if (mmio->page_shift > 31)
        return gw_virtio_refuse(err, GW_VIRTIO_RANGE, "guest_page_shift", "%" PRIu32 ", at most 31",
                                mmio->page_shift);
    return gw_virtio_took(r, "guest_page_shift", err);
}

static int state_came(void *opaque, uint32_t version_id, struct gw_error *err)
{
    const struct mmio *mmio = opaque;
    (void)version_id;
    for (unsigned n = 0; n < GW_VIRTIO_QUEUES_MAX; n++) {
        const struct mmio_queue *mine = &mmio->queues[n];
        const struct gw_virtio *dev = mmio->dev;
        if (mine->num > dev->queues[n].num_max)
            return gw_virtio_refuse(err, GW_VIRTIO_RANGE, "queue",
                                    "num %u of number %u, at most %" PRIu32, mine->num, n,
                                    dev->queues[n].num_max);
        if (mine->enabled > 1 || (mine->enabled && mine->num == 0))
            return gw_virtio_refuse(err, GW_VIRTIO_RANGE, "queue", "number %u: enabled %u, num %u",
                                    n, mine->enabled, mine->num);
    }
    return 0;
}

static const struct gw_vmstate queue_vmsd = {
    GW_VMSTATE_OF(struct mmio_queue),
    .name = "virtio_mmio/queue_state",
    .version_id = 1,
    .minimum_version_id = 1,
    GW_VMSTATE_FIELDS(GW_VMSTATE_UINT16(num, struct mmio_queue),
                      GW_VMSTATE_UINT8(enabled, struct mmio_queue),
                      GW_VMSTATE_ARRAY(UINT32, desc, struct mmio_queue, 2),
                      GW_VMSTATE_ARRAY(UINT32, avail, struct mmio_queue, 2),
                      GW_VMSTATE_ARRAY(UINT32, used, struct mmio_queue, 2)),
};
static const struct gw_vmstate state_vmsd = {
    GW_VMSTATE_OF(struct mmio),
    .name = "virtio_mmio/state",
    .version_id = 1,
    .minimum_version_id = 1,
    .post_load = state_came,
    GW_VMSTATE_FIELDS(GW_VMSTATE_ARRAY(UINT32, guest_features, struct mmio, 2),
                      GW_VMSTATE_STRUCT_ARRAY(queues, struct mmio, GW_VIRTIO_QUEUES_MAX, queue_vmsd,
                                              struct mmio_queue)),
};
static const struct gw_vmstate mmio_vmsd = {
    GW_VMSTATE_OF(struct mmio),
    .name = "virtio_mmio",
    .version_id = 1,
    .minimum_version_id = 1,
    GW_VMSTATE_SUBSECTIONS(&state_vmsd),
};

static bool has_extra(const struct gw_virtio *dev)
{
    return !mmio_of(dev)->is_legacy;
}

/* ---- the table --------------------------------------------------------------------------------- */

static void notify(struct gw_virtio *dev, uint16_t vector)
{
    (void)vector;                                             /* there is one line only */
    if (dev->host.interrupt && dev->stage != GW_VIRTIO_PARTS) /* its state is whose line it is */
        dev->host.interrupt(dev->host.opaque, dev->isr != 0);
}

static void reset(struct gw_virtio *dev)
{
    struct mmio *mmio = mmio_of(dev);
    mmio->host_select = mmio->guest_select = mmio->page_shift = 0;
    memset(mmio->guest_features, 0, sizeof(mmio->guest_features));
    memset(mmio->queues, 0, sizeof(mmio->queues));
}

static const struct gw_virtio_transport_ops mmio_ops = {
    .name = "virtio-mmio",
    .has_variable_alignment = true,
    .save_config = save_config,
    .load_config = load_config,
    .extra = &mmio_vmsd,
    .has_extra = has_extra,
    .notify = notify,
    .reset = reset,
};

bool gw_virtio_mmio_is_here(const struct gw_virtio *dev)
{
    return dev->bus == &mmio_ops;
}

int gw_virtio_mmio_new(struct gw_virtio *dev, bool is_legacy)
{
    struct mmio *mmio = calloc(1, sizeof(*mmio));
    if (!mmio)
        return -ENOMEM;
    mmio->dev = dev;
    mmio->is_legacy = is_legacy;
    dev->bus = &mmio_ops;
    dev->bus_state = mmio;
    /* A driver may ask for more than what is there after a reset. */
    for (unsigned n = 0; n < dev->queue_count; n++)
        dev->queues[n].num_max = GW_VIRTIO_RING_MAX;
    return 0;
}
