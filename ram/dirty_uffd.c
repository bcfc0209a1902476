// SPDX-License-Identifier: MIT
/* Dirty pages by userfaultfd write protection, a fault per first write. The writer sleeps until our
 * reader thread has noted the page in the block's `seen` bits and released it; a sync takes the bits
 * and protects those pages again, exactly those.
 *
 * The invariant, under the lock of a page's group: a page that is not in `seen` is protected. Without
 * the lock a sync between the reader's note and its release would take the page, protect it, and see
 * it released behind its back, with nobody left who knows.
 *
 * The reader never touches guest memory and never waits for a thread that might. If it cannot
 * release a page it gives up the block: unregistered, the writers go on, syncs fail. */
#include "core/base/bitmap.h"
#include "core/base/error.h"
#include "core/base/log.h"
#include "core/base/thread.h"
#include "ram/dirty_impl.h"

#include <linux/userfaultfd.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#define GW_UFFD_EVENTS 64 /* per read: more than a machine has vCPUs waiting, mostly */

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

/* Protection changes in whole pages of the memory; groups are at least one of those. */
static pthread_mutex_t *group_lock(struct gw_dirty *dirty, const struct gw_dirty_block *block,
                                   uint64_t page)
{
    uint64_t byte = page * GW_DIRTY_PAGE_BYTES;
    uint64_t group_bytes = GW_DIRTY_GROUP_PAGES * (uint64_t)GW_DIRTY_PAGE_BYTES;
    if (block->page_bytes > group_bytes)
        group_bytes = block->page_bytes;
    return &dirty->group_locks[(block->id + byte / group_bytes) % GW_DIRTY_LOCKS];
}

/* ---- the reader ------------------------------------------------------------------------------ */

static void give_up(struct gw_dirty *dirty, struct gw_dirty_block *block, int rc)
{
    atomic_store_explicit(&block->broken, true, memory_order_release); /* pairs with uffd_sync */
    gw_dirty_disarm_block(dirty, block);
    gw_log_warn(&dirty->log, "dirty", "block '%s': page not released (error %d), tracking ends",
                block->name, -rc);
}

static void release_page(struct gw_dirty *dirty, struct gw_dirty_block *block, uint64_t address)
{
    uint64_t offset = (address - block->host) & ~(block->page_bytes - 1);
    uint64_t page = offset / GW_DIRTY_PAGE_BYTES;
    pthread_mutex_t *lock = group_lock(dirty, block, page);

    pthread_mutex_lock(lock);
    gw_bitmap_set_range(block->seen, page, block->page_bytes / GW_DIRTY_PAGE_BYTES);
    int rc = gw_dirty_protect(dirty->uffd, block->host + offset, block->page_bytes, false);
    pthread_mutex_unlock(lock);
    if (rc < 0 && rc != -ENOENT) /* ENOENT: unregistered meanwhile; disarming wakes the writer */
        give_up(dirty, block, rc);
}

static void handle_events(struct gw_dirty *dirty)
{
    struct uffd_msg events[GW_UFFD_EVENTS];
    ssize_t bytes = read(dirty->uffd, events, sizeof(events));
    if (bytes <= 0)
        return; /* EAGAIN: the writer was killed, or woken by disarming */
    pthread_rwlock_rdlock(&dirty->blocks_lock);
    for (size_t i = 0; i < (size_t)bytes / sizeof(events[0]); i++) {
        if (events[i].event != UFFD_EVENT_PAGEFAULT)
            continue;
        uint64_t address = events[i].arg.pagefault.address;
        struct gw_dirty_block *block = gw_dirty_find_locked(dirty, address);
        if (block)
            release_page(dirty, block, address);
    }
    pthread_rwlock_unlock(&dirty->blocks_lock);
}

static void *reader_main(void *arg)
{
    struct gw_dirty *dirty = arg;
    struct pollfd fds[2] = {{.fd = dirty->uffd, .events = POLLIN},
                            {.fd = dirty->reader_wake, .events = POLLIN}};
    for (;;) {
        if (poll(fds, 2, -1) < 0)
            continue; /* EINTR */
        if (fds[1].revents)
            return NULL;
        if (fds[0].revents)
            handle_events(dirty);
    }
}

/* ---- the source ------------------------------------------------------------------------------ */

static int protect_pages(struct gw_dirty *dirty, const struct gw_dirty_block *block, uint64_t first,
                         uint64_t end)
{
    uint64_t start = first * GW_DIRTY_PAGE_BYTES & ~(block->page_bytes - 1);
    uint64_t stop = end * GW_DIRTY_PAGE_BYTES;
    stop = (stop + block->page_bytes - 1) & ~(block->page_bytes - 1);
    return gw_dirty_protect(dirty->uffd, block->host + start, stop - start, true);
}

/* One group: protect what was seen, run by run, then report it. On failure the bits stay. */
static int sync_group(struct gw_dirty *dirty, struct gw_dirty_block *block, uint64_t first,
                      uint64_t pages, uint64_t *bitmap)
{
    uint64_t end = first + pages;
    pthread_mutex_t *lock = group_lock(dirty, block, first);
    int rc = 0;

    pthread_mutex_lock(lock);
    uint64_t at = gw_bitmap_next_set(block->seen, first, end);
    while (at < end && rc == 0) {
        uint64_t run_end = gw_bitmap_next_clear(block->seen, at, end);
        rc = protect_pages(dirty, block, at, run_end);
        at = gw_bitmap_next_set(block->seen, run_end, end);
    }
    if (rc == 0)
        gw_dirty_seen_take(block, first, pages, bitmap);
    pthread_mutex_unlock(lock);
    return rc;
}

