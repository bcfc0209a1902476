// SPDX-License-Identifier: MIT
/* docs/hostile-devices.md has a line for each thing that a stream may say of a device and that must come to nothing, and
 * in its last column the tests that say so. A test of that name is in the tree, or the line is a promise that
 * nobody keeps. */
#include "tests/shim/gw_test.h"

#include <glob.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_BYTES (4u << 20)
#define LINES_LEAST 55u

static char *sources; /* all that may have such tests, one behind the other */

static size_t append(const char *path, char *to, size_t room)
{
    FILE *file = fopen(path, "re");
    GW_ASSERT(file != NULL);
    size_t bytes = fread(to, 1, room - 1, file);
    GW_ASSERT_LT(bytes, room - 1);
    to[bytes] = '\0';
    fclose(file);
    return bytes;
}

static void read_sources(void)
{
    static const char *const places[] = {"tests/unit/devices/*_test.c", "tests/e2e/vfio_test.c",
                                         "tests/rules/*_devices_test.c"};
    size_t used = 0;
    sources = calloc(1, TEXT_BYTES);
    GW_ASSERT(sources != NULL);
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        char pattern[4096];
        glob_t found;
        snprintf(pattern, sizeof(pattern), "%s/%s", GW_TEST_SOURCE, places[i]);
        GW_ASSERT_EQ(glob(pattern, 0, NULL, &found), 0);
        for (size_t k = 0; k < found.gl_pathc; k++)
            used += append(found.gl_pathv[k], sources + used, TEXT_BYTES - used);
        globfree(&found);
    }
}

static bool is_a_test(const char *group, const char *name)
{
    char pattern[512];
    regex_t regex;
    snprintf(pattern, sizeof(pattern), "GW_TEST(_EACH)?\\(%s,[[:space:]]*%s[,)]", group, name);
    GW_ASSERT_EQ(regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB), 0);
    bool is = regexec(&regex, sources, 0, NULL, 0) == 0;
    regfree(&regex);
    return is;
}

/* Those of a line's last column, in `...`; without a group they are @group's. Return: how many. */
static unsigned expect_tests(char *line, const char *group)
{
    unsigned count = 0;
    char *end = strrchr(line, '|');
    *end = '\0';
    char *at = strrchr(line, '|');
    for (at = strchr(at, '`'); at; at = strchr(at, '`')) {
        char *name = at + 1, *close = strchr(name, '`');
        GW_ASSERT(close != NULL);
        *close = '\0';
        at = close + 1;
        char *dot = strchr(name, '.');
        if (dot)
            *dot = '\0';
        if (!is_a_test(dot ? name : group, dot ? dot + 1 : name))
            GW_NOTE_FAILURE("no test is called %s.%s", dot ? name : group, dot ? dot + 1 : name);
        count++;
    }
    return count;
}

GW_TEST(lines, of_what_a_stream_may_say_have_tests_of_their_names)
{
    char *text = calloc(1, TEXT_BYTES), *rest = NULL;
    const char *group = "";
    unsigned lines = 0;
    GW_ASSERT(text != NULL);
    read_sources();
    append(GW_TEST_SOURCE "/docs/hostile-devices.md", text, TEXT_BYTES);
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        if (strncmp(line, "## ", 3) == 0)
            group = strcmp(line, "## virtio") == 0 ? "virtio_hostile" : "";
        if (line[0] != '|' || line[1] == '-' || strncmp(line, "| arrives", 9) == 0)
            continue;
        lines++;
        if (!GW_EXPECT_GT(expect_tests(line, group), 0))
            gw_test_note(__FILE__, __LINE__, "a line without a test: %s", line);
    }
    GW_EXPECT_GE(lines, LINES_LEAST);
    free(text);
    free(sources);
}
