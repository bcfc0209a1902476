/* SPDX-License-Identifier: MIT */
/* tools/events.h - `--events FILE`: one JSON object a line, written as each event happens. */
#ifndef GW_TOOLS_EVENTS_H
#define GW_TOOLS_EVENTS_H

#include <godwit/stats.h>
#include <jansson.h>
#include <stdio.h>

struct gw_events {
    FILE *file; /* NULL: nobody asked */
    uint64_t begin_ns;
};

/* @path: "-" is stdout, NULL is nowhere. Return: 0, or a negative errno with @err set. */
int gw_events_open(struct gw_events *events, const char *path, struct gw_error *err);
void gw_events_write(struct gw_events *events, const struct gw_event *event);
void gw_events_close(struct gw_events *events);

/* {"time-ms":..., "event":"round", "status":"active", "text":"", "round":{...}|null, "error":...|null} */
json_t *gw_events_json(const struct gw_event *event, uint64_t begin_ns);

#endif
