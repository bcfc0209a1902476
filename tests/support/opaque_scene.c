// SPDX-License-Identifier: MIT
/* A guest with opaque devices, at both ends (opaque_scene.h). The devices work on the thread that
 * dispatches, between two dispatches, as a hypervisor's would under its lock. */
#include "tests/support/opaque_scene.h"

#include "gw_config.h"
#include "tests/shim/gw_test.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *const device_names[] = {"0000:00:04.0/vfio", "0000:00:05.0/vfio"};

struct vendor_config opaque_config(uint64_t bytes)
{
    return (struct vendor_config){
        .blocks = (uint32_t)(bytes / 4096),
        .precopy = true,
        .quiesce = true,
        .region_bytes = (4u << 20) + 4096 + 32,
        .section = VENDOR_AREAS,
        .offset = VENDOR_RING,
        .config_bytes = 300,
    };
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED true
#else
#define SANITIZED false
#endif

uint64_t opaque_state_bytes(const char *way)
{
    const char *full = getenv("GODWIT_TEST_FULL");
    bool all = full && full[0] && strcmp(full, "0") != 0;
    bool slow = strncmp(way, "rdma", 4) == 0 ? !all : SANITIZED;
    return slow ? UINT64_C(64) << 20 : UINT64_C(1) << 30;
}

void opaque_device_open(struct opaque_scene *scene, struct opaque_end *end, unsigned i)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_odev_caps caps = {.format = "vendor", .format_version = 1};
    struct vendor_config config = scene->config;
    config.name = device_names[i];
    config.seed = 7 + i;
    if (end == &scene->dst && scene->target_blocks)
        config.blocks = scene->target_blocks;
    end->vendor[i] = vendor_new(&config);
    struct gw_vfio_config c = {.struct_bytes = sizeof(c),
                               .name = config.name,
                               .switchover_ack = scene->ack,
                               .announce = true};
    if (scene->staging) {
        GW_ASSERT_EQ(gw_staging_new(vendor_staging_ops(end->vendor[i]), end->vendor[i], config.name,
                                    &caps, NULL, &end->staging[i], &err),
                     0);
        c.ops = &gw_staging_odev_ops;
        c.dev = end->staging[i];
    } else {
        GW_ASSERT_EQ(gw_feature_new(vendor_feature_ops(end->vendor[i]), end->vendor[i], config.name,
                                    &caps, &end->feature[i], &err),
                     0);
        c.ops = &gw_feature_odev_ops;
        c.dev = end->feature[i];
    }
    GW_ASSERT_EQ(gw_vfio_new(&c, &end->vfio[i], &err), 0);
}

/* ---- the embedder's part --------------------------------------------------------------------- */

static int stop_source(struct pair *pair)
{
    struct opaque_scene *scene = pair->test;
    return gw_vfio_stop_all(scene->src.vfio, scene->devices, NULL);
}

static int start_source(struct pair *pair)
{
    struct opaque_scene *scene = pair->test;
    return gw_vfio_start_all(scene->src.vfio, scene->devices, NULL);
}

static int start_target(struct pair *pair)
{
    struct opaque_scene *scene = pair->test;
    return gw_vfio_start_all(scene->dst.vfio, scene->devices, NULL);
}

/* An emulated host is slow: there is less to do on it, and whether rounds converge is no question. */
static bool is_emulated(void)
{
    return getenv("RIG_ADDR") != NULL;
}

unsigned opaque_writes(struct opaque_scene *scene, unsigned writes)
{
    if (!is_emulated())
        return writes;
    scene->owed += writes;
    writes = scene->owed / 50;
    scene->owed %= 50;
    return writes;
}

/* Half a minute's patience, but not for the last word of a source that is gone. */
struct gw_params *opaque_params(const char *downtime_limit)
{
    struct gw_params *params = pair_params();
    GW_ASSERT_EQ(gw_params_set(params, "x-settle-timeout", "2000", NULL), 0);
    /* ofi_rxm clears much memory before it joins; under a sanitizer that takes seconds. */
    GW_ASSERT_EQ(gw_params_set(params, "x-connect-timeout", "60000", NULL), 0);
    if (is_emulated())
        GW_ASSERT_EQ(gw_params_set(params, "x-stall-action", "switch", NULL), 0);
    if (downtime_limit)
        GW_ASSERT_EQ(gw_params_set(params, "downtime-limit", downtime_limit, NULL), 0);
    return params;
}

const char *opaque_uri(struct opaque_scene *scene, const char *way)
{
    if (strncmp(way, "tcp", 3) == 0)
        return NULL; /* the pair's own */
    if (strncmp(way, "unix", 4) == 0) {
        snprintf(scene->uri, sizeof(scene->uri), "unix:/tmp/godwit-opaque-%d", (int)getpid());
    } else if (strncmp(way, "ofi", 3) == 0) {
        if (!GW_HAVE_OFI)
            GW_SKIP("this build has no ofi: it was built without libfabric");
        snprintf(scene->uri, sizeof(scene->uri), "ofi:tcp;ofi_rxm:127.0.0.1:0");
    } else {
        const char *address = getenv("RIG_ADDR");
        if (!address)
            GW_SKIP("no RDMA device: RIG_ADDR is not set (scripts/soft-roce)");
        snprintf(scene->uri, sizeof(scene->uri), "rdma:%s:0", address);
    }
    return scene->uri;
}

