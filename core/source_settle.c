// SPDX-License-Identifier: MIT
/* From PREPARED to the outcome, and the way back. The table in handover.def decides; this file
 * carries its actions out: calls release, says COMMIT, connects again and asks, takes back, resumes.
 * After COMMITTED nothing but the target's word or an operator's resolution moves it. */
#include "core/source_packets.h"

#include "core/base/bytes.h"

#include <string.h>

/* ---- callbacks --------------------------------------------------------------------------------- */

static int release_run(struct gw_source *src, struct gw_error *err)
{
    return src->ops.release ? src->ops.release(src->ctx, err) : 0;
}

/* The way back leads here whether or not release() was called: only what it may have given up is
 * taken back. */
static int retake_run(struct gw_source *src, struct gw_error *err)
{
    return src->released && src->ops.retake ? src->ops.retake(src->ctx, err) : 0;
}

static int resume_run(struct gw_source *src, struct gw_error *err)
{
    return src->ops.resume(src->ctx, err);
}

static void release_finished(struct gw_source *src, int rc)
{
    pthread_mutex_lock(&src->stats_lock);
    src->stats.downtime.release_ns = src->call.took_ns;
    pthread_mutex_unlock(&src->stats_lock);
    if (rc < 0) {
        gw_source_fail(src, &src->call.err);
        gw_source_event(src, GW_HSE_RELEASE_FAILED);
        return;
    }
    int expected = GW_DECIDED_NOTHING;
    /* The one compare-exchange against gw_source_cancel(): acquire-release orders what release() did
     * before COMMIT, and a cancel that came first before our seeing it. */
    if (src->hs == GW_HS_RELEASING &&
        !atomic_compare_exchange_strong_explicit(&src->decision, &expected, GW_DECIDED_COMMIT,
                                                 memory_order_acq_rel, memory_order_acquire)) {
        struct gw_error err = GW_ERROR_INIT;
        gw_fail(&err, -ECANCELED, "cancelled while resources were released");
        gw_source_fail(src, &err);
    }
    gw_source_event(src, GW_HSE_RELEASED);
}

/* Why it is stuck. What made the migration fail stays in src->err: that is its result, once the guest
 * runs again. */
static void keep_error(struct gw_source *src)
{
    src->stuck_err = src->call.err;
    src->stuck_err.code = GW_CODE_RETAKE;
    gw_error_phase(&src->stuck_err, "device");
    gw_error_place(&src->stuck_err, "%s", src->uri.text);
    gw_error_hint(&src->stuck_err, "the guest stays paused here: mend the cause and call "
                                   "gw_source_resolve(GW_RESOLVE_RESUME)");
}

static void retake_finished(struct gw_source *src, int rc)
{
    if (rc < 0)
        keep_error(src);
    else
        src->released = false;
    gw_source_event(src, rc < 0 ? GW_HSE_RETAKE_FAILED : GW_HSE_RETAKEN);
}

static void resume_finished(struct gw_source *src, int rc)
{
    if (rc < 0)
        keep_error(src);
    else
        src->paused = false;
    gw_source_event(src, rc < 0 ? GW_HSE_RESUME_FAILED : GW_HSE_RESUMED);
}

/* ---- actions --------------------------------------------------------------------------------------- */

static void say_token(struct gw_source *src, enum gw_message_type type)
{
    struct gw_message msg = {.type = type};
    msg.u.token = src->token;
    gw_source_say(src, &msg);
}

static void say_abort(struct gw_source *src)
{
    struct gw_message msg = {.type = GW_MSG_ABORT};
    if (src->prepare_sent)
        msg.u.failed.token = src->token;
    gw_error_copy(&msg.u.failed.error, &src->err);
    gw_source_say(src, &msg);
}

static void say_ask(struct gw_source *src)
{
    struct gw_message msg = {.type = GW_MSG_ASK};
    memcpy(msg.u.ask.session, src->session, sizeof(msg.u.ask.session));
    msg.u.ask.token = src->token;
    msg.u.ask.attempt = ++src->attempt;
    gw_source_say(src, &msg);
}

static void reconnect(struct gw_source *src)
{
    gw_source_close_link(src);
    if (gw_wire_flags(src->uri.scheme) & GW_EP_RECONNECTS)
        src->connect_again_ns = gw_clock_ns() + 50 * GW_NS_PER_MS;
    if (!src->asking_timer_runs) {
        src->asking_timer_runs = true;
        src->settle_left_ns = src->params.settle_timeout_ms * GW_NS_PER_MS;
        src->settle_seen_ns = gw_clock_ns();
    }
}

