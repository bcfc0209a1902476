// SPDX-License-Identifier: MIT
/* Does a block that a source offers fit the one that this host would have? Sizes alone: a name is
 * looked up, and memory made, by who asks. */
#include "core/base/error.h"

#include <godwit/target.h>

int gw_block_offer_check(const struct gw_block_offer *offer, uint64_t size_bytes,
                         uint64_t size_bytes_max, struct gw_error *err)
{
    bool is_resizable = size_bytes_max > size_bytes;
    if (offer->size_bytes == size_bytes || (is_resizable && offer->size_bytes <= size_bytes_max))
        return 0;
    const char *rom = offer->flags & GW_BLOCK_READ_ONLY ? "ROM " : "";
    if (is_resizable)
        gw_fail_code(err, -EINVAL, GW_CODE_BLOCK,
                     "%sblock '%s' has %llu bytes at the source, and may have %llu here", rom,
                     offer->name, (unsigned long long)offer->size_bytes,
                     (unsigned long long)size_bytes_max);
    else
        gw_fail_code(err, -EINVAL, GW_CODE_BLOCK,
                     "%sblock '%s' has %llu bytes at the source and %llu here", rom, offer->name,
                     (unsigned long long)offer->size_bytes, (unsigned long long)size_bytes);
    gw_error_hint(
        err, rom[0] ? "start the target with the firmware of the source, or pad both images to "
                      "one size"
                    : "start the target with the memory of the source");
    return -EINVAL;
}
