// SPDX-License-Identifier: MIT
/* What a connection that is not made says: the target's answer with the reason for it, which its log
 * alone would have otherwise, and at the source what became of a request, in words. The connection
 * manager rejects for itself too, with numbers of its own, and for an address that nobody listens at as
 * a consumer would, but with nothing to say. */
#include "core/base/bytes.h"
#include "transport/rdma/rdma.h"

#include <string.h>

#define STALE_CONNECTION 10 /* reject reasons of the connection manager, IBTA 12.6.7.2 */
#define NOBODY_LISTENS 8
#define REFUSED_BY_CONSUMER 28

/* ---- the reason: the code's name, zero, a sentence, zero -------------------------------------- */

void gw_rdma_reason_encode(const struct gw_error *why, uint8_t bytes[GW_RDMA_REASON_BYTES])
{
    const char *name = gw_code_name(why->code);
    size_t used = strlen(name) + 1;
    memset(bytes, 0, GW_RDMA_REASON_BYTES);
    memcpy(bytes, name, used);
    /* What does not fit is cut: the log has all of it. */
    memcpy(bytes + used, why->message, strnlen(why->message, GW_RDMA_REASON_BYTES - used - 1));
}

bool gw_rdma_reason_decode(const uint8_t *bytes, size_t count, struct gw_error *err)
{
    const char *text = (const char *)bytes;
    size_t name = strnlen(text, count);
    if (name == 0 || name == count)
        return false;
    enum gw_code code = gw_code_from_name(text);
    if (code == GW_CODE_NONE || err->rc == 0)
        return false;
    err->code = code;
    gw_error_peer(err, text + name + 1, strnlen(text + name + 1, count - name - 1));
    return true;
}

/* ---- what came instead of a reply ------------------------------------------------------------- */

static int refused(const struct gw_preface *preface, const uint8_t *data, size_t bytes,
                   struct gw_error *err)
{
    int rc = gw_answer_check(preface, data, err);
    if (rc == 0)
        return gw_fail(err, -EPROTO, "the peer rejected what it admits");
    if (err && rc == -EBUSY &&
        gw_rdma_reason_decode(data + GW_PREFACE_BYTES, bytes - GW_PREFACE_BYTES, err) &&
        err->code == GW_CODE_LIMIT)
        gw_error_hint(err, "the target's log says what to run there; 'godwit doctor rdma:' too");
    return rc;
}

/* Who rejects with an answer has put something into it. */
static bool says_something(const uint8_t *data, size_t bytes)
{
    uint8_t any = 0;
    for (size_t i = 0; i < bytes; i++)
        any |= data[i];
    return any != 0;
}

static int nobody_listens(struct gw_error *err)
{
    int rc = gw_fail_code(err, -ECONNREFUSED, GW_CODE_CONNECT, "nobody listens there");
    gw_error_hint(err, "is 'godwit receive' running there, over rdma, at this port and this very "
                       "address? A device may have others");
    return rc;
}

int gw_rdma_rejected(const struct gw_preface *preface, int reason, const uint8_t *data,
                     size_t bytes, struct gw_error *err)
{
    bool by_peer = reason == REFUSED_BY_CONSUMER && says_something(data, bytes);
    if (by_peer && bytes >= GW_PREFACE_BYTES)
        return refused(preface, data, bytes, err);
    if (reason == NOBODY_LISTENS || (reason == REFUSED_BY_CONSUMER && !by_peer))
        return nobody_listens(err);
    if (reason == STALE_CONNECTION)
        return gw_fail_code(err, -ESTALE, GW_CODE_CONNECT,
                            "the peer remembers an older connection of this queue pair");
    return gw_fail_code(err, -ECONNREFUSED, GW_CODE_CONNECT,
                        "the connection was rejected (reason %d)", reason);
}
