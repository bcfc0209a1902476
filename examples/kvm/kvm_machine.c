// SPDX-License-Identifier: MIT
/* The machine as a whole: made, run, paused, freed. Pausing is a handshake: `running` is taken back, every
 * processor is kicked out of the guest, and the last one that parks tells. What a processor was doing for
 * the guest is finished before it parks, so that its registers say all. */
#include "examples/kvm/kvm_machine.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <unistd.h>

int vmm_fail(struct vmm_machine *machine, int rc, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    /* NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized) */
    vsnprintf(machine->why, sizeof(machine->why), format, args);
    va_end(args);
    return rc;
}

uint64_t vmm_now_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static int open_kvm(struct vmm_machine *machine)
{
    machine->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (machine->kvm < 0)
        return vmm_fail(machine, -errno, "/dev/kvm: %s", strerror(errno));
    machine->vm = ioctl(machine->kvm, KVM_CREATE_VM, 0);
    if (machine->vm < 0)
        return vmm_fail(machine, -errno, "/dev/kvm makes no machine: %s", strerror(errno));
    return 0;
}

/* Manual protect: what GET_DIRTY_LOG reports is re-armed by CLEAR_DIRTY_LOG, range by range, instead of all
 * at once under KVM's lock, from the first time on. Rings must be there before the first processor is. */
static int choose_tracking(struct vmm_machine *machine)
{
    struct kvm_enable_cap cap = {
        .cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
        .args = {KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET}};
    if (machine->ring_bytes > 0)
        cap = (struct kvm_enable_cap){.cap = KVM_CAP_DIRTY_LOG_RING, .args = {machine->ring_bytes}};
    if (ioctl(machine->vm, KVM_ENABLE_CAP, &cap) < 0)
        return vmm_fail(machine, -errno, "this KVM has no %s: %s",
                        machine->ring_bytes > 0 ? "dirty rings" : "manual dirty log protect",
                        strerror(errno));
    return 0;
}

int vmm_machine_new(struct vmm_machine *machine, const struct vmm_machine_config *config)
{
    pthread_condattr_t attr;
    memset(machine, 0, sizeof(*machine));
    machine->kvm = machine->vm = machine->timer_fd = machine->lock_fd = machine->disk.fd =
        machine->disk.kick_fd = -1;
    machine->lock_path = config->lock_path;
    machine->slow_percent = config->slow_percent;
    machine->serial_fd = config->serial_fd;
    machine->memory = config->memory;
    machine->ring_bytes = config->ring_bytes;
    pthread_mutex_init(&machine->run_lock, NULL);
    pthread_mutex_init(&machine->ring_lock, NULL);
    pthread_mutex_init(&machine->board_lock, NULL);
    pthread_mutex_init(&machine->disk.lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&machine->run_changed, &attr);
    pthread_condattr_destroy(&attr);
    int rc = open_kvm(machine);
    if (rc == 0)
        rc = choose_tracking(machine);
    if (rc == 0)
        rc = vmm_board_init(machine);
    for (unsigned i = 0; rc == 0 && i < config->vcpus; i++)
        rc = vmm_vcpu_new(machine, i);
    vmm_machine_slow(machine, UINT_MAX, 0);
    return rc == 0 && config->disk_path ? vmm_disk_open(machine, config->disk_path) : rc;
}

int vmm_machine_run(struct vmm_machine *machine)
{
    int rc = 0;
    if (machine->crashed)
        return -EFAULT; /* why says it */
    vmm_board_resume(machine);
    pthread_mutex_lock(&machine->run_lock);
    machine->running = true;
    pthread_cond_broadcast(&machine->run_changed);
    pthread_mutex_unlock(&machine->run_lock);
    for (unsigned i = 0; rc == 0 && i < machine->vcpu_count; i++)
        rc = vmm_vcpu_start(&machine->vcpus[i]);
    return rc;
}

static unsigned started(const struct vmm_machine *machine)
{
    unsigned count = 0;
    for (unsigned i = 0; i < machine->vcpu_count; i++)
        count += machine->vcpus[i].started;
    return count;
}

void vmm_machine_pause(struct vmm_machine *machine)
{
    pthread_mutex_lock(&machine->run_lock);
    bool ran = machine->running;
    machine->running = false;
    pthread_cond_broadcast(&machine->run_changed);
    for (unsigned i = 0; i < machine->vcpu_count; i++)
        vmm_vcpu_kick(&machine->vcpus[i]);
    while (machine->parked < started(machine))
        pthread_cond_wait(&machine->run_changed, &machine->run_lock);
    pthread_mutex_unlock(&machine->run_lock);
    if (ran)
        vmm_board_pause(machine);
}

int vmm_machine_keep(struct vmm_machine *machine, unsigned vcpus)
{
    if (vcpus == 0 || vcpus > machine->vcpu_count)
        return vmm_fail(machine, -EINVAL, "a machine of %u vCPUs came: here it has 1 to %u", vcpus,
                        machine->vcpu_count);
    while (machine->vcpu_count > vcpus)
        vmm_vcpu_free(&machine->vcpus[--machine->vcpu_count]);
    return 0;
}

void vmm_machine_slow(struct vmm_machine *machine, unsigned vcpu, unsigned percent)
{
    if (percent < machine->slow_percent)
        percent = machine->slow_percent;
    for (unsigned i = 0; i < machine->vcpu_count; i++) {
        if (vcpu == i || vcpu >= machine->vcpu_count)
            vmm_vcpu_slow(&machine->vcpus[i], percent);
    }
}

static void drop_lock(struct vmm_machine *machine)
{
    if (machine->lock_fd >= 0)
        close(machine->lock_fd);
    machine->lock_fd = -1;
}

int vmm_lock_take(struct vmm_machine *machine)
{
    if (!machine->lock_path || machine->lock_fd >= 0)
        return 0;
    machine->lock_fd = open(machine->lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (machine->lock_fd >= 0 && flock(machine->lock_fd, LOCK_EX | LOCK_NB) == 0)
        return 0;
    int rc = vmm_fail(machine, -errno, "lock '%s': %s: who has the machine's disk?",
                      machine->lock_path, strerror(errno));
    drop_lock(machine);
    return rc;
}

int vmm_lock_give(struct vmm_machine *machine)
{
    if (machine->disk.fd >= 0 && fdatasync(machine->disk.fd) < 0)
        return vmm_fail(machine, -errno, "the disk's last writes: %s", strerror(errno));
    drop_lock(machine);
    return 0;
}

void vmm_machine_free(struct vmm_machine *machine)
{
    vmm_machine_pause(machine);
    pthread_mutex_lock(&machine->run_lock);
    machine->quit = true;
    pthread_cond_broadcast(&machine->run_changed);
    pthread_mutex_unlock(&machine->run_lock);
    for (unsigned i = 0; i < machine->vcpu_count; i++)
        vmm_vcpu_free(&machine->vcpus[i]);
    if (machine->vm >= 0)
        close(machine->vm);
    if (machine->kvm >= 0)
        close(machine->kvm);
    if (machine->timer_fd >= 0)
        close(machine->timer_fd);
    vmm_disk_close(machine);
    vmm_memory_free(machine);
    drop_lock(machine);
    pthread_cond_destroy(&machine->run_changed);
    pthread_mutex_destroy(&machine->run_lock);
    pthread_mutex_destroy(&machine->ring_lock);
    pthread_mutex_destroy(&machine->board_lock);
    pthread_mutex_destroy(&machine->disk.lock);
}
