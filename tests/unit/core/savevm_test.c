// SPDX-License-Identifier: MIT
/* Guest state as items: RAM's frame byte for byte, and what a device section must be to be loaded. */
#include "core/devices.h"
#include "tests/shim/gw_test.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

static struct gw_error err;

/* ---- RAM ---------------------------------------------------------------------------------------- */

static struct gw_ram *ram_of(const char *name, uint64_t bytes, void **memory)
{
    struct gw_ram *ram = gw_ram_new();
    GW_ASSERT(ram != NULL);
    *memory = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    struct gw_block_desc desc = {.struct_bytes = sizeof(desc),
                                 .name = name,
                                 .host = *memory,
                                 .size_bytes = bytes,
                                 .page_bytes = 4096,
                                 .fd = -1};
    err = (struct gw_error)GW_ERROR_INIT;
    GW_ASSERT_EQ(gw_ram_add_block(ram, &desc, &err), 0);
    return ram;
}

static const uint8_t ram_start[] = {
    0x01,                                                 /* START */
    0,    0,   0,   1,                                    /* section id */
    3,    'r', 'a', 'm', 0, 0, 0,    0,    0, 0,    0, 4, /* idstr, instance, version */
    0,    0,   0,   0,   0, 0, 0x20, 0x04,                /* 8192 bytes | MEM_SIZE */
    2,    'm', '0', 0,   0, 0, 0,    0,    0, 0x20, 0,    /* block */
    0,    0,   0,   0,   0, 0, 0,    0x10,                /* EOS */
    0x7e, 0,   0,   0,   1,                               /* footer */
};
static const uint8_t ram_end[] = {0x03, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0x10, 0x7e, 0, 0, 0, 1};

GW_TEST(savevm, ram_is_written_byte_for_byte)
{
    void *memory;
    struct gw_ram *ram = ram_of("m0", 8192, &memory);
    struct gw_device_desc device = gw_savevm_ram(ram);
    struct gw_writer w;
    gw_writer_init(&w, 4096);
    GW_EXPECT_EQ(gw_savevm_setup(&w, &device, GW_SECTION_RAM, &err), 0);
    GW_EXPECT_EQ(w.bytes, sizeof(ram_start));
    GW_EXPECT_MEMEQ(w.data, ram_start, sizeof(ram_start));
    gw_writer_reset(&w);
    GW_EXPECT_EQ(gw_savevm_complete(&w, &device, GW_SECTION_RAM, 4096, &err), GW_DEVICE_DONE);
    GW_EXPECT_EQ(w.bytes, sizeof(ram_end));
    GW_EXPECT_MEMEQ(w.data, ram_end, sizeof(ram_end));
    gw_writer_fini(&w);
    gw_ram_free(ram);
    munmap(memory, 8192);
}

/* Takes the body out of ram_start with @change at one byte, and checks it. */
static int check_start(struct gw_ram *ram, size_t at, uint8_t change, size_t cut)
{
    uint8_t body[27];
    struct gw_reader r;
    memcpy(body, ram_start + 17, sizeof(body));
    body[at] ^= change;
    gw_reader_init(&r, body, sizeof(body) - cut);
    err = (struct gw_error)GW_ERROR_INIT;
    return gw_savevm_check_ram_start(&r, ram, &err);
}

GW_TEST(savevm, ram_start_must_say_what_the_offers_said)
{
    void *memory;
    struct gw_ram *ram = ram_of("m0", 8192, &memory);
    GW_EXPECT_EQ(check_start(ram, 0, 0, 0), 0);
    for (size_t at = 0; at < 27; at++) {
        if (check_start(ram, at, 1, 0) != -EPROTO)
            GW_NOTE_FAILURE("byte %zu may be anything", at);
        GW_EXPECT(err.message[0] != '\0');
    }
    for (size_t cut = 1; cut <= 27; cut++)
        GW_EXPECT_EQ(check_start(ram, 0, 0, cut), -EPROTO);
    gw_ram_free(ram);
    munmap(memory, 8192);
}

