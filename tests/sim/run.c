// SPDX-License-Identifier: MIT
/* One run. The plan says what goes wrong and when; the embedders do what docs/embedding.md tells them:
 * fence, then resolve. In the end the guest runs at exactly one host, or died with a host that had it. */
#include "tests/sim/run.h"

#include "control/message.h"
#include "core/base/alloc.h"
#include "core/source.h"
#include "core/target.h"
#include "tests/sim/machine.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define S(n) ((n)*GW_NS_PER_S)

struct run_totals run_totals;
extern void (*world_on_cancel)(enum side side);

static struct {
    struct gw_loop *loop[4]; /* source, target, a target that was restarted, a source that was */
    struct gw_source *src, *old_src; /* old: its process is dead */
    struct gw_target *tgt, *old_tgt;
    struct gw_target *met; /* the one that was there when the source started */
    struct gw_params *params[2];
    unsigned stuck_count;
    bool cancelled[2]; /* a cancel was promised */
    bool claims;       /* the embedder of the target resolves what is held */
    /* What becomes of a source's host whose process died: */
    bool died;       /* it was decided */
    bool comes_back; /* at back_ns */
    bool reboots;    /* its guest, once its outcome is settled; else it has another one */
    bool came_back;
    uint64_t back_ns;
} run;

/* ---- the plan ------------------------------------------------------------------------------------ */

static void plan_trigger(struct fault *fault)
{
    static const uint8_t types[] = {0, /* a put */
                                    GW_MSG_PREPARE,
                                    GW_MSG_COMMIT,
                                    GW_MSG_OUTCOME,
                                    GW_MSG_PREPARED,
                                    GW_MSG_ACK,
                                    GW_MSG_FENCE,
                                    GW_MSG_JOINED,
                                    GW_MSG_STREAM,
                                    GW_MSG_ABORT,
                                    GW_MSG_ASK,
                                    GW_MSG_HELLO,
                                    GW_MSG_HELLO_REPLY,
                                    GW_MSG_BLOCKS,
                                    GW_MSG_BLOCKS_OK,
                                    GW_MSG_ZERO,
                                    GW_MSG_WISHES,
                                    GW_MSG_FAILED,
                                    GW_MSG_CREDIT,
                                    GW_MSG_HEARTBEAT,
                                    GW_MSG_UNKNOWN,
                                    GW_MSG_LOADED,
                                    GW_MSG_PACKET,
                                    GW_MSG_PACKETS_LOADED};
    if (fault->kind == FAULT_FAIL || fault->kind == FAULT_SLOW) {
        fault->message = ON_CALLBACK;
        fault->nth = 1 + choose(10);
    } else if (fault->kind > FAULT_HOLD && chance(5000)) {
        fault->message = ON_STEP;
        fault->nth = 1 + (unsigned)choose_ns(4000);
    } else {
        fault->message = types[choose(sizeof(types))];
        fault->nth = 1 + (chance(4000) ? choose(6) : 0);
    }
}

static void plan(void)
{
    unsigned count = choose(FAULTS_MAX + 1);
    for (unsigned i = 0; i < count; i++) {
        struct fault *fault = &world.faults[world.fault_count];
        fault->kind = choose(FAULT_COUNT);
        if (fault->kind == FAULT_NONE)
            continue;
        fault->side = choose(2);
        plan_trigger(fault);
        fault->ns = choose_ns(fault->kind == FAULT_JUMP ? S(60) : S(8));
        if (fault->kind == FAULT_ALLOC)
            fault->ns = choose(120);
        fault->cut_bytes = chance(5000) ? 1 + choose(PAGE) : 0;
        world.fault_count++;
        say("plan: fault %u side %u on %u, %u: %.6f s", fault->kind, fault->side, fault->message,
            fault->nth, (double)fault->ns / 1e9);
    }
}

/* ---- the embedders ---------------------------------------------------------------------------------- */

static void on_cancel(enum side side)
{
    if (side == SOURCE && run.src && !world.dead[SOURCE])
        run.cancelled[SOURCE] |= gw_source_cancel(run.src) == 0;
    if (side == TARGET && run.tgt && !world.dead[TARGET])
        run.cancelled[TARGET] |= gw_target_cancel(run.tgt) == 0 && !machine_at[TARGET]->ever_owned;
}

