// SPDX-License-Identifier: MIT
/* The accepting side. Requests bring the preface in their private data, so what a stranger can make
 * wait here is an identifier, for a while: their number and their time are bounded, and the oldest goes
 * first. A request waits in "arrived" until it is admitted (GW_ADMIT_LATER leaves it there), then has a
 * queue pair and waits in "answered" until the peer has confirmed; then it is handed over, its
 * identifier moved to a channel of its own. A rejection carries the answer in its private data. */
#include "core/base/alloc.h"
#include "core/base/bytes.h"
#include "transport/rdma/rdma.h"

#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/queue.h>

#define BACKLOG 4096
#define WAITING_MAX 1024
#define EVENTS_PER_STEP 256 /* then the owner may do something else */
#define ADMIT_NS (5 * GW_NS_PER_S)
#define LATER_NS (20 * GW_NS_PER_MS) /* an owner that said LATER is asked again by then */

struct waiting {
    TAILQ_ENTRY(waiting) link;
    struct rdma_cm_id *id; /* its ep's, when there is one */
    struct gw_rdma_ep *ep;
    bool is_established;
    uint64_t deadline_ns;
    uint8_t data[GW_RDMA_HELLO_BYTES];
    size_t data_bytes;
    char peer[128];
};

TAILQ_HEAD(waiting_list, waiting); /* the oldest first */

struct rdma_listener {
    struct gw_listener base;
    struct rdma_event_channel *events;
    struct rdma_cm_id *id;
    const struct gw_log *log;
    char device[IBV_SYSFS_NAME_MAX]; /* the only one allowed; "": any */
    uint8_t security;
    uint64_t admit_ns;
    struct waiting_list arrived, answered;
    unsigned count;
    bool is_ready, is_lost;
    char uri[GW_URI_BYTES_MAX];
};

static struct rdma_listener *listener_of(struct gw_listener *ln)
{
    return (struct rdma_listener *)ln;
}

/* ---- who waits -------------------------------------------------------------------------------------- */

static struct waiting_list *list_of(struct rdma_listener *l, const struct waiting *w)
{
    return w->ep ? &l->answered : &l->arrived;
}

/* Forget it, with what it still has. */
static void drop(struct rdma_listener *l, struct waiting *w)
{
    TAILQ_REMOVE(list_of(l, w), w, link);
    if (w->ep)
        gw_rdma_ep_close(&w->ep->base);
    else
        gw_rdma_id_free(w->id); /* the connection manager rejects what was not answered */
    gw_free(w);
    l->count--;
}

static void drop_expired(struct rdma_listener *l, struct waiting_list *list, uint64_t now_ns)
{
    while (TAILQ_FIRST(list) && TAILQ_FIRST(list)->deadline_ns <= now_ns) {
        gw_log_info(l->log, "listener", "%s: dropped: not %s in time", TAILQ_FIRST(list)->peer,
                    list == &l->arrived ? "admitted" : "confirmed");
        drop(l, TAILQ_FIRST(list));
    }
}

/* @why: NULL, or what is told besides. */
static void answer_with(const struct waiting *w, const struct gw_preface *preface,
                        enum gw_admission admission, const struct gw_error *why)
{
    uint8_t bytes[GW_PREFACE_BYTES + GW_RDMA_REASON_BYTES];
    gw_answer_encode(preface, admission, bytes);
    if (why)
        gw_rdma_reason_encode(why, bytes + GW_PREFACE_BYTES);
    /* Gone already: nobody to tell. */
    (void)rdma_reject(w->id, bytes, why ? sizeof(bytes) : GW_PREFACE_BYTES);
}

static void refuse(struct rdma_listener *l, struct waiting *w, const struct gw_preface *preface,
                   enum gw_admission admission)
{
    gw_log_warn(l->log, "listener", "%s: refused: %s (endpoint %u, security %s)", w->peer,
                gw_admission_text(admission), preface->index, gw_security_name(preface->security));
    answer_with(w, preface, admission, NULL);
    drop(l, w);
}

/* ---- events ----------------------------------------------------------------------------------------- */

