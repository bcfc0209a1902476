// SPDX-License-Identifier: MIT
/* A page endpoint's life after ofi_join.c has made it. Every op steps it: libfabric moves what it can (a
 * provider with manual progress moves nothing otherwise, also at a target that only has to let writes
 * land), completions are taken, what waits is posted, and now and then the tcp connection is looked at:
 * its end is the peer's.
 *
 * A final error closes libfabric's endpoint at once, after what had arrived was taken: then nothing
 * touches lent memory any more, and every put that was accepted is done with that error. Revoking is
 * the same without an error, and tells the peer by one byte, because some providers never do. */
#include "transport/ofi/ofi_impl.h"

#include "core/base/alloc.h"
#include "core/base/bytes.h"
#include "core/base/clock.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define ENTRIES_MAX 16
/* Of the completion queue, in one step: then the owner may do something else. */
#define READS_MAX 64
/* Without being told by poll, the connection is looked at this often. */
#define FD_NS (5 * GW_NS_PER_MS)
/* What a peer said before it closed travels on another connection than the news of its end. */
#define LAST_WORDS_NS (10 * GW_NS_PER_MS)
/* Where nothing can be slept on: a fence waits so long at most, and an idle endpoint looks so often. */
#define DOZE_MAX_NS (200 * UINT64_C(1000))
/* Where something can: what its descriptor does not tell (connections of its own) waits so long. */
#define SLEEP_MAX_NS (20 * GW_NS_PER_MS)

/* ---- the end ---------------------------------------------------------------------------------- */

static ssize_t take_completions(struct gw_ofi_ep *e);

/* On return libfabric neither reads nor writes lent memory for this endpoint. */
static void close_fabric_ep(struct gw_ofi_ep *e)
{
    gw_ofi_fid_close(e->dom, e->ep ? &e->ep->fid : NULL);
    e->ep = NULL;
}

static void drain(struct gw_ofi_ep *e)
{
    for (unsigned i = 0; e->ep && i < READS_MAX && take_completions(e) > 0;)
        i++;
}

