// SPDX-License-Identifier: MIT
/* Playing a recorded side (replay.h). Everything waits in place: while it waits for one thing it steps
 * every channel and keeps what arrives in a line for each endpoint. Both recorded and live messages
 * are decoded, made equal where they may differ, and encoded again: what is compared is bytes. */
#include "tests/support/replay.h"

#include "control/channel.h"
#include "core/base/bytes.h"
#include "core/base/clock.h"
#include "transport/filter/filter.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>

#define PATIENCE_NS (20 * GW_NS_PER_S)
#define PUTS_MAX 512
#define MESSAGE_MAX (GW_PAYLOAD_BYTES_MAX + 64u)

struct heard { /* a message that waits to be compared */
    struct heard *next;
    size_t bytes;
    uint8_t data[];
};

struct link {
    struct gw_endpoint *ep;
    struct gw_channel *channel;
    struct heard *first, *last;
    bool ended; /* the live side closed it */
};

struct event {
    uint64_t at_ns;
    unsigned recording;
    int record; /* -1: the connection is made */
};

struct block {
    uint64_t bytes;
    uint8_t *live, *recorded; /* at the target */
    struct gw_mr *mr;
    struct gw_rmr *rmr; /* at the source */
};

struct replay {
    const struct tap_session *session;
    struct replay_report *report;
    bool is_target;
    struct gw_domain *dom;
    struct gw_uri uri;
    struct gw_listener *listener;
    struct link links[GW_ENDPOINTS_MAX];
    struct gw_endpoint *arrived[GW_ENDPOINTS_MAX]; /* accepted, and not yet taken up */
    uint8_t live_session[GW_SESSION_BYTES];
    struct gw_token live_token, recorded_token;
    struct block *blocks;
    unsigned block_count;
    uint8_t *a, *b; /* encoded messages */
    struct event *events;
    unsigned event_count;
};

static int failed(struct replay *r, int rc, const char *what, const char *detail)
{
    if (gw_error_is_set(&r->report->err))
        return r->report->err.rc;
    return gw_fail(&r->report->err, rc, "replay, after %u said and %u heard: %s%s%s",
                   r->report->said, r->report->heard, what, detail ? ": " : "",
                   detail ? detail : "");
}

/* ---- what may differ -------------------------------------------------------------------------- */

static void map_token(const struct replay *r, struct gw_token *token)
{
    static const uint8_t zero[GW_TOKEN_BYTES];
    if (memcmp(token, &r->recorded_token, sizeof(*token)) == 0)
        *token = r->live_token;
    else if (memcmp(token->random, zero, sizeof(zero)) == 0 && token->incarnation)
        token->incarnation = r->live_token.incarnation;
}

static void map(const struct replay *r, struct gw_message *msg)
{
    switch (msg->type) {
    case GW_MSG_PREPARE:
    case GW_MSG_PREPARED:
        map_token(r, &msg->u.prepare.token);
        break;
    case GW_MSG_OUTCOME:
        map_token(r, &msg->u.outcome.token);
        break;
    case GW_MSG_COMMIT:
    case GW_MSG_ACK:
        map_token(r, &msg->u.token);
        break;
    case GW_MSG_ABORT:
        map_token(r, &msg->u.failed.token);
        break;
    case GW_MSG_ASK:
        map_token(r, &msg->u.ask.token);
        memcpy(msg->u.ask.session, r->live_session, sizeof(msg->u.ask.session));
        break;
    case GW_MSG_UNKNOWN:
        memcpy(msg->u.ask.session, r->live_session, sizeof(msg->u.ask.session));
        break;
    default:
        break;
    }
}

/* What neither side can be held to. */
static void blank(struct gw_message *msg)
{
    if (msg->type == GW_MSG_HELLO || msg->type == GW_MSG_HELLO_REPLY) {
        memset(msg->u.hello.agent, 0, sizeof(msg->u.hello.agent));
        msg->u.hello.incarnation = 0;
    } else if (msg->type == GW_MSG_PREPARED) {
        msg->u.prepare.revoke_ns = msg->u.prepare.digest_ns = msg->u.prepare.load_ns = 0;
    } else if (msg->type == GW_MSG_OUTCOME) {
        msg->u.outcome.acquire_ns = msg->u.outcome.resume_ns = 0;
    }
}

