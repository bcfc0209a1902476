// SPDX-License-Identifier: MIT
/* An endpoint's objects and its queue pair's states: made, connected, stopped, taken apart. The queue
 * pair is on the domain's own context, so the states are ours to walk (the connection manager says with
 * what), and so are timeouts and retries: they are set for who must notice a dead peer in time.
 *
 * Stopping is the move to ERROR and the return of everything posted: while a posted receive has not come
 * back, the device may still be placing a packet (docs/decisions/0001, point 1). */
#include "core/base/alloc.h"
#include "core/base/bytes.h"
#include "transport/rdma/rdma.h"

#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define PEER_TIMEOUT_NS (2 * GW_NS_PER_S)
/* Seven would be for ever on some devices (decisions/0001, point 5). */
#define RETRIES 6
/* Wait before a peer asks again for a receive: code 12 is 0.64 ms; 0 would be 655 ms. */
#define RNR_TIMER 12
#define STOP_NS (2 * GW_NS_PER_S) /* never needed; then the queue pair is destroyed as it is */
#define LAST_WORDS_NS (50 * GW_NS_PER_MS) /* a few round trips */

/* ---- timeouts ---------------------------------------------------------------------------------------- */

/* The acknowledgement's timeout is 4.096 us * 2^code, and a device may take up to four times that. Twice
 * all tries fit into the peer's time; beats notice a death that takes longer. */
static uint8_t timeout_code(uint64_t peer_timeout_ns)
{
    uint8_t code = 18;
    while (code > 8 && (UINT64_C(4096) << code) * (RETRIES + 1) * 2 > peer_timeout_ns)
        code--;
    return code;
}

/* ---- making ------------------------------------------------------------------------------------------ */

static int lacks(const struct gw_rdma_ep *e, const char *what, struct gw_error *err)
{
    int rc = errno ? -errno : -EIO;
    return gw_fail(err, rc, "%s: %s", e->dom->device, what);
}

