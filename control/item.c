// SPDX-License-Identifier: MIT
/* The savevm stream's items (docs/protocol.md section 4), each read whole, its end known: what writes them is
 * stream_write.c. Bodies carry no length of their own, so the footer is the only witness that head and body
 * were understood: a wrong one is refused, with its place. */
#include "control/codec.h"
#include "control/stream.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define STREAM_VERSION_OLD 2u
#define MACHINE_BYTES_MAX 255u
#define HEADER_BYTES 8u

/* @text of @bytes to @to (256 bytes); refused if a byte is not printable. */
static int copy_name(const uint8_t *text, size_t bytes, size_t offset, const char *what, char *to,
                     struct gw_error *err)
{
    const uint8_t *odd = gw_text_find_odd(text, bytes);
    if (odd)
        return gw_fail(err, -EPROTO, "byte 0x%02x in the %s at offset %zu", (unsigned)*odd, what,
                       offset + (size_t)(odd - text));
    memcpy(to, text, bytes);
    to[bytes] = '\0';
    return 0;
}

static int too_short(struct gw_error *err, const char *what, size_t at)
{
    return gw_fail(err, -EBADMSG, "ends at offset %zu, inside the %s", at, what);
}

static int check_version(uint32_t version, struct gw_error *err)
{
    if (version == GW_STREAM_VERSION)
        return 0;
    if (version == STREAM_VERSION_OLD)
        return gw_fail(err, -EPROTO, "stream version 2 (an old format), expected 3");
    return gw_fail(err, -EPROTO, "stream version %" PRIu32 ", expected 3", version);
}

/* Header, configuration. @body is left with what follows the name: nothing, in this version. */
static int read_header(struct gw_reader *r, char *machine, struct gw_error *err)
{
    if (gw_reader_be32(r) != GW_STREAM_MAGIC || gw_reader_error(r) < 0)
        return gw_fail(err, -EPROTO, "no stream header, expected 51 45 56 4d");
    uint32_t version = gw_reader_be32(r);
    if (gw_reader_error(r) < 0)
        return too_short(err, "header", r->at);
    int rc = check_version(version, err);
    if (rc < 0)
        return rc;
    uint8_t type = gw_reader_u8(r);
    uint32_t bytes = gw_reader_be32(r);
    if (gw_reader_error(r) == 0 || r->at > HEADER_BYTES) {
        if (type != GW_ITEM_CONFIGURATION)
            return gw_fail(err, -EPROTO,
                           "byte 0x%02x at offset 8, expected 0x07 (a configuration section)",
                           (unsigned)type);
    }
    if (gw_reader_error(r) < 0)
        return too_short(err, "configuration section", r->at);
    if (bytes > MACHINE_BYTES_MAX)
        return gw_fail(err, -EPROTO, "machine name of %" PRIu32 " bytes, at most %u", bytes,
                       MACHINE_BYTES_MAX);
    size_t at = r->at;
    const uint8_t *name = gw_reader_take(r, bytes);
    if (!name)
        return too_short(err, "machine name", r->at);
    char text[MACHINE_BYTES_MAX + 1];
    rc = copy_name(name, bytes, at, "machine name", machine ? machine : text, err);
    if (rc < 0)
        return rc;
    if (gw_reader_left(r) > 0)
        return gw_fail_code(err, -EPROTO, GW_CODE_UNSUPPORTED,
                            "%zu bytes after the machine name at offset %zu: subsections of the "
                            "configuration are not supported",
                            gw_reader_left(r), r->at);
    return 0;
}

static int read_head(struct gw_reader *r, struct gw_section *section, struct gw_error *err)
{
    section->section_id = gw_reader_be32(r);
    if (!gw_item_is_named(section->type))
        return gw_reader_error(r) < 0 ? too_short(err, "section's head", r->at) : 0;
    size_t bytes = gw_reader_u8(r);
    size_t at = r->at;
    const uint8_t *idstr = gw_reader_take(r, bytes);
    section->instance_id = gw_reader_be32(r);
    section->version_id = gw_reader_be32(r);
    if (gw_reader_error(r) < 0 || !idstr)
        return too_short(err, "section's head", r->at);
    if (bytes == 0)
        return gw_fail(err, -EPROTO, "section %" PRIu32 " without a name at offset %zu",
                       section->section_id, at - 1);
    return copy_name(idstr, bytes, at, "section's name", section->idstr, err);
}