void opaque_scene_init(struct opaque_scene *scene, const char *way)
{
    struct pair *pair = &scene->pair;
    scene->staging = strstr(way, "staging") != NULL;
    if (scene->devices == 0)
        scene->devices = 1;
    pair->listen_uri = opaque_uri(scene, way);
    pair->params = opaque_params(scene->downtime_limit);
    pair->target_params = opaque_params(NULL);
    pair->test = scene;
    pair->pause = stop_source;
    pair->resume = start_source;
    pair->run = start_target;
    pair->writes = true;
    pair_add_block(pair, "ram", 32u << 20, scene->kind, 50);
    pair_init(pair);
    for (unsigned i = 0; i < scene->devices; i++) {
        struct gw_error err = GW_ERROR_INIT;
        struct gw_device_desc desc;
        opaque_device_open(scene, &scene->src, i);
        opaque_device_open(scene, &scene->dst, i);
        gw_vfio_device_desc(scene->src.vfio[i], &desc);
        GW_ASSERT_EQ(gw_source_add_device(pair->src, &desc, &err), 0);
        gw_vfio_device_desc(scene->dst.vfio[i], &desc);
        GW_ASSERT_EQ(gw_target_add_device(pair->tgt, &desc, &err), 0);
    }
    if (scene->devices == 2) {
        vendor_set_peer(scene->src.vendor[0], scene->src.vendor[1]);
        vendor_set_peer(scene->src.vendor[1], scene->src.vendor[0]);
    }
}

void opaque_end_close(struct opaque_scene *scene, struct opaque_end *end)
{
    for (unsigned i = 0; i < scene->devices; i++) {
        gw_vfio_free(end->vfio[i]);
        gw_staging_free(end->staging[i]);
        gw_feature_free(end->feature[i]);
        GW_EXPECT_EQ(vendor_open_count(end->vendor[i]), 0);
        if (vendor_violation(end->vendor[i]))
            GW_NOTE_FAILURE("device %u's driver: %s", i, vendor_violation(end->vendor[i]));
        vendor_free(end->vendor[i]);
    }
}

void opaque_scene_fini(struct opaque_scene *scene)
{
    pair_fini(&scene->pair);
    gw_params_free(scene->pair.params);
    gw_params_free(scene->pair.target_params);
    opaque_end_close(scene, &scene->src);
    opaque_end_close(scene, &scene->dst);
}

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

bool opaque_scene_until(struct opaque_scene *scene, bool (*done)(struct opaque_scene *),
                        unsigned writes_a_ms, unsigned seconds)
{
    uint64_t begin = now_ms(), worked = begin;
    while (!done(scene)) {
        if (now_ms() - begin > seconds * UINT64_C(1000))
            return false;
        pair_pump(&scene->pair, 1);
        /* A device that was not served for long has not worked more for it. */
        uint64_t now = now_ms();
        unsigned passed_ms = now - worked < 10 ? (unsigned)(now - worked) : 10;
        worked = now;
        unsigned writes = opaque_writes(scene, passed_ms * writes_a_ms);
        for (unsigned i = 0; i < scene->devices; i++)
            vendor_run(scene->src.vendor[i], writes);
    }
    return true;
}

void opaque_scene_begin(struct opaque_scene *scene)
{
    pair_listen(&scene->pair);
    pair_start(&scene->pair);
    scene->pair.source_rc = scene->pair.target_rc = -EINPROGRESS;
}

static bool have_ended(struct opaque_scene *scene)
{
    struct pair *pair = &scene->pair;
    if (pair->source_rc == -EINPROGRESS)
        pair->source_rc = gw_source_wait(pair->src, 0, &pair->source_err);
    if (pair->target_rc == -EINPROGRESS)
        pair->target_rc = gw_target_wait(pair->tgt, 0, &pair->target_err);
    return pair->source_rc != -EINPROGRESS && pair->target_rc != -EINPROGRESS;
}

bool opaque_scene_finish(struct opaque_scene *scene, unsigned writes_a_ms, unsigned seconds)
{
    opaque_scene_begin(scene);
    return opaque_scene_until(scene, have_ended, writes_a_ms, seconds);
}

void opaque_scene_expect_moved(struct opaque_scene *scene)
{
    const struct pair *pair = &scene->pair;
    GW_EXPECT_STREQ(pair->source_err.message, "");
    GW_EXPECT_STREQ(pair->target_err.message, "");
    GW_EXPECT_EQ(pair->source_rc, 0);
    GW_EXPECT_EQ(pair->target_rc, 0);
    GW_EXPECT_EQ(pair_differs(pair), -1);
    GW_EXPECT_EQ(pair->two_runners, 0);
    for (unsigned i = 0; i < scene->devices; i++) {
        GW_EXPECT(vendor_is_equal(scene->src.vendor[i], scene->dst.vendor[i]));
        GW_EXPECT_EQ(vendor_state(scene->src.vendor[i]), GW_ODEV_STOP);
        GW_EXPECT_EQ(vendor_state(scene->dst.vendor[i]), GW_ODEV_RUNNING);
    }
}

void opaque_scene_expect_failed(struct opaque_scene *scene, const char *says)
{
    const struct pair *pair = &scene->pair;
    GW_EXPECT_LT(pair->source_rc, 0);
    GW_EXPECT_LT(pair->target_rc, 0);
    GW_EXPECT_EQ(pair->runs, 0);
    GW_EXPECT(pair->source_runs);
    for (unsigned i = 0; i < scene->devices; i++)
        GW_EXPECT_EQ(vendor_state(scene->src.vendor[i]), GW_ODEV_RUNNING);
    if (!strstr(pair->source_err.message, says) && !strstr(pair->source_err.peer, says))
        GW_NOTE_FAILURE("the source says: %s (peer: %s)", pair->source_err.message,
                        pair->source_err.peer);
}