static int uffd_sync(struct gw_dirty *dirty, struct gw_dirty_block *block, uint64_t first_page,
                     uint64_t pages, uint64_t *bitmap, struct gw_error *err)
{
    for (uint64_t done = 0; done < pages; done += GW_DIRTY_GROUP_PAGES) {
        uint64_t some = pages - done;
        if (some > GW_DIRTY_GROUP_PAGES)
            some = GW_DIRTY_GROUP_PAGES;
        int rc = sync_group(dirty, block, first_page + done, some, bitmap + done / 64);
        if (rc < 0)
            return gw_dirty_fail(dirty, block, rc, "write-protect", err);
    }
    /* Pairs with give_up. Looked at last: a page released by giving up before our look is reported
     * lost here, one released later is the next sync's. */
    if (atomic_load_explicit(&block->broken, memory_order_acquire))
        return gw_dirty_fail(dirty, block, -EIO, "a page could not be released to its writer", err);
    return 0;
}

static int release_group(struct gw_dirty *dirty, struct gw_dirty_block *block, uint64_t first,
                         uint64_t pages)
{
    uint64_t start = first * GW_DIRTY_PAGE_BYTES & ~(block->page_bytes - 1);
    uint64_t stop = (first + pages) * GW_DIRTY_PAGE_BYTES;
    stop = (stop + block->page_bytes - 1) & ~(block->page_bytes - 1);
    pthread_mutex_t *lock = group_lock(dirty, block, first);

    pthread_mutex_lock(lock);
    gw_bitmap_set_range(block->seen, start / GW_DIRTY_PAGE_BYTES,
                        (stop - start) / GW_DIRTY_PAGE_BYTES);
    int rc = gw_dirty_protect(dirty->uffd, block->host + start, stop - start, false);
    pthread_mutex_unlock(lock);
    return rc;
}

/* One call a group instead of a fault a page, and no fault in a system call that cannot wait for it. */
static int uffd_before_pin(struct gw_dirty *dirty, struct gw_dirty_block *block,
                           const struct gw_block_desc *desc, uint64_t first_page, uint64_t pages,
                           struct gw_error *err)
{
    (void)desc;
    for (uint64_t done = 0; done < pages; done += GW_DIRTY_GROUP_PAGES) {
        uint64_t some = pages - done;
        if (some > GW_DIRTY_GROUP_PAGES)
            some = GW_DIRTY_GROUP_PAGES;
        int rc = release_group(dirty, block, first_page + done, some);
        if (rc < 0)
            return gw_dirty_fail(dirty, block, rc, "release from write protection", err);
    }
    return 0;
}

/* Without WP_UNPOPULATED an anonymous page that is not there cannot be protected. Reading brings in
 * the shared zero page. */
static void populate(const struct gw_dirty_block *block)
{
    char *host = (char *)(uintptr_t)block->host; /* NOLINT(performance-no-int-to-ptr) */
    if (madvise(host, block->bytes, MADV_POPULATE_READ) == 0)
        return;
    for (uint64_t at = 0; at < block->bytes; at += GW_DIRTY_PAGE_BYTES)
        (void)*(volatile char *)(host + at);
}

static bool always(const struct gw_dirty_block *block)
{
    (void)block;
    return true;
}

static int uffd_start(struct gw_dirty *dirty, struct gw_dirty_block *block, struct gw_error *err)
{
    if (block->kind != GW_BLOCK_ANON && !(dirty->features & GW_UFFD_WP_HUGETLBFS_SHMEM)) {
        gw_dirty_fail(dirty, block, -EOPNOTSUPP, "only anonymous memory can be protected", err);
        gw_error_hint(err, "use anonymous memory, or a newer kernel");
        return -EOPNOTSUPP;
    }
    if (block->kind == GW_BLOCK_ANON && !(dirty->features & GW_UFFD_WP_UNPOPULATED))
        populate(block);
    return gw_dirty_arm_block(dirty, block, err);
}

static void uffd_stop(struct gw_dirty *dirty, struct gw_dirty_block *block)
{
    gw_dirty_disarm_block(dirty, block);
}

static void uffd_close(struct gw_dirty *dirty)
{
    uint64_t one = 1;
    (void)!write(dirty->reader_wake, &one, sizeof(one));
    pthread_join(dirty->reader, NULL);
    close(dirty->reader_wake);
    close(dirty->uffd);
}

static int uffd_open(struct gw_dirty *dirty, struct gw_error *err)
{
    int rc = gw_dirty_arm_open(dirty, GW_UFFD_PAGEFAULT_FLAG_WP,
                               GW_UFFD_WP_HUGETLBFS_SHMEM | GW_UFFD_WP_UNPOPULATED, true, err);
    if (rc < 0)
        return rc;
    dirty->reader_wake = eventfd(0, EFD_CLOEXEC);
    if (dirty->reader_wake < 0) {
        rc = gw_fail(err, -errno, "uffd-wp: eventfd");
        goto out;
    }
    rc = gw_thread_start(&dirty->reader, "gw/uffd", reader_main, dirty, err);
    if (rc < 0) {
        close(dirty->reader_wake);
        goto out;
    }
    return 0;
out:
    close(dirty->uffd);
    return rc;
}

const struct gw_dirty_mechanism gw_dirty_uffd_wp = {
    .method = GW_DIRTY_UFFD_WP,
    .flags = GW_DIRTY_SEES_VCPU | GW_DIRTY_SEES_SYSCALLS,
    .rearms = true,
    .keeps_seen = always,
    .tax = "a page's first write in a round costs its writer some 40 us",
    .open = uffd_open,
    .close = uffd_close,
    .start = uffd_start,
    .sync = uffd_sync,
    .stop = uffd_stop,
    .before_pin = uffd_before_pin,
};
