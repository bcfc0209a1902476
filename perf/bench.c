// SPDX-License-Identifier: MIT
/* What programs of perf/ share (bench.h). A ceiling is measured in the run that it is compared with:
 * on a shared machine it moves from one minute to the next. */
#include "perf/bench.h"

#include "core/base/clock.h"
#include "gw_commit.h"

#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <unistd.h>

#define CALL_BYTES (UINT64_C(1) << 20)
#define PAIRS_MAX 64

static _Noreturn void die(const char *what)
{
    fprintf(stderr, "perf: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* ---- the line --------------------------------------------------------------------------------- */

static void cpu_name(char *name, size_t bytes)
{
    char line[256];
    FILE *file = fopen("/proc/cpuinfo", "re");
    snprintf(name, bytes, "unknown");
    while (file && fgets(line, sizeof(line), file)) {
        char *colon = strncmp(line, "model name", 10) == 0 ? strchr(line, ':') : NULL;
        if (!colon)
            continue;
        snprintf(name, bytes, "%.*s", (int)strcspn(colon + 2, "\n"), colon + 2);
        break;
    }
    if (file)
        fclose(file);
}

json_t *gw_bench_new(const char *bench)
{
    struct utsname host;
    char cpu[128];
    uname(&host);
    cpu_name(cpu, sizeof(cpu));
    return json_pack("{s:s, s:s, s:s, s:I, s:s}", "bench", bench, "commit", GW_COMMIT, "cpu", cpu,
                     "cpus", (json_int_t)sysconf(_SC_NPROCESSORS_ONLN), "kernel", host.release);
}

void gw_bench_print(json_t *line)
{
    json_dumpf(line, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6));
    putchar('\n');
    fflush(stdout);
    json_decref(line);
}

/* ---- repeats ---------------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b)
{
    double left = *(const double *)a;
    double right = *(const double *)b;
    return (left > right) - (left < right);
}

double gw_bench_percentile(double *values, unsigned count, unsigned percent)
{
    if (count == 0)
        return 0;
    qsort(values, count, sizeof(values[0]), by_value);
    return values[(uint64_t)(count - 1) * percent / 100];
}

json_t *gw_bench_spread(double *values, unsigned count)
{
    double median = gw_bench_percentile(values, count, 50);
    return json_pack("{s:f, s:f, s:f}", "median", median, "min", count ? values[0] : 0.0, "max",
                     count ? values[count - 1] : 0.0);
}

/* ---- ceilings --------------------------------------------------------------------------------- */

static char *new_memory(uint64_t bytes, int fill)
{
    char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        die("mmap");
    madvise(memory, bytes, MADV_HUGEPAGE);
    memset(memory, fill, bytes);
    return memory;
}

double gw_bench_copy_rate(uint64_t bytes)
{
    char *from = new_memory(bytes, 1);
    char *to = new_memory(bytes, 2);
    double best = 0;
    for (int i = 0; i < 3; i++) {
        uint64_t begun = gw_clock_ns();
        memcpy(to, from, bytes);
        double rate = (double)bytes / (double)(gw_clock_ns() - begun);
        best = rate > best ? rate : best;
    }
    munmap(from, bytes);
    munmap(to, bytes);
    return best;
}

struct plain {
    int fds[2];
    char *memory[2];
    uint64_t bytes;
    pthread_t threads[2];
};

static void *plain_send(void *arg)
{
    struct plain *plain = arg;
    for (uint64_t at = 0; at < plain->bytes;) {
        uint64_t left = plain->bytes - at;
        ssize_t n = send(plain->fds[0], plain->memory[0] + at,
                         left < CALL_BYTES ? left : CALL_BYTES, MSG_NOSIGNAL);
        if (n <= 0)
            die("plain send");
        at += (uint64_t)n;
    }
    return NULL;
}

static void *plain_receive(void *arg)
{
    struct plain *plain = arg;
    for (uint64_t at = 0; at < plain->bytes;) {
        uint64_t left = plain->bytes - at;
        ssize_t n =
            recv(plain->fds[1], plain->memory[1] + at, left < CALL_BYTES ? left : CALL_BYTES, 0);
        if (n <= 0)
            die("plain recv");
        at += (uint64_t)n;
    }
    return NULL;
}

static void plain_connect(const char *wire, int fds[2])
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof(address);
    if (strcmp(wire, "unix") == 0) {
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
            die("socketpair");
        return;
    }
    int ln = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (ln < 0 || fds[0] < 0 || bind(ln, (struct sockaddr *)&address, bytes) < 0 ||
        listen(ln, 1) < 0 || getsockname(ln, (struct sockaddr *)&address, &bytes) < 0 ||
        connect(fds[0], (struct sockaddr *)&address, bytes) < 0)
        die("plain socket");
    fds[1] = accept4(ln, NULL, NULL, SOCK_CLOEXEC);
    if (fds[1] < 0)
        die("accept");
    close(ln);
}

double gw_bench_plain_rate(const char *wire, unsigned pairs, uint64_t bytes)
{
    struct plain plains[PAIRS_MAX];
    pairs = pairs < PAIRS_MAX ? pairs : PAIRS_MAX;
    uint64_t share = bytes / pairs;
    for (unsigned i = 0; i < pairs; i++) {
        plains[i] = (struct plain){.bytes = share};
        plains[i].memory[0] = new_memory(share, 1);
        plains[i].memory[1] = new_memory(share, 2);
        plain_connect(wire, plains[i].fds);
    }
    uint64_t begun = gw_clock_ns();
    for (unsigned i = 0; i < pairs; i++) {
        pthread_create(&plains[i].threads[0], NULL, plain_send, &plains[i]);
        pthread_create(&plains[i].threads[1], NULL, plain_receive, &plains[i]);
    }
    for (unsigned i = 0; i < 2 * pairs; i++)
        pthread_join(plains[i / 2].threads[i % 2], NULL);
    double rate = (double)(share * pairs) / (double)(gw_clock_ns() - begun);
    for (unsigned i = 0; i < 2 * pairs; i++) {
        close(plains[i / 2].fds[i % 2]);
        munmap(plains[i / 2].memory[i % 2], share);
    }
    return rate;
}
