// SPDX-License-Identifier: MIT
/* The source's engine: one step, what messages mean, how it backs out and ends. Its thread is the
 * shell at the end. A failure before COMMITTED always leads to the guest running on here; after it,
 * link failures lead to asking (source_settle.c). */
#include "core/source.h"

#include "core/hint.h"
#include "core/source_chunks.h"
#include "core/source_packets.h"

#include "core/base/bytes.h"

#include <stdarg.h>
#include <string.h>

#define LINGER_NS GW_NS_PER_S
#define HELLO_LOSSES_MAX 5
/* Messages taken in one step, and the time spent on them: a peer that says more, or what is long to look
 * through, must not keep us from beating and from cancel. */
#define MESSAGES_MAX 64u
#define MESSAGES_NS (5 * GW_NS_PER_MS)

/* ---- telling ----------------------------------------------------------------------------------- */

static enum gw_status status_now(struct gw_source *src)
{
    pthread_mutex_lock(&src->stats_lock);
    enum gw_status status = src->stats.status;
    pthread_mutex_unlock(&src->stats_lock);
    return status;
}

void gw_source_tell(struct gw_source *src, enum gw_event_type type, const struct gw_error *err,
                    const char *format, ...)
{
    va_list args;
    va_start(args, format);
    gw_teller_tell(&src->teller, type, status_now(src), err, format, args);
    va_end(args);
}

void gw_source_tell_round(struct gw_source *src, const struct gw_round *round)
{
    gw_teller_tell_round(&src->teller, status_now(src), round);
}

void gw_source_status(struct gw_source *src, enum gw_status status)
{
    pthread_mutex_lock(&src->stats_lock);
    bool changed = src->stats.status != status;
    src->stats.status = status;
    pthread_mutex_unlock(&src->stats_lock);
    bool failing = status == GW_STATUS_FAILING || status == GW_STATUS_CANCELLING;
    if (changed)
        gw_source_tell(src, GW_EVENT_STATUS, failing ? &src->err : NULL, "%s",
                       gw_status_name(status));
}

/* ---- jobs and callbacks ------------------------------------------------------------------------------ */

void gw_source_post_to(struct gw_source *src, struct gw_pool *pool, struct gw_source_job *job,
                       void (*run)(struct gw_job *), void (*done)(struct gw_mail *, void *))
{
    gw_assert(!job->busy);
    job->busy = true;
    job->src = src;
    job->err.struct_bytes = sizeof(job->err);
    job->job.run = run;
    job->job.reply = &src->inbox;
    job->job.done.deliver = done;
    gw_pool_post(pool, &job->job);
}

void gw_source_post(struct gw_source *src, struct gw_source_job *job, void (*run)(struct gw_job *),
                    void (*done)(struct gw_mail *, void *))
{
    gw_source_post_to(src, src->pool, job, run, done);
}

static void call_done(struct gw_mail *mail, void *engine)
{
    struct gw_source *src = engine;
    (void)mail;
    src->call.busy = false;
    src->call.finished(src, src->call.rc);
}

static void call_run(struct gw_call *call)
{
    struct gw_source_call *asked = GW_CONTAINER_OF(call, struct gw_source_call, call);
    struct gw_source *src = asked->src;
    gw_error_clear(&asked->err);
    asked->begun_ns = gw_clock_ns();
    asked->rc = asked->run(src, &asked->err);
    asked->took_ns = gw_clock_ns() - asked->begun_ns;
    if (asked->rc < 0 && !gw_error_is_set(&asked->err))
        gw_fail_code(&asked->err, asked->rc, GW_CODE_GUEST, "a callback of the guest failed (%s)",
                     strerror(-asked->rc));
    gw_mail_post(&src->inbox, &asked->done);
    atomic_fetch_sub_explicit(&src->calls_in_loop, 1, memory_order_release);
}

void gw_source_ask(struct gw_source *src, int (*run)(struct gw_source *, struct gw_error *),
                   void (*finished)(struct gw_source *, int))
{
    struct gw_source_call *asked = &src->call;
    gw_assert(!asked->busy);
    asked->busy = true;
    asked->src = src;
    asked->err.struct_bytes = sizeof(asked->err);
    asked->call.run = call_run;
    asked->done.deliver = call_done;
    asked->run = run;
    asked->finished = finished;
    asked->asked_ns = gw_clock_ns();
    atomic_fetch_add_explicit(&src->calls_in_loop, 1, memory_order_relaxed);
    gw_loop_post(src->loop, &asked->call);
}

