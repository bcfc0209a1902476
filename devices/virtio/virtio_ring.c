// SPDX-License-Identifier: MIT
/* Split rings in guest memory: where they are, a request taken, a request returned. Whatever the guest
 * has written is checked before it is used; what makes no sense breaks the device. Packed rings are kept
 * and checked as state, and nothing is taken from them. */
#include "devices/virtio/virtio_impl.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#define DESC_NEXT 1u
#define DESC_WRITE 2u
#define DESC_INDIRECT 4u
#define AVAIL_NO_INTERRUPT 1u

/* ---- guest memory ------------------------------------------------------------------------------ */

static void *map(const struct gw_virtio *dev, uint64_t address, uint64_t bytes)
{
    if (address > UINT64_MAX - bytes)
        return NULL;
    return dev->host.map(dev->host.opaque, address, bytes);
}

static void wrote(const struct gw_virtio *dev, uint64_t address, uint64_t bytes)
{
    if (dev->host.wrote)
        dev->host.wrote(dev->host.opaque, address, bytes);
}

static uint16_t order16(const struct gw_virtio *dev, uint16_t value)
{
    return dev->endian == GW_VIRTIO_BIG ? be16toh(value) : le16toh(value);
}

static uint32_t order32(const struct gw_virtio *dev, uint32_t value)
{
    return dev->endian == GW_VIRTIO_BIG ? be32toh(value) : le32toh(value);
}

static uint64_t order64(const struct gw_virtio *dev, uint64_t value)
{
    return dev->endian == GW_VIRTIO_BIG ? be64toh(value) : le64toh(value);
}

/* The guest's vCPUs write while the device reads. Who moved an index has written before what it points to;
 * and an index that is stored here is seen before the guest's wish to be told of it is read, as the guest
 * writes its wish before it reads the index: so both are of one order (a fence would do, but the thread
 * sanitizer knows none). A place that is no memory reads as 0. */
static uint16_t load16(const struct gw_virtio *dev, uint64_t address)
{
    const uint16_t *at = map(dev, address, 2);
    return at ? order16(dev, __atomic_load_n(at, __ATOMIC_SEQ_CST)) : 0;
}

GW_VIRTIO_RACES static void store16(const struct gw_virtio *dev, uint64_t address, uint16_t value)
{
    uint16_t *at = map(dev, address, 2);
    if (!at)
        return;
    __atomic_store_n(at, order16(dev, value), __ATOMIC_SEQ_CST);
    wrote(dev, address, 2);
}

/* ---- where a ring is --------------------------------------------------------------------------- */

static uint64_t round_up(uint64_t value, uint64_t align)
{
    return (value + align - 1) & ~(align - 1);
}

/* The standard counts the event field behind the available ring before it rounds, QEMU 7.2 does not. They
 * differ only where the alignment is smaller than that field makes the ring. */
void gw_virtqueue_derive(const struct gw_virtio *dev, struct gw_virtqueue *vq)
{
    vq->avail = vq->desc + UINT64_C(16) * vq->num;
    uint64_t end = vq->avail + 4 + UINT64_C(2) * vq->num;
    uint64_t qemu = round_up(end, vq->align), standard = round_up(end + 2, vq->align);
    vq->used = dev->flags & GW_VIRTIO_STANDARD_RINGS ? standard : qemu;
    if (qemu != standard)
        gw_virtio_log(dev,
                      "with an alignment of %u the standard's used ring is not where QEMU's is",
                      vq->align);
}

static bool is_packed(const struct gw_virtio *dev)
{
    return gw_virtio_has(dev, GW_VIRTIO_F_RING_PACKED) == 1;
}

static uint64_t event_bytes(const struct gw_virtio *dev)
{
    return gw_virtio_has(dev, GW_VIRTIO_F_EVENT_IDX) == 1 ? 2 : 0;
}

uint64_t gw_virtqueue_avail_bytes(const struct gw_virtio *dev, const struct gw_virtqueue *vq)
{
    return is_packed(dev) ? 4 : 4 + UINT64_C(2) * vq->num + event_bytes(dev);
}

uint64_t gw_virtqueue_used_bytes(const struct gw_virtio *dev, const struct gw_virtqueue *vq)
{
    return is_packed(dev) ? 4 : 4 + UINT64_C(8) * vq->num + event_bytes(dev);
}

