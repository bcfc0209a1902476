// SPDX-License-Identifier: MIT
/* What the target lends, over a wire that only counts registrations. */
#include "core/base/alloc.h"
#include "ram/lend.h"
#include "tests/shim/gw_test.h"
#include "tests/support/ram_rig.h"

#include <string.h>

#define UNIT GW_LEND_UNIT_BYTES
#define UNITS 8u

struct bench {
    struct rig_memory memory;
    struct gw_domain *dom;
    struct gw_lends *lends;
};

static void bench_init(struct bench *t, uint64_t budget_units)
{
    rig_memory_init(&t->memory);
    rig_memory_add(&t->memory, "a", GW_BLOCK_ANON, UNITS * UNIT / GW_PAGE_BYTES);
    rig_memory_add(&t->memory, "b", GW_BLOCK_ANON, UNIT / GW_PAGE_BYTES + 3);
    t->dom = rig_domain_new();
    struct gw_lends_config config = {.ram = t->memory.ram,
                                     .dom = t->dom,
                                     .budget_bytes =
                                         budget_units ? budget_units * UNIT : UINT64_MAX};
    t->lends = gw_lends_new(&config, NULL);
    GW_ASSERT(t->lends);
}

static void bench_fini(struct bench *t)
{
    gw_lends_free(t->lends);
    GW_EXPECT_EQ(rig_domain_mrs(t->dom), 0);
    rig_domain_free(t->dom);
    rig_memory_fini(&t->memory);
}

static int wish(struct bench *t, uint32_t block, uint64_t offset, uint64_t bytes)
{
    struct gw_wish range = {.block = block, .offset = offset, .bytes = bytes};
    return gw_lends_wish(t->lends, &range, NULL);
}

static int release(struct bench *t, uint32_t block, uint64_t offset, uint64_t bytes)
{
    struct gw_wish range = {.block = block, .offset = offset, .bytes = bytes};
    return gw_lends_release(t->lends, &range, NULL);
}

/* The next piece of work, done; false: there is none. */
static bool work(struct bench *t)
{
    struct gw_lend *lend = gw_lends_next(t->lends);
    if (!lend)
        return false;
    GW_EXPECT_EQ(gw_lend_work(lend, NULL), 0);
    gw_lends_worked(t->lends, lend);
    return true;
}

/* 'k' a key, 'r' a release, 0: nothing is to be told. */
static char told(struct bench *t, struct gw_wish *range)
{
    uint8_t key[GW_KEY_BYTES_MAX];
    size_t key_bytes = 0;
    bool released;
    if (!gw_lends_tell(t->lends, range, &released, key, &key_bytes))
        return 0;
    return released ? 'r' : 'k';
}

GW_TEST(lend, a_wish_is_answered_with_one_key_in_order)
{
    struct bench t;
    struct gw_wish range;
    bench_init(&t, 0);
    GW_EXPECT_EQ(wish(&t, 0, 4 * UNIT, 2 * UNIT), 0);
    GW_EXPECT_EQ(wish(&t, 0, 0, UNIT), 0);
    GW_EXPECT_EQ(told(&t, &range), 0);
    GW_EXPECT(work(&t) && work(&t) && !work(&t));
    GW_EXPECT_EQ(rig_domain_mrs(t.dom), 2);
    GW_EXPECT_EQ(told(&t, &range), 'k');
    GW_EXPECT_EQ(range.offset, 4 * UNIT);
    GW_EXPECT_EQ(range.bytes, 2 * UNIT);
    GW_EXPECT_EQ(told(&t, &range), 'k');
    GW_EXPECT_EQ(range.offset, 0);
    GW_EXPECT_EQ(told(&t, &range), 0);
    GW_EXPECT_EQ(gw_lends_registered_peak(t.lends), 3 * UNIT);
    bench_fini(&t);
}

GW_TEST(lend, a_range_is_whole_units_or_ends_with_its_block)
{
    struct bench t;
    bench_init(&t, 0);
    GW_EXPECT_EQ(wish(&t, 0, 4096, UNIT), -EPROTO);
    GW_EXPECT_EQ(wish(&t, 0, 0, UNIT - 4096), -EPROTO);
    GW_EXPECT_EQ(wish(&t, 0, 0, 0), -EPROTO);
    GW_EXPECT_EQ(wish(&t, 2, 0, UNIT), -EPROTO);
    GW_EXPECT_EQ(wish(&t, 0, UNITS * UNIT, UNIT), -EPROTO);
    GW_EXPECT_EQ(wish(&t, 0, UINT64_MAX - UNIT + 1, 2 * UNIT), -EPROTO);
    GW_EXPECT_EQ(wish(&t, 1, UNIT, 3 * GW_PAGE_BYTES), 0); /* the block's end */
    GW_EXPECT_EQ(wish(&t, 1, 0, UNIT), 0);
    bench_fini(&t);
}

GW_TEST(lend, nothing_is_lent_twice)
{
    struct bench t;
    struct gw_wish range;
    bench_init(&t, 0);
    GW_EXPECT_EQ(wish(&t, 0, 2 * UNIT, 2 * UNIT), 0);
    for (int lent = 0; lent < 2; lent++) {
        GW_EXPECT_EQ(wish(&t, 0, 2 * UNIT, 2 * UNIT), -EPROTO);
        GW_EXPECT_EQ(wish(&t, 0, 3 * UNIT, UNIT), -EPROTO);
        GW_EXPECT_EQ(wish(&t, 0, 0, 3 * UNIT), -EPROTO);
        GW_EXPECT_EQ(wish(&t, 0, 0, UNITS * UNIT), -EPROTO);
        work(&t);
        told(&t, &range);
    }
    GW_EXPECT_EQ(release(&t, 0, 2 * UNIT, 2 * UNIT), 0);
    GW_EXPECT_EQ(wish(&t, 0, 2 * UNIT, UNIT), -EPROTO); /* it is not gone yet */
    GW_EXPECT(work(&t));
    GW_EXPECT_EQ(wish(&t, 0, 2 * UNIT, UNIT), -EPROTO); /* and was not told */
    GW_EXPECT_EQ(told(&t, &range), 'r');
    GW_EXPECT_EQ(rig_domain_mrs(t.dom), 0);
    GW_EXPECT_EQ(wish(&t, 0, 2 * UNIT, UNIT), 0);
    bench_fini(&t);
}

