/* SPDX-License-Identifier: MIT */
/* tests/e2e/ends.h - a source, a target and a command by itself, for tests of what the command says and how it
 * ends. One of each in a test's process; they are too large for a stack. */
#ifndef GW_TEST_E2E_ENDS_H
#define GW_TEST_E2E_ENDS_H

#include "tests/support/command.h"

extern struct command target, source, only;
extern char where[256]; /* what the target said that it listens on */

#define START(command, ...) command_start((command), (const char *const[]){__VA_ARGS__, NULL})
/* Run `only` to the end: its exit status is @expected, or that is noted. */
#define STATUS_IS(expected, ...) status_is((expected), (const char *const[]){__VA_ARGS__, NULL})
bool status_is(int expected, const char *const *words);
bool ends_with(struct command *command, int expected);
void said(const struct command_stream *stream, const char *text);
void await_listening(void);
json_t *document_of(
    const struct command *command); /* asserts that there is one, and nothing beside it */

/* "s", "json", "events" or "pipe" in a folder of this process's; valid until three others were asked for. */
const char *path_in_folder(const char *name);
/* To listen on: "tcp4", "tcp6", "unix". */
const char *listen_uri(const char *wire);

#endif
