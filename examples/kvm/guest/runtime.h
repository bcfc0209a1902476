/* SPDX-License-Identifier: MIT */
/* examples/kvm/guest/runtime.h - what guest programs share: ports, text on the serial line, the timer. */
#ifndef VMM_GUEST_RUNTIME_H
#define VMM_GUEST_RUNTIME_H

#include "examples/kvm/guest/board.h"

struct guest_vcpu {
    unsigned long index;
    volatile unsigned long interrupts;
} __attribute__((aligned(64)));

extern struct guest_vcpu guest_vcpus[4];

static inline const volatile struct board_info *board(void)
{
    unsigned long at = BOARD_INFO_AT;
    return (const volatile struct board_info *)at;
}

static inline void port_out8(unsigned short port, unsigned char value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline void port_out(unsigned short port, unsigned value)
{
    __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline unsigned char port_in8(unsigned short port)
{
    unsigned char value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}

static inline unsigned port_in(unsigned short port)
{
    unsigned value;
    __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}

unsigned long clock_ns(void);

void say(const char *text);
void say_number(unsigned long number);

/* Every processor calls it once: its interrupts, of whatever line, reach guest_vcpus[index].interrupts. */
void interrupts_on(unsigned long index);
void wait_for_interrupt(void);

/* Processor 0 only: reads what the timer counted, says a line "tick N" every so many, and checks the clock. */
void count_ticks(void);

/* A page of one word, again and again. */
void page_fill(void *page, unsigned long word);
int page_is(const void *page, unsigned long word);

/* The program: called on every processor, with its index; does not return. */
void guest_main(unsigned long index);

#endif
