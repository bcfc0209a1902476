// SPDX-License-Identifier: MIT
/* A guest that begins: memory filled, page tables, the program in its ROM, processors in long mode at the
 * program's first byte. There is no firmware. */
#include "examples/kvm/kvm_machine.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define TICK_US 10000u
#define LINE_EVERY_TICKS 10u

/* The programs of the tree, as the linker put them here. */
extern const uint8_t vmm_writer_begin[], vmm_writer_end[], vmm_ticker_begin[], vmm_ticker_end[],
    vmm_disk_begin[], vmm_disk_end[];
/* clang-format off */
__asm__(".pushsection .rodata\n"
        ".globl vmm_writer_begin, vmm_writer_end, vmm_ticker_begin, vmm_ticker_end\n"
        ".globl vmm_disk_begin, vmm_disk_end\n"
        "vmm_writer_begin: .incbin \"" VMM_GUEST_WRITER "\"\nvmm_writer_end:\n"
        "vmm_ticker_begin: .incbin \"" VMM_GUEST_TICKER "\"\nvmm_ticker_end:\n"
        "vmm_disk_begin: .incbin \"" VMM_GUEST_DISKUSER "\"\nvmm_disk_end:\n"
        ".popsection\n");
/* clang-format on */

static int load_file(struct vmm_machine *machine, const char *path, uint8_t *rom)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t bytes = fd < 0 ? -1 : read(fd, rom, BOARD_ROM_BYTES);
    int rc = 0;
    if (bytes < 0)
        rc = vmm_fail(machine, -errno, "program '%s': %s", path, strerror(errno));
    else if (bytes == BOARD_ROM_BYTES && read(fd, &(char){0}, 1) != 0)
        rc = vmm_fail(machine, -E2BIG, "program '%s': larger than the ROM, %u bytes", path,
                      BOARD_ROM_BYTES);
    if (fd >= 0)
        close(fd);
    return rc;
}

static int load_program(struct vmm_machine *machine, const char *program, uint8_t *rom)
{
    machine->checks = true;
    if (!program || strcmp(program, "writer") == 0)
        memcpy(rom, vmm_writer_begin, (size_t)(vmm_writer_end - vmm_writer_begin));
    else if (strcmp(program, "ticker") == 0)
        memcpy(rom, vmm_ticker_begin, (size_t)(vmm_ticker_end - vmm_ticker_begin));
    else if (strcmp(program, "disk") == 0)
        memcpy(rom, vmm_disk_begin, (size_t)(vmm_disk_end - vmm_disk_begin));
    else
        machine->checks = false;
    return machine->checks ? 0 : load_file(machine, program, rom);
}

static int make_blocks(struct vmm_machine *machine, const struct vmm_boot *boot, uint8_t **rom)
{
    struct vmm_block *block = NULL;
    char name[16];
    int rc = 0;
    for (unsigned i = 0; rc == 0 && i < boot->blocks; i++) {
        snprintf(name, sizeof(name), "ram%u", i);
        rc = vmm_memory_add(machine, name, boot->ram_bytes / boot->blocks, false, &block);
    }
    if (rc == 0)
        rc = vmm_memory_add(machine, "rom", BOARD_ROM_BYTES, true, &block);
    *rom = rc == 0 ? block->host : NULL;
    return rc;
}

static void write_tables(struct vmm_machine *machine)
{
    const uint64_t present_writable = 3, large = 0x80;
    uint64_t *table = vmm_memory_at(machine, BOARD_TABLES_AT, 6 * (uint64_t)VMM_PAGE_BYTES);
    uint64_t *gdt = vmm_memory_at(machine, BOARD_GDT_AT, 24);
    uint64_t *pointers = table + 512, *directory = table + 1024;
    table[0] = (BOARD_TABLES_AT + VMM_PAGE_BYTES) | present_writable;
    for (uint64_t i = 0; i < 4; i++)
        pointers[i] = (BOARD_TABLES_AT + (2 + i) * VMM_PAGE_BYTES) | present_writable;
    for (uint64_t i = 0; i < 2048; i++)
        directory[i] = i << 21 | large | present_writable;
    gdt[BOARD_CODE_SELECTOR / 8] = UINT64_C(0x00af9b000000ffff); /* 64-bit, accessed */
    gdt[BOARD_DATA_SELECTOR / 8] = UINT64_C(0x00cf93000000ffff);
}

