/* SPDX-License-Identifier: MIT */
/* godwit/vmstate.h - a device's state described by a table instead of two functions.
 *
 *     struct disk {
 *         uint32_t sector, queue_count;
 *         struct queue queues[8];
 *         bool dma, has_dma;
 *     };
 *     static const struct gw_vmstate vmstate_disk_dma = { // sent only if the property is on
 *         GW_VMSTATE_OF(struct disk),
 *         .name = "disk/dma", .version_id = 1, .minimum_version_id = 1,
 *         GW_VMSTATE_PROPERTY("x-dma", struct disk, has_dma),
 *         GW_VMSTATE_FIELDS(GW_VMSTATE_BOOL(dma, struct disk)),
 *     };
 *     static const struct gw_vmstate vmstate_disk = {
 *         GW_VMSTATE_OF(struct disk),
 *         .name = "disk", .version_id = 3, .minimum_version_id = 2,
 *         GW_VMSTATE_FIELDS(
 *             GW_VMSTATE_UINT32(sector, struct disk),
 *             GW_VMSTATE_UINT32_V(queue_count, struct disk, 3), // since version 3
 *             GW_VMSTATE_STRUCT_VARRAY(queues, struct disk, queue_count, vmstate_queue, struct queue,
 *                                      .version_id = 3)),
 *         GW_VMSTATE_SUBSECTIONS(&vmstate_disk_dma),
 *     };
 *
 * A *description* (struct gw_vmstate) is a list of *fields* (vmfield.h: one macro per kind, each of
 * which compiles only for a member of that type), *subsections* and hooks. On the wire, values follow
 * each other in the order of the table: no tags, no lengths, big-endian, byte for byte what QEMU
 * writes for the same table. Descriptions are constants at file scope and are borrowed. The macros are
 * C (C11 and later), not C++.
 *
 * Life:    a description; a struct gw_vmstate_device that binds it to an object; its
 *          gw_vmstate_device_desc() goes to gw_source_add_device() or gw_target_add_device().
 * Threads: nothing here is shared. A call is on the thread that calls it, and so are its hooks.
 *
 * Growing a device. A target takes versions minimum_version_id..version_id, and every subsection that
 * it knows; one that does not come is none. So, from version n to n + 1,
 *   a field that is only sometimes of interest: a subsection with `needed`. Whoever does not need it
 *       can be sent to n; whoever does is refused there by the subsection's name. With a property,
 *       whoever sets up the machine can switch it off, so that n accepts the stream.
 *   a field that is always of interest: version_id + 1 and the field with _V. n is refused then; n + 1
 *       takes what n sends, and the member keeps the value that it had.
 *   a field that is gone: GW_VMSTATE_UNUSED with its size on the wire. Both directions go on working.
 *
 * Loading is for hostile bytes. Each count is checked against the capacity of what it counts, or the
 * maximum that the table states, before memory is allocated or written; a load allocates at most
 * GW_VMSTATE_ALLOC_BYTES_MAX; descriptions nest at most GW_VMSTATE_DEPTH_MAX deep.
 *
 * What only a device can know is its own to check, in post_load or with GW_VMSTATE_VALIDATE: that an
 * index points into a ring, and, since a field that is not there is not looked at, that the count of an
 * array goes with it when the array did not come (an older version, a test, a subsection).
 *
 * A load that failed leaves the object valid: every byte that the engine wrote, in the object and in
 * what it points to, is what it was before the load, every timer is set as it was, and what the load
 * allocated is freed. What hooks and custom codecs did elsewhere is theirs to take back, in
 * `load_failed`. A load that succeeded frees what it replaced.
 *
 * Memory of ALLOC fields, of elements of lists and of keys and values of trees comes from
 * gw_vmstate_alloc(), whoever allocates it, and goes by gw_vmstate_free(); such a member is NULL, or
 * that. gw_vmstate_clear() frees all of an object's.
 *
 * Errors name machine, device, section, field and offset in the section: "machine 'pc': device 'disk'
 * instance 0: section 'disk': field 'queues[3].size' at offset 41: ...", code `device`. */
#ifndef GODWIT_VMSTATE_H
#define GODWIT_VMSTATE_H

#include <godwit/device.h>
#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

#define GW_VMSTATE_DEPTH_MAX 16 /* descriptions within descriptions, subsections included */
#define GW_VMSTATE_ALLOC_BYTES_MAX (UINT32_C(256) << 20) /* by one load */

