/* SPDX-License-Identifier: MIT */
/* core/target.h - the target's engine, as its files share it: target_api.c (the embedder's side),
 * target.c (step, messages, telling, ending), target_setup.c (accepting to BLOCKS_OK), target_wires.c
 * (pages over another wire), target_keys.c (wishes), target_prefault.c (wishes as advice), target_load.c
 * (the stream: join, revoke, digest, load), target_devices.c (the table of devices: what it loads, and
 * acknowledges), target_packets.c (what comes beside the stream), target_settle.c (PREPARED to the outcome
 * acknowledged).
 *
 * Everything here belongs to the engine's thread, except what says otherwise. */
#ifndef GW_CORE_TARGET_H
#define GW_CORE_TARGET_H

#include "control/channel.h"
#include "control/handshake.h"
#include "core/base/clock.h"
#include "core/devices.h"
#include "core/handover.h"
#include "core/loop.h"
#include "core/outcomes.h"
#include "core/page_in.h"
#include "core/params.h"
#include "core/shell.h"
#include "core/teller.h"
#include "core/wires.h"
#include "ram/digest.h"

#include <godwit/target.h>
#include <stdatomic.h>

/* Control connections that have not said a valid first message yet. More wait in the listener. */
#define GW_CANDIDATES_MAX 8

struct gw_loading {                           /* one device of this guest */
    bool needs_ack;                           /* and has not given one */
    bool loads_packet;                        /* now */
    uint64_t packet;                          /* number of the last one loaded */
    struct gw_packet *packets, *packets_last; /* that came, in order of numbers */
};

/* Sections that one callback loads: fewer ways to the loop's thread and back, inside the downtime. */
#define GW_LOADS_MAX 32u

struct gw_load {
    struct gw_item *item;      /* where body lies */
    struct gw_section section; /* of PART and END: with what START said */
    struct gw_reader body;
    bool acked; /* the callback's, while it runs */
};

enum gw_target_step {
    GW_TGT_LISTEN,  /* no session: HELLO of some candidate */
    GW_TGT_OFFER,   /* hello done: block offers and page endpoints arrive */
    GW_TGT_READY,   /* blocks_ready callback, received bits, regions: job */
    GW_TGT_ACTIVE,  /* memory arrives */
    GW_TGT_REVOKE,  /* RAM END read, final fences joined: page endpoints are revoked */
    GW_TGT_DIGEST,  /* job */
    GW_TGT_LOAD,    /* device sections, one at a time */
    GW_TGT_SETTLE,  /* the handover table decides */
    GW_TGT_LINGER,  /* last words go out */
    GW_TGT_CLEANUP, /* jobs and callbacks end */
    GW_TGT_OVER,
};

/* Cancel and COMMIT (or an operator's RUN) race here, by one compare-exchange. */
enum gw_target_decision { GW_TARGET_OPEN, GW_TARGET_CANCELLED, GW_TARGET_COMMITTED };

struct gw_candidate { /* a control connection before its first message */
    struct gw_endpoint *ep;
    struct gw_channel *channel;
    uint64_t deadline_ns;
};

struct gw_target_call {
    struct gw_call call;
    struct gw_mail done;
    struct gw_target *tgt;
    int (*run)(struct gw_target *tgt, struct gw_error *err);
    void (*finished)(struct gw_target *tgt, int rc);
    int rc;
    struct gw_error err;
    uint64_t took_ns;
    bool busy;
};

struct gw_target_job {
    struct gw_job job;
    struct gw_target *tgt;
    int rc;
    uint64_t took_ns;
    struct gw_error err;
    bool busy;
};

struct gw_item { /* one whole item of the stream, waiting to be taken apart */
    struct gw_item *next;
    size_t bytes;
    uint8_t data[];
};

#define GW_WIRE_FDS_MAX 16

struct gw_target_wire { /* a listener for page endpoints alone (target_wires.c) */
    struct gw_target *tgt;
    struct gw_uri uri;
    struct gw_listener *listener; /* NULL: given up */
    struct gw_domain *dom;
    bool failed; /* a page endpoint of it broke */
    struct gw_error why;
};

struct gw_armed {                             /* where the descriptors of each armed one end */
    unsigned wires[GW_WIRES_MAX], wire_count; /* behind all others, from their first on */
    unsigned before_wires;
    unsigned control, listener, candidates[GW_CANDIDATES_MAX], candidate_count;
    bool listening;
};

