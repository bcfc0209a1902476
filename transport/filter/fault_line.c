// SPDX-License-Identifier: MIT
/* The line in which what goes out through fault+ stands, and the slots of its puts (fault_line.h).
 *
 * What is due leaves in order. Messages are kept in a ring; puts are handed to the wire a batch at a
 * time, whole or in pieces, and pieces under way are counted in the put's slot. Completions are taken
 * from the wire as they come, not as they are asked for, because a message may stand behind puts that
 * wait for the wire's window.
 *
 * Only the wire can fail here: its final error goes to the endpoint, which judges it and flushes. */
#include "transport/filter/fault_line.h"

#include "core/base/alloc.h"
#include "core/base/bytes.h"
#include "core/base/clock.h"

#include <string.h>

#define QUEUE_BYTES (256u << 10) /* a message is accepted while fewer wait */

int gw_fault_line_init(struct gw_fault_line *line, uint32_t message_bytes_max)
{
    for (unsigned i = 0; i < GW_FAULT_SLOTS; i++)
        line->free_slots[line->free_count++] = GW_FAULT_SLOTS - 1 - i;
    line->ring_bytes = (size_t)QUEUE_BYTES + message_bytes_max;
    line->ring = gw_zalloc(1, line->ring_bytes);
    return line->ring ? 0 : -ENOMEM;
}

void gw_fault_line_fini(struct gw_fault_line *line)
{
    gw_free(line->ring);
    line->ring = NULL;
}

/* ---- into the line ---- */

static struct gw_fault_item *item_at(struct gw_fault_line *line, unsigned i)
{
    return &line->items[(line->item_first + i) % GW_FAULT_ITEMS];
}

static struct gw_fault_item *item_add(struct gw_fault_line *line, enum gw_fault_item_kind kind,
                                      uint64_t now, uint64_t delay_ns, uint64_t bytes)
{
    struct gw_fault_item *item = item_at(line, line->item_count++);
    uint64_t due = now + delay_ns;
    if (line->rate) {
        line->rate_ns = gw_max_u64(line->rate_ns, now) + bytes * GW_NS_PER_S / line->rate;
        due = gw_max_u64(due, line->rate_ns);
    }
    line->last_due_ns = gw_max_u64(line->last_due_ns, due);
    *item = (struct gw_fault_item){.kind = kind, .due_ns = line->last_due_ns, .bytes = bytes};
    return item;
}

static void item_remove(struct gw_fault_line *line)
{
    struct gw_fault_item *item = item_at(line, 0);
    if (item->kind == GW_FAULT_ITEM_MESSAGE) {
        line->ring_first = (line->ring_first + item->bytes) % line->ring_bytes;
        line->ring_used -= item->bytes;
        line->message_count--;
    }
    line->item_first = (line->item_first + 1) % GW_FAULT_ITEMS;
    line->item_count--;
}

static void ring_write(struct gw_fault_line *line, const void *data, size_t bytes)
{
    size_t at = (line->ring_first + line->ring_used) % line->ring_bytes;
    size_t first = gw_min_u64(bytes, line->ring_bytes - at);
    if (bytes == 0)
        return;
    memcpy(line->ring + at, data, first);
    memcpy(line->ring, (const uint8_t *)data + first, bytes - first);
    line->ring_used += bytes;
}

bool gw_fault_line_has_room(const struct gw_fault_line *line)
{
    return line->message_count < GW_FAULT_MESSAGES && line->ring_used < QUEUE_BYTES;
}

void gw_fault_line_message(struct gw_fault_line *line, const struct iovec *iov, int iov_count,
                           uint64_t bytes, uint64_t now, uint64_t delay_ns)
{
    item_add(line, GW_FAULT_ITEM_MESSAGE, now, delay_ns, bytes);
    line->message_count++;
    for (int i = 0; i < iov_count; i++)
        ring_write(line, iov[i].iov_base, iov[i].iov_len);
}

unsigned gw_fault_line_accept(struct gw_fault_line *line, const struct gw_put *put)
{
    unsigned index = line->free_slots[--line->free_count];
    line->slots[index] = (struct gw_fault_slot){.cookie = put->cookie, .put = *put, .used = true};
    return index;
}

void gw_fault_line_put(struct gw_fault_line *line, unsigned slot, uint64_t now, uint64_t delay_ns)
{
    uint64_t bytes = line->slots[slot].put.bytes;
    item_add(line, GW_FAULT_ITEM_PUT, now, delay_ns, bytes)->slot = slot;
}

void gw_fault_line_mark(struct gw_fault_line *line, const struct gw_fault_rule *rule, uint64_t now)
{
    item_add(line, GW_FAULT_ITEM_MARK, now, 0, 0)->rule = rule;
}

/* ---- out of it ---- */

