/* SPDX-License-Identifier: MIT */
/* godwit/dirty.h - who says which pages were written.
 *
 * A dirty source reports writes of one kind of writer; what is sent is the union of all sources
 * of a migration. The one rule: a page is re-armed before its content is read. Three ready-made
 * sources use the kernel's page tracking (gw_dirty_open); a hypervisor brings its own
 * (KVM dirty log, its devices' writes) as a struct gw_dirty_ops. */
#ifndef GODWIT_DIRTY_H
#define GODWIT_DIRTY_H

#include <godwit/block.h>
#include <godwit/log.h>

#ifdef __cplusplus
extern "C" {
#endif

#define GW_DIRTY_PAGE_BYTES 4096u /* every bitmap counts pages of this size, whatever the block's */

#define GW_DIRTY_SEES_VCPU 1u     /* stores through the block's mapping (built-in or KVM guest) */
#define GW_DIRTY_SEES_SYSCALLS 2u /* read(2) and the like into the block's mapping */
#define GW_DIRTY_SEES_ALIASES 4u  /* stores through other mappings of the same memory */
#define GW_DIRTY_SEES_DMA 8u
#define GW_DIRTY_CAN_LOSE 16u /* may lose writes under load, and says so by -EOVERFLOW */
/* A sync reports all that was written since start() again: nothing re-arms. A device that pins memory marks
 * all of it written, so on a wire that pins start() is called when everything is pinned, as far as the budgets
 * go, and the first page leaves after that. */
#define GW_DIRTY_CLEARS_ONCE 32u

/* All calls get the @ctx given with the table. Blocks are named by the id that
 * gw_source_add_block() returned. Calls run on library threads ([worker]) and may take long;
 * @err may be NULL (gw_error_set() takes that). name and sync must be
 * there; a source that is always on needs neither start nor stop. */
struct gw_dirty_ops {
    size_t struct_bytes; /* sizeof(struct gw_dirty_ops) */
    const char *name;    /* for logs: "pagemap-scan", "kvm-log" */
    uint32_t flags;      /* GW_DIRTY_* */

    /* Begin to track @block. When it returns, every later write will be reported by some sync.
     * Called at each start of a migration, for each block, before anything is read. Failure fails
     * the migration, before anything was sent. [worker] */
    int (*start)(void *ctx, unsigned block_id, const struct gw_block_desc *block,
                 struct gw_error *err);

    /* Or into @bitmap what was written in pages [first_page, first_page + pages) since the last
     * sync (or start), and re-arm those pages. Bit 0 of bitmap[0] is @first_page, which is a
     * multiple of 512 within the block; so is @pages unless the block ends there. Called for
     * disjoint ranges from several threads at once. Reporting too much is allowed. On failure the
     * caller takes the whole range as dirty and tries once more; a second failure fails the
     * migration. [worker] */
    int (*sync)(void *ctx, unsigned block_id, uint64_t first_page, uint64_t pages, uint64_t *bitmap,
                struct gw_error *err);

    /* The guest is paused and nothing writes any more: make the next sync complete (flush rings,
     * pull device logs). [worker] */
    int (*final)(void *ctx, struct gw_error *err);

    /* Stop tracking @block; called once for each start that succeeded, also after failures.
     * [worker] */
    void (*stop)(void *ctx, unsigned block_id);

    /* A device is about to pin pages [first_page, first_page + pages) of @block, a range as sync() gets
     * them: it asks for each as if to write, and some kernels cannot wait for an answer from user
     * space then. Let them all be written without waiting, and report all of them by the next sync. A
     * sync may come in between and arm them again. A source that clears once is told before its start,
     * so that it can make the memory such as it can clear; others when they are started, if they are.
     * NULL: no write ever waits. [worker] */
    int (*before_pin)(void *ctx, unsigned block_id, const struct gw_block_desc *block,
                      uint64_t first_page, uint64_t pages, struct gw_error *err);
};

enum gw_dirty_method {
    GW_DIRTY_AUTO,         /* the best of the following that works here, in this order */
    GW_DIRTY_PAGEMAP_SCAN, /* userfaultfd async write-protect + PAGEMAP_SCAN (Linux >= 6.7) */
    GW_DIRTY_UFFD_WP,      /* userfaultfd write-protect, a fault per first write */
    GW_DIRTY_SOFT_DIRTY, /* clear_refs: process-wide; only one tracker per process. Clears once, before
                            * anything is read, and never re-arms: safe, as it reports too much
                            * and never too little, but all that was written since the start is
                            * sent each round, and a busy guest may not converge */
};

struct gw_dirty; /* one ready-made source; serves any number of blocks of this process */

/**
 * gw_dirty_open() - a source that tracks this process's memory by a kernel mechanism.
 * @method: GW_DIRTY_AUTO probes by behaviour (arm a page, store, look; never by version) and takes
 *          the best, soft-dirty if nothing else works and no other gw_dirty uses it.
 * @log:    told which was chosen and why better ones were not, as a warning if it costs the guest;
 *          copied; may be NULL.
 *
 * Takes some descriptors and, for GW_DIRTY_UFFD_WP, a thread; the guest pays from start on.
 *
 * Return: 0 and @dirty, or
 *   -EOPNOTSUPP  it does not work here; of AUTO, none does (err: each one's why, one fix)
 *   -EPERM       no permission for the method asked for
 *   -ENOSYS      no userfaultfd in this kernel or container, and the method asked for needs it
 *   -EBUSY       soft-dirty was asked for, and another migration of this process uses it
 *   -EINVAL      no such method
 *   -EMFILE, -ENOMEM, -EAGAIN (no thread), or another errno of a file in /proc
 */
GW_API int gw_dirty_open(enum gw_dirty_method method, const struct gw_log *log,
                         struct gw_dirty **dirty, struct gw_error *err);

/** gw_dirty_kernel_ops() - the table to pass with @dirty as its ctx. Valid as long as @dirty. */
GW_API const struct gw_dirty_ops *gw_dirty_kernel_ops(const struct gw_dirty *dirty);

/** gw_dirty_method_name() - "pagemap-scan", "uffd-wp", "soft-dirty", "auto". Static storage. */
GW_API const char *gw_dirty_method_name(enum gw_dirty_method method);

/** gw_dirty_probe() - does @method work here? It is opened, tried and closed.
 *  Return 0 (also for a soft-dirty that is in use), or as gw_dirty_open(). */
GW_API int gw_dirty_probe(enum gw_dirty_method method, struct gw_error *err);

/** gw_dirty_close() - after the source that used it was freed. Takes NULL. Memory that is still
 *  tracked is released first: its writers go on. */
GW_API void gw_dirty_close(struct gw_dirty *dirty);

#ifdef __cplusplus
}
#endif
#endif
