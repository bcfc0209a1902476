// SPDX-License-Identifier: MIT
/* One end of a link of loop: or loop1:. It is the reference of the contract: it does what that allows and
 * nothing better, so what works here relies on nothing else.
 *
 * A put waits in the flow until it departs: only then its bytes are read, and it completes. At the other
 * end of loop: gw_loop_ep_recv() places what has arrived, up to the next message, and gives that out. On
 * loop1: puts land when their time has come, unread messages before them or not, whoever looks at the
 * link first; a put that may not land breaks the connection, and both ends learn of it.
 *
 * An error of this end is its own judgement and final: what has not departed is flushed, with that error.
 * Where the peer hung up, what it said before is still given out. Items are allocated; where memory
 * lacks the answer is "later", and the endpoint looks again by itself. */
#include "transport/loop/loop_impl.h"

#include "core/base/alloc.h"
#include "core/base/bytes.h"
#include "core/base/clock.h"
#include "transport/backends.h"
#include "transport/stream.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define PUT_BYTES_MAX (4u << 20)
#define WINDOW 64
/* Not departed at most: then send answers -EAGAIN. */
#define QUEUE_BYTES (1u << 20)

struct loop_ep {
    struct gw_endpoint base;
    struct gw_domain *dom;
    struct gw_loop_link *link;
    unsigned side; /* the direction it writes */
    struct gw_preface preface;
    struct gw_place_ops place;
    void *place_ctx;
    uint32_t message_bytes_max;
    struct gw_completion done[WINDOW];
    unsigned done_first, done_count, put_count; /* accepted and not yet collected */
    bool revoked, shut;
    uint64_t starved_ns; /* memory lacked: try again then; 0: it did not */
    int rc;
    struct gw_error err;
    uint64_t rx_bytes, tx_bytes, copied_bytes;
};

static void land(struct gw_loop_link *link);

static struct loop_ep *ep_of(const struct gw_endpoint *ep)
{
    return (struct loop_ep *)(uintptr_t)ep;
}

static struct gw_loop_flow *out_of(const struct loop_ep *e)
{
    return &e->link->flow[e->side];
}

static struct gw_loop_flow *in_of(const struct loop_ep *e)
{
    return &e->link->flow[!e->side];
}

static int fail(struct loop_ep *e, int rc, const char *format, ...) GW_PRINTF(3, 4);

static int fail(struct loop_ep *e, int rc, const char *format, ...)
{
    char text[200];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    if (e->rc == 0) {
        e->rc = rc;
        gw_fail_code(&e->err, rc, rc == -ECONNRESET ? GW_CODE_PEER_LOST : GW_CODE_PROTOCOL, "%s",
                     text);
        gw_error_place(&e->err, "loop, endpoint %u", e->preface.index);
    }
    return e->rc;
}

/* ---- departing -------------------------------------------------------------------------------- */

static void complete(struct loop_ep *e, uint64_t cookie, int status)
{
    gw_assert(e->done_count < WINDOW);
    e->done[(e->done_first + e->done_count++) % WINDOW] =
        (struct gw_completion){.cookie = cookie, .status = status};
}

/* What the wire has room for, in order: its bytes are read, and a put is the caller's again. */
static void depart(struct loop_ep *e)
{
    uint64_t now_ns = gw_loop_world_ns();
    struct gw_loop_item *item = NULL;
    while ((item = gw_loop_flow_depart_locked(out_of(e), item, now_ns))) {
        e->tx_bytes += item->bytes;
        if (!item->is_put)
            continue;
        memcpy(item->data, item->local, item->bytes);
        if (!e->link->direct) /* there it is what a NIC's wire carries */
            e->copied_bytes += item->bytes;
        complete(e, item->cookie, 0);
    }
}

static void flush(struct loop_ep *e)
{
    for (struct gw_loop_item *item = gw_loop_flow_withdraw_locked(out_of(e)), *next; item;
         item = next) {
        next = item->next;
        if (item->is_put) {
            complete(e, item->cookie, e->rc ? e->rc : -ESHUTDOWN);
            gw_loop_link_flushed(item);
        }
        gw_free(item);
    }
}

