// SPDX-License-Identifier: MIT
/* Two documents, a NUL between them: each becomes an inventory or is refused with a sentence. Devices that
 * both describe are compared both ways round, which mirrors the verdict; what was sent, compared with itself,
 * has no finding. */
#include "control/compare.h"
#include "control/inventory.h"
#include "tests/fuzz/fuzz.h"

#define DEVICES_MAX 8u

struct verdict {
    unsigned breaks, doubtful, findings;
};

static int note(void *ctx, const struct gw_compat_finding *f)
{
    struct verdict *verdict = ctx;
    FUZZ_MUST((f->breaks & f->doubtful) == 0 && (f->breaks | f->doubtful) != 0);
    FUZZ_MUST(f->path && strlen(f->path) < GW_FIELD_PATH_BYTES && f->message);
    verdict->breaks |= f->breaks;
    verdict->doubtful |= f->doubtful;
    verdict->findings++;
    return 0;
}

static struct verdict compare(const struct gw_description *a, int i, const struct gw_description *b,
                              int j, int *rc)
{
    struct gw_error err = GW_ERROR_INIT;
    struct verdict verdict = {0};
    *rc = gw_compare_device(a, (unsigned)i, b, (unsigned)j, note, &verdict, &err);
    if (*rc < 0)
        fuzz_refused(*rc, &err);
    verdict.doubtful &= ~verdict.breaks;
    return verdict;
}

static unsigned mirrored(unsigned ways)
{
    return (ways & 1) << 1 | ways >> 1;
}

static void compare_all(const struct gw_inventory *older, const struct gw_inventory *newer)
{
    const struct gw_described_device *device;
    for (unsigned i = 0; i < DEVICES_MAX; i++) {
        int rc, back_rc;
        device = older->description ? gw_description_device(older->description, i) : NULL;
        if (!device || !newer->description)
            return;
        int j = gw_description_find(newer->description, device->idstr, device->instance_id, i);
        if (j < 0)
            continue;
        struct verdict there = compare(older->description, (int)i, newer->description, j, &rc);
        struct verdict back = compare(newer->description, j, older->description, (int)i, &back_rc);
        if (rc == 0 && back_rc == 0) {
            FUZZ_MUST(back.breaks == mirrored(there.breaks));
            FUZZ_MUST(back.doubtful == mirrored(there.doubtful));
        }
        struct verdict same = compare(older->description, (int)i, older->description, (int)i, &rc);
        FUZZ_MUST(rc < 0 || older->source == GW_COMPAT_STATIC || same.findings == 0);
    }
}

static int read_side(struct gw_inventory *side, const uint8_t *data, size_t bytes)
{
    struct gw_error err = GW_ERROR_INIT;
    int rc = gw_inventory_read(side, (const char *)data, bytes, &err);
    if (rc == 0)
        rc = gw_inventory_seal(side, &err);
    if (rc < 0)
        fuzz_refused(rc, &err);
    for (unsigned i = 0; rc == 0 && i < side->section_count && i < DEVICES_MAX; i++) {
        const struct gw_inventory_section *s = &side->sections[i];
        int at = gw_inventory_find(side, s->idstr, s->instance_id);
        FUZZ_MUST(at >= 0 && at <= (int)i && strcmp(side->sections[at].idstr, s->idstr) == 0);
    }
    return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct gw_inventory a = {0}, b = {0};
    const uint8_t *nul = memchr(data, 0, bytes);
    size_t first = nul ? (size_t)(nul - data) : bytes;
    int rc = read_side(&a, data, first);
    if (rc == 0 && nul)
        rc = read_side(&b, nul + 1, bytes - first - 1);
    if (rc == 0 && nul && (a.source == GW_COMPAT_STATIC) == (b.source == GW_COMPAT_STATIC))
        compare_all(&a, &b);
    gw_inventory_fini(&a);
    gw_inventory_fini(&b);
    return 0;
}
