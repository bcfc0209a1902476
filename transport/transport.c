// SPDX-License-Identifier: MIT
/* The list of wires, and the way from each gw_ call to the backend's op of the same name. Nothing
 * else lives here: an object's first member is its table, and outputs are set by the backend on
 * success only. */
#include "transport/transport.h"

#include "gw_config.h"
#include "transport/backends.h"
#include "transport/filter/filter.h"

#include <stdio.h>
#include <string.h>

static const struct gw_transport_ops *const backends[] = {
    &gw_tcp_ops,  &gw_unix_ops, &gw_loop_ops, &gw_loop1_ops,
#if GW_HAVE_RDMA
    &gw_rdma_ops,
#endif
#if GW_HAVE_OFI
    &gw_ofi_ops,
#endif
};

#define BACKEND_COUNT (sizeof(backends) / sizeof(backends[0]))

/* Wires that a build lacks for want of what they are made with. */
static const struct {
    const char *scheme, *parts;
} optional[] = {
    {"rdma", "libibverbs and librdmacm"},
    {"ofi", "libfabric"},
};

static int no_wire(struct gw_error *err, const char *scheme)
{
    const char *wire = gw_filter_wire(scheme);
    for (size_t i = 0; i < sizeof(optional) / sizeof(optional[0]); i++) {
        if (strcmp(optional[i].scheme, wire) != 0)
            continue;
        int rc = gw_fail(err, -EINVAL, "no wire '%s' in this build: it was built without %s",
                         scheme, optional[i].parts);
        gw_error_hint(err, "install %s with their headers and build again, or use tcp",
                      optional[i].parts);
        return rc;
    }
    return gw_fail(err, -EINVAL, "no wire '%s' in this build", scheme);
}

static const struct gw_transport_ops *find(const char *scheme)
{
    const struct gw_filter *filter = gw_filter_of(scheme);
    if (filter)
        return filter->ops;
    for (size_t i = 0; i < BACKEND_COUNT; i++) {
        if (strcmp(backends[i]->scheme, scheme) == 0)
            return backends[i];
    }
    return NULL;
}

int gw_wire_check(const char *scheme, struct gw_error *err)
{
    return gw_wire_name(scheme) ? 0 : no_wire(err, scheme);
}

const char *gw_wire_name(const char *scheme)
{
    const struct gw_transport_ops *ops = find(gw_filter_wire(scheme));
    return ops ? ops->scheme : NULL;
}

void gw_wire_label(const struct gw_uri *uri, char *text, size_t bytes)
{
    const char *name = gw_wire_name(uri->scheme);
    snprintf(text, bytes, "%s%s%s", name ? name : "?", uri->provider[0] ? ":" : "", uri->provider);
}

const char *gw_wire_scheme(unsigned index)
{
    return index < BACKEND_COUNT ? backends[index]->scheme : NULL;
}

uint32_t gw_wire_flags(const char *scheme)
{
    const struct gw_transport_ops *ops = find(gw_filter_wire(scheme));
    return ops ? ops->flags : 0;
}

/* fi_getinfo of libfabric 1.17 asks for no FI_MR_ALLOCATED of these, alone or under ofi_rxm and ofi_rxd. */
bool gw_provider_pins(const char *provider)
{
    static const char *const free_ones[] = {"net", "shm", "sockets", "tcp", "udp"};
    size_t bytes = strcspn(provider, ";");
    for (size_t i = 0; i < sizeof(free_ones) / sizeof(free_ones[0]); i++) {
        if (strlen(free_ones[i]) == bytes && strncmp(provider, free_ones[i], bytes) == 0)
            return false;
    }
    return true;
}

int gw_domain_open(const char *scheme, const struct gw_wire_config *config, struct gw_domain **dom,
                   struct gw_error *err)
{
    const struct gw_transport_ops *ops = find(scheme);
    if (!ops)
        return no_wire(err, scheme);
    if (gw_filter_of(scheme))
        return gw_filter_domain_open(scheme, config, dom, err);
    return ops->domain_open(config, dom, err);
}

void gw_domain_close(struct gw_domain *dom)
{
    if (dom)
        dom->ops->domain_close(dom);
}

