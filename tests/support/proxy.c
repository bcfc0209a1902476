// SPDX-License-Identifier: MIT
/* A relay (proxy.h). One thread polls every connection; a flow is one direction of one of them: bytes
 * are read into its buffer, parsed (32 bytes of preface or answer, then frames), and forwarded as far
 * as the parser has cleared them. A frame that is a message is cleared only when its type is known and
 * no rule stands against it. What a test asks for is done under the lock, by whoever asks. */
#include "tests/support/proxy.h"

#include "core/base/bytes.h"
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
#include <unistd.h>

#define CONNECTIONS_MAX 64
#define RULES_MAX 16
#define FLOW_BYTES (64u << 10)
#define TYPES_MAX 128
#define NO_RULE UINT32_MAX

struct flow { /* from fd[way] to fd[!way] */
    uint8_t *bytes;
    size_t got, cleared; /* in the buffer; [0, cleared) may be forwarded */
    uint64_t skip;       /* bytes of the current frame that are still to come, cleared unseen */
    bool opened;         /* the preface has passed */
    unsigned held_by;    /* a rule, or NO_RULE */
};

struct connection {
    int fd
        [2]; /* by the way of the flow that reads it: [PROXY_TO_TARGET] is the source's; -1: closed */
    struct flow flow[2];
    bool used, is_control, mute;
};

struct rule {
    enum proxy_way way;
    enum gw_message_type type;
    unsigned nth, seen;
    enum proxy_act act;
    bool struck, released, refuses;
    struct connection *connection; /* where it struck */
    uint8_t copy[4096];            /* AGAIN */
    size_t copy_bytes;
};

struct proxy {
    pthread_t thread;
    int listener, wake;
    char uri[64];
    pthread_mutex_t lock; /* guards all below */
    struct sockaddr_in target;
    struct connection connections[CONNECTIONS_MAX];
    struct rule rules[RULES_MAX];
    unsigned rule_count, control_count;
    unsigned passed[2][TYPES_MAX];
    bool refuse, crumble, quit;
};

static const char *const where[] = {"the target", "the source"};

/* ---- connections ------------------------------------------------------------------------------ */

static void close_end(struct connection *c, unsigned end)
{
    if (c->fd[end] >= 0) {
        shutdown(c->fd[end], SHUT_WR);
        close(c->fd[end]);
    }
    c->fd[end] = -1;
}

static void forget(struct connection *c)
{
    for (unsigned i = 0; i < 2; i++) {
        close_end(c, i);
        free(c->flow[i].bytes);
        c->flow[i].bytes = NULL;
    }
    c->used = false;
}

static void forward(struct proxy *proxy, struct connection *c, unsigned way)
{
    struct flow *flow = &c->flow[way];
    size_t at = 0;
    while (at < flow->cleared && c->fd[!way] >= 0) {
        size_t want = flow->cleared - at;
        if (proxy->crumble)
            want = gw_min_u64(want, c->is_control ? 1 : 997);
        ssize_t n = send(c->fd[!way], flow->bytes + at, want, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n > 0) {
            at += (size_t)n;
            continue;
        }
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            if (at == 0 || flow->held_by == NO_RULE)
                break; /* poll says when */
            struct pollfd fd = {.fd = c->fd[!way], .events = POLLOUT};
            poll(&fd, 1, 1000);
            continue;
        }
        close_end(c, !way);
    }
    if (c->fd[!way] < 0)
        at = flow->cleared; /* nobody is there to take it */
    memmove(flow->bytes, flow->bytes + at, flow->got - at);
    flow->got -= at;
    flow->cleared -= at;
}

static void cut_all(struct proxy *proxy)
{
    for (unsigned i = 0; i < CONNECTIONS_MAX; i++) {
        struct connection *c = &proxy->connections[i];
        if (!c->used)
            continue;
        for (unsigned way = 0; way < 2; way++)
            forward(proxy, c, way);
        forget(c);
    }
}

static void mute_all(struct proxy *proxy)
{
    for (unsigned i = 0; i < CONNECTIONS_MAX; i++)
        proxy->connections[i].mute = true;
}

/* ---- messages --------------------------------------------------------------------------------- */

static struct rule *rule_for(struct proxy *proxy, unsigned way, unsigned type)
{
    struct rule *found = NULL;
    for (unsigned i = 0; i < proxy->rule_count; i++) {
        struct rule *rule = &proxy->rules[i];
        if (rule->way != way || rule->type != type || rule->struck)
            continue;
        if (++rule->seen == rule->nth && !found)
            found = rule;
    }
    return found;
}

