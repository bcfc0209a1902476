/* SPDX-License-Identifier: MIT */
/* tests/unit/devices/vfio_rig.h - two simulated vendor devices, one at each side of a migration that is
 * nothing but sections handed over. */
#ifndef GW_TEST_UNIT_VFIO_RIG_H
#define GW_TEST_UNIT_VFIO_RIG_H

#include "control/stream.h"
#include "devices/vfio/vfio.h"
#include "tests/shim/gw_test.h"
#include "tests/support/vendor.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum rig_front { RIG_STAGING, RIG_FEATURE };

struct rig_side {
    struct vendor *vendor;
    struct gw_staging *staging;
    struct gw_feature *feature;
    struct gw_vfio *vfio;
    struct gw_device_desc desc;
};

struct rig {
    struct rig_side src, dst;
    struct gw_writer w;
    struct gw_error err;
    struct gw_log log;
    unsigned warnings;
    char warning[256];
    unsigned writes_a_round; /* of the guest, while it runs */
    unsigned rounds_max;     /* 0: 20 */
    uint64_t bytes_max;      /* of a section; 0: 64 KiB */
    unsigned acks;
    unsigned sections[4]; /* by enum gw_device_part */
};

static inline struct vendor_config rig_config(void)
{
    return (struct vendor_config){
        .name = "0000:00:04.0/vfio",
        .seed = 42,
        .blocks = 12,
        .precopy = true,
        .quiesce = true,
        .region_bytes = 10000,
        .config_bytes = 40,
    };
}

static inline void rig_warn(void *ctx, enum gw_log_level level, const char *component,
                            const char *text)
{
    struct rig *rig = ctx;
    (void)level;
    (void)component;
    rig->warnings++;
    snprintf(rig->warning, sizeof(rig->warning), "%s", text);
}

/* A device of its own: its driver adapted, and put into a gw_vfio. */
static inline void rig_side_open(struct rig *rig, struct rig_side *side, enum rig_front front,
                                 const struct vendor_config *config,
                                 const struct gw_vfio_config *options)
{
    struct gw_odev_caps caps = {.format = "vendor", .format_version = 3, .reinit = config->reinit};
    struct gw_vfio_config c = options ? *options : (struct gw_vfio_config){0};
    side->vendor = vendor_new(config);
    rig->log = (struct gw_log){.fn = rig_warn, .ctx = rig, .level = GW_LOG_WARN};
    c.struct_bytes = sizeof(c);
    c.name = config->name;
    c.log = &rig->log;
    c.stall_timeout_ms = 1000;
    if (front == RIG_STAGING) {
        GW_ASSERT_EQ(gw_staging_new(vendor_staging_ops(side->vendor), side->vendor, config->name,
                                    &caps, &rig->log, &side->staging, &rig->err),
                     0);
        c.ops = &gw_staging_odev_ops;
        c.dev = side->staging;
    } else {
        GW_ASSERT_EQ(gw_feature_new(vendor_feature_ops(side->vendor), side->vendor, config->name,
                                    &caps, &side->feature, &rig->err),
                     0);
        c.ops = &gw_feature_odev_ops;
        c.dev = side->feature;
    }
    GW_ASSERT_EQ(gw_vfio_new(&c, &side->vfio, &rig->err), 0);
    gw_vfio_device_desc(side->vfio, &side->desc);
}

static inline void rig_side_close(struct rig_side *side)
{
    gw_vfio_free(side->vfio);
    gw_staging_free(side->staging);
    gw_feature_free(side->feature);
    if (side->vendor)
        GW_EXPECT_EQ(vendor_open_count(side->vendor), 0);
    vendor_free(side->vendor);
    *side = (struct rig_side){0};
}

static inline void rig_open(struct rig *rig, enum rig_front front,
                            const struct vendor_config *config,
                            const struct gw_vfio_config *options)
{
    *rig = (struct rig){.err = GW_ERROR_INIT};
    gw_writer_init(&rig->w, 64 << 20);
    rig_side_open(rig, &rig->src, front, config, options);
    rig_side_open(rig, &rig->dst, front, config, options);
    vendor_run(rig->src.vendor, 100);
}

static inline void rig_close(struct rig *rig)
{
    gw_writer_fini(&rig->w);
    rig_side_close(&rig->src);
    rig_side_close(&rig->dst);
}

/* What the writer holds, as a section: loaded by the target, all of it. */
static inline int rig_load(struct rig *rig, enum gw_device_part part)
{
    struct gw_reader r;
    GW_ASSERT_EQ(gw_writer_error(&rig->w), 0);
    gw_reader_init(&r, rig->w.data, rig->w.bytes);
    int rc = rig->dst.desc.ops->load(rig->dst.vfio, &r, part, GW_VFIO_VERSION, &rig->err);
    if (rc >= 0 && (gw_reader_error(&r) < 0 || gw_reader_left(&r) > 0))
        rc = gw_error_set(&rig->err, -EBADMSG, GW_CODE_DEVICE, "%zu bytes were not consumed",
                          gw_reader_left(&r));
    rig->acks += rc == GW_DEVICE_ACK;
    rig->sections[part]++;
    gw_writer_reset(&rig->w);
    return rc;
}

