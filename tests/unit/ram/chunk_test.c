// SPDX-License-Identifier: MIT
/* The life of chunks, over a wire that only counts registrations. Chunks are 2 MiB. */
#include "core/base/alloc.h"
#include "ram/chunk.h"
#include "tests/shim/gw_test.h"
#include "tests/support/ram_rig.h"

#include <string.h>
#include <sys/mman.h>

#define CHUNK GW_CHUNK_BYTES_MIN
#define CHUNK_PAGES (CHUNK / GW_PAGE_BYTES)

struct bench {
    struct rig_memory memory;
    struct gw_block *block;
    struct gw_domain *dom;
    struct gw_chunks *chunks;
};

static void bench_init(struct bench *t, unsigned chunk_count, bool keyed, unsigned budget_chunks,
                       unsigned owners)
{
    rig_memory_init(&t->memory);
    t->block = rig_memory_add(&t->memory, "a", GW_BLOCK_ANON, chunk_count * CHUNK_PAGES);
    for (unsigned i = 0; i < chunk_count; i++)
        rig_write(t->block, i * CHUNK_PAGES + i, 1);
    GW_ASSERT_EQ(gw_ram_layout(t->memory.ram, 2 * CHUNK, owners, NULL), 0);
    t->dom = rig_domain_new();
    struct gw_chunks_config config = {
        .ram = t->memory.ram,
        .dom = t->dom,
        .keyed = keyed,
        .chunk_bytes = CHUNK,
        .local_budget = budget_chunks ? budget_chunks * CHUNK : UINT64_MAX,
        .remote_budget = UINT64_MAX,
    };
    t->chunks = gw_chunks_new(&config, NULL);
    GW_ASSERT(t->chunks);
}

static void bench_fini(struct bench *t)
{
    gw_chunks_free(t->chunks);
    GW_EXPECT_EQ(rig_domain_mrs(t->dom), 0);
    GW_EXPECT_EQ(rig_domain_rmrs(t->dom), 0);
    rig_domain_free(t->dom);
    rig_memory_fini(&t->memory);
}

static int give_key(struct bench *t, const struct gw_wish *wish)
{
    return rig_chunk_key(t->chunks, wish);
}

static void make_ready(struct bench *t, const struct gw_wish *wish)
{
    struct gw_wish range;
    GW_ASSERT_EQ(give_key(t, wish), 0);
    GW_ASSERT_EQ(gw_chunks_newly_ready(t->chunks, &range, 1), 1);
    GW_EXPECT_EQ(range.offset, wish->offset);
    gw_chunks_synced(t->chunks, &range);
}

static bool is_ready(const struct bench *t, unsigned chunk)
{
    return gw_chunk_is_ready(t->chunks, t->block, chunk * CHUNK_PAGES + 3);
}

GW_TEST(chunk, of_a_stream_is_always_ready_and_its_region_is_the_block)
{
    struct bench t;
    bench_init(&t, 4, false, 0, 1);
    GW_EXPECT(is_ready(&t, 0) && is_ready(&t, 3));
    GW_EXPECT_EQ(gw_chunk_pages_left(t.chunks, t.block, 5), 4 * CHUNK_PAGES - 5);
    struct gw_mr *mr;
    uint64_t base;
    GW_EXPECT(gw_chunk_rmr(t.chunks, t.block, 600, &mr, &base) == t.block->rmr);
    GW_EXPECT(t.block->rmr != NULL && mr == NULL && base == 0);
    struct gw_wish wish = {.block = 0, .offset = 0, .bytes = CHUNK};
    GW_EXPECT_EQ(give_key(&t, &wish), -EPROTO);
    GW_EXPECT_EQ(gw_chunks_newly_ready(t.chunks, &wish, 1), 0);
    GW_EXPECT_EQ(gw_chunks_evict(t.chunks, &wish, 1), 0);
    bench_fini(&t);
}

