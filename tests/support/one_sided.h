/* SPDX-License-Identifier: MIT */
/* tests/support/one_sided.h - for whole migrations over the wires where puts land without the target's code. */
#ifndef GW_TEST_ONE_SIDED_H
#define GW_TEST_ONE_SIDED_H

/* "ofi_net", "ofi_rxm", "rdma4". (What an address family changes is the contract suite's, which has rdma6.) */
extern const char *const gw_one_sided_wires[];
extern const char *const gw_one_sided_rdma[]; /* of these, the one with a device that refuses */
/* What to listen on, any port; static storage. Skips where the build or the machine lacks the wire. */
const char *gw_one_sided_uri(const char *wire);

#endif