static void take(struct rdma_listener *l, struct rdma_cm_id *id, const uint8_t *data, size_t bytes,
                 uint64_t now_ns)
{
    struct waiting *w = gw_zalloc(1, sizeof(*w));
    gw_rdma_count(GW_RDMA_CM_ID, 1);
    if (l->count >= WAITING_MAX && TAILQ_FIRST(&l->arrived))
        drop(l, TAILQ_FIRST(&l->arrived));
    if (!w || l->count >= WAITING_MAX) {
        gw_log_warn(l->log, "listener", "a connection was dropped: %s",
                    w ? "too many wait for their peers" : "out of memory");
        gw_free(w);
        gw_rdma_id_free(id);
        return;
    }
    w->id = id;
    id->context = w;
    w->deadline_ns = now_ns + l->admit_ns;
    w->data_bytes = bytes;
    memcpy(w->data, data, bytes);
    gw_rdma_format(rdma_get_peer_addr(id), w->peer, sizeof(w->peer));
    TAILQ_INSERT_TAIL(&l->arrived, w, link);
    l->count++;
}

static void change(struct rdma_listener *l, struct waiting *w, enum rdma_cm_event_type type)
{
    switch (type) {
    case RDMA_CM_EVENT_ESTABLISHED:
        w->is_established = w->ep != NULL;
        break;
    case RDMA_CM_EVENT_DISCONNECTED:
        if (w->is_established) { /* what it said is still to be heard */
            w->ep->is_disconnected = true;
            break;
        }
        /* fall through */
    case RDMA_CM_EVENT_REJECTED:
    case RDMA_CM_EVENT_UNREACHABLE:
    case RDMA_CM_EVENT_CONNECT_ERROR:
    case RDMA_CM_EVENT_DEVICE_REMOVAL:
        gw_log_info(l->log, "listener", "%s: gave up before it was connected (%s)", w->peer,
                    rdma_event_str(type));
        drop(l, w);
        break;
    default:
        break;
    }
}

static void take_event(struct rdma_listener *l, struct rdma_cm_event *event, uint64_t now_ns)
{
    struct rdma_cm_id *id = event->id;
    enum rdma_cm_event_type type = event->event;
    uint8_t data[GW_RDMA_HELLO_BYTES];
    size_t bytes = 0;
    if (type == RDMA_CM_EVENT_CONNECT_REQUEST && event->param.conn.private_data) {
        bytes = gw_min_u64(event->param.conn.private_data_len, sizeof(data));
        memcpy(data, event->param.conn.private_data, bytes);
    }
    rdma_ack_cm_event(event);
    if (type == RDMA_CM_EVENT_CONNECT_REQUEST)
        take(l, id, data, bytes, now_ns);
    else if (id != l->id)
        change(l, id->context, type);
    else if (type == RDMA_CM_EVENT_DEVICE_REMOVAL)
        l->is_lost = true;
}

static int take_events(struct rdma_listener *l, uint64_t now_ns, struct gw_error *err)
{
    struct rdma_cm_event *event;
    l->is_ready = false;
    for (unsigned i = 0; i < EVENTS_PER_STEP; i++) {
        if (rdma_get_cm_event(l->events, &event) != 0) {
            if (errno == EAGAIN || errno == EINTR)
                return 0;
            return gw_fail_code(err, -errno, GW_CODE_LISTEN, "%s: accept: %s", l->uri,
                                strerror(errno));
        }
        take_event(l, event, now_ns);
    }
    l->is_ready = true;
    return 0;
}

/* ---- admission --------------------------------------------------------------------------------------- */

/* Everything that can be said about a request without asking anybody. */
static bool is_refused_at_sight(struct rdma_listener *l, struct waiting *w,
                                struct gw_preface *preface, struct gw_rdma_hello *hello)
{
    int rc = w->data_bytes < sizeof(w->data) ? -EPROTO : gw_preface_decode(w->data, preface);
    if (rc == -EPROTO) {
        gw_log_warn(l->log, "listener", "%s: dropped: it does not speak godwit's protocol",
                    w->peer);
        *preface = (struct gw_preface){.version = 0};
        answer_with(w, preface, GW_ADMIT_VERSION, NULL);
        drop(l, w);
        return true;
    }
    enum gw_admission admission = GW_ADMIT_OK;
    if (rc < 0 || gw_rdma_hello_decode(w->data + GW_PREFACE_BYTES, hello) < 0)
        admission = GW_ADMIT_VERSION;
    else if (preface->security != l->security)
        admission = GW_ADMIT_SECURITY;
    else if (preface->index >= GW_ENDPOINTS_MAX)
        admission = GW_ADMIT_INDEX;
    if (admission == GW_ADMIT_OK)
        return false;
    refuse(l, w, preface, admission);
    return true;
}

static int check_device(const struct rdma_listener *l, const struct waiting *w,
                        struct gw_error *err)
{
    const char *name = ibv_get_device_name(w->id->verbs->device);
    if (!l->device[0] || strcmp(l->device, name) == 0)
        return 0;
    return gw_fail(err, -EXDEV, "it came by %s, and rdma-device is %s", name, l->device);
}

