// SPDX-License-Identifier: MIT
/* The document "godwit.analyze/1". Its lists are written element by element, each with jansson, so that memory
 * does not follow what a stranger's stream says. Keys keep their order and their meaning; new ones come
 * behind the old ones. */
#include "tools/analyze.h"
#include "tools/report.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define HEX_BYTES_MAX 4096u /* of a field; what is longer is told by its size */

struct list { /* an array being written */
    FILE *out;
    unsigned count;
};

/* Takes @element. */
static void add(struct list *list, json_t *element)
{
    fprintf(list->out, list->count++ ? ",\n    " : "\n    ");
    json_dumpf(element, list->out, JSON_COMPACT | JSON_ENSURE_ASCII);
    json_decref(element);
}

static struct list list_begin(FILE *out, const char *key)
{
    fprintf(out, ",\n  \"%s\": [", key);
    return (struct list){.out = out};
}

static void list_end(const struct list *list)
{
    fprintf(list->out, list->count ? "\n  ]" : "]");
}

static void add_member(FILE *out, const char *key, json_t *value)
{
    fprintf(out, ",\n  \"%s\": ", key);
    json_dumpf(value, out, JSON_COMPACT | JSON_ENCODE_ANY | JSON_ENSURE_ASCII);
    json_decref(value);
}

static json_t *count_of(uint64_t value)
{
    return json_integer((json_int_t)value);
}

