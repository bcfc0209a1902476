// SPDX-License-Identifier: MIT
/* Introduces ram to control: zero runs and fences become messages on their endpoint's channel. */
#include "core/peer.h"

static int say_zero(void *ctx, uint32_t number, const struct gw_zero_run *runs, unsigned count)
{
    struct gw_peer *peer = ctx;
    struct gw_list_builder list = {.buf = peer->buf, .bytes = sizeof(peer->buf)};
    for (unsigned i = 0; i < count; i++) {
        struct gw_range_msg range = {
            .block = runs[i].block, .first = runs[i].first_page, .count = runs[i].pages};
        int rc = gw_list_add_range(&list, GW_MSG_ZERO, &range);
        gw_assert(rc == 0); /* the buffer holds GW_ZERO_RUNS_MAX entries */
    }
    struct gw_message msg = {.type = GW_MSG_ZERO};
    msg.u.zero.number = number;
    msg.u.zero.runs.data = list.buf;
    msg.u.zero.runs.bytes = list.used;
    return gw_channel_send(peer->channel, &msg);
}

static int say_fence(void *ctx, uint32_t number)
{
    struct gw_peer *peer = ctx;
    struct gw_message msg = {.type = GW_MSG_FENCE, .flags = peer->final ? GW_MSG_FLAG_LAST : 0};
    msg.u.number = number;
    int rc = gw_channel_send(peer->channel, &msg);
    peer->said_last |= rc == 0 && peer->final;
    return rc;
}

const struct gw_ram_peer_ops gw_peer_ops = {.zero = say_zero, .fence = say_fence};
