// SPDX-License-Identifier: MIT
/* A source that says what no honest one would: in the wrong state, too much, too long. The target ends
 * that session with a reason, keeps to its bounds meanwhile, and serves the next guest. */
#include "core/base/clock.h"
#include "tests/shim/gw_test.h"
#include "tests/support/pair.h"
#include "tests/support/raw_peer.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MIB (UINT64_C(1) << 20)
#define SECONDS 60u
#define PEER_TIMEOUT_NS (30 * GW_NS_PER_S)

struct hostile {
    struct pair pair; /* first: hooks get it and cast */
    struct raw_source raw;
    pthread_t thread;
    _Atomic bool go, stop;
    bool said;
};

static struct hostile *hostile_of(struct pair *pair)
{
    return (struct hostile *)pair;
}

static void hostile_open(struct hostile *hostile, unsigned blocks)
{
    pair_add_block(&hostile->pair, "ram0", 4 * MIB, GW_BLOCK_ANON, 0);
    for (unsigned i = 1; i < blocks; i++)
        pair_add_block(&hostile->pair, "ram1", 4 * MIB, GW_BLOCK_ANON, 0);
    pair_init(&hostile->pair);
    pair_listen(&hostile->pair);
}

static void hostile_start(struct hostile *hostile, void *(*body)(void *))
{
    GW_ASSERT_EQ(pthread_create(&hostile->thread, NULL, body, hostile), 0);
}

static bool target_over(struct pair *pair)
{
    pair->target_rc = gw_target_wait(pair->tgt, 0, &pair->target_err);
    return pair->target_rc != -EINPROGRESS;
}

/* The same target takes an honest guest at once. */
static void expect_next_guest_arrives(struct hostile *hostile)
{
    struct pair *pair = &hostile->pair;
    pair_listen(pair);
    pair_start(pair);
    GW_EXPECT(pair_finish(pair, SECONDS));
    GW_EXPECT_EQ(pair->source_rc, 0);
    GW_EXPECT_EQ(pair->target_rc, 0);
    GW_EXPECT_EQ(pair_differs(pair), -1);
}

static void hostile_close(struct hostile *hostile)
{
    pthread_join(hostile->thread, NULL);
    raw_source_close(&hostile->raw);
    pair_fini(&hostile->pair);
}

static void expect_refused(struct hostile *hostile, const char *why)
{
    GW_EXPECT(pair_until(&hostile->pair, target_over, SECONDS));
    GW_EXPECT_EQ(hostile->pair.target_rc, -EPROTO);
    GW_EXPECT_EQ(hostile->pair.target_err.code, GW_CODE_PROTOCOL);
    if (!strstr(hostile->pair.target_err.message, why))
        GW_NOTE_FAILURE("'%s' says nothing of '%s'", hostile->pair.target_err.message, why);
    GW_EXPECT_EQ(hostile->pair.runs, 0);
    expect_next_guest_arrives(hostile);
    hostile_close(hostile);
}

/* Steps what it has until the target has ended the session. */
static void linger(struct hostile *hostile)
{
    struct gw_message msg;
    while (raw_hear(&hostile->raw, GW_MSG_FAILED, &msg))
        ;
}

/* ---- pages before BLOCKS_OK ------------------------------------------------------------------- */

static void say_zero(struct raw_source *raw, uint64_t first_page, uint64_t pages)
{
    uint8_t buf[64];
    struct gw_list_builder list = {.buf = buf, .bytes = sizeof(buf)};
    struct gw_range_msg range = {.block = 0, .first = first_page, .count = pages};
    GW_EXPECT_EQ(gw_list_add_range(&list, GW_MSG_ZERO, &range), 0);
    struct gw_message msg = {.type = GW_MSG_ZERO};
    msg.u.zero.number = 1;
    msg.u.zero.runs.data = buf;
    msg.u.zero.runs.bytes = list.used;
    raw_say(raw->page_channel[0], &msg);
}

