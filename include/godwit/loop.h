/* SPDX-License-Identifier: MIT */
/* godwit/loop.h - one pollable descriptor, and the calls of an embedder's callbacks.
 *
 * Life:    gw_loop_new, any number of sources and targets on it, gw_loop_free after theirs.
 * Threads: a loop belongs to one thread. Callbacks that are not marked [worker] run inside
 *          gw_dispatch() on that thread and nowhere else; no lock of godwit's is held meanwhile.
 *          They may take long: library threads keep the connections alive.
 * Works with epoll, GLib, libuv: watch gw_loop_fd() for input, call gw_dispatch() when it is
 * readable. There is no time-out to ask for: timers run in library threads. */
#ifndef GODWIT_LOOP_H
#define GODWIT_LOOP_H

#include <godwit/error.h>

#ifdef __cplusplus
extern "C" {
#endif

struct gw_loop;

/** gw_loop_new() - Return: 0, or -ENOMEM, -EMFILE, -ENFILE; @loop is set on success only. */
GW_API int gw_loop_new(struct gw_loop **loop, struct gw_error *err);

/** gw_loop_fd() - readable while gw_dispatch() has work. Owned by the loop. */
GW_API int gw_loop_fd(const struct gw_loop *loop);

/** gw_dispatch() - run the callbacks that wait, and those that come while they run; never blocks by
 *  itself.
 *  Return: how many ran, 0 if none waited, -EDEADLK if called from inside a callback. */
GW_API int gw_dispatch(struct gw_loop *loop);

/** gw_loop_free() - after the last source and target on it was freed. Takes NULL. */
GW_API void gw_loop_free(struct gw_loop *loop);

#ifdef __cplusplus
}
#endif
#endif
