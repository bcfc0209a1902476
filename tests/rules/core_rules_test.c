// SPDX-License-Identifier: MIT
/* The rules of the memory's path that core keeps (docs/architecture.md): join every fence, revoke
 * before load, close means quiet. Both sides run in this process, on real wires. */
#include "core/base/clock.h"
#include "tests/shim/gw_test.h"
#include "tests/support/pair.h"
#include "tests/support/proxy.h"
#include "tests/support/raw_peer.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MIB (UINT64_C(1) << 20)

static struct gw_params *params_with(const char *name, const char *value)
{
    struct gw_params *params = pair_params();
    struct gw_error err = GW_ERROR_INIT;
    if (gw_params_set(params, name, value, &err) < 0)
        GW_FAIL("%s", err.message);
    return params;
}

/* ---- rule 5 --------------------------------------------------------------------------------------- */

struct held {
    struct proxy *proxy;
    unsigned rule;
    unsigned beats;
    unsigned loads, rounds;
};

static int count_load(struct pair *pair)
{
    struct held *held = pair->test;
    held->loads++;
    return 0;
}

static void count_round(struct pair *pair, const struct gw_event *event)
{
    struct held *held = pair->test;
    held->rounds += event->type == GW_EVENT_ROUND;
}

static bool has_struck(struct pair *pair)
{
    struct held *held = pair->test;
    return proxy_has_struck(held->proxy, held->rule);
}

static bool prepare_passed(struct pair *pair)
{
    struct held *held = pair->test;
    return proxy_passed(held->proxy, PROXY_TO_TARGET, GW_MSG_PREPARE) == 1;
}

/* The target's engine beats about every quarter of the peer time-out: two beats later it has looked
 * at everything that had arrived. */
static bool two_beats_later(struct pair *pair)
{
    struct held *held = pair->test;
    return proxy_passed(held->proxy, PROXY_TO_SOURCE, GW_MSG_HEARTBEAT) >= held->beats + 4;
}

static void start_held(struct pair *pair, struct held *held, unsigned nth_fence)
{
    pair->test = held;
    pair->load = count_load;
    pair->source_event = count_round;
    pair->params = params_with("x-peer-timeout", "4000");
    pair->target_params = params_with("x-peer-timeout", "4000");
    pair_add_block(pair, "ram0", 64 * MIB, GW_BLOCK_ANON, 50);
    pair_init(pair);
    pair_listen(pair);
    held->proxy = proxy_new(gw_target_uri(pair->tgt));
    held->rule = proxy_on(held->proxy, PROXY_TO_TARGET, GW_MSG_FENCE, nth_fence, PROXY_HOLD);
    struct gw_error err = GW_ERROR_INIT;
    if (gw_source_start(pair->src, proxy_uri(held->proxy), &err) < 0)
        GW_FAIL("start: %s", err.message);
    GW_EXPECT(pair_until(pair, has_struck, 30));
}

static void end_held(struct pair *pair, struct held *held)
{
    proxy_release(held->proxy, held->rule);
    GW_EXPECT(pair_finish(pair, 30));
    GW_EXPECT_EQ(pair->source_rc, 0);
    GW_EXPECT_STREQ(pair->source_err.message, "");
    GW_EXPECT_EQ(pair->target_rc, 0);
    GW_EXPECT_EQ(pair_differs(pair), -1);
    proxy_free(held->proxy);
    gw_params_free(pair->params);
    gw_params_free(pair->target_params);
    pair_fini(pair);
}

GW_TEST(rule, join_every_fence_before_devices_are_loaded)
{
    struct held held = {0};
    struct pair pair = {.device_value = 5};
    start_held(&pair, &held, 4); /* two endpoints: 1 and 2 end the first round, 3 and 4 the last */
    GW_EXPECT(pair_until(&pair, prepare_passed, 30));
    held.beats = proxy_passed(held.proxy, PROXY_TO_SOURCE, GW_MSG_HEARTBEAT);
    GW_EXPECT(pair_until(&pair, two_beats_later, 30));
    GW_EXPECT_EQ(held.loads, 0);
    end_held(&pair, &held);
    GW_EXPECT_EQ(held.loads, 1);
}

GW_TEST(rule, join_every_fence_before_a_round_is_over)
{
    struct held held = {0};
    struct pair pair = {.device_value = 5};
    start_held(&pair, &held, 2);
    held.beats = proxy_passed(held.proxy, PROXY_TO_SOURCE, GW_MSG_HEARTBEAT);
    GW_EXPECT(pair_until(&pair, two_beats_later, 30));
    GW_EXPECT_EQ(held.rounds, 0);
    GW_EXPECT_EQ(pair.pauses, 0);
    end_held(&pair, &held);
}

/* ---- rule 10 -------------------------------------------------------------------------------------- */

struct late {
    struct pair *pair;
    struct raw_source raw;
    _Atomic bool loading, over;
    int ended;
    struct gw_error err;
};

static int note_load(struct pair *pair)
{
    struct late *late = pair->test;
    atomic_store(&late->loading, true);
    return 0;
}

/* Says everything up to the device section as an honest source would; once the device is being
 * loaded, puts a page all the same. */
