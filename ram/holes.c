// SPDX-License-Identifier: MIT
/* Which parts of a block were ever touched, asked of the kernel without touching anything.
 *
 *   memfd    SEEK_DATA / SEEK_HOLE: the file itself knows, whoever wrote through whichever mapping.
 *   anon     PAGEMAP_SCAN for present or swapped pages that are not the shared zero page; on a
 *            kernel without it, /proc/self/pagemap entry by entry.
 *   hugetlb  the same, but a page of a shared file that another mapping populated is missing from
 *            our page table: the map is believed only if it accounts for every block of the file.
 *
 * A page that is armed for dirty tracking and was never touched carries a marker in its page table
 * entry, which both interfaces report as swapped. Its pagemap entry gives it away: swap type 31,
 * offset 1. No page that holds data has that one (type 31 is no swap area on a kernel with markers;
 * on older ones offset 1 would be the page frame at physical address 4096).
 *
 * In doubt a page counts as populated: then it is read, and sent, and nothing is lost. Where nothing
 * can be known (shared memory whose descriptor was not given), the whole block does. */
#include "ram/holes.h"

#include "core/base/bytes.h"

#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

/* PAGEMAP_SCAN as the kernel defines it (Linux 6.7); older system headers lack it. */
struct scan_arg {
    uint64_t size;
    uint64_t flags;
    uint64_t start;
    uint64_t end;
    uint64_t walk_end;
    uint64_t vec;
    uint64_t vec_len;
    uint64_t max_pages;
    uint64_t category_inverted;
    uint64_t category_mask;
    uint64_t category_anyof_mask;
    uint64_t return_mask;
};
#define SCAN_IOCTL _IOWR('f', 16, struct scan_arg)
#define SCAN_PRESENT 8u
#define SCAN_SWAPPED 16u
#define SCAN_PFNZERO 32u

#define ENTRY_PRESENT (UINT64_C(1) << 63)
#define ENTRY_SWAPPED (UINT64_C(1) << 62)
#define ENTRY_VALUE ((UINT64_C(1) << 55) - 1) /* swap type (5 bits) and offset, or page frame */
#define ENTRY_MARKER (31u | 1u << 5)

static uint64_t address_of(const struct gw_holes *walk, uint64_t page)
{
    return (uint64_t)(uintptr_t)walk->block->desc.host + page * GW_PAGE_BYTES;
}

static uint64_t page_of(const struct gw_holes *walk, uint64_t address)
{
    return (address - (uint64_t)(uintptr_t)walk->block->desc.host) / GW_PAGE_BYTES;
}

/* ---- SEEK_DATA ------------------------------------------------------------------------------- */

static int step_seek(struct gw_holes *walk, struct gw_extent *extent)
{
    const struct gw_block_desc *desc = &walk->block->desc;
    off_t base = (off_t)desc->fd_offset;
    off_t end = base + (off_t)(walk->end * GW_PAGE_BYTES);
    off_t from = base + (off_t)(walk->at * GW_PAGE_BYTES);
    if (from >= end)
        return 0;
    off_t data = lseek(desc->fd, from, SEEK_DATA);
    if (data < 0 && errno == ENXIO)
        return 0;
    off_t hole = data < 0 ? data : lseek(desc->fd, data, SEEK_HOLE);
    if (data < 0 || hole < 0)
        return -errno;
    if (data >= end)
        return 0;
    if (hole > end)
        hole = end;
    extent->first_page = (uint64_t)(data - base) / GW_PAGE_BYTES;
    uint64_t last = ((uint64_t)(hole - base) + GW_PAGE_BYTES - 1) / GW_PAGE_BYTES;
    extent->pages = last - extent->first_page;
    walk->at = last;
    return 1;
}

/* ---- /proc/self/pagemap ---------------------------------------------------------------------- */

static int read_entries(struct gw_holes *walk, uint64_t page, uint64_t end)
{
    uint64_t count = gw_min_u64(end - page, GW_HOLES_ENTRIES_MAX);
    off_t offset = (off_t)(address_of(walk, page) / GW_PAGE_BYTES * sizeof(walk->entry[0]));
    ssize_t got = pread(walk->pagemap, walk->entry, count * sizeof(walk->entry[0]), offset);
    if (got < 0)
        return -errno;
    if ((size_t)got < sizeof(walk->entry[0]))
        return -EIO;
    walk->entry_first = page;
    walk->entry_count = (unsigned)((size_t)got / sizeof(walk->entry[0]));
    return 0;
}

static bool entry_is_populated(uint64_t entry)
{
    if (entry & ENTRY_PRESENT)
        return true;
    return (entry & ENTRY_SWAPPED) && (entry & ENTRY_VALUE) != ENTRY_MARKER;
}

/* The first populated extent in [at, end): 1 and walk->at behind it, or 0 and walk->at is end. */
static int step_entries(struct gw_holes *walk, uint64_t end, struct gw_extent *extent)
{
    extent->pages = 0;
    for (; walk->at < end; walk->at++) {
        if (walk->at - walk->entry_first >= walk->entry_count) {
            int rc = read_entries(walk, walk->at, end);
            if (rc < 0)
                return rc;
        }
        if (entry_is_populated(walk->entry[walk->at - walk->entry_first])) {
            if (!extent->pages)
                extent->first_page = walk->at;
            extent->pages++;
        } else if (extent->pages) {
            return 1;
        }
    }
    return extent->pages ? 1 : 0;
}

/* ---- PAGEMAP_SCAN ---------------------------------------------------------------------------- */

