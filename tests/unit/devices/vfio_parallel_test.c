// SPDX-License-Identifier: MIT
/* Packets of device state: any order goes, what cannot be is refused, memory is bounded. */
#include "control/stream.h"
#include "devices/vfio/parallel.h"
#include "tests/unit/devices/vfio_rig.h"

#include <stdlib.h>

#define HEADS (GW_PARALLEL_HEAD_BYTES + GW_PARALLEL_PAYLOAD_BYTES)

struct sink { /* what arrives, in order */
    char text[256];
    unsigned configs;
    int rc;
};

static int take_data(void *ctx, const void *data, size_t bytes, struct gw_error *err)
{
    struct sink *sink = ctx;
    strncat(sink->text, data, bytes);
    return sink->rc < 0 ? gw_error_set(err, sink->rc, GW_CODE_DEVICE, "as the test wanted") : 0;
}

static int take_config(void *ctx, const void *data, size_t bytes, struct gw_error *err)
{
    struct sink *sink = ctx;
    (void)err;
    strcat(sink->text, "|");
    strncat(sink->text, data, bytes);
    sink->configs++;
    return 0;
}

static const struct gw_parallel_sink sink_ops = {
    .struct_bytes = sizeof(sink_ops), .data = take_data, .config = take_config};

struct rigged {
    struct sink sink;
    struct gw_parallel_budget budget;
    struct gw_parallel *parallel;
    struct gw_error err;
};

static void rigged_open(struct rigged *r)
{
    *r = (struct rigged){.budget = {.bytes = 20000}, .err = GW_ERROR_INIT};
    GW_ASSERT_EQ(gw_parallel_new("dev/vfio", &r->budget, &sink_ops, &r->sink, &r->parallel, NULL),
                 0);
}

static void rigged_close(struct rigged *r)
{
    gw_parallel_free(r->parallel);
    GW_EXPECT_EQ(r->budget.bytes, 20000);
}

static int give(struct rigged *r, uint32_t index, bool is_config, const char *text)
{
    struct gw_parallel_packet packet = {.name = "dev/vfio", .index = index, .is_config = is_config};
    uint8_t bytes[HEADS + 16];
    gw_parallel_encode(&packet, (uint32_t)strlen(text), bytes);
    memcpy(bytes + HEADS, text, strlen(text));
    return gw_parallel_take(r->parallel, bytes + GW_PARALLEL_HEAD_BYTES,
                            GW_PARALLEL_PAYLOAD_BYTES + strlen(text), &r->err);
}

GW_TEST(vfio_parallel, packets_in_every_order_arrive_in_order)
{
    static const char *const texts[] = {"a", "bb", "", "ccc", "end"};
    for (unsigned order = 0; order < 120; order++) {
        struct rigged r;
        bool given[5] = {false};
        unsigned left = order;
        rigged_open(&r);
        for (unsigned n = 5; n > 0; n--) {
            unsigned pick = left % n, index = 0;
            left /= n;
            for (index = 0; given[index] || pick-- > 0;)
                index++;
            given[index] = true;
            GW_EXPECT_LT(gw_parallel_finish(r.parallel, NULL), 0);
            GW_EXPECT_EQ(give(&r, index, index == 4, texts[index]), 0);
        }
        GW_EXPECT_STREQ(r.sink.text, "abbccc|end");
        GW_EXPECT_EQ(gw_parallel_finish(r.parallel, NULL), 0);
        rigged_close(&r);
    }
}

static void expect_refused(struct rigged *r, int got, int rc, const char *message)
{
    GW_EXPECT_EQ(got, rc);
    GW_EXPECT_STREQ(r->err.message, message);
    rigged_close(r);
}

GW_TEST(vfio_parallel, an_index_that_cannot_be_is_refused)
{
    struct rigged r;
    rigged_open(&r);
    expect_refused(&r, give(&r, UINT32_MAX, false, "x"), -EPROTO,
                   "device 'dev/vfio': packet 4294967295: that index is reserved");
    rigged_open(&r);
    give(&r, 3, false, "x");
    expect_refused(&r, give(&r, 3, false, "y"), -EPROTO,
                   "device 'dev/vfio': packet 3: it is there already");
    rigged_open(&r);
    give(&r, 0, false, "x");
    expect_refused(&r, give(&r, 0, false, "x"), -EPROTO,
                   "device 'dev/vfio': packet 0: it was passed already");
    rigged_open(&r);
    give(&r, 2, true, "x");
    expect_refused(&r, give(&r, 3, false, "x"), -EPROTO,
                   "device 'dev/vfio': packet 3: it is above the configuration's");
    rigged_open(&r);
    give(&r, 0, true, "x");
    expect_refused(&r, give(&r, 1, false, "x"), -EPROTO,
                   "device 'dev/vfio': packet 1: it is above the configuration's");
    rigged_open(&r);
    give(&r, 5, false, "x");
    expect_refused(&r, give(&r, 4, true, "x"), -EPROTO,
                   "device 'dev/vfio': packet 4: it is the configuration's, and a higher one came "
                   "before it");
    rigged_open(&r);
    give(&r, 2, true, "x");
    expect_refused(&r, give(&r, 1, true, "x"), -EPROTO,
                   "device 'dev/vfio': packet 1: the configuration comes twice");
}

