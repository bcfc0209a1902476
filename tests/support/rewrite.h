/* SPDX-License-Identifier: MIT */
/* tests/support/rewrite.h - a savevm stream read item by item and written again, RAM records included: by the
 * library's readers and writers, which must give the same bytes. A device's body is copied. */
#ifndef GW_TEST_REWRITE_H
#define GW_TEST_REWRITE_H

#include "control/stream.h"

struct rewritten {
    struct gw_writer w;
    unsigned sections; /* START and FULL */
    unsigned commands, packages;
    unsigned page_sizes;           /* blocks that say what pages are behind them */
    uint64_t zero, pages, changes; /* records */
};

/* @with_contents: no page was blanked since the stream was recorded; the code of a changed page is then made
 * from the two pages, and not copied. Asserts that the stream can be read and written. */
void rewrite_stream(const uint8_t *data, size_t bytes, bool with_contents, struct rewritten *out);
void rewritten_fini(struct rewritten *out);
/* Are they the bytes of @data? Notes where they are not. */
bool rewritten_equals(const struct rewritten *out, const uint8_t *data, size_t bytes);

#endif
