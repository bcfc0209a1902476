// SPDX-License-Identifier: MIT
/* The target's engine: one step, what messages mean, how it ends. Its thread is the shell at the
 * end. A failure while undecided voids the guest here; the source then goes on with it. */
#include "core/target.h"

#include "core/hint.h"

#include "core/base/alloc.h"
#include "core/base/bytes.h"

#include <stdarg.h>
#include <string.h>

#define LINGER_NS GW_NS_PER_S
/* Messages taken in one step, and the time spent on them: a peer that says more, or what is long to look
 * through, must not keep us from beating and from cancel. */
#define MESSAGES_MAX 64u
#define MESSAGES_NS (5 * GW_NS_PER_MS)

/* ---- telling ----------------------------------------------------------------------------------- */

void gw_target_tell(struct gw_target *tgt, enum gw_event_type type, const struct gw_error *err,
                    const char *format, ...)
{
    pthread_mutex_lock(&tgt->stats_lock);
    enum gw_status status = tgt->stats.status;
    pthread_mutex_unlock(&tgt->stats_lock);
    va_list args;
    va_start(args, format);
    gw_teller_tell(&tgt->teller, type, status, err, format, args);
    va_end(args);
}

void gw_target_status(struct gw_target *tgt, enum gw_status status)
{
    pthread_mutex_lock(&tgt->stats_lock);
    bool changed = tgt->stats.status != status;
    tgt->stats.status = status;
    pthread_mutex_unlock(&tgt->stats_lock);
    bool failing = status == GW_STATUS_FAILING || status == GW_STATUS_CANCELLING;
    if (changed)
        gw_target_tell(tgt, GW_EVENT_STATUS, failing ? &tgt->err : NULL, "%s",
                       gw_status_name(status));
}

/* ---- jobs and callbacks ------------------------------------------------------------------------------ */

void gw_target_post_to(struct gw_target *tgt, struct gw_pool *pool, struct gw_target_job *job,
                       void (*run)(struct gw_job *), void (*done)(struct gw_mail *, void *))
{
    gw_assert(!job->busy);
    job->busy = true;
    job->tgt = tgt;
    job->err.struct_bytes = sizeof(job->err);
    job->job.run = run;
    job->job.reply = &tgt->inbox;
    job->job.done.deliver = done;
    gw_pool_post(pool, &job->job);
}

void gw_target_post(struct gw_target *tgt, struct gw_target_job *job, void (*run)(struct gw_job *),
                    void (*done)(struct gw_mail *, void *))
{
    gw_target_post_to(tgt, tgt->pool, job, run, done);
}

static void call_done(struct gw_mail *mail, void *engine)
{
    struct gw_target *tgt = engine;
    (void)mail;
    tgt->call.busy = false;
    tgt->call.finished(tgt, tgt->call.rc);
}

static void call_run(struct gw_call *call)
{
    struct gw_target_call *asked = GW_CONTAINER_OF(call, struct gw_target_call, call);
    struct gw_target *tgt = asked->tgt;
    gw_error_clear(&asked->err);
    uint64_t begun = gw_clock_ns();
    asked->rc = asked->run(tgt, &asked->err);
    asked->took_ns = gw_clock_ns() - begun;
    if (asked->rc < 0 && !gw_error_is_set(&asked->err))
        gw_fail_code(&asked->err, asked->rc, GW_CODE_GUEST, "a callback of the guest failed (%s)",
                     strerror(-asked->rc));
    gw_mail_post(&tgt->inbox, &asked->done);
    atomic_fetch_sub_explicit(&tgt->calls_in_loop, 1, memory_order_release);
}

void gw_target_ask(struct gw_target *tgt, int (*run)(struct gw_target *, struct gw_error *),
                   void (*finished)(struct gw_target *, int))
{
    struct gw_target_call *asked = &tgt->call;
    gw_assert(!asked->busy);
    asked->busy = true;
    asked->tgt = tgt;
    asked->err.struct_bytes = sizeof(asked->err);
    asked->call.run = call_run;
    asked->done.deliver = call_done;
    asked->run = run;
    asked->finished = finished;
    atomic_fetch_add_explicit(&tgt->calls_in_loop, 1, memory_order_relaxed);
    gw_loop_post(tgt->loop, &asked->call);
}

