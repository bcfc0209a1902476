// SPDX-License-Identifier: MIT
/* Whole migrations through filters: what a tap records can be played to either side again, and a link
 * that a fault cuts leaves the guest where it was, with an error that says so. */
#include "core/base/error.h"
#include "tests/shim/gw_test.h"
#include "tests/support/command.h"
#include "tests/support/pair.h"
#include "tests/support/replay.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE_S 60

/* ---- recordings ------------------------------------------------------------------------------- */

static char *new_folder(void)
{
    static char folder[64];
    snprintf(folder, sizeof(folder), "/tmp/godwit-test-XXXXXX");
    GW_ASSERT(mkdtemp(folder) != NULL);
    return folder;
}

static unsigned remove_folder(const char *path)
{
    unsigned count = 0;
    DIR *dir = opendir(path);
    const struct dirent *entry;
    while (dir && (entry = readdir(dir)) != NULL)
        count += unlinkat(dirfd(dir), entry->d_name, 0) == 0;
    if (dir)
        closedir(dir);
    rmdir(path);
    return count;
}

static void build(struct pair *pair, const char *listen_uri)
{
    memset(pair, 0, sizeof(*pair));
    pair->listen_uri = listen_uri;
    pair->device_value = 0x600dcafe;
    pair_add_block(pair, "ram", 16u << 20, GW_BLOCK_ANON, 50);
    pair_add_block(pair, "more", 2u << 20, GW_BLOCK_MEMFD, 80);
    pair_init(pair);
}

static void start_through(struct pair *pair, const char *filters, const char *query)
{
    char uri[512];
    struct gw_error err = GW_ERROR_INIT;
    snprintf(uri, sizeof(uri), "%s%s?%s", filters, gw_target_uri(pair->tgt), query);
    if (gw_source_start(pair->src, uri, &err) < 0)
        GW_FAIL("start: %s", err.message);
}

/* A guest that stands still moves through taps at both ends. */
static void record(const char *folder)
{
    struct pair pair;
    char query[128], uri[256];
    snprintf(query, sizeof(query), "payload=on&dir=%s", folder);
    snprintf(uri, sizeof(uri), "tap+tcp:127.0.0.1:0?%s", query);
    build(&pair, uri);
    pair_listen(&pair);
    GW_EXPECT(strncmp(gw_target_uri(pair.tgt), "tcp:127", 7) == 0); /* what a peer can use */
    start_through(&pair, "tap+", query);
    GW_ASSERT(pair_finish(&pair, PATIENCE_S));
    GW_ASSERT_EQ(pair.source_rc, 0);
    GW_ASSERT_EQ(pair.target_rc, 0);
    GW_EXPECT_EQ(pair_differs(&pair), -1);
    pair_fini(&pair);
}

static void load(const char *folder, unsigned side, struct tap_session *session)
{
    struct gw_error err = GW_ERROR_INIT;
    if (tap_session_load(folder, side, session, &err) < 0)
        GW_FAIL("%s", err.message);
}

struct player {
    pthread_t thread;
    const struct tap_session *session;
    char uri[256];
    struct replay_target *target; /* NULL: it plays the source */
    struct replay_report report;
    int rc;
    _Atomic bool done;
};

static void *run_player(void *arg)
{
    struct player *player = arg;
    player->rc = player->target
                     ? replay_target_run(player->target, player->session, &player->report)
                     : replay_source(player->session, player->uri, &player->report);
    atomic_store(&player->done, true);
    return NULL;
}

static time_t now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec;
}

/* The player beside the live side, until both have ended. The live side's result. */
static int play(struct player *player, struct pair *pair, struct gw_error *err)
{
    time_t until_s = now_s() + PATIENCE_S;
    int rc = -EINPROGRESS;
    GW_ASSERT_EQ(pthread_create(&player->thread, NULL, run_player, player), 0);
    if (player->target)
        GW_ASSERT_EQ(gw_source_start(pair->src, player->uri, err), 0);
    while ((rc == -EINPROGRESS || !atomic_load(&player->done)) && now_s() < until_s) {
        pair_pump(pair, 2);
        if (rc == -EINPROGRESS)
            rc = player->target ? gw_source_wait(pair->src, 0, err)
                                : gw_target_wait(pair->tgt, 0, err);
        if (atomic_load(&player->done) && player->rc < 0 && rc == -EINPROGRESS) {
            if (player->target)
                gw_source_cancel(pair->src);
            else
                gw_target_cancel(pair->tgt);
        }
    }
    pthread_join(player->thread, NULL);
    return rc;
}

