// SPDX-License-Identifier: MIT
/* A document walked as text: values end where they end, whatever stands inside of strings; what is no value is
 * refused; nesting has a limit. */
#include "control/json_text.h"
#include "tests/shim/gw_test.h"

#include <stdio.h>
#include <string.h>

/* Where the value at the front of @text ends; -1: there is none. */
static int end_of(const char *text)
{
    struct gw_json_text walk = {.data = text, .bytes = strlen(text)};
    return gw_json_skip_value(&walk) ? (int)walk.at : -1;
}

GW_TEST(json_text, a_value_ends_where_it_ends)
{
    GW_EXPECT_EQ(end_of("1, 2"), 1);
    GW_EXPECT_EQ(end_of(" \n\ttrue]"), 7);
    GW_EXPECT_EQ(end_of("\"a\" : 1"), 3);
    GW_EXPECT_EQ(end_of("\"}\\\"]\\\\\", 1"), 8);
    GW_EXPECT_EQ(end_of("{\"a\": [1, {\"]\": \"}\"}]} x"), 22);
    GW_EXPECT_EQ(end_of("[]"), 2);
    GW_EXPECT_EQ(end_of("{}}"), 2);
}

GW_TEST(json_text, what_is_no_value_is_refused)
{
    static const char *const wrong[] = {"",     " ",       "]", "}", ",",  ":",     "\"",
                                        "\"\\", "\"a\\\"", "[", "{", "[1", "{\"a\""};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        if (!GW_EXPECT_EQ(end_of(wrong[i]), -1))
            gw_test_note(__FILE__, __LINE__, "%s", wrong[i]);
    }
    /* A NUL is no token, and does not end the text either. */
    struct gw_json_text walk = {.data = "\0001", .bytes = 2};
    GW_EXPECT(!gw_json_skip_value(&walk));
}

GW_TEST(json_text, nesting_has_a_limit)
{
    char text[2048];
    memset(text, '[', 512);
    memset(text + 512, ']', 512);
    text[1024] = '\0';
    GW_EXPECT_EQ(end_of(text), 1024);
    memset(text, '[', 513);
    memset(text + 513, ']', 513);
    text[1026] = '\0';
    GW_EXPECT_EQ(end_of(text), -1);
}

GW_TEST(json_text, a_key_is_told_by_all_of_it)
{
    struct gw_json_text walk = {.data = " \"devices\": 1", .bytes = 13};
    gw_json_skip_space(&walk);
    size_t begin = walk.at;
    GW_EXPECT(gw_json_skip_string(&walk));
    GW_EXPECT(gw_json_is_key(&walk, begin, "devices"));
    GW_EXPECT(!gw_json_is_key(&walk, begin, "device"));
    GW_EXPECT(!gw_json_is_key(&walk, begin, "devicesx"));
    GW_EXPECT(!gw_json_take_char(&walk, ','));
    GW_EXPECT(gw_json_take_char(&walk, ':'));
}
