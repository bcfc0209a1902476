// SPDX-License-Identifier: MIT
/* The command in trouble: strangers, addresses that are taken, signals, ends that die, memory that is spoilt, and
 * an outcome that nobody tells. */
#include "tests/e2e/ends.h"
#include "tests/shim/gw_test.h"
#include "tests/support/proxy.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- what goes wrong -------------------------------------------------------------------------- */

/* A connected socket to `where`, which is tcp:127.0.0.1:PORT. */
static int stranger(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int port = 0, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    GW_ASSERT_EQ(sscanf(where, "tcp:127.0.0.1:%d", &port), 1);
    address.sin_port = htons((uint16_t)port);
    GW_ASSERT_EQ(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

GW_TEST(command, strangers_before_hello_do_not_end_the_waiting)
{
    static const char junk[4096] = "GET / HTTP/1.1\r\n\r\n";
    char rest[256];

    START(&target, "receive", "tcp:127.0.0.1:0", "--run-for", "0");
    await_listening();
    close(stranger());
    int fd = stranger();
    GW_EXPECT_EQ(send(fd, junk, sizeof(junk), MSG_NOSIGNAL), (ssize_t)sizeof(junk));
    while (recv(fd, rest, sizeof(rest), 0) > 0) /* until it hangs up on us */
        ;
    close(fd);
    START(&only, "doctor", where);
    command_finish(&only);
    said(&only.out, "answered the preface");
    START(&source, "send", where, "--ram", "8M", "--warmup", "0");
    GW_EXPECT(ends_with(&source, 0));
    GW_EXPECT(ends_with(&target, 0));
}

#define CONNECT_TIMEOUT_DEFAULT_MS 5000 /* which nobody waited for */

GW_TEST(command, a_refused_address_is_given_up_after_the_connect_timeout)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t bytes = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    char uri[64];

    GW_ASSERT_EQ(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0); /* nobody listens */
    GW_ASSERT_EQ(getsockname(fd, (struct sockaddr *)&address, &bytes), 0);
    snprintf(uri, sizeof(uri), "tcp:127.0.0.1:%d", ntohs(address.sin_port));
    STATUS_IS(1, "send", uri, "--ram", "8M", "--warmup", "0", "--connect-timeout", "1",
              "--dirty-rate", "1M", "--json", "-");
    close(fd);
    json_t *document = document_of(&only);
    GW_EXPECT_STREQ(json_text_at(document, "status", NULL), "failed");
    GW_EXPECT_STREQ(json_text_at(document, "error", "code"), "connect");
    GW_EXPECT(json_is_true(json_at(document, "guest", "verified")));
    double total_ms = json_real_value(json_at(document, "total-time-ms", NULL));
    GW_EXPECT(total_ms >= 500 && total_ms < CONNECT_TIMEOUT_DEFAULT_MS);
    json_decref(document);
}

GW_TEST(command, a_stale_unix_socket_is_replaced_and_ours_is_unlinked)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct stat info;
    char uri[160];

    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path_in_folder("s"));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    GW_ASSERT_EQ(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    close(fd);
    GW_ASSERT_EQ(stat(address.sun_path, &info), 0);
    snprintf(uri, sizeof(uri), "unix:%s", address.sun_path);
    START(&target, "receive", uri, "--run-for", "0");
    await_listening();
    START(&source, "send", where, "--ram", "8M", "--warmup", "0");
    GW_EXPECT(ends_with(&source, 0));
    GW_EXPECT(ends_with(&target, 0));
    GW_EXPECT(stat(address.sun_path, &info) < 0 && errno == ENOENT);
}

GW_TEST(command, an_address_in_use_ends_with_1)
{
    char uri[256];

    START(&target, "receive", "tcp:127.0.0.1:0");
    await_listening();
    snprintf(uri, sizeof(uri), "%s", where);
    STATUS_IS(1, "receive", uri, "--quiet");
    GW_EXPECT(only.err.bytes > 0);
    kill(target.pid, SIGTERM);
    GW_EXPECT(ends_with(&target, 3));
}

