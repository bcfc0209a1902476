// SPDX-License-Identifier: MIT
/* What a stream may say of a virtio device, and what becomes of it: each test changes a recorded section in one
 * place. Whatever is refused says what, where and what bound, and leaves the device reset. */
#define _GNU_SOURCE
#include "tests/shim/gw_test.h"
#include "tests/support/virtio_rig.h"

#include "devices/virtio/virtio_impl.h"

/* Offsets in the section of mmio-legacy-blk, and of mmio-blk and mmio-held-blk up to what is held. */
enum {
    AT_SHIFT = 8,
    AT_STATUS = 12,
    AT_QUEUE_SEL = 14,
    AT_FEATURES = 16,
    AT_CONFIG_LEN = 20,
    AT_CONFIG = 24,
    AT_COUNT = 81,
    AT_NUM = 85,
    AT_ALIGN = 89,
    AT_DESC = 93,
    AT_LAST_AVAIL = 101,
    AT_HELD = 103, /* 1 or 0, then a request's image */
    AT_HEAD = 104,
    AT_OUT = 108,
    AT_IN = 112,
    AT_IN_ADDRESS = 120,
    AT_IN_LEN = 120 + 16384 + 8, /* each behind a base, which is 0 */
};
/* Of pci-blk. */
enum { AT_PCI = 4, AT_PINS = 260, AT_PENDING = 308, AT_VECTOR = 309, AT_QUEUE_VECTOR = 398 };
/* Of mmio-net, its own part. */
enum { AT_NET = 90, AT_MACS = AT_NET + 22 };
#define MEM_AVAIL (16 * 16)
#define MEM_USED 0x1000

static struct virtio_rig rig;
static uint8_t *body;
static size_t body_bytes, left;

static void begin_as(const struct virtio_scene *scene, const char *recorded)
{
    GW_ASSERT_EQ(rig_init(&rig, scene), 0);
    body = rig_golden(&rig, GW_TEST_SOURCE, recorded, &body_bytes);
    GW_ASSERT(body != NULL);
}

static void begin(const char *scene)
{
    begin_as(rig_scene(scene), scene);
}

static void end(void)
{
    free(body);
    rig_fini(&rig);
}

/* ---- changes ----------------------------------------------------------------------------------- */

static void put(size_t at, unsigned bytes, uint64_t value) /* big-endian */
{
    for (unsigned i = 0; i < bytes; i++)
        body[at + i] = (uint8_t)(value >> 8 * (bytes - 1 - i));
}

static void put_host(size_t at, unsigned bytes, uint64_t value) /* as in a request's image */
{
    memcpy(body + at, &value, bytes);
}

static void cut(size_t at, size_t bytes)
{
    memmove(body + at, body + at + bytes, body_bytes - at - bytes);
    body_bytes -= bytes;
}

static void insert(size_t at, const void *data, size_t bytes)
{
    GW_ASSERT(body_bytes + bytes <= RIG_BODY_MAX);
    memmove(body + at + bytes, body + at, body_bytes - at);
    memcpy(body + at, data, bytes);
    body_bytes += bytes;
}

/* Where a subsection's version is; its values are behind it. */
static size_t version_of(const char *name)
{
    const uint8_t *at = memmem(body, body_bytes, name, strlen(name));
    GW_ASSERT(at != NULL);
    return (size_t)(at - body) + strlen(name);
}

static size_t values_of(const char *name)
{
    return version_of(name) + 4;
}

static void cut_subsection(const char *name, size_t values)
{
    size_t at = version_of(name) - strlen(name) - 2;
    cut(at, 2 + strlen(name) + 4 + values);
}

static void add_subsection(const char *name, uint32_t version, const void *values, size_t bytes)
{
    uint8_t head[80] = {5, (uint8_t)strlen(name)};
    size_t used = 2 + strlen(name);
    snprintf((char *)head + 2, sizeof(head) - 2, "%s", name);
    head[used + 3] = (uint8_t)version;
    insert(body_bytes, head, used + 4);
    insert(body_bytes, values, bytes);
}

/* ---- judgement --------------------------------------------------------------------------------- */

static void expect_reset(void)
{
    const struct gw_virtio *dev = rig.dev;
    GW_EXPECT_EQ(dev->status, 0);
    GW_EXPECT_EQ(dev->guest_features, 0);
    GW_EXPECT(!dev->broken && !dev->started && dev->queue_sel == 0);
    for (unsigned n = 0; n < dev->queue_count; n++)
        GW_EXPECT(dev->queues[n].desc == 0 && dev->queues[n].num == dev->queues[n].num_default);
    if (dev->type->held)
        GW_EXPECT_EQ(dev->type->held(dev, 0), 0);
}

static void refused(int rc, const char *text)
{
    GW_EXPECT_EQ(rig_load(&rig, body, body_bytes, &left), rc);
    if (!strstr(rig.err.message, text))
        GW_EXPECT_STREQ(rig.err.message, text);
    GW_EXPECT_EQ(rig.err.code, GW_CODE_DEVICE);
    expect_reset();
    end();
}

