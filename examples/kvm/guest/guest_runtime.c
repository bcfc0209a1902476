// SPDX-License-Identifier: MIT
/* The guest programs' entry and their small runtime. There are no libraries here, no floating point but
 * what is asked for by name, and variables are zero at first: all of this is in a read-only block. */
#include "examples/kvm/guest/runtime.h"

struct guest_vcpu guest_vcpus[4];

static struct {
    unsigned short offset_low, selector;
    unsigned char stack, type;
    unsigned short offset_middle;
    unsigned offset_high, zero;
} __attribute__((packed)) gates[256];

/* The board writes it, not a processor. */
static volatile unsigned long clock_page[BOARD_PAGE_BYTES / 8]
    __attribute__((aligned(BOARD_PAGE_BYTES)));

/* First in the program: rdi has the processor's index, its stack is set up. */
__attribute__((section(".text.start"), used)) void guest_start(unsigned long index);
void guest_start(unsigned long index)
{
    guest_vcpus[index].index = index;
    guest_main(index);
}

/* For the compiler, which copies structures by them. */
void *memset(void *to, int value, unsigned long bytes);
void *memset(void *to, int value, unsigned long bytes)
{
    void *at = to;
    __asm__ volatile("rep stosb" : "+D"(at), "+c"(bytes) : "a"(value) : "memory");
    return to;
}

void say(const char *text)
{
    while (*text) {
        while (!(port_in8(BOARD_SERIAL_STATUS) & BOARD_SERIAL_ROOM))
            ;
        port_out8(BOARD_SERIAL, (unsigned char)*text++);
    }
}

void say_number(unsigned long number)
{
    char text[24];
    char *at = text + sizeof(text);
    *--at = 0;
    do
        *--at = (char)('0' + number % 10);
    while (number /= 10);
    say(at);
}

unsigned long clock_ns(void)
{
    unsigned long low = port_in(BOARD_CLOCK_LOW);
    return (unsigned long)port_in(BOARD_CLOCK_HIGH) << 32 | low;
}

void page_fill(void *page, unsigned long word)
{
    unsigned long left = BOARD_PAGE_BYTES / 8;
    __asm__ volatile("rep stosq" : "+D"(page), "+c"(left) : "a"(word) : "memory");
}

int page_is(const void *page, unsigned long word)
{
    unsigned long left = BOARD_PAGE_BYTES / 8;
    unsigned char differs;
    __asm__ volatile("repe scasq"
                     : "+D"(page), "+c"(left), "=@ccne"(differs)
                     : "a"(word)
                     : "memory");
    return !differs;
}

struct frame;

/* Which processor it is stands nowhere but in its stack's place. */
__attribute__((interrupt)) static void on_interrupt(struct frame *frame)
{
    unsigned long at = (unsigned long)frame - BOARD_STACKS_AT;
    guest_vcpus[at / BOARD_STACK_BYTES % 4].interrupts++;
}

void interrupts_on(unsigned long index)
{
    if (index == 0) {
        unsigned long handler = (unsigned long)on_interrupt;
        for (unsigned i = BOARD_VECTOR + BOARD_LINES;
             i-- > BOARD_VECTOR;) { /* the first one last */
            gates[i].offset_low = (unsigned short)handler;
            gates[i].offset_middle = (unsigned short)(handler >> 16);
            gates[i].offset_high = (unsigned)(handler >> 32);
            gates[i].selector = BOARD_CODE_SELECTOR;
            __atomic_store_n(&gates[i].type, 0x8e, __ATOMIC_RELEASE);
        }
    } else {
        while (__atomic_load_n(&gates[BOARD_VECTOR].type, __ATOMIC_ACQUIRE) != 0x8e)
            ;
    }
    struct {
        unsigned short bytes;
        unsigned long base;
    } __attribute__((packed)) table = {sizeof(gates) - 1, (unsigned long)gates};
    __asm__ volatile("lidt %0; sti" : : "m"(table) : "memory");
    if (index == 0) {
        port_out(BOARD_CLOCK_PAGE, (unsigned)(unsigned long)clock_page);
        port_out(BOARD_TIMER, board()->tick_us);
    }
}

void wait_for_interrupt(void)
{
    __asm__ volatile("hlt" : : : "memory");
}

void count_ticks(void)
{
    static unsigned long ticks, last_ns, last_page;
    unsigned long due = port_in(BOARD_TIMER_TICKS);
    unsigned long page = clock_page[0]; /* before the clock, which goes on meanwhile */
    unsigned long now_ns = clock_ns(), every = board()->serial_every_ticks;
    if (now_ns < last_ns || page < last_page || page > now_ns) {
        say("the clock went back\n");
        port_out(BOARD_BROKEN, 2);
    }
    last_ns = now_ns;
    last_page = page;
    for (; due > 0; due--) {
        if (++ticks % every == 0) {
            say("tick ");
            say_number(ticks / every);
            say("\n");
        }
    }
}
