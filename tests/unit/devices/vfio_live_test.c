// SPDX-License-Identifier: MIT
/* The live phase and the way into the pause: how much is said to be left, when the target has to have
 * what first, and what a pause in between means. */
#include "tests/unit/devices/vfio_rig.h"

static uint64_t pending(struct rig *rig, bool exact)
{
    struct gw_device_pending p = {0};
    GW_EXPECT_EQ(gw_vfio_pending(rig->src.vfio, exact, &p, &rig->err), 0);
    return p.must_precopy_bytes;
}

static uint32_t acks_wanted(struct rig *rig)
{
    struct gw_device_pending p = {0};
    GW_EXPECT_EQ(gw_vfio_pending(rig->src.vfio, false, &p, &rig->err), 0);
    return p.acks_wanted;
}

static void end(struct rig *rig)
{
    rig_settle(rig, false);
    rig_expect_clean(rig);
    rig_close(rig);
}

GW_TEST(vfio_staging, pending_is_what_the_register_says)
{
    struct vendor_config config = rig_config();
    struct rig rig;
    rig_open(&rig, RIG_STAGING, &config, NULL);
    GW_EXPECT_EQ(rig_setup(&rig), 0);
    GW_EXPECT_EQ(pending(&rig, false), 16 + 12 * 4112);
    GW_EXPECT_EQ(pending(&rig, true), 16 + 12 * 4112);
    GW_EXPECT_EQ(rig_round(&rig, 1), 0);
    GW_EXPECT_EQ(pending(&rig, false), 16 + 12 * 4112 - (10000 - 32));
    end(&rig);
}

/* Who saves a snapshot asks for no estimates. With the number of before, iterating would never end. */
GW_TEST(vfio_staging, pending_is_read_anew_after_each_chunk)
{
    struct vendor_config config = rig_config();
    struct rig rig;
    int rc = 0;
    rig_open(&rig, RIG_STAGING, &config, NULL);
    GW_EXPECT_EQ(rig_setup(&rig), 0);
    GW_EXPECT_GT(pending(&rig, false), 0);
    for (unsigned i = 0; i < 100 && rc == 0; i++) {
        gw_writer_reset(&rig.w);
        rc = gw_vfio_save_iterate(rig.src.vfio, &rig.w, 1 << 20, &rig.err);
    }
    GW_EXPECT_EQ(rc, GW_DEVICE_DONE);
    end(&rig);
}

/* Cut by a section's length, a chunk is finished before anything else: the driver would take a read of
 * pending_bytes for the end of it. */
GW_TEST(vfio_staging, a_chunk_that_was_begun_outlives_an_estimate_and_the_pause)
{
    struct vendor_config config = rig_config();
    struct rig rig;
    rig_open(&rig, RIG_STAGING, &config, NULL);
    rig.bytes_max = 3000;
    GW_EXPECT_EQ(rig_setup(&rig), 0);
    GW_EXPECT_EQ(rig_round(&rig, 1), 0);
    GW_EXPECT_GT(pending(&rig, true), 0);
    GW_EXPECT_EQ(rig_round(&rig, 1), 0);
    int rc = rig_complete(&rig);
    rig_expect_moved(&rig, rc);
    rig_close(&rig);
}

GW_TEST(vfio_staging, an_empty_chunk_is_counted_and_warned_of_once)
{
    struct vendor_config config = rig_config();
    struct gw_staging_stats stats;
    struct rig rig;
    config.pending = VENDOR_PENDING_EMPTY;
    config.chunk = VENDOR_CHUNK_ODD;
    rig_open(&rig, RIG_STAGING, &config, NULL);
    rig.writes_a_round = 5;
    rig_expect_moved(&rig, rig_migrate(&rig));
    gw_staging_stats(rig.src.staging, &stats);
    GW_EXPECT_GT(stats.empty_chunks, 1);
    GW_EXPECT_EQ(rig.warnings, 1);
    GW_EXPECT(strstr(rig.warning, "bytes are pending, and its chunk is empty") != NULL);
    rig_close(&rig);
}

