// SPDX-License-Identifier: MIT
/* perf-put: how fast a wire carries puts, and at what price in system calls. A thread per
 * endpoint and side, in one process: the senders put a region over and over, the receivers only
 * receive. Afterwards puts of 4 KiB, one at a time, each endpoint its own, until a fence behind each was
 * answered. A JSON line on stdout for each kind of memory:
 *
 * warm         touched at both ends before the clock starts, and registered.
 * cold-target  never touched at the target, as a guest's memory is that arrives: each byte is put once, and
 *              the clock has what makes it there, faults or a registration that pins.
 * cold         never touched at the source either. A socket reads zeroes from there; a NIC pins new pages.
 *
 * The ceilings of the same run: a memcpy of as much memory, into touched and into untouched memory, and a
 * plain blocking send/recv loop of 1 MiB over the same kind of socket: through as much memory, as cold
 * ("plain"), and through the same MiB again and again, which then stays in the cache. A device's own ceiling
 * is not among them: for rdma it is ib_write_bw, which perf/compare-qemu-rdma runs beside this program.
 *
 *     perf-put [--wire tcp|unix|rdma|ofi:PROVIDER] [--endpoints N] [--bytes TOTAL] [--put BYTES]
 *              [--memory warm|cold-target|cold|all] [--region SIZE] [--stride N] [--smoke]
 *
 * --region is how much memory each endpoint walks over and over (256M, or all of its bytes if they are
 * fewer, or cold).
 * Provider shm wants FI_SHM_DISABLE_CMA=1; in one process it is for what closes nothing before the end.
 * rdma wants the device's address in RIG_ADDR, which scripts/soft-roce sets.
 * --stride N leaves N - 1 puts' worth between puts ("every Nth page"). */
#include "core/base/clock.h"
#include "gw_commit.h"
#include "gw_config.h"
#include "transport/ofi/ofi.h"
#include "transport/transport.h"

#include <getopt.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <unistd.h>

#define ENDPOINTS_MAX 16
#define RAW_BYTES (1u << 20)
#define LATENCY_PUTS 1000
#define LATENCY_BYTES 4096u

enum memory { WARM, COLD_TARGET, COLD, MEMORIES };

static const char *const memory_names[MEMORIES] = {"warm", "cold-target", "cold"};

static struct {
    const char *wire;
    unsigned memories; /* bits */
    unsigned endpoints;
    uint64_t bytes;
    uint32_t put;
    unsigned stride;
    uint64_t region; /* of each endpoint; 0: as fits */
} options = {.wire = "tcp",
             .memories = 1u << WARM,
             .endpoints = 1,
             .bytes = UINT64_C(4) << 30,
             .put = 1u << 20,
             .stride = 1};

static uint64_t region; /* of each endpoint, as the kind of memory that is measured wants it */

/* "ofi" of "ofi:net" */
static const char *scheme(void)
{
    static char text[32];
    snprintf(text, sizeof(text), "%.*s", (int)strcspn(options.wire, ":"), options.wire);
    return text;
}

struct side {
    struct gw_endpoint *ep;
    uint8_t *memory;
    struct gw_mr *mr;
    struct gw_rmr *rmr;
    uint64_t bytes;
    struct gw_ep_attr attr;
    double latency[LATENCY_PUTS]; /* us */
};

static _Noreturn void die(const char *what, const struct gw_error *err)
{
    fprintf(stderr, "perf-put: %s: %s\n", what, err ? err->message : strerror(errno));
    exit(1);
}

#define UNTOUCHED (-1)

static uint8_t *new_memory(uint64_t bytes, int fill)
{
    uint8_t *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        die("mmap", NULL);
    if (fill != UNTOUCHED)
        memset(memory, fill, bytes);
    return memory;
}

