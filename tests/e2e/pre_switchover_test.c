// SPDX-License-Identifier: MIT
/* A host dies or stands still while the other waits in pre-switchover, as long as its operator likes: two
 * embedders of their own (embedder.h). The guest has not been paused; it runs on at the source. (The
 * command goes on by itself, so faults_test.c cannot stop there.) */
#include "tests/e2e/embedder.h"
#include "tests/e2e/scene.h"
#include "tests/shim/gw_test.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

/* Of who is killed, so that what is noticed sooner was not noticed by silence; and of who is stopped. */
#define KILLED_TIMEOUT_MS 60000u
#define STOPPED_TIMEOUT_MS (SCENE_SANITIZED ? 4000u : 2000u)

struct two {
    struct embedder source, target;
};

static void wait_in_pre_switchover(struct two *two, unsigned peer_timeout_ms)
{
    char uri[EMBEDDER_LINE_BYTES];
    struct embedder *embedders[] = {&two->source, &two->target};
    for (unsigned i = 0; i < 2; i++) {
        embedder_begin(embedders[i]);
        embedder_say(embedders[i], "set x-peer-timeout %u", peer_timeout_ms);
        embedder_say(embedders[i], "set x-hold-timeout 500");
        embedder_say(embedders[i], "set x-settle-timeout 500");
    }
    embedder_say(&two->source, "set pause-before-switchover on");
    embedder_say(&two->source, "new");
    embedder_hear(&two->source, "new", NULL);
    embedder_say(&two->target, "receive");
    embedder_hear(&two->target, "uri", uri);
    embedder_say(&two->source, "send %s", uri);
    embedder_hear(&two->source, "pre-switchover", NULL);
}

static void end_both(struct two *two)
{
    embedder_end(&two->source);
    embedder_end(&two->target);
}

static void expect_it_runs_on_here(struct two *two, const char *why)
{
    char how[EMBEDDER_LINE_BYTES], code[32] = "", phase[32] = "", runs[16] = "", whole[16] = "";
    int rc = 0;
    embedder_hear(&two->source, "sent", how);
    GW_EXPECT_EQ(sscanf(how, "%d %31s %31s %15s %15s", &rc, code, phase, runs, whole), 5);
    GW_EXPECT_LT(rc, 0);
    GW_EXPECT_STREQ(code, why);
    GW_EXPECT_STREQ(phase, "pre-switchover");
    GW_EXPECT_STREQ(runs, "runs");
    GW_EXPECT_STREQ(whole, "whole");
    uint64_t writes = embedder_writes(&two->source), until_ms = scene_now_ms() + 30000;
    while (embedder_writes(&two->source) <= writes && scene_now_ms() < until_ms)
        scene_wait(5);
    GW_EXPECT_GT(embedder_writes(&two->source), writes);
}

static void expect_it_never_ran_there(struct two *two, const char *why)
{
    char how[EMBEDDER_LINE_BYTES], code[32] = "", runs[16] = "";
    int rc = 0;
    embedder_hear(&two->target, "received", how);
    GW_EXPECT_EQ(sscanf(how, "%d %31s %*s %15s", &rc, code, runs), 3);
    GW_EXPECT_LT(rc, 0);
    GW_EXPECT_STREQ(code, why);
    GW_EXPECT_STREQ(runs, "paused");
}

static void strike(bool at_source, int number, unsigned peer_timeout_ms)
{
    struct two two;
    wait_in_pre_switchover(&two, peer_timeout_ms);
    uint64_t begun_ms = scene_now_ms();
    kill(at_source ? two.source.pid : two.target.pid, number);
    const char *why = number == SIGSTOP ? "peer-silent" : "peer-lost";
    if (at_source)
        expect_it_never_ran_there(&two, why);
    else
        expect_it_runs_on_here(&two, why);
    fprintf(stderr, "  over after %llu ms\n", (unsigned long long)(scene_now_ms() - begun_ms));
    GW_EXPECT_LT(scene_now_ms() - begun_ms, KILLED_TIMEOUT_MS / 2);
    end_both(&two);
}

GW_TEST(pre_switchover, target_killed)
{
    strike(false, SIGKILL, KILLED_TIMEOUT_MS);
}

GW_TEST(pre_switchover, source_killed)
{
    strike(true, SIGKILL, KILLED_TIMEOUT_MS);
}

GW_TEST(pre_switchover, target_stopped)
{
    strike(false, SIGSTOP, STOPPED_TIMEOUT_MS);
}

GW_TEST(pre_switchover, source_stopped)
{
    strike(true, SIGSTOP, STOPPED_TIMEOUT_MS);
}

/* For less than the peer time-out: nobody notices, and what was waited for goes on. */
GW_TEST(pre_switchover, target_stopped_a_while)
{
    struct two two;
    char how[EMBEDDER_LINE_BYTES];
    wait_in_pre_switchover(&two, KILLED_TIMEOUT_MS);
    kill(two.target.pid, SIGSTOP);
    embedder_say(&two.source, "continue");
    scene_wait(STOPPED_TIMEOUT_MS);
    kill(two.target.pid, SIGCONT);
    embedder_hear(&two.source, "sent", how);
    GW_EXPECT_STREQ(how, "0 - - paused whole");
    embedder_hear(&two.target, "received", how);
    GW_EXPECT_STREQ(how, "0 - - runs whole");
    end_both(&two);
}
