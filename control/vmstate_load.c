// SPDX-License-Identifier: MIT
/* Loading: a walk over the table that reads each field that is there from bytes that may be hostile.
 * Counts are checked before memory is written or allocated, and what is overwritten is noted first, so
 * that a failure anywhere can be taken back (vmstate_undo.c). */
#include "control/vmstate.h"

#include <inttypes.h>
#include <string.h>

static int no_memory(struct gw_vmrun *run, size_t bytes)
{
    return gw_vmrun_fail(run, -ENOMEM, "no memory for %zu bytes", bytes);
}

/* After reading: was it there? */
static int check_reader(struct gw_vmrun *run)
{
    if (gw_reader_error(run->r) == 0)
        return 0;
    return gw_vmrun_fail(run, gw_reader_error(run->r), "the state ends too early");
}

/* Before the engine writes there. */
static int keep(struct gw_vmrun *run, void *at, size_t bytes)
{
    return gw_vmundo_bytes(&run->undo, at, bytes) < 0 ? no_memory(run, bytes) : 0;
}

int gw_vmrun_alloc(struct gw_vmrun *run, size_t count, size_t bytes, void **memory)
{
    *memory = NULL;
    if (bytes > 0 && count > run->alloc_left / bytes)
        return gw_vmrun_fail(
            run, -E2BIG, "%zu elements of %zu bytes: the load would allocate more than %u bytes",
            count, bytes, GW_VMSTATE_ALLOC_BYTES_MAX);
    void *fresh = gw_vmstate_alloc(count, bytes);
    if (!fresh || gw_vmundo_memory(&run->undo, fresh) < 0) {
        gw_vmstate_free(fresh);
        return no_memory(run, count * bytes);
    }
    run->alloc_left -= count * bytes;
    *memory = fresh;
    return 0;
}

/* ---- one element ------------------------------------------------------------------------------- */

static void get_number(struct gw_reader *r, void *element, size_t bytes)
{
    uint16_t u16;
    uint32_t u32;
    uint64_t u64;
    switch (bytes) {
    case 1:
        gw_reader_bytes(r, element, 1);
        break;
    case 2:
        u16 = gw_reader_be16(r);
        memcpy(element, &u16, 2);
        break;
    case 4:
        u32 = gw_reader_be32(r);
        memcpy(element, &u32, 4);
        break;
    default:
        u64 = gw_reader_be64(r);
        memcpy(element, &u64, 8);
        break;
    }
}

/* For a message. */
static long long number_of(const struct gw_vmfield *field, const void *element)
{
    union {
        uint8_t u8;
        uint16_t u16;
        uint32_t u32;
        uint64_t u64;
        int32_t i32;
    } value;
    memcpy(&value, element, field->bytes);
    switch (field->kind) {
    case GW_VM_UINT8_EQUAL:
        return value.u8;
    case GW_VM_UINT16_EQUAL:
        return value.u16;
    case GW_VM_UINT32_EQUAL:
        return value.u32;
    case GW_VM_INT32_EQUAL:
        return value.i32;
    default:
        return (long long)value.u64;
    }
}

/* Values that must be what the member holds. */
static int get_equal(struct gw_vmrun *run, const struct gw_vmfield *field, const void *element)
{
    uint8_t came[8] = {0};
    get_number(run->r, came, field->bytes);
    if (gw_reader_error(run->r) < 0 || memcmp(element, came, field->bytes) == 0)
        return 0;
    return gw_vmrun_fail(run, -EINVAL, "%lld arrived, it is %lld here", number_of(field, came),
                         number_of(field, element));
}

static int get_le(struct gw_vmrun *run, void *element)
{
    int32_t most;
    memcpy(&most, element, sizeof(most));
    int32_t value = (int32_t)gw_reader_be32(run->r);
    if (gw_reader_error(run->r) < 0)
        return 0;
    if (value < 0 || value > most)
        return gw_vmrun_fail(run, -EINVAL, "%" PRId32 " arrived, 0 to %" PRId32 " is taken", value,
                             most);
    memcpy(element, &value, sizeof(value));
    return 0;
}

static int get_cstr8(struct gw_vmrun *run, const struct gw_vmfield *field, char *text)
{
    size_t bytes = gw_reader_u8(run->r);
    const uint8_t *came = gw_reader_take(run->r, bytes);
    if (!came)
        return 0;
    if (bytes >= field->bytes)
        return gw_vmrun_fail(run, -E2BIG, "text of %zu bytes, at most %zu here", bytes,
                             field->bytes - 1);
    if (memchr(came, 0, bytes))
        return gw_vmrun_fail(run, -EINVAL, "a NUL within text of %zu bytes", bytes);
    memset(text, 0, field->bytes);
    memcpy(text, came, bytes);
    return 0;
}

