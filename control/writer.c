// SPDX-License-Identifier: MIT
/* Writers: a byte buffer that doubles up to a limit. The first failure is latched and whatever
 * comes later is dropped, so that a device's save function need not look after every value. */
#include "control/stream.h"
#include "core/base/alloc.h"
#include "core/base/bytes.h"

#define ROOM_FIRST 4096u

void gw_writer_init(struct gw_writer *w, size_t bytes_max)
{
    *w = (struct gw_writer){.bytes_max = bytes_max};
}

void gw_writer_fini(struct gw_writer *w)
{
    gw_free(w->data);
    *w = (struct gw_writer){0};
}

void gw_writer_reset(struct gw_writer *w)
{
    w->bytes = 0;
    w->rc = 0;
}

int gw_writer_error(const struct gw_writer *w)
{
    return w->rc;
}

/* Room for @bytes more at the end; NULL and latched if there is none. */
static uint8_t *writer_extend(struct gw_writer *w, size_t bytes)
{
    if (w->rc < 0)
        return NULL;
    if (bytes > w->bytes_max - w->bytes) {
        w->rc = -E2BIG;
        return NULL;
    }
    size_t need = w->bytes + bytes;
    if (need > w->room) {
        size_t room = w->room ? w->room : ROOM_FIRST;
        while (room < need)
            room = room > w->bytes_max / 2 ? w->bytes_max : room * 2;
        uint8_t *data = gw_realloc(w->data, room, 1);
        if (!data) {
            w->rc = -ENOMEM;
            return NULL;
        }
        w->data = data;
        w->room = room;
    }
    uint8_t *at = w->data + w->bytes;
    w->bytes = need;
    return at;
}

void gw_writer_u8(struct gw_writer *w, uint8_t value)
{
    uint8_t *at = writer_extend(w, 1);
    if (at)
        *at = value;
}

void gw_writer_be16(struct gw_writer *w, uint16_t value)
{
    uint8_t *at = writer_extend(w, 2);
    if (at)
        gw_be16_store(at, value);
}

void gw_writer_be32(struct gw_writer *w, uint32_t value)
{
    uint8_t *at = writer_extend(w, 4);
    if (at)
        gw_be32_store(at, value);
}

void gw_writer_be64(struct gw_writer *w, uint64_t value)
{
    uint8_t *at = writer_extend(w, 8);
    if (at)
        gw_be64_store(at, value);
}

void gw_writer_bytes(struct gw_writer *w, const void *data, size_t bytes)
{
    if (bytes == 0)
        return;
    uint8_t *at = writer_extend(w, bytes);
    if (at)
        memcpy(at, data, bytes);
}
