// SPDX-License-Identifier: MIT
/* Every failure tells code, phase, place, message and hint at the side that it is told to, and the
 * first one is not overwritten by what follows from it. */
#include "tests/shim/gw_test.h"
#include "tests/support/pair.h"
#include "tests/support/proxy.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define MIB (UINT64_C(1) << 20)
#define SECONDS 60u

struct told {
    struct pair pair; /* first: hooks get it and cast */
    struct gw_params *params;
    struct proxy *proxy;
    unsigned rule;       /* of lose() */
    const char *hold_ms; /* NULL: 300 */
    _Atomic unsigned unknown, holding, ended;
    struct gw_error ended_err; /* of the source's ENDED */
};

static void on_source_event(struct pair *pair, const struct gw_event *event)
{
    struct told *told = (struct told *)pair;
    told->unknown += event->type == GW_EVENT_UNKNOWN;
    if (event->type == GW_EVENT_ENDED && event->error)
        told->ended_err = *event->error;
}

static void on_target_event(struct pair *pair, const struct gw_event *event)
{
    ((struct told *)pair)->holding += event->type == GW_EVENT_HOLDING;
}

static void begin(struct told *told)
{
    const char *hold_ms = told->hold_ms ? told->hold_ms : "300";
    told->params = pair_params();
    GW_EXPECT_EQ(gw_params_set(told->params, "x-settle-timeout", "300", NULL), 0);
    GW_EXPECT_EQ(gw_params_set(told->params, "x-hold-timeout", hold_ms, NULL), 0);
    told->pair.params = told->pair.target_params = told->params;
    told->pair.source_event = on_source_event;
    told->pair.target_event = on_target_event;
    pair_add_block(&told->pair, "ram0", 2 * MIB, GW_BLOCK_ANON, 50);
    pair_init(&told->pair);
    pair_listen(&told->pair);
    told->proxy = proxy_new(gw_target_uri(told->pair.tgt));
}

static void go(struct told *told)
{
    struct gw_error err = GW_ERROR_INIT;
    if (gw_source_start(told->pair.src, proxy_uri(told->proxy), &err) < 0)
        GW_FAIL("%s", err.message);
}

static void end(struct told *told)
{
    pair_fini(&told->pair);
    proxy_free(told->proxy);
    gw_params_free(told->params);
}

static void expect_whole(const char *who, const struct gw_error *err, enum gw_code code,
                         const char *phase)
{
    GW_EXPECT_EQ(err->code, code);
    GW_EXPECT_STREQ(err->phase, phase);
    if (strncmp(err->place, "tcp:", 4) != 0 && !strstr(err->place, "endpoint"))
        GW_NOTE_FAILURE("%s: place '%s' names no address", who, err->place);
    if (err->rc >= 0 || !err->message[0] || !err->hint[0])
        GW_NOTE_FAILURE("%s: rc %d, message '%s', hint '%s'", who, err->rc, err->message,
                        err->hint);
}

static int fails(struct pair *pair)
{
    (void)pair;
    return -EBUSY;
}

GW_TEST(told, acquire_that_fails)
{
    struct told told = {.pair = {.acquire = fails}};
    begin(&told);
    go(&told);
    GW_EXPECT(pair_finish(&told.pair, SECONDS));
    expect_whole("source", &told.pair.source_err, GW_CODE_DECLINED, "device");
    expect_whole("target", &told.pair.target_err, GW_CODE_GUEST, "device");
    end(&told);
}

GW_TEST(told, run_that_fails)
{
    struct told told = {.pair = {.run = fails}};
    begin(&told);
    go(&told);
    GW_EXPECT(pair_finish(&told.pair, SECONDS));
    GW_EXPECT_EQ(told.pair.source_rc, 0);
    expect_whole("target", &told.pair.target_err, GW_CODE_GUEST, "device");
    end(&told);
}

