// SPDX-License-Identifier: MIT
/* The sender against a sink that records, refuses, holds back and fails as told, and sink_put against
 * an endpoint that only keeps what it was given. What matters in the end is the target's image. */
#include "core/base/alloc.h"
#include "core/base/bitmap.h"
#include "ram/scan.h"
#include "tests/shim/gw_test.h"
#include "tests/support/ram_rig.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define PAGE UINT64_C(4096)
#define PAGES 4096

struct bench {
    struct rig_memory memory;
    struct gw_block *block;
    struct gw_chunks *chunks;
    struct gw_domain *dom;
    struct rig_sink *sink;
    struct gw_sender *sender;
    struct gw_sender_config config;
};

static void bench_open(struct bench *t, enum gw_block_kind kind, bool one_sided, bool keyed)
{
    t->sender = NULL;
    rig_memory_init(&t->memory);
    t->block = rig_memory_add(&t->memory, "a", kind, PAGES);
    GW_ASSERT_EQ(gw_ram_layout(t->memory.ram, 2u << 20, 1, NULL), 0);
    t->dom = rig_domain_new();
    struct gw_chunks_config chunks = {
        .ram = t->memory.ram,
        .dom = t->dom,
        .keyed = keyed,
        .chunk_bytes = GW_CHUNK_BYTES_MIN,
        .local_budget = UINT64_MAX,
        .remote_budget = UINT64_MAX,
    };
    t->chunks = gw_chunks_new(&chunks, NULL);
    t->sink = malloc(sizeof(*t->sink));
    GW_ASSERT(t->chunks && t->sink);
    rig_sink_init(t->sink, t->memory.ram, one_sided);
    t->config = (struct gw_sender_config){
        .ram = t->memory.ram,
        .chunks = t->chunks,
        .sink = &t->sink->sink,
    };
}

/* Memory is written from here on by the test; then this makes the source begin. */
static void bench_begin(struct bench *t)
{
    GW_ASSERT_EQ(gw_ram_source_begin(t->memory.ram, NULL), 0);
    rig_sink_image(t->sink, t->block);
    t->sender = gw_sender_new(&t->config, NULL);
    GW_ASSERT(t->sender);
}

static void bench_init(struct bench *t, bool one_sided)
{
    bench_open(t, GW_BLOCK_ANON, one_sided, false);
}

static void bench_fini(struct bench *t)
{
    gw_sender_free(t->sender);
    GW_EXPECT_EQ(t->sink->overlaps, 0);
    GW_EXPECT_EQ(t->sink->zeroed_in_flight, 0);
    rig_sink_fini(t->sink);
    free(t->sink);
    gw_chunks_free(t->chunks);
    rig_domain_free(t->dom);
    rig_memory_fini(&t->memory);
}

static void dirty(struct bench *t, uint64_t page, uint64_t value)
{
    rig_write(t->block, page, value);
    gw_bitmap_set(t->block->dirty, page);
}

GW_TEST(send, a_round_carries_every_dirty_page_once_and_ends_with_its_fence)
{
    struct bench t;
    bench_init(&t, false);
    srandom(2);
    uint64_t normal = 0;
    uint64_t zero = 0;
    for (uint64_t page = 0; page < PAGES; page++) {
        long what = random() % 3;
        if (what)
            rig_write(t.block, page, what == 1 ? 0 : page);
        normal += what == 2 && page;
        zero += what == 1 || (what == 2 && !page);
    }
    bench_begin(&t);
    GW_EXPECT_EQ(gw_sender_remaining(t.sender), normal + zero);
    GW_EXPECT_EQ(gw_sender_step(t.sender, 1), GW_SEND_IDLE); /* nothing begun */
    gw_sender_begin(t.sender, 41, false);
    GW_EXPECT_EQ(rig_step(t.sender, 1000), GW_SEND_IDLE);
    GW_EXPECT(rig_sink_image_is_right(t.sink));
    for (uint64_t page = 0; page < PAGES; page++)
        GW_EXPECT_LE(rig_sink_count(t.sink, RIG_PUT, t.block, page) +
                         rig_sink_count(t.sink, RIG_ZERO, t.block, page),
                     1);
    const struct rig_event *last = &t.sink->event[t.sink->event_count - 1];
    GW_EXPECT_EQ(last->kind, RIG_FENCE);
    GW_EXPECT_EQ(last->number, 41);
    struct gw_sender_stats stats;
    gw_sender_stats(t.sender, &stats);
    GW_EXPECT_EQ(stats.normal_pages, normal);
    GW_EXPECT_EQ(stats.duplicate_pages, zero);
    GW_EXPECT_EQ(stats.bytes, normal * PAGE);
    GW_EXPECT_EQ(stats.zero_messages, t.sink->zero_number);
    GW_EXPECT_EQ(rig_sink_pages(t.sink, RIG_PUT), normal);
    GW_EXPECT_EQ(rig_sink_pages(t.sink, RIG_ZERO), zero);
    GW_EXPECT_EQ(gw_sender_remaining(t.sender), 0);
    bench_fini(&t);
}

