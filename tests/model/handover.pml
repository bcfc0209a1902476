/* SPDX-License-Identifier: MIT
 *
 * handover.pml - the exactly-once handover, model-checked with spin. The two machines are read from
 * core/handover.def, the file the code is made of: there is no second copy of a transition here. What
 * this file adds is the world around them: connections that break at any moment with messages in
 * them, messages that sit unread in a connection's socket while another is used, a target that may
 * die, forget and come back, a source that may die, callbacks that fail, a user who cancels, and an
 * operator who resolves by what is true.
 *
 * From PREPARE on: the guest is paused at the source, its state is at the target.
 *
 * Checked: never two runners, nor a guest that goes on at the source though it ever ran at the target
 * (assertions at each start of a vCPU); the target's outcome is written once
 * (assertion); at the end (nobody can move) the guest runs at exactly one side, unless a side died,
 * or is paused at the source with the outcome reported unknown or a retake that failed. */

#ifndef BREAKS
#define BREAKS 2 /* links that break */
#endif
#ifndef CONNS
#define CONNS 4 /* connections in all */
#endif

/* ---- the tables, as constants and as one inline each -------------------------------------------- */

mtype:hs = { H_PRECOPY, H_PAUSED, H_RELEASING, H_WITHDRAWN, H_COMMITTED, H_ASKING, H_UNKNOWN,
             H_RETAKING, H_RESUMING, H_STUCK, H_ENDED, H_COMPLETED, H_ABANDONED };
mtype:se = { S_BACK_OUT, S_PAUSE_CALLED, S_PAUSE_FAILED, S_PREPARED, S_RELEASED, S_RELEASE_FAILED,
             S_SAID_RUNNING, S_SAID_DECLINED, S_SAID_VOID, S_SAID_UNKNOWN, S_LINK_LOST, S_LINK_UP,
             S_SETTLE_TIMEOUT, S_RESOLVE_RESUME, S_RESOLVE_ABANDON, S_RETAKEN, S_RETAKE_FAILED,
             S_RESUMED, S_RESUME_FAILED };
#define SEND_ABORT 1
#define SEND_COMMIT 2
#define SEND_ACK 4
#define SEND_ASK 8
#define RECONNECT 16
#define CALL_RELEASE 32
#define CALL_RETAKE 64
#define CALL_RESUME 128
#define TELL_UNKNOWN 256
#define TELL_RETAKE 512

mtype:ht = { T_LOADING, T_PREPARED, T_HOLDING, T_CLAIMED, T_CLAIM_TAKES, T_ACQUIRING, T_STARTING,
             T_RUNNING, T_DECLINED, T_VOIDED, T_SETTLED };
mtype:te = { E_LOADED, E_FAILED, E_ABORTED, E_LINK_LOST, E_COMMITTED, E_ASKED, E_ACKED,
             E_HOLD_TIMEOUT, E_SETTLE_TIMEOUT, E_CLAIMED, E_RESOLVE_RUN, E_RESOLVE_DISCARD,
             E_ACQUIRED, E_ACQUIRE_FAILED, E_STARTED };
#define SAY_PREPARED 1
#define SAY_OUTCOME 2
#define SET_VOID 4
#define SET_RUNNING 8
#define SET_DECLINED 16
#define CALL_ACQUIRE 32
#define CALL_RUN 64
#define TELL_HOLDING 128
#define STOP_READING 256

mtype:msg = { PREPARED, COMMIT, RUNNING, DECLINED, VOIDED, ACK, ABORT, ASK, UNKNOWN };
mtype:outcome = { O_NONE, O_RUNNING, O_DECLINED, O_VOID };

/* ---- the world ------------------------------------------------------------------------------------ */

chan to_target[CONNS] = [3] of { mtype:msg };
chan to_source[CONNS] = [3] of { mtype:msg };
bool source_open[CONNS]; /* the source's end is open */
bool target_open[CONNS]; /* the target's end is open */
bool broken[CONNS];      /* nothing passes any more; either end notices when it likes */
byte conns = 1;          /* made so far; number = attempt */
byte breaks = 0;

bool source_runs = false;
bool target_runs = false;
bool target_ran = false; /* ever */
bool source_dead = false, target_dead = false, target_forgot = false;
bool cancelled = false;

mtype:hs hs = H_PAUSED;
mtype:ht ht = T_LOADING;
mtype:outcome outcome = O_NONE;
bool operator_fenced_source = false;
short s_act = 0, t_act = 0;
byte s_conn = 0; /* connection in use */
bool s_linked = true;
byte t_conn = 0;
bool t_linked = true;
bool s_call_release = false, s_call_retake = false, s_call_resume = false;
bool t_call_acquire = false, t_call_run = false;

