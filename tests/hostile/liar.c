// SPDX-License-Identifier: MIT
/* The relay that lies (liar.h). A flow is one direction of one connection: its frames are gathered
 * whole, shown to the hook, and put behind what waits to go out there; flips and cuts are made to the
 * bytes as they are put. One thread polls everything. */
#include "tests/hostile/liar.h"

#include "core/base/bytes.h"
#include "core/base/clock.h"
#include "tests/shim/gw_test.h"
#include "tests/support/loopback.h"
#include "transport/stream.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define CONNECTIONS_MAX 32
#define TYPES_MAX 128
#define OUT_BYTES_MAX (256u << 10) /* a flood waits here */
#define BEAT_NS (20 * GW_NS_PER_MS)

struct buffer {
    uint8_t *data;
    size_t used, room;
};

struct flow { /* read from fd[way], written to fd[!way] */
    struct buffer in, out;
    bool opened;      /* the preface, or the answer, has passed */
    uint64_t emitted; /* bytes put out so far */
    struct buffer flood;
    uint64_t flood_left;
};

struct connection {
    int fd[2]; /* by way: [LIAR_TO_TARGET] is the source's end */
    struct flow flow[2];
    bool used;
    unsigned endpoint, ordinal;
};

struct address {
    union {
        struct sockaddr any;
        struct sockaddr_in tcp;
        struct sockaddr_un unix_;
    };
    socklen_t bytes;
};

struct liar {
    struct liar_config config;
    pthread_t thread;
    int listener, wake;
    char uri[128];
    struct address target;
    pthread_mutex_t lock; /* guards all below */
    struct connection connections[CONNECTIONS_MAX];
    unsigned seen[2][TYPES_MAX], puts_seen[2], opened[256];
    struct liar_record records[LIAR_ENDPOINTS][2];
    bool lied, quit, deaf[2], drops[2], beats[2];
    uint64_t beat_ns;
};

/* ---- buffers ----------------------------------------------------------------------------------- */

static void buffer_add(struct buffer *buffer, const void *bytes, size_t count)
{
    if (buffer->used + count > buffer->room) {
        buffer->room = (buffer->used + count) * 2;
        buffer->data = realloc(buffer->data, buffer->room);
        if (!buffer->data)
            abort();
    }
    if (count)
        memcpy(buffer->data + buffer->used, bytes, count);
    buffer->used += count;
}

static void buffer_drop(struct buffer *buffer, size_t count)
{
    if (count == 0)
        return;
    memmove(buffer->data, buffer->data + count, buffer->used - count);
    buffer->used -= count;
}

/* ---- connections --------------------------------------------------------------------------------- */

static void forget(struct connection *c)
{
    for (unsigned way = 0; way < 2; way++) {
        if (c->fd[way] >= 0)
            close(c->fd[way]);
        free(c->flow[way].in.data);
        free(c->flow[way].out.data);
        free(c->flow[way].flood.data);
    }
    memset(c, 0, sizeof(*c));
}

static void flush(struct connection *c, unsigned way)
{
    struct flow *flow = &c->flow[way];
    size_t at = 0;
    while (c->used && at < flow->out.used) {
        ssize_t n = send(c->fd[!way], flow->out.data + at, flow->out.used - at,
                         MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n <= 0) {
            if (n < 0 && (errno == EAGAIN || errno == EINTR))
                break;
            forget(c);
            return;
        }
        at += (size_t)n;
    }
    if (c->used)
        buffer_drop(&flow->out, at);
}

/* What has been passed on before is delivered; then every connection ends. */
static void cut_all(struct liar *liar)
{
    for (unsigned i = 0; i < CONNECTIONS_MAX; i++) {
        struct connection *c = &liar->connections[i];
        for (unsigned way = 0; c->used && way < 2; way++)
            flush(c, way);
        if (c->used)
            forget(c);
    }
}

/* Put bytes of @c's flow out. False: the connection was cut. */
static bool emit(struct liar *liar, struct connection *c, unsigned way, const uint8_t *bytes,
                 size_t count)
{
    const struct liar_config *config = &liar->config;
    struct flow *flow = &c->flow[way];
    uint64_t from = flow->emitted;
    bool here = (config->flips || config->cuts) && !liar->lied && c->ordinal == 0 &&
                c->endpoint == config->endpoint && way == (unsigned)config->way &&
                config->at >= from && config->at < from + count;
    if (here && config->cuts)
        count = config->at - from;
    buffer_add(&flow->out, bytes, count);
    flow->emitted += count;
    if (!here)
        return true;
    liar->lied = true;
    if (config->flips) {
        flow->out.data[flow->out.used - (from + count - config->at)] ^= config->mask;
        return true;
    }
    cut_all(liar);
    return false;
}

