// SPDX-License-Identifier: MIT
/* What an endpoint was given to send, in order: puts, and the pieces of messages. An operation is queued
 * when it is accepted, posted when libfabric takes it, done when its completion comes; at the head of
 * the queue it is reported (a put) or forgotten (a piece). So a message leaves after the puts before
 * it, and a queue that is full is all that a slow peer can cost.
 *
 * Where a provider lets messages overtake writes, a piece waits until every put before it is done, and
 * puts are done only when they are delivered: FI_DELIVERY_COMPLETE is asked of each, because there is
 * nothing later of which it could be asked. */
#include "transport/ofi/ofi_impl.h"

#include "core/base/alloc.h"

static struct gw_ofi_op *op_at(const struct gw_ofi_queue *q, uint64_t number)
{
    return &q->ops[number % q->capacity];
}

int gw_ofi_queue_init(struct gw_ofi_ep *e)
{
    struct gw_ofi_queue *q = &e->queue;
    uint32_t longest = e->config.message_bytes_max / GW_OFI_PIECE_PAYLOAD + 1;
    q->piece_count = longest + GW_OFI_PIECES_MORE;
    q->capacity = GW_OFI_WINDOW + q->piece_count;
    q->ops = gw_zalloc(q->capacity, sizeof(q->ops[0]));
    q->pieces = gw_zalloc(q->piece_count, GW_OFI_PIECE_BYTES);
    q->free_pieces = gw_zalloc(q->piece_count, sizeof(q->free_pieces[0]));
    if (!q->ops || !q->pieces || !q->free_pieces)
        return -ENOMEM;
    while (q->free_count < q->piece_count) {
        q->free_pieces[q->free_count] = q->piece_count - 1 - q->free_count;
        q->free_count++;
    }
    return 0;
}

void gw_ofi_queue_fini(struct gw_ofi_queue *q)
{
    gw_free(q->ops);
    gw_free(q->pieces);
    gw_free(q->free_pieces);
}

/* ---- accepting ------------------------------------------------------------------------------- */

struct gw_ofi_op *gw_ofi_queue_next(struct gw_ofi_queue *q)
{
    return q->end - q->first < q->capacity ? op_at(q, q->end) : NULL;
}

void gw_ofi_queue_commit(struct gw_ofi_queue *q)
{
    struct gw_ofi_op *op = op_at(q, q->end++);
    op->state = GW_OFI_QUEUED;
    op->status = 0;
    q->open_count++;
    if (!op->is_put)
        return;
    q->put_count++;
    q->put_bytes += op->bytes;
}

uint8_t *gw_ofi_piece_take(struct gw_ofi_queue *q)
{
    gw_assert(q->free_count > 0);
    return q->pieces + (size_t)q->free_pieces[--q->free_count] * GW_OFI_PIECE_BYTES;
}

/* ---- posting --------------------------------------------------------------------------------- */

static ssize_t post_put(struct gw_ofi_ep *e, struct gw_ofi_op *op)
{
    struct iovec local = {.iov_base = op->local, .iov_len = op->bytes};
    struct fi_rma_iov remote = {.addr = op->at, .len = op->bytes, .key = op->key};
    struct fi_msg_rma message = {.msg_iov = &local,
                                 .desc = &op->desc,
                                 .iov_count = 1,
                                 .addr = e->to,
                                 .rma_iov = &remote,
                                 .rma_iov_count = 1,
                                 .context = &op->context};
    uint64_t level = e->dom->fabric.orders ? 0 : FI_DELIVERY_COMPLETE;
    return fi_writemsg(e->ep, &message, FI_COMPLETION | level);
}

static ssize_t post(struct gw_ofi_ep *e, struct gw_ofi_op *op)
{
    if (op->is_put)
        return post_put(e, op);
    void *desc = e->tx_mr ? fi_mr_desc(e->tx_mr) : NULL;
    return fi_send(e->ep, op->local, op->bytes, desc, e->to, &op->context);
}

void gw_ofi_queue_post(struct gw_ofi_ep *e)
{
    struct gw_ofi_queue *q = &e->queue;
    while (q->post < q->end) {
        struct gw_ofi_op *op = op_at(q, q->post);
        if (!op->is_put && q->put_posted > 0 && !e->dom->fabric.orders)
            return;
        gw_ofi_enter(e->dom);
        ssize_t rc = post(e, op);
        gw_ofi_leave(e->dom);
        if (rc == -FI_EAGAIN)
            return;
        if (rc < 0) {
            gw_ofi_ep_fail_fabric(e, (int)rc, op->is_put ? "write" : "send");
            return;
        }
        op->state = GW_OFI_POSTED;
        q->post++;
        q->put_posted += op->is_put;
        e->tx_bytes += op->bytes;
        e->moved = true;
    }
}

/* ---- completing ------------------------------------------------------------------------------ */

void gw_ofi_queue_done(struct gw_ofi_queue *q, struct gw_ofi_op *op, int status)
{
    gw_assert(op->state != GW_OFI_DONE);
    q->open_count--;
    if (op->is_put) {
        q->put_bytes -= op->bytes;
        q->put_posted -= op->state == GW_OFI_POSTED;
    } else {
        size_t piece = (size_t)((uint8_t *)op->local - q->pieces) / GW_OFI_PIECE_BYTES;
        q->free_pieces[q->free_count++] = (uint32_t)piece;
    }
    op->state = GW_OFI_DONE;
    op->status = status;
}

void gw_ofi_queue_flush(struct gw_ofi_queue *q, int status)
{
    for (uint64_t i = q->first; i < q->end; i++) {
        if (op_at(q, i)->state != GW_OFI_DONE)
            gw_ofi_queue_done(q, op_at(q, i), status);
    }
    q->post = q->end;
}

void gw_ofi_queue_trim(struct gw_ofi_queue *q)
{
    while (q->first < q->end) {
        const struct gw_ofi_op *op = op_at(q, q->first);
        if (op->is_put || op->state != GW_OFI_DONE)
            return;
        q->first++;
    }
}

struct gw_ofi_op *gw_ofi_queue_reported(struct gw_ofi_queue *q)
{
    gw_ofi_queue_trim(q);
    if (q->first == q->end || op_at(q, q->first)->state != GW_OFI_DONE)
        return NULL;
    return op_at(q, q->first);
}
