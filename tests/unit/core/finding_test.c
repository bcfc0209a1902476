// SPDX-License-Identifier: MIT
#include "core/base/finding.h"

#include "tests/shim/gw_test.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct seen {
    unsigned count;
    bool ok, needed;
    char detail[64], fix[64], note[64];
};

static void see(void *ctx, const struct gw_finding *finding)
{
    struct seen *seen = ctx;

    GW_EXPECT_EQ(finding->struct_bytes, sizeof(*finding));
    seen->count++;
    seen->ok = finding->ok;
    seen->needed = finding->needed;
    snprintf(seen->detail, sizeof(seen->detail), "%s", finding->detail);
    snprintf(seen->fix, sizeof(seen->fix), "%s", finding->fix);
    snprintf(seen->note, sizeof(seen->note), "%s", finding->note);
}

GW_TEST(finding, only_what_is_needed_and_not_ok_is_missing)
{
    struct seen seen = {0};
    struct gw_findings all = {.found = see, .ctx = &seen};
    struct gw_fix fix = {.command = "make it so", .note = "or not"};

    gw_find_ok(&all, "one", true, "have %d", 1);
    GW_EXPECT_STREQ(seen.detail, "have 1");
    GW_EXPECT_STREQ(seen.fix, "");
    GW_EXPECT(seen.ok && seen.needed);
    gw_find_bad(&all, "two", false, &fix, "have none");
    GW_EXPECT_EQ(all.missing, 0);
    gw_find_bad(&all, "three", true, &fix, "have none");
    GW_EXPECT_EQ(all.missing, 1);
    GW_EXPECT_STREQ(seen.fix, "make it so");
    GW_EXPECT_STREQ(seen.note, "or not");
    GW_EXPECT(!seen.ok);
    GW_EXPECT_EQ(seen.count, 3);
}

GW_TEST(finding, a_text_that_is_too_long_is_cut)
{
    struct gw_fix fix = {0};
    char text[2 * GW_FIX_BYTES];

    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    gw_fix_command(&fix, "%s", text);
    gw_fix_note(&fix, "%s", text);
    GW_EXPECT_EQ(strlen(fix.command), GW_FIX_BYTES - 1);
    GW_EXPECT_EQ(strlen(fix.note), GW_NOTE_BYTES - 1);
}

/* A node that is not there is nobody's to give away. */
GW_TEST(finding, a_node_is_given_to_who_was_refused_it)
{
    struct gw_fix absent = {0}, refused = {0};

    gw_fix_node(&absent, "/dev/none", ENOENT);
    GW_EXPECT_STREQ(absent.command, "");
    gw_fix_node(&refused, "/dev/some", EACCES);
    if (geteuid() == 0)
        GW_EXPECT(strstr(refused.note, "/dev/some") != NULL);
    else
        GW_EXPECT_STREQ(refused.command, "sudo chown \"$(id -un)\" /dev/some");
}

GW_TEST(finding, a_module_that_nobody_wrote_is_absent)
{
    GW_EXPECT_EQ(gw_module_state("gw_no_such_module"), GW_MODULE_ABSENT);
}

GW_TEST(finding, a_line_is_read_without_its_end)
{
    char line[16], path[] = "/tmp/gw-line-XXXXXX";
    int fd = mkstemp(path);

    GW_ASSERT(fd >= 0);
    GW_ASSERT_EQ(write(fd, "first\nsecond\n", 13), 13);
    close(fd);
    GW_EXPECT_EQ(gw_read_line(path, line, sizeof(line)), 0);
    GW_EXPECT_STREQ(line, "first");
    GW_EXPECT_EQ(unlink(path), 0);
    GW_EXPECT_EQ(gw_read_line(path, line, sizeof(line)), -ENOENT);
    GW_EXPECT_STREQ(line, "");
}
