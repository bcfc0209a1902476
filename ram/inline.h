/* SPDX-License-Identifier: MIT */
/* ram/inline.h - pages in line: the body of a recorded stream's RAM sections, read forwards. A body is a
 * sequence of records, the last one the end record: the block table (START only), pages as they are, pages
 * of one byte, changes of a page (xbzrle), compressed pages, and with mapped-ram bitmaps and pages at
 * offsets of their own. Page size, and what the table has beside names and sizes, are not told by the
 * records: the configuration and the commands in front of them do, and the caller passes it on. */
#ifndef GW_RAM_INLINE_H
#define GW_RAM_INLINE_H

#include "core/base/input.h"

/* A record's word: a multiple of the page size, the offset in the block mostly, and below it flags. */
#define GW_INLINE_FLAG_ZERO 0x002u
#define GW_INLINE_FLAG_MEM_SIZE 0x004u
#define GW_INLINE_FLAG_PAGE 0x008u
#define GW_INLINE_FLAG_EOS 0x010u
#define GW_INLINE_FLAG_CONTINUE 0x020u
#define GW_INLINE_FLAG_XBZRLE 0x040u
#define GW_INLINE_FLAG_HOOK 0x080u
#define GW_INLINE_FLAG_COMPRESS 0x100u
#define GW_INLINE_FLAG_FLUSH 0x200u
#define GW_XBZRLE_VERSION 1u

#define GW_INLINE_BLOCKS_MAX 16384u
#define GW_INLINE_PAGE_BYTES_MAX (UINT64_C(1) << 20)

enum gw_inline_part { GW_INLINE_START, GW_INLINE_PART, GW_INLINE_END };
enum gw_inline_kind { GW_INLINE_ZERO, GW_INLINE_PAGE, GW_INLINE_XBZRLE, GW_INLINE_COMPRESSED };

/* ---- sets of pages, for guests of any size ---------------------------------------------------- */

struct gw_pageset {
    uint64_t pages;
    uint64_t count;    /* of the set */
    uint64_t **leaves; /* each of 32768 pages, made when one of them is set */
};

/* Memory that all sets of one stream share. What would need more is no longer followed. */
struct gw_pageset_budget {
    size_t bytes;
    bool spent;
};

int gw_pageset_init(struct gw_pageset *set, uint64_t pages, struct gw_pageset_budget *budget);
void gw_pageset_fini(struct gw_pageset *set);
bool gw_pageset_has(const struct gw_pageset *set, uint64_t page);
/* Return: was it set before? */
bool gw_pageset_add(struct gw_pageset *set, uint64_t page, struct gw_pageset_budget *budget);

/* ---- records ---------------------------------------------------------------------------------- */

struct gw_inline_block {
    char name[256];
    uint64_t bytes;
    uint64_t page_bytes; /* of what is behind it; 0: not said */
    uint64_t guest_address;
    bool has_guest_address;
    uint64_t offset;   /* of its entry in the stream */
    uint64_t kinds[4]; /* records, by enum gw_inline_kind */
    struct gw_pageset received;
};

struct gw_inline_page {
    enum gw_inline_kind kind;
    unsigned block;
    uint64_t offset; /* in the block */
    uint64_t at;     /* of the record, in the stream */
    bool again;      /* it was received before (false as well where that is not followed) */
    /* PAGE: page_bytes; XBZRLE: code; ZERO: the byte; COMPRESSED: page_bytes, inflated, or in a build without
     * zlib the code */
    const uint8_t *data;
    size_t bytes;
};

struct gw_inline {
    /* set by the caller before the START */
    uint64_t page_bytes;  /* target page */
    uint64_t sizes;       /* POSTCOPY_ADVISE: page sizes of the blocks, OR-ed; 0: not advised */
    bool guest_addresses; /* x-ignore-shared */
    bool mapped;          /* mapped-ram */
    int (*on_page)(void *ctx, const struct gw_inline_page *page,
                   struct gw_error *err); /* or NULL */
    void *ctx;

    unsigned block_count, block_room;
    struct gw_inline_block *blocks;
    struct gw_pageset_budget budget;
    struct gw_inflater *inflater; /* from the first compressed page on */
    uint64_t total, flushes, end_records;
    unsigned current; /* block of the last record that named one */
    bool has_table, has_current;
};

void gw_inline_init(struct gw_inline *ram);
void gw_inline_fini(struct gw_inline *ram);
/* Consume one body, end record included. The footer stays. */
int gw_inline_take(struct gw_inline *ram, struct gw_input *in, enum gw_inline_part part,
                   struct gw_error *err);

/* ---- xbzrle ----------------------------------------------------------------------------------- */

/* Apply @code to @page, strictly: on -EPROTO @page is as it was. @page NULL: only judge the code. */
int gw_xbzrle_decode(const uint8_t *code, size_t code_bytes, uint8_t *page, size_t page_bytes);
/* What turns @before into @after, at most @room bytes (which are at most page_bytes). Return: bytes, 0 if
 * the two are equal, -EOVERFLOW if it does not fit. @page_bytes is at most GW_XBZRLE_PAGE_BYTES_MAX: lengths
 * have 14 bits. */
#define GW_XBZRLE_PAGE_BYTES_MAX 8192u
int gw_xbzrle_encode(const uint8_t *before, const uint8_t *after, size_t page_bytes, uint8_t *code,
                     size_t room);

/* ---- zlib ------------------------------------------------------------------------------------- */

struct gw_inflater;

bool gw_inflater_is_built(void); /* false: -EOPNOTSUPP below */
int gw_inflater_new(uint64_t page_bytes, struct gw_inflater **inflater);
void gw_inflater_free(struct gw_inflater *inflater); /* takes NULL */
/* One page out of the whole stream that @code is. *@page lives until the next call. -EPROTO: it is not that
 * stream, or not that long; -ENOMEM. */
int gw_inflater_page(struct gw_inflater *inflater, const uint8_t *code, size_t code_bytes,
                     const uint8_t **page);

/* ---- multifd channels ------------------------------------------------------------------------- */

#define GW_MULTIFD_MAGIC 0x11223344u

struct gw_multifd_packet {
    uint64_t offset; /* in the recording */
    uint32_t flags, normal_pages, zero_pages, data_bytes;
    uint64_t number;
    char block[256]; /* "" in packets without pages */
    bool is_device_state;
    uint32_t instance_id; /* of a device's state, whose idstr stands in block */
};

struct gw_multifd { /* what was found so far */
    uint8_t uuid[16];
    unsigned id;
    uint64_t page_bytes;
    uint64_t packets, syncs, normal_pages, zero_pages, data_bytes, device_packets;
    uint32_t method; /* compression bits of packets with pages */
};

/* The 64 bytes that a channel begins with. */
int gw_multifd_take_hello(struct gw_multifd *multifd, struct gw_input *in, struct gw_error *err);
/* One packet with its data. Return: 1, 0 at the end, or a negative errno. */
int gw_multifd_take(struct gw_multifd *multifd, struct gw_input *in,
                    struct gw_multifd_packet *packet, struct gw_error *err);

#endif
