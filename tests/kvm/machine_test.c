// SPDX-License-Identifier: MIT
/* The machine of godwit-kvm by itself, in this process: its board, its memory, its processors' rules. */
#include "tests/kvm/kvm_support.h"

#include "tests/shim/gw_test.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <time.h>
#include <unistd.h>

static struct vmm_machine machine;

GW_TEST(serial, line_that_nobody_reads_keeps_so_much_and_says_so)
{
    static char text[1u << 16];
    int ends[2];
    GW_ASSERT_EQ(pipe(ends), 0);
    GW_ASSERT_EQ(fcntl(ends[1], F_SETPIPE_SZ, VMM_PAGE_BYTES), VMM_PAGE_BYTES);
    GW_ASSERT_EQ(write(ends[1], text, VMM_PAGE_BYTES), VMM_PAGE_BYTES);
    const struct vmm_machine_config config = {.vcpus = 1, .serial_fd = ends[1]};
    GW_ASSERT_EQ(vmm_machine_new(&machine, &config), 0);
    uint8_t status = BOARD_SERIAL_ROOM, byte;
    unsigned said = 0;
    for (; status & BOARD_SERIAL_ROOM && said < sizeof(text); said++) {
        byte = (uint8_t)said;
        vmm_board_port(&machine.vcpus[0], BOARD_SERIAL, true, &byte, 1);
        vmm_board_port(&machine.vcpus[0], BOARD_SERIAL_STATUS, false, &status, 1);
    }
    GW_EXPECT_EQ(said, VMM_SERIAL_BYTES);
    GW_EXPECT(vmm_board_drain(&machine)); /* there is still no room */
    GW_EXPECT_EQ(read(ends[0], text, sizeof(text)), VMM_PAGE_BYTES);
    GW_EXPECT_EQ(fcntl(ends[1], F_SETPIPE_SZ, sizeof(text)), sizeof(text));
    GW_EXPECT(!vmm_board_drain(&machine));
    GW_EXPECT_EQ(read(ends[0], text, sizeof(text)), said);
    for (unsigned i = 0; i < said; i++)
        GW_EXPECT_EQ((uint8_t)text[i], (uint8_t)i);
    vmm_machine_free(&machine);
    close(ends[0]);
    close(ends[1]);
}

/* Or else it would be off. */
GW_TEST(timer, that_is_overdue_for_longer_than_the_host_is_up_still_ends)
{
    const struct vmm_machine_config config = {.vcpus = 1};
    GW_ASSERT(vmm_machine_new(&machine, &config) == 0);
    machine.board.clock_ns = UINT64_C(1) << 62;
    machine.board.timer_us = 1000000;
    machine.board.timer_next_ns = 1;
    vmm_board_resume(&machine);
    struct pollfd timer = {.fd = machine.timer_fd, .events = POLLIN};
    GW_EXPECT_EQ(poll(&timer, 1, 10000), 1);
    vmm_machine_free(&machine);
}

GW_TEST(processors, state_of_no_processors_or_of_too_many_is_refused)
{
    const struct vmm_machine_config config = {.vcpus = 2};
    GW_ASSERT(vmm_machine_new(&machine, &config) == 0);
    GW_EXPECT_EQ(vmm_machine_keep(&machine, 0), -EINVAL);
    GW_EXPECT_EQ(vmm_machine_keep(&machine, 3), -EINVAL);
    GW_EXPECT_EQ(machine.vcpu_count, 2);
    GW_EXPECT_EQ(vmm_machine_keep(&machine, 1), 0);
    GW_EXPECT_EQ(machine.vcpu_count, 1);
    vmm_machine_free(&machine);
}

/* What its owner asked for outlives a throttle. */
GW_TEST(processors, of_an_owner_who_wants_it_slow_stays_so)
{
    const struct vmm_machine_config config = {.vcpus = 2, .slow_percent = 30};
    GW_ASSERT_EQ(vmm_machine_new(&machine, &config), 0);
    GW_EXPECT_EQ(machine.vcpus[1].slower_percent, 30);
    vmm_machine_slow(&machine, 1, 80);
    GW_EXPECT_EQ(machine.vcpus[0].slower_percent, 30);
    GW_EXPECT_EQ(machine.vcpus[1].slower_percent, 80);
    vmm_machine_slow(&machine, VMM_VCPUS_MAX, 0);
    GW_EXPECT_EQ(machine.vcpus[1].slower_percent, 30);
    vmm_machine_free(&machine);
}

GW_TEST(memory, that_is_read_only_is_no_place_for_a_device_to_write_to)
{
    kvm_boot(&machine, 1, 0);
    GW_EXPECT(vmm_memory_at(&machine, BOARD_PAGES_AT, VMM_PAGE_BYTES) != NULL);
    GW_EXPECT(vmm_memory_at(&machine, BOARD_ROM_AT, VMM_PAGE_BYTES) == NULL);
    GW_EXPECT(vmm_memory_at(&machine, machine.ram_bytes - 8, 16) == NULL);
    vmm_machine_free(&machine);
}

/* However long a host takes to enter a guest: a little of each slice is left to it. */
GW_TEST(processors, as_slow_as_can_be_get_on)
{
    const struct timespec nap = {.tv_nsec = 1000000};
    uint64_t checked = 0;
    kvm_boot(&machine, 1, 0);
    vmm_machine_slow(&machine, 0, 99);
    GW_ASSERT_EQ(vmm_machine_run(&machine), 0);
    for (unsigned i = 0; i < 60000 && checked == 0; i++) {
        nanosleep(&nap, NULL);
        vmm_board_tick(&machine);
        pthread_mutex_lock(&machine.board_lock);
        checked = machine.board.checked;
        pthread_mutex_unlock(&machine.board_lock);
    }
    GW_EXPECT_GT(checked, 0);
    vmm_machine_free(&machine);
}
