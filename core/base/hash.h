/* SPDX-License-Identifier: MIT */
/* core/base/hash.h - XXH3-128 in pieces (xxHash behind it). Costs memory bandwidth. */
#ifndef GW_BASE_HASH_H
#define GW_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

#define GW_HASH_BYTES 16

struct gw_hash;

struct gw_hash *gw_hash_new(void); /* NULL: out of memory */
void gw_hash_update(struct gw_hash *hash, const void *data, size_t bytes);
/* The canonical (big-endian) form. May be asked for at any time. */
void gw_hash_result(const struct gw_hash *hash, uint8_t result[GW_HASH_BYTES]);
void gw_hash_free(struct gw_hash *hash); /* takes NULL */

#endif
