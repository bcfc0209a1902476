/* SPDX-License-Identifier: MIT */
/* godwit/block.h - a block: one contiguous range of guest memory with a name. */
#ifndef GODWIT_BLOCK_H
#define GODWIT_BLOCK_H

#include <godwit/error.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define GW_NAME_BYTES_MAX 255 /* a block's or device's name, without NUL (the stream's cstr8) */

enum gw_block_kind {
    GW_BLOCK_ANON,    /* private anonymous memory */
    GW_BLOCK_MEMFD,   /* shared memory: memfd, tmpfs file */
    GW_BLOCK_HUGETLB, /* huge pages, private or memfd */
};

#define GW_BLOCK_READ_ONLY 1u /* ROM: sent like RAM; the guest itself cannot write it */

struct gw_block_desc {
    size_t struct_bytes; /* sizeof(struct gw_block_desc): how it grows */
    const char *name;    /* unique, 1..GW_NAME_BYTES_MAX bytes of printable ASCII; copied */
    void *host; /* aligned to page_bytes; borrowed until gw_source_free()/gw_target_free() */
    uint64_t size_bytes; /* a multiple of page_bytes, at least one page */
    uint32_t page_bytes; /* of the memory behind it: 4096, or the huge page size. Power of two.
                          * Dirty tracking and sending always work in units of 4096. */
    enum gw_block_kind kind;
    int fd;             /* memfd behind a shared mapping, or -1; borrowed like host */
    uint64_t fd_offset; /* of host within fd, a multiple of page_bytes */
    uint32_t flags;     /* GW_BLOCK_*; others are refused */
};

#ifdef __cplusplus
}
#endif
#endif
