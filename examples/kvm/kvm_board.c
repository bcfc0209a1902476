// SPDX-License-Identifier: MIT
/* What hangs on the machine's ports: a serial line, a clock, a timer, and the guest's own verdicts. The
 * clock stands still while the machine is paused. Each tick writes the clock to a page of the guest's,
 * as a device with DMA would. */
#include "examples/kvm/kvm_machine.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define TIMER_US_MIN 100u
#define PAUSED_NS_MAX UINT64_C(3600000000000) /* nobody is paused for longer */
#define SERIAL_IDLE 0x60                      /* both buffers of the line's sender are empty */
#define TSC 0x10                              /* the counter's number among the MSRs */

int vmm_board_init(struct vmm_machine *machine)
{
    machine->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (machine->timer_fd < 0)
        return vmm_fail(machine, -errno, "timerfd: %s", strerror(errno));
    return 0;
}

uint64_t vmm_board_clock_ns(const struct vmm_machine *machine)
{
    return vmm_now_ns(CLOCK_MONOTONIC) +
           (uint64_t)atomic_load_explicit(&machine->clock_offset_ns, memory_order_relaxed);
}

static void arm_timer_locked(struct vmm_machine *machine)
{
    uint64_t at_ns =
        machine->board.timer_next_ns - (uint64_t)atomic_load(&machine->clock_offset_ns);
    struct itimerspec at = {0};
    if ((int64_t)at_ns < 1) /* overdue since before this host began; 0 would be never */
        at_ns = 1;
    if (machine->board.timer_us > 0)
        at.it_value = (struct timespec){.tv_sec = (time_t)(at_ns / 1000000000u),
                                        .tv_nsec = (long)(at_ns % 1000000000u)};
    timerfd_settime(machine->timer_fd, TFD_TIMER_ABSTIME, &at, NULL);
}

/* What came with a state is no better than what a guest asks for. */
static uint32_t bounded(uint32_t period_us)
{
    return period_us > 0 && period_us < TIMER_US_MIN ? TIMER_US_MIN : period_us;
}

static void set_timer_locked(struct vmm_machine *machine, uint32_t period_us)
{
    struct vmm_board *board = &machine->board;
    board->timer_us = bounded(period_us);
    board->timer_next_ns = vmm_board_clock_ns(machine) + board->timer_us * UINT64_C(1000);
    arm_timer_locked(machine);
}

static void write_clock_page_locked(struct vmm_machine *machine, uint64_t now_ns)
{
    uint64_t gpa = machine->board.clock_page & ~(uint64_t)(VMM_PAGE_BYTES - 1);
    uint64_t *page = vmm_memory_at(machine, gpa, sizeof(*page));
    if (!page || machine->board.clock_page == 0)
        return;
    __atomic_store_n(page, now_ns, __ATOMIC_RELAXED);
    vmm_memory_wrote(machine, gpa, sizeof(*page));
}

/* Ticks that were missed count too: the guest is told how many. */
void vmm_board_tick(struct vmm_machine *machine)
{
    struct vmm_board *board = &machine->board;
    uint64_t expirations;
    if (read(machine->timer_fd, &expirations, sizeof(expirations)) < 0)
        return; /* somebody armed it again meanwhile */
    pthread_mutex_lock(&machine->board_lock);
    uint64_t now_ns = vmm_board_clock_ns(machine), period_ns = board->timer_us * UINT64_C(1000);
    if (period_ns > 0 && now_ns >= board->timer_next_ns) {
        uint64_t ended = (now_ns - board->timer_next_ns) / period_ns + 1;
        board->ticks_due += (uint32_t)ended;
        board->timer_next_ns += ended * period_ns;
        write_clock_page_locked(machine, now_ns);
        arm_timer_locked(machine);
    }
    pthread_mutex_unlock(&machine->board_lock);
    for (unsigned i = 0; i < machine->vcpu_count; i++)
        vmm_vcpu_raise(&machine->vcpus[i], BOARD_LINE_TIMER);
}

/* Both clocks at one moment: whoever is held up between the two asks again. */
static void read_clocks(uint64_t *monotonic_ns, uint64_t *real_ns)
{
    uint64_t least_ns = UINT64_MAX;
    for (unsigned i = 0; i < 10 && least_ns > 2000; i++) {
        uint64_t before_ns = vmm_now_ns(CLOCK_MONOTONIC), now_ns = vmm_now_ns(CLOCK_REALTIME);
        uint64_t took_ns = vmm_now_ns(CLOCK_MONOTONIC) - before_ns;
        if (took_ns >= least_ns)
            continue;
        least_ns = took_ns;
        *monotonic_ns = before_ns + took_ns / 2;
        *real_ns = now_ns;
    }
}

