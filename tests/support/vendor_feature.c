// SPDX-License-Identifier: MIT
/* The simulated vendor device as states and a data descriptor: one end of a pipe, of the smallest size
 * that there is. Which way leads from state to state is a table of its own here, by hand, so that
 * neither side can believe the other's. */
#include "tests/support/vendor_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define NO GW_ODEV_ERROR
#define S GW_ODEV_STOP
#define R GW_ODEV_RUNNING
#define C GW_ODEV_STOP_COPY
#define L GW_ODEV_RESUMING
#define Q GW_ODEV_RUNNING_P2P
#define P GW_ODEV_PRE_COPY
#define X GW_ODEV_PRE_COPY_P2P

/* [from][to]: the first step. */
static const enum gw_odev_state first_step[GW_ODEV_STATE_COUNT_][GW_ODEV_STATE_COUNT_] = {
    /*                       ERROR STOP RUN COPY LOAD P2P PRE PRE_P2P */
    [GW_ODEV_ERROR] = {NO, NO, NO, NO, NO, NO, NO, NO},
    [GW_ODEV_STOP] = {NO, S, Q, C, L, Q, Q, Q},
    [GW_ODEV_RUNNING] = {NO, Q, R, Q, Q, Q, P, Q},
    [GW_ODEV_STOP_COPY] = {NO, S, S, C, S, S, NO, NO},
    [GW_ODEV_RESUMING] = {NO, S, S, S, L, S, S, S},
    [GW_ODEV_RUNNING_P2P] = {NO, S, R, S, S, Q, R, X},
    [GW_ODEV_PRE_COPY] = {NO, R, R, X, R, R, P, X},
    [GW_ODEV_PRE_COPY_P2P] = {NO, Q, Q, C, Q, Q, P, X},
};

static bool exists(const struct vendor *v, enum gw_odev_state state)
{
    if (state == Q)
        return v->config.quiesce;
    if (state == P)
        return v->config.precopy;
    if (state == X)
        return v->config.precopy && v->config.quiesce;
    return state != NO && state < GW_ODEV_STATE_COUNT_;
}

/* States that this device does not have are passed without a stop. */
static enum gw_odev_state step_to(const struct vendor *v, enum gw_odev_state to)
{
    enum gw_odev_state at = v->state;
    do {
        at = first_step[at][to];
    } while (at != NO && at != to && !exists(v, at));
    return at;
}

static bool is_transfer(enum gw_odev_state state)
{
    return gw_odev_state_is_saving(state) || state == L;
}

static int open_transfer(struct vendor *v, bool saves)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
        return -errno;
    fcntl(ends[0], F_SETPIPE_SZ, 4096);
    if (v->pipe_fd >= 0)
        close(v->pipe_fd);
    v->pipe_fd = ends[saves ? 1 : 0];
    v->opened++;
    return v->data_fd = ends[saves ? 0 : 1];
}

static int go(struct vendor *v, enum gw_odev_state to, int *data_fd)
{
    bool stuck = vendor_breaks(v, VENDOR_STATE_MIDDLE);
    if (!exists(v, to) || v->state == NO || first_step[v->state][to] == NO) {
        vendor_violate(v, "state %s was asked for in %s", gw_odev_state_name(to),
                       gw_odev_state_name(v->state));
        return -EINVAL;
    }
    if (vendor_breaks(v, VENDOR_STATE_REFUSED))
        return -EBUSY;
    if (vendor_breaks(v, VENDOR_STATE_ERROR)) {
        v->state = NO;
        return -EIO;
    }
    while (v->state != to) {
        enum gw_odev_state next = step_to(v, to), from = v->state;
        if (stuck && next == to)
            return -EIO;
        int rc = vendor_enter(v, next);
        if (rc < 0)
            return rc;
        if (is_transfer(next) && !(is_transfer(from) && gw_odev_state_is_saving(from)))
            *data_fd = open_transfer(v, next != L);
    }
    return 0;
}

static int state_feature(struct vendor *v, struct gw_feature_device_state *state, uint32_t flags)
{
    state->data_fd = -1;
    if (flags & GW_FEATURE_SET)
        return go(v, (enum gw_odev_state)state->state, &state->data_fd);
    state->state = vendor_breaks(v, VENDOR_STATE_READS_ERROR) ? NO : v->state;
    return 0;
}

/* In the pipe, and not read yet. */
static uint64_t piped(const struct vendor *v)
{
    int waiting = 0;
    if (v->data_fd < 0 || ioctl(v->data_fd, FIONREAD, &waiting) < 0)
        return 0;
    return (uint64_t)waiting;
}

static int size_feature(const struct vendor *v, struct gw_feature_data_size *size)
{
    uint64_t bytes =
        gw_odev_state_is_saving(v->state) ? vendor_left(v, true) + piped(v) : vendor_bytes(v);
    switch (v->config.size) {
    case VENDOR_SIZE_UNKNOWN:
        return -ENOTTY;
    case VENDOR_SIZE_LOW:
        bytes /= 100;
        break;
    case VENDOR_SIZE_HIGH:
        bytes *= 100;
        break;
    default:
        break;
    }
    size->stop_copy_bytes = bytes;
    return 0;
}