GW_TEST(vfio_staging, an_area_outside_of_the_window_is_not_used)
{
    struct vendor_config config = rig_config();
    struct gw_staging_stats stats;
    struct rig rig;
    config.section = VENDOR_AREAS;
    config.region_bytes = 40; /* thirds of eight bytes: the areas overlap */
    config.blocks = 1;
    rig_open(&rig, RIG_STAGING, &config, NULL);
    rig.rounds_max = 1;
    int rc = rig_migrate(&rig);
    gw_staging_stats(rig.src.staging, &stats);
    GW_EXPECT_EQ(stats.mapped_bytes, 0);
    GW_EXPECT(strstr(rig.warning, "mapped areas overlap or leave the region of 40 bytes") != NULL);
    rig_expect_moved(&rig, rc);
    rig_close(&rig);
}

/* ---- with a data descriptor ---------------------------------------------------------------------- */

GW_TEST(vfio_feature, what_is_read_is_taken_off_what_was_estimated)
{
    struct vendor_config config = rig_config();
    struct rig rig;
    rig_open(&rig, RIG_FEATURE, &config, NULL);
    rig.bytes_max = 512;
    GW_EXPECT_EQ(rig_setup(&rig), 0);
    GW_EXPECT_EQ(pending(&rig, false), 16 + 12 * 4112);
    GW_EXPECT_EQ(rig_round(&rig, 5), 0);
    GW_EXPECT_EQ(pending(&rig, false), 16 + 12 * 4112 - 5 * 512);
    end(&rig);
}

/* First off what is initial, the rest off what changed since; none twice. */
GW_TEST(vfio_feature, what_is_read_beyond_initial_data_is_taken_off_the_rest)
{
    struct vendor_config config = rig_config();
    struct rig rig;
    rig_open(&rig, RIG_FEATURE, &config, NULL);
    rig.bytes_max = 512;
    GW_EXPECT_EQ(rig_setup(&rig), 0);
    GW_EXPECT_EQ(rig_round(&rig, 80), 0);
    vendor_run(rig.src.vendor, 40);
    pending(&rig, true);
    uint64_t before = pending(&rig, false);
    GW_EXPECT_GT(before, 12 * 4112 - 80 * 512); /* some of it for the second time */
    for (unsigned i = 0; i < 40; i++) {
        gw_writer_reset(&rig.w);
        GW_EXPECT_EQ(gw_vfio_save_iterate(rig.src.vfio, &rig.w, 512, &rig.err), 0);
        before -= rig.w.bytes - 24;
        GW_EXPECT_EQ(pending(&rig, false), before);
    }
    gw_writer_reset(&rig.w);
    end(&rig);
}

GW_TEST(vfio_feature, what_the_pause_will_take_counts_when_it_matters)
{
    struct vendor_config config = rig_config();
    struct rig rig;
    rig_open(&rig, RIG_FEATURE, &config, NULL);
    GW_EXPECT_EQ(rig_setup(&rig), 0);
    GW_EXPECT_EQ(rig_round(&rig, 1000), 0);
    GW_EXPECT_EQ(pending(&rig, false), 0);
    GW_EXPECT_EQ(pending(&rig, true), 16 + 64 + 16); /* registers and the end */
    vendor_run(rig.src.vendor, 1);
    GW_EXPECT_EQ(pending(&rig, false), 0);
    GW_EXPECT_EQ(pending(&rig, true), 4112 + 4112 + 16 + 64 + 16);
    end(&rig);
}

/* 0 would pause the guest at once, for as long as it takes. */
GW_TEST(vfio_feature, a_size_that_is_unknown_counts_as_huge)
{
    struct vendor_config config = rig_config();
    struct rig rig;
    config.size = VENDOR_SIZE_UNKNOWN;
    rig_open(&rig, RIG_FEATURE, &config, NULL);
    GW_EXPECT_EQ(rig_setup(&rig), 0);
    GW_EXPECT_EQ(rig_round(&rig, 1000), 0);
    GW_EXPECT_EQ(pending(&rig, true), GW_VFIO_UNKNOWN_BYTES);
    end(&rig);
}

