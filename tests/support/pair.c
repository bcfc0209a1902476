// SPDX-License-Identifier: MIT
/* A source and a target in one process (pair.h). One thread dispatches both loops; the guest's vCPU
 * is a thread that writes random words while source_runs is set and parks when it is not. */
#include "tests/support/pair.h"

#include "tests/shim/gw_test.h"
#include "tests/support/loopback.h"

#include <errno.h>
#include <linux/memfd.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static uint64_t mix(uint64_t x)
{
    x ^= x >> 33;
    x *= 0xff51afd7ed558ccdu;
    x ^= x >> 33;
    x *= 0xc4ceb9fe1a85ec53u;
    return x ^ (x >> 33);
}

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

#define HUGE_BYTES (UINT64_C(2) << 20)

/* ---- memory ------------------------------------------------------------------------------------ */

/* On a boundary of huge pages, as hypervisors have it, if one fits. */
static unsigned char *map_anon(uint64_t bytes)
{
    uint64_t spare = bytes < HUGE_BYTES ? 0 : HUGE_BYTES;
    unsigned char *room =
        mmap(NULL, bytes + spare, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    GW_ASSERT(room != MAP_FAILED);
    uint64_t before = spare ? -(uintptr_t)room % HUGE_BYTES : 0;
    if (before)
        munmap(room, before);
    if (spare > before)
        munmap(room + before + bytes, spare - before);
    return room + before;
}

static unsigned char *map(uint64_t bytes, enum gw_block_kind kind, int *fd)
{
    *fd = -1;
    if (kind == GW_BLOCK_ANON)
        return map_anon(bytes);
    *fd = memfd_create("pair", kind == GW_BLOCK_HUGETLB ? MFD_HUGETLB | MFD_HUGE_2MB : 0);
    GW_ASSERT(*fd >= 0);
    GW_ASSERT_EQ(ftruncate(*fd, (off_t)bytes), 0);
    void *host = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
    GW_ASSERT(host != MAP_FAILED);
    return host;
}

static struct pair_block *new_block(struct pair *pair, const char *name, uint64_t bytes,
                                    enum gw_block_kind kind)
{
    if (!pair->blocks)
        pair->blocks = calloc(PAIR_BLOCKS_MAX, sizeof(*pair->blocks));
    struct pair_block *block = &pair->blocks[pair->block_count++];
    snprintf(block->name, sizeof(block->name), "%s", name);
    block->bytes = bytes;
    block->kind = kind;
    block->source = map(bytes, kind, &block->source_fd);
    block->target_fd = -1;
    return block;
}

void pair_add_block(struct pair *pair, const char *name, uint64_t bytes, enum gw_block_kind kind,
                    unsigned fill)
{
    struct pair_block *block = new_block(pair, name, bytes, kind);
    for (uint64_t page = 0; page < bytes / 4096; page++) {
        if (mix(page * 31 + pair->block_count) % 100 >= fill)
            continue;
        uint64_t *words = (uint64_t *)(void *)(block->source + page * 4096);
        for (unsigned i = 0; i < 512; i++)
            words[i] = mix(page * 512 + i);
    }
}

/* ---- the guest ----------------------------------------------------------------------------------- */

/* A vCPU is no instrumented code: that the library reads memory while the guest writes it is what
 * live migration is, and dirty tracking is what makes it right. */
__attribute__((no_sanitize_thread, noinline)) static void store(unsigned char *host, uint64_t word,
                                                                uint64_t value)
{
    ((volatile uint64_t *)(void *)host)[word] = value;
}

static void *writer_body(void *arg)
{
    struct pair *pair = arg;
    uint64_t random = 1;
    while (!atomic_load(&pair->writer_stop)) {
        if (!atomic_load(&pair->source_runs)) {
            atomic_store(&pair->writer_parked, true);
            struct timespec tick = {.tv_nsec = 50000};
            nanosleep(&tick, NULL);
            continue;
        }
        atomic_store(&pair->writer_parked, false);
        if (!atomic_load(&pair->source_runs))
            continue;
        for (unsigned i = 0; i < 64; i++) {
            random = mix(random + 1);
            struct pair_block *block = &pair->blocks[random % pair->block_count];
            uint64_t word = (random >> 20) % (block->bytes / 8);
            store(block->source, word, random);
        }
        atomic_fetch_add(&pair->writes_done, 64);
        struct timespec pace = {.tv_nsec = 20000};
        nanosleep(&pace, NULL);
    }
    return NULL;
}

static int pause_guest(void *ctx, struct gw_error *err)
{
    struct pair *pair = ctx;
    atomic_fetch_add(&pair->pauses, 1);
    int rc = pair->pause ? pair->pause(pair) : 0;
    if (rc < 0)
        return gw_error_set(err, rc, GW_CODE_GUEST, "pause failed as the test wanted");
    atomic_store(&pair->source_runs, false);
    while (pair->writer_started && !atomic_load(&pair->writer_parked)) {
        struct timespec tick = {.tv_nsec = 10000};
        nanosleep(&tick, NULL);
    }
    return 0;
}

static int resume_guest(void *ctx, struct gw_error *err)
{
    struct pair *pair = ctx;
    atomic_fetch_add(&pair->resumes, 1);
    int rc = pair->resume ? pair->resume(pair) : 0;
    if (rc < 0)
        return gw_error_set(err, rc, GW_CODE_GUEST, "resume failed as the test wanted");
    if (atomic_load(&pair->target_runs))
        atomic_fetch_add(&pair->two_runners, 1);
    atomic_store(&pair->writer_parked, false);
    atomic_store(&pair->source_runs, true);
    return 0;
}

static int release_guest(void *ctx, struct gw_error *err)
{
    struct pair *pair = ctx;
    atomic_fetch_add(&pair->releases, 1);
    int rc = pair->release ? pair->release(pair) : 0;
    return rc < 0 ? gw_error_set(err, rc, GW_CODE_GUEST, "release failed as the test wanted") : 0;
}

static int retake_guest(void *ctx, struct gw_error *err)
{
    struct pair *pair = ctx;
    atomic_fetch_add(&pair->retakes, 1);
    int rc = pair->retake ? pair->retake(pair) : 0;
    return rc < 0 ? gw_error_set(err, rc, GW_CODE_GUEST, "retake failed as the test wanted") : 0;
}

static void source_event(void *ctx, const struct gw_event *event)
{
    struct pair *pair = ctx;
    if (pair->source_event)
        pair->source_event(pair, event);
}

static void throttle(void *ctx, unsigned vcpu, unsigned percent)
{
    struct pair *pair = ctx;
    if (pair->throttle)
        pair->throttle(pair, vcpu, percent);
}

static int offered(void *ctx, const struct gw_block_offer *offer, struct gw_block_desc *desc,
                   struct gw_error *err)
{
    struct pair *pair = ctx;
    atomic_fetch_add(&pair->offers, 1);
    int rc = pair->block_offered ? pair->block_offered(pair, offer) : 0;
    if (rc < 0)
        return gw_error_set(err, rc, GW_CODE_BLOCK, "refused as the test wanted");
    for (unsigned i = 0; i < pair->block_count; i++) {
        unsigned at = (offer->id + i) % pair->block_count; /* offers come in order */
        struct pair_block *block = &pair->blocks[at];
        if (strcmp(block->name, offer->name) != 0)
            continue;
        if (!block->target) {
            int flags = MAP_PRIVATE | MAP_ANONYMOUS;
            if (block->kind != GW_BLOCK_ANON) {
                unsigned huge = block->kind == GW_BLOCK_HUGETLB ? MFD_HUGETLB | MFD_HUGE_2MB : 0;
                block->target_fd = memfd_create("pair", huge);
                if (block->target_fd < 0 || ftruncate(block->target_fd, (off_t)block->bytes) < 0)
                    return -errno;
                flags = MAP_SHARED;
            }
            void *host =
                mmap(NULL, block->bytes, PROT_READ | PROT_WRITE, flags, block->target_fd, 0);
            if (host == MAP_FAILED)
                return -errno;
            block->target = host;
        }
        desc->host = block->target;
        desc->kind = block->kind;
        desc->page_bytes = block->kind == GW_BLOCK_HUGETLB ? 2u << 20 : 4096;
        desc->fd = block->target_fd;
        return 0;
    }
    return gw_error_set(err, -ENOENT, GW_CODE_BLOCK, "no such block here");
}

static int blocks_ready(void *ctx, struct gw_error *err)
{
    struct pair *pair = ctx;
    return pair->blocks_ready ? pair->blocks_ready(pair, err) : 0;
}

static int acquire_guest(void *ctx, struct gw_error *err)
{
    struct pair *pair = ctx;
    atomic_fetch_add(&pair->acquires, 1);
    int rc = pair->acquire ? pair->acquire(pair) : 0;
    return rc < 0 ? gw_error_set(err, rc, GW_CODE_GUEST, "the disk lock is held elsewhere") : 0;
}

static int run_guest(void *ctx, struct gw_error *err)
{
    struct pair *pair = ctx;
    atomic_fetch_add(&pair->runs, 1);
    atomic_store(&pair->target_runs, true);
    if (atomic_load(&pair->source_runs))
        atomic_fetch_add(&pair->two_runners, 1);
    int rc = pair->run ? pair->run(pair) : 0;
    return rc < 0 ? gw_error_set(err, rc, GW_CODE_GUEST, "run failed as the test wanted") : 0;
}

static void target_event(void *ctx, const struct gw_event *event)
{
    struct pair *pair = ctx;
    if (pair->target_event)
        pair->target_event(pair, event);
}

static int save_device(void *opaque, struct gw_writer *w, struct gw_error *err)
{
    struct pair *pair = opaque;
    int rc = pair->save ? pair->save(pair) : 0;
    if (rc < 0)
        return gw_error_set(err, rc, GW_CODE_DEVICE, "save failed as the test wanted");
    gw_writer_be64(w, pair->device_value);
    return 0;
}

static int load_device(void *opaque, struct gw_reader *r, uint32_t version_id, struct gw_error *err)
{
    struct pair *pair = opaque;
    (void)version_id;
    pair->device_loaded = gw_reader_be64(r);
    int rc = pair->load ? pair->load(pair) : 0;
    return rc < 0 ? gw_error_set(err, rc, GW_CODE_DEVICE, "load failed as the test wanted") : 0;
}

/* ---- life ------------------------------------------------------------------------------------------ */

static const struct gw_source_ops source_ops = {
    .struct_bytes = sizeof(source_ops),
    .pause = pause_guest,
    .resume = resume_guest,
    .release = release_guest,
    .retake = retake_guest,
    .event = source_event,
    .throttle = throttle,
};

static const struct gw_target_ops target_ops = {
    .struct_bytes = sizeof(target_ops),
    .block_offered = offered,
    .blocks_ready = blocks_ready,
    .acquire = acquire_guest,
    .run = run_guest,
    .event = target_event,
};

static void talk(void *ctx, enum gw_log_level level, const char *component, const char *text)
{
    (void)ctx;
    (void)level;
    fprintf(stderr, "  [%s] %s\n", component, text);
}

static void init_source(struct pair *pair, const struct gw_log *log)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_source_config config = {.struct_bytes = sizeof(config),
                                      .loop = pair->source_loop,
                                      .ops = &source_ops,
                                      .ctx = pair,
                                      .params = pair->params ? pair->params : pair->patient,
                                      .log = log};
    if (gw_source_new(&config, &pair->src, &err) < 0)
        GW_FAIL("source: %s", err.message);
    for (unsigned i = 0; i < pair->block_count; i++) {
        struct pair_block *block = &pair->blocks[i];
        struct gw_block_desc desc = {.struct_bytes = sizeof(desc),
                                     .name = block->name,
                                     .host = block->source,
                                     .size_bytes = block->bytes,
                                     .page_bytes =
                                         block->kind == GW_BLOCK_HUGETLB ? 2u << 20 : 4096,
                                     .kind = block->kind,
                                     .fd = block->source_fd,
                                     .flags = block->flags};
        if (gw_source_add_block(pair->src, &desc, &err) < 0)
            GW_FAIL("block: %s", err.message);
    }
    if (pair->no_dirty)
        return;
    if (gw_dirty_open(pair->dirty_method, log, &pair->dirty, &err) < 0)
        GW_SKIP("no dirty tracking here: %s", err.message);
    GW_ASSERT_EQ(
        gw_source_add_dirty(pair->src, gw_dirty_kernel_ops(pair->dirty), pair->dirty, &err), 0);
}

