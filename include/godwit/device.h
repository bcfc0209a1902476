/* SPDX-License-Identifier: MIT */
/* godwit/device.h - the state of devices: saved while the guest is paused, or, where there is much of it, sent
 * piece by piece while the guest still runs.
 *
 * A device is a `save` and a `load` (struct gw_device_desc); that is enough for most. One with
 * gigabytes has a table of handlers besides (struct gw_device_ops). What either of them writes is a
 * sequence of big-endian values without tags or lengths, exactly as in the savevm stream, between a
 * head and a footer that the library writes: a *section*.
 *
 * A writer or reader is valid during the callback only. Both latch their first error: later calls do
 * nothing (a reader then yields zeros), and the callback's caller notices. A writer's errors are
 * -ENOMEM and -E2BIG: a section, head included, is at most the target's x-section-max. Costs a copy of
 * the state at each side. */
#ifndef GODWIT_DEVICE_H
#define GODWIT_DEVICE_H

#include <godwit/block.h>
#include <stdbool.h>
#include <stddef.h>

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
/** gw_reader_left() - bytes of the section that were not read yet; 0 once an error is latched. */
GW_API size_t gw_reader_left(const struct gw_reader *r);
/** gw_reader_take() - the next @bytes bytes where they lie, without a copy; valid during the callback.
 *  Return: NULL, and -EBADMSG latched, if fewer are left. */
GW_API const uint8_t *gw_reader_take(struct gw_reader *r, size_t bytes);

/* ---- handlers: state that is sent while the guest runs -------------------------------------------- */

/* Which section it is. Each device has one BEGIN, any number of PART, one END; then, if it has a `save`
 * as well, one FULL. */
enum gw_device_part {
    GW_DEVICE_BEGIN, /* what setup wrote; START in the stream */
    GW_DEVICE_PART,  /* what iterate wrote, or complete_precopy before its last call */
    GW_DEVICE_END,   /* what the last complete_precopy wrote */
    GW_DEVICE_FULL,  /* what save wrote */
};

struct gw_device_pending { /* filled by the device; zero when it is called */
    /* Bytes that are left, as far as the device knows. Estimates may be wrong either way; what is not
     * known at all must be told as huge, never as 0: 0 would let the guest be paused at once. */
    uint64_t must_precopy_bytes; /* that must have been loaded before the guest runs there */
    uint64_t can_postcopy_bytes; /* that might follow it; counts like the others today */
    /* How often the target's device has to acknowledge (see `load`) before the guest may be paused: as
     * often as it was asked to since setup. 0: the source's device does not care. */
    uint32_t acks_wanted;
};

#define GW_DEVICE_DONE 1 /* iterate, complete_precopy: nothing more for now; nothing more at all */
#define GW_DEVICE_ACK 1  /* load: loaded, and this device has what must be there before the pause */

/* Handlers of one device, all or some: what is NULL does nothing. Each pass goes through the devices
 * in the order of the table below's desc.priority, then of adding. All return 0, or a negative errno with
 * @err set (or not: then the number's text is told): the migration fails, the target's guest is void,
 * the source's goes on.
 *
 * At the source:
 *   is_active         once, before all others: false leaves the device out of this migration
 *   setup             once, after the target has taken the memory, before the first round: BEGIN
 *   pending_estimate  before the first round and after each
 *   iterate           in each round, again and again: PART
 *   pending_exact     after a round, if by the estimates the guest could be paused: may take longer
 *   (the guest is paused)
 *   complete_precopy  again and again until it says DONE: PART, the last END
 *   save              of gw_device_desc, after the complete_precopy of all devices: FULL
 *   cleanup           once, whatever happened, if a migration was started: after the outcome is settled
 *                     and the guest was resumed, if it was to be
 * At the target:
 *   load_setup             once, right after blocks_ready, before any section
 *   switchover_ack_needed  once, after the load_setup of all devices
 *   load                   for each section, in the stream's order, on gw_device_desc's terms
 *   load_complete          once, after the last section of all devices, before the source is told that
 *                          the target is ready: the last moment at which a guest can be refused
 *   load_cleanup           once, whatever happened, if a source had come: after the outcome
 *
 * Threads: all of them are called inside gw_dispatch(), one at a time (but see GW_DEVICE_WORKER).
 *
 * A device's BEGIN and PARTs are loaded while memory still arrives and its guest still runs elsewhere:
 * they must not look at guest memory, which may be anything. What complete_precopy writes, PART or END,
 * is loaded when all memory is there (but see GW_DEVICE_WORKER). */
struct gw_device_ops {
    size_t struct_bytes; /* sizeof(struct gw_device_ops) */

    bool (*is_active)(void *opaque);
    /* May leave the section empty. */
    int (*setup)(void *opaque, struct gw_writer *w, struct gw_error *err);

