// SPDX-License-Identifier: MIT
/* A channel: messages on one endpoint. Going out, what credit or the wire does not take yet waits
 * in a bounded first-in-first-out queue; HEARTBEAT and CREDIT pass it. Coming in, one message at a
 * time is decoded in the channel's buffer. A step flushes, grants, beats, and judges silence:
 * before it condemns the peer it reads everything that has arrived, keeping messages for later
 * calls of recv (credits bound how much that can be). The first failure is latched; messages that
 * had arrived by then are still handed out first, because a COMMIT that was read counts. */
#include "control/channel.h"

#include "control/codec.h"
#include "core/base/alloc.h"
#include "core/base/clock.h"

#include <inttypes.h>
#include <string.h>

#define PEER_TIMEOUT_NS_DEFAULT (2 * GW_NS_PER_S)
/* Small messages find this much more room than bulk ones: the longest and a few hundred others. */
#define RESERVE_BYTES (GW_MESSAGE_BYTES_DEFAULT + (UINT64_C(256) << 10))
/* HEARTBEAT and CREDIT handled in one call: a peer that sends nothing else must not keep us. */
#define FREE_MESSAGES_MAX 64u

struct item { /* one message, encoded */
    struct item *next;
    size_t bytes;
    bool is_credited;
    uint8_t data[];
};

struct items {
    struct item *first, **last;
    uint64_t bytes; /* with the items' own heads */
};

struct gw_channel {
    struct gw_endpoint *ep;
    uint16_t index;
    enum gw_channel_side side;
    uint32_t message_bytes_max;
    uint64_t window, queue_bytes_max, timeout_ns;
    uint8_t *buf;  /* message_bytes_max */
    uint8_t *lent; /* buf, or what it was: the last message that recv returned lies there */

    struct items out;
    uint64_t out_granted, out_sent; /* bytes of credited messages since the connection began */

    struct items ahead;   /* read by a step, not yet asked for */
    struct item *current; /* of ahead, shown to the caller */
    uint64_t in_granted, in_received, in_held, in_ahead;

    bool is_started, is_stirred; /* stirred: a step put something into ahead */
    bool is_hushed;
    bool is_said;      /* a message left since the last look */
    uint64_t said;     /* messages the endpoint took */
    bool is_one_sided; /* the peer's code sees no put: only messages are signs of life */
    uint64_t step_ns, silent_ns, tx_ns;
    uint64_t rx_seen, tx_seen;
    bool tx_pending;

    int rc; /* final */
    struct gw_error err;
};

/* ---- queues ---------------------------------------------------------------------------------- */

static void items_init(struct items *items)
{
    *items = (struct items){.first = NULL, .last = &items->first};
}

static struct item *items_add(struct items *items, const uint8_t *head, size_t head_bytes,
                              struct gw_span tail)
{
    struct item *item = gw_zalloc(1, sizeof(*item) + head_bytes + tail.bytes);
    if (!item)
        return NULL;
    item->bytes = head_bytes + tail.bytes;
    memcpy(item->data, head, head_bytes);
    if (tail.bytes)
        memcpy(item->data + head_bytes, tail.data, tail.bytes);
    *items->last = item;
    items->last = &item->next;
    items->bytes += sizeof(*item) + item->bytes;
    return item;
}

static struct item *items_take(struct items *items)
{
    struct item *item = items->first;
    if (!item)
        return NULL;
    items->first = item->next;
    if (!items->first)
        items->last = &items->first;
    items->bytes -= sizeof(*item) + item->bytes;
    return item;
}

static void items_fini(struct items *items)
{
    for (struct item *item = items_take(items); item; item = items_take(items))
        gw_free(item);
}

/* ---- life ------------------------------------------------------------------------------------ */

