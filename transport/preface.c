// SPDX-License-Identifier: MIT
/* The preface: encode, decode, and the connecting side's exchange of it for an answer. Fixed size both
 * ways, so nothing is allocated and a stranger can make nobody wait for more than 32 bytes. Whatever
 * does not fit is an error of the connection, told in the words of who must change something. */
#include "transport/preface.h"

#include "core/base/bytes.h"
#include "core/base/clock.h"

#include <sys/socket.h>
#include <unistd.h>

static const char preface_magic[6] = {'G', 'O', 'D', 'W', 'I', 'T'};
static const char answer_magic[6] = {'g', 'o', 'd', 'w', 'i', 't'};

enum { AT_VERSION = 6, AT_SESSION = 8, AT_INDEX = 24, AT_CODE = 26, AT_ZERO = 27 };

static const struct {
    int rc;
    enum gw_code code;
    const char *text;
    const char *hint;
} admissions[] = {
    [GW_ADMIT_OK] = {0, GW_CODE_NONE, "admitted", ""},
    [GW_ADMIT_VERSION] = {-EPROTONOSUPPORT, GW_CODE_UNSUPPORTED,
                          "the versions of the wire do not match",
                          "use the same release at both ends"},
    [GW_ADMIT_SECURITY] = {-EACCES, GW_CODE_REFUSED, "the security is not the configured one",
                           "configure the same security at both ends"},
    [GW_ADMIT_UNKNOWN] = {-ENOENT, GW_CODE_REFUSED, "the session is not known there",
                          "the peer may have been restarted, or another one listens there"},
    [GW_ADMIT_BUSY] = {-EBUSY, GW_CODE_REFUSED, "it cannot be served there now",
                       "the target's log says what it lacks"},
    [GW_ADMIT_INDEX] = {-ECHRNG, GW_CODE_REFUSED,
                        "the endpoint's index is out of range or already open", ""},
};

#define ADMISSION_COUNT (sizeof(admissions) / sizeof(admissions[0]))

const char *gw_security_name(uint8_t security)
{
    static const char *const names[] = {"none", "tls", "psk"};
    return security < sizeof(names) / sizeof(names[0]) ? names[security] : "unknown";
}

const char *gw_admission_text(enum gw_admission admission)
{
    return (size_t)admission < ADMISSION_COUNT ? admissions[admission].text : "not now";
}

static void encode(const char magic[6], uint16_t version, const struct gw_preface *preface,
                   uint8_t code, uint8_t bytes[GW_PREFACE_BYTES])
{
    memset(bytes, 0, GW_PREFACE_BYTES);
    memcpy(bytes, magic, 6);
    gw_be16_store(bytes + AT_VERSION, version);
    memcpy(bytes + AT_SESSION, preface->session, GW_SESSION_BYTES);
    gw_be16_store(bytes + AT_INDEX, preface->index);
    bytes[AT_CODE] = code;
}

static bool tail_is_zero(const uint8_t bytes[GW_PREFACE_BYTES])
{
    uint8_t any = 0;
    for (int i = AT_ZERO; i < GW_PREFACE_BYTES; i++)
        any |= bytes[i];
    return any == 0;
}

void gw_preface_encode(const struct gw_preface *preface, uint8_t bytes[GW_PREFACE_BYTES])
{
    encode(preface_magic, preface->version, preface, preface->security, bytes);
}

int gw_preface_decode(const uint8_t bytes[GW_PREFACE_BYTES], struct gw_preface *preface)
{
    if (memcmp(bytes, preface_magic, sizeof(preface_magic)) != 0)
        return -EPROTO;
    preface->version = gw_be16_load(bytes + AT_VERSION);
    memcpy(preface->session, bytes + AT_SESSION, GW_SESSION_BYTES);
    preface->index = gw_be16_load(bytes + AT_INDEX);
    preface->security = bytes[AT_CODE];
    if (preface->version != GW_PREFACE_VERSION || !tail_is_zero(bytes))
        return -EPROTONOSUPPORT;
    return 0;
}

