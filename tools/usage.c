// SPDX-License-Identifier: MIT
/* CPU time from getrusage(2), for the whole process, less that of the vCPU threads, which the guest
 * keeps. The two are read one after the other and the guest's may be 50 ms old, so a difference can
 * come out negative by that much: it is then 0. */
#include "tools/usage.h"

#include "tools/guest.h"

#include <sys/resource.h>

static uint64_t ns_of(const struct timeval *time)
{
    return (uint64_t)time->tv_sec * UINT64_C(1000000000) + (uint64_t)time->tv_usec * 1000;
}

static uint64_t less(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

void gw_usage_take(struct gw_usage *usage, const struct gw_guest *guest)
{
    struct gw_guest_stats stats = {0};
    struct rusage all = {0};

    if (guest)
        gw_guest_stats(guest, &stats);
    getrusage(RUSAGE_SELF, &all);
    usage->user_ns = less(ns_of(&all.ru_utime), stats.user_ns);
    usage->system_ns = less(ns_of(&all.ru_stime), stats.system_ns);
}

void gw_usage_between(const struct gw_usage *from, const struct gw_usage *to, uint64_t *user_ns,
                      uint64_t *system_ns)
{
    *user_ns = less(to->user_ns, from->user_ns);
    *system_ns = less(to->system_ns, from->system_ns);
}
