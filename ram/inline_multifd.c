// SPDX-License-Identifier: MIT
/* Recordings of a multifd channel: a hello of 64 bytes, then packets, each a header of fixed size and at most
 * one piece of data. A packet without pages has no data whatever its header says. What the data of a
 * compressed packet holds is a stream that spans the channel's packets; it is passed over by its length. */
#include "core/base/bytes.h"
#include "ram/inline.h"

#include <inttypes.h>

#define HELLO_BYTES 64u
#define VERSION 1u
#define COMMON_BYTES 12u
#define HEADER_BYTES 320u
#define DEVICE_HEADER_BYTES 276u
#define PACKET_PAGES_BYTES 524288u /* of pages, a packet's table has room for */
#define DATA_BYTES_MAX (1u << 20)  /* what receivers have for compressed data */
#define DEVICE_BYTES_MAX (64u << 20)

#define FLAG_SYNC 0x01u
#define FLAG_METHOD 0x3eu
#define FLAG_DEVICE_STATE 0x40u

static int check_magic(struct gw_input *in, const uint8_t *at, uint64_t offset,
                       struct gw_error *err)
{
    if (gw_be32_load(at) != GW_MULTIFD_MAGIC)
        return gw_input_refuse(in, offset, err, "no packet: 0x%08" PRIx32 ", expected 0x11223344",
                               gw_be32_load(at));
    if (gw_be32_load(at + 4) != VERSION)
        return gw_input_refuse(in, offset + 4, err, "packet version %" PRIu32 ", expected 1",
                               gw_be32_load(at + 4));
    return 0;
}

int gw_multifd_take_hello(struct gw_multifd *multifd, struct gw_input *in, struct gw_error *err)
{
    uint64_t offset = gw_input_tell(in);
    const uint8_t *at = gw_input_take(in, HELLO_BYTES, "hello of a multifd channel", err);
    if (!at)
        return -EBADMSG;
    memcpy(multifd->uuid, at + 8, sizeof(multifd->uuid));
    multifd->id = at[24];
    return check_magic(in, at, offset, err);
}

/* A text of at most 255 bytes in a field of 256. */
static int copy_text(struct gw_input *in, const uint8_t *at, uint64_t offset, char to[256],
                     struct gw_error *err)
{
    size_t bytes = strnlen((const char *)at, 256);
    if (bytes == 256)
        return gw_input_refuse(in, offset, err, "a name without an end");
    const uint8_t *odd = gw_text_find_odd(at, bytes);
    if (odd)
        return gw_input_refuse(in, offset + (uint64_t)(odd - at), err, "byte 0x%02x in a name",
                               (unsigned)*odd);
    memcpy(to, at, bytes);
    to[bytes] = '\0';
    return 0;
}

static int take_device_state(struct gw_multifd *multifd, struct gw_input *in,
                             struct gw_multifd_packet *packet, struct gw_error *err)
{
    const uint8_t *at = gw_input_take(in, DEVICE_HEADER_BYTES, "header of a packet", err);
    if (!at)
        return -EBADMSG;
    packet->is_device_state = true;
    packet->instance_id = gw_be32_load(at + 268);
    packet->data_bytes = gw_be32_load(at + 272);
    int rc = copy_text(in, at + COMMON_BYTES, packet->offset + COMMON_BYTES, packet->block, err);
    if (rc < 0)
        return rc;
    if (packet->flags & FLAG_SYNC)
        return gw_input_refuse(in, packet->offset + 8, err, "device state with a SYNC flag");
    if (packet->data_bytes == 0 || packet->data_bytes > DEVICE_BYTES_MAX)
        return gw_input_refuse(in, packet->offset + 272, err, "device state of %" PRIu32 " bytes",
                               packet->data_bytes);
    multifd->device_packets++;
    return 0;
}

