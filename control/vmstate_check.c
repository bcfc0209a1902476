// SPDX-License-Identifier: MIT
/* Is a table well formed? What the compiler cannot see: that descriptions fit the types that they are
 * used for, that members are within their objects, counts before what they count, names loadable. */
#include "control/vmstate.h"
#include "core/base/bytes.h"

#include <inttypes.h>
#include <string.h>

struct checked {
    const struct gw_vmstate *vmsd;
    const struct gw_vmfield *field;
    struct gw_error *err;
};

static int bad(const struct checked *c, const char *what)
{
    if (c->field)
        return gw_fail(c->err, -EINVAL, "vmstate '%s': field '%s': %s",
                       c->vmsd->name ? c->vmsd->name : "?", c->field->name ? c->field->name : "?",
                       what);
    return gw_fail(c->err, -EINVAL, "vmstate '%s': %s", c->vmsd->name ? c->vmsd->name : "?", what);
}

static bool is_name(const char *name)
{
    size_t bytes = name ? strnlen(name, GW_NAME_BYTES_MAX + 1) : 0;
    return bytes > 0 && bytes <= GW_NAME_BYTES_MAX && !gw_text_find_odd(name, bytes);
}

static bool is_same_type(const char *a, const char *b)
{
    return a && b && strcmp(a, b) == 0;
}

static int check_description(const struct gw_vmstate *vmsd, unsigned depth, struct gw_error *err);

/* A description that the field uses for @bytes of memory of @type. */
static int check_inner(const struct checked *c, const struct gw_vmstate *inner, const char *type,
                       size_t bytes, unsigned depth)
{
    if (!inner)
        return bad(c, "there is no description of its type");
    if (!is_same_type(inner->type, type) || inner->type_bytes != bytes)
        return gw_fail(c->err, -EINVAL,
                       "vmstate '%s': field '%s': it is a '%s', and '%s' describes a '%s'",
                       c->vmsd->name, c->field->name, type ? type : "?",
                       inner->name ? inner->name : "?", inner->type ? inner->type : "?");
    return check_description(inner, depth + 1, c->err);
}

static size_t count_bytes(const struct gw_vmfield *f)
{
    switch (f->count_kind) {
    case GW_VM_INT32:
    case GW_VM_UINT32:
        return 4;
    case GW_VM_UINT16:
        return 2;
    case GW_VM_UINT8:
        return 1;
    default:
        return 0;
    }
}

static bool writes_any(const struct gw_vmstate *vmsd, const struct gw_vmfield *f, size_t from,
                       size_t end);

/* Does loading @f write to [from, end) of the object? Not asked of one with a test: it may be another way
 * to write the same, of which only one is ever taken. */
static bool writes(const struct gw_vmfield *f, size_t from, size_t end)
{
    if (f->test || f->pointer || f->pointers || f->count_kind != GW_VM_END)
        return false;
    bool is_struct = f->kind == GW_VM_STRUCT || f->kind == GW_VM_VSTRUCT;
    size_t stride = gw_vmfield_stride(f, f->count), count = gw_vmfield_elements(f, f->count);
    if (!is_struct)
        return gw_vmfield_is_plain(f) && f->offset < end && from < f->offset + count * stride;
    for (size_t i = 0; i < count; i++) {
        size_t at = f->offset + i * stride;
        if (at < end && from < at + stride && f->vmsd &&
            writes_any(f->vmsd, gw_vmfield_first(f->vmsd), from > at ? from - at : 0, end - at))
            return true;
    }
    return false;
}

/* The same of @f and all that is loaded after it. */
static bool writes_any(const struct gw_vmstate *vmsd, const struct gw_vmfield *f, size_t from,
                       size_t end)
{
    for (; f; f = gw_vmfield_next(vmsd, f)) {
        if (writes(f, from, end))
            return true;
    }
    for (const struct gw_vmstate *const *sub = vmsd->subsections; sub && *sub; sub++) {
        if (writes_any(*sub, gw_vmfield_first(*sub), from, end))
            return true;
    }
    return false;
}

/* Is the member that counts @c's field loaded after it, or with it? */
static bool is_counted_late(const struct checked *c)
{
    size_t from = c->field->count_offset;
    return writes_any(c->vmsd, c->field, from, from + count_bytes(c->field));
}

static int check_count(const struct checked *c)
{
    const struct gw_vmfield *f = c->field;
    if (f->count_kind == GW_VM_END)
        return f->factor ? bad(c, "a factor, and no member that counts") : 0;
    size_t bytes = count_bytes(f);
    if (bytes == 0 || !gw_range_is_inside(f->count_offset, bytes, c->vmsd->type_bytes))
        return bad(c, "the member that counts is not one of the object's");
    if (f->count_max == 0)
        return bad(c, "its count has no maximum");
    if (f->count > 0)
        return bad(c, "a count of its own and a member that counts");
    return 0;
}

static bool is_list(const struct gw_vmfield *f)
{
    return f->kind == GW_VM_TAILQ || f->kind == GW_VM_LIST;
}