GW_TEST(savevm, ram_end_holds_the_end_record_and_nothing_else)
{
    struct gw_reader r;
    uint8_t body[9] = {0, 0, 0, 0, 0, 0, 0, 0x10, 0};
    gw_reader_init(&r, body, 8);
    GW_EXPECT_EQ(gw_savevm_check_ram_end(&r, &err), 0);
    gw_reader_init(&r, body, 9);
    GW_EXPECT_EQ(gw_savevm_check_ram_end(&r, &err), -EPROTO);
    gw_reader_init(&r, body, 7);
    GW_EXPECT_EQ(gw_savevm_check_ram_end(&r, &err), -EPROTO);
    body[7] = 0x08; /* a page in line */
    gw_reader_init(&r, body, 8);
    GW_EXPECT_EQ(gw_savevm_check_ram_end(&r, &err), -EPROTO);
}

/* ---- devices ------------------------------------------------------------------------------------ */

struct gadget {
    unsigned reads; /* be32 each */
    int save_rc, load_rc;
    bool says_why;
    uint32_t loaded, version;
};

static int save_gadget(void *opaque, struct gw_writer *w, struct gw_error *why)
{
    struct gadget *gadget = opaque;
    gw_writer_be32(w, 0xdecade);
    if (gadget->says_why)
        gw_error_set(why, gadget->save_rc, GW_CODE_DEVICE, "the ring is torn");
    return gadget->save_rc;
}

static int load_gadget(void *opaque, struct gw_reader *r, uint32_t version_id, struct gw_error *why)
{
    struct gadget *gadget = opaque;
    gadget->version = version_id;
    for (unsigned i = 0; i < gadget->reads; i++)
        gadget->loaded = gw_reader_be32(r);
    if (gadget->says_why)
        gw_error_set(why, gadget->load_rc, GW_CODE_DEVICE, "the ring is torn");
    return gadget->load_rc;
}

static struct gw_device_desc desc_of(struct gadget *gadget)
{
    return (struct gw_device_desc){.struct_bytes = sizeof(struct gw_device_desc),
                                   .name = "gadget",
                                   .instance_id = 2,
                                   .version_id = 5,
                                   .minimum_version_id = 4,
                                   .opaque = gadget,
                                   .save = save_gadget,
                                   .load = load_gadget};
}

static int save(struct gw_writer *w, struct gadget *gadget, size_t bytes_max)
{
    struct gw_device_desc desc = desc_of(gadget);
    gw_writer_init(w, bytes_max);
    err = (struct gw_error)GW_ERROR_INIT;
    return gw_savevm_save(w, &desc, 9, NULL, &err);
}

/* Saves, changes the section as @alter says, loads. */
static int round_trip(struct gadget *gadget, void (*alter)(struct gw_section *))
{
    struct gw_devices devices = {0};
    struct gw_device_desc desc = desc_of(gadget);
    struct gw_writer w;
    struct gw_section section = {0};
    struct gw_reader body;
    enum gw_item_type type;
    char machine[256];
    GW_EXPECT_EQ(save(&w, gadget, 4096), 0);
    GW_EXPECT_EQ(gw_stream_read_item(w.data, w.bytes, &type, machine, &section, &body, &err), 0);
    GW_EXPECT_EQ(type, GW_ITEM_FULL);
    GW_EXPECT_EQ(section.section_id, 9);
    GW_EXPECT_EQ(gw_devices_add(&devices, &desc, &err), 0);
    if (alter)
        alter(&section);
    err = (struct gw_error)GW_ERROR_INIT;
    int rc = gw_savevm_load(&devices, &section, &body, &err);
    gw_devices_fini(&devices);
    gw_writer_fini(&w);
    return rc;
}

GW_TEST(savevm, device_is_loaded_as_it_was_saved)
{
    struct gadget gadget = {.reads = 1};
    GW_EXPECT_EQ(round_trip(&gadget, NULL), 0);
    GW_EXPECT_EQ(gadget.loaded, 0xdecade);
    GW_EXPECT_EQ(gadget.version, 5);
}

GW_TEST(savevm, load_must_consume_its_state_exactly)
{
    struct gadget less = {.reads = 0};
    GW_EXPECT_EQ(round_trip(&less, NULL), -EBADMSG);
    GW_EXPECT_STREQ(err.message,
                    "device 'gadget' instance 2: 4 bytes of its state were not consumed");
    struct gadget more = {.reads = 2};
    GW_EXPECT_EQ(round_trip(&more, NULL), -EBADMSG);
    GW_EXPECT_STREQ(err.message, "device 'gadget' instance 2: its state ends too early");
}

static void older(struct gw_section *section)
{
    section->version_id = 4;
}

static void too_old(struct gw_section *section)
{
    section->version_id = 3;
}

