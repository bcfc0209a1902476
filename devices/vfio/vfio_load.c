// SPDX-License-Identifier: MIT
/* The target of an opaque device's state. One routine reads START, PART, END and FULL: they differ in
 * the records they have. Nothing is believed: sizes are checked before a byte is read, and what is
 * allocated depends on none of them, records have an order, and what the driver thinks of the whole is asked for before the
 * source is told of success. */
#include "devices/vfio/vfio_impl.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <string.h>

#define bad(v, rc, ...) gw_error_set(err, (rc), GW_CODE_DEVICE, "device '%s': load: " __VA_ARGS__)

int gw_vfio_load_setup(struct gw_vfio *v, struct gw_error *err)
{
    v->load_step = GW_VFIO_LOAD_NEW;
    v->init_loaded = v->announced = v->total_seen = false;
    v->loaded_bytes = 0;
    if (!v->odev.ops->write)
        return 0; /* its first DATA is refused */
    return gw_odev_move(&v->odev, GW_ODEV_RESUMING, v->odev.state, err);
}

bool gw_vfio_needs_ack(const struct gw_vfio *v)
{
    return v->config.switchover_ack && !v->odev.caps.chunked;
}

static int too_short(const struct gw_vfio *v, const char *what, struct gw_error *err)
{
    return bad(v, -EBADMSG, "the section ends in the midst of %s", v->config.name, what);
}

/* ---- records --------------------------------------------------------------------------------- */

static int expect_end(const struct gw_vfio *v, struct gw_reader *r, const char *what,
                      struct gw_error *err)
{
    uint64_t tag = gw_reader_be64(r);
    if (gw_reader_error(r) < 0)
        return too_short(v, what, err);
    if (tag != GW_VFIO_END_OF_STATE)
        return bad(v, -EBADMSG, "%s is followed by 0x%016" PRIx64 " instead of its end",
                   v->config.name, what, tag);
    return 0;
}

