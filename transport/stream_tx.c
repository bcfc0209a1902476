// SPDX-License-Identifier: MIT
/* Sending on a stream. Puts gather in an open frame until it is full, a message follows, or the owner
 * has nothing to add; messages are copied into a ring. Frames and runs of messages stand in line in
 * posting order, and one sendmsg takes as many of them as 1024 vectors hold, straight from guest
 * memory. A frame's puts complete when the kernel has taken its last byte. On an error every put
 * that was accepted and not completed completes with it. */
#include "core/base/alloc.h"
#include "core/base/bytes.h"
#include "core/base/clock.h"
#include "transport/stream.h"

#include <sys/socket.h>

/* An owner that never sleeps hears nothing from poll: it tries again after this long. */
#define RETRY_NS GW_NS_PER_MS

int gw_tx_init(struct gw_stream *s)
{
    struct gw_stream_tx *tx = &s->tx;
    tx->ring_bytes =
        (size_t)GW_STREAM_QUEUE_BYTES + GW_FRAME_HEAD_BYTES + s->config.message_bytes_max;
    tx->ring = gw_zalloc(1, tx->ring_bytes);
    tx->ready = true;
    return tx->ring ? 0 : -ENOMEM;
}

void gw_tx_fini(struct gw_stream *s)
{
    gw_free(s->tx.ring);
}

bool gw_tx_has_completion(const struct gw_stream *s)
{
    return s->tx.frames[s->tx.done].state == FRAME_DONE;
}

bool gw_tx_is_pending(const struct gw_stream *s)
{
    return s->tx.item_count > 0 || s->tx.frames[s->tx.fill].state == FRAME_OPEN;
}

static struct gw_tx_item *item_at(struct gw_stream_tx *tx, unsigned i)
{
    return &tx->items[(tx->item_first + i) % GW_STREAM_ITEMS];
}

static struct gw_tx_item *item_add(struct gw_stream_tx *tx)
{
    gw_assert(tx->item_count < GW_STREAM_ITEMS);
    struct gw_tx_item *item = item_at(tx, tx->item_count++);
    *item = (struct gw_tx_item){.frame = NULL};
    return item;
}

/* ---- frames ---- */

static void seal(struct gw_stream_tx *tx)
{
    struct gw_tx_frame *f = &tx->frames[tx->fill];
    if (f->state != FRAME_OPEN)
        return;
    struct gw_frame_head head = {
        .kind = GW_FRAME_PUT, .entry_count = (uint16_t)f->count, .payload_bytes = f->payload_bytes};
    gw_frame_head_encode(&head, f->head);
    f->iov[0].iov_base = f->head;
    f->iov[0].iov_len = GW_FRAME_HEAD_BYTES + (size_t)f->count * GW_FRAME_ENTRY_BYTES;
    f->state = FRAME_QUEUED;
    item_add(tx)->frame = f;
    tx->fill = (tx->fill + 1) % GW_STREAM_FRAMES;
}

static void frame_open(struct gw_tx_frame *f)
{
    f->state = FRAME_OPEN;
    f->count = f->iov_next = f->reported = 0;
    f->payload_bytes = 0;
    f->status = 0;
}

static void frame_add(struct gw_tx_frame *f, const struct gw_put *put)
{
    const struct gw_stream_rmr *rmr = (const struct gw_stream_rmr *)put->rmr;
    struct gw_frame_entry entry = {
        .region = rmr->region, .bytes = put->bytes, .offset = put->offset};
    gw_frame_entry_encode(&entry,
                          f->head + GW_FRAME_HEAD_BYTES + (size_t)f->count * GW_FRAME_ENTRY_BYTES);
    f->cookies[f->count] = put->cookie;
    f->count++;
    /* sendmsg reads only; struct iovec has no const. */
    f->iov[f->count].iov_base = (void *)(uintptr_t)put->local;
    f->iov[f->count].iov_len = put->bytes;
    f->payload_bytes += put->bytes;
}

static bool put_is_valid(const struct gw_put *put)
{
    const struct gw_stream_rmr *rmr = (const struct gw_stream_rmr *)put->rmr;
    return put->bytes >= 1 && put->bytes <= GW_FRAME_PAYLOAD_MAX &&
           gw_range_is_inside(put->offset, put->bytes, rmr->bytes);
}