/* A queue pair for it, and the answer. */
static int prepare(struct rdma_listener *l, struct waiting *w, const struct gw_preface *preface,
                   const struct gw_rdma_hello *hello, struct gw_domain *dom,
                   const struct gw_wire_config *config, struct gw_error *err)
{
    uint8_t data[GW_RDMA_HELLO_BYTES];
    struct gw_rdma_ep *ep;
    int rc = check_device(l, w, err);
    if (rc == 0)
        rc = gw_rdma_domain_bind(gw_rdma_domain_of(dom), w->id->verbs->device, err);
    if (rc < 0)
        return rc;
    rc = gw_rdma_ep_new(gw_rdma_domain_of(dom), config, w->id, false, &ep, err);
    if (rc < 0)
        return rc;
    TAILQ_REMOVE(&l->arrived, w, link);
    w->ep = ep;
    TAILQ_INSERT_TAIL(&l->answered, w, link);
    gw_rdma_message_met(ep, hello);
    rc = gw_rdma_ep_init(ep, err);
    if (rc == 0)
        rc = gw_rdma_ep_ready(ep, config, err);
    if (rc < 0)
        return rc;
    gw_answer_encode(preface, GW_ADMIT_OK, data);
    struct gw_rdma_hello ours = {.slot_bytes = ep->slot_bytes, .slots = ep->rx_slots};
    gw_rdma_hello_encode(&ours, data + GW_PREFACE_BYTES);
    struct rdma_conn_param param = {.private_data = data,
                                    .private_data_len = sizeof(data),
                                    .retry_count = 6,
                                    .rnr_retry_count = 6,
                                    .qp_num = ep->qp->qp_num};
    if (rdma_accept(w->id, &param) != 0)
        return gw_fail(err, -errno, "accept");
    w->deadline_ns = gw_clock_ns() + l->admit_ns;
    return 0;
}

static void admitted(struct rdma_listener *l, struct waiting *w, const struct gw_preface *preface,
                     const struct gw_rdma_hello *hello, struct gw_domain *dom,
                     struct gw_wire_config *config)
{
    struct gw_error why = GW_ERROR_INIT;
    memcpy(config->session, preface->session, GW_SESSION_BYTES);
    config->index = preface->index;
    config->security = preface->security;
    gw_assert(dom != NULL);
    if (prepare(l, w, preface, hello, dom, config, &why) == 0)
        return;
    gw_log_warn(l->log, "listener", "%s: endpoint %u: %s%s%s", w->peer, preface->index, why.message,
                why.hint[0] ? "; " : "", why.hint);
    answer_with(w, preface, GW_ADMIT_BUSY, &why);
    drop(l, w);
}

static void ask(struct rdma_listener *l, gw_admit_fn *admit, void *admit_ctx)
{
    struct waiting *next;
    for (struct waiting *w = TAILQ_FIRST(&l->arrived); w; w = next) {
        struct gw_preface preface;
        struct gw_rdma_hello hello;
        struct gw_domain *dom = NULL;
        struct gw_wire_config config = {.log = l->log};
        next = TAILQ_NEXT(w, link);
        if (is_refused_at_sight(l, w, &preface, &hello))
            continue;
        enum gw_admission admission = admit(admit_ctx, &preface, &dom, &config);
        if (admission == GW_ADMIT_OK)
            admitted(l, w, &preface, &hello, dom, &config);
        else if (admission != GW_ADMIT_LATER)
            refuse(l, w, &preface, admission);
    }
}

/* ---- handing over ------------------------------------------------------------------------------------- */

static int move_out(struct gw_rdma_ep *ep, struct gw_error *err)
{
    ep->events = gw_rdma_channel_new(err);
    if (!ep->events)
        return -ENODEV;
    if (rdma_migrate_id(ep->id, ep->events) != 0)
        return gw_fail(err, -errno, "a channel of its own");
    ep->id->context = NULL;
    return gw_rdma_ep_watch(ep, err);
}

static int hand_over(struct rdma_listener *l, struct gw_endpoint **ep)
{
    struct waiting *next;
    for (struct waiting *w = TAILQ_FIRST(&l->answered); w; w = next) {
        struct gw_error why = GW_ERROR_INIT;
        next = TAILQ_NEXT(w, link);
        if (!w->is_established)
            continue;
        if (move_out(w->ep, &why) < 0) {
            gw_log_warn(l->log, "listener", "%s: lost: %s", w->peer, why.message);
            drop(l, w);
            continue;
        }
        *ep = &w->ep->base;
        TAILQ_REMOVE(&l->answered, w, link);
        gw_free(w);
        l->count--;
        return 1;
    }
    return 0;
}