GW_TEST(send, scattered_pages_leave_many_to_a_call)
{
    struct bench t;
    bench_init(&t, false);
    for (uint64_t page = 0; page < PAGES; page += 8)
        rig_write(t.block, page, 1);
    bench_begin(&t);
    gw_sender_begin(t.sender, 1, false);
    GW_EXPECT_EQ(rig_step(t.sender, 1000), GW_SEND_IDLE);
    GW_EXPECT_EQ(rig_sink_pages(t.sink, RIG_PUT), PAGES / 8);
    GW_EXPECT_EQ(t.sink->calls, PAGES / 8 / t.sink->sink.run_count_max);
    bench_fini(&t);
}

GW_TEST(send, zero_runs_are_batched_and_merged)
{
    struct bench t;
    bench_init(&t, false);
    for (uint64_t page = 0; page < PAGES; page++)
        rig_write(t.block, page, page % 2);
    bench_begin(&t);
    gw_sender_begin(t.sender, 1, false);
    GW_EXPECT_EQ(rig_step(t.sender, 1000), GW_SEND_IDLE);
    GW_EXPECT_EQ(t.sink->zero_number, PAGES / 2 / GW_ZERO_RUNS_MAX);
    uint64_t puts = rig_sink_pages(t.sink, RIG_PUT);
    GW_EXPECT_EQ(puts, PAGES / 2);
    /* One long run of zeros is one entry to a stripe. */
    for (uint64_t page = 0; page < PAGES; page++)
        dirty(&t, page, 0);
    unsigned before = t.sink->event_count;
    gw_sender_begin(t.sender, 2, false);
    GW_EXPECT_EQ(rig_step(t.sender, 1000), GW_SEND_IDLE);
    GW_EXPECT_EQ(t.sink->event_count - before, PAGES / 512 + 1);
    GW_EXPECT(rig_sink_image_is_right(t.sink));
    bench_fini(&t);
}

static const char *const sides[] = {"stream", "one-sided", NULL};

GW_TEST_EACH(send, holes_are_said_where_the_target_is_not_fresh, sides)
{
    for (int fresh = 0; fresh < 2; fresh++) {
        struct bench t;
        bench_open(&t, GW_BLOCK_MEMFD, strcmp(param, "one-sided") == 0, false);
        rig_write(t.block, 1000, 1);
        rig_write(t.block, 3000, 0);
        bench_begin(&t);
        t.block->fresh = fresh;
        memset(t.sink->image[0], 0xee, PAGES * PAGE); /* what a used target holds */
        gw_sender_begin(t.sender, 1, true);
        GW_EXPECT_EQ(rig_step(t.sender, 1000), GW_SEND_IDLE);
        rig_sink_ack(t.sink, t.sink->zero_number);
        struct gw_sender_stats stats;
        gw_sender_stats(t.sender, &stats);
        GW_EXPECT_EQ(stats.normal_pages, 1);
        GW_EXPECT_EQ(stats.duplicate_pages, PAGES - 1); /* holes count, said or not */
        GW_EXPECT_EQ(rig_sink_pages(t.sink, RIG_ZERO), fresh ? 1 : PAGES - 1);
        struct stat file;
        GW_ASSERT_EQ(fstat(t.memory.fd[0], &file), 0);
        GW_EXPECT_EQ(file.st_blocks, 16); /* two pages: a hole is never read */
        if (!fresh)
            GW_EXPECT(rig_sink_image_is_right(t.sink));
        bench_fini(&t);
    }
}

