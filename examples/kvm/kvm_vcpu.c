// SPDX-License-Identifier: MIT
/* One processor and its thread: wait for its turn, offer interrupts, run, serve what made it leave. SIGUSR1
 * makes it leave: its handler sets immediate_exit, so a signal that comes before KVM_RUN is not lost. There
 * is no interrupt controller in the kernel: lines are bits here, and HLT comes to us. */
#include "examples/kvm/kvm_machine.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#define SLICE_NS 5000000u /* a slowed processor sleeps for a part of each, */
#define SLICE_RUN_NS                                                                               \
    500000u /* which is longer where less than this were left: a host takes some to enter */
#define CPUID_MAX 256

static _Thread_local struct vmm_vcpu *self;

static void on_kick(int signal)
{
    (void)signal;
    if (self)
        __atomic_store_n(&self->run->immediate_exit, 1, __ATOMIC_RELAXED);
}

/* A processor that any x86-64 host has: no XSAVE, no AVX, no features that hosts differ in, so that its
 * state loads elsewhere. Who offers more has to compare hosts before a migration. */
static bool keep_leaf(struct kvm_cpuid_entry2 *leaf, unsigned index)
{
    switch (leaf->function) {
    case 0:
        leaf->eax = 1;
        return true;
    case 1:
        leaf->ebx = (leaf->ebx & 0x0000ffffu) | index << 24;
        leaf->ecx = 0;
        return true;
    case 0x80000000u:
        leaf->eax = 0x80000001u;
        return true;
    case 0x80000001u:
        leaf->ecx = 0;
        leaf->edx &= 1u << 29 | 1u << 20 | 1u << 11; /* long mode, no-execute, syscall */
        return true;
    default:
        return false;
    }
}

static int set_cpuid(struct vmm_machine *machine, struct vmm_vcpu *vcpu)
{
    struct {
        struct kvm_cpuid2 head;
        struct kvm_cpuid_entry2 leaves[CPUID_MAX];
    } cpuid = {.head.nent = CPUID_MAX};
    unsigned kept = 0;
    if (ioctl(machine->kvm, KVM_GET_SUPPORTED_CPUID, &cpuid) < 0)
        return vmm_fail(machine, -errno, "CPUID: %s", strerror(errno));
    for (unsigned i = 0; i < cpuid.head.nent; i++) {
        if (keep_leaf(&cpuid.leaves[i], vcpu->index))
            cpuid.leaves[kept++] = cpuid.leaves[i];
    }
    cpuid.head.nent = kept;
    if (ioctl(vcpu->fd, KVM_SET_CPUID2, &cpuid) < 0)
        return vmm_fail(machine, -errno, "vCPU %u: CPUID: %s", vcpu->index, strerror(errno));
    return 0;
}

