// SPDX-License-Identifier: MIT
/* Devices whose state goes beside the stream (GW_DEVICE_WORKER): where their handlers are called, how much is
 * under way, and what becomes of failures there. */
#include "tests/rules/store.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <time.h>

static pthread_t test_thread; /* which dispatches for both sides */
static _Atomic unsigned saves_away, saves_here, loads_away, loads_here;
static _Atomic uint64_t most_under_way;
static int (*inner_complete)(void *, struct gw_writer *, uint64_t, struct gw_error *);
static int (*inner_load)(void *, struct gw_reader *, enum gw_device_part, uint32_t,
                         struct gw_error *);

static _Atomic uint64_t
    sent_first; /* so much the source has written before the first load returns */

static void note_thread(_Atomic unsigned *here, _Atomic unsigned *away)
{
    atomic_fetch_add(pthread_equal(pthread_self(), test_thread) ? here : away, 1);
}

static void note_most(_Atomic uint64_t *most, uint64_t value)
{
    uint64_t seen = atomic_load(most);
    while (value > seen && !atomic_compare_exchange_weak(most, &seen, value))
        ;
}

static int complete(void *opaque, struct gw_writer *w, uint64_t bytes_max, struct gw_error *err)
{
    struct store *store = opaque;
    note_thread(&saves_here, &saves_away);
    int rc = inner_complete(opaque, w, bytes_max < 128 * KIB ? bytes_max : 128 * KIB, err);
    note_most(&most_under_way, atomic_load(&store->sent) - atomic_load(&store->loaded));
    return rc;
}

static int load(void *opaque, struct gw_reader *r, enum gw_device_part part, uint32_t version_id,
                struct gw_error *err)
{
    struct store *store = opaque;
    if (part != GW_DEVICE_PART || store->loaded < store->live_bytes) /* what was sent before */
        return inner_load(opaque, r, part, version_id, err);
    note_thread(&loads_here, &loads_away);
    for (uint64_t bytes = atomic_exchange(&sent_first, 0); atomic_load(&store->sent) < bytes;)
        sched_yield();
    return inner_load(opaque, r, part, version_id, err);
}

static struct store_scene *worker_scene(void)
{
    struct store_scene *scene = store_scene_new();
    scene->source_flags = scene->target_flags = GW_DEVICE_WORKER;
    inner_complete = scene->source_ops.complete_precopy;
    inner_load = scene->target_ops.load;
    scene->source_ops.complete_precopy = complete;
    scene->target_ops.load = load;
    test_thread = pthread_self();
    atomic_store(&saves_away, 0), atomic_store(&saves_here, 0);
    atomic_store(&loads_away, 0), atomic_store(&loads_here, 0);
    atomic_store(&most_under_way, 0);
    return scene;
}

/* ---- where, and in which order ------------------------------------------------------------------- */

static void move_beside(const char *uri, const char *channels)
{
    struct store_scene *scene = worker_scene();
    store_add(scene, "low", 5 * MIB, 2 * MIB);
    store_add(scene, "high", 4 * MIB, 1 * MIB);
    scene->pair.listen_uri = uri;
    scene->pair.writes = true;
    GW_EXPECT_EQ(gw_params_set(scene->source_params, "multifd-channels", channels, NULL), 0);
    store_scene_open(scene, 1);
    store_expect_moved(scene);
    GW_EXPECT_EQ(saves_here, 0);
    GW_EXPECT_EQ(loads_here, 0);
    GW_EXPECT_GE(saves_away, (3 + 3) * 8); /* of 128 KiB each; two of them were ENDs */
    GW_EXPECT_EQ(loads_away, saves_away - 2);
    GW_EXPECT(strstr(scene->target_log, "end(high) end(low) full(low) load_complete(high) "
                                        "load_complete(low) load_cleanup(high)"));
    store_scene_close(scene);
}

GW_TEST(workers, state_goes_beside_the_stream_over_tcp)
{
    move_beside(NULL, "1");
}

GW_TEST(workers, state_goes_beside_the_stream_over_four_endpoints)
{
    move_beside(NULL, "4");
}

GW_TEST(workers, state_goes_beside_the_stream_over_a_one_sided_wire)
{
    move_beside("loop1:workers", "3");
}

/* STREAM (0030) takes its time on the control connection: packets are there long before. */
GW_TEST(workers, packets_wait_for_what_the_stream_had_before)
{
    struct store_scene *scene = worker_scene();
    store_add(scene, "both", 2 * MIB, 1 * MIB);
    scene->pair.faults = "do=delay:100ms,ep=control,head=0030";
    store_scene_open(scene, 0);
    store_expect_moved(scene);
    GW_EXPECT_EQ(loads_away, saves_away - 1);
    store_scene_close(scene);
}

GW_TEST(workers, device_with_nothing_but_its_end_sends_no_packet)
{
    struct store_scene *scene = worker_scene();
    store_add(scene, "little", 64 * KIB, 0);
    store_scene_open(scene, 0);
    store_expect_moved(scene);
    GW_EXPECT_EQ(saves_away, 1);
    GW_EXPECT_EQ(loads_away + loads_here, 0);
    store_scene_close(scene);
}

