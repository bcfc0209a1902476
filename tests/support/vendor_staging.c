// SPDX-License-Identifier: MIT
/* The simulated vendor device behind a region of registers and a window. What is mapped of the window
 * is memory of its own, which goes when it is unmapped: whoever copies past an area's end, or later, has
 * not the state, and a sanitizer sees it. */
#include "tests/support/vendor_impl.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WINDOW GW_STAGING_REGISTER_BYTES
#define OTHER_BITS 0x5a00u /* of device_state: whoever writes it leaves them alone */

static uint64_t register_value(const struct vendor *v)
{
    switch (atomic_load(&v->state)) {
    case GW_ODEV_STOP:
        return 0;
    case GW_ODEV_RUNNING:
        return 1;
    case GW_ODEV_STOP_COPY:
        return 2;
    case GW_ODEV_PRE_COPY:
        return 3;
    case GW_ODEV_RESUMING:
        return 4;
    default:
        return 6;
    }
}

static int write_state(struct vendor *v, uint64_t value)
{
    static const enum gw_odev_state states[8] = {
        GW_ODEV_STOP,     GW_ODEV_RUNNING, GW_ODEV_STOP_COPY, GW_ODEV_PRE_COPY,
        GW_ODEV_RESUMING, GW_ODEV_ERROR,   GW_ODEV_ERROR,     GW_ODEV_ERROR,
    };
    enum gw_odev_state want = states[value & 7];
    if ((value & ~UINT64_C(7)) != OTHER_BITS)
        vendor_violate(v, "device_state: bits that are not the user's were changed");
    if (want == GW_ODEV_ERROR || v->state == GW_ODEV_ERROR) {
        vendor_violate(v, "device_state: %u was written, in state %s", (unsigned)value & 7,
                       gw_odev_state_name(v->state));
        return -EINVAL;
    }
    if (v->state == GW_ODEV_STOP_COPY && want == GW_ODEV_PRE_COPY)
        vendor_violate(v, "device_state: from STOP_COPY to PRE_COPY");
    if (vendor_breaks(v, VENDOR_STATE_REFUSED))
        return -EBUSY;
    if (vendor_breaks(v, VENDOR_STATE_MIDDLE)) {
        v->state = v->state == GW_ODEV_STOP ? GW_ODEV_STOP : GW_ODEV_RUNNING;
        return -EIO;
    }
    if (vendor_breaks(v, VENDOR_STATE_ERROR)) {
        v->state = GW_ODEV_ERROR;
        return -EIO;
    }
    return vendor_enter(v, want);
}

/* ---- the window -------------------------------------------------------------------------------- */

static bool is_mapped(const struct vendor *v)
{
    return v->area_count > 0;
}

/* What of [offset, offset + bytes) is mapped, between our memory and the areas'. */
static void copy_areas(struct vendor *v, uint64_t offset, uint64_t bytes, bool out)
{
    for (unsigned i = 0; i < v->area_count; i++) {
        const struct gw_staging_area *area = &v->areas[i];
        uint64_t from = offset > area->offset ? offset : area->offset;
        uint64_t end = offset + bytes, area_end = area->offset + area->bytes;
        end = end < area_end ? end : area_end;
        if (from >= end)
            continue;
        uint8_t *mapped = (uint8_t *)area->host + (from - area->offset);
        if (out)
            memcpy(mapped, v->region + from, end - from);
        else
            memcpy(v->region + from, mapped, end - from);
    }
}

static uint64_t place(struct vendor *v)
{
    uint64_t window = v->config.region_bytes - WINDOW;
    switch (v->config.offset) {
    case VENDOR_HALVES:
        v->half = !v->half;
        return v->half || window < 2 ? WINDOW : WINDOW + window / 2;
    case VENDOR_RING:
        if (v->ring_at >= v->config.region_bytes || v->ring_at < WINDOW)
            v->ring_at = WINDOW;
        return v->ring_at;
    case VENDOR_ANYWHERE:
        return WINDOW + vendor_random(v) % window;
    default:
        return WINDOW;
    }
}

static uint64_t room_at(const struct vendor *v, uint64_t offset)
{
    uint64_t end = v->config.region_bytes;
    if (v->config.offset == VENDOR_HALVES && offset == WINDOW)
        end = WINDOW + (end - WINDOW + 1) / 2;
    return end - offset;
}

static uint64_t chunk_size(struct vendor *v, uint64_t room)
{
    switch (v->config.chunk) {
    case VENDOR_CHUNK_BYTE:
        return 1;
    case VENDOR_CHUNK_ODD:
        return room < 4099 ? room : 4099;
    case VENDOR_CHUNK_RANDOM:
        return 1 + vendor_random(v) % room;
    default:
        return room;
    }
}

