// SPDX-License-Identifier: MIT
/* loop:name - both ends in one process. The reference backend: it does what the contract allows and
 * nothing better, so what works here relies on nothing else. Puts are read late, placed later, and
 * complete in between; a message arrives after them; what is cut is lost from there on. A net
 * (loop.h) says when things arrive and what is lost; without one everything is instant.
 *
 * One lock guards it all: links are shared by two threads, and speed is not its purpose. Items are
 * allocated; where memory lacks, the answer is "later". */
#include "transport/loop/loop.h"

#include "core/base/alloc.h"
#include "core/base/bytes.h"
#include "core/base/clock.h"
#include "transport/backends.h"
#include "transport/preface.h"
#include "transport/stream.h"
#include "transport/stubs.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define PUT_BYTES_MAX (4u << 20)
#define WINDOW 64
/* Under way at most: beyond it nothing departs, as a full socket takes nothing. One item always. */
#define WIRE_BYTES (1u << 20)
/* Not departed at most: then send answers -EAGAIN. */
#define QUEUE_BYTES (1u << 20)
#define DOZE_NS (200 * UINT64_C(1000)) /* nobody wakes a loop endpoint: it looks again */

struct item {
    struct item *next;
    bool is_put, departed;
    uint32_t region;
    uint64_t offset, cookie;
    const void *local;
    uint64_t read_ns, deliver_ns;
    size_t bytes, lost; /* lost: bytes at the end that never arrive */
    uint8_t data[];
};

struct flow { /* one direction of a link */
    struct item *first, **last;
    size_t wire_bytes, queue_bytes; /* departed; not departed */
    uint64_t newest_ns;
    bool cut;        /* what is sent now goes nowhere */
    uint64_t end_ns; /* the reader learns that nothing more comes; GW_NEVER_NS: never */
};

struct link {
    struct link *next;
    unsigned number, open;
    struct flow flow[2]; /* [direction] */
    int owner[2];        /* of the writing end of that direction */
};

