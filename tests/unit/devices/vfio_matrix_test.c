// SPDX-License-Identifier: MIT
/* Whatever a driver may do: each way to reach the window, each place to stage at, each way to tell how
 * much is left, each size of a chunk. What arrives is what there was, and nobody broke the protocol. */
#include "tests/unit/devices/vfio_rig.h"

static const char *const sections[] = {"trapped", "one_area", "areas", "map_refused", NULL};

static unsigned index_of(const char *const *list, const char *name)
{
    for (unsigned i = 0; list[i]; i++)
        if (strcmp(list[i], name) == 0)
            return i;
    GW_FAIL("no such thing: %s", name);
}

static void move_one(const struct vendor_config *config, enum rig_front front)
{
    struct rig rig;
    rig_open(&rig, front, config, NULL);
    rig.writes_a_round = 5;
    if (config->chunk == VENDOR_CHUNK_BYTE)
        rig.rounds_max = 1;
    if (config->pending == VENDOR_PENDING_NEVER)
        rig.rounds_max = 2;
    rig_expect_moved(&rig, rig_migrate(&rig));
    if (gw_test_has_failed())
        GW_NOTE_FAILURE("section %d, offset %d, chunk %d, pending %d", config->section,
                        config->offset, config->chunk, config->pending);
    rig_close(&rig);
}

GW_TEST_EACH(vfio_staging, every_way_to_stage_arrives, sections)
{
    struct vendor_config config = rig_config();
    config.section = (enum vendor_section)index_of(sections, param);
    for (unsigned offset = 0; offset < VENDOR_OFFSET_COUNT_; offset++) {
        for (unsigned chunk = 0; chunk < VENDOR_CHUNK_COUNT_; chunk++) {
            for (unsigned pending = 0; pending < VENDOR_PENDING_COUNT_; pending++) {
                config.offset = (enum vendor_offset)offset;
                config.chunk = (enum vendor_chunk)chunk;
                config.pending = (enum vendor_pending)pending;
                config.seed = offset * 100 + chunk * 10 + pending;
                config.blocks = chunk == VENDOR_CHUNK_BYTE ? 1 : 12;
                move_one(&config, RIG_STAGING);
            }
        }
    }
}

GW_TEST(vfio_feature, every_kind_of_driver_arrives)
{
    struct vendor_config config = rig_config();
    for (unsigned kind = 0; kind < 64; kind++) {
        config.seed = kind;
        config.precopy = kind & 1;
        config.quiesce = kind & 2;
        config.idle_every = kind & 4 ? 3 : 0;
        config.write_bytes_max = kind & 8 ? 1000 : 0;
        config.size = (enum vendor_size)(kind >> 4);
        move_one(&config, RIG_FEATURE);
    }
}

GW_TEST(vfio_feature, one_byte_at_a_time_arrives)
{
    struct vendor_config config = rig_config();
    config.blocks = 1;
    config.write_bytes_max = 1;
    struct rig rig;
    rig_open(&rig, RIG_FEATURE, &config, NULL);
    rig.bytes_max = 1;
    rig.rounds_max = 1;
    rig_expect_moved(&rig, rig_migrate(&rig));
    rig_close(&rig);
}

GW_TEST(vfio_staging, a_smaller_and_a_larger_region_at_the_target_take_the_same)
{
    static const uint64_t regions[][2] = {{100000, 33}, {100000, 5000}, {300, 100000}};
    for (unsigned i = 0; i < 3; i++) {
        struct vendor_config config = rig_config();
        struct rig rig = {.err = GW_ERROR_INIT};
        config.blocks = 3;
        gw_writer_init(&rig.w, 64 << 20);
        config.region_bytes = regions[i][0];
        rig_side_open(&rig, &rig.src, RIG_STAGING, &config, NULL);
        config.region_bytes = regions[i][1];
        rig_side_open(&rig, &rig.dst, RIG_STAGING, &config, NULL);
        vendor_run(rig.src.vendor, 50);
        rig_expect_moved(&rig, rig_migrate(&rig));
        rig_close(&rig);
    }
}

GW_TEST(vfio_staging, a_chunk_that_straddles_mapped_areas_is_copied_in_pieces)
{
    struct vendor_config config = rig_config();
    struct gw_staging_stats stats;
    struct rig rig;
    config.section = VENDOR_AREAS;
    rig_open(&rig, RIG_STAGING, &config, NULL);
    rig_expect_moved(&rig, rig_migrate(&rig));
    gw_staging_stats(rig.src.staging, &stats);
    GW_EXPECT_GT(stats.mapped_bytes, 0);
    GW_EXPECT_LT(stats.mapped_bytes, stats.bytes);
    rig_close(&rig);
}

GW_TEST(vfio_staging, a_window_that_cannot_be_mapped_is_said_and_read)
{
    struct vendor_config config = rig_config();
    struct gw_staging_stats stats;
    struct rig rig;
    config.section = VENDOR_MAP_REFUSED;
    rig_open(&rig, RIG_STAGING, &config, NULL);
    rig_expect_moved(&rig, rig_migrate(&rig));
    GW_EXPECT(strstr(rig.warning, "map the window: Operation not permitted") != NULL);
    gw_staging_stats(rig.src.staging, &stats);
    GW_EXPECT_EQ(stats.mapped_bytes, 0);
    rig_close(&rig);
}
