// SPDX-License-Identifier: MIT
/* Every message of messages.def, well formed, on every endpoint, in every state of a migration and to
 * either side. What it says is out of place, or from the wrong side, or of another session; whatever it
 * is, the judgement of session.h holds, and a message that no state of that side listens to there is
 * refused. */
#include "control/codec.h"
#include "tests/hostile/session.h"
#include "tests/shim/gw_test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A state is told by the message that ends it: the lie is told right before. */
static const struct state {
    const char *name;
    enum liar_way way;
    enum gw_message_type type;
    unsigned nth;
} states[] = {
    {"hello", LIAR_TO_TARGET, GW_MSG_HELLO, 1},
    {"hello_reply", LIAR_TO_SOURCE, GW_MSG_HELLO_REPLY, 1},
    {"offer", LIAR_TO_TARGET, GW_MSG_BLOCKS, 1},
    {"ready", LIAR_TO_SOURCE, GW_MSG_BLOCKS_OK, 1},
    {"round", LIAR_TO_TARGET, GW_MSG_FENCE, 1},
    {"joined", LIAR_TO_SOURCE, GW_MSG_JOINED, 1},
    {"last_round", LIAR_TO_TARGET, GW_MSG_FENCE, 4},
    {"ram_end", LIAR_TO_TARGET, GW_MSG_STREAM, 3},
    {"device", LIAR_TO_TARGET, GW_MSG_STREAM, 4},
    {"prepare", LIAR_TO_TARGET, GW_MSG_PREPARE, 1},
    {"prepared", LIAR_TO_SOURCE, GW_MSG_PREPARED, 1},
    {"commit", LIAR_TO_TARGET, GW_MSG_COMMIT, 1},
    {"outcome", LIAR_TO_SOURCE, GW_MSG_OUTCOME, 1},
    {"ack", LIAR_TO_TARGET, GW_MSG_ACK, 1},
};

#define STATES (sizeof(states) / sizeof(states[0]))

static const char *const *state_names(void)
{
    static const char *names[STATES + 1];
    for (unsigned i = 0; i < STATES; i++)
        names[i] = states[i].name;
    return names;
}

struct word {
    const struct state *state;
    enum liar_way to;
    unsigned endpoint;
    uint8_t message[4096];
    size_t bytes;
    bool told;
};

static bool tell(struct liar *liar, void *ctx, const struct liar_event *event)
{
    struct word *word = ctx;
    if (word->told || event->is_preface || event->way != word->state->way ||
        event->type != word->state->type || event->nth != word->state->nth)
        return true;
    word->told = true;
    liar_say(liar, word->endpoint, word->to, word->message, word->bytes);
    return true;
}

/* What an honest peer may say at any time, and what is advice that nobody need take. */
static bool is_harmless(enum gw_message_type type)
{
    return type == GW_MSG_HEARTBEAT || type == GW_MSG_CREDIT || type == GW_MSG_WISHES;
}

/* Does the channel itself refuse it, whatever the state? */
static bool is_misplaced(const struct gw_message_def *def, const struct word *word)
{
    enum gw_message_from from = word->to == LIAR_TO_TARGET ? GW_FROM_SOURCE : GW_FROM_TARGET;
    enum gw_message_on on = word->endpoint == 0 ? GW_ON_CONTROL : GW_ON_PAGES;
    return !(def->from & from) || !(def->on & on);
}

static void try_word(const struct state *state, const struct gw_message_def *def, enum liar_way to,
                     unsigned endpoint)
{
    struct session session;
    struct word word = {.state = state, .to = to, .endpoint = endpoint};
    char name[96];
    word.bytes = session_sample(def->type, word.message, sizeof(word.message));
    snprintf(name, sizeof(name), "%s to %s on endpoint %u before %s", def->name,
             to == LIAR_TO_TARGET ? "target" : "source", endpoint, state->name);
    struct session_config config = {.name = name, .liar = {.hook = tell, .ctx = &word}};
    bool through = session_run(&session, &config);
    /* Once the outcome is set, who hears it first is a race that both sides win. */
    bool is_late = state->type == GW_MSG_COMMIT || state->type == GW_MSG_OUTCOME ||
                   state->type == GW_MSG_ACK || endpoint > 0;
    /* Nor do the target's words always arrive before the end of a connection that it refused while
     * more came in: a source that has heard nothing yet connects again, and then nobody lies. */
    bool is_anew = state->type == GW_MSG_HELLO && liar_control_connections(session.liar) > 1;
    if (through && session.lied && !is_late && !is_anew && !is_harmless(def->type))
        GW_NOTE_FAILURE("%s: passed for the truth", name);
    if (through && session.lied && is_misplaced(def, &word) && !is_late && !is_anew)
        GW_NOTE_FAILURE("%s: nobody minded", name);
    session_free(&session);
}

GW_TEST_EACH(state, any_message_out_of_place_ends_clean, state_names)
{
    unsigned number = 0, of = 0;
    const struct state *state = states;
    while (strcmp(state->name, param) != 0)
        state++;
    while (gw_message_def_at(of))
        of++;
    for (unsigned i = 0; i < of; i++) {
        for (unsigned to = 0; to < 2; to++) {
            for (unsigned endpoint = 0; endpoint < 2; endpoint++, number++) {
                /* Neighbours of one state are much alike: a share of them in each run. */
                if (session_is_chosen(number + 1000 * (uint64_t)(state - states), 4 * of, 12))
                    try_word(state, gw_message_def_at(i), (enum liar_way)to, endpoint);
            }
        }
    }
}