struct loop_ep {
    struct gw_endpoint base;
    struct gw_stream_domain *dom;
    struct link *link;
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

struct dial {
    struct dial *next;
    struct gw_preface preface;
    const struct gw_wire_config *config;
    struct gw_domain *dom;
    int owner;
    uint64_t arrive_ns;
    bool asked, answered;
    enum gw_admission admission;
    int rc;
    struct loop_ep *ep;
};

struct loop_listener {
    struct gw_listener base;
    struct loop_listener *next;
    char name[256];
    char uri[GW_URI_BYTES_MAX];
    uint8_t security;
    int owner;
    bool listed;
    struct dial *dials;
};

static pthread_mutex_t loop_lock = PTHREAD_MUTEX_INITIALIZER;
static struct loop_listener *listeners; /* guarded by loop_lock, as is all of this file */
static struct link *links;
static unsigned link_count;
static const struct gw_loop_net *net;

static struct loop_ep *ep_of(const struct gw_endpoint *ep)
{
    return (struct loop_ep *)(uintptr_t)ep;
}

static struct loop_listener *listener_of(const struct gw_listener *ln)
{
    return (struct loop_listener *)(uintptr_t)ln;
}

static uint64_t world_ns(void)
{
    return net ? net->now_ns() : gw_clock_ns();
}

static struct flow *out_of(const struct loop_ep *e)
{
    return &e->link->flow[e->side];
}

static struct flow *in_of(const struct loop_ep *e)
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

/* ---- flows --------------------------------------------------------------------------------------- */

/* What has departed is lost; what has not is still its sender's. */
static void drop_departed(struct flow *f)
{
    while (f->first && f->first->departed) {
        struct item *item = f->first;
        f->first = item->next;
        gw_free(item);
    }
    if (!f->first)
        f->last = &f->first;
    f->wire_bytes = 0;
}

static void cut_flow(struct flow *f, uint64_t end_ns)
{
    f->cut = true;
    f->end_ns = gw_min_u64(f->end_ns, gw_max_u64(end_ns, f->newest_ns));
}

static void cut_link(struct link *link, unsigned direction, enum gw_loop_cut cut, uint64_t told_ns)
{
    uint64_t end_ns =
        cut == GW_LOOP_RESET || cut == GW_LOOP_AFTER ? world_ns() + told_ns : GW_NEVER_NS;
    if (cut == GW_LOOP_WHOLE)
        return;
    cut_flow(&link->flow[direction], end_ns);
    if (cut != GW_LOOP_DEAD)
        cut_flow(&link->flow[!direction], end_ns);
}

static void complete(struct loop_ep *e, uint64_t cookie, int status)
{
    gw_assert(e->done_count < WINDOW);
    e->done[(e->done_first + e->done_count++) % WINDOW] =
        (struct gw_completion){.cookie = cookie, .status = status};
}

/* What the wire has room for, in order: its bytes are read, and a put is the caller's again. */
static void depart(struct loop_ep *e)
{
    struct flow *f = out_of(e);
    uint64_t now_ns = world_ns();
    for (struct item *item = f->first; item; item = item->next) {
        if (item->departed)
            continue;
        if (item->read_ns > now_ns || (f->wire_bytes && f->wire_bytes + item->bytes > WIRE_BYTES))
            return;
        item->departed = true;
        f->queue_bytes -= item->bytes;
        f->wire_bytes += item->bytes;
        e->tx_bytes += item->bytes;
        if (!item->is_put)
            continue;
        memcpy(item->data, item->local, item->bytes);
        e->copied_bytes += item->bytes;
        complete(e, item->cookie, 0);
    }
}

static void flush(struct loop_ep *e)
{
    struct flow *f = out_of(e);
    struct item **at = &f->first;
    while (*at) {
        struct item *item = *at;
        if (item->departed) {
            at = &item->next;
            continue;
        }
        if (item->is_put)
            complete(e, item->cookie, e->rc ? e->rc : -ESHUTDOWN);
        *at = item->next;
        f->queue_bytes -= item->bytes;
        gw_free(item);
    }
    f->last = at;
}

/* Whether the end of what the peer says has come; then writing to it makes no sense any more. */
static int judge(struct loop_ep *e)
{
    if (e->rc == 0 && world_ns() >= in_of(e)->end_ns)
        fail(e, -ECONNRESET, "the peer closed the connection");
    if (e->rc < 0)
        flush(e);
    return e->rc;
}

/* ---- arriving ------------------------------------------------------------------------------------- */

static int place(struct loop_ep *e, const struct item *item)
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
    pthread_rwlock_rdlock(&e->dom->regions_lock);
    void *to = gw_stream_region_at_locked(e->dom, &entry, &why);
    if (to)
        memcpy(to, item->data, item->bytes - item->lost);
    pthread_rwlock_unlock(&e->dom->regions_lock);
    if (!to)
        return fail(e, -EPROTO, "put to region %u: %s", item->region, why);
    if (item->lost == 0 && e->place.placed)
        e->place.placed(e->place_ctx, item->region, item->offset, (uint32_t)item->bytes);
    return 0;
}

static void remove_first(struct loop_ep *e)
{
    struct flow *f = in_of(e);
    struct item *item = f->first;
    f->first = item->next;
    if (!f->first)
        f->last = &f->first;
    f->wire_bytes -= item->bytes;
    e->rx_bytes += item->bytes;
    gw_free(item);
}

/* Place what has arrived, up to the next message. Return: that message, NULL: none yet. */
static struct item *pump(struct loop_ep *e)
{
    struct flow *f = in_of(e);
    uint64_t now_ns = world_ns();
    while (f->first && f->first->departed && f->first->deliver_ns <= now_ns) {
        if (!f->first->is_put)
            return f->first;
        if (e->rc < 0 && e->rc != -ECONNRESET)
            return NULL; /* our own verdict: the rest is not wanted */
        int rc = place(e, f->first);
        remove_first(e);
        if (rc < 0 && rc != -ECONNRESET)
            return NULL;
    }
    return NULL;
}

