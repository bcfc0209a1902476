// SPDX-License-Identifier: MIT
/* Two streams compared: what they are, their blocks, and their device sections by name and instance. Sections
 * that both have fields are compared field by field, others byte by byte. Pages are compared in number
 * only: what they hold is `--extract` and cmp(1). */
#include "tools/analyze.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define FIELDS_MAX 262144u /* of a section; with more it is compared as bytes */
#define VALUE_BYTES 8u

struct field {
    char *path;
    uint64_t bytes, count;
    uint8_t *data;
};

struct fields {
    unsigned count, room;
    struct field *list;
    bool too_many;
};

struct diff {
    struct gw_analysis *left, *right;
    gw_difference_fn *found;
    void *ctx;
    int64_t count;
    struct gw_error *err;
};

static void differ(struct diff *diff, const char *what, const char *left, const char *right)
{
    diff->count++;
    diff->found(diff->ctx, what, left, right);
}

static void differ_number(struct diff *diff, const char *what, uint64_t left, uint64_t right)
{
    char a[32], b[32];

    if (left == right)
        return;
    snprintf(a, sizeof(a), "%" PRIu64, left);
    snprintf(b, sizeof(b), "%" PRIu64, right);
    differ(diff, what, a, b);
}

/* ---- fields ----------------------------------------------------------------------------------- */

static void free_fields(struct fields *fields)
{
    for (unsigned i = 0; i < fields->count; i++) {
        free(fields->list[i].path);
        free(fields->list[i].data);
    }
    free(fields->list);
    *fields = (struct fields){0};
}

static int collect(void *ctx, const struct gw_stream_field *field)
{
    struct fields *fields = ctx;

    if (fields->count == FIELDS_MAX) {
        fields->too_many = true;
        return -E2BIG;
    }
    if (fields->count == fields->room) {
        unsigned room = fields->room ? 2 * fields->room : 256;
        struct field *list = realloc(fields->list, room * sizeof(*list));
        if (!list)
            return -ENOMEM;
        fields->list = list;
        fields->room = room;
    }
    struct field *to = &fields->list[fields->count];
    *to = (struct field){.path = strdup(field->path),
                         .bytes = field->bytes,
                         .count = field->count,
                         .data = malloc((size_t)field->bytes + 1)};
    fields->count++;
    if (!to->path || !to->data)
        return -ENOMEM;
    memcpy(to->data, field->data, (size_t)field->bytes);
    return 0;
}

static void value_text(const struct field *field, uint64_t at, char text[64])
{
    uint64_t bytes = field->bytes - at;
    size_t used = 0;

    if (bytes > VALUE_BYTES && field->bytes > VALUE_BYTES)
        used = (size_t)snprintf(text, 64, "at %" PRIu64 ": ", at);
    used += (size_t)snprintf(text + used, 64 - used, "0x");
    for (uint64_t i = 0; i < bytes && i < VALUE_BYTES; i++)
        used += (size_t)snprintf(text + used, 64 - used, "%02x", field->data[at + i]);
    if (bytes > VALUE_BYTES)
        snprintf(text + used, 64 - used, "...");
}

static void diff_field(struct diff *diff, const char *where, const struct field *left,
                       const struct field *right)
{
    char what[1024], a[64], b[64];
    uint64_t at = 0;

    snprintf(what, sizeof(what), "%s: %s", where, left->path);
    if (left->bytes != right->bytes) {
        differ_number(diff, what, left->bytes, right->bytes);
        return;
    }
    while (at < left->bytes && left->data[at] == right->data[at])
        at++;
    if (at == left->bytes)
        return;
    if (left->bytes <= VALUE_BYTES)
        at = 0;
    value_text(left, at, a);
    value_text(right, at, b);
    differ(diff, what, a, b);
}

/* The same description wrote both, mostly: the next field of one is looked for among the next of the other. */
static unsigned find_path(const struct fields *in, unsigned from, const char *path)
{
    for (unsigned i = from; i < in->count && i - from < 4096; i++) {
        if (strcmp(in->list[i].path, path) == 0)
            return i;
    }
    return in->count;
}