int gw_target_say(struct gw_target *tgt, const struct gw_message *msg)
{
    if (!tgt->channel)
        return -ENOTCONN;
    int rc = gw_channel_send(tgt->channel, msg);
    if (rc < 0 && rc != -EAGAIN)
        tgt->unsaid = rc;
    return rc;
}

/* ---- failing -------------------------------------------------------------------------------------------- */

void gw_target_fail(struct gw_target *tgt, const struct gw_error *err)
{
    if (tgt->step >= GW_TGT_LINGER ||
        atomic_load_explicit(&tgt->outcome, memory_order_acquire) != GW_OUTCOME_NONE)
        return;
    if (tgt->hs == GW_HT_ACQUIRING || tgt->hs == GW_HT_CLAIMED || tgt->hs == GW_HT_CLAIM_TAKES)
        return; /* a COMMIT that was read counts; an operator decides */
    gw_error_clear(&tgt->err);
    gw_error_copy(&tgt->err, err);
    gw_error_phase(&tgt->err, gw_status_name(tgt->stats.status));
    gw_error_place(&tgt->err, "%s", tgt->uri_text);
    gw_log_debug(&tgt->log, "target", "%s", tgt->err.message);
    if (!tgt->in_session) {
        gw_error_hint(&tgt->err, "no source had come; listen again when one is to");
        tgt->end_status = err->rc == -ECANCELED ? GW_STATUS_CANCELLED : GW_STATUS_FAILED;
        gw_target_finish(tgt);
        return;
    }
    gw_target_event(tgt, GW_HTE_FAILED);
}

void gw_target_close_link(struct gw_target *tgt)
{
    gw_channel_free(tgt->channel);
    tgt->channel = NULL;
    gw_ep_close(tgt->control);
    tgt->control = NULL;
    tgt->unsaid = 0;
}

static void link_lost(struct gw_target *tgt, const struct gw_error *err)
{
    gw_target_close_link(tgt);
    if (tgt->step == GW_TGT_LINGER) {
        tgt->linger_until_ns = 0;
        return;
    }
    if (atomic_load_explicit(&tgt->outcome, memory_order_acquire) == GW_OUTCOME_NONE) {
        gw_error_clear(&tgt->err);
        gw_error_copy(&tgt->err, err);
        gw_error_phase(&tgt->err, gw_status_name(tgt->stats.status));
        gw_error_place(&tgt->err, "%s", tgt->uri_text);
    }
    gw_log_debug(&tgt->log, "target", "lost the source: %s", err->message);
    gw_target_event(tgt, GW_HTE_LINK_LOST);
}

/* ---- messages ---------------------------------------------------------------------------------------------- */

static void on_failed(struct gw_target *tgt, const struct gw_message *msg)
{
    struct gw_error err = GW_ERROR_INIT;
    const struct gw_error *said = &msg->u.failed.error;
    gw_fail_code(&err, -EREMOTEIO, said->code ? said->code : GW_CODE_REFUSED, "the source gave up");
    gw_error_peer(&err, said->message, strlen(said->message));
    gw_target_fail(tgt, &err);
}

static void on_message(struct gw_target *tgt, const struct gw_message *msg)
{
    struct gw_error err = GW_ERROR_INIT;
    switch (msg->type) {
    case GW_MSG_BLOCKS:
        gw_target_on_blocks(tgt, msg);
        break;
    case GW_MSG_WISHES:
        gw_target_on_wishes(tgt, msg);
        break;
    case GW_MSG_STREAM:
        gw_target_on_stream(tgt, msg);
        break;
    case GW_MSG_PREPARE:
        gw_target_on_prepare(tgt, msg);
        break;
    case GW_MSG_COMMIT:
    case GW_MSG_ACK:
    case GW_MSG_ABORT:
        gw_target_on_handover(tgt, msg);
        break;
    case GW_MSG_FAILED:
        on_failed(tgt, msg);
        break;
    case GW_MSG_RELEASE:
        gw_target_on_release(tgt, msg);
        break;
    default:
        gw_fail(&err, -EPROTO, "%s in the middle of a session", gw_message_name(msg->type));
        gw_target_fail(tgt, &err);
        break;
    }
}

/* After the outcome only the handover's own messages mean anything. */
static bool is_welcome(const struct gw_target *tgt, enum gw_message_type type)
{
    if (tgt->step >= GW_TGT_LINGER)
        return false;
    return atomic_load_explicit(&tgt->outcome, memory_order_acquire) == GW_OUTCOME_NONE ||
           type == GW_MSG_COMMIT || type == GW_MSG_ACK || type == GW_MSG_ABORT;
}

