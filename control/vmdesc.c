// SPDX-License-Identifier: MIT
/* The stream's description as text. It is written in the pause, so nothing is built up first: objects
 * and arrays are opened and closed as the engine walks. Members of lists repeat their keys, once per
 * element, as every reader of streams knows them; no JSON library's tree could hold that. */
#include "control/vmdesc.h"
#include "core/base/error.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* ---- text -------------------------------------------------------------------------------------- */

static bool is_silent(const struct gw_vmdesc *desc)
{
    return !desc || desc->muted > 0;
}

static void add(struct gw_vmdesc *desc, const char *text)
{
    gw_writer_bytes(&desc->text, text, strlen(text));
}

static void add_number(struct gw_vmdesc *desc, uint64_t number)
{
    char text[24];
    snprintf(text, sizeof(text), "%" PRIu64, number);
    add(desc, text);
}

static bool is_plain(char c)
{
    return c >= 0x20 && c <= 0x7e && c != '"' && c != '\\';
}

/* ASCII in quotes: names are the caller's, checked elsewhere or not at all. */
static void add_string(struct gw_vmdesc *desc, const char *string)
{
    add(desc, "\"");
    while (*string) {
        size_t plain = 0;
        while (is_plain(string[plain]))
            plain++;
        gw_writer_bytes(&desc->text, string, plain);
        string += plain;
        if (*string) {
            char escape[8];
            snprintf(escape, sizeof(escape), "\\u%04x", (unsigned)(unsigned char)*string++);
            add(desc, escape);
        }
    }
    add(desc, "\"");
}

/* The separator before the next item of what is open. */
static void item(struct gw_vmdesc *desc)
{
    bool *has_items = &desc->has_items[desc->nesting];
    if (*has_items)
        add(desc, ", ");
    *has_items = true;
}

static void key(struct gw_vmdesc *desc, const char *name)
{
    item(desc);
    add_string(desc, name);
    add(desc, ": ");
}

static void open(struct gw_vmdesc *desc, const char *bracket)
{
    add(desc, bracket);
    gw_assert(desc->nesting + 1 < GW_VMDESC_NESTING_MAX); /* descriptions nest 16 deep at most */
    desc->has_items[++desc->nesting] = false;
}

static void shut(struct gw_vmdesc *desc, const char *bracket)
{
    desc->nesting--;
    add(desc, bracket);
}

static void key_string(struct gw_vmdesc *desc, const char *name, const char *value)
{
    key(desc, name);
    add_string(desc, value);
}

static void key_number(struct gw_vmdesc *desc, const char *name, uint64_t value)
{
    key(desc, name);
    add_number(desc, value);
}

/* ---- the stream and its devices ---------------------------------------------------------------- */

static void plain_field(struct gw_vmdesc *desc, const char *name, const char *type, uint64_t bytes)
{
    item(desc);
    open(desc, "{");
    key_string(desc, "name", name);
    key_string(desc, "type", type);
    key_number(desc, "size", bytes);
    shut(desc, "}");
}

static void configuration(struct gw_vmdesc *desc, const char *machine)
{
    key(desc, "configuration");
    open(desc, "{");
    key_string(desc, "vmsd_name", "configuration");
    key_number(desc, "version", 1);
    key(desc, "fields");
    open(desc, "[");
    plain_field(desc, "len", "uint32", 4);
    plain_field(desc, "name", "buffer", strlen(machine));
    shut(desc, "]");
    shut(desc, "}");
}

static void begin(struct gw_vmdesc *desc, const char *machine)
{
    open(desc, "{");
    if (machine)
        configuration(desc, machine);
    key_number(desc, "page_size", desc->page_bytes);
    key(desc, "devices");
    open(desc, "[");
}

void gw_vmdesc_init(struct gw_vmdesc *desc, uint32_t page_bytes, size_t bytes_max)
{
    *desc = (struct gw_vmdesc){.page_bytes = page_bytes};
    gw_writer_init(&desc->text, bytes_max);
    begin(desc, NULL);
}

void gw_vmdesc_configuration(struct gw_vmdesc *desc, const char *machine)
{
    gw_writer_reset(&desc->text);
    desc->nesting = 0;
    begin(desc, machine);
}

