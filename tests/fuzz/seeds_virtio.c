// SPDX-License-Identifier: MIT
/* Inputs of fuzz-virtio: each section that was recorded (tests/data/virtio), what tests know to change in one,
 * and devices that a driver has at work here. */
#define _GNU_SOURCE
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/pack.h"
#include "tests/fuzz/seeds.h"
#include "tests/fuzz/virtio_input.h"
#include "tests/support/virtio_driver.h"

#include "devices/virtio/virtio_impl.h"

static struct virtio_rig rig;
static const struct virtio_scene *scene;
static uint8_t *body;
static size_t body_bytes;

/* ---- writing ----------------------------------------------------------------------------------- */

/* Of the memory, up to the last byte that is not zero. */
static size_t memory_used(void)
{
    size_t used = RIG_MEMORY_BYTES;
    while (used > 0 && rig.memory[used - 1] == 0)
        used--;
    return used;
}

/* What the section is for, which is what becomes of it. */
enum outcome { LOADS, BREAKS, REFUSED };

static struct virtio_scene scene_with(unsigned bits)
{
    struct virtio_scene with = *scene;
    with.flags = (bits & VIRTIO_INPUT_OWN ? GW_VIRTIO_OWN_ELEMENTS : 0) |
                 (bits & VIRTIO_INPUT_STANDARD ? GW_VIRTIO_STANDARD_RINGS : 0);
    with.endian = bits & VIRTIO_INPUT_BIG ? GW_VIRTIO_BIG : GW_VIRTIO_LITTLE;
    return with;
}

static void expect(const char *name, unsigned bits, enum outcome outcome)
{
    struct virtio_scene with = scene_with(bits);
    struct virtio_rig other;
    size_t left;
    FUZZ_MUST(rig_init(&other, &with) == 0);
    memcpy(other.memory, rig.memory, memory_used());
    int rc = rig_load(&other, body, body_bytes, &left);
    enum outcome is = rc < 0 || left > 0               ? REFUSED
                      : gw_virtio_is_broken(other.dev) ? BREAKS
                                                       : LOADS;
    if (is != outcome)
        fprintf(stderr, "%s: %d, %zu bytes left: %s\n", name, rc, left, other.err.message);
    FUZZ_MUST(is == outcome);
    rig_fini(&other);
}

static void write_input(const char *name, unsigned bits, enum outcome outcome)
{
    expect(name, bits, outcome);
    size_t memory = memory_used(), bytes = memory + body_bytes;
    uint8_t *whole = malloc(bytes + 1), *packed = malloc(VIRTIO_INPUT_HEAD + 2 * bytes);
    FUZZ_MUST(whole && packed && bytes <= VIRTIO_INPUT_MAX);
    memcpy(whole, rig.memory, memory);
    memcpy(whole + memory, body, body_bytes);
    packed[0] = (uint8_t)(bits | (unsigned)(scene - rig_scenes));
    packed[1] = (uint8_t)memory;
    packed[2] = (uint8_t)(memory >> 8);
    packed[3] = (uint8_t)(memory >> 16);
    seed("virtio", name, packed,
         VIRTIO_INPUT_HEAD + fuzz_pack(whole, bytes, packed + VIRTIO_INPUT_HEAD));
    free(whole);
    free(packed);
}

static void end(const char *name, unsigned bits, enum outcome outcome)
{
    write_input(name, bits, outcome);
    free(body);
    body = NULL;
    rig_fini(&rig);
}

/* ---- sections ---------------------------------------------------------------------------------- */

static const char *tree_path;

static void recorded(const char *name)
{
    scene = rig_scene(name);
    FUZZ_MUST(scene && rig_init(&rig, scene) == 0);
    body = rig_golden(&rig, tree_path, name, &body_bytes);
    FUZZ_MUST(body != NULL);
}

/* A device of ours, made with these bits; a driver may work on it before saved(). */
static void made(const char *name, unsigned bits)
{
    scene = rig_scene(name);
    struct virtio_scene with = scene_with(bits);
    FUZZ_MUST(rig_init(&rig, &with) == 0);
}

static void saved(void)
{
    struct gw_writer w;
    FUZZ_MUST(rig_save(&rig, &w) == 0);
    body = malloc(RIG_BODY_MAX);
    FUZZ_MUST(body != NULL);
    memcpy(body, w.data, w.bytes);
    body_bytes = w.bytes;
    gw_writer_fini(&w);
}

