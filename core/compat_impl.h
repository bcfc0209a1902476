/* SPDX-License-Identifier: MIT */
/* core/compat_impl.h - inside core/compat*.c only. */
#ifndef GW_CORE_COMPAT_IMPL_H
#define GW_CORE_COMPAT_IMPL_H

#include "control/inventory.h"
#include "core/analyze_impl.h"

#include <godwit/compat.h>

#define GW_COMPAT_FINDINGS_MAX 4096u

struct gw_compat_side {
    struct gw_inventory inventory;
    struct gw_analysis *analysis; /* whose text the inventory's description is */
};

/* The device's index in the description, or -ENOENT. */
int gw_compat_described(const struct gw_inventory *inventory, unsigned section);

#endif
