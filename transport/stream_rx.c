// SPDX-License-Identifier: MIT
/* Receiving on a stream. A frame's header and table are checked whole before a byte of its payload is
 * read; then readv places the payload straight into the regions, and the next header with it, so a
 * stream of full frames costs one read of a table and a few of payload each. Nothing is read ahead
 * that could be payload, nothing is allocated for what a peer claims, and whatever does not fit is
 * final.
 *
 * While payload is on its way a poll would return for every few packets. So after a short read the
 * endpoint sleeps by the clock for about as long as the rest needs (GATHER_NS at most), and trusts the
 * descriptor again when that brought nothing. */
#include "core/base/alloc.h"
#include "core/base/bytes.h"
#include "core/base/clock.h"
#include "transport/stream.h"

#include <sys/socket.h>

/* An owner that never sleeps hears nothing from poll: it tries again after this long. */
#define RETRY_NS GW_NS_PER_MS
/* Loopback carries about 1 MiB in this time; a fence waits for it once at most. */
#define GATHER_NS UINT64_C(400000)
#define GATHER_NS_MIN UINT64_C(40000)
/* A wait that brought less than 1 GB/s is halved down to this, because a peer with a small socket
 * buffer fills it at once and then waits for us; one that brought more is lengthened again. */
#define GATHER_NS_SHORT UINT64_C(100000)
/* One gw_recv() reads at most about this much, so its owner can beat in between. */
#define STEP_BYTES_MAX (8u << 20)

int gw_rx_init(struct gw_stream *s)
{
    struct gw_stream_rx *rx = &s->rx;
    rx->ready = true;
    rx->gather_ns = GATHER_NS;
    rx->message = gw_zalloc(1, s->config.message_bytes_max);
    return rx->message ? 0 : -ENOMEM;
}

void gw_rx_fini(struct gw_stream *s)
{
    gw_free(s->rx.message);
}

bool gw_rx_is_ready(const struct gw_stream *s)
{
    const struct gw_stream_rx *rx = &s->rx;
    return rx->ready || rx->state == RX_MESSAGE_READY ||
           (rx->state == RX_HEAD && rx->head_got == GW_FRAME_HEAD_BYTES);
}

static int reject(struct gw_stream *s, const char *why)
{
    return gw_stream_fail(s, -EPROTO, GW_CODE_PROTOCOL, "a frame was refused: %s", why);
}

static int reject_entry(struct gw_stream *s, unsigned i, const char *why)
{
    const struct gw_frame_entry *e = &s->rx.entries[i];
    return gw_stream_fail(s, -EPROTO, GW_CODE_PROTOCOL,
                          "a put was refused: %s (entry %u of %u: region %u, %u bytes at %llu)",
                          why, i, s->rx.frame.entry_count, e->region, e->bytes,
                          (unsigned long long)e->offset);
}

/* ---- what a read brought ---- */

/* Counts and classifies one read: bytes, 0 for "later", or the endpoint's final error. */
static ssize_t note_read(struct gw_stream *s, ssize_t n, int error, size_t wanted)
{
    struct gw_stream_rx *rx = &s->rx;
    s->system_calls++;
    if (n > 0) {
        s->rx_bytes += (uint64_t)n;
        rx->ready = (size_t)n == wanted;
        if (!rx->ready)
            rx->tried_ns = gw_clock_ns();
        return n;
    }
    if (n == 0) {
        bool inside = rx->state != RX_HEAD || rx->head_got > 0;
        gw_stream_fail(s, -ECONNRESET, GW_CODE_PEER_LOST, "the peer closed the connection%s",
                       inside ? " in the middle of a frame" : "");
        return s->rc;
    }
    if (error == EINTR)
        return 0;
    rx->ready = false;
    rx->tried_ns = gw_clock_ns();
    if (error == EAGAIN || error == EWOULDBLOCK)
        return 0;
    gw_stream_fail_errno(s, error, "receive");
    return s->rc;
}

static ssize_t read_some(struct gw_stream *s, struct iovec *iov, unsigned count)
{
    size_t wanted = 0;
    for (unsigned i = 0; i < count; i++)
        wanted += iov[i].iov_len;
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = count};
    ssize_t n = recvmsg(s->fd, &message, MSG_DONTWAIT);
    return note_read(s, n, errno, wanted);
}

/* ---- PUT ---- */

/* What is left of each entry, at its address of now. */
static int resolve_locked(struct gw_stream *s, unsigned *bad, const char **why)
{
    struct gw_stream_rx *rx = &s->rx;
    for (unsigned i = rx->entry_next; i < rx->frame.entry_count; i++) {
        const struct gw_frame_entry *e = &rx->entries[i];
        uint8_t *at = gw_stream_region_at_locked(s->dom, e, why);
        if (!at) {
            *bad = i;
            return -EPROTO;
        }
        rx->iov[i].iov_base = at + (e->bytes - rx->iov[i].iov_len);
    }
    rx->regions_version = s->dom->regions_version;
    return 0;
}

