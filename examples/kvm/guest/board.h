/* SPDX-License-Identifier: MIT */
/* examples/kvm/guest/board.h - the machine as its guest sees it: where memory lies, what the ports mean,
 * how a page is stamped. Included by guest programs and by the hypervisor. */
#ifndef VMM_GUEST_BOARD_H
#define VMM_GUEST_BOARD_H

/* Guest-physical. Memory is one range from 0, whatever blocks it is made of; 4 GiB are mapped 1:1. */
#define BOARD_INFO_AT 0x1000u   /* struct board_info */
#define BOARD_GDT_AT 0x1800u    /* null, code, data */
#define BOARD_TABLES_AT 0x2000u /* six pages of page tables */
#define BOARD_STACKS_AT 0x10000u
#define BOARD_STACK_BYTES 0x4000u   /* each; a processor's ends where the next one's begins */
#define BOARD_DATA_AT 0x100000u     /* the program's variables; the clock page is one of them */
#define BOARD_PAGES_AT 0x200000u    /* what is stamped, up to the end of memory */
#define BOARD_ROM_AT 0x7fe00000u    /* the program, read-only, entered at its first byte */
#define BOARD_ROM_BYTES 0x10000u    /* always: a program that grows must not change the block */
#define BOARD_VIRTIO_AT 0x7fd00000u /* virtio-blk on MMIO, version 1, where there is a disk */
#define BOARD_PAGE_BYTES 4096u
#define BOARD_HOT_PAGES_MAX 131072u

#define BOARD_CODE_SELECTOR 8
#define BOARD_DATA_SELECTOR 16

/* Interrupts are vectors VECTOR + line. There is no controller: a line is raised once, taken once. */
#define BOARD_VECTOR 0x20
#define BOARD_LINE_TIMER 0
#define BOARD_LINE_DISK 1
#define BOARD_LINES 2

/* Ports. Serial is a 16550 as far as output goes. Others are 32 bits wide. */
#define BOARD_SERIAL 0x3f8
#define BOARD_SERIAL_STATUS 0x3fd /* in */
#define BOARD_SERIAL_ROOM 0x20    /* of the status: a byte more can be said */
#define BOARD_CLOCK_LOW                                                                            \
    0x510 /* in: ns since the start; latches the other half, for this processor */
#define BOARD_CLOCK_HIGH 0x514  /* in */
#define BOARD_TIMER 0x518       /* out: period in us, 0 off; raises its line on every processor */
#define BOARD_TIMER_TICKS 0x51c /* in: periods that ended since this was last read */
#define BOARD_CLOCK_PAGE 0x520  /* out: a page to which the board writes its clock at every tick */
#define BOARD_CHECKED 0x528     /* out: so many pages were looked at and were right */
#define BOARD_BROKEN 0x52c      /* out: one was not, or anything else is not as it must be */

#define BOARD_INFO_MAGIC 0x676f6477u

struct board_info {
    unsigned magic, vcpus;
    unsigned long ram_bytes;
    unsigned long
        hot_pages; /* of those from BOARD_PAGES_AT, evenly spread: written again and again */
    unsigned long pages_per_s;   /* all processors together; 0: none */
    unsigned cold_is_zero;       /* pages were left empty, not stamped with generation 0 */
    unsigned serial_every_ticks; /* a line each so many ticks */
    unsigned tick_us;
};

/* What every word of a page is after its @generation-th rewriting; never 0. */
static inline unsigned long board_stamp(unsigned long page, unsigned long generation)
{
    return ((page << 32 | generation) * 0x9e3779b97f4a7c15ul) | 1ul;
}

#endif
