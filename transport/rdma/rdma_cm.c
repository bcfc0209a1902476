// SPDX-License-Identifier: MIT
/* Connecting: a name's addresses in turn, each for its share of the time; address, route, queue pair,
 * request with the preface, answer. And what the connection manager says of an endpoint that is
 * connected: the peer has gone, or the device. Identifiers live on non-blocking channels of their own,
 * so nothing here waits for anybody but gw_connect() (decisions/0001, point 10). */
#include "core/base/bytes.h"
#include "transport/rdma/rdma.h"

#include <netdb.h>
#include <stdio.h>
#include <string.h>

#define CONNECT_NS (10 * GW_NS_PER_S)
#define RESOLVE_MS_MAX 2000

/* ---- identifiers -------------------------------------------------------------------------------------- */

struct rdma_event_channel *gw_rdma_channel_new(struct gw_error *err)
{
    struct rdma_event_channel *channel = rdma_create_event_channel();
    if (!channel) {
        gw_fail_code(err, -errno, GW_CODE_UNSUPPORTED, "no RDMA connection manager: %s",
                     strerror(errno));
        gw_error_hint(err, "modprobe rdma_ucm, and see that /dev/infiniband/rdma_cm can be opened");
        return NULL;
    }
    gw_rdma_count(GW_RDMA_CM_CHANNEL, 1);
    if (gw_rdma_set_nonblocking(channel->fd, err) < 0) {
        gw_rdma_channel_free(channel);
        return NULL;
    }
    return channel;
}

void gw_rdma_channel_free(struct rdma_event_channel *channel)
{
    if (!channel)
        return;
    rdma_destroy_event_channel(channel);
    gw_rdma_count(GW_RDMA_CM_CHANNEL, -1);
}

int gw_rdma_id_new(struct rdma_event_channel *channel, void *ctx, struct rdma_cm_id **id,
                   struct gw_error *err)
{
    if (rdma_create_id(channel, id, ctx, RDMA_PS_TCP) != 0)
        return gw_fail(err, -errno, "no identifier of the RDMA connection manager");
    gw_rdma_count(GW_RDMA_CM_ID, 1);
    return 0;
}

void gw_rdma_id_free(struct rdma_cm_id *id)
{
    if (!id)
        return;
    (void)rdma_destroy_id(id);
    gw_rdma_count(GW_RDMA_CM_ID, -1);
}

/* ---- connected ---------------------------------------------------------------------------------------- */

static void read_events(struct gw_rdma_ep *e)
{
    struct rdma_cm_event *event;
    if (!e->events)
        return; /* still the listener's */
    e->system_calls++;
    while (rdma_get_cm_event(e->events, &event) == 0) {
        enum rdma_cm_event_type type = event->event;
        rdma_ack_cm_event(event);
        e->system_calls += 2;
        e->is_disconnected = e->is_disconnected || type == RDMA_CM_EVENT_DISCONNECTED;
        e->is_removed = e->is_removed || type == RDMA_CM_EVENT_DEVICE_REMOVAL;
        if (type == RDMA_CM_EVENT_ADDR_CHANGE)
            gw_log_info(e->log, "rdma", "%s endpoint %u: its address has changed", e->peer,
                        e->preface.index);
    }
}

void gw_rdma_cm_events(struct gw_rdma_ep *e)
{
    read_events(e);
    if (!e->is_disconnected && !e->is_removed)
        return;
    if (e->rc == 0)
        gw_rdma_reap(e); /* the peer's last words, and completions that say more */
    if (e->is_removed)
        gw_rdma_fail(e, -ENODEV, GW_CODE_DEVICE_LOST,
                     "was it unplugged, or deleted ('rdma link delete')?",
                     "the device %s was removed", e->dom->device);
    else
        gw_rdma_fail(e, -ECONNRESET, GW_CODE_PEER_LOST, "the peer's log may say why",
                     "the peer closed the connection");
}

/* ---- connecting --------------------------------------------------------------------------------------- */

