// SPDX-License-Identifier: MIT
/* loop:name, loop1:name - both ends in one process: names that are listened at, connecting to them, and
 * the tables of both wires.
 *
 * Who connects hangs a *dial* into the listener's line and sleeps in short naps until it is answered. Who
 * accepts takes the dials that have arrived, asks for admission with the lock open, and makes the link
 * with both of its ends at once; the connecting thread finds its own in the dial.
 *
 * A dial that nobody asks about times out and leaves the line by itself; one that is being asked about
 * stays, because the accepter holds it. A listener that goes, or crashes with its owner, resets the
 * dials that wait. */
#include "transport/loop/loop_impl.h"

#include "core/base/alloc.h"
#include "core/base/bytes.h"
#include "core/base/clock.h"
#include "transport/backends.h"
#include "transport/stream.h"
#include "transport/stubs.h"

#include <stdio.h>
#include <string.h>

struct dial {
    struct dial *next;
    struct gw_preface preface;
    const struct gw_wire_config *config;
    struct gw_domain *dom;
    int owner;
    uint64_t arrive_ns;
    bool asked, answered;
    enum gw_admission admission;
    int rc;
    struct gw_endpoint *ep;
};

struct loop_listener {
    struct gw_listener base; /* its table tells loop: from loop1: */
    struct loop_listener *next;
    char name[256];
    char uri[GW_URI_BYTES_MAX];
    uint8_t security;
    int owner;
    bool listed;
    struct dial *dials;
};

static struct loop_listener *listeners; /* guarded by gw_loop_lock */

static struct loop_listener *listener_of(const struct gw_listener *ln)
{
    return (struct loop_listener *)(uintptr_t)ln;
}

/* ---- connecting ------------------------------------------------------------------------------- */

static struct loop_listener *find_locked(const struct gw_transport_ops *ops, const char *name)
{
    for (struct loop_listener *l = listeners; l; l = l->next) {
        if (l->base.ops == ops && strcmp(l->name, name) == 0)
            return l;
    }
    return NULL;
}

static void unqueue_locked(struct dial **list, const struct dial *dial)
{
    for (; *list; list = &(*list)->next) {
        if (*list == dial) {
            *list = dial->next;
            return;
        }
    }
}

static void dial_wait(struct dial *dial, const char *name, uint64_t deadline_ns)
{
    for (;;) {
        pthread_mutex_lock(&gw_loop_lock);
        if (!dial->answered && !dial->asked && gw_clock_ns() >= deadline_ns) {
            struct loop_listener *l = find_locked(dial->dom->ops, name);
            if (l)
                unqueue_locked(&l->dials, dial);
            dial->rc = -ETIMEDOUT;
            dial->answered = true;
        }
        bool answered = dial->answered;
        pthread_mutex_unlock(&gw_loop_lock);
        if (answered)
            return;
        gw_clock_poll(NULL, 0, gw_clock_ns() + GW_LOOP_DOZE_NS);
    }
}

static int dial_result(struct dial *dial, const struct gw_uri *uri, struct gw_error *err)
{
    uint8_t answer[GW_PREFACE_BYTES];
    if (dial->rc < 0) {
        gw_fail_code(err, dial->rc, dial->rc == -ETIMEDOUT ? GW_CODE_TIMEOUT : GW_CODE_CONNECT,
                     "%s: connect: %s", uri->text, strerror(-dial->rc));
        gw_error_hint(err, "does a target listen there, in this process?");
        return dial->rc;
    }
    gw_answer_encode(&dial->preface, dial->admission, answer);
    return gw_answer_check(&dial->preface, answer, err);
}

static int loop_connect(struct gw_domain *dom, const struct gw_uri *uri,
                        const struct gw_wire_config *config, struct gw_endpoint **ep,
                        struct gw_error *err)
{
    uint64_t delay_ns = 0;
    struct dial dial = {.config = config,
                        .dom = dom,
                        .owner = gw_loop_owner(),
                        .preface = {.version = GW_PREFACE_VERSION,
                                    .index = config->index,
                                    .security = config->security}};
    memcpy(dial.preface.session, config->session, GW_SESSION_BYTES);
    uint64_t deadline_ns =
        config->deadline_ns ? config->deadline_ns : gw_clock_ns() + 10 * GW_NS_PER_S;
    dial.rc = gw_loop_dial(uri, config->index, &delay_ns);
    dial.arrive_ns = gw_loop_world_ns() + delay_ns;
    pthread_mutex_lock(&gw_loop_lock);
    struct loop_listener *l = find_locked(dom->ops, uri->path);
    if (!l && dial.rc == 0)
        dial.rc = -ECONNREFUSED;
    dial.answered = dial.rc < 0 && dial.rc != -ETIMEDOUT;
    if (dial.rc == 0) {
        struct dial **at = &l->dials;
        while (*at)
            at = &(*at)->next;
        *at = &dial;
    }
    pthread_mutex_unlock(&gw_loop_lock);
    dial_wait(&dial, uri->path, deadline_ns);
    int rc = dial_result(&dial, uri, err);
    if (rc == 0)
        *ep = dial.ep;
    return rc;
}

