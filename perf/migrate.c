// SPDX-License-Identifier: MIT
/* perf-migrate: whole migrations from one process to another on this machine, a JSON line each part.
 *
 * idle       `godwit receive --prealloc` and `godwit send`, a guest that does not write: the downtime
 *            and its ledger, the total time, the rate against the ceilings of the same run (a memcpy,
 *            and plain send and recv loops over as many sockets), CPU time, system calls.
 * bandwidth  how well max-bandwidth is held: the bytes that the source has handed to the wire, looked
 *            at every 10 ms. A snapshot says when it was taken (total_ns), so windows of a second are
 *            laid between snapshots, wherever they came; reported is how far from the limit their
 *            rates are. A window never reaches into set-up or into the switchover.
 * calls      system calls of the wire at both ends, for each MiB of pages: of one round over all of
 *            memory (contiguous), and of rounds of every 8th page. The latter is a migration of both,
 *            less the calls of one that ended after its first round, as an embedder that brings its
 *            own dirty log sees them.
 *
 *     perf-migrate [--part idle|bandwidth|calls]... [--wire tcp|unix|rdma|ofi:PROVIDER] [--channels N]
 *                  [--ram SIZE] [--runs N] [--limit RATE] [--smoke]
 *
 * idle runs the command that lies beside this program, and says of one-sided wires how many chunks were
 * ready in time and how many control messages the source said in its first round. ofi:shm wants
 * FI_SHM_DISABLE_CMA=1, rdma the device's address in RIG_ADDR, which scripts/soft-roce sets; a plain loop beside
 * them is one over tcp. The others are embedders themselves. Sources are in this process, targets in a child of
 * it. */
#include "core/base/clock.h"
#include "perf/bench.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <godwit/source.h>
#include <godwit/target.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE GW_DIRTY_PAGE_BYTES
#define STRIDE 8
#define GROUP 512 /* pages; a sync's range begins at a multiple of it */
#define RUNS_MAX 101
#define SAMPLES_MAX 65536
#define SAMPLE_NS (10 * GW_NS_PER_MS)
#define WINDOW_NS GW_NS_PER_S

enum part { PART_IDLE = 1, PART_BANDWIDTH = 2, PART_CALLS = 4, PARTS_ALL = 7 };

static struct {
    unsigned parts;
    const char *wire;
    unsigned channels;
    uint64_t ram;
    unsigned runs;
    uint64_t limit; /* bytes per second */
    unsigned rounds;
} options = {.wire = "tcp",
             .channels = 2,
             .ram = UINT64_C(1) << 30,
             .runs = 5,
             .limit = UINT64_C(200) << 20,
             .rounds = 8};

static _Noreturn void die(const char *what, const char *why)
{
    fprintf(stderr, "perf-migrate: %s: %s\n", what, why);
    exit(1);
}

static bool is_ofi(void)
{
    return strncmp(options.wire, "ofi:", 4) == 0;
}

static bool is_rdma(void)
{
    return strcmp(options.wire, "rdma") == 0;
}

static bool is_one_sided(void)
{
    return is_ofi() || is_rdma();
}

static const char *listen_uri(void)
{
    static char uri[128];
    if (strcmp(options.wire, "tcp") == 0)
        return "tcp:127.0.0.1:0";
    if (is_one_sided()) {
        snprintf(uri, sizeof(uri), "%s:%s:0", options.wire,
                 is_rdma() ? getenv("RIG_ADDR") : "127.0.0.1");
        return uri;
    }
    snprintf(uri, sizeof(uri), "unix:/tmp/godwit-perf-migrate.%d", (int)getpid());
    return uri;
}

static json_t *new_line(const char *part)
{
    json_t *line = gw_bench_new("migrate");
    json_object_set_new(line, "part", json_string(part));
    json_object_set_new(line, "wire", json_string(options.wire));
    json_object_set_new(line, "channels", json_integer(options.channels));
    json_object_set_new(line, "ram-bytes", json_integer((json_int_t)options.ram));
    return line;
}

