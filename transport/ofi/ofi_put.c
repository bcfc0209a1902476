// SPDX-License-Identifier: MIT
/* Puts and their completions. A put is a write of libfabric's straight from the caller's memory to
 * where the peer's key says; none of our code touches its bytes (what a provider does with them, a
 * buffer of its own for short ones, is its business). Whether the peer's memory has it, only a message
 * behind it tells. */
#include "transport/ofi/ofi_impl.h"

#include "core/base/bytes.h"

static bool is_valid(const struct gw_put *put)
{
    const struct gw_ofi_rmr *rmr = (const struct gw_ofi_rmr *)put->rmr;
    return put->bytes >= 1 && put->bytes <= GW_OFI_PUT_BYTES_MAX &&
           gw_range_is_inside(put->offset, put->bytes, rmr->bytes);
}

static bool has_room(const struct gw_ofi_queue *q, uint32_t bytes)
{
    return q->put_count < GW_OFI_WINDOW &&
           (q->put_bytes == 0 || q->put_bytes + bytes <= GW_OFI_WINDOW_BYTES);
}

static void fill(struct gw_ofi_op *op, const struct gw_put *put)
{
    const struct gw_ofi_rmr *rmr = (const struct gw_ofi_rmr *)put->rmr;
    const struct gw_ofi_mr *mr = (const struct gw_ofi_mr *)put->mr;
    op->is_put = true;
    op->local = (void *)(uintptr_t)put->local; /* read only; struct iovec has no const */
    op->desc = mr && mr->mr ? fi_mr_desc(mr->mr) : NULL;
    op->bytes = put->bytes;
    op->at = rmr->at + put->offset;
    op->key = rmr->key;
    op->cookie = put->cookie;
}

int gw_ofi_put(struct gw_endpoint *ep, const struct gw_put *puts, unsigned count)
{
    struct gw_ofi_ep *e = gw_ofi_ep_of(ep);
    struct gw_ofi_queue *q = &e->queue;
    unsigned accepted = 0;
    int rc = gw_ofi_ep_check(e);
    if (rc < 0)
        return rc;
    if (count > 0 && (e->withdrawn || e->revoked))
        return gw_ofi_ep_fail(e, -ECONNRESET, GW_CODE_PEER_LOST,
                              e->revoked ? "puts were revoked" : "the peer takes no more puts");
    for (; accepted < count; accepted++) {
        const struct gw_put *put = &puts[accepted];
        if (!is_valid(put))
            break;
        struct gw_ofi_op *op = has_room(q, put->bytes) ? gw_ofi_queue_next(q) : NULL;
        if (!op)
            break;
        fill(op, put);
        gw_ofi_queue_commit(q);
    }
    if (accepted == 0 && count > 0 && !is_valid(puts))
        return -EINVAL;
    if (e->state >= GW_OFI_HELLO)
        gw_ofi_queue_post(e);
    return (int)accepted;
}

int gw_ofi_poll(struct gw_endpoint *ep, struct gw_completion *done, unsigned max)
{
    struct gw_ofi_ep *e = gw_ofi_ep_of(ep);
    struct gw_ofi_queue *q = &e->queue;
    struct gw_ofi_op *op;
    unsigned n = 0;
    if (gw_ofi_ep_check(e) == 0)
        gw_ofi_ep_step(e);
    while (n < max && (op = gw_ofi_queue_reported(q)) != NULL) {
        done[n].cookie = op->cookie;
        done[n].status = op->status;
        q->first++;
        q->put_count--;
        n++;
    }
    return n == 0 && max > 0 ? gw_ofi_ep_check(e) : (int)n;
}
