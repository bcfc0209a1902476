/* SPDX-License-Identifier: MIT */
/* tests/unit/control/samples.h - one message of every type, the same that tests/data/messages holds
 * as bytes (written down by hand from docs/protocol.md, not by the codec). */
#ifndef GW_TEST_CONTROL_SAMPLES_H
#define GW_TEST_CONTROL_SAMPLES_H

#include "control/codec.h"
#include "core/base/clock.h"
#include "tests/shim/gw_test.h"

#include <godwit/block.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SAMPLE_BYTES_MAX 4096

static inline void sample_fill(uint8_t *to, size_t bytes, uint8_t first)
{
    for (size_t i = 0; i < bytes; i++)
        to[i] = (uint8_t)(first + i);
}

static inline struct gw_token sample_token(void)
{
    struct gw_token token = {.incarnation = UINT64_C(0x1122334455667788)};
    sample_fill(token.random, sizeof(token.random), 0xa0);
    return token;
}

static inline struct gw_hello sample_hello(void)
{
    struct gw_hello hello = {
        .version_min = 1,
        .version_max = 1,
        .flags = GW_HELLO_DIGEST,
        .page_bytes = 4096,
        .endpoints = 4,
        .message_payload_max = GW_PAYLOAD_BYTES_MAX,
        .blocks_max = 3,
        .stripe_bytes = UINT64_C(32) << 20,
        .ram_bytes = UINT64_C(1) << 30,
        .memlock_bytes = UINT64_MAX,
        .peer_timeout_ns = 2 * GW_NS_PER_S,
        .settle_timeout_ns = 30 * GW_NS_PER_S,
        .hold_timeout_ns = 30 * GW_NS_PER_S,
        .device_timeout_ns = 60 * GW_NS_PER_S,
        .machine = "pc-i440fx-7.2",
        .agent = "godwit 0.1.0",
    };
    sample_fill(hello.uuid, sizeof(hello.uuid), 1);
    return hello;
}

/* What a target has before it knows the source: limits and time-outs. */
static inline struct gw_hello sample_target(void)
{
    return (struct gw_hello){
        .version_min = 1,
        .version_max = 1,
        .page_bytes = 4096,
        .endpoints = 2,
        .message_payload_max = GW_PAYLOAD_BYTES_MAX,
        .blocks_max = 10000,
        .ram_bytes_max = UINT64_C(12) << 30,
        .section_bytes_max = UINT64_C(256) << 20,
        .memlock_bytes = UINT64_C(64) << 10,
        .peer_timeout_ns = 2 * GW_NS_PER_S,
        .settle_timeout_ns = 10 * GW_NS_PER_S,
        .hold_timeout_ns = 20 * GW_NS_PER_S,
        .device_timeout_ns = 60 * GW_NS_PER_S,
        .incarnation = UINT64_C(0x1122334455667788),
        .agent = "godwit 0.1.0",
    };
}

static inline void sample_list(enum gw_message_type type, struct gw_list_builder *list)
{
    static const struct gw_block_offer_msg blocks[] = {
        {"pc.ram", UINT64_C(1) << 30, 4096, GW_BLOCK_ANON, 0},
        {"pc.bios", UINT64_C(256) << 10, 4096, GW_BLOCK_MEMFD, GW_BLOCK_READ_ONLY},
        {"huge", UINT64_C(4) << 20, 2 << 20, GW_BLOCK_HUGETLB, 0},
    };
    static const struct gw_range_msg zeros[] = {{0, 16, 512, 0, {0}}, {2, 0, 1, 0, {0}}};
    static const struct gw_range_msg ranges[] = {{0, 0, 2 << 20, 4, {1, 2, 3, 4}},
                                                 {1, 4 << 20, 1 << 20, 0, {0}}};
    int rc = 0;
    if (type == GW_MSG_BLOCKS) {
        for (int i = 0; i < 3; i++)
            rc |= gw_list_add_block(list, &blocks[i]);
    } else if (type == GW_MSG_BLOCKS_OK) {
        for (int i = 0; i < 3; i++)
            rc |= gw_list_add_fresh(list, i != 1);
    } else {
        for (int i = 0; i < 2; i++)
            rc |= gw_list_add_range(list, type, type == GW_MSG_ZERO ? &zeros[i] : &ranges[i]);
    }
    GW_ASSERT_EQ(rc, 0);
}

static inline void sample_error(struct gw_error *err, enum gw_code code, const char *phase,
                                const char *place, const char *text, const char *hint)
{
    *err = (struct gw_error)GW_ERROR_INIT;
    gw_fail_code(err, -EREMOTEIO, code, "%s", text);
    gw_error_phase(err, phase);
    gw_error_place(err, "%s", place);
    gw_error_hint(err, "%s", hint);
}

