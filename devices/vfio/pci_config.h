/* SPDX-License-Identifier: MIT */
/* devices/vfio/pci_config.h - the guest's view of a PCI function that is passed through: what a driver's
 * save_config and load_config (staging.h, feature.h) have to move, since the hypervisor keeps it.
 *
 *     u32 version: 2
 *     256 or 4096 bytes of configuration space, the interrupt bit of its status as 0
 *     4 x u32: level of the pins A to D; not in version 0 and 1
 *     with MSI-X: 16 bytes for each vector, a pending bit for each in whole bytes */
#ifndef GODWIT_DEVICES_VFIO_PCI_CONFIG_H
#define GODWIT_DEVICES_VFIO_PCI_CONFIG_H

#include <godwit/device.h>

#define GW_VFIO_PCI_VERSION 2u
#define GW_VFIO_PCI_PINS 4u
#define GW_VFIO_PCI_VECTORS_MAX 2048u

/* Filled by the caller, and its for as long as it is used. */
struct gw_vfio_pci {
    size_t struct_bytes;
    uint32_t config_bytes; /* 256, or 4096 */
    uint8_t *config;       /* the function's, as the guest sees it */
    /* Masks of config_bytes each. A bit of `check` must be what it is here, unless guest (`writable`) or
     * device may change it (`clears`: by writing 1). */
    const uint8_t *check, *writable, *clears;
    uint32_t pins[GW_VFIO_PCI_PINS]; /* 0 or 1 */
    uint32_t vectors;                /* of MSI-X; 0: there is none */
    uint8_t *table;                  /* 16 bytes for each vector */
    uint8_t *pending;                /* a bit for each */
    /* After a load: write the command register through to the device, map BARs below a page's size anew
     * if their address changed, then enable MSI or MSI-X as the image says. May be NULL. */
    int (*apply)(void *opaque, struct gw_error *err);
    void *opaque;
};

int gw_vfio_pci_save(const struct gw_vfio_pci *pci, struct gw_writer *w, struct gw_error *err);
/** gw_vfio_pci_load() - all of it is checked before any of it is taken: after a refusal @pci is what it was.
 *  Return: 0, -EBADMSG (too short), -ERANGE (a version or a level that there is not), -ENODEV (another
 *  function's), -EINVAL, or what apply said. */
int gw_vfio_pci_load(struct gw_vfio_pci *pci, struct gw_reader *r, struct gw_error *err);

#endif