static void get_bits(struct gw_reader *r, uint64_t *words, size_t bits)
{
    for (size_t at = 0; at < bits; at += 64) {
        uint64_t word = gw_reader_be64(r);
        if (bits - at < 64)
            word &=
                (UINT64_C(1) << (bits - at)) - 1; /* nothing may look at a bit that is not there */
        words[at / 64] = word;
    }
}

static int get_tmp(struct gw_vmrun *run, const struct gw_vmfield *field, void *parent)
{
    void *tmp = gw_vmstate_alloc(1, field->bytes);
    if (!tmp || gw_vmundo_tmp(&run->undo, field->vmsd, tmp) < 0) {
        gw_vmstate_free(tmp);
        return no_memory(run, field->bytes);
    }
    gw_vm_pointer_set((char *)tmp + field->parent_offset, parent);
    return gw_vmrun_load(run, field->vmsd, tmp, field->version_id, false);
}

static int get_timer(struct gw_vmrun *run, const struct gw_vmfield *field, void *element)
{
    int64_t expires_ns = (int64_t)gw_reader_be64(run->r);
    if (gw_reader_error(run->r) < 0)
        return 0;
    if (gw_vmundo_timer(&run->undo, field->timer, element) < 0)
        return no_memory(run, field->bytes);
    field->timer->set(element, expires_ns);
    return 0;
}

static int get_custom(struct gw_vmrun *run, const struct gw_vmfield *field, void *element,
                      uint32_t version_id)
{
    int rc = keep(run, element, field->bytes);
    if (rc < 0)
        return rc;
    rc = field->codec->get(element, field->bytes, run->r, version_id, run->err);
    return rc < 0 ? gw_vmrun_hook_failed(run, rc, field->codec->name) : 0;
}

static int get_bool(struct gw_vmrun *run, void *element)
{
    bool value = gw_reader_u8(run->r) != 0;
    memcpy(element, &value, sizeof(value));
    return 0;
}

struct walk {
    const struct gw_vmfield *field;
    void *opaque;
    size_t units;
    uint32_t version_id;
};

static int get_element(struct gw_vmrun *run, const struct walk *walk, void *element)
{
    const struct gw_vmfield *field = walk->field;
    switch (field->kind) {
    case GW_VM_UINT8_EQUAL:
    case GW_VM_UINT16_EQUAL:
    case GW_VM_UINT32_EQUAL:
    case GW_VM_UINT64_EQUAL:
    case GW_VM_INT32_EQUAL:
        return get_equal(run, field, element);
    case GW_VM_INT32_LE:
        return get_le(run, element);
    case GW_VM_BOOL:
        return get_bool(run, element);
    case GW_VM_CSTR8:
        return get_cstr8(run, field, element);
    case GW_VM_BUFFER:
        gw_reader_bytes(run->r, element, walk->units);
        return 0;
    case GW_VM_UNUSED:
        gw_reader_take(run->r, walk->units);
        return 0;
    case GW_VM_BITMAP:
        get_bits(run->r, element, walk->units);
        return 0;
    case GW_VM_STRUCT:
        return gw_vmrun_load(run, field->vmsd, element, field->vmsd->version_id, false);
    case GW_VM_VSTRUCT:
        return gw_vmrun_load(run, field->vmsd, element, field->struct_version_id, false);
    case GW_VM_TMP:
        return get_tmp(run, field, walk->opaque);
    case GW_VM_TAILQ:
    case GW_VM_LIST:
        return gw_vmrun_load_list(run, field, element);
    case GW_VM_TREE:
    case GW_VM_TREE_POINTER:
        return gw_vmrun_load_tree(run, field, element, walk->opaque);
    case GW_VM_TIMER_OPS:
        return get_timer(run, field, element);
    case GW_VM_CUSTOM:
        return get_custom(run, field, element, walk->version_id);
    default:
        get_number(run->r, element, field->bytes);
        return 0;
    }
}

/* ---- one field --------------------------------------------------------------------------------- */

/* Is there as much as so many units take? Asked before memory is allocated for them. */
static int check_left(struct gw_vmrun *run, const struct gw_vmfield *field, size_t units)
{
    size_t count = gw_vmfield_elements(field, units);
    size_t wire = gw_vmfield_wire_bytes(field, units);
    size_t left = gw_reader_left(run->r);
    if (wire == 0 || count <= left / wire)
        return 0;
    return gw_vmrun_fail(run, -EBADMSG, "the state ends too early: %zu of %zu bytes, %zu are left",
                         count, wire, left);
}

