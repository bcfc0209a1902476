// SPDX-License-Identifier: MIT
/* The built-in guest: its memory proves itself, at home and after a move, and every kind of damage
 * that a migration can do is found. */
#include "control/stream.h"
#include "tests/shim/gw_test.h"
#include "tests/support/huge_pool.h"
#include "tools/guest_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <godwit/dirty.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PAGE ((uint64_t)GW_GUEST_PAGE)
#define STATE_BYTES_MAX (64u << 20)

static const char *const fills[] = {"random", "zero", "text", "mixed:40", "mixed:100", NULL};
static const char *const patterns[] = {"uniform",   "zipf:0.9",   "zipf:1",     "zipf:1.3",
                                       "hot:90/10", "hot:50/100", "sequential", NULL};
static const char *const kinds[] = {"anon", "memfd", "hugetlb", NULL};

static void set(struct gw_guest_config *config, const char *name, const char *value)
{
    struct gw_error err = GW_ERROR_INIT;
    if (gw_guest_config_set(config, name, value, &err) < 0)
        GW_FAIL("%s: %s", name, err.message);
}

/* 8 MiB, 2 vCPUs. */
static struct gw_guest_config small(void)
{
    struct gw_guest_config config;
    gw_guest_config_init(&config);
    set(&config, "ram", "8M");
    set(&config, "vcpus", "2");
    return config;
}

static struct gw_guest *make(const struct gw_guest_config *config)
{
    struct gw_guest *guest = NULL;
    struct gw_error err = GW_ERROR_INIT;
    if (gw_guest_new(config, &guest, &err) < 0)
        GW_FAIL("%s", err.message);
    return guest;
}

static struct gw_guest *make_written(const struct gw_guest_config *config, uint64_t writes)
{
    struct gw_guest *guest = make(config);
    for (unsigned i = 0; i < config->vcpus; i++)
        gw_guest_step(guest, i, writes);
    return guest;
}

static void expect_right(struct gw_guest *guest)
{
    struct gw_error err = GW_ERROR_INIT;
    if (gw_guest_verify(guest, &err) != 0)
        GW_NOTE_FAILURE("%s", err.message);
}

static void expect_wrong(struct gw_guest *guest, const char *words)
{
    struct gw_error err = GW_ERROR_INIT;
    GW_EXPECT_EQ(gw_guest_verify(guest, &err), -EBADMSG);
    GW_EXPECT_EQ(err.code, GW_CODE_VERIFY);
    if (!strstr(err.message, words))
        GW_NOTE_FAILURE("'%s' does not say '%s'", err.message, words);
}

/* ---- a migration by hand --------------------------------------------------------------------- */

static int try_move_devices(struct gw_guest *from, struct gw_guest *to, int64_t cut,
                            struct gw_error *err)
{
    int rc = 0;
    for (unsigned i = 0; i < gw_guest_device_count(from) && rc == 0; i++) {
        struct gw_device_desc out;
        struct gw_device_desc in;
        struct gw_writer w;
        struct gw_reader r;
        gw_guest_device(from, i, &out);
        gw_guest_device(to, i, &in);
        GW_EXPECT_STREQ(in.name, out.name);
        gw_writer_init(&w, STATE_BYTES_MAX);
        GW_EXPECT_EQ(out.save(out.opaque, &w, NULL), 0);
        GW_EXPECT_EQ(gw_writer_error(&w), 0);
        gw_reader_init(&r, w.data, w.bytes - (cut && (size_t)cut < w.bytes ? (size_t)cut : 0));
        rc = in.load(in.opaque, &r, out.version_id, err);
        if (rc == 0)
            GW_EXPECT_EQ(gw_reader_left(&r), 0);
        gw_writer_fini(&w);
    }
    return rc;
}

static void copy_blocks(const struct gw_guest *from, struct gw_guest *to)
{
    for (unsigned i = 0; i < gw_guest_block_count(from); i++) {
        struct gw_block_desc source;
        struct gw_block_desc target;
        struct gw_error err = GW_ERROR_INIT;
        gw_guest_block(from, i, &source);
        if (gw_guest_offer(to, source.name, source.size_bytes, source.page_bytes, source.kind,
                           &target, &err) < 0)
            GW_FAIL("%s", err.message);
        GW_ASSERT_EQ(target.size_bytes, source.size_bytes);
        memcpy(target.host, source.host, source.size_bytes);
    }
}

