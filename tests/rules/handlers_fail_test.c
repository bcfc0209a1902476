// SPDX-License-Identifier: MIT
/* Devices with handlers that fail, or stand still: it is told, and the guest stays where it was. */
#include "tests/rules/store.h"

#include <errno.h>
#include <string.h>

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
        struct store_scene *scene = store_scene_new();
        struct pair *pair = &scene->pair;
        store_add(scene, "bad", 64 * KIB, 32 * KIB);
        scene->failing = failures[i].failing;
        store_scene_open(scene, 1);
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
        store_scene_close(scene);
    }
}

static int stuck_complete(void *opaque, struct gw_writer *w, uint64_t bytes_max,
                          struct gw_error *err)
{
    struct store *store = opaque;
    (void)w, (void)bytes_max, (void)err;
    store_note(store->scene->source_log, store, "stuck");
    return 0;
}

GW_TEST(handlers, a_device_that_has_more_and_writes_none_does_not_hold_the_paused_guest)
{
    struct store_scene *scene = store_scene_new();
    struct pair *pair = &scene->pair;
    store_add(scene, "stuck", 0, 0);
    scene->source_ops.complete_precopy = stuck_complete;
    store_scene_open(scene, 0);
    GW_EXPECT(pair_finish(pair, SECONDS));
    GW_EXPECT_EQ(pair->source_rc, -EPROTO);
    GW_EXPECT_STREQ(pair->source_err.message,
                    "device 'stuck' instance 0: says that there is more, and wrote none");
    GW_EXPECT(pair->source_runs && !pair->target_runs);
    GW_EXPECT_EQ(pair->resumes, pair->pauses);
    store_scene_close(scene);
}

GW_TEST(handlers, cleanup_comes_when_nobody_ever_answered)
{
    struct store_scene *scene = store_scene_new();
    struct pair *pair = &scene->pair;
    store_add(scene, "lone", 64 * KIB, 32 * KIB);
    scene->target_ops.load_cleanup = NULL; /* no source comes */
    store_scene_open(scene, 0);
    GW_EXPECT_EQ(gw_source_cancel(pair->src), 0);
    pair->target_rc = 0;
    pair->source_rc = gw_source_wait(pair->src, (int)SECONDS * 1000, &pair->source_err);
    GW_EXPECT_EQ(pair->source_rc, -ECANCELED);
    GW_EXPECT(strstr(scene->source_log, "cleanup(lone)"));
    store_scene_close(scene);
}

GW_TEST(handlers, the_same_source_migrates_after_a_failure)
{
    struct store_scene *scene = store_scene_new();
    struct pair *pair = &scene->pair;
    struct store *store = store_add(scene, "twice", 64 * KIB, 32 * KIB);
    scene->failing = FAILS_LOAD_FULL;
    store_scene_open(scene, 1);
    GW_EXPECT(pair_finish(pair, SECONDS));
    GW_EXPECT(pair->source_rc < 0 && pair->source_runs);
    GW_EXPECT_EQ(store->cleanups, 1);
    GW_EXPECT_EQ(store->load_cleanups, 1);
    scene->failing = FAILS_NOWHERE;
    store->sent = store->loaded = 0;
    store->cleanups = store->load_cleanups = 0;
    pair_listen(pair);
    pair_start(pair);
    store_expect_moved(scene);
    store_scene_close(scene);
}

GW_TEST(handlers, device_that_the_target_does_not_have_is_refused)
{
    struct store_scene *scene = store_scene_new();
    struct pair *pair = &scene->pair;
    struct gw_error err = GW_ERROR_INIT;
    pair_add_block(pair, "ram0", 4 * MIB, GW_BLOCK_ANON, 0);
    pair_init(pair);
    struct store *store = store_add(scene, "more", 64 * KIB, 32 * KIB);
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
    store_scene_close(scene);
}
