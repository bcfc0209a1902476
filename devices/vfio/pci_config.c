// SPDX-License-Identifier: MIT
/* The configuration space of a PCI function that is passed through. An image that differs from this
 * function's where nobody may change it is another function's: it is refused, with the place. */
#include "devices/vfio/pci_config.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define STATUS 0x06u
#define STATUS_INTERRUPT 0x08u /* follows from the pins, so it is never in the image */
#define ENTRY_BYTES 16u

static int check_self(const struct gw_vfio_pci *pci, struct gw_error *err)
{
    bool bytes_fit = pci->config_bytes == 256 || pci->config_bytes == 4096;
    bool vectors_fit = pci->vectors <= GW_VFIO_PCI_VECTORS_MAX &&
                       (pci->vectors == 0 || (pci->table && pci->pending));
    if (pci->struct_bytes < sizeof(*pci) || !bytes_fit || !vectors_fit || !pci->config ||
        !pci->check || !pci->writable || !pci->clears)
        return gw_error_set(err, -EINVAL, GW_CODE_INVALID,
                            "pci configuration: its description is incomplete");
    return 0;
}

static size_t pending_bytes(const struct gw_vfio_pci *pci)
{
    return (pci->vectors + 7) / 8;
}

int gw_vfio_pci_save(const struct gw_vfio_pci *pci, struct gw_writer *w, struct gw_error *err)
{
    int rc = check_self(pci, err);
    if (rc < 0)
        return rc;
    gw_writer_be32(w, GW_VFIO_PCI_VERSION);
    gw_writer_bytes(w, pci->config, STATUS);
    gw_writer_u8(w, pci->config[STATUS] & (uint8_t)~STATUS_INTERRUPT);
    gw_writer_bytes(w, pci->config + STATUS + 1, pci->config_bytes - STATUS - 1);
    for (unsigned i = 0; i < GW_VFIO_PCI_PINS; i++)
        gw_writer_be32(w, pci->pins[i]);
    if (pci->vectors > 0) {
        gw_writer_bytes(w, pci->table, (size_t)pci->vectors * ENTRY_BYTES);
        gw_writer_bytes(w, pci->pending, pending_bytes(pci));
    }
    return 0;
}

struct image { /* where its parts lie in the section */
    const uint8_t *config, *table, *pending;
    uint32_t pins[GW_VFIO_PCI_PINS];
};

static int check_config(const struct gw_vfio_pci *pci, const uint8_t *config, struct gw_error *err)
{
    for (uint32_t at = 0; at < pci->config_bytes; at++) {
        unsigned fixed = pci->check[at] & (unsigned)~pci->writable[at] & (unsigned)~pci->clears[at];
        if (!((config[at] ^ pci->config[at]) & fixed))
            continue;
        gw_error_set(err, -ENODEV, GW_CODE_DEVICE,
                     "pci configuration: byte 0x%" PRIx32 " is 0x%02x, and 0x%02x here, of which "
                     "0x%02x must be the same",
                     at, config[at], pci->config[at], fixed);
        gw_error_hint(err, "both ends need the same device with the same firmware");
        return -ENODEV;
    }
    return 0;
}

static int read_pins(uint32_t *pins, struct gw_reader *r, struct gw_error *err)
{
    for (unsigned i = 0; i < GW_VFIO_PCI_PINS; i++) {
        pins[i] = gw_reader_be32(r);
        if (pins[i] <= 1)
            continue;
        gw_error_set(err, -ERANGE, GW_CODE_DEVICE, "pci configuration: level of pin %c is %" PRIu32,
                     (char)('A' + i), pins[i]);
        return -ERANGE;
    }
    return 0;
}

/* Bits behind the last vector's mean nothing, and must say so. */
static int check_pending(const struct gw_vfio_pci *pci, const uint8_t *pending,
                         struct gw_error *err)
{
    unsigned used = pci->vectors % 8;
    if (used == 0 || pending[pending_bytes(pci) - 1] >> used == 0)
        return 0;
    return gw_error_set(err, -EINVAL, GW_CODE_DEVICE,
                        "pci configuration: an interrupt is pending behind the last of %" PRIu32
                        " vectors",
                        pci->vectors);
}

static int read_image(const struct gw_vfio_pci *pci, struct image *image, struct gw_reader *r,
                      struct gw_error *err)
{
    uint32_t version = gw_reader_be32(r);
    if (version > GW_VFIO_PCI_VERSION) {
        gw_error_set(err, -ERANGE, GW_CODE_DEVICE,
                     "pci configuration: version %" PRIu32 ", %u is the highest here", version,
                     GW_VFIO_PCI_VERSION);
        return -ERANGE;
    }
    image->config = gw_reader_take(r, pci->config_bytes);
    int rc = version == GW_VFIO_PCI_VERSION ? read_pins(image->pins, r, err) : 0;
    if (rc < 0)
        return rc;
    if (pci->vectors > 0) {
        image->table = gw_reader_take(r, (size_t)pci->vectors * ENTRY_BYTES);
        image->pending = gw_reader_take(r, pending_bytes(pci));
    }
    if (image->config && (pci->vectors == 0 || (image->table && image->pending)) &&
        gw_reader_error(r) == 0)
        return 0;
    gw_error_set(err, -EBADMSG, GW_CODE_DEVICE,
                 "pci configuration: it ends before its %" PRIu32 " bytes and %" PRIu32 " vectors",
                 pci->config_bytes, pci->vectors);
    return -EBADMSG;
}

int gw_vfio_pci_load(struct gw_vfio_pci *pci, struct gw_reader *r, struct gw_error *err)
{
    struct image image = {0};
    int rc = check_self(pci, err);
    if (rc != 0)
        return rc;
    rc = read_image(pci, &image, r, err);
    if (rc == 0)
        rc = check_config(pci, image.config, err);
    if (rc == 0 && image.pending)
        rc = check_pending(pci, image.pending, err);
    if (rc != 0)
        return rc;
    memcpy(pci->config, image.config, pci->config_bytes);
    memcpy(pci->pins, image.pins, sizeof(image.pins));
    pci->config[STATUS] &= (uint8_t)~STATUS_INTERRUPT;
    for (unsigned i = 0; i < GW_VFIO_PCI_PINS; i++)
        pci->config[STATUS] |= image.pins[i] ? STATUS_INTERRUPT : 0;
    if (pci->vectors > 0) {
        memcpy(pci->table, image.table, (size_t)pci->vectors * ENTRY_BYTES);
        memcpy(pci->pending, image.pending, pending_bytes(pci));
    }
    return pci->apply ? pci->apply(pci->opaque, err) : 0;
}