static uint64_t stage(struct vendor *v)
{
    if (v->chunk_staged)
        vendor_violate(v, "data_offset was read before pending_bytes told that the chunk is taken");
    v->chunk_staged = true;
    v->size_read = false;
    v->chunk_read = 0;
    v->chunk_offset = place(v);
    if (vendor_breaks(v, VENDOR_ENDS_EARLY))
        v->ends = true;
    uint64_t want = chunk_size(v, room_at(v, v->chunk_offset));
    if (v->config.pending == VENDOR_PENDING_EMPTY && vendor_random(v) % 4 == 0 &&
        v->state == GW_ODEV_PRE_COPY)
        want = 0;
    v->chunk_bytes = vendor_produce(v, v->region + v->chunk_offset, want);
    copy_areas(v, v->chunk_offset, v->chunk_bytes, true);
    v->ring_at = v->chunk_offset + v->chunk_bytes;
    return v->chunk_offset;
}

static uint64_t offer(struct vendor *v)
{
    v->load_offset = place(v);
    v->load_offered = true;
    v->load_written = 0;
    return v->load_offset;
}

static void release_chunk(struct vendor *v)
{
    if (v->chunk_staged && !v->size_read)
        vendor_violate(v, "pending_bytes was read before data_size");
    if (v->chunk_staged && !is_mapped(v) && v->chunk_read < v->chunk_bytes)
        vendor_violate(v, "pending_bytes was read before all of the chunk was");
    v->chunk_staged = false;
}

static uint64_t pending(struct vendor *v)
{
    bool stopped = v->state == GW_ODEV_STOP_COPY;
    if (v->state != GW_ODEV_PRE_COPY && !stopped) {
        vendor_violate(v, "pending_bytes was read in state %s", gw_odev_state_name(v->state));
        return 0;
    }
    release_chunk(v);
    v->pending_reads++;
    if (!stopped && v->config.pending == VENDOR_PENDING_GROWS && v->pending_reads % 8 == 0)
        vendor_run(v, 1);
    if (!stopped && v->config.pending == VENDOR_PENDING_NEVER)
        return UINT64_C(1) << 40;
    if (!stopped && v->config.pending == VENDOR_PENDING_PAUSES && v->pending_reads % 3 == 0)
        return 0;
    uint64_t left = vendor_left(v, stopped);
    if (v->config.pending == VENDOR_PENDING_OVER)
        return left ? left * 10 : 0;
    if (v->config.pending == VENDOR_PENDING_UNDER)
        return left ? 1 : 0;
    return left;
}

static void take_load(struct vendor *v, uint64_t bytes)
{
    if (!v->load_offered)
        vendor_violate(v, "data_size was written before data_offset was read");
    else if (bytes > v->config.region_bytes - v->load_offset)
        vendor_violate(v, "data_size was written above what fits");
    else if (!is_mapped(v) && v->load_written < bytes)
        vendor_violate(v, "data_size was written before the data");
    else {
        copy_areas(v, v->load_offset, bytes, false);
        vendor_consume(v, v->region + v->load_offset, (size_t)bytes);
    }
    v->load_offered = false;
}

/* ---- registers ----------------------------------------------------------------------------------- */

static uint64_t read_offset(struct vendor *v)
{
    if (v->state != GW_ODEV_RESUMING && !gw_odev_state_is_saving(v->state))
        vendor_violate(v, "data_offset was read in state %s", gw_odev_state_name(v->state));
    uint64_t offset = v->state == GW_ODEV_RESUMING ? offer(v) : stage(v);
    if (vendor_breaks(v, VENDOR_OFFSET_LOW))
        return 8;
    if (vendor_breaks(v, VENDOR_OFFSET_AT_END))
        return v->config.region_bytes;
    if (vendor_breaks(v, VENDOR_OFFSET_BEYOND))
        return UINT64_MAX - 16;
    return offset;
}

static uint64_t read_size(struct vendor *v)
{
    if (!v->chunk_staged)
        vendor_violate(v, "data_size was read before data_offset");
    v->size_read = true;
    return vendor_breaks(v, VENDOR_SIZE_BEYOND) ? v->config.region_bytes : v->chunk_bytes;
}

static int reg_read(void *dev, unsigned offset, unsigned width, uint64_t *value)
{
    struct vendor *v = dev;
    if (vendor_breaks(v, VENDOR_REG_READ_FAILS))
        return -EIO;
    if (offset == GW_STAGING_DEVICE_STATE && width == 4)
        *value = OTHER_BITS | (vendor_breaks(v, VENDOR_STATE_READS_ERROR) ? 6 : register_value(v));
    else if (offset == GW_STAGING_PENDING_BYTES && width == 8)
        *value = pending(v);
    else if (offset == GW_STAGING_DATA_OFFSET && width == 8)
        *value = read_offset(v);
    else if (offset == GW_STAGING_DATA_SIZE && width == 8)
        *value = read_size(v);
    else
        vendor_violate(v, "%u bytes were read at register %u", width, offset);
    return 0;
}

