// SPDX-License-Identifier: MIT
/* The embedder's side of a target (godwit/target.h): checks, starts and joins the engine's thread,
 * and reaches in only through atomics and the engine's inbox. */
#include "core/target.h"

#include "core/base/alloc.h"
#include "core/hint.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>

int gw_target_new(const struct gw_target_config *config, struct gw_target **result,
                  struct gw_error *err)
{
    if (config->struct_bytes < sizeof(*config) || !config->loop || !config->ops ||
        config->ops->struct_bytes < sizeof(*config->ops) || !config->ops->block_offered ||
        !config->ops->run)
        return gw_fail(err, -EINVAL,
                       "target: struct_bytes, loop, ops, block_offered and run must be set");
    int rc = config->machine ? gw_machine_check(config->machine, err) : 0;
    if (rc < 0) {
        gw_error_prefix(err, "target");
        return rc;
    }
    struct gw_target *tgt = gw_zalloc(1, sizeof(*tgt));
    if (!tgt) {
        gw_fail(err, -ENOMEM, "target");
        gw_hint_target(err);
        return -ENOMEM;
    }
    tgt->loop = config->loop;
    tgt->ops = *config->ops;
    tgt->ctx = config->ctx;
    gw_teller_init(&tgt->teller, tgt->loop, tgt->ops.event, tgt->ctx, &tgt->calls_in_loop);
    if (config->log)
        tgt->log = *config->log;
    tgt->machine_given = config->machine != NULL;
    if (config->machine)
        snprintf(tgt->machine, sizeof(tgt->machine), "%s", config->machine);
    tgt->ram_bytes_max = config->ram_bytes_max;
    gw_params_defaults(&tgt->params);
    if (config->params)
        tgt->params = *config->params;
    pthread_mutex_init(&tgt->stats_lock, NULL);
    tgt->items_last = &tgt->items_first;
    tgt->err.struct_bytes = tgt->result_err.struct_bytes = sizeof(tgt->err);
    rc = gw_inbox_init(&tgt->inbox);
    if (rc == 0 && getrandom(&tgt->incarnation, sizeof(tgt->incarnation), 0) !=
                       (ssize_t)sizeof(tgt->incarnation))
        rc = -errno;
    if (rc == 0)
        rc = gw_devices_set_ram(&tgt->devices, NULL, err);
    if (rc < 0)
        gw_fail(err, rc, "target");
    else
        rc = gw_pool_new(2, "gw/tgt/pool", &tgt->pool, err);
    if (rc < 0) {
        gw_hint_target(err);
        gw_target_free(tgt);
        return rc;
    }
    *result = tgt;
    return 0;
}

static bool is_running(const struct gw_target *tgt)
{
    return atomic_load_explicit(&tgt->running, memory_order_acquire);
}

static bool was_started(const struct gw_target *tgt)
{
    return atomic_load_explicit(&tgt->started, memory_order_acquire);
}

int gw_target_add_device(struct gw_target *tgt, const struct gw_device_desc *desc,
                         struct gw_error *err)
{
    /* While running only from inside block_offered or blocks_ready: the engine waits for them. */
    if (is_running(tgt) && !tgt->building)
        return gw_fail(err, -EBUSY, "device '%s': the target is listening already",
                       desc->name ? desc->name : "");
    return gw_devices_add(&tgt->devices, desc, err);
}

/* ---- listen -------------------------------------------------------------------------------------- */

static void join_thread(struct gw_target *tgt)
{
    if (tgt->thread_runs)
        gw_shell_join(&tgt->shell);
    tgt->thread_runs = false;
}

/* A source that lost the answer asks for it, however late. */
static void remember(struct gw_target *tgt)
{
    struct gw_past past = {
        .token = tgt->token,
        .outcome = (enum gw_outcome)atomic_load_explicit(&tgt->outcome, memory_order_acquire),
        .code = tgt->err.code,
        .acquire_ns = tgt->acquire_ns,
        .resume_ns = tgt->resume_ns};
    if (!tgt->prepare_seen || past.outcome == GW_OUTCOME_NONE)
        return; /* no COMMIT was ever said: nobody asks */
    memcpy(past.session, tgt->session, sizeof(past.session));
    gw_outcomes_add(&tgt->outcomes, &past);
}

