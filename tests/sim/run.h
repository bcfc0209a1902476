/* SPDX-License-Identifier: MIT */
/* tests/sim/run.h - one run: a guest, a plan of faults, two embedders, and the judgement. */
#ifndef GW_TESTS_SIM_RUN_H
#define GW_TESTS_SIM_RUN_H

/* With the choices that are set (choice.h). Returns if every property held. */
void run_once(void);

struct run_totals {
    unsigned long runs, completed, failed, unknown, retried, claimed, came_back;
    unsigned long steps;
    double virtual_s;
};
extern struct run_totals run_totals;

#endif