static bool is_tree(const struct gw_vmfield *f)
{
    return f->kind == GW_VM_TREE || f->kind == GW_VM_TREE_POINTER;
}

/* Bytes of the object from the field's offset on. */
static size_t member_bytes(const struct gw_vmfield *f)
{
    if (f->kind == GW_VM_UNUSED || f->kind == GW_VM_TMP || f->kind == GW_VM_VALIDATE)
        return 0;
    if (f->pointer || is_list(f) || is_tree(f))
        return sizeof(void *);
    size_t units = f->count_kind == GW_VM_END ? f->count : f->count_max;
    size_t stride = f->pointers ? sizeof(void *) : gw_vmfield_stride(f, units), bytes;
    if (__builtin_mul_overflow(gw_vmfield_elements(f, units), stride, &bytes))
        return SIZE_MAX;
    return bytes;
}

static int check_memory(const struct checked *c)
{
    const struct gw_vmfield *f = c->field;
    if (!gw_range_is_inside(f->offset, member_bytes(f), c->vmsd->type_bytes))
        return bad(c, "it is not within the object");
    if (f->alloc && !f->pointer)
        return bad(c, "it is to be allocated, and is no pointer");
    if (f->pointers && f->alloc)
        return bad(c, "what an array of pointers points to is not allocated");
    if (f->alloc && f->kind >= GW_VM_UINT8_EQUAL && f->kind <= GW_VM_INT32_LE)
        return bad(c, "it is compared with what is here, and allocated anew");
    size_t units = f->count_kind == GW_VM_END ? f->count : f->count_max, bytes;
    if (__builtin_mul_overflow(gw_vmfield_elements(f, units), gw_vmfield_stride(f, units),
                               &bytes) ||
        (f->alloc && bytes > GW_VMSTATE_ALLOC_BYTES_MAX))
        return bad(c, "its maximum is more than a load may allocate");
    return 0;
}

static int check_list(const struct checked *c)
{
    const struct gw_vmfield *f = c->field;
    if (f->count_max == 0 || f->count_max > UINT32_MAX)
        return bad(c, "a list or tree has a maximum, of 32 bits");
    if (is_tree(f)) {
        const struct gw_vmtree_ops *t = f->tree;
        return t && t->create && t->destroy && t->count && t->each && t->insert
                   ? 0
                   : bad(c, "its tree lacks a function");
    }
    if (!gw_range_is_inside(f->link_next, sizeof(void *), f->bytes) ||
        !gw_range_is_inside(f->link_prev, sizeof(void *), f->bytes))
        return bad(c, "its links are not within its elements");
    if (f->kind == GW_VM_TAILQ &&
        !gw_range_is_inside(f->offset + f->head_last, sizeof(void *), c->vmsd->type_bytes))
        return bad(c, "its head is not within the object");
    return 0;
}

static int check_kind(const struct checked *c, unsigned depth)
{
    const struct gw_vmfield *f = c->field;
    int rc = 0;
    switch (f->kind) {
    case GW_VM_TAILQ:
    case GW_VM_LIST:
    case GW_VM_TREE:
    case GW_VM_TREE_POINTER:
        rc = check_list(c);
        if (rc == 0 && f->kind == GW_VM_TREE_POINTER)
            rc = check_inner(c, f->key_vmsd, f->key_type, f->key_bytes, depth);
        return rc < 0 ? rc : check_inner(c, f->vmsd, f->type, f->bytes, depth);
    case GW_VM_TMP:
        if (!gw_range_is_inside(f->parent_offset, sizeof(void *), f->bytes))
            return bad(c, "its parent is not within it");
        return check_inner(c, f->vmsd, f->type, f->bytes, depth);
    case GW_VM_VSTRUCT:
        if (f->vmsd && (f->struct_version_id > f->vmsd->version_id ||
                        f->struct_version_id < f->vmsd->minimum_version_id))
            return bad(c, "a version that its description does not take");
        return check_inner(c, f->vmsd, f->type, f->bytes, depth);
    case GW_VM_STRUCT:
        return check_inner(c, f->vmsd, f->type, f->bytes, depth);
    case GW_VM_TIMER_OPS:
        return f->timer && f->timer->expires_ns && f->timer->set
                   ? 0
                   : bad(c, "its timer lacks a function");
    case GW_VM_CUSTOM:
        return f->codec && f->codec->put && f->codec->get && is_name(f->codec->name)
                   ? 0
                   : bad(c, "its codec lacks a function or a name");
    case GW_VM_VALIDATE:
        return f->test && f->must_exist ? 0 : bad(c, "there is nothing that validates it");
    default:
        return f->bytes > 0 || f->kind == GW_VM_UNUSED ? 0 : bad(c, "its elements have no size");
    }
}

