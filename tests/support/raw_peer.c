// SPDX-License-Identifier: MIT
/* A source without manners (raw_peer.h). Everything waits in place: a test's thread is its only one. */
#include "tests/support/raw_peer.h"

#include "core/base/clock.h"
#include "tests/shim/gw_test.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#define BLOCK_NAME "ram0"
#define MACHINE "godwit"

#define STEP_NS (5 * GW_NS_PER_MS) /* others wait for their turn meanwhile */

static void sleep_on(struct gw_endpoint *ep, struct gw_channel *channel)
{
    struct pollfd fds[4];
    uint64_t wake_ns = gw_channel_wake_ns(channel), step_ns = gw_clock_ns() + STEP_NS;
    if (wake_ns > step_ns)
        wake_ns = step_ns;
    int count = gw_ep_arm(ep, fds, 4, &wake_ns);
    if (wake_ns == 0)
        return;
    gw_clock_poll(fds, (unsigned)count, wake_ns);
    gw_ep_awake(ep, fds, (unsigned)count);
}

void raw_say(struct gw_channel *channel, const struct gw_message *msg)
{
    struct gw_error err = GW_ERROR_INIT;
    int rc;
    while ((rc = gw_channel_send(channel, msg)) == -EAGAIN)
        gw_channel_step(channel, gw_clock_ns(), &err);
    GW_EXPECT_EQ(rc, 0);
    gw_channel_step(channel, gw_clock_ns(), &err);
}

bool raw_hear(struct raw_source *raw, enum gw_message_type type, struct gw_message *msg)
{
    struct gw_error err = GW_ERROR_INIT;
    for (;;) {
        int rc = gw_channel_recv(raw->channel, msg, &err);
        if (rc > 0 && msg->type == type)
            return true;
        if (rc > 0)
            continue;
        if (rc == 0)
            rc = gw_channel_step(raw->channel, gw_clock_ns(), &err);
        if (rc < 0)
            return false;
        for (unsigned i = 0; i < raw->page_count; i++)
            gw_channel_step(raw->page_channel[i], gw_clock_ns(), &err);
        sleep_on(raw->control, raw->channel);
    }
}

static struct gw_endpoint *open_endpoint(struct raw_source *raw, unsigned index)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_endpoint *ep = NULL;
    struct gw_wire_config config = {.index = (uint16_t)index,
                                    .deadline_ns = gw_clock_ns() + 30 * GW_NS_PER_S};
    memcpy(config.session, raw->session, sizeof(config.session));
    if (gw_connect(raw->dom, &raw->uri, &config, &ep, &err) < 0)
        GW_FAIL("connect endpoint %u: %s", index, err.message);
    return ep;
}

static struct gw_channel *open_channel(struct gw_endpoint *ep, uint64_t peer_timeout_ns)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_channel_config config = {
        .ep = ep, .side = GW_CHANNEL_SOURCE, .peer_timeout_ns = peer_timeout_ns};
    struct gw_channel *channel = gw_channel_new(&config, &err);
    GW_ASSERT(channel != NULL);
    return channel;
}

static void say_hello(struct raw_source *raw, uint64_t bytes, unsigned pages,
                      uint64_t peer_timeout_ns)
{
    struct gw_message msg = {.type = GW_MSG_HELLO};
    struct gw_hello *hello = &msg.u.hello;
    hello->version_min = hello->version_max = GW_PROTOCOL_VERSION;
    hello->page_bytes = 4096;
    hello->endpoints = pages;
    hello->message_payload_max = GW_PAYLOAD_BYTES_MAX;
    hello->blocks_max = raw->hello_blocks ? raw->hello_blocks : 8;
    hello->stripe_bytes = 2u << 20;
    hello->ram_bytes = bytes;
    hello->section_bytes_max = 1u << 20;
    hello->memlock_bytes = UINT64_MAX;
    hello->peer_timeout_ns = peer_timeout_ns;
    hello->settle_timeout_ns = hello->hold_timeout_ns = GW_NS_PER_S;
    hello->device_timeout_ns = 10 * GW_NS_PER_S;
    snprintf(hello->machine, sizeof(hello->machine), MACHINE);
    snprintf(hello->agent, sizeof(hello->agent), "raw source");
    raw_say(raw->channel, &msg);
    struct gw_message reply;
    if (!raw_hear(raw, GW_MSG_HELLO_REPLY, &reply))
        GW_FAIL("no HELLO_REPLY");
    raw->reply = reply.u.hello;
    raw->token.incarnation = raw->reply.incarnation;
}

