// SPDX-License-Identifier: MIT
/* Set-up at the source: control endpoint, hello, page endpoints, dirty tracking, block offers. What
 * may block (connecting, starting the dirty sources) runs in pool jobs; the engine goes on beating.
 * The dirty sources are armed before anything is read; block offers go out meanwhile. */
#include "core/source.h"

#include "core/base/alloc.h"
#include "core/base/bytes.h"
#include "core/memlock.h"
#include "core/source_chunks.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define RETRY_NS (100 * GW_NS_PER_MS)
#define OFFER_BUF_BYTES (64u << 10)

/* ---- connecting ------------------------------------------------------------------------------- */

/* What one connection, or the answer to hello, may take. */
static uint64_t setup_ns(const struct gw_source *src)
{
    return gw_max_u64(src->params.connect_timeout_ms, 1000) * GW_NS_PER_MS;
}

static void connect_run(struct gw_job *job)
{
    struct gw_source *src = GW_CONTAINER_OF(job, struct gw_source, connect.job);
    struct gw_wire_config config = {
        .index = (uint16_t)src->connect.owner,
        .deadline_ns = gw_clock_ns() + setup_ns(src),
        .peer_timeout_ns = src->params.peer_timeout_ms * GW_NS_PER_MS,
        .message_bytes_max = src->connect.owner ? GW_PAGE_MESSAGE_BYTES_MAX : 0,
        .log = &src->log,
        .rdma_device = gw_params_device(src->params.rdma_device),
        .rdma_odp = src->params.rdma_odp,
        .rdma_gid = src->params.rdma_gid_index == GW_RDMA_GID_ANY
                        ? 0
                        : 1 + (unsigned)src->params.rdma_gid_index,
    };
    memcpy(config.session, src->session, sizeof(config.session));
    src->connected = NULL;
    gw_error_clear(&src->connect.err);
    struct gw_domain *dom = src->dom;
    src->connect.rc = 0;
    if (src->connect.owner) {
        if (gw_source_wires_is_trying(src)) /* there is another if this is not to be had soon */
            config.deadline_ns = gw_clock_ns() + setup_ns(src) / 2;
        src->connect.rc = gw_source_wires_domain(src, &config, &src->connect.err);
        dom = gw_source_page_dom(src);
    }
    if (src->connect.rc == 0)
        src->connect.rc =
            gw_connect(dom, &src->connect_uri, &config, &src->connected, &src->connect.err);
}

static bool is_worth_another_try(int rc)
{
    return rc == -ECONNREFUSED || rc == -ENOENT || rc == -ECONNRESET || rc == -EAGAIN ||
           rc == -EHOSTUNREACH || rc == -ENETUNREACH || rc == -ETIMEDOUT;
}

int gw_source_open_channel(struct gw_source *src, struct gw_error *err)
{
    struct gw_channel_config config = {.ep = src->control,
                                       .side = GW_CHANNEL_SOURCE,
                                       .peer_timeout_ns =
                                           src->params.peer_timeout_ms * GW_NS_PER_MS};
    src->channel = gw_channel_new(&config, err);
    return src->channel ? 0 : -ENOMEM;
}

void gw_source_close_link(struct gw_source *src)
{
    gw_channel_free(src->channel);
    src->channel = NULL;
    gw_ep_close(src->control);
    src->control = NULL;
    src->link_up = false;
    src->unsaid = 0;
}

