// SPDX-License-Identifier: MIT
/* What the control groups of this process leave it: the smallest rest of a memory limit on the way from
 * its own group to the root. Version 2 is one tree (memory.max, memory.current), version 1 has a tree
 * for memory (memory.limit_in_bytes, memory.usage_in_bytes); cgroups(7). Page cache that can be dropped
 * is not counted as used. What cannot be read limits nothing. */
#include "tools/cgroup.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

struct tree {
    const char *folder; /* below the mount point */
    const char *limit, *usage, *cache;
};

static const struct tree unified = {"", "memory.max", "memory.current", "inactive_file"};
static const struct tree hybrid = {"/unified", "memory.max", "memory.current", "inactive_file"};
static const struct tree legacy = {"/memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
                                   "total_inactive_file"};

static FILE *open_in(const char *mount, const struct tree *tree, const char *group,
                     const char *name)
{
    char path[1024];
    int n = snprintf(path, sizeof(path), "%s%s%s/%s", mount, tree->folder, group, name);
    return n > 0 && (size_t)n < sizeof(path) ? fopen(path, "re") : NULL;
}

/* False: absent, or "max". */
static bool read_number(const char *mount, const struct tree *tree, const char *group,
                        const char *name, uint64_t *value)
{
    FILE *file = open_in(mount, tree, group, name);
    bool found = file && fscanf(file, "%" SCNu64, value) == 1;
    if (file)
        fclose(file);
    return found;
}

static uint64_t droppable(const char *mount, const struct tree *tree, const char *group)
{
    FILE *file = open_in(mount, tree, group, "memory.stat");
    char key[64];
    uint64_t value, bytes = 0;
    while (file && fscanf(file, "%63s %" SCNu64, key, &value) == 2) {
        if (strcmp(key, tree->cache) == 0)
            bytes = value;
    }
    if (file)
        fclose(file);
    return bytes;
}

static uint64_t left_in(const char *mount, const struct tree *tree, const char *group)
{
    uint64_t limit, usage;
    if (!read_number(mount, tree, group, tree->limit, &limit) ||
        !read_number(mount, tree, group, tree->usage, &usage))
        return UINT64_MAX;
    uint64_t cache = droppable(mount, tree, group);
    usage -= cache < usage ? cache : usage;
    return limit > usage ? limit - usage : 0;
}

/* From @group up to the root; @group is used up. */
static uint64_t left_on_the_way(const char *mount, const struct tree *tree, char *group)
{
    uint64_t least = UINT64_MAX;
    for (;;) {
        uint64_t left = left_in(mount, tree, group);
        least = left < least ? left : least;
        char *slash = strrchr(group, '/');
        if (!slash)
            return least;
        *slash = '\0';
    }
}

/* Is @name one of the comma-separated @controllers? */
static bool has_controller(const char *controllers, const char *name)
{
    size_t bytes = strlen(name);
    for (const char *at = controllers; *at; at += strspn(at, ",")) {
        size_t length = strcspn(at, ",");
        if (length == bytes && memcmp(at, name, bytes) == 0)
            return true;
        at += length;
    }
    return false;
}

uint64_t gw_cgroup_memory_left(const char *proc_file, const char *mount)
{
    FILE *file = fopen(proc_file, "re");
    char line[1024];
    uint64_t least = UINT64_MAX;
    while (file && fgets(line, sizeof(line), file)) {
        line[strcspn(line, "\n")] = '\0';
        char *controllers = strchr(line, ':'); /* "4:memory:/group", "0::/group" */
        char *group = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!group)
            continue;
        *group++ = '\0';
        controllers++;
        if (strcmp(group, "/") == 0)
            group[0] = '\0';
        char again[1024];
        memcpy(again, group, strlen(group) + 1);
        uint64_t left = UINT64_MAX;
        if (controllers[0] == '\0') {
            uint64_t in_hybrid = left_on_the_way(mount, &hybrid, again);
            left = left_on_the_way(mount, &unified, group);
            left = in_hybrid < left ? in_hybrid : left;
        } else if (has_controller(controllers, "memory")) {
            left = left_on_the_way(mount, &legacy, group);
        }
        least = left < least ? left : least;
    }
    if (file)
        fclose(file);
    return least;
}
