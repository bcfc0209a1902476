// SPDX-License-Identifier: MIT
/* A disk over a file. gw_virtio_blk_step() takes requests from the rings, holds them, and carries them out
 * one after the other; those that it holds when the guest is paused move with the device's state, and are
 * carried out where the guest goes on. */
#include "devices/virtio/virtio_impl.h"

#include <endian.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define SECTOR_BYTES 512u
#define CONFIG_BYTES 60u

enum { TYPE_IN = 0, TYPE_OUT = 1, TYPE_FLUSH = 4, TYPE_ID = 8 };
enum { STATUS_OK, STATUS_IO, STATUS_UNSUPPORTED };

struct blk {
    int fd;
    uint64_t sectors;
    struct gw_virtio_element *first, **last;
    unsigned held;
};

static struct blk *blk_of(const struct gw_virtio *dev)
{
    return dev->type_state;
}

/* ---- requests that are held --------------------------------------------------------------------- */

static void hold(struct blk *blk, struct gw_virtio_element *element)
{
    element->next = NULL;
    *blk->last = element;
    blk->last = &element->next;
    blk->held++;
}

static struct gw_virtio_element *release(struct blk *blk)
{
    struct gw_virtio_element *element = blk->first;
    if (!element)
        return NULL;
    blk->first = element->next;
    if (!blk->first)
        blk->last = &blk->first;
    blk->held--;
    return element;
}

static void drop_all(struct gw_virtio *dev)
{
    struct blk *blk = blk_of(dev);
    struct gw_virtio_element *element;
    while ((element = release(blk)) != NULL)
        gw_virtio_element_free(element);
}

static void drop(struct gw_virtio *dev, unsigned queue)
{
    struct blk *blk = blk_of(dev);
    struct gw_virtio_element *rest = blk->first, *next;
    blk->first = NULL;
    blk->last = &blk->first;
    blk->held = 0;
    for (; rest; rest = next) {
        next = rest->next;
        if (rest->queue == queue)
            gw_virtio_element_free(rest);
        else
            hold(blk, rest);
    }
}

static uint32_t count_held(const struct gw_virtio *dev, unsigned queue)
{
    uint32_t count = 0;
    for (const struct gw_virtio_element *e = blk_of(dev)->first; e; e = e->next)
        count += e->queue == queue;
    return count;
}

/* ---- carrying out ------------------------------------------------------------------------------ */

struct header {
    uint32_t type, priority;
    uint64_t sector;
};

/* A request's data, where it is in guest memory. */
struct data {
    struct iovec iov[GW_VIRTIO_RING_MAX];
    int count;
    uint64_t bytes;
};

static uint64_t bytes_of(const struct gw_virtio_segment *segments, uint32_t count)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < count; i++)
        bytes += segments[i].bytes;
    return bytes;
}

/* @bytes from @skip on. What is no memory any more is left out, and so are the bytes behind it. */
static void find_data(const struct gw_virtio *dev, const struct gw_virtio_segment *segments,
                      uint32_t count, uint64_t skip, uint64_t bytes, struct data *data)
{
    data->count = 0;
    data->bytes = 0;
    for (uint32_t i = 0; i < count && data->bytes < bytes; i++) {
        uint64_t size = segments[i].bytes;
        if (skip >= size) {
            skip -= size;
            continue;
        }
        uint64_t piece = size - skip;
        if (piece > bytes - data->bytes)
            piece = bytes - data->bytes;
        char *at = dev->host.map(dev->host.opaque, segments[i].address, size);
        if (!at)
            return;
        data->iov[data->count++] = (struct iovec){at + skip, piece};
        data->bytes += piece;
        skip = 0;
    }
}

static void copy_out(const struct data *data, void *to)
{
    char *at = to;
    for (int i = 0; i < data->count; i++) {
        memcpy(at, data->iov[i].iov_base, data->iov[i].iov_len);
        at += data->iov[i].iov_len;
    }
}

/* A few bytes: volatile, or they would go by a memcpy() that a sanitizer sees. */
GW_VIRTIO_RACES static void copy_in(const struct data *data, const void *from)
{
    const char *at = from;
    for (int i = 0; i < data->count; i++) {
        volatile char *to = data->iov[i].iov_base;
        for (size_t b = 0; b < data->iov[i].iov_len; b++)
            to[b] = *at++;
    }
}

