// SPDX-License-Identifier: MIT
/* What passes through an endpoint of fault+: each message and put is shown to the rules (fault.h), and
 * what they say is done to it here.
 *
 * What goes out stands in a line (fault_line.h), in which cut and fail are marks. What comes in is held
 * back by not asking the wire for it. An endpoint that no rule concerns passes everything straight on.
 *
 * What strikes closes the connection below, at once, so that the peer learns of it on every wire. The
 * table's contract holds: a put that was accepted completes once, a final error is final and has its
 * reason. Only the owner may close, so a shutdown by another thread is a flag, and the owner never
 * sleeps for longer than NAP_NS; while the filter is deaf on purpose it sleeps by the clock alone,
 * because the wire's descriptor would only say that there is something to hear. */
#include "transport/filter/fault_impl.h"

#include "core/base/bytes.h"
#include "core/base/clock.h"

#include <string.h>

#define FLUSH_NS (100 * GW_NS_PER_MS) /* what was accepted before a cut has so long to leave */
#define NAP_NS (5 * GW_NS_PER_MS)

/* ---- errors ---- */

/* Ends here, for a reason of ours: the connection below is closed. */
static void fail(struct gw_fault *f, int rc, enum gw_code code, const char *what, const char *rule)
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
static int inner_failed(struct gw_fault *f, int rc)
{
    if (f->rc == 0 && gw_ep_error(f->base.inner, NULL) == 0)
        fail(f, rc, GW_CODE_IO, "the wire did not take it", NULL);
    if (f->rc == 0) {
        f->rc = rc;
        f->inner_dead = true;
    }
    return f->rc;
}

static int check(struct gw_fault *f)
{
    if (atomic_load_explicit(&f->shut, memory_order_relaxed))
        fail(f, -ESHUTDOWN, GW_CODE_CANCELLED, "the endpoint was shut down", NULL);
    if (f->rc != 0)
        f->told = true;
    return f->rc;
}

/* ---- what leaves, and what strikes ---- */

/* What the wire has completed, and what never will. */
static void collect(struct gw_fault *f)
{
    int rc = f->base.inner ? gw_fault_line_collect(&f->line, f->base.inner) : -ECONNRESET;
    if (rc < 0 && f->base.inner)
        inner_failed(f, rc);
    if (f->rc != 0)
        gw_fault_line_flush(&f->line, f->rc, rc < 0);
}

static void strike_now(struct gw_fault *f)
{
    const struct gw_fault_rule *rule = f->struck;
    if (rule->action == GW_FAULT_FAIL)
        fail(f, -EIO, GW_CODE_IO, "a put failed", rule->text);
    else
        fail(f, -ECONNRESET, GW_CODE_PEER_LOST, "the link was cut", rule->text);
}

static void step_strike(struct gw_fault *f, uint64_t now)
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
static void pump(struct gw_fault *f, uint64_t now)
{
    const struct gw_fault_rule *struck = NULL;
    if (f->rc != 0)
        return;
    int rc = gw_fault_line_leave(&f->line, f->base.inner, now, &struck);
    if (struck) {
        f->struck = struck;
        f->strike_ns = now + FLUSH_NS;
    }
    if (rc < 0)
        inner_failed(f, rc);
    else if (f->struck)
        step_strike(f, now);
}

static void mark(struct gw_fault *f, const struct gw_fault_rule *rule, uint64_t now)
{
    if (f->mark)
        return;
    f->mark = rule;
    gw_fault_line_mark(&f->line, rule, now);
}

static void mute(struct gw_fault *f, unsigned ways)
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

static void after(struct gw_fault *f, const struct gw_fault_hit *hit, uint64_t now)
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

int gw_fault_send(struct gw_endpoint *ep, const struct iovec *iov, int iov_count)
{
    struct gw_fault *f = gw_fault_of(ep);
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
    if (f->mark || !gw_fault_line_has_room(&f->line))
        return -EAGAIN;
    if (f->mute_out)
        return 0; /* lost on its way */
    size_t head_bytes = copy_head(iov, iov_count, head);
    gw_fault_see(&f->plan, GW_FAULT_OUT, GW_FAULT_MESSAGE, bytes, head, head_bytes, &hit);
    if (hit.drop) {
        f->mute_out = true;
        return 0;
    }
    gw_fault_line_message(&f->line, iov, iov_count, bytes, now, hit.delay_ns);
    after(f, &hit, now);
    pump(f, now);
    return 0;
}

static bool is_deaf(const struct gw_fault *f, uint64_t now)
{
    return f->mute_in || f->held_due_ns || f->resume_ns > now || f->struck;
}

static ssize_t deliver(struct gw_fault *f, void *buf, size_t bytes)
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
static ssize_t heard(struct gw_fault *f, const void *buf, size_t bytes, uint64_t now)
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

