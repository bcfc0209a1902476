// SPDX-License-Identifier: MIT
/* A page endpoint's thread at the source. It owns the endpoint, its stripes' bits while a round is
 * sent, and its completions; nothing it calls can block on an embedder, so it always beats. The
 * engine says begin and stop; it answers fenced or lost. After lost it only waits for stop.
 *
 * On a one-sided wire chunks come by on visits: what a sync of theirs found is absorbed at once; a chunk
 * that is to go is let go when none of its pages is in flight and a zero message behind the last of them
 * was acknowledged. Once the last fence is said the endpoint neither beats nor judges: the target may have
 * revoked it, and then it answers nothing. What is lost from then on is lost only if that fence is. */
#include "core/page_out.h"

#include "core/base/alloc.h"
#include "core/base/bytes.h"
#include "core/base/clock.h"
#include "core/peer.h"
#include "ram/dirty.h"

#include <stdatomic.h>
#include <stdio.h>

struct gw_page_out {
    struct gw_page_out_config config;
    struct gw_inbox inbox;
    struct gw_shell shell;
    struct gw_channel *channel;
    struct gw_peer peer;
    struct gw_sink *sink;
    struct gw_sender *sender;
    bool one_sided, sending, hushed, lost, quit;
    uint32_t number;
    struct gw_page_visit *leaving; /* visits of chunks that are to be let go */
    struct gw_page_packet *packets, **packets_last;

    struct { /* engine -> thread */
        struct gw_mail mail;
        uint32_t number;
        bool holes, final;
    } begin;
    struct gw_mail stop;
    struct { /* thread -> engine */
        struct gw_mail mail;
        struct gw_page_out *out;
        uint32_t number;
    } fenced;
    struct {
        struct gw_mail mail;
        struct gw_page_out *out;
        struct gw_error err;
    } lost_report;

    /* Written by the thread after each step, read by anyone. Relaxed: counters on their own. */
    _Atomic uint64_t tx_bytes, copied_bytes, system_calls;
};

/* ---- reports, delivered on the engine's thread ------------------------------------------------ */

static void deliver_fenced(struct gw_mail *mail, void *engine)
{
    struct gw_page_out *out = GW_CONTAINER_OF(mail, struct gw_page_out, fenced.mail);
    out->config.fenced(engine, out->config.owner, out->fenced.number);
}

static void deliver_lost(struct gw_mail *mail, void *engine)
{
    struct gw_page_out *out = GW_CONTAINER_OF(mail, struct gw_page_out, lost_report.mail);
    out->config.lost(engine, out->config.owner, &out->lost_report.err);
}

static void note_lost(struct gw_page_out *out, const struct gw_error *err)
{
    out->lost = true;
    out->sending = false;
    out->lost_report.err = *err;
    gw_error_place(&out->lost_report.err, "page endpoint %u", out->config.owner + 1);
}

static void report_lost(struct gw_page_out *out, const struct gw_error *err)
{
    if (out->lost)
        return;
    if (out->sending && out->peer.said_last) { /* only completions were still to come */
        out->fenced.number = out->number;
        gw_mail_post(out->config.engine_inbox, &out->fenced.mail);
    }
    note_lost(out, err);
    gw_mail_post(out->config.engine_inbox, &out->lost_report.mail);
}

/* ---- orders, delivered on its own thread -------------------------------------------------------- */

static void deliver_begin(struct gw_mail *mail, void *self)
{
    struct gw_page_out *out = self;
    (void)mail;
    if (out->lost)
        return;
    out->peer.final = out->begin.final;
    out->number = out->begin.number;
    out->sending = true;
    gw_sender_begin(out->sender, out->begin.number, out->begin.holes);
}

static void deliver_stop(struct gw_mail *mail, void *self)
{
    struct gw_page_out *out = self;
    (void)mail;
    out->quit = true;
}

static void deliver_packet(struct gw_mail *mail, void *self)
{
    struct gw_page_out *out = self;
    struct gw_page_packet *packet = GW_CONTAINER_OF(mail, struct gw_page_packet, mail);
    packet->next = NULL;
    packet->at = 0;
    *out->packets_last = packet;
    out->packets_last = &packet->next;
}

/* ---- chunks that come by ------------------------------------------------------------------------ */

static void visit_over(struct gw_page_out *out, struct gw_chunk_visit *visit)
{
    if (atomic_fetch_sub_explicit(&visit->left, 1, memory_order_acq_rel) == 1)
        gw_mail_post(out->config.engine_inbox, &visit->over);
}

