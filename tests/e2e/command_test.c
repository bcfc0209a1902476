// SPDX-License-Identifier: MIT
/* The command as scripts see it: what it says of itself and of what is misspelt, its exit statuses, the
 * documents, and the streams that they go to, open, full, closed or a terminal. */
#include "tests/e2e/ends.h"
#include "tests/shim/gw_test.h"

#include <fcntl.h>
#include <pty.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

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
    json_t *document = document_of(&only); /* a second one, or a word beside it, is refused */

    GW_EXPECT_STREQ(json_text_at(document, "schema", NULL), "godwit.run/1");
    GW_EXPECT_STREQ(json_text_at(document, "role", NULL), role);
    GW_EXPECT_STREQ(json_text_at(document, "status", NULL), "failed");
    for (unsigned i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
        GW_EXPECT(json_is_string(json_at(document, "error", keys[i])));
    GW_EXPECT_STREQ(json_text_at(document, "error", "code"), code);
    GW_EXPECT(strcmp(json_text_at(document, "error", "message"), "") != 0);
    GW_EXPECT(strcmp(json_text_at(document, "error", "hint"), "") != 0);
    GW_EXPECT(strcmp(json_text_at(document, "wire", "uri"), "") != 0);
    GW_EXPECT(strcmp(json_text_at(document, "wire", "name"), "") != 0);
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
    json_t *document = document_of(&only);
    GW_EXPECT_STREQ(json_text_at(document, "status", NULL), "completed");
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
    GW_EXPECT_STREQ(json_text_at(document, "error", "code"), "connect");
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
        command_become(words, theirs, theirs);
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
    static char text[COMMAND_TEXT_BYTES];
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
    static char text[COMMAND_TEXT_BYTES];

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
    json_t *document = document_of(&only);
    GW_EXPECT_STREQ(json_text_at(document, "schema", NULL), "godwit.doctor/1");
    GW_EXPECT_GT(json_array_size(json_at(document, "findings", NULL)), 5);
    json_decref(document);
}