/* What was transferred goes from the front. */
static void advance(struct data *data, size_t bytes)
{
    int gone = 0;
    data->bytes -= bytes;
    while (gone < data->count && bytes >= data->iov[gone].iov_len)
        bytes -= data->iov[gone++].iov_len;
    data->count -= gone;
    memmove(data->iov, data->iov + gone, (size_t)data->count * sizeof(data->iov[0]));
    if (data->count > 0 && bytes > 0) {
        data->iov[0].iov_base = (char *)data->iov[0].iov_base + bytes;
        data->iov[0].iov_len -= bytes;
    }
}

static ssize_t read_file(const struct blk *blk, const struct data *data, uint64_t at)
{
#ifdef __SANITIZE_THREAD__ /* past its preadv(), which would tell it of the writes: see GW_VIRTIO_RACES */
    return syscall(SYS_preadv, blk->fd, data->iov, data->count, (unsigned long)at, 0ul);
#else
    return preadv(blk->fd, data->iov, data->count, (off_t)at);
#endif
}

static uint8_t transfer(struct blk *blk, struct data *data, uint64_t sector, bool is_write)
{
    uint64_t at = sector * SECTOR_BYTES;
    while (data->bytes > 0) {
        ssize_t done = is_write ? pwritev(blk->fd, data->iov, data->count, (off_t)at)
                                : read_file(blk, data, at);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return STATUS_IO;
        at += (uint64_t)done;
        advance(data, (size_t)done);
    }
    return STATUS_OK;
}

static uint8_t sync_file(const struct blk *blk)
{
    return fdatasync(blk->fd) < 0 ? STATUS_IO : STATUS_OK;
}

static bool is_on_disk(const struct blk *blk, uint64_t sector, uint64_t bytes)
{
    return bytes % SECTOR_BYTES == 0 && sector <= blk->sectors &&
           bytes / SECTOR_BYTES <= blk->sectors - sector;
}

static uint8_t read_or_write(struct gw_virtio *dev, const struct gw_virtio_element *element,
                             const struct header *header, struct data *data)
{
    struct blk *blk = blk_of(dev);
    bool is_write = header->type == TYPE_OUT;
    uint32_t in = element->in_count;
    uint64_t bytes = is_write
                         ? bytes_of(element->segments + in, element->out_count) - sizeof(*header)
                         : bytes_of(element->segments, in) - 1;
    if (!is_on_disk(blk, header->sector, bytes) ||
        (is_write && gw_virtio_offers(dev, GW_VIRTIO_BLK_F_RO)))
        return STATUS_IO;
    if (is_write)
        find_data(dev, element->segments + in, element->out_count, sizeof(*header), bytes, data);
    else
        find_data(dev, element->segments, in, 0, bytes, data);
    uint8_t status =
        data->bytes == bytes ? transfer(blk, data, header->sector, is_write) : STATUS_IO;
    /* A driver that did not ask for FLUSH never sends one, and takes what is done for on the disk. */
    if (is_write && status == STATUS_OK && gw_virtio_has(dev, GW_VIRTIO_BLK_F_FLUSH) != 1)
        status = sync_file(blk);
    return status;
}

static uint8_t tell_id(struct gw_virtio *dev, const struct gw_virtio_element *element,
                       struct data *data)
{
    static const char id[20] = "godwit";
    uint64_t bytes = bytes_of(element->segments, element->in_count) - 1;
    find_data(dev, element->segments, element->in_count, 0, bytes < sizeof(id) ? bytes : sizeof(id),
              data);
    copy_in(data, id);
    return STATUS_OK;
}

static uint8_t carry_out(struct gw_virtio *dev, const struct gw_virtio_element *element,
                         struct data *data)
{
    struct header header = {0};
    find_data(dev, element->segments + element->in_count, element->out_count, 0, sizeof(header),
              data);
    if (data->bytes != sizeof(header))
        return STATUS_IO;
    copy_out(data, &header);
    bool is_big = dev->endian == GW_VIRTIO_BIG;
    header.type = is_big ? be32toh(header.type) : le32toh(header.type);
    header.sector = is_big ? be64toh(header.sector) : le64toh(header.sector);
    switch (header.type) {
    case TYPE_IN:
    case TYPE_OUT:
        return read_or_write(dev, element, &header, data);
    case TYPE_FLUSH:
        return sync_file(blk_of(dev));
    case TYPE_ID:
        return tell_id(dev, element, data);
    default:
        return STATUS_UNSUPPORTED;
    }
}

static void tell_written(const struct gw_virtio *dev, const struct gw_virtio_element *element)
{
    for (uint32_t i = 0; dev->host.wrote && i < element->in_count; i++)
        dev->host.wrote(dev->host.opaque, element->segments[i].address, element->segments[i].bytes);
}

