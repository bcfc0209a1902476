// SPDX-License-Identifier: MIT
/* Frames, byte by byte as docs/protocol.md has them, and the regions of a domain. No sockets. */
#include "tests/shim/gw_test.h"
#include "transport/backends.h"
#include "transport/stream.h"

#include <string.h>

GW_TEST(stream, frame_bytes_are_the_documented_ones)
{
    static const uint8_t head_bytes[GW_FRAME_HEAD_BYTES] = {0x47, 0x57, 1, 0, 0x02, 0x00, 0, 0,
                                                            0x00, 0x20, 0, 0, 0,    0,    0, 0};
    static const uint8_t entry_bytes[GW_FRAME_ENTRY_BYTES] = {0, 1, 2, 3,  0,    0, 0x10, 0,
                                                              0, 0, 0, 16, 0x80, 0, 0,    0};
    uint8_t bytes[16];
    struct gw_frame_head head = {
        .kind = GW_FRAME_PUT, .entry_count = 512, .payload_bytes = 2u << 20};
    struct gw_frame_entry entry = {
        .region = 0x010203, .bytes = 4096, .offset = UINT64_C(0x1080000000)};
    gw_frame_head_encode(&head, bytes);
    GW_EXPECT_MEMEQ(bytes, head_bytes, sizeof(bytes));
    gw_frame_entry_encode(&entry, bytes);
    GW_EXPECT_MEMEQ(bytes, entry_bytes, sizeof(bytes));
}

GW_TEST(stream, what_was_encoded_is_decoded)
{
    uint8_t bytes[16];
    const char *why = "";
    struct gw_frame_head head = {.kind = GW_FRAME_MESSAGE, .payload_bytes = 1000}, back;
    struct gw_frame_entry entry = {.region = 7, .bytes = 9, .offset = UINT64_MAX}, entry_back;
    gw_frame_head_encode(&head, bytes);
    GW_EXPECT_EQ(gw_frame_head_decode(bytes, 1000, &back, &why), 0);
    GW_EXPECT_EQ(back.kind, GW_FRAME_MESSAGE);
    GW_EXPECT_EQ(back.payload_bytes, 1000);
    GW_EXPECT_EQ(back.table_bytes, 0);
    GW_EXPECT_EQ(gw_frame_head_decode(bytes, 999, &back, &why), -EPROTO);
    GW_EXPECT(strstr(why, "limit") != NULL);
    gw_frame_entry_encode(&entry, bytes);
    gw_frame_entry_decode(bytes, &entry_back);
    GW_EXPECT_EQ(entry_back.region, 7);
    GW_EXPECT_EQ(entry_back.bytes, 9);
    GW_EXPECT_EQ(entry_back.offset, UINT64_MAX);
}

GW_TEST(stream, no_header_claims_more_than_the_declared_limits)
{
    uint64_t state = 5;
    for (unsigned i = 0; i < 200000; i++) {
        uint8_t bytes[GW_FRAME_HEAD_BYTES] = {0x47, 0x57};
        struct gw_frame_head head;
        const char *why = "";
        state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        bytes[2] = (uint8_t)(state >> 60);
        memcpy(bytes + 4, &state, 2);
        memcpy(bytes + 8, (uint8_t *)&state + 3, 4);
        if (gw_frame_head_decode(bytes, 1u << 20, &head, &why) < 0)
            continue;
        GW_EXPECT_LE(head.entry_count, GW_FRAME_ENTRIES_MAX);
        GW_EXPECT_LE(head.table_bytes, GW_FRAME_ENTRIES_MAX * GW_FRAME_ENTRY_BYTES);
        GW_EXPECT_LE(head.payload_bytes, GW_FRAME_PAYLOAD_MAX);
        GW_EXPECT(head.kind == GW_FRAME_PUT ? head.entry_count > 0 : head.entry_count == 0);
    }
}

GW_TEST(stream, regions_are_found_by_number)
{
    static uint8_t memory[4096];
    struct gw_domain *dom;
    struct gw_mr *mrs[3];
    static const uint32_t numbers[] = {0, 65535, 17};
    const char *why = "";
    GW_ASSERT_EQ(gw_stream_domain_new(&gw_tcp_ops, &dom, NULL), 0);
    for (unsigned i = 0; i < 3; i++) {
        struct gw_mr_desc desc = {.addr = memory + 1000 * i,
                                  .bytes = 1000,
                                  .access = GW_MR_REMOTE_WRITE,
                                  .region = numbers[i]};
        GW_ASSERT_EQ(gw_mr_reg(dom, &desc, &mrs[i], NULL), 0);
    }
    struct gw_stream_domain *d = (struct gw_stream_domain *)dom;
    struct gw_frame_entry entry = {.region = 65535, .offset = 10, .bytes = 990};
    GW_EXPECT(gw_stream_region_at_locked(d, &entry, &why) == memory + 1010);
    entry.bytes = 991;
    GW_EXPECT(gw_stream_region_at_locked(d, &entry, &why) == NULL);
    GW_EXPECT(strstr(why, "leaves") != NULL);
    entry = (struct gw_frame_entry){.region = 18, .bytes = 1};
    GW_EXPECT(gw_stream_region_at_locked(d, &entry, &why) == NULL);
    gw_mr_dereg(mrs[2]);
    entry.region = 17;
    GW_EXPECT(gw_stream_region_at_locked(d, &entry, &why) == NULL);
    gw_mr_dereg(mrs[0]);
    gw_mr_dereg(mrs[1]);
    gw_domain_close(dom);
}

GW_TEST(stream, a_local_registration_gives_the_peer_no_right)
{
    static uint8_t memory[16];
    struct gw_domain *dom;
    struct gw_mr *mr;
    const char *why = "";
    GW_ASSERT_EQ(gw_stream_domain_new(&gw_tcp_ops, &dom, NULL), 0);
    struct gw_mr_desc desc = {.addr = memory, .bytes = 16, .access = GW_MR_LOCAL_READ};
    GW_ASSERT_EQ(gw_mr_reg(dom, &desc, &mr, NULL), 0);
    struct gw_frame_entry entry = {.region = 0, .bytes = 1};
    GW_EXPECT(gw_stream_region_at_locked((struct gw_stream_domain *)dom, &entry, &why) == NULL);
    gw_mr_dereg(mr);
    gw_domain_close(dom);
}
