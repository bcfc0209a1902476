// SPDX-License-Identifier: MIT
/* The handover, exactly once (docs/protocol.md section 5): what ends it before COMMITTED, callbacks that
 * fail, digests that differ, time. Whatever happens, two guests never run, and in the end exactly one
 * does, or the source's stands paused with the outcome reported as unknown. */
#include "tests/rules/stage.h"
#include "tests/shim/gw_test.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

/* ---- before COMMITTED: the source may back out ------------------------------------------------ */

static const struct {
    const char *name;
    enum proxy_way way;
    enum gw_message_type type;
    unsigned nth;
} losses[] = {
    {"setup_hello", PROXY_TO_TARGET, GW_MSG_HELLO, 1},
    {"setup_hello_reply", PROXY_TO_SOURCE, GW_MSG_HELLO_REPLY, 1},
    {"setup_blocks", PROXY_TO_TARGET, GW_MSG_BLOCKS, 1},
    {"setup_blocks_ok", PROXY_TO_SOURCE, GW_MSG_BLOCKS_OK, 1},
    {"active_fence", PROXY_TO_TARGET, GW_MSG_FENCE, 1},
    {"active_joined", PROXY_TO_SOURCE, GW_MSG_JOINED, 1},
    {"device_last_fence", PROXY_TO_TARGET, GW_MSG_FENCE, 3},
    {"device_ram_end", PROXY_TO_TARGET, GW_MSG_STREAM, 3},
    {"device_state", PROXY_TO_TARGET, GW_MSG_STREAM, 4},
    {"device_prepare", PROXY_TO_TARGET, GW_MSG_PREPARE, 1},
    {"device_prepared_unread", PROXY_TO_SOURCE, GW_MSG_PREPARED, 1},
};

static const char *const *loss_names(void)
{
    enum { COUNT = sizeof(losses) / sizeof(losses[0]) };
    static const char *names[COUNT + 1];
    for (unsigned i = 0; i < COUNT; i++)
        names[i] = losses[i].name;
    return names;
}

static void link_lost_early(const char *name, bool writes)
{
    struct stage *stage = stage_new();
    unsigned i = 0;
    while (strcmp(losses[i].name, name) != 0)
        i++;
    bool is_hello = losses[i].type == GW_MSG_HELLO;
    stage->pair.writes = writes;
    stage_set_both(stage, "x-settle-timeout", "300");
    stage_set_both(stage, "x-hold-timeout", "300");
    stage_open(stage);
    unsigned rule = proxy_on(stage->proxy, losses[i].way, losses[i].type, losses[i].nth, PROXY_CUT);
    proxy_refuse_after(stage->proxy, rule);
    stage_go(stage);
    until_struck(stage, rule);
    GW_EXPECT(pair_until(&stage->pair, source_ended, SECONDS));
    expect_guest(stage, AT_SOURCE);
    if (is_hello) /* to the target it was a stranger */
        GW_EXPECT_EQ(gw_target_cancel(stage->pair.tgt), 0);
    GW_EXPECT(pair_finish(&stage->pair, SECONDS));
    GW_EXPECT_LT(stage->pair.source_rc, 0);
    GW_EXPECT_EQ(stage->pair.source_err.code, GW_CODE_PEER_LOST);
    GW_EXPECT_LT(stage->pair.target_rc, 0);
    GW_EXPECT_EQ(gw_target_outcome(stage->pair.tgt), is_hello ? GW_TARGET_NONE : GW_TARGET_VOID);
    GW_EXPECT_EQ(stage->pair.releases, 0);
    GW_EXPECT_EQ(stage->pair.acquires, 0);
    bool is_prepared = losses[i].type == GW_MSG_PREPARED;
    GW_EXPECT_EQ(stage->target_events[GW_EVENT_HOLDING], is_prepared);
    expect_guest(stage, AT_SOURCE);
    expect_retry_succeeds(stage);
    stage_free(stage);
}

GW_TEST_EACH(handover, link_lost_before_committed_resumes_at_the_source, loss_names)
{
    link_lost_early(param, false);
}

GW_TEST_EACH(handover, a_retry_of_a_writing_guest_loses_no_page, loss_names)
{
    link_lost_early(param, true);
}

