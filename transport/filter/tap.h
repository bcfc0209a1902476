/* SPDX-License-Identifier: MIT */
/* transport/filter/tap.h - a recording of one connection, as it lies in a file; docs/filters.md has
 * the same in a table. Integers are big-endian.
 *
 *   header    0  6  "GWTAP\n"             record    0  1  kind: enum gw_tap_kind
 *             6  2  version, 1                      1  1  way: 0 out, 1 in; 0 where it has none
 *             8 16  session                         2  2  entries of PUTS: 1..512, else 0
 *            24  2  endpoint index                  4  4  zero
 *            26  1  side: 0 connected, 1 accepted   8  8  nanoseconds since the header
 *            27  1  flags: bit 0, bytes of puts    16  8  bytes of the body, which follows
 *            28  4  attempt, from 1
 *            32 16  wire, zero-padded               body  MESSAGE: the message
 *            48  8  clock, ns: the header's time          PUTS: entries of be32 region, be32 bytes,
 *            56  8  zero                                        be64 offset, then their bytes if flagged
 *                                                         REVOKE: nothing
 *                                                         END: be32 errno or 0, then a sentence */
#ifndef GW_TRANSPORT_FILTER_TAP_H
#define GW_TRANSPORT_FILTER_TAP_H

#include "transport/transport.h"

#define GW_TAP_MAGIC "GWTAP\n"
#define GW_TAP_MAGIC_BYTES 6
#define GW_TAP_VERSION 1
#define GW_TAP_HEAD_BYTES 64
#define GW_TAP_RECORD_BYTES 24
#define GW_TAP_ENTRY_BYTES 16
#define GW_TAP_ENTRIES_MAX 512
#define GW_TAP_HAS_BYTES 1u /* flag: PUTS carry the bytes of their puts */

enum gw_tap_kind { GW_TAP_MESSAGE = 1, GW_TAP_PUTS = 2, GW_TAP_REVOKE = 3, GW_TAP_END = 4 };
enum gw_tap_way { GW_TAP_OUT, GW_TAP_IN };

struct gw_tap_head {
    uint8_t session[GW_SESSION_BYTES];
    uint16_t index;
    uint8_t side; /* enum gw_filter_side */
    uint8_t flags;
    uint32_t attempt;
    char wire[16];
    uint64_t clock_ns;
};

void gw_tap_head_encode(const struct gw_tap_head *head, uint8_t bytes[GW_TAP_HEAD_BYTES]);

/* ---- writing -------------------------------------------------------------------------------- */

/* A file that is being written. What cannot be written any more is noted once, in the log, and ends
 * the recording, never the connection: a recording without END is one that was cut short. */
struct gw_tap_file {
    int fd; /* -1: ended */
    uint64_t start_ns;
    const struct gw_log *log;
    char path[512];
    size_t used;
    uint8_t buf[64u << 10];
};

/* Makes the folder @dir if it is not there (its parent must be), and in it a file that was not there. */
int gw_tap_file_create(struct gw_tap_file *file, const char *dir, const struct gw_tap_head *head,
                       const struct gw_log *log, struct gw_error *err);
/* One record. @at_ns: what went out has the time before it was given to the wire, what came in the time
 * after, so that over all files of a session nothing stands before its cause. @iov: its body. */
void gw_tap_file_add(struct gw_tap_file *file, uint64_t at_ns, enum gw_tap_kind kind,
                     enum gw_tap_way way, unsigned entries, const struct iovec *iov,
                     unsigned iov_count);
void gw_tap_file_flush(struct gw_tap_file *file);
void gw_tap_file_close(struct gw_tap_file *file);
void gw_tap_file_discard(struct gw_tap_file *file); /* as if it had never been made */

#endif
