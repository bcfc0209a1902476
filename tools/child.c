// SPDX-License-Identifier: MIT
/* The other end of `try`. The child is this same program, started by fork and exec before we have any
 * thread. It leads a process group of its own, so that an interrupt at the terminal reaches us alone
 * and we decide, and it is told to end if we die. Its stderr is a pipe that we read line by line; its
 * stdout is a memfd, which takes a document of any length without a reader. */
#include "tools/child.h"

#include "tools/talk.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define PATIENCE_NS (40 * GW_WAIT_NS_PER_S) /* longer than the settle time-out */

static _Noreturn void be_child(char **argv, pid_t parent, int out_fd, int err_fd)
{
    int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);

    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() == parent && dup2(null_fd, 0) == 0 && dup2(out_fd, 1) == 1 &&
        dup2(err_fd, 2) == 2)
        execv("/proc/self/exe", argv);
    _exit(127);
}

int gw_child_start(struct gw_child *child, char **argv, struct gw_error *err)
{
    pid_t parent = getpid();
    int pipe_fds[2];

    *child = (struct gw_child){.pid = -1, .out_fd = -1, .err_fd = -1};
    if (pipe2(pipe_fds, O_CLOEXEC) < 0)
        return gw_error_set(err, -errno, GW_CODE_IO, "pipe: %s", strerror(errno));
    child->err_fd = pipe_fds[0];
    child->out_fd = memfd_create("godwit-receive-document", MFD_CLOEXEC);
    child->pid = child->out_fd >= 0 ? fork() : -1;
    if (child->pid == 0)
        be_child(argv, parent, child->out_fd, pipe_fds[1]);
    int rc = child->pid < 0 ? -errno : 0;
    close(pipe_fds[1]);
    if (rc < 0)
        return gw_error_set(err, rc, GW_CODE_IO, "the receiving side could not be started: %s",
                            strerror(-rc));
    fcntl(child->err_fd, F_SETFL, O_NONBLOCK);
    return 0;
}

static void take_line(struct gw_child *child)
{
    static const char listening[] = "listening on ";

    child->line[child->line_bytes] = '\0';
    child->line_bytes = 0;
    if (strncmp(child->line, listening, sizeof(listening) - 1) == 0)
        snprintf(child->uri, sizeof(child->uri), "%.1100s", child->line + sizeof(listening) - 1);
    else if (child->line[0] != '\0')
        gw_talk_line("%s", child->line);
}

bool gw_child_read(void *ctx)
{
    struct gw_child *child = ctx;
    char bytes[512];
    ssize_t count;

    while ((count = read(child->err_fd, bytes, sizeof(bytes))) > 0) {
        for (ssize_t i = 0; i < count; i++) {
            if (bytes[i] == '\n' || child->line_bytes == sizeof(child->line) - 1)
                take_line(child);
            if (bytes[i] != '\n')
                child->line[child->line_bytes++] = bytes[i];
        }
    }
    if (count < 0 && errno == EAGAIN)
        return true;
    take_line(child);
    close(child->err_fd);
    child->err_fd = -1;
    return false;
}

void gw_child_cancel(struct gw_child *child)
{
    if (child->pid > 0)
        kill(child->pid, SIGTERM);
}

int gw_child_wait(struct gw_child *child)
{
    struct gw_wait wait = {.fd = child->err_fd, .fd_ready = gw_child_read, .fd_ctx = child};
    uint64_t give_up_ns = GW_WAIT_FOREVER;
    int status = 0;

    if (child->pid <= 0)
        return GW_EXIT_FAILED;
    while (child->err_fd >= 0) {
        bool before = wait.signalled;
        gw_wait_step(&wait, give_up_ns);
        if (wait.signalled && !before) {
            gw_child_cancel(child);
            give_up_ns = gw_wait_now_ns() + PATIENCE_NS;
        }
        if (gw_wait_now_ns() >= give_up_ns)
            break;
    }
    if (child->err_fd >= 0)
        kill(child->pid, SIGKILL);
    while (waitpid(child->pid, &status, 0) < 0 && errno == EINTR)
        ;
    child->pid = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

json_t *gw_child_document(const struct gw_child *child)
{
    if (child->out_fd < 0 || lseek(child->out_fd, 0, SEEK_SET) < 0)
        return NULL;
    return json_loadfd(child->out_fd, 0, NULL);
}

void gw_child_fini(struct gw_child *child)
{
    if (child->err_fd >= 0)
        close(child->err_fd);
    if (child->out_fd >= 0)
        close(child->out_fd);
    child->err_fd = child->out_fd = -1;
}