/* 1: it has left; 0: the wire takes nothing more now; else the wire's final error. */
static int leave_message(struct gw_fault_line *line, struct gw_endpoint *inner)
{
    size_t bytes = item_at(line, 0)->bytes;
    size_t first = gw_min_u64(bytes, line->ring_bytes - line->ring_first);
    struct iovec iov[2] = {{.iov_base = line->ring + line->ring_first, .iov_len = first},
                           {.iov_base = line->ring, .iov_len = bytes - first}};
    int rc = gw_send(inner, iov, 2);
    if (rc == -EAGAIN)
        return 0;
    if (rc < 0)
        return rc;
    item_remove(line);
    return 1;
}

/* Pieces of the puts that stand in line and are due, until one is not, or GW_FAULT_BATCH. */
static unsigned gather(struct gw_fault_line *line, uint64_t now)
{
    unsigned n = 0;
    for (unsigned i = 0; i < line->item_count && n < GW_FAULT_BATCH; i++) {
        const struct gw_fault_item *item = item_at(line, i);
        if (item->kind != GW_FAULT_ITEM_PUT || item->due_ns > now)
            break;
        const struct gw_fault_slot *slot = &line->slots[item->slot];
        uint32_t step = line->piece_bytes ? line->piece_bytes : slot->put.bytes;
        for (uint32_t at = slot->posted; at < slot->put.bytes && n < GW_FAULT_BATCH;) {
            struct gw_put *piece = &line->batch[n++];
            *piece = slot->put;
            piece->local = (const uint8_t *)slot->put.local + at;
            piece->offset += at;
            piece->bytes = (uint32_t)gw_min_u64(step, slot->put.bytes - at);
            piece->cookie = item->slot;
            at += piece->bytes;
        }
    }
    return n;
}

static int leave_puts(struct gw_fault_line *line, struct gw_endpoint *inner, uint64_t now)
{
    unsigned count = gather(line, now);
    int taken = gw_put(inner, line->batch, count);
    if (taken < 0)
        return taken;
    for (int i = 0; i < taken; i++) {
        struct gw_fault_slot *slot = &line->slots[line->batch[i].cookie];
        slot->posted += line->batch[i].bytes;
        slot->flying++;
        if (slot->posted == slot->put.bytes)
            item_remove(line);
    }
    return (unsigned)taken == count;
}

int gw_fault_line_leave(struct gw_fault_line *line, struct gw_endpoint *inner, uint64_t now,
                        const struct gw_fault_rule **struck)
{
    int more = 1;
    while (more > 0 && line->item_count > 0 && item_at(line, 0)->due_ns <= now) {
        const struct gw_fault_item *item = item_at(line, 0);
        if (item->kind == GW_FAULT_ITEM_MESSAGE) {
            more = leave_message(line, inner);
        } else if (item->kind == GW_FAULT_ITEM_PUT) {
            more = leave_puts(line, inner, now);
            if (more == 0)
                more = gw_fault_line_collect(line, inner);
        } else {
            *struck = item->rule;
            item_remove(line);
        }
    }
    return more < 0 ? more : 0;
}

/* ---- completions ---- */

static void complete(struct gw_fault_line *line, unsigned index)
{
    line->slots[index].done = true;
    line->done[(line->done_first + line->done_count++) % GW_FAULT_SLOTS] = index;
}

int gw_fault_line_collect(struct gw_fault_line *line, struct gw_endpoint *inner)
{
    struct gw_completion pieces[64];
    int got, count = 0;
    while ((got = gw_poll(inner, pieces, 64)) > 0) {
        for (int i = 0; i < got; i++) {
            struct gw_fault_slot *slot = &line->slots[pieces[i].cookie];
            slot->flying--;
            if (pieces[i].status < 0 && slot->status == 0)
                slot->status = pieces[i].status;
            if (slot->flying == 0 && slot->posted == slot->put.bytes)
                complete(line, (unsigned)pieces[i].cookie);
        }
        count += got;
    }
    return got < 0 ? got : count;
}

void gw_fault_line_flush(struct gw_fault_line *line, int rc, bool all)
{
    line->item_count = 0;
    for (unsigned i = 0; i < GW_FAULT_SLOTS && line->free_count + line->done_count < GW_FAULT_SLOTS;
         i++) {
        struct gw_fault_slot *slot = &line->slots[i];
        if (!slot->used || slot->done || (slot->flying > 0 && !all))
            continue;
        slot->status = rc;
        complete(line, i);
    }
}

unsigned gw_fault_line_report(struct gw_fault_line *line, struct gw_completion *done, unsigned max)
{
    unsigned n = 0;
    while (n < max && line->done_count > 0) {
        unsigned index = line->done[line->done_first];
        line->done_first = (line->done_first + 1) % GW_FAULT_SLOTS;
        line->done_count--;
        done[n++] = (struct gw_completion){.cookie = line->slots[index].cookie,
                                           .status = line->slots[index].status};
        line->slots[index].used = false;
        line->free_slots[line->free_count++] = index;
    }
    return n;
}

/* ---- about it ---- */

uint64_t gw_fault_line_due_ns(const struct gw_fault_line *line)
{
    return line->item_count > 0 ? line->items[line->item_first].due_ns : GW_NEVER_NS;
}

unsigned gw_fault_line_open_count(const struct gw_fault_line *line)
{
    return GW_FAULT_SLOTS - line->free_count;
}
