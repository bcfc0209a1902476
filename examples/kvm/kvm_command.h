/* SPDX-License-Identifier: MIT */
/* examples/kvm/kvm_command.h - what godwit-kvm was told, and what it reports. */
#ifndef VMM_COMMAND_H
#define VMM_COMMAND_H

#include "examples/kvm/kvm_machine.h"

#include <godwit/doctor.h>
#include <godwit/params.h>
#include <godwit/stats.h>
#include <stdio.h>

/* As godwit's. */
enum vmm_exit {
    VMM_EXIT_COMPLETED,
    VMM_EXIT_FAILED,
    VMM_EXIT_USAGE,
    VMM_EXIT_CANCELLED,
    VMM_EXIT_UNKNOWN,
    VMM_EXIT_CHECK,
};

enum vmm_mode { VMM_RUN, VMM_SEND, VMM_RECEIVE };

struct vmm_options {
    enum vmm_mode mode;
    const char *uri, *then_uri;
    struct vmm_boot boot;
    unsigned vcpus, slow_percent;
    enum vmm_memory memory;
    bool ring;
    const char *serial, *disk, *lock, *json, *events;
    double warmup_s, run_for_s; /* run_for_s < 0: until a signal */
    uint64_t ram_bytes_max;
    bool quiet;
    struct gw_params *params;
};

/* Return: -1: go on; else the status to exit with. */
int vmm_options_parse(struct vmm_options *options, int argc, char **argv);

/* CPU time of this process less that of its processors' threads. */
struct vmm_usage {
    uint64_t user_ns, system_ns;
};
void vmm_usage_take(struct vmm_usage *usage, const struct vmm_machine *machine);

struct vmm_report {
    const char *role, *uri;
    struct gw_stats stats;
    struct gw_round rounds[64];
    unsigned round_count;
    struct gw_error error;
    struct vmm_usage begun, ended; /* around total-time */
    bool verified, checked;        /* checked: the guest looked at its memory */
};

/* @file: NULL: nothing is written. Return: 0, or -EIO: not all of it was. */
int vmm_report_write(const struct vmm_report *report, const struct vmm_machine *machine,
                     FILE *file);

/* A line of --events. */
void vmm_event_write(FILE *file, const struct gw_event *event, uint64_t begun_ns);

#endif
