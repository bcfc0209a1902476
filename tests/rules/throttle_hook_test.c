// SPDX-License-Identifier: MIT
/* What the library asks of an embedder that can slow its vCPUs down: while rounds are sent, and never
 * longer than that. */
#include "tests/shim/gw_test.h"
#include "tests/support/pair.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#define ASKED_MAX 8
#define SECONDS 60

struct scene {
    struct pair pair;
    struct gw_params *params;
    unsigned asked[ASKED_MAX], count; /* percentages, in their order */
    bool held_at_end;                 /* the last one was not 0 when ENDED was told */
};

static struct scene *scene_of(struct pair *pair)
{
    return pair->test;
}

static void on_throttle(struct pair *pair, unsigned vcpu, unsigned percent)
{
    struct scene *scene = scene_of(pair);
    GW_EXPECT_EQ(vcpu, GW_VCPU_ALL);
    if (scene->count < ASKED_MAX)
        scene->asked[scene->count++] = percent;
}

static bool is_held(struct pair *pair)
{
    const struct scene *scene = scene_of(pair);
    return scene->count > 0 && scene->asked[scene->count - 1] > 0;
}

static bool is_held_more(struct pair *pair)
{
    const struct scene *scene = scene_of(pair);
    return scene->count > 0 && scene->asked[scene->count - 1] == 70;
}

static void on_event(struct pair *pair, const struct gw_event *event)
{
    if (event->type == GW_EVENT_ENDED)
        scene_of(pair)->held_at_end = is_held(pair);
}

/* @rate: slow enough for a test to act in the first round. */
static void open_scene(struct scene *scene, const char *percent, const char *rate)
{
    memset(scene, 0, sizeof(*scene));
    scene->params = pair_params();
    GW_ASSERT_EQ(gw_params_set(scene->params, "x-cpu-throttle", percent, NULL), 0);
    GW_ASSERT_EQ(gw_params_set(scene->params, "max-bandwidth", rate, NULL), 0);
    scene->pair.params = scene->params;
    scene->pair.test = scene;
    scene->pair.throttle = on_throttle;
    scene->pair.source_event = on_event;
    pair_add_block(&scene->pair, "ram0", 8 << 20, GW_BLOCK_ANON, 100);
    pair_init(&scene->pair);
    pair_listen(&scene->pair);
    pair_start(&scene->pair);
}

static void close_scene(struct scene *scene)
{
    pair_fini(&scene->pair);
    gw_params_free(scene->params);
}

GW_TEST(throttle_hook, vcpus_are_slowed_while_rounds_are_sent_and_released)
{
    static struct scene scene;
    open_scene(&scene, "40", "0");
    GW_EXPECT(pair_finish(&scene.pair, SECONDS));
    GW_EXPECT_EQ(scene.pair.source_rc, 0);
    GW_ASSERT_EQ(scene.count, 2);
    GW_EXPECT_EQ(scene.asked[0], 40);
    GW_EXPECT_EQ(scene.asked[1], 0);
    GW_EXPECT(!scene.held_at_end);
    close_scene(&scene);
}

GW_TEST(throttle_hook, nobody_is_asked_for_nothing)
{
    static struct scene scene;
    open_scene(&scene, "0", "0");
    GW_EXPECT(pair_finish(&scene.pair, SECONDS));
    GW_EXPECT_EQ(scene.count, 0);
    close_scene(&scene);
}

GW_TEST(throttle_hook, a_migration_that_fails_releases_its_vcpus)
{
    static struct scene scene;
    open_scene(&scene, "40", "1M");
    GW_ASSERT(pair_until(&scene.pair, is_held, SECONDS));
    GW_EXPECT_EQ(gw_target_cancel(scene.pair.tgt), 0);
    GW_EXPECT(pair_finish(&scene.pair, SECONDS));
    GW_EXPECT_NE(scene.pair.source_rc, 0);
    GW_EXPECT(!is_held(&scene.pair) && !scene.held_at_end);
    close_scene(&scene);
}

