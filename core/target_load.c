// SPDX-License-Identifier: MIT
/* The savevm stream at the target, item by item and in order. RAM END is accepted only after the
 * final fence of every page endpoint has been joined (rule 5); then every key is revoked, then the
 * digest is taken, and only then is a device loaded (rule 10), but for what devices send before the pause
 * (target_devices.c). Whole items wait here, off the peer's credit, while one is being worked on. */
#include "core/target.h"

#include "core/base/alloc.h"
#include "core/base/bytes.h"

#include <string.h>

/* More than any stream has (control/order.c): sections, header, RAM and end mark. What waits is held off
 * the peer's credit by its bytes; this bounds what many small ones cost besides. */
#define ITEMS_WAITING_MAX (16384u + 8u)

/* ---- joining ----------------------------------------------------------------------------------- */

static void say_joined(struct gw_target *tgt, uint32_t number)
{
    struct gw_message msg = {.type = GW_MSG_JOINED};
    msg.u.number = number;
    gw_target_say(tgt, &msg);
}

static void joined(struct gw_target *tgt)
{
    struct gw_error err = GW_ERROR_INIT;
    tgt->fence_count = 0;
    if (tgt->fence_final && !gw_target_packets_are_loaded(tgt)) {
        gw_fail(&err, -EPROTO,
                "PACKET: the last fence came before all device state beside the stream was loaded");
        gw_target_fail(tgt, &err);
        return;
    }
    if (tgt->fence_final)
        tgt->final_joined = true;
    say_joined(tgt, tgt->fence);
    gw_target_next_item(tgt);
}

void gw_target_on_fenced(void *engine, unsigned owner, uint32_t number, bool final)
{
    struct gw_target *tgt = engine;
    struct gw_error err = GW_ERROR_INIT;
    if (tgt->step != GW_TGT_ACTIVE)
        return;
    if (tgt->fence_count == 0) {
        if (number != tgt->fence + 1 || tgt->final_joined) {
            gw_fail(&err, -EPROTO, "page endpoint %u: fence %u after fence %u%s", owner + 1, number,
                    tgt->fence, tgt->final_joined ? ", the last one" : "");
            gw_target_fail(tgt, &err);
            return;
        }
        tgt->fence = number;
        tgt->fence_final = final;
    } else if (number != tgt->fence || final != tgt->fence_final) {
        gw_fail(&err, -EPROTO, "page endpoint %u: fence %u while fence %u is joined", owner + 1,
                number, tgt->fence);
        gw_target_fail(tgt, &err);
        return;
    }
    if (tgt->page_fence[owner] == number) {
        gw_fail(&err, -EPROTO, "page endpoint %u: fence %u twice", owner + 1, number);
        gw_target_fail(tgt, &err);
        return;
    }
    tgt->page_fence[owner] = number;
    if (++tgt->fence_count == tgt->reply.endpoints)
        joined(tgt);
}

void gw_target_on_page_lost(void *engine, unsigned owner, const struct gw_error *err)
{
    struct gw_target *tgt = engine;
    (void)owner;
    if (gw_target_wires_lost(tgt, err) || tgt->final_joined) /* afterwards nothing travels there */
        return;
    gw_target_fail(tgt, err);
}

/* ---- revoke, digest -------------------------------------------------------------------------------- */

static void digest_run(struct gw_job *job)
{
    struct gw_target *tgt = GW_CONTAINER_OF(job, struct gw_target, work.job);
    uint64_t begun = gw_clock_ns();
    gw_error_clear(&tgt->work.err);
    tgt->work.rc = gw_ram_digest(tgt->ram, tgt->digest, NULL, &tgt->work.err);
    tgt->work.took_ns = gw_clock_ns() - begun;
}

static void digest_done(struct gw_mail *mail, void *engine)
{
    struct gw_target *tgt = engine;
    (void)mail;
    tgt->work.busy = false;
    if (tgt->step != GW_TGT_DIGEST)
        return;
    if (tgt->work.rc < 0) {
        gw_target_fail(tgt, &tgt->work.err);
        return;
    }
    tgt->digest_ns = tgt->work.took_ns;
    pthread_mutex_lock(&tgt->stats_lock);
    memcpy(tgt->stats.digest, tgt->digest, sizeof(tgt->digest));
    tgt->stats.has_digest = true;
    pthread_mutex_unlock(&tgt->stats_lock);
    tgt->step = GW_TGT_LOAD;
    gw_target_next_item(tgt);
}

