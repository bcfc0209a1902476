// SPDX-License-Identifier: MIT
/* A request in flight, as it moves: QEMU 7.2's image of a structure of its own, in the host's byte order,
 * or godwit's encoding, which is of no host's order and as long as the request. Either is checked whole
 * before it becomes a request. */
#include "devices/virtio/virtio_impl.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Only the first in_num and out_num of each mean something. A base was a pointer once, and is 0. */
struct image_iovec {
    uint64_t base, bytes;
};
struct image {
    uint32_t index, out_num, in_num, pad;
    uint64_t in_address[GW_VIRTIO_RING_MAX], out_address[GW_VIRTIO_RING_MAX];
    struct image_iovec in[GW_VIRTIO_RING_MAX], out[GW_VIRTIO_RING_MAX];
};
_Static_assert(sizeof(struct image) == 49168, "QEMU 7.2's, of a 64 bit host");

/* ---- saving ------------------------------------------------------------------------------------ */

static int save_image(const struct gw_virtio *dev, const struct gw_virtio_element *element,
                      struct gw_writer *w, struct gw_error *err)
{
    struct image *image = calloc(1, sizeof(*image));
    if (!image)
        return gw_virtio_refuse(err, -ENOMEM, "element", "no memory for its image");
    image->index = element->head;
    image->in_num = element->in_count;
    image->out_num = element->out_count;
    for (uint32_t i = 0; i < element->in_count; i++) {
        image->in_address[i] = element->segments[i].address;
        image->in[i].bytes = element->segments[i].bytes;
    }
    const struct gw_virtio_segment *out = element->segments + element->in_count;
    for (uint32_t i = 0; i < element->out_count; i++) {
        image->out_address[i] = out[i].address;
        image->out[i].bytes = out[i].bytes;
    }
    gw_writer_bytes(w, image, sizeof(*image));
    free(image);
    /* QEMU 7.2 writes this before the image and reads it after it, so nothing of its own arrives. */
    if (gw_virtio_offers(dev, GW_VIRTIO_F_RING_PACKED))
        gw_writer_be32(w, element->descs);
    return 0;
}

static void save_own(const struct gw_virtio_element *element, struct gw_writer *w)
{
    gw_writer_be16(w, (uint16_t)element->head);
    gw_writer_be16(w, (uint16_t)element->in_count);
    gw_writer_be16(w, (uint16_t)element->out_count);
    gw_writer_be32(w, element->descs);
    for (uint32_t i = 0; i < element->in_count + element->out_count; i++) {
        gw_writer_be64(w, element->segments[i].address);
        gw_writer_be32(w, element->segments[i].bytes);
    }
}

int gw_virtio_element_save(const struct gw_virtio *dev, const struct gw_virtio_element *element,
                           struct gw_writer *w, struct gw_error *err)
{
    if (!(dev->flags & GW_VIRTIO_OWN_ELEMENTS))
        return save_image(dev, element, w, err);
    save_own(element, w);
    return 0;
}

/* ---- loading ----------------------------------------------------------------------------------- */

static int check_counts(const struct gw_virtio *dev, uint32_t queue, uint32_t in_count,
                        uint32_t out_count, uint32_t head, struct gw_error *err)
{
    uint32_t num = dev->queues[queue].num;
    if (in_count > num || out_count > num || in_count + out_count > num ||
        in_count + out_count == 0)
        return gw_virtio_refuse(err, GW_VIRTIO_RANGE, "element",
                                "%" PRIu32 " buffers in, %" PRIu32 " out; 1 to %" PRIu32
                                " fit the ring",
                                in_count, out_count, num);
    if (head >= num)
        return gw_virtio_refuse(err, GW_VIRTIO_INVALID, "element",
                                "head %" PRIu32 " in a ring of %" PRIu32, head, num);
    return 0;
}

/* @total: bytes of the segments before. */
static int check_segment(const struct gw_virtio *dev, uint64_t address, uint64_t bytes,
                         uint64_t *total, struct gw_error *err)
{
    if (bytes == 0 || bytes > UINT32_MAX || *total + bytes > UINT64_C(1) << 32)
        return gw_virtio_refuse(err, GW_VIRTIO_RANGE, "element",
                                "a buffer of %" PRIu64 " bytes, after %" PRIu64, bytes, *total);
    *total += bytes;
    if (address > UINT64_MAX - bytes || !dev->host.map(dev->host.opaque, address, bytes))
        return gw_virtio_refuse(err, GW_VIRTIO_RANGE, "element",
                                "%" PRIu64 " bytes at 0x%" PRIx64 " are not guest memory", bytes,
                                address);
    return 0;
}

