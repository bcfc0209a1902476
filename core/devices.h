/* SPDX-License-Identifier: MIT */
/* core/devices.h - the registry of devices, memory the first of them, and their state as sections of the
 * savevm stream. */
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
/* Memory as the first of them; NULL: it is said later, by calling this again. */
int gw_devices_set_ram(struct gw_devices *devices, struct gw_ram *ram, struct gw_error *err);
const struct gw_device_desc *gw_devices_find(const struct gw_devices *devices, const char *name,
                                             uint32_t instance_id);

bool gw_devices_have_workers(const struct gw_devices *devices); /* some opted in */
/* At a target: some did, and none has a load that the source might send packets to, and did not. */
bool gw_devices_take_packets(const struct gw_devices *devices);
bool gw_device_is_early(const struct gw_device_desc *device);  /* at a source */
bool gw_device_is_needed(const struct gw_device_desc *device); /* FULL; calls the device */

/* May it be in HELLO and in the stream's configuration? -EINVAL with err. */
int gw_machine_check(const char *machine, struct gw_error *err);

/* ---- sections: one writer each --------------------------------------------------------------- */

#define GW_RAM_NAME "ram"
#define GW_SECTION_RAM 1u         /* section id of RAM; devices count on from 2 */
#define GW_RAM_SECTION_VERSION 4u /* the stream format's RAM section */

static inline uint32_t gw_device_section_id(unsigned index) /* of the list */
{
    return GW_SECTION_RAM + index;
}

struct gw_vmdesc; /* control/vmdesc.h */

/* Each calls what its name says, between a head and a footer, on the caller's thread. -errno with err,
 * which names the device. setup, iterate, complete: of a device with handlers. */
int gw_savevm_setup(struct gw_writer *w, const struct gw_device_desc *device, uint32_t section_id,
                    struct gw_error *err);
/* PART, or nothing if nothing was written. Return: 0: there is more; GW_DEVICE_DONE. */
int gw_savevm_iterate(struct gw_writer *w, const struct gw_device_desc *device, uint32_t section_id,
                      uint64_t bytes_max, struct gw_error *err);
/* Return: 0: it is a PART, and there is more; GW_DEVICE_DONE: it is the END. */
int gw_savevm_complete(struct gw_writer *w, const struct gw_device_desc *device,
                       uint32_t section_id, uint64_t bytes_max, struct gw_error *err);
/* FULL; told to @desc if that is not NULL. */
int gw_savevm_save(struct gw_writer *w, const struct gw_device_desc *device, uint32_t section_id,
                   struct gw_vmdesc *desc, struct gw_error *err);

/* Find the device of a section and load it; of PART and END, @section has what START said. All of the
 * body must be consumed. Return: 0; GW_DEVICE_ACK; -errno with err. */
int gw_savevm_load(const struct gw_devices *devices, const struct gw_section *section,
                   struct gw_reader *body, struct gw_error *err);

int gw_savevm_pending(const struct gw_device_desc *device, bool exact,
                      struct gw_device_pending *pending, struct gw_error *err);
int gw_savevm_load_setup(const struct gw_devices *devices, struct gw_error *err);
int gw_savevm_load_complete(const struct gw_devices *devices, struct gw_error *err);

/* ---- RAM (savevm_ram.c) ---------------------------------------------------------------------- */

struct gw_device_desc gw_savevm_ram(struct gw_ram *ram);
/* Does a RAM START body say what the block offers said? -EPROTO with err. */
int gw_savevm_check_ram_start(struct gw_reader *body, struct gw_ram *ram, struct gw_error *err);
int gw_savevm_check_ram_end(struct gw_reader *body, struct gw_error *err);

#endif
