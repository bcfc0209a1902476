/* SPDX-License-Identifier: MIT */
/* godwit/target.h - the receiving side of one migration.
 *
 * Life:    gw_target_new, add_device..., listen, wait (or gw_dispatch until GW_EVENT_ENDED), free.
 *          Strangers and hang-ups before hello is complete are logged and waiting goes on; after
 *          hello it is this guest or a failure. listen again for another attempt or guest.
 * Threads: as a source's. Signals are blocked in library threads. */
#ifndef GODWIT_TARGET_H
#define GODWIT_TARGET_H

#include <godwit/block.h>
#include <godwit/device.h>
#include <godwit/log.h>
#include <godwit/loop.h>
#include <godwit/params.h>
#include <godwit/stats.h>

#ifdef __cplusplus
extern "C" {
#endif

struct gw_target;

struct gw_block_offer {
    size_t struct_bytes;
    unsigned id;      /* counts from 0 in the source's order */
    unsigned count;   /* blocks in all */
    const char *name; /* valid during the call; checked: 1..255 printable bytes */
    uint64_t size_bytes;
    uint32_t page_bytes;
    enum gw_block_kind kind; /* of the source's memory */
    uint32_t flags;
};

/** gw_block_offer_check() - for block_offered: may a block of this host that has @size_bytes be the one
 *  offered? Sizes must be equal, but for a block that can have other sizes (a firmware's tables), up to
 *  @size_bytes_max; 0 for all others. A ROM is sent like RAM: the guest was started with the source's
 *  and goes on with it, so @desc's memory must be writable here, whatever the guest may do. [any thread]
 *  Return: 0, or -EINVAL, code block, naming both sizes. */
GW_API int gw_block_offer_check(const struct gw_block_offer *offer, uint64_t size_bytes,
                                uint64_t size_bytes_max, struct gw_error *err);

/* Called inside gw_dispatch(); 0 or a negative errno with @err set. */
struct gw_target_ops {
    size_t struct_bytes;
    /* The source describes a block; fill @desc with memory of that size, or refuse. name, size_bytes
     * and flags are filled in, the first two must stay; set host, and what is not so: kind anon,
     * page_bytes 4096, fd -1, fd_offset 0. It must read as zero or be content that may be
     * overwritten, and stay mapped until gw_target_free() or the next gw_target_listen(). Blocks are
     * offered in order, before any byte of memory arrives. */
    int (*block_offered)(void *ctx, const struct gw_block_offer *offer, struct gw_block_desc *desc,
                         struct gw_error *err);
    /* Every block was taken and the memory is about to arrive. May be NULL. A block that this machine has and
     * that was not offered keeps what is in it: refuse here (code block), unless the guest can do without. */
    int (*blocks_ready)(void *ctx, struct gw_error *err);
    /* COMMIT arrived: take what only one host may hold (disk locks). On failure everything taken
     * must have been given back on return: the guest then resumes at the source (DECLINED). */
    int (*acquire)(void *ctx, struct gw_error *err);
    /* Start the vCPUs. The guest is ours from the moment this is called. */
    int (*run)(void *ctx, struct gw_error *err);
    void (*event)(void *ctx, const struct gw_event *event);
};

struct gw_target_config {
    size_t struct_bytes;
    struct gw_loop *loop;            /* borrowed until gw_target_free() */
    const struct gw_target_ops *ops; /* copied; block_offered and run must be there */
    void *ctx;
    const struct gw_params *params; /* copied; NULL: defaults */
    const struct gw_log *log;       /* copied; NULL: silent */
    const char *machine;            /* copied; must equal the source's; NULL: any */
    uint64_t ram_bytes_max;         /* refuse a larger guest at hello; 0: no limit */
};

/** gw_target_new() - starts two threads, for long work. Return: 0, -EINVAL (struct_bytes, loop, ops,
 *  block_offered or run not set, machine longer than 255 bytes or not printable), -ENOMEM, -EMFILE, -EAGAIN (no
 *  threads); @tgt is set on success only. */
GW_API int gw_target_new(const struct gw_target_config *config, struct gw_target **tgt,
                         struct gw_error *err);
/** gw_target_add_device() - @desc is copied. Before listen, or inside block_offered/blocks_ready.
 *  Return: 0, -EINVAL (err says what), -EEXIST (name and instance_id are taken), -EBUSY, -ENOMEM. */
GW_API int gw_target_add_device(struct gw_target *tgt, const struct gw_device_desc *desc,
                                struct gw_error *err);
/** gw_target_listen() - bind and begin to serve; port 0 takes a free one. Looks the host's name up,
 *  which may take as long as the resolver does. Ends what there was of the guest before, and its
 *  gw_target_outcome(); a source that asks late for one of the last 64 outcomes is still told.
 *  Return: 0, -EINVAL, -EADDRINUSE, -EBUSY (already serving), ... with err and a hint. */
GW_API int gw_target_listen(struct gw_target *tgt, const char *uri, struct gw_error *err);
/** gw_target_uri() - where it listens, with the real port; NULL before listen. Valid until free or the
 *  next listen. */
GW_API const char *gw_target_uri(const struct gw_target *tgt);

/** gw_target_cancel() - end it: before the outcome is set it is voided. [any thread]
 *  Return: 0: it will end soon; -EALREADY: the outcome is set or COMMIT was read, or it is over;
 *  -ENOENT: not listening. */
GW_API int gw_target_cancel(struct gw_target *tgt);

enum gw_target_outcome {
    GW_TARGET_NONE,     /* undecided */
    GW_TARGET_RUNNING,  /* the guest runs (or ran) here */
    GW_TARGET_DECLINED, /* acquire failed; everything was given back; no vCPU ran */
    GW_TARGET_VOID,     /* discarded; it will never run here */
};

/** gw_target_outcome() - the write-once outcome of the guest that was served. [any thread] */
GW_API enum gw_target_outcome gw_target_outcome(const struct gw_target *tgt);

/** gw_target_claim() - from PREPARED on, above all while HOLDING: stop the hold timer and all reading,
 *  so that nothing but gw_target_resolve() decides. Waits for the library to act; callbacks may run
 *  inside. Return: 0: claimed; -EALREADY: the outcome is set (ask gw_target_outcome); -EINVAL: not
 *  prepared yet, or COMMIT was read and acquire runs; -EDEADLK: inside a callback. Then fence the
 *  source, then resolve. */
GW_API int gw_target_claim(struct gw_target *tgt);

enum gw_target_resolution {
    GW_RESOLVE_RUN,     /* source fenced, and known (disk lease, host log) not to have run since
                         * the pause */
    GW_RESOLVE_DISCARD, /* needs no fence */
};

/** gw_target_resolve() - after claim. Callbacks run inside. Return: 0; -EINVAL: not claimed;
 *  -EDEADLK: inside a callback; -EALREADY: cancelled meanwhile; acquire's error if RUN could not
 *  acquire: it goes on holding, resolve again. 0 says nothing of run(): gw_target_wait() does. */
GW_API int gw_target_resolve(struct gw_target *tgt, enum gw_target_resolution resolution,
                             struct gw_error *err);

/** gw_target_wait() - dispatch until it ended or @timeout_ms passed (-1: no limit). May be
 *  called again.
 *  It ends when the source acknowledged the outcome or x-settle-timeout passed after it.
 *  Return: 0: the guest runs here; -ENOENT: it never listened; -ECANCELED: voided by cancel of either side; -EINPROGRESS:
 *  time-out; -EDEADLK: inside a callback; other negative errno: failed (err says why). The guest
 *  then does not run here, with one exception: if gw_target_outcome() is GW_TARGET_RUNNING, run()
 *  failed after the handover. The guest is this host's and must be started here, never at the source. */
GW_API int gw_target_wait(struct gw_target *tgt, int timeout_ms, struct gw_error *err);
/** gw_target_stats() - a snapshot; set stats->struct_bytes first. [any thread] */
GW_API void gw_target_stats(const struct gw_target *tgt, struct gw_stats *stats);

/** gw_target_free() - voids what is undecided, stops listening, frees (callbacks run inside). Takes
 *  NULL. An outcome that the source has not acknowledged is forgotten, and the source may stay paused
 *  for ever. Not inside a callback: there it logs an error and frees nothing. */
GW_API void gw_target_free(struct gw_target *tgt);

#ifdef __cplusplus
}
#endif
#endif
