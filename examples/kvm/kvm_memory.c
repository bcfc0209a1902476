// SPDX-License-Identifier: MIT
/* Guest memory: blocks of one kind each, one after the other from 0, and the ROM at its place. KVM's dirty
 * log knows what processors write; what the hypervisor writes by itself is marked here. */
#include "examples/kvm/kvm_machine.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define HUGE_PAGE_BYTES (2u << 20)
#define UNIT_BYTES (UINT64_C(64) * VMM_PAGE_BYTES) /* KVM clears its log by 64 pages */

static int map_block(struct vmm_machine *machine, struct vmm_block *block)
{
    int flags = MAP_PRIVATE | MAP_ANONYMOUS;
    block->page_bytes = block->memory == VMM_HUGETLB ? HUGE_PAGE_BYTES : VMM_PAGE_BYTES;
    if (block->memory != VMM_ANON) {
        flags = MAP_SHARED;
        block->fd = memfd_create(block->name,
                                 MFD_CLOEXEC | (block->memory == VMM_HUGETLB ? MFD_HUGETLB : 0u));
        if (block->fd < 0 || ftruncate(block->fd, (off_t)block->bytes) < 0)
            return vmm_fail(machine, -errno, "block '%s': memfd: %s", block->name, strerror(errno));
    }
    block->host = mmap(NULL, block->bytes, PROT_READ | PROT_WRITE, flags, block->fd, 0);
    if (block->host == MAP_FAILED) {
        block->host = NULL;
        return vmm_fail(machine, -errno, "block '%s': mmap of %llu bytes: %s%s", block->name,
                        (unsigned long long)block->bytes, strerror(errno),
                        block->memory == VMM_HUGETLB ? " (are there enough free huge pages?)" : "");
    }
    return 0;
}

int vmm_memory_slot(struct vmm_machine *machine, const struct vmm_block *block, bool log)
{
    struct kvm_userspace_memory_region region = {
        .slot = block->slot,
        .flags = block->read_only ? KVM_MEM_READONLY
                 : log            ? KVM_MEM_LOG_DIRTY_PAGES
                                  : 0u,
        .guest_phys_addr = block->gpa,
        .memory_size = block->bytes,
        .userspace_addr = (uintptr_t)block->host,
    };
    if (ioctl(machine->vm, KVM_SET_USER_MEMORY_REGION, &region) < 0)
        return vmm_fail(machine, -errno, "block '%s': KVM does not take it: %s", block->name,
                        strerror(errno));
    return 0;
}

int vmm_memory_add(struct vmm_machine *machine, const char *name, uint64_t bytes, bool read_only,
                   struct vmm_block **out)
{
    if (machine->block_count == VMM_BLOCKS_MAX)
        return vmm_fail(machine, -E2BIG, "block '%s': there are %d already", name, VMM_BLOCKS_MAX);
    if (strlen(name) >= sizeof(machine->blocks[0].name) || bytes > VMM_SLOT_BYTES_MAX ||
        (read_only ? bytes != BOARD_ROM_BYTES
                   : bytes % UNIT_BYTES || machine->ram_bytes + bytes > BOARD_VIRTIO_AT))
        return vmm_fail(machine, -EINVAL, "block '%s': there is no place for %llu bytes", name,
                        (unsigned long long)bytes);
    struct vmm_block *block = &machine->blocks[machine->block_count];
    snprintf(block->name, sizeof(block->name), "%s", name);
    block->fd = -1;
    block->slot = machine->block_count;
    block->gpa = read_only ? BOARD_ROM_AT : machine->ram_bytes;
    block->bytes = bytes;
    block->read_only = read_only;
    block->memory = read_only ? VMM_MEMFD : machine->memory;
    block->own = calloc((bytes / VMM_PAGE_BYTES + 63) / 64, sizeof(*block->own));
    block->ringed = calloc((bytes / VMM_PAGE_BYTES + 63) / 64, sizeof(*block->ringed));
    machine->block_count++;
    if (!block->own || !block->ringed)
        return vmm_fail(machine, -ENOMEM, "block '%s': out of memory", name);
    int rc = map_block(machine, block);
    if (rc == 0)
        rc = vmm_memory_slot(machine, block, false);
    if (rc < 0)
        return rc;
    if (!read_only)
        machine->ram_bytes += bytes;
    *out = block;
    return 0;
}

static struct vmm_block *find(struct vmm_machine *machine, uint64_t gpa, uint64_t bytes)
{
    for (unsigned i = 0; i < machine->block_count; i++) {
        struct vmm_block *block = &machine->blocks[i];
        if (gpa >= block->gpa && gpa - block->gpa < block->bytes &&
            bytes <= block->bytes - (gpa - block->gpa))
            return block;
    }
    return NULL;
}

void *vmm_memory_at(struct vmm_machine *machine, uint64_t gpa, uint64_t bytes)
{
    struct vmm_block *block = find(machine, gpa, bytes);
    return block && !block->read_only ? block->host + (gpa - block->gpa) : NULL;
}

void vmm_memory_wrote(struct vmm_machine *machine, uint64_t gpa, uint64_t bytes)
{
    struct vmm_block *block = find(machine, gpa, bytes);
    if (!block || bytes == 0)
        return;
    uint64_t last = (gpa - block->gpa + bytes - 1) / VMM_PAGE_BYTES;
    for (uint64_t page = (gpa - block->gpa) / VMM_PAGE_BYTES; page <= last; page++)
        vmm_pages_mark(block->own, page);
}

/* Pairs with the acquire below: who takes the bit reads what was written before it was set. */
void vmm_pages_mark(_Atomic uint64_t *pages, uint64_t page)
{
    atomic_fetch_or_explicit(&pages[page / 64], UINT64_C(1) << page % 64, memory_order_release);
}

void vmm_pages_take(_Atomic uint64_t *pages, uint64_t first, uint64_t count, uint64_t *into)
{
    for (uint64_t word = 0; word < (count + 63) / 64; word++)
        into[word] |= atomic_exchange_explicit(&pages[first / 64 + word], 0, memory_order_acquire);
}

void vmm_memory_free(struct vmm_machine *machine)
{
    for (unsigned i = 0; i < machine->block_count; i++) {
        struct vmm_block *block = &machine->blocks[i];
        if (block->host)
            munmap(block->host, block->bytes);
        if (block->fd >= 0)
            close(block->fd);
        free((void *)(uintptr_t)block->own);
        free((void *)(uintptr_t)block->ringed);
    }
    machine->block_count = 0;
}
