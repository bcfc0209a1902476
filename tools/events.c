// SPDX-License-Identifier: MIT
/* Each event is a line of its own, flushed at once, so that a program that follows the file sees the
 * migration as it goes. `time-ms` counts from the moment the file was opened. A write that fails (a
 * full disk, a reader that left) is no reason to fail a migration: it is said once, and the rest is
 * not written, so that no line stands behind a torn one. */
#include "tools/events.h"

#include "tools/report.h"
#include "tools/talk.h"
#include "tools/wait.h"

#include <errno.h>
#include <string.h>

int gw_events_open(struct gw_events *events, const char *path, struct gw_error *err)
{
    *events = (struct gw_events){.begin_ns = gw_wait_now_ns()};
    if (!path)
        return 0;
    events->file = strcmp(path, "-") == 0 ? stdout : fopen(path, "we");
    if (!events->file) {
        int rc = -errno;
        gw_error_set(err, rc, GW_CODE_IO, "events file '%s': %s", path, strerror(-rc));
        gw_error_hint(err, "name a file that can be written, or `-` for stdout");
        return rc;
    }
    return 0;
}

json_t *gw_events_json(const struct gw_event *event, uint64_t begin_ns)
{
    uint64_t since_ns = event->time_ns > begin_ns ? event->time_ns - begin_ns : 0;
    json_t *line = json_object();

    json_object_set_new(line, "time-ms", gw_report_ms(since_ns));
    json_object_set_new(line, "event", json_string(gw_event_name(event->type)));
    json_object_set_new(line, "status", json_string(gw_status_name(event->status)));
    json_object_set_new(line, "text", gw_report_text(event->text ? event->text : ""));
    json_object_set_new(line, "round",
                        event->round ? gw_report_round_json(event->round) : json_null());
    json_object_set_new(line, "error", gw_report_error_json(event->error));
    return line;
}

void gw_events_write(struct gw_events *events, const struct gw_event *event)
{
    if (!events->file)
        return;
    json_t *line = gw_events_json(event, events->begin_ns);
    int rc = json_dumpf(line, events->file, JSON_COMPACT | JSON_REAL_PRECISION(12));
    json_decref(line);
    if (rc == 0 && fputc('\n', events->file) != EOF && fflush(events->file) != EOF)
        return;
    gw_talk_error("events: %s; the rest is not written", strerror(errno));
    gw_events_close(events);
}

void gw_events_close(struct gw_events *events)
{
    if (events->file && events->file != stdout)
        fclose(events->file);
    events->file = NULL;
}
