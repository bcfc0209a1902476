// SPDX-License-Identifier: MIT
/* The pci transport, as state: the function's configuration space, its pins, its MSI-X table, and what the
 * guest has written to its version 1 registers. A configuration space that differs from this function's
 * where neither guest nor device may change it is another function's, and refused. */
#include "devices/virtio/virtio_impl.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define PCI_VERSION 2u
#define PCI_PINS 4u
#define PCI_STATUS 0x06u
#define PCI_STATUS_INTERRUPT 0x08u /* follows from the pins, so it is never in the image */
#define PCI_STATUS_CAPABILITIES 0x10u
#define PCI_CAPABILITIES 0x34u
#define PCI_CAPABILITY_MSIX 0x11u
#define PCI_BYTES_MAX 4096u
#define MSIX_ENTRY_BYTES 16u
#define MSIX_VECTORS_MAX 2048u

struct pci_queue { /* as the guest has written it */
    uint16_t num;
    uint8_t enabled;
    uint32_t desc[2], avail[2], used[2]; /* low, high */
};

struct pci {
    struct gw_virtio *dev;
    uint32_t config_bytes, vectors;
    bool has_modern, has_extra;
    uint8_t fresh[PCI_BYTES_MAX], config[PCI_BYTES_MAX];
    uint8_t check[PCI_BYTES_MAX]; /* bits that must be equal: of check, less what may be written */
    uint32_t pins[PCI_PINS];
    uint8_t table[MSIX_VECTORS_MAX * MSIX_ENTRY_BYTES], pending[MSIX_VECTORS_MAX / 8];
    uint32_t host_select, guest_select, guest_features[2];
    struct pci_queue queues[GW_VIRTIO_QUEUES_MAX];
};

static struct pci *pci_of(const struct gw_virtio *dev)
{
    return dev->bus_state;
}

/* ---- interrupts -------------------------------------------------------------------------------- */

/* Where the capability is, or 0. A list that goes round ends too. */
static uint32_t find_capability(const struct pci *pci, uint8_t id)
{
    if (!(pci->config[PCI_STATUS] & PCI_STATUS_CAPABILITIES))
        return 0;
    uint32_t at = pci->config[PCI_CAPABILITIES] & 0xfcu;
    for (unsigned i = 0; at >= 0x40 && i < 48; i++) {
        if (pci->config[at] == id)
            return at;
        at = pci->config[at + 1] & 0xfcu;
    }
    return 0;
}

static bool has_messages_on(const struct pci *pci)
{
    uint32_t at = pci->vectors > 0 ? find_capability(pci, PCI_CAPABILITY_MSIX) : 0;
    return at > 0 && (pci->config[at + 3] & 0x80) != 0;
}

static void notify(struct gw_virtio *dev, uint16_t vector)
{
    struct pci *pci = pci_of(dev);
    if (has_messages_on(pci)) {
        if (vector < pci->vectors && dev->host.message)
            dev->host.message(dev->host.opaque, vector);
        return;
    }
    pci->pins[0] = dev->isr != 0;
    if (dev->host.interrupt)
        dev->host.interrupt(dev->host.opaque, pci->pins[0] != 0);
}

/* ---- saving ------------------------------------------------------------------------------------ */

static uint32_t pending_bytes(const struct pci *pci)
{
    return (pci->vectors + 7) / 8;
}

static int save_config(struct gw_virtio *dev, struct gw_writer *w, struct gw_error *err)
{
    const struct pci *pci = pci_of(dev);
    (void)err;
    gw_writer_be32(w, PCI_VERSION);
    gw_writer_bytes(w, pci->config, pci->config_bytes);
    for (unsigned i = 0; i < PCI_PINS; i++)
        gw_writer_be32(w, pci->pins[i]);
    if (pci->vectors == 0)
        return 0;
    gw_writer_bytes(w, pci->table, (size_t)pci->vectors * MSIX_ENTRY_BYTES);
    gw_writer_bytes(w, pci->pending, pending_bytes(pci));
    gw_writer_be16(w, dev->config_vector);
    return 0;
}

static int save_queue(struct gw_virtio *dev, unsigned n, struct gw_writer *w, struct gw_error *err)
{
    (void)err;
    if (pci_of(dev)->vectors > 0)
        gw_writer_be16(w, dev->queues[n].vector);
    return 0;
}

/* ---- loading ----------------------------------------------------------------------------------- */

