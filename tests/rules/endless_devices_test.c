// SPDX-License-Identifier: MIT
/* A source that rains sections of an opaque device which move nothing forward, in the form of either interface:
 * data of no bytes, or no record but the end. They are legal, an honest device that has nothing now sends
 * them, and nothing tells the thousandth from the first. What bounds them is what bounds a source that beats and says
 * nothing: they cost the target no memory and no time of others', and whoever has enough of it cancels. */
#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "devices/vfio/record.h"
#include "tests/shim/gw_test.h"
#include "tests/support/opaque_scene.h"
#include "tests/support/raw_peer.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MIB (UINT64_C(1) << 20)
#define SECONDS 120u
#define PEER_TIMEOUT_NS (30 * GW_NS_PER_S)
#define SECTION_ID 5u
#define RAIN_MIN 20000u /* sections, before somebody has had enough */
#define AHEAD_MAX                                                                                  \
    500u /* of what is loaded: an honest source waits, and who does not is refused for that */

static const char *const forms[] = {"data_of_no_bytes", "no_record_at_all", NULL};

struct rain {
    struct opaque_scene scene; /* its target's device; the source is raw */
    struct raw_source raw;
    pthread_t thread;
    bool has_data_tag;
    pthread_mutex_t progress_lock; /* guards the two below */
    pthread_cond_t progress;
    uint64_t loaded;
    bool over;
};

/* ---- the source -------------------------------------------------------------------------------- */

/* False: the target has ended it. */
static bool try_say(struct rain *rain, const struct gw_message *msg)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_message heard;
    for (;;) {
        int rc = gw_channel_send(rain->raw.channel, msg);
        int stepped = gw_channel_step(rain->raw.channel, gw_clock_ns(), &err);
        while (stepped >= 0 && (stepped = gw_channel_recv(rain->raw.channel, &heard, &err)) > 0)
            if (heard.type == GW_MSG_FAILED)
                return false;
        for (unsigned i = 0; i < rain->raw.page_count; i++)
            gw_channel_step(rain->raw.page_channel[i], gw_clock_ns(), &err);
        if (stepped < 0 || (rc < 0 && rc != -EAGAIN))
            return false;
        if (rc == 0)
            return true;
    }
}

static bool say_section(struct rain *rain, enum gw_item_type type, const struct gw_writer *body)
{
    struct gw_message msg = {.type = GW_MSG_STREAM, .flags = GW_MSG_FLAG_LAST};
    struct gw_section section = {.type = type, .section_id = SECTION_ID, .version_id = 1};
    struct gw_writer w;
    snprintf(section.idstr, sizeof(section.idstr), "%s", rain->scene.config.name);
    gw_writer_init(&w, 4096);
    gw_stream_write_section(&w, &section);
    gw_writer_bytes(&w, body->data, body->bytes);
    gw_stream_write_footer(&w, SECTION_ID);
    msg.u.data.data = w.data;
    msg.u.data.bytes = w.bytes;
    bool said = try_say(rain, &msg);
    gw_writer_fini(&w);
    return said;
}

/* Until few are ahead of the target, or its session is over. */
static void wait_for_target(struct rain *rain, uint64_t said)
{
    pthread_mutex_lock(&rain->progress_lock);
    while (!rain->over && said > rain->loaded + AHEAD_MAX)
        pthread_cond_wait(&rain->progress, &rain->progress_lock);
    pthread_mutex_unlock(&rain->progress_lock);
}

static void *let_it_rain(void *arg)
{
    struct rain *rain = arg;
    uint64_t said = 0;
    struct gw_writer body;
    raw_source_open(&rain->raw, gw_target_uri(rain->scene.pair.tgt), 4 * MIB, 1, PEER_TIMEOUT_NS);
    gw_writer_init(&body, 64);
    gw_writer_be64(&body, GW_VFIO_SETUP_STATE);
    gw_writer_be64(&body, GW_VFIO_END_OF_STATE);
    bool goes_on = say_section(rain, GW_ITEM_START, &body);
    gw_writer_reset(&body);
    if (rain->has_data_tag) {
        gw_writer_be64(&body, GW_VFIO_DATA_STATE);
        gw_writer_be64(&body, 0);
    }
    gw_writer_be64(&body, GW_VFIO_END_OF_STATE);
    while (goes_on) {
        goes_on = say_section(rain, GW_ITEM_PART, &body);
        wait_for_target(rain, ++said);
    }
    gw_writer_fini(&body);
    return NULL;
}

