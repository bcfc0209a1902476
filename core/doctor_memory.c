// SPDX-License-Identifier: MIT
/* The doctor's look at memory: how much of it a wire may pin, and huge pages.
 *
 * What pins memory is charged to RLIMIT_MEMLOCK as mlock(2) is, so the limit is tried by locking that
 * much address space: on fault, and nothing is touched, so it costs no memory. That also settles
 * what CAP_IPC_LOCK is worth here: in a user namespace it is shown and lifts nothing. */
#include "core/base/error.h"
#include "core/doctor.h"

#include <dirent.h>
#include <inttypes.h>
#include <linux/mman.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#define CAP_IPC_LOCK_BIT 14 /* capabilities(7), as numbered by the kernel */

/* With so much a wire that pins works, chunk by chunk (docs/tuning.md). */
#define GW_PINNED_LEAST_BYTES (UINT64_C(16) << 20)

/* ---- memlock ---------------------------------------------------------------------------------- */

/* Like the files of /proc/self, but for one line of `status`. */
static bool holds_capability(unsigned bit)
{
    FILE *file = fopen("/proc/self/status", "re");
    uint64_t effective = 0;
    char line[256];

    while (file && fgets(line, sizeof(line), file)) {
        if (sscanf(line, "CapEff: %" SCNx64, &effective) == 1)
            break;
    }
    if (file)
        fclose(file);
    return (effective >> bit) & 1;
}

static bool can_lock(uint64_t bytes)
{
    void *range = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (range == MAP_FAILED)
        return false;
    bool can = mlock2(range, bytes, MLOCK_ONFAULT) == 0;
    munmap(range, bytes);
    return can;
}

static const char *limit_text(rlim_t limit, char text[32])
{
    if (limit == RLIM_INFINITY)
        return "no limit";
    snprintf(text, 32, "%" PRIu64 " KiB", (uint64_t)limit / 1024);
    return text;
}

/* Root may lack CAP_SYS_RESOURCE, in a container or a user namespace: tried, and taken back. */
static bool root_can_raise(uint64_t need, const struct rlimit *limit)
{
    const struct rlimit raised = {.rlim_cur = limit->rlim_cur, .rlim_max = need};

    if (geteuid() != 0)
        return true; /* sudo's root is another */
    return setrlimit(RLIMIT_MEMLOCK, &raised) == 0 && setrlimit(RLIMIT_MEMLOCK, limit) == 0;
}

/* Within the hard limit a shell raises its own; beyond it root does, for the shell that asks. */
static void fix_memlock(struct gw_fix *fix, uint64_t need, const struct rlimit *limit)
{
    if (limit->rlim_max == RLIM_INFINITY || limit->rlim_max >= need) {
        gw_fix_command(fix, "ulimit -S -l %" PRIu64, need / 1024);
    } else if (root_can_raise(need, limit)) {
        gw_fix_command(fix, "%sprlimit --pid $$ --memlock=%" PRIu64 ":%" PRIu64, gw_fix_sudo(),
                       need, need);
    } else {
        gw_fix_note(fix,
                    "root may not raise it here (no CAP_SYS_RESOURCE): start the container with "
                    "--ulimit memlock=%" PRIu64 ":%" PRIu64 " or with --cap-add IPC_LOCK",
                    need, need);
        return;
    }
    gw_fix_note(fix,
                "for good: the line '* - memlock %" PRIu64
                "' in /etc/security/limits.d/godwit.conf and a new login, or LimitMEMLOCK=%" PRIu64
                " in the systemd unit; CAP_IPC_LOCK lifts the limit",
                need / 1024, need);
}

