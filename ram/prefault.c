// SPDX-License-Identifier: MIT
/* Populating memory ahead of the data. Nothing is ever stored (rule 8): the wire may be writing the
 * same pages, and a store of what was read a moment ago would put old bytes over new ones.
 * MADV_POPULATE_WRITE (Linux 5.14) faults pages in as a write would and writes nothing, keeps
 * transparent huge pages and honours hugetlb; before that, an atomic add of zero to one word of each
 * page, which the memory system orders with every other write to that word. */
#include "ram/place.h"

#include "core/base/bytes.h"

#include <sys/mman.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

/* One call populates so much: a worker that is to stop does so within milliseconds. */
#define PIECE_BYTES (UINT64_C(64) << 20)
#define TRIES 16

__attribute__((no_sanitize("thread"))) static void touch(char *page)
{
#if defined(__x86_64__)
    /* Written out, since a compiler may turn an atomic add of a constant zero into a load. */
    __asm__ volatile("lock addl $0, %0" : "+m"(*(volatile uint32_t *)(void *)page) : : "cc");
#else
    volatile uint32_t zero = 0;
    __atomic_fetch_add((uint32_t *)(void *)page, zero, __ATOMIC_RELAXED);
#endif
}

void gw_prefault_by_touch(void *memory, uint64_t bytes)
{
    for (uint64_t at = 0; at < bytes; at += GW_PAGE_BYTES)
        touch((char *)memory + at);
}

static int populate(char *host, uint64_t bytes)
{
    for (int i = 0; i < TRIES; i++) {
        if (madvise(host, bytes, MADV_POPULATE_WRITE) == 0)
            return 0;
        if (errno != EINTR && errno != EAGAIN)
            return -errno;
    }
    return 0; /* who writes there populates it */
}

int gw_prefault(const struct gw_block *block, uint64_t offset, uint64_t bytes)
{
    gw_assert(gw_range_is_inside(offset, bytes, block->desc.size_bytes));
    char *host = (char *)block->desc.host + offset;
    while (bytes) {
        uint64_t piece = gw_min_u64(bytes, PIECE_BYTES);
        int rc = populate(host, piece);
        if (rc == -EINVAL) /* a kernel that does not know it */
            gw_prefault_by_touch(host, piece);
        else if (rc < 0)
            return rc;
        host += piece;
        bytes -= piece;
    }
    return 0;
}
