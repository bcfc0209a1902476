// SPDX-License-Identifier: MIT
/* Messages: the table made from messages.def and the questions it answers. Nothing here fails; the
 * codec is in message_encode.c and message_decode.c. */
#include "control/codec.h"

static const struct gw_message_def defs[] = {
#define GW_MESSAGE(name_, from_, on_, way_, flags_, min_, max_)                                    \
    {.type = GW_MSG_##name_,                                                                       \
     .name = #name_,                                                                               \
     .from = GW_FROM_##from_,                                                                      \
     .on = GW_ON_##on_,                                                                            \
     .way = GW_WAY_##way_,                                                                         \
     .flags = (flags_),                                                                            \
     .body_min = (min_),                                                                           \
     .body_max = (max_)},
#include "control/messages.def"
#undef GW_MESSAGE
};

_Static_assert(GW_MESSAGE_HEADER_BYTES + GW_ZERO_BYTES_MAX <= GW_PAGE_MESSAGE_BYTES_MAX,
               "a full ZERO does not fit a page endpoint");

_Static_assert(GW_MESSAGE_HEADER_BYTES + GW_PACKET_BYTES_MAX <= GW_PAGE_MESSAGE_BYTES_MAX,
               "a full PACKET does not fit a page endpoint");

#define DEF_COUNT (sizeof(defs) / sizeof(defs[0]))

const struct gw_message_def *gw_message_def_at(unsigned index)
{
    return index < DEF_COUNT ? &defs[index] : NULL;
}

const struct gw_message_def *gw_message_def(uint32_t type)
{
    for (size_t i = 0; i < DEF_COUNT; i++) {
        if ((uint32_t)defs[i].type == type)
            return &defs[i];
    }
    return NULL;
}

const char *gw_message_name(enum gw_message_type type)
{
    const struct gw_message_def *def = gw_message_def((uint32_t)type);
    return def ? def->name : "?";
}

bool gw_message_is_credited(enum gw_message_type type)
{
    const struct gw_message_def *def = gw_message_def((uint32_t)type);
    return def && def->way != GW_WAY_FREE;
}

void gw_text_copy(char *to, const uint8_t *from, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        to[i] = from[i] >= 0x20 && from[i] < 0x7f ? (char)from[i] : '?';
    to[bytes] = '\0';
}
