// SPDX-License-Identifier: MIT
/* A struct gw_error may be of a caller that was compiled against another version of it: nothing behind
 * its struct_bytes is touched, whatever is said of it. */
#include "core/base/error.h"
#include "tests/shim/gw_test.h"

#include <stddef.h>
#include <string.h>

static const char long_text[2 * GW_ERROR_TEXT_BYTES] =
    "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123"
    "456";

static void say_everything(struct gw_error *err, const struct gw_error *other)
{
    gw_error_clear(err);
    gw_fail(err, -EIO, "%s", long_text);
    gw_fail_code(err, -EIO, GW_CODE_IO, "%s", long_text);
    gw_error_set(err, -EIO, GW_CODE_IO, "%s", long_text);
    gw_error_hint(err, "%s", long_text);
    gw_error_prefix(err, "%s", "block 'ram0'");
    gw_error_phase(err, long_text);
    gw_error_place(err, "%s", long_text);
    gw_error_peer(err, long_text, strlen(long_text));
    gw_error_is_set(err);
    gw_error_copy(err, other);
    gw_error_clear(err);
}

static size_t touched(size_t struct_bytes)
{
    union {
        struct gw_error err;
        unsigned char bytes[sizeof(struct gw_error)];
    } record;
    struct gw_error other = GW_ERROR_INIT;
    gw_error_set(&other, -EPROTO, GW_CODE_PROTOCOL, "%s", long_text);
    gw_error_hint(&other, "%s", long_text);
    memset(record.bytes, 0xa5, sizeof(record));
    record.err.struct_bytes = struct_bytes;
    say_everything(&record.err, &other);
    size_t end = sizeof(record);
    while (end > sizeof(size_t) && record.bytes[end - 1] == 0xa5)
        end--;
    return end;
}

GW_TEST(error, nothing_behind_the_callers_struct_is_touched)
{
    for (size_t bytes = sizeof(size_t); bytes <= sizeof(struct gw_error); bytes++)
        GW_EXPECT_LE(touched(bytes), bytes);
    GW_EXPECT_GT(touched(sizeof(struct gw_error)), offsetof(struct gw_error, peer));
}

GW_TEST(error, fields_that_a_smaller_struct_has_are_filled)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_error whole = GW_ERROR_INIT;
    err.struct_bytes = offsetof(struct gw_error, hint);
    GW_EXPECT_EQ(gw_fail(&err, -EPROTO, "page %d", 7), -EPROTO);
    gw_error_prefix(&err, "block 'ram0'");
    gw_error_phase(&err, "active");
    gw_error_hint(&err, "not there");
    GW_EXPECT_EQ(err.rc, -EPROTO);
    GW_EXPECT_EQ(err.code, GW_CODE_PROTOCOL);
    GW_EXPECT_STREQ(err.message, "block 'ram0': page 7");
    GW_EXPECT_STREQ(err.phase, "active");
    GW_EXPECT_STREQ(err.hint, "");
    strcpy(whole.hint, "of before");
    gw_error_copy(&whole, &err);
    GW_EXPECT_STREQ(whole.message, "block 'ram0': page 7");
    GW_EXPECT_STREQ(whole.hint, "");
    GW_EXPECT_EQ(whole.struct_bytes, sizeof(whole));
}

GW_TEST(error, struct_bytes_0_is_the_first_version)
{
    struct gw_error err = {0};
    gw_fail(&err, -EPROTO, "x");
    gw_error_peer(&err, "said", 4);
    GW_EXPECT_STREQ(err.peer, "said");
    GW_EXPECT_EQ(err.struct_bytes, 0);
}