static void note_deaths(void)
{
    for (unsigned i = 0; i < 2; i++) {
        if (!world.dead[i])
            continue;
        machine_dies((enum side)i);
        run.cancelled[i] = false; /* that promise died with it */
    }
}

static void every_step(void)
{
    if (world.cleaning)
        return;
    note_deaths();
    machine_write();
}

/* One-sided wires: small budgets, chunks that are larger than stripes. */
static void set_keyed_params(struct gw_params *params)
{
    static const char *const budgets[] = {"0", "4M", "6M", "8M"};
    enum side side = params == run.params[SOURCE] ? SOURCE : TARGET;
    struct machine *m = &machines[0];
    if (!m->keyed)
        return;
    unsigned budget = choose(4);
    m->budget[side] = budget ? (2 + 2 * budget) * (UINT64_C(1) << 20) : 0;
    gw_params_set(params, "x-registered-max", budgets[budget], NULL);
    gw_params_set(params, "x-chunk-size", chance(3000) ? "4M" : "0", NULL);
    gw_params_set(params, "x-stripe-size", chance(7000) ? "2M" : "32M", NULL);
    gw_params_set(params, "x-prefault", chance(9000) ? "off" : "on", NULL);
}

static void set_params(struct gw_params *params)
{
    static const char *const rates[] = {"0", "64k", "1M", "20M"};
    static const char *const limits[] = {"300", "0", "1", "2000"};
    static const char *const channels[] = {"1", "2", "3"};
    gw_params_set(params, "max-bandwidth", rates[choose(4)], NULL);
    gw_params_set(params, "downtime-limit", limits[choose(4)], NULL);
    gw_params_set(params, "multifd-channels", channels[choose(3)], NULL);
    gw_params_set(params, "x-settle-timeout", chance(3000) ? "1500" : "6000", NULL);
    gw_params_set(params, "x-hold-timeout", chance(3000) ? "1500" : "6000", NULL);
    gw_params_set(params, "x-device-timeout", chance(3000) ? "3000" : "20000", NULL);
    gw_params_set(params, "x-connect-timeout", "3000", NULL);
    gw_params_set(params, "x-stall-action", "switch", NULL);
    set_keyed_params(params);
    gw_params_set(params, "digest", machines[0].digest ? "on" : "off", NULL);
    gw_params_set(params, "x-device-buffer", chance(4000) ? "9000" : "64M", NULL);
    gw_params_set(params, "pause-before-switchover", chance(1000) ? "on" : "off", NULL);
}

static const char *uri(void)
{
    return machines[0].keyed ? "loop1:sim" : "loop:sim";
}

static int add_devices(struct gw_error *err)
{
    const struct machine *m = &machines[0]; /* what it has, guests after it have too */
    const struct gw_device_desc *trail =
        m->trail_beside[world.side] ? &machine_trail_beside : &machine_trail;
    const struct gw_device_desc *const devices[] = {&machine_device, m->has_trail ? trail : NULL,
                                                    m->has_map ? &machine_map : NULL};
    int rc = 0;
    for (unsigned i = 0; i < 3 && rc == 0; i++) {
        if (devices[i])
            rc = world.side == TARGET ? gw_target_add_device(run.tgt, devices[i], err)
                                      : gw_source_add_device(run.src, devices[i], err);
    }
    return rc;
}

static int make_target(unsigned loop)
{
    struct gw_error err = GW_ERROR_INIT;
    enum side before = world_enter(TARGET);
    struct gw_target_config config = {.struct_bytes = sizeof(config),
                                      .loop = run.loop[loop],
                                      .ops = &machine_target_ops,
                                      .params = run.params[TARGET]};
    int rc = gw_target_new(&config, &run.tgt, &err);
    if (rc == 0)
        rc = add_devices(&err);
    world_leave(before);
    return rc;
}

static int make_source(unsigned loop)
{
    struct gw_error err = GW_ERROR_INIT;
    enum side before = world_enter(SOURCE);
    struct gw_source_config config = {.struct_bytes = sizeof(config),
                                      .loop = run.loop[loop],
                                      .ops = &machine_source_ops,
                                      .params = run.params[SOURCE]};
    int rc = gw_source_new(&config, &run.src, &err);
    if (rc == 0)
        rc = machine_add_blocks(run.src, &err);
    if (rc == 0)
        rc = gw_source_add_dirty(run.src, &machine_dirty_ops, NULL, &err);
    if (rc == 0)
        rc = add_devices(&err);
    world_leave(before);
    return rc;
}