GW_TEST(chunk, a_stream_wishes_for_every_populated_extent_once)
{
    struct bench t;
    bench_init(&t, 3, false, 0, 1);
    for (uint64_t page = CHUNK_PAGES - 2; page < CHUNK_PAGES + 2; page++)
        rig_write(t.block, page, 1);
    struct gw_wish wish[8];
    unsigned count = 0;
    int got;
    while ((got = gw_chunks_wish(t.chunks, wish + count, 2, NULL)) > 0)
        count += (unsigned)got;
    GW_EXPECT_EQ(got, 0);
    static const uint64_t first[] = {0, CHUNK_PAGES - 2, CHUNK_PAGES, 2 * CHUNK_PAGES + 2};
    static const uint64_t pages[] = {1, 2, 2, 1}; /* cut at the chunk's end */
    GW_ASSERT_EQ(count, 4);
    for (unsigned i = 0; i < count; i++) {
        GW_EXPECT_EQ(wish[i].offset, first[i] * GW_PAGE_BYTES);
        GW_EXPECT_EQ(wish[i].bytes, pages[i] * GW_PAGE_BYTES);
    }
    bench_fini(&t);
}

GW_TEST(chunk, becomes_ready_by_wish_key_and_sync)
{
    struct bench t;
    bench_init(&t, 3, true, 0, 1);
    struct gw_wish wish[4];
    struct gw_wish range;
    GW_EXPECT(!is_ready(&t, 0));
    GW_ASSERT_EQ(gw_chunks_wish(t.chunks, wish, 4, NULL), 3);
    for (unsigned i = 0; i < 3; i++)
        GW_EXPECT_EQ(wish[i].offset, i * CHUNK);
    GW_EXPECT_EQ(gw_chunks_wish(t.chunks, wish, 4, NULL), 0);
    uint32_t generation = gw_chunks_generation(t.chunks);
    GW_EXPECT_EQ(gw_chunks_key(t.chunks, &wish[1], "key", 3, NULL), 0);
    GW_EXPECT(!is_ready(&t, 1));
    GW_EXPECT_EQ(rig_domain_mrs(t.dom), 0);
    GW_EXPECT_EQ(gw_chunks_newly_ready(t.chunks, &range, 1), 0); /* nor is it registered here */
    GW_EXPECT_EQ(rig_chunks_register(t.chunks, NULL), 0);
    GW_EXPECT_EQ(rig_domain_mrs(t.dom), 3);
    GW_EXPECT_EQ(gw_chunks_newly_ready(t.chunks, &range, 1), 1);
    GW_EXPECT_EQ(gw_chunks_newly_ready(t.chunks, &range, 1), 0);
    GW_EXPECT(!is_ready(&t, 1));
    GW_EXPECT_EQ(gw_chunks_generation(t.chunks), generation);
    gw_chunks_synced(t.chunks, &range);
    GW_EXPECT(is_ready(&t, 1) && !is_ready(&t, 0) && !is_ready(&t, 2));
    GW_EXPECT_NE(gw_chunks_generation(t.chunks), generation);
    struct gw_mr *mr = NULL;
    uint64_t base = 0;
    GW_EXPECT(gw_chunk_rmr(t.chunks, t.block, CHUNK_PAGES + 9, &mr, &base) != NULL);
    GW_EXPECT(mr != NULL);
    GW_EXPECT_EQ(base, CHUNK);
    GW_EXPECT_EQ(gw_chunk_pages_left(t.chunks, t.block, CHUNK_PAGES + 9), CHUNK_PAGES - 9);
    bench_fini(&t);
}

