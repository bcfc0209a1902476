// SPDX-License-Identifier: MIT
/* The ready-made dirty sources. The judge is memory itself: a copy that is refreshed with nothing
 * but the reported pages, while threads write, must equal the original once they stop. */
#include "core/base/bitmap.h"
#include "ram/block.h"
#include "ram/dirty_impl.h"
#include "tests/shim/gw_test.h"
#include "tests/support/huge_pool.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE ((size_t)GW_DIRTY_PAGE_BYTES)
#define MIB (UINT64_C(1) << 20)

static const char *const methods[] = {"pagemap-scan", "uffd-wp", "soft-dirty", NULL};
static const char *const cells[] = {
    "pagemap-scan anon", "pagemap-scan memfd", "pagemap-scan hugetlb",
    "uffd-wp anon",      "uffd-wp memfd",      "uffd-wp hugetlb",
    "soft-dirty anon",   "soft-dirty memfd",   NULL,
};

struct memory {
    struct gw_block_desc desc;
    char *host;
    uint64_t bytes;
    uint64_t pages;
    size_t unit; /* pages that are reported together */
    struct gw_huge_pool pool;
};

struct bench { /* one source, one block */
    struct gw_dirty *dirty;
    const struct gw_dirty_ops *ops;
    struct memory memory;
    uint64_t *written;
};

static enum gw_dirty_method method_of(const char *param)
{
    if (strncmp(param, "pagemap-scan", 12) == 0)
        return GW_DIRTY_PAGEMAP_SCAN;
    return strncmp(param, "uffd-wp", 7) == 0 ? GW_DIRTY_UFFD_WP : GW_DIRTY_SOFT_DIRTY;
}

static uint64_t number_in(const char *path)
{
    uint64_t value = 0;
    FILE *file = fopen(path, "re");
    if (file && fscanf(file, "%lu", &value) != 1)
        value = 0;
    if (file)
        fclose(file);
    return value;
}

static void memory_close(struct memory *m)
{
    munmap(m->host, m->bytes);
    if (m->desc.fd >= 0)
        close(m->desc.fd);
    gw_huge_pool_close(&m->pool);
}