static int listen_(void)
{
    struct gw_error err = GW_ERROR_INIT;
    enum side before = world_enter(TARGET);
    machine_listens();
    int rc = gw_target_listen(run.tgt, uri(), &err);
    say("listen: %d %s", rc, err.message);
    world_leave(before);
    return rc;
}

/* May this target have the guest? One that was there when the source started, or that a source has reached since:
 * who lost a connection before HELLO was answered connects again, perhaps to another process. */
static bool has_met(void)
{
    return run.tgt && (run.met == run.tgt || run.tgt->in_session);
}

static int start(void)
{
    struct gw_error err = GW_ERROR_INIT;
    enum side before = world_enter(SOURCE);
    machine_at[SOURCE]->src = run.src;
    run.met = run.tgt;
    int rc = gw_source_start(run.src, uri(), &err);
    say("start: %d %s", rc, err.message);
    world_leave(before);
    return rc;
}

static struct gw_loop *new_loop(void)
{
    struct gw_loop *loop;
    if (gw_loop_new(&loop, NULL) < 0)
        violated("no loop");
    return loop;
}

static void restart_target(void)
{
    say("a fresh target process");
    machine_dies(TARGET);
    run.cancelled[TARGET] = false;
    world_bury(TARGET);
    run.old_tgt = run.tgt;
    run.tgt = NULL;
    world_add_loop(run.loop[2] = new_loop(), TARGET);
}

/* ---- the course ----------------------------------------------------------------------------------------- */

static enum gw_status source_status(void)
{
    struct gw_stats stats = {.struct_bytes = sizeof(stats)};
    gw_source_stats(run.src, &stats);
    return stats.status;
}

static enum gw_status target_status(void)
{
    struct gw_stats stats = {.struct_bytes = sizeof(stats)};
    gw_target_stats(run.tgt, &stats);
    return stats.status;
}

static bool is_final(enum gw_status status)
{
    return status == GW_STATUS_COMPLETED || status == GW_STATUS_FAILED ||
           status == GW_STATUS_CANCELLED;
}

static void claim(void)
{
    struct machine *m = machine_at[TARGET];
    m->holding = false;
    enum side before = world_enter(TARGET);
    int rc = gw_target_claim(run.tgt);
    say("claim: %d", rc);
    if (rc == 0) {
        struct gw_error err = GW_ERROR_INIT;
        run_totals.claimed++;
        /* Fence, if it is not known to have died. It has not run since the pause if it is paused now:
         * nothing else may resume it. */
        if (!m->source_died) {
            world_crash(SOURCE, false);
            machine_dies(SOURCE);
        }
        bool may_run = m->source_paused;
        rc = gw_target_resolve(run.tgt, may_run ? GW_RESOLVE_RUN : GW_RESOLVE_DISCARD, &err);
        say("resolve %s: %d %s", may_run ? "run" : "discard", rc, err.message);
        if (rc < 0 && rc != -EALREADY) {
            rc = gw_target_resolve(run.tgt, GW_RESOLVE_DISCARD, &err);
            if (rc < 0 && rc != -EALREADY)
                violated("a claimed guest cannot be discarded: %s", err.message);
        }
    }
    world_leave(before);
}

static void resolve_unknown(void)
{
    struct gw_error err = GW_ERROR_INIT;
    enum gw_source_resolution what = GW_RESOLVE_ABANDON;
    run_totals.unknown++;
    const struct machine *m = machine_at[SOURCE];
    if (!m->ever_owned && !has_met())
        what = GW_RESOLVE_RESUME; /* its process is gone, and never ran it */
    else if (!m->ever_owned) {    /* fence, then look again */
        world_crash(TARGET, false);
        machine_dies(TARGET);
        what = m->ever_owned ? GW_RESOLVE_ABANDON : GW_RESOLVE_RESUME;
    }
    enum side before = world_enter(SOURCE);
    int rc = gw_source_resolve(run.src, what, &err);
    say("resolve %s: %d %s", what == GW_RESOLVE_RESUME ? "resume" : "abandon", rc, err.message);
    if (rc < 0 && rc != -EALREADY) {
        rc = gw_source_resolve(run.src, what, &err);
        if (rc < 0 && rc != -EALREADY)
            violated("what is unknown cannot be resolved: %s", err.message);
    }
    world_leave(before);
}

