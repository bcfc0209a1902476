// SPDX-License-Identifier: MIT
/* A device's body walked by its description: fields one after the other, each `size` bytes and `array_len`
 * times, structs into their fields, then the subsections, whose heads stand in the body too and must be
 * what the description says. Lists and device-specific kinds are passed over by size: their inline members
 * say too little (docs/protocol.md section 4). Sums are bounded by the body before anything is repeated,
 * so a description costs no more than itself and the body. */
#include "control/stream.h"
#include "control/stream_describe_impl.h"

#include "core/base/bytes.h"

#include <inttypes.h>
#include <stdio.h>

#define NULL_BYTE 0x30
#define BODY_BYTES_MAX (UINT64_C(1) << 40)

struct walk {
    const uint8_t *body;
    uint64_t bytes, at, fault_at;
    gw_described_fn *field;
    void *ctx;
    char path[GW_FIELD_PATH_BYTES];
    struct gw_error *err;
};

static int walk_state(struct walk *walk, json_t *state, unsigned depth);

static int refuse(struct walk *walk, const char *what)
{
    walk->fault_at = walk->at;
    return gw_fail(walk->err, -EPROTO, "field '%s': %s", walk->path, what);
}

/* Return: the length before, for path_cut(). */
static size_t path_add(struct walk *walk, const char *text, const char *behind)
{
    size_t used = strlen(walk->path);
    snprintf(walk->path + used, sizeof(walk->path) - used, "%s%s%s",
             used && walk->path[used - 1] != '.' ? "." : "", text, behind);
    return used;
}

/* ---- sizes ------------------------------------------------------------------------------------ */

/* @size bytes, @count times. */
static int read_extent(json_t *field, uint64_t *size, uint64_t *count)
{
    json_t *size_json = json_object_get(field, "size");
    json_t *count_json = json_object_get(field, "array_len");
    json_int_t n = count_json ? json_integer_value(count_json) : 1;
    json_int_t bytes = json_integer_value(size_json);
    if (!json_is_integer(size_json) || (count_json && !json_is_integer(count_json)) || n < 0 ||
        bytes < 0 || bytes > (json_int_t)BODY_BYTES_MAX || n > (json_int_t)BODY_BYTES_MAX)
        return -EPROTO;
    if (bytes > 0 && (uint64_t)n > BODY_BYTES_MAX / (uint64_t)bytes)
        return -EPROTO;
    *size = (uint64_t)bytes;
    *count = (uint64_t)n;
    return 0;
}