GW_TEST(handover, link_lost_while_release_runs_takes_it_back)
{
    struct stage *stage = stage_new();
    stage_set_both(stage, "x-settle-timeout", "300");
    stage_set_both(stage, "x-hold-timeout", "300");
    stage_open(stage);
    unsigned rule = proxy_on(stage->proxy, PROXY_TO_SOURCE, GW_MSG_PREPARED, 1, PROXY_HOLD);
    stage_go(stage);
    until_struck(stage, rule);
    pair_pump(&stage->pair, 0);
    /* release() is on its way to the source's loop, which nobody dispatches now. */
    struct pollfd loop = {.fd = gw_loop_fd(stage->pair.source_loop), .events = POLLIN};
    proxy_release(stage->proxy, rule);
    GW_EXPECT_EQ(poll(&loop, 1, (int)SECONDS * 1000), 1);
    proxy_cut(stage->proxy);
    uint64_t end = stage_clock_ms() + SECONDS * 1000;
    while (pair_source_status(&stage->pair) != GW_STATUS_FAILING && stage_clock_ms() < end)
        stage_nap(1);
    GW_EXPECT(pair_finish(&stage->pair, SECONDS));
    GW_EXPECT_LT(stage->pair.source_rc, 0);
    GW_EXPECT_EQ(stage->pair.source_err.code, GW_CODE_PEER_LOST);
    GW_EXPECT_EQ(stage->pair.releases, 1);
    GW_EXPECT_EQ(stage->pair.retakes, 1);
    GW_EXPECT_EQ(proxy_passed(stage->proxy, PROXY_TO_TARGET, GW_MSG_COMMIT), 0);
    GW_EXPECT_EQ(gw_target_outcome(stage->pair.tgt), GW_TARGET_VOID);
    expect_guest(stage, AT_SOURCE);
    expect_retry_succeeds(stage);
    stage_free(stage);
}

/* ---- callbacks that fail ---------------------------------------------------------------------- */

static struct stage *run_failing(_Atomic int *(*which)(struct stage *stage))
{
    struct stage *stage = stage_new();
    if (which)
        atomic_store(which(stage), -EIO);
    stage_open(stage);
    stage_go(stage);
    GW_EXPECT(pair_finish(&stage->pair, SECONDS));
    return stage;
}

#define WHICH(name)                                                                                \
    static _Atomic int *the_##name(struct stage *stage)                                            \
    {                                                                                              \
        return &stage->name##_rc;                                                                  \
    }
WHICH(acquire)
WHICH(release)
WHICH(pause)
WHICH(save)
WHICH(load)
WHICH(run)
#undef WHICH

static void expect_failed_at_source(struct stage *stage, enum gw_code code, unsigned resumes,
                                    unsigned retakes)
{
    GW_EXPECT_LT(stage->pair.source_rc, 0);
    GW_EXPECT_EQ(stage->pair.source_err.code, code);
    GW_EXPECT_EQ(pair_source_status(&stage->pair), GW_STATUS_FAILED);
    GW_EXPECT_LT(stage->pair.target_rc, 0);
    GW_EXPECT_EQ(stage->pair.resumes, resumes);
    GW_EXPECT_EQ(stage->pair.retakes, retakes);
    GW_EXPECT_EQ(stage->pair.runs, 0);
    expect_guest(stage, AT_SOURCE);
}

GW_TEST(handover, acquire_that_fails_is_declined_and_the_source_resumes)
{
    struct stage *stage = run_failing(the_acquire);
    expect_failed_at_source(stage, GW_CODE_DECLINED, 1, 1);
    GW_EXPECT_EQ(gw_target_outcome(stage->pair.tgt), GW_TARGET_DECLINED);
    GW_EXPECT_STREQ(stage->pair.source_err.peer, "the disk lock is held elsewhere");
    atomic_store(&stage->acquire_rc, 0);
    expect_retry_succeeds(stage);
    stage_free(stage);
}

GW_TEST(handover, release_that_fails_backs_out)
{
    struct stage *stage = run_failing(the_release);
    expect_failed_at_source(stage, GW_CODE_GUEST, 1, 1);
    GW_EXPECT_STREQ(stage->pair.source_err.message, "release failed as the test wanted");
    GW_EXPECT_STREQ(stage->pair.source_err.phase, "device");
    GW_EXPECT_EQ(gw_target_outcome(stage->pair.tgt), GW_TARGET_VOID);
    GW_EXPECT_EQ(proxy_passed(stage->proxy, PROXY_TO_TARGET, GW_MSG_COMMIT), 0);
    atomic_store(&stage->release_rc, 0);
    expect_retry_succeeds(stage);
    stage_free(stage);
}