static uint64_t step_link(struct gw_target *tgt, uint64_t now_ns)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_message msg;
    int rc = 0;
    unsigned count = 0;
    bool enough = false;
    while (tgt->channel && !enough && (rc = gw_channel_recv(tgt->channel, &msg, &err)) > 0) {
        enough = ++count == MESSAGES_MAX || gw_clock_ns() - now_ns > MESSAGES_NS;
        if (is_welcome(tgt, msg.type))
            on_message(tgt, &msg);
    }
    if (tgt->channel && rc >= 0)
        rc = gw_channel_step(tgt->channel, now_ns, &err);
    if (!tgt->channel)
        return GW_NEVER_NS;
    if (rc >= 0 && tgt->unsaid)
        rc = gw_fail(&err, tgt->unsaid, "a message cannot be sent");
    if (rc < 0) {
        link_lost(tgt, &err);
        return now_ns;
    }
    return enough ? now_ns : gw_channel_wake_ns(tgt->channel);
}

/* ---- statistics ---------------------------------------------------------------------------------------------- */

static void totals(struct gw_target *tgt, uint64_t now_ns)
{
    uint64_t rx_bytes = 0;
    uint64_t copied = 0;
    uint64_t calls = 0;
    uint64_t normal = 0;
    uint64_t zero = 0;
    uint64_t registered = tgt->stats.registered_bytes_peak; /* ours alone to write */
    if (tgt->step >= GW_TGT_ACTIVE && tgt->step < GW_TGT_LINGER)
        registered = gw_target_registered_peak(tgt);
    for (unsigned i = 0; i < tgt->reply.endpoints; i++) {
        struct gw_page_in_stats stats;
        if (!tgt->pages[i])
            continue;
        gw_page_in_stats(tgt->pages[i], &stats);
        rx_bytes += stats.rx_bytes;
        copied += stats.copied_bytes;
        calls += stats.system_calls;
        normal += stats.placed_pages;
        zero += stats.zero_pages;
    }
    pthread_mutex_lock(&tgt->stats_lock);
    struct gw_stats *stats = &tgt->stats;
    stats->transferred_bytes = rx_bytes;
    stats->copied_bytes = copied;
    stats->wire_system_calls = calls;
    stats->normal_pages = normal;
    stats->duplicate_pages = zero;
    stats->registered_bytes_peak = registered;
    stats->downtime.revoke_ns = tgt->revoke_ns;
    stats->downtime.digest_ns = tgt->digest_ns;
    stats->downtime.device_load_ns = tgt->load_ns;
    stats->downtime.acquire_ns = tgt->acquire_ns;
    stats->downtime.resume_ns = tgt->resume_ns;
    if (stats->status != GW_STATUS_COMPLETED && stats->status != GW_STATUS_NONE)
        stats->total_ns = now_ns - tgt->started_ns;
    pthread_mutex_unlock(&tgt->stats_lock);
}

/* ---- the end --------------------------------------------------------------------------------------------------- */

void gw_target_finish(struct gw_target *tgt)
{
    if (tgt->step >= GW_TGT_LINGER)
        return;
    tgt->step = GW_TGT_LINGER;
    /* The last word must leave; a source that heard it closes or acknowledges. */
    tgt->linger_until_ns = gw_clock_ns() + (tgt->hs == GW_HT_SETTLED ? 0 : LINGER_NS);
}

static void stop_pages(struct gw_target *tgt)
{
    for (unsigned i = 0; i < 255; i++) {
        gw_page_in_stop(tgt->pages[i]);
        tgt->pages[i] = NULL;
        tgt->page_open[i] = false;
        tgt->page_fence[i] = 0;
    }
}

/* The guest runs already: what it costs to unpin it is nobody's downtime. */
static void close_workers_run(struct gw_job *job)
{
    struct gw_target *tgt = GW_CONTAINER_OF(job, struct gw_target, work.job);
    gw_target_keys_close(tgt);
    gw_target_prefault_close(tgt);
}

static void close_workers_done(struct gw_mail *mail, void *engine)
{
    struct gw_target *tgt = engine;
    (void)mail;
    tgt->work.busy = false;
}