GW_TEST(vfio_feature, a_device_without_a_live_phase_sends_all_in_the_pause)
{
    struct vendor_config config = rig_config();
    struct gw_vfio_stats stats;
    struct rig rig;
    config.precopy = false;
    rig_open(&rig, RIG_FEATURE, &config, NULL);
    rig.bytes_max = 5000;
    GW_EXPECT_EQ(rig_setup(&rig), 0);
    GW_EXPECT_EQ(pending(&rig, false), 0);
    GW_EXPECT_EQ(pending(&rig, true), vendor_bytes(rig.src.vendor));
    GW_EXPECT_EQ(gw_vfio_save_iterate(rig.src.vfio, &rig.w, 65536, &rig.err), GW_DEVICE_DONE);
    GW_EXPECT_EQ(rig.w.bytes, 0);
    rig_expect_moved(&rig, rig_complete(&rig));
    gw_vfio_stats(rig.src.vfio, &stats);
    GW_EXPECT_EQ(stats.precopy_bytes, 0);
    GW_EXPECT_EQ(stats.stop_copy_bytes, vendor_bytes(rig.src.vendor));
    rig_close(&rig);
}

GW_TEST(vfio_feature, the_target_acknowledges_initial_data_once)
{
    struct vendor_config config = rig_config();
    struct gw_vfio_config options = {.switchover_ack = true};
    struct rig rig;
    rig_open(&rig, RIG_FEATURE, &config, &options);
    rig.writes_a_round = 3;
    GW_EXPECT(rig.dst.desc.ops->switchover_ack_needed(rig.dst.vfio));
    GW_EXPECT_EQ(rig_setup(&rig), 0);
    GW_EXPECT_EQ(acks_wanted(&rig), 1);
    rig.bytes_max = 40000;
    GW_EXPECT_EQ(rig_round(&rig, 1), 0);
    GW_EXPECT_EQ(rig.acks, 0);
    for (unsigned i = 0; i < 5; i++)
        GW_EXPECT_EQ(rig_round(&rig, 1000), 0);
    GW_EXPECT_EQ(rig.acks, 1);
    rig_expect_moved(&rig, rig_complete(&rig));
    GW_EXPECT_EQ(rig.acks, 1);
    rig_close(&rig);
}

/* Who is told that there is nothing does not iterate. */
GW_TEST(vfio_feature, the_end_of_initial_data_counts_until_it_is_sent)
{
    struct vendor_config config = rig_config();
    struct gw_vfio_config options = {.switchover_ack = true};
    struct rig rig;
    rig_open(&rig, RIG_FEATURE, &config, &options);
    GW_EXPECT_EQ(rig_setup(&rig), 0);
    for (unsigned i = 0; i < 1000 && rig.acks == 0; i++) {
        GW_EXPECT_GT(pending(&rig, false), 0);
        GW_EXPECT_EQ(rig_round(&rig, 1), 0);
    }
    GW_EXPECT_EQ(rig.acks, 1);
    GW_EXPECT_EQ(pending(&rig, false), 0);
    end(&rig);
}

/* A driver that has nothing now has not come to the end of it. */
GW_TEST(vfio_feature, initial_data_that_pauses_is_not_taken_for_sent)
{
    struct vendor_config config = rig_config();
    struct gw_vfio_config options = {.switchover_ack = true};
    struct rig rig;
    config.idle_every = 1;
    rig_open(&rig, RIG_FEATURE, &config, &options);
    GW_EXPECT_EQ(rig_setup(&rig), 0);
    GW_EXPECT_EQ(gw_vfio_save_iterate(rig.src.vfio, &rig.w, 65536, &rig.err), GW_DEVICE_DONE);
    GW_EXPECT_EQ(rig.w.bytes, 8);
    GW_EXPECT_EQ(rig_load(&rig, GW_DEVICE_PART), 0);
    GW_EXPECT_EQ(pending(&rig, false), 16 + 12 * 4112);
    end(&rig);
}

