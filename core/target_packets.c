// SPDX-License-Identifier: MIT
/* Device state beside the stream, at the target: PARTs that came over page endpoints in the pause, each loaded on a
 * worker once everything before it is: what the stream had before the pause, and the device's packets with
 * lower numbers. A device that has not promised to be called there is called inside gw_dispatch(). */
#include "core/target.h"

#include "core/base/alloc.h"
#include "core/base/bytes.h"

#include <inttypes.h>

#define LOADERS_MAX 4u /* devices are waited for: as many on one processor */

struct loader { /* a section at a worker */
    struct gw_target_job job;
    struct gw_packet *packet; /* NULL: none */
    struct gw_loading *loading;
    struct gw_section section;
    struct gw_reader body;
};

struct gw_unpacking {
    struct gw_pool *workers;
    struct loader loaders[LOADERS_MAX];
    struct loader in_loop;
    struct gw_packet *first, **last; /* that wait, as they came */
    unsigned count;
    uint64_t loaded, loaded_bytes;
};

/* ---- life ---------------------------------------------------------------------------------------------- */

/* No more than there are devices for. */
static unsigned worker_count(const struct gw_target *tgt)
{
    unsigned count = 0;
    for (unsigned i = 0; i < tgt->devices.count; i++)
        count += (tgt->devices.list[i].flags & GW_DEVICE_WORKER) != 0;
    return count < LOADERS_MAX ? count : LOADERS_MAX;
}

int gw_target_packets_open(struct gw_target *tgt, struct gw_error *err)
{
    tgt->packet_pot = (struct gw_packet_pot){.bytes_max = tgt->reply.packet_bytes_max,
                                             .section_bytes_max = tgt->reply.section_bytes_max,
                                             .arrived = gw_target_on_packet};
    if (tgt->reply.packet_bytes_max == 0)
        return 0;
    struct gw_unpacking *unpacking = gw_zalloc(1, sizeof(*unpacking));
    if (!unpacking)
        return gw_fail(err, -ENOMEM, "device state");
    unpacking->last = &unpacking->first;
    tgt->unpacking = unpacking;
    return gw_pool_new(worker_count(tgt), "gw/tgt/dev", &unpacking->workers, err);
}

bool gw_target_packets_are_quiet(const struct gw_target *tgt)
{
    for (unsigned i = 0; tgt->unpacking && i < LOADERS_MAX; i++) {
        if (tgt->unpacking->loaders[i].job.busy)
            return false;
    }
    return true; /* what is called in the loop is tgt->call */
}

bool gw_target_packets_are_loaded(const struct gw_target *tgt)
{
    const struct gw_unpacking *unpacking = tgt->unpacking;
    return !unpacking ||
           (!unpacking->first && !unpacking->in_loop.packet && gw_target_packets_are_quiet(tgt));
}

static void drop(struct loader *loader)
{
    if (loader->packet)
        gw_packet_free(loader->packet);
    loader->packet = NULL;
}

void gw_target_packets_close(struct gw_target *tgt)
{
    struct gw_unpacking *unpacking = tgt->unpacking;
    if (!unpacking)
        return;
    gw_mail_drain(&tgt->inbox, tgt); /* what page endpoints had posted: each is dropped */
    gw_pool_free(unpacking->workers);
    for (unsigned i = 0; i < LOADERS_MAX; i++)
        drop(&unpacking->loaders[i]);
    drop(&unpacking->in_loop);
    while (unpacking->first) {
        struct gw_packet *packet = unpacking->first;
        unpacking->first = packet->next;
        gw_packet_free(packet);
    }
    tgt->unpacking = NULL;
    gw_free(unpacking);
}

/* ---- loading -------------------------------------------------------------------------------------------- */

static int load_one(struct gw_target *tgt, struct loader *loader, struct gw_error *err)
{
    int rc = gw_savevm_load(&tgt->devices, &loader->section, &loader->body, err);
    if (rc <= 0)
        return rc;
    return gw_fail_code(err, -EPROTO, GW_CODE_DEVICE,
                        "device '%s' instance %" PRIu32 " acknowledges a pause that has begun",
                        loader->section.idstr, loader->section.instance_id);
}

static void loaded(struct gw_target *tgt, struct loader *loader, int rc, const struct gw_error *err)
{
    struct gw_unpacking *unpacking = tgt->unpacking;
    struct gw_message msg = {.type = GW_MSG_PACKETS_LOADED};
    unpacking->loaded++;
    unpacking->loaded_bytes += gw_packet_charge(loader->packet->bytes);
    loader->loading->packet = loader->packet->number;
    loader->loading->loads_packet = false;
    drop(loader);
    if (tgt->step != GW_TGT_ACTIVE)
        return;
    if (rc < 0) {
        gw_target_fail(tgt, err);
        return;
    }
    msg.u.packets.count = unpacking->loaded;
    msg.u.packets.bytes = unpacking->loaded_bytes;
    gw_target_say(tgt, &msg);
    gw_target_next_item(tgt);
}

static void worker_run(struct gw_job *job)
{
    struct loader *loader =
        GW_CONTAINER_OF(GW_CONTAINER_OF(job, struct gw_target_job, job), struct loader, job);
    gw_error_clear(&loader->job.err);
    loader->job.rc = load_one(loader->job.tgt, loader, &loader->job.err);
}

