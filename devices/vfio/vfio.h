/* SPDX-License-Identifier: MIT */
/* devices/vfio/vfio.h - an opaque device (opaque.h) in a migration.
 *
 * Life:    gw_odev_ops by staging.h, feature.h or your own; gw_vfio_new; gw_vfio_device_desc() goes to
 *          gw_source_add_device() or gw_target_add_device(); the embedder's pause and resume (source) and run (target) call gw_vfio_stop_all() and gw_vfio_start_all() for all such
 *          devices of the guest at once; free. After a failure the same device migrates again.
 * Threads: one at a time calls anything of one device; in the pause that is a thread of the library, from pause()'s return
 *          to the end (GW_DEVICE_WORKER, which gw_vfio_device_desc() sets, and who has it otherwise may clear): read
 *          gw_vfio_stats() before or after.
 *
 * What gw_vfio_device_desc() fills in calls the functions under "source" and "target", in their order.
 * Those that write a section write its body. */
#ifndef GODWIT_DEVICES_VFIO_VFIO_H
#define GODWIT_DEVICES_VFIO_VFIO_H

#include "devices/vfio/opaque.h"
#include "devices/vfio/record.h"

#define GW_VFIO_VERSION 1u
/* A device that cannot say how much STOP_COPY will give counts as this much, so that no downtime limit
 * is met by accident. */
#define GW_VFIO_UNKNOWN_BYTES (UINT64_C(100) << 30)

struct gw_vfio;

struct gw_vfio_config {
    size_t struct_bytes;
    const char *name;              /* idstr of its sections, "0000:00:04.0/vfio"; copied */
    const struct gw_odev_ops *ops; /* borrowed, as is dev */
    void *dev;
    const struct gw_log *log; /* borrowed; may be NULL */
    bool
        switchover_ack; /* the target is to confirm that initial data was loaded; both sides alike */
    bool announce;      /* source: also send FORMAT and TOTAL, which a godwit target checks */
    bool parallel;      /* state may go beside the stream too (parallel.h); both sides alike */
    unsigned stall_timeout_ms; /* a driver that gives or takes nothing for so long fails; 0: 10 s */
};

/** gw_vfio_new() - asks the driver what its device can do. Return: 0, -EINVAL, -ENOMEM, or what the
 *  driver said. */
int gw_vfio_new(const struct gw_vfio_config *config, struct gw_vfio **vfio, struct gw_error *err);
/** gw_vfio_free() - the device stays in its state. Takes NULL. */
void gw_vfio_free(struct gw_vfio *vfio);

/** gw_vfio_device_desc() - what gw_source_add_device() and gw_target_add_device() take, on both sides alike.
 *  @vfio becomes desc->opaque: borrowed until the owner is freed. desc->priority is for the caller to
 *  change: 0 loads its configuration after what has a higher one. */
void gw_vfio_device_desc(struct gw_vfio *vfio, struct gw_device_desc *desc);

const char *gw_vfio_name(const struct gw_vfio *vfio);
enum gw_odev_state gw_vfio_state(const struct gw_vfio *vfio); /* as last seen */

struct gw_vfio_stats {
    uint64_t precopy_bytes, stop_copy_bytes; /* sent while the guest ran; while it was paused */
    uint64_t loaded_bytes;
    uint64_t sections; /* written or read with DATA in them */
    unsigned moves, recoveries, resets;
};
void gw_vfio_stats(const struct gw_vfio *vfio, struct gw_vfio_stats *stats);

/* ---- source ------------------------------------------------------------------------------------- */

/** gw_vfio_save_setup() - body of START. Begins the live phase if the device has one and runs. */
int gw_vfio_save_setup(struct gw_vfio *vfio, struct gw_writer *w, struct gw_error *err);
/** gw_vfio_pending() - how much there is to send. @exact: ask the driver, which may cost; else what is
 *  known is enough. */
int gw_vfio_pending(struct gw_vfio *vfio, bool exact, struct gw_device_pending *pending,
                    struct gw_error *err);
/** gw_vfio_save_iterate() - body of one PART, or nothing: a device that is stopped has no live phase.
 *  @bytes_max: of DATA; a chunk above it is sent in several. Return: 0: there may be more;
 *  GW_DEVICE_DONE: nothing more for now. */
