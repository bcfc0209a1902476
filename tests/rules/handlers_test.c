// SPDX-License-Identifier: MIT
/* Devices with handlers (godwit/device.h): who is called when, what keeps the guest from being paused, and
 * that any failure leaves it at the source. A "store" is such a device: bytes that prove themselves, some
 * of which go before the pause and the rest in it. */
#include "tests/shim/gw_test.h"
#include "tests/support/pair.h"

#include <errno.h>
#include <godwit/device.h>
#include <godwit/vmstate.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MIB (UINT64_C(1) << 20)
#define KIB (UINT64_C(1) << 10)
#define SECONDS 60u
#define STORES_MAX 2u

enum failing {
    FAILS_NOWHERE,
    FAILS_SETUP,
    FAILS_ESTIMATE,
    FAILS_EXACT,
    FAILS_ITERATE,
    FAILS_COMPLETE,
    FAILS_SAVE,
    FAILS_LOAD_SETUP,
    FAILS_LOAD_BEGIN,
    FAILS_LOAD_PART,
    FAILS_LOAD_END,
    FAILS_LOAD_FULL,
    FAILS_LOAD_COMPLETE,
    READS_LESS,
    READS_MORE,
    ACKS_UNASKED,
};

struct scene;

struct store { /* both sides of one device: the loops of both are this thread's */
    struct scene *scene;
    const char *name;
    uint64_t bytes, live_bytes; /* in all; of them before the pause */
    uint64_t step_bytes;        /* of a PART before the pause; 0: as many as may be */
    uint64_t pending_too_much;  /* told above what is true, while more than this was not asked */
    unsigned estimates, exacts, untrue_estimates, untrue_exacts;
    uint64_t sent, loaded, bytes_max_seen;
    unsigned parts, ends, setups, cleanups, load_setups, load_cleanups;
    unsigned ack_after[2], acks_wanted, acks_given; /* parts loaded before an acknowledgement */
    bool wants_no_ack, wrong;
    uint32_t version_loaded;
};

struct scene {
    struct pair pair;
    struct gw_params *source_params, *target_params;
    struct store stores[STORES_MAX];
    unsigned count;
    struct gw_device_ops source_ops, target_ops;
    enum failing failing;
    char source_log[512], target_log[512]; /* each step once */
    bool paused;
};

static void note(char *log, const struct store *store, const char *what)
{
    char step[64];
    snprintf(step, sizeof(step), "%s(%s) ", what, store ? store->name : "");
    if (!strstr(log, step))
        strncat(log, step, 511 - strlen(log));
}

static uint8_t byte_at(const struct store *store, uint64_t at)
{
    return (uint8_t)((at * 2654435761u >> 11) + (uint8_t)store->name[0]);
}

static int fail_if(const struct store *store, enum failing where, struct gw_error *err)
{
    if (store->scene->failing != where)
        return 0;
    return gw_error_set(err, -EIO, GW_CODE_DEVICE, "as the test wanted");
}

/* ---- the source's side -------------------------------------------------------------------------- */

static int store_setup(void *opaque, struct gw_writer *w, struct gw_error *err)
{
    struct store *store = opaque;
    note(store->scene->source_log, store, "setup");
    store->setups++;
    gw_writer_be64(w, store->bytes);
    return fail_if(store, FAILS_SETUP, err);
}

static int store_estimate(void *opaque, struct gw_device_pending *pending, struct gw_error *err)
{
    struct store *store = opaque;
    note(store->scene->source_log, store, "estimate");
    pending->must_precopy_bytes = store->bytes - store->sent;
    pending->acks_wanted = store->acks_wanted;
    if (store->estimates++ < store->untrue_estimates)
        pending->must_precopy_bytes = UINT64_MAX / 4;
    return fail_if(store, FAILS_ESTIMATE, err);
}

static int store_exact(void *opaque, struct gw_device_pending *pending, struct gw_error *err)
{
    struct store *store = opaque;
    note(store->scene->source_log, store, "exact");
    pending->must_precopy_bytes = store->bytes - store->sent;
    pending->acks_wanted = store->acks_wanted;
    if (store->exacts++ < store->untrue_exacts)
        pending->can_postcopy_bytes = UINT64_MAX / 4;
    return fail_if(store, FAILS_EXACT, err);
}

static void write_some(struct store *store, struct gw_writer *w, uint64_t bytes, uint64_t end)
{
    uint64_t some = end - store->sent < bytes ? end - store->sent : bytes;
    gw_writer_be64(w, some);
    for (uint64_t i = 0; i < some; i++)
        gw_writer_u8(w, byte_at(store, store->sent + i));
    store->sent += some;
}

