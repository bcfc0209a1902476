// SPDX-License-Identifier: MIT
/* Where does a device's state end that nobody here understands? Bodies have no length. A footer is five
 * known bytes, and behind it stands an item or nothing: both together do not happen by chance. Where a
 * stream has no footers, the next item's head alone must do. A guest can write both into its devices, so
 * who has a description asks that instead, afterwards.
 *
 * A footer with one wrong byte, and an item behind it, is damage and named as such. A whole footer with no
 * item behind it is taken for data at first; it is where the fault is if no better one comes. */
#include "control/stream_read.h"
#include "core/base/bytes.h"

#include <inttypes.h>

#define HEAD_VERSION_MAX 0xffffu
#define DESCRIPTION_BYTE 0x06

static bool is_named_head(const uint8_t *at, size_t left)
{
    size_t length = left > 5 ? at[5] : 0;
    if (length == 0 || left < 6 + length + 8)
        return false;
    return !gw_text_find_odd(at + 6, length) &&
           gw_be32_load(at + 6 + length + 4) <= HEAD_VERSION_MAX;
}

static bool is_end(const struct gw_scan *scan, const uint8_t *at, size_t left, bool ended)
{
    if (scan->packaged)
        return false;
    if (left == 1)
        return ended;
    return left >= 7 && at[1] == DESCRIPTION_BYTE && at[6] == '{';
}

bool gw_stream_is_item(const struct gw_scan *scan, const uint8_t *at, size_t left, bool ended)
{
    if (left == 0)
        return false;
    switch (at[0]) {
    case GW_ITEM_EOF:
        return is_end(scan, at, left, ended);
    case GW_ITEM_START:
    case GW_ITEM_FULL:
        return is_named_head(at, left);
    case GW_ITEM_PART:
    case GW_ITEM_END:
        return left >= 5 && scan->is_open(scan->ctx, gw_be32_load(at + 1));
    case GW_ITEM_COMMAND:
        return left >= 5 && gw_stream_is_command(gw_be16_load(at + 1), gw_be16_load(at + 3));
    default:
        return false;
    }
}

/* How many of its five bytes are those of the footer of @section_id? */
static unsigned footer_matches(const uint8_t *at, uint32_t section_id)
{
    uint8_t footer[GW_FOOTER_BYTES] = {GW_ITEM_FOOTER};
    unsigned count = 0;
    gw_be32_store(footer + 1, section_id);
    for (unsigned i = 0; i < GW_FOOTER_BYTES; i++)
        count += at[i] == footer[i];
    return count;
}

enum found { FOUND_NOTHING, FOUND_END, FOUND_DAMAGE, FOUND_MAYBE };

static enum found judge(const struct gw_scan *scan, const uint8_t *at, size_t left, bool ended,
                        uint32_t section_id)
{
    if (!scan->footers)
        return gw_stream_is_item(scan, at, left, ended) ? FOUND_END : FOUND_NOTHING;
    if (left < GW_FOOTER_BYTES)
        return FOUND_NOTHING;
    unsigned matches = footer_matches(at, section_id);
    if (matches + 1 < GW_FOOTER_BYTES)
        return FOUND_NOTHING;
    bool follows = (left == GW_FOOTER_BYTES && ended) ||
                   gw_stream_is_item(scan, at + GW_FOOTER_BYTES, left - GW_FOOTER_BYTES, ended);
    if (matches == GW_FOOTER_BYTES)
        return follows ? FOUND_END : FOUND_MAYBE;
    return follows ? FOUND_DAMAGE : FOUND_NOTHING;
}

static int refuse(struct gw_input *in, const struct gw_scan *scan, uint64_t start, uint64_t maybe,
                  uint32_t section_id, struct gw_error *err)
{
    if (in->rc < 0)
        return gw_input_short(in, "body of a section", err);
    if (maybe != UINT64_MAX)
        return gw_input_refuse(in, maybe + GW_FOOTER_BYTES, err,
                               "no item stands behind the footer of section %" PRIu32, section_id);
    if (!scan->footers)
        return gw_input_refuse(in, start, err, "nothing ends the body of section %" PRIu32,
                               section_id);
    return gw_input_refuse(
        in, start, err, "no footer ends the body of section %" PRIu32 " that begins", section_id);
}

int gw_stream_skip_body(struct gw_input *in, const struct gw_scan *scan, uint32_t section_id,
                        uint64_t *bytes, struct gw_error *err)
{
    uint64_t start = gw_input_tell(in), maybe = UINT64_MAX;
    for (;;) {
        const uint8_t *at;
        size_t left = gw_input_look(in, GW_ITEM_LOOK_BYTES, &at), i = 0;
        bool ended = left < GW_ITEM_LOOK_BYTES;
        if (left == 0)
            return refuse(in, scan, start, maybe, section_id, err);
        /* Judged with less to look at, an item might not be known for one. */
        size_t count = ended ? left : left - GW_ITEM_LOOK_BYTES + 1;
        for (; i < count; i++) {
            enum found found = judge(scan, at + i, left - i, ended, section_id);
            uint64_t here = gw_input_tell(in) + i;
            if (found == FOUND_MAYBE && maybe == UINT64_MAX)
                maybe = here;
            if (found == FOUND_DAMAGE)
                return gw_input_refuse(in, here, err,
                                       "the footer of section %" PRIu32 " is damaged", section_id);
            if (found == FOUND_END) {
                gw_input_skip(in, i);
                *bytes = here - start;
                return 0;
            }
        }
        gw_input_skip(in, count);
    }
}
