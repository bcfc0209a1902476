// SPDX-License-Identifier: MIT
/* A device with a data descriptor as an opaque device. It owns the descriptor of the transfer that is
 * open: there is at most one, it comes with the state that opens a transfer and is closed when one
 * ends. A descriptor that comes while one is held says that the device was reset behind our back: what
 * was read belongs to a transfer that is dead, so that is a failure and not another try. */
#include "devices/vfio/feature.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct gw_feature {
    const struct gw_feature_ops *ops;
    void *dev;
    const char *name;
    struct gw_odev_caps caps;
    int data_fd; /* -1: no transfer */
    bool saves;  /* what it is for */
};

static int ask_support(struct gw_feature *f, struct gw_error *err)
{
    struct gw_feature_migration migration = {
        .header = {sizeof(migration), GW_FEATURE_GET | GW_FEATURE_MIGRATION}};
    int rc = f->ops->feature(f->dev, &migration.header);
    if (rc == -ENOTTY || rc == -EINVAL || (rc == 0 && !(migration.flags & GW_FEATURE_STOP_COPY)))
        return gw_error_set(err, -EOPNOTSUPP, GW_CODE_UNSUPPORTED,
                            "device '%s': its driver cannot migrate it", f->name);
    if (rc < 0)
        return gw_error_set(err, rc, GW_CODE_DEVICE, "device '%s': ask what migration it has: %s",
                            f->name, strerror(-rc));
    f->caps.quiesce = migration.flags & GW_FEATURE_P2P;
    f->caps.precopy = migration.flags & GW_FEATURE_PRE_COPY;
    return 0;
}

int gw_feature_new(const struct gw_feature_ops *ops, void *dev, const char *name,
                   const struct gw_odev_caps *caps, struct gw_feature **feature,
                   struct gw_error *err)
{
    if (ops->struct_bytes < sizeof(*ops) || !ops->feature || !ops->precopy_info ||
        !ops->data_read || !ops->data_write || !ops->reset ||
        !ops->save_config != !ops->load_config)
        return gw_error_set(err, -EINVAL, GW_CODE_INVALID,
                            "device '%s': the table of its calls is incomplete", name);
    struct gw_feature *f = calloc(1, sizeof(*f));
    if (!f)
        return gw_error_set(err, -ENOMEM, GW_CODE_NO_MEMORY, "device '%s': out of memory", name);
    *f = (struct gw_feature){.ops = ops, .dev = dev, .name = name, .data_fd = -1};
    if (caps)
        f->caps = *caps;
    f->caps.chunked = false;
    int rc = ask_support(f, err);
    if (rc < 0) {
        free(f);
        return rc;
    }
    *feature = f;
    return 0;
}

static void close_data(struct gw_feature *f)
{
    if (f->data_fd < 0)
        return;
    if (f->ops->data_close)
        f->ops->data_close(f->dev, f->data_fd);
    else
        close(f->data_fd);
    f->data_fd = -1;
}

void gw_feature_free(struct gw_feature *f)
{
    if (!f)
        return;
    close_data(f);
    free(f);
}

/* ---- states -------------------------------------------------------------------------------------- */

static int caps(void *dev, struct gw_odev_caps *out)
{
    *out = ((struct gw_feature *)dev)->caps;
    return 0;
}

static int ask_state(struct gw_feature *f, enum gw_odev_state *now)
{
    struct gw_feature_device_state state = {
        .header = {sizeof(state), GW_FEATURE_GET | GW_FEATURE_DEVICE_STATE}, .data_fd = -1};
    int rc = f->ops->feature(f->dev, &state.header);
    if (rc < 0)
        return rc;
    *now = state.state < GW_ODEV_STATE_COUNT_ ? (enum gw_odev_state)state.state : GW_ODEV_ERROR;
    return 0;
}

static bool is_transfer(enum gw_odev_state state)
{
    return gw_odev_state_is_saving(state) || state == GW_ODEV_RESUMING;
}

/* A failed transition may have ended the transfer on its way: then its descriptor is dead. */
static int get_state(void *dev, enum gw_odev_state *now)
{
    struct gw_feature *f = dev;
    int rc = ask_state(f, now);
    if (rc == 0 && !is_transfer(*now))
        close_data(f);
    return rc;
}

static int take_data(struct gw_feature *f, int data_fd, bool saves, struct gw_error *err)
{
    if (data_fd < 0)
        return 0;
    if (f->data_fd < 0) {
        f->data_fd = data_fd;
        f->saves = saves;
        return 0;
    }
    if (f->ops->data_close)
        f->ops->data_close(f->dev, data_fd);
    else
        close(data_fd);
    return gw_error_set(err, -EBADF, GW_CODE_DEVICE,
                        "it was reset in the midst of a transfer: another one began");
}

