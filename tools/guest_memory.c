// SPDX-License-Identifier: MIT
/* The memory of the built-in guest: anonymous with transparent huge pages, memfd, or memfd of 2 MiB
 * pages, the last two mapped shared. Never inherited by a child. A reserve is memory of one kind that
 * was touched before it was needed, handed out from its front. */
#include "tools/guest_impl.h"

#include "tools/cgroup.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define HUGE_BYTES (UINT64_C(2) << 20)

#ifndef MFD_HUGE_2MB
#define MFD_HUGE_2MB (21u << 26)
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

struct gw_guest_reserve {
    struct gw_guest_memory memory;
    uint64_t taken;
};

const char *gw_guest_kind_name(enum gw_block_kind kind)
{
    switch (kind) {
    case GW_BLOCK_ANON:
        return "anon";
    case GW_BLOCK_MEMFD:
        return "memfd";
    case GW_BLOCK_HUGETLB:
        return "hugetlb";
    }
    return "unknown";
}

uint32_t gw_guest_kind_page_bytes(enum gw_block_kind kind)
{
    return kind == GW_BLOCK_HUGETLB ? (uint32_t)HUGE_BYTES : GW_GUEST_PAGE;
}

/* ---- how much there is ----------------------------------------------------------------------- */

uint64_t gw_guest_memory_free(bool with_swap)
{
    FILE *file = fopen("/proc/meminfo", "re");
    char line[128];
    uint64_t kib = 0;
    uint64_t all_kib = 0;
    while (file && fgets(line, sizeof(line), file)) {
        if (sscanf(line, "MemAvailable: %" SCNu64, &kib) == 1 ||
            (with_swap && sscanf(line, "SwapFree: %" SCNu64, &kib) == 1))
            all_kib += kib;
    }
    if (file)
        fclose(file);
    uint64_t left = gw_cgroup_memory_left(GW_CGROUP_PROC, GW_CGROUP_MOUNT);
    return all_kib * 1024 < left ? all_kib * 1024 : left;
}

uint64_t gw_guest_total_bytes(uint64_t ram_bytes)
{
    return ram_bytes + gw_guest_table_bytes(ram_bytes / GW_GUEST_PAGE);
}

int gw_guest_memory_afford(enum gw_block_kind kind, uint64_t bytes, const char *name,
                           struct gw_error *err)
{
    uint64_t free_bytes = gw_guest_memory_free(true);
    if (kind == GW_BLOCK_HUGETLB || free_bytes == 0 || bytes <= free_bytes)
        return 0; /* huge pages are counted when they are mapped */
    gw_error_set(err, -ENOMEM, GW_CODE_NO_MEMORY,
                 "memory '%s': %" PRIu64 " bytes are to be filled, this host has %" PRIu64 " left",
                 name, bytes, free_bytes);
    gw_error_hint(err, "ask for less, or free some");
    return -ENOMEM;
}

/* ---- mapping --------------------------------------------------------------------------------- */

static int fail_map(enum gw_block_kind kind, uint64_t bytes, const char *name, int rc,
                    struct gw_error *err)
{
    gw_error_set(err, rc, GW_CODE_NO_MEMORY, "memory '%s': map %" PRIu64 " bytes of kind %s: %s",
                 name, bytes, gw_guest_kind_name(kind), strerrordesc_np(-rc));
    if (kind == GW_BLOCK_HUGETLB)
        gw_error_hint(err,
                      "it needs %" PRIu64 " free huge pages of 2 MiB: sysctl vm.nr_hugepages, or "
                      "--memory anon or memfd",
                      (bytes + HUGE_BYTES - 1) / HUGE_BYTES);
    else
        gw_error_hint(err, "give the guest less memory, or the host more");
    return rc;
}

