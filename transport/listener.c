// SPDX-License-Identifier: MIT
/* The accepting side of the stream wires. One epoll descriptor watches the listening sockets and every
 * connection whose preface is not complete; gw_accept() takes what is there, asks about complete
 * prefaces, and answers. A connection waits in one of four lists, by age: "arriving" until its 32 bytes
 * are here, then "arrived" until it is admitted or refused (GW_ADMIT_LATER leaves it); admitted, it
 * becomes an endpoint, at once or (config.heard_first) when its first bytes have come: "answered", then
 * "heard". Their number and their time are bounded, and the oldest silent one goes first, so ten
 * thousand strangers, with prefaces or without, cost a few thousand closes and keep nobody out. */
#include "transport/listener.h"

#include "core/base/alloc.h"
#include "core/base/bytes.h"
#include "core/base/clock.h"
#include "transport/preface.h"
#include "transport/stream.h"

#include <stdio.h>
#include <sys/epoll.h>
#include <sys/queue.h>
#include <sys/resource.h>
#include <unistd.h>

#define EVENTS_MAX 64
#define ACCEPTS_PER_STEP 256 /* then the owner may do something else */
#define RETRY_NS (5 * GW_NS_PER_MS)
#define LATER_NS (20 * GW_NS_PER_MS)  /* an owner that said LATER is asked again by then */
#define PAUSE_NS (100 * GW_NS_PER_MS) /* without a free descriptor accept would only spin */

struct pending {
    TAILQ_ENTRY(pending) link;
    int fd;
    uint64_t deadline_ns;
    uint8_t bytes[GW_PREFACE_BYTES];
    size_t got;
    bool answered; /* and then, what it was admitted to */
    struct gw_domain *dom;
    struct gw_wire_config config;
    char peer[128];
};

TAILQ_HEAD(pending_list, pending); /* the oldest first */

struct gw_stream_listener {
    struct gw_listener base;
    const struct gw_listener_wire *wire;
    void *wire_ctx;
    const struct gw_log *log;
    uint8_t security;
    uint64_t preface_ns;
    int epoll_fd;
    int fds[GW_LISTEN_FDS_MAX];
    unsigned fd_count;
    struct pending_list arriving, arrived, answered, heard;
    unsigned pending_count, pending_max;
    bool ready;
    uint64_t tried_ns;
    uint64_t paused_ns; /* no accept before; 0: not paused */
    char uri[GW_URI_BYTES_MAX];
};

static struct gw_stream_listener *listener_of(struct gw_listener *ln)
{
    return (struct gw_stream_listener *)ln;
}

/* ---- pending connections ---- */

/* Forget @p; its descriptor is closed unless somebody has taken it (-1). */
static void drop(struct gw_stream_listener *l, struct pending_list *list, struct pending *p)
{
    TAILQ_REMOVE(list, p, link);
    if (p->fd >= 0)
        close(p->fd);
    gw_free(p);
    l->pending_count--;
}

static void drop_expired(struct gw_stream_listener *l, struct pending_list *list, uint64_t now)
{
    while (TAILQ_FIRST(list) && TAILQ_FIRST(list)->deadline_ns <= now) {
        struct pending *p = TAILQ_FIRST(list);
        gw_log_info(l->log, "listener", "%s: dropped: %s in time", p->peer,
                    list == &l->arriving   ? "no whole preface"
                    : list == &l->answered ? "admitted, and not heard"
                                           : "not admitted");
        drop(l, list, p);
    }
}

/* Room for one more; the arriving go first, because an honest preface arrives with its connection. */
static void drop_oldest(struct gw_stream_listener *l)
{
    struct pending_list *list = TAILQ_FIRST(&l->arriving)   ? &l->arriving
                                : TAILQ_FIRST(&l->answered) ? &l->answered
                                                            : &l->arrived;
    if (TAILQ_FIRST(list))
        drop(l, list, TAILQ_FIRST(list));
}

static void answer(struct gw_stream_listener *l, struct pending *p,
                   const struct gw_preface *preface, enum gw_admission admission)
{
    uint8_t bytes[GW_PREFACE_BYTES];
    gw_answer_encode(preface, admission, bytes);
    /* The first bytes on this socket: they always fit. */
    if (send(p->fd, bytes, sizeof(bytes), MSG_NOSIGNAL | MSG_DONTWAIT) != sizeof(bytes))
        gw_log_info(l->log, "listener", "%s: gone before it was answered", p->peer);
}

static void refuse(struct gw_stream_listener *l, struct pending *p,
                   const struct gw_preface *preface, enum gw_admission admission)
{
    gw_log_warn(l->log, "listener", "%s: refused: %s (endpoint %u, security %s)", p->peer,
                gw_admission_text(admission), preface->index, gw_security_name(preface->security));
    answer(l, p, preface, admission);
    drop(l, &l->arrived, p);
}

