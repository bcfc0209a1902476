// SPDX-License-Identifier: MIT
/* Channels, on a wire of this file's own: two endpoints in memory whose room, silence and end the
 * test decides, and a clock that it moves. The last test does without it: a unix wire of
 * transport/. */
#include "control/channel.h"

#include "core/base/alloc.h"
#include "tests/unit/control/samples.h"
#include "transport/ops.h"

#include <pthread.h>
#include <unistd.h>

/* ---- a wire in memory ------------------------------------------------------------------------ */

#define FRAMES_MAX 4096

struct frame {
    size_t bytes;
    uint8_t *data;
};

struct pipe_ep {
    struct gw_endpoint base;
    struct pipe_ep *peer;
    struct frame in[FRAMES_MAX]; /* arrived, not read */
    unsigned in_first, in_count;
    unsigned room;    /* messages that the wire still takes */
    bool is_buffered; /* the wire has taken bytes that have not left */
    uint16_t index;
    uint32_t flags;
    int send_rc, recv_rc; /* final errors; recv_rc after what has arrived */
    uint64_t rx_bytes, tx_bytes;
};

static int pipe_send(struct gw_endpoint *base, const struct iovec *iov, int count)
{
    struct pipe_ep *ep = (struct pipe_ep *)base;
    struct pipe_ep *to = ep->peer;
    size_t bytes = 0;
    if (ep->send_rc)
        return ep->send_rc;
    if (ep->room == 0 || to->in_count == FRAMES_MAX)
        return -EAGAIN;
    for (int i = 0; i < count; i++)
        bytes += iov[i].iov_len;
    struct frame *frame = &to->in[(to->in_first + to->in_count++) % FRAMES_MAX];
    *frame = (struct frame){.bytes = bytes, .data = malloc(bytes)};
    for (int i = 0, at = 0; i < count; at += (int)iov[i].iov_len, i++)
        memcpy(frame->data + at, iov[i].iov_base, iov[i].iov_len);
    ep->room--;
    ep->tx_bytes += bytes;
    return 0;
}

static ssize_t pipe_recv(struct gw_endpoint *base, void *buf, size_t bytes)
{
    struct pipe_ep *ep = (struct pipe_ep *)base;
    if (ep->in_count == 0)
        return ep->recv_rc ? ep->recv_rc : -EAGAIN;
    struct frame frame = ep->in[ep->in_first];
    ep->in_first = (ep->in_first + 1) % FRAMES_MAX;
    ep->in_count--;
    GW_ASSERT_LE(frame.bytes, bytes);
    memcpy(buf, frame.data, frame.bytes);
    free(frame.data);
    ep->rx_bytes += frame.bytes;
    return (ssize_t)frame.bytes;
}

static void pipe_query(const struct gw_endpoint *base, struct gw_ep_attr *attr)
{
    const struct pipe_ep *ep = (const struct pipe_ep *)base;
    attr->message_bytes_max = GW_MESSAGE_BYTES_DEFAULT;
    attr->index = ep->index;
    attr->flags = ep->flags;
    attr->rx_bytes = ep->rx_bytes;
    attr->tx_bytes = ep->tx_bytes;
    attr->tx_pending = ep->is_buffered;
    strcpy(attr->peer, "pipe:");
}

static int pipe_error(const struct gw_endpoint *base, struct gw_error *error)
{
    (void)base;
    (void)error;
    return 0;
}

static const struct gw_transport_ops pipe_ops = {.scheme = "pipe",
                                                 .query = pipe_query,
                                                 .error = pipe_error,
                                                 .send = pipe_send,
                                                 .recv = pipe_recv};

/* ---- the pair -------------------------------------------------------------------------------- */

static struct pipe_ep ep_a, ep_b;
static struct gw_channel *a, *b; /* a: source, b: target */
static struct gw_error err;
static struct gw_message got;
static uint64_t now_ns;
static int64_t live_before;

#define T GW_NS_PER_S /* of the peer time-out, in these tests 2 s */

static uint64_t fake_clock(void)
{
    return now_ns;
}

static struct gw_channel *new_channel(struct pipe_ep *ep, uint64_t window, uint64_t queue)
{
    struct gw_channel_config config = {.ep = &ep->base,
                                       .side = ep == &ep_a ? GW_CHANNEL_SOURCE : GW_CHANNEL_TARGET,
                                       .window_bytes = window,
                                       .queue_bytes_max = queue};
    struct gw_channel *channel = gw_channel_new(&config, &err);
    GW_ASSERT(channel);
    return channel;
}

