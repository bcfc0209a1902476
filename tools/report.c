// SPDX-License-Identifier: MIT
/* The run document, made with jansson, which keeps keys in the order in which they were set. Numbers
 * are integers for counts and bytes and reals for times and rates; a real that is not finite becomes
 * 0, because JSON has no NaN. Texts come from peers and paths and need not be UTF-8. */
#include "tools/report.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SCHEMA "godwit.run/1"

static json_t *real(double value)
{
    return json_real(isfinite(value) ? value : 0.0);
}

static json_t *count(uint64_t value)
{
    return json_integer(value <= INT64_MAX ? (json_int_t)value : INT64_MAX);
}

json_t *gw_report_ms(uint64_t ns)
{
    return real((double)ns / 1e6);
}

json_t *gw_report_text(const char *text)
{
    json_t *string = json_string(text);

    if (string)
        return string;
    char *printable = strdup(text);
    if (!printable)
        return json_null();
    for (char *c = printable; *c; c++) {
        if ((unsigned char)*c >= 0x80)
            *c = '?';
    }
    string = json_string(printable);
    free(printable);
    return string;
}

json_t *gw_report_error_json(const struct gw_error *err)
{
    if (!err || (err->rc == 0 && err->code == GW_CODE_NONE))
        return json_null();
    json_t *object = json_object();
    json_object_set_new(object, "code", json_string(gw_code_name(err->code)));
    json_object_set_new(object, "phase", gw_report_text(err->phase));
    json_object_set_new(object, "place", gw_report_text(err->place));
    json_object_set_new(object, "message", gw_report_text(err->message));
    json_object_set_new(object, "hint", gw_report_text(err->hint));
    json_object_set_new(object, "peer", gw_report_text(err->peer));
    return object;
}

static json_t *ledger_json(const struct gw_ledger *ledger)
{
    json_t *object = json_object();

    json_object_set_new(object, "pause-ms", gw_report_ms(ledger->pause_ns));
    json_object_set_new(object, "sync-ms", gw_report_ms(ledger->sync_ns));
    json_object_set_new(object, "puts-ms", gw_report_ms(ledger->puts_ns));
    json_object_set_new(object, "fences-ms", gw_report_ms(ledger->fences_ns));
    json_object_set_new(object, "device-save-ms", gw_report_ms(ledger->device_save_ns));
    json_object_set_new(object, "wire-ms", gw_report_ms(ledger->wire_ns));
    json_object_set_new(object, "revoke-ms", gw_report_ms(ledger->revoke_ns));
    json_object_set_new(object, "digest-ms", gw_report_ms(ledger->digest_ns));
    json_object_set_new(object, "device-load-ms", gw_report_ms(ledger->device_load_ns));
    json_object_set_new(object, "release-ms", gw_report_ms(ledger->release_ns));
    json_object_set_new(object, "acquire-ms", gw_report_ms(ledger->acquire_ns));
    json_object_set_new(object, "resume-ms", gw_report_ms(ledger->resume_ns));
    return object;
}

/* QEMU's keys of query-migrate's "ram". What does not happen here (postcopy) is 0. */
static json_t *ram_json(const struct gw_stats *stats)
{
    uint64_t page_bytes = stats->page_bytes ? stats->page_bytes : 4096;
    json_t *object = json_object();

    json_object_set_new(object, "transferred", count(stats->transferred_bytes));
    json_object_set_new(object, "remaining", count(stats->remaining_bytes));
    json_object_set_new(object, "total", count(stats->total_bytes));
    json_object_set_new(object, "duplicate", count(stats->duplicate_pages));
    json_object_set_new(object, "normal", count(stats->normal_pages));
    json_object_set_new(object, "normal-bytes", count(stats->normal_pages * page_bytes));
    json_object_set_new(object, "dirty-pages-rate", count(stats->dirty_pages_rate));
    json_object_set_new(object, "mbps", real(stats->mbps));
    json_object_set_new(object, "dirty-sync-count", count(stats->dirty_sync_count));
    json_object_set_new(object, "postcopy-requests", count(0));
    json_object_set_new(object, "page-size", count(page_bytes));
    json_object_set_new(object, "pages-per-second", count(stats->pages_per_second));
    json_object_set_new(object, "precopy-bytes", count(stats->precopy_bytes));
    json_object_set_new(object, "downtime-bytes", count(stats->downtime_bytes));
    json_object_set_new(object, "postcopy-bytes", count(0));
    return object;
}

json_t *gw_report_round_json(const struct gw_round *round)
{
    json_t *object = json_object();

    json_object_set_new(object, "number", count(round->number));
    json_object_set_new(object, "duration-ms", gw_report_ms(round->duration_ns));
    json_object_set_new(object, "dirty-pages", count(round->dirty_pages));
    json_object_set_new(object, "normal", count(round->normal_pages));
    json_object_set_new(object, "duplicate", count(round->duplicate_pages));
    json_object_set_new(object, "bytes", count(round->bytes));
    json_object_set_new(object, "dirty-pages-rate", count(round->dirty_pages_rate));
    json_object_set_new(object, "paused", json_boolean(round->paused));
    json_object_set_new(object, "control-messages", count(round->control_messages));
    return object;
}