bool gw_virtqueue_is_mapped(const struct gw_virtio *dev, const struct gw_virtqueue *vq)
{
    if (vq->desc % 16 != 0 || vq->avail % 2 != 0 || vq->used % 4 != 0)
        return false;
    return map(dev, vq->desc, UINT64_C(16) * vq->num) &&
           map(dev, vq->avail, gw_virtqueue_avail_bytes(dev, vq)) &&
           map(dev, vq->used, gw_virtqueue_used_bytes(dev, vq));
}

uint16_t gw_virtqueue_avail_idx(const struct gw_virtio *dev, const struct gw_virtqueue *vq)
{
    return load16(dev, vq->avail + 2);
}

uint16_t gw_virtqueue_used_idx(const struct gw_virtio *dev, const struct gw_virtqueue *vq)
{
    return load16(dev, vq->used + 2);
}

/* ---- taking ------------------------------------------------------------------------------------ */

struct desc {
    uint64_t address;
    uint32_t bytes;
    uint16_t flags, next;
};

static struct desc read_desc(const struct gw_virtio *dev, const uint8_t *table, uint32_t n)
{
    struct desc raw; /* a copy: the guest may change it meanwhile */
    memcpy(&raw, table + (size_t)n * 16, sizeof(raw));
    return (struct desc){.address = order64(dev, raw.address),
                         .bytes = order32(dev, raw.bytes),
                         .flags = order16(dev, raw.flags),
                         .next = order16(dev, raw.next)};
}

/* A chain of descriptors as it is collected. */
struct chain {
    const uint8_t *table;
    uint32_t count; /* entries of the table */
    uint32_t most;  /* buffers, indirect ones too: as many as the ring has entries */
    uint32_t in_count, out_count;
    struct gw_virtio_segment in[GW_VIRTIO_RING_MAX], out[GW_VIRTIO_RING_MAX];
};

static const char *add_segment(const struct gw_virtio *dev, struct chain *chain,
                               const struct desc *desc)
{
    struct gw_virtio_segment segment = {desc->address, desc->bytes};
    if (desc->bytes == 0 || !map(dev, desc->address, desc->bytes))
        return "a buffer that is not in its memory";
    if (chain->in_count + chain->out_count == chain->most)
        return "a request of more buffers than the ring has entries";
    if (desc->flags & DESC_WRITE)
        chain->in[chain->in_count++] = segment;
    else if (chain->in_count > 0)
        return "a buffer to read behind one to write";
    else
        chain->out[chain->out_count++] = segment;
    return NULL;
}

static const char *enter_indirect(const struct gw_virtio *dev, struct chain *chain,
                                  const struct desc *desc)
{
    if (gw_virtio_has(dev, GW_VIRTIO_F_INDIRECT) != 1 || desc->bytes == 0 || desc->bytes % 16 != 0)
        return "a table of descriptors that it may not have";
    chain->table = map(dev, desc->address, desc->bytes);
    chain->count = desc->bytes / 16;
    return chain->table ? NULL : "a table of descriptors that is not in its memory";
}

/* Return: what is wrong with it, or NULL. Each step adds a buffer, so a chain without an end has too many. */
static const char *collect(const struct gw_virtio *dev, struct chain *chain, uint32_t head)
{
    uint32_t at = head;
    bool is_indirect = false;
    for (;;) {
        if (at >= chain->count)
            return "a descriptor beyond the table";
        struct desc desc = read_desc(dev, chain->table, at);
        const char *wrong;
        if (desc.flags & DESC_INDIRECT) {
            if (is_indirect)
                return "a table of descriptors within another";
            wrong = enter_indirect(dev, chain, &desc);
            if (wrong)
                return wrong;
            is_indirect = true;
            at = 0;
            continue;
        }
        wrong = add_segment(dev, chain, &desc);
        if (wrong || !(desc.flags & DESC_NEXT))
            return wrong;
        at = desc.next;
    }
}

struct gw_virtio_element *gw_virtio_element_new(uint32_t in_count, uint32_t out_count)
{
    size_t segments = (size_t)in_count + out_count;
    struct gw_virtio_element *element =
        calloc(1, sizeof(*element) + segments * sizeof(element->segments[0]));
    if (!element)
        return NULL;
    element->in_count = in_count;
    element->out_count = out_count;
    return element;
}

void gw_virtio_element_free(struct gw_virtio_element *element)
{
    free(element);
}

