// SPDX-License-Identifier: MIT
/* xbzrle: any code is applied whole or not at all; any two pages encode to a code that turns one into the
 * other, and that is the shortest way that runs allow: encoding twice gives the same. */
#include "ram/inline.h"
#include "tests/fuzz/fuzz.h"

#define PAGE 4096u

static void decode(const uint8_t *data, size_t bytes)
{
    uint8_t page[PAGE] = {0}, zero[PAGE] = {0}, again[PAGE];
    int judged = gw_xbzrle_decode(data, bytes, NULL, PAGE);
    int rc = gw_xbzrle_decode(data, bytes, page, PAGE);
    FUZZ_MUST(rc == judged);
    if (rc < 0)
        FUZZ_MUST(memcmp(page, zero, PAGE) == 0);
    memcpy(again, page, PAGE);
    FUZZ_MUST(gw_xbzrle_decode(data, bytes, again, PAGE) == rc);
    FUZZ_MUST(memcmp(page, again, PAGE) == 0); /* it sets bytes, it does not add */
}

static void encode(const uint8_t *data, size_t bytes)
{
    uint8_t before[PAGE], after[PAGE], code[PAGE], page[PAGE];
    for (size_t i = 0; i < PAGE; i++) {
        before[i] = bytes ? data[i % bytes] : 0;
        after[i] = bytes ? data[(i * 7 + i / 64) % bytes] : 0;
    }
    int used = gw_xbzrle_encode(before, after, PAGE, code, PAGE);
    memcpy(page, before, PAGE);
    if (used > 0)
        FUZZ_MUST(gw_xbzrle_decode(code, (size_t)used, page, PAGE) == 0);
    if (used >= 0)
        FUZZ_MUST(memcmp(page, after, PAGE) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    decode(data, bytes);
    encode(data, bytes);
    return 0;
}
