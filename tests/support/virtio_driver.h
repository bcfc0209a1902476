/* SPDX-License-Identifier: MIT */
/* tests/support/virtio_driver.h - the guest's side of a virtio-blk on mmio: one queue in a rig's memory, a
 * request a slot, each of three descriptors. */
#ifndef GW_TEST_VIRTIO_DRIVER_H
#define GW_TEST_VIRTIO_DRIVER_H

#include "tests/support/virtio_rig.h"

#include <endian.h>

#define DRIVER_RING 16u
#define DRIVER_SLOTS 5u /* of three descriptors */
#define DRIVER_DATA 1024u
#define DRIVER_DESC RIG_MEMORY_AT
#define DRIVER_AVAIL (DRIVER_DESC + UINT64_C(16) * DRIVER_RING)
#define DRIVER_USED (RIG_MEMORY_AT + 0x1000)
#define DRIVER_SLOT(slot) (RIG_MEMORY_AT + 0x4000 + 0x1000 * (uint64_t)(slot))

struct virtio_driver {
    struct virtio_rig *rig;
    bool is_legacy, is_big;
    uint16_t avail, used;
};

static inline void driver_put(struct virtio_driver *d, uint64_t address, unsigned bytes,
                              uint64_t value)
{
    uint8_t *at = rig_map(d->rig, address, bytes);
    for (unsigned i = 0; i < bytes; i++)
        at[d->is_big ? bytes - 1 - i : i] = (uint8_t)(value >> 8 * i);
}

static inline uint64_t driver_get(struct virtio_driver *d, uint64_t address, unsigned bytes)
{
    const uint8_t *at = rig_map(d->rig, address, bytes);
    uint64_t value = 0;
    for (unsigned i = 0; i < bytes; i++)
        value |= (uint64_t)at[d->is_big ? bytes - 1 - i : i] << 8 * i;
    return value;
}

static inline void driver_register(struct virtio_driver *d, uint64_t offset, uint32_t value)
{
    gw_virtio_mmio_write(d->rig->dev, offset, 4, value);
}

static inline void driver_features(struct virtio_driver *d, uint64_t wanted)
{
    for (unsigned half = 0; half < (d->is_legacy ? 1u : 2u); half++) {
        driver_register(d, 0x14, half);
        uint32_t offered = (uint32_t)gw_virtio_mmio_read(d->rig->dev, 0x10, 4);
        driver_register(d, 0x24, half);
        driver_register(d, 0x20, offered & (uint32_t)(wanted >> 32 * half));
    }
}

static inline void driver_address(struct virtio_driver *d, uint64_t offset, uint64_t address)
{
    driver_register(d, offset, (uint32_t)address);
    driver_register(d, offset + 4, (uint32_t)(address >> 32));
}

static inline void driver_begin(struct virtio_driver *d, struct virtio_rig *rig, bool is_legacy,
                                uint64_t features)
{
    *d = (struct virtio_driver){.rig = rig, .is_legacy = is_legacy};
    driver_register(d, 0x70, 0);
    driver_register(d, 0x70, 3);
    driver_features(d, features);
    if (is_legacy) {
        driver_register(d, 0x28, 4096);
    } else {
        driver_register(d, 0x70, 0xb);
    }
    driver_register(d, 0x30, 0);
    driver_register(d, 0x38, DRIVER_RING);
    if (is_legacy) {
        driver_register(d, 0x3c, 4096);
        driver_register(d, 0x40, (uint32_t)(DRIVER_DESC >> 12));
    } else {
        driver_address(d, 0x80, DRIVER_DESC);
        driver_address(d, 0x90, DRIVER_AVAIL);
        driver_address(d, 0xa0, DRIVER_USED);
        driver_register(d, 0x44, 1);
    }
    driver_register(d, 0x70, is_legacy ? 7 : 0xf);
}

static inline void driver_desc(struct virtio_driver *d, unsigned n, uint64_t address,
                               uint32_t bytes, uint16_t flags, uint16_t next)
{
    uint64_t at = DRIVER_DESC + (uint64_t)16 * n;
    driver_put(d, at, 8, address);
    driver_put(d, at + 8, 4, bytes);
    driver_put(d, at + 12, 2, flags);
    driver_put(d, at + 14, 2, next);
}

static inline void driver_offer_head(struct virtio_driver *d, uint16_t head)
{
    driver_put(d, DRIVER_AVAIL + 4 + (uint64_t)2 * (d->avail % DRIVER_RING), 2, head);
    driver_put(d, DRIVER_AVAIL + 2, 2, ++d->avail);
}

/* Type 0 reads, 1 writes DRIVER_DATA bytes of @fill, 4 flushes. */
static inline void driver_offer(struct virtio_driver *d, unsigned slot, uint32_t type,
                                uint64_t sector, int fill)
{
    uint64_t at = DRIVER_SLOT(slot);
    uint16_t first = (uint16_t)(3 * slot);
    driver_put(d, at, 4, type);
    driver_put(d, at + 4, 4, 0);
    driver_put(d, at + 8, 8, sector);
    memset(rig_map(d->rig, at + 0x100, DRIVER_DATA), type == 1 ? fill : 0xee, DRIVER_DATA);
    driver_put(d, at + 0x800, 1, 0xff);
    driver_desc(d, first, at, 16, 1, (uint16_t)(first + (type == 4 ? 2 : 1)));
    driver_desc(d, first + 1u, at + 0x100, DRIVER_DATA, type == 1 ? 1 : 3, (uint16_t)(first + 2));
    driver_desc(d, first + 2u, at + 0x800, 1, 2, 0);
    driver_offer_head(d, first);
}

static inline uint8_t driver_status(struct virtio_driver *d, unsigned slot)
{
    return (uint8_t)driver_get(d, DRIVER_SLOT(slot) + 0x800, 1);
}

static inline uint16_t driver_used(struct virtio_driver *d)
{
    return (uint16_t)driver_get(d, DRIVER_USED + 2, 2);
}

#endif