struct attempt {
    const struct gw_wire_config *config;
    struct gw_rdma_domain *dom;
    struct rdma_event_channel *events;
    struct rdma_cm_id *id;
    struct gw_rdma_ep *ep; /* then it owns id and events */
    char to[128];
    uint64_t deadline_ns;
    int status; /* of the last event */
    uint8_t data[256];
    size_t data_bytes; /* of its private data */
};

static int timed_out(const struct attempt *a, const char *while_doing, struct gw_error *err)
{
    int rc = gw_fail_code(err, -ETIMEDOUT, GW_CODE_TIMEOUT, "%s: %s: nothing came in time", a->to,
                          while_doing);
    gw_error_hint(err, "does somebody listen there, and does RoCE traffic (UDP port 4791) pass?");
    return rc;
}

/* The next event, copied and acknowledged: its type, or a negative errno. */
static int next_event(struct attempt *a, const char *while_doing, struct gw_error *err)
{
    struct pollfd pfd = {.fd = a->events->fd, .events = POLLIN};
    struct rdma_cm_event *event;
    while (rdma_get_cm_event(a->events, &event) != 0) {
        if (errno != EAGAIN && errno != EINTR)
            return gw_fail(err, -errno, "%s: %s", a->to, while_doing);
        if (gw_clock_ns() >= a->deadline_ns)
            return timed_out(a, while_doing, err);
        int rc = gw_clock_poll(&pfd, 1, a->deadline_ns);
        if (rc < 0)
            return gw_fail(err, rc, "%s: %s", a->to, while_doing);
    }
    int type = (int)event->event;
    a->status = event->status;
    a->data_bytes = 0;
    if (event->param.conn.private_data &&
        (type == RDMA_CM_EVENT_CONNECT_RESPONSE || type == RDMA_CM_EVENT_REJECTED)) {
        a->data_bytes = gw_min_u64(event->param.conn.private_data_len, sizeof(a->data));
        memcpy(a->data, event->param.conn.private_data, a->data_bytes);
    }
    rdma_ack_cm_event(event);
    return type;
}

static struct gw_preface preface_of(const struct gw_wire_config *config)
{
    struct gw_preface preface = {
        .version = GW_PREFACE_VERSION, .index = config->index, .security = config->security};
    memcpy(preface.session, config->session, GW_SESSION_BYTES);
    return preface;
}

static int rejected(const struct attempt *a, struct gw_error *err)
{
    struct gw_preface preface = preface_of(a->config);
    int rc = gw_rdma_rejected(&preface, a->status, a->data, a->data_bytes, err);
    gw_error_prefix(err, "%s", a->to);
    return rc;
}

/* An event that is not the one that was waited for. */
static int unwanted(const struct attempt *a, int type, const char *while_doing,
                    struct gw_error *err)
{
    int rc = a->status < 0 ? a->status : -EHOSTUNREACH;
    switch (type) {
    case RDMA_CM_EVENT_REJECTED:
        return rejected(a, err);
    case RDMA_CM_EVENT_UNREACHABLE:
        return timed_out(a, while_doing, err);
    case RDMA_CM_EVENT_DEVICE_REMOVAL:
        return gw_fail_code(err, -ENODEV, GW_CODE_DEVICE_LOST, "%s: the RDMA device was removed",
                            a->to);
    default:
        rc =
            gw_fail_code(err, rc, GW_CODE_CONNECT, "%s: %s: %s", a->to, while_doing, strerror(-rc));
        gw_error_hint(
            err, "is the address routed through an RDMA device? 'godwit doctor rdma:...' looks");
        return rc;
    }
}

static int want(struct attempt *a, enum rdma_cm_event_type wanted, const char *while_doing,
                struct gw_error *err)
{
    int type = next_event(a, while_doing, err);
    if (type < 0)
        return type;
    return type == (int)wanted ? 0 : unwanted(a, type, while_doing, err);
}