GW_TEST(vfio_parallel, a_packet_that_is_none_is_refused)
{
    struct rigged r;
    uint8_t short_one[11] = {0}, version[12] = {0, 0, 0, 1};
    rigged_open(&r);
    expect_refused(&r, gw_parallel_take(r.parallel, short_one, sizeof(short_one), &r.err), -EBADMSG,
                   "device 'dev/vfio': a packet of 11 bytes");
    rigged_open(&r);
    expect_refused(&r, gw_parallel_take(r.parallel, version, sizeof(version), &r.err), -EBADMSG,
                   "device 'dev/vfio': a packet of version 1, 0 is known here");
    rigged_open(&r);
    give(&r, 1, false, "x");
    expect_refused(&r, gw_parallel_finish(r.parallel, &r.err), -EBADMSG,
                   "device 'dev/vfio': packet 0 is missing");
}

/* Small ones too: each costs a page of the budget at least. */
GW_TEST(vfio_parallel, what_comes_early_is_held_in_bounded_memory)
{
    struct rigged r;
    rigged_open(&r);
    for (uint32_t i = 0; i < 4; i++)
        GW_EXPECT_EQ(give(&r, UINT32_MAX - 2 - i, false, "x"), 0);
    GW_EXPECT_EQ(give(&r, 7, false, "x"), -ENOBUFS);
    GW_EXPECT_EQ(r.err.code, GW_CODE_LIMIT);
    GW_EXPECT_STREQ(r.err.message, "device 'dev/vfio': packet 7 of 1 bytes came early, and 3616 "
                                   "bytes are left for those: 0 is missing");
    GW_EXPECT_EQ(give(&r, 0, false, "x"), 0); /* what is next needs none */
    rigged_close(&r);
}

GW_TEST(vfio_parallel, what_the_sink_refuses_is_refused)
{
    struct rigged r;
    rigged_open(&r);
    GW_EXPECT_EQ(give(&r, 1, false, "x"), 0);
    r.sink.rc = -EIO;
    expect_refused(&r, give(&r, 0, false, "x"), -EIO, "as the test wanted");
}

/* ---- a device's ---------------------------------------------------------------------------------- */

static int load_raw(void *ctx, const void *data, size_t bytes, struct gw_error *err)
{
    return gw_vfio_load_raw(ctx, data, bytes, err);
}

static int load_config(void *ctx, const void *data, size_t bytes, struct gw_error *err)
{
    struct gw_reader r;
    gw_reader_init(&r, data, bytes);
    return gw_vfio_load(ctx, &r, err);
}

static const struct gw_parallel_sink device_sink = {
    .struct_bytes = sizeof(device_sink), .data = load_raw, .config = load_config};

struct parcel { /* a packet on its way */
    uint8_t bytes[HEADS + 3000];
    size_t length;
};

/* What its driver gives, one read a packet, and the configuration as the last. */
static unsigned pack(struct rig *rig, struct parcel *parcels, unsigned max)
{
    struct gw_parallel_packet packet = {.name = ""};
    ssize_t got = 1;
    for (; got > 0 && packet.index < max; packet.index++) {
        struct parcel *parcel = &parcels[packet.index];
        got = gw_vfio_save_raw(rig->src.vfio, parcel->bytes + HEADS, 3000, &rig->err);
        GW_ASSERT_GE(got, 0);
        if (got == 0) {
            GW_EXPECT_EQ(gw_vfio_save_config(rig->src.vfio, &rig->w, &rig->err), 0);
            packet.is_config = true;
            memcpy(parcel->bytes + HEADS, rig->w.data, rig->w.bytes);
        }
        size_t bytes = got > 0 ? (size_t)got : rig->w.bytes;
        snprintf(packet.name, sizeof(packet.name), "%s", gw_vfio_name(rig->src.vfio));
        gw_parallel_encode(&packet, (uint32_t)bytes, parcel->bytes);
        parcel->length = HEADS + bytes;
    }
    gw_writer_reset(&rig->w);
    return packet.index;
}

