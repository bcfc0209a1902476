// SPDX-License-Identifier: MIT
/* Device sections against the description, once it has come. It says how long each body is, which is more
 * than the walk could know: where the walk took data for a footer (a guest can write one), or saw none, the
 * description rules, and sections are cut anew. A body of the right length is then walked field by field. */
#include "core/analyze_impl.h"

#include "core/base/alloc.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static bool is_device(const struct gw_analyzed_section *s)
{
    return !s->is_iterative && s->form != GW_SECTION_RAM && !s->is_packaged;
}

static bool none_open(void *ctx, uint32_t section_id)
{
    (void)ctx;
    (void)section_id;
    return false;
}

bool gw_analyze_is_item(const struct gw_analysis *a, const uint8_t *look, size_t bytes)
{
    struct gw_scan scan = {.footers = a->facts.has_footers, .is_open = none_open};
    return gw_stream_is_item(&scan, look, bytes, false);
}

/* Where the item after a body of @bytes bytes begins, if one does. */
static bool find_next(const struct gw_analysis *a, const struct gw_analyzed_section *s,
                      uint64_t bytes, uint64_t *next)
{
    uint8_t look[GW_FOOTER_BYTES + GW_ITEM_LOOK_BYTES];
    struct gw_input in;
    uint64_t end = s->body_offset + bytes;
    ssize_t got = gw_keep_read(&a->keep, end, look, sizeof(look));
    size_t footer = a->facts.has_footers ? GW_FOOTER_BYTES : 0;
    if (got < (ssize_t)footer)
        return false;
    gw_input_memory(&in, look, (size_t)got, end);
    if (footer && gw_stream_take_footer(&in, s->section_id, NULL) < 0)
        return false;
    *next = end + footer;
    if (*next == a->devices_end)
        return true;
    return *next < a->devices_end && gw_analyze_is_item(a, look + footer, (size_t)got - footer);
}

static void remove_sections(struct gw_analysis *a, unsigned from, unsigned to)
{
    for (unsigned i = from; i < to; i++)
        gw_free(a->sections[i].idstr);
    memmove(&a->sections[from], &a->sections[to],
            (a->facts.section_count - to) * sizeof(a->sections[0]));
    a->facts.section_count -= to - from;
}

/* A section begins at @offset where the walk had seen none. How long it is, is found out next. */
int gw_analyze_insert_section(struct gw_analysis *a, unsigned index, uint64_t offset, uint64_t end,
                              struct gw_error *err)
{
    uint8_t look[GW_ITEM_LOOK_BYTES];
    struct gw_input in;
    struct gw_section head = {.type = GW_ITEM_FULL};
    ssize_t got = gw_keep_read(&a->keep, offset, look, sizeof(look));
    if (got < 1 || look[0] != GW_ITEM_FULL)
        return -ENODATA;
    gw_input_memory(&in, look + 1, (size_t)got - 1, offset + 1);
    if (gw_stream_take_section(&in, &head, NULL) < 0)
        return -ENODATA;
    struct gw_analyzed_section *added = gw_analyze_add_section(a, &head, offset, err);
    if (!added)
        return -ENOMEM;
    struct gw_analyzed_section s = *added;
    uint64_t footer = a->facts.has_footers ? GW_FOOTER_BYTES : 0;
    s.parts = 1;
    s.body_offset = gw_input_tell(&in);
    s.body_bytes = end > s.body_offset + footer ? end - footer - s.body_offset : 0;
    memmove(&a->sections[index + 1], &a->sections[index],
            (a->facts.section_count - 1 - index) * sizeof(s));
    a->sections[index] = s;
    return 0;
}

/* Make section @index @bytes long if the stream agrees. Return: 1 if it did. */
static int cut_anew(struct gw_analysis *a, unsigned index, uint64_t bytes, struct gw_error *err)
{
    uint64_t next = 0;
    if (!find_next(a, &a->sections[index], bytes, &next))
        return 0;
    unsigned after = index + 1;
    while (after < a->facts.section_count && a->sections[after].offset < next) {
        if (!is_device(&a->sections[after]))
            return 0;
        after++;
    }
    uint64_t end = after < a->facts.section_count ? a->sections[after].offset : a->devices_end;
    a->sections[index].body_bytes = bytes;
    remove_sections(a, index + 1, after);
    if (next == end)
        return 1;
    int rc = gw_analyze_insert_section(a, index + 1, next, end, err);
    return rc == -ENOMEM ? rc : 1;
}

int gw_analyze_device_fault(struct gw_analysis *a, const struct gw_analyzed_section *s,
                            uint64_t offset, const struct gw_error *err)
{
    char name[300];
    if (s->instance_id)
        snprintf(name, sizeof(name), "%s %" PRIu32, s->idstr, s->instance_id);
    else
        snprintf(name, sizeof(name), "%s", s->idstr);
    return gw_analyze_fault(a, offset, name, err);
}

