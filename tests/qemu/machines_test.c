// SPDX-License-Identifier: MIT
/* Machines recorded here and now, compared: with themselves, with more devices, with a device that sends less;
 * and what -dump-vmstate writes. Skipped where there is no QEMU. */
#include "tests/shim/gw_test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char line[4096], folder[64];

static int run_line(void)
{
    int status = system(line);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

#define SHELL(...) (snprintf(line, sizeof(line), __VA_ARGS__), run_line())

static const char *godwit(void)
{
    const char *path = getenv("GODWIT");
    return path && path[0] ? path : GW_TEST_GODWIT;
}

static void begin(void)
{
    strcpy(folder, "/tmp/godwit-qemu-XXXXXX");
    GW_ASSERT(mkdtemp(folder) != NULL);
}

static void end(void)
{
    GW_EXPECT_EQ(SHELL("rm -rf '%s'", folder), 0);
}

static void record(const char *scene, const char *name)
{
    int status = SHELL("python3 '%s/tests/qemu/record.py' %s %s/%s 2>/dev/null", GW_TEST_SOURCE,
                       scene, folder, name);
    if (status == 77)
        end();
    if (status == 77)
        GW_SKIP("no qemu-system-x86_64");
    GW_ASSERT_EQ(status, 0);
}

static int compare(const char *older, const char *newer)
{
    return SHELL("'%s' compat %s/%s %s/%s >%s/said", godwit(), folder, older, folder, newer,
                 folder);
}

/* A line of the table that begins with the verdicts and has all of @words in this order. */
static bool is_said(const char *pattern)
{
    return SHELL("grep -q '%s' %s/said", pattern, folder) == 0;
}

GW_TEST(qemu, a_machine_that_is_recorded_twice_is_compatible)
{
    begin();
    record("pc-many", "one");
    record("pc-many", "two");
    GW_EXPECT_EQ(compare("one/stream", "two/stream"), 0);
    GW_EXPECT(is_said("^old to new: ok"));
    GW_EXPECT(is_said("^new to old: ok"));
    end();
}

GW_TEST(qemu, devices_that_a_machine_gained_are_found)
{
    begin();
    record("pc", "older");
    record("e1000", "newer");
    GW_EXPECT_EQ(compare("older/stream", "newer/stream"), 5);
    GW_EXPECT(is_said("^may break   breaks      0000:00:02.0/e1000: a new device"));
    GW_EXPECT_EQ(compare("newer/stream", "older/stream"), 5);
    GW_EXPECT(is_said("^breaks      may break   0000:00:02.0/e1000: a device that is gone"));
    end();
}

GW_TEST(qemu, subsections_that_a_device_gained_are_found)
{
    begin();
    record("e1000-plain", "older");
    record("e1000", "newer");
    GW_EXPECT_EQ(compare("older/stream", "newer/stream"), 5);
    GW_EXPECT(is_said("^ok          breaks      0000:00:02.0/e1000: e1000/mit_state: "));
    GW_EXPECT(is_said("^ok          breaks      0000:00:02.0/e1000: e1000/full_mac_state: "));
    GW_EXPECT(is_said("^old to new: ok"));
    end();
}

GW_TEST(qemu, dumps_of_all_descriptions_are_compared)
{
    const char *qemu = getenv("GODWIT_QEMU") ? getenv("GODWIT_QEMU") : "qemu-system-x86_64";
    if (SHELL("command -v '%s' >/dev/null", qemu) != 0)
        GW_SKIP("no qemu-system-x86_64");
    begin();
    GW_ASSERT_EQ(SHELL("'%s' -M pc-i440fx-7.2,accel=tcg -nodefaults -display none -dump-vmstate "
                       "%s/dump",
                       qemu, folder),
                 0);
    GW_EXPECT_EQ(compare("dump", "dump"), 0);
    GW_EXPECT(is_said("^old to new: ok"));
    GW_EXPECT(is_said("machine pc-i440fx-7.2"));
    /* e1000 as of a version that has one field more */
    GW_ASSERT_EQ(
        SHELL("python3 -c 'import json; d = json.load(open(\"%s/dump\")); e = d[\"e1000\"]; "
              "e[\"version_id\"] = e[\"Description\"][\"version_id\"] = 3; "
              "e[\"Description\"][\"Fields\"].append({\"field\": \"more\", \"version_id\": "
              "3, \"field_exists\": False, \"size\": 4}); json.dump(d, open(\"%s/newer\", "
              "\"w\"))'",
              folder, folder),
        0);
    GW_EXPECT_EQ(compare("dump", "newer"), 5);
    GW_EXPECT(is_said("^old to new: ok"));
    GW_EXPECT(is_said("^ok          breaks      e1000: another version: 2 | 3"));
    record("pc", "machine");
    GW_EXPECT_EQ(compare("dump", "machine/stream"), 1);
    end();
}
