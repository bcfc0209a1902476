/* SPDX-License-Identifier: MIT */
/* ram/digest.h - XXH3-128 over all blocks in name order, holes counted as zeros without being read. */
#ifndef GW_RAM_DIGEST_H
#define GW_RAM_DIGEST_H

#include "ram/block.h"

#define GW_DIGEST_BYTES 16

/* Nothing may write meanwhile. Costs one pass over what is populated. @cancel may be NULL; a non-zero
 * value seen there ends it with -ECANCELED [set by any thread, atomically]. */
int gw_ram_digest(struct gw_ram *ram, uint8_t digest[GW_DIGEST_BYTES], const volatile int *cancel,
                  struct gw_error *err);

#endif
