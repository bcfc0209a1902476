/* SPDX-License-Identifier: MIT */
/* tests/support/replay.h - one recorded side of a migration, played again to a live other side, which is
 * compared with the recording: every message that it must say again, in its order on its endpoint.
 *
 * Events are played in the order of their times over all connections of the recorded side: what went
 * out is said, what came in is waited for. HEARTBEAT and CREDIT are the channel's own business and are
 * left out. Random fields are matched: the session is that of the live connection, the token is the
 * one that the playing source makes up or the live source brings, the incarnation the live target's;
 * they are rewritten in what is said and made equal in what is compared. Not compared: agents, times
 * that were spent, and at the target how the pages travel, of which the sum is compared instead: the
 * memory that puts and zero runs leave behind. */
#ifndef GW_TEST_REPLAY_H
#define GW_TEST_REPLAY_H

#include "tests/support/tap_reader.h"

struct replay_report {
    unsigned said, heard; /* messages played, messages compared */
    uint64_t put_bytes;   /* played or received */
    bool memory_is_equal; /* replay_target(): what arrived is what was recorded */
    struct gw_error err;  /* how far it came, and what differed */
};

/* Play the recorded source to the target at @uri. 0, or a negative errno with report->err: -EBADMSG:
 * the live side said something else. */
int replay_source(const struct tap_session *session, const char *uri, struct replay_report *report);

/* Listen, at @uri, whose real port is then *heard_at. */
struct replay_target;
struct replay_target *replay_target_new(const char *uri, char *heard_at, size_t bytes);
/* Play the recorded target to the source that connects. */
int replay_target_run(struct replay_target *target, const struct tap_session *session,
                      struct replay_report *report);
void replay_target_free(struct replay_target *target);

#endif