inline put(channel, message)
{
    if
    :: nfull(channel) -> channel!message
    :: full(channel) -> skip /* cannot happen to a handover's few words; a lost one is legal */
    fi
}

#define GW_SOURCE(state, event, next, actions) :: (hs == H_##state && ev == S_##event) -> hs = H_##next; s_act = actions;
inline source_event(event_)
{
    mtype:se ev = event_;
    s_act = 0;
    if
#include "../../core/handover.def"
    :: else -> skip
    fi;
    source_act()
}
#undef GW_SOURCE

inline source_close()
{
    if
    :: s_linked -> source_open[s_conn] = false; s_linked = false
    :: else -> skip
    fi
}

inline source_say(message)
{
    if
    :: s_linked -> put(to_target[s_conn], message)
    :: else -> skip
    fi
}

inline source_act()
{
    if :: (s_act & SEND_ABORT) -> source_say(ABORT) :: else -> skip fi;
    if :: (s_act & SEND_COMMIT) -> source_say(COMMIT) :: else -> skip fi;
    if :: (s_act & SEND_ACK) -> source_say(ACK) :: else -> skip fi;
    if :: (s_act & SEND_ASK) -> source_say(ASK) :: else -> skip fi;
    if :: (s_act & RECONNECT) -> source_close() :: else -> skip fi;
    if :: (s_act & CALL_RELEASE) -> s_call_release = true :: else -> skip fi;
    if :: (s_act & CALL_RETAKE) -> s_call_retake = true :: else -> skip fi;
    if :: (s_act & CALL_RESUME) -> s_call_resume = true :: else -> skip fi;
    s_act = 0
}

#define GW_TARGET(state, event, next, actions) :: (ht == T_##state && tev == E_##event) -> ht = T_##next; t_act = actions;
inline target_event(event_)
{
    mtype:te tev = event_;
    t_act = 0;
    if
#include "../../core/handover.def"
    :: else -> skip
    fi;
    target_act()
}
#undef GW_TARGET

inline set_outcome(word)
{
    assert(outcome == O_NONE);
    outcome = word
}

inline say_outcome()
{
    if
    :: t_linked && outcome == O_RUNNING -> put(to_source[t_conn], RUNNING)
    :: t_linked && outcome == O_DECLINED -> put(to_source[t_conn], DECLINED)
    :: t_linked && outcome == O_VOID -> put(to_source[t_conn], VOIDED)
    :: else -> skip
    fi
}

inline target_close()
{
    if
    :: t_linked -> target_open[t_conn] = false; t_linked = false
    :: else -> skip
    fi
}

inline target_act()
{
    if :: (t_act & SET_VOID) -> set_outcome(O_VOID) :: else -> skip fi;
    if :: (t_act & SET_RUNNING) -> set_outcome(O_RUNNING) :: else -> skip fi;
    if :: (t_act & SET_DECLINED) -> set_outcome(O_DECLINED) :: else -> skip fi;
    if :: (t_act & SAY_PREPARED) && t_linked -> put(to_source[t_conn], PREPARED) :: else -> skip fi;
    if :: (t_act & SAY_OUTCOME) -> say_outcome() :: else -> skip fi;
    if :: (t_act & CALL_ACQUIRE) -> t_call_acquire = true :: else -> skip fi;
    if :: (t_act & CALL_RUN) -> t_call_run = true :: else -> skip fi;
    if :: (t_act & STOP_READING) -> target_close() :: else -> skip fi;
    t_act = 0
}

/* One end sees that its connection is gone: it broke, or the other end closed and all was read. */
#define SOURCE_SEES_END (s_linked && (broken[s_conn] || (!target_open[s_conn] && empty(to_source[s_conn]))))
#define TARGET_SEES_END (t_linked && (broken[t_conn] || (!source_open[t_conn] && empty(to_target[t_conn]))))
#define COMMITTED_OR_ASKING (hs == H_COMMITTED || hs == H_ASKING || hs == H_UNKNOWN)
#define BEFORE_COMMIT (hs == H_PAUSED || hs == H_RELEASING)

/* ---- the source -------------------------------------------------------------------------------------- */

