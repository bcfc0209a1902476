/* SPDX-License-Identifier: MIT */
/* tests/support/command.h - the real command in a process of its own, and the document it leaves.
 * Waits are for a text or for the end, never for a time, and are given up after PATIENCE seconds. A
 * process that a test left behind is killed when the test's program ends. */
#ifndef GW_TEST_COMMAND_H
#define GW_TEST_COMMAND_H

#include <jansson.h>
#include <stdbool.h>
#include <sys/types.h>

#define COMMAND_PATIENCE_S 240
#define COMMAND_TEXT_BYTES 65536

struct command_stream {
    int fd; /* -1: it ended */
    size_t bytes;
    char text[COMMAND_TEXT_BYTES]; /* what does not fit is read and dropped */
};

struct command { /* large: not for the stack */
    pid_t pid;
    struct command_stream out, err;
};

/* `godwit @words...`, NULL at the end; whatever migrates has a minute's patience with its peer, and ends
 * though its guest does not converge, unless @words say otherwise. Asserts that it could be started. */
void command_start(struct command *command, const char *const *words);
/* Until stderr holds "listening on URI\n"; then @uri is that URI. False: it never did; noted. */
bool command_await_uri(struct command *command, char *uri, size_t bytes);
/* Until @stream, one of its two, holds @text; false: it ended, or patience did. await notes that. */
bool command_says(struct command *command, const struct command_stream *stream, const char *text);
bool command_await(struct command *command, const struct command_stream *stream, const char *text);
/* Until it ended: its exit status, 128 + the signal that killed it. Reads both streams meanwhile. */
int command_finish(struct command *command);
/* In a child: be the command, with these standard streams, -1: closed. */
_Noreturn void command_become(const char *const *words, int out, int err);
/* Run to the end with those. What it says is not read. */
#define STATUS_WITH(out, err, ...)                                                                 \
    command_status_with((out), (err), (const char *const[]){__VA_ARGS__, NULL})
int command_status_with(int out, int err, const char *const *words);
/* What it wrote to stdout, for json_decref(); NULL, and noted, if that is no document. */
json_t *command_document(const struct command *command);

/* object[first][second], or object[first] where @second is NULL; NULL if it is not there. */
json_t *json_at(json_t *object, const char *first, const char *second);
const char *json_text_at(json_t *object, const char *first, const char *second); /* never NULL */
json_int_t json_count_at(json_t *object, const char *first, const char *second); /* -1: none */
double json_real_at(json_t *object, const char *first, const char *second);      /* -1: none */

#endif
