// SPDX-License-Identifier: MIT
/* A disk that works: what a guest writes is in the file, requests that were held or only offered when the
 * state was saved are carried out by the device that loaded it, and a guest that breaks its ring breaks its
 * device alone. */
#define _GNU_SOURCE
#include "tests/shim/gw_test.h"
#include "tests/support/virtio_driver.h"

#include "devices/virtio/virtio_impl.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#define FEATURES                                                                                   \
    (GW_VIRTIO_BIT(GW_VIRTIO_BLK_F_FLUSH) | GW_VIRTIO_BIT(GW_VIRTIO_BLK_F_SEG_MAX) |               \
     GW_VIRTIO_BIT(GW_VIRTIO_F_INDIRECT))

static struct virtio_rig a, b;
static struct virtio_driver driver;
static int disk = -1;
static const char *const buses[] = {"legacy", "modern", "modern_event_idx", "legacy_big_endian",
                                    NULL};

static struct virtio_scene scene_of(const char *bus)
{
    struct virtio_scene scene = {.bus = GW_VIRTIO_MMIO,
                                 .features = FEATURES,
                                 .queues = 1,
                                 .ring = 64,
                                 .fd = disk,
                                 .disk_bytes = 1 << 20};
    if (strncmp(bus, "legacy", 6) == 0)
        scene.bus = GW_VIRTIO_MMIO_LEGACY;
    else
        scene.features |= GW_VIRTIO_BIT(GW_VIRTIO_F_VERSION_1);
    if (strstr(bus, "event_idx"))
        scene.features |= GW_VIRTIO_BIT(GW_VIRTIO_F_EVENT_IDX);
    if (strstr(bus, "big"))
        scene.endian = GW_VIRTIO_BIG;
    return scene;
}

static void begin(const char *bus)
{
    disk = memfd_create("disk", 0);
    GW_ASSERT(disk > 0 && ftruncate(disk, 1 << 20) == 0);
    struct virtio_scene scene = scene_of(bus);
    GW_ASSERT_EQ(rig_init(&a, &scene), 0);
    driver_begin(&driver, &a, scene.bus == GW_VIRTIO_MMIO_LEGACY, UINT64_MAX);
    driver.is_big = scene.endian == GW_VIRTIO_BIG;
}

/* The guest moves: its memory, its device's state, its driver. */
static void migrate(const char *bus)
{
    struct gw_writer w;
    size_t left;
    struct virtio_scene scene = scene_of(bus);
    GW_ASSERT_EQ(rig_init(&b, &scene), 0);
    memcpy(b.memory, a.memory, RIG_MEMORY_BYTES);
    GW_ASSERT_EQ(rig_save(&a, &w), 0);
    GW_EXPECT_EQ(rig_load(&b, w.data, w.bytes, &left), 0);
    GW_EXPECT_STREQ(b.err.message, "");
    GW_EXPECT_EQ(left, 0);
    gw_writer_fini(&w);
    driver.rig = &b;
}

static void end(void)
{
    rig_fini(&a);
    rig_fini(&b);
    close(disk);
}

static bool disk_has(uint64_t sector, int fill)
{
    uint8_t data[DRIVER_DATA], want[DRIVER_DATA];
    memset(want, fill, sizeof(want));
    return pread(disk, data, sizeof(data), (off_t)sector * 512) == (ssize_t)sizeof(data) &&
           memcmp(data, want, sizeof(data)) == 0;
}

GW_TEST_EACH(virtio_blk, what_is_written_is_in_the_file_and_is_read_back, buses)
{
    begin(param);
    driver_offer(&driver, 0, 1, 8, 0x5a);
    GW_EXPECT_EQ(gw_virtio_blk_step(a.dev, 8, 8), 1);
    GW_EXPECT_EQ(driver_status(&driver, 0), 0);
    GW_EXPECT(disk_has(8, 0x5a));
    GW_EXPECT(a.line && a.raises == 1);
    driver_register(&driver, 0x64, 1);
    GW_EXPECT(!a.line);
    driver_offer(&driver, 0, 0, 8, 0);
    driver_offer(&driver, 1, 4, 0, 0);
    GW_EXPECT_EQ(gw_virtio_blk_step(a.dev, 8, 8), 2);
    GW_EXPECT_EQ(driver_used(&driver), 3);
    GW_EXPECT_EQ(driver_get(&driver, DRIVER_SLOT(0) + 0x100, 1), 0x5a);
    GW_EXPECT_EQ(driver_get(&driver, DRIVER_USED + 4 + 8 + 4, 4), DRIVER_DATA + 1);
    GW_EXPECT(a.wrote > 0);
    end();
}

