// SPDX-License-Identifier: MIT
/* KVM's dirty rings: one for each processor, an entry for each page that it writes first. An entry is taken
 * in three steps: the kernel says DIRTY, we say RESET, KVM_RESET_DIRTY_RINGS arms the page again; only then
 * may its content be read. A processor whose ring is nearly full leaves the guest, on hosts that look in
 * time. On others entries are overwritten, so that is tried before rings are relied on. */
#include "examples/kvm/kvm_machine.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define RESET_TRIES 16 /* in a row that armed nothing */
#define FULL_TRIES 16  /* in a row to enter a guest whose ring was emptied, and is full */

static uint32_t entries_of(uint32_t bytes)
{
    return bytes / (uint32_t)sizeof(struct kvm_dirty_gfn);
}

int vmm_ring_map(struct vmm_vcpu *vcpu)
{
    void *ring = mmap(NULL, vcpu->machine->ring_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd,
                      (off_t)KVM_DIRTY_LOG_PAGE_OFFSET * VMM_PAGE_BYTES);
    if (ring == MAP_FAILED)
        return vmm_fail(vcpu->machine, -errno, "vCPU %u: dirty ring: %s", vcpu->index,
                        strerror(errno));
    vcpu->ring = ring;
    return 0;
}

/* The next entry, from now on ours to reset; false: none. */
static bool take_entry(struct kvm_dirty_gfn *ring, uint32_t entries, uint32_t *next,
                       struct kvm_dirty_gfn *taken)
{
    struct kvm_dirty_gfn *entry = &ring[*next % entries];
    if (!(__atomic_load_n(&entry->flags, __ATOMIC_ACQUIRE) & KVM_DIRTY_GFN_F_DIRTY))
        return false;
    *taken = *entry;
    __atomic_store_n(&entry->flags, KVM_DIRTY_GFN_F_RESET, __ATOMIC_RELEASE);
    ++*next;
    return true;
}

/* Slots that are not known are of memory that is gone. */
static void mark(struct vmm_machine *machine, const struct kvm_dirty_gfn *entry)
{
    unsigned slot = entry->slot & 0xffff;
    if (slot < machine->block_count && entry->offset < machine->blocks[slot].bytes / VMM_PAGE_BYTES)
        vmm_pages_mark(machine->blocks[slot].ringed, entry->offset);
}

/* Arms the pages of @left entries again. A signal may end that early, even before the first, without an
 * error: it is asked for again, and is refused only where nothing comes of that. */
static bool reset(struct vmm_machine *machine, uint32_t left)
{
    for (unsigned tries = 0; left > 0 && tries < RESET_TRIES; tries++) {
        int count = ioctl(machine->vm, KVM_RESET_DIRTY_RINGS, 0);
        if (count < 0 && errno != EINTR)
            return false;
        if (count > 0) {
            left -= (uint32_t)count < left ? (uint32_t)count : left;
            tries = 0;
        }
    }
    return left == 0;
}

/* A whole ring of entries says that there were more. */
static int harvest_locked(struct vmm_machine *machine)
{
    const uint32_t entries = entries_of(machine->ring_bytes);
    struct kvm_dirty_gfn entry;
    uint32_t all = 0;
    for (unsigned i = 0; i < machine->vcpu_count; i++) {
        struct vmm_vcpu *vcpu = &machine->vcpus[i];
        uint32_t taken = 0;
        while (taken < entries && take_entry(vcpu->ring, entries, &vcpu->ring_next, &entry)) {
            mark(machine, &entry);
            taken++;
        }
        machine->ring_lost |= taken == entries;
        all += taken;
    }
    machine->ring_taken += all;
    if (!reset(machine, all))
        machine->ring_lost = true;
    return machine->ring_lost ? -EOVERFLOW : 0;
}

int vmm_ring_harvest(struct vmm_machine *machine)
{
    pthread_mutex_lock(&machine->ring_lock);
    int rc = harvest_locked(machine);
    pthread_mutex_unlock(&machine->ring_lock);
    return rc;
}