struct gw_channel *gw_channel_new(const struct gw_channel_config *config, struct gw_error *err)
{
    struct gw_ep_attr attr;
    gw_ep_query(config->ep, &attr);
    struct gw_channel *ch = gw_zalloc(1, sizeof(*ch));
    uint8_t *buf = gw_zalloc(1, attr.message_bytes_max);
    if (!ch || !buf) {
        gw_free(buf);
        gw_free(ch);
        gw_fail(err, -ENOMEM, "channel of endpoint %u", (unsigned)attr.index);
        return NULL;
    }
    ch->ep = config->ep;
    ch->index = attr.index;
    ch->side = config->side;
    ch->is_one_sided = attr.flags & GW_EP_ONE_SIDED;
    ch->message_bytes_max = attr.message_bytes_max;
    ch->buf = buf;
    /* A window below one message would never let the longest leave. */
    ch->window = config->window_bytes ? config->window_bytes : GW_CHANNEL_WINDOW_DEFAULT;
    ch->window = gw_max_u64(ch->window, gw_max_u64(attr.message_bytes_max, GW_CHANNEL_GRANT_FIRST));
    ch->queue_bytes_max =
        config->queue_bytes_max ? config->queue_bytes_max : GW_CHANNEL_QUEUE_DEFAULT;
    ch->out_granted = ch->in_granted = GW_CHANNEL_GRANT_FIRST;
    gw_channel_set_peer_timeout(ch, config->peer_timeout_ns);
    items_init(&ch->out);
    items_init(&ch->ahead);
    ch->rx_seen = attr.rx_bytes;
    ch->tx_seen = attr.tx_bytes;
    ch->err.struct_bytes = sizeof(ch->err);
    return ch;
}

void gw_channel_free(struct gw_channel *ch)
{
    if (!ch)
        return;
    items_fini(&ch->out);
    items_fini(&ch->ahead);
    gw_free(ch->current);
    if (ch->lent != ch->buf)
        gw_free(ch->lent);
    gw_free(ch->buf);
    gw_free(ch);
}

void gw_channel_set_peer_timeout(struct gw_channel *ch, uint64_t peer_timeout_ns)
{
    ch->timeout_ns = peer_timeout_ns ? peer_timeout_ns : PEER_TIMEOUT_NS_DEFAULT;
}

/* ---- failing --------------------------------------------------------------------------------- */

static void drain(struct gw_channel *ch);

static int report(const struct gw_channel *ch, struct gw_error *err)
{
    gw_error_copy(err, &ch->err);
    return ch->rc;
}

/* Make ch->err, which the caller has filled, final. */
static int latch(struct gw_channel *ch, int rc)
{
    struct gw_ep_attr attr;
    if (ch->rc < 0)
        return ch->rc;
    gw_ep_query(ch->ep, &attr);
    gw_error_place(&ch->err, "%s endpoint %u", attr.peer, (unsigned)ch->index);
    ch->rc = rc;
    return rc;
}

/* The endpoint said @rc. */
static int fail_ep(struct gw_channel *ch, int rc)
{
    if (ch->rc < 0)
        return ch->rc;
    gw_error_clear(&ch->err);
    gw_ep_error(ch->ep, &ch->err);
    if (!gw_error_is_set(&ch->err)) {
        if (rc == -ECONNRESET)
            gw_fail_code(&ch->err, rc, GW_CODE_PEER_LOST, "the peer closed the connection");
        else
            gw_fail(&ch->err, rc, "connection");
    }
    return latch(ch, rc);
}

/* A send failed. What the peer said before it went (why it failed, an outcome) may still wait. */
static int fail_send(struct gw_channel *ch, int rc)
{
    drain(ch);
    return fail_ep(ch, rc);
}

/* ---- out ------------------------------------------------------------------------------------- */

static bool out_may_leave(const struct gw_channel *ch, bool is_credited, size_t bytes)
{
    return !is_credited || bytes <= ch->out_granted - ch->out_sent;
}

static int wire_send(struct gw_channel *ch, const uint8_t *head, size_t head_bytes,
                     struct gw_span tail)
{
    struct iovec iov[2] = {
        {.iov_base = (void *)(uintptr_t)head, .iov_len = head_bytes},
        {.iov_base = (void *)(uintptr_t)tail.data, .iov_len = tail.bytes},
    };
    int rc = gw_send(ch->ep, iov, tail.bytes ? 2 : 1);
    ch->is_said |= rc >= 0;
    ch->said += rc >= 0;
    return rc;
}

/* Return 0 also when the rest has to wait. */
static int flush(struct gw_channel *ch)
{
    while (ch->rc == 0 && ch->out.first) {
        struct item *item = ch->out.first;
        if (!out_may_leave(ch, item->is_credited, item->bytes))
            return 0;
        int rc = wire_send(ch, item->data, item->bytes, (struct gw_span){0});
        if (rc == -EAGAIN)
            return 0;
        if (rc < 0)
            return fail_send(ch, rc);
        if (item->is_credited)
            ch->out_sent += item->bytes;
        gw_free(items_take(&ch->out));
    }
    return ch->rc;
}

