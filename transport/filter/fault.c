// SPDX-License-Identifier: MIT
/* The filter fault+: a link that misbehaves on purpose, as the rules of its address say (fault.h), at
 * the ops table: above frames and packets, so that it is the same on every wire.
 *
 * Here an endpoint is opened with its share of the rules, asked about, and closed; what passes through it
 * is fault_traffic.c's. It wraps the target's place callbacks, because a put that comes in shows there
 * alone, and regions, because a put names one.
 *
 * Opening fails where a rule refuses the connection, or is malformed. Once a fault has struck, the
 * connection below is gone, and questions are answered by what was last known of it. */
#include "transport/filter/fault_impl.h"

#include "core/base/alloc.h"
#include "core/base/bytes.h"

/* ---- opening ---- */

static const char *const params[] = {"seed", "do", NULL};

static int check_query(const struct gw_uri *uri, struct gw_error *err)
{
    struct gw_fault_plan plan;
    return gw_fault_plan_init(&plan, uri, 0, 1, err);
}

static uint64_t amount(const struct gw_fault *f, enum gw_fault_action action, unsigned way,
                       uint64_t otherwise)
{
    const struct gw_fault_rule *rule = gw_fault_find(&f->plan, action, way);
    return rule ? rule->amount : otherwise;
}

static void read_plan(struct gw_fault *f)
{
    f->window = (unsigned)gw_min_u64(amount(f, GW_FAULT_WINDOW, GW_FAULT_OUT, GW_FAULT_SLOTS),
                                     GW_FAULT_SLOTS);
    f->take = (unsigned)gw_min_u64(amount(f, GW_FAULT_TAKE, GW_FAULT_OUT, GW_FAULT_SLOTS),
                                   GW_FAULT_SLOTS);
    f->line.piece_bytes =
        (uint32_t)gw_min_u64(amount(f, GW_FAULT_PIECES, GW_FAULT_OUT, 0), UINT32_MAX);
    f->line.rate = amount(f, GW_FAULT_RATE, GW_FAULT_OUT, 0);
    f->rate_in = amount(f, GW_FAULT_RATE, GW_FAULT_IN, 0);
    f->plain = f->plan.count == 0;
}

static int allocate(struct gw_fault *f)
{
    int rc = gw_fault_line_init(&f->line, f->message_bytes_max);
    bool holds = gw_fault_find(&f->plan, GW_FAULT_DELAY, GW_FAULT_IN) != NULL;
    f->held = holds ? gw_zalloc(1, f->message_bytes_max) : NULL;
    return rc == 0 && holds && !f->held ? -ENOMEM : rc;
}

static void endpoint_free(struct gw_filter_endpoint *ep)
{
    struct gw_fault *f = (struct gw_fault *)ep;
    gw_fault_line_fini(&f->line);
    gw_free(f->held);
    gw_free(f);
}

static int endpoint_new(const struct gw_filter_open *open, struct gw_filter_endpoint **ep,
                        struct gw_error *err)
{
    const struct gw_wire_config *config = open->config;
    struct gw_fault *f = gw_zalloc(1, sizeof(*f));
    if (!f)
        return gw_fail(err, -ENOMEM, "fault: endpoint %u", config->index);
    f->err = (struct gw_error)GW_ERROR_INIT;
    f->index = config->index;
    f->message_bytes_max =
        config->message_bytes_max ? config->message_bytes_max : GW_MESSAGE_BYTES_DEFAULT;
    int rc = gw_fault_plan_init(&f->plan, open->uri, config->index, open->attempt, err);
    if (rc < 0)
        goto out;
    read_plan(f);
    const struct gw_fault_rule *refused = gw_fault_find(&f->plan, GW_FAULT_REFUSE, GW_FAULT_OUT);
    if (refused) {
        rc = gw_fail_code(err, -ECONNREFUSED, GW_CODE_CONNECT,
                          "endpoint %u, attempt %u: refused on purpose: do=%s", config->index,
                          open->attempt, refused->text);
        gw_error_hint(err, "the address asks for it with fault+");
        goto out;
    }
    rc = f->plain ? 0 : allocate(f);
    if (rc < 0) {
        gw_fail(err, rc, "fault: endpoint %u", config->index);
        goto out;
    }
    if (!f->plain && open->side == GW_FILTER_TARGET) {
        f->place = config->place;
        f->place_ctx = config->place_ctx;
        open->config->place = &gw_fault_place;
        open->config->place_ctx = f;
    }
    *ep = &f->base;
    return 0;
out:
    endpoint_free(&f->base);
    return rc;
}