static int set_state(void *dev, enum gw_odev_state want, struct gw_error *err)
{
    struct gw_feature *f = dev;
    struct gw_feature_device_state state = {
        .header = {sizeof(state), GW_FEATURE_SET | GW_FEATURE_DEVICE_STATE},
        .state = want,
        .data_fd = -1};
    /* Asked to end one transfer and begin the other kind: only then is another descriptor no surprise. */
    if (f->saves != gw_odev_state_is_saving(want))
        close_data(f);
    int rc = f->ops->feature(f->dev, &state.header);
    if (rc < 0)
        return gw_error_set(err, rc, GW_CODE_DEVICE, "the driver refused: %s", strerror(-rc));
    rc = take_data(f, state.data_fd, gw_odev_state_is_saving(want), err);
    if (rc < 0)
        return rc;
    if (!is_transfer(want))
        close_data(f);
    else if (f->data_fd < 0)
        return gw_error_set(err, -EBADF, GW_CODE_DEVICE,
                            "the driver began a transfer without a descriptor");
    return 0;
}

static int reset(void *dev)
{
    struct gw_feature *f = dev;
    close_data(f);
    return f->ops->reset(f->dev);
}

/* ---- data ---------------------------------------------------------------------------------------- */

static ssize_t read_state(void *dev, void *data, size_t bytes_max, struct gw_error *err)
{
    struct gw_feature *f = dev;
    if (f->data_fd < 0)
        return gw_error_set(err, -EBADF, GW_CODE_DEVICE, "no transfer is open");
    ssize_t got = f->ops->data_read(f->dev, f->data_fd, data, bytes_max);
    if (got == -ENOMSG || got == -EAGAIN || got == -EINTR)
        return -EAGAIN;
    if (got < 0)
        return gw_error_set(err, (int)got, GW_CODE_DEVICE, "read its state: %s",
                            strerror((int)-got));
    return got;
}

static ssize_t write_state(void *dev, const void *data, size_t bytes, struct gw_error *err)
{
    struct gw_feature *f = dev;
    if (f->data_fd < 0)
        return gw_error_set(err, -EBADF, GW_CODE_DEVICE, "no transfer is open");
    ssize_t put = f->ops->data_write(f->dev, f->data_fd, data, bytes);
    if (put == -EAGAIN || put == -EINTR)
        return -EAGAIN;
    if (put < 0)
        return gw_error_set(err, (int)put, GW_CODE_DEVICE, "write its state: %s",
                            strerror((int)-put));
    return put;
}

/* What cannot be told is unknown; only a driver that breaks fails. */
static int estimate(void *dev, struct gw_odev_estimate *out)
{
    struct gw_feature *f = dev;
    enum gw_odev_state state;
    struct gw_feature_data_size size = {
        .header = {sizeof(size), GW_FEATURE_GET | GW_FEATURE_DATA_SIZE}};
    struct gw_precopy_info info = {.argsz = sizeof(info)};
    int rc = ask_state(f, &state);
    if (rc < 0)
        return rc;
    *out = (struct gw_odev_estimate){.stop_copy_bytes = GW_ODEV_UNKNOWN};
    if (f->ops->feature(f->dev, &size.header) == 0)
        out->stop_copy_bytes = size.stop_copy_bytes;
    if ((state != GW_ODEV_PRE_COPY && state != GW_ODEV_PRE_COPY_P2P) || f->data_fd < 0)
        return 0;
    if (f->ops->precopy_info(f->dev, f->data_fd, &info) < 0) {
        out->initial_bytes = out->dirty_bytes = GW_ODEV_UNKNOWN;
        return 0;
    }
    out->initial_bytes = info.initial_bytes;
    out->dirty_bytes = info.dirty_bytes;
    /* A driver that was not opted in echoes its input: then the flag says nothing. */
    out->reinit = f->caps.reinit && (info.flags & GW_PRECOPY_REINIT);
    return 0;
}

/* ---- the rest ------------------------------------------------------------------------------------ */

static int save_config(void *dev, struct gw_writer *w, struct gw_error *err)
{
    struct gw_feature *f = dev;
    return f->ops->save_config ? f->ops->save_config(f->dev, w, err) : 0;
}

static int load_config(void *dev, struct gw_reader *r, struct gw_error *err)
{
    struct gw_feature *f = dev;
    return f->ops->load_config ? f->ops->load_config(f->dev, r, err) : 0;
}

static int poll_fd(void *dev)
{
    return ((struct gw_feature *)dev)->data_fd;
}

const struct gw_odev_ops gw_feature_odev_ops = {
    .struct_bytes = sizeof(struct gw_odev_ops),
    .caps = caps,
    .get_state = get_state,
    .set_state = set_state,
    .reset = reset,
    .read = read_state,
    .write = write_state,
    .estimate = estimate,
    .save_config = save_config,
    .load_config = load_config,
    .poll_fd = poll_fd,
};
