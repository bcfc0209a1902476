// SPDX-License-Identifier: MIT
/* The savevm stream's top level, read forwards (docs/protocol.md section 4): the header, the configuration
 * with its subsections, heads and footers of sections, commands. Lengths that a stranger wrote are checked
 * before anything of that size is looked at. */
#include "control/stream_read.h"

#include "core/base/bytes.h"

#include <inttypes.h>
#include <stdio.h>

/* ---- names ----------------------------------------------------------------------------------- */

static int take_name(struct gw_input *in, size_t bytes, const char *what, char to[256],
                     struct gw_error *err)
{
    uint64_t offset = gw_input_tell(in);
    const uint8_t *name = gw_input_take(in, bytes, what, err);
    if (!name)
        return -EBADMSG;
    const uint8_t *odd = gw_text_find_odd(name, bytes);
    if (odd)
        return gw_input_refuse(in, offset + (uint64_t)(odd - name), err, "byte 0x%02x in the %s",
                               (unsigned)*odd, what);
    memcpy(to, name, bytes);
    to[bytes] = '\0';
    return 0;
}

/* A length byte and so many bytes. */
static int take_short_name(struct gw_input *in, const char *what, char to[256],
                           struct gw_error *err)
{
    uint64_t offset = gw_input_tell(in);
    const uint8_t *length = gw_input_take(in, 1, what, err);
    if (!length)
        return -EBADMSG;
    if (*length == 0)
        return gw_input_refuse(in, offset, err, "an empty %s", what);
    return take_name(in, *length, what, to, err);
}

static int take_be32(struct gw_input *in, const char *what, uint32_t *value, struct gw_error *err)
{
    const uint8_t *at = gw_input_take(in, 4, what, err);
    if (!at)
        return -EBADMSG;
    *value = gw_be32_load(at);
    return 0;
}

/* ---- configuration --------------------------------------------------------------------------- */

bool gw_configuration_has(const struct gw_configuration *configuration, const char *capability)
{
    for (unsigned i = 0; i < configuration->capability_count; i++) {
        if (strcmp(configuration->capabilities[i], capability) == 0)
            return true;
    }
    return false;
}

static int take_page_bits(struct gw_input *in, struct gw_configuration *to, struct gw_error *err)
{
    uint64_t offset = gw_input_tell(in);
    uint32_t bits = 0;
    int rc = take_be32(in, "target page bits", &bits, err);
    if (rc == 0 && (bits < GW_PAGE_BITS_MIN || bits > GW_PAGE_BITS_MAX))
        return gw_input_refuse(in, offset, err, "%" PRIu32 " target page bits, expected %u to %u",
                               bits, GW_PAGE_BITS_MIN, GW_PAGE_BITS_MAX);
    to->page_bits = bits;
    return rc;
}

static int take_capabilities(struct gw_input *in, struct gw_configuration *to, struct gw_error *err)
{
    uint64_t offset = gw_input_tell(in);
    uint32_t count = 0;
    int rc = take_be32(in, "count of capabilities", &count, err);
    if (rc == 0 && count > GW_CAPABILITIES_MAX)
        return gw_input_refuse(in, offset, err, "%" PRIu32 " capabilities, at most %u", count,
                               GW_CAPABILITIES_MAX);
    for (uint32_t i = 0; i < count && rc == 0; i++) {
        rc = take_short_name(in, "capability's name", to->capabilities[i], err);
        if (rc == 0)
            to->capability_count++;
    }
    return rc;
}

static int take_uuid(struct gw_input *in, struct gw_configuration *to, struct gw_error *err)
{
    const uint8_t *uuid = gw_input_take(in, sizeof(to->uuid), "uuid", err);
    if (!uuid)
        return -EBADMSG;
    memcpy(to->uuid, uuid, sizeof(to->uuid));
    to->has_uuid = true;
    return 0;
}

static const struct {
    const char *name;
    int (*take)(struct gw_input *in, struct gw_configuration *to, struct gw_error *err);
} subsections[] = {
    {GW_CONFIGURATION_PAGE_BITS, take_page_bits},
    {GW_CONFIGURATION_CAPABILITIES, take_capabilities},
    {GW_CONFIGURATION_UUID, take_uuid},
};
#define SUBSECTION_COUNT (sizeof(subsections) / sizeof(subsections[0]))

