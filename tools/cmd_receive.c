// SPDX-License-Identifier: MIT
/* `godwit receive URI`: wait for a guest, take it, let it run, check it, report. The library listens
 * and places memory from threads of its own; the main thread answers its callbacks, watches signals
 * and the clock.
 *
 * The memory is checked twice. A check takes seconds and both CPUs, so none lies inside the downtime:
 * the first begins once the source has heard RUNNING (or a moment later, if it never says so), stops
 * the vCPUs while it looks, and lets them write on; the second follows --run-for seconds later. Pages
 * that the vCPUs rewrote whole between RUNNING and the first check are those writes' proof only;
 * --digest compares every byte before the guest runs. */
#include "tools/events.h"
#include "tools/options.h"
#include "tools/progress.h"
#include "tools/report.h"
#include "tools/talk.h"
#include "tools/usage.h"
#include "tools/wait.h"

#include <arpa/inet.h>
#include <errno.h>
#include <godwit/target.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define CHECK_AFTER_NS (GW_WAIT_NS_PER_S / 4) /* of run(), unless the source was heard before */

struct receiver {
    const struct gw_options *options;
    char uri[1200]; /* listened on; with the real port once it is known */
    struct gw_guest_reserve *reserve;
    struct gw_loop *loop;
    struct gw_events events;
    FILE *json;
    struct gw_wait wait;
    bool warned; /* that others can reach the address */

    /* One guest's. */
    struct gw_target *target;
    struct gw_guest *guest;
    struct gw_report report;
    struct gw_progress progress;
    struct gw_usage begun, ended_usage;
    bool met, ended, cancelled; /* hello was complete; it is over; the signal was passed on */
    uint64_t ran_ns;            /* when the vCPUs were started; 0: not yet */
};

/* ---- callbacks -------------------------------------------------------------------------------- */

static int on_block(void *ctx, const struct gw_block_offer *offer, struct gw_block_desc *desc,
                    struct gw_error *err)
{
    struct receiver *receiver = ctx;
    bool ours = receiver->reserve || receiver->options->memory_given;
    enum gw_block_kind kind = ours ? receiver->options->memory : offer->kind;
    struct gw_block_desc block = {.struct_bytes = sizeof(block)};

    int rc = gw_guest_offer(receiver->guest, offer->name, offer->size_bytes, offer->page_bytes,
                            kind, &block, err);
    if (rc < 0)
        return rc;
    desc->host = block.host;
    desc->page_bytes = block.page_bytes;
    desc->kind = block.kind;
    desc->fd = block.fd;
    desc->fd_offset = block.fd_offset;
    return 0;
}

/* What can fail of a start fails here, where the source can still be told to go on with the guest. */
static int on_acquire(void *ctx, struct gw_error *err)
{
    struct receiver *receiver = ctx;

    return gw_guest_start_paused(receiver->guest, err);
}

static int on_run(void *ctx, struct gw_error *err)
{
    struct receiver *receiver = ctx;
    (void)err;

    gw_guest_resume(receiver->guest);
    receiver->ran_ns = gw_wait_now_ns();
    return 0;
}

static void on_event(void *ctx, const struct gw_event *event)
{
    struct receiver *receiver = ctx;

    gw_events_write(&receiver->events, event);
    switch (event->type) {
    case GW_EVENT_CONNECTED:
        receiver->met = true;
        gw_usage_take(&receiver->begun, receiver->guest);
        gw_progress_init(&receiver->progress, true, gw_wait_now_ns());
        gw_talk_note("connected: %s", event->text);
        break;
    case GW_EVENT_HOLDING:
        gw_talk_warn("the source is gone: the loaded guest is held: %s", event->text);
        break;
    case GW_EVENT_STATUS:
        if (event->status == GW_STATUS_COMPLETED)
            gw_usage_take(&receiver->ended_usage, receiver->guest);
        break;
    case GW_EVENT_ENDED:
        receiver->ended = true;
        break;
    case GW_EVENT_ROUND:
    case GW_EVENT_STALL:
    case GW_EVENT_UNKNOWN:
    case GW_EVENT_WIRE:
    case GW_EVENT_RETAKE: /* a source's */
        break;
    }
}

