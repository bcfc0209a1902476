// SPDX-License-Identifier: MIT
/* Descriptions read: every shape a field may have, sums, and texts that are malformed or lie. */
#include "control/stream_describe.h"
#include "tests/shim/gw_test.h"
#include "tests/support/recording.h"

#include <stdio.h>
#include <string.h>

static struct gw_error err = GW_ERROR_INIT;

#define DEVICES(list) "{\"page_size\": 4096, \"devices\": [" list "]}"
#define DEVICE(members)                                                                            \
    "{\"name\": \"d\", \"instance_id\": 0, \"vmsd_name\": \"d\", \"version\": 1, " members "}"
#define U16(name) "{\"name\": \"" name "\", \"type\": \"uint16\", \"size\": 2}"

static char seen[4096];

static int note(void *ctx, const struct gw_described_field *field)
{
    size_t used = strlen(seen);
    (void)ctx;
    snprintf(seen + used, sizeof(seen) - used, "%s@%d+%d ", field->path, (int)field->offset,
             (int)field->bytes);
    return 0;
}

/* Walk @body by the only device of @json. */
static int walk(const char *json, const char *body, uint64_t *measured, size_t *fault_at)
{
    struct gw_description *d = NULL;
    struct recording r;
    size_t at = 0;
    recording_init(&r);
    recording_hex(&r, body);
    seen[0] = '\0';
    GW_ASSERT_EQ(gw_description_new(json, strlen(json), &d, &at, &err), 0);
    int rc = gw_description_measure(d, 0, measured, &err);
    if (rc == 0)
        rc = gw_description_walk(d, 0, r.w.data, r.w.bytes, note, NULL, fault_at, &err);
    gw_description_free(d);
    recording_fini(&r);
    return rc;
}

static void walks(const char *json, const char *body, const char *expected)
{
    uint64_t measured = 0;
    size_t at = 0;
    if (!GW_EXPECT_EQ(walk(json, body, &measured, &at), 0))
        gw_test_note(__FILE__, __LINE__, "%s", err.message);
    GW_EXPECT_STREQ(seen, expected);
}

GW_TEST(description, every_shape_of_a_field_is_walked)
{
    walks(DEVICES(DEVICE("\"fields\": [" U16("a") ", " U16("b") "]")), "0001 0002", "a@0+2 b@2+2 ");
    walks(DEVICES(DEVICE(
              "\"fields\": [{\"name\": \"a\", \"array_len\": 3, \"type\": \"uint8\", \"size\": "
              "1}]")),
          "010203", "a@0+3 ");
    walks(DEVICES(DEVICE(
              "\"fields\": [{\"name\": \"a\", \"index\": 0, \"type\": \"uint8\", \"size\": 1}, "
              "{\"name\": \"a\", \"index\": 1, \"type\": \"uint8\", \"size\": 1}]")),
          "0102", "a[0]@0+1 a[1]@1+1 ");
    walks(DEVICES(DEVICE(
              "\"fields\": [{\"name\": \"s\", \"array_len\": 2, \"type\": \"struct\", \"struct\": "
              "{\"vmsd_name\": \"i\", \"version\": 1, \"fields\": [" U16("x") "]}, \"size\": 2}]")),
          "0001 0002", "s[0].x@0+2 s[1].x@2+2 ");
    /* a pointer that was NULL */
    walks(
        DEVICES(DEVICE(
            "\"fields\": [{\"name\": \"p\", \"type\": \"struct\", \"struct\": {}, \"size\": 1}]")),
        "30", "p@0+1 ");
    /* a list: its members repeat, the size counts */
    walks(DEVICES(DEVICE("\"fields\": [{\"name\": \"q\", \"type\": \"qtailq\", \"vmsd_name\": "
                         "\"e\", \"version\": "
                         "1, \"fields\": [" U16("x") "], \"vmsd_name\": \"e\", \"version\": 1, "
                                                     "\"fields\": [" U16("x") "], \"size\": 7}]")),
          "01 0001 01 0002 00", "q@0+7 ");
    walks(DEVICES(DEVICE("\"fields\": [" U16(
              "a") "], \"subsections\": [{\"vmsd_name\": \"d/s\", \"version\": 1, "
                   "\"fields\": [" U16("b") "]}]")),
          "0001 05 03 642f73 00000001 0002", "a@0+2 d/s.b@11+2 ");
    /* a tree: keys and values repeat */
    walks(DEVICES(DEVICE("\"fields\": [{\"name\": \"t\", \"type\": \"gtree\", \"vmsd_name\": "
                         "\"k\", \"version\": 1, \"fields\": [" U16(
                             "k") "], \"vmsd_name\": \"v\", "
                                  "\"version\": 1, \"fields\": [" U16(
                                      "v") "], \"vmsd_name\": \"k\", "
                                           "\"version\": 1, \"fields\": [" U16(
                                               "k") "], \"vmsd_name\": \"v\", "
                                                    "\"version\": 1, \"fields\": [" U16(
                                                        "v") "], \"size\": 15}, " U16("z") "]")),
          "00000002 01 0001 0002 01 0003 0004 00 0005", "t@0+15 z@15+2 ");
    /* structures that are told once, their arrays as well; a version of the field's */
    walks(DEVICES(DEVICE(
              "\"fields\": [{\"name\": \"s\", \"array_len\": 2, \"type\": \"struct\", \"struct\": "
              "{\"vmsd_name\": \"i\", \"version\": 1, \"fields\": [{\"name\": \"x\", "
              "\"array_len\": 2, "
              "\"type\": \"uint8\", \"size\": 1}]}, \"size\": 2}, {\"name\": \"v\", "
              "\"array_len\": 2, \"type\": \"vstruct\", \"vmsd_name\": \"i\", \"version\": 3, "
              "\"fields\": [" U16("y") "], \"size\": 2}]")),
          "0001 0002 0003 0004", "s[0].x@0+2 s[1].x@2+2 v[0].y@4+2 v[1].y@6+2 ");
    /* pointers one by one, and in runs of those that are there and those that are not */
    walks(DEVICES(DEVICE(
              "\"fields\": [{\"name\": \"p\", \"index\": 0, \"type\": \"uint16\", \"size\": 2}, "
              "{\"name\": \"p\", \"index\": 1, \"type\": \"nullptr\", \"size\": 1}, "
              "{\"name\": \"r\", \"array_len\": 2, \"type\": \"uint16\", \"size\": 2}, "
              "{\"name\": \"r\", \"array_len\": 3, \"type\": \"nullptr\", \"size\": 1}, "
              "{\"name\": \"r\", \"type\": \"uint16\", \"size\": 2}]")),
          "0001 30 0002 0003 303030 0004", "p[0]@0+2 p[1]@2+1 r@3+4 r@7+3 r@10+2 ");
    /* names that come twice, one of which is not there; kinds of a device's own */
    walks(DEVICES(DEVICE("\"fields\": [" U16(
              "o[1]") ", {\"name\": \"c\", \"type\": "
                      "\"pci config\", \"size\": 3}, {\"name\": \"n\", \"type\": \"fd\", "
                      "\"size\": 4}]")),
          "0001 020202 00000007", "o[1]@0+2 c@2+3 n@5+4 ");
    walks(DEVICES("{\"name\": \"c\", \"instance_id\": 0, \"size\": 3, \"fields\": [{\"name\": "
                  "\"data\", \"size\": 3, "
                  "\"type\": \"buffer\"}]}"),
          "010203", "data@0+3 ");
}