GW_TEST(handover, pause_that_fails_leaves_the_guest_running)
{
    struct stage *stage = run_failing(the_pause);
    expect_failed_at_source(stage, GW_CODE_GUEST, 0, 0);
    GW_EXPECT_EQ(gw_target_outcome(stage->pair.tgt), GW_TARGET_VOID);
    atomic_store(&stage->pause_rc, 0);
    expect_retry_succeeds(stage);
    stage_free(stage);
}

GW_TEST(handover, device_save_that_fails_backs_out)
{
    struct stage *stage = run_failing(the_save);
    expect_failed_at_source(stage, GW_CODE_DEVICE, 1, 0);
    atomic_store(&stage->save_rc, 0);
    expect_retry_succeeds(stage);
    stage_free(stage);
}

GW_TEST(handover, device_load_that_fails_voids)
{
    struct stage *stage = run_failing(the_load);
    expect_failed_at_source(stage, GW_CODE_DEVICE, 1, 0);
    GW_EXPECT_EQ(stage->pair.releases, 0);
    GW_EXPECT_EQ(gw_target_outcome(stage->pair.tgt), GW_TARGET_VOID);
    /* It need not listen for a question any more. */
    GW_EXPECT_EQ(proxy_passed(stage->proxy, PROXY_TO_TARGET, GW_MSG_ACK), 1);
    atomic_store(&stage->load_rc, 0);
    expect_retry_succeeds(stage);
    stage_free(stage);
}

GW_TEST(handover, run_that_fails_belongs_to_the_target_all_the_same)
{
    struct stage *stage = run_failing(the_run);
    GW_EXPECT_EQ(stage->pair.source_rc, 0);
    GW_EXPECT_EQ(gw_target_outcome(stage->pair.tgt), GW_TARGET_RUNNING);
    GW_EXPECT_EQ(stage->pair.target_rc, -EIO);
    GW_EXPECT_EQ(stage->pair.target_err.code, GW_CODE_GUEST);
    expect_guest(stage, AT_TARGET);
    stage_free(stage);
}

GW_TEST(handover, retake_that_fails_keeps_the_guest_paused_until_resolved)
{
    struct stage *stage = stage_new();
    struct gw_error err = GW_ERROR_INIT;
    atomic_store(&stage->acquire_rc, -EBUSY);
    atomic_store(&stage->retake_rc, -ENOLCK);
    stage_open(stage);
    stage_go(stage);
    GW_EXPECT(pair_until(&stage->pair, is_stuck, SECONDS));
    GW_EXPECT_EQ(gw_source_wait(stage->pair.src, 0, &err), -ENOLCK);
    GW_EXPECT_EQ(err.code, GW_CODE_RETAKE);
    expect_guest(stage, NOWHERE);
    GW_EXPECT_EQ(gw_source_resolve(stage->pair.src, GW_RESOLVE_ABANDON, &err), -EINVAL);
    GW_EXPECT_EQ(gw_source_resolve(stage->pair.src, GW_RESOLVE_RESUME, &err), -ENOLCK);
    GW_EXPECT_EQ(err.code, GW_CODE_RETAKE);
    expect_guest(stage, NOWHERE);
    atomic_store(&stage->retake_rc, 0);
    GW_EXPECT_EQ(gw_source_resolve(stage->pair.src, GW_RESOLVE_RESUME, &err), 0);
    GW_EXPECT_EQ(stage->pair.retakes, 3);
    GW_EXPECT_EQ(stage->pair.resumes, 1);
    expect_guest(stage, AT_SOURCE);
    GW_EXPECT(pair_finish(&stage->pair, SECONDS));
    GW_EXPECT_EQ(stage->pair.source_err.code, GW_CODE_DECLINED); /* it runs: no longer "retake" */
    atomic_store(&stage->acquire_rc, 0);
    expect_retry_succeeds(stage);
    stage_free(stage);
}

