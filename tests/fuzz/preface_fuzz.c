// SPDX-License-Identifier: MIT
/* The 32 bytes that open a connection and the 32 that answer them. What decodes encodes to the same
 * bytes; an answer that is accepted is the one that its encoder makes. */
#include "tests/fuzz/fuzz.h"
#include "transport/preface.h"

static void answer(const struct gw_preface *preface, const uint8_t *bytes)
{
    struct gw_error err = GW_ERROR_INIT;
    uint8_t again[GW_PREFACE_BYTES];
    int rc = gw_answer_check(preface, bytes, &err);
    if (rc < 0) {
        fuzz_refused(rc, &err);
        return;
    }
    FUZZ_MUST(rc == 0);
    gw_answer_encode(preface, GW_ADMIT_OK, again);
    FUZZ_MUST(memcmp(again, bytes, sizeof(again)) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct gw_preface preface = {.version = GW_PREFACE_VERSION};
    uint8_t again[GW_PREFACE_BYTES];
    if (bytes < GW_PREFACE_BYTES)
        return 0;
    int rc = gw_preface_decode(data, &preface);
    FUZZ_MUST(rc == 0 || rc == -EPROTO || rc == -EPROTONOSUPPORT);
    if (rc == 0) {
        gw_preface_encode(&preface, again);
        FUZZ_MUST(memcmp(again, data, sizeof(again)) == 0);
    }
    preface.version = GW_PREFACE_VERSION; /* as whoever asks has sent it */
    FUZZ_MUST(gw_security_name(preface.security)[0] != '\0');
    /* The second half, if there is one, answers the first; else it answers itself. */
    answer(&preface, bytes < 2 * GW_PREFACE_BYTES ? data : data + GW_PREFACE_BYTES);
    return 0;
}