int gw_connect(struct gw_domain *dom, const struct gw_uri *uri, const struct gw_wire_config *config,
               struct gw_endpoint **ep, struct gw_error *err)
{
    const struct gw_transport_ops *ops = find(uri->scheme);
    if (!ops || ops != dom->ops)
        return gw_fail(err, -EINVAL, "%s: a domain of wire '%s' cannot connect there", uri->text,
                       dom->ops->scheme);
    return dom->ops->connect(dom, uri, config, ep, err);
}

int gw_listen(const struct gw_uri *uri, const struct gw_wire_config *config,
              struct gw_listener **ln, struct gw_error *err)
{
    const struct gw_transport_ops *ops = find(uri->scheme);
    if (!ops) {
        int rc = no_wire(err, uri->scheme);
        gw_error_prefix(err, "%s", uri->text);
        return rc;
    }
    return ops->listen(uri, config, ln, err);
}

const char *gw_listener_uri(const struct gw_listener *ln)
{
    return ln->ops->listener_uri(ln);
}

int gw_accept(struct gw_listener *ln, gw_admit_fn *admit, void *admit_ctx, struct gw_endpoint **ep,
              struct gw_error *err)
{
    return ln->ops->accept(ln, admit, admit_ctx, ep, err);
}

int gw_listener_arm(struct gw_listener *ln, struct pollfd *fds, unsigned max, uint64_t *wake_ns)
{
    return ln->ops->listener_arm(ln, fds, max, wake_ns);
}

void gw_listener_awake(struct gw_listener *ln, const struct pollfd *fds, unsigned count)
{
    ln->ops->listener_awake(ln, fds, count);
}

void gw_listener_close(struct gw_listener *ln)
{
    if (ln)
        ln->ops->listener_close(ln);
}

void gw_ep_query(const struct gw_endpoint *ep, struct gw_ep_attr *attr)
{
    memset(attr, 0, sizeof(*attr));
    ep->ops->query(ep, attr);
}

int gw_ep_error(const struct gw_endpoint *ep, struct gw_error *err)
{
    return ep->ops->error(ep, err);
}

void gw_ep_shutdown(struct gw_endpoint *ep)
{
    ep->ops->shutdown(ep);
}

void gw_ep_revoke(struct gw_endpoint *ep)
{
    ep->ops->revoke(ep);
}

void gw_ep_close(struct gw_endpoint *ep)
{
    if (ep)
        ep->ops->close(ep);
}

int gw_mr_reg(struct gw_domain *dom, const struct gw_mr_desc *desc, struct gw_mr **mr,
              struct gw_error *err)
{
    return dom->ops->mr_reg(dom, desc, mr, err);
}

void gw_mr_dereg(struct gw_mr *mr)
{
    if (mr)
        mr->ops->mr_dereg(mr);
}

int gw_mr_pack(const struct gw_mr *mr, void *key)
{
    return mr->ops->mr_pack(mr, key);
}

int gw_rmr_open(struct gw_domain *dom, uint32_t region, uint64_t bytes, const void *key,
                size_t key_bytes, struct gw_rmr **rmr, struct gw_error *err)
{
    return dom->ops->rmr_open(dom, region, bytes, key, key_bytes, rmr, err);
}

void gw_rmr_close(struct gw_rmr *rmr)
{
    if (rmr)
        rmr->ops->rmr_close(rmr);
}

int gw_put(struct gw_endpoint *ep, const struct gw_put *puts, unsigned count)
{
    return ep->ops->put(ep, puts, count);
}

int gw_get(struct gw_endpoint *ep, const struct gw_get *gets, unsigned count)
{
    return ep->ops->get(ep, gets, count);
}

int gw_poll(struct gw_endpoint *ep, struct gw_completion *done, unsigned max)
{
    return ep->ops->poll(ep, done, max);
}

int gw_send(struct gw_endpoint *ep, const struct iovec *iov, int iov_count)
{
    return ep->ops->send(ep, iov, iov_count);
}

ssize_t gw_recv(struct gw_endpoint *ep, void *buf, size_t bytes)
{
    return ep->ops->recv(ep, buf, bytes);
}

int gw_ep_arm(struct gw_endpoint *ep, struct pollfd *fds, unsigned max, uint64_t *wake_ns)
{
    return ep->ops->arm(ep, fds, max, wake_ns);
}

void gw_ep_awake(struct gw_endpoint *ep, const struct pollfd *fds, unsigned count)
{
    ep->ops->awake(ep, fds, count);
}
