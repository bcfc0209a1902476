// SPDX-License-Identifier: MIT
/* Handovers that come to nothing over wires where puts land without the target's code: cancelled while pages
 * move, while the guest is being paused, after the target was prepared; and by digests that differ. The guest is at
 * the source each time, its memory untouched, and the same two sides migrate at once. (Over tcp, with a relay that
 * holds each message: handover_cancel_test.c, handover_test.c.) */
#include "tests/shim/gw_test.h"
#include "tests/support/one_sided.h"
#include "tests/support/pair.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define RAM_BYTES (UINT64_C(4) << 20)
#define SECONDS 60u
#define CHANGED_AT (4096 * 7 + 200)

struct attempt {
    struct pair pair; /* first: hooks get it and cast */
    struct gw_params *params[2];
    unsigned char *before, *alias; /* the source's memory as it was; another mapping of it */
    _Atomic bool is_armed;         /* the hook has yet to do its thing */
};

static void open_attempt(struct attempt *attempt, const char *wire)
{
    struct pair *pair = &attempt->pair;
    const char *uri = gw_one_sided_uri(wire);
    for (unsigned i = 0; i < 2; i++) {
        attempt->params[i] = pair_params();
        GW_ASSERT_EQ(gw_params_set(attempt->params[i], "digest", "on", NULL), 0);
    }
    pair->listen_uri = uri;
    pair->params = attempt->params[0];
    pair->target_params = attempt->params[1];
    pair->device_value = 0x0123456789abcdefu;
    pair_add_block(pair, "ram0", RAM_BYTES, GW_BLOCK_MEMFD, 80);
    attempt->alias =
        mmap(NULL, RAM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, pair->blocks[0].source_fd, 0);
    attempt->before = malloc(RAM_BYTES);
    GW_ASSERT(attempt->alias != MAP_FAILED && attempt->before != NULL);
    memcpy(attempt->before, pair->blocks[0].source, RAM_BYTES);
    attempt->is_armed = true;
    pair_init(pair);
    pair_listen(pair);
    pair_start(pair);
}

static void close_attempt(struct attempt *attempt)
{
    pair_fini(&attempt->pair);
    for (unsigned i = 0; i < 2; i++)
        gw_params_free(attempt->params[i]);
    munmap(attempt->alias, RAM_BYTES);
    free(attempt->before);
}

/* It ended so at both sides, and the next attempt of both succeeds. */
static void expect_guest_stayed(struct attempt *attempt, int rc, enum gw_code code)
{
    struct pair *pair = &attempt->pair;
    GW_EXPECT(pair_finish(pair, SECONDS));
    GW_EXPECT(!attempt->is_armed);
    GW_EXPECT_LT(pair->source_rc, 0);
    if (rc != 0)
        GW_EXPECT_EQ(pair->source_rc, rc);
    if (!GW_EXPECT_EQ(pair->source_err.code, code) || !GW_EXPECT_EQ(pair->target_err.code, code))
        GW_NOTE_FAILURE("source: %s; target: %s", pair->source_err.message,
                        pair->target_err.message);
    GW_EXPECT_EQ(gw_target_outcome(pair->tgt), GW_TARGET_VOID);
    GW_EXPECT(pair->source_runs && !pair->target_runs);
    GW_EXPECT_EQ(pair->runs + pair->two_runners, 0);
    GW_EXPECT_EQ(pair->retakes, pair->releases);
    GW_EXPECT_MEMEQ(pair->blocks[0].source, attempt->before, RAM_BYTES);
    pair_listen(pair);
    pair_start(pair);
    GW_EXPECT(pair_finish(pair, SECONDS));
    if (!GW_EXPECT_EQ(pair->source_rc, 0) || !GW_EXPECT_EQ(pair->target_rc, 0))
        GW_NOTE_FAILURE("source: %s; target: %s", pair->source_err.message,
                        pair->target_err.message);
    GW_EXPECT(!pair->source_runs && pair->target_runs);
    GW_EXPECT_EQ(pair_differs(pair), -1);
    GW_EXPECT_EQ(pair->device_loaded, pair->device_value);
}

/* ---- cancelled --------------------------------------------------------------------------------- */

static int cancel(struct pair *pair)
{
    struct attempt *attempt = (struct attempt *)pair;
    if (attempt->is_armed)
        GW_EXPECT_EQ(gw_source_cancel(pair->src), 0);
    attempt->is_armed = false;
    return 0;
}

static void cancel_when_active(struct pair *pair, const struct gw_event *event)
{
    if (event->type == GW_EVENT_STATUS && event->status == GW_STATUS_ACTIVE)
        cancel(pair);
}

GW_TEST_EACH(one_sided, cancelled_while_pages_move_the_guest_stays, gw_one_sided_wires)
{
    struct attempt attempt = {.pair.source_event = cancel_when_active};
    open_attempt(&attempt, param);
    expect_guest_stayed(&attempt, -ECANCELED, GW_CODE_CANCELLED);
    close_attempt(&attempt);
}

GW_TEST_EACH(one_sided, cancelled_while_it_is_paused_the_guest_stays, gw_one_sided_wires)
{
    struct attempt attempt = {.pair.pause = cancel};
    open_attempt(&attempt, param);
    expect_guest_stayed(&attempt, -ECANCELED, GW_CODE_CANCELLED);
    close_attempt(&attempt);
}

GW_TEST_EACH(one_sided, cancelled_once_the_target_is_prepared_the_guest_stays, gw_one_sided_wires)
{
    struct attempt attempt = {.pair.release = cancel};
    open_attempt(&attempt, param);
    expect_guest_stayed(&attempt, -ECANCELED, GW_CODE_CANCELLED);
    close_attempt(&attempt);
}

/* ---- digests ----------------------------------------------------------------------------------- */

/* Behind the back of dirty tracking, which watches a mapping and not the memory: the page went in the first
 * round, and does not go again. */
static int change_unseen(struct pair *pair)
{
    struct attempt *attempt = (struct attempt *)pair;
    if (attempt->is_armed) {
        attempt->alias[CHANGED_AT] ^= 1;
        attempt->before[CHANGED_AT] ^= 1;
    }
    attempt->is_armed = false;
    return 0;
}

GW_TEST_EACH(one_sided, digests_that_differ_leave_the_guest_here, gw_one_sided_wires)
{
    struct attempt attempt = {.pair.pause = change_unseen};
    open_attempt(&attempt, param);
    expect_guest_stayed(&attempt, 0, GW_CODE_DIGEST);
    close_attempt(&attempt);
}
