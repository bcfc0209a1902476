// SPDX-License-Identifier: MIT
/* Running the command (command.h). Its streams are pipes that are read whenever something is waited
 * for; both ends of a migration may say more than a pipe holds, so a test finishes the source before
 * the target, which by then has little left to say. */
#include "tests/support/command.h"

#include "tests/shim/gw_test.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define WORDS_MAX 54

/* $GODWIT, or the command that was built beside this program. */
static const char *binary(void)
{
    static char beside[4096];
    const char *path = getenv("GODWIT");

    if (path && path[0])
        return path;
    ssize_t bytes = readlink("/proc/self/exe", beside, sizeof(beside) - sizeof("godwit"));
    GW_ASSERT(bytes > 0);
    beside[bytes] = '\0';
    strcpy(strrchr(beside, '/') + 1, "godwit");
    return beside;
}

static time_t now_s(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec;
}

/* What migrates has patience, unless an option says otherwise later on: 2 s of silence, or 5 s until a connection
 * is admitted, are little where a machine has much else to do, and there a guest may write more than gets through,
 * which the command takes for a failure. Return: behind how many of @words, the address included; 0: it does not
 * migrate. */
static unsigned patience_at(const char *const *words)
{
    if (!words[0] || (strcmp(words[0], "send") != 0 && strcmp(words[0], "receive") != 0 &&
                      strcmp(words[0], "try") != 0))
        return 0;
    return words[1] && words[1][0] != '-' ? 2 : 1;
}

static const char *const patience[] = {"--set", "x-peer-timeout=60000",
                                       "--set", "x-connect-timeout=60000",
                                       "--set", "x-stall-action=switch"};
#define PATIENCE_WORDS 6

static _Noreturn void become(const char *path, const char *const *words, int out, int err)
{
    char *argv[WORDS_MAX + PATIENCE_WORDS + 1] = {(char *)(uintptr_t) "godwit"};
    int argc = 1;

    unsigned before = patience_at(words);
    for (unsigned i = 1; *words && argc < WORDS_MAX; i++) {
        argv[argc++] = (char *)(uintptr_t)*words++;
        for (unsigned k = 0; i == before && k < PATIENCE_WORDS; k++)
            argv[argc++] = (char *)(uintptr_t)patience[k];
    }
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
    if (!*words)
        execv(path, argv);
    _exit(126);
}

_Noreturn void command_become(const char *const *words, int out, int err)
{
    become(binary(), words, out, err);
}

static int status_of(pid_t pid)
{
    int status = 0;

    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int command_status_with(int out, int err, const char *const *words)
{
    const char *path = binary();
    pid_t pid = fork();

    GW_ASSERT(pid >= 0);
    if (pid == 0)
        become(path, words, out, err);
    return status_of(pid);
}

void command_start(struct command *command, const char *const *words)
{
    const char *path = binary();
    int out[2], err[2];

    GW_ASSERT_EQ(pipe2(out, O_CLOEXEC), 0);
    GW_ASSERT_EQ(pipe2(err, O_CLOEXEC), 0);
    command->pid = fork();
    GW_ASSERT(command->pid >= 0);
    if (command->pid == 0)
        become(path, words, out[1], err[1]);
    close(out[1]);
    close(err[1]);
    command->out = (struct command_stream){.fd = out[0]};
    command->err = (struct command_stream){.fd = err[0]};
}

static void take_in(struct command_stream *stream)
{
    char rest[4096];
    size_t room = COMMAND_TEXT_BYTES - 1 - stream->bytes;
    ssize_t count = room ? read(stream->fd, stream->text + stream->bytes, room)
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
static bool listen_to(struct command *command, time_t until_s)
{
    struct pollfd fds[2] = {{.fd = command->out.fd, .events = POLLIN},
                            {.fd = command->err.fd, .events = POLLIN}};
    time_t left_s = until_s - now_s();

    if ((command->out.fd < 0 && command->err.fd < 0) || left_s <= 0)
        return false;
    if (poll(fds, 2, (int)left_s * 1000) < 0)
        return errno == EINTR;
    if (fds[0].revents)
        take_in(&command->out);
    if (fds[1].revents)
        take_in(&command->err);
    return true;
}

bool command_says(struct command *command, const struct command_stream *stream, const char *text)
{
    time_t until_s = now_s() + COMMAND_PATIENCE_S;

    while (!strstr(stream->text, text)) {
        if (!listen_to(command, until_s))
            return false;
    }
    return true;
}

bool command_await(struct command *command, const struct command_stream *stream, const char *text)
{
    if (command_says(command, stream, text))
        return true;
    GW_NOTE_FAILURE("waited in vain for '%s'; stdout: %s\nstderr: %s", text, command->out.text,
                    command->err.text);
    return false;
}

bool command_await_uri(struct command *command, char *uri, size_t bytes)
{
    static const char listening[] = "listening on ";
    time_t until_s = now_s() + COMMAND_PATIENCE_S;

    for (;;) {
        const char *at = strstr(command->err.text, listening);
        const char *end = at ? strchr(at, '\n') : NULL;
        if (end) {
            at += sizeof(listening) - 1;
            snprintf(uri, bytes, "%.*s", (int)(end - at), at);
            return true;
        }
        if (!listen_to(command, until_s)) {
            GW_NOTE_FAILURE("it never listened; stderr: %s", command->err.text);
            return false;
        }
    }
}

int command_finish(struct command *command)
{
    time_t until_s = now_s() + COMMAND_PATIENCE_S;
    struct command_stream *streams[2] = {&command->out, &command->err};

    while (listen_to(command, until_s))
        ;
    if (command->out.fd >= 0 || command->err.fd >= 0) {
        GW_NOTE_FAILURE("it does not end; stderr: %s", command->err.text);
        kill(command->pid, SIGKILL);
    }
    for (unsigned i = 0; i < 2; i++) {
        if (streams[i]->fd >= 0)
            close(streams[i]->fd);
        streams[i]->fd = -1;
    }
    return status_of(command->pid);
}

json_t *command_document(const struct command *command)
{
    json_error_t error;
    json_t *document = json_loads(command->out.text, 0, &error);

    if (!document)
        GW_NOTE_FAILURE("not a document: %s in: %s", error.text, command->out.text);
    return document;
}

json_t *json_at(json_t *object, const char *first, const char *second)
{
    json_t *value = json_object_get(object, first);

    return second ? json_object_get(value, second) : value;
}

const char *json_text_at(json_t *object, const char *first, const char *second)
{
    const char *text = json_string_value(json_at(object, first, second));

    return text ? text : "(none)";
}

json_int_t json_count_at(json_t *object, const char *first, const char *second)
{
    json_t *value = json_at(object, first, second);

    return json_is_integer(value) ? json_integer_value(value) : -1;
}

double json_real_at(json_t *object, const char *first, const char *second)
{
    json_t *value = json_at(object, first, second);

    return json_is_real(value) ? json_real_value(value) : -1;
}
