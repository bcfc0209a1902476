// SPDX-License-Identifier: MIT
/* Records of a RAM section. A record is one word, the offset in the block with flags in the bits below the
 * page size, then the block's name unless CONTINUE says that it is the last one's, then what the flag says.
 * CONTINUE reaches across sections. Everything is checked before it is used: flags one at a time, offsets
 * against the block, sums of the table as they grow. */
#include "ram/inline.h"

#include "core/base/alloc.h"
#include "core/base/bytes.h"
#include "ram/inline_impl.h"

#include <inttypes.h>

#define BUDGET_BYTES ((size_t)48 << 20) /* pages of 1.5 TiB of guests are followed */

void gw_inline_init(struct gw_inline *ram)
{
    *ram = (struct gw_inline){.page_bytes = 4096, .budget = {.bytes = BUDGET_BYTES}};
}

void gw_inline_fini(struct gw_inline *ram)
{
    for (unsigned i = 0; i < ram->block_count; i++)
        gw_pageset_fini(&ram->blocks[i].received);
    gw_free(ram->blocks);
    gw_inflater_free(ram->inflater);
    *ram = (struct gw_inline){0};
}

/* ---- the block table -------------------------------------------------------------------------- */

int gw_inline_find(const struct gw_inline *ram, const uint8_t *name, size_t bytes)
{
    /* Records name the block that the last one was in, or one nearby. */
    for (unsigned n = 0; n < ram->block_count; n++) {
        unsigned i = (ram->current + n) % ram->block_count;
        const char *other = ram->blocks[i].name;
        if (strlen(other) == bytes && memcmp(other, name, bytes) == 0)
            return (int)i;
    }
    return -ENOENT;
}

static int take_name(struct gw_input *in, const uint8_t **name, size_t *bytes, struct gw_error *err)
{
    uint64_t at = gw_input_tell(in);
    const uint8_t *length = gw_input_take(in, 1, "name of a block", err);
    if (!length)
        return -EBADMSG;
    *bytes = *length;
    if (*bytes == 0) {
        gw_input_refuse(in, at, err, "a block without a name");
        return -EPROTO; /* said here, so that an analyser sees that there is no name */
    }
    *name = gw_input_take(in, *bytes, "name of a block", err);
    if (!*name)
        return -EBADMSG;
    const uint8_t *odd = gw_text_find_odd(*name, *bytes);
    if (odd) {
        gw_input_refuse(in, at + 1 + (uint64_t)(odd - *name), err,
                        "byte 0x%02x in the name of a block", (unsigned)*odd);
        return -EPROTO;
    }
    return 0;
}

/* An entry may be followed by the size of the pages behind the block. A name never begins with a zero byte
 * and a record never has no flag, so nothing else reads as one of the sizes that were advised. */
static void take_page_bytes(struct gw_inline *ram, struct gw_input *in,
                            struct gw_inline_block *block)
{
    const uint8_t *at;
    if (ram->sizes == 0 || gw_input_look(in, 8, &at) < 8)
        return;
    uint64_t size = gw_be64_load(at);
    if (size < ram->page_bytes || (size & (size - 1)) != 0 || (size & ram->sizes) == 0)
        return;
    block->page_bytes = size;
    gw_input_skip(in, 8);
}

static int take_guest_address(struct gw_input *in, struct gw_inline_block *block,
                              struct gw_error *err)
{
    const uint8_t *at = gw_input_take(in, 8, "guest address of a block", err);
    if (!at)
        return -EBADMSG;
    block->guest_address = gw_be64_load(at);
    block->has_guest_address = true;
    return 0;
}

static struct gw_inline_block *add_block(struct gw_inline *ram)
{
    if (ram->block_count == ram->block_room) {
        unsigned room = ram->block_room ? 2 * ram->block_room : 16;
        struct gw_inline_block *blocks = gw_realloc(ram->blocks, room, sizeof(*blocks));
        if (!blocks)
            return NULL;
        ram->blocks = blocks;
        ram->block_room = room;
    }
    struct gw_inline_block *block = &ram->blocks[ram->block_count];
    *block = (struct gw_inline_block){0};
    return block;
}

