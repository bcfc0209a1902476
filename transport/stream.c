// SPDX-License-Identifier: MIT
/* The endpoint of a byte stream, after the preface: what its parts share. stream_tx.c sends, from guest
 * memory; stream_rx.c receives, into guest memory; here are the frames' layout, errors, and sleeping.
 *
 * A frame is a header of 16 bytes, a table (PUT only), a payload. Integers are big-endian.
 *
 *   header     0  2  magic 0x4757 ("GW")
 *              2  1  kind: 1 PUT, 2 MESSAGE
 *              3  1  flags, zero
 *              4  2  entries in the table: PUT 1..512, MESSAGE 0
 *              6  2  zero
 *              8  4  payload bytes: PUT 1..4 MiB, MESSAGE 0..the limit of the endpoint
 *             12  4  zero
 *   entry      0  4  region
 *              4  4  bytes, at least 1
 *              8  8  offset into the region
 *
 * A PUT's payload is its entries' bytes in the table's order; their sum is the header's payload
 * bytes. A MESSAGE's payload is the message. Frames follow each other without padding.
 *
 * System calls are what a stream costs, so none is made on suspicion: a direction is tried when
 * its last attempt was not cut short, when poll said so, or when a millisecond has passed (for an
 * owner that never sleeps). A final error stops sending at once; what had arrived before it is still
 * handed out by gw_recv, because the peer's last words tend to lie there. */
#include "transport/stream.h"

#include "core/base/alloc.h"
#include "core/base/bytes.h"
#include "core/base/clock.h"

#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#define PEER_TIMEOUT_NS (2 * GW_NS_PER_S)

/* ---- frames ---- */

void gw_frame_head_encode(const struct gw_frame_head *head, uint8_t bytes[GW_FRAME_HEAD_BYTES])
{
    memset(bytes, 0, GW_FRAME_HEAD_BYTES);
    gw_be16_store(bytes, GW_FRAME_MAGIC);
    bytes[2] = head->kind;
    gw_be16_store(bytes + 4, head->entry_count);
    gw_be32_store(bytes + 8, head->payload_bytes);
}

static int reject(const char **why, const char *text)
{
    *why = text;
    return -EPROTO;
}

int gw_frame_head_decode(const uint8_t bytes[GW_FRAME_HEAD_BYTES], uint32_t message_bytes_max,
                         struct gw_frame_head *head, const char **why)
{
    if (gw_be16_load(bytes) != GW_FRAME_MAGIC)
        return reject(why, "no frame begins here");
    if (bytes[3] != 0 || gw_be16_load(bytes + 6) != 0 || gw_be32_load(bytes + 12) != 0)
        return reject(why, "a reserved field is not zero");
    head->kind = bytes[2];
    head->entry_count = gw_be16_load(bytes + 4);
    head->table_bytes = (uint32_t)head->entry_count * GW_FRAME_ENTRY_BYTES;
    head->payload_bytes = gw_be32_load(bytes + 8);
    if (head->kind == GW_FRAME_MESSAGE) {
        if (head->entry_count != 0)
            return reject(why, "a message has a table");
        if (head->payload_bytes > message_bytes_max)
            return reject(why, "a message is longer than the limit");
        return 0;
    }
    if (head->kind != GW_FRAME_PUT)
        return reject(why, "the kind of frame is unknown");
    if (head->entry_count == 0 || head->entry_count > GW_FRAME_ENTRIES_MAX)
        return reject(why, "the table has no entry or more than 512");
    if (head->payload_bytes == 0 || head->payload_bytes > GW_FRAME_PAYLOAD_MAX)
        return reject(why, "the payload is empty or longer than 4 MiB");
    return 0;
}

void gw_frame_entry_encode(const struct gw_frame_entry *entry, uint8_t bytes[GW_FRAME_ENTRY_BYTES])
{
    gw_be32_store(bytes, entry->region);
    gw_be32_store(bytes + 4, entry->bytes);
    gw_be64_store(bytes + 8, entry->offset);
}