/* Memory for an ALLOC member; what it pointed to goes when the load has succeeded. */
static int allocate(struct gw_vmrun *run, const struct gw_vmfield *field, char *member,
                    size_t units)
{
    void *fresh = NULL;
    size_t count = units, bytes = field->bytes;
    if (field->kind == GW_VM_BITMAP)
        count = gw_vmfield_stride(field, units) / 8;
    int rc = gw_vmrun_alloc(run, count, bytes, &fresh);
    if (rc == 0)
        rc = keep(run, member, sizeof(void *));
    if (rc == 0 && gw_vmundo_array(&run->undo, field, gw_vm_pointer(member)) < 0)
        rc = no_memory(run, sizeof(void *));
    if (rc == 0)
        gw_vm_pointer_set(member, fresh);
    return rc;
}

/* Where the elements are, in the object or behind its pointer. */
static int find_base(struct gw_vmrun *run, const struct gw_vmfield *field, void *opaque,
                     size_t units, char **base)
{
    *base = (char *)opaque + field->offset;
    if (!field->pointer)
        return 0;
    int rc = field->alloc ? allocate(run, field, *base, units) : 0;
    *base = gw_vm_pointer(*base);
    if (rc == 0 && !*base)
        rc = gw_vmrun_fail(run, -EINVAL, "it points nowhere here");
    return rc;
}

/* An element that is a pointer, and is not to be NULL unless NULL comes. */
static int follow(struct gw_vmrun *run, const struct gw_vmfield *field, void **element)
{
    *element = gw_vm_pointer(*element);
    if (*element)
        return gw_vmfield_is_plain(field) ? keep(run, *element, field->bytes) : 0;
    uint8_t marker = gw_reader_u8(run->r);
    if (gw_reader_error(run->r) == 0 && marker != GW_VM_NULL_BYTE)
        return gw_vmrun_fail(run, -EINVAL, "there is none here, and byte 0x%02x arrived for it",
                             (unsigned)marker);
    return 0;
}

static int load_nth(struct gw_vmrun *run, const struct walk *walk, size_t i, void *element)
{
    gw_vmrun_frame(run)->index = i;
    run->at = run->r->at;
    int rc = walk->field->pointers ? follow(run, walk->field, &element) : 0;
    if (rc == 0 && element)
        rc = get_element(run, walk, element);
    return rc < 0 ? rc : check_reader(run);
}

static int load_field(struct gw_vmrun *run, const struct gw_vmfield *field, void *opaque,
                      uint32_t version_id)
{
    struct gw_vmframe *frame = gw_vmrun_frame(run);
    frame->field = field;
    frame->indexed = false;
    run->at = run->r->at;
    if (!gw_vmfield_is_present(field, opaque, version_id))
        return field->must_exist ? gw_vmrun_fail(run, -EINVAL, "this does not hold") : 0;
    struct walk walk = {.field = field, .opaque = opaque, .version_id = version_id};
    int rc = gw_vmfield_units(run, field, opaque, &walk.units);
    if (rc < 0 || walk.units == 0)
        return rc;
    rc = check_left(run, field, walk.units);
    char *base = NULL;
    if (rc == 0)
        rc = find_base(run, field, opaque, walk.units, &base);
    if (rc < 0)
        return rc;
    size_t count = gw_vmfield_elements(field, walk.units);
    size_t stride = field->pointers ? sizeof(void *) : gw_vmfield_stride(field, walk.units);
    frame->indexed = count > 1;
    if (gw_vmfield_is_plain(field) && !field->pointers && !field->alloc)
        rc = keep(run, base, count * stride);
    for (size_t i = 0; i < count && rc == 0; i++)
        rc = load_nth(run, &walk, i, base + i * stride);
    return rc;
}

/* ---- one description --------------------------------------------------------------------------- */

/* A subsection's name, if what comes next is one of @vmsd's: by the prefix alone, as the format has it
 * (what belongs to somebody outside begins otherwise). NULL: it is none. */
static const uint8_t *peek_subsection(const struct gw_reader *r, const struct gw_vmstate *vmsd,
                                      size_t *bytes)
{
    size_t left = gw_reader_left(r), parent = strlen(vmsd->name);
    if (left < 2 || r->data[r->at] != GW_ITEM_SUBSECTION)
        return NULL;
    *bytes = r->data[r->at + 1];
    const uint8_t *name = r->data + r->at + 2;
    if (*bytes < parent + 1 || left - 2 < *bytes || memcmp(name, vmsd->name, parent) != 0)
        return NULL;
    return name;
}

