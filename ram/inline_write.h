/* SPDX-License-Identifier: MIT */
/* ram/inline_write.h - pages in line, written: the records that inline.h takes. A record is made, not sent: a
 * few bytes of head, and a page or a code that stays where it is, so that whoever carries it (a buffer, a
 * sendmsg) copies no page. The caller frames sections around records and ends each body with the end record. */
#ifndef GW_RAM_INLINE_WRITE_H
#define GW_RAM_INLINE_WRITE_H

#include "ram/inline.h"

struct gw_inline_entry {    /* a block, as the table says it */
    const char *name;       /* 1 to 255 bytes of printable ASCII, no two alike */
    uint64_t bytes;         /* pages, at least one */
    uint64_t page_bytes;    /* of what is behind it; 0: the host's. Said if postcopy was advised */
    uint64_t guest_address; /* 0: not mapped. Said with x-ignore-shared */
    bool is_shared;         /* with x-ignore-shared no page of it is written: the peer has them */
};

#define GW_INLINE_HEAD_BYTES_MAX 272u /* of an entry: a name, two numbers of 8 bytes */

struct gw_inline_record {
    uint8_t head[GW_INLINE_HEAD_BYTES_MAX];
    size_t head_bytes;
    const uint8_t *data; /* behind the head; the caller's */
    size_t data_bytes;
};

struct gw_inline_writer {
    /* set by the caller before the table, as in struct gw_inline */
    uint64_t page_bytes;
    uint64_t host_page_bytes; /* blocks with other pages than these say so */
    uint64_t sizes;
    bool guest_addresses;

    const struct gw_inline_entry *entries; /* the caller's, until the last record */
    unsigned count;
    unsigned current; /* block of the last record that named one */
    bool has_current;
};

void gw_inline_writer_init(struct gw_inline_writer *w); /* pages of 4096 bytes */

/* ---- the block table: its first record, one for each block, the end record -------------------- */

/* Judge the table; from here on blocks have numbers. -EINVAL: err names block and rule; -E2BIG: more than
 * GW_BLOCKS_MAX (gw_inline_take() takes GW_INLINE_BLOCKS_MAX); -ENOMEM. */
int gw_inline_write_table(struct gw_inline_writer *w, const struct gw_inline_entry *entries,
                          unsigned count, struct gw_inline_record *record, struct gw_error *err);
void gw_inline_write_entry(const struct gw_inline_writer *w, unsigned block,
                           struct gw_inline_record *record);

/* ---- any body --------------------------------------------------------------------------------- */

void gw_inline_write_end(struct gw_inline_record *record);
/* Channels are drained (8.1 and newer machines). */
void gw_inline_write_flush(struct gw_inline_record *record);

/* ZERO has no data (or one zero byte: receivers take no other fill), PAGE page_bytes, XBZRLE a code; block and
 * offset say where. The block is named unless the last record of a page had the same. Return: 0; -EINVAL: no
 * such page, or not that data; -EOPNOTSUPP: COMPRESSED. The writer is as it was then. */
int gw_inline_write_page(struct gw_inline_writer *w, const struct gw_inline_page *page,
                         struct gw_inline_record *record);
/* The cheapest record that makes @after of @before, which is what was sent of this page last: XBZRLE, with
 * @code (page_bytes of room) for data, or PAGE, with @after. @after must not change until it has gone, a running
 * guest's page is copied first. Return: 1; 0: they are equal, nothing has to go; -EINVAL. */
int gw_inline_write_change(struct gw_inline_writer *w, unsigned block, uint64_t offset,
                           const uint8_t *before, const uint8_t *after, uint8_t *code,
                           struct gw_inline_record *record);
/* The next record names its block whatever came before: another connection, postcopy's begin, a recovery. */
void gw_inline_write_forget(struct gw_inline_writer *w);

#endif
