// SPDX-License-Identifier: MIT
/* Drivers that break, by name and number: the migration fails on the side that found it, the error says
 * whose device it was, the source's device runs on with its state whole, nothing is left open. */
#include "tests/unit/devices/vfio_rig.h"

struct broken {
    const char *name;
    enum vendor_fault fault;
    unsigned nth;
    bool at_target;
    bool live; /* struck while the guest runs; else in the pause */
    const char *says;
};

/* In the pause too: live data is over after a round or two. */
static const struct broken staging_broken[] = {
    {"reg_read_at_setup", VENDOR_REG_READ_FAILS, 1, false, true, "read device_state"},
    {"reg_read_pending", VENDOR_REG_READ_FAILS, 4, false, true, "Input/output error"},
    {"reg_read_size", VENDOR_REG_READ_FAILS, 7, false, true, "Input/output error"},
    {"reg_read_in_pause", VENDOR_REG_READ_FAILS, 2, false, false, "Input/output error"},
    {"reg_write_at_setup", VENDOR_REG_WRITE_FAILS, 1, false, true, "to device_state"},
    {"reg_write_in_pause", VENDOR_REG_WRITE_FAILS, 1, false, false, "to device_state"},
    {"reg_read_at_target", VENDOR_REG_READ_FAILS, 2, true, true, "read data_offset"},
    {"reg_write_at_target", VENDOR_REG_WRITE_FAILS, 1, true, true, "to data_size"},
    {"refused_at_setup", VENDOR_STATE_REFUSED, 1, false, true, "RUNNING to PRE_COPY"},
    {"middle_at_setup", VENDOR_STATE_MIDDLE, 1, false, true, "RUNNING to PRE_COPY"},
    {"error_at_setup", VENDOR_STATE_ERROR, 1, false, true, "it was left in ERROR, now in RUNNING"},
    {"refused_in_pause", VENDOR_STATE_REFUSED, 1, false, false, "PRE_COPY to STOP_COPY"},
    {"middle_in_pause", VENDOR_STATE_MIDDLE, 1, false, false, "PRE_COPY to STOP_COPY"},
    {"error_in_pause", VENDOR_STATE_ERROR, 1, false, false, "PRE_COPY to STOP_COPY"},
    {"refused_at_end_of_load", VENDOR_STATE_REFUSED, 1, true, false, "RESUMING to STOP"},
    {"invalid", VENDOR_FINDS_INVALID, 1, true, false, "RESUMING to STOP"},
    {"window_read", VENDOR_READ_FAILS, 3, false, true, "of the window"},
    {"window_read_in_pause", VENDOR_READ_FAILS, 1, false, false, "of the window"},
    {"window_write", VENDOR_WRITE_FAILS, 2, true, true, "of the window"},
    {"ends_early", VENDOR_ENDS_EARLY, 1, false, false, "RESUMING to STOP"},
    {"resets_itself", VENDOR_RESETS_ITSELF, 2, false, true, "of the window"},
    {"offset_low", VENDOR_OFFSET_LOW, 2, false, true, "data_offset 0x8 is outside of the window"},
    {"offset_at_end", VENDOR_OFFSET_AT_END, 1, false, true, "data_offset 0x2710 is outside"},
    {"offset_beyond", VENDOR_OFFSET_BEYOND, 1, false, false, "is outside of the window"},
    {"offset_low_at_target", VENDOR_OFFSET_LOW, 1, true, true, "is outside of the window"},
    {"offset_at_end_at_target", VENDOR_OFFSET_AT_END, 2, true, true, "is outside of the window"},
    {"size_beyond", VENDOR_SIZE_BEYOND, 2, false, true, "leaves the region of 0x2710"},
};