int gw_source_say(struct gw_source *src, const struct gw_message *msg)
{
    if (!src->channel)
        return -ENOTCONN;
    int rc = gw_channel_send(src->channel, msg);
    if (rc < 0 && rc != -EAGAIN)
        src->unsaid = rc;
    return rc;
}

/* ---- failing -------------------------------------------------------------------------------------------- */

static void back_out(struct gw_source *src)
{
    bool cancelled = src->end_status == GW_STATUS_CANCELLED;
    gw_source_status(src, cancelled ? GW_STATUS_CANCELLING : GW_STATUS_FAILING);
    src->step = GW_SRC_HANDOVER;
    gw_source_back_out(src);
}

void gw_source_fail(struct gw_source *src, const struct gw_error *err)
{
    if (gw_source_is_committed(src) || src->end_status != GW_STATUS_NONE)
        return; /* decided already, or backing out for an earlier reason */
    gw_error_clear(&src->err);
    gw_error_copy(&src->err, err);
    gw_error_phase(&src->err, gw_status_name(src->stats.status));
    gw_error_place(&src->err, "%s", src->uri.text);
    src->end_status = err->rc == -ECANCELED ? GW_STATUS_CANCELLED : GW_STATUS_FAILED;
    gw_log_debug(&src->log, "source", "%s", src->err.message);
    back_out(src);
}

static void link_lost(struct gw_source *src, const struct gw_error *err)
{
    gw_source_close_link(src);
    if (src->step == GW_SRC_LINGER) {
        src->linger_until_ns = 0;
        return;
    }
    if (gw_source_is_committed(src)) {
        gw_log_warn(&src->log, "handover", "link lost after COMMIT: %s", err->message);
        gw_source_event(src, GW_HSE_LINK_LOST);
        return;
    }
    if (src->step == GW_SRC_HELLO && err->rc == -ECONNRESET &&
        src->hello_losses++ < HELLO_LOSSES_MAX) {
        /* A target that strangers crowd makes room like this; nothing has begun. */
        gw_log_debug(&src->log, "source", "%s before HELLO was answered: again", err->message);
        gw_source_connect_again(src);
        return;
    }
    gw_source_fail(src, err);
}

/* ---- messages ---------------------------------------------------------------------------------------------- */

static void on_failed(struct gw_source *src, const struct gw_message *msg)
{
    struct gw_error err = GW_ERROR_INIT;
    const struct gw_error *said = &msg->u.failed.error;
    gw_fail_code(&err, said->code == GW_CODE_CANCELLED ? -ECONNABORTED : -EREMOTEIO,
                 said->code ? said->code : GW_CODE_REFUSED, "the target gave up");
    gw_error_peer(&err, said->message, strlen(said->message));
    if (said->hint[0])
        gw_error_hint(&err, "%s", said->hint);
    if (said->place[0])
        gw_error_place(&err, "%s", said->place);
    gw_source_fail(src, &err);
}

static void on_released(struct gw_source *src, const struct gw_message *msg)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_list_cursor cursor;
    struct gw_range_msg range;
    if (!(gw_source_page_flags(src) & GW_EP_ONE_SIDED)) {
        gw_fail(&err, -EPROTO, "RELEASED on a wire that has no keys");
        gw_source_fail(src, &err);
        return;
    }
    gw_list_begin(&cursor, msg->u.list);
    while (gw_list_next_range(&cursor, GW_MSG_RELEASED, &range)) {
        struct gw_wish which = {.block = range.block, .offset = range.first, .bytes = range.count};
        int rc = src->chunks ? gw_chunks_released(src->chunks, &which, &err)
                             : gw_fail(&err, -EPROTO, "RELEASED before any wish");
        if (rc < 0) {
            gw_source_fail(src, &err);
            return;
        }
    }
}

static void on_unknown_session(struct gw_source *src)
{
    struct gw_error err = GW_ERROR_INIT;
    if (gw_source_is_committed(src)) {
        gw_source_event(src, GW_HSE_SAID_UNKNOWN); /* proves nothing */
        return;
    }
    gw_fail(&err, -EPROTO, "UNKNOWN before COMMIT");
    gw_source_fail(src, &err);
}

