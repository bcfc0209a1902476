// SPDX-License-Identifier: MIT
/* Dirty pages by soft-dirty bits, the last resort. The bits can only be cleared for the whole
 * process, and not together with reading them: a page written between a look and the clear would be
 * lost, with its writers running. So they are cleared once, when the first block is started (before
 * anything is read), and never again until the last one is stopped. A sync only looks, and reports
 * all that was written since the start, over and over: more than needed, never less. A guest whose
 * written set fits the downtime limit converges; others will not, and are told.
 *
 * Linux (5.12 and later) does not clear the bits of private pages that a device has pinned, or a write would
 * give the process another page than the device has, unless they are mapped huge. So what is about to be
 * pinned is gathered into huge pages first (MADV_COLLAPSE, Linux 6.1), and what could not be is told of.
 *
 * Kernels without the feature accept the clear and never set a bit; the probe finds that out. */
#include "core/base/bitmap.h"
#include "core/base/error.h"
#include "core/base/log.h"
#include "ram/dirty_impl.h"

#include <fcntl.h>
#include <inttypes.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#define HUGE_BYTES (GW_DIRTY_GROUP_PAGES * (uint64_t)GW_DIRTY_PAGE_BYTES)
#define SMALL_PAGES 1024u /* 4 MiB: what firmware and the like have is not worth a warning */
#define GW_PAGEMAP_SOFT_DIRTY (UINT64_C(1) << 55)
#define GW_PAGEMAP_SWAPPED (UINT64_C(1) << 62)
#define GW_PAGEMAP_PRESENT (UINT64_C(1) << 63)

/* Clearing again would take the bits from whoever looks at them now. */
static pthread_mutex_t owner_lock = PTHREAD_MUTEX_INITIALIZER;
static const struct gw_dirty *owner;
static unsigned owner_blocks;

static int clear_bits(void)
{
    int fd = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int rc = write(fd, "4", 1) == 1 ? 0 : -errno;
    close(fd);
    return rc;
}

static void soft_stop(struct gw_dirty *dirty, struct gw_dirty_block *block)
{
    (void)dirty;
    (void)block;
    pthread_mutex_lock(&owner_lock);
    if (--owner_blocks == 0)
        owner = NULL;
    pthread_mutex_unlock(&owner_lock);
}

static bool is_written(const struct gw_dirty_block *block, uint64_t entry)
{
    if (entry & GW_PAGEMAP_SOFT_DIRTY)
        return true;
    /* Shared memory may be unmapped behind our back, by reclaim, and its bit goes with that. */
    return block->kind != GW_BLOCK_ANON && !(entry & (GW_PAGEMAP_PRESENT | GW_PAGEMAP_SWAPPED));
}

static int soft_sync(struct gw_dirty *dirty, struct gw_dirty_block *block, uint64_t first_page,
                     uint64_t pages, uint64_t *bitmap, struct gw_error *err)
{
    uint64_t entries[GW_DIRTY_GROUP_PAGES];
    uint64_t host_page = block->host / GW_DIRTY_PAGE_BYTES;
    uint64_t done = 0;
    while (done < pages) {
        uint64_t some = pages - done;
        if (some > GW_DIRTY_GROUP_PAGES)
            some = GW_DIRTY_GROUP_PAGES;
        ssize_t bytes = pread(dirty->pagemap, entries, some * sizeof(entries[0]),
                              (off_t)((host_page + first_page + done) * sizeof(entries[0])));
        if (bytes < 0 && errno == EINTR)
            continue;
        uint64_t got = bytes > 0 ? (uint64_t)bytes / sizeof(entries[0]) : 0;
        if (got == 0)
            return gw_dirty_fail(dirty, block, bytes < 0 ? -errno : -EIO, "read pagemap", err);
        for (uint64_t i = 0; i < got; i++) {
            if (is_written(block, entries[i]))
                gw_bitmap_set(bitmap, done + i);
        }
        done += got;
    }
    return 0;
}

