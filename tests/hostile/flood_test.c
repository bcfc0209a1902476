// SPDX-License-Identifier: MIT
/* A peer that says more than it was asked for, or nothing: floods of well formed messages, a peer that
 * beats and reads nothing, sections without an end, and ten thousand strangers who connect and fall
 * silent. Memory stays within its limit, every step still ends, and the next honest guest gets in. */
#include "control/codec.h"
#include "core/base/alloc.h"
#include "tests/hostile/session.h"
#include "tests/shim/gw_test.h"
#include "tests/support/loopback.h"
#include "transport/listener.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define FLOOD_TIMES 100000

enum way_of_lying { FLOODS, FLOODS_AND_IS_DEAF, IS_DEAF_AND_BEATS, FALLS_SILENT_AND_BEATS };

static const struct flood {
    const char *name;
    enum liar_way way; /* who hears it */
    enum gw_message_type at;
    unsigned nth;
    enum way_of_lying how;
    unsigned endpoint;
    enum gw_message_type type; /* what is said over and over */
    uint32_t body_bytes;       /* 0: of tests/data/messages */
} floods[] = {
    {"heartbeats_to_target", LIAR_TO_TARGET, GW_MSG_FENCE, 1, FLOODS, 0, GW_MSG_HEARTBEAT, 0},
    {"heartbeats_to_source", LIAR_TO_SOURCE, GW_MSG_JOINED, 1, FLOODS, 0, GW_MSG_HEARTBEAT, 0},
    {"heartbeats_on_pages", LIAR_TO_TARGET, GW_MSG_FENCE, 1, FLOODS, 1, GW_MSG_HEARTBEAT, 0},
    {"sections_of_one_byte", LIAR_TO_TARGET, GW_MSG_FENCE, 1, FLOODS, 0, GW_MSG_STREAM, 1},
    {"a_section_without_end", LIAR_TO_TARGET, GW_MSG_FENCE, 1, FLOODS, 0, GW_MSG_STREAM, 1u << 20},
    {"zero_runs", LIAR_TO_TARGET, GW_MSG_FENCE, 1, FLOODS, 1, GW_MSG_ZERO, 0},
    {"joined", LIAR_TO_SOURCE, GW_MSG_JOINED, 1, FLOODS, 0, GW_MSG_JOINED, 0},
    {"outcomes", LIAR_TO_SOURCE, GW_MSG_PREPARED, 1, FLOODS, 0, GW_MSG_OUTCOME, 0},
    {"aborts", LIAR_TO_TARGET, GW_MSG_PREPARE, 1, FLOODS, 0, GW_MSG_ABORT, 0},
    {"asks", LIAR_TO_TARGET, GW_MSG_PREPARE, 1, FLOODS, 0, GW_MSG_ASK, 0},
    {"heartbeats_read_nothing", LIAR_TO_TARGET, GW_MSG_FENCE, 1, FLOODS_AND_IS_DEAF, 0,
     GW_MSG_HEARTBEAT, 0},
    {"deaf_source", LIAR_TO_TARGET, GW_MSG_FENCE, 1, IS_DEAF_AND_BEATS, 0, 0, 0},
    {"deaf_target", LIAR_TO_SOURCE, GW_MSG_JOINED, 1, IS_DEAF_AND_BEATS, 0, 0, 0},
    {"deaf_target_at_prepare", LIAR_TO_SOURCE, GW_MSG_PREPARED, 1, IS_DEAF_AND_BEATS, 0, 0, 0},
    {"source_stalls_after_hello", LIAR_TO_TARGET, GW_MSG_BLOCKS, 1, FALLS_SILENT_AND_BEATS, 0, 0,
     0},
    {"target_stalls_at_hello", LIAR_TO_SOURCE, GW_MSG_HELLO_REPLY, 1, FALLS_SILENT_AND_BEATS, 0, 0,
     0},
    {"target_stalls_at_blocks", LIAR_TO_SOURCE, GW_MSG_BLOCKS_OK, 1, FALLS_SILENT_AND_BEATS, 0, 0,
     0},
    {"target_stalls_in_a_round", LIAR_TO_SOURCE, GW_MSG_JOINED, 1, FALLS_SILENT_AND_BEATS, 0, 0, 0},
    {"target_stalls_at_prepare", LIAR_TO_SOURCE, GW_MSG_PREPARED, 1, FALLS_SILENT_AND_BEATS, 0, 0,
     0},
};

