// SPDX-License-Identifier: MIT
/* Messages: SENDs into receive buffers of the peer. Each end has posted so many slots of so many bytes
 * and has said so when it connected; a message longer than a slot goes in parts. A part is sent only
 * into a slot that is known to be free (a credit), so an honest peer is never made to answer "receiver
 * not ready". Credits come back with whatever goes the other way, or alone when eight are owed; the
 * last one is kept for that, so two ends that have both run out always have one message left to say
 * so. The slots hold the longest message and more: a reader that reads always frees eight.
 *
 * A part begins with 8 bytes, big-endian:
 *   0 1  kind: 1 part, 2 last part, 3 credits alone
 *   1 1  zero
 *   2 2  credits given back
 *   4 4  bytes of the message that follow */
#include "core/base/alloc.h"
#include "core/base/bytes.h"
#include "transport/rdma/rdma.h"

#include <inttypes.h>
#include <string.h>

#define HEAD_BYTES 8u
#define PAGE_BYTES 4096u
#define TX_LAST 0x80000000u
/* Half of the slots that a waiting part of a message can never occupy. */
#define CREDITS_ALONE (GW_RDMA_SLOTS_SPARE / 2)
#define THEIR_SLOT_BYTES_MIN GW_RDMA_SLOT_BYTES
#define THEIR_SLOT_BYTES_MAX (1u << 20)
#define THEIR_SLOTS_MIN (CREDITS_ALONE * 2)

enum { PART = 1, PART_LAST, PART_CREDITS };

/* ---- hello ------------------------------------------------------------------------------------------ */

void gw_rdma_hello_encode(const struct gw_rdma_hello *hello, uint8_t bytes[8])
{
    gw_be32_store(bytes, hello->slot_bytes);
    gw_be16_store(bytes + 4, (uint16_t)hello->slots);
    gw_be16_store(bytes + 6, 0);
}

int gw_rdma_hello_decode(const uint8_t bytes[8], struct gw_rdma_hello *hello)
{
    hello->slot_bytes = gw_be32_load(bytes);
    hello->slots = gw_be16_load(bytes + 4);
    if (hello->slot_bytes < THEIR_SLOT_BYTES_MIN || hello->slot_bytes > THEIR_SLOT_BYTES_MAX ||
        hello->slots < THEIR_SLOTS_MIN || gw_be16_load(bytes + 6) != 0)
        return -EPROTO;
    return 0;
}

void gw_rdma_message_met(struct gw_rdma_ep *e, const struct gw_rdma_hello *theirs)
{
    e->theirs = *theirs;
    e->tx_credits = theirs->slots;
}

/* ---- buffers ---------------------------------------------------------------------------------------- */

static uint32_t parts_of(uint64_t bytes, uint32_t slot_bytes)
{
    uint64_t room = slot_bytes - HEAD_BYTES;
    return bytes == 0 ? 1 : (uint32_t)((bytes + room - 1) / room);
}

int gw_rdma_message_init(struct gw_rdma_ep *e, struct gw_error *err)
{
    uint32_t longest = parts_of(e->message_bytes_max, GW_RDMA_SLOT_BYTES);
    e->slot_bytes = GW_RDMA_SLOT_BYTES;
    e->rx_slots = longest + GW_RDMA_SLOTS_SPARE;
    e->tx_slots = longest + GW_RDMA_SLOTS_SPARE;
    size_t bytes = ((size_t)e->rx_slots + e->tx_slots + 1) * e->slot_bytes;
    e->slots_memory = gw_zalloc(1, bytes + PAGE_BYTES);
    e->tx_parts = gw_zalloc(e->tx_slots, sizeof(*e->tx_parts));
    e->parts = gw_zalloc(e->rx_slots, sizeof(*e->parts));
    if (!e->slots_memory || !e->tx_parts || !e->parts)
        return gw_fail(err, -ENOMEM, "%zu bytes of message buffers", bytes);
    /* Whole pages, so that none of the pinned ones is shared with the rest of the heap. */
    e->rx = e->slots_memory + (PAGE_BYTES - (uintptr_t)e->slots_memory % PAGE_BYTES) % PAGE_BYTES;
    e->tx = e->rx + (size_t)e->rx_slots * e->slot_bytes;
    int rc = gw_rdma_register(e->dom, e->rx, bytes, 0, IBV_ACCESS_LOCAL_WRITE, &e->slots_mr, err);
    if (rc < 0)
        gw_error_prefix(err, "message buffers");
    return rc;
}

void gw_rdma_message_fini(struct gw_rdma_ep *e)
{
    gw_rdma_unregister(e->dom, e->slots_mr);
    gw_free(e->slots_memory);
    gw_free(e->tx_parts);
    gw_free(e->parts);
}

static int post_receive(struct gw_rdma_ep *e, uint32_t slot)
{
    struct ibv_sge sge = {
        .addr = (uint64_t)slot * e->slot_bytes, .length = e->slot_bytes, .lkey = e->slots_mr->lkey};
    struct ibv_recv_wr wr = {.wr_id = GW_RDMA_RECEIVE_BIT | slot, .sg_list = &sge, .num_sge = 1};
    struct ibv_recv_wr *bad;
    int rc = ibv_post_recv(e->qp, &wr, &bad);
    if (rc != 0)
        return -rc;
    e->rx_posted++;
    return 0;
}

