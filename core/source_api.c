// SPDX-License-Identifier: MIT
/* The embedder's side of a source (godwit/source.h): checks, starts and joins the engine's thread,
 * and reaches in only through atomics and the engine's inbox. */
#include "core/source.h"

#include "core/base/alloc.h"
#include "core/base/bytes.h"
#include "core/hint.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

/* As much of the table as there was in the first version of its header: what follows came later. */
#define OPS_BYTES_LEAST offsetof(struct gw_source_ops, throttle)

int gw_source_new(const struct gw_source_config *config, struct gw_source **result,
                  struct gw_error *err)
{
    if (config->struct_bytes < sizeof(*config) || !config->loop || !config->ops ||
        config->ops->struct_bytes < OPS_BYTES_LEAST || !config->ops->pause || !config->ops->resume)
        return gw_fail(err, -EINVAL,
                       "source: struct_bytes, loop, ops, pause and resume must be set");
    int rc = config->machine ? gw_machine_check(config->machine, err) : 0;
    if (rc < 0) {
        gw_error_prefix(err, "source");
        return rc;
    }
    struct gw_source *src = gw_zalloc(1, sizeof(*src));
    if (!src) {
        gw_fail(err, -ENOMEM, "source");
        gw_hint_source(err);
        return -ENOMEM;
    }
    src->loop = config->loop;
    memcpy(&src->ops, config->ops, gw_min_u64(config->ops->struct_bytes, sizeof(src->ops)));
    src->ctx = config->ctx;
    gw_teller_init(&src->teller, src->loop, src->ops.event, src->ctx, &src->calls_in_loop);
    if (config->log)
        src->log = *config->log;
    snprintf(src->machine, sizeof(src->machine), "%s",
             config->machine ? config->machine : "godwit");
    gw_params_defaults(&src->params);
    if (config->params)
        src->params = *config->params;
    src->params_live = src->params;
    pthread_mutex_init(&src->params_lock, NULL);
    pthread_mutex_init(&src->stats_lock, NULL);
    src->err.struct_bytes = src->result_err.struct_bytes = sizeof(src->err);
    rc = gw_inbox_init(&src->inbox);
    src->ram = gw_ram_new();
    gw_discards_init(&src->discards);
    if (rc == 0 &&
        (!src->ram || gw_ram_add_dirty(src->ram, &gw_discards_ops, &src->discards, err) < 0 ||
         gw_devices_set_ram(&src->devices, src->ram, err) < 0))
        rc = -ENOMEM;
    if (rc < 0)
        gw_fail(err, rc, "source");
    else
        rc = gw_pool_new(2, "gw/src/pool", &src->pool, err);
    if (rc < 0) {
        gw_hint_source(err);
        gw_source_free(src);
        return rc;
    }
    *result = src;
    return 0;
}

static bool is_running(const struct gw_source *src)
{
    return atomic_load_explicit(&src->running, memory_order_acquire);
}

static bool was_started(const struct gw_source *src)
{
    return atomic_load_explicit(&src->started, memory_order_acquire);
}

static int refuse_running(const struct gw_source *src, struct gw_error *err)
{
    return is_running(src) ? gw_fail(err, -EBUSY, "source: a migration runs") : 0;
}

int gw_source_add_block(struct gw_source *src, const struct gw_block_desc *desc,
                        struct gw_error *err)
{
    int rc = refuse_running(src, err);
    return rc < 0 ? rc : gw_ram_add_block(src->ram, desc, err);
}

int gw_source_add_dirty(struct gw_source *src, const struct gw_dirty_ops *ops, void *ctx,
                        struct gw_error *err)
{
    int rc = refuse_running(src, err);
    return rc < 0 ? rc : gw_ram_add_dirty(src->ram, ops, ctx, err);
}

int gw_source_add_device(struct gw_source *src, const struct gw_device_desc *desc,
                         struct gw_error *err)
{
    int rc = refuse_running(src, err);
    return rc < 0 ? rc : gw_devices_add(&src->devices, desc, err);
}

/* ---- start ------------------------------------------------------------------------------------- */

static void join_thread(struct gw_source *src)
{
    if (src->thread_runs)
        gw_shell_join(&src->shell);
    src->thread_runs = false;
}