GW_TEST(description, what_does_not_fit_the_body_is_refused_where_it_stands)
{
    static const struct {
        const char *json, *body, *words;
        size_t at;
    } wrong[] = {
        {DEVICES(DEVICE("\"fields\": [" U16("a") "]")), "0001 02", "longer than its fields", 2},
        {DEVICES(DEVICE("\"fields\": [" U16("a") "]")), "01", "field 'a': longer than the section",
         0},
        {DEVICES(DEVICE("\"fields\": [{\"name\": \"b\", \"type\": \"bool\", \"size\": 1}]")), "02",
         "field 'b': neither true nor false", 0},
        {DEVICES(DEVICE("\"fields\": [{\"name\": \"p\", \"array_len\": 2, \"type\": \"nullptr\", "
                        "\"size\": 1}]")),
         "3031", "field 'p': not what stands for a NULL", 1},
        {DEVICES(
             DEVICE("\"fields\": [], \"subsections\": [{\"vmsd_name\": \"d/s\", \"version\": 1, "
                    "\"fields\": []}]")),
         "05 03 642f74 00000001", "another subsection", 1},
        {DEVICES(
             DEVICE("\"fields\": [], \"subsections\": [{\"vmsd_name\": \"d/s\", \"version\": 1, "
                    "\"fields\": []}]")),
         "06 03 642f73 00000001", "no subsection begins here", 0},
        {DEVICES(
             DEVICE("\"fields\": [], \"subsections\": [{\"vmsd_name\": \"d/s\", \"version\": 1, "
                    "\"fields\": []}]")),
         "05 03 642f73 00000002", "another version", 5},
        {DEVICES(DEVICE(
             "\"fields\": [{\"name\": \"s\", \"type\": \"struct\", \"struct\": {\"fields\": [" U16(
                 "x") "]}, \"size\": 3}]")),
         "010203", "its parts are not as long as it is", 2},
        {DEVICES(DEVICE("\"fields\": [{\"name\": \"n\", \"type\": \"uint8\"}]")), "01", "no size",
         0},
        {DEVICES(DEVICE("\"fields\": [{\"name\": \"n\", \"type\": \"uint8\", \"size\": -1}]")),
         "01", "no size", 0},
        {DEVICES(
             DEVICE("\"fields\": [{\"name\": \"n\", \"array_len\": 4611686018427387904, \"type\": "
                    "\"uint8\", \"size\": 4}]")),
         "01", "no size", 0},
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        uint64_t measured;
        size_t at = 0;
        GW_EXPECT_EQ(walk(wrong[i].json, wrong[i].body, &measured, &at), -EPROTO);
        if (!GW_EXPECT(strstr(err.message, wrong[i].words) != NULL))
            gw_test_note(__FILE__, __LINE__, "%s: %s", wrong[i].words, err.message);
        GW_EXPECT_EQ(at, wrong[i].at);
    }
}

