// SPDX-License-Identifier: MIT
/* What a target would find out with its first connection only, when it can tell nobody but a peer that
 * it turns away: that what was asked for is not there, that nothing may be pinned, that the port is
 * down. So it is looked at when it begins to listen. */
#include "core/base/bytes.h"
#include "transport/rdma/rdma.h"

#include <inttypes.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/mman.h>

/* Message buffers of the control endpoint (2.6 MiB) and of one for pages (0.6 MiB), the smallest chunk. */
#define TRIAL_BYTES (UINT64_C(6) << 20)

/* ---- device and GID --------------------------------------------------------------------------- */

static bool is_same_address(const struct sockaddr *a, const struct sockaddr *b)
{
    if (a->sa_family != b->sa_family)
        return false;
    if (a->sa_family == AF_INET)
        return memcmp(&((const struct sockaddr_in *)(const void *)a)->sin_addr,
                      &((const struct sockaddr_in *)(const void *)b)->sin_addr, 4) == 0;
    return memcmp(&((const struct sockaddr_in6 *)(const void *)a)->sin6_addr,
                  &((const struct sockaddr_in6 *)(const void *)b)->sin6_addr, 16) == 0;
}

static int check_gid(const struct gw_wire_config *config, const char *name,
                     const struct sockaddr *address, struct gw_error *err)
{
    struct gw_wire_config asked = {.rdma_device = name, .rdma_gid = config->rdma_gid};
    struct sockaddr_storage gid;
    char text[128];
    int rc = gw_rdma_source(&asked, AF_UNSPEC, &gid, err);
    if (rc < 0 || is_same_address(address, (struct sockaddr *)&gid))
        return rc < 0 ? rc : 0;
    gw_rdma_format((struct sockaddr *)&gid, text, sizeof(text));
    rc = gw_fail_code(err, -EINVAL, GW_CODE_INVALID,
                      "rdma-gid-index=%u: that GID of %s is the address in %s",
                      config->rdma_gid - 1, name, text);
    gw_error_hint(err,
                  "listen there, or leave rdma-gid-index away: at a target the address says it");
    return rc;
}

int gw_rdma_check_listen(struct rdma_cm_id *id, const struct gw_wire_config *config,
                         struct gw_error *err)
{
    struct sockaddr_storage usable;
    char text[128];
    if (!id->verbs) /* a wildcard, of any device */
        return 0;
    const char *name = ibv_get_device_name(id->verbs->device);
    if (!config->rdma_device || !config->rdma_device[0] || strcmp(config->rdma_device, name) == 0)
        return config->rdma_gid ? check_gid(config, name, rdma_get_local_addr(id), err) : 0;
    gw_rdma_format(rdma_get_local_addr(id), text, sizeof(text));
    int rc = gw_fail_code(err, -EXDEV, GW_CODE_INVALID, "rdma-device=%s: %s is an address of %s",
                          config->rdma_device, text, name);
    if (gw_rdma_any_address(config, &usable, NULL) == 0) {
        gw_rdma_format((struct sockaddr *)&usable, text, sizeof(text));
        gw_error_hint(err, "%s, for example, is one of %s", text, config->rdma_device);
    }
    return rc;
}

/* ---- locked memory ---------------------------------------------------------------------------- */

static int pin(struct ibv_context *verbs, void *memory, struct gw_error *err)
{
    struct gw_rdma_domain dom = {.verbs = verbs, .pd = ibv_alloc_pd(verbs)};
    struct ibv_mr *mr = NULL;
    strncpy(dom.device, ibv_get_device_name(verbs->device), sizeof(dom.device) - 1);
    if (!dom.pd)
        return gw_fail(err, errno ? -errno : -EIO, "%s: no protection domain", dom.device);
    gw_rdma_count(GW_RDMA_PD, 1);
    int rc = gw_rdma_register(&dom, memory, TRIAL_BYTES, 0, IBV_ACCESS_LOCAL_WRITE, &mr, err);
    gw_rdma_unregister(&dom, mr);
    (void)ibv_dealloc_pd(dom.pd);
    gw_rdma_count(GW_RDMA_PD, -1);
    return rc;
}

/* Only what the limit says: anything else is told with the connection that it concerns. */
static int check_memlock(struct ibv_device *device, struct gw_error *err)
{
    struct gw_error why = GW_ERROR_INIT;
    struct ibv_context *verbs = ibv_open_device(device);
    void *memory =
        mmap(NULL, TRIAL_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int rc = 0;
    if (verbs && memory != MAP_FAILED && pin(verbs, memory, &why) < 0 &&
        why.code == GW_CODE_LIMIT) {
        rc = why.rc;
        gw_error_copy(err, &why);
    }
    if (memory != MAP_FAILED)
        munmap(memory, TRIAL_BYTES);
    if (verbs)
        ibv_close_device(verbs);
    return rc;
}

/* ---- all of it -------------------------------------------------------------------------------- */

/* The one that will be listened through; of several, any: limits are the process's. */
static struct ibv_device *choose(struct ibv_device **list, int count, struct rdma_cm_id *id,
                                 const char *wanted)
{
    if (id->verbs)
        wanted = ibv_get_device_name(id->verbs->device);
    for (int i = 0; i < count; i++) {
        if (!wanted || !wanted[0] || strcmp(ibv_get_device_name(list[i]), wanted) == 0)
            return list[i];
    }
    return NULL;
}

int gw_rdma_try_listening(struct rdma_cm_id *id, const struct gw_wire_config *config,
                          struct gw_error *err)
{
    struct gw_error down = GW_ERROR_INIT;
    int count = 0;
    struct ibv_device **list = ibv_get_device_list(&count);
    struct ibv_device *device = choose(list, count, id, config->rdma_device);
    int rc = device ? check_memlock(device, err) : 0;
    if (list)
        ibv_free_device_list(list);
    if (rc < 0)
        return rc;
    if (id->verbs)
        (void)gw_rdma_check_port(id->verbs, id->port_num, &down);
    else
        (void)gw_rdma_check_ports(config->rdma_device, &down);
    if (down.rc < 0)
        gw_log_warn(config->log, "listener", "%s: nobody can connect until it is up: %s",
                    down.message, down.hint);
    return 0;
}
