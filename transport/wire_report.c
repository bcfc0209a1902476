// SPDX-License-Identifier: MIT
/* Which wire reports what to the doctor. A wire that this build lacks has one finding: which part it
 * was built without, and how to get it. */
#include "transport/wire_report.h"

#include "gw_config.h"

#include <string.h>

#if GW_HAVE_RDMA
#define RDMA_REPORT gw_rdma_report
#define RDMA_REPORT_PATH gw_rdma_report_path
#else
#define RDMA_REPORT NULL
#define RDMA_REPORT_PATH NULL
#endif
#if GW_HAVE_OFI
#define OFI_REPORT gw_ofi_report
#else
#define OFI_REPORT NULL
#endif

static const struct reporter {
    const char *scheme;
    void (*report)(bool needed, struct gw_findings *all); /* NULL: not in this build */
    void (*report_path)(const struct gw_uri *uri, bool needed, struct gw_findings *all);
    const char *topic, *parts, *packages; /* as Debian names them */
} reporters[] = {
    {"rdma", RDMA_REPORT, RDMA_REPORT_PATH, "rdma", "libibverbs and librdmacm",
     "libibverbs-dev librdmacm-dev"},
    {"ofi", OFI_REPORT, NULL, "ofi", "libfabric", "libfabric-dev"},
};

static const struct reporter *find(const char *scheme)
{
    for (size_t i = 0; i < sizeof(reporters) / sizeof(reporters[0]); i++) {
        if (strcmp(reporters[i].scheme, scheme) == 0)
            return &reporters[i];
    }
    return NULL;
}

void gw_wire_report(const char *scheme, bool needed, struct gw_findings *all)
{
    const struct reporter *wire = find(scheme);
    struct gw_fix fix = {0};

    if (!wire)
        return;
    if (wire->report) {
        wire->report(needed, all);
        return;
    }
    gw_fix_command(&fix, "%sapt-get install %s", gw_fix_sudo(), wire->packages);
    gw_fix_note(&fix, "and build again (packages as Debian names them); tcp and unix work without");
    gw_find_bad(all, wire->topic, needed, &fix, "not in this build: it was built without %s",
                wire->parts);
}

void gw_wire_report_path(const char *scheme, const struct gw_uri *uri, bool needed,
                         struct gw_findings *all)
{
    const struct reporter *wire = find(scheme);

    if (wire && wire->report_path && uri->host[0] != '\0')
        wire->report_path(uri, needed, all);
}