static void too_new(struct gw_section *section)
{
    section->version_id = 6;
}

static void other_instance(struct gw_section *section)
{
    section->instance_id = 0;
}

GW_TEST(savevm, versions_in_range_are_loaded_and_others_refused)
{
    struct gadget gadget = {.reads = 1};
    GW_EXPECT_EQ(round_trip(&gadget, older), 0);
    GW_EXPECT_EQ(gadget.version, 4);
    gadget.loaded = 0;
    GW_EXPECT_EQ(round_trip(&gadget, too_old), -EINVAL);
    GW_EXPECT_EQ(round_trip(&gadget, too_new), -EINVAL);
    GW_EXPECT_EQ(err.code, GW_CODE_DEVICE);
    GW_EXPECT_EQ(gadget.loaded, 0);
}

GW_TEST(savevm, section_without_its_device_is_refused_with_a_hint)
{
    struct gadget gadget = {.reads = 1};
    GW_EXPECT_EQ(round_trip(&gadget, other_instance), -ENOENT);
    GW_EXPECT_EQ(err.code, GW_CODE_DEVICE);
    GW_EXPECT(err.hint[0] != '\0');
}

GW_TEST(savevm, failure_names_the_device_and_keeps_its_words)
{
    struct gadget gadget = {.reads = 1, .load_rc = -EIO, .says_why = true};
    GW_EXPECT_EQ(round_trip(&gadget, NULL), -EIO);
    GW_EXPECT_STREQ(err.message, "device 'gadget' instance 2: the ring is torn");
    gadget.says_why = false;
    GW_EXPECT_EQ(round_trip(&gadget, NULL), -EIO);
    GW_EXPECT_EQ(err.code, GW_CODE_DEVICE);
    struct gw_writer w;
    struct gadget torn = {.save_rc = -EBUSY};
    GW_EXPECT_EQ(save(&w, &torn, 4096), -EBUSY);
    GW_EXPECT(strstr(err.message, "device 'gadget' instance 2") != NULL);
    gw_writer_fini(&w);
}

GW_TEST(savevm, state_that_does_not_fit_is_a_failure)
{
    struct gw_writer w;
    struct gadget gadget = {.reads = 1};
    GW_EXPECT_EQ(save(&w, &gadget, 16), -E2BIG);
    GW_EXPECT_EQ(err.code, GW_CODE_DEVICE);
    gw_writer_fini(&w);
}

/* ---- handlers ----------------------------------------------------------------------------------- */

struct pump { /* a device with handlers; writes be32 1, 2, ... */
    unsigned left, each;
    int iterate_rc;
    enum gw_device_part part;
    uint32_t sum;
    int load_rc;
};

static int pump_write(struct pump *pump, struct gw_writer *w)
{
    for (unsigned i = 0; i < pump->each && pump->left > 0; i++)
        gw_writer_be32(w, pump->left--);
    return pump->left == 0 ? GW_DEVICE_DONE : 0;
}

static int pump_iterate(void *opaque, struct gw_writer *w, uint64_t bytes_max, struct gw_error *why)
{
    struct pump *pump = opaque;
    (void)bytes_max, (void)why;
    return pump->iterate_rc < 0 ? pump->iterate_rc : pump_write(pump, w);
}

static int pump_load(void *opaque, struct gw_reader *r, enum gw_device_part part,
                     uint32_t version_id, struct gw_error *why)
{
    struct pump *pump = opaque;
    (void)version_id, (void)why;
    pump->part = part;
    while (gw_reader_left(r) > 0)
        pump->sum += gw_reader_be32(r);
    return pump->load_rc;
}

static const struct gw_device_ops pump_ops = {
    .struct_bytes = sizeof(pump_ops),
    .iterate = pump_iterate,
    .complete_precopy = pump_iterate,
    .load = pump_load,
};

static struct gw_device_desc pump_desc(struct pump *pump)
{
    return (struct gw_device_desc){.struct_bytes = sizeof(struct gw_device_desc),
                                   .name = "pump",
                                   .version_id = 1,
                                   .opaque = pump,
                                   .ops = &pump_ops};
}

