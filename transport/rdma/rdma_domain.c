// SPDX-License-Identifier: MIT
/* A domain: one device context and one protection domain for all endpoints of a migration, so that its
 * keys mean nothing to anybody else. The connection's route chooses the device; memory that is
 * registered before there is a connection takes the only device there is. Events of the device are
 * read by whichever endpoint wakes first, which tells the others. */
#include "core/base/alloc.h"
#include "transport/rdma/rdma.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define DEVICES_HINT                                                                               \
    "'rdma link' and 'ibv_devices' list what there is; 'godwit doctor' says how to get one"

int gw_rdma_set_nonblocking(int fd, struct gw_error *err)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
        return gw_fail(err, -errno, "set O_NONBLOCK");
    return 0;
}

int gw_rdma_domain_open(const struct gw_wire_config *config, struct gw_domain **dom,
                        struct gw_error *err)
{
    struct gw_rdma_domain *d = gw_zalloc(1, sizeof(*d));
    if (!d)
        return gw_fail(err, -ENOMEM, "open a domain");
    d->base.ops = &gw_rdma_ops;
    d->log = config->log;
    d->wants_paging = config->rdma_odp;
    pthread_mutex_init(&d->device_lock, NULL);
    pthread_mutex_init(&d->endpoints_lock, NULL);
    *dom = &d->base;
    return 0;
}

static void unbind(struct gw_rdma_domain *d)
{
    if (d->pd) {
        (void)ibv_dealloc_pd(d->pd);
        gw_rdma_count(GW_RDMA_PD, -1);
    }
    if (d->verbs) {
        (void)ibv_close_device(d->verbs);
        gw_rdma_count(GW_RDMA_CONTEXT, -1);
    }
    d->pd = NULL;
    d->verbs = NULL;
}

void gw_rdma_domain_close(struct gw_domain *dom)
{
    struct gw_rdma_domain *d = gw_rdma_domain_of(dom);
    gw_assert(!d->endpoints);
    unbind(d);
    pthread_mutex_destroy(&d->device_lock);
    pthread_mutex_destroy(&d->endpoints_lock);
    gw_free(d);
}

/* ---- the device --------------------------------------------------------------------------------------- */

bool gw_rdma_pages_on_demand(struct ibv_context *verbs)
{
    struct ibv_device_attr_ex attr = {0};
    return ibv_query_device_ex(verbs, NULL, &attr) == 0 &&
           attr.odp_caps.general_caps & IBV_ODP_SUPPORT &&
           attr.odp_caps.per_transport_caps.rc_odp_caps & IBV_ODP_SUPPORT_WRITE;
}

/* Which no device that we had could do: x-rdma-odp asks for it, and is refused rather than ignored. */
static int choose_paging(struct gw_rdma_domain *d, const char *name, struct gw_error *err)
{
    if (!d->wants_paging)
        return 0;
    if (!gw_rdma_pages_on_demand(d->verbs)) {
        int rc = gw_fail_code(err, -EOPNOTSUPP, GW_CODE_UNSUPPORTED,
                              "x-rdma-odp: %s has no on-demand paging for RDMA writes", name);
        gw_error_hint(err, "leave x-rdma-odp off: memory is pinned then, within x-registered-max");
        return rc;
    }
    d->page_access = IBV_ACCESS_ON_DEMAND;
    gw_log_warn(d->log, "rdma", "%s pages on demand, which was never tried on hardware", name);
    return 0;
}

static int open_device(struct gw_rdma_domain *d, struct ibv_device *device, struct gw_error *err)
{
    const char *name = ibv_get_device_name(device);
    d->verbs = ibv_open_device(device);
    if (!d->verbs)
        return gw_fail_code(err, errno ? -errno : -EIO, GW_CODE_UNSUPPORTED,
                            "the RDMA device %s cannot be opened: %s", name, strerror(errno));
    gw_rdma_count(GW_RDMA_CONTEXT, 1);
    int rc = gw_rdma_set_nonblocking(d->verbs->async_fd, err);
    if (rc < 0)
        return rc;
    if (ibv_query_device(d->verbs, &d->device_attr) != 0)
        return gw_fail(err, -EIO, "the RDMA device %s does not tell its limits", name);
    rc = choose_paging(d, name, err);
    if (rc < 0)
        return rc;
    d->pd = ibv_alloc_pd(d->verbs);
    if (!d->pd)
        return gw_fail(err, errno ? -errno : -EIO, "%s: no protection domain", name);
    gw_rdma_count(GW_RDMA_PD, 1);
    strncpy(d->device, name, sizeof(d->device) - 1);
    return 0;
}