void gw_answer_encode(const struct gw_preface *preface, enum gw_admission admission,
                      uint8_t bytes[GW_PREFACE_BYTES])
{
    gw_assert(admission < GW_ADMIT_LATER);
    encode(answer_magic, GW_PREFACE_VERSION, preface, (uint8_t)admission, bytes);
}

int gw_answer_check(const struct gw_preface *preface, const uint8_t bytes[GW_PREFACE_BYTES],
                    struct gw_error *err)
{
    if (memcmp(bytes, answer_magic, sizeof(answer_magic)) != 0) {
        int rc = gw_fail(err, -EPROTO, "the peer does not speak godwit's protocol");
        gw_error_hint(err, "is this the address that 'godwit receive' printed?");
        return rc;
    }
    uint16_t version = gw_be16_load(bytes + AT_VERSION);
    uint8_t code = bytes[AT_CODE];
    if (code == GW_ADMIT_OK && version == preface->version && tail_is_zero(bytes)) {
        if (memcmp(bytes + AT_SESSION, preface->session, GW_SESSION_BYTES) == 0 &&
            gw_be16_load(bytes + AT_INDEX) == preface->index)
            return 0;
        return gw_fail(err, -EPROTO, "the peer answered for another session or endpoint");
    }
    if (code >= ADMISSION_COUNT)
        return gw_fail(err, -EPROTO, "the peer answered with admission code %u, which is unknown",
                       code);
    if (code == GW_ADMIT_OK)
        code = GW_ADMIT_VERSION;
    int rc = gw_fail_code(err, admissions[code].rc, admissions[code].code,
                          "refused by the peer: %s (endpoint %u, version %u, peer's version %u, "
                          "security %s)",
                          admissions[code].text, preface->index, preface->version, version,
                          gw_security_name(preface->security));
    gw_error_hint(err, "%s", admissions[code].hint);
    return rc;
}

static int wait_for(int fd, short events, uint64_t deadline_ns)
{
    struct pollfd pfd = {.fd = fd, .events = events};
    for (;;) {
        int rc = gw_clock_poll(&pfd, 1, deadline_ns);
        if (rc != 0)
            return rc < 0 ? rc : 0;
        if (gw_clock_ns() >= deadline_ns)
            return -ETIMEDOUT;
    }
}

/* All of @bytes, in the direction of @events, or an error. */
static int transfer(int fd, uint8_t *data, size_t bytes, short events, uint64_t deadline_ns)
{
    size_t done = 0;
    while (done < bytes) {
        ssize_t n = events == POLLOUT
                        ? send(fd, data + done, bytes - done, MSG_NOSIGNAL | MSG_DONTWAIT)
                        : recv(fd, data + done, bytes - done, MSG_DONTWAIT);
        if (n > 0) {
            done += (size_t)n;
            continue;
        }
        if (n == 0)
            return -ECONNRESET;
        if (errno == EINTR)
            continue;
        if (errno != EAGAIN && errno != EWOULDBLOCK)
            return -errno;
        int rc = wait_for(fd, events, deadline_ns);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int gw_preface_exchange(int fd, const struct gw_wire_config *config, uint64_t deadline_ns,
                        struct gw_error *err)
{
    struct gw_preface preface = {
        .version = GW_PREFACE_VERSION, .index = config->index, .security = config->security};
    uint8_t bytes[GW_PREFACE_BYTES];

    memcpy(preface.session, config->session, GW_SESSION_BYTES);
    gw_preface_encode(&preface, bytes);
    int rc = transfer(fd, bytes, sizeof(bytes), POLLOUT, deadline_ns);
    if (rc == 0)
        rc = transfer(fd, bytes, sizeof(bytes), POLLIN, deadline_ns);
    if (rc == -ECONNRESET || rc == -EPIPE)
        return gw_fail_code(err, -ECONNRESET, GW_CODE_PEER_LOST,
                            "the peer hung up before it admitted endpoint %u", config->index);
    if (rc == -ETIMEDOUT)
        return gw_fail_code(err, rc, GW_CODE_TIMEOUT,
                            "connected, but endpoint %u was not admitted in time", config->index);
    if (rc < 0)
        return gw_fail(err, rc, "preface of endpoint %u", config->index);
    return gw_answer_check(&preface, bytes, err);
}
