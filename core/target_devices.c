// SPDX-License-Identifier: MIT
/* The table of devices at the target (godwit/device.h): which section may be loaded when, the loads
 * themselves, as many as are there in one callback on the loop's thread, acknowledgements, and what comes before and after all of
 * them. Early state, BEGIN and PART are loaded while memory arrives, all else once nobody can write
 * it any more (rule 10). A source with such devices hears of each section that is loaded (LOADED). */
#include "core/target.h"

#include "core/base/alloc.h"

#include <inttypes.h>
#include <string.h>

#define LOADS_BYTES (UINT64_C(512) << 10) /* of many small ones; the last of them may be longer */

/* ---- before any section ---------------------------------------------------------------------------- */

int gw_target_set_up_devices(struct gw_target *tgt, struct gw_error *err)
{
    tgt->loadings = gw_zalloc(tgt->devices.count, sizeof(*tgt->loadings));
    if (!tgt->loadings)
        return gw_fail(err, -ENOMEM, "devices");
    int rc = gw_savevm_load_setup(&tgt->devices, err);
    if (rc < 0)
        return rc;
    for (unsigned i = 0; i < tgt->devices.count; i++) {
        const struct gw_device_desc *device = &tgt->devices.list[i];
        const struct gw_device_ops *ops = device->ops;
        tgt->loadings[i].needs_ack = ops && ops->load && ops->switchover_ack_needed &&
                                     ops->switchover_ack_needed(device->opaque);
        tgt->acks_missing += tgt->loadings[i].needs_ack;
        if (tgt->loadings[i].needs_ack)
            gw_log_info(&tgt->log, "target",
                        "device '%s' instance %" PRIu32 " acknowledges before the guest is paused",
                        device->name, device->instance_id);
    }
    return 0;
}

void gw_target_say_loaded(struct gw_target *tgt)
{
    struct gw_message msg = {.type = GW_MSG_LOADED};
    if (!(tgt->hello.flags & GW_HELLO_DEVICES))
        return;
    msg.u.loaded.items = tgt->items_taken;
    msg.u.loaded.acks_missing = tgt->acks_missing;
    msg.u.loaded.acks_given = tgt->acks_given;
    gw_target_say(tgt, &msg);
}

/* ---- what may come when ---------------------------------------------------------------------------- */

static bool is_early(const struct gw_target *tgt, const struct gw_section *section)
{
    const struct gw_device_desc *device =
        gw_devices_find(&tgt->devices, section->idstr, section->instance_id);
    return device && device->flags & GW_DEVICE_EARLY;
}

/* What PART and END do not repeat. */
static int complete_head(struct gw_target *tgt, struct gw_section *section, struct gw_error *err)
{
    const struct gw_section *start = gw_stream_order_find(tgt->order, section->section_id);
    if (!start)
        return gw_fail(err, -EPROTO, "section %" PRIu32 " is not open", section->section_id);
    enum gw_item_type type = section->type;
    *section = *start;
    section->type = type;
    return 0;
}

int gw_target_check_section(struct gw_target *tgt, struct gw_section *section, struct gw_error *err)
{
    bool paused = tgt->step == GW_TGT_LOAD;
    if (section->type == GW_ITEM_PART || section->type == GW_ITEM_END) {
        int rc = complete_head(tgt, section, err);
        if (rc < 0)
            return rc;
    }
    if (strcmp(section->idstr, GW_RAM_NAME) == 0)
        return 0; /* its END makes the difference */
    if (section->type == GW_ITEM_START && paused)
        return gw_fail(err, -EPROTO,
                       "section '%s' instance %" PRIu32 " begins after the end of RAM",
                       section->idstr, section->instance_id);
    if (section->type == GW_ITEM_END && !paused)
        return gw_fail(err, -EPROTO, "section '%s' instance %" PRIu32 " ends before the end of RAM",
                       section->idstr, section->instance_id);
    if (section->type == GW_ITEM_FULL && !paused && !is_early(tgt, section))
        return gw_fail(err, -EPROTO, "section '%s' before the end of RAM", section->idstr);
    return 0;
}

/* ---- loading --------------------------------------------------------------------------------------- */

bool gw_target_may_gather(const struct gw_target *tgt)
{
    return tgt->load_count < GW_LOADS_MAX && tgt->load_bytes < LOADS_BYTES;
}

void gw_target_gather(struct gw_target *tgt, struct gw_item *item, const struct gw_section *section,
                      const struct gw_reader *body)
{
    gw_assert(tgt->load_count < GW_LOADS_MAX && !tgt->is_loading);
    tgt->loads[tgt->load_count++] =
        (struct gw_load){.item = item, .section = *section, .body = *body};
    tgt->load_bytes += item->bytes;
}

