// SPDX-License-Identifier: MIT
/* Hello: what is granted, what is raised, what is refused and in which words. */
#include "control/handshake.h"

#include "tests/unit/control/samples.h"

static struct gw_hello ours, theirs, reply;
static struct gw_error err;

static void begin(void)
{
    ours = sample_target();
    theirs = sample_hello();
    memset(&reply, 0xff, sizeof(reply));
    err = (struct gw_error)GW_ERROR_INIT;
}

static void answer_refuses(int rc, enum gw_code code, const char *text)
{
    struct gw_hello before = reply;
    GW_EXPECT_EQ(gw_hello_answer(&ours, &theirs, &reply, &err), rc);
    GW_EXPECT_EQ(err.code, code);
    GW_EXPECT_STREQ(err.message, text);
    GW_EXPECT_MEMEQ(&before, &reply, sizeof(reply));
    begin();
}

static void accept_refuses(int rc, enum gw_code code, const char *text)
{
    GW_EXPECT_EQ(gw_hello_accept(&theirs, &reply, &err), rc);
    GW_EXPECT_EQ(err.code, code);
    GW_EXPECT_STREQ(err.message, text);
    begin();
    GW_ASSERT_EQ(gw_hello_answer(&ours, &theirs, &reply, &err), 0);
}

GW_TEST(handshake, a_pair_that_fits_agrees)
{
    begin();
    GW_ASSERT_EQ(gw_hello_answer(&ours, &theirs, &reply, &err), 0);
    GW_EXPECT_EQ(reply.version_min, 1);
    GW_EXPECT_EQ(reply.version_max, 1);
    GW_EXPECT_EQ(reply.flags, GW_HELLO_DIGEST);
    GW_EXPECT_EQ(reply.endpoints, 2); /* the source has 4, the target takes 2 */
    GW_EXPECT_EQ(reply.stripe_bytes, 32 << 20);
    GW_EXPECT_EQ(reply.blocks_max, 10000);
    GW_EXPECT_EQ(reply.ram_bytes_max, UINT64_C(12) << 30);
    GW_EXPECT_EQ(reply.memlock_bytes, 64 << 10);
    GW_EXPECT_EQ(reply.incarnation, ours.incarnation);
    GW_EXPECT_STREQ(reply.machine, "pc-i440fx-7.2");
    GW_EXPECT_EQ(gw_hello_accept(&theirs, &reply, &err), 0);
}

GW_TEST(handshake, fewer_endpoints_than_taken_are_granted_whole)
{
    begin();
    theirs.endpoints = 1;
    GW_ASSERT_EQ(gw_hello_answer(&ours, &theirs, &reply, &err), 0);
    GW_EXPECT_EQ(reply.endpoints, 1);
    begin();
    theirs.endpoints = UINT32_MAX;
    GW_ASSERT_EQ(gw_hello_answer(&ours, &theirs, &reply, &err), 0);
    GW_EXPECT_EQ(reply.endpoints, 2);
}

GW_TEST(handshake, the_newest_common_version_is_chosen)
{
    begin();
    ours.version_min = 2;
    ours.version_max = 5;
    theirs.version_max = 4;
    GW_ASSERT_EQ(gw_hello_answer(&ours, &theirs, &reply, &err), 0);
    GW_EXPECT_EQ(reply.version_min, 4);
    GW_EXPECT_EQ(reply.version_max, 4);
    theirs.version_min = theirs.version_max = 2;
    GW_ASSERT_EQ(gw_hello_answer(&ours, &theirs, &reply, &err), 0);
    GW_EXPECT_EQ(reply.version_max, 2);
}

GW_TEST(handshake, patience_is_never_shorter_than_the_sources)
{
    begin();
    ours.settle_timeout_ns = 5;
    ours.hold_timeout_ns = 3;
    theirs.settle_timeout_ns = 7;
    theirs.hold_timeout_ns = 2;
    GW_ASSERT_EQ(gw_hello_answer(&ours, &theirs, &reply, &err), 0);
    GW_EXPECT_EQ(reply.settle_timeout_ns, 7);
    GW_EXPECT_EQ(reply.hold_timeout_ns, 7);
    theirs.settle_timeout_ns = 1;
    theirs.hold_timeout_ns = 9;
    GW_ASSERT_EQ(gw_hello_answer(&ours, &theirs, &reply, &err), 0);
    GW_EXPECT_EQ(reply.settle_timeout_ns, 5);
    GW_EXPECT_EQ(reply.hold_timeout_ns, 9);
}