void gw_frame_entry_decode(const uint8_t bytes[GW_FRAME_ENTRY_BYTES], struct gw_frame_entry *entry)
{
    entry->region = gw_be32_load(bytes);
    entry->bytes = gw_be32_load(bytes + 4);
    entry->offset = gw_be64_load(bytes + 8);
}

/* ---- errors ---- */

int gw_stream_fail(struct gw_stream *s, int rc, enum gw_code code, const char *format, ...)
{
    if (s->rc != 0)
        return s->rc;
    char text[GW_ERROR_TEXT_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    if (atomic_load_explicit(&s->shut, memory_order_relaxed)) {
        /* Whatever the descriptor said, it said because of this. */
        rc = -ESHUTDOWN;
        code = GW_CODE_CANCELLED;
        snprintf(text, sizeof(text), "the endpoint was shut down");
    }
    s->rc = gw_fail_code(&s->err, rc, code, "%s", text);
    gw_error_place(&s->err, "%.64s endpoint %u", s->peer, s->config.index);
    gw_tx_flush(s);
    s->rx.ready = true; /* what lies there is read once more before the error is told */
    s->rx.resume_ns = 0;
    return rc;
}

int gw_stream_fail_errno(struct gw_stream *s, int error, const char *what)
{
    char number[128];
    switch (error) {
    case EPIPE:
    case ECONNRESET:
        return gw_stream_fail(s, -ECONNRESET, GW_CODE_PEER_LOST, "the peer closed the connection");
    case ETIMEDOUT:
        return gw_stream_fail(s, -ETIMEDOUT, GW_CODE_PEER_SILENT,
                              "the peer fell silent for %llu ms",
                              (unsigned long long)(s->config.peer_timeout_ns / GW_NS_PER_MS));
    case EHOSTUNREACH:
    case ENETUNREACH:
    case ENETDOWN:
        return gw_stream_fail(s, -error, GW_CODE_PEER_LOST, "the way to the peer was lost: %s",
                              strerror_r(error, number, sizeof(number)));
    default:
        return gw_stream_fail(s, -error, error == ENOMEM ? GW_CODE_NO_MEMORY : GW_CODE_IO, "%s: %s",
                              what, strerror_r(error, number, sizeof(number)));
    }
}

int gw_stream_check(struct gw_stream *s)
{
    if (atomic_load_explicit(&s->shut, memory_order_relaxed)) {
        gw_stream_fail(s, -ESHUTDOWN, GW_CODE_CANCELLED, "the endpoint was shut down");
        s->rx_rc = s->rc;
    }
    if (s->rc != 0)
        s->rc_was_told = true;
    return s->rc;
}

int gw_stream_error(const struct gw_endpoint *ep, struct gw_error *err)
{
    const struct gw_stream *s = (const struct gw_stream *)ep;
    if (s->rc != 0)
        gw_error_copy(err, &s->err);
    return s->rc;
}

/* ---- life ---- */

int gw_stream_new(const struct gw_transport_ops *ops, int fd, struct gw_domain *dom,
                  const struct gw_wire_config *config, const char *peer, struct gw_endpoint **ep,
                  struct gw_error *err)
{
    int rc = -ENOMEM;
    struct gw_stream *s = gw_zalloc(1, sizeof(*s));
    if (!s)
        goto out;
    s->base.ops = ops;
    s->fd = fd;
    s->dom = (struct gw_stream_domain *)dom;
    s->config = *config;
    s->err = (struct gw_error)GW_ERROR_INIT;
    if (s->config.message_bytes_max == 0)
        s->config.message_bytes_max = GW_MESSAGE_BYTES_DEFAULT;
    if (s->config.peer_timeout_ns == 0)
        s->config.peer_timeout_ns = PEER_TIMEOUT_NS;
    snprintf(s->peer, sizeof(s->peer), "%s", peer);
    rc = gw_tx_init(s);
    if (rc == 0)
        rc = gw_rx_init(s);
    if (rc < 0)
        goto out;
    *ep = &s->base;
    return 0;
out:
    if (s) {
        gw_tx_fini(s);
        gw_rx_fini(s);
        gw_free(s);
    }
    close(fd);
    return gw_fail(err, rc, "%s endpoint %u", peer, config->index);
}

void gw_stream_shutdown(struct gw_endpoint *ep)
{
    struct gw_stream *s = gw_stream_of(ep);
    atomic_store_explicit(&s->shut, true, memory_order_relaxed);
    /* Wakes an owner that sleeps on the descriptor: poll reports POLLHUP whatever it asked for. */
    shutdown(s->fd, SHUT_RDWR);
}

void gw_stream_revoke(struct gw_endpoint *ep)
{
    gw_stream_of(ep)->rx.revoked = true;
}

/* Closing with bytes unread makes TCP reset the connection, and a reset may overtake the last
 * message on its way to the peer: so say that no more will come, and take what lies there. */
static void close_politely(int fd)
{
    uint8_t waste[4096];
    shutdown(fd, SHUT_WR);
    for (int i = 0; i < 64; i++) {
        if (recv(fd, waste, sizeof(waste), MSG_DONTWAIT) <= 0)
            break;
    }
    close(fd);
}

void gw_stream_close(struct gw_endpoint *ep)
{
    struct gw_stream *s = gw_stream_of(ep);
    close_politely(s->fd);
    gw_tx_fini(s);
    gw_rx_fini(s);
    gw_free(s);
}

void gw_stream_query(const struct gw_endpoint *ep, struct gw_ep_attr *attr)
{
    const struct gw_stream *s = (const struct gw_stream *)ep;
    attr->flags = s->base.ops->flags;
    attr->put_bytes_max = GW_FRAME_PAYLOAD_MAX;
    attr->put_count_max = GW_FRAME_ENTRIES_MAX;
    attr->put_window = GW_STREAM_FRAMES * GW_FRAME_ENTRIES_MAX;
    attr->message_bytes_max = s->config.message_bytes_max;
    memcpy(attr->session, s->config.session, GW_SESSION_BYTES);
    attr->index = s->config.index;
    attr->rx_bytes = s->rx_bytes;
    attr->tx_bytes = s->tx_bytes;
    attr->system_calls = s->system_calls;
    attr->tx_pending = gw_tx_is_pending(s);
    snprintf(attr->peer, sizeof(attr->peer), "%s", s->peer);
}

/* ---- sleeping ---- */

int gw_stream_arm(struct gw_endpoint *ep, struct pollfd *fds, unsigned max, uint64_t *wake_ns)
{
    struct gw_stream *s = gw_stream_of(ep);

    gw_assert(max >= 1);
    if (atomic_load_explicit(&s->shut, memory_order_relaxed) && s->rc == 0)
        goto ready;
    if (s->rc != 0) {
        if (!s->rc_was_told || gw_tx_has_completion(s))
            goto ready;
        return 0; /* everything has been said: there is nothing left to wait for */
    }
    gw_tx_step(s, true);
    if (s->rc != 0 || gw_tx_has_completion(s) || gw_rx_is_ready(s))
        goto ready;

    fds[0] = (struct pollfd){.fd = s->fd};
    if (gw_tx_is_pending(s))
        fds[0].events |= POLLOUT;
    if (s->rx.resume_ns == 0)
        fds[0].events |= POLLIN;
    else
        *wake_ns = gw_min_u64(*wake_ns, s->rx.resume_ns);
    return 1;
ready:
    *wake_ns = 0;
    return 0;
}

void gw_stream_awake(struct gw_endpoint *ep, const struct pollfd *fds, unsigned count)
{
    struct gw_stream *s = gw_stream_of(ep);
    short revents = 0;

    for (unsigned i = 0; i < count; i++) {
        if (fds[i].fd == s->fd)
            revents |= fds[i].revents;
    }
    if (count > 0)
        s->system_calls++; /* the owner's poll */
    if (revents & (POLLIN | POLLHUP | POLLERR | POLLNVAL)) {
        s->rx.ready = true;
        s->rx.resume_ns = 0;
    }
    if (revents & (POLLOUT | POLLHUP | POLLERR | POLLNVAL))
        s->tx.ready = true;
}