static struct connection *latest(struct liar *liar, unsigned endpoint)
{
    struct connection *found = NULL;
    for (unsigned i = 0; i < CONNECTIONS_MAX; i++) {
        struct connection *c = &liar->connections[i];
        if (c->used && c->endpoint == endpoint && (!found || c->ordinal > found->ordinal))
            found = c;
    }
    return found;
}

void liar_raw(struct liar *liar, unsigned endpoint, enum liar_way way, const void *bytes,
              size_t count)
{
    struct connection *c = latest(liar, endpoint);
    if (!c)
        return;
    emit(liar, c, way, bytes, count);
    liar->lied = true;
}

static void frame_around(struct buffer *to, const void *message, size_t bytes)
{
    uint8_t head[GW_FRAME_HEAD_BYTES];
    struct gw_frame_head frame = {.kind = GW_FRAME_MESSAGE, .payload_bytes = (uint32_t)bytes};
    gw_frame_head_encode(&frame, head);
    buffer_add(to, head, sizeof(head));
    buffer_add(to, message, bytes);
}

void liar_say(struct liar *liar, unsigned endpoint, enum liar_way way, const void *message,
              size_t bytes)
{
    struct buffer frame = {0};
    frame_around(&frame, message, bytes);
    liar_raw(liar, endpoint, way, frame.data, frame.used);
    free(frame.data);
}

void liar_flood(struct liar *liar, unsigned endpoint, enum liar_way way, const void *message,
                size_t bytes, uint64_t times)
{
    struct connection *c = latest(liar, endpoint);
    if (!c)
        return;
    /* Many at a time, so that the relay is not what limits it. */
    struct flow *flow = &c->flow[way];
    for (unsigned i = 0; i == 0 || flow->flood.used < 16384; i++)
        frame_around(&flow->flood, message, bytes);
    flow->flood_left = times;
    liar->lied = true;
}

void liar_lied(struct liar *liar)
{
    liar->lied = true;
}

void liar_deafen(struct liar *liar, enum liar_way way)
{
    liar->deaf[way] = true;
    liar->lied = true;
}

void liar_drop_rest(struct liar *liar, enum liar_way way)
{
    liar->drops[way] = true;
    liar->lied = true;
}

void liar_beat(struct liar *liar, enum liar_way way)
{
    liar->beats[way] = true;
}

/* ---- frames --------------------------------------------------------------------------------------- */

static void mark(struct liar *liar, struct connection *c, unsigned way, enum liar_class class,
                 enum gw_message_type type, uint64_t at, uint64_t bytes)
{
    if (c->ordinal > 0 || c->endpoint >= LIAR_ENDPOINTS || bytes == 0)
        return;
    struct liar_record *record = &liar->records[c->endpoint][way];
    if (record->mark_count < LIAR_MARKS_MAX)
        record->marks[record->mark_count++] =
            (struct liar_mark){.class = class, .type = type, .at = at, .bytes = bytes};
    record->bytes = at + bytes;
}

static void mark_frame(struct liar *liar, struct connection *c, unsigned way,
                       const struct liar_event *event, const struct gw_frame_head *head)
{
    uint64_t at = c->flow[way].emitted;
    if (event->is_preface) {
        mark(liar, c, way, LIAR_PREFACE, 0, at, event->bytes);
        return;
    }
    mark(liar, c, way, LIAR_FRAME_HEAD, 0, at, GW_FRAME_HEAD_BYTES);
    at += GW_FRAME_HEAD_BYTES;
    if (event->is_put) {
        mark(liar, c, way, LIAR_TABLE, 0, at, head->table_bytes);
        mark(liar, c, way, LIAR_PAYLOAD, 0, at + head->table_bytes, head->payload_bytes);
    } else {
        mark(liar, c, way, LIAR_MESSAGE, event->type, at, head->payload_bytes);
    }
}

/* One whole frame at the front of the flow's buffer: its length, or 0. */
static size_t next_frame(const struct flow *flow, struct gw_frame_head *head)
{
    const char *why = "";
    memset(head, 0, sizeof(*head));
    if (!flow->opened)
        return flow->in.used >= GW_PREFACE_BYTES ? GW_PREFACE_BYTES : 0;
    if (flow->in.used < GW_FRAME_HEAD_BYTES)
        return 0;
    if (gw_frame_head_decode(flow->in.data, UINT32_MAX, head, &why) < 0) {
        GW_NOTE_FAILURE("an honest side sent a bad frame: %s", why);
        return 0;
    }
    size_t bytes = GW_FRAME_HEAD_BYTES + (size_t)head->table_bytes + head->payload_bytes;
    return flow->in.used >= bytes ? bytes : 0;
}

static void open_flow(struct liar *liar, struct connection *c, unsigned way)
{
    c->flow[way].opened = true;
    if (way != LIAR_TO_TARGET)
        return;
    c->endpoint = gw_be16_load(c->flow[way].in.data + 24) & 255;
    c->ordinal = liar->opened[c->endpoint]++;
}