static void differ_only(struct diff *diff, const char *where, const struct field *field, bool left)
{
    char what[1024], value[64];

    snprintf(what, sizeof(what), "%s: %s", where, field->path);
    value_text(field, 0, value);
    differ(diff, what, left ? value : NULL, left ? NULL : value);
}

static void diff_fields(struct diff *diff, const char *where, const struct fields *left,
                        const struct fields *right)
{
    unsigned j = 0;

    for (unsigned i = 0; i < left->count; i++) {
        unsigned at = find_path(right, j, left->list[i].path);
        if (at == right->count) {
            differ_only(diff, where, &left->list[i], true);
            continue;
        }
        while (j < at)
            differ_only(diff, where, &right->list[j++], false);
        diff_field(diff, where, &left->list[i], &right->list[j++]);
    }
    while (j < right->count)
        differ_only(diff, where, &right->list[j++], false);
}

/* ---- sections --------------------------------------------------------------------------------- */

static int diff_bytes(struct diff *diff, const char *where, unsigned i, unsigned j)
{
    uint8_t a[4096], b[4096];
    char what[1024];

    for (uint64_t at = 0;;) {
        int64_t left = gw_analysis_body(diff->left, i, at, a, sizeof(a));
        int64_t right = gw_analysis_body(diff->right, j, at, b, sizeof(b));
        if (left < 0 || right < 0) {
            snprintf(what, sizeof(what), "%s: not kept, not compared", where);
            differ(diff, what, NULL, NULL);
            return 0;
        }
        if (left != right || memcmp(a, b, (size_t)left) != 0) {
            snprintf(what, sizeof(what), "%s: bytes differ within %d bytes from %" PRIu64, where,
                     (int)sizeof(a), at);
            differ(diff, what, NULL, NULL);
            return 0;
        }
        if (left == 0)
            return 0;
        at += (uint64_t)left;
    }
}

static int diff_section(struct diff *diff, unsigned i, const struct gw_stream_section *left,
                        unsigned j, const struct gw_stream_section *right)
{
    struct fields a = {0}, b = {0};
    char where[320], what[400];
    int rc = 0;

    snprintf(where, sizeof(where), "%s %" PRIu32, left->idstr, left->instance_id);
    snprintf(what, sizeof(what), "%s: version", where);
    differ_number(diff, what, left->version_id, right->version_id);
    if (left->is_iterative || right->is_iterative || left->form == GW_SECTION_RAM)
        return 0;
    if (left->form != GW_SECTION_FIELDS || right->form != GW_SECTION_FIELDS)
        return diff_bytes(diff, where, i, j);
    rc = gw_analysis_fields(diff->left, i, collect, &a, diff->err);
    if (rc == 0)
        rc = gw_analysis_fields(diff->right, j, collect, &b, diff->err);
    if (rc == 0)
        diff_fields(diff, where, &a, &b);
    else if (a.too_many || b.too_many)
        rc = diff_bytes(diff, where, i, j);
    else if (rc == -ENOMEM)
        gw_error_set(diff->err, rc, GW_CODE_NO_MEMORY, "out of memory");
    free_fields(&a);
    free_fields(&b);
    return rc;
}

/* The @nth section of this name and instance. */
static bool find_section(const struct gw_analysis *in, const struct gw_stream_section *like,
                         unsigned near, unsigned *index, struct gw_stream_section *section)
{
    struct gw_stream_facts facts = {.struct_bytes = sizeof(facts)};

    gw_analysis_facts(in, &facts);
    for (unsigned n = 0; n < facts.section_count; n++) {
        *index = (near + n) % facts.section_count;
        if (gw_analysis_section(in, *index, section) && section->instance_id == like->instance_id &&
            strcmp(section->idstr, like->idstr) == 0)
            return true;
    }
    return false;
}

static void differ_section(struct diff *diff, const struct gw_stream_section *s, bool left)
{
    char what[320];

    snprintf(what, sizeof(what), "section %s %" PRIu32, s->idstr, s->instance_id);
    differ(diff, what, left ? "there" : NULL, left ? NULL : "there");
}

