/* SPDX-License-Identifier: MIT */
/* devices/vfio/opaque.h - a device whose state only its driver can read: what such a driver offers.
 *
 * The driver makes bytes at the source and takes them at the target; between the two it goes through
 * the states below, which have the kernel's numbers. Two kinds of driver are adapted to this table:
 * staging.h (registers and a window, the older kernel interface) and feature.h (a state machine and a
 * data descriptor, the newer one). device.h moves whatever is behind it.
 *
 * Threads: one at a time calls anything of one device. Nothing here waits but what a driver waits. */
#ifndef GODWIT_DEVICES_VFIO_OPAQUE_H
#define GODWIT_DEVICES_VFIO_OPAQUE_H

#include <godwit/device.h>
#include <godwit/log.h>
#include <stdbool.h>
#include <sys/types.h>

enum gw_odev_state {
    GW_ODEV_ERROR, /* by failure only; reset leads out of it */
    GW_ODEV_STOP,
    GW_ODEV_RUNNING,
    GW_ODEV_STOP_COPY,    /* stopped, and its state can be read to the end */
    GW_ODEV_RESUMING,     /* its state is being replaced */
    GW_ODEV_RUNNING_P2P,  /* running, but starts no DMA to other devices */
    GW_ODEV_PRE_COPY,     /* running, and its state can be read as far as it is known */
    GW_ODEV_PRE_COPY_P2P, /* both */
    GW_ODEV_STATE_COUNT_
};

#define GW_ODEV_UNKNOWN UINT64_MAX /* an estimate that the driver cannot make */

struct gw_odev_caps {
    bool precopy; /* PRE_COPY: state can be read while the guest runs */
    bool quiesce; /* the P2P states */
    bool chunked; /* its state comes in chunks of known size: next() is there */
    bool reinit;  /* initial data may begin again after it was all read */
    /* What the state is, for the other side to refuse before the first byte; "" is not compared. */
    char format[32];
    uint32_t format_version; /* a target takes its own and lower ones */
};

struct gw_odev_estimate {
    uint64_t initial_bytes;   /* what makes the target ready, not read yet; PRE_COPY */
    uint64_t dirty_bytes;     /* changed since it was read; PRE_COPY */
    uint64_t stop_copy_bytes; /* what STOP_COPY would give, were the guest paused now */
    bool reinit;              /* initial_bytes is a new batch */
};

/* Each returns 0 or a count, else a negative errno; those with @err fill it too. */
struct gw_odev_ops {
    size_t struct_bytes;
    int (*caps)(void *dev, struct gw_odev_caps *caps);
    int (*get_state)(void *dev, enum gw_odev_state *now);
    /* On failure the device may be in the old state, in one between, or in ERROR: the caller asks. */
    int (*set_state)(void *dev, enum gw_odev_state want, struct gw_error *err);
    /* Leaves it in RUNNING, whatever it was in, with no transfer open. */
    int (*reset)(void *dev);
    /* NULL unless chunked. How many bytes of the present chunk are left; if none, those of a new one;
     * 0 in @bytes: nothing now (PRE_COPY), nothing more (STOP_COPY). */
    int (*next)(void *dev, uint64_t *bytes, struct gw_error *err);
    /* Bytes of state; 0: none, which in STOP_COPY is the end; -EAGAIN: not yet, wait for poll_fd. */
    ssize_t (*read)(void *dev, void *data, size_t bytes_max, struct gw_error *err);
    /* At least 1, perhaps fewer than asked for; -EAGAIN: wait for poll_fd. */
    ssize_t (*write)(void *dev, const void *data, size_t bytes, struct gw_error *err);
    int (*estimate)(void *dev, struct gw_odev_estimate *estimate);
    /* Both NULL where there is none: the guest's view of the device, which the hypervisor keeps. */
    int (*save_config)(void *dev, struct gw_writer *w, struct gw_error *err);
    int (*load_config)(void *dev, struct gw_reader *r, struct gw_error *err);
    int (*poll_fd)(void *dev); /* readable or writable when -EAGAIN is over; -1: there is none */
};

/* A driver and the state its device was last seen in. Fill ops, dev and name; then gw_odev_init(). */
struct gw_odev {
    const struct gw_odev_ops *ops; /* borrowed */
    void *dev;
    const char *name; /* in errors; borrowed */
    struct gw_odev_caps caps;
    enum gw_odev_state state;
    unsigned moves, recoveries,
        resets; /* transitions that worked, were taken back, needed a reset */
};

/** gw_odev_init() - ask what it can do and which state it is in. */
int gw_odev_init(struct gw_odev *odev, struct gw_error *err);

const char *gw_odev_state_name(enum gw_odev_state state);
/* Of the states in which a device's state is read: one transfer lasts as long as they do. */
bool gw_odev_state_is_saving(enum gw_odev_state state);

/**
 * gw_odev_path() - the states that a device goes through from @from to @to.
 * @path: those after @from, @to the last; room for GW_ODEV_STATE_COUNT_. May be NULL.
 *
 * The shortest way along the arcs of the interface, as far as @caps has its states; no state of saving
 * lies between others, except within one transfer.
 *
 * Return: how many; 0: @from is @to; -EINVAL: there is no way.
 */
int gw_odev_path(const struct gw_odev_caps *caps, enum gw_odev_state from, enum gw_odev_state to,
                 enum gw_odev_state *path);

/**
 * gw_odev_move() - to another state, and what to do if that fails.
 * @recover: the state to go to then; GW_ODEV_ERROR: reset at once.
 *
 * If the driver refuses, the device is asked for its state and moved to @recover; if that fails too,
 * it is reset and runs; if that fails, it stays in ERROR and is of no more use.
 *
 * Return: 0; -EINVAL: there is no way from here, nothing was done; otherwise what the driver said,
 * with the state it is in now in odev->state.
 */
int gw_odev_move(struct gw_odev *odev, enum gw_odev_state want, enum gw_odev_state recover,
                 struct gw_error *err);

#endif