static int enqueue(struct gw_channel *ch, const struct gw_message_def *def, const uint8_t *head,
                   size_t head_bytes, struct gw_span tail)
{
    uint64_t bytes = sizeof(struct item) + head_bytes + tail.bytes;
    bool is_bulk = def->way == GW_WAY_BULK;
    uint64_t limit = ch->queue_bytes_max + (is_bulk ? 0 : RESERVE_BYTES);
    /* One message always fits, however small the queue. */
    if (ch->out.first && ch->out.bytes + bytes > limit) {
        if (is_bulk)
            return -EAGAIN;
        gw_fail_code(&ch->err, -ENOBUFS, GW_CODE_PROTOCOL,
                     "the peer takes no messages: %" PRIu64 " bytes wait for it", ch->out.bytes);
        return latch(ch, -ENOBUFS);
    }
    struct item *item = items_add(&ch->out, head, head_bytes, tail);
    if (!item)
        return -ENOMEM;
    item->is_credited = def->way != GW_WAY_FREE;
    return 0;
}

int gw_channel_send(struct gw_channel *ch, const struct gw_message *msg)
{
    uint8_t head[GW_MESSAGE_HEAD_BYTES_MAX];
    struct gw_span tail;
    const struct gw_message_def *def = gw_message_def((uint32_t)msg->type);
    if (!def || def->way == GW_WAY_FREE)
        return -EINVAL;
    ssize_t head_bytes = gw_message_encode_head(msg, head, &tail);
    if (head_bytes < 0)
        return (int)head_bytes;
    size_t bytes = (size_t)head_bytes + tail.bytes;
    if (bytes > ch->message_bytes_max)
        return -EMSGSIZE;
    int rc = flush(ch);
    if (rc < 0)
        return rc;
    if (!ch->out.first && out_may_leave(ch, true, bytes)) {
        rc = wire_send(ch, head, (size_t)head_bytes, tail);
        if (rc >= 0) {
            ch->out_sent += bytes;
            return 0;
        }
        if (rc != -EAGAIN)
            return fail_send(ch, rc);
    }
    if (def->way == GW_WAY_DIRECT)
        return -EAGAIN;
    return enqueue(ch, def, head, (size_t)head_bytes, tail);
}

/* HEARTBEAT or CREDIT, past the queue. Return 1: sent; 0: the wire is full; negative: final. */
static int send_free(struct gw_channel *ch, enum gw_message_type type, uint64_t credit)
{
    uint8_t head[GW_MESSAGE_HEAD_BYTES_MAX];
    struct gw_span tail;
    struct gw_message msg = {.type = type};
    msg.u.credit = credit;
    ssize_t bytes = gw_message_encode_head(&msg, head, &tail);
    gw_assert(bytes > 0);
    int rc = wire_send(ch, head, (size_t)bytes, tail);
    if (rc == -EAGAIN)
        return 0;
    return rc < 0 ? fail_send(ch, rc) : 1;
}

/* Tell the peer what it may send, once it is a quarter of the window more than it knows. */
static int grant(struct gw_channel *ch)
{
    uint64_t consumed = ch->in_received - ch->in_held - ch->in_ahead;
    uint64_t target = consumed + ch->window;
    if (ch->rc < 0 || ch->is_hushed)
        return ch->rc;
    if (target <= ch->in_granted || target - ch->in_granted < ch->window / 4)
        return 0;
    int rc = send_free(ch, GW_MSG_CREDIT, target);
    if (rc > 0)
        ch->in_granted = target;
    return rc < 0 ? rc : 0;
}

/* ---- in -------------------------------------------------------------------------------------- */

static int take_credit(struct gw_channel *ch, uint64_t granted)
{
    if (granted < ch->out_granted)
        return gw_fail(&ch->err, -EPROTO, "CREDIT: %" PRIu64 " granted, after %" PRIu64, granted,
                       ch->out_granted);
    ch->out_granted = granted;
    return 0;
}

/* May this message come from the peer, on this endpoint? */
static int check_route(struct gw_channel *ch, const struct gw_message_def *def)
{
    enum gw_message_on on = ch->index == 0 ? GW_ON_CONTROL : GW_ON_PAGES;
    if (ch->side == GW_CHANNEL_ANY_SIDE)
        return 0;
    enum gw_message_from peer = ch->side == GW_CHANNEL_SOURCE ? GW_FROM_TARGET : GW_FROM_SOURCE;
    if (!(def->on & on))
        return gw_fail(&ch->err, -EPROTO, "%s on a %s endpoint", def->name,
                       on == GW_ON_CONTROL ? "control" : "page");
    if (!(def->from & peer))
        return gw_fail(&ch->err, -EPROTO, "%s from a %s", def->name,
                       peer == GW_FROM_SOURCE ? "source" : "target");
    return 0;
}