static void doze(struct gw_endpoint *ep)
{
    struct pollfd fds[2];
    uint64_t wake_ns = GW_NEVER_NS;
    int count = gw_ep_arm(ep, fds, 2, &wake_ns);
    if (wake_ns == 0)
        return;
    gw_clock_poll(fds, (unsigned)count, wake_ns);
    gw_ep_awake(ep, fds, (unsigned)count);
}

static ssize_t await_message(struct gw_endpoint *ep, void *buf, size_t bytes)
{
    for (;;) {
        ssize_t n = gw_recv(ep, buf, bytes);
        if (n != -EAGAIN)
            return n;
        doze(ep);
    }
}

static void *run_target(void *arg)
{
    struct side *side = arg;
    uint8_t text[16];
    ssize_t n = await_message(side->ep, text, sizeof(text));
    struct gw_error err = GW_ERROR_INIT;
    if (n < 0) {
        gw_ep_error(side->ep, &err);
        die("target", &err);
    }
    gw_ep_query(side->ep, &side->attr);
    for (; n >= 0;
         n = await_message(side->ep, text, sizeof(text))) { /* until the source hangs up */
        struct iovec iov = {.iov_base = text, .iov_len = (size_t)n};
        while (gw_send(side->ep, &iov, 1) == -EAGAIN)
            doze(side->ep);
    }
    return NULL;
}

static unsigned next_puts(const struct side *side, uint64_t *at, uint64_t left, struct gw_put *puts)
{
    unsigned n = 0;
    for (; n < 512 && left > 0; n++) {
        uint32_t bytes = left < options.put ? (uint32_t)left : options.put;
        if (*at + bytes > region)
            *at = 0;
        puts[n] = (struct gw_put){.local = side->memory + *at,
                                  .mr = side->mr,
                                  .rmr = side->rmr,
                                  .offset = *at,
                                  .bytes = bytes};
        *at += (uint64_t)options.put * options.stride;
        left -= bytes;
    }
    return n;
}

static void *run_source(void *arg)
{
    struct side *side = arg;
    struct gw_put puts[512];
    struct gw_completion done[512];
    uint64_t at = 0;
    uint64_t left = side->bytes;
    unsigned have = 0;
    unsigned first = 0;

    while (left > 0) {
        if (first == have) {
            have = next_puts(side, &at, left, puts);
            first = 0;
        }
        int put = gw_put(side->ep, puts + first, have - first);
        int got = gw_poll(side->ep, done, 512);
        if (put < 0 || got < 0) {
            struct gw_error err = GW_ERROR_INIT;
            gw_ep_error(side->ep, &err);
            die("source", &err);
        }
        for (int i = 0; i < put; i++)
            left -= puts[first++].bytes;
        if (put == 0 && got == 0)
            doze(side->ep);
    }
    char text[] = "fence";
    while (gw_send(side->ep, &(struct iovec){.iov_base = text, .iov_len = 5}, 1) == -EAGAIN)
        doze(side->ep);
    if (await_message(side->ep, text, sizeof(text)) < 0)
        die("fence", NULL);
    while (gw_poll(side->ep, done, 512) > 0)
        continue;
    gw_ep_query(side->ep, &side->attr);
    return NULL;
}

/* One page at a time, each until a message behind it was answered: then it is in the target's memory. A
 * completion says less, and other things on each wire. */
static double put_and_fence(struct side *side)
{
    struct gw_put put = {
        .local = side->memory, .mr = side->mr, .rmr = side->rmr, .bytes = LATENCY_BYTES};
    struct gw_completion done;
    char text[] = "fence";
    struct iovec iov = {.iov_base = text, .iov_len = 5};
    uint64_t begun = gw_clock_ns();
    int rc;
    while ((rc = gw_put(side->ep, &put, 1)) == 0)
        doze(side->ep);
    if (rc > 0) {
        while ((rc = gw_send(side->ep, &iov, 1)) == -EAGAIN)
            doze(side->ep);
    }
    if (rc >= 0)
        rc = (int)await_message(side->ep, text, sizeof(text));
    uint64_t ended = gw_clock_ns();
    while (rc > 0 && (rc = gw_poll(side->ep, &done, 1)) == 0)
        doze(side->ep);
    if (rc < 0) {
        struct gw_error err = GW_ERROR_INIT;
        gw_ep_error(side->ep, &err);
        die("latency", &err);
    }
    return (double)(ended - begun) / 1e3;
}