static void begin_on(uint16_t index, uint64_t window, uint64_t queue)
{
    live_before = gw_alloc_live();
    err = (struct gw_error)GW_ERROR_INIT;
    now_ns = 1000 * T;
    gw_clock_set_source(fake_clock);
    ep_a = (struct pipe_ep){.base = {&pipe_ops}, .peer = &ep_b, .room = UINT32_MAX, .index = index};
    ep_b = (struct pipe_ep){.base = {&pipe_ops}, .peer = &ep_a, .room = UINT32_MAX, .index = index};
    a = new_channel(&ep_a, window, queue);
    b = new_channel(&ep_b, window, queue);
}

static void begin(void)
{
    begin_on(0, 0, 0);
}

static void drop_frames(struct pipe_ep *ep)
{
    for (; ep->in_count > 0; ep->in_count--) {
        free(ep->in[ep->in_first].data);
        ep->in_first = (ep->in_first + 1) % FRAMES_MAX;
    }
}

static void end(void)
{
    gw_channel_free(a);
    gw_channel_free(b);
    drop_frames(&ep_a);
    drop_frames(&ep_b);
    gw_clock_set_source(NULL);
    GW_EXPECT_EQ(gw_alloc_live(), live_before);
}

static int step(struct gw_channel *channel)
{
    return gw_channel_step(channel, now_ns, &err);
}

/* Both sides step and read until nothing moves. */
static void settle(void)
{
    for (int i = 0; i < 4; i++) {
        GW_ASSERT_EQ(step(a), 0);
        GW_ASSERT_EQ(step(b), 0);
        GW_ASSERT_EQ(gw_channel_recv(a, &got, &err), 0);
        GW_ASSERT_EQ(gw_channel_recv(b, &got, &err), 0);
    }
}

static int send_stream(struct gw_channel *channel, size_t bytes)
{
    static uint8_t data[GW_PAYLOAD_BYTES_MAX];
    struct gw_message msg = {.type = GW_MSG_STREAM};
    msg.u.data = (struct gw_span){data, bytes};
    return gw_channel_send(channel, &msg);
}

static int send_number(struct gw_channel *channel, enum gw_message_type type, uint32_t number)
{
    struct gw_message msg = {.type = type};
    msg.u.number = number;
    return gw_channel_send(channel, &msg);
}

/* A message that the codec would not make, or not now. */
static void inject(struct pipe_ep *from, enum gw_message_type type, uint64_t value, size_t body)
{
    uint8_t buf[64] = {0};
    gw_be16_store(buf, (uint16_t)type);
    gw_be64_store(buf + 8, value);
    struct iovec iov = {buf, 8 + body};
    GW_ASSERT_EQ(pipe_send(&from->base, &iov, 1), 0);
}

static unsigned receive_all(struct gw_channel *channel)
{
    unsigned count = 0;
    int rc;
    while ((rc = gw_channel_recv(channel, &got, &err)) > 0)
        count++;
    GW_EXPECT_EQ(rc, 0);
    return count;
}

/* ---- messages -------------------------------------------------------------------------------- */

GW_TEST(channel, messages_arrive_in_order_and_whole)
{
    begin();
    settle();
    GW_EXPECT_EQ(send_stream(a, 100), 0);
    GW_EXPECT_EQ(send_stream(a, GW_PAYLOAD_BYTES_MAX), 0);
    GW_EXPECT_EQ(send_number(b, GW_MSG_JOINED, 7), 0);
    GW_ASSERT_EQ(gw_channel_recv(b, &got, &err), 1);
    GW_EXPECT_EQ(got.u.data.bytes, 100);
    GW_ASSERT_EQ(gw_channel_recv(b, &got, &err), 1);
    GW_EXPECT_EQ(got.u.data.bytes, GW_PAYLOAD_BYTES_MAX);
    GW_EXPECT_EQ(gw_channel_recv(b, &got, &err), 0);
    GW_ASSERT_EQ(gw_channel_recv(a, &got, &err), 1);
    GW_EXPECT_EQ(got.type, GW_MSG_JOINED);
    GW_EXPECT_EQ(got.u.number, 7);
    end();
}

GW_TEST(channel, what_the_wire_does_not_take_waits_in_order)
{
    begin();
    settle();
    ep_b.room = 1;
    for (uint32_t i = 0; i < 5; i++)
        GW_EXPECT_EQ(send_number(b, GW_MSG_JOINED, i), 0);
    GW_EXPECT(gw_channel_is_queued(b));
    GW_EXPECT(!gw_channel_is_flushed(b));
    GW_EXPECT_EQ(receive_all(a), 1);
    ep_b.room = UINT32_MAX;
    GW_EXPECT_EQ(step(b), 0);
    GW_EXPECT(!gw_channel_is_queued(b));
    GW_EXPECT(gw_channel_is_flushed(b));
    for (uint32_t i = 1; i < 5; i++) {
        GW_ASSERT_EQ(gw_channel_recv(a, &got, &err), 1);
        GW_EXPECT_EQ(got.u.number, i);
    }
    ep_b.is_buffered = true;
    GW_EXPECT(!gw_channel_is_flushed(b));
    end();
}

