// SPDX-License-Identifier: MIT
/* What happens to an endpoint, seen by its owner: completions, the connection manager's events, the
 * device's events, a shutdown from another thread. All of it wakes one descriptor. The first reason to
 * end is kept; the queue pair is moved to ERROR, and the requests it had come back one by one. */
#include "core/base/bytes.h"
#include "transport/rdma/rdma.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define BATCH 32
/* Who never sleeps looks at the connection's events this often. */
#define LOOK_NS (5 * GW_NS_PER_MS)
/* A port that is down for longer is no hiccup; half of what a peer's silence is given by default. */
#define PORT_DOWN_NS GW_NS_PER_S
/* While the last requests of a queue in ERROR come back. */
#define QUIET_NS (GW_NS_PER_MS / 20)

/* ---- the end ---------------------------------------------------------------------------------------- */

void gw_rdma_to_error(struct gw_rdma_ep *e)
{
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_ERR};
    if (e->is_error)
        return;
    e->is_error = true;
    e->system_calls++;
    /* It fails where the device has gone, and with it what it could write. */
    (void)ibv_modify_qp(e->qp, &attr, IBV_QP_STATE);
    if (!e->is_tail_silent)
        return;
    /* So that the last request says when it is back. */
    struct ibv_send_wr wr = {
        .wr_id = e->posted, .opcode = IBV_WR_SEND, .send_flags = IBV_SEND_SIGNALED};
    struct ibv_send_wr *bad;
    e->records[e->posted % e->send_depth] = (struct gw_rdma_record){.work = GW_RDMA_MARK};
    if (ibv_post_send(e->qp, &wr, &bad) == 0)
        e->posted++;
}

int gw_rdma_fail(struct gw_rdma_ep *e, int rc, enum gw_code code, const char *hint,
                 const char *format, ...)
{
    char text[256];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    if (e->rc == 0) {
        e->rc = rc;
        gw_fail_code(&e->err, rc, code, "%s", text);
        gw_error_place(&e->err, "%s endpoint %u", e->peer, e->preface.index);
        if (hint[0])
            gw_error_hint(&e->err, "%s", hint);
    }
    gw_rdma_to_error(e);
    return e->rc;
}

bool gw_rdma_is_quiet(const struct gw_rdma_ep *e)
{
    return e->done == e->posted && e->rx_posted == 0;
}

void gw_rdma_wait_quiet(struct gw_rdma_ep *e, uint64_t deadline_ns)
{
    for (gw_rdma_reap(e); !gw_rdma_is_quiet(e) && gw_clock_ns() < deadline_ns; gw_rdma_reap(e))
        gw_clock_poll(NULL, 0, gw_clock_ns() + QUIET_NS);
}

/* ---- completions ------------------------------------------------------------------------------------ */

#define LINK_HINT                                                                                  \
    "is the peer's host up, and the link between? 'rdma link' and 'godwit doctor' at both ends"

#define PORT_HINT "is its cable or interface down? 'rdma link', 'ip link'"

static bool is_port_down(const struct gw_rdma_ep *e)
{
    struct ibv_port_attr attr;
    return atomic_load_explicit(&e->dom->port_down_ns, memory_order_relaxed) != 0 ||
           (ibv_query_port(e->dom->verbs, e->id->port_num, &attr) == 0 &&
            attr.state != IBV_PORT_ACTIVE);
}

static bool is_our_port_down(struct gw_rdma_ep *e)
{
    if (!is_port_down(e))
        return false;
    gw_rdma_fail(e, -ENETDOWN, GW_CODE_LINK_DOWN, PORT_HINT, "the port of %s is down",
                 e->dom->device);
    return true;
}

