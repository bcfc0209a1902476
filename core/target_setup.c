// SPDX-License-Identifier: MIT
/* Set-up at the target: control connections are candidates until one says a HELLO that can be
 * answered; strangers, garbage and hang-ups before that are logged and change nothing. Then the
 * source's page endpoints and its block offers arrive; the embedder builds the memory; BLOCKS_OK. */
#include "core/target.h"

#include "core/base/alloc.h"
#include "core/base/bytes.h"
#include "core/memlock.h"

#include <stdio.h>
#include <string.h>

#define FIRST_MESSAGE_NS (5 * GW_NS_PER_S)
/* A candidate that has had this long makes room for the next: an honest source says its first message
 * as soon as it is admitted, and a thousand strangers who say nothing are through in a second. */
#define CANDIDATE_GRACE_NS (20 * GW_NS_PER_MS)
/* Of a control connection's wire: hello has not said yet how patient the source is, and the kernel
 * must not be less so. Until then, and after, beats decide. */
#define PEER_TIMEOUT_NS_MAX (600 * GW_NS_PER_S)

/* ---- connections ------------------------------------------------------------------------------- */

static void close_candidate(struct gw_candidate *candidate)
{
    gw_channel_free(candidate->channel);
    gw_ep_close(candidate->ep);
    memset(candidate, 0, sizeof(*candidate));
}

static void remove_candidate(struct gw_target *tgt, unsigned i)
{
    tgt->candidate_count--;
    memmove(&tgt->candidates[i], &tgt->candidates[i + 1],
            (tgt->candidate_count - i) * sizeof(tgt->candidates[0]));
}

uint64_t gw_target_room_ns(const struct gw_target *tgt)
{
    if (tgt->candidate_count < GW_CANDIDATES_MAX)
        return 0;
    return tgt->candidates[0].deadline_ns - FIRST_MESSAGE_NS + CANDIDATE_GRACE_NS;
}

/* The oldest gives way to one that is here; it has had its moment. */
static void make_room(struct gw_target *tgt)
{
    if (tgt->candidate_count < GW_CANDIDATES_MAX)
        return;
    struct gw_candidate oldest = tgt->candidates[0];
    remove_candidate(tgt, 0);
    close_candidate(&oldest);
}

static enum gw_admission admit(void *ctx, const struct gw_preface *preface, struct gw_domain **dom,
                               struct gw_wire_config *config)
{
    struct gw_target *tgt = ctx;
    *dom = tgt->dom;
    config->peer_timeout_ns = PEER_TIMEOUT_NS_MAX;
    config->log = &tgt->log;
    config->heard_first = preface->index == 0; /* who says nothing is no candidate */
    if (preface->index == 0)
        return GW_ADMIT_OK;
    return gw_target_admit_page(tgt, NULL, preface, config);
}

enum gw_admission gw_target_admit_page(struct gw_target *tgt, struct gw_target_wire *wire,
                                       const struct gw_preface *preface,
                                       struct gw_wire_config *config)
{
    if (!tgt->in_session || memcmp(preface->session, tgt->session, sizeof(tgt->session)) != 0)
        return GW_ADMIT_UNKNOWN;
    if (tgt->step == GW_TGT_OFFER && (tgt->work.busy || gw_target_wires_is_leaving(tgt, wire)))
        return GW_ADMIT_LATER; /* it has not been answered yet; we have not heard of its giving up a wire */
    unsigned owner = preface->index - 1u;
    if (owner >= tgt->reply.endpoints || tgt->page_open[owner] || tgt->step >= GW_TGT_READY ||
        !tgt->pages[owner] || (tgt->page_open_count > 0 && tgt->page_wire != wire))
        return GW_ADMIT_INDEX;
    config->log = &tgt->log;
    config->peer_timeout_ns = tgt->reply.peer_timeout_ns;
    config->message_bytes_max = GW_PAGE_MESSAGE_BYTES_MAX;
    config->place = &gw_placer_ops;
    config->place_ctx = gw_page_in_placer(tgt->pages[owner]);
    return GW_ADMIT_OK;
}

static void maybe_ready(struct gw_target *tgt);

