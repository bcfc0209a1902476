/* SPDX-License-Identifier: MIT */
/* ram/inline_impl.h - inside ram/inline*.c only. */
#ifndef GW_RAM_INLINE_IMPL_H
#define GW_RAM_INLINE_IMPL_H

#include "ram/inline.h"

/* The index of a block, or -ENOENT. */
int gw_inline_find(const struct gw_inline *ram, const uint8_t *name, size_t bytes);
/* Count what was read and hand it on. */
int gw_inline_count_page(struct gw_inline *ram, struct gw_input *in, struct gw_inline_page *page,
                         struct gw_error *err);
/* Behind an entry of the table: header, bitmap and pages of a file with mapped-ram. */
int gw_inline_take_mapped(struct gw_inline *ram, struct gw_input *in, unsigned index,
                          struct gw_error *err);

#endif