GW_TEST(command, a_guest_above_ram_max_is_refused_at_hello_and_a_smaller_one_taken)
{
    START(&target, "receive", "tcp:127.0.0.1:0", "--ram-max", "8M", "--run-for", "0");
    await_listening();
    START(&source, "send", where, "--ram", "12M", "--warmup", "0", "--dirty-rate", "10M", "--json",
          "-");
    GW_EXPECT(ends_with(&source, 1));
    json_t *document = document_of(&source);
    GW_EXPECT(json_is_true(json_at(document, "guest", "verified")));
    GW_EXPECT_STREQ(json_text_at(document, "error", "code"), "limit");
    json_decref(document);
    /* The limit is of the guest's memory, not of what the guest keeps beside it. */
    START(&source, "send", where, "--ram", "8M", "--warmup", "0");
    GW_EXPECT(ends_with(&source, 0));
    GW_EXPECT(ends_with(&target, 0));
    const char *first = strstr(target.err.text, "connected");
    GW_ASSERT(first != NULL); /* the first guest never came so far: no block was asked for */
    GW_EXPECT(strstr(first + 1, "connected") == NULL);
}

GW_TEST(command, a_live_unix_socket_is_not_stolen_and_goes_with_a_signal)
{
    const char *path = path_in_folder("s");
    struct stat info;

    START(&target, "receive", listen_uri("unix"), "--run-for", "0");
    await_listening();
    STATUS_IS(1, "receive", listen_uri("unix"));
    said(&only.err, "another process listens there");
    START(&source, "send", where, "--ram", "8M", "--warmup", "0"); /* the first still has it */
    GW_EXPECT(ends_with(&source, 0));
    GW_EXPECT(ends_with(&target, 0));
    START(&target, "receive", listen_uri("unix"));
    await_listening();
    kill(target.pid, SIGTERM);
    GW_EXPECT(ends_with(&target, 3));
    GW_EXPECT(stat(path, &info) < 0 && errno == ENOENT);
}

GW_TEST(command, a_port_is_listened_on_again_at_once)
{
    char uri[256];

    START(&target, "receive", "tcp:127.0.0.1:0", "--run-for", "0");
    await_listening();
    for (int i = 0; i < 2; i++) { /* the second time, what the first left is in TIME-WAIT */
        snprintf(uri, sizeof(uri), "%s", where);
        STATUS_IS(0, "send", uri, "--ram", "8M", "--warmup", "0");
        GW_EXPECT(ends_with(&target, 0));
        if (i == 0) {
            START(&target, "receive", uri, "--run-for", "0");
            await_listening();
            GW_EXPECT_STREQ(where, uri);
        }
    }
}

GW_TEST(command, serve_outlives_strangers_and_sources_that_die)
{
    char uri[256];

    START(&target, "receive", "tcp:127.0.0.1:0", "--serve", "--run-for", "0");
    await_listening();
    snprintf(uri, sizeof(uri), "%s", where);
    close(stranger());
    START(&source, "send", uri, "--ram", "64M", "--warmup", "0", "--set", "max-bandwidth=1M",
          "--events", "-");
    GW_ASSERT(command_await(&source, &source.out, "\"active\""));
    kill(source.pid, SIGKILL);
    command_finish(&source);
    GW_ASSERT(command_await(&target, &target.err, "error: failed"));
    for (int i = 0; i < 2; i++)
        STATUS_IS(0, "send", uri, "--ram", "8M", "--warmup", "0", "--quiet");
    kill(target.pid, SIGINT);
    command_finish(&target);
}

/* ---- an outcome that is not known ------------------------------------------------------------- */

static struct proxy *proxy;

/* A migration through a proxy that holds the first message of @type back and, once memory flows, lets nobody
 * connect: the source notices the silence, and what it asks again is not heard. */
static void lose(enum proxy_way way, enum gw_message_type type, const char *on_unknown,
                 const char *target_settles)
{
    START(&target, "receive", "tcp:127.0.0.1:0", "--run-for", "0", "--set", target_settles);
    await_listening();
    proxy = proxy_new(where);
    proxy_on(proxy, way, type, 1, PROXY_HOLD);
    START(&source, "send", proxy_uri(proxy), "--ram", "8M", "--warmup", "0", "--dirty-rate", "1M",
          "--set", "x-settle-timeout=300", "--set", "x-peer-timeout=3000", "--on-unknown",
          on_unknown, "--events", "-", "--json", path_in_folder("json"));
    GW_EXPECT(command_await(&source, &source.out, "\"active\""));
    proxy_refuse(proxy, true);
}