static const struct gw_target_ops target_ops = {
    .struct_bytes = sizeof(target_ops),
    .block_offered = on_block,
    .acquire = on_acquire,
    .run = on_run,
    .event = on_event,
};

/* ---- listening -------------------------------------------------------------------------------- */

/* "tcp:[::1]:4444": only this host can reach it. What is not an address (a path) cannot be reached
 * from elsewhere either; a name that is left unresolved could. */
static bool is_loopback(const char *uri)
{
    char host[256];
    struct in6_addr v6;
    struct in_addr v4;

    if (sscanf(uri, "tcp:[%255[^]%%]", host) == 1 && inet_pton(AF_INET6, host, &v6) == 1)
        return IN6_IS_ADDR_LOOPBACK(&v6) || (IN6_IS_ADDR_V4MAPPED(&v6) && v6.s6_addr[12] == 127);
    if (sscanf(uri, "tcp:%255[^:]", host) == 1) {
        if (inet_pton(AF_INET, host, &v4) == 1)
            return ntohl(v4.s_addr) >> 24 == 127;
        return strcmp(host, "localhost") == 0;
    }
    return true;
}

static int make_target(struct receiver *receiver, struct gw_error *err)
{
    struct gw_device_desc device = {.struct_bytes = sizeof(device)};
    struct gw_log log = gw_talk_log();
    int rc = gw_guest_new_incoming(receiver->reserve, &receiver->guest, err);
    if (rc == 0 && receiver->options->disk)
        rc = gw_guest_add_disk(receiver->guest, receiver->options->disk, err);
    if (rc < 0)
        return rc;
    const struct gw_target_config config = {
        .struct_bytes = sizeof(config),
        .loop = receiver->loop,
        .ops = &target_ops,
        .ctx = receiver,
        .params = receiver->options->params,
        .log = &log,
        .ram_bytes_max = receiver->options->ram_bytes_max
                             ? gw_guest_total_bytes(receiver->options->ram_bytes_max) +
                                   gw_guest_extra_bytes(receiver->guest)
                             : 0, /* the limit is of the guest's memory: its table comes on top */
    };

    rc = gw_target_new(&config, &receiver->target, err);
    for (unsigned i = 0; rc == 0 && i < gw_guest_device_count(receiver->guest); i++) {
        gw_guest_device(receiver->guest, i, &device);
        rc = gw_target_add_device(receiver->target, &device, err);
    }
    return rc;
}

static int listen_for_guest(struct receiver *receiver, struct gw_error *err)
{
    int rc = make_target(receiver, err);

    if (rc == 0)
        rc = gw_target_listen(receiver->target, receiver->uri, err);
    if (rc < 0)
        return rc;
    snprintf(receiver->uri, sizeof(receiver->uri), "%s", gw_target_uri(receiver->target));
    gw_talk_line("listening on %s", receiver->uri);
    if (!receiver->warned && !is_loopback(receiver->uri))
        gw_talk_warn("%s can be reached from other hosts, and neither encrypts nor asks who comes: "
                     "use it on a network that you trust",
                     receiver->uri);
    receiver->warned = true;
    return 0;
}

/* ---- one guest -------------------------------------------------------------------------------- */

static void pass_signal_on(struct receiver *receiver)
{
    if (!receiver->wait.signalled || receiver->cancelled)
        return;
    receiver->cancelled = true;
    if (gw_target_cancel(receiver->target) == -EALREADY)
        gw_talk_note("the guest runs here: too late to cancel (again: kill)");
    else
        gw_talk_note("cancelling (again: kill)");
}

static void draw(struct receiver *receiver)
{
    struct gw_stats stats = {.struct_bytes = sizeof(stats)};

    if (!receiver->met || receiver->ran_ns)
        return;
    gw_target_stats(receiver->target, &stats);
    gw_progress_tick(&receiver->progress, &stats, gw_wait_now_ns());
}

static void step(struct receiver *receiver, uint64_t wake_ns)
{
    bool drawing = receiver->met && !receiver->ran_ns;

    if (drawing && receiver->progress.next_ns < wake_ns)
        wake_ns = receiver->progress.next_ns;
    gw_wait_step(&receiver->wait, wake_ns);
    pass_signal_on(receiver);
    draw(receiver);
}