static int check_footer(const struct gw_reader *r, const struct gw_section *section,
                        struct gw_error *err)
{
    char name[sizeof(section->idstr) + 4] = "";
    if (section->idstr[0])
        snprintf(name, sizeof(name), " '%s'", section->idstr);
    if (gw_reader_left(r) < GW_FOOTER_BYTES)
        return gw_fail(err, -EBADMSG,
                       "section %" PRIu32 "%s has no footer: %zu bytes are left at offset %zu, "
                       "expected %u",
                       section->section_id, name, gw_reader_left(r), r->at, GW_FOOTER_BYTES);
    size_t at = r->bytes - GW_FOOTER_BYTES;
    if (r->data[at] != GW_ITEM_FOOTER)
        return gw_fail(err, -EBADMSG,
                       "section %" PRIu32 "%s has no footer: byte 0x%02x at offset %zu, "
                       "expected 0x7e",
                       section->section_id, name, (unsigned)r->data[at], at);
    uint32_t id = gw_be32_load(r->data + at + 1);
    if (id != section->section_id)
        return gw_fail(err, -EBADMSG,
                       "section %" PRIu32 "%s ends with the footer of section %" PRIu32
                       " at offset %zu",
                       section->section_id, name, id, at);
    return 0;
}

static int read_section(struct gw_reader *r, struct gw_section *section, struct gw_reader *body,
                        struct gw_error *err)
{
    int rc = read_head(r, section, err);
    if (rc == 0)
        rc = check_footer(r, section, err);
    if (rc == 0 && body)
        gw_reader_init(body, r->data + r->at, gw_reader_left(r) - GW_FOOTER_BYTES);
    return rc;
}

static int read_description(struct gw_reader *r, struct gw_reader *body, struct gw_error *err)
{
    uint32_t bytes = gw_reader_be32(r);
    if (gw_reader_error(r) < 0)
        return too_short(err, "description's length", r->at);
    if (bytes != gw_reader_left(r))
        return gw_fail(err, -EBADMSG, "description of %" PRIu32 " bytes, the item holds %zu", bytes,
                       gw_reader_left(r));
    if (body)
        gw_reader_init(body, r->data + r->at, bytes);
    return 0;
}

static int refuse_type(uint8_t type, struct gw_error *err)
{
    switch (type) {
    case GW_ITEM_CONFIGURATION:
        return gw_fail(err, -EPROTO, "a configuration section without the stream's header");
    case GW_ITEM_COMMAND:
        return gw_fail_code(err, -EPROTO, GW_CODE_UNSUPPORTED, "commands are not supported");
    case GW_ITEM_SUBSECTION:
        return gw_fail(err, -EPROTO, "a subsection (0x05) outside of a section");
    case GW_ITEM_FOOTER:
        return gw_fail(err, -EPROTO, "a footer (0x7e) without a section");
    default:
        return gw_fail(err, -EPROTO, "unknown item type 0x%02x at offset 0", (unsigned)type);
    }
}

int gw_stream_read_item(const void *data, size_t bytes, enum gw_item_type *type, char *machine,
                        struct gw_section *section, struct gw_reader *body, struct gw_error *err)
{
    struct gw_section local;
    struct gw_section *head = section ? section : &local;
    struct gw_reader r;
    int rc;
    memset(head, 0, sizeof(*head));
    if (machine)
        machine[0] = '\0';
    if (body)
        gw_reader_init(body, NULL, 0);
    if (bytes == 0)
        return gw_fail(err, -EBADMSG, "an empty item");
    gw_reader_init(&r, data, bytes);
    uint8_t first = *(const uint8_t *)data;
    if (first == (GW_STREAM_MAGIC >> 24)) {
        head->type = GW_ITEM_CONFIGURATION;
        rc = read_header(&r, machine, err);
    } else {
        r.at = 1;
        head->type = (enum gw_item_type)first;
        if (gw_item_is_section(head->type))
            rc = read_section(&r, head, body, err);
        else if (first == GW_ITEM_DESCRIPTION)
            rc = read_description(&r, body, err);
        else if (first != GW_ITEM_EOF)
            rc = refuse_type(first, err);
        else
            rc = bytes == 1 ? 0 : gw_fail(err, -EPROTO, "%zu bytes follow the end mark", bytes - 1);
    }
    if (rc == 0)
        *type = head->type;
    return rc;
}
