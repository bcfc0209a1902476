// SPDX-License-Identifier: MIT
/* `godwit compat OLD NEW [--json]`: the library compares, this prints. A line for each finding with what it
 * means in each direction, or the document "godwit.compat/1"; both are data and go to stdout. Status 5 if
 * a direction breaks; 1 if a side could not be read. */
#include "tools/options.h"
#include "tools/reading.h"
#include "tools/report.h"
#include "tools/talk.h"

#include <godwit/compat.h>
#include <inttypes.h>
#include <jansson.h>

struct side {
    struct gw_reading reading;
    struct gw_compat_side *read;
};

static const char *const sources[] = {"stream", "analysis", "description", "static"};
static const char *const kinds[] = {"machine", "page", "block", "device", "field", "subsection"};

static const char *verdict(unsigned way, unsigned breaks, unsigned doubtful)
{
    return breaks & way ? "breaks" : doubtful & way ? "may break" : "ok";
}

static int read_side(struct side *side)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_analyze_options options = {.struct_bytes = sizeof(options),
                                         .progress = gw_reading_progress,
                                         .progress_ctx = &side->reading};
    int status = gw_reading_open(&side->reading);

    if (status >= 0)
        return status;
    int rc = gw_compat_read(side->reading.fd, &options, &side->read, &err);
    return gw_reading_judge(&side->reading, rc, &err);
}

/* ---- the table -------------------------------------------------------------------------------- */

/* A document's names are a stranger's. */
static void print_text(const char *text)
{
    for (; *text; text++)
        putchar(*text >= 0x20 && *text < 0x7f ? *text : '?');
}

static void print_side(const char *name, const struct side *side)
{
    static const char *const words[] = {"a stream", "an analysis", "a description",
                                        "a dump of all descriptions"};
    struct gw_compat_side_facts facts = {.struct_bytes = sizeof(facts)};

    gw_compat_side_facts(side->read, &facts);
    printf("%s  ", name);
    print_text(side->reading.path);
    printf(": %s", words[facts.source]);
    if (facts.machine) {
        printf(", machine ");
        print_text(facts.machine);
    }
    printf(", %u devices, %u of them described\n", facts.device_count, facts.described);
}

static void print_finding(const struct gw_compat_finding *f)
{
    printf("%-10s  %-10s  ", verdict(GW_COMPAT_FORWARD, f->breaks, f->doubtful),
           verdict(GW_COMPAT_BACKWARD, f->breaks, f->doubtful));
    if (f->kind == GW_COMPAT_BLOCK)
        printf("block ");
    print_text(f->device);
    if (f->instance_id)
        printf(" %" PRIu32, f->instance_id);
    if (f->path[0]) {
        printf("%s", f->device[0] ? ": " : "");
        print_text(f->path);
    }
    printf("%s%s", f->device[0] || f->path[0] ? ": " : "", f->message);
    if (f->older || f->newer) {
        printf(": ");
        print_text(f->older ? f->older : "-");
        printf(" | ");
        print_text(f->newer ? f->newer : "-");
    }
    putchar('\n');
}

static void print_table(const struct side *older, const struct side *newer,
                        const struct gw_compat *compat, const struct gw_compat_facts *facts)
{
    struct gw_compat_finding f = {.struct_bytes = sizeof(f)};

    print_side("old", older);
    print_side("new", newer);
    if (facts->finding_count > 0)
        printf("\n%-10s  %-10s  %s\n", "old to new", "new to old", "what: old | new");
    for (unsigned i = 0; gw_compat_finding(compat, i, &f); i++)
        print_finding(&f);
    if (facts->dropped > 0)
        printf("(%" PRIu64 " more)\n", facts->dropped);
    printf("\nold to new: %s\nnew to old: %s\n",
           verdict(GW_COMPAT_FORWARD, facts->breaks, facts->doubtful),
           verdict(GW_COMPAT_BACKWARD, facts->breaks, facts->doubtful));
}

/* ---- the document ------------------------------------------------------------------------------ */

static json_t *text_or_null(const char *text)
{
    return text ? gw_report_text(text) : json_null();
}

