// SPDX-License-Identifier: MIT
/* Every byte of a session: one bit of it flipped, or the session cut there; and every field of every
 * message set to the values that lengths and counts go wrong at. An honest session is recorded first,
 * which says what each byte is. CI takes a sample (GODWIT_SEED picks it); GODWIT_HOSTILE=0/1 does all,
 * n/m the nth of m parts. */
#include "control/codec.h"
#include "tests/hostile/session.h"
#include "tests/shim/gw_test.h"
#include "transport/stream.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SAMPLE 24

/* Nothing on the wire vouches for what these bytes say: a change of them may pass for the truth.
 * What they can change is guest memory (page bytes, and where they go), which a digest notices, or a
 * device's body, for which its format vouches or nothing does. */
static unsigned may_change(enum liar_class class, enum gw_message_type type)
{
    if (class == LIAR_PAYLOAD || class == LIAR_TABLE)
        return LIE_MAY_CHANGE_MEMORY;
    if (class == LIAR_MESSAGE && type == GW_MSG_ZERO)
        return LIE_MAY_CHANGE_MEMORY;
    if (class == LIAR_MESSAGE && type == GW_MSG_STREAM)
        return LIE_MAY_CHANGE_DEVICES;
    return LIE_MAY_CHANGE_NOTHING;
}

/* Of a byte lie: what the byte was this time. Grants and rounds may stand elsewhere than recorded. */
static unsigned may_of_byte(struct liar *liar, const struct session_config *config)
{
    const struct liar_record *flow = liar_record(liar, config->liar.endpoint, config->liar.way);
    uint64_t at = config->liar.at;
    for (unsigned i = 0; i < flow->mark_count; i++) {
        const struct liar_mark *mark = &flow->marks[i];
        if (at >= mark->at && at < mark->at + mark->bytes)
            return may_change(mark->class, mark->type);
    }
    return LIE_MAY_CHANGE_NOTHING;
}

struct place {
    unsigned endpoint;
    enum liar_way way;
    const struct liar_mark *mark;
    uint64_t at;
};

/* The nth byte of a recorded session; false past its end. */
static bool place_of(struct session *record, uint64_t number, struct place *place)
{
    for (unsigned endpoint = 0; endpoint < LIAR_ENDPOINTS; endpoint++) {
        for (unsigned way = 0; way < 2; way++) {
            const struct liar_record *flow =
                liar_record(record->liar, endpoint, (enum liar_way)way);
            for (unsigned i = 0; i < flow->mark_count; i++) {
                const struct liar_mark *mark = &flow->marks[i];
                if (mark->type == GW_MSG_HEARTBEAT)
                    continue; /* another session may have none */
                /* Pages are alike: one byte in 256 stands for the others. */
                uint64_t step = mark->class == LIAR_PAYLOAD ? 256 : 1;
                uint64_t count = (mark->bytes + step - 1) / step;
                if (number < count) {
                    *place = (struct place){endpoint, (enum liar_way)way, mark,
                                            mark->at + number * step};
                    return true;
                }
                number -= count;
            }
        }
    }
    return false;
}

static uint64_t count_places(struct session *record)
{
    struct place place;
    uint64_t count = 0;
    while (place_of(record, count, &place))
        count++;
    return count;
}

static void name_place(const char *what, const struct place *place, char *name, size_t room)
{
    static const char *const classes[] = {"preface", "frame head", "table", "payload", "message"};
    snprintf(name, room, "%s endpoint %u to %s byte %llu (%s%s%s +%llu)", what, place->endpoint,
             place->way == LIAR_TO_TARGET ? "target" : "source", (unsigned long long)place->at,
             classes[place->mark->class], place->mark->class == LIAR_MESSAGE ? " " : "",
             place->mark->class == LIAR_MESSAGE ? gw_message_name(place->mark->type) : "",
             (unsigned long long)(place->at - place->mark->at));
}

static void sweep(bool flips, bool is_unix, bool digest)
{
    struct session record;
    struct place place;
    session_record(&record, is_unix, digest);
    uint64_t count = count_places(&record), ran = 0, lied = 0, through = 0;
    GW_EXPECT_GT(count, 500);
    for (uint64_t number = 0; place_of(&record, number, &place); number++) {
        struct session session;
        char name[128];
        if (!session_is_chosen(number, count, is_unix ? SAMPLE / 3 : SAMPLE))
            continue;
        name_place(flips ? "flip" : "cut", &place, name, sizeof(name));
        struct session_config config = {.name = name,
                                        .digest = digest,
                                        .is_unix = is_unix,
                                        .may_of = may_of_byte,
                                        .liar = {.flips = flips,
                                                 .cuts = !flips,
                                                 .endpoint = place.endpoint,
                                                 .way = place.way,
                                                 .at = place.at,
                                                 .mask = (uint8_t)(1u << (number * 5 % 8))}};
        through += session_run(&session, &config);
        lied += session.lied;
        ran++;
        session_free(&session);
        if (gw_test_has_failed() && !getenv("GODWIT_HOSTILE_VERBOSE"))
            break;
    }
    session_free(&record);
    printf("%llu of %llu places, %llu lies told, %llu sessions went through\n",
           (unsigned long long)ran, (unsigned long long)count, (unsigned long long)lied,
           (unsigned long long)through);
}