static int called(const struct attempt *a, int rc, const char *while_doing, struct gw_error *err)
{
    if (rc == 0)
        return 0;
    rc = gw_fail_code(err, -errno, GW_CODE_CONNECT, "%s: %s: %s", a->to, while_doing,
                      strerror(errno));
    if (rc == -ENODEV)
        gw_error_hint(err, "no RDMA device leads there: 'rdma link' lists them, and their "
                           "interface's addresses are the ones to use");
    return rc;
}

static int resolve_ms(const struct attempt *a)
{
    uint64_t now_ns = gw_clock_ns();
    uint64_t left_ns = a->deadline_ns > now_ns ? a->deadline_ns - now_ns : 0;
    return (int)gw_min_u64(left_ns / GW_NS_PER_MS + 1, RESOLVE_MS_MAX);
}

static int resolve(struct attempt *a, const struct sockaddr *address, struct gw_error *err)
{
    struct sockaddr_storage from;
    int rc = gw_rdma_source(a->config, address->sa_family, &from, err);
    if (rc < 0)
        return rc;
    rc = rdma_resolve_addr(a->id, rc > 0 ? (struct sockaddr *)&from : NULL,
                           (struct sockaddr *)(uintptr_t)address, resolve_ms(a));
    rc = called(a, rc, "find the way", err);
    if (rc == 0)
        rc = want(a, RDMA_CM_EVENT_ADDR_RESOLVED, "find the way", err);
    if (rc == 0)
        rc = called(a, rdma_resolve_route(a->id, resolve_ms(a)), "find the path", err);
    if (rc == 0)
        rc = want(a, RDMA_CM_EVENT_ROUTE_RESOLVED, "find the path", err);
    return rc;
}

static int request(struct attempt *a, struct gw_error *err)
{
    struct gw_preface preface = preface_of(a->config);
    struct gw_rdma_hello hello = {.slot_bytes = a->ep->slot_bytes, .slots = a->ep->rx_slots};
    uint8_t data[GW_RDMA_HELLO_BYTES];
    gw_preface_encode(&preface, data);
    gw_rdma_hello_encode(&hello, data + GW_PREFACE_BYTES);
    struct rdma_conn_param param = {.private_data = data,
                                    .private_data_len = sizeof(data),
                                    .retry_count = 6,
                                    .rnr_retry_count = 6,
                                    .qp_num = a->ep->qp->qp_num};
    int rc = called(a, rdma_connect(a->id, &param), "connect", err);
    if (rc == 0)
        rc = want(a, RDMA_CM_EVENT_CONNECT_RESPONSE, "connect", err);
    if (rc < 0)
        return rc;
    struct gw_rdma_hello theirs = {.slots = 0};
    if (a->data_bytes < GW_RDMA_HELLO_BYTES)
        return gw_fail(err, -EPROTO, "%s: the peer does not speak godwit's protocol", a->to);
    rc = gw_answer_check(&preface, a->data, err);
    if (rc < 0) {
        gw_error_prefix(err, "%s", a->to);
        return rc;
    }
    if (gw_rdma_hello_decode(a->data + GW_PREFACE_BYTES, &theirs) < 0)
        return gw_fail(err, -EPROTO, "%s: the peer's answer makes no sense", a->to);
    gw_rdma_message_met(a->ep, &theirs);
    return 0;
}

/* What the connection manager says of a port that is down: no route, no device, no answer. */
static bool may_be_down(int rc)
{
    return rc == -ENETUNREACH || rc == -EHOSTUNREACH || rc == -ETIMEDOUT || rc == -ENODEV ||
           rc == -EADDRNOTAVAIL;
}

static int blame_port(const struct attempt *a, int rc, struct gw_error *err)
{
    struct gw_error why = GW_ERROR_INIT;
    if (!may_be_down(rc))
        return rc;
    int down = a->id && a->id->verbs ? gw_rdma_check_port(a->id->verbs, a->id->port_num, &why)
                                     : gw_rdma_check_ports(a->config->rdma_device, &why);
    if (down == 0)
        return rc;
    gw_error_prefix(&why, "%s", a->to);
    gw_error_copy(err, &why);
    return down;
}