static void on_message(struct gw_source *src, const struct gw_message *msg)
{
    struct gw_error err = GW_ERROR_INIT;
    switch (msg->type) {
    case GW_MSG_HELLO_REPLY:
        gw_source_on_hello_reply(src, msg);
        break;
    case GW_MSG_BLOCKS_OK:
        gw_source_on_blocks_ok(src, msg);
        break;
    case GW_MSG_KEYS:
        gw_source_on_keys(src, msg);
        break;
    case GW_MSG_RELEASED:
        on_released(src, msg);
        break;
    case GW_MSG_JOINED:
        gw_source_on_joined(src, msg->u.number);
        break;
    case GW_MSG_LOADED:
        gw_source_on_loaded(src, msg);
        break;
    case GW_MSG_PACKETS_LOADED:
        gw_source_on_packets_loaded(src, msg);
        break;
    case GW_MSG_PREPARED:
        gw_source_on_prepared(src, msg);
        break;
    case GW_MSG_OUTCOME:
        gw_source_on_outcome(src, msg);
        break;
    case GW_MSG_UNKNOWN:
        on_unknown_session(src);
        break;
    case GW_MSG_FAILED:
        on_failed(src, msg);
        break;
    default:
        gw_fail(&err, -EPROTO, "%s does not come from a target", gw_message_name(msg->type));
        gw_source_fail(src, &err);
        break;
    }
}

/* Messages of a session that is backing out mean nothing but that the peer has answered. */
static bool is_listening(const struct gw_source *src)
{
    return src->end_status == GW_STATUS_NONE || gw_source_awaits_outcome(src);
}

/* Once: a target that hears it closes, and until then we listen: what is closed with something unread may
 * take back what was said last. */
static void acknowledge(struct gw_source *src)
{
    struct gw_message msg = {.type = GW_MSG_ACK};
    msg.u.token = src->token;
    if (src->abort_heard)
        return;
    src->abort_heard = true;
    if (src->prepare_sent)
        gw_source_say(src, &msg);
    else
        src->linger_until_ns = 0;
}

static uint64_t step_link(struct gw_source *src, uint64_t now_ns)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_message msg;
    int rc = 0;
    unsigned count = 0;
    bool enough = false;
    while (src->channel && !enough && (rc = gw_channel_recv(src->channel, &msg, &err)) > 0) {
        enough = ++count == MESSAGES_MAX || gw_clock_ns() - now_ns > MESSAGES_NS;
        if (is_listening(src) && src->step < GW_SRC_LINGER)
            on_message(src, &msg);
        else if (msg.type == GW_MSG_OUTCOME)
            acknowledge(src); /* our ABORT was heard */
    }
    if (src->channel && rc >= 0)
        rc = gw_channel_step(src->channel, now_ns, &err);
    if (!src->channel)
        return GW_NEVER_NS;
    if (rc >= 0 && src->unsaid)
        rc = gw_fail(&err, src->unsaid, "a message cannot be sent");
    if (rc < 0) {
        link_lost(src, &err);
        return now_ns;
    }
    return enough ? now_ns : gw_channel_wake_ns(src->channel);
}

/* ---- the end --------------------------------------------------------------------------------------------------- */

void gw_source_finish(struct gw_source *src, enum gw_status status)
{
    src->end_status = status;
    src->step = GW_SRC_LINGER;
    /* Only a peer that still listens gets the last message: give it a moment to close. */
    src->linger_until_ns = src->abort_heard && !src->prepare_sent ? 0 : gw_clock_ns() + LINGER_NS;
}

/* Says no more than that the other end is gone. */
static bool is_mere_end(const struct gw_error *err)
{
    return err->rc == -ECONNRESET && !err->hint[0];
}

/* A link that breaks is noticed at both ends, and the target may have given up and gone before our own
 * endpoint's thread has spoken: what that one saw is the cause. */
static void prefer_own_cause(struct gw_source *src, const struct gw_error *own)
{
    bool is_lost = src->err.code == GW_CODE_PEER_LOST;
    bool was_said = src->err.peer[0];
    bool by_target =
        (was_said || is_mere_end(&src->err)) && (is_lost || src->err.code == GW_CODE_PEER_SILENT);
    if (src->end_status != GW_STATUS_FAILED || !by_target || own->rc == 0 || is_mere_end(own))
        return;
    if (own->rc == -EACCES && !was_said)
        return; /* what a dead process no longer lends is not the cause */
    if (own->code == GW_CODE_PEER_SILENT && is_lost)
        return; /* nor the silence of who has gone */
    struct gw_error cause = *own;
    gw_error_phase(&cause, src->err.phase);
    gw_error_peer(&cause, src->err.peer, strlen(src->err.peer));
    src->err = cause;
}