static void begin_revoke(struct gw_target *tgt)
{
    gw_target_status(tgt, GW_STATUS_DEVICE);
    tgt->step = GW_TGT_REVOKE;
    tgt->revoke_begun_ns = gw_clock_ns();
    tgt->revoked_count = 0;
    for (unsigned i = 0; i < tgt->reply.endpoints; i++)
        gw_page_in_revoke(tgt->pages[i]);
}

void gw_target_on_revoked(void *engine, unsigned owner)
{
    struct gw_target *tgt = engine;
    (void)owner;
    if (tgt->step != GW_TGT_REVOKE || ++tgt->revoked_count < tgt->reply.endpoints)
        return;
    tgt->revoke_ns = gw_clock_ns() - tgt->revoke_begun_ns;
    if (tgt->hello.flags & GW_HELLO_DIGEST) {
        tgt->step = GW_TGT_DIGEST;
        gw_target_post(tgt, &tgt->work, digest_run, digest_done);
        return;
    }
    tgt->step = GW_TGT_LOAD;
    gw_target_next_item(tgt);
}

/* ---- items ------------------------------------------------------------------------------------------- */

void gw_target_drop_items(struct gw_target *tgt)
{
    gw_free(tgt->item);
    tgt->item = NULL;
    tgt->item_room = 0;
    tgt->items_waiting = 0;
    while (tgt->items_first) {
        struct gw_item *item = tgt->items_first;
        tgt->items_first = item->next;
        gw_free(item);
    }
    tgt->items_last = &tgt->items_first;
    gw_target_drop_loads(tgt);
    gw_stream_order_free(tgt->order);
    tgt->order = NULL;
}

/* What a session may make this side hold, besides guest memory and its bits: 64 MiB in all
 * (docs/protocol.md, section 6). What is taken by its connections and its blocks, a section being
 * assembled cannot have; the block table itself always fits. Who raised x-section-max above the whole
 * has said what a session may take. */
#define SESSION_BYTES (UINT64_C(64) << 20)
#define SESSION_FIXED_BYTES (UINT64_C(12) << 20) /* control, items that wait, messages read ahead */
#define PAGE_ENDPOINT_BYTES (UINT64_C(640) << 10)
#define BLOCK_BYTES UINT64_C(1024) /* with its offer, and what the heap keeps of both */
#define BLOCK_TABLE_ENTRY_BYTES UINT64_C(288)
#define SECTION_BYTES_LEAST (UINT64_C(4) << 20)
#define ITEM_BYTES_DOUBLED (UINT64_C(1) << 20)

uint64_t gw_target_section_grant(const struct gw_target *tgt, const struct gw_hello *hello)
{
    uint64_t asked = tgt->params.section_bytes_max;
    uint64_t blocks = gw_min_u64(hello->blocks_max, GW_BLOCKS_MAX);
    uint64_t taken = SESSION_FIXED_BYTES + blocks * BLOCK_BYTES +
                     gw_min_u64(hello->endpoints, 255) * PAGE_ENDPOINT_BYTES;
    uint64_t left = taken < SESSION_BYTES ? SESSION_BYTES - taken : 0;
    if (asked > SESSION_BYTES)
        return asked;
    left = gw_max_u64(left, SECTION_BYTES_LEAST);
    left = gw_max_u64(left, blocks * BLOCK_TABLE_ENTRY_BYTES + GW_PAGE_BYTES);
    return gw_min_u64(asked, left);
}

/* Doubling; but a long section has all its room at once (what is not touched costs nothing), since to
 * move it into greater room takes both. */
static uint64_t item_room(uint64_t room, uint64_t bytes_max)
{
    uint64_t next = room < ITEM_BYTES_DOUBLED ? room * 2 : gw_max_u64(room * 2, SESSION_BYTES);
    return gw_min_u64(next, bytes_max);
}

static int append(struct gw_target *tgt, struct gw_span data, struct gw_error *err)
{
    size_t bytes_max = tgt->reply.section_bytes_max; /* of a whole item: the source's writer too */
    size_t bytes = tgt->item ? tgt->item->bytes : 0;
    if (data.bytes > bytes_max - bytes) {
        gw_fail_code(err, -E2BIG, GW_CODE_LIMIT,
                     "a section is longer than the %zu bytes that this session may (x-section-max)",
                     bytes_max);
        gw_error_hint(err, "raise x-section-max at the target, above %llu if need be",
                      (unsigned long long)SESSION_BYTES);
        return -E2BIG;
    }
    size_t wanted = bytes + data.bytes;
    if (wanted == 0)
        return gw_fail(err, -EPROTO, "an empty item of the stream");
    if (wanted > tgt->item_room) {
        size_t room = gw_max_u64(wanted, item_room(tgt->item_room, bytes_max));
        struct gw_item *item = gw_realloc(tgt->item, 1, sizeof(*item) + room);
        if (!item)
            return gw_fail(err, -ENOMEM, "a section of %zu bytes", wanted);
        item->next = NULL;
        tgt->item = item;
        tgt->item_room = room;
    }
    gw_assert(tgt->item);
    if (data.bytes)
        memcpy(tgt->item->data + bytes, data.data, data.bytes);
    tgt->item->bytes = wanted;
    return 0;
}

