// SPDX-License-Identifier: MIT
/* One device in two descriptions. Fields are paired by name and walked in both orders at once: those without
 * a peer that stand at one place are judged together, so that a field which gave way to unused bytes is no
 * difference. Structures are walked into, element by element until one differs; subsections are paired by
 * name, wherever they stand. What a difference means is compare_judge.c's. */
#include "control/compare_impl.h"
#include "core/base/alloc.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define SUBSECTIONS_MAX 1024u /* of one description, in one of them */

static int compare_state(struct gw_compare *c, const struct gw_compare_level *level, json_t *older,
                         json_t *newer, unsigned depth);

size_t gw_compare_path_add(struct gw_compare *c, const char *text)
{
    size_t used = strlen(c->path);
    snprintf(c->path + used, sizeof(c->path) - used, "%s%s",
             used && text[0] && text[0] != '[' ? "." : "", text);
    return used;
}

int gw_compare_tell(struct gw_compare *c, enum gw_compat_kind kind, unsigned breaks,
                    unsigned doubtful, const char *message, const char *older, const char *newer)
{
    struct gw_compat_finding finding = {.struct_bytes = sizeof(finding),
                                        .kind = kind,
                                        .breaks = breaks,
                                        .doubtful = doubtful & ~breaks,
                                        .device = "",
                                        .path = c->path,
                                        .message = message,
                                        .older = older,
                                        .newer = newer};
    c->findings++;
    return c->found(c->ctx, &finding);
}

/* ---- fields ------------------------------------------------------------------------------------ */

static uint32_t version_of(const struct gw_compare *c, json_t *state)
{
    const char *key = c->is_static ? "version_id" : "version";
    return (uint32_t)json_integer_value(json_object_get(state, key));
}

static int compare_element(struct gw_compare *c, json_t *older, json_t *newer, unsigned depth)
{
    struct gw_compare_level level = {.older = version_of(c, older), .newer = version_of(c, newer)};
    return compare_state(c, &level, older, newer, depth + 1);
}

/* Elements one by one until one differs: what an array's elements have in common is told once. */
static int compare_inside(struct gw_compare *c, const struct gw_compare_field *older,
                          const struct gw_compare_field *newer, unsigned depth)
{
    size_t count = older->entries < newer->entries ? older->entries : newer->entries;
    unsigned findings = c->findings;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < count && c->findings == findings; i++) {
        json_t *a = gw_compare_inner(c, older, i), *b = gw_compare_inner(c, newer, i);
        char number[32] = "";
        if (!a || !b)
            continue;
        if (count > 1)
            snprintf(number, sizeof(number), "[%zu]", i);
        size_t used = gw_compare_path_add(c, number);
        rc = compare_element(c, a, b, depth);
        c->path[used] = '\0';
    }
    return rc;
}

static int compare_field(struct gw_compare *c, const struct gw_compare_level *level,
                         struct gw_compare_field *older, struct gw_compare_field *newer,
                         unsigned depth)
{
    size_t used = gw_compare_path_add(c, older->name);
    int rc = gw_compare_same(c, level, older, newer);
    if (rc == 0)
        rc = compare_inside(c, older, newer, depth);
    c->path[used] = '\0';
    older->done = newer->done = true;
    return rc;
}

struct place { /* in both lists at once */
    struct gw_compare_fields older, newer;
    int i, j;
    bool moved; /* told once for a state */
};

/* Fields that only one of the two has. */
static int compare_replaced(struct gw_compare *c, const struct gw_compare_level *level,
                            struct place *at)
{
    int i = at->i, j = at->j;
    while (at->i < at->older.count && at->older.list[at->i].peer < 0)
        at->i++;
    while (at->j < at->newer.count && at->newer.list[at->j].peer < 0)
        at->j++;
    return gw_compare_replaced(c, level, at->older.list + i, at->i - i, at->newer.list + j,
                               at->j - j);
}

/* Both fields have peers, which do not stand here. */
static int compare_moved(struct gw_compare *c, const struct gw_compare_level *level,
                         struct place *at, unsigned depth)
{
    struct gw_compare_field *field = &at->older.list[at->i++];
    int rc = 0;
    if (!at->moved) {
        size_t used = gw_compare_path_add(c, field->name);
        rc = gw_compare_moved(c, level, field);
        c->path[used] = '\0';
        at->moved = true;
    }
    return rc != 0 ? rc : compare_field(c, level, field, &at->newer.list[field->peer], depth);
}