/* Whether the end of what the peer says has come; then writing to it makes no sense any more. */
static int judge(struct loop_ep *e)
{
    if (e->link->direct)
        land(e->link);
    if (e->rc == 0 && e->link->refused[e->side])
        fail(e, -EACCES, "the peer's side refused a put: that connection is lost");
    if (e->rc == 0 && gw_loop_world_ns() >= in_of(e)->end_ns)
        fail(e, -ECONNRESET, "the peer closed the connection");
    if (e->rc < 0)
        flush(e);
    return e->rc;
}

/* ---- arriving ------------------------------------------------------------------------------------- */

static int place(struct loop_ep *e, const struct gw_loop_item *item)
{
    struct gw_frame_entry entry = {
        .region = item->region, .offset = item->offset, .bytes = (uint32_t)item->bytes};
    const char *why = "puts were revoked";
    if (e->revoked)
        return fail(e, -EPROTO, "put to region %u: %s", item->region, why);
    if (e->place.check) {
        int rc = e->place.check(e->place_ctx, item->region, item->offset, (uint32_t)item->bytes);
        if (rc < 0)
            return fail(e, -EPROTO, "put to region %u, offset %llu, %zu bytes: refused",
                        item->region, (unsigned long long)item->offset, item->bytes);
    }
    struct gw_stream_domain *dom = (struct gw_stream_domain *)e->dom;
    pthread_rwlock_rdlock(&dom->regions_lock);
    void *to = gw_stream_region_at_locked(dom, &entry, &why);
    if (to)
        memcpy(to, item->data, item->bytes - item->lost);
    pthread_rwlock_unlock(&dom->regions_lock);
    if (!to)
        return fail(e, -EPROTO, "put to region %u: %s", item->region, why);
    if (item->lost == 0 && e->place.placed)
        e->place.placed(e->place_ctx, item->region, item->offset, (uint32_t)item->bytes);
    return 0;
}

/* One put of loop1:. Guest memory may be looked at by others meanwhile, as under a NIC. */
__attribute__((no_sanitize("thread"))) static void land_one(struct loop_ep *to,
                                                            struct gw_loop_link *link,
                                                            const struct gw_loop_item *item)
{
    const char *why = "puts were revoked";
    void *memory = NULL;
    if (to->rc == 0)
        memory = gw_loop_region_locked((struct gw_loop_domain *)to->dom, item->key, item->offset,
                                       item->bytes, &why);
    if (memory) {
        memcpy(memory, item->data, item->bytes - item->lost);
        return;
    }
    link->refused[!to->side] = true;
    fail(to, -EACCES, "put to region %u, offset %llu, %zu bytes: %s", item->region,
         (unsigned long long)item->offset, item->bytes, why);
}

/* Whatever has arrived on this link, in either direction, lands. */
static void land(struct gw_loop_link *link)
{
    uint64_t now_ns = gw_loop_world_ns();
    for (unsigned i = 0; i < 2; i++) {
        struct loop_ep *from = link->end[i] ? ep_of(link->end[i]) : NULL;
        struct loop_ep *to = link->end[!i] ? ep_of(link->end[!i]) : NULL;
        if (from && from->rc == 0 && !from->shut)
            depart(from);
        struct gw_loop_item *item;
        while (to && (item = gw_loop_flow_take_put_locked(&link->flow[i], now_ns))) {
            if (!link->crashed[!i]) /* its memory went with it */
                land_one(to, link, item);
            gw_free(item);
        }
        /* Nobody acknowledges what a mute endpoint is sent. */
        if (to && to->revoked && gw_loop_flow_arrived_locked(&link->flow[i], now_ns))
            link->refused[i] = true;
    }
}

static bool reads_from(const struct gw_loop_flow *f, const struct gw_mr *mr)
{
    for (const struct gw_loop_item *item = f->first; item; item = item->next) {
        if (item->is_put && !item->departed && item->mr == mr)
            return true;
    }
    return false;
}

void gw_loop_forget_locked(const struct gw_mr *mr)
{
    struct gw_loop_link *link = NULL;
    while ((link = gw_loop_link_next_locked(link))) {
        if (!link->direct)
            continue;
        land(link);
        for (unsigned i = 0; i < 2; i++) {
            if (link->end[i] && reads_from(&link->flow[i], mr))
                fail(ep_of(link->end[i]), -EFAULT, "a put's memory was deregistered under it");
        }
    }
}

static void remove_first(struct loop_ep *e)
{
    e->rx_bytes += in_of(e)->first->bytes;
    gw_loop_flow_remove_locked(in_of(e));
}

