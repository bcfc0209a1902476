// SPDX-License-Identifier: MIT
/* The zero test: every variant against memcmp, with the one byte that matters at every position. */
#include "ram/block.h"
#include "ram/zero.h"
#include "tests/shim/gw_test.h"

#include <stdlib.h>
#include <string.h>

#define PAGE UINT64_C(4096)

static const char *const variants[] = {"scalar", "sse2", "avx2", "avx512", NULL};

static void use(const char *name)
{
    for (int v = 0; v < GW_ZERO_VARIANTS; v++) {
        if (strcmp(gw_zero_variant_name((enum gw_zero_variant)v), name) == 0) {
            if (!gw_zero_force((enum gw_zero_variant)v))
                GW_SKIP("this CPU has no %s", name);
            GW_EXPECT_EQ(gw_zero_variant(), v);
        }
    }
}

static bool is_zero_by_memcmp(const void *page)
{
    static const char zeros[PAGE];
    return memcmp(page, zeros, PAGE) == 0;
}

GW_TEST_EACH(zero, one_byte_anywhere_is_seen, variants)
{
    use(param);
    unsigned char *page = aligned_alloc(PAGE, PAGE);
    memset(page, 0, PAGE);
    GW_EXPECT(gw_page_is_zero(page));
    srandom(7);
    for (unsigned at = 0; at < PAGE; at++) {
        page[at] = (unsigned char)(1 + random() % 255);
        if (gw_page_is_zero(page))
            GW_NOTE_FAILURE("byte %u is not seen", at);
        page[at] = 0x80;
        if (gw_page_is_zero(page))
            GW_NOTE_FAILURE("the top bit of byte %u is not seen", at);
        page[at] = 0;
    }
    GW_EXPECT(gw_page_is_zero(page));
    free(page);
}

GW_TEST_EACH(zero, agrees_with_memcmp_on_random_pages, variants)
{
    use(param);
    const unsigned pages = 64;
    unsigned char *memory = aligned_alloc(PAGE, pages * PAGE);
    srandom(11);
    for (unsigned round = 0; round < 200; round++) {
        memset(memory, 0, pages * PAGE);
        for (unsigned i = 0; i < pages; i++) {
            if (random() % 2)
                memory[i * PAGE + (unsigned)random() % PAGE] = 1;
            if (random() % 8 == 0)
                memset(memory + (size_t)i * PAGE, 0xa5, PAGE);
        }
        for (unsigned i = 0; i < pages; i++) {
            const unsigned char *page = memory + (size_t)i * PAGE;
            GW_EXPECT_EQ(gw_page_is_zero(page), is_zero_by_memcmp(page));
        }
        for (uint32_t at = 0; at < pages;) {
            bool zero;
            uint32_t alike = gw_zero_alike(memory + (size_t)at * PAGE, pages - at, &zero);
            GW_ASSERT(alike >= 1 && alike <= pages - at);
            for (uint32_t i = 0; i < alike; i++)
                GW_EXPECT_EQ(is_zero_by_memcmp(memory + (size_t)(at + i) * PAGE), zero);
            at += alike;
            if (at < pages)
                GW_EXPECT_NE(is_zero_by_memcmp(memory + (size_t)at * PAGE), zero);
        }
    }
    free(memory);
}

GW_TEST_EACH(zero, looks_at_its_page_and_not_beyond, variants)
{
    use(param);
    unsigned char *memory = aligned_alloc(PAGE, 3 * PAGE);
    memset(memory, 0xff, 3 * PAGE);
    memset(memory + PAGE, 0, PAGE);
    GW_EXPECT(gw_page_is_zero(memory + PAGE));
    free(memory);
}

GW_TEST(zero, the_widest_variant_there_is_is_chosen)
{
    enum gw_zero_variant chosen = gw_zero_variant();
    for (int v = GW_ZERO_AVX512; v > (int)chosen; v--)
        GW_EXPECT(!gw_zero_force((enum gw_zero_variant)v));
    GW_EXPECT(gw_zero_force(chosen));
}