static void set_ceilings(json_t *line, double rate)
{
    double copy = gw_bench_copy_rate(options.ram);
    double plain =
        gw_bench_plain_rate(is_one_sided() ? "tcp" : options.wire, options.channels, options.ram);
    json_object_set_new(line, "memcpy-gb-per-s", json_real(copy));
    json_object_set_new(line, "plain-gb-per-s", json_real(plain));
    json_object_set_new(line, "of-plain", json_real(rate / plain));
}

/* ---- the command ------------------------------------------------------------------------------ */

struct process {
    pid_t pid;
    int out; /* a memfd */
    int err; /* a pipe, or -1 */
};

static void command_path(char *path, size_t bytes)
{
    ssize_t length = readlink("/proc/self/exe", path, bytes - sizeof("godwit"));
    if (length < 0)
        die("/proc/self/exe", strerror(errno));
    path[length] = '\0';
    strcpy(strrchr(path, '/') + 1, "godwit");
}

static struct process start(bool talks, const char *const *words)
{
    struct process process = {.out = memfd_create("document", MFD_CLOEXEC), .err = -1};
    char path[4096];
    int fds[2] = {-1, -1};
    command_path(path, sizeof(path));
    if (process.out < 0 || (talks && pipe2(fds, O_CLOEXEC) < 0))
        die("pipe", strerror(errno));
    process.pid = fork();
    if (process.pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(process.out, STDOUT_FILENO);
        if (talks)
            dup2(fds[1], STDERR_FILENO);
        execv(path, (char *const *)(uintptr_t)words);
        _exit(127);
    }
    if (process.pid < 0)
        die("fork", strerror(errno));
    if (talks)
        close(fds[1]);
    process.err = fds[0];
    return process;
}

static void read_uri(const struct process *process, char *uri)
{
    char line[512];
    FILE *err = fdopen(process->err, "r");
    while (err && fgets(line, sizeof(line), err)) {
        if (sscanf(line, "listening on %255s", uri) == 1)
            return; /* the pipe stays open: what else it says must not kill it */
        fputs(line, stderr);
    }
    die("receive", "it never listened");
}

static json_t *finish(const struct process *process, const char *name)
{
    int status = 0;
    waitpid(process->pid, &status, 0);
    lseek(process->out, 0, SEEK_SET);
    json_t *document = json_loadfd(process->out, 0, NULL);
    close(process->out);
    if (status != 0 || !document)
        die(name, "it failed (is the command built beside this program?)");
    return document;
}

static double real_at(json_t *document, const char *first, const char *second)
{
    json_t *value = json_object_get(document, first);
    return json_number_value(second ? json_object_get(value, second) : value);
}

/* ---- idle ------------------------------------------------------------------------------------- */

struct idle {
    double downtime[RUNS_MAX], total[RUNS_MAX], setup[RUNS_MAX], rate[RUNS_MAX], calls[RUNS_MAX];
    double cpu[2][RUNS_MAX];
    double chunks_ready[RUNS_MAX], said[RUNS_MAX]; /* of those needed; in the first round */
    double ledger[16][RUNS_MAX];
};

static const char *const ledger_rows[] = {
    "pause-ms",  "sync-ms",   "puts-ms",        "fences-ms",  "device-save-ms", "wire-ms",
    "revoke-ms", "digest-ms", "device-load-ms", "release-ms", "acquire-ms",     "resume-ms"};
#define LEDGER_ROWS (sizeof(ledger_rows) / sizeof(ledger_rows[0]))

