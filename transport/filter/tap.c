// SPDX-License-Identifier: MIT
/* The filter tap+: every message and every put of a connection, as the side that uses it says and
 * hears them, into a file for each connection. Out: what the wire has accepted. In: messages as they
 * are handed out, puts as they are placed (a one-sided target is not told of those). With payload=on
 * the bytes of puts are recorded too, at the source as they are when the put is accepted: a page that
 * the guest writes meanwhile differs from what left, but then it leaves again.
 *
 * A file that cannot be made refuses the connection; one that cannot be written any more is told to
 * the log and the migration goes on. */
#include "transport/filter/tap.h"
#include "core/base/alloc.h"
#include "core/base/bytes.h"
#include "core/base/clock.h"
#include "transport/filter/filter.h"

#include <stdio.h>
#include <string.h>

struct tap_mr {
    struct gw_mr base;
    struct gw_mr *inner;
    struct tap_domain *dom;
    struct tap_mr *next; /* of those that the peer may put into */
    struct gw_mr_desc desc;
};

struct tap_rmr {
    struct gw_rmr base;
    struct gw_rmr *inner;
    uint32_t region;
};

struct tap_domain {
    struct gw_filter_domain base;
    pthread_rwlock_t regions_lock; /* guards regions; held while their memory is read */
    struct tap_mr *regions;
};

struct tap {
    struct gw_filter_endpoint base;
    struct tap_domain *dom;
    const struct gw_place_ops *place; /* the owner's; may be NULL */
    void *place_ctx;
    bool has_bytes;
    struct gw_tap_file file;
    struct gw_put puts[GW_TAP_ENTRIES_MAX];
    struct iovec iov[1 + GW_TAP_ENTRIES_MAX];
    uint8_t table[GW_TAP_ENTRIES_MAX * GW_TAP_ENTRY_BYTES];
};

static struct tap *tap_of(struct gw_endpoint *ep)
{
    return (struct tap *)ep;
}

/* ---- parameters ---- */

static const char *const params[] = {"dir", "payload", NULL};

#define DIR_BYTES_MAX 400

struct plan {
    char dir[DIR_BYTES_MAX + 1];
    bool has_bytes;
};

static int parse(const struct gw_uri *uri, struct plan *plan, struct gw_error *err)
{
    struct gw_query query;
    int rc;
    *plan = (struct plan){.has_bytes = false};
    gw_query_begin(&query, uri);
    while ((rc = gw_query_next(&query, err)) > 0) {
        if (strcmp(query.name, "dir") == 0) {
            if (strlen(query.value) > DIR_BYTES_MAX)
                return gw_fail(err, -EINVAL, "dir= is longer than %d bytes", DIR_BYTES_MAX);
            memcpy(plan->dir, query.value, strlen(query.value) + 1);
        } else if (strcmp(query.name, "payload") == 0) {
            plan->has_bytes = strcmp(query.value, "on") == 0;
            if (!plan->has_bytes && strcmp(query.value, "off") != 0) {
                rc = gw_fail(err, -EINVAL, "payload='%.40s'", query.value);
                gw_error_hint(err, "payload=on records the bytes of puts, payload=off does not");
                return rc;
            }
        }
    }
    if (rc == 0 && plan->dir[0] == '\0') {
        rc = gw_fail(err, -EINVAL, "tap: no folder for the recording");
        gw_error_hint(err, "for example tap+tcp:host:4444?dir=recording");
    }
    return rc;
}

static int check(const struct gw_uri *uri, struct gw_error *err)
{
    struct plan plan;
    return parse(uri, &plan, err);
}

/* ---- regions ---- */

static int domain_init(struct gw_filter_domain *dom, struct gw_error *err)
{
    int rc = -pthread_rwlock_init(&((struct tap_domain *)dom)->regions_lock, NULL);
    return rc < 0 ? gw_fail(err, rc, "tap: lock") : 0;
}

static void domain_fini(struct gw_filter_domain *dom)
{
    struct tap_domain *d = (struct tap_domain *)dom;
    gw_assert(d->regions == NULL);
    pthread_rwlock_destroy(&d->regions_lock);
}