static struct gw_guest *move(struct gw_guest *from)
{
    struct gw_guest *to = NULL;
    struct gw_error err = GW_ERROR_INIT;
    GW_ASSERT_EQ(gw_guest_new_incoming(NULL, &to, &err), 0);
    copy_blocks(from, to);
    if (try_move_devices(from, to, 0, &err) < 0)
        GW_FAIL("%s", err.message);
    return to;
}

/* ---- right ----------------------------------------------------------------------------------- */

GW_TEST_EACH(guest, every_fill_verifies_fresh_and_written, fills)
{
    struct gw_guest_config config = small();
    set(&config, "fill", param);
    struct gw_guest *guest = make(&config);
    expect_right(guest);
    for (int i = 0; i < 4; i++) { /* on average some 16 generations a page */
        gw_guest_step(guest, 0, 5000);
        gw_guest_step(guest, 1, 4000);
        expect_right(guest);
    }
    gw_guest_free(guest);
}

GW_TEST_EACH(guest, every_pattern_verifies_and_stays_in_its_share, patterns)
{
    struct gw_guest_config config = small();
    set(&config, "pattern", param);
    set(&config, "vcpus", "3");
    struct gw_guest *guest = make_written(&config, 20000);
    for (unsigned v = 0; v < 3; v++) {
        for (uint64_t nth = 0; nth < 10000; nth++)
            GW_ASSERT_LT(gw_guest_pattern_page(&guest->vcpus[v], nth), guest->vcpus[v].page_count);
    }
    expect_right(guest);
    gw_guest_free(guest);
}

GW_TEST_EACH(guest, every_kind_of_memory_runs_moves_and_verifies, kinds)
{
    struct gw_guest_config config = small();
    struct gw_guest *guest = NULL;
    struct gw_error err = GW_ERROR_INIT;
    set(&config, "memory", param);
    struct gw_huge_pool pool = {0};
    uint64_t huge_pages = 2 * config.ram_bytes >> 21; /* both guests' */
    if (config.memory == GW_BLOCK_HUGETLB && !gw_huge_pool_open(&pool, 2 << 20, huge_pages))
        GW_SKIP("%llu huge pages of 2 MiB cannot be had here", (unsigned long long)huge_pages);
    if (gw_guest_new(&config, &guest, &err) < 0) {
        gw_huge_pool_close(&pool);
        GW_FAIL("%s", err.message);
    }
    gw_guest_step(guest, 0, 3000);
    struct gw_guest *moved = move(guest);
    GW_EXPECT_EQ(moved->ram.kind, config.memory);
    expect_right(moved);
    gw_guest_free(guest);
    gw_guest_free(moved);
    gw_huge_pool_close(&pool);
}

GW_TEST_EACH(guest, moved_guest_verifies_and_goes_on, fills)
{
    struct gw_guest_config config = small();
    struct gw_guest_stats stats;
    set(&config, "fill", param);
    set(&config, "device-state", "9999");
    struct gw_guest *guest = make_written(&config, 7000);
    struct gw_guest *moved = move(guest);
    expect_right(moved);
    gw_guest_stats(moved, &stats);
    GW_EXPECT_EQ(stats.writes, 14000);

    gw_guest_step(guest, 1, 3000); /* the very writes that it would have made at home */
    gw_guest_step(moved, 1, 3000);
    expect_right(moved);
    GW_EXPECT_EQ(memcmp(guest->ram.host, moved->ram.host, guest->ram.bytes), 0);
    GW_EXPECT_EQ(memcmp(guest->table.host, moved->table.host, guest->table.bytes), 0);
    GW_EXPECT_EQ(gw_guest_hash(guest), gw_guest_hash(moved));

    struct gw_guest *again = move(moved);
    expect_right(again);
    gw_guest_free(again);
    gw_guest_free(moved);
    gw_guest_free(guest);
}

GW_TEST(guest, same_seed_gives_the_same_guest_and_another_does_not)
{
    struct gw_guest_config config = small();
    struct gw_guest *a = make_written(&config, 9000);
    struct gw_guest *b = make_written(&config, 9000);
    set(&config, "seed", "2");
    struct gw_guest *c = make_written(&config, 9000);
    GW_EXPECT_EQ(memcmp(a->ram.host, b->ram.host, a->ram.bytes), 0);
    GW_EXPECT_EQ(gw_guest_hash(a), gw_guest_hash(b));
    GW_EXPECT_NE(gw_guest_hash(a), gw_guest_hash(c));
    GW_EXPECT_NE(memcmp(a->ram.host, c->ram.host, PAGE), 0);
    gw_guest_free(a);
    gw_guest_free(b);
    gw_guest_free(c);
}