static inline uint64_t rig_bytes_max(const struct rig *rig)
{
    return rig->bytes_max ? rig->bytes_max : 64 << 10;
}

static inline int rig_setup(struct rig *rig)
{
    const struct gw_device_ops *ops = rig->src.desc.ops;
    int rc = ops->load_setup(rig->dst.vfio, &rig->err);
    if (rc == 0)
        rc = ops->setup(rig->src.vfio, &rig->w, &rig->err);
    return rc < 0 ? rc : rig_load(rig, GW_DEVICE_BEGIN);
}

/* One round: until the device says that there is nothing now, or so many sections. */
static inline int rig_round(struct rig *rig, unsigned sections_max)
{
    const struct gw_device_ops *ops = rig->src.desc.ops;
    struct gw_device_pending pending = {0};
    int rc = ops->pending_estimate(rig->src.vfio, &pending, &rig->err);
    for (unsigned i = 0; rc == 0 && i < sections_max; i++) {
        rc = ops->iterate(rig->src.vfio, &rig->w, rig_bytes_max(rig), &rig->err);
        bool done = rc == GW_DEVICE_DONE;
        if (rc >= 0 && rig->w.bytes > 0)
            rc = rig_load(rig, GW_DEVICE_PART);
        if (rc < 0 || done)
            break;
        rc = 0;
    }
    vendor_run(rig->src.vendor, rig->writes_a_round);
    return rc < 0 ? rc : 0;
}

static inline int rig_complete(struct rig *rig)
{
    const struct gw_device_ops *ops = rig->src.desc.ops;
    int rc = gw_vfio_stop_all(&rig->src.vfio, 1, &rig->err);
    while (rc == 0) {
        rc = ops->complete_precopy(rig->src.vfio, &rig->w, rig_bytes_max(rig), &rig->err);
        bool done = rc == GW_DEVICE_DONE;
        if (rc >= 0)
            rc = rig_load(rig, done ? GW_DEVICE_END : GW_DEVICE_PART);
        if (done)
            break;
    }
    if (rc == 0)
        rc = rig->src.desc.save(rig->src.vfio, &rig->w, &rig->err);
    if (rc == 0)
        rc = rig_load(rig, GW_DEVICE_FULL);
    if (rc == 0)
        rc = ops->load_complete(rig->dst.vfio, &rig->err);
    return rc < 0 ? rc : 0;
}

/* After everything: as an embedder and the library would, with the guest at the target or the source. */
static inline void rig_settle(struct rig *rig, bool completed)
{
    const struct gw_device_ops *ops = rig->src.desc.ops;
    struct gw_error err = GW_ERROR_INIT;
    struct rig_side *side = completed ? &rig->dst : &rig->src;
    int rc = gw_vfio_start_all(&side->vfio, 1, &err);
    GW_EXPECT_EQ(rc, 0);
    if (rc < 0)
        GW_NOTE_FAILURE("%s", err.message);
    ops->cleanup(rig->src.vfio);
    ops->load_cleanup(rig->dst.vfio);
}

static inline int rig_migrate(struct rig *rig)
{
    unsigned rounds = rig->rounds_max ? rig->rounds_max : 20;
    int rc = rig_setup(rig);
    for (unsigned i = 0; rc == 0 && i < rounds; i++)
        rc = rig_round(rig, 1000);
    if (rc == 0)
        rc = rig_complete(rig);
    gw_writer_reset(&rig->w);
    return rc;
}

static inline void rig_expect_clean(const struct rig *rig)
{
    const char *src = vendor_violation(rig->src.vendor), *dst = vendor_violation(rig->dst.vendor);
    if (src)
        GW_NOTE_FAILURE("the source's driver: %s", src);
    if (dst)
        GW_NOTE_FAILURE("the target's driver: %s", dst);
}

/* It moved: the same state there, running; here it stopped. */
static inline void rig_expect_moved(struct rig *rig, int rc)
{
    if (rc < 0)
        GW_NOTE_FAILURE("%s", rig->err.message);
    GW_EXPECT_EQ(rc, 0);
    GW_EXPECT(vendor_is_equal(rig->src.vendor, rig->dst.vendor));
    rig_settle(rig, rc == 0);
    if (rc == 0) {
        GW_EXPECT_EQ(vendor_state(rig->dst.vendor), GW_ODEV_RUNNING);
        GW_EXPECT_EQ(vendor_state(rig->src.vendor), GW_ODEV_STOP);
    }
    rig_expect_clean(rig);
}

#endif