int gw_stream_put(struct gw_endpoint *ep, const struct gw_put *puts, unsigned count)
{
    struct gw_stream *s = gw_stream_of(ep);
    struct gw_stream_tx *tx = &s->tx;
    int rc = gw_stream_check(s);
    if (rc < 0)
        return rc;

    unsigned accepted = 0;
    if (count > GW_FRAME_ENTRIES_MAX)
        count = GW_FRAME_ENTRIES_MAX;
    while (accepted < count) {
        const struct gw_put *put = &puts[accepted];
        struct gw_tx_frame *f = &tx->frames[tx->fill];
        if (!put_is_valid(put)) {
            if (accepted == 0)
                return -EINVAL;
            break;
        }
        if (f->state == FRAME_FREE)
            frame_open(f);
        if (f->state != FRAME_OPEN)
            break;
        if (f->count == GW_FRAME_ENTRIES_MAX ||
            f->payload_bytes + (uint64_t)put->bytes > GW_FRAME_PAYLOAD_MAX) {
            seal(tx);
            continue;
        }
        frame_add(f, put);
        accepted++;
    }
    if (tx->frames[tx->fill].count == GW_FRAME_ENTRIES_MAX ||
        tx->frames[tx->fill].payload_bytes == GW_FRAME_PAYLOAD_MAX)
        seal(tx);
    tx->put_since_poll |= accepted > 0;
    gw_tx_step(s, false);
    return (int)accepted;
}

/* ---- messages ---- */

static void ring_write(struct gw_stream_tx *tx, const void *data, size_t bytes)
{
    size_t at = (tx->ring_first + tx->ring_used) % tx->ring_bytes;
    size_t first = gw_min_u64(bytes, tx->ring_bytes - at);
    memcpy(tx->ring + at, data, first);
    memcpy(tx->ring, (const uint8_t *)data + first, bytes - first);
    tx->ring_used += bytes;
}

static void queue_message(struct gw_stream_tx *tx, const struct iovec *iov, int iov_count,
                          uint32_t bytes)
{
    uint8_t head[GW_FRAME_HEAD_BYTES];
    gw_frame_head_encode(&(struct gw_frame_head){.kind = GW_FRAME_MESSAGE, .payload_bytes = bytes},
                         head);
    ring_write(tx, head, sizeof(head));
    for (int i = 0; i < iov_count; i++) {
        if (iov[i].iov_len > 0)
            ring_write(tx, iov[i].iov_base, iov[i].iov_len);
    }
    struct gw_tx_item *last = tx->item_count ? item_at(tx, tx->item_count - 1) : NULL;
    if (!last || last->frame)
        last = item_add(tx);
    last->bytes += sizeof(head) + bytes;
}

int gw_stream_send(struct gw_endpoint *ep, const struct iovec *iov, int iov_count)
{
    struct gw_stream *s = gw_stream_of(ep);
    struct gw_stream_tx *tx = &s->tx;
    int rc = gw_stream_check(s);
    if (rc < 0)
        return rc;

    uint64_t bytes = 0;
    for (int i = 0; i < iov_count; i++) {
        if (iov[i].iov_len > s->config.message_bytes_max)
            return -EMSGSIZE;
        bytes += iov[i].iov_len;
    }
    if (bytes > s->config.message_bytes_max)
        return -EMSGSIZE;
    gw_tx_step(s, false);
    if (s->rc != 0)
        return gw_stream_check(s);
    if (tx->ring_used >= GW_STREAM_QUEUE_BYTES)
        return -EAGAIN;
    seal(tx);
    queue_message(tx, iov, iov_count, (uint32_t)bytes);
    gw_tx_step(s, false);
    return 0;
}

/* ---- the way out ---- */

static unsigned gather_frame(const struct gw_tx_frame *f, struct iovec *iov, unsigned room,
                             size_t *bytes)
{
    unsigned n = 0;
    for (unsigned i = f->iov_next; i <= f->count && n < room; i++) {
        iov[n++] = f->iov[i];
        *bytes += f->iov[i].iov_len;
    }
    return n;
}

static unsigned gather_ring(const struct gw_stream_tx *tx, size_t skip, size_t length,
                            struct iovec *iov, unsigned room, size_t *bytes)
{
    unsigned n = 0;
    size_t at = (tx->ring_first + skip) % tx->ring_bytes;
    while (length > 0 && n < room) {
        size_t piece = gw_min_u64(length, tx->ring_bytes - at);
        iov[n++] = (struct iovec){.iov_base = tx->ring + at, .iov_len = piece};
        *bytes += piece;
        length -= piece;
        at = 0;
    }
    return n;
}

static unsigned gather(struct gw_stream_tx *tx, size_t *bytes)
{
    const unsigned room = sizeof(tx->iov) / sizeof(tx->iov[0]);
    unsigned n = 0;
    size_t skip = 0;
    *bytes = 0;
    for (unsigned i = 0; i < tx->item_count && n < room; i++) {
        const struct gw_tx_item *item = item_at(tx, i);
        if (item->frame) {
            n += gather_frame(item->frame, tx->iov + n, room - n, bytes);
        } else {
            n += gather_ring(tx, skip, item->bytes, tx->iov + n, room - n, bytes);
            skip += item->bytes;
        }
    }
    return n;
}

