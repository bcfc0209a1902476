// SPDX-License-Identifier: MIT
/* The walk over a savevm stream: item after item, each byte consumed by whoever knows what it is. RAM is
 * read record by record; a device's body, which says nothing about its length, up to its footer. The
 * description comes last, if at all, so what a device's fields are is found out afterwards
 * (analyze_devices.c), from what was kept. */
#include "core/analyze_impl.h"

#include "core/base/alloc.h"
#include "core/base/bytes.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#define RAM_VERSION 4u

/* ---- sections that are open ------------------------------------------------------------------- */

static uint32_t *find_open(const struct gw_analysis *a, uint32_t id)
{
    uint32_t slot = (id * 2654435761u) & (a->open_room - 1);
    while (a->open[slot] != 0 && a->sections[a->open[slot] - 1].section_id != id)
        slot = (slot + 1) & (a->open_room - 1);
    return &a->open[slot];
}

static bool is_open(void *ctx, uint32_t section_id)
{
    struct gw_analysis *a = ctx;
    if (a->open_room == 0)
        return false;
    uint32_t index = *find_open(a, section_id);
    return index != 0 && !a->sections[index - 1].has_end;
}

static int note_open(struct gw_analysis *a, uint32_t index, struct gw_error *err)
{
    if (2 * (a->open_count + 1) > a->open_room) {
        uint32_t *old = a->open;
        unsigned old_room = a->open_room, room = old_room ? 2 * old_room : 64;
        uint32_t *grown = gw_zalloc(room, sizeof(*grown));
        if (!grown)
            return gw_fail(err, -ENOMEM, "table of sections");
        a->open = grown;
        a->open_room = room;
        for (unsigned i = 0; i < old_room; i++) {
            if (old[i] != 0)
                *find_open(a, a->sections[old[i] - 1].section_id) = old[i];
        }
        gw_free(old);
    }
    uint32_t *slot = find_open(a, a->sections[index].section_id);
    a->open_count += *slot == 0;
    *slot = index + 1;
    return 0;
}

struct gw_analyzed_section *gw_analyze_add_section(struct gw_analysis *a,
                                                   const struct gw_section *section,
                                                   uint64_t offset, struct gw_error *err)
{
    unsigned count = a->facts.section_count;
    if (count == GW_ANALYZE_SECTIONS_MAX) {
        gw_input_refuse(&a->in, offset, err, "more than %u sections", GW_ANALYZE_SECTIONS_MAX);
        return NULL;
    }
    if (count == a->section_room) {
        unsigned room = a->section_room ? 2 * a->section_room : 64;
        struct gw_analyzed_section *sections = gw_realloc(a->sections, room, sizeof(*sections));
        if (!sections) {
            gw_fail(err, -ENOMEM, "table of sections");
            return NULL;
        }
        a->sections = sections;
        a->section_room = room;
    }
    struct gw_analyzed_section *to = &a->sections[count];
    *to = (struct gw_analyzed_section){.idstr = gw_strdup(section->idstr),
                                       .section_id = section->section_id,
                                       .instance_id = section->instance_id,
                                       .version_id = section->version_id,
                                       .form = GW_SECTION_OPAQUE,
                                       .is_iterative = section->type == GW_ITEM_START,
                                       .is_packaged = a->packaged,
                                       .offset = offset,
                                       .last_offset = offset,
                                       .extract_fd = -1};
    if (!to->idstr) {
        gw_fail(err, -ENOMEM, "table of sections");
        return NULL;
    }
    a->facts.section_count++;
    return to;
}

/* ---- bodies ----------------------------------------------------------------------------------- */

static int on_page(void *ctx, const struct gw_inline_page *page, struct gw_error *err)
{
    struct gw_analysis *a = ctx;
    int rc = 0;
    for (; rc == 0 && a->blocks_extracted < a->ram.block_count; a->blocks_extracted++)
        rc = gw_extract_block(a->extract, a->blocks_extracted, &a->ram.blocks[a->blocks_extracted],
                              err);
    if (rc == 0)
        rc = gw_extract_page(a->extract, page, a->ram.page_bytes, err);
    a->give_up = rc < 0;
    return rc;
}