static void memory_open(struct memory *m, enum gw_block_kind kind, uint64_t bytes,
                        uint64_t page_bytes)
{
    int prot = PROT_READ | PROT_WRITE;
    unsigned huge = page_bytes == 2 * MIB ? MFD_HUGETLB | (21u << 26) : MFD_HUGETLB | (30u << 26);
    *m = (struct memory){.bytes = bytes, .pages = bytes / PAGE, .unit = 1};
    m->desc = (struct gw_block_desc){.struct_bytes = sizeof(m->desc),
                                     .name = "ram",
                                     .size_bytes = bytes,
                                     .page_bytes = (uint32_t)page_bytes,
                                     .kind = kind,
                                     .fd = -1};
    if (kind == GW_BLOCK_ANON) {
        /* Room to begin at a huge page, so that there is one to split. */
        char *room = mmap(NULL, bytes + 2 * MIB, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        GW_ASSERT(room != MAP_FAILED);
        m->host = (char *)(((uintptr_t)room + 2 * MIB - 1) & ~(uintptr_t)(2 * MIB - 1));
        if (m->host != room)
            munmap(room, (size_t)(m->host - room));
        munmap(m->host + bytes, 2 * MIB - (size_t)(m->host - room));
        madvise(m->host, bytes, MADV_HUGEPAGE);
    } else {
        if (kind == GW_BLOCK_HUGETLB) {
            if (!gw_huge_pool_open(&m->pool, page_bytes, bytes / page_bytes))
                GW_SKIP("%lu huge pages of %lu MiB cannot be had here", bytes / page_bytes,
                        page_bytes / MIB);
            m->unit = page_bytes / PAGE;
        }
        m->desc.fd = memfd_create("ram", MFD_CLOEXEC | (kind == GW_BLOCK_HUGETLB ? huge : 0));
        GW_ASSERT(m->desc.fd >= 0);
        GW_ASSERT_EQ(ftruncate(m->desc.fd, (off_t)bytes), 0);
        m->host = mmap(NULL, bytes, prot, MAP_SHARED, m->desc.fd, 0);
        if (m->host == MAP_FAILED)
            gw_huge_pool_close(&m->pool);
        GW_ASSERT(m->host != MAP_FAILED);
    }
    m->desc.host = m->host;
}

static void open_method(enum gw_dirty_method method, struct gw_dirty **dirty)
{
    struct gw_error err = GW_ERROR_INIT;
    if (gw_dirty_open(method, NULL, dirty, &err) < 0)
        GW_SKIP("%s", err.message);
}

static void bench_start(struct bench *b)
{
    struct gw_error err = GW_ERROR_INIT;
    if (b->ops->start(b->dirty, 0, &b->memory.desc, &err) != 0)
        GW_FAIL("%s", err.message);
}

static void bench_open(struct bench *b, const char *param, uint64_t bytes)
{
    const char *kind = strchr(param, ' ') + 1;
    bool huge = strcmp(kind, "hugetlb") == 0;
    open_method(method_of(param), &b->dirty);
    b->ops = gw_dirty_kernel_ops(b->dirty);
    memory_open(&b->memory,
                huge                         ? GW_BLOCK_HUGETLB
                : strcmp(kind, "memfd") == 0 ? GW_BLOCK_MEMFD
                                             : GW_BLOCK_ANON,
                bytes, huge ? 2 * MIB : PAGE);
    b->written = calloc(gw_bitmap_words(b->memory.pages), sizeof(uint64_t));
}

static void bench_close(struct bench *b)
{
    b->ops->stop(b->dirty, 0);
    gw_dirty_close(b->dirty);
    memory_close(&b->memory);
    free(b->written);
}

static void bench_sync(struct bench *b)
{
    struct gw_error err = GW_ERROR_INIT;
    memset(b->written, 0, gw_bitmap_words(b->memory.pages) * sizeof(uint64_t));
    if (b->ops->sync(b->dirty, 0, 0, b->memory.pages, b->written, &err) != 0)
        GW_NOTE_FAILURE("%s", err.message);
}

static uint64_t next_random(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return *state >> 33;
}

static void store(char *host, uint64_t page, uint64_t word, uint64_t value)
{
    __atomic_store_n((uint64_t *)(void *)(host + page * PAGE) + word, value, __ATOMIC_RELAXED);
}

static uint64_t load(const char *host, uint64_t at)
{
    return __atomic_load_n((const uint64_t *)(const void *)host + at, __ATOMIC_RELAXED);
}

/* What a migration does with the reported pages. */
static void copy_reported(const char *from, char *to, const uint64_t *written, uint64_t pages)
{
    for (uint64_t p = gw_bitmap_next_set(written, 0, pages); p < pages;
         p = gw_bitmap_next_set(written, p + 1, pages)) {
        for (uint64_t w = p * PAGE / 8; w < (p + 1) * PAGE / 8; w++)
            ((uint64_t *)(void *)to)[w] = load(from, w);
    }
}

struct writer {
    pthread_t thread;
    const struct memory *memory;
    uint64_t seed;
    atomic_bool *stop;
};

static void *writer_main(void *arg)
{
    struct writer *w = arg;
    uint64_t state = w->seed;
    int zeros = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    for (uint64_t i = 0; !atomic_load(w->stop); i++) {
        uint64_t page = next_random(&state) % w->memory->pages;
        uint64_t word = next_random(&state) % (PAGE / 8);
        if (i % 16 == 0)
            page = i / 16 % w->memory->pages; /* runs of neighbours too */
        /* By its number: the thread sanitizer would take read() for a race with the copy. */
        if (i % 64 == 0 &&
            syscall(SYS_read, zeros, w->memory->host + page * PAGE + word * 8, 8) != 8)
            break;
        store(w->memory->host, page, word, next_random(&state) << 31 | i);
        if (i % 8 == 0)
            usleep(1);
    }
    close(zeros);
    return NULL;
}

static void writers_start(struct writer *writers, unsigned count, const struct memory *memory,
                          atomic_bool *stop)
{
    for (unsigned i = 0; i < count; i++) {
        writers[i] = (struct writer){.memory = memory, .seed = i * 977 + 5, .stop = stop};
        pthread_create(&writers[i].thread, NULL, writer_main, &writers[i]);
    }
}

static void writers_stop(struct writer *writers, unsigned count, atomic_bool *stop)
{
    atomic_store(stop, true);
    for (unsigned i = 0; i < count; i++)
        pthread_join(writers[i].thread, NULL);
}

GW_TEST_EACH(dirty, copy_of_reported_pages_equals_memory_that_was_written_meanwhile, cells)
{
    struct bench b;
    struct writer writers[2];
    atomic_bool stop = false;
    bench_open(&b, param, 8 * MIB);
    memset(b.memory.host, 0x5a, b.memory.bytes / 2); /* half of it is there, half is not */
    bench_start(&b);
    char *copy = malloc(b.memory.bytes);
    memcpy(copy, b.memory.host, b.memory.bytes);

    writers_start(writers, 2, &b.memory, &stop);
    for (int round = 0; round < 100; round++) {
        if (round % 4 == 0 && b.ops->before_pin) /* as before a registration, at any moment */
            GW_EXPECT_EQ(b.ops->before_pin(b.dirty, 0, NULL, 512, 1024, NULL), 0);
        bench_sync(&b);
        copy_reported(b.memory.host, copy, b.written, b.memory.pages);
        usleep(1000);
    }
    writers_stop(writers, 2, &stop);
    bench_sync(&b);
    copy_reported(b.memory.host, copy, b.written, b.memory.pages);

    GW_EXPECT_EQ(memcmp(copy, b.memory.host, b.memory.bytes), 0);
    free(copy);
    bench_close(&b);
}

GW_TEST_EACH(dirty, reports_the_pages_that_were_written_and_no_others, cells)
{
    struct bench b;
    uint64_t state = 11;
    bench_open(&b, param, 8 * MIB);
    bool exact = method_of(param) != GW_DIRTY_SOFT_DIRTY;
    bench_start(&b);
    bench_sync(&b);
    uint64_t *model = calloc(gw_bitmap_words(b.memory.pages), sizeof(uint64_t));

    for (int round = 0; round < 50; round++) {
        memset(model, 0, gw_bitmap_words(b.memory.pages) * sizeof(uint64_t));
        for (uint64_t n = next_random(&state) % 300; n; n--) {
            uint64_t page = next_random(&state) % b.memory.pages;
            store(b.memory.host, page, n, state);
            gw_bitmap_set_range(model, page / b.memory.unit * b.memory.unit, b.memory.unit);
        }
        bench_sync(&b);
        for (uint64_t w = 0; w < gw_bitmap_words(b.memory.pages); w++) {
            GW_EXPECT_EQ(model[w] & ~b.written[w], 0);
            if (exact)
                GW_EXPECT_EQ(b.written[w], model[w]);
        }
    }
    free(model);
    bench_close(&b);
}

GW_TEST_EACH(dirty, released_pages_are_reported_once_and_tracked_again, cells)
{
    struct bench b;
    bench_open(&b, param, 8 * MIB);
    bool must = method_of(param) == GW_DIRTY_UFFD_WP;       /* the one whose writes wait for us */
    bool is_soft = method_of(param) == GW_DIRTY_SOFT_DIRTY; /* it is too late for that one */
    memset(b.memory.host, 1, b.memory.bytes);
    bench_start(&b);
    bench_sync(&b);
    GW_EXPECT_EQ(b.ops->before_pin != NULL, must || is_soft);
    if (is_soft) {
        GW_EXPECT_EQ(b.ops->before_pin(b.dirty, 0, NULL, 512, 512, NULL), 0);
        bench_sync(&b);
        GW_EXPECT_EQ(gw_bitmap_count(b.written, 0, b.memory.pages), 0);
    }
    if (must) {
        GW_EXPECT_EQ(b.ops->before_pin(b.dirty, 0, NULL, 512, 512, NULL), 0);
        GW_EXPECT_LT(b.ops->before_pin(b.dirty, 0, NULL, 100, 512, NULL), 0);
        bench_sync(&b);
        GW_EXPECT_EQ(gw_bitmap_count(b.written, 0, b.memory.pages), 512);
        GW_EXPECT_EQ(gw_bitmap_count(b.written, 512, 512), 512);
        bench_sync(&b);
        GW_EXPECT_EQ(gw_bitmap_count(b.written, 0, b.memory.pages), 0);
        store(b.memory.host, 700, 1, 2);
        bench_sync(&b);
        GW_EXPECT(gw_bitmap_test(b.written, 700));
        GW_EXPECT_EQ(gw_bitmap_count(b.written, 0, b.memory.pages), b.memory.unit);
    }
    bench_close(&b);
}

GW_TEST_EACH(dirty, every_other_page_is_reported_in_one_sync, cells)
{
    struct bench b;
    bench_open(&b, param, 16 * MIB); /* more regions than one ioctl returns */
    bench_start(&b);
    bench_sync(&b);
    for (uint64_t page = 0; page < b.memory.pages; page += 2)
        store(b.memory.host, page, 1, page + 1);
    bench_sync(&b);
    uint64_t found = 0;
    for (uint64_t page = 0; page < b.memory.pages; page += 2)
        found += gw_bitmap_test(b.written, page);
    GW_EXPECT_EQ(found, b.memory.pages / 2);
    bench_close(&b);
}

GW_TEST_EACH(dirty, system_calls_and_absent_pages_are_seen, cells)
{
    struct bench b;
    int zeros = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    bench_open(&b, param, 8 * MIB);
    store(b.memory.host, 700, 0, 1);
    bench_start(&b);
    bench_sync(&b);
    GW_EXPECT_EQ(read(zeros, b.memory.host + 700 * PAGE, 1), 1);  /* present */
    GW_EXPECT_EQ(read(zeros, b.memory.host + 1500 * PAGE, 1), 1); /* absent */
    store(b.memory.host, 2047, 0, 1);
    bench_sync(&b);
    GW_EXPECT(gw_bitmap_test(b.written, 700));
    GW_EXPECT(gw_bitmap_test(b.written, 1500));
    GW_EXPECT(gw_bitmap_test(b.written, 2047));
    close(zeros);
    bench_close(&b);
}

struct syncer {
    pthread_t thread;
    struct bench *bench;
    char *copy;
    uint64_t first;
    uint64_t pages;
    int rounds;
    int rc;
};

static void *syncer_main(void *arg)
{
    struct syncer *s = arg;
    size_t words = gw_bitmap_words(s->pages);
    uint64_t *written = malloc(words * sizeof(uint64_t));
    for (int round = 0; round < s->rounds; round++) {
        memset(written, 0, words * sizeof(uint64_t));
        int rc = s->bench->ops->sync(s->bench->dirty, 0, s->first, s->pages, written, NULL);
        s->rc = rc < 0 ? rc : s->rc;
        copy_reported(s->bench->memory.host + s->first * PAGE, s->copy + s->first * PAGE, written,
                      s->pages);
    }
    free(written);
    return NULL;
}

#define SYNCERS 4

static void sync_in_parallel(struct bench *b, char *copy, int rounds)
{
    struct syncer syncers[SYNCERS];
    uint64_t share = b->memory.pages / SYNCERS;
    for (unsigned i = 0; i < SYNCERS; i++) {
        syncers[i] = (struct syncer){
            .bench = b, .copy = copy, .first = i * share, .pages = share, .rounds = rounds};
        pthread_create(&syncers[i].thread, NULL, syncer_main, &syncers[i]);
    }
    for (unsigned i = 0; i < SYNCERS; i++) {
        pthread_join(syncers[i].thread, NULL);
        GW_EXPECT_EQ(syncers[i].rc, 0);
    }
}

static void lose_nothing_in_parallel(struct bench *b)
{
    struct writer writers[2];
    atomic_bool stop = false;
    bench_start(b);
    char *copy = calloc(1, b->memory.bytes);
    writers_start(writers, 2, &b->memory, &stop);
    sync_in_parallel(b, copy, 100);
    writers_stop(writers, 2, &stop);
    sync_in_parallel(b, copy, 1);
    for (uint64_t w = 0, wrong = 0; w < b->memory.bytes / 8 && !wrong; w++) {
        wrong = ((uint64_t *)(void *)copy)[w] != load(b->memory.host, w);
        GW_EXPECT_EQ(wrong, 0);
    }
    free(copy);
}

GW_TEST_EACH(dirty, threads_that_sync_disjoint_ranges_lose_no_write, cells)
{
    struct bench b;
    bench_open(&b, param, 16 * MIB);
    lose_nothing_in_parallel(&b);
    bench_close(&b);
}

/* A huge page of 1 GiB belongs to many stripes, and can only be armed as a whole. */
GW_TEST_EACH(dirty, threads_that_share_a_gigantic_page_lose_no_write, methods)
{
    struct bench b;
    if (method_of(param) == GW_DIRTY_SOFT_DIRTY)
        GW_SKIP("soft-dirty does not track huge pages");
    open_method(method_of(param), &b.dirty);
    b.ops = gw_dirty_kernel_ops(b.dirty);
    memory_open(&b.memory, GW_BLOCK_HUGETLB, 1024 * MIB, 1024 * MIB);
    b.memory.bytes = 16 * MIB; /* what is written, synced and compared */
    b.memory.pages = b.memory.bytes / PAGE;
    lose_nothing_in_parallel(&b);
    b.memory.bytes = 1024 * MIB;
    b.written = NULL;
    bench_close(&b);
}

GW_TEST_EACH(dirty, ten_thousand_blocks_are_tracked, methods)
{
    enum { BLOCKS = 10000 };
    struct gw_dirty *dirty;
    open_method(method_of(param), &dirty);
    const struct gw_dirty_ops *ops = gw_dirty_kernel_ops(dirty);
    size_t stride = 2 * PAGE;
    char *all =
        mmap(NULL, BLOCKS * stride, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    GW_ASSERT(all != MAP_FAILED);
    for (unsigned i = 0; i < BLOCKS; i++) {
        char name[16];
        unsigned place = (i * 7919u) % BLOCKS; /* not in the order of addresses */
        snprintf(name, sizeof(name), "b%u", i);
        struct gw_block_desc desc = {.struct_bytes = sizeof(desc),
                                     .name = name,
                                     .host = all + place * stride,
                                     .size_bytes = PAGE,
                                     .page_bytes = PAGE,
                                     .fd = -1};
        GW_ASSERT_EQ(ops->start(dirty, i, &desc, NULL), 0);
    }
    for (unsigned i = 0; i < BLOCKS; i++) {
        uint64_t bits = 0;
        GW_ASSERT_EQ(ops->sync(dirty, i, 0, 1, &bits, NULL), 0);
    }
    for (unsigned i = 0; i < BLOCKS; i += 3)
        store(all + ((i * 7919u) % BLOCKS) * stride, 0, 0, i);
    unsigned missed = 0;
    for (unsigned i = 0; i < BLOCKS; i++) {
        uint64_t bits = 0;
        GW_ASSERT_EQ(ops->sync(dirty, i, 0, 1, &bits, NULL), 0);
        missed += i % 3 == 0 && bits != 1;
    }
    GW_EXPECT_EQ(missed, 0);
    for (unsigned i = 0; i < BLOCKS; i++)
        ops->stop(dirty, i);
    gw_dirty_close(dirty);
    munmap(all, BLOCKS * stride);
}

GW_TEST_EACH(dirty, block_that_no_source_could_have_is_refused, methods)
{
    struct gw_dirty *dirty;
    open_method(method_of(param), &dirty);
    const struct gw_dirty_ops *ops = gw_dirty_kernel_ops(dirty);
    char *host = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    GW_ASSERT(host != MAP_FAILED);
    struct gw_block_desc desc = {.struct_bytes = sizeof(desc),
                                 .name = "b",
                                 .host = host,
                                 .size_bytes = PAGE,
                                 .page_bytes = PAGE,
                                 .fd = -1};
    GW_EXPECT_EQ(ops->start(dirty, GW_BLOCKS_MAX, &desc, NULL), -E2BIG);
    GW_EXPECT_EQ(ops->start(dirty, GW_BLOCKS_MAX - 1, &desc, NULL), 0);
    ops->stop(dirty, GW_BLOCKS_MAX - 1);
    gw_dirty_close(dirty);
    munmap(host, PAGE);
}

GW_TEST_EACH(dirty, block_that_was_stopped_can_be_started_again, cells)
{
    struct bench b;
    struct gw_dirty *other;
    bench_open(&b, param, 4 * MIB);
    for (int turn = 0; turn < 3; turn++) {
        bench_start(&b);
        bench_sync(&b);
        store(b.memory.host, 5, 0, 1);
        bench_sync(&b);
        GW_EXPECT(gw_bitmap_test(b.written, 5));
        b.ops->stop(b.dirty, 0);
        store(b.memory.host, 6, 0, 1); /* nobody waits for a fault any more */
    }
    open_method(method_of(param), &other);
    GW_EXPECT_EQ(gw_dirty_kernel_ops(other)->start(other, 3, &b.memory.desc, NULL), 0);
    gw_dirty_close(other); /* stops what is left */
    bench_start(&b);
    bench_close(&b);
}

/* A migration ends at any moment, and the guest goes on: nobody may be left waiting for a fault that the
 * reader was told of and did not get to. A writer that is never joins, and the test runs out of time. */
GW_TEST_EACH(dirty, writers_go_on_whenever_tracking_stops, cells)
{
    struct bench b;
    struct writer writers[2];
    atomic_bool stop = false;
    bench_open(&b, param, 4 * MIB);
    writers_start(writers, 2, &b.memory, &stop);
    for (unsigned turn = 0; turn < 300; turn++) {
        bench_start(&b);
        bench_sync(&b);
        b.ops->stop(b.dirty, 0);
    }
    writers_stop(writers, 2, &stop);
    bench_start(&b);
    bench_close(&b);
}

GW_TEST_EACH(dirty, second_source_on_the_same_memory_is_refused_with_a_hint, methods)
{
    struct bench b;
    struct gw_dirty *other;
    struct gw_error err = GW_ERROR_INIT;
    char cell[32];
    snprintf(cell, sizeof(cell), "%s anon", param);
    bench_open(&b, cell, 4 * MIB);
    GW_ASSERT(b.dirty != NULL);
    open_method(method_of(param), &other);
    bench_start(&b);
    GW_EXPECT_EQ(gw_dirty_kernel_ops(other)->start(other, 0, &b.memory.desc, &err), -EBUSY);
    GW_EXPECT_EQ(err.code, GW_CODE_DIRTY);
    GW_EXPECT(strstr(err.message, "block 'ram'") != NULL);
    GW_EXPECT(err.hint[0] != '\0');
    gw_dirty_close(other);
    bench_close(&b);
}

GW_TEST(dirty, bad_ranges_are_refused)
{
    struct gw_dirty *dirty;
    struct memory m;
    uint64_t bits[16] = {0};
    struct gw_error err = GW_ERROR_INIT;
    open_method(GW_DIRTY_AUTO, &dirty);
    const struct gw_dirty_ops *ops = gw_dirty_kernel_ops(dirty);
    memory_open(&m, GW_BLOCK_ANON, 700 * PAGE, PAGE);
    GW_EXPECT_EQ(ops->sync(dirty, 0, 0, 512, bits, &err), -ENOENT);
    GW_EXPECT_EQ(ops->start(dirty, 0, &m.desc, NULL), 0);
    GW_EXPECT_EQ(ops->start(dirty, 0, &m.desc, NULL), -EEXIST);
    GW_EXPECT_EQ(ops->start(dirty, 1, &m.desc, &err), -EEXIST);
    GW_EXPECT_EQ(ops->sync(dirty, 0, 0, 700, bits, NULL), 0);
    GW_EXPECT_EQ(ops->sync(dirty, 0, 512, 188, bits, NULL), 0);
    GW_EXPECT_EQ(ops->sync(dirty, 0, 0, 0, bits, NULL), 0);
    GW_EXPECT_EQ(ops->sync(dirty, 0, 64, 64, bits, &err), -EINVAL);
    GW_EXPECT_EQ(ops->sync(dirty, 0, 0, 100, bits, &err), -EINVAL);
    GW_EXPECT_EQ(ops->sync(dirty, 0, 512, 512, bits, &err), -EINVAL);
    m.desc.page_bytes = 8192; /* 700 is even: the address is what is wrong, or the power */
    m.desc.size_bytes += PAGE;
    GW_EXPECT_EQ(ops->start(dirty, 1, &m.desc, &err), -EINVAL);
    ops->stop(dirty, 0);
    ops->stop(dirty, 0); /* stop is called after failures too */
    gw_dirty_close(dirty);
    memory_close(&m);
}

static char log_text[512];

static void keep_log(void *ctx, enum gw_log_level level, const char *component, const char *text)
{
    (void)ctx;
    (void)level;
    (void)component;
    snprintf(log_text, sizeof(log_text), "%s", text);
}

GW_TEST(dirty, auto_takes_the_next_mechanism_and_says_why)
{
    struct gw_dirty *dirty;
    struct gw_error err = GW_ERROR_INIT;
    const struct gw_log log = {.fn = keep_log, .level = GW_LOG_INFO};
    if (gw_dirty_probe(GW_DIRTY_UFFD_WP, &err) < 0)
        GW_SKIP("%s", err.message);
    gw_dirty_features_hidden = GW_UFFD_WP_ASYNC; /* Linux 6.1 has neither */
    GW_ASSERT_EQ(gw_dirty_open(GW_DIRTY_AUTO, &log, &dirty, &err), 0);
    GW_EXPECT_STREQ(gw_dirty_kernel_ops(dirty)->name, "uffd-wp");
    GW_EXPECT(strstr(log_text, "not pagemap-scan") != NULL);
    gw_dirty_close(dirty);
    GW_EXPECT_EQ(gw_dirty_probe(GW_DIRTY_PAGEMAP_SCAN, &err), -EOPNOTSUPP);
    gw_dirty_features_hidden = 0;
    GW_EXPECT_EQ(err.code, GW_CODE_UNSUPPORTED);
    GW_EXPECT(err.hint[0] != '\0');
}

GW_TEST(dirty, uffd_wp_without_markers_tracks_absent_pages)
{
    struct bench b;
    gw_dirty_features_hidden = GW_UFFD_WP_UNPOPULATED; /* as on Linux 6.1 */
    bench_open(&b, "uffd-wp anon", 4 * MIB);
    gw_dirty_features_hidden = 0;
    bench_start(&b);
    bench_sync(&b);
    store(b.memory.host, 0, 0, 1);
    store(b.memory.host, 1000, 0, 1);
    bench_sync(&b);
    GW_EXPECT(gw_bitmap_test(b.written, 0));
    GW_EXPECT(gw_bitmap_test(b.written, 1000));
    bench_close(&b);
}

GW_TEST(dirty, nothing_that_works_names_every_mechanism)
{
    struct gw_dirty *dirty;
    struct gw_error err = GW_ERROR_INIT;
    gw_dirty_features_hidden = UINT64_MAX;
    int rc = gw_dirty_open(GW_DIRTY_AUTO, NULL, &dirty, &err);
    gw_dirty_features_hidden = 0;
    if (rc == 0) {
        gw_dirty_close(dirty);
        GW_SKIP("soft-dirty works here");
    }
    GW_EXPECT_EQ(rc, -EOPNOTSUPP);
    GW_EXPECT(strstr(err.message, "pagemap-scan:") != NULL);
    GW_EXPECT(strstr(err.message, "uffd-wp:") != NULL);
    GW_EXPECT(strstr(err.message, "soft-dirty:") != NULL);
    GW_EXPECT(err.hint[0] != '\0');
}

/* In a child that has become nobody. Exit status: what went otherwise than it should. */
static int as_nobody(bool may_use_uffd)
{
    struct gw_error err = GW_ERROR_INIT;
    if (setgroups(0, NULL) || setgid(65534) || setuid(65534) || prctl(PR_SET_DUMPABLE, 1, 0, 0, 0))
        return 1;
    if (gw_dirty_probe(GW_DIRTY_PAGEMAP_SCAN, &err) != 0)
        return 2;
    int rc = gw_dirty_probe(GW_DIRTY_UFFD_WP, &err);
    if (may_use_uffd)
        return rc == 0 ? 0 : 3;
    return rc == -EPERM && strstr(err.hint, "unprivileged_userfaultfd") ? 0 : 4;
}

GW_TEST(dirty, pagemap_scan_needs_no_privilege_and_uffd_wp_says_which)
{
    struct gw_error err = GW_ERROR_INIT;
    if (geteuid() != 0)
        GW_SKIP("only root can drop its privileges");
    if (gw_dirty_probe(GW_DIRTY_PAGEMAP_SCAN, &err) < 0)
        GW_SKIP("%s", err.message);
    bool may_use_uffd = number_in("/proc/sys/vm/unprivileged_userfaultfd") != 0;
    int status;
    pid_t child = fork();
    if (child == 0)
        _exit(as_nobody(may_use_uffd));
    GW_ASSERT_EQ(waitpid(child, &status, 0), child);
    GW_EXPECT_EQ(status, 0);
}