static void reset(struct gw_source *src)
{
    atomic_store_explicit(&src->decision, GW_DECIDED_NOTHING, memory_order_relaxed);
    atomic_store_explicit(&src->unknown, false, memory_order_relaxed);
    atomic_store_explicit(&src->stuck, false, memory_order_relaxed);
    atomic_store_explicit(&src->continue_asked, false, memory_order_relaxed);
    atomic_store_explicit(&src->abandoned, false, memory_order_relaxed);
    atomic_store_explicit(&src->resolution, 0, memory_order_relaxed);
    atomic_store_explicit(&src->resolve_answer, 0, memory_order_relaxed);
    src->started_ns = gw_clock_ns();
    src->step = GW_SRC_CONNECT;
    src->hs = GW_HS_PRECOPY;
    memset(&src->token, 0, sizeof(src->token));
    src->page_count = src->page_wanted = 0;
    gw_source_wires_reset(src);
    src->hello_losses = 0;
    src->connect_again_ns = src->started_ns;
    src->connect_until_ns = src->started_ns + src->params.connect_timeout_ms * GW_NS_PER_MS;
    src->offer_next = 0;
    src->paused = src->released = false;
    src->round = 0;
    src->fenced_count = 0;
    src->joined = src->stall_told = src->wishes_done = false;
    src->sync_waits = src->cleaned = false;
    src->late_until_ns = 0;
    src->round_dirty_pages = src->round_bytes_before = 0;
    src->round_normal_before = src->round_duplicate_before = 0;
    memset(&src->converge, 0, sizeof(src->converge));
    gw_source_look_at_devices(src);
    src->stream_bytes_said = src->items_said = src->items_early = src->items_loaded = 0;
    src->acks_missing = src->acks_given = 0;
    src->loaded_heard = src->setup_done = src->devices_cleaned = src->ack_wait_told = false;
    src->turn_next = 0;
    src->turn_ns = src->next_round_ns = src->round_device_bytes = 0;
    memset(&src->saving, 0, sizeof(src->saving));
    memset(&src->pending, 0, sizeof(src->pending));
    src->items_saved = src->digest_done = src->prepare_sent = false;
    src->pause_called_ns = src->final_put_ns = src->committed_ns = 0;
    src->stream_begun_ns = src->joined_ns = 0;
    src->moved = src->moved_ns = 0;
    src->unsaid = 0;
    src->link_up = src->asking_timer_runs = src->abort_heard = false;
    src->attempt = 0;
    src->end_status = GW_STATUS_NONE;
    gw_error_clear(&src->err);
    gw_throttle_init(&src->throttle, src->params.max_bandwidth, src->started_ns);
    pthread_mutex_lock(&src->stats_lock);
    memset(&src->stats, 0, sizeof(src->stats));
    src->stats.status = GW_STATUS_SETUP;
    src->stats.total_bytes = src->stats.remaining_bytes = gw_ram_bytes(src->ram);
    src->stats.page_bytes = GW_PAGE_BYTES;
    gw_wire_label(&src->uri, src->stats.wire_name, sizeof(src->stats.wire_name));
    src->round_count = 0;
    src->result = 0;
    gw_error_clear(&src->result_err);
    pthread_mutex_unlock(&src->stats_lock);
}

/* No thread came of it: as if it had never been started. */
static void forget(struct gw_source *src)
{
    pthread_mutex_lock(&src->stats_lock);
    src->stats.status = GW_STATUS_NONE;
    pthread_mutex_unlock(&src->stats_lock);
    atomic_store_explicit(&src->started, false, memory_order_relaxed);
    atomic_store_explicit(&src->running, false, memory_order_release);
}

int gw_source_start(struct gw_source *src, const char *uri, struct gw_error *err)
{
    int rc = refuse_running(src, err);
    if (rc < 0)
        return rc;
    if (src->gone)
        return gw_fail_code(err, -EALREADY, GW_CODE_INVALID,
                            "source: its guest was handed over and runs elsewhere");
    join_thread(src);
    pthread_mutex_lock(&src->params_lock);
    src->params = src->params_live;
    pthread_mutex_unlock(&src->params_lock);
    rc = gw_uri_parse(uri, &src->uri, err);
    if (rc < 0)
        return rc;
    if (gw_ram_block_count(src->ram) == 0)
        return gw_fail(err, -EINVAL, "source: no block was added");
    if (gw_ram_dirty_source_count(src->ram) < 2) /* our own, of discards, sees no writes */
        return gw_fail(err, -EINVAL, "source: no dirty source was added (gw_source_add_dirty)");
    if (src->params.cpu_throttle > 0 && !src->ops.throttle) {
        gw_fail_code(err, -EINVAL, GW_CODE_UNSUPPORTED,
                     "source: x-cpu-throttle is set, and this guest's vCPUs cannot be slowed down");
        gw_error_hint(err, "leave it at 0, or give the source a throttle callback");
        return -EINVAL;
    }
    if (getrandom(src->session, sizeof(src->session), 0) != (ssize_t)sizeof(src->session))
        return gw_fail(err, -errno, "session id");
    struct gw_wire_config config = {.peer_timeout_ns = src->params.peer_timeout_ms * GW_NS_PER_MS,
                                    .log = &src->log,
                                    .rdma_odp = src->params.rdma_odp};
    memcpy(config.session, src->session, sizeof(config.session));
    rc = gw_domain_open(src->uri.scheme, &config, &src->dom, err);
    if (rc < 0)
        return rc;
    reset(src);
    atomic_store_explicit(&src->started, true, memory_order_relaxed); /* running says it is so */
    atomic_store_explicit(&src->running, true, memory_order_release);
    src->shell = (struct gw_shell){.ops = &gw_source_engine, .engine = src, .inbox = &src->inbox};
    rc = gw_shell_start(&src->shell, "gw/src/main", err);
    if (rc < 0) {
        forget(src);
        gw_domain_close(src->dom);
        src->dom = NULL;
        return rc;
    }
    src->thread_runs = true;
    return 0;
}

