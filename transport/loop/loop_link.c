// SPDX-License-Identifier: MIT
/* The links of loop:, and the world they lie in: what is under way in them, when it arrives, and what
 * is lost.
 *
 * A flow is a line of items. At its end stand those that were accepted, in front those that have departed:
 * the wire has read their bytes, and they are on their way until their time comes and the reader takes
 * them. A net (loop.h) decides over each item as it is appended, and only then; without one all of it
 * arrives at once.
 *
 * A flow fails by being cut: what was appended before still departs and arrives, what follows departs
 * into the void, so that its sender sees a wire that fills and nothing else, until the end of the flow
 * is told, if ever. Nothing here allocates but gw_loop_link_new(). */
#include "transport/loop/loop_impl.h"

#include "core/base/alloc.h"
#include "core/base/bytes.h"
#include "core/base/clock.h"

/* Under way at most: beyond it nothing departs, as a full socket takes nothing. One item always. */
#define WIRE_BYTES (1u << 20)

pthread_mutex_t gw_loop_lock = PTHREAD_MUTEX_INITIALIZER;
static struct gw_loop_link *links; /* guarded by gw_loop_lock, as is link_count */
static unsigned link_count;
static const struct gw_loop_net *net; /* changes only while there is nothing that could read it */

/* ---- the world -------------------------------------------------------------------------------- */

uint64_t gw_loop_world_ns(void)
{
    return net ? net->now_ns() : gw_clock_ns();
}

uint64_t gw_loop_wake_at(uint64_t ns, uint64_t wake_ns)
{
    uint64_t now_ns = gw_loop_world_ns();
    if (ns == GW_NEVER_NS)
        return wake_ns;
    if (ns <= now_ns)
        return 0;
    return gw_min_u64(wake_ns, gw_clock_ns() + (ns - now_ns));
}

uint64_t gw_loop_doze(uint64_t wake_ns)
{
    return net ? wake_ns : gw_min_u64(wake_ns, gw_clock_ns() + GW_LOOP_DOZE_NS);
}

int gw_loop_owner(void)
{
    return net ? net->owner() : 0;
}

int gw_loop_dial(const struct gw_uri *uri, uint16_t index, uint64_t *delay_ns)
{
    *delay_ns = 0;
    return net ? net->dial(uri, index, delay_ns) : 0;
}

/* ---- flows ------------------------------------------------------------------------------------ */

/* What has departed is lost; what has not is still its sender's. */
static void drop_departed(struct gw_loop_flow *f)
{
    while (f->first && f->first->departed) {
        struct gw_loop_item *item = f->first;
        f->first = item->next;
        gw_free(item);
    }
    if (!f->first)
        f->last = &f->first;
    f->wire_bytes = 0;
}

static void cut_flow(struct gw_loop_flow *f, uint64_t end_ns)
{
    f->cut = true;
    f->end_ns = gw_min_u64(f->end_ns, gw_max_u64(end_ns, f->newest_ns));
}

static bool is_full(const struct gw_loop_flow *f, const struct gw_loop_item *item)
{
    return f->wire_bytes && f->wire_bytes + item->bytes > WIRE_BYTES;
}

struct gw_loop_item *gw_loop_flow_depart_locked(struct gw_loop_flow *f, struct gw_loop_item *behind,
                                                uint64_t now_ns)
{
    struct gw_loop_item *item = behind ? behind->next : f->first;
    while (item && item->departed)
        item = item->next;
    if (!item || item->read_ns > now_ns || is_full(f, item))
        return NULL;
    item->departed = true;
    f->queue_bytes -= item->bytes;
    f->wire_bytes += item->bytes;
    return item;
}

struct gw_loop_item *gw_loop_flow_withdraw_locked(struct gw_loop_flow *f)
{
    struct gw_loop_item **at = &f->first;
    while (*at && (*at)->departed)
        at = &(*at)->next;
    struct gw_loop_item *rest = *at;
    *at = NULL;
    f->last = at;
    f->queue_bytes = 0;
    return rest;
}

struct gw_loop_item *gw_loop_flow_arrived_locked(struct gw_loop_flow *f, uint64_t now_ns)
{
    struct gw_loop_item *item = f->first;
    return item && item->departed && item->deliver_ns <= now_ns ? item : NULL;
}

void gw_loop_flow_remove_locked(struct gw_loop_flow *f)
{
    struct gw_loop_item *item = f->first;
    f->first = item->next;
    if (!f->first)
        f->last = &f->first;
    f->wire_bytes -= item->bytes;
    gw_free(item);
}

struct gw_loop_item *gw_loop_flow_take_put_locked(struct gw_loop_flow *f, uint64_t now_ns)
{
    struct gw_loop_item **at = &f->first;
    while (*at && (*at)->departed && (!(*at)->is_put || (*at)->deliver_ns > now_ns))
        at = &(*at)->next;
    struct gw_loop_item *item = *at;
    if (!item || !item->departed)
        return NULL;
    *at = item->next;
    if (f->last == &item->next)
        f->last = at;
    f->wire_bytes -= item->bytes;
    return item;
}

uint64_t gw_loop_flow_departure_ns_locked(const struct gw_loop_flow *f)
{
    for (const struct gw_loop_item *item = f->first; item; item = item->next) {
        if (!item->departed)
            return is_full(f, item) ? GW_NEVER_NS : item->read_ns;
    }
    return GW_NEVER_NS;
}

uint64_t gw_loop_flow_arrival_ns_locked(const struct gw_loop_flow *f)
{
    uint64_t ns = f->end_ns;
    if (f->first && f->first->departed)
        ns = gw_min_u64(ns, f->first->deliver_ns);
    return ns;
}

