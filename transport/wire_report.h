/* SPDX-License-Identifier: MIT */
/* transport/wire_report.h - what wires with a library of their own say to the doctor. A backend that
 * has something to tell has a file <wire>_report.c, called by wire_report.c alone. */
#ifndef GW_TRANSPORT_WIRE_REPORT_H
#define GW_TRANSPORT_WIRE_REPORT_H

#include "core/base/finding.h"
#include "transport/transport.h"

void gw_rdma_report(bool needed, struct gw_findings *all);
/* Which device and address a connection to @uri->host would take, and whether there is a route. Silent
 * where no RDMA is. */
void gw_rdma_report_path(const struct gw_uri *uri, bool needed, struct gw_findings *all);

void gw_ofi_report(bool needed, struct gw_findings *all);

#endif