static void say_hello(struct gw_source *src)
{
    struct gw_hello *hello = &src->hello;
    memset(hello, 0, sizeof(*hello));
    hello->version_min = hello->version_max = GW_PROTOCOL_VERSION;
    hello->flags = (src->params.digest ? GW_HELLO_DIGEST : 0) |
                   (src->has_handlers || src->has_early ? GW_HELLO_DEVICES : 0);
    hello->page_bytes = GW_PAGE_BYTES;
    hello->endpoints = (uint32_t)src->params.channels;
    hello->message_payload_max = GW_PAYLOAD_BYTES_MAX;
    hello->blocks_max = gw_ram_block_count(src->ram);
    hello->stripe_bytes = src->params.stripe_bytes;
    hello->ram_bytes = gw_ram_bytes(src->ram);
    hello->section_bytes_max = src->params.section_bytes_max;
    hello->memlock_bytes = gw_memlock_budget(gw_source_wires_offer(src, hello), hello->endpoints,
                                             src->params.registered_bytes_max);
    src->memlock_besides = gw_memlock_besides(hello->endpoints);
    hello->peer_timeout_ns = src->params.peer_timeout_ms * GW_NS_PER_MS;
    hello->settle_timeout_ns = src->params.settle_timeout_ms * GW_NS_PER_MS;
    hello->hold_timeout_ns = src->params.hold_timeout_ms * GW_NS_PER_MS;
    hello->packet_bytes_max =
        gw_devices_have_workers(&src->devices) ? gw_packet_cap(src->params.packet_bytes_max) : 0;
    hello->device_timeout_ns = src->params.device_timeout_ms * GW_NS_PER_MS;
    snprintf(hello->machine, sizeof(hello->machine), "%s", src->machine);
    snprintf(hello->agent, sizeof(hello->agent), "godwit %s", gw_version());
    struct gw_message msg = {.type = GW_MSG_HELLO};
    msg.u.hello = *hello;
    src->step = GW_SRC_HELLO;
    src->hello_until_ns = gw_clock_ns() + setup_ns(src);
    gw_source_say(src, &msg);
}

static void control_connected(struct gw_source *src)
{
    struct gw_error err = GW_ERROR_INIT;
    src->control = src->connected;
    src->connected = NULL;
    if (gw_source_open_channel(src, &err) < 0) {
        gw_source_fail(src, &err);
        return;
    }
    src->link_up = true;
    say_hello(src);
}

static void begin_track(struct gw_source *src);
static void end_track(struct gw_source *src);

static void connect_next(struct gw_source *src)
{
    src->connect_again_ns = GW_NEVER_NS;
    gw_source_connect(src);
}

static int open_regions(struct gw_source *src, struct gw_error *err);

static void page_connected(struct gw_source *src)
{
    struct gw_error err = GW_ERROR_INIT;
    if (src->page_count == 0) {
        gw_source_wires_chosen(src);
        if (open_regions(src, &err) < 0) {
            gw_source_fail(src, &err);
            gw_ep_close(src->connected);
            src->connected = NULL;
            return;
        }
    }
    unsigned owner = src->page_count;
    struct gw_page_out_config config = {
        .owner = owner,
        .ep = src->connected,
        .ram = src->ram,
        .chunks = src->chunks,
        .throttle = &src->throttle,
        .peer_timeout_ns = src->params.peer_timeout_ms * GW_NS_PER_MS,
        .packet_data_max = gw_min_u64(GW_PACKET_DATA_BYTES_MAX,
                                      src->granted.message_payload_max - GW_PACKET_HEAD_BYTES),
        .engine_inbox = &src->inbox,
        .fenced = gw_source_on_fenced,
        .lost = gw_source_on_page_lost,
    };
    src->connected = NULL;
    if (gw_page_out_start(&config, &src->pages[owner], &err) < 0) {
        gw_source_fail(src, &err);
        return;
    }
    src->page_count++;
    if (src->page_count < src->page_wanted)
        connect_next(src);
    else
        end_track(src);
}

void gw_source_connect_again(struct gw_source *src)
{
    src->step = GW_SRC_CONNECT;
    src->connect_again_ns = gw_clock_ns() + RETRY_NS;
}

static void connect_done(struct gw_mail *mail, void *engine)
{
    struct gw_source *src = engine;
    (void)mail;
    src->connect.busy = false;
    bool wanted =
        src->step == GW_SRC_CONNECT || src->step == GW_SRC_CONNECT_PAGES ||
        (src->step == GW_SRC_HANDOVER && (src->hs == GW_HS_ASKING || src->hs == GW_HS_UNKNOWN));
    if (src->connect.rc == 0 && !wanted) {
        gw_ep_close(src->connected); /* cancelled meanwhile */
        src->connected = NULL;
        return;
    }
    if (!wanted)
        return;
    if (src->step == GW_SRC_HANDOVER) {
        struct gw_error err = GW_ERROR_INIT;
        if (src->connect.rc == 0) {
            src->control = src->connected;
            src->connected = NULL;
            src->link_up = gw_source_open_channel(src, &err) == 0;
            if (src->link_up) {
                gw_source_event(src, GW_HSE_LINK_UP);
                return;
            }
            gw_source_close_link(src);
        }
        src->connect_again_ns = gw_clock_ns() + RETRY_NS;
        return;
    }
    if (src->connect.rc < 0 && src->step == GW_SRC_CONNECT_PAGES &&
        gw_source_wires_is_trying(src) && gw_source_wires_failed(src, &src->connect.err) == 0) {
        connect_next(src);
        return;
    }
    if (src->connect.rc < 0) {
        uint64_t now = gw_clock_ns();
        if (src->step == GW_SRC_CONNECT && is_worth_another_try(src->connect.rc) &&
            now + RETRY_NS < src->connect_until_ns) {
            src->connect_again_ns = now + RETRY_NS;
            return;
        }
        gw_source_fail(src, &src->connect.err);
        return;
    }
    if (src->step == GW_SRC_CONNECT)
        control_connected(src);
    else
        page_connected(src);
}

