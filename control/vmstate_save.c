// SPDX-License-Identifier: MIT
/* Saving: a walk over the table that writes each field that is there, and tells the stream's
 * description, if there is one, what it writes. What a target would refuse is refused here. */
#include "control/vmstate.h"

#include <string.h>

/* ---- one element ------------------------------------------------------------------------------- */

static int put_cstr8(struct gw_vmrun *run, const struct gw_vmfield *field, const char *text)
{
    size_t bytes = strnlen(text, field->bytes);
    if (bytes == field->bytes || bytes > UINT8_MAX)
        return gw_vmrun_fail(run, -EINVAL, "its text does not end within %zu bytes",
                             field->bytes > 256 ? (size_t)256 : field->bytes);
    gw_writer_u8(run->w, (uint8_t)bytes);
    gw_writer_bytes(run->w, text, bytes);
    return 0;
}

static void put_zeros(struct gw_writer *w, size_t bytes)
{
    static const uint8_t zeros[256];
    while (bytes > 0) {
        size_t piece = bytes < sizeof(zeros) ? bytes : sizeof(zeros);
        gw_writer_bytes(w, zeros, piece);
        bytes -= piece;
    }
}

static void put_bits(struct gw_writer *w, const uint64_t *words, size_t bits)
{
    for (size_t at = 0; at < bits; at += 64) {
        uint64_t word = words[at / 64];
        if (bits - at < 64)
            word &= (UINT64_C(1) << (bits - at)) - 1;
        gw_writer_be64(w, word);
    }
}

static void put_number(struct gw_writer *w, const void *element, size_t bytes)
{
    uint16_t u16;
    uint32_t u32;
    uint64_t u64;
    switch (bytes) {
    case 1:
        gw_writer_bytes(w, element, 1);
        break;
    case 2:
        memcpy(&u16, element, 2);
        gw_writer_be16(w, u16);
        break;
    case 4:
        memcpy(&u32, element, 4);
        gw_writer_be32(w, u32);
        break;
    default:
        memcpy(&u64, element, 8);
        gw_writer_be64(w, u64);
        break;
    }
}

static int put_tmp(struct gw_vmrun *run, const struct gw_vmfield *field, void *parent)
{
    void *tmp = gw_vmstate_alloc(1, field->bytes);
    if (!tmp)
        return gw_vmrun_fail(run, -ENOMEM, "no memory for %zu bytes", field->bytes);
    gw_vm_pointer_set((char *)tmp + field->parent_offset, parent);
    int rc = gw_vmrun_save(run, field->vmsd, tmp, field->vmsd->version_id, false);
    gw_vmstate_free(tmp);
    return rc;
}

/* As a member of a device's own kind, which the description cannot look into. */
static int put_custom(struct gw_vmrun *run, const struct gw_vmfield *field, const void *element)
{
    struct gw_vmdesc *desc = run->w->desc;
    run->w->desc = NULL;
    int rc = field->codec->put(element, field->bytes, run->w, run->err);
    run->w->desc = desc;
    return rc < 0 ? gw_vmrun_hook_failed(run, rc, field->codec->name) : 0;
}

static int put_struct(struct gw_vmrun *run, const struct gw_vmfield *field, void *element)
{
    gw_vmdesc_struct_begin(run->desc);
    int rc = gw_vmrun_save(run, field->vmsd, element, field->vmsd->version_id, false);
    gw_vmdesc_struct_end(run->desc);
    return rc;
}

static int put_element(struct gw_vmrun *run, const struct gw_vmfield *field, void *element,
                       size_t units, void *opaque)
{
    bool value;
    switch (field->kind) {
    case GW_VM_BOOL:
        memcpy(&value, element, sizeof(value));
        gw_writer_u8(run->w, value ? 1 : 0);
        return 0;
    case GW_VM_CSTR8:
        return put_cstr8(run, field, element);
    case GW_VM_BUFFER:
        gw_writer_bytes(run->w, element, units);
        return 0;
    case GW_VM_UNUSED:
        put_zeros(run->w, units);
        return 0;
    case GW_VM_BITMAP:
        put_bits(run->w, element, units);
        return 0;
    case GW_VM_STRUCT:
        return put_struct(run, field, element);
    case GW_VM_VSTRUCT:
        return gw_vmrun_save(run, field->vmsd, element, field->struct_version_id, false);
    case GW_VM_TMP:
        return put_tmp(run, field, opaque);
    case GW_VM_TAILQ:
    case GW_VM_LIST:
        return gw_vmrun_save_list(run, field, element);
    case GW_VM_TREE:
    case GW_VM_TREE_POINTER:
        return gw_vmrun_save_tree(run, field, element);
    case GW_VM_TIMER_OPS:
        gw_writer_be64(run->w, (uint64_t)field->timer->expires_ns(element));
        return 0;
    case GW_VM_CUSTOM:
        return put_custom(run, field, element);
    default:
        put_number(run->w, element, field->bytes);
        return 0;
    }
}