GW_TEST(told, pause_that_fails)
{
    struct told told = {.pair = {.pause = fails}};
    begin(&told);
    go(&told);
    GW_EXPECT(pair_finish(&told.pair, SECONDS));
    expect_whole("source", &told.pair.source_err, GW_CODE_GUEST, "device");
    expect_whole("target", &told.pair.target_err, GW_CODE_GUEST, "active");
    end(&told);
}

static bool has_struck(struct pair *pair)
{
    const struct told *told = (struct told *)pair;
    return proxy_has_struck(told->proxy, told->rule);
}

static void lose(struct told *told, enum proxy_way way, enum gw_message_type type)
{
    begin(told);
    told->rule = proxy_on(told->proxy, way, type, 1, PROXY_CUT);
    proxy_refuse_after(told->proxy, told->rule);
    go(told);
    GW_EXPECT(pair_until(&told->pair, has_struck, SECONDS));
}

GW_TEST(told, hold_that_times_out)
{
    struct told told = {.pair = {.device_value = 1}};
    lose(&told, PROXY_TO_SOURCE, GW_MSG_PREPARED);
    GW_EXPECT(pair_finish(&told.pair, SECONDS));
    expect_whole("source", &told.pair.source_err, GW_CODE_PEER_LOST, "device");
    expect_whole("target", &told.pair.target_err, GW_CODE_PEER_LOST, "device");
    end(&told);
}

GW_TEST(told, blocks_lost_in_setup)
{
    struct told told = {.pair = {.device_value = 1}};
    lose(&told, PROXY_TO_TARGET, GW_MSG_BLOCKS);
    GW_EXPECT(pair_finish(&told.pair, SECONDS));
    expect_whole("source", &told.pair.source_err, GW_CODE_PEER_LOST, "setup");
    expect_whole("target", &told.pair.target_err, GW_CODE_PEER_LOST, "setup");
    end(&told);
}

static bool is_holding(struct pair *pair)
{
    return ((struct told *)pair)->holding > 0;
}

GW_TEST(told, guest_discarded_by_the_operator)
{
    struct told told = {.pair = {.device_value = 1}, .hold_ms = "60000"};
    lose(&told, PROXY_TO_SOURCE, GW_MSG_PREPARED);
    GW_EXPECT(pair_until(&told.pair, is_holding, SECONDS));
    GW_EXPECT_EQ(gw_target_claim(told.pair.tgt), 0);
    GW_EXPECT_EQ(gw_target_resolve(told.pair.tgt, GW_RESOLVE_DISCARD, NULL), 0);
    GW_EXPECT(pair_finish(&told.pair, SECONDS));
    expect_whole("target", &told.pair.target_err, GW_CODE_VOID, "device");
    end(&told);
}

static bool is_unknown(struct pair *pair)
{
    return ((struct told *)pair)->unknown > 0;
}

GW_TEST(told, outcome_that_is_unknown_and_abandoned)
{
    struct told told = {.pair = {.device_value = 1}};
    lose(&told, PROXY_TO_TARGET, GW_MSG_COMMIT);
    GW_EXPECT(pair_until(&told.pair, is_unknown, SECONDS));
    GW_EXPECT_EQ(gw_source_wait(told.pair.src, 0, &told.pair.source_err), -EINPROGRESS);
    expect_whole("source", &told.pair.source_err, GW_CODE_UNKNOWN, "device");
    GW_EXPECT_EQ(gw_source_resolve(told.pair.src, GW_RESOLVE_ABANDON, NULL), 0);
    GW_EXPECT(pair_finish(&told.pair, SECONDS));
    expect_whole("source", &told.pair.source_err, GW_CODE_UNKNOWN, "device");
    expect_whole("target", &told.pair.target_err, GW_CODE_PEER_LOST, "device");
    end(&told);
}

GW_TEST(told, source_freed_while_it_asks)
{
    struct told told = {.pair = {.device_value = 1}};
    lose(&told, PROXY_TO_TARGET, GW_MSG_COMMIT);
    usleep(100000); /* the source has noticed: it asks */
    gw_source_free(told.pair.src);
    told.pair.src = NULL;
    expect_whole("source", &told.ended_err, GW_CODE_UNKNOWN, "device");
    end(&told);
}
