// SPDX-License-Identifier: MIT
/* `godwit send URI`: build the built-in guest, let it run, migrate it, check its memory, report. The
 * main thread owns guest, loop and source: it sleeps in one poll, dispatches the library's callbacks
 * and draws progress. Whatever fails before the handover leaves the guest running here; it then runs
 * on for a second and is checked, so that a failed migration that damaged the guest is not taken for
 * a harmless one. After a success the frozen copy is checked, outside the pause. */
#include "tools/send.h"

#include "tools/events.h"
#include "tools/guest.h"
#include "tools/progress.h"
#include "tools/talk.h"
#include "tools/usage.h"

#include <errno.h>
#include <godwit/source.h>
#include <stdlib.h>
#include <string.h>

#define RUN_ON_NS GW_WAIT_NS_PER_S /* how long a guest that stayed is watched */

struct sender {
    const struct gw_options *options;
    struct gw_sent *sent;
    struct gw_guest *guest;
    bool started, running; /* the guest's vCPUs; running: not paused */
    struct gw_loop *loop;
    struct gw_dirty *dirty;
    struct gw_source *source;
    struct gw_wait wait;
    struct gw_progress progress;
    struct gw_events events;
    FILE *json;
    struct gw_usage begun, ended_usage; /* around total-time */
    bool stuck;                         /* the guest could not be resumed: it stays paused */
    bool ended, unknown, retake;        /* told by events */
    bool cancelled;                     /* the signal was passed on */
};

/* ---- callbacks -------------------------------------------------------------------------------- */

static int on_pause(void *ctx, struct gw_error *err)
{
    struct sender *sender = ctx;
    (void)err;

    gw_guest_pause(sender->guest);
    sender->running = false;
    return 0;
}

static int on_resume(void *ctx, struct gw_error *err)
{
    struct sender *sender = ctx;
    (void)err;

    gw_guest_resume(sender->guest);
    sender->running = true;
    return 0;
}

static void on_status(struct sender *sender, enum gw_status status)
{
    if (status == GW_STATUS_PRE_SWITCHOVER) {
        /* Nobody can be asked here; the state is in the events for who wants to see it. */
        gw_source_continue(sender->source);
    }
    if (status == GW_STATUS_COMPLETED || status == GW_STATUS_FAILED ||
        status == GW_STATUS_CANCELLED)
        gw_usage_take(&sender->ended_usage, sender->guest);
}

static void on_event(void *ctx, const struct gw_event *event)
{
    struct sender *sender = ctx;

    gw_events_write(&sender->events, event);
    switch (event->type) {
    case GW_EVENT_STATUS:
        on_status(sender, event->status);
        break;
    case GW_EVENT_ROUND:
        if (event->round)
            sender->progress.round = event->round->number + 1;
        break;
    case GW_EVENT_STALL:
        gw_talk_warn("it does not come to an end: %s", event->text);
        break;
    case GW_EVENT_CONNECTED:
        gw_talk_note("connected: %s", event->text);
        break;
    case GW_EVENT_WIRE:
        gw_talk_note("%s", event->text);
        break;
    case GW_EVENT_UNKNOWN:
        sender->unknown = true;
        gw_talk_warn("the outcome of the handover is not known: %s", event->text);
        break;
    case GW_EVENT_RETAKE:
        sender->retake = true;
        break;
    case GW_EVENT_ENDED:
        sender->ended = true;
        break;
    case GW_EVENT_HOLDING: /* a target's */
        break;
    }
}

static const struct gw_source_ops source_ops = {
    .struct_bytes = sizeof(source_ops),
    .pause = on_pause,
    .resume = on_resume,
    .event = on_event,
};

/* ---- building --------------------------------------------------------------------------------- */

static int add_parts(struct sender *sender, struct gw_error *err)
{
    struct gw_block_desc block = {.struct_bytes = sizeof(block)};
    struct gw_device_desc device = {.struct_bytes = sizeof(device)};
    int rc = 0;

    for (unsigned i = 0; rc >= 0 && i < gw_guest_block_count(sender->guest); i++) {
        gw_guest_block(sender->guest, i, &block);
        rc = gw_source_add_block(sender->source, &block, err);
    }
    for (unsigned i = 0; rc >= 0 && i < gw_guest_device_count(sender->guest); i++) {
        gw_guest_device(sender->guest, i, &device);
        rc = gw_source_add_device(sender->source, &device, err);
    }
    if (rc >= 0)
        rc = gw_source_add_dirty(sender->source, gw_dirty_kernel_ops(sender->dirty), sender->dirty,
                                 err);
    return rc < 0 ? rc : 0;
}