/* Nor is what is read besides. */
GW_TEST(vfio_feature, initial_data_that_never_ends_is_never_acknowledged)
{
    struct vendor_config config = rig_config();
    struct gw_vfio_config options = {.switchover_ack = true};
    struct rig rig;
    config.initial_never_ends = true;
    rig_open(&rig, RIG_FEATURE, &config, &options);
    rig.writes_a_round = 12;
    GW_EXPECT_EQ(rig_setup(&rig), 0);
    for (unsigned i = 0; i < 20; i++)
        GW_EXPECT_EQ(rig_round(&rig, 1000), 0);
    GW_EXPECT_EQ(rig.acks, 0);
    GW_EXPECT_GT(pending(&rig, true), 0);
    end(&rig);
}

GW_TEST(vfio_feature, a_second_batch_of_initial_data_asks_again)
{
    struct vendor_config config = rig_config();
    struct gw_vfio_config options = {.switchover_ack = true};
    struct rig rig;
    config.reinit = true;
    rig_open(&rig, RIG_FEATURE, &config, &options);
    GW_EXPECT_EQ(rig_setup(&rig), 0);
    GW_EXPECT_EQ(rig_round(&rig, 1000), 0);
    GW_EXPECT_EQ(rig.acks, 1);
    vendor_begin_again(rig.src.vendor);
    GW_EXPECT_GT(pending(&rig, true), 12 * 4112);
    GW_EXPECT_EQ(acks_wanted(&rig), 2);
    GW_EXPECT_EQ(rig_round(&rig, 1000), 0);
    GW_EXPECT_EQ(rig.acks, 2);
    rig_expect_moved(&rig, rig_complete(&rig));
    rig_close(&rig);
}

GW_TEST(vfio_feature, a_driver_that_gives_nothing_is_waited_for_and_given_up)
{
    struct vendor_config config = rig_config();
    struct rig rig;
    config.idle_every = 1;
    rig_open(&rig, RIG_FEATURE, &config, NULL);
    GW_EXPECT_EQ(rig_setup(&rig), 0);
    GW_EXPECT_EQ(gw_vfio_stop_all(&rig.src.vfio, 1, &rig.err), 0);
    GW_EXPECT_EQ(gw_vfio_save_complete(rig.src.vfio, &rig.w, 65536, &rig.err), -ETIMEDOUT);
    GW_EXPECT_STREQ(rig.err.message,
                    "device '0000:00:04.0/vfio': its driver gives nothing for 1000 ms");
    gw_writer_reset(&rig.w);
    end(&rig);
}

/* ---- paused by somebody else ----------------------------------------------------------------- */

GW_TEST(vfio_feature, a_guest_that_is_paused_in_the_midst_keeps_its_transfer)
{
    for (unsigned front = 0; front < 2; front++) {
        struct vendor_config config = rig_config();
        struct rig rig;
        rig_open(&rig, (enum rig_front)front, &config, NULL);
        rig.bytes_max = 3000;
        GW_EXPECT_EQ(rig_setup(&rig), 0);
        GW_EXPECT_EQ(rig_round(&rig, 2), 0);
        GW_EXPECT_EQ(gw_vfio_stop_all(&rig.src.vfio, 1, &rig.err), 0);
        GW_EXPECT_GT(pending(&rig, false), 0);
        GW_EXPECT_EQ(rig_round(&rig, 10), 0); /* no live phase any more */
        rig_expect_moved(&rig, rig_complete(&rig));
        rig_close(&rig);
    }
}