static int take_subsection(struct gw_input *in, struct gw_configuration *to, unsigned *seen,
                           struct gw_error *err)
{
    char name[256];
    uint32_t version = 0;
    uint64_t offset = gw_input_tell(in);
    gw_input_skip(in, 1);
    int rc = take_short_name(in, "name of a subsection of the configuration", name, err);
    if (rc == 0)
        rc = take_be32(in, "version of a subsection of the configuration", &version, err);
    if (rc < 0)
        return rc;
    for (unsigned i = 0; i < SUBSECTION_COUNT; i++) {
        if (strcmp(name, subsections[i].name) != 0)
            continue;
        if (version != 1)
            return gw_input_refuse(in, offset, err, "subsection '%s' of version %" PRIu32, name,
                                   version);
        if (*seen & 1u << i)
            return gw_input_refuse(in, offset, err, "a second subsection '%s'", name);
        *seen |= 1u << i;
        return subsections[i].take(in, to, err);
    }
    return gw_input_refuse(in, offset, err, "unknown subsection '%s'", name);
}

static int take_configuration(struct gw_input *in, struct gw_configuration *to,
                              struct gw_error *err)
{
    const uint8_t *at;
    uint32_t bytes = 0;
    unsigned seen = 0;
    gw_input_skip(in, 1);
    uint64_t offset = gw_input_tell(in);
    int rc = take_be32(in, "configuration section", &bytes, err);
    if (rc < 0)
        return rc;
    if (bytes == 0 || bytes > GW_STREAM_NAME_BYTES_MAX)
        return gw_input_refuse(in, offset, err,
                               "machine name of %" PRIu32 " bytes, expected 1 to %u", bytes,
                               GW_STREAM_NAME_BYTES_MAX);
    to->present = true;
    rc = take_name(in, bytes, "machine name", to->machine, err);
    while (rc == 0 && gw_input_look(in, 1, &at) > 0 && *at == GW_ITEM_SUBSECTION)
        rc = take_subsection(in, to, &seen, err);
    return rc;
}

int gw_stream_take_header(struct gw_input *in, struct gw_configuration *configuration,
                          struct gw_error *err)
{
    *configuration = (struct gw_configuration){0};
    uint64_t offset = gw_input_tell(in);
    const uint8_t *at = gw_input_take(in, 8, "header", err);
    if (!at)
        return -EBADMSG;
    if (gw_be32_load(at) != GW_STREAM_MAGIC)
        return gw_input_refuse(in, offset, err, "no stream header, expected 51 45 56 4d");
    uint32_t version = gw_be32_load(at + 4);
    if (version != GW_STREAM_VERSION)
        return gw_input_refuse(in, offset + 4, err, "stream version %" PRIu32 "%s, expected 3",
                               version, version == 2 ? " (an old format)" : "");
    if (gw_input_look(in, 1, &at) > 0 && *at == GW_ITEM_CONFIGURATION)
        return take_configuration(in, configuration, err);
    return 0;
}

/* ---- sections -------------------------------------------------------------------------------- */

int gw_stream_take_section(struct gw_input *in, struct gw_section *section, struct gw_error *err)
{
    int rc = take_be32(in, "section's head", &section->section_id, err);
    if (rc < 0 || section->type == GW_ITEM_PART || section->type == GW_ITEM_END)
        return rc;
    rc = take_short_name(in, "section's name", section->idstr, err);
    if (rc == 0)
        rc = take_be32(in, "section's head", &section->instance_id, err);
    if (rc == 0)
        rc = take_be32(in, "section's head", &section->version_id, err);
    return rc;
}

int gw_stream_take_footer(struct gw_input *in, uint32_t section_id, struct gw_error *err)
{
    uint64_t offset = gw_input_tell(in);
    const uint8_t *at = gw_input_take(in, GW_FOOTER_BYTES, "section's footer", err);
    if (!at)
        return -EBADMSG;
    if (at[0] != GW_ITEM_FOOTER)
        return gw_input_refuse(in, offset, err, "no footer: byte 0x%02x, expected 0x7e",
                               (unsigned)at[0]);
    if (gw_be32_load(at + 1) != section_id)
        return gw_input_refuse(in, offset + 1, err,
                               "the footer of section %" PRIu32 ", expected that of %" PRIu32,
                               gw_be32_load(at + 1), section_id);
    return 0;
}
