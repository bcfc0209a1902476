// SPDX-License-Identifier: MIT
/* Encoding: a message's fixed part is written into a small buffer, its entries or stream bytes are
 * only pointed at, so that a channel hands both to the wire without joining them. Fails on our own
 * mistakes only: a type, flag or length that messages.def does not allow. */
#include "control/codec.h"

#include <string.h>

static void put_u16(uint8_t **at, uint16_t value)
{
    gw_be16_store(*at, value);
    *at += 2;
}

static void put_u32(uint8_t **at, uint32_t value)
{
    gw_be32_store(*at, value);
    *at += 4;
}

static void put_u64(uint8_t **at, uint64_t value)
{
    gw_be64_store(*at, value);
    *at += 8;
}

static void put_bytes(uint8_t **at, const void *data, size_t bytes)
{
    memcpy(*at, data, bytes);
    *at += bytes;
}

static void put_text(uint8_t **at, const char *text, size_t bytes_max)
{
    size_t bytes = strnlen(text, bytes_max);
    put_u16(at, (uint16_t)bytes);
    put_bytes(at, text, bytes);
}

static void put_token(uint8_t **at, const struct gw_token *token)
{
    put_bytes(at, token->random, sizeof(token->random));
    put_u64(at, token->incarnation);
}

static void put_error(uint8_t **at, const struct gw_error *error)
{
    put_text(at, gw_code_name(error->code), GW_TEXT_CODE_BYTES_MAX);
    put_text(at, error->phase, GW_TEXT_PHASE_BYTES_MAX);
    put_text(at, error->place, GW_TEXT_PLACE_BYTES_MAX);
    put_text(at, error->message, GW_TEXT_MESSAGE_BYTES_MAX);
    put_text(at, error->hint, GW_TEXT_HINT_BYTES_MAX);
}

static void put_no_error(uint8_t **at)
{
    for (int i = 0; i < 5; i++)
        put_u16(at, 0);
}

static void put_prepare(uint8_t **at, const struct gw_message *msg)
{
    static const uint8_t no_digest[sizeof(msg->u.prepare.digest)];
    put_token(at, &msg->u.prepare.token);
    put_u32(at, msg->type == GW_MSG_PREPARE ? msg->u.prepare.fence : 0);
    put_u32(at, msg->u.prepare.has_digest ? 1 : 0);
    put_bytes(at, msg->u.prepare.has_digest ? msg->u.prepare.digest : no_digest, sizeof(no_digest));
    if (msg->type == GW_MSG_PREPARE)
        return;
    put_u64(at, msg->u.prepare.revoke_ns);
    put_u64(at, msg->u.prepare.digest_ns);
    put_u64(at, msg->u.prepare.load_ns);
}

static int put_outcome(uint8_t **at, const struct gw_message *msg)
{
    enum gw_outcome outcome = msg->u.outcome.outcome;
    if (outcome != GW_OUTCOME_RUNNING && outcome != GW_OUTCOME_DECLINED &&
        outcome != GW_OUTCOME_VOID)
        return -EINVAL;
    put_token(at, &msg->u.outcome.token);
    put_u32(at, (uint32_t)outcome);
    put_u64(at, msg->u.outcome.acquire_ns);
    put_u64(at, msg->u.outcome.resume_ns);
    if (outcome == GW_OUTCOME_RUNNING)
        put_no_error(at);
    else
        put_error(at, &msg->u.outcome.error);
    return 0;
}