/* The embedder has taken the first block and works on the second: now. */
static int wait_on_the_second(struct pair *pair, const struct gw_block_offer *offer)
{
    struct hostile *hostile = hostile_of(pair);
    if (offer->id == 1 && !hostile->said) {
        hostile->said = true;
        atomic_store(&hostile->go, true);
        while (!atomic_load(&hostile->stop))
            usleep(1000); /* paces a loop that a flag ends */
        usleep(100000);   /* the target's page thread has read it */
    }
    return 0;
}

static void await_go(struct hostile *hostile)
{
    while (!atomic_load(&hostile->go))
        usleep(1000); /* paces a loop that a flag ends */
}

static void *zero_too_early(void *arg)
{
    struct hostile *hostile = arg;
    raw_source_connect(&hostile->raw, gw_target_uri(hostile->pair.tgt), 8 * MIB, 1,
                       PEER_TIMEOUT_NS);
    raw_offer(&hostile->raw, 4 * MIB, 2);
    await_go(hostile);
    say_zero(&hostile->raw, 0, 1);
    atomic_store(&hostile->stop, true);
    linger(hostile);
    return NULL;
}

static void *fence_too_early(void *arg)
{
    struct hostile *hostile = arg;
    raw_source_connect(&hostile->raw, gw_target_uri(hostile->pair.tgt), 8 * MIB, 1,
                       PEER_TIMEOUT_NS);
    raw_offer(&hostile->raw, 4 * MIB, 2);
    await_go(hostile);
    raw_fence(&hostile->raw, 0, 1, false);
    atomic_store(&hostile->stop, true);
    linger(hostile);
    return NULL;
}

static void expect_too_early(void *(*body)(void *), const char *why)
{
    struct hostile *hostile = calloc(1, sizeof(*hostile));
    hostile->pair.block_offered = wait_on_the_second;
    hostile_open(hostile, 2);
    hostile_start(hostile, body);
    expect_refused(hostile, why);
    free(hostile);
}

GW_TEST(hostile_source, zero_run_before_blocks_ok_is_refused)
{
    expect_too_early(zero_too_early, "ZERO before BLOCKS_OK");
}

GW_TEST(hostile_source, fence_before_blocks_ok_is_refused)
{
    expect_too_early(fence_too_early, "FENCE before BLOCKS_OK");
}

/* ---- items ------------------------------------------------------------------------------------ */

static void *empty_item(void *arg)
{
    struct hostile *hostile = arg;
    raw_source_open(&hostile->raw, gw_target_uri(hostile->pair.tgt), 4 * MIB, 1, PEER_TIMEOUT_NS);
    struct gw_writer w;
    gw_writer_init(&w, 16);
    raw_item(&hostile->raw, &w);
    gw_writer_fini(&w);
    linger(hostile);
    return NULL;
}

GW_TEST(hostile_source, empty_item_is_refused)
{
    struct hostile *hostile = calloc(1, sizeof(*hostile));
    hostile_open(hostile, 1);
    hostile_start(hostile, empty_item);
    expect_refused(hostile, "empty item");
    free(hostile);
}

/* The first waits for fences that never come, and the others for it. */
static void *many_small_items(void *arg)
{
    struct hostile *hostile = arg;
    struct raw_source *raw = &hostile->raw;
    raw_source_open(raw, gw_target_uri(hostile->pair.tgt), 4 * MIB, 1, PEER_TIMEOUT_NS);
    raw_ram_end(raw);
    struct gw_error err = GW_ERROR_INIT;
    struct gw_message msg = {.type = GW_MSG_STREAM, .flags = GW_MSG_FLAG_LAST};
    msg.u.data.data = (const uint8_t *)"";
    msg.u.data.bytes = 1;
    for (unsigned i = 0; i < 100000;) {
        int rc = gw_channel_send(raw->channel, &msg);
        struct gw_message said;
        if (rc == 0 && ++i % 256)
            continue;
        rc = gw_channel_recv(raw->channel, &said, &err);
        if (rc >= 0)
            rc = gw_channel_step(raw->channel, gw_clock_ns(), &err);
        if (rc >= 0) /* its page endpoint beats on: it is no silence that is refused */
            rc = gw_channel_step(raw->page_channel[0], gw_clock_ns(), &err);
        if (rc < 0)
            break;
    }
    linger(hostile);
    return NULL;
}

