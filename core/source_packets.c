// SPDX-License-Identifier: MIT
/* Device state beside the stream, at the source. Each device that takes part has a saver: its
 * complete_precopy runs on a worker, a section at a time, which then goes to one page endpoint, the next one
 * to the next. What was written and is not loaded yet is at most what the target granted; a section that is
 * made and does not fit waits here, and its device with it. What the last call wrote ends the section in the
 * stream. */
#include "core/source_packets.h"

#include "core/base/alloc.h"
#include "core/base/bytes.h"

#include <inttypes.h>

#define WORKERS_MAX 4u /* drivers are waited for: as many on one processor */
#define PART_BYTES ((UINT64_C(1) << 20) - (16u << 10))

struct saver {
    struct gw_source_job job;
    unsigned device;             /* of the list */
    uint64_t number;             /* of its last packet */
    uint64_t bytes_max;          /* of the call at the worker */
    struct gw_source_item *item; /* the worker's while it runs; then what waits to go, or the END */
    bool is_done;
};

struct sent { /* a packet between here and the wire */
    struct gw_page_packet packet;
    struct sent *next;
    struct gw_source_item *item;
};

struct gw_packing {
    struct gw_pool *workers;
    struct saver *savers;
    unsigned count, left, next; /* left: not done; next: whose turn it is */
    unsigned endpoint;          /* that gets the next packet */
    struct sent *sent;
    _Atomic bool given_up; /* the guest is taken back: who waits for a worker is not called */
    uint64_t items;        /* of the stream, from before the pause */
    uint64_t made, made_bytes, loaded, loaded_bytes, moved;
};

/* ---- life -------------------------------------------------------------------------------------------- */

static bool goes_beside(const struct gw_source *src, unsigned i)
{
    const struct gw_device_desc *device = &src->devices.list[i];
    return device->flags & GW_DEVICE_WORKER && src->handlings[i].is_active &&
           device->ops->complete_precopy && src->granted.packet_bytes_max > 0;
}

int gw_source_packets_open(struct gw_source *src, struct gw_error *err)
{
    unsigned count = 0;
    for (unsigned i = 1; i < src->devices.count; i++)
        count += goes_beside(src, i);
    if (count == 0)
        return 0;
    struct gw_packing *packing = gw_zalloc(1, sizeof(*packing));
    struct saver *savers = gw_zalloc(count, sizeof(*savers));
    if (!packing || !savers) {
        gw_free(packing);
        gw_free(savers);
        return gw_fail(err, -ENOMEM, "device state");
    }
    packing->savers = savers;
    for (unsigned i = 1; i < src->devices.count; i++) {
        src->handlings[i].goes_beside = goes_beside(src, i);
        if (src->handlings[i].goes_beside)
            savers[packing->count++].device = i;
    }
    packing->left = count;
    src->packing = packing;
    return gw_pool_new((unsigned)gw_min_u64(count, WORKERS_MAX), "gw/src/dev", &packing->workers,
                       err);
}

bool gw_source_packs(const struct gw_source *src)
{
    return src->packing != NULL;
}

static void drop_sent(struct gw_packing *packing)
{
    while (packing->sent) {
        struct sent *sent = packing->sent;
        packing->sent = sent->next;
        gw_source_item_free(sent->item);
        gw_free(sent);
    }
}

/* What is in the inbox already would else be delivered when it is gone. */
void gw_source_packets_stop(struct gw_source *src)
{
    struct gw_packing *packing = src->packing;
    for (struct sent *sent = packing ? packing->sent : NULL; sent; sent = sent->next)
        gw_inbox_remove(&src->inbox, &sent->packet.over.item);
}

void gw_source_packets_close(struct gw_source *src)
{
    struct gw_packing *packing = src->packing;
    src->packing = NULL;
    if (!packing)
        return;
    gw_pool_free(packing->workers);
    drop_sent(packing);
    for (unsigned i = 0; i < packing->count; i++)
        gw_source_item_free(packing->savers[i].item);
    gw_free(packing->savers);
    gw_free(packing);
}

void gw_source_packets_give_up(struct gw_source *src)
{
    if (src->packing)
        atomic_store_explicit(&src->packing->given_up, true, memory_order_relaxed);
}

