/* SPDX-License-Identifier: MIT */
/* transport/ofi/ofi.h - a seam for tests. */
#ifndef GW_TRANSPORT_OFI_H
#define GW_TRANSPORT_OFI_H

#include <stdbool.h>

/* Provider shm is refused between two ends of one process: it reads an end's memory after that end was
 * closed. A test that closes both ends, or neither, may have it. Not while threads run. */
void gw_ofi_allow_one_process(bool allow);

#endif