struct gw_params *pair_params(void)
{
    struct gw_params *params = gw_params_new();
    GW_ASSERT(params != NULL);
    GW_ASSERT_EQ(gw_params_set(params, "x-peer-timeout", "30000", NULL), 0);
    GW_ASSERT_EQ(gw_params_set(params, "x-connect-timeout", "30000", NULL), 0);
    return params;
}

void pair_init(struct pair *pair)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_log log = {.fn = getenv("GODWIT_LOG") ? talk : NULL, .level = GW_LOG_DEBUG};
    pair->patient = pair_params();
    if (pair->writes) /* whether that converges is the machine's speed, and no question */
        GW_ASSERT_EQ(gw_params_set(pair->patient, "x-stall-action", "switch", NULL), 0);
    GW_ASSERT_EQ(gw_loop_new(&pair->source_loop, &err), 0);
    GW_ASSERT_EQ(gw_loop_new(&pair->target_loop, &err), 0);
    pair->source_err = pair->target_err = (struct gw_error)GW_ERROR_INIT;
    init_source(pair, &log);
    struct gw_target_config config = {.struct_bytes = sizeof(config),
                                      .loop = pair->target_loop,
                                      .ops = &target_ops,
                                      .ctx = pair,
                                      .params =
                                          pair->target_params ? pair->target_params : pair->patient,
                                      .log = &log};
    if (gw_target_new(&config, &pair->tgt, &err) < 0)
        GW_FAIL("target: %s", err.message);
    struct gw_device_desc device = {.struct_bytes = sizeof(device),
                                    .name = "pair",
                                    .version_id = 1,
                                    .minimum_version_id = 1,
                                    .opaque = pair,
                                    .save = save_device,
                                    .load = load_device};
    GW_ASSERT_EQ(gw_source_add_device(pair->src, &device, &err), 0);
    GW_ASSERT_EQ(gw_target_add_device(pair->tgt, &device, &err), 0);
    atomic_store(&pair->source_runs, true);
    if (pair->writes) {
        GW_ASSERT_EQ(pthread_create(&pair->writer, NULL, writer_body, pair), 0);
        pair->writer_started = true;
    }
}

