// SPDX-License-Identifier: MIT
/* Contract: puts, messages, completions, and how an endpoint ends. The same facts on every wire. */
#include "tests/contract/wire_rig.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static uint32_t rig_flags(const struct gw_endpoint *ep)
{
    struct gw_ep_attr attr;
    gw_ep_query(ep, &attr);
    return attr.flags;
}

GW_TEST_EACH(wire, message_arrives_after_the_puts_before_it, gw_test_wires)
{
    struct rig rig;
    struct gw_put puts[RIG_MEMORY_BYTES / 4096];
    uint8_t *expected = calloc(1, RIG_MEMORY_BYTES);
    uint64_t seed = 42;
    rig_open(&rig, param);
    for (unsigned round = 0; round < 12; round++) {
        /* One put per page at most, of any length, in any order. */
        unsigned count = 0;
        uint64_t step = rig_random(&seed) % 1024 * 2 + 1;
        for (unsigned page = 0; page < RIG_MEMORY_BYTES / 4096; page++) {
            uint64_t at = page * step % (RIG_MEMORY_BYTES / 4096) * 4096;
            uint32_t skip = (uint32_t)(rig_random(&seed) % 4096);
            uint32_t bytes = (uint32_t)(rig_random(&seed) % (4096 - skip)) + 1;
            if (rig_random(&seed) % 4 == 0)
                continue;
            rig.local[at + skip] ^= (uint8_t)(round + 1);
            memcpy(expected + at + skip, rig.local + at + skip, bytes);
            puts[count++] = rig_put_at(&rig, at + skip, bytes, page);
        }
        GW_EXPECT_EQ(rig_put_all(&rig, puts, count), count);
        GW_EXPECT_EQ(rig_send(rig.source, &round, sizeof(round)), 0);
        unsigned heard = ~0u;
        GW_EXPECT_EQ(rig_recv(rig.target, rig.source, &heard, sizeof(heard)), sizeof(heard));
        GW_EXPECT_EQ(heard, round);
        if (!GW_EXPECT_MEMEQ(rig.guest, expected, RIG_MEMORY_BYTES))
            break;
    }
    struct gw_ep_attr attr;
    gw_ep_query(rig.target, &attr);
    if (attr.flags & GW_EP_ZERO_COPY)
        GW_EXPECT_EQ(attr.copied_bytes, 0);
    free(expected);
    rig_close(&rig);
}

GW_TEST_EACH(wire, puts_and_messages_keep_their_order, gw_test_wires)
{
    struct rig rig;
    uint64_t seed = 3;
    struct gw_completion done[64];
    rig_open(&rig, param);
    /* A put of one byte, then its message, many in line before anybody reads. */
    unsigned sent = 0;
    for (; sent < 200; sent++) {
        struct gw_put put = rig_put_at(&rig, sent, 1, sent);
        int n = gw_put(rig.source, &put, 1);
        if (n != 1 || gw_send(rig.source, &(struct iovec){&sent, sizeof(sent)}, 1) != 0)
            break;
        gw_poll(rig.source, done, (unsigned)(rig_random(&seed) % 64));
    }
    GW_EXPECT_GT(sent, 2);
    for (unsigned i = 0; i < sent; i++) {
        unsigned heard = ~0u;
        GW_EXPECT_EQ(rig_recv(rig.target, rig.source, &heard, sizeof(heard)), sizeof(heard));
        GW_EXPECT_EQ(heard, i);
        GW_EXPECT_MEMEQ(rig.guest, rig.local, i + 1);
    }
    rig_close(&rig);
}

GW_TEST_EACH(wire, an_accepted_put_completes_once, gw_test_wires)
{
    struct rig rig;
    struct gw_completion done[100];
    uint8_t seen[5000] = {0};
    unsigned first = 0, completed = 0;
    rig_open(&rig, param);
    while (completed < 5000) {
        struct gw_put puts[37];
        unsigned n = 0;
        for (; n < 37 && first + n < 5000; n++)
            puts[n] = rig_put_at(&rig, (first + n) * 1000, 1000, first + n);
        int put = gw_put(rig.source, puts, n);
        int got = gw_poll(rig.source, done, 100);
        GW_ASSERT(put >= 0 && got >= 0);
        first += (unsigned)put;
        for (int i = 0; i < got; i++) {
            GW_EXPECT_EQ(done[i].status, 0);
            GW_ASSERT_LT(done[i].cookie, 5000);
            seen[done[i].cookie]++;
        }
        completed += (unsigned)got;
        GW_ASSERT_EQ(gw_recv(rig.target, NULL, 0), -EAGAIN);
        if (put == 0 && got == 0)
            rig_doze(rig.source);
    }
    for (unsigned i = 0; i < 5000; i++)
        GW_EXPECT_EQ(seen[i], 1);
    GW_EXPECT_EQ(gw_poll(rig.source, done, 100), 0);
    rig_close(&rig);
}

