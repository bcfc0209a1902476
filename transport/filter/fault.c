// SPDX-License-Identifier: MIT
/* The filter fault+: a link that misbehaves on purpose, as the rules of its address say (fault.h), at
 * the ops table: above frames and packets, so that it is the same on every wire.
 *
 * What goes out stands in a line of messages and puts, each with the time at which it may leave; cut
 * and fail are marks in that line, so that what was accepted before them has left when they strike. A
 * put has a slot from its acceptance to its completion: pieces of it are counted there, and a put that
 * never leaves is flushed from there. Completions are taken from the wire as they come, not as they are
 * asked for, because a message may stand behind puts that wait for the wire's window. What comes in is held back by not asking the wire for it.
 *
 * What strikes closes the connection below, at once, so that the peer learns of it on every wire. The
 * table's contract holds: a put that was accepted completes once, a final error is final and has its
 * reason. Only the owner may close, so a shutdown by another thread is a flag, and the owner never
 * sleeps for longer than NAP_NS; while the filter is deaf on purpose it sleeps by the clock alone,
 * because the wire's descriptor would only say that there is something to hear. An endpoint that no
 * rule concerns passes everything straight on. */
#include "transport/filter/fault.h"

#include "core/base/alloc.h"
#include "core/base/bytes.h"
#include "core/base/clock.h"

#include <stdatomic.h>
#include <string.h>

#define SLOTS 1024   /* the largest window here */
#define MESSAGES 256 /* in line */
#define MARKS 2
#define ITEMS (SLOTS + MESSAGES + MARKS)
#define QUEUE_BYTES (256u << 10)      /* a message is accepted while fewer wait */
#define BATCH 512                     /* handed to the wire at once */
#define FLUSH_NS (100 * GW_NS_PER_MS) /* what was accepted before a cut has so long to leave */
#define NAP_NS (5 * GW_NS_PER_MS)

struct fault_rmr {
    struct gw_rmr base;
    struct gw_rmr *inner;
    uint64_t bytes;
};

enum item_kind { ITEM_MESSAGE, ITEM_PUT, ITEM_MARK };

struct item {
    enum item_kind kind;
    uint64_t due_ns;
    size_t bytes;                     /* MESSAGE: in the ring */
    unsigned slot;                    /* PUT */
    const struct gw_fault_rule *rule; /* MARK */
};

struct slot {
    uint64_t cookie;
    struct gw_put put; /* with the inner region */
    uint32_t posted;   /* bytes handed to the wire */
    uint32_t flying;   /* pieces of it there */
    int status;
    bool used, done;
};

struct fault {
    struct gw_filter_endpoint base;
    struct gw_fault_plan plan;
    bool plain; /* no rule concerns it */
    const struct gw_place_ops *place;
    void *place_ctx;
    uint32_t message_bytes_max;
    uint16_t index;
    atomic_bool shut; /* set by any thread, read by the owner: relaxed, nothing goes with it */

    int rc; /* the first final error */
    bool told;
    bool inner_dead; /* it is the wire's, which may still have last words */
    struct gw_error err;
    struct gw_ep_attr last; /* of the wire's endpoint, once it is closed */

    unsigned window, take;
    uint32_t piece_bytes;       /* 0: whole */
    uint64_t rate_out, rate_in; /* bytes a second; 0: no limit */

    bool mute_out, mute_in;
    uint64_t mute_rx_bytes;             /* what the owner has seen to arrive until then */
    const struct gw_fault_rule *mark;   /* stands in line: nothing is accepted any more */
    const struct gw_fault_rule *struck; /* has come first in line */
    uint64_t strike_ns;                 /* when it strikes at the latest */

    uint64_t last_due_ns, rate_out_ns; /* of what stands in line */
    uint64_t resume_ns;                /* nothing is heard before */
    uint8_t *held;                     /* a message that came and waits; NULL: no rule delays */
    size_t held_bytes;
    uint64_t held_due_ns; /* 0: none is held */

    struct item items[ITEMS];
    unsigned item_first, item_count, message_count;
    uint8_t *ring;
    size_t ring_bytes, ring_first, ring_used;
    struct slot slots[SLOTS];
    unsigned free_slots[SLOTS];
    unsigned free_count;
    unsigned done[SLOTS]; /* completed, and not yet reported */
    unsigned done_first, done_count;
    struct gw_put batch[BATCH];
};