static int bind_only(struct gw_rdma_domain *d, struct gw_error *err)
{
    int count = 0;
    struct ibv_device **list = ibv_get_device_list(&count);
    int rc = 0;
    if (count == 0) {
        rc =
            gw_fail_code(err, -ENODEV, GW_CODE_UNSUPPORTED, "there is no RDMA device on this host");
        gw_error_hint(err, DEVICES_HINT);
    } else if (count > 1) {
        rc = gw_fail_code(err, -ENODEV, GW_CODE_INVALID,
                          "of %d RDMA devices none is chosen before there is a connection", count);
    } else {
        rc = open_device(d, list[0], err);
    }
    if (list)
        ibv_free_device_list(list);
    return rc;
}

int gw_rdma_domain_bind(struct gw_rdma_domain *d, struct ibv_device *device, struct gw_error *err)
{
    int rc = 0;
    pthread_mutex_lock(&d->device_lock);
    if (!d->verbs) {
        rc = device ? open_device(d, device, err) : bind_only(d, err);
        if (rc < 0)
            unbind(d);
    } else if (device && strcmp(ibv_get_device_name(device), d->device) != 0) {
        rc = gw_fail_code(
            err, -EXDEV, GW_CODE_UNSUPPORTED,
            "this connection came by %s, the first one of its session by %s: memory is "
            "registered with one device",
            ibv_get_device_name(device), d->device);
        gw_error_hint(err, "use the address of one device's interface for the whole migration");
    }
    pthread_mutex_unlock(&d->device_lock);
    return rc;
}

int gw_rdma_probe(struct gw_error *err)
{
    int count = 0;
    struct ibv_device **list = ibv_get_device_list(&count);
    if (list)
        ibv_free_device_list(list);
    if (count == 0) {
        gw_fail_code(err, -ENODEV, GW_CODE_UNSUPPORTED, "there is no RDMA device on this host");
        gw_error_hint(err, DEVICES_HINT);
        return -ENODEV;
    }
    if (access("/dev/infiniband/rdma_cm", R_OK | W_OK) != 0) {
        int rc = gw_fail_code(err, -errno, GW_CODE_UNSUPPORTED,
                              "the RDMA connection manager, /dev/infiniband/rdma_cm: %s",
                              strerror(errno));
        gw_error_hint(err, "modprobe rdma_ucm; this user must be able to read and write it");
        return rc;
    }
    return 0;
}

/* ---- events ------------------------------------------------------------------------------------------- */

static void ring(struct gw_rdma_ep *e)
{
    (void)!write(e->wake_fd, &(uint64_t){1}, sizeof(uint64_t));
}

/* The endpoint whose queue pair or completion queue an event names, if it is still there. */
static void tell_one(struct gw_rdma_domain *d, const void *qp_or_cq, enum ibv_event_type type)
{
    pthread_mutex_lock(&d->endpoints_lock);
    for (struct gw_rdma_ep *e = d->endpoints; e; e = e->next) {
        if (e->qp != qp_or_cq && e->cq != qp_or_cq)
            continue;
        /* Pairs with the acquire in device_events(), rdma_progress.c. */
        atomic_store_explicit(&e->async, 1 + (int)type, memory_order_release);
        ring(e);
    }
    pthread_mutex_unlock(&d->endpoints_lock);
}

static void tell_all(struct gw_rdma_domain *d)
{
    pthread_mutex_lock(&d->endpoints_lock);
    for (struct gw_rdma_ep *e = d->endpoints; e; e = e->next)
        ring(e);
    pthread_mutex_unlock(&d->endpoints_lock);
}

static void take_event(struct gw_rdma_domain *d, const struct ibv_async_event *event)
{
    switch (event->event_type) {
    case IBV_EVENT_QP_FATAL:
    case IBV_EVENT_QP_REQ_ERR:
    case IBV_EVENT_QP_ACCESS_ERR:
        tell_one(d, event->element.qp, event->event_type);
        break;
    case IBV_EVENT_CQ_ERR:
        tell_one(d, event->element.cq, event->event_type);
        break;
    case IBV_EVENT_DEVICE_FATAL:
        atomic_store_explicit(&d->is_lost, true, memory_order_relaxed);
        tell_all(d);
        break;
    case IBV_EVENT_PORT_ERR:
        gw_log_warn(d->log, "rdma", "port %d of %s went down", event->element.port_num, d->device);
        atomic_store_explicit(&d->port_down_ns, gw_clock_ns(), memory_order_relaxed);
        tell_all(d);
        break;
    case IBV_EVENT_PORT_ACTIVE:
        gw_log_info(d->log, "rdma", "port %d of %s is up", event->element.port_num, d->device);
        atomic_store_explicit(&d->port_down_ns, 0, memory_order_relaxed);
        break;
    default: /* a communication established, a queue drained, a table changed: nothing to do */
        break;
    }
}

void gw_rdma_domain_events(struct gw_rdma_domain *d)
{
    struct ibv_async_event event;
    while (ibv_get_async_event(d->verbs, &event) == 0) {
        take_event(d, &event);
        ibv_ack_async_event(&event);
    }
}