static struct gw_virtio_element *keep_chain(const struct chain *chain, unsigned n, uint32_t head)
{
    struct gw_virtio_element *element = gw_virtio_element_new(chain->in_count, chain->out_count);
    if (!element)
        return NULL;
    element->queue = n;
    element->head = head;
    memcpy(element->segments, chain->in, chain->in_count * sizeof(chain->in[0]));
    memcpy(element->segments + chain->in_count, chain->out,
           chain->out_count * sizeof(chain->out[0]));
    return element;
}

/* Is there a request to take? */
static bool has_more(struct gw_virtio *dev, struct gw_virtqueue *vq)
{
    if (vq->shadow_avail == vq->last_avail)
        vq->shadow_avail = gw_virtqueue_avail_idx(dev, vq);
    uint16_t heads = (uint16_t)(vq->shadow_avail - vq->last_avail);
    if (heads > vq->num)
        gw_virtio_break(dev, "the guest offers more requests than the ring has entries");
    return heads > 0 && !dev->broken;
}

static bool may_take(const struct gw_virtio *dev, const struct gw_virtqueue *vq)
{
    if (dev->broken || dev->disabled || vq->desc == 0 || vq->num == 0 || is_packed(dev))
        return false;
    return (dev->status & GW_VIRTIO_S_DRIVER_OK) || dev->start_on_kick;
}

struct gw_virtio_element *gw_virtqueue_pop(struct gw_virtio *dev, unsigned n)
{
    struct gw_virtqueue *vq = &dev->queues[n];
    if (!may_take(dev, vq) || !has_more(dev, vq))
        return NULL;
    if (vq->inuse >= vq->num) {
        gw_virtio_break(dev, "more requests than the ring has entries");
        return NULL;
    }
    struct chain *chain = malloc(sizeof(*chain));
    if (!chain)
        return NULL; /* it stays in the ring */
    uint32_t head = load16(dev, vq->avail + 4 + 2 * (uint64_t)(vq->last_avail % vq->num));
    chain->table = map(dev, vq->desc, UINT64_C(16) * vq->num);
    chain->count = chain->most = vq->num;
    chain->in_count = chain->out_count = 0;
    const char *wrong = chain->table ? collect(dev, chain, head) : "a ring that is no memory";
    struct gw_virtio_element *element = wrong ? NULL : keep_chain(chain, n, head);
    free(chain);
    if (wrong)
        gw_virtio_break(dev, wrong);
    if (!element)
        return NULL;
    vq->last_avail++;
    vq->inuse++;
    if (event_bytes(dev) > 0) /* told of the next one, whenever it comes */
        store16(dev, vq->used + 4 + UINT64_C(8) * vq->num, vq->last_avail);
    return element;
}

/* ---- returning --------------------------------------------------------------------------------- */

static bool wants_interrupt(const struct gw_virtio *dev, struct gw_virtqueue *vq)
{
    uint16_t was = vq->signalled_used;
    bool valid = vq->signalled_used_valid;
    vq->signalled_used = vq->used_idx;
    vq->signalled_used_valid = true;
    if (event_bytes(dev) == 0)
        return !(load16(dev, vq->avail) & AVAIL_NO_INTERRUPT);
    uint16_t event = load16(dev, vq->avail + 4 + UINT64_C(2) * vq->num);
    return !valid || (uint16_t)(vq->used_idx - event - 1) < (uint16_t)(vq->used_idx - was);
}

GW_VIRTIO_RACES static void put_used(const struct gw_virtio *dev, uint32_t *entry, uint32_t head,
                                     uint32_t bytes)
{
    entry[0] = order32(dev, head);
    entry[1] = order32(dev, bytes);
}

void gw_virtqueue_push(struct gw_virtio *dev, struct gw_virtio_element *element, uint32_t bytes)
{
    struct gw_virtqueue *vq = &dev->queues[element->queue];
    if (dev->broken || vq->desc == 0 || vq->num == 0 || vq->inuse == 0) {
        gw_virtio_element_free(element);
        return;
    }
    uint64_t at = vq->used + 4 + UINT64_C(8) * (vq->used_idx % vq->num);
    uint32_t *entry = map(dev, at, 8);
    if (entry) {
        put_used(dev, entry, element->head, bytes);
        wrote(dev, at, 8);
        vq->used_idx++;
        vq->inuse--;
        store16(dev, vq->used + 2, vq->used_idx);
        if (wants_interrupt(dev, vq))
            gw_virtio_notify_queue(dev, element->queue);
    }
    gw_virtio_element_free(element);
}
