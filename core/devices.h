/* SPDX-License-Identifier: MIT */
/* core/devices.h - the registry of devices, and their state as items of the savevm stream. */
#ifndef GW_CORE_DEVICES_H
#define GW_CORE_DEVICES_H

#include "control/stream.h"
#include "ram/block.h"

#include <godwit/device.h>

struct gw_devices {              /* in order of saving */
    struct gw_device_desc *list; /* whole, with names and handlers that are our own copies */
    unsigned count, room;
};

void gw_devices_fini(struct gw_devices *devices);
int gw_devices_add(struct gw_devices *devices, const struct gw_device_desc *desc,
                   struct gw_error *err);
const struct gw_device_desc *gw_devices_find(const struct gw_devices *devices, const char *name,
                                             uint32_t instance_id);

/* May it be in HELLO and in the stream's configuration? -EINVAL with err. */
int gw_machine_check(const char *machine, struct gw_error *err);

/* ---- items: one writer each ----------------------------------------------------------------- */

#define GW_SECTION_RAM 1u         /* section id of RAM; devices count on from 2 */
#define GW_RAM_SECTION_VERSION 4u /* the stream format's RAM section */

/* RAM START: the block table and the end record; RAM END: the end record. */
void gw_savevm_ram_start(struct gw_writer *w, struct gw_ram *ram);
void gw_savevm_ram_end(struct gw_writer *w);
/* Does a RAM START body say what the block offers said? -EPROTO with err. */
int gw_savevm_check_ram_start(struct gw_reader *body, struct gw_ram *ram, struct gw_error *err);
int gw_savevm_check_ram_end(struct gw_reader *body, struct gw_error *err);

/* One FULL section. Calls the device's save; on the embedder's thread. */
int gw_savevm_save(struct gw_writer *w, const struct gw_device_desc *device, uint32_t section_id,
                   struct gw_error *err);
/* Find the device of a FULL section and load it. All of the body must be consumed. */
int gw_savevm_load(const struct gw_devices *devices, const struct gw_section *section,
                   struct gw_reader *body, struct gw_error *err);

#endif
