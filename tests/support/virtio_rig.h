/* SPDX-License-Identifier: MIT */
/* tests/support/virtio_rig.h - a virtio device with 256 KiB of guest memory, as tests/qemu/virtio.py's scenes
 * have it; saved to bytes, loaded from bytes. */
#ifndef GW_TEST_VIRTIO_RIG_H
#define GW_TEST_VIRTIO_RIG_H

#include "control/stream.h"
#include "core/base/alloc.h"
#include "devices/virtio/virtio.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RIG_MEMORY_AT UINT64_C(0x100000)
#define RIG_MEMORY_BYTES 0x40000u
#define RIG_BODY_MAX ((size_t)1 << 20)

struct virtio_rig {
    uint8_t *memory;
    struct gw_virtio *dev;
    struct gw_error err;
    bool line;
    unsigned raises, messages, wrote, logs;
    char log[256];
};

/* What kind of function: of a machine of today, behind a root port, of a machine of 2.3. */
enum rig_function { RIG_PCI, RIG_EXPRESS, RIG_OLD };

/* A scene: the device that recorded it. */
struct virtio_scene {
    const char *name;
    enum gw_virtio_bus bus;
    uint64_t features;
    uint32_t queues, ring; /* of blk */
    bool is_net;
    uint32_t vectors;
    enum rig_function function;
    uint32_t config_bytes; /* 0: 57, or net's 8 */
    uint32_t flags;
    enum gw_virtio_endian endian;
    int fd;
    uint64_t disk_bytes;
    uint32_t queue_pairs;
    uint64_t offloads;
    uint32_t hash_types;
    bool no_vnet_hdr;
};

#define RIG_LOW                                                                                    \
    (GW_VIRTIO_BIT(2) | GW_VIRTIO_BIT(9) | GW_VIRTIO_BIT(17) | GW_VIRTIO_BIT(18) |                 \
     GW_VIRTIO_BIT(19) | GW_VIRTIO_BIT(28) | GW_VIRTIO_BIT(29))
#define RIG_NET_LOW (GW_VIRTIO_BIT(17) | GW_VIRTIO_BIT(18) | GW_VIRTIO_BIT(19))
#define RIG_MODERN (GW_VIRTIO_BIT(32) | GW_VIRTIO_BIT(40))

static const struct virtio_scene rig_scenes[] = {
    {"mmio-legacy-blk", GW_VIRTIO_MMIO_LEGACY, RIG_LOW | GW_VIRTIO_BIT(40), 1, 256},
    {"mmio-blk", GW_VIRTIO_MMIO, RIG_LOW | RIG_MODERN, 1, 256},
    {"mmio-held-blk", GW_VIRTIO_MMIO_LEGACY, RIG_LOW | GW_VIRTIO_BIT(40), 1, 256},
    {"mmio-many-blk", GW_VIRTIO_MMIO, RIG_LOW | RIG_MODERN, 4, 256},
    {"mmio-net", GW_VIRTIO_MMIO, RIG_NET_LOW | RIG_MODERN, 0, 256, .is_net = true},
    {"pci-blk", GW_VIRTIO_PCI, RIG_LOW | RIG_MODERN, 1, 256, .vectors = 2},
    {"pci-packed-blk", GW_VIRTIO_PCI, RIG_LOW | RIG_MODERN | GW_VIRTIO_BIT(34), 1, 256,
     .vectors = 2},
    {"pci-many-blk", GW_VIRTIO_PCI, RIG_LOW | RIG_MODERN, 4, 256, .vectors = 5},
    {"pcie-blk", GW_VIRTIO_PCI, RIG_LOW | RIG_MODERN, 1, 256, .vectors = 2,
     .function = RIG_EXPRESS},
    {"pci-old-blk", GW_VIRTIO_PCI, RIG_LOW, 1, 128, .vectors = 2, .function = RIG_OLD,
     .config_bytes = 36},
    {"pci-net", GW_VIRTIO_PCI, RIG_NET_LOW | RIG_MODERN, 0, 256, .is_net = true, .vectors = 4},
    /* Recorded nowhere: as after a reset, and what tests make of that. */
    {"mmio-pairs-net", GW_VIRTIO_MMIO,
     RIG_NET_LOW | RIG_MODERN | GW_VIRTIO_BIT(GW_VIRTIO_NET_F_GUEST_OFFLOADS), 0, 256,
     .is_net = true, .queue_pairs = 4, .offloads = 0x1c, .hash_types = 0xff},
};

static inline const struct virtio_scene *rig_scene(const char *name)
{
    for (size_t i = 0; i < sizeof(rig_scenes) / sizeof(rig_scenes[0]); i++) {
        if (strcmp(rig_scenes[i].name, name) == 0)
            return &rig_scenes[i];
    }
    return NULL;
}

/* ---- the host ---------------------------------------------------------------------------------- */

static inline void *rig_map(void *opaque, uint64_t address, uint64_t bytes)
{
    struct virtio_rig *rig = opaque;
    if (address < RIG_MEMORY_AT || bytes > RIG_MEMORY_BYTES ||
        address - RIG_MEMORY_AT > RIG_MEMORY_BYTES - bytes)
        return NULL;
    return rig->memory + (address - RIG_MEMORY_AT);
}