static void write_info(struct vmm_machine *machine, const struct vmm_boot *boot)
{
    struct board_info *info = vmm_memory_at(machine, BOARD_INFO_AT, sizeof(*info));
    uint64_t hot_pages = boot->hot_bytes / VMM_PAGE_BYTES;
    *info = (struct board_info){
        .magic = BOARD_INFO_MAGIC,
        .vcpus = machine->vcpu_count,
        .ram_bytes = boot->ram_bytes,
        .hot_pages = hot_pages,
        .pages_per_s = boot->rate_bytes / VMM_PAGE_BYTES,
        .cold_is_zero = boot->cold_is_zero,
        .serial_every_ticks = LINE_EVERY_TICKS,
        .tick_us = TICK_US,
    };
    if (boot->cold_is_zero)
        return;
    for (uint64_t page = 0; page < (boot->ram_bytes - BOARD_PAGES_AT) / VMM_PAGE_BYTES; page++) {
        uint64_t *at =
            vmm_memory_at(machine, BOARD_PAGES_AT + page * VMM_PAGE_BYTES, VMM_PAGE_BYTES);
        for (unsigned i = 0; i < VMM_PAGE_BYTES / 8; i++)
            at[i] = board_stamp(page, 0);
    }
}

static int reset_vcpu(struct vmm_vcpu *vcpu)
{
    const struct kvm_segment code = {.selector = BOARD_CODE_SELECTOR,
                                     .type = 11,
                                     .present = 1,
                                     .s = 1,
                                     .l = 1,
                                     .g = 1,
                                     .limit = UINT32_MAX};
    const struct kvm_segment data = {.selector = BOARD_DATA_SELECTOR,
                                     .type = 3,
                                     .present = 1,
                                     .s = 1,
                                     .db = 1,
                                     .g = 1,
                                     .limit = UINT32_MAX};
    struct kvm_regs regs = {
        .rip = BOARD_ROM_AT,
        .rflags = 2, /* bit 1 is always set */
        .rdi = vcpu->index,
        .rsp = BOARD_STACKS_AT + (vcpu->index + 1) * BOARD_STACK_BYTES - 8, /* as after a call */
    };
    struct kvm_sregs sregs;
    if (ioctl(vcpu->fd, KVM_GET_SREGS, &sregs) < 0)
        return -errno;
    sregs.cs = code;
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
    sregs.gdt.base = BOARD_GDT_AT;
    sregs.gdt.limit = 23;
    sregs.cr3 = BOARD_TABLES_AT;
    sregs.cr4 |= 1u << 5 | 1u << 9 | 1u << 10; /* PAE, SSE and its exceptions */
    sregs.cr0 =
        1u << 31 | 1u << 16 | 1u << 5 | 1u << 4 | 3u; /* paging, WP, NE, ET, MP, protection */
    sregs.efer = 1u << 10 | 1u << 8;                  /* long mode, active and enabled */
    if (ioctl(vcpu->fd, KVM_SET_SREGS, &sregs) < 0 || ioctl(vcpu->fd, KVM_SET_REGS, &regs) < 0)
        return -errno;
    return 0;
}

static int check_sizes(struct vmm_machine *machine, const struct vmm_boot *boot)
{
    uint64_t unit = boot->blocks * (machine->memory == VMM_HUGETLB ? UINT64_C(2) << 20
                                                                   : UINT64_C(64) * VMM_PAGE_BYTES);
    uint64_t hot = boot->hot_bytes / VMM_PAGE_BYTES;
    if (boot->blocks < 1 || boot->blocks >= VMM_BLOCKS_MAX)
        return vmm_fail(machine, -EINVAL, "memory is made of 1 to %d blocks", VMM_BLOCKS_MAX - 1);
    if (boot->ram_bytes % unit || boot->ram_bytes < 2 * (uint64_t)BOARD_PAGES_AT ||
        boot->ram_bytes > BOARD_VIRTIO_AT || boot->ram_bytes / boot->blocks > VMM_SLOT_BYTES_MAX)
        return vmm_fail(machine, -EINVAL,
                        "memory must be a multiple of %llu bytes, from 4 MiB to 2044, "
                        "in blocks of at most 1 GiB",
                        (unsigned long long)unit);
    if (hot < machine->vcpu_count || hot > BOARD_HOT_PAGES_MAX ||
        hot > (boot->ram_bytes - BOARD_PAGES_AT) / VMM_PAGE_BYTES)
        return vmm_fail(
            machine, -EINVAL,
            "the working set must have a page for each vCPU, and fit memory less 2 MiB and "
            "512 MiB");
    return 0;
}

int vmm_boot(struct vmm_machine *machine, const struct vmm_boot *boot)
{
    uint8_t *rom = NULL;
    int rc = check_sizes(machine, boot);
    if (rc == 0)
        rc = make_blocks(machine, boot, &rom);
    if (rc == 0)
        rc = load_program(machine, boot->program, rom);
    if (rc < 0)
        return rc;
    write_tables(machine);
    write_info(machine, boot);
    for (unsigned i = 0; i < machine->vcpu_count; i++) {
        rc = reset_vcpu(&machine->vcpus[i]);
        if (rc < 0)
            return vmm_fail(machine, rc, "vCPU %u: reset: %s", i, strerror(-rc));
    }
    return 0;
}
