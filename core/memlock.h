/* SPDX-License-Identifier: MIT */
/* core/memlock.h - how much memory this process may register with a wire. */
#ifndef GW_CORE_MEMLOCK_H
#define GW_CORE_MEMLOCK_H

#include "core/base/error.h"

#include <stdint.h>

/* The budget of one migration over a wire with @wire_flags (GW_EP_*), besides the buffers of @endpoints
 * page endpoints that are still to be opened. @bytes_max: what the operator allows (x-registered-max),
 * 0: whatever the system does. UINT64_MAX: no limit. */
uint64_t gw_memlock_budget(uint32_t wire_flags, unsigned endpoints, uint64_t bytes_max);

/* What the limit has to hold besides that budget: what is pinned already, and those buffers. */
uint64_t gw_memlock_besides(unsigned endpoints);

/* A registration of @bytes failed with @rc: what it needed, what there is, and what to do about it. */
void gw_memlock_hint(struct gw_error *err, int rc, uint64_t bytes);

#endif