static void tell_unknown(struct gw_source *src)
{
    struct gw_error err = GW_ERROR_INIT;
    gw_fail_code(&err, -EINPROGRESS, GW_CODE_UNKNOWN,
                 "COMMIT was sent and no outcome heard within %llu ms",
                 (unsigned long long)src->params.settle_timeout_ms);
    gw_error_hint(&err, "the guest stays paused here and the target is asked on; look there: fence "
                        "it and resume here, or abandon this side if it runs there");
    gw_error_phase(&err, "device");
    gw_error_place(&err, "%s", src->uri.text);
    gw_error_copy(&src->err, &err);
    pthread_mutex_lock(&src->stats_lock);
    gw_error_copy(&src->result_err, &err);
    pthread_mutex_unlock(&src->stats_lock);
    atomic_store_explicit(&src->unknown, true, memory_order_release);
    gw_loop_wake(src->loop);
    gw_source_tell(src, GW_EVENT_UNKNOWN, &err, "%s", err.message);
}

/* gw_source_resolve() waits for this, if it is what the engine acts on. */
static void answer_resolve(struct gw_source *src, int rc)
{
    int pending = 1;
    atomic_compare_exchange_strong_explicit(&src->resolve_answer, &pending, rc,
                                            memory_order_release, memory_order_relaxed);
    gw_loop_wake(src->loop);
}

static void tell_retake(struct gw_source *src)
{
    pthread_mutex_lock(&src->stats_lock);
    src->result_err = src->stuck_err;
    pthread_mutex_unlock(&src->stats_lock);
    atomic_store_explicit(&src->stuck, true, memory_order_release);
    answer_resolve(src, src->stuck_err.rc);
    gw_source_tell(src, GW_EVENT_RETAKE, &src->stuck_err, "%s", src->stuck_err.message);
}

static void commit(struct gw_source *src)
{
    src->committed_ns = gw_clock_ns();
    src->device_deadline_ns = src->committed_ns + src->params.device_timeout_ms * GW_NS_PER_MS;
    say_token(src, GW_MSG_COMMIT);
}

static void act(struct gw_source *src, uint32_t actions)
{
    if (actions & GW_HSA_SEND_ABORT)
        say_abort(src);
    if (actions & GW_HSA_SEND_COMMIT)
        commit(src);
    if (actions & GW_HSA_SEND_ACK)
        say_token(src, GW_MSG_ACK);
    if (actions & GW_HSA_SEND_ASK)
        say_ask(src);
    if (actions & GW_HSA_RECONNECT)
        reconnect(src);
    if (actions & GW_HSA_CALL_RELEASE) {
        src->released = true; /* from here on some of it may be */
        gw_source_ask(src, release_run, release_finished);
    }
    if (actions & GW_HSA_CALL_RETAKE)
        gw_source_ask(src, retake_run, retake_finished);
    if (actions & GW_HSA_CALL_RESUME)
        gw_source_ask(src, resume_run, resume_finished);
    if (actions & GW_HSA_TELL_UNKNOWN)
        tell_unknown(src);
    if (actions & GW_HSA_TELL_RETAKE)
        tell_retake(src);
}

/* Rows follow each other, but for what each side says of itself: they never add up to more than
 * @whole_ns, and what nobody has is the wire's. */
static void close_ledger(struct gw_ledger *row, uint64_t whole_ns)
{
    uint64_t *const rows[] = {&row->pause_ns,       &row->sync_ns,    &row->puts_ns,
                              &row->device_save_ns, &row->fences_ns,  &row->revoke_ns,
                              &row->digest_ns,      &row->release_ns, &row->device_load_ns,
                              &row->acquire_ns,     &row->resume_ns};
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        *rows[i] = gw_min_u64(*rows[i], whole_ns);
        whole_ns -= *rows[i];
    }
    row->wire_ns = whole_ns;
}

static void completed(struct gw_source *src)
{
    uint64_t now = gw_clock_ns();
    pthread_mutex_lock(&src->stats_lock);
    struct gw_stats *stats = &src->stats;
    struct gw_ledger *row = &stats->downtime;
    uint64_t whole = now - src->pause_called_ns;
    close_ledger(row, whole);
    stats->downtime_ns = whole - row->digest_ns;
    stats->total_ns = now - src->started_ns;
    stats->remaining_bytes = 0;
    pthread_mutex_unlock(&src->stats_lock);
    gw_error_clear(&src->err);
    gw_source_finish(src, GW_STATUS_COMPLETED);
}

