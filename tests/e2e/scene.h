/* SPDX-License-Identifier: MIT */
/* tests/e2e/scene.h - one migration by two processes of the real command, stopped in a chosen state: a
 * relay between them holds the message that ends the state. What the processes say and write goes
 * to files of a folder that the test's program removes. Many scenes may be open at once: what tests
 * of faults wait for is mostly time-outs. Every wait is for a text or an end, with a deadline. */
#ifndef GW_TEST_SCENE_H
#define GW_TEST_SCENE_H

#include "tests/support/proxy.h"

#include <jansson.h>
#include <stdbool.h>
#include <sys/types.h>

/* What is too slow to be repeated as often under a sanitizer. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SCENE_SANITIZED 1
#else
#define SCENE_SANITIZED 0
#endif

enum scene_state {
    SCENE_HELLO,  /* setup: HELLO_REPLY is on its way */
    SCENE_BLOCKS, /* setup: BLOCKS_OK is */
    SCENE_FIRST,  /* active: the first round's JOINED is */
    SCENE_LATER, /* active: the second round's is, and the guest writes too fast for a third to be the last */
    SCENE_DEVICE,   /* device: paused, the end of RAM is on its way */
    SCENE_PREPARE,  /* device: PREPARE is */
    SCENE_PREPARED, /* PREPARED, and the source does not know */
    SCENE_COMMIT,   /* COMMITTED, and the target does not know */
    SCENE_OUTCOME,  /* RUNNING, and the source does not know */
    SCENE_ACK,      /* settling: all that is missing is ACK */
    SCENE_STATES
};

enum scene_side { SCENE_SOURCE, SCENE_TARGET };

struct scene_process {
    pid_t pid; /* 0: none */
    bool ended;
    int status; /* exit status, or 128 + the signal */
    uint64_t begun_ms;
    char talk[96], events[96], json[96]; /* files */
};

struct scene_limits { /* of a process; 0: as they are */
    uint64_t files, bytes;
};

struct scene {
    char name[64];
    enum scene_state state;
    struct scene_process side[2]; /* by enum scene_side */
    struct proxy *proxy;
    unsigned rule;
};

const char *scene_state_name(enum scene_state state);
uint64_t scene_now_ms(void);
bool scene_is_full(void); /* GODWIT_TEST_FULL */
const char *scene_folder(void);

/* `godwit @words...`, NULL at the end; talk, --events and --json go to files by @name. */
void scene_spawn(struct scene_process *process, const char *name, const char *const *words,
                 const struct scene_limits *limits);
/* Until the file @path holds @text, or its process ended or patience did; noted unless it came. */
bool scene_await(struct scene_process *process, const char *path, const char *text);
bool scene_await_uri(struct scene_process *process, char *uri, size_t bytes);
/* The same, and false without a word if it ended first; @uri is as it was. */
bool scene_await_uri_or_end(struct scene_process *process, char *uri, size_t bytes);
/* Until it ended; noted, and killed, if it does not. Return: status. */
int scene_finish(struct scene_process *process);
char *scene_text(const char *path); /* a whole file, to be freed; never NULL */
json_t *scene_document(const struct scene_process *process); /* NULL: none */
/* Of the first event that has an error, ms since the process began; -1: none. */
double scene_error_ms(const struct scene_process *process);

/* The target, the relay and the source; returns at once. Time-outs in ms. */
void scene_begin(struct scene *scene, const char *name, enum scene_state state,
                 unsigned peer_timeout_ms, unsigned settle_timeout_ms);
void scene_reach(struct scene *scene); /* until the relay holds the message */
void scene_end(struct scene *scene);   /* kills what is left */
/* Until the source has made its @count-th control connection. */
void scene_await_connections(struct scene *scene, unsigned count);
void scene_wait(unsigned ms); /* where the length of a time is what is tested */

/* Each notes what is not so, by the scene's name. */
void scene_expect_status(struct scene *scene, enum scene_side side, int status);
/* A document with a whole error of @code (NULL: any) in @phase (NULL: any). */
void scene_expect_error(struct scene *scene, enum scene_side side, const char *code,
                        const char *phase);
enum scene_checked { SCENE_VERIFIED, SCENE_NOT_CHECKED };
void scene_expect_guest(struct scene *scene, enum scene_side side, enum scene_checked checked);

#endif