/* Loads whole; the device is broken, or not. The caller ends. */
static void accepted(bool broken)
{
    GW_EXPECT_EQ(rig_load(&rig, body, body_bytes, &left), 0);
    GW_EXPECT_STREQ(rig.err.message, "");
    GW_EXPECT_EQ(left, 0);
    GW_EXPECT_EQ(gw_virtio_is_broken(rig.dev), broken);
}

/* ---- common fields ----------------------------------------------------------------------------- */

GW_TEST(virtio_hostile, the_selected_queue_is_below_1024)
{
    begin("mmio-legacy-blk");
    put(AT_QUEUE_SEL, 2, 1024);
    refused(GW_VIRTIO_RANGE, "field 'queue_sel': 1024, at most 1023");
}

GW_TEST(virtio_hostile, a_negative_config_len_is_refused_before_it_is_read)
{
    begin("mmio-legacy-blk");
    put(AT_CONFIG_LEN, 4, UINT32_MAX);
    refused(GW_VIRTIO_RANGE, "field 'config_len': -1, at most 65536");
    begin("mmio-legacy-blk");
    put(AT_CONFIG_LEN, 4, 65537);
    refused(GW_VIRTIO_RANGE, "field 'config_len': 65537, at most 65536");
}

GW_TEST(virtio_hostile, a_longer_configuration_is_cut_and_a_shorter_one_leaves_the_tail)
{
    begin("mmio-legacy-blk");
    insert(AT_CONFIG + 57, "abc", 3);
    put(AT_CONFIG_LEN, 4, 60);
    accepted(false);
    GW_EXPECT(memcmp(rig.dev->config, body + AT_CONFIG, 57) == 0);
    end();
    begin("mmio-legacy-blk");
    cut(AT_CONFIG + 2, 55);
    put(AT_CONFIG_LEN, 4, 2);
    accepted(false);
    GW_EXPECT_EQ(rig.dev->config[1], 8);    /* of the source */
    GW_EXPECT_EQ(rig.dev->config[12], 254); /* of the device here: seg_max */
    end();
}

GW_TEST(virtio_hostile, there_are_at_most_1024_queues_and_no_more_than_here)
{
    begin("mmio-legacy-blk");
    put(AT_COUNT, 4, 1025);
    refused(GW_VIRTIO_RANGE, "field 'queue_count': 1025, at most 1024");
    begin("mmio-legacy-blk");
    put(AT_COUNT, 4, 2);
    refused(GW_VIRTIO_MISMATCH, "field 'queue_count': 2, and this device has 1");
}

GW_TEST(virtio_hostile, a_ring_has_a_power_of_two_of_at_most_1024_entries)
{
    begin("mmio-legacy-blk");
    put(AT_NUM, 4, 2048);
    refused(GW_VIRTIO_RANGE, "field 'queues[0]': num is 2048, at most 1024");
    begin("mmio-legacy-blk");
    put(AT_NUM, 4, 15);
    refused(GW_VIRTIO_RANGE, "num is 15, no power of two");
    begin("pci-blk"); /* no larger than it is here */
    put(384, 4, 512);
    refused(GW_VIRTIO_RANGE, "num is 512, at most 256");
    begin("pci-packed-blk"); /* a packed ring may, but the guest has not taken that */
    put(384, 4, 7);
    put(values_of("virtio/64bit_features"), 4, 1);
    refused(GW_VIRTIO_RANGE, "num is 7, no power of two");
}

GW_TEST(virtio_hostile, an_index_without_a_ring_is_refused)
{
    begin("mmio-legacy-blk");
    put(AT_DESC, 8, 0);
    refused(GW_VIRTIO_INVALID, "last_avail_idx is 3 without a ring");
}

GW_TEST(virtio_hostile, addresses_do_not_overflow)
{
    begin("mmio-legacy-blk");
    put(AT_DESC, 8, UINT64_MAX - 255);
    refused(GW_VIRTIO_RANGE, "field 'queues[0]': desc at 0xffffffffffffff00");
    begin("mmio-legacy-blk"); /* its used ring alone */
    put(AT_DESC, 8, UINT64_MAX - 0x1ff);
    refused(GW_VIRTIO_RANGE, "overflow");
    begin("mmio-blk");
    put(values_of("virtio/virtqueues"), 8, UINT64_MAX - 1);
    refused(GW_VIRTIO_RANGE, "avail at 0xfffffffffffffffe");
    begin("mmio-blk");
    put(values_of("virtio/virtqueues") + 8, 8, UINT64_MAX - 3);
    refused(GW_VIRTIO_RANGE, "used at 0xfffffffffffffffc");
}

GW_TEST(virtio_hostile, a_ring_outside_of_memory_breaks_the_device)
{
    begin("mmio-legacy-blk");
    put(AT_DESC, 8, 0x900000);
    accepted(true);
    end();
    begin("mmio-blk");
    put(values_of("virtio/virtqueues") + 8, 8, RIG_MEMORY_AT + RIG_MEMORY_BYTES - 4);
    accepted(true);
    GW_EXPECT(rig.dev->status & GW_VIRTIO_S_NEEDS_RESET);
    end();
}