static void release_guest(struct gw_target *tgt)
{
    stop_pages(tgt);
    gw_target_packets_close(tgt);
    for (unsigned i = 0; i < gw_ram_block_count(tgt->ram); i++) {
        struct gw_block *block = gw_ram_block(tgt->ram, i);
        gw_mr_dereg(block->mr);
        block->mr = NULL;
    }
    gw_target_drop_items(tgt);
    gw_free(tgt->offers);
    gw_free(tgt->loadings);
    tgt->loadings = NULL;
    tgt->offers = NULL;
}

static bool jobs_are_quiet(const struct gw_target *tgt)
{
    return !tgt->work.busy && !tgt->call.busy && gw_target_keys_are_quiet(tgt) &&
           gw_target_prefault_is_quiet(tgt) && gw_target_packets_are_quiet(tgt);
}

static void over(struct gw_target *tgt)
{
    bool completed = tgt->end_status == GW_STATUS_COMPLETED;
    tgt->step = GW_TGT_OVER;
    if (!completed && tgt->err.rc == 0)
        gw_fail_code(&tgt->err, -EIO, GW_CODE_INTERNAL, "ended without a reason");
    if (!completed)
        gw_hint_target(&tgt->err);
    pthread_mutex_lock(&tgt->stats_lock);
    gw_error_clear(&tgt->result_err);
    if (!completed)
        gw_error_copy(&tgt->result_err, &tgt->err);
    tgt->result = completed ? 0 : tgt->err.rc;
    pthread_mutex_unlock(&tgt->stats_lock);
    gw_target_status(tgt, tgt->end_status);
    /* Release: whoever sees running false sees the result. Before ENDED is told: who hears that may
     * wait, listen or free at once. */
    atomic_store_explicit(&tgt->running, false, memory_order_release);
    gw_target_tell(tgt, GW_EVENT_ENDED, completed ? NULL : &tgt->err, "%s",
                   gw_status_name(tgt->end_status));
    gw_loop_wake(tgt->loop);
}

static uint64_t end_step(struct gw_target *tgt, uint64_t now_ns)
{
    if (tgt->step == GW_TGT_LINGER) {
        if (tgt->channel && now_ns < tgt->linger_until_ns)
            return tgt->linger_until_ns;
        totals(tgt, now_ns);
        gw_target_close_link(tgt);
        gw_target_drop_candidates(tgt);
        gw_listener_close(tgt->listener);
        tgt->listener = NULL;
        tgt->step = GW_TGT_CLEANUP;
    }
    if (!jobs_are_quiet(tgt))
        return GW_NEVER_NS; /* their mail wakes us */
    if (tgt->lending || tgt->prefaulting) {
        stop_pages(tgt);
        gw_target_post(tgt, &tgt->work, close_workers_run, close_workers_done);
        return GW_NEVER_NS;
    }
    if (!gw_target_clean_devices(tgt))
        return GW_NEVER_NS;
    release_guest(tgt);
    gw_target_wires_close(tgt);
    gw_domain_close(tgt->dom);
    tgt->dom = NULL;
    over(tgt);
    return now_ns;
}

/* ---- the step ----------------------------------------------------------------------------------------------------- */

void gw_target_take_cancel(struct gw_target *tgt)
{
    struct gw_error err = GW_ERROR_INIT;
    if (atomic_load_explicit(&tgt->decision, memory_order_acquire) != GW_TARGET_CANCELLED)
        return;
    gw_fail(&err, -ECANCELED, "cancelled at the target");
    if (tgt->hs == GW_HT_CLAIMED) {
        gw_error_clear(&tgt->err);
        gw_error_copy(&tgt->err, &err);
        gw_target_event(tgt, GW_HTE_RESOLVE_DISCARD);
    }
    gw_target_fail(tgt, &err);
}

/* gw_target_free(): what is undecided is void; what is decided is not listened for any longer. */
static void take_abandon(struct gw_target *tgt)
{
    if (!atomic_load_explicit(&tgt->abandoned, memory_order_acquire) || tgt->call.busy)
        return;
    struct gw_error err = GW_ERROR_INIT;
    gw_fail(&err, -ECANCELED, "the target was freed");
    if (tgt->hs == GW_HT_CLAIMED)
        gw_target_event(tgt, GW_HTE_RESOLVE_DISCARD);
    gw_target_fail(tgt, &err);
    gw_target_finish(tgt);
}