static int keep_item(struct gw_target *tgt, struct gw_error *err)
{
    if (tgt->items_waiting == ITEMS_WAITING_MAX)
        return gw_fail_code(err, -E2BIG, GW_CODE_LIMIT, "more than %u items of the stream wait",
                            ITEMS_WAITING_MAX);
    struct gw_item *item = gw_realloc(tgt->item, 1, sizeof(*item) + tgt->item->bytes);
    if (!item)
        item = tgt->item; /* the room it grew by stays with it */
    tgt->item = NULL;
    tgt->item_room = 0;
    tgt->items_waiting++;
    *tgt->items_last = item;
    tgt->items_last = &item->next;
    gw_channel_hold(tgt->channel, item->bytes);
    return 0;
}

void gw_target_on_stream(struct gw_target *tgt, const struct gw_message *msg)
{
    struct gw_error err = GW_ERROR_INIT;
    int rc = 0;
    if (tgt->step < GW_TGT_ACTIVE || tgt->step > GW_TGT_LOAD || tgt->prepare_seen)
        rc = gw_fail(&err, -EPROTO, "STREAM where none may be");
    if (rc == 0)
        rc = append(tgt, msg->u.data, &err);
    if (rc == 0 && (msg->flags & GW_MSG_FLAG_LAST))
        rc = keep_item(tgt, &err);
    if (rc < 0) {
        gw_target_fail(tgt, &err);
        return;
    }
    gw_target_next_item(tgt);
}

/* ---- taking ------------------------------------------------------------------------------------------- */

/* Memory's own section: the library's handlers, which need no other thread. */
static int take_ram(struct gw_target *tgt, const struct gw_section *section, struct gw_reader *body,
                    struct gw_error *err)
{
    int rc = gw_savevm_load(&tgt->devices, section, body, err);
    if (rc < 0 || section->type != GW_ITEM_END)
        return rc < 0 ? rc : 0;
    tgt->ram_ended = true;
    begin_revoke(tgt);
    return 0;
}

static int take_section(struct gw_target *tgt, struct gw_item *item, struct gw_section *section,
                        struct gw_reader *body, bool *kept, struct gw_error *err)
{
    int rc = gw_target_check_section(tgt, section, err);
    if (rc < 0)
        return rc;
    if (strcmp(section->idstr, GW_RAM_NAME) == 0)
        return take_ram(tgt, section, body, err);
    gw_target_gather(tgt, item, section, body);
    *kept = true;
    return 0;
}

static int take_eof(struct gw_target *tgt, struct gw_error *err)
{
    const struct gw_section *open = gw_stream_order_open(tgt->order);
    if (open)
        return gw_fail(err, -EPROTO, "section '%s' instance %u has no end at the end of the stream",
                       open->idstr, open->instance_id);
    tgt->eof_seen = true;
    return 0;
}

/* *@kept: a device will be loaded from it. */
static int take_item(struct gw_target *tgt, struct gw_item *item, bool *kept, struct gw_error *err)
{
    enum gw_item_type type;
    struct gw_section section = {0};
    struct gw_reader body;
    char machine[256];
    int rc = gw_stream_read_item(item->data, item->bytes, &type, machine, &section, &body, err);
    if (rc == 0)
        rc = gw_stream_order_next(tgt->order, type, &section, err);
    if (rc < 0)
        return rc;
    tgt->items_taken++;
    switch (type) {
    case GW_ITEM_CONFIGURATION:
        if (strcmp(machine, tgt->hello.machine) != 0)
            return gw_fail(err, -EPROTO, "configuration: machine '%s', hello said '%s'", machine,
                           tgt->hello.machine);
        return 0;
    case GW_ITEM_START:
    case GW_ITEM_PART:
    case GW_ITEM_END:
    case GW_ITEM_FULL:
        return take_section(tgt, item, &section, &body, kept, err);
    case GW_ITEM_EOF:
        return take_eof(tgt, err);
    case GW_ITEM_DESCRIPTION:
        return 0; /* for who reads recordings: nothing here depends on it */
    case GW_ITEM_COMMAND:
        break;
    }
    return gw_fail(err, -EPROTO, "stream item 0x%02x is not known on this wire", type);
}

