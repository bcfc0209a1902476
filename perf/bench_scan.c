// SPDX-License-Identifier: MIT
/* perf-scan: what it costs to find dirty pages. A clean map is walked for a 1 GiB and for a 1 TiB
 * block, against a plain read of as many bytes of bitmap (both are in the cache for the small block,
 * neither is for the large one); then maps with every page, every 8th page and random half of the
 * pages dirty are taken apart into runs. The block is address space only: nobody looks at its pages.
 * Median of the repeats. One JSON line.
 *
 *     perf-scan [--repeats N] [--smoke] */
#include "core/base/bitmap.h"
#include "core/base/clock.h"
#include "gw_commit.h"
#include "ram/scan.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/utsname.h>

#define REPEATS_MAX 101
#define GIB (UINT64_C(1) << 30)

static unsigned repeats = 21;
static volatile uint64_t keep;

struct subject {
    struct gw_ram *ram;
    struct gw_chunks *chunks;
    struct gw_block *block;
    void *host;
    uint64_t bytes;
};

enum pattern { CLEAN, ALL, EVERY_EIGHTH, HALF };

static _Noreturn void die(const char *what)
{
    fprintf(stderr, "perf-scan: %s\n", what);
    exit(1);
}

static void open_subject(struct subject *subject, uint64_t bytes)
{
    subject->bytes = bytes;
    subject->host = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    subject->ram = gw_ram_new();
    if (subject->host == MAP_FAILED || !subject->ram)
        die("out of memory");
    struct gw_block_desc desc = {
        .struct_bytes = sizeof(desc),
        .name = "ram",
        .host = subject->host,
        .size_bytes = bytes,
        .page_bytes = GW_PAGE_BYTES,
        .fd = -1,
    };
    struct gw_error err = GW_ERROR_INIT;
    if (gw_ram_add_block(subject->ram, &desc, &err) < 0 ||
        gw_ram_layout(subject->ram, GW_STRIPE_BYTES_DEFAULT, 1, &err) < 0 ||
        gw_ram_source_begin(subject->ram, &err) < 0)
        die(err.message);
    subject->block = gw_ram_block(subject->ram, 0);
    struct gw_chunks_config config = {.ram = subject->ram};
    subject->chunks = gw_chunks_new(&config, &err);
    if (!subject->chunks)
        die(err.message);
    memset(subject->block->dirty, 0,
           bytes / GW_PAGE_BYTES / 8); /* memory of its own, not one shared page */
}

static void close_subject(struct subject *subject)
{
    gw_chunks_free(subject->chunks);
    gw_ram_free(subject->ram);
    munmap(subject->host, subject->bytes);
}

static void fill(struct subject *subject, enum pattern pattern)
{
    uint64_t *map = subject->block->dirty;
    uint64_t state = 88172645463325252u;
    for (uint64_t word = 0; word < subject->bytes / GW_PAGE_BYTES / 64; word++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        static const uint64_t plain[] = {0, ~UINT64_C(0), UINT64_C(0x0101010101010101)};
        map[word] = pattern == HALF ? state : plain[pattern];
    }
}

static uint64_t scan(struct subject *subject)
{
    uint64_t runs = 0;
    struct gw_stripe stripe;
    for (uint64_t i = 0; gw_ram_stripe(subject->ram, 0, i, &stripe); i++) {
        struct gw_scan scan;
        struct gw_run run;
        gw_scan_begin(&scan, subject->ram, subject->chunks, &stripe);
        while (gw_scan_next(&scan, 1024, &run))
            runs++;
    }
    return runs;
}

static int by_value(const void *a, const void *b)
{
    double left = *(const double *)a;
    double right = *(const double *)b;
    return (left > right) - (left < right);
}

static double median(double *took)
{
    qsort(took, repeats, sizeof(took[0]), by_value);
    return took[repeats / 2];
}

static double time_scan(struct subject *subject, enum pattern pattern, uint64_t *runs)
{
    double took[REPEATS_MAX];
    for (unsigned i = 0; i < repeats; i++) {
        fill(subject, pattern);
        uint64_t begun = gw_clock_ns();
        *runs = scan(subject);
        took[i] = (double)(gw_clock_ns() - begun);
    }
    return median(took);
}

static double time_read(const struct subject *subject)
{
    typedef uint64_t vector __attribute__((vector_size(16), aligned(8)));
    double took[REPEATS_MAX];
    for (unsigned i = 0; i < repeats; i++) {
        uint64_t begun = gw_clock_ns();
        const vector *v = (const vector *)(const void *)subject->block->dirty;
        const vector *end = v + subject->bytes / GW_PAGE_BYTES / 8 / sizeof(*v);
        vector a = {0}, b = {0}, c = {0}, d = {0};
        for (; v < end; v += 4) {
            a |= v[0];
            b |= v[1];
            c |= v[2];
            d |= v[3];
        }
        a |= b | c | d;
        keep += a[0] + a[1];
        took[i] = (double)(gw_clock_ns() - begun);
    }
    return median(took);
}

static void print_clean(const char *name, uint64_t bytes)
{
    struct subject subject;
    uint64_t runs;
    open_subject(&subject, bytes);
    double scanned = time_scan(&subject, CLEAN, &runs);
    double read = time_read(&subject);
    printf(",\"%s\":{\"block-bytes\":%llu,\"us\":%.2f,\"ceiling-us\":%.2f,\"of-ceiling\":%.3f}",
           name, (unsigned long long)bytes, scanned / 1e3, read / 1e3, read / scanned);
    close_subject(&subject);
}

static void print_dirty(struct subject *subject, const char *name, enum pattern pattern)
{
    uint64_t runs;
    double took = time_scan(subject, pattern, &runs);
    printf(",\"%s\":{\"us\":%.2f,\"runs\":%llu,\"ns-per-run\":%.2f}", name, took / 1e3,
           (unsigned long long)runs, took / (double)runs);
}

int main(int argc, char **argv)
{
    static const struct option known[] = {{"repeats", required_argument, NULL, 'r'},
                                          {"smoke", no_argument, NULL, 's'},
                                          {NULL, 0, NULL, 0}};
    int c;
    bool smoke = false;
    while ((c = getopt_long(argc, argv, "", known, NULL)) != -1) {
        if (c == 'r')
            repeats = (unsigned)strtoul(optarg, NULL, 0);
        smoke |= c == 's';
        if (c == '?')
            return 2;
    }
    repeats = smoke ? 3 : repeats;
    if (!repeats || repeats > REPEATS_MAX)
        die("--repeats: 1 to 101");
    struct utsname system;
    uname(&system);
    printf("{\"bench\":\"scan\",\"commit\":\"%s\",\"kernel\":\"%s\",\"repeats\":%u", GW_COMMIT,
           system.release, repeats);
    print_clean("clean-small", GIB);
    print_clean("clean-large", smoke ? 16 * GIB : 1024 * GIB);
    struct subject subject;
    open_subject(&subject, GIB);
    print_dirty(&subject, "all-dirty", ALL);
    print_dirty(&subject, "every-8th", EVERY_EIGHTH);
    print_dirty(&subject, "random-half", HALF);
    close_subject(&subject);
    printf("}\n");
    return 0;
}