#define IDLE_NS (250 * GW_NS_PER_MS)
#define IDLE_NAPS 12     /* nothing moved in so many, and for so long: it is full */
#define ACCEPTED_MAX 256 /* where a NIC takes them it never is */

/* Fill the window and the wire behind it, with a target that does not read, or until it ends. */
static unsigned put_until_full(struct rig *rig, unsigned *completed)
{
    struct gw_completion done[64];
    unsigned accepted = 0, naps = 0;
    uint64_t moved_ns = gw_clock_ns();
    *completed = 0;
    while (accepted < ACCEPTED_MAX && (naps < IDLE_NAPS || gw_clock_ns() - moved_ns < IDLE_NS)) {
        struct gw_put put = rig_put_at(rig, accepted % 8 << 20, 1u << 20, accepted);
        int n = gw_put(rig->source, &put, 1);
        int got = gw_poll(rig->source, done, 64);
        if (n < 0 || got < 0)
            break;
        accepted += (unsigned)n;
        *completed += (unsigned)got;
        naps++;
        if (n > 0 || got > 0) {
            naps = 0;
            moved_ns = gw_clock_ns();
        } else {
            rig_doze(rig->source);
        }
    }
    return accepted;
}

GW_TEST_EACH(wire, every_put_completes_when_the_peer_vanishes, gw_test_wires)
{
    rig_needs_lasting_peers(param);
    struct rig rig;
    struct gw_completion done[64];
    unsigned completed, flushed = 0;
    rig_open(&rig, param);
    unsigned accepted = put_until_full(&rig, &completed);
    bool one_sided = rig_flags(rig.source) & GW_EP_ONE_SIDED;
    if (!one_sided)                        /* where a NIC takes them nobody can hold them up */
        GW_EXPECT_GT(accepted, completed); /* something is under way */
    gw_ep_close(rig.target);
    rig.target = NULL;

    uint64_t deadline_ns = gw_clock_ns() + RIG_WAIT_NS;
    int got = 0;
    while (got >= 0 && gw_clock_ns() < deadline_ns) {
        got = gw_poll(rig.source, done, 64);
        for (int i = 0; i < got; i++)
            flushed += done[i].status < 0;
        completed += got > 0 ? (unsigned)got : 0;
        if (got == 0)
            rig_doze(rig.source);
    }
    GW_EXPECT_EQ(completed, accepted);
    if (!one_sided)
        GW_EXPECT_GT(flushed, 0);
    struct gw_error err = GW_ERROR_INIT;
    GW_EXPECT_LT(gw_ep_error(rig.source, &err), 0);
    GW_EXPECT_EQ(err.code, GW_CODE_PEER_LOST);
    GW_EXPECT(err.message[0] && err.place[0]);
    struct gw_put put = rig_put_at(&rig, 0, 1, 0);
    GW_EXPECT_LT(gw_put(rig.source, &put, 1), 0);
    rig_close(&rig);
}

GW_TEST_EACH(wire, close_with_puts_in_flight_releases_all, gw_test_wires)
{
    rig_needs_lasting_peers(param);
    struct rig rig;
    unsigned completed;
    rig_warm(param);
    unsigned before = rig_fd_count();
    rig_open(&rig, param);
    GW_EXPECT_GT(put_until_full(&rig, &completed), 0);
    gw_ep_close(rig.source);
    rig.source = NULL;
    memset(rig.local, 0xee, RIG_MEMORY_BYTES); /* ours again: nobody may mind */
    uint8_t none[1];
    GW_EXPECT_LT(rig_recv(rig.target, NULL, none, 0), 0);
    rig_close(&rig);
    GW_EXPECT_EQ(rig_fd_count(), before);
}