/* The tokens and incarnations that the two sides have now. */
static void learn(const struct gw_message *recorded, const struct gw_message *live,
                  struct replay *r)
{
    if (recorded->type == GW_MSG_HELLO_REPLY) {
        r->recorded_token.incarnation = recorded->u.hello.incarnation;
        r->live_token.incarnation = live->u.hello.incarnation;
    } else if (recorded->type == GW_MSG_PREPARE) {
        r->recorded_token = recorded->u.prepare.token;
        r->live_token = live->u.prepare.token;
    }
}

static bool is_played(const struct replay *r, const struct gw_message *msg)
{
    if (msg->type == GW_MSG_HEARTBEAT || msg->type == GW_MSG_CREDIT)
        return false;
    return !r->is_target || msg->type != GW_MSG_ZERO;
}

/* ---- memory at the target ---------------------------------------------------------------------- */

static uint8_t *map_memory(uint64_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

static int add_block(struct replay *r, uint64_t bytes)
{
    unsigned id = r->block_count;
    struct block *blocks = realloc(r->blocks, (id + 1u) * sizeof(*blocks));
    if (!blocks)
        return failed(r, -ENOMEM, "blocks", NULL);
    r->blocks = blocks;
    struct block *block = &blocks[id];
    *block = (struct block){.bytes = bytes};
    r->block_count++;
    if (!r->is_target)
        return gw_rmr_open(r->dom, id, bytes, NULL, 0, &block->rmr, &r->report->err);
    block->live = map_memory(bytes);
    block->recorded = map_memory(bytes);
    if (!block->live || !block->recorded)
        return failed(r, -ENOMEM, "memory of a block", NULL);
    struct gw_mr_desc desc = {
        .addr = block->live, .bytes = bytes, .access = GW_MR_REMOTE_WRITE, .region = id};
    return gw_mr_reg(r->dom, &desc, &block->mr, &r->report->err);
}

static int add_blocks(struct replay *r, const struct gw_message *msg)
{
    struct gw_list_cursor cursor;
    struct gw_block_offer_msg block;
    int rc = 0;
    gw_list_begin(&cursor, msg->u.list);
    while (rc == 0 && gw_list_next_block(&cursor, &block))
        rc = add_block(r, block.bytes);
    return rc;
}

static void zero_runs(struct replay *r, const struct gw_message *msg, bool live)
{
    struct gw_list_cursor cursor;
    struct gw_range_msg run;
    gw_list_begin(&cursor, msg->u.zero.runs);
    while (gw_list_next_range(&cursor, GW_MSG_ZERO, &run)) {
        if (run.block >= r->block_count)
            continue;
        struct block *block = &r->blocks[run.block];
        if (gw_range_is_inside(run.first * 4096, run.count * 4096, block->bytes))
            memset((live ? block->live : block->recorded) + run.first * 4096, 0, run.count * 4096);
    }
}

static void count_placed(void *ctx, uint32_t region, uint64_t offset, uint32_t bytes)
{
    struct replay *r = ctx;
    (void)region;
    (void)offset;
    r->report->put_bytes += bytes;
}

static const struct gw_place_ops place = {.placed = count_placed};

static int place_recorded(struct replay *r, const struct tap_recording *recording,
                          const struct tap_record *record)
{
    struct tap_put put = {.bytes = NULL};
    for (unsigned i = 0; i < record->entries; i++) {
        tap_put_next(recording, record, i, &put);
        if (put.region >= r->block_count ||
            !gw_range_is_inside(put.offset, put.length, r->blocks[put.region].bytes))
            return failed(r, -EPROTO, "a recorded put lies outside of its block", recording->path);
        if (put.bytes)
            memcpy(r->blocks[put.region].recorded + put.offset, put.bytes, put.length);
    }
    return 0;
}

/* ---- links ---------------------------------------------------------------------------------------- */

static void keep(struct replay *r, struct link *link, const struct gw_message *msg)
{
    if (msg->type == GW_MSG_ZERO && r->is_target)
        zero_runs(r, msg, true);
    ssize_t bytes = is_played(r, msg) ? gw_message_encode(msg, r->a, MESSAGE_MAX) : -1;
    struct heard *heard = bytes >= 0 ? malloc(sizeof(*heard) + (size_t)bytes) : NULL;
    if (!heard)
        return;
    heard->next = NULL;
    heard->bytes = (size_t)bytes;
    memcpy(heard->data, r->a, heard->bytes);
    if (link->last)
        link->last->next = heard;
    else
        link->first = heard;
    link->last = heard;
}

static void step_link(struct replay *r, struct link *link)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_message msg;
    int rc;
    if (!link->channel || link->ended)
        return;
    while ((rc = gw_channel_recv(link->channel, &msg, &err)) > 0)
        keep(r, link, &msg);
    if (rc == 0)
        rc = gw_channel_step(link->channel, gw_clock_ns(), &err);
    link->ended = rc < 0;
}

