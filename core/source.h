/* SPDX-License-Identifier: MIT */
/* core/source.h - the source's engine, as its files share it: source_api.c (the embedder's side),
 * source.c (step, messages, ending), source_setup.c (connecting to the blocks taken), source_wires.c
 * (pages over another wire), source_chunks.c (memory made ready on one-sided wires), source_devices.c (the
 * table of devices: set-up, turns in a round), source_save.c (in the pause, and their end), source_turn.c,
 * source_items.c (how much they make, and how it gets to the channel), source_packets.c (what workers make),
 * precopy.c (rounds), switchover.c (pause to PREPARED), source_settle.c (release to the outcome, and the
 * way back).
 *
 * Everything here belongs to the engine's thread, except what says otherwise. */
#ifndef GW_CORE_SOURCE_H
#define GW_CORE_SOURCE_H

#include "control/channel.h"
#include "control/handshake.h"
#include "control/vmdesc.h"
#include "core/base/clock.h"
#include "core/converge.h"
#include "core/devices.h"
#include "core/discard.h"
#include "core/handover.h"
#include "core/loop.h"
#include "core/page_out.h"
#include "core/params.h"
#include "core/shell.h"
#include "core/source_items.h"
#include "core/teller.h"
#include "core/wires.h"
#include "ram/chunk.h"
#include "ram/digest.h"
#include "ram/dirty.h"

#include <godwit/source.h>
#include <stdatomic.h>

#define GW_ROUNDS_KEPT 256

/* What the engine is waiting for. */
enum gw_source_step {
    GW_SRC_CONNECT,       /* control endpoint: job */
    GW_SRC_HELLO,         /* HELLO_REPLY */
    GW_SRC_CONNECT_PAGES, /* page endpoints: jobs, one after the other */
    GW_SRC_TRACK,         /* dirty sources start, populated map: job, begun with CONNECT_PAGES */
    GW_SRC_OFFER,         /* BLOCKS_OK */
    GW_SRC_DEVICES,       /* setup of devices; what is early is loaded */
    GW_SRC_REGISTER, /* rdma-pin-all: everything is registered at both ends; tracks_late: here */
    GW_SRC_SEND,     /* a round is being sent: all fenced and JOINED */
    GW_SRC_SYNC,     /* dirty sync: jobs */
    GW_SRC_PRE_SWITCHOVER,
    GW_SRC_PAUSE, /* pause callback */
    GW_SRC_FINAL_SYNC,
    GW_SRC_FINAL_SEND, /* all fenced; device state saved */
    GW_SRC_STREAM,     /* digest; device state and PREPARE handed to the channel */
    GW_SRC_PREPARE,    /* PREPARED */
    GW_SRC_HANDOVER,   /* the handover table decides (release, COMMIT, outcome, way back) */
    GW_SRC_LINGER,     /* the last message goes out; the peer closes */
    GW_SRC_CLEANUP,    /* dirty sources stop: job */
    GW_SRC_OVER,
};

/* Cancel and COMMIT race here, by one compare-exchange. */
enum gw_decision { GW_DECIDED_NOTHING, GW_DECIDED_CANCEL, GW_DECIDED_COMMIT };

struct gw_source_call { /* one embedder callback at a time */
    struct gw_call call;
    struct gw_mail done;
    struct gw_source *src;
    int (*run)(struct gw_source *src, struct gw_error *err); /* on the loop's thread */
    void (*finished)(struct gw_source *src, int rc);         /* on the engine's thread */
    int rc;
    struct gw_error err;
    uint64_t asked_ns; /* engine: the budget counts from here */
    uint64_t begun_ns, took_ns;
    bool busy;
};

struct gw_source_job { /* one blocking job of the pool */
    struct gw_job job;
    struct gw_source *src;
    unsigned owner;
    int rc;
    uint64_t found; /* sync: pages newly dirty */
    uint64_t took_ns;
    struct gw_error err;
    bool busy;
};

#define GW_WIRE_WHY_BYTES 160