static int store_iterate(void *opaque, struct gw_writer *w, uint64_t bytes_max,
                         struct gw_error *err)
{
    struct store *store = opaque;
    note(store->scene->source_log, store, "iterate");
    if (bytes_max > store->bytes_max_seen)
        store->bytes_max_seen = bytes_max;
    if (store->sent >= store->live_bytes)
        return GW_DEVICE_DONE;
    write_some(store, w, store->step_bytes ? store->step_bytes : bytes_max, store->live_bytes);
    int rc = fail_if(store, FAILS_ITERATE, err);
    if (rc < 0)
        return rc;
    return store->step_bytes || store->sent == store->live_bytes ? GW_DEVICE_DONE : 0;
}

static int store_complete(void *opaque, struct gw_writer *w, uint64_t bytes_max,
                          struct gw_error *err)
{
    struct store *store = opaque;
    note(store->scene->source_log, store, "complete");
    if (!store->scene->paused)
        store->wrong = true;
    write_some(store, w, bytes_max, store->bytes);
    int rc = fail_if(store, FAILS_COMPLETE, err);
    return rc < 0 ? rc : store->sent == store->bytes ? GW_DEVICE_DONE : 0;
}

static int store_save(void *opaque, struct gw_writer *w, struct gw_error *err)
{
    struct store *store = opaque;
    note(store->scene->source_log, store, "save");
    gw_writer_be32(w, 0x5a5a);
    return fail_if(store, FAILS_SAVE, err);
}

static void store_cleanup(void *opaque)
{
    struct store *store = opaque;
    note(store->scene->source_log, store, "cleanup");
    store->cleanups++;
}

static int pause_hook(struct pair *pair)
{
    struct scene *scene = (struct scene *)pair;
    note(scene->source_log, NULL, "pause");
    scene->paused = true;
    return 0;
}

static int resume_hook(struct pair *pair)
{
    struct scene *scene = (struct scene *)pair;
    note(scene->source_log, NULL, "resume");
    scene->paused = false;
    return 0;
}

/* ---- the target's side -------------------------------------------------------------------------- */

static int store_load_setup(void *opaque, struct gw_error *err)
{
    struct store *store = opaque;
    note(store->scene->target_log, store, "load_setup");
    store->load_setups++;
    return fail_if(store, FAILS_LOAD_SETUP, err);
}

static bool store_ack_needed(void *opaque)
{
    struct store *store = opaque;
    note(store->scene->target_log, store, "ack_needed");
    return !store->wants_no_ack;
}

static void read_some(struct store *store, struct gw_reader *r)
{
    uint64_t some = gw_reader_be64(r);
    const uint8_t *bytes = gw_reader_take(r, some);
    for (uint64_t i = 0; bytes && i < some; i++)
        store->wrong |= bytes[i] != byte_at(store, store->loaded + i);
    store->loaded += bytes ? some : 0;
}

static int load_part(struct store *store, struct gw_reader *r, struct gw_error *err)
{
    if (store->scene->failing == READS_LESS)
        return 0;
    read_some(store, r);
    if (store->scene->failing == READS_MORE)
        gw_reader_u8(r);
    store->parts++;
    int rc = fail_if(store, FAILS_LOAD_PART, err);
    if (rc < 0 || store->scene->failing == ACKS_UNASKED)
        return rc < 0 ? rc : GW_DEVICE_ACK;
    if (store->acks_given < 2 && store->parts == store->ack_after[store->acks_given]) {
        store->acks_given++;
        return GW_DEVICE_ACK;
    }
    return 0;
}

static int store_load(void *opaque, struct gw_reader *r, enum gw_device_part part,
                      uint32_t version_id, struct gw_error *err)
{
    static const char *const names[] = {"begin", "part", "end", "full"};
    struct store *store = opaque;
    note(store->scene->target_log, store, names[part]);
    store->version_loaded = version_id;
    switch (part) {
    case GW_DEVICE_BEGIN:
        store->wrong |= gw_reader_be64(r) != store->bytes;
        return fail_if(store, FAILS_LOAD_BEGIN, err);
    case GW_DEVICE_PART:
        return load_part(store, r, err);
    case GW_DEVICE_END:
        store->ends++;
        read_some(store, r);
        return fail_if(store, FAILS_LOAD_END, err);
    case GW_DEVICE_FULL:
        store->wrong |= gw_reader_be32(r) != 0x5a5a;
        return fail_if(store, FAILS_LOAD_FULL, err);
    }
    return -EINVAL;
}