GW_TEST_EACH(wire, revoke_stops_puts, gw_test_wires)
{
    rig_needs_lasting_peers(param);
    struct rig rig;
    rig_open(&rig, param);
    struct gw_put put = rig_put_at(&rig, 0, 4096, 1);
    GW_EXPECT_EQ(rig_put_all(&rig, &put, 1), 1);
    GW_EXPECT_EQ(rig_send(rig.source, "a", 1), 0);
    uint8_t heard[8];
    GW_EXPECT_EQ(rig_recv(rig.target, rig.source, heard, sizeof(heard)), 1);
    GW_EXPECT_MEMEQ(rig.guest, rig.local, 4096);

    gw_ep_revoke(rig.target);
    for (unsigned i = 0; i < 16; i++) {
        put = rig_put_at(&rig, 4096 + i * 65536, 65536, i);
        if (gw_put(rig.source, &put, 1) < 1)
            break;
    }
    rig_doze(rig.source);
    GW_EXPECT_LT(rig_recv(rig.target, rig.source, heard, sizeof(heard)), 0);
    GW_EXPECT(rig_is_zero(rig.guest + 4096, RIG_MEMORY_BYTES - 4096));
    rig_close(&rig);
}

GW_TEST_EACH(wire, messages_pass_after_revoke, gw_test_stream_wires)
{
    struct rig rig;
    uint8_t heard[8];
    rig_open(&rig, param);
    gw_ep_revoke(rig.target);
    GW_EXPECT_EQ(rig_send(rig.source, "go", 2), 0);
    GW_EXPECT_EQ(rig_recv(rig.target, rig.source, heard, sizeof(heard)), 2);
    GW_EXPECT_EQ(rig_send(rig.target, "on", 2), 0);
    GW_EXPECT_EQ(rig_recv(rig.source, rig.target, heard, sizeof(heard)), 2);
    rig_close(&rig);
}

static void *run_shutdown(void *arg)
{
    gw_clock_poll(NULL, 0, gw_clock_ns() + 30 * GW_NS_PER_MS);
    gw_ep_shutdown(arg);
    return NULL;
}

GW_TEST_EACH(wire, shutdown_wakes_a_sleeping_owner, gw_test_wires)
{
    struct rig rig;
    pthread_t thread;
    uint8_t heard[8];
    rig_open(&rig, param);
    uint64_t start = gw_clock_ns();
    pthread_create(&thread, NULL, run_shutdown, rig.target);
    ssize_t n = -EAGAIN;
    while (n == -EAGAIN && gw_clock_ns() - start < RIG_WAIT_NS) {
        struct pollfd fds[2];
        uint64_t wake_ns = start + RIG_WAIT_NS;
        int count = gw_ep_arm(rig.target, fds, 2, &wake_ns);
        if (wake_ns != 0) {
            gw_clock_poll(fds, (unsigned)count, wake_ns);
            gw_ep_awake(rig.target, fds, (unsigned)count);
        }
        n = gw_recv(rig.target, heard, sizeof(heard));
    }
    pthread_join(thread, NULL);
    GW_EXPECT_EQ(n, -ESHUTDOWN);
    GW_EXPECT_LT(gw_clock_ns() - start, RIG_WAIT_NS / 2);
    struct gw_put put = rig_put_at(&rig, 0, 1, 0);
    GW_EXPECT_EQ(gw_put(rig.target, &put, 1), -ESHUTDOWN);
    GW_EXPECT_EQ(gw_send(rig.target, &(struct iovec){heard, 1}, 1), -ESHUTDOWN);
    struct gw_completion done;
    GW_EXPECT_EQ(gw_poll(rig.target, &done, 1), -ESHUTDOWN);
    GW_EXPECT_EQ(gw_ep_error(rig.target, NULL), -ESHUTDOWN);
    rig_close(&rig);
}

GW_TEST_EACH(wire, messages_of_every_length_arrive, gw_test_wires)
{
    static const size_t lengths[] = {
        0, 1, 15, 16, 17, 4095, 65536, 300000, 0, GW_MESSAGE_BYTES_DEFAULT, 3};
    struct rig rig;
    uint8_t *buf = malloc(GW_MESSAGE_BYTES_DEFAULT);
    rig_open(&rig, param);
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        GW_EXPECT_EQ(rig_send(rig.source, rig.local + i, lengths[i]), 0);
        GW_EXPECT_EQ(rig_recv(rig.target, rig.source, buf, GW_MESSAGE_BYTES_DEFAULT), lengths[i]);
        GW_EXPECT_MEMEQ(buf, rig.local + i, lengths[i]);
    }
    free(buf);
    rig_close(&rig);
}

