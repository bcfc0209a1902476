// SPDX-License-Identifier: MIT
/* A device grows from version n to n + 1: what a comparison of what both send says, and what the loader then
 * does with it. The comparison may be in doubt, but never wrong: what it says breaks is refused or misread,
 * and what it says nothing about is loaded. */
#include "control/compare.h"
#include "control/vmdesc.h"
#include "tests/unit/control/vmstate_rig.h"

struct part {
    uint16_t x, y;
};

struct disk {
    uint32_t sector, cache, more;
    uint64_t dma_at;
    struct part part;
};

static bool always(const void *opaque)
{
    (void)opaque;
    return true;
}

static const struct gw_vmstate dma = {
    GW_VMSTATE_OF(struct disk),
    .name = "disk/dma",
    .version_id = 1,
    .minimum_version_id = 1,
    .needed = always,
    GW_VMSTATE_FIELDS(GW_VMSTATE_UINT64(dma_at, struct disk)),
};

static const struct gw_vmstate part_1 = {
    GW_VMSTATE_OF(struct part),
    .name = "part",
    .version_id = 1,
    .minimum_version_id = 1,
    GW_VMSTATE_FIELDS(GW_VMSTATE_UINT16(x, struct part)),
};

static const struct gw_vmstate part_2 = {
    GW_VMSTATE_OF(struct part),
    .name = "part",
    .version_id = 2,
    .minimum_version_id = 1,
    GW_VMSTATE_FIELDS(GW_VMSTATE_UINT16(x, struct part), GW_VMSTATE_UINT16_V(y, struct part, 2)),
};

#define DISK(name_, version, ...)                                                                  \
    static const struct gw_vmstate name_ = {                                                       \
        GW_VMSTATE_OF(struct disk), .name = "disk", .version_id = (version),                       \
        .minimum_version_id = 1,    __VA_ARGS__,                                                   \
    }
#define SECTOR GW_VMSTATE_UINT32(sector, struct disk)
#define CACHE GW_VMSTATE_UINT32(cache, struct disk)
#define PART(vmsd) GW_VMSTATE_STRUCT(part, struct disk, vmsd, struct part)

DISK(n, 2, GW_VMSTATE_FIELDS(SECTOR, CACHE));
DISK(n_and_subsection, 2, GW_VMSTATE_FIELDS(SECTOR, CACHE), GW_VMSTATE_SUBSECTIONS(&dma));
DISK(n_and_field, 3, GW_VMSTATE_FIELDS(SECTOR, CACHE, GW_VMSTATE_UINT32_V(more, struct disk, 3)));
DISK(n_and_field_without_version, 2,
     GW_VMSTATE_FIELDS(SECTOR, CACHE, GW_VMSTATE_UINT32(more, struct disk)));
DISK(n_and_field_in_a_new_version, 3,
     GW_VMSTATE_FIELDS(SECTOR, CACHE, GW_VMSTATE_UINT32(more, struct disk)));
DISK(n_without_cache, 2, GW_VMSTATE_FIELDS(SECTOR, GW_VMSTATE_UNUSED(struct disk, 4)));
DISK(n_without_cache_or_room, 2, GW_VMSTATE_FIELDS(SECTOR));
DISK(n_with_a_longer_cache, 2, GW_VMSTATE_FIELDS(SECTOR, GW_VMSTATE_UINT64(dma_at, struct disk)));
DISK(n_with_part_1, 2, GW_VMSTATE_FIELDS(SECTOR, PART(part_1)));
DISK(n_with_part_2, 2, GW_VMSTATE_FIELDS(SECTOR, PART(part_2)));

/* ---- what is sent -------------------------------------------------------------------------------- */

struct sent {
    struct gw_writer body;
    struct gw_vmdesc desc;
    struct gw_description *description;
};

static struct disk sample(void)
{
    return (struct disk){.sector = 1, .cache = 2, .more = 3, .dma_at = 4, .part = {5, 6}};
}

