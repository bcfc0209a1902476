// SPDX-License-Identifier: MIT
/* From A to B to C and back to A, three processes (embedder.h), as a hypervisor on three hosts would do it:
 * the built-in guest goes round, again and again, writing all the way. At each hop it is checked as it
 * arrives, it goes on writing where it stopped, and its count of writes goes on; the copy that stays
 * behind is whole. */
#include "tests/e2e/embedder.h"
#include "tests/e2e/scene.h"
#include "tests/shim/gw_test.h"

#include <string.h>

#define SECONDS 60u
#define EMBEDDERS 3u
#define ROUNDS 2u /* all the way round */

/* The guest writes on at @embedder. */
static void await_writes(struct embedder *embedder, uint64_t beyond)
{
    uint64_t until_ms = scene_now_ms() + UINT64_C(1000) * SECONDS;
    while (embedder_writes(embedder) <= beyond) {
        if (scene_now_ms() > until_ms)
            GW_FAIL("the guest does not write");
        scene_wait(5);
    }
}

/* Return: how much it has written when it had arrived. */
static uint64_t hop(struct embedder *from, struct embedder *to)
{
    char uri[EMBEDDER_LINE_BYTES], how[EMBEDDER_LINE_BYTES];
    uint64_t before = embedder_writes(from);
    embedder_say(to, "receive");
    GW_ASSERT(embedder_hear(to, "uri", uri));
    embedder_say(from, "send %s", uri);
    embedder_hear(from, "sent", how);
    GW_EXPECT_STREQ(how, "0 - - paused whole");
    embedder_hear(to, "received", how);
    GW_EXPECT_STREQ(how, "0 - - runs whole");
    uint64_t after = embedder_writes(to);
    GW_EXPECT_GE(after, before);
    return after;
}

GW_TEST(hops, from_a_to_b_to_c_and_back_to_a)
{
    struct embedder embedders[EMBEDDERS];
    char how[EMBEDDER_LINE_BYTES];
    for (unsigned i = 0; i < EMBEDDERS; i++)
        embedder_begin(&embedders[i]);
    embedder_say(&embedders[0], "new");
    GW_EXPECT(embedder_hear(&embedders[0], "new", NULL));
    await_writes(&embedders[0], 100);
    for (unsigned i = 0; i < ROUNDS * EMBEDDERS; i++) {
        struct embedder *to = &embedders[(i + 1) % EMBEDDERS];
        uint64_t writes = hop(&embedders[i % EMBEDDERS], to);
        await_writes(to, writes + 100);
        embedder_say(to, "check");
        embedder_hear(to, "check", how);
        GW_EXPECT_STREQ(how, "ok");
    }
    for (unsigned i = 0; i < EMBEDDERS; i++)
        embedder_end(&embedders[i]);
}
