// SPDX-License-Identifier: MIT
/* The preface and its answer, byte by byte as docs/protocol.md has them. */
#include "tests/shim/gw_test.h"
#include "transport/preface.h"

#include <string.h>

static const uint8_t golden_preface[GW_PREFACE_BYTES] = {
    'G', 'O', 'D', 'W', 'I', 'T', 0,  1,  1, 2,  3, 4, 5, 6, 7, 8,
    9,   10,  11,  12,  13,  14,  15, 16, 0, 42, 2, 0, 0, 0, 0, 0,
};
static const uint8_t golden_answer[GW_PREFACE_BYTES] = {
    'g', 'o', 'd', 'w', 'i', 't', 0,  1,  1, 2,  3, 4, 5, 6, 7, 8,
    9,   10,  11,  12,  13,  14,  15, 16, 0, 42, 4, 0, 0, 0, 0, 0,
};

static struct gw_preface sample(void)
{
    struct gw_preface preface = {.version = 1, .index = 42, .security = GW_SECURITY_PSK};
    for (unsigned i = 0; i < GW_SESSION_BYTES; i++)
        preface.session[i] = (uint8_t)(i + 1);
    return preface;
}

GW_TEST(preface, bytes_are_the_documented_ones)
{
    struct gw_preface preface = sample();
    uint8_t bytes[GW_PREFACE_BYTES];
    gw_preface_encode(&preface, bytes);
    GW_EXPECT_MEMEQ(bytes, golden_preface, sizeof(bytes));
    gw_answer_encode(&preface, GW_ADMIT_BUSY, bytes);
    GW_EXPECT_MEMEQ(bytes, golden_answer, sizeof(bytes));
}

GW_TEST(preface, what_was_encoded_is_decoded)
{
    struct gw_preface preface = sample(), back;
    memset(&back, 0xff, sizeof(back));
    GW_EXPECT_EQ(gw_preface_decode(golden_preface, &back), 0);
    GW_EXPECT_EQ(back.version, 1);
    GW_EXPECT_EQ(back.index, 42);
    GW_EXPECT_EQ(back.security, GW_SECURITY_PSK);
    GW_EXPECT_MEMEQ(back.session, preface.session, GW_SESSION_BYTES);
}

GW_TEST(preface, any_changed_bit_of_the_frame_around_it_is_refused)
{
    for (unsigned bit = 0; bit < GW_PREFACE_BYTES * 8; bit++) {
        uint8_t bytes[GW_PREFACE_BYTES];
        struct gw_preface back;
        memcpy(bytes, golden_preface, sizeof(bytes));
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        int rc = gw_preface_decode(bytes, &back);
        unsigned at = bit / 8;
        if (at < 6)
            GW_EXPECT_EQ(rc, -EPROTO);
        else if (at < 8 || at > 26)
            GW_EXPECT_EQ(rc, -EPROTONOSUPPORT);
        else
            GW_EXPECT_EQ(rc, 0);
    }
}

GW_TEST(preface, an_answer_is_for_this_preface_or_refused)
{
    struct gw_preface preface = sample();
    struct gw_error err = GW_ERROR_INIT;
    uint8_t bytes[GW_PREFACE_BYTES];
    gw_answer_encode(&preface, GW_ADMIT_OK, bytes);
    GW_EXPECT_EQ(gw_answer_check(&preface, bytes, &err), 0);
    for (unsigned bit = 0; bit < GW_PREFACE_BYTES * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        GW_EXPECT_LT(gw_answer_check(&preface, bytes, &err), 0);
        GW_EXPECT(err.message[0] != '\0' && err.code != GW_CODE_IO);
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}

GW_TEST(preface, an_echo_is_no_answer)
{
    struct gw_preface preface = sample();
    struct gw_error err = GW_ERROR_INIT;
    GW_EXPECT_EQ(gw_answer_check(&preface, golden_preface, &err), -EPROTO);
    GW_EXPECT(strstr(err.message, "does not speak") != NULL);
}