/* One address, once. */
static int try_once(struct attempt *a, const struct sockaddr *address, struct gw_error *err)
{
    a->id = NULL;
    a->ep = NULL;
    a->events = gw_rdma_channel_new(err);
    if (!a->events)
        return err && err->rc < 0 ? err->rc : -ENODEV;
    int rc = gw_rdma_id_new(a->events, NULL, &a->id, err);
    if (rc == 0)
        rc = resolve(a, address, err);
    if (rc == 0)
        rc = gw_rdma_domain_bind(a->dom, a->id->verbs->device, err);
    if (rc == 0)
        rc = gw_rdma_ep_new(a->dom, a->config, a->id, true, &a->ep, err);
    if (rc == 0) {
        a->ep->events = a->events;
        rc = gw_rdma_ep_init(a->ep, err);
    }
    if (rc == 0)
        rc = request(a, err);
    if (rc == 0)
        rc = gw_rdma_ep_ready(a->ep, a->config, err);
    if (rc == 0)
        rc = called(a, rdma_establish(a->id), "establish the connection", err);
    if (rc == 0)
        rc = gw_rdma_ep_watch(a->ep, err);
    if (rc == 0)
        return 0;
    rc = blame_port(a, rc, err);
    if (a->ep) {
        gw_rdma_ep_close(&a->ep->base);
    } else {
        gw_rdma_id_free(a->id);
        gw_rdma_channel_free(a->events);
    }
    return rc;
}

int gw_rdma_look_up(const struct gw_uri *uri, int flags, struct addrinfo **list,
                    struct gw_error *err)
{
    char port[8];
    struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV | flags};
    snprintf(port, sizeof(port), "%u", uri->port);
    int rc = getaddrinfo(uri->host[0] ? uri->host : NULL, port, &hints, list);
    if (rc == 0)
        return 0;
    rc = gw_fail_code(err, -EHOSTUNREACH, GW_CODE_CONNECT, "%s: look up '%s': %s", uri->text,
                      uri->host, gai_strerror(rc));
    gw_error_hint(err, "check the name, or give the address itself");
    return rc;
}

int gw_rdma_connect(struct gw_domain *dom, const struct gw_uri *uri,
                    const struct gw_wire_config *config, struct gw_endpoint **ep,
                    struct gw_error *err)
{
    struct gw_error why = GW_ERROR_INIT;
    struct addrinfo *list = NULL;
    unsigned left = 0;
    uint64_t now_ns = gw_clock_ns();
    uint64_t deadline_ns = config->deadline_ns ? config->deadline_ns : now_ns + CONNECT_NS;
    struct attempt a = {.config = config, .dom = gw_rdma_domain_of(dom)};
    int rc = gw_rdma_probe(&why);
    if (rc == 0)
        rc = gw_rdma_look_up(uri, 0, &list, &why);
    for (struct addrinfo *ai = list; ai; ai = ai->ai_next)
        left++;
    for (struct addrinfo *ai = list; ai; ai = ai->ai_next, left--) {
        now_ns = gw_clock_ns();
        uint64_t share_ns = deadline_ns > now_ns ? (deadline_ns - now_ns) / left : 0;
        a.deadline_ns = now_ns + share_ns;
        gw_rdma_format(ai->ai_addr, a.to, sizeof(a.to));
        gw_error_clear(&why);
        rc = try_once(&a, ai->ai_addr, &why);
        if (rc == -ESTALE) /* a fresh queue pair has a fresh number */
            rc = try_once(&a, ai->ai_addr, &why);
        if (rc == 0)
            break;
    }
    if (list)
        freeaddrinfo(list);
    if (rc < 0) {
        gw_error_copy(err, &why);
        return rc;
    }
    *ep = &a.ep->base;
    return 0;
}
