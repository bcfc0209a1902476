// SPDX-License-Identifier: MIT
/* XXH3-128: a thin wall around xxHash, so that one room includes it. */
#include "core/base/hash.h"

#include "core/base/alloc.h"

#include <string.h>
#include <xxhash.h>

struct gw_hash {
    XXH3_state_t *state;
};

struct gw_hash *gw_hash_new(void)
{
    struct gw_hash *hash = gw_zalloc(1, sizeof(*hash));
    if (!hash)
        return NULL;
    hash->state = XXH3_createState();
    if (!hash->state || XXH3_128bits_reset(hash->state) == XXH_ERROR) {
        gw_hash_free(hash);
        return NULL;
    }
    return hash;
}

void gw_hash_update(struct gw_hash *hash, const void *data, size_t bytes)
{
    XXH3_128bits_update(hash->state, data, bytes);
}

void gw_hash_result(const struct gw_hash *hash, uint8_t result[GW_HASH_BYTES])
{
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(hash->state));
    memcpy(result, canonical.digest, GW_HASH_BYTES);
}

void gw_hash_free(struct gw_hash *hash)
{
    if (!hash)
        return;
    XXH3_freeState(hash->state);
    gw_free(hash);
}

uint64_t gw_hash_text(const char *text, uint64_t seed)
{
    return XXH3_64bits_withSeed(text, strlen(text), seed);
}