GW_TEST(sweep, one_flipped_bit_ends_clean_or_changes_only_what_nothing_vouches_for)
{
    sweep(true, false, false);
}

GW_TEST(sweep, one_flipped_bit_never_changes_memory_under_a_digest)
{
    sweep(true, false, true);
}

GW_TEST(sweep, a_session_cut_at_any_byte_ends_clean)
{
    sweep(false, false, false);
}

/* The engine is the same on every stream wire; what a socket says of its end is not. */
GW_TEST(sweep, one_flipped_bit_over_unix_ends_clean_or_changes_only_what_nothing_vouches_for)
{
    sweep(true, true, false);
}

GW_TEST(sweep, a_session_cut_at_any_byte_over_unix_ends_clean)
{
    sweep(false, true, false);
}

/* ---- extremes ------------------------------------------------------------------------------------ */

static const struct {
    unsigned bytes;
    uint64_t value;
} extremes[] = {{1, 0xff},       {2, 0xffff},     {4, 0},
                {4, 1},          {4, 0x7fffffff}, {4, 0x80000000},
                {4, 0xffffffff}, {8, 0},          {8, UINT64_C(1) << 63},
                {8, UINT64_MAX}};

#define EXTREMES (sizeof(extremes) / sizeof(extremes[0]))

struct overwrite {
    struct place place;
    unsigned bytes;
    uint64_t value;
    uint64_t passed; /* of the flow so far */
    unsigned may;
    bool told;
};

static unsigned may_of_overwrite(struct liar *liar, const struct session_config *config)
{
    (void)liar;
    return ((const struct overwrite *)config->liar.ctx)->may;
}

/* The frame that holds the place, with the value over it; cut to the frame's end. */
static bool overwrite_hook(struct liar *liar, void *ctx, const struct liar_event *event)
{
    struct overwrite *lie = ctx;
    if (event->endpoint != lie->place.endpoint || event->way != lie->place.way ||
        event->ordinal > 0 || lie->told)
        return true;
    uint64_t from = lie->passed;
    lie->passed += event->bytes;
    if (lie->place.at < from || lie->place.at >= lie->passed)
        return true;
    uint8_t *copy = malloc(event->bytes);
    memcpy(copy, event->frame, event->bytes);
    size_t at = lie->place.at - from;
    for (unsigned i = 0; i < lie->bytes && at + i < event->bytes; i++)
        copy[at + i] = (uint8_t)(lie->value >> 8 * (lie->bytes - 1 - i));
    lie->told = true;
    if (event->is_put && at + lie->bytes > GW_FRAME_HEAD_BYTES)
        lie->may = LIE_MAY_CHANGE_MEMORY;
    else if (!event->is_preface && !event->is_put)
        lie->may = may_change(LIAR_MESSAGE, event->type);
    liar_raw(liar, event->endpoint, event->way, copy, event->bytes);
    free(copy);
    return false;
}

static void sweep_extremes(bool digest)
{
    struct session record;
    struct overwrite lie;
    session_record(&record, false, digest);
    uint64_t places = count_places(&record), ran = 0, through = 0;
    for (uint64_t number = 0; number < places * EXTREMES; number++) {
        struct session session;
        char name[160];
        memset(&lie, 0, sizeof(lie));
        if (!session_is_chosen(number, places * EXTREMES, SAMPLE))
            continue;
        GW_ASSERT(place_of(&record, number / EXTREMES, &lie.place));
        lie.bytes = extremes[number % EXTREMES].bytes;
        lie.value = extremes[number % EXTREMES].value;
        /* Fields are even from the start of their message; names are not worth ten sessions a byte. */
        if (lie.bytes > 1 && (lie.place.at - lie.place.mark->at) % 2 != 0)
            continue;
        name_place("set", &lie.place, name, sizeof(name));
        size_t used = strlen(name);
        snprintf(name + used, sizeof(name) - used, " = %llx/%u", (unsigned long long)lie.value,
                 lie.bytes);
        struct session_config config = {.name = name,
                                        .digest = digest,
                                        .may_of = may_of_overwrite,
                                        .liar = {.hook = overwrite_hook, .ctx = &lie}};
        through += session_run(&session, &config);
        ran++;
        session_free(&session);
        if (gw_test_has_failed() && !getenv("GODWIT_HOSTILE_VERBOSE"))
            break;
    }
    session_free(&record);
    printf("%llu of %llu lies, %llu sessions went through\n", (unsigned long long)ran,
           (unsigned long long)(places * EXTREMES), (unsigned long long)through);
}

GW_TEST(sweep, extreme_values_at_any_place_end_clean_or_say_nothing_new)
{
    sweep_extremes(false);
}

GW_TEST(sweep, extreme_values_never_change_memory_under_a_digest)
{
    sweep_extremes(true);
}
