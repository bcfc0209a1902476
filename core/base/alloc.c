// SPDX-License-Identifier: MIT
/* The library's allocator: calloc with overflow check, a counter of what lives, and a countdown
 * by which a test makes one allocation fail. */
#include "core/base/alloc.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static atomic_int_fast64_t fail_countdown = -1;
static atomic_int_fast64_t live;

static bool must_fail(void)
{
    /* Relaxed: a test arms it before the threads that allocate exist. */
    if (atomic_load_explicit(&fail_countdown, memory_order_relaxed) < 0)
        return false;
    return atomic_fetch_sub_explicit(&fail_countdown, 1, memory_order_relaxed) == 0;
}

void *gw_zalloc(size_t count, size_t bytes)
{
    if (must_fail())
        return NULL;
    void *memory = calloc(count ? count : 1, bytes ? bytes : 1);
    if (memory)
        atomic_fetch_add_explicit(&live, 1, memory_order_relaxed);
    return memory;
}

void *gw_realloc(void *old, size_t count, size_t bytes)
{
    if (must_fail())
        return NULL;
    void *memory = reallocarray(old, count ? count : 1, bytes ? bytes : 1);
    if (memory && !old)
        atomic_fetch_add_explicit(&live, 1, memory_order_relaxed);
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
    if (memory)
        atomic_fetch_sub_explicit(&live, 1, memory_order_relaxed);
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