static void deliver_visit(struct gw_mail *mail, void *self)
{
    struct gw_page_out *out = self;
    struct gw_page_visit *visit = GW_CONTAINER_OF(mail, struct gw_page_visit, mail);
    struct gw_chunk_visit *of = visit->of;
    if (!of->bits) {
        visit->mark = 0;
        visit->next = out->leaving;
        out->leaving = visit;
        return;
    }
    gw_dirty_absorb(out->config.ram, out->config.owner, of->range.block,
                    of->range.offset / GW_PAGE_BYTES,
                    (of->range.bytes + GW_PAGE_BYTES - 1) / GW_PAGE_BYTES, of->bits);
    visit_over(out, of);
}

/* Several may wait for one mark. 1: it is let go; 0: not yet; negative: the endpoint is lost. */
static int let_go(struct gw_page_out *out, struct gw_page_visit *visit, int64_t *mark)
{
    if (!visit->mark) {
        if (gw_sender_holds(out->sender, &visit->of->range))
            return 0;
        if (*mark <= 0)
            *mark = gw_sender_mark(out->sender);
        if (*mark <= 0)
            return *mark < 0 ? (int)*mark : 0;
        visit->mark = (uint32_t)*mark;
    }
    return gw_sender_mark_is_passed(out->sender, visit->mark);
}

static int step_leaving(struct gw_page_out *out, struct gw_error *err)
{
    int64_t mark = 0;
    struct gw_page_visit **at = &out->leaving;
    while (*at) {
        struct gw_page_visit *visit = *at;
        int rc = let_go(out, visit, &mark);
        if (rc < 0 && gw_ep_error(out->config.ep, err) == 0)
            gw_fail(err, rc, "let go of a chunk");
        if (rc < 0)
            return rc;
        if (rc == 0) {
            at = &visit->next;
            continue;
        }
        *at = visit->next;
        visit_over(out, visit->of);
    }
    return 0;
}

/* ---- the step ------------------------------------------------------------------------------------ */

static int read_messages(struct gw_page_out *out, struct gw_error *err)
{
    struct gw_message msg;
    int rc;
    while ((rc = gw_channel_recv(out->channel, &msg, err)) > 0) {
        if (msg.type != GW_MSG_ZERO_ACK)
            return gw_fail(err, -EPROTO, "%s does not belong on a page endpoint",
                           gw_message_name(msg.type));
        gw_sender_zero_acked(out->sender, msg.u.number);
    }
    return rc;
}

static int send_pages(struct gw_page_out *out, uint64_t now_ns, uint64_t *wake_ns,
                      struct gw_error *err)
{
    int state = gw_sender_step(out->sender, now_ns);
    if (state < 0) {
        if (gw_ep_error(out->config.ep, err) == 0)
            gw_fail(err, state, "send pages");
        return state;
    }
    switch ((enum gw_send_state)state) {
    case GW_SEND_BUSY:
        *wake_ns = now_ns;
        break;
    case GW_SEND_CHUNKS: /* a chunk that gets ready wakes us; the engine looks what is wanted */
        gw_inbox_wake(out->config.engine_inbox);
        break;
    case GW_SEND_BUDGET:
        *wake_ns = gw_throttle_wake_ns(out->config.throttle, now_ns);
        break;
    case GW_SEND_BLOCKED:
        break;
    case GW_SEND_IDLE:
        out->sending = false;
        out->fenced.number = out->number;
        gw_mail_post(out->config.engine_inbox, &out->fenced.mail);
        break;
    }
    return 0;
}

/* ---- packets -------------------------------------------------------------------------------------- */

/* 1: the first packet is with the wire; 0: not until the wire takes more, or the peer grants it. */
static int send_packet(struct gw_page_out *out, struct gw_page_packet *packet, struct gw_error *err)
{
    while (packet->at < packet->bytes) {
        size_t bytes = gw_min_u64(packet->bytes - packet->at, out->config.packet_data_max);
        struct gw_message msg = {.type = GW_MSG_PACKET,
                                 .flags =
                                     packet->at + bytes == packet->bytes ? GW_MSG_FLAG_LAST : 0};
        msg.u.packet.section = packet->section;
        msg.u.packet.number = packet->number;
        msg.u.packet.items = packet->items;
        msg.u.packet.data = (struct gw_span){.data = packet->data + packet->at, .bytes = bytes};
        int rc = gw_channel_send(out->channel, &msg);
        if (rc == -EAGAIN)
            return 0;
        if (rc < 0 && gw_ep_error(out->config.ep, err) == 0)
            gw_fail(err, rc, "send device state");
        if (rc < 0)
            return rc;
        packet->at += bytes;
    }
    return 1;
}