GW_TEST(handover, resume_that_fails_is_tried_again_without_retaking_what_was_not_released)
{
    struct stage *stage = stage_new();
    struct gw_error err = GW_ERROR_INIT;
    atomic_store(&stage->load_rc, -EIO);
    atomic_store(&stage->resume_rc, -EAGAIN);
    stage_open(stage);
    stage_go(stage);
    GW_EXPECT(pair_until(&stage->pair, is_stuck, SECONDS));
    GW_EXPECT_EQ(gw_source_wait(stage->pair.src, 0, &err), -EAGAIN);
    GW_EXPECT_EQ(err.code, GW_CODE_RETAKE);
    GW_EXPECT_EQ(gw_source_cancel(stage->pair.src), -EALREADY);
    expect_guest(stage, NOWHERE);
    GW_EXPECT_EQ(gw_source_resolve(stage->pair.src, GW_RESOLVE_RESUME, &err), -EAGAIN);
    atomic_store(&stage->resume_rc, 0);
    GW_EXPECT_EQ(gw_source_resolve(stage->pair.src, GW_RESOLVE_RESUME, &err), 0);
    GW_EXPECT_EQ(stage->pair.retakes, 0);
    GW_EXPECT_EQ(stage->pair.resumes, 3);
    expect_guest(stage, AT_SOURCE);
    GW_EXPECT(pair_finish(&stage->pair, SECONDS));
    stage_free(stage);
}

/* ---- digests ---------------------------------------------------------------------------------- */

#define SCRIBBLE_AT (4096 * 7 + 200)

struct scribbler {
    unsigned char *alias; /* another mapping of the target's memory */
    unsigned char wrong;
    _Atomic bool wrote, stop;
};

static void *scribble(void *arg)
{
    struct scribbler *scribbler = arg;
    while (!atomic_load(&scribbler->stop)) {
        scribbler->alias[SCRIBBLE_AT] = scribbler->wrong;
        atomic_store(&scribbler->wrote, true);
        sched_yield();
    }
    return NULL;
}

GW_TEST(handover, digests_that_differ_void_at_the_target)
{
    struct stage *stage = stage_new();
    stage_set(stage->source_params, "digest", "on");
    pair_add_block(&stage->pair, "ram0", RAM_BYTES, GW_BLOCK_MEMFD, 100);
    struct pair_block *block = &stage->pair.blocks[0];
    pair_init(&stage->pair);
    pair_listen(&stage->pair);
    stage->proxy = proxy_new(gw_target_uri(stage->pair.tgt));
    stage->before = malloc(RAM_BYTES);
    GW_ASSERT(stage->before != NULL);
    memcpy(stage->before, block->source, RAM_BYTES);
    /* The last fence waits; until it is joined somebody writes what has been placed. */
    unsigned rule = proxy_on(stage->proxy, PROXY_TO_TARGET, GW_MSG_FENCE, 3, PROXY_HOLD);
    stage_go(stage);
    until_struck(stage, rule);
    struct scribbler scribbler = {
        .alias = mmap(NULL, RAM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, block->target_fd, 0),
        .wrong = (unsigned char)~block->source[SCRIBBLE_AT]};
    GW_ASSERT(scribbler.alias != MAP_FAILED);
    pthread_t thread;
    GW_ASSERT_EQ(pthread_create(&thread, NULL, scribble, &scribbler), 0);
    while (!atomic_load(&scribbler.wrote))
        stage_nap(1);
    proxy_release(stage->proxy, rule);
    GW_EXPECT(pair_finish(&stage->pair, SECONDS));
    atomic_store(&scribbler.stop, true);
    pthread_join(thread, NULL);
    munmap(scribbler.alias, RAM_BYTES);
    expect_failed_at_source(stage, GW_CODE_DIGEST, 1, 0);
    GW_EXPECT_EQ(stage->pair.target_err.code, GW_CODE_DIGEST);
    GW_EXPECT_EQ(proxy_passed(stage->proxy, PROXY_TO_SOURCE, GW_MSG_PREPARED), 0);
    GW_EXPECT_EQ(stage->pair.releases, 0);
    expect_retry_succeeds(stage);
    stage_free(stage);
}

GW_TEST(handover, digests_that_agree_complete)
{
    struct stage *stage = stage_new();
    stage_set(stage->source_params, "digest", "on");
    stage_open(stage);
    stage_go(stage);
    GW_EXPECT(pair_finish(&stage->pair, SECONDS));
    GW_EXPECT_EQ(stage->pair.source_rc, 0);
    expect_arrived(stage);
    struct gw_stats source = {.struct_bytes = sizeof(source)};
    struct gw_stats target = {.struct_bytes = sizeof(target)};
    gw_source_stats(stage->pair.src, &source);
    gw_target_stats(stage->pair.tgt, &target);
    GW_EXPECT(source.has_digest && target.has_digest);
    GW_EXPECT_MEMEQ(source.digest, target.digest, sizeof(source.digest));
    stage_free(stage);
}

/* ---- time ------------------------------------------------------------------------------------- */