struct gw_target {
    /* set once, by the embedder's thread */
    struct gw_loop *loop;
    struct gw_target_ops ops;
    void *ctx;
    struct gw_log log;
    char machine[256];
    bool machine_given;
    uint64_t ram_bytes_max;
    struct gw_params params;
    struct gw_devices devices;
    struct gw_pool *pool;
    struct gw_inbox inbox;
    struct gw_shell shell;
    bool thread_runs; /* embedder's thread: the engine's thread is to be joined */
    uint64_t incarnation;
    char uri_text[1024];

    _Atomic bool started; /* listened once, at least: there is a result, or will be */
    _Atomic bool running;
    _Atomic int decision;       /* enum gw_target_decision */
    _Atomic int outcome;        /* enum gw_outcome: write-once, by one compare-exchange */
    _Atomic int claim;          /* enum below: a claim asked for and its answer */
    _Atomic int resolution;     /* 0, or 1 + enum gw_target_resolution, taken by the engine */
    _Atomic int resolve_answer; /* 1: pending, 0: done, negative: gw_target_resolve()'s rc */
    _Atomic bool abandoned;     /* gw_target_free() */
    _Atomic int calls_in_loop;
    struct gw_teller teller;

    struct gw_outcomes outcomes; /* of guests before: the embedder's thread adds, between two */

    /* one guest */
    enum gw_target_step step;
    enum gw_ht_state hs;
    struct gw_listener *listener;
    struct gw_domain *dom;
    struct gw_uri uri, bound; /* as asked for; as listened on, with the real port */
    struct gw_target_wire wires[GW_WIRES_MAX];
    unsigned wire_count, wires_made;  /* made: the job's, while it runs */
    struct gw_target_wire *page_wire; /* once a page endpoint is open; NULL: control's */
    struct gw_candidate candidates[GW_CANDIDATES_MAX];
    unsigned candidate_count;
    struct gw_armed armed;
    bool in_session;
    uint8_t session[GW_SESSION_BYTES];
    struct gw_endpoint *control;
    struct gw_channel *channel;
    struct gw_hello hello, reply;
    struct gw_ram *ram;
    struct gw_page_in *pages[255];
    bool page_open[255];
    uint32_t page_fence[255]; /* the last that came there */
    unsigned page_open_count;

    struct gw_block_offer_msg *offers; /* whole list, once LAST arrived */
    unsigned offer_count, offer_room;
    uint64_t offered_bytes, offer_until_ns;
    bool offers_complete;
    struct gw_target_call call;
    bool building; /* the loop's thread: block_offered or blocks_ready runs */
    struct gw_target_job work;

    struct gw_lending *lending;         /* one-sided wires: keys (target_keys.c) */
    struct gw_prefaulting *prefaulting; /* NULL: registering populates, or nothing does */

    /* rounds */
    uint32_t fence;       /* the number being joined */
    unsigned fence_count; /* owners that have reported it */
    bool fence_final;
    bool final_joined;
    unsigned revoked_count;

    /* stream */
    struct gw_stream_order *order;
    struct gw_item *item; /* being assembled */
    size_t item_room;
    struct gw_item *items_first, **items_last;
    unsigned items_waiting;
    bool ram_ended, eof_seen;
    uint64_t items_taken;
    struct gw_load loads[GW_LOADS_MAX]; /* taken, in order; the callback's while it runs */
    unsigned load_count;
    size_t load_bytes;
    bool is_loading;
    struct gw_packet_pot packet_pot;
    struct gw_unpacking
        *unpacking;              /* device state beside the stream (target_packets.c); NULL: none */
    struct gw_loading *loadings; /* a device each, as many as gw_devices */
    uint32_t acks_missing, acks_given;
    bool devices_complete, devices_cleaned; /* load_complete, load_cleanup */

