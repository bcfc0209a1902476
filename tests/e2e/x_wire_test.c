// SPDX-License-Identifier: MIT
/* x-wire: control over tcp, pages over the best wire that both ends reach. Which that is depends on the
 * machine: an RDMA device, libfabric's providers. Whatever it is, it is named, the better ones have a
 * reason, and memory arrives whole. */
#include "tests/shim/gw_test.h"
#include "tests/support/command.h"
#include "tests/support/lock_limit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct command source, target;
static char where[256], events[64], line[2048];

/* One migration; the source's document. @status: what both must end with. @device: the source's rdma-device. */
static json_t *migrate_by(const char *listen, const char *choice, const char *device, int status)
{
    char set[32], by[64];
    int fd;

    snprintf(set, sizeof(set), "x-wire=%s", choice);
    snprintf(by, sizeof(by), "rdma-device=%s", device);
    snprintf(events, sizeof(events), "/tmp/gw-wires-XXXXXX");
    GW_ASSERT((fd = mkstemp(events)) >= 0);
    close(fd);
    command_start(&target, (const char *const[]){"receive", listen, "--run-for", "0", "--json", "-",
                                                 "--set", "x-peer-timeout=60000", NULL});
    GW_ASSERT(command_await_uri(&target, where, sizeof(where)));
    command_start(&source, (const char *const[]){"send",
                                                 where,
                                                 "--ram",
                                                 "32M",
                                                 "--warmup",
                                                 "0",
                                                 "--dirty-rate",
                                                 "20M",
                                                 "--digest",
                                                 "--set",
                                                 set,
                                                 "--set",
                                                 by,
                                                 "--set",
                                                 "x-peer-timeout=60000",
                                                 "--set",
                                                 "x-connect-timeout=60000",
                                                 "--json",
                                                 "-",
                                                 "--events",
                                                 events,
                                                 NULL});
    GW_EXPECT_EQ(command_finish(&source), status);
    GW_EXPECT_EQ(command_finish(&target), status);
    if (gw_test_has_failed())
        GW_NOTE_FAILURE("%s\n%s", source.err.text, target.err.text);
    json_t *document = command_document(&source);
    GW_ASSERT(document != NULL);
    return document;
}

static json_t *migrate(const char *listen, const char *choice, int status)
{
    return migrate_by(listen, choice, "any", status);
}

/* The text of the event "wire", "" if there was none. */
static const char *wire_event(void)
{
    FILE *file = fopen(events, "re");
    bool found = false;

    GW_ASSERT(file != NULL);
    while (!found && fgets(line, sizeof(line), file))
        found = strstr(line, "\"event\":\"wire\"") != NULL;
    fclose(file);
    unlink(events);
    return found ? line : "";
}

GW_TEST(x_wire, auto_takes_a_wire_and_says_which_and_why)
{
    json_t *document = migrate("tcp:127.0.0.1:0", "auto", 0);
    const char *name = json_text_at(document, "wire", "name"), *text = wire_event();
    char said[80];

    snprintf(said, sizeof(said), "pages over %s:", name);
    if (!strstr(text, said))
        GW_NOTE_FAILURE("wire.name is '%s', and the event '%s'", name, text);
    GW_EXPECT(strstr(text, "(rdma: ") || strstr(text, "(the best that both ends have)") ||
              strstr(text, "this build has no other"));
    GW_EXPECT_EQ(strncmp(json_text_at(document, "wire", "uri"), "tcp:", 4), 0);
    GW_EXPECT(json_is_true(json_at(document, "guest", "verified")));
    GW_EXPECT_EQ(json_count_at(document, "wire", "copied-bytes"), 0);
    json_t *there = command_document(&target);
    GW_EXPECT_STREQ(json_text_at(there, "wire", "name"), name);
    json_decref(there);
    json_decref(document);
}

/* Listened on at every address, the target does not know at which it is reached. */
GW_TEST(x_wire, a_target_that_listens_everywhere_is_found_where_it_was_reached)
{
    json_t *document = migrate("tcp:0.0.0.0:0", "auto", 0);
    GW_EXPECT(json_is_true(json_at(document, "guest", "verified")));
    GW_EXPECT(wire_event()[0] != '\0');
    json_decref(document);
}

