// SPDX-License-Identifier: MIT
/* Errors: fixed-size records that the caller owns, filled where the fault is found. Nothing here
 * allocates or fails; texts that are too long are cut. A record may be of a caller that was compiled
 * against another version of it: a field that does not lie inside its struct_bytes is not there. */
#include "core/base/error.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const code_names[] = {
    [GW_CODE_NONE] = "none",
    [GW_CODE_INVALID] = "invalid",
    [GW_CODE_NO_MEMORY] = "no-memory",
    [GW_CODE_LIMIT] = "limit",
    [GW_CODE_UNSUPPORTED] = "unsupported",
    [GW_CODE_CONNECT] = "connect",
    [GW_CODE_LISTEN] = "listen",
    [GW_CODE_REFUSED] = "refused",
    [GW_CODE_PROTOCOL] = "protocol",
    [GW_CODE_PEER_LOST] = "peer-lost",
    [GW_CODE_TIMEOUT] = "timeout",
    [GW_CODE_CANCELLED] = "cancelled",
    [GW_CODE_NO_CONVERGENCE] = "no-convergence",
    [GW_CODE_BLOCK] = "block",
    [GW_CODE_DEVICE] = "device",
    [GW_CODE_GUEST] = "guest",
    [GW_CODE_DIRTY] = "dirty",
    [GW_CODE_DIGEST] = "digest",
    [GW_CODE_DECLINED] = "declined",
    [GW_CODE_VOID] = "void",
    [GW_CODE_UNKNOWN] = "unknown-outcome",
    [GW_CODE_RETAKE] = "retake",
    [GW_CODE_IO] = "io",
    [GW_CODE_INTERNAL] = "internal",
    [GW_CODE_VERIFY] = "verify",
    [GW_CODE_LINK_DOWN] = "link-down",
    [GW_CODE_DEVICE_LOST] = "device-lost",
    [GW_CODE_PEER_SILENT] = "peer-silent",
};

static const struct {
    int rc;
    enum gw_code code;
} code_of_rc[] = {
    {-EINVAL, GW_CODE_INVALID},         {-EEXIST, GW_CODE_INVALID},
    {-EBUSY, GW_CODE_INVALID},          {-ENOMEM, GW_CODE_NO_MEMORY},
    {-ENOBUFS, GW_CODE_NO_MEMORY},      {-EMFILE, GW_CODE_LIMIT},
    {-ENFILE, GW_CODE_LIMIT},           {-E2BIG, GW_CODE_LIMIT},
    {-EOPNOTSUPP, GW_CODE_UNSUPPORTED}, {-EPROTO, GW_CODE_PROTOCOL},
    {-EBADMSG, GW_CODE_PROTOCOL},       {-EPROTONOSUPPORT, GW_CODE_UNSUPPORTED},
    {-ECONNRESET, GW_CODE_PEER_LOST},   {-EPIPE, GW_CODE_PEER_LOST},
    {-ENOTCONN, GW_CODE_PEER_LOST},     {-ESHUTDOWN, GW_CODE_PEER_LOST},
    {-ECONNREFUSED, GW_CODE_CONNECT},   {-EHOSTUNREACH, GW_CODE_CONNECT},
    {-ENETUNREACH, GW_CODE_CONNECT},    {-ETIMEDOUT, GW_CODE_TIMEOUT},
    {-ECANCELED, GW_CODE_CANCELLED},    {-EADDRINUSE, GW_CODE_LISTEN},
    {-EADDRNOTAVAIL, GW_CODE_LISTEN},
};

_Noreturn void gw_assert_failed(const char *condition, const char *file, int line)
{
    /* The one place that prints: the process ends here by our own fault. */
    fprintf(stderr, "godwit: %s:%d: assertion failed: %s\n", file, line, condition);
    abort();
}

const char *gw_code_name(enum gw_code code)
{
    if ((unsigned)code >= GW_CODE_COUNT_)
        return "internal";
    return code_names[code];
}

enum gw_code gw_code_from_name(const char *name)
{
    for (unsigned i = 0; i < GW_CODE_COUNT_; i++) {
        if (strcmp(code_names[i], name) == 0)
            return (enum gw_code)i;
    }
    return GW_CODE_NONE;
}

static enum gw_code derive_code(int rc)
{
    for (size_t i = 0; i < sizeof(code_of_rc) / sizeof(code_of_rc[0]); i++) {
        if (code_of_rc[i].rc == rc)
            return code_of_rc[i].code;
    }
    return GW_CODE_IO;
}

static bool explains_itself(int rc)
{
    return rc == -EPROTO || rc == -ECANCELED || rc == -EINVAL || rc == -EBADMSG ||
           rc == -EOPNOTSUPP || rc == -E2BIG;
}

#define END_OF(field) (offsetof(struct gw_error, field) + sizeof(((struct gw_error *)0)->field))
/* As the first version had it, and stays what struct_bytes 0 means: never grows. */
#define FIRST_BYTES END_OF(peer)
#define HAS(err, field) (bytes_of(err) >= END_OF(field))

static size_t bytes_of(const struct gw_error *err)
{
    return err->struct_bytes ? err->struct_bytes : FIRST_BYTES;
}

