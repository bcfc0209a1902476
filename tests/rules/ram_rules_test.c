// SPDX-License-Identifier: MIT
/* The rules of docs/architecture.md that room ram keeps, each as a test of its name that fails when the
 * rule is broken in the code. (Joining fences, revoking and closing are other rooms' rules.) */
#include "core/base/bitmap.h"
#include "ram/place.h"
#include "ram/scan.h"
#include "tests/shim/gw_test.h"
#include "tests/support/ram_rig.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define PAGE UINT64_C(4096)
#define CHUNK GW_CHUNK_BYTES_MIN
#define CHUNK_PAGES (CHUNK / PAGE)
#define PAGES (4 * CHUNK_PAGES)

struct bench {
    struct rig_memory memory;
    struct gw_block *block;
    struct rig_dirty *dirty;
    struct gw_domain *dom;
    struct gw_chunks *chunks;
    struct rig_sink *sink;
    struct gw_sender *sender;
};

struct how {
    bool one_sided;
    bool keyed;
    unsigned budget_chunks; /* 0: no limit */
};

/* Every page of the block whose number is a multiple of @step is written and dirty. */
static void bench_init(struct bench *t, struct how how, uint64_t step)
{
    rig_memory_init(&t->memory);
    t->block = rig_memory_add(&t->memory, "a", GW_BLOCK_ANON, PAGES);
    for (uint64_t page = 0; page < PAGES; page += step)
        rig_write(t->block, page, page + 1);
    t->dirty = calloc(1, sizeof(*t->dirty));
    t->sink = malloc(sizeof(*t->sink));
    t->dom = rig_domain_new();
    GW_ASSERT(t->dirty && t->sink);
    GW_ASSERT_EQ(gw_ram_layout(t->memory.ram, 2 * CHUNK, 1, NULL), 0);
    GW_ASSERT_EQ(gw_ram_add_dirty(t->memory.ram, &rig_dirty_ops, t->dirty, NULL), 0);
    GW_ASSERT_EQ(gw_dirty_start(t->memory.ram, GW_DIRTY_ALL, NULL), 0);
    GW_ASSERT_EQ(gw_ram_source_begin(t->memory.ram, NULL), 0);
    struct gw_chunks_config chunks = {
        .ram = t->memory.ram,
        .dom = t->dom,
        .keyed = how.keyed,
        .chunk_bytes = CHUNK,
        .local_budget = UINT64_MAX,
        .remote_budget = how.budget_chunks ? how.budget_chunks * CHUNK : UINT64_MAX,
    };
    t->chunks = gw_chunks_new(&chunks, NULL);
    rig_sink_init(t->sink, t->memory.ram, how.one_sided);
    rig_sink_image(t->sink, t->block);
    struct gw_sender_config sender = {
        .ram = t->memory.ram,
        .chunks = t->chunks,
        .sink = &t->sink->sink,
    };
    t->sender = gw_sender_new(&sender, NULL);
    GW_ASSERT(t->chunks && t->sender);
}

static void bench_fini(struct bench *t)
{
    gw_sender_free(t->sender);
    gw_dirty_stop(t->memory.ram);
    rig_sink_fini(t->sink);
    free(t->sink);
    gw_chunks_free(t->chunks);
    rig_domain_free(t->dom);
    rig_memory_fini(&t->memory);
    free(t->dirty);
}

/* What the guest does: write, and be seen. */
static void guest_writes(struct bench *t, uint64_t page, uint64_t value)
{
    rig_write(t->block, page, value);
    rig_dirty_mark(t->dirty, t->block, page);
}

static void ack(struct bench *t)
{
    rig_sink_ack(t->sink, t->sink->zero_number);
    gw_sender_zero_acked(t->sender, t->sink->zero_number);
}

/* 1: A completion lends back, a fence places. */
GW_TEST(rule, a_completion_lends_back_a_fence_places)
{
    struct bench t;
    bench_init(&t, (struct how){.one_sided = true}, 10);
    t.sink->refuse_messages = true;
    gw_sender_begin(t.sender, 5, false);
    GW_EXPECT_EQ(rig_step(t.sender, 1000), GW_SEND_BLOCKED);
    GW_EXPECT_EQ(rig_step(t.sender, 1000), GW_SEND_BLOCKED);
    /* Every put is complete, no bit is left: and yet the round is not over, for want of a fence. */
    GW_EXPECT_EQ(t.sink->flying_count, 0);
    GW_EXPECT_EQ(gw_sender_remaining(t.sender), 0);
    t.sink->refuse_messages = false;
    GW_EXPECT_EQ(rig_step(t.sender, 1000), GW_SEND_IDLE);
    GW_EXPECT_EQ(t.sink->event[t.sink->event_count - 1].kind, RIG_FENCE);
    bench_fini(&t);
}

