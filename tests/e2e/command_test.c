// SPDX-License-Identifier: MIT
/* The command as scripts see it: exit statuses, the line that says where it listens, the documents,
 * signals. Each test runs the real binary. Nothing here sleeps to let something happen: tests wait
 * for a text on stderr or stdout, or for the process to end, and give up after two minutes. */
#include "tests/shim/gw_test.h"
#include "tests/support/huge_pool.h"
#include "tests/support/proxy.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <netinet/in.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE_S 120
#define TEXT_BYTES 65536

/* ---- processes -------------------------------------------------------------------------------- */

struct stream {
    int fd; /* -1: it ended */
    size_t bytes;
    char text[TEXT_BYTES];
};

struct process {
    pid_t pid;
    struct stream out, err;
};

static const char *binary(void)
{
    const char *path = getenv("GODWIT");

    return path && path[0] ? path : GW_TEST_GODWIT;
}

static time_t now_s(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec;
}

/* @out, @err: -1: closed. */
static void be_godwit(const char *const *words, int out, int err)
{
    char *argv[40] = {(char *)(uintptr_t) "godwit"};
    int argc = 1;

    for (; *words && argc < 39; words++)
        argv[argc++] = (char *)(uintptr_t)*words;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGPIPE, SIG_DFL);
    if (out < 0)
        close(STDOUT_FILENO);
    else
        dup2(out, STDOUT_FILENO);
    if (err < 0)
        close(STDERR_FILENO);
    else
        dup2(err, STDERR_FILENO);
    execv(binary(), argv);
    _exit(126);
}

static void start(struct process *process, const char *const *words)
{
    int out[2], err[2];

    GW_ASSERT_EQ(pipe2(out, O_CLOEXEC), 0);
    GW_ASSERT_EQ(pipe2(err, O_CLOEXEC), 0);
    process->pid = fork();
    GW_ASSERT(process->pid >= 0);
    if (process->pid == 0)
        be_godwit(words, out[1], err[1]);
    close(out[1]);
    close(err[1]);
    process->out = (struct stream){.fd = out[0]};
    process->err = (struct stream){.fd = err[0]};
}

#define START(process, ...) start((process), (const char *const[]){__VA_ARGS__, NULL})

static void take_in(struct stream *stream)
{
    char rest[4096];
    bool room = stream->bytes < TEXT_BYTES - 1;
    ssize_t count =
        room ? read(stream->fd, stream->text + stream->bytes, TEXT_BYTES - 1 - stream->bytes)
             : read(stream->fd, rest, sizeof(rest));

    if (count <= 0) {
        close(stream->fd);
        stream->fd = -1;
    } else if (room) {
        stream->bytes += (size_t)count;
        stream->text[stream->bytes] = '\0';
    }
}

/* One wait for either stream; false once both have ended or patience has. */
static bool listen_to(struct process *process, time_t until_s)
{
    struct pollfd fds[2] = {{.fd = process->out.fd, .events = POLLIN},
                            {.fd = process->err.fd, .events = POLLIN}};
    time_t left_s = until_s - now_s();

    if ((process->out.fd < 0 && process->err.fd < 0) || left_s <= 0)
        return false;
    if (poll(fds, 2, (int)left_s * 1000) < 0)
        return errno == EINTR;
    if (fds[0].revents)
        take_in(&process->out);
    if (fds[1].revents)
        take_in(&process->err);
    return true;
}

/* Until @stream holds @text. */
static bool await(struct process *process, struct stream *stream, const char *text)
{
    time_t until_s = now_s() + PATIENCE_S;

    while (!strstr(stream->text, text)) {
        if (!listen_to(process, until_s)) {
            GW_NOTE_FAILURE("waited in vain for '%s'; stdout: %s\nstderr: %s", text,
                            process->out.text, process->err.text);
            return false;
        }
    }
    return true;
}

