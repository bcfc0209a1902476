/* SPDX-License-Identifier: MIT */
/* godwit/stats.h - where a migration stands and what it cost. Counters under QEMU's names. */
#ifndef GODWIT_STATS_H
#define GODWIT_STATS_H

#include <godwit/error.h>
#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* QEMU's migration states, as far as they occur here. */
enum gw_status {
    GW_STATUS_NONE,
    GW_STATUS_SETUP,
    GW_STATUS_ACTIVE,
    GW_STATUS_PRE_SWITCHOVER,
    GW_STATUS_DEVICE,
    GW_STATUS_COMPLETED,
    GW_STATUS_FAILING, /* winding down after a failure: becomes failed */
    GW_STATUS_FAILED,
    GW_STATUS_CANCELLING,
    GW_STATUS_CANCELLED,
};

GW_API const char *gw_status_name(enum gw_status status); /* "pre-switchover"; static storage */

/* The downtime, taken apart. Each row from the clock of the side that did it; 0: did not happen, or
 * ran beside rows that have its time. At a source whose migration completed the rows add up to
 * downtime_ns plus digest_ns exactly: what runs at once is in one row only, as said at each. A target
 * knows its own rows only, and all of their time. */
struct gw_ledger {
    uint64_t pause_ns;  /* source: the pause callback */
    uint64_t sync_ns;   /* source: last dirty sync, devices being saved beside it */
    uint64_t puts_ns;   /* source: last pages handed to the wire, likewise */
    uint64_t fences_ns; /* source: from then, or from the last device saved, until it heard of the
                              * fences joined; what revoke, load and digest do not have */
    uint64_t device_save_ns; /* source: saving that lasted beyond the last page */
    uint64_t wire_ns;        /* what no other row has: messages, and waiting for them */
    uint64_t revoke_ns;      /* target */
    uint64_t digest_ns;      /* both, the longer one, as far as revoke and load do not have it; left
                              * out of downtime */
    uint64_t device_load_ns; /* target */
    uint64_t release_ns;     /* source: the release callback */
    uint64_t acquire_ns;     /* target */
    uint64_t resume_ns;      /* target: the run callback */
};

/* At a source, of the migration that runs or ran last. A target fills status, total_ns (from hello),
 * transferred_bytes (received), total_bytes, duplicate_pages, normal_pages, page_bytes, wire_name,
 * endpoints, copied_bytes, wire_system_calls, its rows of the ledger and the digest. */
struct gw_stats {
    size_t struct_bytes; /* set by the caller; on return, how much was filled in */
    enum gw_status status;
    uint64_t total_ns;    /* before the first connect to RUNNING received (or to the end) */
    uint64_t setup_ns;    /* before the first connect to the first round */
    uint64_t downtime_ns; /* pause called to RUNNING received, digest left out */
    uint64_t expected_downtime_ns;

    uint64_t transferred_bytes; /* everything handed to the wire, headers included */
    uint64_t remaining_bytes;   /* dirty pages, and what devices have left */
    uint64_t total_bytes;       /* all blocks */
    uint64_t duplicate_pages;   /* found zero, holes included */
    uint64_t normal_pages;      /* sent with their content */
    uint64_t dirty_pages_rate;  /* pages per second newly dirtied, at the last sync */
    double mbps;                /* megabit per second while the wire was busy */
    uint64_t dirty_sync_count;
    uint64_t page_bytes;
    uint64_t pages_per_second;
    uint64_t precopy_bytes, downtime_bytes;

    char wire_name[32];
    uint32_t endpoints; /* page endpoints */
    uint64_t copied_bytes, registered_bytes_peak, wire_system_calls;

    struct gw_ledger downtime;
    bool has_digest;
    uint8_t digest[16]; /* XXH3-128, canonical (big-endian) byte order */

    /* One-sided wires: how often a chunk of memory was made ready to be sent (once each, unless the
     * budget made some come and go), and how often before a page endpoint that it is for had nothing
     * else left to send. */
    uint64_t chunks_needed, chunks_ready;
    uint64_t control_messages; /* said on the control endpoint, heartbeats included */
};

struct gw_round {
    size_t struct_bytes;
    uint32_t number; /* 1: first pass */
    uint64_t duration_ns;
    uint64_t dirty_pages; /* set when it began */
    uint64_t normal_pages, duplicate_pages, bytes;
    uint64_t dirty_pages_rate; /* newly dirtied per second meanwhile */
    bool paused;               /* the last one, inside the downtime */
    uint64_t control_messages; /* said by the source on the control endpoint meanwhile */
};

/** What event() is told, in the order in which it happened. HOLDING, UNKNOWN, RETAKE and ENDED always come;
 *  another is left out where there is no memory for it: gw_source_stats(), gw_target_stats() know all the same. */
enum gw_event_type {
    GW_EVENT_STATUS,    /* status changed */
    GW_EVENT_ROUND,     /* a round ended */
    GW_EVENT_STALL,     /* it never converges at these rates, or a device holds it up; text: why */
    GW_EVENT_CONNECTED, /* hello complete; text names the peer */
    GW_EVENT_HOLDING,   /* target: the source is gone before COMMIT; held until the hold time-out */
    GW_EVENT_UNKNOWN,   /* source: the outcome is not known; it goes on asking */
    GW_EVENT_RETAKE,    /* source: what was released could not be taken back; guest stays paused */
    GW_EVENT_ENDED,     /* final; wait() will return */
    GW_EVENT_WIRE,      /* source: x-wire: which wire pages take, and why no better one */
};

struct gw_event {
    size_t struct_bytes;
    enum gw_event_type type;
    enum gw_status status;
    uint64_t time_ns;             /* monotonic clock */
    const char *text;             /* one line, or "" */
    const struct gw_round *round; /* ROUND only */
    const struct gw_error *error; /* where something failed, else NULL */
};

GW_API const char *gw_event_name(enum gw_event_type type); /* "status"; static storage */

#ifdef __cplusplus
}
#endif
#endif
