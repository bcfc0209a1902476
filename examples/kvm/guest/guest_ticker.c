// SPDX-License-Identifier: MIT
/* ticker: counts the timer's ticks and says them on the serial line; writes nothing else. */
#include "examples/kvm/guest/runtime.h"

void guest_main(unsigned long index)
{
    interrupts_on(index);
    if (index == 0)
        say("ticker\n");
    for (;;) {
        if (index == 0) {
            count_ticks();
            port_out(BOARD_CHECKED, 1);
        }
        wait_for_interrupt();
    }
}
