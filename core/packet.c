// SPDX-License-Identifier: MIT
/* Sections of devices that come beside the stream. What a session holds of them is counted as it arrives, by all
 * endpoints into one pot: a section's length is not known before it ends. */
#include "core/packet.h"

#include "core/base/alloc.h"
#include "core/base/bytes.h"

#include <inttypes.h>
#include <string.h>

static void deliver(struct gw_mail *mail, void *engine)
{
    struct gw_packet *packet = GW_CONTAINER_OF(mail, struct gw_packet, mail);
    packet->pot->arrived(engine, packet);
}

void gw_packet_free(struct gw_packet *packet)
{
    atomic_fetch_sub_explicit(&packet->pot->bytes, gw_packet_charge(packet->bytes),
                              memory_order_relaxed);
    gw_free(packet);
}

void gw_packet_drop(struct gw_packet_maker *maker)
{
    if (maker->packet)
        gw_packet_free(maker->packet);
    maker->packet = NULL;
}

static struct gw_packet *begin(struct gw_packet_maker *maker, const struct gw_message *msg)
{
    struct gw_packet *packet = gw_zalloc(1, sizeof(*packet));
    if (!packet)
        return NULL;
    packet->mail.deliver = deliver;
    packet->pot = maker->pot;
    packet->section = msg->u.packet.section;
    packet->number = msg->u.packet.number;
    packet->items = msg->u.packet.items;
    atomic_fetch_add_explicit(&packet->pot->bytes, gw_packet_charge(0), memory_order_relaxed);
    maker->packet = packet;
    maker->room = 0;
    return packet;
}

/* What is counted is what arrived; room is made ahead of it, twice that at most. */
static struct gw_packet *grow(struct gw_packet_maker *maker, struct gw_packet *packet, size_t bytes)
{
    if (bytes <= maker->room)
        return packet;
    size_t room = gw_min_u64(gw_max_u64(bytes, maker->room * 2), maker->pot->section_bytes_max);
    packet = gw_realloc(packet, 1, sizeof(*packet) + room);
    if (!packet)
        return NULL; /* what there was is still the maker's */
    maker->packet = packet;
    maker->room = room;
    return packet;
}

static int append(struct gw_packet_maker *maker, struct gw_packet *packet, struct gw_span data,
                  struct gw_error *err)
{
    struct gw_packet_pot *pot = maker->pot;
    if (data.bytes > pot->section_bytes_max - packet->bytes)
        return gw_fail_code(err, -E2BIG, GW_CODE_LIMIT,
                            "PACKET: a section is longer than the %zu bytes that this session may",
                            pot->section_bytes_max);
    uint64_t held = atomic_fetch_add_explicit(&pot->bytes, data.bytes, memory_order_relaxed);
    size_t at = packet->bytes;
    packet->bytes += data.bytes;
    if (held + data.bytes > pot->bytes_max)
        return gw_fail(err, -EPROTO,
                       "PACKET: the source has more than the %" PRIu64
                       " bytes of device state under way that were granted",
                       pot->bytes_max);
    packet = grow(maker, packet, at + data.bytes);
    if (!packet)
        return gw_fail(err, -ENOMEM, "PACKET of %zu bytes", at + data.bytes);
    memcpy(packet->data + at, data.data, data.bytes);
    return 0;
}

int gw_packet_take(struct gw_packet_maker *maker, const struct gw_message *msg,
                   struct gw_packet **whole, struct gw_error *err)
{
    struct gw_packet *packet = maker->packet;
    if (maker->pot->bytes_max == 0)
        return gw_fail(err, -EPROTO, "PACKET in a session that was granted none");
    if (packet && (packet->section != msg->u.packet.section ||
                   packet->number != msg->u.packet.number || packet->items != msg->u.packet.items))
        return gw_fail(err, -EPROTO, "PACKET: another section before the end of one");
    if (!packet)
        packet = begin(maker, msg);
    if (!packet)
        return gw_fail(err, -ENOMEM, "PACKET");
    int rc = append(maker, packet, msg->u.packet.data, err);
    if (rc < 0 || !(msg->flags & GW_MSG_FLAG_LAST))
        return rc;
    /* What was grown by is given back: it counts for nobody. */
    packet = gw_realloc(maker->packet, 1, sizeof(*packet) + maker->packet->bytes);
    *whole = packet ? packet : maker->packet;
    maker->packet = NULL;
    return 0;
}