/* Its exit status; 128 + the signal that killed it. One that does not end is killed. */
static int finish(struct process *process)
{
    time_t until_s = now_s() + PATIENCE_S;
    int status = 0;

    while (listen_to(process, until_s))
        ;
    if (process->out.fd >= 0 || process->err.fd >= 0) {
        GW_NOTE_FAILURE("it does not end; stderr: %s", process->err.text);
        kill(process->pid, SIGKILL);
        close(process->out.fd);
        close(process->err.fd);
    }
    waitpid(process->pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static bool ends_with(struct process *process, int expected)
{
    int status = finish(process);

    if (status == expected)
        return true;
    GW_NOTE_FAILURE("status %d, not %d; stdout: %s\nstderr: %s", status, expected,
                    process->out.text, process->err.text);
    return false;
}

/* Run to the end. Too large for the stack of a test that has several. */
static struct process only;

static bool status_is(int expected, const char *const *words)
{
    start(&only, words);
    return ends_with(&only, expected);
}

#define STATUS_IS(expected, ...) status_is((expected), (const char *const[]){__VA_ARGS__, NULL})

/* Run to the end with the given standard streams, -1: closed. What it says is not read. */
static int status_with(int out, int err, const char *const *words)
{
    pid_t pid = fork();
    int status = 0;

    GW_ASSERT(pid >= 0);
    if (pid == 0)
        be_godwit(words, out, err);
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

#define STATUS_WITH(out, err, ...)                                                                 \
    status_with((out), (err), (const char *const[]){__VA_ARGS__, NULL})

static void said(const struct stream *stream, const char *text)
{
    if (!strstr(stream->text, text))
        GW_NOTE_FAILURE("'%s' is not in: %s", text, stream->text);
}

/* ---- both ends -------------------------------------------------------------------------------- */

static struct process target, source;
static char folder[64];
static char where[256];

static const char *path_in_folder(const char *name)
{
    static char paths[4][128];
    static unsigned next;
    char *path = paths[next++ % 4];

    if (folder[0] == '\0') {
        snprintf(folder, sizeof(folder), "/tmp/godwit-test-XXXXXX");
        GW_ASSERT(mkdtemp(folder) != NULL);
    }
    snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
    return path;
}

__attribute__((destructor)) static void remove_folder(void)
{
    static const char *const names[] = {"s", "json", "events", "pipe"};

    for (unsigned i = 0; folder[0] && i < sizeof(names) / sizeof(names[0]); i++) {
        char path[128];
        snprintf(path, sizeof(path), "%s/%s", folder, names[i]);
        unlink(path);
    }
    if (folder[0])
        rmdir(folder);
}

/* Until the target says where; then `where` is that. */
static void await_listening(void)
{
    GW_ASSERT(await(&target, &target.err, "listening on "));
    GW_ASSERT(await(&target, &target.err, "\n"));
    const char *line = strstr(target.err.text, "listening on ");
    while (!strchr(line, '\n'))
        GW_ASSERT(listen_to(&target, now_s() + PATIENCE_S));
    GW_ASSERT_EQ(sscanf(line, "listening on %255s", where), 1);
}

static json_t *document_of(const struct stream *stream)
{
    json_error_t error;
    json_t *document = json_loads(stream->text, 0, &error);

    if (!document)
        GW_FAIL("not a document: %s in: %s", error.text, stream->text);
    return document;
}

static json_t *at(json_t *object, const char *first, const char *second)
{
    json_t *value = json_object_get(object, first);

    return second ? json_object_get(value, second) : value;
}

static const char *text_at(json_t *object, const char *first, const char *second)
{
    const char *text = json_string_value(at(object, first, second));

    return text ? text : "(none)";
}

static const char *listen_uri(const char *wire)
{
    static char uri[160];

    if (strcmp(wire, "tcp4") == 0)
        return "tcp:127.0.0.1:0";
    if (strcmp(wire, "tcp6") == 0)
        return "tcp:[::1]:0";
    snprintf(uri, sizeof(uri), "unix:%s", path_in_folder("s"));
    return uri;
}

static const char *const wires[] = {"tcp4", "tcp6", "unix", NULL};

/* ---- usage ------------------------------------------------------------------------------------ */

GW_TEST(command, without_arguments_is_a_usage_error)
{
    const char *const none[] = {NULL};

    status_is(2, none);
    said(&only.err, "godwit send");
    GW_EXPECT_EQ(only.out.bytes, 0);
}

GW_TEST(command, help_and_version_go_to_stdout)
{
    STATUS_IS(0, "--help");
    said(&only.out, "godwit receive");
    GW_EXPECT(strstr(only.out.text, "godwit save") == NULL);
    STATUS_IS(0, "--version");
    said(&only.out, "godwit 0.");
    said(&only.out, "jansson");
    STATUS_IS(0, "send", "--help");
    said(&only.out, "--dirty-rate");
    STATUS_IS(0, "send", "--set", "help");
    said(&only.out, "max-bandwidth");
}

GW_TEST(command, what_is_misspelt_ends_with_2_and_a_suggestion)
{
    STATUS_IS(2, "sned", "tcp:h:1");
    said(&only.err, "did you mean `godwit send`?");
    STATUS_IS(2, "send", "tcp:h:1", "--dirtyrate", "1M");
    said(&only.err, "did you mean --dirty-rate?");
    STATUS_IS(2, "send", "tcp:h:1", "--set", "downtime-limt=5");
    said(&only.err, "downtime-limit");
    STATUS_IS(2, "send", "tpc:h:1");
    said(&only.err, "tcp");
    STATUS_IS(2, "receive", "nonsense");
}

GW_TEST(command, help_and_version_take_nothing_else)
{
    STATUS_IS(0, "help", "send");
    said(&only.out, "--dirty-rate");
    STATUS_IS(2, "help", "sned");
    said(&only.err, "did you mean `godwit send`?");
    STATUS_IS(2, "help", "send", "now");
    STATUS_IS(2, "--version", "now");
    GW_EXPECT_EQ(only.out.bytes, 0);
}

GW_TEST(command, what_is_not_there_yet_says_so)
{
    STATUS_IS(2, "save", "file:x");
    said(&only.err, "not in this version yet");
    STATUS_IS(2, "bench");
    STATUS_IS(2, "load", "file:x");
}

GW_TEST(command, a_guest_that_cannot_be_ends_with_2)
{
    char fill[160];

    STATUS_IS(2, "send", "tcp:127.0.0.1:1", "--fill", "file:/nonexistent/image");
    said(&only.err, "/nonexistent/image");
    STATUS_IS(2, "send", "tcp:127.0.0.1:1", "--fill", "file:/");
    said(&only.err, "neither a file nor a disk");
    GW_ASSERT_EQ(mkfifo(path_in_folder("pipe"), 0600), 0); /* nobody will ever write to it */
    snprintf(fill, sizeof(fill), "file:%s", path_in_folder("pipe"));
    STATUS_IS(2, "send", "tcp:127.0.0.1:1", "--fill", fill);
    said(&only.err, "neither a file nor a disk");
}

/* ---- documents and streams -------------------------------------------------------------------- */

/* Exactly one document on stdout, with every key of an error. */
static void failed_document(const char *role, const char *code)
{
    static const char *const keys[] = {"code", "phase", "place", "message", "hint", "peer"};
    json_t *document = document_of(&only.out); /* a second one, or a word beside it, is refused */

    GW_EXPECT_STREQ(text_at(document, "schema", NULL), "godwit.run/1");
    GW_EXPECT_STREQ(text_at(document, "role", NULL), role);
    GW_EXPECT_STREQ(text_at(document, "status", NULL), "failed");
    for (unsigned i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
        GW_EXPECT(json_is_string(at(document, "error", keys[i])));
    GW_EXPECT_STREQ(text_at(document, "error", "code"), code);
    GW_EXPECT(strcmp(text_at(document, "error", "message"), "") != 0);
    GW_EXPECT(strcmp(text_at(document, "error", "hint"), "") != 0);
    GW_EXPECT(strcmp(text_at(document, "wire", "uri"), "") != 0);
    GW_EXPECT(strcmp(text_at(document, "wire", "name"), "") != 0);
    json_decref(document);
}

GW_TEST(command, every_failure_leaves_one_document_on_stdout)
{
    STATUS_IS(1, "send", "tcp:127.0.0.1:1", "--ram", "8M", "--warmup", "0", "--connect-timeout",
              "0", "--json", "-");
    failed_document("source", "connect");
    STATUS_IS(2, "send", "unix:/s", "--fill", "file:/nonexistent/image", "--json", "-");
    failed_document("source", "io");
    STATUS_IS(1, "send", "unix:/s", "--ram", "16T", "--json", "-");
    failed_document("source", "no-memory");
    STATUS_IS(1, "receive", "tcp:127.0.0.1:0", "--prealloc", "16T", "--json", "-");
    failed_document("target", "no-memory");
    STATUS_IS(1, "receive", "unix:/dev/null", "--json", "-");
    failed_document("target", "listen");
    STATUS_IS(1, "try", "--ram", "16T", "--json", "-");
    failed_document("source", "no-memory");
    said(&only.err, "try: failed: ");
}

GW_TEST(command, try_leaves_stdout_to_the_document)
{
    STATUS_IS(0, "try", "--ram", "8M", "--warmup", "0", "--run-for", "0", "--json", "-");
    json_t *document = document_of(&only.out);
    GW_EXPECT_STREQ(text_at(document, "status", NULL), "completed");
    json_decref(document);
    said(&only.err, "try: completed, verified, downtime ");
}

GW_TEST(command, two_documents_do_not_share_a_file)
{
    STATUS_IS(2, "send", "tcp:127.0.0.1:1", "--json", "-", "--events", "-");
    said(&only.err, "--json and --events");
    GW_EXPECT_EQ(only.out.bytes, 0);
}

GW_TEST(command, a_document_that_cannot_be_written_is_told_before_anything_starts)
{
    STATUS_IS(2, "send", "tcp:127.0.0.1:1", "--json", "/nonexistent/json");
    STATUS_IS(2, "receive", "tcp:127.0.0.1:0", "--json", "/nonexistent/json");
    GW_EXPECT(strstr(only.err.text, "listening") == NULL);
    STATUS_IS(2, "receive", "tcp:127.0.0.1:0", "--events", "/");
    STATUS_IS(2, "try", "--ram", "8M", "--json", "/nonexistent/json");
    said(&only.out, "try: failed: JSON file '/nonexistent/json'");
}

GW_TEST(command, a_document_lost_on_a_full_disk_ends_with_1)
{
    START(&target, "receive", "tcp:127.0.0.1:0", "--run-for", "0", "--json", "/dev/full");
    await_listening();
    START(&source, "send", where, "--ram", "8M", "--warmup", "0", "--json", "/dev/full");
    GW_EXPECT(ends_with(&source, 1));
    GW_EXPECT(ends_with(&target, 1));
    said(&source.err, "No space left on device");
    said(&target.err, "No space left on device");
}

GW_TEST(command, events_lost_on_a_full_disk_are_told_once_and_fail_nothing)
{
    START(&target, "receive", "tcp:127.0.0.1:0", "--run-for", "0", "--quiet");
    await_listening();
    START(&source, "send", where, "--ram", "8M", "--warmup", "0", "--events", "/dev/full",
          "--quiet");
    GW_EXPECT(ends_with(&source, 0));
    GW_EXPECT(ends_with(&target, 0));
    GW_EXPECT_STREQ(source.err.text, "godwit send: error: events: No space left on device; the "
                                     "rest is not written\n");
}

GW_TEST(command, a_reader_that_left_is_an_error_and_no_death)
{
    int ends[2], nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);

    GW_ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
    close(ends[0]);
    GW_EXPECT_EQ(STATUS_WITH(ends[1], STDERR_FILENO, "--version"), 1);
    GW_EXPECT_EQ(STATUS_WITH(ends[1], STDERR_FILENO, "send", "--help"), 1);
    GW_EXPECT_EQ(STATUS_WITH(ends[1], STDERR_FILENO, "doctor", "--json"), 1);
    GW_EXPECT_EQ(STATUS_WITH(ends[1], ends[1], "try", "--ram", "8M", "--warmup", "0", "--run-for",
                             "0", "--quiet"),
                 1);
    /* Nobody listens to its talk: the data is there, so all is well. */
    GW_EXPECT_EQ(STATUS_WITH(nowhere, ends[1], "try", "--ram", "8M", "--warmup", "0", "--run-for",
                             "0", "--json", path_in_folder("json")),
                 0);
    close(ends[1]);
    close(nowhere);
}

GW_TEST(command, what_is_said_to_a_closed_stream_lands_nowhere_else)
{
    const char *json = path_in_folder("json");

    GW_EXPECT_EQ(STATUS_WITH(STDOUT_FILENO, -1, "send", "tcp:127.0.0.1:1", "--ram", "8M",
                             "--warmup", "0", "--connect-timeout", "0", "--json", json),
                 1);
    json_t *document = json_load_file(json, 0, NULL); /* the first file opened, but not stderr */
    GW_ASSERT(document != NULL);
    GW_EXPECT_STREQ(text_at(document, "error", "code"), "connect");
    json_decref(document);
    GW_EXPECT_EQ(STATUS_WITH(-1, STDERR_FILENO, "--version"), 1);
    GW_EXPECT_EQ(STATUS_WITH(-1, -1, "--version"), 1);
}

/* What `godwit words...` writes to a terminal of 60 columns. */
static void on_terminal(const char *const *words, char *text, size_t bytes)
{
    struct winsize size = {.ws_row = 24, .ws_col = 60};
    int ours, theirs, status = 0;
    size_t used = 0;
    ssize_t count;

    GW_ASSERT_EQ(openpty(&ours, &theirs, NULL, NULL, &size), 0);
    fcntl(ours, F_SETFD, FD_CLOEXEC);
    pid_t pid = fork();
    GW_ASSERT(pid >= 0);
    if (pid == 0) {
        setenv("TERM", "xterm", 1);
        be_godwit(words, theirs, theirs);
    }
    close(theirs);
    while ((count = read(ours, text + used, bytes - 1 - used)) > 0)
        used += (size_t)count;
    text[used] = '\0';
    close(ours);
    waitpid(pid, &status, 0);
    GW_EXPECT(WIFEXITED(status));
}

GW_TEST(command, a_progress_line_fits_the_terminal_that_it_is_drawn_on)
{
    static const char *const words[] = {
        "try",          "--ram", "32M",   "--warmup",          "0",      "--run-for", "0",
        "--dirty-rate", "0",     "--set", "max-bandwidth=40M", "--wire", "unix",      NULL};
    static char text[TEXT_BYTES];
    unsigned drawn = 0;

    unsetenv("NO_COLOR");
    on_terminal(words, text, sizeof(text));
    for (const char *at = strstr(text, "active: "); at; at = strstr(at + 1, "active: ")) {
        GW_EXPECT_LE(strcspn(at, "\r\n"), 59);
        GW_EXPECT(strncmp(at + strcspn(at, "\r\n"), "\r\033[K", 4) == 0);
        drawn++;
    }
    GW_EXPECT_GT(drawn, 1);
}

GW_TEST(command, colour_is_for_terminals_that_want_it)
{
    static const char *const words[] = {"send", "nonsense", NULL};
    static char text[TEXT_BYTES];

    unsetenv("NO_COLOR");
    on_terminal(words, text, sizeof(text));
    GW_EXPECT(strstr(text, "\033[31merror") != NULL);
    setenv("NO_COLOR", "1", 1);
    on_terminal(words, text, sizeof(text));
    unsetenv("NO_COLOR");
    GW_EXPECT(strchr(text, '\033') == NULL);
    STATUS_IS(2, "send", "nonsense");
    GW_EXPECT(strchr(only.err.text, '\033') == NULL);
}

GW_TEST(command, doctor_finds_what_is_needed_and_writes_a_document)
{
    STATUS_IS(0, "doctor");
    said(&only.out, "dirty tracking");
    STATUS_IS(0, "doctor", "--json");
    json_t *document = document_of(&only.out);
    GW_EXPECT_STREQ(text_at(document, "schema", NULL), "godwit.doctor/1");
    GW_EXPECT_GT(json_array_size(at(document, "findings", NULL)), 5);
    json_decref(document);
}

/* ---- a migration ------------------------------------------------------------------------------ */

static void check_types(json_t *document)
{
    static const char *const times[] = {"total-time-ms", "setup-time-ms", "downtime-ms"};
    static const char *const counts[] = {"transferred", "remaining", "total", "duplicate",
                                         "normal"};

    GW_EXPECT_STREQ(text_at(document, "schema", NULL), "godwit.run/1");
    GW_EXPECT_STREQ(text_at(document, "status", NULL), "completed");
    GW_EXPECT(json_is_null(at(document, "error", NULL)));
    for (unsigned i = 0; i < 3; i++)
        GW_EXPECT(json_is_real(at(document, times[i], NULL)));
    for (unsigned i = 0; i < 5; i++)
        GW_EXPECT(json_is_integer(at(document, "ram", counts[i])));
    GW_EXPECT(json_is_object(at(document, "downtime", NULL)));
    GW_EXPECT(json_is_array(at(document, "rounds", NULL)));
    GW_EXPECT(json_is_string(at(document, "wire", "uri")));
    GW_EXPECT(json_is_integer(at(document, "wire", "copied-bytes")));
    GW_EXPECT(json_is_real(at(document, "cpu", "user-ms")));
    GW_EXPECT(json_is_true(at(document, "guest", "verified")));
    GW_EXPECT_EQ(json_integer_value(at(document, "guest", "ram-bytes")), 32 << 20);
    GW_EXPECT_EQ(json_integer_value(at(document, "guest", "vcpus")), 2);
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
    json_t *from = document_of(&source.out), *to = document_of(&target.out);
    check_types(from);
    check_types(to);
    GW_EXPECT_STREQ(text_at(from, "role", NULL), "source");
    GW_EXPECT_STREQ(text_at(to, "role", NULL), "target");
    GW_EXPECT_STREQ(text_at(from, "guest", "digest"), text_at(to, "guest", "digest"));
    GW_EXPECT_EQ(strlen(text_at(from, "guest", "digest")), 32);
    GW_EXPECT_GT(json_array_size(at(from, "rounds", NULL)), 0);
    GW_EXPECT_GT(json_integer_value(at(to, "guest", "writes")),
                 json_integer_value(at(from, "guest", "writes")));
    GW_EXPECT(json_real_value(at(from, "downtime-ms", NULL)) > 0);
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
    json_t *from = document_of(&source.out), *to = document_of(&target.out);
    GW_EXPECT(json_is_null(at(from, "guest", "digest")));
    GW_EXPECT(json_is_null(at(to, "guest", "digest")));
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

    gw_huge_pool_open(&pool, 2u << 20, 8);
    START(&target, "receive", "tcp:127.0.0.1:0", "--prealloc", "16M", "--memory", "hugetlb",
          "--run-for", "0");
    while (!strstr(target.err.text, "listening on ") && listen_to(&target, now_s() + PATIENCE_S))
        ;
    if (!strstr(target.err.text, "listening on ")) {
        GW_EXPECT_EQ(finish(&target), 1);
        gw_huge_pool_close(&pool);
        GW_SKIP("there are no 8 huge pages of 2 MiB: %s", target.err.text);
    }
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
        GW_EXPECT(json_is_real(at(event, "time-ms", NULL)));
    }
    GW_EXPECT_STREQ(text_at(event, "event", NULL), "ended");
    GW_EXPECT_STREQ(text_at(event, "status", NULL), "completed");
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
    int status = finish(&target);
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
    GW_EXPECT_EQ(json_integer_value(at(document, "wire", "endpoints")), 4);
    GW_EXPECT_STREQ(text_at(document, "wire", "name"), "unix");
    json_decref(document);
}

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
    finish(&only);
    said(&only.out, "answered the preface");
    START(&source, "send", where, "--ram", "8M", "--warmup", "0");
    GW_EXPECT(ends_with(&source, 0));
    GW_EXPECT(ends_with(&target, 0));
}

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
    json_t *document = document_of(&only.out);
    GW_EXPECT_STREQ(text_at(document, "status", NULL), "failed");
    GW_EXPECT_STREQ(text_at(document, "error", "code"), "connect");
    GW_EXPECT(json_is_true(at(document, "guest", "verified")));
    double total_ms = json_real_value(at(document, "total-time-ms", NULL));
    GW_EXPECT(total_ms >= 500 && total_ms < 3000);
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
    json_t *document = document_of(&source.out);
    GW_EXPECT(json_is_true(at(document, "guest", "verified")));
    GW_EXPECT_STREQ(text_at(document, "error", "code"), "limit");
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
    GW_ASSERT(await(&source, &source.out, "\"active\""));
    kill(source.pid, SIGKILL);
    finish(&source);
    GW_ASSERT(await(&target, &target.err, "error: failed"));
    for (int i = 0; i < 2; i++)
        STATUS_IS(0, "send", uri, "--ram", "8M", "--warmup", "0", "--quiet");
    kill(target.pid, SIGINT);
    finish(&target);
}

