/* SPDX-License-Identifier: MIT */
/* control/stream.h - the savevm stream's items (spec: docs/protocol.md section 4): header,
 * configuration, sections with footers, end mark. An *item* is one of: header + configuration, one
 * whole section with its footer, the end mark, later a command or the description. On the native
 * wire an item travels in STREAM messages, the last flagged LAST; in a recorded stream items simply
 * follow each other. Section bodies have no length: on the native wire the item's end gives it. */
#ifndef GW_CONTROL_STREAM_H
#define GW_CONTROL_STREAM_H

#include "core/base/error.h"

#include <godwit/device.h>
#include <stdbool.h>
#include <stdint.h>

/* ---- bytes being written / read by devices --------------------------------------------------- */

struct gw_vmdesc;  /* vmdesc.h */
struct gw_writer { /* grows; latches -ENOMEM, -E2BIG */
    uint8_t *data;
    size_t bytes, room, bytes_max;
    int rc;
    struct gw_vmdesc *desc; /* told what the VMState engine writes here; NULL: nobody is */
};
void gw_writer_init(struct gw_writer *w, size_t bytes_max);
void gw_writer_fini(struct gw_writer *w);
void gw_writer_reset(struct gw_writer *w); /* empty, room kept */
int gw_writer_error(const struct gw_writer *w);

struct gw_reader {
    const uint8_t *data;
    size_t bytes, at;
    int rc;
};
void gw_reader_init(struct gw_reader *r, const void *data, size_t bytes);

/* ---- items
 * --------------------------------------------------------------------------------------- */

#define GW_STREAM_MAGIC 0x5145564du /* "QEVM" */
#define GW_STREAM_VERSION 3u
#define GW_STREAM_NAME_BYTES_MAX 255u

enum gw_item_type {
    GW_ITEM_EOF = 0x00,
    GW_ITEM_START = 0x01,
    GW_ITEM_PART = 0x02,
    GW_ITEM_END = 0x03,
    GW_ITEM_FULL = 0x04,
    GW_ITEM_DESCRIPTION = 0x06,
    GW_ITEM_CONFIGURATION = 0x07, /* with the header in front */
    GW_ITEM_COMMAND = 0x08,
};
#define GW_ITEM_SUBSECTION 0x05 /* within a body, or the configuration */
#define GW_ITEM_FOOTER 0x7e
#define GW_FOOTER_BYTES 5u

static inline bool gw_item_is_named(enum gw_item_type type) /* has idstr, instance and version */
{
    return type == GW_ITEM_START || type == GW_ITEM_FULL;
}

static inline bool gw_item_is_section(enum gw_item_type type)
{
    return gw_item_is_named(type) || type == GW_ITEM_PART || type == GW_ITEM_END;
}

struct gw_section {
    enum gw_item_type type;
    uint32_t section_id;
    char idstr[256];      /* START, FULL */
    uint32_t instance_id; /* START, FULL */
    uint32_t version_id;  /* START, FULL */
};

/* Append to @w (stream_write.c). Section: head, then the body by the caller, then the footer. A subsection of
 * a body, or of the configuration: head, then its fields. What stream_write.h has besides may refuse. */
void gw_stream_write_header(struct gw_writer *w, const char *machine);
void gw_stream_write_section(struct gw_writer *w, const struct gw_section *section);
void gw_stream_write_footer(struct gw_writer *w, uint32_t section_id);
void gw_stream_write_subsection(struct gw_writer *w, const char *name, uint32_t version_id);
void gw_stream_write_eof(struct gw_writer *w);
void gw_stream_write_description(struct gw_writer *w, const void *text, size_t bytes);

/* Take one whole item apart. @machine (256 bytes, GW_ITEM_CONFIGURATION only); @section; @body:
 * what lies between head and footer. -EPROTO/-EBADMSG with err: offset, byte, what was expected.
 * Unknown types and a missing or wrong footer are refused with a sentence saying which. */
int gw_stream_read_item(const void *data, size_t bytes, enum gw_item_type *type, char *machine,
                        struct gw_section *section, struct gw_reader *body, struct gw_error *err);

/* ---- order: which items may follow which
 * ------------------------------------------------------------ */

/* Remembers ids opened by START; checks header first, PART/END of an open id, EOF last, no
 * duplicate (idstr, instance) pair, but for one FULL that goes with a section that has ended. */
struct gw_stream_order;
struct gw_stream_order *gw_stream_order_new(void);
void gw_stream_order_free(struct gw_stream_order *order);
int gw_stream_order_next(struct gw_stream_order *order, enum gw_item_type type,
                         const struct gw_section *section, struct gw_error *err);
/* For PART and END: the START's idstr, instance and version; NULL if not open. */
const struct gw_section *gw_stream_order_find(const struct gw_stream_order *order, uint32_t id);
/* Some section that START opened and END has not closed; NULL: there is none. */
const struct gw_section *gw_stream_order_open(const struct gw_stream_order *order);

#endif
