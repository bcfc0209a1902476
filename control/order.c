// SPDX-License-Identifier: MIT
/* Order of a stream's items: header first, PART and END only of a section that START opened, end
 * mark last, no (idstr, instance) twice. It remembers every START and FULL in two hash tables, by
 * id while open and by name for good; their number is bounded, so a peer that never stops opening
 * sections is refused rather than stored. */
#include "control/stream.h"
#include "core/base/alloc.h"

#include <inttypes.h>
#include <string.h>

#define BUCKETS 1024u
#define SECTIONS_MAX 16384u

struct entry {
    struct gw_section section;
    bool has_ended; /* by END: a FULL of the same name and id may follow, once */
    struct entry *next_of_name, *next_of_id;
};

struct gw_stream_order {
    enum { BEFORE_HEADER, IN_SECTIONS, AFTER_EOF, AFTER_DESCRIPTION } place;
    uint32_t count;
    struct entry *by_name[BUCKETS];
    struct entry *by_id[BUCKETS]; /* open ones */
    struct entry *ended;          /* still found until the next item */
};

struct gw_stream_order *gw_stream_order_new(void)
{
    return gw_zalloc(1, sizeof(struct gw_stream_order));
}

void gw_stream_order_free(struct gw_stream_order *order)
{
    if (!order)
        return;
    for (unsigned i = 0; i < BUCKETS; i++) {
        for (struct entry *entry = order->by_name[i]; entry;) {
            struct entry *next = entry->next_of_name;
            gw_free(entry);
            entry = next;
        }
    }
    gw_free(order);
}

/* FNV-1a. A peer that makes names collide costs itself more bytes than us comparisons. */
static uint32_t hash_name(const struct gw_section *section)
{
    uint32_t hash = 2166136261u ^ section->instance_id;
    for (const char *c = section->idstr; *c; c++)
        hash = (hash ^ (uint8_t)*c) * 16777619u;
    return hash % BUCKETS;
}

static struct entry *find_open(const struct gw_stream_order *order, uint32_t id)
{
    struct entry *entry = order->by_id[id % BUCKETS];
    while (entry && entry->section.section_id != id)
        entry = entry->next_of_id;
    return entry;
}

static void close_ended(struct gw_stream_order *order)
{
    if (!order->ended)
        return;
    struct entry **link = &order->by_id[order->ended->section.section_id % BUCKETS];
    while (*link != order->ended)
        link = &(*link)->next_of_id;
    *link = order->ended->next_of_id;
    order->ended->has_ended = true;
    order->ended = NULL;
}

/* What a device of many sections still has in the pause is a FULL of the same name. */
static bool goes_with(struct entry *other, enum gw_item_type type, const struct gw_section *section)
{
    if (type != GW_ITEM_FULL || !other->has_ended ||
        other->section.section_id != section->section_id)
        return false;
    other->has_ended = false;
    return true;
}

static int add_named(struct gw_stream_order *order, enum gw_item_type type,
                     const struct gw_section *section, struct gw_error *err)
{
    unsigned bucket = hash_name(section);
    for (struct entry *other = order->by_name[bucket]; other; other = other->next_of_name) {
        if (other->section.instance_id == section->instance_id &&
            strcmp(other->section.idstr, section->idstr) == 0) {
            if (goes_with(other, type, section))
                return 0;
            return gw_fail(err, -EPROTO, "section '%s' instance %" PRIu32 " is there twice",
                           section->idstr, section->instance_id);
        }
    }
    const struct entry *open = type == GW_ITEM_START ? find_open(order, section->section_id) : NULL;
    if (open)
        return gw_fail(err, -EPROTO,
                       "section '%s' begins with id %" PRIu32 ", which is '%s', still open",
                       section->idstr, section->section_id, open->section.idstr);
    if (order->count == SECTIONS_MAX)
        return gw_fail_code(err, -E2BIG, GW_CODE_LIMIT, "more than %u sections", SECTIONS_MAX);
    struct entry *entry = gw_zalloc(1, sizeof(*entry));
    if (!entry)
        return gw_fail(err, -ENOMEM, "section '%s'", section->idstr);
    entry->section = *section;
    entry->section.type = type;
    entry->next_of_name = order->by_name[bucket];
    order->by_name[bucket] = entry;
    order->count++;
    if (type == GW_ITEM_START) {
        struct entry **link = &order->by_id[section->section_id % BUCKETS];
        entry->next_of_id = *link;
        *link = entry;
    }
    return 0;
}

static int continue_open(struct gw_stream_order *order, enum gw_item_type type, uint32_t id,
                         struct gw_error *err)
{
    struct entry *entry = find_open(order, id);
    if (!entry)
        return gw_fail(err, -EPROTO, "%s of section %" PRIu32 ", which is not open",
                       type == GW_ITEM_END ? "end" : "part", id);
    if (type == GW_ITEM_END)
        order->ended = entry;
    return 0;
}

static int next_in_sections(struct gw_stream_order *order, enum gw_item_type type,
                            const struct gw_section *section, struct gw_error *err)
{
    switch (type) {
    case GW_ITEM_START:
    case GW_ITEM_FULL:
        return add_named(order, type, section, err);
    case GW_ITEM_PART:
    case GW_ITEM_END:
        return continue_open(order, type, section->section_id, err);
    case GW_ITEM_EOF:
        order->place = AFTER_EOF;
        return 0;
    case GW_ITEM_COMMAND:
        return 0;
    case GW_ITEM_CONFIGURATION:
        return gw_fail(err, -EPROTO, "a second header");
    case GW_ITEM_DESCRIPTION:
        return gw_fail(err, -EPROTO, "a description before the end mark");
    }
    return gw_fail(err, -EPROTO, "unknown item type 0x%02x", (unsigned)type);
}

int gw_stream_order_next(struct gw_stream_order *order, enum gw_item_type type,
                         const struct gw_section *section, struct gw_error *err)
{
    close_ended(order);
    switch (order->place) {
    case BEFORE_HEADER:
        if (type != GW_ITEM_CONFIGURATION)
            return gw_fail(err, -EPROTO, "item 0x%02x before the header", (unsigned)type);
        order->place = IN_SECTIONS;
        return 0;
    case IN_SECTIONS:
        return next_in_sections(order, type, section, err);
    case AFTER_EOF:
        if (type != GW_ITEM_DESCRIPTION)
            return gw_fail(err, -EPROTO, "item 0x%02x after the end mark", (unsigned)type);
        order->place = AFTER_DESCRIPTION;
        return 0;
    case AFTER_DESCRIPTION:
        break;
    }
    return gw_fail(err, -EPROTO, "item 0x%02x after the description", (unsigned)type);
}

const struct gw_section *gw_stream_order_find(const struct gw_stream_order *order, uint32_t id)
{
    const struct entry *entry = find_open(order, id);
    return entry ? &entry->section : NULL;
}

const struct gw_section *gw_stream_order_open(const struct gw_stream_order *order)
{
    for (unsigned i = 0; i < BUCKETS; i++) {
        for (const struct entry *entry = order->by_id[i]; entry; entry = entry->next_of_id) {
            if (entry != order->ended)
                return &entry->section;
        }
    }
    return NULL;
}