/* One message has arrived in ch->buf. Return 1: it is the caller's; 0: it was ours; negative. */
static int arrive(struct gw_channel *ch, size_t bytes, struct gw_message *msg)
{
    int rc = gw_message_decode(ch->buf, bytes, msg, &ch->err);
    if (rc < 0)
        return rc;
    const struct gw_message_def *def = gw_message_def((uint32_t)msg->type);
    rc = check_route(ch, def);
    if (rc < 0)
        return rc;
    if (msg->type == GW_MSG_CREDIT)
        return take_credit(ch, msg->u.credit);
    if (msg->type == GW_MSG_HEARTBEAT)
        return 0;
    if (bytes > ch->in_granted - ch->in_received)
        return gw_fail(&ch->err, -EPROTO,
                       "%s of %zu bytes is beyond its credit: %" PRIu64 " of %" PRIu64
                       " bytes were used",
                       def->name, bytes, ch->in_received, ch->in_granted);
    ch->in_received += bytes;
    return 1;
}

/* Read one message. Return its length (@msg is then the caller's), 0: none, or what was latched. */
static ssize_t read_one(struct gw_channel *ch, struct gw_message *msg)
{
    for (unsigned i = 0; i < FREE_MESSAGES_MAX; i++) {
        ssize_t bytes = gw_recv(ch->ep, ch->buf, ch->message_bytes_max);
        if (bytes == -EAGAIN)
            return 0;
        if (bytes < 0)
            return fail_ep(ch, (int)bytes);
        gw_error_clear(&ch->err);
        int rc = arrive(ch, (size_t)bytes, msg);
        if (rc < 0)
            return latch(ch, rc);
        if (rc > 0)
            return bytes;
    }
    return 0;
}

/* The caller may still look at the last message: read into another buffer. */
static bool spare_lent(struct gw_channel *ch)
{
    if (ch->lent != ch->buf)
        return true;
    uint8_t *buf = gw_zalloc(1, ch->message_bytes_max);
    if (buf)
        ch->buf = buf;
    return buf != NULL;
}

/* Read all that has arrived. Credits bound it. */
static void drain(struct gw_channel *ch)
{
    struct gw_message msg;
    if (!spare_lent(ch))
        return;
    while (ch->rc == 0) {
        ssize_t bytes = read_one(ch, &msg);
        if (bytes <= 0)
            return;
        struct gw_span none = {0};
        if (!items_add(&ch->ahead, ch->buf, (size_t)bytes, none)) {
            gw_fail(&ch->err, -ENOMEM, "a message read ahead");
            latch(ch, -ENOMEM);
            return;
        }
        ch->in_ahead += (uint64_t)bytes;
        ch->is_stirred = true;
    }
}

static int recv_ahead(struct gw_channel *ch, struct gw_message *msg)
{
    ch->current = items_take(&ch->ahead);
    ch->in_ahead -= ch->current->bytes;
    int rc = gw_message_decode(ch->current->data, ch->current->bytes, msg, NULL);
    gw_assert(rc == 0); /* it was decoded when it arrived */
    return 1;
}

int gw_channel_recv(struct gw_channel *ch, struct gw_message *msg, struct gw_error *err)
{
    gw_free(ch->current);
    ch->current = NULL;
    if (ch->lent != ch->buf)
        gw_free(ch->lent);
    ch->lent = NULL;
    grant(ch);
    if (ch->ahead.first)
        return recv_ahead(ch, msg);
    if (ch->rc < 0)
        return report(ch, err);
    ssize_t bytes = read_one(ch, msg);
    if (bytes < 0)
        return report(ch, err);
    if (bytes > 0)
        ch->lent = ch->buf;
    else
        flush(ch); /* a CREDIT may have come */
    return bytes > 0 ? 1 : 0;
}

void gw_channel_hold(struct gw_channel *ch, uint64_t bytes)
{
    ch->in_held += bytes;
    gw_assert(ch->in_held <= ch->in_received - ch->in_ahead);
}

void gw_channel_release(struct gw_channel *ch, uint64_t bytes)
{
    gw_assert(bytes <= ch->in_held);
    ch->in_held -= bytes;
}

