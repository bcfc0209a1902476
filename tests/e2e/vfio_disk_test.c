// SPDX-License-Identifier: MIT
/* All of it at once: the built-in guest, whose vCPUs write memory and a virtio-blk disk, with a gibibyte of
 * opaque state beside it, moves while it runs. Memory and disk are verified as the guest arrives and after
 * it has run on; the device's state by its own driver. */
#include "tests/shim/gw_test.h"
#include "tests/support/loopback.h"
#include "tests/support/opaque_scene.h"
#include "tools/guest.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct host {
    struct gw_guest *guest;
    struct opaque_end *end;
    const struct opaque_end *from; /* at the target: the source's */
    struct gw_loop *loop;
    bool runs;
};

static char disk[64];

__attribute__((destructor)) static void remove_disk(void)
{
    if (disk[0])
        unlink(disk);
}

/* ---- both hosts -------------------------------------------------------------------------------- */

static int on_pause(void *ctx, struct gw_error *err)
{
    struct host *host = ctx;
    gw_guest_pause(host->guest);
    host->runs = false;
    int rc = gw_vfio_stop_all(host->end->vfio, 1, err);
    if (rc < 0) { /* who fails to pause has a guest that runs */
        gw_guest_resume(host->guest);
        host->runs = true;
    }
    return rc;
}

static int on_resume(void *ctx, struct gw_error *err)
{
    struct host *host = ctx;
    int rc = gw_vfio_start_all(host->end->vfio, 1, err);
    gw_guest_resume(host->guest);
    host->runs = true;
    return rc;
}

static int on_offer(void *ctx, const struct gw_block_offer *offer, struct gw_block_desc *desc,
                    struct gw_error *err)
{
    struct host *host = ctx;
    return gw_guest_offer(host->guest, offer->name, offer->size_bytes, offer->page_bytes,
                          offer->kind, desc, err);
}

static int on_run(void *ctx, struct gw_error *err)
{
    struct host *host = ctx;
    GW_EXPECT(vendor_is_equal(host->from->vendor[0], host->end->vendor[0]));
    int rc = gw_guest_verify(host->guest, err);
    if (rc == 0)
        rc = gw_vfio_start_all(host->end->vfio, 1, err);
    if (rc == 0)
        rc = gw_guest_start(host->guest, err);
    host->runs = rc == 0;
    return rc;
}

static const struct gw_source_ops source_ops = {
    .struct_bytes = sizeof(source_ops), .pause = on_pause, .resume = on_resume};
static const struct gw_target_ops target_ops = {
    .struct_bytes = sizeof(target_ops), .block_offered = on_offer, .run = on_run};

static void must(int rc, const struct gw_error *err)
{
    if (rc < 0)
        GW_FAIL("%s", err->message);
}

static struct gw_source *open_source(struct host *host, const struct gw_params *params,
                                     struct gw_dirty **dirty)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_guest_config config;
    struct gw_source *src = NULL;
    struct gw_source_config source = {.struct_bytes = sizeof(source),
                                      .loop = host->loop,
                                      .ops = &source_ops,
                                      .ctx = host,
                                      .params = params};
    gw_guest_config_init(&config);
    config.ram_bytes = UINT64_C(64) << 20;
    config.vcpus = 2;
    config.dirty_rate = UINT64_C(20) << 20;
    must(gw_guest_new(&config, &host->guest, &err), &err);
    must(gw_guest_add_disk(host->guest, disk, &err), &err);
    must(gw_source_new(&source, &src, &err), &err);
    for (unsigned i = 0; i < gw_guest_block_count(host->guest); i++) {
        struct gw_block_desc block;
        gw_guest_block(host->guest, i, &block);
        must(gw_source_add_block(src, &block, &err), &err);
    }
    must(gw_dirty_open(GW_DIRTY_AUTO, NULL, dirty, &err), &err);
    must(gw_source_add_dirty(src, gw_dirty_kernel_ops(*dirty), *dirty, &err), &err);
    must(gw_guest_start(host->guest, &err), &err);
    host->runs = true;
    return src;
}

static struct gw_target *open_target(struct host *host, const struct gw_params *params)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_target *tgt = NULL;
    struct gw_target_config target = {.struct_bytes = sizeof(target),
                                      .loop = host->loop,
                                      .ops = &target_ops,
                                      .ctx = host,
                                      .params = params};
    must(gw_guest_new_incoming(NULL, &host->guest, &err), &err);
    must(gw_guest_add_disk(host->guest, disk, &err), &err);
    must(gw_target_new(&target, &tgt, &err), &err);
    return tgt;
}