/* ---- traffic -------------------------------------------------------------------------------------- */

static void loop_query(const struct gw_endpoint *ep, struct gw_ep_attr *attr)
{
    struct loop_ep *e = ep_of(ep);
    pthread_mutex_lock(&loop_lock);
    attr->flags = gw_loop_ops.flags;
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
    pthread_mutex_unlock(&loop_lock);
}

static int loop_error(const struct gw_endpoint *ep, struct gw_error *err)
{
    struct loop_ep *e = ep_of(ep);
    pthread_mutex_lock(&loop_lock);
    int rc = e->shut ? -ESHUTDOWN : e->rc;
    if (e->shut)
        gw_fail(err, rc, "the endpoint was shut down");
    else if (rc < 0)
        gw_error_copy(err, &e->err);
    pthread_mutex_unlock(&loop_lock);
    return rc;
}

static void loop_shutdown(struct gw_endpoint *ep)
{
    pthread_mutex_lock(&loop_lock);
    ep_of(ep)->shut = true;
    pthread_mutex_unlock(&loop_lock);
}

static void loop_revoke(struct gw_endpoint *ep)
{
    struct loop_ep *e = ep_of(ep);
    pthread_mutex_lock(&loop_lock);
    e->revoked = true;
    pthread_mutex_unlock(&loop_lock);
}

/* Into the flow, with the fate that the net decides; what goes nowhere departs all the same. */
static void append(struct loop_ep *e, struct item *item, const struct gw_loop_sent *sent)
{
    struct flow *f = out_of(e);
    struct gw_loop_fate fate = {.delay_ns = 0};
    uint64_t now_ns = world_ns();
    if (net && !f->cut)
        net->fate(sent, &fate);
    item->read_ns = now_ns + fate.read_ns;
    item->deliver_ns = gw_max_u64(now_ns + fate.delay_ns, f->newest_ns);
    item->deliver_ns = gw_max_u64(item->deliver_ns, item->read_ns);
    if (f->cut) { /* into the void: it fills the wire and stays there */
        item->deliver_ns = GW_NEVER_NS;
    } else if (fate.cut != GW_LOOP_WHOLE && fate.cut != GW_LOOP_AFTER) {
        bool partly = item->is_put && fate.cut_bytes > 0 && fate.cut_bytes < item->bytes;
        item->lost = partly ? item->bytes - fate.cut_bytes : 0;
        item->deliver_ns = partly ? item->deliver_ns : GW_NEVER_NS;
        if (partly)
            f->newest_ns = item->deliver_ns;
        cut_link(e->link, e->side, fate.cut, fate.told_ns);
    } else {
        f->newest_ns = item->deliver_ns;
        cut_link(e->link, e->side, fate.cut, fate.told_ns);
    }
    f->queue_bytes += item->bytes;
    item->next = NULL;
    *f->last = item;
    f->last = &item->next;
}

static int put_one(struct loop_ep *e, const struct gw_put *put)
{
    const struct gw_stream_rmr *rmr = (const struct gw_stream_rmr *)put->rmr;
    if (put->bytes == 0 || put->bytes > PUT_BYTES_MAX ||
        !gw_range_is_inside(put->offset, put->bytes, rmr->bytes))
        return -EINVAL;
    if (e->put_count == WINDOW)
        return 0;
    struct item *item = gw_realloc(NULL, 1, sizeof(*item) + put->bytes);
    e->starved_ns = item ? 0 : world_ns() + DOZE_NS;
    if (!item)
        return 0;
    *item = (struct item){.is_put = true,
                          .region = rmr->region,
                          .offset = put->offset,
                          .cookie = put->cookie,
                          .local = put->local,
                          .bytes = put->bytes};
    struct gw_loop_sent sent = {.link = e->link->number,
                                .direction = e->side,
                                .index = e->preface.index,
                                .is_put = true,
                                .put = put,
                                .bytes = put->bytes};
    e->put_count++;
    append(e, item, &sent);
    return 1;
}