static int check(struct receiver *receiver, struct gw_error *err)
{
    gw_guest_pause(receiver->guest);
    return gw_guest_verify(receiver->guest, err);
}

/* The guest runs here. Check what arrived, let it write on, check again. */
static int watch_guest(struct receiver *receiver, struct gw_error *err)
{
    uint64_t run_ns = (uint64_t)(receiver->options->run_for_s * (double)GW_WAIT_NS_PER_S);

    gw_progress_end();
    while (!receiver->ended && gw_wait_now_ns() < receiver->ran_ns + CHECK_AFTER_NS)
        step(receiver, receiver->ran_ns + CHECK_AFTER_NS);
    if (check(receiver, err) < 0) {
        gw_talk_show("the memory that arrived is not what was sent", err);
        return -EBADMSG;
    }
    gw_guest_resume(receiver->guest);
    uint64_t until_ns = gw_wait_now_ns() + run_ns;
    while (!receiver->wait.signalled && gw_wait_now_ns() < until_ns)
        step(receiver, until_ns);
    if (check(receiver, err) < 0) {
        gw_talk_show("the guest's memory is not what it must be after running here", err);
        return -EBADMSG;
    }
    return 0;
}

static int status_of(int rc)
{
    if (rc == 0)
        return GW_EXIT_COMPLETED;
    return rc == -ECANCELED ? GW_EXIT_CANCELLED : GW_EXIT_FAILED;
}

/* The last event is told a moment before wait() knows of the end: ask until it does. */
static int outcome(struct receiver *receiver, struct gw_error *err)
{
    int rc;

    do
        rc = gw_target_wait(receiver->target, 10, err);
    while (rc == -EINPROGRESS);
    return rc;
}

static void describe(struct receiver *receiver)
{
    struct gw_report *report = &receiver->report;
    struct gw_guest_stats stats = {0};

    gw_target_stats(receiver->target, &report->stats);
    gw_guest_stats(receiver->guest, &stats);
    report->guest.ram_bytes = stats.ram_bytes;
    report->guest.vcpus = stats.vcpus;
    report->guest.writes = stats.writes;
    if (receiver->met && receiver->ended_usage.user_ns + receiver->ended_usage.system_ns == 0)
        gw_usage_take(&receiver->ended_usage, receiver->guest);
    gw_usage_between(&receiver->begun, &receiver->ended_usage, &report->user_ns,
                     &report->system_ns);
}

/* From listening to the target's last word. Return: the exit status. */
static int take_guest(struct receiver *receiver)
{
    struct gw_report *report = &receiver->report;
    int checked = 0;

    while (!receiver->ended && !receiver->ran_ns)
        step(receiver, GW_WAIT_FOREVER);
    if (receiver->ran_ns) {
        checked = watch_guest(receiver, &report->error);
        report->guest.verified = checked == 0 ? GW_CHECKED_GOOD : GW_CHECKED_BAD;
    }
    /* The source may still ask how it ended: the library goes on answering. */
    while (!receiver->ended)
        step(receiver, GW_WAIT_FOREVER);
    gw_progress_end();
    describe(receiver);
    if (checked < 0)
        return GW_EXIT_CHECK;
    int rc = outcome(receiver, &report->error);
    if (rc < 0)
        gw_talk_show(rc == -ECANCELED ? "cancelled" : "failed", &report->error);
    else
        report->error = (struct gw_error)GW_ERROR_INIT;
    return status_of(rc);
}

static void drop_guest(struct receiver *receiver)
{
    gw_target_free(receiver->target);
    gw_guest_free(receiver->guest);
    receiver->target = NULL;
    receiver->guest = NULL;
    receiver->met = receiver->ended = false;
    receiver->ran_ns = 0;
    receiver->begun = receiver->ended_usage = (struct gw_usage){0};
}

/* Return: @status, or failed where it was completed and the document is not there. */
static int write_report(struct receiver *receiver, int status)
{
    struct gw_error err = GW_ERROR_INIT;

    gw_report_settle(&receiver->report, status == GW_EXIT_CANCELLED);
    if (gw_report_write(&receiver->report, receiver->json, &err) == 0)
        return status;
    gw_talk_show("", &err);
    return status == GW_EXIT_COMPLETED ? GW_EXIT_FAILED : status;
}

