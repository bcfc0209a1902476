/* SPDX-License-Identifier: MIT */
/* tools/reading.h - a file, or stdin, that the library reads to its end: opened, shown progress of, and what
 * went wrong said as an exit status. */
#ifndef GW_TOOLS_READING_H
#define GW_TOOLS_READING_H

#include <godwit/error.h>
#include <stdint.h>

struct gw_reading {
    const char *path; /* "-": stdin */
    int fd;           /* -1: not open */
};

/* Return: -1: go on; or the status to exit with. */
int gw_reading_open(struct gw_reading *reading);
/* @rc is what the library returned. As above. */
int gw_reading_judge(const struct gw_reading *reading, int rc, const struct gw_error *err);
void gw_reading_close(struct gw_reading *reading);
/* A gw_analyze_progress_fn, its context a struct gw_reading. */
int gw_reading_progress(void *ctx, uint64_t bytes_done, uint64_t bytes_total);

#endif