/* 2: One page, one endpoint: puts and zero runs alike. */
GW_TEST(rule, one_page_one_endpoint)
{
    struct bench t;
    bench_init(&t, (struct how){0}, 1);
    for (uint64_t page = 0; page < PAGES; page += 3)
        rig_write(t.block, page, 0);
    const unsigned owners = 2;
    GW_ASSERT_EQ(gw_ram_layout(t.memory.ram, CHUNK, owners, NULL), 0);
    struct gw_chunks_config chunks_config = {
        .ram = t.memory.ram, .dom = t.dom, .local_budget = UINT64_MAX, .remote_budget = UINT64_MAX};
    struct gw_chunks *chunks = gw_chunks_new(&chunks_config, NULL);
    GW_ASSERT(chunks);
    GW_ASSERT_EQ(gw_ram_target_begin(t.memory.ram, NULL), 0);
    for (unsigned owner = 0; owner < owners; owner++) {
        struct rig_sink *sink = malloc(sizeof(*sink));
        GW_ASSERT(sink);
        rig_sink_init(sink, t.memory.ram, false);
        struct gw_sender_config config = {
            .ram = t.memory.ram, .chunks = chunks, .owner = owner, .sink = &sink->sink};
        struct gw_sender *sender = gw_sender_new(&config, NULL);
        GW_ASSERT(sender);
        gw_sender_begin(sender, 1, false);
        GW_EXPECT_EQ(rig_step(sender, 1000), GW_SEND_IDLE);
        /* The placer of the same endpoint takes all of it, that of the other none. */
        struct gw_placer own = {.ram = t.memory.ram, .owner = owner};
        struct gw_placer foreign = {.ram = t.memory.ram, .owner = 1 - owner};
        unsigned runs = 0;
        for (unsigned i = 0; i < sink->event_count; i++) {
            const struct rig_event *event = &sink->event[i];
            uint64_t offset = event->first_page * PAGE;
            uint32_t bytes = (uint32_t)(event->pages * PAGE);
            struct gw_zero_run zero = {event->block, event->first_page, event->pages};
            if (event->kind == RIG_PUT) {
                GW_EXPECT_EQ(gw_placer_ops.check(&own, event->block, offset, bytes), 0);
                GW_EXPECT_EQ(gw_placer_ops.check(&foreign, event->block, offset, bytes), -EPROTO);
            } else if (event->kind == RIG_ZERO) {
                GW_EXPECT_EQ(gw_place_zero(&own, &zero, 1, NULL), 0);
                GW_EXPECT_EQ(gw_place_zero(&foreign, &zero, 1, NULL), -EPROTO);
            }
            runs++;
        }
        GW_EXPECT_GT(runs, PAGES / owners / 2);
        gw_sender_free(sender);
        rig_sink_fini(sink);
        free(sink);
    }
    GW_EXPECT_EQ(gw_ram_dirty_pages(t.memory.ram), 0);
    gw_chunks_free(chunks);
    GW_ASSERT_EQ(gw_ram_layout(t.memory.ram, 2 * CHUNK, 1, NULL), 0);
    bench_fini(&t);
}

/* 3: Zero, then wait. */
GW_TEST(rule, zero_then_wait)
{
    struct bench t;
    bench_init(&t, (struct how){.one_sided = true}, 100);
    rig_write(t.block, 200, 0);
    gw_sender_begin(t.sender, 1, false);
    GW_EXPECT_EQ(rig_step(t.sender, 1000), GW_SEND_IDLE);
    GW_EXPECT_EQ(rig_sink_count(t.sink, RIG_ZERO, t.block, 200), 1);
    /* The target has not applied the zero run, when the page gets content again. */
    guest_writes(&t, 200, 77);
    guest_writes(&t, 199, 78);
    guest_writes(&t, 201, 79);
    GW_EXPECT_EQ(gw_dirty_sync(t.memory.ram, 0, NULL, NULL), 0);
    gw_sender_begin(t.sender, 2, false);
    GW_EXPECT_EQ(rig_step(t.sender, 1000), GW_SEND_BLOCKED);
    GW_EXPECT_EQ(rig_sink_count(t.sink, RIG_PUT, t.block, 200), 0);
    GW_EXPECT_EQ(rig_sink_count(t.sink, RIG_PUT, t.block, 199), 1); /* others go on */
    GW_EXPECT_EQ(rig_sink_count(t.sink, RIG_PUT, t.block, 201), 1);
    ack(&t);
    GW_EXPECT_EQ(rig_step(t.sender, 1000), GW_SEND_IDLE);
    GW_EXPECT_EQ(rig_sink_count(t.sink, RIG_PUT, t.block, 200), 1);
    GW_EXPECT_EQ(t.sink->zeroed_in_flight, 0);
    ack(&t);
    GW_EXPECT(rig_sink_image_is_right(t.sink));
    bench_fini(&t);
}