/* What the records do not tell. */
static void prepare_ram(struct gw_analysis *a)
{
    const struct gw_configuration *c = &a->configuration;
    if (c->page_bits)
        a->ram.page_bytes = UINT64_C(1) << c->page_bits;
    a->ram.guest_addresses = gw_configuration_has(c, "x-ignore-shared");
    a->ram.mapped = gw_configuration_has(c, "mapped-ram");
    a->facts.is_mapped = a->ram.mapped;
    a->ram.on_page = a->extract ? on_page : NULL;
    a->ram.ctx = a;
}

static int take_ram(struct gw_analysis *a, struct gw_analyzed_section *s, enum gw_item_type type,
                    struct gw_error *err)
{
    if (s->version_id != RAM_VERSION)
        return gw_input_refuse(&a->in, s->offset, err,
                               "a RAM section of version %" PRIu32 ", expected %u", s->version_id,
                               RAM_VERSION);
    bool begins = type == GW_ITEM_START || type == GW_ITEM_FULL;
    s->form = GW_SECTION_RAM;
    if (begins)
        prepare_ram(a);
    int rc = gw_inline_take(&a->ram, &a->in,
                            begins                 ? GW_INLINE_START
                            : type == GW_ITEM_PART ? GW_INLINE_PART
                                                   : GW_INLINE_END,
                            err);
    for (; rc == 0 && a->extract && a->blocks_extracted < a->ram.block_count;
         a->blocks_extracted++) {
        rc = gw_extract_block(a->extract, a->blocks_extracted, &a->ram.blocks[a->blocks_extracted],
                              err);
        a->give_up = rc < 0;
    }
    return rc;
}

static void keep_bytes(void *ctx, uint64_t offset, const uint8_t *data, size_t bytes)
{
    struct gw_analysis *a = ctx;
    gw_keep_add(&a->keep, offset, data, bytes);
}

struct body_file {
    int fd, rc;
};

static void write_bytes(void *ctx, uint64_t offset, const uint8_t *data, size_t bytes)
{
    struct body_file *file = ctx;
    (void)offset;
    for (size_t done = 0; file->rc == 0 && done < bytes;) {
        ssize_t put = write(file->fd, data + done, bytes - done);
        if (put <= 0)
            file->rc = put < 0 ? -errno : -EIO;
        else
            done += (size_t)put;
    }
}

static int skip_body(struct gw_analysis *a, struct gw_analyzed_section *s, uint64_t *bytes,
                     struct gw_error *err)
{
    struct gw_scan scan = {.footers = !a->footers_known || a->facts.has_footers,
                           .packaged = a->packaged,
                           .is_open = is_open,
                           .ctx = a};
    int rc = gw_stream_skip_body(&a->in, &scan, s->section_id, bytes, err);
    a->lost = rc == -EPROTO && !s->is_iterative && !a->packaged;
    return rc;
}

/* Iterative and not RAM: its parts go to a file as they come, where one is wanted. */
static int take_iterative(struct gw_analysis *a, unsigned index, uint64_t *bytes,
                          struct gw_error *err)
{
    struct gw_analyzed_section *s = &a->sections[index];
    struct body_file file = {0};
    int rc = 0;
    if (!a->extract)
        return skip_body(a, s, bytes, err);
    if (s->extract_fd < 0)
        rc = gw_extract_device(a->extract, index, s->idstr, &s->extract_fd, err);
    file.fd = s->extract_fd;
    if (rc == 0) {
        a->in.consumed = write_bytes;
        a->in.consumed_ctx = &file;
        rc = skip_body(a, s, bytes, err);
        a->in.consumed = NULL;
        if (file.rc < 0)
            rc = gw_fail(err, file.rc, "section '%s': its file not written", s->idstr);
    }
    a->give_up = file.rc < 0 || file.fd < 0;
    return rc;
}

static int take_footer(struct gw_analysis *a, const struct gw_analyzed_section *s,
                       struct gw_error *err)
{
    const uint8_t *at;
    struct gw_scan scan = {.packaged = a->packaged, .is_open = is_open, .ctx = a};
    if (!a->footers_known) {
        /* The first body whose end is known tells whether there are any. */
        size_t left = gw_input_look(&a->in, GW_ITEM_LOOK_BYTES, &at);
        a->footers_known = true;
        a->facts.has_footers = !gw_stream_is_item(&scan, at, left, left < GW_ITEM_LOOK_BYTES);
    }
    return a->facts.has_footers ? gw_stream_take_footer(&a->in, s->section_id, err) : 0;
}

