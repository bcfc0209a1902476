/* SPDX-License-Identifier: MIT */
/* core/peer.h - ram's words for the other side (ram/peer.h), said as control messages. */
#ifndef GW_CORE_PEER_H
#define GW_CORE_PEER_H

#include "control/channel.h"
#include "ram/peer.h"

struct gw_peer {
    struct gw_channel *channel;
    bool final;     /* the fence to come is the last one */
    bool said_last; /* it was said */
    uint8_t buf[GW_ZERO_RUNS_MAX * 24];
};

extern const struct gw_ram_peer_ops gw_peer_ops; /* ctx: struct gw_peer */

#endif