static struct fault *fault_of(struct gw_endpoint *ep)
{
    return (struct fault *)ep;
}

/* ---- errors ---- */

/* Ends here, for a reason of ours: the connection below is closed. */
static void fail(struct fault *f, int rc, enum gw_code code, const char *what, const char *rule)
{
    if (f->rc != 0)
        return;
    f->rc = gw_fail_code(&f->err, rc, code, "%s%s%s", what, rule ? " on purpose: do=" : "",
                         rule ? rule : "");
    gw_ep_query(f->base.inner, &f->last);
    gw_error_place(&f->err, "%.64s endpoint %u", f->last.peer, f->index);
    if (rule)
        gw_error_hint(&f->err, "the address asks for it with fault+");
    gw_ep_close(f->base.inner);
    f->base.inner = NULL;
}

/* The wire's own error. */
static int inner_failed(struct fault *f, int rc)
{
    if (f->rc == 0 && gw_ep_error(f->base.inner, NULL) == 0)
        fail(f, rc, GW_CODE_IO, "the wire did not take it", NULL);
    if (f->rc == 0) {
        f->rc = rc;
        f->inner_dead = true;
    }
    return f->rc;
}

static int check(struct fault *f)
{
    if (atomic_load_explicit(&f->shut, memory_order_relaxed))
        fail(f, -ESHUTDOWN, GW_CODE_CANCELLED, "the endpoint was shut down", NULL);
    if (f->rc != 0)
        f->told = true;
    return f->rc;
}

/* ---- the line ---- */

static struct item *item_at(struct fault *f, unsigned i)
{
    return &f->items[(f->item_first + i) % ITEMS];
}

static struct item *item_add(struct fault *f, enum item_kind kind, uint64_t now, uint64_t delay_ns,
                             uint64_t bytes)
{
    struct item *item = item_at(f, f->item_count++);
    uint64_t due = now + delay_ns;
    if (f->rate_out) {
        f->rate_out_ns = gw_max_u64(f->rate_out_ns, now) + bytes * GW_NS_PER_S / f->rate_out;
        due = gw_max_u64(due, f->rate_out_ns);
    }
    f->last_due_ns = gw_max_u64(f->last_due_ns, due);
    *item = (struct item){.kind = kind, .due_ns = f->last_due_ns, .bytes = bytes};
    return item;
}

static void item_remove(struct fault *f)
{
    struct item *item = item_at(f, 0);
    if (item->kind == ITEM_MESSAGE) {
        f->ring_first = (f->ring_first + item->bytes) % f->ring_bytes;
        f->ring_used -= item->bytes;
        f->message_count--;
    }
    f->item_first = (f->item_first + 1) % ITEMS;
    f->item_count--;
}

static void ring_write(struct fault *f, const void *data, size_t bytes)
{
    size_t at = (f->ring_first + f->ring_used) % f->ring_bytes;
    size_t first = gw_min_u64(bytes, f->ring_bytes - at);
    if (bytes == 0)
        return;
    memcpy(f->ring + at, data, first);
    memcpy(f->ring, (const uint8_t *)data + first, bytes - first);
    f->ring_used += bytes;
}

/* True: it has left, or the endpoint has ended. */
static bool leave_message(struct fault *f, const struct item *item)
{
    size_t first = gw_min_u64(item->bytes, f->ring_bytes - f->ring_first);
    struct iovec iov[2] = {{.iov_base = f->ring + f->ring_first, .iov_len = first},
                           {.iov_base = f->ring, .iov_len = item->bytes - first}};
    int rc = gw_send(f->base.inner, iov, 2);
    if (rc == -EAGAIN)
        return false;
    if (rc < 0)
        inner_failed(f, rc);
    else
        item_remove(f);
    return true;
}