void gw_target_add_page(struct gw_target *tgt, struct gw_target_wire *wire, struct gw_endpoint *ep)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_ep_attr attr;
    gw_ep_query(ep, &attr);
    unsigned owner = attr.index - 1u;
    gw_target_wires_move_on(tgt, wire);
    if (tgt->page_open_count > 0 && (tgt->page_wire != wire || tgt->page_open[owner])) {
        gw_ep_close(ep); /* admitted before another decided */
        return;
    }
    tgt->page_wire = wire;
    if (wire) {
        pthread_mutex_lock(&tgt->stats_lock);
        gw_wire_label(&wire->uri, tgt->stats.wire_name, sizeof(tgt->stats.wire_name));
        pthread_mutex_unlock(&tgt->stats_lock);
    }
    if (gw_page_in_start(tgt->pages[owner], ep, &err) < 0) {
        gw_target_fail(tgt, &err);
        return;
    }
    tgt->page_open[owner] = true;
    tgt->page_open_count++;
    maybe_ready(tgt);
}

static void add_candidate(struct gw_target *tgt, struct gw_endpoint *ep, uint64_t now_ns)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_channel_config config = {.ep = ep,
                                       .side = GW_CHANNEL_TARGET,
                                       .peer_timeout_ns =
                                           tgt->params.peer_timeout_ms * GW_NS_PER_MS};
    struct gw_channel *channel = gw_channel_new(&config, &err);
    if (!channel) {
        gw_ep_close(ep);
        return;
    }
    struct gw_candidate *candidate = &tgt->candidates[tgt->candidate_count++];
    candidate->ep = ep;
    candidate->channel = channel;
    candidate->deadline_ns = now_ns + FIRST_MESSAGE_NS;
}

void gw_target_accept(struct gw_target *tgt, uint64_t now_ns)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_endpoint *ep = NULL;
    if (!tgt->listener || tgt->hs == GW_HT_CLAIMED || tgt->hs == GW_HT_CLAIM_TAKES)
        return;
    int rc = 0;
    while (now_ns >= gw_target_room_ns(tgt) &&
           (rc = gw_accept(tgt->listener, admit, tgt, &ep, &err)) > 0) {
        struct gw_ep_attr attr;
        gw_ep_query(ep, &attr);
        if (attr.index > 0) {
            gw_target_add_page(tgt, NULL, ep);
            continue;
        }
        make_room(tgt);
        add_candidate(tgt, ep, now_ns);
    }
    if (rc < 0)
        gw_target_fail(tgt, &err);
}

/* ---- candidates ---------------------------------------------------------------------------------- */

void gw_target_drop_candidates(struct gw_target *tgt)
{
    while (tgt->candidate_count > 0)
        close_candidate(&tgt->candidates[--tgt->candidate_count]);
}

static void refuse_candidate(struct gw_target *tgt, struct gw_candidate *candidate,
                             const struct gw_error *err)
{
    struct gw_message msg = {.type = GW_MSG_FAILED};
    struct gw_error ignored = GW_ERROR_INIT;
    gw_error_copy(&msg.u.failed.error, err);
    gw_channel_send(candidate->channel, &msg);
    gw_channel_step(candidate->channel, gw_clock_ns(), &ignored);
    gw_log_warn(&tgt->log, "target", "refused: %s", err->message);
}

static int make_pages(struct gw_target *tgt, struct gw_error *err)
{
    for (unsigned i = 0; i < tgt->reply.endpoints; i++) {
        struct gw_page_in_config config = {
            .owner = i,
            .ram = tgt->ram,
            .peer_timeout_ns = tgt->reply.peer_timeout_ns,
            .engine_inbox = &tgt->inbox,
            .fenced = gw_target_on_fenced,
            .revoked = gw_target_on_revoked,
            .lost = gw_target_on_page_lost,
            .packets = &tgt->packet_pot,
        };
        tgt->pages[i] = gw_page_in_new(&config, err);
        if (!tgt->pages[i])
            return -ENOMEM;
    }
    return 0;
}