/* ---- wrong ----------------------------------------------------------------------------------- */

struct damaged {
    struct gw_guest *guest;
    uint64_t page;  /* written 1..15 times since it was made or rewritten, and more than 16 times */
    uint64_t young; /* written 1..15 times */
};

static void damage_open(struct damaged *d, const char *fill)
{
    struct gw_guest_config config = small();
    set(&config, "fill", fill);
    d->guest = make_written(&config, 16000);
    const struct gw_guest_entry *table = gw_guest_table(d->guest);
    for (d->page = 0; table[d->page].generation < 18 || table[d->page].generation % 16 < 2;)
        d->page++;
    for (d->young = 0; table[d->young].generation < 2 || table[d->young].generation > 15;)
        d->young++;
    expect_right(d->guest);
}

/* Keep the page, let its vCPU write it once or more, put the page back. */
static void lose_write(struct gw_guest *guest, uint64_t page, uint64_t writes)
{
    char kept[GW_GUEST_PAGE];
    unsigned vcpu = gw_guest_owner(guest, page);
    memcpy(kept, gw_guest_page(guest, page), PAGE);
    for (uint64_t i = 0; i < writes; i++) {
        GW_EXPECT(gw_guest_write(&guest->vcpus[vcpu], page));
        atomic_fetch_add(&guest->vcpus[vcpu].writes, 1);
    }
    expect_right(guest);
    memcpy(gw_guest_page(guest, page), kept, PAGE);
}

GW_TEST_EACH(guest, lost_write_is_found, fills)
{
    struct damaged d;
    damage_open(&d, param);
    lose_write(d.guest, d.page, 1);
    expect_wrong(d.guest, "is stale");
    gw_guest_free(d.guest);
}

GW_TEST_EACH(guest, page_that_is_several_writes_old_is_found, fills)
{
    struct damaged d;
    damage_open(&d, param);
    lose_write(d.guest, d.young, 3);
    expect_wrong(d.guest, "is stale");
    gw_guest_free(d.guest);
}

GW_TEST_EACH(guest, zeroed_page_is_found, fills)
{
    struct damaged d;
    damage_open(&d, param);
    memset(gw_guest_page(d.guest, d.page), 0, PAGE);
    expect_wrong(d.guest, "is all zeros");
    gw_guest_free(d.guest);
}

GW_TEST(guest, untouched_page_that_changed_is_found)
{
    struct gw_guest_config config = small();
    set(&config, "fill", "mixed:50");
    struct gw_guest *guest = make(&config);
    uint64_t page = 0;
    while (gw_guest_is_zero(&config, page, 0))
        page++;
    memset(gw_guest_page(guest, page), 0, PAGE);
    expect_wrong(guest, "is all zeros");
    gw_guest_compose(&config, page, 0, gw_guest_page(guest, page));
    expect_right(guest);
    while (!gw_guest_is_zero(&config, page, 0))
        page++;
    ((char *)gw_guest_page(guest, page))[4095] = 1;
    expect_wrong(guest, "is torn");
    gw_guest_free(guest);
}

GW_TEST_EACH(guest, torn_page_is_found, fills)
{
    struct damaged d;
    char kept[GW_GUEST_PAGE];
    damage_open(&d, param);
    memcpy(kept, gw_guest_page(d.guest, d.page), PAGE);
    uint32_t generation = gw_guest_table(d.guest)[d.page].generation;
    unsigned line = gw_guest_line_of(&d.guest->config, d.page, generation);
    char *at = (char *)gw_guest_page(d.guest, d.page) + (size_t)line * GW_GUEST_LINE;
    at[40] ^= 1; /* one bit of the newest line */
    expect_wrong(d.guest, "is torn");
    memcpy(gw_guest_page(d.guest, d.page), kept, PAGE);
    expect_right(d.guest);
    gw_guest_free(d.guest);
}

GW_TEST_EACH(guest, swapped_pages_are_found, fills)
{
    struct damaged d;
    char kept[GW_GUEST_PAGE];
    damage_open(&d, param);
    memcpy(kept, gw_guest_page(d.guest, d.page), PAGE);
    memcpy(gw_guest_page(d.guest, d.page), gw_guest_page(d.guest, d.young), PAGE);
    memcpy(gw_guest_page(d.guest, d.young), kept, PAGE);
    expect_wrong(d.guest, "block 'ram': page");
    gw_guest_free(d.guest);
}