/* Pieces of the puts that stand in line and are due, until one is not, or BATCH. */
static unsigned gather(struct fault *f, uint64_t now)
{
    unsigned n = 0;
    for (unsigned i = 0; i < f->item_count && n < BATCH; i++) {
        const struct item *item = item_at(f, i);
        if (item->kind != ITEM_PUT || item->due_ns > now)
            break;
        const struct slot *slot = &f->slots[item->slot];
        uint32_t step = f->piece_bytes ? f->piece_bytes : slot->put.bytes;
        for (uint32_t at = slot->posted; at < slot->put.bytes && n < BATCH;) {
            struct gw_put *piece = &f->batch[n++];
            *piece = slot->put;
            piece->local = (const uint8_t *)slot->put.local + at;
            piece->offset += at;
            piece->bytes = (uint32_t)gw_min_u64(step, slot->put.bytes - at);
            piece->cookie = item->slot;
            at += piece->bytes;
        }
    }
    return n;
}

static bool leave_puts(struct fault *f, uint64_t now)
{
    unsigned count = gather(f, now);
    int taken = gw_put(f->base.inner, f->batch, count);
    if (taken < 0) {
        inner_failed(f, taken);
        return true;
    }
    for (int i = 0; i < taken; i++) {
        struct slot *slot = &f->slots[f->batch[i].cookie];
        slot->posted += f->batch[i].bytes;
        slot->flying++;
        if (slot->posted == slot->put.bytes)
            item_remove(f);
    }
    return (unsigned)taken == count;
}

static void complete(struct fault *f, unsigned index)
{
    f->slots[index].done = true;
    f->done[(f->done_first + f->done_count++) % SLOTS] = index;
}

/* After a final error: what never left, and, once the wire has no more to say, the rest. */
static void flush(struct fault *f, bool all)
{
    f->item_count = 0;
    for (unsigned i = 0; i < SLOTS && f->free_count + f->done_count < SLOTS; i++) {
        struct slot *slot = &f->slots[i];
        if (!slot->used || slot->done || (slot->flying > 0 && !all))
            continue;
        slot->status = f->rc;
        complete(f, i);
    }
}

/* Pieces that the wire has completed. Returns how many. */
static unsigned collect(struct fault *f)
{
    struct gw_completion pieces[64];
    unsigned n = 0;
    int got = -ECONNRESET;
    while (f->base.inner && (got = gw_poll(f->base.inner, pieces, 64)) > 0) {
        for (int i = 0; i < got; i++) {
            struct slot *slot = &f->slots[pieces[i].cookie];
            slot->flying--;
            if (pieces[i].status < 0 && slot->status == 0)
                slot->status = pieces[i].status;
            if (slot->flying == 0 && slot->posted == slot->put.bytes)
                complete(f, (unsigned)pieces[i].cookie);
        }
        n += (unsigned)got;
    }
    if (got < 0 && f->base.inner)
        inner_failed(f, got);
    if (f->rc != 0)
        flush(f, got < 0);
    return n;
}

static void strike_now(struct fault *f)
{
    const struct gw_fault_rule *rule = f->struck;
    if (rule->action == GW_FAULT_FAIL)
        fail(f, -EIO, GW_CODE_IO, "a put failed", rule->text);
    else
        fail(f, -ECONNRESET, GW_CODE_PEER_LOST, "the link was cut", rule->text);
}

static void step_strike(struct fault *f, uint64_t now)
{
    struct gw_ep_attr attr;
    struct pollfd fds[4];
    uint64_t wake_ns = GW_NEVER_NS;
    gw_ep_arm(f->base.inner, fds, 4, &wake_ns); /* push out what gathers there */
    gw_ep_query(f->base.inner, &attr);
    if (!attr.tx_pending || now >= f->strike_ns)
        strike_now(f);
}

/* Hand the wire what is due. */
static void pump(struct fault *f, uint64_t now)
{
    bool more = true;
    while (f->rc == 0 && more && f->item_count > 0 && item_at(f, 0)->due_ns <= now) {
        const struct item *item = item_at(f, 0);
        if (item->kind == ITEM_MESSAGE) {
            more = leave_message(f, item);
        } else if (item->kind == ITEM_PUT) {
            more = leave_puts(f, now) || collect(f) > 0;
        } else {
            f->struck = item->rule;
            f->strike_ns = now + FLUSH_NS;
            item_remove(f);
        }
    }
    if (f->rc == 0 && f->struck)
        step_strike(f, now);
}

