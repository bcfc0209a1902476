// SPDX-License-Identifier: MIT
/* The command moves a guest: over each wire, with what its options ask for, and what it leaves behind when all
 * went well. */
#include "tests/e2e/ends.h"
#include "tests/shim/gw_test.h"
#include "tests/support/huge_pool.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

static const char *const wires[] = {"tcp4", "tcp6", "unix", NULL};

static void check_types(json_t *document)
{
    static const char *const times[] = {"total-time-ms", "setup-time-ms", "downtime-ms"};
    static const char *const counts[] = {"transferred", "remaining", "total", "duplicate",
                                         "normal"};

    GW_EXPECT_STREQ(json_text_at(document, "schema", NULL), "godwit.run/1");
    GW_EXPECT_STREQ(json_text_at(document, "status", NULL), "completed");
    GW_EXPECT(json_is_null(json_at(document, "error", NULL)));
    for (unsigned i = 0; i < 3; i++)
        GW_EXPECT(json_is_real(json_at(document, times[i], NULL)));
    for (unsigned i = 0; i < 5; i++)
        GW_EXPECT(json_is_integer(json_at(document, "ram", counts[i])));
    GW_EXPECT(json_is_object(json_at(document, "downtime", NULL)));
    GW_EXPECT(json_is_array(json_at(document, "rounds", NULL)));
    GW_EXPECT(json_is_string(json_at(document, "wire", "uri")));
    GW_EXPECT(json_is_integer(json_at(document, "wire", "copied-bytes")));
    GW_EXPECT(json_is_real(json_at(document, "cpu", "user-ms")));
    GW_EXPECT(json_is_true(json_at(document, "guest", "verified")));
    GW_EXPECT_EQ(json_integer_value(json_at(document, "guest", "ram-bytes")), 32 << 20);
    GW_EXPECT_EQ(json_integer_value(json_at(document, "guest", "vcpus")), 2);
}

GW_TEST_EACH(command, a_writing_guest_arrives_with_equal_digests, wires)
{
    START(&target, "receive", listen_uri(param), "--json", "-", "--run-for", "0.2");
    await_listening();
    GW_EXPECT(strstr(where, ":0") == NULL || strcmp(param, "unix") == 0);
    START(&source, "send", where, "--ram", "32M", "--vcpus", "2", "--dirty-rate", "50M", "--warmup",
          "0.1", "--digest", "--json", "-");
    GW_ASSERT(ends_with(&source, 0));
    GW_ASSERT(ends_with(&target, 0));
    json_t *from = document_of(&source), *to = document_of(&target);
    check_types(from);
    check_types(to);
    GW_EXPECT_STREQ(json_text_at(from, "role", NULL), "source");
    GW_EXPECT_STREQ(json_text_at(to, "role", NULL), "target");
    GW_EXPECT_STREQ(json_text_at(from, "guest", "digest"), json_text_at(to, "guest", "digest"));
    GW_EXPECT_EQ(strlen(json_text_at(from, "guest", "digest")), 32);
    GW_EXPECT_GT(json_array_size(json_at(from, "rounds", NULL)), 0);
    GW_EXPECT_GT(json_integer_value(json_at(to, "guest", "writes")),
                 json_integer_value(json_at(from, "guest", "writes")));
    GW_EXPECT(json_real_value(json_at(from, "downtime-ms", NULL)) > 0);
    json_decref(from);
    json_decref(to);
}

GW_TEST(command, digest_is_null_unless_asked_for)
{
    START(&target, "receive", "tcp:127.0.0.1:0", "--json", "-", "--run-for", "0");
    await_listening();
    START(&source, "send", where, "--ram", "8M", "--warmup", "0", "--json", "-");
    GW_ASSERT(ends_with(&source, 0));
    GW_ASSERT(ends_with(&target, 0));
    json_t *from = document_of(&source), *to = document_of(&target);
    GW_EXPECT(json_is_null(json_at(from, "guest", "digest")));
    GW_EXPECT(json_is_null(json_at(to, "guest", "digest")));
    json_decref(from);
    json_decref(to);
}

GW_TEST(command, quiet_leaves_only_the_line_that_says_where)
{
    char line[300];

    START(&target, "receive", "tcp:127.0.0.1:0", "--quiet", "--run-for", "0");
    await_listening();
    START(&source, "send", where, "--ram", "8M", "--warmup", "0", "--quiet");
    GW_ASSERT(ends_with(&source, 0));
    GW_ASSERT(ends_with(&target, 0));
    snprintf(line, sizeof(line), "listening on %s\n", where);
    GW_EXPECT_STREQ(target.err.text, line);
    GW_EXPECT_STREQ(source.err.text, "");
    GW_EXPECT_EQ(source.out.bytes + target.out.bytes, 0);
}

GW_TEST(command, prealloc_is_taken_by_the_guest)
{
    START(&target, "receive", "tcp:127.0.0.1:0", "--prealloc", "64M", "--memory", "memfd",
          "--run-for", "0.1");
    await_listening();
    START(&source, "send", where, "--ram", "32M", "--warmup", "0", "--dirty-rate", "10M");
    GW_EXPECT(ends_with(&source, 0));
    GW_EXPECT(ends_with(&target, 0));
}