/* All of it, which a driver may take in pieces. */
static int feed(struct gw_vfio *v, const uint8_t *data, uint64_t bytes, struct gw_error *err)
{
    unsigned waited_ms = 0;
    for (uint64_t done = 0; done < bytes;) {
        struct gw_error why = GW_ERROR_INIT;
        uint64_t left = bytes - done;
        size_t some = left < GW_VFIO_PIECE_BYTES ? (size_t)left : GW_VFIO_PIECE_BYTES;
        ssize_t put = v->odev.ops->write(v->odev.dev, data + done, some, &why);
        if (put > 0) {
            done += (size_t)put;
            waited_ms = 0;
            continue;
        }
        int rc = put == -EAGAIN
                     ? gw_vfio_wait(v, POLLOUT, &waited_ms, err)
                     : bad(v, put < 0 ? (int)put : -EIO, "%s", v->config.name,
                           why.message[0] ? why.message : strerror(put < 0 ? (int)-put : EIO));
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int load_data(struct gw_vfio *v, struct gw_reader *r, struct gw_error *err)
{
    uint64_t bytes = gw_reader_be64(r);
    if (gw_reader_error(r) < 0)
        return too_short(v, "a record of data", err);
    if (bytes > GW_VFIO_DATA_BYTES_MAX || bytes > gw_reader_left(r))
        return bad(v, -ERANGE, "a record of %" PRIu64 " bytes, %zu are left of its section",
                   v->config.name, bytes, gw_reader_left(r));
    if (!v->odev.ops->write)
        return bad(v, -EOPNOTSUPP, "it takes no state, and the source has sent some",
                   v->config.name);
    int rc = feed(v, gw_reader_take(r, (size_t)bytes), bytes, err);
    if (rc < 0)
        return rc;
    v->loaded_bytes += bytes;
    v->stats.loaded_bytes += bytes;
    return 0;
}

/* A format that is not ours is not offered to the driver at all. */
static int load_format(struct gw_vfio *v, struct gw_reader *r, struct gw_error *err)
{
    const struct gw_odev_caps *caps = &v->odev.caps;
    char format[256] = "";
    uint8_t bytes = gw_reader_u8(r);
    gw_reader_bytes(r, format, bytes);
    uint32_t version = gw_reader_be32(r);
    if (gw_reader_error(r) < 0)
        return too_short(v, "the name of its format", err);
    for (unsigned i = 0; i < bytes; i++)
        if (format[i] < ' ' || format[i] > '~')
            return bad(v, -EBADMSG, "byte 0x%02x in the name of its format is not printable ASCII",
                       v->config.name, (uint8_t)format[i]);
    if (caps->format[0] && strcmp(caps->format, format) != 0)
        return bad(v, -EOPNOTSUPP, "its state is of format '%s', this device takes '%s'",
                   v->config.name, format, caps->format);
    if (caps->format[0] && version > caps->format_version)
        return bad(v, -EOPNOTSUPP,
                   "its state is of version %" PRIu32 " of format '%s', %" PRIu32
                   " is the highest here",
                   v->config.name, version, format, caps->format_version);
    v->announced = true;
    return 0;
}

static int load_start(struct gw_vfio *v, struct gw_reader *r, struct gw_error *err)
{
    if (v->load_step != GW_VFIO_LOAD_NEW)
        return bad(v, -EPROTO, "its set-up comes twice", v->config.name);
    uint64_t tag = gw_reader_be64(r);
    if (gw_reader_error(r) == 0 && tag == GW_VFIO_FORMAT) {
        int rc = load_format(v, r, err);
        if (rc < 0)
            return rc;
        tag = gw_reader_be64(r);
    }
    if (gw_reader_error(r) < 0)
        return too_short(v, "its set-up", err);
    if (tag != GW_VFIO_END_OF_STATE)
        return bad(v, -EBADMSG, "its set-up is followed by 0x%016" PRIx64 " instead of its end",
                   v->config.name, tag);
    v->load_step = GW_VFIO_LOAD_DATA;
    return 0;
}

static int load_config(struct gw_vfio *v, struct gw_reader *r, struct gw_error *err)
{
    struct gw_error why = GW_ERROR_INIT;
    if (v->load_step == GW_VFIO_LOAD_CONFIG)
        return bad(v, -EPROTO, "its configuration comes twice", v->config.name);
    int rc = v->odev.ops->load_config ? v->odev.ops->load_config(v->odev.dev, r, &why) : 0;
    if (gw_reader_error(r) < 0)
        return too_short(v, "its configuration", err);
    if (rc < 0)
        return bad(v, rc, "its configuration: %s", v->config.name,
                   why.message[0] ? why.message : strerror(-rc));
    return expect_end(v, r, "its configuration", err);
}

static int check_total(const struct gw_vfio *v, struct gw_error *err)
{
    if (v->total_bytes == v->loaded_bytes)
        return 0;
    return bad(v, -EBADMSG, "%" PRIu64 " bytes of state came, the source has sent %" PRIu64,
               v->config.name, v->loaded_bytes, v->total_bytes);
}

static int load_total(struct gw_vfio *v, struct gw_reader *r, struct gw_error *err)
{
    uint64_t total = gw_reader_be64(r);
    if (gw_reader_error(r) < 0)
        return too_short(v, "its total", err);
    if (v->total_seen)
        return bad(v, -EPROTO, "its total comes twice", v->config.name);
    v->total_seen = true;
    v->total_bytes = total;
    /* What goes beside the stream may come later: then the end is the time to look. */
    int rc = v->config.parallel ? 0 : check_total(v, err);
    return rc < 0 ? rc : expect_end(v, r, "its total", err);
}

static int load_init(struct gw_vfio *v, struct gw_error *err)
{
    if (!gw_vfio_needs_ack(v))
        return bad(v, -EPROTO, "nobody here waits for its initial data", v->config.name);
    if (v->init_loaded && !v->odev.caps.reinit)
        return bad(v, -EPROTO, "the end of its initial data comes twice", v->config.name);
    v->init_loaded = true;
    return GW_DEVICE_ACK;
}

/* ---- a section ------------------------------------------------------------------------------- */

/* DATA after SETUP, and not after the configuration, which is the last there is; the older form has
 * its configuration in front of the data in one section. */
static int check_order(const struct gw_vfio *v, bool config_here, struct gw_error *err)
{
    if (v->load_step == GW_VFIO_LOAD_NEW)
        return bad(v, -EPROTO, "state comes before its set-up", v->config.name);
    if ((v->load_step == GW_VFIO_LOAD_CONFIG && !config_here) || v->total_seen)
        return bad(v, -EPROTO, "state comes after its end", v->config.name);
    return 0;
}

int gw_vfio_load(struct gw_vfio *v, struct gw_reader *r, struct gw_error *err)
{
    bool config_here = false;
    v->stats.sections++;
    for (;;) {
        uint64_t tag = gw_reader_be64(r);
        int rc = gw_reader_error(r) < 0 ? too_short(v, "a tag", err) : 0;
        if (rc < 0 || tag == GW_VFIO_END_OF_STATE)
            return rc;
        switch (tag) {
        case GW_VFIO_SETUP_STATE:
            return load_start(v, r, err);
        case GW_VFIO_INIT_DATA_SENT:
            rc = check_order(v, false, err);
            return rc < 0 ? rc : load_init(v, err);
        case GW_VFIO_DATA_STATE:
            rc = check_order(v, config_here, err);
            if (rc == 0)
                rc = load_data(v, r, err);
            break;
        case GW_VFIO_TOTAL:
            rc = check_order(v, config_here, err);
            return rc < 0 ? rc : load_total(v, r, err);
        case GW_VFIO_CONFIG_STATE:
            rc = load_config(v, r, err);
            if (rc == 0) {
                v->load_step = GW_VFIO_LOAD_CONFIG;
                config_here = true;
                if (gw_reader_left(r) == 0)
                    return 0;
            }
            break;
        default:
            rc = bad(v, -EBADMSG, "unknown tag 0x%016" PRIx64, v->config.name, tag);
        }
        if (rc < 0)
            return rc;
    }
}

int gw_vfio_load_raw(struct gw_vfio *v, const void *data, size_t bytes, struct gw_error *err)
{
    if (!v->config.parallel || v->odev.state != GW_ODEV_RESUMING)
        return bad(v, -EPROTO, "state comes beside the stream, which was not agreed on",
                   v->config.name);
    if (v->load_step == GW_VFIO_LOAD_NEW)
        return bad(v, -EPROTO, "state comes before its set-up", v->config.name);
    int rc = feed(v, data, bytes, err);
    if (rc < 0)
        return rc;
    v->loaded_bytes += bytes;
    v->stats.loaded_bytes += bytes;
    return 0;
}

/* ---- the end --------------------------------------------------------------------------------- */

/* A device that heard nothing would run as it was made, under a guest that knows it otherwise. */
static int check_came(const struct gw_vfio *v, struct gw_error *err)
{
    if (v->load_step == GW_VFIO_LOAD_CONFIG)
        return 0;
    int rc = v->load_step == GW_VFIO_LOAD_NEW
                 ? bad(v, -ENODATA, "nothing came of its state", v->config.name)
                 : bad(v, -ENODATA, "its configuration did not come", v->config.name);
    gw_error_hint(err,
                  "the source has no such device, or none of that name, or ended early: give both "
                  "sides the same devices");
    return rc;
}

int gw_vfio_load_finish(struct gw_vfio *v, struct gw_error *err)
{
    if (v->announced && !v->total_seen)
        return bad(v, -EBADMSG, "its state ended after %" PRIu64 " bytes, before all was there",
                   v->config.name, v->loaded_bytes);
    int rc = v->total_seen ? check_total(v, err) : 0;
    if (rc < 0 || v->odev.state != GW_ODEV_RESUMING)
        return rc;
    rc = check_came(v, err);
    if (rc < 0)
        return rc;
    rc = gw_odev_move(&v->odev, GW_ODEV_STOP, GW_ODEV_ERROR, err);
    if (rc < 0)
        gw_error_hint(err, "the driver found the state invalid or incomplete");
    return rc;
}

/* Half a state is none: only a reset makes the device whole again, and it may be tried anew. */
void gw_vfio_load_cleanup(struct gw_vfio *v)
{
    if (v->odev.state != GW_ODEV_RESUMING)
        return;
    if (v->odev.ops->reset(v->odev.dev) == 0)
        v->odev.resets++;
    if (v->odev.ops->get_state(v->odev.dev, &v->odev.state) < 0)
        v->odev.state = GW_ODEV_ERROR;
}