/* A pin populates what is not there, and takes a huge page of zeros apart: that comes first. */
static bool gather(uint64_t address)
{
    void *page = (void *)(uintptr_t)address;
    (void)madvise(page, HUGE_BYTES, MADV_POPULATE_WRITE);
    return madvise(page, HUGE_BYTES, MADV_COLLAPSE) == 0;
}

/* Once it is tracked, gathering would mark pages, and nothing clears them again. */
static int soft_before_pin(struct gw_dirty *dirty, struct gw_dirty_block *block,
                           const struct gw_block_desc *desc, uint64_t first_page, uint64_t pages,
                           struct gw_error *err)
{
    (void)err;
    if (block || desc->kind != GW_BLOCK_ANON)
        return 0;
    uint64_t from = (uint64_t)(uintptr_t)desc->host + first_page * GW_DIRTY_PAGE_BYTES;
    uint64_t to = from + pages * GW_DIRTY_PAGE_BYTES, small = pages;
    for (uint64_t at = (from + HUGE_BYTES - 1) / HUGE_BYTES * HUGE_BYTES; at + HUGE_BYTES <= to;
         at += HUGE_BYTES)
        small -= gather(at) ? GW_DIRTY_GROUP_PAGES : 0;
    atomic_fetch_add_explicit(&dirty->small, small, memory_order_relaxed); /* only for the log */
    return 0;
}

static void tell_what_stays(struct gw_dirty *dirty)
{
    uint64_t small = atomic_exchange_explicit(&dirty->small, 0, memory_order_relaxed);
    if (small > SMALL_PAGES)
        gw_log_warn(&dirty->log, "dirty",
                    "%" PRIu64
                    " MiB of the guest's private memory are pinned in small pages, whose "
                    "soft-dirty bits Linux does not clear: they are sent in every round (give it "
                    "memory of a memfd, or on a boundary of 2 MiB where huge pages can be had)",
                    small * GW_DIRTY_PAGE_BYTES >> 20);
}

static int soft_start(struct gw_dirty *dirty, struct gw_dirty_block *block, struct gw_error *err)
{
    if (block->kind == GW_BLOCK_HUGETLB) {
        gw_dirty_fail(dirty, block, -EOPNOTSUPP, "huge pages have no such bits", err);
        gw_error_hint(err, "use --memory anon or memfd, or a kernel with another mechanism");
        return -EOPNOTSUPP;
    }
    int rc = 0;
    pthread_mutex_lock(&owner_lock);
    if (owner && owner != dirty)
        rc = -EBUSY;
    else if (!owner)
        rc = clear_bits();
    if (rc == 0) {
        owner = dirty;
        owner_blocks++;
    }
    pthread_mutex_unlock(&owner_lock);

    if (rc < 0)
        gw_dirty_fail(dirty, block, rc, "clear the soft-dirty bits", err);
    if (rc == -EBUSY)
        gw_error_hint(err, "a process can have one migration tracked by soft-dirty at a time");
    if (rc == 0)
        tell_what_stays(dirty);
    return rc;
}

static int soft_open(struct gw_dirty *dirty, struct gw_error *err)
{
    dirty->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (dirty->pagemap >= 0)
        return 0;
    int rc = gw_fail(err, -errno, "soft-dirty: open /proc/self/pagemap");
    gw_error_hint(err, "mount /proc");
    return rc;
}

static void soft_close(struct gw_dirty *dirty)
{
    close(dirty->pagemap);
}

const struct gw_dirty_mechanism gw_dirty_soft_dirty = {
    .method = GW_DIRTY_SOFT_DIRTY,
    .flags = GW_DIRTY_SEES_VCPU | GW_DIRTY_SEES_SYSCALLS | GW_DIRTY_CLEARS_ONCE,
    .rearms = false,
    .tax = "every page written since the start is sent again in each round",
    .open = soft_open,
    .close = soft_close,
    .start = soft_start,
    .sync = soft_sync,
    .stop = soft_stop,
    .before_pin = soft_before_pin,
};
