/* SPDX-License-Identifier: MIT */
/* godwit/source.h - the sending side of one migration.
 *
 * Life:    gw_source_new, add_block..., add_dirty..., add_device..., start, wait (or gw_dispatch from
 *          an event loop until GW_EVENT_ENDED), free. After a failure or cancel, start again at
 *          once: everything is sent anew and no page is lost. After success the guest is elsewhere:
 *          free is all that is left.
 * Threads: a source belongs to the thread of its loop; functions marked [any thread] may be called
 *          from others, none after free. Library threads: one for the control endpoint and phases,
 *          one for each page endpoint, two for [worker] callbacks; all block every signal.
 * The guest comes first: until COMMIT is sent, whatever happens, it runs on here. */
#ifndef GODWIT_SOURCE_H
#define GODWIT_SOURCE_H

#include <godwit/block.h>
#include <godwit/device.h>
#include <godwit/dirty.h>
#include <godwit/log.h>
#include <godwit/loop.h>
#include <godwit/params.h>
#include <godwit/stats.h>

#ifdef __cplusplus
extern "C" {
#endif

struct gw_source;

#define GW_VCPU_ALL 0xffffffffu /* instead of a vCPU's number */

/* Called inside gw_dispatch(). Each returns 0 or a negative errno with @err set. Absent (NULL) means
 * "nothing to do", but pause and resume must be there. */
struct gw_source_ops {
    size_t struct_bytes;
    /* Stop every vCPU and every other writer of guest memory. On return memory and device state
     * stand still. Failure fails the migration; the guest is taken to be running. */
    int (*pause)(void *ctx, struct gw_error *err);
    /* Run again, after pause, when the migration failed or was cancelled before COMMIT or the target
     * proved that it did not run. Must not fail lightly: on failure the guest stays paused (event
     * RETAKE), gw_source_resolve(RESUME) tries again. */
    int (*resume)(void *ctx, struct gw_error *err);
    /* Give up what only one host may hold: disk locks, network presence. Right before COMMIT. On
     * failure the migration is backed out, by retake and resume. */
    int (*release)(void *ctx, struct gw_error *err);
    /* Take it back, before resume; only if release was called, also if that failed half way. On
     * failure as resume. */
    int (*retake)(void *ctx, struct gw_error *err);
    void (*event)(void *ctx, const struct gw_event *event);
    /* Let vCPU @vcpu (from 0, or GW_VCPU_ALL) run for (100 - @percent) % of the time from now on, 0 to 99:
     * the guest writes faster than pages are sent (x-cpu-throttle). Asked for while rounds are sent; then, if
     * anything was asked for, 0 for all, whether the guest is paused by then or the migration failed; always
     * before ENDED. A vCPU that is held back must not hold up pause(). NULL: none can be. */
    void (*throttle)(void *ctx, unsigned vcpu, unsigned percent);
};

struct gw_source_config {
    size_t struct_bytes;
    struct gw_loop *loop;            /* borrowed until gw_source_free() */
    const struct gw_source_ops *ops; /* copied */
    void *ctx;
    const struct gw_params *params; /* copied; NULL: defaults */
    const struct gw_log *log;       /* copied; NULL: silent */
    const char *machine; /* machine type, in the stream's configuration: copied, at most 255 bytes
                          * of printable ASCII; NULL: "godwit" */
};

/** gw_source_new() - starts two threads, for [worker] callbacks.
 *  Return: 0, -EINVAL (struct_bytes, loop, ops, pause or resume not set, machine too long or
 *  not printable), -ENOMEM, -EMFILE, -EAGAIN (no threads); @src is set on success only. */
GW_API int gw_source_new(const struct gw_source_config *config, struct gw_source **src,
                         struct gw_error *err);

/**
 * gw_source_add_block() - offer one range of guest memory.
 * @desc: copied, its name too. Its memory stays mapped, at this address, until gw_source_free().
 *
 * Costs no I/O and pins nothing.
 *
 * Return: the block's id, counting from 0 in order of adding, or
 *   -EINVAL  struct_bytes, name, host, size_bytes, page_bytes, kind, fd, fd_offset or flags is
 *            malformed
 *   -EEXIST  the name is taken
 *   -E2BIG   too many blocks (65536), or bytes (2^64)
 *   -EBUSY   a migration runs
 *   -ENOMEM  out of memory; @src is unchanged, as after every failure
 */
GW_API int gw_source_add_block(struct gw_source *src, const struct gw_block_desc *desc,
                               struct gw_error *err);
/** gw_source_add_dirty() - one more dirty source; what any of them reports is sent. At least one
 *  is needed. @ops is copied; its name and @ctx are borrowed until gw_source_free().
 *  Return: 0, -EINVAL (struct_bytes, name or sync not set), -EBUSY, -E2BIG (more than 7). */
GW_API int gw_source_add_dirty(struct gw_source *src, const struct gw_dirty_ops *ops, void *ctx,
                               struct gw_error *err);
/** gw_source_add_device() - @desc is copied. Return: 0, -EINVAL (err says what),
 *  -EEXIST (name and instance_id are taken), -EBUSY, -ENOMEM. */
GW_API int gw_source_add_device(struct gw_source *src, const struct gw_device_desc *desc,
                                struct gw_error *err);

/** gw_source_start() - begin; returns at once, connecting happens in a library thread.
 *  @uri: "tcp:host:port", "tcp:[v6]:port", "unix:path".
 *  Return: 0, -EINVAL (uri, nothing to send, no dirty source, x-cpu-throttle without throttle), -EBUSY (already running, or its
 *  outcome is unknown: resolve it first), -EALREADY (a migration of this source completed, or was
 *  abandoned: the guest is the target's, and what is here is of the past), -ENOMEM, -EAGAIN (no
 *  threads). What goes wrong later, a refused address too, is told by ENDED and gw_source_wait(). */
GW_API int gw_source_start(struct gw_source *src, const char *uri, struct gw_error *err);

/** gw_source_cancel() - [any thread], any time, any number of times. Before COMMIT the guest resumes
 *  here and the status becomes cancelled. Return: 0: it will end soon; -EALREADY: COMMIT was
 *  decided, or it is over, or it failed and waits for gw_source_resolve(); -ENOENT: not started. */
GW_API int gw_source_cancel(struct gw_source *src);

/** gw_source_continue() - leave pre-switchover (pause-before-switchover). [any thread]
 *  Return: 0, -EINVAL if it is not there. */
GW_API int gw_source_continue(struct gw_source *src);

/** gw_source_set() - change a parameter; while a migration runs, a live one (gw_param_list() tells
 *  which those are). [any thread] Return: as gw_params_set(), -EBUSY if it is not live and a
 *  migration runs. */
GW_API int gw_source_set(struct gw_source *src, const char *name, const char *value,
                         struct gw_error *err);

enum gw_source_resolution {
    GW_RESOLVE_RESUME,  /* target fenced and known never to have run: the guest goes on here.
                         * After GW_EVENT_RETAKE: try again (needs no fence). */
    GW_RESOLVE_ABANDON, /* target known to run, or to have run: the guest ends here */
};

/** gw_source_resolve() - end an unknown outcome by the operator's knowledge. Waits for the library
 *  to act; callbacks may run inside. Return: 0; -EALREADY: it settled meanwhile (see the status);
 *  -EINVAL: nothing to resolve, or ABANDON after RETAKE; -EDEADLK: inside a callback; the
 *  callback's error if resume or retake failed again. */
GW_API int gw_source_resolve(struct gw_source *src, enum gw_source_resolution resolution,
                             struct gw_error *err);

/** gw_source_wait() - dispatch until the migration ended, or its outcome is unknown after
 *  x-settle-timeout, or the guest cannot be resumed (RETAKE), or @timeout_ms passed (-1: no limit).
 *  May be called again.
 *  Return: 0: completed; -ENOENT: nothing was started; -ECANCELED: cancelled, guest runs here; -EINPROGRESS: time-out, or outcome
 *  unknown: the guest is paused and the library goes on asking (err code "unknown-outcome");
 *  -EDEADLK: inside a callback; another negative errno: failed (err says why), the guest runs here
 *  unless code is "retake". */
GW_API int gw_source_wait(struct gw_source *src, int timeout_ms, struct gw_error *err);

/** gw_source_stats() - a snapshot; set stats->struct_bytes first. Of the last migration, once it
 *  ended. [any thread] */
GW_API void gw_source_stats(const struct gw_source *src, struct gw_stats *stats);
/** gw_source_rounds() - the first @max rounds of this migration; set struct_bytes of the first
 *  element, which is then the array's stride. 256 are kept. [any thread] Return: how many there
 *  were, which may be more. */
GW_API unsigned gw_source_rounds(const struct gw_source *src, struct gw_round *rounds,
                                 unsigned max);

/** gw_source_block_discarded() - the guest gave [offset, offset + bytes) of a block back (balloon,
 *  hot-unplug): it reads as zero from now on and need not be sent as it was. In units of 4096 bytes.
 *  Call it after the memory was dropped (madvise, fallocate), which no page tracking reports: the
 *  next sync takes the range as written. [any thread], but not while blocks are added.
 *  Return: 0, -EINVAL. */
GW_API int gw_source_block_discarded(struct gw_source *src, unsigned block_id, uint64_t offset,
                                     uint64_t bytes);

/** gw_source_free() - cancels what runs, waits for it (callbacks run inside), frees. Takes NULL. A guest
 *  whose outcome is unknown stays paused: that knowledge is lost with the source. Not inside a
 *  callback: there it logs an error and frees nothing. */
GW_API void gw_source_free(struct gw_source *src);

#ifdef __cplusplus
}
#endif
#endif
