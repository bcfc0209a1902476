// SPDX-License-Identifier: MIT
/* From PREPARED to the outcome, and until the source has acknowledged it. The table in handover.def
 * decides; the outcome is one word, set once by compare-exchange and spoken only once set. Whatever
 * comes later (a second COMMIT, an ASK on a new connection) gets that answer. */
#include "core/target.h"

#include "core/base/bytes.h"

#include <string.h>

/* ---- the outcome -------------------------------------------------------------------------------- */

static bool set_outcome(struct gw_target *tgt, enum gw_outcome outcome)
{
    int none = GW_OUTCOME_NONE;
    /* Acq-rel: whoever reads the outcome (gw_target_outcome) sees what led to it. */
    return atomic_compare_exchange_strong_explicit(&tgt->outcome, &none, outcome,
                                                   memory_order_acq_rel, memory_order_acquire);
}

static enum gw_outcome outcome_of(const struct gw_target *tgt)
{
    return (enum gw_outcome)atomic_load_explicit(&tgt->outcome, memory_order_acquire);
}

static void say_outcome(struct gw_target *tgt)
{
    enum gw_outcome outcome = outcome_of(tgt);
    gw_assert(outcome != GW_OUTCOME_NONE);
    struct gw_message msg = {.type = GW_MSG_OUTCOME};
    msg.u.outcome.token = tgt->token;
    msg.u.outcome.outcome = outcome;
    msg.u.outcome.acquire_ns = tgt->acquire_ns;
    msg.u.outcome.resume_ns = tgt->resume_ns;
    msg.u.outcome.error.struct_bytes = sizeof(msg.u.outcome.error);
    if (outcome != GW_OUTCOME_RUNNING)
        gw_error_copy(&msg.u.outcome.error, &tgt->err);
    gw_target_say(tgt, &msg);
}

static void say_prepared(struct gw_target *tgt)
{
    struct gw_message msg = {.type = GW_MSG_PREPARED};
    msg.u.prepare.token = tgt->token;
    msg.u.prepare.fence = tgt->fence;
    msg.u.prepare.has_digest = tgt->hello.flags & GW_HELLO_DIGEST;
    memcpy(msg.u.prepare.digest, tgt->digest, sizeof(msg.u.prepare.digest));
    msg.u.prepare.revoke_ns = tgt->revoke_ns;
    msg.u.prepare.digest_ns = tgt->digest_ns;
    msg.u.prepare.load_ns = tgt->load_ns;
    gw_target_say(tgt, &msg);
}

/* ---- callbacks ------------------------------------------------------------------------------------- */

/* Of an error that came without: the phase is still the one in which it happened. */
static void say_where(struct gw_target *tgt)
{
    gw_error_phase(&tgt->err, gw_status_name(tgt->stats.status));
    gw_error_place(&tgt->err, "%s", tgt->uri_text);
}

/* gw_target_resolve() waits for this, if it is what the engine acts on. */
static void answer_resolve(struct gw_target *tgt, int rc)
{
    int pending = 1;
    atomic_compare_exchange_strong_explicit(&tgt->resolve_answer, &pending, rc,
                                            memory_order_release, memory_order_relaxed);
    gw_loop_wake(tgt->loop);
}

static int acquire_run(struct gw_target *tgt, struct gw_error *err)
{
    return tgt->ops.acquire ? tgt->ops.acquire(tgt->ctx, err) : 0;
}

static void acquire_finished(struct gw_target *tgt, int rc)
{
    tgt->acquire_ns = tgt->call.took_ns;
    if (rc < 0) {
        gw_error_clear(&tgt->err);
        gw_error_copy(&tgt->err, &tgt->call.err);
        say_where(tgt);
    }
    bool claimed = tgt->hs == GW_HT_CLAIM_TAKES;
    gw_target_event(tgt, rc < 0 ? GW_HTE_ACQUIRE_FAILED : GW_HTE_ACQUIRED);
    if (!claimed || rc >= 0)
        return;
    pthread_mutex_lock(&tgt->stats_lock);
    gw_error_clear(&tgt->result_err);
    gw_error_copy(&tgt->result_err, &tgt->err);
    pthread_mutex_unlock(&tgt->stats_lock);
    /* It is held again, and may be cancelled again. */
    atomic_store_explicit(&tgt->decision, GW_TARGET_OPEN, memory_order_release);
    answer_resolve(tgt, rc);
}