GW_TEST(channel, our_own_mistakes_change_nothing)
{
    struct gw_message msg = {.type = GW_MSG_HEARTBEAT};
    begin();
    GW_EXPECT_EQ(gw_channel_send(a, &msg), -EINVAL);
    msg.type = (enum gw_message_type)1000;
    GW_EXPECT_EQ(gw_channel_send(a, &msg), -EINVAL);
    msg.type = GW_MSG_WISHES;
    GW_EXPECT_EQ(gw_channel_send(a, &msg), -EINVAL);
    GW_EXPECT_EQ(ep_b.in_count, 0);
    GW_EXPECT_EQ(step(a), 0);
    end();
}

GW_TEST(channel, a_last_message_stays_valid_while_a_failing_send_drains)
{
    begin();
    settle();
    GW_EXPECT_EQ(send_number(b, GW_MSG_JOINED, 1), 0);
    GW_EXPECT_EQ(send_stream(a, 500), 0);
    GW_EXPECT_EQ(send_stream(a, 600), 0);
    GW_ASSERT_EQ(gw_channel_recv(b, &got, &err), 1);
    const uint8_t *data = got.u.data.data;
    uint8_t before[500];
    memcpy(before, data, 500);
    ep_b.send_rc = -EPIPE;
    GW_EXPECT_EQ(send_number(b, GW_MSG_JOINED, 2), -EPIPE);
    GW_EXPECT_MEMEQ(data, before, 500);
    GW_ASSERT_EQ(gw_channel_recv(b, &got, &err), 1); /* what had arrived is still handed out */
    GW_EXPECT_EQ(got.u.data.bytes, 600);
    GW_EXPECT_EQ(gw_channel_recv(b, &got, &err), -EPIPE);
    GW_EXPECT_EQ(err.code, GW_CODE_PEER_LOST);
    GW_EXPECT_EQ(step(b), -EPIPE);
    GW_EXPECT_EQ(send_number(b, GW_MSG_JOINED, 3), -EPIPE);
    end();
}

GW_TEST(channel, a_commit_that_arrived_counts_though_the_peer_is_gone)
{
    struct gw_message commit = {.type = GW_MSG_COMMIT};
    begin();
    settle();
    commit.u.token = sample_token();
    GW_EXPECT_EQ(gw_channel_send(a, &commit), 0);
    ep_b.send_rc = -ECONNRESET;
    ep_b.recv_rc = -ECONNRESET;
    now_ns += T; /* a heartbeat is due, and fails */
    GW_EXPECT_EQ(step(b), -ECONNRESET);
    GW_ASSERT_EQ(gw_channel_recv(b, &got, &err), 1);
    GW_EXPECT_EQ(got.type, GW_MSG_COMMIT);
    GW_EXPECT_EQ(gw_channel_recv(b, &got, &err), -ECONNRESET);
    GW_EXPECT_STREQ(err.message, "the peer closed the connection");
    GW_EXPECT_STREQ(err.place, "pipe: endpoint 0");
    end();
}

GW_TEST(channel, garbage_is_final_and_explained)
{
    begin();
    inject(&ep_a, (enum gw_message_type)999, 0, 0);
    GW_EXPECT_EQ(gw_channel_recv(b, &got, &err), -EPROTO);
    GW_EXPECT_STREQ(err.message, "unknown message type 999");
    GW_EXPECT_EQ(gw_channel_recv(b, &got, &err), -EPROTO);
    GW_EXPECT_EQ(step(b), -EPROTO);
    end();
}

GW_TEST(channel, messages_out_of_place_are_refused)
{
    begin();
    inject(&ep_a, GW_MSG_JOINED, 0, 4); /* a source joins nothing */
    GW_EXPECT_EQ(gw_channel_recv(b, &got, &err), -EPROTO);
    GW_EXPECT_STREQ(err.message, "JOINED from a source");
    inject(&ep_b, GW_MSG_FENCE, 0, 4);
    GW_EXPECT_EQ(gw_channel_recv(a, &got, &err), -EPROTO);
    GW_EXPECT_STREQ(err.message, "FENCE on a control endpoint");
    end();
    begin_on(1, 0, 0);
    inject(&ep_a, GW_MSG_COMMIT, 0, 24);
    GW_EXPECT_EQ(gw_channel_recv(b, &got, &err), -EPROTO);
    GW_EXPECT_STREQ(err.message, "COMMIT on a page endpoint");
    end();
}