/* Larger is saved earlier. Any int32_t will do; these are what is usual, as distances from 0. */
enum gw_vmstate_priority {
    GW_VMSTATE_PRIORITY_LOW = -1,
    GW_VMSTATE_PRIORITY_DEFAULT = 0,
    GW_VMSTATE_PRIORITY_IOMMU = 1,      /* before what translates through it */
    GW_VMSTATE_PRIORITY_PCI_BUS = 2,    /* before the devices on it */
    GW_VMSTATE_PRIORITY_VIRTIO_MEM = 3, /* before what looks at plugged memory */
    GW_VMSTATE_PRIORITY_APIC = 4,       /* interrupt controllers before what raises interrupts */
    GW_VMSTATE_PRIORITY_GICV3_ITS = 5,
    GW_VMSTATE_PRIORITY_GICV3 = 6,
};

struct gw_vmfield; /* vmfield.h */

/* What `test` and `needed` are given is the object, on load as far as it is loaded. They only look. */
typedef bool gw_vmstate_test_fn(const void *opaque, uint32_t version_id);

/* Hooks return 0, or a negative errno with @err filled (or not: then the number's text is told). */
struct gw_vmstate {
    size_t struct_bytes; /* GW_VMSTATE_OF() sets these three */
    const char *type;    /* the object's type; fields must be of the same, spelt the same */
    size_t type_bytes;

    const char *name;            /* 1..255 bytes; a subsection's begins with its parent's */
    uint32_t version_id;         /* what is written; the highest that is taken. At most 255 for a
                                   * subsection: QEMU keeps no more of it */
    uint32_t minimum_version_id; /* the lowest that is taken by the table */
    uint32_t minimum_version_id_old; /* with load_state_old: the lowest that is taken by it */
    int32_t priority;                /* enum gw_vmstate_priority; of a device's own description */
    bool early_setup;                /* saved and loaded before the memory, while the guest runs */

    size_t field_bytes; /* GW_VMSTATE_FIELDS() sets these two; none is a description without any */
    const struct gw_vmfield *fields;
    const struct gw_vmstate *const *subsections; /* GW_VMSTATE_SUBSECTIONS(), or NULL */

    /* Both of a subsection or of a device: is it to be sent? Neither is asked on load. */
    bool (*needed)(const void *opaque);
    const char
        *property; /* GW_VMSTATE_PROPERTY(): not sent while that bool of the object is false */
    size_t property_offset;

    /* Save: pre_save, fields, subsections, post_save. post_save is called whenever pre_save was not
     * missed, after a failure too; its own failure counts if there was none before. */
    int (*pre_save)(void *opaque, struct gw_error *err);
    int (*post_save)(void *opaque, struct gw_error *err);

    /* Load: pre_load, fields, subsections, post_load. A structure's hooks run in the midst of its
     * parent's fields, a subsection's before its parent's post_load. */
    int (*pre_load)(void *opaque, struct gw_error *err);
    int (*post_load)(void *opaque, uint32_t version_id, struct gw_error *err);
    /* Instead of all that for versions minimum_version_id_old..minimum_version_id - 1. Reads what
     * those wrote, all of it. */
    int (*load_state_old)(void *opaque, struct gw_reader *r, uint32_t version_id,
                          struct gw_error *err);
    /* The load failed, here or anywhere after pre_load (or load_state_old) was called. What the engine
     * wrote since is as it was when that was called. The last one to begin is told first. */
    void (*load_failed)(void *opaque);
};

#define GW_VMSTATE_OF(object_type)                                                                 \
    .struct_bytes = sizeof(struct gw_vmstate), .type = #object_type,                               \
    .type_bytes = sizeof(object_type)
#define GW_VMSTATE_FIELDS(...)                                                                     \
    .field_bytes = sizeof(struct gw_vmfield), .fields = (const struct gw_vmfield[])                \
    {                                                                                              \
        __VA_ARGS__,                                                                               \
        {                                                                                          \
            .kind = GW_VM_END                                                                      \
        }                                                                                          \
    }
#define GW_VMSTATE_SUBSECTIONS(...)                                                                \
    .subsections = (const struct gw_vmstate *const[])                                              \
    {                                                                                              \
        __VA_ARGS__, NULL                                                                          \
    }
#define GW_VMSTATE_PROPERTY(property_name, object_type, member)                                    \
    .property = (property_name), .property_offset = GW_VMSTATE_OFFSET_(object_type, member, bool *)

/* A description bound to an object, and how errors call it. Caller-filled; borrowed, with its texts,
 * until the source or target that it was added to is freed. */