static void fill_hello(struct gw_target *tgt, const struct gw_hello *theirs, struct gw_hello *ours)
{
    unsigned endpoints = (unsigned)gw_min_u64(theirs->endpoints, 255);
    memset(ours, 0, sizeof(*ours));
    ours->version_min = ours->version_max = GW_PROTOCOL_VERSION;
    ours->page_bytes = GW_PAGE_BYTES;
    ours->endpoints = 255;
    ours->message_payload_max = GW_PAYLOAD_BYTES_MAX;
    ours->blocks_max = GW_BLOCKS_MAX;
    ours->ram_bytes_max = tgt->ram_bytes_max ? tgt->ram_bytes_max : UINT64_MAX;
    ours->section_bytes_max = gw_target_section_grant(tgt, theirs);
    ours->memlock_bytes =
        gw_memlock_budget(gw_wires_flags(&tgt->uri), endpoints, tgt->params.registered_bytes_max);
    ours->peer_timeout_ns = tgt->params.peer_timeout_ms * GW_NS_PER_MS;
    ours->settle_timeout_ns = tgt->params.settle_timeout_ms * GW_NS_PER_MS;
    ours->hold_timeout_ns = tgt->params.hold_timeout_ms * GW_NS_PER_MS;
    ours->packet_bytes_max =
        gw_devices_take_packets(&tgt->devices) ? gw_packet_cap(tgt->params.packet_bytes_max) : 0;
    ours->device_timeout_ns = tgt->params.device_timeout_ms * GW_NS_PER_MS;
    ours->incarnation = tgt->incarnation;
    if (tgt->machine_given)
        snprintf(ours->machine, sizeof(ours->machine), "%s", tgt->machine);
    snprintf(ours->agent, sizeof(ours->agent), "godwit %s", gw_version());
}

void gw_target_say_reply(struct gw_target *tgt)
{
    struct gw_message answer = {.type = GW_MSG_HELLO_REPLY};
    answer.u.hello = tgt->reply;
    gw_target_say(tgt, &answer);
}

/* True: this candidate is the session now. */
static bool on_hello(struct gw_target *tgt, struct gw_candidate *candidate,
                     const struct gw_message *msg)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_hello ours;
    fill_hello(tgt, &msg->u.hello, &ours);
    int rc = gw_hello_answer(&ours, &msg->u.hello, &tgt->reply, &err);
    if (rc == 0 && tgt->machine_given && strcmp(msg->u.hello.machine, tgt->machine) != 0)
        rc = gw_fail_code(&err, -EINVAL, GW_CODE_UNSUPPORTED,
                          "the source's machine is '%s', ours is '%s'", msg->u.hello.machine,
                          tgt->machine);
    if (rc < 0) {
        refuse_candidate(tgt, candidate, &err);
        return false;
    }
    struct gw_ep_attr attr;
    gw_ep_query(candidate->ep, &attr);
    tgt->hello = msg->u.hello;
    tgt->control = candidate->ep;
    tgt->channel = candidate->channel;
    gw_channel_set_peer_timeout(tgt->channel, tgt->reply.peer_timeout_ns);
    memcpy(tgt->session, attr.session, sizeof(tgt->session));
    tgt->in_session = true;
    tgt->step = GW_TGT_OFFER;
    tgt->offer_until_ns = gw_clock_ns() + tgt->params.device_timeout_ms * GW_NS_PER_MS;
    pthread_mutex_lock(&tgt->stats_lock);
    tgt->stats.endpoints = tgt->reply.endpoints;
    tgt->started_ns = gw_clock_ns();
    pthread_mutex_unlock(&tgt->stats_lock);
    gw_target_status(tgt, GW_STATUS_SETUP);
    gw_target_tell(tgt, GW_EVENT_CONNECTED, NULL, "%s from %s", tgt->hello.agent, attr.peer);
    if (gw_target_packets_open(tgt, &err) < 0 || make_pages(tgt, &err) < 0) {
        gw_target_fail(tgt, &err);
        return true;
    }
    if (!gw_target_wires_asked(tgt))
        gw_target_say_reply(tgt);
    return true;
}