static int tap_mr_reg(struct gw_domain *dom, const struct gw_mr_desc *desc, struct gw_mr **mr,
                      struct gw_error *err)
{
    struct tap_domain *d = (struct tap_domain *)dom;
    struct tap_mr *m = gw_zalloc(1, sizeof(*m));
    if (!m)
        return gw_fail(err, -ENOMEM, "region %u: register", desc->region);
    m->base.ops = dom->ops;
    m->dom = d;
    m->desc = *desc;
    int rc = gw_mr_reg(d->base.inner, desc, &m->inner, err);
    if (rc < 0) {
        gw_free(m);
        return rc;
    }
    if (desc->access & GW_MR_REMOTE_WRITE) {
        pthread_rwlock_wrlock(&d->regions_lock);
        m->next = d->regions;
        d->regions = m;
        pthread_rwlock_unlock(&d->regions_lock);
    }
    *mr = &m->base;
    return 0;
}

static void tap_mr_dereg(struct gw_mr *mr)
{
    struct tap_mr *m = (struct tap_mr *)mr;
    if (m->desc.access & GW_MR_REMOTE_WRITE) {
        /* Waits for a recording that reads this memory. */
        pthread_rwlock_wrlock(&m->dom->regions_lock);
        struct tap_mr **at = &m->dom->regions;
        while (*at != m)
            at = &(*at)->next;
        *at = m->next;
        pthread_rwlock_unlock(&m->dom->regions_lock);
    }
    gw_mr_dereg(m->inner);
    gw_free(m);
}

static int tap_mr_pack(const struct gw_mr *mr, void *key)
{
    return gw_mr_pack(((const struct tap_mr *)mr)->inner, key);
}

static int tap_rmr_open(struct gw_domain *dom, uint32_t region, uint64_t bytes, const void *key,
                        size_t key_bytes, struct gw_rmr **rmr, struct gw_error *err)
{
    struct tap_rmr *r = gw_zalloc(1, sizeof(*r));
    if (!r)
        return gw_fail(err, -ENOMEM, "region %u of the peer", region);
    r->base.ops = dom->ops;
    r->region = region;
    int rc =
        gw_rmr_open(gw_filter_domain_of(dom)->inner, region, bytes, key, key_bytes, &r->inner, err);
    if (rc < 0)
        gw_free(r);
    else
        *rmr = &r->base;
    return rc;
}

static void tap_rmr_close(struct gw_rmr *rmr)
{
    struct tap_rmr *r = (struct tap_rmr *)rmr;
    gw_rmr_close(r->inner);
    gw_free(r);
}

/* ---- what is placed here ---- */

static void entry_store(uint8_t *at, uint32_t region, uint32_t bytes, uint64_t offset)
{
    gw_be32_store(at, region);
    gw_be32_store(at + 4, bytes);
    gw_be64_store(at + 8, offset);
}

static int place_check(void *ctx, uint32_t region, uint64_t offset, uint32_t bytes)
{
    struct tap *tap = ctx;
    if (!tap->place || !tap->place->check)
        return 0;
    return tap->place->check(tap->place_ctx, region, offset, bytes);
}

/* The region's memory may be taken back by another thread: it is read under the lock. */
static void record_placed(struct tap *tap, uint32_t region, uint64_t offset, uint32_t bytes)
{
    struct iovec iov[2] = {{.iov_base = tap->table, .iov_len = GW_TAP_ENTRY_BYTES}};
    entry_store(tap->table, region, bytes, offset);
    if (!tap->has_bytes) {
        gw_tap_file_add(&tap->file, gw_clock_ns(), GW_TAP_PUTS, GW_TAP_IN, 1, iov, 1);
        return;
    }
    pthread_rwlock_rdlock(&tap->dom->regions_lock);
    const struct tap_mr *m = tap->dom->regions;
    while (m && m->desc.region != region)
        m = m->next;
    if (m && gw_range_is_inside(offset, bytes, m->desc.bytes)) {
        iov[1] = (struct iovec){.iov_base = (uint8_t *)m->desc.addr + offset, .iov_len = bytes};
        gw_tap_file_add(&tap->file, gw_clock_ns(), GW_TAP_PUTS, GW_TAP_IN, 1, iov, 2);
    }
    pthread_rwlock_unlock(&tap->dom->regions_lock);
}