static json_t *rounds_json(const struct gw_report *report)
{
    json_t *array = json_array();

    for (unsigned i = 0; i < report->round_count; i++)
        json_array_append_new(array, gw_report_round_json(&report->rounds[i]));
    return array;
}

static json_t *wire_json(const struct gw_report *report)
{
    json_t *object = json_object();

    json_object_set_new(object, "uri", gw_report_text(report->uri ? report->uri : ""));
    json_object_set_new(object, "name", gw_report_text(report->stats.wire_name));
    json_object_set_new(object, "endpoints", count(report->stats.endpoints));
    json_object_set_new(object, "copied-bytes", count(report->stats.copied_bytes));
    json_object_set_new(object, "registered-bytes-peak",
                        count(report->stats.registered_bytes_peak));
    json_object_set_new(object, "system-calls", count(report->stats.wire_system_calls));
    json_object_set_new(object, "chunks-needed", count(report->stats.chunks_needed));
    json_object_set_new(object, "chunks-ready", count(report->stats.chunks_ready));
    json_object_set_new(object, "control-messages", count(report->stats.control_messages));
    return object;
}

static json_t *cpu_json(const struct gw_report *report)
{
    json_t *object = json_object();

    json_object_set_new(object, "user-ms", gw_report_ms(report->user_ns));
    json_object_set_new(object, "system-ms", gw_report_ms(report->system_ns));
    return object;
}

void gw_report_digest(const uint8_t digest[16], char text[33])
{
    for (size_t i = 0; i < 16; i++)
        snprintf(text + 2 * i, 3, "%02x", digest[i]);
}

static json_t *guest_json(const struct gw_report *report)
{
    enum gw_checked verified = report->guest.verified;
    json_t *object = json_object();
    char digest[33];

    gw_report_digest(report->stats.digest, digest);
    json_object_set_new(object, "ram-bytes", count(report->guest.ram_bytes));
    json_object_set_new(object, "vcpus", count(report->guest.vcpus));
    json_object_set_new(object, "writes", count(report->guest.writes));
    json_object_set_new(object, "verified",
                        verified == GW_CHECKED_NOT ? json_null()
                                                   : json_boolean(verified == GW_CHECKED_GOOD));
    json_object_set_new(object, "digest",
                        report->stats.has_digest ? json_string(digest) : json_null());
    return object;
}

json_t *gw_report_json(const struct gw_report *report)
{
    const struct gw_stats *stats = &report->stats;
    json_t *object = json_object();

    json_object_set_new(object, "schema", json_string(SCHEMA));
    json_object_set_new(object, "role", json_string(report->role));
    json_object_set_new(object, "status", json_string(gw_status_name(stats->status)));
    json_object_set_new(object, "error", gw_report_error_json(&report->error));
    json_object_set_new(object, "total-time-ms", gw_report_ms(stats->total_ns));
    json_object_set_new(object, "setup-time-ms", gw_report_ms(stats->setup_ns));
    json_object_set_new(object, "downtime-ms", gw_report_ms(stats->downtime_ns));
    json_object_set_new(object, "downtime", ledger_json(&stats->downtime));
    json_object_set_new(object, "ram", ram_json(stats));
    json_object_set_new(object, "rounds", rounds_json(report));
    json_object_set_new(object, "wire", wire_json(report));
    json_object_set_new(object, "cpu", cpu_json(report));
    json_object_set_new(object, "guest", guest_json(report));
    return object;
}

int gw_report_open(const char *path, FILE **file, struct gw_error *err)
{
    *file = NULL;
    if (!path)
        return 0;
    *file = strcmp(path, "-") == 0 ? stdout : fopen(path, "we");
    if (!*file) {
        int rc = -errno;
        gw_error_set(err, rc, GW_CODE_IO, "JSON file '%s': %s", path, strerror(-rc));
        gw_error_hint(err, "name a file that can be written, or `-` for stdout");
        return rc;
    }
    return 0;
}

void gw_report_settle(struct gw_report *report, bool cancelled)
{
    struct gw_stats *stats = &report->stats;
    const char *uri = report->uri ? report->uri : "";

    if (stats->status == GW_STATUS_NONE)
        stats->status = cancelled ? GW_STATUS_CANCELLED : GW_STATUS_FAILED;
    if (stats->wire_name[0] == '\0')
        snprintf(stats->wire_name, sizeof(stats->wire_name), "%.*s", (int)strcspn(uri, ":"), uri);
}

int gw_report_write(const struct gw_report *report, FILE *file, struct gw_error *err)
{
    if (!file)
        return 0;
    json_t *document = gw_report_json(report);
    int rc = json_dumpf(document, file, JSON_INDENT(2) | JSON_REAL_PRECISION(12));
    json_decref(document);
    if (rc < 0 || fputc('\n', file) == EOF || fflush(file) == EOF)
        return gw_error_set(err, -EIO, GW_CODE_IO, "the JSON document could not be written: %s",
                            strerror(errno));
    return 0;
}

void gw_report_close(FILE *file)
{
    if (file && file != stdout)
        fclose(file);
}
