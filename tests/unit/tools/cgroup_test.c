// SPDX-License-Identifier: MIT
/* Memory limits of control groups, read from a tree of files made up here: both versions' layouts. */
#include "tests/shim/gw_test.h"
#include "tools/cgroup.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static char mount_at[64];

static void make(const char *path, const char *text)
{
    char full[512], command[600];
    snprintf(full, sizeof(full), "%s%s", mount_at, path);
    snprintf(command, sizeof(command), "mkdir -p \"$(dirname %s)\"", full);
    GW_ASSERT(system(command) == 0);
    FILE *file = fopen(full, "we");
    GW_ASSERT(file != NULL);
    fputs(text, file);
    fclose(file);
}

static uint64_t left(const char *proc)
{
    char at[128];
    make("/proc", proc);
    snprintf(at, sizeof(at), "%s/proc", mount_at);
    return gw_cgroup_memory_left(at, mount_at);
}

static void begin(void)
{
    snprintf(mount_at, sizeof(mount_at), "%s", "/tmp/gw_cgroup.XXXXXX");
    GW_ASSERT(mkdtemp(mount_at) != NULL);
}

static void end(void)
{
    char command[128];
    snprintf(command, sizeof(command), "rm -r %s", mount_at);
    GW_ASSERT(system(command) == 0);
}

GW_TEST(cgroup, tightest_group_on_the_way_up_counts)
{
    begin();
    make("/vm.slice/memory.max", "1000000\n");
    make("/vm.slice/memory.current", "400000\n");
    make("/vm.slice/one/memory.max", "5000000\n");
    make("/vm.slice/one/memory.current", "100000\n");
    GW_EXPECT_EQ(left("0::/vm.slice/one\n"), 600000);
    make("/vm.slice/one/memory.max", "300000\n");
    GW_EXPECT_EQ(left("0::/vm.slice/one\n"), 200000);
    end();
}

GW_TEST(cgroup, cache_that_can_be_dropped_is_free_and_no_limit_limits_nothing)
{
    begin();
    make("/a/memory.max", "1000000\n");
    make("/a/memory.current", "900000\n");
    make("/a/memory.stat", "anon 100000\ninactive_file 300000\nactive_file 1\n");
    GW_EXPECT_EQ(left("0::/a\n"), 400000);
    make("/a/memory.current", "2000000\n");
    GW_EXPECT_EQ(left("0::/a\n"), 0);
    make("/a/memory.max", "max\n");
    GW_EXPECT_EQ(left("0::/a\n"), UINT64_MAX);
    GW_EXPECT_EQ(left("0::/\n"), UINT64_MAX);
    GW_EXPECT_EQ(left("garbage\n0:\n"), UINT64_MAX);
    GW_EXPECT_EQ(gw_cgroup_memory_left("/no/such/file", mount_at), UINT64_MAX);
    end();
}

GW_TEST(cgroup, memory_tree_of_version_1_and_a_hybrid_are_read)
{
    begin();
    make("/memory/vm/memory.limit_in_bytes", "800000\n");
    make("/memory/vm/memory.usage_in_bytes", "300000\n");
    make("/memory/vm/memory.stat", "cache 9\ninactive_file 1\ntotal_inactive_file 100000\n");
    GW_EXPECT_EQ(left("9:name=systemd:/\n4:cpu,memory:/vm\n0::/\n"), 600000);
    GW_EXPECT_EQ(left("4:memoryless:/vm\n"), UINT64_MAX);
    make("/unified/u/memory.max", "100\n");
    make("/unified/u/memory.current", "60\n");
    GW_EXPECT_EQ(left("4:memory:/vm\n0::/u\n"), 40);
    end();
}