bool gw_source_packets_are_quiet(const struct gw_source *src)
{
    for (unsigned i = 0; src->packing && i < src->packing->count; i++) {
        if (src->packing->savers[i].job.busy)
            return false;
    }
    return true;
}

uint64_t gw_source_packets_moved(const struct gw_source *src)
{
    return src->packing ? src->packing->moved : 0;
}

bool gw_source_packets_are_loaded(const struct gw_source *src)
{
    const struct gw_packing *packing = src->packing;
    return !packing || (packing->left == 0 && packing->loaded == packing->made);
}

/* ---- making -------------------------------------------------------------------------------------------- */

static struct saver *saver_of(struct gw_source_job *job)
{
    return GW_CONTAINER_OF(job, struct saver, job);
}

static void save_run(struct gw_job *job)
{
    struct saver *saver = saver_of(GW_CONTAINER_OF(job, struct gw_source_job, job));
    struct gw_source *src = saver->job.src;
    uint64_t begun = gw_clock_ns();
    gw_error_clear(&saver->job.err);
    if (atomic_load_explicit(&src->packing->given_up, memory_order_relaxed)) {
        saver->job.rc = -ECANCELED; /* nobody looks at it */
        return;
    }
    saver->job.rc =
        gw_savevm_complete(&saver->item->w, &src->devices.list[saver->device],
                           gw_device_section_id(saver->device), saver->bytes_max, &saver->job.err);
    saver->job.took_ns = gw_clock_ns() - begun;
}

static void save_done(struct gw_mail *mail, void *engine)
{
    struct gw_source *src = engine;
    struct saver *saver = saver_of(GW_CONTAINER_OF(mail, struct gw_source_job, job.done));
    saver->job.busy = false;
    if (src->step != GW_SRC_FINAL_SYNC && src->step != GW_SRC_FINAL_SEND) {
        gw_source_back_out(src); /* which has waited for this */
        return;
    }
    if (saver->job.rc < 0) {
        gw_source_fail(src, &saver->job.err);
        return;
    }
    src->packing->moved++;
    src->turn_ns = gw_source_pay(src, saver->item->w.bytes, gw_clock_ns());
    saver->is_done = saver->job.rc == GW_DEVICE_DONE;
    src->packing->left -= saver->is_done;
    gw_source_maybe_last(src);
}

static int make(struct gw_source *src, struct saver *saver, struct gw_error *err)
{
    saver->item = gw_source_make_item(src, err);
    if (!saver->item)
        return -ENOMEM;
    saver->bytes_max =
        gw_source_turn_bytes(src, gw_min_u64(PART_BYTES, src->granted.packet_bytes_max / 4));
    gw_source_post_to(src, src->packing->workers, &saver->job, save_run, save_done);
    return 0;
}

/* ---- sending --------------------------------------------------------------------------------------------- */

static void sent_over(struct gw_mail *mail, void *engine)
{
    struct gw_source *src = engine;
    struct sent *over =
        GW_CONTAINER_OF(GW_CONTAINER_OF(mail, struct gw_page_packet, over), struct sent, packet);
    struct sent **at = &src->packing->sent;
    while (*at != over)
        at = &(*at)->next;
    *at = over->next;
    src->packing->moved++;
    gw_source_item_free(over->item);
    gw_free(over);
}

static int check_fits(const struct gw_source *src, const struct saver *saver, struct gw_error *err)
{
    const struct gw_device_desc *device = &src->devices.list[saver->device];
    if (gw_packet_charge(saver->item->w.bytes) <= src->granted.packet_bytes_max)
        return 0;
    gw_fail_code(err, -E2BIG, GW_CODE_LIMIT,
                 "device '%s' instance %" PRIu32 ": a section of %zu bytes, %" PRIu64
                 " bytes of such state may be under way",
                 device->name, device->instance_id, saver->item->w.bytes,
                 src->granted.packet_bytes_max);
    gw_error_hint(err, "raise x-device-buffer at both ends, or set it to 0");
    return -E2BIG;
}