/* ---- credits --------------------------------------------------------------------------------- */

GW_TEST(channel, the_first_grant_holds_before_any_credit)
{
    begin();
    size_t most = GW_CHANNEL_GRANT_FIRST - GW_MESSAGE_HEADER_BYTES;
    GW_EXPECT_EQ(send_stream(a, most), 0);
    GW_EXPECT(!gw_channel_is_queued(a));
    GW_EXPECT_EQ(send_number(a, GW_MSG_HEARTBEAT, 0), -EINVAL);
    GW_EXPECT_EQ(send_stream(a, 1), 0);
    GW_EXPECT(gw_channel_is_queued(a));
    GW_EXPECT_EQ(ep_b.in_count, 1);
    end();
}

GW_TEST(channel, credits_block_and_resume)
{
    const size_t message = (64 << 10) + GW_MESSAGE_HEADER_BYTES;
    const uint64_t window = UINT64_C(2) << 20;
    begin_on(0, window, UINT64_C(64) << 20);
    settle();
    unsigned sent = 0;
    while (!gw_channel_is_queued(a)) {
        GW_ASSERT_EQ(send_stream(a, 64 << 10), 0);
        sent++;
    }
    GW_EXPECT_EQ(sent - 1, window / message); /* one waits */
    GW_EXPECT_EQ(receive_all(b), sent - 1);
    GW_EXPECT_EQ(step(b), 0);
    GW_EXPECT(gw_channel_is_queued(a));
    GW_EXPECT_EQ(gw_channel_recv(a, &got, &err), 0); /* takes the CREDIT and sends */
    GW_EXPECT(!gw_channel_is_queued(a));
    GW_EXPECT_EQ(receive_all(b), 1);
    end();
}

GW_TEST(channel, a_grant_comes_with_each_quarter_of_the_window)
{
    const uint64_t window = UINT64_C(4) << 20;
    begin_on(0, window, 0);
    settle();
    GW_ASSERT_EQ(send_stream(a, (1 << 20) - 2 * GW_MESSAGE_HEADER_BYTES), 0);
    GW_EXPECT_EQ(receive_all(b), 1);
    GW_EXPECT_EQ(step(b), 0);
    GW_EXPECT_EQ(ep_a.in_count, 0); /* 8 bytes short of a quarter */
    GW_ASSERT_EQ(send_stream(a, 1), 0);
    GW_EXPECT_EQ(receive_all(b), 1);
    GW_EXPECT_EQ(step(b), 0);
    GW_EXPECT_EQ(ep_a.in_count, 1);
    end();
}

GW_TEST(channel, held_bytes_are_granted_when_released)
{
    const uint64_t window = UINT64_C(2) << 20;
    const size_t message = (1 << 20) + GW_MESSAGE_HEADER_BYTES;
    begin_on(0, window, 0);
    settle();
    GW_ASSERT_EQ(send_stream(a, 1 << 20), 0);
    GW_ASSERT_EQ(gw_channel_recv(b, &got, &err), 1);
    gw_channel_hold(b, message);
    GW_EXPECT_EQ(step(b), 0);
    GW_EXPECT_EQ(ep_a.in_count, 0);
    GW_ASSERT_EQ(send_stream(a, 1 << 20), 0);
    GW_EXPECT(gw_channel_is_queued(a));
    gw_channel_release(b, message);
    GW_EXPECT_EQ(step(b), 0);
    GW_EXPECT_EQ(ep_a.in_count, 1);
    GW_EXPECT_EQ(gw_channel_recv(a, &got, &err), 0);
    GW_EXPECT(!gw_channel_is_queued(a));
    end();
}

GW_TEST(channel, a_peer_beyond_its_credit_is_refused)
{
    begin();
    for (int i = 0; i < 2731; i++) /* 24 bytes each: 65544 */
        inject(&ep_a, GW_MSG_STREAM, 0, 16);
    GW_EXPECT_EQ(receive_all(b), 2731); /* a CREDIT left before the first was read */
    end();

    begin();
    ep_b.room = 0;
    for (int i = 0; i < 2731; i++)
        inject(&ep_a, GW_MSG_STREAM, 0, 16);
    int count = 0;
    int rc;
    while ((rc = gw_channel_recv(b, &got, &err)) > 0)
        count++;
    GW_EXPECT_EQ(rc, -EPROTO);
    GW_EXPECT_EQ(count, 2730);
    GW_EXPECT_STREQ(err.message,
                    "STREAM of 24 bytes is beyond its credit: 65520 of 65536 bytes were used");
    end();
}

