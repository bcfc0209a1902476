// SPDX-License-Identifier: MIT
/* Puts of the stream wire, against memory that is lent in part: two blocks with a gap before, between
 * and behind, stripes of which this endpoint owns every other one, regions that come and go, and the
 * right to write revoked in the middle of a frame. Whatever an input holds, no byte of a gap and no
 * byte of another owner's stripe changes, and nothing changes after revoke. */
#include "core/base/alloc.h"
#include "core/base/bytes.h"
#include "ram/place.h"
#include "tests/fuzz/wire.h"

#include <sys/mman.h>

#define STRIPE (UINT64_C(2) << 20)
#define BLOCK_BYTES (2 * STRIPE)
#define GAP_BYTES (UINT64_C(64) << 10)
#define ARENA_BYTES (2 * BLOCK_BYTES + 3 * GAP_BYTES)
#define BLOCK_AT(i) (GAP_BYTES + (uint64_t)(i) * (BLOCK_BYTES + GAP_BYTES))

struct arena {
    uint8_t *host;
    struct gw_ram *ram;
    struct gw_mr *mr[2];
    struct gw_placer placer;
    struct fuzz_wire wire;
    bool revoked;
};

static uint8_t *arena_memory(void)
{
    static uint8_t *host;
    if (!host) {
        host = mmap(NULL, ARENA_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        FUZZ_MUST(host != MAP_FAILED);
        madvise(host, ARENA_BYTES, MADV_NOHUGEPAGE); /* one page stored to is one page present */
    }
    FUZZ_MUST(madvise(host, ARENA_BYTES, MADV_DONTNEED) == 0);
    return host;
}

static void lend(struct arena *a, unsigned i)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_mr_desc desc = {.addr = a->host + BLOCK_AT(i),
                              .bytes = BLOCK_BYTES,
                              .access = GW_MR_REMOTE_WRITE,
                              .region = i};
    if (!a->mr[i])
        FUZZ_MUST(gw_stream_mr_reg(a->wire.dom, &desc, &a->mr[i], &err) == 0);
}

static void take_back(struct arena *a, unsigned i)
{
    if (a->mr[i])
        gw_stream_mr_dereg(a->mr[i]);
    a->mr[i] = NULL;
}

static void arena_open(struct arena *a)
{
    struct gw_error err = GW_ERROR_INIT;
    memset(a, 0, sizeof(*a));
    a->host = arena_memory();
    a->ram = gw_ram_new();
    FUZZ_MUST(a->ram != NULL);
    for (unsigned i = 0; i < 2; i++) {
        struct gw_block_desc desc = {.struct_bytes = sizeof(desc),
                                     .name = i ? "one" : "zero",
                                     .host = a->host + BLOCK_AT(i),
                                     .size_bytes = BLOCK_BYTES,
                                     .page_bytes = GW_PAGE_BYTES,
                                     .fd = -1};
        FUZZ_MUST(gw_ram_add_block(a->ram, &desc, &err) == (int)i);
    }
    FUZZ_MUST(gw_ram_layout(a->ram, STRIPE, 2, &err) == 0);
    FUZZ_MUST(gw_ram_target_begin(a->ram, &err) == 0);
    a->placer = (struct gw_placer){.ram = a->ram};
    fuzz_wire_open(&a->wire, 1, &gw_placer_ops, &a->placer);
    lend(a, 0);
    lend(a, 1);
}

/* Nothing was ever stored there: the page is not even present. */
static void untouched(const struct arena *a, uint64_t at, uint64_t bytes)
{
    unsigned char present[STRIPE / 4096];
    FUZZ_MUST(bytes / 4096 <= sizeof(present));
    FUZZ_MUST(mincore(a->host + at, bytes, present) == 0);
    for (uint64_t page = 0; page < bytes / 4096; page++)
        FUZZ_MUST(!(present[page] & 1));
}

static void arena_close(struct arena *a)
{
    fuzz_wire_close(&a->wire);
    take_back(a, 0);
    take_back(a, 1);
    gw_stream_domain_close(a->wire.dom);
    for (unsigned i = 0; i < 3; i++)
        untouched(a, BLOCK_AT(i) - GAP_BYTES, GAP_BYTES);
    for (unsigned i = 0; i < 2; i++)
        untouched(a, BLOCK_AT(i) + STRIPE, STRIPE); /* stripes 1 and 3: owner 1's */
    gw_ram_free(a->ram);
}