static void *run_latency(void *arg)
{
    struct side *side = arg;
    for (unsigned i = 0; i < LATENCY_PUTS; i++)
        side->latency[i] = put_and_fence(side);
    return NULL;
}

static void measure_latency(struct side *sources)
{
    pthread_t threads[ENDPOINTS_MAX];
    for (unsigned i = 0; i < options.endpoints; i++)
        pthread_create(&threads[i], NULL, run_latency, &sources[i]);
    for (unsigned i = 0; i < options.endpoints; i++)
        pthread_join(threads[i], NULL);
}

static int by_value(const void *a, const void *b)
{
    double left = *(const double *)a, right = *(const double *)b;
    return (left > right) - (left < right);
}

/* Of all endpoints' puts: the value below which @percent of them lie. */
static double latency_us(const struct side *sources, unsigned percent)
{
    static double all[ENDPOINTS_MAX * LATENCY_PUTS];
    unsigned count = options.endpoints * LATENCY_PUTS;
    for (unsigned i = 0; i < options.endpoints; i++)
        memcpy(all + (size_t)i * LATENCY_PUTS, sources[i].latency, sizeof(sources[i].latency));
    qsort(all, count, sizeof(all[0]), by_value);
    return all[(uint64_t)(count - 1) * percent / 100];
}

/* ---- the ceilings ---- */

/* @fill: of what is copied to, each time; UNTOUCHED: it is new each time. */
static double copy_rate(int fill)
{
    uint8_t *from = new_memory(region, 1);
    double best = 0;
    for (int i = 0; i < 3; i++) {
        uint8_t *to = new_memory(region, fill);
        uint64_t start = gw_clock_ns();
        memcpy(to, from, region);
        double rate = (double)region / (double)(gw_clock_ns() - start);
        best = rate > best ? rate : best;
        munmap(to, region);
    }
    munmap(from, region);
    return best;
}

struct plain {
    int fd;
    uint8_t *memory;
    uint64_t span;
};

static void *run_plain_reader(void *arg)
{
    struct plain *plain = arg;
    uint64_t at = 0;
    for (;;) {
        ssize_t n = recv(plain->fd, plain->memory + at, RAW_BYTES, 0);
        if (n <= 0)
            return NULL;
        at = at + (uint64_t)n + RAW_BYTES <= plain->span ? at + (uint64_t)n : 0;
    }
}

static bool plain_is_unix(void)
{
    return strcmp(options.wire, "unix") == 0;
}

static void plain_pair(int fds[2])
{
    if (plain_is_unix()) {
        if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds) < 0)
            die("socketpair", NULL);
        return;
    }
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof(address);
    int ln = socket(AF_INET, SOCK_STREAM, 0);
    fds[0] = socket(AF_INET, SOCK_STREAM, 0);
    if (ln < 0 || fds[0] < 0 || bind(ln, (struct sockaddr *)&address, bytes) < 0 ||
        listen(ln, 1) < 0 || getsockname(ln, (struct sockaddr *)&address, &bytes) < 0 ||
        connect(fds[0], (struct sockaddr *)&address, bytes) < 0)
        die("plain socket", NULL);
    fds[1] = accept(ln, NULL, NULL);
    close(ln);
}