struct gw_source_wire { /* a wire that pages would take (x-wire) */
    char name[GW_WIRE_WORD_BYTES];
    char why[GW_WIRE_WHY_BYTES]; /* it was not taken */
    bool named;                  /* the target listens there: at uri */
    struct gw_uri uri;
};

struct gw_source_wires {
    struct gw_source_wire at[GW_WIRES_MAX]; /* best first */
    unsigned count, next;                   /* next: being tried, or taken; count: control's wire */
    struct gw_domain *dom;                  /* of the wire at next; NULL: src->dom */
};

struct gw_handling {        /* one device in this migration; as many, and in order, as gw_devices */
    bool is_active;         /* takes part, by its handlers: BEGIN was written */
    bool is_done;           /* in this round */
    bool goes_beside;       /* its PARTs of the pause are the workers' */
    bool has_ended;         /* END was written */
    bool is_saved;          /* FULL was written early, or is not to be */
    uint64_t pending_bytes; /* as last asked */
    uint64_t round_left_bytes; /* what was pending when the round began, less what it wrote since */
};

struct gw_source_pending {        /* of all devices, memory too */
    uint64_t bytes, device_bytes; /* device_bytes: without memory */
    uint32_t acks_wanted;
    bool is_exact;
};

/* BESIDE: until the workers are done; what ends their sections is put into the stream. */
enum gw_saving_pass {
    GW_SAVING_COMPLETE,
    GW_SAVING_BESIDE,
    GW_SAVING_FULL,
    GW_SAVING_END,
    GW_SAVING_OVER
};

struct gw_source_saving { /* where saving is: the callback's, while it runs */
    enum gw_saving_pass pass;
    unsigned next;
    uint64_t turn_bytes, paid_bytes; /* of handlers: at most, and made, in one callback */
};

struct gw_source {
    /* set once, by the embedder's thread */
    struct gw_loop *loop;
    struct gw_source_ops ops;
    void *ctx;
    struct gw_log log;
    char machine[256];
    struct gw_ram *ram;
    struct gw_devices devices;
    struct gw_discards discards; /* [any thread] through its lock */
    struct gw_pool *pool;
    struct gw_inbox inbox;
    struct gw_shell shell;
    bool thread_runs; /* embedder's thread: the engine's thread is to be joined */
    bool
        gone; /* the guest is the target's for good: written by the engine before running is false */

    _Atomic int decision; /* enum gw_decision */
    _Atomic bool started; /* once, at least: there is a result, or will be */
    _Atomic bool running; /* from start until over */
    _Atomic bool unknown; /* the outcome is reported unknown */
    _Atomic bool stuck;   /* retake or resume failed */
    _Atomic bool continue_asked;
    _Atomic bool abandoned;     /* gw_source_free(): end even if the outcome is unknown */
    _Atomic int resolution;     /* 0, or 1 + enum gw_source_resolution, taken by the engine */
    _Atomic int resolve_answer; /* 1: the engine has not acted; else gw_source_resolve()'s rc */
    _Atomic int calls_in_loop;  /* posted and not yet run; free waits for 0 */

    struct gw_teller teller;

    struct gw_call slow_call; /* of throttle(): at most one is posted */
    unsigned slow_asked;      /* engine: the percentage asked for last */
    _Atomic unsigned slow_percent;
    _Atomic bool slow_posted;

    pthread_mutex_t params_lock;
    struct gw_params params_live; /* guarded by params_lock: as set; params is the engine's copy */
    struct gw_params params;

