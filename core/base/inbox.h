/* SPDX-License-Identifier: MIT */
/* core/base/inbox.h - a queue into one thread from any other, with a descriptor to sleep on.
 *
 * Items are intrusive nodes that the sender owns until pushed and the receiver from then on, so a
 * push cannot fail; the bound is how many nodes exist. [any thread] push; one thread takes. */
#ifndef GW_BASE_INBOX_H
#define GW_BASE_INBOX_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The structure that holds @member at @pointer. */
#define GW_CONTAINER_OF(pointer, type, member)                                                     \
    ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

struct gw_inbox_item {
    struct gw_inbox_item *next;
};

struct gw_inbox {
    int fd; /* eventfd: readable while something may wait */
    pthread_mutex_t items_lock;
    struct gw_inbox_item *first; /* guarded by items_lock, as is last */
    struct gw_inbox_item **last;
};

int gw_inbox_init(struct gw_inbox *inbox); /* 0, -EMFILE, -ENOMEM */
void gw_inbox_fini(struct gw_inbox *inbox);
void gw_inbox_push(struct gw_inbox *inbox, struct gw_inbox_item *item); /* [any thread] */
void gw_inbox_wake(struct gw_inbox *inbox);                             /* [any thread] */
/* The oldest item, or NULL; taking NULL makes fd unreadable until the next push or wake. */
struct gw_inbox_item *gw_inbox_take(struct gw_inbox *inbox);
/* Take @item out if it waits there; for an item that is about to be freed. */
void gw_inbox_remove(struct gw_inbox *inbox, struct gw_inbox_item *item);

#endif
