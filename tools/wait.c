// SPDX-License-Identifier: MIT
/* One poll(2) over the library's descriptor, the signal pipe and, for `try`, the child's output.
 * Waking early is allowed, so callers look at their own conditions after each step. */
#include "tools/wait.h"

#include "tools/signals.h"

#include <poll.h>
#include <time.h>

uint64_t gw_wait_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * GW_WAIT_NS_PER_S + (uint64_t)now.tv_nsec;
}

static int poll_until(struct pollfd *fds, nfds_t count, uint64_t wake_ns)
{
    uint64_t now_ns = gw_wait_now_ns();
    uint64_t left_ns = wake_ns > now_ns ? wake_ns - now_ns : 0;
    struct timespec left = {.tv_sec = (time_t)(left_ns / GW_WAIT_NS_PER_S),
                            .tv_nsec = (long)(left_ns % GW_WAIT_NS_PER_S)};

    return ppoll(fds, count, wake_ns == GW_WAIT_FOREVER ? NULL : &left, NULL);
}

void gw_wait_step(struct gw_wait *wait, uint64_t wake_ns)
{
    struct pollfd fds[3] = {
        {.fd = wait->loop ? gw_loop_fd(wait->loop) : -1, .events = POLLIN},
        {.fd = wait->signalled ? -1 : gw_signals_fd(), .events = POLLIN},
        {.fd = wait->fd_ready ? wait->fd : -1, .events = POLLIN},
    };

    if (poll_until(fds, 3, wake_ns) <= 0)
        return;
    if (fds[0].revents)
        gw_dispatch(wait->loop);
    if (fds[1].revents)
        wait->signalled = true;
    if (fds[2].revents && wait->fd_ready && !wait->fd_ready(wait->fd_ctx))
        wait->fd = -1;
}

bool gw_wait_until(struct gw_wait *wait, uint64_t wake_ns)
{
    while (!wait->signalled && gw_wait_now_ns() < wake_ns)
        gw_wait_step(wait, wake_ns);
    return !wait->signalled;
}
