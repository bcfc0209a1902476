// SPDX-License-Identifier: MIT
/* An opaque device's sections, at a target whose driver is the simulated vendor's. The first byte says which
 * interface it has and what it waits for; then sections, each with two bytes of length and its kind in
 * front. Whatever came: a refusal is whole and names the device, the driver saw nothing that its
 * protocol forbids, and afterwards the device runs, with nothing of it left open. Or the image of a PCI
 * function, which a refusal leaves as it was. Or packets beside the stream: whatever their order, they are
 * passed on in theirs, and what waits costs no more than the budget. */
#include "control/stream.h"
#include "devices/vfio/parallel.h"
#include "devices/vfio/pci_config.h"
#include "devices/vfio/vfio.h"
#include "tests/fuzz/fuzz.h"
#include "tests/support/vendor.h"

#include <errno.h>

#define SECTIONS_MAX 64

enum { IS_STAGING = 1, WANTS_ACK = 2, BEGINS_AGAIN = 4, IS_PCI = 8, IS_PARALLEL = 16 };

struct target {
    struct vendor *vendor;
    struct gw_staging *staging;
    struct gw_feature *feature;
    struct gw_vfio *vfio;
    struct gw_device_desc desc;
};

static void target_open(struct target *t, uint8_t kind)
{
    struct vendor_config config = {.name = "dev/vfio",
                                   .seed = 1,
                                   .blocks = 2,
                                   .precopy = true,
                                   .quiesce = true,
                                   .region_bytes = 600,
                                   .section = VENDOR_AREAS,
                                   .offset = VENDOR_HALVES,
                                   .config_bytes = 5};
    struct gw_odev_caps caps = {
        .format = "vendor", .format_version = 3, .reinit = kind & BEGINS_AGAIN};
    struct gw_vfio_config c = {
        .struct_bytes = sizeof(c), .name = config.name, .switchover_ack = kind & WANTS_ACK};
    t->vendor = vendor_new(&config);
    if (kind & IS_STAGING) {
        FUZZ_MUST(gw_staging_new(vendor_staging_ops(t->vendor), t->vendor, config.name, &caps, NULL,
                                 &t->staging, NULL) == 0);
        c.ops = &gw_staging_odev_ops;
        c.dev = t->staging;
    } else {
        FUZZ_MUST(gw_feature_new(vendor_feature_ops(t->vendor), t->vendor, config.name, &caps,
                                 &t->feature, NULL) == 0);
        c.ops = &gw_feature_odev_ops;
        c.dev = t->feature;
    }
    FUZZ_MUST(gw_vfio_new(&c, &t->vfio, NULL) == 0);
    gw_vfio_device_desc(t->vfio, &t->desc);
}

static void target_close(struct target *t)
{
    gw_vfio_free(t->vfio);
    gw_staging_free(t->staging);
    gw_feature_free(t->feature);
    FUZZ_MUST(vendor_open_count(t->vendor) == 0);
    FUZZ_MUST(vendor_violation(t->vendor) == NULL);
    vendor_free(t->vendor);
}

/* A copy of its own size, so that a read past its end is seen. */
static int load_section(struct target *t, struct fuzz_input piece, enum gw_device_part part)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_reader r;
    uint8_t *copy = malloc(piece.left ? piece.left : 1);
    FUZZ_MUST(copy != NULL);
    memcpy(copy, piece.at, piece.left);
    gw_reader_init(&r, copy, piece.left);
    int rc = t->desc.ops->load(t->desc.opaque, &r, part, GW_VFIO_VERSION, &err);
    free(copy);
    if (rc < 0) {
        fuzz_refused(rc, &err);
        FUZZ_MUST(strncmp(err.message, "device 'dev/vfio': ", 19) == 0);
    }
    FUZZ_MUST(rc <= GW_DEVICE_ACK);
    return rc;
}