static int compare_lists(struct gw_compare *c, const struct gw_compare_level *level,
                         struct place *at, unsigned depth)
{
    int rc = 0;
    while (rc == 0 && (at->i < at->older.count || at->j < at->newer.count)) {
        struct gw_compare_field *a = &at->older.list[at->i], *b = &at->newer.list[at->j];
        bool has_a = at->i < at->older.count, has_b = at->j < at->newer.count;
        if (has_a && a->done) {
            at->i++;
        } else if (has_b && b->done) {
            at->j++;
        } else if ((has_a && a->peer < 0) || (has_b && b->peer < 0)) {
            rc = compare_replaced(c, level, at);
        } else if (a->peer == at->j) {
            at->i++;
            at->j++;
            rc = compare_field(c, level, a, b, depth);
        } else {
            rc = compare_moved(c, level, at, depth);
        }
    }
    return rc;
}

static int compare_fields(struct gw_compare *c, const struct gw_compare_level *level, json_t *older,
                          json_t *newer, unsigned depth)
{
    struct place at = {.i = 0};
    int rc = gw_compare_list(c, older, &at.older);
    if (rc == 0)
        rc = gw_compare_list(c, newer, &at.newer);
    if (rc == 0)
        rc = gw_compare_pair(c, &at.older, &at.newer);
    if (rc == 0)
        rc = compare_lists(c, level, &at, depth);
    gw_free(at.older.list);
    gw_free(at.newer.list);
    return rc;
}

/* ---- versions ----------------------------------------------------------------------------------- */

static uint32_t minimum_of(const struct gw_compare *c, json_t *state)
{
    return c->is_static ? (uint32_t)json_integer_value(json_object_get(state, "minimum_version_id"))
                        : 0;
}

/* A loader refuses what is newer than itself, or older than it goes back. */
static int compare_versions(struct gw_compare *c, enum gw_compat_kind kind,
                            const struct gw_compare_level *level, json_t *older, json_t *newer)
{
    char a[16], b[16];
    bool forward = level->older > level->newer || level->older < minimum_of(c, newer);
    bool backward = level->newer > level->older || level->newer < minimum_of(c, older);
    unsigned breaks = (forward ? GW_COMPAT_FORWARD : 0) | (backward ? GW_COMPAT_BACKWARD : 0);
    snprintf(a, sizeof(a), "%" PRIu32, level->older);
    snprintf(b, sizeof(b), "%" PRIu32, level->newer);
    return breaks ? gw_compare_tell(c, kind, breaks, 0, "another version", a, b) : 0;
}

/* ---- subsections --------------------------------------------------------------------------------- */

static json_t *subsections_of(const struct gw_compare *c, json_t *state)
{
    return json_object_get(state, c->is_static ? "Subsections" : "subsections");
}

static const char *name_of(const struct gw_compare *c, json_t *subsection)
{
    const char *name =
        json_string_value(json_object_get(subsection, c->is_static ? "name" : "vmsd_name"));
    return name ? name : "";
}

static json_t *find_subsection(const struct gw_compare *c, json_t *list, const char *name)
{
    json_t *subsection;
    size_t i;
    json_array_foreach(list, i, subsection)
    {
        if (strcmp(name_of(c, subsection), name) == 0)
            return subsection;
    }
    return NULL;
}

static int check_subsections(struct gw_compare *c, json_t *list)
{
    json_t *subsection;
    size_t i;
    if (json_array_size(list) > SUBSECTIONS_MAX)
        return gw_fail(c->err, -EPROTO, "more than %u subsections", SUBSECTIONS_MAX);
    json_array_foreach(list, i, subsection)
    {
        const char *name = name_of(c, subsection);
        if (!name[0])
            return gw_fail(c->err, -EPROTO, "the description of a subsection is malformed");
        if (find_subsection(c, list, name) != subsection)
            return gw_fail(c->err, -EPROTO, "subsection '%.60s' is there twice", name);
    }
    return 0;
}

static int compare_subsection(struct gw_compare *c, json_t *older, json_t *newer, unsigned depth)
{
    struct gw_compare_level level = {
        .in_stream = true, .older = version_of(c, older), .newer = version_of(c, newer)};
    size_t used = gw_compare_path_add(c, name_of(c, older));
    int rc = compare_versions(c, GW_COMPAT_SUBSECTION, &level, older, newer);
    if (rc == 0)
        rc = compare_state(c, &level, older, newer, depth + 1);
    c->path[used] = '\0';
    return rc;
}

