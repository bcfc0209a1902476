/* SPDX-License-Identifier: MIT */
/* control/stream_write.h - the savevm stream written: what stream_read.h takes, the other way round, from
 * the same structs. stream.h has what cannot fail: heads, footers, the end mark, the description.
 *
 * Every function appends to @w, or refuses what a reader would refuse: -EINVAL with err, and @w as it was.
 * What does not fit there is the writer's error, latched: -E2BIG, -ENOMEM, with err too. */
#ifndef GW_CONTROL_STREAM_WRITE_H
#define GW_CONTROL_STREAM_WRITE_H

#include "control/stream_read.h"

/* Magic, version, and, if it is present, the configuration section: a machine's name of 1 to 255 bytes, then
 * page bits if they are not 0, capabilities if there are any, the uuid if there is one. */
int gw_stream_write_configuration(struct gw_writer *w, const struct gw_configuration *configuration,
                                  struct gw_error *err);

/* ---- commands -------------------------------------------------------------------------------- */

/* Of @command its number, and what its kind says: value (PING; ADVISE: 1 with page sizes), sizes and
 * page_bytes (ADVISE), block (RECV_BITMAP). Name, offset and lengths are not looked at. DISCARD and PACKAGED
 * have functions of their own. ADVISE, DISCARD, PACKAGED and RECV_BITMAP are read from the connection wherever
 * they stand, so they never go into a package; SWITCHOVER_START ends a peer older than 10.0. */
int gw_stream_write_command(struct gw_writer *w, const struct gw_command_item *command,
                            struct gw_error *err);

#define GW_DISCARD_RANGES_MAX 4079u /* with a name of any length; QEMU says 12 at a time */
/* 1 to GW_DISCARD_RANGES_MAX ranges, in bytes, ascending, none empty, no two of them overlapping. */
int gw_stream_write_discard(struct gw_writer *w, const char *block,
                            const struct gw_discard_range *ranges, unsigned count,
                            struct gw_error *err);

/* @items: what the functions of stream.h and this one wrote, without header and end mark: LISTEN first, RUN
 * last, at most 4 GiB - 1; a receiver holds all of it. */
int gw_stream_write_package(struct gw_writer *w, const struct gw_writer *items,
                            struct gw_error *err);

/* ---- the return path ------------------------------------------------------------------------- */

/* Of @item its type, and what that says: value, start, block. RECV_BITMAP has a function of its own. */
int gw_return_write(struct gw_writer *w, const struct gw_return_item *item, struct gw_error *err);
/* The answer to RECV_BITMAP. @bits: @bytes bytes, a multiple of 8, page i of the block is bit i % 8 of byte
 * i / 8, bits behind the last page 0. */
int gw_return_write_bitmap(struct gw_writer *w, const char *block, const uint8_t *bits,
                           uint64_t bytes, struct gw_error *err);

/* ---- inside control/stream_*write.c ---------------------------------------------------------- */

/* 1 to 255 bytes of printable ASCII; -EINVAL with err. */
int gw_stream_check_name(const char *name, const char *what, struct gw_error *err);
/* 0, or the writer's latched error with err. */
int gw_stream_written(const struct gw_writer *w, const char *what, struct gw_error *err);

#endif
