// SPDX-License-Identifier: MIT
/* Guests with opaque devices, moved whole: a gibibyte of state that changes while it is sent, behind either
 * interface, over real wires. The devices are the simulated vendor's; source and target are godwit's. */
#include "tests/shim/gw_test.h"
#include "tests/support/opaque_scene.h"

#include <errno.h>
#include <stdio.h>

static const char *const ways[] = {"tcp_staging",  "tcp_feature",  "unix_staging",
                                   "unix_feature", "ofi_staging",  "ofi_feature",
                                   "rdma_staging", "rdma_feature", NULL};

GW_TEST_EACH(vfio, a_gibibyte_of_state_that_changes_arrives, ways)
{
    uint64_t bytes = opaque_state_bytes(param);
    struct opaque_scene scene = {.config = opaque_config(bytes)};
    struct gw_vfio_stats stats;
    opaque_scene_init(&scene, param);
    GW_EXPECT(opaque_scene_finish(&scene, 2, OPAQUE_STATE_S));
    opaque_scene_expect_moved(&scene);
    gw_vfio_stats(scene.src.vfio[0], &stats);
    GW_EXPECT_GE(stats.precopy_bytes, bytes);
    GW_EXPECT_LT(stats.stop_copy_bytes, bytes / 4);
    printf("  of %llu bytes %llu while it ran, %llu in the pause, in %llu sections\n",
           (unsigned long long)bytes, (unsigned long long)stats.precopy_bytes,
           (unsigned long long)stats.stop_copy_bytes, (unsigned long long)stats.sections);
    opaque_scene_fini(&scene);
}

/* Without a live phase: far more than a section may have, and it arrives all the same. */
GW_TEST(vfio, state_that_goes_in_the_pause_alone_arrives_in_many_sections)
{
    struct opaque_scene scene = {.config = opaque_config(UINT64_C(160) << 20)};
    struct gw_vfio_stats stats;
    scene.config.precopy = false;
    scene.downtime_limit = "2000000";
    opaque_scene_init(&scene, "tcp_feature");
    GW_EXPECT(opaque_scene_finish(&scene, 1, 120));
    opaque_scene_expect_moved(&scene);
    gw_vfio_stats(scene.src.vfio[0], &stats);
    GW_EXPECT_EQ(stats.precopy_bytes, 0);
    GW_EXPECT_GT(stats.sections, 2);
    opaque_scene_fini(&scene);
}

GW_TEST(vfio, two_devices_that_write_into_each_other_stop_together)
{
    struct opaque_scene scene = {.devices = 2, .config = opaque_config(UINT64_C(16) << 20)};
    scene.ack = true;
    opaque_scene_init(&scene, "tcp_feature");
    GW_EXPECT_EQ(gw_vfio_check_all(scene.src.vfio, 2, NULL), 0);
    GW_EXPECT(opaque_scene_finish(&scene, 2, 60));
    opaque_scene_expect_moved(&scene);
    opaque_scene_fini(&scene);
}

/* The target takes its time with what must be there first; the source waits for its word. */
GW_TEST(vfio, a_slow_loader_of_initial_data_is_waited_for)
{
    struct opaque_scene scene = {.config = opaque_config(UINT64_C(4) << 20), .ack = true};
    struct gw_vfio_stats stats;
    scene.config.write_bytes_max = 512;
    scene.config.idle_every = 7;
    opaque_scene_init(&scene, "unix_feature");
    GW_EXPECT(opaque_scene_finish(&scene, 1, 120));
    opaque_scene_expect_moved(&scene);
    gw_vfio_stats(scene.src.vfio[0], &stats);
    GW_EXPECT_GE(stats.precopy_bytes, UINT64_C(4) << 20);
    opaque_scene_fini(&scene);
}

static bool has_gone_round(struct opaque_scene *scene)
{
    struct gw_stats stats = {.struct_bytes = sizeof(stats)};
    gw_source_stats(scene->pair.src, &stats);
    return stats.dirty_sync_count >= 20;
}