/* The rest of a device's state goes beside the stream, in any order, while its sections go in the stream. */
GW_TEST(vfio_parallel, a_device_arrives_by_packets_in_any_order)
{
    static struct parcel parcels[64];
    for (unsigned front = 0; front < 2; front++) {
        struct vendor_config config = rig_config();
        struct gw_vfio_config options = {.announce = true, .parallel = true};
        struct gw_parallel_budget budget = {.bytes = GW_PARALLEL_BUDGET_BYTES};
        struct gw_parallel *parallel = NULL;
        struct gw_parallel_packet packet;
        struct rig rig;
        rig_open(&rig, (enum rig_front)front, &config, &options);
        rig.bytes_max = 2000;
        GW_EXPECT_EQ(rig_setup(&rig), 0);
        GW_EXPECT_EQ(rig_round(&rig, 2), 0);
        GW_EXPECT_EQ(gw_vfio_stop_all(&rig.src.vfio, 1, &rig.err), 0);
        unsigned count = pack(&rig, parcels, 64);
        GW_EXPECT_GT(count, 5);
        GW_EXPECT_EQ(gw_vfio_save_complete(rig.src.vfio, &rig.w, 65536, &rig.err), GW_DEVICE_DONE);
        GW_EXPECT_EQ(rig_load(&rig, GW_DEVICE_END), 0); /* before any packet */
        GW_EXPECT_EQ(gw_parallel_new("x", &budget, &device_sink, rig.dst.vfio, &parallel, NULL), 0);
        for (unsigned i = 0; i < count; i++) {
            unsigned half = (count + 1) / 2;
            unsigned even_odd = i < half ? 2 * i : 2 * (i - half) + 1;
            struct parcel *parcel = &parcels[front == 0 ? count - 1 - i : even_odd];
            GW_EXPECT_EQ(gw_parallel_decode(parcel->bytes, &packet, &rig.err), 0);
            GW_EXPECT_EQ(gw_parallel_take(parallel, parcel->bytes + GW_PARALLEL_HEAD_BYTES,
                                          parcel->length - GW_PARALLEL_HEAD_BYTES, &rig.err),
                         0);
        }
        GW_EXPECT_STREQ(rig.err.message, "");
        GW_EXPECT_EQ(gw_parallel_finish(parallel, &rig.err), 0);
        gw_parallel_free(parallel);
        rig_expect_moved(&rig, gw_vfio_load_finish(rig.dst.vfio, &rig.err));
        rig_close(&rig);
    }
}

GW_TEST(vfio_parallel, packets_that_do_not_add_up_are_missed_in_time)
{
    struct vendor_config config = rig_config();
    struct gw_vfio_config options = {.announce = true, .parallel = true};
    struct rig rig;
    rig_open(&rig, RIG_FEATURE, &config, &options);
    GW_EXPECT_EQ(rig_setup(&rig), 0);
    gw_writer_be64(&rig.w, GW_VFIO_TOTAL);
    gw_writer_be64(&rig.w, 17);
    gw_writer_be64(&rig.w, GW_VFIO_END_OF_STATE);
    GW_EXPECT_EQ(rig_load(&rig, GW_DEVICE_END), 0);
    GW_EXPECT_EQ(gw_vfio_load_raw(rig.dst.vfio, "x", 1, &rig.err), 0);
    GW_EXPECT_EQ(gw_vfio_load_finish(rig.dst.vfio, &rig.err), -EBADMSG);
    GW_EXPECT_STREQ(rig.err.message, "device '0000:00:04.0/vfio': load: 1 bytes of state came, the "
                                     "source has sent 17");
    rig_settle(&rig, false);
    rig_close(&rig);
}

GW_TEST(vfio_parallel, a_packet_for_a_device_that_awaits_none_is_refused)
{
    struct vendor_config config = rig_config();
    struct gw_error err = GW_ERROR_INIT;
    struct rig rig;
    rig_open(&rig, RIG_FEATURE, &config, NULL);
    GW_EXPECT_EQ(rig_setup(&rig), 0);
    GW_EXPECT_EQ(gw_vfio_load_raw(rig.dst.vfio, "x", 1, &err), -EPROTO);
    GW_EXPECT_STREQ(err.message, "device '0000:00:04.0/vfio': load: state comes beside the stream, "
                                 "which was not agreed on");
    rig_settle(&rig, false);
    rig_close(&rig);
}

GW_TEST(vfio_parallel, a_head_says_whose_it_is)
{
    struct gw_parallel_packet packet = {
        .name = "0000:00:04.0/vfio", .instance_id = 3, .index = 0x01020304, .is_config = true};
    struct gw_parallel_packet got;
    struct gw_error err = GW_ERROR_INIT;
    uint8_t bytes[HEADS];
    gw_parallel_encode(&packet, 100, bytes);
    GW_EXPECT_MEMEQ(bytes,
                    "\x11\x22\x33\x44\0\0\0\1\0\0\0\100"
                    "0000:00:04.0/vfio",
                    30);
    GW_EXPECT_MEMEQ(bytes + 268, "\0\0\0\3\0\0\0\160\0\0\0\0\1\2\3\4\0\0\0\1", 20);
    GW_EXPECT_EQ(gw_parallel_decode(bytes, &got, &err), 0);
    GW_EXPECT_STREQ(got.name, packet.name);
    GW_EXPECT_EQ(got.instance_id, 3);
    GW_EXPECT_EQ(got.payload_bytes, 112);
    bytes[272] = 1;
    GW_EXPECT_EQ(gw_parallel_decode(bytes, &got, &err), -ERANGE);
    bytes[20] = 7;
    GW_EXPECT_EQ(gw_parallel_decode(bytes, &got, &err), -EBADMSG);
    memset(bytes + 12, 'x', 256);
    GW_EXPECT_EQ(gw_parallel_decode(bytes, &got, &err), -EBADMSG);
    bytes[11] = 1;
    GW_EXPECT_EQ(gw_parallel_decode(bytes, &got, &err), -EBADMSG);
    GW_EXPECT_STREQ(err.message, "no packet of device state: 0x11223344, version 1, flags 0x1");
}
