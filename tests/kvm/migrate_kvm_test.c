// SPDX-License-Identifier: MIT
/* A real guest goes from process to process: over each wire, with each number of processors, back and forth,
 * to a host that refuses, over a link that breaks. Its own checks judge its memory, the serial line tells
 * whether it lost or repeated a moment. */
#include "gw_config.h"
#include "tests/kvm/kvm_support.h"
#include "tests/shim/gw_test.h"
#include "tests/support/huge_pool.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* With rdma where it is: on an emulated host. */
static const char *const *wires(void)
{
    static char rdma[64];
    static const char *list[] = {"tcp:127.0.0.1:0", "unix:", NULL, NULL, NULL};
    unsigned count = 2;
#if GW_HAVE_OFI
    list[count++] = "ofi:tcp;ofi_rxm:127.0.0.1:0";
#endif
    const char *address = getenv("RIG_ADDR");
    if (address) {
        snprintf(rdma, sizeof(rdma), "rdma:%s:0", address);
        list[count++] = rdma;
    }
    return list;
}

static unsigned hops(void)
{
    const char *text = getenv("GODWIT_TEST_HOPS");
    return text ? (unsigned)strtoul(text, NULL, 10) : 5;
}

/* Every row of the cases goes over @wire. */
GW_TEST_EACH(guest, arrives_whole, wires)
{
    static const char *const cases[][8] = {
        {"--vcpus", "2", "--dirty-rate", "8M", "--blocks", "4", NULL},
        {"--vcpus", "1", "--dirty-rate", "2M", "--memory", "anon", NULL},
        {"--vcpus", "2", "--dirty-rate", "8M", "--set", "x-cpu-throttle=80", NULL},
        {"--vcpus", "1", "--dirty-rate", "0", NULL},
        {"--vcpus", "4", "--dirty-rate", "2M", "--fill", "zero", NULL},
    };
    /* An emulated host takes its time. */
    const unsigned count = getenv("RIG_ADDR") ? 2 : sizeof(cases) / sizeof(cases[0]);
    for (unsigned i = 0; i < count && !gw_test_has_failed(); i++) {
        struct kvm_chain chain = {.uri = param, .options = cases[i], .hops = 1, .run_for = "0.5"};
        kvm_run_chain(&chain);
        printf("  %s, %s vCPUs: the guest's clock is %.3f ms off\n", param, cases[i][1],
               chain.clock_late_ms_max);
    }
}

/* As large as a guest of this board may be in one block of two, and half of what is left in an emulated host. */
GW_TEST_EACH(guest, of_a_gibibyte_arrives_whole, wires)
{
    if (!getenv("GODWIT_TEST_FULL"))
        GW_SKIP("GODWIT_TEST_FULL is not set");
    struct kvm_chain chain = {.uri = param,
                              .options = (const char *const[]){"--vcpus", "2", "--ram", "1G",
                                                               "--working-set", "64M",
                                                               "--dirty-rate", "16M", NULL},
                              .hops = 1,
                              .run_for = "3"};
    kvm_run_chain(&chain);
    printf("  %s: the guest's clock is %.3f ms off\n", param, chain.clock_late_ms_max);
}

GW_TEST(guest, goes_back_and_forth_without_losing_a_moment)
{
    struct kvm_chain chain = {.uri = "tcp:127.0.0.1:0",
                              .options =
                                  (const char *const[]){"--vcpus", "2", "--dirty-rate", "4M", NULL},
                              .hops = hops(),
                              .run_for = "0.5"};
    kvm_run_chain(&chain);
    printf("  %u hops: the guest's clock is %.3f ms off\n", chain.hops, chain.clock_late_ms_max);
}

/* Every block of the file is whole, and one of the first that were written to it. */
static unsigned check_disk(const char *path)
{
    uint64_t words[VMM_PAGE_BYTES / 8];
    unsigned written = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    GW_ASSERT(fd >= 0);
    for (unsigned block = 0; read(fd, words, sizeof(words)) == sizeof(words); block++) {
        unsigned generation = 1;
        for (unsigned i = 1; i < VMM_PAGE_BYTES / 8; i++)
            if (words[i] != words[0])
                GW_FAIL("block %u is torn", block);
        while (words[0] && generation < 1000 && words[0] != board_stamp(block, generation))
            generation++;
        GW_EXPECT_LT(generation, 1000);
        written += words[0] != 0;
    }
    close(fd);
    return written;
}