/* One a step: pages get their turn, and the endpoint beats. */
static int send_packets(struct gw_page_out *out, uint64_t now_ns, uint64_t *wake_ns,
                        struct gw_error *err)
{
    struct gw_page_packet *packet = out->packets;
    if (!packet)
        return 0;
    int rc = send_packet(out, packet, err);
    if (rc <= 0)
        return rc;
    out->packets = packet->next;
    if (!out->packets)
        out->packets_last = &out->packets;
    else
        *wake_ns = now_ns;
    gw_mail_post(out->config.engine_inbox, &packet->over);
    return 0;
}

static void publish(struct gw_page_out *out)
{
    struct gw_ep_attr attr;
    gw_ep_query(out->config.ep, &attr);
    atomic_store_explicit(&out->tx_bytes, attr.tx_bytes, memory_order_relaxed);
    atomic_store_explicit(&out->copied_bytes, attr.copied_bytes, memory_order_relaxed);
    atomic_store_explicit(&out->system_calls, attr.system_calls, memory_order_relaxed);
}

static uint64_t step(struct gw_page_out *out, uint64_t now_ns)
{
    struct gw_error err = GW_ERROR_INIT;
    uint64_t wake_ns = GW_NEVER_NS;
    gw_mail_drain(&out->inbox, out);
    if (out->quit || out->lost)
        return wake_ns;
    int rc = read_messages(out, &err);
    if (rc >= 0 && out->sending)
        rc = send_pages(out, now_ns, &wake_ns, &err);
    if (rc >= 0)
        rc = send_packets(out, now_ns, &wake_ns, &err);
    if (rc >= 0 && out->one_sided && out->peer.said_last && !out->hushed) {
        gw_channel_hush(out->channel);
        out->hushed = true;
    }
    if (rc >= 0)
        rc = step_leaving(out, &err);
    if (rc >= 0)
        rc = gw_channel_step(out->channel, now_ns, &err);
    publish(out);
    if (rc < 0) {
        report_lost(out, &err);
        return GW_NEVER_NS;
    }
    uint64_t beat_ns = gw_channel_wake_ns(out->channel);
    return wake_ns < beat_ns ? wake_ns : beat_ns;
}

static uint64_t engine_step(void *engine, uint64_t now_ns)
{
    return step(engine, now_ns);
}

static bool is_over(const void *engine)
{
    const struct gw_page_out *out = engine;
    return out->quit;
}

static int arm(void *engine, struct pollfd *fds, unsigned max, uint64_t *wake_ns)
{
    struct gw_page_out *out = engine;
    return out->lost ? 0 : gw_ep_arm(out->config.ep, fds, max, wake_ns);
}

static void awake(void *engine, const struct pollfd *fds, unsigned count)
{
    struct gw_page_out *out = engine;
    if (!out->lost)
        gw_ep_awake(out->config.ep, fds, count);
}

static void end(void *engine)
{
    struct gw_page_out *out = engine;
    struct gw_error err = GW_ERROR_INIT;
    if (!out->lost && gw_ep_error(out->config.ep, &err) < 0)
        note_lost(out, &err); /* it broke while we waited, and stop came first */
    /* Close means quiet: only then are the bits of what was in flight known to be ours. */
    gw_ep_shutdown(out->config.ep);
    gw_sender_free(out->sender);
    out->sink->ops->free(out->sink);
    gw_channel_free(out->channel);
    gw_ep_close(out->config.ep);
}

static const struct gw_engine_ops page_out_ops = {
    .step = engine_step, .is_over = is_over, .arm = arm, .awake = awake, .end = end};

/* ---- for the engine -------------------------------------------------------------------------------- */

static uint64_t take_budget(void *ctx, uint64_t want)
{
    return gw_throttle_take(ctx, want, gw_clock_ns());
}

static void give_back(void *ctx, uint64_t bytes)
{
    gw_throttle_refund(ctx, bytes);
}