static enum gw_admission admit(void *ctx, const struct gw_preface *preface, struct gw_domain **dom,
                               struct gw_wire_config *config)
{
    struct replay *r = ctx;
    if (preface->index == 0)
        memcpy(r->live_session, preface->session, sizeof(r->live_session));
    *dom = r->dom;
    if (preface->index > 0) {
        config->place = &place;
        config->place_ctx = r;
    }
    return GW_ADMIT_OK;
}

static void take_connections(struct replay *r)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_endpoint *ep;
    struct gw_ep_attr attr;
    while (r->listener && gw_accept(r->listener, admit, r, &ep, &err) > 0) {
        gw_ep_query(ep, &attr);
        gw_ep_close(r->arrived[attr.index]);
        r->arrived[attr.index] = ep;
    }
}

/* One turn of everything, and at most a millisecond of sleep. */
static void turn(struct replay *r)
{
    take_connections(r);
    for (unsigned i = 0; i < GW_ENDPOINTS_MAX; i++) {
        struct pollfd fds[4];
        uint64_t wake_ns = GW_NEVER_NS;
        step_link(r, &r->links[i]);
        int count = r->links[i].ep ? gw_ep_arm(r->links[i].ep, fds, 4, &wake_ns) : 0;
        if (count > 0 && gw_clock_poll(fds, (unsigned)count, gw_clock_ns()) > 0)
            gw_ep_awake(r->links[i].ep, fds, (unsigned)count);
    }
    if (r->listener) {
        struct pollfd fds[2];
        uint64_t wake_ns = GW_NEVER_NS;
        int count = gw_listener_arm(r->listener, fds, 2, &wake_ns);
        if (count > 0 && gw_clock_poll(fds, (unsigned)count, gw_clock_ns()) > 0)
            gw_listener_awake(r->listener, fds, (unsigned)count);
    }
    gw_clock_poll(NULL, 0, gw_clock_ns() + GW_NS_PER_MS / 4);
}

static void close_link(struct link *link)
{
    gw_channel_free(link->channel);
    gw_ep_close(link->ep);
    while (link->first) {
        struct heard *next = link->first->next;
        free(link->first);
        link->first = next;
    }
    *link = (struct link){.ep = NULL};
}

static int open_link(struct replay *r, unsigned index)
{
    struct link *link = &r->links[index];
    uint64_t until_ns = gw_clock_ns() + PATIENCE_NS;
    close_link(link);
    if (r->is_target) {
        while (!r->arrived[index] && gw_clock_ns() < until_ns)
            turn(r);
        link->ep = r->arrived[index];
        r->arrived[index] = NULL;
        if (!link->ep)
            return failed(r, -ETIMEDOUT, "the live source did not make a connection", NULL);
    } else {
        struct gw_wire_config config = {.index = (uint16_t)index, .deadline_ns = until_ns};
        memcpy(config.session, r->live_session, sizeof(config.session));
        int rc = gw_connect(r->dom, &r->uri, &config, &link->ep, &r->report->err);
        if (rc < 0)
            return rc;
    }
    struct gw_channel_config config = {
        .ep = link->ep, .side = r->is_target ? GW_CHANNEL_TARGET : GW_CHANNEL_SOURCE};
    link->channel = gw_channel_new(&config, &r->report->err);
    return link->channel ? 0 : -ENOMEM;
}