ssize_t gw_fault_recv(struct gw_endpoint *ep, void *buf, size_t bytes)
{
    struct gw_fault *f = gw_fault_of(ep);
    uint64_t now = gw_clock_ns();
    if (f->plain)
        return gw_recv(f->base.inner, buf, bytes);
    if (check(f) < 0 && !f->inner_dead)
        return f->rc;
    if (f->held_due_ns && f->held_due_ns <= now)
        return deliver(f, buf, bytes);
    if (f->mute_in && f->held_due_ns == 0 && f->rc != 0)
        return f->rc;
    if (f->mark)
        pump(f, now); /* whoever reads on and on would hear what came behind a cut */
    if (check(f) < 0 && !f->inner_dead)
        return f->rc;
    if (is_deaf(f, now))
        return -EAGAIN;
    const struct gw_fault_rule *mark = f->mark;
    ssize_t n = gw_recv(f->base.inner, buf, bytes);
    if (n >= 0 && f->mark != mark)
        return -EAGAIN; /* a put before this message was where it ends */
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
    const struct gw_fault_rmr *rmr = (const struct gw_fault_rmr *)put->rmr;
    return put->bytes >= 1 && gw_range_is_inside(put->offset, put->bytes, rmr->bytes);
}

/* As the wire knows it. */
static struct gw_put inner_put(const struct gw_put *put)
{
    struct gw_put inner = *put;
    inner.rmr = ((struct gw_fault_rmr *)put->rmr)->inner;
    return inner;
}

static void accept_put(struct gw_fault *f, const struct gw_put *put, uint64_t now)
{
    struct gw_fault_hit hit = {.delay_ns = 0};
    struct gw_put inner = inner_put(put);
    unsigned slot = gw_fault_line_accept(&f->line, &inner);
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
    gw_fault_line_put(&f->line, slot, now, hit.delay_ns);
    after(f, &hit, now);
}

int gw_fault_put(struct gw_endpoint *ep, const struct gw_put *puts, unsigned count)
{
    struct gw_fault *f = gw_fault_of(ep);
    uint64_t now = gw_clock_ns();
    unsigned n = 0;
    if (f->plain) {
        /* Regions are ours, so puts are translated, a batch at a time. */
        for (; n < count && n < GW_FAULT_BATCH; n++)
            f->line.batch[n] = inner_put(&puts[n]);
        return gw_put(f->base.inner, f->line.batch, n);
    }
    int rc = check(f);
    if (rc < 0)
        return rc;
    struct gw_ep_attr attr;
    gw_ep_query(f->base.inner, &attr);
    unsigned limit = (unsigned)gw_min_u64(count, f->take);
    while (n < limit && !f->mark && gw_fault_line_open_count(&f->line) < f->window) {
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

int gw_fault_get(struct gw_endpoint *ep, const struct gw_get *gets, unsigned count)
{
    (void)ep;
    (void)gets;
    (void)count;
    return -EOPNOTSUPP; /* as every wire, so far */
}

int gw_fault_poll(struct gw_endpoint *ep, struct gw_completion *done, unsigned max)
{
    struct gw_fault *f = gw_fault_of(ep);
    if (f->plain)
        return gw_poll(f->base.inner, done, max);
    if (check(f) == 0)
        pump(f, gw_clock_ns());
    collect(f);
    if (f->rc != 0)
        f->told = true;
    unsigned n = gw_fault_line_report(&f->line, done, max);
    bool over = f->rc != 0 && gw_fault_line_open_count(&f->line) == 0;
    return n == 0 && max > 0 && over ? f->rc : (int)n;
}

/* ---- sleeping ---- */

static bool is_ready(struct gw_fault *f, uint64_t now)
{
    if (atomic_load_explicit(&f->shut, memory_order_relaxed) && f->rc == 0)
        return true;
    if (f->rc != 0)
        return !f->told || gw_fault_line_open_count(&f->line) > 0;
    return f->line.done_count > 0 || (f->held_due_ns && f->held_due_ns <= now);
}

/* Of the wire's descriptors those that say that it can send; the clock does the rest. */
static int arm_deaf(struct gw_fault *f, struct pollfd *fds, unsigned max)
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

int gw_fault_arm(struct gw_endpoint *ep, struct pollfd *fds, unsigned max, uint64_t *wake_ns)
{
    struct gw_fault *f = gw_fault_of(ep);
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
    if (gw_fault_line_due_ns(&f->line) > now)
        *wake_ns = gw_min_u64(*wake_ns, gw_fault_line_due_ns(&f->line));
    if (f->resume_ns > now)
        *wake_ns = gw_min_u64(*wake_ns, f->resume_ns);
    *wake_ns = gw_min_u64(*wake_ns, now + NAP_NS);
    return is_deaf(f, now) ? arm_deaf(f, fds, max) : gw_ep_arm(f->base.inner, fds, max, wake_ns);
}

void gw_fault_awake(struct gw_endpoint *ep, const struct pollfd *fds, unsigned count)
{
    if (gw_fault_of(ep)->base.inner)
        gw_ep_awake(gw_fault_of(ep)->base.inner, fds, count);
}

/* ---- what is placed here ---- */

static int place_check(void *ctx, uint32_t region, uint64_t offset, uint32_t bytes)
{
    struct gw_fault *f = ctx;
    if (!f->place || !f->place->check)
        return 0;
    return f->place->check(f->place_ctx, region, offset, bytes);
}

static void place_placed(void *ctx, uint32_t region, uint64_t offset, uint32_t bytes)
{
    struct gw_fault *f = ctx;
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

const struct gw_place_ops gw_fault_place = {.check = place_check, .placed = place_placed};

/* ---- opening ---- */

void gw_fault_opened(struct gw_fault *f)
{
    struct gw_fault_hit hit;
    gw_fault_see_open(&f->plan, &hit);
    after(f, &hit, gw_clock_ns());
}