/* ---- prefaces ---- */

/* Everything that can be said about a preface without asking anybody. */
static bool is_refused_at_sight(struct gw_stream_listener *l, struct pending *p,
                                struct gw_preface *preface)
{
    int rc = gw_preface_decode(p->bytes, preface);
    if (rc == -EPROTO) {
        gw_log_warn(l->log, "listener", "%s: dropped: it does not speak godwit's protocol",
                    p->peer);
        *preface = (struct gw_preface){.version = 0};
        answer(l, p, preface, GW_ADMIT_VERSION);
        drop(l, &l->arrived, p);
        return true;
    }
    enum gw_admission admission = GW_ADMIT_OK;
    if (rc < 0)
        admission = GW_ADMIT_VERSION;
    else if (preface->security != l->security)
        admission = GW_ADMIT_SECURITY;
    else if (preface->index >= GW_ENDPOINTS_MAX)
        admission = GW_ADMIT_INDEX;
    if (admission == GW_ADMIT_OK)
        return false;
    refuse(l, p, preface, admission);
    return true;
}

static int lost(struct gw_stream_listener *l, struct pending_list *list, struct pending *p,
                const struct gw_error *why)
{
    gw_log_warn(l->log, "listener", "%s: lost: %s", p->peer, why->message);
    drop(l, list, p);
    return 0;
}

/* Hand the connection of @p over to an endpoint. Return: 1, or 0 if that failed and was told. */
static int hand_over(struct gw_stream_listener *l, struct pending_list *list, struct pending *p,
                     struct gw_endpoint **ep)
{
    struct gw_error why = GW_ERROR_INIT;
    int rc = l->wire->endpoint_new
                 ? l->wire->endpoint_new(l, p->fd, p->dom, &p->config, p->peer, ep, &why)
                 : gw_stream_new(l->wire->ops, p->fd, p->dom, &p->config, p->peer, ep, &why);
    p->fd = -1;
    if (rc < 0)
        return lost(l, list, p, &why);
    drop(l, list, p);
    return 1;
}

static int wait_to_hear(struct gw_stream_listener *l, struct pending *p)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = p};
    struct gw_error why = GW_ERROR_INIT;
    if (epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, p->fd, &event) < 0) {
        gw_fail(&why, -errno, "epoll");
        return lost(l, &l->arrived, p, &why);
    }
    p->deadline_ns = gw_clock_ns() + l->preface_ns;
    TAILQ_REMOVE(&l->arrived, p, link);
    TAILQ_INSERT_TAIL(&l->answered, p, link);
    return 0;
}

static int admitted(struct gw_stream_listener *l, struct pending *p,
                    const struct gw_preface *preface, struct gw_endpoint **ep)
{
    struct gw_error why = GW_ERROR_INIT;
    memcpy(p->config.session, preface->session, GW_SESSION_BYTES);
    p->config.index = preface->index;
    p->config.security = preface->security;
    gw_assert(p->dom != NULL);
    if (l->wire->prepare(p->fd, &p->config, &why) < 0)
        return lost(l, &l->arrived, p, &why);
    answer(l, p, preface, GW_ADMIT_OK);
    p->answered = true;
    return p->config.heard_first ? wait_to_hear(l, p) : hand_over(l, &l->arrived, p, ep);
}

static int ask(struct gw_stream_listener *l, gw_admit_fn *admit, void *admit_ctx,
               struct gw_endpoint **ep)
{
    struct pending *next;
    while (TAILQ_FIRST(&l->heard)) {
        if (hand_over(l, &l->heard, TAILQ_FIRST(&l->heard), ep))
            return 1;
    }
    for (struct pending *p = TAILQ_FIRST(&l->arrived); p; p = next) {
        struct gw_preface preface;
        next = TAILQ_NEXT(p, link);
        p->dom = NULL;
        p->config = (struct gw_wire_config){.log = l->log};
        if (is_refused_at_sight(l, p, &preface))
            continue;
        enum gw_admission admission = admit(admit_ctx, &preface, &p->dom, &p->config);
        if (admission == GW_ADMIT_LATER)
            continue;
        if (admission != GW_ADMIT_OK)
            refuse(l, p, &preface, admission);
        else if (admitted(l, p, &preface, ep))
            return 1;
    }
    return 0;
}

/* Its first bytes, or its end, have come. */
static void hear(struct gw_stream_listener *l, struct pending *p)
{
    uint8_t first;
    ssize_t n = recv(p->fd, &first, sizeof(first), MSG_DONTWAIT | MSG_PEEK);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        return;
    if (n <= 0) {
        gw_log_info(l->log, "listener", "%s: hung up after it was admitted", p->peer);
        drop(l, &l->answered, p);
        return;
    }
    epoll_ctl(l->epoll_fd, EPOLL_CTL_DEL, p->fd, NULL);
    TAILQ_REMOVE(&l->answered, p, link);
    TAILQ_INSERT_TAIL(&l->heard, p, link);
}