/* What it has said has left. */
static int flush(struct replay *r, struct link *link)
{
    uint64_t until_ns = gw_clock_ns() + PATIENCE_NS;
    while (!link->ended && !gw_channel_is_flushed(link->channel)) {
        if (gw_clock_ns() > until_ns)
            return failed(r, -ETIMEDOUT, "the live side does not read", NULL);
        turn(r);
    }
    return 0;
}

/* ---- playing -------------------------------------------------------------------------------------- */

static int decode(struct replay *r, const struct tap_recording *recording,
                  const struct tap_record *record, struct gw_message *msg)
{
    int rc = gw_message_decode(record->body, record->bytes, msg, &r->report->err);
    return rc < 0 ? gw_error_prefix(&r->report->err, "%s", recording->path) : 0;
}

static int say(struct replay *r, struct link *link, const struct gw_message *recorded)
{
    struct gw_message msg = *recorded;
    uint64_t until_ns = gw_clock_ns() + PATIENCE_NS;
    int rc = -EAGAIN;
    if (msg.type == GW_MSG_HELLO_REPLY)
        learn(&msg, &msg, r);
    if (msg.type == GW_MSG_PREPARE) {
        r->recorded_token = msg.u.prepare.token;
        if (getrandom(r->live_token.random, sizeof(r->live_token.random), 0) < 0)
            return failed(r, -EIO, "no random numbers", NULL);
    }
    if (msg.type == GW_MSG_BLOCKS && (rc = add_blocks(r, &msg)) < 0)
        return rc;
    map(r, &msg);
    while ((rc = gw_channel_send(link->channel, &msg)) == -EAGAIN && gw_clock_ns() < until_ns)
        turn(r);
    if (rc < 0)
        return failed(r, rc, "the live side does not take", gw_message_name(msg.type));
    r->report->said++;
    step_link(r, link);
    return 0;
}

static int play_puts(struct replay *r, struct link *link, const struct tap_recording *recording,
                     const struct tap_record *record)
{
    struct tap_put put = {.bytes = NULL};
    struct gw_completion done[64];
    unsigned out = 0;
    int rc = flush(r, link);
    for (unsigned i = 0; rc == 0 && i < record->entries; i++) {
        tap_put_next(recording, record, i, &put);
        if (!put.bytes)
            return failed(r, -ENODATA, "recorded without payload=on", recording->path);
        if (put.region >= r->block_count)
            return failed(r, -EPROTO, "a recorded put into no block", recording->path);
        struct gw_put live = {.local = put.bytes,
                              .rmr = r->blocks[put.region].rmr,
                              .offset = put.offset,
                              .bytes = put.length};
        uint64_t until_ns = gw_clock_ns() + PATIENCE_NS;
        int taken;
        while ((taken = gw_put(link->ep, &live, 1)) == 0 && gw_clock_ns() < until_ns) {
            int got = gw_poll(link->ep, done, 64);
            out -= got > 0 ? (unsigned)got : 0;
            turn(r);
        }
        if (taken != 1)
            return failed(r, taken < 0 ? taken : -ETIMEDOUT, "a put is not taken", NULL);
        out++;
        r->report->put_bytes += put.length;
    }
    for (uint64_t until_ns = gw_clock_ns() + PATIENCE_NS; rc == 0 && out > 0;) {
        int got = gw_poll(link->ep, done, 64);
        if (got < 0 || gw_clock_ns() > until_ns)
            return failed(r, got < 0 ? got : -ETIMEDOUT, "puts do not complete", NULL);
        out -= (unsigned)got;
        turn(r);
    }
    return rc;
}

