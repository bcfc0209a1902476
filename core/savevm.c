// SPDX-License-Identifier: MIT
/* Guest state as savevm items: the RAM section's frame (on the native wire its pages go elsewhere)
 * and one FULL section per device. Bytes: docs/protocol.md section 4. */
#include "core/devices.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define RAM_FLAG_MEM_SIZE 0x04u
#define RAM_FLAG_EOS 0x10u

/* ---- RAM ---------------------------------------------------------------------------------------- */

void gw_savevm_ram_start(struct gw_writer *w, struct gw_ram *ram)
{
    struct gw_section section = {.type = GW_ITEM_START,
                                 .section_id = GW_SECTION_RAM,
                                 .idstr = "ram",
                                 .version_id = GW_RAM_SECTION_VERSION};
    gw_stream_write_section(w, &section);
    gw_writer_be64(w, gw_ram_bytes(ram) | RAM_FLAG_MEM_SIZE);
    for (unsigned i = 0; i < gw_ram_block_count(ram); i++) {
        const struct gw_block *block = gw_ram_block(ram, i);
        size_t bytes = strlen(block->desc.name);
        gw_writer_u8(w, (uint8_t)bytes);
        gw_writer_bytes(w, block->desc.name, bytes);
        gw_writer_be64(w, block->desc.size_bytes);
    }
    gw_writer_be64(w, RAM_FLAG_EOS);
    gw_stream_write_footer(w, GW_SECTION_RAM);
}

void gw_savevm_ram_end(struct gw_writer *w)
{
    struct gw_section section = {.type = GW_ITEM_END, .section_id = GW_SECTION_RAM};
    gw_stream_write_section(w, &section);
    gw_writer_be64(w, RAM_FLAG_EOS);
    gw_stream_write_footer(w, GW_SECTION_RAM);
}

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
    if (gw_reader_be64(body) != (gw_ram_bytes(ram) | RAM_FLAG_MEM_SIZE))
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
    if (gw_reader_be64(body) != RAM_FLAG_EOS || gw_reader_error(body) < 0 ||
        gw_reader_left(body) != 0)
        return gw_fail(err, -EPROTO,
                       "section 'ram': no end record where one must be (pages travel "
                       "on page endpoints here)");
    return 0;
}

/* ---- devices ------------------------------------------------------------------------------------- */

int gw_savevm_save(struct gw_writer *w, const struct gw_device_desc *device, uint32_t section_id,
                   struct gw_error *err)
{
    struct gw_section section = {.type = GW_ITEM_FULL,
                                 .section_id = section_id,
                                 .instance_id = device->instance_id,
                                 .version_id = device->version_id};
    snprintf(section.idstr, sizeof(section.idstr), "%s", device->name);
    gw_stream_write_section(w, &section);
    gw_error_clear(err);
    int rc = device->save ? device->save(device->opaque, w, err) : -EOPNOTSUPP;
    if (rc < 0) {
        if (!gw_error_is_set(err))
            gw_fail_code(err, rc, GW_CODE_DEVICE, "save failed (%s)", strerror(-rc));
        return gw_error_prefix(err, "device '%s' instance %u", device->name, device->instance_id);
    }
    gw_stream_write_footer(w, section_id);
    if (gw_writer_error(w) < 0)
        return gw_fail_code(err, gw_writer_error(w), GW_CODE_DEVICE,
                            "device '%s' instance %u: its state does not fit", device->name,
                            device->instance_id);
    return 0;
}

static int check_version(const struct gw_device_desc *device, const struct gw_section *section,
                         struct gw_error *err)
{
    if (section->version_id >= device->minimum_version_id &&
        section->version_id <= device->version_id)
        return 0;
    return gw_fail_code(err, -EINVAL, GW_CODE_DEVICE,
                        "section '%s' instance %u: version %u arrived, versions %u to %u are taken",
                        section->idstr, section->instance_id, section->version_id,
                        device->minimum_version_id, device->version_id);
}

int gw_savevm_load(const struct gw_devices *devices, const struct gw_section *section,
                   struct gw_reader *body, struct gw_error *err)
{
    const struct gw_device_desc *device =
        gw_devices_find(devices, section->idstr, section->instance_id);
    if (!device || !device->load) {
        gw_fail_code(err, -ENOENT, GW_CODE_DEVICE, "section '%s' instance %u: no such device here",
                     section->idstr, section->instance_id);
        gw_error_hint(err, "start the target with the same devices as the source");
        return -ENOENT;
    }
    int rc = check_version(device, section, err);
    if (rc < 0)
        return rc;
    gw_error_clear(err);
    rc = device->load(device->opaque, body, section->version_id, err);
    if (rc == 0 && gw_reader_error(body) < 0)
        rc = gw_fail_code(err, -EBADMSG, GW_CODE_DEVICE, "its state ends too early");
    if (rc == 0 && gw_reader_left(body) != 0)
        rc = gw_fail_code(err, -EBADMSG, GW_CODE_DEVICE, "%zu bytes of its state were not consumed",
                          gw_reader_left(body));
    if (rc < 0) {
        if (!gw_error_is_set(err))
            gw_fail_code(err, rc, GW_CODE_DEVICE, "load failed (%s)", strerror(-rc));
        return gw_error_prefix(err, "device '%s' instance %u", device->name, device->instance_id);
    }
    return 0;
}
