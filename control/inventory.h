/* SPDX-License-Identifier: MIT */
/* control/inventory.h - what one side of a comparison has: machine, blocks, sections, and the description of
 * its devices. Read here from the documents that a side may be; the core fills it from a stream. */
#ifndef GW_CONTROL_INVENTORY_H
#define GW_CONTROL_INVENTORY_H

#include "control/stream_describe.h"

#include <godwit/compat.h>

#define GW_INVENTORY_BLOCKS_MAX 16384u
#define GW_INVENTORY_SECTIONS_MAX 65536u

struct gw_inventory_block {
    char *name;
    uint64_t bytes;
};

struct gw_inventory_section {
    char *idstr;
    uint32_t instance_id, version_id;
    bool has_version;
    bool is_iterative;
};

struct gw_inventory {
    enum gw_compat_source source;
    char machine[256];   /* "": not said */
    uint64_t page_bytes; /* 0: not said */
    bool is_whole;       /* a stream, or what was analyzed of one: these are known */
    bool has_footers, has_configuration;
    unsigned block_count, block_room;
    struct gw_inventory_block *blocks;
    unsigned section_count, section_room;
    struct gw_inventory_section *sections;
    unsigned *order;                    /* of the sections, by name and instance */
    struct gw_description *description; /* NULL: none */
};

void gw_inventory_fini(struct gw_inventory *inventory); /* of a zeroed one too */
/* Names are copied; that of @section is @idstr. -E2BIG, -ENOMEM. */
int gw_inventory_add_block(struct gw_inventory *inventory, const char *name, uint64_t bytes,
                           struct gw_error *err);
int gw_inventory_add_section(struct gw_inventory *inventory, const char *idstr,
                             const struct gw_inventory_section *section, struct gw_error *err);
/* All was added: gw_inventory_find() works from here on. -ENOMEM. */
int gw_inventory_seal(struct gw_inventory *inventory, struct gw_error *err);
/* A section's index, or -ENOENT. Of several alike the first. */
int gw_inventory_find(const struct gw_inventory *inventory, const char *idstr,
                      uint32_t instance_id);

/* From a document, which must outlive the inventory. -EPROTO: it is none, or malformed; -ENOMEM, -E2BIG. */
int gw_inventory_read(struct gw_inventory *inventory, const char *text, size_t bytes,
                      struct gw_error *err);

#endif