GW_TEST(virtio_hostile, a_ring_that_is_not_aligned_breaks_the_device)
{
    begin("mmio-blk");
    put(AT_DESC, 8, RIG_MEMORY_AT + 8);
    accepted(true);
    end();
    begin("mmio-blk");
    put(values_of("virtio/virtqueues"), 8, RIG_MEMORY_AT + 0x101);
    accepted(true);
    end();
    begin("mmio-blk");
    put(values_of("virtio/virtqueues") + 8, 8, RIG_MEMORY_AT + 0x1002);
    accepted(true);
    end();
}

GW_TEST(virtio_hostile, an_alignment_is_a_power_of_two_up_to_a_mebibyte)
{
    static const uint32_t wrong[] = {0, 3, 1u << 21};
    for (unsigned i = 0; i < 3; i++) {
        begin("mmio-legacy-blk");
        put(AT_ALIGN, 4, wrong[i]);
        refused(GW_VIRTIO_RANGE, "a power of two up to 1048576 is taken");
    }
    begin("mmio-legacy-blk"); /* 0 will do where there is no ring */
    put(AT_ALIGN, 4, 0);
    put(AT_DESC, 8, 0);
    put(AT_LAST_AVAIL, 2, 0);
    accepted(false);
    end();
}

/* Not hostile, but odd: with so small an alignment the standard's used ring begins four bytes later. */
GW_TEST(virtio_hostile, a_legacy_used_ring_is_where_qemu_has_it_or_where_the_standard_has_it)
{
    struct virtio_scene scene = *rig_scene("mmio-legacy-blk");
    for (unsigned i = 0; i < 2; i++) {
        scene.flags = i == 0 ? 0 : GW_VIRTIO_STANDARD_RINGS;
        begin_as(&scene, "mmio-legacy-blk");
        put(AT_ALIGN, 4, 4);
        rig.memory[292 + 4 * i + 2] = 3; /* its used index */
        accepted(false);
        GW_EXPECT_EQ(rig.dev->queues[0].used, RIG_MEMORY_AT + 292 + 4 * i);
        GW_EXPECT_EQ(rig.logs, 1);
        end();
    }
}

GW_TEST(virtio_hostile, a_page_shift_is_at_most_31)
{
    begin("mmio-legacy-blk");
    put(AT_SHIFT, 4, 64);
    refused(GW_VIRTIO_RANGE, "field 'guest_page_shift': 64, at most 31");
}

/* ---- indices ----------------------------------------------------------------------------------- */

GW_TEST(virtio_hostile, a_guest_that_offers_more_than_the_ring_breaks_its_device)
{
    begin("mmio-legacy-blk");
    rig.memory[MEM_AVAIL + 2] = 3 + 17;
    accepted(true);
    GW_EXPECT(rig.dev->queues[0].inuse == 0 && rig.dev->queues[0].used_idx == 0);
    end();
}

GW_TEST(virtio_hostile, a_source_that_has_taken_more_than_the_ring_is_refused)
{
    begin("mmio-legacy-blk");
    rig.memory[MEM_USED + 2] = 4;
    refused(GW_VIRTIO_INVALID, "last_avail_idx 3 is 65535 ahead of used_idx 4, of 16");
}

GW_TEST(virtio_hostile, a_packed_rings_place_is_in_the_ring)
{
    static const struct {
        unsigned at, bytes;
        uint32_t value;
    } wrong[] = {{0, 2, 8}, {2, 1, 2}, {3, 2, 8}, {5, 1, 255}, {6, 4, 9}};
    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        begin("pci-packed-blk");
        put(values_of("virtio/packed_virtqueues") + wrong[i].at, wrong[i].bytes, wrong[i].value);
        refused(GW_VIRTIO_INVALID, wrong[i].bytes == 1 ? "wrap counters" : "field 'queues[0]'");
    }
}

GW_TEST(virtio_hostile, a_list_of_queues_ends_before_one_without_entries)
{
    begin("mmio-many-blk");
    put(AT_NUM + 18, 4, 0); /* the second of four */
    refused(GW_VIRTIO_INVALID, "field 'queues[1]': num is 0");
}

/* ---- features, byte order ----------------------------------------------------------------------- */

GW_TEST(virtio_hostile, features_that_are_not_offered_are_refused_with_both_sets)
{
    struct virtio_scene scene = *rig_scene("mmio-legacy-blk");
    scene.features &= ~GW_VIRTIO_BIT(9);
    begin_as(&scene, "mmio-legacy-blk");
    refused(GW_VIRTIO_FEATURES, "the guest has taken 0x200, 0x100300e0004 is offered here");
    scene = *rig_scene("mmio-blk"); /* which offers nothing of the upper half */
    scene.bus = GW_VIRTIO_MMIO_LEGACY;
    scene.features &= UINT32_MAX;
    begin_as(&scene, "mmio-blk");
    put(AT_CONFIG_LEN, 4, 57);
    refused(GW_VIRTIO_FEATURES, "0x100000000 is missing");
}

GW_TEST(virtio_hostile, an_upper_half_that_did_not_come_is_zero)
{
    begin("mmio-legacy-blk");
    cut_subsection("virtio/64bit_features", 8);
    accepted(false);
    GW_EXPECT_EQ(rig.dev->guest_features, 0x200);
    end();
}

