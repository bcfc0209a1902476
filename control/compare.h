/* SPDX-License-Identifier: MIT */
/* control/compare.h - two descriptions of one device, compared field by field: what one sends and the other
 * would misread or refuse. Findings are told as they are found, in the order of the older description. */
#ifndef GW_CONTROL_COMPARE_H
#define GW_CONTROL_COMPARE_H

#include "control/stream_describe.h"

#include <godwit/compat.h>

/* @finding has no device yet; texts are lent for the call. Return: 0, or a negative errno to end it. */
typedef int gw_compare_fn(void *ctx, const struct gw_compat_finding *finding);

/* Both descriptions are static or neither is. -EPROTO: one is malformed; -ENOMEM; what @found returned. */
int gw_compare_device(const struct gw_description *older, unsigned older_index,
                      const struct gw_description *newer, unsigned newer_index,
                      gw_compare_fn *found, void *ctx, struct gw_error *err);

#endif