/* The subsection of this name; its place in the table to @number. */
static const struct gw_vmstate *find_subsection(const struct gw_vmstate *vmsd, const uint8_t *name,
                                                size_t bytes, unsigned *number)
{
    *number = 0;
    for (const struct gw_vmstate *const *sub = vmsd->subsections; sub && *sub; sub++) {
        if (strlen((*sub)->name) == bytes && memcmp((*sub)->name, name, bytes) == 0)
            return *sub;
        ++*number;
    }
    return NULL;
}

static int unknown_subsection(struct gw_vmrun *run, const uint8_t *name, size_t bytes)
{
    char text[256];
    for (size_t i = 0; i < bytes; i++)
        text[i] = name[i] >= 0x20 && name[i] < 0x7f ? (char)name[i] : '?';
    text[bytes] = '\0';
    int rc = gw_vmrun_fail(run, -ENOENT, "subsection '%s' is not known here", text);
    gw_error_hint(run->err,
                  "the source's device has more than this one: switch it off there by its "
                  "property, or take a newer version here");
    return rc;
}

static int load_subsections(struct gw_vmrun *run, const struct gw_vmstate *vmsd, void *opaque)
{
    uint64_t seen = 0;
    const uint8_t *name;
    size_t bytes;
    while ((name = peek_subsection(run->r, vmsd, &bytes)) != NULL) {
        unsigned number;
        run->at = run->r->at;
        const struct gw_vmstate *sub = find_subsection(vmsd, name, bytes, &number);
        if (!sub)
            return unknown_subsection(run, name, bytes);
        if (seen & UINT64_C(1) << number)
            return gw_vmrun_fail(run, -EINVAL, "subsection '%s' comes twice", sub->name);
        seen |= UINT64_C(1) << number;
        gw_reader_take(run->r, 2 + bytes);
        uint32_t version_id = gw_reader_be32(run->r);
        int rc = check_reader(run);
        if (rc == 0)
            rc = gw_vmrun_load(run, sub, opaque, version_id, true);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int check_version(struct gw_vmrun *run, const struct gw_vmstate *vmsd, uint32_t version_id,
                         bool *is_old)
{
    uint32_t lowest =
        vmsd->load_state_old ? vmsd->minimum_version_id_old : vmsd->minimum_version_id;
    *is_old = version_id < vmsd->minimum_version_id;
    if (version_id >= lowest && version_id <= vmsd->version_id)
        return 0;
    return gw_vmrun_fail(run, -EINVAL,
                         "version %" PRIu32 " arrived, %" PRIu32 " to %" PRIu32 " are taken here",
                         version_id, lowest, vmsd->version_id);
}

static int load_old(struct gw_vmrun *run, const struct gw_vmstate *vmsd, void *opaque,
                    uint32_t version_id)
{
    int rc = vmsd->load_state_old(opaque, run->r, version_id, run->err);
    return rc < 0 ? gw_vmrun_hook_failed(run, rc, "load_state_old") : check_reader(run);
}

static int load_members(struct gw_vmrun *run, const struct gw_vmstate *vmsd, void *opaque,
                        uint32_t version_id)
{
    int rc = vmsd->pre_load ? vmsd->pre_load(opaque, run->err) : 0;
    if (rc < 0)
        return gw_vmrun_hook_failed(run, rc, "pre_load");
    for (const struct gw_vmfield *f = gw_vmfield_first(vmsd); f; f = gw_vmfield_next(vmsd, f)) {
        rc = load_field(run, f, opaque, version_id);
        if (rc < 0)
            return rc;
    }
    gw_vmrun_frame(run)->field = NULL;
    rc = load_subsections(run, vmsd, opaque);
    if (rc < 0)
        return rc;
    rc = vmsd->post_load ? vmsd->post_load(opaque, version_id, run->err) : 0;
    return rc < 0 ? gw_vmrun_hook_failed(run, rc, "post_load") : 0;
}

int gw_vmrun_load(struct gw_vmrun *run, const struct gw_vmstate *vmsd, void *opaque,
                  uint32_t version_id, bool is_section)
{
    bool is_old;
    int rc = gw_vmrun_enter(run, vmsd, is_section);
    if (rc < 0)
        return rc;
    rc = check_version(run, vmsd, version_id, &is_old);
    if (rc == 0 && gw_vmundo_hook(&run->undo, vmsd, opaque) < 0)
        rc = no_memory(run, sizeof(void *));
    if (rc == 0)
        rc = is_old ? load_old(run, vmsd, opaque, version_id)
                    : load_members(run, vmsd, opaque, version_id);
    gw_vmrun_leave(run);
    return rc;
}