#define FLOODS_COUNT (sizeof(floods) / sizeof(floods[0]))

struct teller {
    const struct flood *flood;
    uint8_t *message;
    size_t bytes;
    bool told;
};

static bool tell(struct liar *liar, void *ctx, const struct liar_event *event)
{
    struct teller *teller = ctx;
    const struct flood *flood = teller->flood;
    enum liar_way back = flood->way == LIAR_TO_TARGET ? LIAR_TO_SOURCE : LIAR_TO_TARGET;
    if (teller->told || event->is_preface || event->way != flood->way || event->type != flood->at ||
        event->nth != flood->nth)
        return true;
    teller->told = true;
    switch (flood->how) {
    case FLOODS_AND_IS_DEAF:
        liar_deafen(liar, back);
        /* fall through */
    case FLOODS:
        liar_flood(liar, flood->endpoint, flood->way, teller->message, teller->bytes, FLOOD_TIMES);
        return true;
    case IS_DEAF_AND_BEATS:
        liar_deafen(liar, back);
        liar_drop_rest(liar, flood->way);
        liar_beat(liar, flood->way);
        return true;
    case FALLS_SILENT_AND_BEATS:
        liar_drop_rest(liar, flood->way);
        liar_beat(liar, flood->way);
        return false;
    }
    return true;
}

static const char *const *flood_names(void)
{
    static const char *names[FLOODS_COUNT + 1];
    for (unsigned i = 0; i < FLOODS_COUNT; i++)
        names[i] = floods[i].name;
    return names;
}

static void run_flood(const char *param, bool is_unix)
{
    struct session session;
    struct teller teller = {.flood = floods, .message = calloc(1, GW_MESSAGE_BYTES_DEFAULT)};
    while (strcmp(teller.flood->name, param) != 0)
        teller.flood++;
    const struct flood *flood = teller.flood;
    if (flood->body_bytes > 0) {
        gw_be16_store(teller.message, (uint16_t)flood->type);
        gw_be16_store(teller.message + 2, flood->body_bytes == 1 ? GW_MSG_FLAG_LAST : 0);
        teller.message[GW_MESSAGE_HEADER_BYTES] = 0x03; /* an END: it waits for the last fence */
        teller.bytes = GW_MESSAGE_HEADER_BYTES + flood->body_bytes;
    } else if (flood->type > 0) {
        teller.bytes = session_sample(flood->type, teller.message, 4096);
    }
    /* Who is deaf or stalls is told by the time that it takes. */
    struct session_config config = {.name = param,
                                    .patience = flood->how == FLOODS ? SESSION_PATIENT : 3,
                                    .is_unix = is_unix,
                                    .liar = {.hook = tell, .ctx = &teller}};
    bool through = session_run(&session, &config);
    GW_EXPECT(session.lied);
    bool is_harmless = flood->how == FLOODS && flood->type == GW_MSG_HEARTBEAT;
    /* Words of another token after COMMIT only make the source ask anew, and they race with it. */
    if (flood->type != GW_MSG_OUTCOME)
        GW_EXPECT_EQ(through, is_harmless);
    session_free(&session);
    free(teller.message);
}

GW_TEST_EACH(flood, ends_in_bounded_time_and_memory, flood_names)
{
    run_flood(param, false);
}

