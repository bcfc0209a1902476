// SPDX-License-Identifier: MIT
/* The first SIGINT or SIGTERM makes a descriptor readable, which the poll loops watch: the handler
 * writes one byte into a pipe that nobody reads, and gives both signals their default action back.
 * So a second signal ends the process at once, in the kernel, even while the main thread is busy
 * (filling or checking memory) and reads nothing. */
#include "tools/signals.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <unistd.h>

static int pipe_fds[2] = {-1, -1};

static void note_signal(int number)
{
    int saved = errno;
    (void)number;

    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    if (write(pipe_fds[1], "", 1) < 0)
        errno = 0; /* full: it is readable already */
    errno = saved;
}

int gw_signals_init(void)
{
    struct sigaction action = {.sa_handler = note_signal, .sa_flags = SA_RESTART};

    if (pipe_fds[0] < 0 && pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK) < 0)
        return -errno;
    sigemptyset(&action.sa_mask);
    sigaddset(&action.sa_mask, SIGINT);
    sigaddset(&action.sa_mask, SIGTERM);
    if (sigaction(SIGINT, &action, NULL) < 0 || sigaction(SIGTERM, &action, NULL) < 0)
        return -errno;
    return 0;
}

int gw_signals_fd(void)
{
    return pipe_fds[0];
}

bool gw_signals_seen(void)
{
    struct pollfd fd = {.fd = pipe_fds[0], .events = POLLIN};

    return pipe_fds[0] >= 0 && poll(&fd, 1, 0) > 0;
}
