// SPDX-License-Identifier: MIT
/* A real guest goes from process to process: over each wire, with each number of processors, back and forth,
 * to a host that refuses, over a link that breaks. Its own checks judge its memory, the serial line tells
 * whether it lost or repeated a moment. */
#include "gw_config.h"
#include "tests/kvm/kvm_support.h"
#include "tests/shim/gw_test.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

static const char *const wires[] = {"tcp:127.0.0.1:0", "unix:",
#if GW_HAVE_OFI
                                    "ofi:tcp;ofi_rxm:127.0.0.1:0",
#endif
                                    NULL};

static unsigned hops(void)
{
    const char *text = getenv("GODWIT_TEST_HOPS");
    return text ? (unsigned)strtoul(text, NULL, 10) : 5;
}

/* Every row of the cases goes over @wire. */
GW_TEST_EACH(guest, arrives_whole, wires)
{
    static const char *const cases[][8] = {
        {"--vcpus", "1", "--dirty-rate", "0", NULL},
        {"--vcpus", "1", "--dirty-rate", "2M", "--memory", "anon", NULL},
        {"--vcpus", "2", "--dirty-rate", "8M", "--blocks", "4", NULL},
        {"--vcpus", "4", "--dirty-rate", "2M", "--fill", "zero", NULL},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]) && !gw_test_has_failed(); i++) {
        struct kvm_chain chain = {.uri = param, .options = cases[i], .hops = 1, .run_for = "0.5"};
        kvm_run_chain(&chain);
        printf("  %s, %s vCPUs: the guest's clock is %.3f ms off\n", param, cases[i][1],
               chain.clock_late_ms_max);
    }
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

/* One of the two at a time has the machine. */
GW_TEST(refused, second_guest_with_the_same_lock_does_not_begin)
{
    static struct command second;
    const char *path = kvm_file("lock");
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    GW_ASSERT(fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0);
    command_start(&second, (const char *const[]){"run", "--lock", path, "--run-for", "0.1", NULL});
    GW_EXPECT_EQ(command_finish(&second), 1);
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
