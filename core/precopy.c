// SPDX-License-Identifier: MIT
/* Precopy: a round is "every owner sends its dirty pages, then a fence, and every device what it had when
 * the round began"; it is over when the target has joined the fences of all page endpoints and no device
 * has more. Then every owner's dirty log is synced, on the pool, every device is asked what is left, and
 * convergence judges: another round, the last one, or never. */
#include "core/source_chunks.h"
#include "core/source_packets.h"

#include "core/base/bytes.h"

#include <inttypes.h>
#include <stdio.h>

#define WISHES_BATCH 512u
#define DYING_NS (500 * GW_NS_PER_MS) /* emulated hosts were seen to need 300 ms */
#define UNKNOWN_MIB (1024.0 * 1024)   /* who has more does not know */

void gw_source_totals(struct gw_source *src, struct gw_sender_stats *totals, uint64_t *tx_bytes)
{
    *totals = (struct gw_sender_stats){0};
    *tx_bytes = 0;
    uint64_t copied = 0;
    uint64_t calls = 0;
    for (unsigned i = 0; i < src->page_count; i++) {
        struct gw_page_out_stats stats;
        gw_page_out_stats(src->pages[i], &stats);
        totals->normal_pages += stats.sender.normal_pages;
        totals->duplicate_pages += stats.sender.duplicate_pages;
        totals->bytes += stats.sender.bytes;
        *tx_bytes += stats.tx_bytes;
        copied += stats.copied_bytes;
        calls += stats.system_calls;
    }
    if (src->control) {
        struct gw_ep_attr attr;
        gw_ep_query(src->control, &attr);
        *tx_bytes += attr.tx_bytes;
        calls += attr.system_calls;
    }
    uint64_t now = gw_clock_ns();
    pthread_mutex_lock(&src->stats_lock);
    struct gw_stats *stats = &src->stats;
    stats->transferred_bytes = *tx_bytes;
    stats->normal_pages = totals->normal_pages;
    stats->duplicate_pages = totals->duplicate_pages;
    stats->copied_bytes = copied;
    stats->wire_system_calls = calls;
    if (src->chunks) {
        stats->registered_bytes_peak = gw_chunks_registered_peak(src->chunks);
        stats->chunks_needed = gw_chunks_made(src->chunks, &stats->chunks_ready);
    }
    if (src->channel)
        stats->control_messages = gw_channel_said(src->channel);
    if (src->step == GW_SRC_SEND || src->step == GW_SRC_FINAL_SEND) {
        uint64_t done = (totals->normal_pages - src->round_normal_before) +
                        (totals->duplicate_pages - src->round_duplicate_before);
        uint64_t left = src->round_dirty_pages > done ? src->round_dirty_pages - done : 0;
        uint64_t devices = src->pending.device_bytes;
        devices -= gw_min_u64(devices, src->round_device_bytes);
        left *= GW_PAGE_BYTES;
        stats->remaining_bytes = left + gw_min_u64(devices, UINT64_MAX - left);
        uint64_t ns = now - src->round_begun_ns;
        if (ns > 10 * GW_NS_PER_MS) {
            double seconds = (double)ns / 1e9;
            stats->mbps = (double)(totals->bytes - src->round_bytes_before) * 8 / 1e6 / seconds;
            stats->pages_per_second = (uint64_t)((double)done / seconds);
        }
    }
    if (src->pause_called_ns == 0)
        stats->precopy_bytes = totals->bytes;
    else
        stats->downtime_bytes = totals->bytes - stats->precopy_bytes;
    if (!(stats->status == GW_STATUS_COMPLETED))
        stats->total_ns = now - src->started_ns;
    pthread_mutex_unlock(&src->stats_lock);
}

/* ---- sending -------------------------------------------------------------------------------------- */

void gw_source_begin_round(struct gw_source *src, bool final)
{
    struct gw_sender_stats totals;
    uint64_t tx_bytes;
    uint64_t dirty = gw_ram_dirty_pages(src->ram); /* nobody sends or syncs now */
    gw_source_totals(src, &totals, &tx_bytes);
    src->round++;
    src->fenced_count = 0;
    src->joined = false;
    /* The first pass accounts for every page: holes leave as zeros without ever having a bit. */
    src->round_dirty_pages = src->round == 1 ? gw_ram_bytes(src->ram) / GW_PAGE_BYTES : dirty;
    src->round_bytes_before = totals.bytes;
    src->round_normal_before = totals.normal_pages;
    src->round_duplicate_before = totals.duplicate_pages;
    src->round_said_before = src->stats.control_messages; /* ours alone to write */
    src->round_begun_ns = gw_clock_ns();
    src->step = final ? GW_SRC_FINAL_SEND : GW_SRC_SEND;
    if (!final)
        gw_source_devices_begin_round(src);
    src->fence_is_last = final && !gw_source_packs(src);
    for (unsigned i = 0; i < src->page_count; i++)
        gw_page_out_begin(src->pages[i], src->round, src->round == 1, src->fence_is_last);
}

