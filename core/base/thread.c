// SPDX-License-Identifier: MIT
/* Threads: created with all signals blocked (the mask is inherited), then named. */
#include "core/base/thread.h"

#include <signal.h>

int gw_thread_start(pthread_t *thread, const char *name, void *(*body)(void *), void *arg,
                    struct gw_error *err)
{
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = -pthread_create(thread, NULL, body, arg);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc < 0) {
        gw_fail(err, rc, "thread %s", name);
        gw_error_hint(err, "raise this process's limit of threads or memory (`ulimit -u`, "
                           "`ulimit -v`, pids.max), or free some");
        return rc;
    }
    pthread_setname_np(*thread, name);
    return 0;
}
