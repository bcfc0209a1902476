/* SPDX-License-Identifier: MIT */
/* tools/report.h - the document `--json` writes at the end of a run: "godwit.run/1". Its keys, their
 * order and their types are a contract with scripts; new keys are added behind the old ones. */
#ifndef GW_TOOLS_REPORT_H
#define GW_TOOLS_REPORT_H

#include <godwit/stats.h>
#include <jansson.h>
#include <stdio.h>

enum gw_checked { GW_CHECKED_NOT, GW_CHECKED_GOOD, GW_CHECKED_BAD };

/* A value object: fill what is known, the rest stays zero. */
struct gw_report {
    const char *role; /* "source" or "target" */
    const char *uri;
    struct gw_stats stats;
    struct gw_error error;         /* code NONE: null */
    const struct gw_round *rounds; /* borrowed */
    unsigned round_count;
    uint64_t user_ns, system_ns; /* this process within total-time, vCPU threads left out */
    struct {
        uint64_t ram_bytes;
        unsigned vcpus;
        uint64_t writes;
        enum gw_checked verified;
    } guest;
};

json_t *gw_report_json(const struct gw_report *report);

/* Open before anything is started, so that a path that cannot be written is found out then.
 * @path: "-" is stdout, NULL is nowhere (*file is NULL). */
int gw_report_open(const char *path, FILE **file, struct gw_error *err);
/* What the library could not fill in, because it never came to it: status, wire name. */
void gw_report_settle(struct gw_report *report, bool cancelled);
/* Append the document. Return: 0, or a negative errno with @err set. @file may be NULL. */
int gw_report_write(const struct gw_report *report, FILE *file, struct gw_error *err);
void gw_report_close(FILE *file);

/* Parts that other documents are made of. */
json_t *gw_report_ms(uint64_t ns);                        /* milliseconds with a fraction */
json_t *gw_report_text(const char *text);                 /* bytes that are not UTF-8 become '?' */
json_t *gw_report_error_json(const struct gw_error *err); /* null if there is none */
json_t *gw_report_round_json(const struct gw_round *round);

/* The digest as 32 hex digits and a NUL. */
void gw_report_digest(const uint8_t digest[16], char text[33]);

#endif
