/* SPDX-License-Identifier: MIT */
/* devices/vfio/feature.h - a device with a state machine and a data descriptor (the newer kernel
 * interface), as an opaque device.
 *
 * The structures and numbers are the kernel's. The calls on the device are a table, so that whoever
 * holds the descriptors makes them (ioctl(2), read(2), write(2)) and a test can stand for a driver.
 * What a driver supports is asked for, never taken from a kernel's version. */
#ifndef GODWIT_DEVICES_VFIO_FEATURE_H
#define GODWIT_DEVICES_VFIO_FEATURE_H

#include "devices/vfio/opaque.h"

#define GW_FEATURE_MIGRATION 1u    /* GET: struct gw_feature_migration */
#define GW_FEATURE_DEVICE_STATE 2u /* GET, SET: struct gw_feature_device_state */
#define GW_FEATURE_DATA_SIZE 9u    /* GET: u64, what STOP_COPY would give */
#define GW_FEATURE_NUMBER_MASK 0xffffu
#define GW_FEATURE_GET 0x10000u
#define GW_FEATURE_SET 0x20000u

#define GW_FEATURE_STOP_COPY 1u
#define GW_FEATURE_P2P 2u
#define GW_FEATURE_PRE_COPY 4u

struct gw_feature_header { /* in front of what a feature carries */
    uint32_t argsz;        /* header included */
    uint32_t flags;        /* a number, and GET or SET */
};

struct gw_feature_migration {
    struct gw_feature_header header;
    uint64_t flags; /* GW_FEATURE_STOP_COPY, ... */
};

struct gw_feature_device_state {
    struct gw_feature_header header;
    uint32_t state;  /* enum gw_odev_state */
    int32_t data_fd; /* of a transfer that begins; the caller's from then on. -1: none begins */
};

struct gw_feature_data_size {
    struct gw_feature_header header;
    uint64_t stop_copy_bytes;
};

#define GW_PRECOPY_REINIT 1u /* in flags: initial_bytes is of a new batch */

struct gw_precopy_info { /* of the data descriptor */
    uint32_t argsz;
    uint32_t flags;
    uint64_t initial_bytes;
    uint64_t dirty_bytes;
};

/* Each returns 0 or a count, else a negative errno, as the system calls' errno. */
struct gw_feature_ops {
    size_t struct_bytes;
    int (*feature)(void *dev, struct gw_feature_header *feature); /* VFIO_DEVICE_FEATURE */
    int (*precopy_info)(void *dev, int data_fd, struct gw_precopy_info *info);
    /* -ENOMSG: nothing now (PRE_COPY); 0: the end (STOP_COPY). */
    ssize_t (*data_read)(void *dev, int data_fd, void *data, size_t bytes_max);
    ssize_t (*data_write)(void *dev, int data_fd, const void *data, size_t bytes);
    void (*data_close)(void *dev, int data_fd); /* NULL: close(2) */
    int (*reset)(void *dev);
    int (*save_config)(void *dev, struct gw_writer *w, struct gw_error *err); /* both or neither */
    int (*load_config)(void *dev, struct gw_reader *r, struct gw_error *err);
};

struct gw_feature;

/** gw_feature_new() - adapt a device; asks it what it supports. @ops, @dev and @name are borrowed until
 *  gw_feature_free(). @caps: format, format_version and reinit are taken from it; may be NULL.
 *  Return: 0, -EINVAL (ops incomplete), -EOPNOTSUPP (no migration, or no STOP_COPY), -ENOMEM, or what
 *  the driver said. */
int gw_feature_new(const struct gw_feature_ops *ops, void *dev, const char *name,
                   const struct gw_odev_caps *caps, struct gw_feature **feature,
                   struct gw_error *err);
/** gw_feature_free() - closes the data descriptor. The device stays in its state. Takes NULL. */
void gw_feature_free(struct gw_feature *feature);

/* Its table as an opaque device; the first argument of each is the gw_feature. */
extern const struct gw_odev_ops gw_feature_odev_ops;

#endif
