// SPDX-License-Identifier: MIT
/* disk: writes blocks of the disk, reads them back, and checks that they are what was written last; a block
 * that was not written yet is empty. Processor 0 is the driver: virtio-blk, version 1, on MMIO, with one
 * queue. A few requests are always in flight, each in a slot of its own, never two for one block. */
#include "examples/kvm/guest/runtime.h"

#define SLOTS 8u
#define RING 32u /* three descriptors a slot, and to spare */
#define BLOCKS_MAX 32768u
#define SECTORS (BOARD_PAGE_BYTES / 512u)

enum {
    MAGIC = 0x0,
    VERSION = 0x4,
    DEVICE = 0x8,
    FEATURES = 0x20,
    FEATURES_SEL = 0x24,
    QUEUE_SEL = 0x30,
    QUEUE_NUM = 0x38,
    QUEUE_READY = 0x44,
    NOTIFY = 0x50,
    IRQ_STATUS = 0x60,
    IRQ_ACK = 0x64,
    STATUS = 0x70,
    DESC = 0x80,
    AVAIL = 0x90,
    USED = 0xa0,
    CAPACITY = 0x100
};

static struct {
    unsigned long address;
    unsigned bytes;
    unsigned short flags, next;
} descriptors[RING] __attribute__((aligned(16)));
static struct {
    volatile unsigned short flags, index, ring[RING];
} available __attribute__((aligned(2)));
static struct {
    volatile unsigned short flags, index;
    volatile struct {
        unsigned slot, bytes;
    } ring[RING];
} used __attribute__((aligned(4)));

static struct slot {
    struct {
        unsigned kind, reserved; /* 0: read, 1: write */
        unsigned long sector;
    } head;
    volatile unsigned char status;
    int busy;
    unsigned block;
} slots[SLOTS];
static unsigned char data[SLOTS][BOARD_PAGE_BYTES] __attribute__((aligned(BOARD_PAGE_BYTES)));
static unsigned generations[BLOCKS_MAX];

static unsigned register_in(unsigned offset)
{
    unsigned long at = BOARD_VIRTIO_AT + offset;
    return *(volatile unsigned *)at;
}

static void register_out(unsigned offset, unsigned value)
{
    unsigned long at = BOARD_VIRTIO_AT + offset;
    *(volatile unsigned *)at = value;
}

static void address_out(unsigned offset, volatile void *address)
{
    register_out(offset, (unsigned)(unsigned long)address);
    register_out(offset + 4, (unsigned)((unsigned long)address >> 32));
}

static int disk_starts(void)
{
    if (register_in(MAGIC) != 0x74726976 || register_in(VERSION) != 2 || register_in(DEVICE) != 2)
        return 0;
    register_out(STATUS, 0);
    register_out(STATUS, 3);
    register_out(FEATURES_SEL, 0);
    register_out(FEATURES, 1u << 9); /* FLUSH: or else each write waits for the disk */
    register_out(FEATURES_SEL, 1);
    register_out(FEATURES, 1); /* version 1, and nothing else */
    register_out(STATUS, 11);
    if (!(register_in(STATUS) & 8))
        return 0;
    register_out(QUEUE_SEL, 0);
    register_out(QUEUE_NUM, RING);
    address_out(DESC, descriptors);
    address_out(AVAIL, &available);
    address_out(USED, &used);
    register_out(QUEUE_READY, 1);
    register_out(STATUS, 15);
    return 1;
}

static unsigned long word_of(unsigned block)
{
    return generations[block] ? board_stamp(block, generations[block]) : 0;
}

static int is_in_flight(unsigned block)
{
    for (unsigned i = 0; i < SLOTS; i++) {
        if (slots[i].busy && slots[i].block == block)
            return 1;
    }
    return 0;
}

static void offer(unsigned i, unsigned block, unsigned kind)
{
    struct slot *slot = &slots[i];
    slot->busy = 1;
    slot->block = block;
    slot->status = 0xff;
    slot->head.kind = kind;
    slot->head.sector = (unsigned long)block * SECTORS;
    if (kind == 1) {
        generations[block]++;
        page_fill(data[i], word_of(block));
    }
    descriptors[3 * i].address = (unsigned long)&slot->head;
    descriptors[3 * i].bytes = sizeof(slot->head);
    descriptors[3 * i].flags = 1; /* another one follows */
    descriptors[3 * i].next = (unsigned short)(3 * i + 1);
    descriptors[3 * i + 1].address = (unsigned long)data[i];
    descriptors[3 * i + 1].bytes = BOARD_PAGE_BYTES;
    descriptors[3 * i + 1].flags = kind == 1 ? 1 : 3; /* the device writes to it */
    descriptors[3 * i + 1].next = (unsigned short)(3 * i + 2);
    descriptors[3 * i + 2].address = (unsigned long)&slot->status;
    descriptors[3 * i + 2].bytes = 1;
    descriptors[3 * i + 2].flags = 2;
    available.ring[available.index % RING] = (unsigned short)(3 * i);
    __atomic_store_n(&available.index, (unsigned short)(available.index + 1), __ATOMIC_RELEASE);
}

static void judge(unsigned i)
{
    struct slot *slot = &slots[i];
    if (slot->status != 0 || (slot->head.kind == 0 && !page_is(data[i], word_of(slot->block)))) {
        port_out(BOARD_BROKEN, 4);
        say(slot->status ? "request failed, block " : "read wrong, block ");
        say_number(slot->block);
        say("\n");
    }
    slot->busy = 0;
    port_out(BOARD_CHECKED, 1);
}

static void take_back(void)
{
    static unsigned short seen;
    while (seen != __atomic_load_n(&used.index, __ATOMIC_ACQUIRE))
        judge(used.ring[seen++ % RING].slot / 3);
    register_out(IRQ_ACK, register_in(IRQ_STATUS));
}

/* Writes go through the disk in strides, and each is read back some requests later. */
static void offer_more(unsigned blocks)
{
    static unsigned long turn;
    unsigned offered = 0;
    for (unsigned i = 0; i < SLOTS; i++) {
        unsigned long of = turn % 3 == 2 && turn > 30 ? turn - 30 : turn;
        unsigned block = (unsigned)(of / 3 * 7919 % blocks);
        if (slots[i].busy || is_in_flight(block))
            continue;
        offer(i, block, turn % 3 == 0);
        turn++;
        offered++;
    }
    if (offered > 0)
        register_out(NOTIFY, 0);
}

void guest_main(unsigned long index)
{
    unsigned long seen = 0;
    unsigned blocks = 0;
    interrupts_on(index);
    if (index == 0) {
        say("disk\n");
        if (disk_starts())
            blocks = register_in(CAPACITY) / SECTORS;
        else
            say("there is no disk\n");
        blocks = blocks < BLOCKS_MAX ? blocks : BLOCKS_MAX;
    }
    for (;;) {
        if (index == 0 && seen != guest_vcpus[0].interrupts) {
            seen = guest_vcpus[0].interrupts;
            count_ticks();
        }
        if (blocks > 0) {
            take_back();
            offer_more(blocks);
        }
        wait_for_interrupt();
    }
}