/* Each waits for the other: who calls one at a time never gets on. */
static pthread_barrier_t meeting;

static int complete_together(void *opaque, struct gw_writer *w, uint64_t bytes_max,
                             struct gw_error *err)
{
    struct store *store = opaque;
    if (store->sent == 0)
        pthread_barrier_wait(&meeting);
    return complete(opaque, w, bytes_max, err);
}

static int load_together(void *opaque, struct gw_reader *r, enum gw_device_part part,
                         uint32_t version_id, struct gw_error *err)
{
    struct store *store = opaque;
    if (part == GW_DEVICE_PART && store->loaded == 0)
        pthread_barrier_wait(&meeting);
    return load(opaque, r, part, version_id, err);
}

GW_TEST(workers, two_devices_are_saved_and_loaded_side_by_side)
{
    struct store_scene *scene = worker_scene();
    GW_ASSERT_EQ(pthread_barrier_init(&meeting, NULL, 2), 0);
    store_add(scene, "one", 2 * MIB, 0);
    store_add(scene, "two", 2 * MIB, 0);
    scene->source_ops.complete_precopy = complete_together;
    store_scene_open(scene, 0);
    store_expect_moved(scene);
    store_scene_close(scene);
    scene = worker_scene();
    store_add(scene, "one", 2 * MIB, 0);
    store_add(scene, "two", 2 * MIB, 0);
    scene->target_ops.load = load_together;
    store_scene_open(scene, 0);
    store_expect_moved(scene);
    store_scene_close(scene);
    pthread_barrier_destroy(&meeting);
}

/* ---- how much ------------------------------------------------------------------------------------ */

GW_TEST(workers, no_more_is_under_way_than_the_lower_of_both_sides_takes)
{
    struct store_scene *scene = worker_scene();
    store_add(scene, "much", 6 * MIB, 0);
    GW_EXPECT_EQ(gw_params_set(scene->source_params, "x-device-buffer", "2M", NULL), 0);
    /* 15 sections with their heads, and one that is written and waits. */
    atomic_store(&sent_first, 2 * MIB);
    store_scene_open(scene, 0);
    store_expect_moved(scene);
    GW_EXPECT_EQ(most_under_way, 2 * MIB);
    store_scene_close(scene);
}

static void move_in_the_stream(struct store_scene *scene)
{
    store_add(scene, "much", 8 * MIB, 1 * MIB);
    store_scene_open(scene, 0);
    store_expect_moved(scene);
    GW_EXPECT_EQ(saves_away + loads_away, 0);
    GW_EXPECT_GE(loads_here, 7u * 8 - 1);
    store_scene_close(scene);
}

GW_TEST(workers, source_without_a_buffer_sends_it_in_the_stream)
{
    struct store_scene *scene = worker_scene();
    GW_EXPECT_EQ(gw_params_set(scene->source_params, "x-device-buffer", "0", NULL), 0);
    move_in_the_stream(scene);
}

GW_TEST(workers, target_without_such_devices_gets_it_in_the_stream)
{
    struct store_scene *scene = worker_scene();
    scene->target_flags = 0;
    move_in_the_stream(scene);
}

GW_TEST(workers, one_device_that_promised_nothing_at_the_target_keeps_all_in_the_stream)
{
    struct store_scene *scene = worker_scene();
    store_add(scene, "worker", 1 * MIB, 0);
    scene->target_plain = 1;
    move_in_the_stream(scene);
}

/* What keeps to bytes_max moves, whatever the buffer; this one does not. */
static int complete_at_length(void *opaque, struct gw_writer *w, uint64_t bytes_max,
                              struct gw_error *err)
{
    (void)bytes_max;
    return inner_complete(opaque, w, 128 * KIB, err);
}

GW_TEST(workers, buffer_below_a_usual_section_makes_sections_smaller)
{
    struct store_scene *scene = worker_scene();
    store_add(scene, "much", 1 * MIB, 0);
    GW_EXPECT_EQ(gw_params_set(scene->target_params, "x-device-buffer", "64K", NULL), 0);
    store_scene_open(scene, 0);
    store_expect_moved(scene);
    GW_EXPECT_GE(loads_away, 32u);
    store_scene_close(scene);
}

GW_TEST(workers, section_longer_than_the_buffer_is_told_how_to_go)
{
    struct store_scene *scene = worker_scene();
    store_add(scene, "long", 4 * MIB, 0);
    scene->source_ops.complete_precopy = complete_at_length;
    GW_EXPECT_EQ(gw_params_set(scene->target_params, "x-device-buffer", "64K", NULL), 0);
    store_scene_open(scene, 0);
    GW_EXPECT(pair_finish(&scene->pair, SECONDS));
    GW_EXPECT_EQ(scene->pair.source_rc, -E2BIG);
    GW_EXPECT(strstr(scene->pair.source_err.message, "device 'long'"));
    GW_EXPECT(strstr(scene->pair.source_err.hint, "x-device-buffer"));
    GW_EXPECT(!scene->paused); /* resumed */
    store_scene_close(scene);
}