static json_t *source_document(void)
{
    json_t *document = json_load_file(path_in_folder("json"), 0, NULL);

    GW_ASSERT(document != NULL);
    return document;
}

static void source_does_not_know(void)
{
    json_t *document = source_document();

    GW_EXPECT_STREQ(json_text_at(document, "error", "code"), "unknown-outcome");
    GW_EXPECT(json_is_null(json_at(document, "guest", "verified")));
    json_decref(document);
    proxy_free(proxy);
}

GW_TEST(command, an_outcome_that_stays_unknown_ends_with_4)
{
    lose(PROXY_TO_SOURCE, GW_MSG_OUTCOME, "exit", "x-settle-timeout=300");
    GW_EXPECT(ends_with(&source, 4));
    GW_EXPECT(ends_with(&target, 0));
    source_does_not_know();
}

GW_TEST(command, hold_asks_on_until_it_is_interrupted)
{
    lose(PROXY_TO_SOURCE, GW_MSG_OUTCOME, "hold", "x-settle-timeout=300");
    GW_ASSERT(command_await(&source, &source.err, "is not known"));
    GW_EXPECT(ends_with(&target, 0)); /* nobody will ever know more */
    GW_EXPECT_EQ(waitpid(source.pid, NULL, WNOHANG), 0);
    kill(source.pid, SIGINT);
    GW_EXPECT(ends_with(&source, 4));
    source_does_not_know();
}

GW_TEST(command, hold_ends_with_0_when_it_hears_that_the_guest_runs_there)
{
    lose(PROXY_TO_SOURCE, GW_MSG_OUTCOME, "hold", "x-settle-timeout=60000");
    GW_ASSERT(command_await(&source, &source.err, "is not known"));
    proxy_refuse(proxy, false);
    GW_EXPECT(ends_with(&source, 0));
    GW_EXPECT(ends_with(&target, 0));
    json_t *document = source_document();
    GW_EXPECT_STREQ(json_text_at(document, "status", NULL), "completed");
    GW_EXPECT(json_is_null(json_at(document, "error", NULL)));
    GW_EXPECT(json_is_true(json_at(document, "guest", "verified")));
    json_decref(document);
    proxy_free(proxy);
}

GW_TEST(command, hold_ends_with_1_and_the_guest_runs_on_when_the_target_gave_it_up)
{
    lose(PROXY_TO_TARGET, GW_MSG_COMMIT, "hold", "x-settle-timeout=300");
    GW_ASSERT(command_await(&source, &source.err, "is not known"));
    proxy_refuse(proxy, false); /* the target never read COMMIT: asked anew, it lets go */
    GW_EXPECT(ends_with(&source, 1));
    GW_EXPECT(ends_with(&target, 1));
    json_t *document = source_document();
    GW_EXPECT_STREQ(json_text_at(document, "error", "code"), "void");
    GW_EXPECT(json_is_true(json_at(document, "guest", "verified")));
    json_decref(document);
    proxy_free(proxy);
}

/* A migration that is in its first round and stays there. */
static void start_slowly(const char *json)
{
    START(&target, "receive", "tcp:127.0.0.1:0", "--quiet");
    await_listening();
    START(&source, "send", where, "--ram", "64M", "--vcpus", "2", "--warmup", "0", "--dirty-rate",
          "50M", "--set", "max-bandwidth=1M", "--set", "x-stall-action=wait", "--events", "-",
          "--json", json);
    GW_ASSERT(command_await(&source, &source.out, "\"active\""));
}

static void guest_runs_on(const char *json, const char *status)
{
    json_t *document = json_load_file(json, 0, NULL);

    GW_ASSERT(document != NULL);
    GW_EXPECT_STREQ(json_text_at(document, "status", NULL), status);
    GW_EXPECT(json_is_true(json_at(document, "guest", "verified")));
    json_decref(document);
}