void raw_offer(struct raw_source *raw, uint64_t bytes, unsigned count)
{
    uint8_t buf[512];
    struct gw_list_builder list = {.buf = buf, .bytes = sizeof(buf)};
    for (unsigned i = 0; i < count; i++) {
        struct gw_block_offer_msg block = {.bytes = bytes, .page_bytes = 4096};
        snprintf(block.name, sizeof(block.name), "ram%u", i);
        GW_ASSERT_EQ(gw_list_add_block(&list, &block), 0);
    }
    struct gw_message msg = {.type = GW_MSG_BLOCKS, .flags = GW_MSG_FLAG_LAST};
    msg.u.list.data = buf;
    msg.u.list.bytes = list.used;
    raw_say(raw->channel, &msg);
}

void raw_item(struct raw_source *raw, const struct gw_writer *item)
{
    struct gw_message msg = {.type = GW_MSG_STREAM, .flags = GW_MSG_FLAG_LAST};
    msg.u.data.data = item->data;
    msg.u.data.bytes = item->bytes;
    raw_say(raw->channel, &msg);
}

static void open_stream(struct raw_source *raw, uint64_t bytes)
{
    struct gw_writer w;
    struct gw_section ram = {
        .type = GW_ITEM_START, .section_id = 1, .idstr = "ram", .version_id = 4};
    gw_writer_init(&w, 65536);
    gw_stream_write_header(&w, MACHINE);
    raw_item(raw, &w);
    gw_writer_reset(&w);
    gw_stream_write_section(&w, &ram);
    gw_writer_be64(&w, bytes | 4);
    gw_writer_u8(&w, sizeof(BLOCK_NAME) - 1);
    gw_writer_bytes(&w, BLOCK_NAME, sizeof(BLOCK_NAME) - 1);
    gw_writer_be64(&w, bytes);
    gw_writer_be64(&w, 0x10);
    gw_stream_write_footer(&w, 1);
    raw_item(raw, &w);
    gw_writer_fini(&w);
}

void raw_source_connect(struct raw_source *raw, const char *uri, uint64_t bytes, unsigned pages,
                        uint64_t peer_timeout_ns)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_wire_config config = {.index = 0};
    unsigned hello_blocks = raw->hello_blocks;
    memset(raw, 0, sizeof(*raw));
    raw->hello_blocks = hello_blocks;
    GW_ASSERT_EQ(getrandom(raw->session, sizeof(raw->session), 0), (ssize_t)sizeof(raw->session));
    GW_ASSERT_EQ(gw_uri_parse(uri, &raw->uri, &err), 0);
    GW_ASSERT_EQ(gw_domain_open(raw->uri.scheme, &config, &raw->dom, &err), 0);
    raw->control = open_endpoint(raw, 0);
    raw->channel = open_channel(raw->control, peer_timeout_ns);
    say_hello(raw, bytes, pages, peer_timeout_ns);
    if (!(gw_wire_flags(raw->uri.scheme) & GW_EP_ONE_SIDED))
        GW_ASSERT_EQ(gw_rmr_open(raw->dom, 0, bytes, NULL, 0, &raw->rmr, &err), 0);
    for (unsigned i = 0; i < pages; i++) {
        raw->page[i] = open_endpoint(raw, i + 1);
        raw->page_channel[i] = open_channel(raw->page[i], peer_timeout_ns);
        raw->page_count++;
    }
}

void raw_source_open(struct raw_source *raw, const char *uri, uint64_t bytes, unsigned pages,
                     uint64_t peer_timeout_ns)
{
    struct gw_message msg;
    raw_source_connect(raw, uri, bytes, pages, peer_timeout_ns);
    raw_offer(raw, bytes, 1);
    if (!raw_hear(raw, GW_MSG_BLOCKS_OK, &msg))
        GW_FAIL("no BLOCKS_OK");
    open_stream(raw, bytes);
}

