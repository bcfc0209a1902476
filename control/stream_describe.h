/* SPDX-License-Identifier: MIT */
/* control/stream_describe.h - a stream's description, read: which device sections there are, how long each
 * is, and which bytes of one are which field. The text is a stranger's: it may be malformed, contradict
 * itself or the section, or ask for more memory than it is worth. */
#ifndef GW_CONTROL_STREAM_DESCRIBE_H
#define GW_CONTROL_STREAM_DESCRIBE_H

#include "core/base/error.h"

#include <stdbool.h>
#include <stdint.h>

#define GW_DESCRIPTION_BYTES_MAX ((size_t)16 << 20)
#define GW_DESCRIPTION_DEVICES_MAX 65536u
#define GW_FIELD_PATH_BYTES 512

struct gw_description;

struct gw_described_device {
    char idstr[256];
    uint32_t instance_id, version_id;
    bool has_version;           /* devices without one were written by hand */
    size_t text_at, text_bytes; /* of its object */
};

/* Keeps @text, which must outlive it. On failure *@fault_at is the offset in it. -EPROTO, -ENOMEM. */
int gw_description_new(const char *text, size_t bytes, struct gw_description **description,
                       size_t *fault_at, struct gw_error *err);
/* As above, of what could be sent: an object with a member for each device, by the name of its kind, and
 * "vmschkmachine", whose name is given to @machine ("": none). It has no pages, and no body can be measured
 * or walked by it: it is compared. */
int gw_description_new_static(const char *text, size_t bytes, char machine[256],
                              struct gw_description **description, size_t *fault_at,
                              struct gw_error *err);
void gw_description_free(struct gw_description *description);                 /* takes NULL */
uint64_t gw_description_page_bytes(const struct gw_description *description); /* 0: not said */
unsigned gw_description_count(const struct gw_description *description);
const struct gw_described_device *gw_description_device(const struct gw_description *description,
                                                        unsigned index);
/* The index of a device, or -ENOENT. Looks at @near first. */
int gw_description_find(const struct gw_description *description, const char *idstr,
                        uint32_t instance_id, unsigned near);

struct gw_described_field {
    const char *path; /* "vq[2].ring.num", "virtio/subsection.field"; during the call */
    const char *type;
    uint64_t offset; /* in the body */
    uint64_t bytes;  /* of all elements */
    uint64_t count;  /* of elements */
    const uint8_t *data;
};

/* Return: 0 to go on. */
typedef int gw_described_fn(void *ctx, const struct gw_described_field *field);

/* How many bytes the device's body has. -EPROTO: the description contradicts itself. */
int gw_description_measure(const struct gw_description *description, unsigned index,
                           uint64_t *bytes, struct gw_error *err);
/* Walk @body by its description; @bytes is what was measured. -EPROTO: they do not fit, *@fault_at is the
 * offset in the body and @err names the field. @field may be NULL. */
int gw_description_walk(const struct gw_description *description, unsigned index,
                        const uint8_t *body, size_t bytes, gw_described_fn *field, void *ctx,
                        size_t *fault_at, struct gw_error *err);

#endif