    /* one migration */
    struct gw_uri uri, page_uri; /* where control goes, and pages */
    struct gw_source_wires wires;
    uint64_t started_ns;
    enum gw_source_step step;
    enum gw_hs_state hs;
    uint8_t session[GW_SESSION_BYTES];
    struct gw_token token;
    struct gw_domain *dom;
    struct gw_endpoint *control;
    struct gw_channel *channel;
    struct gw_hello hello, granted;
    uint64_t memlock_besides; /* hello's memlock_bytes come after so many */
    struct gw_chunks *chunks;
    struct gw_making *making; /* one-sided wires: chunks being made ready (source_chunks.c) */
    struct gw_throttle throttle;
    struct gw_page_out *pages[255];
    unsigned page_count, page_wanted;
    struct gw_source_job connect;
    struct gw_uri connect_uri;
    struct gw_endpoint *connected; /* result of the connect job */
    unsigned hello_losses;         /* connections that ended before HELLO was answered */
    uint64_t connect_again_ns, connect_until_ns, hello_until_ns, offer_until_ns;
    struct gw_source_job work; /* track, digest, cleanup */
    struct gw_source_job sync[255];
    unsigned syncs_busy;
    bool sync_waits;     /* until no chunk's sync is under way */
    bool tracking;       /* dirty sources are started: they must be stopped */
    bool tracks_late;    /* ... but for those that clear once, which wait for the pins */
    bool cleaned;        /* they are stopped, and nothing is registered any more */
    unsigned offer_next; /* next block to offer */

    struct gw_source_call call;
    bool paused;
    bool released; /* release() was called, and retake() has not succeeded since */

    /* rounds */
    uint32_t round; /* number of the current fence; 1 is the first */
    unsigned fenced_count;
    bool joined;
    uint64_t round_begun_ns, round_busy_ns, sync_begun_ns, armed_ns;
    uint64_t round_dirty_pages, round_bytes_before, round_normal_before, round_duplicate_before;
    uint64_t round_said_before; /* control messages */
    bool stall_told;
    struct gw_converge converge;
    uint64_t wishes_again_ns;
    bool wishes_done;

    /* devices, and the stream */
    bool has_handlers,
        has_early; /* some device but memory: sends before the pause, or the memory */
    struct gw_handling *handlings;
    struct gw_source_pending pending;
    struct gw_source_items made;            /* by the callback that runs, until it has returned */
    struct gw_source_items items;           /* to be handed to the channel */
    size_t item_at;                         /* of the first: handed over */
    uint64_t stream_bytes_said, items_said; /* handed over; items: whole ones */
    uint64_t items_early;                   /* must be loaded before the first round */
    uint64_t items_loaded;                  /* by LOADED, as are these */
    uint32_t acks_missing, acks_given;
    bool loaded_heard, setup_done;
    struct gw_vmdesc desc;
    bool has_desc;
    unsigned turn_next;          /* device that a turn begins with */
    uint64_t turn_bytes;         /* that a turn may make */
    uint64_t turn_ns;            /* no turn before, unless nobody else wants the bandwidth */
    uint64_t round_device_bytes; /* made in this round */
    bool round_was_cut;          /* a device had more, and does not know how much */
    struct gw_round_facts facts; /* of the round that is judged */
    uint64_t next_round_ns;      /* SYNC: a round that would come too early waits; 0: none does */
    bool ack_wait_told;
    uint64_t loaded_ns; /* when LOADED was heard last, or the wait for one began */
    struct gw_source_saving saving;
    bool devices_cleaned;
    struct gw_packing *packing; /* device state beside the stream (source_packets.c); NULL: none */

    /* switchover */
    bool fence_is_last; /* the one that is out, or was */
    bool items_saved, digest_done, prepare_sent;
    struct gw_error
        late_err; /* a page endpoint was lost after its last fence was said, or to a peer that
                               * may be dying: an error, unless JOINED or the true cause */
    uint64_t late_until_ns; /* comes until then; 0: none was */
    uint64_t pause_called_ns, final_put_ns, prepare_sent_ns, committed_ns, device_deadline_ns;
    uint64_t stream_begun_ns,
        joined_ns; /* devices saved and last page out; JOINED of the last round */
    uint64_t precopy_bytes;
    uint64_t moved, moved_ns; /* what the paused guest waits for: how far it is, since when */

    /* settle */
    bool link_up, asking_timer_runs;
    int unsaid;       /* why a message could not even be queued: the link is as good as lost */
    bool abort_heard; /* the target has answered our ABORT: nothing more is to be said */
    uint32_t attempt;
    uint64_t settle_left_ns, settle_seen_ns, linger_until_ns;
    enum gw_status end_status;
    bool cancelled_by_us;

    struct gw_error err;       /* the first failure */
    struct gw_error stuck_err; /* why the guest could not be taken back or resumed */