/* Who does not know a subsection refuses it. That a static description has one does not say that it is sent. */
static int tell_subsection(struct gw_compare *c, json_t *subsection, bool in_newer)
{
    unsigned way = in_newer ? GW_COMPAT_BACKWARD : GW_COMPAT_FORWARD;
    char text[32];
    snprintf(text, sizeof(text), "version %" PRIu32, version_of(c, subsection));
    size_t used = gw_compare_path_add(c, name_of(c, subsection));
    int rc =
        gw_compare_tell(c, GW_COMPAT_SUBSECTION, c->is_static ? 0 : way, c->is_static ? way : 0,
                        in_newer ? "a new subsection, refused where it is sent"
                                 : "a subsection that is gone, refused where it is sent",
                        in_newer ? NULL : text, in_newer ? text : NULL);
    c->path[used] = '\0';
    return rc;
}

static int compare_subsections(struct gw_compare *c, json_t *older, json_t *newer, unsigned depth)
{
    json_t *subsection;
    size_t i;
    json_array_foreach(older, i, subsection)
    {
        json_t *other = find_subsection(c, newer, name_of(c, subsection));
        int rc = other ? compare_subsection(c, subsection, other, depth)
                       : tell_subsection(c, subsection, false);
        if (rc != 0)
            return rc;
    }
    json_array_foreach(newer, i, subsection)
    {
        int rc = 0;
        if (!find_subsection(c, older, name_of(c, subsection)))
            rc = tell_subsection(c, subsection, true);
        if (rc != 0)
            return rc;
    }
    return 0;
}

static int compare_state(struct gw_compare *c, const struct gw_compare_level *level, json_t *older,
                         json_t *newer, unsigned depth)
{
    if (depth > GW_DESCRIPTION_DEPTH_MAX)
        return gw_fail(c->err, -EPROTO, "descriptions nested more than %u deep",
                       GW_DESCRIPTION_DEPTH_MAX);
    json_t *a = subsections_of(c, older), *b = subsections_of(c, newer);
    int rc = check_subsections(c, a);
    if (rc == 0)
        rc = check_subsections(c, b);
    if (rc == 0)
        rc = compare_fields(c, level, older, newer, depth);
    return rc != 0 ? rc : compare_subsections(c, a, b, depth);
}

/* ---- a device ------------------------------------------------------------------------------------ */

/* Written by hand, by one of the two at least: only the length is known. */
static int compare_opaque(struct gw_compare *c, json_t *older, json_t *newer)
{
    json_t *a = json_object_get(older, "size"), *b = json_object_get(newer, "size");
    bool is_same = (!a && !b) || (a && b && json_equal(a, b));
    char x[32], y[32];
    if (is_same)
        return 0;
    snprintf(x, sizeof(x), "%" PRId64 " bytes", (int64_t)json_integer_value(a));
    snprintf(y, sizeof(y), "%" PRId64 " bytes", (int64_t)json_integer_value(b));
    return gw_compare_tell(c, GW_COMPAT_DEVICE, 0, GW_BOTH,
                           "written by hand, and of another length or by one of the two only",
                           json_is_integer(a) ? x : "fields", json_is_integer(b) ? y : "fields");
}

static int compare_device(struct gw_compare *c, const struct gw_described_device *a,
                          const struct gw_described_device *b, json_t *older, json_t *newer)
{
    struct gw_compare_level level = {
        .in_stream = true, .older = a->version_id, .newer = b->version_id};
    if (!a->has_version || !b->has_version)
        return compare_opaque(c, older, newer);
    if (c->is_static) { /* what stands inside is the state; the device's own versions are a copy */
        older = json_object_get(older, "Description");
        newer = json_object_get(newer, "Description");
    }
    int rc = compare_versions(c, GW_COMPAT_DEVICE, &level, older, newer);
    return rc != 0 ? rc : compare_state(c, &level, older, newer, 0);
}

int gw_compare_device(const struct gw_description *older, unsigned older_index,
                      const struct gw_description *newer, unsigned newer_index,
                      gw_compare_fn *found, void *ctx, struct gw_error *err)
{
    struct gw_compare c = {.is_static = older->is_static, .found = found, .ctx = ctx, .err = err};
    const struct gw_described_device *a = gw_description_device(older, older_index);
    const struct gw_described_device *b = gw_description_device(newer, newer_index);
    gw_assert(older->is_static == newer->is_static);
    json_t *x = gw_description_parse(older, a), *y = gw_description_parse(newer, b);
    int rc = x && y ? compare_device(&c, a, b, x, y) : gw_fail(err, -ENOMEM, "description");
    json_decref(x);
    json_decref(y);
    return rc;
}
