/* SPDX-License-Identifier: MIT */
/* core/base/thread.h - the only way a thread of the library begins. */
#ifndef GW_BASE_THREAD_H
#define GW_BASE_THREAD_H

#include "core/base/error.h"

#include <pthread.h>

/* Start a thread with every signal blocked, so that an embedder's handlers never run on it, and a name
 * of at most 15 bytes ("gw/src/page_1"). 0, or a negative errno with err. */
int gw_thread_start(pthread_t *thread, const char *name, void *(*body)(void *), void *arg,
                    struct gw_error *err);

#endif
