// SPDX-License-Identifier: MIT
/* The guest's blocks, found by id in an array and by name in a hash, and their cut into stripes.
 *
 * Stripes are numbered through all blocks in id order, and stripe n belongs to owner n mod owners:
 * so both sides compute the same map from the block list alone, neighbouring stripes go over
 * different endpoints, and 10,000 small blocks are spread as evenly as one large one. Nothing here
 * is kept per page but one bit at the source and one at the target, in memory that the kernel gives
 * out as it is touched: an empty 4 TiB block costs address space only.
 *
 * Every failure leaves the blocks as they were. */
#include "ram/block.h"

#include "core/base/alloc.h"
#include "core/base/bitmap.h"
#include "core/base/bytes.h"
#include "core/base/hash.h"
#include "ram/holes.h"
#include "ram/ram_impl.h"

#include <inttypes.h>
#include <stddef.h>
#include <string.h>
#include <sys/random.h>

#define NAME_SLOTS_MIN 64u
#define BLOCK_ROOM_MIN 16u

struct gw_ram *gw_ram_new(void)
{
    struct gw_ram *ram = gw_zalloc(1, sizeof(*ram));
    if (!ram)
        return NULL;
    ram->names = gw_zalloc(NAME_SLOTS_MIN, sizeof(*ram->names));
    if (!ram->names) {
        gw_free(ram);
        return NULL;
    }
    ram->name_slots = NAME_SLOTS_MIN;
    /* At a target the peer chooses the names, and must not choose which collide. No entropy: no harm. */
    (void)!getrandom(&ram->name_seed, sizeof(ram->name_seed), GRND_NONBLOCK);
    return ram;
}

static void block_free(struct gw_block *block)
{
    if (!block)
        return;
    gw_free((char *)(uintptr_t)block->desc.name);
    gw_free(block->dirty);
    gw_free(block->received);
    gw_free(block->stale);
    gw_free(block);
}

void gw_ram_free(struct gw_ram *ram)
{
    if (!ram)
        return;
    for (unsigned i = 0; i < ram->block_count; i++)
        block_free(ram->blocks[i]);
    gw_free(ram->blocks);
    gw_free(ram->names);
    gw_free(ram);
}

/* The slot that holds @name, or the empty one where it belongs. */
static uint32_t name_slot(struct gw_ram *ram, const char *name)
{
    uint32_t slot = (uint32_t)gw_hash_text(name, ram->name_seed) & (ram->name_slots - 1);
    for (; ram->names[slot]; slot = (slot + 1) & (ram->name_slots - 1)) {
        ram->name_compares++;
        if (strcmp(ram->blocks[ram->names[slot] - 1]->desc.name, name) == 0)
            break;
    }
    return slot;
}

static int grow_names(struct gw_ram *ram)
{
    if ((ram->block_count + 1) * 2 <= ram->name_slots)
        return 0;
    uint32_t *old = ram->names;
    uint32_t *grown = gw_zalloc((size_t)ram->name_slots * 2, sizeof(*grown));
    if (!grown)
        return -ENOMEM;
    ram->names = grown;
    ram->name_slots *= 2;
    for (unsigned i = 0; i < ram->block_count; i++)
        ram->names[name_slot(ram, ram->blocks[i]->desc.name)] = i + 1;
    gw_free(old);
    return 0;
}

static int grow_blocks(struct gw_ram *ram)
{
    if (ram->block_count < ram->block_room)
        return 0;
    unsigned room = ram->block_room ? ram->block_room * 2 : BLOCK_ROOM_MIN;
    struct gw_block **grown = gw_realloc(ram->blocks, room, sizeof(struct gw_block *));
    if (!grown)
        return -ENOMEM;
    ram->blocks = grown;
    ram->block_room = room;
    return 0;
}