void pair_listen(struct pair *pair)
{
    struct gw_error err = GW_ERROR_INIT;
    const char *uri = pair->listen_uri ? pair->listen_uri : loopback_any();
    if (gw_target_listen(pair->tgt, uri, &err) < 0)
        GW_FAIL("listen: %s", err.message);
}

void pair_start(struct pair *pair)
{
    struct gw_error err = GW_ERROR_INIT;
    char uri[512];
    snprintf(uri, sizeof(uri), "%s%s%s%s", pair->faults ? "fault+" : "", gw_target_uri(pair->tgt),
             pair->faults ? "?" : "", pair->faults ? pair->faults : "");
    if (gw_source_start(pair->src, uri, &err) < 0)
        GW_FAIL("start: %s", err.message);
}

void pair_pump(struct pair *pair, unsigned ms)
{
    struct pollfd fds[2] = {{.fd = gw_loop_fd(pair->source_loop), .events = POLLIN},
                            {.fd = gw_loop_fd(pair->target_loop), .events = POLLIN}};
    poll(fds, 2, (int)ms);
    gw_dispatch(pair->source_loop);
    gw_dispatch(pair->target_loop);
}

bool pair_until(struct pair *pair, bool (*done)(struct pair *), unsigned seconds)
{
    uint64_t end = now_ms() + seconds * 1000ull;
    while (!done(pair)) {
        if (now_ms() > end)
            return false;
        pair_pump(pair, 5);
    }
    return true;
}

