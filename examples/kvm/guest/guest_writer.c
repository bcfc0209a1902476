// SPDX-License-Identifier: MIT
/* writer: stamps whole pages and checks them. Pages are hot or cold; hot ones are spread evenly over all
 * memory, so over all blocks. Processor n of m owns each m-th of both. It rewrites its hot pages in turn,
 * each after a look at every word of it, looks at a cold page now and then, and keeps one number in a
 * register of the floating-point unit only. What is not as it was left is said and counted. */
#include "examples/kvm/guest/runtime.h"

#define PAGES_A_REPORT 8
#define BEHIND_NS_MAX 200000000ul /* more than that is not made up for */

static unsigned generations[BOARD_HOT_PAGES_MAX]; /* of the hot pages */

static unsigned long total_pages(void)
{
    return (board()->ram_bytes - BOARD_PAGES_AT) / BOARD_PAGE_BYTES;
}

static unsigned long *page_at(unsigned long page)
{
    unsigned long at = BOARD_PAGES_AT + page * BOARD_PAGE_BYTES;
    return (unsigned long *)at;
}

static unsigned long hot_page(unsigned long hot)
{
    return hot * total_pages() / board()->hot_pages;
}

static unsigned long stamp_of(unsigned long page, unsigned generation)
{
    return generation == 0 && board()->cold_is_zero ? 0 : board_stamp(page, generation);
}

static void check(unsigned long page, unsigned generation)
{
    if (page_is(page_at(page), stamp_of(page, generation)))
        return;
    port_out(BOARD_BROKEN, 1);
    say("page ");
    say_number(page);
    say(" is not of generation ");
    say_number(generation);
    say("\n");
}

static unsigned long next_cold(unsigned long cold, unsigned long index)
{
    cold += board()->vcpus;
    return cold < total_pages() ? cold : index;
}

static void check_cold(unsigned long page)
{
    unsigned long hot = (page * board()->hot_pages + total_pages() - 1) / total_pages();
    if (hot_page(hot) != page) /* else it is a hot one */
        check(page, 0);
}

static void report(unsigned long *checked)
{
    if (++*checked % PAGES_A_REPORT == 0)
        port_out(BOARD_CHECKED, PAGES_A_REPORT);
}

static void secret_keep(const unsigned long secret[2])
{
    __asm__ volatile("movdqu (%0), %%xmm7" : : "r"(secret) : "memory");
}

static void secret_check(const unsigned long secret[2])
{
    unsigned long found[2];
    __asm__ volatile("movdqu %%xmm7, (%0)" : : "r"(found) : "memory");
    if (found[0] == secret[0] && found[1] == secret[1])
        return;
    say("xmm7 was lost\n");
    port_out(BOARD_BROKEN, 3);
}

/* Sleeps while this processor is ahead of its rate, which the clock and the rate say. */
struct pace {
    unsigned long since_ns, written;
};

static int is_due(struct pace *pace, unsigned long now_ns)
{
    unsigned long per_s = board()->pages_per_s / board()->vcpus;
    if (per_s == 0)
        return 0;
    unsigned long due_ns = pace->since_ns + pace->written * 1000000000ul / per_s;
    if (now_ns > due_ns + BEHIND_NS_MAX) {
        pace->since_ns = now_ns;
        pace->written = 0;
    }
    return now_ns >= due_ns;
}

void guest_main(unsigned long index)
{
    const unsigned long vcpus = board()->vcpus, hot_pages = board()->hot_pages;
    const unsigned long secret[2] = {0x5ec7e7 + index, ~index};
    unsigned long hot = index, cold = index, checked = 0, seen = 0;
    struct pace pace = {0};

    secret_keep(secret);
    interrupts_on(index);
    if (index == 0)
        say("writer\n");
    for (;;) {
        if (index == 0 && seen != guest_vcpus[0].interrupts) {
            seen = guest_vcpus[0].interrupts;
            count_ticks();
        }
        if (!is_due(&pace, clock_ns())) {
            wait_for_interrupt();
            cold = next_cold(cold, index); /* it has the time */
            check_cold(cold);
            report(&checked);
            continue;
        }
        unsigned long page = hot_page(hot);
        check(page, generations[hot]);
        generations[hot]++;
        page_fill(page_at(page), stamp_of(page, generations[hot]));
        pace.written++;
        hot = hot + vcpus < hot_pages ? hot + vcpus : index;
        if (pace.written % 4 == 0) {
            cold = next_cold(cold, index);
            check_cold(cold);
            secret_check(secret);
        }
        report(&checked);
    }
}