static int feature(void *dev, struct gw_feature_header *header)
{
    struct vendor *v = dev;
    switch (header->flags & GW_FEATURE_NUMBER_MASK) {
    case GW_FEATURE_MIGRATION:
        if (header->argsz < sizeof(struct gw_feature_migration))
            return -EINVAL;
        ((struct gw_feature_migration *)header)->flags =
            GW_FEATURE_STOP_COPY | (v->config.quiesce ? GW_FEATURE_P2P : 0) |
            (v->config.precopy ? GW_FEATURE_PRE_COPY : 0);
        return 0;
    case GW_FEATURE_DEVICE_STATE:
        if (header->argsz < sizeof(struct gw_feature_device_state))
            return -EINVAL;
        return state_feature(v, (struct gw_feature_device_state *)header, header->flags);
    case GW_FEATURE_DATA_SIZE:
        if (header->argsz < sizeof(struct gw_feature_data_size))
            return -EINVAL;
        return size_feature(v, (struct gw_feature_data_size *)header);
    default:
        return -ENOTTY;
    }
}

static int precopy_info(void *dev, int data_fd, struct gw_precopy_info *info)
{
    struct vendor *v = dev;
    if (data_fd != v->data_fd || (v->state != P && v->state != X))
        return -EINVAL;
    uint64_t initial = v->initial_left + (v->initial_left > 0 ? piped(v) : 0);
    uint64_t left = vendor_left(v, false) + piped(v);
    info->initial_bytes = initial + v->config.initial_never_ends;
    info->dirty_bytes = left > initial ? left - initial : 0;
    info->flags = v->reinit ? GW_PRECOPY_REINIT : 0;
    v->reinit = false;
    return 0;
}

/* Something goes into the pipe when it is read and empty. False: there is nothing more. */
static bool pump(struct vendor *v)
{
    uint8_t bytes[4096];
    if (piped(v) > 0)
        return true;
    size_t got = vendor_produce(v, bytes, sizeof(bytes));
    if (got > 0 && write(v->pipe_fd, bytes, got) != (ssize_t)got)
        abort();
    return got > 0;
}

static ssize_t data_read(void *dev, int data_fd, void *data, size_t bytes_max)
{
    struct vendor *v = dev;
    if (vendor_breaks(v, VENDOR_READ_FAILS))
        return -EIO;
    if (vendor_breaks(v, VENDOR_RESETS_ITSELF)) {
        vendor_reset(v);
        return -EIO;
    }
    if (data_fd != v->data_fd || !gw_odev_state_is_saving(v->state)) {
        vendor_violate(v, "data was read in state %s", gw_odev_state_name(v->state));
        return -EBADF;
    }
    if (vendor_breaks(v, VENDOR_ENDS_EARLY))
        v->ends = true;
    bool some = pump(v);
    if (vendor_is_idle(v) && (some || v->state != C))
        return v->state == C ? -EAGAIN : -ENOMSG;
    if (!some)
        return v->state == C ? 0 : -ENOMSG;
    ssize_t got = read(data_fd, data, bytes_max);
    return got < 0 ? -errno : got;
}

static ssize_t data_write(void *dev, int data_fd, const void *data, size_t bytes)
{
    struct vendor *v = dev;
    uint8_t piece[4096];
    if (vendor_breaks(v, VENDOR_WRITE_FAILS))
        return -EIO;
    if (data_fd != v->data_fd || v->state != L) {
        vendor_violate(v, "data was written in state %s", gw_odev_state_name(v->state));
        return -EBADF;
    }
    if (vendor_is_idle(v))
        return -EAGAIN;
    if (v->config.write_bytes_max && bytes > v->config.write_bytes_max)
        bytes = v->config.write_bytes_max;
    ssize_t put = write(data_fd, data, bytes);
    for (ssize_t got; (got = read(v->pipe_fd, piece, sizeof(piece))) > 0;)
        vendor_consume(v, piece, (size_t)got);
    return put < 0 ? -errno : put;
}

static void data_close(void *dev, int data_fd)
{
    struct vendor *v = dev;
    if (close(data_fd) < 0)
        vendor_violate(v, "a descriptor was closed twice");
    else
        v->opened--;
    if (data_fd == v->data_fd)
        v->data_fd = -1;
}

static int reset(void *dev)
{
    struct vendor *v = dev;
    if (vendor_breaks(v, VENDOR_RESET_FAILS))
        return -EIO;
    vendor_reset(v);
    return 0;
}

const struct gw_feature_ops *vendor_feature_ops(struct vendor *v)
{
    v->feature_ops = (struct gw_feature_ops){
        .struct_bytes = sizeof(v->feature_ops),
        .feature = feature,
        .precopy_info = precopy_info,
        .data_read = data_read,
        .data_write = data_write,
        .data_close = data_close,
        .reset = reset,
    };
    if (v->config.config_bytes > 0) {
        v->feature_ops.save_config = vendor_save_config;
        v->feature_ops.load_config = vendor_load_config;
    }
    return &v->feature_ops;
}