struct bucket {
    uint64_t left;
    uint64_t granted;
    uint64_t refunded;
};

static uint64_t take_from(void *ctx, uint64_t want)
{
    struct bucket *bucket = ctx;
    uint64_t granted = want < bucket->left ? want : bucket->left;
    bucket->left -= granted;
    bucket->granted += granted;
    return granted;
}

static void give_to(void *ctx, uint64_t bytes)
{
    struct bucket *bucket = ctx;
    bucket->left += bytes;
    bucket->refunded += bytes;
}

GW_TEST(send, the_budget_holds_to_the_page)
{
    struct bench t;
    struct bucket bucket = {0};
    bench_init(&t, false);
    for (uint64_t page = 0; page < 1000; page++)
        rig_write(t.block, page, page + 1);
    t.config.budget = take_from;
    t.config.refund = give_to;
    t.config.budget_ctx = &bucket;
    bench_begin(&t);
    gw_sender_begin(t.sender, 1, false);
    GW_EXPECT_EQ(rig_step(t.sender, 1000), GW_SEND_BUDGET);
    GW_EXPECT_EQ(rig_sink_pages(t.sink, RIG_PUT), 0);
    uint64_t allowed = 0;
    for (unsigned i = 0; allowed < 1000 * PAGE; i++) {
        uint64_t more = 1000 + i * 333;
        bucket.left += more;
        allowed += more;
        int state = rig_step(t.sender, 1000);
        GW_EXPECT(state == GW_SEND_BUDGET || state == GW_SEND_IDLE);
        uint64_t pages = allowed / PAGE;
        GW_EXPECT_EQ(rig_sink_pages(t.sink, RIG_PUT), pages < 1000 ? pages : 1000);
        GW_EXPECT_EQ(gw_sender_remaining(t.sender), pages < 1000 ? 1000 - pages : 0);
    }
    GW_EXPECT_EQ(rig_step(t.sender, 1000), GW_SEND_IDLE);
    GW_EXPECT_EQ(bucket.granted - bucket.refunded, 1000 * PAGE);
    GW_EXPECT(rig_sink_image_is_right(t.sink));
    bench_fini(&t);
}

GW_TEST(send, zero_pages_cost_no_budget)
{
    struct bench t;
    struct bucket bucket = {0};
    bench_init(&t, false);
    for (uint64_t page = 0; page < 1000; page++)
        rig_write(t.block, page, 0);
    t.config.budget = take_from;
    t.config.budget_ctx = &bucket;
    bench_begin(&t);
    gw_sender_begin(t.sender, 1, false);
    GW_EXPECT_EQ(rig_step(t.sender, 1000), GW_SEND_IDLE);
    bench_fini(&t);
}

GW_TEST(send, a_full_sink_blocks_and_nothing_is_lost_or_doubled)
{
    struct bench t;
    bench_init(&t, false);
    for (uint64_t page = 0; page < PAGES; page += 2)
        rig_write(t.block, page, page + 1);
    bench_begin(&t);
    t.sink->sink.window = 10;
    gw_sender_free(t.sender);
    t.sender = gw_sender_new(&t.config, NULL);
    t.sink->accept_max = 3;
    gw_sender_begin(t.sender, 1, false);
    t.sink->hold = true;
    GW_EXPECT_EQ(rig_step(t.sender, 1000), GW_SEND_BLOCKED);
    GW_EXPECT_EQ(t.sink->flying_count, 10);
    GW_EXPECT_EQ(gw_sender_remaining(t.sender), PAGES / 2 - 10);
    GW_EXPECT_EQ(rig_step(t.sender, 1000), GW_SEND_BLOCKED);
    t.sink->hold = false;
    GW_EXPECT_EQ(rig_step(t.sender, 100000), GW_SEND_IDLE);
    GW_EXPECT_EQ(rig_sink_pages(t.sink, RIG_PUT), PAGES / 2);
    GW_EXPECT(rig_sink_image_is_right(t.sink));
    bench_fini(&t);
}