int gw_rdma_accept(struct gw_listener *ln, gw_admit_fn *admit, void *admit_ctx,
                   struct gw_endpoint **ep, struct gw_error *err)
{
    struct rdma_listener *l = listener_of(ln);
    uint64_t now_ns = gw_clock_ns();
    drop_expired(l, &l->arrived, now_ns);
    drop_expired(l, &l->answered, now_ns);
    int rc = take_events(l, now_ns, err);
    if (rc < 0)
        return rc;
    if (l->is_lost) {
        rc = gw_fail_code(err, -ENODEV, GW_CODE_DEVICE_LOST, "%s: the RDMA device was removed",
                          l->uri);
        gw_error_hint(err, "was it unplugged, or deleted ('rdma link delete')?");
        return rc;
    }
    ask(l, admit, admit_ctx);
    int got = hand_over(l, ep);
    if (got)
        l->is_ready = true; /* there may be more */
    return got;
}

int gw_rdma_listener_arm(struct gw_listener *ln, struct pollfd *fds, unsigned max,
                         uint64_t *wake_ns)
{
    struct rdma_listener *l = listener_of(ln);
    gw_assert(max >= 1);
    if (l->is_ready) {
        *wake_ns = 0;
        return 0;
    }
    if (TAILQ_FIRST(&l->arrived))
        *wake_ns = gw_min_u64(*wake_ns, gw_clock_ns() + LATER_NS);
    if (TAILQ_FIRST(&l->answered))
        *wake_ns = gw_min_u64(*wake_ns, TAILQ_FIRST(&l->answered)->deadline_ns);
    fds[0] = (struct pollfd){.fd = l->events->fd, .events = POLLIN};
    return 1;
}

void gw_rdma_listener_awake(struct gw_listener *ln, const struct pollfd *fds, unsigned count)
{
    (void)ln, (void)fds, (void)count; /* gw_accept() always looks */
}

/* ---- life --------------------------------------------------------------------------------------------- */

static void free_listener(struct rdma_listener *l)
{
    while (TAILQ_FIRST(&l->arrived))
        drop(l, TAILQ_FIRST(&l->arrived));
    while (TAILQ_FIRST(&l->answered))
        drop(l, TAILQ_FIRST(&l->answered));
    gw_rdma_id_free(l->id);
    gw_rdma_channel_free(l->events);
    gw_free(l);
}

const char *gw_rdma_listener_uri(const struct gw_listener *ln)
{
    return ((const struct rdma_listener *)ln)->uri;
}

void gw_rdma_listener_close(struct gw_listener *ln)
{
    free_listener(listener_of(ln));
}

static bool is_wildcard(const struct sockaddr *address)
{
    if (address->sa_family == AF_INET)
        return ((const struct sockaddr_in *)(const void *)address)->sin_addr.s_addr == INADDR_ANY;
    return IN6_IS_ADDR_UNSPECIFIED(
        &((const struct sockaddr_in6 *)(const void *)address)->sin6_addr);
}

static int cannot_listen(const struct gw_uri *uri, const struct gw_wire_config *config, int rc,
                         struct gw_error *err)
{
    struct sockaddr_storage usable;
    char text[128];
    gw_fail_code(err, rc, GW_CODE_LISTEN, "%s: listen: %s", uri->text,
                 rc == -ENODEV ? "no RDMA device has this address" : strerror(-rc));
    if (rc == -EADDRINUSE) {
        gw_error_hint(err,
                      "another program listens there: choose another port, or 0 for a free one");
    } else if (gw_rdma_any_address(config, &usable, NULL) == 0) {
        gw_rdma_format((struct sockaddr *)&usable, text, sizeof(text));
        gw_error_hint(err, "%s, for example, would do: it belongs to an RDMA device", text);
    }
    return rc;
}

static int listen_on(struct rdma_listener *l, const struct sockaddr *address)
{
    if (rdma_bind_addr(l->id, (struct sockaddr *)(uintptr_t)address) != 0)
        return -errno;
    return rdma_listen(l->id, BACKLOG) != 0 ? -errno : 0;
}

