// SPDX-License-Identifier: MIT
/* Decoding: the peer is hostile, so the header, the body's length by messages.def, then every field
 * and every entry of a list is checked before the message is shown to anyone. Nothing is allocated;
 * spans point into the caller's buffer. Every refusal says which message and what was wrong. */
#include "control/codec.h"

#include <inttypes.h>
#include <string.h>

struct body {
    const uint8_t *at;
    size_t left;
    const char *name;
    struct gw_error *err;
};

/* Callers of the take_ functions for integers have checked that a fixed part is there. */
static uint16_t take_u16(struct body *body)
{
    uint16_t value = gw_be16_load(body->at);
    body->at += 2;
    body->left -= 2;
    return value;
}

static uint32_t take_u32(struct body *body)
{
    uint32_t value = gw_be32_load(body->at);
    body->at += 4;
    body->left -= 4;
    return value;
}

static uint64_t take_u64(struct body *body)
{
    uint64_t value = gw_be64_load(body->at);
    body->at += 8;
    body->left -= 8;
    return value;
}

static void take_bytes(struct body *body, void *to, size_t bytes)
{
    memcpy(to, body->at, bytes);
    body->at += bytes;
    body->left -= bytes;
}

static void take_token(struct body *body, struct gw_token *token)
{
    take_bytes(body, token->random, sizeof(token->random));
    token->incarnation = take_u64(body);
}

/* be16 length, text; @to has room for bytes_max and a NUL. */
static int take_text(struct body *body, const char *field, char *to, size_t bytes_max)
{
    if (body->left < 2)
        return gw_fail(body->err, -EPROTO, "%s: ends before the length of its %s", body->name,
                       field);
    size_t bytes = take_u16(body);
    if (bytes > bytes_max)
        return gw_fail(body->err, -EPROTO, "%s: %s of %zu bytes, at most %zu", body->name, field,
                       bytes, bytes_max);
    if (bytes > body->left)
        return gw_fail(body->err, -EPROTO, "%s: %s of %zu bytes, %zu are left", body->name, field,
                       bytes, body->left);
    gw_text_copy(to, body->at, bytes);
    body->at += bytes;
    body->left -= bytes;
    return 0;
}

/* errno numbers do not travel: they differ between systems. */
static int rc_of_code(enum gw_code code)
{
    switch (code) {
    case GW_CODE_INVALID:
        return -EINVAL;
    case GW_CODE_NO_MEMORY:
        return -ENOMEM;
    case GW_CODE_LIMIT:
        return -E2BIG;
    case GW_CODE_UNSUPPORTED:
        return -EOPNOTSUPP;
    case GW_CODE_PROTOCOL:
        return -EPROTO;
    case GW_CODE_PEER_LOST:
        return -ECONNRESET;
    case GW_CODE_TIMEOUT:
    case GW_CODE_PEER_SILENT:
        return -ETIMEDOUT;
    case GW_CODE_CANCELLED:
        return -ECANCELED;
    case GW_CODE_IO:
        return -EIO;
    case GW_CODE_LINK_DOWN:
        return -ENETDOWN;
    case GW_CODE_DEVICE_LOST:
        return -ENODEV;
    default:
        return -EREMOTEIO;
    }
}

static int take_error(struct body *body, struct gw_error *error, enum gw_code code_unknown)
{
    char name[GW_TEXT_CODE_BYTES_MAX + 1];
    _Static_assert(GW_TEXT_PHASE_BYTES_MAX < GW_ERROR_PHASE_BYTES, "phase does not fit");
    _Static_assert(GW_TEXT_PLACE_BYTES_MAX < GW_ERROR_PLACE_BYTES, "place does not fit");
    _Static_assert(GW_TEXT_MESSAGE_BYTES_MAX < GW_ERROR_TEXT_BYTES, "message does not fit");
    _Static_assert(GW_TEXT_HINT_BYTES_MAX < GW_ERROR_TEXT_BYTES, "hint does not fit");
    error->struct_bytes = sizeof(*error);
    error->peer[0] = '\0';
    int rc = take_text(body, "code", name, GW_TEXT_CODE_BYTES_MAX);
    if (rc == 0)
        rc = take_text(body, "phase", error->phase, GW_TEXT_PHASE_BYTES_MAX);
    if (rc == 0)
        rc = take_text(body, "place", error->place, GW_TEXT_PLACE_BYTES_MAX);
    if (rc == 0)
        rc = take_text(body, "text", error->message, GW_TEXT_MESSAGE_BYTES_MAX);
    if (rc == 0)
        rc = take_text(body, "hint", error->hint, GW_TEXT_HINT_BYTES_MAX);
    if (rc < 0)
        return rc;
    /* A newer peer may know codes that we do not. */
    error->code = gw_code_from_name(name);
    if (error->code == GW_CODE_NONE)
        error->code = code_unknown;
    error->rc = rc_of_code(error->code);
    return 0;
}