GW_TEST(replay, a_recorded_source_moves_its_guest_to_a_live_target)
{
    struct tap_session session;
    struct player player = {.session = &session};
    struct pair pair;
    struct gw_error err = GW_ERROR_INIT;
    const char *folder = new_folder();
    record(folder);
    load(folder, 0, &session);
    GW_EXPECT_EQ(session.count, 3); /* control and two page endpoints */
    for (unsigned i = 0; i < session.count; i++)
        GW_EXPECT(session.recordings[i].whole);

    build(&pair, NULL);
    pair.device_value = 0;
    pair_listen(&pair);
    snprintf(player.uri, sizeof(player.uri), "%s", gw_target_uri(pair.tgt));
    GW_EXPECT_EQ(play(&player, &pair, &err), 0);
    if (!GW_EXPECT_EQ(player.rc, 0))
        GW_NOTE_FAILURE("%s; live: %s", player.report.err.message, err.message);
    GW_EXPECT_EQ(atomic_load(&pair.runs), 1);
    GW_EXPECT_EQ(pair_differs(&pair),
                 -1); /* its source, which never started, has the same memory */
    GW_EXPECT_EQ(pair.device_loaded, 0x600dcafe);
    GW_EXPECT_GT(player.report.put_bytes, 8u << 20);
    GW_EXPECT_GE(player.report.heard, 6); /* HELLO_REPLY, BLOCKS_OK, JOINED, PREPARED, OUTCOME */
    pair_fini(&pair);
    tap_session_unload(&session);
    GW_EXPECT_EQ(remove_folder(folder), 6);
}

GW_TEST(replay, a_recorded_target_takes_the_guest_of_a_live_source)
{
    struct tap_session session;
    struct player player = {.session = &session};
    struct pair pair;
    struct gw_error err = GW_ERROR_INIT;
    const char *folder = new_folder();
    record(folder);
    load(folder, 1, &session);
    GW_EXPECT_EQ(session.count, 3);

    build(&pair, NULL);
    player.target = replay_target_new("tcp:127.0.0.1:0", player.uri, sizeof(player.uri));
    GW_ASSERT(player.target != NULL);
    GW_EXPECT_EQ(play(&player, &pair, &err), 0);
    if (!GW_EXPECT_EQ(player.rc, 0))
        GW_NOTE_FAILURE("%s; live: %s", player.report.err.message, err.message);
    GW_EXPECT_EQ(pair_source_status(&pair), GW_STATUS_COMPLETED);
    GW_EXPECT(player.report.memory_is_equal);
    GW_EXPECT_GT(player.report.put_bytes, 8u << 20);
    replay_target_free(player.target);
    pair_fini(&pair);
    tap_session_unload(&session);
    remove_folder(folder);
}

GW_TEST(replay, a_live_source_with_other_memory_is_found_out)
{
    struct tap_session session;
    struct player player = {.session = &session};
    struct pair pair;
    struct gw_error err = GW_ERROR_INIT;
    const char *folder = new_folder();
    record(folder);
    load(folder, 1, &session);
    build(&pair, NULL);
    pair.blocks[0].source[5 << 20] ^= 1;
    player.target = replay_target_new("tcp:127.0.0.1:0", player.uri, sizeof(player.uri));
    play(&player, &pair, &err);
    GW_EXPECT(!player.report.memory_is_equal);
    replay_target_free(player.target);
    pair_fini(&pair);
    tap_session_unload(&session);
    remove_folder(folder);
}

GW_TEST(replay, a_live_source_with_other_words_is_found_out)
{
    struct tap_session session;
    struct player player = {.session = &session};
    struct pair pair;
    struct gw_error err = GW_ERROR_INIT;
    const char *folder = new_folder();
    record(folder);
    load(folder, 1, &session);
    build(&pair, NULL);
    pair.device_value = 0xbad;
    player.target = replay_target_new("tcp:127.0.0.1:0", player.uri, sizeof(player.uri));
    GW_EXPECT_LT(play(&player, &pair, &err), 0);
    GW_EXPECT_EQ(player.rc, -EBADMSG);
    if (!GW_EXPECT(strstr(player.report.err.message, "STREAM was recorded, STREAM was said with")))
        GW_NOTE_FAILURE("%s", player.report.err.message);
    replay_target_free(player.target);
    pair_fini(&pair);
    tap_session_unload(&session);
    remove_folder(folder);
}

/* ---- the command -------------------------------------------------------------------------------- */

/* Where nobody falls silent on purpose. */
#define PATIENT "x-peer-timeout=30000"