static int check_config(const struct gw_virtio *dev, const uint8_t *image, struct gw_error *err)
{
    const struct pci *pci = pci_of(dev);
    for (uint32_t at = 0; at < pci->config_bytes; at++) {
        if ((image[at] ^ pci->fresh[at]) & pci->check[at]) {
            int rc = gw_virtio_refuse(err, GW_VIRTIO_MISMATCH, "pci config",
                                      "byte 0x%" PRIx32 " is 0x%02x, and 0x%02x here, of which "
                                      "0x%02x must be the same",
                                      at, image[at], pci->fresh[at], pci->check[at]);
            gw_error_hint(err, "is it the same device, of the same machine version, at both ends?");
            return rc;
        }
    }
    return 0;
}

static int load_pins(struct gw_virtio *dev, struct gw_reader *r, struct gw_error *err)
{
    struct pci *pci = pci_of(dev);
    for (unsigned i = 0; i < PCI_PINS; i++) {
        pci->pins[i] = gw_reader_be32(r);
        if (pci->pins[i] > 1)
            return gw_virtio_refuse(err, GW_VIRTIO_RANGE, "pci pin", "level of pin %c is %" PRIu32,
                                    (char)('A' + i), pci->pins[i]);
    }
    return gw_virtio_took(r, "pci pin", err);
}

static int load_function(struct gw_virtio *dev, struct gw_reader *r, struct gw_error *err)
{
    struct pci *pci = pci_of(dev);
    uint8_t image[PCI_BYTES_MAX];
    uint32_t version = gw_reader_be32(r);
    if (version > PCI_VERSION)
        return gw_virtio_refuse(err, GW_VIRTIO_INVALID, "pci version",
                                "%" PRId32 ", 0 to %u are taken", (int32_t)version, PCI_VERSION);
    gw_reader_bytes(r, image, pci->config_bytes);
    int rc = gw_virtio_took(r, "pci config", err);
    if (rc == 0)
        rc = check_config(dev, image, err);
    if (rc < 0)
        return rc;
    memcpy(pci->config, image, pci->config_bytes);
    pci->config[PCI_STATUS] &= (uint8_t)~PCI_STATUS_INTERRUPT;
    return version >= 2 ? load_pins(dev, r, err) : 0;
}

static int check_vector(const struct gw_virtio *dev, const char *field, uint16_t vector,
                        struct gw_error *err)
{
    const struct pci *pci = pci_of(dev);
    if (vector == GW_VIRTIO_NO_VECTOR || vector < pci->vectors)
        return 0;
    return gw_virtio_refuse(err, GW_VIRTIO_RANGE, field, "vector %u of %" PRIu32, vector,
                            pci->vectors);
}

static int load_messages(struct gw_virtio *dev, struct gw_reader *r, struct gw_error *err)
{
    struct pci *pci = pci_of(dev);
    gw_reader_bytes(r, pci->table, (size_t)pci->vectors * MSIX_ENTRY_BYTES);
    gw_reader_bytes(r, pci->pending, pending_bytes(pci));
    dev->config_vector = gw_reader_be16(r);
    int rc = gw_virtio_took(r, "config_vector", err);
    if (rc < 0)
        return rc;
    if (pci->vectors % 8 != 0 && pci->pending[pci->vectors / 8] >> pci->vectors % 8 != 0)
        return gw_virtio_refuse(err, GW_VIRTIO_INVALID, "msix pending",
                                "bits beyond the last vector are set");
    return check_vector(dev, "config_vector", dev->config_vector, err);
}

static int load_config(struct gw_virtio *dev, struct gw_reader *r, struct gw_error *err)
{
    int rc = load_function(dev, r, err);
    return rc < 0 || pci_of(dev)->vectors == 0 ? rc : load_messages(dev, r, err);
}

static int load_queue(struct gw_virtio *dev, unsigned n, struct gw_reader *r, struct gw_error *err)
{
    if (pci_of(dev)->vectors == 0)
        return 0;
    dev->queues[n].vector = gw_reader_be16(r);
    int rc = gw_virtio_took(r, "queue vector", err);
    return rc < 0 ? rc : check_vector(dev, "queue vector", dev->queues[n].vector, err);
}

/* ---- the version 1 registers -------------------------------------------------------------------- */

