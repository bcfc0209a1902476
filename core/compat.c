// SPDX-License-Identifier: MIT
/* Two sides compared: machine, page, blocks, then every device of either. control/compare.c judges what is
 * inside of a device, this what is there at all. Findings are kept up to a limit and counted beyond it; the
 * directions that break are right whatever was dropped. */
#include "core/compat_impl.h"

#include "control/compare.h"
#include "core/base/alloc.h"
#include "core/base/bytes.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define BOTH (GW_COMPAT_FORWARD | GW_COMPAT_BACKWARD)

struct kept {
    struct gw_compat_finding finding;
    char *device, *path, *older, *newer; /* what it points to */
};

struct gw_compat {
    struct gw_compat_facts facts;
    struct kept *findings;
    unsigned room;
};

struct judge {
    const struct gw_inventory *older, *newer;
    struct gw_compat *compat;
    const struct gw_inventory_section *device; /* whose fields are compared */
    struct gw_error *err;
};

/* ---- findings ----------------------------------------------------------------------------------- */

static char *copy_of(const char *text, bool *failed)
{
    char *copy = text ? gw_strdup(text) : NULL;
    *failed = *failed || (text && !copy);
    return copy;
}

static void free_finding(struct kept *kept)
{
    gw_free(kept->device);
    gw_free(kept->path);
    gw_free(kept->older);
    gw_free(kept->newer);
}

static int keep(struct gw_compat *compat, const struct gw_compat_finding *finding)
{
    bool failed = false;
    if (compat->facts.finding_count == compat->room) {
        unsigned room = compat->room ? 2 * compat->room : 16;
        struct kept *findings = gw_realloc(compat->findings, room, sizeof(*findings));
        if (!findings)
            return -ENOMEM;
        compat->findings = findings;
        compat->room = room;
    }
    struct kept kept = {.finding = *finding, /* its message is ours, and constant */
                        .device = copy_of(finding->device, &failed),
                        .path = copy_of(finding->path, &failed),
                        .older = copy_of(finding->older, &failed),
                        .newer = copy_of(finding->newer, &failed)};
    if (failed) {
        free_finding(&kept);
        return -ENOMEM;
    }
    kept.finding.device = kept.device;
    kept.finding.path = kept.path;
    kept.finding.older = kept.older;
    kept.finding.newer = kept.newer;
    compat->findings[compat->facts.finding_count++] = kept;
    return 0;
}

static int tell(struct judge *judge, const struct gw_compat_finding *finding)
{
    struct gw_compat *compat = judge->compat;
    compat->facts.breaks |= finding->breaks;
    compat->facts.doubtful |= finding->doubtful;
    if (compat->facts.finding_count == GW_COMPAT_FINDINGS_MAX) {
        compat->facts.dropped++;
        return 0;
    }
    return keep(compat, finding) < 0 ? gw_fail(judge->err, -ENOMEM, "list of findings") : 0;
}

static int tell_pair(struct judge *judge, enum gw_compat_kind kind, const char *device,
                     unsigned breaks, unsigned doubtful, const char *message, const char *older,
                     const char *newer)
{
    struct gw_compat_finding finding = {.kind = kind,
                                        .breaks = breaks,
                                        .doubtful = doubtful,
                                        .device = device,
                                        .path = "",
                                        .message = message,
                                        .older = older,
                                        .newer = newer};
    return tell(judge, &finding);
}

/* Of a field of the device at work. */
static int tell_inside(void *ctx, const struct gw_compat_finding *finding)
{
    struct judge *judge = ctx;
    struct gw_compat_finding named = *finding;
    named.device = judge->device->idstr;
    named.instance_id = judge->device->instance_id;
    return tell(judge, &named);
}

/* ---- machine, page, blocks ----------------------------------------------------------------------- */

static bool is_static(const struct judge *judge)
{
    return judge->older->source == GW_COMPAT_STATIC;
}

static int judge_machine(struct judge *judge)
{
    const char *a = judge->older->machine, *b = judge->newer->machine;
    if (!a[0] || !b[0] || strcmp(a, b) == 0)
        return 0;
    if (is_static(judge)) /* each program names the machine that it was asked with */
        return tell_pair(judge, GW_COMPAT_MACHINE, "", 0, BOTH,
                         "dumps of different machine types: some fields depend on it", a, b);
    return tell_pair(judge, GW_COMPAT_MACHINE, "", BOTH, 0, "another machine type is refused", a,
                     b);
}

/* What surrounds sections is the machine's choice, and both ends have to make the same. */
static int judge_frame(struct judge *judge)
{
    const struct gw_inventory *a = judge->older, *b = judge->newer;
    int rc = 0;
    if (!a->is_whole || !b->is_whole)
        return 0;
    if (a->has_configuration != b->has_configuration)
        rc =
            tell_pair(judge, GW_COMPAT_MACHINE, "", BOTH, 0, "only one has a configuration section",
                      a->has_configuration ? "there" : NULL, b->has_configuration ? "there" : NULL);
    if (rc == 0 && a->has_footers != b->has_footers)
        rc = tell_pair(judge, GW_COMPAT_MACHINE, "", BOTH, 0, "only one has section footers",
                       a->has_footers ? "there" : NULL, b->has_footers ? "there" : NULL);
    return rc;
}

