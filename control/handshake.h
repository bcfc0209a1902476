/* SPDX-License-Identifier: MIT */
/* control/handshake.h - hello: may these two talk, and within which limits. Pure functions; a pair
 * that cannot work is refused with one sentence that names both sides' values. */
#ifndef GW_CONTROL_HANDSHAKE_H
#define GW_CONTROL_HANDSHAKE_H

#include "control/message.h"

/* Target: judge the source's hello against ours (ours: limits and time-outs filled in) and make the
 * reply: versions chosen, endpoints granted, our limits. @granted is what both then obey.
 * -EPROTONOSUPPORT, -E2BIG, -EINVAL... with err (code unsupported, limit, protocol). */
int gw_hello_answer(const struct gw_hello *ours, const struct gw_hello *theirs,
                    struct gw_hello *reply, struct gw_error *err);
/* Source: judge the reply to what we sent. */
int gw_hello_accept(const struct gw_hello *ours, const struct gw_hello *reply,
                    struct gw_error *err);

#endif
