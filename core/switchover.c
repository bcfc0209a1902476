// SPDX-License-Identifier: MIT
/* Switchover: pre-switchover if asked for, pause, last sync, last pages, device state, PREPARE.
 *
 * Device state is saved on the embedder's thread (source_devices.c) while the last pages are synced and
 * sent; it goes out right behind the last fence, without waiting for it to be joined: the target joins
 * before it accepts RAM END. Until PREPARED everything can be undone by resuming. */
#include "core/source_packets.h"

#include "core/base/bytes.h"

#include <string.h>
#include <sys/random.h>

void gw_source_switch(struct gw_source *src)
{
    if (src->params.pause_before_switchover &&
        !atomic_load_explicit(&src->continue_asked, memory_order_acquire)) {
        src->step = GW_SRC_PRE_SWITCHOVER;
        gw_source_status(src, GW_STATUS_PRE_SWITCHOVER);
        return;
    }
    gw_source_pause(src);
}

/* ---- pause -------------------------------------------------------------------------------------- */

static int pause_run(struct gw_source *src, struct gw_error *err)
{
    return src->ops.pause(src->ctx, err);
}

static void final_run(struct gw_job *job)
{
    struct gw_source *src = GW_CONTAINER_OF(job, struct gw_source, work.job);
    gw_error_clear(&src->work.err);
    src->work.rc = gw_dirty_final(src->ram, &src->work.err);
}

static void final_done(struct gw_mail *mail, void *engine)
{
    struct gw_source *src = engine;
    (void)mail;
    src->work.busy = false;
    if (src->step != GW_SRC_FINAL_SYNC)
        return;
    if (src->work.rc < 0) {
        gw_source_fail(src, &src->work.err);
        return;
    }
    gw_source_begin_sync(src, true);
}

static void pause_finished(struct gw_source *src, int rc)
{
    pthread_mutex_lock(&src->stats_lock);
    src->stats.downtime.pause_ns = src->call.took_ns;
    pthread_mutex_unlock(&src->stats_lock);
    src->paused = rc == 0;
    if (src->step != GW_SRC_PAUSE) {
        /* Backed out while the callback ran: take the pause back, if there is one. */
        gw_source_back_out(src);
        return;
    }
    if (rc < 0) {
        gw_error_hint(&src->call.err,
                      "the pause callback failed; the guest is taken to be running");
        gw_source_fail(src, &src->call.err);
        return;
    }
    src->step = GW_SRC_FINAL_SYNC;
    src->sync_begun_ns = gw_clock_ns();
    gw_source_post(src, &src->work, final_run, final_done);
    gw_source_packets_begin(src);
    if (src->step == GW_SRC_FINAL_SYNC)
        gw_source_save(src, src->sync_begun_ns);
}

void gw_source_pause(struct gw_source *src)
{
    gw_source_status(src, GW_STATUS_DEVICE);
    src->step = GW_SRC_PAUSE;
    src->pause_called_ns = gw_clock_ns();
    gw_source_event(src, GW_HSE_PAUSE_CALLED);
    if (src->params.avail_switchover_bandwidth)
        gw_throttle_set(&src->throttle, src->params.avail_switchover_bandwidth);
    gw_source_ask(src, pause_run, pause_finished);
}

/* ---- device state --------------------------------------------------------------------------------- */

static void digest_run(struct gw_job *job)
{
    struct gw_source *src = GW_CONTAINER_OF(job, struct gw_source, work.job);
    uint64_t begun = gw_clock_ns();
    uint8_t digest[GW_DIGEST_BYTES];
    gw_error_clear(&src->work.err);
    src->work.rc = gw_ram_digest(src->ram, digest, NULL, &src->work.err);
    src->work.took_ns = gw_clock_ns() - begun;
    pthread_mutex_lock(&src->stats_lock);
    memcpy(src->stats.digest, digest, sizeof(digest));
    src->stats.has_digest = src->work.rc == 0;
    src->stats.downtime.digest_ns = src->work.took_ns;
    pthread_mutex_unlock(&src->stats_lock);
}

static void digest_done(struct gw_mail *mail, void *engine)
{
    struct gw_source *src = engine;
    (void)mail;
    src->work.busy = false;
    if (src->step != GW_SRC_STREAM)
        return;
    if (src->work.rc < 0) {
        gw_source_fail(src, &src->work.err);
        return;
    }
    src->digest_done = true;
    gw_source_stream_step(src);
}

/* Both the last fence is out and the devices are saved, or as much of them as may wait: from here on it
 * streams. */
static void begin_stream(struct gw_source *src)
{
    if (src->step != GW_SRC_FINAL_SEND || src->call.busy || src->fenced_count < src->page_count ||
        !src->fence_is_last)
        return;
    src->step = GW_SRC_STREAM;
    src->stream_begun_ns = gw_clock_ns();
    pthread_mutex_lock(&src->stats_lock);
    /* What of saving ran beside the last sync and the last pages is theirs. */
    src->stats.downtime.device_save_ns = src->stream_begun_ns - src->final_put_ns;
    pthread_mutex_unlock(&src->stats_lock);
    src->digest_done = !src->params.digest;
    if (src->params.digest)
        gw_source_post(src, &src->work, digest_run, digest_done);
    gw_source_stream_step(src);
}