struct gw_vmstate_device {
    size_t struct_bytes; /* sizeof(struct gw_vmstate_device) */
    const struct gw_vmstate *vmsd;
    void *opaque;         /* the object, a vmsd->type */
    const char *name;     /* idstr of its section ("0000:00:03.0/disk"); NULL: vmsd->name */
    uint32_t instance_id; /* with name, unique */
    const char *machine;  /* NULL: errors do not name it */
};

/**
 * gw_vmstate_device_desc() - make what gw_source_add_device() and gw_target_add_device() take.
 * @dev:  becomes desc->opaque.
 * @desc: filled whole; instead of its save and load a device may call those below from its own.
 *
 * `needed` and the property of a device's own description become desc->needed, early_setup becomes
 * GW_DEVICE_EARLY.
 *
 * Return: 0, or -EINVAL: the table is malformed, as gw_vmstate_check() tells.
 */
GW_API int gw_vmstate_device_desc(struct gw_vmstate_device *dev, struct gw_device_desc *desc,
                                  struct gw_error *err);

/**
 * gw_vmstate_save() - write an object's state. [any thread, one at a time per object]
 * @w: as in a save callback; the values follow what is in it.
 *
 * Always in version vmsd->version_id. Also fails where a target would: a count above its maximum, a
 * claim of GW_VMSTATE_VALIDATE that does not hold, a pointer that is NULL and must not be.
 *
 * Return: 0, or
 *   -EINVAL  the table is malformed, or the object cannot be described by it
 *   -E2BIG   a count is above its maximum, or the state above what the section may have
 *   -ENOMEM  out of memory
 *   or what a hook returned
 */
GW_API int gw_vmstate_save(const struct gw_vmstate_device *dev, struct gw_writer *w,
                           struct gw_error *err);

/**
 * gw_vmstate_load() - read an object's state. [any thread, one at a time per object]
 * @r:          as in a load callback; what follows the state is left.
 * @version_id: the source's.
 *
 * Costs a copy of what it overwrites, until it returns.
 *
 * Return: 0, or, with the object as it was (see above),
 *   -EINVAL  the table is malformed; a version that is not taken; a value that is refused
 *   -EBADMSG the bytes end too early, or are not what the table says
 *   -ENOENT  a subsection that is not known here
 *   -E2BIG   a count or an allocation is above its maximum
 *   -ENOMEM  out of memory
 *   or what a hook returned
 */
GW_API int gw_vmstate_load(const struct gw_vmstate_device *dev, struct gw_reader *r,
                           uint32_t version_id, struct gw_error *err);

/** gw_vmstate_check() - is a table, with all that it contains, well formed? [any thread] Every call
 *  here asks that itself; this is for a test of one's own. Return: 0, or -EINVAL saying why not. */
GW_API int gw_vmstate_check(const struct gw_vmstate *vmsd, struct gw_error *err);

/** gw_vmstate_is_needed() - do `needed` and the property of @vmsd want it sent? [any thread] */
GW_API bool gw_vmstate_is_needed(const struct gw_vmstate *vmsd, const void *opaque);

/** gw_vmstate_property_set() - switch every subsection of @vmsd, at any depth, that has this property
 *  on or off, in @opaque. For compatibility options of a machine ("disk.x-dma=off").
 *  Return: 0, or -ENOENT: there is none; @err names those that there are. */
GW_API int gw_vmstate_property_set(const struct gw_vmstate *vmsd, void *opaque,
                                   const char *property, bool on, struct gw_error *err);

/** gw_vmstate_alloc() - zeroed memory of @count elements, aligned for any type. [any thread]
 *  Return: NULL if out of memory, or if count * bytes overflows. */
GW_API void *gw_vmstate_alloc(size_t count, size_t bytes);

/** gw_vmstate_free() - free what gw_vmstate_alloc() gave; takes NULL. [any thread] Nothing in it is
 *  looked at: gw_vmstate_clear() first, if it holds such memory itself. As with free(), memory from
 *  elsewhere, or freed twice, is a mistake of the caller's that no return value could tell. */
GW_API void gw_vmstate_free(void *memory);

/** gw_vmstate_clear() - free everything that loads of @vmsd allocate in @opaque: ALLOC members become
 *  NULL, lists and trees empty. [any thread] Plain pointers are not followed. */
GW_API void gw_vmstate_clear(const struct gw_vmstate *vmsd, void *opaque);

#ifdef __cplusplus
}
#endif

#include <godwit/vmfield.h>

#endif