static void idle_run(struct idle *idle, unsigned run)
{
    char uri[256] = "", ram[32], prealloc[32], channels[48];
    snprintf(ram, sizeof(ram), "%lluk", (unsigned long long)options.ram >> 10);
    /* The guest's own table comes on top, 1/512 of it. */
    snprintf(prealloc, sizeof(prealloc), "%lluk",
             (unsigned long long)(options.ram >> 10) * 129 / 128);
    snprintf(channels, sizeof(channels), "multifd-channels=%u", options.channels);
    struct process target =
        start(true, (const char *const[]){"godwit", "receive", listen_uri(), "--prealloc", prealloc,
                                          "--run-for", "0", "--quiet", "--json", "-", NULL});
    read_uri(&target, uri);
    struct process source =
        start(false, (const char *const[]){"godwit", "send", uri, "--ram", ram, "--warmup", "0.2",
                                           "--set", channels, "--quiet", "--json", "-", NULL});
    json_t *from = finish(&source, "send");
    json_t *to = finish(&target, "receive");
    json_t *first = json_array_get(json_object_get(from, "rounds"), 0);
    double mib = real_at(from, "ram", "normal-bytes") / (1 << 20);
    idle->downtime[run] = real_at(from, "downtime-ms", NULL);
    idle->total[run] = real_at(from, "total-time-ms", NULL);
    idle->setup[run] = real_at(from, "setup-time-ms", NULL);
    idle->rate[run] = real_at(first, "bytes", NULL) / real_at(first, "duration-ms", NULL) / 1e6;
    idle->calls[run] =
        (real_at(from, "wire", "system-calls") + real_at(to, "wire", "system-calls")) / mib;
    idle->cpu[0][run] = real_at(from, "cpu", "user-ms") + real_at(from, "cpu", "system-ms");
    idle->cpu[1][run] = real_at(to, "cpu", "user-ms") + real_at(to, "cpu", "system-ms");
    idle->chunks_ready[run] =
        real_at(from, "wire", "chunks-ready") / fmax(real_at(from, "wire", "chunks-needed"), 1);
    idle->said[run] = real_at(first, "control-messages", NULL);
    for (unsigned i = 0; i < LEDGER_ROWS; i++)
        idle->ledger[i][run] = real_at(from, "downtime", ledger_rows[i]);
    json_decref(from);
    json_decref(to);
}

static void measure_idle(void)
{
    static struct idle idle;
    json_t *line = new_line("idle"), *ledger = json_object();
    for (unsigned run = 0; run < options.runs; run++)
        idle_run(&idle, run);
    for (unsigned i = 0; i < LEDGER_ROWS; i++)
        json_object_set_new(ledger, ledger_rows[i],
                            json_real(gw_bench_percentile(idle.ledger[i], options.runs, 50)));
    json_object_set_new(line, "runs", json_integer(options.runs));
    json_object_set_new(line, "downtime-ms", gw_bench_spread(idle.downtime, options.runs));
    json_object_set_new(line, "ledger-median", ledger);
    json_object_set_new(line, "total-time-ms", gw_bench_spread(idle.total, options.runs));
    json_object_set_new(line, "setup-time-ms", gw_bench_spread(idle.setup, options.runs));
    json_object_set_new(line, "first-round-gb-per-s", gw_bench_spread(idle.rate, options.runs));
    json_object_set_new(line, "source-cpu-ms", gw_bench_spread(idle.cpu[0], options.runs));
    json_object_set_new(line, "target-cpu-ms", gw_bench_spread(idle.cpu[1], options.runs));
    json_object_set_new(line, "system-calls-per-mib", gw_bench_spread(idle.calls, options.runs));
    if (is_one_sided())
        json_object_set_new(line, "chunks-ready", gw_bench_spread(idle.chunks_ready, options.runs));
    json_object_set_new(line, "first-round-control-messages",
                        gw_bench_spread(idle.said, options.runs));
    set_ceilings(line, gw_bench_percentile(idle.rate, options.runs, 50));
    gw_bench_print(line);
}

/* ---- a target in a child ---------------------------------------------------------------------- */

struct told { /* child -> parent, in this order */
    char uri[256];
};

struct target {
    char *memory; /* touched before it listens */
    uint64_t bytes;
};

