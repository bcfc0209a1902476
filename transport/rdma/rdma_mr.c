// SPDX-License-Identifier: MIT
/* Registered memory. A region's addresses on the wire count from a base below 2 MiB, not from where it
 * lies in our memory: the peer learns nothing of that, and the device may still use its largest pages,
 * because base and memory agree in the bits below 2 MiB. A registration that fails says what it has to
 * do with the limit on locked memory, which is by far the commonest cause. */
#include "core/base/alloc.h"
#include "core/base/bytes.h"
#include "transport/rdma/rdma.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

#define PAGE_BYTES UINT64_C(4096)
#define BASE_MASK ((UINT64_C(2) << 20) - 1)

/* ---- counting -------------------------------------------------------------------------------------- */

static _Atomic int live[GW_RDMA_KINDS];

void gw_rdma_count(enum gw_rdma_kind kind, int change)
{
    /* A statistic: it orders nothing. */
    int was = atomic_fetch_add_explicit(&live[kind], change, memory_order_relaxed);
    gw_assert(was + change >= 0);
}

int gw_rdma_live(enum gw_rdma_kind kind)
{
    return atomic_load_explicit(&live[kind], memory_order_relaxed);
}

/* ---- registering ------------------------------------------------------------------------------------ */

/* As much as 'godwit doctor' asks for: buffers of a few page endpoints, and a few chunks. */
#define MEMLOCK_LEAST_BYTES (UINT64_C(16) << 20)

void gw_rdma_memlock_hint(struct gw_error *err, uint64_t bytes)
{
    uint64_t need = gw_max_u64(MEMLOCK_LEAST_BYTES, (bytes / PAGE_BYTES + 1) * PAGE_BYTES);
    struct rlimit limit = {.rlim_max = RLIM_INFINITY};
    char command[96];
    getrlimit(RLIMIT_MEMLOCK, &limit);
    /* A shell may go up to its hard limit; root beyond it, for the shell that asks. */
    if (limit.rlim_max == RLIM_INFINITY || limit.rlim_max >= need)
        snprintf(command, sizeof(command), "ulimit -S -l %" PRIu64, need / 1024);
    else
        snprintf(command, sizeof(command),
                 "as root: prlimit --pid $$ --memlock=%" PRIu64 ":%" PRIu64, need, need);
    gw_error_hint(err,
                  "%s; or LimitMEMLOCK=infinity in a systemd unit, or CAP_IPC_LOCK for the program "
                  "(setcap cap_ipc_lock+ep)",
                  command);
}

static int refuse(const struct gw_rdma_domain *dom, uint64_t bytes, int rc, struct gw_error *err)
{
    struct rlimit limit = {.rlim_cur = RLIM_INFINITY};
    uint64_t had = atomic_load_explicit(&dom->registered_bytes, memory_order_relaxed);
    getrlimit(RLIMIT_MEMLOCK, &limit);
    if ((rc != -ENOMEM && rc != -EAGAIN && rc != -EPERM) || limit.rlim_cur == RLIM_INFINITY)
        return gw_fail(err, rc, "%s: register %" PRIu64 " bytes", dom->device, bytes);
    /* The figures first: a peer that is told hears so much and no more. */
    gw_fail_code(err, rc, GW_CODE_LIMIT,
                 "%s: memlock: need %" PRIu64 " KiB, the limit is %" PRIu64
                 " KiB: register %" PRIu64 " bytes, with %" PRIu64 " registered already: %s",
                 dom->device, (had + bytes + 1023) / 1024, (uint64_t)limit.rlim_cur / 1024, bytes,
                 had, strerror(-rc));
    gw_rdma_memlock_hint(err, had + bytes);
    return rc;
}

/* Pinning stores nothing, but asks for pages as if it would; under userfaultfd's write protection some
 * kernels cannot wait for the answer there ("Bad address"), though they can here. */
static struct ibv_mr *register_released(struct gw_rdma_domain *dom, void *addr, uint64_t bytes,
                                        uint64_t iova, int access)
{
    uint64_t from = (uint64_t)(uintptr_t)addr & ~(PAGE_BYTES - 1);
    uint64_t end = ((uint64_t)(uintptr_t)addr + bytes + PAGE_BYTES - 1) & ~(PAGE_BYTES - 1);
    if (madvise((void *)(uintptr_t)from, end - from, MADV_POPULATE_WRITE) < 0) {
        errno = EFAULT;
        return NULL;
    }
    return ibv_reg_mr_iova(dom->pd, addr, bytes, iova, access);
}

