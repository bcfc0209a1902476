/* SPDX-License-Identifier: MIT
 * The shim itself. What a failing claim does to a test is seen by running a program of its own: the
 * tests named shim_bad are disabled, so nothing runs them but the tests of shim, by name. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/shim/gw_test.h"

static const char *const letters[] = {"a", "b.c", NULL};

static const char *const *numbers(void)
{
    static const char *list[] = {"one", "two", NULL};

    return list;
}

GW_TEST(shim, integers_are_compared_by_value)
{
    uint64_t large = UINT64_MAX;
    int64_t minus_one = -1;

    GW_EXPECT_EQ(large, UINT64_MAX);
    GW_EXPECT_NE(large, minus_one);
    GW_EXPECT_LT(minus_one, large);
    GW_EXPECT_LE(INT64_MIN, minus_one);
    GW_EXPECT_GT(large, INT64_MAX);
    GW_EXPECT_GE((uint8_t)255, 255);
    GW_EXPECT_EQ(true, 1);
}

GW_TEST(shim, strings_and_memory_are_compared_by_content)
{
    const char *none = NULL;
    char copy[] = "godwit";

    GW_EXPECT_STREQ(copy, "godwit");
    GW_EXPECT_STREQ(none, NULL);
    GW_EXPECT_MEMEQ(copy, "god", 3);
    GW_EXPECT_MEMEQ(NULL, NULL, 0);
}

GW_TEST_EACH(shim, a_list_may_be_an_array, letters)
{
    GW_EXPECT(strcmp(param, "a") == 0 || strcmp(param, "b.c") == 0);
}

GW_TEST_EACH(shim, a_list_may_come_from_a_function, numbers)
{
    GW_EXPECT(strcmp(param, "one") == 0 || strcmp(param, "two") == 0);
}

/* ---- what failing does ---- */

GW_TEST(DISABLED_shim_bad, expect_goes_on)
{
    GW_EXPECT_EQ(7 * 6, 43);
    puts("went on");
}

static void leave_from_below(int depth)
{
    if (depth > 0)
        leave_from_below(depth - 1);
    GW_ASSERT_STREQ("left", "right");
}

GW_TEST(DISABLED_shim_bad, assert_leaves)
{
    leave_from_below(3);
    puts("went on");
}

GW_TEST(DISABLED_shim_bad, memory_differs)
{
    GW_ASSERT_MEMEQ("abcdef", "abcxef", 6);
}

GW_TEST(DISABLED_shim_bad, skip_says_why)
{
    GW_SKIP("no %s here", "device");
    puts("went on");
}

/* Runs one of the tests above in this same program; its output, and its exit status or -1. */
static int run_bad(const char *name, char *out, size_t out_bytes)
{
    char self[PATH_MAX], command[PATH_MAX + 256];
    ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);
    size_t used;
    FILE *pipe;
    int status;

    GW_ASSERT_GT(length, 0);
    self[length] = '\0';
    snprintf(command, sizeof(command),
             "'%s' --gtest_also_run_disabled_tests --gtest_filter=DISABLED_shim_bad.%s 2>&1", self,
             name);
    fflush(NULL);
    pipe = popen(command, "r");
    GW_ASSERT(pipe != NULL);
    used = fread(out, 1, out_bytes - 1, pipe);
    out[used] = '\0';
    status = pclose(pipe);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

GW_TEST(shim, an_expectation_that_fails_prints_both_sides_and_goes_on)
{
    char out[8192];

    GW_EXPECT_EQ(run_bad("expect_goes_on", out, sizeof(out)), 1);
    GW_EXPECT(strstr(out, "7 * 6 == 43") != NULL);
    GW_EXPECT(strstr(out, "left: 42") != NULL);
    GW_EXPECT(strstr(out, "right: 43") != NULL);
    GW_EXPECT(strstr(out, "shim_test.c:") != NULL);
    GW_EXPECT(strstr(out, "went on") != NULL);
}

GW_TEST(shim, an_assertion_that_fails_leaves_the_test_from_any_depth)
{
    char out[8192];

    GW_EXPECT_EQ(run_bad("assert_leaves", out, sizeof(out)), 1);
    GW_EXPECT(strstr(out, "\"left\"") != NULL);
    GW_EXPECT(strstr(out, "went on") == NULL);
    GW_EXPECT(strstr(out, "1 FAILED TEST") != NULL);
}

GW_TEST(shim, memory_that_differs_is_shown_where_it_does)
{
    char out[8192];

    GW_EXPECT_EQ(run_bad("memory_differs", out, sizeof(out)), 1);
    GW_EXPECT(strstr(out, "differ at 3 of 6") != NULL);
    GW_EXPECT(strstr(out, "left: 64 65 66") != NULL);
    GW_EXPECT(strstr(out, "right: 78 65 66") != NULL);
}

GW_TEST(shim, a_skip_is_no_failure_and_says_why)
{
    char out[8192];

    GW_EXPECT_EQ(run_bad("skip_says_why", out, sizeof(out)), 0);
    GW_EXPECT(strstr(out, "no device here") != NULL);
    GW_EXPECT(strstr(out, "[  SKIPPED ]") != NULL);
    GW_EXPECT(strstr(out, "went on") == NULL);
}