/* @span: the memory that each side walks; 1 MiB stays in the cache, a region does not. */
static double plain_rate(uint64_t total, uint64_t span, enum memory kind)
{
    int fds[2];
    pthread_t reader;
    plain_pair(fds);
    uint8_t *memory = new_memory(span, kind == COLD ? UNTOUCHED : 1);
    struct plain plain = {
        .fd = fds[1], .memory = new_memory(span, kind == WARM ? 0 : UNTOUCHED), .span = span};
    uint64_t start = gw_clock_ns();
    pthread_create(&reader, NULL, run_plain_reader, &plain);
    for (uint64_t sent = 0; sent < total;) {
        ssize_t n =
            send(fds[0], memory + sent / RAW_BYTES * RAW_BYTES % span, RAW_BYTES, MSG_NOSIGNAL);
        if (n <= 0)
            die("plain send", NULL);
        sent += (uint64_t)n;
    }
    close(fds[0]);
    pthread_join(reader, NULL);
    double rate = (double)total / (double)(gw_clock_ns() - start);
    close(fds[1]);
    munmap(memory, span);
    munmap(plain.memory, span);
    return rate;
}

/* ---- set-up ---- */

static struct gw_domain *target_domain;

static enum gw_admission admit(void *ctx, const struct gw_preface *preface, struct gw_domain **dom,
                               struct gw_wire_config *config)
{
    (void)ctx;
    (void)preface;
    (void)config;
    *dom = target_domain;
    return GW_ADMIT_OK;
}

struct dial {
    struct gw_domain *dom;
    struct gw_uri uri;
    struct side *sides;
    atomic_bool connected; /* all of them; the join that follows orders the rest */
};

static void *run_dial(void *arg)
{
    struct dial *dial = arg;
    struct gw_error err = GW_ERROR_INIT;
    for (unsigned i = 0; i < options.endpoints; i++) {
        struct gw_wire_config config = {.index = (uint16_t)(i + 1)};
        if (gw_connect(dial->dom, &dial->uri, &config, &dial->sides[i].ep, &err) < 0)
            die("connect", &err);
    }
    atomic_store_explicit(&dial->connected, true, memory_order_relaxed);
    return NULL;
}

/* What is accepted has an owner, who steps it: ofi joins both ends so. */
static void step_targets(struct side *targets)
{
    for (unsigned i = 0; i < options.endpoints; i++) {
        struct pollfd fds[2];
        uint64_t wake_ns = 0;
        if (targets[i].ep)
            gw_ep_arm(targets[i].ep, fds, 2, &wake_ns);
    }
}

static void connect_all(struct gw_domain *source_domain, struct side *sources, struct side *targets)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_uri uri;
    struct gw_listener *ln;
    struct dial dial = {.dom = source_domain, .sides = sources, .connected = false};
    pthread_t dialler;
    char text[128];

    const char *address = strcmp(options.wire, "rdma") == 0 ? getenv("RIG_ADDR") : NULL;
    snprintf(text, sizeof(text), "%s:%s:0", options.wire, address ? address : "127.0.0.1");
    if (strcmp(options.wire, "unix") == 0)
        snprintf(text, sizeof(text), "unix:/tmp/godwit-perf-put.%d", (int)getpid());
    if (gw_uri_parse(text, &uri, &err) < 0 ||
        gw_listen(&uri, &(struct gw_wire_config){.index = 0}, &ln, &err) < 0 ||
        gw_uri_parse(gw_listener_uri(ln), &dial.uri, &err) < 0)
        die("listen", &err);
    pthread_create(&dialler, NULL, run_dial, &dial);
    for (unsigned got = 0;
         got < options.endpoints || !atomic_load_explicit(&dial.connected, memory_order_relaxed);) {
        struct gw_endpoint *ep;
        int rc = gw_accept(ln, admit, NULL, &ep, &err);
        if (rc < 0)
            die("accept", &err);
        if (rc == 0) {
            struct pollfd fds[2];
            uint64_t wake_ns = gw_clock_ns() + GW_NS_PER_MS;
            step_targets(targets);
            int count = gw_listener_arm(ln, fds, 2, &wake_ns);
            gw_clock_poll(fds, (unsigned)count, wake_ns);
            gw_listener_awake(ln, fds, (unsigned)count);
            continue;
        }
        struct gw_ep_attr attr;
        gw_ep_query(ep, &attr);
        targets[attr.index - 1].ep = ep;
        got++;
    }
    pthread_join(dialler, NULL);
    gw_listener_close(ln);
}