static int check_table(struct gw_stream *s)
{
    struct gw_stream_rx *rx = &s->rx;
    const struct gw_place_ops *place = s->config.place;
    unsigned count = rx->frame.entry_count;
    uint64_t sum = 0;
    unsigned bad = 0;
    const char *why = "";

    for (unsigned i = 0; i < count; i++) {
        struct gw_frame_entry *e = &rx->entries[i];
        gw_frame_entry_decode(rx->table + (size_t)i * GW_FRAME_ENTRY_BYTES, e);
        if (e->bytes == 0)
            return reject_entry(s, i, "it is empty");
        sum += e->bytes;
        rx->iov[i].iov_len = e->bytes;
    }
    if (sum != rx->frame.payload_bytes)
        return reject(s, "the table's bytes are not the payload's");

    rx->entry_next = 0;
    pthread_rwlock_rdlock(&s->dom->regions_lock);
    int rc = resolve_locked(s, &bad, &why);
    pthread_rwlock_unlock(&s->dom->regions_lock);
    if (rc < 0)
        return reject_entry(s, bad, why);
    for (unsigned i = 0; place && place->check && i < count; i++) {
        const struct gw_frame_entry *e = &rx->entries[i];
        if (place->check(s->config.place_ctx, e->region, e->offset, e->bytes) < 0)
            return reject_entry(s, i, "the target does not take it");
    }
    rx->iov[count] = (struct iovec){.iov_base = rx->head, .iov_len = GW_FRAME_HEAD_BYTES};
    rx->payload_left = rx->frame.payload_bytes;
    rx->state = RX_PAYLOAD;
    return 0;
}

static int read_table(struct gw_stream *s)
{
    struct gw_stream_rx *rx = &s->rx;
    struct iovec iov = {.iov_base = rx->table + rx->table_got,
                        .iov_len = rx->frame.table_bytes - rx->table_got};
    ssize_t n = read_some(s, &iov, 1);
    if (n <= 0)
        return (int)n;
    rx->table_got += (size_t)n;
    return rx->table_got == rx->frame.table_bytes ? check_table(s) : 0;
}

static void placed(struct gw_stream *s, size_t n)
{
    struct gw_stream_rx *rx = &s->rx;
    const struct gw_place_ops *place = s->config.place;
    unsigned count = rx->frame.entry_count;

    rx->payload_left -= (uint32_t)gw_min_u64(n, rx->payload_left);
    while (rx->entry_next < count) {
        struct iovec *v = &rx->iov[rx->entry_next];
        if (n < v->iov_len) {
            v->iov_base = (uint8_t *)v->iov_base + n;
            v->iov_len -= n;
            return;
        }
        n -= v->iov_len;
        v->iov_len = 0;
        const struct gw_frame_entry *e = &rx->entries[rx->entry_next++];
        if (place && place->placed)
            place->placed(s->config.place_ctx, e->region, e->offset, e->bytes);
    }
    rx->head_got = n;
    rx->state = RX_HEAD;
}

static void let_gather(struct gw_stream_rx *rx, size_t brought)
{
    if (rx->waited_ns && brought < rx->waited_ns)
        rx->gather_ns = gw_max_u64(rx->gather_ns / 2, GATHER_NS_SHORT);
    else if (rx->waited_ns)
        rx->gather_ns = gw_min_u64(rx->gather_ns + rx->gather_ns / 8, GATHER_NS);
    rx->waited_ns = 0;

    /* Loopback and unix bring about 2 bytes a nanosecond; slower wires wake a little more often. */
    uint64_t span = gw_min_u64(rx->payload_left / 2, rx->gather_ns);
    if (rx->state != RX_PAYLOAD || span < GATHER_NS_MIN)
        return;
    rx->resume_ns = gw_clock_ns() + span;
    rx->waited_ns = span == rx->gather_ns ? span : 0; /* a tail's wait says nothing of the peer */
}

static int read_payload(struct gw_stream *s)
{
    struct gw_stream_rx *rx = &s->rx;
    unsigned bad = 0;
    const char *why = "";
    ssize_t n = 0;

    /* Held while the kernel writes there: gw_mr_dereg() waits for us, at most for one such read. */
    pthread_rwlock_rdlock(&s->dom->regions_lock);
    int rc = 0;
    if (rx->regions_version != s->dom->regions_version)
        rc = resolve_locked(s, &bad, &why);
    if (rc == 0)
        n = read_some(s, rx->iov + rx->entry_next, rx->frame.entry_count + 1 - rx->entry_next);
    pthread_rwlock_unlock(&s->dom->regions_lock);
    if (rc < 0)
        return reject_entry(s, bad, why);
    if (n <= 0)
        return (int)n;
    placed(s, (size_t)n);
    if (!rx->ready)
        let_gather(rx, (size_t)n);
    return 0;
}

