// SPDX-License-Identifier: MIT
/* What loop1: registers. A domain is one side of one migration. Registering faults the range in for
 * writing, as a NIC's pin does, so that every dirty source takes all of it for written, and charges the
 * side's budget, if a test has set one; a key is a number that was never given before. What is
 * deregistered was landed in until then and is dead from then on. */
#include "core/base/alloc.h"
#include "core/base/bytes.h"
#include "transport/backends.h"
#include "transport/loop/loop_impl.h"

#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

static const struct gw_loop_pins *pins;
static uint64_t keys_given; /* guarded by gw_loop_lock */

void gw_loop_set_pins(const struct gw_loop_pins *fresh)
{
    pins = fresh;
}

int gw_loop1_domain_open(const struct gw_wire_config *config, struct gw_domain **dom,
                         struct gw_error *err)
{
    (void)config;
    struct gw_loop_domain *d = gw_zalloc(1, sizeof(*d));
    if (!d)
        return gw_fail(err, -ENOMEM, "domain of wire 'loop1'");
    d->base.ops = &gw_loop1_ops;
    d->owner = gw_loop_owner();
    *dom = &d->base;
    return 0;
}

void gw_loop1_domain_close(struct gw_domain *dom)
{
    struct gw_loop_domain *d = (struct gw_loop_domain *)dom;
    gw_assert(!d->mrs); /* registrations end before their domain */
    gw_free(d);
}

/* ---- registrations ---------------------------------------------------------------------------- */

static uint64_t charge(struct gw_loop_domain *d, uint64_t bytes)
{
    pthread_mutex_lock(&gw_loop_lock);
    uint64_t registered_bytes = d->registered_bytes += bytes;
    pthread_mutex_unlock(&gw_loop_lock);
    return registered_bytes;
}

/* Whole pages, whatever part of them is registered. */
static int populate(const struct gw_mr_desc *desc)
{
    uintptr_t first = (uintptr_t)desc->addr & ~(uintptr_t)4095;
    uintptr_t end = ((uintptr_t)desc->addr + desc->bytes + 4095) & ~(uintptr_t)4095;
    if (madvise((void *)first, end - first, MADV_POPULATE_WRITE) == 0)
        return 0;
    if (errno == EFAULT || errno == ENOMEM)
        return -ENOMEM;
    for (uintptr_t at = first; at < end; at += 4096) /* a kernel that does not know it */
        __atomic_fetch_add((uint32_t *)at, 0, __ATOMIC_RELAXED);
    return 0;
}

int gw_loop1_mr_reg(struct gw_domain *dom, const struct gw_mr_desc *desc, struct gw_mr **mr,
                    struct gw_error *err)
{
    struct gw_loop_domain *d = (struct gw_loop_domain *)dom;
    if (desc->bytes == 0 || desc->bytes > UINTPTR_MAX - (uintptr_t)desc->addr)
        return gw_fail(err, -EINVAL, "register %" PRIu64 " bytes: no range", desc->bytes);
    struct gw_loop_mr *m = gw_zalloc(1, sizeof(*m));
    if (!m)
        return gw_fail(err, -ENOMEM, "register %" PRIu64 " bytes", desc->bytes);
    uint64_t registered_bytes = charge(d, desc->bytes);
    int rc = pins && pins->charge ? pins->charge(d->owner, desc, registered_bytes) : 0;
    if (rc == 0 && pins && pins->pin)
        pins->pin(d->owner, desc);
    else if (rc == 0)
        rc = populate(desc);
    if (rc < 0) {
        charge(d, -desc->bytes);
        gw_free(m);
        return gw_fail(err, rc, "register %" PRIu64 " bytes: %s", desc->bytes, strerror(-rc));
    }
    m->base.ops = &gw_loop1_ops;
    m->dom = d;
    m->desc = *desc;
    pthread_mutex_lock(&gw_loop_lock);
    m->key = ++keys_given;
    m->next = d->mrs;
    d->mrs = m;
    pthread_mutex_unlock(&gw_loop_lock);
    *mr = &m->base;
    return 0;
}

void gw_loop1_mr_dereg(struct gw_mr *mr)
{
    struct gw_loop_mr *m = (struct gw_loop_mr *)mr;
    pthread_mutex_lock(&gw_loop_lock);
    gw_loop_forget_locked(mr);
    struct gw_loop_mr **at = &m->dom->mrs;
    while (*at != m)
        at = &(*at)->next;
    *at = m->next;
    m->dom->registered_bytes -= m->desc.bytes;
    pthread_mutex_unlock(&gw_loop_lock);
    gw_free(m);
}

int gw_loop1_mr_pack(const struct gw_mr *mr, void *key)
{
    const struct gw_loop_mr *m = (const struct gw_loop_mr *)mr;
    memcpy(key, &m->key, sizeof(m->key));
    return (int)sizeof(m->key);
}

void *gw_loop_region_locked(const struct gw_loop_domain *dom, uint64_t key, uint64_t offset,
                            uint64_t bytes, const char **why)
{
    const struct gw_loop_mr *m = dom->mrs;
    while (m && m->key != key)
        m = m->next;
    *why = "its key is dead";
    if (!m)
        return NULL;
    *why = "its region is not lent for that";
    if (!(m->desc.access & GW_MR_REMOTE_WRITE))
        return NULL;
    *why = "the range leaves the region";
    return gw_range_is_inside(offset, bytes, m->desc.bytes) ? (char *)m->desc.addr + offset : NULL;
}

/* ---- regions of the peer ---------------------------------------------------------------------- */

int gw_loop1_rmr_open(struct gw_domain *dom, uint32_t region, uint64_t bytes, const void *key,
                      size_t key_bytes, struct gw_rmr **rmr, struct gw_error *err)
{
    (void)dom;
    if (key_bytes != sizeof(uint64_t))
        return gw_fail(err, -EPROTO, "region %" PRIu32 ": a key of %zu bytes, loop1's have %zu",
                       region, key_bytes, sizeof(uint64_t));
    struct gw_loop_rmr *r = gw_zalloc(1, sizeof(*r));
    if (!r)
        return gw_fail(err, -ENOMEM, "region %" PRIu32 " of the peer", region);
    r->base.ops = &gw_loop1_ops;
    r->region = region;
    r->bytes = bytes;
    memcpy(&r->key, key, sizeof(r->key));
    *rmr = &r->base;
    return 0;
}

void gw_loop1_rmr_close(struct gw_rmr *rmr)
{
    gw_free(rmr);
}
