/* SPDX-License-Identifier: MIT */
/* devices/virtio/virtio.h - virtio devices whose state moves: a core, a transport (mmio, pci) and a
 * device (blk, net). Built on include/godwit alone; the state is byte for byte what QEMU 7.2 writes
 * for the same device, except where a flag says otherwise.
 *
 * What works: virtio-blk over a file, on mmio, both legacy and version 1, with split rings. Of pci and of
 * net the state is kept, saved, checked and loaded; nothing behind them moves.
 *
 * Life:    gw_virtio_blk_new() or gw_virtio_net_new(); gw_virtio_device() for the migration; registers
 *          and gw_virtio_blk_step() while the guest runs; gw_virtio_free().
 * Threads: a device belongs to one thread at a time. It calls the host's functions on that thread.
 * Failure: a load that is refused leaves the device reset. A guest that breaks its own rings breaks its
 *          device (it does nothing until the next reset), and nothing else. */
#ifndef GW_DEVICES_VIRTIO_H
#define GW_DEVICES_VIRTIO_H

#include <errno.h>
#include <godwit/vmstate.h>

#define GW_VIRTIO_QUEUES_MAX 1024u
#define GW_VIRTIO_RING_MAX 1024u  /* entries, and descriptors of one request */
#define GW_VIRTIO_CONFIG_MAX 256u /* bytes of a device's own configuration */
#define GW_VIRTIO_NO_VECTOR 0xffffu
#define GW_VIRTIO_MMIO_BYTES 0x200u /* of registers */

/* Numbers of feature bits, and of bits of the status register. */
enum {
    GW_VIRTIO_F_BAD_LEGACY = 30, /* offered by nobody, accepted by drivers that ack everything */
    GW_VIRTIO_F_INDIRECT = 28,
    GW_VIRTIO_F_EVENT_IDX = 29,
    GW_VIRTIO_F_VERSION_1 = 32,
    GW_VIRTIO_F_RING_PACKED = 34,
    GW_VIRTIO_BLK_F_SEG_MAX = 2,
    GW_VIRTIO_BLK_F_RO = 5,
    GW_VIRTIO_BLK_F_FLUSH = 9,
    GW_VIRTIO_NET_F_GUEST_OFFLOADS = 2,
    GW_VIRTIO_NET_F_CTRL_VQ = 17,
    GW_VIRTIO_NET_F_ANNOUNCE = 21,

    GW_VIRTIO_S_DRIVER_OK = 0x04,
    GW_VIRTIO_S_FEATURES_OK = 0x08,
    GW_VIRTIO_S_NEEDS_RESET = 0x40,
};
#define GW_VIRTIO_BIT(n) (UINT64_C(1) << (n))

/* What a refused load returns, by what was wrong. */
enum gw_virtio_fault {
    GW_VIRTIO_EOF = -EBADMSG,     /* the state ends inside a field */
    GW_VIRTIO_RANGE = -ERANGE,    /* above a bound */
    GW_VIRTIO_INVALID = -EINVAL,  /* no honest source says that; a version or a repetition too */
    GW_VIRTIO_MISMATCH = -ENODEV, /* the source's device is another than this one */
    GW_VIRTIO_FEATURES = -EOPNOTSUPP, /* features that are not offered here */
    GW_VIRTIO_UNKNOWN = -ENOENT,      /* a part that is not known here */
    GW_VIRTIO_MISSING = -ENODATA,     /* a part that had to come */
    GW_VIRTIO_TOO_EARLY = -EAGAIN,    /* asked for before it was loaded: a device's own mistake */
};

enum gw_virtio_endian { GW_VIRTIO_ENDIAN_UNKNOWN, GW_VIRTIO_LITTLE, GW_VIRTIO_BIG };

/* What a device asks of whoever runs the guest. */
struct gw_virtio_host {
    void *opaque;
    /* Guest memory at this address, in one piece, or NULL if not all of that is memory. Valid until the
     * device is freed. Its alignment is the address's, up to 4096. */
    void *(*map)(void *opaque, uint64_t address, uint64_t bytes);
    /* The device stored there. NULL: whoever tracks dirty memory sees stores by itself. */
    void (*wrote)(void *opaque, uint64_t address, uint64_t bytes);
    void (*interrupt)(void *opaque, bool level);    /* the line; may be NULL */
    void (*message)(void *opaque, unsigned vector); /* MSI-X; may be NULL */
    void (*log)(void *opaque, const char *text);    /* rare; may be NULL */
};

enum gw_virtio_bus { GW_VIRTIO_MMIO_LEGACY, GW_VIRTIO_MMIO, GW_VIRTIO_PCI };

/* A PCI function as far as migration sees it. The four images are of config_bytes each. */
struct gw_virtio_pci_config {
    uint32_t config_bytes;    /* 256, or 4096 of an Express function */
    const uint8_t *image;     /* after a reset */
    const uint8_t *check;     /* bits that must be the same at both ends ... */
    const uint8_t *writable;  /* ... unless the guest may write them */
    const uint8_t *clearable; /* ... or clear them by writing 1 */
    uint32_t vectors;         /* of MSI-X; 0: there is none */
    bool has_modern;          /* the version 1 interface is there */
    bool has_extra_state;     /* its registers are in the state (of machines later than 2.4) */
};