/* ---- items ------------------------------------------------------------------------------------ */

static int find_section(struct gw_analysis *a, const struct gw_section *head, uint64_t offset,
                        unsigned *index, struct gw_error *err)
{
    if (head->type == GW_ITEM_PART || head->type == GW_ITEM_END) {
        if (!is_open(a, head->section_id))
            return gw_input_refuse(&a->in, offset, err,
                                   "a part of section %" PRIu32 ", which is not open",
                                   head->section_id);
        *index = *find_open(a, head->section_id) - 1;
        return 0;
    }
    struct gw_analyzed_section *s = gw_analyze_add_section(a, head, offset, err);
    if (!s)
        return a->facts.section_count == GW_ANALYZE_SECTIONS_MAX ? -EPROTO : -ENOMEM;
    *index = a->facts.section_count - 1;
    s->body_offset = gw_input_tell(&a->in);
    return head->type == GW_ITEM_START ? note_open(a, *index, err) : 0;
}

static void name_section(struct gw_analysis *a, const struct gw_analyzed_section *s)
{
    if (s->instance_id)
        snprintf(a->section_name, sizeof(a->section_name), "%s %" PRIu32, s->idstr, s->instance_id);
    else
        snprintf(a->section_name, sizeof(a->section_name), "%s", s->idstr);
}

static int take_section(struct gw_analysis *a, enum gw_item_type type, uint64_t offset,
                        struct gw_error *err)
{
    struct gw_section head = {.type = type};
    unsigned index = 0;
    uint64_t bytes = 0;
    snprintf(a->section_name, sizeof(a->section_name), "head of a section");
    int rc = gw_stream_take_section(&a->in, &head, err);
    a->lost_item = rc < 0 && type == GW_ITEM_FULL && !a->packaged;
    if (rc == 0)
        rc = find_section(a, &head, offset, &index, err);
    if (rc < 0)
        return rc;
    struct gw_analyzed_section *s = &a->sections[index];
    name_section(a, s);
    uint64_t body = gw_input_tell(&a->in);
    s->parts++;
    s->last_offset = offset;
    if (strcmp(s->idstr, "ram") == 0)
        rc = take_ram(a, s, type, err);
    else if (s->is_iterative)
        rc = take_iterative(a, index, &bytes, err);
    else
        rc = skip_body(a, s, &bytes, err);
    s->body_bytes += gw_input_tell(&a->in) - body;
    if (rc == 0)
        rc = take_footer(a, s, err);
    if (rc == 0 && type == GW_ITEM_END) {
        s->has_end = true;
        if (s->extract_fd >= 0)
            close(s->extract_fd);
        s->extract_fd = -1;
    }
    return rc;
}

int gw_analyze_note_command(struct gw_analysis *a, const struct gw_analyzed_command *command,
                            const char *block, struct gw_error *err)
{
    a->facts.command_count++;
    if (a->facts.command_kept == GW_ANALYZE_COMMANDS_MAX)
        return 0;
    if (a->facts.command_kept == a->command_room) {
        unsigned room = a->command_room ? 2 * a->command_room : 16;
        struct gw_analyzed_command *commands = gw_realloc(a->commands, room, sizeof(*commands));
        if (!commands)
            return gw_fail(err, -ENOMEM, "list of commands");
        a->commands = commands;
        a->command_room = room;
    }
    struct gw_analyzed_command *to = &a->commands[a->facts.command_kept];
    *to = *command;
    to->block = block[0] ? gw_strdup(block) : NULL;
    if (block[0] && !to->block)
        return gw_fail(err, -ENOMEM, "list of commands");
    a->facts.command_kept++;
    return 0;
}

static int take_items(struct gw_analysis *a, struct gw_error *err);

/* Items within a command: they end at RUN, and what would follow that nobody reads. */
static int take_package(struct gw_analysis *a, const struct gw_command_item *command,
                        struct gw_error *err)
{
    if (a->packaged)
        return gw_input_refuse(&a->in, command->offset, err, "a package inside of a package");
    a->facts.has_postcopy = true;
    a->packaged = true;
    a->in.limit = gw_input_tell(&a->in) + command->value;
    int rc = take_items(a, err);
    a->packaged = false;
    if (rc == 0) {
        uint64_t left = a->in.limit - gw_input_tell(&a->in);
        rc = gw_input_drop(&a->in, left) < left ? gw_input_short(&a->in, "package", err) : 0;
    }
    a->in.limit = UINT64_MAX;
    return rc;
}

