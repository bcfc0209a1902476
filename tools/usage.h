/* SPDX-License-Identifier: MIT */
/* tools/usage.h - the CPU time of a migration: this process's, less what the guest's vCPUs took. */
#ifndef GW_TOOLS_USAGE_H
#define GW_TOOLS_USAGE_H

#include <stdint.h>

struct gw_guest;

struct gw_usage {
    uint64_t user_ns, system_ns; /* vCPU threads left out; 0: not taken */
};

void gw_usage_take(struct gw_usage *usage, const struct gw_guest *guest); /* @guest may be NULL */
/* What passed from one to the other; 0 where it would be negative. */
void gw_usage_between(const struct gw_usage *from, const struct gw_usage *to, uint64_t *user_ns,
                      uint64_t *system_ns);

#endif
