// SPDX-License-Identifier: MIT
/* A staging region as an opaque device: registers, states, chunks. Saving goes pending_bytes,
 * data_offset, data_size, the bytes, and again; loading goes data_offset, the bytes, data_size. A
 * driver whose registers name memory outside of the window is at fault: nothing is copied then. */
#include "devices/vfio/staging_impl.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void gw_staging_warn(const struct gw_staging *s, const char *format, ...)
{
    char text[256];
    va_list args;
    if (!s->log || !s->log->fn || s->log->level < GW_LOG_WARN)
        return;
    int at = snprintf(text, sizeof(text), "device '%s': ", s->name);
    if (at < 0 || (size_t)at >= sizeof(text))
        at = 0;
    va_start(args, format);
    vsnprintf(text + at, sizeof(text) - (size_t)at, format, args);
    va_end(args);
    s->log->fn(s->log->ctx, GW_LOG_WARN, "vfio", text);
}

int gw_staging_new(const struct gw_staging_ops *ops, void *dev, const char *name,
                   const struct gw_odev_caps *caps, const struct gw_log *log,
                   struct gw_staging **staging, struct gw_error *err)
{
    if (ops->struct_bytes < sizeof(*ops) || !ops->reg_read || !ops->reg_write || !ops->data_read ||
        !ops->data_write || !ops->reset || !ops->save_config != !ops->load_config)
        return gw_error_set(err, -EINVAL, GW_CODE_INVALID,
                            "device '%s': the table of its region is incomplete", name);
    if (ops->region_bytes <= GW_STAGING_REGISTER_BYTES)
        return gw_error_set(err, -EINVAL, GW_CODE_INVALID,
                            "device '%s': a region of %" PRIu64 " bytes has no window", name,
                            ops->region_bytes);
    struct gw_staging *s = calloc(1, sizeof(*s));
    if (!s)
        return gw_error_set(err, -ENOMEM, GW_CODE_NO_MEMORY, "device '%s': out of memory", name);
    *s = (struct gw_staging){.ops = ops, .dev = dev, .name = name, .log = log};
    if (caps)
        s->caps = *caps;
    s->caps.precopy = true;
    s->caps.quiesce = false;
    s->caps.chunked = true;
    s->caps.reinit = false;
    *staging = s;
    return 0;
}

void gw_staging_free(struct gw_staging *s)
{
    if (!s)
        return;
    gw_staging_unmap(s);
    free(s);
}

void gw_staging_stats(const struct gw_staging *s, struct gw_staging_stats *stats)
{
    *stats = s->stats;
    stats->mapped_areas = s->area_count;
}

/* ---- states -------------------------------------------------------------------------------------- */

static const uint32_t register_of[GW_ODEV_STATE_COUNT_] = {
    [GW_ODEV_STOP] = 0,
    [GW_ODEV_RUNNING] = GW_STAGING_RUNNING,
    [GW_ODEV_STOP_COPY] = GW_STAGING_SAVING,
    [GW_ODEV_PRE_COPY] = GW_STAGING_RUNNING | GW_STAGING_SAVING,
    [GW_ODEV_RESUMING] = GW_STAGING_RESUMING,
};

static int caps(void *dev, struct gw_odev_caps *out)
{
    *out = ((struct gw_staging *)dev)->caps;
    return 0;
}

static int get_state(void *dev, enum gw_odev_state *now)
{
    struct gw_staging *s = dev;
    uint64_t value = 0;
    int rc = s->ops->reg_read(s->dev, GW_STAGING_DEVICE_STATE, 4, &value);
    if (rc < 0)
        return rc;
    value &= GW_STAGING_STATE_MASK;
    *now = GW_ODEV_ERROR; /* 6 is its name for that; 5 and 7 mean nothing */
    for (unsigned state = GW_ODEV_STOP; state < GW_ODEV_STATE_COUNT_; state++)
        if (state != GW_ODEV_RUNNING_P2P && state != GW_ODEV_PRE_COPY_P2P &&
            register_of[state] == value)
            *now = (enum gw_odev_state)state;
    return 0;
}

static void forget_chunk(struct gw_staging *s)
{
    s->pending = s->pending_last = 0;
    s->chunk_bytes = 0;
}