static char *new_memory(uint64_t bytes, int fill)
{
    char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        die("mmap", strerror(errno));
    madvise(memory, bytes, MADV_HUGEPAGE);
    memset(memory, fill, bytes);
    return memory;
}

static int offered(void *ctx, const struct gw_block_offer *offer, struct gw_block_desc *desc,
                   struct gw_error *err)
{
    struct target *target = ctx;
    if (offer->size_bytes != target->bytes)
        return gw_error_set(err, -EINVAL, GW_CODE_BLOCK, "not the size that was agreed on");
    desc->host = target->memory;
    desc->page_bytes = PAGE;
    desc->kind = GW_BLOCK_ANON;
    desc->fd = -1;
    return 0;
}

static int nothing(void *ctx, struct gw_error *err)
{
    (void)ctx;
    (void)err;
    return 0;
}

static const struct gw_target_ops target_ops = {
    .struct_bytes = sizeof(target_ops), .block_offered = offered, .run = nothing};

static _Noreturn void be_target(int out)
{
    struct target memory = {.memory = new_memory(options.ram, 0), .bytes = options.ram};
    struct gw_error err = GW_ERROR_INIT;
    struct gw_target_config config = {
        .struct_bytes = sizeof(config), .ops = &target_ops, .ctx = &memory};
    struct gw_stats stats = {.struct_bytes = sizeof(stats)};
    struct gw_target *tgt;
    struct told told;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (gw_loop_new(&config.loop, &err) < 0 || gw_target_new(&config, &tgt, &err) < 0 ||
        gw_target_listen(tgt, listen_uri(), &err) < 0)
        die("target", err.message);
    snprintf(told.uri, sizeof(told.uri), "%s", gw_target_uri(tgt));
    if (write(out, &told, sizeof(told)) != sizeof(told))
        die("pipe", strerror(errno));
    if (gw_target_wait(tgt, -1, &err) < 0)
        die("target", err.message);
    gw_target_stats(tgt, &stats);
    if (write(out, &stats, sizeof(stats)) != sizeof(stats))
        die("pipe", strerror(errno));
    gw_target_free(tgt);
    gw_loop_free(config.loop);
    exit(0);
}

/* ---- a source here ---------------------------------------------------------------------------- */

/* A dirty log of our own: after each of so many rounds every STRIDE-th page was written. */
struct strided {
    char *memory;
    unsigned rounds;
    unsigned *syncs; /* how often each group of pages was asked for; a group has one owner */
};

static int log_start(void *ctx, unsigned block_id, const struct gw_block_desc *block,
                     struct gw_error *err)
{
    (void)ctx;
    (void)block_id;
    (void)block;
    (void)err;
    return 0;
}

static int log_sync(void *ctx, unsigned block_id, uint64_t first_page, uint64_t pages,
                    uint64_t *bitmap, struct gw_error *err)
{
    struct strided *log = ctx;
    (void)block_id;
    (void)err;
    if (log->syncs[first_page / GROUP]++ >= log->rounds)
        return 0;
    for (uint64_t page = 0; page < pages; page += STRIDE) {
        *(volatile uint64_t *)(void *)(log->memory + (first_page + page) * PAGE) += 1;
        bitmap[page / 64] |= UINT64_C(1) << page % 64;
    }
    return 0;
}

static void log_stop(void *ctx, unsigned block_id)
{
    (void)ctx;
    (void)block_id;
}

static const struct gw_dirty_ops log_ops = {.struct_bytes = sizeof(log_ops),
                                            .name = "strided",
                                            .flags = GW_DIRTY_SEES_VCPU,
                                            .start = log_start,
                                            .sync = log_sync,
                                            .stop = log_stop};

static const struct gw_source_ops source_ops = {
    .struct_bytes = sizeof(source_ops), .pause = nothing, .resume = nothing};

struct sample {
    uint64_t at_ns;
    uint64_t bytes;
};

struct run {
    unsigned rounds;   /* of every STRIDE-th page */
    uint64_t limit;    /* max-bandwidth; 0: none */
    uint64_t limit_ms; /* downtime-limit */
    struct sample *samples;
    unsigned sample_count;
    struct gw_stats source, target;
};