int gw_vfio_save_iterate(struct gw_vfio *vfio, struct gw_writer *w, uint64_t bytes_max,
                         struct gw_error *err);
/** gw_vfio_save_complete() - the guest is paused: the rest. Return: GW_DEVICE_DONE: all is written, this
 *  is the body of END; 0: this is the body of a PART, call again; -EPROTO: the device was not stopped, or
 *  was started in mid-transfer. */
int gw_vfio_save_complete(struct gw_vfio *vfio, struct gw_writer *w, uint64_t bytes_max,
                          struct gw_error *err);
/** gw_vfio_save_config() - body of FULL, after all iterative devices are complete: what it restores may
 *  raise interrupts, so interrupt controllers load before it. */
int gw_vfio_save_config(struct gw_vfio *vfio, struct gw_writer *w, struct gw_error *err);
/** gw_vfio_save_cleanup() - ends the transfer, which may take long: after the handover. A device whose
 *  guest is paused stops; gw_vfio_start_all() runs it. */
void gw_vfio_save_cleanup(struct gw_vfio *vfio);

/* ---- target ------------------------------------------------------------------------------------- */

int gw_vfio_load_setup(struct gw_vfio *vfio, struct gw_error *err);
/** gw_vfio_needs_ack() - is INIT_DATA_SENT awaited? */
bool gw_vfio_needs_ack(const struct gw_vfio *vfio);
/** gw_vfio_load() - one section's body, START, PART, END or FULL: its records tell which. Leaves what
 *  follows its end tag to the caller, who refuses it.
 *  Return: 0; GW_DEVICE_ACK: initial data is loaded; or
 *    -EBADMSG    an unknown tag, a record without its end, bytes that are not there
 *    -EPROTO     records in an order that cannot be
 *    -ERANGE     DATA above GW_VFIO_DATA_BYTES_MAX, or longer than the section: nothing of it is read
 *    -EOPNOTSUPP the state is not for this device
 *    -ETIMEDOUT  the driver takes nothing
 *    or what the driver said */
int gw_vfio_load(struct gw_vfio *vfio, struct gw_reader *r, struct gw_error *err);
/** gw_vfio_load_finish() - everything was loaded: the driver judges whether it was whole. Before the
 *  source is told of success. Return: 0; -ENODATA: nothing came, or no configuration; -EBADMSG: not all that
 *  the source has sent; or what the driver said. */
int gw_vfio_load_finish(struct gw_vfio *vfio, struct gw_error *err);
/** gw_vfio_load_cleanup() - after a load that was not finished, the device is reset. */
void gw_vfio_load_cleanup(struct gw_vfio *vfio);

/* ---- beside the stream (parallel.h) --------------------------------------------------------------- */

/** gw_vfio_save_raw() - after gw_vfio_stop_all(), before save_complete, which then finds nothing left: some
 *  of the rest. Return: bytes; 0: that was all; negative as save_complete. */
ssize_t gw_vfio_save_raw(struct gw_vfio *vfio, void *to, size_t bytes_max, struct gw_error *err);
/** gw_vfio_load_raw() - in the order in which they were read, before load_finish. Return: as gw_vfio_load(). */
int gw_vfio_load_raw(struct gw_vfio *vfio, const void *data, size_t bytes, struct gw_error *err);

/* ---- all of a guest's -------------------------------------------------------------------------- */

/** gw_vfio_check_all() - can these be stopped together? -EOPNOTSUPP: one may write into another that has
 *  stopped already, since not all can be quiesced first. */
int gw_vfio_check_all(struct gw_vfio *const *list, unsigned count, struct gw_error *err);
/** gw_vfio_stop_all() - the guest is paused: quiesce all, then stop all; with a transfer open, so that
 *  the rest of it can be read. If one fails, all run again. */
int gw_vfio_stop_all(struct gw_vfio *const *list, unsigned count, struct gw_error *err);
/** gw_vfio_start_all() - the guest is about to run. A transfer that is open ends, and its migration fails
 *  if it was not over. Tries all, and returns the first failure. */
int gw_vfio_start_all(struct gw_vfio *const *list, unsigned count, struct gw_error *err);

#endif