static const char *const floods_over_unix[] = {"heartbeats_to_target",
                                               "sections_of_one_byte",
                                               "a_section_without_end",
                                               "joined",
                                               "deaf_source",
                                               "deaf_target",
                                               NULL};

GW_TEST_EACH(flood, ends_over_unix_too, floods_over_unix)
{
    run_flood(param, true);
}

/* A source may ask for 255 page endpoints: what each of them costs is bounded. */
GW_TEST(flood, page_endpoints_cost_little_each)
{
    struct session few, many;
    struct session_config config = {.name = "few", .patience = SESSION_PATIENT, .channels = "1"};
    GW_EXPECT(session_run(&few, &config));
    int64_t before = gw_alloc_peak();
    session_free(&few);
    config = (struct session_config){.name = "many", .patience = SESSION_PATIENT, .channels = "21"};
    GW_EXPECT(session_run(&many, &config));
    GW_EXPECT_LE(gw_alloc_peak() - before, INT64_C(2) * 20 * (600 << 10)); /* of both sides */
    session_free(&many);
}

/* ---- strangers -------------------------------------------------------------------------------------- */

#define STRANGERS 10000

/* Some say nothing, some half a preface, some a whole one for a control connection. */
static int stranger(const struct sockaddr_in *address, unsigned number)
{
    uint8_t preface[32] = {'G', 'O', 'D', 'W', 'I', 'T', 0, 1};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0) {
        int rc = -errno;
        close(fd);
        return rc;
    }
    memcpy(preface + 8, &number, sizeof(number));
    size_t bytes = number % 3 == 0 ? 0 : number % 3 == 1 ? 16 : sizeof(preface);
    if (bytes > 0 && send(fd, preface, bytes, MSG_NOSIGNAL) < 0 && errno != EPIPE &&
        errno != ECONNRESET)
        GW_NOTE_FAILURE("stranger %u: %d", number, errno);
    return fd;
}

static void expect_honest_guest_gets_in(struct pair *pair)
{
    pair_start(pair);
    GW_EXPECT(pair_finish(pair, 30));
    GW_EXPECT_EQ(pair->source_rc, 0);
    GW_EXPECT_STREQ(pair->source_err.message, "");
    GW_EXPECT_EQ(pair->target_rc, 0);
    GW_EXPECT_EQ(pair_differs(pair), -1);
}

static void strangers(unsigned every)
{
    struct pair pair = {.device_value = 7};
    struct rlimit files;
    GW_ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &files), 0);
    if (files.rlim_cur < STRANGERS + 4096) {
        files.rlim_cur = STRANGERS + 4096;
        files.rlim_max = files.rlim_max > files.rlim_cur ? files.rlim_max : files.rlim_cur;
        if (setrlimit(RLIMIT_NOFILE, &files) < 0)
            GW_SKIP("this process may not open %u files", STRANGERS + 4096);
    }
    int *fds = malloc(STRANGERS * sizeof(*fds));
    pair_add_block(&pair, "ram0", 64u << 10, GW_BLOCK_ANON, 80);
    pair_init(&pair);
    pair_listen(&pair);
    gw_alloc_peak_reset();
    struct sockaddr_in address = loopback_address(gw_target_uri(pair.tgt));
    unsigned opened = 0;
    for (; opened < STRANGERS; opened++) {
        fds[opened] = stranger(&address, every ? opened * every : opened);
        if (fds[opened] < 0)
            break;
    }
    GW_EXPECT_EQ(opened, STRANGERS);
    expect_honest_guest_gets_in(&pair);
    GW_EXPECT_LE(gw_alloc_peak(), INT64_C(64) << 20);
    while (opened > 0)
        close(fds[--opened]);
    free(fds);
    pair_fini(&pair);
}

GW_TEST(flood, ten_thousand_silent_strangers_keep_nobody_out)
{
    strangers(3);
}

GW_TEST(flood, ten_thousand_strangers_with_prefaces_keep_nobody_out)
{
    strangers(0);
}