/* An ASK that is not of the guest that is served: about one before it, or about none that we know. */
static void answer_stranger(struct gw_target *tgt, struct gw_candidate *candidate,
                            const struct gw_message *ask)
{
    struct gw_message msg = {.type = GW_MSG_UNKNOWN};
    struct gw_error ignored = GW_ERROR_INIT;
    const struct gw_past *past = gw_target_recalls(tgt, ask);
    if (past) {
        msg.type = GW_MSG_OUTCOME;
        msg.u.outcome.token = past->token;
        msg.u.outcome.outcome = past->outcome;
        msg.u.outcome.acquire_ns = past->acquire_ns;
        msg.u.outcome.resume_ns = past->resume_ns;
        if (past->outcome != GW_OUTCOME_RUNNING)
            gw_fail_code(&msg.u.outcome.error, -ECONNABORTED, past->code,
                         "so it ended, before the target listened for another guest");
    } else {
        memcpy(msg.u.ask.session, ask->u.ask.session, sizeof(msg.u.ask.session));
    }
    gw_channel_send(candidate->channel, &msg);
    gw_channel_step(candidate->channel, gw_clock_ns(), &ignored);
}

/* The first message decides what a connection is. True: the candidate's connection was taken over. */
static bool on_first_message(struct gw_target *tgt, struct gw_candidate *candidate,
                             const struct gw_message *msg)
{
    struct gw_error err = GW_ERROR_INIT;
    if (msg->type == GW_MSG_HELLO && tgt->step == GW_TGT_LISTEN)
        return on_hello(tgt, candidate, msg);
    if (msg->type == GW_MSG_ASK && gw_target_knows(tgt, msg))
        return gw_target_on_ask(tgt, candidate, msg);
    if (msg->type == GW_MSG_ASK) {
        answer_stranger(tgt, candidate, msg);
        return false;
    }
    if (msg->type == GW_MSG_HELLO)
        gw_fail_code(&err, -EBUSY, GW_CODE_REFUSED, "this target serves another guest");
    else
        gw_fail(&err, -EPROTO, "%s cannot be the first message", gw_message_name(msg->type));
    refuse_candidate(tgt, candidate, &err);
    return false;
}

uint64_t gw_target_candidates(struct gw_target *tgt, uint64_t now_ns)
{
    uint64_t wake_ns = GW_NEVER_NS;
    for (unsigned i = 0; i < tgt->candidate_count;) {
        struct gw_candidate *candidate = &tgt->candidates[i];
        struct gw_error err = GW_ERROR_INIT;
        struct gw_message msg;
        int rc = gw_channel_recv(candidate->channel, &msg, &err);
        if (rc > 0) {
            struct gw_candidate taken = *candidate;
            remove_candidate(tgt, i);
            if (!on_first_message(tgt, &taken, &msg))
                close_candidate(&taken);
            continue;
        }
        if (rc == 0)
            rc = gw_channel_step(candidate->channel, now_ns, &err);
        if (rc >= 0 && now_ns >= candidate->deadline_ns)
            rc = gw_fail(&err, -ETIMEDOUT, "no HELLO within 5 s");
        if (rc < 0) {
            gw_log_info(&tgt->log, "target", "a connection ended before hello: %s", err.message);
            struct gw_candidate gone = *candidate;
            remove_candidate(tgt, i);
            close_candidate(&gone);
            continue;
        }
        wake_ns = gw_min_u64(
            wake_ns, gw_min_u64(candidate->deadline_ns, gw_channel_wake_ns(candidate->channel)));
        i++;
    }
    return wake_ns;
}

/* A source that said hello and only beats would keep every other one out. Its connections, its dirty
 * tracking and its offers have the budget of one device phase, ours and not what it says. */
uint64_t gw_target_setup_step(struct gw_target *tgt, uint64_t now_ns)
{
    struct gw_error err = GW_ERROR_INIT;
    if (tgt->step != GW_TGT_OFFER)
        return GW_NEVER_NS;
    if (now_ns < tgt->offer_until_ns)
        return tgt->offer_until_ns;
    gw_fail_code(&err, -ETIMEDOUT, GW_CODE_TIMEOUT,
                 "the source did not open its endpoints and offer its blocks within %llu ms",
                 (unsigned long long)tgt->params.device_timeout_ms);
    gw_error_hint(&err, "raise x-device-timeout at the target, or see what the source does");
    gw_target_fail(tgt, &err);
    return now_ns;
}

/* ---- blocks ---------------------------------------------------------------------------------------- */