void gw_source_event(struct gw_source *src, enum gw_hs_event event)
{
    uint32_t actions = 0;
    enum gw_hs_state before = src->hs;
    if (!gw_handover_source(&src->hs, event, &actions))
        return;
    gw_log_debug(&src->log, "handover", "source %s -> %s", gw_hs_state_name(before),
                 gw_hs_state_name(src->hs));
    if (src->hs != GW_HS_UNKNOWN)
        atomic_store_explicit(&src->unknown, false, memory_order_release);
    if (src->hs != GW_HS_STUCK)
        atomic_store_explicit(&src->stuck, false, memory_order_release);
    act(src, actions);
    if (src->hs == before)
        return;
    src->gone = src->hs == GW_HS_COMPLETED || src->hs == GW_HS_ABANDONED;
    if (src->hs == GW_HS_COMPLETED)
        completed(src);
    else if (src->hs == GW_HS_ENDED || src->hs == GW_HS_ABANDONED)
        gw_source_finish(src, src->end_status);
}

bool gw_source_is_committed(const struct gw_source *src)
{
    return atomic_load_explicit(&src->decision, memory_order_acquire) == GW_DECIDED_COMMIT;
}

bool gw_source_awaits_outcome(const struct gw_source *src)
{
    return src->hs == GW_HS_COMMITTED || src->hs == GW_HS_ASKING || src->hs == GW_HS_UNKNOWN;
}

void gw_source_back_out(struct gw_source *src)
{
    gw_source_packets_give_up(src);
    if (src->hs == GW_HS_PAUSED && (src->call.busy || !gw_source_packets_are_quiet(src)))
        return; /* pause() or a device's save runs; its end comes back here */
    gw_source_event(src, src->hs == GW_HS_PAUSED && !src->paused ? GW_HSE_PAUSE_FAILED
                                                                 : GW_HSE_BACK_OUT);
}

/* ---- the target's word ----------------------------------------------------------------------------------- */

/* What cannot be the target's word. Before COMMIT we back out; after it such a connection is worth no
 * more than a lost one, and the target is asked on another. */
static void refuse_outcome(struct gw_source *src, const char *why)
{
    struct gw_error err = GW_ERROR_INIT;
    if (gw_source_is_committed(src)) {
        gw_log_warn(&src->log, "handover", "%s; asking anew", why);
        gw_source_event(src, GW_HSE_LINK_LOST);
        return;
    }
    gw_fail(&err, -EPROTO, "%s", why);
    gw_source_fail(src, &err);
}

void gw_source_on_outcome(struct gw_source *src, const struct gw_message *msg)
{
    /* A target that fails before it has read PREPARE knows only its own incarnation. */
    static const uint8_t zero[GW_TOKEN_BYTES];
    const struct gw_token *token = &msg->u.outcome.token;
    bool early = !gw_source_is_committed(src) && token->incarnation == src->token.incarnation &&
                 memcmp(token->random, zero, sizeof(zero)) == 0;
    struct gw_error err = GW_ERROR_INIT;
    if (!early && memcmp(token, &src->token, sizeof(*token)) != 0) {
        refuse_outcome(src, "OUTCOME for a token that is not ours");
        return;
    }
    if (!gw_source_is_committed(src) && msg->u.outcome.outcome != GW_OUTCOME_VOID) {
        refuse_outcome(src, "OUTCOME other than VOID before COMMIT");
        return;
    }
    switch (msg->u.outcome.outcome) {
    case GW_OUTCOME_RUNNING:
        pthread_mutex_lock(&src->stats_lock);
        src->stats.downtime.acquire_ns = msg->u.outcome.acquire_ns;
        src->stats.downtime.resume_ns = msg->u.outcome.resume_ns;
        pthread_mutex_unlock(&src->stats_lock);
        gw_source_event(src, GW_HSE_SAID_RUNNING);
        return;
    case GW_OUTCOME_DECLINED:
        gw_fail_code(&err, -EIO, GW_CODE_DECLINED,
                     "the target could not take the guest: it gave "
                     "everything back");
        break;
    case GW_OUTCOME_VOID:
        gw_fail_code(&err, -EIO, GW_CODE_VOID, "the target discarded the guest");
        break;
    case GW_OUTCOME_NONE:
        return;
    }
    const struct gw_error *said = &msg->u.outcome.error;
    if (said->code != GW_CODE_NONE && msg->u.outcome.outcome == GW_OUTCOME_VOID)
        err.code = said->code;
    gw_error_peer(&err, said->message, strlen(said->message));
    if (said->hint[0])
        gw_error_hint(&err, "%s", said->hint);
    if (gw_source_is_committed(src)) {
        gw_error_clear(&src->err);
        gw_error_copy(&src->err, &err);
        gw_error_phase(&src->err, "device");
        gw_error_place(&src->err, "%s", src->uri.text);
        src->end_status = GW_STATUS_FAILED;
        gw_source_event(src, msg->u.outcome.outcome == GW_OUTCOME_VOID ? GW_HSE_SAID_VOID
                                                                       : GW_HSE_SAID_DECLINED);
        return;
    }
    src->abort_heard = true; /* it has decided already: our ABORT needs no answer */
    if (src->prepare_sent)
        say_token(src, GW_MSG_ACK); /* no COMMIT will follow: nor need it wait for a question */
    gw_source_fail(src, &err);
}

