// SPDX-License-Identifier: MIT
/* Dirty tracking against a comparison of memory: a guest writes, is paused, and every page that differs from
 * what it was at the last pause must have been reported by some sync since. The sources are asked as the
 * library asks them, range by range, while the guest runs and after it was paused. */
#include "examples/kvm/kvm_migrate.h"
#include "tests/kvm/kvm_support.h"
#include "tests/shim/gw_test.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define RANGE_PAGES 512u
#define BITMAP_WORDS 512u /* of 128 MiB */

static struct vmm_machine machine;
static uint8_t *copies[VMM_BLOCKS_MAX];
static uint64_t reported[VMM_BLOCKS_MAX][BITMAP_WORDS];

static void start(const struct gw_dirty_ops *ops)
{
    for (unsigned id = 0; ops->start && id < machine.block_count; id++) {
        const struct vmm_block *block = &machine.blocks[id];
        struct gw_block_desc desc = {.struct_bytes = sizeof(desc),
                                     .host = block->host,
                                     .size_bytes = block->bytes,
                                     .flags = block->read_only ? GW_BLOCK_READ_ONLY : 0};
        struct gw_error err = GW_ERROR_INIT;
        if (ops->start(&machine, id, &desc, &err) < 0)
            GW_FAIL("%s", err.message);
    }
}

/* Every other range, from @first on: the library's scan threads ask side by side. */
static void sync_half(const struct gw_dirty_ops *kvm_ops, uint64_t first)
{
    for (unsigned id = 0; id < machine.block_count; id++) {
        uint64_t pages = machine.blocks[id].bytes / VMM_PAGE_BYTES;
        for (uint64_t at = first; at < pages; at += (uint64_t)2 * RANGE_PAGES) {
            uint64_t count = pages - at < RANGE_PAGES ? pages - at : RANGE_PAGES;
            uint64_t *bits = &reported[id][at / 64];
            GW_EXPECT_EQ(kvm_ops->sync(&machine, id, at, count, bits, NULL), 0);
            GW_EXPECT_EQ(vmm_own_ops.sync(&machine, id, at, count, bits, NULL), 0);
        }
    }
}

static void *sync_odd(void *kvm_ops)
{
    sync_half(kvm_ops, RANGE_PAGES);
    return NULL;
}

static void sync_all(const struct gw_dirty_ops *kvm_ops)
{
    pthread_t other;
    GW_ASSERT_EQ(pthread_create(&other, NULL, sync_odd, (void *)(uintptr_t)kvm_ops), 0);
    sync_half(kvm_ops, 0);
    pthread_join(other, NULL);
}

/* Return: how many pages differ. One that was not reported is noted. */
static unsigned compare(unsigned round)
{
    unsigned differ = 0;
    for (unsigned id = 0; id < machine.block_count; id++) {
        const struct vmm_block *block = &machine.blocks[id];
        for (uint64_t page = 0; page < block->bytes / VMM_PAGE_BYTES; page++) {
            uint64_t at = page * VMM_PAGE_BYTES;
            if (memcmp(block->host + at, copies[id] + at, VMM_PAGE_BYTES) == 0)
                continue;
            differ++;
            if (!(reported[id][page / 64] >> page % 64 & 1))
                GW_NOTE_FAILURE("round %u: block '%s' page %llu was missed", round, block->name,
                                (unsigned long long)page);
            memcpy(copies[id] + at, block->host + at, VMM_PAGE_BYTES);
        }
    }
    memset(reported, 0, sizeof(reported));
    return differ;
}

/* A guest that has not written for long would prove nothing. */
static void let_it_write(uint64_t pages)
{
    const struct timespec nap = {.tv_nsec = 200000};
    uint64_t until = 0;
    pthread_mutex_lock(&machine.board_lock);
    until = machine.board.checked + pages;
    pthread_mutex_unlock(&machine.board_lock);
    for (bool wrote = false; !wrote && !machine.crashed;) {
        nanosleep(&nap, NULL);
        vmm_board_tick(&machine);
        pthread_mutex_lock(&machine.board_lock);
        wrote = machine.board.checked >= until;
        pthread_mutex_unlock(&machine.board_lock);
    }
}

struct trial {
    unsigned vcpus, rounds;
    uint64_t pages; /* that the guest writes between two syncs */
    uint32_t ring_bytes;
    bool may_fill; /* until it is full, only a sync takes from a ring */
};