static void stop_pages(struct gw_source *src)
{
    struct gw_error own = GW_ERROR_INIT;
    struct gw_sender_stats totals;
    uint64_t tx_bytes;
    gw_source_totals(src, &totals, &tx_bytes);
    for (unsigned i = 0; i < src->page_count; i++) {
        gw_page_out_stop(src->pages[i], &own);
        src->pages[i] = NULL;
    }
    src->page_count = 0;
    prefer_own_cause(src, &own);
}

static void close_regions(struct gw_source *src)
{
    gw_source_chunks_close(src);
    for (unsigned i = 0; i < gw_ram_block_count(src->ram); i++) {
        struct gw_block *block = gw_ram_block(src->ram, i);
        gw_rmr_close(block->rmr);
        block->rmr = NULL;
    }
    gw_source_wires_close(src);
    gw_domain_close(src->dom);
    src->dom = NULL;
}

/* Unpinning a guest takes a while; by now it runs, here or there. */
static void cleanup_run(struct gw_job *job)
{
    struct gw_source *src = GW_CONTAINER_OF(job, struct gw_source, work.job);
    src->work.rc = 0;
    if (src->tracking)
        gw_dirty_stop(src->ram);
    close_regions(src);
}

static void over(struct gw_source *src)
{
    bool completed = src->end_status == GW_STATUS_COMPLETED;
    src->step = GW_SRC_OVER;
    gw_source_slow(src);
    if (!completed)
        gw_hint_source(&src->err);
    pthread_mutex_lock(&src->stats_lock);
    if (!completed)
        src->stats.total_ns = gw_clock_ns() - src->started_ns;
    gw_error_clear(&src->result_err);
    if (!completed)
        gw_error_copy(&src->result_err, &src->err);
    src->result = completed ? 0 : src->err.rc ? src->err.rc : -EIO;
    pthread_mutex_unlock(&src->stats_lock);
    gw_source_status(src, src->end_status);
    /* Release: whoever sees running false sees the result. Before ENDED is told: who hears that may
     * wait, start or free at once. */
    atomic_store_explicit(&src->running, false, memory_order_release);
    gw_source_tell(src, GW_EVENT_ENDED, completed ? NULL : &src->err, "%s",
                   gw_status_name(src->end_status));
    gw_loop_wake(src->loop);
}

static void cleanup_done(struct gw_mail *mail, void *engine)
{
    struct gw_source *src = engine;
    (void)mail;
    src->work.busy = false;
    src->tracking = false;
    src->cleaned = true;
}

static bool jobs_are_quiet(const struct gw_source *src)
{
    return !src->work.busy && !src->connect.busy && src->syncs_busy == 0 && !src->call.busy &&
           gw_source_chunks_are_quiet(src) && gw_source_packets_are_quiet(src);
}

static uint64_t end_step(struct gw_source *src, uint64_t now_ns)
{
    if (src->step == GW_SRC_LINGER) {
        if (src->channel && now_ns < src->linger_until_ns)
            return src->linger_until_ns;
        stop_pages(src);
        gw_source_chunks_stop(src);
        gw_source_packets_stop(src);
        gw_source_close_link(src);
        src->step = GW_SRC_CLEANUP;
    }
    if (!jobs_are_quiet(src))
        return GW_NEVER_NS; /* their mail wakes us */
    if (!src->cleaned) {
        gw_source_post(src, &src->work, cleanup_run, cleanup_done);
        return GW_NEVER_NS;
    }
    if (!gw_source_clean_devices(src))
        return GW_NEVER_NS;
    gw_source_packets_close(src);
    gw_source_drop_devices(src);
    over(src);
    return now_ns;
}

/* ---- the step ----------------------------------------------------------------------------------------------------- */

static void take_params(struct gw_source *src)
{
    pthread_mutex_lock(&src->params_lock);
    src->params.max_bandwidth = src->params_live.max_bandwidth;
    src->params.downtime_limit_ms = src->params_live.downtime_limit_ms;
    src->params.avail_switchover_bandwidth = src->params_live.avail_switchover_bandwidth;
    src->params.stall_action = src->params_live.stall_action;
    src->params.cpu_throttle = src->params_live.cpu_throttle;
    pthread_mutex_unlock(&src->params_lock);
    uint64_t rate = src->params.max_bandwidth;
    if (src->pause_called_ns && src->params.avail_switchover_bandwidth)
        rate = src->params.avail_switchover_bandwidth;
    gw_throttle_set(&src->throttle, rate);
    gw_source_slow(src);
}

