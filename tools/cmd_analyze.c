// SPDX-License-Identifier: MIT
/* `godwit analyze FILE|- [--json] [--extract DIR] [--verify] [--diff OTHER]`: the library reads, this prints.
 * The table, the document and the differences are data and go to stdout, progress and errors to stderr.
 * Status 5 if --verify found a fault; 1 if the input could not be read, or was not whole without it. */
#include "tools/analyze.h"
#include "tools/options.h"
#include "tools/reading.h"
#include "tools/talk.h"

#include <inttypes.h>
#include <string.h>

struct stream {
    struct gw_reading reading;
    struct gw_analysis *analysis;
};

static int read_stream(struct stream *stream, const char *extract)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_analyze_options options = {.struct_bytes = sizeof(options),
                                         .extract = extract,
                                         .progress = gw_reading_progress,
                                         .progress_ctx = &stream->reading};
    int status = gw_reading_open(&stream->reading);

    if (status >= 0)
        return status;
    int rc = gw_analyze(stream->reading.fd, &options, &stream->analysis, &err);
    return gw_reading_judge(&stream->reading, rc, &err);
}

static void close_stream(struct stream *stream)
{
    gw_analysis_free(stream->analysis);
    gw_reading_close(&stream->reading);
}

static void print_difference(void *ctx, const char *what, const char *left, const char *right)
{
    (void)ctx;
    for (const char *at = what; *at; at++) /* paths come from the stream */
        putchar(*at >= 0x20 && *at < 0x7f ? *at : '?');
    if (left || right)
        printf(": %s | %s", left ? left : "-", right ? right : "-");
    putchar('\n');
}

static int print_all(const struct gw_options *options, struct stream *stream, struct stream *other)
{
    struct gw_error err = GW_ERROR_INIT;
    int64_t count = 0;

    if (options->document) {
        count = gw_analyze_json(stream->analysis, other->analysis, stdout, &err);
    } else if (!other->analysis) {
        gw_analyze_table(stream->analysis, stdout);
    } else {
        count = gw_analyze_diff(stream->analysis, other->analysis, print_difference, NULL, &err);
        if (count == 0)
            printf("no difference\n");
    }
    if (count >= 0)
        return -1;
    gw_talk_show("output", &err);
    return GW_EXIT_FAILED;
}

/* What was found, as a status. */
static int judge(const struct gw_options *options, const struct stream *stream)
{
    struct gw_stream_facts facts = {.struct_bytes = sizeof(facts)};
    struct gw_stream_fault fault = {.struct_bytes = sizeof(fault)};
    struct gw_stream_section s = {.struct_bytes = sizeof(s)};
    unsigned opaque = 0;

    gw_analysis_facts(stream->analysis, &facts);
    for (unsigned i = 0; gw_analysis_section(stream->analysis, i, &s); i++)
        opaque += s.form == GW_SECTION_OPAQUE;
    if (facts.fault_count > 0) {
        gw_analysis_fault(stream->analysis, 0, &fault);
        gw_talk_error("'%s': section '%s', offset %" PRIu64 ": %s", stream->reading.path,
                      fault.section, fault.offset, fault.message);
        if (strcmp(fault.section, "header") == 0)
            gw_talk_line("  hint: only recorded savevm streams can be read: is this one, from its "
                         "first byte on?");
        if (facts.fault_count > 1)
            gw_talk_error("'%s': %u faults in all", stream->reading.path, facts.fault_count);
        return options->verify ? GW_EXIT_CHECK : GW_EXIT_FAILED;
    }
    if (options->verify)
        gw_talk_note("'%s' verified: %" PRIu64 " bytes, %u sections, %u of them opaque",
                     stream->reading.path, facts.bytes, facts.section_count, opaque);
    return GW_EXIT_COMPLETED;
}

static int analyze(const struct gw_options *options)
{
    struct stream stream = {.reading = {.path = options->uri, .fd = -1}};
    struct stream other = {.reading = {.path = options->other, .fd = -1}};
    int status = read_stream(&stream, options->extract);

    if (status < 0 && other.reading.path)
        status = read_stream(&other, NULL);
    if (status < 0)
        status = print_all(options, &stream, &other);
    if (status < 0) {
        status = judge(options, &stream);
        int second = other.reading.path ? judge(options, &other) : GW_EXIT_COMPLETED;
        status = status != GW_EXIT_COMPLETED ? status : second;
    }
    close_stream(&stream);
    close_stream(&other);
    return status;
}

const struct gw_command gw_cmd_analyze = {
    .name = "analyze",
    .bit = GW_FOR_ANALYZE,
    .operand = "FILE|-",
    .summary = "what is in a recorded stream, and whether every byte is accounted for",
    .hears_signals = true,
    .run = analyze,
};
