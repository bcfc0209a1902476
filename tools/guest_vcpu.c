// SPDX-License-Identifier: MIT
/* vCPU threads: each writes its own share of the pages, at its share of the rate, in ticks of a
 * millisecond, and sleeps between them on the condition that pause, resume and the end signal too.
 * must_stop is looked at before every write, so a pause waits for one write at most. */
#include "tools/guest_disk.h"
#include "tools/guest_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

#define NS_PER_S UINT64_C(1000000000)
#define TICK_NS UINT64_C(1000000)
#define USAGE_NS UINT64_C(50000000)
#define NEVER_NS UINT64_MAX
#define BACKLOG_S 0.1  /* a vCPU that could not keep up catches up with this much of it */
#define LOOK_WRITES 64 /* between looks at the clock */
#define SHARE_PAGES 4096

static uint64_t clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

/* ---- shares ---------------------------------------------------------------------------------- */

/* Shares of some size begin at slices: vCPUs then share no page of the table either. */
static uint64_t share_start(const struct gw_guest *guest, uint64_t index)
{
    uint64_t start = guest->pages * index / guest->config.vcpus;
    if (index < guest->config.vcpus && guest->pages / guest->config.vcpus >= SHARE_PAGES)
        start -= start % GW_GUEST_SLICE_PAGES;
    return start;
}

int gw_guest_vcpus_new(struct gw_guest *guest)
{
    size_t bytes = guest->config.vcpus * sizeof(struct gw_guest_vcpu);
    struct gw_guest_vcpu *vcpus = aligned_alloc(_Alignof(struct gw_guest_vcpu), bytes);
    if (!vcpus)
        return -ENOMEM;
    for (unsigned i = 0; i < guest->config.vcpus; i++) {
        vcpus[i] = (struct gw_guest_vcpu){.guest = guest, .index = i};
        vcpus[i].first_page = share_start(guest, i);
        vcpus[i].page_count = share_start(guest, i + 1) - vcpus[i].first_page;
        gw_guest_pattern_init(&vcpus[i]);
    }
    guest->vcpus = vcpus;
    return 0;
}