static void maybe_prepared(struct gw_target *tgt);

/* Behind what is to be loaded: only what is loaded as well. */
static bool may_follow(const struct gw_target *tgt, enum gw_item_type type)
{
    if (tgt->load_count == 0)
        return true;
    bool is_section = type == GW_ITEM_START || type == GW_ITEM_PART || type == GW_ITEM_FULL ||
                      (type == GW_ITEM_END && tgt->step == GW_TGT_LOAD);
    return is_section && gw_target_may_gather(tgt);
}

static bool may_take(const struct gw_target *tgt)
{
    bool at_workers = !gw_target_packets_are_quiet(tgt);
    if (!tgt->items_first || tgt->is_loading ||
        !may_follow(tgt, (enum gw_item_type)tgt->items_first->data[0]))
        return false;
    if (tgt->step == GW_TGT_LOAD)
        return true;
    if (tgt->step != GW_TGT_ACTIVE || at_workers)
        return false; /* of one device, one callback at a time */
    /* RAM END waits for the final join; what devices send before the pause need not. */
    return tgt->final_joined || tgt->items_first->data[0] != GW_ITEM_END;
}

void gw_target_next_item(struct gw_target *tgt)
{
    struct gw_error err = GW_ERROR_INIT;
    while (may_take(tgt)) {
        struct gw_item *item = tgt->items_first;
        gw_assert(item);
        tgt->items_first = item->next;
        if (!tgt->items_first)
            tgt->items_last = &tgt->items_first;
        tgt->items_waiting--;
        if (tgt->channel)
            gw_channel_release(tgt->channel, item->bytes);
        bool kept = false;
        int rc = take_item(tgt, item, &kept, &err);
        if (!kept)
            gw_free(item);
        if (rc < 0) {
            gw_target_fail(tgt, &err);
            return;
        }
    }
    if (tgt->load_count > 0 && !tgt->is_loading)
        gw_target_load(tgt);
    gw_target_load_packets(tgt);
    maybe_prepared(tgt);
}

/* ---- PREPARE ------------------------------------------------------------------------------------------- */

static int check_digest(struct gw_target *tgt, struct gw_error *err)
{
    if (!(tgt->hello.flags & GW_HELLO_DIGEST))
        return 0;
    if (tgt->source_has_digest && memcmp(tgt->source_digest, tgt->digest, GW_DIGEST_BYTES) == 0)
        return 0;
    gw_fail_code(err, -EBADMSG, GW_CODE_DIGEST, "memory here differs from the source's");
    gw_error_hint(err, "this is a fault of godwit or of the host's memory: keep the logs of both "
                       "sides; the guest goes on at the source");
    return -EBADMSG;
}

static void maybe_prepared(struct gw_target *tgt)
{
    struct gw_error err = GW_ERROR_INIT;
    if (!tgt->prepare_seen || !tgt->eof_seen || tgt->load_count > 0 || tgt->items_first ||
        tgt->step != GW_TGT_LOAD)
        return;
    if (tgt->prepare_fence != tgt->fence) {
        gw_fail(&err, -EPROTO, "PREPARE names fence %u, the final fence was %u", tgt->prepare_fence,
                tgt->fence);
        gw_target_fail(tgt, &err);
        return;
    }
    if (check_digest(tgt, &err) < 0) {
        gw_target_fail(tgt, &err);
        return;
    }
    if (!gw_target_complete_devices(tgt))
        return;
    tgt->step = GW_TGT_SETTLE;
    gw_target_event(tgt, GW_HTE_LOADED);
}

void gw_target_on_prepare(struct gw_target *tgt, const struct gw_message *msg)
{
    struct gw_error err = GW_ERROR_INIT;
    if (tgt->prepare_seen || msg->u.prepare.token.incarnation != tgt->incarnation) {
        gw_fail(&err, -EPROTO, "PREPARE %s",
                tgt->prepare_seen ? "came twice" : "names another incarnation of this target");
        gw_target_fail(tgt, &err);
        return;
    }
    tgt->prepare_seen = true;
    tgt->prepare_fence = msg->u.prepare.fence;
    tgt->token = msg->u.prepare.token;
    tgt->source_has_digest = msg->u.prepare.has_digest;
    memcpy(tgt->source_digest, msg->u.prepare.digest, sizeof(tgt->source_digest));
    maybe_prepared(tgt);
}