/* `godwit send` through @filters with @query at the source: its exit status and document. */
static int send_through(const char *filters, const char *query, const char *peer_timeout,
                        json_t **document)
{
    static struct command target, source;
    char at[256], uri[512];
    command_start(&target, (const char *const[]){"receive", "tcp:127.0.0.1:0", "--quiet",
                                                 "--run-for", "0", NULL});
    GW_ASSERT(command_await_uri(&target, at, sizeof(at)));
    snprintf(uri, sizeof(uri), "%s%s?%s", filters, at, query);
    command_start(&source, (const char *const[]){
                               "send", uri, "--ram", "64M", "--dirty-rate", "20M", "--warmup",
                               "0.1", "--quiet", "--json", "-", "--set", "max-bandwidth=60M",
                               "--set", "downtime-limit=100", "--set", peer_timeout, NULL});
    int status = command_finish(&source);
    *document = command_document(&source);
    command_finish(&target);
    GW_ASSERT(*document != NULL);
    return status;
}

GW_TEST(fault_command, a_cut_in_the_second_round_leaves_the_guest_here_and_says_why)
{
    json_t *document;
    /* Half of 64 MiB is endpoint 1's, so byte 33 M is of the second round. */
    int status = send_through("fault+", "do=cut,ep=1,at=bytes:33M", PATIENT, &document);
    GW_EXPECT_EQ(status, 1);
    GW_EXPECT_STREQ(json_text_at(document, "error", "code"), "peer-lost");
    if (!GW_EXPECT(strstr(json_text_at(document, "error", "message"), "cut on purpose") != NULL))
        GW_NOTE_FAILURE("%s", json_text_at(document, "error", "message"));
    if (!GW_EXPECT(strstr(json_text_at(document, "error", "place"), "endpoint 1") != NULL))
        GW_NOTE_FAILURE("%s", json_text_at(document, "error", "place"));
    GW_EXPECT_STREQ(json_text_at(document, "error", "phase"), "active");
    GW_EXPECT(json_text_at(document, "error", "hint")[0] != '\0');
    GW_EXPECT(json_is_true(json_at(document, "guest", "verified")));
    GW_EXPECT_STREQ(json_text_at(document, "status", NULL), "failed");
    GW_EXPECT_EQ(json_array_size(json_at(document, "rounds", NULL)), 1);
    json_decref(document);
}

GW_TEST(fault_command, a_slow_and_ragged_link_only_takes_longer)
{
    json_t *document;
    int status = send_through("fault+",
                              "seed=5&do=rate:20M,ep=pages&do=delay:3ms,chance=0.01,way=both&"
                              "do=take:7&do=window:40&do=pieces:16k",
                              PATIENT, &document);
    GW_EXPECT_EQ(status, 0);
    GW_EXPECT(json_is_true(json_at(document, "guest", "verified")));
    GW_EXPECT_GE(json_real_at(document, "total-time-ms", NULL), 1500); /* 32 MiB each */
    GW_EXPECT_STREQ(json_text_at(document, "wire", "name"), "tcp");
    json_decref(document);
}

GW_TEST(fault_command, silence_ends_by_the_peer_timeout)
{
    json_t *document;
    int status =
        send_through("fault+", "do=mute,ep=control,at=message:6", "x-peer-timeout=2000", &document);
    GW_EXPECT_EQ(status, 1);
    GW_EXPECT_STREQ(json_text_at(document, "error", "code"), "peer-silent");
    GW_EXPECT(json_is_true(json_at(document, "guest", "verified")));
    json_decref(document);
}

GW_TEST(fault_command, a_refused_first_attempt_is_made_again)
{
    json_t *document;
    GW_EXPECT_EQ(send_through("fault+", "do=refuse,ep=control,attempt=1-3", PATIENT, &document), 0);
    GW_EXPECT_GE(json_real_at(document, "setup-time-ms", NULL), 250); /* 100 ms between attempts */
    json_decref(document);
}

GW_TEST(fault_command, a_link_cut_behind_commit_is_settled_by_asking)
{
    json_t *document;
    char query[128];
    struct tap_session session;
    const char *folder = new_folder();
    snprintf(query, sizeof(query), "dir=%s&do=cut,ep=control,head=0042,at=message:1", folder);
    GW_EXPECT_EQ(send_through("tap+fault+", query, PATIENT, &document), 0);
    GW_EXPECT_STREQ(json_text_at(document, "status", NULL), "completed");
    load(folder, 0, &session);
    GW_EXPECT_EQ(session.count, 4); /* control, two for pages, and control again */
    tap_session_unload(&session);
    remove_folder(folder);
    json_decref(document);
}

GW_TEST(fault_command, a_rule_that_is_none_is_a_usage_error)
{
    static struct command source;
    command_start(&source, (const char *const[]){"send", "fault+tcp:127.0.0.1:1?do=explode", NULL});
    GW_EXPECT_EQ(command_finish(&source), 2);
    GW_EXPECT(strstr(source.err.text, "the action is none of") != NULL);
}
