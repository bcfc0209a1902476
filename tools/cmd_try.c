// SPDX-License-Identifier: MIT
/* `godwit try`: both ends on this machine. A child runs `godwit receive`, this process runs what
 * `godwit send` runs, and what happened is drawn from the two documents. The last line on stdout is
 * for scripts: `try: completed, verified, downtime N ms`, or `try: failed: ...` and a status that is
 * not 0. Where stdout was asked for as a document (`--json -`, `--events -`), nothing else is written
 * there: picture and last line go to stderr. */
#include "tools/child.h"
#include "tools/options.h"
#include "tools/picture.h"
#include "tools/send.h"
#include "tools/talk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ARGUMENTS_MAX (16 + 2 * 64)

struct trial {
    const struct gw_options *options;
    struct gw_child child;
    struct gw_sent sent;
    int child_status;
    json_t *document; /* the target's */
    char folder[160]; /* of the unix socket; "": none */
    char listen[200]; /* what the child is told to listen on */
    char run_for[32];
};

static int choose_address(struct trial *trial, struct gw_error *err)
{
    const char *base = getenv("TMPDIR");

    if (strcmp(trial->options->wire, "tcp") == 0) {
        snprintf(trial->listen, sizeof(trial->listen), "tcp:127.0.0.1:0");
        return 0;
    }
    snprintf(trial->folder, sizeof(trial->folder), "%.64s/godwit-try-XXXXXX",
             base && base[0] ? base : "/tmp");
    if (!mkdtemp(trial->folder)) {
        int rc = gw_error_set(err, -errno, GW_CODE_IO, "no folder for the socket as %s: %s",
                              trial->folder, strerror(errno));
        trial->folder[0] = '\0';
        return rc;
    }
    snprintf(trial->listen, sizeof(trial->listen), "unix:%s/s", trial->folder);
    return 0;
}

static int start_target(struct trial *trial, struct gw_error *err)
{
    const struct gw_options *options = trial->options;
    char *argv[ARGUMENTS_MAX];
    unsigned count = 0;
    static char words[][12] = {"godwit", "receive", "--quiet", "--json", "-", "--run-for", "--set"};

    snprintf(trial->run_for, sizeof(trial->run_for), "%.3f", options->run_for_s);
    for (unsigned i = 0; i < 6; i++)
        argv[count++] = words[i];
    argv[count++] = trial->run_for;
    for (unsigned i = 0; i < options->set_count; i++) {
        argv[count++] = words[6];
        argv[count++] = options->set[i];
    }
    argv[count++] = trial->listen;
    argv[count] = NULL;
    return gw_child_start(&trial->child, argv, err);
}

/* Until it says where it listens, or it is clear that it never will. */
static int await_target(struct trial *trial, struct gw_error *err)
{
    struct gw_wait wait = {
        .fd = trial->child.err_fd, .fd_ready = gw_child_read, .fd_ctx = &trial->child};

    while (trial->child.uri[0] == '\0' && trial->child.err_fd >= 0 && !wait.signalled)
        gw_wait_step(&wait, GW_WAIT_FOREVER);
    if (wait.signalled)
        return gw_error_set(err, -ECANCELED, GW_CODE_CANCELLED, "cancelled");
    if (trial->child.uri[0] == '\0')
        return gw_error_set(err, -EIO, GW_CODE_LISTEN,
                            "the receiving side ended before it listened");
    return 0;
}

/* It ended before there was a guest: the document says so. */
static int give_up(struct trial *trial, int status, const struct gw_error *why)
{
    struct gw_report *report = &trial->sent.report;
    struct gw_error err = GW_ERROR_INIT;
    FILE *file = NULL;

    *report = (struct gw_report){
        .role = "source", .uri = trial->listen, .stats = {sizeof(struct gw_stats)}, .error = *why};
    gw_report_settle(report, status == GW_EXIT_CANCELLED);
    if (gw_report_open(trial->options->json, &file, &err) < 0 ||
        gw_report_write(report, file, &err) < 0)
        gw_talk_show("", &err);
    gw_report_close(file);
    return status;
}

static int run_both(struct trial *trial, struct gw_error *err)
{
    int rc = choose_address(trial, err);

    if (rc == 0)
        rc = start_target(trial, err);
    if (rc == 0)
        rc = await_target(trial, err);
    if (rc < 0)
        return give_up(trial, rc == -ECANCELED ? GW_EXIT_CANCELLED : GW_EXIT_FAILED, err);
    const struct gw_wait beside = {
        .fd = trial->child.err_fd, .fd_ready = gw_child_read, .fd_ctx = &trial->child};
    int status = gw_send_guest(trial->options, trial->child.uri, &beside, &trial->sent);
    if (status != GW_EXIT_COMPLETED)
        *err = trial->sent.report.error;
    return status;
}