/* The last byte to write is the status. */
static void finish(struct gw_virtio *dev, struct gw_virtio_element *element, uint8_t status,
                   struct data *data)
{
    uint64_t bytes = bytes_of(element->segments, element->in_count);
    find_data(dev, element->segments, element->in_count, bytes - 1, 1, data);
    copy_in(data, &status);
    tell_written(dev, element);
    gw_virtqueue_push(dev, element, (uint32_t)bytes);
}

static bool is_whole(const struct gw_virtio_element *element)
{
    uint64_t out = bytes_of(element->segments + element->in_count, element->out_count);
    return element->in_count > 0 && out >= sizeof(struct header);
}

static void take(struct gw_virtio *dev, unsigned hold_max)
{
    struct blk *blk = blk_of(dev);
    for (unsigned n = 0; n < dev->queue_count; n++) {
        while (blk->held < hold_max) {
            struct gw_virtio_element *element = gw_virtqueue_pop(dev, n);
            if (!element)
                break;
            hold(blk, element);
        }
    }
}

unsigned gw_virtio_blk_step(struct gw_virtio *dev, unsigned hold_max, unsigned max)
{
    struct blk *blk = blk_of(dev);
    struct data *data = malloc(sizeof(*data));
    unsigned done = 0;
    if (!data)
        return 0;
    if (gw_virtio_has(dev, GW_VIRTIO_F_RING_PACKED) == 1)
        max = 0; /* such a ring is kept, not worked on */
    take(dev, hold_max);
    while (done < max && blk->first && !dev->broken) {
        struct gw_virtio_element *element = release(blk);
        if (!is_whole(element)) {
            gw_virtio_break(dev, "a request without a header or a place for its status");
            gw_virtio_element_free(element);
            break;
        }
        finish(dev, element, carry_out(dev, element, data), data);
        done++;
        take(dev, hold_max);
    }
    free(data);
    return done;
}

unsigned gw_virtio_blk_held(const struct gw_virtio *dev)
{
    return blk_of(dev)->held;
}

/* ---- state ------------------------------------------------------------------------------------- */

static int save(struct gw_virtio *dev, struct gw_writer *w, struct gw_error *err)
{
    for (const struct gw_virtio_element *e = blk_of(dev)->first; e; e = e->next) {
        gw_writer_u8(w, 1);
        if (dev->queue_count > 1)
            gw_writer_be32(w, e->queue);
        int rc = gw_virtio_element_save(dev, e, w, err);
        if (rc < 0)
            return rc;
    }
    gw_writer_u8(w, 0);
    return 0;
}

/* @heads has a bit for each head of each queue. Return: it was clear. */
static bool is_first(uint8_t *heads, const struct gw_virtio_element *element)
{
    uint32_t at = element->queue * GW_VIRTIO_RING_MAX + element->head;
    bool is_set = heads[at / 8] >> at % 8 & 1;
    heads[at / 8] |= (uint8_t)(1u << at % 8);
    return !is_set;
}

/* Each head is its own, so there are never more than the rings have entries. */
static int load_held(struct gw_virtio *dev, uint8_t *heads, struct gw_reader *r,
                     struct gw_error *err)
{
    struct gw_virtio_element *element;
    uint32_t queue = dev->queue_count > 1 ? gw_reader_be32(r) : 0;
    if (queue >= dev->queue_count)
        return gw_virtio_refuse(err, GW_VIRTIO_RANGE, "request",
                                "of queue %" PRIu32 ", and there are %" PRIu32, queue,
                                dev->queue_count);
    int rc = gw_virtio_element_load(dev, queue, r, &element, err);
    if (rc < 0)
        return rc;
    if (!is_first(heads, element)) {
        rc = gw_virtio_refuse(err, GW_VIRTIO_INVALID, "request",
                              "head %" PRIu32 " of queue %" PRIu32 " comes twice", element->head,
                              queue);
        gw_virtio_element_free(element);
        return rc;
    }
    hold(blk_of(dev), element);
    return 0;
}

static int load_all(struct gw_virtio *dev, uint8_t *heads, struct gw_reader *r,
                    struct gw_error *err)
{
    for (;;) {
        uint8_t more = gw_reader_u8(r);
        int rc = gw_virtio_took(r, "request", err);
        if (rc < 0 || more == 0)
            return rc;
        if (more != 1)
            return gw_virtio_refuse(err, GW_VIRTIO_INVALID, "request",
                                    "%u in front of one, 1 or 0 are taken", more);
        rc = load_held(dev, heads, r, err);
        if (rc < 0)
            return rc;
    }
}

