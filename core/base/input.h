/* SPDX-License-Identifier: MIT */
/* core/base/input.h - bytes read forwards, once: from whatever a callback reads (a file, a pipe), or from
 * memory that is lent. Every byte has an offset, counted from the start of the stream, and whoever refuses
 * one says which: fault_at. Memory is bounded by the room given to gw_input_init(). */
#ifndef GW_BASE_INPUT_H
#define GW_BASE_INPUT_H

#include "core/base/error.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Up to @bytes bytes that stand at @offset; 0: the end; or a negative errno. */
typedef ssize_t gw_input_fn(void *ctx, void *to, size_t bytes, uint64_t offset);
/* What was consumed, in order. */
typedef void gw_consumed_fn(void *ctx, uint64_t offset, const uint8_t *data, size_t bytes);

struct gw_input {
    gw_input_fn *read; /* NULL: all there is stands in data */
    void *ctx;
    const uint8_t *data;
    uint8_t *own; /* data, where it is ours */
    size_t room, at, end;
    uint64_t base;     /* offset of data[0] */
    uint64_t limit;    /* offset at which reading ends for now; UINT64_MAX: none */
    uint64_t fault_at; /* offset of what was refused last */
    int rc;            /* latched errno of reading */
    bool ended;
    gw_consumed_fn *consumed; /* NULL: nobody wants it */
    void *consumed_ctx;
};

/* Return: 0 or -ENOMEM. @room: the most that can be looked at in one piece. */
int gw_input_init(struct gw_input *in, gw_input_fn *read, void *ctx, size_t room);
/* Over @data, whose first byte has the offset @base. Nothing to be given back. */
void gw_input_memory(struct gw_input *in, const void *data, size_t bytes, uint64_t base);
void gw_input_fini(struct gw_input *in);

uint64_t gw_input_tell(const struct gw_input *in);
/* Look: at least @want bytes (at most the room) stand at *@at, unless fewer are left. Return: how many do. */
size_t gw_input_look(struct gw_input *in, size_t want, const uint8_t **at);
/* Consume bytes that were looked at. */
void gw_input_skip(struct gw_input *in, size_t bytes);
/* Consume any number of bytes. Return: how many were there. */
uint64_t gw_input_drop(struct gw_input *in, uint64_t bytes);
/* Is nothing left (before the limit)? */
bool gw_input_is_empty(struct gw_input *in);

/* Consume @bytes bytes (at most the room), which stand at the result until the next call. NULL: they are
 * not all there; @err says inside of what the input ends, or why it could not be read. */
const uint8_t *gw_input_take(struct gw_input *in, size_t bytes, const char *what,
                             struct gw_error *err);
/* The error of a take that failed: the errno of reading, or -EBADMSG. */
int gw_input_short(struct gw_input *in, const char *what, struct gw_error *err);
/* Refuse what stands at @at: -EPROTO with the sentence, " at offset N" behind it. */
int gw_input_refuse(struct gw_input *in, uint64_t at, struct gw_error *err, const char *format, ...)
    GW_PRINTF(4, 5);

#endif
