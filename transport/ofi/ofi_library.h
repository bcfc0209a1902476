/* SPDX-License-Identifier: MIT */
/* transport/ofi/ofi_library.h - libfabric, loaded when it is first asked for. Linked, it would be in every
 * process that links us, and with it what it links: two of those (libpsm, libpsm2) sleep 0.1 s each when
 * they are loaded, to find out how fast the processor counts, and take over the process's signals
 * (Debian 12). Everything else of libfabric's is behind tables that these functions return.
 *
 * Threads: any. */
#ifndef GW_TRANSPORT_OFI_LIBRARY_H
#define GW_TRANSPORT_OFI_LIBRARY_H

#include "core/base/error.h"

#include <rdma/fabric.h>
#include <rdma/fi_errno.h>

/* Whether it is there: 0, or -EOPNOTSUPP with @err (may be NULL) saying why not. The first call takes 0.2 s; it
 * comes before any of those below. */
int gw_ofi_library(struct gw_error *err);

/* As libfabric's without the gw_. */
int gw_fi_getinfo(uint32_t version, const char *node, const char *service, uint64_t flags,
                  const struct fi_info *hints, struct fi_info **info);
void gw_fi_freeinfo(struct fi_info *info);
struct fi_info *gw_fi_allocinfo(void);
int gw_fi_fabric(struct fi_fabric_attr *attr, struct fid_fabric **fabric, void *context);
const char *gw_fi_strerror(int error);
uint32_t gw_fi_version(void);

#endif