GW_TEST(chunk, a_key_nobody_wished_for_is_refused)
{
    struct bench t;
    bench_init(&t, 3, true, 2, 1);
    struct gw_wish wish[4];
    GW_ASSERT_EQ(gw_chunks_wish(t.chunks, wish, 4, NULL), 2); /* the budget */
    struct gw_wish bad = {.block = 0, .offset = 2 * CHUNK, .bytes = CHUNK};
    GW_EXPECT_EQ(give_key(&t, &bad), -EPROTO); /* not wished for */
    bad = (struct gw_wish){.block = 1, .offset = 0, .bytes = CHUNK};
    GW_EXPECT_EQ(give_key(&t, &bad), -EPROTO);
    bad = (struct gw_wish){.block = 0, .offset = GW_PAGE_BYTES, .bytes = CHUNK};
    GW_EXPECT_EQ(give_key(&t, &bad), -EPROTO);
    bad = (struct gw_wish){.block = 0, .offset = 0, .bytes = CHUNK - 1};
    GW_EXPECT_EQ(give_key(&t, &bad), -EPROTO);
    bad = (struct gw_wish){.block = 0, .offset = UINT64_MAX - 5, .bytes = CHUNK};
    GW_EXPECT_EQ(give_key(&t, &bad), -EPROTO);
    GW_EXPECT_EQ(gw_chunks_key(t.chunks, &wish[0], "", GW_KEY_BYTES_MAX + 1, NULL), -EPROTO);
    GW_EXPECT_EQ(give_key(&t, &wish[0]), 0);
    GW_EXPECT_EQ(give_key(&t, &wish[0]), -EPROTO); /* a second key */
    bench_fini(&t);
}

GW_TEST(chunk, a_registration_that_fails_leaves_it_wished)
{
    struct bench t;
    bench_init(&t, 1, true, 0, 1);
    struct gw_wish wish, range;
    struct gw_mr *mr = NULL;
    struct gw_error err = GW_ERROR_INIT;
    GW_ASSERT_EQ(gw_chunks_wish(t.chunks, &wish, 1, NULL), 1);
    GW_ASSERT(gw_chunks_to_register(t.chunks, &range));
    GW_EXPECT_EQ(range.offset, wish.offset);
    rig_domain_fail(t.dom, -ENOMEM);
    GW_EXPECT_EQ(gw_chunk_register(t.chunks, &range, &mr, &err), -ENOMEM);
    GW_EXPECT(strstr(err.message, "block 'a': chunk 0") != NULL);
    GW_EXPECT_EQ(rig_domain_mrs(t.dom), 0);
    gw_alloc_fail_after(0);
    GW_EXPECT_EQ(gw_chunk_register(t.chunks, &range, &mr, &err), -ENOMEM);
    gw_alloc_fail_after(0);
    GW_EXPECT_EQ(gw_chunks_key(t.chunks, &wish, "k", 1, NULL), -ENOMEM);
    gw_alloc_fail_after(-1);
    GW_EXPECT(mr == NULL);
    GW_EXPECT_EQ(gw_chunk_register(t.chunks, &range, &mr, &err), 0);
    gw_chunks_registered(t.chunks, &range, mr);
    make_ready(&t, &wish);
    GW_EXPECT(is_ready(&t, 0));
    bench_fini(&t);
}