/* ---- one field --------------------------------------------------------------------------------- */

/* Are all elements of this kind as many bytes on the wire as the first, whatever their values? */
static bool is_uniform(const struct gw_vmfield *field)
{
    if (field->test || field->count_kind != GW_VM_END || field->pointers)
        return false;
    if (field->kind == GW_VM_BUFFER || field->kind == GW_VM_BITMAP || field->kind == GW_VM_UNUSED)
        return true;
    if (field->kind != GW_VM_STRUCT && field->kind != GW_VM_VSTRUCT && field->kind != GW_VM_TMP)
        return gw_vmfield_wire_bytes(field, 1) > 0;
    if (field->vmsd->subsections && field->vmsd->subsections[0])
        return false;
    const struct gw_vmstate *inner = field->vmsd;
    for (const struct gw_vmfield *f = gw_vmfield_first(inner); f; f = gw_vmfield_next(inner, f)) {
        if (!is_uniform(f))
            return false;
    }
    return true;
}

/* May the description tell the first element for all? */
static bool is_told_once(const struct gw_vmfield *field)
{
    struct gw_vmfield one = *field;
    one.count_kind = GW_VM_END; /* how many there are is told */
    return is_uniform(&one);
}

/* Which of the fields of its name it is; -1: the only one. */
static int number_of_name(const struct gw_vmstate *vmsd, const struct gw_vmfield *field)
{
    int before = 0, all = 0;
    for (const struct gw_vmfield *f = gw_vmfield_first(vmsd); f; f = gw_vmfield_next(vmsd, f)) {
        if (strcmp(f->name, field->name) != 0)
            continue;
        before += f < field;
        all++;
    }
    return all > 1 ? before : -1;
}

/* The object's own memory for it, or NULL with the fault told. */
static int find_base(struct gw_vmrun *run, const struct gw_vmfield *field, void *opaque,
                     size_t units, char **base)
{
    *base = (char *)opaque + field->offset;
    if (!field->pointer)
        return 0;
    *base = gw_vm_pointer(*base);
    if (!*base)
        return gw_vmrun_fail(run, -EINVAL, "it points nowhere");
    size_t stride = gw_vmfield_stride(field, units);
    size_t need = gw_vmfield_elements(field, units) * stride;
    if (field->alloc && need > gw_vmstate_alloc_count(*base) * gw_vmstate_alloc_bytes(*base))
        return gw_vmrun_fail(run, -EINVAL, "%zu bytes, and memory for %zu was allocated", need,
                             gw_vmstate_alloc_count(*base) * gw_vmstate_alloc_bytes(*base));
    return 0;
}

struct walk {
    const struct gw_vmfield *field;
    void *opaque;
    size_t units, count;
    struct gw_vmdesc_field told;
    bool once;
};

static int save_element(struct gw_vmrun *run, const struct walk *walk, void *element)
{
    const struct gw_vmfield *field = walk->field;
    if (field->pointers) {
        element = gw_vm_pointer(element);
        if (!element) {
            gw_writer_u8(run->w, GW_VM_NULL_BYTE);
            return 0;
        }
    }
    return put_element(run, field, element, walk->units, walk->opaque);
}

static int save_nth(struct gw_vmrun *run, struct walk *walk, size_t i, void *element)
{
    struct gw_vmframe *frame = gw_vmrun_frame(run);
    frame->index = i;
    run->at = run->w->bytes;
    size_t from = run->w->bytes;
    bool told = run->desc && !(walk->once && i > 0);
    if (told) {
        walk->told.index = i;
        walk->told.type = walk->field->pointers && !gw_vm_pointer(element)
                              ? "nullptr"
                              : gw_vmkind_type(walk->field);
        gw_vmdesc_field_begin(run->desc, &walk->told);
    } else {
        gw_vmdesc_mute(run->desc, true);
    }
    int rc = save_element(run, walk, element);
    if (rc == 0 && gw_writer_error(run->w) < 0)
        rc = gw_vmrun_fail(run, gw_writer_error(run->w), "it does not fit in the section (%s)",
                           strerror(-gw_writer_error(run->w)));
    if (told)
        gw_vmdesc_field_end(run->desc, run->w->bytes - from);
    else
        gw_vmdesc_mute(run->desc, false);
    return rc;
}