static int store_load_complete(void *opaque, struct gw_error *err)
{
    struct store *store = opaque;
    note(store->scene->target_log, store, "load_complete");
    store->wrong |= store->loaded != store->bytes;
    return fail_if(store, FAILS_LOAD_COMPLETE, err);
}

static void store_load_cleanup(void *opaque)
{
    struct store *store = opaque;
    note(store->scene->target_log, store, "load_cleanup");
    store->load_cleanups++;
}

/* ---- the scene ---------------------------------------------------------------------------------- */

static struct scene *new_scene(void)
{
    struct scene *scene = calloc(1, sizeof(*scene));
    GW_ASSERT(scene);
    scene->source_params = gw_params_new();
    scene->target_params = gw_params_new();
    static const char *const both[] = {"x-settle-timeout", "300",  "x-hold-timeout", "300",
                                       "x-peer-timeout",   "30000"};
    for (unsigned i = 0; i < 6; i += 2) {
        GW_EXPECT_EQ(gw_params_set(scene->source_params, both[i], both[i + 1], NULL), 0);
        GW_EXPECT_EQ(gw_params_set(scene->target_params, both[i], both[i + 1], NULL), 0);
    }
    /* Long: what is pending of a store is what the test says, not what the machine's speed makes of it. */
    GW_EXPECT_EQ(gw_params_set(scene->source_params, "downtime-limit", "20000", NULL), 0);
    scene->pair.params = scene->source_params;
    scene->pair.target_params = scene->target_params;
    scene->pair.pause = pause_hook;
    scene->pair.resume = resume_hook;
    scene->pair.device_value = 7;
    scene->source_ops = (struct gw_device_ops){
        .struct_bytes = sizeof(scene->source_ops),
        .setup = store_setup,
        .pending_estimate = store_estimate,
        .pending_exact = store_exact,
        .iterate = store_iterate,
        .complete_precopy = store_complete,
        .cleanup = store_cleanup,
    };
    scene->target_ops = (struct gw_device_ops){
        .struct_bytes = sizeof(scene->target_ops),
        .load_setup = store_load_setup,
        .load = store_load,
        .load_complete = store_load_complete,
        .load_cleanup = store_load_cleanup,
    };
    return scene;
}

static struct store *add_store(struct scene *scene, const char *name, uint64_t bytes,
                               uint64_t live_bytes)
{
    struct store *store = &scene->stores[scene->count++];
    *store = (struct store){.scene = scene, .name = name, .bytes = bytes, .live_bytes = live_bytes};
    return store;
}

static void open_scene(struct scene *scene, unsigned saves)
{
    struct gw_error err = GW_ERROR_INIT;
    pair_add_block(&scene->pair, "ram0", 4 * MIB, GW_BLOCK_ANON, 100);
    pair_init(&scene->pair);
    for (unsigned i = 0; i < scene->count; i++) {
        struct store *store = &scene->stores[i];
        struct gw_device_desc desc = {.struct_bytes = sizeof(desc),
                                      .name = store->name,
                                      .version_id = 3,
                                      .minimum_version_id = 2,
                                      .priority = (int32_t)i, /* the last added comes first */
                                      .opaque = store,
                                      .save = i < saves ? store_save : NULL,
                                      .ops = &scene->source_ops};
        GW_ASSERT_EQ(gw_source_add_device(scene->pair.src, &desc, &err), 0);
        desc.save = NULL;
        desc.ops = &scene->target_ops;
        GW_ASSERT_EQ(gw_target_add_device(scene->pair.tgt, &desc, &err), 0);
    }
    pair_listen(&scene->pair);
    pair_start(&scene->pair);
}

static void close_scene(struct scene *scene)
{
    pair_fini(&scene->pair);
    gw_params_free(scene->source_params);
    gw_params_free(scene->target_params);
    for (unsigned i = 0; i < scene->count; i++) {
        struct store *store = &scene->stores[i];
        GW_EXPECT(!store->wrong);
        GW_EXPECT_EQ(store->cleanups, scene->source_ops.cleanup ? 1 : 0);
        GW_EXPECT_EQ(store->load_cleanups, scene->target_ops.load_cleanup ? 1 : 0);
    }
    free(scene);
}