GW_TEST(send, refused_messages_are_said_again)
{
    struct bench t;
    bench_init(&t, false);
    rig_write(t.block, 0, 0);
    rig_write(t.block, 1, 1);
    bench_begin(&t);
    t.sink->refuse_messages = true;
    gw_sender_begin(t.sender, 1, false);
    GW_EXPECT_EQ(rig_step(t.sender, 1000), GW_SEND_BLOCKED);
    GW_EXPECT_EQ(rig_step(t.sender, 1000), GW_SEND_BLOCKED);
    t.sink->refuse_messages = false;
    GW_EXPECT_EQ(rig_step(t.sender, 1000), GW_SEND_IDLE);
    GW_EXPECT_EQ(t.sink->event_count, 3);
    GW_EXPECT(rig_sink_image_is_right(t.sink));
    bench_fini(&t);
}

GW_TEST(send, a_round_is_not_over_before_every_put_was_reaped)
{
    struct bench t;
    bench_init(&t, false);
    rig_write(t.block, 9, 1);
    bench_begin(&t);
    t.sink->hold = true;
    gw_sender_begin(t.sender, 1, false);
    GW_EXPECT_EQ(rig_step(t.sender, 1000), GW_SEND_BLOCKED);
    GW_EXPECT_EQ(t.sink->event[t.sink->event_count - 1].kind, RIG_FENCE);
    struct gw_wish range = {.block = 0, .offset = 0, .bytes = GW_CHUNK_BYTES_MIN};
    GW_EXPECT(gw_sender_holds(t.sender, &range));
    t.sink->hold = false;
    GW_EXPECT_EQ(rig_step(t.sender, 1000), GW_SEND_IDLE);
    GW_EXPECT(!gw_sender_holds(t.sender, &range));
    bench_fini(&t);
}

GW_TEST(send, pages_of_unready_chunks_wait_and_the_rest_goes)
{
    struct bench t;
    bench_open(&t, GW_BLOCK_ANON, false, true);
    for (uint64_t page = 0; page < PAGES; page += 100)
        rig_write(t.block, page, page + 1);
    bench_begin(&t);
    struct gw_wish wish[8];
    GW_ASSERT_EQ(gw_chunks_wish(t.chunks, wish, 8, NULL), 8);
    gw_sender_begin(t.sender, 1, false);
    GW_EXPECT_EQ(rig_step(t.sender, 1000), GW_SEND_CHUNKS);
    for (unsigned i = 8; i-- > 0;) { /* keys come in any order */
        struct gw_wish range;
        GW_ASSERT_EQ(rig_chunk_key(t.chunks, &wish[i]), 0);
        GW_EXPECT_EQ(rig_step(t.sender, 1000), GW_SEND_CHUNKS);
        GW_ASSERT_EQ(gw_chunks_newly_ready(t.chunks, &range, 1), 1);
        gw_chunks_synced(t.chunks, &range);
        GW_EXPECT_EQ(rig_step(t.sender, 1000), i ? GW_SEND_CHUNKS : GW_SEND_IDLE);
    }
    GW_EXPECT(rig_sink_image_is_right(t.sink));
    bench_fini(&t);
}