static int check_memory(const struct gw_block_desc *desc, struct gw_error *err)
{
    const char *name = desc->name;
    if (desc->page_bytes < GW_PAGE_BYTES || (desc->page_bytes & (desc->page_bytes - 1)))
        return gw_fail(err, -EINVAL,
                       "block '%s': page_bytes %" PRIu32 " is not a power of two from %u up", name,
                       desc->page_bytes, GW_PAGE_BYTES);
    if (!desc->size_bytes || desc->size_bytes % desc->page_bytes)
        return gw_fail(err, -EINVAL,
                       "block '%s': size_bytes %" PRIu64 " is not a multiple of its %" PRIu32
                       "-byte pages",
                       name, desc->size_bytes, desc->page_bytes);
    uintptr_t host = (uintptr_t)desc->host;
    if (!host || host % desc->page_bytes)
        return gw_fail(err, -EINVAL,
                       "block '%s': host %p is not aligned to its %" PRIu32 "-byte pages", name,
                       desc->host, desc->page_bytes);
    if (desc->size_bytes > UINTPTR_MAX - host)
        return gw_fail(err, -EINVAL,
                       "block '%s': size_bytes %" PRIu64 " wraps around the address space", name,
                       desc->size_bytes);
    return 0;
}

static int check_name(const char *name, struct gw_error *err)
{
    if (!name || !name[0])
        return gw_fail(err, -EINVAL, "block: name is empty");
    size_t bytes = strnlen(name, GW_NAME_BYTES_MAX + 1);
    if (bytes > GW_NAME_BYTES_MAX)
        return gw_fail(err, -EINVAL, "block '%.32s...': name is longer than %d bytes", name,
                       GW_NAME_BYTES_MAX);
    const uint8_t *odd = gw_text_find_odd(name, bytes);
    if (odd)
        return gw_fail(err, -EINVAL, "block: byte 0x%02x in its name is not printable ASCII", *odd);
    return 0;
}

static int check_desc(const struct gw_block_desc *desc, struct gw_error *err)
{
    if (desc->struct_bytes < sizeof(*desc))
        return gw_fail(err, -EINVAL, "block: struct_bytes %zu is less than %zu", desc->struct_bytes,
                       sizeof(*desc));
    int rc = check_name(desc->name, err);
    if (rc == 0)
        rc = check_memory(desc, err);
    if (rc < 0)
        return rc;
    if (desc->flags & ~GW_BLOCK_READ_ONLY)
        return gw_fail(err, -EINVAL, "block '%s': flags 0x%" PRIx32 " are unknown", desc->name,
                       desc->flags & ~GW_BLOCK_READ_ONLY);
    if (desc->kind != GW_BLOCK_ANON && desc->kind != GW_BLOCK_MEMFD &&
        desc->kind != GW_BLOCK_HUGETLB)
        return gw_fail(err, -EINVAL, "block '%s': kind %d is unknown", desc->name, (int)desc->kind);
    if (desc->fd < -1)
        return gw_fail(err, -EINVAL, "block '%s': fd %d is neither a descriptor nor -1", desc->name,
                       desc->fd);
    if (desc->fd >= 0 && desc->fd_offset % desc->page_bytes)
        return gw_fail(err, -EINVAL,
                       "block '%s': fd_offset %" PRIu64 " is not a multiple of its %" PRIu32
                       "-byte pages",
                       desc->name, desc->fd_offset, desc->page_bytes);
    if (desc->fd >= 0 && desc->fd_offset > (uint64_t)INT64_MAX - desc->size_bytes)
        return gw_fail(err, -EINVAL, "block '%s': fd_offset %" PRIu64 " wraps around", desc->name,
                       desc->fd_offset);
    return 0;
}

