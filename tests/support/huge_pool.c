// SPDX-License-Identifier: MIT
/* The pool's size is one number for all of the machine: read, raised and put back under a lock on the
 * file itself, so that tests that run side by side do not put back each other's. */
#include "tests/support/huge_pool.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#define TRIES 100 /* of 10 ms: a page's last user may still be letting go */

static uint64_t read_size(int fd)
{
    char text[32] = "";
    if (pread(fd, text, sizeof(text) - 1, 0) <= 0)
        return 0;
    return strtoull(text, NULL, 10);
}

static void write_size(int fd, uint64_t size)
{
    char text[32];
    int bytes = snprintf(text, sizeof(text), "%llu", (unsigned long long)size);
    if (pwrite(fd, text, (size_t)bytes, 0) != bytes)
        return; /* what could be had is had */
}

void gw_huge_pool_open(struct gw_huge_pool *pool, uint64_t page_bytes, uint64_t count)
{
    char path[96];
    snprintf(path, sizeof(path), "/sys/kernel/mm/hugepages/hugepages-%llukB/nr_hugepages",
             (unsigned long long)(page_bytes / 1024));
    pool->fd = open(path, O_RDWR | O_CLOEXEC);
    if (pool->fd < 0)
        return;
    flock(pool->fd, LOCK_EX);
    pool->before = read_size(pool->fd);
    write_size(pool->fd, pool->before + count);
}

void gw_huge_pool_close(struct gw_huge_pool *pool)
{
    if (pool->fd < 0)
        return;
    for (int i = 0; i < TRIES; i++) {
        const struct timespec span = {.tv_nsec = 10000000};
        write_size(pool->fd, pool->before);
        if (read_size(pool->fd) <= pool->before)
            break;
        nanosleep(&span, NULL);
    }
    close(pool->fd);
    pool->fd = -1;
}
