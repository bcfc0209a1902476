// SPDX-License-Identifier: MIT
/* XXH3-128 of the guest's memory: the bytes of all blocks in the order of their names. Holes are fed
 * as zeros from a buffer that stays in the cache, so they are neither read (reading a memfd's hole
 * allocates it) nor fetched from memory; the digest is the same as if they had been. */
#include "ram/digest.h"

#include "core/base/alloc.h"
#include "core/base/bytes.h"
#include "core/base/hash.h"
#include "ram/holes.h"

#include <stdlib.h>
#include <string.h>

#define PIECE_BYTES (UINT64_C(16) << 20) /* between two looks at @cancel: some milliseconds */
#define ZERO_BYTES (64u << 10)

static const uint8_t zeros[ZERO_BYTES];

static int by_name(const void *a, const void *b)
{
    const struct gw_block *const *left = a;
    const struct gw_block *const *right = b;
    return strcmp((*left)->desc.name, (*right)->desc.name);
}

static bool is_cancelled(const volatile int *cancel)
{
    return cancel && __atomic_load_n(cancel, __ATOMIC_RELAXED);
}

static int feed(struct gw_hash *hash, const uint8_t *from, uint64_t bytes,
                const volatile int *cancel)
{
    while (bytes) {
        uint64_t piece = gw_min_u64(bytes, PIECE_BYTES);
        if (is_cancelled(cancel))
            return -ECANCELED;
        gw_hash_update(hash, from, piece);
        from += piece;
        bytes -= piece;
    }
    return 0;
}

static int feed_hole(struct gw_hash *hash, uint64_t bytes, const volatile int *cancel)
{
    for (uint64_t fed = 0; fed < bytes; fed += ZERO_BYTES) {
        if (fed % PIECE_BYTES == 0 && is_cancelled(cancel))
            return -ECANCELED;
        gw_hash_update(hash, zeros, gw_min_u64(bytes - fed, ZERO_BYTES));
    }
    return 0;
}

static int feed_block(struct gw_hash *hash, const struct gw_block *block,
                      const volatile int *cancel, struct gw_error *err)
{
    const uint8_t *host = block->desc.host;
    struct gw_holes walk;
    struct gw_extent extent;
    uint64_t at = 0;
    int rc = gw_holes_begin(&walk, block, 0);
    while (rc >= 0 && (rc = gw_holes_step(&walk, &extent)) > 0) {
        rc = feed_hole(hash, (extent.first_page - at) * GW_PAGE_BYTES, cancel);
        if (rc == 0)
            rc = feed(hash, host + extent.first_page * GW_PAGE_BYTES, extent.pages * GW_PAGE_BYTES,
                      cancel);
        at = extent.first_page + extent.pages;
    }
    gw_holes_end(&walk);
    if (rc == 0)
        rc = feed_hole(hash, (block->pages - at) * GW_PAGE_BYTES, cancel);
    if (rc == -ECANCELED)
        return gw_fail(err, rc, "digest cancelled");
    if (rc < 0)
        return gw_fail(err, rc, "block '%s': cannot find out what is populated", block->desc.name);
    return 0;
}

int gw_ram_digest(struct gw_ram *ram, uint8_t digest[GW_DIGEST_BYTES], const volatile int *cancel,
                  struct gw_error *err)
{
    unsigned count = gw_ram_block_count(ram);
    struct gw_block **sorted = gw_zalloc(count, sizeof(struct gw_block *));
    struct gw_hash *hash = gw_hash_new();
    int rc = -ENOMEM;
    if (!sorted || !hash) {
        gw_fail(err, rc, "digest");
        goto out;
    }
    for (unsigned i = 0; i < count; i++)
        sorted[i] = gw_ram_block(ram, i);
    qsort(sorted, count, sizeof(struct gw_block *), by_name);

    rc = 0;
    for (unsigned i = 0; i < count && rc == 0; i++)
        rc = feed_block(hash, sorted[i], cancel, err);
    if (rc == 0)
        gw_hash_result(hash, digest);
out:
    gw_hash_free(hash);
    gw_free(sorted);
    return rc;
}