GW_TEST(guest, page_and_entry_that_are_both_old_are_found)
{
    struct damaged d;
    damage_open(&d, "random");
    struct gw_guest_entry kept = gw_guest_table(d.guest)[d.page];
    lose_write(d.guest, d.page, 1);
    gw_guest_table(d.guest)[d.page] = kept; /* page and table agree: the cut is not one */
    expect_wrong(d.guest, "its hash is");
    gw_guest_free(d.guest);
}

GW_TEST(guest, counts_that_ran_back_are_found)
{
    struct damaged d;
    damage_open(&d, "random");
    atomic_fetch_sub(&d.guest->vcpus[1].writes, 1);
    expect_wrong(d.guest, "vCPU 1");
    gw_guest_free(d.guest);
}

GW_TEST(guest, damage_on_the_way_is_found_at_the_target)
{
    struct gw_guest_config config = small();
    struct gw_guest *guest = make_written(&config, 5000);
    struct gw_guest *moved = move(guest);
    expect_right(moved);
    ((char *)moved->table.host)[moved->table.bytes / 2] ^= 4;
    struct gw_error err = GW_ERROR_INIT;
    GW_EXPECT_EQ(gw_guest_verify(moved, &err), -EBADMSG);
    gw_guest_free(guest);
    gw_guest_free(moved);
}

/* ---- a file's bytes -------------------------------------------------------------------------- */

/* 3 MiB and some bytes: data, a hole of 1 MiB, data with zero pages in it. */
static void make_image(char *path, size_t bytes)
{
    char *data = malloc(bytes);
    snprintf(path, 64, "/tmp/gw-guest-test-XXXXXX");
    int fd = mkstemp(path);
    GW_ASSERT(fd >= 0);
    for (size_t i = 0; i < bytes; i++)
        data[i] = (char)(i * 2654435761u >> 13);
    memset(data + 40 * PAGE, 0, 3 * PAGE);
    GW_EXPECT_EQ(pwrite(fd, data, 1 << 20, 0), 1 << 20);
    GW_EXPECT_EQ(pwrite(fd, data, bytes - (2 << 20), 2 << 20), (ssize_t)(bytes - (2 << 20)));
    close(fd);
    free(data);
}

GW_TEST(guest, file_guest_proves_itself_where_the_file_is_not)
{
    char path[64];
    char option[80];
    size_t bytes = (3 << 20) + 1234;
    struct gw_guest_config config = small();
    make_image(path, bytes);
    snprintf(option, sizeof(option), "file:%s", path);
    set(&config, "fill", option);
    set(&config, "memory", "memfd");
    struct gw_guest *guest = make(&config);

    int fd = open(path, O_RDONLY | O_CLOEXEC);
    char *image = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    unlink(path);
    GW_ASSERT(image != MAP_FAILED);
    GW_EXPECT_EQ(lseek(guest->ram.fd, 1 << 20, SEEK_DATA), 2 << 20); /* the hole stayed one */
    GW_EXPECT_EQ(lseek(guest->ram.fd, 2 << 20, SEEK_HOLE), (3 << 20) + (off_t)PAGE);
    expect_right(guest);
    GW_EXPECT_EQ(lseek(guest->ram.fd, 1 << 20, SEEK_DATA), 2 << 20); /* looking made no memory */
    GW_EXPECT_EQ(memcmp(guest->ram.host, image, bytes), 0);
    munmap(image, bytes);

    gw_guest_step(guest, 0, 1000); /* of the file's pages some never, some once or more */
    gw_guest_step(guest, 1, 900);
    expect_right(guest);
    struct gw_guest *moved = move(guest);
    expect_right(moved);
    gw_guest_step(moved, 0, 20000);
    expect_right(moved);

    /* A page of the file that nobody wrote, and one that was written a little. */
    const struct gw_guest_entry *table = gw_guest_table(guest);
    uint64_t page = 0;
    while (table[page].generation || !table[page].sum)
        page++;
    ((char *)gw_guest_page(guest, page))[77] ^= 16;
    expect_wrong(guest, "checksum");
    ((char *)gw_guest_page(guest, page))[77] ^= 16;
    expect_right(guest);
    for (page = 0; table[page].generation < 2 || table[page].generation > 14;)
        page++;
    lose_write(guest, page, 1);
    expect_wrong(guest, "is torn");
    gw_guest_free(guest);
    gw_guest_free(moved);
}