GW_TEST(x_wire, beside_a_path_pages_take_the_path)
{
    char folder[] = "/tmp/gw-wires-XXXXXX", uri[64];

    GW_ASSERT(mkdtemp(folder) != NULL);
    snprintf(uri, sizeof(uri), "unix:%s/s", folder);
    json_t *document = migrate(uri, "auto", 0);
    GW_EXPECT_STREQ(json_text_at(document, "wire", "name"), "unix");
    GW_EXPECT(wire_event()[0] != '\0');
    json_decref(document);
    rmdir(folder);
}

GW_TEST(x_wire, same_says_nothing)
{
    json_t *document = migrate("tcp:127.0.0.1:0", "same", 0);
    GW_EXPECT_STREQ(json_text_at(document, "wire", "name"), "tcp");
    GW_EXPECT_STREQ(wire_event(), "");
    json_decref(document);
}

/* A wire that pins is nothing for who may lock 64 KiB, the limit of many containers; others are. */
GW_TEST(x_wire, auto_takes_one_that_the_limit_on_locked_memory_allows)
{
    const char *address = getenv("RIG_ADDR");
    char listen[64];
    struct rlimit was;

    snprintf(listen, sizeof(listen), "tcp:%s:0", address ? address : "127.0.0.1");
    memlock_limit(64 << 10, &was);
    json_t *document = migrate(listen, "auto", 0);
    memlock_restore(&was);
    const char *name = json_text_at(document, "wire", "name"), *text = wire_event();
    GW_EXPECT(strcmp(name, "rdma") != 0 && strcmp(name, "ofi:verbs;ofi_rxm") != 0);
    GW_EXPECT(strstr(text, "rdma: memory to be registered: need 2048 KiB") ||
              strstr(text, "this build has no"));
    GW_EXPECT(json_is_true(json_at(document, "guest", "verified")));
    json_decref(document);
}

/* The source has no such device; then a provider that finds its completion queues too short, at both ends, once
 * each of them has accepted the other. */
GW_TEST(x_wire, auto_goes_on_when_a_wire_fails_that_both_have_rdma)
{
    const char *address = getenv("RIG_ADDR");
    char listen[64];

    if (!address)
        GW_SKIP("no RDMA device here: scripts/soft-roce runs this where there is one");
    setenv("FI_OFI_RXM_USE_SRX", "1", 1);
    unsetenv("FI_UNIVERSE_SIZE");
    unsetenv("FI_OFI_RXM_MSG_RX_SIZE");
    unsetenv("FI_OFI_RXM_MSG_TX_SIZE");
    snprintf(listen, sizeof(listen), "tcp:%s:0", address);
    json_t *document = migrate_by(listen, "auto", "none9", 0);
    const char *text = wire_event();
    GW_EXPECT_STREQ(json_text_at(document, "wire", "name"), "ofi:net");
    if (!strstr(text, "rdma: ") || !strstr(text, "none9") || !strstr(text, "ofi:verbs;ofi_rxm: ") ||
        !strstr(text, "fi_enable"))
        GW_NOTE_FAILURE("%s", text);
    GW_EXPECT(json_is_true(json_at(document, "guest", "verified")));
    json_t *there = command_document(&target);
    GW_EXPECT_STREQ(json_text_at(there, "wire", "name"), "ofi:net");
    json_decref(there);
    json_decref(document);
}

/* Nobody reaches 127.0.0.1 by RDMA. */
GW_TEST(x_wire, a_wire_asked_for_by_name_is_taken_or_nothing_is)
{
    json_t *document = migrate("tcp:127.0.0.1:0", "rdma", 1);
    GW_EXPECT_STREQ(json_text_at(document, "error", "code"), "unsupported");
    GW_EXPECT(strstr(json_text_at(document, "error", "message"), "x-wire=rdma") != NULL);
    GW_EXPECT(json_is_true(json_at(document, "guest", "verified")));
    unlink(events);
    json_decref(document);
}
