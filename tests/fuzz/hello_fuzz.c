// SPDX-License-Identifier: MIT
/* Hello: its fields, and the judgement of both sides. Fields that are unknown, empty or zero are not
 * written again, so bytes repeat from the second time on. What a target answers, the source that
 * asked accepts: else the two would part over a hello that both sides call good. */
#include "control/codec.h"
#include "control/handshake.h"
#include "core/base/clock.h"
#include "tests/fuzz/fuzz.h"

static void twice(const struct gw_hello *hello)
{
    uint8_t first[GW_MESSAGE_HEAD_BYTES_MAX], second[GW_MESSAGE_HEAD_BYTES_MAX];
    struct gw_error err = GW_ERROR_INIT;
    struct gw_hello again;
    size_t bytes = gw_hello_encode(hello, first);
    FUZZ_MUST(bytes <= GW_MESSAGE_HEAD_BYTES_MAX - GW_MESSAGE_HEADER_BYTES);
    FUZZ_MUST(gw_hello_decode(first, bytes, &again, &err) == 0);
    FUZZ_MUST(gw_hello_encode(&again, second) == bytes && memcmp(first, second, bytes) == 0);
}

/* The limits of a target as the engine fills them in; the input's first byte varies them. */
static struct gw_hello target_of(uint8_t variant)
{
    struct gw_hello ours = {
        .version_min = 1,
        .version_max = variant & 1 ? 3 : 1,
        .page_bytes = 4096,
        .endpoints = variant & 2 ? 255 : 1,
        .message_payload_max = GW_PAYLOAD_BYTES_MAX,
        .blocks_max = 65536,
        .ram_bytes_max = variant & 4 ? UINT64_MAX : UINT64_C(1) << 40,
        .section_bytes_max = UINT64_C(32) << 20,
        .memlock_bytes = UINT64_MAX,
        .peer_timeout_ns = 2 * GW_NS_PER_S,
        .settle_timeout_ns = 30 * GW_NS_PER_S,
        .hold_timeout_ns = 30 * GW_NS_PER_S,
        .device_timeout_ns = 60 * GW_NS_PER_S,
        .incarnation = 7,
        .agent = "godwit",
    };
    if (variant & 8)
        snprintf(ours.machine, sizeof(ours.machine), "godwit");
    return ours;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_hello theirs, reply;
    struct fuzz_input in = {data, bytes};
    struct gw_hello ours = target_of(fuzz_u8(&in));
    int rc = gw_hello_decode(in.at, in.left, &theirs, &err);
    if (rc < 0) {
        fuzz_refused(rc, &err);
        return 0;
    }
    twice(&theirs);
    rc = gw_hello_answer(&ours, &theirs, &reply, &err);
    if (rc < 0) {
        fuzz_refused(rc, &err);
    } else {
        twice(&reply);
        rc = gw_hello_accept(&theirs, &reply, &err);
        if (rc < 0)
            fprintf(stderr, "the source refuses: %s\n", err.message);
        FUZZ_MUST(rc == 0);
    }
    /* The same bytes as a reply, to a source that is content with much. */
    gw_error_clear(&err);
    rc = gw_hello_accept(&ours, &theirs, &err);
    if (rc < 0)
        fuzz_refused(rc, &err);
    return 0;
}