/* Return: false if the connection is gone, or the flow is held. */
static bool strike(struct proxy *proxy, struct connection *c, unsigned way, struct rule *rule,
                   size_t frame_bytes)
{
    struct flow *flow = &c->flow[way];
    rule->struck = true;
    rule->connection = c;
    proxy->refuse |= rule->refuses;
    switch (rule->act) {
    case PROXY_CUT:
        cut_all(proxy);
        return false;
    case PROXY_CUT_AFTER:
        GW_EXPECT_LE(flow->cleared + frame_bytes, flow->got);
        flow->cleared += frame_bytes;
        proxy->passed[way][rule->type]++;
        cut_all(proxy);
        return false;
    case PROXY_SILENCE:
        mute_all(proxy);
        return false;
    case PROXY_HOLD:
    case PROXY_PART:
        flow->held_by = (unsigned)(rule - proxy->rules);
        forward(proxy, c, way);
        if (rule->act == PROXY_PART)
            close_end(c, way);
        return false;
    case PROXY_AGAIN:
        rule->copy_bytes = frame_bytes;
        memcpy(rule->copy, flow->bytes + flow->cleared, frame_bytes);
        return true;
    }
    return true;
}

static void parse(struct proxy *proxy, struct connection *c, unsigned way)
{
    struct flow *flow = &c->flow[way];
    while (c->used && !c->mute && flow->held_by == NO_RULE) {
        size_t left = flow->got - flow->cleared;
        const uint8_t *at = flow->bytes + flow->cleared;
        if (flow->skip > 0) {
            size_t bytes = gw_min_u64(flow->skip, left);
            flow->cleared += bytes;
            flow->skip -= bytes;
            if (flow->skip > 0)
                return;
            continue;
        }
        if (!flow->opened) {
            if (left < GW_PREFACE_BYTES)
                return;
            if (way == PROXY_TO_TARGET) {
                c->is_control = gw_be16_load(at + 24) == 0;
                proxy->control_count += c->is_control;
            }
            flow->opened = true;
            flow->cleared += GW_PREFACE_BYTES;
            continue;
        }
        struct gw_frame_head head;
        const char *why = "";
        if (left < GW_FRAME_HEAD_BYTES)
            return;
        if (gw_frame_head_decode(at, UINT32_MAX, &head, &why) < 0) {
            GW_NOTE_FAILURE("a frame to %s: %s", where[way], why);
            forget(c);
            return;
        }
        size_t bytes = GW_FRAME_HEAD_BYTES + (size_t)head.table_bytes + head.payload_bytes;
        if (head.kind == GW_FRAME_MESSAGE) {
            if (left < GW_FRAME_HEAD_BYTES + 2)
                return;
            unsigned type = gw_be16_load(at + GW_FRAME_HEAD_BYTES);
            bool small = bytes <= sizeof(proxy->rules[0].copy);
            if (small && left < bytes)
                return; /* whole, in case a rule wants it */
            struct rule *rule = rule_for(proxy, way, type);
            if (rule && !strike(proxy, c, way, rule, bytes))
                return;
            if (type < TYPES_MAX)
                proxy->passed[way][type]++;
        }
        flow->skip = bytes;
    }
}

/* ---- the thread --------------------------------------------------------------------------------- */