GW_TEST(guest, file_that_is_larger_than_the_guest_is_refused)
{
    char path[64];
    char option[80];
    struct gw_guest *guest;
    struct gw_error err = GW_ERROR_INIT;
    struct gw_guest_config config = small();
    make_image(path, 3 << 20);
    snprintf(option, sizeof(option), "file:%s", path);
    set(&config, "fill", option);
    set(&config, "ram", "1M");
    GW_EXPECT_EQ(gw_guest_new(&config, &guest, &err), -EINVAL);
    GW_EXPECT(strstr(err.hint, "--ram 3145728") != NULL);
    unlink(path);
    GW_EXPECT_EQ(gw_guest_new(&config, &guest, &err), -ENOENT);
    GW_EXPECT(strstr(err.message, path) != NULL);
}

GW_TEST(guest, untouched_memory_stays_a_hole)
{
    struct gw_guest_config config = small();
    set(&config, "fill", "zero");
    set(&config, "memory", "memfd");
    struct gw_guest *guest = make(&config);
    expect_right(guest);
    GW_EXPECT_EQ(lseek(guest->ram.fd, 0, SEEK_DATA), -1);
    gw_guest_step(guest, 0, 1);
    expect_right(guest);
    off_t data = lseek(guest->ram.fd, 0, SEEK_DATA);
    GW_EXPECT_GE(data, 0);
    GW_EXPECT_EQ(lseek(guest->ram.fd, data, SEEK_HOLE), data + (off_t)PAGE);
    gw_guest_free(guest);
}

/* ---- vCPU threads ---------------------------------------------------------------------------- */

static void sleep_ms(long ms)
{
    struct timespec span = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    nanosleep(&span, NULL);
}

static uint64_t writes_of(const struct gw_guest *guest)
{
    struct gw_guest_stats stats;
    gw_guest_stats(guest, &stats);
    return stats.writes;
}

static void start(struct gw_guest *guest)
{
    struct gw_error err = GW_ERROR_INIT;
    if (gw_guest_start(guest, &err) < 0)
        GW_FAIL("%s", err.message);
}

GW_TEST(guest, paused_guest_stands_still_and_verifies)
{
    struct gw_guest_config config = small();
    set(&config, "dirty-rate", "max");
    set(&config, "vcpus", "3");
    struct gw_guest *guest = make(&config);
    start(guest);
    uint64_t last = 0;
    for (int i = 0; i < 50; i++) {
        gw_guest_pause(guest);
        uint64_t writes = writes_of(guest);
        if (i % 10 == 0)
            expect_right(guest);
        gw_guest_pause(guest); /* once more does no harm */
        GW_EXPECT_EQ(writes_of(guest), writes);
        gw_guest_resume(guest);
        while (writes_of(guest) == writes)
            sleep_ms(1);
        GW_EXPECT_GE(writes, last);
        last = writes;
    }
    gw_guest_pause(guest);
    gw_guest_free(guest);
}

GW_TEST(guest, running_guest_can_be_freed_and_an_idle_one_does_not_write)
{
    struct gw_guest_config config = small();
    struct gw_guest *guest = make(&config);
    start(guest);
    GW_EXPECT_EQ(gw_guest_start(guest, NULL), -EALREADY);
    sleep_ms(5);
    gw_guest_pause(guest);
    gw_guest_resume(guest);
    GW_EXPECT_EQ(writes_of(guest), 0);
    gw_guest_free(guest);
    set(&config, "dirty-rate", "max");
    guest = make(&config);
    start(guest);
    gw_guest_free(guest);
}

GW_TEST(guest, guest_that_moved_runs_and_verifies)
{
    struct gw_guest_config config = small();
    set(&config, "dirty-rate", "40M");
    set(&config, "pattern", "hot:90/10");
    struct gw_guest *guest = make(&config);
    start(guest);
    while (writes_of(guest) < 200)
        sleep_ms(1);
    gw_guest_pause(guest);
    struct gw_guest *moved = move(guest);
    GW_EXPECT_EQ(writes_of(moved), writes_of(guest));
    expect_right(moved);
    start(moved);
    while (writes_of(moved) < 2 * writes_of(guest))
        sleep_ms(1);
    gw_guest_pause(moved);
    expect_right(moved);
    gw_guest_resume(guest); /* and so does the other, if the migration failed */
    gw_guest_pause(guest);
    expect_right(guest);
    gw_guest_free(guest);
    gw_guest_free(moved);
}

/* ---- with its memory tracked -------------------------------------------------------------------- */