static int start_run(struct gw_target *tgt, struct gw_error *err)
{
    return tgt->ops.run(tgt->ctx, err);
}

static void start_finished(struct gw_target *tgt, int rc)
{
    tgt->resume_ns = tgt->call.took_ns;
    if (rc < 0) {
        /* A vCPU may have run: it is ours for better or worse, and that is what we say. */
        gw_error_clear(&tgt->err);
        gw_error_copy(&tgt->err, &tgt->call.err);
        say_where(tgt);
        gw_error_hint(&tgt->err,
                      "the guest belongs to this host: start it here, never at the source");
        gw_log(&tgt->log, GW_LOG_ERROR, "target", "run failed after the handover: %s",
               tgt->err.message);
    }
    gw_target_event(tgt, GW_HTE_STARTED);
    answer_resolve(tgt, 0);
}

/* ---- actions ------------------------------------------------------------------------------------------ */

static void settle_from_now(struct gw_target *tgt)
{
    uint64_t ns = gw_max_u64(tgt->reply.settle_timeout_ns, tgt->hello.settle_timeout_ns);
    tgt->settle_until_ns = gw_clock_ns() + ns;
}

static void decided(struct gw_target *tgt, enum gw_outcome outcome)
{
    bool first = set_outcome(tgt, outcome);
    gw_assert(first); /* the engine alone sets it, and the table sets it once */
    settle_from_now(tgt);
    if (outcome == GW_OUTCOME_RUNNING) {
        gw_error_clear(&tgt->err);
        return;
    }
    say_where(tgt);
    gw_target_status(tgt, GW_STATUS_FAILING);
}

static void hold(struct gw_target *tgt)
{
    uint64_t ns = gw_max_u64(tgt->reply.hold_timeout_ns, tgt->hello.settle_timeout_ns);
    tgt->hold_until_ns = gw_clock_ns() + ns;
    gw_target_tell(tgt, GW_EVENT_HOLDING, NULL,
                   "the source is gone before COMMIT; the guest is held for %llu ms",
                   (unsigned long long)(ns / GW_NS_PER_MS));
}

static void act(struct gw_target *tgt, uint32_t actions)
{
    if (actions & GW_HTA_SET_VOID)
        decided(tgt, GW_OUTCOME_VOID);
    if (actions & GW_HTA_SET_RUNNING)
        decided(tgt, GW_OUTCOME_RUNNING);
    if (actions & GW_HTA_SET_DECLINED)
        decided(tgt, GW_OUTCOME_DECLINED);
    if (actions & GW_HTA_SAY_PREPARED)
        say_prepared(tgt);
    if (actions & GW_HTA_SAY_OUTCOME)
        say_outcome(tgt);
    if (actions & GW_HTA_CALL_ACQUIRE)
        gw_target_ask(tgt, acquire_run, acquire_finished);
    if (actions & GW_HTA_CALL_RUN)
        gw_target_ask(tgt, start_run, start_finished);
    if (actions & GW_HTA_TELL_HOLDING)
        hold(tgt);
    if (actions & GW_HTA_STOP_READING) {
        gw_target_close_link(tgt);
        gw_target_drop_candidates(tgt);
    }
}