static void expect_moved(struct scene *scene)
{
    struct pair *pair = &scene->pair;
    GW_EXPECT(pair_finish(pair, SECONDS));
    if (pair->source_rc != 0 || pair->target_rc != 0)
        GW_FAIL("source: %s; target: %s", pair->source_err.message, pair->target_err.message);
    GW_EXPECT(pair->target_runs);
    GW_EXPECT_EQ(pair->device_loaded, 7);
    GW_EXPECT_EQ(pair_differs(pair), -1);
    for (unsigned i = 0; i < scene->count; i++)
        GW_EXPECT_EQ(scene->stores[i].loaded, scene->stores[i].bytes);
}

/* ---- order -------------------------------------------------------------------------------------- */

GW_TEST(handlers, are_called_in_the_documented_order_at_both_sides)
{
    struct scene *scene = new_scene();
    add_store(scene, "low", 300 * KIB, 200 * KIB);
    add_store(scene, "high", 300 * KIB, 200 * KIB);
    scene->target_ops.switchover_ack_needed = store_ack_needed;
    scene->stores[0].ack_after[0] = scene->stores[1].ack_after[0] = 1;
    open_scene(scene, 1);
    expect_moved(scene);
    GW_EXPECT_STREQ(scene->source_log,
                    "setup(high) setup(low) estimate(high) estimate(low) iterate(high) "
                    "iterate(low) exact(high) exact(low) pause() complete(high) complete(low) "
                    "save(low) cleanup(high) cleanup(low) ");
    GW_EXPECT_STREQ(scene->target_log,
                    "load_setup(high) load_setup(low) ack_needed(high) ack_needed(low) "
                    "begin(high) begin(low) part(high) part(low) end(high) end(low) full(low) "
                    "load_complete(high) load_complete(low) load_cleanup(high) "
                    "load_cleanup(low) ");
    GW_EXPECT_EQ(scene->stores[0].version_loaded, 3); /* of the source; PART and END say none */
    close_scene(scene);
}

static bool says_no(void *opaque)
{
    (void)opaque;
    return false;
}

GW_TEST(handlers, device_that_is_not_active_has_no_sections)
{
    struct scene *scene = new_scene();
    struct store *store = add_store(scene, "idle", 0, 0);
    scene->source_ops.is_active = says_no;
    scene->target_ops.load_complete = NULL;
    open_scene(scene, 1); /* nor is its save called */
    expect_moved(scene);
    GW_EXPECT_STREQ(scene->source_log, "pause() cleanup(idle) ");
    GW_EXPECT_EQ(store->setups, 0);
    GW_EXPECT_EQ(store->ends, 0);
    GW_EXPECT_EQ(store->load_setups, 1);
    close_scene(scene);
}

/* ---- how much ----------------------------------------------------------------------------------- */

static void move_much(const char *uri)
{
    struct scene *scene = new_scene();
    struct store *store = add_store(scene, "much", 24 * MIB, 12 * MIB);
    scene->pair.listen_uri = uri;
    scene->pair.writes = true;
    GW_EXPECT_EQ(gw_params_set(scene->target_params, "x-section-max", "1M", NULL), 0);
    open_scene(scene, 1);
    GW_EXPECT(pair_finish(&scene->pair, SECONDS));
    expect_moved(scene);
    GW_EXPECT_GE(store->parts, 24u); /* of half a section at most */
    GW_EXPECT_EQ(store->ends, 1);
    close_scene(scene);
}

GW_TEST(handlers, state_of_many_sections_arrives_over_tcp)
{
    move_much(NULL);
}

GW_TEST(handlers, state_of_many_sections_arrives_over_a_one_sided_wire)
{
    move_much("loop1:handlers");
}

GW_TEST(handlers, table_without_iterate_sends_all_in_the_pause)
{
    struct scene *scene = new_scene();
    struct store *store = add_store(scene, "late", 9 * MIB, 0);
    scene->source_ops.iterate = NULL;
    GW_EXPECT_EQ(gw_params_set(scene->target_params, "x-section-max", "256K", NULL), 0);
    open_scene(scene, 0);
    expect_moved(scene);
    GW_EXPECT_GE(store->parts, 36u);
    close_scene(scene);
}

GW_TEST(handlers, max_bandwidth_reaches_them)
{
    struct scene *scene = new_scene();
    struct store *store = add_store(scene, "slow", 4 * MIB, 4 * MIB);
    GW_EXPECT_EQ(gw_params_set(scene->source_params, "max-bandwidth", "40000000", NULL), 0);
    open_scene(scene, 0);
    expect_moved(scene);
    GW_EXPECT_LE(store->bytes_max_seen, 400000u); /* a hundredth of a second's worth */
    GW_EXPECT_GE(store->parts, 10u);
    close_scene(scene);
}