    /* Must not wait. */
    int (*pending_estimate)(void *opaque, struct gw_device_pending *pending, struct gw_error *err);
    /* As pending_estimate; NULL: the estimate is exact. */
    int (*pending_exact)(void *opaque, struct gw_device_pending *pending, struct gw_error *err);

    /* Write some of what is left: @bytes_max bytes or little more, which is what max-bandwidth allows for
     * now, 1 MiB at most, and half of what the section holds. It must not wait for more to come: what is
     * not there now is written in a later round.
     * Return: 0: there is more; GW_DEVICE_DONE: not for now, it is not called again in this round. In a
     * round it is called until it has written what was pending when the round began, or nothing, and
     * at least once unless pending_estimate said 0. If nothing was written there is no section. */
    int (*iterate)(void *opaque, struct gw_writer *w, uint64_t bytes_max, struct gw_error *err);

    /* The same, with the guest paused, @bytes_max a guide for a section's length alone. Return: 0: there
     * is more, call again: to say so without having written any is an error; GW_DEVICE_DONE: that was
     * all. */
    int (*complete_precopy)(void *opaque, struct gw_writer *w, uint64_t bytes_max,
                            struct gw_error *err);
    void (*cleanup)(void *opaque);

    int (*load_setup)(void *opaque, struct gw_error *err);
    /* Will `load` return GW_DEVICE_ACK? The guest is not paused before. */
    bool (*switchover_ack_needed)(void *opaque);
    /* Read what the source's device wrote for @part; must consume all of it. @version_id is the source's, in
     * range. Return: 0; or GW_DEVICE_ACK from a BEGIN or PART: the guest may be paused, as far as this
     * device is concerned. A further one counts for acks_wanted. From a device without
     * switchover_ack_needed it is refused. */
    int (*load)(void *opaque, struct gw_reader *r, enum gw_device_part part, uint32_t version_id,
                struct gw_error *err);
    int (*load_complete)(void *opaque, struct gw_error *err);
    void (*load_cleanup)(void *opaque);
};

/* ---- a device -------------------------------------------------------------------------------------- */

/* Saved in the set-up, while the guest runs, and loaded before any memory arrives: what says where
 * memory is. Not saved again in the pause. For a device with save and load, not for one with handlers. */
#define GW_DEVICE_EARLY 1u

/* For a device with handlers and much state: what its complete_precopy writes before the last call goes beside
 * the stream, over page endpoints, if at the target each device with handlers and a load has this flag, and
 * x-device-buffer is not 0 at either end: at most so much, of all devices, is then sent and not yet loaded,
 * besides one section that each has written. Otherwise it is sent and loaded like that of other devices.
 *
 * Such devices are saved and loaded side by side, each in its own order, while the last pages travel. For them
 *   - complete_precopy and, with GW_DEVICE_PART in the pause, load are called on a thread of the library's
 *     [worker]: no other callback of that device runs meanwhile, but those of others may;
 *   - PARTs of the pause are loaded before all memory is there: they must not look at it either. What
 *     needs memory belongs into the last call, whose END is loaded where it always is, or into `save`. */
#define GW_DEVICE_WORKER 2u

/* Order of saving: higher priority first, then order of adding; loading follows the stream. One of
 * save and load may be NULL: a device that is only ever sent, or only received. */
struct gw_device_desc {
    size_t struct_bytes; /* sizeof(struct gw_device_desc) */
    const char *name; /* idstr of the section, 1..255 bytes of printable ASCII but "ram"; copied */
    uint32_t instance_id;        /* with name, unique */
    uint32_t version_id;         /* written on save; the highest that load accepts */
    uint32_t minimum_version_id; /* the lowest that load accepts; not above version_id */
    int32_t priority;            /* 0 unless others depend on it: interrupt controllers are loaded
                                  * before what raises interrupts, by a higher one */
    uint32_t flags;              /* GW_DEVICE_* */
    void *opaque;                /* first argument of all; borrowed until the owner is freed */

    /* Write the state. The guest is paused (but see GW_DEVICE_EARLY). Return 0, or a negative errno with
     * @err set: the migration then fails and the guest resumes at the source. */
    int (*save)(void *opaque, struct gw_writer *w, struct gw_error *err);

    /* Read what save wrote; must consume all of it. @version_id is the source's, in range.
     * The guest does not run here yet. On failure the target voids the migration. */
    int (*load)(void *opaque, struct gw_reader *r, uint32_t version_id, struct gw_error *err);

    /* More, for state that is sent while the guest runs; NULL: no more. Copied. With an ops->load it has
     * every section of this device, FULL too, and `load` is not called. */
    const struct gw_device_ops *ops;

    /* Asked right before save; false: there is nothing that the target needs to know, and no section.
     * NULL: always needed. */
    bool (*needed)(void *opaque);
};

#ifdef __cplusplus
}
#endif
#endif