static const char *const tracked[] = {"anon", "memfd", NULL};

static void copy_reported(const struct gw_block_desc *from, const struct gw_block_desc *to,
                          const uint64_t *written)
{
    for (uint64_t page = 0; page < from->size_bytes / PAGE; page++) {
        if (written[page / 64] >> page % 64 & 1)
            memcpy((char *)to->host + page * PAGE, (char *)from->host + page * PAGE, PAGE);
    }
}

static void copy_round(struct gw_guest *guest, struct gw_guest *target, struct gw_dirty *dirty)
{
    const struct gw_dirty_ops *ops = gw_dirty_kernel_ops(dirty);
    for (unsigned i = 0; i < gw_guest_block_count(guest); i++) {
        struct gw_block_desc from;
        struct gw_block_desc to;
        gw_guest_block(guest, i, &from);
        gw_guest_block(target, i, &to);
        uint64_t *written = calloc(from.size_bytes / PAGE / 64 + 1, sizeof(uint64_t));
        GW_EXPECT_EQ(ops->sync(dirty, i, 0, from.size_bytes / PAGE, written, NULL), 0);
        copy_reported(&from, &to, written);
        free(written);
    }
}

GW_TEST_EACH(guest, guest_that_moves_while_it_writes_verifies, tracked)
{
    struct gw_guest_config config = small();
    struct gw_dirty *dirty = NULL;
    struct gw_error err = GW_ERROR_INIT;
    struct gw_guest *target = NULL;
    set(&config, "memory", param);
    set(&config, "fill", "mixed:30");
    set(&config, "pattern", "zipf:0.8");
    set(&config, "dirty-rate", "max");
    if (gw_dirty_open(GW_DIRTY_AUTO, NULL, &dirty, &err) < 0)
        GW_SKIP("%s", err.message);
    struct gw_guest *guest = make(&config);
    const struct gw_dirty_ops *ops = gw_dirty_kernel_ops(dirty);
    start(guest);
    for (unsigned i = 0; i < gw_guest_block_count(guest); i++) {
        struct gw_block_desc block;
        gw_guest_block(guest, i, &block);
        GW_EXPECT_EQ(ops->start(dirty, i, &block, NULL), 0);
    }
    GW_ASSERT_EQ(gw_guest_new_incoming(NULL, &target, &err), 0);
    copy_blocks(guest, target);
    for (int round = 0; round < 20; round++)
        copy_round(guest, target, dirty);
    gw_guest_pause(guest);
    copy_round(guest, target, dirty);
    GW_EXPECT_EQ(try_move_devices(guest, target, 0, &err), 0);
    expect_right(target);
    expect_right(guest);
    gw_dirty_close(dirty);
    gw_guest_free(guest);
    gw_guest_free(target);
}

/* ---- what comes from outside ---------------------------------------------------------------- */

GW_TEST(guest, short_or_foreign_device_state_is_refused)
{
    struct gw_guest_config config = small();
    set(&config, "device-state", "5000");
    struct gw_guest *guest = make(&config);
    for (int64_t cut = 1; cut < 70; cut++) {
        struct gw_guest *target = NULL;
        struct gw_error err = GW_ERROR_INIT;
        GW_ASSERT_EQ(gw_guest_new_incoming(NULL, &target, &err), 0);
        copy_blocks(guest, target);
        GW_EXPECT_LT(try_move_devices(guest, target, cut, &err), 0);
        GW_EXPECT(err.message[0] != '\0');
        GW_EXPECT_EQ(gw_guest_start(target, &err), -EINVAL);
        GW_EXPECT_EQ(gw_guest_verify(target, &err), -EINVAL);
        gw_guest_free(target);
    }
    struct gw_guest *target = NULL;
    struct gw_block_desc block;
    struct gw_error err = GW_ERROR_INIT;
    GW_ASSERT_EQ(gw_guest_new_incoming(NULL, &target, &err), 0);
    GW_EXPECT_EQ(gw_guest_offer(target, "rom", PAGE, 4096, GW_BLOCK_ANON, &block, &err), -EINVAL);
    GW_EXPECT_EQ(gw_guest_offer(target, "ram", 100, 4096, GW_BLOCK_ANON, &block, &err), -EINVAL);
    GW_EXPECT_EQ(gw_guest_offer(target, "ram", PAGE, 4096, GW_BLOCK_ANON, &block, &err), 0);
    GW_EXPECT_EQ(gw_guest_offer(target, "ram", PAGE, 4096, GW_BLOCK_ANON, &block, &err), -EEXIST);
    GW_EXPECT_EQ(try_move_devices(guest, target, 0, &err), -EINVAL); /* blocks of another size */
    gw_guest_free(target);
    gw_guest_free(guest);
}