/* A frame of entries near all edges; the input says which, and what else is wrong. */
static void frame(struct arena *a, struct fuzz_input *in)
{
    static const uint64_t edges[] = {0,
                                     4096,
                                     STRIPE - 4096,
                                     STRIPE,
                                     BLOCK_BYTES - 4096,
                                     BLOCK_BYTES,
                                     UINT64_MAX - 4095,
                                     UINT64_C(1) << 63};
    static uint8_t payload[16 * 8192];
    uint8_t bytes[GW_FRAME_HEAD_BYTES + 16 * GW_FRAME_ENTRY_BYTES];
    uint8_t how = fuzz_u8(in);
    uint16_t entries = (uint16_t)(1 + how % 16);
    uint32_t sum = 0;
    for (unsigned i = 0; i < entries; i++) {
        uint8_t what = fuzz_u8(in);
        struct gw_frame_entry entry = {
            .region = what & 1, .bytes = 4096, .offset = edges[what >> 5]};
        if (what & 2)
            entry.bytes = 8192;
        if (what & 4)
            entry.offset += (int64_t)(int16_t)(fuzz_u8(in) << 8 | fuzz_u8(in));
        if (what & 8)
            entry.region = fuzz_u32(in);
        if (what & 16)
            entry.bytes = fuzz_u32(in);
        sum += entry.bytes;
        gw_frame_entry_encode(&entry, bytes + GW_FRAME_HEAD_BYTES + i * GW_FRAME_ENTRY_BYTES);
    }
    struct gw_frame_head head = {.kind = GW_FRAME_PUT,
                                 .entry_count = entries,
                                 .payload_bytes = how & 64 ? fuzz_u32(in) : sum};
    gw_frame_head_encode(&head, bytes);
    memset(payload, 0xbd, sizeof(payload));
    size_t length = sum < sizeof(payload) ? sum : sizeof(payload);
    if (how & 128) /* cut short */
        length = length * fuzz_u8(in) / 256;
    fuzz_wire_write(&a->wire, bytes, GW_FRAME_HEAD_BYTES + (size_t)entries * GW_FRAME_ENTRY_BYTES);
    fuzz_wire_write(&a->wire, payload, length);
}

static bool receive(struct arena *a)
{
    uint8_t buf[4096];
    struct gw_error err = GW_ERROR_INIT;
    uint64_t before = a->placer.placed_pages;
    for (unsigned i = 0; i < 64; i++) {
        gw_stream_of(a->wire.ep)->rx.ready = true; /* as if poll had said so */
        gw_stream_of(a->wire.ep)->rx.resume_ns = 0;
        ssize_t got = gw_recv(a->wire.ep, buf, sizeof(buf));
        if (a->revoked)
            FUZZ_MUST(a->placer.placed_pages == before);
        if (got == -EAGAIN)
            return true;
        if (got < 0) {
            FUZZ_MUST(gw_ep_error(a->wire.ep, &err) == (int)got);
            fuzz_refused((int)got, &err);
            FUZZ_MUST(err.place[0] != '\0');
            return false;
        }
    }
    return true;
}

static bool act(struct arena *a, struct fuzz_input *in)
{
    uint8_t what = fuzz_u8(in);
    struct fuzz_input piece;
    switch (what % 8) {
    case 0:
    case 1:
        frame(a, in);
        return true;
    case 2:
        piece = fuzz_piece(in, 1 + what / 8);
        fuzz_wire_write(&a->wire, piece.at, piece.left);
        return true;
    case 3:
        lend(a, what >> 7);
        return true;
    case 4:
        take_back(a, what >> 7);
        return true;
    case 5:
        if (what >= 0xf0) {
            gw_ep_revoke(a->wire.ep);
            a->revoked = true;
        }
        return true;
    case 6:
        if (what >= 0xf0 && a->wire.fd >= 0) {
            close(a->wire.fd);
            a->wire.fd = -1;
        }
        return receive(a);
    default:
        return receive(a);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct fuzz_input in = {data, bytes};
    struct arena a;
    int64_t live = gw_alloc_live();
    arena_open(&a);
    while (in.left > 0 && act(&a, &in)) {
    }
    if (in.left == 0)
        receive(&a);
    arena_close(&a);
    FUZZ_MUST(gw_alloc_live() == live);
    return 0;
}
