// SPDX-License-Identifier: MIT
/* A stream's contents as files. Names are a stranger's: every byte that is not harmless is written as %XX, a
 * number stands in front, and a file is only ever made, never opened (O_EXCL, O_NOFOLLOW), in the one folder
 * that was named. RAM is sparse: pages that are zero, or never came, are holes. Pages that follow each other
 * are written together. */
#include "core/analyze_impl.h"

#include "core/base/alloc.h"
#include "core/base/bytes.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define RUN_BYTES ((size_t)1 << 20)
#define NAME_BYTES_MAX 255u /* of a file, on what we know */
#define OPEN_FILES_MAX 256u

struct file {
    int fd; /* -1: closed again, to be opened by what it is */
    char name[NAME_BYTES_MAX + 1];
};

struct gw_extract {
    int folder;
    struct file *files; /* by block */
    unsigned count, room, opened;
    unsigned run_block; /* what is in the run, with run_bytes > 0 */
    uint64_t run_offset;
    size_t run_bytes;
    uint8_t *run, *page;
};

/* @prefix-@index-@name.bin, cut before an escape that would not fit. */
static void make_name(char to[NAME_BYTES_MAX + 1], const char *prefix, unsigned index,
                      const char *name)
{
    static const char harmless[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    static const char suffix[] = ".bin";
    size_t used = (size_t)snprintf(to, NAME_BYTES_MAX + 1, "%s-%u-", prefix, index);
    for (; *name && used + 3 + sizeof(suffix) <= NAME_BYTES_MAX + 1; name++) {
        if (strchr(harmless, *name))
            to[used++] = *name;
        else
            used += (size_t)snprintf(to + used, 4, "%%%02X", (unsigned)(unsigned char)*name);
    }
    memcpy(to + used, suffix, sizeof(suffix));
}

static int make_file(const struct gw_extract *extract, const char *name, int *fd,
                     struct gw_error *err)
{
    *fd = openat(extract->folder, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (*fd >= 0)
        return 0;
    int rc = gw_fail_code(err, -errno, GW_CODE_IO, "file '%s' not made: %s", name, strerror(errno));
    if (rc == -EEXIST)
        gw_error_hint(err, "extract to an empty folder");
    return rc;
}

int gw_extract_new(const char *folder, struct gw_extract **extract, struct gw_error *err)
{
    struct gw_extract *to = gw_zalloc(1, sizeof(*to));
    if (!to)
        return gw_fail(err, -ENOMEM, "extraction");
    to->folder = -1;
    to->run = gw_zalloc(RUN_BYTES, 1);
    to->page = gw_zalloc(GW_INLINE_PAGE_BYTES_MAX, 1);
    int rc = to->run && to->page ? 0 : gw_fail(err, -ENOMEM, "extraction");
    if (rc == 0 && mkdir(folder, 0777) < 0 && errno != EEXIST)
        rc = gw_fail_code(err, -errno, GW_CODE_IO, "folder '%s' not made: %s", folder,
                          strerror(errno));
    if (rc == 0)
        to->folder = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (rc == 0 && to->folder < 0)
        rc = gw_fail_code(err, -errno, GW_CODE_IO, "folder '%s' not opened: %s", folder,
                          strerror(errno));
    if (rc < 0) {
        gw_extract_free(to);
        return rc;
    }
    *extract = to;
    return 0;
}

void gw_extract_free(struct gw_extract *extract)
{
    if (!extract)
        return;
    for (unsigned i = 0; i < extract->count; i++) {
        if (extract->files[i].fd >= 0)
            close(extract->files[i].fd);
    }
    if (extract->folder >= 0)
        close(extract->folder);
    gw_free(extract->files);
    gw_free(extract->run);
    gw_free(extract->page);
    gw_free(extract);
}

int gw_extract_folder_fd(const struct gw_extract *extract)
{
    return extract->folder;
}

/* Of a file that this extraction made. Few are open at once: a stranger's table may be long. */
static int open_file(struct gw_extract *extract, unsigned index)
{
    struct file *file = &extract->files[index];
    if (file->fd >= 0)
        return 0;
    for (unsigned i = 0; extract->opened >= OPEN_FILES_MAX && i < extract->count; i++) {
        if (extract->files[i].fd >= 0) {
            close(extract->files[i].fd);
            extract->files[i].fd = -1;
            extract->opened--;
        }
    }
    file->fd = openat(extract->folder, file->name, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    if (file->fd < 0)
        return -errno;
    extract->opened++;
    return 0;
}

int gw_extract_block(struct gw_extract *extract, unsigned index,
                     const struct gw_inline_block *block, struct gw_error *err)
{
    gw_assert(index == extract->count);
    if (extract->count == extract->room) {
        unsigned room = extract->room ? 2 * extract->room : 16;
        struct file *files = gw_realloc(extract->files, room, sizeof(*files));
        if (!files)
            return gw_fail(err, -ENOMEM, "extraction");
        extract->files = files;
        extract->room = room;
    }
    struct file *file = &extract->files[index];
    make_name(file->name, "ram", index, block->name);
    int rc = make_file(extract, file->name, &file->fd, err);
    if (rc < 0)
        return rc;
    extract->count++;
    extract->opened++;
    if (block->bytes > INT64_MAX || ftruncate(file->fd, (off_t)block->bytes) < 0)
        return gw_fail_code(err, block->bytes > INT64_MAX ? -EFBIG : -errno, GW_CODE_IO,
                            "file '%s' of %" PRIu64 " bytes not made: %s", file->name, block->bytes,
                            strerror(block->bytes > INT64_MAX ? EFBIG : errno));
    if (extract->opened > OPEN_FILES_MAX) {
        close(file->fd);
        file->fd = -1;
        extract->opened--;
    }
    return 0;
}

static int fail_file(const struct file *file, int rc, struct gw_error *err)
{
    return gw_fail_code(err, rc, GW_CODE_IO, "file '%s' not written: %s", file->name,
                        strerror(-rc));
}

static int write_at(const struct file *file, const uint8_t *data, size_t bytes, uint64_t at)
{
    for (size_t done = 0; done < bytes;) {
        ssize_t put = pwrite(file->fd, data + done, bytes - done, (off_t)(at + done));
        if (put <= 0)
            return put < 0 ? -errno : -EIO;
        done += (size_t)put;
    }
    return 0;
}

int gw_extract_flush(struct gw_extract *extract, struct gw_error *err)
{
    if (!extract || extract->run_bytes == 0)
        return 0;
    struct file *file = &extract->files[extract->run_block];
    int rc = open_file(extract, extract->run_block);
    if (rc == 0)
        rc = write_at(file, extract->run, extract->run_bytes, extract->run_offset);
    extract->run_bytes = 0;
    return rc < 0 ? fail_file(file, rc, err) : 0;
}

static int add_to_run(struct gw_extract *extract, const struct gw_inline_page *page,
                      const uint8_t *data, size_t bytes, struct gw_error *err)
{
    bool follows = extract->run_bytes > 0 && extract->run_block == page->block &&
                   extract->run_offset + extract->run_bytes == page->offset &&
                   extract->run_bytes + bytes <= RUN_BYTES;
    int rc = follows ? 0 : gw_extract_flush(extract, err);
    if (rc < 0)
        return rc;
    if (!follows) {
        extract->run_block = page->block;
        extract->run_offset = page->offset;
    }
    memcpy(extract->run + extract->run_bytes, data, bytes);
    extract->run_bytes += bytes;
    return 0;
}

/* It may have held something else before. */
static int make_hole(struct gw_extract *extract, const struct gw_inline_page *page, size_t bytes,
                     struct gw_error *err)
{
    struct file *file = &extract->files[page->block];
    int rc = gw_extract_flush(extract, err);
    if (rc < 0)
        return rc;
    rc = open_file(extract, page->block);
    if (rc == 0 && fallocate(file->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                             (off_t)page->offset, (off_t)bytes) < 0) {
        memset(extract->page, 0, bytes); /* a file system without holes */
        rc = write_at(file, extract->page, bytes, page->offset);
    }
    return rc < 0 ? fail_file(file, rc, err) : 0;
}

static int change_page(struct gw_extract *extract, const struct gw_inline_page *page, size_t bytes,
                       struct gw_error *err)
{
    struct file *file = &extract->files[page->block];
    int rc = gw_extract_flush(extract, err);
    if (rc < 0)
        return rc;
    rc = open_file(extract, page->block);
    if (rc < 0)
        return fail_file(file, rc, err);
    ssize_t got = pread(file->fd, extract->page, bytes, (off_t)page->offset);
    if (got != (ssize_t)bytes)
        return fail_file(file, got < 0 ? -errno : -EIO, err);
    rc = gw_xbzrle_decode(page->data, page->bytes, extract->page, bytes);
    gw_assert(rc == 0); /* it was judged */
    return add_to_run(extract, page, extract->page, bytes, err);
}

int gw_extract_page(struct gw_extract *extract, const struct gw_inline_page *page,
                    uint64_t page_bytes, struct gw_error *err)
{
    size_t bytes = (size_t)page_bytes;
    switch (page->kind) {
    case GW_INLINE_PAGE:
        return add_to_run(extract, page, page->data, bytes, err);
    case GW_INLINE_XBZRLE:
        return change_page(extract, page, bytes, err);
    case GW_INLINE_ZERO:
        if (page->data[0] == 0)
            return page->again ? make_hole(extract, page, bytes, err) : 0;
        memset(extract->page, page->data[0], bytes);
        return add_to_run(extract, page, extract->page, bytes, err);
    case GW_INLINE_COMPRESSED:
        if (gw_inflater_is_built())
            return add_to_run(extract, page, page->data, bytes, err);
        break;
    }
    return gw_fail_code(err, -EOPNOTSUPP, GW_CODE_UNSUPPORTED,
                        "file '%s': the page at offset 0x%" PRIx64
                        " is compressed, and this build has no zlib",
                        extract->files[page->block].name, page->offset);
}

int gw_extract_device(struct gw_extract *extract, unsigned index, const char *idstr, int *fd,
                      struct gw_error *err)
{
    char name[NAME_BYTES_MAX + 1];
    make_name(name, "device", index, idstr);
    return make_file(extract, name, fd, err);
}