GW_TEST(send, a_mark_is_a_zero_message_behind_all_that_was_put)
{
    struct bench t;
    bench_init(&t, true);
    for (uint64_t page = 0; page < 20; page++)
        rig_write(t.block, page, page + 1);
    bench_begin(&t);
    gw_sender_begin(t.sender, 1, false);
    GW_EXPECT_EQ(rig_step(t.sender, 1000), GW_SEND_IDLE);
    int64_t mark = gw_sender_mark(t.sender);
    GW_EXPECT_EQ(mark, 1);
    GW_EXPECT_EQ(t.sink->zero_number, 1);
    GW_EXPECT(!gw_sender_mark_is_passed(t.sender, 1));
    t.sink->refuse_messages = true;
    GW_EXPECT_EQ(gw_sender_mark(t.sender), 0); /* later */
    t.sink->refuse_messages = false;
    GW_EXPECT_EQ(gw_sender_mark(t.sender), 2);
    gw_sender_zero_acked(t.sender, 7); /* a number that was never said */
    GW_EXPECT(!gw_sender_mark_is_passed(t.sender, 1));
    gw_sender_zero_acked(t.sender, 1);
    GW_EXPECT(gw_sender_mark_is_passed(t.sender, 1) && !gw_sender_mark_is_passed(t.sender, 2));
    /* As many as there is room for, and again when they are acknowledged. */
    unsigned said = 0;
    while (said < 1000 && gw_sender_mark(t.sender) > 0)
        said++;
    GW_EXPECT(said > 2 && said < 1000);
    gw_sender_zero_acked(t.sender, 2 + said);
    GW_EXPECT(gw_sender_mark_is_passed(t.sender, 2 + said));
    GW_EXPECT_GT(gw_sender_mark(t.sender), 0);
    bench_fini(&t);
}

GW_TEST(send, a_final_error_stays_and_the_bits_are_all_there)
{
    struct bench t;
    bench_init(&t, false);
    for (uint64_t page = 0; page < 600; page++)
        rig_write(t.block, page, page % 2);
    bench_begin(&t);
    t.sink->hold = true;
    t.sink->accept_max = 7;
    gw_sender_begin(t.sender, 1, false);
    gw_sender_step(t.sender, 1);
    t.sink->final = -ECONNRESET;
    GW_EXPECT_EQ(rig_step(t.sender, 1000), -ECONNRESET);
    GW_EXPECT_EQ(gw_sender_step(t.sender, 1), -ECONNRESET);
    GW_EXPECT_EQ(gw_sender_remaining(t.sender), gw_ram_dirty_pages(t.memory.ram));
    bench_fini(&t);
}

GW_TEST(send, a_sender_freed_half_way_gives_back_what_was_under_way)
{
    for (unsigned steps = 1; steps < 5; steps++) {
        struct bench t;
        bench_init(&t, true);
        for (uint64_t page = 0; page < PAGES; page++)
            rig_write(t.block, page, page % 3);
        bench_begin(&t);
        t.sink->hold = true;
        t.sink->refuse_messages = steps == 4;
        gw_sender_begin(t.sender, 1, false);
        for (unsigned i = 0; i < steps; i++)
            gw_sender_step(t.sender, 1);
        gw_sender_free(t.sender);
        t.sender = NULL;
        GW_EXPECT_EQ(gw_ram_dirty_pages(t.memory.ram), PAGES); /* nothing was known to be there */
        bench_fini(&t);
    }
}

/* ---- concurrent writes ----------------------------------------------------------------------- */

struct writer {
    struct gw_block *block;
    struct rig_dirty *dirty;
    _Atomic int stop;
    unsigned seed;
};

static void *write_on(void *ctx)
{
    struct writer *writer = ctx;
    for (uint64_t n = 1; !atomic_load_explicit(&writer->stop, memory_order_relaxed); n++) {
        uint64_t page = (uint64_t)rand_r(&writer->seed) % PAGES;
        rig_write(writer->block, page, n % 5 ? n : 0);
        rig_dirty_mark(writer->dirty, writer->block, page);
    }
    return NULL;
}

