// SPDX-License-Identifier: MIT
/* Dirty pages by PAGEMAP_SCAN. userfaultfd protects a block asynchronously: the kernel resolves the
 * fault of a first write by itself and remembers the page as written. A sync is one ioctl per two
 * MiB or more that finds the written pages and protects them again, atomically per page table.
 * Needs Linux with both (an unknown ioctl gives ENOTTY); on an error the caller takes the range as
 * dirty, since pages found before it are armed again. */
#include "core/base/bitmap.h"
#include "core/base/error.h"
#include "ram/dirty_impl.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* Linux's struct page_region and struct pm_scan_arg, which older headers lack. */
struct gw_scan_region {
    uint64_t start;
    uint64_t end;
    uint64_t categories;
};

struct gw_scan_args {
    uint64_t size;
    uint64_t flags;
    uint64_t start;
    uint64_t end;
    uint64_t walk_end; /* out: everything before it was looked at */
    uint64_t vec;
    uint64_t vec_len;
    uint64_t max_pages;
    uint64_t category_inverted;
    uint64_t category_mask;
    uint64_t category_anyof_mask;
    uint64_t return_mask;
};

#define GW_SCAN_IOCTL _IOWR('f', 16, struct gw_scan_args)
#define GW_SCAN_PROTECT 1u        /* PM_SCAN_WP_MATCHING */
#define GW_SCAN_CHECK_ASYNC 2u    /* PM_SCAN_CHECK_WPASYNC: fail where nothing is tracked */
#define GW_SCAN_WRITTEN (1u << 1) /* PAGE_IS_WRITTEN */

/* 24 KiB of stack. Four groups in the worst case (every other page); the kernel buffers one. */
#define GW_SCAN_REGIONS 1024u

_Static_assert(sizeof(struct gw_scan_args) == 96, "the kernel knows it by its size");

/* Or the written pages of [start, end) into @bitmap, whose bit 0 is @origin, and protect them. */
static int scan(int pagemap, uint64_t start, uint64_t end, uint64_t origin, uint64_t *bitmap)
{
    struct gw_scan_region found[GW_SCAN_REGIONS];
    while (start < end) {
        struct gw_scan_args args = {
            .size = sizeof(args),
            .flags = GW_SCAN_PROTECT | GW_SCAN_CHECK_ASYNC,
            .start = start,
            .end = end,
            .vec = (uint64_t)(uintptr_t)found,
            .vec_len = GW_SCAN_REGIONS,
            .category_mask = GW_SCAN_WRITTEN,
            .return_mask = GW_SCAN_WRITTEN,
        };
        int count = ioctl(pagemap, GW_SCAN_IOCTL, &args);
        if (count < 0)
            return -errno;
        for (int i = 0; i < count; i++)
            gw_bitmap_set_range(bitmap, (found[i].start - origin) / GW_DIRTY_PAGE_BYTES,
                                (found[i].end - found[i].start) / GW_DIRTY_PAGE_BYTES);
        if (args.walk_end <= start)
            return -EIO; /* a kernel that does not advance would hold us forever */
        start = args.walk_end;
    }
    return 0;
}

static bool spans_groups(const struct gw_dirty_block *block)
{
    return block->page_bytes > GW_DIRTY_GROUP_PAGES * (uint64_t)GW_DIRTY_PAGE_BYTES;
}

/* A part of a huge page cannot be protected alone. So all of it is scanned, and what belongs to the
 * other parts waits in `seen` for their sync. One lock over both: a thread that found the page clean
 * because another has just armed it must see that other's bits. */
static int scan_around(struct gw_dirty *dirty, struct gw_dirty_block *block, uint64_t first,
                       uint64_t pages, uint64_t *bitmap)
{
    uint64_t start = first * GW_DIRTY_PAGE_BYTES & ~(block->page_bytes - 1);
    uint64_t end = (first + pages) * GW_DIRTY_PAGE_BYTES;
    end = (end + block->page_bytes - 1) & ~(block->page_bytes - 1);

    pthread_mutex_t *scan_lock = &dirty->group_locks[block->id % GW_DIRTY_LOCKS];
    pthread_mutex_lock(scan_lock);
    int rc = scan(dirty->pagemap, block->host + start, block->host + end, block->host, block->seen);
    if (rc < 0) /* who knows what was armed: nobody's pages may be missed */
        gw_bitmap_set_range(block->seen, start / GW_DIRTY_PAGE_BYTES,
                            (end - start) / GW_DIRTY_PAGE_BYTES);
    else
        gw_dirty_seen_take(block, first, pages, bitmap);
    pthread_mutex_unlock(scan_lock);
    return rc;
}

static int scan_sync(struct gw_dirty *dirty, struct gw_dirty_block *block, uint64_t first_page,
                     uint64_t pages, uint64_t *bitmap, struct gw_error *err)
{
    uint64_t start = block->host + first_page * GW_DIRTY_PAGE_BYTES;
    int rc;
    if (spans_groups(block))
        rc = scan_around(dirty, block, first_page, pages, bitmap);
    else
        rc = scan(dirty->pagemap, start, start + pages * GW_DIRTY_PAGE_BYTES, start, bitmap);
    if (rc < 0) {
        gw_dirty_fail(dirty, block, rc, "PAGEMAP_SCAN", err);
        if (rc == -EPERM)
            gw_error_hint(err, "the block was remapped or unregistered while it was tracked");
    }
    return rc;
}

static int scan_start(struct gw_dirty *dirty, struct gw_dirty_block *block, struct gw_error *err)
{
    return gw_dirty_arm_block(dirty, block, err);
}

static void scan_stop(struct gw_dirty *dirty, struct gw_dirty_block *block)
{
    gw_dirty_disarm_block(dirty, block);
}

static void scan_close(struct gw_dirty *dirty)
{
    close(dirty->pagemap);
    close(dirty->uffd);
}

static int scan_open(struct gw_dirty *dirty, struct gw_error *err)
{
    /* No fault ever leaves the kernel, so system calls need no privileged descriptor. */
    int rc = gw_dirty_arm_open(dirty,
                               GW_UFFD_PAGEFAULT_FLAG_WP | GW_UFFD_WP_HUGETLBFS_SHMEM |
                                   GW_UFFD_WP_UNPOPULATED | GW_UFFD_WP_ASYNC,
                               0, false, err);
    if (rc < 0)
        return rc;
    dirty->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (dirty->pagemap < 0) {
        rc = -errno;
        close(dirty->uffd);
        gw_fail(err, rc, "pagemap-scan: open /proc/self/pagemap");
        gw_error_hint(err, "mount /proc");
        return rc;
    }
    return 0;
}

const struct gw_dirty_mechanism gw_dirty_pagemap_scan = {
    .method = GW_DIRTY_PAGEMAP_SCAN,
    .flags = GW_DIRTY_SEES_VCPU | GW_DIRTY_SEES_SYSCALLS,
    .rearms = true,
    .keeps_seen = spans_groups,
    .open = scan_open,
    .close = scan_close,
    .start = scan_start,
    .sync = scan_sync,
    .stop = scan_stop,
};
