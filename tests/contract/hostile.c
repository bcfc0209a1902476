// SPDX-License-Identifier: MIT
/* Contract, stream wires: what a peer may send that is no godwit. Frames are made by hand. Whatever is
 * wrong with one, not a byte of guest memory changes and the endpoint ends with -EPROTO. */
#include "core/base/bytes.h"
#include "tests/contract/wire_rig.h"
#include "transport/stream.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct frame {
    uint8_t bytes[GW_FRAME_HEAD_BYTES + 600 * GW_FRAME_ENTRY_BYTES + 65536];
    size_t length;
};

static void frame_head(struct frame *f, uint8_t kind, uint16_t entries, uint32_t payload)
{
    struct gw_frame_head head = {.kind = kind, .entry_count = entries, .payload_bytes = payload};
    gw_frame_head_encode(&head, f->bytes);
    f->length = GW_FRAME_HEAD_BYTES;
}

static void frame_entry(struct frame *f, uint32_t region, uint64_t offset, uint32_t bytes)
{
    struct gw_frame_entry entry = {.region = region, .bytes = bytes, .offset = offset};
    gw_frame_entry_encode(&entry, f->bytes + f->length);
    f->length += GW_FRAME_ENTRY_BYTES;
}

static void frame_payload(struct frame *f, size_t bytes)
{
    memset(f->bytes + f->length, 0xbd, bytes);
    f->length += bytes;
}

/* An honest frame first, so that the bad one comes in the middle of a stream. */
static void expect_refused(const char *wire, const struct frame *bad, const char *why)
{
    struct rig rig;
    struct gw_endpoint *target;
    struct frame *good = calloc(1, sizeof(*good));
    uint8_t heard[8];
    struct gw_error err = GW_ERROR_INIT;

    rig_listen(&rig, wire);
    int fd = rig_raw_open(&rig, &target);
    frame_head(good, GW_FRAME_MESSAGE, 0, 4);
    frame_payload(good, 4);
    rig_raw_write(fd, good->bytes, good->length);
    rig_raw_write(fd, bad->bytes, bad->length);
    GW_EXPECT_EQ(rig_recv(target, NULL, heard, sizeof(heard)), 4);
    GW_EXPECT_EQ(rig_recv(target, NULL, heard, sizeof(heard)), -EPROTO);
    GW_EXPECT_EQ(gw_ep_error(target, &err), -EPROTO);
    GW_EXPECT_EQ(err.code, GW_CODE_PROTOCOL);
    if (!GW_EXPECT(strstr(err.message, why) != NULL))
        GW_NOTE_FAILURE("said: %s", err.message);
    GW_EXPECT(rig_is_zero(rig.guest, RIG_MEMORY_BYTES));
    close(fd);
    gw_ep_close(target);
    rig_close(&rig);
    free(good);
}

static struct frame *new_put(uint32_t region, uint64_t offset, uint32_t bytes)
{
    /* A sound entry leads, so that a frame which is checked entry by entry would place it. */
    struct frame *f = calloc(1, sizeof(*f));
    frame_head(f, GW_FRAME_PUT, 2, 4096 + bytes);
    frame_entry(f, RIG_REGION, 0, 4096);
    frame_entry(f, region, offset, bytes);
    frame_payload(f, 8192);
    return f;
}

GW_TEST_EACH(hostile, put_into_an_unknown_region, gw_test_stream_wires)
{
    struct frame *f = new_put(RIG_REGION + 1, 4096, 4096);
    expect_refused(param, f, "not registered");
    free(f);
    f = new_put(UINT32_MAX, 4096, 4096);
    expect_refused(param, f, "not registered");
    free(f);
}

GW_TEST_EACH(hostile, put_past_the_end_of_a_region, gw_test_stream_wires)
{
    struct frame *f = new_put(RIG_REGION, RIG_MEMORY_BYTES - 4095, 4096);
    expect_refused(param, f, "leaves the region");
    free(f);
    f = new_put(RIG_REGION, RIG_MEMORY_BYTES, 1);
    expect_refused(param, f, "leaves the region");
    free(f);
}

GW_TEST_EACH(hostile, put_whose_offset_wraps, gw_test_stream_wires)
{
    struct frame *f = new_put(RIG_REGION, UINT64_MAX - 4095, 4096);
    expect_refused(param, f, "leaves the region");
    free(f);
    f = new_put(RIG_REGION, UINT64_C(1) << 63, 4096);
    expect_refused(param, f, "leaves the region");
    free(f);
}

