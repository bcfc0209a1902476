/* SPDX-License-Identifier: MIT */
/* control/stream_describe_impl.h - inside the reader of descriptions, and what compares them, only. */
#ifndef GW_CONTROL_STREAM_DESCRIBE_IMPL_H
#define GW_CONTROL_STREAM_DESCRIBE_IMPL_H

#include "control/stream_describe.h"

#include <jansson.h>

#define GW_DESCRIPTION_DEPTH_MAX 32u
#define GW_DESCRIPTION_DEVICE_TEXT_MAX                                                             \
    ((size_t)2 << 20) /* thirty times the largest that was seen */

struct gw_description {
    const char *text;
    uint64_t page_bytes;
    bool is_static; /* devices as gw_description_new_static() has them */
    unsigned count, room;
    struct gw_described_device *devices;
    uint32_t *slots; /* hash of name and instance -> index + 1; a power of two of them */
    unsigned slot_count;
};

/* The device's object, for json_decref(); NULL: malformed. */
json_t *gw_description_parse(const struct gw_description *description,
                             const struct gw_described_device *device);
int gw_description_add(struct gw_description *to, const struct gw_described_device *device,
                       struct gw_error *err);
/* After the last was added: gw_description_find() works from here on. */
int gw_description_index(struct gw_description *description, struct gw_error *err);

#endif