static void mark(struct fault *f, const struct gw_fault_rule *rule, uint64_t now)
{
    if (f->mark)
        return;
    f->mark = rule;
    item_add(f, ITEM_MARK, now, 0, 0)->rule = rule;
}

static void mute(struct fault *f, unsigned ways)
{
    struct gw_ep_attr attr;
    if (ways & GW_FAULT_OUT)
        f->mute_out = true;
    if ((ways & GW_FAULT_IN) && !f->mute_in) {
        gw_ep_query(f->base.inner, &attr);
        f->mute_rx_bytes = attr.rx_bytes;
        f->mute_in = true;
    }
}

static void after(struct fault *f, const struct gw_fault_hit *hit, uint64_t now)
{
    if (hit->cut)
        mark(f, hit->cut, now);
    if (hit->mute)
        mute(f, hit->mute->ways);
}

/* ---- messages ---- */

static size_t copy_head(const struct iovec *iov, int iov_count, uint8_t head[GW_FAULT_HEAD_MAX])
{
    size_t used = 0;
    for (int i = 0; i < iov_count && used < GW_FAULT_HEAD_MAX; i++) {
        size_t n = gw_min_u64(iov[i].iov_len, GW_FAULT_HEAD_MAX - used);
        if (n > 0)
            memcpy(head + used, iov[i].iov_base, n);
        used += n;
    }
    return used;
}

static int fault_send(struct gw_endpoint *ep, const struct iovec *iov, int iov_count)
{
    struct fault *f = fault_of(ep);
    struct gw_fault_hit hit;
    uint8_t head[GW_FAULT_HEAD_MAX];
    uint64_t bytes = 0, now = gw_clock_ns();

    if (f->plain)
        return gw_send(f->base.inner, iov, iov_count);
    int rc = check(f);
    if (rc < 0)
        return rc;
    for (int i = 0; i < iov_count; i++) {
        if (iov[i].iov_len > f->message_bytes_max)
            return -EMSGSIZE;
        bytes += iov[i].iov_len;
    }
    if (bytes > f->message_bytes_max)
        return -EMSGSIZE;
    pump(f, now);
    if (check(f) < 0)
        return f->rc;
    if (f->mark || f->message_count == MESSAGES || f->ring_used >= QUEUE_BYTES)
        return -EAGAIN;
    if (f->mute_out)
        return 0; /* lost on its way */
    size_t head_bytes = copy_head(iov, iov_count, head);
    gw_fault_see(&f->plan, GW_FAULT_OUT, GW_FAULT_MESSAGE, bytes, head, head_bytes, &hit);
    if (hit.drop) {
        f->mute_out = true;
        return 0;
    }
    item_add(f, ITEM_MESSAGE, now, hit.delay_ns, bytes);
    f->message_count++;
    for (int i = 0; i < iov_count; i++)
        ring_write(f, iov[i].iov_base, iov[i].iov_len);
    after(f, &hit, now);
    pump(f, now);
    return 0;
}

static bool is_deaf(const struct fault *f, uint64_t now)
{
    return f->mute_in || f->held_due_ns || f->resume_ns > now || f->struck;
}

static ssize_t deliver(struct fault *f, void *buf, size_t bytes)
{
    if (f->held_bytes > bytes) {
        fail(f, -EMSGSIZE, GW_CODE_LIMIT, "a message does not fit the buffer", NULL);
        return check(f);
    }
    if (f->held_bytes > 0)
        memcpy(buf, f->held, f->held_bytes);
    f->held_due_ns = 0;
    return (ssize_t)f->held_bytes;
}

/* A message has come. Its length, or -EAGAIN. */
static ssize_t heard(struct fault *f, const void *buf, size_t bytes, uint64_t now)
{
    struct gw_fault_hit hit;
    gw_fault_see(&f->plan, GW_FAULT_IN, GW_FAULT_MESSAGE, bytes, buf, bytes, &hit);
    if (hit.drop) {
        mute(f, GW_FAULT_IN);
        return -EAGAIN;
    }
    if (f->rate_in)
        f->resume_ns = gw_max_u64(f->resume_ns, now) + bytes * GW_NS_PER_S / f->rate_in;
    after(f, &hit, now);
    if (hit.delay_ns == 0)
        return (ssize_t)bytes;
    if (bytes > 0)
        memcpy(f->held, buf, bytes);
    f->held_bytes = bytes;
    f->held_due_ns = now + hit.delay_ns;
    return -EAGAIN;
}

