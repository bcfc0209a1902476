/* SPDX-License-Identifier: MIT */
/* devices/vfio/staging_impl.h - inside the staging adapter only: staging.c has registers, states and
 * chunks; staging_window.c copies out of and into the window. */
#ifndef GODWIT_DEVICES_VFIO_STAGING_IMPL_H
#define GODWIT_DEVICES_VFIO_STAGING_IMPL_H

#include "devices/vfio/staging.h"

struct gw_staging {
    const struct gw_staging_ops *ops;
    void *dev;
    const char *name;
    const struct gw_log *log;
    struct gw_odev_caps caps;

    uint64_t pending;      /* as last read; 0: read it again */
    uint64_t chunk_offset; /* the next byte of the present chunk */
    uint64_t chunk_bytes;  /* what is left of it */
    uint64_t pending_last; /* told as long as pending may not be read */

    struct gw_staging_area areas[GW_STAGING_AREAS_MAX]; /* sorted, apart from each other */
    unsigned area_count;
    bool mapped; /* the driver was asked, and unmap is due */
    struct gw_staging_stats stats;
};

void gw_staging_warn(const struct gw_staging *staging, const char *format, ...) GW_PRINTF(2, 3);

/* Mapping never fails: what cannot be mapped goes through the driver. */
void gw_staging_map(struct gw_staging *staging);
void gw_staging_unmap(struct gw_staging *staging);

/* [offset, offset + bytes) lies in the window. */
int gw_staging_copy_out(struct gw_staging *staging, uint64_t offset, void *data, size_t bytes);
int gw_staging_copy_in(struct gw_staging *staging, uint64_t offset, const void *data, size_t bytes);

#endif
