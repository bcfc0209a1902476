// SPDX-License-Identifier: MIT
/* The threads of this process, by /proc (thread_count.h). pthread_join() returns when the kernel has given up a
 * thread's memory; it is struck off the list later, and where much else runs that takes a while. */
#include "tests/support/thread_count.h"

#include "tests/shim/gw_test.h"

#include <dirent.h>
#include <time.h>

#define TRIES 20000 /* of a millisecond */

static unsigned count_now(void)
{
    DIR *dir = opendir("/proc/self/task");
    unsigned count = 0;
    GW_ASSERT(dir != NULL);
    for (const struct dirent *entry; (entry = readdir(dir)) != NULL;)
        count += entry->d_name[0] != '.';
    closedir(dir);
    return count;
}

unsigned threads_left(unsigned most)
{
    static const struct timespec tick = {.tv_nsec = 1000000};
    unsigned count = count_now();
    for (unsigned i = 0; count > most && i < TRIES; i++) {
        nanosleep(&tick, NULL);
        count = count_now();
    }
    return count;
}