/* Where device state goes beside the stream, the last pages have a fence like any other, and the last fence
 * comes when both they and that state are there. */
void gw_source_maybe_last(struct gw_source *src)
{
    if (src->step != GW_SRC_FINAL_SEND || src->fence_is_last || !src->joined ||
        src->fenced_count < src->page_count || !gw_source_packets_are_loaded(src))
        return;
    src->round++;
    src->fenced_count = 0;
    src->joined = false;
    src->fence_is_last = true;
    for (unsigned i = 0; i < src->page_count; i++)
        gw_page_out_begin(src->pages[i], src->round, false, true);
}

void gw_source_first_round(struct gw_source *src)
{
    uint64_t now = gw_clock_ns();
    if (src->making && (src->params.pin_all || src->tracks_late) && src->step < GW_SRC_REGISTER) {
        src->step = GW_SRC_REGISTER; /* comes back when all is ready, or registered here */
        return;
    }
    pthread_mutex_lock(&src->stats_lock);
    src->stats.setup_ns = now - src->started_ns;
    src->stats.endpoints = src->page_count;
    pthread_mutex_unlock(&src->stats_lock);
    struct gw_error err = GW_ERROR_INIT;
    if (gw_source_packets_open(src, &err) < 0) {
        gw_source_fail(src, &err);
        return;
    }
    gw_source_status(src, GW_STATUS_ACTIVE);
    gw_source_begin_round(src, false);
    gw_source_wish(src, now);
}

/* Wishes go out far ahead of the data, in batches, and wait for nothing. */
uint64_t gw_source_wish(struct gw_source *src, uint64_t now_ns)
{
    static const unsigned batch = WISHES_BATCH;
    if (!src->chunks || src->wishes_done || !src->channel)
        return GW_NEVER_NS;
    struct gw_wish wishes[WISHES_BATCH];
    uint8_t buf[WISHES_BATCH * 32];
    struct gw_error err = GW_ERROR_INIT;
    for (;;) {
        struct gw_message msg = {.type = GW_MSG_WISHES};
        if (!gw_channel_has_room(src->channel, sizeof(buf) + GW_MESSAGE_HEADER_BYTES))
            return now_ns + GW_NS_PER_MS;
        int count = gw_chunks_wish(src->chunks, wishes, batch, &err);
        if (count < 0) {
            gw_source_fail(src, &err);
            return GW_NEVER_NS;
        }
        if (count == 0) {
            src->wishes_done = !src->making; /* there, what is wanted is wished for again */
            return GW_NEVER_NS;
        }
        struct gw_list_builder list = {.buf = buf, .bytes = sizeof(buf)};
        for (int i = 0; i < count; i++) {
            struct gw_range_msg range = {
                .block = wishes[i].block, .first = wishes[i].offset, .count = wishes[i].bytes};
            int rc = gw_list_add_range(&list, GW_MSG_WISHES, &range);
            gw_assert(rc == 0);
        }
        msg.u.list.data = list.buf;
        msg.u.list.bytes = list.used;
        if (gw_source_say(src, &msg) < 0)
            return GW_NEVER_NS;
    }
}

static void round_over(struct gw_source *src)
{
    struct gw_sender_stats totals;
    uint64_t tx_bytes;
    uint64_t now = gw_clock_ns();
    src->round_busy_ns = now - src->round_begun_ns;
    gw_source_totals(src, &totals, &tx_bytes);
    gw_source_begin_sync(src, false);
}

void gw_source_maybe_over(struct gw_source *src)
{
    if (src->step == GW_SRC_SEND && src->fenced_count == src->page_count && src->joined &&
        gw_source_devices_are_done(src))
        round_over(src);
}

