// SPDX-License-Identifier: MIT
/* Writers and readers: bytes in network order, limits, and errors that latch. */
#include "control/stream.h"
#include "core/base/alloc.h"
#include "tests/shim/gw_test.h"

#include <string.h>

GW_TEST(writer, values_are_big_endian_and_unaligned)
{
    static const uint8_t expected[] = {0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09,
                                       0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f, 'x',  'y'};
    struct gw_writer w;
    gw_writer_init(&w, 100);
    gw_writer_u8(&w, 0x01);
    gw_writer_be16(&w, 0x0203);
    gw_writer_be32(&w, 0x04050607);
    gw_writer_be64(&w, UINT64_C(0x08090a0b0c0d0e0f));
    gw_writer_bytes(&w, "xy", 2);
    gw_writer_bytes(&w, NULL, 0);
    GW_ASSERT_EQ(w.bytes, sizeof(expected));
    GW_EXPECT_MEMEQ(w.data, expected, sizeof(expected));
    GW_EXPECT_EQ(gw_writer_error(&w), 0);

    struct gw_reader r;
    char text[2];
    gw_reader_init(&r, w.data, w.bytes);
    GW_EXPECT_EQ(gw_reader_u8(&r), 0x01);
    GW_EXPECT_EQ(gw_reader_be16(&r), 0x0203);
    GW_EXPECT_EQ(gw_reader_be32(&r), 0x04050607);
    GW_EXPECT_EQ(gw_reader_be64(&r), UINT64_C(0x08090a0b0c0d0e0f));
    GW_EXPECT_EQ(gw_reader_left(&r), 2);
    gw_reader_bytes(&r, text, 2);
    GW_EXPECT_MEMEQ(text, "xy", 2);
    GW_EXPECT_EQ(gw_reader_left(&r), 0);
    GW_EXPECT_EQ(gw_reader_error(&r), 0);
    gw_writer_fini(&w);
}

GW_TEST(writer, its_limit_is_exact_and_latches)
{
    struct gw_writer w;
    gw_writer_init(&w, 4);
    gw_writer_be16(&w, 1);
    gw_writer_be16(&w, 2);
    GW_EXPECT_EQ(gw_writer_error(&w), 0);
    gw_writer_bytes(&w, NULL, 0);
    GW_EXPECT_EQ(gw_writer_error(&w), 0);
    gw_writer_u8(&w, 3);
    GW_EXPECT_EQ(gw_writer_error(&w), -E2BIG);
    GW_EXPECT_EQ(w.bytes, 4);
    gw_writer_reset(&w);
    GW_EXPECT_EQ(gw_writer_error(&w), 0);
    gw_writer_be64(&w, 1);
    GW_EXPECT_EQ(gw_writer_error(&w), -E2BIG);
    gw_writer_u8(&w, 3); /* would fit, but a hole before it would not be seen */
    GW_EXPECT_EQ(w.bytes, 0);
    gw_writer_fini(&w);

    gw_writer_init(&w, 0);
    gw_writer_u8(&w, 1);
    GW_EXPECT_EQ(gw_writer_error(&w), -E2BIG);
    gw_writer_fini(&w);
}

GW_TEST(writer, grows_to_what_is_written)
{
    struct gw_writer w;
    int64_t live = gw_alloc_live();
    gw_writer_init(&w, SIZE_MAX);
    for (uint32_t i = 0; i < 100000; i++)
        gw_writer_be32(&w, i);
    GW_ASSERT_EQ(w.bytes, 400000);
    struct gw_reader r;
    gw_reader_init(&r, w.data, w.bytes);
    bool same = true;
    for (uint32_t i = 0; i < 100000; i++)
        same &= gw_reader_be32(&r) == i;
    GW_EXPECT(same);
    gw_writer_reset(&w);
    GW_EXPECT_EQ(w.bytes, 0);
    GW_EXPECT_GE(w.room, 400000);
    gw_writer_fini(&w);
    GW_EXPECT_EQ(gw_alloc_live(), live);
}

GW_TEST(writer, out_of_memory_latches)
{
    struct gw_writer w;
    gw_writer_init(&w, SIZE_MAX);
    gw_writer_u8(&w, 1);
    gw_alloc_fail_after(0);
    static uint8_t data[8192];
    gw_writer_bytes(&w, data, sizeof(data));
    gw_alloc_fail_after(-1);
    GW_EXPECT_EQ(gw_writer_error(&w), -ENOMEM);
    GW_EXPECT_EQ(w.bytes, 1);
    gw_writer_u8(&w, 2);
    GW_EXPECT_EQ(w.bytes, 1);
    gw_writer_fini(&w);
}

GW_TEST(reader, past_the_end_latches_and_yields_zeros)
{
    static const uint8_t data[] = {1, 2, 3};
    uint8_t out[4] = {9, 9, 9, 9};
    struct gw_reader r;
    gw_reader_init(&r, data, sizeof(data));
    GW_EXPECT_EQ(gw_reader_be32(&r), 0);
    GW_EXPECT_EQ(gw_reader_error(&r), -EBADMSG);
    GW_EXPECT_EQ(gw_reader_u8(&r), 0);
    GW_EXPECT_EQ(gw_reader_left(&r), 0);
    gw_reader_bytes(&r, out, 2);
    GW_EXPECT_MEMEQ(out, "\0\0\x09\x09", 4);
    GW_EXPECT(gw_reader_take(&r, 0) == NULL);
}

GW_TEST(reader, take_gives_exactly_what_is_there)
{
    static const uint8_t data[] = {1, 2, 3};
    struct gw_reader r;
    gw_reader_init(&r, data, sizeof(data));
    GW_EXPECT(gw_reader_take(&r, 0) != NULL);
    GW_EXPECT(gw_reader_take(&r, 2) == data);
    GW_EXPECT(gw_reader_take(&r, 1) == data + 2);
    GW_EXPECT(gw_reader_take(&r, 0) != NULL);
    GW_EXPECT_EQ(gw_reader_error(&r), 0);
    GW_EXPECT(gw_reader_take(&r, SIZE_MAX) == NULL);
    GW_EXPECT_EQ(gw_reader_error(&r), -EBADMSG);
    gw_reader_init(&r, NULL, 0);
    GW_EXPECT_EQ(gw_reader_left(&r), 0);
    GW_EXPECT_EQ(gw_reader_u8(&r), 0);
    GW_EXPECT_EQ(gw_reader_error(&r), -EBADMSG);
}
