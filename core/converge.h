/* SPDX-License-Identifier: MIT */
/* core/converge.h - another round, or the last one? A pure function of measured facts. */
#ifndef GW_CORE_CONVERGE_H
#define GW_CORE_CONVERGE_H

#include <stdbool.h>
#include <stdint.h>

enum gw_converge_verdict { GW_CONVERGE_ROUND, GW_CONVERGE_SWITCH, GW_CONVERGE_STALLED };

/* A stall is this many rounds in a row, none of which left less than 95 % of what the best
 * round before left. */
#define GW_STALL_ROUNDS 4

struct gw_converge { /* facts about the rounds so far; zero it to begin */
    unsigned rounds;
    unsigned no_progress; /* consecutive rounds that did not shrink what remains */
    uint64_t best_remaining_bytes;
    uint64_t bandwidth; /* bytes per second while the wire was busy, last meaningful round */
    uint64_t dirty_rate;
    uint64_t remaining_bytes;
};

struct gw_round_facts {
    uint64_t sent_bytes;      /* page bytes that left in the round */
    uint64_t busy_ns;         /* from its first put to its fences joined */
    uint64_t dirtied_bytes;   /* newly dirty at the sync after it */
    uint64_t dirtied_ns;      /* the time in which they were dirtied */
    uint64_t remaining_bytes; /* to be sent now */
};

struct gw_converge_limits {
    uint64_t downtime_limit_ns;
    uint64_t max_bandwidth;              /* 0: unlimited */
    uint64_t avail_switchover_bandwidth; /* 0: as measured */
};

enum gw_converge_verdict gw_converge_judge(struct gw_converge *converge,
                                           const struct gw_round_facts *round,
                                           const struct gw_converge_limits *limits);
/* What the last round would take, at the bandwidth it would have. GW_NEVER_NS if unknown. */
uint64_t gw_converge_downtime_ns(const struct gw_converge *converge,
                                 const struct gw_converge_limits *limits);

#endif
