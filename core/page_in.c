// SPDX-License-Identifier: MIT
/* A page endpoint's thread at the target. Puts are placed by the wire (a NIC, or the stream reading
 * into place inside gw_channel_recv); what is left are zero runs, fences and heartbeats. A fence
 * reaches the engine only after every put before it is in memory. */
#include "core/page_in.h"

#include "control/channel.h"
#include "core/base/alloc.h"
#include "core/base/bytes.h"
#include "core/base/clock.h"

#include <stdatomic.h>
#include <stdio.h>

/* 32 MiB to look through and, at worst, to clear: some 10 ms. One ZERO may name 512 whole stripes. */
#define PLACE_PAGES 8192u
/* Handled in one step; the engine's orders and the heartbeat come in between. */
#define MESSAGES_MAX 64u

struct gw_page_in {
    struct gw_page_in_config config;
    struct gw_placer placer;
    struct gw_endpoint *ep;
    struct gw_inbox inbox;
    struct gw_shell shell;
    bool started, lost, quit, one_sided;
    struct gw_channel *channel;
    /* The ZERO being placed: at most PLACE_PAGES a step, so that the endpoint beats in between. */
    struct gw_zero_run runs[GW_ZERO_RUNS_MAX];
    bool placing;
    unsigned run_next, run_count;
    uint32_t zero_number;
    struct gw_packet_maker packet;
    bool last_fence;

    struct gw_mail revoke, stop; /* engine -> thread */
    struct {                     /* thread -> engine */
        struct gw_mail mail;
        uint32_t number;
        bool final;
        _Atomic bool busy; /* the engine has not taken it yet; release/acquire with its delivery */
    } fenced;
    struct gw_mail revoked;
    struct {
        struct gw_mail mail;
        struct gw_error err;
    } lost_report;

    _Atomic bool open; /* BLOCKS_OK is being said; the release pairs with is_open()'s acquire */
    _Atomic uint64_t rx_bytes, copied_bytes, system_calls, placed_pages, zero_pages;
};

/* ---- reports, delivered on the engine's thread ------------------------------------------------ */

static void deliver_fenced(struct gw_mail *mail, void *engine)
{
    struct gw_page_in *in = GW_CONTAINER_OF(mail, struct gw_page_in, fenced.mail);
    uint32_t number = in->fenced.number;
    bool final = in->fenced.final;
    atomic_store_explicit(&in->fenced.busy, false, memory_order_release);
    in->config.fenced(engine, in->config.owner, number, final);
}

static void deliver_revoked(struct gw_mail *mail, void *engine)
{
    struct gw_page_in *in = GW_CONTAINER_OF(mail, struct gw_page_in, revoked);
    in->config.revoked(engine, in->config.owner);
}

static void deliver_lost(struct gw_mail *mail, void *engine)
{
    struct gw_page_in *in = GW_CONTAINER_OF(mail, struct gw_page_in, lost_report.mail);
    in->config.lost(engine, in->config.owner, &in->lost_report.err);
}

static void report_lost(struct gw_page_in *in, const struct gw_error *err)
{
    if (in->lost)
        return;
    in->lost = true;
    in->lost_report.err = *err;
    gw_error_place(&in->lost_report.err, "page endpoint %u", in->config.owner + 1);
    gw_mail_post(in->config.engine_inbox, &in->lost_report.mail);
}

/* ---- orders ---------------------------------------------------------------------------------------- */

static void deliver_revoke(struct gw_mail *mail, void *self)
{
    struct gw_page_in *in = self;
    (void)mail;
    gw_ep_revoke(in->ep);
    gw_mail_post(in->config.engine_inbox, &in->revoked);
}

static void deliver_stop(struct gw_mail *mail, void *self)
{
    struct gw_page_in *in = self;
    (void)mail;
    in->quit = true;
}

/* ---- the step ---------------------------------------------------------------------------------------- */

/* Before BLOCKS_OK there is no memory yet: blocks and stripes are another thread's. */
static bool is_open(const struct gw_page_in *in)
{
    return atomic_load_explicit(&in->open, memory_order_acquire);
}

static int on_zero(struct gw_page_in *in, const struct gw_message *msg, struct gw_error *err)
{
    struct gw_list_cursor cursor;
    struct gw_range_msg range;
    unsigned count = 0;
    if (!is_open(in))
        return gw_fail(err, -EPROTO, "ZERO before BLOCKS_OK");
    gw_list_begin(&cursor, msg->u.zero.runs);
    while (gw_list_next_range(&cursor, GW_MSG_ZERO, &range)) {
        if (count == GW_ZERO_RUNS_MAX)
            return gw_fail(err, -EPROTO, "ZERO: more than %u runs", GW_ZERO_RUNS_MAX);
        in->runs[count++] = (struct gw_zero_run){
            .block = range.block, .first_page = range.first, .pages = range.count};
    }
    in->placing = true;
    in->run_next = 0;
    in->run_count = count; /* none: it asks for the acknowledgement alone */
    in->zero_number = msg->u.zero.number;
    return 0;
}

