// SPDX-License-Identifier: MIT
/* The file of a recording (tap.h). Records gather in a buffer and go out when it is full, when the
 * endpoint goes to sleep, and at the end; bytes of puts go out from where they lie. Files are made
 * with O_EXCL and readable by their owner alone, for they hold a guest's memory. */
#include "transport/filter/tap.h"

#include "core/base/bytes.h"
#include "core/base/clock.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void gw_tap_head_encode(const struct gw_tap_head *head, uint8_t bytes[GW_TAP_HEAD_BYTES])
{
    memset(bytes, 0, GW_TAP_HEAD_BYTES);
    static const uint8_t magic[GW_TAP_MAGIC_BYTES] = {'G', 'W', 'T', 'A', 'P', '\n'};
    memcpy(bytes, magic, sizeof(magic));
    gw_be16_store(bytes + 6, GW_TAP_VERSION);
    memcpy(bytes + 8, head->session, GW_SESSION_BYTES);
    gw_be16_store(bytes + 24, head->index);
    bytes[26] = head->side;
    bytes[27] = head->flags;
    gw_be32_store(bytes + 28, head->attempt);
    memcpy(bytes + 32, head->wire, sizeof(head->wire));
    gw_be64_store(bytes + 48, head->clock_ns);
}

static int fail_path(struct gw_error *err, int rc, const char *path, const char *doing,
                     const char *hint)
{
    gw_fail_code(err, rc, GW_CODE_IO, "tap: recording '%.200s': %s: %s", path, doing,
                 strerror(-rc));
    gw_error_place(err, "%.90s", path);
    gw_error_hint(err, "%s", hint);
    return rc;
}

static int make_dir(const char *dir, struct gw_error *err)
{
    struct stat st;
    if (mkdir(dir, 0700) == 0)
        return 0;
    int rc = -errno;
    if (rc == -EEXIST)
        rc = stat(dir, &st) < 0 ? -errno : S_ISDIR(st.st_mode) ? 0 : -ENOTDIR;
    return rc < 0 ? fail_path(err, rc, dir, "make the folder",
                              "dir= names a folder, or one that can be made where its parent is")
                  : 0;
}

static void path_of(struct gw_tap_file *file, const char *dir, const struct gw_tap_head *head)
{
    const uint8_t *s = head->session;
    snprintf(file->path, sizeof(file->path), "%s/%02x%02x%02x%02x-%s-%u-%u.tap", dir, s[0], s[1],
             s[2], s[3], head->side ? "target" : "source", head->index, head->attempt);
}

/* All of @iov, which is used up. */
static int write_all(int fd, struct iovec *iov, int count)
{
    while (count > 0) {
        ssize_t n = writev(fd, iov, count > 1024 ? 1024 : count);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        size_t left = (size_t)n;
        while (count > 0 && left >= iov->iov_len) {
            left -= iov->iov_len;
            iov++;
            count--;
        }
        if (count > 0) {
            iov->iov_base = (uint8_t *)iov->iov_base + left;
            iov->iov_len -= left;
        }
    }
    return 0;
}

int gw_tap_file_create(struct gw_tap_file *file, const char *dir, const struct gw_tap_head *head,
                       const struct gw_log *log, struct gw_error *err)
{
    file->fd = -1;
    file->log = log;
    file->used = GW_TAP_HEAD_BYTES;
    int rc = make_dir(dir, err);
    if (rc < 0)
        return rc;
    path_of(file, dir, head);
    int fd = open(file->path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return fail_path(err, -errno, file->path, "create",
                         "a recording is never written over: remove it, or give another dir=");
    file->start_ns = gw_clock_ns();
    struct gw_tap_head whole = *head;
    whole.clock_ns = file->start_ns;
    gw_tap_head_encode(&whole, file->buf);
    /* Written at once: a disk without room is found out before anything is sent. */
    struct iovec iov = {.iov_base = file->buf, .iov_len = file->used};
    rc = write_all(fd, &iov, 1);
    file->used = 0;
    if (rc == 0) {
        file->fd = fd;
        return 0;
    }
    close(fd);
    unlink(file->path);
    return fail_path(err, rc, file->path, "write", "is there room on that disk?");
}

static void stop(struct gw_tap_file *file, int rc)
{
    gw_log_warn(file->log, "tap", "recording '%s' ends here, the connection does not: write: %s",
                file->path, strerror(-rc));
    close(file->fd);
    file->fd = -1;
}

void gw_tap_file_flush(struct gw_tap_file *file)
{
    struct iovec iov = {.iov_base = file->buf, .iov_len = file->used};
    int rc = file->fd >= 0 && file->used > 0 ? write_all(file->fd, &iov, 1) : 0;
    file->used = 0;
    if (rc < 0)
        stop(file, rc);
}

static void keep(struct gw_tap_file *file, const void *data, size_t bytes)
{
    if (bytes > 0)
        memcpy(file->buf + file->used, data, bytes);
    file->used += bytes;
}

void gw_tap_file_add(struct gw_tap_file *file, uint64_t at_ns, enum gw_tap_kind kind,
                     enum gw_tap_way way, unsigned entries, const struct iovec *iov,
                     unsigned iov_count)
{
    uint8_t head[GW_TAP_RECORD_BYTES] = {(uint8_t)kind, (uint8_t)way};
    uint64_t body = 0;
    for (unsigned i = 0; i < iov_count; i++)
        body += iov[i].iov_len;
    gw_be16_store(head + 2, (uint16_t)entries);
    gw_be64_store(head + 8, at_ns - file->start_ns);
    gw_be64_store(head + 16, body);
    if (file->used + sizeof(head) > sizeof(file->buf))
        gw_tap_file_flush(file);
    keep(file, head, sizeof(head));
    for (unsigned i = 0; i < iov_count; i++) {
        struct iovec piece = iov[i];
        if (file->used + piece.iov_len <= sizeof(file->buf)) {
            keep(file, piece.iov_base, piece.iov_len);
            continue;
        }
        gw_tap_file_flush(file);
        int rc = file->fd >= 0 ? write_all(file->fd, &piece, 1) : 0;
        if (rc < 0)
            stop(file, rc);
    }
}

void gw_tap_file_close(struct gw_tap_file *file)
{
    gw_tap_file_flush(file);
    if (file->fd >= 0)
        close(file->fd);
    file->fd = -1;
}

void gw_tap_file_discard(struct gw_tap_file *file)
{
    if (file->fd < 0)
        return;
    close(file->fd);
    unlink(file->path);
    file->fd = -1;
}