GW_TEST(command, an_interrupt_cancels_and_the_guest_runs_on)
{
    const char *json = path_in_folder("json");

    start_slowly(json);
    kill(source.pid, SIGINT);
    GW_EXPECT(ends_with(&source, 3));
    int status = command_finish(&target);
    GW_EXPECT(status == 3 || status == 1);
    guest_runs_on(json, "cancelled");
}

GW_TEST(command, a_second_interrupt_kills)
{
    start_slowly(path_in_folder("json"));
    kill(source.pid, SIGINT);
    GW_EXPECT(command_await(&source, &source.err, "cancelling"));
    kill(source.pid, SIGINT);
    GW_EXPECT_EQ(command_finish(&source), 128 + SIGINT);
    command_finish(&target);
}

/* Write over 256 KiB in the middle of the guest's memory, which is a memfd, from outside. */
static void spoil(pid_t pid)
{
    static const char rubbish[256 << 10] = "this was not sent";
    unsigned long from = 0, to = 0;
    char path[64], line[512];

    snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
    FILE *maps = fopen(path, "re");
    GW_ASSERT(maps != NULL);
    while (fgets(line, sizeof(line), maps)) {
        if (strstr(line, "memfd:") && sscanf(line, "%lx-%lx rw-s", &from, &to) == 2 &&
            to - from >= 32ul << 20)
            break;
        from = to = 0;
    }
    fclose(maps);
    GW_ASSERT(from != 0);
    snprintf(path, sizeof(path), "/proc/%d/mem", (int)pid);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        GW_SKIP("the memory of a process of ours cannot be opened: %s", strerror(errno));
    GW_EXPECT_EQ(pwrite(fd, rubbish, sizeof(rubbish), (off_t)(from + (to - from) / 2)),
                 (ssize_t)sizeof(rubbish));
    close(fd);
}

GW_TEST(command, memory_spoilt_at_the_target_ends_with_5)
{
    START(&target, "receive", "tcp:127.0.0.1:0", "--run-for", "3", "--json", "-");
    await_listening();
    START(&source, "send", where, "--ram", "32M", "--memory", "memfd", "--warmup", "0", "--events",
          "-");
    GW_EXPECT(ends_with(&source, 0)); /* RUNNING was said: the guest runs there for 3 s */
    spoil(target.pid);
    GW_EXPECT(ends_with(&target, 5));
    json_t *document = document_of(&target);
    GW_EXPECT(json_is_false(json_at(document, "guest", "verified")));
    GW_EXPECT_STREQ(json_text_at(document, "error", "code"), "verify");
    GW_EXPECT_STREQ(json_text_at(document, "status", NULL), "completed");
    json_decref(document);
}

GW_TEST(command, memory_spoilt_at_the_source_is_found_after_a_cancel)
{
    START(&target, "receive", "tcp:127.0.0.1:0", "--quiet");
    await_listening();
    START(&source, "send", where, "--ram", "32M", "--memory", "memfd", "--warmup", "0", "--set",
          "max-bandwidth=1M", "--events", "-");
    GW_ASSERT(command_await(&source, &source.out, "\"active\""));
    spoil(source.pid);
    kill(source.pid, SIGINT);
    GW_EXPECT(ends_with(&source, 5));
    command_finish(&target);
}

GW_TEST(command, an_interrupted_receive_ends_with_3)
{
    START(&target, "receive", "tcp:127.0.0.1:0");
    await_listening();
    kill(target.pid, SIGINT);
    GW_EXPECT(ends_with(&target, 3));
}

GW_TEST(command, a_target_that_dies_leaves_the_guest_running_at_the_source)
{
    const char *json = path_in_folder("json");

    start_slowly(json);
    kill(target.pid, SIGKILL);
    GW_EXPECT(ends_with(&source, 1));
    command_finish(&target);
    guest_runs_on(json, "failed");
}

GW_TEST(command, a_source_that_dies_ends_the_target_with_1)
{
    start_slowly(path_in_folder("json"));
    kill(source.pid, SIGKILL);
    command_finish(&source);
    GW_EXPECT(ends_with(&target, 1));
}
