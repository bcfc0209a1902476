/* SPDX-License-Identifier: MIT */
/* core/page_out.h - one page endpoint at the source: its thread, its channel, its sender. */
#ifndef GW_CORE_PAGE_OUT_H
#define GW_CORE_PAGE_OUT_H

#include "core/shell.h"
#include "core/throttle.h"
#include "ram/send.h"

struct gw_page_out;

struct gw_page_out_config {
    unsigned owner;         /* endpoint index - 1 */
    struct gw_endpoint *ep; /* taken over, also on failure */
    struct gw_ram *ram;
    struct gw_chunks *chunks;
    struct gw_throttle *throttle;
    uint64_t peer_timeout_ns;
    size_t packet_data_max; /* of one message */
    /* Reports, by mail, on the thread that drains @engine_inbox, with @engine as their argument. */
    struct gw_inbox *engine_inbox;
    /* Every page of round @number and its fence are handed to the wire. */
    void (*fenced)(void *engine, unsigned owner, uint32_t number);
    /* The endpoint is lost. Said at most once. */
    void (*lost)(void *engine, unsigned owner, const struct gw_error *err);
};

/* A chunk goes round the owners of its parts (one-sided wires), and its end comes as mail: either each
 * puts what a sync found into its bits (@bits, whose first is the range's first page), or, where that is
 * NULL, each lets go of the chunk: nothing of it is in flight, and all that was put is in place. */
struct gw_chunk_visit {
    struct gw_wish range;
    const uint64_t *bits;
    _Atomic unsigned left; /* owners; the last one's decrement (acquire, release) posts `over` */
    struct gw_mail over;   /* to the engine */
};

struct gw_page_visit { /* at one owner */
    struct gw_mail mail;
    struct gw_chunk_visit *of;
    struct gw_page_visit *next;
    uint32_t mark; /* said behind the last put; 0: not yet */
};

/* A section of a device's state that goes beside the stream (core/source_packets.c). Lent until `over`, or until
 * @out was stopped. */
struct gw_page_packet {
    struct gw_mail mail;
    struct gw_page_packet *next;
    uint32_t section;
    uint64_t number, items; /* as in PACKET */
    const uint8_t *data;
    size_t bytes, at;
    struct gw_mail over; /* to the engine: all of it is with the wire */
};

struct gw_page_out_stats {
    uint64_t tx_bytes, copied_bytes, system_calls;
    struct gw_sender_stats sender;
};

int gw_page_out_start(const struct gw_page_out_config *config, struct gw_page_out **out,
                      struct gw_error *err);
/* Send all dirty pages of its stripes, then fence @number; answered by fenced(). Not while one is
 * under way. @final: the last fence, flagged as such. */
void gw_page_out_begin(struct gw_page_out *out, uint32_t number, bool holes, bool final);
/* @visit is lent until the chunk's visit is over, or @out was stopped. An owner whose endpoint is lost may
 * never let go. */
void gw_page_out_visit(struct gw_page_out *out, struct gw_page_visit *visit);
/* Of one that was reported lost: was its last fence said? Then all that it put may be in place. */
bool gw_page_out_has_said_last(const struct gw_page_out *out);
/* Packets of one endpoint keep their order, and pass pages. Not behind the last fence. */
void gw_page_out_packet(struct gw_page_out *out, struct gw_page_packet *packet);
/* A chunk became ready. */
void gw_page_out_wake(struct gw_page_out *out);
/* The endpoint is shut down; the thread ends. Bits of everything unsure are set again when stop
 * returns. Frees @out. Takes NULL. Undelivered reports are gone; why the endpoint was lost, reported or
 * not, is in @why, which is left alone where it was not lost. */
void gw_page_out_stop(struct gw_page_out *out, struct gw_error *why);
void gw_page_out_stats(const struct gw_page_out *out, struct gw_page_out_stats *stats);

#endif