static int modern_came(void *opaque, uint32_t version_id, struct gw_error *err)
{
    const struct pci *pci = opaque;
    const struct gw_virtio *dev = pci->dev;
    (void)version_id;
    for (unsigned n = 0; n < GW_VIRTIO_QUEUES_MAX; n++) {
        const struct pci_queue *mine = &pci->queues[n];
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

static bool has_modern(const void *opaque)
{
    return ((const struct pci *)opaque)->has_modern;
}

static const struct gw_vmstate queue_vmsd = {
    GW_VMSTATE_OF(struct pci_queue),
    .name = "virtio_pci/modern_queue_state",
    .version_id = 1,
    .minimum_version_id = 1,
    GW_VMSTATE_FIELDS(GW_VMSTATE_UINT16(num, struct pci_queue),
                      GW_VMSTATE_UNUSED(struct pci_queue, 1), /* enabled had 16 bits once */
                      GW_VMSTATE_UINT8(enabled, struct pci_queue),
                      GW_VMSTATE_ARRAY(UINT32, desc, struct pci_queue, 2),
                      GW_VMSTATE_ARRAY(UINT32, avail, struct pci_queue, 2),
                      GW_VMSTATE_ARRAY(UINT32, used, struct pci_queue, 2)),
};
static const struct gw_vmstate modern_vmsd = {
    GW_VMSTATE_OF(struct pci),
    .name = "virtio_pci/modern_state",
    .version_id = 1,
    .minimum_version_id = 1,
    .needed = has_modern,
    .post_load = modern_came,
    GW_VMSTATE_FIELDS(GW_VMSTATE_UINT32(host_select, struct pci),
                      GW_VMSTATE_UINT32(guest_select, struct pci),
                      GW_VMSTATE_ARRAY(UINT32, guest_features, struct pci, 2),
                      GW_VMSTATE_STRUCT_ARRAY(queues, struct pci, GW_VIRTIO_QUEUES_MAX, queue_vmsd,
                                              struct pci_queue)),
};
static const struct gw_vmstate pci_vmsd = {
    GW_VMSTATE_OF(struct pci),
    .name = "virtio_pci",
    .version_id = 1,
    .minimum_version_id = 1,
    GW_VMSTATE_SUBSECTIONS(&modern_vmsd),
};

static bool has_extra(const struct gw_virtio *dev)
{
    return pci_of(dev)->has_extra;
}

/* ---- the table --------------------------------------------------------------------------------- */

static void reset(struct gw_virtio *dev)
{
    struct pci *pci = pci_of(dev);
    memcpy(pci->config, pci->fresh, sizeof(pci->config));
    memset(pci->pins, 0, sizeof(pci->pins));
    memset(pci->table, 0, sizeof(pci->table));
    for (uint32_t i = 0; i < pci->vectors; i++)
        pci->table[i * MSIX_ENTRY_BYTES + 12] = 1; /* masked */
    memset(pci->pending, 0, sizeof(pci->pending));
    pci->host_select = pci->guest_select = 0;
    memset(pci->guest_features, 0, sizeof(pci->guest_features));
    memset(pci->queues, 0, sizeof(pci->queues));
}

static const struct gw_virtio_transport_ops pci_ops = {
    .name = "virtio-pci",
    .save_config = save_config,
    .load_config = load_config,
    .save_queue = save_queue,
    .load_queue = load_queue,
    .extra = &pci_vmsd,
    .has_extra = has_extra,
    .notify = notify,
    .reset = reset,
};

int gw_virtio_pci_new(struct gw_virtio *dev, const struct gw_virtio_pci_config *config,
                      struct gw_error *err)
{
    uint32_t bytes = config->config_bytes;
    if ((bytes != 256 && bytes != PCI_BYTES_MAX) || config->vectors > MSIX_VECTORS_MAX ||
        !config->image || !config->check || !config->writable || !config->clearable)
        return gw_error_set(err, -EINVAL, GW_CODE_INVALID,
                            "virtio '%s': a pci function has 256 or 4096 bytes of configuration, "
                            "four images of it, and at most %u vectors",
                            dev->name, MSIX_VECTORS_MAX);
    struct pci *pci = calloc(1, sizeof(*pci));
    if (!pci)
        return -ENOMEM;
    pci->dev = dev;
    pci->config_bytes = bytes;
    pci->vectors = config->vectors;
    pci->has_modern = config->has_modern;
    pci->has_extra = config->has_extra_state;
    memcpy(pci->fresh, config->image, bytes);
    for (uint32_t at = 0; at < bytes; at++)
        pci->check[at] =
            config->check[at] & (uint8_t)~config->writable[at] & (uint8_t)~config->clearable[at];
    dev->bus = &pci_ops;
    dev->bus_state = pci;
    dev->shape_vectors = config->vectors;
    dev->shape_pci_bytes = bytes;
    for (unsigned n = 0; n < dev->queue_count; n++)
        dev->queues[n].num_max = dev->queues[n].num_default;
    return 0;
}
