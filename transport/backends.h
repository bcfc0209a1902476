/* SPDX-License-Identifier: MIT */
/* transport/backends.h - the tables of the wires of this build, for the list in transport.c alone. */
#ifndef GW_TRANSPORT_BACKENDS_H
#define GW_TRANSPORT_BACKENDS_H

#include "transport/ops.h"

extern const struct gw_transport_ops gw_tcp_ops;
extern const struct gw_transport_ops gw_unix_ops;
extern const struct gw_transport_ops gw_loop_ops;
extern const struct gw_transport_ops gw_loop1_ops;
extern const struct gw_transport_ops gw_ofi_ops;  /* GW_HAVE_OFI */
extern const struct gw_transport_ops gw_rdma_ops; /* GW_HAVE_RDMA */

#endif