static void take_sample(struct run *run, const struct gw_source *src)
{
    struct gw_stats stats = {.struct_bytes = sizeof(stats)};
    gw_source_stats(src, &stats);
    const struct sample *last = run->sample_count ? &run->samples[run->sample_count - 1] : NULL;
    if (stats.status != GW_STATUS_ACTIVE || run->sample_count == SAMPLES_MAX)
        return;
    if (!last || last->at_ns != stats.total_ns)
        run->samples[run->sample_count++] =
            (struct sample){stats.total_ns, stats.transferred_bytes};
}

/* Until it ended, looking every 10 ms if somebody wants to see. */
static void watch(struct run *run, struct gw_source *src, struct gw_loop *loop)
{
    struct gw_error err = GW_ERROR_INIT;
    uint64_t next_ns = gw_clock_ns();
    int rc;
    while ((rc = gw_source_wait(src, 0, &err)) == -EINPROGRESS) {
        struct pollfd fd = {.fd = gw_loop_fd(loop), .events = POLLIN};
        next_ns += SAMPLE_NS;
        gw_clock_poll(&fd, 1, next_ns);
        if (gw_clock_ns() < next_ns)
            next_ns -= SAMPLE_NS; /* something else woke us */
        else if (run->samples)
            take_sample(run, src);
    }
    if (rc < 0)
        die("source", err.message);
}

static void set(struct gw_params *params, const char *name, uint64_t value)
{
    struct gw_error err = GW_ERROR_INIT;
    char text[32];
    snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
    if (gw_params_set(params, name, text, &err) < 0)
        die(name, err.message);
}

static struct gw_source *new_source(const struct run *run, struct gw_loop *loop,
                                    struct strided *log)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_params *params = gw_params_new();
    struct gw_source_config config = {
        .struct_bytes = sizeof(config), .loop = loop, .ops = &source_ops, .params = params};
    struct gw_block_desc block = {.struct_bytes = sizeof(block),
                                  .name = "ram",
                                  .host = log->memory,
                                  .size_bytes = options.ram,
                                  .page_bytes = PAGE,
                                  .kind = GW_BLOCK_ANON,
                                  .fd = -1};
    struct gw_source *src;
    set(params, "multifd-channels", options.channels);
    set(params, "max-bandwidth", run->limit);
    set(params, "downtime-limit", run->limit_ms);
    if (gw_source_new(&config, &src, &err) < 0 || gw_source_add_block(src, &block, &err) < 0 ||
        gw_source_add_dirty(src, &log_ops, log, &err) < 0)
        die("source", err.message);
    gw_params_free(params);
    return src;
}

static void migrate(struct run *run, char *memory)
{
    struct strided log = {.memory = memory, .rounds = run->rounds};
    log.syncs = calloc(options.ram / PAGE / GROUP + 1, sizeof(*log.syncs));
    struct gw_error err = GW_ERROR_INIT;
    struct gw_loop *loop;
    struct told told;
    int fds[2], status = 0;
    if (pipe2(fds, O_CLOEXEC) < 0)
        die("pipe", strerror(errno));
    pid_t child = fork();
    if (child == 0)
        be_target(fds[1]);
    close(fds[1]);
    if (!log.syncs || child < 0 || read(fds[0], &told, sizeof(told)) != sizeof(told))
        die("target", "it did not come up");
    if (gw_loop_new(&loop, &err) < 0)
        die("loop", err.message);
    struct gw_source *src = new_source(run, loop, &log);
    if (gw_source_start(src, told.uri, &err) < 0)
        die("source", err.message);
    watch(run, src, loop);
    run->source.struct_bytes = sizeof(run->source);
    gw_source_stats(src, &run->source);
    gw_source_free(src);
    gw_loop_free(loop);
    free(log.syncs);
    if (read(fds[0], &run->target, sizeof(run->target)) != sizeof(run->target))
        die("target", "it went without a word");
    close(fds[0]);
    waitpid(child, &status, 0);
}