GW_TEST(description, elements_of_no_size_are_not_counted)
{
    uint64_t measured = 0;
    size_t at = 0;
    GW_EXPECT_EQ(walk(DEVICES(DEVICE(
                          "\"fields\": [{\"name\": \"n\", \"array_len\": 1099511627776, \"type\": "
                          "\"struct\", \"struct\": {\"fields\": [" U16("x") "]}, \"size\": 0}]")),
                      "", &measured, &at),
                 0);
    GW_EXPECT_EQ(measured, 0);
}

GW_TEST(description, malformed_texts_are_refused_with_their_offset)
{
    static const struct {
        const char *text;
        size_t at;
    } wrong[] = {
        {"", 0},
        {"[]", 0},
        {"{\"devices\": {}}", 12},
        {"{\"devices\": []", 14},
        {"{\"devices\": []} x", 16},
        {"{\"devices\" []}", 11},
        {"{\"page_size\": -1}", 14},
        {"{\"page_size\": 4x}", 14},
        {"{\"devices\": [{\"name\": 3}]}", 13},
        {"{\"devices\": [{\"name\": \"a\", \"instance_id\": 0, ]}]}", 13},
        {"{\"devices\": [{]]}", 13},
        {"{\"other", 1},
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct gw_description *d = NULL;
        size_t at = 0;
        GW_EXPECT_EQ(gw_description_new(wrong[i].text, strlen(wrong[i].text), &d, &at, &err),
                     -EPROTO);
        if (!GW_EXPECT_LE(wrong[i].at, at))
            gw_test_note(__FILE__, __LINE__, "%s: %zu", wrong[i].text, at);
    }
}

/* As of 8.2: the configuration is the first key, and no device. */
GW_TEST(description, configuration_is_no_device)
{
    static const char json[] =
        "{\"configuration\": {\"vmsd_name\": \"configuration\", \"version\": 1, \"fields\": ["
        "{\"name\": \"len\", \"type\": \"uint32\", \"size\": 4}, {\"name\": \"name\", \"type\": "
        "\"buffer\", \"size\": 6}], \"subsections\": [{\"vmsd_name\": "
        "\"configuration/capabilities\", "
        "\"version\": 1, \"fields\": [{\"name\": \"count\", \"type\": \"uint32\", \"size\": "
        "4}, "
        "{\"name\": \"names\", \"type\": \"capability\", \"size\": 16}]}]}, "
        "\"page_size\": 16384, \"devices\": [{\"name\": \"a\", \"instance_id\": 0, \"vmsd_name\": "
        "\"a\", \"version\": 1, \"fields\": [" U16("x") "]}]}";
    static const uint8_t body[] = {0, 1};
    struct gw_description *d = NULL;
    size_t at;
    GW_ASSERT_EQ(gw_description_new(json, strlen(json), &d, &at, &err), 0);
    GW_EXPECT_EQ(gw_description_page_bytes(d), 16384);
    GW_EXPECT_EQ(gw_description_count(d), 1);
    GW_EXPECT_EQ(gw_description_walk(d, 0, body, sizeof(body), note, NULL, &at, &err), 0);
    gw_description_free(d);
}

GW_TEST(description, devices_are_found_by_name_and_instance)
{
    static const char json[] =
        "{\"configuration\": {\"fields\": [1, {\"a\": \"}]\"}]}, \"page_size\": 4096, \"devices\": "
        "["
        "{\"name\": \"a\", \"instance_id\": 0}, {\"name\": \"a\", \"instance_id\": 1}]}";
    struct gw_description *d = NULL;
    size_t at;
    GW_ASSERT_EQ(gw_description_new(json, strlen(json), &d, &at, &err), 0);
    GW_EXPECT_EQ(gw_description_count(d), 2);
    GW_EXPECT_EQ(gw_description_page_bytes(d), 4096);
    GW_EXPECT_EQ(gw_description_find(d, "a", 1, 0), 1);
    GW_EXPECT_EQ(gw_description_find(d, "a", 0, 1), 0);
    GW_EXPECT_EQ(gw_description_find(d, "a", 2, 0), -ENOENT);
    gw_description_free(d);
}