GW_TEST(channel, credit_may_not_shrink)
{
    begin();
    inject(&ep_a, GW_MSG_CREDIT, GW_CHANNEL_GRANT_FIRST, 8);
    inject(&ep_a, GW_MSG_CREDIT, UINT64_MAX, 8);
    GW_EXPECT_EQ(gw_channel_recv(b, &got, &err), 0);
    inject(&ep_a, GW_MSG_CREDIT, UINT64_MAX - 1, 8);
    GW_EXPECT_EQ(gw_channel_recv(b, &got, &err), -EPROTO);
    end();
}

GW_TEST(channel, a_window_takes_the_longest_message)
{
    begin_on(0, 1, 0); /* asked for one byte */
    settle();
    GW_EXPECT_EQ(send_stream(a, GW_PAYLOAD_BYTES_MAX), 0);
    GW_EXPECT_EQ(receive_all(b), 1);
    end();
}

/* ---- the queue ------------------------------------------------------------------------------- */

GW_TEST(channel, only_bulk_sees_a_full_queue)
{
    struct gw_message commit = {.type = GW_MSG_COMMIT};
    unsigned sent = 0;
    int rc;
    begin_on(0, 0, 1 << 20);
    settle();
    ep_a.room = 0;
    GW_EXPECT(gw_channel_has_room(a, 2 << 20)); /* one message always fits */
    while ((rc = send_stream(a, 64 << 10)) == 0)
        sent++;
    GW_EXPECT_EQ(rc, -EAGAIN);
    GW_EXPECT_EQ(sent, 15);
    GW_EXPECT(!gw_channel_has_room(a, (64 << 10) + GW_MESSAGE_HEADER_BYTES));
    GW_EXPECT(gw_channel_has_room(a, 1024));
    for (int i = 0; i < 100; i++)
        GW_EXPECT_EQ(gw_channel_send(a, &commit), 0);
    GW_EXPECT_EQ(send_stream(a, 64 << 10), -EAGAIN);
    ep_a.room = UINT32_MAX;
    GW_EXPECT_EQ(send_stream(a, 64 << 10), 0);
    GW_EXPECT_EQ(receive_all(b), 116);
    end();
}

GW_TEST(channel, a_peer_that_takes_nothing_is_given_up)
{
    int rc = 0;
    unsigned sent = 0;
    begin_on(0, 0, 4096);
    settle();
    ep_b.room = 0;
    for (; sent < 1000000 && rc == 0; sent++)
        rc = send_number(b, GW_MSG_JOINED, sent);
    GW_EXPECT_EQ(rc, -ENOBUFS);
    GW_EXPECT_LT(sent, 100000);
    GW_EXPECT_EQ(step(b), -ENOBUFS);
    GW_EXPECT(strstr(err.message, "the peer takes no messages") != NULL);
    end();
}

GW_TEST(channel, a_zero_is_never_queued)
{
    struct gw_message zero;
    uint8_t entries[SAMPLE_BYTES_MAX];
    begin_on(1, 0, 0);
    settle();
    sample_message(GW_MSG_ZERO, &zero, entries);
    ep_a.room = 0;
    GW_EXPECT_EQ(gw_channel_send(a, &zero), -EAGAIN);
    GW_EXPECT(!gw_channel_is_queued(a));
    GW_EXPECT_EQ(send_number(a, GW_MSG_FENCE, 1), 0); /* a fence waits: it may be late */
    ep_a.room = 1;
    GW_EXPECT_EQ(gw_channel_send(a, &zero), -EAGAIN); /* the fence took the place */
    ep_a.room = 1;
    GW_EXPECT_EQ(gw_channel_send(a, &zero), 0);
    GW_ASSERT_EQ(gw_channel_recv(b, &got, &err), 1);
    GW_EXPECT_EQ(got.type, GW_MSG_FENCE);
    GW_ASSERT_EQ(gw_channel_recv(b, &got, &err), 1);
    GW_EXPECT_EQ(got.type, GW_MSG_ZERO);
    end();
}

GW_TEST(channel, heartbeat_and_credit_pass_the_queue)
{
    begin();
    settle();
    /* a waits for credit, b has much to grant: neither waits for the other for ever. */
    while (!gw_channel_is_queued(a))
        GW_ASSERT_EQ(send_stream(a, 1 << 20), 0);
    drop_frames(&ep_b);
    now_ns += T / 2;
    GW_EXPECT_EQ(step(a), 0);
    now_ns += T / 2;
    GW_EXPECT_EQ(step(a), 0);
    GW_EXPECT_GE(ep_b.in_count, 1);
    GW_EXPECT_EQ(receive_all(b), 0); /* heartbeats */
    end();
}