/* Connect the endpoint that the step calls for: control first, then pages, later control again. */
void gw_source_connect(struct gw_source *src)
{
    src->connect_again_ns = GW_NEVER_NS;
    if (src->connect.busy)
        return;
    src->connect.owner = src->step == GW_SRC_CONNECT_PAGES ? src->page_count + 1 : 0;
    src->connect_uri = src->connect.owner ? src->page_uri : src->uri;
    gw_source_post(src, &src->connect, connect_run, connect_done);
}

/* ---- hello ---------------------------------------------------------------------------------------- */

static int open_regions(struct gw_source *src, struct gw_error *err)
{
    struct gw_chunks_config config = {
        .ram = src->ram,
        .dom = gw_source_page_dom(src),
        .keyed = gw_source_page_flags(src) & GW_EP_ONE_SIDED,
        .chunk_bytes = src->params.chunk_bytes,
        .local_budget = src->hello.memlock_bytes,
        .remote_budget = src->granted.memlock_bytes,
        .local_besides = src->memlock_besides,
        .all = src->params.pin_all,
    };
    if (!config.keyed) {
        for (unsigned i = 0; i < gw_ram_block_count(src->ram); i++) {
            struct gw_block *block = gw_ram_block(src->ram, i);
            int rc = gw_rmr_open(config.dom, i, block->desc.size_bytes, NULL, 0, &block->rmr, err);
            if (rc < 0)
                return rc;
        }
    }
    src->chunks = gw_chunks_new(&config, err);
    if (!src->chunks)
        return err->rc < 0 ? err->rc : -ENOMEM;
    if (!config.keyed)
        return 0;
    gw_log_debug(&src->log, "source",
                 "chunks of at most %" PRIu64 " bytes; registered at a time here %" PRIu64
                 ", at the target %" PRIu64 " bytes at most",
                 gw_chunk_bytes_max(src->chunks), config.local_budget, config.remote_budget);
    return gw_source_chunks_open(src, err);
}

void gw_source_on_hello_reply(struct gw_source *src, const struct gw_message *msg)
{
    struct gw_error err = GW_ERROR_INIT;
    if (src->step != GW_SRC_HELLO) {
        gw_fail(&err, -EPROTO, "a second HELLO_REPLY");
        gw_source_fail(src, &err);
        return;
    }
    int rc = gw_hello_accept(&src->hello, &msg->u.hello, &err);
    src->granted = msg->u.hello;
    src->token.incarnation = src->granted.incarnation;
    if (rc == 0)
        rc = gw_ram_layout(src->ram, src->params.stripe_bytes, src->granted.endpoints, &err);
    if (rc == 0)
        rc = gw_source_wires_answered(src, &msg->u.hello, &err);
    if (rc == 0)
        rc = gw_source_wires_check(src, &err);
    if (rc < 0) {
        gw_source_fail(src, &err);
        return;
    }
    struct gw_ep_attr attr;
    gw_ep_query(src->control, &attr);
    gw_source_tell(src, GW_EVENT_CONNECTED, NULL, "%s at %s, %u page endpoints", src->granted.agent,
                   attr.peer, src->granted.endpoints);
    src->page_wanted = src->granted.endpoints;
    src->step = GW_SRC_CONNECT_PAGES;
    begin_track(src);
    connect_next(src);
}

/* ---- tracking and offers ------------------------------------------------------------------------------ */