void gw_target_drop_loads(struct gw_target *tgt)
{
    for (unsigned i = 0; i < tgt->load_count; i++)
        gw_free(tgt->loads[i].item);
    tgt->load_count = 0;
    tgt->load_bytes = 0;
}

static int load_run(struct gw_target *tgt, struct gw_error *err)
{
    int rc = 0;
    for (unsigned i = 0; i < tgt->load_count && rc >= 0; i++) {
        struct gw_load *load = &tgt->loads[i];
        rc = gw_savevm_load(&tgt->devices, &load->section, &load->body, err);
        load->acked = rc == GW_DEVICE_ACK;
    }
    return rc < 0 ? rc : 0;
}

static int acknowledged(struct gw_target *tgt, const struct gw_section *section,
                        struct gw_error *err)
{
    const struct gw_device_desc *device =
        gw_devices_find(&tgt->devices, section->idstr, section->instance_id);
    gw_assert(device);
    struct gw_loading *loading = &tgt->loadings[device - tgt->devices.list];
    const struct gw_device_ops *ops = device->ops;
    if (!ops->switchover_ack_needed || tgt->acks_given == UINT32_MAX)
        return gw_fail_code(err, -EPROTO, GW_CODE_DEVICE,
                            "device '%s' instance %" PRIu32
                            " acknowledges that the guest may be paused, and was not asked to",
                            device->name, device->instance_id);
    tgt->acks_given++;
    tgt->acks_missing -= loading->needs_ack;
    loading->needs_ack = false;
    return 0;
}

static int take_acks(struct gw_target *tgt, struct gw_error *err)
{
    int rc = 0;
    for (unsigned i = 0; i < tgt->load_count && rc == 0; i++) {
        if (tgt->loads[i].acked)
            rc = acknowledged(tgt, &tgt->loads[i].section, err);
    }
    return rc;
}

static void load_finished(struct gw_target *tgt, int rc)
{
    struct gw_error err = GW_ERROR_INIT;
    tgt->is_loading = false;
    if (tgt->step == GW_TGT_LOAD)
        tgt->load_ns += tgt->call.took_ns;
    if (tgt->step != GW_TGT_LOAD && tgt->step != GW_TGT_ACTIVE) {
        gw_target_drop_loads(tgt);
        return;
    }
    if (rc == 0)
        rc = take_acks(tgt, &err);
    gw_target_drop_loads(tgt);
    if (rc < 0) {
        gw_target_fail(tgt, gw_error_is_set(&err) ? &err : &tgt->call.err);
        return;
    }
    if (tgt->step == GW_TGT_ACTIVE)
        gw_target_say_loaded(tgt);
    gw_target_next_item(tgt);
}

void gw_target_load(struct gw_target *tgt)
{
    tgt->is_loading = true;
    gw_target_ask(tgt, load_run, load_finished);
}

/* ---- after all sections ---------------------------------------------------------------------------- */

static int complete_run(struct gw_target *tgt, struct gw_error *err)
{
    return gw_savevm_load_complete(&tgt->devices, err);
}

static void complete_finished(struct gw_target *tgt, int rc)
{
    if (tgt->step != GW_TGT_LOAD)
        return;
    tgt->load_ns += tgt->call.took_ns;
    if (rc < 0) {
        gw_target_fail(tgt, &tgt->call.err);
        return;
    }
    tgt->devices_complete = true;
    gw_target_next_item(tgt);
}

bool gw_target_complete_devices(struct gw_target *tgt)
{
    bool asks = false;
    for (unsigned i = 0; i < tgt->devices.count; i++)
        asks |= tgt->devices.list[i].ops && tgt->devices.list[i].ops->load_complete;
    if (tgt->devices_complete || !asks)
        return true;
    if (!tgt->call.busy)
        gw_target_ask(tgt, complete_run, complete_finished);
    return false;
}

static int cleanup_run(struct gw_target *tgt, struct gw_error *err)
{
    (void)err;
    for (unsigned i = 0; i < tgt->devices.count; i++) {
        const struct gw_device_desc *device = &tgt->devices.list[i];
        if (device->ops && device->ops->load_cleanup)
            device->ops->load_cleanup(device->opaque);
    }
    return 0;
}

static void cleanup_finished(struct gw_target *tgt, int rc)
{
    (void)rc;
    tgt->devices_cleaned = true;
}

bool gw_target_clean_devices(struct gw_target *tgt)
{
    bool asks = false;
    for (unsigned i = 0; i < tgt->devices.count; i++)
        asks |= tgt->devices.list[i].ops && tgt->devices.list[i].ops->load_cleanup;
    if (tgt->devices_cleaned || !asks || !tgt->in_session)
        return true;
    gw_target_ask(tgt, cleanup_run, cleanup_finished);
    return false;
}