GW_TEST(command, a_guest_of_small_pages_is_taken_into_huge_ones_and_back)
{
    struct gw_huge_pool pool;

    if (!gw_huge_pool_open(&pool, 2u << 20, 8))
        GW_SKIP("there are no 8 huge pages of 2 MiB");
    START(&target, "receive", "tcp:127.0.0.1:0", "--prealloc", "16M", "--memory", "hugetlb",
          "--run-for", "0");
    await_listening();
    START(&source, "send", where, "--ram", "16M", "--warmup", "0", "--dirty-rate", "10M");
    GW_EXPECT(ends_with(&source, 0));
    GW_EXPECT(ends_with(&target, 0));
    START(&target, "receive", "tcp:127.0.0.1:0", "--memory", "anon", "--run-for", "0");
    await_listening();
    START(&source, "send", where, "--ram", "16M", "--memory", "hugetlb", "--warmup", "0",
          "--dirty-rate", "10M");
    GW_EXPECT(ends_with(&source, 0));
    GW_EXPECT(ends_with(&target, 0));
    gw_huge_pool_close(&pool);
}

GW_TEST(command, events_are_a_line_each_and_end_with_ended)
{
    START(&target, "receive", "tcp:127.0.0.1:0", "--run-for", "0");
    await_listening();
    START(&source, "send", where, "--ram", "8M", "--warmup", "0", "--events", "-");
    GW_ASSERT(ends_with(&source, 0));
    GW_ASSERT(ends_with(&target, 0));
    json_t *event = NULL;
    for (char *line = strtok(source.out.text, "\n"); line; line = strtok(NULL, "\n")) {
        json_decref(event);
        event = json_loads(line, 0, NULL);
        GW_ASSERT(event != NULL);
        GW_EXPECT(json_is_real(json_at(event, "time-ms", NULL)));
    }
    GW_EXPECT_STREQ(json_text_at(event, "event", NULL), "ended");
    GW_EXPECT_STREQ(json_text_at(event, "status", NULL), "completed");
    json_decref(event);
}

GW_TEST(command, serve_takes_one_guest_after_the_other)
{
    START(&target, "receive", listen_uri("unix"), "--serve", "--run-for", "0", "--json", "-",
          "--prealloc", "16M");
    await_listening();
    for (int i = 0; i < 2; i++) {
        char uri[256];
        snprintf(uri, sizeof(uri), "%s", where);
        STATUS_IS(0, "send", uri, "--ram", "8M", "--warmup", "0", "--quiet");
    }
    kill(target.pid, SIGINT);
    int status = command_finish(&target);
    GW_EXPECT(status == 3 || status == 0);
    const char *first = strstr(target.out.text, "\"completed\"");
    GW_ASSERT(first != NULL);
    GW_EXPECT(strstr(first + 1, "\"completed\"") != NULL);
}

GW_TEST(command, try_shows_what_happened_and_ends_with_its_line)
{
    STATUS_IS(0, "try", "--ram", "32M", "--warmup", "0.1", "--run-for", "0.1", "--dirty-rate",
              "20M");
    char *last = strstr(only.out.text, "try: completed, verified, downtime ");
    GW_ASSERT(last != NULL);
    double ms = -1;
    int read_to = 0;
    GW_EXPECT_EQ(sscanf(last, "try: completed, verified, downtime %lf ms\n%n", &ms, &read_to), 1);
    GW_EXPECT(ms > 0);
    GW_EXPECT_STREQ(last + read_to, "");
    said(&only.out, "round");
    said(&only.out, "downtime");
}

GW_TEST(command, try_passes_parameters_to_both_ends)
{
    STATUS_IS(0, "try", "--ram", "16M", "--warmup", "0", "--run-for", "0", "--wire", "unix",
              "--set", "multifd-channels=4", "--quiet", "--json", path_in_folder("json"));
    json_t *document = json_load_file(path_in_folder("json"), 0, NULL);
    GW_ASSERT(document != NULL);
    GW_EXPECT_EQ(json_integer_value(json_at(document, "wire", "endpoints")), 4);
    GW_EXPECT_STREQ(json_text_at(document, "wire", "name"), "unix");
    json_decref(document);
}

/* In the stream each of its sections, of 1 MiB, is a message at least. */
GW_TEST(command, much_device_state_goes_beside_the_stream)
{
    START(&target, "receive", listen_uri("tcp4"));
    await_listening();
    START(&source, "send", where, "--ram", "16M", "--device-state", "96M", "--json", "-");
    GW_ASSERT(ends_with(&source, 0));
    GW_ASSERT(ends_with(&target, 0));
    json_t *document = document_of(&source);
    GW_EXPECT_LT(json_integer_value(json_at(document, "wire", "control-messages")), 60);
    json_decref(document);
}