int gw_rdma_message_post(struct gw_rdma_ep *e)
{
    for (uint32_t slot = 0; slot < e->rx_slots; slot++) {
        int rc = post_receive(e, slot);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* ---- receiving -------------------------------------------------------------------------------------- */

static void give_back(struct gw_rdma_ep *e, uint32_t slot)
{
    if (e->is_error)
        return;
    int rc = post_receive(e, slot);
    if (rc < 0)
        gw_rdma_fail(e, rc, GW_CODE_IO, "", "post a receive");
    else
        e->rx_owed++;
}

static void garbled(struct gw_rdma_ep *e, const char *what)
{
    gw_rdma_fail(e, -EPROTO, GW_CODE_PROTOCOL, "", "the peer broke the protocol: %s", what);
}

static bool take_credits(struct gw_rdma_ep *e, uint32_t credits)
{
    if (credits > e->theirs.slots - e->tx_credits) {
        garbled(e, "more credits than it has slots");
        return false;
    }
    e->tx_credits += credits;
    return true;
}

void gw_rdma_message_arrived(struct gw_rdma_ep *e, uint32_t slot, uint32_t bytes)
{
    const uint8_t *head = e->rx + (size_t)slot * e->slot_bytes;
    e->rx_bytes += bytes;
    if (bytes < HEAD_BYTES || gw_be32_load(head + 4) != bytes - HEAD_BYTES || head[1] != 0 ||
        head[0] < PART || head[0] > PART_CREDITS) {
        garbled(e, "no part of a message begins here");
        return;
    }
    if (!take_credits(e, gw_be16_load(head + 2)))
        return;
    if (head[0] == PART_CREDITS) {
        give_back(e, slot);
        return;
    }
    struct gw_rdma_part part = {
        .slot = slot, .bytes = bytes - HEAD_BYTES, .is_last = head[0] == PART_LAST};
    if (part.bytes > e->message_bytes_max - e->rx_part_bytes ||
        (!part.is_last && part.bytes == 0)) {
        garbled(e, part.bytes == 0 ? "an empty part" : "a message longer than the limit");
        return;
    }
    e->rx_part_bytes = part.is_last ? 0 : e->rx_part_bytes + part.bytes;
    e->messages_ready += part.is_last;
    gw_assert(e->parts_count < e->rx_slots);
    e->parts[(e->parts_first + e->parts_count++) % e->rx_slots] = part;
}

static struct gw_rdma_part *part_at(struct gw_rdma_ep *e, uint32_t index)
{
    return &e->parts[(e->parts_first + index) % e->rx_slots];
}

/* The message at the head, which is whole. */
static ssize_t take_message(struct gw_rdma_ep *e, uint8_t *buf, size_t bytes)
{
    size_t total = 0;
    uint32_t count = 0;
    do {
        total += part_at(e, count)->bytes;
    } while (!part_at(e, count++)->is_last);
    if (total > bytes)
        return gw_rdma_fail(e, -EMSGSIZE, GW_CODE_PROTOCOL, "",
                            "a message of %zu bytes for a buffer of %zu", total, bytes);
    for (size_t at = 0; count > 0; count--) {
        struct gw_rdma_part *part = part_at(e, 0);
        if (part->bytes > 0)
            memcpy(buf + at, e->rx + (size_t)part->slot * e->slot_bytes + HEAD_BYTES, part->bytes);
        at += part->bytes;
        e->parts_first = (e->parts_first + 1) % e->rx_slots;
        e->parts_count--;
        give_back(e, part->slot);
    }
    e->messages_ready--;
    gw_rdma_message_push(e); /* the credits, if it is time */
    return (ssize_t)total;
}

ssize_t gw_rdma_recv(struct gw_endpoint *ep, void *buf, size_t bytes)
{
    struct gw_rdma_ep *e = gw_rdma_ep_of(ep);
    bool was_told = e->is_told;
    int rc = gw_rdma_check(e);
    e->turn_bytes = 0;
    if (atomic_load_explicit(&e->shut, memory_order_relaxed))
        return rc;
    /* What had arrived is the peer's last word; after a verdict of our own it is not wanted. */
    bool wanted = e->rc == 0 || e->is_revoked || e->err.code == GW_CODE_PEER_LOST ||
                  e->err.code == GW_CODE_PEER_SILENT || e->err.code == GW_CODE_LINK_DOWN;
    if (e->messages_ready > 0 && wanted) {
        e->is_told = was_told;
        return take_message(e, buf, bytes);
    }
    return rc < 0 ? rc : -EAGAIN;
}

/* ---- sending ---------------------------------------------------------------------------------------- */

static void set_head(struct gw_rdma_ep *e, uint8_t *head, uint8_t kind, uint32_t bytes)
{
    uint32_t credits = e->rx_owed;
    head[0] = kind;
    head[1] = 0;
    gw_be16_store(head + 2, (uint16_t)credits);
    gw_be32_store(head + 4, bytes);
    e->rx_owed -= credits;
}

/* wr[at]: slot @slot of tx, whose head is set here, with the credits that are owed now. */
static void fill(struct gw_rdma_ep *e, unsigned at, uint32_t slot, uint8_t kind, uint32_t bytes)
{
    uint64_t offset = (uint64_t)slot * e->slot_bytes;
    set_head(e, e->tx + offset, kind, bytes);
    e->sge[at] = (struct ibv_sge){.addr = (uint64_t)(e->tx - e->rx) + offset,
                                  .length = HEAD_BYTES + bytes,
                                  .lkey = e->slots_mr->lkey};
    e->wr[at] = (struct ibv_send_wr){.sg_list = &e->sge[at],
                                     .num_sge = 1,
                                     .opcode = IBV_WR_SEND,
                                     .send_flags = IBV_SEND_SIGNALED};
    e->records[(e->posted + at) % e->send_depth] =
        (struct gw_rdma_record){.work = kind == PART_CREDITS ? GW_RDMA_CREDIT : GW_RDMA_SEND};
    e->tx_credits--;
    e->tx_bytes += HEAD_BYTES + bytes;
}

void gw_rdma_message_push(struct gw_rdma_ep *e)
{
    while (e->rc == 0 && e->tx_next < e->tx_filled && e->tx_credits > 1) {
        unsigned count = 0;
        while (e->tx_next + count < e->tx_filled && e->tx_credits > 1 && count < GW_RDMA_PUT_LIST) {
            uint32_t slot = (uint32_t)((e->tx_next + count) % e->tx_slots);
            uint32_t bytes = e->tx_parts[slot];
            fill(e, count++, slot, bytes & TX_LAST ? PART_LAST : PART, bytes & ~TX_LAST);
        }
        e->tx_next += gw_rdma_post(e, count);
    }
    if (e->rc == 0 && e->rx_owed >= CREDITS_ALONE && e->tx_credits > 0 && !e->is_credit_busy) {
        fill(e, 0, e->tx_slots, PART_CREDITS, 0);
        e->is_credit_busy = true;
        gw_rdma_post(e, 1);
    }
}

void gw_rdma_message_sent(struct gw_rdma_ep *e, enum gw_rdma_work work)
{
    if (work == GW_RDMA_SEND)
        e->tx_sent++;
    else if (work == GW_RDMA_CREDIT)
        e->is_credit_busy = false;
}

bool gw_rdma_message_has_room(const struct gw_rdma_ep *e)
{
    return e->tx_slots - (e->tx_filled - e->tx_sent) >=
           parts_of(e->message_bytes_max, e->slot_bytes);
}

/* The longest part that fits a slot at both ends. */
static uint32_t part_bytes_max(const struct gw_rdma_ep *e)
{
    return (uint32_t)gw_min_u64(e->slot_bytes, e->theirs.slot_bytes) - HEAD_BYTES;
}

static size_t gathered(const struct iovec *iov, int iov_count, size_t max)
{
    size_t bytes = 0;
    for (int i = 0; i < iov_count; i++) {
        if (iov[i].iov_len > max - bytes)
            return SIZE_MAX;
        bytes += iov[i].iov_len;
    }
    return bytes;
}

/* Into as many slots as it takes; there is room. */
static void copy_in(struct gw_rdma_ep *e, const struct iovec *iov, size_t bytes)
{
    size_t at = 0; /* of *iov */
    do {
        uint32_t slot = (uint32_t)(e->tx_filled++ % e->tx_slots);
        uint8_t *to = e->tx + (size_t)slot * e->slot_bytes + HEAD_BYTES;
        uint32_t part = (uint32_t)gw_min_u64(bytes, part_bytes_max(e));
        bytes -= part;
        e->tx_parts[slot] = part | (bytes == 0 ? TX_LAST : 0);
        while (part > 0) {
            for (; at == iov->iov_len; iov++)
                at = 0;
            size_t piece = gw_min_u64(part, iov->iov_len - at);
            memcpy(to, (const uint8_t *)iov->iov_base + at, piece);
            to += piece;
            at += piece;
            part -= (uint32_t)piece;
        }
    } while (bytes > 0);
}

int gw_rdma_send(struct gw_endpoint *ep, const struct iovec *iov, int iov_count)
{
    struct gw_rdma_ep *e = gw_rdma_ep_of(ep);
    int rc = gw_rdma_check(e);
    if (rc < 0)
        return rc;
    size_t bytes = gathered(iov, iov_count, e->message_bytes_max);
    if (bytes == SIZE_MAX)
        return -EMSGSIZE;
    uint32_t parts = parts_of(bytes, part_bytes_max(e) + HEAD_BYTES);
    e->is_tx_starved = e->tx_slots - (e->tx_filled - e->tx_sent) < parts;
    if (e->is_tx_starved)
        return -EAGAIN;
    copy_in(e, iov, bytes);
    gw_rdma_message_push(e);
    return e->rc;
}
