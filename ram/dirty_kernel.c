// SPDX-License-Identifier: MIT
/* The ready-made dirty sources: which mechanism, which blocks. gw_dirty_open tries a mechanism by
 * what it does (arm a page, store, look), not by the kernel's version. The table of blocks is read
 * by every sync, from several threads, and changed by start and stop only. What tracks a block is
 * its mechanism's business (dirty_scan.c, dirty_uffd.c, dirty_soft.c). */
#include "core/base/alloc.h"
#include "core/base/bitmap.h"
#include "core/base/bytes.h"
#include "core/base/error.h"
#include "core/base/log.h"
#include "ram/block.h"
#include "ram/dirty_impl.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>

static const struct gw_dirty_mechanism *const mechanisms[] = {
    &gw_dirty_pagemap_scan, /* best first */
    &gw_dirty_uffd_wp,
    &gw_dirty_soft_dirty,
};
#define MECHANISM_COUNT (sizeof(mechanisms) / sizeof(mechanisms[0]))

int gw_dirty_fail(const struct gw_dirty *dirty, const struct gw_dirty_block *block, int rc,
                  const char *what, struct gw_error *err)
{
    gw_fail_code(err, rc, rc == -EOPNOTSUPP ? GW_CODE_UNSUPPORTED : GW_CODE_DIRTY,
                 "block '%s': dirty tracking by %s: %s: %s", block->name, dirty->ops.name, what,
                 strerrordesc_np(-rc));
    gw_error_place(err, "block '%s'", block->name);
    return rc;
}

/* ---- the table of blocks --------------------------------------------------------------------- */