/* ---- an outcome that is not known ------------------------------------------------------------- */

static struct proxy *proxy;

/* A migration through a proxy that holds the first message of @type back, and, once memory flows,
 * lets nobody connect: what the source asks again is not heard. */
static void lose(enum proxy_way way, enum gw_message_type type, const char *on_unknown,
                 const char *target_settles)
{
    START(&target, "receive", "tcp:127.0.0.1:0", "--run-for", "0", "--set", target_settles);
    await_listening();
    proxy = proxy_new(where);
    proxy_on(proxy, way, type, 1, PROXY_HOLD);
    START(&source, "send", proxy_uri(proxy), "--ram", "8M", "--warmup", "0", "--dirty-rate", "1M",
          "--set", "x-settle-timeout=300", "--on-unknown", on_unknown, "--events", "-", "--json",
          path_in_folder("json"));
    GW_EXPECT(await(&source, &source.out, "\"active\""));
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

    GW_EXPECT_STREQ(text_at(document, "error", "code"), "unknown-outcome");
    GW_EXPECT(json_is_null(at(document, "guest", "verified")));
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
    GW_ASSERT(await(&source, &source.err, "is not known"));
    GW_EXPECT(ends_with(&target, 0)); /* nobody will ever know more */
    GW_EXPECT_EQ(waitpid(source.pid, NULL, WNOHANG), 0);
    kill(source.pid, SIGINT);
    GW_EXPECT(ends_with(&source, 4));
    source_does_not_know();
}

