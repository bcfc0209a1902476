/* SPDX-License-Identifier: MIT */
/* control/vmdesc.h - the JSON description of a stream (docs/protocol.md 4.2, docs/decisions/0022), written
 * while its device sections are: what was sent, under which names, how many bytes each.
 *
 *     gw_vmdesc_init(&desc, 4096, bytes_max);
 *     gw_vmdesc_configuration(&desc, machine);    the stream has a configuration section
 *     for each device section:
 *         gw_vmdesc_device_begin(&desc, idstr, instance_id);
 *         writer.desc = &desc;            the engine tells it what it writes
 *         device->save(...);
 *         gw_vmdesc_device_end(&desc, bytes of the body);
 *     gw_vmdesc_end(&desc);               desc.text is the text
 *
 * A body that the engine did not write, or not alone, is described as a buffer. What does not fit, or
 * memory that is missing, is latched in desc.text: the description is then left out, not the stream. */
#ifndef GW_CONTROL_VMDESC_H
#define GW_CONTROL_VMDESC_H

#include "control/stream.h"

#define GW_VMDESC_NESTING_MAX 128

struct gw_vmdesc {
    struct gw_writer text;
    uint32_t page_bytes;
    unsigned nesting;
    bool has_items[GW_VMDESC_NESTING_MAX]; /* of the object or array at that depth */
    unsigned muted;                        /* > 0: what is told is not written */
    /* The device at work. */
    const char *name;
    uint32_t instance_id;
    size_t mark;          /* of text, before it */
    unsigned mark_states; /* descriptions at its top that were told */
    size_t described;     /* bytes that they say */
    unsigned depth;       /* descriptions within descriptions */
};

void gw_vmdesc_init(struct gw_vmdesc *desc, uint32_t page_bytes, size_t bytes_max);
/* Right after init: its key is the first. */
void gw_vmdesc_configuration(struct gw_vmdesc *desc, const char *machine);
void gw_vmdesc_fini(struct gw_vmdesc *desc);
void gw_vmdesc_device_begin(struct gw_vmdesc *desc, const char *idstr, uint32_t instance_id);
void gw_vmdesc_device_end(struct gw_vmdesc *desc, size_t body_bytes);
void gw_vmdesc_end(struct gw_vmdesc *desc);

/* Told by the engine. All take NULL. */
struct gw_vmdesc_field {
    const char *name;
    int number;       /* name[number]; -1: the name is the only one of its description */
    size_t array_len; /* 0: not told */
    size_t index;     /* with is_indexed */
    bool is_indexed;
    const char *type;
};
/* Members of a description, in the object that is open. */
void gw_vmdesc_state_begin(struct gw_vmdesc *desc, const char *name, uint32_t version_id);
void gw_vmdesc_subsections_begin(struct gw_vmdesc *desc, bool *begun); /* once, before the first */
void gw_vmdesc_state_end(struct gw_vmdesc *desc, size_t bytes);
void gw_vmdesc_subsection_begin(struct gw_vmdesc *desc);
void gw_vmdesc_subsection_end(struct gw_vmdesc *desc);
void gw_vmdesc_field_begin(struct gw_vmdesc *desc, const struct gw_vmdesc_field *field);
void gw_vmdesc_struct_begin(struct gw_vmdesc *desc); /* "struct": { */
void gw_vmdesc_struct_end(struct gw_vmdesc *desc);
void gw_vmdesc_field_end(struct gw_vmdesc *desc, size_t bytes);
void gw_vmdesc_mute(struct gw_vmdesc *desc, bool muted); /* counts */

#endif
