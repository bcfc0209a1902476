// SPDX-License-Identifier: MIT
/* The run document: keys, their order, their types. The order is the contract's (DESIGN, the command),
 * so it is written out here a second time on purpose. */
#include "tests/shim/gw_test.h"
#include "tools/events.h"
#include "tools/report.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static struct gw_report sample(void)
{
    static const struct gw_round rounds[2] = {
        {.number = 1,
         .duration_ns = 1500000,
         .dirty_pages = 10,
         .normal_pages = 7,
         .duplicate_pages = 3,
         .bytes = 28672},
        {.number = 2,
         .duration_ns = 1000,
         .dirty_pages = 1,
         .normal_pages = 1,
         .bytes = 4096,
         .paused = true},
    };
    struct gw_report report = {
        .role = "source",
        .uri = "tcp:[::1]:4444",
        .error = GW_ERROR_INIT,
        .rounds = rounds,
        .round_count = 2,
        .user_ns = 2500000,
        .guest = {.ram_bytes = 1 << 20, .vcpus = 2, .writes = 77},
        .stats = {.struct_bytes = sizeof(struct gw_stats),
                  .status = GW_STATUS_COMPLETED,
                  .total_ns = 12345678,
                  .downtime_ns = 1234567,
                  .normal_pages = 8,
                  .page_bytes = 4096,
                  .wire_name = "tcp",
                  .endpoints = 2},
    };
    return report;
}

/* "a b c" of an object's keys. */
static const char *keys_of(json_t *object)
{
    static char text[1024];
    const char *key;
    json_t *value;

    text[0] = '\0';
    json_object_foreach(object, key, value)
    {
        if (text[0])
            strcat(text, " ");
        strcat(text, key);
    }
    return text;
}

GW_TEST(report, keys_stand_in_the_order_of_the_contract)
{
    struct gw_report report = sample();
    json_t *document = gw_report_json(&report);

    GW_EXPECT_STREQ(keys_of(document),
                    "schema role status error total-time-ms setup-time-ms downtime-ms "
                    "downtime ram rounds wire cpu guest");
    GW_EXPECT_STREQ(keys_of(json_object_get(document, "wire")),
                    "uri name endpoints copied-bytes registered-bytes-peak system-calls "
                    "chunks-needed chunks-ready control-messages");
    GW_EXPECT_STREQ(keys_of(json_object_get(document, "cpu")), "user-ms system-ms");
    GW_EXPECT_STREQ(keys_of(json_object_get(document, "guest")),
                    "ram-bytes vcpus writes verified digest");
    GW_EXPECT_STREQ(
        keys_of(json_object_get(document, "ram")),
        "transferred remaining total duplicate normal normal-bytes dirty-pages-rate mbps "
        "dirty-sync-count postcopy-requests page-size pages-per-second precopy-bytes "
        "downtime-bytes postcopy-bytes");
    GW_EXPECT_STREQ(keys_of(json_object_get(document, "downtime")),
                    "pause-ms sync-ms puts-ms fences-ms device-save-ms wire-ms revoke-ms digest-ms "
                    "device-load-ms release-ms acquire-ms resume-ms");
    json_decref(document);
}

GW_TEST(report, times_are_milliseconds_with_a_fraction)
{
    struct gw_report report = sample();
    json_t *document = gw_report_json(&report);
    char *text = json_dumps(document, JSON_REAL_PRECISION(12));

    GW_EXPECT(strstr(text, "\"total-time-ms\": 12.345678") != NULL);
    GW_EXPECT(strstr(text, "\"downtime-ms\": 1.234567") != NULL);
    GW_EXPECT(strstr(text, "\"user-ms\": 2.5") != NULL);
    GW_EXPECT(strstr(text, "\"setup-time-ms\": 0.0") != NULL);
    free(text);
    json_decref(document);
}