void raw_lend(struct raw_source *raw, void *local, uint64_t bytes)
{
    uint8_t buf[64];
    struct gw_error err = GW_ERROR_INIT;
    struct gw_list_builder list = {.buf = buf, .bytes = sizeof(buf)};
    struct gw_range_msg range = {.block = 0, .first = 0, .count = bytes};
    struct gw_message msg = {.type = GW_MSG_WISHES};
    struct gw_mr_desc desc = {.addr = local, .bytes = bytes};
    struct gw_list_cursor cursor;
    GW_ASSERT_EQ(gw_mr_reg(raw->dom, &desc, &raw->mr, &err), 0);
    GW_ASSERT_EQ(gw_list_add_range(&list, GW_MSG_WISHES, &range), 0);
    msg.u.list.data = buf;
    msg.u.list.bytes = list.used;
    raw_say(raw->channel, &msg);
    if (!raw_hear(raw, GW_MSG_KEYS, &msg))
        GW_FAIL("no KEYS");
    gw_list_begin(&cursor, msg.u.list);
    GW_ASSERT(gw_list_next_range(&cursor, GW_MSG_KEYS, &range));
    GW_ASSERT_EQ(gw_rmr_open(raw->dom, 0, bytes, range.key, range.key_bytes, &raw->rmr, &err), 0);
}

void raw_put(struct raw_source *raw, unsigned page, const void *local, uint64_t offset,
             uint32_t bytes)
{
    struct gw_put put = {
        .local = local, .mr = raw->mr, .rmr = raw->rmr, .offset = offset, .bytes = bytes};
    struct gw_completion done;
    int taken;
    while ((taken = gw_put(raw->page[page], &put, 1)) == 0)
        sleep_on(raw->page[page], raw->page_channel[page]);
    GW_EXPECT_EQ(taken, 1);
    while ((taken = gw_poll(raw->page[page], &done, 1)) == 0)
        sleep_on(raw->page[page], raw->page_channel[page]);
    GW_EXPECT_EQ(taken, 1);
}

void raw_fence(struct raw_source *raw, unsigned page, uint32_t number, bool final)
{
    struct gw_message msg = {.type = GW_MSG_FENCE, .flags = final ? GW_MSG_FLAG_LAST : 0};
    msg.u.number = number;
    raw_say(raw->page_channel[page], &msg);
}

void raw_ram_end(struct raw_source *raw)
{
    struct gw_writer w;
    struct gw_section end = {.type = GW_ITEM_END, .section_id = 1};
    gw_writer_init(&w, 4096);
    gw_stream_write_section(&w, &end);
    gw_writer_be64(&w, 0x10);
    gw_stream_write_footer(&w, 1);
    raw_item(raw, &w);
    gw_writer_fini(&w);
}

void raw_device(struct raw_source *raw, const char *name, const void *body, size_t bytes)
{
    struct gw_writer w;
    struct gw_section full = {.type = GW_ITEM_FULL, .section_id = 2, .version_id = 1};
    snprintf(full.idstr, sizeof(full.idstr), "%s", name);
    gw_writer_init(&w, 65536);
    gw_stream_write_section(&w, &full);
    gw_writer_bytes(&w, body, bytes);
    gw_stream_write_footer(&w, 2);
    raw_item(raw, &w);
    gw_writer_fini(&w);
}

void raw_eof(struct raw_source *raw)
{
    struct gw_writer w;
    gw_writer_init(&w, 16);
    gw_stream_write_eof(&w);
    raw_item(raw, &w);
    gw_writer_fini(&w);
}

void raw_prepare(struct raw_source *raw, uint32_t fence)
{
    struct gw_message msg = {.type = GW_MSG_PREPARE};
    memset(raw->token.random, 0x77, sizeof(raw->token.random));
    msg.u.prepare.token = raw->token;
    msg.u.prepare.fence = fence;
    raw_say(raw->channel, &msg);
}

void raw_token(struct raw_source *raw, enum gw_message_type type)
{
    struct gw_message msg = {.type = type};
    msg.u.token = raw->token;
    raw_say(raw->channel, &msg);
}

int raw_until_silent(struct gw_endpoint *ep, struct gw_channel *channel, struct gw_error *err)
{
    for (;;) {
        struct gw_message msg;
        int rc = gw_channel_recv(channel, &msg, err);
        if (rc == 0)
            rc = gw_channel_step(channel, gw_clock_ns(), err);
        if (rc < 0)
            return rc;
        sleep_on(ep, channel);
    }
}

void raw_source_close(struct raw_source *raw)
{
    for (unsigned i = 0; i < raw->page_count; i++) {
        gw_channel_free(raw->page_channel[i]);
        gw_ep_close(raw->page[i]);
    }
    gw_channel_free(raw->channel);
    gw_ep_close(raw->control);
    gw_rmr_close(raw->rmr);
    gw_mr_dereg(raw->mr);
    gw_domain_close(raw->dom);
}
