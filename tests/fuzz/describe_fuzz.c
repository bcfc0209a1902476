// SPDX-License-Identifier: MIT
/* A description and a body, a NUL between them: reading, measuring and walking end, stay within both, and
 * refuse with a sentence. */
#include "control/stream_describe.h"
#include "tests/fuzz/fuzz.h"

struct walk {
    uint64_t end, bytes;
};

static int take_field(void *ctx, const struct gw_described_field *field)
{
    struct walk *walk = ctx;
    FUZZ_MUST(field->offset >= walk->end); /* in order, never overlapping */
    FUZZ_MUST(field->offset + field->bytes <= walk->bytes);
    walk->end = field->offset + field->bytes;
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_description *d = NULL;
    size_t at = 0;
    const uint8_t *nul = memchr(data, 0, bytes);
    size_t text_bytes = nul ? (size_t)(nul - data) : bytes;
    size_t body_bytes = nul ? bytes - text_bytes - 1 : 0;
    int rc = gw_description_new((const char *)data, text_bytes, &d, &at, &err);
    if (rc < 0) {
        FUZZ_MUST(at <= text_bytes);
        fuzz_refused(rc, &err);
        return 0;
    }
    for (unsigned i = 0; i < gw_description_count(d) && i < 8; i++) {
        struct walk walk = {.bytes = body_bytes};
        uint64_t measured = 0;
        const struct gw_described_device *device = gw_description_device(d, i);
        FUZZ_MUST(gw_description_find(d, device->idstr, device->instance_id, i) == (int)i);
        rc = gw_description_measure(d, i, &measured, &err);
        if (rc < 0)
            fuzz_refused(rc, &err);
        rc = gw_description_walk(d, i, nul ? nul + 1 : (const uint8_t *)"", body_bytes, take_field,
                                 &walk, &at, &err);
        FUZZ_MUST(at <= body_bytes);
        if (rc < 0)
            fuzz_refused(rc, &err);
        else
            FUZZ_MUST(measured == body_bytes);
    }
    gw_description_free(d);
    return 0;
}