GW_TEST(hostile_source, more_items_than_a_stream_can_have_are_refused)
{
    struct hostile *hostile = calloc(1, sizeof(*hostile));
    hostile_open(hostile, 1);
    hostile_start(hostile, many_small_items);
    GW_EXPECT(pair_until(&hostile->pair, target_over, SECONDS));
    GW_EXPECT_EQ(hostile->pair.target_err.code, GW_CODE_LIMIT);
    expect_next_guest_arrives(hostile);
    hostile_close(hostile);
    free(hostile);
}

/* One byte more than x-section-max, counted as the source's writer counts: head and footer included. */
static void *long_item(void *arg)
{
    struct hostile *hostile = arg;
    static const uint8_t body[4097 - 18 - 5];
    raw_source_open(&hostile->raw, gw_target_uri(hostile->pair.tgt), 4 * MIB, 1, PEER_TIMEOUT_NS);
    raw_device(&hostile->raw, "pair", body, sizeof(body));
    linger(hostile);
    return NULL;
}

GW_TEST(hostile_source, item_longer_than_section_max_is_refused)
{
    struct hostile *hostile = calloc(1, sizeof(*hostile));
    struct gw_params *params = pair_params();
    GW_EXPECT_EQ(gw_params_set(params, "x-section-max", "4096", NULL), 0);
    hostile->pair.target_params = params;
    hostile_open(hostile, 1);
    hostile_start(hostile, long_item);
    GW_EXPECT(pair_until(&hostile->pair, target_over, SECONDS));
    GW_EXPECT_EQ(hostile->pair.target_rc, -E2BIG);
    GW_EXPECT_EQ(hostile->pair.target_err.code, GW_CODE_LIMIT);
    expect_next_guest_arrives(hostile);
    hostile_close(hostile);
    gw_params_free(params);
    free(hostile);
}

/* ---- keys ------------------------------------------------------------------------------------- */

static void *release_of_no_key(void *arg)
{
    struct hostile *hostile = arg;
    uint8_t buf[64];
    struct gw_list_builder list = {.buf = buf, .bytes = sizeof(buf)};
    struct gw_range_msg range = {.block = 0, .first = 0, .count = 2 * MIB};
    raw_source_open(&hostile->raw, gw_target_uri(hostile->pair.tgt), 4 * MIB, 1, PEER_TIMEOUT_NS);
    GW_EXPECT_EQ(gw_list_add_range(&list, GW_MSG_RELEASE, &range), 0);
    struct gw_message msg = {.type = GW_MSG_RELEASE};
    msg.u.list.data = buf;
    msg.u.list.bytes = list.used;
    raw_say(hostile->raw.channel, &msg);
    linger(hostile);
    return NULL;
}

GW_TEST(hostile_source, release_of_a_key_that_was_never_given_is_refused)
{
    struct hostile *hostile = calloc(1, sizeof(*hostile));
    hostile_open(hostile, 1);
    hostile_start(hostile, release_of_no_key);
    expect_refused(hostile, "RELEASE of a key that was never given");
    free(hostile);
}

/* ---- fences ----------------------------------------------------------------------------------- */

/* Of two endpoints one says its fence for both; the second time may be too early, or is one too many. */
static void *fence_twice(void *arg)
{
    struct hostile *hostile = arg;
    raw_source_open(&hostile->raw, gw_target_uri(hostile->pair.tgt), 4 * MIB, 2, PEER_TIMEOUT_NS);
    raw_fence(&hostile->raw, 0, 1, false);
    raw_fence(&hostile->raw, 0, 1, false);
    linger(hostile);
    return NULL;
}