static int take_command(struct gw_analysis *a, bool *ends, struct gw_error *err)
{
    struct gw_command_item command;
    snprintf(a->section_name, sizeof(a->section_name), "command");
    int rc = gw_stream_take_command(&a->in, &command, err);
    if (rc < 0)
        return rc;
    snprintf(a->section_name, sizeof(a->section_name), "command %s", command.name);
    struct gw_analyzed_command record = {.name = command.name,
                                         .offset = command.offset,
                                         .value = command.ranges ? command.ranges : command.value};
    rc = gw_analyze_note_command(a, &record, command.block, err);
    if (rc < 0)
        return rc;
    switch (command.command) {
    case GW_COMMAND_OPEN_RETURN_PATH:
        a->facts.has_return_path = true;
        return 0;
    case GW_COMMAND_POSTCOPY_ADVISE:
        a->facts.has_postcopy_advice = true;
        a->ram.sizes = command.sizes;
        return 0;
    case GW_COMMAND_POSTCOPY_RUN:
        a->facts.has_postcopy = true;
        *ends = a->packaged;
        return 0;
    case GW_COMMAND_PACKAGED:
        return take_package(a, &command, err);
    case GW_COMMAND_ENABLE_COLO:
        return gw_input_refuse(&a->in, command.offset, err, "ENABLE_COLO, which is not supported,");
    default:
        return 0;
    }
}

/* A device; or what may have been one before it was damaged. */
static bool is_kept(uint8_t type)
{
    return type == GW_ITEM_FULL || type > GW_ITEM_COMMAND;
}

/* Return: 0 or a negative errno; *@ends: that was the last. */
static int take_item(struct gw_analysis *a, bool *ends, struct gw_error *err)
{
    const uint8_t *at;
    uint64_t offset = gw_input_tell(&a->in);
    if (gw_input_look(&a->in, 1, &at) == 0)
        return gw_input_short(
            &a->in, a->packaged ? "package, which RUN would end" : "stream, which has no end mark",
            err);
    uint8_t type = at[0];
    a->item_at = offset;
    if (is_kept(type) && !a->is_regular) {
        a->in.consumed = keep_bytes;
        a->in.consumed_ctx = a;
    }
    gw_input_skip(&a->in, 1);
    int rc;
    switch (type) {
    case GW_ITEM_EOF:
        *ends = true;
        a->facts.has_end = !a->packaged;
        return a->packaged ? gw_input_refuse(&a->in, offset, err, "an end mark inside of a package")
                           : 0;
    case GW_ITEM_START:
    case GW_ITEM_PART:
    case GW_ITEM_END:
    case GW_ITEM_FULL:
        rc = take_section(a, (enum gw_item_type)type, offset, err);
        a->in.consumed = NULL;
        return rc;
    case GW_ITEM_COMMAND:
        return take_command(a, ends, err);
    case GW_ITEM_CONFIGURATION:
        return gw_input_refuse(&a->in, offset, err, "a configuration section (0x07)");
    case GW_ITEM_DESCRIPTION:
        return gw_input_refuse(&a->in, offset, err, "a description (0x06) before the end mark");
    case GW_ITEM_FOOTER:
        return gw_input_refuse(&a->in, offset, err, "a footer (0x7e) without a section");
    default:
        a->lost_item = !a->packaged;
        snprintf(a->section_name, sizeof(a->section_name), "head of a section");
        return gw_input_refuse(&a->in, offset, err, "unknown item type 0x%02x", (unsigned)type);
    }
}

static int take_items(struct gw_analysis *a, struct gw_error *err)
{
    bool ends = false;
    int rc = 0;
    while (rc == 0 && !ends)
        rc = take_item(a, &ends, err);
    return rc;
}

/* ---- what follows the end mark ---------------------------------------------------------------- */

