// SPDX-License-Identifier: MIT
/* Nobody waits for ever, and nobody is taken for dead who only works: time-outs are the source's at
 * both ends, long work beats, and what holds a paused guest up has a budget. */
#include "core/base/bytes.h"
#include "core/base/clock.h"
#include "tests/shim/gw_test.h"
#include "tests/support/pair.h"
#include "tests/support/proxy.h"
#include "tests/support/raw_peer.h"
#include "transport/transport.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MIB (UINT64_C(1) << 20)
#define SECONDS 60u

struct patience {
    struct pair pair; /* first: hooks get it and cast */
    struct gw_params *source_params, *target_params;
    unsigned pause_ms;
    _Atomic bool let_go, blocked;
};

static void set(struct gw_params *params, const char *name, const char *value)
{
    struct gw_error err = GW_ERROR_INIT;
    if (gw_params_set(params, name, value, &err) < 0)
        GW_FAIL("%s", err.message);
}

static void begin(struct patience *patience)
{
    patience->source_params = patience->pair.params = pair_params();
    patience->target_params = patience->pair.target_params = pair_params();
}

static void end(struct patience *patience)
{
    pair_fini(&patience->pair);
    gw_params_free(patience->source_params);
    gw_params_free(patience->target_params);
}

static void expect_arrived(struct pair *pair)
{
    GW_EXPECT(pair_finish(pair, SECONDS));
    GW_EXPECT_EQ(pair->source_rc, 0);
    GW_EXPECT_STREQ(pair->source_err.message, "");
    GW_EXPECT_EQ(pair->target_rc, 0);
    GW_EXPECT_EQ(pair_differs(pair), -1);
}

/* ---- who only works ----------------------------------------------------------------------------- */

static int slow_pause(struct pair *pair)
{
    usleep(1000 *
           ((struct patience *)pair)->pause_ms); /* what is tested: nothing is said meanwhile */
    return 0;
}

GW_TEST(liveness, peer_timeout_of_the_source_rules_at_both_ends)
{
    struct patience patience = {.pair = {.pause = slow_pause}, .pause_ms = 900};
    begin(&patience);
    set(patience.source_params, "x-peer-timeout", "8000"); /* beats every 2 s */
    set(patience.target_params, "x-peer-timeout", "200");
    pair_add_block(&patience.pair, "ram0", 4 * MIB, GW_BLOCK_ANON, 50);
    pair_init(&patience.pair);
    pair_listen(&patience.pair);
    pair_start(&patience.pair);
    expect_arrived(&patience.pair);
    end(&patience);
}

