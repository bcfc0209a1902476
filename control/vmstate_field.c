// SPDX-License-Identifier: MIT
/* What a field is: whether it is there, how many units it has, how wide they are in memory and on the
 * wire. Saving, loading, clearing and checking ask here, so that they cannot disagree. */
#include "control/vmstate.h"
#include "core/base/bytes.h"

/* Kinds that are copied between memory and wire, and what the stream's description calls all. */
static const struct {
    const char *type;
    uint8_t bytes;      /* in memory, of one that is a fixed size there */
    uint8_t wire_bytes; /* 0: not fixed */
} kinds[GW_VM_COUNT_] = {
    [GW_VM_INT8] = {"int8", 1, 1},
    [GW_VM_INT16] = {"int16", 2, 2},
    [GW_VM_INT32] = {"int32", 4, 4},
    [GW_VM_INT64] = {"int64", 8, 8},
    [GW_VM_UINT8] = {"uint8", 1, 1},
    [GW_VM_UINT16] = {"uint16", 2, 2},
    [GW_VM_UINT32] = {"uint32", 4, 4},
    [GW_VM_UINT64] = {"uint64", 8, 8},
    [GW_VM_BOOL] = {"bool", sizeof(bool), 1},
    [GW_VM_DOUBLE] = {"CPU_Double_U", sizeof(double), 8},
    [GW_VM_TIMER] = {"timer", 8, 8},
    [GW_VM_UINT8_EQUAL] = {"uint8 equal", 1, 1},
    [GW_VM_UINT16_EQUAL] = {"uint16 equal", 2, 2},
    [GW_VM_UINT32_EQUAL] = {"uint32 equal", 4, 4},
    [GW_VM_UINT64_EQUAL] = {"int64 equal", 8, 8}, /* sic: as every reader of streams knows it */
    [GW_VM_INT32_EQUAL] = {"int32 equal", 4, 4},
    [GW_VM_INT32_LE] = {"int32 le", 4, 4},
    [GW_VM_CSTR8] = {"capability", 0, 0},
    [GW_VM_BUFFER] = {"buffer", 1, 0},
    [GW_VM_UNUSED] = {"unused_buffer", 0, 0},
    [GW_VM_BITMAP] = {"bitmap", 8, 0},
    [GW_VM_STRUCT] = {"struct", 0, 0},
    [GW_VM_VSTRUCT] = {"vstruct", 0, 0},
    [GW_VM_TMP] = {"tmp", 0, 0},
    [GW_VM_TAILQ] = {"qtailq", 0, 0},
    [GW_VM_LIST] = {"qlist", 0, 0},
    [GW_VM_TREE] = {"gtree", 0, 0},
    [GW_VM_TREE_POINTER] = {"gtree", 0, 0},
    [GW_VM_TIMER_OPS] = {"timer", 0, 8},
    [GW_VM_CUSTOM] = {"unknown", 0, 0},
    [GW_VM_VALIDATE] = {"unknown", 0, 0},
};

const char *gw_vmkind_type(const struct gw_vmfield *field)
{
    return field->kind == GW_VM_CUSTOM ? field->codec->name : kinds[field->kind].type;
}

const struct gw_vmfield *gw_vmfield_first(const struct gw_vmstate *vmsd)
{
    return vmsd->fields && vmsd->fields->kind != GW_VM_END ? vmsd->fields : NULL;
}

const struct gw_vmfield *gw_vmfield_next(const struct gw_vmstate *vmsd,
                                         const struct gw_vmfield *field)
{
    /* By the caller's size of a field: it may have been compiled against a later header. */
    const void *next = (const char *)field + vmsd->field_bytes;
    const struct gw_vmfield *f = next;
    return f->kind != GW_VM_END ? f : NULL;
}

bool gw_vmfield_is_present(const struct gw_vmfield *field, const void *opaque, uint32_t version_id)
{
    return field->test ? field->test(opaque, version_id) : field->version_id <= version_id;
}

bool gw_vmfield_is_plain(const struct gw_vmfield *field)
{
    switch (field->kind) {
    case GW_VM_CSTR8:
    case GW_VM_BUFFER:
    case GW_VM_BITMAP:
        return true;
    default:
        return kinds[field->kind].bytes > 0;
    }
}

static int64_t read_count(const struct gw_vmfield *field, const void *opaque)
{
    const char *at = (const char *)opaque + field->count_offset;
    union {
        int32_t i32;
        uint32_t u32;
        uint16_t u16;
        uint8_t u8;
    } value;
    switch (field->count_kind) {
    case GW_VM_INT32:
        memcpy(&value.i32, at, sizeof(value.i32));
        return value.i32;
    case GW_VM_UINT32:
        memcpy(&value.u32, at, sizeof(value.u32));
        return value.u32;
    case GW_VM_UINT16:
        memcpy(&value.u16, at, sizeof(value.u16));
        return value.u16;
    default:
        memcpy(&value.u8, at, sizeof(value.u8));
        return value.u8;
    }
}

int gw_vmfield_units(struct gw_vmrun *run, const struct gw_vmfield *field, const void *opaque,
                     size_t *units)
{
    *units = field->count;
    if (field->count_kind == GW_VM_END)
        return 0;
    int64_t count = read_count(field, opaque);
    size_t factor = field->factor ? field->factor : 1;
    if (count < 0)
        return gw_vmrun_fail(run, -E2BIG, "its count, '%s', is %lld", field->count_name,
                             (long long)count);
    if ((uint64_t)count > field->count_max / factor)
        return gw_vmrun_fail(run, -E2BIG, "its count, '%s', is %lld, at most %zu here",
                             field->count_name, (long long)count, field->count_max / factor);
    *units = (size_t)count * factor;
    return 0;
}

static bool is_one_piece(const struct gw_vmfield *field)
{
    return field->kind == GW_VM_BUFFER || field->kind == GW_VM_UNUSED ||
           field->kind == GW_VM_BITMAP;
}

size_t gw_vmfield_elements(const struct gw_vmfield *field, size_t units)
{
    return is_one_piece(field) && units > 0 ? 1 : units;
}

size_t gw_vmfield_stride(const struct gw_vmfield *field, size_t units)
{
    if (field->kind == GW_VM_BITMAP)
        return (units / 64 + (units % 64 != 0)) * 8;
    return field->kind == GW_VM_BUFFER ? units : field->bytes;
}

size_t gw_vmfield_wire_bytes(const struct gw_vmfield *field, size_t units)
{
    if (field->pointers) /* a NULL is a byte whatever it is that it is not */
        return 1;
    if (field->kind == GW_VM_BUFFER || field->kind == GW_VM_UNUSED)
        return units;
    if (field->kind == GW_VM_BITMAP)
        return gw_vmfield_stride(field, units);
    return kinds[field->kind].wire_bytes;
}
