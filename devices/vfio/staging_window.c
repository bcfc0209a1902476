// SPDX-License-Identifier: MIT
/* The window of a staging region: which parts of it are mapped, and copies that are cut at their
 * borders. A chunk may begin inside of a mapped area and end outside of it, or the reverse; areas are
 * told in any order. What a driver says of them is checked, and if it makes no sense all goes through
 * the driver: slower, and right. */
#include "devices/vfio/staging_impl.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static int compare_areas(const void *a, const void *b)
{
    const struct gw_staging_area *x = a, *y = b;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* Are they all in the window, and apart from each other? */
static bool areas_fit(const struct gw_staging *s, unsigned count)
{
    uint64_t end = GW_STAGING_REGISTER_BYTES;
    for (unsigned i = 0; i < count; i++) {
        const struct gw_staging_area *area = &s->areas[i];
        if (area->offset < end || area->offset > s->ops->region_bytes ||
            area->bytes > s->ops->region_bytes - area->offset || !area->host)
            return false;
        end = area->offset + area->bytes;
    }
    return true;
}

void gw_staging_map(struct gw_staging *s)
{
    if (s->mapped || !s->ops->map_areas)
        return;
    int count = s->ops->map_areas(s->dev, s->areas, GW_STAGING_AREAS_MAX);
    if (count < 0) {
        gw_staging_warn(s, "map the window: %s; its data is read and written instead",
                        strerror(-count));
        return;
    }
    s->mapped = true;
    s->area_count = (unsigned)count < GW_STAGING_AREAS_MAX ? (unsigned)count : GW_STAGING_AREAS_MAX;
    qsort(s->areas, s->area_count, sizeof(s->areas[0]), compare_areas);
    if (!areas_fit(s, s->area_count)) {
        gw_staging_warn(s,
                        "the driver's mapped areas overlap or leave the region of %" PRIu64
                        " bytes; they are not used",
                        s->ops->region_bytes);
        s->area_count = 0;
    }
}

void gw_staging_unmap(struct gw_staging *s)
{
    s->area_count = 0;
    if (s->mapped && s->ops->unmap_areas)
        s->ops->unmap_areas(s->dev);
    s->mapped = false;
}

/* The piece at the front of [offset, offset + bytes): mapped as a whole (its address), or not (NULL). */
static uint8_t *piece_at(const struct gw_staging *s, uint64_t offset, size_t *bytes)
{
    for (unsigned i = 0; i < s->area_count; i++) {
        const struct gw_staging_area *area = &s->areas[i];
        if (offset < area->offset) { /* before it, and behind the one before it */
            if (*bytes > area->offset - offset)
                *bytes = area->offset - offset;
            return NULL;
        }
        uint64_t within = offset - area->offset;
        if (within < area->bytes) {
            if (*bytes > area->bytes - within)
                *bytes = area->bytes - within;
            return (uint8_t *)area->host + within;
        }
    }
    return NULL;
}

int gw_staging_copy_out(struct gw_staging *s, uint64_t offset, void *data, size_t bytes)
{
    for (size_t done = 0; done < bytes;) {
        size_t some = bytes - done;
        const uint8_t *mapped = piece_at(s, offset + done, &some);
        if (mapped) {
            memcpy((uint8_t *)data + done, mapped, some);
            s->stats.mapped_bytes += some;
        } else {
            int rc = s->ops->data_read(s->dev, offset + done, (uint8_t *)data + done, some);
            if (rc < 0)
                return rc;
        }
        done += some;
    }
    return 0;
}

int gw_staging_copy_in(struct gw_staging *s, uint64_t offset, const void *data, size_t bytes)
{
    for (size_t done = 0; done < bytes;) {
        size_t some = bytes - done;
        uint8_t *mapped = piece_at(s, offset + done, &some);
        if (mapped) {
            memcpy(mapped, (const uint8_t *)data + done, some);
            s->stats.mapped_bytes += some;
        } else {
            int rc = s->ops->data_write(s->dev, offset + done, (const uint8_t *)data + done, some);
            if (rc < 0)
                return rc;
        }
        done += some;
    }
    return 0;
}