GW_TEST_EACH(wire, many_small_messages_arrive_in_order, gw_test_wires)
{
    struct rig rig;
    unsigned sent = 0, heard = 0, value;
    rig_open(&rig, param);
    while (heard < 5000) {
        while (sent < 5000 && gw_send(rig.source, &(struct iovec){&sent, sizeof(sent)}, 1) == 0)
            sent++;
        ssize_t n = rig_recv(rig.target, rig.source, &value, sizeof(value));
        GW_ASSERT_EQ(n, sizeof(value));
        GW_ASSERT_EQ(value, heard);
        heard++;
    }
    rig_close(&rig);
}

GW_TEST_EACH(wire, a_message_that_is_too_long_is_refused_here, gw_test_wires)
{
    struct rig rig;
    uint8_t heard[8];
    struct gw_ep_attr attr;
    rig_open(&rig, param);
    gw_ep_query(rig.source, &attr);
    struct iovec iov[2] = {{rig.local, attr.message_bytes_max}, {rig.local, 1}};
    GW_EXPECT_EQ(gw_send(rig.source, iov, 2), -EMSGSIZE);
    iov[0].iov_len = SIZE_MAX;
    GW_EXPECT_EQ(gw_send(rig.source, iov, 2), -EMSGSIZE);
    /* and the endpoint is as it was */
    GW_EXPECT_EQ(gw_ep_error(rig.source, NULL), 0);
    GW_EXPECT_EQ(rig_send(rig.source, "ok", 2), 0);
    GW_EXPECT_EQ(rig_recv(rig.target, rig.source, heard, sizeof(heard)), 2);
    rig_close(&rig);
}

GW_TEST_EACH(wire, a_message_that_does_not_fit_the_buffer_is_final, gw_test_wires)
{
    struct rig rig;
    uint8_t heard[4];
    rig_open(&rig, param);
    GW_EXPECT_EQ(rig_send(rig.source, "12345", 5), 0);
    GW_EXPECT_EQ(rig_recv(rig.target, rig.source, heard, sizeof(heard)), -EMSGSIZE);
    GW_EXPECT_EQ(gw_recv(rig.target, heard, sizeof(heard)), -EMSGSIZE);
    rig_close(&rig);
}

GW_TEST_EACH(wire, a_put_outside_of_its_region_is_refused_here, gw_test_wires)
{
    struct rig rig;
    rig_open(&rig, param);
    struct gw_put put = rig_put_at(&rig, 0, 4096, 0);
    put.offset = RIG_MEMORY_BYTES - 4095;
    GW_EXPECT_EQ(gw_put(rig.source, &put, 1), -EINVAL);
    put.offset = UINT64_MAX - 1;
    GW_EXPECT_EQ(gw_put(rig.source, &put, 1), -EINVAL);
    put = rig_put_at(&rig, 0, 0, 0);
    GW_EXPECT_EQ(gw_put(rig.source, &put, 1), -EINVAL);
    GW_EXPECT_EQ(gw_ep_error(rig.source, NULL), 0);
    rig_close(&rig);
}

GW_TEST_EACH(wire, last_words_are_heard_after_the_peer_has_gone, gw_test_wires)
{
    rig_needs_last_words(param);
    struct rig rig;
    uint8_t heard[32];
    unsigned completed;
    rig_open(&rig, param);
    GW_EXPECT_EQ(rig_send(rig.target, "no memory", 9), 0);
    GW_EXPECT_EQ(rig_send(rig.target, "bye", 3), 0);
    rig_doze(rig.target);
    gw_ep_close(rig.target);
    rig.target = NULL;
    put_until_full(&rig, &completed); /* runs into the closed connection */
    GW_EXPECT_LT(gw_ep_error(rig.source, NULL), 0);
    GW_EXPECT_EQ(rig_recv(rig.source, NULL, heard, sizeof(heard)), 9);
    GW_EXPECT_EQ(rig_recv(rig.source, NULL, heard, sizeof(heard)), 3);
    GW_EXPECT_LT(rig_recv(rig.source, NULL, heard, sizeof(heard)), 0);
    rig_close(&rig);
}