static void pass_frames(struct liar *liar, struct connection *c, unsigned way)
{
    struct flow *flow = &c->flow[way];
    struct gw_frame_head head;
    size_t bytes;
    while (c->used && (bytes = next_frame(flow, &head)) > 0) {
        struct liar_event event = {.way = (enum liar_way)way,
                                   .is_preface = !flow->opened,
                                   .is_put = head.kind == GW_FRAME_PUT,
                                   .frame = flow->in.data,
                                   .bytes = bytes};
        if (event.is_preface)
            open_flow(liar, c, way);
        else if (event.is_put)
            event.nth = ++liar->puts_seen[way];
        else
            event.type = gw_be16_load(flow->in.data + GW_FRAME_HEAD_BYTES);
        if (event.type > 0 && (unsigned)event.type < TYPES_MAX)
            event.nth = ++liar->seen[way][event.type];
        event.endpoint = c->endpoint;
        event.ordinal = c->ordinal;
        bool passes = !liar->drops[way];
        if (passes && liar->config.hook)
            passes = liar->config.hook(liar, liar->config.ctx, &event);
        if (c->used && passes) {
            mark_frame(liar, c, way, &event, &head);
            if (!emit(liar, c, way, flow->in.data, bytes))
                return;
        }
        if (c->used)
            buffer_drop(&flow->in, bytes);
    }
}

/* ---- the thread ------------------------------------------------------------------------------------ */