static int judge_page(struct judge *judge)
{
    uint64_t a = judge->older->page_bytes, b = judge->newer->page_bytes;
    char x[32], y[32];
    if (a == 0 || b == 0 || a == b)
        return 0;
    snprintf(x, sizeof(x), "%" PRIu64 " bytes", a);
    snprintf(y, sizeof(y), "%" PRIu64 " bytes", b);
    return tell_pair(judge, GW_COMPAT_PAGE, "", BOTH, 0, "another page size", x, y);
}

static const struct gw_inventory_block *find_block(const struct gw_inventory *in, unsigned near,
                                                   const char *name)
{
    for (unsigned n = 0; n < in->block_count; n++) {
        unsigned i = (near + n) % in->block_count;
        if (strcmp(in->blocks[i].name, name) == 0)
            return &in->blocks[i];
    }
    return NULL;
}

static int judge_block(struct judge *judge, const struct gw_inventory_block *older,
                       const struct gw_inventory_block *newer)
{
    char a[32], b[32];
    /* Tables of firmware that are made at boot may grow in place, up to a size that no stream says. */
    bool resizable = strncmp(older->name, "/rom@", 5) == 0;
    if (older->bytes == newer->bytes)
        return 0;
    snprintf(a, sizeof(a), "%" PRIu64 " bytes", older->bytes);
    snprintf(b, sizeof(b), "%" PRIu64 " bytes", newer->bytes);
    return tell_pair(judge, GW_COMPAT_BLOCK, older->name, resizable ? 0 : BOTH,
                     resizable ? BOTH : 0,
                     resizable ? "a block of another size, right if it can be resized"
                               : "a block of another size",
                     a, b);
}

static int judge_blocks(struct judge *judge)
{
    const struct gw_inventory *a = judge->older, *b = judge->newer;
    char text[32];
    int rc = 0;
    if (a->block_count == 0 || b->block_count == 0) /* a description alone has none */
        return 0;
    for (unsigned i = 0; rc == 0 && i < a->block_count; i++) {
        const struct gw_inventory_block *other = find_block(b, i, a->blocks[i].name);
        snprintf(text, sizeof(text), "%" PRIu64 " bytes", a->blocks[i].bytes);
        rc = other ? judge_block(judge, &a->blocks[i], other)
                   : tell_pair(judge, GW_COMPAT_BLOCK, a->blocks[i].name, GW_COMPAT_FORWARD, 0,
                               "a block that is gone is refused", text, NULL);
    }
    for (unsigned i = 0; rc == 0 && i < b->block_count; i++) {
        snprintf(text, sizeof(text), "%" PRIu64 " bytes", b->blocks[i].bytes);
        if (!find_block(a, i, b->blocks[i].name))
            rc = tell_pair(judge, GW_COMPAT_BLOCK, b->blocks[i].name, GW_COMPAT_BACKWARD, 0,
                           "a new block is refused", NULL, text);
    }
    return rc;
}

/* ---- devices -------------------------------------------------------------------------------------- */

/* A description has no iterative sections: that they are missing there says nothing. */
static bool is_comparable(const struct gw_inventory_section *section,
                          const struct gw_inventory *other)
{
    return !section->is_iterative || other->source == GW_COMPAT_STREAM ||
           other->source == GW_COMPAT_ANALYSIS;
}

static int tell_device(struct judge *judge, const struct gw_inventory_section *section,
                       unsigned breaks, unsigned doubtful, const char *message, const char *older,
                       const char *newer)
{
    struct gw_compat_finding finding = {.kind = GW_COMPAT_DEVICE,
                                        .breaks = breaks,
                                        .doubtful = doubtful,
                                        .device = section->idstr,
                                        .instance_id = section->instance_id,
                                        .path = "",
                                        .message = message,
                                        .older = older,
                                        .newer = newer};
    return tell(judge, &finding);
}

/* One side has a device that the other has not. */
static int judge_missing(struct judge *judge, const struct gw_inventory_section *section,
                         bool in_newer)
{
    unsigned breaks = in_newer ? GW_COMPAT_BACKWARD : GW_COMPAT_FORWARD;
    char text[32] = "there";
    if (section->has_version)
        snprintf(text, sizeof(text), "version %" PRIu32, section->version_id);
    if (is_static(judge))
        return tell_device(judge, section, breaks, 0,
                           in_newer ? "a new device: machines that have it cannot go back"
                                    : "a device that is gone: machines that have it cannot move",
                           in_newer ? NULL : text, in_newer ? text : NULL);
    return tell_device(judge, section, breaks, BOTH & ~breaks,
                       in_newer ? "a new device: refused by the old, not sent to the new"
                                : "a device that is gone: refused by the new, not sent to the old",
                       in_newer ? NULL : text, in_newer ? text : NULL);
}