static int take_description(struct gw_analysis *a, struct gw_error *err)
{
    const uint8_t *at;
    snprintf(a->section_name, sizeof(a->section_name), "description");
    gw_input_skip(&a->in, 1);
    at = gw_input_take(&a->in, 4, "length of the description", err);
    if (!at)
        return -EBADMSG;
    uint64_t bytes = gw_be32_load(at), done = 0;
    a->facts.description_bytes = bytes;
    a->description_offset = gw_input_tell(&a->in);
    a->facts.has_description = true;
    if (bytes > GW_DESCRIPTION_BYTES_MAX) /* sections stay opaque */
        return gw_input_drop(&a->in, bytes) < bytes ? gw_input_short(&a->in, "description", err)
                                                    : 0;
    a->description_text = gw_zalloc(bytes + 1, 1);
    if (!a->description_text)
        return gw_fail(err, -ENOMEM, "description");
    while (done < bytes) {
        size_t there = gw_input_look(&a->in, 1, &at);
        if (there == 0)
            return gw_input_short(&a->in, "description", err);
        size_t now = (size_t)gw_min_u64(there, bytes - done);
        memcpy(a->description_text + done, at, now);
        gw_input_skip(&a->in, now);
        done += now;
    }
    return 0;
}

static int take_rest(struct gw_analysis *a, struct gw_error *err)
{
    const uint8_t *at;
    int rc = 0;
    snprintf(a->section_name, sizeof(a->section_name), "end mark");
    if (gw_input_look(&a->in, 1, &at) > 0 && at[0] == GW_ITEM_DESCRIPTION)
        rc = take_description(a, err);
    if (rc == 0 && !gw_input_is_empty(&a->in))
        return gw_input_refuse(&a->in, gw_input_tell(&a->in), err, "bytes follow the stream");
    return rc < 0 ? rc : a->in.rc < 0 ? gw_input_short(&a->in, "stream", err) : 0;
}

int gw_analyze_stream(struct gw_analysis *a, struct gw_error *err)
{
    snprintf(a->section_name, sizeof(a->section_name), "header");
    int rc = gw_stream_take_header(&a->in, &a->configuration, err);
    if (rc == 0)
        rc = take_items(a, err);
    if (rc == 0)
        rc = take_rest(a, err);
    return rc;
}

/* ---- lost ------------------------------------------------------------------------------------- */

/* Where in the last @bytes, which stand at @from, an end mark is followed by a description that ends with the
 * stream; or @bytes. */
static size_t find_end(const uint8_t *tail, size_t bytes)
{
    for (size_t at = 0; at + 7 <= bytes; at++) {
        if (tail[at] == GW_ITEM_EOF && tail[at + 1] == GW_ITEM_DESCRIPTION && tail[at + 6] == '{' &&
            gw_be32_load(tail + at + 2) == bytes - at - 6)
            return at;
    }
    return bytes;
}

static int take_tail(struct gw_analysis *a, uint64_t from, size_t bytes, struct gw_error *err)
{
    uint8_t *tail = gw_zalloc(bytes + 1, 1); /* a NUL behind it */
    if (!tail)
        return gw_fail(err, -ENOMEM, "description");
    size_t at = gw_keep_read_all(&a->keep, from, tail, bytes) == 0 ? find_end(tail, bytes) : bytes;
    if (at == bytes) {
        gw_free(tail);
        return 0;
    }
    a->facts.has_end = a->facts.has_description = true;
    a->facts.description_bytes = bytes - at - 6;
    a->description_offset = from + at + 6;
    memmove(tail, tail + at + 6, bytes - at - 6 + 1);
    a->description_text = (char *)tail;
    return 1;
}

int gw_analyze_find_description(struct gw_analysis *a, struct gw_error *err)
{
    struct gw_analyzed_section *s = a->lost ? &a->sections[a->facts.section_count - 1] : NULL;
    uint64_t begin = s ? s->body_offset : a->item_at;
    a->in.consumed = a->is_regular ? NULL : keep_bytes;
    a->in.consumed_ctx = a;
    gw_input_drop(&a->in, UINT64_MAX);
    a->in.consumed = NULL;
    if (a->in.rc < 0)
        return gw_input_short(&a->in, "stream", err);
    uint64_t end = gw_input_tell(&a->in);
    uint64_t bytes = gw_min_u64(end - begin, GW_DESCRIPTION_BYTES_MAX);
    int rc = take_tail(a, end - bytes, (size_t)bytes, err);
    uint64_t footer = a->facts.has_footers ? GW_FOOTER_BYTES : 0;
    if (rc == 1 && s && a->description_offset - 6 >= s->body_offset + footer)
        s->body_bytes = a->description_offset - 6 - footer - s->body_offset;
    return rc;
}