/* ---- the target -------------------------------------------------------------------------------- */

static uint64_t look(struct pair *pair)
{
    struct rain *rain = pair->test;
    struct gw_vfio_stats stats;
    gw_vfio_stats(rain->scene.dst.vfio[0], &stats);
    pair->target_rc = gw_target_wait(pair->tgt, 0, &pair->target_err);
    pthread_mutex_lock(&rain->progress_lock);
    rain->loaded = stats.sections;
    rain->over = pair->target_rc != -EINPROGRESS;
    pthread_cond_signal(&rain->progress);
    pthread_mutex_unlock(&rain->progress_lock);
    return stats.sections;
}

static bool target_over(struct pair *pair)
{
    look(pair);
    return pair->target_rc != -EINPROGRESS;
}

static bool has_rained(struct pair *pair)
{
    return look(pair) >= RAIN_MIN || pair->target_rc != -EINPROGRESS;
}

static struct rain *rain_new(const char *form)
{
    struct rain *rain = calloc(1, sizeof(*rain));
    struct pair *pair = &rain->scene.pair;
    struct gw_error err = GW_ERROR_INIT;
    struct gw_device_desc desc;
    GW_ASSERT(rain != NULL);
    pthread_mutex_init(&rain->progress_lock, NULL);
    pthread_cond_init(&rain->progress, NULL);
    rain->has_data_tag = strcmp(form, forms[0]) == 0;
    rain->scene.devices = 1;
    rain->scene.staging = rain->has_data_tag;
    rain->scene.config = opaque_config(4 * MIB);
    pair->test = rain;
    pair_add_block(pair, "ram0", 4 * MIB, GW_BLOCK_ANON, 0);
    pair_init(pair);
    opaque_device_open(&rain->scene, &rain->scene.dst, 0);
    gw_vfio_device_desc(rain->scene.dst.vfio[0], &desc);
    rain->scene.config.name = gw_vfio_name(rain->scene.dst.vfio[0]);
    GW_ASSERT_EQ(gw_target_add_device(pair->tgt, &desc, &err), 0);
    pair_listen(pair);
    return rain;
}

GW_TEST_EACH(endless_devices, cost_no_memory_and_end_by_a_cancel, forms)
{
    struct rain *rain = rain_new(param);
    struct pair *pair = &rain->scene.pair;
    int64_t before = gw_alloc_live();
    gw_alloc_peak_reset();
    GW_ASSERT_EQ(pthread_create(&rain->thread, NULL, let_it_rain, rain), 0);
    GW_EXPECT(pair_until(pair, has_rained, SECONDS));
    GW_EXPECT_LT(gw_alloc_peak(), 16 * MIB); /* of both sides: windows, messages read ahead */
    GW_EXPECT_LT(gw_alloc_live() - before, 10 * AHEAD_MAX);
    if (!GW_EXPECT(!target_over(pair))) /* legal, every one of them */
        gw_test_note(__FILE__, __LINE__, "%s", pair->target_err.message);
    GW_EXPECT_EQ(gw_target_cancel(pair->tgt), 0);
    GW_EXPECT(pair_until(pair, target_over, SECONDS));
    GW_EXPECT_EQ(pair->target_rc, -ECANCELED);
    GW_EXPECT_EQ(pair->runs, 0);
    pthread_join(rain->thread, NULL);
    GW_EXPECT_GE(look(pair), RAIN_MIN);
    raw_source_close(&rain->raw);
    pair_fini(pair);
    opaque_end_close(&rain->scene, &rain->scene.dst);
    pthread_cond_destroy(&rain->progress);
    pthread_mutex_destroy(&rain->progress_lock);
    free(rain);
}