void gw_error_clear(struct gw_error *err)
{
    if (!err)
        return;
    if (HAS(err, rc))
        err->rc = 0;
    if (HAS(err, code))
        err->code = GW_CODE_NONE;
    if (HAS(err, phase))
        err->phase[0] = '\0';
    if (HAS(err, place))
        err->place[0] = '\0';
    if (HAS(err, message))
        err->message[0] = '\0';
    if (HAS(err, hint))
        err->hint[0] = '\0';
    if (HAS(err, peer))
        err->peer[0] = '\0';
}

static void set_text(struct gw_error *err, int rc, enum gw_code code, bool add_errno,
                     const char *format, va_list args)
{
    gw_error_clear(err);
    if (HAS(err, rc))
        err->rc = rc;
    if (HAS(err, code))
        err->code = code;
    if (!HAS(err, message))
        return;
    vsnprintf(err->message, sizeof(err->message), format, args);
    if (!add_errno)
        return;
    char number[128];
    const char *text = strerror_r(-rc, number, sizeof(number));
    size_t used = strlen(err->message);
    snprintf(err->message + used, sizeof(err->message) - used, ": %s", text);
}

int gw_fail(struct gw_error *err, int rc, const char *format, ...)
{
    if (!err)
        return rc;
    va_list args;
    va_start(args, format);
    set_text(err, rc, derive_code(rc), !explains_itself(rc), format, args);
    va_end(args);
    return rc;
}

int gw_fail_code(struct gw_error *err, int rc, enum gw_code code, const char *format, ...)
{
    if (!err)
        return rc;
    va_list args;
    va_start(args, format);
    set_text(err, rc, code, false, format, args);
    va_end(args);
    return rc;
}

int gw_error_set(struct gw_error *err, int rc, enum gw_code code, const char *format, ...)
{
    if (!err)
        return rc;
    va_list args;
    va_start(args, format);
    set_text(err, rc, code, false, format, args);
    va_end(args);
    return rc;
}

void gw_error_hint(struct gw_error *err, const char *format, ...)
{
    if (!gw_error_is_set(err) || !HAS(err, hint))
        return;
    va_list args;
    va_start(args, format);
    vsnprintf(err->hint, sizeof(err->hint), format, args);
    va_end(args);
}

int gw_error_prefix(struct gw_error *err, const char *format, ...)
{
    if (!gw_error_is_set(err))
        return 0;
    if (!HAS(err, message))
        return err->rc;
    char text[GW_ERROR_TEXT_BYTES];
    va_list args;
    va_start(args, format);
    int used = vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    if (used >= 0 && (size_t)used < sizeof(text)) {
        /* Cutting is meant: the record's size is fixed. */
        char *rest = text + used;
        size_t room = sizeof(text) - (size_t)used;
        size_t bytes = strlen(err->message);
        if (room > 3) {
            memcpy(rest, ": ", 2);
            bytes = bytes < room - 3 ? bytes : room - 3;
            memcpy(rest + 2, err->message, bytes);
            rest[2 + bytes] = '\0';
        }
    }
    memcpy(err->message, text, sizeof(text));
    return err->rc;
}

void gw_error_phase(struct gw_error *err, const char *phase)
{
    if (gw_error_is_set(err) && HAS(err, phase) && err->phase[0] == '\0')
        snprintf(err->phase, sizeof(err->phase), "%s", phase);
}

void gw_error_place(struct gw_error *err, const char *format, ...)
{
    if (!gw_error_is_set(err) || !HAS(err, place) || err->place[0] != '\0')
        return;
    va_list args;
    va_start(args, format);
    vsnprintf(err->place, sizeof(err->place), format, args);
    va_end(args);
}

void gw_error_peer(struct gw_error *err, const char *text, size_t bytes)
{
    if (!err || !HAS(err, peer))
        return;
    size_t n = bytes < sizeof(err->peer) - 1 ? bytes : sizeof(err->peer) - 1;
    for (size_t i = 0; i < n; i++)
        err->peer[i] = text[i] >= 0x20 && text[i] < 0x7f ? text[i] : '?';
    err->peer[n] = '\0';
}

void gw_error_copy(struct gw_error *to, const struct gw_error *from)
{
    if (!to || !from)
        return;
    gw_error_clear(to); /* of what @from lacks */
    if (HAS(to, rc) && HAS(from, rc))
        to->rc = from->rc;
    if (HAS(to, code) && HAS(from, code))
        to->code = from->code;
    if (HAS(to, phase) && HAS(from, phase))
        memcpy(to->phase, from->phase, sizeof(to->phase));
    if (HAS(to, place) && HAS(from, place))
        memcpy(to->place, from->place, sizeof(to->place));
    if (HAS(to, message) && HAS(from, message))
        memcpy(to->message, from->message, sizeof(to->message));
    if (HAS(to, hint) && HAS(from, hint))
        memcpy(to->hint, from->hint, sizeof(to->hint));
    if (HAS(to, peer) && HAS(from, peer))
        memcpy(to->peer, from->peer, sizeof(to->peer));
}

bool gw_error_is_set(const struct gw_error *err)
{
    return err && HAS(err, rc) && err->rc != 0;
}
