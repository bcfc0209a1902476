/* SPDX-License-Identifier: MIT */
/* tests/support/tap_reader.h - recordings of the filter tap+ (docs/filters.md), read whole and checked
 * whole: a recording is input like any other. */
#ifndef GW_TEST_TAP_READER_H
#define GW_TEST_TAP_READER_H

#include "transport/filter/tap.h"

struct tap_record {
    enum gw_tap_kind kind;
    enum gw_tap_way way;
    uint64_t at_ns;      /* of the recording process's clock */
    unsigned entries;    /* PUTS */
    const uint8_t *body; /* in the recording */
    uint64_t bytes;
};

struct tap_recording {
    struct gw_tap_head head;
    char path[512];
    uint8_t *data;
    size_t bytes;
    struct tap_record *records;
    unsigned count;
    bool whole; /* it has its END */
};

/* 0, or a negative errno with err: -EPROTO says what is wrong with the file and where. */
int tap_load(const char *path, struct tap_recording *recording, struct gw_error *err);
void tap_unload(struct tap_recording *recording);

/* What one side said and heard in one session: a recording for each connection. */
struct tap_session {
    struct tap_recording *recordings;
    unsigned count;
};

/* All recordings of @side (0 source, 1 target) in @dir, which holds one session. -EPROTO: two. */
int tap_session_load(const char *dir, unsigned side, struct tap_session *session,
                     struct gw_error *err);
void tap_session_unload(struct tap_session *session);

/* Entry @i of a PUTS record; @bytes (NULL where none were recorded) are its bytes. */
struct tap_put {
    uint32_t region, length;
    uint64_t offset;
    const uint8_t *bytes;
};
/* One after the other: *put is where the last call left it, zeroed before the first. */
void tap_put_next(const struct tap_recording *recording, const struct tap_record *record,
                  unsigned i, struct tap_put *put);

#endif
