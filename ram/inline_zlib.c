// SPDX-License-Identifier: MIT
/* Compressed pages of streams that QEMU wrote until 9.0: each is a zlib stream of its own. It must end where
 * its record ends and give exactly a page. One state and one page serve all of a stream. */
#include "ram/inline.h"

#include "core/base/alloc.h"
#include "gw_config.h"

#if GW_HAVE_ZLIB
#define ZLIB_CONST /* next_in is only read */
#include <zlib.h>

struct gw_inflater {
    z_stream stream;
    size_t page_bytes;
    uint8_t *page; /* and a byte more, by which a longer one is told */
};

bool gw_inflater_is_built(void)
{
    return true;
}

static voidpf allocate(voidpf ctx, uInt count, uInt bytes)
{
    (void)ctx;
    return gw_zalloc(count, bytes);
}

static void release(voidpf ctx, voidpf memory)
{
    (void)ctx;
    gw_free(memory);
}

int gw_inflater_new(uint64_t page_bytes, struct gw_inflater **inflater)
{
    struct gw_inflater *to = gw_zalloc(1, sizeof(*to));
    if (!to)
        return -ENOMEM;
    to->stream.zalloc = allocate;
    to->stream.zfree = release;
    to->page_bytes = (size_t)page_bytes;
    to->page = gw_zalloc(to->page_bytes + 1, 1);
    if (!to->page || inflateInit(&to->stream) != Z_OK) {
        gw_free(to->page);
        gw_free(to);
        return -ENOMEM;
    }
    *inflater = to;
    return 0;
}

void gw_inflater_free(struct gw_inflater *inflater)
{
    if (!inflater)
        return;
    inflateEnd(&inflater->stream);
    gw_free(inflater->page);
    gw_free(inflater);
}

int gw_inflater_page(struct gw_inflater *inflater, const uint8_t *code, size_t code_bytes,
                     const uint8_t **page)
{
    z_stream *stream = &inflater->stream;
    if (inflateReset(stream) != Z_OK)
        return -ENOMEM;
    stream->next_in = code;
    stream->avail_in = (uInt)code_bytes;
    stream->next_out = inflater->page;
    stream->avail_out = (uInt)inflater->page_bytes + 1;
    int rc = inflate(stream, Z_FINISH);
    if (rc == Z_MEM_ERROR)
        return -ENOMEM;
    if (rc != Z_STREAM_END || stream->avail_in != 0 || stream->avail_out != 1)
        return -EPROTO;
    *page = inflater->page;
    return 0;
}

#else

bool gw_inflater_is_built(void)
{
    return false;
}

int gw_inflater_new(uint64_t page_bytes, struct gw_inflater **inflater)
{
    (void)page_bytes;
    (void)inflater;
    return -EOPNOTSUPP;
}

void gw_inflater_free(struct gw_inflater *inflater)
{
    (void)inflater;
}

int gw_inflater_page(struct gw_inflater *inflater, const uint8_t *code, size_t code_bytes,
                     const uint8_t **page)
{
    (void)inflater;
    (void)code;
    (void)code_bytes;
    (void)page;
    return -EOPNOTSUPP;
}

#endif
