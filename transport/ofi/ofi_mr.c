// SPDX-License-Identifier: MIT
/* The domain of a migration and its memory. The domain knows its provider and device only when the
 * first endpoint connects or is accepted (the local address of that connection chooses the device), so
 * nothing can be registered before. A key is 16 bytes: libfabric's key and the number by which it
 * names the first byte (an address, or 0), both big-endian. Where the keys are ours to choose they are
 * random: knowing one is the right to write. */
#include "transport/ofi/ofi_impl.h"

#include "core/base/alloc.h"
#include "core/base/bytes.h"
#include "transport/stream.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#define KEY_BYTES 16
#define KEY_TRIES 8 /* a random key of 64 bits is never taken; one of 32 bits hardly ever */

/* ---- the domain ------------------------------------------------------------------------------ */

int gw_ofi_domain_open(const struct gw_wire_config *config, struct gw_domain **dom,
                       struct gw_error *err)
{
    struct gw_ofi_domain *d = gw_zalloc(1, sizeof(*d));
    if (!d)
        return gw_fail(err, -ENOMEM, "domain of wire 'ofi'");
    d->base.ops = &gw_ofi_ops;
    d->log = config->log;
    int rc = gw_stream_domain_new(&gw_tcp_ops, &d->streams, err);
    if (rc == 0) {
        pthread_mutex_init(&d->bind_lock, NULL); /* of the default kind: neither can fail */
        pthread_mutex_init(&d->call_lock, NULL);
    }
    if (rc < 0) {
        gw_domain_close(d->streams);
        gw_free(d);
        return rc;
    }
    *dom = &d->base;
    return 0;
}

void gw_ofi_domain_close(struct gw_domain *dom)
{
    struct gw_ofi_domain *d = gw_ofi_domain_of(dom);
    gw_ofi_fabric_close(&d->fabric);
    gw_domain_close(d->streams);
    pthread_mutex_destroy(&d->bind_lock);
    pthread_mutex_destroy(&d->call_lock);
    gw_free(d);
}

static void tell_bound(const struct gw_ofi_domain *d)
{
    const struct fi_info *info = d->fabric.info;
    gw_log_info(
        d->log, "ofi", "provider %s, domain %s: registration by%s%s%s%s, messages %s, sleeps on %s",
        info->fabric_attr->prov_name, info->domain_attr->name,
        d->fabric.virtual ? " address" : " offset", d->fabric.local ? ", local too" : "",
        d->fabric.prov_key ? ", its keys" : ", our keys", d->fabric.pins ? ", pins" : "",
        d->fabric.orders ? "follow the writes before them" : "are held until writes are delivered",
        d->fabric.sleeps ? "its descriptor, if it gives one" : "time");
}

int gw_ofi_domain_bind(struct gw_ofi_domain *d, const char *provider, int fd, struct gw_error *err)
{
    int rc = 0;
    /* Held while libfabric opens: whoever comes second needs its end. Only set-up waits here. */
    pthread_mutex_lock(&d->bind_lock);
    if (!atomic_load_explicit(&d->bound, memory_order_relaxed)) {
        rc = gw_ofi_fabric_open(&d->fabric, provider, fd, err);
        if (rc == 0) {
            snprintf(d->provider, sizeof(d->provider), "%s", provider);
            atomic_store_explicit(&d->bound, true, memory_order_release);
            tell_bound(d);
        }
    } else if (strcmp(d->provider, provider) != 0) {
        rc = gw_fail(err, -EINVAL, "this migration uses provider '%s', not '%s'", d->provider,
                     provider);
    }
    pthread_mutex_unlock(&d->bind_lock);
    return rc;
}

/* ---- memory ---------------------------------------------------------------------------------- */

static int new_key(const struct gw_ofi_domain *d, uint64_t *key, struct gw_error *err)
{
    size_t bytes = d->fabric.info->domain_attr->mr_key_size;
    *key = 0;
    if (d->fabric.prov_key)
        return 0;
    if (getrandom(key, sizeof(*key), 0) != (ssize_t)sizeof(*key))
        return gw_fail(err, -errno, "key");
    if (bytes < sizeof(*key))
        *key &= (UINT64_C(1) << bytes * 8) - 1;
    return 0;
}

