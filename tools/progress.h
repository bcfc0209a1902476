/* SPDX-License-Identifier: MIT */
/* tools/progress.h - how far it is: a line that is drawn anew on a terminal, a line a second elsewhere. */
#ifndef GW_TOOLS_PROGRESS_H
#define GW_TOOLS_PROGRESS_H

#include <godwit/stats.h>
#include <stdbool.h>
#include <stdint.h>

struct gw_progress {
    bool receiving;       /* a target knows neither dirty rate nor rounds */
    uint64_t interval_ns; /* 0: the default for where stderr goes */
    uint64_t next_ns;     /* when the next line is due */
    uint64_t last_ns, last_bytes;
    uint32_t round; /* the one that runs; kept by the caller from ROUND events */
};

void gw_progress_init(struct gw_progress *progress, bool receiving, uint64_t now_ns);
/* Say where it stands if a line is due. */
void gw_progress_tick(struct gw_progress *progress, const struct gw_stats *stats, uint64_t now_ns);
/* Take the line away (terminal only). */
void gw_progress_end(void);

/* The text of one line, for @rate bytes per second. */
void gw_progress_text(const struct gw_progress *progress, const struct gw_stats *stats, double rate,
                      char *text, size_t bytes);

#endif
