// SPDX-License-Identifier: MIT
/* The handover: looks lines up in handover.def. No state of its own, no effect, cannot fail. */
#include "core/handover.h"

#include <stddef.h>

struct rule {
    uint8_t state, event, next;
    uint32_t actions;
};

#define SEND_ABORT GW_HSA_SEND_ABORT
#define SEND_COMMIT GW_HSA_SEND_COMMIT
#define SEND_ACK GW_HSA_SEND_ACK
#define SEND_ASK GW_HSA_SEND_ASK
#define RECONNECT GW_HSA_RECONNECT
#define CALL_RELEASE GW_HSA_CALL_RELEASE
#define CALL_RETAKE GW_HSA_CALL_RETAKE
#define CALL_RESUME GW_HSA_CALL_RESUME
#define TELL_UNKNOWN GW_HSA_TELL_UNKNOWN
#define TELL_RETAKE GW_HSA_TELL_RETAKE

static const struct rule source_rules[] = {
#define GW_SOURCE(state, event, next, actions)                                                     \
    {GW_HS_##state, GW_HSE_##event, GW_HS_##next, actions},
#include "core/handover.def"
#undef GW_SOURCE
};

#define SAY_PREPARED GW_HTA_SAY_PREPARED
#define SAY_OUTCOME GW_HTA_SAY_OUTCOME
#define SET_VOID GW_HTA_SET_VOID
#define SET_RUNNING GW_HTA_SET_RUNNING
#define SET_DECLINED GW_HTA_SET_DECLINED
#define CALL_ACQUIRE GW_HTA_CALL_ACQUIRE
#define CALL_RUN GW_HTA_CALL_RUN
#define TELL_HOLDING GW_HTA_TELL_HOLDING
#define STOP_READING GW_HTA_STOP_READING

static const struct rule target_rules[] = {
#define GW_TARGET(state, event, next, actions)                                                     \
    {GW_HT_##state, GW_HTE_##event, GW_HT_##next, actions},
#include "core/handover.def"
#undef GW_TARGET
};

static const struct rule *find(const struct rule *rules, size_t count, unsigned state,
                               unsigned event)
{
    for (size_t i = 0; i < count; i++) {
        if (rules[i].state == state && rules[i].event == event)
            return &rules[i];
    }
    return NULL;
}

int gw_handover_source(enum gw_hs_state *state, enum gw_hs_event event, uint32_t *actions)
{
    const struct rule *rule =
        find(source_rules, sizeof(source_rules) / sizeof(source_rules[0]), *state, event);
    *actions = rule ? rule->actions : 0;
    if (!rule)
        return 0;
    *state = (enum gw_hs_state)rule->next;
    return 1;
}

int gw_handover_target(enum gw_ht_state *state, enum gw_ht_event event, uint32_t *actions)
{
    const struct rule *rule =
        find(target_rules, sizeof(target_rules) / sizeof(target_rules[0]), *state, event);
    *actions = rule ? rule->actions : 0;
    if (!rule)
        return 0;
    *state = (enum gw_ht_state)rule->next;
    return 1;
}

const char *gw_hs_state_name(enum gw_hs_state state)
{
    static const char *const names[] = {
        "PRECOPY",  "PAUSED",   "RELEASING", "WITHDRAWN", "COMMITTED", "ASKING",   "UNKNOWN",
        "RETAKING", "RESUMING", "STUCK",     "ENDED",     "COMPLETED", "ABANDONED"};
    return (unsigned)state < GW_HS_COUNT_ ? names[state] : "?";
}

const char *gw_ht_state_name(enum gw_ht_state state)
{
    static const char *const names[] = {"LOADING",     "PREPARED",  "HOLDING",  "CLAIMED",
                                        "CLAIM_TAKES", "ACQUIRING", "STARTING", "RUNNING",
                                        "DECLINED",    "VOIDED",    "SETTLED"};
    return (unsigned)state < GW_HT_COUNT_ ? names[state] : "?";
}
