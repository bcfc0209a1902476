// SPDX-License-Identifier: MIT
/* Sections of devices that no honest source would send: of nobody, out of order, too short, too long, twice.
 * The target ends that session with a sentence that names the section, runs nothing, and serves the next
 * guest. Its devices are "pair", of one section, "pump", of many, and "map", which is early. */
#include "core/base/clock.h"
#include "tests/shim/gw_test.h"
#include "tests/support/pair.h"
#include "tests/support/raw_peer.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MIB (UINT64_C(1) << 20)
#define SECONDS 60u
#define PEER_TIMEOUT_NS (30 * GW_NS_PER_S)
#define BODY_BYTES 8u /* what every load here reads */

enum { RAM_END = 0x80, FENCE, THE_EOF, DESCRIPTION, PREPARE };

struct step {
    unsigned type; /* enum gw_item_type, or one of the above */
    uint32_t id;
    const char *name;    /* START, FULL */
    unsigned bytes;      /* of the body */
    uint32_t footer;     /* 0: id */
    uint32_t version_id; /* 0: 1 */
};

#define STEPS_MAX 8u

struct script {
    const char *name;
    const char *why;
    struct step steps[STEPS_MAX];
};

struct hostile {
    struct pair pair;
    struct raw_source raw;
    pthread_t thread;
    const struct script *script;
};

/* ---- the target's devices ----------------------------------------------------------------------- */

static int take(void *opaque, struct gw_reader *r, enum gw_device_part part, uint32_t version_id,
                struct gw_error *err)
{
    (void)opaque, (void)part, (void)version_id, (void)err;
    gw_reader_be64(r);
    return 0;
}

static int take_one(void *opaque, struct gw_reader *r, uint32_t version_id, struct gw_error *err)
{
    return take(opaque, r, GW_DEVICE_FULL, version_id, err);
}

static void add_devices(struct pair *pair)
{
    static const struct gw_device_ops ops = {.struct_bytes = sizeof(ops), .load = take};
    struct gw_error err = GW_ERROR_INIT;
    struct gw_device_desc pump = {.struct_bytes = sizeof(pump),
                                  .name = "pump",
                                  .version_id = 2,
                                  .minimum_version_id = 1,
                                  .ops = &ops};
    struct gw_device_desc map = {.struct_bytes = sizeof(map),
                                 .name = "map",
                                 .version_id = 1,
                                 .flags = GW_DEVICE_EARLY,
                                 .load = take_one};
    GW_ASSERT_EQ(gw_target_add_device(pair->tgt, &pump, &err), 0);
    GW_ASSERT_EQ(gw_target_add_device(pair->tgt, &map, &err), 0);
}

/* ---- the source --------------------------------------------------------------------------------- */

static void say_section(struct raw_source *raw, const struct step *step)
{
    static const uint8_t zeros[64];
    struct gw_section section = {.type = (enum gw_item_type)step->type,
                                 .section_id = step->id,
                                 .version_id = step->version_id ? step->version_id : 1};
    struct gw_writer w;
    snprintf(section.idstr, sizeof(section.idstr), "%s", step->name ? step->name : "x");
    gw_writer_init(&w, 4096);
    gw_stream_write_section(&w, &section);
    gw_writer_bytes(&w, zeros, step->bytes);
    gw_stream_write_footer(&w, step->footer ? step->footer : step->id);
    raw_item(raw, &w);
    gw_writer_fini(&w);
}

static void say_description(struct raw_source *raw)
{
    struct gw_writer w;
    gw_writer_init(&w, 64);
    gw_stream_write_description(&w, "{}", 2);
    raw_item(raw, &w);
    gw_writer_fini(&w);
}

