// SPDX-License-Identifier: MIT
/* What works on this host: the order of the probes. Every finding comes from doing the thing in small,
 * not from a version number: listening on loopback, opening a userfaultfd, arming a page and storing to
 * it, locking memory, connecting to the peer and reading its answer. What is opened is closed again, so
 * a run leaves nothing behind. A probe that fails is a finding, never an error; only a malformed
 * address is one. */
#include "core/doctor.h"

#include "core/base/error.h"

#include <string.h>

bool gw_doctor_asks_for(const struct gw_uri *uri, const char *wire)
{
    const char *name = uri ? gw_wire_name(uri->scheme) : NULL;

    return name && strcmp(name, wire) == 0;
}

int gw_doctor_run(const char *uri, gw_finding_fn *found, void *ctx, struct gw_error *err)
{
    struct gw_findings all = {.found = found, .ctx = ctx};
    struct gw_uri address;

    if (uri && gw_uri_parse(uri, &address, err) < 0)
        return -EINVAL;
    if (uri && gw_wire_check(address.scheme, err) < 0)
        return gw_error_prefix(err, "address '%.200s'", uri);
    if (!found)
        return 0;
    const struct gw_uri *asked = uri ? &address : NULL;
    gw_doctor_wires(asked, &all);
    gw_doctor_memory(asked, &all);
    gw_doctor_userfaultfd(&all);
    gw_doctor_dirty(&all);
    gw_doctor_kvm(&all);
    if (asked)
        gw_doctor_peer(asked, &all);
    return all.missing;
}