static int set_state(void *dev, enum gw_odev_state want, struct gw_error *err)
{
    struct gw_staging *s = dev;
    uint64_t value = 0;
    if (want == GW_ODEV_ERROR || want == GW_ODEV_RUNNING_P2P || want == GW_ODEV_PRE_COPY_P2P ||
        want >= GW_ODEV_STATE_COUNT_)
        return gw_error_set(err, -EINVAL, GW_CODE_DEVICE, "the region has no state %s",
                            gw_odev_state_name(want));
    bool transfers = gw_odev_state_is_saving(want) || want == GW_ODEV_RESUMING;
    int rc = s->ops->reg_read(s->dev, GW_STAGING_DEVICE_STATE, 4, &value);
    if (rc < 0)
        return gw_error_set(err, rc, GW_CODE_DEVICE, "read device_state: %s", strerror(-rc));
    if (transfers)
        gw_staging_map(s);
    value = (value & ~(uint64_t)GW_STAGING_STATE_MASK) | register_of[want];
    rc = s->ops->reg_write(s->dev, GW_STAGING_DEVICE_STATE, 4, value);
    if (rc < 0)
        return gw_error_set(err, rc, GW_CODE_DEVICE, "write %" PRIu32 " to device_state: %s",
                            register_of[want], strerror(-rc));
    /* What was pending was of another phase. What is left of a chunk is in the window still, and the
     * driver may not use its space before pending_bytes is read. */
    bool goes_on = s->chunk_bytes > 0 && want == GW_ODEV_STOP_COPY;
    s->pending = 0;
    if (!goes_on)
        forget_chunk(s);
    if (!transfers)
        gw_staging_unmap(s);
    return 0;
}

static int reset(void *dev)
{
    struct gw_staging *s = dev;
    forget_chunk(s);
    gw_staging_unmap(s);
    return s->ops->reset(s->dev);
}

/* ---- saving -------------------------------------------------------------------------------------- */

static int read_pending(struct gw_staging *s, struct gw_error *err)
{
    int rc = s->ops->reg_read(s->dev, GW_STAGING_PENDING_BYTES, 8, &s->pending);
    if (rc < 0)
        return gw_error_set(err, rc, GW_CODE_DEVICE, "read pending_bytes: %s", strerror(-rc));
    s->pending_last = s->pending;
    return 0;
}

static int check_window(const struct gw_staging *s, uint64_t offset, uint64_t bytes,
                        struct gw_error *err)
{
    uint64_t region = s->ops->region_bytes;
    if (offset < GW_STAGING_REGISTER_BYTES || offset >= region)
        return gw_error_set(err, -ERANGE, GW_CODE_DEVICE,
                            "data_offset 0x%" PRIx64 " is outside of the window [0x%x, 0x%" PRIx64
                            ")",
                            offset, GW_STAGING_REGISTER_BYTES, region);
    if (bytes > region - offset)
        return gw_error_set(err, -ERANGE, GW_CODE_DEVICE,
                            "a chunk of %" PRIu64 " bytes at data_offset 0x%" PRIx64
                            " leaves the region of 0x%" PRIx64,
                            bytes, offset, region);
    return 0;
}

/* data_offset has the driver stage a chunk, so it is read once for each, and data_size after it. */
static int begin_chunk(struct gw_staging *s, struct gw_error *err)
{
    uint64_t offset = 0, bytes = 0;
    int rc = s->ops->reg_read(s->dev, GW_STAGING_DATA_OFFSET, 8, &offset);
    if (rc < 0)
        return gw_error_set(err, rc, GW_CODE_DEVICE, "read data_offset: %s", strerror(-rc));
    rc = s->ops->reg_read(s->dev, GW_STAGING_DATA_SIZE, 8, &bytes);
    if (rc < 0)
        return gw_error_set(err, rc, GW_CODE_DEVICE, "read data_size: %s", strerror(-rc));
    rc = check_window(s, offset, bytes, err);
    if (rc < 0)
        return rc;
    /* Forgotten, so that whoever does not ask for an estimate first reads it anew. */
    s->pending = 0;
    s->chunk_offset = offset;
    s->chunk_bytes = bytes;
    s->stats.chunks += bytes > 0;
    if (bytes == 0 && s->stats.empty_chunks++ == 0)
        gw_staging_warn(s, "%" PRIu64 " bytes are pending, and its chunk is empty",
                        s->pending_last);
    return 0;
}

