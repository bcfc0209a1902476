// SPDX-License-Identifier: MIT
/* What a stock QEMU 7.2 wrote for devices with live queues (tests/qemu/virtio.py recorded it) is loaded, and
 * written back the same, byte for byte. Cut anywhere, it leaves a device that is reset. */
#define _GNU_SOURCE
#include "tests/shim/gw_test.h"
#include "tests/support/virtio_rig.h"

#include "devices/virtio/virtio_impl.h"

static const char *const scenes[] = {
    "mmio-legacy-blk", "mmio-blk",       "mmio-held-blk", "mmio-many-blk", "mmio-net", "pci-blk",
    "pci-many-blk",    "pci-packed-blk", "pcie-blk",      "pci-old-blk",   "pci-net",  NULL};

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

GW_TEST(virtio_golden, a_pin_follows_what_the_guest_has_not_acknowledged)
{
    GW_ASSERT_EQ(rig_init(&rig, rig_scene("pci-old-blk")), 0);
    body = rig_golden(&rig, GW_TEST_SOURCE, "pci-old-blk", &body_bytes);
    GW_ASSERT(body != NULL);
    body[312] = 1; /* isr; MSI-X is off */
    GW_EXPECT_EQ(rig_load(&rig, body, body_bytes, &left), 0);
    GW_EXPECT(rig.line && rig.messages == 0);
    body[4 + 0x43] |= 0x80; /* it is on: no line then */
    body[312] = 0;
    GW_EXPECT_EQ(rig_load(&rig, body, body_bytes, &left), 0);
    GW_EXPECT_EQ(rig.raises, 1);
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

/* QEMU 7.2 writes and reads the word of a packed ring's request at different places, so there is none of its
 * own; ours is behind a request in our encoding, and comes back. */
GW_TEST(virtio_golden, a_packed_rings_request_in_flight_comes_back)
{
    static const uint8_t request[] = {
        1,                                        /* there is one */
        0, 2, 0, 1, 0, 1,    0,    0, 0, 2,       /* head, in, out, descriptors */
        0, 0, 0, 0, 0, 0x10, 0x50, 0, 0, 0, 2, 0, /* in: 512 bytes */
        0, 0, 0, 0, 0, 0x10, 0x40, 0, 0, 0, 0, 16 /* out: 16 */
    };
    struct virtio_scene scene = *rig_scene("pci-packed-blk");
    struct gw_writer w;
    scene.flags = GW_VIRTIO_OWN_ELEMENTS;
    GW_ASSERT_EQ(rig_init(&rig, &scene), 0);
    body = rig_golden(&rig, GW_TEST_SOURCE, "pci-packed-blk", &body_bytes);
    GW_ASSERT(body != NULL);
    memmove(body + 400 + sizeof(request), body + 400, body_bytes - 400);
    memcpy(body + 400, request, sizeof(request));
    body_bytes += sizeof(request);
    uint8_t *packed = memmem(body, body_bytes, "virtio/packed_virtqueues", 24);
    GW_ASSERT(packed != NULL);
    packed[24 + 4 + 9] = 1; /* taken, not returned */
    GW_EXPECT_EQ(rig_load(&rig, body, body_bytes, &left), 0);
    GW_EXPECT_STREQ(rig.err.message, "");
    GW_EXPECT_EQ(gw_virtio_blk_held(rig.dev), 1);
    GW_EXPECT_EQ(gw_virtio_blk_step(rig.dev, 8, 8), 0); /* kept, not carried out */
    GW_EXPECT_EQ(rig_save(&rig, &w), 0);
    GW_EXPECT(w.bytes == body_bytes && memcmp(w.data, body, w.bytes) == 0);
    gw_writer_fini(&w);
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