static int check_entry(const struct gw_inline *ram, struct gw_input *in,
                       const struct gw_inline_block *block, uint64_t left, struct gw_error *err)
{
    if (block->bytes == 0 || block->bytes % ram->page_bytes != 0)
        return gw_input_refuse(in, block->offset, err,
                               "block '%s' of %" PRIu64 " bytes, which are no pages of %" PRIu64,
                               block->name, block->bytes, ram->page_bytes);
    if (block->bytes > left)
        return gw_input_refuse(in, block->offset, err,
                               "block '%s' of %" PRIu64 " bytes, %" PRIu64 " are left of the total",
                               block->name, block->bytes, left);
    return 0;
}

static int take_entry(struct gw_inline *ram, struct gw_input *in, uint64_t left,
                      struct gw_error *err)
{
    const uint8_t *name = NULL;
    size_t bytes = 0;
    uint64_t offset = gw_input_tell(in);
    if (ram->block_count == GW_INLINE_BLOCKS_MAX)
        return gw_input_refuse(in, offset, err, "more than %u blocks", GW_INLINE_BLOCKS_MAX);
    int rc = take_name(in, &name, &bytes, err);
    if (rc < 0)
        return rc;
    if (gw_inline_find(ram, name, bytes) >= 0)
        return gw_input_refuse(in, offset, err, "a second block '%.*s'", (int)bytes,
                               (const char *)name);
    struct gw_inline_block *block = add_block(ram);
    if (!block)
        return gw_fail(err, -ENOMEM, "table of blocks");
    memcpy(block->name, name, bytes);
    block->offset = offset;
    const uint8_t *at = gw_input_take(in, 8, "size of a block", err);
    if (!at)
        return -EBADMSG;
    block->bytes = gw_be64_load(at);
    rc = check_entry(ram, in, block, left, err);
    if (rc < 0)
        return rc;
    take_page_bytes(ram, in, block);
    if (ram->guest_addresses)
        rc = take_guest_address(in, block, err);
    if (rc == 0)
        rc = gw_pageset_init(&block->received, block->bytes / ram->page_bytes, &ram->budget);
    if (rc < 0)
        return rc;
    unsigned index = ram->block_count++;
    return ram->mapped ? gw_inline_take_mapped(ram, in, index, err) : 0;
}

static int take_table(struct gw_inline *ram, struct gw_input *in, uint64_t total, uint64_t at,
                      struct gw_error *err)
{
    uint64_t sum = 0;
    if (ram->has_table)
        return gw_input_refuse(in, at, err, "a second table of blocks");
    ram->has_table = true;
    ram->total = total;
    while (sum < total) {
        int rc = take_entry(ram, in, total - sum, err);
        if (rc < 0)
            return rc;
        sum += ram->blocks[ram->block_count - 1].bytes;
    }
    return 0;
}

/* ---- pages ------------------------------------------------------------------------------------ */

static int choose_block(struct gw_inline *ram, struct gw_input *in, bool again, uint64_t at,
                        struct gw_error *err)
{
    const uint8_t *name = NULL;
    size_t bytes = 0;
    if (again)
        return ram->has_current
                   ? 0
                   : gw_input_refuse(in, at, err, "a page of the last block, and there was none");
    uint64_t offset = gw_input_tell(in);
    int rc = take_name(in, &name, &bytes, err);
    if (rc < 0)
        return rc;
    int index = gw_inline_find(ram, name, bytes);
    if (index < 0)
        return gw_input_refuse(in, offset, err, "a page of block '%.*s', which is not in the table",
                               (int)bytes, (const char *)name);
    ram->current = (unsigned)index;
    ram->has_current = true;
    return 0;
}