inline source_hears(message)
{
    if
    :: message == PREPARED && hs == H_PAUSED -> source_event(S_PREPARED)
    :: message == RUNNING -> source_event(S_SAID_RUNNING)
    :: message == DECLINED && !BEFORE_COMMIT -> source_event(S_SAID_DECLINED)
    :: message == DECLINED && BEFORE_COMMIT -> source_event(S_BACK_OUT)
    :: message == VOIDED && !BEFORE_COMMIT -> source_event(S_SAID_VOID)
    :: message == VOIDED && BEFORE_COMMIT -> source_event(S_BACK_OUT)
    :: message == UNKNOWN -> source_event(S_SAID_UNKNOWN)
    :: else -> skip
    fi
}

active proctype source()
{
    mtype:msg heard;
    source_open[0] = true;
end_source:
    do
    :: source_dead -> break
    /* what arrives */
    :: atomic { !source_dead && s_linked && !broken[s_conn] && nempty(to_source[s_conn]) ->
                to_source[s_conn]?heard; source_hears(heard) }
    /* the link is seen to be lost; before COMMIT that is a reason to back out */
    :: atomic { !source_dead && SOURCE_SEES_END && BEFORE_COMMIT ->
                source_close(); source_event(S_BACK_OUT) }
    :: atomic { !source_dead && SOURCE_SEES_END && COMMITTED_OR_ASKING ->
                source_close(); source_event(S_LINK_LOST) }
    /* the device budget runs out after COMMIT: the connection is closed from here */
    :: atomic { !source_dead && s_linked && hs == H_COMMITTED && conns < CONNS ->
                source_close(); source_event(S_LINK_LOST) }
    /* a user, a budget, a digest: before the compare-exchange */
    :: atomic { !source_dead && !cancelled && BEFORE_COMMIT -> cancelled = true; source_event(S_BACK_OUT) }
    /* callbacks return */
    :: atomic { !source_dead && s_call_release -> s_call_release = false; source_event(S_RELEASED) }
    :: atomic { !source_dead && s_call_release -> s_call_release = false; source_event(S_RELEASE_FAILED) }
    :: atomic { !source_dead && s_call_retake -> s_call_retake = false; source_event(S_RETAKEN) }
    :: atomic { !source_dead && s_call_retake -> s_call_retake = false; source_event(S_RETAKE_FAILED) }
    :: atomic { !source_dead && s_call_resume -> s_call_resume = false; source_runs = true;
                assert(!target_runs && !target_ran); source_event(S_RESUMED) }
    /* connect again: anything listens there that lives and has not settled */
    :: atomic { !source_dead && !s_linked && (hs == H_ASKING || hs == H_UNKNOWN) && conns < CONNS &&
                !target_dead && ht != T_CLAIMED && ht != T_CLAIM_TAKES && ht != T_SETTLED ->
                s_conn = conns; conns++; source_open[s_conn] = true; target_open[s_conn] = true;
                s_linked = true; source_event(S_LINK_UP) }
    :: atomic { !source_dead && hs == H_ASKING && (conns == CONNS || !s_linked) && !s_linked ->
                source_event(S_SETTLE_TIMEOUT) }
    /* an operator who knows: only what is true may be said */
    :: atomic { !source_dead && hs == H_UNKNOWN && (target_dead || target_forgot) && !target_ran &&
                !operator_fenced_source -> source_event(S_RESOLVE_RESUME) }
    :: atomic { !source_dead && hs == H_UNKNOWN && target_ran -> source_event(S_RESOLVE_ABANDON) }
    od
}

/* ---- the target -------------------------------------------------------------------------------------- */

inline target_hears(message)
{
    if
    :: message == COMMIT && t_conn == 0 -> target_event(E_COMMITTED)
    :: message == ABORT -> target_event(E_ABORTED)
    :: message == ACK -> target_event(E_ACKED)
    :: else -> skip
    fi
}

/* A newer connection whose first message is a valid ASK; lower ones are closed unread. */
#define ASK_AT(c) (conns > c && target_open[c] && !broken[c] && nempty(to_target[c]) && (c > t_conn || (!t_linked && c >= t_conn)))

inline target_takes(c)
{
    to_target[c]?first;
    if
    :: first == ASK && !target_forgot -> target_close(); t_conn = c; t_linked = true; target_event(E_ASKED)
    :: first == ASK && target_forgot -> put(to_source[c], UNKNOWN); target_open[c] = false
    :: else -> target_open[c] = false
    fi
}