/* Flags. Without any, the bytes are QEMU 7.2's, whose rings of a legacy guest are where it puts them. */
#define GW_VIRTIO_STANDARD_RINGS                                                                   \
    1u /* legacy rings where the standard puts them, event field and all */
#define GW_VIRTIO_OWN_ELEMENTS                                                                     \
    2u /* requests in flight in godwit's encoding: small, of no host's order */

struct gw_virtio_config {
    size_t struct_bytes; /* sizeof(struct gw_virtio_config) */
    const char *name;    /* of its section: "0000:00:03.0/virtio-blk"; copied */
    const char *machine; /* as in vmstate.h; borrowed; may be NULL */
    enum gw_virtio_bus bus;
    uint64_t features;            /* offered. Only GW_VIRTIO_BLK_FEATURES do anything */
    enum gw_virtio_endian endian; /* of a guest that does not say; 0 is little */
    uint32_t flags;               /* GW_VIRTIO_STANDARD_RINGS ... */
    struct gw_virtio_host host;
    const struct gw_virtio_pci_config *pci; /* of GW_VIRTIO_PCI; copied */
};

struct gw_virtio;

/** gw_virtio_free() - takes NULL. What a file descriptor stood for is the caller's. */
void gw_virtio_free(struct gw_virtio *dev);
/** gw_virtio_reset() - as after power on: no queue, no feature, no request. */
void gw_virtio_reset(struct gw_virtio *dev);
bool gw_virtio_is_broken(const struct gw_virtio *dev);

/** gw_virtio_device() - what gw_source_add_device() and gw_target_add_device() take; borrows @dev. */
int gw_virtio_device(struct gw_virtio *dev, struct gw_device_desc *desc, struct gw_error *err);
/** gw_virtio_shape() - a second device, "<name>/shape": what the state's layout depends on and its bytes
 *  do not tell (bus, MSI-X vectors, queues, ...). Higher in priority, so a target that is built otherwise
 *  says so before it reads the state. QEMU knows nothing of it. */
int gw_virtio_shape(struct gw_virtio *dev, struct gw_device_desc *desc, struct gw_error *err);

/** gw_virtio_mmio_read() - a register, as the guest reads it: @bytes is 1, 2, 4 or 8. What is not there
 *  reads as 0. */
uint64_t gw_virtio_mmio_read(struct gw_virtio *dev, uint64_t offset, unsigned bytes);
/** gw_virtio_mmio_write() - a kick does nothing here: see gw_virtio_blk_step(). */
void gw_virtio_mmio_write(struct gw_virtio *dev, uint64_t offset, unsigned bytes, uint64_t value);

/* ---- blk --------------------------------------------------------------------------------------- */

#define GW_VIRTIO_BLK_FEATURES                                                                     \
    (GW_VIRTIO_BIT(GW_VIRTIO_BLK_F_SEG_MAX) | GW_VIRTIO_BIT(GW_VIRTIO_BLK_F_FLUSH) |               \
     GW_VIRTIO_BIT(GW_VIRTIO_BLK_F_RO) | GW_VIRTIO_BIT(GW_VIRTIO_F_INDIRECT) |                     \
     GW_VIRTIO_BIT(GW_VIRTIO_F_EVENT_IDX) | GW_VIRTIO_BIT(GW_VIRTIO_F_VERSION_1))

struct gw_virtio_blk_config {
    size_t struct_bytes;   /* sizeof(struct gw_virtio_blk_config) */
    uint32_t queues;       /* 1..GW_VIRTIO_QUEUES_MAX */
    uint32_t ring;         /* entries, a power of two up to GW_VIRTIO_RING_MAX */
    uint32_t config_bytes; /* of its configuration; 0: 60 */
    int fd;                /* the disk, or -1: nothing can be read or written; borrowed */
    uint64_t bytes;        /* of the disk, a multiple of 512 */
};

/** gw_virtio_blk_new() - Return: 0, -EINVAL, -ENOMEM. */
int gw_virtio_blk_new(const struct gw_virtio_config *config, const struct gw_virtio_blk_config *blk,
                      struct gw_virtio **dev, struct gw_error *err);
/** gw_virtio_blk_step() - take what the rings offer, up to @hold requests at a time, and carry out at most
 *  @max of those that it holds. A request that is held is not in the ring's available part any more; it
 *  moves in the device's state. Return: how many were carried out. */
unsigned gw_virtio_blk_step(struct gw_virtio *dev, unsigned hold, unsigned max);
unsigned gw_virtio_blk_held(const struct gw_virtio *dev);

/* ---- net --------------------------------------------------------------------------------------- */

struct gw_virtio_net_config {
    size_t struct_bytes; /* sizeof(struct gw_virtio_net_config) */
    uint8_t mac[6];
    uint32_t queue_pairs;       /* 1..128; with the control queue, 2 * queue_pairs + 1 queues */
    uint32_t ring;              /* entries of rx and tx; the control queue has 64 */
    uint32_t config_bytes;      /* of its configuration; 0: 12 */
    bool has_control;           /* a control queue is there */
    bool has_vnet_hdr, has_ufo; /* what the back end can do */
    uint64_t offloads;          /* that may be switched on */
    uint32_t hash_types;        /* of RSS; 0: there is none */
};

/** gw_virtio_net_new() - Return: 0, -EINVAL, -ENOMEM. */
int gw_virtio_net_new(const struct gw_virtio_config *config, const struct gw_virtio_net_config *net,
                      struct gw_virtio **dev, struct gw_error *err);

#endif