/* Place what has arrived, up to the next message. Return: that message, NULL: none yet. */
static struct gw_loop_item *pump(struct loop_ep *e)
{
    uint64_t now_ns = gw_loop_world_ns();
    struct gw_loop_item *item;
    while ((item = gw_loop_flow_arrived_locked(in_of(e), now_ns))) {
        if (!item->is_put)
            return item;
        if (e->rc < 0 && e->rc != -ECONNRESET)
            return NULL; /* our own verdict: the rest is not wanted */
        int rc = place(e, item);
        remove_first(e);
        if (rc < 0 && rc != -ECONNRESET)
            return NULL;
    }
    return NULL;
}

/* ---- traffic -------------------------------------------------------------------------------------- */

void gw_loop_ep_query(const struct gw_endpoint *ep, struct gw_ep_attr *attr)
{
    struct loop_ep *e = ep_of(ep);
    pthread_mutex_lock(&gw_loop_lock);
    attr->flags = e->base.ops->flags;
    attr->put_bytes_max = PUT_BYTES_MAX;
    attr->put_count_max = WINDOW;
    attr->put_window = WINDOW;
    attr->message_bytes_max = e->message_bytes_max;
    memcpy(attr->session, e->preface.session, GW_SESSION_BYTES);
    attr->index = e->preface.index;
    attr->rx_bytes = e->rx_bytes;
    attr->tx_bytes = e->tx_bytes;
    attr->copied_bytes = e->copied_bytes;
    attr->tx_pending = out_of(e)->queue_bytes > 0;
    snprintf(attr->peer, sizeof(attr->peer), "loop link %u", e->link->number);
    pthread_mutex_unlock(&gw_loop_lock);
}

int gw_loop_ep_error(const struct gw_endpoint *ep, struct gw_error *err)
{
    struct loop_ep *e = ep_of(ep);
    pthread_mutex_lock(&gw_loop_lock);
    int rc = e->shut ? -ESHUTDOWN : e->rc;
    if (e->shut)
        gw_fail(err, rc, "the endpoint was shut down");
    else if (rc < 0)
        gw_error_copy(err, &e->err);
    pthread_mutex_unlock(&gw_loop_lock);
    return rc;
}

void gw_loop_ep_shutdown(struct gw_endpoint *ep)
{
    pthread_mutex_lock(&gw_loop_lock);
    ep_of(ep)->shut = true;
    pthread_mutex_unlock(&gw_loop_lock);
}

void gw_loop_ep_revoke(struct gw_endpoint *ep)
{
    struct loop_ep *e = ep_of(ep);
    pthread_mutex_lock(&gw_loop_lock);
    if (e->link->direct) {
        land(e->link);
        fail(e, -ESHUTDOWN, "revoked: a NIC's endpoint is mute from then on");
    }
    e->revoked = true;
    pthread_mutex_unlock(&gw_loop_lock);
}

/* A NIC reads registered memory only. */
static bool is_registered(const struct loop_ep *e, const struct gw_put *put)
{
    const struct gw_loop_mr *mr = (const struct gw_loop_mr *)put->mr;
    return mr && &mr->dom->base == e->dom &&
           gw_range_is_inside((uint64_t)((const char *)put->local - (const char *)mr->desc.addr),
                              put->bytes, mr->desc.bytes);
}

static int put_one(struct loop_ep *e, const struct gw_put *put)
{
    const struct gw_stream_rmr *stream = (const struct gw_stream_rmr *)put->rmr;
    const struct gw_loop_rmr *keyed = (const struct gw_loop_rmr *)put->rmr;
    bool direct = e->link->direct;
    uint64_t region_bytes = direct ? keyed->bytes : stream->bytes;
    if (put->bytes == 0 || put->bytes > PUT_BYTES_MAX ||
        !gw_range_is_inside(put->offset, put->bytes, region_bytes) ||
        (direct && !is_registered(e, put)))
        return -EINVAL;
    if (e->put_count == WINDOW)
        return 0;
    struct gw_loop_item *item = gw_realloc(NULL, 1, sizeof(*item) + put->bytes);
    e->starved_ns = item ? 0 : gw_loop_world_ns() + GW_LOOP_DOZE_NS;
    if (!item)
        return 0;
    *item = (struct gw_loop_item){.is_put = true,
                                  .region = direct ? keyed->region : stream->region,
                                  .key = direct ? keyed->key : 0,
                                  .offset = put->offset,
                                  .cookie = put->cookie,
                                  .local = put->local,
                                  .mr = put->mr,
                                  .bytes = put->bytes};
    struct gw_loop_sent sent = {.link = e->link->number,
                                .direction = e->side,
                                .index = e->preface.index,
                                .is_put = true,
                                .put = put,
                                .bytes = put->bytes};
    e->put_count++;
    gw_loop_link_append_locked(e->link, item, &sent);
    return 1;
}