static void resume_stuck(void)
{
    struct gw_error err = GW_ERROR_INIT;
    machine_at[SOURCE]->stuck = false;
    if (++run.stuck_count > 20)
        violated("the source's guest can never be taken back");
    enum side before = world_enter(SOURCE);
    int rc = gw_source_resolve(run.src, GW_RESOLVE_RESUME, &err);
    say("resolve after retake: %d %s", rc, err.message);
    world_leave(before);
}

static void check_flushed(void)
{
    const struct gw_block *blocks[BLOCKS_MAX];
    for (unsigned i = 0; i < machine_at[SOURCE]->block_count; i++)
        blocks[i] = gw_ram_block(run.src->ram, i);
    machine_check_flushed(blocks);
}

/* A status may be final before everything has ended: then the outcome is still listened for. */
static bool source_is_done(void)
{
    enum side before = world_enter(SOURCE);
    bool done = world.dead[SOURCE] ||
                (is_final(source_status()) && gw_source_wait(run.src, 0, NULL) != -EINPROGRESS);
    world_leave(before);
    return done;
}

static bool target_is_done(void)
{
    enum side before = world_enter(TARGET);
    bool done = world.dead[TARGET] ||
                (is_final(target_status()) && gw_target_wait(run.tgt, 0, NULL) != -EINPROGRESS);
    world_leave(before);
    return done;
}

/* Whether the faults' own time has passed; from then on everything must come right. */
static bool is_calm(uint64_t begun_ns)
{
    return world.now_ns > begun_ns + S(30) && world.now_ns > world.net_down_until_ns &&
           world.now_ns > world.frozen_until_ns[0] && world.now_ns > world.frozen_until_ns[1];
}

/* The target's service manager has started it again. */
static void begin_anew(void)
{
    world.restart = false;
    if (run.old_tgt)
        return; /* once is enough */
    gw_alloc_fail_after(-1);
    restart_target();
    if (make_target(2) < 0 || listen_() < 0)
        violated("a fresh target cannot even begin");
}

/* ---- the judgement --------------------------------------------------------------------------------------- */

static void check_error(const char *who, const struct gw_error *err)
{
    if (err->rc >= 0 || !err->code || !err->message[0] || !err->phase[0] || !err->place[0] ||
        !err->hint[0])
        violated(
            "%s failed with an error that lacks something: rc %d code %s phase '%s' place '%s' "
            "message '%s' hint '%s'",
            who, err->rc, gw_code_name(err->code), err->phase, err->place, err->message, err->hint);
}

static void judge_source(void)
{
    struct gw_error err = GW_ERROR_INIT;
    const struct machine *m = machine_at[SOURCE];
    if (world.dead[SOURCE])
        return;
    int rc = gw_source_wait(run.src, 0, &err);
    if (rc == 0 && !m->ever_owned && !world.dead[TARGET])
        violated("the source says completed, and nobody ran it");
    if (rc < 0 && !m->source_runs && !m->ever_owned)
        violated("the source failed (%s), and its guest does not run", err.message);
    if (rc < 0)
        check_error("the source", &err);
    if (rc < 0)
        run_totals.failed++;
    else
        run_totals.completed++;
}

static void judge_target(void)
{
    struct gw_error err = GW_ERROR_INIT;
    const struct machine *m = machine_at[TARGET];
    if (world.dead[TARGET])
        return;
    gw_error_set(&err, -1, GW_CODE_NONE, "x");
    int rc = gw_target_wait(run.tgt, 0, &err);
    if (rc == 0 && !m->target_owns)
        violated("the target says completed, and does not run it");
    if (rc < 0 && m->target_owns && !m->run_failed)
        violated("the target failed (%s), and its guest runs", err.message);
    if (rc < 0)
        check_error("the target", &err);
    if (run.cancelled[TARGET] && m->ever_owned)
        violated("a cancel was promised, and it ran at the target all the same");
}

/* ---- after a crash of the source ------------------------------------------------------------------ */

