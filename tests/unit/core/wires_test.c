// SPDX-License-Identifier: MIT
#include "core/wires.h"

#include "tests/shim/gw_test.h"

#include <stdio.h>
#include <string.h>

static struct gw_uri uri_of(const char *text)
{
    struct gw_uri uri;

    GW_ASSERT_EQ(gw_uri_parse(text, &uri, NULL), 0);
    return uri;
}

GW_TEST(wires, same_asks_for_none)
{
    char text[GW_WIRES_TEXT_BYTES] = "?";

    gw_wires_wanted(GW_WIRE_SAME, text);
    GW_EXPECT_STREQ(text, "");
}

GW_TEST(wires, a_provider_pins_unless_it_is_known_not_to)
{
    static const char *const free_ones[] = {"net", "tcp;ofi_rxm", "net;ofi_rxm",
                                            "shm", "sockets",     "udp;ofi_rxd"};
    static const char *const others[] = {"verbs", "verbs;ofi_rxm", "efa", "psm3", "ne", "nets"};
    char text[64];

    for (unsigned i = 0; i < 6; i++) {
        snprintf(text, sizeof(text), "ofi:%s:host:1", free_ones[i]);
        struct gw_uri uri = uri_of(text);
        GW_EXPECT(!(gw_wires_flags(&uri) & GW_EP_PINS));
        snprintf(text, sizeof(text), "ofi:%s:host:1", others[i]);
        uri = uri_of(text);
        GW_EXPECT(gw_wires_flags(&uri) & GW_EP_PINS);
    }
    struct gw_uri uri = uri_of("tcp:host:1");
    GW_EXPECT(!(gw_wires_flags(&uri) & GW_EP_PINS));
}

GW_TEST(wires, what_is_wanted_is_of_this_build_and_rdma_is_first)
{
    char text[GW_WIRES_TEXT_BYTES], word[GW_WIRE_WORD_BYTES];
    struct gw_uri beside = uri_of("tcp:host:1"), uri;
    const char *at = text;

    gw_wires_wanted(GW_WIRE_AUTO, text);
    if (gw_wire_name("rdma"))
        GW_EXPECT_EQ(strncmp(text, "rdma", 4), 0);
    while (gw_wires_next(&at, word, sizeof(word)))
        GW_EXPECT_EQ(gw_wires_beside(word, &beside, &uri, NULL), 0);
    gw_wires_wanted(GW_WIRE_RDMA, text);
    GW_EXPECT_STREQ(text, gw_wire_name("rdma") ? "rdma" : "");
}

GW_TEST(wires, a_list_is_read_word_by_word)
{
    const char *at = "one,,three";
    char word[4];

    GW_EXPECT(gw_wires_next(&at, word, sizeof(word)));
    GW_EXPECT_STREQ(word, "one");
    GW_EXPECT(gw_wires_next(&at, word, sizeof(word)));
    GW_EXPECT_STREQ(word, "");
    GW_EXPECT(gw_wires_next(&at, word, sizeof(word)));
    GW_EXPECT_STREQ(word, "thr"); /* cut */
    GW_EXPECT(!gw_wires_next(&at, word, sizeof(word)));
}

GW_TEST(wires, what_does_not_fit_is_left_out_whole)
{
    char text[GW_WIRES_TEXT_BYTES] = "", word[100];

    memset(word, 'w', sizeof(word) - 1);
    word[sizeof(word) - 1] = '\0';
    GW_EXPECT(gw_wires_add(text, word));
    GW_EXPECT(gw_wires_add(text, word));
    GW_EXPECT_EQ(strlen(text), 199);
    GW_EXPECT(!gw_wires_add(text, word));
    GW_EXPECT_EQ(strlen(text), 199);
}

GW_TEST(wires, a_peer_may_ask_for_no_other_wire)
{
    static const char *const names[] = {"loop", "loop1", "unix", "tcp",     "fault+rdma", "tap+tcp",
                                        "ofi",  "ofi:",  "",     "ofi:shm", "rdma:h:1",   "rdmax"};
    struct gw_uri beside = uri_of("tcp:host:1"), uri;

    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        GW_EXPECT_EQ(gw_wires_beside(names[i], &beside, &uri, NULL), -EINVAL);
}

GW_TEST(wires, beside_a_path_there_is_no_host)
{
    struct gw_uri beside = uri_of("unix:/tmp/s"), uri;

    GW_EXPECT_EQ(gw_wires_beside("rdma", &beside, &uri, NULL), -EINVAL);
}

GW_TEST(wires, a_host_that_says_any_is_where_the_target_was_reached)
{
    struct gw_uri beside = uri_of("tcp:there:1"), v6 = uri_of("tcp:[fd00::1]:1"), uri;

    GW_ASSERT_EQ(gw_wires_take("rdma:0.0.0.0:77", "rdma", &beside, &uri, NULL), 0);
    GW_EXPECT_STREQ(uri.text, "rdma:there:77");
    GW_ASSERT_EQ(gw_wires_take("rdma:[::]:77", "rdma", &v6, &uri, NULL), 0);
    GW_EXPECT_STREQ(uri.text, "rdma:[fd00::1]:77");
    GW_ASSERT_EQ(gw_wires_take("ofi:net:10.0.0.9:77", "ofi:net", &beside, &uri, NULL), 0);
    GW_EXPECT_STREQ(uri.text, "ofi:net:10.0.0.9:77");
    GW_EXPECT_STREQ(uri.provider, "net");
}

GW_TEST(wires, an_address_of_another_wire_is_a_lie)
{
    struct gw_uri beside = uri_of("tcp:there:1"), uri;

    GW_EXPECT_EQ(gw_wires_take("tcp:there:77", "rdma", &beside, &uri, NULL), -EPROTO);
    GW_EXPECT_EQ(gw_wires_take("rdma:there:0", "rdma", &beside, &uri, NULL), -EPROTO);
    GW_EXPECT_EQ(gw_wires_take("rdma", "rdma", &beside, &uri, NULL), -EPROTO);
    GW_EXPECT_EQ(gw_wires_take("ofi:shm:there:7", "ofi:net", &beside, &uri, NULL), -EPROTO);
    GW_EXPECT_EQ(gw_wires_take("rdma:a b:7", "rdma", &beside, &uri, NULL), -EPROTO);
}

GW_TEST(wires, why_a_wire_is_lacking_is_found_by_its_name)
{
    char text[GW_WIRES_TEXT_BYTES] = "", why[64] = "as it was", long_why[400];

    gw_wires_lack(text, "rdma", "no device | none");
    gw_wires_lack(text, "ofi:net", "absent");
    GW_EXPECT_STREQ(text, "rdma=no device / none|ofi:net=absent");
    gw_wires_why(text, "ofi", why, sizeof(why));
    GW_EXPECT_STREQ(why, "as it was");
    gw_wires_why(text, "ofi:net", why, sizeof(why));
    GW_EXPECT_STREQ(why, "at the target: absent");
    gw_wires_why(text, "rdma", why, sizeof(why));
    GW_EXPECT_STREQ(why, "at the target: no device / none");
    memset(long_why, 'y', sizeof(long_why) - 1);
    long_why[sizeof(long_why) - 1] = '\0';
    for (unsigned i = 0; i < 5; i++)
        gw_wires_lack(text, "more", long_why);
    GW_EXPECT_LT(strlen(text), GW_WIRES_TEXT_BYTES);
}