GW_TEST(chunk, eviction_takes_what_is_behind_the_scan_in_scan_order)
{
    struct bench t;
    bench_init(&t, 8, true, 4, 1); /* two chunks to a stripe */
    struct gw_wish wish[8];
    GW_ASSERT_EQ(gw_chunks_wish(t.chunks, wish, 8, NULL), 4);
    gw_chunks_scan_begin(t.chunks, 0);
    uint32_t before = gw_chunks_generation(t.chunks);
    for (unsigned i = 0; i < 4; i++)
        make_ready(&t, &wish[i]);
    uint32_t now = gw_chunks_generation(t.chunks);
    GW_EXPECT_EQ(gw_chunks_registered_peak(t.chunks), 4 * CHUNK);
    struct gw_wish victim[8];
    gw_chunks_scan_at(t.chunks, 0, before, 4); /* that pass began before they were ready */
    GW_EXPECT_EQ(gw_chunks_evict(t.chunks, victim, 8), 0);
    gw_chunks_scan_at(t.chunks, 0, before, UINT32_MAX);
    GW_EXPECT_EQ(gw_chunks_evict(t.chunks, victim, 8), 0);
    gw_chunks_scan_at(t.chunks, 0, now, 0);
    GW_EXPECT_EQ(gw_chunks_evict(t.chunks, victim, 8), 0);
    gw_chunks_scan_at(t.chunks, 0, now, 1); /* the first stripe is behind it */
    GW_ASSERT_EQ(gw_chunks_evict(t.chunks, victim, 8), 2);
    GW_EXPECT_EQ(victim[0].offset, 0);
    GW_EXPECT_EQ(victim[1].offset, CHUNK);
    GW_EXPECT(!is_ready(&t, 0) && !is_ready(&t, 1) && is_ready(&t, 2));
    GW_EXPECT_EQ(rig_domain_mrs(t.dom), 4);
    rig_chunk_out(t.chunks, &victim[0]);
    rig_chunk_out(t.chunks, &victim[1]);
    GW_EXPECT_EQ(rig_domain_mrs(t.dom), 2);
    /* Half of the budget is on its way back: no more than that at a time. */
    gw_chunks_scan_at(t.chunks, 0, now, 2);
    GW_EXPECT_EQ(gw_chunks_evict(t.chunks, victim + 2, 6), 0);
    GW_ASSERT_EQ(gw_chunks_wish(t.chunks, wish, 8, NULL), 2); /* the target has no limit */
    GW_EXPECT_EQ(wish[0].offset, 4 * CHUNK);
    GW_EXPECT_EQ(gw_chunks_released(t.chunks, &victim[0], NULL), 0);
    GW_EXPECT_EQ(gw_chunks_registered_peak(t.chunks), 4 * CHUNK);
    bench_fini(&t);
}

GW_TEST(chunk, an_owner_that_waits_has_gone_over_all_that_was_ready)
{
    struct bench t;
    bench_init(&t, 8, true, 2, 2);
    struct gw_wish wish[8];
    struct gw_wish victim[8];
    gw_chunks_scan_begin(t.chunks, 0);
    gw_chunks_scan_begin(t.chunks, 1);
    GW_ASSERT_EQ(gw_chunks_wish(t.chunks, wish, 8, NULL), 2);
    /* Many passes of one owner while the other waits: each chunk of its can go all the same. */
    for (unsigned pass = 1; pass < 50; pass++) {
        gw_chunks_scan_at(t.chunks, 1, pass, 0);
        gw_chunks_scan_at(t.chunks, 1, pass, UINT32_MAX);
    }
    make_ready(&t, &wish[0]);
    uint32_t now = gw_chunks_generation(t.chunks);
    GW_EXPECT_EQ(gw_chunks_evict(t.chunks, victim, 8), 0);
    gw_chunks_scan_at(t.chunks, 0, now, 0);
    gw_chunks_scan_at(t.chunks, 0, now, UINT32_MAX); /* and it waits */
    GW_ASSERT_EQ(gw_chunks_evict(t.chunks, victim, 8), 1);
    GW_EXPECT_EQ(victim[0].offset, 0);
    bench_fini(&t);
}