/* Place what is left of a ZERO. 1: nothing is; 0: more than this step may do. */
static int place_runs(struct gw_page_in *in, uint64_t *budget, struct gw_error *err)
{
    if (!in->placing)
        return 1;
    while (in->run_next < in->run_count) {
        struct gw_zero_run *run = &in->runs[in->run_next];
        struct gw_zero_run piece = *run;
        piece.pages = gw_min_u64(run->pages, *budget);
        if (piece.pages == 0)
            return 0;
        int rc = gw_place_zero(&in->placer, &piece, 1, err);
        if (rc < 0)
            return rc;
        *budget -= piece.pages;
        run->first_page += piece.pages;
        run->pages -= piece.pages;
        in->run_next += run->pages == 0;
    }
    in->placing = false;
    if (!in->one_sided)
        return 1;
    struct gw_message ack = {.type = GW_MSG_ZERO_ACK};
    ack.u.number = in->zero_number;
    int rc = gw_channel_send(in->channel, &ack);
    if (rc < 0 && gw_ep_error(in->ep, err) == 0)
        gw_fail(err, rc, "ZERO_ACK %u", in->zero_number);
    return rc < 0 ? rc : 1;
}

static int on_packet(struct gw_page_in *in, const struct gw_message *msg, struct gw_error *err)
{
    struct gw_packet *whole = NULL;
    if (!is_open(in) || in->last_fence)
        return gw_fail(err, -EPROTO, "PACKET %s",
                       in->last_fence ? "behind the last fence" : "before BLOCKS_OK");
    int rc = gw_packet_take(&in->packet, msg, &whole, err);
    if (whole)
        gw_mail_post(in->config.engine_inbox, &whole->mail);
    return rc;
}

static int on_fence(struct gw_page_in *in, const struct gw_message *msg, struct gw_error *err)
{
    if (!is_open(in))
        return gw_fail(err, -EPROTO, "FENCE before BLOCKS_OK");
    /* A source begins the next round only after this fence was joined, so one slot is enough. */
    if (atomic_load_explicit(&in->fenced.busy, memory_order_acquire))
        return gw_fail(err, -EPROTO, "FENCE %u: the one before it is not joined yet",
                       msg->u.number);
    if (in->one_sided && (msg->flags & GW_MSG_FLAG_LAST))
        gw_channel_hush(in->channel); /* the source is silent here from now on */
    in->last_fence |= msg->flags & GW_MSG_FLAG_LAST;
    if (in->last_fence && in->packet.packet)
        return gw_fail(err, -EPROTO, "the last FENCE, %u, in the midst of a PACKET", msg->u.number);
    in->fenced.number = msg->u.number;
    in->fenced.final = msg->flags & GW_MSG_FLAG_LAST;
    atomic_store_explicit(&in->fenced.busy, true, memory_order_relaxed);
    gw_mail_post(in->config.engine_inbox, &in->fenced.mail);
    return 0;
}

/* 1: there is more to do at once; 0: not until something arrives. */
static int read_messages(struct gw_page_in *in, struct gw_error *err)
{
    struct gw_message msg;
    uint64_t budget = PLACE_PAGES;
    for (unsigned i = 0; i < MESSAGES_MAX; i++) {
        int rc = place_runs(in, &budget, err);
        if (rc <= 0)
            return rc < 0 ? rc : 1;
        rc = gw_channel_recv(in->channel, &msg, err);
        if (rc <= 0)
            return rc;
        if (msg.type == GW_MSG_ZERO)
            rc = on_zero(in, &msg, err);
        else if (msg.type == GW_MSG_FENCE)
            rc = on_fence(in, &msg, err);
        else if (msg.type == GW_MSG_PACKET)
            rc = on_packet(in, &msg, err);
        else
            rc = gw_fail(err, -EPROTO, "%s does not belong on a page endpoint",
                         gw_message_name(msg.type));
        if (rc < 0)
            return rc;
    }
    return 1;
}

static void publish(struct gw_page_in *in)
{
    struct gw_ep_attr attr;
    gw_ep_query(in->ep, &attr);
    atomic_store_explicit(&in->rx_bytes, attr.rx_bytes, memory_order_relaxed);
    atomic_store_explicit(&in->copied_bytes, attr.copied_bytes, memory_order_relaxed);
    atomic_store_explicit(&in->system_calls, attr.system_calls, memory_order_relaxed);
    atomic_store_explicit(&in->placed_pages, in->placer.placed_pages, memory_order_relaxed);
    atomic_store_explicit(&in->zero_pages, in->placer.zero_pages, memory_order_relaxed);
}

static uint64_t step(void *engine, uint64_t now_ns)
{
    struct gw_page_in *in = engine;
    struct gw_error err = GW_ERROR_INIT;
    gw_mail_drain(&in->inbox, in);
    if (in->quit || in->lost)
        return GW_NEVER_NS;
    int more = read_messages(in, &err);
    int rc = more;
    if (rc >= 0)
        rc = gw_channel_step(in->channel, now_ns, &err);
    publish(in);
    if (rc < 0) {
        report_lost(in, &err);
        return GW_NEVER_NS;
    }
    return more ? now_ns : gw_channel_wake_ns(in->channel);
}