static int check_segments(const struct gw_virtio *dev, const struct gw_virtio_element *element,
                          struct gw_error *err)
{
    uint64_t total = 0;
    int rc = 0;
    for (uint32_t i = 0; i < element->in_count + element->out_count && rc == 0; i++)
        rc = check_segment(dev, element->segments[i].address, element->segments[i].bytes, &total,
                           err);
    return rc;
}

static int new_element(const struct gw_virtio *dev, uint32_t queue, uint32_t in_count,
                       uint32_t out_count, uint32_t head, struct gw_virtio_element **element,
                       struct gw_error *err)
{
    int rc = check_counts(dev, queue, in_count, out_count, head, err);
    if (rc < 0)
        return rc;
    *element = gw_virtio_element_new(in_count, out_count);
    if (!*element)
        return gw_virtio_refuse(err, -ENOMEM, "element", "no memory");
    (*element)->queue = queue;
    (*element)->head = head;
    return 0;
}

/* Lengths of the image are 64 bits wide, a request's are not. */
static int check_image(const struct image *image, struct gw_error *err)
{
    for (uint32_t i = 0; i < image->in_num + image->out_num; i++) {
        uint64_t bytes =
            i < image->in_num ? image->in[i].bytes : image->out[i - image->in_num].bytes;
        if (bytes > UINT32_MAX)
            return gw_virtio_refuse(err, GW_VIRTIO_RANGE, "element",
                                    "a buffer of %" PRIu64 " bytes", bytes);
    }
    return 0;
}

static int unpack_image(const struct gw_virtio *dev, uint32_t queue, const struct image *image,
                        struct gw_virtio_element **element, struct gw_error *err)
{
    int rc = new_element(dev, queue, image->in_num, image->out_num, image->index, element, err);
    if (rc == 0)
        rc = check_image(image, err);
    if (rc < 0)
        return rc;
    struct gw_virtio_segment *segment = (*element)->segments;
    for (uint32_t i = 0; i < image->in_num; i++)
        *segment++ = (struct gw_virtio_segment){image->in_address[i], (uint32_t)image->in[i].bytes};
    for (uint32_t i = 0; i < image->out_num; i++)
        *segment++ =
            (struct gw_virtio_segment){image->out_address[i], (uint32_t)image->out[i].bytes};
    return 0;
}

static int load_image(const struct gw_virtio *dev, uint32_t queue, struct gw_reader *r,
                      struct gw_virtio_element **element, struct gw_error *err)
{
    struct image *image = malloc(sizeof(*image));
    if (!image)
        return gw_virtio_refuse(err, -ENOMEM, "element", "no memory for its image");
    gw_reader_bytes(r, image, sizeof(*image));
    uint32_t descs = gw_virtio_offers(dev, GW_VIRTIO_F_RING_PACKED) ? gw_reader_be32(r) : 0;
    int rc = gw_virtio_took(r, "element", err);
    if (rc == 0)
        rc = unpack_image(dev, queue, image, element, err);
    if (rc == 0)
        (*element)->descs = descs;
    free(image);
    return rc;
}

static int load_own(const struct gw_virtio *dev, uint32_t queue, struct gw_reader *r,
                    struct gw_virtio_element **element, struct gw_error *err)
{
    uint32_t head = gw_reader_be16(r), in_count = gw_reader_be16(r), out_count = gw_reader_be16(r);
    uint32_t descs = gw_reader_be32(r);
    int rc = gw_virtio_took(r, "element", err);
    if (rc == 0)
        rc = new_element(dev, queue, in_count, out_count, head, element, err);
    if (rc < 0 || !*element)
        return rc;
    (*element)->descs = descs;
    for (uint32_t i = 0; i < in_count + out_count; i++) {
        (*element)->segments[i].address = gw_reader_be64(r);
        (*element)->segments[i].bytes = gw_reader_be32(r);
    }
    return gw_virtio_took(r, "element", err);
}

int gw_virtio_element_load(const struct gw_virtio *dev, uint32_t queue, struct gw_reader *r,
                           struct gw_virtio_element **element, struct gw_error *err)
{
    struct gw_virtio_element *fresh = NULL;
    int rc = dev->flags & GW_VIRTIO_OWN_ELEMENTS ? load_own(dev, queue, r, &fresh, err)
                                                 : load_image(dev, queue, r, &fresh, err);
    if (rc == 0)
        rc = check_segments(dev, fresh, err);
    if (rc == 0 && fresh && fresh->descs > dev->queues[queue].num)
        rc = gw_virtio_refuse(err, GW_VIRTIO_RANGE, "element",
                              "%" PRIu32 " descriptors in a ring of %" PRIu32, fresh->descs,
                              dev->queues[queue].num);
    if (rc < 0) {
        gw_virtio_element_free(fresh);
        return rc;
    }
    *element = fresh;
    return 0;
}