static void endpoint_opened(struct gw_filter_endpoint *ep)
{
    struct gw_fault *f = (struct gw_fault *)ep;
    struct gw_ep_attr attr;
    if (f->plain)
        return;
    gw_ep_query(f->base.inner, &attr);
    f->window = (unsigned)gw_min_u64(f->window, attr.put_window);
    gw_fault_opened(f);
}

/* ---- what it answers ---- */

static void fault_query(const struct gw_endpoint *ep, struct gw_ep_attr *attr)
{
    const struct gw_fault *f = (const struct gw_fault *)ep;
    if (!f->base.inner) {
        *attr = f->last;
        attr->tx_pending = false;
        return;
    }
    gw_ep_query(f->base.inner, attr);
    if (f->plain) {
        attr->put_count_max = (uint32_t)gw_min_u64(attr->put_count_max, GW_FAULT_BATCH);
        return;
    }
    attr->put_window = (uint32_t)gw_min_u64(attr->put_window, f->window);
    attr->put_count_max = (uint32_t)gw_min_u64(attr->put_count_max, f->take);
    attr->tx_pending |= f->line.item_count > 0;
    if (f->mute_in)
        attr->rx_bytes = f->mute_rx_bytes;
}

static int fault_error(const struct gw_endpoint *ep, struct gw_error *err)
{
    const struct gw_fault *f = (const struct gw_fault *)ep;
    if (f->rc == 0 || f->inner_dead)
        return gw_ep_error(f->base.inner, err);
    gw_error_copy(err, &f->err);
    return f->rc;
}

static void fault_shutdown(struct gw_endpoint *ep)
{
    struct gw_fault *f = gw_fault_of(ep);
    if (f->plain)
        gw_ep_shutdown(f->base.inner);
    else
        atomic_store_explicit(&f->shut, true, memory_order_relaxed);
}

static void fault_revoke(struct gw_endpoint *ep)
{
    if (gw_fault_of(ep)->base.inner)
        gw_ep_revoke(gw_fault_of(ep)->base.inner);
}

/* ---- closing, and regions ---- */

static void fault_close(struct gw_endpoint *ep)
{
    gw_ep_close(gw_fault_of(ep)->base.inner);
    endpoint_free(gw_filter_endpoint_of(ep));
}

static int fault_rmr_open(struct gw_domain *dom, uint32_t region, uint64_t bytes, const void *key,
                          size_t key_bytes, struct gw_rmr **rmr, struct gw_error *err)
{
    struct gw_fault_rmr *r = gw_zalloc(1, sizeof(*r));
    if (!r)
        return gw_fail(err, -ENOMEM, "region %u of the peer", region);
    r->base.ops = dom->ops;
    r->bytes = bytes;
    int rc = gw_filter_rmr_open(dom, region, bytes, key, key_bytes, &r->inner, err);
    if (rc < 0)
        gw_free(r);
    else
        *rmr = &r->base;
    return rc;
}

static void fault_rmr_close(struct gw_rmr *rmr)
{
    struct gw_fault_rmr *r = (struct gw_fault_rmr *)rmr;
    gw_rmr_close(r->inner);
    gw_free(r);
}

/* ---- the table ---- */

static const struct gw_transport_ops fault_ops = {
    .scheme = "fault",
    .domain_open = gw_filter_no_domain_open,
    .domain_close = gw_filter_domain_close,
    .connect = gw_filter_connect,
    .listen = gw_filter_listen,
    .listener_uri = gw_filter_listener_uri,
    .accept = gw_filter_accept,
    .listener_arm = gw_filter_listener_arm,
    .listener_awake = gw_filter_listener_awake,
    .listener_close = gw_filter_listener_close,
    .query = fault_query,
    .error = fault_error,
    .shutdown = fault_shutdown,
    .revoke = fault_revoke,
    .close = fault_close,
    .mr_reg = gw_filter_mr_reg,
    .mr_dereg = gw_filter_mr_dereg,
    .mr_pack = gw_filter_mr_pack,
    .rmr_open = fault_rmr_open,
    .rmr_close = fault_rmr_close,
    .put = gw_fault_put,
    .get = gw_fault_get,
    .poll = gw_fault_poll,
    .send = gw_fault_send,
    .recv = gw_fault_recv,
    .arm = gw_fault_arm,
    .awake = gw_fault_awake,
};

const struct gw_filter gw_fault_filter = {
    .name = "fault",
    .params = params,
    .ops = &fault_ops,
    .domain_bytes = sizeof(struct gw_filter_domain),
    .check = check_query,
    .endpoint_new = endpoint_new,
    .endpoint_opened = endpoint_opened,
    .endpoint_free = endpoint_free,
};
