// SPDX-License-Identifier: MIT
/* perf-register: what it costs to make memory ready for a one-sided wire: gw_mr_reg() over chunks, by
 * one or more threads that take the next chunk each, as the workers of a migration do. Cold is memory
 * that nobody has touched, as at a target; warm is touched before. One JSON line for each kind of
 * memory and number of threads, milliseconds for each GiB. The ceilings of the same run: populating
 * (MADV_POPULATE_WRITE) as much cold memory by as many threads without registering it, and a memcpy. A
 * wire that pins nothing (ofi:net) registers for next to nothing: what is cold stays cold there.
 *
 *     perf-register [--wire rdma|ofi:PROVIDER] [--kind 4k|thp|hugetlb]... [--threads N]...
 *                   [--bytes TOTAL] [--chunk BYTES] [--runs N] [--smoke]
 *
 * rdma wants a device, whose address is in RIG_ADDR (scripts/soft-roce sets it), and memlock. What this machine lacks (reserved
 * huge pages, a device) is left out, with a word on stderr; nothing at all left: exit status 77. */
#include "core/base/clock.h"
#include "perf/bench.h"
#include "transport/transport.h"

#include <errno.h>
#include <getopt.h>
#include <godwit/params.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define THREADS_MAX 16
#define RUNS_MAX 101

enum kind { KIND_4K, KIND_THP, KIND_HUGETLB, KINDS };

static const char *const kind_names[KINDS] = {"4k", "thp", "hugetlb"};

static struct {
    const char *wire;
    bool kinds[KINDS];
    bool threads[THREADS_MAX + 1];
    uint64_t bytes, chunk;
    unsigned runs;
} options = {
    .wire = "ofi:tcp;ofi_rxm", .bytes = UINT64_C(1) << 30, .chunk = UINT64_C(4) << 20, .runs = 5};

/* Chunks of one piece of memory, taken by whoever comes next. */
struct field {
    char *memory;
    uint64_t chunks;
    struct gw_domain *dom; /* NULL: populate only */
    struct gw_mr **mr;
    _Atomic uint64_t next; /* relaxed: a ticket */
    _Atomic int failed;    /* relaxed: an errno; read after the join */
};

static _Noreturn void die(const char *what, const char *why)
{
    fprintf(stderr, "perf-register: %s: %s\n", what, why);
    exit(1);
}