static int measure(json_t *state, unsigned depth, uint64_t *bytes, struct gw_error *err)
{
    json_t *field, *subsection;
    size_t i;
    if (depth > GW_DESCRIPTION_DEPTH_MAX)
        return gw_fail(err, -EPROTO, "subsections nested more than %u deep",
                       GW_DESCRIPTION_DEPTH_MAX);
    json_array_foreach(json_object_get(state, "fields"), i, field)
    {
        const char *name = json_string_value(json_object_get(field, "name"));
        uint64_t size, count;
        if (read_extent(field, &size, &count) < 0)
            return gw_fail(err, -EPROTO, "field '%s' has no size in the description",
                           name ? name : "");
        *bytes += size * count;
        if (*bytes > BODY_BYTES_MAX)
            return gw_fail(err, -EPROTO, "a body of more than a TiB in the description");
    }
    json_array_foreach(json_object_get(state, "subsections"), i, subsection)
    {
        const char *name = json_string_value(json_object_get(subsection, "vmsd_name"));
        if (!name || strlen(name) > 255)
            return gw_fail(err, -EPROTO, "a subsection without a name in the description");
        *bytes += 2 + strlen(name) + 4;
        int rc = measure(subsection, depth + 1, bytes, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* ---- fields ----------------------------------------------------------------------------------- */

static int check_value(struct walk *walk, const char *type, uint64_t bytes)
{
    const uint8_t *at = walk->body + walk->at;
    bool is_bool = strcmp(type, "bool") == 0, is_null = strcmp(type, "nullptr") == 0;
    for (uint64_t i = 0; (is_bool || is_null) && i < bytes; i++) {
        if (is_null ? at[i] != NULL_BYTE : at[i] > 1) {
            walk->at += i;
            return refuse(walk, is_null ? "not what stands for a NULL" : "neither true nor false");
        }
    }
    return 0;
}

static int walk_leaf(struct walk *walk, const char *type, uint64_t size, uint64_t count)
{
    struct gw_described_field field = {.path = walk->path,
                                       .type = type,
                                       .offset = walk->at,
                                       .bytes = size * count,
                                       .count = count,
                                       .data = walk->body + walk->at};
    int rc = check_value(walk, type, field.bytes);
    if (rc == 0 && walk->field)
        rc = walk->field(walk->ctx, &field);
    if (rc == 0)
        walk->at += field.bytes;
    return rc;
}

/* Elements of @size bytes that have fields of their own, or are empty where a pointer was NULL. */
static int walk_struct(struct walk *walk, json_t *state, const char *type, uint64_t size,
                       uint64_t count, unsigned depth)
{
    bool known = json_array_size(json_object_get(state, "fields")) > 0 ||
                 json_array_size(json_object_get(state, "subsections")) > 0;
    size_t used = strlen(walk->path);
    if (!known || size == 0)
        return walk_leaf(walk, type, size, count);
    for (uint64_t i = 0; i < count; i++) {
        uint64_t begin = walk->at;
        if (count > 1)
            snprintf(walk->path + used, sizeof(walk->path) - used, "[%" PRIu64 "]", i);
        int rc = walk_state(walk, state, depth + 1);
        if (rc < 0)
            return rc;
        if (walk->at - begin != size)
            return refuse(walk, "its parts are not as long as it is");
        walk->path[used] = '\0';
    }
    return 0;
}

static int walk_field(struct walk *walk, json_t *field, unsigned depth)
{
    const char *name = json_string_value(json_object_get(field, "name"));
    const char *type = json_string_value(json_object_get(field, "type"));
    json_t *index = json_object_get(field, "index"), *inner = json_object_get(field, "struct");
    uint64_t size, count;
    char behind[32] = "";
    if (json_is_integer(index))
        snprintf(behind, sizeof(behind), "[%" JSON_INTEGER_FORMAT "]", json_integer_value(index));
    size_t used = path_add(walk, name ? name : "", behind);
    if (!name || !type || read_extent(field, &size, &count) < 0)
        return refuse(walk, "malformed in the description");
    if (size * count > walk->bytes - walk->at)
        return refuse(walk, "longer than the section");
    if (!inner && (strcmp(type, "tmp") == 0 || strcmp(type, "vstruct") == 0))
        inner = field;
    int rc = inner ? walk_struct(walk, inner, type, size, count, depth)
                   : walk_leaf(walk, type, size, count);
    if (rc == 0)
        walk->path[used] = '\0';
    return rc;
}

/* 05, the name with its length, the version. */
static int walk_subsection_head(struct walk *walk, const char *name, json_t *version)
{
    size_t bytes = strlen(name);
    const uint8_t *at = walk->body + walk->at;
    if (bytes > 255 || 2 + bytes + 4 > walk->bytes - walk->at)
        return refuse(walk, "a subsection that is longer than the section");
    if (at[0] != GW_ITEM_SUBSECTION)
        return refuse(walk, "no subsection begins here");
    if (at[1] != bytes || memcmp(at + 2, name, bytes) != 0) {
        walk->at += 1;
        return refuse(walk, "another subsection stands here");
    }
    walk->at += 2 + bytes;
    if (!json_is_integer(version) ||
        gw_be32_load(walk->body + walk->at) != (uint32_t)json_integer_value(version))
        return refuse(walk, "a subsection of another version");
    walk->at += 4;
    return 0;
}

static int walk_subsections(struct walk *walk, json_t *state, unsigned depth)
{
    json_t *subsection;
    size_t i;
    json_array_foreach(json_object_get(state, "subsections"), i, subsection)
    {
        const char *name = json_string_value(json_object_get(subsection, "vmsd_name"));
        size_t used = path_add(walk, name ? name : "", "");
        if (!name)
            return refuse(walk, "malformed in the description");
        int rc = walk_subsection_head(walk, name, json_object_get(subsection, "version"));
        if (rc == 0)
            rc = walk_state(walk, subsection, depth + 1);
        if (rc < 0)
            return rc;
        walk->path[used] = '\0';
    }
    return 0;
}

static int walk_state(struct walk *walk, json_t *state, unsigned depth)
{
    json_t *field;
    size_t i;
    if (depth > GW_DESCRIPTION_DEPTH_MAX)
        return refuse(walk, "nested too deep");
    json_array_foreach(json_object_get(state, "fields"), i, field)
    {
        int rc = walk_field(walk, field, depth);
        if (rc < 0)
            return rc;
    }
    return walk_subsections(walk, state, depth);
}

/* ---- a device --------------------------------------------------------------------------------- */

int gw_description_measure(const struct gw_description *description, unsigned index,
                           uint64_t *bytes, struct gw_error *err)
{
    json_t *device = gw_description_parse(description, &description->devices[index]);
    *bytes = 0;
    if (!device)
        return gw_fail(err, -ENOMEM, "description");
    int rc = measure(device, 0, bytes, err);
    json_decref(device);
    return rc;
}

int gw_description_walk(const struct gw_description *description, unsigned index,
                        const uint8_t *body, size_t bytes, gw_described_fn *field, void *ctx,
                        size_t *fault_at, struct gw_error *err)
{
    static const uint8_t nothing; /* an empty body may have no address */
    struct walk walk = {
        .body = body ? body : &nothing, .bytes = bytes, .field = field, .ctx = ctx, .err = err};
    json_t *device = gw_description_parse(description, &description->devices[index]);
    if (!device)
        return gw_fail(err, -ENOMEM, "description");
    int rc = walk_state(&walk, device, 0);
    if (rc == 0 && walk.at != bytes)
        rc = refuse(&walk, "the section is longer than its fields");
    *fault_at = (size_t)walk.fault_at;
    json_decref(device);
    return rc;
}
