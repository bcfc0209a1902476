// SPDX-License-Identifier: MIT
/* Hello: what the target grants, and what the source accepts. The source's parameters rule where
 * any value works; the target lowers what only costs speed (endpoints), raises what only costs
 * patience (settle and hold time), and refuses the rest with a sentence that holds both sides'
 * values. */
#include "control/handshake.h"

#include "core/base/bytes.h"
#include "core/base/clock.h"

#include <inttypes.h>
#include <string.h>

#define PAYLOAD_BYTES_MIN 4096u
#define STRIPE_PAGES 512u
#define STRIPE_BYTES_MAX (UINT64_C(1) << 40)
#define PEER_TIMEOUT_NS_MIN (10 * GW_NS_PER_MS)
#define TIMEOUT_NS_MAX                                                                             \
    (UINT64_C(30) * 24 * 3600 * GW_NS_PER_S) /* 30 days: now + timeout never wraps */
#define FLAGS_KNOWN (GW_HELLO_DIGEST | GW_HELLO_DEVICES)

static int unsupported(struct gw_error *err, const char *hint)
{
    gw_error_hint(err, "%s", hint);
    return -EPROTONOSUPPORT;
}

/* What makes no sense whoever says it. */
static int check_versions(const struct gw_hello *hello, const char *who, struct gw_error *err)
{
    if (hello->version_min == 0 || hello->version_min > hello->version_max)
        return gw_fail(err, -EPROTO, "%s speaks protocol versions %" PRIu32 " to %" PRIu32, who,
                       hello->version_min, hello->version_max);
    return 0;
}

static int check_timeout(uint64_t ns, uint64_t min_ns, const char *who, const char *what,
                         struct gw_error *err)
{
    if (ns >= min_ns && ns <= TIMEOUT_NS_MAX)
        return 0;
    return gw_fail(err, -EPROTO,
                   "%s has a %s of %" PRIu64 " ns, allowed are %" PRIu64 " to %" PRIu64, who, what,
                   ns, min_ns, (uint64_t)TIMEOUT_NS_MAX);
}

static int check_timeouts(const struct gw_hello *hello, const char *who, struct gw_error *err)
{
    int rc = check_timeout(hello->peer_timeout_ns, PEER_TIMEOUT_NS_MIN, who, "peer time-out", err);
    if (rc == 0)
        rc = check_timeout(hello->settle_timeout_ns, 0, who, "settle time-out", err);
    if (rc == 0)
        rc = check_timeout(hello->hold_timeout_ns, 0, who, "hold time-out", err);
    if (rc == 0)
        rc = check_timeout(hello->device_timeout_ns, 0, who, "device time-out", err);
    return rc;
}

static int check_payload(const struct gw_hello *hello, const char *who, struct gw_error *err)
{
    if (hello->message_payload_max >= PAYLOAD_BYTES_MIN)
        return 0;
    return gw_fail(err, -EPROTO, "%s takes messages of %" PRIu32 " bytes, at least %u are needed",
                   who, hello->message_payload_max, PAYLOAD_BYTES_MIN);
}

static int check_shape(const struct gw_hello *theirs, struct gw_error *err)
{
    if (theirs->endpoints == 0)
        return gw_fail(err, -EPROTO, "source has no page endpoints");
    uint64_t unit = (uint64_t)theirs->page_bytes * STRIPE_PAGES;
    if (theirs->stripe_bytes == 0 || theirs->stripe_bytes % unit != 0 ||
        theirs->stripe_bytes > STRIPE_BYTES_MAX)
        return gw_fail(err, -EPROTO,
                       "source has stripes of %" PRIu64 " bytes, must be a multiple of %" PRIu64
                       " and at most %" PRIu64,
                       theirs->stripe_bytes, unit, STRIPE_BYTES_MAX);
    if (theirs->ram_bytes % theirs->page_bytes != 0)
        return gw_fail(err, -EPROTO,
                       "source has %" PRIu64 " bytes of RAM, not a number of pages of %" PRIu32,
                       theirs->ram_bytes, theirs->page_bytes);
    return 0;
}

/* ---- the pair -------------------------------------------------------------------------------- */

static int agree_version(const struct gw_hello *ours, const struct gw_hello *theirs,
                         uint32_t *version, struct gw_error *err)
{
    uint32_t newest =
        ours->version_max < theirs->version_max ? ours->version_max : theirs->version_max;
    if (newest < ours->version_min || newest < theirs->version_min) {
        gw_fail_code(err, -EPROTONOSUPPORT, GW_CODE_UNSUPPORTED,
                     "source speaks protocol versions %" PRIu32 " to %" PRIu32 ", target %" PRIu32
                     " to %" PRIu32,
                     theirs->version_min, theirs->version_max, ours->version_min,
                     ours->version_max);
        return unsupported(err, "update the older side");
    }
    *version = newest;
    return 0;
}

