/* SPDX-License-Identifier: MIT */
/* transport/loop/loop.h - what a simulator may do to the loop wire. Nothing in the library includes
 * this; without a net the wire is instant and never fails.
 *
 * A *link* is one connection; its direction 0 leads from the end that connected. */
#ifndef GW_TRANSPORT_LOOP_H
#define GW_TRANSPORT_LOOP_H

#include "transport/transport.h"

/* loop1: is loop: with a NIC's manners. A put lands without any code of the receiver, in no order but
 * before the message behind it; a region needs the key that its owner packed, and a put with another
 * breaks the connection; registering pins memory, so that all of it counts as written; after revoke an
 * endpoint is mute. */

enum gw_loop_cut {
    GW_LOOP_WHOLE,
    GW_LOOP_RESET, /* lost from here on, this direction and the other; both ends will learn of it */
    GW_LOOP_DEAD,  /* lost from here on, this direction; nobody learns of it (half-open) */
    GW_LOOP_AFTER, /* RESET, but this still arrives: perhaps when the link has long been replaced */
    GW_LOOP_GONE,  /* lost from here on, both directions; nobody learns of it */
};

struct gw_loop_sent {
    unsigned link;      /* counts from 1 in the order of connecting */
    unsigned direction; /* 0: from the end that connected */
    uint16_t index;     /* of the endpoint: 0 control */
    bool is_put;
    const struct gw_put *put;
    const void *message; /* else */
    size_t bytes;
};

struct gw_loop_fate {
    uint64_t delay_ns; /* until it arrives; never before what was sent earlier on this link */
    uint64_t read_ns;  /* until a put's local bytes are read and it completes */
    enum gw_loop_cut cut;
    uint32_t cut_bytes; /* of a put: so many of its bytes are placed first */
    uint64_t told_ns;   /* RESET: until the ends learn of it */
};

struct gw_loop_net {
    uint64_t (*now_ns)(void); /* the world's clock; an end's own may differ */
    int (*owner)(void);       /* whose code runs: kept with the ends made now */
    void (*fate)(const struct gw_loop_sent *sent, struct gw_loop_fate *fate);  /* zeroed: benign */
    int (*dial)(const struct gw_uri *uri, uint16_t index, uint64_t *delay_ns); /* 0 or an error */
    uint64_t (*hang_up)(void); /* delay until the peer of a closed end learns of it */
    void (*closed)(unsigned link, unsigned direction); /* by its own end; may be NULL */
    void (*flushed)(const void *local,
                    size_t bytes); /* a put completes with an error; may be NULL */
};

/* What registering with a loop1: domain does; both on the thread that registers. Either may be NULL. */
struct gw_loop_pins {
    /* @owner's domain would have @registered_bytes; 0, or a negative errno that refuses. */
    int (*charge)(int owner, const struct gw_mr_desc *desc, uint64_t registered_bytes);
    void (*pin)(int owner,
                const struct gw_mr_desc *desc); /* instead of faulting it in for writing */
};

void gw_loop_set_pins(const struct gw_loop_pins *pins); /* not while anything registers */

/* Not while any loop endpoint or listener exists. NULL: none. */
void gw_loop_set_net(const struct gw_loop_net *net);
/* Everything that @owner's ends have not been given yet is lost, and what they say from now on. Peers
 * learn of it, @after_ns later; GW_NEVER_NS: never. */
void gw_loop_crash(int owner, uint64_t after_ns);
/* One link, both directions. */
void gw_loop_cut_link(unsigned link, enum gw_loop_cut cut, uint64_t told_ns);
unsigned gw_loop_link_count(void); /* made so far: the number of the newest */

#endif
