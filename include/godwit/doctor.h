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
    const char *topic; /* "userfaultfd", "pagemap-scan", "memlock", "hugepages", "wire tcp"... */
    bool ok;
    bool needed;        /* false: only a feature is missing without it */
    const char *detail; /* what was found: "need 65536 KiB, have 8192 KiB" */
    const char *fix;    /* the command or setting, or "" */
};

/* Called once per finding; texts are valid during the call. */
typedef void gw_finding_fn(void *ctx, const struct gw_finding *finding);

/** gw_doctor_run() - probe by doing; leaves nothing behind. Takes well under a second, beside a look-up
 *  of @uri's host name. Calls @found on this thread.
 *  @uri: also check whether a listening peer there can be reached; may be NULL.
 *  @found: NULL: only judge whether @uri is well-formed and of this build; nothing is probed.
 *  Return: how many needed things are not ok, or -EINVAL for a @uri that is malformed or of a wire
 *  that is not in this build. A peer that cannot be reached is a finding. */
GW_API int gw_doctor_run(const char *uri, gw_finding_fn *found, void *ctx, struct gw_error *err);

#ifdef __cplusplus
}
#endif
#endif
