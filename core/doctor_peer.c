// SPDX-License-Identifier: MIT
/* The doctor's look at the other side: the way there where the wire can tell it from the answer (over
 * RDMA: which device and address, has it a route), then a connection as a source would make it, which
 * is dropped before hello; a target logs and forgets that. */
#include "core/base/clock.h"
#include "core/base/error.h"
#include "core/doctor.h"

#include <string.h>
#include <sys/random.h>

#define GW_REACH_NS (2 * GW_NS_PER_S)

static int connect_once(const struct gw_uri *uri, char *peer, size_t bytes, struct gw_error *err)
{
    struct gw_wire_config config = {.deadline_ns = gw_clock_ns() + GW_REACH_NS};
    struct gw_endpoint *endpoint = NULL;
    struct gw_domain *domain = NULL;
    struct gw_ep_attr attr;

    int rc = getrandom(config.session, sizeof(config.session), 0) < 0 ? -errno : 0;
    if (rc == 0)
        rc = gw_domain_open(uri->scheme, &config, &domain, err);
    if (rc == 0)
        rc = gw_connect(domain, uri, &config, &endpoint, err);
    if (rc == 0) {
        gw_ep_query(endpoint, &attr);
        memcpy(peer, attr.peer, bytes < sizeof(attr.peer) ? bytes : sizeof(attr.peer));
    }
    gw_ep_close(endpoint);
    gw_domain_close(domain);
    return rc;
}

void gw_doctor_peer(const struct gw_uri *uri, struct gw_findings *all)
{
    char peer[sizeof(((struct gw_ep_attr *)0)->peer)] = "";
    struct gw_error err = GW_ERROR_INIT;
    struct gw_fix fix = {0};

    gw_wire_report_path("rdma", uri, gw_doctor_asks_for(uri, "rdma"), all);
    if (connect_once(uri, peer, sizeof(peer), &err) == 0) {
        gw_find_ok(all, "peer", true, "%s answered the preface (%s)", uri->text, peer);
        return;
    }
    if (uri->path[0] != '\0')
        gw_fix_command(&fix, "godwit receive '%s' &", uri->text);
    gw_fix_note(&fix, "%s", err.hint[0] ? err.hint : "start `godwit receive` there");
    gw_find_bad(all, "peer", true, &fix, "%s", err.message);
}
