// SPDX-License-Identifier: MIT
/* What a stock QEMU 7.2 wrote for devices with live queues (tests/qemu/virtio.py recorded it) is loaded, and
 * written back the same, byte for byte. Cut anywhere, it leaves a device that is reset. */
#include "tests/shim/gw_test.h"
#include "tests/support/virtio_rig.h"

#include "devices/virtio/virtio_impl.h"

static const char *const scenes[] = {"mmio-legacy-blk", "mmio-blk", "mmio-held-blk",
                                     "mmio-many-blk",   "mmio-net", "pci-blk",
                                     "pci-packed-blk",  "pci-net",  NULL};

static struct virtio_rig rig;
static uint8_t *body;
static size_t body_bytes, left;

static int load_golden(const char *scene)
{
    GW_ASSERT_EQ(rig_init(&rig, rig_scene(scene)), 0);
    body = rig_golden(&rig, GW_TEST_SOURCE, scene, &body_bytes);
    GW_ASSERT(body != NULL);
    int rc = rig_load(&rig, body, body_bytes, &left);
    GW_EXPECT_STREQ(rig.err.message, "");
    return rc;
}

static void done(void)
{
    free(body);
    rig_fini(&rig);
}

GW_TEST_EACH(virtio_golden, a_recorded_section_is_written_back_the_same, scenes)
{
    GW_EXPECT_EQ(load_golden(param), 0);
    GW_EXPECT_EQ(left, 0);
    GW_EXPECT(!gw_virtio_is_broken(rig.dev));
    struct gw_writer w;
    GW_EXPECT_EQ(rig_save(&rig, &w), 0);
    GW_EXPECT_EQ(w.bytes, body_bytes);
    for (size_t i = 0; i < w.bytes && i < body_bytes; i++) {
        if (w.data[i] != body[i]) {
            gw_test_note(__FILE__, __LINE__, "byte %zu is %02x, and %02x was loaded", i, w.data[i],
                         body[i]);
            break;
        }
    }
    gw_writer_fini(&w);
    done();
}

GW_TEST(virtio_golden, a_live_queue_is_where_it_was)
{
    GW_EXPECT_EQ(load_golden("mmio-blk"), 0);
    const struct gw_virtqueue *vq = &rig.dev->queues[0];
    GW_EXPECT_EQ(vq->num, 16);
    GW_EXPECT_EQ(vq->last_avail, 3);
    GW_EXPECT_EQ(vq->used_idx, 3);
    GW_EXPECT_EQ(vq->shadow_avail, 5); /* two were offered, and not looked at */
    GW_EXPECT_EQ(vq->inuse, 0);
    GW_EXPECT_EQ(gw_virtio_endian(rig.dev), GW_VIRTIO_LITTLE);
    GW_EXPECT_EQ(gw_virtio_blk_step(rig.dev, 8, 8), 2);
    GW_EXPECT_EQ(vq->used_idx, 5);
    done();
}

GW_TEST(virtio_golden, a_request_that_was_held_is_held)
{
    GW_EXPECT_EQ(load_golden("mmio-held-blk"), 0);
    const struct gw_virtqueue *vq = &rig.dev->queues[0];
    GW_EXPECT_EQ(vq->last_avail, 6);
    GW_EXPECT_EQ(vq->used_idx, 5);
    GW_EXPECT_EQ(vq->inuse, 1);
    GW_EXPECT_EQ(gw_virtio_blk_held(rig.dev), 1);
    GW_EXPECT_EQ(gw_virtio_blk_step(rig.dev, 8, 8), 1);
    GW_EXPECT_EQ(vq->inuse, 0);
    done();
}

GW_TEST(virtio_golden, a_packed_ring_keeps_its_place)
{
    GW_EXPECT_EQ(load_golden("pci-packed-blk"), 0);
    const struct gw_virtqueue *vq = &rig.dev->queues[0];
    GW_EXPECT_EQ(vq->num, 8);
    GW_EXPECT_EQ(vq->last_avail, 6);
    GW_EXPECT_EQ(vq->used_idx, 6);
    GW_EXPECT(vq->last_avail_wrap == 1 && vq->used_wrap == 1);
    done();
}

/* Between two subsections it is a shorter section, which may be one; within a subsection's name, one with
 * something behind it, which is the next parser's to refuse. */
GW_TEST_EACH(virtio_golden, a_section_that_is_cut_leaves_the_device_reset, scenes)
{
    struct gw_writer fresh, w;
    GW_ASSERT_EQ(rig_init(&rig, rig_scene(param)), 0);
    GW_EXPECT_EQ(rig_save(&rig, &fresh), 0);
    body = rig_golden(&rig, GW_TEST_SOURCE, param, &body_bytes);
    GW_ASSERT(body != NULL);
    unsigned taken = 0;
    for (size_t bytes = 0; bytes < body_bytes; bytes += bytes < 700 ? 1 : 251) {
        uint8_t *cut = malloc(bytes + 1); /* so that a sanitizer sees what is read behind it */
        memcpy(cut, body, bytes);
        int rc = rig_load(&rig, cut, bytes, &left);
        free(cut);
        taken += rc == 0 && left == 0;
        if (rc == 0)
            continue;
        GW_EXPECT(rig.err.message[0] != '\0');
        GW_EXPECT_EQ(rig_save(&rig, &w), 0);
        GW_EXPECT(w.bytes == fresh.bytes && memcmp(w.data, fresh.data, w.bytes) == 0);
        gw_writer_fini(&w);
    }
    GW_EXPECT(taken <= 9);
    gw_writer_fini(&fresh);
    done();
}
