/* SPDX-License-Identifier: MIT */
/* ram/zero.h - is a page all zero? By the widest loads of this CPU, chosen at the first call. */
#ifndef GW_RAM_ZERO_H
#define GW_RAM_ZERO_H

#include <stdbool.h>
#include <stdint.h>

/* @page: GW_PAGE_BYTES, aligned to 64 bytes. A page that is not zero near its start costs one cache
 * line. The guest may write meanwhile: then the answer is about some mix of before and after, and the
 * write is the dirty source's to report. */
bool gw_page_is_zero(const void *page);

/* How many of @pages from @memory on are alike: all zero (@zero is set) or none of them. 1..@pages;
 * cuts a run into the pieces that are sent differently. */
uint32_t gw_zero_alike(const void *memory, uint32_t pages, bool *zero);

enum gw_zero_variant { GW_ZERO_SCALAR, GW_ZERO_SSE2, GW_ZERO_AVX2, GW_ZERO_AVX512 };
#define GW_ZERO_VARIANTS 4

enum gw_zero_variant gw_zero_variant(void); /* the one in use */
const char *gw_zero_variant_name(enum gw_zero_variant variant);
/* For tests and benchmarks: use @variant from now on. False: this CPU (or build) lacks it. */
bool gw_zero_force(enum gw_zero_variant variant);

#endif