static ssize_t fault_recv(struct gw_endpoint *ep, void *buf, size_t bytes)
{
    struct fault *f = fault_of(ep);
    uint64_t now = gw_clock_ns();
    if (f->plain)
        return gw_recv(f->base.inner, buf, bytes);
    if (check(f) < 0 && !f->inner_dead)
        return f->rc;
    if (f->held_due_ns && f->held_due_ns <= now)
        return deliver(f, buf, bytes);
    if (f->mute_in && f->held_due_ns == 0 && f->rc != 0)
        return f->rc;
    if (is_deaf(f, now))
        return -EAGAIN;
    ssize_t n = gw_recv(f->base.inner, buf, bytes);
    if (n >= 0)
        return heard(f, buf, (size_t)n, now);
    if (n == -EAGAIN)
        return n;
    f->told = true;
    return inner_failed(f, (int)n);
}

/* ---- puts ---- */

static bool put_is_valid(const struct gw_put *put)
{
    const struct fault_rmr *rmr = (const struct fault_rmr *)put->rmr;
    return put->bytes >= 1 && gw_range_is_inside(put->offset, put->bytes, rmr->bytes);
}

static struct slot *slot_take(struct fault *f, const struct gw_put *put, unsigned *index)
{
    *index = f->free_slots[--f->free_count];
    struct slot *slot = &f->slots[*index];
    *slot = (struct slot){.cookie = put->cookie, .put = *put, .used = true};
    slot->put.rmr = ((struct fault_rmr *)put->rmr)->inner;
    return slot;
}

/* Accepted: from here on it has a completion to come. */
static void accept_put(struct fault *f, const struct gw_put *put, uint64_t now)
{
    struct gw_fault_hit hit = {.delay_ns = 0};
    unsigned index;
    slot_take(f, put, &index);
    if (f->mute_out)
        return; /* as in a socket's buffer: it neither leaves nor completes */
    gw_fault_see(&f->plan, GW_FAULT_OUT, GW_FAULT_PUT, put->bytes, NULL, 0, &hit);
    if (hit.fail) {
        mark(f, hit.fail, now);
        return;
    }
    if (hit.drop) {
        f->mute_out = true;
        return;
    }
    item_add(f, ITEM_PUT, now, hit.delay_ns, put->bytes)->slot = index;
    after(f, &hit, now);
}

static int fault_put(struct gw_endpoint *ep, const struct gw_put *puts, unsigned count)
{
    struct fault *f = fault_of(ep);
    uint64_t now = gw_clock_ns();
    unsigned n = 0;
    if (f->plain) {
        /* Regions are ours, so puts are translated, a batch at a time. */
        for (; n < count && n < BATCH; n++) {
            f->batch[n] = puts[n];
            f->batch[n].rmr = ((struct fault_rmr *)puts[n].rmr)->inner;
        }
        return gw_put(f->base.inner, f->batch, n);
    }
    int rc = check(f);
    if (rc < 0)
        return rc;
    struct gw_ep_attr attr;
    gw_ep_query(f->base.inner, &attr);
    unsigned limit = (unsigned)gw_min_u64(count, f->take);
    while (n < limit && !f->mark && SLOTS - f->free_count < f->window) {
        if (!put_is_valid(&puts[n]) || puts[n].bytes > attr.put_bytes_max) {
            if (n == 0)
                return -EINVAL;
            break;
        }
        accept_put(f, &puts[n++], now);
    }
    pump(f, now);
    return (int)n;
}

static int fault_get(struct gw_endpoint *ep, const struct gw_get *gets, unsigned count)
{
    (void)ep;
    (void)gets;
    (void)count;
    return -EOPNOTSUPP; /* as every wire, so far */
}