static int loop_put(struct gw_endpoint *ep, const struct gw_put *puts, unsigned count)
{
    struct loop_ep *e = ep_of(ep);
    pthread_mutex_lock(&loop_lock);
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
    pthread_mutex_unlock(&loop_lock);
    return rc < 0 ? rc : taken;
}

static int loop_poll(struct gw_endpoint *ep, struct gw_completion *done, unsigned max)
{
    struct loop_ep *e = ep_of(ep);
    int count = 0;
    pthread_mutex_lock(&loop_lock);
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
    pthread_mutex_unlock(&loop_lock);
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
    struct flow *f = out_of(e);
    if (f->queue_bytes > 0 && f->queue_bytes + bytes > QUEUE_BYTES)
        return -EAGAIN;
    struct item *item = gw_realloc(NULL, 1, sizeof(*item) + bytes);
    e->starved_ns = item ? 0 : world_ns() + DOZE_NS;
    if (!item)
        return -EAGAIN;
    *item = (struct item){.bytes = bytes};
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
    append(e, item, &sent);
    return 0;
}

static int loop_send(struct gw_endpoint *ep, const struct iovec *iov, int iov_count)
{
    struct loop_ep *e = ep_of(ep);
    pthread_mutex_lock(&loop_lock);
    size_t bytes = gathered(iov, iov_count, e->message_bytes_max);
    int rc = e->shut ? -ESHUTDOWN : judge(e);
    if (rc == 0)
        rc = bytes == SIZE_MAX ? -EMSGSIZE : send_one(e, iov, iov_count, bytes);
    depart(e);
    pthread_mutex_unlock(&loop_lock);
    return rc;
}

static ssize_t take_message(struct loop_ep *e, const struct item *item, void *buf, size_t bytes)
{
    if (item->bytes > bytes)
        return fail(e, -EMSGSIZE, "a message of %zu bytes for a buffer of %zu", item->bytes, bytes);
    ssize_t got = (ssize_t)item->bytes;
    if (got > 0)
        memcpy(buf, item->data, (size_t)got);
    remove_first(e);
    return got;
}

static ssize_t loop_recv(struct gw_endpoint *ep, void *buf, size_t bytes)
{
    struct loop_ep *e = ep_of(ep);
    ssize_t got = -EAGAIN;
    pthread_mutex_lock(&loop_lock);
    depart(e);
    struct item *item = e->shut ? NULL : pump(e);
    if (item && (e->rc == 0 || e->rc == -ECONNRESET))
        got = take_message(e, item, buf, bytes);
    else if (e->shut)
        got = -ESHUTDOWN;
    else if (judge(e) < 0)
        got = e->rc;
    pthread_mutex_unlock(&loop_lock);
    return got;
}

/* When @ns of the world comes, in the caller's clock. */
static uint64_t wake_at(uint64_t ns, uint64_t wake_ns)
{
    uint64_t now_ns = world_ns();
    if (ns == GW_NEVER_NS)
        return wake_ns;
    if (ns <= now_ns)
        return 0;
    return gw_min_u64(wake_ns, gw_clock_ns() + (ns - now_ns));
}

static uint64_t next_departure_ns(const struct flow *f)
{
    for (const struct item *item = f->first; item; item = item->next) {
        if (!item->departed)
            return f->wire_bytes && f->wire_bytes + item->bytes > WIRE_BYTES ? GW_NEVER_NS
                                                                             : item->read_ns;
    }
    return GW_NEVER_NS;
}

static uint64_t next_arrival_ns(const struct flow *f)
{
    uint64_t ns = f->end_ns;
    if (f->first && f->first->departed)
        ns = gw_min_u64(ns, f->first->deliver_ns);
    return ns;
}