static int keep_offer(struct gw_target *tgt, const struct gw_block_offer_msg *offer,
                      struct gw_error *err)
{
    if (tgt->offer_count == tgt->offer_room) {
        unsigned room = tgt->offer_room ? tgt->offer_room * 2 : 16;
        struct gw_block_offer_msg *offers = gw_realloc(tgt->offers, room, sizeof(*offers));
        if (!offers)
            return gw_fail(err, -ENOMEM, "block offers");
        tgt->offers = offers;
        tgt->offer_room = room;
    }
    if (tgt->offer_count == tgt->hello.blocks_max) /* hello was held to GW_BLOCKS_MAX */
        return gw_fail(err, -EPROTO, "more blocks are offered than the %u that hello said",
                       tgt->hello.blocks_max);
    if (offer->bytes > tgt->hello.ram_bytes - tgt->offered_bytes)
        return gw_fail(err, -EPROTO, "block '%s': more memory is offered than hello said",
                       offer->name);
    tgt->offered_bytes += offer->bytes;
    tgt->offers[tgt->offer_count++] = *offer;
    return 0;
}

static int offer_one(struct gw_target *tgt, unsigned id, struct gw_error *err)
{
    const struct gw_block_offer_msg *said = &tgt->offers[id];
    struct gw_block_offer offer = {
        .struct_bytes = sizeof(offer),
        .id = id,
        .count = tgt->offer_count,
        .name = said->name,
        .size_bytes = said->bytes,
        .page_bytes = said->page_bytes,
        .kind = (enum gw_block_kind)said->kind,
        .flags = said->flags,
    };
    struct gw_block_desc desc = {
        .struct_bytes = sizeof(desc),
        .name = said->name,
        .size_bytes = said->bytes,
        .page_bytes = GW_PAGE_BYTES,
        .fd = -1,
        .flags = said->flags,
    };
    int rc = tgt->ops.block_offered(tgt->ctx, &offer, &desc, err);
    if (rc < 0) {
        if (!gw_error_is_set(err))
            gw_fail_code(err, rc, GW_CODE_BLOCK, "refused (%s)", strerror(-rc));
        return gw_error_prefix(err, "block '%s' (%llu bytes)", said->name,
                               (unsigned long long)said->bytes);
    }
    if (desc.size_bytes != said->bytes || strcmp(desc.name, said->name) != 0)
        return gw_fail_code(err, -EINVAL, GW_CODE_BLOCK,
                            "block '%s': block_offered changed its name or size", said->name);
    rc = gw_ram_add_block(tgt->ram, &desc, err);
    if (rc < 0 && err->code == GW_CODE_INVALID)
        err->code = GW_CODE_BLOCK; /* it came from the peer, not from a caller */
    return rc < 0 ? rc : 0;
}

/* On the loop's thread, all offers in one go. */
static int offer_run(struct gw_target *tgt, struct gw_error *err)
{
    int rc = 0;
    tgt->building = true;
    for (unsigned id = 0; id < tgt->offer_count && rc == 0; id++)
        rc = offer_one(tgt, id, err);
    if (rc == 0 && tgt->ops.blocks_ready)
        rc = tgt->ops.blocks_ready(tgt->ctx, err);
    tgt->building = false;
    return rc < 0 ? rc : gw_target_set_up_devices(tgt, err);
}

static void ready_run(struct gw_job *job)
{
    struct gw_target *tgt = GW_CONTAINER_OF(job, struct gw_target, work.job);
    struct gw_error *err = &tgt->work.err;
    gw_error_clear(err);
    tgt->work.rc = gw_ram_target_begin(tgt->ram, err);
    if (tgt->work.rc == 0)
        gw_target_prefault_open(tgt);
    if (gw_target_page_flags(tgt) & GW_EP_ONE_SIDED) { /* chunks, as they are wished for */
        if (tgt->work.rc == 0)
            tgt->work.rc = gw_target_keys_open(tgt, err);
        return;
    }
    for (unsigned i = 0; tgt->work.rc == 0 && i < gw_ram_block_count(tgt->ram); i++) {
        struct gw_block *block = gw_ram_block(tgt->ram, i);
        struct gw_mr_desc desc = {.addr = block->desc.host,
                                  .bytes = block->desc.size_bytes,
                                  .access = GW_MR_REMOTE_WRITE,
                                  .region = i};
        tgt->work.rc = gw_mr_reg(gw_target_page_dom(tgt), &desc, &block->mr, err);
    }
}

