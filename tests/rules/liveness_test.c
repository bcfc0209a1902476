// SPDX-License-Identifier: MIT
/* Nobody waits for ever, and nobody is taken for dead who only works: time-outs are the source's at
 * both ends, long work beats, and what holds a paused guest up has a budget. */
#include "core/base/clock.h"
#include "tests/shim/gw_test.h"
#include "tests/support/pair.h"
#include "tests/support/proxy.h"
#include "transport/transport.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MIB (UINT64_C(1) << 20)
#define SECONDS 20u

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
    patience->source_params = patience->pair.params = gw_params_new();
    patience->target_params = patience->pair.target_params = gw_params_new();
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

GW_TEST(liveness, clearing_of_much_memory_beats_meanwhile)
{
    struct patience patience = {.pair = {.block_offered = offer_used_memory}};
    begin(&patience);
    set(patience.source_params, "x-peer-timeout", "100");
    set(patience.source_params, "multifd-channels", "1");
    pair_add_block(&patience.pair, "ram0", 3072 * MIB, GW_BLOCK_ANON,
                   0); /* one ZERO for all of it */
    pair_init(&patience.pair);
    pair_listen(&patience.pair);
    pair_start(&patience.pair);
    expect_arrived(&patience.pair);
    end(&patience);
}
