// SPDX-License-Identifier: MIT
/* The union of a migration's dirty sources. Each is started on each block before anything is read;
 * a sync asks every source, stripe by stripe of one owner, to or what it saw into that stripe's
 * bits (stripes are multiples of 512 pages, which is what a source may rely on). A source that fails
 * makes the stripe dirty whole and is asked once more, so that it re-arms; failing again ends the
 * sync with its error. Bits are only ever added here: too much is sent, never too little. */
#include "ram/dirty.h"

#include "core/base/bitmap.h"
#include "core/base/bytes.h"
#include "ram/ram_impl.h"

#include <inttypes.h>
#include <stddef.h>
#include <string.h>

int gw_ram_add_dirty(struct gw_ram *ram, const struct gw_dirty_ops *ops, void *ctx,
                     struct gw_error *err)
{
    if (ops->struct_bytes < sizeof(*ops))
        return gw_fail(err, -EINVAL, "dirty source: struct_bytes %zu is less than %zu",
                       ops->struct_bytes, sizeof(*ops));
    if (!ops->name || !ops->sync)
        return gw_fail(err, -EINVAL, "dirty source: name and sync must be set");
    if (ram->dirty_count == GW_DIRTY_SOURCES_MAX)
        return gw_fail(err, -E2BIG, "dirty source '%s': more than %d", ops->name,
                       GW_DIRTY_SOURCES_MAX);
    ram->dirty[ram->dirty_count++] = (struct gw_dirty_source){.ops = *ops, .ctx = ctx};
    return 0;
}

unsigned gw_ram_dirty_source_count(const struct gw_ram *ram)
{
    return ram->dirty_count;
}

/* A source's call failed: make sure that err says whose it was, even if the source did not. */
static int source_failed(const struct gw_dirty_source *source, int rc, const char *what,
                         struct gw_error *err)
{
    if (!gw_error_is_set(err))
        return gw_fail(err, rc, "dirty source '%s': %s", source->ops.name, what);
    gw_error_prefix(err, "dirty source '%s': %s", source->ops.name, what);
    return rc;
}

bool gw_dirty_clears_once(const struct gw_ram *ram)
{
    for (unsigned s = 0; s < ram->dirty_count; s++) {
        if (ram->dirty[s].ops.flags & GW_DIRTY_CLEARS_ONCE)
            return true;
    }
    return false;
}

int gw_dirty_start(struct gw_ram *ram, enum gw_dirty_when when, struct gw_error *err)
{
    for (unsigned s = 0; s < ram->dirty_count; s++) {
        struct gw_dirty_source *source = &ram->dirty[s];
        bool late = source->ops.flags & GW_DIRTY_CLEARS_ONCE;
        if (when == (late ? GW_DIRTY_BEFORE_PINS : GW_DIRTY_AFTER_PINS))
            continue;
        gw_assert(!source->started_blocks);
        for (unsigned b = 0; b < ram->block_count; b++) {
            const struct gw_block_desc *desc = &ram->blocks[b]->desc;
            int rc = source->ops.start ? source->ops.start(source->ctx, b, desc, err) : 0;
            if (rc < 0) {
                source_failed(source, rc, "start", err);
                gw_error_prefix(err, "block '%s'", desc->name);
                gw_dirty_stop(ram);
                return rc;
            }
            source->started_blocks = b + 1;
        }
    }
    return 0;
}

void gw_dirty_stop(struct gw_ram *ram)
{
    for (unsigned s = 0; s < ram->dirty_count; s++) {
        struct gw_dirty_source *source = &ram->dirty[s];
        while (source->started_blocks) {
            source->started_blocks--;
            if (source->ops.stop)
                source->ops.stop(source->ctx, source->started_blocks);
        }
    }
}

int gw_dirty_final(struct gw_ram *ram, struct gw_error *err)
{
    for (unsigned s = 0; s < ram->dirty_count; s++) {
        struct gw_dirty_source *source = &ram->dirty[s];
        int rc = source->ops.final ? source->ops.final(source->ctx, err) : 0;
        if (rc < 0)
            return source_failed(source, rc, "final", err);
    }
    return 0;
}

