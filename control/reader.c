// SPDX-License-Identifier: MIT
/* Readers: a walk over bytes that someone else holds. Reading past the end latches -EBADMSG and
 * yields zeros from then on, so that a device's load function need not look after every value. */
#include "control/stream.h"
#include "core/base/bytes.h"

void gw_reader_init(struct gw_reader *r, const void *data, size_t bytes)
{
    *r = (struct gw_reader){.data = data, .bytes = bytes};
}

size_t gw_reader_left(const struct gw_reader *r)
{
    return r->rc < 0 ? 0 : r->bytes - r->at;
}

int gw_reader_error(const struct gw_reader *r)
{
    return r->rc;
}

const uint8_t *gw_reader_take(struct gw_reader *r, size_t bytes)
{
    static const uint8_t nothing;
    if (r->rc < 0)
        return NULL;
    if (bytes > r->bytes - r->at) {
        r->rc = -EBADMSG;
        return NULL;
    }
    if (bytes == 0)
        return &nothing; /* the whole input may be empty and have no address */
    const uint8_t *at = r->data + r->at;
    r->at += bytes;
    return at;
}

uint8_t gw_reader_u8(struct gw_reader *r)
{
    const uint8_t *at = gw_reader_take(r, 1);
    return at ? *at : 0;
}

uint16_t gw_reader_be16(struct gw_reader *r)
{
    const uint8_t *at = gw_reader_take(r, 2);
    return at ? gw_be16_load(at) : 0;
}

uint32_t gw_reader_be32(struct gw_reader *r)
{
    const uint8_t *at = gw_reader_take(r, 4);
    return at ? gw_be32_load(at) : 0;
}

uint64_t gw_reader_be64(struct gw_reader *r)
{
    const uint8_t *at = gw_reader_take(r, 8);
    return at ? gw_be64_load(at) : 0;
}

void gw_reader_bytes(struct gw_reader *r, void *data, size_t bytes)
{
    if (bytes == 0)
        return;
    const uint8_t *at = gw_reader_take(r, bytes);
    if (at)
        memcpy(data, at, bytes);
    else
        memset(data, 0, bytes);
}