static void entered(struct gw_target *tgt)
{
    switch (tgt->hs) {
    case GW_HT_RUNNING:
        /* If run() failed the guest is ours and does not run: the embedder must hear of it. */
        tgt->end_status = tgt->err.rc < 0 ? GW_STATUS_FAILED : GW_STATUS_COMPLETED;
        gw_target_status(tgt, tgt->err.rc < 0 ? GW_STATUS_FAILING : GW_STATUS_COMPLETED);
        break;
    case GW_HT_DECLINED:
        tgt->end_status = GW_STATUS_FAILED;
        break;
    case GW_HT_VOIDED:
        tgt->end_status = tgt->err.rc == -ECANCELED ? GW_STATUS_CANCELLED : GW_STATUS_FAILED;
        if (tgt->step < GW_TGT_SETTLE)
            tgt->step = GW_TGT_SETTLE; /* what is still waiting to be loaded is not */
        if (!tgt->prepare_seen)
            gw_target_finish(tgt); /* no COMMIT can exist: nothing to listen for */
        break;
    case GW_HT_SETTLED:
        gw_target_finish(tgt);
        break;
    default:
        break;
    }
}

void gw_target_event(struct gw_target *tgt, enum gw_ht_event event)
{
    uint32_t actions = 0;
    enum gw_ht_state before = tgt->hs;
    if (!gw_handover_target(&tgt->hs, event, &actions))
        return;
    gw_log_debug(&tgt->log, "handover", "target %s -> %s", gw_ht_state_name(before),
                 gw_ht_state_name(tgt->hs));
    act(tgt, actions);
    if (tgt->hs != before)
        entered(tgt);
}

/* ---- messages ------------------------------------------------------------------------------------------- */

static bool is_our_token(const struct gw_target *tgt, const struct gw_token *token)
{
    return tgt->prepare_seen && memcmp(token, &tgt->token, sizeof(*token)) == 0;
}

static void on_abort(struct gw_target *tgt, const struct gw_message *msg)
{
    struct gw_error err = GW_ERROR_INIT;
    const struct gw_error *said = &msg->u.failed.error;
    gw_fail_code(&err, said->code == GW_CODE_CANCELLED ? -ECANCELED : -ECONNABORTED,
                 said->code ? said->code : GW_CODE_CANCELLED, "the source took the guest back");
    gw_error_peer(&err, said->message, strlen(said->message));
    gw_error_phase(&err, gw_status_name(tgt->stats.status));
    if (outcome_of(tgt) == GW_OUTCOME_NONE) {
        gw_error_clear(&tgt->err);
        gw_error_copy(&tgt->err, &err);
    }
    gw_target_event(tgt, GW_HTE_ABORTED);
}

/* The one compare-exchange against gw_target_cancel(): whoever is first decides. */
static bool commits(struct gw_target *tgt)
{
    int expected = GW_TARGET_OPEN;
    return atomic_compare_exchange_strong_explicit(&tgt->decision, &expected, GW_TARGET_COMMITTED,
                                                   memory_order_acq_rel, memory_order_acquire);
}

void gw_target_on_handover(struct gw_target *tgt, const struct gw_message *msg)
{
    struct gw_error err = GW_ERROR_INIT;
    if (msg->type == GW_MSG_ABORT) {
        on_abort(tgt, msg);
        return;
    }
    if (msg->type == GW_MSG_COMMIT && tgt->attempt == 0 && is_our_token(tgt, &msg->u.token)) {
        if (tgt->hs == GW_HT_PREPARED && !commits(tgt))
            gw_target_take_cancel(tgt); /* COMMIT then gets the outcome that this has set */
        gw_target_event(tgt, GW_HTE_COMMITTED);
        return;
    }
    if (msg->type == GW_MSG_ACK && is_our_token(tgt, &msg->u.token)) {
        gw_target_event(tgt, GW_HTE_ACKED);
        return;
    }
    gw_fail(&err, -EPROTO, "%s that does not belong here", gw_message_name(msg->type));
    if (outcome_of(tgt) == GW_OUTCOME_NONE)
        gw_target_fail(tgt, &err);
    else
        gw_target_close_link(tgt);
}

bool gw_target_knows(const struct gw_target *tgt, const struct gw_message *ask)
{
    return tgt->in_session && memcmp(ask->u.ask.session, tgt->session, sizeof(tgt->session)) == 0 &&
           is_our_token(tgt, &ask->u.ask.token);
}