GW_TEST(command, hold_ends_with_0_when_it_hears_that_the_guest_runs_there)
{
    lose(PROXY_TO_SOURCE, GW_MSG_OUTCOME, "hold", "x-settle-timeout=60000");
    GW_ASSERT(await(&source, &source.err, "is not known"));
    proxy_refuse(proxy, false);
    GW_EXPECT(ends_with(&source, 0));
    GW_EXPECT(ends_with(&target, 0));
    json_t *document = source_document();
    GW_EXPECT_STREQ(text_at(document, "status", NULL), "completed");
    GW_EXPECT(json_is_null(at(document, "error", NULL)));
    GW_EXPECT(json_is_true(at(document, "guest", "verified")));
    json_decref(document);
    proxy_free(proxy);
}

GW_TEST(command, hold_ends_with_1_and_the_guest_runs_on_when_the_target_gave_it_up)
{
    lose(PROXY_TO_TARGET, GW_MSG_COMMIT, "hold", "x-settle-timeout=300");
    GW_ASSERT(await(&source, &source.err, "is not known"));
    proxy_refuse(proxy, false); /* the target never read COMMIT: asked anew, it lets go */
    GW_EXPECT(ends_with(&source, 1));
    GW_EXPECT(ends_with(&target, 1));
    json_t *document = source_document();
    GW_EXPECT_STREQ(text_at(document, "error", "code"), "void");
    GW_EXPECT(json_is_true(at(document, "guest", "verified")));
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
    GW_ASSERT(await(&source, &source.out, "\"active\""));
}