static const struct broken feature_broken[] = {
    {"refused_at_setup", VENDOR_STATE_REFUSED, 1, false, true, "RUNNING to PRE_COPY"},
    {"error_at_setup", VENDOR_STATE_ERROR, 1, false, true, "it was left in ERROR, now in RUNNING"},
    {"refused_quiet", VENDOR_STATE_REFUSED, 1, false, false, "PRE_COPY to PRE_COPY_P2P"},
    {"refused_in_pause", VENDOR_STATE_REFUSED, 2, false, false, "PRE_COPY_P2P to STOP_COPY"},
    {"middle_in_pause", VENDOR_STATE_MIDDLE, 2, false, false, "PRE_COPY_P2P to STOP_COPY"},
    {"error_in_pause", VENDOR_STATE_ERROR, 2, false, false, "PRE_COPY_P2P to STOP_COPY"},
    {"middle_at_end_of_load", VENDOR_STATE_MIDDLE, 1, true, false, "RESUMING to STOP"},
    {"invalid", VENDOR_FINDS_INVALID, 1, true, false, "RESUMING to STOP"},
    {"read", VENDOR_READ_FAILS, 2, false, true, "save: read its state: Input/output error"},
    {"read_in_pause", VENDOR_READ_FAILS, 1, false, false, "save: read its state"},
    {"write", VENDOR_WRITE_FAILS, 3, true, true, "load: write its state: Input/output error"},
    {"ends_early", VENDOR_ENDS_EARLY, 1, false, false, "RESUMING to STOP"},
    {"resets_itself", VENDOR_RESETS_ITSELF, 2, false, true, "save: read its state"},
};

static const char *const *names_of(const struct broken *list, size_t count, const char **names)
{
    for (size_t i = 0; i < count; i++)
        names[i] = list[i].name;
    return names;
}

static const char *const *staging_names(void)
{
    static const char *names[sizeof(staging_broken) / sizeof(staging_broken[0]) + 1];
    return names_of(staging_broken, sizeof(staging_broken) / sizeof(staging_broken[0]), names);
}

static const char *const *feature_names(void)
{
    static const char *names[sizeof(feature_broken) / sizeof(feature_broken[0]) + 1];
    return names_of(feature_broken, sizeof(feature_broken) / sizeof(feature_broken[0]), names);
}

static const struct broken *find(const struct broken *list, const char *name)
{
    while (strcmp(list->name, name) != 0)
        list++;
    return list;
}

/* Until it fails. What the guest's embedder and the library do then, is done. */
static void fail_one(struct rig *rig, const struct broken *b)
{
    struct vendor *victim = b->at_target ? rig->dst.vendor : rig->src.vendor;
    /* The target's device goes to RESUMING first: what strikes there strikes later. */
    int rc = b->at_target ? rig_setup(rig) : 0;
    if (b->live)
        vendor_break(victim, b->fault, b->nth, 1);
    if (rc == 0 && !b->at_target)
        rc = rig_setup(rig);
    for (unsigned i = 0; rc == 0 && i < 3; i++)
        rc = rig_round(rig, 1000);
    if (!b->live)
        vendor_break(victim, b->fault, b->nth, 1);
    GW_EXPECT_EQ(rc < 0, b->live);
    if (rc == 0)
        rc = rig_complete(rig);
    GW_EXPECT_LT(rc, 0);
    gw_writer_reset(&rig->w);
}

static void expect_failure(const struct broken *b, enum rig_front front)
{
    struct vendor_config config = rig_config();
    struct rig rig;
    config.chunk = VENDOR_CHUNK_ODD;
    rig_open(&rig, front, &config, NULL);
    rig.bytes_max = 8000;
    rig.writes_a_round = 4;
    fail_one(&rig, b);
    GW_EXPECT_EQ(rig.err.code, GW_CODE_DEVICE);
    GW_EXPECT_EQ(strncmp(rig.err.message, "device '0000:00:04.0/vfio': ", 28), 0);
    if (!strstr(rig.err.message, b->says))
        GW_NOTE_FAILURE("it says: %s", rig.err.message);
    rig_settle(&rig, false);
    GW_EXPECT_EQ(vendor_state(rig.src.vendor), GW_ODEV_RUNNING);
    GW_EXPECT_EQ(vendor_open_count(rig.src.vendor), 0);
    GW_EXPECT_EQ(vendor_open_count(rig.dst.vendor), 0);
    rig_expect_clean(&rig);

    /* Nothing of it stays: the same devices move when asked again. */
    rig.err = (struct gw_error)GW_ERROR_INIT;
    rig_expect_moved(&rig, rig_migrate(&rig));
    rig_close(&rig);
}