GW_TEST(virtio_hostile, the_two_lower_halves_are_the_same)
{
    begin("mmio-legacy-blk");
    put(AT_FEATURES, 4, 0x204);
    refused(GW_VIRTIO_INVALID, "its low half is 0x200, and 0x204 came before");
}

GW_TEST(virtio_hostile, feature_30_is_taken_if_it_is_offered_and_told_once)
{
    struct virtio_scene scene = *rig_scene("mmio-legacy-blk");
    scene.features |= GW_VIRTIO_BIT(GW_VIRTIO_F_BAD_LEGACY);
    begin_as(&scene, "mmio-legacy-blk");
    put(AT_FEATURES, 4, 0x40000200);
    put(values_of("virtio/64bit_features") + 4, 4, 0x40000200);
    accepted(false);
    GW_EXPECT_EQ(rig.logs, 1);
    end();
}

GW_TEST(virtio_hostile, a_byte_order_is_little_or_big_and_little_with_version_1)
{
    begin("mmio-legacy-blk");
    add_subsection("virtio/device_endian", 1, "\0", 1);
    refused(GW_VIRTIO_INVALID, "field 'device_endian': 0 is neither little (1) nor big (2)");
    begin("mmio-legacy-blk");
    add_subsection("virtio/device_endian", 1, "\3", 1);
    refused(GW_VIRTIO_INVALID, "3 is neither");
    begin("mmio-blk");
    add_subsection("virtio/device_endian", 1, "\2", 1);
    refused(GW_VIRTIO_INVALID, "big, and the guest has taken version 1");
    begin("mmio-blk");
    add_subsection("virtio/device_endian", 1, "\1", 1);
    accepted(false);
    end();
}

/* ---- subsections ------------------------------------------------------------------------------- */

GW_TEST(virtio_hostile, a_subsection_is_known_comes_once_and_has_version_1)
{
    begin("mmio-legacy-blk");
    body[version_of("virtio/started") - 1] = 'x';
    refused(GW_VIRTIO_UNKNOWN, "subsection 'virtio/startex' is not known here");
    begin("mmio-legacy-blk");
    add_subsection("virtio/started", 1, "\1", 1);
    refused(GW_VIRTIO_INVALID, "comes twice");
    begin("mmio-legacy-blk");
    put(version_of("virtio/started"), 4, 2);
    refused(GW_VIRTIO_INVALID, "version 2 arrived, 1 to 1 are taken here");
}

GW_TEST(virtio_hostile, what_is_no_subsection_of_ours_is_left_for_the_next_parser)
{
    begin("mmio-legacy-blk");
    add_subsection("", 1, "\1", 1);
    GW_EXPECT_EQ(rig_load(&rig, body, body_bytes, &left), 0);
    GW_EXPECT_EQ(left, 7); /* which must be none at a section's end, says who reads sections */
    end();
    begin("mmio-legacy-blk");
    add_subsection("virtue/started", 1, "\1", 1);
    GW_EXPECT_EQ(rig_load(&rig, body, body_bytes, &left), 0);
    GW_EXPECT_EQ(left, 21);
    end();
}

GW_TEST(virtio_hostile, extra_state_needs_a_transport_that_has_some)
{
    begin("mmio-blk");
    static struct gw_virtio_transport_ops bus;
    bus = *rig.dev->bus;
    bus.extra = NULL;
    rig.dev->bus = &bus;
    refused(GW_VIRTIO_UNKNOWN, "field 'extra_state': the transport 'virtio-mmio' has none here");
}

GW_TEST(virtio_hostile, what_a_guests_features_need_has_come)
{
    begin("mmio-blk");
    cut_subsection("virtio/virtqueues", 16384);
    refused(GW_VIRTIO_MISSING, "'virtio/virtqueues' did not come");
    begin("pci-packed-blk");
    cut_subsection("virtio/packed_virtqueues", 10240);
    refused(GW_VIRTIO_MISSING, "'virtio/packed_virtqueues' did not come");
}

GW_TEST(virtio_hostile, a_flag_is_0_or_1)
{
    static const char *const names[] = {"virtio/broken", "virtio/disabled"};
    begin("mmio-legacy-blk");
    put(values_of("virtio/started"), 1, 2);
    refused(GW_VIRTIO_INVALID, "field 'started': 2 is neither 0 nor 1");
    for (unsigned i = 0; i < 2; i++) {
        begin("mmio-legacy-blk");
        add_subsection(names[i], 1, "\xff", 1);
        refused(GW_VIRTIO_INVALID, "255 is neither 0 nor 1");
    }
}

GW_TEST(virtio_hostile, a_device_that_was_broken_or_disabled_still_is)
{
    begin("mmio-legacy-blk");
    add_subsection("virtio/broken", 1, "\1", 1);
    accepted(true);
    GW_EXPECT_EQ(gw_virtio_blk_step(rig.dev, 8, 8), 0);
    end();
    begin("mmio-legacy-blk");
    add_subsection("virtio/disabled", 1, "\1", 1);
    accepted(false);
    GW_EXPECT_EQ(gw_virtio_blk_step(rig.dev, 8, 8), 0);
    end();
}