static int save_field(struct gw_vmrun *run, const struct gw_vmfield *field, void *opaque,
                      uint32_t version_id)
{
    struct gw_vmframe *frame = gw_vmrun_frame(run);
    frame->field = field;
    frame->indexed = false;
    run->at = run->w->bytes;
    if (!gw_vmfield_is_present(field, opaque, version_id))
        return field->must_exist ? gw_vmrun_fail(run, -EINVAL, "this does not hold") : 0;
    struct walk walk = {.field = field, .opaque = opaque};
    int rc = gw_vmfield_units(run, field, opaque, &walk.units);
    if (rc < 0 || walk.units == 0)
        return rc;
    char *base;
    rc = find_base(run, field, opaque, walk.units, &base);
    if (rc < 0)
        return rc;
    walk.count = gw_vmfield_elements(field, walk.units);
    frame->indexed = walk.count > 1;
    if (run->desc) {
        walk.once = walk.count > 1 && is_told_once(field);
        walk.told = (struct gw_vmdesc_field){.name = field->name,
                                             .number = number_of_name(frame->vmsd, field),
                                             .array_len = walk.once ? walk.count : 0,
                                             .is_indexed = walk.count > 1 && !walk.once};
    }
    size_t stride = field->pointers ? sizeof(void *) : gw_vmfield_stride(field, walk.units);
    for (size_t i = 0; i < walk.count && rc == 0; i++)
        rc = save_nth(run, &walk, i, base + i * stride);
    return rc;
}

/* ---- one description --------------------------------------------------------------------------- */

static int save_fields(struct gw_vmrun *run, const struct gw_vmstate *vmsd, void *opaque,
                       uint32_t version_id)
{
    int rc = 0;
    for (const struct gw_vmfield *f = gw_vmfield_first(vmsd); f && rc == 0;
         f = gw_vmfield_next(vmsd, f))
        rc = save_field(run, f, opaque, version_id);
    gw_vmrun_frame(run)->field = rc < 0 ? gw_vmrun_frame(run)->field : NULL;
    return rc;
}

static int save_subsections(struct gw_vmrun *run, const struct gw_vmstate *vmsd, void *opaque,
                            bool *told)
{
    for (const struct gw_vmstate *const *sub = vmsd->subsections; sub && *sub; sub++) {
        if (!gw_vmstate_is_needed(*sub, opaque))
            continue;
        gw_vmdesc_subsections_begin(run->desc, told);
        gw_vmdesc_subsection_begin(run->desc);
        gw_stream_write_subsection(run->w, (*sub)->name, (*sub)->version_id);
        int rc = gw_vmrun_save(run, *sub, opaque, (*sub)->version_id, true);
        gw_vmdesc_subsection_end(run->desc);
        if (rc < 0)
            return rc;
    }
    if (gw_writer_error(run->w) < 0)
        return gw_vmrun_fail(run, gw_writer_error(run->w), "it does not fit in the section (%s)",
                             strerror(-gw_writer_error(run->w)));
    return 0;
}

static int save_members(struct gw_vmrun *run, const struct gw_vmstate *vmsd, void *opaque,
                        uint32_t version_id)
{
    size_t from = run->w->bytes;
    bool told = false;
    gw_vmdesc_state_begin(run->desc, vmsd->name, version_id);
    int rc = save_fields(run, vmsd, opaque, version_id);
    if (rc == 0)
        rc = save_subsections(run, vmsd, opaque, &told);
    gw_vmdesc_state_end(run->desc, run->w->bytes - from);
    return rc;
}

int gw_vmrun_save(struct gw_vmrun *run, const struct gw_vmstate *vmsd, void *opaque,
                  uint32_t version_id, bool is_section)
{
    int rc = gw_vmrun_enter(run, vmsd, is_section);
    if (rc < 0)
        return rc;
    rc = vmsd->pre_save ? vmsd->pre_save(opaque, run->err) : 0;
    if (rc < 0) {
        gw_vmrun_hook_failed(run, rc, "pre_save");
        goto out;
    }
    rc = save_members(run, vmsd, opaque, version_id);
    if (vmsd->post_save) {
        struct gw_error ignored = GW_ERROR_INIT; /* the first failure is the one to tell */
        int post = vmsd->post_save(opaque, rc < 0 ? &ignored : run->err);
        if (rc == 0 && post < 0)
            rc = gw_vmrun_hook_failed(run, post, "post_save");
    }
out:
    gw_vmrun_leave(run);
    return rc;
}