/* All hosts share the file, whose lock goes with the guest; requests are in flight whenever it leaves. */
GW_TEST(guest, takes_its_disk_along)
{
    const char *disk = kvm_file("disk");
    int fd = open(disk, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    GW_ASSERT(fd >= 0 && ftruncate(fd, 4 << 20) == 0);
    close(fd);
    struct kvm_chain chain = {.uri = "unix:",
                              .options =
                                  (const char *const[]){"--program", "disk", "--disk", disk, NULL},
                              .receivers = (const char *const[]){"--disk", disk, NULL},
                              .hops = 3,
                              .run_for = "0.5"};
    kvm_run_chain(&chain);
    GW_EXPECT_GT(check_disk(disk), 0);
}

GW_TEST(guest, of_huge_pages_arrives_whole)
{
    struct gw_huge_pool pool;
    if (!gw_huge_pool_open(&pool, 2u << 20, 64))
        GW_SKIP("there are no 128 MiB of huge pages");
    struct kvm_chain chain = {
        .uri = "tcp:127.0.0.1:0",
        .options = (const char *const[]){"--memory", "hugetlb", "--vcpus", "2", NULL},
        .receivers = (const char *const[]){"--memory", "hugetlb", NULL},
        .hops = 1,
        .run_for = "0.5"};
    kvm_run_chain(&chain);
    gw_huge_pool_close(&pool);
}

GW_TEST(guest, is_the_same_by_digest_at_both_hosts)
{
    struct kvm_chain chain = {.uri = "tcp:127.0.0.1:0",
                              .options =
                                  (const char *const[]){"--vcpus", "2", "--set", "digest=on", NULL},
                              .hops = 1,
                              .run_for = "0.5"};
    kvm_run_chain(&chain);
}

GW_TEST(guest, arrives_by_the_dirty_ring_or_says_why_not)
{
    static struct command source, target;
    char uri[256];
    command_start(&target, (const char *const[]){"receive", "tcp:127.0.0.1:0", "--json", "-",
                                                 "--serial", kvm_file("serial"), NULL});
    GW_ASSERT(command_await_uri(&target, uri, sizeof(uri)));
    command_start(&source, (const char *const[]){"send", uri, "--dirty-source", "ring", "--vcpus",
                                                 "2", "--serial", kvm_file("serial0"), NULL});
    GW_EXPECT_EQ(command_finish(&source), 0);
    GW_EXPECT_EQ(command_finish(&target), 0);
    char why[VMM_WHY_BYTES];
    if (vmm_ring_probe(why) < 0)
        GW_EXPECT(strstr(source.err.text, "the dirty log is used") != NULL);
    else
        GW_EXPECT(strstr(source.err.text, "the dirty log is used") == NULL);
}

/* ud2: there is nobody to take that. */
GW_TEST(guest, that_crashes_before_it_is_sent_is_an_error)
{
    static struct command source;
    const char *program = kvm_file("ud2");
    int fd = open(program, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    GW_ASSERT(fd >= 0 && write(fd, "\x0f\x0b", 2) == 2);
    close(fd);
    command_start(&source,
                  (const char *const[]){"send", "tcp:127.0.0.1:1", "--program", program, "--json",
                                        "-", "--serial", kvm_file("serial"), NULL});
    GW_EXPECT_EQ(command_finish(&source), 1);
    json_t *document = command_document(&source);
    GW_EXPECT_STREQ(json_text_at(document, "role", NULL), "source");
    GW_EXPECT_STREQ(json_text_at(document, "error", "code"), "guest");
    json_decref(document);
}

/* It says "tick" to a pipe whose reader left. */
GW_TEST(guest, outlives_who_listens_to_it)
{
    static struct command command;
    command_start(&command,
                  (const char *const[]){"run", "--program", "ticker", "--run-for", "0.5", NULL});
    close(command.out.fd);
    command.out.fd = -1;
    GW_EXPECT_EQ(command_finish(&command), 0);
}

/* The lock's file of the target is this test's: the source takes its own back and goes on. */
GW_TEST(refused, acquire_leaves_the_guest_where_it_was)
{
    static struct command source, target;
    char uri[256];
    const char *there = kvm_file("lock-there"), *here = kvm_file("lock-here");
    int fd = open(there, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    GW_ASSERT(fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0);
    command_start(&target,
                  (const char *const[]){"receive", "tcp:127.0.0.1:0", "--lock", there, "--json",
                                        "-", "--serial", kvm_file("serial"), NULL});
    GW_ASSERT(command_await_uri(&target, uri, sizeof(uri)));
    command_start(&source, (const char *const[]){"send", uri, "--lock", here, "--json", "-",
                                                 "--serial", kvm_file("serial0"), NULL});
    GW_EXPECT_EQ(command_finish(&source), 1);
    GW_EXPECT_EQ(command_finish(&target), 1);
    json_t *document = command_document(&source);
    GW_EXPECT_STREQ(json_text_at(document, "error", "code"), "declined");
    GW_EXPECT(json_is_true(json_at(document, "guest", "verified")));
    json_decref(document);
    close(fd);
}

static unsigned lines_with(const char *path, const char *text)
{
    char line[1024];
    unsigned count = 0;
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof(line), file))
        count += strstr(line, text) != NULL;
    if (file)
        fclose(file);
    return count;
}

static void await_lines(const char *path, const char *text, unsigned count)
{
    const struct timespec nap = {.tv_nsec = 1000000};
    for (unsigned i = 0; i < COMMAND_PATIENCE_S * 1000u && lines_with(path, text) < count; i++)
        nanosleep(&nap, NULL);
    if (lines_with(path, text) < count)
        GW_FAIL("'%s' did not say '%s' %u times", path, text, count);
}

/* A source that gives its lock up for a target that cannot take its own, and cannot take it back either: the
 * folder that it is in has gone by then. */
struct bereft {
    struct command source, target;
    char folder[128], hidden[136], lock[136];
    const char *events;
    int fd;
};

static void bereave(struct bereft *b)
{
    char uri[256], number[64];
    struct stat file;
    const char *there = kvm_file("lock-there");
    snprintf(b->folder, sizeof(b->folder), "%s", kvm_file("locks"));
    snprintf(b->hidden, sizeof(b->hidden), "%s-gone", b->folder);
    snprintf(b->lock, sizeof(b->lock), "%s/here", b->folder);
    b->events = kvm_file("events");
    b->fd = open(there, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    GW_ASSERT(b->fd >= 0 && flock(b->fd, LOCK_EX | LOCK_NB) == 0);
    int here =
        mkdir(b->folder, 0700) < 0 ? -1 : open(b->lock, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    GW_ASSERT(here >= 0 && fstat(here, &file) == 0);
    close(here);
    command_start(&b->target,
                  (const char *const[]){"receive", "tcp:127.0.0.1:0", "--lock", there, "--json",
                                        "-", "--serial", kvm_file("serial"), NULL});
    GW_ASSERT(command_await_uri(&b->target, uri, sizeof(uri)));
    command_start(&b->source,
                  (const char *const[]){"send", uri, "--lock", b->lock, "--json", "-", "--events",
                                        b->events, "--serial", kvm_file("serial0"), NULL});
    snprintf(number, sizeof(number), ":%llu ", (unsigned long long)file.st_ino);
    await_lines("/proc/locks", number, 1); /* it has it, and waits for a second */
    GW_ASSERT_EQ(rename(b->folder, b->hidden), 0);
    await_lines(b->events, "retake", 3);
}

static void settle(struct bereft *b, const char *code, bool goes_on)
{
    GW_EXPECT_EQ(command_finish(&b->source), 1);
    GW_EXPECT_EQ(command_finish(&b->target), 1);
    json_t *document = command_document(&b->source);
    GW_EXPECT_STREQ(json_text_at(document, "error", "code"), code);
    json_t *verified = json_at(document, "guest", "verified");
    GW_EXPECT(goes_on ? json_is_true(verified) : json_is_null(verified));
    json_decref(document);
    close(b->fd);
    rename(b->hidden, b->folder);
    unlink(b->lock);
    rmdir(b->folder);
}

GW_TEST(refused, lock_that_cannot_be_taken_back_is_tried_for_until_it_can)
{
    static struct bereft b;
    bereave(&b);
    GW_ASSERT_EQ(rename(b.hidden, b.folder), 0);
    settle(&b, "declined", true);
}

/* Who interrupts it then is told what becomes of the guest. */
GW_TEST(refused, lock_that_cannot_be_taken_back_is_given_up_at_a_signal)
{
    static struct bereft b;
    bereave(&b);
    kill(b.source.pid, SIGINT);
    settle(&b, "retake", false);
}

/* The line is full before the guest begins, and stays so until it has moved. */
GW_TEST(guest, whose_serial_line_nobody_reads_moves_and_loses_no_byte)
{
    static struct command source, target;
    static char text[1u << 16];
    char uri[256];
    const char *line = kvm_file("line"), *heard = kvm_file("heard");
    GW_ASSERT_EQ(mkfifo(line, 0600), 0);
    int fd = open(line, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    GW_ASSERT(fd >= 0 && fcntl(fd, F_SETPIPE_SZ, VMM_PAGE_BYTES) == VMM_PAGE_BYTES);
    GW_ASSERT_EQ(write(fd, text, VMM_PAGE_BYTES), VMM_PAGE_BYTES);
    command_start(&target, (const char *const[]){"receive", "tcp:127.0.0.1:0", "--json", "-",
                                                 "--serial", line, "--run-for", "2", NULL});
    GW_ASSERT(command_await_uri(&target, uri, sizeof(uri)));
    command_start(&source, (const char *const[]){"send", uri, "--json", "-", "--serial", line,
                                                 "--warmup", "2", NULL});
    GW_EXPECT_EQ(command_finish(&source), 0);
    GW_EXPECT_EQ(read(fd, text, sizeof(text)), VMM_PAGE_BYTES); /* and not a byte of the guest's */
    GW_EXPECT_EQ(fcntl(fd, F_SETPIPE_SZ, sizeof(text)), sizeof(text));
    GW_EXPECT_EQ(command_finish(&target), 0);
    ssize_t bytes = read(fd, text, sizeof(text));
    GW_EXPECT_GT(bytes, 64);
    json_t *document = command_document(&target);
    GW_EXPECT_EQ(json_count_at(document, "guest", "serial-bytes"), bytes);
    json_decref(document);
    FILE *file = fopen(heard, "we");
    GW_ASSERT(file && fwrite(text, 1, (size_t)bytes, file) == (size_t)bytes && fclose(file) == 0);
    GW_EXPECT_GT(kvm_ticks(heard), 0);
    close(fd);
}

/* The guest knows the size of its disk, and would write behind the end of this one. */
GW_TEST(refused, disk_of_another_size)
{
    static struct command source, target;
    char uri[256];
    const char *large = kvm_file("large"), *small = kvm_file("small");
    int fds[] = {open(large, O_RDWR | O_CREAT | O_CLOEXEC, 0600),
                 open(small, O_RDWR | O_CREAT | O_CLOEXEC, 0600)};
    GW_ASSERT(ftruncate(fds[0], 4 << 20) == 0 && ftruncate(fds[1], 2 << 20) == 0);
    command_start(&target,
                  (const char *const[]){"receive", "tcp:127.0.0.1:0", "--disk", small, "--json",
                                        "-", "--serial", kvm_file("serial"), NULL});
    GW_ASSERT(command_await_uri(&target, uri, sizeof(uri)));
    command_start(&source,
                  (const char *const[]){"send", uri, "--program", "disk", "--disk", large, "--json",
                                        "-", "--serial", kvm_file("serial0"), NULL});
    GW_EXPECT_EQ(command_finish(&source), 1);
    GW_EXPECT_EQ(command_finish(&target), 1);
    json_t *document = command_document(&target);
    GW_EXPECT(strstr(json_text_at(document, "error", "message"), "disk_bytes") != NULL);
    json_decref(document);
    document = command_document(&source);
    GW_EXPECT(json_is_true(json_at(document, "guest", "verified")));
    json_decref(document);
    close(fds[0]);
    close(fds[1]);
}

/* One of the two at a time has the machine. */
GW_TEST(refused, second_guest_with_the_same_lock_does_not_begin)
{
    static struct command second;
    const char *path = kvm_file("lock");
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    GW_ASSERT(fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0);
    command_start(&second, (const char *const[]){"run", "--lock", path, "--run-for", "0.1",
                                                 "--json", "-", NULL});
    GW_EXPECT_EQ(command_finish(&second), 1);
    json_t *document = command_document(&second);
    GW_EXPECT_STREQ(json_text_at(document, "error", "code"), "guest");
    json_decref(document);
    close(fd);
}

static const char *const links[] = {"do=cut,ep=1,at=put:1",
                                    "do=cut,ep=2,at=put:3",
                                    "do=cut,ep=0,at=message:3",
                                    "do=cut,ep=1,head=0062,at=message:1",
                                    "do=mute,ep=0,at=message:3",
                                    "do=drop,ep=2,head=0062,at=message:1",
                                    NULL};

GW_TEST_EACH(link, that_breaks_leaves_the_guest_where_it_was, links)
{
    static struct command source, target;
    char uri[256], faulty[320];
    command_start(&target, (const char *const[]){
                               "receive", "tcp:127.0.0.1:0", "--json", "-", "--serial",
                               kvm_file("serial"), "--set", "x-peer-timeout=800", "--set",
                               "x-hold-timeout=200", "--set", "x-settle-timeout=200", NULL});
    GW_ASSERT(command_await_uri(&target, uri, sizeof(uri)));
    snprintf(faulty, sizeof(faulty), "fault+%s?%s", uri, param);
    command_start(&source, (const char *const[]){
                               "send", faulty, "--json", "-", "--serial", kvm_file("serial0"),
                               "--set", "x-peer-timeout=800", "--set", "x-stripe-size=2M", "--set",
                               "x-settle-timeout=200", "--set", "x-hold-timeout=200", NULL});
    GW_EXPECT_EQ(command_finish(&source), 1);
    GW_EXPECT_EQ(command_finish(&target), 1);
    json_t *document = command_document(&source);
    GW_EXPECT(json_is_true(json_at(document, "guest", "verified")));
    GW_EXPECT_NE(json_text_at(document, "error", "hint")[0], '\0');
    json_decref(document);
}