/* ---- time ------------------------------------------------------------------------------------------------ */

static void give_up(struct gw_source *src)
{
    if (!atomic_load_explicit(&src->abandoned, memory_order_acquire))
        return;
    if (src->hs != GW_HS_STUCK && src->hs != GW_HS_UNKNOWN && src->hs != GW_HS_ASKING)
        return;
    if (src->err.rc == 0)
        gw_fail_code(&src->err, -ECONNABORTED, GW_CODE_UNKNOWN,
                     "freed while the outcome was asked for; the guest stays paused here");
    gw_error_phase(&src->err, "device");
    gw_error_place(&src->err, "%s", src->uri.text);
    gw_source_finish(src, GW_STATUS_FAILED);
}

static void take_resolution(struct gw_source *src)
{
    int wanted = atomic_exchange_explicit(&src->resolution, 0, memory_order_acq_rel);
    if (wanted == 0)
        return;
    bool resume = wanted == 1 + GW_RESOLVE_RESUME;
    if (src->hs != GW_HS_UNKNOWN && !(src->hs == GW_HS_STUCK && resume)) {
        answer_resolve(src, -EALREADY); /* the target's word came first */
        return;
    }
    if (src->hs == GW_HS_UNKNOWN) {
        gw_error_clear(&src->err);
        gw_fail_code(&src->err, -ECONNABORTED, GW_CODE_UNKNOWN,
                     "the outcome was not heard; by the operator's word the guest %s",
                     resume ? "goes on here" : "was given up here");
        gw_error_phase(&src->err, "device");
        gw_error_place(&src->err, "%s", src->uri.text);
        src->end_status = GW_STATUS_FAILED;
        gw_source_close_link(src);
    }
    gw_source_event(src, resume ? GW_HSE_RESOLVE_RESUME : GW_HSE_RESOLVE_ABANDON);
}

uint64_t gw_source_settle_step(struct gw_source *src, uint64_t now_ns)
{
    take_resolution(src);
    give_up(src);
    if (src->step != GW_SRC_HANDOVER || !gw_source_awaits_outcome(src))
        return GW_NEVER_NS;
    if (src->connect_again_ns <= now_ns)
        gw_source_connect(src);
    uint64_t wake_ns = src->connect_again_ns;
    if (src->hs == GW_HS_COMMITTED) {
        if (now_ns >= src->device_deadline_ns) {
            gw_log_warn(&src->log, "handover",
                        "target took longer than the device budget; asking anew");
            gw_source_event(src, GW_HSE_LINK_LOST);
            return now_ns;
        }
        return gw_min_u64(wake_ns, src->device_deadline_ns);
    }
    /* The settle time stands still while a link beats, up to the device budget. */
    uint64_t passed = now_ns - gw_min_u64(src->settle_seen_ns, now_ns); /* this step may be older */
    src->settle_seen_ns = gw_max_u64(src->settle_seen_ns, now_ns);
    if (!src->link_up || now_ns >= src->device_deadline_ns)
        src->settle_left_ns -= gw_min_u64(src->settle_left_ns, passed);
    if (src->hs == GW_HS_ASKING && src->settle_left_ns == 0)
        gw_source_event(src, GW_HSE_SETTLE_TIMEOUT);
    if (src->hs == GW_HS_ASKING)
        wake_ns = gw_min_u64(wake_ns, now_ns + gw_max_u64(src->settle_left_ns, GW_NS_PER_MS));
    return wake_ns;
}
