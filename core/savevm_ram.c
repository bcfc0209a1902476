// SPDX-License-Identifier: MIT
/* Guest memory as an entry of the table of devices (godwit/device.h), the first of them: its setup is
 * the block table, what is pending are dirty pages, its end the end record. It has no iterate: on the
 * native wire its pages travel on page endpoints, and a round of theirs is what iterate is to others.
 * So its pending is to be asked only while nobody sends or syncs. */
#include "core/devices.h"

#include "core/base/alloc.h"
#include "ram/inline_write.h"

#include <string.h>

/* ---- the source ---------------------------------------------------------------------------------- */

static void put(struct gw_writer *w, const struct gw_inline_record *record)
{
    gw_writer_bytes(w, record->head, record->head_bytes);
    gw_writer_bytes(w, record->data, record->data_bytes);
}

static void put_end(struct gw_writer *w)
{
    struct gw_inline_record record;
    gw_inline_write_end(&record);
    put(w, &record);
}

static int put_table(struct gw_writer *w, const struct gw_inline_entry *entries, unsigned count,
                     struct gw_error *err)
{
    struct gw_inline_writer table;
    struct gw_inline_record record;
    gw_inline_writer_init(&table);
    int rc = gw_inline_write_table(&table, entries, count, &record, err);
    if (rc < 0)
        return rc;
    put(w, &record);
    for (unsigned i = 0; i < count; i++) {
        gw_inline_write_entry(&table, i, &record);
        put(w, &record);
    }
    put_end(w);
    return 0;
}

static int setup(void *opaque, struct gw_writer *w, struct gw_error *err)
{
    struct gw_ram *ram = opaque;
    unsigned count = gw_ram_block_count(ram);
    struct gw_inline_entry *entries = gw_zalloc((size_t)count + 1, sizeof(*entries));
    if (!entries)
        return gw_fail(err, -ENOMEM, "block table");
    for (unsigned i = 0; i < count; i++) {
        const struct gw_block_desc *desc = &gw_ram_block(ram, i)->desc;
        entries[i] = (struct gw_inline_entry){.name = desc->name, .bytes = desc->size_bytes};
    }
    int rc = put_table(w, entries, count, err);
    gw_free(entries);
    return rc;
}

static int pending(void *opaque, struct gw_device_pending *pending, struct gw_error *err)
{
    (void)err;
    pending->must_precopy_bytes = gw_ram_dirty_pages(opaque) * GW_PAGE_BYTES;
    return 0;
}

static int complete_precopy(void *opaque, struct gw_writer *w, uint64_t bytes_max,
                            struct gw_error *err)
{
    (void)opaque, (void)bytes_max, (void)err;
    put_end(w);
    return GW_DEVICE_DONE;
}

/* ---- the target ---------------------------------------------------------------------------------- */

static int check_block(struct gw_reader *body, struct gw_ram *ram, unsigned id,
                       struct gw_error *err)
{
    char name[256] = "";
    uint8_t bytes = gw_reader_u8(body);
    gw_reader_bytes(body, name, bytes);
    uint64_t size = gw_reader_be64(body);
    const struct gw_block *block = gw_ram_block(ram, id);
    /* By length too: what follows a NUL would be passed over else. */
    if (gw_reader_error(body) < 0 || !block || strlen(block->desc.name) != bytes ||
        memcmp(name, block->desc.name, bytes) != 0 || size != block->desc.size_bytes)
        return gw_fail(err, -EPROTO, "section 'ram': block table entry %u is not the block offered",
                       id);
    return 0;
}

int gw_savevm_check_ram_start(struct gw_reader *body, struct gw_ram *ram, struct gw_error *err)
{
    if (gw_reader_be64(body) != (gw_ram_bytes(ram) | GW_INLINE_FLAG_MEM_SIZE))
        return gw_fail(err, -EPROTO, "section 'ram': total size is not that of the blocks offered");
    for (unsigned i = 0; i < gw_ram_block_count(ram); i++) {
        int rc = check_block(body, ram, i, err);
        if (rc < 0)
            return rc;
    }
    return gw_savevm_check_ram_end(body, err);
}

int gw_savevm_check_ram_end(struct gw_reader *body, struct gw_error *err)
{
    if (gw_reader_be64(body) != GW_INLINE_FLAG_EOS || gw_reader_error(body) < 0 ||
        gw_reader_left(body) != 0)
        return gw_fail(err, -EPROTO,
                       "section 'ram': no end record where one must be (pages travel "
                       "on page endpoints here)");
    return 0;
}

static int load(void *opaque, struct gw_reader *r, enum gw_device_part part, uint32_t version_id,
                struct gw_error *err)
{
    (void)version_id;
    switch (part) {
    case GW_DEVICE_BEGIN:
        return gw_savevm_check_ram_start(r, opaque, err);
    case GW_DEVICE_END:
        return gw_savevm_check_ram_end(r, err);
    case GW_DEVICE_PART:
    case GW_DEVICE_FULL:
        break;
    }
    return gw_fail(err, -EPROTO, "section 'ram': pages in line, on a wire that has page endpoints");
}

/* ---- the entry ----------------------------------------------------------------------------------- */

static const struct gw_device_ops ram_ops = {
    .struct_bytes = sizeof(ram_ops),
    .setup = setup,
    .pending_estimate = pending,
    .pending_exact = pending,
    .complete_precopy = complete_precopy,
    .load = load,
};

struct gw_device_desc gw_savevm_ram(struct gw_ram *ram)
{
    return (struct gw_device_desc){
        .struct_bytes = sizeof(struct gw_device_desc),
        .name = GW_RAM_NAME,
        .version_id = GW_RAM_SECTION_VERSION,
        .minimum_version_id = GW_RAM_SECTION_VERSION,
        .priority = INT32_MAX,
        .opaque = ram,
        .ops = &ram_ops,
    };
}