/* By design for as long as it takes: the guest runs on, and whoever has enough of it cancels. */
GW_TEST(vfio, initial_data_that_never_ends_keeps_the_guest_here_until_it_is_cancelled)
{
    struct opaque_scene scene = {.config = opaque_config(UINT64_C(4) << 20), .ack = true};
    struct pair *pair = &scene.pair;
    scene.config.initial_never_ends = true;
    opaque_scene_init(&scene, "tcp_feature");
    opaque_scene_begin(&scene);
    GW_EXPECT(opaque_scene_until(&scene, has_gone_round, 1, 60));
    GW_EXPECT_EQ(pair->pauses, 0);
    GW_EXPECT_EQ(vendor_state(scene.src.vendor[0]), GW_ODEV_PRE_COPY);
    GW_EXPECT_EQ(gw_source_cancel(pair->src), 0);
    GW_EXPECT(pair_finish(pair, 60));
    GW_EXPECT_EQ(pair->source_rc, -ECANCELED);
    GW_EXPECT_EQ(vendor_state(scene.src.vendor[0]), GW_ODEV_RUNNING);
    GW_EXPECT_EQ(vendor_state(scene.dst.vendor[0]), GW_ODEV_RUNNING); /* by a reset */
    opaque_scene_fini(&scene);
}

/* Its driver says that there is more than any pause allows, and gives nothing: section after section brings the
 * target nothing, which takes them all. The source is who sees that this ends nowhere. */
GW_TEST(vfio, a_device_that_always_has_more_and_gives_nothing_does_not_converge)
{
    struct opaque_scene scene = {.config = opaque_config(UINT64_C(4) << 20)};
    struct gw_vfio_stats stats;
    scene.config.pending = VENDOR_PENDING_NEVER;
    opaque_scene_init(&scene, "tcp_staging");
    GW_EXPECT_EQ(gw_source_set(scene.pair.src, "x-stall-action", "fail", NULL), 0);
    GW_EXPECT(opaque_scene_finish(&scene, 1, 60));
    opaque_scene_expect_failed(&scene, "MiB of it device state");
    GW_EXPECT_EQ(scene.pair.source_err.code, GW_CODE_NO_CONVERGENCE);
    GW_EXPECT_EQ(scene.pair.pauses, 0);
    gw_vfio_stats(scene.dst.vfio[0], &stats);
    GW_EXPECT_GT(stats.sections, 2);
    opaque_scene_fini(&scene);
}

/* ---- what fails ---------------------------------------------------------------------------------- */

GW_TEST_EACH(vfio, a_target_whose_driver_finds_it_invalid_never_runs, ways)
{
    struct opaque_scene scene = {.config = opaque_config(UINT64_C(8) << 20)};
    opaque_scene_init(&scene, param);
    vendor_break(scene.dst.vendor[0], VENDOR_FINDS_INVALID, 1, 1);
    GW_EXPECT(opaque_scene_finish(&scene, 2, 60));
    opaque_scene_expect_failed(&scene, "device '0000:00:04.0/vfio': state RESUMING to STOP");
    opaque_scene_fini(&scene);
}

GW_TEST_EACH(vfio, a_source_whose_driver_breaks_runs_on, ways)
{
    struct opaque_scene scene = {.config = opaque_config(UINT64_C(8) << 20)};
    opaque_scene_init(&scene, param);
    vendor_break(scene.src.vendor[0], scene.staging ? VENDOR_OFFSET_BEYOND : VENDOR_READ_FAILS, 2,
                 1);
    GW_EXPECT(opaque_scene_finish(&scene, 2, 60));
    opaque_scene_expect_failed(&scene, "device '0000:00:04.0/vfio': save: ");
    opaque_scene_fini(&scene);
}

GW_TEST(vfio, a_source_whose_device_cannot_stop_runs_on)
{
    struct opaque_scene scene = {.config = opaque_config(UINT64_C(8) << 20)};
    opaque_scene_init(&scene, "tcp_feature");
    vendor_break(scene.src.vendor[0], VENDOR_STATE_REFUSED, 3, 1); /* PRE_COPY, quiet, and this */
    GW_EXPECT(opaque_scene_finish(&scene, 2, 60));
    opaque_scene_expect_failed(&scene, "pause failed");
    opaque_scene_fini(&scene);
}

GW_TEST(vfio, state_of_a_device_of_another_size_is_refused)
{
    struct opaque_scene scene = {.config = opaque_config(UINT64_C(8) << 20)};
    scene.target_blocks = 1024;
    opaque_scene_init(&scene, "tcp_feature");
    GW_EXPECT(opaque_scene_finish(&scene, 2, 60));
    opaque_scene_expect_failed(&scene, "device '0000:00:04.0/vfio': state RESUMING to STOP");
    opaque_scene_fini(&scene);
}