GW_TEST(chunk, is_wished_for_again_only_when_both_ends_have_let_go)
{
    for (int order = 0; order < 2; order++) {
        struct bench t;
        bench_init(&t, 1, true, 1, 1);
        struct gw_wish wish, victim;
        struct gw_mr *mr = NULL;
        struct gw_rmr *rmr = NULL;
        GW_ASSERT_EQ(gw_chunks_wish(t.chunks, &wish, 1, NULL), 1);
        make_ready(&t, &wish);
        GW_EXPECT_EQ(gw_chunks_evict(t.chunks, &victim, 1), 0); /* nothing is wanted */
        gw_chunks_want(t.chunks, t.block, 0);
        GW_EXPECT_EQ(gw_chunks_evict(t.chunks, &victim, 1), 0); /* what is ready is not wanted */
        bench_fini(&t);
        bench_init(&t, 2, true, 1, 1);
        GW_ASSERT_EQ(gw_chunks_wish(t.chunks, &wish, 1, NULL), 1);
        make_ready(&t, &wish);
        GW_ASSERT_EQ(gw_chunks_evict(t.chunks, &victim, 1), 1);
        gw_chunks_want(t.chunks, t.block, 0);
        gw_chunks_evicted(t.chunks, &victim, &mr, &rmr);
        gw_rmr_close(rmr);
        gw_mr_dereg(mr);
        if (order == 0)
            gw_chunks_deregistered(t.chunks, &victim);
        else
            GW_EXPECT_EQ(gw_chunks_released(t.chunks, &victim, NULL), 0);
        struct gw_wish next[2];
        int count = gw_chunks_wish(t.chunks, next, 2, NULL);
        GW_EXPECT_EQ(count, order == 0 ? 1 : 0); /* the other chunk; here the budget is short */
        if (order == 0)
            GW_EXPECT_EQ(gw_chunks_released(t.chunks, &victim, NULL), 0);
        else
            gw_chunks_deregistered(t.chunks, &victim);
        bench_fini(&t);
    }
}

GW_TEST(chunk, a_budget_too_small_for_one_chunk_says_what_it_needs)
{
    struct bench t;
    bench_init(&t, 2, true, 1, 1);
    struct gw_error err = GW_ERROR_INIT;
    struct gw_chunks_config config = {
        .ram = t.memory.ram,
        .dom = t.dom,
        .keyed = true,
        .local_budget = UINT64_MAX,
        .remote_budget = 65536,
    };
    GW_EXPECT(gw_chunks_new(&config, &err) == NULL);
    GW_EXPECT_EQ(err.rc, -ENOMEM);
    GW_EXPECT(strstr(err.message, "block 'a': 2097152 bytes") != NULL);
    GW_EXPECT(strstr(err.message, "target allows 65536") != NULL);
    GW_EXPECT(strstr(err.hint, "at the target: ulimit -l 3072 ") != NULL);
    config.local_besides = UINT64_C(5) << 20; /* the limit that is advised is enough for both */
    gw_error_clear(&err);
    GW_EXPECT(gw_chunks_new(&config, &err) == NULL);
    GW_EXPECT(strstr(err.hint, "ulimit -l 8192 ") && strstr(err.hint, "--memlock=8388608)"));
    config.remote_budget = CHUNK;
    config.all = true; /* both chunks, at one time */
    gw_error_clear(&err);
    GW_EXPECT(gw_chunks_new(&config, &err) == NULL);
    GW_EXPECT(strstr(err.message, "rdma-pin-all: 4194304 bytes") != NULL);
    bench_fini(&t);
}

GW_TEST(chunk, all_of_a_block_is_wished_for_where_all_is_pinned)
{
    struct bench t;
    bench_init(&t, 4, true, 4, 1);
    gw_chunks_free(t.chunks);
    struct gw_chunks_config config = {
        .ram = t.memory.ram,
        .dom = t.dom,
        .keyed = true,
        .all = true,
        .chunk_bytes = CHUNK,
        .local_budget = 4 * CHUNK,
        .remote_budget = UINT64_MAX,
    };
    madvise(t.memory.host[0], 4 * CHUNK, MADV_DONTNEED); /* nothing is populated */
    t.chunks = gw_chunks_new(&config, NULL);
    GW_ASSERT(t.chunks);
    GW_EXPECT(!gw_chunks_are_ready(t.chunks));
    struct gw_wish wish[8];
    GW_ASSERT_EQ(gw_chunks_wish(t.chunks, wish, 8, NULL), 4);
    for (unsigned i = 0; i < 4; i++) {
        GW_EXPECT(!gw_chunks_are_ready(t.chunks));
        make_ready(&t, &wish[i]);
    }
    GW_EXPECT(gw_chunks_are_ready(t.chunks));
    bench_fini(&t);
}

