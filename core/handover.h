/* SPDX-License-Identifier: MIT */
/* core/handover.h - the exactly-once handover as two pure machines (handover.def). The engines feed
 * events and carry out actions; nothing here has an effect. */
#ifndef GW_CORE_HANDOVER_H
#define GW_CORE_HANDOVER_H

#include <stdint.h>

enum gw_hs_state {                  /* source */
                   GW_HS_PRECOPY,   /* the guest runs here */
                   GW_HS_PAUSED,    /* pause was called; nothing is released */
                   GW_HS_RELEASING, /* release() runs */
                   GW_HS_WITHDRAWN, /* backed out while release() runs */
                   GW_HS_COMMITTED, /* the compare-exchange is done; COMMIT goes out */
                   GW_HS_ASKING,    /* link lost after COMMIT: connects again and asks */
                   GW_HS_UNKNOWN,   /* reported; still asking */
                   GW_HS_RETAKING,
                   GW_HS_RESUMING,
                   GW_HS_STUCK, /* could not take back or resume: paused until resolved */
                   GW_HS_ENDED, /* the guest runs here again */
                   GW_HS_COMPLETED,
                   GW_HS_ABANDONED,
                   GW_HS_COUNT_
};

enum gw_hs_event {
    GW_HSE_BACK_OUT, /* link lost, cancel, failure, budget, digest: before COMMITTED */
    GW_HSE_PAUSE_CALLED,
    GW_HSE_PAUSE_FAILED,
    GW_HSE_PREPARED,
    GW_HSE_RELEASED,
    GW_HSE_RELEASE_FAILED,
    GW_HSE_SAID_RUNNING,
    GW_HSE_SAID_DECLINED,
    GW_HSE_SAID_VOID,
    GW_HSE_SAID_UNKNOWN,
    GW_HSE_LINK_LOST,
    GW_HSE_LINK_UP,
    GW_HSE_SETTLE_TIMEOUT,
    GW_HSE_RESOLVE_RESUME,
    GW_HSE_RESOLVE_ABANDON,
    GW_HSE_RETAKEN,
    GW_HSE_RETAKE_FAILED,
    GW_HSE_RESUMED,
    GW_HSE_RESUME_FAILED,
    GW_HSE_COUNT_
};

enum gw_hs_action {
    GW_HSA_SEND_ABORT = 1u << 0,
    GW_HSA_SEND_COMMIT = 1u << 1,
    GW_HSA_SEND_ACK = 1u << 2,
    GW_HSA_SEND_ASK = 1u << 3,
    GW_HSA_RECONNECT = 1u << 4,
    GW_HSA_CALL_RELEASE = 1u << 5,
    GW_HSA_CALL_RETAKE = 1u << 6,
    GW_HSA_CALL_RESUME = 1u << 7,
    GW_HSA_TELL_UNKNOWN = 1u << 8,
    GW_HSA_TELL_RETAKE = 1u << 9,
};

enum gw_ht_state { /* target */
                   GW_HT_LOADING,
                   GW_HT_PREPARED,
                   GW_HT_HOLDING, /* source gone before COMMIT */
                   GW_HT_CLAIMED, /* an operator decides */
                   GW_HT_CLAIM_TAKES,
                   GW_HT_ACQUIRING,
                   GW_HT_STARTING, /* outcome RUNNING is set; run() is being called */
                   GW_HT_RUNNING,
                   GW_HT_DECLINED,
                   GW_HT_VOIDED,
                   GW_HT_SETTLED, /* acknowledged, or listened long enough */
                   GW_HT_COUNT_
};

enum gw_ht_event {
    GW_HTE_LOADED,
    GW_HTE_FAILED,
    GW_HTE_ABORTED,
    GW_HTE_LINK_LOST,
    GW_HTE_COMMITTED, /* COMMIT was read */
    GW_HTE_ASKED,     /* a valid ASK on a newer connection */
    GW_HTE_ACKED,
    GW_HTE_HOLD_TIMEOUT,
    GW_HTE_SETTLE_TIMEOUT,
    GW_HTE_CLAIMED,
    GW_HTE_RESOLVE_RUN,
    GW_HTE_RESOLVE_DISCARD,
    GW_HTE_ACQUIRED,
    GW_HTE_ACQUIRE_FAILED,
    GW_HTE_STARTED,
    GW_HTE_COUNT_
};

enum gw_ht_action {
    GW_HTA_SAY_PREPARED = 1u << 0,
    GW_HTA_SAY_OUTCOME = 1u << 1,
    GW_HTA_SET_VOID = 1u << 2,
    GW_HTA_SET_RUNNING = 1u << 3,
    GW_HTA_SET_DECLINED = 1u << 4,
    GW_HTA_CALL_ACQUIRE = 1u << 5,
    GW_HTA_CALL_RUN = 1u << 6,
    GW_HTA_TELL_HOLDING = 1u << 7,
    GW_HTA_STOP_READING = 1u << 8,
};

/* Return: 1 and the actions, *state changed; 0: the event means nothing in this state. */
int gw_handover_source(enum gw_hs_state *state, enum gw_hs_event event, uint32_t *actions);
int gw_handover_target(enum gw_ht_state *state, enum gw_ht_event event, uint32_t *actions);

const char *gw_hs_state_name(enum gw_hs_state state); /* "COMMITTED" */
const char *gw_ht_state_name(enum gw_ht_state state);

#endif
