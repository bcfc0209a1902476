// SPDX-License-Identifier: MIT
/* Messages, cut into pieces of at most 8 KiB: a send of libfabric's each, into a receive that the peer
 * has posted. A piece says whose it is, its number, and how long its message is:
 *
 *    0  8  token, from the receiver's card
 *    8  4  number, counting from 0 on this endpoint, this way; piece 0 is the hello
 *   12  4  bytes of the whole message; 0xffffffff: a hello, which has none
 *   16     its bytes: 8176, and what is left in the last
 *
 * An RDM endpoint hears whoever knows its address, so a piece without our token is a stranger's: it is
 * dropped, and told once. With the token everything must fit, or the peer has broken the protocol.
 *
 * Receives complete in any order and are handed out in the order in which they were posted, which is
 * that of sending (FI_ORDER_SAS). While all of them hold pieces that the owner has not taken, nothing
 * more is asked of libfabric, so a peer that floods fills its own socket. */
#include "transport/ofi/ofi_impl.h"

#include "core/base/bytes.h"

#include <string.h>

#define HELLO UINT32_MAX

/* ---- sending --------------------------------------------------------------------------------- */

static size_t total_of(const struct iovec *iov, int iov_count, size_t max)
{
    size_t bytes = 0;
    for (int i = 0; i < iov_count; i++) {
        if (iov[i].iov_len > max - bytes)
            return SIZE_MAX;
        bytes += iov[i].iov_len;
    }
    return bytes;
}

struct reader {
    const struct iovec *iov;
    size_t skip;
};

static void read_bytes(struct reader *r, uint8_t *to, size_t bytes)
{
    while (bytes > 0) {
        size_t n = (size_t)gw_min_u64(bytes, r->iov->iov_len - r->skip);
        if (n > 0)
            memcpy(to, (const uint8_t *)r->iov->iov_base + r->skip, n);
        to += n;
        bytes -= n;
        r->skip += n;
        if (r->skip == r->iov->iov_len) {
            r->iov++;
            r->skip = 0;
        }
    }
}

/* There is room: a buffer and a place in the queue. */
static void add_piece(struct gw_ofi_ep *e, uint32_t total, struct reader *from, size_t bytes)
{
    struct gw_ofi_op *op = gw_ofi_queue_next(&e->queue);
    uint8_t *piece = gw_ofi_piece_take(&e->queue);
    gw_be64_store(piece, e->tx_token);
    gw_be32_store(piece + 8, e->tx_number++);
    gw_be32_store(piece + 12, total);
    if (bytes > 0)
        read_bytes(from, piece + GW_OFI_PIECE_HEAD, bytes);
    op->is_put = false;
    op->local = piece;
    op->bytes = (uint32_t)(GW_OFI_PIECE_HEAD + bytes);
    gw_ofi_queue_commit(&e->queue);
}

void gw_ofi_say_hello(struct gw_ofi_ep *e)
{
    gw_assert(e->tx_number == 0);
    add_piece(e, HELLO, NULL, 0);
}

static bool has_room(struct gw_ofi_queue *q, size_t pieces)
{
    gw_ofi_queue_trim(q);
    return pieces <= q->free_count && pieces <= q->capacity - (q->end - q->first);
}

int gw_ofi_send(struct gw_endpoint *ep, const struct iovec *iov, int iov_count)
{
    struct gw_ofi_ep *e = gw_ofi_ep_of(ep);
    int rc = gw_ofi_ep_check(e);
    if (rc < 0)
        return rc;
    size_t total = total_of(iov, iov_count, e->config.message_bytes_max);
    if (total == SIZE_MAX)
        return -EMSGSIZE;
    if (e->revoked || e->withdrawn)
        return 0; /* nobody hears it, and that is nobody's fault */
    size_t pieces = total ? (total + GW_OFI_PIECE_PAYLOAD - 1) / GW_OFI_PIECE_PAYLOAD : 1;
    if (e->state != GW_OFI_JOINED || !has_room(&e->queue, pieces)) {
        gw_ofi_ep_step(e);
        rc = gw_ofi_ep_check(e);
        if (rc < 0)
            return rc;
        if (e->state != GW_OFI_JOINED || !has_room(&e->queue, pieces))
            return -EAGAIN;
    }
    struct reader from = {.iov = iov};
    for (size_t left = total, i = 0; i < pieces; i++) {
        size_t bytes = (size_t)gw_min_u64(left, GW_OFI_PIECE_PAYLOAD);
        add_piece(e, (uint32_t)total, &from, bytes);
        left -= bytes;
    }
    gw_ofi_queue_post(e);
    return 0;
}

/* ---- receiving ------------------------------------------------------------------------------- */

static uint8_t *slot_bytes(struct gw_ofi_ep *e, uint32_t slot)
{
    return e->slots_memory + (size_t)slot * GW_OFI_PIECE_BYTES;
}