GW_TEST(channel, out_of_memory_loses_nothing)
{
    begin();
    settle();
    ep_a.room = 0;
    gw_alloc_fail_after(0);
    GW_EXPECT_EQ(send_stream(a, 10), -ENOMEM);
    gw_alloc_fail_after(-1);
    GW_EXPECT_EQ(step(a), 0);
    GW_EXPECT_EQ(send_stream(a, 10), 0);
    for (int i = 0; i < 2; i++) {
        struct gw_channel_config config = {.ep = &ep_a.base};
        gw_alloc_fail_after(i);
        GW_EXPECT(gw_channel_new(&config, &err) == NULL);
        gw_alloc_fail_after(-1);
        GW_EXPECT_EQ(err.rc, -ENOMEM);
    }
    end();
}

/* ---- time ------------------------------------------------------------------------------------ */

/* Step @channel whenever it asks to be, until @until_ns. Return: its first failure or 0. */
static int run(struct gw_channel *channel, uint64_t until_ns)
{
    for (;;) {
        int rc = step(channel);
        uint64_t wake_ns = gw_channel_wake_ns(channel);
        if (rc < 0)
            return rc;
        GW_ASSERT_GT(wake_ns, now_ns);
        if (wake_ns > until_ns) {
            now_ns = until_ns;
            return 0;
        }
        now_ns = wake_ns;
    }
}

GW_TEST(channel, silence_is_found_at_the_peer_time_out)
{
    begin();
    uint64_t start_ns = now_ns;
    GW_EXPECT_EQ(gw_channel_wake_ns(a), 0);
    GW_EXPECT_EQ(run(a, start_ns + 10 * T), -ETIMEDOUT);
    GW_EXPECT_EQ(now_ns - start_ns, 2 * T);
    GW_EXPECT_EQ(err.code, GW_CODE_PEER_SILENT);
    GW_EXPECT_STREQ(err.message, "the peer has been silent for 2000 ms");
    GW_EXPECT_EQ(gw_channel_recv(a, &got, &err), -ETIMEDOUT);
    end();
}

GW_TEST(channel, the_peer_time_out_can_be_set_later)
{
    begin();
    uint64_t start_ns = now_ns;
    gw_channel_set_peer_timeout(a, 100 * GW_NS_PER_MS);
    GW_EXPECT_EQ(run(a, start_ns + 10 * T), -ETIMEDOUT);
    GW_EXPECT_EQ(now_ns - start_ns, 100 * GW_NS_PER_MS);
    end();
}

GW_TEST(channel, heartbeats_keep_two_idle_peers_alive)
{
    begin();
    uint64_t start_ns = now_ns;
    unsigned beats = 0;
    GW_EXPECT_EQ(step(a), 0);
    while (now_ns < start_ns + 100 * T) {
        GW_ASSERT_EQ(step(a), 0);
        GW_ASSERT_EQ(step(b), 0);
        beats += ep_a.in_count;
        GW_ASSERT_EQ(gw_channel_recv(a, &got, &err), 0);
        GW_ASSERT_EQ(gw_channel_recv(b, &got, &err), 0);
        uint64_t wake_ns = gw_min_u64(gw_channel_wake_ns(a), gw_channel_wake_ns(b));
        GW_ASSERT_LE(wake_ns, now_ns + T / 2);
        now_ns = gw_max_u64(wake_ns, now_ns + 1);
    }
    GW_EXPECT_GE(beats, 100);
    GW_EXPECT_LE(beats, 210); /* every half second */
    end();
}

GW_TEST(channel, who_sends_anyway_does_not_beat)
{
    begin();
    settle();
    for (int i = 0; i < 40; i++) {
        now_ns += T / 4;
        ep_a.tx_bytes += 1000; /* puts */
        ep_a.rx_bytes++;
        GW_EXPECT_EQ(step(a), 0);
    }
    GW_EXPECT_EQ(ep_b.in_count, 0);
    end();
}

GW_TEST(channel, a_full_wire_gets_no_heartbeats)
{
    begin();
    settle();
    ep_a.is_buffered = true;
    for (int i = 0; i < 6; i++) {
        now_ns += T / 4;
        GW_EXPECT_EQ(step(a), 0);
        GW_EXPECT_GT(gw_channel_wake_ns(a), now_ns);
    }
    GW_EXPECT_EQ(ep_b.in_count, 0);
    end();
}

