/* SPDX-License-Identifier: MIT */
/* transport/filter/fault_line.h - what goes out through fault+ stands in a line: messages and puts, each
 * with the time at which it may leave, and marks, so that what was accepted before a mark has left when
 * its rule strikes. A put has a slot from its acceptance to its completion's report; one that never
 * leaves is flushed from there.
 *
 * A line is its endpoint's, and is used by its thread alone. Nothing allocates but init. */
#ifndef GW_TRANSPORT_FILTER_FAULT_LINE_H
#define GW_TRANSPORT_FILTER_FAULT_LINE_H

#include "transport/filter/fault.h"

#define GW_FAULT_SLOTS 1024   /* the largest window here */
#define GW_FAULT_MESSAGES 256 /* in line */
#define GW_FAULT_MARKS 2
#define GW_FAULT_ITEMS (GW_FAULT_SLOTS + GW_FAULT_MESSAGES + GW_FAULT_MARKS)
#define GW_FAULT_BATCH 512 /* puts handed to the wire at once */

enum gw_fault_item_kind { GW_FAULT_ITEM_MESSAGE, GW_FAULT_ITEM_PUT, GW_FAULT_ITEM_MARK };

struct gw_fault_item {
    enum gw_fault_item_kind kind;
    uint64_t due_ns;
    size_t bytes;                     /* MESSAGE: in the ring */
    unsigned slot;                    /* PUT */
    const struct gw_fault_rule *rule; /* MARK */
};

struct gw_fault_slot {
    uint64_t cookie;
    struct gw_put put; /* with the wire's region */
    uint32_t posted;   /* bytes handed to the wire */
    uint32_t flying;   /* pieces of it there */
    int status;
    bool used, done;
};

struct gw_fault_line {
    uint32_t piece_bytes;          /* puts leave in pieces of so many; 0: whole */
    uint64_t rate;                 /* bytes a second; 0: no limit */
    uint64_t last_due_ns, rate_ns; /* of what stands in line */
    struct gw_fault_item items[GW_FAULT_ITEMS];
    unsigned item_first, item_count, message_count;
    uint8_t *ring;
    size_t ring_bytes, ring_first, ring_used;
    struct gw_fault_slot slots[GW_FAULT_SLOTS];
    unsigned free_slots[GW_FAULT_SLOTS];
    unsigned free_count;
    unsigned done[GW_FAULT_SLOTS]; /* completed, and not yet reported */
    unsigned done_first, done_count;
    struct gw_put batch[GW_FAULT_BATCH]; /* scratch: an endpoint without rules uses it too */
};

/* @line: zeroed, piece_bytes and rate set or not. -ENOMEM: it may be finished all the same. */
int gw_fault_line_init(struct gw_fault_line *line, uint32_t message_bytes_max);
void gw_fault_line_fini(struct gw_fault_line *line);

/* ---- into the line ---- */

bool gw_fault_line_has_room(const struct gw_fault_line *line); /* for a message; puts: open_count */
/* Copied. It leaves @delay_ns after @now, and not before what stands in front of it. */
void gw_fault_line_message(struct gw_fault_line *line, const struct iovec *iov, int iov_count,
                           uint64_t bytes, uint64_t now, uint64_t delay_ns);
/* Accept @put, whose region is the wire's: from here on it has a completion to come, though it does not
 * stand in line yet. Only while fewer than GW_FAULT_SLOTS are open. Return: its slot. */
unsigned gw_fault_line_accept(struct gw_fault_line *line, const struct gw_put *put);
void gw_fault_line_put(struct gw_fault_line *line, unsigned slot, uint64_t now, uint64_t delay_ns);
void gw_fault_line_mark(struct gw_fault_line *line, const struct gw_fault_rule *rule, uint64_t now);

/* ---- out of it ---- */

/* Hand @inner what is due. @struck is set when a mark came first. Return: 0 or the wire's final error. */
int gw_fault_line_leave(struct gw_fault_line *line, struct gw_endpoint *inner, uint64_t now,
                        const struct gw_fault_rule **struck);
/* Take what the wire has completed. Return: how many pieces, or the wire's final error. */
int gw_fault_line_collect(struct gw_fault_line *line, struct gw_endpoint *inner);
/* After the final error @rc: nothing leaves any more, and puts of which the wire has nothing complete;
 * with @all, because the wire has no more to say, the rest too. */
void gw_fault_line_flush(struct gw_fault_line *line, int rc, bool all);
/* Return: how many completions were reported. */
unsigned gw_fault_line_report(struct gw_fault_line *line, struct gw_completion *done, unsigned max);

/* ---- about it ---- */

uint64_t gw_fault_line_due_ns(
    const struct gw_fault_line *line); /* of the first; GW_NEVER_NS: none */
unsigned gw_fault_line_open_count(
    const struct gw_fault_line *line); /* puts accepted, not reported */

#endif
