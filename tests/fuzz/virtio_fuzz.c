// SPDX-License-Identifier: MIT
/* A virtio device's section and the guest memory beside it, both a stranger's. The first byte picks the
 * device, three say how much of the rest is memory (the first of it, rings and all). Whatever loads saves,
 * loads again and is the same then, and works for a while; whatever does not says why. */
#include "tests/fuzz/fuzz.h"
#include "tests/support/virtio_rig.h"

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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct virtio_rig rig;
    size_t left;
    if (size < 4)
        return 0;
    const struct virtio_scene *chosen = &rig_scenes[data[0] % SCENES];
    struct virtio_scene scene = *chosen;
    scene.flags = data[0] & 0x80 ? GW_VIRTIO_OWN_ELEMENTS : 0;
    scene.offloads = 0x1c;
    size_t memory = (size_t)data[1] | (size_t)data[2] << 8 | (size_t)data[3] << 16;
    data += 4;
    size -= 4;
    memory = memory < size ? memory : size;
    memory = memory < RIG_MEMORY_BYTES ? memory : RIG_MEMORY_BYTES;
    if (rig_init(&rig, &scene) < 0)
        return 0;
    memcpy(rig.memory, data, memory);
    int rc = rig_load(&rig, data + memory, size - memory, &left);
    if (rc < 0) {
        fuzz_refused(rc, &rig.err);
    } else {
        expect_same(&rig);
        if (!scene.is_net)
            gw_virtio_blk_step(rig.dev, 16, 32);
    }
    rig_fini(&rig);
    return 0;
}