/* ---- accepting -------------------------------------------------------------------------------- */

/* Both ends of one connection. */
static int connect_locked(struct dial *dial, struct gw_domain *dom,
                          const struct gw_wire_config *config, struct gw_endpoint **accepted)
{
    struct gw_loop_link *link = gw_loop_link_new();
    struct gw_endpoint *ours = link ? gw_loop_ep_new(dom, &dial->preface, config, link, 1) : NULL;
    dial->ep = ours ? gw_loop_ep_new(dial->dom, &dial->preface, dial->config, link, 0) : NULL;
    if (!dial->ep) {
        gw_free(ours);
        gw_free(link);
        return -ENOMEM;
    }
    gw_loop_link_list_locked(link, dial->owner, gw_loop_owner());
    *accepted = ours;
    return 0;
}

static void answer_locked(struct loop_listener *l, struct dial *dial, enum gw_admission admission,
                          int rc)
{
    unqueue_locked(&l->dials, dial);
    dial->admission = admission;
    dial->rc = rc;
    dial->answered = true;
}

static enum gw_admission ask(struct loop_listener *l, struct dial *dial, gw_admit_fn *admit,
                             void *admit_ctx, struct gw_domain **dom, struct gw_wire_config *config)
{
    if (dial->preface.security != l->security)
        return GW_ADMIT_SECURITY;
    if (dial->preface.index >= GW_ENDPOINTS_MAX)
        return GW_ADMIT_INDEX;
    *config =
        (struct gw_wire_config){.index = dial->preface.index, .security = dial->preface.security};
    memcpy(config->session, dial->preface.session, GW_SESSION_BYTES);
    return admit(admit_ctx, &dial->preface, dom, config);
}

static struct dial *next_dial_locked(const struct loop_listener *l, const struct dial *behind)
{
    uint64_t now_ns = gw_loop_world_ns();
    for (struct dial *dial = behind ? behind->next : l->dials; dial; dial = dial->next) {
        if (dial->arrive_ns <= now_ns)
            return dial;
    }
    return NULL;
}

static int loop_accept(struct gw_listener *ln, gw_admit_fn *admit, void *admit_ctx,
                       struct gw_endpoint **ep, struct gw_error *err)
{
    struct loop_listener *l = listener_of(ln);
    struct gw_endpoint *accepted = NULL;
    (void)err;
    pthread_mutex_lock(&gw_loop_lock);
    for (struct dial *dial = next_dial_locked(l, NULL), *next; dial && !accepted; dial = next) {
        struct gw_domain *dom = NULL;
        struct gw_wire_config config;
        dial->asked = true; /* it now waits for us, whatever its deadline says */
        pthread_mutex_unlock(&gw_loop_lock);
        enum gw_admission admission = ask(l, dial, admit, admit_ctx, &dom, &config);
        pthread_mutex_lock(&gw_loop_lock);
        dial->asked = false;
        next = next_dial_locked(l, dial);
        if (admission == GW_ADMIT_LATER) {
            dial->arrive_ns = gw_loop_world_ns() + GW_LOOP_DOZE_NS;
            continue;
        }
        int rc = admission == GW_ADMIT_OK ? connect_locked(dial, dom, &config, &accepted) : 0;
        answer_locked(l, dial, admission, rc);
    }
    pthread_mutex_unlock(&gw_loop_lock);
    if (accepted)
        *ep = accepted;
    return accepted != NULL;
}

/* ---- listening -------------------------------------------------------------------------------- */

static int listen_at(const struct gw_transport_ops *ops, const struct gw_uri *uri,
                     const struct gw_wire_config *config, struct gw_listener **ln,
                     struct gw_error *err)
{
    struct loop_listener *l = gw_zalloc(1, sizeof(*l));
    if (!l)
        return gw_fail(err, -ENOMEM, "%s: listen", uri->text);
    l->base.ops = ops;
    l->security = config->security;
    l->owner = gw_loop_owner();
    l->listed = true;
    snprintf(l->name, sizeof(l->name), "%s", uri->path);
    snprintf(l->uri, sizeof(l->uri), "%s:%s", ops->scheme, uri->path);
    pthread_mutex_lock(&gw_loop_lock);
    bool taken = find_locked(ops, l->name) != NULL;
    if (!taken) {
        l->next = listeners;
        listeners = l;
    }
    pthread_mutex_unlock(&gw_loop_lock);
    if (taken) {
        gw_free(l);
        gw_fail_code(err, -EADDRINUSE, GW_CODE_LISTEN, "%s: listen: the name is taken", uri->text);
        gw_error_hint(err, "another target of this process listens there");
        return -EADDRINUSE;
    }
    *ln = &l->base;
    return 0;
}

static int loop_listen(const struct gw_uri *uri, const struct gw_wire_config *config,
                       struct gw_listener **ln, struct gw_error *err)
{
    return listen_at(&gw_loop_ops, uri, config, ln, err);
}

static int loop1_listen(const struct gw_uri *uri, const struct gw_wire_config *config,
                        struct gw_listener **ln, struct gw_error *err)
{
    return listen_at(&gw_loop1_ops, uri, config, ln, err);
}

