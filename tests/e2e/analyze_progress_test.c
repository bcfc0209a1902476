// SPDX-License-Identifier: MIT
/* What `godwit analyze` shows while it reads: on a terminal a line that is drawn over itself and taken away
 * before anything else is said, elsewhere nothing; stdout is the same either way. The terminals are
 * pseudo-terminals of the tests', and a pipe is fed by hand, as far as the line has to tell. */
#include "tests/shim/gw_test.h"
#include "tests/support/command.h"
#include "tests/support/recording.h"

#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define WIPE "\r\033[K"
#define PAGES UINT64_C(1024)
#define HALF ((size_t)2100000) /* of what PAGES make: in the midst of one, so that more is wanted */

static struct recording stream;

/* A command that reads a pipe or a file. What it writes to stdout goes to memory, or is talk as well. */
static struct reader {
    pid_t pid;
    int feed;      /* -1: closed; SIGPIPE is not ignored: who stops reading fails the test loudly */
    int out, talk; /* a memfd; the terminal's other end, or a pipe's */
    char text[65536]; /* all that was said */
    size_t bytes;
} reader;

static void make_stream(void)
{
    static const char *const names[] = {"pc.ram", NULL};
    recording_init(&stream);
    recording_begin(&stream, "pc");
    recording_ram(&stream, names, PAGES * RECORDING_PAGE);
    recording_head(&stream, GW_ITEM_PART, 2, "", 0, 0);
    recording_page(&stream, REC_PAGE, 0, "pc.ram", 1);
    for (uint64_t at = 1; at < PAGES; at++)
        recording_page(&stream, REC_PAGE, at * RECORDING_PAGE, NULL, (uint8_t)(1 + at % 200));
    recording_eos(&stream);
    recording_foot(&stream, 2);
    recording_full(&stream, 3, "device", "abc", 3);
    recording_end(&stream,
                  "{\"page_size\": 4096, \"devices\": [{\"name\": \"device\", \"instance_id\": "
                  "0, \"fields\": [{"
                  "\"name\": \"f\", \"type\": \"buffer\", \"size\": 3}]}]}");
    GW_ASSERT(HALF < stream.w.bytes);
}

enum place { TERMINAL, TERMINAL_FOR_ALL, DUMB_TERMINAL, PIPE };

static void start(enum place place, const char *const *words)
{
    struct winsize size = {.ws_row = 24, .ws_col = 40};
    int feed[2], talk[2];
    GW_ASSERT_EQ(pipe2(feed, O_CLOEXEC), 0);
    if (place == PIPE)
        GW_ASSERT_EQ(pipe(talk), 0);
    else
        GW_ASSERT_EQ(openpty(&talk[0], &talk[1], NULL, NULL, &size), 0);
    fcntl(talk[0], F_SETFD, FD_CLOEXEC);
    reader.out = memfd_create("stdout", MFD_CLOEXEC);
    GW_ASSERT(reader.out >= 0);
    reader.pid = fork();
    GW_ASSERT(reader.pid >= 0);
    if (reader.pid == 0) {
        setenv("TERM", place == DUMB_TERMINAL ? "dumb" : "xterm", 1);
        dup2(feed[0], STDIN_FILENO);
        command_become(words, place == TERMINAL_FOR_ALL ? talk[1] : reader.out, talk[1]);
    }
    close(feed[0]);
    close(talk[1]);
    reader.feed = feed[1];
    reader.talk = talk[0];
    reader.bytes = 0;
    reader.text[0] = '\0';
}
#define START(place, ...) start((place), (const char *const[]){"analyze", __VA_ARGS__, NULL})

static void feed(size_t from, size_t to)
{
    while (from < to) {
        ssize_t put = write(reader.feed, stream.w.data + from, to - from);
        GW_ASSERT(put > 0);
        from += (size_t)put;
    }
}

/* Some of what it says; false: it has ended, or patience has. */
static bool listen_once(void)
{
    struct pollfd fd = {.fd = reader.talk, .events = POLLIN};
    size_t room = sizeof(reader.text) - 1 - reader.bytes;
    GW_ASSERT(room > 0);
    if (poll(&fd, 1, COMMAND_PATIENCE_S * 1000) <= 0)
        return false;
    ssize_t count =
        read(reader.talk, reader.text + reader.bytes, room); /* EIO: the terminal is gone */
    reader.bytes += count > 0 ? (size_t)count : 0;
    reader.text[reader.bytes] = '\0';
    return count > 0;
}

static void await(const char *text)
{
    while (!strstr(reader.text, text)) {
        if (listen_once())
            continue;
        GW_NOTE_FAILURE("waited in vain for '%s' in: %s", text, reader.text);
        return;
    }
}

