// SPDX-License-Identifier: MIT
/* Sets of pages in two levels: a table of leaves of 32768 pages, so that a set costs what was put into it
 * and not what a stranger said the block's size is. Leaves and tables of a stream share a budget; where it
 * is spent, pages are no longer followed, which is said (budget.spent) and no error. */
#include "ram/inline.h"

#include "core/base/alloc.h"
#include "core/base/bitmap.h"

#define LEAF_PAGES UINT64_C(32768)
#define LEAF_BYTES (LEAF_PAGES / 8)

static bool spend(struct gw_pageset_budget *budget, uint64_t bytes)
{
    if (budget->spent || bytes > budget->bytes) {
        budget->spent = true;
        return false;
    }
    budget->bytes -= (size_t)bytes;
    return true;
}

int gw_pageset_init(struct gw_pageset *set, uint64_t pages, struct gw_pageset_budget *budget)
{
    uint64_t leaves = pages / LEAF_PAGES + 1;
    *set = (struct gw_pageset){.pages = pages};
    if (leaves > SIZE_MAX / sizeof(*set->leaves) || !spend(budget, leaves * sizeof(*set->leaves)))
        return 0;
    set->leaves = gw_zalloc((size_t)leaves, sizeof(*set->leaves));
    return set->leaves ? 0 : -ENOMEM;
}

void gw_pageset_fini(struct gw_pageset *set)
{
    for (uint64_t i = 0; set->leaves && i < set->pages / LEAF_PAGES + 1; i++)
        gw_free(set->leaves[i]);
    gw_free(set->leaves);
    set->leaves = NULL;
}

bool gw_pageset_has(const struct gw_pageset *set, uint64_t page)
{
    const uint64_t *leaf = set->leaves ? set->leaves[page / LEAF_PAGES] : NULL;
    return leaf && gw_bitmap_test(leaf, page % LEAF_PAGES);
}

bool gw_pageset_add(struct gw_pageset *set, uint64_t page, struct gw_pageset_budget *budget)
{
    if (!set->leaves)
        return false;
    uint64_t **leaf = &set->leaves[page / LEAF_PAGES];
    if (!*leaf && spend(budget, LEAF_BYTES))
        *leaf = gw_zalloc(1, LEAF_BYTES);
    if (!*leaf) {
        budget->spent = true;
        return false;
    }
    if (gw_bitmap_test(*leaf, page % LEAF_PAGES))
        return true;
    gw_bitmap_set(*leaf, page % LEAF_PAGES);
    set->count++;
    return false;
}
