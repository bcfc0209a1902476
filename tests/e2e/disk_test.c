// SPDX-License-Identifier: MIT
/* A guest moves while its vCPUs read and write its disk (virtio-blk over a file): requests that are in flight
 * when it is paused end at the target, everything read is what was written, and so is the file. */
#include "gw_config.h"
#include "tests/shim/gw_test.h"
#include "tests/support/command.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct command target, source;
static char disk[64], listen_at[128];

__attribute__((destructor)) static void remove_disk(void)
{
    if (disk[0])
        unlink(disk);
}

static void begin(const char *wire)
{
    snprintf(disk, sizeof(disk), "/tmp/godwit-disk-%d", (int)getpid());
    if (strcmp(wire, "unix") == 0)
        snprintf(listen_at, sizeof(listen_at), "unix:/tmp/godwit-disk-%d.sock", (int)getpid());
    else if (strcmp(wire, "tcp") == 0)
        snprintf(listen_at, sizeof(listen_at), "tcp:127.0.0.1:0");
    else
        snprintf(listen_at, sizeof(listen_at), "%s:127.0.0.1:0", wire);
}

static void receive(bool with_disk, char *uri, size_t bytes)
{
    command_start(&target,
                  (const char *const[]){"receive", listen_at, "--run-for", "0.3", "--quiet",
                                        "--json", "-", with_disk ? "--disk" : NULL, disk, NULL});
    GW_ASSERT(command_await_uri(&target, uri, bytes));
}

static void send(bool with_disk, const char *uri)
{
    command_start(&source, (const char *const[]){"send", uri, "--ram", "32M", "--vcpus", "3",
                                                 "--dirty-rate", "20M", "--warmup", "0.3",
                                                 "--connect-timeout", "60", "--quiet", "--json",
                                                 "-", with_disk ? "--disk" : NULL, disk, NULL});
}

/* The document of a side that ended with @status; verified as said. */
static void expect_end(struct command *command, int status, bool verified)
{
    GW_EXPECT_EQ(command_finish(command), status);
    json_t *document = command_document(command);
    GW_EXPECT_EQ(json_is_true(json_at(document, "guest", "verified")), verified);
    json_decref(document);
}

static const char *const wires[] = {"tcp", "unix", "ofi:tcp;ofi_rxm", NULL};

GW_TEST_EACH(disk, requests_in_flight_end_at_the_target_and_the_file_is_intact, wires)
{
    char uri[128];
    if (strncmp(param, "ofi", 3) == 0 && !GW_HAVE_OFI)
        GW_SKIP("this build has no ofi: it was built without libfabric");
    begin(param);
    receive(true, uri, sizeof(uri));
    send(true, uri);
    expect_end(&source, 0, true);
    expect_end(&target, 0, true);
}

GW_TEST(disk, a_target_without_the_disk_refuses_and_the_guest_goes_on_with_it)
{
    char uri[128];
    begin("tcp");
    receive(false, uri, sizeof(uri));
    send(true, uri);
    expect_end(&source, 1, true); /* which ran on for a second, on its disk */
    GW_EXPECT_EQ(command_finish(&target), 1);
    json_t *document = command_document(&target);
    GW_EXPECT(strstr(json_text_at(document, "error", "hint"), "--disk FILE") != NULL);
    json_decref(document);
}

GW_TEST(disk, a_target_with_a_disk_takes_a_guest_without)
{
    char uri[128];
    begin("tcp");
    receive(true, uri, sizeof(uri));
    send(false, uri);
    expect_end(&source, 0, true);
    expect_end(&target, 0, true);
}
