// SPDX-License-Identifier: MIT
/* The library's allocator: calloc with overflow check, counters of what lives and of the most that
 * ever did, and a countdown by which a test makes one allocation fail. */
#include "core/base/alloc.h"

#include <malloc.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static atomic_int_fast64_t fail_countdown = -1;
static atomic_int_fast64_t live;
static atomic_int_fast64_t live_bytes, peak_bytes; /* relaxed: counters on their own */

static void count(int64_t bytes)
{
    int64_t now = atomic_fetch_add_explicit(&live_bytes, bytes, memory_order_relaxed) + bytes;
    int64_t peak = atomic_load_explicit(&peak_bytes, memory_order_relaxed);
    while (now > peak && !atomic_compare_exchange_weak_explicit(
                             &peak_bytes, &peak, now, memory_order_relaxed, memory_order_relaxed)) {
    }
}

static bool must_fail(void)
{
    /* Relaxed: a test arms it before the threads that allocate exist. */
    if (atomic_load_explicit(&fail_countdown, memory_order_relaxed) < 0)
        return false;
    return atomic_fetch_sub_explicit(&fail_countdown, 1, memory_order_relaxed) == 0;
}

void *gw_zalloc(size_t elements, size_t bytes)
{
    if (must_fail())
        return NULL;
    void *memory = calloc(elements ? elements : 1, bytes ? bytes : 1);
    if (memory) {
        atomic_fetch_add_explicit(&live, 1, memory_order_relaxed);
        count((int64_t)malloc_usable_size(memory));
    }
    return memory;
}

void *gw_realloc(void *old, size_t elements, size_t bytes)
{
    if (must_fail())
        return NULL;
    int64_t before = old ? (int64_t)malloc_usable_size(old) : 0;
    void *memory = reallocarray(old, elements ? elements : 1, bytes ? bytes : 1);
    if (memory && !old)
        atomic_fetch_add_explicit(&live, 1, memory_order_relaxed);
    if (memory)
        count((int64_t)malloc_usable_size(memory) - before);
    return memory;
}

char *gw_strdup(const char *text)
{
    size_t bytes = strlen(text) + 1;
    char *copy = gw_zalloc(1, bytes);
    if (copy)
        memcpy(copy, text, bytes);
    return copy;
}

void gw_free(void *memory)
{
    if (memory) {
        atomic_fetch_sub_explicit(&live, 1, memory_order_relaxed);
        count(-(int64_t)malloc_usable_size(memory));
    }
    free(memory);
}

void gw_alloc_fail_after(int64_t countdown)
{
    atomic_store_explicit(&fail_countdown, countdown, memory_order_relaxed);
}

int64_t gw_alloc_live(void)
{
    return atomic_load_explicit(&live, memory_order_relaxed);
}

int64_t gw_alloc_peak(void)
{
    return atomic_load_explicit(&peak_bytes, memory_order_relaxed);
}

void gw_alloc_peak_reset(void)
{
    atomic_store_explicit(&peak_bytes, atomic_load_explicit(&live_bytes, memory_order_relaxed),
                          memory_order_relaxed);
}