    /* handover */
    bool prepare_seen;
    uint32_t prepare_fence;
    struct gw_token token;
    bool source_has_digest;
    uint8_t source_digest[GW_DIGEST_BYTES], digest[GW_DIGEST_BYTES];
    int unsaid;       /* why a message could not even be queued: the link is as good as lost */
    uint32_t attempt; /* of the connection that is listened to; 0: the first one */
    uint64_t hold_until_ns, settle_until_ns, linger_until_ns;
    bool ack_seen;
    uint64_t revoke_begun_ns, revoke_ns, digest_ns, load_ns, acquire_ns, resume_ns;
    struct gw_error err; /* why it is void, declined or failed */
    enum gw_status end_status;

    pthread_mutex_t stats_lock;
    struct gw_stats stats; /* guarded by stats_lock, as is all below */
    uint64_t started_ns;
    struct gw_error result_err;
    int result;
};

enum gw_claim { GW_CLAIM_NONE, GW_CLAIM_ASKED, GW_CLAIM_DONE, GW_CLAIM_REFUSED };

/* target.c */
void gw_target_tell(struct gw_target *tgt, enum gw_event_type type, const struct gw_error *err,
                    const char *format, ...) GW_PRINTF(4, 5);
void gw_target_status(struct gw_target *tgt, enum gw_status status);
void gw_target_fail(struct gw_target *tgt, const struct gw_error *err); /* void, if undecided */
void gw_target_post(struct gw_target *tgt, struct gw_target_job *job, void (*run)(struct gw_job *),
                    void (*done)(struct gw_mail *, void *));
void gw_target_post_to(struct gw_target *tgt, struct gw_pool *pool, struct gw_target_job *job,
                       void (*run)(struct gw_job *), void (*done)(struct gw_mail *, void *));
void gw_target_ask(struct gw_target *tgt, int (*run)(struct gw_target *, struct gw_error *),
                   void (*finished)(struct gw_target *, int));
int gw_target_say(struct gw_target *tgt, const struct gw_message *msg);
void gw_target_take_cancel(struct gw_target *tgt);
void gw_target_close_link(struct gw_target *tgt);
void gw_target_finish(struct gw_target *tgt);
uint64_t gw_target_step_now(struct gw_target *tgt, uint64_t now_ns);
extern const struct gw_engine_ops gw_target_engine;

/* target_setup.c */
void gw_target_accept(struct gw_target *tgt, uint64_t now_ns);
uint64_t gw_target_room_ns(const struct gw_target *tgt); /* when it may accept; 0: now */
uint64_t gw_target_candidates(struct gw_target *tgt, uint64_t now_ns);
void gw_target_drop_candidates(struct gw_target *tgt);
uint64_t gw_target_setup_step(struct gw_target *tgt, uint64_t now_ns);
void gw_target_on_blocks(struct gw_target *tgt, const struct gw_message *msg);

/* May a page endpoint come over @wire (NULL: control's)? */
enum gw_admission gw_target_admit_page(struct gw_target *tgt, struct gw_target_wire *wire,
                                       const struct gw_preface *preface,
                                       struct gw_wire_config *config);
void gw_target_add_page(struct gw_target *tgt, struct gw_target_wire *wire, struct gw_endpoint *ep);
void gw_target_say_reply(struct gw_target *tgt); /* HELLO_REPLY */

/* target_wires.c */
struct gw_domain *gw_target_page_dom(const struct gw_target *tgt);
uint32_t gw_target_page_flags(const struct gw_target *tgt); /* of the wire that pages came over */
/* HELLO names page wires: the reply is said when they are listened on. */
bool gw_target_wires_asked(struct gw_target *tgt);
void gw_target_wires_accept(struct gw_target *tgt);
/* @wire is not the one that page endpoints are there of, but of that one the source may yet let go. */
bool gw_target_wires_is_leaving(const struct gw_target *tgt, const struct gw_target_wire *wire);
/* A page endpoint came over @wire, admitted before one of another: where the source tries @wire after that one, it
 * has given that one up, and so is it here. */
void gw_target_wires_move_on(struct gw_target *tgt, struct gw_target_wire *wire);
/* A page endpoint broke. True: the source may try another wire, and that one is given up here by the next
 * gw_target_wires_accept(). */
bool gw_target_wires_lost(struct gw_target *tgt, const struct gw_error *err);
int gw_target_wires_arm(struct gw_target *tgt, struct pollfd *fds, uint64_t *wake_ns);
void gw_target_wires_awake(struct gw_target *tgt, const struct pollfd *fds);
void gw_target_wires_close(struct gw_target *tgt); /* after page endpoints and registrations */

