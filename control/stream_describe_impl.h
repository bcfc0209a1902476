/* SPDX-License-Identifier: MIT */
/* control/stream_describe_impl.h - inside the reader of descriptions only. */
#ifndef GW_CONTROL_STREAM_DESCRIBE_IMPL_H
#define GW_CONTROL_STREAM_DESCRIBE_IMPL_H

#include "control/stream_describe.h"

#include <jansson.h>

struct gw_description {
    const char *text;
    uint64_t page_bytes;
    unsigned count, room;
    struct gw_described_device *devices;
    uint32_t *slots; /* hash of name and instance -> index + 1; a power of two of them */
    unsigned slot_count;
};

/* The device's object, for json_decref(); NULL: malformed. */
json_t *gw_description_parse(const struct gw_description *description,
                             const struct gw_described_device *device);

#endif