static bool target_verified(const struct trial *trial)
{
    return json_is_true(json_object_get(json_object_get(trial->document, "guest"), "verified"));
}

static double target_writes(const struct trial *trial)
{
    return json_number_value(json_object_get(json_object_get(trial->document, "guest"), "writes"));
}

/* What the target said went wrong, if it did. */
static int judge_target(struct trial *trial, struct gw_error *err)
{
    const char *message =
        json_string_value(json_object_get(json_object_get(trial->document, "error"), "message"));

    if (trial->child_status != GW_EXIT_COMPLETED) {
        gw_error_set(err, -EIO, GW_CODE_INTERNAL, "the receiving side ended with status %d: %s",
                     trial->child_status, message ? message : "it left no document");
        return trial->child_status > GW_EXIT_CHECK ? GW_EXIT_FAILED : trial->child_status;
    }
    if (target_verified(trial))
        return GW_EXIT_COMPLETED;
    gw_error_set(err, -EIO, GW_CODE_VERIFY, "the receiving side did not verify the guest's memory");
    return GW_EXIT_CHECK;
}

static FILE *talk_to(const struct gw_options *options)
{
    bool taken = (options->json && strcmp(options->json, "-") == 0) ||
                 (options->events && strcmp(options->events, "-") == 0);

    return taken ? stderr : stdout;
}

static void draw(const struct trial *trial, FILE *out)
{
    const struct gw_report *report = &trial->sent.report;
    char ram[24], rate[24], moved[24];

    gw_amount_text((double)report->guest.ram_bytes, false, ram);
    gw_amount_text((double)trial->options->guest.dirty_rate, true, rate);
    gw_amount_text((double)report->stats.transferred_bytes, false, moved);
    fprintf(out, "  guest of %s, %u vCPU%s writing %s; over %s, %u page endpoint%s\n\n", ram,
            report->guest.vcpus, report->guest.vcpus == 1 ? "" : "s", rate, report->uri,
            report->stats.endpoints, report->stats.endpoints == 1 ? "" : "s");
    gw_picture_rounds(report, out);
    fprintf(out, "\n");
    gw_picture_downtime(report, out);
    fprintf(out,
            "\n  %s moved in %.1f ms; %.0f writes, the last %.0f of them there; memory checked at "
            "both ends\n\n",
            moved, (double)report->stats.total_ns / 1e6, target_writes(trial),
            target_writes(trial) - (double)report->guest.writes);
}

static int try_once(struct trial *trial)
{
    FILE *out = talk_to(trial->options);
    struct gw_error err = GW_ERROR_INIT;
    int status = run_both(trial, &err);

    if (status != GW_EXIT_COMPLETED && status != GW_EXIT_UNKNOWN && status != GW_EXIT_CHECK)
        gw_child_cancel(&trial->child); /* it may never have met a source */
    trial->child_status = gw_child_wait(&trial->child);
    trial->document = gw_child_document(&trial->child);
    if (status == GW_EXIT_COMPLETED)
        status = judge_target(trial, &err);
    if (status == GW_EXIT_COMPLETED) {
        if (!trial->options->quiet)
            draw(trial, out);
        fprintf(out, "try: completed, verified, downtime %.1f ms\n",
                (double)trial->sent.report.stats.downtime_ns / 1e6);
    } else {
        fprintf(out, "try: %s: %s\n", status == GW_EXIT_CANCELLED ? "cancelled" : "failed",
                err.message[0] ? err.message : gw_code_name(err.code));
    }
    json_decref(trial->document);
    gw_sent_fini(&trial->sent);
    gw_child_fini(&trial->child);
    if (trial->folder[0] != '\0')
        rmdir(trial->folder);
    return status;
}

static void set_defaults(struct gw_options *options)
{
    options->guest.ram_bytes = UINT64_C(1) << 30;
    options->guest.dirty_rate = UINT64_C(200) << 20;
    gw_params_set(options->params, "x-stall-action", "fail", NULL);
}

static int run(const struct gw_options *options)
{
    struct trial trial = {.options = options, .child = {.pid = -1, .out_fd = -1, .err_fd = -1}};

    return try_once(&trial);
}

const struct gw_command gw_cmd_try = {
    .name = "try",
    .bit = GW_FOR_TRY,
    .operand = "",
    .summary = "both ends on this machine, one command, a picture of what happened",
    .hears_signals = true,
    .set_defaults = set_defaults,
    .run = run,
};