void gw_source_on_fenced(void *engine, unsigned owner, uint32_t number)
{
    struct gw_source *src = engine;
    (void)owner;
    if (number != src->round || (src->step != GW_SRC_SEND && src->step != GW_SRC_FINAL_SEND))
        return;
    src->fenced_count++;
    if (src->fenced_count < src->page_count)
        return;
    if (src->step != GW_SRC_FINAL_SEND || !src->fence_is_last || !gw_source_packs(src))
        src->final_put_ns = gw_clock_ns(); /* of pages: a last fence of its own has none */
    if (src->step == GW_SRC_FINAL_SEND)
        gw_source_final_fenced(
            src); /* here alone: JOINED may come while devices are still being saved */
    else
        gw_source_maybe_over(src);
    gw_source_maybe_last(src);
}

void gw_source_on_joined(struct gw_source *src, uint32_t number)
{
    struct gw_error err = GW_ERROR_INIT;
    if (number != src->round || src->joined) {
        gw_fail(&err, -EPROTO, "JOINED %" PRIu32 " while fence %" PRIu32 " is out", number,
                src->round);
        gw_source_fail(src, &err);
        return;
    }
    src->joined = true;
    src->joined_ns = gw_clock_ns();
    gw_source_maybe_over(src);
    gw_source_maybe_last(src);
}

/* Before the round is judged for not coming to an end. */
static uint64_t dying_ns(const struct gw_source *src)
{
    return gw_min_u64(DYING_NS, src->params.device_timeout_ms * GW_NS_PER_MS / 2);
}

void gw_source_on_page_lost(void *engine, unsigned owner, const struct gw_error *err)
{
    struct gw_source *src = engine;
    /* Once every fence is joined nothing travels there any more. */
    if (src->step >= GW_SRC_STREAM && (src->joined || src->step >= GW_SRC_HANDOVER))
        return;
    if (src->making && src->step >= GW_SRC_FINAL_SEND &&
        gw_page_out_has_said_last(src->pages[owner])) {
        /* The target revokes an endpoint as soon as it has joined, and tells so on another. */
        if (!src->late_until_ns) {
            src->late_err = *err;
            src->late_until_ns = gw_clock_ns() + src->params.peer_timeout_ms * GW_NS_PER_MS;
        }
        return;
    }
    bool sends = src->step == GW_SRC_SEND && !src->joined;
    if (sends && src->late_until_ns && err->rc == -ECONNRESET)
        return; /* what the refusal below brought about, whoever is to blame: control tells who */
    if (sends && err->rc == -EACCES) {
        /* A process that dies may take its memory back before its connections: control tells whether it did.
         * Without this endpoint the round does not end. */
        if (!src->late_until_ns) {
            src->late_err = *err;
            src->late_until_ns = gw_clock_ns() + dying_ns(src);
        }
        return;
    }
    gw_source_fail(src, err);
}

uint64_t gw_source_judge_late(struct gw_source *src, uint64_t now_ns)
{
    if (!src->late_until_ns || src->joined || src->step >= GW_SRC_HANDOVER)
        return GW_NEVER_NS;
    if (now_ns >= src->late_until_ns)
        gw_source_fail(src, &src->late_err);
    return src->late_until_ns;
}

/* ---- syncing ---------------------------------------------------------------------------------------- */

static void sync_run(struct gw_job *job)
{
    struct gw_source_job *sync = GW_CONTAINER_OF(job, struct gw_source_job, job);
    uint64_t begun = gw_clock_ns();
    gw_error_clear(&sync->err);
    sync->found = 0;
    sync->rc = gw_dirty_sync(sync->src->ram, sync->owner, &sync->found, &sync->err);
    sync->took_ns = gw_clock_ns() - begun;
}

void gw_source_record_round(struct gw_source *src, uint64_t found, uint64_t dirtied_ns)
{
    struct gw_sender_stats totals;
    uint64_t tx_bytes;
    gw_source_totals(src, &totals, &tx_bytes);
    uint64_t rate =
        dirtied_ns ? (uint64_t)((unsigned __int128)found * GW_NS_PER_S / dirtied_ns) : 0;
    struct gw_round round = {
        .struct_bytes = sizeof(round),
        .number = src->round,
        .duration_ns = src->round_busy_ns,
        .dirty_pages = src->round_dirty_pages,
        .normal_pages = totals.normal_pages - src->round_normal_before,
        .duplicate_pages = totals.duplicate_pages - src->round_duplicate_before,
        .bytes = totals.bytes - src->round_bytes_before,
        .dirty_pages_rate = rate,
        .paused = src->pause_called_ns != 0,
        .control_messages = src->stats.control_messages - src->round_said_before,
    };
    pthread_mutex_lock(&src->stats_lock);
    if (src->round_count < GW_ROUNDS_KEPT)
        src->rounds[src->round_count] = round;
    src->round_count++;
    if (!round.paused) {
        src->stats.dirty_pages_rate = rate;
        src->stats.dirty_sync_count++;
    }
    pthread_mutex_unlock(&src->stats_lock);
    gw_source_tell_round(src, &round);
}

