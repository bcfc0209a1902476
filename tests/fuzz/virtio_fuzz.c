// SPDX-License-Identifier: MIT
/* A virtio device's section and the guest memory beside it, both a stranger's, packed (pack.h). The first byte
 * picks the device and how it was made, three say how much of the rest is memory (the first of it, rings and
 * all). Whatever loads saves, loads again and is the same then, and works for a while; whatever does not says
 * why. */
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/pack.h"
#include "tests/fuzz/virtio_input.h"
#include "tests/support/virtio_rig.h"

#include <fcntl.h>

#define SCENES (sizeof(rig_scenes) / sizeof(rig_scenes[0]))

/* Saved and loaded once more it is what it was. */
static void expect_same(struct virtio_rig *rig)
{
    struct gw_writer first, second;
    size_t left;
    FUZZ_MUST(rig_save(rig, &first) == 0);
    int rc = rig_load(rig, first.data, first.bytes, &left);
    /* What makes a device break itself is in the memory, and stands there still. */
    FUZZ_MUST(rc == 0 && left == 0);
    FUZZ_MUST(rig_save(rig, &second) == 0);
    FUZZ_MUST(first.bytes == second.bytes && memcmp(first.data, second.data, first.bytes) == 0);
    gw_writer_fini(&first);
    gw_writer_fini(&second);
}

static void load(const struct virtio_scene *scene, const uint8_t *memory, size_t memory_bytes,
                 const uint8_t *body, size_t bytes)
{
    struct virtio_rig rig;
    size_t left;
    if (rig_init(&rig, scene) < 0)
        return;
    memcpy(rig.memory, memory, memory_bytes);
    uint8_t *exact = malloc(bytes + 1); /* so that a sanitizer sees what is read behind it */
    memcpy(exact + 1, body, bytes);
    int rc = rig_load(&rig, exact + 1, bytes, &left);
    if (rc < 0) {
        fuzz_refused(rc, &rig.err);
    } else {
        expect_same(&rig);
        if (!scene->is_net)
            gw_virtio_blk_step(rig.dev, 16, 32);
    }
    free(exact);
    rig_fini(&rig);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t unpacked[VIRTIO_INPUT_MAX];
    static int disk = -1;
    if (size < VIRTIO_INPUT_HEAD)
        return 0;
    if (disk < 0)
        disk = open("/dev/zero", O_RDWR | O_CLOEXEC); /* takes and gives whatever is asked */
    struct virtio_scene scene = rig_scenes[(data[0] & VIRTIO_INPUT_SCENE) % SCENES];
    scene.flags = (data[0] & VIRTIO_INPUT_OWN ? GW_VIRTIO_OWN_ELEMENTS : 0) |
                  (data[0] & VIRTIO_INPUT_STANDARD ? GW_VIRTIO_STANDARD_RINGS : 0);
    scene.endian = data[0] & VIRTIO_INPUT_BIG ? GW_VIRTIO_BIG : GW_VIRTIO_LITTLE;
    scene.offloads = 0x1c;
    scene.fd = disk;
    size_t memory = (size_t)data[1] | (size_t)data[2] << 8 | (size_t)data[3] << 16;
    size_t bytes =
        fuzz_unpack(data + VIRTIO_INPUT_HEAD, size - VIRTIO_INPUT_HEAD, unpacked, sizeof(unpacked));
    memory = memory < bytes ? memory : bytes;
    memory = memory < RIG_MEMORY_BYTES ? memory : RIG_MEMORY_BYTES;
    load(&scene, unpacked, memory, unpacked + memory, bytes - memory);
    return 0;
}