/* @buf holds the entries of lists and outlives @msg. */
static inline void sample_message(enum gw_message_type type, struct gw_message *msg,
                                  uint8_t buf[SAMPLE_BYTES_MAX])
{
    static const uint8_t item[] = {0x02, 0, 0, 0, 2, 0x7e, 0, 0, 0, 2};
    struct gw_list_builder list = {.buf = buf, .bytes = SAMPLE_BYTES_MAX};
    memset(msg, 0, sizeof(*msg));
    msg->type = type;
    switch (type) {
    case GW_MSG_HEARTBEAT:
        break;
    case GW_MSG_CREDIT:
        msg->u.credit = UINT64_C(4) << 20;
        break;
    case GW_MSG_HELLO:
        msg->u.hello = sample_hello();
        break;
    case GW_MSG_HELLO_REPLY:
        msg->u.hello = sample_hello();
        msg->u.hello.endpoints = 2;
        msg->u.hello.blocks_max = 10000;
        msg->u.hello.ram_bytes_max = UINT64_C(12) << 30;
        msg->u.hello.section_bytes_max = UINT64_C(256) << 20;
        msg->u.hello.memlock_bytes = UINT64_C(64) << 10;
        msg->u.hello.incarnation = UINT64_C(0x1122334455667788);
        break;
    case GW_MSG_BLOCKS:
        msg->flags = GW_MSG_FLAG_LAST;
        /* fall through */
    case GW_MSG_BLOCKS_OK:
    case GW_MSG_WISHES:
    case GW_MSG_KEYS:
    case GW_MSG_RELEASE:
    case GW_MSG_RELEASED:
        sample_list(type, &list);
        msg->u.list = (struct gw_span){buf, list.used};
        break;
    case GW_MSG_ZERO:
        sample_list(type, &list);
        msg->u.zero.number = 5;
        msg->u.zero.runs = (struct gw_span){buf, list.used};
        break;
    case GW_MSG_STREAM:
        msg->flags = GW_MSG_FLAG_LAST;
        msg->u.data = (struct gw_span){item, sizeof(item)};
        break;
    case GW_MSG_JOINED:
        msg->u.number = 7;
        break;
    case GW_MSG_LOADED:
        msg->u.loaded.items = 4;
        msg->u.loaded.acks_missing = 1;
        msg->u.loaded.acks_given = 2;
        break;
    case GW_MSG_PACKET:
        msg->flags = GW_MSG_FLAG_LAST;
        msg->u.packet.section = 3;
        msg->u.packet.number = 2;
        msg->u.packet.items = 6;
        msg->u.packet.data = (struct gw_span){item, sizeof(item)};
        break;
    case GW_MSG_PACKETS_LOADED:
        msg->u.packets.count = 2;
        msg->u.packets.bytes = 0x2014;
        break;
    case GW_MSG_ZERO_ACK:
        msg->u.number = 5;
        break;
    case GW_MSG_FENCE:
        msg->flags = GW_MSG_FLAG_LAST;
        msg->u.number = 9;
        break;
    case GW_MSG_PREPARE:
        msg->u.prepare.token = sample_token();
        msg->u.prepare.fence = 9;
        msg->u.prepare.has_digest = true;
        sample_fill(msg->u.prepare.digest, 16, 0xd0);
        break;
    case GW_MSG_PREPARED:
        msg->u.prepare.token = sample_token();
        msg->u.prepare.revoke_ns = 1000;
        msg->u.prepare.load_ns = 2500000;
        break;
    case GW_MSG_COMMIT:
    case GW_MSG_ACK:
        msg->u.token = sample_token();
        break;
    case GW_MSG_OUTCOME:
        msg->u.outcome.token = sample_token();
        msg->u.outcome.outcome = GW_OUTCOME_DECLINED;
        msg->u.outcome.acquire_ns = 5000;
        sample_error(&msg->u.outcome.error, GW_CODE_GUEST, "device", "",
                     "disk lock is held elsewhere", "");
        break;
    case GW_MSG_FAILED:
        sample_error(&msg->u.failed.error, GW_CODE_NO_CONVERGENCE, "active", "block 'ram0'",
                     "dirties 9.1 Gb/s, wire carries 7.8 Gb/s", "set x-stall-action=switch");
        break;
    case GW_MSG_ABORT:
        msg->u.failed.token = sample_token();
        sample_error(&msg->u.failed.error, GW_CODE_CANCELLED, "device", "",
                     "cancelled by the operator", "");
        break;
    case GW_MSG_ASK:
        msg->u.ask.token = sample_token();
        msg->u.ask.attempt = 3;
        /* fall through */
    case GW_MSG_UNKNOWN:
        sample_fill(msg->u.ask.session, GW_SESSION_BYTES, 0x50);
        break;
    }
}

/* The bytes of tests/data/messages/NAME.hex: hexadecimal, '#' begins a comment. Return: how many.
 */
static inline size_t sample_golden(const char *name, uint8_t *to, size_t room)
{
    char path[512];
    snprintf(path, sizeof(path), "%s/tests/data/messages/%s.hex", GW_TEST_SOURCE, name);
    FILE *file = fopen(path, "r");
    GW_ASSERT(file);
    char line[256];
    size_t bytes = 0;
    while (fgets(line, sizeof(line), file)) {
        char *at = line;
        char *end;
        line[strcspn(line, "#")] = '\0';
        for (unsigned long value = strtoul(at, &end, 16); end != at && bytes < room;
             value = strtoul(at, &end, 16)) {
            to[bytes++] = (uint8_t)value;
            at = end;
        }
    }
    fclose(file);
    return bytes;
}

#endif