/* What devices have yet to send may need time rather than rounds. */
#define DEVICE_ROUND_NS (20 * GW_NS_PER_MS)

uint64_t gw_source_next_round(struct gw_source *src, uint64_t now_ns)
{
    if (src->step != GW_SRC_SYNC || src->next_round_ns == 0)
        return GW_NEVER_NS;
    if (now_ns < src->next_round_ns)
        return src->next_round_ns;
    src->next_round_ns = 0;
    gw_source_begin_round(src, false);
    return now_ns;
}

static void another_round(struct gw_source *src)
{
    uint64_t now = gw_clock_ns();
    bool waits = src->pending.device_bytes > 0 || !gw_source_acks_are_there(src);
    src->next_round_ns = waits ? gw_max_u64(now, src->round_begun_ns + DEVICE_ROUND_NS) : now;
    gw_source_next_round(src, now);
}

static void stalled(struct gw_source *src)
{
    const struct gw_converge *facts = &src->converge;
    char why[160];
    snprintf(why, sizeof(why), "dirties %.2f Gb/s, wire carries %.2f Gb/s",
             (double)facts->dirty_rate * 8 / 1e9, (double)facts->bandwidth * 8 / 1e9);
    if (!src->stall_told)
        gw_source_tell(src, GW_EVENT_STALL, NULL, "%s", why);
    src->stall_told = true;
    if (src->params.stall_action == GW_STALL_SWITCH) {
        gw_source_switch(src);
        return;
    }
    if (src->params.stall_action == GW_STALL_WAIT) {
        another_round(src);
        return;
    }
    struct gw_error err = GW_ERROR_INIT;
    double device_mib = (double)src->pending.device_bytes / (1 << 20);
    char of_devices[64] = "";
    if (device_mib > UNKNOWN_MIB)
        snprintf(of_devices, sizeof(of_devices), ": devices cannot tell how much they have");
    else if (device_mib > 0)
        snprintf(of_devices, sizeof(of_devices), ", %.1f MiB of it device state", device_mib);
    gw_fail_code(&err, -ETIME, GW_CODE_NO_CONVERGENCE,
                 "the guest %s: %.1f MiB would remain after every round%s", why,
                 (double)facts->remaining_bytes / (1 << 20), of_devices);
    gw_error_hint(
        &err,
        "raise downtime-limit to %" PRIu64
        " ms or max-bandwidth, slow the guest down, or set x-stall-action=switch",
        gw_converge_downtime_ns(
            facts, &(struct gw_converge_limits){.max_bandwidth = src->params.max_bandwidth}) /
                GW_NS_PER_MS +
            1);
    gw_source_fail(src, &err);
}

/* A device that goes on loading may take its time; one from which nothing is heard gets the device budget. */
static void wait_for_acks(struct gw_source *src)
{
    uint64_t now = gw_clock_ns();
    struct gw_error err = GW_ERROR_INIT;
    if (!src->ack_wait_told) {
        gw_source_tell(src, GW_EVENT_STALL, NULL,
                       "would pause the guest, but the target's devices have yet to acknowledge "
                       "that they are ready (%" PRIu32 " have not)",
                       src->acks_missing);
        src->loaded_ns = now;
    }
    src->ack_wait_told = true;
    if (now - src->loaded_ns < src->params.device_timeout_ms * GW_NS_PER_MS) {
        another_round(src);
        return;
    }
    gw_fail_code(&err, -ETIMEDOUT, GW_CODE_DEVICE,
                 "the target's devices did not acknowledge that the guest may be paused (%" PRIu32
                 " have not), and nothing was heard of them for %llu ms",
                 src->acks_missing, (unsigned long long)src->params.device_timeout_ms);
    gw_error_hint(&err,
                  "the target's log names them; a device that waits for what the source's has not "
                  "got must not ask for it, one that is slow needs a longer x-device-timeout");
    gw_source_fail(src, &err);
}

static void pending_finished(struct gw_source *src, int rc);