void gw_ofi_receives_post(struct gw_ofi_ep *e)
{
    while (e->ep && e->slot_posted < GW_OFI_RECEIVES) {
        uint32_t i = (e->slot_first + e->slot_posted) % GW_OFI_RECEIVES;
        void *desc = e->rx_mr ? fi_mr_desc(e->rx_mr) : NULL;
        e->slots[i].done = false;
        gw_ofi_enter(e->dom);
        ssize_t rc = fi_recv(e->ep, slot_bytes(e, i), GW_OFI_PIECE_BYTES, desc, FI_ADDR_UNSPEC,
                             &e->slots[i].context);
        gw_ofi_leave(e->dom);
        if (rc == -FI_EAGAIN)
            return;
        if (rc < 0) {
            gw_ofi_ep_fail_fabric(e, (int)rc, "post a receive");
            return;
        }
        e->slot_posted++;
    }
}

static int broken(struct gw_ofi_ep *e, const char *why)
{
    gw_ofi_ep_fail(e, -EPROTO, GW_CODE_PROTOCOL, "a message of the peer: %s", why);
    return -EPROTO;
}

static bool is_strange(struct gw_ofi_ep *e, const uint8_t *piece, uint32_t bytes)
{
    if (bytes >= GW_OFI_PIECE_HEAD && gw_be64_load(piece) == e->rx_token)
        return false;
    if (!e->strangers_told)
        gw_log_warn(e->config.log, "ofi",
                    "%s endpoint %u: a message that is not the peer's was dropped", e->peer,
                    e->config.index);
    e->strangers_told = true;
    return true;
}

static int take_hello(struct gw_ofi_ep *e, uint32_t number, uint32_t bytes)
{
    if (number != 0 || bytes != 0)
        return broken(e, "a hello where none belongs");
    e->hello_heard = true;
    gw_ofi_maybe_joined(e);
    return 0;
}

void gw_ofi_maybe_joined(struct gw_ofi_ep *e)
{
    if (e->state != GW_OFI_HELLO || !e->hello_heard)
        return;
    if (!e->connects)
        gw_ofi_say_hello(e);
    e->state = GW_OFI_JOINED;
    e->moved = true;
}

static int take_piece(struct gw_ofi_ep *e, const uint8_t *piece, uint32_t bytes)
{
    uint32_t number = gw_be32_load(piece + 8);
    uint32_t total = gw_be32_load(piece + 12);
    bytes -= GW_OFI_PIECE_HEAD;
    if (number != e->rx_number++)
        return broken(e, "one before it is missing");
    if (total == HELLO || number == 0)
        return total == HELLO ? take_hello(e, number, bytes) : broken(e, "no hello came first");
    if (total > e->config.message_bytes_max)
        return broken(e, "it is longer than the limit");
    if (e->message_begun && total != e->message_total)
        return broken(e, "its pieces differ about its length");
    if (!e->message_begun)
        e->message_got = 0;
    if (bytes != gw_min_u64(total - e->message_got, GW_OFI_PIECE_PAYLOAD))
        return broken(e, "a piece is not as long as it must be");
    e->message_begun = true;
    e->message_total = total;
    if (bytes > 0)
        memcpy(e->message + e->message_got, piece + GW_OFI_PIECE_HEAD, bytes);
    e->message_got += bytes;
    e->message_ready = e->message_got == total;
    return 0;
}

bool gw_ofi_message_take(struct gw_ofi_ep *e)
{
    while (!e->message_ready && e->slot_posted > 0 && e->slots[e->slot_first].done) {
        uint32_t slot = e->slot_first;
        uint32_t bytes = e->slots[slot].bytes;
        const uint8_t *piece = slot_bytes(e, slot);
        e->rx_bytes += bytes;
        if (!is_strange(e, piece, bytes) && take_piece(e, piece, bytes) < 0)
            return false;
        e->slots[slot].done = false;
        e->slot_done--;
        e->slot_first = (e->slot_first + 1) % GW_OFI_RECEIVES;
        e->slot_posted--;
        gw_ofi_receives_post(e);
    }
    return e->message_ready;
}

ssize_t gw_ofi_recv(struct gw_endpoint *ep, void *buf, size_t bytes)
{
    struct gw_ofi_ep *e = gw_ofi_ep_of(ep);
    int rc = gw_ofi_ep_check(e);
    if (rc == 0)
        gw_ofi_ep_step(e);
    /* A verdict of ours, or the owner's: what had arrived is not wanted any more. */
    if (e->rc != 0 && e->rc != -ECONNRESET && e->rc != -ETIMEDOUT)
        return gw_ofi_ep_check(e);
    if (!gw_ofi_message_take(e)) {
        rc = gw_ofi_ep_check(e);
        return rc < 0 ? rc : -EAGAIN;
    }
    if (e->message_total > bytes)
        return gw_ofi_ep_fail(e, -EMSGSIZE, GW_CODE_INTERNAL,
                              "a message of %u bytes does not fit the buffer of %zu",
                              e->message_total, bytes);
    uint32_t total = e->message_total;
    if (total > 0)
        memcpy(buf, e->message, total);
    e->message_ready = e->message_begun = false;
    e->moved = true;
    return (ssize_t)total;
}