/* Where @address belongs: the index of the first block that ends behind it. */
static unsigned address_index(const struct gw_dirty *dirty, uint64_t address)
{
    unsigned low = 0;
    unsigned high = dirty->block_count;
    while (low < high) {
        unsigned middle = low + (high - low) / 2;
        const struct gw_dirty_block *block = dirty->by_address[middle];
        if (block->host + block->bytes > address)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

struct gw_dirty_block *gw_dirty_find_locked(const struct gw_dirty *dirty, uint64_t address)
{
    unsigned at = address_index(dirty, address);
    if (at == dirty->block_count || dirty->by_address[at]->host > address)
        return NULL;
    return dirty->by_address[at];
}

static int grow_locked(struct gw_dirty *dirty, unsigned id)
{
    if (id >= dirty->id_count) {
        unsigned count = id + 1 > 2 * dirty->id_count ? id + 1 : 2 * dirty->id_count;
        struct gw_dirty_block **wider =
            gw_realloc(dirty->by_id, count, sizeof(struct gw_dirty_block *));
        if (!wider)
            return -ENOMEM;
        memset(wider + dirty->id_count, 0,
               (count - dirty->id_count) * sizeof(struct gw_dirty_block *));
        dirty->by_id = wider;
        dirty->id_count = count;
    }
    if (dirty->block_count == dirty->block_room) {
        unsigned room = dirty->block_room ? 2 * dirty->block_room : 16;
        struct gw_dirty_block **wider =
            gw_realloc(dirty->by_address, room, sizeof(struct gw_dirty_block *));
        if (!wider)
            return -ENOMEM;
        dirty->by_address = wider;
        dirty->block_room = room;
    }
    return 0;
}

static int table_add_locked(struct gw_dirty *dirty, struct gw_dirty_block *block)
{
    int rc = grow_locked(dirty, block->id);
    if (rc < 0)
        return rc;
    unsigned at = address_index(dirty, block->host);
    if (dirty->by_id[block->id])
        return -EEXIST;
    if (at < dirty->block_count && dirty->by_address[at]->host < block->host + block->bytes)
        return -EEXIST; /* overlaps: two masters of one page's protection */
    memmove(dirty->by_address + at + 1, dirty->by_address + at,
            (dirty->block_count - at) * sizeof(struct gw_dirty_block *));
    dirty->by_address[at] = block;
    dirty->block_count++;
    dirty->by_id[block->id] = block;
    return 0;
}

static void table_remove_locked(struct gw_dirty *dirty, struct gw_dirty_block *block)
{
    unsigned at = address_index(dirty, block->host);
    gw_assert(dirty->by_address[at] == block);
    dirty->block_count--;
    memmove(dirty->by_address + at, dirty->by_address + at + 1,
            (dirty->block_count - at) * sizeof(struct gw_dirty_block *));
    dirty->by_id[block->id] = NULL;
}

/* Stays valid until the block is stopped, which no sync of it may outlast. */
static struct gw_dirty_block *find(struct gw_dirty *dirty, unsigned id)
{
    struct gw_dirty_block *block = NULL;
    pthread_rwlock_rdlock(&dirty->blocks_lock);
    if (id < dirty->id_count)
        block = dirty->by_id[id];
    pthread_rwlock_unlock(&dirty->blocks_lock);
    return block;
}

static void block_free(struct gw_dirty_block *block)
{
    if (block)
        gw_free(block->seen);
    gw_free(block);
}

void gw_dirty_seen_take(struct gw_dirty_block *block, uint64_t first, uint64_t pages,
                        uint64_t *bitmap)
{
    uint64_t *seen = block->seen + first / 64; /* groups are whole words */
    for (size_t i = 0; i < gw_bitmap_words(pages); i++) {
        bitmap[i] |= seen[i];
        seen[i] = 0;
    }
}

/* ---- the operations -------------------------------------------------------------------------- */

static int check_desc(unsigned id, const struct gw_block_desc *desc, struct gw_error *err)
{
    uint64_t host = (uint64_t)(uintptr_t)desc->host;
    uint64_t page = desc->page_bytes;
    if (page < GW_DIRTY_PAGE_BYTES || (page & (page - 1)) || host & (page - 1) ||
        desc->size_bytes == 0 || desc->size_bytes & (page - 1))
        return gw_fail(err, -EINVAL,
                       "block '%s': %" PRIu64 " bytes at 0x%" PRIx64
                       " are not whole pages of %" PRIu64 " bytes",
                       desc->name, desc->size_bytes, host, page);
    if (id >= GW_BLOCKS_MAX)
        return gw_fail(err, -E2BIG, "block '%s': id %u, the most is %u", desc->name, id,
                       GW_BLOCKS_MAX - 1);
    return 0;
}

static struct gw_dirty_block *block_new(const struct gw_dirty *dirty, unsigned id,
                                        const struct gw_block_desc *desc)
{
    struct gw_dirty_block *block = gw_zalloc(1, sizeof(*block));
    if (!block)
        return NULL;
    snprintf(block->name, sizeof(block->name), "%s", desc->name);
    block->id = id;
    block->kind = desc->kind;
    block->host = (uint64_t)(uintptr_t)desc->host;
    block->bytes = desc->size_bytes;
    /* Transparent huge pages are split by protection: only hugetlb moves in its own units. */
    block->page_bytes = desc->kind == GW_BLOCK_HUGETLB ? desc->page_bytes : GW_DIRTY_PAGE_BYTES;
    if (!dirty->mechanism->keeps_seen || !dirty->mechanism->keeps_seen(block))
        return block;
    uint64_t pages = block->bytes / GW_DIRTY_PAGE_BYTES;
    block->seen = gw_zalloc(gw_bitmap_words(pages), sizeof(uint64_t));
    if (block->seen)
        return block;
    gw_free(block);
    return NULL;
}

static void remove_block(struct gw_dirty *dirty, struct gw_dirty_block *block)
{
    pthread_rwlock_wrlock(&dirty->blocks_lock);
    table_remove_locked(dirty, block);
    pthread_rwlock_unlock(&dirty->blocks_lock);
    block_free(block);
}

static int kernel_start(void *ctx, unsigned block_id, const struct gw_block_desc *desc,
                        struct gw_error *err)
{
    struct gw_dirty *dirty = ctx;
    int rc = check_desc(block_id, desc, err);
    if (rc < 0)
        return rc;
    struct gw_dirty_block *block = block_new(dirty, block_id, desc);
    if (!block)
        return gw_fail(err, -ENOMEM, "block '%s': dirty tracking", desc->name);
    /* Known before it is armed: the first fault may come at once. */
    pthread_rwlock_wrlock(&dirty->blocks_lock);
    rc = table_add_locked(dirty, block);
    pthread_rwlock_unlock(&dirty->blocks_lock);
    if (rc < 0) {
        gw_dirty_fail(dirty, block, rc, "add to the tracked blocks", err);
        if (rc == -EEXIST)
            gw_error_hint(err, "its id or a part of its memory is tracked already");
        block_free(block);
        return rc;
    }
    rc = dirty->mechanism->start(dirty, block, err);
    if (rc < 0)
        remove_block(dirty, block);
    return rc;
}

/* The block, if pages [@first_page, @first_page + @pages) are a range of it that may be asked for. */
static int find_range(struct gw_dirty *dirty, unsigned block_id, uint64_t first_page,
                      uint64_t pages, struct gw_dirty_block **block, struct gw_error *err)
{
    *block = find(dirty, block_id);
    if (!*block)
        return gw_fail_code(err, -ENOENT, GW_CODE_DIRTY, "block %u is not tracked", block_id);
    uint64_t block_pages = (*block)->bytes / GW_DIRTY_PAGE_BYTES;
    if (first_page % GW_DIRTY_GROUP_PAGES || !gw_range_is_inside(first_page, pages, block_pages) ||
        (pages % GW_DIRTY_GROUP_PAGES && first_page + pages != block_pages))
        return gw_fail(err, -EINVAL,
                       "block '%s': sync of pages %" PRIu64 " and %" PRIu64
                       " more: ranges begin and end at multiples of %u or at the block's end",
                       (*block)->name, first_page, pages, GW_DIRTY_GROUP_PAGES);
    return 0;
}

static int kernel_sync(void *ctx, unsigned block_id, uint64_t first_page, uint64_t pages,
                       uint64_t *bitmap, struct gw_error *err)
{
    struct gw_dirty *dirty = ctx;
    struct gw_dirty_block *block;
    int rc = find_range(dirty, block_id, first_page, pages, &block, err);
    return rc < 0 ? rc : dirty->mechanism->sync(dirty, block, first_page, pages, bitmap, err);
}

static int kernel_before_pin(void *ctx, unsigned block_id, const struct gw_block_desc *desc,
                             uint64_t first_page, uint64_t pages, struct gw_error *err)
{
    struct gw_dirty *dirty = ctx;
    struct gw_dirty_block *block = find(dirty, block_id);
    bool is_early = !block && (dirty->mechanism->flags & GW_DIRTY_CLEARS_ONCE);
    int rc = is_early ? 0 : find_range(dirty, block_id, first_page, pages, &block, err);
    return rc < 0 ? rc : dirty->mechanism->before_pin(dirty, block, desc, first_page, pages, err);
}

static void kernel_stop(void *ctx, unsigned block_id)
{
    struct gw_dirty *dirty = ctx;
    struct gw_dirty_block *block = find(dirty, block_id);
    if (!block)
        return; /* its start failed */
    dirty->mechanism->stop(dirty, block);
    remove_block(dirty, block);
}

/* ---- does it work here ----------------------------------------------------------------------- */

#define PROBE_PAGES 4u

/* A store to a page that is there, to one that is not, and a system call's: all must be told. */
static int probe_writes(struct gw_dirty *dirty, char *memory, struct gw_error *err)
{
    const char *name = dirty->ops.name;
    uint64_t written = 0;
    int rc = kernel_sync(dirty, 0, 0, PROBE_PAGES, &written, err);
    if (rc < 0)
        return rc;
    for (int round = 0; round < 2; round++) {
        ((volatile char *)memory)[0] = 1;
        ((volatile char *)memory)[GW_DIRTY_PAGE_BYTES] = 1;
        if (getrandom(memory + 2 * (size_t)GW_DIRTY_PAGE_BYTES, 1, GRND_NONBLOCK) != 1)
            return gw_fail(err, -errno, "%s: a system call's write to a tracked page", name);
        written = 0;
        rc = kernel_sync(dirty, 0, 0, PROBE_PAGES, &written, err);
        if (rc < 0)
            return rc;
        if ((written & 7) == 7)
            continue;
        gw_fail(err, -EOPNOTSUPP, "%s: armed a page, wrote to it, and was not told", name);
        gw_error_hint(err, "the kernel was built without it");
        return -EOPNOTSUPP;
    }
    return 0;
}

static int probe(struct gw_dirty *dirty, struct gw_error *err)
{
    size_t bytes = PROBE_PAGES * (size_t)GW_DIRTY_PAGE_BYTES;
    char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return gw_fail(err, -errno, "%s: map %zu bytes to try it with", dirty->ops.name, bytes);
    ((volatile char *)memory)[0] = 1;
    const struct gw_block_desc desc = {
        .struct_bytes = sizeof(desc),
        .name = "probe",
        .host = memory,
        .size_bytes = bytes,
        .page_bytes = GW_DIRTY_PAGE_BYTES,
        .kind = GW_BLOCK_ANON,
        .fd = -1,
    };
    int rc = kernel_start(dirty, 0, &desc, err);
    if (rc == 0)
        rc = probe_writes(dirty, memory, err);
    kernel_stop(dirty, 0);
    munmap(memory, bytes);
    return rc;
}

/* ---- opening --------------------------------------------------------------------------------- */

static void destroy(struct gw_dirty *dirty)
{
    for (unsigned i = 0; i < dirty->block_count; i++)
        block_free(dirty->by_address[i]);
    gw_free(dirty->by_address);
    gw_free(dirty->by_id);
    for (unsigned i = 0; i < GW_DIRTY_LOCKS; i++)
        pthread_mutex_destroy(&dirty->group_locks[i]);
    pthread_rwlock_destroy(&dirty->blocks_lock);
    gw_free(dirty);
}

static struct gw_dirty *create(const struct gw_dirty_mechanism *mechanism, const struct gw_log *log)
{
    struct gw_dirty *dirty = gw_zalloc(1, sizeof(*dirty));
    if (!dirty)
        return NULL;
    dirty->mechanism = mechanism;
    if (log)
        dirty->log = *log;
    dirty->uffd = dirty->pagemap = dirty->reader_wake = -1;
    pthread_rwlock_init(&dirty->blocks_lock, NULL);
    for (unsigned i = 0; i < GW_DIRTY_LOCKS; i++)
        pthread_mutex_init(&dirty->group_locks[i], NULL);
    dirty->ops = (struct gw_dirty_ops){
        .struct_bytes = sizeof(dirty->ops),
        .name = gw_dirty_method_name(mechanism->method),
        .flags = mechanism->flags,
        .start = kernel_start,
        .sync = kernel_sync,
        .stop = kernel_stop,
        .before_pin = mechanism->before_pin ? kernel_before_pin : NULL,
    };
    return dirty;
}

static int open_one(const struct gw_dirty_mechanism *mechanism, const struct gw_log *log,
                    struct gw_dirty **out, struct gw_error *err)
{
    struct gw_dirty *dirty = create(mechanism, log);
    if (!dirty) {
        gw_fail(err, -ENOMEM, "%s: dirty source", gw_dirty_method_name(mechanism->method));
        return -ENOMEM;
    }
    int rc = mechanism->open(dirty, err);
    if (rc < 0) {
        destroy(dirty);
        return rc;
    }
    rc = probe(dirty, err);
    if (rc < 0) {
        gw_dirty_close(dirty);
        return rc;
    }
    *out = dirty;
    return 0;
}

/* What was refused and why, and the first refusal's fix: it is the best mechanism's. */
static int fail_all(const struct gw_error *why, struct gw_error *err)
{
    char text[GW_ERROR_TEXT_BYTES] = "";
    size_t used = 0;
    for (size_t i = 0; i < MECHANISM_COUNT && used < sizeof(text); i++)
        used += (size_t)snprintf(text + used, sizeof(text) - used, "%s%s", i ? "; " : "",
                                 why[i].message);
    gw_fail_code(err, -EOPNOTSUPP, GW_CODE_UNSUPPORTED, "no way to track writes works here: %s",
                 text);
    gw_error_hint(err, "%s", why[0].hint);
    return -EOPNOTSUPP;
}

static void log_choice(const struct gw_dirty *dirty, const struct gw_error *why, size_t refused)
{
    char text[GW_ERROR_TEXT_BYTES] = "";
    size_t used = 0;
    for (size_t i = 0; i < refused && used < sizeof(text); i++)
        used += (size_t)snprintf(text + used, sizeof(text) - used, "; not %s", why[i].message);
    const char *tax = dirty->mechanism->tax;
    gw_log(&dirty->log, tax ? GW_LOG_WARN : GW_LOG_INFO, "dirty",
           "writes are tracked by %s%s%s%s%s", dirty->ops.name, tax ? " (" : "", tax ? tax : "",
           tax ? ")" : "", text);
}

static int open_best(const struct gw_log *log, struct gw_dirty **out, struct gw_error *err)
{
    struct gw_error why[MECHANISM_COUNT];
    for (size_t i = 0; i < MECHANISM_COUNT; i++) {
        why[i] = (struct gw_error)GW_ERROR_INIT;
        int rc = open_one(mechanisms[i], log, out, &why[i]);
        if (rc == 0) {
            log_choice(*out, why, i);
            return 0;
        }
        if (rc == -ENOMEM || rc == -EMFILE) {
            gw_error_copy(err, &why[i]);
            return rc;
        }
    }
    return fail_all(why, err);
}

int gw_dirty_open(enum gw_dirty_method method, const struct gw_log *log, struct gw_dirty **dirty,
                  struct gw_error *err)
{
    if (method == GW_DIRTY_AUTO)
        return open_best(log, dirty, err);
    for (size_t i = 0; i < MECHANISM_COUNT; i++) {
        if (mechanisms[i]->method != method)
            continue;
        int rc = open_one(mechanisms[i], log, dirty, err);
        if (rc == 0)
            log_choice(*dirty, NULL, 0);
        return rc;
    }
    return gw_fail(err, -EINVAL, "dirty method %d does not exist", (int)method);
}

const struct gw_dirty_ops *gw_dirty_kernel_ops(const struct gw_dirty *dirty)
{
    return &dirty->ops;
}

const char *gw_dirty_method_name(enum gw_dirty_method method)
{
    switch (method) {
    case GW_DIRTY_AUTO:
        return "auto";
    case GW_DIRTY_PAGEMAP_SCAN:
        return "pagemap-scan";
    case GW_DIRTY_UFFD_WP:
        return "uffd-wp";
    case GW_DIRTY_SOFT_DIRTY:
        return "soft-dirty";
    }
    return "unknown";
}

int gw_dirty_probe(enum gw_dirty_method method, struct gw_error *err)
{
    struct gw_dirty *dirty = NULL;
    int rc = gw_dirty_open(method, NULL, &dirty, err);
    if (rc == -EBUSY)
        return 0; /* soft-dirty, in use by a migration of this process: so it works */
    if (rc == 0)
        gw_dirty_close(dirty);
    return rc;
}

void gw_dirty_close(struct gw_dirty *dirty)
{
    if (!dirty)
        return;
    while (dirty->block_count) /* forgotten by the caller, but the guest must be able to write */
        kernel_stop(dirty, dirty->by_address[dirty->block_count - 1]->id);
    dirty->mechanism->close(dirty);
    destroy(dirty);
}
