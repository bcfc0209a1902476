/* SPDX-License-Identifier: MIT */
/* godwit/doctor.h - what works on this host, what does not, why, and the exact fix. */
#ifndef GODWIT_DOCTOR_H
#define GODWIT_DOCTOR_H

#include <godwit/error.h>
#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

struct gw_finding {
    size_t struct_bytes;
    const char *topic; /* "memlock", "wire tcp", "rdma port rxe0/1"...: unique within a run */
    bool ok;
    bool needed;        /* by every migration, or by one to the given address; else a feature is
                           missing without it */
    const char *detail; /* what was found, and why it is not ok: "need 16384 KiB, have 8192 KiB" */
    const char *fix;    /* a command for the shell that mends it, sudo included if this process is
                           not root's; "" where it is ok or no command helps */
    const char *note;   /* what else to know: another way, how to make it last; or "" */
};

/* Called once per finding; texts are valid during the call. */
typedef void gw_finding_fn(void *ctx, const struct gw_finding *finding);

/** gw_doctor_run() - probe by doing; leaves nothing behind. Takes about a second (libfabric looks
 *  for its providers), and as long as @uri's name and an answer from there take, 5 s at most beside
 *  the look-up. Calls @found on this thread.
 *  @uri: also check whether a listening peer there can be reached; its wire's findings become
 *        needed. May be NULL.
 *  @found: NULL: only judge whether @uri is well-formed and of this build; nothing is probed.
 *  Return: how many needed things are not ok, or -EINVAL for a @uri that is malformed or of a wire
 *  that is not in this build. A peer that cannot be reached is a finding. */
GW_API int gw_doctor_run(const char *uri, gw_finding_fn *found, void *ctx, struct gw_error *err);

#ifdef __cplusplus
}
#endif
#endif