static int check_pages_and_flags(const struct gw_hello *ours, const struct gw_hello *theirs,
                                 struct gw_error *err)
{
    if (theirs->page_bytes != ours->page_bytes)
        return gw_fail_code(err, -EPROTONOSUPPORT, GW_CODE_UNSUPPORTED,
                            "source has pages of %" PRIu32 " bytes, target of %" PRIu32,
                            theirs->page_bytes, ours->page_bytes);
    if (theirs->flags & ~FLAGS_KNOWN)
        return gw_fail_code(err, -EPROTONOSUPPORT, GW_CODE_UNSUPPORTED,
                            "source asks for features 0x%" PRIx32 ", target knows 0x%x",
                            theirs->flags, FLAGS_KNOWN);
    return 0;
}

static int check_limits(const struct gw_hello *ours, const struct gw_hello *theirs,
                        struct gw_error *err)
{
    if (theirs->ram_bytes > ours->ram_bytes_max) {
        gw_fail_code(err, -E2BIG, GW_CODE_LIMIT,
                     "source has %" PRIu64 " bytes of RAM, target takes at most %" PRIu64,
                     theirs->ram_bytes, ours->ram_bytes_max);
        gw_error_hint(err, "raise the target's limit (receive --ram-max)");
        return -E2BIG;
    }
    if (theirs->blocks_max > ours->blocks_max)
        return gw_fail_code(err, -E2BIG, GW_CODE_LIMIT,
                            "source has %" PRIu32 " memory blocks, target takes at most %" PRIu32,
                            theirs->blocks_max, ours->blocks_max);
    if (ours->endpoints == 0)
        return gw_fail_code(err, -E2BIG, GW_CODE_LIMIT,
                            "source has %" PRIu32 " page endpoints, target takes at most 0",
                            theirs->endpoints);
    return 0;
}

static void uuid_text(const uint8_t *uuid, char text[37])
{
    char *at = text;
    for (int i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            *at++ = '-';
        *at++ = "0123456789abcdef"[uuid[i] >> 4];
        *at++ = "0123456789abcdef"[uuid[i] & 15];
    }
    *at = '\0';
}

static int check_machine(const struct gw_hello *ours, const struct gw_hello *theirs,
                         struct gw_error *err)
{
    static const uint8_t none[sizeof(ours->uuid)];
    char our_uuid[37], their_uuid[37];
    if (ours->machine[0] && strcmp(ours->machine, theirs->machine) != 0)
        return gw_fail_code(err, -EINVAL, GW_CODE_UNSUPPORTED,
                            "source is a machine '%.120s', target expects '%.120s'",
                            theirs->machine, ours->machine);
    if (memcmp(ours->uuid, none, sizeof(none)) == 0 ||
        memcmp(theirs->uuid, none, sizeof(none)) == 0 ||
        memcmp(ours->uuid, theirs->uuid, sizeof(none)) == 0)
        return 0;
    uuid_text(ours->uuid, our_uuid);
    uuid_text(theirs->uuid, their_uuid);
    return gw_fail_code(err, -EINVAL, GW_CODE_REFUSED,
                        "source is the machine with UUID %s, target expects %s", their_uuid,
                        our_uuid);
}

static void fill_reply(const struct gw_hello *ours, const struct gw_hello *theirs, uint32_t version,
                       struct gw_hello *reply)
{
    struct gw_hello r = *ours;
    r.version_min = r.version_max = version;
    r.flags = theirs->flags;
    r.endpoints = ours->endpoints < theirs->endpoints ? ours->endpoints : theirs->endpoints;
    r.stripe_bytes = theirs->stripe_bytes;
    r.ram_bytes = theirs->ram_bytes;
    r.peer_timeout_ns = theirs->peer_timeout_ns;
    r.device_timeout_ns =
        theirs->device_timeout_ns ? theirs->device_timeout_ns : ours->device_timeout_ns;
    r.settle_timeout_ns = gw_max_u64(ours->settle_timeout_ns, theirs->settle_timeout_ns);
    r.hold_timeout_ns = gw_max_u64(ours->hold_timeout_ns, theirs->hold_timeout_ns);
    r.hold_timeout_ns = gw_max_u64(r.hold_timeout_ns, r.settle_timeout_ns);
    r.packet_bytes_max = gw_min_u64(ours->packet_bytes_max, theirs->packet_bytes_max);
    memcpy(r.machine, theirs->machine, sizeof(r.machine));
    memcpy(r.uuid, theirs->uuid, sizeof(r.uuid));
    *reply = r;
}