/* The same in the thick: more zero messages than can be unacknowledged, acknowledged late. */
GW_TEST(rule, zero_then_wait_when_many_are_unacknowledged)
{
    struct bench t;
    bench_init(&t, (struct how){.one_sided = true}, 1);
    srandom(8);
    for (unsigned round = 1; round <= 20; round++) {
        for (uint64_t page = 0; page < PAGES; page++) {
            if (random() % 2)
                guest_writes(&t, page, random() % 2 ? 0 : (uint64_t)random());
        }
        GW_EXPECT_EQ(gw_dirty_sync(t.memory.ram, 0, NULL, NULL), 0);
        gw_sender_begin(t.sender, round, false);
        int state;
        while ((state = rig_step(t.sender, 10000)) == GW_SEND_BLOCKED) {
            uint32_t number = t.sink->zero_acked + 1; /* one at a time */
            GW_ASSERT_LE(number, t.sink->zero_number);
            rig_sink_ack(t.sink, number);
            gw_sender_zero_acked(t.sender, number);
        }
        GW_ASSERT_EQ(state, GW_SEND_IDLE);
    }
    GW_EXPECT_EQ(t.sink->zeroed_in_flight, 0);
    GW_EXPECT_EQ(t.sink->overlaps, 0);
    ack(&t);
    GW_EXPECT(rig_sink_image_is_right(t.sink));
    bench_fini(&t);
}

static void take_and_absorb(struct bench *t, const struct gw_wish *range)
{
    uint64_t bits[CHUNK_PAGES / 64] = {0};
    GW_ASSERT_EQ(gw_dirty_take(t->memory.ram, range->block, range->offset / PAGE,
                               range->bytes / PAGE, bits, NULL),
                 0);
    gw_dirty_absorb(t->memory.ram, 0, range->block, range->offset / PAGE, range->bytes / PAGE,
                    bits);
}

static void make_ready(struct bench *t, const struct gw_wish *wish)
{
    struct gw_wish range;
    GW_ASSERT_EQ(rig_chunk_key(t->chunks, wish), 0);
    GW_ASSERT_EQ(gw_chunks_newly_ready(t->chunks, &range, 1), 1);
    take_and_absorb(t, &range);
    gw_chunks_synced(t->chunks, &range);
}

/* 4: One put per page in flight. */
GW_TEST(rule, one_put_per_page_in_flight)
{
    struct bench t;
    bench_init(&t, (struct how){.one_sided = true, .keyed = true}, CHUNK_PAGES);
    struct gw_wish wish[4];
    GW_ASSERT_EQ(gw_chunks_wish(t.chunks, wish, 4, NULL), 4);
    make_ready(&t, &wish[0]);
    t.sink->hold = true;
    gw_sender_begin(t.sender, 1, false);
    GW_EXPECT_EQ(rig_step(t.sender, 1000), GW_SEND_CHUNKS); /* the others keep the round open */
    GW_EXPECT_EQ(t.sink->flying_count, 1);
    /* Page 0 is in flight, and dirty again; so is its neighbour. */
    guest_writes(&t, 0, 4711);
    guest_writes(&t, 1, 4712);
    GW_EXPECT_EQ(gw_dirty_sync(t.memory.ram, 0, NULL, NULL), 0);
    for (unsigned i = 1; i < 4; i++)
        make_ready(&t, &wish[i]);
    GW_EXPECT_EQ(rig_step(t.sender, 1000), GW_SEND_BLOCKED);
    GW_EXPECT_EQ(rig_sink_count(t.sink, RIG_PUT, t.block, 0), 1);
    GW_EXPECT_EQ(rig_sink_count(t.sink, RIG_PUT, t.block, 1), 1);
    GW_EXPECT_EQ(gw_sender_remaining(t.sender), 1);
    t.sink->hold = false;
    GW_EXPECT_EQ(rig_step(t.sender, 1000), GW_SEND_IDLE);
    GW_EXPECT_EQ(rig_sink_count(t.sink, RIG_PUT, t.block, 0), 2);
    GW_EXPECT_EQ(t.sink->overlaps, 0);
    GW_EXPECT(rig_sink_image_is_right(t.sink));
    bench_fini(&t);
}

