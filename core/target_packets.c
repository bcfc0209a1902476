// SPDX-License-Identifier: MIT
/* Device state beside the stream, at the target: PARTs that came over page endpoints in the pause, each loaded on a
 * worker once everything before it is: what the stream had before the pause, and the device's packets with
 * lower numbers. Until the stream has come so far a packet is nobody's; then it is its device's, in order. */
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
    unsigned loader_count;
    struct gw_packet *first, **last; /* nobody's yet, as they came */
    unsigned count;                  /* that wait, here and at devices */
    uint64_t loaded, loaded_bytes;
};

/* ---- life ---------------------------------------------------------------------------------------------- */

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
    for (unsigned i = 0; i < tgt->devices.count && unpacking->loader_count < LOADERS_MAX; i++)
        unpacking->loader_count += (tgt->devices.list[i].flags & GW_DEVICE_WORKER) != 0;
    tgt->unpacking = unpacking;
    return gw_pool_new(unpacking->loader_count, "gw/tgt/dev", &unpacking->workers, err);
}

bool gw_target_packets_are_quiet(const struct gw_target *tgt)
{
    for (unsigned i = 0; tgt->unpacking && i < LOADERS_MAX; i++) {
        if (tgt->unpacking->loaders[i].job.busy)
            return false;
    }
    return true;
}

bool gw_target_packets_are_loaded(const struct gw_target *tgt)
{
    return !tgt->unpacking || (tgt->unpacking->count == 0 && gw_target_packets_are_quiet(tgt));
}

static void drop_list(struct gw_packet *first)
{
    while (first) {
        struct gw_packet *packet = first;
        first = packet->next;
        gw_packet_free(packet);
    }
}

void gw_target_packets_close(struct gw_target *tgt)
{
    struct gw_unpacking *unpacking = tgt->unpacking;
    if (!unpacking)
        return;
    gw_mail_drain(&tgt->inbox, tgt); /* what page endpoints had posted: each is dropped */
    gw_pool_free(unpacking->workers);
    drop_list(unpacking->first);
    for (unsigned i = 0; tgt->loadings && i < tgt->devices.count; i++) {
        drop_list(tgt->loadings[i].packets);
        tgt->loadings[i].packets = NULL;
    }
    tgt->unpacking = NULL;
    gw_free(unpacking);
}

/* ---- whose it is ---------------------------------------------------------------------------------------- */

/* The device of the packet's section, which is open; NULL with err. */
static struct gw_loading *find_loading(struct gw_target *tgt, const struct gw_packet *packet,
                                       struct gw_error *err)
{
    const struct gw_section *start = gw_stream_order_find(tgt->order, packet->section);
    if (!start) {
        gw_fail(err, -EPROTO, "PACKET: section %" PRIu32 " is not open", packet->section);
        return NULL;
    }
    const struct gw_device_desc *device =
        gw_devices_find(&tgt->devices, start->idstr, start->instance_id);
    if (device && device->flags & GW_DEVICE_WORKER)
        return &tgt->loadings[device - tgt->devices.list];
    gw_fail(err, -EPROTO, "PACKET: section '%s' takes none", start->idstr);
    return NULL;
}

/* In order of numbers, which is how most of them come. */
static int insert(struct gw_loading *loading, struct gw_packet *packet, struct gw_error *err)
{
    struct gw_packet **at = &loading->packets;
    bool is_there = packet->number <= loading->packet + loading->loads_packet;
    if (loading->packets && loading->packets_last->number < packet->number)
        at = &loading->packets_last->next;
    while (*at && (*at)->number < packet->number)
        at = &(*at)->next;
    if (is_there || (*at && (*at)->number == packet->number))
        return gw_fail(err, -EPROTO, "PACKET %" PRIu64 " of section %" PRIu32 " comes twice",
                       packet->number, packet->section);
    packet->next = *at;
    *at = packet;
    if (!packet->next)
        loading->packets_last = packet;
    return 0;
}

static void load_next(struct gw_target *tgt, struct gw_loading *loading);

/* @packet becomes its device's, or the session ends. */
static void give(struct gw_target *tgt, struct gw_packet *packet)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_loading *loading = find_loading(tgt, packet, &err);
    if (loading && insert(loading, packet, &err) == 0) {
        load_next(tgt, loading);
        return;
    }
    tgt->unpacking->count--;
    gw_packet_free(packet);
    gw_target_fail(tgt, &err);
}

/* ---- loading -------------------------------------------------------------------------------------------- */

