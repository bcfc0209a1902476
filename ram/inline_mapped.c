// SPDX-License-Identifier: MIT
/* mapped-ram, read in the order of the file, so that a pipe will do: an entry of the block table is followed
 * by a header, a bitmap with a bit per page (little-endian words) and, aligned, the pages, each at its own
 * place. A page without its bit is zero whatever stands there. Offsets are absolute: they must be what the
 * order of the file says, which also keeps areas from overlapping. */
#include "core/base/alloc.h"
#include "core/base/bytes.h"
#include "ram/inline_impl.h"

#include <inttypes.h>

#define HEADER_BYTES 28u
#define HEADER_VERSION 1u
#define BITMAP_PIECE_BYTES 4096u
#define ALIGN_MAX (UINT64_C(64) << 20) /* writers round up to 1 MiB */

struct mapped {
    uint64_t bitmap_offset, pages_offset, bitmap_bytes, pages;
};

static int take_header(struct gw_inline *ram, struct gw_input *in,
                       const struct gw_inline_block *block, struct mapped *mapped,
                       struct gw_error *err)
{
    uint64_t at = gw_input_tell(in);
    const uint8_t *head = gw_input_take(in, HEADER_BYTES, "mapped-ram header", err);
    if (!head)
        return -EBADMSG;
    uint32_t version = gw_be32_load(head);
    uint64_t page_bytes = gw_be64_load(head + 4);
    mapped->bitmap_offset = gw_be64_load(head + 12);
    mapped->pages_offset = gw_be64_load(head + 20);
    mapped->pages = block->bytes / ram->page_bytes;
    mapped->bitmap_bytes = 8 * ((mapped->pages + 63) / 64);
    if (version != HEADER_VERSION)
        return gw_input_refuse(in, at, err, "a mapped-ram header of version %" PRIu32, version);
    if (page_bytes != ram->page_bytes)
        return gw_input_refuse(in, at + 4, err,
                               "a mapped-ram header with pages of %" PRIu64 " bytes", page_bytes);
    return 0;
}

static int check_header(struct gw_input *in, const struct gw_inline_block *block,
                        const struct mapped *mapped, struct gw_error *err)
{
    uint64_t here = gw_input_tell(in);
    if (mapped->bitmap_offset != here)
        return gw_input_refuse(in, here - 16, err,
                               "block '%s': a bitmap at 0x%" PRIx64 ", expected 0x%" PRIx64,
                               block->name, mapped->bitmap_offset, here);
    if (mapped->pages_offset < here + mapped->bitmap_bytes ||
        mapped->pages_offset - here - mapped->bitmap_bytes > ALIGN_MAX ||
        mapped->pages_offset > UINT64_MAX - block->bytes)
        return gw_input_refuse(in, here - 8, err,
                               "block '%s': pages at 0x%" PRIx64
                               ", which is not right behind the bitmap at 0x%" PRIx64,
                               block->name, mapped->pages_offset, here);
    return 0;
}

static int take_bitmap(struct gw_inline *ram, struct gw_input *in, struct gw_pageset *set,
                       const struct mapped *mapped, struct gw_error *err)
{
    for (uint64_t done = 0; done < mapped->bitmap_bytes; done += BITMAP_PIECE_BYTES) {
        size_t bytes = (size_t)gw_min_u64(BITMAP_PIECE_BYTES, mapped->bitmap_bytes - done);
        uint64_t at = gw_input_tell(in);
        const uint8_t *piece = gw_input_take(in, bytes, "mapped-ram bitmap", err);
        if (!piece)
            return -EBADMSG;
        for (size_t i = 0; i < bytes; i++) {
            for (unsigned bit = 0; piece[i] >> bit; bit++) {
                uint64_t page = 8 * (done + i) + bit;
                if ((piece[i] >> bit & 1) && page < mapped->pages)
                    gw_pageset_add(set, page, &ram->budget);
            }
        }
        if (ram->budget.spent)
            return gw_input_refuse(in, at, err, "more pages than fit the memory for them");
    }
    return 0;
}

static int take_pages(struct gw_inline *ram, struct gw_input *in, unsigned index,
                      const struct gw_pageset *set, const struct mapped *mapped,
                      struct gw_error *err)
{
    for (uint64_t page = 0; page < mapped->pages; page++) {
        if (!gw_pageset_has(set, page)) {
            if (gw_input_drop(in, ram->page_bytes) < ram->page_bytes)
                return gw_input_short(in, "pages of a block", err);
            continue;
        }
        struct gw_inline_page record = {.kind = GW_INLINE_PAGE,
                                        .block = index,
                                        .offset = page * ram->page_bytes,
                                        .at = gw_input_tell(in),
                                        .bytes = (size_t)ram->page_bytes};
        record.data = gw_input_take(in, record.bytes, "pages of a block", err);
        if (!record.data)
            return -EBADMSG;
        int rc = gw_inline_count_page(ram, in, &record, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int gw_inline_take_mapped(struct gw_inline *ram, struct gw_input *in, unsigned index,
                          struct gw_error *err)
{
    const struct gw_inline_block *block = &ram->blocks[index];
    struct mapped mapped;
    struct gw_pageset set;
    int rc = take_header(ram, in, block, &mapped, err);
    if (rc < 0)
        return rc;
    if (mapped.bitmap_offset == 0 && mapped.pages_offset == 0)
        return 0; /* shared and ignored */
    rc = check_header(in, block, &mapped, err);
    if (rc < 0)
        return rc;
    rc = gw_pageset_init(&set, mapped.pages, &ram->budget);
    if (rc == 0)
        rc = take_bitmap(ram, in, &set, &mapped, err);
    if (rc == 0) {
        uint64_t gap = mapped.pages_offset - gw_input_tell(in);
        rc = gw_input_drop(in, gap) < gap ? gw_input_short(in, "gap before the pages", err) : 0;
    }
    if (rc == 0)
        rc = take_pages(ram, in, index, &set, &mapped, err);
    gw_pageset_fini(&set);
    return rc;
}