    pthread_mutex_t stats_lock;
    struct gw_stats stats; /* guarded by stats_lock, as is all below */
    struct gw_round rounds[GW_ROUNDS_KEPT];
    unsigned round_count;
    struct gw_error result_err;
    int result;
};

/* source.c */
void gw_source_fail(struct gw_source *src,
                    const struct gw_error *err); /* back out, if that may be */
void gw_source_status(struct gw_source *src, enum gw_status status);
void gw_source_tell(struct gw_source *src, enum gw_event_type type, const struct gw_error *err,
                    const char *format, ...) GW_PRINTF(4, 5);
void gw_source_tell_round(struct gw_source *src, const struct gw_round *round);
void gw_source_post(struct gw_source *src, struct gw_source_job *job, void (*run)(struct gw_job *),
                    void (*done)(struct gw_mail *, void *));
void gw_source_post_to(struct gw_source *src, struct gw_pool *pool, struct gw_source_job *job,
                       void (*run)(struct gw_job *), void (*done)(struct gw_mail *, void *));
/* Run an embedder callback: @run on the loop's thread, then @finished on the engine's. */
void gw_source_ask(struct gw_source *src, int (*run)(struct gw_source *, struct gw_error *),
                   void (*finished)(struct gw_source *, int));
int gw_source_say(struct gw_source *src, const struct gw_message *msg);
/* Asks for slower vCPUs, or releases them, as parameters and the step want it: at each step. */
void gw_source_slow(struct gw_source *src);
void gw_source_finish(struct gw_source *src, enum gw_status status); /* linger, clean up, over */
extern const struct gw_engine_ops gw_source_engine;
uint64_t gw_source_step_now(struct gw_source *src, uint64_t now_ns);
void gw_source_totals(struct gw_source *src, struct gw_sender_stats *totals, uint64_t *tx_bytes);

/* source_setup.c */
void gw_source_connect(struct gw_source *src);
void gw_source_connect_again(struct gw_source *src); /* from the beginning, after a moment */
void gw_source_on_hello_reply(struct gw_source *src, const struct gw_message *msg);
void gw_source_on_blocks_ok(struct gw_source *src, const struct gw_message *msg);
/* A dirty source that clears once waits until memory is registered; true: nobody waits. */
bool gw_source_track_late(struct gw_source *src);
void gw_source_on_keys(struct gw_source *src, const struct gw_message *msg);
uint64_t gw_source_setup_step(struct gw_source *src, uint64_t now_ns);
void gw_source_close_link(struct gw_source *src);
int gw_source_open_channel(struct gw_source *src, struct gw_error *err);

/* source_wires.c */
void gw_source_wires_reset(struct gw_source *src);
uint32_t gw_source_page_flags(const struct gw_source *src); /* of the wire that pages take */
struct gw_domain *gw_source_page_dom(const struct gw_source *src);
/* Name in @hello the wires asked for. Return: flags of all that it may come to. */
uint32_t gw_source_wires_offer(struct gw_source *src, struct gw_hello *hello);
int gw_source_wires_answered(struct gw_source *src, const struct gw_hello *reply,
                             struct gw_error *err);
void gw_source_wires_next(struct gw_source *src);
bool gw_source_wires_is_trying(const struct gw_source *src);
/* -EOPNOTSUPP: a wire was asked for by name, and it cannot be had. */
int gw_source_wires_check(const struct gw_source *src, struct gw_error *err);
int gw_source_wires_domain(struct gw_source *src, const struct gw_wire_config *config,
                           struct gw_error *err);
/* The wire tried could not be connected, for @err: 0: try the next, which is set; else @err is why not. */
int gw_source_wires_failed(struct gw_source *src, struct gw_error *err);
void gw_source_wires_chosen(struct gw_source *src); /* tell, and name it in statistics */
void gw_source_wires_close(struct gw_source *src);