void gw_source_saved(struct gw_source *src)
{
    if (src->step == GW_SRC_STREAM)
        gw_source_stream_step(src);
    else
        begin_stream(src);
}

/* ---- the last pages ----------------------------------------------------------------------------------- */

void gw_source_final_synced(struct gw_source *src)
{
    uint64_t now = gw_clock_ns();
    pthread_mutex_lock(&src->stats_lock);
    src->stats.downtime.sync_ns = now - src->sync_begun_ns;
    src->stats.dirty_sync_count++;
    pthread_mutex_unlock(&src->stats_lock);
    gw_source_begin_round(src, true);
}

void gw_source_final_fenced(struct gw_source *src)
{
    if (src->fence_is_last && gw_source_packs(src)) { /* the pages' own fence was the one before */
        begin_stream(src);
        return;
    }
    pthread_mutex_lock(&src->stats_lock);
    src->stats.downtime.puts_ns = src->final_put_ns - src->round_begun_ns;
    pthread_mutex_unlock(&src->stats_lock);
    src->round_busy_ns = src->final_put_ns - src->round_begun_ns;
    gw_source_record_round(src, 0, 0);
    begin_stream(src);
}

/* ---- the stream ------------------------------------------------------------------------------------------ */

static void send_prepare(struct gw_source *src)
{
    struct gw_message msg = {.type = GW_MSG_PREPARE};
    struct gw_error err = GW_ERROR_INIT;
    if (getrandom(src->token.random, sizeof(src->token.random), 0) !=
        (ssize_t)sizeof(src->token.random)) {
        gw_fail(&err, -errno, "token");
        gw_source_fail(src, &err);
        return;
    }
    msg.u.prepare.token = src->token;
    msg.u.prepare.fence = src->round;
    msg.u.prepare.has_digest = src->params.digest;
    memcpy(msg.u.prepare.digest, src->stats.digest, sizeof(msg.u.prepare.digest));
    if (gw_source_say(src, &msg) < 0)
        return;
    src->prepare_sent = true;
    src->prepare_sent_ns = gw_clock_ns();
    src->device_deadline_ns = src->prepare_sent_ns + src->params.device_timeout_ms * GW_NS_PER_MS;
    src->step = GW_SRC_PREPARE;
}

void gw_source_stream_step(struct gw_source *src)
{
    if (gw_source_stream_items(src) && src->items_saved && src->digest_done)
        send_prepare(src);
}

static uint64_t take(uint64_t *left_ns, uint64_t wanted_ns)
{
    uint64_t ns = gw_min_u64(*left_ns, wanted_ns);
    *left_ns -= ns;
    return ns;
}

/* From the stream's first byte to PREPARED both sides work at once. A moment that two rows could have
 * is the first's of these: revoke and load, digest, fences. */
static void enter_prepared(struct gw_source *src, const struct gw_message *msg)
{
    uint64_t left_ns = gw_clock_ns() - src->stream_begun_ns;
    uint64_t joining_ns = src->joined_ns - gw_min_u64(src->stream_begun_ns, src->joined_ns);
    pthread_mutex_lock(&src->stats_lock);
    struct gw_ledger *row = &src->stats.downtime;
    uint64_t digest_ns = gw_max_u64(row->digest_ns, msg->u.prepare.digest_ns);
    row->revoke_ns = take(&left_ns, msg->u.prepare.revoke_ns);
    row->device_load_ns = take(&left_ns, msg->u.prepare.load_ns);
    row->digest_ns = take(&left_ns, digest_ns);
    row->fences_ns = take(&left_ns, joining_ns);
    pthread_mutex_unlock(&src->stats_lock);
}

void gw_source_on_prepared(struct gw_source *src, const struct gw_message *msg)
{
    struct gw_error err = GW_ERROR_INIT;
    if (src->step != GW_SRC_PREPARE ||
        memcmp(&msg->u.prepare.token, &src->token, sizeof(src->token)) != 0) {
        gw_fail(&err, -EPROTO, "PREPARED that was not asked for");
        gw_source_fail(src, &err);
        return;
    }
    if (src->params.digest &&
        (!msg->u.prepare.has_digest || memcmp(msg->u.prepare.digest, src->stats.digest, 16) != 0)) {
        gw_fail_code(&err, -EBADMSG, GW_CODE_DIGEST, "memory at the target differs from ours");
        gw_source_fail(src, &err);
        return;
    }
    enter_prepared(src, msg);
    src->step = GW_SRC_HANDOVER;
    gw_source_event(src, GW_HSE_PREPARED);
}
