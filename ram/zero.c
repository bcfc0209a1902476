// SPDX-License-Identifier: MIT
/* The zero test of a page: or wide words together, 256 bytes at a time, and stop at the first group
 * that is not zero; the very first line is looked at alone, so that a page of random bytes costs one
 * cache miss. The variant is looked up once from what the CPU has; every variant gives the same
 * answers, and a CPU without vectors gets 64-bit words.
 *
 * Guest memory is read here while the guest may write it. That is meant: the page was re-armed
 * before, so the write is reported; the thread sanitizer is told not to look. */
#include "ram/zero.h"

#include "ram/block.h"

#include <stdatomic.h>
#include <stddef.h>

#define RACY __attribute__((no_sanitize("thread")))
/* The hardware's prefetcher stops at the end of each 4 KiB page: ask for the next one by hand. */
#define AHEAD 1024

typedef bool page_fn(const void *page);

RACY static bool page_scalar(const void *page)
{
    const uint64_t *word = page;
    const uint64_t *end = word + GW_PAGE_BYTES / sizeof(*word);
    for (; word < end; word += 8) {
        if (word[0] | word[1] | word[2] | word[3] | word[4] | word[5] | word[6] | word[7])
            return false;
    }
    return true;
}

#if defined(__x86_64__)
#include <immintrin.h>

RACY static bool page_sse2(const void *page)
{
    const __m128i *v = page;
    const __m128i *end = v + GW_PAGE_BYTES / sizeof(*v);
    const __m128i zero = _mm_setzero_si128();
    __m128i any = _mm_or_si128(_mm_or_si128(v[0], v[1]), _mm_or_si128(v[2], v[3]));
    if (_mm_movemask_epi8(_mm_cmpeq_epi8(any, zero)) != 0xffff)
        return false;
    for (; v < end; v += 16) {
        _mm_prefetch((const char *)v + AHEAD, _MM_HINT_T0);
        _mm_prefetch((const char *)v + AHEAD + 64, _MM_HINT_T0);
        _mm_prefetch((const char *)v + AHEAD + 128, _MM_HINT_T0);
        _mm_prefetch((const char *)v + AHEAD + 192, _MM_HINT_T0);
        __m128i a = _mm_or_si128(_mm_or_si128(v[0], v[1]), _mm_or_si128(v[2], v[3]));
        __m128i b = _mm_or_si128(_mm_or_si128(v[4], v[5]), _mm_or_si128(v[6], v[7]));
        __m128i c = _mm_or_si128(_mm_or_si128(v[8], v[9]), _mm_or_si128(v[10], v[11]));
        __m128i d = _mm_or_si128(_mm_or_si128(v[12], v[13]), _mm_or_si128(v[14], v[15]));
        any = _mm_or_si128(_mm_or_si128(a, b), _mm_or_si128(c, d));
        if (_mm_movemask_epi8(_mm_cmpeq_epi8(any, zero)) != 0xffff)
            return false;
    }
    return true;
}

RACY __attribute__((target("avx2"))) static bool page_avx2(const void *page)
{
    const __m256i *v = page;
    const __m256i *end = v + GW_PAGE_BYTES / sizeof(*v);
    __m256i any = _mm256_or_si256(v[0], v[1]);
    if (!_mm256_testz_si256(any, any))
        return false;
    for (; v < end; v += 8) {
        _mm_prefetch((const char *)v + AHEAD, _MM_HINT_T0);
        _mm_prefetch((const char *)v + AHEAD + 64, _MM_HINT_T0);
        _mm_prefetch((const char *)v + AHEAD + 128, _MM_HINT_T0);
        _mm_prefetch((const char *)v + AHEAD + 192, _MM_HINT_T0);
        __m256i a = _mm256_or_si256(_mm256_or_si256(v[0], v[1]), _mm256_or_si256(v[2], v[3]));
        __m256i b = _mm256_or_si256(_mm256_or_si256(v[4], v[5]), _mm256_or_si256(v[6], v[7]));
        any = _mm256_or_si256(a, b);
        if (!_mm256_testz_si256(any, any))
            return false;
    }
    return true;
}

RACY __attribute__((target("avx512f"))) static bool page_avx512(const void *page)
{
    const __m512i *v = page;
    const __m512i *end = v + GW_PAGE_BYTES / sizeof(*v);
    if (_mm512_test_epi64_mask(v[0], v[0]))
        return false;
    for (; v < end; v += 4) {
        _mm_prefetch((const char *)v + AHEAD, _MM_HINT_T0);
        _mm_prefetch((const char *)v + AHEAD + 64, _MM_HINT_T0);
        _mm_prefetch((const char *)v + AHEAD + 128, _MM_HINT_T0);
        _mm_prefetch((const char *)v + AHEAD + 192, _MM_HINT_T0);
        __m512i any = _mm512_or_si512(_mm512_or_si512(v[0], v[1]), _mm512_or_si512(v[2], v[3]));
        if (_mm512_test_epi64_mask(any, any))
            return false;
    }
    return true;
}
#endif

static page_fn *function_of(enum gw_zero_variant variant)
{
    switch (variant) {
    case GW_ZERO_SCALAR:
        return page_scalar;
#if defined(__x86_64__)
    case GW_ZERO_SSE2:
        return page_sse2;
    case GW_ZERO_AVX2:
        return __builtin_cpu_supports("avx2") ? page_avx2 : NULL;
    case GW_ZERO_AVX512:
        return __builtin_cpu_supports("avx512f") ? page_avx512 : NULL;
#endif
    default:
        return NULL;
    }
}

static bool page_first_call(const void *page);

/* Relaxed: whichever thread looks it up finds the same function, and nothing else hangs on it. */
static _Atomic(page_fn *) page_chosen = page_first_call;

static bool page_first_call(const void *page)
{
    int variant = GW_ZERO_AVX512;
    while (!gw_zero_force((enum gw_zero_variant)variant))
        variant--;
    return atomic_load_explicit(&page_chosen, memory_order_relaxed)(page);
}

bool gw_zero_force(enum gw_zero_variant variant)
{
    page_fn *function = function_of(variant);
    if (!function)
        return false;
    atomic_store_explicit(&page_chosen, function, memory_order_relaxed);
    return true;
}

enum gw_zero_variant gw_zero_variant(void)
{
    static const uint64_t line[GW_PAGE_BYTES / 8] __attribute__((aligned(64)));
    gw_page_is_zero(line); /* chosen from here on */
    page_fn *function = atomic_load_explicit(&page_chosen, memory_order_relaxed);
    int variant = GW_ZERO_AVX512;
    while (variant > GW_ZERO_SCALAR && function_of((enum gw_zero_variant)variant) != function)
        variant--;
    return (enum gw_zero_variant)variant;
}

const char *gw_zero_variant_name(enum gw_zero_variant variant)
{
    static const char *const names[GW_ZERO_VARIANTS] = {"scalar", "sse2", "avx2", "avx512"};
    return names[variant];
}

bool gw_page_is_zero(const void *page)
{
    return atomic_load_explicit(&page_chosen, memory_order_relaxed)(page);
}

uint32_t gw_zero_alike(const void *memory, uint32_t pages, bool *zero)
{
    page_fn *is_zero = atomic_load_explicit(&page_chosen, memory_order_relaxed);
    const char *page = memory;
    bool first = is_zero(page);
    uint32_t alike = 1;
    while (alike < pages && is_zero(page + (size_t)alike * GW_PAGE_BYTES) == first)
        alike++;
    *zero = first;
    return alike;
}