static void miss_nothing(const struct trial *trial)
{
    const struct gw_dirty_ops *kvm_ops = trial->ring_bytes > 0 ? &vmm_ring_ops : &vmm_log_ops;
    uint64_t differ = 0;
    kvm_boot(&machine, trial->vcpus, trial->ring_bytes);
    machine.ring_may_fill = trial->may_fill;
    for (unsigned id = 0; id < machine.block_count; id++) {
        copies[id] = malloc(machine.blocks[id].bytes);
        GW_ASSERT(copies[id] != NULL);
        memcpy(copies[id], machine.blocks[id].host, machine.blocks[id].bytes);
    }
    start(kvm_ops);
    for (unsigned round = 0; round < trial->rounds && !gw_test_has_failed(); round++) {
        if (vmm_machine_run(&machine) < 0)
            GW_FAIL("round %u: %s", round, machine.why);
        let_it_write(trial->pages);
        sync_all(kvm_ops); /* re-armed while it writes */
        let_it_write(trial->pages);
        vmm_machine_pause(&machine);
        sync_all(kvm_ops);
        differ += compare(round);
    }
    if (machine.crashed || machine.board.broken > 0)
        GW_NOTE_FAILURE("the guest: %s", machine.why);
    GW_EXPECT_GT(differ, trial->rounds);
    if (trial->may_fill)
        GW_EXPECT_GT(machine.ring_fulls, trial->rounds);
    for (unsigned id = 0; id < machine.block_count; id++) {
        kvm_ops->stop(&machine, id);
        free(copies[id]);
    }
    vmm_machine_free(&machine);
}

GW_TEST(tracking, log_misses_no_page_in_a_thousand_rounds)
{
    miss_nothing(&(struct trial){.vcpus = 1, .rounds = 1000, .pages = 8});
}

GW_TEST(tracking, log_of_two_processors_misses_no_page)
{
    miss_nothing(&(struct trial){.vcpus = 2, .rounds = 1000, .pages = 8});
}

/* Which hosts have rings that are sound is not ours to choose; where it is known, no skip passes for it. */
static void need_rings(void)
{
    char why[VMM_WHY_BYTES];
    if (vmm_ring_probe(why) == 0)
        return;
    if (getenv("GODWIT_TEST_RING"))
        GW_FAIL("%s", why);
    GW_SKIP("%s", why);
}

GW_TEST(tracking, ring_misses_no_page_where_it_is_sound)
{
    need_rings();
    miss_nothing(&(struct trial){.vcpus = 2, .rounds = 1000, .pages = 8, .ring_bytes = 1u << 20});
}

/* The guest goes through its working set, 1024 pages and more, between two syncs: its ring has 1024 entries,
 * and its tables and stack are written too. */
GW_TEST(tracking, ring_that_fills_misses_no_page)
{
    need_rings();
    miss_nothing(&(struct trial){
        .vcpus = 1, .rounds = 10, .pages = 1300, .ring_bytes = 1u << 14, .may_fill = true});
}

static uint64_t cpu_ns(const struct vmm_vcpu *vcpu)
{
    clockid_t clock;
    GW_ASSERT_EQ(pthread_getcpuclockid(vcpu->thread, &clock), 0);
    return vmm_now_ns(clock);
}

/* Judged by the CPU time that it took, which a busy machine can only lessen. */
GW_TEST(slow, processor_runs_for_no_more_than_its_part_and_is_released)
{
    const struct timespec nap = {.tv_nsec = 300000000};
    kvm_boot(&machine, 2, 0);
    GW_ASSERT_EQ(vmm_machine_run(&machine), 0);
    let_it_write(8);
    vmm_vcpu_slow(&machine.vcpus[1], 90);
    uint64_t since_ns = vmm_now_ns(CLOCK_MONOTONIC), used_ns = cpu_ns(&machine.vcpus[1]);
    nanosleep(&nap, NULL);
    used_ns = cpu_ns(&machine.vcpus[1]) - used_ns;
    since_ns = vmm_now_ns(CLOCK_MONOTONIC) - since_ns;
    GW_EXPECT_LT(used_ns, since_ns * 3 / 10);
    let_it_write(64);            /* slowed is not stopped */
    vmm_machine_pause(&machine); /* nor does it hold up a pause */
    vmm_vcpu_slow(&machine.vcpus[0], 99);
    vmm_vcpu_slow(&machine.vcpus[1], 0);
    GW_ASSERT_EQ(vmm_machine_run(&machine), 0);
    used_ns = cpu_ns(&machine.vcpus[1]);
    while (cpu_ns(&machine.vcpus[1]) - used_ns < 300000000u) /* released: it has all of its time */
        nanosleep(&nap, NULL);
    GW_EXPECT_EQ(machine.board.broken, 0);
    vmm_machine_free(&machine);
}
