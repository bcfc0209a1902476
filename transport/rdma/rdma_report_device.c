// SPDX-License-Identifier: MIT
/* The doctor's look at one RDMA device: may this user open it, what are its limits, does it register
 * memory under the present memlock limit, need memory be pinned at all. */
#include "core/base/error.h"
#include "transport/rdma/rdma.h"
#include "transport/rdma/rdma_report.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* The smallest chunk that is registered by itself (ram/chunk.h). */
#define GW_REPORT_MR_BYTES (UINT64_C(2) << 20)

static const char *transport_name(const struct ibv_device *device)
{
    switch (device->transport_type) {
    case IBV_TRANSPORT_IB:
        return "IB or RoCE";
    case IBV_TRANSPORT_IWARP:
        return "iWARP";
    default:
        return "unknown transport";
    }
}

static void report_limits(struct ibv_context *context, const char *topic, bool needed,
                          struct gw_findings *all)
{
    struct ibv_device_attr attr;
    struct gw_fix fix = {0};
    char longest[32] = "any size";
    int rc = ibv_query_device(context, &attr);

    if (rc == 0 && attr.max_mr_size < UINT64_C(1) << 60)
        snprintf(longest, sizeof(longest), "%" PRIu64 " MiB", attr.max_mr_size >> 20);
    if (rc == 0)
        gw_find_ok(all, topic, needed,
                   "%s, firmware %s, %d queue pairs of %d requests, %d regions of %s",
                   transport_name(context->device), attr.fw_ver, attr.max_qp, attr.max_qp_wr,
                   attr.max_mr, longest);
    else
        gw_find_bad(all, topic, needed, &fix, "query: %s", strerrordesc_np(rc));
}

static int try_register(struct ibv_context *context)
{
    const int access = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE;
    void *memory =
        mmap(NULL, GW_REPORT_MR_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct ibv_pd *pd = memory == MAP_FAILED ? NULL : ibv_alloc_pd(context);
    struct ibv_mr *mr = pd ? ibv_reg_mr(pd, memory, GW_REPORT_MR_BYTES, access) : NULL;
    int rc = mr ? 0 : -errno;

    if (mr)
        ibv_dereg_mr(mr);
    if (pd)
        ibv_dealloc_pd(pd);
    if (memory != MAP_FAILED)
        munmap(memory, GW_REPORT_MR_BYTES);
    return rc;
}

static void report_register(struct ibv_context *context, const char *device, bool needed,
                            struct gw_findings *all)
{
    int rc = try_register(context);
    struct gw_fix fix = {0};
    char topic[80];

    snprintf(topic, sizeof(topic), "rdma register %s", device);
    if (rc == 0) {
        gw_find_ok(all, topic, needed, "%" PRIu64 " MiB were registered for a peer's writes",
                   GW_REPORT_MR_BYTES >> 20);
        return;
    }
    if (rc == -ENOMEM)
        gw_fix_note(&fix, "the limit of locked memory is too low: see memlock below");
    gw_find_bad(all, topic, needed, &fix, "registering %" PRIu64 " MiB: %s",
                GW_REPORT_MR_BYTES >> 20, strerrordesc_np(-rc));
}

static void report_paging(struct ibv_context *context, const char *device, struct gw_findings *all)
{
    struct gw_fix fix = {.note = "nothing to mend: memory is pinned and counts against memlock"};
    char topic[80];

    snprintf(topic, sizeof(topic), "rdma paging %s", device);
    if (gw_rdma_pages_on_demand(context))
        gw_find_ok(all, topic, false,
                   "on demand: memory need not be pinned (x-rdma-odp, untested)");
    else
        gw_find_bad(all, topic, false, &fix, "the device has no on-demand paging");
}

/* The node first: what libibverbs says when it may not open it is another node's errno. */
static struct ibv_context *open_device(struct ibv_device *device, const char *node, int *cause)
{
    int fd = open(node, O_RDWR | O_CLOEXEC);
    struct ibv_context *context = fd < 0 ? NULL : ibv_open_device(device);

    *cause = errno;
    if (fd >= 0)
        close(fd);
    return context;
}

void gw_rdma_report_device(struct ibv_device *device, bool needed, struct gw_findings *all)
{
    const char *name = ibv_get_device_name(device);
    struct ibv_device_attr attr;
    struct gw_fix fix = {0};
    char topic[80], node[96];
    int cause;

    snprintf(topic, sizeof(topic), "rdma device %s", name);
    snprintf(node, sizeof(node), "/dev/infiniband/%s", device->dev_name);
    struct ibv_context *context = open_device(device, node, &cause);
    if (!context) {
        gw_fix_node(&fix, node, cause);
        gw_find_bad(all, topic, needed, &fix, "%s: %s", node, strerrordesc_np(cause));
        return;
    }
    report_limits(context, topic, needed, all);
    report_register(context, name, needed, all);
    report_paging(context, name, all);
    unsigned ports = ibv_query_device(context, &attr) == 0 ? attr.phys_port_cnt : 0;
    for (unsigned port = 1; port <= ports; port++)
        gw_rdma_report_port(context, name, (uint8_t)port, needed && ports == 1, all);
    ibv_close_device(context);
}
