// SPDX-License-Identifier: MIT
/* The grammar of faults, and the counting that decides when one strikes. Everything is checked when the
 * address is parsed, with the clause that is wrong in the message. A rule that strikes once is spent;
 * a chance is drawn from a sequence seeded by (seed, endpoint, attempt, rule), so a run can be
 * repeated as far as the traffic is the same. */
#include "transport/filter/fault.h"

#include "core/base/bytes.h"
#include "core/base/clock.h"

#include <stdio.h>
#include <string.h>

#define HINT "for example do=cut,ep=1,at=bytes:40M (docs/filters.md)"

/* ---- numbers ---- */

struct unit {
    const char *text;
    uint64_t value;
};

static const struct unit times[] = {
    {"ns", 1}, {"us", 1000}, {"ms", GW_NS_PER_MS}, {"s", GW_NS_PER_S}, {NULL, 0}};
static const struct unit sizes[] = {
    {"", 1}, {"k", 1 << 10}, {"M", 1 << 20}, {"G", 1 << 30}, {NULL, 0}};
static const struct unit counts[] = {{"", 1}, {NULL, 0}};

/* All of @text is a number and a unit. */
static bool read_number(const char *text, const struct unit *units, uint64_t *value)
{
    uint64_t number = 0;
    const char *p = text;
    for (; *p >= '0' && *p <= '9'; p++) {
        if (number > (UINT64_C(1) << 40))
            return false;
        number = number * 10 + (uint64_t)(*p - '0');
    }
    if (p == text)
        return false;
    for (const struct unit *unit = units; unit->text; unit++) {
        if (strcmp(unit->text, p) != 0)
            continue;
        *value = number * unit->value;
        return unit->value == 0 || *value / unit->value == number;
    }
    return false;
}

/* "0.25": digits behind a point, in 2^-32. 0 and 1 are no chances. */
static bool read_chance(const char *text, uint32_t *chance)
{
    uint64_t number = 0, scale = 1;
    if (strncmp(text, "0.", 2) == 0)
        text += 2;
    else if (*text == '.')
        text++;
    else
        return false;
    for (; *text >= '0' && *text <= '9' && scale < UINT64_C(1000000000); text++) {
        number = number * 10 + (uint64_t)(*text - '0');
        scale *= 10;
    }
    if (*text || number == 0)
        return false;
    *chance = (uint32_t)gw_max_u64(1, (number << 32) / scale);
    return true;
}

/* "3", "3-7" if @last may differ, "3+" for no end. */
static bool read_span(char *text, uint64_t max, uint64_t *first, uint64_t *last)
{
    size_t bytes = strlen(text);
    char *dash = strchr(text, '-');
    bool open = bytes > 0 && text[bytes - 1] == '+';
    if (open)
        text[bytes - 1] = '\0';
    if (dash)
        *dash = '\0';
    if ((open && dash) || !read_number(text, counts, first))
        return false;
    *last = open ? max : *first;
    if (dash && !read_number(dash + 1, counts, last))
        return false;
    return *first <= *last && *last <= max;
}

/* ---- clauses ---- */

static const struct {
    const char *name;
    const struct unit *units; /* of its amount; NULL: it has none */
    bool strikes;             /* at a message or a put; the others hold from the beginning */
    unsigned ways;            /* where it may strike */
    unsigned ways_default;
} actions[GW_FAULT_ACTIONS] = {
    [GW_FAULT_REFUSE] = {"refuse", NULL, false, GW_FAULT_OUT, GW_FAULT_OUT},
    [GW_FAULT_DELAY] = {"delay", times, true, GW_FAULT_OUT | GW_FAULT_IN, GW_FAULT_OUT},
    [GW_FAULT_DROP] = {"drop", NULL, true, GW_FAULT_OUT | GW_FAULT_IN, GW_FAULT_OUT},
    [GW_FAULT_CUT] = {"cut", NULL, true, GW_FAULT_OUT | GW_FAULT_IN, GW_FAULT_OUT},
    [GW_FAULT_MUTE] = {"mute", NULL, true, GW_FAULT_OUT | GW_FAULT_IN, GW_FAULT_OUT | GW_FAULT_IN},
    [GW_FAULT_FAIL] = {"fail", NULL, true, GW_FAULT_OUT, GW_FAULT_OUT},
    [GW_FAULT_RATE] = {"rate", sizes, false, GW_FAULT_OUT | GW_FAULT_IN, GW_FAULT_OUT},
    [GW_FAULT_PIECES] = {"pieces", sizes, false, GW_FAULT_OUT, GW_FAULT_OUT},
    [GW_FAULT_WINDOW] = {"window", counts, false, GW_FAULT_OUT, GW_FAULT_OUT},
    [GW_FAULT_TAKE] = {"take", counts, false, GW_FAULT_OUT, GW_FAULT_OUT},
};