static json_t *uuid_text(const struct gw_stream_facts *facts)
{
    char text[40];
    unsigned used = 0;

    for (unsigned i = 0; i < sizeof(facts->uuid); i++)
        used +=
            (unsigned)snprintf(text + used, sizeof(text) - used, "%s%02x",
                               i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", facts->uuid[i]);
    return json_string(text);
}

static void write_facts(const struct gw_analysis *a, const struct gw_stream_facts *facts, FILE *out)
{
    static const char *const kinds[] = {"savevm", "multifd", "return-path"};
    json_t *capabilities = json_array();

    for (unsigned i = 0; i < facts->capability_count; i++)
        json_array_append_new(capabilities, gw_report_text(gw_analysis_capability(a, i)));
    add_member(out, "kind", json_string(kinds[facts->kind]));
    add_member(out, "bytes", count_of(facts->bytes));
    add_member(out, "machine", facts->machine ? gw_report_text(facts->machine) : json_null());
    add_member(out, "uuid",
               facts->has_uuid || facts->kind == GW_STREAM_MULTIFD ? uuid_text(facts)
                                                                   : json_null());
    add_member(out, "capabilities", capabilities);
    add_member(out, "page-bytes", count_of(facts->page_bytes));
    add_member(out, "footers", json_boolean(facts->has_footers));
    add_member(out, "end-mark", json_boolean(facts->has_end));
    add_member(out, "description-bytes",
               facts->has_description ? count_of(facts->description_bytes) : json_null());
    add_member(out, "return-path", json_boolean(facts->has_return_path));
    add_member(out, "postcopy-advised", json_boolean(facts->has_postcopy_advice));
    add_member(out, "postcopy", json_boolean(facts->has_postcopy));
    add_member(out, "mapped-ram", json_boolean(facts->is_mapped));
    add_member(out, "ram",
               json_pack("{s:I, s:I, s:I, s:I, s:I}", "bytes", (json_int_t)facts->ram_bytes,
                         "normal", (json_int_t)facts->normal_pages, "zero",
                         (json_int_t)facts->zero_pages, "xbzrle", (json_int_t)facts->xbzrle_pages,
                         "compressed", (json_int_t)facts->compressed_pages));
}

static void write_multifd(const struct gw_stream_facts *facts, FILE *out)
{
    add_member(out, "multifd",
               json_pack("{s:i, s:I, s:I, s:I, s:I, s:s}", "channel", (int)facts->channel,
                         "packets", (json_int_t)facts->packets, "syncs", (json_int_t)facts->syncs,
                         "device-packets", (json_int_t)facts->device_packets, "data-bytes",
                         (json_int_t)facts->packet_data_bytes, "compression",
                         facts->compression ? facts->compression : "none"));
}

static void write_commands(const struct gw_analysis *a, FILE *out)
{
    struct gw_stream_command_record c = {.struct_bytes = sizeof(c)};
    struct list list = list_begin(out, "commands");

    for (unsigned i = 0; gw_analysis_command(a, i, &c); i++)
        add(&list, json_pack("{s:I, s:s, s:I, s:o}", "offset", (json_int_t)c.offset, "name", c.name,
                             "value", (json_int_t)c.value, "block",
                             c.block[0] ? gw_report_text(c.block) : json_null()));
    list_end(&list);
}

static void write_blocks(const struct gw_analysis *a, FILE *out)
{
    struct gw_stream_block b = {.struct_bytes = sizeof(b)};
    struct list list = list_begin(out, "blocks");

    for (unsigned i = 0; gw_analysis_block(a, i, &b); i++)
        add(&list,
            json_pack("{s:i, s:o, s:I, s:o, s:o, s:I, s:I, s:I, s:I, s:I}", "index", (int)i, "name",
                      gw_report_text(b.name), "bytes", (json_int_t)b.bytes, "page-bytes",
                      b.page_bytes ? count_of(b.page_bytes) : json_null(), "guest-address",
                      b.has_guest_address ? count_of(b.guest_address) : json_null(),
                      "received-pages", (json_int_t)b.received_pages, "normal",
                      (json_int_t)b.normal_pages, "zero", (json_int_t)b.zero_pages, "xbzrle",
                      (json_int_t)b.xbzrle_pages, "compressed", (json_int_t)b.compressed_pages));
    list_end(&list);
}

static json_t *hex_of(const uint8_t *data, uint64_t bytes)
{
    static const char digits[] = "0123456789abcdef";

    if (bytes > HEX_BYTES_MAX)
        return json_null();
    char *text = malloc(2 * (size_t)bytes + 1);
    if (!text)
        return json_null();
    for (uint64_t i = 0; i < bytes; i++) {
        text[2 * i] = digits[data[i] >> 4];
        text[2 * i + 1] = digits[data[i] & 15];
    }
    json_t *value = json_stringn(text, 2 * (size_t)bytes);
    free(text);
    return value;
}

static int add_field(void *ctx, const struct gw_stream_field *field)
{
    struct list *list = ctx;

    fprintf(list->out, list->count++ ? ",\n      " : "\n      ");
    json_t *object =
        json_pack("{s:o, s:o, s:I, s:I, s:I, s:o}", "path", gw_report_text(field->path), "type",
                  gw_report_text(field->type), "offset", (json_int_t)field->offset, "bytes",
                  (json_int_t)field->bytes, "count", (json_int_t)field->count, "hex",
                  hex_of(field->data, field->bytes));
    json_dumpf(object, list->out, JSON_COMPACT | JSON_ENSURE_ASCII);
    json_decref(object);
    return ferror(list->out) ? -EIO : 0;
}

static int write_section(struct gw_analysis *a, unsigned index, const struct gw_stream_section *s,
                         FILE *out, struct gw_error *err)
{
    static const char *const forms[] = {"ram", "fields", "opaque"};
    struct list fields = {.out = out};
    char *text;
    int rc = 0;

    json_t *object =
        json_pack("{s:i, s:o, s:I, s:I, s:I, s:s, s:b, s:b, s:b, s:I, s:I, s:I, s:I, s:I}", "index",
                  (int)index, "name", gw_report_text(s->idstr), "id", (json_int_t)s->section_id,
                  "instance", (json_int_t)s->instance_id, "version", (json_int_t)s->version_id,
                  "form", forms[s->form], "iterative", s->is_iterative, "end", s->has_end,
                  "packaged", s->is_packaged, "offset", (json_int_t)s->offset, "body-offset",
                  (json_int_t)s->body_offset, "bytes", (json_int_t)s->body_bytes, "parts",
                  (json_int_t)s->parts, "last-offset", (json_int_t)s->last_offset);
    text = json_dumps(object, JSON_COMPACT | JSON_ENSURE_ASCII);
    json_decref(object);
    if (!text)
        return gw_error_set(err, -ENOMEM, GW_CODE_NO_MEMORY, "out of memory");
    text[strlen(text) - 1] = '\0'; /* the brace, which comes behind the fields */
    fprintf(out, "%s,\"fields\":", text);
    free(text);
    if (s->form == GW_SECTION_FIELDS) {
        fprintf(out, "[");
        rc = gw_analysis_fields(a, index, add_field, &fields, err);
        fprintf(out, "]}");
    } else {
        fprintf(out, "null}");
    }
    return rc;
}

static int write_sections(struct gw_analysis *a, FILE *out, struct gw_error *err)
{
    struct gw_stream_section s = {.struct_bytes = sizeof(s)};
    unsigned i = 0;
    int rc = 0;

    fprintf(out, ",\n  \"sections\": [");
    for (; rc == 0 && gw_analysis_section(a, i, &s); i++) {
        fprintf(out, i ? ",\n    " : "\n    ");
        rc = write_section(a, i, &s, out, err);
    }
    fprintf(out, i ? "\n  ]" : "]");
    return rc;
}

static void write_faults(const struct gw_analysis *a, FILE *out)
{
    struct gw_stream_fault f = {.struct_bytes = sizeof(f)};
    struct list list = list_begin(out, "faults");

    for (unsigned i = 0; gw_analysis_fault(a, i, &f); i++)
        add(&list, json_pack("{s:I, s:o, s:o}", "offset", (json_int_t)f.offset, "section",
                             gw_report_text(f.section), "message", gw_report_text(f.message)));
    list_end(&list);
}

/* Devices as the stream describes them: what `godwit compat` goes by. */
static void write_description(const struct gw_analysis *a, const struct gw_stream_facts *facts,
                              FILE *out)
{
    size_t bytes;
    const char *text = gw_analysis_description(a, 0, &bytes);

    if (!text) {
        add_member(out, "description", json_null());
        return;
    }
    fprintf(out, ",\n  \"description\": {\"page_size\": %" PRIu32 ", \"devices\": [",
            facts->page_bytes);
    for (unsigned i = 0; (text = gw_analysis_description(a, i, &bytes)); i++) {
        fprintf(out, i ? ",\n    " : "\n    ");
        fwrite(text, 1, bytes, out);
    }
    fprintf(out, "\n  ]}");
}

static void add_difference(void *ctx, const char *what, const char *left, const char *right)
{
    add(ctx, json_pack("{s:o, s:o, s:o}", "what", gw_report_text(what), "left",
                       left ? gw_report_text(left) : json_null(), "right",
                       right ? gw_report_text(right) : json_null()));
}

int gw_analyze_json(struct gw_analysis *a, struct gw_analysis *other, FILE *out,
                    struct gw_error *err)
{
    struct gw_stream_facts facts = {.struct_bytes = sizeof(facts)};

    gw_analysis_facts(a, &facts);
    fprintf(out, "{\n  \"schema\": \"godwit.analyze/1\"");
    write_facts(a, &facts, out);
    if (facts.kind == GW_STREAM_MULTIFD)
        write_multifd(&facts, out);
    write_commands(a, out);
    write_blocks(a, out);
    int rc = write_sections(a, out, err);
    write_faults(a, out);
    if (rc == 0 && other) {
        struct list list = list_begin(out, "differences");
        int64_t count = gw_analyze_diff(a, other, add_difference, &list, err);
        list_end(&list);
        rc = count < 0 ? (int)count : 0;
    }
    write_description(a, &facts, out);
    fprintf(out, "\n}\n");
    return rc;
}
