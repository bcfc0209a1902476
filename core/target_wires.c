// SPDX-License-Identifier: MIT
/* x-wire at the target: a HELLO that names page wires gets listeners on those that can be had here, made by
 * a job, for finding a device or a provider may take a while; the reply names their addresses. They take
 * page endpoints only, of this session, all over one of them or all over control's wire: the first
 * decides. They are looked at until the guest's memory is made, and closed at the end. */
#include "core/target.h"

#include "core/memlock.h"

#include <string.h>

struct gw_domain *gw_target_page_dom(const struct gw_target *tgt)
{
    return tgt->page_wire ? tgt->page_wire->dom : tgt->dom;
}

uint32_t gw_target_page_flags(const struct gw_target *tgt)
{
    return gw_wires_flags(tgt->page_wire ? &tgt->page_wire->uri : &tgt->uri);
}

/* ---- listening -------------------------------------------------------------------------------- */

static int open_wire(struct gw_target *tgt, const char *name, struct gw_target_wire *wire,
                     struct gw_error *err)
{
    struct gw_wire_config config = {.peer_timeout_ns = tgt->reply.peer_timeout_ns,
                                    .log = &tgt->log,
                                    .rdma_odp = tgt->params.rdma_odp,
                                    .rdma_gid = tgt->params.rdma_gid_index == GW_RDMA_GID_ANY
                                                    ? 0
                                                    : 1 + (unsigned)tgt->params.rdma_gid_index,
                                    .rdma_device = gw_params_device(tgt->params.rdma_device)};
    int rc = gw_wires_beside(name, &tgt->bound, &wire->uri, err);

    if (rc == 0)
        rc = gw_wires_fit(&wire->uri, tgt->reply.endpoints, tgt->params.registered_bytes_max,
                          GW_CHUNK_BYTES_MIN, err);
    if (rc == 0)
        rc = gw_domain_open(wire->uri.scheme, &config, &wire->dom, err);
    if (rc == 0)
        rc = gw_listen(&wire->uri, &config, &wire->listener, err);
    if (rc < 0) {
        gw_domain_close(wire->dom);
        *wire = (struct gw_target_wire){.tgt = tgt};
    }
    return rc;
}

static void listen_run(struct gw_job *job)
{
    struct gw_target *tgt = GW_CONTAINER_OF(job, struct gw_target, work.job);
    const char *at = tgt->hello.wires;
    char name[GW_WIRE_WORD_BYTES];

    while (tgt->wires_made < GW_WIRES_MAX && gw_wires_next(&at, name, sizeof(name))) {
        struct gw_target_wire *wire = &tgt->wires[tgt->wires_made];
        struct gw_error err = GW_ERROR_INIT;
        *wire = (struct gw_target_wire){.tgt = tgt};
        if (open_wire(tgt, name, wire, &err) < 0) {
            gw_log_info(&tgt->log, "target", "no pages over %s: %s", name, err.message);
            gw_wires_lack(tgt->reply.wires_lacking, name, err.message);
            continue;
        }
        if (!gw_wires_add(tgt->reply.wires, gw_listener_uri(wire->listener))) {
            gw_listener_close(wire->listener);
            gw_domain_close(wire->dom);
            break;
        }
        tgt->wires_made++;
    }
}

static void listen_done(struct gw_mail *mail, void *engine)
{
    struct gw_target *tgt = engine;
    uint32_t flags = gw_wires_flags(&tgt->uri);

    (void)mail;
    tgt->work.busy = false;
    tgt->wire_count = tgt->wires_made;
    if (tgt->step != GW_TGT_OFFER)
        return; /* given up meanwhile */
    for (unsigned i = 0; i < tgt->wire_count; i++)
        flags |= gw_wires_flags(&tgt->wires[i].uri);
    tgt->reply.memlock_bytes =
        gw_memlock_budget(flags, tgt->reply.endpoints, tgt->params.registered_bytes_max);
    gw_target_say_reply(tgt);
}

bool gw_target_wires_asked(struct gw_target *tgt)
{
    if (tgt->hello.wires[0] == '\0')
        return false;
    tgt->wires_made = 0;
    gw_target_post(tgt, &tgt->work, listen_run, listen_done);
    return true;
}

/* ---- page endpoints --------------------------------------------------------------------------- */

static enum gw_admission admit(void *ctx, const struct gw_preface *preface, struct gw_domain **dom,
                               struct gw_wire_config *config)
{
    struct gw_target_wire *wire = ctx;