/* 6: Register, clear, read. */
GW_TEST(rule, register_clear_read)
{
    struct bench t;
    bench_init(&t, (struct how){.one_sided = true, .keyed = true}, CHUNK_PAGES);
    struct gw_wish wish[4];
    struct gw_wish range;
    GW_ASSERT_EQ(gw_chunks_wish(t.chunks, wish, 4, NULL), 4);
    gw_sender_begin(t.sender, 1, false);
    guest_writes(&t, 5, 55); /* in no bit yet */
    for (unsigned i = 0; i < 4; i++) {
        GW_ASSERT_EQ(rig_chunk_key(t.chunks, &wish[i]), 0);
        for (uint64_t page = 0; page < CHUNK_PAGES; page++) /* what pinning does */
            rig_dirty_mark(t.dirty, t.block, i * CHUNK_PAGES + page);
        /* Registered, but not re-armed: nothing of it may be read. */
        GW_EXPECT(!gw_chunk_is_ready(t.chunks, t.block, i * CHUNK_PAGES));
        GW_EXPECT_EQ(rig_step(t.sender, 1000), GW_SEND_CHUNKS);
        GW_EXPECT_EQ(rig_sink_pages(t.sink, RIG_PUT), i + (i > 0));
        GW_ASSERT_EQ(gw_chunks_newly_ready(t.chunks, &range, 1), 1);
        take_and_absorb(&t, &range);
        gw_chunks_synced(t.chunks, &range);
        GW_EXPECT_EQ(rig_step(t.sender, 1000), i == 3 ? GW_SEND_IDLE : GW_SEND_CHUNKS);
    }
    ack(&t);
    GW_EXPECT(rig_sink_image_is_right(t.sink)); /* page 5 included: nothing was lost */
    /* And the marks of the registration do not come up again. */
    uint64_t found = 1;
    GW_EXPECT_EQ(gw_dirty_sync(t.memory.ram, 0, &found, NULL), 0);
    GW_EXPECT_EQ(found, 0);
    bench_fini(&t);
}

/* 7: Bits live in the bitmap. */
GW_TEST(rule, bits_live_in_the_bitmap)
{
    struct bench t;
    bench_init(&t, (struct how){.one_sided = true, .keyed = true}, 100);
    uint64_t dirty = gw_ram_dirty_pages(t.memory.ram);
    struct gw_wish wish[4];
    GW_ASSERT_EQ(gw_chunks_wish(t.chunks, wish, 4, NULL), 4);
    make_ready(&t, &wish[1]);
    t.sink->hold = true;
    gw_sender_begin(t.sender, 1, false);
    GW_EXPECT_EQ(rig_step(t.sender, 1000), GW_SEND_CHUNKS);
    uint64_t taken = rig_sink_pages(t.sink, RIG_PUT);
    GW_EXPECT_GT(taken, 2);
    GW_EXPECT_EQ(gw_sender_remaining(t.sender),
                 dirty - taken); /* not ready: their bits are there */
    /* One put is flushed: its bits are set before anyone hears of it; those of the others, of which
     * nothing is known, as well. */
    uint64_t failed = t.sink->flying[0].first_page;
    t.sink->hold = false;
    t.sink->fail_status = -ECONNRESET;
    GW_EXPECT_EQ(gw_sender_step(t.sender, 1), -ECONNRESET);
    GW_EXPECT(gw_bitmap_test(t.block->dirty, failed));
    bench_fini(&t);

    bench_init(&t, (struct how){.one_sided = true}, 100);
    t.sink->hold = true;
    gw_sender_begin(t.sender, 1, false);
    GW_EXPECT_EQ(rig_step(t.sender, 1000), GW_SEND_BLOCKED);
    t.sink->final = -ESHUTDOWN;
    gw_sender_free(t.sender); /* with all of it in flight */
    t.sender = NULL;
    GW_EXPECT_EQ(gw_ram_dirty_pages(t.memory.ram), dirty);
    bench_fini(&t);
}

struct touching {
    uint32_t *word; /* the first of each page */
    uint64_t pages;
    _Atomic int stop;
    uint64_t adds;
};

static void *add_on(void *ctx)
{
    struct touching *touching = ctx;
    while (!atomic_load_explicit(&touching->stop, memory_order_relaxed)) {
        for (uint64_t page = 0; page < touching->pages; page++)
            __atomic_fetch_add(&touching->word[page * (PAGE / 4)], 1, __ATOMIC_RELAXED);
        touching->adds++;
    }
    return NULL;
}