/* At a multiple of 2 MiB, so that huge pages fit. */
static char *map_anonymous(uint64_t bytes)
{
    char *room = mmap(NULL, bytes + HUGE_BYTES, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED)
        return NULL;
    uint64_t skip = (HUGE_BYTES - (uintptr_t)room % HUGE_BYTES) % HUGE_BYTES;
    if (skip)
        munmap(room, skip);
    munmap(room + skip + bytes, HUGE_BYTES - skip);
    /* Advice: without it the guest is slower, not wrong. */
    (void)madvise(room + skip, bytes, MADV_HUGEPAGE);
    return room + skip;
}

static char *map_shared(enum gw_block_kind kind, uint64_t bytes, const char *name, int *fd)
{
    unsigned flags = MFD_CLOEXEC;
    if (kind == GW_BLOCK_HUGETLB)
        flags |= MFD_HUGETLB | MFD_HUGE_2MB;
    int file = memfd_create(name, flags);
    if (file < 0)
        return NULL;
    char *host = MAP_FAILED;
    if (ftruncate(file, (off_t)bytes) == 0)
        host = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (host == MAP_FAILED) {
        int saved = errno;
        close(file);
        errno = saved;
        return NULL;
    }
    *fd = file;
    return host;
}

int gw_guest_memory_map(struct gw_guest_memory *memory, enum gw_block_kind kind, uint64_t bytes,
                        const char *name, struct gw_error *err)
{
    struct gw_guest_memory m = {
        .bytes = bytes, .page_bytes = gw_guest_kind_page_bytes(kind), .kind = kind, .fd = -1};
    if (bytes == 0 || bytes % m.page_bytes) {
        gw_error_set(err, -EINVAL, GW_CODE_INVALID,
                     "memory '%s': %" PRIu64 " bytes are not whole pages of %" PRIu32
                     ", which %s memory has",
                     name, bytes, m.page_bytes, gw_guest_kind_name(kind));
        gw_error_hint(err, "give the guest whole pages, or --memory anon or memfd here");
        return -EINVAL;
    }
    m.host = kind == GW_BLOCK_ANON ? map_anonymous(bytes) : map_shared(kind, bytes, name, &m.fd);
    if (!m.host)
        return fail_map(kind, bytes, name, errno ? -errno : -ENOMEM, err);
    (void)madvise(m.host, bytes, MADV_DONTFORK);
    *memory = m;
    return 0;
}

void gw_guest_memory_unmap(struct gw_guest_memory *memory)
{
    if (memory->bytes && !memory->borrowed) {
        munmap(memory->host, memory->bytes);
        if (memory->fd >= 0)
            close(memory->fd);
    }
    memory->bytes = 0;
}

uint64_t *gw_guest_memory_data(const struct gw_guest_memory *memory)
{
    /* Anonymous holes read as the shared zero page. Huge pages cannot be asked. */
    if (memory->kind != GW_BLOCK_MEMFD || memory->fd < 0)
        return NULL;
    uint64_t *pages = calloc(memory->bytes / GW_GUEST_PAGE / 64 + 1, sizeof(uint64_t));
    off_t end = (off_t)(memory->fd_offset + memory->bytes);
    off_t at = (off_t)memory->fd_offset;
    /* One walk for all: each search for a hole's beginning goes through all the data before it. */
    while (pages && at < end) {
        off_t data = lseek(memory->fd, at, SEEK_DATA);
        off_t hole = data < 0 ? -1 : lseek(memory->fd, data, SEEK_HOLE);
        if (data < 0 && errno == ENXIO)
            break;
        if (hole < 0) {
            free(pages);
            return NULL;
        }
        for (at = data; at < hole && at < end; at += GW_GUEST_PAGE) {
            uint64_t page = ((uint64_t)at - memory->fd_offset) / GW_GUEST_PAGE;
            pages[page / 64] |= UINT64_C(1) << page % 64;
        }
    }
    return pages;
}

/* ---- reserve --------------------------------------------------------------------------------- */