static void probe_memlock(struct gw_findings *all, const char *topic, bool needed, uint64_t need,
                          const char *what)
{
    bool held = holds_capability(CAP_IPC_LOCK_BIT), can = can_lock(need);
    struct rlimit limit = {0};
    char soft[32], hard[32];
    struct gw_fix fix = {0};

    getrlimit(RLIMIT_MEMLOCK, &limit);
    bool within = limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur >= need;
    const char *why = !held    ? "; CAP_IPC_LOCK is not held"
                      : within ? ""
                      : can    ? "; CAP_IPC_LOCK lifts the limit"
                            : "; CAP_IPC_LOCK is held in a user namespace, where it lifts nothing";
    if (can) {
        gw_find_ok(all, topic, needed, "need %" PRIu64 " KiB %s, have %s%s", need / 1024, what,
                   limit_text(limit.rlim_cur, soft), why);
        return;
    }
    fix_memlock(&fix, need, &limit);
    gw_find_bad(all, topic, needed, &fix, "need %" PRIu64 " KiB %s, have %s (at most %s)%s",
                need / 1024, what, limit_text(limit.rlim_cur, soft),
                limit_text(limit.rlim_max, hard), why);
}

/* ---- huge pages ------------------------------------------------------------------------------- */

static uint64_t read_number(const char *path, const char *file)
{
    char name[320], line[32];

    snprintf(name, sizeof(name), "%s/%s", path, file);
    return gw_read_line(name, line, sizeof(line)) < 0 ? 0 : strtoull(line, NULL, 10);
}

/* The size is asked for by its logarithm. A mapping is a reservation: nothing is touched. */
static bool can_map_huge(uint64_t kib)
{
    uint64_t bytes = kib * 1024;
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB |
                (int)((unsigned)__builtin_ctzll(bytes) << MAP_HUGE_SHIFT);
    void *page = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);

    if (page == MAP_FAILED)
        return false;
    munmap(page, bytes);
    return true;
}

static void probe_huge_size(struct gw_findings *all, uint64_t kib)
{
    uint64_t wanted = kib < 1048576 ? 1048576 / kib : 1;
    struct gw_fix fix = {0};
    char path[128], topic[48];

    snprintf(path, sizeof(path), "/sys/kernel/mm/hugepages/hugepages-%" PRIu64 "kB", kib);
    snprintf(topic, sizeof(topic), "hugepages %" PRIu64 " KiB", kib);
    uint64_t pages = read_number(path, "nr_hugepages");
    uint64_t free_pages = read_number(path, "free_hugepages");
    if (can_map_huge(kib)) {
        gw_find_ok(all, topic, false, "%" PRIu64 " of %" PRIu64 " free (%" PRIu64 " MiB)",
                   free_pages, pages, free_pages * kib / 1024);
        return;
    }
    gw_fix_command(&fix, "echo %" PRIu64 " | %stee %s/nr_hugepages", pages + wanted, gw_fix_sudo(),
                   path);
    gw_fix_note(&fix,
                "for a guest of 1 GiB in --memory hugetlb; the kernel takes as many as it finds "
                "in one piece, all of them at boot: hugepagesz=%" PRIu64 "K hugepages=%" PRIu64,
                kib, pages + wanted);
    gw_find_bad(all, topic, false, &fix, "%" PRIu64 " of %" PRIu64 " free", free_pages, pages);
}

static void probe_hugepages(struct gw_findings *all)
{
    DIR *folder = opendir("/sys/kernel/mm/hugepages");
    struct dirent *entry;
    unsigned kinds = 0;

    while (folder && (entry = readdir(folder)) != NULL) {
        uint64_t kib;
        if (sscanf(entry->d_name, "hugepages-%" SCNu64 "kB", &kib) == 1 && kib > 0) {
            probe_huge_size(all, kib);
            kinds++;
        }
    }
    if (folder)
        closedir(folder);
    struct gw_fix fix = {.note = "a kernel with CONFIG_HUGETLBFS"};
    if (kinds == 0)
        gw_find_bad(all, "hugepages", false, &fix, "this kernel has none");
}

/* Half of the host's memory is the largest guest that `godwit receive` takes unless told otherwise. */
void gw_doctor_memory(const struct gw_uri *uri, struct gw_findings *all)
{
    bool pins = uri && (gw_wire_flags(uri->scheme) & GW_EP_PINS) != 0;
    uint64_t page_bytes = (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t half = (uint64_t)sysconf(_SC_PHYS_PAGES) / 2 * page_bytes;

    probe_memlock(all, "memlock", pins, GW_PINNED_LEAST_BYTES,
                  "for a wire that pins memory to work at all");
    probe_memlock(all, "memlock guest", false, half,
                  "to keep a guest of half this host's memory registered");
    probe_hugepages(all);
}