int gw_hello_answer(const struct gw_hello *ours, const struct gw_hello *theirs,
                    struct gw_hello *reply, struct gw_error *err)
{
    uint32_t version = 0;
    int rc = check_versions(theirs, "source", err);
    if (rc == 0)
        rc = agree_version(ours, theirs, &version, err);
    if (rc == 0)
        rc = check_pages_and_flags(ours, theirs, err);
    if (rc == 0)
        rc = check_shape(theirs, err);
    if (rc == 0)
        rc = check_payload(theirs, "source", err);
    if (rc == 0)
        rc = check_timeouts(theirs, "source", err);
    if (rc == 0)
        rc = check_limits(ours, theirs, err);
    if (rc == 0)
        rc = check_machine(ours, theirs, err);
    if (rc == 0)
        fill_reply(ours, theirs, version, reply);
    return rc;
}

/* ---- the source's view of the reply ---------------------------------------------------------- */

static int check_chosen(const struct gw_hello *ours, const struct gw_hello *reply,
                        struct gw_error *err)
{
    if (reply->version_min != reply->version_max || reply->version_min < ours->version_min ||
        reply->version_max > ours->version_max)
        return gw_fail(err, -EPROTO,
                       "target chose protocol versions %" PRIu32 " to %" PRIu32
                       ", source speaks %" PRIu32 " to %" PRIu32,
                       reply->version_min, reply->version_max, ours->version_min,
                       ours->version_max);
    if (reply->endpoints == 0 || reply->endpoints > ours->endpoints)
        return gw_fail(err, -EPROTO,
                       "target grants %" PRIu32 " page endpoints, source has %" PRIu32,
                       reply->endpoints, ours->endpoints);
    if (reply->flags != ours->flags)
        return gw_fail(err, -EPROTO,
                       "target grants features 0x%" PRIx32 ", source asked for 0x%" PRIx32,
                       reply->flags, ours->flags);
    if (reply->page_bytes != ours->page_bytes || reply->stripe_bytes != ours->stripe_bytes)
        return gw_fail(err, -EPROTO,
                       "target answers pages of %" PRIu32 " and stripes of %" PRIu64
                       " bytes, source has %" PRIu32 " and %" PRIu64,
                       reply->page_bytes, reply->stripe_bytes, ours->page_bytes,
                       ours->stripe_bytes);
    if (reply->incarnation == 0)
        return gw_fail(err, -EPROTO, "target has no incarnation id");
    return 0;
}

static int check_patience(const struct gw_hello *ours, const struct gw_hello *reply,
                          struct gw_error *err)
{
    int rc = check_timeouts(reply, "target", err);
    if (rc < 0)
        return rc;
    if (reply->peer_timeout_ns != ours->peer_timeout_ns)
        return gw_fail(err, -EPROTO,
                       "target has a peer time-out of %" PRIu64 " ns, source of %" PRIu64,
                       reply->peer_timeout_ns, ours->peer_timeout_ns);
    if (reply->settle_timeout_ns < ours->settle_timeout_ns)
        return gw_fail(err, -EPROTO,
                       "target settles for %" PRIu64 " ns, source for %" PRIu64
                       ": the target's may not be shorter",
                       reply->settle_timeout_ns, ours->settle_timeout_ns);
    if (reply->hold_timeout_ns < reply->settle_timeout_ns)
        return gw_fail(err, -EPROTO,
                       "target holds for %" PRIu64 " ns, shorter than the settle time of %" PRIu64,
                       reply->hold_timeout_ns, reply->settle_timeout_ns);
    return 0;
}

static int check_room(const struct gw_hello *ours, const struct gw_hello *reply,
                      struct gw_error *err)
{
    if (ours->ram_bytes > reply->ram_bytes_max)
        return gw_fail_code(err, -E2BIG, GW_CODE_LIMIT,
                            "source has %" PRIu64 " bytes of RAM, target takes at most %" PRIu64,
                            ours->ram_bytes, reply->ram_bytes_max);
    if (ours->blocks_max > reply->blocks_max)
        return gw_fail_code(err, -E2BIG, GW_CODE_LIMIT,
                            "source has %" PRIu32 " memory blocks, target takes at most %" PRIu32,
                            ours->blocks_max, reply->blocks_max);
    if (reply->packet_bytes_max > ours->packet_bytes_max)
        return gw_fail(err, -EPROTO,
                       "target buffers %" PRIu64 " bytes of device state beside the stream, source "
                       "asked for %" PRIu64,
                       reply->packet_bytes_max, ours->packet_bytes_max);
    return 0;
}

int gw_hello_accept(const struct gw_hello *ours, const struct gw_hello *reply, struct gw_error *err)
{
    int rc = check_chosen(ours, reply, err);
    if (rc == 0)
        rc = check_payload(reply, "target", err);
    if (rc == 0)
        rc = check_patience(ours, reply, err);
    if (rc == 0)
        rc = check_room(ours, reply, err);
    return rc;
}
