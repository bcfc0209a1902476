// SPDX-License-Identifier: MIT
/* `godwit doctor [URI] [--json]`: the library probes, this prints. Lines and the document are data and
 * go to stdout. Status 1 if something is not ok that every migration needs (or that the given address
 * needs), 0 otherwise. */
#include "tools/options.h"
#include "tools/report.h"
#include "tools/talk.h"

#include <errno.h>
#include <godwit/doctor.h>
#include <jansson.h>

static void print_line(void *ctx, const struct gw_finding *finding)
{
    (void)ctx;
    printf("%-7s %-24s %s\n",
           finding->ok       ? "ok"
           : finding->needed ? "NOT OK"
                             : "not ok",
           finding->topic, finding->detail);
    if (finding->fix[0] != '\0')
        printf("%-7s %-24s fix: %s\n", "", "", finding->fix);
    if (finding->note[0] != '\0')
        printf("%-7s %-24s note: %s\n", "", "", finding->note);
}

static void add_object(void *ctx, const struct gw_finding *finding)
{
    json_t *findings = ctx;
    json_t *object = json_object();

    json_object_set_new(object, "topic", gw_report_text(finding->topic));
    json_object_set_new(object, "ok", json_boolean(finding->ok));
    json_object_set_new(object, "needed", json_boolean(finding->needed));
    json_object_set_new(object, "detail", gw_report_text(finding->detail));
    json_object_set_new(object, "fix", gw_report_text(finding->fix));
    json_object_set_new(object, "note", gw_report_text(finding->note));
    json_array_append_new(findings, object);
}

static int run_json(const char *uri, struct gw_error *err)
{
    json_t *document = json_object();
    json_t *findings = json_array();
    int missing = gw_doctor_run(uri, add_object, findings, err);

    json_object_set_new(document, "schema", json_string("godwit.doctor/1"));
    json_object_set_new(document, "missing", json_integer(missing));
    json_object_set_new(document, "findings", findings);
    if (missing >= 0) {
        json_dumpf(document, stdout, JSON_INDENT(2));
        putchar('\n');
    }
    json_decref(document);
    return missing;
}

static int run_lines(const struct gw_options *options, struct gw_error *err)
{
    int missing = gw_doctor_run(options->uri, print_line, NULL, err);

    if (missing > 0 && !options->quiet)
        gw_talk_note("%d needed thing%s not ok (NOT OK above)", missing,
                     missing == 1 ? " is" : "s are");
    return missing;
}

static int run(const struct gw_options *options)
{
    struct gw_error err = GW_ERROR_INIT;
    int missing = options->document ? run_json(options->uri, &err) : run_lines(options, &err);

    if (missing < 0)
        return gw_talk_usage(err.hint, "%s", err.message);
    return missing > 0 ? GW_EXIT_FAILED : GW_EXIT_COMPLETED;
}

const struct gw_command gw_cmd_doctor = {
    .name = "doctor",
    .bit = GW_FOR_DOCTOR,
    .operand = "[URI]",
    .summary = "what works here, what does not, why, and the exact fix",
    .run = run,
};