static void place_placed(void *ctx, uint32_t region, uint64_t offset, uint32_t bytes)
{
    struct tap *tap = ctx;
    if (tap->file.fd >= 0)
        record_placed(tap, region, offset, bytes);
    if (tap->place && tap->place->placed)
        tap->place->placed(tap->place_ctx, region, offset, bytes);
}

static const struct gw_place_ops tap_place = {.check = place_check, .placed = place_placed};

/* ---- endpoints ---- */

static int endpoint_new(const struct gw_filter_open *open, struct gw_filter_endpoint **ep,
                        struct gw_error *err)
{
    struct plan plan;
    int rc = parse(open->uri, &plan, err);
    if (rc < 0)
        return rc;
    struct tap *tap = gw_zalloc(1, sizeof(*tap));
    if (!tap)
        return gw_fail(err, -ENOMEM, "tap: endpoint %u", open->config->index);
    struct gw_tap_head head = {.index = open->config->index,
                               .side = (uint8_t)open->side,
                               .flags = plan.has_bytes ? GW_TAP_HAS_BYTES : 0,
                               .attempt = open->attempt};
    memcpy(head.session, open->config->session, sizeof(head.session));
    snprintf(head.wire, sizeof(head.wire), "%.15s", gw_filter_wire(open->uri->scheme));
    rc = gw_tap_file_create(&tap->file, plan.dir, &head, open->config->log, err);
    if (rc < 0) {
        gw_free(tap);
        return rc;
    }
    tap->dom = (struct tap_domain *)open->dom;
    tap->has_bytes = plan.has_bytes;
    tap->place = open->config->place;
    tap->place_ctx = open->config->place_ctx;
    if (open->side == GW_FILTER_TARGET) {
        open->config->place = &tap_place;
        open->config->place_ctx = tap;
    }
    *ep = &tap->base;
    return 0;
}

static void endpoint_free(struct gw_filter_endpoint *ep)
{
    struct tap *tap = (struct tap *)ep;
    gw_tap_file_discard(&tap->file);
    gw_free(tap);
}

static void tap_close(struct gw_endpoint *ep)
{
    struct tap *tap = tap_of(ep);
    struct gw_error err = GW_ERROR_INIT;
    uint8_t number[4];
    gw_be32_store(number, (uint32_t)-gw_ep_error(tap->base.inner, &err));
    struct iovec iov[2] = {{.iov_base = number, .iov_len = sizeof(number)},
                           {.iov_base = err.message, .iov_len = strlen(err.message)}};
    /* The wire below first: it may place a last put. */
    gw_ep_close(tap->base.inner);
    gw_tap_file_add(&tap->file, gw_clock_ns(), GW_TAP_END, GW_TAP_OUT, 0, iov, 2);
    gw_tap_file_close(&tap->file);
    gw_free(tap);
}

static void tap_revoke(struct gw_endpoint *ep)
{
    struct tap *tap = tap_of(ep);
    gw_ep_revoke(tap->base.inner);
    gw_tap_file_add(&tap->file, gw_clock_ns(), GW_TAP_REVOKE, GW_TAP_OUT, 0, NULL, 0);
}

/* ---- traffic ---- */

static void record_puts(struct tap *tap, uint64_t at_ns, const struct gw_put *puts, unsigned count)
{
    unsigned n = 1;
    for (unsigned i = 0; i < count; i++) {
        const struct tap_rmr *r = (const struct tap_rmr *)puts[i].rmr;
        entry_store(tap->table + (size_t)i * GW_TAP_ENTRY_BYTES, r->region, puts[i].bytes,
                    puts[i].offset);
        if (tap->has_bytes)
            tap->iov[n++] = (struct iovec){.iov_base = (void *)(uintptr_t)puts[i].local,
                                           .iov_len = puts[i].bytes};
    }
    tap->iov[0] =
        (struct iovec){.iov_base = tap->table, .iov_len = (size_t)count * GW_TAP_ENTRY_BYTES};
    gw_tap_file_add(&tap->file, at_ns, GW_TAP_PUTS, GW_TAP_OUT, count, tap->iov, n);
}