/* virtio 1.2, 5.2.6.2: who cannot ask for a flush has every write on the disk when it is told of. A file that
 * takes whatever is written, and cannot be synchronised, tells one from the other. */
GW_TEST_EACH(virtio_blk, write_of_a_driver_without_flush_is_on_the_disk_when_it_is_done, buses)
{
    for (unsigned flush = 0; flush < 2; flush++) {
        disk = open("/dev/null", O_RDWR | O_CLOEXEC);
        GW_ASSERT(disk > 0 && fdatasync(disk) < 0);
        struct virtio_scene scene = scene_of(param);
        GW_ASSERT_EQ(rig_init(&a, &scene), 0);
        driver_begin(&driver, &a, scene.bus == GW_VIRTIO_MMIO_LEGACY,
                     flush ? UINT64_MAX : ~GW_VIRTIO_BIT(GW_VIRTIO_BLK_F_FLUSH));
        driver.is_big = scene.endian == GW_VIRTIO_BIG;
        driver_offer(&driver, 0, 1, 8, 0x5a);
        GW_EXPECT_EQ(gw_virtio_blk_step(a.dev, 8, 8), 1);
        GW_EXPECT_EQ(driver_status(&driver, 0), flush ? 0 : 1);
        rig_fini(&a);
        close(disk);
    }
}

GW_TEST_EACH(virtio_blk, requests_that_were_held_or_offered_are_carried_out_by_who_loads_them,
             buses)
{
    begin(param);
    for (unsigned slot = 0; slot < DRIVER_SLOTS; slot++)
        driver_offer(&driver, slot, 1, UINT64_C(2) * slot, (int)(0x10 + slot));
    GW_EXPECT_EQ(gw_virtio_blk_step(a.dev, 3, 1),
                 1); /* one is done, three are held, one is in the ring */
    GW_EXPECT_EQ(gw_virtio_blk_held(a.dev), 3);
    migrate(param);
    GW_EXPECT_EQ(gw_virtio_blk_held(b.dev), 3);
    GW_EXPECT_EQ(b.dev->queues[0].inuse, 3);
    GW_EXPECT(!disk_has(2, 0x11));
    GW_EXPECT_EQ(gw_virtio_blk_step(b.dev, 8, 8), 4);
    for (unsigned slot = 0; slot < DRIVER_SLOTS; slot++) {
        GW_EXPECT(disk_has(UINT64_C(2) * slot, (int)(0x10 + slot)));
        GW_EXPECT_EQ(driver_status(&driver, slot), 0);
    }
    GW_EXPECT_EQ(driver_used(&driver), DRIVER_SLOTS);
    driver_offer(&driver, 0, 0, 0, 0); /* and the guest goes on */
    GW_EXPECT_EQ(gw_virtio_blk_step(b.dev, 8, 8), 1);
    GW_EXPECT_EQ(driver_status(&driver, 0), 0);
    end();
}

GW_TEST(virtio_blk, saving_changes_nothing)
{
    struct gw_writer first, second;
    begin("modern");
    for (unsigned slot = 0; slot < 3; slot++)
        driver_offer(&driver, slot, 1, UINT64_C(2) * slot, 1);
    gw_virtio_blk_step(a.dev, 2, 0);
    GW_EXPECT_EQ(rig_save(&a, &first), 0);
    GW_EXPECT_EQ(rig_save(&a, &second), 0);
    GW_EXPECT(first.bytes == second.bytes && memcmp(first.data, second.data, first.bytes) == 0);
    GW_EXPECT_EQ(gw_virtio_blk_step(a.dev, 8, 8), 3);
    gw_writer_fini(&first);
    gw_writer_fini(&second);
    end();
}