static void new_report(struct receiver *receiver)
{
    receiver->report = (struct gw_report){
        .role = "target",
        .uri = receiver->uri,
        .stats = {.struct_bytes = sizeof(struct gw_stats)},
        .error = GW_ERROR_INIT,
    };
}

/* ---- the command ------------------------------------------------------------------------------ */

static void show_no_listener(struct receiver *receiver)
{
    struct gw_error *err = &receiver->report.error;

    if (err->place[0] == '\0')
        snprintf(err->place, sizeof(err->place), "%.90s", receiver->uri);
    gw_talk_show("cannot listen", err);
}

/* @listened: it got so far as to wait for a guest, so it makes sense to wait for another. */
static int serve_one(struct receiver *receiver, bool *listened)
{
    new_report(receiver);
    int rc = listen_for_guest(receiver, &receiver->report.error);
    int status = rc == -EINVAL ? GW_EXIT_USAGE : GW_EXIT_FAILED;
    *listened = rc == 0;
    if (rc == 0)
        status = take_guest(receiver);
    else
        show_no_listener(receiver);
    status = write_report(receiver, status);
    drop_guest(receiver);
    if (rc == 0 && receiver->reserve && receiver->options->serve &&
        gw_guest_reserve_reset(receiver->reserve, &receiver->report.error) < 0) {
        gw_talk_show("prealloc", &receiver->report.error);
        *listened = false;
    }
    return status;
}

/* With --serve: until a signal, or until it cannot even listen. A check that failed is the status that
 * stays. */
static int serve(struct receiver *receiver)
{
    bool listened, bad = false;
    int status;

    do {
        status = serve_one(receiver, &listened);
        bad = bad || status == GW_EXIT_CHECK;
    } while (receiver->options->serve && listened && !receiver->wait.signalled);
    return bad ? GW_EXIT_CHECK : status;
}

static int open_outputs(struct receiver *receiver)
{
    const struct gw_options *options = receiver->options;
    struct gw_error err = GW_ERROR_INIT;

    int rc = gw_report_open(options->json, &receiver->json, &err);
    if (rc == 0)
        rc = gw_events_open(&receiver->events, options->events, &err);
    return rc < 0 ? gw_talk_usage(err.hint, "%s", err.message) : -1;
}

static int prepare(struct receiver *receiver, struct gw_error *err)
{
    const struct gw_options *options = receiver->options;

    int rc = gw_loop_new(&receiver->loop, err);
    if (rc == 0 && options->prealloc_bytes > 0) {
        gw_talk_note("touching memory ahead");
        rc =
            gw_guest_reserve_new(options->memory, options->prealloc_bytes, &receiver->reserve, err);
    }
    receiver->wait = (struct gw_wait){.loop = receiver->loop, .fd = -1};
    return rc;
}

static int receive(const struct gw_options *options)
{
    struct receiver receiver = {.options = options};
    int status = open_outputs(&receiver);

    snprintf(receiver.uri, sizeof(receiver.uri), "%s", options->uri);
    new_report(&receiver);
    if (status < 0 && prepare(&receiver, &receiver.report.error) < 0) {
        gw_talk_show("", &receiver.report.error);
        status = write_report(&receiver, GW_EXIT_FAILED);
    }
    if (status < 0)
        status = serve(&receiver);
    gw_guest_reserve_free(receiver.reserve);
    gw_loop_free(receiver.loop);
    gw_events_close(&receiver.events);
    gw_report_close(receiver.json);
    return status;
}

static void set_defaults(struct gw_options *options)
{
    options->ram_bytes_max = gw_options_ram_max();
}

static int run(const struct gw_options *options)
{
    int status = gw_options_check_uri(options);

    return status < 0 ? receive(options) : status;
}

const struct gw_command gw_cmd_receive = {
    .name = "receive",
    .bit = GW_FOR_RECEIVE,
    .operand = "URI",
    .summary = "wait for a guest, load it, run it, verify it",
    .hears_signals = true,
    .set_defaults = set_defaults,
    .run = run,
};