static int check_counts(const struct gw_multifd *multifd, struct gw_input *in,
                        const struct gw_multifd_packet *packet, uint32_t room, struct gw_error *err)
{
    uint64_t pages = (uint64_t)packet->normal_pages + packet->zero_pages;
    uint64_t most = PACKET_PAGES_BYTES / multifd->page_bytes;
    if (room > most || pages > room)
        return gw_input_refuse(in, packet->offset + 12, err,
                               "a packet of %" PRIu64 " pages with room for %" PRIu32, pages, room);
    if (packet->normal_pages == 0)
        return 0;
    uint64_t plain = packet->normal_pages * multifd->page_bytes;
    bool compressed = packet->flags & FLAG_METHOD;
    if (packet->data_bytes == 0 || (!compressed && packet->data_bytes != plain) ||
        packet->data_bytes > DATA_BYTES_MAX)
        return gw_input_refuse(in, packet->offset + 20, err,
                               "a packet of %" PRIu32 " pages with %" PRIu32 " bytes of data",
                               packet->normal_pages, packet->data_bytes);
    return 0;
}

static int check_offsets(const struct gw_multifd *multifd, struct gw_input *in,
                         const struct gw_multifd_packet *packet, const uint8_t *table,
                         struct gw_error *err)
{
    for (uint32_t i = 0; i < packet->normal_pages + packet->zero_pages; i++) {
        uint64_t offset = gw_be64_load(table + 8 * (size_t)i);
        if (offset % multifd->page_bytes != 0)
            return gw_input_refuse(in, packet->offset + HEADER_BYTES + 8 * (uint64_t)i, err,
                                   "a page at 0x%" PRIx64 ", which is none of %" PRIu64 " bytes",
                                   offset, multifd->page_bytes);
    }
    return 0;
}

static int take_pages(struct gw_multifd *multifd, struct gw_input *in,
                      struct gw_multifd_packet *packet, struct gw_error *err)
{
    size_t bytes = HEADER_BYTES + 8 * (size_t)(PACKET_PAGES_BYTES / multifd->page_bytes);
    const uint8_t *at = gw_input_take(in, bytes, "header of a packet", err);
    if (!at)
        return -EBADMSG;
    packet->normal_pages = gw_be32_load(at + 16);
    packet->data_bytes = gw_be32_load(at + 20);
    packet->number = gw_be64_load(at + 24);
    packet->zero_pages = gw_be32_load(at + 32);
    int rc = check_counts(multifd, in, packet, gw_be32_load(at + 12), err);
    if (rc == 0)
        rc = check_offsets(multifd, in, packet, at + HEADER_BYTES, err);
    if (rc == 0 && packet->normal_pages + packet->zero_pages > 0)
        rc = copy_text(in, at + 64, packet->offset + 64, packet->block, err);
    if (packet->normal_pages == 0)
        packet->data_bytes = 0; /* stale */
    else
        multifd->method |= packet->flags & FLAG_METHOD;
    return rc;
}

int gw_multifd_take(struct gw_multifd *multifd, struct gw_input *in,
                    struct gw_multifd_packet *packet, struct gw_error *err)
{
    const uint8_t *at;
    *packet = (struct gw_multifd_packet){.offset = gw_input_tell(in)};
    size_t left = gw_input_look(in, COMMON_BYTES, &at);
    if (left == 0 && in->rc == 0)
        return 0;
    if (left < COMMON_BYTES)
        return gw_input_short(in, "header of a packet", err);
    int rc = check_magic(in, at, packet->offset, err);
    if (rc < 0)
        return rc;
    packet->flags = gw_be32_load(at + 8);
    if (packet->flags & ~(FLAG_SYNC | FLAG_METHOD | FLAG_DEVICE_STATE))
        return gw_input_refuse(in, packet->offset + 8, err, "a packet with flags 0x%" PRIx32,
                               packet->flags);
    rc = packet->flags & FLAG_DEVICE_STATE ? take_device_state(multifd, in, packet, err)
                                           : take_pages(multifd, in, packet, err);
    if (rc < 0)
        return rc;
    if (gw_input_drop(in, packet->data_bytes) < packet->data_bytes)
        return gw_input_short(in, "data of a packet", err);
    multifd->packets++;
    multifd->syncs += packet->flags & FLAG_SYNC;
    multifd->normal_pages += packet->normal_pages;
    multifd->zero_pages += packet->zero_pages;
    multifd->data_bytes += packet->data_bytes;
    return 1;
}