static const char *loop_listener_uri(const struct gw_listener *ln)
{
    return listener_of(ln)->uri;
}

static int loop_listener_arm(struct gw_listener *ln, struct pollfd *fds, unsigned max,
                             uint64_t *wake_ns)
{
    struct loop_listener *l = listener_of(ln);
    (void)fds, (void)max;
    pthread_mutex_lock(&gw_loop_lock);
    for (struct dial *dial = l->dials; dial; dial = dial->next)
        *wake_ns = gw_loop_wake_at(dial->arrive_ns, *wake_ns);
    *wake_ns = gw_loop_doze(*wake_ns);
    pthread_mutex_unlock(&gw_loop_lock);
    return 0;
}

static void loop_listener_awake(struct gw_listener *ln, const struct pollfd *fds, unsigned count)
{
    (void)ln, (void)fds, (void)count;
}

static void unlist_locked(struct loop_listener *l)
{
    while (l->dials)
        answer_locked(l, l->dials, GW_ADMIT_OK, -ECONNRESET);
    struct loop_listener **at = &listeners;
    while (l->listed && *at != l)
        at = &(*at)->next;
    if (l->listed)
        *at = l->next;
    l->listed = false;
}

static void loop_listener_close(struct gw_listener *ln)
{
    struct loop_listener *l = listener_of(ln);
    pthread_mutex_lock(&gw_loop_lock);
    unlist_locked(l);
    pthread_mutex_unlock(&gw_loop_lock);
    gw_free(l);
}

void gw_loop_crash(int owner, uint64_t after_ns)
{
    pthread_mutex_lock(&gw_loop_lock);
    gw_loop_link_crash_locked(owner, after_ns);
    for (struct loop_listener *l = listeners, *next; l; l = next) {
        next = l->next;
        if (l->owner == owner)
            unlist_locked(l);
    }
    pthread_mutex_unlock(&gw_loop_lock);
}

/* ---- the table -------------------------------------------------------------------------------- */

static int loop_domain_open(const struct gw_wire_config *config, struct gw_domain **dom,
                            struct gw_error *err)
{
    (void)config;
    return gw_stream_domain_new(&gw_loop_ops, dom, err);
}

const struct gw_transport_ops gw_loop_ops = {
    .scheme = "loop",
    .flags = GW_EP_REPLIES | GW_EP_RECONNECTS | GW_EP_IN_PROCESS,
    .domain_open = loop_domain_open,
    .domain_close = gw_stream_domain_close,
    .connect = loop_connect,
    .listen = loop_listen,
    .listener_uri = loop_listener_uri,
    .accept = loop_accept,
    .listener_arm = loop_listener_arm,
    .listener_awake = loop_listener_awake,
    .listener_close = loop_listener_close,
    .query = gw_loop_ep_query,
    .error = gw_loop_ep_error,
    .shutdown = gw_loop_ep_shutdown,
    .revoke = gw_loop_ep_revoke,
    .close = gw_loop_ep_close,
    .mr_reg = gw_stream_mr_reg,
    .mr_dereg = gw_stream_mr_dereg,
    .mr_pack = gw_stub_mr_pack,
    .rmr_open = gw_stream_rmr_open,
    .rmr_close = gw_stream_rmr_close,
    .put = gw_loop_ep_put,
    .get = gw_stub_get,
    .poll = gw_loop_ep_poll,
    .send = gw_loop_ep_send,
    .recv = gw_loop_ep_recv,
    .arm = gw_loop_ep_arm,
    .awake = gw_loop_ep_awake,
};

const struct gw_transport_ops gw_loop1_ops = {
    .scheme = "loop1",
    .flags = GW_EP_REPLIES | GW_EP_RECONNECTS | GW_EP_IN_PROCESS | GW_EP_ONE_SIDED |
             GW_EP_ZERO_COPY | GW_EP_PINS,
    .domain_open = gw_loop1_domain_open,
    .domain_close = gw_loop1_domain_close,
    .connect = loop_connect,
    .listen = loop1_listen,
    .listener_uri = loop_listener_uri,
    .accept = loop_accept,
    .listener_arm = loop_listener_arm,
    .listener_awake = loop_listener_awake,
    .listener_close = loop_listener_close,
    .query = gw_loop_ep_query,
    .error = gw_loop_ep_error,
    .shutdown = gw_loop_ep_shutdown,
    .revoke = gw_loop_ep_revoke,
    .close = gw_loop_ep_close,
    .mr_reg = gw_loop1_mr_reg,
    .mr_dereg = gw_loop1_mr_dereg,
    .mr_pack = gw_loop1_mr_pack,
    .rmr_open = gw_loop1_rmr_open,
    .rmr_close = gw_loop1_rmr_close,
    .put = gw_loop_ep_put,
    .get = gw_stub_get,
    .poll = gw_loop_ep_poll,
    .send = gw_loop_ep_send,
    .recv = gw_loop_ep_recv,
    .arm = gw_loop_ep_arm,
    .awake = gw_loop_ep_awake,
};