static int differ(struct replay *r, const struct gw_message *recorded,
                  const struct gw_message *live)
{
    char text[160];
    snprintf(text, sizeof(text), "%s was recorded, %s was said%s", gw_message_name(recorded->type),
             gw_message_name(live->type), recorded->type == live->type ? " with another body" : "");
    return failed(r, -EBADMSG, text,
                  live->type == GW_MSG_FAILED ? live->u.failed.error.message : NULL);
}

static int compare(struct replay *r, const struct gw_message *recorded, struct heard *heard)
{
    struct gw_message mine = *recorded, live;
    int rc = gw_message_decode(heard->data, heard->bytes, &live, &r->report->err);
    if (rc < 0)
        return rc;
    if (mine.type == live.type)
        learn(&mine, &live, r);
    if (live.type == GW_MSG_BLOCKS && mine.type == live.type && (rc = add_blocks(r, &live)) < 0)
        return rc;
    map(r, &mine);
    blank(&mine);
    blank(&live);
    ssize_t a = gw_message_encode(&mine, r->a, MESSAGE_MAX);
    ssize_t b = gw_message_encode(&live, r->b, MESSAGE_MAX);
    if (a < 0 || a != b || memcmp(r->a, r->b, (size_t)a) != 0)
        return differ(r, recorded, &live);
    r->report->heard++;
    return 0;
}

static int expect(struct replay *r, struct link *link, const struct gw_message *recorded)
{
    uint64_t until_ns = gw_clock_ns() + PATIENCE_NS;
    while (!link->first) {
        if (link->ended || gw_clock_ns() > until_ns)
            return failed(r, link->ended ? -ECONNRESET : -ETIMEDOUT, "the live side did not say",
                          gw_message_name(recorded->type));
        turn(r);
    }
    struct heard *heard = link->first;
    link->first = heard->next;
    if (!link->first)
        link->last = NULL;
    int rc = compare(r, recorded, heard);
    free(heard);
    return rc;
}

static int play_message(struct replay *r, struct link *link, const struct tap_recording *recording,
                        const struct tap_record *record)
{
    struct gw_message msg;
    int rc = decode(r, recording, record, &msg);
    if (rc == 0 && msg.type == GW_MSG_ZERO && r->is_target)
        zero_runs(r, &msg, false);
    if (rc < 0 || !is_played(r, &msg))
        return rc;
    return record->way == GW_TAP_OUT ? say(r, link, &msg) : expect(r, link, &msg);
}

static int end_link(struct replay *r, struct link *link)
{
    int rc = flush(r, link);
    if (rc == 0 && link->first) {
        struct gw_message msg;
        rc = gw_message_decode(link->first->data, link->first->bytes, &msg, &r->report->err);
        return rc < 0 ? rc
                      : failed(r, -EBADMSG, "the live side said more", gw_message_name(msg.type));
    }
    close_link(link);
    return rc;
}

static int play(struct replay *r, const struct event *event)
{
    const struct tap_recording *recording = &r->session->recordings[event->recording];
    struct link *link = &r->links[recording->head.index];
    if (event->record < 0)
        return open_link(r, recording->head.index);
    const struct tap_record *record = &recording->records[event->record];
    if (!link->channel)
        return 0;
    switch (record->kind) {
    case GW_TAP_MESSAGE:
        return play_message(r, link, recording, record);
    case GW_TAP_PUTS:
        return record->way == GW_TAP_OUT ? play_puts(r, link, recording, record)
                                         : place_recorded(r, recording, record);
    case GW_TAP_REVOKE:
        gw_ep_revoke(link->ep);
        return 0;
    case GW_TAP_END:
        return end_link(r, link);
    }
    return 0;
}

static int by_time(const void *a, const void *b)
{
    const struct event *x = a, *y = b;
    if (x->at_ns != y->at_ns)
        return x->at_ns < y->at_ns ? -1 : 1;
    if (x->recording != y->recording)
        return x->recording < y->recording ? -1 : 1;
    return x->record < y->record ? -1 : x->record > y->record;
}