/* The guest's clock is real time: what passed while it was paused is added. */
void vmm_board_resume(struct vmm_machine *machine)
{
    struct vmm_board *board = &machine->board;
    uint64_t monotonic_ns, real_ns;
    pthread_mutex_lock(&machine->board_lock);
    read_clocks(&monotonic_ns, &real_ns);
    if (board->started_real_ns == 0)
        board->started_real_ns = real_ns;
    else if (real_ns > board->paused_real_ns)
        board->clock_ns += real_ns - board->paused_real_ns;
    atomic_store(&machine->clock_offset_ns, (int64_t)(board->clock_ns - monotonic_ns));
    board->timer_us = bounded(board->timer_us);
    if (board->serial_queued > sizeof(board->serial_queue))
        board->serial_queued = sizeof(board->serial_queue);
    board->checked_before = board->checked;
    arm_timer_locked(machine);
    pthread_mutex_unlock(&machine->board_lock);
    vmm_disk_kick(machine);
}

bool vmm_board_goes_on(struct vmm_machine *machine)
{
    pthread_mutex_lock(&machine->board_lock);
    bool goes_on = machine->board.checked > machine->board.checked_before;
    pthread_mutex_unlock(&machine->board_lock);
    return goes_on;
}

void vmm_board_pause(struct vmm_machine *machine)
{
    struct vmm_board *board = &machine->board;
    const struct itimerspec off = {0};
    struct kvm_clock_data clock = {0};
    timerfd_settime(machine->timer_fd, 0, &off, NULL);
    read_clocks(&board->clock_ns, &board->paused_real_ns);
    board->clock_ns += (uint64_t)atomic_load(&machine->clock_offset_ns);
    if (ioctl(machine->vm, KVM_GET_CLOCK, &clock) == 0)
        board->kvm_clock_ns = clock.clock;
}

/* Whether @vcpu's time stamp counter went @passed_ns further, which is asked of it afterwards. */
static bool forward_tsc(const struct vmm_vcpu *vcpu, uint64_t passed_ns)
{
    struct {
        struct kvm_msrs head;
        struct kvm_msr_entry entry;
    } counter = {.head.nmsrs = 1, .entry.index = TSC}, is;
    int khz = ioctl(vcpu->fd, KVM_GET_TSC_KHZ, 0);
    if (khz <= 0 || ioctl(vcpu->fd, KVM_GET_MSRS, &counter) != 1)
        return false;
    counter.entry.data += passed_ns / 1000 * (uint64_t)khz / 1000;
    is = counter;
    return ioctl(vcpu->fd, KVM_SET_MSRS, &counter) == 1 &&
           ioctl(vcpu->fd, KVM_GET_MSRS, &is) == 1 && is.entry.data >= counter.entry.data;
}

int vmm_board_arrived(struct vmm_machine *machine, uint64_t least_ns)
{
    struct vmm_board *board = &machine->board;
    uint64_t now_ns = vmm_now_ns(CLOCK_REALTIME), passed_ns = now_ns - board->paused_real_ns;
    if (passed_ns < least_ns || passed_ns > PAUSED_NS_MAX) {
        passed_ns = least_ns;
        board->paused_real_ns = now_ns - passed_ns;
    }
    struct kvm_clock_data clock = {.clock = board->kvm_clock_ns + passed_ns};
    bool all = ioctl(machine->vm, KVM_SET_CLOCK, &clock) == 0;
    for (unsigned i = 0; i < machine->vcpu_count; i++)
        all &= forward_tsc(&machine->vcpus[i], passed_ns);
    return all ? 0 : vmm_fail(machine, -EIO, "not all of the guest's clocks were set forward");
}

/* ---- the serial line ------------------------------------------------------------------------------- */

/* Without waiting for who listens: the guest would stand still, and could not be paused. A listener who
 * has gone gets nothing, and is not waited for. Kicks interrupt both calls, which says nothing of the line. */
static bool serial_write(const struct vmm_machine *machine, uint8_t byte)
{
    struct pollfd line = {.fd = machine->serial_fd, .events = POLLOUT};
    if (poll(&line, 1, 0) != 1)
        return false;
    return write(machine->serial_fd, &byte, 1) == 1 || (errno != EINTR && errno != EAGAIN);
}