/* ---- what keeps the guest running --------------------------------------------------------------- */

static int pause_after_estimates(struct pair *pair)
{
    struct scene *scene = (struct scene *)pair;
    struct store *store = &scene->stores[0];
    store->wrong |= store->estimates <= store->untrue_estimates;
    store->wrong |= store->exacts <= store->untrue_exacts;
    store->wrong |= store->acks_given < store->acks_wanted;
    return pause_hook(pair);
}

GW_TEST(handlers, guest_runs_on_while_a_device_has_too_much_left)
{
    struct scene *scene = new_scene();
    struct store *store = add_store(scene, "busy", 64 * KIB, 32 * KIB);
    store->untrue_estimates = 6;
    scene->pair.pause = pause_after_estimates;
    open_scene(scene, 0);
    expect_moved(scene);
    GW_EXPECT_EQ(store->exacts, 1); /* not asked while the estimate alone says no */
    close_scene(scene);
}

static int endless_estimate(void *opaque, struct gw_device_pending *pending, struct gw_error *err)
{
    struct store *store = opaque;
    (void)err;
    pending->must_precopy_bytes = store->estimates++ == 0 ? UINT64_MAX : 0;
    return 0;
}

static int endless_iterate(void *opaque, struct gw_writer *w, uint64_t bytes_max,
                           struct gw_error *err)
{
    static const uint8_t zeros[MIB];
    (void)opaque, (void)err;
    gw_writer_bytes(w, zeros, bytes_max < MIB ? bytes_max : MIB);
    return 0; /* there is always more: the round's end is not the device's to tell */
}

static int endless_complete(void *opaque, struct gw_writer *w, uint64_t bytes_max,
                            struct gw_error *err)
{
    (void)opaque, (void)w, (void)bytes_max, (void)err;
    return GW_DEVICE_DONE;
}

static int endless_load(void *opaque, struct gw_reader *r, enum gw_device_part part,
                        uint32_t version_id, struct gw_error *err)
{
    struct store *store = opaque;
    (void)version_id, (void)err;
    gw_reader_take(r, gw_reader_left(r));
    store->parts += part == GW_DEVICE_PART;
    return 0;
}

GW_TEST(handlers, a_device_that_does_not_know_how_much_it_has_leaves_rounds_an_end)
{
    struct scene *scene = new_scene();
    struct store *store = add_store(scene, "endless", 0, 0);
    scene->source_ops.setup = NULL;
    scene->source_ops.pending_estimate = endless_estimate;
    scene->source_ops.pending_exact = NULL;
    scene->source_ops.iterate = endless_iterate;
    scene->source_ops.complete_precopy = endless_complete;
    scene->target_ops.load = endless_load;
    scene->pair.writes = true; /* what it wrote in that round is found and sent */
    open_scene(scene, 0);
    expect_moved(scene);
    GW_EXPECT_GT(store->parts, 0);
    GW_EXPECT_GT(store->estimates, 1); /* its second came when the round was over */
    close_scene(scene);
}

GW_TEST(handlers, exact_has_the_last_word)
{
    struct scene *scene = new_scene();
    struct store *store = add_store(scene, "deep", 64 * KIB, 32 * KIB);
    store->untrue_exacts = 3;
    scene->pair.pause = pause_after_estimates;
    open_scene(scene, 0);
    expect_moved(scene);
    GW_EXPECT_EQ(store->exacts, 4);
    close_scene(scene);
}

GW_TEST(handlers, guest_is_not_paused_before_the_target_acknowledges)
{
    struct scene *scene = new_scene();
    struct store *store = add_store(scene, "ready", 64 * KIB, 32 * KIB);
    store->step_bytes = 4 * KIB; /* a PART a round */
    store->ack_after[0] = 5;
    store->acks_wanted = 1;
    scene->target_ops.switchover_ack_needed = store_ack_needed;
    scene->pair.pause = pause_after_estimates;
    open_scene(scene, 0);
    expect_moved(scene);
    GW_EXPECT_EQ(store->acks_given, 1);
    close_scene(scene);
}

static bool target_needs_one(void *opaque)
{
    struct store *store = opaque;
    store->acks_wanted = 0; /* only the target knows */
    return true;
}

static int pause_after_one_ack(struct pair *pair)
{
    struct scene *scene = (struct scene *)pair;
    scene->stores[0].wrong |= scene->stores[0].acks_given < 1;
    return pause_hook(pair);
}