/* The kernel took @n bytes of @f. Returns how many are left over for what follows it. */
static size_t consume_frame(struct gw_tx_frame *f, size_t n)
{
    while (f->iov_next <= f->count && n >= f->iov[f->iov_next].iov_len)
        n -= f->iov[f->iov_next++].iov_len;
    if (f->iov_next > f->count) {
        f->state = FRAME_DONE;
        return n;
    }
    f->iov[f->iov_next].iov_base = (uint8_t *)f->iov[f->iov_next].iov_base + n;
    f->iov[f->iov_next].iov_len -= n;
    return 0;
}

static void item_remove_first(struct gw_stream_tx *tx)
{
    tx->item_first = (tx->item_first + 1) % GW_STREAM_ITEMS;
    tx->item_count--;
}

static void consume(struct gw_stream_tx *tx, size_t n)
{
    while (n > 0) {
        struct gw_tx_item *item = item_at(tx, 0);
        if (item->frame) {
            n = consume_frame(item->frame, n);
            if (item->frame->state == FRAME_DONE)
                item_remove_first(tx);
            continue;
        }
        size_t taken = gw_min_u64(n, item->bytes);
        tx->ring_first = (tx->ring_first + taken) % tx->ring_bytes;
        tx->ring_used -= taken;
        item->bytes -= taken;
        n -= taken;
        if (item->bytes == 0)
            item_remove_first(tx);
    }
    if (tx->ring_used == 0)
        tx->ring_first = 0; /* keeps the touched part of the ring small */
}

/* True: everything asked for was taken. */
static bool hand_over(struct gw_stream *s)
{
    struct gw_stream_tx *tx = &s->tx;
    size_t bytes;
    struct msghdr message = {.msg_iov = tx->iov};
    message.msg_iovlen = gather(tx, &bytes);
    ssize_t n;
    do {
        n = sendmsg(s->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        s->system_calls++;
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        /* ENOBUFS passes by itself; with nothing queued poll would say writable at once, so the
         * retry waits for the clock like any other. */
        if (errno != EAGAIN && errno != EWOULDBLOCK && errno != ENOBUFS)
            gw_stream_fail_errno(s, errno, "send");
        return false;
    }
    s->tx_bytes += (uint64_t)n;
    consume(tx, (size_t)n);
    return (size_t)n == bytes;
}

void gw_tx_step(struct gw_stream *s, bool seal_open)
{
    struct gw_stream_tx *tx = &s->tx;
    if (seal_open)
        seal(tx);
    if (tx->item_count == 0 || s->rc != 0)
        return;
    uint64_t now = 0;
    if (!tx->ready) {
        now = gw_clock_ns();
        if (now - tx->tried_ns < RETRY_NS)
            return;
        tx->ready = true;
    }
    while (tx->ready && tx->item_count > 0)
        tx->ready = hand_over(s);
    if (!tx->ready)
        tx->tried_ns = now ? now : gw_clock_ns();
}

/* ---- completions ---- */

void gw_tx_flush(struct gw_stream *s)
{
    struct gw_stream_tx *tx = &s->tx;
    for (unsigned i = 0; i < GW_STREAM_FRAMES; i++) {
        struct gw_tx_frame *f = &tx->frames[i];
        if (f->state == FRAME_OPEN)
            tx->fill = (i + 1) % GW_STREAM_FRAMES;
        if (f->state == FRAME_OPEN || f->state == FRAME_QUEUED) {
            f->state = FRAME_DONE;
            f->status = s->rc;
        }
    }
    tx->item_count = 0;
    tx->ring_used = 0;
}

int gw_stream_poll(struct gw_endpoint *ep, struct gw_completion *done, unsigned max)
{
    struct gw_stream *s = gw_stream_of(ep);
    struct gw_stream_tx *tx = &s->tx;
    unsigned n = 0;

    if (gw_stream_check(s) == 0)
        gw_tx_step(s, !tx->put_since_poll);
    tx->put_since_poll = false;
    while (n < max && gw_tx_has_completion(s)) {
        struct gw_tx_frame *f = &tx->frames[tx->done];
        while (n < max && f->reported < f->count) {
            done[n].cookie = f->cookies[f->reported++];
            done[n].status = f->status;
            n++;
        }
        if (f->reported == f->count) {
            f->state = FRAME_FREE;
            f->count = 0;
            f->payload_bytes = 0;
            tx->done = (tx->done + 1) % GW_STREAM_FRAMES;
        }
    }
    return n == 0 && max > 0 && s->rc != 0 ? s->rc : (int)n;
}