static void take_cancel(struct gw_source *src)
{
    struct gw_error err = GW_ERROR_INIT;
    if (src->end_status != GW_STATUS_NONE ||
        atomic_load_explicit(&src->decision, memory_order_acquire) != GW_DECIDED_CANCEL)
        return;
    gw_fail(&err, -ECANCELED, "cancelled");
    gw_source_fail(src, &err);
}

static const char *what_holds_up(const struct gw_source *src)
{
    switch (src->step) {
    case GW_SRC_REGISTER:
        return "memory was not registered at both ends";
    case GW_SRC_SEND:
        if (src->joined)
            return "the target loaded no device state";
        return src->fenced_count == src->page_count ? "the target did not join a round"
                                                    : "no page left for the target";
    case GW_SRC_PAUSE:
        return "the pause callback did not return";
    case GW_SRC_FINAL_SYNC:
    case GW_SRC_FINAL_SEND:
        if (src->call.busy || !gw_source_packets_are_quiet(src))
            return "a device's save did not return";
        if (src->step == GW_SRC_FINAL_SYNC)
            return "the last dirty sync did not end";
        return gw_source_packets_are_loaded(src) ? "no page left for the target"
                                                 : "the target loaded no device state";
    default:
        return src->call.busy ? "a device's save did not return"
                              : "the target took nothing of the device state";
    }
}

/* What a paused guest waits for has a budget: a callback as a whole, all else from one step forward to
 * the next, for a slow wire is no reason to give up. A slow callback is no death; what it holds up ends
 * when it returns. A digest takes as long as memory is large. */
static uint64_t judge_pause(struct gw_source *src, uint64_t now_ns)
{
    struct gw_sender_stats sent;
    uint64_t tx_bytes;
    gw_source_totals(src, &sent, &tx_bytes);
    uint64_t moved = (uint64_t)src->step + sent.bytes + sent.duplicate_pages + src->fenced_count +
                     src->round + src->syncs_busy + src->stream_bytes_said + src->items_loaded +
                     src->items.bytes + gw_source_chunks_moved(src) + gw_source_packets_moved(src);
    bool digesting = src->step == GW_SRC_STREAM && src->work.busy;
    if (moved != src->moved || digesting || src->moved_ns == 0) {
        src->moved = moved;
        src->moved_ns = now_ns;
    }
    uint64_t since_ns = src->call.busy ? src->call.asked_ns : src->moved_ns;
    uint64_t end_ns = since_ns + src->params.device_timeout_ms * GW_NS_PER_MS;
    if (now_ns < end_ns)
        return end_ns;
    struct gw_error err = GW_ERROR_INIT;
    gw_fail_code(&err, -ETIMEDOUT, GW_CODE_TIMEOUT, "%s within x-device-timeout (%llu ms)",
                 what_holds_up(src), (unsigned long long)src->params.device_timeout_ms);
    gw_source_fail(src, &err);
    return now_ns;
}

/* A target that beats and takes nothing more, or never joins, holds a round up for as long as it likes:
 * the same budget. Where max-bandwidth lets less than a page through in that time, nothing is judged. */
static uint64_t judge_round(struct gw_source *src, uint64_t now_ns)
{
    uint64_t rate = src->params.max_bandwidth;
    if ((src->step != GW_SRC_SEND && src->step != GW_SRC_REGISTER) || src->call.busy ||
        (rate > 0 && rate < GW_PAGE_BYTES))
        return GW_NEVER_NS;
    return judge_pause(src, now_ns);
}

/* On a stream wire: the wishes. */
static uint64_t step_chunks(struct gw_source *src, uint64_t now_ns)
{
    uint64_t wish_ns = gw_source_wish(src, now_ns);
    return gw_min_u64(wish_ns, gw_source_chunks_step(src, now_ns));
}