static bool both_ended(struct pair *pair)
{
    if (pair->source_rc == -EINPROGRESS)
        pair->source_rc = gw_source_wait(pair->src, 0, &pair->source_err);
    if (pair->target_rc == -EINPROGRESS)
        pair->target_rc = gw_target_wait(pair->tgt, 0, &pair->target_err);
    return pair->source_rc != -EINPROGRESS && pair->target_rc != -EINPROGRESS;
}

bool pair_finish(struct pair *pair, unsigned seconds)
{
    pair->source_rc = pair->target_rc = -EINPROGRESS;
    return pair_until(pair, both_ended, seconds);
}

int pair_differs(const struct pair *pair)
{
    for (unsigned i = 0; i < pair->block_count; i++) {
        const struct pair_block *block = &pair->blocks[i];
        if (!block->target || memcmp(block->source, block->target, block->bytes) != 0)
            return (int)i;
    }
    return -1;
}

enum gw_status pair_source_status(const struct pair *pair)
{
    struct gw_stats stats = {.struct_bytes = sizeof(stats)};
    gw_source_stats(pair->src, &stats);
    return stats.status;
}

void pair_fini(struct pair *pair)
{
    atomic_store(&pair->writer_stop, true);
    if (pair->writer_started)
        pthread_join(pair->writer, NULL);
    gw_source_free(pair->src);
    gw_target_free(pair->tgt);
    gw_dirty_close(pair->dirty);
    gw_params_free(pair->patient);
    gw_loop_free(pair->source_loop);
    gw_loop_free(pair->target_loop);
    for (unsigned i = 0; i < pair->block_count; i++) {
        struct pair_block *block = &pair->blocks[i];
        munmap(block->source, block->bytes);
        if (block->target)
            munmap(block->target, block->bytes);
        if (block->source_fd >= 0)
            close(block->source_fd);
        if (block->target_fd >= 0)
            close(block->target_fd);
    }
    free(pair->blocks);
}