static int take_prepare(struct body *body, struct gw_message *msg)
{
    static const uint8_t no_digest[sizeof(msg->u.prepare.digest)];
    memset(&msg->u.prepare, 0, sizeof(msg->u.prepare));
    take_token(body, &msg->u.prepare.token);
    msg->u.prepare.fence = take_u32(body);
    if (msg->type == GW_MSG_PREPARED && msg->u.prepare.fence != 0)
        return gw_fail(body->err, -EPROTO, "%s: reserved bytes are not zero", body->name);
    uint32_t has_digest = take_u32(body);
    if (has_digest > 1)
        return gw_fail(body->err, -EPROTO, "%s: digest flag is %" PRIu32 ", not 0 or 1", body->name,
                       has_digest);
    msg->u.prepare.has_digest = has_digest == 1;
    take_bytes(body, msg->u.prepare.digest, sizeof(msg->u.prepare.digest));
    if (!has_digest && memcmp(msg->u.prepare.digest, no_digest, sizeof(no_digest)) != 0)
        return gw_fail(body->err, -EPROTO, "%s: a digest that its flag denies", body->name);
    if (msg->type == GW_MSG_PREPARE)
        return 0;
    msg->u.prepare.revoke_ns = take_u64(body);
    msg->u.prepare.digest_ns = take_u64(body);
    msg->u.prepare.load_ns = take_u64(body);
    return 0;
}

static int take_outcome(struct body *body, struct gw_message *msg)
{
    take_token(body, &msg->u.outcome.token);
    uint32_t outcome = take_u32(body);
    if (outcome < GW_OUTCOME_RUNNING || outcome > GW_OUTCOME_VOID)
        return gw_fail(body->err, -EPROTO, "%s: unknown outcome %" PRIu32, body->name, outcome);
    msg->u.outcome.outcome = (enum gw_outcome)outcome;
    msg->u.outcome.acquire_ns = take_u64(body);
    msg->u.outcome.resume_ns = take_u64(body);
    if (outcome != GW_OUTCOME_RUNNING)
        return take_error(body, &msg->u.outcome.error,
                          outcome == GW_OUTCOME_VOID ? GW_CODE_VOID : GW_CODE_DECLINED);
    memset(&msg->u.outcome.error, 0, sizeof(msg->u.outcome.error));
    msg->u.outcome.error.struct_bytes = sizeof(msg->u.outcome.error);
    for (int i = 0; i < 5; i++) {
        if (take_u16(body) != 0)
            return gw_fail(body->err, -EPROTO, "%s: RUNNING with an error text", body->name);
    }
    return 0;
}

static int take_list(struct body *body, struct gw_message *msg, struct gw_span *list)
{
    *list = (struct gw_span){.data = body->at, .bytes = body->left};
    body->at += body->left;
    body->left = 0;
    int rc = gw_list_check(msg->type, *list, body->err);
    if (rc < 0)
        gw_error_prefix(body->err, "%s", body->name);
    return rc;
}

static int take_ask(struct body *body, struct gw_message *msg)
{
    memset(&msg->u.ask, 0, sizeof(msg->u.ask));
    take_bytes(body, msg->u.ask.session, sizeof(msg->u.ask.session));
    if (msg->type == GW_MSG_UNKNOWN)
        return 0;
    take_token(body, &msg->u.ask.token);
    msg->u.ask.attempt = take_u32(body);
    if (msg->u.ask.attempt == 0)
        return gw_fail(body->err, -EPROTO, "%s: attempt 0, they count from 1", body->name);
    return 0;
}

static int take_hello(struct body *body, struct gw_message *msg)
{
    int rc = gw_hello_decode(body->at, body->left, &msg->u.hello, body->err);
    if (rc < 0)
        gw_error_prefix(body->err, "%s", body->name);
    body->left = 0;
    return rc;
}

static int take_stream(struct body *body, struct gw_message *msg)
{
    /* Empty is allowed only where it says something: that an item ends. */
    if (body->left == 0 && !(msg->flags & GW_MSG_FLAG_LAST))
        return gw_fail(body->err, -EPROTO, "%s: empty, and not the last of an item", body->name);
    msg->u.data = (struct gw_span){.data = body->at, .bytes = body->left};
    body->left = 0;
    return 0;
}

static int take_packet(struct body *body, struct gw_message *msg)
{
    msg->u.packet.section = take_u32(body);
    msg->u.packet.number = take_u64(body);
    msg->u.packet.items = take_u64(body);
    if (msg->u.packet.number == 0)
        return gw_fail(body->err, -EPROTO, "%s: number 0, they count from 1", body->name);
    msg->u.packet.data = (struct gw_span){.data = body->at, .bytes = body->left};
    body->left = 0;
    return 0;
}