static uint64_t step_work(struct gw_source *src, uint64_t now_ns)
{
    switch (src->step) {
    case GW_SRC_CONNECT:
    case GW_SRC_HELLO:
    case GW_SRC_CONNECT_PAGES:
    case GW_SRC_TRACK:
    case GW_SRC_OFFER:
        return gw_source_setup_step(src, now_ns);
    case GW_SRC_DEVICES:
        return gw_source_devices_step(src, now_ns);
    case GW_SRC_REGISTER: {
        uint64_t chunks_ns = step_chunks(src, now_ns);
        if (src->step == GW_SRC_REGISTER && gw_source_track_late(src) &&
            (!src->params.pin_all || gw_chunks_are_ready(src->chunks))) {
            gw_source_first_round(src);
            return now_ns;
        }
        return gw_min_u64(chunks_ns, judge_round(src, now_ns));
    }
    case GW_SRC_SEND:
    case GW_SRC_SYNC: {
        uint64_t chunks_ns = step_chunks(src, now_ns);
        uint64_t items_ns = gw_source_stream_items(src) ? chunks_ns : now_ns + GW_NS_PER_MS;
        uint64_t turn_ns =
            gw_min_u64(gw_source_iterate(src, now_ns), gw_source_next_round(src, now_ns));
        return gw_min_u64(gw_min_u64(items_ns, turn_ns), judge_round(src, now_ns));
    }
    case GW_SRC_PRE_SWITCHOVER:
        if (atomic_load_explicit(&src->continue_asked, memory_order_acquire))
            gw_source_pause(src);
        return step_chunks(src, now_ns);
    case GW_SRC_STREAM:
        gw_source_stream_step(src);
        if (src->step != GW_SRC_STREAM)
            return now_ns;
        return gw_min_u64(gw_min_u64(judge_pause(src, now_ns), gw_source_save(src, now_ns)),
                          src->items.first ? now_ns + GW_NS_PER_MS : GW_NEVER_NS);
    case GW_SRC_PREPARE:
        if (now_ns >= src->device_deadline_ns) {
            struct gw_error err = GW_ERROR_INIT;
            gw_fail_code(&err, -ETIMEDOUT, GW_CODE_TIMEOUT,
                         "the target did not load the devices within %llu ms",
                         (unsigned long long)src->params.device_timeout_ms);
            gw_error_hint(&err, "raise x-device-timeout");
            gw_source_fail(src, &err);
        }
        return src->device_deadline_ns;
    case GW_SRC_HANDOVER:
        return gw_source_settle_step(src, now_ns);
    case GW_SRC_PAUSE:
    case GW_SRC_FINAL_SYNC:
    case GW_SRC_FINAL_SEND: {
        uint64_t chunks_ns = step_chunks(src, now_ns);
        uint64_t save_ns = GW_NEVER_NS;
        if (src->step != GW_SRC_PAUSE)
            save_ns = gw_source_packets_step(src, now_ns);
        if (src->step == GW_SRC_FINAL_SYNC || src->step == GW_SRC_FINAL_SEND)
            save_ns = gw_min_u64(save_ns, gw_source_save(src, now_ns));
        return gw_min_u64(gw_min_u64(chunks_ns, save_ns), judge_pause(src, now_ns));
    }
    case GW_SRC_LINGER:
    case GW_SRC_CLEANUP:
    case GW_SRC_OVER:
        break;
    }
    return GW_NEVER_NS;
}

uint64_t gw_source_step_now(struct gw_source *src, uint64_t now_ns)
{
    gw_mail_drain(&src->inbox, src);
    take_params(src);
    take_cancel(src);
    uint64_t link_ns = step_link(src, now_ns);
    uint64_t work_ns = gw_min_u64(step_work(src, now_ns), gw_source_judge_late(src, now_ns));
    uint64_t end_ns = src->step == GW_SRC_LINGER || src->step == GW_SRC_CLEANUP
                          ? end_step(src, now_ns)
                          : GW_NEVER_NS;
    if (src->page_count > 0 && src->step < GW_SRC_LINGER) {
        struct gw_sender_stats totals;
        uint64_t tx_bytes;
        gw_source_totals(src, &totals, &tx_bytes);
        end_ns = gw_min_u64(end_ns, now_ns + 50 * GW_NS_PER_MS); /* statistics stay fresh */
    }
    return gw_min_u64(gw_min_u64(link_ns, work_ns), end_ns);
}

static uint64_t step(void *engine, uint64_t now_ns)
{
    return gw_source_step_now(engine, now_ns);
}

static bool is_over(const void *engine)
{
    const struct gw_source *src = engine;
    return src->step == GW_SRC_OVER;
}

static int arm(void *engine, struct pollfd *fds, unsigned max, uint64_t *wake_ns)
{
    struct gw_source *src = engine;
    return src->control ? gw_ep_arm(src->control, fds, max, wake_ns) : 0;
}

static void awake(void *engine, const struct pollfd *fds, unsigned count)
{
    struct gw_source *src = engine;
    if (src->control)
        gw_ep_awake(src->control, fds, count);
}

static void end(void *engine)
{
    (void)engine; /* its last step has closed everything */
}

const struct gw_engine_ops gw_source_engine = {
    .step = step, .is_over = is_over, .arm = arm, .awake = awake, .end = end};