static void put(size_t at, unsigned bytes, uint64_t value) /* big-endian */
{
    for (unsigned i = 0; i < bytes; i++)
        body[at + i] = (uint8_t)(value >> 8 * (bytes - 1 - i));
}

static void insert(size_t at, const void *data, size_t bytes)
{
    FUZZ_MUST(body_bytes + bytes <= RIG_BODY_MAX);
    memmove(body + at + bytes, body + at, body_bytes - at);
    memcpy(body + at, data, bytes);
    body_bytes += bytes;
}

static void cut(size_t at, size_t bytes)
{
    memmove(body + at, body + at + bytes, body_bytes - at - bytes);
    body_bytes -= bytes;
}

static size_t values_of(const char *name)
{
    const uint8_t *at = memmem(body, body_bytes, name, strlen(name));
    FUZZ_MUST(at != NULL);
    return (size_t)(at - body) + strlen(name) + 4;
}

static void add_flag(const char *name, uint8_t value)
{
    uint8_t bytes[80] = {5, (uint8_t)strlen(name)};
    size_t used = 2 + strlen(name);
    snprintf((char *)bytes + 2, sizeof(bytes) - 2, "%s", name);
    bytes[used + 3] = 1; /* the version */
    bytes[used + 4] = value;
    insert(body_bytes, bytes, used + 5);
}

/* ---- common fields, subsections ------------------------------------------------------------------ */

enum { AT_STATUS = 12, AT_CONFIG_LEN = 20, AT_CONFIG = 24 }; /* on mmio */

static void seed_recorded(void)
{
    for (size_t i = 0; i < sizeof(rig_scenes) / sizeof(rig_scenes[0]); i++) {
        const char *name = rig_scenes[i].name;
        if (rig_scenes[i].queue_pairs > 0)
            continue; /* recorded nowhere */
        recorded(name);
        end(name, 0, LOADS);
    }
}

static void seed_subsections(void)
{
    recorded("mmio-legacy-blk");
    add_flag("virtio/broken", 1);
    end("broken", 0, BREAKS);
    recorded("mmio-legacy-blk");
    add_flag("virtio/disabled", 1);
    end("disabled", 0, LOADS);
    recorded("mmio-legacy-blk"); /* only the low half of its features comes */
    size_t at = values_of("virtio/64bit_features") - 4 - strlen("virtio/64bit_features") - 2;
    cut(at, 2 + strlen("virtio/64bit_features") + 4 + 8);
    end("low-features", 0, LOADS);
    recorded("mmio-blk");
    add_flag("virtio/device_endian", 1);
    end("little-endian", 0, LOADS);
    recorded("mmio-blk");
    put(AT_STATUS, 1, 0xb); /* not begun */
    end("before-driver-ok", 0, LOADS);
    recorded("mmio-legacy-blk");
    insert(AT_CONFIG + 57, "abc", 3);
    put(AT_CONFIG_LEN, 4, 60);
    end("longer-config", 0, LOADS);
    recorded("mmio-legacy-blk");
    cut(AT_CONFIG + 2, 55);
    put(AT_CONFIG_LEN, 4, 2);
    end("shorter-config", 0, LOADS);
}

/* ---- rings ------------------------------------------------------------------------------------- */

static void seed_rings(void)
{
    recorded("mmio-blk"); /* a device that its load breaks: a used ring outside of memory */
    put(values_of("virtio/virtqueues") + 8, 8, RIG_MEMORY_AT + RIG_MEMORY_BYTES - 4);
    end("ring-outside", 0, BREAKS);
    recorded("mmio-legacy-blk"); /* one that its guest breaks: more offered than the ring has */
    rig.memory[16 * 16 + 2] = 3 + 17;
    end("offers-too-much", 0, BREAKS);
    recorded("mmio-legacy-blk"); /* rings where the standard has them */
    put(89, 4, 4);
    rig.memory[292 + 4 + 2] = 3;
    end("standard-rings", VIRTIO_INPUT_STANDARD, LOADS);
}