static void add_devices(struct host *host, struct gw_source *src, struct gw_target *tgt)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_device_desc desc;
    gw_vfio_device_desc(host->end->vfio[0], &desc);
    for (unsigned i = 0; i <= gw_guest_device_count(host->guest); i++) {
        if (i > 0)
            gw_guest_device(host->guest, i - 1, &desc);
        must(src ? gw_source_add_device(src, &desc, &err) : gw_target_add_device(tgt, &desc, &err),
             &err);
    }
}

/* ---- the way ----------------------------------------------------------------------------------- */

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* One turn of both hosts' main threads, with what their devices do meanwhile. */
static void turn(struct opaque_scene *scene, struct host *hosts)
{
    unsigned writes = opaque_writes(scene, 3);
    struct pollfd fds[2];
    for (unsigned i = 0; i < 2; i++)
        fds[i] = (struct pollfd){.fd = gw_loop_fd(hosts[i].loop), .events = POLLIN};
    poll(fds, 2, 1);
    for (unsigned i = 0; i < 2; i++) {
        gw_dispatch(hosts[i].loop);
        if (hosts[i].runs)
            vendor_run(hosts[i].end->vendor[0], writes);
    }
}

static void expect_ended(struct opaque_scene *scene, struct gw_source *src, struct gw_target *tgt,
                         struct host *hosts)
{
    struct gw_error here = GW_ERROR_INIT, there = GW_ERROR_INIT;
    int source = -EINPROGRESS, target = -EINPROGRESS;
    uint64_t deadline = now_ms() + OPAQUE_STATE_S * UINT64_C(1000);
    while (now_ms() < deadline && (source == -EINPROGRESS || target == -EINPROGRESS)) {
        turn(scene, hosts);
        if (source == -EINPROGRESS)
            source = gw_source_wait(src, 0, &here);
        if (target == -EINPROGRESS)
            target = gw_target_wait(tgt, 0, &there);
    }
    GW_EXPECT_STREQ(here.message, "");
    GW_EXPECT_STREQ(there.message, "");
    GW_EXPECT_EQ(source, 0);
    GW_EXPECT_EQ(target, 0);
}

static const char *const ways[] = {"tcp_feature", "unix_staging", "ofi_feature", "rdma_staging",
                                   NULL};

GW_TEST_EACH(vfio_disk, memory_disk_and_a_gibibyte_of_device_arrive_from_a_running_guest, ways)
{
    struct opaque_scene scene = {.devices = 1};
    struct host hosts[2] = {{.end = &scene.src}, {.end = &scene.dst, .from = &scene.src}};
    struct gw_error err = GW_ERROR_INIT;
    struct gw_dirty *dirty = NULL;
    scene.config = opaque_config(opaque_state_bytes(param));
    scene.staging = strstr(param, "staging") != NULL;
    const char *uri = opaque_uri(&scene, param);
    struct gw_params *params = opaque_params(NULL);
    snprintf(disk, sizeof(disk), "/tmp/godwit-vfio-disk-%d", (int)getpid());
    for (unsigned i = 0; i < 2; i++) {
        opaque_device_open(&scene, hosts[i].end, 0);
        must(gw_loop_new(&hosts[i].loop, &err), &err);
    }
    struct gw_source *src = open_source(&hosts[0], params, &dirty);
    struct gw_target *tgt = open_target(&hosts[1], params);
    add_devices(&hosts[0], src, NULL);
    add_devices(&hosts[1], NULL, tgt);
    must(gw_target_listen(tgt, uri ? uri : loopback_any(), &err), &err);
    must(gw_source_start(src, gw_target_uri(tgt), &err), &err);
    expect_ended(&scene, src, tgt, hosts);
    GW_EXPECT(!hosts[0].runs && hosts[1].runs);

    /* It was judged as it arrived; now that it has run on, again. */
    for (uint64_t end = now_ms() + 200; hosts[1].runs && now_ms() < end;)
        turn(&scene, hosts);
    gw_guest_pause(hosts[1].guest);
    GW_EXPECT_EQ(gw_guest_verify(hosts[1].guest, &err), 0);
    GW_EXPECT_STREQ(err.message, "");
    GW_EXPECT_EQ(vendor_state(scene.src.vendor[0]), GW_ODEV_STOP);
    GW_EXPECT_EQ(vendor_state(scene.dst.vendor[0]), GW_ODEV_RUNNING);
    printf("  %llu bytes of device state\n", (unsigned long long)vendor_bytes(scene.dst.vendor[0]));

    gw_source_free(src);
    gw_target_free(tgt);
    gw_dirty_close(dirty);
    gw_params_free(params);
    for (unsigned i = 0; i < 2; i++) {
        gw_loop_free(hosts[i].loop);
        gw_guest_free(hosts[i].guest);
        opaque_end_close(&scene, hosts[i].end);
    }
}