static json_t *side_object(const struct side *side)
{
    struct gw_compat_side_facts facts = {.struct_bytes = sizeof(facts)};

    gw_compat_side_facts(side->read, &facts);
    return json_pack("{s:o, s:s, s:o, s:I, s:I, s:I}", "path", gw_report_text(side->reading.path),
                     "source", sources[facts.source], "machine", text_or_null(facts.machine),
                     "devices", (json_int_t)facts.device_count, "described",
                     (json_int_t)facts.described, "blocks", (json_int_t)facts.block_count);
}

static json_t *finding_object(const struct gw_compat_finding *f)
{
    return json_pack("{s:s, s:s, s:s, s:o, s:I, s:o, s:s, s:o, s:o}", "kind", kinds[f->kind],
                     "old-to-new", verdict(GW_COMPAT_FORWARD, f->breaks, f->doubtful), "new-to-old",
                     verdict(GW_COMPAT_BACKWARD, f->breaks, f->doubtful), "device",
                     f->device[0] ? gw_report_text(f->device) : json_null(), "instance",
                     (json_int_t)f->instance_id, "path",
                     f->path[0] ? gw_report_text(f->path) : json_null(), "message", f->message,
                     "old", text_or_null(f->older), "new", text_or_null(f->newer));
}

static int print_document(const struct side *older, const struct side *newer,
                          const struct gw_compat *compat, const struct gw_compat_facts *facts)
{
    struct gw_compat_finding f = {.struct_bytes = sizeof(f)};
    json_t *findings = json_array();
    int rc = -1;

    for (unsigned i = 0; gw_compat_finding(compat, i, &f); i++)
        json_array_append_new(findings, finding_object(&f));
    json_t *document =
        json_pack("{s:s, s:o, s:o, s:s, s:s, s:I, s:I, s:o, s:I}", "schema", "godwit.compat/1",
                  "old", side_object(older), "new", side_object(newer), "old-to-new",
                  verdict(GW_COMPAT_FORWARD, facts->breaks, facts->doubtful), "new-to-old",
                  verdict(GW_COMPAT_BACKWARD, facts->breaks, facts->doubtful), "compared",
                  (json_int_t)facts->compared, "by-version", (json_int_t)facts->by_version,
                  "findings", findings, "dropped", (json_int_t)facts->dropped);
    if (document)
        rc = json_dumpf(document, stdout, JSON_INDENT(2) | JSON_ENSURE_ASCII);
    putchar('\n');
    json_decref(document);
    if (rc == 0)
        return -1;
    gw_talk_error("the document could not be written");
    return GW_EXIT_FAILED;
}

/* ---- the command ------------------------------------------------------------------------------- */

static int show(const struct gw_options *options, const struct side *older,
                const struct side *newer, const struct gw_compat *compat)
{
    struct gw_compat_facts facts = {.struct_bytes = sizeof(facts)};
    int status = -1;

    gw_compat_facts(compat, &facts);
    if (options->document)
        status = print_document(older, newer, compat, &facts);
    else
        print_table(older, newer, compat, &facts);
    if (facts.by_version > 0)
        gw_talk_note("%u devices were compared by version alone: a description is missing",
                     facts.by_version);
    return status >= 0 ? status : facts.breaks ? GW_EXIT_CHECK : GW_EXIT_COMPLETED;
}

static int compare(const struct gw_options *options)
{
    struct gw_error err = GW_ERROR_INIT;
    struct side older = {.reading = {.path = options->uri, .fd = -1}};
    struct side newer = {.reading = {.path = options->other, .fd = -1}};
    struct gw_compat *compat = NULL;
    int status = read_side(&older);

    if (status < 0)
        status = read_side(&newer);
    if (status < 0) {
        if (gw_compat(older.read, newer.read, &compat, &err) == 0) {
            status = show(options, &older, &newer, compat);
        } else {
            gw_talk_show("comparison", &err);
            status = GW_EXIT_FAILED;
        }
    }
    gw_compat_free(compat);
    gw_compat_side_free(older.read);
    gw_compat_side_free(newer.read);
    gw_reading_close(&older.reading);
    gw_reading_close(&newer.reading);
    return status;
}

const struct gw_command gw_cmd_compat = {
    .name = "compat",
    .bit = GW_FOR_COMPAT,
    .operand = "OLD NEW",
    .summary = "which device, field or subsection would break a migration, and which way",
    .hears_signals = true,
    .run = compare,
};