static inline void rig_wrote(void *opaque, uint64_t address, uint64_t bytes)
{
    (void)address;
    (void)bytes;
    ((struct virtio_rig *)opaque)->wrote++;
}

static inline void rig_interrupt(void *opaque, bool level)
{
    struct virtio_rig *rig = opaque;
    rig->raises += level && !rig->line;
    rig->line = level;
}

static inline void rig_message(void *opaque, unsigned vector)
{
    (void)vector;
    ((struct virtio_rig *)opaque)->messages++;
}

static inline void rig_log(void *opaque, const char *text)
{
    struct virtio_rig *rig = opaque;
    rig->logs++;
    snprintf(rig->log, sizeof(rig->log), "%s", text);
}

/* ---- a pci function as QEMU 7.2 has it ----------------------------------------------------------- */

struct rig_pci {
    uint8_t image[4096], check[4096], writable[4096], clearable[4096];
};

static inline void rig_pci_bytes(struct rig_pci *pci, unsigned at, const char *bytes,
                                 unsigned count)
{
    memcpy(pci->image + at, bytes, count);
    memset(pci->check + at, 0xff, count);
}

static inline void rig_express_fill(struct rig_pci *pci)
{
    rig_pci_bytes(pci, 0x00, "\xf4\x1a\x42\x10", 4);
    rig_pci_bytes(pci, 0x08, "\x01\x00\x00\x01", 4);
    rig_pci_bytes(pci, 0x2c, "\xf4\x1a\x00\x11", 4);
    rig_pci_bytes(pci, 0x34, "\xdc", 1);
    rig_pci_bytes(pci, 0xdc, "\x11\xc8", 2);
    memset(pci->writable + 0x04, 0xff, 2);
}

static inline void rig_old_fill(struct rig_pci *pci)
{
    rig_pci_bytes(pci, 0x00, "\xf4\x1a\x01\x10", 4);
    rig_pci_bytes(pci, 0x2c, "\xf4\x1a\x02\x00", 4);
    rig_pci_bytes(pci, 0x34, "\x40", 1);
    rig_pci_bytes(pci, 0x40, "\x11\x00\x01\x00", 4);
    memset(pci->writable + 0x43, 0xff, 1);
}

static inline void rig_pci_fill(struct rig_pci *pci, bool is_net, uint32_t vectors,
                                enum rig_function function)
{
    memset(pci, 0, sizeof(*pci));
    if (function == RIG_EXPRESS)
        rig_express_fill(pci);
    else if (function == RIG_OLD)
        rig_old_fill(pci);
    if (function != RIG_PCI)
        return;
    rig_pci_bytes(pci, 0x00, is_net ? "\xf4\x1a\x00\x10" : "\xf4\x1a\x01\x10", 4);
    rig_pci_bytes(pci, 0x06, "\x10", 1);
    rig_pci_bytes(pci, 0x08, is_net ? "\x00\x00\x00\x02" : "\x00\x00\x00\x01", 4);
    rig_pci_bytes(pci, 0x10, "\x01", 1);
    rig_pci_bytes(pci, 0x20, "\x0c", 1);
    rig_pci_bytes(pci, 0x2c, is_net ? "\xf4\x1a\x01\x00" : "\xf4\x1a\x02\x00", 4);
    rig_pci_bytes(pci, 0x34, "\x98", 1);
    rig_pci_bytes(pci, 0x3d, "\x01", 1);
    rig_pci_bytes(pci, 0x40, "\x09\x00\x10\x01\x04\0\0\0\0\0\0\0\0\x10\0\0", 16);
    rig_pci_bytes(pci, 0x50, "\x09\x40\x10\x03\x04\0\0\0\0\x10\0\0\0\x10\0\0", 16);
    rig_pci_bytes(pci, 0x60, "\x09\x50\x10\x04\x04\0\0\0\0\x20\0\0\0\x10\0\0", 16);
    rig_pci_bytes(pci, 0x70, "\x09\x60\x14\x02\x04\0\0\0\0\x30\0\0\0\x10\0\0\x04\0\0\0", 20);
    rig_pci_bytes(pci, 0x84, "\x09\x70\x14\x05", 4);
    rig_pci_bytes(pci, 0x98, "\x11\x84", 2);
    pci->image[0x9a] = (uint8_t)(vectors - 1);
    pci->check[0x9a] = pci->check[0x9b] = 0xff;
    rig_pci_bytes(pci, 0x9c, "\x01\0\0\0\x01\x08\0\0", 8);
    pci->writable[0x04] = pci->writable[0x3c] = 0xff;
    memset(pci->writable + 0x11, 0xff, 3); /* BARs, but their lowest bits */
    pci->writable[0x10] = 0xe0;
    memset(pci->writable + 0x15, 0xff, 3);
    memset(pci->writable + 0x21, 0xff, 7);
    pci->writable[0x9b] = 0xc0; /* MSI-X: on, all masked */
    pci->clearable[0x07] = 0xf9;
}

