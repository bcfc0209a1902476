// SPDX-License-Identifier: MIT
/* From A to B to C and back to A: the built-in guest goes round, again and again, writing all the way.
 * At each hop it is checked as it arrives, it goes on writing where it stopped, and its count of
 * writes and the generations of its pages go on. Each machine is a source and a target of its own,
 * as a hypervisor would have them, in one process. */
#include "tests/e2e/scene.h"
#include "tests/shim/gw_test.h"
#include "tools/guest.h"

#include <errno.h>
#include <godwit/source.h>
#include <godwit/target.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECONDS 60u
#define MACHINES 3u
#define ROUNDS 2u /* all the way round */

struct machine {
    struct gw_loop *loop;
    struct gw_source *src;
    struct gw_target *tgt;
    struct gw_dirty *dirty;
    struct gw_guest *guest;
    struct gw_error err;
    bool runs;
    int source_rc, target_rc;
};

/* ---- callbacks -------------------------------------------------------------------------------- */

static int on_pause(void *ctx, struct gw_error *err)
{
    struct machine *machine = ctx;
    (void)err;
    gw_guest_pause(machine->guest);
    machine->runs = false;
    return 0;
}

static int on_resume(void *ctx, struct gw_error *err)
{
    struct machine *machine = ctx;
    (void)err;
    gw_guest_resume(machine->guest);
    machine->runs = true;
    return 0;
}

static int on_offer(void *ctx, const struct gw_block_offer *offer, struct gw_block_desc *desc,
                    struct gw_error *err)
{
    struct machine *machine = ctx;
    return gw_guest_offer(machine->guest, offer->name, offer->size_bytes, offer->page_bytes,
                          offer->kind, desc, err);
}

/* Before it writes anything here. */
static int on_run(void *ctx, struct gw_error *err)
{
    struct machine *machine = ctx;
    int rc = gw_guest_verify(machine->guest, err);
    if (rc == 0)
        rc = gw_guest_start(machine->guest, err);
    machine->runs = rc == 0;
    return rc;
}

static const struct gw_source_ops source_ops = {
    .struct_bytes = sizeof(source_ops), .pause = on_pause, .resume = on_resume};
static const struct gw_target_ops target_ops = {
    .struct_bytes = sizeof(target_ops), .block_offered = on_offer, .run = on_run};

/* ---- a machine -------------------------------------------------------------------------------- */

static void must(int rc, const struct gw_error *err)
{
    if (rc < 0)
        GW_FAIL("%d: %s", rc, err->message);
}

static void become_source(struct machine *machine)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_source_config config = {
        .struct_bytes = sizeof(config), .loop = machine->loop, .ops = &source_ops, .ctx = machine};
    struct gw_block_desc block = {.struct_bytes = sizeof(block)};
    struct gw_device_desc device = {.struct_bytes = sizeof(device)};
    must(gw_dirty_open(GW_DIRTY_AUTO, NULL, &machine->dirty, &err), &err);
    must(gw_source_new(&config, &machine->src, &err), &err);
    for (unsigned i = 0; i < gw_guest_block_count(machine->guest); i++) {
        gw_guest_block(machine->guest, i, &block);
        must(gw_source_add_block(machine->src, &block, &err), &err);
    }
    for (unsigned i = 0; i < gw_guest_device_count(machine->guest); i++) {
        gw_guest_device(machine->guest, i, &device);
        must(gw_source_add_device(machine->src, &device, &err), &err);
    }
    must(gw_source_add_dirty(machine->src, gw_dirty_kernel_ops(machine->dirty), machine->dirty,
                             &err),
         &err);
}

static void become_target(struct machine *machine)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_target_config config = {
        .struct_bytes = sizeof(config), .loop = machine->loop, .ops = &target_ops, .ctx = machine};
    struct gw_device_desc device = {.struct_bytes = sizeof(device)};
    must(gw_guest_new_incoming(NULL, &machine->guest, &err), &err);
    must(gw_target_new(&config, &machine->tgt, &err), &err);
    for (unsigned i = 0; i < gw_guest_device_count(machine->guest); i++) {
        gw_guest_device(machine->guest, i, &device);
        must(gw_target_add_device(machine->tgt, &device, &err), &err);
    }
    must(gw_target_listen(machine->tgt, "tcp:127.0.0.1:0", &err), &err);
}