static void read_preface(struct gw_stream_listener *l, struct pending *p)
{
    ssize_t n = recv(p->fd, p->bytes + p->got, sizeof(p->bytes) - p->got, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        return;
    if (n <= 0) {
        gw_log_info(l->log, "listener", "%s: hung up after %zu bytes", p->peer, p->got);
        drop(l, &l->arriving, p);
        return;
    }
    p->got += (size_t)n;
    if (p->got < sizeof(p->bytes))
        return;
    /* From here on only its deadline or an answer ends it. */
    epoll_ctl(l->epoll_fd, EPOLL_CTL_DEL, p->fd, NULL);
    TAILQ_REMOVE(&l->arriving, p, link);
    TAILQ_INSERT_TAIL(&l->arrived, p, link);
}

/* ---- new connections ---- */

static void take(struct gw_stream_listener *l, int fd, const struct sockaddr_storage *address,
                 uint64_t now)
{
    if (l->pending_count >= l->pending_max)
        drop_oldest(l);
    struct pending *p = gw_zalloc(1, sizeof(*p));
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = p};
    if (!p || epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0) {
        gw_log_warn(l->log, "listener", "a connection was dropped: out of memory");
        gw_free(p);
        close(fd);
        return;
    }
    p->fd = fd;
    p->deadline_ns = now + l->preface_ns;
    l->wire->name_peer(fd, address, p->peer, sizeof(p->peer));
    TAILQ_INSERT_TAIL(&l->arriving, p, link);
    l->pending_count++;
    read_preface(l, p);
}

/* Return: 0, or the errno (negative) that means that this socket will never accept again. */
static int accept_all(struct gw_stream_listener *l, int listen_fd, uint64_t now)
{
    for (unsigned i = 0; i < ACCEPTS_PER_STEP; i++) {
        struct sockaddr_storage address = {.ss_family = AF_UNSPEC};
        socklen_t bytes = sizeof(address);
        int fd =
            accept4(listen_fd, (struct sockaddr *)&address, &bytes, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            take(l, fd, &address, now);
            continue;
        }
        switch (errno) {
        case EAGAIN:
            return 0;
        case EBADF:
        case EINVAL:
        case ENOTSOCK:
        case EOPNOTSUPP:
            return -errno;
        case EMFILE:
        case ENFILE:
        case ENOBUFS:
        case ENOMEM:
            gw_log_warn(l->log, "listener", "cannot take a connection: no descriptor or memory");
            if (TAILQ_FIRST(&l->arriving))
                drop_oldest(l);
            else
                l->paused_ns = now + PAUSE_NS;
            return 0;
        default:
            break; /* ECONNABORTED and the network errors of accept(2) concern that one only */
        }
    }
    return 0;
}

static bool is_listening_fd(const struct gw_stream_listener *l, const struct epoll_event *event)
{
    return event->data.ptr >= (const void *)&l->fds[0] &&
           event->data.ptr < (const void *)&l->fds[GW_LISTEN_FDS_MAX];
}

