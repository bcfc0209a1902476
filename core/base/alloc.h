/* SPDX-License-Identifier: MIT */
/* core/base/alloc.h - the library's only allocator, so that a test can make the nth one fail. */
#ifndef GW_BASE_ALLOC_H
#define GW_BASE_ALLOC_H

#include <stddef.h>
#include <stdint.h>

/* Zeroed; NULL if out of memory or count * bytes overflows. */
void *gw_zalloc(size_t count, size_t bytes);
/* Grow to @count elements; old content kept, the new tail is not cleared. NULL: @old is as it was. */
void *gw_realloc(void *old, size_t count, size_t bytes);
char *gw_strdup(const char *text);
void gw_free(void *memory); /* takes NULL */

/* For tests: fail the allocation after @countdown successful ones, once; negative: never. */
void gw_alloc_fail_after(int64_t countdown);
/* For tests: allocations that live now. */
int64_t gw_alloc_live(void);
/* For tests: the most bytes that lived at once since the last reset, and what lives counts from then. */
int64_t gw_alloc_peak(void);
void gw_alloc_peak_reset(void);

#endif