GW_TEST(chunk, nothing_is_evicted_while_nothing_is_wanted)
{
    struct bench t;
    bench_init(&t, 4, true, 4, 1);
    struct gw_wish wish[8];
    GW_ASSERT_EQ(gw_chunks_wish(t.chunks, wish, 8, NULL), 4);
    for (unsigned i = 0; i < 4; i++)
        make_ready(&t, &wish[i]);
    GW_EXPECT_EQ(gw_chunks_evict(t.chunks, wish, 8), 0); /* no owner is in a round */
    bench_fini(&t);
}

GW_TEST(chunk, a_chunk_of_several_owners_goes_when_all_have_passed_it)
{
    struct bench t;
    bench_init(&t, 8, true, 2, 3);
    gw_chunks_free(t.chunks);
    struct gw_chunks_config config = {
        .ram = t.memory.ram,
        .dom = t.dom,
        .keyed = true,
        .chunk_bytes = 4 * CHUNK, /* two stripes */
        .local_budget = 4 * CHUNK,
        .remote_budget = UINT64_MAX,
    };
    t.chunks = gw_chunks_new(&config, NULL);
    GW_ASSERT(t.chunks);
    struct gw_wish wish[2];
    GW_ASSERT_EQ(gw_chunks_wish(t.chunks, wish, 2, NULL), 1);
    make_ready(&t, &wish[0]);
    uint32_t now = gw_chunks_generation(t.chunks);
    gw_chunks_scan_begin(t.chunks, 0);
    gw_chunks_scan_begin(t.chunks, 1);
    gw_chunks_scan_at(t.chunks, 0, now, 1);
    GW_EXPECT_EQ(gw_chunks_evict(t.chunks, wish, 2), 0);
    gw_chunks_scan_at(t.chunks, 1, now, 2);
    GW_EXPECT_EQ(gw_chunks_evict(t.chunks, wish, 2), 1);
    bench_fini(&t);
}

GW_TEST(chunk, an_evicted_chunk_is_wished_for_again_when_dirty)
{
    struct bench t;
    bench_init(&t, 2, true, 1, 1);
    struct gw_wish wish[2];
    struct gw_wish victim;
    GW_ASSERT_EQ(gw_chunks_wish(t.chunks, wish, 2, NULL), 1);
    make_ready(&t, &wish[0]);
    GW_ASSERT_EQ(gw_chunks_evict(t.chunks, &victim, 1), 1);
    gw_chunks_want(t.chunks, t.block, 0); /* while it is on its way out */
    rig_chunk_out(t.chunks, &victim);
    GW_EXPECT_EQ(gw_chunks_released(t.chunks, &victim, NULL), 0);
    GW_ASSERT_EQ(gw_chunks_wish(t.chunks, wish, 2, NULL), 1);
    GW_EXPECT_EQ(wish[0].offset, CHUNK); /* first all that is populated */
    make_ready(&t, &wish[0]);
    GW_ASSERT_EQ(gw_chunks_evict(t.chunks, &victim, 1), 1);
    rig_chunk_out(t.chunks, &victim);
    GW_EXPECT_EQ(gw_chunks_released(t.chunks, &victim, NULL), 0);
    GW_ASSERT_EQ(gw_chunks_wish(t.chunks, wish, 2, NULL), 1);
    GW_EXPECT_EQ(wish[0].offset, 0);
    make_ready(&t, &wish[0]);
    GW_EXPECT(is_ready(&t, 0));
    GW_EXPECT_EQ(gw_chunks_registered_peak(t.chunks), CHUNK);
    bench_fini(&t);
}