/* Its status, once all that it says is here. */
static int finish(void)
{
    int status = 0;
    if (reader.feed >= 0)
        close(reader.feed);
    reader.feed = -1;
    while (listen_once())
        ;
    close(reader.talk);
    GW_EXPECT_EQ(waitpid(reader.pid, &status, 0), reader.pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* stdout, for free(). */
static char *output(void)
{
    off_t bytes = lseek(reader.out, 0, SEEK_END);
    char *text = calloc(1, (size_t)bytes + 1);
    GW_ASSERT(text != NULL);
    GW_EXPECT_EQ(pread(reader.out, text, (size_t)bytes, 0), (ssize_t)bytes);
    close(reader.out);
    return text;
}

/* What stands on the terminal at the end: what was drawn over is gone. */
static const char *left_standing(void)
{
    const char *at = reader.text;
    for (const char *wiped = strstr(at, WIPE); wiped; wiped = strstr(at, WIPE))
        at = wiped + strlen(WIPE);
    return at;
}

/* What it says where nobody watches, for free(). */
static char *plain_output(const char *how)
{
    START(PIPE, "-", how);
    feed(0, stream.w.bytes);
    GW_EXPECT_EQ(finish(), 0);
    return output();
}

GW_TEST(analyze_progress, comes_on_a_terminal_grows_and_is_taken_away)
{
    make_stream();
    char *plain = plain_output("--json");
    START(TERMINAL, "-", "--json");
    await("0 B: stdin"); /* nothing was fed yet */
    feed(0, HALF);
    await(WIPE "2.0 MiB: stdin"); /* of a pipe's size nothing is known */
    feed(HALF, stream.w.bytes);
    GW_EXPECT_EQ(finish(), 0);
    GW_EXPECT_STREQ(left_standing(), "");
    GW_EXPECT(strchr(reader.text, '\n') == NULL);
    char *out = output();
    GW_EXPECT_STREQ(out, plain);
    GW_EXPECT(strpbrk(out, "\r\033") == NULL);
    free(out);
    free(plain);
    recording_fini(&stream);
}

GW_TEST(analyze_progress, is_gone_before_the_table_and_the_verdict)
{
    make_stream();
    char *plain = plain_output("--verify");
    START(TERMINAL_FOR_ALL, "-", "--verify");
    feed(0, HALF);
    await("2.0 MiB: stdin");
    feed(HALF, stream.w.bytes);
    GW_EXPECT_EQ(finish(), 0);
    const char *standing = left_standing();
    char *end = strchr(plain, '\n');
    GW_ASSERT(end != NULL);
    GW_EXPECT_EQ(strncmp(standing, plain, (size_t)(end - plain)),
                 0); /* its first line, from its first column */
    GW_EXPECT(strstr(standing, "verified: ") != NULL);
    GW_EXPECT(strstr(standing, "stdin") == NULL);
    free(output());
    free(plain);
    recording_fini(&stream);
}

GW_TEST(analyze_progress, is_for_terminals_and_for_those_who_want_it)
{
    static const struct {
        enum place place;
        const char *how;
    } rows[] = {
        {PIPE, "--json"}, {DUMB_TERMINAL, "--json"}, {TERMINAL, "--quiet"}, {PIPE, "--quiet"}};
    make_stream();
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        START(rows[i].place, "-", rows[i].how);
        feed(0, stream.w.bytes);
        GW_EXPECT_EQ(finish(), 0);
        GW_EXPECT_STREQ(reader.text, "");
        free(output());
    }
    recording_fini(&stream);
}

GW_TEST(analyze_progress, tells_how_much_of_a_file_however_long_its_path)
{
    char folder[] = "/tmp/godwit-analyze-progress-XXXXXX", path[256], whole[64];
    make_stream();
    GW_ASSERT(mkdtemp(folder) != NULL);
    snprintf(path, sizeof(path), "%s/%0150d", folder, 0);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    GW_ASSERT_EQ(write(fd, stream.w.data, stream.w.bytes), (ssize_t)stream.w.bytes);
    close(fd);
    START(TERMINAL, path, "--json");
    GW_EXPECT_EQ(finish(), 0);
    snprintf(whole, sizeof(whole), "0 B of %.1f MiB, 0 %%: %.18s" WIPE,
             (double)stream.w.bytes / (1 << 20), folder);
    GW_EXPECT_EQ(strncmp(reader.text, whole, strlen(whole)), 0); /* 39 columns of 40 */
    GW_EXPECT_STREQ(left_standing(), "");
    free(output());
    GW_EXPECT_EQ(unlink(path), 0);
    GW_EXPECT_EQ(rmdir(folder), 0);
    recording_fini(&stream);
}

GW_TEST(analyze_progress, a_signal_ends_the_wait_for_a_silent_pipe)
{
    make_stream();
    START(TERMINAL, "-", "--json");
    feed(0, HALF);
    await("2.0 MiB: stdin");
    GW_EXPECT_EQ(kill(reader.pid, SIGINT), 0);
    for (unsigned i = 0; i < 300 && listen_once(); i++)
        ; /* the pipe stays open: the signal alone ends it, and soon */
    GW_EXPECT_EQ(finish(), 3);
    GW_EXPECT(strstr(left_standing(), "cancelled") != NULL);
    GW_EXPECT(strstr(left_standing(), "stdin") == NULL);
    char *out = output();
    GW_EXPECT_STREQ(out, "");
    free(out);
    recording_fini(&stream);
}