static int build_source(struct sender *sender, struct gw_error *err)
{
    struct gw_log log = gw_talk_log();
    struct gw_source_config config = {
        .struct_bytes = sizeof(config),
        .ops = &source_ops,
        .ctx = sender,
        .params = sender->options->params,
        .log = &log,
    };

    int rc = gw_loop_new(&sender->loop, err);
    if (rc < 0)
        return rc;
    config.loop = sender->wait.loop = sender->loop;
    rc = gw_dirty_open(GW_DIRTY_AUTO, &log, &sender->dirty, err);
    if (rc == 0)
        rc = gw_source_new(&config, &sender->source, err);
    return rc == 0 ? add_parts(sender, err) : rc;
}

static int build_guest(struct sender *sender, struct gw_error *err)
{
    int rc = gw_guest_new(&sender->options->guest, &sender->guest, err);

    if (rc == 0 && sender->options->disk)
        rc = gw_guest_add_disk(sender->guest, sender->options->disk, err);
    if (rc == 0)
        rc = gw_guest_start(sender->guest, err);
    sender->started = sender->running = rc == 0;
    return rc;
}

static int warm_up(struct sender *sender, struct gw_error *err)
{
    double ns = sender->options->warmup_s * (double)GW_WAIT_NS_PER_S;

    if (gw_wait_until(&sender->wait, gw_wait_now_ns() + (uint64_t)ns))
        return 0;
    return gw_error_set(err, -ECANCELED, GW_CODE_CANCELLED, "cancelled before the migration began");
}

/* ---- migrating -------------------------------------------------------------------------------- */

static void pass_signal_on(struct sender *sender)
{
    if (!sender->wait.signalled || sender->cancelled)
        return;
    sender->cancelled = true;
    if (gw_source_cancel(sender->source) == -EALREADY)
        gw_talk_note("too late to cancel: the outcome is the target's (again: kill)");
    else
        gw_talk_note("cancelling (again: kill)");
}

/* The guest stays paused because what was released was not taken back: one more try. */
static void take_back(struct sender *sender)
{
    struct gw_error err = GW_ERROR_INIT;

    sender->retake = false;
    if (gw_source_resolve(sender->source, GW_RESOLVE_RESUME, &err) < 0) {
        gw_talk_show("the guest stays paused", &err);
        sender->ended = sender->stuck = true;
    }
}

static bool is_waiting(const struct sender *sender)
{
    if (sender->ended)
        return false;
    return !sender->unknown || (sender->options->hold && !sender->wait.signalled);
}

/* The last event is told a moment before wait() knows of the end: ask until it does. */
static int outcome(struct sender *sender, struct gw_error *err)
{
    int rc;

    do
        rc = gw_source_wait(sender->source, 10, err);
    while (rc == -EINPROGRESS && sender->ended && !sender->stuck);
    return rc;
}

static int migrate(struct sender *sender, const char *uri, struct gw_error *err)
{
    struct gw_stats stats = {.struct_bytes = sizeof(stats)};

    gw_usage_take(&sender->begun, sender->guest);
    int rc = gw_source_start(sender->source, uri, err);
    if (rc < 0)
        return rc;
    gw_progress_init(&sender->progress, false, gw_wait_now_ns());
    while (is_waiting(sender)) {
        gw_wait_step(&sender->wait, sender->progress.next_ns);
        pass_signal_on(sender);
        if (sender->retake)
            take_back(sender);
        gw_source_stats(sender->source, &stats);
        gw_progress_tick(&sender->progress, &stats, gw_wait_now_ns());
    }
    gw_progress_end();
    return outcome(sender, err);
}

/* ---- afterwards ------------------------------------------------------------------------------- */

static void collect(struct sender *sender)
{
    struct gw_report *report = &sender->sent->report;
    unsigned count = gw_source_rounds(sender->source, NULL, 0);

    gw_source_stats(sender->source, &report->stats);
    sender->sent->rounds = calloc(count ? count : 1, sizeof(struct gw_round));
    if (sender->sent->rounds) {
        sender->sent->rounds[0].struct_bytes = sizeof(struct gw_round);
        unsigned now = gw_source_rounds(sender->source, sender->sent->rounds, count);
        report->round_count = now < count ? now : count;
        /* The library keeps so many and counts the others. */
        while (report->round_count > 0 && sender->sent->rounds[report->round_count - 1].number == 0)
            report->round_count--;
        report->rounds = sender->sent->rounds;
    }
    gw_usage_between(&sender->begun, &sender->ended_usage, &report->user_ns, &report->system_ns);
}

static void check_guest(struct sender *sender, bool stayed)
{
    struct gw_report *report = &sender->sent->report;
    struct gw_error err = GW_ERROR_INIT;
    uint64_t until_ns = gw_wait_now_ns() + RUN_ON_NS;

    if (stayed && sender->running) {
        sender->wait.signalled = true; /* it was passed on: nothing is left to cancel */
        while (gw_wait_now_ns() < until_ns)
            gw_wait_step(&sender->wait, until_ns);
    }
    gw_guest_pause(sender->guest);
    int rc = gw_guest_verify(sender->guest, &err);
    report->guest.verified = rc == 0 ? GW_CHECKED_GOOD : GW_CHECKED_BAD;
    if (rc == 0)
        return;
    gw_talk_show("the guest's memory is not what it must be", &err);
    report->error = err;
    sender->sent->status = GW_EXIT_CHECK;
}