GW_TEST(chunk, sizes_follow_block_page_and_budget)
{
    struct rig_memory memory;
    rig_memory_init(&memory);
    struct gw_block *block = rig_memory_add(&memory, "a", GW_BLOCK_ANON, 1u << 21); /* 8 GiB */
    GW_ASSERT_EQ(gw_ram_layout(memory.ram, GW_STRIPE_BYTES_DEFAULT, 1, NULL), 0);
    struct gw_chunks_config config = {
        .ram = memory.ram,
        .keyed = true,
        .local_budget = UINT64_MAX,
        .remote_budget = UINT64_MAX,
    };
    struct gw_chunks *chunks = gw_chunks_new(&config, NULL);
    GW_EXPECT_EQ(gw_chunk_pages_left(chunks, block, 0), (32u << 20) / GW_PAGE_BYTES);
    gw_chunks_free(chunks);
    config.remote_budget = 64u << 20;
    chunks = gw_chunks_new(&config, NULL);
    GW_EXPECT_EQ(gw_chunk_pages_left(chunks, block, 0), (8u << 20) / GW_PAGE_BYTES);
    gw_chunks_free(chunks);
    block->desc.page_bytes = 1u << 30;
    GW_EXPECT(gw_chunks_new(&config, NULL) == NULL); /* not one fits */
    config.remote_budget = UINT64_C(4) << 30;
    chunks = gw_chunks_new(&config, NULL);
    GW_EXPECT_EQ(gw_chunk_pages_left(chunks, block, 0), (1u << 30) / GW_PAGE_BYTES);
    gw_chunks_free(chunks);
    struct gw_error err = GW_ERROR_INIT;
    config.chunk_bytes = 3u << 20;
    GW_EXPECT(gw_chunks_new(&config, &err) == NULL);
    GW_EXPECT_EQ(err.rc, -EINVAL);
    rig_memory_fini(&memory);
}

GW_TEST(chunk, running_out_of_memory_while_made_leaves_nothing_behind)
{
    struct bench t;
    bench_init(&t, 2, false, 0, 1);
    gw_chunks_free(t.chunks);
    t.chunks = NULL;
    int64_t live = gw_alloc_live();
    for (int keyed = 0; keyed < 2; keyed++) {
        struct gw_chunks_config config = {
            .ram = t.memory.ram,
            .dom = t.dom,
            .keyed = keyed,
            .local_budget = UINT64_MAX,
            .remote_budget = UINT64_MAX,
        };
        for (int n = 0; !t.chunks; n++) {
            gw_alloc_fail_after(n);
            t.chunks = gw_chunks_new(&config, NULL);
            gw_alloc_fail_after(-1);
            GW_EXPECT(t.chunks || gw_alloc_live() == live);
        }
        gw_chunks_free(t.chunks);
        t.chunks = NULL;
        GW_EXPECT_EQ(gw_alloc_live(), live);
        GW_EXPECT(t.block->rmr == NULL);
    }
    bench_fini(&t);
}

/* Two owners, stripes of two chunks each. */
GW_TEST(chunk, is_late_once_for_an_owner_of_it_that_ran_out)
{
    struct bench t;
    uint64_t ahead;
    struct gw_wish wish[8];
    bench_init(&t, 8, true, 0, 2);
    GW_ASSERT_EQ(gw_chunks_wish(t.chunks, wish, 8, NULL), 8);
    make_ready(&t, &wish[0]);
    GW_EXPECT_EQ(gw_chunks_made(t.chunks, &ahead), 1);
    GW_EXPECT_EQ(ahead, 1);
    gw_chunks_scan_waits(t.chunks, 0);
    make_ready(&t, &wish[2]); /* the other owner's */
    GW_EXPECT_EQ(gw_chunks_made(t.chunks, &ahead), 2);
    GW_EXPECT_EQ(ahead, 2);
    make_ready(&t, &wish[1]);
    GW_EXPECT_EQ(gw_chunks_made(t.chunks, &ahead), 3);
    GW_EXPECT_EQ(ahead, 2);
    make_ready(&t, &wish[4]); /* it has one to send by now */
    GW_EXPECT_EQ(gw_chunks_made(t.chunks, &ahead), 4);
    GW_EXPECT_EQ(ahead, 3);
    bench_fini(&t);
}