GW_TEST_EACH(send, a_page_written_while_it_is_sent_is_never_lost, sides)
{
    struct bench t;
    struct rig_dirty *tracker = calloc(1, sizeof(*tracker));
    bench_init(&t, strcmp(param, "one-sided") == 0);
    GW_ASSERT_EQ(gw_ram_add_dirty(t.memory.ram, &rig_dirty_ops, tracker, NULL), 0);
    GW_ASSERT_EQ(gw_dirty_start(t.memory.ram, GW_DIRTY_ALL, NULL), 0);
    struct writer writer = {.block = t.block, .dirty = tracker, .seed = 4};
    pthread_t thread;
    GW_ASSERT_EQ(pthread_create(&thread, NULL, write_on, &writer), 0);
    bench_begin(&t);
    unsigned rounds = 6;
    for (unsigned round = 1; round <= rounds; round++) {
        if (round == rounds) {
            atomic_store_explicit(&writer.stop, 1, memory_order_relaxed);
            pthread_join(thread, NULL);
        }
        GW_EXPECT_EQ(gw_dirty_sync(t.memory.ram, 0, NULL, NULL), 0);
        t.sink->event_count = 0;
        gw_sender_begin(t.sender, round, round == 1);
        int state;
        while ((state = rig_step(t.sender, 100000)) == GW_SEND_BLOCKED) {
            rig_sink_ack(t.sink, t.sink->zero_number);
            gw_sender_zero_acked(t.sender, t.sink->zero_number);
        }
        GW_EXPECT_EQ(state, GW_SEND_IDLE);
        rig_sink_ack(t.sink, t.sink->zero_number);
        gw_sender_zero_acked(t.sender, t.sink->zero_number);
    }
    GW_EXPECT_EQ(gw_ram_dirty_pages(t.memory.ram), 0);
    GW_EXPECT(rig_sink_image_is_right(t.sink));
    gw_dirty_stop(t.memory.ram);
    bench_fini(&t);
    free(tracker);
}

/* ---- sink_put -------------------------------------------------------------------------------- */

struct said {
    uint32_t zero_number;
    uint32_t fence_number;
    int refuse;
};

static int say_zero(void *ctx, uint32_t number, const struct gw_zero_run *runs, unsigned count)
{
    struct said *said = ctx;
    (void)runs, (void)count;
    if (said->refuse)
        return said->refuse;
    said->zero_number = number;
    return 0;
}

static int say_fence(void *ctx, uint32_t number)
{
    struct said *said = ctx;
    if (said->refuse)
        return said->refuse;
    said->fence_number = number;
    return 0;
}

static const struct gw_ram_peer_ops peer_ops = {.zero = say_zero, .fence = say_fence};

GW_TEST(sink_put, a_run_is_a_put_at_the_same_place)
{
    struct bench t;
    struct said said = {0};
    bench_open(&t, GW_BLOCK_ANON, true, true);
    for (uint64_t page = 600; page < 610; page++)
        rig_write(t.block, page, page);
    GW_ASSERT_EQ(gw_ram_source_begin(t.memory.ram, NULL), 0);
    struct gw_wish wish;
    GW_ASSERT_EQ(gw_chunks_wish(t.chunks, &wish, 1, NULL), 1);
    GW_ASSERT_EQ(rig_chunk_key(t.chunks, &wish), 0);
    GW_ASSERT_EQ(gw_chunks_newly_ready(t.chunks, &wish, 1), 1);
    gw_chunks_synced(t.chunks, &wish);
    struct gw_endpoint *ep = rig_endpoint_new(GW_EP_ONE_SIDED, 16, 64);
    struct gw_sink *sink = gw_sink_put_new(ep, &peer_ops, &said);
    GW_ASSERT(sink);
    GW_EXPECT(sink->one_sided);
    GW_EXPECT_EQ(sink->run_count_max, 16);
    t.config.sink = sink;
    t.sender = gw_sender_new(&t.config, NULL);
    gw_sender_begin(t.sender, 77, false);
    GW_EXPECT_EQ(rig_step(t.sender, 100), GW_SEND_BLOCKED);
    GW_EXPECT_EQ(said.fence_number, 77);
    GW_ASSERT_EQ(rig_endpoint_puts(ep), 1);
    const struct gw_put *put = rig_endpoint_put(ep, 0);
    GW_EXPECT(put->local == t.memory.host[0] + 600 * PAGE);
    GW_EXPECT_EQ(put->offset, (600 - 512) * PAGE); /* within the chunk's region */
    GW_EXPECT_EQ(put->bytes, 10 * PAGE);
    GW_EXPECT(put->mr && put->rmr);
    rig_endpoint_complete(ep, 1, 0);
    GW_EXPECT_EQ(rig_step(t.sender, 100), GW_SEND_IDLE);
    gw_sender_free(t.sender);
    t.sender = NULL;
    sink->ops->free(sink);
    rig_endpoint_free(ep);
    bench_fini(&t);
}

