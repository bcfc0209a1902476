// SPDX-License-Identifier: MIT
/* Pages leave by puts: a run is one put, from guest memory to the same offset at the peer; as many as
 * one gw_put() takes go together, so that a stream's frame carries many scattered pages. A slot
 * remembers each run until the wire lends its bytes back; the slot's index is the put's cookie. Zero
 * runs and fences are said on the same endpoint through the peer, after what was put before them.
 *
 * A failing endpoint: pages() passes its error on, and reap() still returns every run that was taken,
 * with the status its completion came with. */
#include "ram/sink.h"

#include "core/base/alloc.h"
#include "core/base/bytes.h"

#include <stddef.h>

/* A longer run would win nothing on any wire, and holds its pages back from going again for longer. */
#define RUN_BYTES_MAX (4u << 20)
#define WINDOW_MAX 65536u
#define PUTS_MAX 512u
#define REAP_MAX 64u

struct sink_put {
    struct gw_sink sink;
    struct gw_endpoint *ep;
    const struct gw_ram_peer_ops *peer;
    void *peer_ctx;
    uint32_t zero_number; /* of the last zero message said */
    uint32_t puts_max;    /* in one gw_put() */

    uint32_t in_flight;
    struct gw_run *run;   /* by slot */
    uint32_t *free_slots; /* a stack of window - in_flight */
    struct gw_put *put;   /* puts_max: one call's */

    /* Completions polled and not yet returned: those after a change of status. */
    struct gw_completion done[REAP_MAX];
    unsigned done_first;
    unsigned done_count;
};

static struct sink_put *of(const struct gw_sink *sink)
{
    return (struct sink_put *)((uintptr_t)sink - offsetof(struct sink_put, sink));
}

static void fill_put(struct gw_put *put, const struct gw_run *run, uint32_t slot)
{
    uint64_t offset = run->first_page * GW_PAGE_BYTES;
    *put = (struct gw_put){
        .local = (const char *)run->block->desc.host + offset,
        .mr = run->mr,
        .rmr = run->rmr,
        .offset = offset - run->base,
        .bytes = run->pages * GW_PAGE_BYTES,
        .cookie = slot,
    };
}

static int put_pages(struct gw_sink *sink, const struct gw_run *runs, unsigned count)
{
    struct sink_put *own = of(sink);
    unsigned taken = 0;
    while (taken < count) {
        uint32_t room = sink->window - own->in_flight;
        uint32_t want = (uint32_t)gw_min_u64(gw_min_u64(count - taken, own->puts_max), room);
        if (!want)
            break;
        for (uint32_t i = 0; i < want; i++) {
            uint32_t slot = own->free_slots[room - 1 - i];
            fill_put(&own->put[i], &runs[taken + i], slot);
            own->run[slot] = runs[taken + i];
        }
        int accepted = gw_put(own->ep, own->put, want);
        if (accepted < 0)
            return taken ? (int)taken : accepted;
        gw_assert((uint32_t)accepted <= want);
        own->in_flight += (uint32_t)accepted;
        taken += (unsigned)accepted;
        if ((uint32_t)accepted < want)
            break;
    }
    return (int)taken;
}

static int put_zero(struct gw_sink *sink, const struct gw_zero_run *runs, unsigned count)
{
    struct sink_put *own = of(sink);
    int rc = own->peer->zero(own->peer_ctx, own->zero_number + 1, runs, count);
    if (rc == 0)
        own->zero_number++;
    return rc;
}

static int put_fence(struct gw_sink *sink, uint32_t number)
{
    struct sink_put *own = of(sink);
    return own->peer->fence(own->peer_ctx, number);
}

static int put_reap(struct gw_sink *sink, struct gw_run *runs, int *status, unsigned max)
{
    struct sink_put *own = of(sink);
    if (own->done_first == own->done_count) {
        int polled = gw_poll(own->ep, own->done, REAP_MAX);
        if (polled <= 0)
            return polled;
        own->done_first = 0;
        own->done_count = (unsigned)polled;
    }
    unsigned count = 0;
    int first_status = own->done[own->done_first].status;
    while (count < max && own->done_first < own->done_count &&
           own->done[own->done_first].status == first_status) {
        uint32_t slot = (uint32_t)own->done[own->done_first++].cookie;
        gw_assert(slot < sink->window && own->in_flight);
        runs[count++] = own->run[slot];
        own->in_flight--;
        own->free_slots[sink->window - own->in_flight - 1] = slot;
    }
    *status = first_status;
    return (int)count;
}

static unsigned put_in_flight(const struct gw_sink *sink)
{
    return of(sink)->in_flight;
}

static void put_free(struct gw_sink *sink)
{
    struct sink_put *own = of(sink);
    gw_free(own->run);
    gw_free(own->free_slots);
    gw_free(own->put);
    gw_free(own);
}

static const struct gw_sink_ops put_ops = {
    .pages = put_pages,
    .zero = put_zero,
    .fence = put_fence,
    .reap = put_reap,
    .in_flight = put_in_flight,
    .free = put_free,
};

struct gw_sink *gw_sink_put_new(struct gw_endpoint *ep, const struct gw_ram_peer_ops *peer,
                                void *peer_ctx)
{
    struct sink_put *own = gw_zalloc(1, sizeof(*own));
    if (!own)
        return NULL;
    struct gw_ep_attr attr;
    gw_ep_query(ep, &attr);
    gw_assert(attr.put_bytes_max >= GW_PAGE_BYTES && attr.put_count_max && attr.put_window);
    own->ep = ep;
    own->peer = peer;
    own->peer_ctx = peer_ctx;
    own->puts_max = (uint32_t)gw_min_u64(attr.put_count_max, PUTS_MAX);
    own->sink = (struct gw_sink){
        .ops = &put_ops,
        .one_sided = attr.flags & GW_EP_ONE_SIDED,
        .run_bytes_max =
            (uint32_t)gw_min_u64(attr.put_bytes_max, RUN_BYTES_MAX) / GW_PAGE_BYTES * GW_PAGE_BYTES,
        .run_count_max = own->puts_max,
        .window = (uint32_t)gw_min_u64(attr.put_window, WINDOW_MAX),
    };
    own->run = gw_zalloc(own->sink.window, sizeof(*own->run));
    own->free_slots = gw_zalloc(own->sink.window, sizeof(*own->free_slots));
    own->put = gw_zalloc(own->puts_max, sizeof(*own->put));
    if (!own->run || !own->free_slots || !own->put) {
        put_free(&own->sink);
        return NULL;
    }
    for (uint32_t i = 0; i < own->sink.window; i++)
        own->free_slots[i] = own->sink.window - 1 - i;
    return &own->sink;
}