static int fault_poll(struct gw_endpoint *ep, struct gw_completion *done, unsigned max)
{
    struct fault *f = fault_of(ep);
    unsigned n = 0;
    if (f->plain)
        return gw_poll(f->base.inner, done, max);
    if (check(f) == 0)
        pump(f, gw_clock_ns());
    collect(f);
    if (f->rc != 0)
        f->told = true;
    while (n < max && f->done_count > 0) {
        unsigned index = f->done[f->done_first];
        f->done_first = (f->done_first + 1) % SLOTS;
        f->done_count--;
        done[n++] = (struct gw_completion){.cookie = f->slots[index].cookie,
                                           .status = f->slots[index].status};
        f->slots[index].used = false;
        f->free_slots[f->free_count++] = index;
    }
    return n == 0 && max > 0 && f->rc != 0 && f->free_count == SLOTS ? f->rc : (int)n;
}

/* ---- sleeping ---- */

static bool is_ready(struct fault *f, uint64_t now)
{
    if (atomic_load_explicit(&f->shut, memory_order_relaxed) && f->rc == 0)
        return true;
    if (f->rc != 0)
        return !f->told || f->free_count < SLOTS;
    return f->done_count > 0 || (f->held_due_ns && f->held_due_ns <= now);
}

/* Of the wire's descriptors those that say that it can send; the clock does the rest. */
static int arm_deaf(struct fault *f, struct pollfd *fds, unsigned max)
{
    uint64_t wire_ns = GW_NEVER_NS;
    int kept = 0;
    int count = gw_ep_arm(f->base.inner, fds, max, &wire_ns);
    for (int i = 0; i < count; i++) {
        fds[kept] = fds[i];
        fds[kept].events &= POLLOUT;
        kept += fds[kept].events != 0;
    }
    return kept;
}

static int fault_arm(struct gw_endpoint *ep, struct pollfd *fds, unsigned max, uint64_t *wake_ns)
{
    struct fault *f = fault_of(ep);
    uint64_t now = gw_clock_ns();
    if (f->plain)
        return gw_ep_arm(f->base.inner, fds, max, wake_ns);
    if (f->rc == 0 && !atomic_load_explicit(&f->shut, memory_order_relaxed))
        pump(f, now);
    if (is_ready(f, now)) {
        uint64_t ignored = GW_NEVER_NS;
        if (f->base.inner)
            gw_ep_arm(f->base.inner, fds, max, &ignored); /* it pushes out what gathers there */
        *wake_ns = 0;
        return 0;
    }
    if (f->held_due_ns)
        *wake_ns = gw_min_u64(*wake_ns, f->held_due_ns);
    if (f->rc != 0)
        return f->inner_dead ? gw_ep_arm(f->base.inner, fds, max, wake_ns) : 0;
    if (f->item_count > 0 && item_at(f, 0)->due_ns > now)
        *wake_ns = gw_min_u64(*wake_ns, item_at(f, 0)->due_ns);
    if (f->resume_ns > now)
        *wake_ns = gw_min_u64(*wake_ns, f->resume_ns);
    *wake_ns = gw_min_u64(*wake_ns, now + NAP_NS);
    return is_deaf(f, now) ? arm_deaf(f, fds, max) : gw_ep_arm(f->base.inner, fds, max, wake_ns);
}

static void fault_awake(struct gw_endpoint *ep, const struct pollfd *fds, unsigned count)
{
    if (fault_of(ep)->base.inner)
        gw_ep_awake(fault_of(ep)->base.inner, fds, count);
}

/* ---- what is placed here ---- */

static int place_check(void *ctx, uint32_t region, uint64_t offset, uint32_t bytes)
{
    struct fault *f = ctx;
    if (!f->place || !f->place->check)
        return 0;
    return f->place->check(f->place_ctx, region, offset, bytes);
}

static void place_placed(void *ctx, uint32_t region, uint64_t offset, uint32_t bytes)
{
    struct fault *f = ctx;
    struct gw_fault_hit hit;
    if (f->place && f->place->placed)
        f->place->placed(f->place_ctx, region, offset, bytes);
    uint64_t now = gw_clock_ns();
    gw_fault_see(&f->plan, GW_FAULT_IN, GW_FAULT_PUT, bytes, NULL, 0, &hit);
    if (hit.delay_ns)
        f->resume_ns = gw_max_u64(f->resume_ns, now + hit.delay_ns);
    if (f->rate_in)
        f->resume_ns = gw_max_u64(f->resume_ns, now) + bytes * GW_NS_PER_S / f->rate_in;
    after(f, &hit, now);
}

