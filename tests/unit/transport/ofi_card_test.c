// SPDX-License-Identifier: MIT
/* The card of ofi: its bytes, and what a stranger may write there. */
#include "gw_config.h"

#if GW_HAVE_OFI
#include "tests/shim/gw_test.h"
#include "transport/ofi/ofi_card.h"

#include <errno.h>
#include <string.h>

static struct gw_ofi_card example(void)
{
    struct gw_ofi_card card = {.token = UINT64_C(0x0102030405060708),
                               .provider = "tcp;ofi_rxm",
                               .address_format = 3,
                               .address_bytes = 16};
    for (unsigned i = 0; i < 16; i++)
        card.address[i] = (uint8_t)(0xa0 + i);
    return card;
}

GW_TEST(ofi_card, bytes_are_those_of_the_protocol)
{
    struct gw_ofi_card card = example();
    uint8_t bytes[GW_OFI_CARD_BYTES];
    uint8_t golden[GW_OFI_CARD_BYTES] = {'G', 'W', 'O', 'F', 'I', '1', 0, 1, 1, 2,  3, 4, 5, 6,
                                         7,   8,   0,   0,   0,   0,   0, 0, 0, 16, 0, 0, 0, 3};
    memcpy(golden + 32, "tcp;ofi_rxm", 11);
    memcpy(golden + 128, card.address, 16);
    gw_ofi_card_encode(&card, bytes);
    GW_EXPECT_MEMEQ(bytes, golden, sizeof(golden));
}

GW_TEST(ofi_card, what_was_encoded_is_decoded)
{
    struct gw_ofi_card card = example(), back = {.token = 0};
    uint8_t bytes[GW_OFI_CARD_BYTES];
    const char *why = NULL;
    gw_ofi_card_encode(&card, bytes);
    GW_ASSERT_EQ(gw_ofi_card_decode(bytes, &back, &why), 0);
    GW_EXPECT_EQ(back.token, card.token);
    GW_EXPECT_STREQ(back.provider, card.provider);
    GW_EXPECT_EQ(back.address_format, 3);
    GW_EXPECT_EQ(back.address_bytes, 16);
    GW_EXPECT_MEMEQ(back.address, card.address, sizeof(card.address));
    GW_EXPECT(!back.refused);
}

static void expect_refused(unsigned at, uint8_t value, const char *text)
{
    struct gw_ofi_card card = example();
    uint8_t bytes[GW_OFI_CARD_BYTES];
    const char *why = "";
    gw_ofi_card_encode(&card, bytes);
    bytes[at] = value;
    GW_EXPECT_EQ(gw_ofi_card_decode(bytes, &card, &why), -EPROTO);
    if (!GW_EXPECT(strstr(why, text) != NULL))
        GW_NOTE_FAILURE("byte %u = %u: said '%s'", at, value, why);
}

GW_TEST(ofi_card, whatever_does_not_fit_is_refused_by_name)
{
    expect_refused(0, 'g', "no card");
    expect_refused(7, 2, "version");
    expect_refused(16, 2, "reserved");
    expect_refused(17, 1, "reserved");
    expect_refused(28, 1, "reserved");
    expect_refused(127, 1, "reserved");
    expect_refused(20, 1, "longer than 256");
    expect_refused(22, 2, "longer than 256");
    expect_refused(23, 0, "empty");
    expect_refused(32, 0, "no name");
    expect_refused(95, 'x', "no name");
    expect_refused(144, 1, "something follows");
    expect_refused(383, 1, "something follows");
}

GW_TEST(ofi_card, a_provider_that_fills_its_field_has_no_end)
{
    struct gw_ofi_card card = example();
    uint8_t bytes[GW_OFI_CARD_BYTES];
    const char *why = "";
    gw_ofi_card_encode(&card, bytes);
    memset(bytes + 32, 'p', 64);
    GW_EXPECT_EQ(gw_ofi_card_decode(bytes, &card, &why), -EPROTO);
    GW_EXPECT(strstr(why, "no name") != NULL);
}
#else
extern int gw_room_is_empty;
#endif