static void say_blocks_ok(struct gw_target *tgt)
{
    unsigned count = gw_ram_block_count(tgt->ram);
    struct gw_error err = GW_ERROR_INIT;
    uint8_t *buf = gw_zalloc(count, 1);
    if (!buf) {
        gw_fail(&err, -ENOMEM, "BLOCKS_OK");
        gw_target_fail(tgt, &err);
        return;
    }
    struct gw_list_builder list = {.buf = buf, .bytes = count};
    for (unsigned i = 0; i < count; i++) {
        int rc = gw_list_add_fresh(&list, gw_ram_block(tgt->ram, i)->fresh);
        gw_assert(rc == 0);
    }
    struct gw_message msg = {.type = GW_MSG_BLOCKS_OK};
    msg.u.list.data = list.buf;
    msg.u.list.bytes = list.used;
    gw_target_say(tgt, &msg);
    gw_free(buf);
}

static void ready_done(struct gw_mail *mail, void *engine)
{
    struct gw_target *tgt = engine;
    (void)mail;
    tgt->work.busy = false;
    if (tgt->step != GW_TGT_READY)
        return;
    if (tgt->work.rc < 0) {
        gw_target_fail(tgt, &tgt->work.err);
        return;
    }
    tgt->step = GW_TGT_ACTIVE;
    for (unsigned i = 0; i < tgt->reply.endpoints; i++)
        gw_page_in_open(tgt->pages[i]);
    gw_target_status(tgt, GW_STATUS_ACTIVE);
    say_blocks_ok(tgt);
    gw_target_say_loaded(tgt);
}

static void offer_finished(struct gw_target *tgt, int rc)
{
    struct gw_error err = GW_ERROR_INIT;
    if (tgt->step != GW_TGT_READY)
        return;
    if (rc < 0) {
        gw_target_fail(tgt, &tgt->call.err);
        return;
    }
    gw_free(tgt->offers); /* the blocks are made of them: of 65536 it is 18 MiB */
    tgt->offers = NULL;
    tgt->offer_room = 0;
    if (gw_ram_layout(tgt->ram, tgt->hello.stripe_bytes, tgt->reply.endpoints, &err) < 0) {
        gw_target_fail(tgt, &err);
        return;
    }
    pthread_mutex_lock(&tgt->stats_lock);
    tgt->stats.total_bytes = gw_ram_bytes(tgt->ram);
    pthread_mutex_unlock(&tgt->stats_lock);
    gw_target_post(tgt, &tgt->work, ready_run, ready_done);
}

/* All page endpoints are open and all blocks are described: the embedder builds the guest. */
static void maybe_ready(struct gw_target *tgt)
{
    if (tgt->step != GW_TGT_OFFER || !tgt->offers_complete ||
        tgt->page_open_count < tgt->reply.endpoints)
        return;
    tgt->step = GW_TGT_READY;
    gw_target_ask(tgt, offer_run, offer_finished);
}

void gw_target_on_blocks(struct gw_target *tgt, const struct gw_message *msg)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_list_cursor cursor;
    struct gw_block_offer_msg offer;
    if (tgt->step != GW_TGT_OFFER || tgt->offers_complete) {
        gw_fail(&err, -EPROTO, "BLOCKS after the list was complete");
        gw_target_fail(tgt, &err);
        return;
    }
    if (tgt->page_wire &&
        tgt->page_wire->failed) { /* it goes on with a wire of which an endpoint is dead */
        gw_target_fail(tgt, &tgt->page_wire->why);
        return;
    }
    gw_list_begin(&cursor, msg->u.list);
    while (gw_list_next_block(&cursor, &offer)) {
        if (keep_offer(tgt, &offer, &err) < 0) {
            gw_target_fail(tgt, &err);
            return;
        }
    }
    if (!(msg->flags & GW_MSG_FLAG_LAST))
        return;
    if (tgt->offer_count == 0 || tgt->offered_bytes != tgt->hello.ram_bytes) {
        gw_fail(&err, -EPROTO, "the blocks offered are not the memory that hello said");
        gw_target_fail(tgt, &err);
        return;
    }
    tgt->offers_complete = true;
    maybe_ready(tgt);
}
