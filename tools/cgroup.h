/* SPDX-License-Identifier: MIT */
/* tools/cgroup.h - what the control groups of this process leave it. */
#ifndef GW_TOOLS_CGROUP_H
#define GW_TOOLS_CGROUP_H

#include <stdint.h>

#define GW_CGROUP_PROC "/proc/self/cgroup"
#define GW_CGROUP_MOUNT "/sys/fs/cgroup"

/* Bytes of memory that the groups named in @proc_file, mounted at @mount, still allow; UINT64_MAX: no
 * limit is set, or none can be read. */
uint64_t gw_cgroup_memory_left(const char *proc_file, const char *mount);

#endif