/* Regions from walk->at on. Return: how many, 0: none up to the block's end, -errno. */
static int scan_regions(struct gw_holes *walk)
{
    struct scan_arg arg = {
        .size = sizeof(arg),
        .start = address_of(walk, walk->at),
        .end = address_of(walk, walk->end),
        .vec = (uint64_t)(uintptr_t)walk->region,
        .vec_len = GW_HOLES_REGIONS_MAX,
        .category_inverted = SCAN_PFNZERO, /* a read of anonymous memory maps the zero page */
        .category_mask = SCAN_PFNZERO,
        .category_anyof_mask = SCAN_PRESENT | SCAN_SWAPPED,
        .return_mask = SCAN_PRESENT | SCAN_SWAPPED,
    };
    if (arg.start >= arg.end)
        return 0;
    int count = ioctl(walk->pagemap, SCAN_IOCTL, &arg);
    if (count < 0)
        return -errno;
    walk->region_count = (unsigned)count;
    walk->region_next = 0;
    return count;
}

static int step_scan(struct gw_holes *walk, struct gw_extent *extent)
{
    for (;;) {
        if (walk->region_next == walk->region_count) {
            int count = scan_regions(walk);
            if (count <= 0)
                return count;
        }
        const struct gw_holes_region *region = &walk->region[walk->region_next];
        uint64_t first = gw_max_u64(page_of(walk, region->start), walk->at);
        uint64_t end = page_of(walk, region->end);
        if (region->categories & SCAN_PRESENT) {
            *extent = (struct gw_extent){.first_page = first, .pages = end - first};
            walk->at = end;
            walk->region_next++;
            return 1;
        }
        walk->at = first;
        int rc = step_entries(walk, end, extent);
        if (walk->at == end)
            walk->region_next++;
        if (rc != 0)
            return rc;
    }
}

/* ---- which of them --------------------------------------------------------------------------- */

static int open_pagemap(struct gw_holes *walk)
{
    walk->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (walk->pagemap < 0)
        return -errno;
    walk->how = GW_HOLES_SCAN;
    return 0;
}

static int step_pagemap(struct gw_holes *walk, struct gw_extent *extent)
{
    if (walk->how == GW_HOLES_SCAN) {
        int rc = step_scan(walk, extent);
        if (rc != -ENOTTY)
            return rc;
        walk->how = GW_HOLES_ENTRIES; /* before Linux 6.7 */
    }
    return step_entries(walk, walk->end, extent);
}

/* Does our page table account for every block of the file behind shared huge pages? */
static int believe_hugetlb(struct gw_holes *walk)
{
    struct stat file;
    if (fstat(walk->block->desc.fd, &file) < 0)
        return -errno;
    uint64_t mapped = 0;
    uint64_t from = walk->at;
    struct gw_extent extent;
    int rc;
    uint64_t end = walk->end;
    walk->at = 0;
    walk->end = walk->block->pages;
    while ((rc = step_pagemap(walk, &extent)) > 0)
        mapped += extent.pages * GW_PAGE_BYTES;
    walk->at = from;
    walk->end = end;
    walk->region_count = 0;
    walk->region_next = 0;
    if (rc == 0 && (uint64_t)file.st_blocks * 512 > mapped)
        walk->how = GW_HOLES_ALL;
    return rc;
}

int gw_holes_begin_at(struct gw_holes *walk, const struct gw_block *block, uint64_t from,
                      uint64_t end)
{
    walk->block = block;
    walk->pagemap = -1;
    walk->at = from;
    walk->end = end;
    walk->region_count = 0;
    walk->region_next = 0;
    walk->entry_first = 0;
    walk->entry_count = 0;
    walk->how = GW_HOLES_ALL;
    const struct gw_block_desc *desc = &block->desc;
    if (desc->kind == GW_BLOCK_MEMFD) {
        /* EINVAL: a file system that knows of no holes. */
        if (desc->fd >= 0 &&
            (lseek(desc->fd, (off_t)desc->fd_offset, SEEK_DATA) >= 0 || errno == ENXIO))
            walk->how = GW_HOLES_SEEK;
        return 0;
    }
    int rc = open_pagemap(walk);
    if (rc == 0 && desc->kind == GW_BLOCK_HUGETLB && desc->fd >= 0)
        rc = believe_hugetlb(walk);
    return rc;
}

int gw_holes_begin(struct gw_holes *walk, const struct gw_block *block, uint64_t from)
{
    return gw_holes_begin_at(walk, block, from, block->pages);
}

int gw_holes_step(struct gw_holes *walk, struct gw_extent *extent)
{
    if (walk->how == GW_HOLES_SEEK)
        return step_seek(walk, extent);
    if (walk->how != GW_HOLES_ALL)
        return step_pagemap(walk, extent);
    if (walk->at >= walk->end)
        return 0;
    *extent = (struct gw_extent){.first_page = walk->at, .pages = walk->end - walk->at};
    walk->at = walk->end;
    return 1;
}

void gw_holes_end(struct gw_holes *walk)
{
    if (walk->pagemap >= 0)
        close(walk->pagemap);
    walk->pagemap = -1;
}

int gw_holes_next(const struct gw_block *block, uint64_t from, struct gw_extent *extent)
{
    struct gw_holes walk;
    struct gw_extent found;
    int rc = gw_holes_begin(&walk, block, from);
    if (rc == 0)
        rc = gw_holes_step(&walk, &found);
    gw_holes_end(&walk);
    if (rc > 0)
        *extent = found;
    return rc;
}
