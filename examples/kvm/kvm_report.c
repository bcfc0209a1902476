// SPDX-License-Identifier: MIT
/* The document "godwit.run/1", with godwit's keys, printed: an embedder needs no library for it. */
#include "examples/kvm/kvm_command.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

static uint64_t ns_of(const struct timeval *time)
{
    return (uint64_t)time->tv_sec * 1000000000u + (uint64_t)time->tv_usec * 1000;
}

static uint64_t less(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

/* The kernel divides a process's time otherwise than its threads', so user time alone might come out
 * negative: the sum is what is relied on. */
void vmm_usage_take(struct vmm_usage *usage, const struct vmm_machine *machine)
{
    struct rusage all = {0};
    uint64_t vcpu_user_ns = 0, vcpu_system_ns = 0;
    getrusage(RUSAGE_SELF, &all);
    for (unsigned i = 0; i < machine->vcpu_count; i++) {
        vcpu_user_ns += atomic_load(&machine->vcpus[i].user_ns);
        vcpu_system_ns += atomic_load(&machine->vcpus[i].system_ns);
    }
    uint64_t total_ns =
        less(ns_of(&all.ru_utime) + ns_of(&all.ru_stime), vcpu_user_ns + vcpu_system_ns);
    usage->user_ns = less(ns_of(&all.ru_utime), vcpu_user_ns);
    if (usage->user_ns > total_ns)
        usage->user_ns = total_ns;
    usage->system_ns = total_ns - usage->user_ns;
}

static void text(FILE *file, const char *key, const char *value)
{
    fprintf(file, "\"%s\":\"", key);
    for (; *value; value++) {
        unsigned char c = (unsigned char)*value;
        if (c == '"' || c == '\\')
            fprintf(file, "\\%c", c);
        else if (c < 0x20 || c >= 0x7f)
            fputc('?', file);
        else
            fputc(c, file);
    }
    fputc('"', file);
}

static void ms(FILE *file, const char *key, uint64_t ns, const char *after)
{
    fprintf(file, "\"%s\":%.6f%s", key, (double)ns / 1e6, after);
}

static void count(FILE *file, const char *key, uint64_t value, const char *after)
{
    fprintf(file, "\"%s\":%" PRIu64 "%s", key, value, after);
}

static void write_error(FILE *file, const struct gw_error *err, const char *after)
{
    if (!err || (err->rc == 0 && err->code == GW_CODE_NONE)) {
        fprintf(file, "\"error\":null%s", after);
        return;
    }
    const struct {
        const char *key, *value;
    } texts[] = {{"code", gw_code_name(err->code)}, {"phase", err->phase}, {"place", err->place},
                 {"message", err->message},         {"hint", err->hint},   {"peer", err->peer}};
    fputs("\"error\":{", file);
    for (unsigned i = 0; i < 6; i++) {
        text(file, texts[i].key, texts[i].value);
        fprintf(file, "%s%s", i < 5 ? ", " : "}", i < 5 ? "" : after);
    }
}

static void write_ledger(FILE *file, const struct gw_ledger *ledger)
{
    fputs("  \"downtime\":{", file);
    ms(file, "pause-ms", ledger->pause_ns, ", ");
    ms(file, "sync-ms", ledger->sync_ns, ", ");
    ms(file, "puts-ms", ledger->puts_ns, ", ");
    ms(file, "fences-ms", ledger->fences_ns, ", ");
    ms(file, "device-save-ms", ledger->device_save_ns, ", ");
    ms(file, "wire-ms", ledger->wire_ns, ", ");
    ms(file, "revoke-ms", ledger->revoke_ns, ", ");
    ms(file, "digest-ms", ledger->digest_ns, ", ");
    ms(file, "device-load-ms", ledger->device_load_ns, ", ");
    ms(file, "release-ms", ledger->release_ns, ", ");
    ms(file, "acquire-ms", ledger->acquire_ns, ", ");
    ms(file, "resume-ms", ledger->resume_ns, "},\n");
}

static void write_ram(FILE *file, const struct gw_stats *stats)
{
    fputs("  \"ram\":{", file);
    count(file, "transferred", stats->transferred_bytes, ", ");
    count(file, "remaining", stats->remaining_bytes, ", ");
    count(file, "total", stats->total_bytes, ", ");
    count(file, "duplicate", stats->duplicate_pages, ", ");
    count(file, "normal", stats->normal_pages, ", ");
    count(file, "normal-bytes", stats->normal_pages * VMM_PAGE_BYTES, ", ");
    count(file, "dirty-pages-rate", stats->dirty_pages_rate, ", ");
    fprintf(file, "\"mbps\":%.3f, ", stats->mbps);
    count(file, "dirty-sync-count", stats->dirty_sync_count, ", ");
    count(file, "postcopy-requests", 0, ", ");
    count(file, "page-size", VMM_PAGE_BYTES, ", ");
    count(file, "pages-per-second", stats->pages_per_second, ", ");
    count(file, "precopy-bytes", stats->precopy_bytes, ", ");
    count(file, "downtime-bytes", stats->downtime_bytes, ", ");
    count(file, "postcopy-bytes", 0, "},\n");
}

static void write_round(FILE *file, const struct gw_round *round)
{
    fputs("{", file);
    count(file, "number", round->number, ", ");
    ms(file, "duration-ms", round->duration_ns, ", ");
    count(file, "dirty-pages", round->dirty_pages, ", ");
    count(file, "normal", round->normal_pages, ", ");
    count(file, "duplicate", round->duplicate_pages, ", ");
    count(file, "bytes", round->bytes, ", ");
    count(file, "dirty-pages-rate", round->dirty_pages_rate, ", ");
    fprintf(file, "\"paused\":%s, ", round->paused ? "true" : "false");
    count(file, "control-messages", round->control_messages, "}");
}

static void write_rounds(FILE *file, const struct vmm_report *report)
{
    fputs("  \"rounds\":[", file);
    for (unsigned i = 0; i < report->round_count; i++) {
        fputs(i ? ",\n    " : "\n    ", file);
        write_round(file, &report->rounds[i]);
    }
    fputs("],\n", file);
}

static void write_wire(FILE *file, const struct vmm_report *report)
{
    const struct gw_stats *stats = &report->stats;
    fputs("  \"wire\":{", file);
    text(file, "uri", report->uri ? report->uri : "");
    fputs(", ", file);
    text(file, "name", stats->wire_name);
    fputs(", ", file);
    count(file, "endpoints", stats->endpoints, ", ");
    count(file, "copied-bytes", stats->copied_bytes, ", ");
    count(file, "registered-bytes-peak", stats->registered_bytes_peak, ", ");
    count(file, "system-calls", stats->wire_system_calls, ", ");
    count(file, "chunks-needed", stats->chunks_needed, ", ");
    count(file, "chunks-ready", stats->chunks_ready, ", ");
    count(file, "control-messages", stats->control_messages, "},\n");
}

/* Beyond godwit's keys: what the guest said, and how far its clock is from real time. */
static void write_guest(FILE *file, const struct vmm_report *report,
                        const struct vmm_machine *machine)
{
    const struct vmm_board *board = &machine->board;
    int64_t late_ns = (int64_t)(board->paused_real_ns - board->started_real_ns - board->clock_ns);
    fputs("  \"guest\":{", file);
    count(file, "ram-bytes", machine->ram_bytes, ", ");
    count(file, "vcpus", machine->vcpu_count, ", ");
    count(file, "writes", board->checked, ", ");
    fprintf(file, "\"verified\":%s, ",
            !report->checked   ? "null"
            : report->verified ? "true"
                               : "false");
    if (report->stats.has_digest) {
        fputs("\"digest\":\"", file);
        for (unsigned i = 0; i < 16; i++)
            fprintf(file, "%02x", report->stats.digest[i]);
        fputs("\", ", file);
    } else {
        fputs("\"digest\":null, ", file);
    }
    count(file, "serial-bytes", board->serial_bytes, ", ");
    count(file, "broken", board->broken, ", ");
    fprintf(file, "\"clock-late-ms\":%.6f}\n", (double)late_ns / 1e6);
}

static void write_document(FILE *file, const struct vmm_report *report,
                           const struct vmm_machine *machine)
{
    fputs("{\n  \"schema\":\"godwit.run/1\",\n  ", file);
    text(file, "role", report->role);
    fputs(",\n  ", file);
    text(file, "status", gw_status_name(report->stats.status));
    fputs(",\n  ", file);
    write_error(file, &report->error, ",\n");
    fputs("  ", file);
    ms(file, "total-time-ms", report->stats.total_ns, ",\n  ");
    ms(file, "setup-time-ms", report->stats.setup_ns, ",\n  ");
    ms(file, "downtime-ms", report->stats.downtime_ns, ",\n");
    write_ledger(file, &report->stats.downtime);
    write_ram(file, &report->stats);
    write_rounds(file, report);
    write_wire(file, report);
    fputs("  \"cpu\":{", file);
    ms(file, "user-ms", less(report->ended.user_ns, report->begun.user_ns), ", ");
    ms(file, "system-ms", less(report->ended.system_ns, report->begun.system_ns), "},\n");
    write_guest(file, report, machine);
    fputs("}\n", file);
}

int vmm_report_write(const struct vmm_report *report, const struct vmm_machine *machine, FILE *file)
{
    if (!file)
        return 0;
    write_document(file, report, machine);
    return fflush(file) == 0 && !ferror(file) ? 0 : -EIO;
}

void vmm_event_write(FILE *file, const struct gw_event *event, uint64_t begun_ns)
{
    fputc('{', file);
    ms(file, "time-ms", less(event->time_ns, begun_ns), ", ");
    text(file, "event", gw_event_name(event->type));
    fputs(", ", file);
    text(file, "status", gw_status_name(event->status));
    fputs(", ", file);
    text(file, "text", event->text);
    fputs(", \"round\":", file);
    if (event->round)
        write_round(file, event->round);
    else
        fputs("null", file);
    fputs(", ", file);
    write_error(file, event->error, "}\n");
    fflush(file);
}