/* A driver's requests: two that are held, one that is offered; @begin makes the driver. */
static void work(bool is_legacy, bool is_big)
{
    struct virtio_driver driver;
    driver_begin(&driver, &rig, is_legacy, UINT64_MAX);
    driver.is_big = is_big;
    driver_offer(&driver, 0, 1, 8, 0x5a);
    driver_offer(&driver, 1, 0, 8, 0);
    gw_virtio_blk_step(rig.dev, 2, 0);
    FUZZ_MUST(gw_virtio_blk_held(rig.dev) == 2);
    driver_offer(&driver, 2, 4, 0, 0);
    for (unsigned slot = 0; slot < 3; slot++)
        memset(rig_map(&rig, DRIVER_SLOT(slot) + 0x100, DRIVER_DATA), 0, DRIVER_DATA);
}

static void seed_work(void)
{
    made("mmio-legacy-blk", VIRTIO_INPUT_OWN | VIRTIO_INPUT_BIG);
    work(true, true);
    saved();
    write_input("big-endian-held", VIRTIO_INPUT_OWN | VIRTIO_INPUT_BIG, LOADS);
    add_flag("virtio/device_endian", 2); /* of a host that is not */
    end("big-endian-told", VIRTIO_INPUT_OWN, LOADS);
    made("mmio-blk", VIRTIO_INPUT_OWN);
    work(false, false);
    saved();
    end("held-our-way", VIRTIO_INPUT_OWN, LOADS);
    made("mmio-legacy-blk", 0);
    work(true, false);
    saved();
    end("held-qemus-way", 0, LOADS);
}

/* ---- pci --------------------------------------------------------------------------------------- */

enum { AT_PCI = 4, AT_PINS = 260, AT_PENDING = 308, AT_QUEUE_VECTOR = 398 };

static void seed_pci(void)
{
    recorded("pci-blk"); /* before version 2 there were no pins */
    put(0, 4, 1);
    cut(AT_PINS, 16);
    end("pci-version-1", 0, LOADS);
    recorded("pci-blk");
    body[AT_PENDING] = 3;
    put(AT_QUEUE_VECTOR, 2, GW_VIRTIO_NO_VECTOR);
    end("pci-pending", 0, LOADS);
    recorded("pci-blk");
    body[AT_PCI + 2] = 0x42;
    end("pci-other-function", 0, REFUSED);
}

/* ---- net --------------------------------------------------------------------------------------- */

enum {
    AT_MACS = 90 + 22,                         /* of mmio-net */
    AT_PAIRS = 36 + 9 * 18 + 22 + 512 + 4 + 7, /* of nine queues and no address */
};

static void seed_net(void)
{
    static const uint8_t macs[6 * 62], offloads[8] = {[7] = 0x0c};
    static const uint8_t rss[] = "\5\25virtio-net-device/rss\0\0\0\1\1\1\1\0\0\0\3\0\2\0\3";
    uint8_t table[40 + 4] = {[40 + 3] = 3};
    recorded("mmio-net");
    insert(AT_MACS, macs, sizeof(macs));
    put(AT_MACS - 4, 4, 65); /* more than are kept */
    end("net-filter-overflow", 0, LOADS);
    made("mmio-pairs-net", 0);
    saved();
    put(AT_PAIRS + 2, 2, 3); /* of four pairs, and what each has left to send */
    insert(AT_PAIRS + 4, "\0\0\0\1\0\0\0\2", 8);
    end("net-pairs", 0, LOADS);
    made("mmio-pairs-net", 0);
    saved();
    put(16, 4, 1u << GW_VIRTIO_NET_F_GUEST_OFFLOADS);
    put(values_of("virtio/64bit_features"), 8, 1u << GW_VIRTIO_NET_F_GUEST_OFFLOADS);
    insert(AT_PAIRS + 4, offloads, sizeof(offloads));
    end("net-offloads", 0, LOADS);
    made("mmio-pairs-net", 0);
    saved();
    insert(AT_PAIRS + 4, rss, sizeof(rss) - 1);
    insert(AT_PAIRS + 4 + sizeof(rss) - 1, table, sizeof(table));
    end("net-rss", 0, LOADS);
}

void seed_virtio(const char *tree)
{
    tree_path = tree;
    seed_recorded();
    seed_subsections();
    seed_rings();
    seed_work();
    seed_pci();
    seed_net();
}
