// SPDX-License-Identifier: MIT
/* Virtio devices with live queues, recorded here and now (virtio.py is the machine's guest): our device takes
 * QEMU's section, with the memory that came beside it, and writes the same bytes. Skipped where there is no
 * QEMU. tests/data/virtio is what one of them wrote. */
#include "tests/shim/gw_test.h"
#include "tests/support/virtio_rig.h"

#include <glob.h>
#include <sys/wait.h>
#include <unistd.h>

static char line[8192], folder[64];

static int run_line(void)
{
    int status = system(line);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

#define SHELL(...) (snprintf(line, sizeof(line), __VA_ARGS__), run_line())

static const char *const scenes[] = {
    "mmio-legacy-blk", "mmio-blk",       "mmio-held-blk", "mmio-many-blk", "mmio-net", "pci-blk",
    "pci-many-blk",    "pci-packed-blk", "pcie-blk",      "pci-old-blk",   "pci-net",  NULL};

/* The one file of this pattern in the folder, from @offset on. */
static uint8_t *read_file(const char *pattern, long offset, size_t *bytes)
{
    char path[256];
    glob_t found;
    snprintf(path, sizeof(path), "%s/x/%s", folder, pattern);
    GW_ASSERT_EQ(glob(path, 0, NULL, &found), 0);
    FILE *file = fopen(found.gl_pathv[0], "rb");
    globfree(&found);
    GW_ASSERT(file != NULL && fseek(file, offset, SEEK_SET) == 0);
    uint8_t *data = malloc(RIG_BODY_MAX);
    GW_ASSERT(data != NULL);
    *bytes = fread(data, 1, RIG_BODY_MAX, file);
    fclose(file);
    return data;
}

static void record(const char *scene)
{
    const char *godwit = getenv("GODWIT");
    strcpy(folder, "/tmp/godwit-qemu-XXXXXX");
    GW_ASSERT(mkdtemp(folder) != NULL);
    int status =
        SHELL("python3 '%s/tests/qemu/virtio.py' %s %s 2>/dev/null", GW_TEST_SOURCE, scene, folder);
    if (status == 77)
        GW_SKIP("no qemu-system-x86_64");
    GW_ASSERT_EQ(status, 0);
    GW_ASSERT_EQ(SHELL("'%s' analyze --verify --extract %s/x %s/stream >/dev/null",
                       godwit && godwit[0] ? godwit : GW_TEST_GODWIT, folder, folder),
                 0);
}

GW_TEST_EACH(qemu_virtio, our_device_takes_the_section_and_writes_the_same_bytes, scenes)
{
    struct virtio_rig rig;
    struct gw_writer w;
    size_t left, bytes, ram_bytes;
    record(param);
    GW_ASSERT_EQ(rig_init(&rig, rig_scene(param)), 0);
    uint8_t *ram = read_file("ram-0-*.bin", (long)RIG_MEMORY_AT, &ram_bytes);
    GW_ASSERT(ram_bytes >= RIG_MEMORY_BYTES);
    memcpy(rig.memory, ram, RIG_MEMORY_BYTES);
    uint8_t *body = read_file(
        strstr(param, "net") ? "device-*virtio-net.bin" : "device-*virtio-blk.bin", 0, &bytes);
    GW_EXPECT_EQ(rig_load(&rig, body, bytes, &left), 0);
    GW_EXPECT_STREQ(rig.err.message, "");
    GW_EXPECT_EQ(left, 0);
    GW_EXPECT(!gw_virtio_is_broken(rig.dev));
    GW_EXPECT_EQ(rig_save(&rig, &w), 0);
    GW_EXPECT(w.bytes == bytes && memcmp(w.data, body, bytes) == 0);
    gw_writer_fini(&w);
    free(body);
    free(ram);
    rig_fini(&rig);
    GW_EXPECT_EQ(SHELL("rm -rf '%s'", folder), 0);
}
