/* SPDX-License-Identifier: MIT */
/* transport/rdma/rdma_report.h - parts of the doctor's look at RDMA (transport/wire_report.h). */
#ifndef GW_RDMA_REPORT_H
#define GW_RDMA_REPORT_H

#include "core/base/finding.h"

#include <infiniband/verbs.h>

/* All that is to tell of one device: permission, limits, registration, ports, GIDs, MTU. */
void gw_rdma_report_device(struct ibv_device *device, bool needed, struct gw_findings *all);

/* One port of an open device. */
void gw_rdma_report_port(struct ibv_context *context, const char *device, uint8_t port, bool needed,
                         struct gw_findings *all);

/* The name of an Ethernet interface that is up and not loopback, "" if there is none. */
void gw_rdma_report_netdev(char name[32]);

#endif
