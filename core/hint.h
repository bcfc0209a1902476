/* SPDX-License-Identifier: MIT */
/* core/hint.h - what to do about a failure, where whoever found it had nothing better to say. */
#ifndef GW_CORE_HINT_H
#define GW_CORE_HINT_H

#include "core/base/error.h"

/* Sets err's hint unless there is one. */
void gw_hint_source(struct gw_error *err);
void gw_hint_target(struct gw_error *err);

#endif
