/* SPDX-License-Identifier: MIT */
/* tests/fuzz/fuzz.h - what the fuzz targets share. A target is one `<name>_fuzz.c` that defines
 * LLVMFuzzerTestOneInput(): libFuzzer drives it in preset fuzz, corpus_main.c drives it over the corpus
 * everywhere else. A broken property aborts, so that both of them see it. */
#ifndef GW_TEST_FUZZ_H
#define GW_TEST_FUZZ_H

#include "core/base/error.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

#define FUZZ_MUST(claim)                                                                           \
    do {                                                                                           \
        if (!(claim)) {                                                                            \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #claim);             \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* A refusal says what was wrong, in whole: rc, code, a sentence. */
static inline void fuzz_refused(int rc, const struct gw_error *err)
{
    FUZZ_MUST(rc < 0);
    FUZZ_MUST(err->rc == rc && err->code != GW_CODE_NONE && err->code != GW_CODE_INTERNAL);
    FUZZ_MUST(err->message[0] != '\0');
}

/* Bytes of the input, taken from its front; zeros when it is used up. */
struct fuzz_input {
    const uint8_t *at;
    size_t left;
};

static inline uint8_t fuzz_u8(struct fuzz_input *in)
{
    if (in->left == 0)
        return 0;
    in->left--;
    return *in->at++;
}

static inline uint32_t fuzz_u32(struct fuzz_input *in)
{
    uint32_t value = 0;
    for (int i = 0; i < 4; i++)
        value = value << 8 | fuzz_u8(in);
    return value;
}

static inline uint64_t fuzz_u64(struct fuzz_input *in)
{
    uint64_t high = fuzz_u32(in);
    return high << 32 | fuzz_u32(in);
}

/* At most @bytes of it. */
static inline struct fuzz_input fuzz_piece(struct fuzz_input *in, size_t bytes)
{
    struct fuzz_input piece = {.at = in->at, .left = bytes < in->left ? bytes : in->left};
    in->at += piece.left;
    in->left -= piece.left;
    return piece;
}

#endif