GW_TEST(handover, slow_callbacks_do_not_kill_the_link)
{
    struct stage *stage = stage_new();
    stage_set_both(stage, "x-peer-timeout", "2000");
    stage_set_both(stage, "x-settle-timeout", "400");
    stage_set_both(stage, "x-hold-timeout", "400");
    stage->slow_ms = 2300;
    stage_open(stage);
    stage_go(stage);
    GW_EXPECT(pair_finish(&stage->pair, SECONDS));
    GW_EXPECT_EQ(stage->pair.source_rc, 0);
    GW_EXPECT_STREQ(stage->pair.source_err.message, "");
    GW_EXPECT_EQ(stage->target_events[GW_EVENT_HOLDING], 0);
    GW_EXPECT_EQ(stage->source_events[GW_EVENT_UNKNOWN], 0);
    GW_EXPECT_EQ(proxy_connections(stage->proxy), 1);
    expect_arrived(stage);
    stage_free(stage);
}

GW_TEST(handover, the_device_budget_ends_the_wait_for_prepared)
{
    struct stage *stage = stage_new();
    stage_set_both(stage, "x-device-timeout", "3000"); /* what comes before it has as much */
    stage_set_both(stage, "x-settle-timeout", "300");
    stage_open(stage);
    unsigned rule = proxy_on(stage->proxy, PROXY_TO_SOURCE, GW_MSG_PREPARED, 1, PROXY_HOLD);
    stage_go(stage);
    until_struck(stage, rule);
    GW_EXPECT(pair_until(&stage->pair, source_ended, SECONDS));
    proxy_release(stage->proxy, rule);
    GW_EXPECT(pair_finish(&stage->pair, SECONDS));
    expect_failed_at_source(stage, GW_CODE_TIMEOUT, 1, 0);
    GW_EXPECT_EQ(gw_target_outcome(stage->pair.tgt), GW_TARGET_VOID);
    stage_free(stage);
}

/* @code: what the source hears of the target, or finds. */
static void silence(enum proxy_way way, enum gw_message_type type, enum gw_code code)
{
    struct stage *stage = stage_new();
    stage_set_both(stage, "x-peer-timeout", "3000");
    stage_set_both(stage, "x-settle-timeout", "500");
    stage_set_both(stage, "x-hold-timeout", "500");
    stage_open(stage);
    unsigned rule = proxy_on(stage->proxy, way, type, 1, PROXY_SILENCE);
    stage_go(stage);
    until_struck(stage, rule);
    GW_EXPECT(
        pair_until(&stage->pair, source_ended, SECONDS)); /* the kernel would wait for minutes */
    GW_EXPECT(pair_finish(&stage->pair, SECONDS));
    GW_EXPECT_EQ(stage->pair.source_err.code, code);
    GW_EXPECT_LT(stage->pair.target_rc, 0);
    expect_guest(stage, AT_SOURCE);
    expect_retry_succeeds(stage);
    stage_free(stage);
}

GW_TEST(handover, silence_while_memory_moves_is_noticed)
{
    silence(PROXY_TO_TARGET, GW_MSG_FENCE, GW_CODE_PEER_SILENT);
}

GW_TEST(handover, silence_before_prepared_is_noticed)
{
    silence(PROXY_TO_SOURCE, GW_MSG_PREPARED, GW_CODE_PEER_SILENT);
}

GW_TEST(handover, silence_after_commit_ends_the_connection_and_ask_settles_it)
{
    struct stage *stage = stage_new();
    stage_set_both(stage, "x-peer-timeout", "3000");
    stage_open(stage);
    unsigned rule = proxy_on(stage->proxy, PROXY_TO_SOURCE, GW_MSG_OUTCOME, 1, PROXY_SILENCE);
    stage_go(stage);
    until_struck(stage, rule);
    GW_EXPECT(pair_finish(&stage->pair, SECONDS));
    GW_EXPECT_EQ(stage->pair.source_rc, 0);
    GW_EXPECT_EQ(proxy_connections(stage->proxy), 2);
    expect_arrived(stage);
    stage_free(stage);
}

GW_TEST(handover, a_wire_that_crumbles_carries_it_all_the_same)
{
    struct stage *stage = stage_new();
    stage_set(stage->source_params, "digest", "on");
    stage_open(stage);
    proxy_crumble(stage->proxy);
    stage_go(stage);
    GW_EXPECT(pair_finish(&stage->pair, SECONDS));
    GW_EXPECT_EQ(stage->pair.source_rc, 0);
    expect_arrived(stage);
    stage_free(stage);
}
