// SPDX-License-Identifier: MIT
/* Addresses for one-sided wires (one_sided.h): ofi's providers run over loopback, RDMA wants a device, whose
 * address scripts/soft-roce says. */
#include "tests/support/one_sided.h"

#include "gw_config.h"
#include "tests/shim/gw_test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const gw_one_sided_wires[] = {"ofi_net", "ofi_rxm", "rdma4", NULL};
const char *const gw_one_sided_rdma[] = {"rdma4", NULL};

const char *gw_one_sided_uri(const char *wire)
{
    static char uri[128];
    bool is_ofi = strncmp(wire, "ofi_", 4) == 0;
    const char *address = getenv("RIG_ADDR");

    if (is_ofi && !GW_HAVE_OFI)
        GW_SKIP("this build has no ofi: it was built without libfabric");
    if (!is_ofi && !GW_HAVE_RDMA)
        GW_SKIP("this build has no rdma: it was built without rdma-core");
    if (!is_ofi && !address)
        GW_SKIP("no RDMA device: RIG_ADDR is not set (scripts/soft-roce)");
    if (is_ofi)
        snprintf(uri, sizeof(uri), "ofi:%s:127.0.0.1:0",
                 strcmp(wire, "ofi_net") == 0 ? "net" : "tcp;ofi_rxm");
    else
        snprintf(uri, sizeof(uri), "rdma:%s:0", address);
    return uri;
}
