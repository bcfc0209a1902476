/* SPDX-License-Identifier: MIT */
/* core/packet.h - sections of devices that come beside the stream, put together at the target. */
#ifndef GW_CORE_PACKET_H
#define GW_CORE_PACKET_H

#include "control/message.h"
#include "core/shell.h"

#include <stdatomic.h>

struct gw_packet;

/* What all endpoints of a session together hold of them. */
struct gw_packet_pot {
    uint64_t bytes_max; /* 0: no packet may come */
    size_t section_bytes_max;
    void (*arrived)(void *engine, struct gw_packet *packet); /* whose it is then */
    _Atomic uint64_t bytes;                                  /* relaxed: a count on its own */
};

struct gw_packet {       /* a section, whole */
    struct gw_mail mail; /* to the engine */
    struct gw_packet *next;
    struct gw_packet_pot *pot;
    uint32_t section;
    uint64_t number, items; /* as in PACKET */
    size_t bytes;
    uint8_t data[];
};

struct gw_packet_maker { /* an endpoint's */
    struct gw_packet_pot *pot;
    struct gw_packet *packet; /* being put together; NULL: none */
    size_t room;
};

/* Take a PACKET. *@whole is set where it was the last of its section. -EPROTO, -E2BIG, -ENOMEM with err. */
int gw_packet_take(struct gw_packet_maker *maker, const struct gw_message *msg,
                   struct gw_packet **whole, struct gw_error *err);
void gw_packet_drop(struct gw_packet_maker *maker);
void gw_packet_free(struct gw_packet *packet); /* [any thread] out of the pot, too */

#endif