int gw_ram_add_block(struct gw_ram *ram, const struct gw_block_desc *desc, struct gw_error *err)
{
    int rc = check_desc(desc, err);
    if (rc < 0)
        return rc;
    if (gw_ram_find(ram, desc->name))
        return gw_fail(err, -EEXIST, "block '%s': the name is taken", desc->name);
    if (ram->block_count == GW_BLOCKS_MAX || ram->bytes + desc->size_bytes < ram->bytes)
        return gw_fail(err, -E2BIG, "block '%s': more than %u blocks or 2^64 bytes", desc->name,
                       GW_BLOCKS_MAX);

    struct gw_block *block = gw_zalloc(1, sizeof(*block));
    char *name = gw_strdup(desc->name);
    rc = -ENOMEM;
    if (!block || !name || grow_blocks(ram) < 0 || grow_names(ram) < 0) {
        gw_fail(err, rc, "block '%s'", desc->name);
        goto out;
    }
    block->desc = *desc;
    block->desc.struct_bytes = sizeof(block->desc);
    block->desc.name = name;
    block->id = ram->block_count;
    block->pages = desc->size_bytes / GW_PAGE_BYTES;
    ram->names[name_slot(ram, name)] = block->id + 1;
    ram->blocks[ram->block_count++] = block;
    ram->bytes += desc->size_bytes;
    ram->stripe_pages = 0; /* the old layout knows nothing of it */
    rc = (int)block->id;
    block = NULL; /* the ram's from here, and the name with it */
    name = NULL;
out:
    gw_free(name);
    gw_free(block);
    return rc;
}

unsigned gw_ram_block_count(const struct gw_ram *ram)
{
    return ram->block_count;
}

struct gw_block *gw_ram_block(struct gw_ram *ram, unsigned id)
{
    return id < ram->block_count ? ram->blocks[id] : NULL;
}

struct gw_block *gw_ram_find(struct gw_ram *ram, const char *name)
{
    uint32_t slot = name_slot(ram, name);
    return ram->names[slot] ? ram->blocks[ram->names[slot] - 1] : NULL;
}

uint64_t gw_ram_bytes(const struct gw_ram *ram)
{
    return ram->bytes;
}

int gw_ram_layout(struct gw_ram *ram, uint64_t stripe_bytes, unsigned owners, struct gw_error *err)
{
    uint64_t unit = (uint64_t)GW_STRIPE_PAGES_MIN * GW_PAGE_BYTES;
    if (!stripe_bytes || stripe_bytes % unit)
        return gw_fail(err, -EINVAL,
                       "stripes of %" PRIu64 " bytes: not a multiple of %" PRIu64 " bytes",
                       stripe_bytes, unit);
    if (!owners)
        return gw_fail(err, -EINVAL, "stripes need an owner");
    ram->stripe_pages = stripe_bytes / GW_PAGE_BYTES;
    ram->owners = owners;
    ram->stripe_count = 0;
    for (unsigned i = 0; i < ram->block_count; i++) {
        struct gw_block *block = ram->blocks[i];
        block->stripe_first = ram->stripe_count;
        ram->stripe_count += (block->pages + ram->stripe_pages - 1) / ram->stripe_pages;
    }
    return 0;
}

unsigned gw_ram_owner(const struct gw_ram *ram, uint32_t block, uint64_t page)
{
    gw_assert(ram->stripe_pages && block < ram->block_count && page < ram->blocks[block]->pages);
    return (unsigned)((ram->blocks[block]->stripe_first + page / ram->stripe_pages) % ram->owners);
}

uint64_t gw_ram_stripe_pages(const struct gw_ram *ram)
{
    return ram->stripe_pages;
}

unsigned gw_ram_owner_count(const struct gw_ram *ram)
{
    return ram->owners;
}

uint64_t gw_ram_stripe_count(const struct gw_ram *ram)
{
    return ram->stripe_count;
}

/* The block that holds stripe @number: the last whose first stripe is not behind it. */
static const struct gw_block *block_of_stripe(const struct gw_ram *ram, uint64_t number)
{
    unsigned low = 0;
    unsigned high = ram->block_count;
    while (high - low > 1) {
        unsigned middle = low + (high - low) / 2;
        if (ram->blocks[middle]->stripe_first <= number)
            low = middle;
        else
            high = middle;
    }
    return ram->blocks[low];
}