static int reg(struct gw_ofi_domain *d, void *addr, size_t bytes, uint64_t access,
               struct fid_mr **mr, struct gw_error *err)
{
    int rc = -FI_ENOKEY;
    for (unsigned i = 0; rc == -FI_ENOKEY && i < KEY_TRIES; i++) {
        uint64_t key;
        rc = new_key(d, &key, err);
        if (rc < 0)
            return rc;
        gw_ofi_enter(d);
        rc = fi_mr_reg(d->fabric.domain, addr, bytes, access, 0, key, 0, mr, NULL);
        gw_ofi_leave(d);
    }
    if (rc == 0)
        return 0;
    gw_fail_code(err, gw_ofi_errno(rc), rc == -FI_ENOMEM ? GW_CODE_NO_MEMORY : GW_CODE_IO,
                 "register %zu bytes with provider '%s': %s", bytes, d->provider,
                 gw_fi_strerror(-rc));
    if (rc == -FI_ENOMEM && d->fabric.pins)
        gw_error_hint(err, "raise the memlock limit: 'ulimit -l unlimited', or LimitMEMLOCK=");
    return gw_ofi_errno(rc);
}

int gw_ofi_buffer_reg(struct gw_ofi_domain *d, void *addr, size_t bytes, uint64_t access,
                      struct fid_mr **mr, struct gw_error *err)
{
    *mr = NULL;
    return d->fabric.local ? reg(d, addr, bytes, access, mr, err) : 0;
}

static uint64_t access_of(const struct gw_ofi_domain *d, uint32_t access)
{
    return (access & GW_MR_REMOTE_WRITE ? FI_REMOTE_WRITE : 0) |
           (access & GW_MR_REMOTE_READ ? FI_REMOTE_READ : 0) |
           (access == 0 || d->fabric.local ? FI_WRITE : 0);
}

int gw_ofi_mr_reg(struct gw_domain *dom, const struct gw_mr_desc *desc, struct gw_mr **mr,
                  struct gw_error *err)
{
    struct gw_ofi_domain *d = gw_ofi_domain_of(dom);
    if (desc->bytes == 0 || !desc->addr)
        return gw_fail(err, -EINVAL, "region %u: no memory to register", desc->region);
    if (desc->access && desc->region >= GW_REGIONS_MAX)
        return gw_fail(err, -E2BIG, "region %u: the last is %u", desc->region, GW_REGIONS_MAX - 1);
    if (!atomic_load_explicit(&d->bound, memory_order_acquire))
        return gw_fail(err, -ENOTCONN, "region %u: no endpoint is connected yet", desc->region);
    struct gw_ofi_mr *m = gw_zalloc(1, sizeof(*m));
    if (!m)
        return gw_fail(err, -ENOMEM, "region %u", desc->region);
    m->base.ops = &gw_ofi_ops;
    m->dom = d;
    int rc = 0;
    if (desc->access || d->fabric.local)
        rc = reg(d, desc->addr, desc->bytes, access_of(d, desc->access), &m->mr, err);
    if (rc < 0) {
        gw_free(m);
        gw_error_prefix(err, "region %u", desc->region);
        return rc;
    }
    m->at = d->fabric.virtual ? (uintptr_t)desc->addr : 0;
    *mr = &m->base;
    return 0;
}

void gw_ofi_fid_close(struct gw_ofi_domain *d, struct fid *fid)
{
    if (!fid)
        return;
    gw_ofi_enter(d);
    int rc = fi_close(fid);
    gw_ofi_leave(d);
    gw_assert(rc == 0);
}

void gw_ofi_mr_dereg(struct gw_mr *mr)
{
    struct gw_ofi_mr *m = (struct gw_ofi_mr *)mr;
    gw_ofi_fid_close(m->dom, m->mr ? &m->mr->fid : NULL);
    gw_free(m);
}

int gw_ofi_mr_pack(const struct gw_mr *mr, void *key)
{
    const struct gw_ofi_mr *m = (const struct gw_ofi_mr *)mr;
    uint8_t *bytes = key;
    gw_assert(m->mr != NULL);
    gw_be64_store(bytes, fi_mr_key(m->mr));
    gw_be64_store(bytes + 8, m->at);
    return KEY_BYTES;
}

int gw_ofi_rmr_open(struct gw_domain *dom, uint32_t region, uint64_t bytes, const void *key,
                    size_t key_bytes, struct gw_rmr **rmr, struct gw_error *err)
{
    const uint8_t *at = key;
    (void)dom;
    if (key_bytes != KEY_BYTES)
        return gw_fail(err, -EPROTO, "region %u: a key of %zu bytes, not of %u", region, key_bytes,
                       KEY_BYTES);
    struct gw_ofi_rmr *r = gw_zalloc(1, sizeof(*r));
    if (!r)
        return gw_fail(err, -ENOMEM, "region %u", region);
    *r = (struct gw_ofi_rmr){.base.ops = &gw_ofi_ops,
                             .bytes = bytes,
                             .key = gw_be64_load(at),
                             .at = gw_be64_load(at + 8)};
    *rmr = &r->base;
    return 0;
}

void gw_ofi_rmr_close(struct gw_rmr *rmr)
{
    gw_free(rmr);
}