bool vmm_board_drain(struct vmm_machine *machine)
{
    struct vmm_board *board = &machine->board;
    uint32_t taken = 0;
    pthread_mutex_lock(&machine->board_lock);
    while (taken < board->serial_queued && serial_write(machine, board->serial_queue[taken]))
        taken++;
    board->serial_queued -= taken;
    memmove(board->serial_queue, board->serial_queue + taken, board->serial_queued);
    bool waits = board->serial_queued > 0;
    pthread_mutex_unlock(&machine->board_lock);
    return waits;
}

void vmm_board_flush(struct vmm_machine *machine, unsigned ms_max)
{
    struct pollfd line = {.fd = machine->serial_fd, .events = POLLOUT};
    uint64_t until_ns = vmm_now_ns(CLOCK_MONOTONIC) + ms_max * UINT64_C(1000000), now_ns;
    while (vmm_board_drain(machine) && (now_ns = vmm_now_ns(CLOCK_MONOTONIC)) < until_ns)
        poll(&line, 1, (int)((until_ns - now_ns) / 1000000) + 1);
}

/* What nobody takes now waits, and goes along with the guest; what finds no room is lost, as on any line
 * whose status is not looked at. */
static void serial_say_locked(struct vmm_machine *machine, uint8_t byte)
{
    struct vmm_board *board = &machine->board;
    board->serial_bytes++;
    if ((board->serial_queued == 0 && serial_write(machine, byte)) ||
        board->serial_queued == sizeof(board->serial_queue))
        return;
    board->serial_queue[board->serial_queued++] = byte;
}

/* ---- ports ----------------------------------------------------------------------------------------- */

static uint32_t port_in_locked(struct vmm_vcpu *vcpu, uint16_t port)
{
    struct vmm_board *board = &vcpu->machine->board;
    uint64_t now_ns = 0;
    uint32_t ticks = board->ticks_due;
    switch (port) {
    case BOARD_CLOCK_LOW:
        now_ns = vmm_board_clock_ns(vcpu->machine);
        vcpu->clock_high = (uint32_t)(now_ns >> 32);
        return (uint32_t)now_ns;
    case BOARD_CLOCK_HIGH:
        return vcpu->clock_high;
    case BOARD_TIMER_TICKS:
        board->ticks_due = 0;
        return ticks;
    case BOARD_SERIAL_STATUS:
        return board->serial_queued < sizeof(board->serial_queue) ? SERIAL_IDLE : 0;
    default:
        if (port >= BOARD_SERIAL && port < BOARD_SERIAL + 8)
            return board->serial[port - BOARD_SERIAL];
        return UINT32_MAX; /* nothing is there */
    }
}

static void port_out_locked(struct vmm_machine *machine, uint16_t port, uint32_t value)
{
    struct vmm_board *board = &machine->board;
    switch (port) {
    case BOARD_SERIAL:
        serial_say_locked(machine, (uint8_t)value);
        break;
    case BOARD_TIMER:
        set_timer_locked(machine, value);
        break;
    case BOARD_CLOCK_PAGE:
        board->clock_page = value;
        break;
    case BOARD_CHECKED:
        board->checked += value;
        break;
    case BOARD_BROKEN:
        board->broken++;
        break;
    default:
        if (port > BOARD_SERIAL && port < BOARD_SERIAL + 8)
            board->serial[port - BOARD_SERIAL] = (uint8_t)value;
        break;
    }
}

void vmm_board_port(struct vmm_vcpu *vcpu, uint16_t port, bool out, void *data, unsigned bytes)
{
    struct vmm_machine *machine = vcpu->machine;
    uint32_t value = 0;
    pthread_mutex_lock(&machine->board_lock);
    if (out) {
        memcpy(&value, data, bytes < sizeof(value) ? bytes : sizeof(value));
        port_out_locked(machine, port, value);
    } else {
        value = port_in_locked(vcpu, port);
        memcpy(data, &value, bytes < sizeof(value) ? bytes : sizeof(value));
    }
    pthread_mutex_unlock(&machine->board_lock);
}

void vmm_board_mmio(struct vmm_vcpu *vcpu, uint64_t gpa, bool out, void *data, unsigned bytes)
{
    if (!vmm_disk_mmio(vcpu->machine, gpa, out, data, bytes) && !out)
        memset(data, 0xff, bytes); /* nothing is there */
}