static void track_run(struct gw_job *job)
{
    struct gw_source *src = GW_CONTAINER_OF(job, struct gw_source, work.job);
    gw_error_clear(&src->work.err);
    src->work.rc = gw_dirty_start(src->ram, src->tracks_late ? GW_DIRTY_BEFORE_PINS : GW_DIRTY_ALL,
                                  &src->work.err);
    if (src->work.rc < 0)
        return;
    src->work.found = 1; /* started: must be stopped */
    src->work.rc = gw_ram_source_begin(src->ram, &src->work.err);
}

static void offer_blocks(struct gw_source *src);

static void begin_offers(struct gw_source *src)
{
    src->step = GW_SRC_OFFER;
    src->offer_until_ns = gw_clock_ns() + src->params.device_timeout_ms * GW_NS_PER_MS;
    offer_blocks(src);
}

static void track_done(struct gw_mail *mail, void *engine)
{
    struct gw_source *src = engine;
    (void)mail;
    src->work.busy = false;
    src->tracking = src->work.found == 1;
    if (src->step != GW_SRC_TRACK && src->step != GW_SRC_CONNECT_PAGES)
        return; /* backed out meanwhile; clean-up goes on from its own step */
    if (src->work.rc < 0) {
        gw_source_fail(src, &src->work.err);
        return;
    }
    src->armed_ns = gw_clock_ns();
    if (src->step == GW_SRC_TRACK)
        begin_offers(src);
}

/* What it costs grows with memory, what connecting costs does not: side by side. Not where a source clears once:
 * when it is to be started is known with the wire. */
static void begin_track(struct gw_source *src)
{
    src->work.found = 0;
    src->tracks_late = false;
    if (!gw_dirty_clears_once(src->ram))
        gw_source_post(src, &src->work, track_run, track_done);
}

/* All page endpoints are there. */
static void end_track(struct gw_source *src)
{
    src->step = GW_SRC_TRACK;
    if (src->tracking) {
        begin_offers(src);
        return;
    }
    if (!gw_dirty_clears_once(src->ram))
        return; /* it is under way */
    src->tracks_late = src->making && (gw_source_page_flags(src) & GW_EP_PINS);
    gw_source_post(src, &src->work, track_run, track_done);
}

static void late_run(struct gw_job *job)
{
    struct gw_source *src = GW_CONTAINER_OF(job, struct gw_source, work.job);
    gw_error_clear(&src->work.err);
    src->work.rc = gw_dirty_start(src->ram, GW_DIRTY_AFTER_PINS, &src->work.err);
    /* What was a hole when the others were started may have been written since: told by nobody. */
    if (src->work.rc == 0)
        src->work.rc = gw_ram_source_begin(src->ram, &src->work.err);
}

static void late_done(struct gw_mail *mail, void *engine)
{
    struct gw_source *src = engine;
    (void)mail;
    src->work.busy = false;
    if (src->step != GW_SRC_REGISTER)
        return;
    if (src->work.rc < 0) {
        gw_source_fail(src, &src->work.err);
        return;
    }
    src->tracks_late = false;
    src->armed_ns = gw_clock_ns();
    if (gw_chunks_lack_budget(src->chunks))
        gw_log_warn(
            &src->log, "source",
            "not all memory can be registered at a time, and the dirty source clears once: what is "
            "registered later is sent again in every round (raise memlock or x-registered-max)");
}

/* No page was read so far, and what is populated is looked at again after the start: whatever is written meanwhile
 * is still to be sent. */
bool gw_source_track_late(struct gw_source *src)
{
    if (src->tracks_late && !src->work.busy && gw_chunks_are_pinned(src->chunks))
        gw_source_post(src, &src->work, late_run, late_done);
    return !src->tracks_late;
}

/* As many blocks from src->offer_next on as fit: the first that does not, or a negative errno. */
static int list_offers(struct gw_source *src, struct gw_list_builder *list, struct gw_error *err)
{
    unsigned next = src->offer_next;
    for (; next < gw_ram_block_count(src->ram); next++) {
        const struct gw_block *block = gw_ram_block(src->ram, next);
        struct gw_block_offer_msg offer = {.bytes = block->desc.size_bytes,
                                           .page_bytes = block->desc.page_bytes,
                                           .kind = block->desc.kind,
                                           .flags = block->desc.flags};
        snprintf(offer.name, sizeof(offer.name), "%s", block->desc.name);
        int rc = gw_list_add_block(list, &offer);
        if (rc == -ENOSPC && next > src->offer_next)
            break;
        if (rc < 0)
            return gw_fail(err, rc, "block %u cannot be offered", next);
    }
    return (int)next;
}