GW_TEST(hostile_source, the_fence_of_one_endpoint_is_not_that_of_another)
{
    struct hostile *hostile = calloc(1, sizeof(*hostile));
    hostile_open(hostile, 1);
    hostile_start(hostile, fence_twice);
    GW_EXPECT(pair_until(&hostile->pair, target_over, SECONDS));
    GW_EXPECT_EQ(hostile->pair.target_rc, -EPROTO);
    GW_EXPECT(strstr(hostile->pair.target_err.message, "page endpoint 1") != NULL ||
              strstr(hostile->pair.target_err.place, "page endpoint 1") != NULL);
    expect_next_guest_arrives(hostile);
    hostile_close(hostile);
    free(hostile);
}

/* ---- PREPARE ---------------------------------------------------------------------------------- */

static void *prepare_of_another_fence(void *arg)
{
    struct hostile *hostile = arg;
    static const uint8_t body[8];
    raw_source_open(&hostile->raw, gw_target_uri(hostile->pair.tgt), 4 * MIB, 1, PEER_TIMEOUT_NS);
    raw_fence(&hostile->raw, 0, 1, true);
    raw_ram_end(&hostile->raw);
    raw_device(&hostile->raw, "pair", body, sizeof(body));
    raw_eof(&hostile->raw);
    raw_prepare(&hostile->raw, 2);
    linger(hostile);
    return NULL;
}

GW_TEST(hostile_source, prepare_of_a_fence_that_was_not_the_last_is_refused)
{
    struct hostile *hostile = calloc(1, sizeof(*hostile));
    struct gw_params *params = pair_params();
    /* From PREPARE on an outcome is listened for until it is acknowledged. */
    GW_EXPECT_EQ(gw_params_set(params, "x-settle-timeout", "500", NULL), 0);
    GW_EXPECT_EQ(gw_params_set(params, "x-hold-timeout", "500", NULL), 0);
    hostile->pair.target_params = params;
    hostile_open(hostile, 1);
    hostile_start(hostile, prepare_of_another_fence);
    expect_refused(hostile, "final fence");
    gw_params_free(params);
    free(hostile);
}

/* ---- a flood ---------------------------------------------------------------------------------- */

/* Wishes are advice: any number may come, and each message is long to look through. */
static void *flood(void *arg)
{
    struct hostile *hostile = arg;
    struct raw_source *raw = &hostile->raw;
    struct gw_error err = GW_ERROR_INIT;
    raw_source_open(raw, gw_target_uri(hostile->pair.tgt), 4 * MIB, 1, PEER_TIMEOUT_NS);
    uint32_t room = 20u * 50000u;
    uint8_t *buf = calloc(1, room);
    struct gw_list_builder list = {.buf = buf, .bytes = room};
    struct gw_range_msg range = {.block = 0, .first = 0, .count = 4096};
    while (gw_list_add_range(&list, GW_MSG_WISHES, &range) == 0)
        ;
    struct gw_message msg = {.type = GW_MSG_WISHES};
    msg.u.list.data = buf;
    msg.u.list.bytes = list.used;
    atomic_store(&hostile->go, true);
    while (!atomic_load(&hostile->stop)) {
        struct gw_message said;
        int rc = gw_channel_send(raw->channel, &msg);
        if (rc == -EAGAIN)
            rc = gw_channel_recv(raw->channel, &said, &err);
        if (rc >= 0)
            rc = gw_channel_step(raw->channel, gw_clock_ns(), &err);
        if (rc < 0)
            break;
    }
    free(buf);
    return NULL;
}

GW_TEST(hostile_source, flood_does_not_keep_the_target_from_being_cancelled)
{
    struct hostile *hostile = calloc(1, sizeof(*hostile));
    hostile_open(hostile, 1);
    hostile_start(hostile, flood);
    uint64_t end = gw_clock_ns() + SECONDS * GW_NS_PER_S;
    while (!atomic_load(&hostile->go) && gw_clock_ns() < end)
        pair_pump(&hostile->pair, 5);
    usleep(300000); /* the flood is at its height */
    GW_EXPECT_EQ(gw_target_cancel(hostile->pair.tgt), 0);
    GW_EXPECT(pair_until(&hostile->pair, target_over, SECONDS));
    GW_EXPECT_EQ(hostile->pair.target_rc, -ECANCELED);
    atomic_store(&hostile->stop, true);
    hostile_close(hostile);
    free(hostile);
}