GW_TEST(lend, only_what_a_key_was_told_for_is_released_and_once)
{
    struct bench t;
    struct gw_wish range;
    bench_init(&t, 0);
    GW_EXPECT_EQ(release(&t, 0, 0, UNIT), -EPROTO);
    GW_EXPECT_EQ(wish(&t, 0, 0, 2 * UNIT), 0);
    GW_EXPECT_EQ(release(&t, 0, 0, 2 * UNIT), -EPROTO); /* wished for */
    GW_EXPECT(work(&t));
    GW_EXPECT_EQ(release(&t, 0, 0, 2 * UNIT), -EPROTO); /* registered, not told */
    GW_EXPECT_EQ(told(&t, &range), 'k');
    GW_EXPECT_EQ(release(&t, 0, 0, UNIT), -EPROTO); /* a part */
    GW_EXPECT_EQ(release(&t, 0, UNIT, UNIT), -EPROTO);
    GW_EXPECT_EQ(release(&t, 7, 0, 2 * UNIT), -EPROTO);
    GW_EXPECT_EQ(release(&t, 0, 0, 2 * UNIT), 0);
    GW_EXPECT_EQ(release(&t, 0, 0, 2 * UNIT), -EPROTO);
    bench_fini(&t);
}

GW_TEST(lend, a_wish_beyond_the_budget_is_refused_until_a_release_was_told)
{
    struct bench t;
    struct gw_wish range;
    bench_init(&t, 3);
    GW_EXPECT_EQ(wish(&t, 0, 0, 2 * UNIT), 0);
    GW_EXPECT_EQ(wish(&t, 0, 2 * UNIT, 2 * UNIT), -EPROTO);
    GW_EXPECT_EQ(wish(&t, 0, 2 * UNIT, UNIT), 0);
    GW_EXPECT(work(&t) && work(&t));
    GW_EXPECT(told(&t, &range) == 'k' && told(&t, &range) == 'k');
    GW_EXPECT_EQ(release(&t, 0, 0, 2 * UNIT), 0);
    GW_EXPECT_EQ(wish(&t, 0, 4 * UNIT, UNIT), -EPROTO);
    GW_EXPECT(work(&t));
    GW_EXPECT_EQ(wish(&t, 0, 4 * UNIT, UNIT), -EPROTO);
    GW_EXPECT_EQ(told(&t, &range), 'r');
    GW_EXPECT_EQ(wish(&t, 0, 4 * UNIT, 2 * UNIT), 0);
    GW_EXPECT_EQ(gw_lends_registered_peak(t.lends), 3 * UNIT);
    bench_fini(&t);
}

GW_TEST(lend, releases_are_worked_on_first)
{
    struct bench t;
    struct gw_wish range;
    bench_init(&t, 0);
    GW_EXPECT_EQ(wish(&t, 0, 0, UNIT), 0);
    GW_EXPECT(work(&t));
    GW_EXPECT_EQ(told(&t, &range), 'k');
    GW_EXPECT_EQ(wish(&t, 0, UNIT, UNIT), 0);
    GW_EXPECT_EQ(release(&t, 0, 0, UNIT), 0);
    GW_EXPECT(work(&t));
    GW_EXPECT_EQ(told(&t, &range), 'r');
    bench_fini(&t);
}

GW_TEST(lend, a_registration_that_fails_says_whose)
{
    struct bench t;
    struct gw_error err = GW_ERROR_INIT;
    bench_init(&t, 0);
    GW_EXPECT_EQ(wish(&t, 0, UNIT, UNIT), 0);
    rig_domain_fail(t.dom, -ENOMEM);
    struct gw_lend *lend = gw_lends_next(t.lends);
    GW_ASSERT(lend);
    GW_EXPECT_EQ(gw_lend_work(lend, &err), -ENOMEM);
    GW_EXPECT(strstr(err.message, "block 'a' [2097152, +2097152)") != NULL);
    GW_EXPECT_EQ(gw_lend_bytes(lend), UNIT);
    bench_fini(&t);
}

GW_TEST(lend, running_out_of_memory_leaves_nothing_behind)
{
    struct bench t;
    bench_init(&t, 0);
    int64_t live = gw_alloc_live();
    gw_alloc_fail_after(0);
    GW_EXPECT_EQ(wish(&t, 0, 0, UNIT), -ENOMEM);
    gw_alloc_fail_after(-1);
    GW_EXPECT_EQ(gw_alloc_live(), live);
    GW_EXPECT_EQ(wish(&t, 0, 0, UNIT), 0);
    gw_lends_free(t.lends);
    t.lends = NULL;
    live = gw_alloc_live();
    struct gw_lends_config config = {.ram = t.memory.ram, .dom = t.dom, .budget_bytes = UINT64_MAX};
    for (int n = 0; !t.lends; n++) {
        gw_alloc_fail_after(n);
        t.lends = gw_lends_new(&config, NULL);
        gw_alloc_fail_after(-1);
        GW_EXPECT(t.lends || gw_alloc_live() == live);
    }
    bench_fini(&t);
}
