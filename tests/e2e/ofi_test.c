// SPDX-License-Identifier: MIT
/* What befalls a migration over ofi, two processes of the real command: a page endpoint that breaks in
 * the middle, a target or a source that is killed or stands still while pages move. The guest goes on at
 * the source and is whole, the error is, and the next attempt succeeds. (Migrations that go well:
 * cells_test.c. Sources that mean ill: tests/contract/ofi.c.) */
#include "gw_config.h"
#include "tests/shim/gw_test.h"
#include "tests/support/command.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* The first thing sent over a connection makes tcp;ofi_rxm clear buffers by the megabyte, on the owner's
 * thread: some 2 s of silence under the thread sanitizer, which notes every byte of them. */
#define PEER_TIMEOUT "x-peer-timeout=10000"

static const char *const providers[] = {"tcp;ofi_rxm", "net", "shm", NULL};

static struct command target, source;
static char events[64];

__attribute__((destructor)) static void remove_events(void)
{
    if (events[0])
        unlink(events);
}

static void begin(void)
{
    if (!GW_HAVE_OFI)
        GW_SKIP("this build has no ofi: it was built without libfabric");
    setenv("FI_SHM_DISABLE_CMA", "1", 1); /* or ofi refuses shm */
    snprintf(events, sizeof(events), "/tmp/godwit-ofi-%d", (int)getpid());
    unlink(events); /* of the test before: it says "active" too */
}

static void receive(const char *provider, char *uri, size_t bytes)
{
    char listen[128];
    snprintf(listen, sizeof(listen), "ofi:%s:127.0.0.1:0", provider);
    command_start(&target, (const char *const[]){"receive", listen, "--run-for", "0.1", "--quiet",
                                                 "--set", PEER_TIMEOUT, "--json", "-", NULL});
    GW_ASSERT(command_await_uri(&target, uri, bytes));
}

/* A guest that writes more than may leave: it goes through rounds until something happens. */
static void send_for_long(const char *uri)
{
    command_start(&source, (const char *const[]){"send",
                                                 uri,
                                                 "--ram",
                                                 "64M",
                                                 "--dirty-rate",
                                                 "100M",
                                                 "--set",
                                                 "max-bandwidth=32M",
                                                 "--set",
                                                 "x-stall-action=wait",
                                                 "--connect-timeout",
                                                 "60",
                                                 "--set",
                                                 PEER_TIMEOUT,
                                                 "--warmup",
                                                 "0.1",
                                                 "--events",
                                                 events,
                                                 "--quiet",
                                                 "--json",
                                                 "-",
                                                 NULL});
}

static void arrives(const char *provider)
{
    char uri[256];
    receive(provider, uri, sizeof(uri));
    command_start(&source, (const char *const[]){"send", uri, "--ram", "16M", "--digest", "--quiet",
                                                 "--connect-timeout", "60", "--set", PEER_TIMEOUT,
                                                 "--json", "-", NULL});
    GW_EXPECT_EQ(command_finish(&source), 0);
    GW_EXPECT_EQ(command_finish(&target), 0);
}

/* Until the events say @word. */
static void await_event(const char *word)
{
    for (unsigned i = 0; i < 6000; i++) {
        static char text[65536];
        FILE *file = fopen(events, "re");
        size_t got = file ? fread(text, 1, sizeof(text) - 1, file) : 0;
        if (file)
            fclose(file);
        text[got] = '\0';
        if (strstr(text, word))
            return;
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
    GW_FAIL("no event says %s", word);
}

static void expect_lost(const struct command *command, const char *code, bool guest_is_here)
{
    json_t *document = command_document(command);
    GW_ASSERT(document != NULL);
    GW_EXPECT_STREQ(json_text_at(document, "status", NULL), "failed");
    GW_EXPECT_STREQ(json_text_at(document, "error", "code"), code);
    GW_EXPECT_STREQ(json_text_at(document, "error", "phase"), "active");
    GW_EXPECT(json_text_at(document, "error", "message")[0] != '\0');
    GW_EXPECT(json_text_at(document, "error", "hint")[0] != '\0');
    if (guest_is_here)
        GW_EXPECT(json_is_true(json_at(document, "guest", "verified")));
    if (gw_test_has_failed())
        GW_NOTE_FAILURE("%s\n%s", command->out.text, command->err.text);
    json_decref(document);
}

GW_TEST_EACH(ofi, a_page_endpoint_that_breaks_leaves_the_guest_here, providers)
{
    char uri[256], faulty[320];
    begin();
    receive(param, uri, sizeof(uri));
    snprintf(faulty, sizeof(faulty), "fault+%s?do=cut,ep=2,at=put:20", uri);
    send_for_long(faulty);
    GW_EXPECT_EQ(command_finish(&source), 1);
    GW_EXPECT_EQ(command_finish(&target), 1);
    expect_lost(&source, "peer-lost", true);
    expect_lost(&target, "peer-lost", false);
    arrives(param);
}

static void strike(const char *provider, struct command *struck, int number)
{
    char uri[256];
    if (strcmp(provider, "shm") == 0)
        GW_SKIP("shm: who is struck may hold the lock of both, and the other one waits in "
                "libfabric");
    begin();
    receive(provider, uri, sizeof(uri));
    send_for_long(uri);
    await_event("\"active\"");
    kill(struck->pid, number);
    struct command *other = struck == &source ? &target : &source;
    GW_EXPECT_EQ(command_finish(other), 1);
    expect_lost(other, number == SIGSTOP ? "peer-silent" : "peer-lost", other == &source);
    kill(struck->pid, SIGKILL);
    command_finish(struck);
    arrives(provider);
}

GW_TEST_EACH(ofi, a_target_that_is_killed_leaves_the_guest_here, providers)
{
    strike(param, &target, SIGKILL);
}

GW_TEST_EACH(ofi, a_target_that_stands_still_leaves_the_guest_here, providers)
{
    strike(param, &target, SIGSTOP);
}

GW_TEST_EACH(ofi, a_source_that_is_killed_leaves_nothing_there, providers)
{
    strike(param, &source, SIGKILL);
}

GW_TEST_EACH(ofi, a_source_that_stands_still_leaves_nothing_there, providers)
{
    strike(param, &source, SIGSTOP);
}