static void save(const struct gw_vmstate *vmsd, struct sent *sent)
{
    struct disk disk = sample();
    struct gw_vmstate_device dev = rig_device(vmsd, &disk);
    size_t at = 0;
    gw_vmdesc_init(&sent->desc, 4096, 1 << 16);
    gw_writer_init(&sent->body, 1 << 16);
    sent->body.desc = &sent->desc;
    gw_vmdesc_device_begin(&sent->desc, "disk", 0);
    GW_ASSERT_EQ(gw_vmstate_save(&dev, &sent->body, &rig_err), 0);
    gw_vmdesc_device_end(&sent->desc, sent->body.bytes);
    gw_vmdesc_end(&sent->desc);
    GW_ASSERT_EQ(gw_description_new((const char *)sent->desc.text.data, sent->desc.text.bytes,
                                    &sent->description, &at, &rig_err),
                 0);
}

static void drop(struct sent *sent)
{
    gw_description_free(sent->description);
    gw_vmdesc_fini(&sent->desc);
    gw_writer_fini(&sent->body);
}

/* Loaded to its end, and what both have is what it was. */
static bool is_loaded(const struct gw_vmstate *from, const struct sent *sent,
                      const struct gw_vmstate *to)
{
    struct disk disk = {0}, was = sample();
    struct gw_vmstate_device dev = rig_device(to, &disk);
    struct gw_reader r;
    gw_reader_init(&r, sent->body.data, sent->body.bytes);
    return gw_vmstate_load(&dev, &r, from->version_id, &rig_err) == 0 && gw_reader_left(&r) == 0 &&
           disk.sector == was.sector;
}

static int note(void *ctx, const struct gw_compat_finding *f)
{
    unsigned *ways = ctx;
    ways[0] |= f->breaks;
    ways[1] |= f->doubtful;
    return 0;
}

static void check(const struct gw_vmstate *from, const struct gw_vmstate *to, const char *what,
                  unsigned expected_breaks, unsigned expected_doubtful)
{
    struct sent a, b;
    unsigned ways[2] = {0, 0};
    save(from, &a);
    save(to, &b);
    GW_ASSERT_EQ(gw_compare_device(a.description, 0, b.description, 0, note, ways, &rig_err), 0);
    ways[1] &= ~ways[0];
    bool forward = is_loaded(from, &a, to), backward = is_loaded(to, &b, from);
    if (!GW_EXPECT_EQ(ways[0], expected_breaks) || !GW_EXPECT_EQ(ways[1], expected_doubtful))
        gw_test_note(__FILE__, __LINE__, "%s", what);
    /* never wrong */
    if (!((ways[0] | ways[1]) & GW_COMPAT_FORWARD))
        GW_EXPECT(forward);
    if (!((ways[0] | ways[1]) & GW_COMPAT_BACKWARD))
        GW_EXPECT(backward);
    if (ways[0] & GW_COMPAT_FORWARD)
        GW_EXPECT(!forward);
    if (ways[0] & GW_COMPAT_BACKWARD)
        GW_EXPECT(!backward);
    drop(&a);
    drop(&b);
}

#define FORWARD GW_COMPAT_FORWARD
#define BACKWARD GW_COMPAT_BACKWARD
#define BOTH (FORWARD | BACKWARD)

GW_TEST(compare, a_verdict_on_n_and_n_plus_1_is_what_the_loader_does)
{
    check(&n, &n, "the same", 0, 0);
    check(&n, &n_and_subsection, "a subsection more", BACKWARD, 0);
    check(&n, &n_and_field, "a field of the new version", BACKWARD, FORWARD);
    check(&n, &n_and_field_in_a_new_version, "a field, not of the new version", BACKWARD, FORWARD);
    check(&n, &n_and_field_without_version, "a field, no new version", BOTH, 0);
    check(&n, &n_without_cache, "a field less, its room left", 0, 0);
    check(&n, &n_without_cache_or_room, "a field less", BOTH, 0);
    check(&n, &n_with_a_longer_cache, "another field", BOTH, 0);
    check(&n_with_part_1, &n_with_part_2, "a field more in a structure", BOTH, 0);
}
