// SPDX-License-Identifier: MIT
/* rig-kvm: does /dev/kvm run a guest? One processor in real mode adds 2 and 3, says the sum on a port and
 * halts; its memory's dirty log must then have the page that it wrote. Exit status 0: all of it so. */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#define GUEST_BYTES 0x8000u
#define CODE_AT 0x1000u /* counts as written, as all that KVM maps writable when it is read */
#define WRITTEN_PAGE 5u

/* mov al, 2; add al, 3; mov [0x5000], al; out 0x10, al; hlt */
static const uint8_t code[] = {0xb0, 0x02, 0x04, 0x03, 0xa2, 0x00, 0x50, 0xe6, 0x10, 0xf4};

static int checked(int rc, const char *what)
{
    if (rc < 0) {
        fprintf(stderr, "rig-kvm: %s: %s\n", what, strerror(errno));
        exit(1);
    }
    return rc;
}

static void expect(int is_so, const char *what)
{
    if (!is_so) {
        fprintf(stderr, "rig-kvm: %s\n", what);
        exit(1);
    }
}

static int new_machine(int kvm, uint8_t **memory)
{
    int vm = checked(ioctl(kvm, KVM_CREATE_VM, 0), "create a machine");
    *memory = mmap(NULL, GUEST_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    expect(*memory != MAP_FAILED, "no memory");
    memcpy(*memory + CODE_AT, code, sizeof(code));
    struct kvm_userspace_memory_region region = {
        .flags = KVM_MEM_LOG_DIRTY_PAGES,
        .memory_size = GUEST_BYTES,
        .userspace_addr = (uintptr_t)*memory,
    };
    checked(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region), "give it memory");
    return vm;
}

static int new_processor(int kvm, int vm, struct kvm_run **run)
{
    int vcpu = checked(ioctl(vm, KVM_CREATE_VCPU, 0), "create a processor");
    size_t bytes =
        (size_t)checked(ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), "ask for the run page's size");
    *run = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
    expect(*run != MAP_FAILED, "no run page");
    struct kvm_sregs sregs;
    checked(ioctl(vcpu, KVM_GET_SREGS, &sregs), "get segments");
    sregs.cs.base = 0;
    sregs.cs.selector = 0;
    checked(ioctl(vcpu, KVM_SET_SREGS, &sregs), "set segments");
    struct kvm_regs regs = {.rip = CODE_AT, .rflags = 2}; /* bit 1 is always set */
    checked(ioctl(vcpu, KVM_SET_REGS, &regs), "set registers");
    return vcpu;
}

int main(void)
{
    int kvm = checked(open("/dev/kvm", O_RDWR | O_CLOEXEC), "open /dev/kvm");
    expect(ioctl(kvm, KVM_GET_API_VERSION, 0) == KVM_API_VERSION,
           "another version of the interface");
    uint8_t *memory;
    int vm = new_machine(kvm, &memory);
    struct kvm_run *run;
    int vcpu = new_processor(kvm, vm, &run);

    checked(ioctl(vcpu, KVM_RUN, 0), "run");
    expect(run->exit_reason == KVM_EXIT_IO && run->io.port == 0x10,
           "the guest does not say its sum");
    expect(*((uint8_t *)run + run->io.data_offset) == 5, "the guest's sum is wrong");
    checked(ioctl(vcpu, KVM_RUN, 0), "run on");
    expect(run->exit_reason == KVM_EXIT_HLT, "the guest does not halt");
    expect(memory[WRITTEN_PAGE * 4096u] == 5, "the guest's write is not in its memory");

    uint64_t dirty = 0;
    struct kvm_dirty_log log = {.dirty_bitmap = &dirty};
    checked(ioctl(vm, KVM_GET_DIRTY_LOG, &log), "get the dirty log");
    expect(dirty >> WRITTEN_PAGE == 1,
           "the dirty log has not the page that was written, or others");
    return 0;
}