int gw_loop_ep_put(struct gw_endpoint *ep, const struct gw_put *puts, unsigned count)
{
    struct loop_ep *e = ep_of(ep);
    pthread_mutex_lock(&gw_loop_lock);
    int rc = e->shut ? -ESHUTDOWN : judge(e);
    int taken = 0;
    while (rc == 0 && (unsigned)taken < count) {
        int one = put_one(e, &puts[taken]);
        if (one < 0 && taken == 0)
            rc = one;
        if (one <= 0)
            break;
        taken++;
    }
    depart(e);
    pthread_mutex_unlock(&gw_loop_lock);
    return rc < 0 ? rc : taken;
}

int gw_loop_ep_poll(struct gw_endpoint *ep, struct gw_completion *done, unsigned max)
{
    struct loop_ep *e = ep_of(ep);
    int count = 0;
    pthread_mutex_lock(&gw_loop_lock);
    int rc = judge(e);
    if (rc == 0)
        depart(e);
    if (rc == 0 && e->shut)
        flush(e);
    while (e->done_count > 0 && (unsigned)count < max) {
        done[count++] = e->done[e->done_first];
        e->done_first = (e->done_first + 1) % WINDOW;
        e->done_count--;
        e->put_count--;
    }
    if (count == 0 && e->shut)
        count = -ESHUTDOWN;
    else if (count == 0 && rc < 0)
        count = rc;
    pthread_mutex_unlock(&gw_loop_lock);
    return count;
}

static size_t gathered(const struct iovec *iov, int iov_count, size_t max)
{
    size_t bytes = 0;
    for (int i = 0; i < iov_count; i++) {
        if (iov[i].iov_len > max - bytes)
            return SIZE_MAX;
        bytes += iov[i].iov_len;
    }
    return bytes;
}

static int send_one(struct loop_ep *e, const struct iovec *iov, int iov_count, size_t bytes)
{
    struct gw_loop_flow *f = out_of(e);
    if (f->queue_bytes > 0 && f->queue_bytes + bytes > QUEUE_BYTES)
        return -EAGAIN;
    struct gw_loop_item *item = gw_realloc(NULL, 1, sizeof(*item) + bytes);
    e->starved_ns = item ? 0 : gw_loop_world_ns() + GW_LOOP_DOZE_NS;
    if (!item)
        return -EAGAIN;
    *item = (struct gw_loop_item){.bytes = bytes};
    for (int i = 0, at = 0; i < iov_count; i++) {
        if (iov[i].iov_len)
            memcpy(item->data + at, iov[i].iov_base, iov[i].iov_len);
        at += (int)iov[i].iov_len;
    }
    struct gw_loop_sent sent = {.link = e->link->number,
                                .direction = e->side,
                                .index = e->preface.index,
                                .message = item->data,
                                .bytes = bytes};
    gw_loop_link_append_locked(e->link, item, &sent);
    return 0;
}

int gw_loop_ep_send(struct gw_endpoint *ep, const struct iovec *iov, int iov_count)
{
    struct loop_ep *e = ep_of(ep);
    pthread_mutex_lock(&gw_loop_lock);
    size_t bytes = gathered(iov, iov_count, e->message_bytes_max);
    int rc = e->shut ? -ESHUTDOWN : judge(e);
    if (rc == 0)
        rc = bytes == SIZE_MAX ? -EMSGSIZE : send_one(e, iov, iov_count, bytes);
    depart(e);
    pthread_mutex_unlock(&gw_loop_lock);
    return rc;
}

