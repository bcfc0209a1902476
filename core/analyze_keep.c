// SPDX-License-Identifier: MIT
/* What was read and may be wanted again once the description has come: device sections. A regular file is
 * simply read again. From a pipe they are copied, to memory first (KEEP_BYTES_MAX), then to an unnamed file
 * in the folder that is extracted to, if there is one. What is not kept is not walked, which is no fault. */
#include "core/analyze_impl.h"

#include "core/base/alloc.h"
#include "core/base/bytes.h"

#include <unistd.h>

#define KEEP_BYTES_MAX ((size_t)32 << 20)
#define PIECES_MAX 131072u

void gw_keep_init(struct gw_keep *keep)
{
    *keep = (struct gw_keep){.fd = -1, .spill_fd = -1};
}

void gw_keep_fini(struct gw_keep *keep)
{
    gw_free(keep->data);
    gw_free(keep->pieces);
    if (keep->spill_fd >= 0)
        close(keep->spill_fd);
    gw_keep_init(keep);
}

/* Pieces that follow each other become one. @at: in memory, or behind KEEP_BYTES_MAX in the file. */
static int note_piece(struct gw_keep *keep, uint64_t offset, uint64_t bytes, uint64_t at)
{
    struct gw_keep_piece *last = keep->piece_count ? &keep->pieces[keep->piece_count - 1] : NULL;
    if (last && last->offset + last->bytes == offset && last->at + last->bytes == at &&
        (last->at < KEEP_BYTES_MAX) == (at < KEEP_BYTES_MAX)) {
        last->bytes += bytes;
        return 0;
    }
    if (keep->piece_count == keep->piece_room) {
        unsigned room = keep->piece_room ? 2 * keep->piece_room : 64;
        if (room > PIECES_MAX)
            return -E2BIG;
        struct gw_keep_piece *pieces = gw_realloc(keep->pieces, room, sizeof(*pieces));
        if (!pieces)
            return -ENOMEM;
        keep->pieces = pieces;
        keep->piece_room = room;
    }
    gw_assert(keep->pieces != NULL);
    keep->pieces[keep->piece_count++] =
        (struct gw_keep_piece){.offset = offset, .bytes = bytes, .at = at};
    return 0;
}

static int add_to_memory(struct gw_keep *keep, uint64_t offset, const uint8_t *data, size_t bytes)
{
    if (keep->used + bytes > keep->room) {
        size_t room = keep->room ? keep->room : (size_t)1 << 20;
        while (room < keep->used + bytes)
            room *= 2;
        uint8_t *grown = gw_realloc(keep->data, room, 1);
        if (!grown)
            return -ENOMEM;
        keep->data = grown;
        keep->room = room;
    }
    memcpy(keep->data + keep->used, data, bytes);
    int rc = note_piece(keep, offset, bytes, keep->used);
    keep->used += bytes;
    return rc;
}

static int add_to_file(struct gw_keep *keep, uint64_t offset, const uint8_t *data, size_t bytes)
{
    for (size_t done = 0; done < bytes;) {
        ssize_t put =
            pwrite(keep->spill_fd, data + done, bytes - done, (off_t)(keep->spilled + done));
        if (put <= 0)
            return put < 0 ? -errno : -EIO;
        done += (size_t)put;
    }
    int rc = note_piece(keep, offset, bytes, KEEP_BYTES_MAX + keep->spilled);
    keep->spilled += bytes;
    return rc;
}

void gw_keep_add(struct gw_keep *keep, uint64_t offset, const uint8_t *data, size_t bytes)
{
    if (keep->fd >= 0 || keep->rc < 0)
        return;
    if (keep->spilled == 0 && bytes <= KEEP_BYTES_MAX - keep->used)
        keep->rc = add_to_memory(keep, offset, data, bytes);
    else if (keep->spill_fd >= 0)
        keep->rc = add_to_file(keep, offset, data, bytes);
    else
        keep->rc = -ENODATA;
}

static ssize_t read_file(int fd, uint64_t at, void *to, size_t bytes)
{
    size_t done = 0;
    while (done < bytes) {
        ssize_t got = pread(fd, (uint8_t *)to + done, bytes - done, (off_t)(at + done));
        if (got < 0)
            return -errno;
        if (got == 0)
            break;
        done += (size_t)got;
    }
    return (ssize_t)done;
}

static const struct gw_keep_piece *find_piece(const struct gw_keep *keep, uint64_t offset)
{
    unsigned low = 0, high = keep->piece_count;
    while (low < high) { /* pieces are in order */
        unsigned middle = low + (high - low) / 2;
        const struct gw_keep_piece *piece = &keep->pieces[middle];
        if (offset < piece->offset)
            high = middle;
        else if (offset - piece->offset >= piece->bytes)
            low = middle + 1;
        else
            return piece;
    }
    return NULL;
}

ssize_t gw_keep_read(const struct gw_keep *keep, uint64_t offset, void *to, size_t bytes)
{
    if (keep->fd >= 0)
        return read_file(keep->fd, keep->fd_base + offset, to, bytes);
    size_t done = 0;
    while (done < bytes) {
        const struct gw_keep_piece *piece = find_piece(keep, offset + done);
        if (!piece)
            break;
        uint64_t in_piece = offset + done - piece->offset, at = piece->at + in_piece;
        size_t now = (size_t)gw_min_u64(piece->bytes - in_piece, bytes - done);
        if (piece->at < KEEP_BYTES_MAX)
            memcpy((uint8_t *)to + done, keep->data + at, now);
        else if (read_file(keep->spill_fd, at - KEEP_BYTES_MAX, (uint8_t *)to + done, now) !=
                 (ssize_t)now)
            return -EIO;
        done += now;
    }
    return done > 0 || bytes == 0 ? (ssize_t)done : -ENODATA;
}

int gw_keep_read_all(const struct gw_keep *keep, uint64_t offset, void *to, size_t bytes)
{
    ssize_t got = bytes > 0 ? gw_keep_read(keep, offset, to, bytes) : 0;
    if (got < 0)
        return (int)got;
    return (size_t)got == bytes ? 0 : -ENODATA;
}
