/* SPDX-License-Identifier: MIT */
/* godwit/device.h - state that is saved while the guest is paused and loaded at the target.
 *
 * A device's state is a sequence of big-endian values without tags or lengths, exactly as in the
 * savevm stream. A writer or reader is valid during the callback only. Both latch their first
 * error: later calls do nothing (a reader then yields zeros), and the callback's caller notices.
 * A writer's errors are -ENOMEM and -E2BIG: a section, head included, is at most the target's
 * x-section-max. Costs a copy of the state at each side; both are inside the downtime. */
#ifndef GODWIT_DEVICE_H
#define GODWIT_DEVICE_H

#include <godwit/block.h>

#ifdef __cplusplus
extern "C" {
#endif

struct gw_writer;
struct gw_reader;

GW_API void gw_writer_u8(struct gw_writer *w, uint8_t value);
GW_API void gw_writer_be16(struct gw_writer *w, uint16_t value);
GW_API void gw_writer_be32(struct gw_writer *w, uint32_t value);
GW_API void gw_writer_be64(struct gw_writer *w, uint64_t value);
GW_API void gw_writer_bytes(struct gw_writer *w, const void *data, size_t bytes);

GW_API uint8_t gw_reader_u8(struct gw_reader *r);
GW_API uint16_t gw_reader_be16(struct gw_reader *r);
GW_API uint32_t gw_reader_be32(struct gw_reader *r);
GW_API uint64_t gw_reader_be64(struct gw_reader *r);
/** gw_reader_bytes() - exactly @bytes bytes; zeros if fewer are left (and the error is latched). */
GW_API void gw_reader_bytes(struct gw_reader *r, void *data, size_t bytes);
/** gw_reader_error() - 0, or the latched negative errno (-EBADMSG: read past the end). */
GW_API int gw_reader_error(const struct gw_reader *r);

#define GW_DEVICE_EARLY 1u /* saved and loaded before the memory; refused until that is done */

/* Order of saving: higher priority first, then order of adding; loading follows the stream. One of
 * save and load may be NULL: a device that is only ever sent, or only received. */
struct gw_device_desc {
    size_t struct_bytes; /* sizeof(struct gw_device_desc) */
    const char *name; /* idstr of the section, 1..255 bytes of printable ASCII but "ram"; copied */
    uint32_t instance_id;        /* with name, unique */
    uint32_t version_id;         /* written on save; the highest that load accepts */
    uint32_t minimum_version_id; /* the lowest that load accepts; not above version_id */
    int32_t priority;            /* 0 unless others depend on it */
    uint32_t flags;              /* GW_DEVICE_*; none is taken yet */
    void *opaque;                /* first argument of both; borrowed until the owner is freed */

    /* Write the state. The guest is paused. Return 0, or a negative errno with @err set: the
     * migration then fails and the guest resumes at the source. */
    int (*save)(void *opaque, struct gw_writer *w, struct gw_error *err);

    /* Read what save wrote; must consume all of it. @version_id is the source's, in range.
     * The guest does not run here yet. On failure the target voids the migration. */
    int (*load)(void *opaque, struct gw_reader *r, uint32_t version_id, struct gw_error *err);
};

#ifdef __cplusplus
}
#endif
#endif