static void *say_script(void *arg)
{
    struct hostile *hostile = arg;
    struct raw_source *raw = &hostile->raw;
    raw_source_open(raw, gw_target_uri(hostile->pair.tgt), 4 * MIB, 1, PEER_TIMEOUT_NS);
    for (unsigned i = 0; i < STEPS_MAX && hostile->script->steps[i].type; i++) {
        const struct step *step = &hostile->script->steps[i];
        if (step->type == RAM_END) {
            raw_fence(raw, 0, 1, true);
            raw_ram_end(raw);
        } else if (step->type == FENCE) {
            raw_fence(raw, 0, 1, true);
        } else if (step->type == THE_EOF) {
            raw_eof(raw);
        } else if (step->type == DESCRIPTION) {
            say_description(raw);
        } else if (step->type == PREPARE) {
            raw_prepare(raw, 1);
        } else {
            say_section(raw, step);
        }
    }
    struct gw_message msg;
    while (raw_hear(raw, GW_MSG_FAILED, &msg))
        ; /* until the target has ended the session */
    return NULL;
}

/* ---- scripts ------------------------------------------------------------------------------------ */

#define BEGIN(id_, name_)                                                                          \
    {                                                                                              \
        .type = GW_ITEM_START, .id = (id_), .name = (name_), .bytes = BODY_BYTES                   \
    }
#define MORE(type_, id_)                                                                           \
    {                                                                                              \
        .type = GW_ITEM_##type_, .id = (id_), .bytes = BODY_BYTES                                  \
    }
#define FULL(id_, name_)                                                                           \
    {                                                                                              \
        .type = GW_ITEM_FULL, .id = (id_), .name = (name_), .bytes = BODY_BYTES                    \
    }
#define DO(what)                                                                                   \
    {                                                                                              \
        .type = (what)                                                                             \
    }

/* clang-format off */
static const struct script scripts[] = {
    {"an_unknown_device_begins", "section 'ghost' instance 0: no such device here", {BEGIN(5, "ghost")}},
    {"a_device_of_one_section_begins", "section 'pair' instance 0: it comes in many sections", {BEGIN(5, "pair")}},
    {"part_before_start", "part of section 5, which is not open", {MORE(PART, 5)}},
    {"end_before_start", "end of section 5, which is not open", {DO(RAM_END), MORE(END, 5)}},
    {"part_of_ram", "section 'ram': pages in line", {MORE(PART, 1)}},
    {"full_of_ram", "section 'ram' instance 0 is there twice", {FULL(1, "ram")}},
    {"start_twice", "section 'pump' instance 0 is there twice", {BEGIN(5, "pump"), BEGIN(6, "pump")}},
    {"id_of_ram", "begins with id 1, which is 'ram', still open", {BEGIN(1, "pump")}},
    {"end_before_the_end_of_ram", "section 'pump' instance 0 ends before the end of RAM",
     {BEGIN(5, "pump"), DO(FENCE), MORE(END, 5)}},
    {"start_after_the_end_of_ram", "section 'pump' instance 0 begins after the end of RAM", {DO(RAM_END), BEGIN(5, "pump")}},
    {"end_twice", "end of section 5, which is not open", {BEGIN(5, "pump"), DO(RAM_END), MORE(END, 5), MORE(END, 5)}},
    {"part_after_end", "part of section 5, which is not open", {BEGIN(5, "pump"), DO(RAM_END), MORE(END, 5), MORE(PART, 5)}},
    {"no_end", "section 'pump' instance 0 has no end at the end of the stream", {BEGIN(5, "pump"), DO(RAM_END), DO(THE_EOF)}},
    {"full_before_end", "section 'pump' instance 0 is there twice", {BEGIN(5, "pump"), DO(RAM_END), FULL(5, "pump")}},
    {"full_twice", "section 'pump' instance 0 is there twice",
     {BEGIN(5, "pump"), DO(RAM_END), MORE(END, 5), FULL(5, "pump"), FULL(5, "pump")}},
    {"full_before_the_end_of_ram", "section 'pair' before the end of RAM", {FULL(5, "pair")}},
    {"early_twice", "section 'map' instance 0 is there twice", {FULL(5, "map"), FULL(5, "map")}},
    {"version_too_new", "section 'pump' instance 0: version 3 arrived, versions 1 to 2 are taken",
     {{.type = GW_ITEM_START, .id = 5, .name = "pump", .bytes = BODY_BYTES, .version_id = 3}}},
    {"wrong_footer", "section 5 'pump' ends with the footer of section 6",
     {{.type = GW_ITEM_START, .id = 5, .name = "pump", .bytes = BODY_BYTES, .footer = 6}}},
    {"wrong_footer_of_a_part", "section 5 ends with the footer of section 6",
     {BEGIN(5, "pump"), {.type = GW_ITEM_PART, .id = 5, .bytes = BODY_BYTES, .footer = 6}}},
    {"part_too_short", "device 'pump' instance 0: its state ends too early",
     {BEGIN(5, "pump"), {.type = GW_ITEM_PART, .id = 5, .bytes = BODY_BYTES - 1}}},
    {"part_too_long", "device 'pump' instance 0: 1 bytes of its state were not consumed",
     {BEGIN(5, "pump"), {.type = GW_ITEM_PART, .id = 5, .bytes = BODY_BYTES + 1}}},
    {"early_too_long", "device 'map' instance 0: 1 bytes of its state were not consumed",
     {{.type = GW_ITEM_FULL, .id = 5, .name = "map", .bytes = BODY_BYTES + 1}}},
    {"description_twice", "item 0x06 after the description",
     {DO(RAM_END), DO(THE_EOF), DO(DESCRIPTION), DO(DESCRIPTION)}},
    {"section_after_the_end_mark", "item 0x04 after the end mark", {DO(RAM_END), DO(THE_EOF), FULL(5, "pair")}},
};
/* clang-format on */