static int refuse(struct gw_error *err, const char *rule, const char *why)
{
    int rc = gw_fail(err, -EINVAL, "do=%.100s: %s", rule, why);
    gw_error_hint(err, HINT);
    return rc;
}

static const char *read_action(const char *text, struct gw_fault_rule *rule)
{
    size_t name = strcspn(text, ":");
    for (unsigned i = 0; i < GW_FAULT_ACTIONS; i++) {
        if (strlen(actions[i].name) != name || memcmp(actions[i].name, text, name) != 0)
            continue;
        rule->action = (enum gw_fault_action)i;
        rule->ways = actions[i].ways_default;
        if (!actions[i].units)
            return text[name] ? "this action has no amount" : NULL;
        if (!text[name] || !read_number(text + name + 1, actions[i].units, &rule->amount) ||
            rule->amount == 0)
            return "an amount must follow: delay:20ms, rate:1M, pieces:4k, window:8, take:1";
        return NULL;
    }
    return "the action is none of refuse, delay, drop, cut, mute, fail, rate, pieces, window, take";
}

static const char *read_endpoints(char *text, struct gw_fault_rule *rule)
{
    uint64_t first = 0, last = GW_ENDPOINTS_MAX - 1;
    if (strcmp(text, "control") == 0)
        last = 0;
    else if (strcmp(text, "pages") == 0)
        first = 1;
    else if (strcmp(text, "any") != 0 && !read_span(text, GW_ENDPOINTS_MAX - 1, &first, &last))
        return "ep= is control, pages, any, a number or a range: ep=1-4";
    rule->endpoint_first = (uint16_t)first;
    rule->endpoint_last = (uint16_t)last;
    return NULL;
}

static const char *read_attempts(char *text, struct gw_fault_rule *rule)
{
    uint64_t first, last;
    if (!read_span(text, UINT32_MAX, &first, &last) || first == 0)
        return "attempt= counts from 1: attempt=1, attempt=1-3, attempt=2+";
    rule->attempt_first = (uint32_t)first;
    rule->attempt_last = (uint32_t)last;
    return NULL;
}

static const char *read_way(const char *text, struct gw_fault_rule *rule)
{
    unsigned ways = strcmp(text, "out") == 0    ? GW_FAULT_OUT
                    : strcmp(text, "in") == 0   ? GW_FAULT_IN
                    : strcmp(text, "both") == 0 ? GW_FAULT_OUT | GW_FAULT_IN
                                                : 0;
    if (ways == 0)
        return "way= is out, in or both";
    if (ways & ~actions[rule->action].ways)
        return "this action has one way only: out";
    rule->ways = ways;
    return NULL;
}