static void explain_status(struct gw_rdma_ep *e, const struct ibv_wc *wc)
{
    switch (wc->status) {
    case IBV_WC_WR_FLUSH_ERR: /* and nobody has told us of what */
        gw_rdma_fail(e, -ECONNRESET, GW_CODE_PEER_LOST, "the peer's log may say why",
                     "the connection's queue pair was stopped");
        break;
    case IBV_WC_RETRY_EXC_ERR:
    case IBV_WC_RESP_TIMEOUT_ERR:
        if (!is_our_port_down(e))
            gw_rdma_fail(e, -ETIMEDOUT, GW_CODE_PEER_SILENT, LINK_HINT,
                         "%s: the peer's device does not acknowledge", e->dom->device);
        break;
    case IBV_WC_RNR_RETRY_EXC_ERR:
        gw_rdma_fail(e, -EPROTO, GW_CODE_PROTOCOL, "use the same release at both ends",
                     "the peer broke the protocol: it has no receive where it said that it had");
        break;
    case IBV_WC_REM_ACCESS_ERR:
        gw_rdma_fail(
            e, -EACCES, GW_CODE_PROTOCOL,
            "a process that ends takes its memory back: is the peer there? Its log may say why",
            "the peer's device refused a put: its key or range is not, or no longer, lent");
        break;
    case IBV_WC_LOC_QP_OP_ERR: /* of rxe: a packet could not be sent; the port may be told to be down a moment later */
        if (!is_our_port_down(e))
            gw_rdma_fail(e, -ENETDOWN, GW_CODE_LINK_DOWN, PORT_HINT,
                         "%s: what was sent did not leave the device", e->dom->device);
        break;
    case IBV_WC_REM_INV_REQ_ERR:
    case IBV_WC_REM_OP_ERR:
    case IBV_WC_REM_ABORT_ERR:
        gw_rdma_fail(e, -EPROTO, GW_CODE_PROTOCOL, "use the same release at both ends",
                     "the peer's device refused a request: %s", ibv_wc_status_str(wc->status));
        break;
    default:
        gw_rdma_fail(e, -EIO, GW_CODE_IO, "", "%s: %s (vendor's code 0x%x)", e->dom->device,
                     ibv_wc_status_str(wc->status), wc->vendor_err);
    }
}

static void look(struct gw_rdma_ep *e, uint64_t now_ns);

static void take(struct gw_rdma_ep *e, const struct ibv_wc *wc)
{
    bool is_receive = (wc->wr_id & GW_RDMA_RECEIVE_BIT) != 0;
    if (is_receive)
        e->rx_posted--;
    if (wc->status != IBV_WC_SUCCESS) {
        if (!is_receive)
            e->failed = gw_min_u64(e->failed, wc->wr_id);
        /* A flush is a consequence, whose cause the other events may tell. */
        if (e->rc == 0 && wc->status == IBV_WC_WR_FLUSH_ERR)
            look(e, gw_clock_ns());
        if (e->rc == 0)
            explain_status(e, wc);
    }
    if (!is_receive)
        gw_rdma_done(e, wc->wr_id);
    else if (wc->status == IBV_WC_SUCCESS)
        gw_rdma_message_arrived(e, (uint32_t)(wc->wr_id & ~GW_RDMA_RECEIVE_BIT), wc->byte_len);
}

void gw_rdma_reap(struct gw_rdma_ep *e)
{
    struct ibv_wc wc[BATCH];
    int count;
    if (e->is_reaping) /* a failure looks for its cause: what has been read is taken first */
        return;
    e->is_reaping = true;
    do {
        count = ibv_poll_cq(e->cq, BATCH, wc);
        for (int i = 0; i < count; i++)
            take(e, &wc[i]);
    } while (count == BATCH);
    e->is_reaping = false;
    if (count < 0)
        gw_rdma_fail(e, -EIO, GW_CODE_IO, "", "%s: the completion queue cannot be read",
                     e->dom->device);
}

/* ---- events ----------------------------------------------------------------------------------------- */

static void completion_events(struct gw_rdma_ep *e)
{
    struct ibv_cq *cq;
    void *ctx;
    unsigned count = 0;
    while (count < 16 && ibv_get_cq_event(e->channel, &cq, &ctx) == 0)
        count++;
    e->system_calls += count + 1;
    if (count > 0)
        ibv_ack_cq_events(e->cq, count);
}

/* What the reader of the device's events has left for us (gw_rdma_domain_events). */
static void device_events(struct gw_rdma_ep *e)
{
    /* Pairs with the release in gw_rdma_domain_events(). */
    int event = atomic_exchange_explicit(&e->async, 0, memory_order_acquire);
    if (atomic_load_explicit(&e->dom->is_lost, memory_order_relaxed))
        gw_rdma_fail(e, -ENODEV, GW_CODE_DEVICE_LOST,
                     "what does the kernel's log say? 'rdma link' lists devices",
                     "the device %s is gone", e->dom->device);
    if (event == 0)
        return;
    gw_rdma_reap(e); /* a completion that failed says more */
    if (event - 1 == IBV_EVENT_QP_ACCESS_ERR)
        gw_rdma_fail(e, -EPROTO, GW_CODE_PROTOCOL, "",
                     "the peer broke the protocol: it wrote where nothing is lent to it");
    else if (event - 1 == IBV_EVENT_QP_REQ_ERR)
        gw_rdma_fail(e, -EPROTO, GW_CODE_PROTOCOL, "",
                     "the peer broke the protocol: its device sent a request that makes no sense");
    else
        gw_rdma_fail(e, -EIO, GW_CODE_IO, "", "%s: %s", e->dom->device,
                     ibv_event_type_str((enum ibv_event_type)(event - 1)));
}

