// SPDX-License-Identifier: MIT
/* The grammar of faults, and what counting makes of it. */
#include "tests/shim/gw_test.h"
#include "transport/filter/fault.h"

#include <stdio.h>
#include <string.h>

static int plan_of(const char *query, uint16_t index, uint32_t attempt, struct gw_fault_plan *plan)
{
    struct gw_uri uri;
    char text[GW_URI_BYTES_MAX];
    struct gw_error err = GW_ERROR_INIT;
    snprintf(text, sizeof(text), "fault+tcp:h:1?%s", query);
    if (gw_uri_parse(text, &uri, &err) < 0) {
        GW_NOTE_FAILURE("%s: %s", query, err.message);
        return -1;
    }
    return gw_fault_plan_init(plan, &uri, index, attempt, &err);
}

static void expect_refused(const char *query, const char *why)
{
    struct gw_uri uri;
    char text[GW_URI_BYTES_MAX];
    struct gw_error err = GW_ERROR_INIT;
    snprintf(text, sizeof(text), "fault+tcp:h:1?%s", query);
    GW_EXPECT_EQ(gw_uri_parse(text, &uri, &err), -EINVAL);
    if (!GW_EXPECT(strstr(err.message, why) != NULL))
        GW_NOTE_FAILURE("'%s' said '%s'", query, err.message);
}

GW_TEST(fault_rule, what_is_understood)
{
    struct gw_fault_plan plan;
    GW_ASSERT_EQ(
        plan_of("do=delay:20ms,ep=pages,attempt=2%2b,way=both,at=bytes:40M%2b", 3, 5, &plan), 0);
    GW_ASSERT_EQ(plan.count, 1);
    const struct gw_fault_rule *rule = &plan.live[0].rule;
    GW_EXPECT_EQ(rule->action, GW_FAULT_DELAY);
    GW_EXPECT_EQ(rule->amount, 20000000);
    GW_EXPECT_EQ(rule->ways, GW_FAULT_OUT | GW_FAULT_IN);
    GW_EXPECT_EQ(rule->at, 40u << 20);
    GW_EXPECT(rule->at_bytes && rule->onwards);
    GW_EXPECT_EQ(plan_of("do=cut,ep=control&do=cut,ep=2&do=cut,attempt=2&do=mute", 1, 1, &plan), 0);
    GW_EXPECT_EQ(plan.count, 1);
    GW_EXPECT_EQ(plan.live[0].rule.action, GW_FAULT_MUTE);
    GW_EXPECT_EQ(plan_of("", 1, 1, &plan), 0);
    GW_EXPECT_EQ(plan.count, 0);
}

GW_TEST(fault_rule, what_is_refused)
{
    expect_refused("do=", "missing");
    expect_refused("do=explode", "the action is none of");
    expect_refused("do=cut:3", "no amount");
    expect_refused("do=delay", "an amount must follow");
    expect_refused("do=delay:20", "an amount must follow");
    expect_refused("do=rate:0", "an amount must follow");
    expect_refused("do=window:4k", "an amount must follow");
    expect_refused("do=cut,5", "conditions are");
    expect_refused("do=cut,where=3", "conditions are");
    expect_refused("do=cut,ep=256", "ep= is");
    expect_refused("do=cut,ep=4-2", "ep= is");
    expect_refused("do=cut,attempt=0", "counts from 1");
    expect_refused("do=cut,way=up", "way= is");
    expect_refused("do=window:3,way=in", "one way only");
    expect_refused("do=cut,at=3", "at= is");
    expect_refused("do=cut,at=put:0", "at= is");
    expect_refused("do=cut,at=page:1", "at= is");
    expect_refused("do=drop,chance=1", "between 0 and 1");
    expect_refused("do=drop,chance=0.0", "between 0 and 1");
    expect_refused("do=drop,head=0", "head= is");
    expect_refused("do=drop,head=0G", "head= is");
    expect_refused("do=drop,head=00,at=put:1", "head= is of messages");
    expect_refused("do=rate:1k,at=put:1", "from the beginning");
    expect_refused("do=fail", "which one");
    expect_refused("do=drop", "which one");
    expect_refused("do=fail,at=message:1", "only puts");
    expect_refused("do=drop,at=put:1,way=in", "placed already");
    expect_refused("seed=x", "not a number");
    char many[400] = "do=mute";
    for (unsigned i = 0; i < GW_FAULT_RULES_MAX; i++)
        strcat(many, "&do=mute");
    expect_refused(many, "more than 16");
}

GW_TEST(fault_rule, a_place_strikes_once_and_onwards_always)
{
    struct gw_fault_plan plan;
    struct gw_fault_hit hit;
    unsigned once = 0, always = 0;
    GW_ASSERT_EQ(plan_of("do=delay:1ns,at=put:3&do=drop,at=put:4%2b", 1, 1, &plan), 0);
    for (unsigned i = 1; i <= 10; i++) {
        gw_fault_see(&plan, GW_FAULT_OUT, GW_FAULT_MESSAGE, 1, "x", 1, &hit);
        GW_EXPECT(!hit.delay_ns && !hit.drop);
        gw_fault_see(&plan, GW_FAULT_IN, GW_FAULT_PUT, 1, NULL, 0, &hit);
        GW_EXPECT(!hit.delay_ns && !hit.drop);
        gw_fault_see(&plan, GW_FAULT_OUT, GW_FAULT_PUT, 1, NULL, 0, &hit);
        once += hit.delay_ns == 1;
        always += hit.drop != NULL;
        GW_EXPECT_EQ(hit.delay_ns == 1, i == 3);
    }
    GW_EXPECT_EQ(once, 1);
    GW_EXPECT_EQ(always, 7);
}

GW_TEST(fault_rule, chance_is_about_as_often_as_it_says)
{
    struct gw_fault_plan plan;
    struct gw_fault_hit hit;
    unsigned struck = 0;
    GW_ASSERT_EQ(plan_of("do=delay:1ns,chance=0.25", 1, 1, &plan), 0);
    for (unsigned i = 0; i < 10000; i++) {
        gw_fault_see(&plan, GW_FAULT_OUT, GW_FAULT_PUT, 1, NULL, 0, &hit);
        struck += hit.delay_ns != 0;
    }
    GW_EXPECT_GT(struck, 2300);
    GW_EXPECT_LT(struck, 2700);
}