GW_TEST(virtio_hostile, started_without_driver_ok_is_taken_and_driver_ok_decides)
{
    begin("mmio-blk");
    put(AT_STATUS, 1, 0xb);
    accepted(false);
    GW_EXPECT_EQ(gw_virtio_blk_step(rig.dev, 8, 8), 0);
    end();
}

GW_TEST(virtio_hostile, status_bits_that_mean_nothing_are_kept)
{
    struct gw_writer w;
    begin("mmio-legacy-blk");
    put(AT_STATUS, 1, 0xb7);
    accepted(false);
    GW_EXPECT_EQ(rig_save(&rig, &w), 0);
    GW_EXPECT_EQ(w.data[AT_STATUS], 0xb7);
    gw_writer_fini(&w);
    end();
}

GW_TEST(virtio_hostile, a_default_size_is_no_larger_than_a_ring_may_be)
{
    begin("mmio-legacy-blk");
    put(values_of("virtio/ringsize"), 4, 1025);
    refused(GW_VIRTIO_RANGE, "field 'ringsize[0]': 1025, at most 1024");
    begin("mmio-legacy-blk"); /* of a queue that is not there */
    put(values_of("virtio/ringsize") + 4, 4, 1);
    refused(GW_VIRTIO_RANGE, "field 'ringsize[1]': 1, at most 0");
}

/* ---- transports -------------------------------------------------------------------------------- */

GW_TEST(virtio_hostile, a_vector_is_one_of_the_table_or_none)
{
    begin("pci-blk");
    put(AT_VECTOR, 2, 2);
    refused(GW_VIRTIO_RANGE, "field 'config_vector': vector 2 of 2");
    begin("pci-blk");
    put(AT_QUEUE_VECTOR, 2, 2);
    refused(GW_VIRTIO_RANGE, "field 'queue vector': vector 2 of 2");
    begin("pci-blk");
    put(AT_QUEUE_VECTOR, 2, 0xffff);
    accepted(false);
    end();
}

GW_TEST(virtio_hostile, another_pci_function_is_refused_with_offset_and_bytes)
{
    begin("pci-blk");
    body[AT_PCI + 2] = 0x42;
    refused(GW_VIRTIO_MISMATCH, "byte 0x2 is 0x42, and 0x01 here, of which 0xff must be the same");
    begin("pci-blk");
    body[AT_PCI + 0x9a] = 7; /* eight vectors */
    refused(GW_VIRTIO_MISMATCH, "byte 0x9a is 0x07, and 0x01 here");
    begin("pci-blk");
    put(AT_PCI + 0x11, 3, 0xfeedc0); /* a BAR is the guest's */
    accepted(false);
    end();
}

GW_TEST(virtio_hostile, a_pin_is_low_or_high)
{
    begin("pci-blk");
    put(AT_PINS + 4, 4, 2);
    refused(GW_VIRTIO_RANGE, "level of pin B is 2");
}

GW_TEST(virtio_hostile, the_pci_part_has_version_0_to_2)
{
    begin("pci-blk");
    put(0, 4, 3);
    refused(GW_VIRTIO_INVALID, "field 'pci version': 3, 0 to 2 are taken");
    begin("pci-blk");
    put(0, 4, UINT32_MAX);
    refused(GW_VIRTIO_INVALID, "field 'pci version': -1");
    begin("pci-blk"); /* before 2 there were no pins */
    put(0, 4, 1);
    cut(AT_PINS, 16);
    accepted(false);
    end();
}

GW_TEST(virtio_hostile, pending_bits_beyond_the_last_vector_are_refused)
{
    begin("pci-blk");
    body[AT_PENDING] = 4;
    refused(GW_VIRTIO_INVALID, "bits beyond the last vector are set");
    begin("pci-blk");
    body[AT_PENDING] = 3;
    accepted(false);
    end();
}

GW_TEST(virtio_hostile, a_queue_of_the_registers_has_a_size_if_it_is_enabled)
{
    begin("pci-blk"); /* four words, then num, a byte that is gone, enabled */
    put(values_of("virtio_pci/modern_state") + 16, 2, 257);
    refused(GW_VIRTIO_RANGE, "field 'queue': num 257 of number 0, at most 256");
    begin("pci-blk");
    put(values_of("virtio_pci/modern_state") + 16, 2, 0);
    refused(GW_VIRTIO_RANGE, "number 0: enabled 1, num 0");
    begin("pci-blk");
    put(values_of("virtio_pci/modern_state") + 16 + 28, 2, 1);
    refused(GW_VIRTIO_RANGE, "num 1 of number 1, at most 0");
    begin("mmio-blk");
    put(values_of("virtio_mmio/state") + 8, 2, 1025);
    refused(GW_VIRTIO_RANGE, "num 1025 of number 0, at most 1024");
}

/* ---- requests in flight ------------------------------------------------------------------------- */

GW_TEST(virtio_hostile, a_request_is_of_a_queue_that_there_is)
{
    begin("mmio-many-blk");
    put(158, 4, 4);
    refused(GW_VIRTIO_RANGE, "field 'request': of queue 4, and there are 4");
    begin("mmio-many-blk"); /* of one that takes none */
    put(158, 4, 1);
    refused(GW_VIRTIO_INVALID, "field 'queues[1]': 1 requests are in flight, and 0 were taken");
}