static int loop_arm(struct gw_endpoint *ep, struct pollfd *fds, unsigned max, uint64_t *wake_ns)
{
    struct loop_ep *e = ep_of(ep);
    (void)fds, (void)max;
    pthread_mutex_lock(&loop_lock);
    if (e->done_count > 0 || (e->shut && e->rc == 0)) {
        *wake_ns = 0;
    } else if (e->rc == 0) {
        depart(e);
        if (e->done_count > 0)
            *wake_ns = 0;
        else
            *wake_ns = wake_at(next_departure_ns(out_of(e)), *wake_ns);
        if (*wake_ns)
            *wake_ns = wake_at(next_arrival_ns(in_of(e)), *wake_ns);
        if (*wake_ns && e->starved_ns)
            *wake_ns = wake_at(e->starved_ns, *wake_ns);
        if (*wake_ns && !net)
            *wake_ns = gw_min_u64(*wake_ns, gw_clock_ns() + DOZE_NS);
    }
    pthread_mutex_unlock(&loop_lock);
    return 0;
}

static void loop_awake(struct gw_endpoint *ep, const struct pollfd *fds, unsigned count)
{
    (void)ep, (void)fds, (void)count;
}

/* ---- life ------------------------------------------------------------------------------------------ */

static void leave_link_locked(struct link *link)
{
    if (--link->open > 0)
        return;
    for (struct link **at = &links; *at; at = &(*at)->next) {
        if (*at == link) {
            *at = link->next;
            break;
        }
    }
    drop_departed(&link->flow[0]);
    drop_departed(&link->flow[1]);
    gw_free(link);
}

static void loop_close(struct gw_endpoint *ep)
{
    struct loop_ep *e = ep_of(ep);
    pthread_mutex_lock(&loop_lock);
    struct link *link = e->link;
    if (e->rc == 0)
        depart(e);
    flush(e);
    uint64_t end_ns = world_ns() + (net ? net->hang_up() : 0);
    if (!out_of(e)->cut)
        cut_flow(out_of(e), end_ns); /* after what has departed */
    in_of(e)->cut = true;
    drop_departed(in_of(e));
    if (net && net->closed)
        net->closed(link->number, e->side);
    leave_link_locked(link);
    pthread_mutex_unlock(&loop_lock);
    gw_free(e);
}

static struct loop_ep *ep_new(struct gw_domain *dom, const struct gw_preface *preface,
                              const struct gw_wire_config *config, struct link *link, unsigned side)
{
    struct loop_ep *e = gw_zalloc(1, sizeof(*e));
    if (!e)
        return NULL;
    e->base.ops = &gw_loop_ops;
    e->err.struct_bytes = sizeof(e->err);
    e->dom = (struct gw_stream_domain *)dom;
    e->link = link;
    e->side = side;
    e->preface = *preface;
    e->message_bytes_max =
        config->message_bytes_max ? config->message_bytes_max : GW_MESSAGE_BYTES_DEFAULT;
    if (config->place)
        e->place = *config->place;
    e->place_ctx = config->place_ctx;
    return e;
}

/* Both ends of one connection. */
static int connect_locked(struct dial *dial, struct gw_domain *dom,
                          const struct gw_wire_config *config, struct loop_ep **accepted)
{
    struct link *link = gw_zalloc(1, sizeof(*link));
    struct loop_ep *ours = link ? ep_new(dom, &dial->preface, config, link, 1) : NULL;
    dial->ep = ours ? ep_new(dial->dom, &dial->preface, dial->config, link, 0) : NULL;
    if (!dial->ep) {
        gw_free(ours);
        gw_free(link);
        return -ENOMEM;
    }
    for (unsigned i = 0; i < 2; i++) {
        link->flow[i].last = &link->flow[i].first;
        link->flow[i].end_ns = GW_NEVER_NS;
    }
    link->number = ++link_count;
    link->open = 2;
    link->owner[0] = dial->owner;
    link->owner[1] = net ? net->owner() : 0;
    link->next = links;
    links = link;
    *accepted = ours;
    return 0;
}