static void reset(struct gw_target *tgt)
{
    remember(tgt);
    atomic_store_explicit(&tgt->decision, GW_TARGET_OPEN, memory_order_relaxed);
    atomic_store_explicit(&tgt->abandoned, false, memory_order_relaxed);
    atomic_store_explicit(&tgt->outcome, GW_OUTCOME_NONE, memory_order_relaxed);
    atomic_store_explicit(&tgt->claim, GW_CLAIM_NONE, memory_order_relaxed);
    atomic_store_explicit(&tgt->resolution, 0, memory_order_relaxed);
    atomic_store_explicit(&tgt->resolve_answer, 0, memory_order_relaxed);
    tgt->step = GW_TGT_LISTEN;
    tgt->hs = GW_HT_LOADING;
    tgt->in_session = false;
    memset(&tgt->reply, 0, sizeof(tgt->reply));
    tgt->page_open_count = tgt->offer_count = tgt->offer_room = 0;
    tgt->offered_bytes = 0;
    tgt->offers_complete = false;
    tgt->fence = tgt->fence_count = tgt->revoked_count = 0;
    tgt->fence_final = tgt->final_joined = false;
    tgt->items_taken = 0;
    tgt->acks_missing = tgt->acks_given = 0;
    tgt->devices_complete = tgt->devices_cleaned = false;
    tgt->ram_ended = tgt->eof_seen = tgt->prepare_seen = tgt->source_has_digest = false;
    memset(&tgt->token, 0, sizeof(tgt->token));
    tgt->token.incarnation = tgt->incarnation; /* all that is known before PREPARE */
    tgt->attempt = 0;
    tgt->revoke_ns = tgt->digest_ns = tgt->load_ns = tgt->acquire_ns = tgt->resume_ns = 0;
    tgt->end_status = GW_STATUS_FAILED;
    gw_error_clear(&tgt->err);
    pthread_mutex_lock(&tgt->stats_lock);
    memset(&tgt->stats, 0, sizeof(tgt->stats));
    tgt->stats.page_bytes = GW_PAGE_BYTES;
    gw_wire_label(&tgt->uri, tgt->stats.wire_name, sizeof(tgt->stats.wire_name));
    tgt->result = 0;
    tgt->started_ns = gw_clock_ns();
    gw_error_clear(&tgt->result_err);
    pthread_mutex_unlock(&tgt->stats_lock);
}

static int open_guest(struct gw_target *tgt, struct gw_error *err)
{
    gw_ram_free(tgt->ram); /* of the guest before */
    tgt->ram = gw_ram_new();
    tgt->order = gw_stream_order_new();
    if (!tgt->ram || !tgt->order || gw_devices_set_ram(&tgt->devices, tgt->ram, err) < 0)
        return gw_fail(err, -ENOMEM, "target");
    struct gw_wire_config config = {.peer_timeout_ns = tgt->params.peer_timeout_ms * GW_NS_PER_MS,
                                    .log = &tgt->log,
                                    .rdma_odp = tgt->params.rdma_odp,
                                    .rdma_device = gw_params_device(tgt->params.rdma_device),
                                    .rdma_gid = tgt->params.rdma_gid_index == GW_RDMA_GID_ANY
                                                    ? 0
                                                    : 1 + (unsigned)tgt->params.rdma_gid_index};
    int rc = gw_domain_open(tgt->uri.scheme, &config, &tgt->dom, err);
    if (rc == 0)
        rc = gw_listen(&tgt->uri, &config, &tgt->listener, err);
    return rc;
}

static void close_guest(struct gw_target *tgt)
{
    gw_listener_close(tgt->listener);
    tgt->listener = NULL;
    gw_domain_close(tgt->dom);
    tgt->dom = NULL;
    gw_stream_order_free(tgt->order);
    tgt->order = NULL;
}

