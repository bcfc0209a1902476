// SPDX-License-Identifier: MIT
/* Damage at the border of two sections. The walk, which knows no lengths, notices it in the section before,
 * whose end it then cannot see, and reads nothing behind it. The description says where that section ends:
 * either its footer stands there, and then the head behind it is damaged, or an item begins behind a footer
 * that is. The section gets its name, and the walk goes on behind the damage; once, more of it stays unread. */
#include "core/analyze_impl.h"

#include "core/base/alloc.h"
#include "core/base/bytes.h"

#include <inttypes.h>
#include <string.h>

#define HEAD_BYTES(name_bytes) (1 + 4 + 1 + (name_bytes) + 4 + 4) /* of a FULL section */

struct border {
    bool has_footer;
    bool has_item; /* behind it, or the end of the devices */
    uint64_t next; /* where that is */
};

static struct border look_at(const struct gw_analysis *a, uint64_t end, uint32_t section_id)
{
    uint8_t look[GW_FOOTER_BYTES + GW_ITEM_LOOK_BYTES];
    struct border border = {.next = end + GW_FOOTER_BYTES};
    struct gw_input in;
    ssize_t got = gw_keep_read(&a->keep, end, look, sizeof(look));
    if (got < (ssize_t)GW_FOOTER_BYTES || border.next > a->devices_end)
        return border;
    gw_input_memory(&in, look, (size_t)got, end);
    border.has_footer = gw_stream_take_footer(&in, section_id, NULL) == 0;
    border.has_item = border.next == a->devices_end ||
                      gw_analyze_is_item(a, look + GW_FOOTER_BYTES, (size_t)got - GW_FOOTER_BYTES);
    return border;
}

/* The rest, cut section by section when its turn comes. */
static int go_on(struct gw_analysis *a, uint64_t next, struct gw_error *err)
{
    if (next == a->devices_end)
        return 1;
    int rc = gw_analyze_insert_section(a, a->facts.section_count, next, a->devices_end, err);
    return rc == -ENOMEM ? rc : 1;
}

static int add_damaged(struct gw_analysis *a, const struct gw_described_device *device,
                       unsigned described, uint64_t at, uint32_t section_id, uint64_t bytes,
                       struct gw_error *err)
{
    struct gw_section head = {.type = GW_ITEM_FULL,
                              .section_id = section_id,
                              .instance_id = device->instance_id,
                              .version_id = device->version_id};
    memcpy(head.idstr, device->idstr, strlen(device->idstr) + 1);
    struct gw_analyzed_section *s = gw_analyze_add_section(a, &head, at, err);
    if (!s)
        return -ENOMEM;
    s->parts = 1;
    s->body_offset = at + HEAD_BYTES(strlen(device->idstr));
    s->body_bytes = bytes;
    s->described = described;
    gw_fail(err, -EPROTO,
            "the head of the section at offset %" PRIu64
            " is damaged: the description has '%s' instance %" PRIu32 " there",
            at, device->idstr, device->instance_id);
    a->is_explained = true;
    return gw_analyze_device_fault(a, s, at, err);
}

/* No head stands at @at, where the description has device @described. If that ends in its footer, only the
 * head is damaged. */
static int take_damaged(struct gw_analysis *a, uint64_t at, unsigned described,
                        struct gw_error *err)
{
    const struct gw_described_device *device = gw_description_device(a->description, described);
    uint8_t head[5];
    uint64_t bytes = 0;
    if (!device || a->facts.section_count == GW_ANALYZE_SECTIONS_MAX ||
        gw_keep_read_all(&a->keep, at, head, sizeof(head)) < 0)
        return 0;
    int rc = gw_description_measure(a->description, described, &bytes, err);
    if (rc < 0)
        return rc == -ENOMEM ? rc : 0;
    uint32_t section_id = gw_be32_load(head + 1);
    struct border border = look_at(a, at + HEAD_BYTES(strlen(device->idstr)) + bytes, section_id);
    if (!border.has_footer)
        return 0;
    rc = add_damaged(a, device, described, at, section_id, bytes, err);
    return rc < 0 ? rc : border.has_item ? go_on(a, border.next, err) : 1;
}

int gw_analyze_cut_damaged(struct gw_analysis *a, unsigned index, uint64_t bytes,
                           struct gw_error *err)
{
    struct gw_analyzed_section *s = &a->sections[index];
    if (!a->lost || a->is_explained || a->is_confirmed || !a->facts.has_footers ||
        index + 1 != a->facts.section_count)
        return 0;
    struct border border = look_at(a, s->body_offset + bytes, s->section_id);
    if (border.has_footer == border.has_item)
        return 0;
    int rc;
    if (border.has_item) {
        a->is_confirmed = true; /* its footer, as was said */
        rc = go_on(a, border.next, err);
    } else {
        rc = take_damaged(a, border.next, s->described + 1, err);
    }
    if (rc == 1)
        a->sections[index].body_bytes = bytes;
    return rc;
}

int gw_analyze_first_damaged(struct gw_analysis *a, struct gw_error *err)
{
    if (!a->lost_item || !a->facts.has_footers)
        return 0;
    for (unsigned i = 0; i < a->facts.section_count; i++) {
        if (!a->sections[i].is_iterative && a->sections[i].form != GW_SECTION_RAM)
            return 0; /* what the first of them is, is not known */
    }
    return take_damaged(a, a->item_at, 0, err);
}