GW_TEST(channel, a_put_that_nobody_sees_is_no_sign_of_life)
{
    begin();
    gw_channel_free(a);
    ep_a.flags = GW_EP_ONE_SIDED;
    ep_a.is_buffered = true; /* with puts, for ever */
    a = new_channel(&ep_a, 0, 0);
    settle();
    for (int i = 0; i < 40; i++) {
        now_ns += T / 4;
        ep_a.tx_bytes += 1000;
        ep_a.rx_bytes++;
        GW_EXPECT_EQ(step(a), 0);
    }
    GW_EXPECT_GE(ep_b.in_count, 18); /* each half second */
    GW_EXPECT_LE(ep_b.in_count, 20);
    /* A message is one: whoever says those does not beat. */
    drop_frames(&ep_b);
    for (uint32_t i = 0; i < 40; i++) {
        now_ns += T / 4;
        ep_a.rx_bytes++;
        GW_EXPECT_EQ(send_stream(a, 1), 0);
        GW_EXPECT_EQ(step(a), 0);
    }
    GW_EXPECT_EQ(ep_b.in_count, 40);
    end();
}

GW_TEST(channel, who_was_hushed_neither_beats_nor_judges_nor_grants)
{
    begin();
    settle();
    gw_channel_hush(a);
    for (int i = 0; i < 40; i++) {
        now_ns += T;
        GW_EXPECT_EQ(step(a), 0);
        GW_EXPECT_EQ(gw_channel_wake_ns(a), GW_NEVER_NS);
    }
    GW_EXPECT_EQ(ep_b.in_count, 0);
    /* It still listens, and what the caller says leaves. */
    GW_EXPECT_EQ(send_number(b, GW_MSG_JOINED, 7), 0);
    GW_EXPECT_EQ(gw_channel_recv(a, &got, &err), 1);
    GW_EXPECT_EQ(send_stream(a, 1), 0);
    GW_EXPECT_EQ(ep_b.in_count, 1);
    end();
}

GW_TEST(channel, any_byte_counts_as_life)
{
    begin();
    for (int i = 0; i < 40; i++) {
        now_ns += T / 2;
        ep_a.rx_bytes++; /* a put's payload, read by the endpoint */
        GW_EXPECT_EQ(step(a), 0);
    }
    GW_EXPECT_EQ(run(a, now_ns + 10 * T), -ETIMEDOUT);
    end();
}

GW_TEST(channel, a_late_step_reads_before_it_judges)
{
    begin();
    settle();
    for (int i = 0; i < 20; i++) { /* b lives and beats, a does not get to run */
        now_ns += T / 2;
        ep_b.rx_bytes++;
        GW_EXPECT_EQ(step(b), 0);
    }
    GW_EXPECT_EQ(send_number(b, GW_MSG_JOINED, 5), 0);
    GW_EXPECT_GT(ep_a.in_count, 1);
    GW_EXPECT_EQ(step(a), 0);
    now_ns += T;
    GW_EXPECT_EQ(step(a), 0); /* 2 s counted: reads, and hears */
    GW_EXPECT_EQ(ep_a.in_count, 0);
    GW_EXPECT_LE(gw_channel_wake_ns(a), now_ns); /* the message it kept wants to be fetched */
    GW_ASSERT_EQ(gw_channel_recv(a, &got, &err), 1);
    GW_EXPECT_EQ(got.type, GW_MSG_JOINED);
    GW_EXPECT_EQ(got.u.number, 5);
    GW_EXPECT_EQ(gw_channel_recv(a, &got, &err), 0);
    end();
}

GW_TEST(channel, time_that_we_slept_through_condemns_nobody)
{
    begin();
    settle();
    now_ns += 3600 * T; /* the machine was suspended: nothing has arrived, of course */
    GW_EXPECT_EQ(step(a), 0);
    GW_EXPECT_EQ(run(a, now_ns + 10 * T),
                 -ETIMEDOUT); /* but half the time-out later it is silence */
    end();
}

GW_TEST(channel, a_message_read_ahead_is_not_granted_before_it_is_fetched)
{
    const uint64_t window = UINT64_C(2) << 20;
    begin_on(0, window, 0);
    settle();
    GW_ASSERT_EQ(send_stream(a, 1 << 20), 0);
    now_ns += T;
    GW_EXPECT_EQ(step(b), 0);
    drop_frames(&ep_a);
    now_ns += T;
    GW_EXPECT_EQ(step(b), 0); /* reads ahead */
    GW_EXPECT_EQ(ep_b.in_count, 0);
    GW_EXPECT_EQ(step(b), 0);
    for (unsigned i = 0; i < ep_a.in_count; i++)
        GW_EXPECT_EQ(gw_be16_load(ep_a.in[(ep_a.in_first + i) % FRAMES_MAX].data),
                     GW_MSG_HEARTBEAT);
    drop_frames(&ep_a);
    GW_EXPECT_EQ(receive_all(b), 1);
    GW_EXPECT_EQ(step(b), 0);
    GW_ASSERT_EQ(ep_a.in_count, 1);
    GW_EXPECT_EQ(gw_be16_load(ep_a.in[ep_a.in_first].data), GW_MSG_CREDIT);
    end();
}