/* A byte of version and a length, then the code. */
static int take_xbzrle(struct gw_inline *ram, struct gw_input *in, struct gw_inline_page *page,
                       struct gw_error *err)
{
    uint64_t at = gw_input_tell(in);
    const uint8_t *head = gw_input_take(in, 3, "head of an xbzrle page", err);
    if (!head)
        return -EBADMSG;
    if (head[0] != GW_XBZRLE_VERSION)
        return gw_input_refuse(in, at, err, "byte 0x%02x in front of an xbzrle page, expected 0x01",
                               (unsigned)head[0]);
    page->bytes = gw_be16_load(head + 1);
    if (page->bytes == 0 || page->bytes > ram->page_bytes)
        return gw_input_refuse(in, at + 1, err, "an xbzrle page of %zu bytes", page->bytes);
    page->data = gw_input_take(in, page->bytes, "xbzrle page", err);
    if (!page->data)
        return -EBADMSG;
    if (gw_xbzrle_decode(page->data, page->bytes, NULL, ram->page_bytes) < 0)
        return gw_input_refuse(in, at + 3, err, "an xbzrle page whose runs do not fit");
    return 0;
}

static int inflate_page(struct gw_inline *ram, struct gw_input *in, struct gw_inline_page *page,
                        uint64_t at, struct gw_error *err)
{
    int rc = ram->inflater ? 0 : gw_inflater_new(ram->page_bytes, &ram->inflater);
    if (rc == 0)
        rc = gw_inflater_page(ram->inflater, page->data, page->bytes, &page->data);
    if (rc == -EPROTO)
        return gw_input_refuse(in, at, err,
                               "a compressed page that does not inflate to %" PRIu64 " bytes",
                               ram->page_bytes);
    page->bytes = (size_t)ram->page_bytes;
    return rc < 0 ? gw_fail(err, rc, "compressed page") : 0;
}

static int take_compressed(struct gw_inline *ram, struct gw_input *in, struct gw_inline_page *page,
                           struct gw_error *err)
{
    uint64_t at = gw_input_tell(in);
    const uint8_t *head = gw_input_take(in, 4, "length of a compressed page", err);
    if (!head)
        return -EBADMSG;
    page->bytes = gw_be32_load(head);
    /* What zlib's compressBound() says for a page. */
    uint64_t most = ram->page_bytes + (ram->page_bytes >> 12) + (ram->page_bytes >> 14) +
                    (ram->page_bytes >> 25) + 13;
    if (page->bytes == 0 || page->bytes > most)
        return gw_input_refuse(in, at, err, "a compressed page of %zu bytes", page->bytes);
    page->data = gw_input_take(in, page->bytes, "compressed page", err);
    if (!page->data)
        return -EBADMSG;
    return gw_inflater_is_built() ? inflate_page(ram, in, page, at + 4, err) : 0;
}

static int take_content(struct gw_inline *ram, struct gw_input *in, struct gw_inline_page *page,
                        struct gw_error *err)
{
    switch (page->kind) {
    case GW_INLINE_XBZRLE:
        return take_xbzrle(ram, in, page, err);
    case GW_INLINE_COMPRESSED:
        return take_compressed(ram, in, page, err);
    case GW_INLINE_ZERO:
    case GW_INLINE_PAGE:
        break;
    }
    page->bytes = page->kind == GW_INLINE_ZERO ? 1 : (size_t)ram->page_bytes;
    page->data = gw_input_take(in, page->bytes, "page", err);
    return page->data ? 0 : -EBADMSG;
}

int gw_inline_count_page(struct gw_inline *ram, struct gw_input *in, struct gw_inline_page *page,
                         struct gw_error *err)
{
    struct gw_inline_block *block = &ram->blocks[page->block];
    page->again = gw_pageset_add(&block->received, page->offset / ram->page_bytes, &ram->budget);
    if (page->kind == GW_INLINE_XBZRLE && !page->again && !ram->budget.spent)
        return gw_input_refuse(in, page->at, err,
                               "a change of page 0x%" PRIx64 " of block '%s', which never came",
                               page->offset, block->name);
    block->kinds[page->kind]++;
    return ram->on_page ? ram->on_page(ram->ctx, page, err) : 0;
}