/* src->facts and src->pending are of the round that is over. */
static void judge(struct gw_source *src)
{
    struct gw_converge_limits limits = {
        .downtime_limit_ns = src->params.downtime_limit_ms * GW_NS_PER_MS,
        .max_bandwidth = src->params.max_bandwidth,
        .avail_switchover_bandwidth = src->params.avail_switchover_bandwidth,
    };
    src->facts.remaining_bytes = src->pending.bytes;
    struct gw_converge judged = src->converge;
    enum gw_converge_verdict verdict = gw_converge_judge(&judged, &src->facts, &limits);
    if (verdict == GW_CONVERGE_STALLED && src->round_was_cut)
        verdict = GW_CONVERGE_ROUND; /* what nobody knows may well have shrunk */
    if (verdict == GW_CONVERGE_SWITCH && src->has_handlers && !src->pending.is_exact) {
        gw_source_ask_pending(src, true, pending_finished); /* it is worth a longer look */
        return;
    }
    src->converge = judged;
    uint64_t expected = gw_converge_downtime_ns(&src->converge, &limits);
    pthread_mutex_lock(&src->stats_lock);
    src->stats.remaining_bytes = src->pending.bytes;
    src->stats.expected_downtime_ns = expected == GW_NEVER_NS ? 0 : expected;
    pthread_mutex_unlock(&src->stats_lock);
    bool would_switch =
        verdict == GW_CONVERGE_SWITCH ||
        (verdict == GW_CONVERGE_STALLED && src->params.stall_action == GW_STALL_SWITCH);
    if (would_switch && !gw_source_acks_are_there(src))
        wait_for_acks(src);
    else if (verdict == GW_CONVERGE_SWITCH)
        gw_source_switch(src);
    else if (verdict == GW_CONVERGE_STALLED)
        stalled(src);
    else
        another_round(src);
}

static void pending_finished(struct gw_source *src, int rc)
{
    if (src->step != GW_SRC_SYNC)
        return;
    if (rc < 0)
        gw_source_fail(src, &src->call.err);
    else
        judge(src);
}

static void round_synced(struct gw_source *src, uint64_t found)
{
    uint64_t now = gw_clock_ns();
    uint64_t dirtied_ns = now - src->armed_ns;
    src->armed_ns = now;
    struct gw_sender_stats totals;
    uint64_t tx_bytes;
    gw_source_totals(src, &totals, &tx_bytes);
    src->facts = (struct gw_round_facts){
        .sent_bytes = totals.bytes - src->round_bytes_before + src->round_device_bytes,
        .busy_ns = src->round_busy_ns,
        .dirtied_bytes = found * GW_PAGE_BYTES,
        .dirtied_ns = dirtied_ns,
    };
    gw_source_record_round(src, found, dirtied_ns);
    gw_source_ask_pending(src, false, pending_finished);
}

static void sync_done(struct gw_mail *mail, void *engine)
{
    struct gw_source *src = engine;
    struct gw_source_job *sync = GW_CONTAINER_OF(mail, struct gw_source_job, job.done);
    sync->busy = false;
    src->syncs_busy--;
    if (src->step != GW_SRC_SYNC && src->step != GW_SRC_FINAL_SYNC)
        return;
    if (sync->rc < 0) {
        gw_source_fail(src, &sync->err);
        return;
    }
    if (src->syncs_busy > 0)
        return;
    if (src->step == GW_SRC_FINAL_SYNC) {
        gw_source_final_synced(src);
        return;
    }
    uint64_t found = 0;
    for (unsigned i = 0; i < src->page_count; i++)
        found += src->sync[i].found;
    round_synced(src, found);
}

static void post_syncs(struct gw_source *src)
{
    src->syncs_busy = src->page_count;
    for (unsigned i = 0; i < src->page_count; i++) {
        src->sync[i].owner = i;
        gw_source_post(src, &src->sync[i], sync_run, sync_done);
    }
}

void gw_source_begin_sync(struct gw_source *src, bool final)
{
    src->step = final ? GW_SRC_FINAL_SYNC : GW_SRC_SYNC;
    src->sync_waits = gw_source_chunks_sync(src);
    if (!src->sync_waits)
        post_syncs(src);
}

void gw_source_sync_waits_no_more(struct gw_source *src)
{
    if (!src->sync_waits || gw_source_chunks_sync(src) ||
        (src->step != GW_SRC_SYNC && src->step != GW_SRC_FINAL_SYNC))
        return;
    src->sync_waits = false;
    post_syncs(src);
}
