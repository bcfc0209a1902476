// SPDX-License-Identifier: MIT
/* The devices of the built-in guest. "guest" is all that a target needs to rebuild it and to judge
 * the memory that came: what it is, each vCPU's count of writes, and the hash of the table of
 * generations. Its size does not depend on the memory's. "guest-ballast" is bytes that prove
 * themselves, as many as asked for, to be weighed in the downtime. */
#include "tools/guest_disk.h"
#include "tools/guest_impl.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define GW_BALLAST_STREAM UINT64_C(0x2545f4914f6cdd1d)
#define GW_BALLAST_STEP 4096u
#define GW_BALLAST_SECTION (UINT64_C(16) << 20) /* more comes in more sections than one */

uint64_t gw_guest_hash(const struct gw_guest *guest)
{
    uint64_t hash = guest->base_hash;
    for (unsigned i = 0; i < guest->config.vcpus; i++)
        hash += guest->vcpus[i].hash;
    return hash;
}

/* ---- "guest" --------------------------------------------------------------------------------- */

static uint64_t bits_of(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

static double double_of(uint64_t bits)
{
    double value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

static int guest_save(void *opaque, struct gw_writer *w, struct gw_error *err)
{
    struct gw_guest *guest = opaque;
    const struct gw_guest_config *config = &guest->config;
    if (!guest->loaded)
        return gw_error_set(err, -EINVAL, GW_CODE_DEVICE, "guest: there is no state to save");
    gw_writer_be64(w, config->ram_bytes);
    gw_writer_be64(w, config->seed);
    gw_writer_be64(w, config->dirty_rate);
    gw_writer_be64(w, config->device_state_bytes);
    gw_writer_u8(w, (uint8_t)config->fill);
    gw_writer_u8(w, (uint8_t)config->percent_zero);
    gw_writer_u8(w, (uint8_t)config->pattern);
    gw_writer_u8(w, (uint8_t)config->hot_writes);
    gw_writer_u8(w, (uint8_t)config->hot_pages);
    gw_writer_be64(w, bits_of(config->zipf_exponent));
    gw_writer_be64(w, gw_guest_hash(guest));
    gw_writer_be32(w, config->vcpus);
    for (unsigned i = 0; i < config->vcpus; i++)
        gw_writer_be64(w, atomic_load_explicit(&guest->vcpus[i].writes, memory_order_relaxed));
    return 0;
}

static void read_config(struct gw_guest_config *config, struct gw_reader *r)
{
    config->ram_bytes = gw_reader_be64(r);
    config->seed = gw_reader_be64(r);
    config->dirty_rate = gw_reader_be64(r);
    config->device_state_bytes = gw_reader_be64(r);
    config->fill = (enum gw_guest_fill)gw_reader_u8(r);
    config->percent_zero = gw_reader_u8(r);
    config->pattern = (enum gw_guest_pattern)gw_reader_u8(r);
    config->hot_writes = gw_reader_u8(r);
    config->hot_pages = gw_reader_u8(r);
    config->zipf_exponent = double_of(gw_reader_be64(r));
}

/* The source's word: nothing of it is used before it fits the blocks and is within bounds. */
static int check_state(const struct gw_guest *guest, const struct gw_guest_config *config,
                       struct gw_error *err)
{
    int rc = gw_guest_config_check(config, err);
    if (rc < 0)
        return rc;
    uint64_t table = gw_guest_table_bytes(config->ram_bytes / GW_GUEST_PAGE);
    if (guest->ram.bytes != config->ram_bytes || guest->table.bytes != table)
        return gw_error_set(err, -EINVAL, GW_CODE_DEVICE,
                            "guest: its state is of %" PRIu64 " bytes of memory with a table of "
                            "%" PRIu64 ", the blocks have %" PRIu64 " and %" PRIu64,
                            config->ram_bytes, table, guest->ram.bytes, guest->table.bytes);
    return 0;
}

static int guest_load(void *opaque, struct gw_reader *r, uint32_t version_id, struct gw_error *err)
{
    struct gw_guest *guest = opaque;
    struct gw_guest_config config;
    (void)version_id;
    if (!guest->incoming || guest->threads)
        return gw_error_set(err, -EBUSY, GW_CODE_DEVICE, "guest: it runs, or is of this host");
    gw_guest_config_init(&config);
    read_config(&config, r);
    config.memory = guest->ram.kind;
    uint64_t hash = gw_reader_be64(r);
    config.vcpus = gw_reader_be32(r);
    if (gw_reader_error(r) < 0)
        return gw_error_set(err, gw_reader_error(r), GW_CODE_DEVICE, "guest: its state ends early");
    int rc = check_state(guest, &config, err);
    if (rc < 0)
        return rc;

    guest->loaded = false;
    free(guest->vcpus);
    guest->vcpus = NULL;
    guest->config = config;
    guest->pages = config.ram_bytes / GW_GUEST_PAGE;
    guest->base_hash = hash;
    if (gw_guest_vcpus_new(guest) < 0)
        return gw_error_set(err, -ENOMEM, GW_CODE_NO_MEMORY, "guest: %u vCPUs: out of memory",
                            config.vcpus);
    for (unsigned i = 0; i < config.vcpus; i++)
        atomic_store_explicit(&guest->vcpus[i].writes, gw_reader_be64(r), memory_order_relaxed);
    if (gw_reader_error(r) < 0)
        return gw_error_set(err, gw_reader_error(r), GW_CODE_DEVICE, "guest: its state ends early");
    guest->loaded = true;
    return 0;
}

/* ---- "guest-ballast" ------------------------------------------------------------------------- */

static void compose_ballast(uint64_t seed, uint64_t at, uint8_t *bytes)
{
    for (uint64_t i = 0; i < GW_BALLAST_STEP; i += sizeof(uint64_t)) {
        uint64_t word = gw_guest_word(seed ^ GW_BALLAST_STREAM, at + i);
        for (unsigned b = 0; b < sizeof(word); b++) /* the same bytes whatever the host's order */
            bytes[i + b] = (uint8_t)(word >> 8 * b);
    }
}

static void write_ballast(const struct gw_guest *guest, struct gw_writer *w, uint64_t from,
                          uint64_t to)
{
    uint8_t bytes[GW_BALLAST_STEP];
    for (uint64_t at = from; at < to; at += GW_BALLAST_STEP) {
        compose_ballast(guest->config.seed, at, bytes);
        gw_writer_bytes(w, bytes, to - at < GW_BALLAST_STEP ? to - at : GW_BALLAST_STEP);
    }
}

static int read_ballast(struct gw_reader *r, uint64_t seed, uint64_t from, uint64_t to,
                        struct gw_error *err)
{
    uint8_t expected[GW_BALLAST_STEP];
    uint8_t bytes[GW_BALLAST_STEP];
    for (uint64_t at = from; at < to && gw_reader_error(r) == 0; at += GW_BALLAST_STEP) {
        uint64_t some = to - at < GW_BALLAST_STEP ? to - at : GW_BALLAST_STEP;
        gw_reader_bytes(r, bytes, some);
        compose_ballast(seed, at, expected);
        if (gw_reader_error(r) == 0 && memcmp(bytes, expected, some) != 0)
            return gw_error_set(err, -EBADMSG, GW_CODE_DEVICE,
                                "guest-ballast: wrong bytes in the %" PRIu64 " at %" PRIu64, some,
                                at);
    }
    if (gw_reader_error(r) < 0)
        return gw_error_set(err, gw_reader_error(r), GW_CODE_DEVICE,
                            "guest-ballast: ends before its %" PRIu64 " bytes", to);
    return 0;
}

static int ballast_save(void *opaque, struct gw_writer *w, struct gw_error *err)
{
    const struct gw_guest *guest = opaque;
    (void)err;
    gw_writer_be64(w, guest->config.seed);
    gw_writer_be64(w, guest->config.device_state_bytes);
    write_ballast(guest, w, 0, guest->config.device_state_bytes);
    return 0;
}

static int ballast_load(void *opaque, struct gw_reader *r, uint32_t version_id,
                        struct gw_error *err)
{
    (void)opaque;
    (void)version_id;
    uint64_t seed = gw_reader_be64(r);
    uint64_t count = gw_reader_be64(r);
    return read_ballast(r, seed, 0, count, err);
}

/* The same in pieces, all of them in the pause: it is there to be weighed in the downtime, so nobody is
 * told that it is pending. */
static int heavy_setup(void *opaque, struct gw_writer *w, struct gw_error *err)
{
    struct gw_guest *guest = opaque;
    (void)err;
    guest->ballast_at = 0;
    gw_writer_be64(w, guest->config.seed);
    gw_writer_be64(w, guest->config.device_state_bytes);
    return 0;
}

static int heavy_complete(void *opaque, struct gw_writer *w, uint64_t bytes_max,
                          struct gw_error *err)
{
    struct gw_guest *guest = opaque;
    (void)err;
    uint64_t left = guest->config.device_state_bytes - guest->ballast_at;
    uint64_t steps = bytes_max / GW_BALLAST_STEP;
    uint64_t some = (steps > 0 ? steps : 1) * GW_BALLAST_STEP;
    uint64_t to = guest->ballast_at + (some < left ? some : left);
    gw_writer_be64(w, to);
    write_ballast(guest, w, guest->ballast_at, to);
    guest->ballast_at = to;
    return to == guest->config.device_state_bytes ? GW_DEVICE_DONE : 0;
}

static int heavy_load(void *opaque, struct gw_reader *r, enum gw_device_part part,
                      uint32_t version_id, struct gw_error *err)
{
    struct gw_guest *guest = opaque;
    if (part == GW_DEVICE_FULL)
        return ballast_load(opaque, r, version_id, err);
    if (part == GW_DEVICE_BEGIN) {
        guest->ballast_at = 0;
        guest->ballast_seed = gw_reader_be64(r);
        guest->ballast_bytes = gw_reader_be64(r);
        return 0;
    }
    uint64_t to = gw_reader_be64(r);
    if (to < guest->ballast_at || to > guest->ballast_bytes ||
        (part == GW_DEVICE_END && to != guest->ballast_bytes))
        return gw_error_set(err, -EBADMSG, GW_CODE_DEVICE,
                            "guest-ballast: a piece from %" PRIu64 " to %" PRIu64 " of %" PRIu64
                            " bytes",
                            guest->ballast_at, to, guest->ballast_bytes);
    int rc = read_ballast(r, guest->ballast_seed, guest->ballast_at, to, err);
    guest->ballast_at = to;
    return rc;
}

static const struct gw_device_ops heavy_ops = {
    .struct_bytes = sizeof(heavy_ops),
    .setup = heavy_setup,
    .complete_precopy = heavy_complete,
    .load = heavy_load,
};
static const struct gw_device_ops light_ops = {
    .struct_bytes = sizeof(light_ops),
    .load = heavy_load, /* who receives does not know which it will be */
};

/* ---- both ------------------------------------------------------------------------------------ */

unsigned gw_guest_device_count(const struct gw_guest *guest)
{
    return 2 + (guest->disk != NULL);
}

void gw_guest_device(struct gw_guest *guest, unsigned index, struct gw_device_desc *device)
{
    if (index == 2) {
        gw_guest_disk_device(guest->disk, device, NULL); /* our own table is well formed */
        return;
    }
    *device = (struct gw_device_desc){
        .struct_bytes = sizeof(*device),
        .name = index == 0 ? "guest" : "guest-ballast",
        .version_id = 1,
        .minimum_version_id = 1,
        .priority = index == 0 ? 1 : 0,
        .opaque = guest,
        .save = index == 0 ? guest_save : ballast_save,
        .load = index == 0 ? guest_load : ballast_load,
    };
    if (index == 0)
        return;
    bool heavy = guest->config.device_state_bytes > GW_BALLAST_SECTION;
    /* Bytes that are about nothing else; what comes may be many though this guest has none. */
    device->flags = heavy || guest->incoming ? GW_DEVICE_WORKER : 0;
    device->ops = heavy ? &heavy_ops : &light_ops;
    device->save = heavy ? NULL : ballast_save;
}
