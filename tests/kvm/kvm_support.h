/* SPDX-License-Identifier: MIT */
/* tests/kvm/kvm_support.h - what tests of godwit-kvm share: chains of processes, the serial file, a machine
 * in this process. */
#ifndef GW_TEST_KVM_SUPPORT_H
#define GW_TEST_KVM_SUPPORT_H

#include "examples/kvm/kvm_machine.h"
#include "tests/support/command.h"

/* A file of this test's own, empty. Removed when the program ends. */
const char *kvm_file(const char *name);
/* "tick 1" and so on, one a line behind the first, which is the program's name: the last number, or -1,
 * noted, if one is missing, twice or torn. */
long kvm_ticks(const char *serial_path);

/* Processes 0 to @hops: each but the last sends to the next, the last checks its guest for @run_for. All of
 * them say what the guest says to one file. What is not as it must be is noted. */
struct kvm_chain {
    const char *uri;              /* "tcp:127.0.0.1:0", "unix:" */
    const char *const *options;   /* of the first, NULL at the end */
    const char *const *receivers; /* of all others, NULL at the end; or NULL */
    unsigned hops;
    const char *run_for;      /* seconds at each host */
    double clock_late_ms_max; /* the worst that a document said */
};
void kvm_run_chain(struct kvm_chain *chain);

/* A machine that runs the writer in this process. */
void kvm_boot(struct vmm_machine *machine, unsigned vcpus, uint32_t ring_bytes);

#endif