static int touch_slice(void *ctx, uint64_t slice)
{
    const struct gw_guest_memory *memory = ctx;
    uint64_t at = slice * HUGE_BYTES;
    uint64_t bytes = memory->bytes - at < HUGE_BYTES ? memory->bytes - at : HUGE_BYTES;
    if (madvise(memory->host + at, bytes, MADV_POPULATE_WRITE) == 0)
        return 0;
    if (errno != EINVAL) /* EINVAL: a kernel without it */
        return -errno;
    for (uint64_t i = 0; i < bytes; i += memory->page_bytes)
        ((volatile char *)memory->host)[at + i] = 0;
    return 0;
}

static int touch(struct gw_guest_reserve *reserve, struct gw_error *err)
{
    uint64_t slices = (reserve->memory.bytes + HUGE_BYTES - 1) / HUGE_BYTES;
    int rc = gw_guest_parallel(touch_slice, &reserve->memory, slices);
    if (rc == -EFAULT)
        rc = -ENOMEM; /* how the kernel says that no huge page was left */
    return rc < 0 ? fail_map(reserve->memory.kind, reserve->memory.bytes, "reserve", rc, err) : 0;
}

int gw_guest_reserve_new(enum gw_block_kind kind, uint64_t bytes, struct gw_guest_reserve **out,
                         struct gw_error *err)
{
    struct gw_guest_reserve *reserve = calloc(1, sizeof(*reserve));
    if (!reserve)
        return gw_error_set(err, -ENOMEM, GW_CODE_NO_MEMORY, "reserve: out of memory");
    /* The table comes from here too, and blocks begin at huge pages. */
    uint64_t table = gw_guest_table_bytes(bytes / GW_GUEST_PAGE);
    uint64_t all = ((bytes + HUGE_BYTES - 1) & ~(HUGE_BYTES - 1));
    if (kind != GW_BLOCK_HUGETLB)
        all += (table + HUGE_BYTES - 1) & ~(HUGE_BYTES - 1);
    int rc = gw_guest_memory_afford(kind, all, "reserve", err);
    if (rc == 0)
        rc = gw_guest_memory_map(&reserve->memory, kind, all, "reserve", err);
    if (rc == 0)
        rc = touch(reserve, err);
    if (rc < 0) {
        gw_guest_reserve_free(reserve);
        return rc;
    }
    *out = reserve;
    return 0;
}

int gw_guest_reserve_reset(struct gw_guest_reserve *reserve, struct gw_error *err)
{
    struct gw_guest_memory *memory = &reserve->memory;
    /* Shared memory goes with its file's pages, private memory with the mapping's. */
    int advice = memory->kind == GW_BLOCK_ANON ? MADV_DONTNEED : MADV_REMOVE;
    if (reserve->taken && madvise(memory->host, memory->bytes, advice) < 0)
        return gw_error_set(err, -errno, GW_CODE_IO, "reserve: clear it: %s",
                            strerrordesc_np(errno));
    reserve->taken = 0;
    return touch(reserve, err);
}

bool gw_guest_reserve_take(struct gw_guest_reserve *reserve, enum gw_block_kind kind,
                           uint64_t bytes, struct gw_guest_memory *memory)
{
    if (!reserve || reserve->memory.kind != kind || bytes % reserve->memory.page_bytes ||
        bytes > reserve->memory.bytes - reserve->taken)
        return false;
    *memory = reserve->memory;
    memory->host += reserve->taken;
    memory->fd_offset = reserve->taken;
    memory->bytes = bytes;
    memory->borrowed = true;
    uint64_t end = (reserve->taken + bytes + HUGE_BYTES - 1) & ~(HUGE_BYTES - 1);
    reserve->taken = end < reserve->memory.bytes ? end : reserve->memory.bytes;
    return true;
}

void gw_guest_reserve_free(struct gw_guest_reserve *reserve)
{
    if (!reserve)
        return;
    gw_guest_memory_unmap(&reserve->memory);
    free(reserve);
}