/* A ring that is full again, though nothing was taken since it was, is one that KVM has lost count of. */
bool vmm_ring_full(struct vmm_vcpu *vcpu)
{
    struct vmm_machine *machine = vcpu->machine;
    pthread_mutex_lock(&machine->ring_lock);
    harvest_locked(machine);
    if (machine->ring_taken == vcpu->taken_when_full) {
        machine->ring_lost = true;
        vcpu->full_in_vain++;
    } else {
        vcpu->full_in_vain = 0;
    }
    vcpu->taken_when_full = machine->ring_taken;
    machine->ring_fulls++;
    bool enters = vcpu->full_in_vain < FULL_TRIES;
    pthread_mutex_unlock(&machine->ring_lock);
    return enters;
}

int vmm_ring_take(struct vmm_machine *machine, struct vmm_block *block, uint64_t first,
                  uint64_t count, uint64_t *into)
{
    pthread_mutex_lock(&machine->ring_lock);
    int rc = harvest_locked(machine);
    vmm_pages_take(block->ringed, first, count, into);
    pthread_mutex_unlock(&machine->ring_lock);
    return rc;
}

/* ---- is the host's ring sound? --------------------------------------------------------------------- */

#define PROBE_RING_BYTES                                                                           \
    16384u                /* 1024 entries: a processor with a log of its own has to fit in too */
#define PROBE_PAGES 2400u /* more than two rings of them */
#define PROBE_AT 0x100000u
#define PROBE_BYTES (12u << 20)
#define PROBE_TIMES 4
#define PROBE_SPARE 32u /* KVM stops a processor 64 entries before the end */

/* mov edi, 0x100000; mov ecx, 2400; 1: mov [edi], al; add edi, 0x1000; dec ecx; jnz 1b; hlt */
static const uint8_t probe_code[] = {0xbf, 0x00, 0x00, 0x10, 0x00, 0xb9, 0x60, 0x09,
                                     0x00, 0x00, 0x88, 0x07, 0x81, 0xc7, 0x00, 0x10,
                                     0x00, 0x00, 0x49, 0x75, 0xf5, 0xf4};

struct probe {
    int kvm, vm, vcpu, run_bytes;
    struct kvm_run *run;
    struct kvm_dirty_gfn *ring;
    uint8_t *memory;
    uint32_t next;
};

static bool probe_has_vcpu(struct probe *probe)
{
    const struct kvm_segment code = {
        .selector = 8, .type = 11, .present = 1, .s = 1, .db = 1, .g = 1, .limit = UINT32_MAX};
    const struct kvm_segment data = {
        .selector = 16, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1, .limit = UINT32_MAX};
    struct kvm_sregs sregs;
    probe->vcpu = ioctl(probe->vm, KVM_CREATE_VCPU, 0);
    if (probe->vcpu < 0)
        return false;
    probe->run =
        mmap(NULL, (size_t)probe->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, probe->vcpu, 0);
    probe->ring = mmap(NULL, PROBE_RING_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, probe->vcpu,
                       (off_t)KVM_DIRTY_LOG_PAGE_OFFSET * VMM_PAGE_BYTES);
    if (probe->run == MAP_FAILED || probe->ring == MAP_FAILED ||
        ioctl(probe->vcpu, KVM_GET_SREGS, &sregs) < 0)
        return false;
    sregs.cs = code;
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
    sregs.cr0 |= 1; /* protection, no paging */
    return ioctl(probe->vcpu, KVM_SET_SREGS, &sregs) == 0;
}

