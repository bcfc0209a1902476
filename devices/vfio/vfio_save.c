// SPDX-License-Identifier: MIT
/* The source of an opaque device's state. Set-up begins the live phase; each PART takes one chunk, or
 * one buffer, of what the driver has; the rest goes while the guest is paused, in as many sections as
 * it takes to keep each within what a target buffers. A failure is told once: the transfer is dead
 * then, and cleanup ends it. */
#include "devices/vfio/vfio_impl.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <string.h>

#define RECORD_HEAD_BYTES 16u /* of DATA: its tag, its length */

/* A driver's refusal in front of which stands whose it is. */
static int refused(const struct gw_vfio *v, int rc, const char *what, const struct gw_error *why,
                   struct gw_error *err)
{
    return gw_error_set(err, rc, GW_CODE_DEVICE, "device '%s': %s: %s", v->config.name, what,
                        why->message[0] ? why->message : strerror(-rc));
}

static uint64_t add(uint64_t a, uint64_t b)
{
    return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

static bool is_live(const struct gw_vfio *v)
{
    return v->odev.state == GW_ODEV_PRE_COPY || v->odev.state == GW_ODEV_PRE_COPY_P2P;
}

/* The newest that the driver says, which is of what was not read yet. */
static int ask(struct gw_vfio *v, struct gw_odev_estimate *estimate, struct gw_error *err)
{
    int rc = v->odev.ops->estimate(v->odev.dev, estimate);
    if (rc < 0)
        return gw_error_set(err, rc, GW_CODE_DEVICE, "device '%s': ask how much state there is: %s",
                            v->config.name, strerror(-rc));
    v->initial_bytes = estimate->initial_bytes;
    v->dirty_bytes = estimate->dirty_bytes;
    if (estimate->reinit && v->init_sent) { /* what was acknowledged is not all of it any more */
        v->init_sent = false;
        v->acks_wanted++;
    }
    return 0;
}

/* ---- set-up ---------------------------------------------------------------------------------- */

static void write_format(const struct gw_vfio *v, struct gw_writer *w)
{
    const struct gw_odev_caps *caps = &v->odev.caps;
    uint8_t bytes = (uint8_t)strlen(caps->format);
    gw_writer_be64(w, GW_VFIO_FORMAT);
    gw_writer_u8(w, bytes);
    gw_writer_bytes(w, caps->format, bytes);
    gw_writer_be32(w, caps->format_version);
}

int gw_vfio_save_setup(struct gw_vfio *v, struct gw_writer *w, struct gw_error *err)
{
    struct gw_odev_estimate estimate;
    int rc = gw_vfio_piece_alloc(v, err);
    if (rc == 0 && v->odev.caps.precopy && v->odev.state == GW_ODEV_RUNNING)
        rc = gw_odev_move(&v->odev, GW_ODEV_PRE_COPY, GW_ODEV_RUNNING, err);
    v->saving = rc == 0;
    v->interrupted = v->init_sent = false;
    v->acks_wanted = gw_vfio_needs_ack(v) ? 1 : 0;
    v->initial_bytes = v->dirty_bytes = v->sent_bytes = 0;
    /* A staging region counts each read of pending_bytes: the estimate that follows asks for it. */
    if (rc == 0 && is_live(v) && !v->odev.caps.chunked)
        rc = ask(v, &estimate, err);
    if (rc < 0) {
        gw_vfio_save_cleanup(v);
        return rc;
    }
    gw_writer_be64(w, GW_VFIO_SETUP_STATE);
    if (v->config.announce)
        write_format(v, w);
    gw_writer_be64(w, GW_VFIO_END_OF_STATE);
    return 0;
}

/* ---- how much there is -------------------------------------------------------------------------- */

static uint64_t stop_copy_bytes(const struct gw_odev_estimate *estimate)
{
    return estimate->stop_copy_bytes == GW_ODEV_UNKNOWN ? GW_VFIO_UNKNOWN_BYTES
                                                        : estimate->stop_copy_bytes;
}

int gw_vfio_pending(struct gw_vfio *v, bool exact, struct gw_device_pending *pending,
                    struct gw_error *err)
{
    struct gw_odev_estimate estimate = {0};
    if (v->odev.caps.chunked || exact || v->odev.state == GW_ODEV_STOP_COPY) {
        int rc = ask(v, &estimate, err);
        if (rc < 0)
            return rc;
    }
    uint64_t bytes = is_live(v) ? add(v->initial_bytes, v->dirty_bytes) : 0;
    /* A staging region has one number for what there is, whatever the guest does. */
    if (v->odev.state == GW_ODEV_STOP_COPY || (exact && !v->odev.caps.chunked))
        bytes = add(bytes, stop_copy_bytes(&estimate));
    /* INIT_DATA_SENT has to go, though no byte may be left to go with it. */
    if (v->acks_wanted > 0 && !v->init_sent && bytes == 0)
        bytes = 1;
    pending->must_precopy_bytes = bytes;
    pending->acks_wanted = v->acks_wanted;
    return 0;
}

/* ---- data ------------------------------------------------------------------------------------ */

static int check_transfer(const struct gw_vfio *v, struct gw_error *err)
{
    if (v->saving && !v->interrupted)
        return 0;
    return gw_error_set(err, -EPROTO, GW_CODE_DEVICE, "device '%s': %s", v->config.name,
                        v->saving ? "it was started in mid-transfer: what was sent is void"
                                  : "no transfer was begun");
}

static void count(struct gw_vfio *v, uint64_t bytes)
{
    v->sent_bytes += bytes;
    if (v->odev.state == GW_ODEV_STOP_COPY)
        v->stats.stop_copy_bytes += bytes;
    else
        v->stats.precopy_bytes += bytes;
}

/* One read of what there is; waits if there must be something. Return: bytes; 0: none now, or the end. */
static ssize_t read_some(struct gw_vfio *v, uint8_t *to, size_t bytes_max, bool must,
                         struct gw_error *err)
{
    unsigned waited_ms = 0;
    for (;;) {
        struct gw_error why = GW_ERROR_INIT;
        ssize_t got = v->odev.ops->read(v->odev.dev, to, bytes_max, &why);
        if (got == -EAGAIN && !must)
            return 0;
        if (got != -EAGAIN)
            return got < 0 ? refused(v, (int)got, "save", &why, err) : got;
        int rc = gw_vfio_wait(v, POLLIN, &waited_ms, err);
        if (rc < 0)
            return rc;
    }
}

/* A record of exactly so many bytes, which the driver has in a chunk. */
static int write_chunk(struct gw_vfio *v, struct gw_writer *w, uint64_t bytes, struct gw_error *err)
{
    gw_writer_be64(w, GW_VFIO_DATA_STATE);
    gw_writer_be64(w, bytes);
    for (uint64_t left = bytes; left > 0;) {
        size_t some = left < GW_VFIO_PIECE_BYTES ? (size_t)left : GW_VFIO_PIECE_BYTES;
        ssize_t got = read_some(v, v->piece, some, true, err);
        if (got < 0)
            return (int)got;
        if (got == 0)
            return gw_error_set(err, -EIO, GW_CODE_DEVICE,
                                "device '%s': save: %" PRIu64 " bytes of a chunk are missing",
                                v->config.name, left);
        gw_writer_bytes(w, v->piece, (size_t)got);
        left -= (uint64_t)got;
    }
    count(v, bytes);
    return 0;
}

static int next_chunk(struct gw_vfio *v, uint64_t *bytes, struct gw_error *err)
{
    struct gw_error why = GW_ERROR_INIT;
    int rc = v->odev.ops->next(v->odev.dev, bytes, &why);
    return rc < 0 ? refused(v, rc, "save", &why, err) : 0;
}

static int iterate_chunk(struct gw_vfio *v, struct gw_writer *w, uint64_t bytes_max,
                         struct gw_error *err)
{
    uint64_t bytes = 0;
    int rc = next_chunk(v, &bytes, err);
    if (rc < 0)
        return rc;
    bool more = bytes > 0;
    if (bytes > bytes_max) /* the rest of it in the next section */
        bytes = bytes_max;
    rc = write_chunk(v, w, bytes, err); /* a size of 0 too: else the end tag would be read as one */
    gw_writer_be64(w, GW_VFIO_END_OF_STATE);
    return rc < 0 ? rc : !more;
}

/* What there is, in as many reads as it takes: a driver may give a page at a time, and a record for
 * each would cost more than its bytes. Whoever loads it sees no borders. */
static ssize_t fill_piece(struct gw_vfio *v, uint64_t bytes_max, bool must, struct gw_error *err)
{
    size_t room = bytes_max < GW_VFIO_PIECE_BYTES ? (size_t)bytes_max : GW_VFIO_PIECE_BYTES;
    size_t done = 0;
    while (done < room) {
        ssize_t got = read_some(v, v->piece + done, room - done, must, err);
        if (got < 0)
            return got;
        if (got == 0)
            break;
        done += (size_t)got;
    }
    return (ssize_t)done;
}

static void write_piece(struct gw_vfio *v, struct gw_writer *w, size_t bytes)
{
    gw_writer_be64(w, GW_VFIO_DATA_STATE);
    gw_writer_be64(w, bytes);
    gw_writer_bytes(w, v->piece, bytes);
    count(v, bytes);
}

/* Estimates are not sizes: never below zero. If there is nothing to read, what changed was estimated
 * wrongly; what is initial may only come later, as the driver tells. */
static int account(struct gw_vfio *v, uint64_t bytes, struct gw_error *err)
{
    struct gw_odev_estimate estimate;
    if (bytes == 0) {
        int rc = v->initial_bytes > 0 ? ask(v, &estimate, err) : 0;
        v->dirty_bytes = 0;
        return rc;
    }
    uint64_t initial = bytes < v->initial_bytes ? bytes : v->initial_bytes;
    uint64_t dirty = bytes - initial;
    v->initial_bytes -= initial;
    v->dirty_bytes -= dirty < v->dirty_bytes ? dirty : v->dirty_bytes;
    return 0;
}

/* Is the end of initial data to be told now? What was read may have been other data, so that an estimate
 * of nothing left is the driver's to confirm: the guest may be paused once the target has it all. */
static int check_initial(struct gw_vfio *v, bool *is_sent, struct gw_error *err)
{
    struct gw_odev_estimate estimate;
    *is_sent = false;
    if (v->acks_wanted == 0 || v->init_sent || v->initial_bytes > 0)
        return 0;
    int rc = ask(v, &estimate, err);
    *is_sent = rc == 0 && v->initial_bytes == 0;
    return rc;
}

static int iterate_stream(struct gw_vfio *v, struct gw_writer *w, uint64_t bytes_max,
                          struct gw_error *err)
{
    bool init_is_sent = false;
    ssize_t got = fill_piece(v, bytes_max, false, err);
    int rc = got < 0 ? (int)got : account(v, (uint64_t)got, err);
    if (rc == 0)
        rc = check_initial(v, &init_is_sent, err);
    if (rc < 0)
        return rc;
    if (got > 0)
        write_piece(v, w, (size_t)got);
    v->init_sent |= init_is_sent;
    gw_writer_be64(w, init_is_sent ? GW_VFIO_INIT_DATA_SENT : GW_VFIO_END_OF_STATE);
    return got == 0 || (v->initial_bytes == 0 && v->dirty_bytes == 0);
}

int gw_vfio_save_iterate(struct gw_vfio *v, struct gw_writer *w, uint64_t bytes_max,
                         struct gw_error *err)
{
    bool init_only = !is_live(v) && v->acks_wanted > 0 && !v->init_sent;
    if (!is_live(v) && !init_only)
        return GW_DEVICE_DONE;
    int rc = check_transfer(v, err);
    if (rc < 0)
        return rc;
    v->stats.sections++;
    if (init_only) { /* all goes in the pause; the target waits for this before it */
        v->init_sent = true;
        gw_writer_be64(w, GW_VFIO_INIT_DATA_SENT);
        return GW_DEVICE_DONE;
    }
    return v->odev.caps.chunked ? iterate_chunk(v, w, bytes_max, err)
                                : iterate_stream(v, w, bytes_max, err);
}

/* ---- the rest, paused ------------------------------------------------------------------------- */

static bool runs(const struct gw_vfio *v)
{
    return is_live(v) || v->odev.state == GW_ODEV_RUNNING || v->odev.state == GW_ODEV_RUNNING_P2P;
}

static int begin_rest(struct gw_vfio *v, struct gw_error *err)
{
    int rc = check_transfer(v, err);
    if (rc == 0 && runs(v)) /* stopped one by one, they would write into each other's memory */
        rc = gw_error_set(err, -EPROTO, GW_CODE_DEVICE,
                          "device '%s': the guest's devices were not stopped: "
                          "gw_vfio_stop_all() belongs into pause()",
                          v->config.name);
    return rc < 0 ? rc : gw_odev_move(&v->odev, GW_ODEV_STOP_COPY, GW_ODEV_STOP, err);
}

/* Return: bytes that became a record; 0: there are no more. */
static int64_t complete_one(struct gw_vfio *v, struct gw_writer *w, uint64_t room,
                            struct gw_error *err)
{
    uint64_t bytes = 0;
    if (v->odev.caps.chunked) {
        int rc = next_chunk(v, &bytes, err);
        if (rc < 0 || bytes == 0)
            return rc;
        bytes = bytes < room ? bytes : room;
        rc = write_chunk(v, w, bytes, err);
        return rc < 0 ? rc : (int64_t)bytes;
    }
    ssize_t got = fill_piece(v, room, true, err);
    if (got > 0)
        write_piece(v, w, (size_t)got);
    return got;
}

ssize_t gw_vfio_save_raw(struct gw_vfio *v, void *to, size_t bytes_max, struct gw_error *err)
{
    int rc = begin_rest(v, err);
    if (rc < 0)
        return rc;
    ssize_t got = read_some(v, to, bytes_max, true, err);
    if (got > 0)
        count(v, (uint64_t)got);
    return got;
}

int gw_vfio_save_complete(struct gw_vfio *v, struct gw_writer *w, uint64_t bytes_max,
                          struct gw_error *err)
{
    int64_t got = 1;
    int rc = begin_rest(v, err);
    if (rc < 0)
        return rc;
    v->stats.sections++;
    uint64_t room = bytes_max;
    while (got > 0 && room > 0) {
        got = complete_one(v, w, room, err);
        if (got < 0)
            return (int)got;
        uint64_t took = (uint64_t)got + RECORD_HEAD_BYTES;
        room -= took < room ? took : room;
    }
    if (got == 0 && v->config.announce) {
        gw_writer_be64(w, GW_VFIO_TOTAL);
        gw_writer_be64(w, v->sent_bytes);
    }
    gw_writer_be64(w, GW_VFIO_END_OF_STATE);
    return got == 0;
}

int gw_vfio_save_config(struct gw_vfio *v, struct gw_writer *w, struct gw_error *err)
{
    struct gw_error why = GW_ERROR_INIT;
    gw_writer_be64(w, GW_VFIO_CONFIG_STATE);
    int rc = v->odev.ops->save_config ? v->odev.ops->save_config(v->odev.dev, w, &why) : 0;
    gw_writer_be64(w, GW_VFIO_END_OF_STATE);
    return rc < 0 ? refused(v, rc, "save its configuration", &why, err) : 0;
}

void gw_vfio_save_cleanup(struct gw_vfio *v)
{
    /* If the guest is paused its device stops, and runs when the guest does. */
    if (v->saving && gw_odev_state_is_saving(v->odev.state))
        gw_odev_move(&v->odev, v->odev.state == GW_ODEV_STOP_COPY ? GW_ODEV_STOP : GW_ODEV_RUNNING,
                     GW_ODEV_ERROR, NULL);
    v->saving = false;
    gw_vfio_piece_free(v);
}