static int build(struct gw_page_out *out, struct gw_error *err)
{
    const struct gw_page_out_config *config = &out->config;
    struct gw_channel_config channel = {
        .ep = config->ep, .side = GW_CHANNEL_SOURCE, .peer_timeout_ns = config->peer_timeout_ns};
    out->channel = gw_channel_new(&channel, err);
    if (!out->channel)
        return -ENOMEM;
    struct gw_ep_attr attr;
    gw_ep_query(config->ep, &attr);
    out->one_sided = attr.flags & GW_EP_ONE_SIDED;
    out->peer.channel = out->channel;
    out->sink = gw_sink_put_new(config->ep, &gw_peer_ops, &out->peer);
    if (!out->sink)
        return gw_fail(err, -ENOMEM, "page endpoint %u", config->owner + 1);
    struct gw_sender_config sender = {.ram = config->ram,
                                      .chunks = config->chunks,
                                      .owner = config->owner,
                                      .sink = out->sink,
                                      .budget = take_budget,
                                      .refund = give_back,
                                      .budget_ctx = config->throttle};
    out->sender = gw_sender_new(&sender, err);
    return out->sender ? 0 : -ENOMEM;
}

static void discard(struct gw_page_out *out)
{
    gw_sender_free(out->sender);
    if (out->sink)
        out->sink->ops->free(out->sink);
    gw_channel_free(out->channel);
    gw_ep_close(out->config.ep);
}

int gw_page_out_start(const struct gw_page_out_config *config, struct gw_page_out **out_result,
                      struct gw_error *err)
{
    struct gw_page_out *out = gw_zalloc(1, sizeof(*out));
    int rc = out ? gw_inbox_init(&out->inbox) : -ENOMEM;
    if (rc < 0) {
        gw_free(out);
        gw_ep_close(config->ep);
        return gw_fail(err, rc, "page endpoint %u", config->owner + 1);
    }
    out->config = *config;
    out->packets_last = &out->packets;
    out->begin.mail.deliver = deliver_begin;
    out->stop.deliver = deliver_stop;
    out->fenced.mail.deliver = deliver_fenced;
    out->lost_report.mail.deliver = deliver_lost;
    rc = build(out, err);
    if (rc == 0) {
        char name[16];
        snprintf(name, sizeof(name), "gw/src/page_%u", config->owner % 1000);
        out->shell = (struct gw_shell){.ops = &page_out_ops, .engine = out, .inbox = &out->inbox};
        rc = gw_shell_start(&out->shell, name, err);
    }
    if (rc < 0) {
        discard(out);
        gw_inbox_fini(&out->inbox);
        gw_free(out);
        return rc;
    }
    *out_result = out;
    return 0;
}

void gw_page_out_begin(struct gw_page_out *out, uint32_t number, bool holes, bool final)
{
    out->begin.number = number;
    out->begin.holes = holes;
    out->begin.final = final;
    gw_mail_post(&out->inbox, &out->begin.mail);
}

void gw_page_out_visit(struct gw_page_out *out, struct gw_page_visit *visit)
{
    visit->mail.deliver = deliver_visit;
    gw_mail_post(&out->inbox, &visit->mail);
}

void gw_page_out_packet(struct gw_page_out *out, struct gw_page_packet *packet)
{
    packet->mail.deliver = deliver_packet;
    gw_mail_post(&out->inbox, &packet->mail);
}

bool gw_page_out_has_said_last(const struct gw_page_out *out)
{
    return out->lost && out->peer.said_last;
}

void gw_page_out_wake(struct gw_page_out *out)
{
    gw_inbox_wake(&out->inbox);
}

void gw_page_out_stop(struct gw_page_out *out, struct gw_error *why)
{
    if (!out)
        return;
    gw_mail_post(&out->inbox, &out->stop);
    gw_shell_join(&out->shell);
    if (out->lost)
        gw_error_copy(why, &out->lost_report.err);
    gw_inbox_remove(out->config.engine_inbox, &out->fenced.mail.item);
    gw_inbox_remove(out->config.engine_inbox, &out->lost_report.mail.item);
    gw_inbox_fini(&out->inbox);
    gw_free(out);
}

void gw_page_out_stats(const struct gw_page_out *out, struct gw_page_out_stats *stats)
{
    stats->tx_bytes = atomic_load_explicit(&out->tx_bytes, memory_order_relaxed);
    stats->copied_bytes = atomic_load_explicit(&out->copied_bytes, memory_order_relaxed);
    stats->system_calls = atomic_load_explicit(&out->system_calls, memory_order_relaxed);
    gw_sender_stats(out->sender, &stats->sender);
}