/* 1: it went; 0: not yet. */
static int send(struct gw_source *src, struct saver *saver, struct gw_error *err)
{
    struct gw_packing *packing = src->packing;
    uint64_t charge = gw_packet_charge(saver->item->w.bytes);
    int rc = check_fits(src, saver, err);
    if (rc < 0)
        return rc;
    if (packing->made - packing->loaded >= GW_PACKETS_AHEAD_MAX ||
        packing->made_bytes - packing->loaded_bytes + charge > src->granted.packet_bytes_max)
        return 0; /* PACKETS_LOADED wakes us */
    struct sent *sent = gw_zalloc(1, sizeof(*sent));
    if (!sent)
        return gw_fail(err, -ENOMEM, "device state");
    sent->packet = (struct gw_page_packet){.section = gw_device_section_id(saver->device),
                                           .number = ++saver->number,
                                           .items = packing->items,
                                           .data = saver->item->w.data,
                                           .bytes = saver->item->w.bytes,
                                           .over.deliver = sent_over};
    sent->item = saver->item;
    sent->next = packing->sent;
    packing->sent = sent;
    saver->item = NULL;
    packing->made++;
    packing->made_bytes += charge;
    packing->moved++;
    gw_page_out_packet(src->pages[packing->endpoint++ % src->page_count], &sent->packet);
    return 1;
}

/* ---- the step ---------------------------------------------------------------------------------------------- */

void gw_source_packets_begin(struct gw_source *src)
{
    if (!src->packing)
        return;
    src->packing->items = src->items_said + src->items.count;
    gw_source_packets_step(src, src->sync_begun_ns);
}

/* Return: when there may be more to do here, but for what wakes us anyway. */
static uint64_t step_saver(struct gw_source *src, struct saver *saver, uint64_t now_ns)
{
    struct gw_error err = GW_ERROR_INIT;
    int rc = 1;
    if (saver->job.busy || saver->is_done)
        return GW_NEVER_NS;
    if (saver->item)
        rc = send(src, saver, &err);
    if (rc == 0)
        return GW_NEVER_NS;
    uint64_t paid_ns = gw_source_paid_ns(src, src->turn_ns);
    if (rc > 0 && now_ns < paid_ns)
        return paid_ns;
    if (rc > 0)
        rc = make(src, saver, &err);
    if (rc < 0)
        gw_source_fail(src, &err);
    return GW_NEVER_NS;
}

uint64_t gw_source_packets_step(struct gw_source *src, uint64_t now_ns)
{
    struct gw_packing *packing = src->packing;
    uint64_t wake_ns = GW_NEVER_NS;
    if (!packing)
        return wake_ns;
    if (!gw_source_stream_until(src, packing->items)) /* it waits for them */
        wake_ns = now_ns + GW_NS_PER_MS;
    unsigned first = packing->next++;
    for (unsigned n = 0; n < packing->count; n++) {
        if (src->step != GW_SRC_FINAL_SYNC && src->step != GW_SRC_FINAL_SEND)
            return wake_ns; /* it failed */
        struct saver *saver = &packing->savers[(first + n) % packing->count];
        wake_ns = gw_min_u64(wake_ns, step_saver(src, saver, now_ns));
    }
    return wake_ns;
}

void gw_source_on_packets_loaded(struct gw_source *src, const struct gw_message *msg)
{
    struct gw_packing *packing = src->packing;
    struct gw_error err = GW_ERROR_INIT;
    uint64_t count = msg->u.packets.count, bytes = msg->u.packets.bytes;
    if (!packing || count > packing->made || count <= packing->loaded ||
        bytes > packing->made_bytes || bytes <= packing->loaded_bytes ||
        (count == packing->made) != (bytes == packing->made_bytes)) {
        gw_fail(&err, -EPROTO,
                "PACKETS_LOADED %" PRIu64 " of %" PRIu64 " bytes, %" PRIu64 " of %" PRIu64
                " bytes were sent",
                count, bytes, packing ? packing->made : 0, packing ? packing->made_bytes : 0);
        gw_source_fail(src, &err);
        return;
    }
    packing->loaded = count;
    packing->loaded_bytes = bytes;
    packing->moved++;
    gw_source_maybe_last(src);
}

bool gw_source_packets_end(struct gw_source *src)
{
    struct gw_packing *packing = src->packing;
    if (packing->left > 0)
        return false;
    for (unsigned i = 0; i < packing->count; i++) {
        struct saver *saver = &packing->savers[i];
        if (saver->item)
            gw_source_items_add(&src->items, saver->item);
        saver->item = NULL;
    }
    return true;
}