static void offer_blocks(struct gw_source *src)
{
    uint8_t *buf = gw_zalloc(1, OFFER_BUF_BYTES);
    struct gw_error err = GW_ERROR_INIT;
    if (!buf) {
        gw_fail(&err, -ENOMEM, "block offers");
        gw_source_fail(src, &err);
        return;
    }
    unsigned count = gw_ram_block_count(src->ram);
    while (src->offer_next < count) {
        struct gw_list_builder list = {.buf = buf, .bytes = OFFER_BUF_BYTES};
        int next = list_offers(src, &list, &err);
        if (next < 0) {
            gw_source_fail(src, &err);
            break;
        }
        struct gw_message msg = {.type = GW_MSG_BLOCKS,
                                 .flags = (unsigned)next == count ? GW_MSG_FLAG_LAST : 0};
        msg.u.list.data = list.buf;
        msg.u.list.bytes = list.used;
        if (gw_source_say(src, &msg) < 0)
            break; /* later, or the link is lost and the step will see it */
        src->offer_next = (unsigned)next;
    }
    gw_free(buf);
}

void gw_source_on_blocks_ok(struct gw_source *src, const struct gw_message *msg)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_list_cursor cursor;
    bool fresh = false;
    unsigned id = 0;
    gw_list_begin(&cursor, msg->u.list);
    while (gw_list_next_fresh(&cursor, &fresh)) {
        struct gw_block *block = gw_ram_block(src->ram, id++);
        if (block && src->step == GW_SRC_OFFER) /* later its owners look at it */
            block->fresh = fresh;
    }
    if (src->step != GW_SRC_OFFER || id != gw_ram_block_count(src->ram)) {
        gw_fail(&err, -EPROTO, "BLOCKS_OK for %u blocks, %u were offered", id,
                src->step == GW_SRC_OFFER ? gw_ram_block_count(src->ram) : 0);
        gw_source_fail(src, &err);
        return;
    }
    gw_source_begin_devices(src);
}

void gw_source_on_keys(struct gw_source *src, const struct gw_message *msg)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_list_cursor cursor;
    struct gw_range_msg range;
    gw_list_begin(&cursor, msg->u.list);
    while (gw_list_next_range(&cursor, GW_MSG_KEYS, &range)) {
        struct gw_wish which = {.block = range.block, .offset = range.first, .bytes = range.count};
        int rc = src->chunks ? gw_chunks_key(src->chunks, &which, range.key, range.key_bytes, &err)
                             : gw_fail(&err, -EPROTO, "KEYS before any wish");
        if (rc < 0) {
            gw_source_fail(src, &err);
            return;
        }
    }
}

uint64_t gw_source_setup_step(struct gw_source *src, uint64_t now_ns)
{
    if (src->connect_again_ns <= now_ns)
        gw_source_connect(src);
    if (src->step == GW_SRC_HELLO) {
        if (now_ns < src->hello_until_ns)
            return src->hello_until_ns;
        struct gw_error err = GW_ERROR_INIT;
        gw_fail_code(&err, -ETIMEDOUT, GW_CODE_TIMEOUT,
                     "the target did not answer hello within %llu ms",
                     (unsigned long long)(setup_ns(src) / GW_NS_PER_MS));
        gw_error_hint(&err, "raise x-connect-timeout, or see what the target does");
        gw_source_fail(src, &err);
        return now_ns;
    }
    if (src->step == GW_SRC_OFFER && now_ns >= src->offer_until_ns) {
        struct gw_error err = GW_ERROR_INIT;
        gw_fail_code(&err, -ETIMEDOUT, GW_CODE_TIMEOUT,
                     "the target did not take the blocks within %llu ms",
                     (unsigned long long)src->params.device_timeout_ms);
        gw_error_hint(&err,
                      "raise x-device-timeout, or see what keeps the target from making memory");
        gw_source_fail(src, &err);
        return now_ns;
    }
    if (src->step == GW_SRC_OFFER && src->offer_next < gw_ram_block_count(src->ram)) {
        offer_blocks(src);
        return now_ns + GW_NS_PER_MS;
    }
    if (src->step == GW_SRC_OFFER)
        return gw_min_u64(src->connect_again_ns, src->offer_until_ns);
    return src->connect_again_ns;
}