static void take_connection(struct liar *liar)
{
    int fd = accept4(liar->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    struct connection *c = NULL;
    for (unsigned i = 0; i < CONNECTIONS_MAX && !c; i++) {
        if (!liar->connections[i].used)
            c = &liar->connections[i];
    }
    int onward = c ? socket(liar->target.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0) : -1;
    if (onward < 0 || connect(onward, &liar->target.any, liar->target.bytes) < 0) {
        close(fd);
        if (onward >= 0)
            close(onward);
        return;
    }
    int on = 1; /* nothing to a unix socket */
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    setsockopt(onward, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    memset(c, 0, sizeof(*c));
    c->used = true;
    c->fd[LIAR_TO_TARGET] = fd;
    c->fd[LIAR_TO_SOURCE] = onward;
    c->endpoint = UINT32_MAX;
}

static void serve(struct liar *liar, struct connection *c, unsigned way)
{
    uint8_t bytes[65536];
    ssize_t n = recv(c->fd[way], bytes, sizeof(bytes), MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        flush(c, way);
        if (c->used)
            forget(c);
        return;
    }
    buffer_add(&c->flow[way].in, bytes, (size_t)n);
    pass_frames(liar, c, way);
    for (unsigned i = 0; i < CONNECTIONS_MAX; i++) {
        struct connection *other = &liar->connections[i];
        for (unsigned w = 0; other->used && w < 2; w++)
            flush(other, w);
    }
}

static void keep_flooding(struct liar *liar, struct connection *c, unsigned way)
{
    struct flow *flow = &c->flow[way];
    for (unsigned i = 0; i < 16 && flow->flood_left > 0 && flow->out.used < OUT_BYTES_MAX; i++) {
        emit(liar, c, way, flow->flood.data, flow->flood.used);
        flow->flood_left--;
    }
    flush(c, way);
}

static void beat(struct liar *liar)
{
    uint8_t message[GW_MESSAGE_HEADER_BYTES] = {0};
    struct buffer frame = {0};
    if (gw_clock_ns() < liar->beat_ns + BEAT_NS)
        return;
    liar->beat_ns = gw_clock_ns();
    gw_be16_store(message, GW_MSG_HEARTBEAT);
    frame_around(&frame, message, sizeof(message));
    for (unsigned i = 0; i < CONNECTIONS_MAX; i++) {
        struct connection *c = &liar->connections[i];
        for (unsigned way = 0; c->used && way < 2; way++) {
            if (!liar->beats[way] || !c->flow[way].opened)
                continue;
            emit(liar, c, way, frame.data, frame.used);
            flush(c, way);
        }
    }
    free(frame.data);
}

static unsigned gather(struct liar *liar, struct pollfd *fds, struct connection **who,
                       unsigned *ways)
{
    unsigned count = 0;
    fds[count++] = (struct pollfd){.fd = liar->wake, .events = POLLIN};
    fds[count++] = (struct pollfd){.fd = liar->listener, .events = POLLIN};
    for (unsigned i = 0; i < CONNECTIONS_MAX; i++) {
        struct connection *c = &liar->connections[i];
        for (unsigned way = 0; c->used && way < 2; way++) {
            short events = liar->deaf[way] ? 0 : POLLIN;
            if (c->flow[!way].out.used > 0 || c->flow[!way].flood_left > 0)
                events |= POLLOUT;
            fds[count] = (struct pollfd){.fd = c->fd[way], .events = events};
            who[count] = c;
            ways[count++] = way;
        }
    }
    return count;
}

static void *relay(void *arg)
{
    enum { FDS_MAX = 2 + 2 * CONNECTIONS_MAX };
    struct liar *liar = arg;
    struct pollfd fds[FDS_MAX];
    struct connection *who[FDS_MAX];
    unsigned ways[FDS_MAX];
    pthread_mutex_lock(&liar->lock);
    while (!liar->quit) {
        unsigned count = gather(liar, fds, who, ways);
        int wait_ms = liar->beats[0] || liar->beats[1] ? 5 : -1;
        pthread_mutex_unlock(&liar->lock);
        poll(fds, count, wait_ms);
        pthread_mutex_lock(&liar->lock);
        if (liar->quit)
            break;
        if (liar->beats[0] || liar->beats[1])
            beat(liar);
        for (unsigned i = 2; i < count; i++) {
            struct connection *c = who[i];
            unsigned way = ways[i];
            if (!c->used || c->fd[way] != fds[i].fd || fds[i].revents == 0)
                continue;
            if (fds[i].revents & POLLOUT)
                keep_flooding(liar, c, !way);
            if (c->used && (fds[i].revents & (POLLIN | POLLHUP | POLLERR)))
                serve(liar, c, way);
        }
        if (fds[1].revents)
            take_connection(liar);
    }
    pthread_mutex_unlock(&liar->lock);
    return NULL;
}

/* ---- for the test ----------------------------------------------------------------------------------- */

/* Of tcp on this machine, or "unix:PATH". */
static struct address address_of(const char *uri)
{
    struct address address = {.bytes = sizeof(address.tcp)};
    if (loopback_is(uri)) {
        address.tcp = loopback_address(uri);
        return address;
    }
    GW_ASSERT_EQ(strncmp(uri, "unix:", 5), 0);
    address.bytes = sizeof(address.unix_);
    address.unix_.sun_family = AF_UNIX;
    GW_ASSERT_LT(snprintf(address.unix_.sun_path, sizeof(address.unix_.sun_path), "%s", uri + 5),
                 (int)sizeof(address.unix_.sun_path));
    return address;
}

static void open_listener(struct liar *liar)
{
    liar->listener =
        socket(liar->target.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (liar->target.any.sa_family == AF_INET) {
        loopback_listen(liar->listener, liar->uri, sizeof(liar->uri));
        return;
    }
    snprintf(liar->uri, sizeof(liar->uri), "%.100s.liar", liar->config.target_uri);
    struct address here = address_of(liar->uri);
    GW_ASSERT_EQ(bind(liar->listener, &here.any, here.bytes), 0);
    GW_ASSERT_EQ(listen(liar->listener, 64), 0);
}

struct liar *liar_new(const struct liar_config *config)
{
    struct liar *liar = calloc(1, sizeof(*liar));
    GW_ASSERT(liar != NULL);
    liar->config = *config;
    liar->target = address_of(config->target_uri);
    pthread_mutex_init(&liar->lock, NULL);
    liar->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    open_listener(liar);
    GW_ASSERT_EQ(pthread_create(&liar->thread, NULL, relay, liar), 0);
    return liar;
}

void liar_free(struct liar *liar)
{
    uint64_t one = 1;
    if (!liar)
        return;
    pthread_mutex_lock(&liar->lock);
    liar->quit = true;
    pthread_mutex_unlock(&liar->lock);
    GW_EXPECT_EQ(write(liar->wake, &one, sizeof(one)), (ssize_t)sizeof(one));
    pthread_join(liar->thread, NULL);
    for (unsigned i = 0; i < CONNECTIONS_MAX; i++) {
        if (liar->connections[i].used)
            forget(&liar->connections[i]);
    }
    close(liar->listener);
    if (liar->target.any.sa_family == AF_UNIX)
        unlink(liar->uri + 5);
    close(liar->wake);
    pthread_mutex_destroy(&liar->lock);
    free(liar);
}

const char *liar_uri(const struct liar *liar)
{
    return liar->uri;
}

bool liar_has_lied(struct liar *liar)
{
    pthread_mutex_lock(&liar->lock);
    bool lied = liar->lied;
    pthread_mutex_unlock(&liar->lock);
    return lied;
}

unsigned liar_control_connections(struct liar *liar)
{
    pthread_mutex_lock(&liar->lock);
    unsigned count = liar->opened[0];
    pthread_mutex_unlock(&liar->lock);
    return count;
}

const struct liar_record *liar_record(struct liar *liar, unsigned endpoint, enum liar_way way)
{
    return &liar->records[endpoint][way];
}