static const struct gw_place_ops fault_place = {.check = place_check, .placed = place_placed};

/* ---- life ---- */

static const char *const params[] = {"seed", "do", NULL};

static int check_query(const struct gw_uri *uri, struct gw_error *err)
{
    struct gw_fault_plan plan;
    return gw_fault_plan_init(&plan, uri, 0, 1, err);
}

static uint64_t amount(const struct fault *f, enum gw_fault_action action, unsigned way,
                       uint64_t otherwise)
{
    const struct gw_fault_rule *rule = gw_fault_find(&f->plan, action, way);
    return rule ? rule->amount : otherwise;
}

static void read_plan(struct fault *f)
{
    f->window = (unsigned)gw_min_u64(amount(f, GW_FAULT_WINDOW, GW_FAULT_OUT, SLOTS), SLOTS);
    f->take = (unsigned)gw_min_u64(amount(f, GW_FAULT_TAKE, GW_FAULT_OUT, SLOTS), SLOTS);
    f->piece_bytes = (uint32_t)gw_min_u64(amount(f, GW_FAULT_PIECES, GW_FAULT_OUT, 0), UINT32_MAX);
    f->rate_out = amount(f, GW_FAULT_RATE, GW_FAULT_OUT, 0);
    f->rate_in = amount(f, GW_FAULT_RATE, GW_FAULT_IN, 0);
    f->plain = f->plan.count == 0;
    for (unsigned i = 0; i < SLOTS; i++)
        f->free_slots[f->free_count++] = SLOTS - 1 - i;
}

static int allocate(struct fault *f)
{
    f->ring_bytes = (size_t)QUEUE_BYTES + f->message_bytes_max;
    f->ring = gw_zalloc(1, f->ring_bytes);
    bool holds = gw_fault_find(&f->plan, GW_FAULT_DELAY, GW_FAULT_IN) != NULL;
    f->held = holds ? gw_zalloc(1, f->message_bytes_max) : NULL;
    return f->ring && (f->held || !holds) ? 0 : -ENOMEM;
}

static void endpoint_free(struct gw_filter_endpoint *ep)
{
    struct fault *f = (struct fault *)ep;
    gw_free(f->ring);
    gw_free(f->held);
    gw_free(f);
}

static int endpoint_new(const struct gw_filter_open *open, struct gw_filter_endpoint **ep,
                        struct gw_error *err)
{
    const struct gw_wire_config *config = open->config;
    struct fault *f = gw_zalloc(1, sizeof(*f));
    if (!f)
        return gw_fail(err, -ENOMEM, "fault: endpoint %u", config->index);
    f->err = (struct gw_error)GW_ERROR_INIT;
    f->index = config->index;
    f->message_bytes_max =
        config->message_bytes_max ? config->message_bytes_max : GW_MESSAGE_BYTES_DEFAULT;
    int rc = gw_fault_plan_init(&f->plan, open->uri, config->index, open->attempt, err);
    if (rc < 0)
        goto out;
    read_plan(f);
    const struct gw_fault_rule *refused = gw_fault_find(&f->plan, GW_FAULT_REFUSE, GW_FAULT_OUT);
    if (refused) {
        rc = gw_fail_code(err, -ECONNREFUSED, GW_CODE_CONNECT,
                          "endpoint %u, attempt %u: refused on purpose: do=%s", config->index,
                          open->attempt, refused->text);
        gw_error_hint(err, "the address asks for it with fault+");
        goto out;
    }
    rc = f->plain ? 0 : allocate(f);
    if (rc < 0) {
        gw_fail(err, rc, "fault: endpoint %u", config->index);
        goto out;
    }
    if (!f->plain && open->side == GW_FILTER_TARGET) {
        f->place = config->place;
        f->place_ctx = config->place_ctx;
        open->config->place = &fault_place;
        open->config->place_ctx = f;
    }
    *ep = &f->base;
    return 0;
out:
    endpoint_free(&f->base);
    return rc;
}

static void endpoint_opened(struct gw_filter_endpoint *ep)
{
    struct fault *f = (struct fault *)ep;
    struct gw_fault_hit hit;
    struct gw_ep_attr attr;
    if (f->plain)
        return;
    gw_ep_query(f->base.inner, &attr);
    f->window = (unsigned)gw_min_u64(f->window, attr.put_window);
    gw_fault_see_open(&f->plan, &hit);
    after(f, &hit, gw_clock_ns());
}