void gw_vmdesc_fini(struct gw_vmdesc *desc)
{
    gw_writer_fini(&desc->text);
}

void gw_vmdesc_end(struct gw_vmdesc *desc)
{
    shut(desc, "]");
    shut(desc, "}");
}

static void device_head(struct gw_vmdesc *desc)
{
    open(desc, "{");
    key_string(desc, "name", desc->name);
    key_number(desc, "instance_id", desc->instance_id);
}

void gw_vmdesc_device_begin(struct gw_vmdesc *desc, const char *idstr, uint32_t instance_id)
{
    desc->name = idstr;
    desc->instance_id = instance_id;
    desc->mark_states = 0;
    desc->described = 0;
    desc->depth = 0;
    item(desc);
    desc->mark = desc->text.bytes;
    device_head(desc);
}

void gw_vmdesc_device_end(struct gw_vmdesc *desc, size_t body_bytes)
{
    if (desc->mark_states != 1 || desc->described != body_bytes) {
        /* What was told is not what was sent: say only what is certain, its size. */
        if (gw_writer_error(&desc->text) == 0)
            desc->text.bytes = desc->mark;
        desc->nesting--;
        device_head(desc);
        key_number(desc, "size", body_bytes);
        key(desc, "fields");
        open(desc, "[");
        item(desc);
        open(desc, "{");
        key_string(desc, "name", "data");
        key_number(desc, "size", body_bytes);
        key_string(desc, "type", "buffer");
        shut(desc, "}");
        shut(desc, "]");
    }
    shut(desc, "}");
}

/* ---- what the engine tells --------------------------------------------------------------------- */

void gw_vmdesc_mute(struct gw_vmdesc *desc, bool muted)
{
    if (desc)
        desc->muted += muted ? 1 : -1u;
}

void gw_vmdesc_state_begin(struct gw_vmdesc *desc, const char *name, uint32_t version_id)
{
    if (is_silent(desc))
        return;
    if (desc->depth++ == 0)
        desc->mark_states++;
    key_string(desc, "vmsd_name", name);
    key_number(desc, "version", version_id);
    key(desc, "fields");
    open(desc, "[");
}

void gw_vmdesc_subsections_begin(struct gw_vmdesc *desc, bool *begun)
{
    if (is_silent(desc) || *begun)
        return;
    *begun = true;
    shut(desc, "]");
    key(desc, "subsections");
    open(desc, "[");
}

void gw_vmdesc_subsection_begin(struct gw_vmdesc *desc)
{
    if (is_silent(desc))
        return;
    item(desc);
    open(desc, "{");
}

void gw_vmdesc_subsection_end(struct gw_vmdesc *desc)
{
    if (!is_silent(desc))
        shut(desc, "}");
}

void gw_vmdesc_state_end(struct gw_vmdesc *desc, size_t bytes)
{
    if (is_silent(desc))
        return;
    shut(desc, "]"); /* of its subsections, or of its fields where none was sent */
    if (--desc->depth == 0)
        desc->described += bytes;
}

void gw_vmdesc_field_begin(struct gw_vmdesc *desc, const struct gw_vmdesc_field *field)
{
    if (is_silent(desc))
        return;
    item(desc);
    open(desc, "{");
    char numbered[300];
    snprintf(numbered, sizeof(numbered), "%s[%d]", field->name, field->number);
    key_string(desc, "name", field->number >= 0 ? numbered : field->name);
    if (field->array_len > 0)
        key_number(desc, "array_len", field->array_len);
    else if (field->is_indexed)
        key_number(desc, "index", field->index);
    key_string(desc, "type", field->type);
}

void gw_vmdesc_struct_begin(struct gw_vmdesc *desc)
{
    if (is_silent(desc))
        return;
    key(desc, "struct");
    open(desc, "{");
}

void gw_vmdesc_struct_end(struct gw_vmdesc *desc)
{
    if (!is_silent(desc))
        shut(desc, "}");
}

void gw_vmdesc_field_end(struct gw_vmdesc *desc, size_t bytes)
{
    if (is_silent(desc))
        return;
    key_number(desc, "size", bytes);
    shut(desc, "}");
}
