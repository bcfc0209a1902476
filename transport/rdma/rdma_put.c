// SPDX-License-Identifier: MIT
/* Puts: RDMA writes straight from guest memory, linked into lists with one doorbell each, the last of a
 * list signalled. A completion speaks for all that was posted before it; after a failure each request
 * comes back flushed, signalled or not. Whoever accepted a put hears of it once, in order. */
#include "core/base/bytes.h"
#include "transport/rdma/rdma.h"

#include <string.h>

static struct gw_rdma_record *record_at(struct gw_rdma_ep *e, uint64_t number)
{
    return &e->records[number % e->send_depth];
}

/* ---- posting --------------------------------------------------------------------------------------- */

unsigned gw_rdma_post(struct gw_rdma_ep *e, unsigned count)
{
    struct ibv_send_wr *bad = NULL;
    gw_assert(count > 0 && e->posted + count - e->done <= e->send_depth);
    for (unsigned i = 0; i < count; i++) {
        e->wr[i].wr_id = e->posted + i;
        e->wr[i].next = i + 1 < count ? &e->wr[i + 1] : NULL;
    }
    e->wr[count - 1].send_flags |= IBV_SEND_SIGNALED;
    e->system_calls++;
    int rc = ibv_post_send(e->qp, e->wr, &bad);
    unsigned taken = rc == 0 ? count : bad ? (unsigned)(bad - e->wr) : 0;
    e->posted += taken;
    if (rc != 0) {
        e->is_tail_silent = e->is_tail_silent || taken > 0;
        gw_rdma_fail(e, -EIO, GW_CODE_IO, "", "post to the send queue: %s", strerror(rc));
    }
    return taken;
}

/* Fill wr[at] from @put. 0 or -EINVAL. */
static int fill(struct gw_rdma_ep *e, unsigned at, const struct gw_put *put)
{
    const struct gw_rdma_rmr *rmr = (const struct gw_rdma_rmr *)put->rmr;
    const struct gw_rdma_mr *mr = (const struct gw_rdma_mr *)put->mr;
    if (put->bytes == 0 || put->bytes > GW_RDMA_PUT_BYTES_MAX ||
        !gw_range_is_inside(put->offset, put->bytes, rmr->bytes))
        return -EINVAL;
    uint64_t from = (uint64_t)((const uint8_t *)put->local - mr->addr);
    gw_assert(mr->dom == e->dom && gw_range_is_inside(from, put->bytes, mr->bytes));
    e->sge[at] =
        (struct ibv_sge){.addr = mr->iova + from, .length = put->bytes, .lkey = mr->mr->lkey};
    e->wr[at] =
        (struct ibv_send_wr){.sg_list = &e->sge[at], .num_sge = 1, .opcode = IBV_WR_RDMA_WRITE};
    e->wr[at].wr.rdma.remote_addr = rmr->iova + put->offset;
    e->wr[at].wr.rdma.rkey = rmr->rkey;
    *record_at(e, e->posted + at) =
        (struct gw_rdma_record){.work = GW_RDMA_PUT, .bytes = put->bytes, .cookie = put->cookie};
    return 0;
}

/* Messages keep their part of the queue: puts are limited by a window of their own. On a software device
 * the post is the transmission, so what is taken in one turn is limited as well: an owner that puts all
 * the time must come to beat. */
static bool has_room(const struct gw_rdma_ep *e, unsigned more, uint64_t more_bytes)
{
    return e->put_count + more < e->put_window && e->put_bytes + more_bytes < e->flight_max;
}

/* As many of @puts as one list takes. How many, 0: none now, or -EINVAL for the first of them. */
static int put_list(struct gw_rdma_ep *e, const struct gw_put *puts, unsigned count)
{
    unsigned n = 0;
    uint64_t bytes = 0;
    e->is_turn_over = e->turn_bytes >= e->flight_max;
    while (n < count && n < GW_RDMA_PUT_LIST && !e->is_turn_over && has_room(e, n, bytes)) {
        int rc = fill(e, n, &puts[n]);
        if (rc < 0 && n == 0)
            return rc;
        if (rc < 0)
            break;
        bytes += puts[n++].bytes;
    }
    if (n == 0)
        return 0;
    record_at(e, e->posted + n - 1)->posted_ns = gw_clock_ns();
    unsigned posted = gw_rdma_post(e, n);
    while (n > posted)
        bytes -= puts[--n].bytes;
    e->put_count += posted;
    e->put_bytes += (uint32_t)bytes;
    e->turn_bytes += (uint32_t)bytes;
    e->tx_bytes += bytes;
    return (int)posted;
}

int gw_rdma_put(struct gw_endpoint *ep, const struct gw_put *puts, unsigned count)
{
    struct gw_rdma_ep *e = gw_rdma_ep_of(ep);
    unsigned taken = 0;
    int rc = gw_rdma_check(e);
    while (rc == 0 && taken < count) {
        int n = put_list(e, puts + taken, count - taken);
        if (n > 0)
            taken += (unsigned)n;
        else
            rc = e->rc < 0 ? e->rc : n;
        if (n == 0)
            break;
    }
    return taken > 0 ? (int)taken : rc;
}

/* ---- completions ------------------------------------------------------------------------------------ */

/* A list has taken so long: how much may be under way so that what follows is not late. */
static void judge_flight(struct gw_rdma_ep *e, uint64_t took_ns)
{
    uint64_t late_ns = e->peer_timeout_ns / 16;
    if (took_ns > late_ns)
        e->flight_max = (uint32_t)gw_max_u64(e->flight_max / 2, GW_RDMA_FLIGHT_MIN);
    else if (took_ns < late_ns / 4)
        e->flight_max = (uint32_t)gw_min_u64((uint64_t)e->flight_max * 2, GW_RDMA_FLIGHT_MAX);
}

void gw_rdma_done(struct gw_rdma_ep *e, uint64_t number)
{
    for (; e->done <= number; e->done++) {
        const struct gw_rdma_record *record = record_at(e, e->done);
        if (record->work != GW_RDMA_PUT) {
            gw_rdma_message_sent(e, record->work);
            continue;
        }
        e->put_bytes -= record->bytes;
        if (record->posted_ns != 0)
            judge_flight(e, gw_clock_ns() - record->posted_ns);
        gw_assert(e->ready_count < e->put_window && (e->done < e->failed || e->rc < 0));
        e->ready[(e->ready_first + e->ready_count++) % e->put_window] = (struct gw_completion){
            .cookie = record->cookie, .status = e->done < e->failed ? 0 : e->rc};
    }
}

int gw_rdma_poll(struct gw_endpoint *ep, struct gw_completion *done, unsigned max)
{
    struct gw_rdma_ep *e = gw_rdma_ep_of(ep);
    unsigned count = 0;
    int rc = gw_rdma_check(e);
    while (e->ready_count > 0 && count < max) {
        done[count++] = e->ready[e->ready_first];
        e->ready_first = (e->ready_first + 1) % e->put_window;
        e->ready_count--;
        e->put_count--;
    }
    if (count > 0)
        return (int)count;
    /* Those that the device has not given back yet are still lent. */
    return rc < 0 && e->put_count == 0 ? rc : 0;
}
