/* SPDX-License-Identifier: MIT */
/* tests/sim/world.h - two hosts and the network between them, in one thread and virtual time. It hosts
 * the library's shells and pools, and decides which of them goes on next. */
#ifndef GW_TESTS_SIM_WORLD_H
#define GW_TESTS_SIM_WORLD_H

#include "core/base/clock.h"
#include "tests/sim/choice.h"
#include "transport/loop/loop.h"

#include <godwit/loop.h>
#include <stdbool.h>
#include <stdint.h>

enum side { SOURCE, TARGET, NOBODY, BURIED, SIDES };

enum fault_kind {
    FAULT_NONE,
    FAULT_RESET, /* of the link that carries the trigger */
    FAULT_DEAD,
    FAULT_GONE,
    FAULT_LATE, /* what triggers arrives late, the last thing on its link, which is replaced meanwhile */
    FAULT_HOLD,     /* what triggers arrives late */
    FAULT_NET_DOWN, /* every link, and connecting, for a while; nobody is told */
    FAULT_CRASH,    /* of @side: its process; peers are told */
    FAULT_POWER,    /* of @side: its host; nobody is told */
    FAULT_RESTART,  /* of the target: a crash, and a fresh one listens at once */
    FAULT_FREEZE,   /* of @side, for a while */
    FAULT_JUMP,     /* of @side's clock */
    FAULT_CANCEL,   /* by the embedder of @side */
    FAULT_ALLOC,    /* an allocation soon fails */
    FAULT_FAIL,     /* a callback of @side fails */
    FAULT_SLOW,     /* a callback of @side takes long */
    FAULT_COUNT,
};

struct fault {
    enum fault_kind kind;
    enum side side;
    unsigned message; /* trigger: the @nth of this type; 0: the @nth put; ON_STEP: the @nth step */
    unsigned nth;
    uint64_t ns;        /* how long, how late, how far */
    unsigned callback;  /* FAIL, SLOW: which */
    uint32_t cut_bytes; /* RESET, DEAD, GONE on a put */
    bool done;
};

#define ON_STEP 1000u
#define ON_CALLBACK 1001u
#define FAULTS_MAX 4

struct world {
    uint64_t now_ns;
    uint64_t latency_ns, jitter_ns;
    uint64_t steps;
    enum side side; /* whose code runs */
    int64_t skew_ns[SIDES];
    bool dead[2];
    bool waits[SIDES]; /* its embedder is in a call that waits */
    uint64_t frozen_until_ns[2];
    uint64_t net_down_until_ns;
    struct fault faults[FAULTS_MAX];
    unsigned fault_count;
    bool restart;  /* a fresh target process is wanted */
    bool quiet;    /* no more faults: what is wrong now must come right */
    bool cleaning; /* the run is judged: only what frees still runs, the dead included */
    bool trace;
};

extern struct world world;

void world_init(void); /* empty, at time 1 s, faultless */
void world_fini(void); /* nothing may be left */
void world_add_loop(struct gw_loop *loop, enum side side);
void world_drop_loop(struct gw_loop *loop);
/* One event: a step, a job, a dispatch, or time passes. */
void world_step(void);
/* Everybody else goes on for @ns, while the caller's side does not return from what it does. */
void world_sleep(uint64_t ns);
void world_crash(enum side side, bool told);
void world_bury(enum side side); /* a process that died: another takes its place */
/* Run @side's code: its clock, its ownership. Returns the side before. */
enum side world_enter(enum side side);
void world_leave(enum side before);
/* What a callback of @side named @name suffers now: an error to return, or 0, late perhaps. */
int world_callback(enum side side, const char *name);

/* Called before every event: guests write, embedders act. */
extern void (*world_every_step)(void);

void say(const char *format, ...) __attribute__((format(printf, 1, 2))); /* into the trace */
/* A property does not hold: the run ends here. */
_Noreturn void violated(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