/* target_keys.c */
int gw_target_keys_open(struct gw_target *tgt, struct gw_error *err); /* where memory is ready */
/* Deregisters everything: may take long, so a job's to do. Takes a target without keys. */
void gw_target_keys_close(struct gw_target *tgt);
bool gw_target_keys_are_quiet(const struct gw_target *tgt); /* no job is at a worker */
uint64_t gw_target_keys_step(struct gw_target *tgt, uint64_t now_ns);
uint64_t gw_target_registered_peak(const struct gw_target *tgt);
void gw_target_on_wishes(struct gw_target *tgt, const struct gw_message *msg);
void gw_target_on_release(struct gw_target *tgt, const struct gw_message *msg);

/* target_prefault.c. Open and close where keys are. */
void gw_target_prefault_open(struct gw_target *tgt);
void gw_target_prefault_close(struct gw_target *tgt);
bool gw_target_prefault_is_quiet(const struct gw_target *tgt);
void gw_target_prefault_step(struct gw_target *tgt);
/* @wish was checked. */
void gw_target_prefault_wish(struct gw_target *tgt, const struct gw_wish *wish);

/* target_load.c */
void gw_target_on_fenced(void *engine, unsigned owner, uint32_t number, bool final);
void gw_target_on_revoked(void *engine, unsigned owner);
void gw_target_on_page_lost(void *engine, unsigned owner, const struct gw_error *err);
/* The longest section that a session as @hello describes it may send: see target_load.c. */
uint64_t gw_target_section_grant(const struct gw_target *tgt, const struct gw_hello *hello);
void gw_target_on_stream(struct gw_target *tgt, const struct gw_message *msg);
void gw_target_on_prepare(struct gw_target *tgt, const struct gw_message *msg);
void gw_target_next_item(struct gw_target *tgt);
void gw_target_drop_items(struct gw_target *tgt);

/* target_devices.c */
int gw_target_set_up_devices(struct gw_target *tgt, struct gw_error *err); /* the loop's thread */
/* May @section be loaded now? PART and END are given what their START said. -EPROTO with err. */
int gw_target_check_section(struct gw_target *tgt, struct gw_section *section,
                            struct gw_error *err);
/* Gather @item, whose section may be loaded now; it is taken over. */
void gw_target_gather(struct gw_target *tgt, struct gw_item *item, const struct gw_section *section,
                      const struct gw_reader *body);
bool gw_target_may_gather(const struct gw_target *tgt); /* one more */
void gw_target_load(struct gw_target *tgt);             /* what was gathered */
void gw_target_drop_loads(struct gw_target *tgt);
void gw_target_say_loaded(struct gw_target *tgt);
bool gw_target_complete_devices(
    struct gw_target *tgt); /* true: done; else gw_target_next_item() comes */
bool gw_target_clean_devices(struct gw_target *tgt); /* true: done; else the engine is woken */

/* target_packets.c */
int gw_target_packets_open(struct gw_target *tgt, struct gw_error *err); /* hello is done */
void gw_target_on_packet(void *engine, struct gw_packet *packet);
void gw_target_load_packets(struct gw_target *tgt);             /* those that may be, now */
bool gw_target_packets_are_quiet(const struct gw_target *tgt);  /* none is at a worker */
bool gw_target_packets_are_loaded(const struct gw_target *tgt); /* all that came */
void gw_target_packets_close(
    struct gw_target *tgt); /* page endpoints are stopped, and it is quiet */

/* target_settle.c */
void gw_target_event(struct gw_target *tgt, enum gw_ht_event event);
void gw_target_on_handover(struct gw_target *tgt, const struct gw_message *msg);
/* Is @ask about the guest that is or was served here? */
bool gw_target_knows(const struct gw_target *tgt, const struct gw_message *ask);
/* What became of the guest of before that @ask asks about; NULL: nothing is known of it. */
const struct gw_past *gw_target_recalls(const struct gw_target *tgt, const struct gw_message *ask);
/* A candidate said an ASK that we know. True: its connection was taken over. */
bool gw_target_on_ask(struct gw_target *tgt, struct gw_candidate *candidate,
                      const struct gw_message *msg);
uint64_t gw_target_settle_step(struct gw_target *tgt, uint64_t now_ns);

#endif
