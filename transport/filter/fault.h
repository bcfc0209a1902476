/* SPDX-License-Identifier: MIT */
/* transport/filter/fault.h - what can be made to go wrong, and when; docs/filters.md has the grammar:
 *
 *     seed=N  and any number of  do=ACTION[,CONDITION]...
 *
 * A plan is what one connection has of that: the rules that concern its endpoint and attempt, each
 * with a count and a random sequence of its own, so that what happens depends on what passes there and
 * on nothing else. */
#ifndef GW_TRANSPORT_FILTER_FAULT_H
#define GW_TRANSPORT_FILTER_FAULT_H

#include "transport/filter/filter.h"

#define GW_FAULT_RULES_MAX 16
#define GW_FAULT_HEAD_MAX 8
#define GW_FAULT_TEXT_BYTES 80

enum gw_fault_action {
    GW_FAULT_REFUSE, /* no connection */
    GW_FAULT_DELAY,  /* it waits, and what follows it */
    GW_FAULT_DROP,   /* it is lost, and so is what follows it */
    GW_FAULT_CUT,    /* behind it the connection ends */
    GW_FAULT_MUTE,   /* behind it nothing passes any more, and nobody is told */
    GW_FAULT_FAIL,   /* a put that fails, and the endpoint with it */
    GW_FAULT_RATE,   /* so many bytes a second */
    GW_FAULT_PIECES, /* puts are cut into pieces */
    GW_FAULT_WINDOW, /* so many puts at most are under way */
    GW_FAULT_TAKE,   /* so many puts at most are taken at once */
    GW_FAULT_ACTIONS,
};

enum gw_fault_kind { GW_FAULT_MESSAGE = 1, GW_FAULT_PUT = 2 };
#define GW_FAULT_OUT 1u
#define GW_FAULT_IN 2u

struct gw_fault_rule {
    enum gw_fault_action action;
    uint64_t amount; /* ns, bytes or puts, by action */
    unsigned ways;   /* GW_FAULT_OUT, GW_FAULT_IN: where it counts and strikes */
    unsigned kinds;  /* what it counts */
    uint16_t endpoint_first, endpoint_last;
    uint32_t attempt_first, attempt_last;
    uint64_t at; /* the at-th of them, or the one with the at-th byte; 0: from the beginning */
    bool at_bytes;
    bool onwards;                    /* and every one after it */
    uint32_t chance;                 /* of 2^32; 0: certain */
    uint8_t head[GW_FAULT_HEAD_MAX]; /* messages that begin so */
    unsigned head_bytes;
    char text[GW_FAULT_TEXT_BYTES]; /* as written, for errors */
};

struct gw_fault_live {
    struct gw_fault_rule rule;
    uint64_t seen; /* of what it counts */
    uint64_t random;
    bool spent;
};

struct gw_fault_plan {
    unsigned count;
    struct gw_fault_live live[GW_FAULT_RULES_MAX];
};

struct gw_fault_hit {
    uint64_t delay_ns;
    const struct gw_fault_rule *drop, *cut, *mute, *fail; /* NULL: it does not strike */
};

/* The rules of @uri that concern endpoint @index and its @attempt. */
int gw_fault_plan_init(struct gw_fault_plan *plan, const struct gw_uri *uri, uint16_t index,
                       uint32_t attempt, struct gw_error *err);
/* The first rule with this action, NULL if there is none. */
const struct gw_fault_rule *gw_fault_find(const struct gw_fault_plan *plan,
                                          enum gw_fault_action action, unsigned way);
/* A message or a put passes: count it and say what strikes. @head: its first bytes. */
void gw_fault_see(struct gw_fault_plan *plan, unsigned way, enum gw_fault_kind kind, uint64_t bytes,
                  const void *head, size_t head_bytes, struct gw_fault_hit *hit);
/* What strikes before anything has passed. */
void gw_fault_see_open(struct gw_fault_plan *plan, struct gw_fault_hit *hit);

#endif