/* "rdma:address:port" as a peer can use it: for a wildcard, an address of some device. */
static int name_listener(struct rdma_listener *l, const struct gw_wire_config *config,
                         const struct sockaddr *asked, struct gw_error *err)
{
    struct sockaddr_storage address;
    memcpy(&address, rdma_get_local_addr(l->id), sizeof(address));
    if (is_wildcard(asked)) {
        int rc = gw_rdma_any_address(config, &address, err);
        if (rc < 0)
            return rc;
    }
    if (address.ss_family == AF_INET)
        ((struct sockaddr_in *)(void *)&address)->sin_port = rdma_get_src_port(l->id);
    else
        ((struct sockaddr_in6 *)(void *)&address)->sin6_port = rdma_get_src_port(l->id);
    gw_rdma_format((struct sockaddr *)&address, l->uri, sizeof(l->uri));
    return 0;
}

static int listen_at(struct rdma_listener *l, const struct gw_uri *uri,
                     const struct gw_wire_config *config, const struct sockaddr *address,
                     struct gw_error *err)
{
    int rc = gw_rdma_id_new(l->events, NULL, &l->id, err);
    if (rc < 0)
        return rc;
    rc = listen_on(l, address);
    if (rc < 0) {
        gw_rdma_id_free(l->id);
        l->id = NULL;
        return cannot_listen(uri, config, rc, err);
    }
    rc = gw_rdma_check_listen(l->id, config, err);
    if (rc == 0)
        rc = name_listener(l, config, address, err);
    if (rc < 0)
        gw_rdma_id_free(l->id);
    l->id = rc < 0 ? NULL : l->id;
    return rc;
}

/* A GID is an address. */
static int listen_at_gid(struct rdma_listener *l, const struct gw_uri *uri,
                         const struct gw_wire_config *config, struct gw_error *err)
{
    struct sockaddr_storage address;
    int rc = gw_rdma_any_address(config, &address, err);
    if (rc < 0)
        return rc;
    if (address.ss_family == AF_INET)
        ((struct sockaddr_in *)(void *)&address)->sin_port = htons(uri->port);
    else
        ((struct sockaddr_in6 *)(void *)&address)->sin6_port = htons(uri->port);
    return listen_at(l, uri, config, (struct sockaddr *)&address, err);
}

/* The first of the name's addresses that can be listened on; of wildcards the IPv6 one, which takes
 * both families. */
static int listen_on_one(struct rdma_listener *l, const struct gw_uri *uri,
                         const struct gw_wire_config *config, struct gw_error *err)
{
    struct sockaddr_in6 any = {
        .sin6_family = AF_INET6, .sin6_port = htons(uri->port), .sin6_addr = IN6ADDR_ANY_INIT};
    struct addrinfo *list = NULL;
    if (!uri->host[0] && !config->rdma_gid)
        return listen_at(l, uri, config, (struct sockaddr *)&any, err);
    if (!uri->host[0])
        return listen_at_gid(l, uri, config, err);
    int rc = gw_rdma_look_up(uri, AI_PASSIVE, &list, err);
    for (struct addrinfo *ai = list; ai; ai = ai->ai_next) {
        rc = listen_at(l, uri, config, ai->ai_addr, err);
        if (rc == 0)
            break;
    }
    if (list)
        freeaddrinfo(list);
    return rc;
}

int gw_rdma_listen(const struct gw_uri *uri, const struct gw_wire_config *config,
                   struct gw_listener **ln, struct gw_error *err)
{
    struct gw_error why = GW_ERROR_INIT;
    int rc = gw_rdma_probe(&why);
    if (rc == 0)
        rc = gw_rdma_check_device(config, &why);
    struct rdma_listener *l = rc == 0 ? gw_zalloc(1, sizeof(*l)) : NULL;
    if (!l) {
        if (rc == 0)
            rc = gw_fail(&why, -ENOMEM, "%s: listen", uri->text);
        gw_error_copy(err, &why);
        return rc;
    }
    TAILQ_INIT(&l->arrived);
    TAILQ_INIT(&l->answered);
    l->base.ops = &gw_rdma_ops;
    l->log = config->log;
    l->security = config->security;
    l->admit_ns = config->deadline_ns ? config->deadline_ns : ADMIT_NS;
    l->is_ready = true;
    if (config->rdma_device)
        snprintf(l->device, sizeof(l->device), "%s", config->rdma_device);
    l->events = gw_rdma_channel_new(&why);
    rc = l->events ? listen_on_one(l, uri, config, &why) : -ENODEV;
    if (rc == 0) {
        rc = gw_rdma_try_listening(l->id, config, &why);
        gw_error_prefix(&why, "%s: listen", uri->text);
    }
    if (rc == 0) {
        *ln = &l->base;
        return 0;
    }
    free_listener(l);
    gw_error_copy(err, &why);
    return rc;
}