/* ---- connecting and accepting ---------------------------------------------------------------------- */

static struct loop_listener *find_locked(const char *name)
{
    for (struct loop_listener *l = listeners; l; l = l->next) {
        if (strcmp(l->name, name) == 0)
            return l;
    }
    return NULL;
}

static void unqueue_locked(struct dial **list, const struct dial *dial)
{
    for (; *list; list = &(*list)->next) {
        if (*list == dial) {
            *list = dial->next;
            return;
        }
    }
}

static void dial_wait(struct dial *dial, const char *name, uint64_t deadline_ns)
{
    for (;;) {
        pthread_mutex_lock(&loop_lock);
        if (!dial->answered && !dial->asked && gw_clock_ns() >= deadline_ns) {
            struct loop_listener *l = find_locked(name);
            if (l)
                unqueue_locked(&l->dials, dial);
            dial->rc = -ETIMEDOUT;
            dial->answered = true;
        }
        bool answered = dial->answered;
        pthread_mutex_unlock(&loop_lock);
        if (answered)
            return;
        gw_clock_poll(NULL, 0, gw_clock_ns() + DOZE_NS);
    }
}

static int dial_result(struct dial *dial, const struct gw_uri *uri, struct gw_error *err)
{
    uint8_t answer[GW_PREFACE_BYTES];
    if (dial->rc < 0) {
        gw_fail_code(err, dial->rc, dial->rc == -ETIMEDOUT ? GW_CODE_TIMEOUT : GW_CODE_CONNECT,
                     "%s: connect: %s", uri->text, strerror(-dial->rc));
        gw_error_hint(err, "does a target listen there, in this process?");
        return dial->rc;
    }
    gw_answer_encode(&dial->preface, dial->admission, answer);
    return gw_answer_check(&dial->preface, answer, err);
}

static int loop_connect(struct gw_domain *dom, const struct gw_uri *uri,
                        const struct gw_wire_config *config, struct gw_endpoint **ep,
                        struct gw_error *err)
{
    uint64_t delay_ns = 0;
    struct dial dial = {.config = config,
                        .dom = dom,
                        .owner = net ? net->owner() : 0,
                        .preface = {.version = GW_PREFACE_VERSION,
                                    .index = config->index,
                                    .security = config->security}};
    memcpy(dial.preface.session, config->session, GW_SESSION_BYTES);
    uint64_t deadline_ns =
        config->deadline_ns ? config->deadline_ns : gw_clock_ns() + 10 * GW_NS_PER_S;
    dial.rc = net ? net->dial(uri, config->index, &delay_ns) : 0;
    dial.arrive_ns = world_ns() + delay_ns;
    pthread_mutex_lock(&loop_lock);
    struct loop_listener *l = find_locked(uri->path);
    if (!l && dial.rc == 0)
        dial.rc = -ECONNREFUSED;
    dial.answered = dial.rc < 0 && dial.rc != -ETIMEDOUT;
    if (dial.rc == 0) {
        struct dial **at = &l->dials;
        while (*at)
            at = &(*at)->next;
        *at = &dial;
    }
    pthread_mutex_unlock(&loop_lock);
    dial_wait(&dial, uri->path, deadline_ns);
    int rc = dial_result(&dial, uri, err);
    if (rc == 0)
        *ep = &dial.ep->base;
    return rc;
}

static void answer_locked(struct loop_listener *l, struct dial *dial, enum gw_admission admission,
                          int rc)
{
    unqueue_locked(&l->dials, dial);
    dial->admission = admission;
    dial->rc = rc;
    dial->answered = true;
}