static int next(void *dev, uint64_t *bytes, struct gw_error *err)
{
    struct gw_staging *s = dev;
    int rc = 0;
    if (s->chunk_bytes == 0 && s->pending == 0)
        rc = read_pending(s, err);
    if (rc == 0 && s->chunk_bytes == 0 && s->pending > 0)
        rc = begin_chunk(s, err);
    if (rc == 0)
        *bytes = s->chunk_bytes;
    return rc;
}

static ssize_t read_state(void *dev, void *data, size_t bytes_max, struct gw_error *err)
{
    struct gw_staging *s = dev;
    uint64_t left = 0;
    int rc = next(dev, &left, err);
    if (rc < 0)
        return rc;
    if (left == 0)
        return 0;
    size_t some = left < bytes_max ? (size_t)left : bytes_max;
    rc = gw_staging_copy_out(s, s->chunk_offset, data, some);
    if (rc < 0)
        return gw_error_set(err, rc, GW_CODE_DEVICE,
                            "read %zu bytes at 0x%" PRIx64 " of the window: %s", some,
                            s->chunk_offset, strerror(-rc));
    s->chunk_offset += some;
    s->chunk_bytes -= some;
    s->stats.bytes += some;
    return (ssize_t)some;
}

/* While a chunk is being read pending_bytes must not be: what was last said is said again. */
static int estimate(void *dev, struct gw_odev_estimate *out)
{
    struct gw_staging *s = dev;
    enum gw_odev_state state;
    int rc = get_state(dev, &state);
    if (rc == 0 && gw_odev_state_is_saving(state) && s->chunk_bytes == 0)
        rc = read_pending(s, NULL);
    if (rc < 0)
        return rc;
    *out = (struct gw_odev_estimate){.stop_copy_bytes = GW_ODEV_UNKNOWN};
    if (state == GW_ODEV_PRE_COPY)
        out->dirty_bytes = s->pending_last;
    if (state == GW_ODEV_STOP_COPY)
        out->stop_copy_bytes = s->pending_last;
    return 0;
}

/* ---- loading ------------------------------------------------------------------------------------- */

static ssize_t write_state(void *dev, const void *data, size_t bytes, struct gw_error *err)
{
    struct gw_staging *s = dev;
    uint64_t offset = 0;
    int rc = s->ops->reg_read(s->dev, GW_STAGING_DATA_OFFSET, 8, &offset);
    if (rc < 0)
        return gw_error_set(err, rc, GW_CODE_DEVICE, "read data_offset: %s", strerror(-rc));
    rc = check_window(s, offset, 0, err);
    if (rc < 0)
        return rc;
    uint64_t room = s->ops->region_bytes - offset;
    size_t some = bytes < room ? bytes : (size_t)room;
    rc = gw_staging_copy_in(s, offset, data, some);
    if (rc < 0)
        return gw_error_set(err, rc, GW_CODE_DEVICE,
                            "write %zu bytes at 0x%" PRIx64 " of the window: %s", some, offset,
                            strerror(-rc));
    rc = s->ops->reg_write(s->dev, GW_STAGING_DATA_SIZE, 8, some);
    if (rc < 0)
        return gw_error_set(err, rc, GW_CODE_DEVICE, "write %zu to data_size: %s", some,
                            strerror(-rc));
    s->stats.chunks++;
    s->stats.bytes += some;
    return (ssize_t)some;
}

/* ---- the rest ------------------------------------------------------------------------------------ */

static int save_config(void *dev, struct gw_writer *w, struct gw_error *err)
{
    struct gw_staging *s = dev;
    return s->ops->save_config ? s->ops->save_config(s->dev, w, err) : 0;
}

static int load_config(void *dev, struct gw_reader *r, struct gw_error *err)
{
    struct gw_staging *s = dev;
    return s->ops->load_config ? s->ops->load_config(s->dev, r, err) : 0;
}

static int poll_fd(void *dev)
{
    (void)dev;
    return -1;
}

const struct gw_odev_ops gw_staging_odev_ops = {
    .struct_bytes = sizeof(struct gw_odev_ops),
    .caps = caps,
    .get_state = get_state,
    .set_state = set_state,
    .reset = reset,
    .next = next,
    .read = read_state,
    .write = write_state,
    .estimate = estimate,
    .save_config = save_config,
    .load_config = load_config,
    .poll_fd = poll_fd,
};