uint64_t gw_target_step_now(struct gw_target *tgt, uint64_t now_ns)
{
    gw_mail_drain(&tgt->inbox, tgt);
    gw_target_take_cancel(tgt);
    take_abandon(tgt);
    uint64_t wake_ns = step_link(tgt, now_ns);
    if (tgt->step < GW_TGT_LINGER) {
        gw_target_accept(tgt, now_ns);
        gw_target_wires_accept(tgt);
        wake_ns = gw_min_u64(wake_ns, gw_target_candidates(tgt, now_ns));
        wake_ns = gw_min_u64(wake_ns, gw_target_setup_step(tgt, now_ns));
        wake_ns = gw_min_u64(wake_ns, gw_target_settle_step(tgt, now_ns));
        wake_ns = gw_min_u64(wake_ns, gw_target_keys_step(tgt, now_ns));
        gw_target_prefault_step(tgt);
    }
    if (tgt->step == GW_TGT_LINGER || tgt->step == GW_TGT_CLEANUP)
        return gw_min_u64(wake_ns, end_step(tgt, now_ns));
    if (tgt->step >= GW_TGT_ACTIVE && tgt->step <= GW_TGT_LOAD) {
        totals(tgt, now_ns);
        wake_ns = gw_min_u64(wake_ns, now_ns + 50 * GW_NS_PER_MS);
    }
    return wake_ns;
}

/* While an operator decides, whoever connects waits in the backlog. */
static bool is_listening(const struct gw_target *tgt)
{
    return tgt->listener && tgt->step < GW_TGT_LINGER && tgt->hs != GW_HT_CLAIMED &&
           tgt->hs != GW_HT_CLAIM_TAKES;
}

static uint64_t step(void *engine, uint64_t now_ns)
{
    return gw_target_step_now(engine, now_ns);
}

static bool is_over(const void *engine)
{
    const struct gw_target *tgt = engine;
    return tgt->step == GW_TGT_OVER;
}

static int arm(void *engine, struct pollfd *fds, unsigned max, uint64_t *wake_ns)
{
    struct gw_target *tgt = engine;
    struct gw_armed *armed = &tgt->armed;
    gw_assert(max >= 3 + 16 + 3 * GW_CANDIDATES_MAX + GW_WIRES_MAX * GW_WIRE_FDS_MAX);
    int count = tgt->control ? gw_ep_arm(tgt->control, fds, 3, wake_ns) : 0;
    armed->control = (unsigned)count;
    uint64_t room_ns = gw_target_room_ns(tgt);
    armed->listening = is_listening(tgt) && room_ns <= gw_clock_ns();
    if (is_listening(tgt) && !armed->listening)
        *wake_ns = gw_min_u64(*wake_ns, room_ns);
    if (armed->listening)
        count += gw_listener_arm(tgt->listener, &fds[count], 16, wake_ns);
    armed->listener = (unsigned)count;
    /* While the last word goes out nobody reads what candidates say. */
    armed->candidate_count = tgt->step < GW_TGT_LINGER ? tgt->candidate_count : 0;
    for (unsigned i = 0; i < armed->candidate_count; i++) {
        count += gw_ep_arm(tgt->candidates[i].ep, &fds[count], 3, wake_ns);
        armed->candidates[i] = (unsigned)count;
    }
    armed->before_wires = (unsigned)count;
    return count + gw_target_wires_arm(tgt, &fds[count], wake_ns);
}

static void awake(void *engine, const struct pollfd *fds, unsigned count)
{
    struct gw_target *tgt = engine;
    const struct gw_armed *armed = &tgt->armed;
    (void)count;
    if (tgt->control)
        gw_ep_awake(tgt->control, fds, armed->control);
    unsigned at = armed->control;
    if (armed->listening)
        gw_listener_awake(tgt->listener, &fds[at], armed->listener - at);
    at = armed->listener;
    for (unsigned i = 0; i < armed->candidate_count; i++) {
        gw_ep_awake(tgt->candidates[i].ep, &fds[at], armed->candidates[i] - at);
        at = armed->candidates[i];
    }
    gw_target_wires_awake(tgt, &fds[armed->before_wires]);
}

static void end(void *engine)
{
    (void)engine; /* its last step has closed everything */
}

const struct gw_engine_ops gw_target_engine = {
    .step = step, .is_over = is_over, .arm = arm, .awake = awake, .end = end};
