// SPDX-License-Identifier: MIT
/* A dump of all descriptions, read: which devices it has and in which version, what it leaves out, and texts
 * that are malformed. */
#include "control/stream_describe.h"
#include "tests/shim/gw_test.h"

#include <string.h>

static struct gw_error err = GW_ERROR_INIT;

#define MACHINE "\"vmschkmachine\": {\"Name\": \"pc-i440fx-7.2\"}"
#define STATE(name, version, members)                                                              \
    "{\"name\": \"" name "\", \"version_id\": " #version ", \"minimum_version_id\": 1" members "}"
#define DEVICE(name, version, members)                                                             \
    "\"" name "\": {\"Name\": \"" name "\", \"version_id\": " #version                             \
    ", \"minimum_version_id\": 1, \"Description\": " STATE(name, version, members) "}"
#define FIELD(name, more)                                                                          \
    "{\"field\": \"" name "\", \"version_id\": 0, \"field_exists\": false, \"size\": 4" more "}"

GW_TEST(static_description, devices_have_their_kinds_names_and_versions)
{
    /* Structures and subsections within, a kind that cannot be migrated, a name with an escape, braces in
     * a text. */
    static const char json[] = "{" MACHINE ",\n  " DEVICE(
        "rtc", 3,
        ", \"Fields\": [" FIELD("a", "") ", " FIELD(
            "b",
            ", \"Description\": " STATE(
                "in", 2,
                ", \"Fields\": [" FIELD(
                    "}]",
                    "") "]")) "], \"Subsections\": [" STATE("rtc/irq", 1,
                                                            "") "]") ", "
                                                                     "\"wall\": {\"Name\": "
                                                                     "\"wall\", \"version_id\": 1, "
                                                                     "\"minimum_version_id\": 1}, "
                                                                     "\"q\\u0035\": {\"Name\": "
                                                                     "\"q5\", \"version_id\": 7, "
                                                                     "\"minimum_version_id\": 7, "
                                                                     "\"Description\": {}}}\n";
    struct gw_description *d = NULL;
    char machine[256];
    size_t at = 0;
    GW_ASSERT_EQ(gw_description_new_static(json, strlen(json), machine, &d, &at, &err), 0);
    GW_EXPECT_STREQ(machine, "pc-i440fx-7.2");
    GW_ASSERT_EQ(gw_description_count(d), 2);
    GW_EXPECT_EQ(gw_description_page_bytes(d), 0);
    GW_EXPECT_STREQ(gw_description_device(d, 0)->idstr, "rtc");
    GW_EXPECT_EQ(gw_description_device(d, 0)->version_id, 3);
    GW_EXPECT_STREQ(gw_description_device(d, 1)->idstr, "q5");
    GW_EXPECT_EQ(gw_description_device(d, 1)->version_id, 7);
    GW_EXPECT(gw_description_device(d, 2) == NULL);
    GW_EXPECT_EQ(gw_description_find(d, "q5", 0, 0), 1);
    GW_EXPECT_EQ(gw_description_find(d, "wall", 0, 0), -ENOENT);
    gw_description_free(d);
}

GW_TEST(static_description, machine_is_nameless_where_none_is_said)
{
    static const char json[] = "{\"vmschkmachine\": {}}";
    struct gw_description *d = NULL;
    char machine[256] = "what was there";
    size_t at = 0;
    GW_ASSERT_EQ(gw_description_new_static(json, strlen(json), machine, &d, &at, &err), 0);
    GW_EXPECT_STREQ(machine, "");
    GW_EXPECT_EQ(gw_description_count(d), 0);
    gw_description_free(d);
}

GW_TEST(static_description, malformed_dumps_are_refused_with_their_offset)
{
    static const struct {
        const char *text, *words;
        size_t at;
    } wrong[] = {
        {"", "'{' expected", 0},
        {"[]", "'{' expected", 0},
        {"{}", "a device's name expected", 1},
        {"{7: {}}", "a device's name expected", 1},
        {"{\"d\" {}}", "a device expected", 5},
        {"{\"d\": []}", "a device expected", 6},
        {"{\"d\": {]}", "a device expected", 6},
        {"{\"d\": {\"x\" 1}}", "a device expected", 6},
        {"{\"d\": {\"Description\": {}}}", "'d' is malformed", 6},
        {"{\"d\": {\"version_id\": \"1\", \"Description\": {}}}", "'d' is malformed", 6},
        {"{\"d\": {}", "'}' expected", 8},
        {"{\"d\": {}} x", "its end expected", 10},
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct gw_description *d = NULL;
        char machine[256];
        size_t at = 0;
        GW_EXPECT_EQ(
            gw_description_new_static(wrong[i].text, strlen(wrong[i].text), machine, &d, &at, &err),
            -EPROTO);
        if (!GW_EXPECT(strstr(err.message, wrong[i].words) != NULL) ||
            !GW_EXPECT_EQ(at, wrong[i].at))
            gw_test_note(__FILE__, __LINE__, "%s: %s at %zu", wrong[i].text, err.message, at);
    }
}