GW_TEST(savevm, iterate_that_writes_nothing_makes_no_section)
{
    struct pump pump = {0};
    struct gw_device_desc desc = pump_desc(&pump);
    struct gw_writer w;
    gw_writer_init(&w, 4096);
    GW_EXPECT_EQ(gw_savevm_iterate(&w, &desc, 3, 4096, &err), GW_DEVICE_DONE);
    GW_EXPECT_EQ(w.bytes, 0);
    pump.left = 1, pump.each = 1;
    GW_EXPECT_EQ(gw_savevm_iterate(&w, &desc, 3, 4096, &err), GW_DEVICE_DONE);
    static const uint8_t part[] = {0x02, 0, 0, 0, 3, 0, 0, 0, 1, 0x7e, 0, 0, 0, 3};
    GW_ASSERT_EQ(w.bytes, sizeof(part));
    GW_EXPECT_MEMEQ(w.data, part, sizeof(part));
    gw_writer_fini(&w);
}

GW_TEST(savevm, complete_is_a_part_until_it_is_done_and_then_the_end)
{
    struct pump pump = {.left = 3, .each = 2};
    struct gw_device_desc desc = pump_desc(&pump);
    struct gw_writer w;
    gw_writer_init(&w, 4096);
    GW_EXPECT_EQ(gw_savevm_complete(&w, &desc, 3, 4096, &err), 0);
    GW_EXPECT_EQ(w.data[0], GW_ITEM_PART);
    gw_writer_reset(&w);
    GW_EXPECT_EQ(gw_savevm_complete(&w, &desc, 3, 4096, &err), GW_DEVICE_DONE);
    GW_EXPECT_EQ(w.data[0], GW_ITEM_END);
    gw_writer_fini(&w);
}

GW_TEST(savevm, handler_that_fails_is_named)
{
    struct pump pump = {.iterate_rc = -EIO};
    struct gw_device_desc desc = pump_desc(&pump);
    struct gw_writer w;
    gw_writer_init(&w, 4096);
    GW_EXPECT_EQ(gw_savevm_iterate(&w, &desc, 3, 4096, &err), -EIO);
    GW_EXPECT_STREQ(err.message, "device 'pump' instance 0: iterate failed (Input/output error)");
    GW_EXPECT_EQ(err.code, GW_CODE_DEVICE);
    gw_writer_fini(&w);
}

static int load_pump(const struct gw_device_desc *desc, enum gw_item_type type)
{
    static const uint8_t body[] = {0, 0, 0, 2, 0, 0, 0, 1};
    struct gw_devices devices = {0};
    struct gw_section section = {.type = type, .version_id = 1, .idstr = "pump"};
    struct gw_reader r;
    gw_reader_init(&r, body, sizeof(body));
    GW_EXPECT_EQ(gw_devices_add(&devices, desc, &err), 0);
    err = (struct gw_error)GW_ERROR_INIT;
    int rc = gw_savevm_load(&devices, &section, &r, &err);
    gw_devices_fini(&devices);
    return rc;
}

GW_TEST(savevm, one_load_reads_every_part_and_may_acknowledge_before_the_pause)
{
    struct pump pump = {.load_rc = GW_DEVICE_ACK};
    struct gw_device_desc desc = pump_desc(&pump);
    GW_EXPECT_EQ(load_pump(&desc, GW_ITEM_PART), GW_DEVICE_ACK);
    GW_EXPECT_EQ(pump.part, GW_DEVICE_PART);
    GW_EXPECT_EQ(pump.sum, 3);
    GW_EXPECT_EQ(load_pump(&desc, GW_ITEM_END), -EPROTO);
    GW_EXPECT_STREQ(err.message,
                    "device 'pump' instance 0: it acknowledges a pause that has begun");
    pump.load_rc = 0;
    GW_EXPECT_EQ(load_pump(&desc, GW_ITEM_FULL), 0);
    GW_EXPECT_EQ(pump.part, GW_DEVICE_FULL);
}

GW_TEST(savevm, device_of_one_section_takes_no_many)
{
    struct gadget gadget = {.reads = 2};
    struct gw_device_desc desc = desc_of(&gadget);
    desc.name = "pump", desc.instance_id = 0, desc.version_id = 1, desc.minimum_version_id = 1;
    GW_EXPECT_EQ(load_pump(&desc, GW_ITEM_FULL), 0);
    GW_EXPECT_EQ(load_pump(&desc, GW_ITEM_START), -ENOENT);
    GW_EXPECT(strstr(err.message, "section 'pump' instance 0: it comes in many sections"));
    GW_EXPECT(err.hint[0] != '\0');
}