static uint64_t parse_bytes(const char *text)
{
    char *end;
    uint64_t value = strtoull(text, &end, 10);
    switch (*end) {
    case 'k':
    case 'K':
        return value << 10;
    case 'm':
    case 'M':
        return value << 20;
    case 'g':
    case 'G':
        return value << 30;
    default:
        return value;
    }
}

static unsigned parse_memory(const char *name)
{
    for (unsigned i = 0; i < MEMORIES; i++) {
        if (strcmp(name, memory_names[i]) == 0)
            return 1u << i;
    }
    return strcmp(name, "all") == 0 ? (1u << MEMORIES) - 1 : 0;
}

static void parse_options(int argc, char **argv)
{
    static const struct option longs[] = {
        {"wire", required_argument, NULL, 'w'},
        {"endpoints", required_argument, NULL, 'e'},
        {"bytes", required_argument, NULL, 'b'},
        {"put", required_argument, NULL, 'p'},
        {"memory", required_argument, NULL, 'm'},
        {"region", required_argument, NULL, 'r'},
        {"stride", required_argument, NULL, 's'},
        {"smoke", no_argument, NULL, 'S'},
        {NULL, 0, NULL, 0},
    };
    int c;
    while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        switch (c) {
        case 'w':
            options.wire = optarg;
            break;
        case 'e':
            options.endpoints = (unsigned)parse_bytes(optarg);
            break;
        case 'b':
            options.bytes = parse_bytes(optarg);
            break;
        case 'p':
            options.put = (uint32_t)parse_bytes(optarg);
            break;
        case 's':
            options.stride = (unsigned)parse_bytes(optarg);
            break;
        case 'm':
            options.memories = parse_memory(optarg);
            break;
        case 'r':
            options.region = parse_bytes(optarg);
            break;
        case 'S':
            options.bytes = UINT64_C(32) << 20;
            options.memories = (1u << MEMORIES) - 1;
            break;
        default:
            exit(2);
        }
    }
    if (!gw_wire_name(scheme()) || options.endpoints < 1 || options.endpoints > ENDPOINTS_MAX ||
        options.put < 1 || options.put > 4u << 20 || options.stride < 1 || options.bytes < 4096 ||
        options.memories == 0 || (options.region && options.region < RAW_BYTES)) {
        fprintf(stderr,
                "usage: perf-put [--wire tcp|unix|rdma|ofi:PROVIDER] [--endpoints 1..%d] "
                "[--bytes TOTAL] [--put 1..4M] [--memory warm|cold-target|cold|all] "
                "[--region 1M..] [--stride N] [--smoke]\n",
                ENDPOINTS_MAX);
        exit(2);
    }
}

/* Cold memory is cold once: each endpoint's has room for every put of it. */
static uint64_t region_for(enum memory kind)
{
    uint64_t all = options.bytes / options.endpoints * options.stride;
    uint64_t bytes = options.region ? options.region : UINT64_C(256) << 20;
    if (kind != WARM)
        bytes = (all + RAW_BYTES - 1) & ~(uint64_t)(RAW_BYTES - 1);
    else if (bytes > options.bytes && options.stride == 1)
        bytes = options.bytes & ~(uint64_t)(RAW_BYTES - 1);
    return bytes < RAW_BYTES ? RAW_BYTES : bytes;
}

