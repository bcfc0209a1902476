// SPDX-License-Identifier: MIT
/* Inboxes: a mutex around a singly linked list, and an eventfd written only when the list was
 * empty, so that a busy receiver costs its senders no system call each. */
#include "core/base/inbox.h"

#include <errno.h>
#include <stddef.h>
#include <sys/eventfd.h>
#include <unistd.h>

int gw_inbox_init(struct gw_inbox *inbox)
{
    inbox->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (inbox->fd < 0)
        return -errno;
    pthread_mutex_init(&inbox->items_lock, NULL);
    inbox->first = NULL;
    inbox->last = &inbox->first;
    return 0;
}

void gw_inbox_fini(struct gw_inbox *inbox)
{
    close(inbox->fd);
    inbox->fd = -1;
    pthread_mutex_destroy(&inbox->items_lock);
}

void gw_inbox_wake(struct gw_inbox *inbox)
{
    uint64_t one = 1;
    /* Fails only when the counter is full, and then it is readable. */
    (void)!write(inbox->fd, &one, sizeof(one));
}

void gw_inbox_push(struct gw_inbox *inbox, struct gw_inbox_item *item)
{
    item->next = NULL;
    pthread_mutex_lock(&inbox->items_lock);
    bool was_empty = inbox->first == NULL;
    *inbox->last = item;
    inbox->last = &item->next;
    pthread_mutex_unlock(&inbox->items_lock);
    if (was_empty)
        gw_inbox_wake(inbox);
}

static struct gw_inbox_item *pop(struct gw_inbox *inbox)
{
    pthread_mutex_lock(&inbox->items_lock);
    struct gw_inbox_item *item = inbox->first;
    if (item) {
        inbox->first = item->next;
        if (!inbox->first)
            inbox->last = &inbox->first;
    }
    pthread_mutex_unlock(&inbox->items_lock);
    return item;
}

struct gw_inbox_item *gw_inbox_take(struct gw_inbox *inbox)
{
    struct gw_inbox_item *item = pop(inbox);
    if (item)
        return item;
    uint64_t count;
    (void)!read(inbox->fd, &count, sizeof(count));
    /* A push between the look and the read would otherwise be slept over. */
    return pop(inbox);
}

void gw_inbox_remove(struct gw_inbox *inbox, struct gw_inbox_item *item)
{
    pthread_mutex_lock(&inbox->items_lock);
    for (struct gw_inbox_item **at = &inbox->first; *at; at = &(*at)->next) {
        if (*at != item)
            continue;
        *at = item->next;
        if (!*at)
            inbox->last = at;
        break;
    }
    pthread_mutex_unlock(&inbox->items_lock);
}