static int check_field(const struct checked *c, unsigned depth)
{
    const struct gw_vmfield *f = c->field;
    if (!is_name(f->name))
        return bad(c, "its name must have 1 to 255 bytes of printable ASCII");
    if (!is_same_type(f->owner, c->vmsd->type))
        return gw_fail(
            c->err, -EINVAL,
            "vmstate '%s': field '%s': it is one of a '%s', the description is for a '%s'",
            c->vmsd->name, f->name, f->owner ? f->owner : "?", c->vmsd->type);
    if (f->kind <= GW_VM_END || f->kind >= GW_VM_COUNT_)
        return bad(c, "a kind that this version does not know");
    if (!f->test && f->version_id > c->vmsd->version_id)
        return bad(c, "it is of a version that its description has not reached");
    int rc = check_count(c);
    if (rc == 0)
        rc = check_memory(c);
    return rc < 0 ? rc : check_kind(c, depth);
}

static int check_subsection(const struct checked *c, const struct gw_vmstate *const *sub,
                            unsigned depth)
{
    const struct gw_vmstate *parent = c->vmsd;
    int rc = check_description(*sub, depth + 1, c->err);
    if (rc < 0)
        return rc;
    size_t bytes = strlen(parent->name);
    if (strncmp((*sub)->name, parent->name, bytes) != 0 || (*sub)->name[bytes] == '\0')
        return gw_fail(c->err, -EINVAL,
                       "vmstate '%s': subsection '%s' does not begin with that name", parent->name,
                       (*sub)->name);
    if ((*sub)->version_id > UINT8_MAX)
        return gw_fail(c->err, -EINVAL,
                       "vmstate '%s': version %" PRIu32 ", at most 255 in a subsection",
                       (*sub)->name, (*sub)->version_id);
    if (!is_same_type((*sub)->type, parent->type) || (*sub)->type_bytes != parent->type_bytes)
        return gw_fail(c->err, -EINVAL, "vmstate '%s': it is for a '%s', its parent for a '%s'",
                       (*sub)->name, (*sub)->type, parent->type);
    for (const struct gw_vmstate *const *other = parent->subsections; other < sub; other++) {
        if (strcmp((*other)->name, (*sub)->name) == 0)
            return gw_fail(c->err, -EINVAL, "vmstate '%s': it is there twice", (*sub)->name);
    }
    if (sub - parent->subsections >= GW_VM_SUBSECTIONS_MAX)
        return gw_fail(c->err, -EINVAL, "vmstate '%s': more than %d subsections", parent->name,
                       GW_VM_SUBSECTIONS_MAX);
    return 0;
}

static int check_head(const struct checked *c)
{
    const struct gw_vmstate *vmsd = c->vmsd;
    if (vmsd->struct_bytes < sizeof(*vmsd) || !vmsd->type)
        return bad(c, "GW_VMSTATE_OF() is missing");
    if (!is_name(vmsd->name))
        return bad(c, "its name must have 1 to 255 bytes of printable ASCII");
    if (vmsd->fields && vmsd->field_bytes < sizeof(struct gw_vmfield))
        return bad(c, "field_bytes is not set");
    if (vmsd->minimum_version_id > vmsd->version_id)
        return bad(c, "minimum_version_id is above version_id");
    if (vmsd->load_state_old && vmsd->minimum_version_id_old >= vmsd->minimum_version_id)
        return bad(c, "load_state_old has no version to load");
    if (!vmsd->load_state_old && vmsd->minimum_version_id_old > 0)
        return bad(c, "minimum_version_id_old without load_state_old");
    if (vmsd->property &&
        (!is_name(vmsd->property) ||
         !gw_range_is_inside(vmsd->property_offset, sizeof(bool), vmsd->type_bytes)))
        return bad(c, "its property has no name, or is not within the object");
    return 0;
}

static int check_description(const struct gw_vmstate *vmsd, unsigned depth, struct gw_error *err)
{
    if (!vmsd)
        return gw_fail(err, -EINVAL, "vmstate: there is no description");
    struct checked c = {.vmsd = vmsd, .err = err};
    int rc = check_head(&c);
    if (rc < 0)
        return rc;
    if (depth == GW_VMSTATE_DEPTH_MAX)
        return gw_fail(err, -EINVAL, "vmstate '%s': nested deeper than %d", vmsd->name,
                       GW_VMSTATE_DEPTH_MAX);
    for (c.field = gw_vmfield_first(vmsd); c.field; c.field = gw_vmfield_next(vmsd, c.field)) {
        rc = check_field(&c, depth);
        if (rc < 0)
            return rc;
    }
    for (const struct gw_vmstate *const *sub = vmsd->subsections; sub && *sub; sub++) {
        rc = check_subsection(&c, sub, depth);
        if (rc < 0)
            return rc;
    }
    /* Last: what is contained is known to be sound. */
    for (c.field = gw_vmfield_first(vmsd); c.field; c.field = gw_vmfield_next(vmsd, c.field)) {
        if (c.field->count_kind != GW_VM_END && is_counted_late(&c))
            return bad(&c, "the member that counts is loaded after it");
    }
    return 0;
}

int gw_vmstate_check(const struct gw_vmstate *vmsd, struct gw_error *err)
{
    return check_description(vmsd, 0, err);
}