static ssize_t take_message(struct loop_ep *e, const struct gw_loop_item *item, void *buf,
                            size_t bytes)
{
    if (item->bytes > bytes)
        return fail(e, -EMSGSIZE, "a message of %zu bytes for a buffer of %zu", item->bytes, bytes);
    ssize_t got = (ssize_t)item->bytes;
    if (got > 0)
        memcpy(buf, item->data, (size_t)got);
    remove_first(e);
    return got;
}

ssize_t gw_loop_ep_recv(struct gw_endpoint *ep, void *buf, size_t bytes)
{
    struct loop_ep *e = ep_of(ep);
    ssize_t got = -EAGAIN;
    pthread_mutex_lock(&gw_loop_lock);
    depart(e);
    if (e->link->direct)
        land(e->link);
    struct gw_loop_item *item = e->shut ? NULL : pump(e);
    if (item && (e->rc == 0 || e->rc == -ECONNRESET))
        got = take_message(e, item, buf, bytes);
    else if (e->shut)
        got = -ESHUTDOWN;
    else if (judge(e) < 0)
        got = e->rc;
    pthread_mutex_unlock(&gw_loop_lock);
    return got;
}

/* What a mute peer does not acknowledge is an error when it arrives. */
static uint64_t first_landing_ns(const struct loop_ep *e)
{
    const struct gw_endpoint *peer = e->link->end[!e->side];
    const struct gw_loop_item *first = out_of(e)->first;
    return peer && ep_of(peer)->rc < 0 && first && first->departed ? first->deliver_ns
                                                                   : GW_NEVER_NS;
}

int gw_loop_ep_arm(struct gw_endpoint *ep, struct pollfd *fds, unsigned max, uint64_t *wake_ns)
{
    struct loop_ep *e = ep_of(ep);
    (void)fds, (void)max;
    pthread_mutex_lock(&gw_loop_lock);
    if (e->done_count > 0 || (e->shut && e->rc == 0)) {
        *wake_ns = 0;
    } else if (e->rc == 0) {
        if (e->link->direct)
            land(e->link);
        depart(e);
        if (e->done_count > 0)
            *wake_ns = 0;
        else
            *wake_ns = gw_loop_wake_at(gw_loop_flow_departure_ns_locked(out_of(e)), *wake_ns);
        if (*wake_ns)
            *wake_ns = gw_loop_wake_at(gw_loop_flow_arrival_ns_locked(in_of(e)), *wake_ns);
        if (*wake_ns && e->link->direct)
            *wake_ns =
                e->link->refused[e->side] ? 0 : gw_loop_wake_at(first_landing_ns(e), *wake_ns);
        if (*wake_ns && e->starved_ns)
            *wake_ns = gw_loop_wake_at(e->starved_ns, *wake_ns);
        if (*wake_ns)
            *wake_ns = gw_loop_doze(*wake_ns);
    }
    pthread_mutex_unlock(&gw_loop_lock);
    return 0;
}

void gw_loop_ep_awake(struct gw_endpoint *ep, const struct pollfd *fds, unsigned count)
{
    (void)ep, (void)fds, (void)count;
}

/* ---- life ------------------------------------------------------------------------------------- */

void gw_loop_ep_close(struct gw_endpoint *ep)
{
    struct loop_ep *e = ep_of(ep);
    pthread_mutex_lock(&gw_loop_lock);
    if (e->link->direct)
        land(e->link);
    if (e->rc == 0)
        depart(e);
    flush(e);
    e->link->end[e->side] = NULL;
    gw_loop_link_leave_locked(e->link, e->side);
    pthread_mutex_unlock(&gw_loop_lock);
    gw_free(e);
}

struct gw_endpoint *gw_loop_ep_new(struct gw_domain *dom, const struct gw_preface *preface,
                                   const struct gw_wire_config *config, struct gw_loop_link *link,
                                   unsigned side)
{
    struct loop_ep *e = gw_zalloc(1, sizeof(*e));
    if (!e)
        return NULL;
    e->base.ops = dom->ops;
    e->err.struct_bytes = sizeof(e->err);
    e->dom = dom;
    e->link = link;
    e->side = side;
    link->direct = dom->ops->flags & GW_EP_ONE_SIDED;
    link->end[side] = &e->base;
    e->preface = *preface;
    e->message_bytes_max =
        config->message_bytes_max ? config->message_bytes_max : GW_MESSAGE_BYTES_DEFAULT;
    if (config->place)
        e->place = *config->place;
    e->place_ctx = config->place_ctx;
    return &e->base;
}
