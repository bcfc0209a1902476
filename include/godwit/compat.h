/* SPDX-License-Identifier: MIT */
/* godwit/compat.h - would what one version sends be loaded by another: two descriptions compared, device by
 * device, field by field, and for each difference in which direction it breaks a migration.
 * Life:    gw_compat_read() for each side, gw_compat(), any number of questions, gw_compat_free(); the
 *          sides may go when the comparison is made.
 * Threads: all of it belongs to the thread that made it.
 *
 * A side is what `godwit analyze` reads (a savevm stream), what it writes (--json), a stream's description
 * alone, or what `-dump-vmstate` of QEMU writes: every device that a program knows, with the versions of
 * fields. The first three say what was sent, so a machine is compared with a machine, best in the same
 * state; the last is compared with its like only.
 *
 * What was not sent was not described, and is taken for what that side does not know. What a stream's
 * description does not say is from which version on a field is sent, and which tests it depends on: where that
 * would decide, a direction is doubtful and not broken. */
#ifndef GODWIT_COMPAT_H
#define GODWIT_COMPAT_H

#include <godwit/analyze.h>

#ifdef __cplusplus
extern "C" {
#endif

struct gw_compat_side;
struct gw_compat;

enum gw_compat_direction {                        /* bits */
                           GW_COMPAT_FORWARD = 1, /* from old to new */
                           GW_COMPAT_BACKWARD = 2 /* from new to old */
};

enum gw_compat_source {
    GW_COMPAT_STREAM,      /* a savevm stream */
    GW_COMPAT_ANALYSIS,    /* "godwit.analyze/1" */
    GW_COMPAT_DESCRIPTION, /* a stream's description */
    GW_COMPAT_STATIC,      /* what could be sent: every device, every field */
};

/**
 * gw_compat_read() - read one side from its first byte to its last.
 * @fd:       open for reading; a pipe will do. Borrowed for this call.
 * @options:  as for gw_analyze(), without extract; may be NULL.
 * @side:     set on success.
 *
 * Return: 0, or
 *   -EINVAL     an option is malformed
 *   -EPROTO     neither of what a side may be, or a stream that is damaged
 *   -E2BIG      a document of more than 64 MiB
 *   -ENOMEM     out of memory
 *   -ECANCELED  the progress callback said so
 *   other       it could not be read
 */
GW_API int gw_compat_read(int fd, const struct gw_analyze_options *options,
                          struct gw_compat_side **side, struct gw_error *err);
GW_API void gw_compat_side_free(struct gw_compat_side *side); /* takes NULL */

struct gw_compat_side_facts {
    size_t struct_bytes;
    enum gw_compat_source source;
    const char *machine;   /* NULL: not said */
    unsigned device_count; /* sections; of a static side, devices that it knows */
    unsigned described;    /* of these, with a description */
    unsigned block_count;
};
GW_API void gw_compat_side_facts(const struct gw_compat_side *side,
                                 struct gw_compat_side_facts *facts);

/**
 * gw_compat() - compare two sides.
 *
 * Return: 0 and *@compat, whatever was found, or
 *   -EINVAL  one side is static and the other is not
 *   -EPROTO  a description is malformed
 *   -ENOMEM  out of memory
 */
GW_API int gw_compat(const struct gw_compat_side *older, const struct gw_compat_side *newer,
                     struct gw_compat **compat, struct gw_error *err);
GW_API void gw_compat_free(struct gw_compat *compat); /* takes NULL */

struct gw_compat_facts {
    size_t struct_bytes;
    unsigned breaks, doubtful; /* directions, of all findings together */
    unsigned finding_count;    /* that gw_compat_finding() has */
    uint64_t dropped;          /* beyond these */
    unsigned compared;         /* devices, field by field */
    unsigned by_version;       /* devices, by version alone: a description was missing */
};
GW_API void gw_compat_facts(const struct gw_compat *compat, struct gw_compat_facts *facts);

enum gw_compat_kind {
    GW_COMPAT_MACHINE, /* its type, or whether there are footers or a configuration */
    GW_COMPAT_PAGE,    /* its size */
    GW_COMPAT_BLOCK,
    GW_COMPAT_DEVICE, /* it is missing, or its version */
    GW_COMPAT_FIELD,
    GW_COMPAT_SUBSECTION, /* it is missing, or its version */
};

struct gw_compat_finding {
    size_t struct_bytes;
    enum gw_compat_kind kind;
    unsigned breaks;           /* directions in which a migration fails, or bytes are misread */
    unsigned doubtful;         /* directions in which it may; never one that breaks */
    const char *device;        /* "0000:00:03.0/virtio-blk"; of a block its name; else "" */
    uint32_t instance_id;      /* of the device */
    const char *path;          /* "vq[2].ring.num", "virtio/subsection.field"; "" */
    const char *message;       /* what it is, and why that matters */
    const char *older, *newer; /* what differs, as text: "uint32 (4 bytes)"; NULL: nothing there */
};
/* Return: false past the end. What a finding points to lives as long as @compat. */
GW_API bool gw_compat_finding(const struct gw_compat *compat, unsigned index,
                              struct gw_compat_finding *finding);

#ifdef __cplusplus
}
#endif
#endif