GW_TEST(virtio_blk, a_legacy_big_endian_device_says_so)
{
    begin("legacy_big_endian");
    struct virtio_scene scene = scene_of("legacy"); /* at the target little is the default */
    struct gw_writer w;
    size_t left;
    a.dev->default_endian = GW_VIRTIO_LITTLE;
    driver_offer(&driver, 0, 1, 4, 7);
    GW_EXPECT_EQ(rig_save(&a, &w), 0);
    GW_EXPECT(memmem(w.data, w.bytes, "virtio/device_endian", 20) != NULL);
    GW_ASSERT_EQ(rig_init(&b, &scene), 0);
    memcpy(b.memory, a.memory, RIG_MEMORY_BYTES);
    GW_EXPECT_EQ(rig_load(&b, w.data, w.bytes, &left), 0);
    GW_EXPECT_EQ(gw_virtio_endian(b.dev), GW_VIRTIO_BIG);
    GW_EXPECT_EQ(gw_virtio_blk_step(b.dev, 8, 8), 1);
    GW_EXPECT(disk_has(4, 7));
    gw_writer_fini(&w);
    end();
}

GW_TEST(virtio_blk, own_elements_are_small_and_come_back)
{
    struct gw_writer w;
    size_t left;
    begin("modern");
    struct virtio_scene scene = scene_of("modern");
    scene.flags = GW_VIRTIO_OWN_ELEMENTS;
    a.dev->flags = GW_VIRTIO_OWN_ELEMENTS;
    driver_offer(&driver, 0, 1, 4, 7);
    gw_virtio_blk_step(a.dev, 8, 0);
    GW_EXPECT_EQ(rig_save(&a, &w), 0);
    GW_EXPECT(w.bytes < 49168);
    GW_ASSERT_EQ(rig_init(&b, &scene), 0);
    memcpy(b.memory, a.memory, RIG_MEMORY_BYTES);
    GW_EXPECT_EQ(rig_load(&b, w.data, w.bytes, &left), 0);
    GW_EXPECT_EQ(left, 0);
    GW_EXPECT_EQ(gw_virtio_blk_step(b.dev, 8, 8), 1);
    GW_EXPECT(disk_has(4, 7));
    gw_writer_fini(&w);
    end();
}

GW_TEST(virtio_blk, what_is_not_on_the_disk_or_not_known_has_its_status)
{
    begin("modern");
    driver_offer(&driver, 0, 1, (1 << 11) - 1, 1); /* two sectors, one is left */
    driver_offer(&driver, 1, 0, UINT64_MAX, 1);
    driver_offer(&driver, 2, 77, 0, 1);
    GW_EXPECT_EQ(gw_virtio_blk_step(a.dev, 8, 8), 3);
    GW_EXPECT_EQ(driver_status(&driver, 0), 1);
    GW_EXPECT_EQ(driver_status(&driver, 1), 1);
    GW_EXPECT_EQ(driver_status(&driver, 2), 2);
    GW_EXPECT(!gw_virtio_is_broken(a.dev));
    end();
}

GW_TEST(virtio_blk, requests_go_through_an_indirect_table)
{
    begin("modern");
    driver_offer(&driver, 0, 1, 4, 9);
    uint64_t table = DRIVER_SLOT(4);
    memcpy(rig_map(&a, table, 48), rig_map(&a, DRIVER_DESC, 48), 48);
    driver_desc(&driver, 0, table, 48, 4, 0);
    GW_EXPECT_EQ(gw_virtio_blk_step(a.dev, 8, 8), 1);
    GW_EXPECT(disk_has(4, 9));
    end();
}

/* ---- rings that make no sense ------------------------------------------------------------------- */

static const char *const wrongs[] = {"head_beyond_the_ring",
                                     "next_beyond_the_ring",
                                     "loop",
                                     "buffer_outside",
                                     "buffer_empty",
                                     "buffer_wraps",
                                     "write_before_read",
                                     "indirect_odd",
                                     "indirect_outside",
                                     "indirect_nested",
                                     "too_many_offered",
                                     "no_status",
                                     "no_header",
                                     NULL};