static int walk_body(struct gw_analysis *a, struct gw_analyzed_section *s, gw_described_fn *field,
                     void *ctx, uint64_t *fault_at, struct gw_error *err)
{
    size_t at = 0, bytes = (size_t)s->body_bytes;
    if (s->body_bytes > GW_ANALYZE_BODY_BYTES_MAX)
        return -ENODATA;
    uint8_t *body = gw_zalloc(bytes + 1, 1);
    if (!body)
        return gw_fail(err, -ENOMEM, "body of a section");
    int rc = gw_keep_read_all(&a->keep, s->body_offset, body, bytes);
    if (rc == 0)
        rc = gw_description_walk(a->description, s->described, body, bytes, field, ctx, &at, err);
    *fault_at = s->body_offset + at;
    gw_free(body);
    return rc;
}

static int check_device(struct gw_analysis *a, unsigned index, struct gw_error *err)
{
    uint64_t bytes = 0, fault_at = 0;
    struct gw_analyzed_section *s = &a->sections[index];
    int rc = gw_description_measure(a->description, s->described, &bytes, err);
    if (rc == 0 && bytes != s->body_bytes)
        rc = cut_anew(a, index, bytes, err);
    if (rc == 0 && bytes != a->sections[index].body_bytes)
        rc = gw_analyze_cut_damaged(a, index, bytes, err);
    s = &a->sections[index];
    if (rc == -ENOMEM)
        return rc;
    if (rc == 0 && bytes != s->body_bytes)
        rc = gw_fail(err, -EPROTO,
                     "%" PRIu64 " bytes at offset %" PRIu64 ", the description says %" PRIu64,
                     s->body_bytes, s->body_offset, bytes);
    if (rc < 0)
        return gw_analyze_device_fault(a, s, s->body_offset, err);
    const struct gw_described_device *device = gw_description_device(a->description, s->described);
    if (device->has_version && device->version_id != s->version_id) {
        gw_fail(err, -EPROTO,
                "version %" PRIu32 " at offset %" PRIu64 ", the description says %" PRIu32,
                s->version_id, s->offset, device->version_id);
        return gw_analyze_device_fault(a, s, s->offset, err);
    }
    s->is_described = true;
    rc = walk_body(a, s, NULL, NULL, &fault_at, err);
    if (rc == -ENODATA || rc == -ENOMEM)
        return rc == -ENOMEM ? rc : 0; /* not kept: opaque */
    if (rc < 0)
        return gw_error_prefix(err, "offset %" PRIu64, fault_at),
               gw_analyze_device_fault(a, s, fault_at, err);
    s->form = GW_SECTION_FIELDS;
    return 0;
}