int gw_target_listen(struct gw_target *tgt, const char *uri, struct gw_error *err)
{
    if (is_running(tgt))
        return gw_fail(err, -EBUSY, "target: it listens already");
    join_thread(tgt);
    int rc = gw_uri_parse(uri, &tgt->uri, err);
    if (rc < 0)
        return rc;
    rc = open_guest(tgt, err);
    if (rc < 0) {
        gw_hint_target(err);
        close_guest(tgt);
        return rc;
    }
    snprintf(tgt->uri_text, sizeof(tgt->uri_text), "%s", gw_listener_uri(tgt->listener));
    if (gw_uri_parse(tgt->uri_text, &tgt->bound, NULL) < 0)
        tgt->bound = tgt->uri;
    reset(tgt);
    atomic_store_explicit(&tgt->started, true, memory_order_relaxed); /* running says it is so */
    atomic_store_explicit(&tgt->running, true, memory_order_release);
    tgt->shell = (struct gw_shell){.ops = &gw_target_engine, .engine = tgt, .inbox = &tgt->inbox};
    rc = gw_shell_start(&tgt->shell, "gw/tgt/main", err);
    if (rc < 0) { /* no thread came of it: as if it had never listened */
        atomic_store_explicit(&tgt->started, false, memory_order_relaxed);
        atomic_store_explicit(&tgt->running, false, memory_order_release);
        close_guest(tgt);
        return rc;
    }
    tgt->thread_runs = true;
    return 0;
}

const char *gw_target_uri(const struct gw_target *tgt)
{
    return tgt->uri_text[0] ? tgt->uri_text : NULL;
}

/* ---- while it runs ----------------------------------------------------------------------------------- */

enum gw_target_outcome gw_target_outcome(const struct gw_target *tgt)
{
    static const enum gw_target_outcome public_of[] = {
        [GW_OUTCOME_NONE] = GW_TARGET_NONE,
        [GW_OUTCOME_RUNNING] = GW_TARGET_RUNNING,
        [GW_OUTCOME_DECLINED] = GW_TARGET_DECLINED,
        [GW_OUTCOME_VOID] = GW_TARGET_VOID,
    };
    return public_of[atomic_load_explicit(&tgt->outcome, memory_order_acquire)];
}

int gw_target_cancel(struct gw_target *tgt)
{
    if (!is_running(tgt))
        return was_started(tgt) ? -EALREADY : -ENOENT;
    if (gw_target_outcome(tgt) != GW_TARGET_NONE)
        return -EALREADY;
    int expected = GW_TARGET_OPEN;
    /* Pairs with the engine's compare-exchange on reading COMMIT: exactly one of the two wins. */
    atomic_compare_exchange_strong_explicit(&tgt->decision, &expected, GW_TARGET_CANCELLED,
                                            memory_order_acq_rel, memory_order_acquire);
    if (expected == GW_TARGET_COMMITTED)
        return -EALREADY;
    gw_inbox_wake(&tgt->inbox);
    return 0;
}

static bool claim_answered(void *ctx)
{
    struct gw_target *tgt = ctx;
    return !is_running(tgt) ||
           atomic_load_explicit(&tgt->claim, memory_order_acquire) != GW_CLAIM_ASKED;
}

int gw_target_claim(struct gw_target *tgt)
{
    if (gw_loop_is_dispatching(tgt->loop))
        return -EDEADLK;
    if (!is_running(tgt))
        return gw_target_outcome(tgt) != GW_TARGET_NONE ? -EALREADY : -EINVAL;
    atomic_store_explicit(&tgt->claim, GW_CLAIM_ASKED, memory_order_release);
    gw_inbox_wake(&tgt->inbox);
    gw_loop_until(tgt->loop, claim_answered, tgt, GW_NEVER_NS);
    if (atomic_load_explicit(&tgt->claim, memory_order_acquire) == GW_CLAIM_DONE)
        return 0;
    return gw_target_outcome(tgt) != GW_TARGET_NONE ? -EALREADY : -EINVAL;
}

static bool resolve_answered(void *ctx)
{
    struct gw_target *tgt = ctx;
    return !is_running(tgt) ||
           atomic_load_explicit(&tgt->resolve_answer, memory_order_acquire) != 1;
}

