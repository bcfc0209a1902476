// SPDX-License-Identifier: MIT
/* perf-zero: how fast pages are tested for zero, variant by variant, against what one thread can read
 * from the same memory in the same run: the fastest of plain loops that or 16, 32 or 64 bytes at a
 * time and look at nothing. Random pages are given as time per page, since hardly any of their bytes
 * are read. Median of the repeats, with the spread between fastest and slowest. One JSON line.
 *
 *     perf-zero [--bytes N] [--repeats N] [--small-pages] [--smoke] */
#include "core/base/clock.h"
#include "gw_commit.h"
#include "ram/block.h"
#include "ram/zero.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/utsname.h>

#define REPEATS_MAX 101

static struct {
    uint64_t bytes;
    unsigned repeats;
    bool small_pages;
} options = {.bytes = UINT64_C(1) << 30, .repeats = 15};

struct result {
    double median_ns;
    double spread; /* (slowest - fastest) / median */
};

typedef uint64_t pass_fn(const char *memory, uint64_t bytes);

static volatile uint64_t keep; /* so that no loop is dead */

static int by_value(const void *a, const void *b)
{
    double left = *(const double *)a;
    double right = *(const double *)b;
    return (left > right) - (left < right);
}

static struct result measure(pass_fn *pass, const char *memory)
{
    double took[REPEATS_MAX];
    keep += pass(memory, options.bytes); /* warm-up */
    for (unsigned i = 0; i < options.repeats; i++) {
        uint64_t begun = gw_clock_ns();
        keep += pass(memory, options.bytes);
        took[i] = (double)(gw_clock_ns() - begun);
    }
    qsort(took, options.repeats, sizeof(took[0]), by_value);
    double median = took[options.repeats / 2];
    return (struct result){median, (took[options.repeats - 1] - took[0]) / median};
}

/* ---- the ceiling ----------------------------------------------------------------------------- */

#define READ_LOOP(name, lanes)                                                                     \
    typedef uint64_t name##_vector __attribute__((vector_size((lanes)*8), aligned((lanes)*8)));    \
    static inline __attribute__((always_inline))                                                   \
    uint64_t name##_body(const char *memory, uint64_t bytes)                                       \
    {                                                                                              \
        const name##_vector *v = (const name##_vector *)(const void *)memory;                      \
        const name##_vector *end = v + bytes / sizeof(*v);                                         \
        name##_vector a = {0}, b = {0}, c = {0}, d = {0};                                          \
        for (; v < end; v += 4) {                                                                  \
            a |= v[0];                                                                             \
            b |= v[1];                                                                             \
            c |= v[2];                                                                             \
            d |= v[3];                                                                             \
        }                                                                                          \
        a |= b | c | d;                                                                            \
        uint64_t any = 0;                                                                          \
        for (int i = 0; i < (lanes); i++)                                                          \
            any |= a[i];                                                                           \
        return any;                                                                                \
    }

READ_LOOP(read16, 2)

static uint64_t read16(const char *memory, uint64_t bytes)
{
    return read16_body(memory, bytes);
}

#if defined(__x86_64__)
READ_LOOP(read32, 4)
READ_LOOP(read64, 8)

__attribute__((target("avx2"))) static uint64_t read32(const char *memory, uint64_t bytes)
{
    return read32_body(memory, bytes);
}

__attribute__((target("avx512f"))) static uint64_t read64(const char *memory, uint64_t bytes)
{
    return read64_body(memory, bytes);
}
#endif

static double read_bandwidth(const char *memory) /* bytes per ns */
{
    double best = (double)options.bytes / measure(read16, memory).median_ns;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2")) {
        double rate = (double)options.bytes / measure(read32, memory).median_ns;
        best = rate > best ? rate : best;
    }
    if (__builtin_cpu_supports("avx512f")) {
        double rate = (double)options.bytes / measure(read64, memory).median_ns;
        best = rate > best ? rate : best;
    }
#endif
    return best;
}

/* ---- the tests ------------------------------------------------------------------------------- */

/* As the sender does: in runs of 4 MiB. */
static uint64_t test_pages(const char *memory, uint64_t bytes)
{
    const uint64_t run = UINT64_C(4) << 20;
    uint64_t zero_pages = 0;
    for (uint64_t at = 0; at < bytes;) {
        uint64_t left = bytes - at < run ? bytes - at : run;
        bool zero;
        uint32_t alike = gw_zero_alike(memory + at, (uint32_t)(left / GW_PAGE_BYTES), &zero);
        zero_pages += zero ? alike : 0;
        at += (uint64_t)alike * GW_PAGE_BYTES;
    }
    return zero_pages;
}