static void load_device(struct fuzz_input *in, uint8_t kind)
{
    struct target t = {0};
    struct gw_error err = GW_ERROR_INIT;
    int rc = 0;
    target_open(&t, kind);
    FUZZ_MUST(t.desc.ops->load_setup(t.desc.opaque, NULL) == 0);
    for (unsigned i = 0; i < SECTIONS_MAX && in->left > 0 && rc >= 0; i++) {
        size_t length = (size_t)fuzz_u8(in) << 8;
        length |= fuzz_u8(in);
        enum gw_device_part part = (enum gw_device_part)(fuzz_u8(in) & 3);
        rc = load_section(&t, fuzz_piece(in, length), part);
    }
    bool whole = rc >= 0 && t.desc.ops->load_complete(t.desc.opaque, &err) == 0;
    if (rc >= 0 && !whole)
        fuzz_refused(err.rc, &err);
    t.desc.ops->load_cleanup(t.desc.opaque);
    FUZZ_MUST(vendor_state(t.vendor) == (whole ? GW_ODEV_STOP : GW_ODEV_RUNNING));
    target_close(&t);
}

static void load_pci(struct fuzz_input *in)
{
    static const uint8_t ones[256] = {0xff, 0xff, 0xff, 0xff, 0xff}, none[256];
    uint8_t config[256] = {0x86, 0x80, 0x10, 0x10}, table[3 * 16] = {1}, pending[1] = {0};
    uint8_t config_before[256], table_before[3 * 16];
    struct gw_vfio_pci pci = {.struct_bytes = sizeof(pci),
                              .config_bytes = 256,
                              .config = config,
                              .check = ones,
                              .writable = none,
                              .clears = none,
                              .vectors = 3,
                              .table = table,
                              .pending = pending};
    struct gw_error err = GW_ERROR_INIT;
    struct gw_reader r;
    memcpy(config_before, config, sizeof(config));
    memcpy(table_before, table, sizeof(table));
    gw_reader_init(&r, in->at, in->left);
    int rc = gw_vfio_pci_load(&pci, &r, &err);
    if (rc == 0) {
        FUZZ_MUST(memcmp(config, config_before, 5) == 0 && pending[0] < 8);
        return;
    }
    fuzz_refused(rc, &err);
    FUZZ_MUST(memcmp(config, config_before, sizeof(config)) == 0);
    FUZZ_MUST(memcmp(table, table_before, sizeof(table)) == 0 && pending[0] == 0);
}

#define BUDGET (UINT64_C(8) * 4096)

static uint32_t passed_on;
static bool config_passed;

static int pass_data(void *ctx, const void *data, size_t bytes, struct gw_error *err)
{
    (void)ctx;
    (void)data;
    (void)bytes;
    (void)err;
    FUZZ_MUST(!config_passed);
    passed_on++;
    return 0;
}

static int pass_config(void *ctx, const void *data, size_t bytes, struct gw_error *err)
{
    pass_data(ctx, data, bytes, err);
    config_passed = true;
    return 0;
}

static void take_packets(struct fuzz_input *in)
{
    static const struct gw_parallel_sink sink = {
        .struct_bytes = sizeof(sink), .data = pass_data, .config = pass_config};
    struct gw_parallel_budget budget = {.bytes = BUDGET};
    struct gw_parallel_packet packet;
    struct gw_parallel *parallel = NULL;
    struct gw_error err = GW_ERROR_INIT;
    uint8_t head[GW_PARALLEL_HEAD_BYTES] = {0};
    int rc = 0;
    passed_on = 0;
    config_passed = false;
    memcpy(head, in->at, in->left < sizeof(head) ? in->left : sizeof(head));
    if (gw_parallel_decode(head, &packet, &err) < 0)
        fuzz_refused(err.rc, &err);
    FUZZ_MUST(gw_parallel_new("dev/vfio", &budget, &sink, NULL, &parallel, NULL) == 0);
    while (in->left > 0 && rc == 0) {
        struct fuzz_input piece = fuzz_piece(in, fuzz_u8(in));
        rc = gw_parallel_take(parallel, piece.at, piece.left, &err);
        FUZZ_MUST(budget.bytes <= BUDGET);
    }
    if (rc < 0)
        fuzz_refused(rc, &err);
    FUZZ_MUST((gw_parallel_finish(parallel, &err) == 0) == config_passed);
    gw_parallel_free(parallel);
    FUZZ_MUST(budget.bytes == BUDGET);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct fuzz_input in = {data, bytes};
    uint8_t kind = fuzz_u8(&in);
    if (kind & IS_PARALLEL)
        take_packets(&in);
    else if (kind & IS_PCI)
        load_pci(&in);
    else
        load_device(&in, kind);
    return 0;
}