static void take_connection(struct proxy *proxy)
{
    int fd = accept4(proxy->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    struct connection *c = NULL;
    for (unsigned i = 0; i < CONNECTIONS_MAX && !c; i++) {
        if (!proxy->connections[i].used)
            c = &proxy->connections[i];
    }
    int onward = proxy->refuse || !c ? -1 : socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (onward < 0 ||
        connect(onward, (const struct sockaddr *)&proxy->target, sizeof(proxy->target)) < 0) {
        close(fd);
        if (onward >= 0)
            close(onward);
        return;
    }
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    setsockopt(onward, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    memset(c, 0, sizeof(*c));
    c->used = true;
    c->fd[PROXY_TO_TARGET] = fd;
    c->fd[PROXY_TO_SOURCE] = onward;
    for (unsigned way = 0; way < 2; way++) {
        c->flow[way].bytes = malloc(FLOW_BYTES);
        c->flow[way].held_by = NO_RULE;
    }
}

/* One end said that no more will come: the other goes when what waits for it is gone. */
static void ended(struct connection *c, unsigned end)
{
    close_end(c, end);
    if (c->flow[end].got == 0 || c->fd[!end] < 0)
        forget(c);
}

static void serve(struct proxy *proxy, struct connection *c, unsigned way, short events)
{
    struct flow *flow = &c->flow[way];
    if (!(events & (POLLIN | POLLHUP | POLLERR)) || c->fd[way] < 0)
        return;
    if (flow->got == FLOW_BYTES)
        return;
    ssize_t n = recv(c->fd[way], flow->bytes + flow->got, FLOW_BYTES - flow->got, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        ended(c, way);
        return;
    }
    flow->got += (size_t)n;
    if (c->fd[!way] < 0) { /* PART: nobody is there any more */
        flow->got = flow->cleared = 0;
        flow->skip = 0;
        return;
    }
    parse(proxy, c, way);
    if (c->used && !c->mute)
        forward(proxy, c, way);
}

static unsigned gather(struct proxy *proxy, struct pollfd *fds, struct connection **who,
                       unsigned *ways)
{
    unsigned count = 0;
    fds[count++] = (struct pollfd){.fd = proxy->wake, .events = POLLIN};
    fds[count++] = (struct pollfd){.fd = proxy->listener, .events = POLLIN};
    for (unsigned i = 0; i < CONNECTIONS_MAX; i++) {
        struct connection *c = &proxy->connections[i];
        for (unsigned way = 0; c->used && !c->mute && way < 2; way++) {
            if (c->fd[way] < 0)
                continue;
            short events = c->flow[way].got < FLOW_BYTES ? POLLIN : 0;
            if (c->flow[!way].cleared > 0)
                events |= POLLOUT;
            if (events == 0)
                continue; /* held, and full */
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
    struct proxy *proxy = arg;
    struct pollfd fds[FDS_MAX];
    struct connection *who[FDS_MAX];
    unsigned ways[FDS_MAX];
    pthread_mutex_lock(&proxy->lock);
    while (!proxy->quit) {
        unsigned count = gather(proxy, fds, who, ways);
        pthread_mutex_unlock(&proxy->lock);
        poll(fds, count, -1);
        pthread_mutex_lock(&proxy->lock);
        uint64_t ignored;
        if (fds[0].revents && read(proxy->wake, &ignored, sizeof(ignored)) < 0)
            continue;
        for (unsigned i = 2; i < count; i++) {
            struct connection *c = who[i];
            unsigned way = ways[i];
            if (!c->used || c->mute || c->fd[way] != fds[i].fd)
                continue; /* an earlier one of this turn, or a test, closed it */
            if (fds[i].revents & POLLOUT)
                forward(proxy, c, !way);
            if (c->used)
                serve(proxy, c, way, fds[i].revents);
            if (c->used && !c->mute && c->fd[way] < 0 && c->flow[way].got == 0)
                forget(c);
            if (c->used && c->fd[0] < 0 && c->fd[1] < 0)
                forget(c);
        }
        if (fds[1].revents)
            take_connection(proxy);
    }
    pthread_mutex_unlock(&proxy->lock);
    return NULL;
}

/* ---- for the test ------------------------------------------------------------------------------- */

static void wake(struct proxy *proxy)
{
    uint64_t one = 1;
    GW_EXPECT_EQ(write(proxy->wake, &one, sizeof(one)), (ssize_t)sizeof(one));
}

struct proxy *proxy_new(const char *target_uri)
{
    struct proxy *proxy = calloc(1, sizeof(*proxy));
    GW_ASSERT(proxy != NULL);
    pthread_mutex_init(&proxy->lock, NULL);
    proxy->target = loopback_address(target_uri);
    proxy->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    proxy->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    loopback_listen(proxy->listener, proxy->uri, sizeof(proxy->uri));
    GW_ASSERT_EQ(pthread_create(&proxy->thread, NULL, relay, proxy), 0);
    return proxy;
}

void proxy_free(struct proxy *proxy)
{
    if (!proxy)
        return;
    pthread_mutex_lock(&proxy->lock);
    proxy->quit = true;
    pthread_mutex_unlock(&proxy->lock);
    wake(proxy);
    pthread_join(proxy->thread, NULL);
    for (unsigned i = 0; i < CONNECTIONS_MAX; i++) {
        if (proxy->connections[i].used)
            forget(&proxy->connections[i]);
    }
    close(proxy->listener);
    close(proxy->wake);
    pthread_mutex_destroy(&proxy->lock);
    free(proxy);
}

const char *proxy_uri(const struct proxy *proxy)
{
    return proxy->uri;
}

void proxy_set_target(struct proxy *proxy, const char *target_uri)
{
    struct sockaddr_in address = loopback_address(target_uri);
    pthread_mutex_lock(&proxy->lock);
    proxy->target = address;
    pthread_mutex_unlock(&proxy->lock);
}

unsigned proxy_on(struct proxy *proxy, enum proxy_way way, enum gw_message_type type, unsigned nth,
                  enum proxy_act act)
{
    pthread_mutex_lock(&proxy->lock);
    unsigned id = proxy->rule_count++;
    proxy->rules[id % RULES_MAX] = (struct rule){.way = way, .type = type, .nth = nth, .act = act};
    pthread_mutex_unlock(&proxy->lock);
    GW_ASSERT_LT(id, RULES_MAX);
    return id;
}

bool proxy_has_struck(struct proxy *proxy, unsigned rule)
{
    pthread_mutex_lock(&proxy->lock);
    bool struck = proxy->rules[rule].struck;
    pthread_mutex_unlock(&proxy->lock);
    return struck;
}

static void release_locked(struct proxy *proxy, struct rule *rule, unsigned id)
{
    struct connection *c = rule->connection;
    unsigned way = rule->way;
    if (!rule->struck || rule->released || !c->used)
        return;
    rule->released = true;
    if (rule->act == PROXY_AGAIN) {
        /* It may stand behind what waits for its own release, but not inside a frame. */
        if (c->fd[!way] >= 0 && c->flow[way].cleared == 0 && c->flow[way].skip == 0)
            GW_EXPECT_EQ(send(c->fd[!way], rule->copy, rule->copy_bytes, MSG_NOSIGNAL),
                         (ssize_t)rule->copy_bytes);
        return;
    }
    if (c->flow[way].held_by != id)
        return;
    c->flow[way].held_by = NO_RULE;
    /* The message at its head has struck already: count it as passed and go on behind it. */
    struct gw_frame_head head;
    const char *why;
    if (gw_frame_head_decode(c->flow[way].bytes, UINT32_MAX, &head, &why) == 0)
        c->flow[way].skip = GW_FRAME_HEAD_BYTES + head.table_bytes + head.payload_bytes;
    proxy->passed[way][rule->type]++;
    parse(proxy, c, way);
    if (c->used)
        forward(proxy, c, way);
    if (c->used && c->fd[way] < 0)
        forget(c);
}

void proxy_release(struct proxy *proxy, unsigned rule)
{
    pthread_mutex_lock(&proxy->lock);
    release_locked(proxy, &proxy->rules[rule], rule);
    pthread_mutex_unlock(&proxy->lock);
    wake(proxy);
}

void proxy_cut(struct proxy *proxy)
{
    pthread_mutex_lock(&proxy->lock);
    cut_all(proxy);
    pthread_mutex_unlock(&proxy->lock);
    wake(proxy);
}

void proxy_refuse(struct proxy *proxy, bool refuse)
{
    pthread_mutex_lock(&proxy->lock);
    proxy->refuse = refuse;
    pthread_mutex_unlock(&proxy->lock);
}

void proxy_refuse_after(struct proxy *proxy, unsigned rule)
{
    pthread_mutex_lock(&proxy->lock);
    proxy->rules[rule].refuses = true;
    pthread_mutex_unlock(&proxy->lock);
}

void proxy_crumble(struct proxy *proxy)
{
    pthread_mutex_lock(&proxy->lock);
    proxy->crumble = true;
    pthread_mutex_unlock(&proxy->lock);
}

unsigned proxy_passed(struct proxy *proxy, enum proxy_way way, enum gw_message_type type)
{
    pthread_mutex_lock(&proxy->lock);
    unsigned passed = (unsigned)type < TYPES_MAX ? proxy->passed[way][type] : 0;
    pthread_mutex_unlock(&proxy->lock);
    return passed;
}

unsigned proxy_connections(struct proxy *proxy)
{
    pthread_mutex_lock(&proxy->lock);
    unsigned count = proxy->control_count;
    pthread_mutex_unlock(&proxy->lock);
    return count;
}