GW_TEST(handshake, the_sources_peer_and_device_time_outs_rule)
{
    begin();
    theirs.peer_timeout_ns = 500 * GW_NS_PER_MS;
    theirs.device_timeout_ns = 5 * GW_NS_PER_S;
    GW_ASSERT_EQ(gw_hello_answer(&ours, &theirs, &reply, &err), 0);
    GW_EXPECT_EQ(reply.peer_timeout_ns, 500 * GW_NS_PER_MS);
    GW_EXPECT_EQ(reply.device_timeout_ns, 5 * GW_NS_PER_S);
    theirs.device_timeout_ns = 0;
    GW_ASSERT_EQ(gw_hello_answer(&ours, &theirs, &reply, &err), 0);
    GW_EXPECT_EQ(reply.device_timeout_ns, 60 * GW_NS_PER_S);
}

GW_TEST(handshake, refusals_name_both_sides)
{
    begin();
    theirs.version_min = 2;
    theirs.version_max = 3;
    answer_refuses(-EPROTONOSUPPORT, GW_CODE_UNSUPPORTED,
                   "source speaks protocol versions 2 to 3, target 1 to 1");
    ours.version_min = 2;
    ours.version_max = 2;
    answer_refuses(-EPROTONOSUPPORT, GW_CODE_UNSUPPORTED,
                   "source speaks protocol versions 1 to 1, target 2 to 2");
    theirs.version_min = 0;
    answer_refuses(-EPROTO, GW_CODE_PROTOCOL, "source speaks protocol versions 0 to 1");
    theirs.version_min = 2;
    answer_refuses(-EPROTO, GW_CODE_PROTOCOL, "source speaks protocol versions 2 to 1");
    theirs.page_bytes = 16384;
    answer_refuses(-EPROTONOSUPPORT, GW_CODE_UNSUPPORTED,
                   "source has pages of 16384 bytes, target of 4096");
    theirs.flags = 5;
    answer_refuses(-EPROTONOSUPPORT, GW_CODE_UNSUPPORTED,
                   "source asks for features 0x5, target knows 0x3");
    theirs.endpoints = 0;
    answer_refuses(-EPROTO, GW_CODE_PROTOCOL, "source has no page endpoints");
    theirs.endpoints = 5;
    ours.endpoints = 0;
    answer_refuses(-E2BIG, GW_CODE_LIMIT, "source has 5 page endpoints, target takes at most 0");
    theirs.ram_bytes = (UINT64_C(12) << 30) + 4096;
    answer_refuses(-E2BIG, GW_CODE_LIMIT,
                   "source has 12884905984 bytes of RAM, target takes at most 12884901888");
    theirs.blocks_max = 10001;
    answer_refuses(-E2BIG, GW_CODE_LIMIT,
                   "source has 10001 memory blocks, target takes at most 10000");
    theirs.message_payload_max = 4095;
    answer_refuses(-EPROTO, GW_CODE_PROTOCOL,
                   "source takes messages of 4095 bytes, at least 4096 are needed");
    strcpy(ours.machine, "q35");
    answer_refuses(-EINVAL, GW_CODE_UNSUPPORTED,
                   "source is a machine 'pc-i440fx-7.2', target expects 'q35'");
    ours.uuid[0] = 0xaa;
    answer_refuses(-EINVAL, GW_CODE_REFUSED,
                   "source is the machine with UUID 01020304-0506-0708-090a-0b0c0d0e0f10, target "
                   "expects aa000000-0000-0000-0000-000000000000");
}

GW_TEST(handshake, limits_are_exact)
{
    begin();
    theirs.ram_bytes = ours.ram_bytes_max;
    theirs.blocks_max = ours.blocks_max;
    theirs.message_payload_max = 4096;
    theirs.peer_timeout_ns = 10 * GW_NS_PER_MS;
    theirs.settle_timeout_ns = 0;
    theirs.hold_timeout_ns = 30 * 24 * 3600 * GW_NS_PER_S;
    GW_EXPECT_EQ(gw_hello_answer(&ours, &theirs, &reply, &err), 0);
    theirs.ram_bytes = theirs.blocks_max = 0;
    GW_EXPECT_EQ(gw_hello_answer(&ours, &theirs, &reply, &err), 0);
}

GW_TEST(handshake, stripes_are_multiples_of_512_pages)
{
    static const uint64_t bad[] = {0, 4096, (2 << 20) + 4096, UINT64_MAX, UINT64_C(1) << 41};
    static const uint64_t good[] = {2 << 20, 6 << 20, UINT64_C(1) << 40};
    begin();
    for (int i = 0; i < 5; i++) {
        theirs.stripe_bytes = bad[i];
        GW_EXPECT_EQ(gw_hello_answer(&ours, &theirs, &reply, &err), -EPROTO);
    }
    for (int i = 0; i < 3; i++) {
        theirs.stripe_bytes = good[i];
        GW_EXPECT_EQ(gw_hello_answer(&ours, &theirs, &reply, &err), 0);
    }
}