static void spoil(const char *how)
{
    driver_offer(&driver, 0, 1, 4, 9);
    if (strcmp(how, "head_beyond_the_ring") == 0)
        driver_put(&driver, DRIVER_AVAIL + 4, 2, DRIVER_RING);
    else if (strcmp(how, "next_beyond_the_ring") == 0)
        driver_desc(&driver, 0, DRIVER_SLOT(0), 16, 1, DRIVER_RING);
    else if (strcmp(how, "loop") == 0)
        driver_desc(&driver, 1, DRIVER_SLOT(0), 16, 1, 0);
    else if (strcmp(how, "buffer_outside") == 0)
        driver_desc(&driver, 1, RIG_MEMORY_AT + RIG_MEMORY_BYTES - 8, 16, 1, 2);
    else if (strcmp(how, "buffer_empty") == 0)
        driver_desc(&driver, 1, DRIVER_SLOT(0), 0, 1, 2);
    else if (strcmp(how, "buffer_wraps") == 0)
        driver_desc(&driver, 1, UINT64_MAX - 7, 16, 1, 2);
    else if (strcmp(how, "write_before_read") == 0)
        driver_desc(&driver, 0, DRIVER_SLOT(0), 16, 3, 1);
    else if (strcmp(how, "indirect_odd") == 0)
        driver_desc(&driver, 0, DRIVER_SLOT(4), 47, 4, 0);
    else if (strcmp(how, "indirect_outside") == 0)
        driver_desc(&driver, 0, RIG_MEMORY_AT + RIG_MEMORY_BYTES - 16, 32, 4, 0);
    else if (strcmp(how, "indirect_nested") == 0)
        driver_desc(&driver, 0, DRIVER_DESC, 16, 4, 0);
    else if (strcmp(how, "too_many_offered") == 0)
        driver_put(&driver, DRIVER_AVAIL + 2, 2, DRIVER_RING + 1);
    else if (strcmp(how, "no_status") == 0)
        driver_desc(&driver, 1, DRIVER_SLOT(0), 16, 0, 0);
    else if (strcmp(how, "no_header") == 0)
        driver_desc(&driver, 0, DRIVER_SLOT(0), 15, 0, 0);
}

GW_TEST_EACH(virtio_blk, a_ring_that_makes_no_sense_breaks_the_device_until_it_is_reset, wrongs)
{
    begin("modern");
    spoil(param);
    gw_virtio_blk_step(a.dev, 8, 8);
    GW_EXPECT(gw_virtio_is_broken(a.dev));
    GW_EXPECT(a.logs == 1);
    GW_EXPECT(gw_virtio_mmio_read(a.dev, 0x70, 4) & GW_VIRTIO_S_NEEDS_RESET);
    GW_EXPECT_EQ(gw_virtio_blk_step(a.dev, 8, 8), 0);
    migrate("modern"); /* which is no reason not to move */
    GW_EXPECT(gw_virtio_is_broken(b.dev));
    memset(b.memory, 0, RIG_MEMORY_BYTES);
    driver_begin(&driver, &b, false, UINT64_MAX);
    driver_offer(&driver, 0, 1, 4, 9);
    GW_EXPECT_EQ(gw_virtio_blk_step(b.dev, 8, 8), 1);
    GW_EXPECT(disk_has(4, 9));
    end();
}

GW_TEST(virtio_blk, a_queue_that_is_set_up_anew_forgets_what_it_held)
{
    begin("modern");
    driver_offer(&driver, 0, 1, 4, 9);
    gw_virtio_blk_step(a.dev, 8, 0);
    GW_EXPECT_EQ(gw_virtio_blk_held(a.dev), 1);
    driver_register(&driver, 0x44, 0);
    GW_EXPECT_EQ(gw_virtio_blk_held(a.dev), 0);
    GW_EXPECT_EQ(gw_virtio_blk_step(a.dev, 8, 8), 0);
    GW_EXPECT(!disk_has(4, 9));
    end();
}

GW_TEST(virtio_blk, features_that_are_not_offered_are_not_taken)
{
    begin("modern");
    driver_register(&driver, 0x70, 0);
    driver_register(&driver, 0x70, 3);
    driver_register(&driver, 0x24, 1);
    driver_register(&driver, 0x20, 1 | 1 << 4); /* version 1, and something else */
    driver_register(&driver, 0x70, 0xb);
    GW_EXPECT_EQ(gw_virtio_mmio_read(a.dev, 0x70, 4), 3);
    end();
}