GW_TEST(virtio_hostile, a_request_has_as_many_buffers_as_fit_the_ring)
{
    begin("mmio-held-blk");
    put_host(AT_IN, 4, 1025);
    refused(GW_VIRTIO_RANGE, "1025 buffers in, 1 out; 1 to 16 fit the ring");
    begin("mmio-held-blk");
    put_host(AT_OUT, 4, UINT32_MAX);
    refused(GW_VIRTIO_RANGE, "4294967295 out");
    begin("mmio-held-blk");
    put_host(AT_IN, 4, 16); /* and one out */
    refused(GW_VIRTIO_RANGE, "16 buffers in, 1 out");
    begin("mmio-held-blk");
    put_host(AT_IN, 4, 0);
    put_host(AT_OUT, 4, 0);
    refused(GW_VIRTIO_RANGE, "0 buffers in, 0 out");
}

GW_TEST(virtio_hostile, a_requests_buffers_are_guest_memory)
{
    begin("mmio-held-blk");
    put_host(AT_IN_ADDRESS, 8, UINT64_MAX - 7);
    refused(GW_VIRTIO_RANGE, "512 bytes at 0xfffffffffffffff8 are not guest memory");
    begin("mmio-held-blk");
    put_host(AT_IN_ADDRESS, 8, RIG_MEMORY_AT + RIG_MEMORY_BYTES - 511);
    refused(GW_VIRTIO_RANGE, "are not guest memory");
    begin("mmio-held-blk");
    put_host(AT_IN_LEN, 8, UINT64_C(1) << 32);
    refused(GW_VIRTIO_RANGE, "a buffer of 4294967296 bytes");
    begin("mmio-held-blk");
    put_host(AT_IN_LEN, 8, 0);
    refused(GW_VIRTIO_RANGE, "a buffer of 0 bytes");
}

GW_TEST(virtio_hostile, a_requests_buffers_are_at_most_4_gib_together)
{
    begin("mmio-held-blk");
    put_host(AT_IN, 4, 2);
    for (unsigned i = 0; i < 2; i++) {
        put_host(AT_IN_ADDRESS + 8 * i, 8, RIG_MEMORY_AT);
        put_host(AT_IN_LEN + 16 * i, 8, i == 0 ? 1 : UINT32_MAX);
    }
    refused(GW_VIRTIO_RANGE, "are not guest memory"); /* 2^32 in all may be, were it memory */
    begin("mmio-held-blk");
    put_host(AT_IN, 4, 3);
    for (unsigned i = 0; i < 3; i++) {
        put_host(AT_IN_ADDRESS + 8 * i, 8, RIG_MEMORY_AT);
        put_host(AT_IN_LEN + 16 * i, 8, i < 2 ? 1 : UINT32_MAX);
    }
    refused(GW_VIRTIO_RANGE, "a buffer of 4294967295 bytes, after 2");
}

GW_TEST(virtio_hostile, a_requests_head_is_in_the_ring_and_comes_once)
{
    begin("mmio-held-blk");
    put_host(AT_HEAD, 4, 16);
    refused(GW_VIRTIO_INVALID, "head 16 in a ring of 16");
    begin("mmio-held-blk");
    uint8_t *again = malloc(1 + 49168);
    memcpy(again, body + AT_HELD, 1 + 49168);
    insert(AT_HELD, again, 1 + 49168);
    free(again);
    refused(GW_VIRTIO_INVALID, "head 6 of queue 0 comes twice");
}

GW_TEST(virtio_hostile, there_are_no_more_requests_than_were_taken)
{
    begin("mmio-held-blk");
    uint8_t *again = malloc(1 + 49168);
    memcpy(again, body + AT_HELD, 1 + 49168);
    again[1] = 7;
    insert(AT_HELD, again, 1 + 49168);
    free(again);
    refused(GW_VIRTIO_INVALID, "2 requests are in flight, and 1 were taken");
    begin("mmio-held-blk");
    put(AT_HELD, 1, 2);
    refused(GW_VIRTIO_INVALID, "2 in front of one, 1 or 0 are taken");
}

/* An endless list of ones: each head is its own, so it ends with the ring. */
GW_TEST(virtio_hostile, a_list_of_requests_ends_with_the_ring)
{
    begin("mmio-held-blk");
    uint8_t *again = malloc(1 + 49168);
    memcpy(again, body + AT_HELD, 1 + 49168);
    for (unsigned i = 0; i < 18; i++) {
        again[1] = (uint8_t)(i < 16 ? i : 3);
        insert(AT_HELD + i * (1 + 49168), again, 1 + 49168);
    }
    free(again);
    refused(GW_VIRTIO_INVALID, "comes twice");
}

/* ---- net --------------------------------------------------------------------------------------- */

