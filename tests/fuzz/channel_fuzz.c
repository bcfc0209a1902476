// SPDX-License-Identifier: MIT
/* A channel on a real stream: frames as they come off a socket, messages both ways, credits, held
 * bytes, time that passes, a peer that does not read, and the end. The books are kept here a second
 * time, from the bytes of both directions: nothing is said or handed out beyond what was granted; a
 * failure says why and stays, and everything is freed. */
#include "control/channel.h"
#include "control/codec.h"
#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "tests/fuzz/wire.h"

/* One direction of the wire as its bytes say: what credit was granted there, what it cost. */
struct ledger {
    uint8_t bytes[GW_FRAME_HEAD_BYTES + 4200];
    size_t used, wanted; /* of the frame being read */
    bool is_broken;      /* no frame begins where one must: nothing behind it counts */
    uint64_t granted, spent;
};

struct rig {
    struct fuzz_wire wire;
    struct gw_channel *channel;
    uint64_t now_ns;
    uint64_t received; /* credited bytes that it handed out */
    uint64_t held;
    bool holds; /* what is received from now on */
    struct ledger in, out;
    int rc;
};

static void ledger_frame(struct ledger *ledger)
{
    const uint8_t *message = ledger->bytes + GW_FRAME_HEAD_BYTES;
    size_t bytes = ledger->wanted - GW_FRAME_HEAD_BYTES;
    if (ledger->bytes[2] != GW_FRAME_MESSAGE || bytes < GW_MESSAGE_HEADER_BYTES)
        return;
    enum gw_message_type type = (enum gw_message_type)gw_be16_load(message);
    if (type == GW_MSG_CREDIT && bytes == GW_MESSAGE_HEADER_BYTES + 8) {
        uint64_t granted = gw_be64_load(message + GW_MESSAGE_HEADER_BYTES);
        ledger->granted = granted > ledger->granted ? granted : ledger->granted;
    } else if (gw_message_is_credited(type)) {
        ledger->spent += bytes;
    }
}

static void ledger_read(struct ledger *ledger, const uint8_t *data, size_t count)
{
    for (size_t i = 0; i < count && !ledger->is_broken; i++) {
        struct gw_frame_head head;
        const char *why;
        ledger->bytes[ledger->used++] = data[i];
        if (ledger->used == GW_FRAME_HEAD_BYTES) {
            if (gw_frame_head_decode(ledger->bytes, 4096, &head, &why) < 0 || head.table_bytes)
                ledger->is_broken = true;
            ledger->wanted = GW_FRAME_HEAD_BYTES + head.payload_bytes;
        }
        if (ledger->used >= GW_FRAME_HEAD_BYTES && ledger->used == ledger->wanted) {
            ledger_frame(ledger);
            ledger->used = 0;
        }
    }
}

/* Says it to the channel, and keeps the books. */
static void say(struct rig *rig, const void *data, size_t bytes)
{
    ledger_read(&rig->in, data, bytes);
    fuzz_wire_write(&rig->wire, data, bytes);
}

static void drain_peer(struct rig *rig)
{
    uint8_t bytes[4096];
    ssize_t n;
    while (rig->wire.fd >= 0 && (n = recv(rig->wire.fd, bytes, sizeof(bytes), 0)) > 0)
        ledger_read(&rig->out, bytes, (size_t)n);
    /* What it said is covered by what it was granted: at first, and by the CREDITs it may have read. */
    uint64_t granted =
        rig->in.granted > GW_CHANNEL_GRANT_FIRST ? rig->in.granted : GW_CHANNEL_GRANT_FIRST;
    FUZZ_MUST(rig->in.is_broken || rig->out.spent <= granted);
}

static void failed(struct rig *rig, int rc, const struct gw_error *err)
{
    fuzz_refused(rc, err);
    FUZZ_MUST(err->place[0] != '\0');
    FUZZ_MUST(rig->rc == 0 || rig->rc == rc);
    rig->rc = rc;
}

static void receive(struct rig *rig, unsigned times)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_message msg;
    for (unsigned i = 0; i < times; i++) {
        gw_stream_of(rig->wire.ep)->rx.ready = true;
        int rc = gw_channel_recv(rig->channel, &msg, &err);
        if (rc < 0)
            failed(rig, rc, &err);
        if (rc <= 0)
            return;
        uint8_t head[GW_MESSAGE_HEAD_BYTES_MAX];
        struct gw_span tail;
        ssize_t bytes = gw_message_encode_head(&msg, head, &tail);
        FUZZ_MUST(bytes > 0);
        rig->received += (uint64_t)bytes + tail.bytes;
        if (rig->holds) {
            gw_channel_hold(rig->channel, tail.bytes);
            rig->held += tail.bytes;
        }
    }
}

/* What it handed out is covered by what it granted, all of which the peer has read by now. */
static void expect_in_credit(struct rig *rig)
{
    if (rig->rc < 0 || !gw_channel_is_flushed(rig->channel))
        return; /* a CREDIT may wait, or is lost with the connection */
    drain_peer(rig);
    uint64_t granted =
        rig->out.granted > GW_CHANNEL_GRANT_FIRST ? rig->out.granted : GW_CHANNEL_GRANT_FIRST;
    FUZZ_MUST(rig->wire.fd < 0 || rig->out.is_broken || rig->received <= granted);
}