/* `receive --memory hugetlb`: the table of a small guest is less than one huge page. */
GW_TEST(guest, the_table_of_an_incoming_guest_has_small_pages_whatever_its_memory_has)
{
    struct gw_block_desc block = {.struct_bytes = sizeof(block)};
    struct gw_error err = GW_ERROR_INIT;
    struct gw_guest *target = NULL;
    GW_ASSERT_EQ(gw_guest_new_incoming(NULL, &target, &err), 0);
    GW_EXPECT_EQ(gw_guest_offer(target, "generations", PAGE, 4096, GW_BLOCK_HUGETLB, &block, &err),
                 0);
    GW_EXPECT_EQ(block.page_bytes, 4096);
    GW_EXPECT_EQ(block.kind, GW_BLOCK_MEMFD);
    GW_EXPECT_EQ(gw_guest_offer(target, "ram", 3 << 20, 4096, GW_BLOCK_HUGETLB, &block, &err),
                 -EINVAL);
    GW_EXPECT(strstr(err.message, "2097152") != NULL);
    GW_EXPECT(strstr(err.hint, "--memory") != NULL);
    gw_guest_free(target);
}

GW_TEST(guest, more_memory_than_there_is_is_refused_before_it_is_touched)
{
    struct gw_guest_config config = small();
    struct gw_error err = GW_ERROR_INIT;
    struct gw_guest_reserve *reserve = NULL;
    struct gw_guest *guest = NULL;
    set(&config, "ram", "16T");
    GW_EXPECT_EQ(gw_guest_new(&config, &guest, &err), -ENOMEM);
    GW_EXPECT_EQ(err.code, GW_CODE_NO_MEMORY);
    GW_EXPECT(err.hint[0] != '\0');
    GW_EXPECT_EQ(gw_guest_reserve_new(GW_BLOCK_ANON, UINT64_C(1) << 44, &reserve, &err), -ENOMEM);
}

GW_TEST(guest, incoming_guests_live_in_the_reserve_one_after_another)
{
    struct gw_guest_config config = small();
    struct gw_guest_reserve *reserve = NULL;
    struct gw_guest *guest = make_written(&config, 1000);
    GW_ASSERT_EQ(gw_guest_reserve_new(GW_BLOCK_ANON, config.ram_bytes, &reserve, NULL), 0);
    for (int i = 0; i < 3; i++) {
        struct gw_guest *target = NULL;
        GW_ASSERT_EQ(gw_guest_new_incoming(reserve, &target, NULL), 0);
        copy_blocks(guest, target);
        GW_EXPECT(target->ram.borrowed);
        GW_EXPECT(target->table.borrowed);
        GW_EXPECT_EQ(try_move_devices(guest, target, 0, NULL), 0);
        expect_right(target);
        const char *host = target->ram.host;
        gw_guest_free(target);
        GW_EXPECT_EQ(gw_guest_reserve_reset(reserve, NULL), 0);
        GW_EXPECT_EQ(host[5], 0);
    }
    gw_guest_reserve_free(reserve);
    gw_guest_free(guest);
}

GW_TEST(guest, options_are_read_and_bad_ones_refused)
{
    static const char *const bad[][2] = {
        {"ram", "x"},         {"vcpus", "0"},         {"vcpus", "257"},
        {"memory", "disk"},   {"fill", "mixed"},      {"fill", "mixed:101"},
        {"fill", "file:"},    {"fill", "noise"},      {"pattern", "zipf:0"},
        {"pattern", "zipf:"}, {"pattern", "hot:9"},   {"pattern", "hot:90/0"},
        {"seed", "-1"},       {"pattern", "hot:/10"}, {"seed", ""},
    };
    struct gw_guest_config config;
    gw_guest_config_init(&config);
    GW_EXPECT_EQ(config.ram_bytes, 1u << 30);
    set(&config, "dirty-rate", "200M");
    GW_EXPECT_EQ(config.dirty_rate, 200u << 20);
    set(&config, "pattern", "hot:80/20");
    GW_EXPECT_EQ(config.hot_writes, 80);
    GW_EXPECT_EQ(config.hot_pages, 20);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct gw_error err = GW_ERROR_INIT;
        GW_EXPECT_EQ(gw_guest_config_set(&config, bad[i][0], bad[i][1], &err), -EINVAL);
        GW_EXPECT(err.message[0] != '\0');
    }
    struct gw_error err = GW_ERROR_INIT;
    GW_EXPECT_EQ(gw_guest_config_set(&config, "rma", "1G", &err), -ENOENT);
    config.ram_bytes = 5000;
    struct gw_guest *guest;
    GW_EXPECT_EQ(gw_guest_new(&config, &guest, &err), -EINVAL);
}