int gw_rdma_register(struct gw_rdma_domain *dom, void *addr, uint64_t bytes, uint64_t iova,
                     int access, struct ibv_mr **mr, struct gw_error *err)
{
    struct ibv_mr *got = ibv_reg_mr_iova(dom->pd, addr, bytes, iova, access);
    if (!got && errno == EFAULT)
        got = register_released(dom, addr, bytes, iova, access);
    if (!got)
        return refuse(dom, bytes, errno ? -errno : -EIO, err);
    atomic_fetch_add_explicit(&dom->registered_bytes, bytes, memory_order_relaxed);
    gw_rdma_count(GW_RDMA_MR, 1);
    *mr = got;
    return 0;
}

void gw_rdma_unregister(struct gw_rdma_domain *dom, struct ibv_mr *mr)
{
    if (!mr)
        return;
    atomic_fetch_sub_explicit(&dom->registered_bytes, mr->length, memory_order_relaxed);
    /* It fails where the device has gone, and then there is nothing left to take back. */
    (void)ibv_dereg_mr(mr);
    gw_rdma_count(GW_RDMA_MR, -1);
}

int gw_rdma_mr_reg(struct gw_domain *domain, const struct gw_mr_desc *desc, struct gw_mr **mr,
                   struct gw_error *err)
{
    struct gw_rdma_domain *dom = gw_rdma_domain_of(domain);
    int access = 0; /* local read comes with every registration */
    if (desc->bytes == 0 || !desc->addr)
        return gw_fail(err, -EINVAL, "register: no memory");
    if (desc->access & GW_MR_REMOTE_WRITE)
        access |= IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE;
    if (desc->access & GW_MR_REMOTE_READ)
        access |= IBV_ACCESS_REMOTE_READ;
    int rc = gw_rdma_domain_bind(dom, NULL, err);
    if (rc < 0)
        return rc;
    access |= dom->page_access;
    struct gw_rdma_mr *got = gw_zalloc(1, sizeof(*got));
    if (!got)
        return gw_fail(err, -ENOMEM, "register %" PRIu64 " bytes", desc->bytes);
    got->base.ops = &gw_rdma_ops;
    got->dom = dom;
    got->addr = desc->addr;
    got->bytes = desc->bytes;
    got->iova = (uint64_t)(uintptr_t)desc->addr & BASE_MASK;
    rc = gw_rdma_register(dom, desc->addr, desc->bytes, got->iova, access, &got->mr, err);
    if (rc < 0) {
        gw_free(got);
        return rc;
    }
    *mr = &got->base;
    return 0;
}

void gw_rdma_mr_dereg(struct gw_mr *mr)
{
    struct gw_rdma_mr *m = (struct gw_rdma_mr *)mr;
    gw_rdma_unregister(m->dom, m->mr);
    gw_free(m);
}

/* ---- keys: 0 4 rkey, 4 4 zero, 8 8 base ------------------------------------------------------------ */

int gw_rdma_mr_pack(const struct gw_mr *mr, void *key)
{
    const struct gw_rdma_mr *m = (const struct gw_rdma_mr *)mr;
    uint8_t *bytes = key;
    gw_be32_store(bytes, m->mr->rkey);
    gw_be32_store(bytes + 4, 0);
    gw_be64_store(bytes + 8, m->iova);
    return GW_RDMA_KEY_BYTES;
}

int gw_rdma_rmr_open(struct gw_domain *dom, uint32_t region, uint64_t bytes, const void *key,
                     size_t key_bytes, struct gw_rmr **rmr, struct gw_error *err)
{
    const uint8_t *packed = key;
    (void)dom;
    if (key_bytes != GW_RDMA_KEY_BYTES)
        return gw_fail(err, -EPROTO, "region %u: its key has %zu bytes, not %d", region, key_bytes,
                       GW_RDMA_KEY_BYTES);
    uint64_t iova = gw_be64_load(packed + 8);
    if (gw_be32_load(packed + 4) != 0 || bytes == 0 || iova > UINT64_MAX - bytes)
        return gw_fail(err, -EPROTO, "region %u: its key is malformed", region);
    struct gw_rdma_rmr *got = gw_zalloc(1, sizeof(*got));
    if (!got)
        return gw_fail(err, -ENOMEM, "region %u", region);
    got->base.ops = &gw_rdma_ops;
    got->bytes = bytes;
    got->iova = iova;
    got->rkey = gw_be32_load(packed);
    *rmr = &got->base;
    return 0;
}

void gw_rdma_rmr_close(struct gw_rmr *rmr)
{
    gw_free(rmr);
}