/* @bits: bit 0 is @first_page. */
static int sync_source(const struct gw_dirty_source *source, const struct gw_block *block,
                       uint64_t first_page, uint64_t pages, uint64_t *bits, struct gw_error *err)
{
    int rc = source->ops.sync(source->ctx, block->id, first_page, pages, bits, NULL);
    if (rc >= 0)
        return 0;
    gw_bitmap_set_range(bits, 0, pages);
    rc = source->ops.sync(source->ctx, block->id, first_page, pages, bits, err);
    if (rc >= 0)
        return 0;
    source_failed(source, rc, "sync", err);
    gw_error_prefix(err, "block '%s'", block->desc.name);
    return rc;
}

/* Pages [first_page, first_page + pages) of one stripe. */
static int sync_pages(struct gw_ram *ram, struct gw_block *block, uint64_t first_page,
                      uint64_t pages, uint64_t *found, struct gw_error *err)
{
    uint64_t before = found ? gw_bitmap_count(block->dirty, first_page, pages) : 0;
    int rc = 0;
    for (unsigned s = 0; s < ram->dirty_count && rc == 0; s++)
        rc = sync_source(&ram->dirty[s], block, first_page, pages, block->dirty + first_page / 64,
                         err);
    if (found)
        *found += gw_bitmap_count(block->dirty, first_page, pages) - before;
    return rc;
}

int gw_dirty_sync(struct gw_ram *ram, unsigned owner, uint64_t *found, struct gw_error *err)
{
    struct gw_stripe stripe;
    if (found)
        *found = 0;
    for (uint64_t i = 0; gw_ram_stripe(ram, owner, i, &stripe); i++) {
        int rc =
            sync_pages(ram, ram->blocks[stripe.block], stripe.first_page, stripe.pages, found, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int gw_dirty_take(struct gw_ram *ram, uint32_t block, uint64_t first_page, uint64_t pages,
                  uint64_t *bits, struct gw_error *err)
{
    gw_assert(block < ram->block_count && first_page % GW_STRIPE_PAGES_MIN == 0);
    int rc = 0;
    for (unsigned s = 0; s < ram->dirty_count && rc == 0; s++)
        rc = sync_source(&ram->dirty[s], ram->blocks[block], first_page, pages, bits, err);
    return rc;
}

int gw_dirty_before_pin(struct gw_ram *ram, uint32_t block, uint64_t first_page, uint64_t pages,
                        struct gw_error *err)
{
    const struct gw_block_desc *desc = &ram->blocks[block]->desc;
    for (unsigned s = 0; s < ram->dirty_count; s++) {
        const struct gw_dirty_source *source = &ram->dirty[s];
        if (!source->ops.before_pin ||
            (!source->started_blocks && !(source->ops.flags & GW_DIRTY_CLEARS_ONCE)))
            continue; /* one that is not started keeps no write waiting */
        int rc = source->ops.before_pin(source->ctx, block, desc, first_page, pages, err);
        if (rc < 0)
            return source_failed(source, rc, "before memory is pinned", err);
    }
    return 0;
}

void gw_dirty_absorb(struct gw_ram *ram, unsigned owner, uint32_t block, uint64_t first_page,
                     uint64_t pages, const uint64_t *bits)
{
    uint64_t *dirty = ram->blocks[block]->dirty;
    uint64_t end = gw_min_u64(ram->blocks[block]->pages, first_page + pages);
    uint64_t at = first_page;
    while (at < end) {
        uint64_t stripe_end = (at / ram->stripe_pages + 1) * ram->stripe_pages;
        uint64_t next = gw_min_u64(stripe_end, end);
        if (gw_ram_owner(ram, block, at) == owner) {
            for (uint64_t page = at; page < next; page += 64) /* stripes are whole words */
                dirty[page / 64] |= bits[(page - first_page) / 64];
        }
        at = next;
    }
}
