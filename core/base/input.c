// SPDX-License-Identifier: MIT
/* Input: one buffer that slides over a stream. What is looked at is moved to its front when it would not
 * fit behind, so a look costs a copy of at most what remained. A read that fails is latched: from then on
 * the input is as if it had ended, and gw_input_short() tells the two apart. */
#include "core/base/input.h"

#include "core/base/alloc.h"
#include "core/base/bytes.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

int gw_input_init(struct gw_input *in, gw_input_fn *read, void *ctx, size_t room)
{
    *in = (struct gw_input){.read = read, .ctx = ctx, .room = room, .limit = UINT64_MAX};
    in->own = gw_zalloc(room, 1);
    in->data = in->own;
    return in->own ? 0 : -ENOMEM;
}

void gw_input_memory(struct gw_input *in, const void *data, size_t bytes, uint64_t base)
{
    *in = (struct gw_input){.data = data,
                            .room = bytes,
                            .end = bytes,
                            .base = base,
                            .limit = UINT64_MAX,
                            .ended = true};
}

void gw_input_fini(struct gw_input *in)
{
    gw_free(in->own);
    *in = (struct gw_input){0};
}

uint64_t gw_input_tell(const struct gw_input *in)
{
    return in->base + in->at;
}

static void slide(struct gw_input *in)
{
    size_t left = in->end - in->at;
    if (left > 0)
        memmove(in->own, in->own + in->at, left);
    in->base += in->at;
    in->end = left;
    in->at = 0;
}

static void fill(struct gw_input *in, size_t want)
{
    if (in->at + want > in->room || in->at == in->end)
        slide(in);
    while (!in->ended && in->end - in->at < want) {
        ssize_t got = in->read(in->ctx, in->own + in->end, in->room - in->end, in->base + in->end);
        if (got > 0) {
            in->end += (size_t)got;
            continue;
        }
        in->ended = true;
        in->rc = (int)got;
    }
}

size_t gw_input_look(struct gw_input *in, size_t want, const uint8_t **at)
{
    gw_assert(want <= in->room || in->ended);
    if (in->end - in->at < want && !in->ended)
        fill(in, want);
    *at = in->data ? in->data + in->at : NULL;
    uint64_t left = in->limit - gw_min_u64(in->limit, gw_input_tell(in));
    return (size_t)gw_min_u64(in->end - in->at, left);
}

void gw_input_skip(struct gw_input *in, size_t bytes)
{
    gw_assert(bytes <= in->end - in->at);
    if (in->consumed && bytes > 0)
        in->consumed(in->consumed_ctx, gw_input_tell(in), in->data + in->at, bytes);
    in->at += bytes;
}

uint64_t gw_input_drop(struct gw_input *in, uint64_t bytes)
{
    uint64_t done = 0;
    while (done < bytes) {
        const uint8_t *at;
        size_t there = gw_input_look(in, 1, &at);
        size_t now = (size_t)gw_min_u64(there, bytes - done);
        if (now == 0)
            break;
        gw_input_skip(in, now);
        done += now;
    }
    return done;
}

bool gw_input_is_empty(struct gw_input *in)
{
    const uint8_t *at;
    return gw_input_look(in, 1, &at) == 0;
}

int gw_input_short(struct gw_input *in, const char *what, struct gw_error *err)
{
    const uint8_t *at;
    uint64_t end = gw_input_tell(in) + gw_input_look(in, 0, &at);
    in->fault_at = end;
    if (in->rc < 0)
        return gw_fail(err, in->rc, "offset %" PRIu64 ": read", end);
    return gw_fail(err, -EBADMSG, "ends at offset %" PRIu64 ", inside the %s", end, what);
}

const uint8_t *gw_input_take(struct gw_input *in, size_t bytes, const char *what,
                             struct gw_error *err)
{
    static const uint8_t nothing;
    const uint8_t *at;
    if (gw_input_look(in, bytes, &at) < bytes) {
        gw_input_short(in, what, err);
        return NULL;
    }
    gw_input_skip(in, bytes);
    return at ? at : &nothing;
}

int gw_input_refuse(struct gw_input *in, uint64_t at, struct gw_error *err, const char *format, ...)
{
    char text[GW_ERROR_TEXT_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    in->fault_at = at;
    return gw_fail(err, -EPROTO, "%s at offset %" PRIu64, text, at);
}
