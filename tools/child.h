/* SPDX-License-Identifier: MIT */
/* tools/child.h - a `godwit receive` of our own, in a process of its own, for `try`. */
#ifndef GW_TOOLS_CHILD_H
#define GW_TOOLS_CHILD_H

#include "tools/wait.h"

#include <jansson.h>
#include <sys/types.h>

struct gw_child {
    pid_t pid;
    int out_fd;      /* a memfd behind its stdout: the document */
    int err_fd;      /* the pipe from its stderr; -1 once it closed it */
    char uri[1200];  /* what it listens on; "" until it said so */
    char line[2048]; /* of its stderr, not yet complete */
    size_t line_bytes;
};

/* Run this program with @argv (argv[0] is the name; NULL at the end). Before any thread is started.
 * Return: 0 or a negative errno with @err set. */
int gw_child_start(struct gw_child *child, char **argv, struct gw_error *err);
/* Take in what it wrote: finds `listening on`, passes other lines on to our stderr. A gw_wait's
 * fd_ready: false once the child closed its end. */
bool gw_child_read(void *child);
/* Until it ended; then its exit status (128 + the signal that killed it). A signal that comes
 * meanwhile asks it to cancel; 40 s after that it is killed. */
int gw_child_wait(struct gw_child *child);
void gw_child_cancel(struct gw_child *child);
/* The document it wrote, or NULL. */
json_t *gw_child_document(const struct gw_child *child);
void gw_child_fini(struct gw_child *child);

#endif