/* ---- life -------------------------------------------------------------------------------------- */

static inline int rig_init(struct virtio_rig *rig, const struct virtio_scene *scene)
{
    *rig = (struct virtio_rig){.err = GW_ERROR_INIT};
    rig->memory = aligned_alloc(4096, RIG_MEMORY_BYTES);
    memset(rig->memory, 0, RIG_MEMORY_BYTES);
    static struct rig_pci pci;
    rig_pci_fill(&pci, scene->is_net, scene->vectors, scene->function);
    struct gw_virtio_pci_config pci_config = {.config_bytes =
                                                  scene->function == RIG_EXPRESS ? 4096 : 256,
                                              .image = pci.image,
                                              .check = pci.check,
                                              .writable = pci.writable,
                                              .clearable = pci.clearable,
                                              .vectors = scene->vectors,
                                              .has_modern = scene->function != RIG_OLD,
                                              .has_extra_state = scene->function != RIG_OLD};
    struct gw_virtio_config config = {
        .struct_bytes = sizeof(config),
        .name = scene->is_net ? "rig/virtio-net" : "rig/virtio-blk",
        .bus = scene->bus,
        .features = scene->features,
        .flags = scene->flags,
        .endian = scene->endian,
        .host = {rig, rig_map, rig_wrote, rig_interrupt, rig_message, rig_log},
        .pci = scene->bus == GW_VIRTIO_PCI ? &pci_config : NULL};
    if (scene->is_net) {
        struct gw_virtio_net_config net = {.struct_bytes = sizeof(net),
                                           .mac = {0x52, 0x54, 0, 0, 0, 1},
                                           .queue_pairs =
                                               scene->queue_pairs ? scene->queue_pairs : 1,
                                           .ring = scene->ring,
                                           .config_bytes = 8,
                                           .has_control = true,
                                           .has_vnet_hdr = !scene->no_vnet_hdr,
                                           .offloads = scene->offloads,
                                           .hash_types = scene->hash_types};
        return gw_virtio_net_new(&config, &net, &rig->dev, &rig->err);
    }
    struct gw_virtio_blk_config blk = {.struct_bytes = sizeof(blk),
                                       .queues = scene->queues,
                                       .ring = scene->ring,
                                       .config_bytes =
                                           scene->config_bytes ? scene->config_bytes : 57,
                                       .fd = scene->fd > 0 ? scene->fd : -1,
                                       .bytes = scene->disk_bytes ? scene->disk_bytes : 1 << 20};
    return gw_virtio_blk_new(&config, &blk, &rig->dev, &rig->err);
}

static inline void rig_fini(struct virtio_rig *rig)
{
    gw_virtio_free(rig->dev);
    free(rig->memory);
    *rig = (struct virtio_rig){.err = GW_ERROR_INIT};
}

/* ---- bytes ------------------------------------------------------------------------------------- */

static inline int rig_save(struct virtio_rig *rig, struct gw_writer *w)
{
    struct gw_device_desc desc;
    gw_writer_init(w, RIG_BODY_MAX);
    int rc = gw_virtio_device(rig->dev, &desc, &rig->err);
    if (rc == 0)
        rc = desc.save(desc.opaque, w, &rig->err);
    return rc < 0 ? rc : gw_writer_error(w);
}

/* @left: bytes that the load has not taken. */
static inline int rig_load(struct virtio_rig *rig, const void *data, size_t bytes, size_t *left)
{
    struct gw_device_desc desc;
    struct gw_reader r;
    gw_reader_init(&r, data, bytes);
    int rc = gw_virtio_device(rig->dev, &desc, &rig->err);
    if (rc == 0)
        rc = desc.load(desc.opaque, &r, desc.version_id, &rig->err);
    *left = gw_reader_left(&r);
    return rc;
}

/* tests/data/virtio/<name>.gz, whole; NULL if it cannot be read. */
static inline uint8_t *rig_data(const char *tree, const char *name, size_t *bytes)
{
    char command[4200];
    snprintf(command, sizeof(command), "gzip -dc '%s/tests/data/virtio/%s.gz'", tree, name);
    FILE *file = popen(command, "r");
    uint8_t *data = file ? malloc(RIG_BODY_MAX) : NULL;
    *bytes = data ? fread(data, 1, RIG_BODY_MAX, file) : 0;
    if (!file || pclose(file) != 0 || *bytes == 0) {
        free(data);
        return NULL;
    }
    return data;
}

/* What a scene's machine wrote, and its memory into the rig. */
static inline uint8_t *rig_golden(struct virtio_rig *rig, const char *tree, const char *scene,
                                  size_t *bytes)
{
    char name[80];
    size_t ram_bytes;
    snprintf(name, sizeof(name), "%s.ram", scene);
    uint8_t *ram = rig_data(tree, name, &ram_bytes);
    if (!ram || ram_bytes != RIG_MEMORY_BYTES) {
        free(ram);
        return NULL;
    }
    memcpy(rig->memory, ram, ram_bytes);
    free(ram);
    snprintf(name, sizeof(name), "%s.body", scene);
    return rig_data(tree, name, bytes);
}

#endif