/* ---- links ------------------------------------------------------------------------------------ */

static void cut_link(struct gw_loop_link *link, unsigned direction, enum gw_loop_cut cut,
                     uint64_t told_ns)
{
    uint64_t end_ns =
        cut == GW_LOOP_RESET || cut == GW_LOOP_AFTER ? gw_loop_world_ns() + told_ns : GW_NEVER_NS;
    if (cut == GW_LOOP_WHOLE)
        return;
    cut_flow(&link->flow[direction], end_ns);
    if (cut != GW_LOOP_DEAD)
        cut_flow(&link->flow[!direction], end_ns);
}

void gw_loop_link_append_locked(struct gw_loop_link *link, struct gw_loop_item *item,
                                const struct gw_loop_sent *sent)
{
    struct gw_loop_flow *f = &link->flow[sent->direction];
    struct gw_loop_fate fate = {.delay_ns = 0};
    uint64_t now_ns = gw_loop_world_ns();
    if (net && !f->cut)
        net->fate(sent, &fate);
    item->read_ns = now_ns + fate.read_ns;
    item->deliver_ns = now_ns + fate.delay_ns;
    if (!link->direct || !item->is_put) /* a NIC orders messages behind puts, and nothing else */
        item->deliver_ns = gw_max_u64(item->deliver_ns, f->newest_ns);
    item->deliver_ns = gw_max_u64(item->deliver_ns, item->read_ns);
    if (f->cut) { /* into the void: it fills the wire and stays there */
        item->deliver_ns = GW_NEVER_NS;
    } else if (fate.cut != GW_LOOP_WHOLE && fate.cut != GW_LOOP_AFTER) {
        bool partly = item->is_put && fate.cut_bytes > 0 && fate.cut_bytes < item->bytes;
        item->lost = partly ? item->bytes - fate.cut_bytes : 0;
        item->deliver_ns = partly ? item->deliver_ns : GW_NEVER_NS;
        if (partly)
            f->newest_ns = gw_max_u64(f->newest_ns, item->deliver_ns);
        cut_link(link, sent->direction, fate.cut, fate.told_ns);
    } else {
        f->newest_ns = gw_max_u64(f->newest_ns, item->deliver_ns);
        cut_link(link, sent->direction, fate.cut, fate.told_ns);
    }
    f->queue_bytes += item->bytes;
    item->next = NULL;
    *f->last = item;
    f->last = &item->next;
}

struct gw_loop_link *gw_loop_link_next_locked(struct gw_loop_link *link)
{
    return link ? link->next : links;
}

struct gw_loop_link *gw_loop_link_new(void)
{
    struct gw_loop_link *link = gw_zalloc(1, sizeof(*link));
    if (!link)
        return NULL;
    for (unsigned i = 0; i < 2; i++) {
        link->flow[i].last = &link->flow[i].first;
        link->flow[i].end_ns = GW_NEVER_NS;
    }
    link->open = 2;
    return link;
}

void gw_loop_link_list_locked(struct gw_loop_link *link, int connector, int acceptor)
{
    link->number = ++link_count;
    link->owner[0] = connector;
    link->owner[1] = acceptor;
    link->next = links;
    links = link;
}

static void link_free_locked(struct gw_loop_link *link)
{
    struct gw_loop_link **at = &links;
    while (*at != link)
        at = &(*at)->next;
    *at = link->next;
    drop_departed(&link->flow[0]);
    drop_departed(&link->flow[1]);
    gw_free(link);
}

void gw_loop_link_flushed(const struct gw_loop_item *item)
{
    if (net && net->flushed)
        net->flushed(item->local, item->bytes);
}

void gw_loop_link_leave_locked(struct gw_loop_link *link, unsigned direction)
{
    struct gw_loop_flow *out = &link->flow[direction], *in = &link->flow[!direction];
    uint64_t end_ns = gw_loop_world_ns() + (net ? net->hang_up() : 0);
    if (!out->cut)
        cut_flow(out, end_ns); /* after what has departed */
    in->cut = true;
    drop_departed(in);
    if (net && net->closed)
        net->closed(link->number, direction);
    if (--link->open == 0)
        link_free_locked(link);
}

void gw_loop_link_crash_locked(int owner, uint64_t after_ns)
{
    uint64_t end_ns = after_ns == GW_NEVER_NS ? GW_NEVER_NS : gw_loop_world_ns() + after_ns;
    for (struct gw_loop_link *link = links; link; link = link->next) {
        for (unsigned i = 0; i < 2; i++) {
            if (link->owner[i] != owner)
                continue;
            cut_flow(&link->flow[i], end_ns);
            link->flow[!i].cut = true;
            link->crashed[i] = true;
        }
    }
}

/* ---- for a simulator -------------------------------------------------------------------------- */

void gw_loop_set_net(const struct gw_loop_net *fresh)
{
    pthread_mutex_lock(&gw_loop_lock);
    net = fresh;
    link_count = 0;
    pthread_mutex_unlock(&gw_loop_lock);
}

unsigned gw_loop_link_count(void)
{
    pthread_mutex_lock(&gw_loop_lock);
    unsigned count = link_count;
    pthread_mutex_unlock(&gw_loop_lock);
    return count;
}

void gw_loop_cut_link(unsigned number, enum gw_loop_cut cut, uint64_t told_ns)
{
    pthread_mutex_lock(&gw_loop_lock);
    for (struct gw_loop_link *link = links; link; link = link->next) {
        if (link->number == number)
            cut_link(link, 0, cut, told_ns);
    }
    pthread_mutex_unlock(&gw_loop_lock);
}
