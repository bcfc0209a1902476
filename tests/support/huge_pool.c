// SPDX-License-Identifier: MIT
/* The pool's size is one number for all of the machine. It is changed under a lock on its file, by differences, so
 * that tests that run side by side do not put back each other's; the lock is held while it changes, not while the
 * pages are used, or a test would wait for all others and run out of its time. */
#include "tests/support/huge_pool.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

/* What this process has not given back: a test that ends by a failed assertion closes nothing. */
static struct gw_huge_pool owed;

#define TRIES 100 /* of 10 ms: a page's last user may still be letting go */

static int open_number(uint64_t page_bytes, const char *name, int flags)
{
    char path[96];
    snprintf(path, sizeof(path), "/sys/kernel/mm/hugepages/hugepages-%llukB/%s",
             (unsigned long long)(page_bytes / 1024), name);
    return open(path, flags | O_CLOEXEC);
}

static uint64_t number(uint64_t page_bytes, const char *name)
{
    char text[32] = "";
    int fd = open_number(page_bytes, name, O_RDONLY);
    ssize_t bytes = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);
    if (fd >= 0)
        close(fd);
    return bytes > 0 ? strtoull(text, NULL, 10) : 0;
}

/* Without pages that are in use and no longer of the pool. */
static uint64_t size_of_pool(uint64_t page_bytes)
{
    return number(page_bytes, "nr_hugepages") - number(page_bytes, "surplus_hugepages");
}

static void resize(int fd, uint64_t size)
{
    char text[32];
    int bytes = snprintf(text, sizeof(text), "%llu", (unsigned long long)size);
    if (pwrite(fd, text, (size_t)bytes, 0) != bytes)
        return; /* what could be had is had */
}

/* For writing, locked; -1: it is not ours to change. */
static int lock_pool(uint64_t page_bytes)
{
    int fd = open_number(page_bytes, "nr_hugepages", O_RDWR);
    if (fd >= 0)
        flock(fd, LOCK_EX);
    return fd;
}

bool gw_huge_pool_open(struct gw_huge_pool *pool, uint64_t page_bytes, uint64_t count)
{
    int fd = lock_pool(page_bytes);
    *pool = (struct gw_huge_pool){.page_bytes = page_bytes};
    if (fd < 0)
        return number(page_bytes, "free_hugepages") >= count;
    uint64_t before = size_of_pool(page_bytes);
    resize(fd, before + count);
    pool->count = size_of_pool(page_bytes) - before;
    close(fd);
    owed = *pool;
    if (pool->count == count)
        return true;
    gw_huge_pool_close(pool);
    return false;
}

void gw_huge_pool_close(struct gw_huge_pool *pool)
{
    const struct timespec span = {.tv_nsec = 10000000};
    int fd = pool->count ? lock_pool(pool->page_bytes) : -1;
    if (fd < 0)
        return;
    resize(fd, size_of_pool(pool->page_bytes) - pool->count);
    /* Who comes next is not to be given pages that have not been let go. */
    for (int i = 0; i < TRIES && number(pool->page_bytes, "surplus_hugepages") > 0; i++)
        nanosleep(&span, NULL);
    close(fd);
    owed.count = pool->count = 0;
}

__attribute__((destructor)) static void give_back(void)
{
    gw_huge_pool_close(&owed);
}
