// SPDX-License-Identifier: MIT
/* Devices with handlers (godwit/device.h): who is called when, and what keeps the guest from being paused. */
#include "tests/rules/store.h"

#include <errno.h>
#include <string.h>

/* ---- order -------------------------------------------------------------------------------------- */

GW_TEST(handlers, are_called_in_the_documented_order_at_both_sides)
{
    struct store_scene *scene = store_scene_new();
    store_add(scene, "low", 300 * KIB, 200 * KIB);
    store_add(scene, "high", 300 * KIB, 200 * KIB);
    scene->target_ops.switchover_ack_needed = store_ack_needed;
    scene->stores[0].ack_after[0] = scene->stores[1].ack_after[0] = 1;
    store_scene_open(scene, 1);
    store_expect_moved(scene);
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
    store_scene_close(scene);
}

static bool says_no(void *opaque)
{
    (void)opaque;
    return false;
}

GW_TEST(handlers, device_that_is_not_active_has_no_sections)
{
    struct store_scene *scene = store_scene_new();
    struct store *store = store_add(scene, "idle", 0, 0);
    scene->source_ops.is_active = says_no;
    scene->target_ops.load_complete = NULL;
    store_scene_open(scene, 1); /* nor is its save called */
    store_expect_moved(scene);
    GW_EXPECT_STREQ(scene->source_log, "pause() cleanup(idle) ");
    GW_EXPECT_EQ(store->setups, 0);
    GW_EXPECT_EQ(store->ends, 0);
    GW_EXPECT_EQ(store->load_setups, 1);
    store_scene_close(scene);
}

/* ---- how much ----------------------------------------------------------------------------------- */

static void move_much(const char *uri)
{
    struct store_scene *scene = store_scene_new();
    struct store *store = store_add(scene, "much", 24 * MIB, 12 * MIB);
    scene->pair.listen_uri = uri;
    scene->pair.writes = true;
    GW_EXPECT_EQ(gw_params_set(scene->target_params, "x-section-max", "1M", NULL), 0);
    store_scene_open(scene, 1);
    GW_EXPECT(pair_finish(&scene->pair, SECONDS));
    store_expect_moved(scene);
    GW_EXPECT_GE(store->parts, 24u); /* of half a section at most */
    GW_EXPECT_EQ(store->ends, 1);
    store_scene_close(scene);
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
    struct store_scene *scene = store_scene_new();
    struct store *store = store_add(scene, "late", 9 * MIB, 0);
    scene->source_ops.iterate = NULL;
    GW_EXPECT_EQ(gw_params_set(scene->target_params, "x-section-max", "256K", NULL), 0);
    store_scene_open(scene, 0);
    store_expect_moved(scene);
    GW_EXPECT_GE(store->parts, 36u);
    store_scene_close(scene);
}

GW_TEST(handlers, max_bandwidth_reaches_them)
{
    struct store_scene *scene = store_scene_new();
    struct store *store = store_add(scene, "slow", 4 * MIB, 4 * MIB);
    GW_EXPECT_EQ(gw_params_set(scene->source_params, "max-bandwidth", "40000000", NULL), 0);
    store_scene_open(scene, 0);
    store_expect_moved(scene);
    GW_EXPECT_LE(store->bytes_max_seen, 400000u); /* a hundredth of a second's worth */
    GW_EXPECT_GE(store->parts, 10u);
    store_scene_close(scene);
}

/* ---- what keeps the guest running --------------------------------------------------------------- */

static int pause_after_estimates(struct pair *pair)
{
    struct store_scene *scene = (struct store_scene *)pair;
    struct store *store = &scene->stores[0];
    store->wrong |= store->estimates <= store->untrue_estimates;
    store->wrong |= store->exacts <= store->untrue_exacts;
    store->wrong |= store->acks_given < store->acks_wanted;
    return store_pause(pair);
}

GW_TEST(handlers, guest_runs_on_while_a_device_has_too_much_left)
{
    struct store_scene *scene = store_scene_new();
    struct store *store = store_add(scene, "busy", 64 * KIB, 32 * KIB);
    store->untrue_estimates = 6;
    scene->pair.pause = pause_after_estimates;
    store_scene_open(scene, 0);
    store_expect_moved(scene);
    GW_EXPECT_EQ(store->exacts, 1); /* not asked while the estimate alone says no */
    store_scene_close(scene);
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
    struct store_scene *scene = store_scene_new();
    struct store *store = store_add(scene, "endless", 0, 0);
    scene->source_ops.setup = NULL;
    scene->source_ops.pending_estimate = endless_estimate;
    scene->source_ops.pending_exact = NULL;
    scene->source_ops.iterate = endless_iterate;
    scene->source_ops.complete_precopy = endless_complete;
    scene->target_ops.load = endless_load;
    scene->pair.writes = true; /* what it wrote in that round is found and sent */
    store_scene_open(scene, 0);
    store_expect_moved(scene);
    GW_EXPECT_GT(store->parts, 0);
    GW_EXPECT_GT(store->estimates, 1); /* its second came when the round was over */
    store_scene_close(scene);
}