/* ---- MESSAGE ---- */

static int read_message(struct gw_stream *s)
{
    struct gw_stream_rx *rx = &s->rx;
    size_t left = rx->frame.payload_bytes - rx->message_got;
    struct iovec iov[2] = {
        {.iov_base = rx->message + rx->message_got, .iov_len = left},
        {.iov_base = rx->head, .iov_len = GW_FRAME_HEAD_BYTES},
    };
    ssize_t n = read_some(s, iov, 2);
    if (n <= 0)
        return (int)n;
    if ((size_t)n < left) {
        rx->message_got += (size_t)n;
        return 0;
    }
    rx->message_got += left;
    rx->head_got = (size_t)n - left;
    rx->state = RX_MESSAGE_READY;
    return 0;
}

/* ---- frames ---- */

static int begin_frame(struct gw_stream *s)
{
    struct gw_stream_rx *rx = &s->rx;
    const char *why = "";
    if (gw_frame_head_decode(rx->head, s->config.message_bytes_max, &rx->frame, &why) < 0)
        return reject(s, why);
    rx->head_got = 0;
    if (rx->frame.kind == GW_FRAME_PUT) {
        rx->table_got = 0;
        rx->state = RX_TABLE;
        return 0;
    }
    rx->message_got = 0;
    rx->state = rx->frame.payload_bytes ? RX_MESSAGE : RX_MESSAGE_READY;
    return 0;
}

static int read_head(struct gw_stream *s)
{
    struct gw_stream_rx *rx = &s->rx;
    if (rx->head_got < GW_FRAME_HEAD_BYTES) {
        struct iovec iov = {.iov_base = rx->head + rx->head_got,
                            .iov_len = GW_FRAME_HEAD_BYTES - rx->head_got};
        ssize_t n = read_some(s, &iov, 1);
        if (n <= 0)
            return (int)n;
        rx->head_got += (size_t)n;
    }
    return rx->head_got == GW_FRAME_HEAD_BYTES ? begin_frame(s) : 0;
}

static int rx_step(struct gw_stream *s)
{
    struct gw_stream_rx *rx = &s->rx;
    if (rx->revoked && (rx->state == RX_TABLE || rx->state == RX_PAYLOAD))
        return reject(s, "a put came after its right to write was revoked");
    switch (rx->state) {
    case RX_HEAD:
        return read_head(s);
    case RX_TABLE:
        return read_table(s);
    case RX_PAYLOAD:
        return read_payload(s);
    case RX_MESSAGE:
        return read_message(s);
    case RX_MESSAGE_READY:
        break;
    }
    return 0;
}

/* Is it time to try a read? */
static bool may_try(struct gw_stream *s)
{
    struct gw_stream_rx *rx = &s->rx;
    if (gw_rx_is_ready(s))
        return true;
    uint64_t now = gw_clock_ns();
    if (now < (rx->resume_ns ? rx->resume_ns : rx->tried_ns + RETRY_NS))
        return false;
    rx->resume_ns = 0;
    return true;
}

static ssize_t deliver(struct gw_stream *s, void *buf, size_t bytes)
{
    struct gw_stream_rx *rx = &s->rx;
    size_t length = rx->frame.payload_bytes;
    if (length > bytes) {
        s->rx_rc = gw_stream_fail(s, -EMSGSIZE, GW_CODE_LIMIT,
                                  "a message of %zu bytes does not fit into %zu", length, bytes);
        return s->rx_rc;
    }
    if (length > 0)
        memcpy(buf, rx->message, length);
    rx->state = RX_HEAD;
    return (ssize_t)length;
}

ssize_t gw_stream_recv(struct gw_endpoint *ep, void *buf, size_t bytes)
{
    struct gw_stream *s = gw_stream_of(ep);
    struct gw_stream_rx *rx = &s->rx;
    uint64_t stop_at = s->rx_bytes + STEP_BYTES_MAX;

    if (atomic_load_explicit(&s->shut, memory_order_relaxed))
        gw_stream_check(s);
    while (s->rx_rc == 0 && rx->state != RX_MESSAGE_READY) {
        if (s->rx_bytes >= stop_at)
            return -EAGAIN;
        if (!may_try(s)) {
            if (s->rc == 0)
                return -EAGAIN;
            s->rx_rc = s->rc; /* sending failed earlier, and nothing is left to hand out */
            break;
        }
        if (rx_step(s) < 0) {
            s->rx_rc = s->rc;
            break;
        }
    }
    if (s->rx_rc != 0) {
        s->rc_was_told = true;
        return s->rx_rc;
    }
    return deliver(s, buf, bytes);
}