static int tap_put(struct gw_endpoint *ep, const struct gw_put *puts, unsigned count)
{
    struct tap *tap = tap_of(ep);
    if (count > GW_TAP_ENTRIES_MAX)
        count = GW_TAP_ENTRIES_MAX;
    for (unsigned i = 0; i < count; i++) {
        tap->puts[i] = puts[i];
        tap->puts[i].mr = puts[i].mr ? ((struct tap_mr *)puts[i].mr)->inner : NULL;
        tap->puts[i].rmr = ((struct tap_rmr *)puts[i].rmr)->inner;
    }
    uint64_t at_ns = gw_clock_ns();
    int n = gw_put(tap->base.inner, tap->puts, count);
    if (n > 0)
        record_puts(tap, at_ns, puts, (unsigned)n);
    return n;
}

static int tap_get(struct gw_endpoint *ep, const struct gw_get *gets, unsigned count)
{
    (void)ep;
    (void)gets;
    (void)count;
    return -EOPNOTSUPP; /* as every wire, so far */
}

static int tap_poll(struct gw_endpoint *ep, struct gw_completion *done, unsigned max)
{
    return gw_poll(tap_of(ep)->base.inner, done, max);
}

static int tap_send(struct gw_endpoint *ep, const struct iovec *iov, int iov_count)
{
    struct tap *tap = tap_of(ep);
    uint64_t at_ns = gw_clock_ns();
    int rc = gw_send(tap->base.inner, iov, iov_count);
    if (rc == 0)
        gw_tap_file_add(&tap->file, at_ns, GW_TAP_MESSAGE, GW_TAP_OUT, 0, iov, (unsigned)iov_count);
    return rc;
}

static ssize_t tap_recv(struct gw_endpoint *ep, void *buf, size_t bytes)
{
    struct tap *tap = tap_of(ep);
    ssize_t n = gw_recv(tap->base.inner, buf, bytes);
    if (n >= 0) {
        struct iovec iov = {.iov_base = buf, .iov_len = (size_t)n};
        gw_tap_file_add(&tap->file, gw_clock_ns(), GW_TAP_MESSAGE, GW_TAP_IN, 0, &iov, 1);
    }
    return n;
}

static int tap_arm(struct gw_endpoint *ep, struct pollfd *fds, unsigned max, uint64_t *wake_ns)
{
    struct tap *tap = tap_of(ep);
    int n = gw_ep_arm(tap->base.inner, fds, max, wake_ns);
    if (*wake_ns != 0)
        gw_tap_file_flush(&tap->file);
    return n;
}

static void tap_awake(struct gw_endpoint *ep, const struct pollfd *fds, unsigned count)
{
    gw_ep_awake(tap_of(ep)->base.inner, fds, count);
}

static const struct gw_transport_ops tap_ops = {
    .scheme = "tap",
    .domain_open = gw_filter_no_domain_open,
    .domain_close = gw_filter_domain_close,
    .connect = gw_filter_connect,
    .listen = gw_filter_listen,
    .listener_uri = gw_filter_listener_uri,
    .accept = gw_filter_accept,
    .listener_arm = gw_filter_listener_arm,
    .listener_awake = gw_filter_listener_awake,
    .listener_close = gw_filter_listener_close,
    .query = gw_filter_query,
    .error = gw_filter_error,
    .shutdown = gw_filter_shutdown,
    .revoke = tap_revoke,
    .close = tap_close,
    .mr_reg = tap_mr_reg,
    .mr_dereg = tap_mr_dereg,
    .mr_pack = tap_mr_pack,
    .rmr_open = tap_rmr_open,
    .rmr_close = tap_rmr_close,
    .put = tap_put,
    .get = tap_get,
    .poll = tap_poll,
    .send = tap_send,
    .recv = tap_recv,
    .arm = tap_arm,
    .awake = tap_awake,
};

const struct gw_filter gw_tap_filter = {
    .name = "tap",
    .params = params,
    .ops = &tap_ops,
    .domain_bytes = sizeof(struct tap_domain),
    .domain_init = domain_init,
    .domain_fini = domain_fini,
    .check = check,
    .endpoint_new = endpoint_new,
    .endpoint_free = endpoint_free,
};
