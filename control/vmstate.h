/* SPDX-License-Identifier: MIT */
/* control/vmstate.h - inside the VMState engine only: one save or load under way, how a field is found
 * in an object, and what a load that fails takes back. The contract is <godwit/vmstate.h>'s. */
#ifndef GW_CONTROL_VMSTATE_H
#define GW_CONTROL_VMSTATE_H

#include "control/stream.h"
#include "control/vmdesc.h"

#include <godwit/vmstate.h>
#include <string.h>

#define GW_VM_NULL_BYTE 0x30 /* a NULL among pointers */
#define GW_VM_SUBSECTIONS_MAX 64

/* ---- what a load takes back (vmstate_undo.c) --------------------------------------------------- */

struct gw_vmundo_entry;
struct gw_vmundo { /* a log: what to do backwards if the load fails, forwards if it does not */
    struct gw_vmundo_entry *list;
    size_t count, room;
    uint8_t *data; /* bytes as they were */
    size_t data_bytes, data_room;
};

/* Each notes one thing before, or right after, it is done. -ENOMEM: it is not noted, and what was to
 * be noted is still the caller's. */
int gw_vmundo_bytes(struct gw_vmundo *undo, void *at, size_t bytes);
int gw_vmundo_memory(struct gw_vmundo *undo, void *fresh); /* of gw_vmstate_alloc(), to be freed */
void gw_vmundo_disown(struct gw_vmundo *undo, const void *fresh); /* somebody else frees it now */
int gw_vmundo_tmp(struct gw_vmundo *undo, const struct gw_vmstate *vmsd,
                  void *tmp); /* either way */
int gw_vmundo_array(struct gw_vmundo *undo, const struct gw_vmfield *field, void *replaced);
int gw_vmundo_list(struct gw_vmundo *undo, const struct gw_vmfield *field, void *replaced_first);
int gw_vmundo_tree_new(struct gw_vmundo *undo, const struct gw_vmfield *field, void *fresh);
int gw_vmundo_tree_old(struct gw_vmundo *undo, const struct gw_vmfield *field, void *replaced);
int gw_vmundo_timer(struct gw_vmundo *undo, const struct gw_vmtimer_ops *ops, void *member);
int gw_vmundo_hook(struct gw_vmundo *undo, const struct gw_vmstate *vmsd, void *opaque);

void gw_vmundo_rollback(struct gw_vmundo *undo); /* and empty it */
void gw_vmundo_commit(struct gw_vmundo *undo);

/* ---- one save or load -------------------------------------------------------------------------- */

struct gw_vmframe {
    const struct gw_vmstate *vmsd;
    const struct gw_vmfield *field; /* the one at work, or NULL */
    size_t index;
    bool indexed;    /* the field has more elements than one */
    bool is_section; /* a device's own description or a subsection: what errors call a section */
};

struct gw_vmrun {
    const struct gw_vmstate_device *dev;
    bool names_device; /* in errors: the caller does not */
    struct gw_error *err;
    struct gw_writer *w; /* of a save */
    struct gw_vmdesc *desc;
    struct gw_reader *r; /* of a load */
    struct gw_vmundo undo;
    size_t alloc_left;
    size_t start, at; /* where the section began, and the element at work */
    unsigned depth;
    struct gw_vmframe frames[GW_VMSTATE_DEPTH_MAX];
};

/* Fill run->err: the place, then what is said. Returns @rc. */
int gw_vmrun_fail(struct gw_vmrun *run, int rc, const char *format, ...) GW_PRINTF(3, 4);
/* @rc of a hook that perhaps filled run->err. */
int gw_vmrun_hook_failed(struct gw_vmrun *run, int rc, const char *hook);
/* One description deeper. */
int gw_vmrun_enter(struct gw_vmrun *run, const struct gw_vmstate *vmsd, bool is_section);
void gw_vmrun_leave(struct gw_vmrun *run);
struct gw_vmframe *gw_vmrun_frame(struct gw_vmrun *run); /* the deepest */

int gw_vmrun_save(struct gw_vmrun *run, const struct gw_vmstate *vmsd, void *opaque,
                  uint32_t version_id, bool is_section);
int gw_vmrun_load(struct gw_vmrun *run, const struct gw_vmstate *vmsd, void *opaque,
                  uint32_t version_id, bool is_section);
/* Memory for a load, within its limit; freed if it fails. */
int gw_vmrun_alloc(struct gw_vmrun *run, size_t count, size_t bytes, void **memory);

/* Lists and trees (vmstate_chain.c). @member: the head, the pointer to the tree. */
int gw_vmrun_save_list(struct gw_vmrun *run, const struct gw_vmfield *field, void *member);
int gw_vmrun_load_list(struct gw_vmrun *run, const struct gw_vmfield *field, void *member);
int gw_vmrun_save_tree(struct gw_vmrun *run, const struct gw_vmfield *field, void *member);
int gw_vmrun_load_tree(struct gw_vmrun *run, const struct gw_vmfield *field, void *member,
                       const void *opaque);

/* ---- fields (vmstate_field.c) ------------------------------------------------------------------ */

const struct gw_vmfield *gw_vmfield_first(const struct gw_vmstate *vmsd); /* NULL: none */
const struct gw_vmfield *gw_vmfield_next(const struct gw_vmstate *vmsd,
                                         const struct gw_vmfield *field);
bool gw_vmfield_is_present(const struct gw_vmfield *field, const void *opaque, uint32_t version_id);
/* Elements, bytes of a BUFFER or UNUSED, bits of a BITMAP; refused above the field's maximum. */
int gw_vmfield_units(struct gw_vmrun *run, const struct gw_vmfield *field, const void *opaque,
                     size_t *units);
/* How often the field is on the wire, each time of gw_vmfield_stride() bytes of memory. */
size_t gw_vmfield_elements(const struct gw_vmfield *field, size_t units);
size_t gw_vmfield_stride(const struct gw_vmfield *field, size_t units);
/* Bytes that a unit has on the wire at least: 0 where that is not known. */
size_t gw_vmfield_wire_bytes(const struct gw_vmfield *field, size_t units);
/* A value, copied as it is from and to memory. */
bool gw_vmfield_is_plain(const struct gw_vmfield *field);
const char *gw_vmkind_type(const struct gw_vmfield *field); /* in the stream's description */

static inline void *gw_vm_pointer(const void *at) /* a pointer of any type that lies at @at */
{
    void *pointer;
    memcpy(&pointer, at, sizeof(pointer));
    return pointer;
}

static inline void gw_vm_pointer_set(void *at, const void *pointer)
{
    memcpy(at, &pointer, sizeof(pointer));
}

/* ---- memory (vmstate_memory.c) ----------------------------------------------------------------- */

size_t gw_vmstate_alloc_count(const void *memory); /* elements, bytes of each, as asked for */
size_t gw_vmstate_alloc_bytes(const void *memory);
void gw_vmstate_array_free(const struct gw_vmfield *field, void *array);
void gw_vmstate_list_free(const struct gw_vmfield *field, void *first);

#endif
