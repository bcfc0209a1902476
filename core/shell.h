/* SPDX-License-Identifier: MIT */
/* core/shell.h - threads. An engine is a step function; a shell steps it, and sleeps when it has
 * nothing to do. Also *mail*: how anything reaches an engine from another thread. */
#ifndef GW_CORE_SHELL_H
#define GW_CORE_SHELL_H

#include "core/base/error.h"
#include "core/base/inbox.h"
#include "core/base/thread.h"

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

/* ---- the pool: threads kept for work that may block ------------------------------------------- */

struct gw_pool;

/* Embedded in what it belongs to. run() on a pool thread; then done.deliver() at @reply's engine. */
struct gw_job {
    struct gw_inbox_item item;
    void (*run)(struct gw_job *job);
    struct gw_inbox *reply;
    struct gw_mail done;
};

int gw_pool_new(unsigned threads, const char *name, struct gw_pool **pool, struct gw_error *err);
void gw_pool_post(struct gw_pool *pool, struct gw_job *job); /* [any thread] */
/* Runs what is queued, then ends. Replies go on being pushed: their inboxes must outlive this. */
void gw_pool_free(struct gw_pool *pool); /* takes NULL */

#endif
