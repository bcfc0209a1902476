/* SPDX-License-Identifier: MIT */
/* tests/sim/choice.h - every decision of a run comes from here: from a seed, and kept on a tape; or from
 * a tape that was kept, and shortened since. 0 is always the benign answer: what is cut off a tape,
 * or zeroed, did not happen. */
#ifndef GW_TESTS_SIM_CHOICE_H
#define GW_TESTS_SIM_CHOICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tape {
    uint32_t *values;
    size_t count, room;
};

void choice_seed(uint64_t seed);             /* decide anew, keep a tape */
void choice_replay(const struct tape *tape); /* borrowed; 0 behind its end */
const struct tape *choice_tape(void);        /* of this run so far */
/* Keep a copy of the tape where another process sees it. */
void choice_mirror(uint32_t *values, size_t room, size_t *count);
size_t choice_used(void); /* how many decisions this run has asked for */

uint32_t choose(uint32_t count);       /* 0..count-1 */
bool chance(uint32_t of_ten_thousand); /* false is the benign answer */
uint64_t choose_ns(uint64_t max_ns);   /* 0..max, small ones more often */

#endif