static void worker_done(struct gw_mail *mail, void *engine)
{
    struct loader *loader =
        GW_CONTAINER_OF(GW_CONTAINER_OF(mail, struct gw_target_job, job.done), struct loader, job);
    loader->job.busy = false;
    loaded(engine, loader, loader->job.rc, &loader->job.err);
}

static int loop_run(struct gw_target *tgt, struct gw_error *err)
{
    return load_one(tgt, &tgt->unpacking->in_loop, err);
}

static void loop_finished(struct gw_target *tgt, int rc)
{
    loaded(tgt, &tgt->unpacking->in_loop, rc, &tgt->call.err);
}

static struct loader *free_loader(struct gw_target *tgt, const struct gw_device_desc *device)
{
    struct gw_unpacking *unpacking = tgt->unpacking;
    if (!(device->flags & GW_DEVICE_WORKER))
        return tgt->call.busy ? NULL : &unpacking->in_loop;
    for (unsigned i = 0; i < LOADERS_MAX; i++) {
        if (!unpacking->loaders[i].packet)
            return &unpacking->loaders[i];
    }
    return NULL;
}

/* ---- what may be loaded ------------------------------------------------------------------------------------ */

/* A PART of the section that the packet names, which is open. */
static int read_part(const struct gw_target *tgt, struct gw_packet *packet,
                     struct gw_section *section, struct gw_reader *body, struct gw_error *err)
{
    char machine[256];
    enum gw_item_type type;
    const struct gw_section *start = gw_stream_order_find(tgt->order, packet->section);
    if (!start)
        return gw_fail(err, -EPROTO, "PACKET: section %" PRIu32 " is not open", packet->section);
    int rc = gw_stream_read_item(packet->data, packet->bytes, &type, machine, section, body, err);
    if (rc < 0)
        return gw_error_prefix(err, "PACKET of section %" PRIu32, packet->section);
    if (type != GW_ITEM_PART || section->section_id != packet->section)
        return gw_fail(err, -EPROTO, "PACKET of section %" PRIu32 ": it holds something else",
                       packet->section);
    *section = *start;
    section->type = type;
    return 0;
}

/* 1: it is at a loader, and out of the list; 0: not yet. */
static int load_if_next(struct gw_target *tgt, struct gw_packet **at, struct gw_error *err)
{
    struct gw_packet *packet = *at;
    struct gw_section section = {0};
    struct gw_reader body;
    if (packet->items > tgt->items_taken)
        return 0;
    int rc = read_part(tgt, packet, &section, &body, err);
    if (rc < 0)
        return rc;
    const struct gw_device_desc *device =
        gw_devices_find(&tgt->devices, section.idstr, section.instance_id);
    if (!device || device == tgt->devices.list) /* START was refused, or it is memory's */
        return gw_fail(err, -EPROTO, "PACKET: section '%s' takes none", section.idstr);
    struct gw_loading *loading = &tgt->loadings[device - tgt->devices.list];
    if (packet->number <= loading->packet)
        return gw_fail(err, -EPROTO, "PACKET %" PRIu64 " of section '%s' comes twice",
                       packet->number, section.idstr);
    struct loader *loader = free_loader(tgt, device);
    if (loading->loads_packet || packet->number != loading->packet + 1 || !loader)
        return 0;
    *at = packet->next;
    if (!*at)
        tgt->unpacking->last = at;
    tgt->unpacking->count--;
    loading->loads_packet = true;
    loader->packet = packet;
    loader->loading = loading;
    loader->section = section;
    loader->body = body;
    if (loader == &tgt->unpacking->in_loop)
        gw_target_ask(tgt, loop_run, loop_finished);
    else
        gw_target_post_to(tgt, tgt->unpacking->workers, &loader->job, worker_run, worker_done);
    return 1;
}

void gw_target_load_packets(struct gw_target *tgt)
{
    struct gw_unpacking *unpacking = tgt->unpacking;
    struct gw_error err = GW_ERROR_INIT;
    if (!unpacking || tgt->step != GW_TGT_ACTIVE || tgt->load_count > 0)
        return; /* what the stream had before is being loaded */
    struct gw_packet **at = &unpacking->first;
    while (*at) {
        int rc = load_if_next(tgt, at, &err);
        if (rc < 0) {
            gw_target_fail(tgt, &err);
            return;
        }
        if (rc == 0)
            at = &(*at)->next;
    }
}

void gw_target_on_packet(void *engine, struct gw_packet *packet)
{
    struct gw_target *tgt = engine;
    struct gw_unpacking *unpacking = tgt->unpacking;
    struct gw_error err = GW_ERROR_INIT;
    if (tgt->step != GW_TGT_ACTIVE || tgt->final_joined) {
        gw_packet_free(packet);
        return;
    }
    if (unpacking->count == GW_PACKETS_AHEAD_MAX) {
        gw_fail(&err, -EPROTO, "PACKET: more than %u wait to be loaded", GW_PACKETS_AHEAD_MAX);
        gw_packet_free(packet);
        gw_target_fail(tgt, &err);
        return;
    }
    packet->next = NULL;
    *unpacking->last = packet;
    unpacking->last = &packet->next;
    unpacking->count++;
    gw_target_load_packets(tgt);
}