bool gw_ram_stripe(const struct gw_ram *ram, unsigned owner, uint64_t index,
                   struct gw_stripe *stripe)
{
    gw_assert(ram->stripe_pages && owner < ram->owners);
    if (ram->stripe_count <= owner || index > (ram->stripe_count - 1 - owner) / ram->owners)
        return false;
    uint64_t number = owner + index * ram->owners;
    const struct gw_block *block = block_of_stripe(ram, number);
    stripe->block = block->id;
    stripe->first_page = (number - block->stripe_first) * ram->stripe_pages;
    stripe->pages = gw_min_u64(ram->stripe_pages, block->pages - stripe->first_page);
    return true;
}

/* Zeroed bits for every page: new ones, or those of an earlier attempt wiped. */
static int bits_reset(uint64_t **bits, uint64_t pages)
{
    size_t words = gw_bitmap_words(pages);
    if (*bits) {
        memset(*bits, 0, words * sizeof(**bits));
        return 0;
    }
    *bits = gw_zalloc(words, sizeof(**bits));
    return *bits ? 0 : -ENOMEM;
}

static int set_populated(const struct gw_block *block, uint64_t *bits, uint64_t *populated,
                         struct gw_error *err)
{
    struct gw_holes walk;
    struct gw_extent extent;
    int rc = gw_holes_begin(&walk, block, 0);
    while (rc >= 0 && (rc = gw_holes_step(&walk, &extent)) > 0) {
        gw_bitmap_set_range(bits, extent.first_page, extent.pages);
        *populated += extent.pages;
    }
    gw_holes_end(&walk);
    if (rc < 0)
        gw_fail(err, rc, "block '%s': cannot find out what is populated", block->desc.name);
    return rc;
}

int gw_ram_source_begin(struct gw_ram *ram, struct gw_error *err)
{
    uint64_t populated = 0;
    for (unsigned i = 0; i < ram->block_count; i++) {
        struct gw_block *block = ram->blocks[i];
        int rc = bits_reset(&block->dirty, block->pages);
        if (rc < 0)
            return gw_fail(err, rc, "block '%s': dirty bits", block->desc.name);
        rc = set_populated(block, block->dirty, &populated, err);
        if (rc < 0)
            return rc;
    }
    ram->populated_pages = populated;
    return 0;
}

uint64_t gw_ram_populated_pages(const struct gw_ram *ram)
{
    return ram->populated_pages;
}

uint64_t gw_ram_dirty_pages(const struct gw_ram *ram)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < ram->block_count; i++) {
        const struct gw_block *block = ram->blocks[i];
        if (block->dirty)
            sum += gw_bitmap_count(block->dirty, 0, block->pages);
    }
    return sum;
}

static int block_target_begin(struct gw_block *block, struct gw_error *err)
{
    struct gw_extent extent;
    int rc = gw_holes_next(block, 0, &extent);
    if (rc < 0)
        return gw_fail(err, rc, "block '%s': cannot find out what is populated", block->desc.name);
    block->fresh = rc == 0;
    rc = bits_reset(&block->received, block->pages);
    if (rc == 0 && block->fresh) {
        gw_free(block->stale);
        block->stale = NULL;
        return 0;
    }
    if (rc == 0)
        rc = bits_reset(&block->stale, block->pages);
    if (rc < 0)
        return gw_fail(err, rc, "block '%s': received bits", block->desc.name);
    uint64_t populated = 0;
    return set_populated(block, block->stale, &populated, err);
}

int gw_ram_target_begin(struct gw_ram *ram, struct gw_error *err)
{
    for (unsigned i = 0; i < ram->block_count; i++) {
        int rc = block_target_begin(ram->blocks[i], err);
        if (rc < 0)
            return rc;
    }
    return 0;
}