static const char *read_at(char *text, struct gw_fault_rule *rule)
{
    static const char why[] = "at= is message:N, put:N or bytes:N, counted from 1; with '+' behind "
                              "it every later one too";
    char *number = strchr(text, ':');
    if (!number)
        return why;
    *number++ = '\0';
    size_t bytes = strlen(number);
    rule->onwards = bytes > 0 && number[bytes - 1] == '+';
    if (rule->onwards)
        number[bytes - 1] = '\0';
    rule->at_bytes = strcmp(text, "bytes") == 0;
    if (strcmp(text, "message") == 0)
        rule->kinds = GW_FAULT_MESSAGE;
    else if (strcmp(text, "put") == 0)
        rule->kinds = GW_FAULT_PUT;
    else if (!rule->at_bytes)
        return why;
    return read_number(number, rule->at_bytes ? sizes : counts, &rule->at) && rule->at > 0 ? NULL
                                                                                           : why;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static const char *read_head(const char *text, struct gw_fault_rule *rule)
{
    size_t digits = strlen(text);
    if (digits == 0 || digits % 2 || digits > (size_t)2 * GW_FAULT_HEAD_MAX)
        goto out;
    for (size_t i = 0; i < digits; i += 2) {
        int high = hex_digit(text[i]), low = hex_digit(text[i + 1]);
        if (high < 0 || low < 0)
            goto out;
        rule->head[i / 2] = (uint8_t)(high * 16 + low);
    }
    rule->head_bytes = (unsigned)(digits / 2);
    return NULL;
out:
    return "head= is the first 1 to 8 bytes of a message in lower case hexadecimal: head=0062";
}

static const char *read_condition(char *text, struct gw_fault_rule *rule)
{
    char *value = strchr(text, '=');
    if (!value)
        return "conditions are ep=, attempt=, way=, at=, chance=, head=";
    *value++ = '\0';
    if (strcmp(text, "ep") == 0)
        return read_endpoints(value, rule);
    if (strcmp(text, "attempt") == 0)
        return read_attempts(value, rule);
    if (strcmp(text, "way") == 0)
        return read_way(value, rule);
    if (strcmp(text, "at") == 0)
        return read_at(value, rule);
    if (strcmp(text, "chance") == 0)
        return read_chance(value, &rule->chance) ? NULL : "chance= lies between 0 and 1: 0.001";
    if (strcmp(text, "head") == 0)
        return read_head(value, rule);
    return "conditions are ep=, attempt=, way=, at=, chance=, head=";
}

/* What does not go together. */
static const char *judge(struct gw_fault_rule *rule)
{
    bool placed = rule->at > 0 || rule->chance > 0 || rule->head_bytes > 0;
    if (placed && !actions[rule->action].strikes)
        return "this action holds from the beginning: no at=, chance= or head=";
    if (rule->head_bytes > 0 && rule->kinds == GW_FAULT_PUT)
        return "head= is of messages, at=put: of puts";
    if (rule->head_bytes > 0)
        rule->kinds = GW_FAULT_MESSAGE;
    if (rule->action == GW_FAULT_FAIL && (rule->head_bytes > 0 || rule->kinds == GW_FAULT_MESSAGE))
        return "only puts can fail";
    if (rule->action == GW_FAULT_FAIL)
        rule->kinds = GW_FAULT_PUT;
    if ((rule->action == GW_FAULT_FAIL || rule->action == GW_FAULT_DROP) && !placed)
        return "which one? at=, chance= or head= says it";
    if (rule->action == GW_FAULT_DROP && (rule->ways & GW_FAULT_IN) && rule->kinds == GW_FAULT_PUT)
        return "a put that came in is placed already: only messages can be dropped there";
    return NULL;
}

static int parse_rule(const char *text, struct gw_fault_rule *rule, struct gw_error *err)
{
    char copy[GW_URI_BYTES_MAX];
    char *save = NULL;
    const char *why;
    *rule = (struct gw_fault_rule){.kinds = GW_FAULT_MESSAGE | GW_FAULT_PUT,
                                   .endpoint_last = GW_ENDPOINTS_MAX - 1,
                                   .attempt_last = UINT32_MAX};
    snprintf(rule->text, sizeof(rule->text), "%.79s", text);
    snprintf(copy, sizeof(copy), "%s", text);
    char *word = strtok_r(copy, ",", &save);
    why = word ? read_action(word, rule) : "the action is missing";
    while (!why && (word = strtok_r(NULL, ",", &save)) != NULL)
        why = read_condition(word, rule);
    if (!why)
        why = judge(rule);
    return why ? refuse(err, text, why) : 0;
}

/* ---- plans ---- */

/* splitmix64 (public domain, Vigna) */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static int add_rule(struct gw_fault_plan *plan, const char *text, unsigned *number, uint16_t index,
                    uint32_t attempt, struct gw_error *err)
{
    struct gw_fault_rule rule;
    int rc = parse_rule(text, &rule, err);
    if (rc < 0)
        return rc;
    if (++*number > GW_FAULT_RULES_MAX)
        return gw_fail(err, -EINVAL, "more than %d times do=", GW_FAULT_RULES_MAX);
    if (index < rule.endpoint_first || index > rule.endpoint_last || attempt < rule.attempt_first ||
        attempt > rule.attempt_last)
        return 0;
    plan->live[plan->count++] = (struct gw_fault_live){.rule = rule, .random = *number};
    return 0;
}

int gw_fault_plan_init(struct gw_fault_plan *plan, const struct gw_uri *uri, uint16_t index,
                       uint32_t attempt, struct gw_error *err)
{
    struct gw_query query;
    uint64_t seed = 1;
    unsigned number = 0;
    int rc;
    plan->count = 0;
    gw_query_begin(&query, uri);
    while ((rc = gw_query_next(&query, err)) > 0) {
        if (strcmp(query.name, "seed") == 0 && !read_number(query.value, counts, &seed))
            return gw_fail(err, -EINVAL, "seed='%.40s' is not a number below 2^40", query.value);
        if (strcmp(query.name, "do") == 0)
            rc = add_rule(plan, query.value, &number, index, attempt, err);
        if (rc < 0)
            return rc;
    }
    for (unsigned i = 0; i < plan->count; i++) {
        uint64_t state = seed;
        uint64_t mixed = next_random(&state) ^
                         ((uint64_t)index << 48 | (uint64_t)attempt << 16 | plan->live[i].random);
        plan->live[i].random = next_random(&mixed);
    }
    return rc;
}

const struct gw_fault_rule *gw_fault_find(const struct gw_fault_plan *plan,
                                          enum gw_fault_action action, unsigned way)
{
    for (unsigned i = 0; i < plan->count; i++) {
        if (plan->live[i].rule.action == action && (plan->live[i].rule.ways & way))
            return &plan->live[i].rule;
    }
    return NULL;
}

/* ---- striking ---- */

static void strike(const struct gw_fault_rule *rule, struct gw_fault_hit *hit)
{
    if (rule->action == GW_FAULT_DELAY)
        hit->delay_ns += rule->amount;
    else if (rule->action == GW_FAULT_DROP)
        hit->drop = rule;
    else if (rule->action == GW_FAULT_CUT)
        hit->cut = rule;
    else if (rule->action == GW_FAULT_MUTE)
        hit->mute = rule;
    else if (rule->action == GW_FAULT_FAIL)
        hit->fail = rule;
}

/* A link that falls silent both ways does so by what we say. */
static unsigned counted(const struct gw_fault_rule *rule)
{
    return rule->action == GW_FAULT_MUTE && rule->ways == (GW_FAULT_OUT | GW_FAULT_IN)
               ? GW_FAULT_OUT
               : rule->ways;
}

/* Does it strike at one more of what it counts? */
static bool is_struck(struct gw_fault_live *live, uint64_t bytes)
{
    const struct gw_fault_rule *rule = &live->rule;
    live->seen += rule->at_bytes ? bytes : 1;
    if (live->spent || live->seen < gw_max_u64(rule->at, 1))
        return false;
    if (rule->chance && next_random(&live->random) >> 32 >= rule->chance)
        return false;
    live->spent = rule->at > 0 && !rule->onwards;
    return true;
}

void gw_fault_see(struct gw_fault_plan *plan, unsigned way, enum gw_fault_kind kind, uint64_t bytes,
                  const void *head, size_t head_bytes, struct gw_fault_hit *hit)
{
    *hit = (struct gw_fault_hit){.delay_ns = 0};
    for (unsigned i = 0; i < plan->count; i++) {
        const struct gw_fault_rule *rule = &plan->live[i].rule;
        if (!actions[rule->action].strikes || !(counted(rule) & way) || !(rule->kinds & kind))
            continue;
        if (rule->head_bytes > 0 &&
            (rule->head_bytes > head_bytes || memcmp(rule->head, head, rule->head_bytes) != 0))
            continue;
        if (is_struck(&plan->live[i], bytes))
            strike(rule, hit);
    }
}

void gw_fault_see_open(struct gw_fault_plan *plan, struct gw_fault_hit *hit)
{
    *hit = (struct gw_fault_hit){.delay_ns = 0};
    for (unsigned i = 0; i < plan->count; i++) {
        const struct gw_fault_rule *rule = &plan->live[i].rule;
        bool placed = rule->at > 0 || rule->chance > 0 || rule->head_bytes > 0;
        if (!placed && (rule->action == GW_FAULT_CUT || rule->action == GW_FAULT_MUTE))
            strike(rule, hit);
    }
}