static void fault_query(const struct gw_endpoint *ep, struct gw_ep_attr *attr)
{
    const struct fault *f = (const struct fault *)ep;
    if (!f->base.inner) {
        *attr = f->last;
        attr->tx_pending = false;
        return;
    }
    gw_ep_query(f->base.inner, attr);
    if (f->plain) {
        attr->put_count_max = (uint32_t)gw_min_u64(attr->put_count_max, BATCH);
        return;
    }
    attr->put_window = (uint32_t)gw_min_u64(attr->put_window, f->window);
    attr->put_count_max = (uint32_t)gw_min_u64(attr->put_count_max, f->take);
    attr->tx_pending |= f->item_count > 0;
    if (f->mute_in)
        attr->rx_bytes = f->mute_rx_bytes;
}

static int fault_error(const struct gw_endpoint *ep, struct gw_error *err)
{
    const struct fault *f = (const struct fault *)ep;
    if (f->rc == 0 || f->inner_dead)
        return gw_ep_error(f->base.inner, err);
    gw_error_copy(err, &f->err);
    return f->rc;
}

static void fault_shutdown(struct gw_endpoint *ep)
{
    struct fault *f = fault_of(ep);
    if (f->plain)
        gw_ep_shutdown(f->base.inner);
    else
        atomic_store_explicit(&f->shut, true, memory_order_relaxed);
}

static void fault_revoke(struct gw_endpoint *ep)
{
    if (fault_of(ep)->base.inner)
        gw_ep_revoke(fault_of(ep)->base.inner);
}

static void fault_close(struct gw_endpoint *ep)
{
    gw_ep_close(fault_of(ep)->base.inner);
    endpoint_free(gw_filter_endpoint_of(ep));
}

static int fault_rmr_open(struct gw_domain *dom, uint32_t region, uint64_t bytes, const void *key,
                          size_t key_bytes, struct gw_rmr **rmr, struct gw_error *err)
{
    struct fault_rmr *r = gw_zalloc(1, sizeof(*r));
    if (!r)
        return gw_fail(err, -ENOMEM, "region %u of the peer", region);
    r->base.ops = dom->ops;
    r->bytes = bytes;
    int rc = gw_filter_rmr_open(dom, region, bytes, key, key_bytes, &r->inner, err);
    if (rc < 0)
        gw_free(r);
    else
        *rmr = &r->base;
    return rc;
}

static void fault_rmr_close(struct gw_rmr *rmr)
{
    struct fault_rmr *r = (struct fault_rmr *)rmr;
    gw_rmr_close(r->inner);
    gw_free(r);
}

static const struct gw_transport_ops fault_ops = {
    .scheme = "fault",
    .domain_open = gw_filter_no_domain_open,
    .domain_close = gw_filter_domain_close,
    .connect = gw_filter_connect,
    .listen = gw_filter_listen,
    .listener_uri = gw_filter_listener_uri,
    .accept = gw_filter_accept,
    .listener_arm = gw_filter_listener_arm,
    .listener_awake = gw_filter_listener_awake,
    .listener_close = gw_filter_listener_close,
    .query = fault_query,
    .error = fault_error,
    .shutdown = fault_shutdown,
    .revoke = fault_revoke,
    .close = fault_close,
    .mr_reg = gw_filter_mr_reg,
    .mr_dereg = gw_filter_mr_dereg,
    .mr_pack = gw_filter_mr_pack,
    .rmr_open = fault_rmr_open,
    .rmr_close = fault_rmr_close,
    .put = fault_put,
    .get = fault_get,
    .poll = fault_poll,
    .send = fault_send,
    .recv = fault_recv,
    .arm = fault_arm,
    .awake = fault_awake,
};

const struct gw_filter gw_fault_filter = {
    .name = "fault",
    .params = params,
    .ops = &fault_ops,
    .domain_bytes = sizeof(struct gw_filter_domain),
    .check = check_query,
    .endpoint_new = endpoint_new,
    .endpoint_opened = endpoint_opened,
    .endpoint_free = endpoint_free,
};