static bool probe_is_made(struct probe *probe)
{
    struct kvm_enable_cap cap = {.cap = KVM_CAP_DIRTY_LOG_RING, .args = {PROBE_RING_BYTES}};
    probe->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    probe->vm = probe->kvm < 0 ? -1 : ioctl(probe->kvm, KVM_CREATE_VM, 0);
    probe->memory =
        mmap(NULL, PROBE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct kvm_userspace_memory_region region = {.flags = KVM_MEM_LOG_DIRTY_PAGES,
                                                 .memory_size = PROBE_BYTES,
                                                 .userspace_addr = (uintptr_t)probe->memory};
    if (probe->vm < 0 || probe->memory == MAP_FAILED ||
        ioctl(probe->vm, KVM_ENABLE_CAP, &cap) < 0 ||
        ioctl(probe->vm, KVM_SET_USER_MEMORY_REGION, &region) < 0)
        return false;
    memcpy(probe->memory + VMM_PAGE_BYTES, probe_code, sizeof(probe_code));
    probe->run_bytes = ioctl(probe->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    return probe->run_bytes > 0 && probe_has_vcpu(probe);
}

static void probe_end(struct probe *probe)
{
    if (probe->run && probe->run != MAP_FAILED)
        munmap(probe->run, (size_t)probe->run_bytes);
    if (probe->ring && probe->ring != MAP_FAILED)
        munmap(probe->ring, PROBE_RING_BYTES);
    if (probe->vcpu >= 0)
        close(probe->vcpu);
    if (probe->vm >= 0)
        close(probe->vm);
    if (probe->kvm >= 0)
        close(probe->kvm);
    if (probe->memory != MAP_FAILED)
        munmap(probe->memory, PROBE_BYTES);
}

/* One walk over all pages. Return: how many of them were reported, or -1: the ring was filled further than
 * it may be, or some exit was not as it must be. */
static int probe_run(struct probe *probe)
{
    const uint32_t entries = entries_of(PROBE_RING_BYTES);
    const struct kvm_regs regs = {.rip = VMM_PAGE_BYTES, .rflags = 2};
    static bool seen[PROBE_BYTES / VMM_PAGE_BYTES];
    struct kvm_dirty_gfn entry;
    int found = 0;
    memset(seen, 0, sizeof(seen));
    if (ioctl(probe->vcpu, KVM_SET_REGS, &regs) < 0)
        return -1;
    for (unsigned exits = 0; exits < PROBE_PAGES; exits++) {
        uint32_t taken = 0;
        bool left = ioctl(probe->vcpu, KVM_RUN, 0) == 0;
        if (!left && errno != EINTR)
            return -1;
        bool full = left && probe->run->exit_reason == KVM_EXIT_DIRTY_RING_FULL;
        for (; taken < entries && take_entry(probe->ring, entries, &probe->next, &entry); taken++)
            seen[entry.offset % (PROBE_BYTES / VMM_PAGE_BYTES)] = true;
        if (ioctl(probe->vm, KVM_RESET_DIRTY_RINGS, 0) < 0 || taken > entries - PROBE_SPARE ||
            (full && taken == 0))
            return -1;
        if (full || !left)
            continue;
        for (unsigned i = 0; i < PROBE_PAGES; i++)
            found += seen[PROBE_AT / VMM_PAGE_BYTES + i];
        return probe->run->exit_reason == KVM_EXIT_HLT ? found : -1;
    }
    return -1;
}

int vmm_ring_probe(char why[VMM_WHY_BYTES])
{
    struct probe probe = {.vcpu = -1, .vm = -1};
    int found = probe_is_made(&probe) ? (int)PROBE_PAGES : -2;
    for (unsigned i = 0; found == (int)PROBE_PAGES && i < PROBE_TIMES; i++)
        found = probe_run(&probe);
    probe_end(&probe);
    if (found == (int)PROBE_PAGES)
        return 0;
    if (found == -2)
        snprintf(why, VMM_WHY_BYTES, "this KVM has no dirty rings");
    else if (found == -1)
        snprintf(why, VMM_WHY_BYTES,
                 "this host's dirty ring overruns: a processor is not stopped in time");
    else
        snprintf(why, VMM_WHY_BYTES, "this host's dirty ring reported %d of %u pages", found,
                 PROBE_PAGES);
    return -EOPNOTSUPP;
}