GW_TEST(handshake, time_outs_that_would_overflow_are_refused)
{
    uint64_t too_long = 30 * 24 * 3600 * GW_NS_PER_S + 1;
    begin();
    theirs.peer_timeout_ns = 0;
    GW_EXPECT_EQ(gw_hello_answer(&ours, &theirs, &reply, &err), -EPROTO);
    theirs.peer_timeout_ns = UINT64_MAX;
    GW_EXPECT_EQ(gw_hello_answer(&ours, &theirs, &reply, &err), -EPROTO);
    begin();
    theirs.settle_timeout_ns = too_long;
    GW_EXPECT_EQ(gw_hello_answer(&ours, &theirs, &reply, &err), -EPROTO);
    begin();
    theirs.hold_timeout_ns = UINT64_MAX;
    GW_EXPECT_EQ(gw_hello_answer(&ours, &theirs, &reply, &err), -EPROTO);
    begin();
    theirs.device_timeout_ns = too_long;
    GW_EXPECT_EQ(gw_hello_answer(&ours, &theirs, &reply, &err), -EPROTO);
}

GW_TEST(handshake, a_target_without_a_uuid_takes_any)
{
    begin();
    memset(ours.uuid, 0, sizeof(ours.uuid));
    GW_EXPECT_EQ(gw_hello_answer(&ours, &theirs, &reply, &err), 0);
    GW_EXPECT_MEMEQ(reply.uuid, theirs.uuid, sizeof(reply.uuid));
    memcpy(ours.uuid, theirs.uuid, sizeof(ours.uuid));
    GW_EXPECT_EQ(gw_hello_answer(&ours, &theirs, &reply, &err), 0);
    memset(theirs.uuid, 0, sizeof(theirs.uuid));
    GW_EXPECT_EQ(gw_hello_answer(&ours, &theirs, &reply, &err), 0);
}

GW_TEST(handshake, the_source_refuses_a_reply_that_it_did_not_ask_for)
{
    begin();
    GW_ASSERT_EQ(gw_hello_answer(&ours, &theirs, &reply, &err), 0);
    reply.version_max = reply.version_min = 2;
    accept_refuses(-EPROTO, GW_CODE_PROTOCOL,
                   "target chose protocol versions 2 to 2, source speaks 1 to 1");
    reply.endpoints = 5;
    accept_refuses(-EPROTO, GW_CODE_PROTOCOL, "target grants 5 page endpoints, source has 4");
    reply.endpoints = 0;
    accept_refuses(-EPROTO, GW_CODE_PROTOCOL, "target grants 0 page endpoints, source has 4");
    reply.flags = 0;
    accept_refuses(-EPROTO, GW_CODE_PROTOCOL, "target grants features 0x0, source asked for 0x1");
    reply.incarnation = 0;
    accept_refuses(-EPROTO, GW_CODE_PROTOCOL, "target has no incarnation id");
    reply.settle_timeout_ns = 29 * GW_NS_PER_S;
    accept_refuses(-EPROTO, GW_CODE_PROTOCOL,
                   "target settles for 29000000000 ns, source for 30000000000: the target's may "
                   "not be shorter");
    reply.hold_timeout_ns = 29 * GW_NS_PER_S;
    accept_refuses(-EPROTO, GW_CODE_PROTOCOL,
                   "target holds for 29000000000 ns, shorter than the settle time of 30000000000");
    reply.peer_timeout_ns = GW_NS_PER_S;
    accept_refuses(-EPROTO, GW_CODE_PROTOCOL,
                   "target has a peer time-out of 1000000000 ns, source of 2000000000");
    reply.stripe_bytes = 2 << 20;
    accept_refuses(-EPROTO, GW_CODE_PROTOCOL,
                   "target answers pages of 4096 and stripes of 2097152 bytes, source has 4096 and "
                   "33554432");
    reply.ram_bytes_max = 4096;
    accept_refuses(-E2BIG, GW_CODE_LIMIT,
                   "source has 1073741824 bytes of RAM, target takes at most 4096");
    reply.blocks_max = 2;
    accept_refuses(-E2BIG, GW_CODE_LIMIT, "source has 3 memory blocks, target takes at most 2");
    reply.message_payload_max = 0;
    accept_refuses(-EPROTO, GW_CODE_PROTOCOL,
                   "target takes messages of 0 bytes, at least 4096 are needed");
}
