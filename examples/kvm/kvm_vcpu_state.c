// SPDX-License-Identifier: MIT
/* A processor's state out of KVM and into it, while it is paused. */
#include "examples/kvm/kvm_machine.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

/* Time stamp counter, sysenter, page attributes, syscall, swapgs. */
static const uint32_t msr_indices[VMM_MSRS] = {
    0x10, 0x174, 0x175, 0x176, 0x277, 0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084, 0xc0000102};

/* In the order of setting: what system registers say decides what the others mean, events are last. */
#define PART(name, member)                                                                         \
    {                                                                                              \
        KVM_GET_##name, KVM_SET_##name, offsetof(struct vmm_vcpu_state, member)                    \
    }
static const struct {
    unsigned long get, set;
    size_t offset;
} parts[] = {PART(SREGS, system),    PART(REGS, registers),    PART(XSAVE, xsave),
             PART(DEBUGREGS, debug), PART(MP_STATE, mp_state), PART(VCPU_EVENTS, events)};
_Static_assert(sizeof(struct kvm_regs) == sizeof(((struct vmm_vcpu_state *)0)->registers), "regs");

static bool copy_msrs(const struct vmm_vcpu *vcpu, struct vmm_vcpu_state *state, bool set)
{
    struct {
        struct kvm_msrs head;
        struct kvm_msr_entry entries[VMM_MSRS];
    } msrs = {.head.nmsrs = VMM_MSRS};
    for (unsigned i = 0; i < VMM_MSRS; i++)
        msrs.entries[i] = (struct kvm_msr_entry){msr_indices[i], .data = state->msrs[i]};
    bool done = ioctl(vcpu->fd, set ? KVM_SET_MSRS : KVM_GET_MSRS, &msrs) == VMM_MSRS;
    for (unsigned i = 0; i < VMM_MSRS; i++)
        state->msrs[i] = msrs.entries[i].data;
    return done;
}

static int copy(struct vmm_vcpu *vcpu, struct vmm_vcpu_state *state, bool set)
{
    bool done = true;
    errno = 0;
    for (unsigned i = 0; done && i < sizeof(parts) / sizeof(parts[0]); i++)
        done = ioctl(vcpu->fd, set ? parts[i].set : parts[i].get,
                     (char *)state + parts[i].offset) >= 0;
    if (done && copy_msrs(vcpu, state, set))
        return 0;
    int rc = errno ? -errno : -EIO;
    return vmm_fail(vcpu->machine, rc, "vCPU %u: KVM does not %s its state: %s", vcpu->index,
                    set ? "take" : "tell", strerror(-rc));
}

int vmm_vcpu_get_state(struct vmm_vcpu *vcpu, struct vmm_vcpu_state *state)
{
    *state = (struct vmm_vcpu_state){
        .lines = atomic_load(&vcpu->lines), .clock_high = vcpu->clock_high, .halted = vcpu->halted};
    return copy(vcpu, state, false);
}

int vmm_vcpu_set_state(struct vmm_vcpu *vcpu, struct vmm_vcpu_state *state)
{
    atomic_store(&vcpu->lines, state->lines);
    vcpu->clock_high = state->clock_high;
    vcpu->halted = state->halted;
    return copy(vcpu, state, true);
}