static char *new_guest(void)
{
    char *memory = new_memory(options.ram, 0x5a);
    madvise(memory, options.ram, MADV_DONTFORK);
    return memory;
}

/* ---- bandwidth -------------------------------------------------------------------------------- */

static void measure_bandwidth(void)
{
    struct run run = {.limit = options.limit, .limit_ms = 1000};
    json_t *line = new_line("bandwidth");
    char *memory = new_guest();
    run.samples = calloc(SAMPLES_MAX, sizeof(*run.samples));
    double *away = calloc(SAMPLES_MAX, sizeof(*away));
    double *rates = calloc(SAMPLES_MAX, sizeof(*rates));
    if (!run.samples || !away || !rates)
        die("memory", strerror(errno));
    migrate(&run, memory);
    unsigned windows = 0, end = 0;
    for (unsigned begin = 0; begin < run.sample_count; begin++) {
        const struct sample *from = &run.samples[begin];
        while (end < run.sample_count && run.samples[end].at_ns - from->at_ns < WINDOW_NS)
            end++;
        if (end == run.sample_count)
            break;
        rates[windows] = (double)(run.samples[end].bytes - from->bytes) /
                         (double)(run.samples[end].at_ns - from->at_ns) * 1e9;
        double off = rates[windows] / (double)options.limit - 1;
        away[windows++] = off < 0 ? -off : off;
    }
    json_object_set_new(line, "limit-bytes-per-s", json_integer((json_int_t)options.limit));
    json_object_set_new(line, "total-time-ms", json_real((double)run.source.total_ns / 1e6));
    json_object_set_new(line, "snapshots", json_integer(run.sample_count));
    json_object_set_new(line, "windows", json_integer(windows));
    json_object_set_new(line, "bytes-per-s", gw_bench_spread(rates, windows));
    json_object_set_new(line, "deviation-p95", json_real(gw_bench_percentile(away, windows, 95)));
    json_object_set_new(line, "deviation-max", json_real(gw_bench_percentile(away, windows, 100)));
    set_ceilings(line, (double)options.limit / 1e9);
    gw_bench_print(line);
    free(run.samples);
    free(away);
    free(rates);
    munmap(memory, options.ram);
}

/* ---- system calls ----------------------------------------------------------------------------- */

static uint64_t calls_of(const struct run *run)
{
    return run->source.wire_system_calls + run->target.wire_system_calls;
}

static void print_calls(const char *pattern, double *both, double *source, double *mib,
                        double *rate)
{
    json_t *line = new_line("calls");
    json_object_set_new(line, "pattern", json_string(pattern));
    json_object_set_new(line, "runs", json_integer(options.runs));
    json_object_set_new(line, "mib", json_real(mib[0]));
    json_object_set_new(line, "system-calls-per-mib", gw_bench_spread(both, options.runs));
    json_object_set_new(line, "source-calls-per-mib", gw_bench_spread(source, options.runs));
    json_object_set_new(line, "gb-per-s", gw_bench_spread(rate, options.runs));
    set_ceilings(line, gw_bench_percentile(rate, options.runs, 50));
    gw_bench_print(line);
}