/* The target's memory is there already and full of something else. */
static int offer_used_memory(struct pair *pair, const struct gw_block_offer *offer)
{
    struct pair_block *block = &pair->blocks[offer->id];
    block->target =
        mmap(NULL, block->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    GW_EXPECT(block->target != MAP_FAILED);
    memset(block->target, 0xa5, block->bytes);
    return 0;
}

/* Nothing is to be proved where sanitizers slow memory down and double it. */
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define MUCH (128 * MIB)
#define TIMEOUT_MS_MIN 30000
#else
#define MUCH (3072 * MIB)
#define TIMEOUT_MS_MIN 100
#endif

/* How long MUCH takes to clear on this machine now, by a sixteenth of it. */
static uint64_t clearing_ms(void)
{
    uint64_t bytes = MUCH / 16;
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    GW_ASSERT(memory != MAP_FAILED);
    memset(memory, 0xa5, bytes);
    uint64_t begun_ns = gw_clock_ns();
    memset(memory, 0, bytes);
    __asm__ volatile("" : : "r"(memory) : "memory");
    uint64_t took_ns = gw_clock_ns() - begun_ns;
    munmap(memory, bytes);
    return took_ns * 16 / GW_NS_PER_MS;
}

GW_TEST(liveness, clearing_of_much_memory_beats_meanwhile)
{
    struct patience patience = {.pair = {.block_offered = offer_used_memory}};
    begin(&patience);
    /* Silence for a third of what clearing takes would be death, where that is long enough to tell. */
    char timeout_ms[24];
    snprintf(timeout_ms, sizeof(timeout_ms), "%llu",
             (unsigned long long)gw_max_u64(TIMEOUT_MS_MIN, clearing_ms() / 3));
    set(patience.source_params, "x-peer-timeout", timeout_ms);
    set(patience.source_params, "multifd-channels", "1");
    pair_add_block(&patience.pair, "ram0", MUCH, GW_BLOCK_ANON, 0); /* one ZERO for all of it */
    pair_init(&patience.pair);
    pair_listen(&patience.pair);
    pair_start(&patience.pair);
    expect_arrived(&patience.pair);
    end(&patience);
}

/* ---- what never ends ---------------------------------------------------------------------------- */

struct mute { /* a target that takes the connection and beats, and says nothing else */
    struct gw_listener *listener;
    struct gw_domain *dom;
    pthread_t thread;
};

static enum gw_admission admit_all(void *ctx, const struct gw_preface *preface,
                                   struct gw_domain **dom, struct gw_wire_config *config)
{
    struct mute *mute = ctx;
    (void)preface;
    (void)config;
    *dom = mute->dom;
    return GW_ADMIT_OK;
}

static void *be_mute(void *arg)
{
    struct mute *mute = arg;
    struct gw_error err = GW_ERROR_INIT;
    struct gw_endpoint *ep = NULL;
    while (gw_accept(mute->listener, admit_all, mute, &ep, &err) == 0)
        usleep(1000); /* paces a loop that a connection ends */
    struct gw_channel_config config = {
        .ep = ep, .side = GW_CHANNEL_TARGET, .peer_timeout_ns = 30 * GW_NS_PER_S};
    struct gw_channel *channel = gw_channel_new(&config, &err);
    raw_until_silent(ep, channel, &err);
    gw_channel_free(channel);
    gw_ep_close(ep);
    return NULL;
}

static bool source_over(struct pair *pair)
{
    pair->source_rc = gw_source_wait(pair->src, 0, &pair->source_err);
    return pair->source_rc != -EINPROGRESS;
}

GW_TEST(liveness, target_that_does_not_answer_hello_is_given_up)
{
    struct patience patience = {.pair = {.device_value = 1}};
    struct mute mute = {0};
    struct gw_error err = GW_ERROR_INIT;
    struct gw_wire_config config = {.index = 0};
    struct gw_uri uri;
    begin(&patience);
    set(patience.source_params, "x-connect-timeout", "100");
    pair_add_block(&patience.pair, "ram0", 1 * MIB, GW_BLOCK_ANON, 50);
    pair_init(&patience.pair);
    GW_ASSERT_EQ(gw_uri_parse("tcp:127.0.0.1:0", &uri, &err), 0);
    GW_ASSERT_EQ(gw_domain_open(uri.scheme, &config, &mute.dom, &err), 0);
    GW_ASSERT_EQ(gw_listen(&uri, &config, &mute.listener, &err), 0);
    GW_ASSERT_EQ(pthread_create(&mute.thread, NULL, be_mute, &mute), 0);
    GW_ASSERT_EQ(gw_source_start(patience.pair.src, gw_listener_uri(mute.listener), &err), 0);
    GW_EXPECT(pair_until(&patience.pair, source_over, SECONDS));
    GW_EXPECT_EQ(patience.pair.source_rc, -ETIMEDOUT);
    GW_EXPECT_EQ(patience.pair.source_err.code, GW_CODE_TIMEOUT);
    GW_EXPECT(patience.pair.source_runs);
    gw_source_cancel(patience.pair.src);
    pthread_join(mute.thread, NULL);
    gw_listener_close(mute.listener);
    gw_domain_close(mute.dom);
    end(&patience);
}

/* A second dirty source, whose log hangs once the guest stands still. */
static int hung_start(void *ctx, unsigned block_id, const struct gw_block_desc *block,
                      struct gw_error *err)
{
    (void)ctx, (void)block_id, (void)block, (void)err;
    return 0;
}

static int hung_sync(void *ctx, unsigned block_id, uint64_t first_page, uint64_t pages,
                     uint64_t *bitmap, struct gw_error *err)
{
    struct patience *patience = ctx;
    (void)block_id, (void)first_page, (void)pages, (void)bitmap, (void)err;
    bool paused = patience->pair.pauses > 0;
    atomic_store(&patience->blocked, paused);
    while (paused && !atomic_load(&patience->let_go))
        usleep(1000); /* paces a loop that a flag ends */
    return 0;
}

static void hung_stop(void *ctx, unsigned block_id)
{
    (void)ctx, (void)block_id;
}

static const struct gw_dirty_ops hung_ops = {.struct_bytes = sizeof(hung_ops),
                                             .name = "hung",
                                             .start = hung_start,
                                             .sync = hung_sync,
                                             .stop = hung_stop};

static bool guest_resumed(struct pair *pair)
{
    return pair->pauses > 0 && pair->resumes > 0 && pair->source_runs;
}

GW_TEST(liveness, last_dirty_sync_that_hangs_does_not_keep_the_guest_paused)
{
    struct patience patience = {.pair = {.device_value = 1}};
    struct gw_error err = GW_ERROR_INIT;
    begin(&patience);
    set(patience.source_params, "x-device-timeout", "3000"); /* as much for what comes before it */
    pair_add_block(&patience.pair, "ram0", 4 * MIB, GW_BLOCK_ANON, 50);
    pair_init(&patience.pair);
    GW_ASSERT_EQ(gw_source_add_dirty(patience.pair.src, &hung_ops, &patience, &err), 0);
    pair_listen(&patience.pair);
    pair_start(&patience.pair);
    GW_EXPECT(pair_until(&patience.pair, guest_resumed, SECONDS));
    GW_EXPECT(patience.blocked);
    atomic_store(&patience.let_go, true);
    GW_EXPECT(pair_finish(&patience.pair, SECONDS));
    GW_EXPECT_EQ(patience.pair.source_err.code, GW_CODE_TIMEOUT);
    GW_EXPECT_EQ(patience.pair.runs, 0);
    end(&patience);
}

static int save_much(void *opaque, struct gw_writer *w, struct gw_error *err)
{
    static const uint8_t zero[65536];
    (void)opaque, (void)err;
    for (unsigned i = 0; i < 24 * MIB / sizeof(zero); i++)
        gw_writer_bytes(w, zero, sizeof(zero));
    return 0;
}

static int load_much(void *opaque, struct gw_reader *r, uint32_t version_id, struct gw_error *err)
{
    static uint8_t bytes[65536];
    (void)opaque, (void)version_id, (void)err;
    while (gw_reader_left(r) > 0)
        gw_reader_bytes(r, bytes, sizeof(bytes));
    return 0;
}

GW_TEST(liveness, device_state_that_is_not_taken_does_not_keep_the_guest_paused)
{
    struct patience patience = {.pair = {.device_value = 1}};
    struct gw_device_desc device = {.struct_bytes = sizeof(device),
                                    .name = "large",
                                    .version_id = 1,
                                    .minimum_version_id = 1,
                                    .save = save_much,
                                    .load = load_much};
    struct gw_error err = GW_ERROR_INIT;
    begin(&patience);
    set(patience.source_params, "x-device-timeout", "3000");
    set(patience.target_params, "x-settle-timeout", "300");
    set(patience.source_params, "x-settle-timeout", "300");
    pair_add_block(&patience.pair, "ram0", 4 * MIB, GW_BLOCK_ANON, 50);
    pair_init(&patience.pair);
    GW_ASSERT_EQ(gw_source_add_device(patience.pair.src, &device, &err), 0);
    GW_ASSERT_EQ(gw_target_add_device(patience.pair.tgt, &device, &err), 0);
    pair_listen(&patience.pair);
    struct proxy *proxy = proxy_new(gw_target_uri(patience.pair.tgt));
    /* The way to the target is blocked; its beats go on arriving. */
    unsigned rule = proxy_on(proxy, PROXY_TO_TARGET, GW_MSG_STREAM, 4, PROXY_HOLD);
    GW_ASSERT_EQ(gw_source_start(patience.pair.src, proxy_uri(proxy), &err), 0);
    GW_EXPECT(pair_until(&patience.pair, guest_resumed, SECONDS));
    proxy_release(proxy, rule);
    GW_EXPECT(pair_finish(&patience.pair, SECONDS));
    GW_EXPECT_EQ(patience.pair.source_err.code, GW_CODE_TIMEOUT);
    GW_EXPECT_EQ(patience.pair.runs, 0);
    proxy_free(proxy);
    end(&patience);
}
