// SPDX-License-Identifier: MIT
/* perf-guest: how fast the built-in guest dirties memory when nobody tracks it, and what its birth
 * and its proof cost. A page written counts 4096 bytes. The ceiling of dirtying is as many threads
 * storing one word to each page of as much memory, in an order as wild as the default pattern's, and
 * nothing else; the ceiling of fill and verify
 * is memory bandwidth: a memset of the same memory by as many threads. Also: how well a rate is
 * held, and how long a pause takes. One JSON line on stdout.
 *
 *     perf-guest [--ram SIZE] [--vcpus N] [--pattern WHAT] [--memory KIND] [--fill WHAT]
 *                [--seconds S] [--smoke] */
#include "core/base/clock.h"
#include "gw_commit.h"
#include "tools/guest.h"

#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <time.h>

#define HELD_RATE (UINT64_C(200) << 20)
#define PAUSES 200
#define REPEATS 3

static double seconds = 2;

static _Noreturn void die(const char *what, const struct gw_error *err)
{
    fprintf(stderr, "perf-guest: %s: %s\n", what, err->message);
    exit(1);
}

static void sleep_s(double span)
{
    struct timespec at = {.tv_sec = (time_t)span};
    at.tv_nsec = (long)((span - (double)at.tv_sec) * 1e9);
    nanosleep(&at, NULL);
}

static double since_s(uint64_t start_ns)
{
    return (double)(gw_clock_ns() - start_ns) / GW_NS_PER_S;
}

/* ---- ceilings -------------------------------------------------------------------------------- */

struct store {
    pthread_t thread;
    char *memory;
    uint64_t bytes;
    bool words; /* one word to a random page, as often as there are pages; else all of it */
};

static void *store_main(void *arg)
{
    struct store *s = arg;
    if (!s->words) {
        memset(s->memory, 0x5a, s->bytes);
        return NULL;
    }
    uint64_t pages = s->bytes / 4096;
    uint64_t chance = 1;
    for (uint64_t i = 0; i < pages; i++) {
        chance = chance * UINT64_C(6364136223846793005) + 1;
        uint64_t page = (uint64_t)(((__uint128_t)chance * pages) >> 64);
        *(volatile uint64_t *)(void *)(s->memory + page * 4096) = i;
    }
    return NULL;
}

/* Bytes a second of @threads stores over @memory, the best of some. */
static double store_rate(char *memory, uint64_t bytes, unsigned threads, bool words)
{
    struct store stores[256];
    uint64_t share = bytes / threads / 4096 * 4096;
    double best = 0;
    for (int repeat = 0; repeat < REPEATS; repeat++) {
        uint64_t start = gw_clock_ns();
        for (unsigned i = 0; i < threads; i++) {
            stores[i] =
                (struct store){.memory = memory + i * share, .bytes = share, .words = words};
            pthread_create(&stores[i].thread, NULL, store_main, &stores[i]);
        }
        for (unsigned i = 0; i < threads; i++)
            pthread_join(stores[i].thread, NULL);
        double rate = (double)(share * threads) / since_s(start);
        best = rate > best ? rate : best;
    }
    return best;
}