GW_TEST(handlers, acknowledgement_that_only_the_target_knows_of_is_waited_for)
{
    struct scene *scene = new_scene();
    struct store *store = add_store(scene, "ready", 64 * KIB, 32 * KIB);
    store->step_bytes = 4 * KIB;
    store->ack_after[0] = 4;
    scene->target_ops.switchover_ack_needed = target_needs_one;
    scene->pair.pause = pause_after_one_ack;
    open_scene(scene, 0);
    expect_moved(scene);
    close_scene(scene);
}

GW_TEST(handlers, acknowledgement_can_be_asked_for_again)
{
    struct scene *scene = new_scene();
    struct store *store = add_store(scene, "again", 64 * KIB, 32 * KIB);
    store->step_bytes = 4 * KIB;
    store->ack_after[0] = 2;
    store->ack_after[1] = 6;
    store->acks_wanted = 2;
    scene->target_ops.switchover_ack_needed = store_ack_needed;
    scene->pair.pause = pause_after_estimates;
    open_scene(scene, 0);
    expect_moved(scene);
    GW_EXPECT_EQ(store->acks_given, 2);
    close_scene(scene);
}

/* ---- failures ----------------------------------------------------------------------------------- */

static const struct {
    enum failing failing;
    const char *heard;
    bool at_target;
} failures[] = {
    {FAILS_SETUP, "device 'bad' instance 0: as the test wanted", false},
    {FAILS_ESTIMATE, "device 'bad' instance 0: as the test wanted", false},
    {FAILS_EXACT, "device 'bad' instance 0: as the test wanted", false},
    {FAILS_ITERATE, "device 'bad' instance 0: as the test wanted", false},
    {FAILS_COMPLETE, "device 'bad' instance 0: as the test wanted", false},
    {FAILS_SAVE, "device 'bad' instance 0: as the test wanted", false},
    {FAILS_LOAD_SETUP, "device 'bad' instance 0: as the test wanted", true},
    {FAILS_LOAD_BEGIN, "device 'bad' instance 0: as the test wanted", true},
    {FAILS_LOAD_PART, "device 'bad' instance 0: as the test wanted", true},
    {FAILS_LOAD_END, "device 'bad' instance 0: as the test wanted", true},
    {FAILS_LOAD_FULL, "device 'bad' instance 0: as the test wanted", true},
    {FAILS_LOAD_COMPLETE, "device 'bad' instance 0: as the test wanted", true},
    {READS_LESS, "bytes of its state were not consumed", true},
    {READS_MORE, "device 'bad' instance 0: its state ends too early", true},
    {ACKS_UNASKED, "acknowledges that the guest may be paused, and was not asked to", true},
};

GW_TEST(handlers, each_failure_is_told_and_leaves_the_guest_where_it_was)
{
    for (unsigned i = 0; i < sizeof(failures) / sizeof(failures[0]); i++) {
        struct scene *scene = new_scene();
        struct pair *pair = &scene->pair;
        add_store(scene, "bad", 64 * KIB, 32 * KIB);
        scene->failing = failures[i].failing;
        open_scene(scene, 1);
        GW_EXPECT(pair_finish(pair, SECONDS));
        GW_EXPECT(pair->source_rc < 0 && pair->target_rc < 0);
        const struct gw_error *err = failures[i].at_target ? &pair->target_err : &pair->source_err;
        if (!strstr(err->message, failures[i].heard))
            GW_NOTE_FAILURE("%u: '%s' instead of '%s'", failures[i].failing, err->message,
                            failures[i].heard);
        GW_EXPECT_EQ(err->code, GW_CODE_DEVICE);
        if (failures[i].at_target)
            GW_EXPECT_STREQ(pair->source_err.peer, pair->target_err.message);
        GW_EXPECT(pair->source_runs && !pair->target_runs);
        GW_EXPECT_EQ(pair->resumes, pair->pauses);
        close_scene(scene);
    }
}

static int stuck_complete(void *opaque, struct gw_writer *w, uint64_t bytes_max,
                          struct gw_error *err)
{
    struct store *store = opaque;
    (void)w, (void)bytes_max, (void)err;
    note(store->scene->source_log, store, "stuck");
    return 0;
}

GW_TEST(handlers, a_device_that_has_more_and_writes_none_does_not_hold_the_paused_guest)
{
    struct scene *scene = new_scene();
    struct pair *pair = &scene->pair;
    add_store(scene, "stuck", 0, 0);
    scene->source_ops.complete_precopy = stuck_complete;
    open_scene(scene, 0);
    GW_EXPECT(pair_finish(pair, SECONDS));
    GW_EXPECT_EQ(pair->source_rc, -EPROTO);
    GW_EXPECT_STREQ(pair->source_err.message,
                    "device 'stuck' instance 0: says that there is more, and wrote none");
    GW_EXPECT(pair->source_runs && !pair->target_runs);
    GW_EXPECT_EQ(pair->resumes, pair->pauses);
    close_scene(scene);
}