int gw_target_resolve(struct gw_target *tgt, enum gw_target_resolution resolution,
                      struct gw_error *err)
{
    if (gw_loop_is_dispatching(tgt->loop))
        return gw_fail_code(err, -EDEADLK, GW_CODE_INVALID, "resolving inside a callback");
    if (atomic_load_explicit(&tgt->claim, memory_order_acquire) != GW_CLAIM_DONE)
        return gw_fail(err, -EINVAL, "target: nothing was claimed");
    if (!is_running(tgt) ||
        gw_target_outcome(tgt) != GW_TARGET_NONE) /* cancelled since the claim */
        return gw_fail_code(err, -EALREADY, GW_CODE_INVALID, "the outcome is set");
    atomic_store_explicit(&tgt->resolve_answer, 1, memory_order_relaxed);
    atomic_store_explicit(&tgt->resolution, 1 + (int)resolution, memory_order_release);
    gw_inbox_wake(&tgt->inbox);
    gw_loop_until(tgt->loop, resolve_answered, tgt, GW_NEVER_NS);
    int rc = atomic_load_explicit(&tgt->resolve_answer, memory_order_acquire);
    if (rc == 1 || rc == -EALREADY) /* over, or the engine says so: cancelled meanwhile */
        return gw_fail_code(err, -EALREADY, GW_CODE_INVALID, "the outcome is set");
    if (rc < 0) {
        pthread_mutex_lock(&tgt->stats_lock);
        gw_error_clear(err);
        gw_error_copy(err, &tgt->result_err);
        pthread_mutex_unlock(&tgt->stats_lock);
        gw_error_hint(err, "the guest is still held: resolve again");
    }
    return rc;
}

/* ---- waiting ------------------------------------------------------------------------------------------- */

static bool is_over(void *ctx)
{
    struct gw_target *tgt = ctx;
    return !is_running(tgt);
}

int gw_target_wait(struct gw_target *tgt, int timeout_ms, struct gw_error *err)
{
    if (!was_started(tgt))
        return gw_fail_code(err, -ENOENT, GW_CODE_INVALID, "target: it never listened");
    uint64_t deadline =
        timeout_ms < 0 ? GW_NEVER_NS : gw_clock_ns() + (uint64_t)timeout_ms * GW_NS_PER_MS;
    int waited = gw_loop_until(tgt->loop, is_over, tgt, deadline);
    if (waited == -EDEADLK)
        return gw_fail_code(err, waited, GW_CODE_INVALID, "waiting inside a callback");
    if (waited < 0)
        return gw_fail_code(err, -EINPROGRESS, GW_CODE_TIMEOUT,
                            "the target goes on after %d ms of waiting", timeout_ms);
    gw_dispatch(tgt->loop); /* its last events */
    pthread_mutex_lock(&tgt->stats_lock);
    int rc = tgt->result;
    gw_error_clear(err);
    if (rc < 0)
        gw_error_copy(err, &tgt->result_err);
    pthread_mutex_unlock(&tgt->stats_lock);
    return rc;
}

void gw_target_stats(const struct gw_target *tgt, struct gw_stats *stats)
{
    size_t bytes = stats->struct_bytes;
    if (bytes == 0 || bytes > sizeof(*stats))
        bytes = sizeof(*stats);
    pthread_mutex_t *lock = (pthread_mutex_t *)(uintptr_t)&tgt->stats_lock;
    pthread_mutex_lock(lock);
    memcpy(stats, &tgt->stats, bytes);
    pthread_mutex_unlock(lock);
    stats->struct_bytes = bytes;
}

/* ---- the end --------------------------------------------------------------------------------------------- */

static bool calls_ran(void *ctx)
{
    struct gw_target *tgt = ctx;
    return atomic_load_explicit(&tgt->calls_in_loop, memory_order_acquire) == 0;
}

void gw_target_free(struct gw_target *tgt)
{
    if (!tgt)
        return;
    if (gw_loop_is_dispatching(tgt->loop)) {
        /* Its callbacks could not end: better a leak that is told than a hang. */
        gw_log(&tgt->log, GW_LOG_ERROR, "target", "gw_target_free() inside a callback: not freed");
        return;
    }
    if (is_running(tgt)) {
        atomic_store_explicit(&tgt->abandoned, true, memory_order_release);
        gw_inbox_wake(&tgt->inbox);
        gw_loop_until(tgt->loop, is_over, tgt, GW_NEVER_NS);
    }
    join_thread(tgt);
    gw_loop_until(tgt->loop, calls_ran, tgt, GW_NEVER_NS);
    gw_pool_free(tgt->pool);
    gw_ram_free(tgt->ram);
    gw_devices_fini(&tgt->devices);
    if (tgt->inbox.fd > 0)
        gw_inbox_fini(&tgt->inbox);
    pthread_mutex_destroy(&tgt->stats_lock);
    gw_free(tgt);
}