const struct gw_past *gw_target_recalls(const struct gw_target *tgt, const struct gw_message *ask)
{
    return gw_outcomes_find(&tgt->outcomes, ask->u.ask.session, &ask->u.ask.token);
}

bool gw_target_on_ask(struct gw_target *tgt, struct gw_candidate *candidate,
                      const struct gw_message *msg)
{
    if (msg->u.ask.attempt <= tgt->attempt)
        return false;
    /* Connections of lower attempts are closed unread: a COMMIT that sits there is never seen. */
    gw_target_close_link(tgt);
    tgt->attempt = msg->u.ask.attempt;
    tgt->control = candidate->ep;
    tgt->channel = candidate->channel;
    gw_channel_set_peer_timeout(tgt->channel, tgt->reply.peer_timeout_ns);
    if (outcome_of(tgt) == GW_OUTCOME_NONE && tgt->hs != GW_HT_ACQUIRING) {
        gw_error_clear(&tgt->err);
        gw_fail_code(&tgt->err, -ECONNABORTED, GW_CODE_VOID,
                     "the source asked anew before its COMMIT was read");
    }
    gw_target_event(tgt, GW_HTE_ASKED);
    return true;
}

/* ---- time -------------------------------------------------------------------------------------------------- */

static void take_claim(struct gw_target *tgt)
{
    if (atomic_load_explicit(&tgt->claim, memory_order_acquire) != GW_CLAIM_ASKED)
        return;
    gw_target_event(tgt, GW_HTE_CLAIMED);
    atomic_store_explicit(&tgt->claim, tgt->hs == GW_HT_CLAIMED ? GW_CLAIM_DONE : GW_CLAIM_REFUSED,
                          memory_order_release);
    gw_loop_wake(tgt->loop);
}

static void take_resolution(struct gw_target *tgt)
{
    int wanted = atomic_exchange_explicit(&tgt->resolution, 0, memory_order_acq_rel);
    if (wanted == 0)
        return;
    if (wanted == 1 + GW_RESOLVE_RUN && tgt->hs == GW_HT_CLAIMED && !commits(tgt))
        gw_target_take_cancel(tgt);
    if (tgt->hs != GW_HT_CLAIMED) {
        answer_resolve(tgt, -EALREADY); /* cancelled meanwhile */
        return;
    }
    if (wanted == 1 + GW_RESOLVE_RUN) {
        gw_target_event(tgt, GW_HTE_RESOLVE_RUN); /* acquire and run answer */
        return;
    }
    gw_error_clear(&tgt->err);
    gw_fail_code(&tgt->err, -ECONNABORTED, GW_CODE_VOID, "discarded by the operator");
    gw_target_event(tgt, GW_HTE_RESOLVE_DISCARD);
    answer_resolve(tgt, 0);
}

uint64_t gw_target_settle_step(struct gw_target *tgt, uint64_t now_ns)
{
    take_claim(tgt);
    take_resolution(tgt);
    if (tgt->hs == GW_HT_HOLDING) {
        if (now_ns < tgt->hold_until_ns)
            return tgt->hold_until_ns;
        enum gw_code how =
            tgt->err.code == GW_CODE_PEER_SILENT ? GW_CODE_PEER_SILENT : GW_CODE_PEER_LOST;
        gw_error_clear(&tgt->err);
        gw_fail_code(&tgt->err, -ETIMEDOUT, how,
                     "the source was lost before COMMIT and did not come back");
        gw_target_event(tgt, GW_HTE_HOLD_TIMEOUT);
    }
    bool settling =
        tgt->hs == GW_HT_RUNNING || tgt->hs == GW_HT_DECLINED || tgt->hs == GW_HT_VOIDED;
    if (!settling || tgt->step >= GW_TGT_LINGER)
        return GW_NEVER_NS;
    if (now_ns < tgt->settle_until_ns)
        return tgt->settle_until_ns;
    gw_target_event(tgt, GW_HTE_SETTLE_TIMEOUT);
    return now_ns;
}