/* Whatever role it had is over; its guest goes with the role of a source. */
static void stop_being_source(struct machine *machine)
{
    gw_source_free(machine->src);
    gw_dirty_close(machine->dirty);
    gw_guest_free(machine->guest);
    machine->src = NULL;
    machine->dirty = NULL;
    machine->guest = NULL;
}

static void stop_being_target(struct machine *machine)
{
    gw_target_free(machine->tgt);
    machine->tgt = NULL;
}

/* ---- hops ------------------------------------------------------------------------------------- */

static bool dispatch(struct machine *from, struct machine *to)
{
    struct pollfd fds[2] = {{.fd = gw_loop_fd(from->loop), .events = POLLIN},
                            {.fd = gw_loop_fd(to->loop), .events = POLLIN}};
    poll(fds, 2, 5);
    gw_dispatch(from->loop);
    gw_dispatch(to->loop);
    if (from->source_rc == -EINPROGRESS)
        from->source_rc = gw_source_wait(from->src, 0, &from->err);
    if (to->target_rc == -EINPROGRESS)
        to->target_rc = gw_target_wait(to->tgt, 0, &to->err);
    return from->source_rc == -EINPROGRESS || to->target_rc == -EINPROGRESS;
}

static uint64_t writes_of(const struct machine *machine)
{
    struct gw_guest_stats stats = {0};
    gw_guest_stats(machine->guest, &stats);
    return stats.writes;
}

/* The guest writes on at @machine. */
static void await_writes(const struct machine *machine, uint64_t beyond)
{
    uint64_t until_ms = scene_now_ms() + SECONDS * 1000;
    while (writes_of(machine) <= beyond) {
        if (scene_now_ms() > until_ms)
            GW_FAIL("the guest does not write");
        scene_wait(5);
    }
}

static void hop(struct machine *from, struct machine *to)
{
    struct gw_error err = GW_ERROR_INIT;
    uint64_t until_ms = scene_now_ms() + SECONDS * 1000;
    from->source_rc = to->target_rc = -EINPROGRESS;
    from->err = to->err = (struct gw_error)GW_ERROR_INIT;
    become_source(from);
    become_target(to);
    must(gw_source_start(from->src, gw_target_uri(to->tgt), &err), &err);
    while (dispatch(from, to) && scene_now_ms() < until_ms)
        ;
    GW_ASSERT_EQ(from->source_rc, 0);
    GW_ASSERT_EQ(to->target_rc, 0);
    GW_EXPECT(to->runs && !from->runs);
    GW_EXPECT_EQ(gw_guest_verify(from->guest, &err), 0); /* the copy that stays behind */
    uint64_t left_with = writes_of(from);
    GW_EXPECT_GE(writes_of(to), left_with);
    await_writes(to, left_with + 100);
    stop_being_source(from);
    stop_being_target(to);
}

GW_TEST(hops, from_a_to_b_to_c_and_back_to_a)
{
    struct machine machines[MACHINES] = {0};
    struct gw_guest_config config;
    struct gw_error err = GW_ERROR_INIT;
    gw_guest_config_init(&config);
    config.ram_bytes = UINT64_C(16) << 20;
    config.vcpus = 2;
    config.dirty_rate = UINT64_C(20) << 20;
    config.device_state_bytes = 1 << 16;
    for (unsigned i = 0; i < MACHINES; i++)
        must(gw_loop_new(&machines[i].loop, &err), &err);
    must(gw_guest_new(&config, &machines[0].guest, &err), &err);
    must(gw_guest_start(machines[0].guest, &err), &err);
    machines[0].runs = true;
    await_writes(&machines[0], 100);
    uint64_t writes = 0;
    for (unsigned i = 0; i < ROUNDS * MACHINES; i++) {
        struct machine *to = &machines[(i + 1) % MACHINES];
        hop(&machines[i % MACHINES], to);
        GW_EXPECT_GT(writes_of(to), writes);
        writes = writes_of(to);
        gw_guest_pause(to->guest);
        if (gw_guest_verify(to->guest, &err) < 0)
            GW_NOTE_FAILURE("after hop %u: %s", i + 1, err.message);
        gw_guest_resume(to->guest);
    }
    gw_guest_free(machines[0].guest);
    for (unsigned i = 0; i < MACHINES; i++)
        gw_loop_free(machines[i].loop);
}