static void measure_calls(void)
{
    static double both[2][RUNS_MAX], source[2][RUNS_MAX], mib[2][RUNS_MAX], rate[2][RUNS_MAX];
    char *memory = new_guest();
    for (unsigned i = 0; i < options.runs; i++) {
        /* One ends after its first round, which leaves nothing. In the other nothing but an end of
         * the writing fits into a limit of no time at all. */
        struct run plain = {.limit_ms = 1000}, strided = {.rounds = options.rounds};
        migrate(&plain, memory);
        migrate(&strided, memory);
        uint64_t pages = strided.source.normal_pages - plain.source.normal_pages;
        mib[0][i] = (double)plain.source.normal_pages * PAGE / (1 << 20);
        mib[1][i] = (double)pages * PAGE / (1 << 20);
        both[0][i] = (double)calls_of(&plain) / mib[0][i];
        both[1][i] = ((double)calls_of(&strided) - (double)calls_of(&plain)) / mib[1][i];
        source[0][i] = (double)plain.source.wire_system_calls / mib[0][i];
        source[1][i] =
            ((double)strided.source.wire_system_calls - (double)plain.source.wire_system_calls) /
            mib[1][i];
        rate[0][i] = (double)plain.source.normal_pages * PAGE /
                     (double)(plain.source.total_ns - plain.source.setup_ns);
        rate[1][i] = (double)pages * PAGE /
                     ((double)strided.source.total_ns - (double)plain.source.total_ns);
    }
    print_calls("contiguous", both[0], source[0], mib[0], rate[0]);
    print_calls("every-8th-page", both[1], source[1], mib[1], rate[1]);
    munmap(memory, options.ram);
}

/* ---- options ---------------------------------------------------------------------------------- */

static _Noreturn void usage(void)
{
    fprintf(stderr, "usage: perf-migrate [--part idle|bandwidth|calls]... "
                    "[--wire tcp|unix|rdma|ofi:PROVIDER] "
                    "[--channels N] [--ram SIZE] [--runs N] [--limit RATE] [--smoke]\n");
    exit(2);
}

static unsigned part_of(const char *name)
{
    if (strcmp(name, "idle") == 0)
        return PART_IDLE;
    if (strcmp(name, "bandwidth") == 0)
        return PART_BANDWIDTH;
    if (strcmp(name, "calls") == 0)
        return PART_CALLS;
    usage();
}

static void parse_options(int argc, char **argv)
{
    static const struct option known[] = {
        {"part", required_argument, NULL, 'p'},     {"wire", required_argument, NULL, 'w'},
        {"channels", required_argument, NULL, 'c'}, {"ram", required_argument, NULL, 'r'},
        {"runs", required_argument, NULL, 'n'},     {"limit", required_argument, NULL, 'l'},
        {"smoke", no_argument, NULL, 's'},          {NULL, 0, NULL, 0},
    };
    int code;
    while ((code = getopt_long(argc, argv, "", known, NULL)) != -1) {
        if (code == 'p')
            options.parts |= part_of(optarg);
        else if (code == 'w')
            options.wire = optarg;
        else if (code == 'c')
            options.channels = (unsigned)strtoul(optarg, NULL, 10);
        else if (code == 'r' && gw_size_parse(optarg, &options.ram, NULL) < 0)
            usage();
        else if (code == 'n')
            options.runs = (unsigned)strtoul(optarg, NULL, 10);
        else if (code == 'l' && gw_rate_parse(optarg, &options.limit, NULL) < 0)
            usage();
        else if (code == 's') { /* a bit more than a window of bandwidth */
            options.ram = 64 << 20;
            options.limit = 48 << 20;
            options.runs = 1;
            options.rounds = 2;
        } else if (code == '?')
            usage();
    }
    if (options.parts == 0)
        options.parts = PARTS_ALL;
    if ((strcmp(options.wire, "tcp") != 0 && strcmp(options.wire, "unix") != 0 &&
         !is_one_sided()) ||
        options.channels < 1 || options.channels > 64 || options.runs < 1 ||
        options.runs > RUNS_MAX || options.ram < 8 << 20 || options.limit == 0)
        usage();
    if (is_rdma() && !getenv("RIG_ADDR"))
        die("rdma", "RIG_ADDR is not set: run it by scripts/soft-roce");
    options.ram &= ~((UINT64_C(2) << 20) - 1);
}

int main(int argc, char **argv)
{
    parse_options(argc, argv);
    if (options.parts & PART_IDLE)
        measure_idle();
    if (options.parts & PART_BANDWIDTH)
        measure_bandwidth();
    if (options.parts & PART_CALLS)
        measure_calls();
    return 0;
}