GW_TEST_EACH(hostile, put_of_nothing, gw_test_stream_wires)
{
    struct frame *f = new_put(RIG_REGION, 4096, 0);
    expect_refused(param, f, "empty");
    free(f);
}

GW_TEST_EACH(hostile, table_that_does_not_add_up, gw_test_stream_wires)
{
    static const uint32_t sums[] = {8191, 8193, 4096, 1};
    for (size_t i = 0; i < sizeof(sums) / sizeof(sums[0]); i++) {
        struct frame *f = new_put(RIG_REGION, 4096, 4096);
        gw_be32_store(f->bytes + 8, sums[i]);
        expect_refused(param, f, "not the payload's");
        free(f);
    }
    /* Four times 2^30 more is the same in 32 bits. */
    struct frame *f = calloc(1, sizeof(*f));
    frame_head(f, GW_FRAME_PUT, 5, 4096);
    frame_entry(f, RIG_REGION, 0, 4096);
    for (unsigned i = 0; i < 4; i++)
        frame_entry(f, RIG_REGION, 0, 1u << 30);
    frame_payload(f, 4096);
    expect_refused(param, f, "not the payload's");
    free(f);
}

GW_TEST_EACH(hostile, headers_out_of_range, gw_test_stream_wires)
{
    static const struct {
        uint8_t kind;
        uint16_t entries;
        uint32_t payload;
        const char *why;
    } heads[] = {
        {GW_FRAME_PUT, 0, 4096, "no entry"},
        {GW_FRAME_PUT, 513, 4096, "more than 512"},
        {GW_FRAME_PUT, 65535, 4096, "more than 512"},
        {GW_FRAME_PUT, 1, 0, "empty"},
        {GW_FRAME_PUT, 1, GW_FRAME_PAYLOAD_MAX + 1, "longer than 4 MiB"},
        {GW_FRAME_PUT, 1, UINT32_MAX, "longer than 4 MiB"},
        {GW_FRAME_MESSAGE, 1, 4, "has a table"},
        {GW_FRAME_MESSAGE, 0, GW_MESSAGE_BYTES_DEFAULT + 1, "longer than the limit"},
        {GW_FRAME_MESSAGE, 0, 1u << 31, "longer than the limit"},
        {0, 0, 4, "kind"},
        {3, 1, 4096, "kind"},
    };
    for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); i++) {
        struct frame *f = calloc(1, sizeof(*f));
        frame_head(f, heads[i].kind, heads[i].entries, heads[i].payload);
        frame_entry(f, RIG_REGION, 0, 4096);
        frame_payload(f, 4096);
        expect_refused(param, f, heads[i].why);
        free(f);
    }
}

GW_TEST_EACH(hostile, bytes_that_must_be_zero_or_magic, gw_test_stream_wires)
{
    static const unsigned at[] = {0, 1, 3, 6, 7, 12, 15};
    for (size_t i = 0; i < sizeof(at) / sizeof(at[0]); i++) {
        struct frame *f = new_put(RIG_REGION, 4096, 4096);
        f->bytes[at[i]] ^= 0x80;
        expect_refused(param, f, at[i] < 2 ? "no frame begins" : "reserved");
        free(f);
    }
}

GW_TEST_EACH(hostile, a_sender_of_single_bytes_is_understood, gw_test_stream_wires)
{
    struct rig rig;
    struct gw_endpoint *target;
    struct frame *f = new_put(RIG_REGION, 5000, 300);
    struct frame *message = calloc(1, sizeof(*message));
    uint8_t heard[8];

    rig_listen(&rig, param);
    int fd = rig_raw_open(&rig, &target);
    f->length -= 4096 + 4096 - 4396; /* the payload is 4396 bytes long */
    frame_head(message, GW_FRAME_MESSAGE, 0, 3);
    frame_payload(message, 3);
    for (unsigned twice = 0; twice < 2; twice++) {
        for (size_t i = 0; i < f->length; i++) {
            rig_raw_write(fd, f->bytes + i, 1);
            if (i % 7 == 0)
                rig_doze(target);
            GW_ASSERT_EQ(gw_recv(target, heard, sizeof(heard)), -EAGAIN);
        }
        for (size_t i = 0; i < message->length; i++) {
            rig_raw_write(fd, message->bytes + i, 1);
            if (i + 1 < message->length)
                GW_ASSERT_EQ(gw_recv(target, heard, sizeof(heard)), -EAGAIN);
        }
        GW_EXPECT_EQ(rig_recv(target, NULL, heard, sizeof(heard)), 3);
    }
    GW_EXPECT_EQ(rig.guest[4095], 0xbd);
    GW_EXPECT_EQ(rig.guest[4096], 0);
    GW_EXPECT_EQ(rig.guest[5000], 0xbd);
    GW_EXPECT_EQ(rig.guest[5299], 0xbd);
    GW_EXPECT_EQ(rig.guest[5300], 0);
    close(fd);
    gw_ep_close(target);
    rig_close(&rig);
    free(f);
    free(message);
}