GW_TEST(sink_put, keeps_to_the_wires_limits_and_returns_every_run_once)
{
    struct bench t;
    struct said said = {0};
    bench_init(&t, false);
    struct gw_endpoint *ep = rig_endpoint_new(0, 8, 32);
    struct gw_sink *sink = gw_sink_put_new(ep, &peer_ops, &said);
    GW_ASSERT(sink);
    struct gw_run runs[64];
    for (unsigned i = 0; i < 64; i++)
        runs[i] =
            (struct gw_run){.block = t.block, .first_page = (uint64_t)i * 2, .pages = 1, .tag = i};
    GW_EXPECT_EQ(sink->ops->pages(sink, runs, 64), 32); /* the window; 8 to a call */
    GW_EXPECT_EQ(sink->ops->pages(sink, runs + 32, 32), 0);
    GW_EXPECT_EQ(sink->ops->in_flight(sink), 32);
    rig_endpoint_complete(ep, 5, 0);
    rig_endpoint_complete(ep, 3, -ECONNRESET);
    rig_endpoint_complete(ep, 24, 0);
    struct gw_run back[64];
    int status = 1;
    unsigned next = 0;
    static const unsigned counts[] = {5, 3, 24};
    for (unsigned i = 0; i < 3; i++) {
        GW_EXPECT_EQ(sink->ops->reap(sink, back, &status, 64), counts[i]); /* one status a call */
        GW_EXPECT_EQ(status, i == 1 ? -ECONNRESET : 0);
        for (unsigned j = 0; j < counts[i]; j++)
            GW_EXPECT_EQ(back[j].tag, next++);
    }
    GW_EXPECT_EQ(sink->ops->reap(sink, back, &status, 64), 0);
    GW_EXPECT_EQ(sink->ops->in_flight(sink), 0);
    rig_endpoint_take(ep, 3);
    GW_EXPECT_EQ(sink->ops->pages(sink, runs, 64), 3);
    rig_endpoint_take(ep, -EPIPE);
    GW_EXPECT_EQ(sink->ops->pages(sink, runs + 3, 64), -EPIPE);
    GW_EXPECT_EQ(sink->ops->in_flight(sink), 3);
    struct gw_zero_run zero = {.pages = 1};
    said.refuse = -EAGAIN;
    GW_EXPECT_EQ(sink->ops->zero(sink, &zero, 1), -EAGAIN);
    said.refuse = 0;
    GW_EXPECT_EQ(sink->ops->zero(sink, &zero, 1), 0);
    GW_EXPECT_EQ(said.zero_number, 1); /* a refused one has no number */
    sink->ops->free(sink);
    rig_endpoint_free(ep);
    bench_fini(&t);
}

GW_TEST(sink_put, out_of_memory_makes_none)
{
    int64_t live = gw_alloc_live();
    struct gw_endpoint *ep = rig_endpoint_new(0, 8, 32);
    struct gw_sink *sink = NULL;
    for (int n = 0; !sink; n++) {
        gw_alloc_fail_after(n);
        sink = gw_sink_put_new(ep, &peer_ops, NULL);
        gw_alloc_fail_after(-1);
        GW_EXPECT(sink || gw_alloc_live() == live);
    }
    sink->ops->free(sink);
    rig_endpoint_free(ep);
    GW_EXPECT_EQ(gw_alloc_live(), live);
}

GW_TEST(send, out_of_memory_makes_no_sender)
{
    struct bench t;
    bench_init(&t, true);
    int64_t live = gw_alloc_live();
    for (int n = 0; !t.sender; n++) {
        gw_alloc_fail_after(n);
        t.sender = gw_sender_new(&t.config, NULL);
        gw_alloc_fail_after(-1);
        GW_EXPECT(t.sender || gw_alloc_live() == live);
    }
    bench_fini(&t);
}