static enum gw_admission ask(struct loop_listener *l, struct dial *dial, gw_admit_fn *admit,
                             void *admit_ctx, struct gw_domain **dom, struct gw_wire_config *config)
{
    if (dial->preface.security != l->security)
        return GW_ADMIT_SECURITY;
    if (dial->preface.index >= GW_ENDPOINTS_MAX)
        return GW_ADMIT_INDEX;
    *config =
        (struct gw_wire_config){.index = dial->preface.index, .security = dial->preface.security};
    memcpy(config->session, dial->preface.session, GW_SESSION_BYTES);
    return admit(admit_ctx, &dial->preface, dom, config);
}

static struct dial *next_dial_locked(const struct loop_listener *l, const struct dial *behind)
{
    uint64_t now_ns = world_ns();
    for (struct dial *dial = behind ? behind->next : l->dials; dial; dial = dial->next) {
        if (dial->arrive_ns <= now_ns)
            return dial;
    }
    return NULL;
}

static int loop_accept(struct gw_listener *ln, gw_admit_fn *admit, void *admit_ctx,
                       struct gw_endpoint **ep, struct gw_error *err)
{
    struct loop_listener *l = listener_of(ln);
    struct loop_ep *accepted = NULL;
    (void)err;
    pthread_mutex_lock(&loop_lock);
    for (struct dial *dial = next_dial_locked(l, NULL), *next; dial && !accepted; dial = next) {
        struct gw_domain *dom = NULL;
        struct gw_wire_config config;
        dial->asked = true; /* it now waits for us, whatever its deadline says */
        pthread_mutex_unlock(&loop_lock);
        enum gw_admission admission = ask(l, dial, admit, admit_ctx, &dom, &config);
        pthread_mutex_lock(&loop_lock);
        dial->asked = false;
        next = next_dial_locked(l, dial);
        if (admission == GW_ADMIT_LATER) {
            dial->arrive_ns = world_ns() + DOZE_NS;
            continue;
        }
        int rc = admission == GW_ADMIT_OK ? connect_locked(dial, dom, &config, &accepted) : 0;
        answer_locked(l, dial, admission, rc);
    }
    pthread_mutex_unlock(&loop_lock);
    if (accepted)
        *ep = &accepted->base;
    return accepted != NULL;
}

static int loop_listen(const struct gw_uri *uri, const struct gw_wire_config *config,
                       struct gw_listener **ln, struct gw_error *err)
{
    struct loop_listener *l = gw_zalloc(1, sizeof(*l));
    if (!l)
        return gw_fail(err, -ENOMEM, "%s: listen", uri->text);
    l->base.ops = &gw_loop_ops;
    l->security = config->security;
    l->owner = net ? net->owner() : 0;
    l->listed = true;
    snprintf(l->name, sizeof(l->name), "%s", uri->path);
    snprintf(l->uri, sizeof(l->uri), "loop:%s", uri->path);
    pthread_mutex_lock(&loop_lock);
    bool taken = find_locked(l->name) != NULL;
    if (!taken) {
        l->next = listeners;
        listeners = l;
    }
    pthread_mutex_unlock(&loop_lock);
    if (taken) {
        gw_free(l);
        gw_fail_code(err, -EADDRINUSE, GW_CODE_LISTEN, "%s: listen: the name is taken", uri->text);
        gw_error_hint(err, "another target of this process listens there");
        return -EADDRINUSE;
    }
    *ln = &l->base;
    return 0;
}

static const char *loop_listener_uri(const struct gw_listener *ln)
{
    return listener_of(ln)->uri;
}

static int loop_listener_arm(struct gw_listener *ln, struct pollfd *fds, unsigned max,
                             uint64_t *wake_ns)
{
    struct loop_listener *l = listener_of(ln);
    (void)fds, (void)max;
    pthread_mutex_lock(&loop_lock);
    for (struct dial *dial = l->dials; dial; dial = dial->next)
        *wake_ns = wake_at(dial->arrive_ns, *wake_ns);
    if (!net)
        *wake_ns = gw_min_u64(*wake_ns, gw_clock_ns() + DOZE_NS);
    pthread_mutex_unlock(&loop_lock);
    return 0;
}