static void measure_ceilings(const struct gw_guest_config *config, double *dirty, double *memory)
{
    char *room =
        mmap(NULL, config->ram_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct gw_error err = GW_ERROR_INIT;
    if (room == MAP_FAILED)
        die("mmap", &err);
    madvise(room, config->ram_bytes, MADV_HUGEPAGE);
    memset(room, 1, config->ram_bytes);
    *dirty = store_rate(room, config->ram_bytes, config->vcpus, true);
    *memory = store_rate(room, config->ram_bytes, config->vcpus, false);
    munmap(room, config->ram_bytes);
}

/* ---- the guest ------------------------------------------------------------------------------- */

static struct gw_guest *new_guest(const struct gw_guest_config *config)
{
    struct gw_guest *guest = NULL;
    struct gw_error err = GW_ERROR_INIT;
    if (gw_guest_new(config, &guest, &err) < 0)
        die("new", &err);
    return guest;
}

static double dirty_rate(struct gw_guest *guest)
{
    struct gw_guest_stats before;
    struct gw_guest_stats after;
    sleep_s(seconds / 10);
    gw_guest_stats(guest, &before);
    uint64_t start = gw_clock_ns();
    sleep_s(seconds);
    gw_guest_stats(guest, &after);
    return (double)(after.writes - before.writes) * 4096 / since_s(start);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Milliseconds until a writing guest stands still: median, and 95th percentile. */
static void measure_pauses(struct gw_guest *guest, double *median, double *p95)
{
    double spans[PAUSES];
    for (int i = 0; i < PAUSES; i++) {
        sleep_s(0.002);
        uint64_t start = gw_clock_ns();
        gw_guest_pause(guest);
        spans[i] = since_s(start) * 1000;
        gw_guest_resume(guest);
    }
    qsort(spans, PAUSES, sizeof(spans[0]), compare);
    *median = spans[PAUSES / 2];
    *p95 = spans[PAUSES * 95 / 100];
}

static double verify_s(struct gw_guest *guest)
{
    struct gw_error err = GW_ERROR_INIT;
    gw_guest_pause(guest);
    uint64_t start = gw_clock_ns();
    if (gw_guest_verify(guest, &err) < 0)
        die("verify", &err);
    return since_s(start);
}

static void cpu_name(char *name, size_t bytes)
{
    char line[256];
    FILE *file = fopen("/proc/cpuinfo", "re");
    snprintf(name, bytes, "unknown");
    while (file && fgets(line, sizeof(line), file)) {
        if (strncmp(line, "model name", 10) != 0)
            continue;
        line[strcspn(line, "\n\"\\")] = '\0';
        snprintf(name, bytes, "%s", strchr(line, ':') + 2);
        break;
    }
    if (file)
        fclose(file);
}

static void measure(struct gw_guest_config *config, const char *pattern)
{
    double dirty_ceiling;
    double memory_ceiling;
    double pause_median;
    double pause_p95;
    char cpu[128];
    struct utsname host;
    measure_ceilings(config, &dirty_ceiling, &memory_ceiling);

    config->dirty_rate = GW_GUEST_RATE_MAX;
    uint64_t start = gw_clock_ns();
    struct gw_guest *guest = new_guest(config);
    double fill = since_s(start);
    struct gw_error err = GW_ERROR_INIT;
    if (gw_guest_start(guest, &err) < 0)
        die("start", &err);
    double rate = dirty_rate(guest);
    measure_pauses(guest, &pause_median, &pause_p95);
    double verify = verify_s(guest);
    gw_guest_free(guest);

    config->dirty_rate = HELD_RATE;
    guest = new_guest(config);
    if (gw_guest_start(guest, &err) < 0)
        die("start", &err);
    double held = dirty_rate(guest);
    gw_guest_free(guest);

    uname(&host);
    cpu_name(cpu, sizeof(cpu));
    printf("{\"bench\":\"guest\",\"commit\":\"%s\",\"cpu\":\"%s\",\"kernel\":\"%s\","
           "\"ram-bytes\":%" PRIu64 ",\"vcpus\":%u,\"pattern\":\"%s\","
           "\"dirty-bytes-per-second\":%.0f,\"ceiling\":%.0f,\"fraction\":%.3f,"
           "\"fill-seconds\":%.3f,\"verify-seconds\":%.3f,"
           "\"memory-ceiling-bytes-per-second\":%.0f,"
           "\"rate-asked\":%" PRIu64 ",\"rate-held\":%.0f,"
           "\"pause-ms-median\":%.4f,\"pause-ms-p95\":%.4f}\n",
           GW_COMMIT, cpu, host.release, config->ram_bytes, config->vcpus, pattern, rate,
           dirty_ceiling, rate / dirty_ceiling, fill, verify, memory_ceiling, HELD_RATE, held,
           pause_median, pause_p95);
}

int main(int argc, char **argv)
{
    static const struct option known[] = {
        {"ram", required_argument, NULL, 0},     {"vcpus", required_argument, NULL, 0},
        {"pattern", required_argument, NULL, 0}, {"memory", required_argument, NULL, 0},
        {"fill", required_argument, NULL, 0},    {"seconds", required_argument, NULL, 's'},
        {"smoke", no_argument, NULL, 'x'},       {NULL, 0, NULL, 0},
    };
    struct gw_guest_config config;
    struct gw_error err = GW_ERROR_INIT;
    const char *pattern = "uniform";
    int code;
    int at;
    gw_guest_config_init(&config);
    config.vcpus = 2;
    while ((code = getopt_long(argc, argv, "", known, &at)) != -1) {
        if (code == '?')
            return 2;
        if (code == 's') {
            seconds = strtod(optarg, NULL);
        } else if (code == 'x') {
            seconds = 0.05;
            config.ram_bytes = 16 << 20;
        } else if (gw_guest_config_set(&config, known[at].name, optarg, &err) < 0) {
            die(known[at].name, &err);
        } else if (strcmp(known[at].name, "pattern") == 0) {
            pattern = optarg;
        }
    }
    measure(&config, pattern);
    return 0;
}