/* Nothing that can still happen lets the guest of the source that died run at a target. */
static bool is_settled_away(bool target_done)
{
    const struct machine *m = machine_at[SOURCE];
    if (m->ever_owned)
        return false;
    if (world.dead[TARGET] || !has_met() || target_done)
        return true; /* who was asked to have it is gone, or has ended without it */
    enum gw_target_outcome outcome = gw_target_outcome(run.tgt);
    return outcome == GW_TARGET_VOID || outcome == GW_TARGET_DECLINED;
}

/* Docs/embedding.md: the guest itself is started again only where its outcome is settled. */
static void source_comes_back(bool same, bool target_done)
{
    say("a fresh source process, %s", same ? "its guest booted again" : "with another guest");
    run.comes_back = false;
    run.came_back = true;
    run_totals.came_back++;
    gw_alloc_fail_after(-1);
    machine_dies(SOURCE);
    machine_at[SOURCE]->src = NULL;
    world_bury(SOURCE);
    world.frozen_until_ns[SOURCE] = 0;
    run.old_src = run.src;
    run.src = NULL;
    if (same)
        machine_reboot();
    else
        machine_next();
    machine_begin();
    world_add_loop(run.loop[3] = new_loop(), SOURCE);
    if (target_done && !world.dead[TARGET] && chance(5000)) {
        judge_target();
        run.cancelled[TARGET] = false;
        if (listen_() < 0)
            violated("the target cannot listen again");
    }
    if (make_source(3) < 0 || start() < 0)
        violated("a fresh source cannot even begin");
}

/* True: a fresh source has just come. */
static bool maybe_back(bool target_done)
{
    if (!world.dead[SOURCE])
        return false;
    if (!run.died) {
        run.died = true;
        run.comes_back = chance(7000);
        run.reboots = run.comes_back && chance(5000);
        run.back_ns = world.now_ns + (run.comes_back ? choose_ns(S(8)) : 0);
    }
    if (!run.comes_back)
        return false;
    bool away = is_settled_away(target_done);
    bool gone = machine_at[SOURCE]->ever_owned;
    if (world.now_ns < run.back_ns || (run.reboots && !away && !gone))
        return false;
    source_comes_back(run.reboots && away, target_done);
    return true;
}

static void settle(void)
{
    uint64_t begun_ns = world.now_ns;
    uint64_t unknown_since_ns = 0;
    uint64_t source_done_ns = 0;
    for (unsigned i = 0;; i++) {
        world_step();
        if (i % 8)
            continue;
        if (world.now_ns > begun_ns + S(600))
            violated("it goes on after 600 s: source %s, target %s",
                     gw_status_name(source_status()), gw_status_name(target_status()));
        if (is_calm(begun_ns))
            world.quiet = true;
        if (world.restart)
            begin_anew();
        if (!world.dead[TARGET] && machine_at[TARGET]->holding && run.claims)
            claim();
        bool source_done = source_is_done();
        bool target_done = target_is_done();
        if (maybe_back(target_done))
            continue;
        if (source_done && target_done && !run.comes_back)
            return;
        if (!source_done && i % 512 == 0)
            gw_source_continue(run.src); /* whoever paused before the switchover comes back */
        if (!source_done && !world.dead[SOURCE] && machine_at[SOURCE]->stuck)
            resume_stuck();
        if (!source_done || !source_done_ns)
            source_done_ns = source_done ? world.now_ns : 0;
        /* One that never heard of a source waits for one; its embedder does not. */
        if (source_done && !target_done && target_status() <= GW_STATUS_SETUP &&
            world.now_ns > source_done_ns + S(2))
            gw_target_cancel(run.tgt);
        if (source_done || !machine_at[SOURCE]->unknown) {
            unknown_since_ns = 0;
            continue;
        }
        if (!unknown_since_ns)
            unknown_since_ns = world.now_ns;
        if ((target_done || !has_met()) && world.now_ns > unknown_since_ns + S(10))
            resolve_unknown();
        else if (world.now_ns > unknown_since_ns + S(90))
            violated("the outcome stays unknown though the target is there");
    }
}

