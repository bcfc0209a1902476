/* SPDX-License-Identifier: MIT */
/* ram/dirty_impl.h - what the ready-made dirty sources (godwit/dirty.h) share: dirty_kernel.c chooses
 * a mechanism and keeps the blocks, a mechanism tracks them, dirty_arm.c talks to userfaultfd. */
#ifndef GW_RAM_DIRTY_IMPL_H
#define GW_RAM_DIRTY_IMPL_H

#include <godwit/dirty.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define GW_DIRTY_GROUP_PAGES 512u /* sync's ranges begin and end at these (or at the block's end) */
#define GW_DIRTY_LOCKS 64u

struct gw_dirty_block {
    char name[GW_NAME_BYTES_MAX + 1];
    unsigned id;
    enum gw_block_kind kind;
    uint64_t host; /* address */
    uint64_t bytes;
    uint64_t page_bytes;
    uint64_t *seen; /* written and not reported yet, a bit per 4096; uffd-wp, large huge pages */
    atomic_bool broken; /* uffd-wp: the reader had to give this block up */
};

/* One kernel mechanism. All functions fill err. open sets what it needs in the source and undoes it
 * on failure; sync is called from several threads, for disjoint ranges that were checked. */
struct gw_dirty_mechanism {
    enum gw_dirty_method method;
    uint32_t flags;  /* GW_DIRTY_SEES_... */
    bool rearms;     /* a page reported once is not reported again until written again */
    const char *tax; /* what choosing it costs, for the log; or NULL */
    bool (*keeps_seen)(const struct gw_dirty_block *block); /* wants block->seen; NULL: never */
    int (*open)(struct gw_dirty *dirty, struct gw_error *err);
    void (*close)(struct gw_dirty *dirty);
    int (*start)(struct gw_dirty *dirty, struct gw_dirty_block *block, struct gw_error *err);
    int (*sync)(struct gw_dirty *dirty, struct gw_dirty_block *block, uint64_t first_page,
                uint64_t pages, uint64_t *bitmap, struct gw_error *err);
    void (*stop)(struct gw_dirty *dirty, struct gw_dirty_block *block);
    /* NULL: no write waits. @block: NULL while it is not tracked. */
    int (*before_pin)(struct gw_dirty *dirty, struct gw_dirty_block *block,
                      const struct gw_block_desc *desc, uint64_t first_page, uint64_t pages,
                      struct gw_error *err);
};

extern const struct gw_dirty_mechanism gw_dirty_pagemap_scan;
extern const struct gw_dirty_mechanism gw_dirty_uffd_wp;
extern const struct gw_dirty_mechanism gw_dirty_soft_dirty;

struct gw_dirty {
    const struct gw_dirty_mechanism *mechanism;
    struct gw_dirty_ops ops;
    struct gw_log log;

    /* Never held while memory of a block is touched: the fault reader takes it too. */
    pthread_rwlock_t blocks_lock;
    struct gw_dirty_block **by_id; /* guarded, as are the next four; NULL: not tracked */
    unsigned id_count;
    struct gw_dirty_block **by_address; /* the same blocks, by host */
    unsigned block_count;
    unsigned block_room;

    int uffd;          /* pagemap-scan, uffd-wp */
    int pagemap;       /* pagemap-scan, soft-dirty */
    uint64_t features; /* of uffd */
    _Atomic uint64_t
        small; /* soft-dirty: pages since the last start that will be pinned, and are not huge */

    /* uffd-wp: a group's `seen` bits and its protection change together, under its lock. Also
     * serialises scans of huge pages larger than a group. */
    pthread_mutex_t group_locks[GW_DIRTY_LOCKS];
    pthread_t reader;
    int reader_wake; /* eventfd: the reader ends */
};

/* ---- blocks ---------------------------------------------------------------------------------- */

/* The block that holds @address, or NULL; blocks_lock is held. */
struct gw_dirty_block *gw_dirty_find_locked(const struct gw_dirty *dirty, uint64_t address);
/* Report @rc on @block: code dirty, place, "what: why". */
int gw_dirty_fail(const struct gw_dirty *dirty, const struct gw_dirty_block *block, int rc,
                  const char *what, struct gw_error *err);
/* Move the bits of pages [first, first + pages) from block->seen to @bitmap (bit 0 is @first). */
void gw_dirty_seen_take(struct gw_dirty_block *block, uint64_t first, uint64_t pages,
                        uint64_t *bitmap);

/* ---- userfaultfd write protection, dirty_arm.c ------------------------------------------------ */

/* From Linux's interface; Debian 12's headers lack them. */
#define GW_UFFD_WP_HUGETLBFS_SHMEM (UINT64_C(1) << 12)
#define GW_UFFD_WP_UNPOPULATED (UINT64_C(1) << 13)
#define GW_UFFD_WP_ASYNC (UINT64_C(1) << 15)
#define GW_UFFD_PAGEFAULT_FLAG_WP (UINT64_C(1) << 0)

/* For tests: features to take for absent, as on an older kernel. Before any source is opened. */
extern uint64_t gw_dirty_features_hidden;

/* Open dirty->uffd with the features @needed, and those of @wanted that exist; sets
 * dirty->features. @kernel_faults: system calls that write tracked memory fault into it too, which
 * needs a privilege. */
int gw_dirty_arm_open(struct gw_dirty *dirty, uint64_t needed, uint64_t wanted, bool kernel_faults,
                      struct gw_error *err);
/* Register the block and protect all of it. */
int gw_dirty_arm_block(struct gw_dirty *dirty, struct gw_dirty_block *block, struct gw_error *err);
/* Unregister: every page is writable again, every waiting writer goes on. */
void gw_dirty_disarm_block(struct gw_dirty *dirty, const struct gw_dirty_block *block);
/* Write-protect, or release and wake. Returns 0 or -errno. */
int gw_dirty_protect(int uffd, uint64_t start, uint64_t bytes, bool protect);

#endif