GW_TEST(channel, a_flood_of_heartbeats_does_not_keep_recv)
{
    begin();
    for (int i = 0; i < 1000; i++)
        inject(&ep_a, GW_MSG_HEARTBEAT, 0, 0);
    GW_EXPECT_EQ(gw_channel_recv(b, &got, &err), 0);
    GW_EXPECT_GE(ep_b.in_count, 900);
    end();
}

/* ---- a real wire ----------------------------------------------------------------------------- */

static struct gw_domain *target_domain;

static enum gw_admission admit(void *ctx, const struct gw_preface *preface, struct gw_domain **dom,
                               struct gw_wire_config *config)
{
    (void)ctx;
    (void)preface;
    (void)config;
    *dom = target_domain;
    return GW_ADMIT_OK;
}

struct connecting {
    pthread_t thread;
    struct gw_domain *dom;
    struct gw_uri uri;
    struct gw_wire_config config;
    struct gw_endpoint *ep;
    struct gw_error err;
};

static void *connect_thread(void *ctx)
{
    struct connecting *c = ctx;
    GW_EXPECT_EQ(gw_connect(c->dom, &c->uri, &c->config, &c->ep, &c->err), 0);
    return NULL;
}

/* A connection's two ends; gw_connect() blocks until the other has taken it. */
static void connect_unix(struct connecting *c, struct gw_listener **ln, struct gw_endpoint **target)
{
    char text[64];
    int rc = 0;
    snprintf(text, sizeof(text), "unix:/tmp/gw-channel-test-%d", (int)getpid());
    c->config.session[0] = 1;
    GW_ASSERT_EQ(gw_uri_parse(text, &c->uri, &err), 0);
    GW_ASSERT_EQ(gw_domain_open("unix", &c->config, &c->dom, &err), 0);
    GW_ASSERT_EQ(gw_domain_open("unix", &c->config, &target_domain, &err), 0);
    GW_ASSERT_EQ(gw_listen(&c->uri, &c->config, ln, &err), 0);
    GW_ASSERT_EQ(pthread_create(&c->thread, NULL, connect_thread, c), 0);
    uint64_t stop_ns = gw_clock_ns() + 10 * GW_NS_PER_S;
    while (rc == 0 && gw_clock_ns() < stop_ns)
        rc = gw_accept(*ln, admit, NULL, target, &err);
    pthread_join(c->thread, NULL);
    GW_ASSERT_EQ(rc, 1);
    GW_ASSERT(c->ep);
}

GW_TEST(channel, carries_items_over_a_unix_wire)
{
    struct gw_listener *ln = NULL;
    struct gw_endpoint *target = NULL;
    static struct connecting c;
    err = (struct gw_error)GW_ERROR_INIT;
    connect_unix(&c, &ln, &target);
    struct gw_channel_config config = {.ep = c.ep, .side = GW_CHANNEL_SOURCE};
    struct gw_channel *from = gw_channel_new(&config, &err);
    config = (struct gw_channel_config){.ep = target, .side = GW_CHANNEL_TARGET};
    struct gw_channel *to = gw_channel_new(&config, &err);
    GW_ASSERT(from && to);
    unsigned sent = 0, received = 0;
    uint64_t stop_ns = gw_clock_ns() + 20 * GW_NS_PER_S;
    while (received < 32 && gw_clock_ns() < stop_ns) {
        if (sent < 32 && send_stream(from, GW_PAYLOAD_BYTES_MAX) == 0)
            sent++;
        GW_ASSERT_EQ(gw_channel_step(from, gw_clock_ns(), &err), 0);
        GW_ASSERT_EQ(gw_channel_step(to, gw_clock_ns(), &err), 0);
        GW_ASSERT_EQ(gw_channel_recv(from, &got, &err), 0);
        while (gw_channel_recv(to, &got, &err) > 0) {
            GW_EXPECT_EQ(got.u.data.bytes, GW_PAYLOAD_BYTES_MAX);
            received++;
        }
    }
    GW_EXPECT_EQ(received, 32);
    gw_ep_close(c.ep);
    int rc = 0;
    while (rc == 0 && gw_clock_ns() < stop_ns)
        rc = gw_channel_recv(to, &got, &err);
    GW_EXPECT_EQ(rc, -ECONNRESET);
    GW_EXPECT_EQ(err.code, GW_CODE_PEER_LOST);
    gw_channel_free(from);
    gw_channel_free(to);
    gw_ep_close(target);
    gw_listener_close(ln);
    gw_domain_close(c.dom);
    gw_domain_close(target_domain);
}
