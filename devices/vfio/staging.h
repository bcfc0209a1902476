/* SPDX-License-Identifier: MIT */
/* devices/vfio/staging.h - a device behind a region of registers and a window (the older kernel
 * interface), as an opaque device.
 *
 * The region begins with 32 bytes of registers; the rest is the window, which the driver fills with
 * a chunk of state, or takes one from. Reading data_offset makes the driver put the next chunk there,
 * so every register is read exactly where the protocol asks for it and never again. The read of
 * pending_bytes tells the driver that the chunk was taken: it is not read while bytes are left. */
#ifndef GODWIT_DEVICES_VFIO_STAGING_H
#define GODWIT_DEVICES_VFIO_STAGING_H

#include "devices/vfio/opaque.h"

#define GW_STAGING_DEVICE_STATE 0u  /* u32, read and written */
#define GW_STAGING_PENDING_BYTES 8u /* u64, read */
#define GW_STAGING_DATA_OFFSET 16u  /* u64, read */
#define GW_STAGING_DATA_SIZE 24u    /* u64, read; written by who loads */
#define GW_STAGING_REGISTER_BYTES 32u

#define GW_STAGING_RUNNING 1u
#define GW_STAGING_SAVING 2u
#define GW_STAGING_RESUMING 4u
#define GW_STAGING_STATE_MASK 7u
#define GW_STAGING_STATE_ERROR 6u

#define GW_STAGING_AREAS_MAX 16u

struct gw_staging_area {    /* part of the window that is mapped: copied without the driver */
    uint64_t offset, bytes; /* in the region */
    void *host;
};

/* Each returns 0 (map_areas a count), else a negative errno. A short transfer is -EIO. */
struct gw_staging_ops {
    size_t struct_bytes;
    uint64_t region_bytes;
    int (*reg_read)(void *dev, unsigned offset, unsigned width, uint64_t *value);
    int (*reg_write)(void *dev, unsigned offset, unsigned width, uint64_t value);
    int (*data_read)(void *dev, uint64_t offset, void *data, size_t bytes);
    int (*data_write)(void *dev, uint64_t offset, const void *data, size_t bytes);
    /* Both NULL where nothing can be mapped. A failure costs speed only. */
    int (*map_areas)(void *dev, struct gw_staging_area *areas, unsigned max);
    void (*unmap_areas)(void *dev);
    int (*reset)(void *dev);
    int (*save_config)(void *dev, struct gw_writer *w, struct gw_error *err); /* both or neither */
    int (*load_config)(void *dev, struct gw_reader *r, struct gw_error *err);
};

struct gw_staging;

/** gw_staging_new() - adapt a device. @ops, @dev, @name and @log are borrowed until gw_staging_free();
 *  @log may be NULL. @caps: format and format_version are taken from it; may be NULL.
 *  Return: 0, -EINVAL (ops incomplete, a region without a window), -ENOMEM. */
int gw_staging_new(const struct gw_staging_ops *ops, void *dev, const char *name,
                   const struct gw_odev_caps *caps, const struct gw_log *log,
                   struct gw_staging **staging, struct gw_error *err);
/** gw_staging_free() - unmaps what is mapped. The device stays in its state. Takes NULL. */
void gw_staging_free(struct gw_staging *staging);

/* Its table as an opaque device; the first argument of each is the gw_staging. */
extern const struct gw_odev_ops gw_staging_odev_ops;

struct gw_staging_stats {
    uint64_t chunks, bytes;
    uint64_t empty_chunks; /* bytes were pending, and the chunk had none */
    uint64_t mapped_bytes; /* of bytes: copied from or to mapped areas */
    unsigned mapped_areas; /* now */
};
void gw_staging_stats(const struct gw_staging *staging, struct gw_staging_stats *stats);

#endif