/* Numbered messages of @bytes until the source holds some back, or refuses one. Returns how many. */
static unsigned send_until(struct rig *rig, size_t bytes, bool refused, uint8_t *buf)
{
    struct gw_ep_attr attr;
    unsigned sent = 0;
    for (; sent < 20000; sent++) {
        memcpy(buf, &sent, sizeof(sent));
        memset(buf + sizeof(sent), (int)sent, bytes - sizeof(sent));
        int rc = gw_send(rig->source, &(struct iovec){buf, bytes}, 1);
        if (rc == -EAGAIN && refused)
            return sent;
        GW_ASSERT_EQ(rc, 0);
        gw_ep_query(rig->source, &attr);
        if (attr.tx_pending && !refused)
            return sent + 1;
    }
    GW_FAIL("a peer that does not read is never felt");
}

static void expect_numbered(struct rig *rig, unsigned number, size_t bytes, uint8_t *buf)
{
    unsigned heard = ~0u;
    GW_ASSERT_EQ(rig_recv(rig->target, rig->source, buf, bytes), bytes);
    memcpy(&heard, buf, sizeof(heard));
    GW_ASSERT_EQ(heard, number);
    for (size_t i = sizeof(heard); i < bytes; i += 997)
        GW_ASSERT_EQ(buf[i], (uint8_t)number);
}

GW_TEST_EACH(wire, messages_to_a_deaf_peer_are_bounded_and_none_is_lost, gw_test_wires)
{
    struct rig rig;
    uint8_t *buf = malloc(70001);
    rig_open(&rig, param);
    unsigned sent = send_until(&rig, 70001, true, buf);
    GW_EXPECT_GT(sent, 2);
    for (unsigned i = 0; i < sent; i++)
        expect_numbered(&rig, i, 70001, buf);
    free(buf);
    rig_close(&rig);
}

GW_TEST_EACH(wire, what_waits_in_line_keeps_its_order, gw_test_wires)
{
    struct rig rig;
    struct gw_completion done[8];
    uint8_t *buf = malloc(50000);
    char heard[8] = "";
    rig_open(&rig, param);
    unsigned sent = send_until(&rig, 50000, false, buf);
    struct gw_put first = rig_put_at(&rig, 0, 4096, 1), second = rig_put_at(&rig, 4096, 4096, 2);
    GW_EXPECT_EQ(gw_put(rig.source, &first, 1), 1);
    GW_EXPECT_EQ(rig_send(rig.source, "one", 4), 0);
    GW_EXPECT_EQ(gw_put(rig.source, &second, 1), 1);
    GW_EXPECT_EQ(rig_send(rig.source, "two", 4), 0);
    /* A NIC puts while nobody looks: of it only what a message says is known. */
    bool looks = !(rig_flags(rig.source) & GW_EP_ONE_SIDED);
    for (unsigned i = 0; i < sent; i++)
        expect_numbered(&rig, i, 50000, buf);
    GW_EXPECT(!looks || rig_is_zero(rig.guest, RIG_MEMORY_BYTES));
    GW_EXPECT_EQ(rig_recv(rig.target, rig.source, heard, sizeof(heard)), 4);
    GW_EXPECT_STREQ(heard, "one");
    GW_EXPECT_MEMEQ(rig.guest, rig.local, 4096);
    GW_EXPECT(!looks || rig_is_zero(rig.guest + 4096, RIG_MEMORY_BYTES - 4096));
    GW_EXPECT_EQ(rig_recv(rig.target, rig.source, heard, sizeof(heard)), 4);
    GW_EXPECT_STREQ(heard, "two");
    GW_EXPECT_MEMEQ(rig.guest, rig.local, 8192);
    unsigned got = 0;
    for (uint64_t until_ns = gw_clock_ns() + RIG_WAIT_NS; got < 2 && gw_clock_ns() < until_ns;) {
        int n = gw_poll(rig.source, done + got, 8 - got);
        GW_ASSERT_GE(n, 0);
        got += (unsigned)n;
        if (n == 0)
            rig_doze(rig.source);
    }
    GW_EXPECT_EQ(got, 2);
    GW_EXPECT_EQ(done[0].cookie, 1);
    GW_EXPECT_EQ(done[1].cookie, 2);
    free(buf);
    rig_close(&rig);
}