static int take_body(struct body *body, struct gw_message *msg)
{
    switch (msg->type) {
    case GW_MSG_HEARTBEAT:
        return 0;
    case GW_MSG_CREDIT:
        msg->u.credit = take_u64(body);
        return 0;
    case GW_MSG_HELLO:
    case GW_MSG_HELLO_REPLY:
        return take_hello(body, msg);
    case GW_MSG_BLOCKS:
    case GW_MSG_BLOCKS_OK:
    case GW_MSG_WISHES:
    case GW_MSG_KEYS:
    case GW_MSG_RELEASE:
    case GW_MSG_RELEASED:
        return take_list(body, msg, &msg->u.list);
    case GW_MSG_STREAM:
        return take_stream(body, msg);
    case GW_MSG_ZERO:
        msg->u.zero.number = take_u32(body);
        return take_list(body, msg, &msg->u.zero.runs);
    case GW_MSG_FENCE:
    case GW_MSG_JOINED:
    case GW_MSG_ZERO_ACK:
        msg->u.number = take_u32(body);
        return 0;
    case GW_MSG_LOADED:
        msg->u.loaded.items = take_u64(body);
        msg->u.loaded.acks_missing = take_u32(body);
        msg->u.loaded.acks_given = take_u32(body);
        return 0;
    case GW_MSG_PACKET:
        return take_packet(body, msg);
    case GW_MSG_PACKETS_LOADED:
        msg->u.packets.count = take_u64(body);
        msg->u.packets.bytes = take_u64(body);
        return 0;
    case GW_MSG_PREPARE:
    case GW_MSG_PREPARED:
        return take_prepare(body, msg);
    case GW_MSG_COMMIT:
    case GW_MSG_ACK:
        take_token(body, &msg->u.token);
        return 0;
    case GW_MSG_OUTCOME:
        return take_outcome(body, msg);
    case GW_MSG_FAILED:
        memset(&msg->u.failed.token, 0, sizeof(msg->u.failed.token));
        return take_error(body, &msg->u.failed.error, GW_CODE_REFUSED);
    case GW_MSG_ABORT:
        take_token(body, &msg->u.failed.token);
        return take_error(body, &msg->u.failed.error, GW_CODE_REFUSED);
    case GW_MSG_ASK:
    case GW_MSG_UNKNOWN:
        return take_ask(body, msg);
    }
    return gw_fail(body->err, -EPROTO, "%s: no decoder", body->name);
}

static int check_length(const struct gw_message_def *def, size_t body_bytes, struct gw_error *err)
{
    if (body_bytes >= def->body_min && body_bytes <= def->body_max)
        return 0;
    if (def->body_min == def->body_max)
        return gw_fail(err, -EPROTO, "%s: body of %zu bytes, must be %" PRIu32, def->name,
                       body_bytes, def->body_min);
    return gw_fail(err, -EPROTO, "%s: body of %zu bytes, must be %" PRIu32 " to %" PRIu32,
                   def->name, body_bytes, def->body_min, def->body_max);
}

int gw_message_decode(const void *buf, size_t bytes, struct gw_message *msg, struct gw_error *err)
{
    const uint8_t *at = buf;
    if (bytes < GW_MESSAGE_HEADER_BYTES)
        return gw_fail(err, -EPROTO, "message of %zu bytes, a header has %d", bytes,
                       GW_MESSAGE_HEADER_BYTES);
    uint16_t type = gw_be16_load(at);
    uint16_t flags = gw_be16_load(at + 2);
    const struct gw_message_def *def = gw_message_def(type);
    if (!def)
        return gw_fail(err, -EPROTO, "unknown message type %u", (unsigned)type);
    if (flags & ~def->flags)
        return gw_fail(err, -EPROTO, "%s: unknown flags 0x%x", def->name,
                       (unsigned)(flags & ~def->flags));
    if (gw_be32_load(at + 4) != 0)
        return gw_fail(err, -EPROTO, "%s: reserved bytes of the header are not zero", def->name);
    int rc = check_length(def, bytes - GW_MESSAGE_HEADER_BYTES, err);
    if (rc < 0)
        return rc;
    msg->type = def->type;
    msg->flags = flags;
    struct body body = {.at = at + GW_MESSAGE_HEADER_BYTES,
                        .left = bytes - GW_MESSAGE_HEADER_BYTES,
                        .name = def->name,
                        .err = err};
    rc = take_body(&body, msg);
    if (rc == 0 && body.left != 0)
        return gw_fail(err, -EPROTO, "%s: %zu bytes too many", def->name, body.left);
    return rc;
}