static int read_part(struct gw_target *tgt, struct loader *loader, struct gw_error *err)
{
    char machine[256];
    enum gw_item_type type;
    const struct gw_packet *packet = loader->packet;
    const struct gw_section *start = gw_stream_order_find(tgt->order, packet->section);
    gw_assert(start); /* nothing ends a section before the last fence */
    int rc = gw_stream_read_item(packet->data, packet->bytes, &type, machine, &loader->section,
                                 &loader->body, err);
    if (rc < 0)
        return gw_error_prefix(err, "PACKET of section %" PRIu32, packet->section);
    if (type != GW_ITEM_PART || loader->section.section_id != packet->section)
        return gw_fail(err, -EPROTO, "PACKET of section %" PRIu32 ": it holds something else",
                       packet->section);
    loader->section = *start;
    loader->section.type = type;
    return 0;
}

static void load_run(struct gw_job *job)
{
    struct loader *loader =
        GW_CONTAINER_OF(GW_CONTAINER_OF(job, struct gw_target_job, job), struct loader, job);
    struct gw_error *err = &loader->job.err;
    gw_error_clear(err);
    loader->job.rc =
        gw_savevm_load(&loader->job.tgt->devices, &loader->section, &loader->body, err);
    if (loader->job.rc > 0)
        loader->job.rc =
            gw_fail_code(err, -EPROTO, GW_CODE_DEVICE,
                         "device '%s' instance %" PRIu32 " acknowledges a pause that has begun",
                         loader->section.idstr, loader->section.instance_id);
}

static void load_any(struct gw_target *tgt)
{
    for (unsigned i = 0; i < tgt->devices.count; i++)
        load_next(tgt, &tgt->loadings[i]);
}

static void load_done(struct gw_mail *mail, void *engine)
{
    struct gw_target *tgt = engine;
    struct gw_unpacking *unpacking = tgt->unpacking;
    struct gw_message msg = {.type = GW_MSG_PACKETS_LOADED};
    struct loader *loader =
        GW_CONTAINER_OF(GW_CONTAINER_OF(mail, struct gw_target_job, job.done), struct loader, job);
    loader->job.busy = false;
    unpacking->loaded++;
    unpacking->loaded_bytes += gw_packet_charge(loader->packet->bytes);
    loader->loading->packet = loader->packet->number;
    loader->loading->loads_packet = false;
    gw_packet_free(loader->packet);
    loader->packet = NULL;
    if (tgt->step != GW_TGT_ACTIVE)
        return;
    if (loader->job.rc < 0) {
        gw_target_fail(tgt, &loader->job.err);
        return;
    }
    msg.u.packets.count = unpacking->loaded;
    msg.u.packets.bytes = unpacking->loaded_bytes;
    gw_target_say(tgt, &msg);
    gw_target_next_item(tgt); /* which loads what may be, too */
}

static struct loader *free_loader(struct gw_unpacking *unpacking)
{
    for (unsigned i = 0; i < unpacking->loader_count; i++) {
        if (!unpacking->loaders[i].packet)
            return &unpacking->loaders[i];
    }
    return NULL;
}

/* The device's next packet, if it is there, and may be loaded, and there is a loader. */
static void load_next(struct gw_target *tgt, struct gw_loading *loading)
{
    struct gw_packet *packet = loading->packets;
    struct gw_error err = GW_ERROR_INIT;
    if (!packet || loading->loads_packet || packet->number != loading->packet + 1 ||
        tgt->step != GW_TGT_ACTIVE || tgt->load_count > 0)
        return;
    struct loader *loader = free_loader(tgt->unpacking);
    if (!loader)
        return;
    loading->packets = packet->next;
    tgt->unpacking->count--;
    loader->packet = packet;
    loader->loading = loading;
    if (read_part(tgt, loader, &err) < 0) {
        loader->packet = NULL;
        gw_packet_free(packet);
        gw_target_fail(tgt, &err);
        return;
    }
    loading->loads_packet = true;
    gw_target_post_to(tgt, tgt->unpacking->workers, &loader->job, load_run, load_done);
}

/* ---- as they come ---------------------------------------------------------------------------------------- */

/* What the stream had before may have been loaded by now. */
void gw_target_load_packets(struct gw_target *tgt)
{
    struct gw_unpacking *unpacking = tgt->unpacking;
    if (!unpacking || tgt->load_count > 0)
        return;
    struct gw_packet **at = &unpacking->first;
    while (*at && tgt->step == GW_TGT_ACTIVE) {
        struct gw_packet *packet = *at;
        if (packet->items > tgt->items_taken) {
            at = &packet->next;
            continue;
        }
        *at = packet->next;
        if (!*at)
            unpacking->last = at;
        give(tgt, packet);
    }
    if (tgt->step == GW_TGT_ACTIVE)
        load_any(tgt);
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
    unpacking->count++;
    if (packet->items <= tgt->items_taken && tgt->load_count == 0) {
        give(tgt, packet);
        return;
    }
    packet->next = NULL;
    *unpacking->last = packet;
    unpacking->last = &packet->next;
}