static void loop_listener_awake(struct gw_listener *ln, const struct pollfd *fds, unsigned count)
{
    (void)ln, (void)fds, (void)count;
}

static void unlist_locked(struct loop_listener *l)
{
    while (l->dials)
        answer_locked(l, l->dials, GW_ADMIT_OK, -ECONNRESET);
    struct loop_listener **at = &listeners;
    while (l->listed && *at != l)
        at = &(*at)->next;
    if (l->listed)
        *at = l->next;
    l->listed = false;
}

static void loop_listener_close(struct gw_listener *ln)
{
    struct loop_listener *l = listener_of(ln);
    pthread_mutex_lock(&loop_lock);
    unlist_locked(l);
    pthread_mutex_unlock(&loop_lock);
    gw_free(l);
}

static int loop_domain_open(const struct gw_wire_config *config, struct gw_domain **dom,
                            struct gw_error *err)
{
    (void)config;
    return gw_stream_domain_new(&gw_loop_ops, dom, err);
}

/* ---- for a simulator -------------------------------------------------------------------------------- */

void gw_loop_set_net(const struct gw_loop_net *fresh)
{
    pthread_mutex_lock(&loop_lock);
    net = fresh;
    link_count = 0;
    pthread_mutex_unlock(&loop_lock);
}

unsigned gw_loop_link_count(void)
{
    pthread_mutex_lock(&loop_lock);
    unsigned count = link_count;
    pthread_mutex_unlock(&loop_lock);
    return count;
}

void gw_loop_crash(int owner, uint64_t after_ns)
{
    pthread_mutex_lock(&loop_lock);
    uint64_t end_ns = after_ns == GW_NEVER_NS ? GW_NEVER_NS : world_ns() + after_ns;
    for (struct link *link = links; link; link = link->next) {
        for (unsigned i = 0; i < 2; i++) {
            if (link->owner[i] != owner)
                continue;
            cut_flow(&link->flow[i], end_ns);
            link->flow[!i].cut = true;
        }
    }
    for (struct loop_listener *l = listeners, *next; l; l = next) {
        next = l->next;
        if (l->owner == owner)
            unlist_locked(l);
    }
    pthread_mutex_unlock(&loop_lock);
}

void gw_loop_cut_link(unsigned number, enum gw_loop_cut cut, uint64_t told_ns)
{
    pthread_mutex_lock(&loop_lock);
    for (struct link *link = links; link; link = link->next) {
        if (link->number == number)
            cut_link(link, 0, cut, told_ns);
    }
    pthread_mutex_unlock(&loop_lock);
}

const struct gw_transport_ops gw_loop_ops = {
    .scheme = "loop",
    .flags = GW_EP_REPLIES | GW_EP_RECONNECTS | GW_EP_IN_PROCESS,
    .domain_open = loop_domain_open,
    .domain_close = gw_stream_domain_close,
    .connect = loop_connect,
    .listen = loop_listen,
    .listener_uri = loop_listener_uri,
    .accept = loop_accept,
    .listener_arm = loop_listener_arm,
    .listener_awake = loop_listener_awake,
    .listener_close = loop_listener_close,
    .query = loop_query,
    .error = loop_error,
    .shutdown = loop_shutdown,
    .revoke = loop_revoke,
    .close = loop_close,
    .mr_reg = gw_stream_mr_reg,
    .mr_dereg = gw_stream_mr_dereg,
    .mr_pack = gw_stub_mr_pack,
    .rmr_open = gw_stream_rmr_open,
    .rmr_close = gw_stream_rmr_close,
    .put = loop_put,
    .get = gw_stub_get,
    .poll = loop_poll,
    .send = loop_send,
    .recv = loop_recv,
    .arm = loop_arm,
    .awake = loop_awake,
};