static void *late_putter(void *arg)
{
    struct late *late = arg;
    static const uint8_t body[8] = {1};
    static uint8_t old[4096];
    static uint8_t stale[4096];
    memset(old, 0x11, sizeof(old));
    memset(stale, 0xee, sizeof(stale));
    raw_source_open(&late->raw, gw_target_uri(late->pair->tgt), 4 * MIB, 1, 3 * GW_NS_PER_S);
    raw_put(&late->raw, 0, old, 8192, sizeof(old));
    raw_fence(&late->raw, 0, 1, true);
    raw_ram_end(&late->raw);
    raw_device(&late->raw, "pair", body, sizeof(body));
    while (!atomic_load(&late->loading)) {
        struct gw_error err = GW_ERROR_INIT;
        gw_channel_step(late->raw.channel, gw_clock_ns(), &err);
        gw_channel_step(late->raw.page_channel[0], gw_clock_ns(), &err);
        usleep(1000); /* paces a loop that a flag ends */
    }
    raw_put(&late->raw, 0, stale, 8192, sizeof(stale));
    /* An endpoint that was not revoked goes on beating for ever: then this is the test's time-out. */
    late->ended = raw_until_silent(late->raw.page[0], late->raw.page_channel[0], &late->err);
    atomic_store(&late->over, true);
    return NULL;
}

static bool late_is_over(struct pair *pair)
{
    struct late *late = pair->test;
    unsigned char *target = pair->blocks[0].target;
    return atomic_load(&late->over) || (target && atomic_load(&late->loading) &&
                                        ((volatile unsigned char *)target)[8192] == 0xee);
}

GW_TEST(rule, revoke_before_load)
{
    struct late late = {.err = GW_ERROR_INIT};
    struct pair pair = {.test = &late, .load = note_load};
    late.pair = &pair;
    pair.target_params = params_with("x-peer-timeout", "3000");
    pair_add_block(&pair, "ram0", 4 * MIB, GW_BLOCK_ANON, 0);
    pair_init(&pair);
    pair_listen(&pair);
    pthread_t thread;
    GW_ASSERT_EQ(pthread_create(&thread, NULL, late_putter, &late), 0);
    GW_EXPECT(pair_until(&pair, late_is_over, 30));
    GW_EXPECT_EQ(pair.blocks[0].target[8192], 0x11);
    GW_EXPECT_EQ(pair.blocks[0].target[12287], 0x11);
    gw_target_cancel(pair.tgt);
    pair.source_rc = 0;
    struct gw_error err = GW_ERROR_INIT;
    GW_EXPECT_LT(gw_target_wait(pair.tgt, 10000, &err), 0);
    GW_EXPECT_EQ(pair.runs, 0);
    pthread_join(thread, NULL);
    GW_EXPECT_LT(late.ended, 0);
    raw_source_close(&late.raw);
    gw_params_free(pair.target_params);
    pair_fini(&pair);
}

/* ---- rule 11 -------------------------------------------------------------------------------------- */

static bool sends(struct pair *pair)
{
    struct gw_stats stats = {.struct_bytes = sizeof(stats)};
    gw_source_stats(pair->src, &stats);
    return stats.status == GW_STATUS_ACTIVE && stats.transferred_bytes > 4 * MIB;
}

static bool source_over(struct pair *pair)
{
    pair->source_rc = gw_source_wait(pair->src, 0, &pair->source_err);
    return pair->source_rc != -EINPROGRESS;
}

static bool target_over(struct pair *pair)
{
    pair->target_rc = gw_target_wait(pair->tgt, 0, &pair->target_err);
    return pair->target_rc != -EINPROGRESS;
}

static void start_slow(struct pair *pair)
{
    pair->params = params_with("max-bandwidth", "32M");
    pair_add_block(pair, "ram0", 64 * MIB, GW_BLOCK_ANON, 100);
    pair_init(pair);
    pair_listen(pair);
    pair_start(pair);
    GW_EXPECT(pair_until(pair, sends, 30));
}

/* Memory that may not be touched: whoever still reads or writes it dies by SIGSEGV or EFAULT. */
static void forbid(unsigned char *host, uint64_t bytes)
{
    GW_ASSERT_EQ(mprotect(host, bytes, PROT_NONE), 0);
}

GW_TEST(rule, close_means_quiet_at_the_source)
{
    struct pair pair = {.device_value = 1};
    start_slow(&pair);
    GW_EXPECT_EQ(gw_source_cancel(pair.src), 0);
    GW_EXPECT(pair_until(&pair, source_over, 30));
    forbid(pair.blocks[0].source, pair.blocks[0].bytes);
    GW_EXPECT_EQ(pair.source_rc, -ECANCELED);
    GW_EXPECT(pair_until(&pair, target_over, 30));
    GW_EXPECT_LT(pair.target_rc, 0);
    gw_params_free(pair.params);
    pair_fini(&pair);
}

GW_TEST(rule, close_means_quiet_at_the_target)
{
    struct pair pair = {.device_value = 1};
    start_slow(&pair);
    GW_EXPECT_EQ(gw_target_cancel(pair.tgt), 0);
    GW_EXPECT(pair_until(&pair, target_over, 30));
    forbid(pair.blocks[0].target, pair.blocks[0].bytes);
    GW_EXPECT_EQ(pair.target_rc, -ECANCELED);
    GW_EXPECT(pair_until(&pair, source_over, 30));
    GW_EXPECT_LT(pair.source_rc, 0);
    GW_EXPECT(pair.source_runs);
    gw_params_free(pair.params);
    pair_fini(&pair);
}
