// SPDX-License-Identifier: MIT
/* The doctor's look at wires. Those of sockets are listened on, on loopback; those with a library
 * report for themselves (gw_wire_report), from modules to devices, ports and providers. A wire is
 * needed if the address asked about is on it; without an address, tcp and unix are. */
#include "core/base/clock.h"
#include "core/base/error.h"
#include "core/doctor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int try_listen(const char *text, char *where, size_t bytes, struct gw_error *err)
{
    struct gw_wire_config config = {0};
    struct gw_listener *listener = NULL;
    struct gw_uri uri;
    int rc = gw_uri_parse(text, &uri, err);

    if (rc == 0)
        rc = gw_listen(&uri, &config, &listener, err);
    if (rc < 0)
        return rc;
    snprintf(where, bytes, "%.200s", gw_listener_uri(listener));
    gw_listener_close(listener);
    return 0;
}

static void probe_address(struct gw_findings *all, const char *topic, const char *uri, bool needed)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_fix fix = {0};
    char where[256];

    if (try_listen(uri, where, sizeof(where), &err) == 0) {
        gw_find_ok(all, topic, needed, "listens on %s", where);
        return;
    }
    gw_fix_note(&fix, "%s", err.hint);
    gw_find_bad(all, topic, needed, &fix, "%s", err.message);
}

/* Addresses of IPv6 may be switched off for the loopback interface alone. */
static void probe_tcp6(struct gw_findings *all, const struct gw_uri *uri)
{
    static const char setting[] = "/proc/sys/net/ipv6/conf/lo/disable_ipv6";
    bool needed = uri && gw_doctor_asks_for(uri, "tcp") && strchr(uri->host, ':');
    struct gw_fix fix = {0};
    char line[16];

    if (gw_read_line(setting, line, sizeof(line)) == 0 && line[0] == '0') {
        probe_address(all, "wire tcp6", "tcp:[::1]:0", needed);
        return;
    }
    if (line[0] == '1')
        gw_fix_command(&fix, "%ssysctl -w net.ipv6.conf.lo.disable_ipv6=0", gw_fix_sudo());
    gw_find_bad(all, "wire tcp6", needed, &fix, "IPv6 is %s",
                line[0] == '1' ? "switched off on the loopback interface"
                               : "not in this kernel: tcp over IPv4 works without");
}

/* A folder of our own under the usual one for temporary files, so that no name can clash. */
static void probe_unix(struct gw_findings *all, bool needed)
{
    const char *base = getenv("TMPDIR");
    char folder[200], uri[240];
    struct gw_fix fix = {0};

    base = base && base[0] ? base : "/tmp";
    snprintf(folder, sizeof(folder), "%.100s/godwit-doctor-XXXXXX", base);
    if (!mkdtemp(folder)) {
        gw_fix_command(&fix, "export TMPDIR=\"$HOME\"");
        gw_fix_note(&fix, "any folder that this user may write to");
        gw_find_bad(all, "wire unix", needed, &fix, "no folder can be made in %.100s: %s", base,
                    strerrordesc_np(errno));
        return;
    }
    snprintf(uri, sizeof(uri), "unix:%s/s", folder);
    probe_address(all, "wire unix", uri, needed);
    rmdir(folder);
}

void gw_doctor_wires(const struct gw_uri *uri, struct gw_findings *all)
{
    probe_address(all, "wire tcp", "tcp:127.0.0.1:0", !uri || gw_doctor_asks_for(uri, "tcp"));
    probe_tcp6(all, uri);
    probe_unix(all, !uri || gw_doctor_asks_for(uri, "unix"));
    gw_wire_report("rdma", gw_doctor_asks_for(uri, "rdma"), all);
    gw_wire_report("ofi", gw_doctor_asks_for(uri, "ofi"), all);
}
