// SPDX-License-Identifier: MIT
/* RLIMIT_MEMLOCK as it applies to registrations: less what is pinned already, which the kernel counts by
 * process, and less what page endpoints will take for their buffers. Whether CAP_IPC_LOCK lifts it is
 * found out by locking more than the limit, lazily, so that it costs no memory: in a user namespace the
 * capability is shown and lifts nothing. */
#include "core/memlock.h"

#include "core/base/bytes.h"
#include "transport/transport.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

/* What a page endpoint's messages take: some 16 of 32 KiB, rounded up. */
#define PAGE_ENDPOINT_BYTES (UINT64_C(1) << 20)

/* "VmPin: 1234 kB" of /proc/self/status, in bytes. */
static uint64_t pinned_bytes(void)
{
    char text[4096];
    int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    if (fd >= 0)
        close(fd);
    text[got > 0 ? got : 0] = '\0';
    const char *line = strstr(text, "\nVmPin:");
    return line ? strtoull(line + 7, NULL, 10) * 1024 : 0;
}

static bool limit_is_lifted(uint64_t limit)
{
    uint64_t bytes = (limit / 4096 + 1) * 4096;
    void *at = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED)
        return false;
    bool lifted = mlock2(at, bytes, MLOCK_ONFAULT) == 0;
    munmap(at, bytes);
    return lifted;
}

/* UINT64_MAX: none. */
static uint64_t limit_bytes(void)
{
    struct rlimit limit = {.rlim_cur = RLIM_INFINITY};
    getrlimit(RLIMIT_MEMLOCK, &limit);
    if (limit.rlim_cur == RLIM_INFINITY || limit_is_lifted(limit.rlim_cur))
        return UINT64_MAX;
    return limit.rlim_cur;
}

uint64_t gw_memlock_besides(unsigned endpoints)
{
    return pinned_bytes() + endpoints * PAGE_ENDPOINT_BYTES;
}

uint64_t gw_memlock_budget(uint32_t wire_flags, unsigned endpoints, uint64_t bytes_max)
{
    uint64_t budget = UINT64_MAX;
    if (!(wire_flags & GW_EP_ONE_SIDED))
        return budget;
    /* A wire within a process pins nothing that the kernel would count. */
    if ((wire_flags & GW_EP_PINS) && !(wire_flags & GW_EP_IN_PROCESS))
        budget = limit_bytes();
    if (budget != UINT64_MAX)
        budget -= gw_min_u64(budget, gw_memlock_besides(endpoints));
    return bytes_max ? gw_min_u64(budget, bytes_max) : budget;
}

void gw_memlock_hint(struct gw_error *err, int rc, uint64_t bytes)
{
    struct rlimit limit = {.rlim_cur = RLIM_INFINITY};
    getrlimit(RLIMIT_MEMLOCK, &limit);
    if (rc != -ENOMEM && rc != -EPERM)
        return;
    if (limit.rlim_cur == RLIM_INFINITY) {
        gw_error_hint(err,
                      "need %" PRIu64 " KiB that can be pinned; memlock is unlimited: free "
                      "memory on this host",
                      bytes / 1024);
        return;
    }
    uint64_t need = pinned_bytes() + bytes;
    gw_error_hint(err,
                  "need %" PRIu64 " KiB, memlock allows %" PRIu64 ", %" PRIu64
                  " are pinned: ulimit -l %" PRIu64
                  " (as root: prlimit --pid PID --memlock=%" PRIu64
                  "), CAP_IPC_LOCK, or a lower x-registered-max",
                  bytes / 1024, (uint64_t)limit.rlim_cur / 1024, pinned_bytes() / 1024,
                  need / 1024 + 1024, need + (UINT64_C(1) << 20));
}