GW_TEST(vfio_feature, a_guest_that_runs_again_in_the_midst_fails_its_migration)
{
    struct vendor_config config = rig_config();
    struct rig rig;
    rig_open(&rig, RIG_FEATURE, &config, NULL);
    rig.bytes_max = 3000;
    GW_EXPECT_EQ(rig_setup(&rig), 0);
    GW_EXPECT_EQ(rig_round(&rig, 2), 0);
    GW_EXPECT_EQ(gw_vfio_stop_all(&rig.src.vfio, 1, &rig.err), 0);
    GW_EXPECT_EQ(gw_vfio_start_all(&rig.src.vfio, 1, &rig.err), 0);
    GW_EXPECT_EQ(gw_vfio_stop_all(&rig.src.vfio, 1, &rig.err), 0);
    GW_EXPECT_EQ(gw_vfio_save_complete(rig.src.vfio, &rig.w, 65536, &rig.err), -EPROTO);
    GW_EXPECT_STREQ(rig.err.message, "device '0000:00:04.0/vfio': it was started in mid-transfer: "
                                     "what was sent is void");
    end(&rig);
}

GW_TEST(vfio_feature, a_guest_that_is_paused_moves_whole)
{
    for (unsigned front = 0; front < 2; front++) {
        struct vendor_config config = rig_config();
        struct rig rig;
        rig_open(&rig, (enum rig_front)front, &config, NULL);
        GW_EXPECT_EQ(gw_vfio_stop_all(&rig.src.vfio, 1, &rig.err), 0);
        GW_EXPECT_EQ(vendor_state(rig.src.vendor), GW_ODEV_STOP);
        rig_expect_moved(&rig, rig_migrate(&rig));
        rig_close(&rig);
    }
}

/* All of its data goes in the pause, and the target waits for the end of initial data before that. */
GW_TEST(vfio_feature, a_guest_that_is_paused_tells_the_end_of_initial_data_once)
{
    for (unsigned live = 0; live < 2; live++) {
        struct vendor_config config = rig_config();
        struct gw_vfio_config options = {.switchover_ack = true};
        struct rig rig;
        config.precopy = live;
        rig_open(&rig, RIG_FEATURE, &config, &options);
        if (live)
            GW_EXPECT_EQ(gw_vfio_stop_all(&rig.src.vfio, 1, &rig.err), 0);
        GW_EXPECT(rig.dst.desc.ops->switchover_ack_needed(rig.dst.vfio));
        GW_EXPECT_EQ(rig_setup(&rig), 0);
        GW_EXPECT_EQ(acks_wanted(&rig), 1);
        GW_EXPECT_EQ(pending(&rig, false), 1);
        GW_EXPECT_EQ(rig_round(&rig, 10), 0);
        GW_EXPECT_EQ(rig.acks, 1);
        GW_EXPECT_EQ(pending(&rig, false), 0);
        GW_EXPECT_EQ(rig_round(&rig, 10), 0);
        rig_expect_moved(&rig, rig_complete(&rig));
        GW_EXPECT_EQ(rig.acks, 1);
        rig_close(&rig);
    }
}

GW_TEST(vfio_feature, a_device_that_was_not_stopped_is_not_completed)
{
    for (unsigned live = 0; live < 2; live++) {
        struct vendor_config config = rig_config();
        struct rig rig;
        uint8_t byte;
        config.precopy = live;
        rig_open(&rig, RIG_FEATURE, &config, NULL);
        GW_EXPECT_EQ(rig_setup(&rig), 0);
        GW_EXPECT_EQ(gw_vfio_save_raw(rig.src.vfio, &byte, 1, &rig.err), -EPROTO);
        GW_EXPECT_EQ(gw_vfio_save_complete(rig.src.vfio, &rig.w, 65536, &rig.err), -EPROTO);
        GW_EXPECT_STREQ(rig.err.message,
                        "device '0000:00:04.0/vfio': the guest's devices were not stopped: "
                        "gw_vfio_stop_all() belongs into pause()");
        GW_EXPECT_EQ(gw_vfio_state(rig.src.vfio), live ? GW_ODEV_PRE_COPY : GW_ODEV_RUNNING);
        gw_writer_reset(&rig.w);
        end(&rig);
    }
}
