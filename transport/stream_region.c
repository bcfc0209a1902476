// SPDX-License-Identifier: MIT
/* A stream's domain: the regions that peers may put into, by number, in an array that grows with the
 * highest number (a lookup is an index). A readers-writer lock lets every endpoint's thread look up
 * while the target still registers; a reader keeps it during its readv, so when gw_mr_dereg returns
 * nobody writes to that memory any more. Local registrations only carry their description. */
#include "core/base/alloc.h"
#include "core/base/bytes.h"
#include "transport/stream.h"

int gw_stream_domain_new(const struct gw_transport_ops *ops, struct gw_domain **dom,
                         struct gw_error *err)
{
    struct gw_stream_domain *d = gw_zalloc(1, sizeof(*d));
    if (!d)
        return gw_fail(err, -ENOMEM, "domain of wire '%s'", ops->scheme);
    d->base.ops = ops;
    int rc = pthread_rwlock_init(&d->regions_lock, NULL);
    if (rc != 0) {
        gw_free(d);
        return gw_fail(err, -rc, "domain of wire '%s': lock", ops->scheme);
    }
    *dom = &d->base;
    return 0;
}

void gw_stream_domain_close(struct gw_domain *dom)
{
    struct gw_stream_domain *d = (struct gw_stream_domain *)dom;
    for (uint32_t i = 0; i < d->region_capacity; i++)
        gw_assert(d->regions[i] == NULL); /* registrations end before their domain */
    pthread_rwlock_destroy(&d->regions_lock);
    gw_free(d->regions);
    gw_free(d);
}

static int grow_locked(struct gw_stream_domain *d, uint32_t region)
{
    uint32_t capacity = d->region_capacity ? d->region_capacity : 16;
    while (capacity <= region)
        capacity *= 2;
    if (capacity == d->region_capacity)
        return 0;
    struct gw_stream_mr **regions = gw_realloc(d->regions, capacity, sizeof(struct gw_stream_mr *));
    if (!regions)
        return -ENOMEM;
    for (uint32_t i = d->region_capacity; i < capacity; i++)
        regions[i] = NULL;
    d->regions = regions;
    d->region_capacity = capacity;
    return 0;
}

static int publish(struct gw_stream_domain *d, struct gw_stream_mr *m, struct gw_error *err)
{
    uint32_t region = m->desc.region;
    if (region >= GW_REGIONS_MAX) /* our own mistake, not a peer's: it is a block's id */
        return gw_fail(err, -E2BIG, "region %u: numbers end at %u", region, GW_REGIONS_MAX - 1);
    pthread_rwlock_wrlock(&d->regions_lock);
    int rc = grow_locked(d, region);
    if (rc == 0 && d->regions[region])
        rc = -EEXIST;
    if (rc == 0) {
        d->regions[region] = m;
        d->regions_version++;
    }
    pthread_rwlock_unlock(&d->regions_lock);
    return rc < 0 ? gw_fail(err, rc, "region %u: register", region) : 0;
}

int gw_stream_mr_reg(struct gw_domain *dom, const struct gw_mr_desc *desc, struct gw_mr **mr,
                     struct gw_error *err)
{
    if (desc->bytes == 0 || desc->bytes > UINTPTR_MAX - (uintptr_t)desc->addr)
        return gw_fail(err, -EINVAL, "region %u: %llu bytes at %p are no range", desc->region,
                       (unsigned long long)desc->bytes, desc->addr);
    struct gw_stream_mr *m = gw_zalloc(1, sizeof(*m));
    if (!m)
        return gw_fail(err, -ENOMEM, "region %u: register", desc->region);
    m->base.ops = dom->ops;
    m->dom = (struct gw_stream_domain *)dom;
    m->desc = *desc;
    if (desc->access & GW_MR_REMOTE_WRITE) {
        int rc = publish(m->dom, m, err);
        if (rc < 0) {
            gw_free(m);
            return rc;
        }
    }
    *mr = &m->base;
    return 0;
}

void gw_stream_mr_dereg(struct gw_mr *mr)
{
    struct gw_stream_mr *m = (struct gw_stream_mr *)mr;
    struct gw_stream_domain *d = m->dom;
    if (m->desc.access & GW_MR_REMOTE_WRITE) {
        pthread_rwlock_wrlock(&d->regions_lock);
        d->regions[m->desc.region] = NULL;
        d->regions_version++;
        pthread_rwlock_unlock(&d->regions_lock);
    }
    gw_free(m);
}

int gw_stream_rmr_open(struct gw_domain *dom, uint32_t region, uint64_t bytes, const void *key,
                       size_t key_bytes, struct gw_rmr **rmr, struct gw_error *err)
{
    (void)key;
    (void)key_bytes;
    struct gw_stream_rmr *r = gw_zalloc(1, sizeof(*r));
    if (!r)
        return gw_fail(err, -ENOMEM, "region %u of the peer", region);
    r->base.ops = dom->ops;
    r->region = region;
    r->bytes = bytes;
    *rmr = &r->base;
    return 0;
}

void gw_stream_rmr_close(struct gw_rmr *rmr)
{
    gw_free(rmr);
}

void *gw_stream_region_at_locked(const struct gw_stream_domain *dom,
                                 const struct gw_frame_entry *entry, const char **why)
{
    const struct gw_stream_mr *m =
        entry->region < dom->region_capacity ? dom->regions[entry->region] : NULL;
    if (!m) {
        *why = "the region is not registered here";
        return NULL;
    }
    if (!gw_range_is_inside(entry->offset, entry->bytes, m->desc.bytes)) {
        *why = "the range leaves the region";
        return NULL;
    }
    return (uint8_t *)m->desc.addr + entry->offset;
}