static int reg_write(void *dev, unsigned offset, unsigned width, uint64_t value)
{
    struct vendor *v = dev;
    if (vendor_breaks(v, VENDOR_REG_WRITE_FAILS))
        return -EIO;
    if (offset == GW_STAGING_DEVICE_STATE && width == 4)
        return write_state(v, value);
    if (offset == GW_STAGING_DATA_SIZE && width == 8 && v->state == GW_ODEV_RESUMING)
        take_load(v, value);
    else
        vendor_violate(v, "%u bytes were written at register %u in state %s", width, offset,
                       gw_odev_state_name(v->state));
    return 0;
}

static int data_read(void *dev, uint64_t offset, void *data, size_t bytes)
{
    struct vendor *v = dev;
    if (vendor_breaks(v, VENDOR_READ_FAILS))
        return -EIO;
    if (vendor_breaks(v, VENDOR_RESETS_ITSELF)) {
        vendor_reset(v);
        return -EIO;
    }
    if (!v->chunk_staged || offset < v->chunk_offset ||
        offset + bytes > v->chunk_offset + v->chunk_bytes) {
        vendor_violate(v, "the window was read outside of the chunk");
        return -EIO;
    }
    memcpy(data, v->region + offset, bytes);
    v->chunk_read += bytes;
    return 0;
}

static int data_write(void *dev, uint64_t offset, const void *data, size_t bytes)
{
    struct vendor *v = dev;
    if (vendor_breaks(v, VENDOR_WRITE_FAILS))
        return -EIO;
    if (!v->load_offered || offset < v->load_offset || offset + bytes > v->config.region_bytes) {
        vendor_violate(v, "the window was written outside of what was offered");
        return -EIO;
    }
    memcpy(v->region + offset, data, bytes);
    copy_areas(v, offset, bytes, true); /* one memory, whichever way it is reached */
    v->load_written += bytes;
    return 0;
}

/* ---- mapping ------------------------------------------------------------------------------------- */

static void add_area(struct vendor *v, uint64_t offset, uint64_t bytes)
{
    struct gw_staging_area *area = &v->areas[v->area_count++];
    *area = (struct gw_staging_area){offset, bytes, calloc(bytes ? bytes : 1, 1)};
    if (!area->host)
        abort();
}

static int map_areas(void *dev, struct gw_staging_area *areas, unsigned max)
{
    struct vendor *v = dev;
    uint64_t end = v->config.region_bytes;
    uint64_t third = (end - WINDOW) / 3;
    if (v->config.section == VENDOR_MAP_REFUSED)
        return -EPERM;
    if (v->config.section == VENDOR_TRAPPED || max < VENDOR_AREAS_MAX)
        return 0;
    if (is_mapped(v))
        vendor_violate(v, "the window was mapped twice");
    v->opened++;
    if (v->config.section == VENDOR_ONE_AREA) {
        add_area(v, WINDOW, end - WINDOW);
    } else {
        add_area(v, end - third, third);
        add_area(v, WINDOW + 7, third / 2);
        add_area(v, WINDOW + third, third / 3);
    }
    memcpy(areas, v->areas, v->area_count * sizeof(areas[0]));
    return (int)v->area_count;
}

static void unmap_areas(void *dev)
{
    struct vendor *v = dev;
    if (is_mapped(v))
        v->opened--;
    for (unsigned i = 0; i < v->area_count; i++)
        free(v->areas[i].host);
    v->area_count = 0;
}

static int reset(void *dev)
{
    struct vendor *v = dev;
    if (vendor_breaks(v, VENDOR_RESET_FAILS))
        return -EIO;
    vendor_reset(v);
    return 0;
}

const struct gw_staging_ops *vendor_staging_ops(struct vendor *v)
{
    uint64_t bytes = v->config.region_bytes;
    if (!v->region)
        v->region = calloc(bytes, 1);
    if (!v->region)
        abort();
    v->staging_ops = (struct gw_staging_ops){
        .struct_bytes = sizeof(v->staging_ops),
        .region_bytes = bytes,
        .reg_read = reg_read,
        .reg_write = reg_write,
        .data_read = data_read,
        .data_write = data_write,
        .map_areas = map_areas,
        .unmap_areas = unmap_areas,
        .reset = reset,
    };
    if (v->config.config_bytes > 0) {
        v->staging_ops.save_config = vendor_save_config;
        v->staging_ops.load_config = vendor_load_config;
    }
    return &v->staging_ops;
}

void vendor_free(struct vendor *v)
{
    if (!v)
        return;
    unmap_areas(v);
    free(v->region);
    if (v->pipe_fd >= 0)
        close(v->pipe_fd);
    free(v->writes);
    free(v->dirty);
    free(v->configuration);
    free(v);
}