GW_TEST(throttle_hook, freeing_a_source_releases_its_vcpus)
{
    static struct scene scene;
    open_scene(&scene, "40", "1M");
    GW_ASSERT(pair_until(&scene.pair, is_held, SECONDS));
    gw_source_free(scene.pair.src);
    scene.pair.src = NULL;
    GW_EXPECT(!is_held(&scene.pair));
    close_scene(&scene);
}

GW_TEST(throttle_hook, it_changes_while_a_migration_runs)
{
    static struct scene scene;
    open_scene(&scene, "0", "1M");
    GW_EXPECT_EQ(gw_source_set(scene.pair.src, "x-cpu-throttle", "40", NULL), 0);
    GW_ASSERT(pair_until(&scene.pair, is_held, SECONDS));
    GW_EXPECT_EQ(gw_source_set(scene.pair.src, "x-cpu-throttle", "70", NULL), 0);
    GW_ASSERT(pair_until(&scene.pair, is_held_more, SECONDS));
    GW_EXPECT_EQ(gw_source_set(scene.pair.src, "max-bandwidth", "0", NULL), 0);
    GW_EXPECT(pair_finish(&scene.pair, SECONDS));
    GW_EXPECT_EQ(scene.pair.source_rc, 0);
    GW_EXPECT(!is_held(&scene.pair));
    close_scene(&scene);
}

static int nothing(void *ctx, struct gw_error *err)
{
    (void)ctx;
    (void)err;
    return 0;
}

GW_TEST(throttle_hook, who_cannot_be_slowed_says_so_before_anything_is_sent)
{
    static struct scene scene;
    struct gw_error err = GW_ERROR_INIT;
    open_scene(&scene, "0", "0");
    GW_EXPECT(pair_finish(&scene.pair, SECONDS));
    struct gw_source_ops ops = {sizeof(ops), nothing, nothing};
    struct gw_source_config config = {.struct_bytes = sizeof(config),
                                      .loop = scene.pair.source_loop,
                                      .ops = &ops,
                                      .params = scene.params};
    struct gw_source *src = NULL;
    GW_ASSERT_EQ(gw_params_set(scene.params, "x-cpu-throttle", "10", NULL), 0);
    GW_ASSERT_EQ(gw_source_new(&config, &src, NULL), 0);
    struct gw_block_desc block = {.struct_bytes = sizeof(block),
                                  .name = "ram0",
                                  .host = scene.pair.blocks[0].source,
                                  .size_bytes = scene.pair.blocks[0].bytes,
                                  .page_bytes = 4096,
                                  .fd = -1};
    GW_ASSERT_EQ(gw_source_add_block(src, &block, NULL), 0);
    GW_ASSERT_EQ(
        gw_source_add_dirty(src, gw_dirty_kernel_ops(scene.pair.dirty), scene.pair.dirty, NULL), 0);
    GW_EXPECT_EQ(gw_source_start(src, "tcp:127.0.0.1:1", &err), -EINVAL);
    GW_EXPECT_EQ(err.code, GW_CODE_UNSUPPORTED);
    GW_EXPECT_NE(err.hint[0], '\0');
    gw_source_free(src);
    close_scene(&scene);
}

GW_TEST(throttle_hook, a_table_from_before_it_is_taken)
{
    struct gw_source_ops ops = {offsetof(struct gw_source_ops, throttle), nothing, nothing};
    struct gw_source_config config = {.struct_bytes = sizeof(config), .ops = &ops};
    struct gw_source *src = NULL;
    GW_ASSERT_EQ(gw_loop_new(&config.loop, NULL), 0);
    GW_EXPECT_EQ(gw_source_new(&config, &src, NULL), 0);
    gw_source_free(src);
    src = NULL;
    ops.struct_bytes--;
    GW_EXPECT_EQ(gw_source_new(&config, &src, NULL), -EINVAL);
    gw_loop_free(config.loop);
}
