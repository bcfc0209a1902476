// SPDX-License-Identifier: MIT
/* The scheduler: whoever is ready (its inbox, its wire, its time) is a candidate; one is chosen; if
 * nobody is, time passes to the next moment that somebody waits for. The engines are asked exactly
 * what their threads would sleep on, so a wake-up that the library forgets is a hang here. */
#include "tests/sim/world.h"

#include "control/message.h"
#include "core/base/alloc.h"
#include "core/loop.h"
#include "core/shell.h"
#include "tests/sim/machine.h"

#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ACTORS_MAX 48
#define STEP_NS 2000 /* what one step takes */
#define STEPS_MAX 400000

enum actor_kind { ENGINE, POOL, LOOP };

struct actor {
    enum actor_kind kind;
    enum side side;
    char name[20];
    struct gw_shell *shell;
    struct gw_pool *pool;
    struct gw_loop *loop;
    unsigned jobs;    /* of the pool, running: each sleeps */
    uint64_t wake_ns; /* engine: in its side's clock */
    bool busy, over;
};

struct world world;
void (*world_every_step)(void);
static struct actor actors[ACTORS_MAX];
static unsigned actor_count;
static struct actor *running;
static unsigned seen[64]; /* messages sent, by type */

/* ---- telling ---------------------------------------------------------------------------------- */

static void stamp(FILE *out)
{
    static const char *const names[] = {"source", "target", "world", "buried"};
    fprintf(out, "%12.6f %-6s ", (double)world.now_ns / 1e9, names[world.side]);
}