static int status_of(int rc)
{
    switch (rc) {
    case 0:
        return GW_EXIT_COMPLETED;
    case -ECANCELED:
        return GW_EXIT_CANCELLED;
    case -EINPROGRESS:
        return GW_EXIT_UNKNOWN;
    default:
        return GW_EXIT_FAILED;
    }
}

/* The guest that was asked for cannot be: a size that does not fit, a file that is not there. */
static bool is_usage(int rc)
{
    return rc == -EINVAL || rc == -ENOENT || rc == -EACCES;
}

static void describe_guest(struct sender *sender)
{
    struct gw_report *report = &sender->sent->report;
    struct gw_guest_stats stats;

    report->guest.ram_bytes = sender->options->guest.ram_bytes;
    report->guest.vcpus = sender->options->guest.vcpus;
    if (report->stats.total_bytes == 0)
        report->stats.total_bytes = gw_guest_total_bytes(report->guest.ram_bytes);
    if (!sender->guest)
        return;
    gw_guest_stats(sender->guest, &stats);
    report->guest.writes = stats.writes;
}

static void close_sender(struct sender *sender)
{
    gw_source_free(sender->source);
    gw_dirty_close(sender->dirty);
    gw_loop_free(sender->loop);
    gw_guest_free(sender->guest);
    gw_events_close(&sender->events);
    gw_report_close(sender->json);
}

static int open_outputs(struct sender *sender, struct gw_error *err)
{
    int rc = gw_report_open(sender->options->json, &sender->json, err);

    return rc == 0 ? gw_events_open(&sender->events, sender->options->events, err) : rc;
}

static void run(struct sender *sender, const char *uri)
{
    struct gw_sent *sent = sender->sent;
    struct gw_error *err = &sent->report.error;

    int rc = build_guest(sender, err);
    if (rc == 0)
        rc = build_source(sender, err);
    if (rc == 0)
        rc = warm_up(sender, err);
    if (rc == 0) {
        rc = migrate(sender, uri, err);
        collect(sender);
    }
    sent->status = !sender->started && is_usage(rc) ? GW_EXIT_USAGE : status_of(rc);
    if (rc == 0)
        *err = (struct gw_error)GW_ERROR_INIT;
    else
        gw_talk_show(rc == -ECANCELED ? "cancelled" : "failed", err);
    if (rc != -EINPROGRESS && sender->started)
        check_guest(sender, rc != 0);
    describe_guest(sender);
    gw_report_settle(&sent->report, sent->status == GW_EXIT_CANCELLED);
}

int gw_send_guest(const struct gw_options *options, const char *uri, const struct gw_wait *beside,
                  struct gw_sent *sent)
{
    struct sender sender = {.options = options, .sent = sent, .wait = {.fd = -1}};
    struct gw_error err = GW_ERROR_INIT;

    if (beside)
        sender.wait = *beside;
    *sent = (struct gw_sent){.status = GW_EXIT_FAILED};
    sent->report = (struct gw_report){
        .role = "source",
        .uri = uri,
        .stats = {.struct_bytes = sizeof(struct gw_stats)},
        .error = GW_ERROR_INIT,
    };
    if (open_outputs(&sender, &err) < 0) {
        sent->status = gw_talk_usage(err.hint, "%s", err.message);
        sent->report.error = err;
    } else {
        run(&sender, uri);
        if (gw_report_write(&sent->report, sender.json, &err) < 0) {
            gw_talk_show("", &err);
            if (sent->status == GW_EXIT_COMPLETED) {
                sent->status = GW_EXIT_FAILED;
                sent->report.error = err;
            }
        }
    }
    close_sender(&sender);
    return sent->status;
}

void gw_sent_fini(struct gw_sent *sent)
{
    free(sent->rounds);
    sent->rounds = NULL;
}

static void set_defaults(struct gw_options *options)
{
    gw_params_set(options->params, "x-stall-action", "fail", NULL);
}

static int run_command(const struct gw_options *options)
{
    struct gw_sent sent;
    int status = gw_options_check_uri(options);

    if (status >= 0)
        return status;
    status = gw_send_guest(options, options->uri, NULL, &sent);
    gw_sent_fini(&sent);
    return status;
}

const struct gw_command gw_cmd_send = {
    .name = "send",
    .bit = GW_FOR_SEND,
    .operand = "URI",
    .summary = "run a built-in guest here and migrate it to URI",
    .hears_signals = true,
    .set_defaults = set_defaults,
    .run = run_command,
};
