/* SPDX-License-Identifier: MIT */
/* core/base/hash.h - XXH3-128 in pieces, costing memory bandwidth; and 64 bits of a short text for a
 * table, under a seed. xxHash behind both. */
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
/* For tables only: who does not know @seed cannot choose texts that collide. */
uint64_t gw_hash_text(const char *text, uint64_t seed);

#endif