static int diff_sections(struct diff *diff)
{
    struct gw_stream_section left = {.struct_bytes = sizeof(left)};
    struct gw_stream_section right = {.struct_bytes = sizeof(right)};
    unsigned j = 0;

    for (unsigned i = 0; gw_analysis_section(diff->left, i, &left); i++) {
        if (!find_section(diff->right, &left, j, &j, &right)) {
            differ_section(diff, &left, true);
            continue;
        }
        int rc = diff_section(diff, i, &left, j, &right);
        if (rc < 0)
            return rc;
        j++;
    }
    for (unsigned i = 0; gw_analysis_section(diff->right, i, &right); i++) {
        if (!find_section(diff->left, &right, i, &j, &left))
            differ_section(diff, &right, false);
    }
    return 0;
}

/* ---- the rest --------------------------------------------------------------------------------- */

static bool find_block(const struct gw_analysis *in, const char *name,
                       struct gw_stream_block *block)
{
    for (unsigned i = 0; gw_analysis_block(in, i, block); i++) {
        if (strcmp(block->name, name) == 0)
            return true;
    }
    return false;
}

static void diff_blocks(struct diff *diff)
{
    struct gw_stream_block left = {.struct_bytes = sizeof(left)};
    struct gw_stream_block right = {.struct_bytes = sizeof(right)};
    char what[320];

    for (unsigned i = 0; gw_analysis_block(diff->left, i, &left); i++) {
        snprintf(what, sizeof(what), "block %s", left.name);
        if (find_block(diff->right, left.name, &right))
            differ_number(diff, what, left.bytes, right.bytes);
        else
            differ(diff, what, "there", NULL);
    }
    for (unsigned i = 0; gw_analysis_block(diff->right, i, &right); i++) {
        snprintf(what, sizeof(what), "block %s", right.name);
        if (!find_block(diff->left, right.name, &left))
            differ(diff, what, NULL, "there");
    }
}

static bool has_capability(const struct gw_analysis *in, const char *name)
{
    const char *other;

    for (unsigned i = 0; (other = gw_analysis_capability(in, i)); i++) {
        if (strcmp(other, name) == 0)
            return true;
    }
    return false;
}

static void diff_capabilities(struct diff *diff)
{
    char what[320];
    const char *name;

    for (unsigned i = 0; (name = gw_analysis_capability(diff->left, i)); i++) {
        snprintf(what, sizeof(what), "capability %s", name);
        if (!has_capability(diff->right, name))
            differ(diff, what, "there", NULL);
    }
    for (unsigned i = 0; (name = gw_analysis_capability(diff->right, i)); i++) {
        snprintf(what, sizeof(what), "capability %s", name);
        if (!has_capability(diff->left, name))
            differ(diff, what, NULL, "there");
    }
}

static void diff_facts(struct diff *diff)
{
    struct gw_stream_facts a = {.struct_bytes = sizeof(a)}, b = {.struct_bytes = sizeof(b)};

    gw_analysis_facts(diff->left, &a);
    gw_analysis_facts(diff->right, &b);
    if (strcmp(a.machine ? a.machine : "", b.machine ? b.machine : "") != 0)
        differ(diff, "machine", a.machine, b.machine);
    if (a.has_uuid != b.has_uuid || memcmp(a.uuid, b.uuid, sizeof(a.uuid)) != 0)
        differ(diff, "uuid", NULL, NULL);
    differ_number(diff, "kind of stream", a.kind, b.kind);
    differ_number(diff, "page bytes", a.page_bytes, b.page_bytes);
    differ_number(diff, "footers", a.has_footers, b.has_footers);
}

int64_t gw_analyze_diff(struct gw_analysis *left, struct gw_analysis *right,
                        gw_difference_fn *found, void *ctx, struct gw_error *err)
{
    struct diff diff = {.left = left, .right = right, .found = found, .ctx = ctx, .err = err};

    diff_facts(&diff);
    diff_capabilities(&diff);
    diff_blocks(&diff);
    int rc = diff_sections(&diff);
    return rc < 0 ? rc : diff.count;
}