static int watch_fd(const struct gw_rdma_ep *e, int fd, struct gw_error *err)
{
    struct epoll_event event = {.events = EPOLLIN};
    if (epoll_ctl(e->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
        return gw_fail(err, -errno, "epoll");
    return 0;
}

static int new_bells(struct gw_rdma_ep *e, struct gw_error *err)
{
    e->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    e->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (e->epoll_fd < 0 || e->wake_fd < 0)
        return gw_fail(err, -errno, "no descriptor to sleep on");
    e->channel = ibv_create_comp_channel(e->dom->verbs);
    if (!e->channel)
        return lacks(e, "no completion channel", err);
    gw_rdma_count(GW_RDMA_COMP_CHANNEL, 1);
    int rc = gw_rdma_set_nonblocking(e->channel->fd, err);
    if (rc == 0)
        rc = watch_fd(e, e->channel->fd, err);
    if (rc == 0)
        rc = watch_fd(e, e->wake_fd, err);
    return rc;
}

static void destroy_queue(struct gw_rdma_ep *e)
{
    (void)ibv_destroy_cq(e->cq);
    gw_rdma_count(GW_RDMA_CQ, -1);
    e->cq = NULL;
}

/* Queues as deep as wanted, or half of that while the device refuses. */
static int new_queues(struct gw_rdma_ep *e, struct gw_error *err)
{
    uint32_t most = (uint32_t)e->dom->device_attr.max_qp_wr;
    uint32_t messages = e->tx_slots + 2; /* credits alone, and the mark */
    for (e->put_window = GW_RDMA_PUT_WINDOW; e->put_window >= 8; e->put_window /= 2) {
        e->send_depth = e->put_window + messages;
        if (e->send_depth > most && e->put_window > 8)
            continue;
        errno = 0;
        e->cq =
            ibv_create_cq(e->dom->verbs, (int)(e->send_depth + e->rx_slots), NULL, e->channel, 0);
        struct ibv_qp_init_attr attr = {.send_cq = e->cq,
                                        .recv_cq = e->cq,
                                        .qp_type = IBV_QPT_RC,
                                        .cap = {.max_send_wr = e->send_depth,
                                                .max_recv_wr = e->rx_slots,
                                                .max_send_sge = 1,
                                                .max_recv_sge = 1}};
        if (!e->cq)
            continue;
        gw_rdma_count(GW_RDMA_CQ, 1);
        e->qp = ibv_create_qp(e->dom->pd, &attr);
        if (e->qp) {
            gw_rdma_count(GW_RDMA_QP, 1);
            return 0;
        }
        int rc = errno;
        destroy_queue(e);
        errno = rc;
    }
    return lacks(e, "no queue pair", err);
}

static int new_rings(struct gw_rdma_ep *e, struct gw_error *err)
{
    e->records = gw_zalloc(e->send_depth, sizeof(*e->records));
    e->ready = gw_zalloc(e->put_window, sizeof(*e->ready));
    if (!e->records || !e->ready)
        return gw_fail(err, -ENOMEM, "queues of %u requests", e->send_depth);
    return 0;
}

int gw_rdma_ep_new(struct gw_rdma_domain *dom, const struct gw_wire_config *config,
                   struct rdma_cm_id *id, bool is_active, struct gw_rdma_ep **ep,
                   struct gw_error *err)
{
    struct gw_rdma_ep *e = gw_zalloc(1, sizeof(*e));
    if (!e)
        return gw_fail(err, -ENOMEM, "a new endpoint");
    e->base.ops = &gw_rdma_ops;
    e->err.struct_bytes = sizeof(e->err);
    e->epoll_fd = e->wake_fd = -1;
    e->failed = UINT64_MAX;
    e->flight_max = GW_RDMA_FLIGHT_MIN * 2;
    e->dom = dom;
    e->id = id;
    e->is_active = is_active;
    e->log = config->log ? config->log : dom->log;
    e->message_bytes_max =
        config->message_bytes_max ? config->message_bytes_max : GW_MESSAGE_BYTES_DEFAULT;
    e->peer_timeout_ns = config->peer_timeout_ns ? config->peer_timeout_ns : PEER_TIMEOUT_NS;
    e->preface.version = GW_PREFACE_VERSION;
    e->preface.index = config->index;
    e->preface.security = config->security;
    memcpy(e->preface.session, config->session, GW_SESSION_BYTES);
    gw_rdma_format(rdma_get_peer_addr(id), e->peer, sizeof(e->peer));
    int rc = gw_rdma_message_init(e, err);
    if (rc == 0)
        rc = new_bells(e, err);
    if (rc == 0)
        rc = new_queues(e, err);
    if (rc == 0)
        rc = new_rings(e, err);
    if (rc < 0) {
        e->id = NULL;
        gw_rdma_ep_close(&e->base);
        return rc;
    }
    *ep = e;
    return 0;
}

/* ---- states ------------------------------------------------------------------------------------------ */

static int walk(struct gw_rdma_ep *e, struct ibv_qp_attr *attr, int mask, const char *state,
                struct gw_error *err)
{
    int rc = ibv_modify_qp(e->qp, attr, mask);
    if (rc != 0)
        return gw_fail_code(err, -rc, GW_CODE_CONNECT, "%s: queue pair to %s: %s", e->dom->device,
                            state, strerror(rc));
    return 0;
}

static int ask(struct gw_rdma_ep *e, enum ibv_qp_state state, struct ibv_qp_attr *attr, int *mask,
               struct gw_error *err)
{
    *attr = (struct ibv_qp_attr){.qp_state = state};
    if (rdma_init_qp_attr(e->id, attr, mask) != 0)
        return lacks(e, "the connection manager has no attributes for the queue pair", err);
    return 0;
}

int gw_rdma_ep_init(struct gw_rdma_ep *e, struct gw_error *err)
{
    struct ibv_qp_attr attr;
    int mask;
    int rc = ask(e, IBV_QPS_INIT, &attr, &mask, err);
    if (rc < 0)
        return rc;
    attr.qp_access_flags = IBV_ACCESS_REMOTE_WRITE;
    rc = walk(e, &attr, mask | IBV_QP_ACCESS_FLAGS, "INIT", err);
    if (rc < 0)
        return rc;
    rc = gw_rdma_message_post(e);
    return rc < 0 ? gw_fail(err, rc, "%s: post receives", e->dom->device) : 0;
}

int gw_rdma_ep_ready(struct gw_rdma_ep *e, const struct gw_wire_config *config,
                     struct gw_error *err)
{
    struct ibv_qp_attr attr;
    int mask;
    int rc = ask(e, IBV_QPS_RTR, &attr, &mask, err);
    if (rc < 0)
        return rc;
    attr.min_rnr_timer = RNR_TIMER;
    rc = gw_rdma_check_gid(e, config, &attr, err);
    if (rc == 0)
        rc = walk(e, &attr, mask | IBV_QP_MIN_RNR_TIMER, "RTR", err);
    if (rc == 0)
        rc = ask(e, IBV_QPS_RTS, &attr, &mask, err);
    if (rc < 0)
        return rc;
    attr.timeout = timeout_code(e->peer_timeout_ns);
    attr.retry_cnt = RETRIES;
    attr.rnr_retry = RETRIES;
    return walk(e, &attr, mask | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY, "RTS", err);
}

int gw_rdma_ep_watch(struct gw_rdma_ep *e, struct gw_error *err)
{
    int rc = watch_fd(e, e->events->fd, err);
    if (rc == 0)
        rc = watch_fd(e, e->dom->verbs->async_fd, err);
    if (rc < 0)
        return rc;
    pthread_mutex_lock(&e->dom->endpoints_lock);
    e->next = e->dom->endpoints;
    e->dom->endpoints = e;
    pthread_mutex_unlock(&e->dom->endpoints_lock);
    e->is_linked = true;
    return 0;
}

/* ---- the end ----------------------------------------------------------------------------------------- */

void gw_rdma_ep_revoke(struct gw_endpoint *ep)
{
    struct gw_rdma_ep *e = gw_rdma_ep_of(ep);
    e->is_revoked = true;
    gw_rdma_reap(e); /* what had arrived stays to be heard */
    gw_rdma_fail(e, -ESHUTDOWN, GW_CODE_CANCELLED, "",
                 "revoked: the peer can place nothing here, and nothing can be said any more");
    gw_rdma_wait_quiet(e, gw_clock_ns() + STOP_NS);
}

void gw_rdma_ep_shutdown(struct gw_endpoint *ep)
{
    struct gw_rdma_ep *e = gw_rdma_ep_of(ep);
    /* The owner looks at it after the bell, or whenever it does anything. */
    atomic_store_explicit(&e->shut, true, memory_order_relaxed);
    (void)!write(e->wake_fd, &(uint64_t){1}, sizeof(uint64_t));
}

static void unlink_ep(struct gw_rdma_ep *e)
{
    if (!e->is_linked)
        return;
    pthread_mutex_lock(&e->dom->endpoints_lock);
    struct gw_rdma_ep **at = &e->dom->endpoints;
    while (*at != e)
        at = &(*at)->next;
    *at = e->next;
    pthread_mutex_unlock(&e->dom->endpoints_lock);
    e->is_linked = false;
}

/* What was said last is on its way: a moment for it to be acknowledged. */
static void last_words(struct gw_rdma_ep *e)
{
    uint64_t deadline_ns = gw_clock_ns() + LAST_WORDS_NS;
    for (gw_rdma_reap(e); e->rc == 0 && e->tx_sent < e->tx_filled && gw_clock_ns() < deadline_ns;
         gw_rdma_reap(e)) {
        gw_rdma_message_push(e);
        gw_clock_poll(NULL, 0, gw_clock_ns() + GW_NS_PER_MS / 10);
    }
}

static void destroy_queues(struct gw_rdma_ep *e)
{
    if (e->qp) {
        (void)ibv_destroy_qp(e->qp); /* on return nothing of ours is touched any more */
        gw_rdma_count(GW_RDMA_QP, -1);
    }
    if (e->cq)
        destroy_queue(e);
    if (e->channel) {
        (void)ibv_destroy_comp_channel(e->channel);
        gw_rdma_count(GW_RDMA_COMP_CHANNEL, -1);
    }
}

void gw_rdma_ep_close(struct gw_endpoint *ep)
{
    struct gw_rdma_ep *e = gw_rdma_ep_of(ep);
    if (e->qp) {
        if (e->is_linked && !atomic_load_explicit(&e->shut, memory_order_relaxed))
            last_words(e);
        gw_rdma_to_error(e);
        gw_rdma_wait_quiet(e, gw_clock_ns() + STOP_NS);
    }
    unlink_ep(e);
    destroy_queues(e);
    gw_rdma_message_fini(e);
    gw_rdma_id_free(e->id); /* tells the peer */
    gw_rdma_channel_free(e->events);
    if (e->epoll_fd >= 0)
        close(e->epoll_fd);
    if (e->wake_fd >= 0)
        close(e->wake_fd);
    gw_free(e->records);
    gw_free(e->ready);
    gw_free(e);
}

/* ---- asking ------------------------------------------------------------------------------------------- */

void gw_rdma_ep_query(const struct gw_endpoint *ep, struct gw_ep_attr *attr)
{
    const struct gw_rdma_ep *e = gw_rdma_ep_of(ep);
    attr->flags = gw_rdma_ops.flags;
    attr->put_bytes_max = GW_RDMA_PUT_BYTES_MAX;
    attr->put_count_max = e->put_window;
    attr->put_window = e->put_window;
    attr->message_bytes_max = e->message_bytes_max;
    memcpy(attr->session, e->preface.session, GW_SESSION_BYTES);
    attr->index = e->preface.index;
    attr->rx_bytes = e->rx_bytes;
    attr->tx_bytes = e->tx_bytes;
    attr->system_calls = e->system_calls;
    attr->tx_pending = e->tx_sent < e->tx_filled;
    snprintf(attr->peer, sizeof(attr->peer), "%s", e->peer);
}

int gw_rdma_ep_error(const struct gw_endpoint *ep, struct gw_error *err)
{
    struct gw_rdma_ep *e = gw_rdma_ep_of(ep);
    if (atomic_load_explicit(&e->shut, memory_order_relaxed))
        return gw_fail(err, -ESHUTDOWN, "the endpoint was shut down");
    if (e->rc < 0)
        gw_error_copy(err, &e->err);
    return e->rc;
}