static void guest_runs_on(const char *json, const char *status)
{
    json_t *document = json_load_file(json, 0, NULL);

    GW_ASSERT(document != NULL);
    GW_EXPECT_STREQ(text_at(document, "status", NULL), status);
    GW_EXPECT(json_is_true(at(document, "guest", "verified")));
    json_decref(document);
}

GW_TEST(command, an_interrupt_cancels_and_the_guest_runs_on)
{
    const char *json = path_in_folder("json");

    start_slowly(json);
    kill(source.pid, SIGINT);
    GW_EXPECT(ends_with(&source, 3));
    int status = finish(&target);
    GW_EXPECT(status == 3 || status == 1);
    guest_runs_on(json, "cancelled");
}

GW_TEST(command, a_second_interrupt_kills)
{
    start_slowly(path_in_folder("json"));
    kill(source.pid, SIGINT);
    GW_EXPECT(await(&source, &source.err, "cancelling"));
    kill(source.pid, SIGINT);
    GW_EXPECT_EQ(finish(&source), 128 + SIGINT);
    finish(&target);
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
    json_t *document = document_of(&target.out);
    GW_EXPECT(json_is_false(at(document, "guest", "verified")));
    GW_EXPECT_STREQ(text_at(document, "error", "code"), "verify");
    GW_EXPECT_STREQ(text_at(document, "status", NULL), "completed");
    json_decref(document);
}

GW_TEST(command, memory_spoilt_at_the_source_is_found_after_a_cancel)
{
    START(&target, "receive", "tcp:127.0.0.1:0", "--quiet");
    await_listening();
    START(&source, "send", where, "--ram", "32M", "--memory", "memfd", "--warmup", "0", "--set",
          "max-bandwidth=1M", "--events", "-");
    GW_ASSERT(await(&source, &source.out, "\"active\""));
    spoil(source.pid);
    kill(source.pid, SIGINT);
    GW_EXPECT(ends_with(&source, 5));
    finish(&target);
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
    finish(&target);
    guest_runs_on(json, "failed");
}

GW_TEST(command, a_source_that_dies_ends_the_target_with_1)
{
    start_slowly(path_in_folder("json"));
    kill(source.pid, SIGKILL);
    finish(&source);
    GW_EXPECT(ends_with(&target, 1));
}