/* source_devices.c */
void gw_source_look_at_devices(struct gw_source *src); /* has_handlers, has_early */
void gw_source_begin_devices(struct gw_source *src); /* the blocks are taken: setup, then rounds */
uint64_t gw_source_devices_step(struct gw_source *src, uint64_t now_ns);
void gw_source_on_loaded(struct gw_source *src, const struct gw_message *msg);
/* Ask every device what is left, into src->pending: @finished may have been called on return. Nobody
 * sends or syncs pages. */
void gw_source_ask_pending(struct gw_source *src, bool exact,
                           void (*finished)(struct gw_source *, int));
bool gw_source_acks_are_there(const struct gw_source *src);
void gw_source_devices_begin_round(struct gw_source *src);
bool gw_source_devices_are_done(const struct gw_source *src); /* in this round */
uint64_t gw_source_iterate(struct gw_source *src, uint64_t now_ns);

/* source_save.c */
uint64_t gw_source_save(struct gw_source *src, uint64_t now_ns); /* the next batch, if one may be */
bool gw_source_clean_devices(struct gw_source *src);             /* true: done */
void gw_source_drop_devices(struct gw_source *src);

/* source_turn.c: for the two above */
uint64_t gw_source_turn_bytes(const struct gw_source *src, uint64_t most);
/* Of max-bandwidth, for what was made. Return: when the next may begin, whoever wants the bandwidth. */
uint64_t gw_source_pay(struct gw_source *src, uint64_t bytes, uint64_t now_ns);
/* @turn_ns is what it returned; sooner, if all is paid. */
uint64_t gw_source_paid_ns(const struct gw_source *src, uint64_t turn_ns);
/* In a callback: an item to be written, then added to what it made, unless it is empty or @rc, which is
 * returned, says that it failed. */
struct gw_source_item *gw_source_make_item(struct gw_source *src, struct gw_error *err);
int gw_source_made(struct gw_source *src, struct gw_source_item *item, int rc);

/* source_items.c */
bool gw_source_stream_items(struct gw_source *src); /* true: all that is ready is handed over */
bool gw_source_stream_until(struct gw_source *src,
                            uint64_t items); /* not more than so many in all */

/* precopy.c */
void gw_source_maybe_last(struct gw_source *src); /* the last fence, once it may come */
void gw_source_first_round(struct gw_source *src);
void gw_source_maybe_over(struct gw_source *src);                      /* the round, if it is */
uint64_t gw_source_next_round(struct gw_source *src, uint64_t now_ns); /* SYNC: one that waits */
void gw_source_begin_round(struct gw_source *src, bool final);
void gw_source_begin_sync(struct gw_source *src, bool final);
void gw_source_sync_waits_no_more(struct gw_source *src); /* a chunk's sync is over */
/* @found pages were newly dirty at the sync after it, dirtied in @dirtied_ns; 0, 0: no such sync. */
void gw_source_record_round(struct gw_source *src, uint64_t found, uint64_t dirtied_ns);
void gw_source_on_fenced(void *engine, unsigned owner, uint32_t number);
void gw_source_on_page_lost(void *engine, unsigned owner, const struct gw_error *err);
uint64_t gw_source_judge_late(struct gw_source *src, uint64_t now_ns);
void gw_source_on_joined(struct gw_source *src, uint32_t number);
uint64_t gw_source_wish(struct gw_source *src, uint64_t now_ns);

/* switchover.c */
void gw_source_switch(struct gw_source *src);
void gw_source_pause(struct gw_source *src);
void gw_source_final_synced(struct gw_source *src);
void gw_source_final_fenced(struct gw_source *src);
void gw_source_saved(struct gw_source *src); /* a batch; the last: items_saved */
void gw_source_stream_step(struct gw_source *src);
void gw_source_on_prepared(struct gw_source *src, const struct gw_message *msg);

/* source_settle.c */
void gw_source_event(struct gw_source *src, enum gw_hs_event event);
void gw_source_back_out(struct gw_source *src); /* now, or when the callback that runs returns */
bool gw_source_awaits_outcome(const struct gw_source *src);
bool gw_source_is_committed(const struct gw_source *src);
void gw_source_on_outcome(struct gw_source *src, const struct gw_message *msg);
uint64_t gw_source_settle_step(struct gw_source *src, uint64_t now_ns);

#endif
