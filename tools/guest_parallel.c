// SPDX-License-Identifier: MIT
/* Work on all of a guest's memory, by as many threads as there are CPUs. Slices are handed out by a
 * counter, a few at a time, so that a thread that is held up holds up little. If no thread can be
 * made the caller does it all. */
#include "tools/guest_impl.h"

#include <sched.h>

#define GW_PARALLEL_THREADS_MAX 64
#define GW_PARALLEL_SLICES 4

struct parallel {
    gw_guest_work_fn *work;
    void *ctx;
    uint64_t count;
    _Atomic uint64_t next;
    atomic_int rc;
};

static void *parallel_main(void *arg)
{
    struct parallel *p = arg;
    for (;;) {
        uint64_t slice =
            atomic_fetch_add_explicit(&p->next, GW_PARALLEL_SLICES, memory_order_relaxed);
        if (slice >= p->count)
            return NULL;
        uint64_t end =
            slice + GW_PARALLEL_SLICES < p->count ? slice + GW_PARALLEL_SLICES : p->count;
        for (; slice < end; slice++) {
            if (atomic_load_explicit(&p->rc, memory_order_relaxed))
                return NULL;
            int none = 0;
            int rc = p->work(p->ctx, slice);
            if (rc) /* the first one stands; joined threads make it visible */
                atomic_compare_exchange_strong_explicit(&p->rc, &none, rc, memory_order_relaxed,
                                                        memory_order_relaxed);
        }
    }
}

static unsigned cpu_count(void)
{
    cpu_set_t cpus;
    if (sched_getaffinity(0, sizeof(cpus), &cpus) < 0)
        return 1;
    int count = CPU_COUNT(&cpus);
    return count < GW_PARALLEL_THREADS_MAX ? (unsigned)count : GW_PARALLEL_THREADS_MAX;
}

int gw_guest_parallel(gw_guest_work_fn *work, void *ctx, uint64_t count)
{
    struct parallel p = {.work = work, .ctx = ctx, .count = count};
    pthread_t threads[GW_PARALLEL_THREADS_MAX];
    unsigned helpers = cpu_count() - 1;
    if (helpers * (uint64_t)GW_PARALLEL_SLICES >= count)
        helpers = (unsigned)(count / GW_PARALLEL_SLICES);
    unsigned started = 0;
    while (started < helpers && pthread_create(&threads[started], NULL, parallel_main, &p) == 0)
        started++;
    parallel_main(&p);
    while (started)
        pthread_join(threads[--started], NULL);
    return atomic_load_explicit(&p.rc, memory_order_relaxed);
}
