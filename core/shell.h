/* SPDX-License-Identifier: MIT */
/* core/shell.h - threads. An engine is a step function; a shell steps it, and sleeps when it has
 * nothing to do. Also *mail*, how anything reaches an engine from another thread, and the *pool*, where
 * work that may block is done. A simulator hosts shells and pools itself, without a thread. */
#ifndef GW_CORE_SHELL_H
#define GW_CORE_SHELL_H

#include "core/base/error.h"
#include "core/base/inbox.h"
#include "core/base/thread.h"

#include <poll.h>
#include <pthread.h>

/* One item for an engine's inbox; deliver() runs on the engine's thread. */
struct gw_mail {
    struct gw_inbox_item item;
    void (*deliver)(struct gw_mail *mail, void *engine);
};

static inline void gw_mail_post(struct gw_inbox *inbox, struct gw_mail *mail)
{
    gw_inbox_push(inbox, &mail->item);
}

/* Run deliver() of everything that waits. Return: how many. */
int gw_mail_drain(struct gw_inbox *inbox, void *engine);

/* ---- the shell: a thread for an engine ----------------------------------------------------------- */

struct gw_engine_ops {
    /* Whatever can be done now; never blocks. Return: when to step again, at the latest. */
    uint64_t (*step)(void *engine, uint64_t now_ns);
    /* True after a step: it is not stepped again. */
    bool (*is_over)(const void *engine);
    /* As gw_ep_arm() and gw_ep_awake(), for all its endpoints. */
    int (*arm)(void *engine, struct pollfd *fds, unsigned max, uint64_t *wake_ns);
    void (*awake)(void *engine, const struct pollfd *fds, unsigned count);
    void (*end)(void *engine); /* what remains to be done on its thread */
};

struct gw_shell {
    const struct gw_engine_ops *ops; /* set by its owner before start, as are the next two */
    void *engine;
    struct gw_inbox *inbox; /* what wakes it */
    pthread_t thread;
};

/* @name: at most 15 bytes ("gw/src/page_1"). */
int gw_shell_start(struct gw_shell *shell, const char *name, struct gw_error *err);
void gw_shell_join(struct gw_shell *shell); /* after something that makes it be over */

/* ---- the pool: threads kept for work that may block ------------------------------------------- */

struct gw_pool;

/* Embedded in what it belongs to. run() on a pool thread; then done.deliver() at @reply's engine. */
struct gw_job {
    struct gw_inbox_item item;
    void (*run)(struct gw_job *job);
    struct gw_inbox *reply;
    struct gw_mail done;
};

/* Threads for what populates, pins and unpins memory: one a processor; more than four fight for the process's page
 * tables. */
#define GW_WORKERS_MAX 4u
unsigned gw_worker_count(void);

int gw_pool_new(unsigned threads, const char *name, struct gw_pool **pool, struct gw_error *err);
void gw_pool_post(struct gw_pool *pool, struct gw_job *job); /* [any thread] */
/* Runs what is queued, then ends. Replies go on being pushed: their inboxes must outlive this. */
void gw_pool_free(struct gw_pool *pool); /* takes NULL */
/* For a host: take the next job out and run it. False: none waits. */
bool gw_pool_run_one(struct gw_pool *pool);
bool gw_pool_is_idle(struct gw_pool *pool); /* no job waits */

/* ---- hosting: for a simulator ------------------------------------------------------------------------ */

/* Who runs shells and pools instead of threads. */
struct gw_shell_host {
    int (*start)(struct gw_shell *shell, const char *name, struct gw_error *err);
    void (*join)(struct gw_shell *shell);                    /* step it until it is over */
    int (*pool)(struct gw_pool *pool, struct gw_error *err); /* a new one: run its jobs */
    void (*pool_gone)(struct gw_pool *pool); /* it is empty, and about to be freed */
};

/* NULL: threads. Not while any shell or pool exists. */
void gw_shell_set_host(const struct gw_shell_host *host);
const struct gw_shell_host *gw_shell_hosted(void);

#endif
