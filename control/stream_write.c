// SPDX-License-Identifier: MIT
/* The savevm stream's top level, written (docs/protocol.md section 4): header, configuration with its
 * subsections, heads and footers, end mark, description; stream_command_write.c has commands. What is
 * written here stream_read.c takes. What a stranger would refuse is refused before a byte of it is written;
 * a name that core has checked already is asserted. */
#include "control/stream_write.h"
#include "core/base/bytes.h"

#include <inttypes.h>

/* A length byte and the name. */
static void write_name(struct gw_writer *w, const char *name)
{
    size_t bytes = strnlen(name, GW_STREAM_NAME_BYTES_MAX + 1);
    gw_assert(bytes > 0 && bytes <= GW_STREAM_NAME_BYTES_MAX);
    gw_writer_u8(w, (uint8_t)bytes);
    gw_writer_bytes(w, name, bytes);
}

/* ---- items ------------------------------------------------------------------------------------ */

static void write_magic(struct gw_writer *w)
{
    gw_writer_be32(w, GW_STREAM_MAGIC);
    gw_writer_be32(w, GW_STREAM_VERSION);
}

void gw_stream_write_header(struct gw_writer *w, const char *machine)
{
    size_t bytes = strlen(machine);
    gw_assert(bytes <= GW_STREAM_NAME_BYTES_MAX);
    write_magic(w);
    gw_writer_u8(w, GW_ITEM_CONFIGURATION);
    gw_writer_be32(w, (uint32_t)bytes);
    gw_writer_bytes(w, machine, bytes);
}

void gw_stream_write_section(struct gw_writer *w, const struct gw_section *section)
{
    gw_assert(gw_item_is_section(section->type));
    gw_writer_u8(w, (uint8_t)section->type);
    gw_writer_be32(w, section->section_id);
    if (!gw_item_is_named(section->type))
        return;
    write_name(w, section->idstr);
    gw_writer_be32(w, section->instance_id);
    gw_writer_be32(w, section->version_id);
}

void gw_stream_write_footer(struct gw_writer *w, uint32_t section_id)
{
    gw_writer_u8(w, GW_ITEM_FOOTER);
    gw_writer_be32(w, section_id);
}

void gw_stream_write_subsection(struct gw_writer *w, const char *name, uint32_t version_id)
{
    gw_writer_u8(w, GW_ITEM_SUBSECTION);
    write_name(w, name);
    gw_writer_be32(w, version_id);
}

void gw_stream_write_eof(struct gw_writer *w)
{
    gw_writer_u8(w, GW_ITEM_EOF);
}

void gw_stream_write_description(struct gw_writer *w, const void *text, size_t bytes)
{
    gw_assert(bytes <= UINT32_MAX);
    gw_writer_u8(w, GW_ITEM_DESCRIPTION);
    gw_writer_be32(w, (uint32_t)bytes);
    gw_writer_bytes(w, text, bytes);
}

/* ---- configuration ---------------------------------------------------------------------------- */

int gw_stream_check_name(const char *name, const char *what, struct gw_error *err)
{
    size_t bytes = strnlen(name, GW_STREAM_NAME_BYTES_MAX + 1);
    if (bytes == 0)
        return gw_fail(err, -EINVAL, "an empty %s", what);
    if (bytes > GW_STREAM_NAME_BYTES_MAX)
        return gw_fail(err, -EINVAL, "a %s of more than %u bytes", what, GW_STREAM_NAME_BYTES_MAX);
    const uint8_t *odd = gw_text_find_odd(name, bytes);
    return odd ? gw_fail(err, -EINVAL, "byte 0x%02x in the %s", (unsigned)*odd, what) : 0;
}

static int check_capabilities(const struct gw_configuration *c, struct gw_error *err)
{
    if (c->capability_count > GW_CAPABILITIES_MAX)
        return gw_fail(err, -EINVAL, "%u capabilities, at most %u", c->capability_count,
                       GW_CAPABILITIES_MAX);
    for (unsigned i = 0; i < c->capability_count; i++) {
        int rc = gw_stream_check_name(c->capabilities[i], "capability's name", err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int check_configuration(const struct gw_configuration *c, struct gw_error *err)
{
    if (!c->present && (c->page_bits != 0 || c->capability_count > 0 || c->has_uuid))
        return gw_fail(err, -EINVAL, "subsections without a configuration section");
    if (!c->present)
        return 0;
    if (c->page_bits != 0 && (c->page_bits < GW_PAGE_BITS_MIN || c->page_bits > GW_PAGE_BITS_MAX))
        return gw_fail(err, -EINVAL, "%" PRIu32 " target page bits, expected %u to %u",
                       c->page_bits, GW_PAGE_BITS_MIN, GW_PAGE_BITS_MAX);
    int rc = gw_stream_check_name(c->machine, "machine name", err);
    return rc < 0 ? rc : check_capabilities(c, err);
}

/* In the order in which every reader has seen them until now. */
static void write_subsections(struct gw_writer *w, const struct gw_configuration *c)
{
    if (c->page_bits != 0) {
        gw_stream_write_subsection(w, GW_CONFIGURATION_PAGE_BITS, 1);
        gw_writer_be32(w, c->page_bits);
    }
    if (c->capability_count > 0) {
        gw_stream_write_subsection(w, GW_CONFIGURATION_CAPABILITIES, 1);
        gw_writer_be32(w, c->capability_count);
    }
    for (unsigned i = 0; i < c->capability_count; i++)
        write_name(w, c->capabilities[i]);
    if (c->has_uuid) {
        gw_stream_write_subsection(w, GW_CONFIGURATION_UUID, 1);
        gw_writer_bytes(w, c->uuid, sizeof(c->uuid));
    }
}

int gw_stream_write_configuration(struct gw_writer *w, const struct gw_configuration *c,
                                  struct gw_error *err)
{
    int rc = check_configuration(c, err);
    if (rc < 0)
        return rc;
    if (c->present)
        gw_stream_write_header(w, c->machine);
    else
        write_magic(w);
    write_subsections(w, c);
    return gw_stream_written(w, "configuration", err);
}

int gw_stream_written(const struct gw_writer *w, const char *what, struct gw_error *err)
{
    int rc = gw_writer_error(w);
    if (rc == -E2BIG)
        return gw_fail(err, rc, "%s: more than %zu bytes", what, w->bytes_max);
    return rc < 0 ? gw_fail(err, rc, "%s", what) : 0;
}