/* ---- while it runs --------------------------------------------------------------------------------- */

int gw_source_cancel(struct gw_source *src)
{
    if (!is_running(src))
        return was_started(src) ? -EALREADY : -ENOENT;
    if (atomic_load_explicit(&src->stuck, memory_order_acquire))
        return -EALREADY; /* it has failed; only gw_source_resolve() ends it */
    int expected = GW_DECIDED_NOTHING;
    /* Pairs with the engine's compare-exchange before COMMIT: exactly one of the two wins. */
    atomic_compare_exchange_strong_explicit(&src->decision, &expected, GW_DECIDED_CANCEL,
                                            memory_order_acq_rel, memory_order_acquire);
    if (expected == GW_DECIDED_COMMIT)
        return -EALREADY;
    gw_inbox_wake(&src->inbox);
    return 0;
}

int gw_source_continue(struct gw_source *src)
{
    pthread_mutex_lock(&src->stats_lock);
    bool waits = src->stats.status == GW_STATUS_PRE_SWITCHOVER;
    pthread_mutex_unlock(&src->stats_lock);
    if (!waits)
        return -EINVAL;
    atomic_store_explicit(&src->continue_asked, true, memory_order_release);
    gw_inbox_wake(&src->inbox);
    return 0;
}

int gw_source_set(struct gw_source *src, const char *name, const char *value, struct gw_error *err)
{
    pthread_mutex_lock(&src->params_lock);
    int rc = gw_params_change(&src->params_live, name, value, is_running(src), err);
    pthread_mutex_unlock(&src->params_lock);
    if (rc == 0)
        gw_inbox_wake(&src->inbox);
    return rc;
}

static bool resolve_answered(void *ctx)
{
    struct gw_source *src = ctx;
    return !is_running(src) ||
           atomic_load_explicit(&src->resolve_answer, memory_order_acquire) != 1;
}

static int refuse_settled(struct gw_error *err)
{
    return gw_fail_code(err, -EALREADY, GW_CODE_INVALID, "it has settled meanwhile");
}

int gw_source_resolve(struct gw_source *src, enum gw_source_resolution resolution,
                      struct gw_error *err)
{
    if (gw_loop_is_dispatching(src->loop))
        return gw_fail_code(err, -EDEADLK, GW_CODE_INVALID, "resolving inside a callback");
    bool unknown = atomic_load_explicit(&src->unknown, memory_order_acquire);
    bool stuck = atomic_load_explicit(&src->stuck, memory_order_acquire);
    if (!is_running(src) && was_started(src))
        return refuse_settled(err);
    if (!unknown && !(stuck && resolution == GW_RESOLVE_RESUME))
        return gw_fail(err, -EINVAL, "source: nothing to resolve");
    atomic_store_explicit(&src->resolve_answer, 1, memory_order_relaxed);
    atomic_store_explicit(&src->resolution, 1 + (int)resolution, memory_order_release);
    gw_inbox_wake(&src->inbox);
    gw_loop_until(src->loop, resolve_answered, src, GW_NEVER_NS);
    int rc = atomic_load_explicit(&src->resolve_answer, memory_order_acquire);
    if (rc == 1) /* over: by this word, if the engine took it */
        rc = atomic_load_explicit(&src->resolution, memory_order_acquire) == 0 ? 0 : -EALREADY;
    if (rc == -EALREADY)
        return refuse_settled(err);
    if (rc < 0) {
        pthread_mutex_lock(&src->stats_lock);
        gw_error_clear(err);
        gw_error_copy(err, &src->result_err);
        pthread_mutex_unlock(&src->stats_lock);
    }
    return rc;
}

/* ---- waiting ------------------------------------------------------------------------------------------ */

static bool must_return(void *ctx)
{
    struct gw_source *src = ctx;
    return !is_running(src) || atomic_load_explicit(&src->unknown, memory_order_acquire) ||
           atomic_load_explicit(&src->stuck, memory_order_acquire);
}