/* NULL: there is none of this kind. */
static char *new_memory(enum kind kind)
{
    uint64_t huge = UINT64_C(2) << 20;
    int flags = MAP_PRIVATE | MAP_ANONYMOUS;
    if (kind == KIND_HUGETLB) {
        char *memory =
            mmap(NULL, options.bytes, PROT_READ | PROT_WRITE, flags | MAP_HUGETLB, -1, 0);
        return memory == MAP_FAILED ? NULL : memory;
    }
    char *memory = mmap(NULL, options.bytes + huge, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (memory == MAP_FAILED)
        die("mmap", strerror(errno));
    uint64_t skew = (uint64_t)(uintptr_t)memory % huge; /* so that huge pages can lie in it */
    uint64_t head = skew ? huge - skew : 0;
    if (head)
        munmap(memory, head);
    munmap(memory + head + options.bytes, huge - head);
    madvise(memory + head, options.bytes, kind == KIND_THP ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    return memory + head;
}

static void *work(void *arg)
{
    struct field *field = arg;
    for (;;) {
        uint64_t i = atomic_fetch_add_explicit(&field->next, 1, memory_order_relaxed);
        if (i >= field->chunks)
            return NULL;
        char *at = field->memory + i * options.chunk;
        struct gw_mr_desc desc = {.addr = at, .bytes = options.chunk, .access = GW_MR_REMOTE_WRITE};
        struct gw_error err = GW_ERROR_INIT;
        int rc;
        if (field->dom)
            rc = gw_mr_reg(field->dom, &desc, &field->mr[i], &err);
        else
            rc = madvise(at, options.chunk, MADV_POPULATE_WRITE) < 0 ? -errno : 0;
        if (rc < 0) {
            fprintf(stderr, "perf-register: chunk %llu: %s\n", (unsigned long long)i,
                    field->dom ? err.message : strerror(-rc));
            atomic_store_explicit(&field->failed, rc, memory_order_relaxed);
            return NULL;
        }
    }
}

/* Milliseconds for each GiB; negative: it failed. */
static double go_over(struct field *field, unsigned threads)
{
    pthread_t thread[THREADS_MAX];
    atomic_init(&field->next, 0);
    atomic_init(&field->failed, 0);
    uint64_t begun = gw_clock_ns();
    for (unsigned i = 0; i < threads; i++) {
        if (pthread_create(&thread[i], NULL, work, field) != 0)
            die("pthread_create", "no thread");
    }
    for (unsigned i = 0; i < threads; i++)
        pthread_join(thread[i], NULL);
    double ms = (double)(gw_clock_ns() - begun) / 1e6;
    if (atomic_load_explicit(&field->failed, memory_order_relaxed))
        return -1;
    return ms * (double)(UINT64_C(1) << 30) / (double)options.bytes;
}

static double dereg(struct field *field)
{
    uint64_t begun = gw_clock_ns();
    for (uint64_t i = 0; i < field->chunks; i++) {
        gw_mr_dereg(field->mr[i]);
        field->mr[i] = NULL;
    }
    return (double)(gw_clock_ns() - begun) / 1e6 * (double)(UINT64_C(1) << 30) /
           (double)options.bytes;
}

struct costs {
    double populate[RUNS_MAX], cold[RUNS_MAX], warm[RUNS_MAX], dereg[RUNS_MAX];
};

static bool run_once(struct field *field, enum kind kind, unsigned threads, struct costs *costs,
                     unsigned run)
{
    struct gw_domain *dom = field->dom;
    field->memory = new_memory(kind);
    if (!field->memory)
        return false;
    field->dom = NULL;
    costs->populate[run] = go_over(field, threads);
    field->dom = dom;
    costs->warm[run] = go_over(field, threads);
    dereg(field);
    munmap(field->memory, options.bytes);
    field->memory = new_memory(kind);
    if (!field->memory)
        return false;
    costs->cold[run] = go_over(field, threads);
    costs->dereg[run] = dereg(field);
    munmap(field->memory, options.bytes);
    return costs->populate[run] >= 0 && costs->warm[run] >= 0 && costs->cold[run] >= 0;
}

static bool measure(struct gw_domain *dom, enum kind kind, unsigned threads, double copy)
{
    static struct costs costs;
    struct field field = {.dom = dom, .chunks = options.bytes / options.chunk};
    field.mr = calloc(field.chunks, sizeof(struct gw_mr *));
    if (!field.mr)
        die("memory", strerror(errno));
    bool whole = true;
    for (unsigned run = 0; whole && run < options.runs; run++)
        whole = run_once(&field, kind, threads, &costs, run);
    free(field.mr);
    if (!whole) {
        fprintf(stderr, "perf-register: no %llu bytes of %s memory to be had and registered\n",
                (unsigned long long)options.bytes, kind_names[kind]);
        return false;
    }
    json_t *line = gw_bench_new("register");
    json_object_set_new(line, "wire", json_string(options.wire));
    json_object_set_new(line, "memory", json_string(kind_names[kind]));
    json_object_set_new(line, "threads", json_integer(threads));
    json_object_set_new(line, "bytes", json_integer((json_int_t)options.bytes));
    json_object_set_new(line, "chunk-bytes", json_integer((json_int_t)options.chunk));
    json_object_set_new(line, "runs", json_integer(options.runs));
    json_object_set_new(line, "cold-ms-per-gib", gw_bench_spread(costs.cold, options.runs));
    json_object_set_new(line, "warm-ms-per-gib", gw_bench_spread(costs.warm, options.runs));
    json_object_set_new(line, "end-ms-per-gib", gw_bench_spread(costs.dereg, options.runs));
    json_object_set_new(line, "populate-ms-per-gib", gw_bench_spread(costs.populate, options.runs));
    json_object_set_new(line, "memcpy-gb-per-s", json_real(copy));
    gw_bench_print(line);
    return true;
}

/* ---- a domain --------------------------------------------------------------------------------- */

/* A domain knows its device by its first endpoint only, so there is one: a page endpoint, idle. */
static struct {
    struct gw_domain *dom[2]; /* of what dials, of what accepts; the latter registers */
    struct gw_endpoint *ep[2];
    struct gw_uri uri;
    _Atomic bool connected; /* relaxed: the join orders the rest */
} pair;

static enum gw_admission admit(void *ctx, const struct gw_preface *preface, struct gw_domain **dom,
                               struct gw_wire_config *config)
{
    (void)ctx;
    (void)preface;
    (void)config;
    *dom = pair.dom[1];
    return GW_ADMIT_OK;
}

static void *dial(void *arg)
{
    struct gw_wire_config config = {.index = 1};
    struct gw_error err = GW_ERROR_INIT;
    (void)arg;
    if (gw_connect(pair.dom[0], &pair.uri, &config, &pair.ep[0], &err) < 0)
        die("connect", err.message);
    atomic_store_explicit(&pair.connected, true, memory_order_relaxed);
    return NULL;
}

/* Both ends step: some wires join so. */
static void accept_one(struct gw_listener *ln)
{
    struct gw_error err = GW_ERROR_INIT;
    while (!pair.ep[1] || !atomic_load_explicit(&pair.connected, memory_order_relaxed)) {
        struct pollfd fds[2];
        uint64_t now_ns = 0;
        if (pair.ep[1])
            gw_ep_arm(pair.ep[1], fds, 2, &now_ns);
        else if (gw_accept(ln, admit, NULL, &pair.ep[1], &err) < 0)
            die("accept", err.message);
        uint64_t wake_ns = gw_clock_ns() + GW_NS_PER_MS;
        int count = gw_listener_arm(ln, fds, 2, &wake_ns);
        gw_clock_poll(fds, (unsigned)count, wake_ns);
        gw_listener_awake(ln, fds, (unsigned)count);
    }
}

static void open_link(void)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_wire_config config = {0};
    struct gw_listener *ln;
    struct gw_uri uri;
    pthread_t dialler;
    char text[128], scheme[32];
    const char *host = strcmp(options.wire, "rdma") == 0 ? getenv("RIG_ADDR") : "127.0.0.1";
    if (!host) {
        fprintf(stderr, "perf-register: rdma: RIG_ADDR is not set\n");
        exit(77);
    }
    snprintf(scheme, sizeof(scheme), "%.*s", (int)strcspn(options.wire, ":"), options.wire);
    snprintf(text, sizeof(text), "%s:%s:0", options.wire, host);
    if (gw_wire_check(scheme, &err) < 0) {
        fprintf(stderr, "perf-register: %s\n", err.message);
        exit(77);
    }
    if (gw_uri_parse(text, &uri, &err) < 0 || gw_listen(&uri, &config, &ln, &err) < 0 ||
        gw_uri_parse(gw_listener_uri(ln), &pair.uri, &err) < 0)
        die("listen", err.message);
    for (int i = 0; i < 2; i++) {
        if (gw_domain_open(scheme, &config, &pair.dom[i], &err) < 0)
            die("domain", err.message);
    }
    if (pthread_create(&dialler, NULL, dial, NULL) != 0)
        die("pthread_create", "no thread");
    accept_one(ln);
    pthread_join(dialler, NULL);
    gw_listener_close(ln);
}

static void close_link(void)
{
    for (int i = 0; i < 2; i++)
        gw_ep_close(pair.ep[i]);
    for (int i = 0; i < 2; i++)
        gw_domain_close(pair.dom[i]);
}

/* ---- options ---------------------------------------------------------------------------------- */

static _Noreturn void usage(void)
{
    fprintf(stderr, "usage: perf-register [--wire rdma|ofi:PROVIDER] [--kind 4k|thp|hugetlb]... "
                    "[--threads N]... [--bytes TOTAL] [--chunk BYTES] [--runs N] [--smoke]\n");
    exit(2);
}

static enum kind kind_of(const char *name)
{
    for (unsigned kind = 0; kind < KINDS; kind++) {
        if (strcmp(name, kind_names[kind]) == 0)
            return (enum kind)kind;
    }
    usage();
}

static void smoke(void)
{
    options.bytes = UINT64_C(16) << 20;
    options.runs = 1;
    options.kinds[KIND_4K] = true;
    options.threads[2] = true;
}

static void parse_options(int argc, char **argv)
{
    static const struct option known[] = {
        {"wire", required_argument, NULL, 'w'},    {"kind", required_argument, NULL, 'k'},
        {"threads", required_argument, NULL, 't'}, {"bytes", required_argument, NULL, 'b'},
        {"chunk", required_argument, NULL, 'c'},   {"runs", required_argument, NULL, 'n'},
        {"smoke", no_argument, NULL, 's'},         {NULL, 0, NULL, 0},
    };
    int code;
    while ((code = getopt_long(argc, argv, "", known, NULL)) != -1) {
        unsigned long number = code == 's' || code == '?' ? 0 : strtoul(optarg, NULL, 10);
        if (code == 'w')
            options.wire = optarg;
        else if (code == 'k')
            options.kinds[kind_of(optarg)] = true;
        else if (code == 't' && number >= 1 && number <= THREADS_MAX)
            options.threads[number] = true;
        else if ((code == 'b' || code == 'c') &&
                 gw_size_parse(optarg, code == 'b' ? &options.bytes : &options.chunk, NULL) == 0)
            continue;
        else if (code == 'n' && number >= 1 && number <= RUNS_MAX)
            options.runs = (unsigned)number;
        else if (code == 's')
            smoke();
        else
            usage();
    }
    if (options.chunk < UINT64_C(2) << 20 || options.chunk % (UINT64_C(2) << 20) ||
        options.bytes < options.chunk)
        usage();
    options.bytes -= options.bytes % options.chunk;
}

static bool is_any(const bool *flags, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        if (flags[i])
            return true;
    }
    return false;
}

int main(int argc, char **argv)
{
    unsigned lines = 0;
    parse_options(argc, argv);
    if (!is_any(options.kinds, KINDS))
        memset(options.kinds, true, sizeof(options.kinds));
    if (!is_any(options.threads, THREADS_MAX + 1))
        options.threads[1] = options.threads[2] = options.threads[4] = true;
    open_link();
    double copy = gw_bench_copy_rate(options.bytes);
    for (unsigned kind = 0; kind < KINDS; kind++) {
        for (unsigned threads = 1; options.kinds[kind] && threads <= THREADS_MAX; threads++) {
            if (!options.threads[threads])
                continue;
            if (!measure(pair.dom[1], (enum kind)kind, threads, copy))
                break;
            lines++;
        }
    }
    close_link();
    return lines ? 0 : 77;
}