/* 8: Prefault never stores: what the wire writes meanwhile is never written over. */
GW_TEST(rule, prefault_never_stores)
{
    struct rig_memory memory;
    rig_memory_init(&memory);
    struct gw_block *block = rig_memory_add(&memory, "a", GW_BLOCK_ANON, 4);
    struct touching wire = {.word = (uint32_t *)memory.host[0], .pages = 4};
    pthread_t thread;
    GW_ASSERT_EQ(pthread_create(&thread, NULL, add_on, &wire), 0);
    for (unsigned i = 0; i < 200000; i++)
        gw_prefault_by_touch(memory.host[0], 4 * PAGE);
    for (unsigned i = 0; i < 20000; i++)
        GW_EXPECT_EQ(gw_prefault(block, 0, 4 * PAGE), 0);
    atomic_store_explicit(&wire.stop, 1, memory_order_relaxed);
    pthread_join(thread, NULL);
    for (uint64_t page = 0; page < 4; page++)
        GW_EXPECT_EQ(wire.word[page * (PAGE / 4)], (uint32_t)wire.adds);
    rig_memory_fini(&memory);
}

/* 9: The source alone evicts: stop, reap, release. */
GW_TEST(rule, the_source_alone_evicts)
{
    struct bench t;
    bench_init(&t, (struct how){.one_sided = true, .keyed = true, .budget_chunks = 1}, CHUNK_PAGES);
    struct gw_wish wish[4];
    struct gw_wish victim;
    GW_ASSERT_EQ(gw_chunks_wish(t.chunks, wish, 4, NULL), 1);
    /* Whatever the target says of a chunk that it was not told to release changes nothing. */
    gw_sender_begin(t.sender, 1, false);
    make_ready(&t, &wish[0]);
    GW_EXPECT_EQ(gw_chunks_released(t.chunks, &wish[0], NULL), -EPROTO);
    GW_EXPECT(gw_chunk_is_ready(t.chunks, t.block, 0));
    GW_EXPECT_EQ(gw_chunks_wish(t.chunks, wish + 1, 3, NULL), 0);
    GW_EXPECT_EQ(gw_chunks_evict(t.chunks, &victim, 1), 0); /* the scan has not been there */
    t.sink->hold = true;
    GW_EXPECT_EQ(rig_step(t.sender, 1000), GW_SEND_CHUNKS);
    GW_EXPECT_EQ(t.sink->flying_count, 1);
    /* Stop: from now on the scan passes it by, its dirty pages keep their bits. */
    GW_ASSERT_EQ(gw_chunks_evict(t.chunks, &victim, 1), 1);
    GW_EXPECT_EQ(victim.offset, 0);
    guest_writes(&t, 7, 7);
    GW_EXPECT_EQ(gw_dirty_sync(t.memory.ram, 0, NULL, NULL), 0);
    struct gw_stripe stripe;
    struct gw_scan scan;
    struct gw_run run;
    GW_ASSERT(gw_ram_stripe(t.memory.ram, 0, 0, &stripe));
    gw_scan_begin(&scan, t.memory.ram, t.chunks, &stripe);
    GW_EXPECT(!gw_scan_next(&scan, 1, &run));
    t.sink->hold = false;
    /* Reap. */
    GW_EXPECT(gw_sender_holds(t.sender, &victim));
    GW_EXPECT_EQ(rig_domain_mrs(t.dom), 1);
    GW_EXPECT_EQ(rig_step(t.sender, 1000), GW_SEND_CHUNKS);
    GW_EXPECT(!gw_sender_holds(t.sender, &victim));
    GW_EXPECT(gw_bitmap_test(t.block->dirty, 7));
    /* Release: here at once, there when the target says so. */
    GW_EXPECT_EQ(gw_chunks_released(t.chunks, &victim, NULL), -EPROTO); /* not yet */
    rig_chunk_out(t.chunks, &victim);
    GW_EXPECT_EQ(rig_domain_mrs(t.dom), 0);
    GW_EXPECT_EQ(gw_chunks_wish(t.chunks, wish + 1, 3, NULL), 0);
    GW_EXPECT_EQ(gw_chunks_released(t.chunks, &victim, NULL), 0);
    GW_EXPECT_EQ(gw_chunks_released(t.chunks, &victim, NULL), -EPROTO); /* once */
    GW_EXPECT_EQ(gw_chunks_wish(t.chunks, wish + 1, 3, NULL), 1);
    GW_EXPECT_EQ(gw_chunks_key(t.chunks, &victim, "k", 1, NULL),
                 -EPROTO); /* no key without a wish */
    bench_fini(&t);
}
