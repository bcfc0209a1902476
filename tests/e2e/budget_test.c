// SPDX-License-Identifier: MIT
/* A writing guest of 256 MiB moves through a window of 16 MiB of registered memory at both ends, two
 * processes of the real command: over ofi by x-registered-max, for not every provider pins; over rdma by
 * the limit on locked memory itself, without CAP_IPC_LOCK, which would lift it. */
#include "gw_config.h"
#include "tests/shim/gw_test.h"
#include "tests/support/command.h"
#include "tests/support/lock_limit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BUDGET (UINT64_C(16) << 20)

static const char *const wires[] = {"ofi_net", "ofi_rxm", "rdma", NULL};

static struct command target, source;

static void expect_within(const struct command *command, bool is_source)
{
    json_t *document = command_document(command);
    GW_ASSERT(document != NULL);
    GW_EXPECT_STREQ(json_text_at(document, "status", NULL), "completed");
    GW_EXPECT(json_is_true(json_at(document, "guest", "verified")));
    json_int_t peak = json_count_at(document, "wire", "registered-bytes-peak");
    GW_EXPECT_GT(peak, 0);
    GW_EXPECT_LE(peak, BUDGET);
    json_int_t needed = json_count_at(document, "wire", "chunks-needed");
    if (is_source)
        GW_EXPECT_GE(needed, 128); /* of 2 MiB: 256 MiB, and more in the last round */
    GW_EXPECT_LE(json_count_at(document, "wire", "chunks-ready"), needed);
    if (gw_test_has_failed())
        GW_NOTE_FAILURE("%s\n%s", command->out.text, command->err.text);
    json_decref(document);
}

GW_TEST_EACH(budget, a_guest_moves_through_16_MiB, wires)
{
    char listen[128], uri[256];
    bool pins = strcmp(param, "rdma") == 0;
    const char *address = pins ? getenv("RIG_ADDR") : "127.0.0.1";
    const char *wire = pins                            ? "rdma"
                       : strcmp(param, "ofi_net") == 0 ? "ofi:net"
                                                       : "ofi:tcp;ofi_rxm";
    const char *limit = pins ? "x-registered-max=0" : "x-registered-max=16M";
    struct rlimit was;
    if (!address)
        GW_SKIP("no RDMA device: RIG_ADDR is not set (scripts/soft-roce)");
    if (!pins && !GW_HAVE_OFI)
        GW_SKIP("this build has no ofi: it was built without libfabric");
    if (pins)
        memlock_limit(BUDGET, &was);
    snprintf(listen, sizeof(listen), "%s:%s:0", wire, address);
    command_start(&target, (const char *const[]){"receive", listen, "--run-for", "0.1", "--quiet",
                                                 "--set", limit, "--set", "x-peer-timeout=30000",
                                                 "--json", "-", NULL});
    GW_ASSERT(command_await_uri(&target, uri, sizeof(uri)));
    command_start(&source, (const char *const[]){"send",
                                                 uri,
                                                 "--ram",
                                                 "256M",
                                                 "--dirty-rate",
                                                 "4M",
                                                 "--warmup",
                                                 "0.2",
                                                 "--digest",
                                                 "--set",
                                                 limit,
                                                 "--set",
                                                 "x-peer-timeout=30000",
                                                 "--set",
                                                 "x-connect-timeout=60000",
                                                 "--set",
                                                 "x-stall-action=switch",
                                                 "--quiet",
                                                 "--json",
                                                 "-",
                                                 NULL});
    GW_EXPECT_EQ(command_finish(&source), 0);
    GW_EXPECT_EQ(command_finish(&target), 0);
    if (pins)
        memlock_restore(&was);
    expect_within(&source, true);
    expect_within(&target, false);
}