int vmm_vcpu_new(struct vmm_machine *machine, unsigned index)
{
    struct vmm_vcpu *vcpu = &machine->vcpus[index];
    vcpu->machine = machine;
    vcpu->index = index;
    vcpu->fd = ioctl(machine->vm, KVM_CREATE_VCPU, index);
    if (vcpu->fd < 0)
        return vmm_fail(machine, -errno, "vCPU %u: %s", index, strerror(errno));
    machine->vcpu_count = index + 1;
    int bytes = ioctl(machine->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    vcpu->run = bytes < 0
                    ? MAP_FAILED
                    : mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
    if (vcpu->run == MAP_FAILED) {
        vcpu->run = NULL;
        return vmm_fail(machine, -errno, "vCPU %u: mmap: %s", index, strerror(errno));
    }
    int rc = machine->ring_bytes > 0 ? vmm_ring_map(vcpu) : 0;
    return rc == 0 ? set_cpuid(machine, vcpu) : rc;
}

/* ---- what makes it leave the guest ----------------------------------------------------------------- */

static void serve_port(struct vmm_vcpu *vcpu)
{
    struct kvm_run *run = vcpu->run;
    uint8_t *data = (uint8_t *)run + run->io.data_offset;
    for (unsigned i = 0; i < run->io.count; i++, data += run->io.size)
        vmm_board_port(vcpu, run->io.port, run->io.direction == KVM_EXIT_IO_OUT, data,
                       run->io.size);
}

static void crash(struct vmm_vcpu *vcpu, const char *what, uint64_t number)
{
    struct vmm_machine *machine = vcpu->machine;
    struct kvm_regs regs = {0};
    ioctl(vcpu->fd, KVM_GET_REGS, &regs);
    pthread_mutex_lock(&machine->run_lock);
    if (!machine->crashed)
        vmm_fail(machine, 0, "vCPU %u cannot go on: %s %llu at rip 0x%llx", vcpu->index, what,
                 (unsigned long long)number, (unsigned long long)regs.rip);
    machine->crashed = true;
    machine->running = false;
    for (unsigned i = 0; i < machine->vcpu_count; i++)
        vmm_vcpu_kick(&machine->vcpus[i]);
    pthread_cond_broadcast(&machine->run_changed);
    pthread_mutex_unlock(&machine->run_lock);
}

/* getrusage(2) can ask for the calling thread only. */
static void note_usage(struct vmm_vcpu *vcpu)
{
    struct rusage usage;
    if (getrusage(RUSAGE_THREAD, &usage) < 0)
        return;
    atomic_store_explicit(&vcpu->user_ns,
                          (uint64_t)usage.ru_utime.tv_sec * 1000000000u +
                              (uint64_t)usage.ru_utime.tv_usec * 1000,
                          memory_order_relaxed);
    atomic_store_explicit(&vcpu->system_ns,
                          (uint64_t)usage.ru_stime.tv_sec * 1000000000u +
                              (uint64_t)usage.ru_stime.tv_usec * 1000,
                          memory_order_relaxed);
}

static void serve(struct vmm_vcpu *vcpu)
{
    struct kvm_run *run = vcpu->run;
    switch (run->exit_reason) {
    case KVM_EXIT_IO:
        serve_port(vcpu);
        break;
    case KVM_EXIT_MMIO:
        vmm_board_mmio(vcpu, run->mmio.phys_addr, run->mmio.is_write, run->mmio.data,
                       run->mmio.len);
        break;
    case KVM_EXIT_HLT:
        vcpu->halted = true;
        note_usage(vcpu);
        break;
    case KVM_EXIT_INTR:
    case KVM_EXIT_IRQ_WINDOW_OPEN:
        break;
    case KVM_EXIT_DIRTY_RING_FULL:
        if (!vmm_ring_full(vcpu)) /* what was lost fails the migration, not the guest */
            crash(vcpu, "dirty ring always full, exit", run->exit_reason);
        break;
    case KVM_EXIT_INTERNAL_ERROR:
        crash(vcpu, "KVM's internal error", run->internal.suberror);
        break;
    default:
        crash(vcpu, "exit", run->exit_reason);
        break;
    }
}

static void enter(struct vmm_vcpu *vcpu)
{
    if (ioctl(vcpu->fd, KVM_RUN, 0) == 0)
        serve(vcpu);
    else if (errno != EINTR && errno != EAGAIN)
        crash(vcpu, "KVM_RUN: errno", (uint64_t)errno);
}

/* The line's bit is the request; it goes to the processor once that can take it. */
static void offer_interrupt(struct vmm_vcpu *vcpu)
{
    struct kvm_run *run = vcpu->run;
    uint32_t lines = atomic_load_explicit(&vcpu->lines, memory_order_acquire);
    if (lines && run->ready_for_interrupt_injection) {
        unsigned line = (unsigned)__builtin_ctz(lines);
        struct kvm_interrupt interrupt = {.irq = BOARD_VECTOR + line};
        if (ioctl(vcpu->fd, KVM_INTERRUPT, &interrupt) == 0) {
            atomic_fetch_and_explicit(&vcpu->lines, ~(1u << line), memory_order_acq_rel);
            run->ready_for_interrupt_injection = 0; /* until it says so again */
            lines &= ~(1u << line);
        }
    }
    run->request_interrupt_window = lines != 0;
}

/* ---- its turn -------------------------------------------------------------------------------------- */

/* Finishes the port or memory access that is under way, without entering the guest: until then its
 * registers are not what they will be. One instruction may ask for several. */
static void park_locked(struct vmm_vcpu *vcpu)
{
    struct vmm_machine *machine = vcpu->machine;
    pthread_mutex_unlock(&machine->run_lock);
    __atomic_store_n(&vcpu->run->immediate_exit, 1, __ATOMIC_RELAXED);
    while (ioctl(vcpu->fd, KVM_RUN, 0) == 0 && !machine->crashed)
        serve(vcpu);
    note_usage(vcpu);
    pthread_mutex_lock(&machine->run_lock);
    machine->parked++;
    pthread_cond_broadcast(&machine->run_changed);
    while (!machine->running && !machine->quit)
        pthread_cond_wait(&machine->run_changed, &machine->run_lock);
    machine->parked--;
}

/* How much of a slice it runs. */
static uint64_t run_ns_of(unsigned slower)
{
    uint64_t run_ns = (uint64_t)SLICE_NS * (100 - slower) / 100;
    return run_ns > SLICE_RUN_NS ? run_ns : SLICE_RUN_NS;
}

static void begin_slice(struct vmm_vcpu *vcpu, uint64_t now_ns, unsigned slower)
{
    struct itimerspec end = {.it_value.tv_nsec = (long)run_ns_of(slower)};
    vcpu->slice_ns = now_ns;
    timer_settime(vcpu->slicer, 0, &end, NULL);
}

static void sleep_locked(struct vmm_vcpu *vcpu, uint64_t until_ns)
{
    struct timespec until = {.tv_sec = (time_t)(until_ns / 1000000000u),
                             .tv_nsec = (long)(until_ns % 1000000000u)};
    pthread_cond_timedwait(&vcpu->machine->run_changed, &vcpu->machine->run_lock, &until);
}

/* Sleeps for the part of the slice that is not its own. Whoever pauses or releases it wakes it.
 * Return: it may run. */
static bool keep_slice_locked(struct vmm_vcpu *vcpu)
{
    unsigned slower = atomic_load_explicit(&vcpu->slower_percent, memory_order_relaxed);
    if (slower == 0 && !vcpu->ring)
        return true;
    uint64_t now_ns = vmm_now_ns(CLOCK_MONOTONIC), used_ns = now_ns - vcpu->slice_ns;
    uint64_t slice_ns = run_ns_of(slower) * 100 / (100 - slower);
    if (used_ns < run_ns_of(slower))
        return true;
    if (slower > 0 && used_ns < slice_ns) {
        sleep_locked(vcpu, vcpu->slice_ns + slice_ns);
        return false;
    }
    if (vcpu->ring && !vcpu->machine->ring_may_fill) /* long before it is full */
        vmm_ring_harvest(vcpu->machine);
    begin_slice(vcpu, now_ns, slower);
    return true;
}

/* Return: run; false: the machine is being freed. */
static bool wait_for_turn(struct vmm_vcpu *vcpu)
{
    struct vmm_machine *machine = vcpu->machine;
    pthread_mutex_lock(&machine->run_lock);
    for (;;) {
        /* Before all that a kick may be about is looked at. */
        __atomic_store_n(&vcpu->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
        if (machine->quit)
            break;
        if (!machine->running) {
            park_locked(vcpu);
        } else if (vcpu->halted && atomic_load(&vcpu->lines) == 0) {
            pthread_cond_wait(&machine->run_changed, &machine->run_lock);
        } else if (keep_slice_locked(vcpu)) {
            vcpu->halted = false;
            break;
        }
    }
    bool run = !machine->quit;
    pthread_mutex_unlock(&machine->run_lock);
    return run;
}

static void *vcpu_main(void *arg)
{
    struct vmm_vcpu *vcpu = arg;
    struct sigevent kick = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGUSR1};
    self = vcpu;
    kick._sigev_un._tid = gettid();
    bool has_slicer = timer_create(CLOCK_MONOTONIC, &kick, &vcpu->slicer) == 0;
    if (!has_slicer)
        crash(vcpu, "timer: errno", (uint64_t)errno);
    while (wait_for_turn(vcpu)) {
        offer_interrupt(vcpu);
        enter(vcpu);
    }
    if (has_slicer)
        timer_delete(vcpu->slicer);
    return NULL;
}

int vmm_vcpu_start(struct vmm_vcpu *vcpu)
{
    struct sigaction kick = {.sa_handler = on_kick};
    char name[16];
    if (vcpu->started)
        return 0;
    sigaction(SIGUSR1, &kick, NULL);
    int rc = pthread_create(&vcpu->thread, NULL, vcpu_main, vcpu);
    if (rc != 0)
        return vmm_fail(vcpu->machine, -rc, "vCPU %u: no thread: %s", vcpu->index, strerror(rc));
    vcpu->started = true;
    snprintf(name, sizeof(name), "vcpu_%u", vcpu->index);
    pthread_setname_np(vcpu->thread, name);
    return 0;
}

void vmm_vcpu_kick(struct vmm_vcpu *vcpu)
{
    if (vcpu->started)
        pthread_kill(vcpu->thread, SIGUSR1);
}

static void wake(struct vmm_vcpu *vcpu)
{
    pthread_mutex_lock(&vcpu->machine->run_lock);
    pthread_cond_broadcast(&vcpu->machine->run_changed);
    pthread_mutex_unlock(&vcpu->machine->run_lock);
    vmm_vcpu_kick(vcpu);
}

void vmm_vcpu_raise(struct vmm_vcpu *vcpu, unsigned line)
{
    atomic_fetch_or_explicit(&vcpu->lines, 1u << line, memory_order_release);
    wake(vcpu);
}

void vmm_vcpu_slow(struct vmm_vcpu *vcpu, unsigned percent)
{
    atomic_store_explicit(&vcpu->slower_percent, percent < 99 ? percent : 99, memory_order_relaxed);
    wake(vcpu);
}

void vmm_vcpu_free(struct vmm_vcpu *vcpu)
{
    struct vmm_machine *machine = vcpu->machine;
    int bytes = ioctl(machine->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (vcpu->started)
        pthread_join(vcpu->thread, NULL);
    vcpu->started = false;
    if (vcpu->ring)
        munmap(vcpu->ring, machine->ring_bytes);
    if (vcpu->run)
        munmap(vcpu->run, (size_t)bytes);
    close(vcpu->fd);
}