static bool target_over(struct pair *pair)
{
    pair->target_rc = gw_target_wait(pair->tgt, 0, &pair->target_err);
    return pair->target_rc != -EINPROGRESS;
}

static const char *const *script_names(void)
{
    static const char *names[sizeof(scripts) / sizeof(scripts[0]) + 1];
    for (unsigned i = 0; i < sizeof(scripts) / sizeof(scripts[0]); i++)
        names[i] = scripts[i].name;
    return names;
}

GW_TEST_EACH(hostile_devices, is_refused_by_name, script_names)
{
    struct hostile *hostile = calloc(1, sizeof(*hostile));
    struct pair *pair = &hostile->pair;
    for (unsigned i = 0; i < sizeof(scripts) / sizeof(scripts[0]); i++) {
        if (strcmp(scripts[i].name, param) == 0)
            hostile->script = &scripts[i];
    }
    GW_ASSERT(hostile->script);
    pair_add_block(pair, "ram0", 4 * MIB, GW_BLOCK_ANON, 0);
    pair_init(pair);
    add_devices(pair);
    pair_listen(pair);
    GW_ASSERT_EQ(pthread_create(&hostile->thread, NULL, say_script, hostile), 0);
    GW_EXPECT(pair_until(pair, target_over, SECONDS));
    GW_EXPECT(pair->target_rc < 0);
    if (!strstr(pair->target_err.message, hostile->script->why))
        GW_NOTE_FAILURE("'%s' says nothing of '%s'", pair->target_err.message,
                        hostile->script->why);
    GW_EXPECT(pair->target_err.code == GW_CODE_PROTOCOL || pair->target_err.code == GW_CODE_DEVICE);
    GW_EXPECT_EQ(pair->runs, 0);
    pthread_join(hostile->thread, NULL);
    raw_source_close(&hostile->raw);
    pair_listen(pair); /* the next guest is welcome */
    pair_start(pair);
    GW_EXPECT(pair_finish(pair, SECONDS));
    GW_EXPECT_EQ(pair->source_rc, 0);
    GW_EXPECT_EQ(pair_differs(pair), -1);
    pair_fini(pair);
    free(hostile);
}