static void fill_random(char *memory)
{
    uint64_t state = 88172645463325252u;
    for (uint64_t at = 0; at < options.bytes; at += sizeof(state)) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        memcpy(memory + at, &state, sizeof(state));
    }
}

static void cpu_name(char *name, size_t bytes)
{
    char line[256];
    FILE *file = fopen("/proc/cpuinfo", "re");
    snprintf(name, bytes, "unknown");
    while (file && fgets(line, sizeof(line), file)) {
        if (strncmp(line, "model name", 10) == 0) {
            line[strcspn(line, "\n")] = 0;
            snprintf(name, bytes, "%s", strchr(line, ':') + 2);
            break;
        }
    }
    if (file)
        fclose(file);
}

static bool parse(int argc, char **argv)
{
    static const struct option known[] = {{"bytes", required_argument, NULL, 'b'},
                                          {"repeats", required_argument, NULL, 'r'},
                                          {"small-pages", no_argument, NULL, 'p'},
                                          {"smoke", no_argument, NULL, 's'},
                                          {NULL, 0, NULL, 0}};
    int c;
    while ((c = getopt_long(argc, argv, "", known, NULL)) != -1) {
        if (c == 'b')
            options.bytes = strtoull(optarg, NULL, 0) >> 21 << 21;
        else if (c == 'r')
            options.repeats = (unsigned)strtoul(optarg, NULL, 0);
        else if (c == 'p')
            options.small_pages = true;
        else if (c == 's')
            options.bytes = UINT64_C(8) << 20, options.repeats = 3;
        else
            return false;
    }
    return options.bytes && options.repeats && options.repeats <= REPEATS_MAX && optind == argc;
}

int main(int argc, char **argv)
{
    if (!parse(argc, argv)) {
        fprintf(stderr, "usage: perf-zero [--bytes N] [--repeats N] [--small-pages] [--smoke]\n");
        return 2;
    }
    const uint64_t huge = UINT64_C(2) << 20;
    char *map = mmap(NULL, options.bytes + huge, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED) {
        perror("perf-zero: mmap");
        return 1;
    }
    char *memory = (char *)(((uintptr_t)map + huge - 1) & ~(uintptr_t)(huge - 1));
    madvise(memory, options.bytes, options.small_pages ? MADV_NOHUGEPAGE : MADV_HUGEPAGE);
    memset(memory, 0, options.bytes);

    double ceiling = read_bandwidth(memory);
    struct utsname system;
    uname(&system);
    char cpu[128];
    cpu_name(cpu, sizeof(cpu));
    enum gw_zero_variant chosen = gw_zero_variant();
    printf("{\"bench\":\"zero\",\"commit\":\"%s\",\"cpu\":\"%s\",\"kernel\":\"%s\",\"bytes\":%llu,"
           "\"small-pages\":%s,\"repeats\":%u,\"ceiling\":{\"what\":\"memory read, one thread\","
           "\"gbytes-per-s\":%.2f},\"chosen\":\"%s\",\"zero-pages\":{",
           GW_COMMIT, cpu, system.release, (unsigned long long)options.bytes,
           options.small_pages ? "true" : "false", options.repeats, ceiling,
           gw_zero_variant_name(chosen));
    const char *comma = "";
    for (int v = 0; v < GW_ZERO_VARIANTS; v++) {
        if (!gw_zero_force((enum gw_zero_variant)v))
            continue;
        struct result zero = measure(test_pages, memory);
        double rate = (double)options.bytes / zero.median_ns;
        printf("%s\"%s\":{\"gbytes-per-s\":%.2f,\"of-ceiling\":%.3f,\"spread\":%.3f}", comma,
               gw_zero_variant_name((enum gw_zero_variant)v), rate, rate / ceiling, zero.spread);
        comma = ",";
    }
    gw_zero_force(chosen);
    fill_random(memory);
    struct result random = measure(test_pages, memory);
    double pages = (double)options.bytes / GW_PAGE_BYTES;
    printf("},\"random-pages\":{\"ns-per-page\":%.2f,\"gbytes-per-s\":%.1f,\"spread\":%.3f}}\n",
           random.median_ns / pages, (double)options.bytes / random.median_ns, random.spread);
    munmap(map, options.bytes + huge);
    return 0;
}