active proctype target()
{
    mtype:msg heard;
    mtype:msg first;
    target_open[0] = true;
end_target:
    do
    :: atomic { !target_dead && t_linked && !broken[t_conn] && nempty(to_target[t_conn]) ->
                to_target[t_conn]?heard; target_hears(heard) }
    :: atomic { !target_dead && TARGET_SEES_END -> target_close(); target_event(E_LINK_LOST) }
    :: atomic { !target_dead && ht == T_LOADING -> target_event(E_LOADED) }
    :: atomic { !target_dead && ht == T_LOADING -> target_event(E_FAILED) }
    :: atomic { !target_dead && ht == T_PREPARED -> target_event(E_FAILED) } /* cancel at the target */
    :: atomic { !target_dead && ht == T_HOLDING && !COMMITTED_OR_ASKING -> target_event(E_HOLD_TIMEOUT) }
    :: atomic { !target_dead && ht == T_HOLDING && s_linked == false -> target_event(E_HOLD_TIMEOUT) }
    :: atomic { !target_dead && t_call_acquire -> t_call_acquire = false; target_event(E_ACQUIRED) }
    :: atomic { !target_dead && t_call_acquire -> t_call_acquire = false; target_event(E_ACQUIRE_FAILED) }
    :: atomic { !target_dead && t_call_run -> t_call_run = false; target_runs = true; target_ran = true;
                assert(!source_runs); target_event(E_STARTED) }
    /* reconnections */
    :: atomic { !target_dead && ht != T_CLAIMED && ht != T_CLAIM_TAKES && ht != T_SETTLED && ASK_AT(1) -> target_takes(1) }
#if CONNS > 2
    :: atomic { !target_dead && ht != T_CLAIMED && ht != T_CLAIM_TAKES && ht != T_SETTLED && ASK_AT(2) -> target_takes(2) }
#endif
#if CONNS > 3
    :: atomic { !target_dead && ht != T_CLAIMED && ht != T_CLAIM_TAKES && ht != T_SETTLED && ASK_AT(3) -> target_takes(3) }
#endif
#if CONNS > 4
    :: atomic { !target_dead && ht != T_CLAIMED && ht != T_CLAIM_TAKES && ht != T_SETTLED && ASK_AT(4) -> target_takes(4) }
#endif
#if CONNS > 5
    :: atomic { !target_dead && ht != T_CLAIMED && ht != T_CLAIM_TAKES && ht != T_SETTLED && ASK_AT(5) -> target_takes(5) }
#endif
    /* Listening ends only when the source cannot ask any more (its settle time is no longer). */
    :: atomic { !target_dead && (ht == T_RUNNING || ht == T_DECLINED || ht == T_VOIDED) &&
                (source_dead || hs == H_COMPLETED || hs == H_ENDED || hs == H_UNKNOWN || hs == H_STUCK || hs == H_ABANDONED) &&
                !t_linked -> target_event(E_SETTLE_TIMEOUT) }
    /* claim: fence the source, then run, or discard */
    :: atomic { !target_dead && ht == T_HOLDING -> target_event(E_CLAIMED) }
    :: atomic { !target_dead && ht == T_CLAIMED && !source_runs && hs != H_ENDED && !s_call_resume ->
                source_dead = true; operator_fenced_source = true; target_event(E_RESOLVE_RUN) }
    :: atomic { !target_dead && ht == T_CLAIMED -> target_event(E_RESOLVE_DISCARD) }
    od
}

/* ---- faults ------------------------------------------------------------------------------------------- */

bool died = false;

active proctype faults()
{
    byte c;
end_faults:
    do
    :: atomic { breaks < BREAKS && conns > 0 -> breaks++; c = conns - 1; broken[c] = true }
#ifdef CRASHES
    :: atomic { !died && !source_dead -> died = true; source_dead = true; source_runs = false;
                source_open[s_conn] = false }
    :: atomic { !died && !target_dead -> died = true; target_dead = true; target_runs = false;
                target_open[t_conn] = false }
    :: atomic { target_dead && !target_forgot -> target_dead = false; target_forgot = true;
                t_linked = false; t_conn = 0; ht = T_LOADING; outcome = O_NONE; t_call_acquire = false;
                t_call_run = false; ht = T_VOIDED; outcome = O_VOID }
#endif
    od
}

/* ---- at the end --------------------------------------------------------------------------------------- */

/* Nobody can move: the guest runs somewhere, exactly once; or the operator has something to do. */
active proctype judge()
{
end_judge:
    timeout ->
    assert(!(source_runs && target_runs));
    assert(source_runs || target_runs || died || source_dead || target_dead ||
           hs == H_UNKNOWN || hs == H_STUCK)
}