static void cpu_name(char *text, size_t bytes)
{
    char line[256];
    FILE *file = fopen("/proc/cpuinfo", "re");
    snprintf(text, bytes, "unknown");
    while (file && fgets(line, sizeof(line), file)) {
        char *colon = strncmp(line, "model name", 10) == 0 ? strchr(line, ':') : NULL;
        if (colon) {
            snprintf(text, bytes, "%.*s", (int)strcspn(colon + 2, "\n\"\\"), colon + 2);
            break;
        }
    }
    if (file)
        fclose(file);
}

struct result {
    enum memory kind;
    uint64_t elapsed_ns, register_ns; /* cold memory: the one is part of the other */
    double copy[2];                   /* into touched memory, into untouched */
    double plain, cached;
};

static void report(const struct result *result, const struct side *sources,
                   const struct side *targets)
{
    uint64_t source_calls = 0, target_calls = 0, copied = 0;
    struct utsname kernel;
    char cpu[128];
    double rate = (double)options.bytes / (double)result->elapsed_ns;
    double mib = (double)options.bytes / (1 << 20);

    for (unsigned i = 0; i < options.endpoints; i++) {
        source_calls += sources[i].attr.system_calls;
        target_calls += targets[i].attr.system_calls;
        copied += sources[i].attr.copied_bytes + targets[i].attr.copied_bytes;
    }
    uname(&kernel);
    cpu_name(cpu, sizeof(cpu));
    printf("{\"bench\":\"put\",\"commit\":\"%s\",\"cpu\":\"%s\",\"cpus\":%ld,\"kernel\":\"%s\","
           "\"wire\":\"%s\",\"memory\":\"%s\",\"endpoints\":%u,\"bytes\":%llu,"
           "\"region-bytes\":%llu,\"put-bytes\":%u,\"stride\":%u,"
           "\"gb-per-s\":%.3f,\"register-ms\":%.3f,\"system-calls-per-mib\":%.3f,"
           "\"source-calls-per-mib\":%.3f,\"target-calls-per-mib\":%.3f,\"copied-bytes\":%llu,",
           GW_COMMIT, cpu, sysconf(_SC_NPROCESSORS_ONLN), kernel.release, options.wire,
           memory_names[result->kind], options.endpoints, (unsigned long long)options.bytes,
           (unsigned long long)region, options.put, options.stride, rate,
           (double)result->register_ns / 1e6, (double)(source_calls + target_calls) / mib,
           (double)source_calls / mib, (double)target_calls / mib, (unsigned long long)copied);
    printf("\"memcpy-gb-per-s\":%.3f,\"memcpy-cold-gb-per-s\":%.3f,\"of-memcpy\":%.3f,"
           "\"plain-wire\":\"%s\",\"plain-gb-per-s\":%.3f,\"plain-cached-gb-per-s\":%.3f,"
           "\"of-plain\":%.3f,\"device-ceiling\":\"%s\","
           "\"put-4k-fenced-us\":{\"median\":%.2f,\"p99\":%.2f}}\n",
           result->copy[0], result->copy[1], rate / result->copy[result->kind != WARM],
           plain_is_unix() ? "unix" : "tcp", result->plain, result->cached, rate / result->plain,
           strcmp(options.wire, "rdma") == 0 ? "ib_write_bw, in perf/compare-qemu-rdma" : "",
           latency_us(sources, 50), latency_us(sources, 99));
    fflush(stdout);
}

/* Memory for both sides, and the right to write the target's. */
static void lend(struct gw_domain *source_domain, struct side *source, struct side *target,
                 unsigned number)
{
    struct gw_error err = GW_ERROR_INIT;
    uint8_t key[GW_KEY_BYTES_MAX];
    source->bytes = options.bytes / options.endpoints;
    struct gw_mr_desc desc = {
        .addr = target->memory, .bytes = region, .access = GW_MR_REMOTE_WRITE, .region = number};
    struct gw_mr_desc local = {.addr = source->memory, .bytes = region};
    if (gw_mr_reg(target_domain, &desc, &target->mr, &err) < 0 ||
        ((gw_wire_flags(scheme()) & GW_EP_ONE_SIDED) &&
         gw_mr_reg(source_domain, &local, &source->mr, &err) < 0) ||
        gw_rmr_open(source_domain, number, region, key, (size_t)gw_mr_pack(target->mr, key),
                    &source->rmr, &err) < 0)
        die("register", &err);
}