GW_TEST(virtio_hostile, more_addresses_than_are_kept_make_the_filter_overflow)
{
    uint8_t macs[6 * 65] = {0};
    struct gw_writer w;
    begin("mmio-net");
    insert(AT_MACS, macs, sizeof(macs) - 18); /* three are there */
    put(AT_MACS - 4, 4, 65);
    accepted(false);
    GW_EXPECT_EQ(rig_save(&rig, &w), 0);
    GW_EXPECT_EQ(w.data[AT_MACS - 1], 0); /* none is kept */
    GW_EXPECT(w.data[AT_MACS + 516] == 1 && w.data[AT_MACS + 517] == 1);
    gw_writer_fini(&w);
    end();
    begin("mmio-net");
    put(AT_MACS - 4, 4, 65537);
    refused(-E2BIG, "mac_count");
    begin("mmio-net");
    put(AT_MACS - 4, 4, 0xaaaaaaab); /* times six it would be small */
    refused(-E2BIG, "mac_count");
}

#define AT_PAIRS (36 + 9 * 18 + 22 + 512 + 4 + 7) /* of a device with nine queues and no address */

/* A device of ours with four pairs, as after a reset. */
static void begin_pairs(void)
{
    struct gw_writer w;
    GW_ASSERT_EQ(rig_init(&rig, rig_scene("mmio-pairs-net")), 0);
    GW_ASSERT_EQ(rig_save(&rig, &w), 0);
    body = malloc(RIG_BODY_MAX);
    body_bytes = w.bytes;
    memcpy(body, w.data, w.bytes);
    gw_writer_fini(&w);
}

GW_TEST(virtio_hostile, queue_pairs_are_as_many_as_here)
{
    begin_pairs();
    put(AT_PAIRS, 2, 2);
    refused(GW_VIRTIO_MISMATCH, "field 'max_queue_pairs': 2, and 4 here");
    begin_pairs();
    put(AT_PAIRS + 2, 2, 5);
    refused(GW_VIRTIO_RANGE, "field 'curr_queue_pairs': 5, at most 4");
    begin_pairs();
    put(AT_PAIRS + 2, 2, 3);
    insert(AT_PAIRS + 4, "\0\0\0\1\0\0\0\2", 8);
    accepted(false);
    struct gw_writer w;
    GW_EXPECT_EQ(rig_save(&rig, &w), 0);
    GW_EXPECT(w.bytes == body_bytes && memcmp(w.data, body, w.bytes) == 0);
    gw_writer_fini(&w);
    end();
}

GW_TEST(virtio_hostile, offloads_are_those_that_can_be_had)
{
    static const uint8_t can[8] = {[7] = 0x0c}, cannot[8] = {[7] = 0x2c};
    begin_pairs();
    put(16, 4, 4);
    put(values_of("virtio/64bit_features"), 8, 4);
    insert(AT_PAIRS + 4, cannot, 8);
    refused(GW_VIRTIO_FEATURES, "field 'curr_guest_offloads': 0x2c, of which 0x1c can be had here");
    begin_pairs();
    put(16, 4, 4);
    put(values_of("virtio/64bit_features"), 8, 4);
    insert(AT_PAIRS + 4, can, 8);
    accepted(false); /* and are still what came, though features were settled later */
    struct gw_writer w;
    GW_EXPECT_EQ(rig_save(&rig, &w), 0);
    GW_EXPECT(w.bytes == body_bytes && memcmp(w.data, body, w.bytes) == 0);
    gw_writer_fini(&w);
    end();
}

GW_TEST(virtio_hostile, a_back_end_can_do_what_the_guest_uses)
{
    struct virtio_scene scene = *rig_scene("mmio-net");
    scene.no_vnet_hdr = true;
    begin_as(&scene, "mmio-net");
    put(AT_MACS + 18 + 512, 4, 1);
    refused(GW_VIRTIO_MISMATCH, "field 'has_vnet_hdr'");
    begin("mmio-net");
    put(AT_MACS + 18 + 512 + 4 + 6, 1, 1);
    refused(GW_VIRTIO_MISMATCH, "field 'has_ufo'");
}

/* enabled, redirect, hash; types; length; default; key; table of two */
static void add_rss(uint32_t types, uint16_t count, uint16_t fallback, uint16_t entry)
{
    uint8_t values[256] = {5, 21};
    snprintf((char *)values + 2, sizeof(values) - 2, "virtio-net-device/rss");
    uint8_t *at = values + 23;
    at[3] = 1; /* version */
    at[4] = at[5] = at[6] = 1;
    at[10] = (uint8_t)types;
    at[9] = (uint8_t)(types >> 8);
    at[11] = (uint8_t)(count >> 8);
    at[12] = (uint8_t)count;
    at[14] = (uint8_t)fallback;
    at[15 + 40 + 3] = (uint8_t)entry;
    insert(AT_PAIRS + 4, values, 23 + 15 + 40 + (count <= 64 ? 2u * count : 0u));
}