GW_TEST(handlers, cleanup_comes_when_nobody_ever_answered)
{
    struct scene *scene = new_scene();
    struct pair *pair = &scene->pair;
    add_store(scene, "lone", 64 * KIB, 32 * KIB);
    scene->target_ops.load_cleanup = NULL; /* no source comes */
    open_scene(scene, 0);
    GW_EXPECT_EQ(gw_source_cancel(pair->src), 0);
    pair->target_rc = 0;
    pair->source_rc = gw_source_wait(pair->src, (int)SECONDS * 1000, &pair->source_err);
    GW_EXPECT_EQ(pair->source_rc, -ECANCELED);
    GW_EXPECT(strstr(scene->source_log, "cleanup(lone)"));
    close_scene(scene);
}

GW_TEST(handlers, the_same_source_migrates_after_a_failure)
{
    struct scene *scene = new_scene();
    struct pair *pair = &scene->pair;
    struct store *store = add_store(scene, "twice", 64 * KIB, 32 * KIB);
    scene->failing = FAILS_LOAD_FULL;
    open_scene(scene, 1);
    GW_EXPECT(pair_finish(pair, SECONDS));
    GW_EXPECT(pair->source_rc < 0 && pair->source_runs);
    GW_EXPECT_EQ(store->cleanups, 1);
    GW_EXPECT_EQ(store->load_cleanups, 1);
    scene->failing = FAILS_NOWHERE;
    store->sent = store->loaded = 0;
    store->cleanups = store->load_cleanups = 0;
    pair_listen(pair);
    pair_start(pair);
    expect_moved(scene);
    close_scene(scene);
}

GW_TEST(handlers, device_that_the_target_does_not_have_is_refused)
{
    struct scene *scene = new_scene();
    struct pair *pair = &scene->pair;
    struct gw_error err = GW_ERROR_INIT;
    pair_add_block(pair, "ram0", 4 * MIB, GW_BLOCK_ANON, 0);
    pair_init(pair);
    struct store *store = add_store(scene, "more", 64 * KIB, 32 * KIB);
    struct gw_device_desc desc = {.struct_bytes = sizeof(desc),
                                  .name = "more",
                                  .version_id = 1,
                                  .opaque = store,
                                  .ops = &scene->source_ops};
    GW_EXPECT_EQ(gw_source_add_device(pair->src, &desc, &err), 0);
    pair_listen(pair);
    pair_start(pair);
    GW_EXPECT(pair_finish(pair, SECONDS));
    GW_EXPECT_STREQ(pair->target_err.message, "section 'more' instance 0: no such device here");
    GW_EXPECT(pair->source_runs && pair->resumes == pair->pauses); /* so little may be through */
    scene->target_ops.load_cleanup = NULL;
    close_scene(scene);
}

/* ---- early, and in order ------------------------------------------------------------------------ */

struct map { /* says where memory is: to be loaded before any comes */
    struct pair *pair;
    uint32_t plugged;
    bool early_enough;
};

static int map_post_load(void *opaque, uint32_t version_id, struct gw_error *err)
{
    struct map *map = opaque;
    (void)version_id, (void)err;
    const struct pair_block *block = &map->pair->blocks[0];
    map->early_enough = block->target != NULL;
    for (uint64_t i = 0; map->early_enough && i < block->bytes; i++)
        map->early_enough = block->target[i] == 0;
    return 0;
}

static const struct gw_vmstate vmstate_map = {
    GW_VMSTATE_OF(struct map),
    .name = "map",
    .version_id = 1,
    .early_setup = true,
    .priority = GW_VMSTATE_PRIORITY_VIRTIO_MEM,
    GW_VMSTATE_FIELDS(GW_VMSTATE_UINT32(plugged, struct map)),
    .post_load = map_post_load,
};

