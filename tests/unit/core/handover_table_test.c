// SPDX-License-Identifier: MIT
/* What must hold of every line of core/handover.def, found by walking both tables whole: the rules of
 * docs/protocol.md section 5 as facts about states, events and actions. */
#include "core/handover.h"
#include "tests/shim/gw_test.h"

#include <stdbool.h>
#include <string.h>

/* ---- walking ---------------------------------------------------------------------------------- */

struct line {
    unsigned from, event, to;
    uint32_t actions;
};

enum { LINES_MAX = 256, STATES_MAX = 16 };

struct table {
    struct line lines[LINES_MAX];
    unsigned count;
};

static struct table source_table(void)
{
    struct table table = {.count = 0};
    for (unsigned s = 0; s < GW_HS_COUNT_; s++) {
        for (unsigned e = 0; e < GW_HSE_COUNT_; e++) {
            enum gw_hs_state state = (enum gw_hs_state)s;
            struct line line = {.from = s, .event = e};
            if (!gw_handover_source(&state, (enum gw_hs_event)e, &line.actions))
                continue;
            line.to = (unsigned)state;
            table.lines[table.count++] = line;
        }
    }
    return table;
}

static struct table target_table(void)
{
    struct table table = {.count = 0};
    for (unsigned s = 0; s < GW_HT_COUNT_; s++) {
        for (unsigned e = 0; e < GW_HTE_COUNT_; e++) {
            enum gw_ht_state state = (enum gw_ht_state)s;
            struct line line = {.from = s, .event = e};
            if (!gw_handover_target(&state, (enum gw_ht_event)e, &line.actions))
                continue;
            line.to = (unsigned)state;
            table.lines[table.count++] = line;
        }
    }
    return table;
}

/* Everything that can be reached from @from, itself included. */
static void reach(const struct table *table, unsigned from, bool reached[STATES_MAX])
{
    memset(reached, 0, STATES_MAX * sizeof(*reached));
    reached[from] = true;
    for (bool grew = true; grew;) {
        grew = false;
        for (unsigned i = 0; i < table->count; i++) {
            if (!reached[table->lines[i].from] || reached[table->lines[i].to])
                continue;
            reached[table->lines[i].to] = grew = true;
        }
    }
}

#define FOR_EACH(line, table)                                                                      \
    for (const struct line *line = (table)->lines; line < (table)->lines + (table)->count; line++)

/* ---- the source ------------------------------------------------------------------------------- */

static bool is_past_commit(unsigned state)
{
    return state == GW_HS_COMMITTED || state == GW_HS_ASKING || state == GW_HS_UNKNOWN;
}

GW_TEST(handover_source, commit_is_said_once_and_after_release_alone)
{
    struct table table = source_table();
    unsigned lines = 0;
    FOR_EACH(line, &table)
    {
        if (!(line->actions & GW_HSA_SEND_COMMIT))
            continue;
        lines++;
        GW_EXPECT_EQ(line->from, GW_HS_RELEASING);
        GW_EXPECT_EQ(line->event, GW_HSE_RELEASED);
        GW_EXPECT_EQ(line->to, GW_HS_COMMITTED);
    }
    GW_EXPECT_EQ(lines, 1);
    bool reached[STATES_MAX];
    reach(&table, GW_HS_COMMITTED, reached);
    GW_EXPECT(!reached[GW_HS_RELEASING]);
}

GW_TEST(handover_source, past_commit_only_a_word_of_the_target_or_an_operator_leads_back)
{
    struct table table = source_table();
    FOR_EACH(line, &table)
    {
        if (!is_past_commit(line->from) || is_past_commit(line->to) ||
            line->to == GW_HS_COMPLETED || line->to == GW_HS_ABANDONED)
            continue;
        GW_EXPECT_EQ(line->to, GW_HS_RETAKING);
        GW_EXPECT(line->event == GW_HSE_SAID_VOID || line->event == GW_HSE_SAID_DECLINED ||
                  (line->event == GW_HSE_RESOLVE_RESUME && line->from == GW_HS_UNKNOWN));
    }
}

GW_TEST(handover_source, abort_is_never_said_past_commit)
{
    struct table table = source_table();
    bool reached[STATES_MAX];
    reach(&table, GW_HS_COMMITTED, reached);
    FOR_EACH(line, &table)
    {
        if (reached[line->from])
            GW_EXPECT(!(line->actions & GW_HSA_SEND_ABORT));
    }
}

GW_TEST(handover_source, asks_only_past_commit)
{
    struct table table = source_table();
    FOR_EACH(line, &table)
    {
        if (line->actions & (GW_HSA_SEND_ASK | GW_HSA_RECONNECT | GW_HSA_SEND_ACK))
            GW_EXPECT(is_past_commit(line->from));
    }
}