GW_TEST(handlers, exact_has_the_last_word)
{
    struct store_scene *scene = store_scene_new();
    struct store *store = store_add(scene, "deep", 64 * KIB, 32 * KIB);
    store->untrue_exacts = 3;
    scene->pair.pause = pause_after_estimates;
    store_scene_open(scene, 0);
    store_expect_moved(scene);
    GW_EXPECT_EQ(store->exacts, 4);
    store_scene_close(scene);
}

GW_TEST(handlers, guest_is_not_paused_before_the_target_acknowledges)
{
    struct store_scene *scene = store_scene_new();
    struct store *store = store_add(scene, "ready", 64 * KIB, 32 * KIB);
    store->step_bytes = 4 * KIB; /* a PART a round */
    store->ack_after[0] = 5;
    store->acks_wanted = 1;
    scene->target_ops.switchover_ack_needed = store_ack_needed;
    scene->pair.pause = pause_after_estimates;
    store_scene_open(scene, 0);
    store_expect_moved(scene);
    GW_EXPECT_EQ(store->acks_given, 1);
    store_scene_close(scene);
}

static bool target_needs_one(void *opaque)
{
    struct store *store = opaque;
    store->acks_wanted = 0; /* only the target knows */
    return true;
}

static int pause_after_one_ack(struct pair *pair)
{
    struct store_scene *scene = (struct store_scene *)pair;
    scene->stores[0].wrong |= scene->stores[0].acks_given < 1;
    return store_pause(pair);
}

GW_TEST(handlers, acknowledgement_that_only_the_target_knows_of_is_waited_for)
{
    struct store_scene *scene = store_scene_new();
    struct store *store = store_add(scene, "ready", 64 * KIB, 32 * KIB);
    store->step_bytes = 4 * KIB;
    store->ack_after[0] = 4;
    scene->target_ops.switchover_ack_needed = target_needs_one;
    scene->pair.pause = pause_after_one_ack;
    store_scene_open(scene, 0);
    store_expect_moved(scene);
    store_scene_close(scene);
}

GW_TEST(handlers, acknowledgement_can_be_asked_for_again)
{
    struct store_scene *scene = store_scene_new();
    struct store *store = store_add(scene, "again", 64 * KIB, 32 * KIB);
    store->step_bytes = 4 * KIB;
    store->ack_after[0] = 2;
    store->ack_after[1] = 6;
    store->acks_wanted = 2;
    scene->target_ops.switchover_ack_needed = store_ack_needed;
    scene->pair.pause = pause_after_estimates;
    store_scene_open(scene, 0);
    store_expect_moved(scene);
    GW_EXPECT_EQ(store->acks_given, 2);
    store_scene_close(scene);
}

static void count_stalls(struct pair *pair, const struct gw_event *event)
{
    struct store_scene *scene = (struct store_scene *)pair;
    if (event->type != GW_EVENT_STALL)
        return;
    scene->stores[0].wrong |= strstr(event->text, "(1 have not)") == NULL;
    scene->stalls++;
}

GW_TEST(handlers, acknowledgement_that_never_comes_ends_by_the_device_budget)
{
    struct store_scene *scene = store_scene_new();
    struct pair *pair = &scene->pair;
    struct store *store = store_add(scene, "mute", 64 * KIB, 0);
    store->ack_after[0] = ~0u;
    scene->target_ops.switchover_ack_needed = target_needs_one;
    pair->source_event = count_stalls;
    GW_ASSERT_EQ(gw_params_set(scene->source_params, "x-device-timeout", "3000", NULL), 0);
    store_scene_open(scene, 0);
    GW_EXPECT(pair_finish(pair, SECONDS));
    GW_EXPECT_EQ(pair->source_rc, -ETIMEDOUT);
    GW_EXPECT_EQ(pair->source_err.code, GW_CODE_DEVICE);
    GW_EXPECT(strstr(pair->source_err.hint, "x-device-timeout"));
    GW_EXPECT(pair->source_runs && !pair->target_runs && pair->pauses == 0);
    GW_EXPECT(scene->stalls == 1 && !store->wrong);
    store_scene_close(scene);
}