static int load(struct gw_virtio *dev, struct gw_reader *r, struct gw_error *err)
{
    uint8_t *heads = calloc(dev->queue_count, GW_VIRTIO_RING_MAX / 8);
    if (!heads)
        return gw_error_set(err, -ENOMEM, GW_CODE_NO_MEMORY, "request: out of memory");
    for (const struct gw_virtio_element *e = blk_of(dev)->first; e; e = e->next)
        is_first(heads, e);
    int rc = load_all(dev, heads, r, err);
    free(heads);
    return rc;
}

/* ---- configuration, life ------------------------------------------------------------------------ */

static void store(struct gw_virtio *dev, uint32_t offset, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes && offset + bytes <= dev->config_bytes; i++)
        dev->config[offset + (dev->endian == GW_VIRTIO_BIG ? bytes - 1 - i : i)] =
            (uint8_t)(value >> 8 * i);
}

static void read_config(struct gw_virtio *dev)
{
    store(dev, 0, blk_of(dev)->sectors, 8);
    store(dev, 12, dev->queues[0].num_default > 2 ? dev->queues[0].num_default - 2 : 1, 4);
    store(dev, 34, dev->queue_count, 2);
}

static void free_blk(struct gw_virtio *dev)
{
    if (dev->type_state)
        drop_all(dev);
}

static const struct gw_vmstate blk_vmsd = {
    GW_VMSTATE_OF(struct gw_virtio),
    .name = "virtio-blk",
    .version_id = 2,
    .minimum_version_id = 2,
    .load_failed = gw_virtio_load_failed,
    GW_VMSTATE_FIELDS(
        GW_VMSTATE_CUSTOM(virtio, struct gw_virtio, struct gw_virtio *, gw_virtio_codec)),
};

static const struct gw_virtio_device_ops blk_ops = {
    .number = 2,
    .section = &blk_vmsd,
    .save = save,
    .load = load,
    .held = count_held,
    .drop = drop,
    .read_config = read_config,
    .reset = drop_all,
    .free = free_blk,
};

static int check(const struct gw_virtio_blk_config *config, struct gw_error *err)
{
    if (!config || config->struct_bytes < sizeof(*config))
        return gw_error_set(err, -EINVAL, GW_CODE_INVALID, "virtio-blk: struct_bytes is not set");
    if (config->queues == 0 || config->queues > GW_VIRTIO_QUEUES_MAX || config->ring < 2 ||
        config->ring > GW_VIRTIO_RING_MAX || (config->ring & (config->ring - 1)) != 0)
        return gw_error_set(err, -EINVAL, GW_CODE_INVALID,
                            "virtio-blk: 1 to %u queues of a power of two up to %u entries",
                            GW_VIRTIO_QUEUES_MAX, GW_VIRTIO_RING_MAX);
    if (config->config_bytes > GW_VIRTIO_CONFIG_MAX || config->bytes % SECTOR_BYTES != 0)
        return gw_error_set(
            err, -EINVAL, GW_CODE_INVALID,
            "virtio-blk: a disk is whole sectors, its configuration at most %u bytes",
            GW_VIRTIO_CONFIG_MAX);
    return 0;
}

int gw_virtio_blk_new(const struct gw_virtio_config *config,
                      const struct gw_virtio_blk_config *blk_config, struct gw_virtio **dev,
                      struct gw_error *err)
{
    int rc = check(blk_config, err);
    if (rc < 0)
        return rc;
    struct gw_virtio *fresh = calloc(1, sizeof(*fresh));
    struct blk *blk = calloc(1, sizeof(*blk));
    if (!fresh || !blk) {
        free(fresh);
        free(blk);
        return gw_error_set(err, -ENOMEM, GW_CODE_NO_MEMORY, "virtio-blk: no memory for a device");
    }
    blk->fd = blk_config->fd;
    blk->sectors = blk_config->bytes / SECTOR_BYTES;
    blk->last = &blk->first;
    fresh->type = &blk_ops;
    fresh->type_state = blk;
    fresh->config_bytes = blk_config->config_bytes ? blk_config->config_bytes : CONFIG_BYTES;
    fresh->queue_count = blk_config->queues;
    for (unsigned n = 0; n < blk_config->queues; n++)
        fresh->queues[n].num_default = blk_config->ring;
    rc = gw_virtio_init(fresh, config, err);
    if (rc < 0) {
        gw_virtio_free(fresh);
        return rc;
    }
    *dev = fresh;
    return 0;
}