GW_TEST(report, what_is_not_known_is_null)
{
    struct gw_report report = sample();
    json_t *document = gw_report_json(&report);
    json_t *guest = json_object_get(document, "guest");

    GW_EXPECT(json_is_null(json_object_get(document, "error")));
    GW_EXPECT(json_is_null(json_object_get(guest, "verified")));
    GW_EXPECT(json_is_null(json_object_get(guest, "digest")));
    json_decref(document);

    report.guest.verified = GW_CHECKED_BAD;
    report.stats.has_digest = true;
    report.stats.digest[0] = 0xab;
    document = gw_report_json(&report);
    guest = json_object_get(document, "guest");
    GW_EXPECT(json_is_false(json_object_get(guest, "verified")));
    GW_EXPECT_STREQ(json_string_value(json_object_get(guest, "digest")),
                    "ab000000000000000000000000000000");
    json_decref(document);
}

GW_TEST(report, an_error_has_six_texts)
{
    struct gw_report report = sample();

    gw_error_set(&report.error, -ECONNREFUSED, GW_CODE_CONNECT, "connect: refused");
    gw_error_hint(&report.error, "start the other side first");
    json_t *document = gw_report_json(&report);
    json_t *error = json_object_get(document, "error");
    const char *key;
    json_t *value;
    GW_EXPECT_STREQ(keys_of(error), "code phase place message hint peer");
    json_object_foreach(error, key, value) GW_EXPECT(json_is_string(value));
    GW_EXPECT_STREQ(json_string_value(json_object_get(error, "code")), "connect");
    GW_EXPECT_STREQ(json_string_value(json_object_get(error, "message")), "connect: refused");
    json_decref(document);
}

GW_TEST(report, numbers_that_are_none_do_not_spoil_the_document)
{
    struct gw_report report = sample();

    report.stats.mbps = NAN;
    report.stats.remaining_bytes = UINT64_MAX;
    json_t *document = gw_report_json(&report);
    json_t *ram = json_object_get(document, "ram");
    GW_EXPECT(json_is_real(json_object_get(ram, "mbps")));
    GW_EXPECT(json_is_integer(json_object_get(ram, "remaining")));
    GW_EXPECT_GE(json_integer_value(json_object_get(ram, "remaining")), 0);
    json_decref(document);
}

GW_TEST(report, a_path_that_is_not_utf8_does_not_spoil_the_document)
{
    struct gw_report report = sample();

    report.uri = "unix:/tmp/\xff";
    json_t *document = gw_report_json(&report);
    GW_EXPECT_STREQ(json_string_value(json_object_get(json_object_get(document, "wire"), "uri")),
                    "unix:/tmp/?");
    json_decref(document);
}

GW_TEST(report, rounds_are_listed_in_order)
{
    struct gw_report report = sample();
    json_t *document = gw_report_json(&report);
    json_t *rounds = json_object_get(document, "rounds");

    GW_ASSERT_EQ(json_array_size(rounds), 2);
    GW_EXPECT_STREQ(keys_of(json_array_get(rounds, 0)),
                    "number duration-ms dirty-pages normal duplicate bytes dirty-pages-rate paused "
                    "control-messages");
    GW_EXPECT_EQ(json_integer_value(json_object_get(json_array_get(rounds, 0), "normal")), 7);
    GW_EXPECT(json_is_true(json_object_get(json_array_get(rounds, 1), "paused")));
    json_decref(document);
}

GW_TEST(report, an_event_is_one_line_with_the_same_keys_always)
{
    const struct gw_event event = {.struct_bytes = sizeof(event),
                                   .type = GW_EVENT_STATUS,
                                   .status = GW_STATUS_ACTIVE,
                                   .time_ns = 3000000,
                                   .text = "two\nlines"};
    json_t *line = gw_events_json(&event, 1000000);
    char *text = json_dumps(line, JSON_COMPACT);

    GW_EXPECT_STREQ(keys_of(line), "time-ms event status text round error");
    GW_EXPECT(strchr(text, '\n') == NULL);
    GW_EXPECT(json_real_value(json_object_get(line, "time-ms")) == 2.0);
    GW_EXPECT(json_is_null(json_object_get(line, "round")));
    free(text);
    json_decref(line);
}