GW_TEST(handover_source, whoever_backs_out_after_pause_resumes_or_is_stuck)
{
    struct table table = source_table();
    bool reached[STATES_MAX];
    static const unsigned on_the_way_back[] = {GW_HS_WITHDRAWN, GW_HS_RETAKING, GW_HS_RESUMING};
    for (unsigned i = 0; i < 3; i++) {
        reach(&table, on_the_way_back[i], reached);
        GW_EXPECT(reached[GW_HS_ENDED]);
        GW_EXPECT(!reached[GW_HS_COMMITTED] && !reached[GW_HS_COMPLETED]);
    }
    FOR_EACH(line, &table)
    {
        if (line->to == GW_HS_ENDED && line->from != GW_HS_PRECOPY &&
            line->event != GW_HSE_PAUSE_FAILED)
            GW_EXPECT_EQ(line->event, GW_HSE_RESUMED);
        if (line->to == GW_HS_RESUMING && line->from != line->to)
            GW_EXPECT(line->actions & GW_HSA_CALL_RESUME);
        if (line->to == GW_HS_RETAKING && line->from != line->to)
            GW_EXPECT(line->actions & GW_HSA_CALL_RETAKE);
    }
}

GW_TEST(handover_source, one_callback_at_a_time)
{
    struct table table = source_table();
    static const uint32_t calls = GW_HSA_CALL_RELEASE | GW_HSA_CALL_RETAKE | GW_HSA_CALL_RESUME;
    FOR_EACH(line, &table)
    {
        GW_EXPECT_LE(__builtin_popcount(line->actions & calls), 1);
        bool waits = line->from == GW_HS_RELEASING || line->from == GW_HS_WITHDRAWN ||
                     line->from == GW_HS_RETAKING || line->from == GW_HS_RESUMING;
        bool returned = line->event >= GW_HSE_RETAKEN || line->event == GW_HSE_RELEASED ||
                        line->event == GW_HSE_RELEASE_FAILED;
        if (waits && (line->actions & calls))
            /* RELEASE_FAILED and the like: the one before has returned */
            GW_EXPECT(returned);
    }
}

GW_TEST(handover_source, every_state_is_reached_and_leads_to_an_end)
{
    struct table table = source_table();
    bool reached[STATES_MAX];
    reach(&table, GW_HS_PRECOPY, reached);
    for (unsigned s = 0; s < GW_HS_COUNT_; s++) {
        bool on[STATES_MAX];
        GW_EXPECT(reached[s]);
        reach(&table, s, on);
        GW_EXPECT(on[GW_HS_ENDED] || on[GW_HS_COMPLETED] || on[GW_HS_ABANDONED]);
    }
    FOR_EACH(line, &table)
    GW_EXPECT(line->from != GW_HS_ENDED && line->from != GW_HS_COMPLETED &&
              line->from != GW_HS_ABANDONED);
}

GW_TEST(handover_source, event_that_a_state_does_not_list_changes_nothing)
{
    enum gw_hs_state state = GW_HS_COMMITTED;
    uint32_t actions = 77;
    GW_EXPECT_EQ(gw_handover_source(&state, GW_HSE_BACK_OUT, &actions), 0);
    GW_EXPECT_EQ(state, GW_HS_COMMITTED);
    GW_EXPECT_EQ(actions, 0);
}

/* ---- the target ------------------------------------------------------------------------------- */

#define SETS (GW_HTA_SET_VOID | GW_HTA_SET_RUNNING | GW_HTA_SET_DECLINED)

static bool has_outcome(unsigned state)
{
    return state == GW_HT_STARTING || state == GW_HT_RUNNING || state == GW_HT_DECLINED ||
           state == GW_HT_VOIDED || state == GW_HT_SETTLED;
}

GW_TEST(handover_target, outcome_is_set_once)
{
    struct table table = target_table();
    FOR_EACH(line, &table)
    {
        bool sets = line->actions & SETS;
        GW_EXPECT_EQ(sets, !has_outcome(line->from) && has_outcome(line->to));
        GW_EXPECT_LE(__builtin_popcount(line->actions & SETS), 1);
        if (has_outcome(line->from))
            GW_EXPECT(has_outcome(line->to));
    }
}

GW_TEST(handover_target, outcome_is_said_only_once_it_is_set)
{
    struct table table = target_table();
    FOR_EACH(line, &table)
    {
        if (line->actions & GW_HTA_SAY_OUTCOME)
            GW_EXPECT(has_outcome(line->to));
        if (line->actions & GW_HTA_SAY_PREPARED)
            GW_EXPECT(line->from == GW_HT_LOADING && line->to == GW_HT_PREPARED);
    }
}