void say(const char *format, ...)
{
    va_list args;
    if (!world.trace)
        return;
    stamp(stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
}

_Noreturn void violated(const char *format, ...)
{
    va_list args;
    fprintf(stderr, "VIOLATED at %.6f s, step %llu: ", (double)world.now_ns / 1e9,
            (unsigned long long)world.steps);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    _Exit(3);
}

/* ---- clocks --------------------------------------------------------------------------------------- */

static uint64_t side_clock(void)
{
    return world.now_ns + (uint64_t)world.skew_ns[world.side];
}

static uint64_t world_clock(void)
{
    return world.now_ns;
}

enum side world_enter(enum side side)
{
    enum side before = world.side;
    world.side = side;
    return before;
}

void world_leave(enum side before)
{
    world.side = before;
}

/* ---- the network -------------------------------------------------------------------------------------- */

static int owner(void)
{
    return world.side;
}

static unsigned type_of(const struct gw_loop_sent *sent)
{
    struct gw_message msg;
    if (sent->is_put || gw_message_decode(sent->message, sent->bytes, &msg, NULL) < 0)
        return 0;
    return msg.type;
}

static bool is_link_fault(enum fault_kind kind)
{
    return kind >= FAULT_RESET && kind <= FAULT_HOLD;
}

static void suffer(struct fault *fault, struct gw_loop_fate *fate)
{
    static const enum gw_loop_cut cuts[] = {[FAULT_RESET] = GW_LOOP_RESET,
                                            [FAULT_DEAD] = GW_LOOP_DEAD,
                                            [FAULT_GONE] = GW_LOOP_GONE,
                                            [FAULT_LATE] = GW_LOOP_AFTER};
    fault->done = true;
    if (fault->kind == FAULT_HOLD || fault->kind == FAULT_LATE)
        fate->delay_ns += fault->ns;
    if (fault->kind == FAULT_HOLD)
        return;
    fate->cut = cuts[fault->kind];
    fate->cut_bytes = fault->cut_bytes;
    fate->told_ns = fault->kind == FAULT_LATE ? fault->ns / 8 : fault->ns;
}

static bool is_due(const struct fault *fault, unsigned message, unsigned nth)
{
    return !fault->done && fault->message == message && fault->nth <= nth;
}

static void trigger(unsigned message, unsigned nth);

static void fate(const struct gw_loop_sent *sent, struct gw_loop_fate *fate)
{
    unsigned type = type_of(sent);
    unsigned nth = ++seen[type & 63];
    if (type == 0)
        say("link %u endpoint %u: put %u bytes", sent->link, sent->index, sent->put->bytes);
    else if (type != GW_MSG_HEARTBEAT && type != GW_MSG_CREDIT)
        say("link %u endpoint %u: %s", sent->link, sent->index, gw_message_name(type));
    fate->delay_ns = world.latency_ns + (world.jitter_ns ? choose_ns(world.jitter_ns) : 0);
    if (sent->is_put)
        fate->read_ns = chance(3000) ? choose_ns(world.latency_ns + 100000) : 0;
    if (world.now_ns < world.net_down_until_ns) {
        fate->cut = GW_LOOP_GONE;
        return;
    }
    for (unsigned i = 0; i < world.fault_count && !world.quiet; i++) {
        if (is_link_fault(world.faults[i].kind) && is_due(&world.faults[i], type, nth)) {
            suffer(&world.faults[i], fate);
            say("FAULT %u on it", world.faults[i].kind);
        }
    }
    trigger(type, nth);
}

static int dial(const struct gw_uri *uri, uint16_t index, uint64_t *delay_ns)
{
    (void)uri, (void)index;
    *delay_ns = world.latency_ns;
    return world.now_ns < world.net_down_until_ns ? -ETIMEDOUT : 0;
}

static uint64_t hang_up(void)
{
    return world.latency_ns;
}

static const struct gw_loop_net net = {.now_ns = world_clock,
                                       .owner = owner,
                                       .fate = fate,
                                       .dial = dial,
                                       .hang_up = hang_up,
                                       .flushed = machine_flushed};

/* ---- faults -------------------------------------------------------------------------------------------- */

void world_crash(enum side side, bool told)
{
    if (world.dead[side])
        return;
    say("FAULT: %s dies%s", side == SOURCE ? "source" : "target", told ? "" : ", unheard");
    world.dead[side] = true;
    gw_loop_crash(side, told ? world.latency_ns : GW_NEVER_NS);
}

void world_bury(enum side side)
{
    for (unsigned i = 0; i < actor_count; i++) {
        if (actors[i].side == side)
            actors[i].side = BURIED;
    }
    world.dead[side] = false;
}

static struct fault *pending[FAULTS_MAX]; /* triggered inside a step; they happen before the next */
static unsigned pending_count;
void (*world_on_cancel)(enum side side);

static void happen(struct fault *fault)
{
    bool kills = fault->kind >= FAULT_CRASH && fault->kind <= FAULT_RESTART;
    if (kills && world.waits[fault->kind == FAULT_RESTART ? TARGET : fault->side])
        return; /* its embedder is in a call that this run must see the end of */
    switch (fault->kind) {
    case FAULT_CRASH:
    case FAULT_POWER:
        world_crash(fault->side, fault->kind == FAULT_CRASH);
        break;
    case FAULT_RESTART:
        world_crash(TARGET, true);
        world.restart = true;
        break;
    case FAULT_FREEZE:
        say("FAULT: %d is frozen for %.3f s", fault->side, (double)fault->ns / 1e9);
        world.frozen_until_ns[fault->side] = world.now_ns + fault->ns;
        break;
    case FAULT_JUMP:
        say("FAULT: the clock of %d jumps by %.3f s", fault->side, (double)fault->ns / 1e9);
        world.skew_ns[fault->side] += (int64_t)fault->ns;
        break;
    case FAULT_NET_DOWN:
        say("FAULT: the network is down for %.3f s", (double)fault->ns / 1e9);
        world.net_down_until_ns = world.now_ns + fault->ns;
        for (unsigned link = 1; link <= gw_loop_link_count(); link++)
            gw_loop_cut_link(link, GW_LOOP_GONE, 0);
        break;
    case FAULT_CANCEL:
        say("FAULT: cancelled by %d", fault->side);
        world_on_cancel(fault->side);
        break;
    case FAULT_ALLOC:
        say("FAULT: allocation %llu from now", (unsigned long long)fault->ns);
        gw_alloc_fail_after((int64_t)fault->ns);
        break;
    default:
        break;
    }
}

static void trigger(unsigned message, unsigned nth)
{
    for (unsigned i = 0; i < world.fault_count && !world.quiet; i++) {
        struct fault *fault = &world.faults[i];
        if (fault->kind == FAULT_FAIL || fault->kind == FAULT_SLOW || is_link_fault(fault->kind) ||
            !is_due(fault, message, nth))
            continue;
        fault->done = true;
        pending[pending_count++] = fault;
    }
}

int world_callback(enum side side, const char *name)
{
    say("%s()", name);
    for (unsigned i = 0; i < world.fault_count && !world.quiet && !world.cleaning; i++) {
        struct fault *fault = &world.faults[i];
        if (fault->done || fault->side != side || fault->message != ON_CALLBACK || fault->nth-- > 1)
            continue;
        fault->done = true;
        if (fault->kind == FAULT_FAIL) {
            say("FAULT: it fails");
            return -EIO;
        }
        say("FAULT: it takes %.3f s", (double)fault->ns / 1e9);
        world_sleep(fault->ns);
    }
    return 0;
}

/* ---- hosting ---------------------------------------------------------------------------------------------- */

static struct actor *add_actor(enum actor_kind kind, const char *name, enum side side)
{
    for (unsigned i = 0; i < ACTORS_MAX; i++) {
        struct actor *actor = &actors[i];
        if (i < actor_count && (!actor->over || actor->jobs > 0))
            continue;
        if (i == actor_count)
            actor_count++;
        *actor = (struct actor){.kind = kind, .side = side};
        snprintf(actor->name, sizeof(actor->name), "%s", name);
        return actor;
    }
    violated("more than %d threads", ACTORS_MAX);
}

static int start_shell(struct gw_shell *shell, const char *name, struct gw_error *err)
{
    (void)err;
    struct actor *actor = add_actor(ENGINE, name, world.side);
    actor->shell = shell;
    return 0;
}

static int add_pool(struct gw_pool *pool, struct gw_error *err)
{
    (void)err;
    add_actor(POOL, "pool", world.side)->pool = pool;
    return 0;
}

static void drop_pool(struct gw_pool *pool)
{
    for (unsigned i = 0; i < actor_count; i++) {
        if (!actors[i].over && actors[i].kind == POOL && actors[i].pool == pool)
            actors[i].over = true;
    }
}

void world_add_loop(struct gw_loop *loop, enum side side)
{
    add_actor(LOOP, "loop", side)->loop = loop;
}

void world_drop_loop(struct gw_loop *loop)
{
    for (unsigned i = 0; i < actor_count; i++) {
        if (!actors[i].over && actors[i].kind == LOOP && actors[i].loop == loop)
            actors[i].over = true;
    }
}

static void step_engine(struct actor *actor)
{
    const struct gw_engine_ops *ops = actor->shell->ops;
    void *engine = actor->shell->engine;
    actor->wake_ns = ops->step(engine, gw_clock_ns());
    if (!ops->is_over(engine))
        return;
    actor->over = true;
    ops->end(engine);
}

static void join_shell(struct gw_shell *shell)
{
    struct actor *actor = NULL;
    for (unsigned i = 0; i < actor_count; i++) {
        if (!actors[i].over && actors[i].kind == ENGINE && actors[i].shell == shell)
            actor = &actors[i];
    }
    if (!actor)
        return;
    enum side before = world_enter(actor->side);
    for (unsigned i = 0; !actor->over; i++) {
        if (i > 1000)
            violated("joining %s, which does not end", actor->name);
        step_engine(actor);
    }
    world_leave(before);
}

static const struct gw_shell_host host = {
    .start = start_shell, .join = join_shell, .pool = add_pool, .pool_gone = drop_pool};

/* ---- scheduling ------------------------------------------------------------------------------------------------ */

static bool may_run(const struct actor *actor)
{
    if (actor->over || actor->busy)
        return false;
    if (actor->kind == LOOP && gw_loop_is_dispatching(actor->loop))
        return false; /* its thread is in a callback */
    if (world.cleaning)
        return true;
    return actor->side < NOBODY && !world.dead[actor->side] &&
           world.now_ns >= world.frozen_until_ns[actor->side];
}

static bool engine_is_ready(struct actor *actor, bool mail, uint64_t *next_ns)
{
    struct pollfd fds[127];
    enum side before = world_enter(actor->side);
    uint64_t now_ns = gw_clock_ns();
    uint64_t wake_ns = actor->wake_ns;
    bool ready = mail || wake_ns <= now_ns;
    if (!ready) {
        int count = actor->shell->ops->arm(actor->shell->engine, fds, 127, &wake_ns);
        gw_assert(count == 0); /* a loop endpoint has no descriptors */
        actor->shell->ops->awake(actor->shell->engine, fds, 0);
        ready = wake_ns <= now_ns;
    }
    if (!ready && wake_ns != GW_NEVER_NS && world.now_ns + (wake_ns - now_ns) < *next_ns)
        *next_ns = world.now_ns + (wake_ns - now_ns);
    world_leave(before);
    return ready;
}

static unsigned find_ready(struct actor **ready, uint64_t *next_ns)
{
    struct pollfd fds[ACTORS_MAX];
    unsigned count = 0;
    for (unsigned i = 0; i < actor_count; i++) {
        struct actor *actor = &actors[i];
        fds[i] = (struct pollfd){.fd = -1, .events = POLLIN};
        if (may_run(actor) && actor->kind != POOL)
            fds[i].fd = actor->kind == LOOP ? gw_loop_fd(actor->loop) : actor->shell->inbox->fd;
    }
    poll(fds, actor_count, 0);
    for (unsigned i = 0; i < actor_count; i++) {
        struct actor *actor = &actors[i];
        if (!may_run(actor))
            continue;
        bool is_ready = actor->kind == LOOP ? fds[i].revents != 0
                        : actor->kind == POOL
                            ? actor->jobs < 2 && !gw_pool_is_idle(actor->pool)
                            : engine_is_ready(actor, fds[i].revents != 0, next_ns);
        if (is_ready)
            ready[count++] = actor;
    }
    return count;
}

static void run_actor(struct actor *actor)
{
    enum side before = world_enter(actor->side);
    struct actor *outer = running;
    running = actor;
    switch (actor->kind) {
    case ENGINE:
        actor->busy = true;
        step_engine(actor);
        actor->busy = false;
        break;
    case POOL:
        actor->jobs++;
        if (chance(200))
            world_sleep(choose_ns(GW_NS_PER_S / 5));
        if (!actor->over) /* its pool may have gone while this thread of it slept */
            gw_pool_run_one(actor->pool);
        actor->jobs--;
        break;
    case LOOP:
        actor->busy = true;
        gw_dispatch(actor->loop);
        actor->busy = false;
        break;
    }
    running = outer;
    world_leave(before);
}

static void thaw(uint64_t *next_ns)
{
    for (unsigned i = 0; i < 2; i++) {
        if (world.frozen_until_ns[i] > world.now_ns && world.frozen_until_ns[i] < *next_ns)
            *next_ns = world.frozen_until_ns[i];
    }
}

static void step_until(uint64_t limit_ns)
{
    struct actor *ready[ACTORS_MAX];
    uint64_t next_ns = limit_ns;
    if (++world.steps > STEPS_MAX)
        violated("it does not end");
    if (world_every_step)
        world_every_step();
    trigger(ON_STEP, (unsigned)world.steps);
    while (pending_count > 0)
        happen(pending[--pending_count]);
    unsigned count = find_ready(ready, &next_ns);
    if (count > 0) {
        world.now_ns += STEP_NS;
        run_actor(ready[choose(count)]);
        return;
    }
    thaw(&next_ns);
    if (next_ns == GW_NEVER_NS)
        violated("everybody sleeps for ever");
    world.now_ns = next_ns > world.now_ns ? next_ns : world.now_ns + 1;
}

void world_step(void)
{
    step_until(world.now_ns + 100 * GW_NS_PER_MS);
}

void world_sleep(uint64_t ns)
{
    enum side side = world.side;
    uint64_t end_ns = world.now_ns + ns;
    while (world.now_ns < end_ns ||
           (side < NOBODY && !world.cleaning && world.now_ns < world.frozen_until_ns[side]))
        step_until(end_ns > world.now_ns ? end_ns : world.now_ns + GW_NS_PER_MS);
    world.side = side;
}

/* Its loop is the embedder's thread's own while that waits in a call. */
static struct actor *own_loop(enum side side)
{
    for (unsigned i = actor_count; i-- > 0;) {
        if (actors[i].kind == LOOP && actors[i].side == side && !actors[i].over)
            return &actors[i];
    }
    return NULL;
}

static void wait_for_loop(struct actor *loop, uint64_t end_ns)
{
    struct pollfd fd = {.fd = gw_loop_fd(loop->loop), .events = POLLIN};
    enum side side = world.side;
    loop->busy = true;
    world.waits[side] = true;
    while (world.now_ns < end_ns && poll(&fd, 1, 0) == 0)
        step_until(end_ns);
    world.waits[side] = false;
    loop->busy = false;
    world.side = side;
}

/* The library sleeps: inside a job, which looks again soon, or in a call of the embedder's that waits. */
static void clock_sleep(uint64_t wake_ns)
{
    uint64_t now_ns = gw_clock_ns();
    uint64_t ns = wake_ns > now_ns ? wake_ns - now_ns : 0;
    struct actor *loop = ns > GW_NS_PER_MS ? own_loop(world.side) : NULL;
    if (loop && !loop->busy)
        wait_for_loop(loop,
                      wake_ns == GW_NEVER_NS ? world.now_ns + GW_NS_PER_S : world.now_ns + ns);
    else
        world_sleep(ns < GW_NS_PER_MS / 5 ? ns + 1 : GW_NS_PER_MS / 5);
}

/* ---- life ---------------------------------------------------------------------------------------------------------- */

void world_init(void)
{
    bool trace = world.trace;
    memset(&world, 0, sizeof(world));
    memset(seen, 0, sizeof(seen));
    world.trace = trace;
    world.side = NOBODY;
    world.now_ns = 1000 * GW_NS_PER_S;
    actor_count = 0;
    pending_count = 0;
    gw_clock_set_source(side_clock);
    gw_clock_set_sleep(clock_sleep);
    gw_shell_set_host(&host);
    gw_loop_set_net(&net);
}

void world_fini(void)
{
    for (unsigned i = 0; i < actor_count; i++) {
        if (!actors[i].over)
            violated("%s is left over", actors[i].name);
    }
    gw_loop_set_net(NULL);
    gw_shell_set_host(NULL);
    gw_clock_set_sleep(NULL);
    gw_clock_set_source(NULL);
}