static const char *const eight[] = {"a", "b", "c", "d", "e", "f", "g", "h"};

static int dirty_pause(struct pair *pair)
{
    memset(pair->blocks[0].source + 2 * MIB, 0x77, 256 * KIB);
    return store_pause(pair);
}

/* Eight at once owe no more than one: else the pages behind them would wait for longer than they may. */
GW_TEST(workers, max_bandwidth_is_kept_however_many_there_are)
{
    struct store_scene *scene = worker_scene();
    struct gw_stats stats = {.struct_bytes = sizeof(stats)};
    for (unsigned i = 0; i < 8; i++)
        store_add(scene, eight[i], 1 * MIB, 0);
    scene->pair.pause = dirty_pause;
    GW_EXPECT_EQ(gw_params_set(scene->source_params, "max-bandwidth", "8M", NULL), 0);
    store_scene_open(scene, 0);
    store_expect_moved(scene);
    gw_source_stats(scene->pair.src, &stats);
    GW_EXPECT_GE(stats.downtime_ns, 750u * UINT64_C(1000000)); /* of 1 s at that rate */
    store_scene_close(scene);
}

static int complete_after_a_while(void *opaque, struct gw_writer *w, uint64_t bytes_max,
                                  struct gw_error *err)
{
    const struct timespec nap = {.tv_nsec = 100000000};
    nanosleep(&nap, NULL); /* a driver that takes its time */
    return complete(opaque, w, bytes_max, err);
}

GW_TEST(workers, time_of_a_slow_device_is_told_as_saving)
{
    struct store_scene *scene = worker_scene();
    struct gw_stats stats = {.struct_bytes = sizeof(stats)};
    store_add(scene, "slow", 512 * KIB, 0);
    scene->source_ops.complete_precopy = complete_after_a_while;
    store_scene_open(scene, 0);
    store_expect_moved(scene);
    gw_source_stats(scene->pair.src, &stats);
    GW_EXPECT_GE(stats.downtime.device_save_ns, 200u * UINT64_C(1000000)); /* of 400 ms */
    store_scene_close(scene);
}

/* ---- failures -------------------------------------------------------------------------------------- */

static struct store_scene *cancelled;

/* The first call cancels; of the others those that no worker has begun are never made. */
static int complete_and_cancel(void *opaque, struct gw_writer *w, uint64_t bytes_max,
                               struct gw_error *err)
{
    static const struct timespec nap = {.tv_nsec = 1000000};
    gw_source_cancel(cancelled->pair.src);
    int rc = complete(opaque, w, bytes_max, err);
    for (struct gw_stats stats = {.struct_bytes = sizeof(stats)};
         stats.status != GW_STATUS_CANCELLING; nanosleep(&nap, NULL))
        gw_source_stats(cancelled->pair.src, &stats);
    return rc;
}

GW_TEST(workers, cancel_waits_for_what_runs_alone)
{
    struct store_scene *scene = cancelled = worker_scene();
    for (unsigned i = 0; i < 8; i++)
        store_add(scene, eight[i], 1 * MIB, 0);
    scene->source_ops.complete_precopy = complete_and_cancel;
    store_scene_open(scene, 0);
    GW_EXPECT(pair_finish(&scene->pair, SECONDS));
    GW_EXPECT_EQ(scene->pair.source_rc, -ECANCELED);
    GW_EXPECT_LE(saves_away, 4); /* as many as there are workers */
    GW_EXPECT(!scene->paused);
    store_scene_close(scene);
}

static const char *const failures[] = {"complete", "part", "less", "more", "acks", NULL};

static const char *const *failure_names(void)
{
    return failures;
}

GW_TEST_EACH(workers, failure_there_leaves_the_guest_here, failure_names)
{
    static const enum failing kinds[] = {FAILS_COMPLETE, FAILS_LOAD_PART, READS_LESS, READS_MORE,
                                         ACKS_UNASKED};
    struct store_scene *scene = worker_scene();
    unsigned kind = 0;
    while (strcmp(failures[kind], param) != 0)
        kind++;
    store_add(scene, "ill", 8 * MIB, 0);
    scene->failing = kinds[kind];
    store_scene_open(scene, 0);
    GW_EXPECT(pair_finish(&scene->pair, SECONDS));
    GW_EXPECT_NE(scene->pair.source_rc, 0);
    GW_EXPECT_NE(scene->pair.target_rc, 0);
    const struct gw_error *err =
        kinds[kind] == FAILS_COMPLETE ? &scene->pair.source_err : &scene->pair.target_err;
    GW_EXPECT(strstr(err->message, "device 'ill'"));
    GW_EXPECT_EQ(err->code, GW_CODE_DEVICE);
    GW_EXPECT(!scene->pair.target_runs);
    GW_EXPECT(!scene->paused); /* resumed */
    store_scene_close(scene);
}
