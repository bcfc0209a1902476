/* SPDX-License-Identifier: MIT */
/* tests/e2e/embedder.h - a hypervisor in a process of its own, through the public API: it has the built-in
 * guest, or takes one, and sends it on when it is told to. It is told, and answers, by lines on pipes:
 *
 *     new                  a guest is made here and runs             "new"
 *     set NAME VALUE       a parameter of what comes next
 *     receive              it listens                                "uri URI"; at the end "received ..."
 *     send URI             its guest goes there                      at the end "sent ..."
 *     continue             out of pre-switchover
 *     writes               how much the guest has written, in all    "writes N"
 *     check                the guest is paused, checked, resumed     "check ok", or why not
 *
 * "pre-switchover" is said when it is reached. "sent" and "received" go on with: the return code, the
 * error's code and phase ("-": none), "runs" or "paused", and "whole", or why the guest is not. */
#ifndef GW_TEST_EMBEDDER_H
#define GW_TEST_EMBEDDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define EMBEDDER_LINE_BYTES 512

struct embedder {
    pid_t pid;
    int to, from;
};

void embedder_begin(struct embedder *embedder); /* before the test's process has threads */
void embedder_say(struct embedder *embedder, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* Its next line, which must begin with @word: what follows is in @rest. False, and noted, if it does
 * not, or none comes. */
bool embedder_hear(struct embedder *embedder, const char *word, char rest[EMBEDDER_LINE_BYTES]);
uint64_t embedder_writes(struct embedder *embedder);
void embedder_end(struct embedder *embedder); /* kills it */

#endif