static int put_body(uint8_t **at, const struct gw_message *msg, struct gw_span *tail)
{
    switch (msg->type) {
    case GW_MSG_HEARTBEAT:
        return 0;
    case GW_MSG_CREDIT:
        put_u64(at, msg->u.credit);
        return 0;
    case GW_MSG_HELLO:
    case GW_MSG_HELLO_REPLY:
        *at += gw_hello_encode(&msg->u.hello, *at);
        return 0;
    case GW_MSG_BLOCKS:
    case GW_MSG_BLOCKS_OK:
    case GW_MSG_WISHES:
    case GW_MSG_KEYS:
    case GW_MSG_RELEASE:
    case GW_MSG_RELEASED:
        *tail = msg->u.list;
        return 0;
    case GW_MSG_STREAM:
        *tail = msg->u.data;
        return 0;
    case GW_MSG_ZERO:
        put_u32(at, msg->u.zero.number);
        *tail = msg->u.zero.runs;
        return 0;
    case GW_MSG_FENCE:
    case GW_MSG_JOINED:
    case GW_MSG_ZERO_ACK:
        put_u32(at, msg->u.number);
        return 0;
    case GW_MSG_LOADED:
        put_u64(at, msg->u.loaded.items);
        put_u32(at, msg->u.loaded.acks_missing);
        put_u32(at, msg->u.loaded.acks_given);
        return 0;
    case GW_MSG_PACKET:
        put_u32(at, msg->u.packet.section);
        put_u64(at, msg->u.packet.number);
        put_u64(at, msg->u.packet.items);
        *tail = msg->u.packet.data;
        return msg->u.packet.number == 0 ? -EINVAL : 0;
    case GW_MSG_PACKETS_LOADED:
        put_u64(at, msg->u.packets.count);
        put_u64(at, msg->u.packets.bytes);
        return 0;
    case GW_MSG_PREPARE:
    case GW_MSG_PREPARED:
        put_prepare(at, msg);
        return 0;
    case GW_MSG_COMMIT:
    case GW_MSG_ACK:
        put_token(at, &msg->u.token);
        return 0;
    case GW_MSG_OUTCOME:
        return put_outcome(at, msg);
    case GW_MSG_FAILED:
        put_error(at, &msg->u.failed.error);
        return 0;
    case GW_MSG_ABORT:
        put_token(at, &msg->u.failed.token);
        put_error(at, &msg->u.failed.error);
        return 0;
    case GW_MSG_ASK:
        put_bytes(at, msg->u.ask.session, GW_SESSION_BYTES);
        put_token(at, &msg->u.ask.token);
        put_u32(at, msg->u.ask.attempt);
        return msg->u.ask.attempt == 0 ? -EINVAL : 0;
    case GW_MSG_UNKNOWN:
        put_bytes(at, msg->u.ask.session, GW_SESSION_BYTES);
        return 0;
    }
    return -EINVAL;
}

ssize_t gw_message_encode_head(const struct gw_message *msg, uint8_t *head, struct gw_span *tail)
{
    const struct gw_message_def *def = gw_message_def((uint32_t)msg->type);
    if (!def || (msg->flags & ~def->flags))
        return -EINVAL;
    uint8_t *at = head;
    *tail = (struct gw_span){0};
    put_u16(&at, (uint16_t)msg->type);
    put_u16(&at, msg->flags);
    put_u32(&at, 0);
    int rc = put_body(&at, msg, tail);
    if (rc < 0)
        return rc;
    size_t bytes = (size_t)(at - head);
    gw_assert(bytes <= GW_MESSAGE_HEAD_BYTES_MAX);
    size_t body = bytes - GW_MESSAGE_HEADER_BYTES + tail->bytes;
    if (body < def->body_min || tail->bytes > def->body_max || body > def->body_max)
        return -EINVAL;
    if (msg->type == GW_MSG_STREAM && body == 0 && !(msg->flags & GW_MSG_FLAG_LAST))
        return -EINVAL;
    return (ssize_t)bytes;
}

ssize_t gw_message_encode(const struct gw_message *msg, void *buf, size_t bytes)
{
    uint8_t head[GW_MESSAGE_HEAD_BYTES_MAX];
    struct gw_span tail;
    ssize_t head_bytes = gw_message_encode_head(msg, head, &tail);
    if (head_bytes < 0)
        return head_bytes;
    if ((size_t)head_bytes + tail.bytes > bytes)
        return -EMSGSIZE;
    memcpy(buf, head, (size_t)head_bytes);
    if (tail.bytes)
        memcpy((uint8_t *)buf + head_bytes, tail.data, tail.bytes);
    return head_bytes + (ssize_t)tail.bytes;
}