static int take_page(struct gw_inline *ram, struct gw_input *in, uint64_t offset, bool again,
                     enum gw_inline_kind kind, uint64_t at, struct gw_error *err)
{
    int rc = choose_block(ram, in, again, at, err);
    if (rc < 0)
        return rc;
    struct gw_inline_block *block = &ram->blocks[ram->current];
    if (offset >= block->bytes)
        return gw_input_refuse(in, at, err,
                               "page 0x%" PRIx64 " of block '%s', which has 0x%" PRIx64 " bytes",
                               offset, block->name, block->bytes);
    struct gw_inline_page page = {.kind = kind, .block = ram->current, .offset = offset, .at = at};
    rc = take_content(ram, in, &page, err);
    return rc < 0 ? rc : gw_inline_count_page(ram, in, &page, err);
}

/* ---- one body --------------------------------------------------------------------------------- */

static int refuse_flags(struct gw_input *in, uint64_t at, unsigned flags, struct gw_error *err)
{
    if (flags & GW_INLINE_FLAG_HOOK)
        return gw_input_refuse(in, at, err, "an RDMA record (flags 0x%03x)", flags);
    return gw_input_refuse(in, at, err, "a RAM record with flags 0x%03x", flags);
}

static int page_kind(unsigned flags)
{
    switch (flags & ~GW_INLINE_FLAG_CONTINUE) {
    case GW_INLINE_FLAG_ZERO:
        return GW_INLINE_ZERO;
    case GW_INLINE_FLAG_PAGE:
        return GW_INLINE_PAGE;
    case GW_INLINE_FLAG_XBZRLE:
        return GW_INLINE_XBZRLE;
    case GW_INLINE_FLAG_COMPRESS:
        return GW_INLINE_COMPRESSED;
    default:
        return -EPROTO;
    }
}

/* Return: 1 after the end record. */
static int take_record(struct gw_inline *ram, struct gw_input *in, enum gw_inline_part part,
                       struct gw_error *err)
{
    uint64_t at = gw_input_tell(in);
    const uint8_t *bytes = gw_input_take(in, 8, "RAM section", err);
    if (!bytes)
        return -EBADMSG;
    uint64_t word = gw_be64_load(bytes);
    unsigned flags = (unsigned)(word & (ram->page_bytes - 1));
    uint64_t offset = word & ~(ram->page_bytes - 1);
    if (flags == GW_INLINE_FLAG_MEM_SIZE && part == GW_INLINE_START)
        return take_table(ram, in, offset, at, err);
    if ((flags == GW_INLINE_FLAG_EOS || flags == GW_INLINE_FLAG_FLUSH) && offset != 0)
        return gw_input_refuse(in, at, err, "an end record with offset 0x%" PRIx64, offset);
    if (flags == GW_INLINE_FLAG_EOS) {
        ram->end_records++;
        return 1;
    }
    if (flags == GW_INLINE_FLAG_FLUSH) {
        ram->flushes++;
        return 0;
    }
    int kind = page_kind(flags);
    if (kind < 0 || ram->mapped)
        return refuse_flags(in, at, flags, err);
    if (!ram->has_table)
        return gw_input_refuse(in, at, err, "a page before the table of blocks");
    return take_page(ram, in, offset, flags & GW_INLINE_FLAG_CONTINUE, (enum gw_inline_kind)kind,
                     at, err);
}

int gw_inline_take(struct gw_inline *ram, struct gw_input *in, enum gw_inline_part part,
                   struct gw_error *err)
{
    int rc;
    do {
        rc = take_record(ram, in, part, err);
    } while (rc == 0);
    return rc < 0 ? rc : 0;
}