GW_TEST_EACH(vfio_staging, a_driver_that_breaks_fails_the_migration_alone, staging_names)
{
    expect_failure(find(staging_broken, param), RIG_STAGING);
}

GW_TEST_EACH(vfio_feature, a_driver_that_breaks_fails_the_migration_alone, feature_names)
{
    expect_failure(find(feature_broken, param), RIG_FEATURE);
}

/* The state register says that it failed: then a reset is what is left. */
GW_TEST(vfio_staging, a_device_that_says_it_failed_is_reset)
{
    struct vendor_config config = rig_config();
    struct rig rig;
    struct gw_vfio_stats stats;
    rig_open(&rig, RIG_STAGING, &config, NULL);
    GW_EXPECT_EQ(rig_setup(&rig), 0);
    vendor_break(rig.src.vendor, VENDOR_STATE_REFUSED, 1, 1);
    vendor_break(rig.src.vendor, VENDOR_STATE_READS_ERROR, 2, 1);
    GW_EXPECT_EQ(gw_vfio_stop_all(&rig.src.vfio, 1, &rig.err), -EBUSY);
    gw_vfio_stats(rig.src.vfio, &stats);
    GW_EXPECT_EQ(stats.resets, 1);
    GW_EXPECT_EQ(vendor_state(rig.src.vendor), GW_ODEV_RUNNING);
    rig_settle(&rig, false);
    rig_expect_clean(&rig);
    rig_close(&rig);
}

GW_TEST(vfio_fault, a_device_that_no_reset_brings_back_is_of_no_more_use)
{
    for (unsigned front = 0; front < 2; front++) {
        struct vendor_config config = rig_config();
        struct rig rig;
        rig_open(&rig, (enum rig_front)front, &config, NULL);
        GW_EXPECT_EQ(rig_setup(&rig), 0);
        vendor_break(rig.src.vendor, VENDOR_STATE_ERROR, 1, 1);
        vendor_break(rig.src.vendor, VENDOR_RESET_FAILS, 1, 1000);
        GW_EXPECT_EQ(gw_vfio_stop_all(&rig.src.vfio, 1, &rig.err), -EIO);
        GW_EXPECT_EQ(gw_vfio_state(rig.src.vfio), GW_ODEV_ERROR);
        GW_EXPECT(strstr(rig.err.hint, "take it out of the guest") != NULL);
        GW_EXPECT_EQ(gw_vfio_start_all(&rig.src.vfio, 1, &rig.err), -EINVAL);
        GW_EXPECT_LT(gw_vfio_save_complete(rig.src.vfio, &rig.w, 65536, &rig.err), 0);
        gw_vfio_save_cleanup(rig.src.vfio);
        rig.dst.desc.ops->load_cleanup(rig.dst.vfio);
        rig_expect_clean(&rig);
        rig_close(&rig);
    }
}

/* The device was reset in mid-transfer, and the next state would have begun another one. */
GW_TEST(vfio_feature, a_second_descriptor_ends_the_migration)
{
    struct vendor_config config = rig_config();
    struct rig rig;
    rig_open(&rig, RIG_FEATURE, &config, NULL);
    GW_EXPECT_EQ(rig_setup(&rig), 0);
    GW_EXPECT_EQ(vendor_feature_ops(rig.src.vendor)->reset(rig.src.vendor), 0);
    GW_EXPECT_EQ(gw_vfio_stop_all(&rig.src.vfio, 1, &rig.err), -EBADF);
    GW_EXPECT(strstr(rig.err.message, "it was reset in the midst of a transfer") != NULL);
    rig_settle(&rig, false);
    rig_expect_clean(&rig);
    rig_close(&rig);
}