/* ---- time ------------------------------------------------------------------------------------ */

/* What moved since the last look. */
static void observe(struct gw_channel *ch, uint64_t now_ns)
{
    struct gw_ep_attr attr;
    gw_ep_query(ch->ep, &attr);
    if (attr.rx_bytes != ch->rx_seen)
        ch->silent_ns = 0;
    if (ch->is_one_sided ? ch->is_said : attr.tx_bytes != ch->tx_seen)
        ch->tx_ns = now_ns;
    ch->is_said = false;
    ch->rx_seen = attr.rx_bytes;
    ch->tx_seen = attr.tx_bytes;
    ch->tx_pending = attr.tx_pending && !ch->is_one_sided;
}

static int judge(struct gw_channel *ch, uint64_t now_ns)
{
    if (ch->silent_ns < ch->timeout_ns)
        return 0;
    drain(ch);
    observe(ch, now_ns);
    if (ch->rc < 0 || ch->silent_ns < ch->timeout_ns)
        return ch->rc;
    gw_fail_code(&ch->err, -ETIMEDOUT, GW_CODE_PEER_SILENT,
                 "the peer has been silent for %" PRIu64 " ms", ch->timeout_ns / GW_NS_PER_MS);
    return latch(ch, -ETIMEDOUT);
}

static int beat(struct gw_channel *ch, uint64_t now_ns)
{
    /* Bytes that wait in the wire are the next sign of life; a heartbeat behind them is none. */
    if (ch->tx_pending || now_ns - ch->tx_ns < ch->timeout_ns / 4)
        return 0;
    int rc = send_free(ch, GW_MSG_HEARTBEAT, 0);
    if (rc > 0) {
        observe(ch, now_ns);
        ch->tx_ns = now_ns;
    }
    return rc < 0 ? rc : 0;
}

/* Time between two steps that we slept through is ours: it counts up to half the time-out, so that
 * a thread, process or machine that was stopped wakes to hear its peer before it judges. */
static void pass_time(struct gw_channel *ch, uint64_t now_ns)
{
    if (!ch->is_started || now_ns < ch->step_ns) {
        ch->is_started = true;
        ch->tx_ns = ch->step_ns = now_ns;
    }
    ch->silent_ns += gw_min_u64(now_ns - ch->step_ns, ch->timeout_ns / 2);
    ch->step_ns = now_ns;
}

int gw_channel_step(struct gw_channel *ch, uint64_t now_ns, struct gw_error *err)
{
    ch->is_stirred = false;
    if (ch->rc < 0)
        return report(ch, err);
    pass_time(ch, now_ns);
    int rc = flush(ch);
    if (rc == 0)
        rc = grant(ch);
    if (rc == 0)
        observe(ch, now_ns);
    if (rc == 0 && !ch->is_hushed)
        rc = judge(ch, now_ns);
    if (rc == 0 && !ch->is_hushed)
        rc = beat(ch, now_ns);
    return rc < 0 ? report(ch, err) : 0;
}

void gw_channel_hush(struct gw_channel *ch)
{
    ch->is_hushed = true;
}

uint64_t gw_channel_wake_ns(const struct gw_channel *ch)
{
    if (ch->rc < 0 || !ch->is_started || ch->is_stirred)
        return ch->step_ns;
    if (ch->is_hushed)
        return GW_NEVER_NS;
    uint64_t beat_ns = (ch->tx_pending ? ch->step_ns : ch->tx_ns) + ch->timeout_ns / 4;
    uint64_t left_ns = ch->timeout_ns - gw_min_u64(ch->silent_ns, ch->timeout_ns);
    return gw_min_u64(gw_max_u64(beat_ns, ch->step_ns), ch->step_ns + left_ns);
}

bool gw_channel_has_room(const struct gw_channel *ch, size_t bytes)
{
    uint64_t need = sizeof(struct item) + bytes;
    return ch->rc < 0 || !ch->out.first || ch->out.bytes + need <= ch->queue_bytes_max;
}

bool gw_channel_is_queued(const struct gw_channel *ch)
{
    return ch->out.first != NULL;
}

uint64_t gw_channel_said(const struct gw_channel *ch)
{
    return ch->said;
}

bool gw_channel_is_flushed(const struct gw_channel *ch)
{
    struct gw_ep_attr attr;
    if (ch->out.first)
        return false;
    gw_ep_query(ch->ep, &attr);
    return !attr.tx_pending;
}
