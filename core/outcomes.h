/* SPDX-License-Identifier: MIT */
/* core/outcomes.h - what became of the guests that a target served before: the last few, so that a
 * source that asks late for one of them is told, while the target serves another. */
#ifndef GW_CORE_OUTCOMES_H
#define GW_CORE_OUTCOMES_H

#include "control/message.h"

#define GW_OUTCOMES_KEPT 64

struct gw_past {
    uint8_t session[GW_SESSION_BYTES];
    struct gw_token token;
    enum gw_outcome outcome; /* never NONE */
    enum gw_code code;       /* why, of VOID and DECLINED */
    uint64_t acquire_ns, resume_ns;
};

struct gw_outcomes {
    struct gw_past past[GW_OUTCOMES_KEPT]; /* a ring */
    unsigned count;                        /* ever added */
};

/* The oldest makes room. */
void gw_outcomes_add(struct gw_outcomes *outcomes, const struct gw_past *past);
/* NULL: not known, or forgotten. */
const struct gw_past *gw_outcomes_find(const struct gw_outcomes *outcomes, const uint8_t *session,
                                       const struct gw_token *token);

#endif