GW_TEST_EACH(wire, a_put_that_has_not_left_is_flushed_too, gw_test_stream_wires)
{
    struct rig rig;
    struct gw_completion done[8];
    uint8_t heard[8];
    rig_open(&rig, param);
    gw_ep_close(rig.target);
    rig.target = NULL;
    struct gw_put put = rig_put_at(&rig, 0, 4096, 77);
    GW_ASSERT_EQ(gw_put(rig.source, &put, 1), 1);
    GW_EXPECT_LT(rig_recv(rig.source, NULL, heard, sizeof(heard)), 0);
    GW_EXPECT_EQ(gw_poll(rig.source, done, 8), 1);
    GW_EXPECT_EQ(done[0].cookie, 77);
    GW_EXPECT_LT(gw_poll(rig.source, done, 8), 0);
    rig_close(&rig);
}

static uint64_t frozen_ns;

static uint64_t frozen_clock(void)
{
    return frozen_ns;
}

GW_TEST_EACH(wire, last_words_are_heard_though_no_time_has_passed, gw_test_stream_wires)
{
    struct rig rig;
    uint8_t heard[32];
    char word[] = "bye";
    rig_open(&rig, param);
    frozen_ns = gw_clock_ns();
    gw_clock_set_source(frozen_clock);
    GW_EXPECT_EQ(gw_recv(rig.source, heard, sizeof(heard)), -EAGAIN);
    GW_EXPECT_EQ(gw_send(rig.target, &(struct iovec){word, 3}, 1), 0);
    gw_ep_close(rig.target);
    rig.target = NULL;
    int rc = 0;
    for (unsigned i = 0; rc >= 0 && i < 1000; i++) {
        struct gw_put put = rig_put_at(&rig, 0, 4096, i);
        struct gw_completion done[8];
        rc = gw_put(rig.source, &put, 1);
        for (unsigned twice = 0; twice < 2 && rc >= 0; twice++)
            rc = gw_poll(rig.source, done, 8);
    }
    GW_EXPECT_LT(rc, 0);
    GW_EXPECT_EQ(gw_recv(rig.source, heard, sizeof(heard)), 3);
    GW_EXPECT_EQ(gw_recv(rig.source, heard, sizeof(heard)), rc);
    gw_clock_set_source(NULL);
    rig_close(&rig);
}

struct placed {
    uint64_t checked, placed;
    uint64_t refuse_at; /* an offset; 0: none */
};

static int on_check(void *ctx, uint32_t region, uint64_t offset, uint32_t bytes)
{
    struct placed *p = ctx;
    GW_EXPECT_EQ(region, RIG_REGION);
    p->checked += bytes;
    return p->refuse_at && offset == p->refuse_at ? -EPERM : 0;
}

static void on_placed(void *ctx, uint32_t region, uint64_t offset, uint32_t bytes)
{
    struct placed *p = ctx;
    GW_EXPECT_EQ(region, RIG_REGION);
    GW_EXPECT_LE(offset + bytes, RIG_MEMORY_BYTES);
    p->placed += bytes;
    GW_EXPECT_LE(p->placed, p->checked);
}

GW_TEST_EACH(wire, the_target_is_asked_before_and_told_after, gw_test_stream_wires)
{
    static const struct gw_place_ops ops = {on_check, on_placed};
    struct placed placed = {.refuse_at = 0};
    struct rig rig;
    struct gw_put puts[100];
    uint8_t heard[8];
    struct gw_error err = GW_ERROR_INIT;
    rig_listen(&rig, param);
    rig.target_config.place = &ops;
    rig.target_config.place_ctx = &placed;
    GW_ASSERT_EQ(rig_connect(&rig, &rig.source_config, &rig.source, &rig.target, &err), 0);
    for (unsigned i = 0; i < 100; i++)
        puts[i] = rig_put_at(&rig, i * 40000, 39999, i);
    GW_EXPECT_EQ(rig_put_all(&rig, puts, 100), 100);
    GW_EXPECT_EQ(rig_send(rig.source, "x", 1), 0);
    GW_EXPECT_EQ(rig_recv(rig.target, rig.source, heard, 8), 1);
    GW_EXPECT_EQ(placed.placed, 100 * 39999);
    GW_EXPECT_EQ(placed.checked, placed.placed);

    /* One entry that the target does not want, and nothing of its frame lands. */
    memset(rig.guest, 0, RIG_MEMORY_BYTES);
    placed.refuse_at = 50 * 40000;
    GW_EXPECT_EQ(gw_put(rig.source, puts + 40, 20), 20);
    rig_doze(rig.source);
    GW_EXPECT_EQ(rig_recv(rig.target, rig.source, heard, 8), -EPROTO);
    GW_EXPECT(rig_is_zero(rig.guest, RIG_MEMORY_BYTES));
    rig_close(&rig);
}