/* Connections first: taking new ones may drop an old one that has an event in the same batch. */
static int take_events(struct gw_stream_listener *l, uint64_t now)
{
    struct epoll_event events[EVENTS_MAX];
    int count = epoll_wait(l->epoll_fd, events, EVENTS_MAX, 0);
    if (count < 0)
        return errno == EINTR ? 0 : -errno;
    l->ready = count == EVENTS_MAX;
    for (int i = 0; i < count; i++) {
        struct pending *p = events[i].data.ptr;
        if (is_listening_fd(l, &events[i]))
            continue;
        if (p->answered)
            hear(l, p);
        else
            read_preface(l, p);
    }
    for (int i = 0; i < count; i++) {
        if (!is_listening_fd(l, &events[i]) || l->paused_ns > now)
            continue;
        int rc = accept_all(l, *(const int *)events[i].data.ptr, now);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int gw_stream_accept(struct gw_listener *ln, gw_admit_fn *admit, void *admit_ctx,
                     struct gw_endpoint **ep, struct gw_error *err)
{
    struct gw_stream_listener *l = listener_of(ln);
    uint64_t now = gw_clock_ns();

    if (l->paused_ns <= now)
        l->paused_ns = 0;
    drop_expired(l, &l->arriving, now);
    drop_expired(l, &l->arrived, now);
    drop_expired(l, &l->answered, now);
    if (l->ready || now - l->tried_ns >= RETRY_NS) {
        l->tried_ns = now;
        int rc = take_events(l, now);
        if (rc < 0)
            return gw_fail_code(err, rc, GW_CODE_LISTEN, "%s: accept: %s", l->uri, strerror(-rc));
    }
    int got = ask(l, admit, admit_ctx, ep);
    if (got)
        l->ready = true; /* there may be more */
    return got;
}

int gw_stream_listener_arm(struct gw_listener *ln, struct pollfd *fds, unsigned max,
                           uint64_t *wake_ns)
{
    struct gw_stream_listener *l = listener_of(ln);
    gw_assert(max >= 1);
    if (l->ready) {
        *wake_ns = 0;
        return 0;
    }
    if (TAILQ_FIRST(&l->arriving))
        *wake_ns = gw_min_u64(*wake_ns, TAILQ_FIRST(&l->arriving)->deadline_ns);
    if (TAILQ_FIRST(&l->answered))
        *wake_ns = gw_min_u64(*wake_ns, TAILQ_FIRST(&l->answered)->deadline_ns);
    if (TAILQ_FIRST(&l->arrived))
        *wake_ns = gw_min_u64(*wake_ns, gw_clock_ns() + LATER_NS);
    if (l->paused_ns) {
        *wake_ns = gw_min_u64(*wake_ns, l->paused_ns);
        return 0;
    }
    fds[0] = (struct pollfd){.fd = l->epoll_fd, .events = POLLIN};
    return 1;
}

void gw_stream_listener_awake(struct gw_listener *ln, const struct pollfd *fds, unsigned count)
{
    struct gw_stream_listener *l = listener_of(ln);
    for (unsigned i = 0; i < count; i++) {
        if (fds[i].fd == l->epoll_fd && fds[i].revents != 0)
            l->ready = true;
    }
}

/* ---- life ---- */

static unsigned pending_limit(void)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) < 0 || files.rlim_cur / 2 >= GW_PENDING_MAX)
        return GW_PENDING_MAX;
    return files.rlim_cur < 16 ? 8 : (unsigned)(files.rlim_cur / 2);
}

int gw_listener_new(const struct gw_listener_wire *wire, const int *fds, unsigned fd_count,
                    const char *uri, const struct gw_wire_config *config, void *wire_ctx,
                    struct gw_listener **ln, struct gw_error *err)
{
    gw_assert(fd_count <= GW_LISTEN_FDS_MAX);
    struct gw_stream_listener *l = gw_zalloc(1, sizeof(*l));
    if (!l)
        return gw_fail(err, -ENOMEM, "%s: listen", uri);
    l->base.ops = wire->ops;
    TAILQ_INIT(&l->arriving);
    TAILQ_INIT(&l->arrived);
    TAILQ_INIT(&l->answered);
    TAILQ_INIT(&l->heard);
    l->wire = wire;
    l->log = config->log;
    l->security = config->security;
    l->preface_ns = config->deadline_ns ? config->deadline_ns : GW_PREFACE_DEADLINE_S * GW_NS_PER_S;
    l->pending_max = pending_limit();
    l->ready = true;
    snprintf(l->uri, sizeof(l->uri), "%s", uri);
    l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    int rc = l->epoll_fd < 0 ? -errno : 0;
    for (unsigned i = 0; rc == 0 && i < fd_count; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &l->fds[i]};
        l->fds[i] = fds[i];
        if (epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, fds[i], &event) < 0)
            rc = -errno;
    }
    if (rc < 0) {
        if (l->epoll_fd >= 0)
            close(l->epoll_fd);
        gw_free(l);
        return gw_fail(err, rc, "%s: listen", uri);
    }
    l->fd_count = fd_count;
    l->wire_ctx = wire_ctx;
    *ln = &l->base;
    return 0;
}

void *gw_listener_wire_ctx(struct gw_stream_listener *ln)
{
    return ln->wire_ctx;
}

const char *gw_stream_listener_uri(const struct gw_listener *ln)
{
    return ((const struct gw_stream_listener *)ln)->uri;
}

void gw_stream_listener_close(struct gw_listener *ln)
{
    struct gw_stream_listener *l = listener_of(ln);
    if (l->wire->closing)
        l->wire->closing(l);
    while (TAILQ_FIRST(&l->arriving))
        drop(l, &l->arriving, TAILQ_FIRST(&l->arriving));
    while (TAILQ_FIRST(&l->arrived))
        drop(l, &l->arrived, TAILQ_FIRST(&l->arrived));
    while (TAILQ_FIRST(&l->answered))
        drop(l, &l->answered, TAILQ_FIRST(&l->answered));
    while (TAILQ_FIRST(&l->heard))
        drop(l, &l->heard, TAILQ_FIRST(&l->heard));
    for (unsigned i = 0; i < l->fd_count; i++)
        close(l->fds[i]);
    close(l->epoll_fd);
    gw_free(l->wire_ctx);
    gw_free(l);
}