static void put_all(struct gw_domain *source_domain, struct side *sources, struct side *targets,
                    struct result *result, pthread_t *target_threads)
{
    pthread_t source_threads[ENDPOINTS_MAX];
    for (unsigned i = 0; i < options.endpoints; i++) {
        sources[i].memory = new_memory(region, result->kind == COLD ? UNTOUCHED : 0x5a);
        targets[i].memory = new_memory(region, result->kind == WARM ? 0 : UNTOUCHED);
    }
    uint64_t start = gw_clock_ns();
    for (unsigned i = 0; i < options.endpoints; i++)
        lend(source_domain, &sources[i], &targets[i], i);
    uint64_t registered = gw_clock_ns();
    for (unsigned i = 0; i < options.endpoints; i++) {
        pthread_create(&target_threads[i], NULL, run_target, &targets[i]);
        pthread_create(&source_threads[i], NULL, run_source, &sources[i]);
    }
    for (unsigned i = 0; i < options.endpoints; i++)
        pthread_join(source_threads[i], NULL);
    result->register_ns = registered - start;
    result->elapsed_ns = gw_clock_ns() - (result->kind == WARM ? registered : start);
}

static void measure_ceilings(struct result *result)
{
    uint64_t plain_bytes = options.bytes < 1u << 30 ? options.bytes : 1u << 30;
    uint64_t span = region < plain_bytes ? region : plain_bytes & ~(uint64_t)(RAW_BYTES - 1);
    result->copy[0] = copy_rate(2);
    result->copy[1] = copy_rate(UNTOUCHED);
    result->cached = plain_rate(plain_bytes, RAW_BYTES, WARM);
    result->plain = plain_rate(plain_bytes, span < RAW_BYTES ? RAW_BYTES : span, result->kind);
}

static void measure(enum memory kind)
{
    static struct side sources[ENDPOINTS_MAX], targets[ENDPOINTS_MAX];
    pthread_t target_threads[ENDPOINTS_MAX] = {0};
    struct gw_wire_config config = {.index = 0};
    struct gw_error err = GW_ERROR_INIT;
    struct gw_domain *source_domain;
    struct result result = {.kind = kind};

    memset(sources, 0, sizeof(sources));
    memset(targets, 0, sizeof(targets));
    region = region_for(kind);
    measure_ceilings(&result);
    if (gw_domain_open(scheme(), &config, &source_domain, &err) < 0 ||
        gw_domain_open(scheme(), &config, &target_domain, &err) < 0)
        die("domain", &err);
    connect_all(source_domain, sources, targets);
    put_all(source_domain, sources, targets, &result, target_threads);
    measure_latency(sources); /* what was counted for the rate is counted by now */
    for (unsigned i = 0; i < options.endpoints; i++) {
        gw_ep_close(sources[i].ep);
        pthread_join(target_threads[i], NULL);
        gw_ep_close(targets[i].ep);
        gw_rmr_close(sources[i].rmr);
        gw_mr_dereg(sources[i].mr);
        gw_mr_dereg(targets[i].mr);
        munmap(sources[i].memory, region);
        munmap(targets[i].memory, region);
    }
    gw_domain_close(source_domain);
    gw_domain_close(target_domain);
    report(&result, sources, targets);
}

int main(int argc, char **argv)
{
    parse_options(argc, argv);
#if GW_HAVE_OFI
    gw_ofi_allow_one_process(true);
#endif
    for (unsigned kind = 0; kind < MEMORIES; kind++) {
        if (options.memories >> kind & 1)
            measure((enum memory)kind);
    }
    return 0;
}