static bool is_over(const void *engine)
{
    const struct gw_page_in *in = engine;
    return in->quit;
}

static int arm(void *engine, struct pollfd *fds, unsigned max, uint64_t *wake_ns)
{
    struct gw_page_in *in = engine;
    return in->lost ? 0 : gw_ep_arm(in->ep, fds, max, wake_ns);
}

static void awake(void *engine, const struct pollfd *fds, unsigned count)
{
    struct gw_page_in *in = engine;
    if (!in->lost)
        gw_ep_awake(in->ep, fds, count);
}

static void end(void *engine)
{
    struct gw_page_in *in = engine;
    gw_packet_drop(&in->packet);
    gw_ep_shutdown(in->ep);
    gw_channel_free(in->channel);
    gw_ep_close(in->ep);
}

static const struct gw_engine_ops page_in_ops = {
    .step = step, .is_over = is_over, .arm = arm, .awake = awake, .end = end};

/* ---- for the engine ------------------------------------------------------------------------------------- */

struct gw_page_in *gw_page_in_new(const struct gw_page_in_config *config, struct gw_error *err)
{
    struct gw_page_in *in = gw_zalloc(1, sizeof(*in));
    int rc = in ? gw_inbox_init(&in->inbox) : -ENOMEM;
    if (rc < 0) {
        gw_free(in);
        gw_fail(err, rc, "page endpoint %u", config->owner + 1);
        return NULL;
    }
    in->config = *config;
    in->packet.pot = config->packets;
    in->placer.ram = config->ram;
    in->placer.owner = config->owner;
    in->revoke.deliver = deliver_revoke;
    in->stop.deliver = deliver_stop;
    in->fenced.mail.deliver = deliver_fenced;
    in->revoked.deliver = deliver_revoked;
    in->lost_report.mail.deliver = deliver_lost;
    return in;
}

struct gw_placer *gw_page_in_placer(struct gw_page_in *in)
{
    return &in->placer;
}

int gw_page_in_start(struct gw_page_in *in, struct gw_endpoint *ep, struct gw_error *err)
{
    struct gw_channel_config channel = {
        .ep = ep, .side = GW_CHANNEL_TARGET, .peer_timeout_ns = in->config.peer_timeout_ns};
    struct gw_ep_attr attr;
    gw_ep_query(ep, &attr);
    in->one_sided = attr.flags & GW_EP_ONE_SIDED;
    in->ep = ep;
    in->channel = gw_channel_new(&channel, err);
    int rc = in->channel ? 0 : -ENOMEM;
    if (rc == 0) {
        char name[16];
        snprintf(name, sizeof(name), "gw/tgt/page_%u", in->config.owner % 1000);
        in->started = true; /* before the thread looks at its neighbours */
        in->shell = (struct gw_shell){.ops = &page_in_ops, .engine = in, .inbox = &in->inbox};
        rc = gw_shell_start(&in->shell, name, err);
    }
    if (rc < 0) {
        gw_channel_free(in->channel);
        gw_ep_close(ep);
        in->channel = NULL;
        in->ep = NULL;
        in->started = false;
        return rc;
    }
    return 0;
}

void gw_page_in_open(struct gw_page_in *in)
{
    atomic_store_explicit(&in->open, true, memory_order_release);
}

void gw_page_in_revoke(struct gw_page_in *in)
{
    gw_mail_post(&in->inbox, &in->revoke);
}

void gw_page_in_halt(struct gw_page_in *in)
{
    if (in->started) {
        gw_mail_post(&in->inbox, &in->stop);
        gw_shell_join(&in->shell); /* which closed the endpoint */
    }
    gw_inbox_remove(in->config.engine_inbox, &in->fenced.mail.item);
    gw_inbox_remove(in->config.engine_inbox, &in->revoked.item);
    gw_inbox_remove(in->config.engine_inbox, &in->lost_report.mail.item);
    in->started = in->lost = in->quit = false;
    in->channel = NULL;
    in->ep = NULL;
}

void gw_page_in_stop(struct gw_page_in *in)
{
    if (!in)
        return;
    gw_page_in_halt(in);
    gw_inbox_fini(&in->inbox);
    gw_free(in);
}

void gw_page_in_stats(const struct gw_page_in *in, struct gw_page_in_stats *stats)
{
    stats->rx_bytes = atomic_load_explicit(&in->rx_bytes, memory_order_relaxed);
    stats->copied_bytes = atomic_load_explicit(&in->copied_bytes, memory_order_relaxed);
    stats->system_calls = atomic_load_explicit(&in->system_calls, memory_order_relaxed);
    stats->placed_pages = atomic_load_explicit(&in->placed_pages, memory_order_relaxed);
    stats->zero_pages = atomic_load_explicit(&in->zero_pages, memory_order_relaxed);
}