int gw_source_wait(struct gw_source *src, int timeout_ms, struct gw_error *err)
{
    if (!was_started(src))
        return gw_fail_code(err, -ENOENT, GW_CODE_INVALID, "source: nothing was started");
    uint64_t deadline =
        timeout_ms < 0 ? GW_NEVER_NS : gw_clock_ns() + (uint64_t)timeout_ms * GW_NS_PER_MS;
    int rc = gw_loop_until(src->loop, must_return, src, deadline);
    if (rc == -EDEADLK)
        return gw_fail_code(err, rc, GW_CODE_INVALID, "waiting inside a callback");
    if (rc < 0)
        return gw_fail_code(err, -EINPROGRESS, GW_CODE_TIMEOUT,
                            "the migration goes on after %d ms of waiting", timeout_ms);
    if (!is_running(src))
        gw_dispatch(src->loop); /* its last events */
    pthread_mutex_lock(&src->stats_lock);
    rc = is_running(src) ? src->result_err.rc : src->result;
    gw_error_clear(err);
    if (rc < 0)
        gw_error_copy(err, &src->result_err);
    pthread_mutex_unlock(&src->stats_lock);
    return rc;
}

void gw_source_stats(const struct gw_source *src, struct gw_stats *stats)
{
    size_t bytes = stats->struct_bytes;
    if (bytes == 0 || bytes > sizeof(*stats))
        bytes = sizeof(*stats);
    pthread_mutex_t *lock = (pthread_mutex_t *)(uintptr_t)&src->stats_lock;
    pthread_mutex_lock(lock);
    memcpy(stats, &src->stats, bytes);
    pthread_mutex_unlock(lock);
    stats->struct_bytes = bytes;
}

unsigned gw_source_rounds(const struct gw_source *src, struct gw_round *rounds, unsigned max)
{
    pthread_mutex_t *lock = (pthread_mutex_t *)(uintptr_t)&src->stats_lock;
    pthread_mutex_lock(lock);
    unsigned count = src->round_count;
    unsigned kept = count < GW_ROUNDS_KEPT ? count : GW_ROUNDS_KEPT;
    size_t stride = max > 0 && rounds[0].struct_bytes ? rounds[0].struct_bytes : sizeof(rounds[0]);
    size_t bytes = stride < sizeof(rounds[0]) ? stride : sizeof(rounds[0]);
    for (unsigned i = 0; i < kept && i < max; i++) {
        char *to = (char *)rounds + i * stride;
        memcpy(to, &src->rounds[i], bytes);
        memcpy(to, &stride, sizeof(stride)); /* struct_bytes is the first member */
    }
    pthread_mutex_unlock(lock);
    return count;
}

int gw_source_block_discarded(struct gw_source *src, unsigned block_id, uint64_t offset,
                              uint64_t bytes)
{
    const struct gw_block *block = gw_ram_block(src->ram, block_id);
    if (!block || bytes == 0 || offset % GW_PAGE_BYTES || bytes % GW_PAGE_BYTES ||
        offset > block->desc.size_bytes || bytes > block->desc.size_bytes - offset)
        return -EINVAL;
    gw_discards_add(&src->discards, block_id, offset / GW_PAGE_BYTES, bytes / GW_PAGE_BYTES);
    return 0;
}

/* ---- the end -------------------------------------------------------------------------------------------- */

static bool is_over(void *ctx)
{
    struct gw_source *src = ctx;
    return !is_running(src);
}

static bool calls_ran(void *ctx)
{
    struct gw_source *src = ctx;
    return atomic_load_explicit(&src->calls_in_loop, memory_order_acquire) == 0;
}

void gw_source_free(struct gw_source *src)
{
    if (!src)
        return;
    if (gw_loop_is_dispatching(src->loop)) {
        /* Its callbacks could not end: better a leak that is told than a hang. */
        gw_log(&src->log, GW_LOG_ERROR, "source", "gw_source_free() inside a callback: not freed");
        return;
    }
    if (is_running(src)) {
        gw_source_cancel(src);
        /* An outcome that is unknown, or a guest that cannot be resumed, ends here, paused. */
        atomic_store_explicit(&src->abandoned, true, memory_order_release);
        gw_inbox_wake(&src->inbox);
        gw_loop_until(src->loop, is_over, src, GW_NEVER_NS);
    }
    join_thread(src);
    gw_loop_until(src->loop, calls_ran, src, GW_NEVER_NS);
    gw_pool_free(src->pool);
    gw_ram_free(src->ram);
    gw_devices_fini(&src->devices);
    gw_discards_fini(&src->discards);
    if (src->inbox.fd > 0)
        gw_inbox_fini(&src->inbox);
    pthread_mutex_destroy(&src->params_lock);
    pthread_mutex_destroy(&src->stats_lock);
    gw_free(src);
}
