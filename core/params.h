/* SPDX-License-Identifier: MIT */
/* core/params.h - the values behind godwit/params.h. */
#ifndef GW_CORE_PARAMS_H
#define GW_CORE_PARAMS_H

#include <godwit/params.h>

/* Of x-wire: the address's own; the best that both ends reach; or that one. */
enum gw_wire_choice { GW_WIRE_SAME, GW_WIRE_AUTO, GW_WIRE_RDMA, GW_WIRE_OFI };
enum gw_stall_action { GW_STALL_WAIT, GW_STALL_FAIL, GW_STALL_SWITCH };

#define GW_RDMA_GID_ANY 65535u

struct gw_params {
#define GW_PARAM(field, name, type, default_value, min, max, live, help) uint64_t field;
#include "core/params.def"
#undef GW_PARAM
};

/* The name that a value of rdma-device stands for; "": any. Static storage. */
const char *gw_params_device(uint64_t value);
void gw_params_defaults(struct gw_params *params);
/* As gw_params_set(); with @live only parameters that may change while a migration runs (-EBUSY). */
int gw_params_change(struct gw_params *params, const char *name, const char *value, bool live,
                     struct gw_error *err);

#endif