/* Send all but the last half of a PUT's payload, and see it placed. */
static int half_a_put(struct rig *rig, struct gw_endpoint **target, struct frame *f)
{
    uint8_t heard[8];
    int fd = rig_raw_open(rig, target);
    rig_raw_write(fd, f->bytes, f->length - 4096);
    uint64_t deadline_ns = gw_clock_ns() + RIG_WAIT_NS;
    while (rig->guest[4095] == 0 && gw_clock_ns() < deadline_ns) {
        rig_doze(*target);
        GW_ASSERT_EQ(gw_recv(*target, heard, sizeof(heard)), -EAGAIN);
    }
    GW_EXPECT_EQ(rig->guest[4095], 0xbd);
    return fd;
}

GW_TEST_EACH(hostile, a_half_read_put_stops_at_revoke, gw_test_stream_wires)
{
    struct rig rig;
    struct gw_endpoint *target;
    struct frame *f = new_put(RIG_REGION, 4096, 4096);
    uint8_t heard[8];
    rig_listen(&rig, param);
    int fd = half_a_put(&rig, &target, f);
    gw_ep_revoke(target);
    rig_raw_write(fd, f->bytes + f->length - 4096, 4096);
    GW_EXPECT_EQ(rig_recv(target, NULL, heard, sizeof(heard)), -EPROTO);
    GW_EXPECT(rig_is_zero(rig.guest + 4096, RIG_MEMORY_BYTES - 4096));
    close(fd);
    gw_ep_close(target);
    rig_close(&rig);
    free(f);
}

GW_TEST_EACH(hostile, a_half_read_put_stops_when_its_region_goes, gw_test_stream_wires)
{
    struct rig rig;
    struct gw_endpoint *target;
    struct frame *f = new_put(RIG_REGION, 4096, 4096);
    uint8_t heard[8];
    rig_listen(&rig, param);
    int fd = half_a_put(&rig, &target, f);
    gw_mr_dereg(rig.guest_mr);
    rig.guest_mr = NULL;
    rig_raw_write(fd, f->bytes + f->length - 4096, 4096);
    GW_EXPECT_EQ(rig_recv(target, NULL, heard, sizeof(heard)), -EPROTO);
    GW_EXPECT(rig_is_zero(rig.guest + 4096, RIG_MEMORY_BYTES - 4096));
    close(fd);
    gw_ep_close(target);
    rig_close(&rig);
    free(f);
}

GW_TEST_EACH(hostile, a_hang_up_in_a_frame_says_so, gw_test_stream_wires)
{
    struct rig rig;
    struct gw_endpoint *target;
    struct frame *f = new_put(RIG_REGION, 4096, 4096);
    struct gw_error err = GW_ERROR_INIT;
    uint8_t heard[8];
    rig_listen(&rig, param);
    int fd = half_a_put(&rig, &target, f);
    close(fd);
    GW_EXPECT_EQ(rig_recv(target, NULL, heard, sizeof(heard)), -ECONNRESET);
    GW_EXPECT_EQ(gw_ep_error(target, &err), -ECONNRESET);
    GW_EXPECT_EQ(err.code, GW_CODE_PEER_LOST);
    GW_EXPECT(strstr(err.message, "middle of a frame") != NULL);
    gw_ep_close(target);
    rig_close(&rig);
    free(f);
}

GW_TEST_EACH(hostile, random_bytes_end_the_endpoint_and_touch_nothing, gw_test_stream_wires)
{
    struct rig rig;
    uint8_t noise[4096], heard[8];
    uint64_t seed = 99;
    rig_listen(&rig, param);
    for (unsigned round = 0; round < 20; round++) {
        struct gw_endpoint *target;
        int fd = rig_raw_open(&rig, &target);
        for (size_t i = 0; i < sizeof(noise); i++)
            noise[i] = (uint8_t)rig_random(&seed);
        if (round % 2)
            gw_be16_store(noise, GW_FRAME_MAGIC);
        rig_raw_write(fd, noise, sizeof(noise));
        GW_EXPECT_EQ(rig_recv(target, NULL, heard, sizeof(heard)), -EPROTO);
        close(fd);
        gw_ep_close(target);
    }
    GW_EXPECT(rig_is_zero(rig.guest, RIG_MEMORY_BYTES));
    rig_close(&rig);
}