static int sort_events(struct replay *r)
{
    unsigned count = 0;
    for (unsigned i = 0; i < r->session->count; i++)
        count += 1 + r->session->recordings[i].count;
    r->events = calloc(count, sizeof(*r->events));
    if (!r->events)
        return failed(r, -ENOMEM, "events", NULL);
    for (unsigned i = 0; i < r->session->count; i++) {
        const struct tap_recording *recording = &r->session->recordings[i];
        r->events[r->event_count++] =
            (struct event){.at_ns = recording->head.clock_ns, .recording = i, .record = -1};
        for (unsigned k = 0; k < recording->count; k++)
            r->events[r->event_count++] = (struct event){
                .at_ns = recording->records[k].at_ns, .recording = i, .record = (int)k};
    }
    qsort(r->events, r->event_count, sizeof(*r->events), by_time);
    return 0;
}

static int run(struct replay *r, const struct tap_session *session, struct replay_report *report)
{
    *report = (struct replay_report){.err = GW_ERROR_INIT};
    r->session = session;
    r->report = report;
    r->a = malloc(MESSAGE_MAX);
    r->b = malloc(MESSAGE_MAX);
    int rc = r->a && r->b ? sort_events(r) : failed(r, -ENOMEM, "messages", NULL);
    for (unsigned i = 0; rc == 0 && i < r->event_count; i++)
        rc = play(r, &r->events[i]);
    return rc;
}

static void fini(struct replay *r)
{
    for (unsigned i = 0; i < GW_ENDPOINTS_MAX; i++) {
        close_link(&r->links[i]);
        gw_ep_close(r->arrived[i]);
    }
    for (unsigned i = 0; i < r->block_count; i++) {
        struct block *block = &r->blocks[i];
        gw_mr_dereg(block->mr);
        gw_rmr_close(block->rmr);
        if (block->live)
            munmap(block->live, block->bytes);
        if (block->recorded)
            munmap(block->recorded, block->bytes);
    }
    free(r->blocks);
    free(r->events);
    free(r->a);
    free(r->b);
    gw_listener_close(r->listener);
    gw_domain_close(r->dom);
}

int replay_source(const struct tap_session *session, const char *uri, struct replay_report *report)
{
    struct replay *r = calloc(1, sizeof(*r));
    struct gw_wire_config config = {.index = 0};
    *report = (struct replay_report){.err = GW_ERROR_INIT};
    if (!r)
        return gw_fail(&report->err, -ENOMEM, "replay");
    r->report = report;
    int rc = gw_uri_parse(uri, &r->uri, &report->err);
    if (rc == 0)
        rc = gw_domain_open(r->uri.scheme, &config, &r->dom, &report->err);
    if (rc == 0 && getrandom(r->live_session, sizeof(r->live_session), 0) < 0)
        rc = failed(r, -EIO, "no random numbers", NULL);
    if (rc == 0)
        rc = run(r, session, report);
    fini(r);
    free(r);
    return rc;
}

struct replay_target {
    struct replay replay;
};

struct replay_target *replay_target_new(const char *uri, char *heard_at, size_t bytes)
{
    struct replay_target *target = calloc(1, sizeof(*target));
    struct gw_wire_config config = {.index = 0};
    struct replay *r = &target->replay;
    if (!target)
        return NULL;
    r->is_target = true;
    if (gw_uri_parse(uri, &r->uri, NULL) < 0 ||
        gw_domain_open(r->uri.scheme, &config, &r->dom, NULL) < 0 ||
        gw_listen(&r->uri, &config, &r->listener, NULL) < 0) {
        gw_domain_close(r->dom);
        free(target);
        return NULL;
    }
    snprintf(heard_at, bytes, "%s", gw_listener_uri(r->listener));
    return target;
}

int replay_target_run(struct replay_target *target, const struct tap_session *session,
                      struct replay_report *report)
{
    struct replay *r = &target->replay;
    int rc = run(r, session, report);
    report->memory_is_equal = rc == 0;
    for (unsigned i = 0; i < r->block_count; i++)
        report->memory_is_equal &=
            memcmp(r->blocks[i].live, r->blocks[i].recorded, r->blocks[i].bytes) == 0;
    return rc;
}

void replay_target_free(struct replay_target *target)
{
    if (target)
        fini(&target->replay);
    free(target);
}
