// SPDX-License-Identifier: MIT
/* One connection of a migration is cut, falls silent or loses a message: control, and each page
 * endpoint, by a filter at the source and by one at the target. The guest goes on at the source, both
 * sides fail with whole errors long before anything but the loss could end them, and the same two
 * then migrate it. (Slow and ragged links: filters_test.c and tests/rules/handover_test.c.) */
#include "tests/shim/gw_test.h"
#include "tests/support/pair.h"

#include <stdio.h>
#include <string.h>

#define SECONDS 30u /* half of x-device-timeout, which would end what is not noticed */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define PEER_TIMEOUT_MS "3000"
#else
#define PEER_TIMEOUT_MS "800"
#endif
#define RAM_BYTES (UINT64_C(4) << 20)

static const char *const faults[] = {"do=cut,ep=0,at=message:3",
                                     "do=cut,ep=1,at=put:1",
                                     "do=cut,ep=2,at=put:1",
                                     "do=cut,ep=1,head=0062,at=message:1", /* behind FENCE */
                                     "do=cut,ep=2,head=0062,at=message:1",
                                     "do=mute,ep=0,at=message:3",
                                     "do=mute,ep=1,at=put:1",
                                     "do=mute,ep=2,at=put:1",
                                     "do=mute,ep=1,way=out,at=put:1", /* half open */
                                     "do=drop,ep=0,at=message:3",
                                     "do=drop,ep=1,at=put:1",
                                     "do=drop,ep=2,head=0062,at=message:1",
                                     NULL};

static void set(struct gw_params *params, const char *name, const char *value)
{
    GW_ASSERT_EQ(gw_params_set(params, name, value, NULL), 0);
}

static struct gw_params *new_params(void)
{
    struct gw_params *params = gw_params_new();
    set(params, "x-peer-timeout", PEER_TIMEOUT_MS);
    set(params, "x-settle-timeout", "200");
    set(params, "x-hold-timeout", "200");
    set(params, "x-stripe-size", "2M");
    return params;
}

static void expect_whole(const char *side, const struct gw_error *err)
{
    if (err->code == GW_CODE_NONE || !err->phase[0] || !err->place[0] || !err->message[0] ||
        !err->hint[0])
        GW_NOTE_FAILURE("%s: code %s, phase '%s', place '%s', message '%s', hint '%s'", side,
                        gw_code_name(err->code), err->phase, err->place, err->message, err->hint);
}

static void arrives(struct pair *pair)
{
    pair_listen(pair);
    pair_start(pair);
    GW_EXPECT(pair_finish(pair, SECONDS));
    GW_EXPECT_EQ(pair->source_rc, 0);
    GW_EXPECT_STREQ(pair->source_err.message, "");
    GW_EXPECT_EQ(pair->target_rc, 0);
    GW_EXPECT_EQ(pair_differs(pair), -1);
    GW_EXPECT_EQ(pair->two_runners, 0);
}

static void lose(const char *fault, bool at_source)
{
    struct pair pair = {.writes = true, .device_value = 5};
    struct gw_error err = GW_ERROR_INIT;
    char listen[256] = "tcp:127.0.0.1:0", uri[256];
    pair.params = new_params();
    pair.target_params = new_params();
    if (!at_source)
        snprintf(listen, sizeof(listen), "fault+tcp:127.0.0.1:0?%s", fault);
    pair.listen_uri = listen;
    pair_add_block(&pair, "ram0", RAM_BYTES, GW_BLOCK_ANON, 80);
    pair_init(&pair);
    pair_listen(&pair);
    snprintf(uri, sizeof(uri), "%s%s%s%s", at_source ? "fault+" : "", gw_target_uri(pair.tgt),
             at_source ? "?" : "", at_source ? fault : "");
    if (gw_source_start(pair.src, uri, &err) < 0)
        GW_FAIL("start: %s", err.message);
    GW_EXPECT(pair_finish(&pair, SECONDS));
    GW_EXPECT_LT(pair.source_rc, 0);
    GW_EXPECT_LT(pair.target_rc, 0);
    expect_whole("source", &pair.source_err);
    expect_whole("target", &pair.target_err);
    GW_EXPECT(pair.source_runs);
    GW_EXPECT_EQ(pair.runs, 0);
    pair.listen_uri = "tcp:127.0.0.1:0";
    arrives(&pair);
    pair_fini(&pair);
    gw_params_free(pair.params);
    gw_params_free(pair.target_params);
}

GW_TEST_EACH(links, lost_by_a_filter_at_the_source, faults)
{
    lose(param, true);
}

/* Puts come in at a target: there the same places are those of what it hears. */
static const char *const target_faults[] = {
    "do=cut,ep=0,way=in,at=message:3", "do=cut,ep=1,way=in,at=put:1",
    "do=cut,ep=2,way=in,at=put:1",     "do=mute,ep=0,way=in,at=message:3",
    "do=mute,ep=1,way=in,at=put:1",    "do=mute,ep=2,way=in,at=put:1",
    "do=drop,ep=0,at=message:2",       NULL};

GW_TEST_EACH(links, lost_by_a_filter_at_the_target, target_faults)
{
    lose(param, false);
}