static void judge(void)
{
    note_deaths(); /* also of who died in the very last step */
    judge_source();
    judge_target();
    if (world.fault_count == 0 && !machines[0].ever_owned)
        violated("nothing went wrong, and it did not complete");
    if (run.cancelled[SOURCE] && machine_at[SOURCE]->ever_owned)
        violated("a cancel was promised, and it ran at the target all the same");
    for (const struct machine *m = machines; m < machines + machine_count; m++) {
        bool lost = !m->source_runs && !m->target_owns;
        if (lost && !m->source_died && !m->lost_with_host)
            violated("the guest is lost, and nothing that had it has died");
    }
    if (world.dead[SOURCE])
        return;
    machine_check_source("the end");
    if (source_status() != GW_STATUS_COMPLETED)
        check_flushed();
}

/* ---- again --------------------------------------------------------------------------------------------------- */

static void free_target(struct gw_target **tgt)
{
    enum side before = world_enter(TARGET);
    gw_target_free(*tgt);
    *tgt = NULL;
    world_leave(before);
}

/* Whatever went wrong: the same source, at once, to a target that is there. */
static void retry(void)
{
    say("---- again");
    run.cancelled[SOURCE] = run.cancelled[TARGET] = false;
    run_totals.retried++;
    gw_alloc_fail_after(-1);
    world.quiet = true;
    world.net_down_until_ns = 0;
    world.frozen_until_ns[0] = world.frozen_until_ns[1] = 0;
    if (world.dead[TARGET] && run.old_tgt)
        return; /* one restart is enough */
    if (world.dead[TARGET])
        restart_target();
    machine_begin();
    if ((!run.tgt && make_target(2) < 0) || listen_() < 0 || start() < 0)
        violated("a second migration cannot even begin");
    settle();
    judge();
    if (!machine_at[SOURCE]->target_owns)
        violated("a second migration, without a fault, did not complete");
}

static void clean(void)
{
    world.cleaning = world.quiet = true;
    for (unsigned i = 0; i < machine_count; i++)
        machines[i].src = NULL;
    enum side before = world_enter(SOURCE);
    gw_source_free(run.src);
    gw_source_free(run.old_src);
    world_leave(before);
    free_target(&run.tgt);
    free_target(&run.old_tgt);
    for (unsigned i = 0; i < 4; i++) {
        if (run.loop[i])
            world_drop_loop(run.loop[i]);
        gw_loop_free(run.loop[i]);
    }
    gw_params_free(run.params[SOURCE]);
    gw_params_free(run.params[TARGET]);
    memset(&run, 0, sizeof(run));
}

static unsigned count_fds(void)
{
    unsigned count = 0;
    DIR *dir = opendir("/proc/self/fd");
    while (dir && readdir(dir))
        count++;
    if (dir)
        closedir(dir);
    return count;
}

void run_once(void)
{
    static unsigned fds;
    int64_t live = gw_alloc_live();
    world_init();
    world_on_cancel = on_cancel;
    world_every_step = every_step;
    world.latency_ns = choose_ns(50 * GW_NS_PER_MS);
    world.jitter_ns = chance(5000) ? choose_ns(50 * GW_NS_PER_MS) : 0;
    machine_make();
    machine_begin();
    run.claims = chance(3000);
    for (unsigned i = 0; i < 2; i++)
        world_add_loop(run.loop[i] = new_loop(), (enum side)i);
    for (unsigned i = 0; i < 2; i++) {
        run.params[i] = gw_params_new();
        set_params(run.params[i]);
    }
    plan();
    gw_loop_set_pins(machines[0].keyed ? &machine_pins : NULL);
    if (make_target(1) < 0 || make_source(SOURCE) < 0 || listen_() < 0 || start() < 0)
        violated("it cannot even begin");
    settle();
    judge();
    if (!world.dead[SOURCE] && machine_at[SOURCE]->source_runs && (run.came_back || chance(5000)))
        retry();
    gw_alloc_fail_after(-1);
    run_totals.runs++;
    run_totals.steps += world.steps;
    run_totals.virtual_s += (double)world.now_ns / 1e9 - 1000;
    clean();
    world_fini();
    if (gw_alloc_live() != live)
        violated("%lld allocations leak", (long long)(gw_alloc_live() - live));
    if (run_totals.runs % 64 == 1) {
        unsigned now = count_fds();
        if (fds && now != fds)
            violated("%d descriptors leak", (int)now - (int)fds);
        fds = now;
    }
}