    if (preface->index == 0)
        return GW_ADMIT_INDEX;
    enum gw_admission admission = gw_target_admit_page(wire->tgt, wire, preface, config);
    *dom = wire->dom;
    return admission;
}

static bool is_listening(const struct gw_target *tgt)
{
    return tgt->step == GW_TGT_OFFER && !tgt->work.busy;
}

/* Before BLOCKS no endpoint is bound to anything: a source may leave a wire that fails for the next. */
static bool may_change(const struct gw_target *tgt)
{
    return tgt->step == GW_TGT_OFFER && tgt->page_wire && tgt->page_open_count > 0 &&
           tgt->offer_count == 0;
}

bool gw_target_wires_is_leaving(const struct gw_target *tgt, const struct gw_target_wire *wire)
{
    return may_change(tgt) && tgt->page_wire != wire;
}

bool gw_target_wires_lost(struct gw_target *tgt, const struct gw_error *err)
{
    if (!may_change(tgt))
        return false;
    gw_log_info(&tgt->log, "target", "no pages over %s: %s", tgt->page_wire->uri.text,
                err->message);
    tgt->page_wire->failed = true;
    tgt->page_wire->why = *err;
    return true;
}

/* Its listener goes as well: a source that comes back to a wire that failed would do so for ever. */
static void give_up_failed(struct gw_target *tgt)
{
    struct gw_target_wire *wire = tgt->page_wire;
    if (!wire || !wire->failed || !may_change(tgt))
        return;
    for (unsigned i = 0; i < tgt->reply.endpoints; i++) {
        if (tgt->page_open[i])
            gw_page_in_halt(tgt->pages[i]);
        tgt->page_open[i] = false;
    }
    tgt->page_open_count = 0;
    tgt->page_wire = NULL;
    gw_listener_close(wire->listener);
    wire->listener = NULL;
    pthread_mutex_lock(&tgt->stats_lock);
    gw_wire_label(&tgt->uri, tgt->stats.wire_name, sizeof(tgt->stats.wire_name));
    pthread_mutex_unlock(&tgt->stats_lock);
}

/* They are in the order of HELLO, which is that in which the source tries them; control's comes last. */
void gw_target_wires_move_on(struct gw_target *tgt, struct gw_target_wire *wire)
{
    if (!may_change(tgt) || (wire && wire <= tgt->page_wire))
        return;
    tgt->page_wire->failed = true;
    give_up_failed(tgt);
}

void gw_target_wires_accept(struct gw_target *tgt)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_endpoint *ep = NULL;

    give_up_failed(tgt);
    for (unsigned i = 0; i < tgt->wire_count && is_listening(tgt); i++) {
        int rc = 0;
        while (is_listening(tgt) && tgt->wires[i].listener &&
               (rc = gw_accept(tgt->wires[i].listener, admit, &tgt->wires[i], &ep, &err)) > 0)
            gw_target_add_page(tgt, &tgt->wires[i], ep);
        if (rc < 0) {
            gw_target_fail(tgt, &err);
            return;
        }
    }
}

int gw_target_wires_arm(struct gw_target *tgt, struct pollfd *fds, uint64_t *wake_ns)
{
    int count = 0;

    tgt->armed.wire_count = is_listening(tgt) ? tgt->wire_count : 0;
    for (unsigned i = 0; i < tgt->armed.wire_count; i++) {
        if (tgt->wires[i].listener)
            count += gw_listener_arm(tgt->wires[i].listener, &fds[count], GW_WIRE_FDS_MAX, wake_ns);
        tgt->armed.wires[i] = (unsigned)count;
    }
    return count;
}

void gw_target_wires_awake(struct gw_target *tgt, const struct pollfd *fds)
{
    unsigned at = 0;

    for (unsigned i = 0; i < tgt->armed.wire_count; i++) {
        if (tgt->wires[i].listener)
            gw_listener_awake(tgt->wires[i].listener, &fds[at], tgt->armed.wires[i] - at);
        at = tgt->armed.wires[i];
    }
}

void gw_target_wires_close(struct gw_target *tgt)
{
    for (unsigned i = 0; i < tgt->wire_count; i++) {
        gw_listener_close(tgt->wires[i].listener);
        gw_domain_close(tgt->wires[i].dom);
    }
    tgt->wire_count = 0;
    tgt->page_wire = NULL;
}