static void move_early(const char *uri)
{
    struct pair pair = {.device_value = 1, .listen_uri = uri};
    struct map here = {.pair = &pair, .plugged = 5};
    struct map there = {.pair = &pair};
    struct gw_vmstate_device dev[] = {{sizeof(dev[0]), &vmstate_map, &here, NULL, 0, NULL},
                                      {sizeof(dev[0]), &vmstate_map, &there, NULL, 0, NULL}};
    struct gw_device_desc desc;
    struct gw_error err = GW_ERROR_INIT;
    pair_add_block(&pair, "ram0", 8 * MIB, GW_BLOCK_ANON, 100);
    pair_init(&pair);
    GW_EXPECT_EQ(gw_vmstate_device_desc(&dev[0], &desc, &err), 0);
    GW_EXPECT_EQ(gw_source_add_device(pair.src, &desc, &err), 0);
    GW_EXPECT_EQ(gw_vmstate_device_desc(&dev[1], &desc, &err), 0);
    GW_EXPECT_EQ(gw_target_add_device(pair.tgt, &desc, &err), 0);
    pair_listen(&pair);
    pair_start(&pair);
    GW_EXPECT(pair_finish(&pair, SECONDS));
    GW_EXPECT_EQ(pair.source_rc, 0);
    GW_EXPECT_EQ(there.plugged, 5);
    GW_EXPECT(there.early_enough);
    GW_EXPECT_EQ(pair_differs(&pair), -1);
    pair_fini(&pair);
}

GW_TEST(handlers, early_state_is_loaded_before_any_memory_arrives)
{
    move_early(NULL);
}

GW_TEST(handlers, early_state_is_loaded_before_any_memory_arrives_one_sided)
{
    move_early("loop1:early");
}

struct chip { /* an interrupt controller, or what raises interrupts */
    uint32_t lines;
    struct chip *controller; /* of a card */
    bool loaded, raised_in_time;
};

static int card_post_load(void *opaque, uint32_t version_id, struct gw_error *err)
{
    struct chip *card = opaque;
    (void)version_id, (void)err;
    card->raised_in_time = card->controller->loaded; /* else the line would be lost */
    card->controller->lines |= card->lines;
    return 0;
}

static int controller_post_load(void *opaque, uint32_t version_id, struct gw_error *err)
{
    struct chip *chip = opaque;
    (void)version_id, (void)err;
    chip->loaded = true;
    return 0;
}

static const struct gw_vmstate vmstate_card = {
    GW_VMSTATE_OF(struct chip),
    .name = "card",
    .version_id = 1,
    GW_VMSTATE_FIELDS(GW_VMSTATE_UINT32(lines, struct chip)),
    .post_load = card_post_load,
};

static const struct gw_vmstate vmstate_controller = {
    GW_VMSTATE_OF(struct chip),
    .name = "controller",
    .version_id = 1,
    .priority = GW_VMSTATE_PRIORITY_APIC,
    GW_VMSTATE_FIELDS(GW_VMSTATE_UINT32(lines, struct chip)),
    .post_load = controller_post_load,
};

GW_TEST(handlers, interrupt_controller_is_loaded_before_what_raises_interrupts)
{
    struct pair pair = {.device_value = 1};
    struct chip here[2] = {{.lines = 2}, {.lines = 1}}; /* the card is added first */
    struct chip there[2] = {{.controller = &there[1]}, {0}};
    static const struct gw_vmstate *const vmsd[] = {&vmstate_card, &vmstate_controller};
    struct gw_vmstate_device dev[2][2];
    struct gw_error err = GW_ERROR_INIT;
    pair_add_block(&pair, "ram0", MIB, GW_BLOCK_ANON, 0);
    pair_init(&pair);
    for (unsigned i = 0; i < 2; i++) {
        struct gw_device_desc desc;
        dev[0][i] = (struct gw_vmstate_device){sizeof(dev[0][i]), vmsd[i], &here[i], NULL, 0, NULL};
        dev[1][i] =
            (struct gw_vmstate_device){sizeof(dev[1][i]), vmsd[i], &there[i], NULL, 0, NULL};
        GW_EXPECT_EQ(gw_vmstate_device_desc(&dev[0][i], &desc, &err), 0);
        GW_EXPECT_EQ(gw_source_add_device(pair.src, &desc, &err), 0);
        GW_EXPECT_EQ(gw_vmstate_device_desc(&dev[1][i], &desc, &err), 0);
        GW_EXPECT_EQ(gw_target_add_device(pair.tgt, &desc, &err), 0);
    }
    pair_listen(&pair);
    pair_start(&pair);
    GW_EXPECT(pair_finish(&pair, SECONDS));
    GW_EXPECT_EQ(pair.source_rc, 0);
    GW_EXPECT(there[0].raised_in_time);
    GW_EXPECT_EQ(there[1].lines, 3);
    pair_fini(&pair);
}
