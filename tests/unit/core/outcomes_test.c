// SPDX-License-Identifier: MIT
/* What a target remembers of guests before: so many, and the right one of each. */
#include "core/outcomes.h"
#include "tests/shim/gw_test.h"

#include <stdlib.h>

static struct gw_past past_of(unsigned n)
{
    struct gw_past past = {.session = {(uint8_t)n, (uint8_t)(n >> 8), 1},
                           .token = {.random = {(uint8_t)n}, .incarnation = 7},
                           .outcome = n % 2 ? GW_OUTCOME_VOID : GW_OUTCOME_RUNNING,
                           .resume_ns = n};
    return past;
}

GW_TEST(outcomes, the_last_ones_are_known_and_the_oldest_makes_room)
{
    struct gw_outcomes *outcomes = calloc(1, sizeof(*outcomes));
    for (unsigned n = 0; n < 3 * GW_OUTCOMES_KEPT + 5; n++) {
        struct gw_past added = past_of(n);
        GW_EXPECT(!gw_outcomes_find(outcomes, added.session, &added.token));
        gw_outcomes_add(outcomes, &added);
        for (unsigned m = n < 70 ? 0 : n - 70; m <= n; m++) {
            struct gw_past asked = past_of(m);
            const struct gw_past *found = gw_outcomes_find(outcomes, asked.session, &asked.token);
            GW_EXPECT_EQ(found != NULL, m + GW_OUTCOMES_KEPT > n);
            GW_EXPECT(!found || found->resume_ns == m);
        }
    }
    free(outcomes);
}

GW_TEST(outcomes, another_token_or_session_is_unknown)
{
    struct gw_outcomes *outcomes = calloc(1, sizeof(*outcomes));
    struct gw_past past = past_of(3);
    gw_outcomes_add(outcomes, &past);
    struct gw_past other = past;
    other.token.incarnation++;
    GW_EXPECT(!gw_outcomes_find(outcomes, past.session, &other.token));
    other.session[15] = 1;
    GW_EXPECT(!gw_outcomes_find(outcomes, other.session, &past.token));
    GW_EXPECT(gw_outcomes_find(outcomes, past.session, &past.token) != NULL);
    free(outcomes);
}