GW_TEST(virtio_hostile, rss_stays_within_the_queues_and_what_can_be_hashed)
{
    begin_pairs();
    add_rss(0x3, 2, 3, 3);
    accepted(false);
    struct gw_writer w;
    GW_EXPECT_EQ(rig_save(&rig, &w), 0);
    GW_EXPECT(w.bytes == body_bytes && memcmp(w.data, body, w.bytes) == 0);
    gw_writer_fini(&w);
    end();
    begin_pairs();
    add_rss(0x3, 0, 0, 0);
    refused(GW_VIRTIO_RANGE, "field 'rss indirections_len': 0");
    begin_pairs();
    add_rss(0x3, 3, 0, 0);
    refused(GW_VIRTIO_RANGE, "field 'rss indirections_len': 3");
    begin_pairs();
    add_rss(0x3, 256, 0, 0);
    refused(-E2BIG, "rss_count");
    begin_pairs();
    add_rss(0x3, 2, 4, 0);
    refused(GW_VIRTIO_RANGE, "field 'rss default_queue': 4 of 4");
    begin_pairs();
    add_rss(0x3, 2, 0, 4);
    refused(GW_VIRTIO_RANGE, "entry 1 is queue 4 of 4");
    begin_pairs();
    add_rss(0x103, 2, 0, 0);
    refused(GW_VIRTIO_RANGE, "field 'rss hash_types': 0x103, of which 0xff can be had here");
}

/* ---- what a device may ask for while it is loaded ------------------------------------------------ */

static int asked_high, asked_low, asked_endian;

static int ask(struct gw_virtio *dev, struct gw_reader *r, struct gw_error *err)
{
    (void)err;
    asked_high = gw_virtio_has(dev, GW_VIRTIO_F_VERSION_1);
    asked_low = gw_virtio_has(dev, GW_VIRTIO_BLK_F_FLUSH);
    asked_endian = gw_virtio_endian(dev);
    gw_reader_u8(r); /* no request */
    return 0;
}

GW_TEST(virtio_hostile, a_devices_own_load_cannot_see_what_has_not_come)
{
    begin("mmio-blk");
    static struct gw_virtio_device_ops type;
    type = *rig.dev->type;
    type.load = ask;
    rig.dev->type = &type;
    accepted(false);
    GW_EXPECT_EQ(asked_high, GW_VIRTIO_TOO_EARLY);
    GW_EXPECT_EQ(asked_endian, GW_VIRTIO_TOO_EARLY);
    GW_EXPECT_EQ(asked_low, 1);
    GW_EXPECT_EQ(gw_virtio_has(rig.dev, GW_VIRTIO_F_VERSION_1), 1);
    end();
}

/* ---- any byte ---------------------------------------------------------------------------------- */

static const char *const scenes[] = {"mmio-legacy-blk", "mmio-held-blk", "mmio-net",
                                     "pci-packed-blk", NULL};

/* Whatever was loaded saves, and loads again as the same. */
GW_TEST_EACH(virtio_hostile, any_byte_changed_is_refused_or_yields_a_valid_device, scenes)
{
    begin(param);
    for (size_t at = 0; at < body_bytes; at += at < 600 ? 1 : 509) {
        struct gw_writer w, again;
        uint8_t was = body[at];
        body[at] ^= (uint8_t)(1u << at % 8) | 0x80;
        if (rig_load(&rig, body, body_bytes, &left) == 0) {
            GW_EXPECT_EQ(rig_save(&rig, &w), 0);
            GW_EXPECT_EQ(rig_load(&rig, w.data, w.bytes, &left), 0);
            GW_EXPECT_EQ(rig_save(&rig, &again), 0);
            GW_EXPECT(again.bytes == w.bytes && memcmp(again.data, w.data, w.bytes) == 0);
            gw_writer_fini(&w);
            gw_writer_fini(&again);
        } else {
            GW_EXPECT(rig.err.message[0] != '\0');
        }
        body[at] = was;
    }
    end();
}

GW_TEST(virtio_hostile, another_shape_is_refused_before_the_state_is_read)
{
    struct gw_device_desc from, to;
    struct gw_writer w;
    struct gw_reader r;
    struct virtio_rig other;
    struct virtio_scene scene = *rig_scene("pci-blk");
    GW_ASSERT_EQ(rig_init(&rig, &scene), 0);
    scene.vectors = 3;
    GW_ASSERT_EQ(rig_init(&other, &scene), 0);
    GW_EXPECT_EQ(gw_virtio_shape(rig.dev, &from, &rig.err), 0);
    GW_EXPECT_EQ(gw_virtio_shape(other.dev, &to, &rig.err), 0);
    GW_EXPECT_STREQ(from.name, "rig/virtio-blk/shape");
    GW_EXPECT(from.priority > 0);
    gw_writer_init(&w, 4096);
    GW_EXPECT_EQ(from.save(from.opaque, &w, &rig.err), 0);
    gw_reader_init(&r, w.data, w.bytes);
    GW_EXPECT_EQ(from.load(from.opaque, &r, from.version_id, &rig.err), 0);
    gw_reader_init(&r, w.data, w.bytes);
    GW_EXPECT_EQ(to.load(to.opaque, &r, to.version_id, &rig.err), -EINVAL);
    GW_EXPECT(strstr(rig.err.message, "shape_vectors") != NULL);
    GW_EXPECT(strstr(rig.err.hint, "MSI-X") != NULL);
    gw_writer_fini(&w);
    rig_fini(&other);
    rig_fini(&rig);
}