static void port_watch(struct gw_rdma_ep *e, uint64_t now_ns)
{
    uint64_t down_ns = atomic_load_explicit(&e->dom->port_down_ns, memory_order_relaxed);
    if (down_ns != 0 && now_ns >= down_ns + PORT_DOWN_NS)
        gw_rdma_fail(e, -ENETDOWN, GW_CODE_LINK_DOWN, PORT_HINT,
                     "the port of %s has been down for a second", e->dom->device);
}

static void look(struct gw_rdma_ep *e, uint64_t now_ns)
{
    e->looked_ns = now_ns;
    if (e->is_linked) {
        gw_rdma_domain_events(e->dom);
        device_events(e);
    }
    gw_rdma_cm_events(e);
    if (e->rc == 0)
        port_watch(e, now_ns);
}

int gw_rdma_check(struct gw_rdma_ep *e)
{
    uint64_t now_ns = gw_clock_ns();
    gw_rdma_reap(e);
    if (e->rc == 0 && now_ns - e->looked_ns >= LOOK_NS)
        look(e, now_ns);
    /* Pairs with nothing: who shut us down has nothing to show us. */
    if (atomic_load_explicit(&e->shut, memory_order_relaxed)) {
        if (e->rc == 0)
            gw_rdma_fail(e, -ESHUTDOWN, GW_CODE_CANCELLED, "", "the endpoint was shut down");
        gw_rdma_reap(e);
        e->is_told = true;
        return -ESHUTDOWN;
    }
    gw_rdma_message_push(e);
    if (e->rc < 0)
        e->is_told = true;
    return e->rc;
}

/* ---- sleeping --------------------------------------------------------------------------------------- */

static bool is_ready(const struct gw_rdma_ep *e)
{
    if (e->ready_count > 0 || (e->messages_ready > 0 && !(e->rc < 0 && e->is_told)))
        return true;
    if (e->is_tx_starved && gw_rdma_message_has_room(e))
        return true;
    bool final = e->rc < 0 || atomic_load_explicit(&e->shut, memory_order_relaxed);
    return final && !e->is_told && e->put_count == 0;
}

int gw_rdma_arm(struct gw_endpoint *ep, struct pollfd *fds, unsigned max, uint64_t *wake_ns)
{
    struct gw_rdma_ep *e = gw_rdma_ep_of(ep);
    gw_assert(max >= 1);
    bool was_told = e->is_told;
    /* Ask, then look: what came before the question rings no bell. */
    e->system_calls++;
    if (ibv_req_notify_cq(e->cq, 0) != 0)
        gw_rdma_fail(e, -EIO, GW_CODE_IO, "", "%s: no notice of completions", e->dom->device);
    gw_rdma_check(e);
    e->is_told = was_told;
    bool goes_on = e->is_turn_over;
    e->is_turn_over = false;
    e->turn_bytes = 0;
    if (goes_on || is_ready(e)) {
        *wake_ns = 0;
        return 0;
    }
    if (e->rc < 0 && e->put_count == 0)
        return 0;
    uint64_t down_ns = atomic_load_explicit(&e->dom->port_down_ns, memory_order_relaxed);
    if (down_ns != 0)
        *wake_ns = gw_min_u64(*wake_ns, down_ns + PORT_DOWN_NS);
    fds[0] = (struct pollfd){.fd = e->epoll_fd, .events = POLLIN};
    return 1;
}

void gw_rdma_awake(struct gw_endpoint *ep, const struct pollfd *fds, unsigned count)
{
    struct gw_rdma_ep *e = gw_rdma_ep_of(ep);
    uint64_t rung;
    if (count == 0 || fds[0].fd != e->epoll_fd || fds[0].revents == 0)
        return;
    completion_events(e);
    e->system_calls += 2;
    (void)!read(e->wake_fd, &rung, sizeof(rung));
    look(e, gw_clock_ns());
}