/* Ranks of a Zipf draw against the law. */
GW_TEST(guest, zipf_draws_follow_the_law)
{
    struct gw_guest_config config = small();
    set(&config, "pattern", "zipf:1");
    set(&config, "vcpus", "1");
    struct gw_guest *guest = make(&config);
    const struct gw_guest_vcpu *vcpu = &guest->vcpus[0];
    uint64_t *count = calloc(vcpu->page_count, sizeof(uint64_t));
    for (uint64_t nth = 0; nth < 1000000; nth++)
        count[gw_guest_pattern_page(vcpu, nth)]++;
    double harmonic = 0;
    for (uint64_t k = 1; k <= vcpu->page_count; k++)
        harmonic += 1.0 / (double)k;
    for (uint64_t k = 1; k <= 64; k *= 2) {
        uint64_t page = ((k - 1) * vcpu->zipf.stride + vcpu->zipf.offset) % vcpu->page_count;
        double due = 1000000 / harmonic / (double)k;
        GW_EXPECT_GT(count[page], (uint64_t)(due * 0.9));
        GW_EXPECT_LT(count[page], (uint64_t)(due * 1.1));
    }
    free(count);
    gw_guest_free(guest);
}

/* Above 16 MiB it comes in pieces: each is taken once, in order, and is what it must be. */
static int move_piece(const struct gw_device_desc *out, const struct gw_device_desc *in,
                      size_t flip, bool *done)
{
    struct gw_writer w;
    struct gw_reader r;
    struct gw_error err = GW_ERROR_INIT;
    gw_writer_init(&w, STATE_BYTES_MAX);
    int rc = out->ops->complete_precopy(out->opaque, &w, 1u << 20, &err);
    *done = rc == GW_DEVICE_DONE;
    GW_EXPECT_EQ(gw_writer_error(&w), 0);
    if (flip)
        w.data[flip] ^= 1;
    gw_reader_init(&r, w.data, w.bytes);
    rc = in->ops->load(in->opaque, &r, *done ? GW_DEVICE_END : GW_DEVICE_PART, 1, &err);
    if (rc == 0)
        GW_EXPECT_EQ(gw_reader_left(&r), 0);
    gw_writer_fini(&w);
    return rc;
}

GW_TEST(guest, much_device_state_comes_in_pieces)
{
    struct gw_guest_config config = small();
    struct gw_device_desc out, in;
    struct gw_guest *target = NULL;
    struct gw_error err = GW_ERROR_INIT;
    struct gw_writer w;
    struct gw_reader r;
    set(&config, "device-state", "20000001");
    struct gw_guest *guest = make(&config);
    GW_ASSERT_EQ(gw_guest_new_incoming(NULL, &target, &err), 0);
    gw_guest_device(guest, 1, &out);
    gw_guest_device(target, 1, &in);
    GW_ASSERT(out.ops && out.ops->complete_precopy && !out.save);
    gw_writer_init(&w, 4096);
    GW_EXPECT_EQ(out.ops->setup(out.opaque, &w, &err), 0);
    gw_reader_init(&r, w.data, w.bytes);
    GW_EXPECT_EQ(in.ops->load(in.opaque, &r, GW_DEVICE_BEGIN, 1, &err), 0);
    gw_writer_fini(&w);
    bool done = false;
    unsigned pieces = 0;
    while (!done && move_piece(&out, &in, 0, &done) == 0)
        pieces++;
    GW_EXPECT(done);
    GW_EXPECT_EQ(pieces, 20);
    GW_EXPECT_EQ(out.ops->setup(out.opaque, &w, &err),
                 0); /* from the beginning: out of order there */
    gw_writer_fini(&w);
    GW_EXPECT_EQ(move_piece(&out, &in, 0, &done), -EBADMSG);
    target->ballast_at = 1u << 20;
    GW_EXPECT_EQ(move_piece(&out, &in, 100, &done), -EBADMSG); /* a byte is another */
    gw_guest_free(guest);
    gw_guest_free(target);
}