/* What the description has and the stream has not. */
static int check_missing(struct gw_analysis *a, const bool *found, struct gw_error *err)
{
    for (unsigned i = 0; i < gw_description_count(a->description); i++) {
        const struct gw_described_device *device = gw_description_device(a->description, i);
        if (found[i])
            continue;
        gw_fail(err, -EPROTO,
                "the description at offset %" PRIu64 " has '%s' %" PRIu32
                ", the stream has no such section",
                a->description_offset + device->text_at, device->idstr, device->instance_id);
        int rc = gw_analyze_fault(a, a->description_offset + device->text_at, "description", err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* Devices that are sent early need not be in the description: those behind the last iterative section are. */
static uint64_t find_last_iterative(const struct gw_analysis *a)
{
    uint64_t last = 0;
    for (unsigned i = 0; i < a->facts.section_count; i++) {
        if (a->sections[i].is_iterative && a->sections[i].last_offset > last)
            last = a->sections[i].last_offset;
    }
    return last;
}

static int check_undescribed(struct gw_analysis *a, const struct gw_analyzed_section *s,
                             uint64_t last_iterative, struct gw_error *err)
{
    if (s->offset < last_iterative || a->facts.fault_count == GW_ANALYZE_FAULTS_MAX)
        return 0;
    gw_fail(err, -EPROTO, "the section at offset %" PRIu64 " is not in the description", s->offset);
    return gw_analyze_device_fault(a, s, s->offset, err);
}

static int check_devices(struct gw_analysis *a, bool *found, struct gw_error *err)
{
    unsigned near = 0;
    uint64_t last_iterative = find_last_iterative(a);
    int found_rc = gw_analyze_first_damaged(a, err);
    if (found_rc < 0)
        return found_rc;
    for (unsigned i = 0; i < a->facts.section_count; i++) {
        struct gw_analyzed_section *s = &a->sections[i];
        if (!is_device(s))
            continue;
        int at = gw_description_find(a->description, s->idstr, s->instance_id, near);
        int rc;
        if (at >= 0) {
            near = (unsigned)at + 1;
            found[at] = true;
            s->described = (unsigned)at;
            rc = check_device(a, i, err);
        } else {
            rc = check_undescribed(a, s, last_iterative, err);
        }
        if (rc < 0)
            return rc;
    }
    return check_missing(a, found, err);
}

int gw_analyze_devices(struct gw_analysis *a, struct gw_error *err)
{
    size_t fault_at = 0;
    if (!a->description_text)
        return 0;
    a->devices_end = a->description_offset - 6; /* the end mark */
    int rc = gw_description_new(a->description_text, (size_t)a->facts.description_bytes,
                                &a->description, &fault_at, err);
    if (rc == -ENOMEM)
        return rc;
    if (rc < 0) {
        uint64_t offset = a->description_offset + fault_at;
        gw_error_prefix(err, "offset %" PRIu64, offset);
        return gw_analyze_fault(a, offset, "description", err);
    }
    uint64_t page_bytes = gw_description_page_bytes(a->description);
    if (page_bytes != 0 && page_bytes != a->ram.page_bytes && a->ram.block_count > 0) {
        gw_fail(err, -EPROTO,
                "the description at offset %" PRIu64 " has pages of %" PRIu64
                " bytes, the stream of %" PRIu64,
                a->description_offset, page_bytes, a->ram.page_bytes);
        rc = gw_analyze_fault(a, a->description_offset, "description", err);
        if (rc < 0)
            return rc;
    }
    bool *found = gw_zalloc(gw_description_count(a->description) + 1, sizeof(*found));
    rc = found ? check_devices(a, found, err) : gw_fail(err, -ENOMEM, "description");
    gw_free(found);
    return rc;
}

/* ---- afterwards ------------------------------------------------------------------------------- */

static int copy_body(struct gw_analysis *a, const struct gw_analyzed_section *s, int fd,
                     struct gw_error *err)
{
    uint8_t piece[65536];
    for (uint64_t done = 0; done < s->body_bytes;) {
        size_t want =
            s->body_bytes - done < sizeof(piece) ? (size_t)(s->body_bytes - done) : sizeof(piece);
        ssize_t got = gw_keep_read(&a->keep, s->body_offset + done, piece, want);
        if (got <= 0)
            return gw_fail(err, got < 0 ? (int)got : -EIO, "section '%s' not read again", s->idstr);
        for (ssize_t at = 0; at < got;) {
            ssize_t put = write(fd, piece + at, (size_t)(got - at));
            if (put <= 0)
                return gw_fail(err, put < 0 ? -errno : -EIO, "section '%s': its file not written",
                               s->idstr);
            at += put;
        }
        done += (uint64_t)got;
    }
    return 0;
}

int gw_analyze_extract_devices(struct gw_analysis *a, struct gw_error *err)
{
    for (unsigned i = 0; i < a->facts.section_count; i++) {
        const struct gw_analyzed_section *s = &a->sections[i];
        int fd = -1;
        if (s->is_iterative || s->form == GW_SECTION_RAM)
            continue;
        int rc = gw_extract_device(a->extract, i, s->idstr, &fd, err);
        if (rc == 0) {
            rc = copy_body(a, s, fd, err);
            close(fd);
        }
        if (rc < 0)
            return rc;
    }
    return 0;
}

struct fields {
    gw_stream_field_fn *field;
    void *ctx;
    uint64_t body_offset;
    int stopped;
};

static int pass_on(void *ctx, const struct gw_described_field *field)
{
    struct fields *fields = ctx;
    struct gw_stream_field record = {.struct_bytes = sizeof(record),
                                     .path = field->path,
                                     .type = field->type,
                                     .offset = fields->body_offset + field->offset,
                                     .bytes = field->bytes,
                                     .count = field->count,
                                     .data = field->data};
    fields->stopped = fields->field(fields->ctx, &record);
    return fields->stopped ? -ECANCELED : 0;
}

int gw_analysis_fields(struct gw_analysis *a, unsigned section, gw_stream_field_fn *field,
                       void *ctx, struct gw_error *err)
{
    uint64_t fault_at = 0;
    if (section >= a->facts.section_count || a->sections[section].form != GW_SECTION_FIELDS)
        return gw_fail_code(err, -ENOENT, GW_CODE_INVALID, "section %u has no fields", section);
    struct gw_analyzed_section *s = &a->sections[section];
    struct fields fields = {.field = field, .ctx = ctx, .body_offset = s->body_offset};
    int rc = walk_body(a, s, pass_on, &fields, &fault_at, err);
    return fields.stopped ? fields.stopped : rc;
}

int64_t gw_analysis_body(struct gw_analysis *a, unsigned section, uint64_t at, void *to,
                         size_t bytes)
{
    if (section >= a->facts.section_count || a->sections[section].is_iterative)
        return -ENODATA;
    const struct gw_analyzed_section *s = &a->sections[section];
    if (at >= s->body_bytes)
        return 0;
    if (bytes > s->body_bytes - at)
        bytes = (size_t)(s->body_bytes - at);
    return gw_keep_read(&a->keep, s->body_offset + at, to, bytes);
}