unsigned gw_guest_owner(const struct gw_guest *guest, uint64_t page)
{
    unsigned low = 0;
    unsigned high = guest->config.vcpus - 1;
    while (low < high) {
        unsigned middle = (low + high + 1) / 2;
        if (guest->vcpus[middle].first_page <= page)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

/* ---- writing --------------------------------------------------------------------------------- */

/* Return: how many were made. */
static uint64_t write_some(struct gw_guest_vcpu *vcpu, uint64_t count)
{
    const atomic_bool *must_stop = &vcpu->guest->must_stop;
    uint64_t nth = atomic_load_explicit(&vcpu->writes, memory_order_relaxed);
    uint64_t done = 0;
    /* Relaxed: it only says "look at the state", which is under the lock. */
    while (done < count && !atomic_load_explicit(must_stop, memory_order_relaxed)) {
        uint64_t page = vcpu->first_page + gw_guest_pattern_page(vcpu, nth);
        if (!gw_guest_write(vcpu, page))
            return count;
        done++;
        atomic_store_explicit(&vcpu->writes, ++nth, memory_order_relaxed);
    }
    return done;
}

void gw_guest_step(struct gw_guest *guest, unsigned vcpu, uint64_t writes)
{
    bool stopped = atomic_exchange_explicit(&guest->must_stop, false, memory_order_relaxed);
    write_some(&guest->vcpus[vcpu], writes);
    atomic_store_explicit(&guest->must_stop, stopped, memory_order_relaxed);
}

/* ---- pacing: each returns when to go on, 0 for at once -------------------------------------------- */

static uint64_t run_unlimited(struct gw_guest_vcpu *vcpu, unsigned percent)
{
    uint64_t start = clock_ns();
    uint64_t now = start;
    while (now < start + TICK_NS && write_some(vcpu, LOOK_WRITES) == LOOK_WRITES)
        now = clock_ns();
    return percent ? now + (now - start) * percent / (100 - percent) : 0;
}

static uint64_t run_paced(struct gw_guest_vcpu *vcpu, unsigned percent)
{
    const struct gw_guest_config *config = &vcpu->guest->config;
    double per_s =
        (double)config->dirty_rate / GW_GUEST_PAGE / config->vcpus * (100 - percent) / 100;
    uint64_t now = clock_ns();
    if (!vcpu->origin_ns || percent != vcpu->paced_percent) {
        vcpu->origin_ns = now;
        vcpu->paced = 0;
        vcpu->paced_percent = percent;
    }
    uint64_t due = (uint64_t)((double)(now - vcpu->origin_ns) * per_s / NS_PER_S);
    uint64_t backlog = (uint64_t)(per_s * BACKLOG_S) + 1;
    if (due > vcpu->paced + backlog) {
        vcpu->origin_ns = now;
        vcpu->paced = 0;
        due = 0;
    }
    if (due > vcpu->paced)
        vcpu->paced += write_some(vcpu, due - vcpu->paced);
    uint64_t next = vcpu->origin_ns + (uint64_t)((double)(vcpu->paced + 1) / per_s * NS_PER_S);
    return next > now + TICK_NS ? next : now + TICK_NS;
}

static uint64_t run_writes(struct gw_guest_vcpu *vcpu, unsigned percent)
{
    const struct gw_guest *guest = vcpu->guest;
    if (guest->config.dirty_rate == 0)
        return NEVER_NS;
    if (guest->config.dirty_rate == GW_GUEST_RATE_MAX)
        return run_unlimited(vcpu, percent);
    return run_paced(vcpu, percent);
}

/* A turn at the disk each tick, fewer if it is throttled. */
static uint64_t run_disk(struct gw_guest_vcpu *vcpu, unsigned percent)
{
    struct gw_guest_disk *disk = vcpu->guest->disk;
    if (!disk || vcpu->index >= GW_GUEST_DISK_QUEUES)
        return NEVER_NS;
    uint64_t now = clock_ns();
    if (now < vcpu->disk_ns)
        return vcpu->disk_ns;
    gw_guest_disk_turn(disk, vcpu->index);
    vcpu->disk_ns = now + TICK_NS * 100 / (100 - percent);
    return vcpu->disk_ns;
}

static uint64_t run_some(struct gw_guest_vcpu *vcpu)
{
    unsigned percent = atomic_load_explicit(&vcpu->guest->throttle_percent, memory_order_relaxed);
    uint64_t writes_ns = run_writes(vcpu, percent);
    uint64_t disk_ns = run_disk(vcpu, percent);
    return disk_ns < writes_ns ? disk_ns : writes_ns;
}

/* ---- the thread ------------------------------------------------------------------------------ */

static void publish_usage(struct gw_guest_vcpu *vcpu)
{
    struct rusage usage;
    getrusage(RUSAGE_THREAD, &usage);
    uint64_t user =
        (uint64_t)usage.ru_utime.tv_sec * NS_PER_S + (uint64_t)usage.ru_utime.tv_usec * 1000;
    uint64_t system =
        (uint64_t)usage.ru_stime.tv_sec * NS_PER_S + (uint64_t)usage.ru_stime.tv_usec * 1000;
    atomic_store_explicit(&vcpu->user_ns, user, memory_order_relaxed);
    atomic_store_explicit(&vcpu->system_ns, system, memory_order_relaxed);
}

static void sleep_until_locked(struct gw_guest *guest, uint64_t wake_ns)
{
    struct timespec at = {.tv_sec = (time_t)(wake_ns / NS_PER_S),
                          .tv_nsec = (long)(wake_ns % NS_PER_S)};
    if (wake_ns == NEVER_NS)
        pthread_cond_wait(&guest->state_changed, &guest->state_lock);
    else /* woken early is as good: pacing goes by the clock */
        pthread_cond_timedwait(&guest->state_changed, &guest->state_lock, &at);
}

static void park_locked(struct gw_guest_vcpu *vcpu)
{
    struct gw_guest *guest = vcpu->guest;
    publish_usage(vcpu);
    guest->parked++;
    pthread_cond_broadcast(&guest->vcpu_parked);
    while (guest->state == GW_GUEST_PAUSED)
        pthread_cond_wait(&guest->state_changed, &guest->state_lock);
    guest->parked--;
    vcpu->origin_ns = 0; /* time that stood still owes no writes */
}

static void *vcpu_main(void *arg)
{
    struct gw_guest_vcpu *vcpu = arg;
    struct gw_guest *guest = vcpu->guest;
    uint64_t usage_due_ns = 0;
    pthread_mutex_lock(&guest->state_lock);
    while (guest->state != GW_GUEST_ENDING) {
        if (guest->state == GW_GUEST_PAUSED) {
            park_locked(vcpu);
            continue;
        }
        pthread_mutex_unlock(&guest->state_lock);
        uint64_t wake_ns = run_some(vcpu);
        uint64_t now = clock_ns();
        if (now >= usage_due_ns) {
            publish_usage(vcpu);
            usage_due_ns = now + USAGE_NS;
        }
        pthread_mutex_lock(&guest->state_lock);
        if (wake_ns > now && guest->state == GW_GUEST_RUNNING)
            sleep_until_locked(guest, wake_ns);
    }
    pthread_mutex_unlock(&guest->state_lock);
    return NULL;
}

/* ---- from outside ---------------------------------------------------------------------------- */

static void change_state_locked(struct gw_guest *guest, enum gw_guest_state state)
{
    guest->state = state;
    atomic_store_explicit(&guest->must_stop, state != GW_GUEST_RUNNING, memory_order_relaxed);
    pthread_cond_broadcast(&guest->state_changed);
}

static int start_in(struct gw_guest *guest, enum gw_guest_state state, struct gw_error *err)
{
    if (!guest->loaded)
        return gw_error_set(err, -EINVAL, GW_CODE_GUEST, "guest: its device state was not loaded");
    if (guest->threads)
        return gw_error_set(err, -EALREADY, GW_CODE_GUEST, "guest: it was started before");
    pthread_mutex_lock(&guest->state_lock);
    change_state_locked(guest, state);
    pthread_mutex_unlock(&guest->state_lock);
    while (guest->threads < guest->config.vcpus) {
        struct gw_guest_vcpu *vcpu = &guest->vcpus[guest->threads];
        int rc = -pthread_create(&vcpu->thread, NULL, vcpu_main, vcpu);
        if (rc < 0) {
            unsigned index = vcpu->index;
            gw_guest_vcpus_end(guest);
            gw_error_set(err, rc, GW_CODE_GUEST, "guest: vCPU %u of %u: no thread", index,
                         guest->config.vcpus);
            gw_error_hint(err, "fewer --vcpus, or more threads or memory for this process");
            return rc;
        }
        pthread_setname_np(vcpu->thread, "vcpu");
        guest->threads++;
    }
    return 0;
}

int gw_guest_start(struct gw_guest *guest, struct gw_error *err)
{
    return start_in(guest, GW_GUEST_RUNNING, err);
}

int gw_guest_start_paused(struct gw_guest *guest, struct gw_error *err)
{
    return start_in(guest, GW_GUEST_PAUSED, err);
}

void gw_guest_pause(struct gw_guest *guest)
{
    pthread_mutex_lock(&guest->state_lock);
    if (guest->state == GW_GUEST_RUNNING)
        change_state_locked(guest, GW_GUEST_PAUSED);
    while (guest->state == GW_GUEST_PAUSED && guest->parked < guest->threads)
        pthread_cond_wait(&guest->vcpu_parked, &guest->state_lock);
    pthread_mutex_unlock(&guest->state_lock);
}

void gw_guest_resume(struct gw_guest *guest)
{
    pthread_mutex_lock(&guest->state_lock);
    if (guest->disk && guest->state == GW_GUEST_PAUSED)
        gw_guest_disk_resumed(guest->disk);
    if (guest->state == GW_GUEST_PAUSED)
        change_state_locked(guest, GW_GUEST_RUNNING);
    pthread_mutex_unlock(&guest->state_lock);
}

void gw_guest_throttle(struct gw_guest *guest, unsigned percent)
{
    atomic_store_explicit(&guest->throttle_percent, percent < 99 ? percent : 99,
                          memory_order_relaxed);
}

void gw_guest_vcpus_end(struct gw_guest *guest)
{
    pthread_mutex_lock(&guest->state_lock);
    change_state_locked(guest, GW_GUEST_ENDING);
    pthread_mutex_unlock(&guest->state_lock);
    while (guest->threads)
        pthread_join(guest->vcpus[--guest->threads].thread, NULL);
}
