/* SPDX-License-Identifier: MIT */
/* tests/sim/machine.h - a small guest, on one host or the other: its memory, its one disk lock, its
 * device, and the callbacks by which the library handles it. Whatever happens to it is checked here,
 * when it happens. */
#ifndef GW_TESTS_SIM_MACHINE_H
#define GW_TESTS_SIM_MACHINE_H

#include "ram/block.h"
#include "tests/sim/world.h"

#include <godwit/source.h>
#include <godwit/target.h>

#define BLOCKS_MAX 3
#define PAGES_MAX 24 /* of a block, that its guest ever touches */
#define PAGE 4096u
#define UNITS_MAX 3u /* of 2 MiB, on a one-sided wire, where these pages lie far apart */
#define UNIT_PAGES 512u
#define SPAN_MAX (UNITS_MAX * UNIT_PAGES + PAGES_MAX)
#define SPAN_BYTES ((size_t)SPAN_MAX * PAGE)

#define SYNCS_MAX 64
#define GUESTS_MAX 2 /* the source's, and the next that its host has after a crash */

struct machine_sync { /* a sync callback that runs */
    unsigned block;
    uint64_t first, end;
};

struct machine {
    unsigned generation; /* another at each boot; its blocks' names have it */
    bool keyed;          /* the wire is one-sided */
    unsigned block_count;
    unsigned pages[BLOCKS_MAX];
    unsigned at[BLOCKS_MAX][PAGES_MAX]; /* where in the block each of them lies */
    unsigned span[BLOCKS_MAX];          /* pages of the block */
    uint64_t budget[2];                 /* what each side may have registered; 0: no limit */
    bool littered;                      /* the target's memory was full of something else */
    uint8_t *source[BLOCKS_MAX], *target[BLOCKS_MAX];
    uint8_t *shadow[BLOCKS_MAX]; /* what the source's guest has written: the truth */
    uint64_t dirty[BLOCKS_MAX][(SPAN_MAX + 63) / 64]; /* what its dirty log would say next */
    bool tracking[BLOCKS_MAX];
    uint64_t flushed[BLOCKS_MAX][(SPAN_MAX + 63) / 64]; /* whose puts failed, in this migration */
    struct machine_sync syncs[SYNCS_MAX];
    unsigned sync_count;
    uint64_t state, saved_state; /* of its device */
    uint32_t state_bytes;        /* and how much padding comes with it */
    bool has_trail, has_map;     /* more devices: one that goes before the pause, an early one */
    uint64_t trail_sent, trail_loaded;
    unsigned trail_of;    /* which boot's has been loaded: what a dead source said may still come */
    bool trail_beside[2]; /* by side: it opts in to workers */
    unsigned trail_acks;  /* that its source wants, and its target gives */
    bool trail_acked;
    unsigned write_chance; /* of ten thousand, at each step */
    struct gw_source *src; /* whom discards are told, NULL: nobody */

    bool source_runs, source_paused; /* paused: by pause(), and memory stands still since */
    bool target_owns;                /* run() was called there, and the host lives */
    bool ever_owned;                 /* since the last migration was begun */
    bool run_failed;
    bool source_died;             /* since it was booted there */
    bool lost_with_host;          /* the host that had it died, the target */
    bool has_disk;                /* that only one host may hold */
    int lock;                     /* enum side: who holds it; NOBODY */
    unsigned commits;             /* acquire() calls */
    bool holding, unknown, stuck; /* events */
    uint32_t round;               /* the last one that was told */
    uint64_t begun_ns;            /* the migration */
    bool digest;
};

extern struct machine machines[GUESTS_MAX];
extern unsigned machine_count;
extern struct machine *machine_at[2]; /* whose guest each side's process has, or last had */
extern const struct gw_source_ops machine_source_ops;
extern const struct gw_target_ops machine_target_ops;
extern const struct gw_dirty_ops machine_dirty_ops;
extern const struct gw_device_desc machine_device, machine_trail, machine_trail_beside, machine_map;
extern const struct gw_loop_pins machine_pins;

void machine_make(void);    /* as this run's choices want it; once per run */
void machine_next(void);    /* the source's host came back, and has another guest */
void machine_reboot(void);  /* the source's host came back, and starts its guest again */
void machine_listens(void); /* the target waits for a guest */
void machine_begin(void);   /* a migration is about to start: a target without memory */
void machine_write(void);   /* at each step: the guest that runs does something */
int machine_add_blocks(struct gw_source *src, struct gw_error *err);
void machine_check_source(const char *when); /* its memory is what its guest wrote */
/* A put from there failed: its pages have to be dirty when all is over, rule 7. */
void machine_flushed(const void *local, size_t bytes);
void machine_check_flushed(const struct gw_block *const *blocks);
void machine_dies(enum side side);

#endif
