// SPDX-License-Identifier: MIT
#include "core/base/alloc.h"
#include "core/teller.h"
#include "tests/shim/gw_test.h"

#include <stdio.h>
#include <string.h>

struct heard {
    unsigned count;
    enum gw_event_type types[8];
    char texts[8][64];
};

struct scene {
    struct gw_loop *loop;
    struct gw_teller teller;
    _Atomic int calls_in_loop;
    struct heard heard;
};

static void hear(void *ctx, const struct gw_event *event)
{
    struct heard *heard = ctx;
    heard->types[heard->count] = event->type;
    snprintf(heard->texts[heard->count++], sizeof(heard->texts[0]), "%s", event->text);
}

static void open_scene(struct scene *scene)
{
    memset(scene, 0, sizeof(*scene));
    GW_ASSERT_EQ(gw_loop_new(&scene->loop, NULL), 0);
    gw_teller_init(&scene->teller, scene->loop, hear, &scene->heard, &scene->calls_in_loop);
}

static void tell(struct scene *scene, enum gw_event_type type, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    gw_teller_tell(&scene->teller, type, GW_STATUS_DEVICE, NULL, format, args);
    va_end(args);
}

static void close_scene(struct scene *scene)
{
    gw_dispatch(scene->loop);
    GW_EXPECT_EQ(scene->calls_in_loop, 0);
    gw_loop_free(scene->loop);
}

GW_TEST(teller, what_may_be_waited_for_is_told_without_memory)
{
    static const enum gw_event_type kinds[] = {GW_EVENT_UNKNOWN, GW_EVENT_STATUS, GW_EVENT_RETAKE,
                                               GW_EVENT_HOLDING, GW_EVENT_ENDED};
    struct scene scene;
    open_scene(&scene);
    for (unsigned again = 0; again < 2; again++) {
        scene.heard.count = 0;
        gw_alloc_fail_after(0);
        for (unsigned i = 0; i < 5; i++)
            tell(&scene, kinds[i], "number %u of %u", i, again);
        gw_alloc_fail_after(-1);
        gw_dispatch(scene.loop);
        GW_ASSERT_EQ(scene.heard.count, 4); /* all but the status */
        for (unsigned i = 0; i < 4; i++)
            GW_EXPECT_EQ(scene.heard.types[i], kinds[i ? i + 1 : 0]);
        GW_EXPECT_STREQ(scene.heard.texts[3], again ? "number 4 of 1" : "number 4 of 0");
    }
    close_scene(&scene);
}

GW_TEST(teller, two_of_a_kind_are_both_told)
{
    struct scene scene;
    open_scene(&scene);
    tell(&scene, GW_EVENT_UNKNOWN, "first");
    tell(&scene, GW_EVENT_UNKNOWN, "second");
    gw_dispatch(scene.loop);
    GW_ASSERT_EQ(scene.heard.count, 2);
    GW_EXPECT_STREQ(scene.heard.texts[0], "first");
    GW_EXPECT_STREQ(scene.heard.texts[1], "second");
    close_scene(&scene);
}
