// SPDX-License-Identifier: MIT
/* Whole migrations on a one-sided wire, in memory: loop1 has a NIC's manners (transport/loop/loop.h). Both
 * sides run in this process with real threads, real dirty tracking and a guest that writes. */
#include "core/base/clock.h"
#include "tests/shim/gw_test.h"
#include "tests/support/pair.h"
#include "transport/loop/loop.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define MIB (UINT64_C(1) << 20)

static struct gw_params *params_of(const char *const *pairs)
{
    struct gw_params *params = gw_params_new();
    struct gw_error err = GW_ERROR_INIT;
    for (; *pairs; pairs += 2) {
        if (gw_params_set(params, pairs[0], pairs[1], &err) < 0)
            GW_FAIL("%s", err.message);
    }
    return params;
}

/* ---- what is pinned --------------------------------------------------------------------------- */

static struct {
    uint64_t limit; /* of a registration's owner's domain; 0: none */
    _Atomic uint64_t peak;
    _Atomic unsigned made;
    _Atomic int fail_at; /* the registration, from 1, that fails; 0: none */
} pinned;

static int charge(int owner, const struct gw_mr_desc *desc, uint64_t registered_bytes)
{
    (void)owner, (void)desc;
    unsigned nth = atomic_fetch_add(&pinned.made, 1) + 1;
    if (registered_bytes > atomic_load(&pinned.peak))
        atomic_store(&pinned.peak, registered_bytes);
    if (pinned.limit && registered_bytes > pinned.limit)
        return -ENOMEM;
    return (int)nth == atomic_load(&pinned.fail_at) ? -ENOMEM : 0;
}

static const struct gw_loop_pins pins = {.charge = charge};

static void open_pins(void)
{
    memset(&pinned, 0, sizeof(pinned));
    gw_loop_set_pins(&pins);
}

/* ---- migrations ------------------------------------------------------------------------------- */

static void begin(struct pair *pair, const char *const *source, const char *const *target)
{
    open_pins();
    pair->listen_uri = "loop1:keyed";
    pair->params = params_of(source);
    pair->target_params = params_of(target);
}

static void go(struct pair *pair)
{
    pair_init(pair);
    pair_listen(pair);
    pair_start(pair);
}

static void expect_moved(struct pair *pair)
{
    if (!pair_finish(pair, 60))
        GW_FAIL("it goes on: source %s", gw_status_name(pair_source_status(pair)));
    if (pair->source_rc != 0 || pair->target_rc != 0)
        GW_FAIL("source: %s; target: %s", pair->source_err.message, pair->target_err.message);
    GW_EXPECT_EQ(pair_differs(pair), -1);
    GW_EXPECT_EQ(atomic_load(&pair->two_runners), 0);
}

static struct gw_stats stats_of(const struct gw_source *src)
{
    struct gw_stats stats = {.struct_bytes = sizeof(stats)};
    gw_source_stats(src, &stats);
    return stats;
}

static void end(struct pair *pair)
{
    gw_params_free(pair->params);
    gw_params_free(pair->target_params);
    pair_fini(pair);
    gw_loop_set_pins(NULL);
}

static const char *const plain[] = {"digest", "on", "downtime-limit", "50", NULL};

GW_TEST(keyed, a_writing_guest_moves)
{
    struct pair pair = {.writes = true};
    begin(&pair, plain, plain);
    pair_add_block(&pair, "ram0", 96 * MIB, GW_BLOCK_ANON, 50);
    pair_add_block(&pair, "ram1", 5 * MIB + 4096, GW_BLOCK_MEMFD, 90);
    go(&pair);
    expect_moved(&pair);
    struct gw_stats stats = stats_of(pair.src);
    GW_EXPECT_GE(stats.registered_bytes_peak, 96 * MIB);
    GW_EXPECT_EQ(stats.copied_bytes, 0);
    end(&pair);
}