/* A frame around a body that the input brings, or one of a type with a body of zeros. */
static void frame(struct rig *rig, struct fuzz_input *in, uint8_t what)
{
    uint8_t bytes[GW_FRAME_HEAD_BYTES + 4200] = {0};
    uint8_t *message = bytes + GW_FRAME_HEAD_BYTES;
    size_t length;
    const struct gw_message_def *def = gw_message_def_at(fuzz_u8(in) % 25);
    if (def) {
        gw_be16_store(message, (uint16_t)def->type);
        gw_be16_store(message + 2, what & 16 ? def->flags : 0);
        length = GW_MESSAGE_HEADER_BYTES + def->body_min;
        if (def->type == GW_MSG_STREAM)
            length += (size_t)fuzz_u8(in) * 16 + 1;
        struct fuzz_input body = fuzz_piece(in, what & 32 ? def->body_min : 0);
        if (body.left)
            memcpy(message + GW_MESSAGE_HEADER_BYTES, body.at, body.left);
    } else {
        struct fuzz_input body = fuzz_piece(in, fuzz_u8(in));
        length = body.left;
        if (length)
            memcpy(message, body.at, length);
    }
    struct gw_frame_head head = {.kind = GW_FRAME_MESSAGE, .payload_bytes = (uint32_t)length};
    gw_frame_head_encode(&head, bytes);
    say(rig, bytes, GW_FRAME_HEAD_BYTES + length);
}

static void send_one(struct rig *rig, struct fuzz_input *in)
{
    static const uint8_t zeros[4096];
    uint8_t what = fuzz_u8(in);
    struct gw_message msg = {.type = what & 1 ? GW_MSG_STREAM : GW_MSG_JOINED};
    if (what & 1) {
        msg.u.data.data = zeros;
        msg.u.data.bytes = 1 + (size_t)what * 16;
    }
    int rc = gw_channel_send(rig->channel, &msg);
    FUZZ_MUST(rc <= 0 && rc != -EINVAL);
    if (what & 1 && !gw_channel_has_room(rig->channel, GW_MESSAGE_HEADER_BYTES + msg.u.data.bytes))
        FUZZ_MUST(rig->rc < 0 || rc <= 0);
}

static void act(struct rig *rig, struct fuzz_input *in)
{
    struct gw_error err = GW_ERROR_INIT;
    uint8_t what = fuzz_u8(in);
    struct fuzz_input piece;
    int rc;
    switch (what % 8) {
    case 0:
    case 1:
        frame(rig, in, what);
        break;
    case 2:
        piece = fuzz_piece(in, 1 + what / 8);
        say(rig, piece.at, piece.left);
        break;
    case 3:
        receive(rig, 1 + what / 8);
        break;
    case 4:
        rig->now_ns += (uint64_t)(what / 8) * what * GW_NS_PER_MS;
        rc = gw_channel_step(rig->channel, rig->now_ns, &err);
        if (rc < 0)
            failed(rig, rc, &err);
        FUZZ_MUST(gw_channel_wake_ns(rig->channel) <= rig->now_ns + 2 * GW_NS_PER_S);
        break;
    case 5:
        send_one(rig, in);
        break;
    case 6:
        drain_peer(rig);
        break;
    default:
        if (what >= 0xf8 && rig->wire.fd >= 0) {
            close(rig->wire.fd);
            rig->wire.fd = -1;
        } else if (rig->holds) {
            gw_channel_release(rig->channel, rig->held);
            rig->held = 0;
        }
        rig->holds = !rig->holds;
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static const struct {
        uint16_t index;
        enum gw_channel_side side;
    } ends[] = {{0, GW_CHANNEL_ANY_SIDE},
                {0, GW_CHANNEL_SOURCE},
                {0, GW_CHANNEL_TARGET},
                {1, GW_CHANNEL_TARGET},
                {1, GW_CHANNEL_SOURCE}};
    struct fuzz_input in = {data, bytes};
    struct gw_error err = GW_ERROR_INIT;
    struct rig rig = {.now_ns = GW_NS_PER_S};
    int64_t live = gw_alloc_live();
    uint8_t end = fuzz_u8(&in) % 5;
    fuzz_wire_open(&rig.wire, ends[end].index, NULL, NULL);
    struct gw_channel_config config = {.ep = rig.wire.ep,
                                       .side = ends[end].side,
                                       .window_bytes = 1, /* the smallest there is */
                                       .queue_bytes_max = 16384};
    rig.channel = gw_channel_new(&config, &err);
    FUZZ_MUST(rig.channel != NULL);
    while (in.left > 0)
        act(&rig, &in);
    receive(&rig, 1000);
    expect_in_credit(&rig);
    gw_channel_free(rig.channel);
    fuzz_wire_close(&rig.wire);
    gw_stream_domain_close(rig.wire.dom);
    FUZZ_MUST(gw_alloc_live() == live);
    return 0;
}
