// SPDX-License-Identifier: MIT
/* Mail, and the shell: step, sleep until something is ready or it is time, step. Everything that an
 * engine does happens in its steps; so whoever hosts the shells (a thread each, or one simulator)
 * decides about nothing but order. */
#include "core/shell.h"

#include "core/base/clock.h"

int gw_mail_drain(struct gw_inbox *inbox, void *engine)
{
    int count = 0;
    struct gw_inbox_item *item;
    while ((item = gw_inbox_take(inbox)) != NULL) {
        struct gw_mail *mail = (struct gw_mail *)(void *)item; /* item is its first member */
        mail->deliver(mail, engine);
        count++;
    }
    return count;
}

/* ---- shells ----------------------------------------------------------------------------------- */

enum { FDS_MAX = 128 }; /* an inbox, and what the engine with the most endpoints arms */

static const struct gw_shell_host *shell_host;

void gw_shell_set_host(const struct gw_shell_host *host)
{
    shell_host = host;
}

const struct gw_shell_host *gw_shell_hosted(void)
{
    return shell_host;
}

static void sleep_or_not(struct gw_shell *shell, uint64_t wake_ns)
{
    struct pollfd fds[FDS_MAX] = {{.fd = shell->inbox->fd, .events = POLLIN}};
    int count = shell->ops->arm(shell->engine, &fds[1], FDS_MAX - 1, &wake_ns);
    if (wake_ns == 0)
        return;
    gw_clock_poll(fds, 1 + (unsigned)count, wake_ns);
    shell->ops->awake(shell->engine, &fds[1], (unsigned)count);
}

static void *shell_thread(void *arg)
{
    struct gw_shell *shell = arg;
    for (;;) {
        uint64_t now_ns = gw_clock_ns();
        uint64_t wake_ns = shell->ops->step(shell->engine, now_ns);
        if (shell->ops->is_over(shell->engine))
            break;
        if (wake_ns > now_ns)
            sleep_or_not(shell, wake_ns);
    }
    shell->ops->end(shell->engine);
    return NULL;
}

int gw_shell_start(struct gw_shell *shell, const char *name, struct gw_error *err)
{
    if (shell_host)
        return shell_host->start(shell, name, err);
    return gw_thread_start(&shell->thread, name, shell_thread, shell, err);
}

void gw_shell_join(struct gw_shell *shell)
{
    if (shell_host)
        shell_host->join(shell);
    else
        pthread_join(shell->thread, NULL);
}
