/* SPDX-License-Identifier: MIT */
/* control/codec.h - inside control/ only: the table of messages, and the halves of the codec. */
#ifndef GW_CONTROL_CODEC_H
#define GW_CONTROL_CODEC_H

#include "control/message.h"
#include "core/base/bytes.h"

/* Limits of the wire. They are part of the protocol and do not follow the sizes of our structs. */
#define GW_HELLO_BYTES_MAX 4096
#define GW_ZERO_BYTES_MAX                                                                          \
    (4 + 1024 * 20) /* the longest of a page endpoint: its number, 1024 ranges */
#define GW_PACKET_BYTES_MAX (GW_PACKET_HEAD_BYTES + GW_PACKET_DATA_BYTES_MAX)
#define GW_TEXT_CODE_BYTES_MAX 31
#define GW_TEXT_PHASE_BYTES_MAX 23
#define GW_TEXT_PLACE_BYTES_MAX 95
#define GW_TEXT_MESSAGE_BYTES_MAX 319
#define GW_TEXT_HINT_BYTES_MAX 319
#define GW_ERROR_TEXTS_BYTES_MAX                                                                   \
    (GW_TEXT_CODE_BYTES_MAX + GW_TEXT_PHASE_BYTES_MAX + GW_TEXT_PLACE_BYTES_MAX +                  \
     GW_TEXT_MESSAGE_BYTES_MAX + GW_TEXT_HINT_BYTES_MAX)
/* Everything of a message but a list's entries or a stream's bytes. */
#define GW_MESSAGE_HEAD_BYTES_MAX (GW_MESSAGE_HEADER_BYTES + 1024)
/* A zero run ends at or before this page, so that its byte offsets fit 64 bits. */
#define GW_ZERO_PAGE_END_MAX (UINT64_C(1) << 52)
#define GW_BLOCK_PAGE_BYTES_MIN 4096u

enum gw_message_from { GW_FROM_SOURCE = 1, GW_FROM_TARGET = 2, GW_FROM_BOTH = 3 };
enum gw_message_on { GW_ON_CONTROL = 1, GW_ON_PAGES = 2, GW_ON_ANY = 3 };
enum gw_message_way { GW_WAY_FREE, GW_WAY_SMALL, GW_WAY_BULK, GW_WAY_DIRECT };

struct gw_message_def {
    enum gw_message_type type;
    const char *name;
    enum gw_message_from from;
    enum gw_message_on on;
    enum gw_message_way way;
    uint16_t flags;
    uint32_t body_min, body_max;
};

/* The row of @type, NULL if there is none. */
const struct gw_message_def *gw_message_def(uint32_t type);
/* The rows in order, for tests and fuzzing; NULL past the end. */
const struct gw_message_def *gw_message_def_at(unsigned index);

/* Encode header and fixed part into @head (GW_MESSAGE_HEAD_BYTES_MAX bytes); @tail is what follows
 * it, in the caller's memory. Return: bytes in @head, or -EINVAL. */
ssize_t gw_message_encode_head(const struct gw_message *msg, uint8_t *head, struct gw_span *tail);

/* The fields of a hello (hello.c). Encoding cannot fail: @to has room for a head. */
size_t gw_hello_encode(const struct gw_hello *hello, uint8_t *to);
int gw_hello_decode(const uint8_t *data, size_t bytes, struct gw_hello *hello,
                    struct gw_error *err);

/* Are @list's entries those of a @type, whole and in range? */
int gw_list_check(enum gw_message_type type, struct gw_span list, struct gw_error *err);

/* Copy @bytes of text to @to (at least bytes + 1), control and non-ASCII bytes as '?'. */
void gw_text_copy(char *to, const uint8_t *from, size_t bytes);

#endif