GW_TEST(handover_target, runs_only_what_was_acquired)
{
    struct table table = target_table();
    FOR_EACH(line, &table)
    {
        bool runs = line->actions & GW_HTA_CALL_RUN;
        GW_EXPECT_EQ(runs, line->to == GW_HT_STARTING);
        if (runs) {
            GW_EXPECT_EQ(line->event, GW_HTE_ACQUIRED);
            GW_EXPECT(line->actions & GW_HTA_SET_RUNNING);
        }
        if (line->actions & GW_HTA_CALL_ACQUIRE)
            GW_EXPECT((line->from == GW_HT_PREPARED && line->event == GW_HTE_COMMITTED) ||
                      (line->from == GW_HT_CLAIMED && line->event == GW_HTE_RESOLVE_RUN));
    }
}

GW_TEST(handover_target, what_is_void_or_declined_never_runs)
{
    struct table table = target_table();
    static const unsigned never[] = {GW_HT_VOIDED, GW_HT_DECLINED};
    for (unsigned i = 0; i < 2; i++) {
        bool reached[STATES_MAX];
        reach(&table, never[i], reached);
        GW_EXPECT(!reached[GW_HT_STARTING] && !reached[GW_HT_RUNNING] && !reached[GW_HT_ACQUIRING]);
    }
}

GW_TEST(handover_target, ask_voids_what_is_undecided_and_was_not_read_as_commit)
{
    for (unsigned s = 0; s < GW_HT_COUNT_; s++) {
        enum gw_ht_state state = (enum gw_ht_state)s;
        uint32_t actions = 0;
        bool listed = gw_handover_target(&state, GW_HTE_ASKED, &actions);
        bool undecided = s == GW_HT_LOADING || s == GW_HT_PREPARED || s == GW_HT_HOLDING;
        if (undecided) {
            GW_EXPECT_EQ(state, GW_HT_VOIDED);
            GW_EXPECT_EQ(actions, GW_HTA_SET_VOID | GW_HTA_SAY_OUTCOME);
        } else if (listed) {
            GW_EXPECT_EQ(state, s);
            GW_EXPECT_EQ(actions, GW_HTA_SAY_OUTCOME);
        }
    }
}

GW_TEST(handover_target, commit_that_was_read_is_not_undone)
{
    struct table table = target_table();
    FOR_EACH(line, &table)
    {
        if (line->from == GW_HT_ACQUIRING || line->from == GW_HT_CLAIM_TAKES)
            GW_EXPECT(line->event == GW_HTE_ACQUIRED || line->event == GW_HTE_ACQUIRE_FAILED);
    }
}

GW_TEST(handover_target, what_is_claimed_is_the_operators)
{
    struct table table = target_table();
    FOR_EACH(line, &table)
    {
        if (line->from == GW_HT_CLAIMED)
            GW_EXPECT(line->event == GW_HTE_RESOLVE_RUN || line->event == GW_HTE_RESOLVE_DISCARD);
        if (line->to == GW_HT_CLAIMED && line->event == GW_HTE_CLAIMED)
            GW_EXPECT(line->actions & GW_HTA_STOP_READING);
    }
}

GW_TEST(handover_target, every_state_is_reached_and_settles)
{
    struct table table = target_table();
    bool reached[STATES_MAX];
    reach(&table, GW_HT_LOADING, reached);
    for (unsigned s = 0; s < GW_HT_COUNT_; s++) {
        bool on[STATES_MAX];
        GW_EXPECT(reached[s]);
        reach(&table, s, on);
        GW_EXPECT(on[GW_HT_SETTLED]);
    }
    FOR_EACH(line, &table)
    GW_EXPECT_NE(line->from, GW_HT_SETTLED);
}

GW_TEST(handover_names, every_state_has_its_own)
{
    for (unsigned a = 0; a < GW_HS_COUNT_; a++) {
        for (unsigned b = 0; b < a; b++)
            GW_EXPECT(strcmp(gw_hs_state_name((enum gw_hs_state)a),
                             gw_hs_state_name((enum gw_hs_state)b)) != 0);
    }
    GW_EXPECT_STREQ(gw_hs_state_name(GW_HS_ABANDONED), "ABANDONED");
    GW_EXPECT_STREQ(gw_ht_state_name(GW_HT_SETTLED), "SETTLED");
    GW_EXPECT_STREQ(gw_ht_state_name(GW_HT_COUNT_), "?");
}