/* What is left without a description. */
static int judge_version(struct judge *judge, const struct gw_inventory_section *a,
                         const struct gw_inventory_section *b)
{
    char x[16], y[16];
    judge->compat->facts.by_version += !a->is_iterative; /* these are never described */
    if (!a->has_version || !b->has_version || a->version_id == b->version_id)
        return 0;
    snprintf(x, sizeof(x), "%" PRIu32, a->version_id);
    snprintf(y, sizeof(y), "%" PRIu32, b->version_id);
    return tell_device(judge, a,
                       a->version_id > b->version_id ? GW_COMPAT_FORWARD : GW_COMPAT_BACKWARD, 0,
                       "another version", x, y);
}

static int judge_device(struct judge *judge, unsigned i, unsigned j)
{
    int a = gw_compat_described(judge->older, i), b = gw_compat_described(judge->newer, j);
    if (a < 0 || b < 0)
        return judge_version(judge, &judge->older->sections[i], &judge->newer->sections[j]);
    judge->device = &judge->older->sections[i];
    judge->compat->facts.compared++;
    int rc = gw_compare_device(judge->older->description, (unsigned)a, judge->newer->description,
                               (unsigned)b, tell_inside, judge, judge->err);
    return rc == -EPROTO ? gw_error_prefix(judge->err, "device '%s'", judge->device->idstr) : rc;
}

static int judge_devices(struct judge *judge)
{
    const struct gw_inventory *a = judge->older, *b = judge->newer;
    int rc = 0;
    for (unsigned i = 0; rc == 0 && i < a->section_count; i++) {
        const struct gw_inventory_section *s = &a->sections[i];
        int j = gw_inventory_find(b, s->idstr, s->instance_id);
        if (j >= 0)
            rc = judge_device(judge, i, (unsigned)j);
        else if (is_comparable(s, b))
            rc = judge_missing(judge, s, false);
    }
    for (unsigned j = 0; rc == 0 && j < b->section_count; j++) {
        const struct gw_inventory_section *s = &b->sections[j];
        if (gw_inventory_find(a, s->idstr, s->instance_id) < 0 && is_comparable(s, a))
            rc = judge_missing(judge, s, true);
    }
    return rc;
}

/* ---- the whole ------------------------------------------------------------------------------------ */

static int judge_all(struct judge *judge)
{
    int rc = judge_machine(judge);
    if (rc == 0)
        rc = judge_frame(judge);
    if (rc == 0)
        rc = judge_page(judge);
    if (rc == 0)
        rc = judge_blocks(judge);
    return rc == 0 ? judge_devices(judge) : rc;
}

int gw_compat(const struct gw_compat_side *older, const struct gw_compat_side *newer,
              struct gw_compat **compat, struct gw_error *err)
{
    struct judge judge = {.older = &older->inventory, .newer = &newer->inventory, .err = err};
    if ((judge.older->source == GW_COMPAT_STATIC) != (judge.newer->source == GW_COMPAT_STATIC)) {
        int rc = gw_fail(err, -EINVAL, "one side says what could be sent, the other what was sent");
        gw_error_hint(err, "compare two dumps of -dump-vmstate, or two streams or what was made "
                           "of them");
        return rc;
    }
    judge.compat = gw_zalloc(1, sizeof(*judge.compat));
    if (!judge.compat)
        return gw_fail(err, -ENOMEM, "comparison");
    int rc = judge_all(&judge);
    if (rc < 0) {
        gw_compat_free(judge.compat);
        return rc;
    }
    judge.compat->facts.doubtful &= ~judge.compat->facts.breaks;
    *compat = judge.compat;
    return 0;
}

void gw_compat_free(struct gw_compat *compat)
{
    if (!compat)
        return;
    for (unsigned i = 0; i < compat->facts.finding_count; i++)
        free_finding(&compat->findings[i]);
    gw_free(compat->findings);
    gw_free(compat);
}

void gw_compat_facts(const struct gw_compat *compat, struct gw_compat_facts *facts)
{
    struct gw_compat_facts known = compat->facts;
    known.struct_bytes = facts->struct_bytes;
    memcpy(facts, &known, gw_min_u64(facts->struct_bytes, sizeof(known)));
}

bool gw_compat_finding(const struct gw_compat *compat, unsigned index,
                       struct gw_compat_finding *finding)
{
    if (index >= compat->facts.finding_count)
        return false;
    struct gw_compat_finding known = compat->findings[index].finding;
    known.struct_bytes = finding->struct_bytes;
    memcpy(finding, &known, gw_min_u64(finding->struct_bytes, sizeof(known)));
    return true;
}