int gw_ofi_ep_fail(struct gw_ofi_ep *e, int rc, enum gw_code code, const char *format, ...)
{
    if (e->rc != 0)
        return e->rc;
    char text[GW_ERROR_TEXT_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    if (atomic_load_explicit(&e->shut, memory_order_relaxed)) {
        rc = -ESHUTDOWN;
        code = GW_CODE_CANCELLED;
        snprintf(text, sizeof(text), "the endpoint was shut down");
    }
    e->rc = gw_fail_code(&e->err, rc, code, "%s", text);
    gw_error_place(&e->err, "%.64s endpoint %u", e->peer, e->config.index);
    if (e->state >= GW_OFI_HELLO) /* before that nobody can have said anything */
        drain(e);
    close_fabric_ep(e);
    gw_ofi_queue_flush(&e->queue, rc);
    shutdown(e->fd, SHUT_RDWR); /* so the peer learns of it */
    return rc;
}

static int fell_silent(struct gw_ofi_ep *e)
{
    return gw_ofi_ep_fail(e, -ETIMEDOUT, GW_CODE_PEER_SILENT, "the peer fell silent for %llu ms",
                          (unsigned long long)(e->config.peer_timeout_ns / GW_NS_PER_MS));
}

/* An errno; 0: it is there. To look takes the socket's error away. */
static int how_gone(int fd)
{
    uint8_t byte;
    ssize_t n = recv(fd, &byte, sizeof(byte), MSG_DONTWAIT | MSG_PEEK);
    if (n == 0)
        return ECONNRESET;
    return n > 0 || errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? 0 : errno;
}

int gw_ofi_ep_fail_fabric(struct gw_ofi_ep *e, int rc, const char *what)
{
    switch (-rc) {
    case FI_ECONNRESET:
    case FI_ECONNABORTED:
    case FI_ECONNREFUSED:
    case FI_ENOTCONN:
    case FI_ECANCELED:
    case FI_ESHUTDOWN:
    case FI_EHOSTUNREACH:
    case FI_ENETUNREACH:
    case EPIPE:
        return gw_ofi_ep_fail(e, -ECONNRESET, GW_CODE_PEER_LOST,
                              "the peer closed the connection (%s: %s)", what, gw_fi_strerror(-rc));
    case FI_ETIMEDOUT:
        return gw_ofi_ep_fail(e, -ETIMEDOUT, GW_CODE_PEER_SILENT, "the peer fell silent (%s)",
                              what);
    default:
        break;
    }
    int gone = how_gone(e->fd);
    if (gone == ETIMEDOUT)
        return fell_silent(e);
    if (gone)
        return gw_ofi_ep_fail(e, -ECONNRESET, GW_CODE_PEER_LOST,
                              "the peer closed the connection (%s: %s)", what, gw_fi_strerror(-rc));
    return gw_ofi_ep_fail(e, gw_ofi_errno(rc), rc == -FI_ENOMEM ? GW_CODE_NO_MEMORY : GW_CODE_IO,
                          "%s: %s", what, gw_fi_strerror(-rc));
}

int gw_ofi_ep_check(struct gw_ofi_ep *e)
{
    if (atomic_load_explicit(&e->shut, memory_order_relaxed) && e->rc == 0)
        gw_ofi_ep_fail(e, -ESHUTDOWN, GW_CODE_CANCELLED, "the endpoint was shut down");
    if (e->rc != 0)
        e->rc_was_told = true;
    return e->rc;
}

int gw_ofi_error(const struct gw_endpoint *ep, struct gw_error *err)
{
    const struct gw_ofi_ep *e = (const struct gw_ofi_ep *)ep;
    if (e->rc != 0)
        gw_error_copy(err, &e->err);
    return e->rc;
}

void gw_ofi_shutdown(struct gw_endpoint *ep)
{
    struct gw_ofi_ep *e = gw_ofi_ep_of(ep);
    atomic_store_explicit(&e->shut, true, memory_order_relaxed);
    shutdown(e->fd, SHUT_RDWR); /* wakes an owner that sleeps */
}

void gw_ofi_revoke(struct gw_endpoint *ep)
{
    struct gw_ofi_ep *e = gw_ofi_ep_of(ep);
    const uint8_t notice = GW_OFI_WITHDRAWN;
    if (e->revoked)
        return;
    e->revoked = true;
    close_fabric_ep(e);
    gw_ofi_queue_flush(&e->queue, e->rc ? e->rc : -ESHUTDOWN);
    /* It fits: a card and this are all that ever goes this way. */
    send(e->fd, &notice, sizeof(notice), MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* ---- completions ------------------------------------------------------------------------------ */

static struct gw_ofi_slot *slot_of(struct gw_ofi_ep *e, void *context)
{
    struct gw_ofi_slot *slot = context;
    return slot >= e->slots && slot < e->slots + GW_OFI_RECEIVES ? slot : NULL;
}

static struct gw_ofi_op *op_of(struct gw_ofi_ep *e, void *context)
{
    struct gw_ofi_op *op = context;
    bool ours = op >= e->queue.ops && op < e->queue.ops + e->queue.capacity;
    return ours && op->state == GW_OFI_POSTED ? op : NULL;
}

static void slot_done(struct gw_ofi_ep *e, struct gw_ofi_slot *slot, size_t bytes)
{
    if (slot->done)
        return;
    slot->done = true;
    slot->bytes = (uint32_t)gw_min_u64(bytes, GW_OFI_PIECE_BYTES);
    e->slot_done++;
}

static void take_error(struct gw_ofi_ep *e)
{
    struct fi_cq_err_entry entry = {.err = 0};
    gw_ofi_enter(e->dom);
    ssize_t n = fi_cq_readerr(e->cq, &entry, 0);
    gw_ofi_leave(e->dom);
    if (n <= 0)
        return;
    struct gw_ofi_slot *slot = slot_of(e, entry.op_context);
    struct gw_ofi_op *op = op_of(e, entry.op_context);
    if (slot) {
        /* A piece that is too long, perhaps a stranger's: it counts as one of no bytes. If it was the
         * peer's, the next one's number says so. A receive that is cancelled was our doing. */
        slot_done(e, slot, 0);
        if (entry.err != FI_ETRUNC && entry.err != FI_EMSGSIZE && entry.err != FI_ECANCELED)
            gw_ofi_ep_fail_fabric(e, -entry.err, "receive");
        return;
    }
    if (op) {
        const char *what = op->is_put ? "write" : "send";
        gw_ofi_queue_done(&e->queue, op, e->rc ? e->rc : -EIO);
        gw_ofi_ep_fail_fabric(e, -entry.err, what);
    }
}

/* How many were taken; 0: there is none; negative: libfabric's error. */
static ssize_t take_completions(struct gw_ofi_ep *e)
{
    struct fi_cq_msg_entry entries[ENTRIES_MAX];
    gw_ofi_enter(e->dom);
    ssize_t n = fi_cq_read(e->cq, entries, ENTRIES_MAX);
    gw_ofi_leave(e->dom);
    if (n == -FI_EAVAIL) {
        take_error(e);
        return 1;
    }
    for (ssize_t i = 0; i < n; i++) {
        struct gw_ofi_slot *slot = slot_of(e, entries[i].op_context);
        struct gw_ofi_op *op = op_of(e, entries[i].op_context);
        if (slot)
            slot_done(e, slot, entries[i].len);
        else if (op)
            gw_ofi_queue_done(&e->queue, op, 0);
    }
    if (n > 0)
        e->moved = true;
    return n == -FI_EAGAIN ? 0 : n;
}

/* ---- the tcp connection ----------------------------------------------------------------------- */

/* The peer takes no more puts. It hears nothing either, which is no error until something is put. */
static void take_notice(struct gw_ofi_ep *e, uint8_t byte)
{
    if (byte != GW_OFI_WITHDRAWN || e->withdrawn) {
        gw_ofi_ep_fail(e, -EPROTO, GW_CODE_PROTOCOL, "something followed the peer's card");
        return;
    }
    e->withdrawn = true;
    drain(e);
    gw_ofi_queue_trim(&e->queue);
    if (e->queue.put_bytes > 0)
        gw_ofi_ep_fail(e, -ECONNRESET, GW_CODE_PEER_LOST, "the peer takes no more puts");
    close_fabric_ep(e);
    gw_ofi_queue_flush(&e->queue, 0);
}

static void look_at_fd(struct gw_ofi_ep *e, uint64_t now_ns)
{
    uint8_t byte;
    bool in_card = e->state == GW_OFI_CARD;
    if (e->hung_up_ns || (!e->fd_ready && now_ns - e->fd_tried_ns < FD_NS))
        return;
    e->fd_tried_ns = now_ns;
    e->fd_ready = false;
    e->system_calls++;
    ssize_t n =
        in_card ? recv(e->fd, e->card + e->card_got, sizeof(e->card) - e->card_got, MSG_DONTWAIT)
                : recv(e->fd, &byte, sizeof(byte), MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        return;
    if (n < 0 && errno == ETIMEDOUT) {
        fell_silent(e);
        return;
    }
    if (n <= 0) {
        e->hung_up_ns = now_ns;
        return;
    }
    e->fd_ready = true; /* there may be more */
    if (!in_card) {
        take_notice(e, byte);
        return;
    }
    e->card_got += (size_t)n;
    if (e->card_got == sizeof(e->card))
        gw_ofi_take_card(e);
}

/* ---- stepping --------------------------------------------------------------------------------- */

/* While the owner leaves every receive unread, libfabric is not asked for more. */
static bool is_deaf(const struct gw_ofi_ep *e)
{
    return e->slot_posted > 0 && e->slot_done == e->slot_posted;
}

void gw_ofi_ep_step(struct gw_ofi_ep *e)
{
    if (e->state == GW_OFI_NEW && !e->revoked)
        gw_ofi_ep_open(e);
    uint64_t now_ns = gw_clock_ns();
    if (e->state != GW_OFI_NEW && e->rc == 0)
        look_at_fd(e, now_ns);
    ssize_t n = 0;
    bool heard = false;
    for (unsigned i = 0; e->ep && !is_deaf(e) && i < READS_MAX; i++) {
        n = take_completions(e);
        if (n <= 0)
            break;
        heard = true;
        gw_ofi_message_take(e);
    }
    if (n < 0 && e->rc == 0)
        gw_ofi_ep_fail_fabric(e, (int)n, "completion queue");
    if (e->ep)
        gw_ofi_receives_post(e);
    if (e->ep && e->state >= GW_OFI_HELLO)
        gw_ofi_queue_post(e);
    gw_ofi_message_take(e);
    if (e->hung_up_ns && heard)
        e->hung_up_ns = now_ns; /* its last words go on */
    if (e->hung_up_ns && e->rc == 0 && now_ns - e->hung_up_ns >= LAST_WORDS_NS)
        gw_ofi_ep_fail(e, -ECONNRESET, GW_CODE_PEER_LOST, "the peer closed the connection");
}

static int arm_time(struct gw_ofi_ep *e, struct pollfd *fds, uint64_t *wake_ns)
{
    e->doze_ns = e->moved ? GW_OFI_DOZE_MIN_NS : gw_min_u64(2 * e->doze_ns, DOZE_MAX_NS);
    e->moved = false;
    if (e->ep || e->hung_up_ns)
        *wake_ns = gw_min_u64(*wake_ns, gw_clock_ns() + e->doze_ns);
    if (e->hung_up_ns)
        return 0;
    fds[0] = (struct pollfd){.fd = e->fd, .events = POLLIN};
    return 1;
}

/* Both descriptors, if libfabric has nothing left to do and says so. */
static int arm_fds(struct gw_ofi_ep *e, struct pollfd *fds, uint64_t *wake_ns)
{
    struct fid *fid = &e->cq->fid;
    gw_ofi_enter(e->dom);
    int rc = fi_trywait(e->dom->fabric.fabric, &fid, 1);
    gw_ofi_leave(e->dom);
    if (rc != 0) {
        *wake_ns = 0;
        return 0;
    }
    *wake_ns = gw_min_u64(*wake_ns, gw_clock_ns() + SLEEP_MAX_NS);
    fds[0] = (struct pollfd){.fd = e->fd, .events = POLLIN};
    fds[1] = (struct pollfd){.fd = e->cq_fd, .events = POLLIN};
    return 2;
}

int gw_ofi_arm(struct gw_endpoint *ep, struct pollfd *fds, unsigned max, uint64_t *wake_ns)
{
    struct gw_ofi_ep *e = gw_ofi_ep_of(ep);
    gw_assert(max >= 2);
    if (e->rc == 0 && !atomic_load_explicit(&e->shut, memory_order_relaxed))
        gw_ofi_ep_step(e);
    bool something = gw_ofi_queue_reported(&e->queue) || gw_ofi_message_take(e);
    if (e->rc == 0 && !something && !atomic_load_explicit(&e->shut, memory_order_relaxed)) {
        if (e->cq_fd >= 0 && e->ep && e->state == GW_OFI_JOINED && !e->hung_up_ns)
            return arm_fds(e, fds, wake_ns);
        return arm_time(e, fds, wake_ns);
    }
    if (e->rc == 0 || !e->rc_was_told || something)
        *wake_ns = 0;
    return 0;
}

void gw_ofi_awake(struct gw_endpoint *ep, const struct pollfd *fds, unsigned count)
{
    struct gw_ofi_ep *e = gw_ofi_ep_of(ep);
    e->system_calls++; /* the owner's poll */
    for (unsigned i = 0; i < count; i++) {
        if (fds[i].fd == e->fd && fds[i].revents != 0)
            e->fd_ready = true;
    }
}

void gw_ofi_query(const struct gw_endpoint *ep, struct gw_ep_attr *attr)
{
    const struct gw_ofi_ep *e = (const struct gw_ofi_ep *)ep;
    bool bound = atomic_load_explicit(&e->dom->bound, memory_order_acquire);
    attr->flags = e->base.ops->flags | (bound && e->dom->fabric.pins ? GW_EP_PINS : 0);
    attr->put_bytes_max = GW_OFI_PUT_BYTES_MAX;
    attr->put_count_max = GW_OFI_WINDOW;
    attr->put_window = GW_OFI_WINDOW;
    attr->message_bytes_max = e->config.message_bytes_max;
    memcpy(attr->session, e->config.session, GW_SESSION_BYTES);
    attr->index = e->config.index;
    attr->rx_bytes = e->rx_bytes;
    attr->tx_bytes = e->tx_bytes;
    attr->system_calls = e->system_calls;
    attr->tx_pending = e->queue.open_count > 0;
    snprintf(attr->peer, sizeof(attr->peer), "%s", e->peer);
}

/* ---- closing ---------------------------------------------------------------------------------- */

void gw_ofi_close(struct gw_endpoint *ep)
{
    struct gw_ofi_ep *e = gw_ofi_ep_of(ep);
    close_fabric_ep(e);
    struct fid *const fids[] = {e->tx_mr ? &e->tx_mr->fid : NULL, e->rx_mr ? &e->rx_mr->fid : NULL,
                                e->cq ? &e->cq->fid : NULL, e->av ? &e->av->fid : NULL};
    for (size_t i = 0; i < sizeof(fids) / sizeof(fids[0]); i++)
        gw_ofi_fid_close(e->dom, fids[i]);
    close(e->fd);
    gw_ofi_queue_fini(&e->queue);
    gw_free(e->slots_memory);
    gw_free(e->message);
    gw_free(e);
}
